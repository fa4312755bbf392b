//! The table of the daemon's own metrics: name, kind, labels, help. `/metrics` and `deploy/README.md`
//! both hold exactly these.
//!
//! Names follow Prometheus' rules: base units (seconds, bytes), `_total` on counters and on nothing
//! else. What viewers got is not here: that is `crate::metric` and the gold tables.
//!
//! Invariant: a label's values come from the settings or from a list in the code, never from data.

/// One metric of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Meter {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Upper bounds of the buckets, seconds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As the text format's `# TYPE` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// From a small local epoch to one that stands at the longest cadence that the settings allow.
const EPOCH_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];
/// From a local commit (a few milliseconds) to an object store that makes everybody retry.
const COMMIT_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// From a look at a small table to a compaction of a day.
const UPKEEP_BUCKETS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Meter {
    Meter {
        name,
        kind: Kind::Counter,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Meter {
    Meter {
        name,
        kind: Kind::Gauge,
        labels,
        help,
    }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], buckets: &'static [f64], help: &'static str) -> Meter {
    Meter {
        name,
        kind: Kind::Histogram(buckets),
        labels,
        help,
    }
}

pub const BUILD_INFO: Meter = gauge("playhead_build_info", &["version"], "Always 1; the label says which release runs.");
pub const MEMORY_BYTES: Meter = gauge("playhead_memory_bytes", &[], "Resident memory of the process.");

pub const RECORDS_RECEIVED: Meter = counter(
    "playhead_records_received_total",
    &["source"],
    "Records of committed epochs: stored, duplicate and rejected ones add up to it.",
);
pub const RECORDS_STORED: Meter = counter("playhead_records_stored_total", &["source"], "Records that are rows in bronze.");
pub const RECORDS_DUPLICATE: Meter = counter("playhead_records_duplicate_total", &["source"], "Records that bronze held already.");
pub const RECORDS_REJECTED: Meter = counter(
    "playhead_records_rejected_total",
    &["source", "reason"],
    "Records that could not be used; silver.rejects says where they stood.",
);
pub const LATE_RECORDS: Meter = counter(
    "playhead_late_records_total",
    &[],
    "Stored records whose minute had been closed before they came; it is computed again.",
);

pub const LOOKUPS: Meter = counter(
    "playhead_lookups_total",
    &["memory", "answer"],
    "Look-ups of addresses and user agents that memory answered (hit) or that had to be worked out (miss).",
);

pub const SOURCE_LAG_RECORDS: Meter = gauge(
    "playhead_source_lag_records",
    &["source"],
    "Records that wait to be read; NaN where the source cannot tell.",
);
pub const SOURCE_LAG_SECONDS: Meter = gauge(
    "playhead_source_lag_seconds",
    &["source"],
    "Age of the oldest record that waits to be read; NaN where the source cannot tell.",
);
pub const SOURCE_PARTITIONS: Meter = gauge(
    "playhead_source_partitions",
    &["source"],
    "Partitions (files, topic partitions, shards) that this daemon reads.",
);
pub const QUEUE_FILL_RATIO: Meter = gauge(
    "playhead_queue_fill_ratio",
    &["queue"],
    "How full a bounded queue is, 0 to 1; at 1 senders or sources are made to wait.",
);
pub const SPOOL_BYTES: Meter = gauge(
    "playhead_spool_bytes",
    &[],
    "What came over HTTP and is not in bronze yet, on disk.",
);

pub const EPOCH_DURATION: Meter = histogram(
    "playhead_epoch_duration_seconds",
    &[],
    EPOCH_BUCKETS,
    "Time from a batch in hand to its alerts judged.",
);
pub const EPOCHS_FAILED: Meter = counter(
    "playhead_epochs_failed_total",
    &[],
    "Epochs that could not be committed; they are tried again.",
);
pub const LAST_EPOCH: Meter = gauge(
    "playhead_last_epoch_timestamp_seconds",
    &[],
    "When an epoch was last committed, Unix time.",
);
pub const COMMIT_DURATION: Meter = histogram(
    "playhead_commit_duration_seconds",
    &["table"],
    COMMIT_BUCKETS,
    "Time that a commit to a table took, its retries included.",
);
pub const COMMIT_RETRIES: Meter = counter(
    "playhead_commit_retries_total",
    &["table"],
    "Commits tried again after a conflict or a fault of the storage.",
);

pub const WATERMARK: Meter = gauge(
    "playhead_watermark_timestamp_seconds",
    &[],
    "Event time up to which the input is complete, Unix time; absent before the first event.",
);
pub const DIRTY_WINDOWS: Meter = gauge(
    "playhead_dirty_windows",
    &[],
    "Windows of gold tables that are open, or were changed by late records, and are still to be computed.",
);
pub const OPEN_SESSIONS: Meter = gauge("playhead_open_sessions", &[], "Playback sessions that have not ended.");
pub const SESSION_EVENTS: Meter = gauge(
    "playhead_session_events_in_memory",
    &[],
    "Events that the session engine keeps in memory.",
);
pub const EVENTS_LEFT_OUT: Meter = counter(
    "playhead_events_left_out_total",
    &[],
    "Stored events that sessions past their bounds do not count.",
);

pub const HTTP_REQUESTS: Meter = counter("playhead_http_requests_total", &["path", "status"], "Answered HTTP requests.");

pub const ALERT_RULES: Meter = gauge("playhead_alert_rules_loaded", &[], "Alert rules in force.");
pub const ALERTS_FIRING: Meter = gauge("playhead_alerts_firing", &[], "Alerts that are firing.");
pub const ALERTS_UNDELIVERED: Meter = gauge(
    "playhead_alerts_undelivered",
    &[],
    "Alert messages in the outbox that no target has acknowledged.",
);
pub const ALERTS_OLDEST_UNDELIVERED: Meter = gauge(
    "playhead_alerts_oldest_undelivered_seconds",
    &[],
    "Time since the oldest of these was recorded; 0 while none waits.",
);
pub const ALERT_RULES_REFUSED: Meter = gauge(
    "playhead_alert_rules_refused",
    &[],
    "1 while an edit of the alert files is not right and the rules before it stay in force; the log says what to write.",
);

pub const COLLECT_ROWS: Meter = counter(
    "playhead_collect_rows_total",
    &["table", "outcome"],
    "Results of Arroyo taken from its topics: stored, superseded by a later one that came with them, or rejected.",
);
pub const COLLECT_LAG: Meter = gauge(
    "playhead_collect_lag_records",
    &["table"],
    "Results that wait in the topic of a gold table; NaN while it is not known.",
);
pub const COLLECT_THROUGH: Meter = gauge(
    "playhead_collect_through_timestamp_seconds",
    &["table"],
    "End of the latest window that has been collected, Unix time.",
);

pub const UPKEEP_RUNS: Meter = counter(
    "playhead_upkeep_runs_total",
    &["task", "outcome"],
    "Runs of upkeep over a table, by how they ended.",
);
pub const UPKEEP_DURATION: Meter = histogram(
    "playhead_upkeep_duration_seconds",
    &["task"],
    UPKEEP_BUCKETS,
    "Time that a run of upkeep over a table took.",
);
pub const UPKEEP_FILES_REMOVED: Meter = counter(
    "playhead_upkeep_files_removed_total",
    &["task"],
    "Files that upkeep took out of tables or off the disk.",
);
pub const UPKEEP_BYTES_WRITTEN: Meter = counter("playhead_upkeep_bytes_written_total", &["task"], "Bytes that upkeep wrote.");

/// All of them, in the order in which a person would ask.
pub const METERS: [Meter; 36] = [
    BUILD_INFO,
    MEMORY_BYTES,
    RECORDS_RECEIVED,
    RECORDS_STORED,
    RECORDS_DUPLICATE,
    RECORDS_REJECTED,
    LATE_RECORDS,
    LOOKUPS,
    SOURCE_LAG_RECORDS,
    SOURCE_LAG_SECONDS,
    SOURCE_PARTITIONS,
    QUEUE_FILL_RATIO,
    SPOOL_BYTES,
    EPOCH_DURATION,
    EPOCHS_FAILED,
    LAST_EPOCH,
    COMMIT_DURATION,
    COMMIT_RETRIES,
    WATERMARK,
    DIRTY_WINDOWS,
    OPEN_SESSIONS,
    SESSION_EVENTS,
    EVENTS_LEFT_OUT,
    HTTP_REQUESTS,
    ALERT_RULES,
    ALERTS_FIRING,
    ALERTS_UNDELIVERED,
    ALERTS_OLDEST_UNDELIVERED,
    ALERT_RULES_REFUSED,
    COLLECT_ROWS,
    COLLECT_LAG,
    COLLECT_THROUGH,
    UPKEEP_RUNS,
    UPKEEP_DURATION,
    UPKEEP_FILES_REMOVED,
    UPKEEP_BYTES_WRITTEN,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts that a base unit replaces, and abbreviations (the rules of `promtool check metrics`).
    const REFUSED_PARTS: [&str; 14] = [
        "milliseconds",
        "ms",
        "us",
        "ns",
        "sec",
        "s",
        "minutes",
        "hours",
        "kb",
        "mb",
        "gb",
        "kilobytes",
        "percent",
        "count",
    ];

    /// Why `promtool check metrics` would refuse a metric.
    fn complaint(meter: &Meter) -> Option<&'static str> {
        let parts: Vec<&str> = meter.name.split('_').collect();
        let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if parts[0] != "playhead" || !is_plain(meter.name) || !meter.labels.iter().all(|label| is_plain(label)) {
            return Some("name");
        }
        if meter.name.ends_with("_total") != (meter.kind == Kind::Counter) {
            return Some("_total");
        }
        if parts
            .iter()
            .any(|part| REFUSED_PARTS.contains(part) || ["gauge", "counter", "histogram"].contains(part))
        {
            return Some("unit or kind in the name");
        }
        let is_in_seconds = meter.name.ends_with("_seconds");
        match meter.kind {
            Kind::Histogram(_) if !is_in_seconds => Some("histogram without its unit"),
            Kind::Histogram(bounds) if !bounds.is_sorted_by(|one, next| one < next) => Some("buckets"),
            _ if meter.help.is_empty() || !meter.help.ends_with('.') => Some("help"),
            _ => None,
        }
    }

    #[test]
    fn every_metric_follows_the_naming_rules() {
        for meter in &METERS {
            assert_eq!(complaint(meter), None, "{}", meter.name);
        }
    }

    #[test]
    fn what_promtool_refuses_is_refused() {
        let check = |meter: Meter, expected: &str| assert_eq!(complaint(&meter), Some(expected), "{}", meter.name);
        check(counter("playhead_records", &[], "Records."), "_total");
        check(gauge("playhead_records_total", &[], "Records."), "_total");
        check(gauge("playhead_lag_ms", &[], "Lag."), "unit or kind in the name");
        check(gauge("playhead_lagGauge", &[], "Lag."), "name");
        check(gauge("playhead_lag", &["Source"], "Lag."), "name");
        check(gauge("playhead_lag", &[], ""), "help");
        check(
            histogram("playhead_wait", &[], COMMIT_BUCKETS, "Wait."),
            "histogram without its unit",
        );
        check(histogram("playhead_wait_seconds", &[], &[1.0, 0.5], "Wait."), "buckets");
    }

    #[test]
    fn no_name_stands_twice() {
        let names: std::collections::BTreeSet<&str> = METERS.iter().map(|meter| meter.name).collect();
        assert_eq!(names.len(), METERS.len());
    }

    #[test]
    fn the_page_for_those_who_deploy_holds_this_table() {
        let mut table = String::from("| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n");
        for meter in &METERS {
            let labels: Vec<String> = meter.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, kind, labels, help) = (meter.name, meter.kind.as_str(), labels.join(", "), meter.help);
            table.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
        }
        let page = include_str!("../../../deploy/README.md");
        assert!(page.contains(&table), "put this into deploy/README.md:\n\n{table}");
    }
}
