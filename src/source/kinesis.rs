//! Amazon Kinesis: all shards of a stream, in the order of their descent.
//!
//! Implements `Source`. One task a shard reads into a bounded queue (`kinesis::reader`); one lists the
//! shards; one keeps leases, where several daemons share the stream (`kinesis::keeper`). What is decided
//! is decided in pure rules: `shards` (who may start), `lease` (who reads what), `pace` (how long to wait).
//!
//! A partition is `kinesis:<stream>/<shard id>`. A mark's `offset` counts the lines of the shard that were
//! handed over; its `token` is the sequence number of the last record they came from, or `end`.
//!
//! Invariant: a part ends between two records of Kinesis: the lines of an aggregated record stand in one.
//! Invariant: a shard starts when the end of its parents is committed, here or, by their leases, elsewhere.
//! Invariant: no call waits for the network.

mod api;
mod keeper;
mod lease;
mod pace;
mod parts;
mod reader;
mod records;
mod shards;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::lines::share_of;
use super::{BatchLimits, Found, Lag, Mark, Part, Source, SourceError};
use crate::clock::Clock;
use crate::event::decode::Format;

use api::{Api, Place, Trouble};
use keeper::{Desk, Keeper};
use lease::END;
use pace::Backoff;
use parts::{Reading, Task};
use reader::{Answer, LOST_ADVICE, Progress, QUEUE_ANSWERS, Reader, Shared, lost};
use shards::{Family, Shard, Stage};

pub use api::connect;
pub use keeper::LeaseSettings;

/// `latest` begins so long before the source does: the stream's clock and ours may differ, and it
/// refuses a time that it thinks is to come.
const LATEST_MARGIN_MS: i64 = 2_000;

/// Where a shard is begun that the lake knows nothing of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// The oldest record there is.
    #[default]
    TrimHorizon,
    /// What arrives from now on.
    Latest,
    /// What arrived from this time on, epoch ms.
    AtTimestamp(i64),
}

/// A stream to read.
#[derive(Debug, Clone)]
pub struct KinesisSettings {
    /// Name of the source.
    pub name: String,
    /// Name of the stream.
    pub stream: String,
    /// `None`: as AWS tools find it.
    pub region: Option<String>,
    /// `None`: Amazon's.
    pub endpoint_url: Option<String>,
    pub start: Start,
    /// `None`: detected by the first lines of each shard.
    pub format: Option<Format>,
    /// Tells this daemon from others that share the stream; stays the same over restarts.
    pub daemon_id: String,
    /// Most records of one read: 10,000 is what Kinesis allows.
    pub records_per_read: i32,
    /// Time between two reads of a shard that has nothing new.
    pub idle_wait: Duration,
    /// Time between two looks at the shards of the stream; the end of a shard brings one forward.
    pub list_every: Duration,
    /// Time after which an answer that has not come is asked for again.
    pub answer_timeout: Duration,
    /// Bytes that wait in the queues of all shards; each read in flight may add its answer to it.
    pub queue_bytes: usize,
    /// Of the waits after failures.
    pub seed: u64,
}

impl KinesisSettings {
    pub fn new(name: impl Into<String>, stream: impl Into<String>, daemon_id: impl Into<String>) -> KinesisSettings {
        KinesisSettings {
            name: name.into(),
            stream: stream.into(),
            region: None,
            endpoint_url: None,
            start: Start::TrimHorizon,
            format: None,
            daemon_id: daemon_id.into(),
            records_per_read: 10_000,
            idle_wait: Duration::from_millis(500),
            list_every: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            queue_bytes: 32 << 20,
            seed: 0,
        }
    }
}

/// What the listing task found last, until `discover` takes it.
#[derive(Default)]
struct Listing {
    found: Mutex<Option<Result<Vec<Shard>, Trouble>>>,
    bell: Notify,
}

struct Leases {
    desk: Arc<Desk>,
    lease_time: Duration,
}

/// Reads a stream of Kinesis.
pub struct KinesisSource {
    settings: KinesisSettings,
    handle: Handle,
    api: Api,
    shared: Arc<Shared>,
    /// What `latest` means, epoch ms.
    made_at_ms: i64,
    family: Family,
    reading: BTreeMap<Arc<str>, Reading>,
    /// The shard that gave the last part: the next one is asked first.
    last: Option<Arc<str>>,
    /// Shards whose loss the daemon has not taken yet.
    lost: BTreeSet<Arc<str>>,
    listing: Arc<Listing>,
    lister: Option<Task>,
    leases: Option<Leases>,
    is_stopped: bool,
}

