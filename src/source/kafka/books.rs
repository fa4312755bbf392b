//! What the member's thread and the daemon share: the partitions that are ours, and their queued records.
//!
//! The thread takes messages in and hands partitions in and out; the daemon takes parts out and says
//! what it has committed. Synchronous and without a clock: `Shared` puts a lock around it.
//!
//! Invariant: parts of one partition follow one another without a gap or an overlap from where it began.
//! Invariant: what is queued is counted in bytes, to the byte that the bound is about.
//! Invariant: a partition that is lost and found again is told as lost first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::lag::{self, LogView, Standing};
use crate::event::decode::RECORD_BYTES_MAX;
use crate::source::{BatchLimits, Lag, Line, Mark, Part, SourceError};

/// A chunk is closed past this many bytes: a part's size, small enough to be fair between partitions.
pub const CHUNK_BYTES: usize = 1 << 20;
/// A chunk is closed at this many records.
const CHUNK_RECORDS: usize = 8192;
/// What a queued record costs beside its bytes.
const LINE_BYTES: usize = size_of::<Line>();
/// Errors that wait for the daemon: one for each partition of a large topic.
const ERRORS_MAX: usize = 1024;

/// A message as it is taken in.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    pub offset: i64,
    /// `None`: a tombstone.
    pub payload: Option<&'a [u8]>,
    pub attributes: &'a [u8],
    pub timestamp_ms: Option<i64>,
}

/// Records of one partition that wait to be handed over, as they will stand in the part.
#[derive(Debug, Default)]
struct Chunk {
    buffer: Vec<u8>,
    lines: Vec<Line>,
    first_ms: Option<i64>,
    newest_ms: Option<i64>,
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.buffer.len() >= CHUNK_BYTES || self.lines.len() >= CHUNK_RECORDS
    }

    /// Gives back what growing took too much, so that the bound on bytes is one on memory.
    fn trim(&mut self) {
        self.buffer.shrink_to_fit();
        self.lines.shrink_to_fit();
    }

    fn bytes(&self) -> usize {
        self.buffer.len() + self.lines.len() * LINE_BYTES
    }

    fn push(&mut self, message: Taken<'_>) {
        let payload = message.payload.unwrap_or_default();
        let is_oversized = payload.len() > RECORD_BYTES_MAX;
        let start = self.buffer.len();
        if !is_oversized {
            self.buffer.extend_from_slice(payload);
        }
        let end = self.buffer.len();
        self.buffer.extend_from_slice(message.attributes);
        self.lines.push(Line {
            offset: message.offset,
            start,
            end,
            attributes: (end, self.buffer.len()),
            oversized_bytes: is_oversized.then_some(i64::try_from(payload.len()).unwrap_or(i64::MAX)),
        });
        self.first_ms = self.first_ms.or(message.timestamp_ms);
        self.newest_ms = self.newest_ms.max(message.timestamp_ms);
    }

    /// Takes the first records off that fit the limits, at least one.
    fn split(&mut self, limits: BatchLimits) -> Chunk {
        let fits = |line: &Line| line.attributes.1 <= limits.bytes;
        let count = self.lines.iter().take_while(|line| fits(line)).count().min(limits.records).max(1);
        if count >= self.lines.len() {
            return std::mem::take(self);
        }
        let cut = self.lines[count].start;
        let mut rest = Chunk {
            buffer: self.buffer.split_off(cut),
            lines: self.lines.split_off(count),
            ..*self
        };
        for line in &mut rest.lines {
            line.start -= cut;
            line.end -= cut;
            line.attributes = (line.attributes.0 - cut, line.attributes.1 - cut);
        }
        std::mem::replace(self, rest)
    }
}

/// A partition's way from being ours to being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Waits for the daemon's `start`.
    Found,
    /// The daemon has said where; the member looks the place up.
    Starting(Starting),
    Reading,
    /// Taken from us; what has been handed over may still be committed.
    Leaving,
}

/// A start that has not been done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Starting {
    pub lake_mark: Option<i64>,
    /// `None`: at once.
    pub retry_at: Option<Instant>,
    pub tries: u32,
    /// The daemon has been told why it does not start.
    pub is_told: bool,
}

/// Whether the place that was sought is the place that is read.
///
/// A gap before the first record is usual (the marks of transactions, compaction), but it is also what a
/// place that was sought and not reached looks like: it is sought once more before the gap is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    Sought,
    /// Something else came first; records are let go until the place has been sought again.
    Doubted,
    SoughtAgain,
    Sure,
}

