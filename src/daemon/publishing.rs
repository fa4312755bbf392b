//! Live figures for apps, on a task of its own beside the epochs.
//!
//! Stands behind the lake: at each turn of an entry of `publish:` it asks the tables what holds at the
//! instant that event time has come to, and hands what is news (`crate::publish`) to `notify`.
//!
//! Invariant: nothing is kept: what could not be computed or sent is told anew at the next turn.
//! Invariant: no epoch waits for it; it has ended before the lake is given back or taken up again.
//! Invariant: one turn at a time, each under the limits of a query.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, UInt64Type};
use tokio::sync::watch as signal;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::Config;
use crate::lake::Lake;
use crate::notify::{Notifier, NotifyError, SnsDefaults, Terminal, Topic};
use crate::publish::{Audience, EventClock, PublishSettings, Publisher, Queries, TitleRow, UpdateType};
use crate::rollup;
use crate::sql::pipeline::Pipeline;
use crate::sql::{self, QueryLimits, SqlError};
use crate::watch;

use super::query_limits;

/// How often it is looked whether a turn is due: the shortest `every` is five times as long.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A trouble that lasts is logged once a minute.
const LOG_EVERY_MS: i64 = 60_000;

/// The task that publishes.
pub struct Publishing {
    watermark: signal::Sender<Option<i64>>,
    task: JoinHandle<()>,
}

impl Publishing {
    /// None where the settings name no entry.
    pub fn start(config: &Config, lake: Arc<Lake>, pipelines: &[Pipeline], clock: Arc<dyn Clock>) -> Option<Publishing> {
        if config.publish.is_empty() {
            return None;
        }
        let defaults = SnsDefaults {
            endpoint_url: config.sns.endpoint_url.clone(),
            region: config.sns.region.clone(),
        };
        let house = House {
            lake,
            pipelines: pipelines.to_vec(),
            limits: query_limits(config),
            notifier: Notifier::new(defaults, Terminal::Errors, watch::producer()),
            clock,
        };
        let entries = config.publish.iter().cloned().map(Entry::new).collect();
        let (watermark, reached) = signal::channel(None);
        let task = tokio::spawn(keep_publishing(house, entries, reached));
        Some(Publishing { watermark, task })
    }

    /// How far event time has come.
    pub fn reached(&self, watermark_ms: Option<i64>) {
        self.watermark.send_replace(watermark_ms);
    }

    /// Ends the task, whatever it is at.
    pub async fn finish(self) {
        drop(self.watermark);
        if let Err(panic) = self.task.await
            && panic.is_panic()
        {
            std::panic::resume_unwind(panic.into_panic());
        }
    }
}

/// Publishes until the sender of `reached` is dropped; a turn in hand is dropped with it, for the next start
/// tells everything anew.
async fn keep_publishing(house: House, entries: Vec<Entry>, reached: signal::Receiver<Option<i64>>) {
    let mut ended = reached.clone();
    tokio::select! {
        () = turns(house, entries, reached) => {}
        () = async { while ended.changed().await.is_ok() {} } => {}
    }
}

