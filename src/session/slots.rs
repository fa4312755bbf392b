//! Slots: where a shard keeps what it knows of each key, and how a key is found.
//!
//! Stands below `shard`. Keys are many and small, so they lie in blocks that never move, and are found
//! by a table of their numbers alone.
//!
//! Invariant: a slot keeps its number until it is removed; a number is then used again.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::checkpoint::Memory;
use super::packed::{join_hash, split_hash};

/// Slots of one block: large enough to cost nothing, small enough that a shard of few keys is small.
const BLOCK_SLOTS: usize = 256;
/// An empty place of the table; no slot has this number.
const EMPTY: u32 = u32::MAX;
const TABLE_MIN: usize = 16;

/// A session key; one of 32 hex digits, as most are, without an allocation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SessionKey {
    Hash([u8; 16]),
    Text(Box<str>),
}

impl SessionKey {
    pub fn new(text: &str) -> Self {
        match split_hash(text) {
            Some(("", digits)) => SessionKey::Hash(digits),
            _ => SessionKey::Text(Box::from(text)),
        }
    }

    pub fn to_text(&self) -> String {
        match self {
            SessionKey::Hash(digits) => join_hash("", digits),
            SessionKey::Text(text) => text.to_string(),
        }
    }

    fn hash(&self) -> u64 {
        match self {
            SessionKey::Hash(digits) => xxh3_64(digits),
            SessionKey::Text(text) => xxh3_64_with_seed(text.as_bytes(), 1),
        }
    }
}

/// A time in ms or none, in eight bytes: of a million keys, every byte counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(i64);

impl Time {
    /// Less than any time of an event.
    pub const NONE: Time = Time(i64::MIN);

    pub fn get(self) -> Option<i64> {
        (self != Time::NONE).then_some(self.0)
    }
}

impl From<Option<i64>> for Time {
    fn from(ms: Option<i64>) -> Self {
        ms.map_or(Time::NONE, Time)
    }
}

/// What a shard knows of a key between steps.
#[derive(Debug)]
pub struct Slot {
    pub key: SessionKey,
    pub memory: Memory,
    /// Newest event time seen, kept or not.
    pub newest_ms: Time,
    /// When this key stands in the shard's list of what is due.
    pub due_ms: Time,
    /// An earlier event may continue a session that is in the lake and not in memory. None: no event can.
    pub complete_from_ms: Time,
    /// Events at or before this time are settled: the history is needed for one that comes now.
    pub settled_ms: Time,
    pub open_sessions: u32,
    /// Events that are not settled.
    pub events: u32,
}

impl Slot {
    pub fn new(key: SessionKey, complete_from_ms: Option<i64>) -> Self {
        Self {
            key,
            memory: Memory::default(),
            newest_ms: Time::NONE,
            due_ms: Time::NONE,
            complete_from_ms: complete_from_ms.into(),
            settled_ms: Time::NONE,
            open_sessions: 0,
            events: 0,
        }
    }
}

/// The slots of one shard.
#[derive(Default)]
pub struct Slots {
    blocks: Vec<Box<[Option<Slot>]>>,
    free: Vec<u32>,
    /// Open addressing: a slot's number at or after the place of its key's hash, with no gap between.
    table: Vec<u32>,
    len: usize,
}

