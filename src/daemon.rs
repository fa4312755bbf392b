//! Builds every part from the settings and runs them: once over given files, or for as long as the
//! process lives.
//!
//! Both ways are the same loop over the same parts. While one batch is being committed, the next is
//! read and decoded on a thread of its own (`reader`).
//!
//! Invariant: at most one batch is being committed and one is in hand; the sources are not read
//! further than that.

mod answers;
mod check;
mod cluster;
mod collect;
mod dashboards;
mod follow;
mod gold;
mod house;
mod http_intake;
mod identity;
mod once;
mod publishing;
mod reader;
mod relay;
mod roles;
mod sending;
mod sources;
mod status;
mod troubles;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::alert::rule::RuleSet;
use crate::clock::Clock;
use crate::config::{Config, Role};
use crate::enrich::Enricher;
use crate::ingest::intake::{Batch, NewPartition};
use crate::ingest::{Epoch, Ingest};
use crate::lake::place::Place;
use crate::lake::{Lake, LakeError};
use crate::notify::{Notifier, SnsDefaults, Terminal};
use crate::privacy::Privacy;
use crate::rollup::{Rollup, closed_ms};
use crate::source::Mark;
use crate::source::files::FilesError;
use crate::sql::pipeline::Pipeline;
use crate::telemetry::chain;
use crate::telemetry::metrics::Meters;
use crate::watch::{self, Heard, OwnHealth, Watch};
use gold::{Gold, Keeper};
use roles::{collector, judged, leave_gold_to_arroyo, source_names};
use sending::Sending;

pub use answers::serve;
pub use check::{Checked, Complaints, check, gold_specs, gold_views, pipelines, query_limits, rule_files, rules, rules_in, with_own};
pub use cluster::{Portable, portable};
pub use dashboards::{Dashboards, dashboard_complaints, dashboards};
pub use follow::follow;
pub use identity::enrichment_complaints;
pub use once::{Progress, Summary, ingest_once};
pub use relay::relay;
pub use roles::run;

/// Where the tables lie by the settings.
///
/// # Errors
/// The data folder's path cannot be made absolute.
pub fn lake_place(config: &Config) -> Result<Place, LakeError> {
    let Some(remote) = &config.lake else {
        return Place::folder(&config.data);
    };
    let mut options = HashMap::new();
    if let Some(region) = &remote.region {
        options.insert("aws_region".to_string(), region.clone());
    }
    if let Some(endpoint) = &remote.endpoint_url {
        options.insert("aws_endpoint".to_string(), endpoint.clone());
        options.insert("aws_allow_http".to_string(), endpoint.starts_with("http://").to_string());
    }
    Ok(Place::remote(remote.url.clone(), options))
}

/// While batches wait, a closing of windows takes as long as it needs beside them and the next one takes in
/// more minutes; after this long the epochs wait for it, for alerts are judged behind it.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// Everything that carries an epoch.
struct Parts {
    ingest: Ingest,
    gold: Gold,
    /// What epochs tell of themselves; nobody reads it where nothing is followed.
    heard: Arc<Heard>,
    /// None where alerts are not delivered.
    sending: Option<Sending>,
    lateness_ms: i64,
    clock: Arc<dyn Clock>,
    /// While full batches follow each other, windows are closed at this cadence and not after each: the
    /// cost of a gold table is by the run more than by the row.
    close_every: Duration,
    closed_at: Instant,
    lake: Arc<Lake>,
    lake_id: String,
}

impl Parts {
    async fn open(
        config: &Config,
        checked: Checked,
        clock: Arc<dyn Clock>,
        enricher: Arc<Enricher>,
        privacy: Arc<Privacy>,
        terminal: Terminal,
        meters: Option<&Meters>,
    ) -> anyhow::Result<Parts> {
        let Checked { pipelines, rules } = checked;
        let lake = Arc::new(Lake::open(lake_place(config)?, Arc::clone(&clock)).await?);
        if let Some(meters) = meters {
            lake.report_to(meters.clone());
        }
        let lake_id = lake.id().await?;
        let shards = std::thread::available_parallelism().map_or(1, usize::from);
        let ingest = Ingest::open(Arc::clone(&lake), enricher, privacy, shards, &config.data, clock.now_ms()).await?;
        let limits = query_limits(config);
        let lateness_ms = i64::try_from(config.windows.lateness.as_millis()).unwrap_or(i64::MAX);
        if config.role == Role::Ingest {
            leave_gold_to_arroyo(&lake, &pipelines).await?;
        }
        let rollup = Rollup::open(Arc::clone(&lake), pipelines.clone(), lateness_ms, limits.memory_bytes).await?;
        let collector = match meters {
            Some(meters) => collector(config, &lake, &pipelines, meters, clock.now_ms()).await?,
            None => None,
        };
        let watch = watch_over(config, &lake, judged(config, rules), pipelines, &clock, terminal).await?;
        // Without metrics nothing is followed: files are read once.
        let own_health = match meters {
            Some(_) => Some(
                OwnHealth::open(
                    Arc::clone(&lake),
                    source_names(config).into_iter().map(str::to_owned),
                    clock.now_ms(),
                )
                .await?,
            ),
            None => None,
        };
        let sending = watch.outbox().map(Sending::start);
        Ok(Parts {
            ingest,
            heard: own_health.as_ref().map(OwnHealth::heard).unwrap_or_default(),
            gold: Gold::new(Keeper::new(rollup, watch, collector, own_health, Arc::clone(&clock))),
            sending,
            lateness_ms,
            clock,
            close_every: config.ingest.commit_every,
            closed_at: Instant::now(),
            lake,
            lake_id,
        })
    }