impl KinesisSource {
    /// `client` is what `connect` made of the same settings. `leases`: `None` if this daemon is the only
    /// one that reads the stream. The tasks run on `handle`.
    pub fn new(
        settings: KinesisSettings,
        client: Client,
        leases: Option<LeaseSettings>,
        handle: Handle,
        clock: &Arc<dyn Clock>,
    ) -> KinesisSource {
        let api = Api::new(client, &settings);
        let shared = Arc::new(Shared::new(settings.name.clone(), settings.queue_bytes));
        let listing = Arc::new(Listing::default());
        let backoff = Backoff::new(settings.seed);
        let lister = handle.spawn(list(api.clone(), Arc::clone(&listing), settings.list_every, backoff));
        let leases = leases.map(|wanted| {
            let desk = Arc::new(Desk::default());
            let lease_time = wanted.lease_time;
            let keeper = Keeper::new(
                wanted,
                settings.daemon_id.clone(),
                Arc::clone(clock),
                Arc::clone(&desk),
                Arc::clone(&shared),
            );
            // Not ended with the source: it gives the leases back after it.
            handle.spawn(keeper.run());
            Leases { desk, lease_time }
        });
        KinesisSource {
            made_at_ms: clock.now_ms() - LATEST_MARGIN_MS,
            settings,
            handle,
            api,
            shared,
            family: Family::default(),
            reading: BTreeMap::new(),
            last: None,
            lost: BTreeSet::new(),
            listing,
            lister: Some(Task(lister)),
            leases,
            is_stopped: false,
        }
    }

    fn partition(&self, shard: &str) -> Arc<str> {
        format!("kinesis:{}/{shard}", self.settings.stream).into()
    }

    fn shard_of(&self, partition: &str) -> Option<Arc<str>> {
        let shard = partition.strip_prefix("kinesis:")?.strip_prefix(&*self.settings.stream)?;
        shard.strip_prefix('/').map(Arc::from)
    }

    fn take_listing(&mut self) -> Result<(), SourceError> {
        let found = self.listing.found.lock().unwrap_or_else(PoisonError::into_inner).take();
        match found {
            None => Ok(()),
            Some(Ok(shards)) => {
                self.family.update(shards);
                Ok(())
            }
            Some(Err(trouble)) => Err(self.stream_error(&trouble)),
        }
    }

    fn stream_error(&self, trouble: &Trouble) -> SourceError {
        let stream = &self.settings.stream;
        let (what, advice) = match trouble {
            Trouble::NotFound => (
                format!("stream {stream} is not there"),
                "make it, or correct `stream`, `region` and the account; it is asked again",
            ),
            Trouble::Throttled | Trouble::Expired => (
                format!("listing the shards of stream {stream} is throttled"),
                "nothing, unless it stays so; it is asked again",
            ),
            Trouble::Denied(why) => (
                format!("not allowed to list the shards of stream {stream}: {why}"),
                "allow kinesis:ListShards, and see the credentials; it is asked again",
            ),
            Trouble::Refused(why) => (
                format!("stream {stream} cannot be listed: {why}"),
                "correct `stream`; it is asked again",
            ),
            Trouble::Failed(why) => (
                format!("stream {stream} cannot be reached: {why}"),
                "see `region`, `endpoint_url`, the credentials and the network; it is asked again",
            ),
        };
        SourceError {
            source_name: self.settings.name.clone(),
            what,
            advice: advice.to_owned(),
        }
    }

    /// Lets go of shards that are ours no longer, and learns which ones others have read to their end.
    fn take_leases(&mut self) {
        let Some(leases) = &self.leases else { return };
        leases.desk.drop_overdue(leases.lease_time);
        let mut board = leases.desk.board();
        let ended = std::mem::take(&mut board.ended);
        let lost: Vec<Arc<str>> = board.lost.iter().cloned().collect();
        for shard in lost {
            if matches!(self.family.stage(&shard), Some(Stage::Offered | Stage::Reading | Stage::Ended)) {
                self.reading.remove(&shard);
                self.family.set_stage(&shard, Stage::Waiting);
                self.lost.insert(shard);
            } else if !self.lost.contains(&shard) {
                board.lost.remove(&shard);
            }
        }
        for shard in ended {
            if self.family.stage(&shard) == Some(Stage::Waiting) {
                self.family.set_stage(&shard, Stage::Done);
            }
        }
    }

