//! Objects of a store as a source of the daemon: S3, and whatever else `object_store` reads.
//!
//! First step of the walk. Objects are found by listing (`listing`), by notifications (`queue`,
//! `notices`) or both, looked into (`flight`), and read side by side (`reading`, `fetch`, `parquet`),
//! the one that is furthest behind in event time first (DESIGN D16).
//!
//! Invariant: an object is complete as it lies. Its version is part of its partition's name, so a
//! replaced object is another partition, and what overlaps is caught as duplicates.
//! Invariant: an object is read once though it be announced often: what is under way is remembered
//! here, what is committed in the ledger, which is asked through `Known`.
//! Invariant: no call waits for the network; at most `open_max` objects are open.

pub mod fetch;
pub mod flight;
pub mod listing;
pub mod notices;
mod parquet;
pub mod queue;
pub mod reading;
pub mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::lines::share_of;
use super::{BatchLimits, Found, Lag, Mark, Part, Source, SourceError};
use crate::clock::Clock;
use crate::event::decode::Format;
use fetch::{FetchError, Patience};
use flight::{ALOFT_MAX, Announcer, Arrival, Flight, key_of};
use listing::{Lister, Selection};
use queue::sqs::{QueuePlace, Sqs};
use queue::{Desk, Keeper, Queue, Watcher};
use reading::{Bell, Item, Opened, ReadError, Workshop};
use store::{Bucket, StoreError, StorePlace};

pub use flight::Standing;

/// Longest that `next_part` waits for a worker.
const PART_WAIT: Duration = Duration::from_millis(5);
/// How far ahead in event time an object may be read while an earlier one is waited for.
const LEAD_MS: i64 = 10 * 60 * 1_000;
/// After so long an object that gives nothing no longer holds the others back.
const STALL: Duration = Duration::from_secs(5);
/// Rest of an object after the store did not answer in spite of all retries.
const BROKEN_REST: Duration = Duration::from_secs(30);
/// Rest of an object that the store refuses: somebody has to change a permission.
const REFUSED_REST: Duration = Duration::from_secs(10 * 60);
/// Objects that one call of `discover` returns.
const FOUND_MAX: usize = 256;
/// Errors of discovery that wait beside the objects.
const ERRORS_WAITING: usize = 64;
/// Longest that `stop` waits for the queue to take what is committed.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// What the ledger says of a partition that was last modified then, epoch ms.
pub type Known = Arc<dyn Fn(&str, i64) -> Standing + Send + Sync>;

/// Settings of one source of objects.
#[derive(Debug, Clone)]
pub struct ObjectsSettings {
    /// Name in the settings.
    pub name: String,
    /// `s3://bucket/folder`, `file:///folder`.
    pub url: String,
    /// Start of the keys below the URL; may hold `{yyyy}`, `{MM}`, `{dd}` and `{HH}` (UTC).
    pub prefix: String,
    /// Ends of the keys, one of which must match; none: every key but hidden and unfinished ones.
    pub suffixes: Vec<String>,
    /// `None`: detected per object.
    pub format: Option<Format>,
    /// The first line of an object names its columns and is no record.
    pub names_columns: bool,
    /// How often is listed; `None`: never, which needs a queue.
    pub list_every: Option<Duration>,
    /// How far back the hours of a prefix are filled in. CloudFront delivers up to 24 h late.
    pub late: Duration,
    /// For the ledger: objects last modified before it and unknown are not read.
    pub horizon: Duration,
    /// Queue of SQS that gets the bucket's events.
    pub queue_url: Option<String>,
    /// How long a message is held back from others; it is held again while it is worked on.
    pub queue_hold: Duration,
    /// `None`: from the environment.
    pub region: Option<String>,
    /// Another S3 than Amazon's, in path style; plain HTTP only on this machine.
    pub endpoint_url: Option<String>,
    /// Another SQS than Amazon's; `None`: as `endpoint_url`.
    pub queue_endpoint_url: Option<String>,
    /// Objects that are open at once; each holds up to 20 MiB.
    pub open_max: usize,
    /// How failed requests are made again.
    pub patience: Patience,
}

impl ObjectsSettings {
    /// The usual settings of a source.
    pub fn new(name: &str, url: &str) -> ObjectsSettings {
        ObjectsSettings {
            name: name.to_string(),
            url: url.to_string(),
            prefix: String::new(),
            suffixes: Vec::new(),
            format: None,
            names_columns: false,
            list_every: Some(Duration::from_secs(60)),
            late: Duration::from_hours(26),
            horizon: Duration::from_hours(24 * 7),
            queue_url: None,
            queue_hold: Duration::from_secs(120),
            region: None,
            endpoint_url: None,
            queue_endpoint_url: None,
            open_max: 8,
            patience: Patience::default(),
        }
    }

