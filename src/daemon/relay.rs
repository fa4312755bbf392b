//! Publishing silver: which minutes have closed, and their rows in order.
//!
//! A process of its own beside the daemon, or in the role `ingest` a task of its own inside it: it reads what the
//! daemon has committed, and a broker that is away or slow holds up nothing but itself.
//!
//! Several lakes publish to the same topics. So that rows of another lake are not taken for a position that the broker
//! has forgotten, the data folder remembers which views this lake has begun to publish (`Begun`).
//!
//! Invariant: no identity leaves: where ids are kept as sent, nothing is published.
//! Invariant: a minute is published after the watermark and the lateness have passed it, once; that of ended sessions
//! after the ends by silence in it are known as well.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::cluster::relayed_columns;
use super::{lake_place, query_limits};
use crate::clock::Clock;
use crate::config::{Config, Identity, Role};
use crate::lake::tables::{ENDED_SESSIONS, WindowedView};
use crate::lake::{Lake, TimeRange};
use crate::relay::{Records, Relay, RelayError, Settings};
use crate::rollup::closed_ms;
use crate::sql::{MINUTE_MS, minutes_range, view_bounds, view_rows};
use crate::telemetry::chain;
use crate::telemetry::health::{HealthPart, SharedHealth};

/// Minutes with rows that one transaction spans at the most: a backlog goes in steps that a kill does not lose.
const MINUTES_AT_ONCE: i64 = 10;

/// Batches that are read and written as JSON while the one before is handed over: some ten megabytes each.
const BATCHES_AHEAD: usize = 1;

/// A broker that was away is tried again after this long.
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// How long the end of the daemon waits for it.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// File of the data folder that names the views that were begun, a line each, behind their group.
const BEGUN_FILE: &str = "relay.begun";

