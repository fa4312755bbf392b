//! The daemon's own metrics, as Prometheus reads them at `/metrics`.
//!
//! Whoever does the work reports it by one call of `Meters`; `table` says what there is. The recorder
//! is ours and not the process's: no library can add a series, and two daemons of one test do not mix.
//!
//! Invariant: the number of series is bounded: sources and tables come from the settings, all other
//! labels from lists here. A name that neither knows counts as `other`.
//! Invariant: nothing here holds an address, a key, an id or any other part of a record.

pub mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::enrich::remembered::Asked;
use crate::event::RejectReason;
use crate::source::Lag;
use table::{Kind, METERS, Meter};

/// What a name counts as that the settings do not have.
const OTHER: &str = "other";
/// The exporter keeps single observations until it is told to put them into buckets: without a scrape
/// they would pile up.
const OBSERVATIONS_MAX: u64 = 1_024;
/// Statuses that are counted by themselves: those that our routes answer with.
const STATUSES: [(u16, &str); 13] = [
    (200, "200"),
    (204, "204"),
    (400, "400"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (410, "410"),
    (413, "413"),
    (415, "415"),
    (429, "429"),
    (431, "431"),
    (500, "500"),
    (503, "503"),
];
/// Paths that are counted by themselves; whatever else is asked for is nobody's but the sender's.
const PATHS: [&str; 5] = ["/cmcd", "/v1/events", "/healthz", "/readyz", "/metrics"];

/// What became of the records of one source in one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceCounts {
    pub received: u64,
    pub stored: u64,
    pub duplicates: u64,
    pub rejected: BTreeMap<RejectReason, u64>,
}

/// The session engine's size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionSize {
    pub open: usize,
    pub events_in_memory: usize,
    /// Since the start.
    pub events_left_out: u64,
}

/// A bounded queue that slows down whoever fills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Bytes on disk that came over HTTP.
    Spool,
    /// Batches read and not committed.
    Reader,
    /// Memory of the requests in hand.
    HttpMemory,
}

impl Queue {
    fn as_str(self) -> &'static str {
        match self {
            Queue::Spool => "spool",
            Queue::Reader => "reader",
            Queue::HttpMemory => "http_memory",
        }
    }
}

/// What remembers the answers of look-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupMemory {
    /// Country and provider by address.
    Network,
    UserAgent,
}

impl LookupMemory {
    fn as_str(self) -> &'static str {
        match self {
            LookupMemory::Network => "network",
            LookupMemory::UserAgent => "user_agent",
        }
    }
}

/// What upkeep does to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpkeepTask {
    /// Small files become large ones.
    Compact,
    /// The log gets a checkpoint and loses what that replaces.
    Log,
    /// Files that no version needs any more leave the disk.
    Vacuum,
    /// Rows past their retention leave the table.
    Retention,
}

impl UpkeepTask {
    fn as_str(self) -> &'static str {
        match self {
            UpkeepTask::Compact => "compact",
            UpkeepTask::Log => "log",
            UpkeepTask::Vacuum => "vacuum",
            UpkeepTask::Retention => "retention",
        }
    }
}

/// What a run of upkeep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpkeepWork {
    pub files_removed: u64,
    pub bytes_written: u64,
}

/// The metrics of one daemon. Clones report to the same ones.
#[derive(Clone)]
pub struct Meters {
    inner: Arc<Inner>,
}

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    sources: BTreeSet<String>,
    tables: BTreeSet<String>,
    /// Observations of histograms so far.
    observations: AtomicU64,
}

impl Meters {
    /// `sources` and `tables` are all the values that these labels can have: names from the settings.
    pub fn new<'a>(sources: impl IntoIterator<Item = &'a str>, tables: impl IntoIterator<Item = &'a str>) -> Meters {
        let recorder = recorder();
        let meters = Meters {
            inner: Arc::new(Inner {
                handle: recorder.handle(),
                recorder,
                sources: sources.into_iter().map(str::to_owned).collect(),
                tables: tables.into_iter().map(str::to_owned).collect(),
                observations: AtomicU64::new(0),
            }),
        };
        meters.start_at_zero();
        meters.gauge(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION")]).set(1.0);
        meters
    }