#[derive(Debug)]
struct Partition {
    name: Arc<str>,
    phase: Phase,
    arrival: Arrival,
    chunks: VecDeque<Chunk>,
    /// The offset that is expected next from the broker.
    next: i64,
    handed_to: i64,
    handed_ms: Option<i64>,
    /// Bronze has committed everything before.
    committed_to: Option<i64>,
    /// Sent to the broker as committed; forgotten when the broker refuses.
    sent_to: Option<i64>,
    acknowledged_to: Option<i64>,
    log: Option<LogView>,
}

impl Partition {
    fn new(name: Arc<str>) -> Partition {
        Partition {
            name,
            phase: Phase::Found,
            arrival: Arrival::Sought,
            chunks: VecDeque::new(),
            next: 0,
            handed_to: 0,
            handed_ms: None,
            committed_to: None,
            sent_to: None,
            acknowledged_to: None,
            log: None,
        }
    }

    fn queued_bytes(&self) -> usize {
        self.chunks.iter().map(Chunk::bytes).sum()
    }

    fn standing(&self) -> Standing {
        let waiting_ms = self.chunks.front().and_then(|chunk| chunk.first_ms);
        Standing {
            handed_to: self.handed_to,
            is_queued: !self.chunks.is_empty(),
            time_ms: waiting_ms.or(self.handed_ms),
        }
    }

    /// Every part that was handed over has been committed.
    fn is_settled(&self) -> bool {
        self.committed_to.is_some_and(|to| to >= self.handed_to)
    }
}

/// A partition in the broker's words.
pub type TopicPartition = (String, i32);

/// The daemon's name of a partition.
pub fn name_of(topic: &str, number: i32) -> Arc<str> {
    format!("kafka:{topic}/{number}").into()
}

fn place_of(name: &str) -> Option<(&str, i32)> {
    let (topic, number) = name.strip_prefix("kafka:")?.rsplit_once('/')?;
    Some((topic, number.parse().ok()?))
}

#[derive(Debug, Default)]
pub struct Books {
    topics: HashMap<String, BTreeMap<i32, Partition>>,
    /// Partitions with queued records, the one whose turn it is first.
    turns: VecDeque<Arc<str>>,
    queued_bytes: usize,
    found: VecDeque<Arc<str>>,
    lost: Vec<Arc<str>>,
    errors: VecDeque<SourceError>,
    pub is_stopping: bool,
    pub has_stopped: bool,
}

