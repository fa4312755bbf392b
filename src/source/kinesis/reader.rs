//! The task that reads one shard and fills its bounded queue.
//!
//! Runs on the daemon's runtime beside `KinesisSource`, which takes from the queue and never waits.
//! All shards of a source share a budget of bytes and a number of reads in flight, so that memory is
//! bounded whatever the number of shards and the size of their answers.
//!
//! Invariant: nothing is read while the queue or the budget is full.
//! Invariant: what follows the last record that was read is what is read next, whatever failed between.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::types::Record;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::api::{Api, Place, Read, Trouble};
use super::pace::{Backoff, distance};
use super::records::{Beside, Lines};
use super::shards::compare_sequences;
use crate::source::SourceError;

/// Answers that wait in a shard's queue: enough that the next is there when one has been taken.
pub const QUEUE_ANSWERS: usize = 4;
/// Reads in flight at once, of shards that are behind: each answer may be 10 MiB.
const READS_AT_ONCE: usize = 8;
/// A large answer is expanded in pieces of this size, as there is room: ten to twenty times its bytes
/// come out of gzip.
const PIECE_BYTES: usize = 2 << 20;
/// Failures in a row after which somebody is told: some three seconds of them.
const FAILURES_TO_TELL: u32 = 4;
/// Errors that wait to be told; older ones go first.
const TROUBLES_MAX: usize = 64;

/// What the readers of a source have in common.
#[derive(Debug)]
pub struct Shared {
    pub source_name: String,
    queued_bytes: AtomicUsize,
    queued_bytes_max: usize,
    freed: Notify,
    reads: Semaphore,
    troubles: Mutex<VecDeque<SourceError>>,
}

impl Shared {
    pub fn new(source_name: String, queued_bytes_max: usize) -> Shared {
        Shared {
            source_name,
            queued_bytes: AtomicUsize::new(0),
            queued_bytes_max,
            freed: Notify::new(),
            reads: Semaphore::new(READS_AT_ONCE),
            troubles: Mutex::default(),
        }
    }

    async fn wait_for_room(&self) {
        loop {
            let freed = self.freed.notified();
            if self.queued_bytes.load(Ordering::Acquire) < self.queued_bytes_max {
                return;
            }
            freed.await;
        }
    }

    /// Keeps an error for the daemon, which logs it.
    pub fn tell(&self, what: String, advice: &str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.len() == TROUBLES_MAX {
            troubles.pop_front();
        }
        troubles.push_back(SourceError {
            source_name: self.source_name.clone(),
            what,
            advice: advice.to_owned(),
        });
    }

    pub fn take_trouble(&self) -> Option<SourceError> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// The bytes of an answer, given back to the budget when it is dropped.
#[derive(Debug)]
struct Booked {
    bytes: usize,
    shared: Arc<Shared>,
}

impl Booked {
    fn new(bytes: usize, shared: &Arc<Shared>) -> Booked {
        shared.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        Booked {
            bytes,
            shared: Arc::clone(shared),
        }
    }
}

impl Drop for Booked {
    fn drop(&mut self) {
        self.shared.queued_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.shared.freed.notify_waiters();
    }
}

/// One record of Kinesis: its number and where its lines stand.
#[derive(Debug)]
pub struct Taken {
    pub sequence: Arc<str>,
    pub placed: Range<usize>,
    pub text: Range<usize>,
    pub attributes: Range<usize>,
}

/// One answer, expanded, or a piece of a large one.
#[derive(Debug)]
pub struct Answer {
    pub lines: Lines,
    pub records: Vec<Taken>,
    /// The shard is closed and has no more.
    pub is_end: bool,
    _booked: Booked,
}

impl Answer {
    fn new(lines: Lines, records: Vec<Taken>, is_end: bool, shared: &Arc<Shared>) -> Answer {
        let booked = Booked::new(lines.bytes(), shared);
        Answer {
            lines,
            records,
            is_end,
            _booked: booked,
        }
    }