    pub fn store_place(&self) -> StorePlace {
        StorePlace {
            url: self.url.clone(),
            region: self.region.clone(),
            endpoint_url: self.endpoint_url.clone(),
        }
    }

    fn queue(&self) -> Option<Arc<dyn Queue>> {
        let queue_url = self.queue_url.clone()?;
        Some(Arc::new(Sqs::new(QueuePlace {
            queue_url,
            region: self.region.clone(),
            endpoint_url: self.queue_endpoint_url.clone().or_else(|| self.endpoint_url.clone()),
        })))
    }
}

/// An object that was started and is not committed to its end.
struct Reading {
    item: Item,
    offset: i64,
    /// How far it has been read in event time; the earliest is read next.
    read_to_ms: i64,
    step: Step,
}

enum Step {
    Waiting,
    /// Not to be opened before.
    Resting(Instant),
    Open(Box<Opened>),
    /// Every record was handed over, the last one ended there.
    HandedOver(i64),
}

/// Reads the objects of one bucket or folder.
pub struct ObjectSource {
    settings: ObjectsSettings,
    workshop: Workshop,
    flight: Arc<Flight>,
    arrivals: mpsc::Receiver<Arrival>,
    found: HashMap<Arc<str>, Item>,
    /// An error that waits until the objects before it are handed over.
    told_next: Option<SourceError>,
    readings: HashMap<Arc<str>, Reading>,
    desk: Option<Arc<Desk>>,
    discovery: Vec<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl ObjectSource {
    /// Opens the store and begins to look for objects on a runtime.
    ///
    /// # Errors
    /// The store cannot be used as it is set. Whether it answers shows later.
    pub fn open(settings: ObjectsSettings, runtime: &Handle, known: Known, clock: Arc<dyn Clock>) -> Result<ObjectSource, StoreError> {
        let bucket = Bucket::open(&settings.store_place())?;
        let queue = settings.queue();
        Ok(ObjectSource::over(settings, bucket, queue, runtime, known, clock))
    }

    /// Over a store and a queue that were opened elsewhere.
    pub fn over(
        settings: ObjectsSettings,
        bucket: Bucket,
        queue: Option<Arc<dyn Queue>>,
        runtime: &Handle,
        known: Known,
        clock: Arc<dyn Clock>,
    ) -> ObjectSource {
        let (into, arrivals) = mpsc::channel(ALOFT_MAX + ERRORS_WAITING);
        let flight = Arc::new(Flight::new(known, clock));
        let announcer = Announcer {
            source_name: settings.name.clone(),
            bucket: bucket.clone(),
            format: settings.format,
            names_columns: settings.names_columns,
            patience: settings.patience,
            flight: Arc::clone(&flight),
            arrivals: into,
            desk: queue.is_some().then(|| Arc::new(Desk::default())),
        };
        let workshop = Workshop {
            runtime: runtime.clone(),
            bucket,
            patience: settings.patience,
            bell: Arc::new(Bell::default()),
            limits: Arc::new(Mutex::new(BatchLimits { bytes: 0, records: 1 })),
        };
        let mut source = ObjectSource {
            settings,
            workshop,
            flight,
            arrivals,
            found: HashMap::new(),
            told_next: None,
            readings: HashMap::new(),
            desk: None,
            discovery: Vec::new(),
            keeper: None,
        };
        source.begin(announcer, queue);
        source
    }

    fn begin(&mut self, announcer: Announcer, queue: Option<Arc<dyn Queue>>) {
        let selection = Selection {
            prefix: announcer.bucket.key_prefix(&self.settings.prefix),
            suffixes: self.settings.suffixes.clone(),
        };
        let runtime = self.workshop.runtime.clone();
        let hold = self.settings.queue_hold;
        self.desk.clone_from(&announcer.desk);
        if let (Some(queue), Some(desk)) = (queue, &announcer.desk) {
            let keeper = Keeper {
                queue: Arc::clone(&queue),
                desk: Arc::clone(desk),
                hold,
            };
            let watcher = Watcher {
                queue,
                desk: Arc::clone(desk),
                announcer: announcer.clone(),
                selection: selection.clone(),
                hold,
            };
            self.keeper = Some(runtime.spawn(keeper.run()));
            self.discovery.push(runtime.spawn(watcher.run()));
        }
        if let Some(every) = self.settings.list_every {
            let late = self.settings.late;
            let lister = Lister {
                announcer,
                selection,
                every,
                late,
            };
            self.discovery.push(runtime.spawn(lister.run()));
        }
    }

    /// Objects that were not read because they are older than the horizon.
    pub fn too_old(&self) -> u64 {
        self.flight.too_old()
    }

    /// Opens the earliest objects that wait, up to the most.
    fn open_more(&mut self) {
        let is_open = |reading: &&Reading| matches!(reading.step, Step::Open(_));
        let mut open = self.readings.values().filter(is_open).count();
        while open < self.settings.open_max.max(1) {
            let waiting = self.readings.values_mut().filter(|reading| match reading.step {
                Step::Waiting => true,
                Step::Resting(until) => until <= Instant::now(),
                Step::Open(_) | Step::HandedOver(_) => false,
            });
            let Some(next) = waiting.min_by_key(|reading| (reading.read_to_ms, reading.item.object.last_modified_ms)) else {
                return;
            };
            next.step = Step::Open(Box::new(Opened::open(&self.workshop, &next.item, next.offset)));
            open += 1;
        }
    }

    /// The earliest open object that has something to give, unless an earlier one should be waited for.
    fn take_ready(&mut self) -> Option<(Arc<str>, Result<Part, ReadError>)> {
        let mut earliest_ready: Option<(i64, Arc<str>)> = None;
        let mut awaited_ms = i64::MAX;
        for (partition, reading) in &mut self.readings {
            let Step::Open(opened) = &mut reading.step else { continue };
            if !opened.is_ready() {
                if opened.waited() < STALL {
                    awaited_ms = awaited_ms.min(reading.read_to_ms);
                }
            } else if earliest_ready.as_ref().is_none_or(|(ready_ms, _)| reading.read_to_ms < *ready_ms) {
                earliest_ready = Some((reading.read_to_ms, Arc::clone(partition)));
            }
        }
        let (_, partition) = earliest_ready.filter(|(ready_ms, _)| *ready_ms <= awaited_ms.saturating_add(LEAD_MS))?;
        let Step::Open(opened) = &mut self.readings.get_mut(&partition)?.step else {
            return None;
        };
        let taken = opened.take()?;
        Some((partition, taken))
    }

    fn advanced_to(&mut self, partition: &Arc<str>, part: &Part) {
        if let Some(reading) = self.readings.get_mut(partition) {
            reading.offset = part.to;
            if part.finished {
                reading.step = Step::HandedOver(part.to);
            }
        }
    }

    /// An object that gives nothing more, now or ever; `None`: nobody needs to know.
    fn broke_off(&mut self, partition: &Arc<str>, error: ReadError) -> Option<SourceError> {
        let reading = self.readings.get_mut(partition)?;
        let offset = reading.offset;
        let (what, advice) = match error {
            ReadError::Fetch(FetchError::Replaced) => {
                tracing::info!(%partition, offset, "an object was replaced while it was read; its new content is read as another one");
                self.settle(partition);
                return None;
            }
            ReadError::Fetch(FetchError::Vanished) => {
                self.settle(partition);
                (
                    "it is gone".to_string(),
                    "what was read of it is kept; if a lifecycle rule deletes objects, keep them for longer",
                )
            }
            ReadError::Fetch(error @ FetchError::Broken(_)) => {
                reading.step = Step::Resting(Instant::now() + BROKEN_REST);
                (error.to_string(), "it is tried again; nothing is lost")
            }
            ReadError::Fetch(error @ FetchError::Refused(_)) => {
                reading.step = Step::Resting(Instant::now() + REFUSED_REST);
                (error.to_string(), "allow s3:GetObject on it; it is tried again")
            }
            ReadError::Damaged { what, why } => {
                self.give_up(partition);
                (
                    format!("the {what} stream is damaged ({why})"),
                    "everything before was taken; write the object again to get the rest",
                )
            }
        };
        Some(SourceError {
            source_name: self.settings.name.clone(),
            what: format!("cannot read {partition} past {offset}: {what}"),
            advice: advice.to_string(),
        })
    }

    /// An object that needs nothing more.
    fn settle(&mut self, partition: &Arc<str>) {
        self.readings.remove(partition);
        self.flight.land(partition);
        if let Some(desk) = &self.desk {
            desk.settle(key_of(partition));
        }
    }

    fn give_up(&mut self, partition: &Arc<str>) {
        self.readings.remove(partition);
        self.flight.give_up(partition);
        if let Some(desk) = &self.desk {
            desk.give_up(key_of(partition));
        }
    }

    fn end_discovery(&mut self) {
        for task in self.discovery.drain(..) {
            task.abort();
        }
    }
}

impl Source for ObjectSource {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn discover(&mut self) -> Result<Vec<Found>, SourceError> {
        if let Some(error) = self.told_next.take() {
            return Err(error);
        }
        let mut all = Vec::new();
        while all.len() < FOUND_MAX {
            match self.arrivals.try_recv() {
                Ok(Arrival::Item(item)) => {
                    all.push(Found {
                        partition: Arc::clone(&item.object.partition),
                        format: item.format,
                        header: Arc::clone(&item.header),
                        first_line: item.first_line.clone(),
                    });
                    self.found.insert(Arc::clone(&item.object.partition), *item);
                }
                Ok(Arrival::Error(error)) if all.is_empty() => return Err(error),
                Ok(Arrival::Error(error)) => {
                    self.told_next = Some(error);
                    break;
                }
                Err(_) => break,
            }
        }
        Ok(all)
    }