impl Books {
    fn get(&self, name: &str) -> Option<&Partition> {
        let (topic, number) = place_of(name)?;
        self.topics.get(topic)?.get(&number)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Partition> {
        let (topic, number) = place_of(name)?;
        self.at(topic, number)
    }

    fn at(&mut self, topic: &str, number: i32) -> Option<&mut Partition> {
        self.topics.get_mut(topic)?.get_mut(&number)
    }

    fn each(&self) -> impl Iterator<Item = (&str, i32, &Partition)> {
        self.topics.iter().flat_map(|(topic, numbers)| {
            let with_topic = move |(number, partition): (&i32, _)| (topic.as_str(), *number, partition);
            numbers.iter().map(with_topic)
        })
    }

    fn places(&self, wanted: impl Fn(&Partition) -> bool) -> Vec<TopicPartition> {
        let wanted = self.each().filter(|(_, _, partition)| wanted(partition));
        wanted.map(|(topic, number, _)| (topic.to_string(), number)).collect()
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    // What the member's thread does.

    pub fn assign(&mut self, places: &[TopicPartition]) {
        for (topic, number) in places {
            let name = name_of(topic, *number);
            self.found.push_back(Arc::clone(&name));
            self.topics.entry(topic.clone()).or_default().insert(*number, Partition::new(name));
        }
    }

    /// Takes partitions out of reading: what is queued is dropped, what was handed over may be committed yet.
    pub fn begin_leaving(&mut self, places: &[TopicPartition]) {
        for (topic, number) in places {
            let Some(partition) = self.at(topic, *number) else { continue };
            let name = Arc::clone(&partition.name);
            let dropped = partition.queued_bytes();
            partition.phase = Phase::Leaving;
            partition.chunks.clear();
            self.queued_bytes -= dropped;
            self.turns.retain(|turn| *turn != name);
            if self.found.contains(&name) {
                // The daemon never heard of it.
                self.found.retain(|found| *found != name);
            } else {
                self.lost.push(name);
            }
        }
    }

    /// True when the daemon has committed what it was given of these partitions, or knows that they are lost.
    pub fn is_handed_over(&self, places: &[TopicPartition]) -> bool {
        let mut names = places.iter().map(|(topic, number)| name_of(topic, *number));
        names.all(|name| !self.lost.contains(&name) || self.get(&name).is_none_or(Partition::is_settled))
    }

    pub fn end_leaving(&mut self, places: &[TopicPartition]) {
        for (topic, number) in places {
            if let Some(numbers) = self.topics.get_mut(topic) {
                numbers.remove(number);
            }
        }
        self.topics.retain(|_, numbers| !numbers.is_empty());
    }

    pub fn all(&self) -> Vec<TopicPartition> {
        self.places(|_| true)
    }

    pub fn reading(&self) -> Vec<TopicPartition> {
        self.places(|partition| partition.phase == Phase::Reading)
    }

    /// Starts whose time has come.
    pub fn due_starts(&self, now: Instant) -> Vec<(TopicPartition, Starting)> {
        let due = |partition: &Partition| match &partition.phase {
            Phase::Starting(starting) if starting.retry_at.is_none_or(|at| at <= now) => Some(starting.clone()),
            _ => None,
        };
        let starts = self
            .each()
            .filter_map(|(topic, number, partition)| Some(((topic.to_string(), number), due(partition)?)));
        starts.collect()
    }

    pub fn put_off_start(&mut self, place: &TopicPartition, starting: Starting) {
        if let Some(partition) = self.at(&place.0, place.1)
            && matches!(partition.phase, Phase::Starting(_))
        {
            partition.phase = Phase::Starting(starting);
        }
    }

    /// Reading begins at `offset`; the log ends at `end`. A place that is our lake's own is sent to the broker:
    /// where nobody had read, a restart before the first commit then begins there again, and a commit that got
    /// lost with an earlier membership is made good.
    pub fn begin_reading(&mut self, place: &TopicPartition, offset: i64, end: i64, is_ours: bool) {
        let Some(partition) = self.at(&place.0, place.1) else { return };
        partition.phase = Phase::Reading;
        partition.next = offset;
        partition.handed_to = offset;
        partition.committed_to = Some(offset);
        // Else nothing is sent before the lake has committed: an offset under our lake's name says that it has.
        partition.sent_to = Some(offset).filter(|_| !is_ours);
        partition.acknowledged_to = partition.sent_to;
        partition.log = Some(LogView {
            end,
            fetch_next: None,
            fetched: 0,
        });
    }

    /// Queues a message; one that was taken in before, or of a partition that is not read, is let go.
    pub fn take_in(&mut self, topic: &str, number: i32, message: Taken<'_>) {
        let Some(partition) = self.topics.get_mut(topic).and_then(|numbers| numbers.get_mut(&number)) else {
            return;
        };
        if partition.phase != Phase::Reading || message.offset < partition.next {
            return;
        }
        partition.arrival = match partition.arrival {
            Arrival::Sought if message.offset > partition.next => Arrival::Doubted,
            Arrival::Doubted => Arrival::Doubted,
            _ => Arrival::Sure,
        };
        if partition.arrival == Arrival::Doubted {
            return;
        }
        if partition.chunks.is_empty() {
            self.turns.push_back(Arc::clone(&partition.name));
        }
        if let Some(full) = partition.chunks.back_mut().filter(|chunk| chunk.is_full()) {
            full.trim();
        }
        if partition.chunks.back().is_none_or(Chunk::is_full) {
            partition.chunks.push_back(Chunk::default());
        }
        let Some(chunk) = partition.chunks.back_mut() else { return };
        let before = chunk.bytes();
        chunk.push(message);
        self.queued_bytes += chunk.bytes() - before;
        partition.next = message.offset + 1;
    }

    /// Partitions that did not begin where they were to, and where that is.
    pub fn doubted(&self) -> Vec<(TopicPartition, i64)> {
        let doubted = self
            .each()
            .filter(|(_, _, partition)| partition.phase == Phase::Reading && partition.arrival == Arrival::Doubted);
        doubted
            .map(|(topic, number, partition)| ((topic.to_string(), number), partition.next))
            .collect()
    }

    pub fn sought_again(&mut self, place: &TopicPartition) {
        if let Some(partition) = self.at(&place.0, place.1) {
            partition.arrival = Arrival::SoughtAgain;
        }
    }

    /// What the statistics say of a log. Of a paused partition they say nothing new, so its end does not go back.
    pub fn see_log(&mut self, topic: &str, number: i32, log: LogView) {
        if let Some(partition) = self.at(topic, number)
            && partition.phase == Phase::Reading
        {
            let known = partition.log.map_or(log.end, |known| known.end);
            let end = log.end.max(known);
            partition.log = Some(LogView { end, ..log });
        }
    }

    pub fn see_end(&mut self, at: &TopicPartition, end: i64) {
        if let Some(log) = self.at(&at.0, at.1).and_then(|partition| partition.log.as_mut()) {
            log.end = log.end.max(end);
        }
    }

    /// What is committed in the lake and has not been sent to the broker, now counted as sent.
    pub fn take_unsent(&mut self) -> Vec<(TopicPartition, i64)> {
        let mut unsent = Vec::new();
        for (topic, numbers) in &mut self.topics {
            for (number, partition) in numbers {
                let Some(to) = partition.committed_to.filter(|to| Some(*to) > partition.sent_to) else {
                    continue;
                };
                partition.sent_to = Some(to);
                unsent.push(((topic.clone(), *number), to));
            }
        }
        unsent
    }

    /// Counts as unsent what the broker has not confirmed: an answer can be lost with its connection.
    pub fn forget_unanswered(&mut self) {
        for partition in self.topics.values_mut().flat_map(BTreeMap::values_mut) {
            partition.sent_to = partition.acknowledged_to;
        }
    }

    /// What of these partitions the broker has not confirmed.
    pub fn unconfirmed(&self, places: &[TopicPartition]) -> Vec<(TopicPartition, i64)> {
        let unconfirmed = |partition: &Partition| partition.committed_to.filter(|to| Some(*to) > partition.acknowledged_to);
        let of_place = |place: &TopicPartition| Some((place.clone(), unconfirmed(self.get(&name_of(&place.0, place.1))?)?));
        places.iter().filter_map(of_place).collect()
    }

    /// The broker's answer to a commit.
    pub fn confirm(&mut self, topic: &str, number: i32, offset: Option<i64>) {
        let Some(partition) = self.at(topic, number) else { return };
        match offset {
            Some(offset) => partition.acknowledged_to = partition.acknowledged_to.max(Some(offset)),
            None => partition.sent_to = partition.acknowledged_to,
        }
    }

    /// Keeps an error for the daemon; gives it back if too many wait.
    pub fn tell(&mut self, error: SourceError) -> Option<SourceError> {
        if self.errors.len() >= ERRORS_MAX {
            return Some(error);
        }
        self.errors.push_back(error);
        None
    }

    // What the daemon does.

    pub fn take_error(&mut self) -> Option<SourceError> {
        self.errors.pop_front()
    }

    /// New partitions; one that is still to be told as lost waits until it has been.
    pub fn take_found(&mut self) -> Vec<Arc<str>> {
        let (waiting, found) = self.found.drain(..).partition(|name| self.lost.contains(name));
        self.found = waiting;
        Vec::from(found)
    }

    pub fn take_lost(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.lost)
    }

    pub fn start(&mut self, name: &str, from: Option<&Mark>) {
        if let Some(partition) = self.get_mut(name)
            && partition.phase == Phase::Found
        {
            partition.phase = Phase::Starting(Starting {
                lake_mark: from.map(|mark| mark.offset),
                retry_at: None,
                tries: 0,
                is_told: false,
            });
        }
    }

    pub fn committed(&mut self, name: &str, to: &Mark) {
        if let Some(partition) = self.get_mut(name)
            && matches!(partition.phase, Phase::Reading | Phase::Leaving)
            // A mark of an earlier time that the partition was ours is not of this one.
            && to.offset <= partition.handed_to
        {
            partition.committed_to = partition.committed_to.max(Some(to.offset));
        }
    }

    /// The next part: partitions take turns.
    pub fn next_part(&mut self, limits: BatchLimits) -> Option<Part> {
        let name = self.turns.pop_front()?;
        let (topic, number) = place_of(&name)?;
        let partition = self.topics.get_mut(topic)?.get_mut(&number)?;
        let before = partition.queued_bytes();
        let front = partition.chunks.front_mut()?;
        let chunk = front.split(limits);
        if front.lines.is_empty() {
            partition.chunks.pop_front();
        }
        self.queued_bytes -= before - partition.queued_bytes();
        let from = partition.handed_to;
        partition.handed_to = chunk.lines.last().map_or(from, |line| line.offset + 1);
        partition.handed_ms = partition.handed_ms.max(chunk.newest_ms);
        let to = partition.handed_to;
        if !partition.chunks.is_empty() {
            self.turns.push_back(Arc::clone(&name));
        }
        Some(Part {
            partition: name,
            format: None,
            header: Arc::from([]),
            buffer: chunk.buffer,
            lines: chunk.lines,
            from,
            to,
            token: None,
            finished: false,
        })
    }

    pub fn lag(&self, now_ms: i64) -> Lag {
        let mut whole = Lag {
            records: Some(0),
            seconds: Some(0.0),
            ..Lag::default()
        };
        for (_, _, partition) in self.each().filter(|(_, _, partition)| partition.phase != Phase::Leaving) {
            whole.partitions += 1;
            let standing = partition.standing();
            let records = partition.log.map(|log| lag::records(log, standing));
            let seconds = records.and_then(|records| lag::seconds(records, standing, now_ms));
            whole.records = whole.records.zip(records).map(|(sum, records)| sum + records);
            whole.seconds = whole.seconds.zip(seconds).map(|(most, seconds)| most.max(seconds));
        }
        whole
    }
}

#[cfg(test)]
mod tests;