    /// How the end of a shard is handed over that gives nothing more.
    pub fn end(shared: &Arc<Shared>) -> Answer {
        Answer::new(Lines::default(), Vec::new(), true, shared)
    }
}

/// How far behind the shard is, as its last answer said.
#[derive(Debug, Default)]
pub struct Progress {
    last: Mutex<Option<(i64, Instant)>>,
}

impl Progress {
    fn set(&self, behind_ms: i64) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((behind_ms, Instant::now()));
    }

    /// Age of the oldest record that waits. While answers wait in the queue, they grow older.
    pub fn behind_ms(&self, has_waiting: bool) -> Option<i64> {
        let (behind_ms, at) = (*self.last.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since_ms = i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
        Some(if has_waiting {
            behind_ms.saturating_add(since_ms)
        } else {
            behind_ms
        })
    }
}

/// Reads one shard to its end.
pub struct Reader {
    pub api: Api,
    pub shard: Arc<str>,
    pub place: Place,
    pub idle_wait: Duration,
    pub backoff: Backoff,
    pub shared: Arc<Shared>,
    pub progress: Arc<Progress>,
}

impl Reader {
    pub async fn run(mut self, into: mpsc::Sender<Answer>) {
        let shared = Arc::clone(&self.shared);
        let mut iterator: Option<String> = None;
        let mut not_before = Instant::now();
        let mut is_at_tip = false;
        loop {
            shared.wait_for_room().await;
            // Nobody else sends: the place that is free now is free when the answer comes.
            if into.reserve().await.is_err() {
                return;
            }
            tokio::time::sleep_until(not_before.into()).await;
            // Large answers come from shards that are behind: those take turns.
            let turn = match is_at_tip {
                true => None,
                false => shared.reads.acquire().await.ok(),
            };
            match self.read(&mut iterator).await {
                Ok(read) => {
                    let answered = Instant::now();
                    self.recovered();
                    is_at_tip = read.behind_ms.unwrap_or(0) == 0;
                    self.progress.set(read.behind_ms.unwrap_or(0));
                    let is_taken = self.hand_over(&read, &into).await;
                    if !is_taken || read.next.is_none() {
                        return;
                    }
                    iterator = read.next;
                    not_before = answered + distance(is_at_tip, self.idle_wait);
                }
                Err(trouble) => {
                    if self.is_over(trouble, &mut iterator).await {
                        let _ = into.send(Answer::end(&shared)).await;
                        return;
                    }
                    not_before = Instant::now() + self.backoff.next_wait();
                }
            }
            drop(turn);
        }
    }

    async fn read(&self, iterator: &mut Option<String>) -> Result<Read, Trouble> {
        let current = match iterator.take() {
            Some(current) => current,
            None => self.api.iterator(&self.shard, &self.place).await?,
        };
        // Kept if the read fails: it stays good for five minutes, and a new one costs a call.
        let current = iterator.insert(current);
        self.api.read(current).await
    }

    /// Expands an answer piece by piece, each as there is room for it; false if nobody takes it.
    async fn hand_over(&mut self, read: &Read, into: &mpsc::Sender<Answer>) -> bool {
        let mut lines = Lines::default();
        let mut records = Vec::new();
        for record in &read.records {
            if lines.bytes() >= PIECE_BYTES {
                let piece = Answer::new(std::mem::take(&mut lines), std::mem::take(&mut records), false, &self.shared);
                if into.send(piece).await.is_err() {
                    return false;
                }
                self.shared.wait_for_room().await;
            }
            records.extend(self.expand(record, &mut lines));
        }
        let is_end = read.next.is_none();
        if records.is_empty() && !is_end {
            return true;
        }
        into.send(Answer::new(lines, records, is_end, &self.shared)).await.is_ok()
    }

    /// `None`: the record was read before.
    fn expand(&mut self, record: &Record, lines: &mut Lines) -> Option<Taken> {
        if let Place::After(last) = &self.place
            && compare_sequences(record.sequence_number(), last).is_le()
        {
            return None;
        }
        let sequence: Arc<str> = record.sequence_number().into();
        self.place = Place::After(Arc::clone(&sequence));
        let (placed, text, attributes) = (lines.placed.len(), lines.text.len(), lines.attributes.len());
        lines.add(record.data().as_ref(), &beside(record));
        Some(Taken {
            sequence,
            placed: placed..lines.placed.len(),
            text: text..lines.text.len(),
            attributes: attributes..lines.attributes.len(),
        })
    }

