//! Where records come from, as the settings say it: files, Kafka, Kinesis or S3.
//!
//! Part of `config`: what was written (`file::SourceFile`) to what the daemon builds sources from.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::file::{KafkaFile, KinesisFile, S3File, SourceFile};
use super::{Checks, check_endpoint};
use crate::event::decode::{self, Format, check_fields};
use crate::source::kafka::{KafkaSettings, Start, validate};

/// What the receiver is called in the log and in metrics.
pub const HTTP: &str = "http";

/// Records that wait in memory: two batches of the usual size, so that a broker's pause is not felt.
const KAFKA_QUEUE_BYTES: usize = 64 << 20;

const LIST_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const LATE: RangeInclusive<Duration> = Duration::from_secs(3_600)..=Duration::from_secs(90 * 86_400);

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// Unique; what the log calls it.
    pub name: String,
    pub from: SourceKind,
    pub format: SourceFormat,
    /// What the records' fields are, where they do not say so themselves: on one line, as decoders take it.
    pub fields: Option<String>,
}

impl SourceConfig {
    /// The first line of each file or object names the columns and is no record.
    pub fn names_columns(&self) -> bool {
        decode::names_columns(self.format.format(), self.fields.as_deref())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A folder or a file.
    Files(PathBuf),
    Kafka(Kafka),
    Kinesis(Kinesis),
    S3(S3),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum SourceFormat {
    /// Judged file by file from the first bytes.
    #[default]
    Auto,
    /// The reference player's NDJSON.
    Reference,
    /// Amazon IVS player events.
    Ivs,
    /// Eyevinn player analytics.
    Epas,
    /// CMCD version 1 or 2, one record a line.
    Cmcd,
    CloudfrontV1,
    CloudfrontV2,
    /// Needs the field list of the log configuration in `fields`.
    CloudfrontRealtime,
    AkamaiDs2,
    Fastly,
    Cloudflare,
    GoogleMediaCdn,
    Combined,
    /// Needs a field map in `fields`.
    GenericJson,
    /// Needs a field map in `fields`.
    GenericCsv,
    /// The 12-key JSON of the reference log processor.
    CdnJson,
}

impl SourceFormat {
    /// `None`: it is looked for in the first bytes.
    pub fn format(self) -> Option<Format> {
        Some(match self {
            SourceFormat::Auto => return None,
            SourceFormat::Reference => Format::Reference,
            SourceFormat::Ivs => Format::Ivs,
            SourceFormat::Epas => Format::Epas,
            SourceFormat::Cmcd => Format::Cmcd,
            SourceFormat::CloudfrontV1 => Format::CloudFrontV1,
            SourceFormat::CloudfrontV2 => Format::CloudFrontV2,
            SourceFormat::CloudfrontRealtime => Format::CloudFrontRealTime,
            SourceFormat::AkamaiDs2 => Format::Akamai,
            SourceFormat::Fastly => Format::Fastly,
            SourceFormat::Cloudflare => Format::Cloudflare,
            SourceFormat::GoogleMediaCdn => Format::GoogleMediaCdn,
            SourceFormat::Combined => Format::Combined,
            SourceFormat::GenericJson => Format::GenericJson,
            SourceFormat::GenericCsv => Format::GenericCsv,
            SourceFormat::CdnJson => Format::CdnJson,
        })
    }
}

/// Where a partition of which the lake has nothing is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    #[default]
    Earliest,
    Latest,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Kafka {
    pub brokers: String,
    pub group: String,
    /// Names, or patterns that start with `^`.
    pub topics: Vec<String>,
    pub start: StartFrom,
    /// Handed to librdkafka as they are.
    pub properties: BTreeMap<String, String>,
}

/// For the log: where a source is read from.
impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceKind::Files(path) => write!(f, "{}", path.display()),
            SourceKind::Kafka(kafka) => write!(f, "kafka {} at {}", kafka.topics.join(" "), kafka.brokers),
            SourceKind::Kinesis(kinesis) => write!(f, "kinesis {}", kinesis.stream),
            SourceKind::S3(s3) => write!(f, "{}", s3.url),
        }
    }
}