    /// The text that `/metrics` answers with (text/plain; version=0.0.4).
    pub fn render(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            self.gauge(&table::MEMORY_BYTES, &[]).set(bytes as f64);
        }
        self.inner.handle.render()
    }

    /// An epoch has been committed to its end; `took` runs from the batch in hand to alerts judged.
    pub fn epoch_committed<'a>(&self, counts: impl IntoIterator<Item = (&'a str, &'a SourceCounts)>, took: Duration, now_ms: i64) {
        for (source, counts) in counts {
            self.count_records(source, counts);
        }
        self.observe(&table::EPOCH_DURATION, &[], took);
        self.gauge(&table::LAST_EPOCH, &[]).set(seconds_of(now_ms));
    }

    pub fn epoch_failed(&self) {
        self.counter(&table::EPOCHS_FAILED, &[]).increment(1);
    }

    pub fn source_lag(&self, source: &str, lag: &Lag) {
        let source = self.source_label(source);
        let or_nan = |number: Option<f64>| number.unwrap_or(f64::NAN);
        self.gauge(&table::SOURCE_LAG_RECORDS, &[source])
            .set(or_nan(lag.records.map(|records| records as f64)));
        self.gauge(&table::SOURCE_LAG_SECONDS, &[source]).set(or_nan(lag.seconds));
        self.gauge(&table::SOURCE_PARTITIONS, &[source]).set(lag.partitions as f64);
    }

    pub fn watermark(&self, watermark_ms: Option<i64>) {
        if let Some(watermark_ms) = watermark_ms {
            self.gauge(&table::WATERMARK, &[]).set(seconds_of(watermark_ms));
        }
    }

    /// A commit to a table is done, its retries included.
    pub fn commit_took(&self, table: &str, took: Duration) {
        self.observe(&table::COMMIT_DURATION, &[self.table_label(table)], took);
    }

    pub fn commit_retried(&self, table: &str) {
        self.counter(&table::COMMIT_RETRIES, &[self.table_label(table)]).increment(1);
    }

    pub fn late_records(&self, records: u64) {
        self.counter(&table::LATE_RECORDS, &[]).increment(records);
    }

    pub fn dirty_windows(&self, windows: usize) {
        self.gauge(&table::DIRTY_WINDOWS, &[]).set(windows as f64);
    }

    pub fn sessions(&self, size: SessionSize) {
        self.gauge(&table::OPEN_SESSIONS, &[]).set(size.open as f64);
        self.gauge(&table::SESSION_EVENTS, &[]).set(size.events_in_memory as f64);
        self.counter(&table::EVENTS_LEFT_OUT, &[]).absolute(size.events_left_out);
    }

    /// `bound` is not 0.
    pub fn queue_fill(&self, queue: Queue, used: u64, bound: u64) {
        let ratio = used as f64 / bound.max(1) as f64;
        self.gauge(&table::QUEUE_FILL_RATIO, &[queue.as_str()]).set(ratio);
    }

    /// `asked` is counted since the start of the process.
    pub fn lookups(&self, memory: LookupMemory, asked: Asked) {
        let memory = memory.as_str();
        self.counter(&table::LOOKUPS, &[memory, "hit"]).absolute(asked.hits);
        self.counter(&table::LOOKUPS, &[memory, "miss"]).absolute(asked.misses);
    }

    pub fn spool(&self, bytes: u64, bytes_max: u64) {
        self.gauge(&table::SPOOL_BYTES, &[]).set(bytes as f64);
        self.queue_fill(Queue::Spool, bytes, bytes_max);
    }

    pub fn http_answered(&self, path: &str, status: u16) {
        let path = PATHS.into_iter().find(|known| *known == path).unwrap_or(OTHER);
        let status = STATUSES.iter().find(|(known, _)| *known == status).map_or(OTHER, |(_, text)| text);
        self.counter(&table::HTTP_REQUESTS, &[path, status]).increment(1);
    }

    pub fn alerts(&self, rules: usize, firing: usize, undelivered: usize, oldest_undelivered: Duration) {
        self.gauge(&table::ALERT_RULES, &[]).set(rules as f64);
        self.gauge(&table::ALERTS_FIRING, &[]).set(firing as f64);
        self.gauge(&table::ALERTS_UNDELIVERED, &[]).set(undelivered as f64);
        self.gauge(&table::ALERTS_OLDEST_UNDELIVERED, &[])
            .set(oldest_undelivered.as_secs_f64());
    }

    pub fn alert_rules_refused(&self, are_refused: bool) {
        self.gauge(&table::ALERT_RULES_REFUSED, &[]).set(f64::from(u8::from(are_refused)));
    }

    /// Results of one gold table were taken in.
    pub fn collected(&self, table: &str, stored: u64, superseded: u64, rejected: u64) {
        let table = self.table_label(table);
        for (outcome, count) in [("stored", stored), ("superseded", superseded), ("rejected", rejected)] {
            self.counter(&table::COLLECT_ROWS, &[table, outcome]).increment(count);
        }
    }

    /// How far a collected table has come.
    pub fn collect_standing(&self, table: &str, lag: Option<u64>, through_ms: Option<i64>) {
        let table = self.table_label(table);
        let lag = lag.map_or(f64::NAN, |records| records as f64);
        self.gauge(&table::COLLECT_LAG, &[table]).set(lag);
        if let Some(through_ms) = through_ms {
            self.gauge(&table::COLLECT_THROUGH, &[table]).set(seconds_of(through_ms));
        }
    }

    /// A run of upkeep over one table has ended.
    pub fn upkeep_done(&self, task: UpkeepTask, work: UpkeepWork, took: Duration) {
        self.counter(&table::UPKEEP_RUNS, &[task.as_str(), "done"]).increment(1);
        self.counter(&table::UPKEEP_FILES_REMOVED, &[task.as_str()])
            .increment(work.files_removed);
        self.counter(&table::UPKEEP_BYTES_WRITTEN, &[task.as_str()])
            .increment(work.bytes_written);
        self.observe(&table::UPKEEP_DURATION, &[task.as_str()], took);
    }

    pub fn upkeep_failed(&self, task: UpkeepTask) {
        self.counter(&table::UPKEEP_RUNS, &[task.as_str(), "failed"]).increment(1);
    }

    /// A rate needs to see a counter before its first step.
    fn start_at_zero(&self) {
        for source in &self.inner.sources {
            self.count_records(source, &SourceCounts::default());
            for reason in RejectReason::ALL {
                self.counter(&table::RECORDS_REJECTED, &[source, reason.as_str()]).increment(0);
            }
        }
        self.counter(&table::EPOCHS_FAILED, &[]).increment(0);
        self.counter(&table::LATE_RECORDS, &[]).increment(0);
        self.sessions(SessionSize::default());
        self.dirty_windows(0);
        self.alerts(0, 0, 0, Duration::ZERO);
        self.alert_rules_refused(false);
    }

    fn count_records(&self, source: &str, counts: &SourceCounts) {
        let source = self.source_label(source);
        self.counter(&table::RECORDS_RECEIVED, &[source]).increment(counts.received);
        self.counter(&table::RECORDS_STORED, &[source]).increment(counts.stored);
        self.counter(&table::RECORDS_DUPLICATE, &[source]).increment(counts.duplicates);
        for (reason, count) in &counts.rejected {
            self.counter(&table::RECORDS_REJECTED, &[source, reason.as_str()]).increment(*count);
        }
    }

    fn source_label<'a>(&self, name: &'a str) -> &'a str {
        if self.inner.sources.contains(name) { name } else { OTHER }
    }

    fn table_label<'a>(&self, name: &'a str) -> &'a str {
        if self.inner.tables.contains(name) { name } else { OTHER }
    }

    fn counter(&self, meter: &Meter, values: &[&str]) -> Counter {
        self.inner.recorder.register_counter(&key(meter, values), &METADATA)
    }

    fn gauge(&self, meter: &Meter, values: &[&str]) -> Gauge {
        self.inner.recorder.register_gauge(&key(meter, values), &METADATA)
    }

    fn observe(&self, meter: &Meter, values: &[&str], took: Duration) {
        let histogram = self.inner.recorder.register_histogram(&key(meter, values), &METADATA);
        histogram.record(took.as_secs_f64());
        let observations = self.inner.observations.fetch_add(1, Ordering::Relaxed) + 1;
        if observations.is_multiple_of(OBSERVATIONS_MAX) {
            self.inner.handle.run_upkeep();
        }
    }
}

/// Asked for by the recorder's interface and used by nothing.
const METADATA: Metadata<'static> = Metadata::new("playhead", Level::INFO, None);

fn key(meter: &Meter, values: &[&str]) -> Key {
    let labels = meter.labels.iter().zip(values);
    let labels: Vec<Label> = labels.map(|(label, value)| Label::new(*label, (*value).to_owned())).collect();
    Key::from_parts(meter.name, labels)
}

/// An empty recorder that knows every metric's help and buckets.
fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for meter in &METERS {
        if let Kind::Histogram(bounds) = meter.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(meter.name.to_owned()), bounds)
                .expect("only an empty list of buckets is refused");
        }
    }
    let recorder = builder.build_recorder();
    for meter in &METERS {
        let (name, help) = (meter.name.into(), meter.help.into());
        match meter.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
        }
    }
    recorder
}

fn seconds_of(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// What the process holds in memory; `None` where the system does not tell (it is not Linux).
fn resident_bytes() -> Option<u64> {
    // Not `statm`: it counts pages, whose size only a system call tells.
    resident_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// `VmRSS:     12345 kB` (proc_pid_status(5); the unit is always kB, and means KiB).
fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests;
