//! The cluster that `playhead arroyo` speaks to, where silver is published, and where its results are collected.
//!
//! Invariant: the token comes from the environment and is never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Checks, check_endpoint, file};

/// Arroyo's own default.
const API: &str = "http://127.0.0.1:5115";
const TOPICS: &str = "playhead";
/// More subtasks than a cluster of any size has slots.
const PARALLELISM: RangeInclusive<u64> = 1..=1024;
/// What Arroyo takes.
const CHECKPOINT_EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// Which part of a cluster a daemon is (docs/scaling.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything: one machine.
    #[default]
    All,
    /// Reads sources, lands bronze and silver, publishes silver; gold that Arroyo computes is left to it, and no alerts.
    Ingest,
    /// Brings Arroyo's results to gold, judges alerts, publishes figures; reads no source.
    Collect,
    /// Answers questions over a lake that another process writes; the same as `playhead serve`.
    Serve,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Arroyo {
    pub api: String,
    pub token: Option<String>,
    /// As the cluster's workers reach them; `None`: nothing can be deployed.
    pub brokers: Option<String>,
    pub topics: String,
    pub parallelism: u64,
    pub checkpoint_every: Duration,
    pub stop_within: Duration,
}

impl fmt::Debug for Arroyo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arroyo")
            .field("api", &self.api)
            .field("brokers", &self.brokers)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

/// State of a day's windows on a slow bucket takes minutes.
const STOP_WITHIN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// As `windows.lateness`; a whole day of results is never waited for.
const SETTLE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
/// Three heartbeats of the slowest player are minutes; nobody wants to wait for an hour.
const ENDS_AFTER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// Below a checkpoint of Arroyo every pause would count as silence.
const IDLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Where window results are collected.
#[derive(Clone, PartialEq, Eq)]
pub struct Collect {
    /// `None`: nothing is collected.
    pub brokers: Option<String>,
    /// For librdkafka, as they are.
    pub properties: BTreeMap<String, String>,
    /// How far event time must be past a window before it counts as complete.
    pub settle: Duration,
    /// A table from which nothing has come for this long holds up no other.
    pub idle: Duration,
}

impl fmt::Debug for Collect {
    /// Properties hold passwords: only their names may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("Collect")
            .field("brokers", &self.brokers)
            .field("properties", &names)
            .finish_non_exhaustive()
    }
}

/// Where silver is published.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Relay {
    /// `None`: nothing is published.
    pub brokers: Option<String>,
    /// For librdkafka, as they are.
    pub properties: BTreeMap<String, String>,
    /// How much later than the rest ended sessions are published.
    pub ends_after: Duration,
}

impl fmt::Debug for Relay {
    /// Properties hold passwords: only their names may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("Relay")
            .field("brokers", &self.brokers)
            .field("properties", &names)
            .field("ends_after", &self.ends_after)
            .finish()
    }
}

pub(super) fn arroyo(written: file::ArroyoFile, checks: &mut Checks) -> Arroyo {
    check_endpoint("arroyo.api", written.api.as_deref(), checks);
    if written.token.is_some() && !checks.places.of("arroyo.token").from_environment {
        let message = "a secret is written into the settings file";
        checks.complain(
            "arroyo.token",
            message,
            "put it into an environment variable and write `token: ${NAME}`",
        );
    }
    let topics = written.topics.unwrap_or_else(|| TOPICS.to_owned());
    let is_topic = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if topics.is_empty() || !topics.bytes().all(is_topic) {
        let message = format!("{topics:?} cannot begin the name of a topic");
        checks.complain("arroyo.topics", message, "use letters, digits, `.`, `_` and `-`");
    }
    Arroyo {
        api: written.api.unwrap_or_else(|| API.to_owned()),
        token: written.token,
        brokers: written.brokers,
        topics,
        parallelism: checks.within("arroyo.parallelism", written.parallelism.unwrap_or(1), PARALLELISM, |count| {
            count.to_string()
        }),
        checkpoint_every: checks.span(
            "arroyo.checkpoint_every",
            written.checkpoint_every,
            Duration::from_secs(10),
            CHECKPOINT_EVERY,
        ),
        stop_within: checks.span("arroyo.stop_within", written.stop_within, Duration::from_secs(60), STOP_WITHIN),
    }
}

pub(super) fn relay(written: file::RelayFile, checks: &mut Checks) -> Relay {
    Relay {
        brokers: written.brokers,
        properties: written.properties.unwrap_or_default(),
        ends_after: checks.span("relay.ends_after", written.ends_after, Duration::from_secs(300), ENDS_AFTER),
    }
}

pub(super) fn collect(written: file::CollectFile, checks: &mut Checks) -> Collect {
    Collect {
        brokers: written.brokers,
        properties: written.properties.unwrap_or_default(),
        settle: checks.span("collect.settle", written.settle, Duration::from_secs(60), SETTLE),
        idle: checks.span("collect.idle", written.idle, Duration::from_secs(300), IDLE),
    }
}
