//! The ledger of objects: which ones the lake has read, and how far, for as long as they may be announced again.
//!
//! Fed from the notes of the commits and asked by the objects source, so that each object is read once
//! though it be listed every minute and announced twice. A cache: lost, it is made again from the notes.
//!
//! Invariant: it never holds more than its most entries. Past it, and past its horizon, the oldest
//! finished objects are forgotten, and whatever is older than the newest forgotten one counts as too
//! old, so that nothing forgotten is read again.
//! Invariant: a machine's clock that jumps ahead forgets nothing: the horizon counts from the newest
//! object, by the store's clock.

use std::collections::HashMap;
use std::time::Duration;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::source::objects::Standing;

/// Objects that one source may have written in a horizon: a week of a hundred thousand a day, in about 64 MiB.
pub const ENTRIES_MAX: usize = 1_000_000;
/// How long an object may be announced after it was written: a week, where logs come up to a day late.
pub const HORIZON: Duration = Duration::from_hours(24 * 7);
/// The share of the entries that is forgotten at once when there are too many, so that it is seldom done.
const SHED_SHARE: usize = 8;
/// Pruning looks at every entry: it is done once the horizon has moved on by so much.
const PRUNE_STEP_MS: i64 = 10 * 60 * 1_000;
/// Horizons that an unfinished object is kept for: it is still to be read, but not for ever.
const UNFINISHED_HORIZONS: i64 = 2;

const MAGIC: &[u8; 4] = b"PHOL";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = MAGIC.len() + 1 + 8 + 8;
const ENTRY_BYTES: usize = 16 + 8 + 8 + 1;
const CHECKSUM_BYTES: usize = 8;

/// How far an object has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Unpacked bytes, or rows.
    pub offset: i64,
    pub finished: bool,
    /// By the store's clock, epoch ms.
    pub last_modified_ms: i64,
}

/// Bytes that are no ledger, or a damaged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger of objects is of version {0}, this Playhead reads version {VERSION}; it is made again from the commits")]
    Version(u8),
    #[error("the ledger of objects is damaged; it is made again from the commits")]
    Damaged,
}

/// The objects that are known, by a hash of their partitions' names.
#[derive(Debug, Clone)]
pub struct Ledger {
    entries: HashMap<u128, Entry>,
    horizon_ms: i64,
    entries_max: usize,
    /// Nothing that was last modified before it is remembered.
    floor_ms: i64,
    /// The newest last-modified time among all that was ever recorded.
    newest_ms: Option<i64>,
    /// Set when there were too many entries, until it is taken.
    raised_to_ms: Option<i64>,
}