    fn start(&mut self, partition: &Arc<str>, from: Option<Mark>) {
        let Some(item) = self.found.remove(partition) else { return };
        let reading = Reading {
            item,
            offset: from.map_or(0, |mark| mark.offset),
            read_to_ms: i64::MIN,
            step: Step::Waiting,
        };
        self.readings.insert(Arc::clone(partition), reading);
    }

    fn next_part(&mut self, limits: BatchLimits) -> Result<Option<Part>, SourceError> {
        *self.workshop.limits.lock().unwrap_or_else(PoisonError::into_inner) = share_of(limits);
        let asked = Instant::now();
        loop {
            self.open_more();
            if let Some((partition, taken)) = self.take_ready() {
                match taken {
                    Ok(part) => {
                        self.advanced_to(&partition, &part);
                        return Ok(Some(part));
                    }
                    Err(error) => match self.broke_off(&partition, error) {
                        Some(error) => return Err(error),
                        None => continue,
                    },
                }
            }
            let is_open = |reading: &Reading| matches!(reading.step, Step::Open(_));
            let left = PART_WAIT.saturating_sub(asked.elapsed());
            if left.is_zero() || !self.readings.values().any(is_open) {
                return Ok(None);
            }
            self.workshop.bell.wait(left);
        }
    }