async fn turns(house: House, mut entries: Vec<Entry>, reached: signal::Receiver<Option<i64>>) {
    loop {
        for entry in &mut entries {
            let now_ms = house.clock.now_ms();
            if !entry.publisher.is_due(now_ms) {
                continue;
            }
            let watermark_ms = *reached.borrow();
            let turn = entry.turn(&house, watermark_ms, now_ms).await;
            entry.note(turn, now_ms);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What all entries share.
struct House {
    lake: Arc<Lake>,
    pipelines: Vec<Pipeline>,
    limits: QueryLimits,
    notifier: Notifier,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot be computed: {0}")]
    Sql(#[from] SqlError),
    #[error("cannot be sent: {0}")]
    Notify(#[from] NotifyError),
}

/// One entry of `publish:`.
struct Entry {
    publisher: Publisher,
    event_clock: EventClock,
    topic: Topic,
    /// What was logged last, and when.
    logged: Option<(String, i64)>,
}

impl Entry {
    fn new(settings: PublishSettings) -> Entry {
        let topic = Topic {
            arn: settings.topic_arn.clone(),
            endpoint_url: None,
            region: None,
        };
        Entry {
            publisher: Publisher::new(settings),
            event_clock: EventClock::default(),
            topic,
            logged: None,
        }
    }

    /// Tells what is news; returns how many figures that were.
    async fn turn(&mut self, house: &House, watermark_ms: Option<i64>, now_ms: i64) -> Result<usize, Trouble> {
        let Some(as_of_ms) = self.event_clock.as_of_ms(watermark_ms, now_ms) else {
            return Ok(0);
        };
        let audience = house.audience(self.publisher.settings(), as_of_ms).await?;
        let figures = self.publisher.figures(&audience, now_ms);
        house.notifier.publish(&self.topic, &figures).await?;
        self.publisher.told(&figures, now_ms);
        Ok(figures.len())
    }

    /// Logs a trouble when it begins or changes, and once a minute.
    fn note(&mut self, turn: Result<usize, Trouble>, now_ms: i64) {
        let name = self.publisher.settings().name.as_str();
        match turn {
            Ok(figures) => {
                if self.logged.take().is_some() {
                    tracing::info!(entry = name, "figures are published again");
                }
                tracing::debug!(entry = name, figures, left_out = self.publisher.left_out(), "figures published");
            }
            Err(trouble) => {
                let text = trouble.to_string();
                let is_known = |(known, at_ms): &(String, i64)| *known == text && now_ms - at_ms < LOG_EVERY_MS;
                if !self.logged.as_ref().is_some_and(is_known) {
                    tracing::warn!(entry = name, "figures of `publish` {text}; the next turn tells what holds then");
                    self.logged = Some((text, now_ms));
                }
            }
        }
    }
}

impl House {
    /// What the tables say at an instant of event time, gold completed from silver.
    async fn audience(&self, settings: &PublishSettings, as_of_ms: i64) -> Result<Audience, SqlError> {
        let queries = Queries::new(settings, as_of_ms);
        let told = |figure| settings.figures.contains(&figure);
        let read = match told(UpdateType::TotalViews) {
            true => sql::mentioned(self.pipelines.clone(), &queries.totals),
            false => Vec::new(),
        };
        let open = rollup::open_windows(&self.lake, read).await?;
        let context = sql::open(&self.lake, &open, self.limits).await?;
        let ask = async |text: &str| sql::query(&context, text, self.limits).await.map(|(_, batches)| batches);
        let mut audience = Audience {
            as_of_ms,
            active_users: 0,
            titles: Vec::new(),
        };
        if told(UpdateType::ActiveUsers) {
            audience.active_users = ask(&queries.users).await?.iter().flat_map(|batch| counts(batch, 0)).sum();
        }
        let mut titles: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        if told(UpdateType::RecentViews) {
            for (title, viewers) in by_title(&ask(&queries.viewers).await?) {
                titles.entry(title).or_default().0 = viewers;
            }
        }
        if told(UpdateType::TotalViews) {
            for (title, views) in by_title(&ask(&queries.totals).await?) {
                titles.entry(title).or_default().1 = views;
            }
        }
        let row = |(content_id, (viewers, views))| TitleRow {
            content_id,
            viewers,
            views,
        };
        audience.titles = titles.into_iter().map(row).collect();
        Ok(audience)
    }
}

/// Titles and their counts, from the first two columns.
fn by_title(batches: &[RecordBatch]) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for batch in batches {
        let Ok(titles) = cast(batch.column(0), &DataType::Utf8) else {
            continue;
        };
        let titles = titles.as_string::<i32>().clone();
        for (row, count) in counts(batch, 1).into_iter().enumerate() {
            if titles.is_valid(row) {
                found.push((titles.value(row).to_owned(), count));
            }
        }
    }
    found
}

/// Whole numbers of a column; what is null or negative counts nothing.
fn counts(batch: &RecordBatch, column: usize) -> Vec<u64> {
    match cast(batch.column(column), &DataType::UInt64) {
        Ok(numbers) => {
            let numbers = numbers.as_primitive::<UInt64Type>();
            numbers.iter().map(Option::unwrap_or_default).collect()
        }
        Err(_) => vec![0; batch.num_rows()],
    }
}

/// What `publish:` asks for and these pipelines do not give.
pub fn complaints(config: &Config, pipelines: &[Pipeline]) -> Vec<String> {
    let tables: BTreeSet<String> = pipelines.iter().map(Pipeline::table).collect();
    let lacks = |entry: &&PublishSettings| entry.figures.contains(&UpdateType::TotalViews) && !tables.contains("gold.playback_1m");
    let complaint = |entry: &PublishSettings| {
        format!(
            "publish entry `{}`: total_views are counted in gold.playback_1m, which no pipeline fills; add pipelines/playback_1m.sql, or take total_views out of `figures`",
            entry.name
        )
    };
    config.publish.iter().filter(lacks).map(complaint).collect()
}
