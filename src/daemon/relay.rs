//! Publishing silver: which minutes have closed, and their rows in order.
//!
//! A process of its own beside the daemon: it reads what the daemon has committed, and a broker that is
//! away or slow holds up nothing but itself.
//!
//! Invariant: no identity leaves: where ids are kept as sent, nothing is published.
//! Invariant: a minute is published after the watermark and the lateness have passed it, once.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;

use super::cluster::relayed_columns;
use super::{lake_place, query_limits};
use crate::config::{Config, Identity};
use crate::lake::Lake;
use crate::lake::tables::WindowedView;
use crate::relay::{Relay, RelayError, Settings};
use crate::rollup::closed_ms;
use crate::sql::{MINUTE_MS, view_bounds, view_rows};

/// Minutes that one transaction spans at the most: a backlog goes in steps that a kill does not lose.
const MINUTES_AT_ONCE: i64 = 10;

/// Publishes what has closed until there is no more, then waits for more unless it is to stop there.
///
/// # Errors
/// The lake cannot be read, or the brokers do not answer.
pub async fn relay(config: &Config, once: bool, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
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
        let lake = Lake::open_read_only(lake_place(config)?).await?;
        if opened.is_none() {
            let settings = Settings {
                brokers: brokers.clone(),
                topics: config.arroyo.topics.clone(),
                lake: lake.id().await?,
                properties: config.relay.properties.clone(),
            };
            opened = Some(tokio::task::block_in_place(|| Relay::open(&settings))?);
        }
        let Some(relay) = &opened else { continue };
        let mut rows = 0;
        for (view, columns) in relayed_columns() {
            rows += publish(config, &lake, relay, view, &columns, &stop).await?;
        }
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
    lake: &Lake,
    relay: &Relay,
    view: &WindowedView,
    columns: &[String],
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<usize> {
    if lake.is_empty(view.table).await? || *stop.borrow() {
        return Ok(0);
    }
    let memory_bytes = query_limits(config).memory_bytes;
    let note = lake.newest_note(view.table, "watermark_ms").await?;
    let lateness_ms = i64::try_from(config.windows.lateness.as_millis()).unwrap_or(i64::MAX);
    let closed = closed_ms(note.and_then(|note| note["watermark_ms"].as_i64()), lateness_ms);
    let Some(closed) = closed.map(|closed_ms| closed_ms.div_euclid(MINUTE_MS)) else {
        return Ok(0);
    };
    let Some((first, last)) = view_bounds(lake, view, memory_bytes).await? else {
        return Ok(0);
    };
    let Some(from) = tokio::task::block_in_place(|| relay.position(view.name))? else {
        // Where it begins, before the first row: from then on there is a position.
        tokio::task::block_in_place(|| relay.begin(view.name)?.commit(first.min(closed)))?;
        return Ok(1);
    };
    if from >= closed {
        return Ok(0);
    }
    let version = lake.version(view.table).await?;
    // Behind the last row there is nothing to ask for; the position goes on, for brokers forget old ones.
    let until = if from > last {
        closed
    } else {
        closed.min(last + 1).min(from + MINUTES_AT_ONCE)
    };
    let mut transaction = tokio::task::block_in_place(|| relay.begin(view.name))?;
    for minute in from..until.min(last + 1) {
        let mut rows = view_rows(lake, view, columns, minute, memory_bytes).await?;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(crate::sql::SqlError::from)?;
            tokio::task::block_in_place(|| transaction.send(&batch, minute, version))?;
        }
    }
    let rows = tokio::task::block_in_place(|| transaction.commit(until)).inspect_err(told)?;
    tracing::info!(
        "published {rows} rows of silver.{}, {} minutes behind what has closed",
        view.name,
        closed - until
    );
    // A stretch without a row has been passed all the same: there may be more behind it.
    Ok(rows.max(1))
}

fn told(error: &RelayError) {
    tracing::warn!("{error}");
}