    fn committed(&mut self, partition: &Arc<str>, to: &Mark) {
        let ends_at = match self.readings.get(partition).map(|reading| &reading.step) {
            Some(Step::HandedOver(ends_at)) => *ends_at,
            _ => return,
        };
        if to.offset >= ends_at {
            self.settle(partition);
        }
    }

    /// An object is nobody's but the daemon's that found it.
    fn take_lost(&mut self) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn advance(&mut self, partition: &str, read_to_ms: i64) {
        if let Some(reading) = self.readings.get_mut(partition) {
            reading.read_to_ms = reading.read_to_ms.max(read_to_ms);
        }
    }

    fn lag(&self) -> Lag {
        let is_behind = |reading: &&Reading| !matches!(reading.step, Step::HandedOver(_));
        let started = self.readings.values().filter(is_behind).map(|reading| &reading.item);
        let (mut partitions, mut oldest_ms) = (0, None);
        for item in started.chain(self.found.values()) {
            partitions += 1;
            let modified_ms = item.object.last_modified_ms;
            oldest_ms = Some(oldest_ms.map_or(modified_ms, |oldest_ms: i64| oldest_ms.min(modified_ms)));
        }
        let seconds = oldest_ms.map_or(0.0, |oldest_ms| (self.flight.now_ms() - oldest_ms).max(0) as f64 / 1_000.0);
        Lag {
            partitions,
            records: None,
            seconds: Some(seconds),
        }
    }

    fn stop(&mut self) {
        self.end_discovery();
        self.readings.clear();
        if let (Some(desk), Some(keeper)) = (&self.desk, self.keeper.take()) {
            desk.begin_closing();
            desk.wait_closed(STOP_WAIT);
            keeper.abort();
        }
    }
}

impl Drop for ObjectSource {
    fn drop(&mut self) {
        self.end_discovery();
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
        }
    }
}

#[cfg(test)]
mod tests;
