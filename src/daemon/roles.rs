//! What a daemon's role adds and leaves out, and the start of each.
//!
//! ```text
//! all      sources -> bronze, silver -> gold -> alerts      (and results to gold, where collect.brokers is set)
//! ingest   sources -> bronze, silver -> relay               gold that can run on Arroyo is left to it
//! collect  results -> gold -> alerts, figures               no source
//! serve    questions
//! ```
//!
//! Invariant: within a cluster one daemon judges alerts over gold: the one that collects it.
//! Invariant: a gold table that this lake's runner has written is given to Arroyo by `--hand-over` and by nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::bail;
use tokio::sync::watch as signal;

use super::{Complaints, collect, follow, serve, sources};
use crate::alert::rule::RuleSet;
use crate::arroyo::results;
use crate::clock::Clock;
use crate::config::{Config, Role};
use crate::lake::Lake;
use crate::rollup::collect::{Collector, SOURCE, Settings, runs_on_arroyo};
use crate::rollup::owner::leave_to_arroyo;
use crate::sql::pipeline::Pipeline;
use crate::telemetry::metrics::Meters;
use crate::watch;

/// Runs the daemon in the role of the settings until `stop` is set.
///
/// # Errors
/// What a person has to mend before anything can go on.
pub async fn run(config: &Config, clock: Arc<dyn Clock>, stop: signal::Receiver<bool>) -> anyhow::Result<()> {
    match config.role {
        Role::All | Role::Ingest => follow(config, clock, stop).await,
        Role::Collect => collect::collect(config, clock, stop).await,
        Role::Serve => serve(config, clock, stop).await,
    }
}

/// Leaves the tables of these pipelines to Arroyo, as far as it can compute them.
///
/// # Errors
/// This lake's own runner has written one of them.
pub(super) async fn leave_gold_to_arroyo(lake: &Lake, pipelines: &[Pipeline]) -> anyhow::Result<()> {
    let mut ours = Vec::new();
    for pipeline in pipelines.iter().filter(|pipeline| runs_on_arroyo(pipeline)) {
        if !leave_to_arroyo(lake, pipeline).await? {
            ours.push(pipeline.table());
        }
    }
    if ours.is_empty() {
        return Ok(());
    }
    bail!(
        "this lake's own runner writes {}: a gold table has one writer; run `playhead arroyo deploy --hand-over` on this lake to give them to \
         Arroyo, or start with --role all",
        ours.join(", ")
    )
}

/// What collects here; `None`: nothing does.
///
/// # Errors
/// The settings of the consumer are wrong, or a table cannot be read.
pub(super) async fn collector(
    config: &Config,
    lake: &Arc<Lake>,
    pipelines: &[Pipeline],
    meters: &Meters,
    now_ms: i64,
) -> anyhow::Result<Option<Collector>> {
    let (Some(brokers), Role::All | Role::Collect) = (config.collect.brokers.clone(), config.role) else {
        return Ok(None);
    };
    let ms = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let settings = Settings {
        brokers: results::Settings {
            brokers,
            properties: config.collect.properties.clone(),
            group: format!("{}-collect-{}", config.arroyo.topics, lake.id().await?),
        },
        topics: config.arroyo.topics.clone(),
        settle_ms: ms(config.collect.settle),
        idle_ms: ms(config.collect.idle),
    };
    Collector::open(Arc::clone(lake), pipelines, settings, Some(meters.clone()), now_ms).await
}

/// The brokers to collect from must be named by who does nothing else.
pub(super) fn collect_complaints(config: &Config) -> Result<(), Complaints> {
    match config.collect.brokers {
        Some(_) => Ok(()),
        None => {
            let message = "collect.brokers is not set: a daemon in the role collect reads Arroyo's results from Kafka; name the brokers as this \
                           machine reaches them";
            Err(Complaints(vec![message.to_owned()]))
        }
    }
}

/// The rules that this daemon judges: none where gold is somebody else's.
pub(super) fn judged(config: &Config, mut rules: RuleSet) -> RuleSet {
    if config.role == Role::Ingest {
        rules.rules.clear();
        rules.targets.clear();
    }
    rules
}

/// Says which tables rules read that nobody fills in a lake of collected rows.
pub(super) fn warn_of_unfilled(rules: &RuleSet, pipelines: &[Pipeline]) {
    let read = watch::tables_of(rules, pipelines);
    let is_here_only = |pipeline: &&Pipeline| {
        let mut finest = *pipeline;
        while let Some(finer) = &finest.finer {
            finest = finer;
        }
        finest.here_only.is_some()
    };
    let here_only: BTreeSet<String> = pipelines.iter().filter(is_here_only).map(Pipeline::table).collect();
    let unfilled: Vec<&str> = read.intersection(&here_only).map(String::as_str).collect();
    if !unfilled.is_empty() {
        tracing::warn!(
            "alert rules read {}, which Arroyo does not compute and so nobody fills in this lake: they will not fire (docs/scaling.md)",
            unfilled.join(", ")
        );
    }
}

/// What counts as a source in metrics and in `ops.health_1m`.
pub(super) fn source_names(config: &Config) -> Vec<&str> {
    match config.role {
        Role::Collect => vec![SOURCE],
        Role::All if config.collect.brokers.is_some() => sources::names(config).into_iter().chain([SOURCE]).collect(),
        _ => sources::names(config),
    }
}