impl Ledger {
    pub fn new(horizon: Duration, entries_max: usize) -> Ledger {
        Ledger {
            entries: HashMap::new(),
            horizon_ms: i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX),
            entries_max: entries_max.max(1),
            floor_ms: i64::MIN,
            newest_ms: None,
            raised_to_ms: None,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes what a commit says. An older note about the same object changes nothing.
    pub fn record(&mut self, partition: &str, offset: i64, finished: bool, last_modified_ms: i64) {
        let entry = Entry {
            offset,
            finished,
            last_modified_ms,
        };
        let known = self.entries.entry(key_of(partition)).or_insert(entry);
        if (offset, finished) > (known.offset, known.finished) {
            *known = entry;
        }
        self.newest_ms = self.newest_ms.max(Some(last_modified_ms));
        if self.entries.len() > self.entries_max {
            self.shed();
        }
    }

    pub fn position(&self, partition: &str) -> Option<Entry> {
        self.entries.get(&key_of(partition)).copied()
    }

    /// What the objects source does with an object that it sees.
    pub fn standing(&self, partition: &str, last_modified_ms: i64, now_ms: i64) -> Standing {
        match self.position(partition) {
            Some(entry) if entry.finished => Standing::Finished,
            Some(_) => Standing::Wanted,
            None if last_modified_ms < self.too_old_before_ms(now_ms) => Standing::TooOld,
            None => Standing::Wanted,
        }
    }

    /// Objects that were last modified before it and are not known are not read.
    pub fn too_old_before_ms(&self, now_ms: i64) -> i64 {
        let reference_ms = self.newest_ms.map_or(now_ms, |newest_ms| newest_ms.min(now_ms));
        self.floor_ms.max(reference_ms.saturating_sub(self.horizon_ms))
    }

    /// Forgets what is older than the horizon; returns how many entries went. Cheap if called often.
    pub fn prune(&mut self, now_ms: i64) -> usize {
        let before = self.entries.len();
        let cutoff_ms = self.too_old_before_ms(now_ms);
        if cutoff_ms < self.floor_ms.saturating_add(PRUNE_STEP_MS) {
            return 0;
        }
        self.forget_before(cutoff_ms);
        before - self.entries.len()
    }

    /// The time that the horizon had to move up to since the last call because there were too many objects.
    pub fn take_raised(&mut self) -> Option<i64> {
        self.raised_to_ms.take()
    }

    fn forget_before(&mut self, cutoff_ms: i64) {
        let unfinished_ms = cutoff_ms.saturating_sub(self.horizon_ms.saturating_mul(UNFINISHED_HORIZONS - 1));
        self.entries.retain(|_, entry| {
            let kept_from_ms = if entry.finished { cutoff_ms } else { unfinished_ms };
            entry.last_modified_ms >= kept_from_ms
        });
        self.floor_ms = self.floor_ms.max(cutoff_ms);
    }

    /// Makes room by moving the floor up over the oldest entries.
    fn shed(&mut self) {
        let mut times: Vec<i64> = self.entries.values().map(|entry| entry.last_modified_ms).collect();
        let count = (times.len() / SHED_SHARE).max(1);
        let (_, oldest_kept_ms, _) = times.select_nth_unstable(count);
        let mut cutoff_ms = *oldest_kept_ms;
        if self.entries.values().all(|entry| entry.last_modified_ms >= cutoff_ms) {
            // A share of one age: all of it goes, since the floor has no finer measure than time.
            cutoff_ms = cutoff_ms.saturating_add(1);
        }
        // Unfinished ones go as well, or the bound would not hold.
        self.entries.retain(|_, entry| entry.last_modified_ms >= cutoff_ms);
        self.floor_ms = self.floor_ms.max(cutoff_ms);
        self.raised_to_ms = Some(self.floor_ms);
    }

    /// For a cache file: the same ledger gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.entries.len() * ENTRY_BYTES + CHECKSUM_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.floor_ms.to_le_bytes());
        bytes.extend_from_slice(&self.newest_ms.unwrap_or(i64::MIN).to_le_bytes());
        let mut sorted: Vec<(&u128, &Entry)> = self.entries.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| **key);
        for (key, entry) in sorted {
            bytes.extend_from_slice(&key.to_le_bytes());
            bytes.extend_from_slice(&entry.offset.to_le_bytes());
            bytes.extend_from_slice(&entry.last_modified_ms.to_le_bytes());
            bytes.push(u8::from(entry.finished));
        }
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// Reads what `encode` wrote; horizon and most entries are today's settings.
    ///
    /// # Errors
    /// The bytes are damaged or of another version.
    pub fn decode(bytes: &[u8], horizon: Duration, entries_max: usize) -> Result<Ledger, LedgerError> {
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(LedgerError::Damaged)?;
        if content.len() < HEAD_BYTES || !content.starts_with(MAGIC) || xxh3_64(content) != u64::from_le_bytes(*checksum) {
            return Err(LedgerError::Damaged);
        }
        let mut reader = content[MAGIC.len() + 1..].iter().copied();
        let version = content[MAGIC.len()];
        if version != VERSION {
            return Err(LedgerError::Version(version));
        }
        let mut ledger = Ledger::new(horizon, entries_max);
        ledger.floor_ms = take_i64(&mut reader).ok_or(LedgerError::Damaged)?;
        ledger.newest_ms = take_i64(&mut reader).filter(|newest_ms| *newest_ms != i64::MIN);
        while reader.len() > 0 {
            let (key, entry) = take_entry(&mut reader).ok_or(LedgerError::Damaged)?;
            ledger.entries.insert(key, entry);
        }
        while ledger.entries.len() > ledger.entries_max {
            ledger.shed();
        }
        Ok(ledger)
    }
}

fn key_of(partition: &str) -> u128 {
    xxh3_128(partition.as_bytes())
}

fn take<const N: usize>(reader: &mut impl Iterator<Item = u8>) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for byte in &mut bytes {
        *byte = reader.next()?;
    }
    Some(bytes)
}

fn take_i64(reader: &mut impl Iterator<Item = u8>) -> Option<i64> {
    take(reader).map(i64::from_le_bytes)
}

