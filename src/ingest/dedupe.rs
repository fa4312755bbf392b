//! Exact duplicates: which event ids the lake already holds, by hour of event time.
//!
//! Stands between anonymisation and bronze. Hours are loaded from bronze when an event first falls
//! into them, so a record delivered again after a year is still recognised.
//!
//! Invariant: exact. An id is 128 bits over the record; nothing is guessed with a filter.
//! Invariant: bounded. Hours leave memory, oldest use first, and are loaded again on demand.

use std::collections::{BTreeSet, HashMap, HashSet};

/// Ids held in memory: about 32 bytes each, so 256 MiB at the most.
const IDS_MAX: usize = 8_000_000;
const HOUR_MS: i64 = 3_600_000;

/// The ids of the hours in use.
#[derive(Default)]
pub struct Dedupe {
    hours: HashMap<i64, Hour>,
    ids: usize,
    batches: u64,
}

#[derive(Default)]
struct Hour {
    ids: HashSet<u128>,
    used_in_batch: u64,
}

/// The hour of event time that an instant falls into.
pub fn hour_of(event_ts_ms: i64) -> i64 {
    event_ts_ms.div_euclid(HOUR_MS)
}

/// First and last millisecond of an hour.
pub fn hour_range_ms(hour: i64) -> (i64, i64) {
    (hour * HOUR_MS, (hour + 1) * HOUR_MS - 1)
}

impl Dedupe {
    /// Hours of these events that are not in memory.
    pub fn missing_hours(&self, times_ms: impl Iterator<Item = i64>) -> BTreeSet<i64> {
        times_ms.map(hour_of).filter(|hour| !self.hours.contains_key(hour)).collect()
    }

    /// Takes in what the lake holds of some hours; hours without ids are known to be empty.
    pub fn load(&mut self, hours: &BTreeSet<i64>, ids: impl Iterator<Item = (i64, u128)>) {
        for hour in hours {
            self.hours.entry(*hour).or_default();
        }
        for (event_ts_ms, id) in ids {
            self.insert(event_ts_ms, id);
        }
    }

    /// True if the id is new.
    pub fn insert(&mut self, event_ts_ms: i64, id: u128) -> bool {
        let hour = self.hours.entry(hour_of(event_ts_ms)).or_default();
        hour.used_in_batch = self.batches;
        let is_new = hour.ids.insert(id);
        self.ids += usize::from(is_new);
        is_new
    }

    /// Ends a batch: hours that were not used for longest go while the bound is passed.
    pub fn end_batch(&mut self) {
        while self.ids > IDS_MAX && self.hours.len() > 1 {
            let Some(oldest) = self
                .hours
                .iter()
                .filter(|(_, hour)| hour.used_in_batch < self.batches)
                .min_by_key(|(at, hour)| (hour.used_in_batch, **at))
                .map(|(at, _)| *at)
            else {
                break;
            };
            if let Some(gone) = self.hours.remove(&oldest) {
                self.ids -= gone.ids.len();
            }
        }
        self.batches += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_id_is_new_once() {
        let mut dedupe = Dedupe::default();
        assert!(dedupe.insert(1_000, 7));
        assert!(!dedupe.insert(1_000, 7));
        assert!(dedupe.insert(1_000, 8));
    }

    #[test]
    fn ids_of_the_lake_count_as_seen() {
        let mut dedupe = Dedupe::default();
        let hours = dedupe.missing_hours([5, HOUR_MS + 5].into_iter());
        assert_eq!(hours.into_iter().collect::<Vec<_>>(), [0, 1]);
        dedupe.load(&BTreeSet::from([0, 1]), [(5, 7)].into_iter());
        assert!(!dedupe.insert(5, 7));
        assert!(dedupe.missing_hours([5, HOUR_MS + 5].into_iter()).is_empty());
    }
}