    /// Tells the keeper what may be read, and returns what is ours of it.
    fn ours(&self, ready: Vec<Arc<str>>) -> Vec<Arc<str>> {
        let Some(leases) = &self.leases else { return ready };
        let mut board = leases.desk.board();
        board.family = self.family.ids().cloned().collect();
        let wanted: BTreeSet<Arc<str>> = ready.into_iter().collect();
        let is_news = board.wanted != wanted;
        board.wanted = wanted;
        let ours = board
            .wanted
            .iter()
            .filter(|shard| board.owns_all || board.held.contains_key(*shard));
        let ours = ours.cloned().collect();
        drop(board);
        if is_news {
            leases.desk.ring();
        }
        ours
    }

    /// Where to begin a shard of which nothing has been read.
    fn first_place(&self, shard: &str) -> Place {
        match self.settings.start {
            Start::TrimHorizon => Place::TrimHorizon,
            Start::AtTimestamp(at_ms) => Place::AtTimestamp(at_ms),
            // What its parents' marks lead up to goes on here, though it came while nobody read.
            Start::Latest if self.family.continues_a_known_shard(shard) => Place::TrimHorizon,
            Start::Latest => Place::AtTimestamp(self.made_at_ms),
        }
    }

    /// The shard is read to its end and that is committed.
    fn finish(&mut self, shard: &Arc<str>) {
        self.family.set_stage(shard, Stage::Done);
        self.listing.bell.notify_one();
        if let Some(leases) = &self.leases {
            leases.desk.ring();
        }
    }

    fn note_mark(&self, shard: &Arc<str>, mark: &Mark) {
        let Some(leases) = &self.leases else { return };
        let mut board = leases.desk.board();
        if board.held.contains_key(shard) {
            board.marks.insert(Arc::clone(shard), mark.into());
        }
    }

    /// A shard that the stream has forgotten: it was read to its end, never begun, or its rest is lost.
    fn start_vanished(&mut self, shard: Arc<str>, from: Option<Mark>) {
        let Some(mark) = from else {
            self.note_mark(&shard, &end_mark(0));
            self.finish(&shard);
            return;
        };
        self.shared.tell(lost(&shard), LOST_ADVICE);
        // An empty last part, so that the lake knows that it is over.
        let (sender, answers) = mpsc::channel(1);
        let ended = Answer::end(&self.shared);
        let task = self.handle.spawn(async move {
            let _ = sender.send(ended).await;
        });
        self.insert(shard, mark.offset, mark.token, answers, Task(task), Arc::default());
    }

    fn insert(
        &mut self,
        shard: Arc<str>,
        offset: i64,
        token: Option<Arc<str>>,
        answers: mpsc::Receiver<Answer>,
        task: Task,
        progress: Arc<Progress>,
    ) {
        self.family.set_stage(&shard, Stage::Reading);
        let reading = Reading {
            partition: self.partition(&shard),
            _task: task,
            answers,
            front: None,
            offset,
            token,
            format: self.settings.format,
            progress,
        };
        self.reading.insert(shard, reading);
    }

    /// Shards that are read, the one after the last served first.
    fn turns(&self) -> Vec<Arc<str>> {
        let ids: Vec<Arc<str>> = self.reading.keys().cloned().collect();
        let first = ids.partition_point(|id| self.last.as_ref().is_some_and(|last| id <= last));
        [&ids[first..], &ids[..first]].concat()
    }
}

impl Source for KinesisSource {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn discover(&mut self) -> Result<Vec<Found>, SourceError> {
        if self.is_stopped {
            return Ok(Vec::new());
        }
        self.take_leases();
        self.take_listing()?;
        let ready = self.family.ready();
        let mut found = Vec::new();
        for shard in self.ours(ready) {
            if self.family.stage(&shard) != Some(Stage::Waiting) || self.lost.contains(&shard) {
                continue;
            }
            self.family.set_stage(&shard, Stage::Offered);
            found.push(Found {
                partition: self.partition(&shard),
                format: self.settings.format,
                header: Arc::default(),
                first_line: Vec::new(),
            });
        }
        Ok(found)
    }