    fn recovered(&mut self) {
        if self.backoff.succeed() >= FAILURES_TO_TELL {
            tracing::info!(source = self.shared.source_name, shard = &*self.shard, "kinesis answers again");
        }
    }

    /// Makes ready for the next try; true if there is nothing left to try.
    async fn is_over(&mut self, trouble: Trouble, iterator: &mut Option<String>) -> bool {
        let is_time_to_tell = self.backoff.failures() + 1 == FAILURES_TO_TELL;
        match trouble {
            Trouble::Throttled => {
                if is_time_to_tell {
                    let what = format!("reads of shard {} are throttled", self.shard);
                    self.shared.tell(
                        what,
                        "add shards to the stream, or let fewer consumers read it; reading goes on slowly",
                    );
                }
            }
            Trouble::Expired => {
                tracing::debug!(source = self.shared.source_name, shard = &*self.shard, "the iterator expired");
                *iterator = None;
            }
            Trouble::NotFound => {
                *iterator = None;
                return self.has_vanished(is_time_to_tell).await;
            }
            Trouble::Refused(why) => self.refused(&why, iterator, is_time_to_tell),
            Trouble::Denied(why) => {
                if is_time_to_tell {
                    self.shared.tell(
                        format!("not allowed to read shard {}: {why}", self.shard),
                        "allow kinesis:GetShardIterator and kinesis:GetRecords (and kms:Decrypt for an encrypted stream); it is asked again",
                    );
                }
            }
            Trouble::Failed(why) => {
                if is_time_to_tell {
                    let what = format!("shard {} cannot be read: {why}", self.shard);
                    self.shared
                        .tell(what, "see whether the endpoint can be reached from here; it is asked again");
                }
            }
        }
        false
    }

    fn refused(&mut self, why: &str, iterator: &mut Option<String>, is_time_to_tell: bool) {
        let was_reading = iterator.take().is_some();
        match &self.place {
            Place::After(sequence) if !was_reading => {
                self.shared.tell(
                    format!("shard {} does not know sequence number {sequence}: {why}", self.shard),
                    "the stream was made anew, or its records are gone; reading goes on at the oldest record",
                );
                self.place = Place::TrimHorizon;
            }
            _ if is_time_to_tell => self.shared.tell(
                format!("shard {} refuses the place to start from: {why}", self.shard),
                "a time to come cannot be read from: see the clock of this machine, or `start`; it is asked again",
            ),
            _ => {}
        }
    }

    /// The shard has gone, or the whole stream.
    async fn has_vanished(&self, is_time_to_tell: bool) -> bool {
        match self.api.list_shards().await {
            Ok(shards) if shards.iter().all(|shard| shard.id != self.shard) => {
                self.shared.tell(lost(&self.shard), LOST_ADVICE);
                true
            }
            Ok(_) | Err(_) if !is_time_to_tell => false,
            Ok(_) => {
                let what = format!("shard {} is listed but not found", self.shard);
                self.shared.tell(what, "see the state of the stream; it is asked again");
                false
            }
            // The listing of shards tells what is wrong with the stream.
            Err(_) => false,
        }
    }
}

pub const LOST_ADVICE: &str = "lengthen the stream's retention, or keep the daemon running; reading goes on with the shards after it";

/// A shard went before it was read to its end.
pub fn lost(shard: &str) -> String {
    format!("shard {shard} was removed by retention before it was read to its end: the rest of its records is lost")
}

fn beside(record: &Record) -> Beside<'_> {
    Beside {
        partition_key: record.partition_key(),
        timestamp_ms: record.approximate_arrival_timestamp().and_then(|time| time.to_millis().ok()),
        sequence_number: record.sequence_number(),
    }
}
