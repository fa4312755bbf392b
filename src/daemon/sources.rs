//! The sources that the settings name.
//!
//! Part of starting up: settings to `source::Source`.

use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Handle;

use super::http_intake::SPOOL_FOLDER;
use crate::clock::Clock;
use crate::config::{self, Config, HTTP, SourceKind, StartFrom};
use crate::event::decode::Format;
use crate::source::files::{FileSource, FilesSpec};
use crate::source::folders::FolderSource;
use crate::source::kafka::KafkaSource;
use crate::source::kinesis::{self, KinesisSettings, KinesisSource, LeaseSettings};
use crate::source::objects::{Known, ObjectSource, ObjectsSettings};
use crate::source::spool::Spool;
use crate::source::{BatchLimits, Source};

/// The files and folders of the settings, to be read once as they lie.
pub fn given_files(config: &Config) -> FileSource {
    FileSource::new(file_specs(config), true)
}

/// What sources need of the daemon.
pub struct Surroundings {
    /// Written by the receiver, if there is one.
    pub spool: Option<Arc<Spool>>,
    /// What the lake knows of objects.
    pub known: Known,
    /// Tells this lake from others.
    pub lake_id: String,
    pub clock: Arc<dyn Clock>,
}

/// Everything that the daemon follows. The spool is among it also when nothing listens any more: what
/// was answered before is carried on.
///
/// # Errors
/// A source cannot be set up as the settings say.
pub async fn followed(config: &Config, around: Surroundings) -> anyhow::Result<Vec<Box<dyn Source>>> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    for source in &config.sources {
        let (format, names_columns) = (source.format.format(), source.names_columns());
        let (name, clock) = (source.name.as_str(), &around.clock);
        let built: Box<dyn Source> = match &source.from {
            SourceKind::Files(path) => {
                let spec = FilesSpec {
                    path: path.clone(),
                    format,
                    names_columns,
                };
                Box::new(FolderSource::new(name, FileSource::new(vec![spec], false), None))
            }
            SourceKind::Kafka(kafka) => {
                let settings = kafka.settings(name, &around.lake_id, format);
                Box::new(KafkaSource::new(settings, Arc::clone(clock))?)
            }
            SourceKind::Kinesis(kinesis) => Box::new(kinesis_source(config, name, kinesis, format, &around).await?),
            SourceKind::S3(s3) => {
                let settings = ObjectsSettings {
                    names_columns,
                    ..objects_settings(name, s3, format)
                };
                let known = Arc::clone(&around.known);
                let opened = ObjectSource::open(settings, &Handle::current(), known, Arc::clone(clock));
                Box::new(opened.with_context(|| format!("source `{name}` cannot be set up"))?)
            }
        };
        sources.push(built);
    }
    let spooled = FilesSpec {
        path: config.data.join(SPOOL_FOLDER),
        format: Some(Format::Spooled),
        names_columns: false,
    };
    let files = FileSource::new(vec![spooled], false);
    sources.push(Box::new(FolderSource::new(HTTP, files, around.spool)));
    Ok(sources)
}

async fn kinesis_source(
    config: &Config,
    name: &str,
    written: &config::Kinesis,
    format: Option<Format>,
    around: &Surroundings,
) -> anyhow::Result<KinesisSource> {
    let mut settings = KinesisSettings::new(name, &written.stream, &around.lake_id);
    settings.region.clone_from(&written.region);
    settings.endpoint_url.clone_from(&written.endpoint_url);
    settings.format = format;
    settings.start = match written.start {
        StartFrom::Earliest => kinesis::Start::TrimHorizon,
        StartFrom::Latest => kinesis::Start::Latest,
    };
    let leases = match (written.share, &config.lake) {
        (false, _) => None,
        (true, None) => {
            anyhow::bail!("source `{name}` has `share: true`, which keeps leases beside the tables in S3; set lake.url, or take it out")
        }
        (true, Some(_)) => {
            let store = super::lake_place(config)?.store()?;
            Some(LeaseSettings::new(store, format!("leases/{}", written.stream)))
        }
    };
    let client = kinesis::connect(&settings).await;
    Ok(KinesisSource::new(settings, client, leases, Handle::current(), &around.clock))
}

fn objects_settings(name: &str, written: &config::S3, format: Option<Format>) -> ObjectsSettings {
    let (url, prefix) = split_at_date(&written.url);
    ObjectsSettings {
        prefix: prefix.to_string(),
        suffixes: written.suffixes.clone(),
        format,
        list_every: Some(written.list_every),
        late: written.late,
        queue_url: written.queue_url.clone(),
        region: written.region.clone(),
        endpoint_url: written.endpoint_url.clone(),
        ..ObjectsSettings::new(name, url)
    }
}

/// `s3://logs/cdn/{yyyy}/` is the place `s3://logs/cdn/` with keys that start with `{yyyy}/`.
fn split_at_date(url: &str) -> (&str, &str) {
    let Some(brace) = url.find('{') else { return (url, "") };
    let at = url[..brace].rfind('/').map_or(brace, |slash| slash + 1);
    url.split_at(at)
}

/// Their names, as `Source::name` gives them: known before any of them is opened.
pub fn names(config: &Config) -> Vec<&str> {
    let set = config.sources.iter().map(|source| source.name.as_str());
    set.chain([HTTP]).collect()
}

/// The layouts that the settings give their records.
pub fn fields(config: &Config) -> Vec<Option<String>> {
    config.sources.iter().map(|source| source.fields.clone()).collect()
}

fn file_specs(config: &Config) -> Vec<FilesSpec> {
    let specs = config.sources.iter().filter_map(|source| match &source.from {
        SourceKind::Files(path) => Some(FilesSpec {
            path: path.clone(),
            format: source.format.format(),
            names_columns: source.names_columns(),
        }),
        _ => None,
    });
    specs.collect()
}

/// How much one epoch may hold.
pub fn batch_limits(config: &Config) -> BatchLimits {
    BatchLimits {
        bytes: usize::try_from(config.ingest.batch_bytes).unwrap_or(usize::MAX),
        records: usize::try_from(config.ingest.batch_records).unwrap_or(usize::MAX),
    }
}
