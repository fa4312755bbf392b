//! `playhead ingest`: the given files to their end, once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reader::{Order, Reader, Task};
use super::{Parts, check, identity, sources};
use crate::clock::Clock;
use crate::config::Config;
use crate::ingest::Counts;
use crate::ingest::intake::{Intake, NewPartition};
use crate::notify::Terminal;
use crate::source::Mark;
use crate::source::folders::FolderSource;

/// Name of the given files among the sources.
const FILES: &str = "files";

/// A target that is not back after this long is told at the next start.
const SENDING_MAX: Duration = Duration::from_secs(5);

/// What came of an `ingest`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Summary {
    #[serde(flatten)]
    pub counts: Counts,
    pub epochs: u64,
    pub files: u64,
    /// Files that could not be read, each with its reason.
    pub unreadable: Vec<String>,
    pub gold_windows: u64,
    pub open_sessions: u64,
    pub alerts_firing: u64,
    pub alerts_undelivered: u64,
    pub seconds: f64,
}

/// Told after each epoch.
pub trait Progress: Send {
    fn epoch(&mut self, total: Counts, bytes_done: u64, bytes_all: u64);
}

/// Reads the given files to their end, once.
///
/// # Errors
/// Settings, pipelines or alerts that are wrong; a path that does not exist; a lake that cannot be
/// written. A single unreadable file is named in the summary and does not stop the others.
pub async fn ingest_once(
    config: &Config,
    clock: Arc<dyn Clock>,
    terminal: Terminal,
    progress: &mut dyn Progress,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let mut files = sources::given_files(config);
    // All is checked before anything is written, the key of pseudonyms included.
    let found = files.discover()?.len() as u64;
    let checked = check::check(config).await?;
    let (enricher, privacy) = identity::rules_of_identity(config)?;
    let mut parts = Parts::open(
        config,
        checked,
        Arc::clone(&clock),
        Arc::clone(&enricher),
        Arc::clone(&privacy),
        terminal,
        None,
    )
    .await?;
    let source = FolderSource::new(FILES, files, None);
    // One source of all files: what is given together is read by one layout.
    let fields = config.sources.first().and_then(|source| source.fields.clone());
    let limits = sources::batch_limits(config);
    let intake = Intake::new(vec![Box::new(source)], vec![fields], limits, enricher, privacy, clock);
    let mut summary = Summary {
        counts: Counts::default(),
        epochs: 0,
        files: found,
        unreadable: Vec::new(),
        gold_windows: 0,
        open_sessions: 0,
        alerts_firing: 0,
        alerts_undelivered: 0,
        seconds: 0.0,
    };
    let mut reader = Reader::start(intake)?;
    reader.order(order(Task::LookAndRead, Vec::new())).await?;
    loop {
        let reading = reader.reading().await?;
        let is_end = reading.batch.is_none() && reading.new.is_empty() && reading.complaints.is_empty();
        for complaint in reading.complaints {
            tracing::error!("{complaint}");
            summary.unreadable.push(complaint.to_string());
        }
        if is_end {
            break;
        }
        let starts = parts.take_up(reading.new).await?;
        // The next batch is read while this one is committed.
        reader.order(order(Task::Read, starts)).await?;
        let Some(batch) = reading.batch else { continue };
        let (epoch, windows) = parts.carry(batch, true).await?;
        summary.counts.add(epoch.counts);
        summary.epochs += 1;
        summary.gold_windows += windows as u64;
        let (bytes_done, bytes_all) = reading.progress.unwrap_or_default();
        progress.epoch(summary.counts, bytes_done, bytes_all);
    }
    parts.ingest.close_due_sessions().await?;
    summary.gold_windows += parts.close_windows(true).await? as u64;
    parts.end_sending(SENDING_MAX).await;
    summary.open_sessions = parts.ingest.open_sessions() as u64;
    if let Some(keeper) = parts.gold.at_rest() {
        summary.alerts_firing = keeper.watch().firing() as u64;
        summary.alerts_undelivered = keeper.watch().undelivered() as u64;
    }
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

fn order(task: Task, starts: Vec<(NewPartition, Option<Mark>)>) -> Order {
    Order {
        task,
        starts,
        ..Order::default()
    }
}