fn take_entry(reader: &mut impl Iterator<Item = u8>) -> Option<(u128, Entry)> {
    let key = u128::from_le_bytes(take(reader)?);
    let entry = Entry {
        offset: take_i64(reader)?,
        last_modified_ms: take_i64(reader)?,
        finished: take::<1>(reader)? == [1],
    };
    Some((key, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const DAY_MS: i64 = 24 * HOUR_MS;
    const NOW_MS: i64 = 20_000 * DAY_MS;

    fn ledger() -> Ledger {
        Ledger::new(HORIZON, 100)
    }

    #[test]
    fn an_object_is_wanted_until_it_is_finished() {
        let mut ledger = ledger();
        assert_eq!(ledger.standing("s3://b/k#1", NOW_MS, NOW_MS), Standing::Wanted);
        ledger.record("s3://b/k#1", 500, false, NOW_MS);
        assert_eq!(ledger.standing("s3://b/k#1", NOW_MS, NOW_MS), Standing::Wanted);
        assert_eq!(ledger.position("s3://b/k#1").map(|entry| entry.offset), Some(500));
        ledger.record("s3://b/k#1", 500, true, NOW_MS);
        assert_eq!(ledger.standing("s3://b/k#1", NOW_MS, NOW_MS), Standing::Finished);
        assert_eq!(
            ledger.standing("s3://b/k#2", NOW_MS, NOW_MS),
            Standing::Wanted,
            "another etag is another object"
        );
    }

    #[test]
    fn a_note_read_again_does_not_take_an_object_back() {
        let mut ledger = ledger();
        ledger.record("k", 900, true, NOW_MS);
        ledger.record("k", 500, false, NOW_MS);
        ledger.record("k", 900, false, NOW_MS);
        let expected = Entry {
            offset: 900,
            finished: true,
            last_modified_ms: NOW_MS,
        };
        assert_eq!(ledger.position("k"), Some(expected));
    }

    #[test]
    fn objects_a_day_late_are_read_and_objects_of_last_month_are_not() {
        let mut ledger = ledger();
        assert_eq!(ledger.standing("old", NOW_MS - 30 * DAY_MS, NOW_MS), Standing::TooOld);
        ledger.record("a", 1, true, NOW_MS);
        assert_eq!(ledger.standing("late", NOW_MS - DAY_MS, NOW_MS), Standing::Wanted);
        assert_eq!(ledger.standing("old", NOW_MS - 8 * DAY_MS, NOW_MS), Standing::TooOld);
        ledger.record("half", 1, false, NOW_MS - 8 * DAY_MS);
        assert_eq!(
            ledger.standing("half", NOW_MS - 8 * DAY_MS, NOW_MS),
            Standing::Wanted,
            "begun is finished"
        );
    }

    #[test]
    fn what_is_forgotten_is_never_wanted_again() {
        let mut ledger = ledger();
        ledger.record("old", 1, true, NOW_MS - 8 * DAY_MS);
        ledger.record("half", 1, false, NOW_MS - 8 * DAY_MS);
        ledger.record("new", 1, true, NOW_MS);
        assert_eq!(ledger.prune(NOW_MS), 1);
        assert_eq!(ledger.standing("old", NOW_MS - 8 * DAY_MS, NOW_MS), Standing::TooOld);
        // Nor when the machine's clock is set back.
        assert_eq!(ledger.standing("old", NOW_MS - 8 * DAY_MS, NOW_MS - 5 * DAY_MS), Standing::TooOld);
        assert_eq!(ledger.standing("half", NOW_MS - 8 * DAY_MS, NOW_MS), Standing::Wanted);
        ledger.record("newer", 1, true, NOW_MS + 7 * DAY_MS);
        assert_eq!(ledger.prune(NOW_MS + 7 * DAY_MS + 1), 1, "half has had its time");
    }

    #[test]
    fn a_clock_that_jumps_ahead_forgets_nothing() {
        let mut ledger = ledger();
        ledger.record("a", 1, true, NOW_MS);
        assert_eq!(ledger.prune(NOW_MS + 400 * DAY_MS), 0);
        assert_eq!(ledger.standing("b", NOW_MS - DAY_MS, NOW_MS + 400 * DAY_MS), Standing::Wanted);
    }

    #[test]
    fn too_many_objects_move_the_horizon_up_and_say_so() {
        let mut ledger = ledger();
        for number in 0..1_000_i64 {
            ledger.record(&format!("k{number}"), 1, true, NOW_MS + number);
            assert!(ledger.len() <= 100);
        }
        let raised_to_ms = ledger.take_raised().expect("raised");
        assert!((NOW_MS + 890..NOW_MS + 950).contains(&raised_to_ms), "{}", raised_to_ms - NOW_MS);
        assert_eq!(ledger.take_raised(), None);
        for number in 0..1_000_i64 {
            let standing = ledger.standing(&format!("k{number}"), NOW_MS + number, NOW_MS + 1_000);
            assert_ne!(standing, Standing::Wanted, "k{number} would be read again");
        }
    }

    #[test]
    fn many_objects_of_one_moment_keep_the_bound() {
        let mut ledger = ledger();
        for number in 0..1_000 {
            ledger.record(&format!("k{number}"), 1, true, NOW_MS);
            assert!(ledger.len() <= 100);
        }
    }

    #[test]
    fn a_ledger_survives_its_cache_file() {
        let mut ledger = ledger();
        ledger.record("old", 1, true, NOW_MS - 8 * DAY_MS);
        for number in 0..50_i64 {
            ledger.record(&format!("k{number}"), number * 7, number % 2 == 0, NOW_MS - number * HOUR_MS);
        }
        ledger.prune(NOW_MS);
        let bytes = ledger.encode();
        let read = Ledger::decode(&bytes, HORIZON, 100).expect("sound");
        assert_eq!(read.encode(), bytes);
        assert_eq!(read.entries, ledger.entries);
        assert_eq!(read.standing("old", NOW_MS - 8 * DAY_MS, NOW_MS), Standing::TooOld);
        let small = Ledger::decode(&bytes, HORIZON, 10).expect("sound");
        assert!(small.len() <= 10, "{}", small.len());
    }

    #[test]
    fn a_damaged_cache_file_is_refused_wherever_it_is_damaged() {
        let mut ledger = ledger();
        ledger.record("k", 1, true, NOW_MS);
        let bytes = ledger.encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Ledger::decode(&damaged, HORIZON, 100).is_err(), "byte {at}");
            assert!(Ledger::decode(&bytes[..at], HORIZON, 100).is_err(), "cut at {at}");
        }
    }
}