    /// One batch, all the way to alerts. Returns its counts and the windows that were closed meanwhile.
    /// `more_waits`: the next batch can be carried at once, and is while the windows of this one are closed.
    async fn carry(&mut self, batch: Batch, more_waits: bool) -> anyhow::Result<(Epoch, usize)> {
        let closed_ms = closed_ms(self.ingest.watermark_ms(), self.lateness_ms);
        let epoch = self.ingest.commit_batch(batch, closed_ms, self.clock.now_ms()).await?;
        self.ingest.close_due_sessions().await?;
        let patience = if self.gold.is_at_work() { CLOSING_MAX } else { self.close_every };
        if more_waits && self.closed_at.elapsed() < patience {
            return Ok((epoch, 0));
        }
        if !more_waits {
            return Ok((epoch, self.close_windows(false).await?));
        }
        let windows = self.gold.settle().await?;
        self.closed_at = Instant::now();
        self.gold.begin(self.ingest.watermark_ms());
        Ok((epoch, windows))
    }

    /// Tells how the parts stand now.
    fn report(&self, meters: &Meters) {
        meters.watermark(self.ingest.watermark_ms());
        meters.sessions(self.ingest.session_size());
        if let Some(keeper) = self.gold.at_rest() {
            keeper.report(meters);
        }
    }

    /// Sessions and windows that the watermark has passed although nothing came.
    async fn close_what_is_due(&mut self) -> anyhow::Result<usize> {
        self.ingest.close_due_sessions().await?;
        self.close_windows(false).await
    }

    async fn close_windows(&mut self, flush: bool) -> anyhow::Result<usize> {
        self.closed_at = Instant::now();
        self.gold.close(self.ingest.watermark_ms(), flush).await
    }

    /// Sends what can be sent within this time, and no more from then on.
    async fn end_sending(&mut self, patience: Duration) {
        if let Some(sending) = self.sending.take() {
            sending.finish(patience).await;
        }
    }

    /// Where partitions that are newly ours are to be read from.
    async fn take_up(&mut self, new: Vec<NewPartition>) -> anyhow::Result<Vec<(NewPartition, Option<Mark>)>> {
        let mut starts = Vec::with_capacity(new.len());
        for new in new {
            let mark = self.ingest.position_of(&new.partition).await?;
            self.ingest.expect(&new, self.clock.now_ms());
            starts.push((new, mark));
        }
        Ok(starts)
    }
}

/// The rules in force, with their memory and who tells of them.
async fn watch_over(
    config: &Config,
    lake: &Arc<Lake>,
    rules: RuleSet,
    pipelines: Vec<Pipeline>,
    clock: &Arc<dyn Clock>,
    terminal: Terminal,
) -> anyhow::Result<Watch> {
    let defaults = SnsDefaults {
        endpoint_url: config.sns.endpoint_url.clone(),
        region: config.sns.region.clone(),
    };
    let notifier = config.alerts.deliver.then(|| Notifier::new(defaults, terminal, watch::producer()));
    Ok(Watch::open(
        Arc::clone(lake),
        rules,
        pipelines,
        query_limits(config),
        notifier,
        Arc::clone(clock),
    )
    .await?)
}

/// A settings error that a person mends, as opposed to a failure of the world.
pub fn is_usage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Complaints>().is_some()
        || matches!(
            error.downcast_ref::<FilesError>(),
            Some(FilesError::NotFound { .. } | FilesError::TooMany { .. })
        )
}

/// The chain of an error, for the person who reads it.
pub fn explain(error: &anyhow::Error) -> String {
    chain(error.as_ref())
}