impl Slots {
    pub fn get(&self, number: u32) -> Option<&Slot> {
        let (block, at) = place_of(number);
        self.blocks.get(block)?.get(at)?.as_ref()
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut Slot> {
        let (block, at) = place_of(number);
        self.blocks.get_mut(block)?.get_mut(at)?.as_mut()
    }

    pub fn find(&self, key: &SessionKey) -> Option<u32> {
        let number = *self.table.get(self.search(key)?)?;
        (number != EMPTY).then_some(number)
    }

    pub fn find_or_insert(&mut self, key: SessionKey, complete_from_ms: Option<i64>) -> u32 {
        if let Some(number) = self.find(&key) {
            return number;
        }
        self.grow();
        let at = self.search(&key).expect("the table has just been given room");
        let number = self.free.pop().unwrap_or_else(|| self.add_block());
        let (block, place) = place_of(number);
        self.blocks[block][place] = Some(Slot::new(key, complete_from_ms));
        self.table[at] = number;
        self.len += 1;
        number
    }

    pub fn remove(&mut self, number: u32) -> Option<Slot> {
        let (block, place) = place_of(number);
        let at = self.search(&self.get(number)?.key)?;
        self.close_gap(at);
        self.free.push(number);
        self.len -= 1;
        self.blocks[block][place].take()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Every slot, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.blocks.iter().flatten().flatten()
    }

    /// The number after this one, round and round, whether or not there is a key.
    pub fn after_number(&self, number: u32) -> u32 {
        (number + 1) % ((self.blocks.len() * BLOCK_SLOTS) as u32).max(1)
    }

    /// Where the key's number is, or where it would be put. `None` in a table without places.
    fn search(&self, key: &SessionKey) -> Option<usize> {
        let mut at = self.home(key.hash())?;
        loop {
            let number = self.table[at];
            if number == EMPTY || self.get(number).is_some_and(|slot| slot.key == *key) {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    fn home(&self, hash: u64) -> Option<usize> {
        let mask = self.table.len().checked_sub(1)?;
        Some(hash as usize & mask)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.table.len() - 1)
    }

    /// Empties a place and moves those behind it forward that would no longer be found.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.table.len() - 1;
        let mut at = self.after(gap);
        while self.table[at] != EMPTY {
            let slot = self.get(self.table[at]);
            let home = slot.and_then(|slot| self.home(slot.key.hash())).unwrap_or(at);
            // How far each is from its home, around the end of the table.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.table[gap] = self.table[at];
                gap = at;
            }
            at = self.after(at);
        }
        self.table[gap] = EMPTY;
    }

    /// Keeps at least a quarter of the table empty, so that searches stay short.
    fn grow(&mut self) {
        if 4 * (self.len + 1) <= 3 * self.table.len() {
            return;
        }
        let places = (2 * self.table.len()).max(TABLE_MIN);
        let old = std::mem::replace(&mut self.table, vec![EMPTY; places]);
        for number in old.into_iter().filter(|number| *number != EMPTY) {
            let slot = self.get(number).expect("the table holds numbers of slots");
            let mut at = self.home(slot.key.hash()).expect("the table has places");
            while self.table[at] != EMPTY {
                at = self.after(at);
            }
            self.table[at] = number;
        }
    }

    fn add_block(&mut self) -> u32 {
        let first = (self.blocks.len() * BLOCK_SLOTS) as u32;
        self.blocks.push((0..BLOCK_SLOTS).map(|_| None).collect());
        self.free.extend((first + 1..first + BLOCK_SLOTS as u32).rev());
        first
    }
}

fn place_of(number: u32) -> (usize, usize) {
    (number as usize / BLOCK_SLOTS, number as usize % BLOCK_SLOTS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slots_are_found_as_in_a_map(steps in proptest::collection::vec((any::<bool>(), 0..600u32), 1..3_000)) {
            let mut slots = Slots::default();
            let mut expected: HashMap<u32, u32> = HashMap::new();
            let key_of = |n: u32| match n % 2 {
                0 => SessionKey::new(&format!("{n:032x}")),
                _ => SessionKey::new(&format!("key-{n}")),
            };
            for (inserts, n) in steps {
                if inserts {
                    let number = slots.find_or_insert(key_of(n), None);
                    prop_assert_eq!(*expected.entry(n).or_insert(number), number);
                } else if let Some(number) = expected.remove(&n) {
                    let slot = slots.remove(number);
                    prop_assert_eq!(slot.map(|slot| slot.key), Some(key_of(n)));
                }
                prop_assert_eq!(slots.find(&key_of(n)), expected.get(&n).copied());
            }
            for n in 0..600 {
                prop_assert_eq!(slots.find(&key_of(n)), expected.get(&n).copied());
            }
        }
    }

    #[test]
    fn a_key_comes_back_as_it_was() {
        for text in ["", "k", "0123456789abcdef0123456789abcdef", "x0123456789abcdef0123456789abcdef"] {
            assert_eq!(SessionKey::new(text).to_text(), text);
        }
    }
}