/// The relay as a task of the daemon.
pub(super) struct Relaying {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relaying {
    /// Waits for the transaction in hand, but not for a broker that is away: what is not committed is given up by the
    /// next start.
    pub(super) async fn finish(self) {
        // Nobody listens if the task has ended already.
        let _ = self.stop.send(true);
        let mut task = self.task;
        match tokio::time::timeout(STOP_WAIT, &mut task).await {
            Ok(Err(panic)) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
            Ok(_) => {}
            Err(_) => task.abort(),
        }
    }
}

/// Publishes beside the epochs of a daemon in the role `ingest`; `None`: another role, or no brokers are set.
pub(super) fn beside(config: &Config, health: &SharedHealth, clock: Arc<dyn Clock>) -> Option<Relaying> {
    if config.role != Role::Ingest {
        return None;
    }
    if config.relay.brokers.is_none() {
        tracing::warn!("relay.brokers is not set: this daemon publishes no silver; set it, or run `playhead relay` beside it");
        return None;
    }
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(keep_relaying(config.clone(), health.clone(), clock, stopped));
    Some(Relaying { stop, task })
}

async fn keep_relaying(config: Config, health: SharedHealth, clock: Arc<dyn Clock>, mut stop: watch::Receiver<bool>) {
    loop {
        let is_well = || health.lock().well(&HealthPart::Relay);
        let Err(error) = relay_while(&config, false, stop.clone(), &is_well).await else {
            return;
        };
        let reason = chain(error.as_ref());
        tracing::error!("silver is not published: {reason}");
        if matches!(error.downcast_ref::<RelayError>(), Some(RelayError::TakenOver)) {
            // To try again would take it from the other one, and so on for ever.
            health.lock().broken(HealthPart::Relay, &reason, clock.now_ms());
            return;
        }
        health.lock().failing(HealthPart::Relay, &reason, clock.now_ms());
        if tokio::time::timeout(RETRY_EVERY, stop.wait_for(|stops| *stops)).await.is_ok() {
            return;
        }
    }
}

/// Publishes what has closed until there is no more, then waits for more unless it is to stop there.
///
/// # Errors
/// The lake cannot be read, or the brokers do not answer.
pub async fn relay(config: &Config, once: bool, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    relay_while(config, once, stop, &|| ()).await
}

/// The same; `is_well` is called after each round that went well.
async fn relay_while(config: &Config, once: bool, mut stop: watch::Receiver<bool>, is_well: &(dyn Fn() + Sync)) -> anyhow::Result<()> {
    let Some(brokers) = config.relay.brokers.clone() else {
        anyhow::bail!("relay.brokers is not set; name the Kafka brokers that silver is published to");
    };
    if config.privacy.identity == Identity::Keep {
        anyhow::bail!(
            "privacy.identity is keep: silver holds user and device ids as they were sent, and no identity is published; set it to pseudonym, \
             on a lake that was made so"
        );
    }
    let mut opened = None;
    loop {
        let lake = Arc::new(Lake::open_read_only(lake_place(config)?).await?);
        if opened.is_none() {
            let settings = Settings {
                brokers: brokers.clone(),
                topics: config.arroyo.topics.clone(),
                lake: lake.id().await?,
                properties: config.relay.properties.clone(),
                subtasks: config.arroyo.parallelism,
            };
            let relay = tokio::task::block_in_place(|| Relay::open(&settings))?;
            for (view, _) in relayed_columns() {
                tokio::task::block_in_place(|| relay.check_partitions(view.name))?;
            }
            let begun = Begun::read(config, relay.group())?;
            opened = Some((relay, begun));
        }
        let Some((relay, begun)) = &mut opened else { continue };
        let mut rows = 0;
        for view in relayed_columns() {
            rows += publish(config, &lake, relay, begun, view, &stop).await?;
        }
        is_well();
        if (once && rows == 0) || *stop.borrow() {
            return Ok(());
        }
        if rows == 0 {
            let pause = config.ingest.commit_every.max(Duration::from_secs(1));
            let _ = tokio::time::timeout(pause, stop.wait_for(|stops| *stops)).await;
        }
    }
}

/// Publishes the next closed minutes of one view; gives the number of rows.
async fn publish(
    config: &Config,
    lake: &Arc<Lake>,
    relay: &Relay,
    begun: &mut Begun,
    (view, columns): (&'static WindowedView, Vec<String>),
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<usize> {
    if lake.is_empty(view.table).await? || *stop.borrow() {
        return Ok(0);
    }
    let memory_bytes = query_limits(config).memory_bytes;
    let note = lake.newest_note(view.table, "watermark_ms").await?;
    let known_after = match view.name {
        ENDED_SESSIONS => config.windows.lateness + config.relay.ends_after,
        _ => config.windows.lateness,
    };
    let known_after_ms = i64::try_from(known_after.as_millis()).unwrap_or(i64::MAX);
    let closed = closed_ms(note.and_then(|note| note["watermark_ms"].as_i64()), known_after_ms);
    let Some(closed) = closed.map(|closed_ms| closed_ms.div_euclid(MINUTE_MS)) else {
        return Ok(0);
    };
    let has_begun = begun.holds(view.name);
    let Some(from) = tokio::task::block_in_place(|| relay.position(view.name, has_begun))? else {
        let Some((first, _)) = view_bounds(lake, view, TimeRange::ALL, memory_bytes).await? else {
            return Ok(0);
        };
        // Where it begins, before the first row: from then on there is a position.
        tokio::task::block_in_place(|| relay.begin(view.name)?.commit(first.min(closed)))?;
        return Ok(1);
    };
    begun.remember(view.name)?;
    if from >= closed {
        return Ok(0);
    }
    let bounds = view_bounds(lake, view, minutes_range(from..closed), memory_bytes).await?;
    let (minutes, until) = next_minutes(bounds, closed);
    let version = lake.version(view.table).await?;
    let mut transaction = tokio::task::block_in_place(|| relay.begin(view.name))?;
    let (ahead, mut behind) = mpsc::channel(BATCHES_AHEAD);
    let reading = tokio::spawn(read(Arc::clone(lake), view, columns, minutes, memory_bytes, ahead));
    while let Some((minute, records)) = behind.recv().await {
        tokio::task::block_in_place(|| transaction.send(&records, minute, version))?;
    }
    // Whoever broke off has read less than there is.
    reading.await.context("the reading of silver broke off")??;
    let rows = tokio::task::block_in_place(|| transaction.commit(until)).inspect_err(told)?;
    tracing::info!(
        "published {rows} rows of silver.{}, {} minutes behind what has closed",
        view.name,
        closed - until
    );
    // A stretch without a row has been passed all the same: there may be more behind it.
    Ok(rows.max(1))
}

/// Reads minutes and makes records of them, ahead of their sending.
async fn read(
    lake: Arc<Lake>,
    view: &'static WindowedView,
    columns: Vec<String>,
    minutes: Range<i64>,
    memory_bytes: usize,
    ahead: mpsc::Sender<(i64, Records)>,
) -> anyhow::Result<()> {
    for minute in minutes {
        let mut rows = view_rows(&lake, view, &columns, minute, memory_bytes).await?;
        while let Some(batch) = rows.next().await {
            let records = Records::of(&batch.map_err(crate::sql::SqlError::from)?)
                .with_context(|| format!("a row of silver.{} cannot be put into JSON", view.name))?;
            if ahead.send((minute, records)).await.is_err() {
                // The transaction was given up.
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What the next transaction publishes, and the position after it, in epoch minutes. `bounds` are the minutes of the first and of
/// the last row between the position and what has closed.
///
/// Minutes without rows are passed over at once: they can be years, for a watermark begins at the earliest time there may be, and so
/// may the position. It goes on where there is nothing to publish, for brokers forget old ones.
fn next_minutes(bounds: Option<(i64, i64)>, closed: i64) -> (Range<i64>, i64) {
    match bounds {
        Some((first, last)) if last >= first + MINUTES_AT_ONCE => (first..first + MINUTES_AT_ONCE, first + MINUTES_AT_ONCE),
        Some((first, last)) => (first..last + 1, closed),
        None => (closed..closed, closed),
    }
}

/// Which views of this lake have been begun: there is a position of each at the broker, or was.
struct Begun {
    path: PathBuf,
    group: String,
    lines: BTreeSet<String>,
}

impl Begun {
    fn read(config: &Config, group: &str) -> anyhow::Result<Begun> {
        let path = config.data.join(BEGUN_FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        Ok(Begun {
            path,
            group: group.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
        })
    }

    fn line(&self, view: &str) -> String {
        format!("{} {view}", self.group)
    }

    fn holds(&self, view: &str) -> bool {
        self.lines.contains(&self.line(view))
    }

    /// Called before a view's first row is published.
    fn remember(&mut self, view: &str) -> anyhow::Result<()> {
        if !self.lines.insert(self.line(view)) {
            return Ok(());
        }
        let text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        let written = self.path.with_extension("new");
        std::fs::create_dir_all(self.path.parent().unwrap_or(&self.path))
            .and_then(|()| std::fs::write(&written, text))
            .and_then(|()| std::fs::rename(&written, &self.path))
            .with_context(|| format!("cannot write {}; nothing is published before it is written", self.path.display()))
    }
}

fn told(error: &RelayError) {
    tracing::warn!("{error}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: i64 = 29_745_000;

    #[test]
    fn a_backlog_goes_in_steps_and_the_last_one_goes_up_to_what_has_closed() {
        let closed = TODAY + 15;
        assert_eq!(next_minutes(Some((TODAY, TODAY + 12)), closed), (TODAY..TODAY + 10, TODAY + 10));
        assert_eq!(
            next_minutes(Some((TODAY + 10, TODAY + 12)), closed),
            (TODAY + 10..TODAY + 13, closed)
        );
        assert_eq!(next_minutes(Some((TODAY, TODAY + 10)), closed), (TODAY..TODAY + 10, TODAY + 10));
        assert_eq!(next_minutes(Some((TODAY, TODAY + 9)), closed), (TODAY..TODAY + 10, closed));
    }

    #[test]
    fn where_there_are_no_rows_the_position_goes_on() {
        let (minutes, until) = next_minutes(None, TODAY);
        assert_eq!((minutes.count(), until), (0, TODAY));
    }
}