impl fmt::Debug for Kafka {
    /// Properties hold passwords: only their names may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("group", &self.group)
            .field("topics", &self.topics)
            .field("properties", &self.properties.keys())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kinesis {
    pub stream: String,
    pub start: StartFrom,
    /// Share the shards with other daemons by leases beside the tables.
    pub share: bool,
    pub region: Option<String>,
    pub endpoint_url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3 {
    /// `s3://bucket/prefix`, with `{yyyy}`, `{MM}`, `{dd}`, `{HH}` where keys hold the date.
    pub url: String,
    /// Empty: every object.
    pub suffixes: Vec<String>,
    pub list_every: Duration,
    /// How late an object may appear.
    pub late: Duration,
    /// Queue of S3's notifications.
    pub queue_url: Option<String>,
    pub region: Option<String>,
    pub endpoint_url: Option<String>,
}

pub(super) fn sources(written: Option<Vec<SourceFile>>, checks: &mut Checks) -> Vec<SourceConfig> {
    let default_source = || SourceFile {
        path: Some(PathBuf::from("./incoming")),
        ..SourceFile::default()
    };
    let written = written.unwrap_or_else(|| vec![default_source()]);
    let mut names = HashSet::new();
    let mut sources = Vec::new();
    for (index, source) in written.into_iter().enumerate() {
        let key = format!("sources[{index}]");
        let name = source.name.clone().unwrap_or_else(|| usual_name(&source));
        let format = source.format.unwrap_or_default();
        let fields = fields(&key, source.fields.as_deref(), format, checks);
        let Some(from) = kind(&key, source, checks) else { continue };
        if name.is_empty() {
            checks.complain(&key, "this source has no name", "add `name: ...`");
        } else if name == HTTP {
            let message = format!("the name {HTTP:?} is the receiver's");
            checks.complain(&key, message, "give this source another `name: ...`");
        } else if !names.insert(name.clone()) {
            let message = format!("a second source named {name:?}");
            checks.complain(&key, message, "give one of them another `name: ...`");
        }
        let source = SourceConfig {
            name,
            from,
            format,
            fields,
        };
        let is_stream = matches!(source.from, SourceKind::Kafka(_) | SourceKind::Kinesis(_));
        if is_stream && source.names_columns() {
            let message = "columns=header takes the names from the first line of a file, and a stream has none";
            checks.complain(&format!("{key}.fields"), message, "name them: `columns=time,status,...`");
        }
        sources.push(source);
    }
    sources
}

/// The field list or map of a source on one line.
fn fields(key: &str, written: Option<&[String]>, format: SourceFormat, checks: &mut Checks) -> Option<String> {
    const LAYOUT_FIX: &str = "see docs/cdn-logs.md for the fields of each format";
    let key = format!("{key}.fields");
    let Some(format) = format.format() else {
        if written.is_some() {
            checks.complain(&key, "fields without a format", "add `format: ...` to this source");
        }
        return None;
    };
    let text = written.map(|items| items.join(" "));
    match &text {
        None if format.needs_fields() => {
            let message = format!("{} records do not name their fields, and nothing else does", format.as_str());
            checks.complain(&key, message, LAYOUT_FIX);
        }
        None => {}
        Some(_) if !format.has_layout() => {
            let message = format!("{} records name their fields themselves", format.as_str());
            checks.complain(&key, message, "take `fields` out");
        }
        Some(text) => {
            if let Err(reject) = check_fields(format, text) {
                checks.complain(&key, reject.detail, LAYOUT_FIX);
            }
        }
    }
    text
}

/// The one place that a source is read from.
fn kind(key: &str, source: SourceFile, checks: &mut Checks) -> Option<SourceKind> {
    let mut kinds = Vec::new();
    kinds.extend(source.path.map(SourceKind::Files));
    kinds.extend(source.kafka.map(|written| SourceKind::Kafka(kafka(key, written, checks))));
    kinds.extend(source.kinesis.map(|written| SourceKind::Kinesis(kinesis(key, written, checks))));
    kinds.extend(source.s3.map(|written| SourceKind::S3(s3(key, written, checks))));
    match kinds.len() {
        0 => {
            let fix = "add `path: ...`, or one of `kafka:`, `kinesis:` and `s3:`";
            checks.complain(key, "nothing says where this source is read from", fix);
        }
        1 => {}
        _ => checks.complain(
            key,
            "this source is read from two places",
            "make two sources of it, each with a name",
        ),
    }
    kinds.pop()
}

fn usual_name(source: &SourceFile) -> String {
    if let Some(path) = &source.path {
        return last_part(path);
    }
    let topic = source.kafka.as_ref().and_then(|kafka| kafka.topics.first());
    let stream = source.kinesis.as_ref().map(|kinesis| &kinesis.stream);
    let bucket = source.s3.as_ref().and_then(|s3| s3.url.strip_prefix("s3://"));
    let bucket = bucket.map(|rest| rest.split('/').next().unwrap_or_default().to_owned());
    topic.or(stream).cloned().or(bucket).unwrap_or_default()
}

/// `./incoming` gives `incoming`; a path without a last part (`/`, `..`) gives nothing.
fn last_part(path: &Path) -> String {
    let last = path.file_name().unwrap_or_default();
    last.to_string_lossy().into_owned()
}

fn kafka(key: &str, written: KafkaFile, checks: &mut Checks) -> Kafka {
    let kafka = Kafka {
        brokers: written.brokers,
        group: written.group.unwrap_or_else(|| "playhead".to_owned()),
        topics: written.topics,
        start: written.start.unwrap_or_default(),
        properties: written.properties,
    };
    if let Err(why) = validate(&kafka.settings("", "", None)) {
        let fix = "see `playhead settings` for an example";
        checks.complain(&format!("{key}.kafka"), why, fix);
    }
    kafka
}

impl Kafka {
    /// What the source is made of. `lake_id` names the lake in the group's offsets.
    pub fn settings(&self, name: &str, lake_id: &str, format: Option<Format>) -> KafkaSettings {
        KafkaSettings {
            name: name.to_owned(),
            brokers: self.brokers.clone(),
            group: self.group.clone(),
            topics: self.topics.clone(),
            start: match self.start {
                StartFrom::Earliest => Start::Earliest,
                StartFrom::Latest => Start::Latest,
            },
            format,
            properties: self.properties.clone(),
            lake_id: lake_id.to_owned(),
            queue_bytes: KAFKA_QUEUE_BYTES,
        }
    }
}

fn kinesis(key: &str, written: KinesisFile, checks: &mut Checks) -> Kinesis {
    if written.stream.is_empty() {
        checks.complain(&format!("{key}.kinesis"), "no stream is named", "add `stream: name`");
    }
    check_endpoint(&format!("{key}.kinesis.endpoint_url"), written.endpoint_url.as_deref(), checks);
    Kinesis {
        stream: written.stream,
        start: written.start.unwrap_or_default(),
        share: written.share.unwrap_or(false),
        region: written.region,
        endpoint_url: written.endpoint_url,
    }
}

fn s3(key: &str, written: S3File, checks: &mut Checks) -> S3 {
    if !written.url.starts_with("s3://") {
        let message = format!("{:?} is no place in S3", written.url);
        checks.complain(
            &format!("{key}.s3"),
            message,
            "write `url: s3://bucket/prefix`; a folder is read with `path:`",
        );
    }
    check_endpoint(&format!("{key}.s3.endpoint_url"), written.endpoint_url.as_deref(), checks);
    S3 {
        url: written.url,
        suffixes: written.suffixes.unwrap_or_default(),
        list_every: checks.span(
            &format!("{key}.s3.list_every"),
            written.list_every,
            Duration::from_secs(60),
            LIST_EVERY,
        ),
        late: checks.span(&format!("{key}.s3.late"), written.late, Duration::from_secs(26 * 3_600), LATE),
        queue_url: written.queue_url,
        region: written.region,
        endpoint_url: written.endpoint_url,
    }
}