    fn start(&mut self, partition: &Arc<str>, from: Option<Mark>) {
        let Some(shard) = self.shard_of(partition) else { return };
        if self.family.stage(&shard) != Some(Stage::Offered) {
            return;
        }
        if from.is_some() {
            self.family.set_known(&shard);
        }
        if let Some(mark) = &from
            && mark.token.as_deref() == Some(END)
        {
            self.note_mark(&shard, mark);
            self.finish(&shard);
            return;
        }
        if !self.family.is_listed(&shard) {
            self.start_vanished(shard, from);
            return;
        }
        let (offset, token) = from.map_or((0, None), |mark| (mark.offset, mark.token));
        let place = token.clone().map_or_else(|| self.first_place(&shard), Place::After);
        let progress = Arc::<Progress>::default();
        let (sender, answers) = mpsc::channel(QUEUE_ANSWERS);
        let reader = Reader {
            api: self.api.clone(),
            shard: Arc::clone(&shard),
            place,
            idle_wait: self.settings.idle_wait,
            backoff: Backoff::new(xxh3_64_with_seed(shard.as_bytes(), self.settings.seed)),
            shared: Arc::clone(&self.shared),
            progress: Arc::clone(&progress),
        };
        let task = Task(self.handle.spawn(reader.run(sender)));
        self.insert(shard, offset, token, answers, task, progress);
    }

    fn next_part(&mut self, limits: BatchLimits) -> Result<Option<Part>, SourceError> {
        self.take_leases();
        if let Some(trouble) = self.shared.take_trouble() {
            return Err(trouble);
        }
        let share = share_of(limits);
        for shard in self.turns() {
            let Some(reading) = self.reading.get_mut(&shard) else { continue };
            let Some(part) = reading.next_part(share) else {
                continue;
            };
            if part.finished {
                self.reading.remove(&shard);
                self.family.set_stage(&shard, Stage::Ended);
            }
            self.last = Some(shard);
            return Ok(Some(part));
        }
        Ok(None)
    }

    fn committed(&mut self, partition: &Arc<str>, to: &Mark) {
        let Some(shard) = self.shard_of(partition) else { return };
        self.note_mark(&shard, to);
        if to.token.as_deref() == Some(END) && self.family.stage(&shard) == Some(Stage::Ended) {
            self.finish(&shard);
        }
    }

    fn take_lost(&mut self) -> Vec<Arc<str>> {
        self.take_leases();
        let lost = std::mem::take(&mut self.lost);
        if let Some(leases) = &self.leases {
            leases.desk.board().lost.retain(|shard| !lost.contains(shard));
        }
        lost.iter().map(|shard| self.partition(shard)).collect()
    }

    fn lag(&self) -> Lag {
        let behind = self.reading.values().filter_map(Reading::behind_ms).max();
        Lag {
            partitions: self.reading.len() as u64,
            records: None,
            seconds: behind.map(|behind_ms| behind_ms as f64 / 1_000.0),
        }
    }

    fn stop(&mut self) {
        self.is_stopped = true;
        self.reading.clear();
        self.lister = None;
        if let Some(leases) = &self.leases {
            leases.desk.stop();
        }
    }
}

/// A source that is dropped gives its leases back too.
impl Drop for KinesisSource {
    fn drop(&mut self) {
        self.stop();
    }
}

fn end_mark(offset: i64) -> Mark {
    Mark {
        offset,
        token: Some(END.into()),
    }
}

/// Lists the shards again and again; sooner where a shard has ended, or the last try failed.
async fn list(api: Api, listing: Arc<Listing>, every: Duration, mut backoff: Backoff) {
    // What is wrong is told once and not with every look.
    let mut told = None;
    loop {
        let found = api.list_shards().await;
        let wait = match &found {
            Ok(_) => {
                backoff.succeed();
                every
            }
            Err(_) => backoff.next_wait().min(every),
        };
        let kind = found.as_ref().err().map(std::mem::discriminant);
        if kind.is_none() || kind != told {
            *listing.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        }
        told = kind;
        let _ = tokio::time::timeout(wait, listing.bell.notified()).await;
    }
}
