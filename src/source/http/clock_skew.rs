//! By how much a sender's clock is wrong, told once for each session.
//!
//! Stands between decoding and the spool. A player's clock may be hours off; the receiver's is not.
//! What is found is written beside each record, so that a replay needs no memory of it.
//!
//! Invariant: one session has one shift for as long as it is remembered, so lengths between its
//! events never change.
//! Invariant: pure: the receiver's time is passed in. Memory is bounded.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

/// A clock that is off by no more than this is believed (spec: events and metrics, 2.4). It also
/// covers the longest time that a player usually holds reports back.
const TOLERATED_MS: i64 = 300_000;

/// Shifts are whole minutes: a finer figure would be the network's delay, not the clock's error.
const MINUTE_MS: i64 = 60_000;

/// Sessions whose shift is remembered: as many as one receiver has open at a great event. 16 bytes
/// each and the map's own overhead make about 10 MB.
pub const SESSIONS_MAX: usize = 200_000;

/// The shifts of the sessions that were heard of last.
///
/// Two generations stand in for an exact order of use: when the young one is half of the bound, it
/// becomes the old one and the old one is forgotten. A session that reports stays in memory; one that
/// was silent while `SESSIONS_MAX / 2` others began may be told anew.
#[derive(Debug)]
pub struct ClockSkew {
    young: HashMap<u64, i64>,
    old: HashMap<u64, i64>,
    generation_max: usize,
}

impl Default for ClockSkew {
    fn default() -> ClockSkew {
        ClockSkew::new(SESSIONS_MAX)
    }
}

impl ClockSkew {
    pub fn new(sessions_max: usize) -> ClockSkew {
        ClockSkew {
            young: HashMap::new(),
            old: HashMap::new(),
            generation_max: (sessions_max / 2).max(1),
        }
    }

    /// What has to be added to the session's times, ms; 0 = its clock is believed.
    ///
    /// Decided by the session's first report: `newest_event_ms` is the newest time in the body that
    /// brought it, which is the one that waited least.
    pub fn shift_ms(&mut self, session: &str, received_at_ms: i64, newest_event_ms: i64) -> i64 {
        let key = xxh3_64(session.as_bytes());
        if let Some(shift_ms) = self.young.get(&key) {
            return *shift_ms;
        }
        let shift_ms = match self.old.get(&key) {
            Some(shift_ms) => *shift_ms,
            None => shift_of(received_at_ms.saturating_sub(newest_event_ms)),
        };
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, shift_ms);
        shift_ms
    }
}

/// The shift that mends a clock which is `offset_ms` behind (negative: ahead).
fn shift_of(offset_ms: i64) -> i64 {
    if offset_ms.saturating_abs() <= TOLERATED_MS {
        return 0;
    }
    offset_ms
        .saturating_add(MINUTE_MS / 2)
        .div_euclid(MINUTE_MS)
        .saturating_mul(MINUTE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_790_000_000_000;

    #[test]
    fn a_clock_within_five_minutes_is_believed_and_beyond_them_it_is_off_by_whole_minutes() {
        let check = |behind_ms: i64, expected_minutes: i64| {
            let mut skew = ClockSkew::default();
            let shift_ms = skew.shift_ms("a", NOW_MS, NOW_MS - behind_ms);
            assert_eq!(shift_ms, expected_minutes * MINUTE_MS, "{behind_ms} ms behind");
        };
        check(0, 0);
        check(900, 0);
        check(300_000, 0);
        check(-300_000, 0);
        check(300_001, 5);
        check(-300_001, -5);
        check(329_999, 5);
        check(330_000, 6);
        check(3_600_700, 60);
        check(-7_199_000, -120);
        check(-86_400_000, -1_440);
    }

    #[test]
    fn the_first_report_decides_for_the_whole_session_and_for_no_other() {
        let mut skew = ClockSkew::default();
        assert_eq!(skew.shift_ms("a", NOW_MS, NOW_MS - 3_600_000), 3_600_000);
        assert_eq!(skew.shift_ms("a", NOW_MS + 30_000, NOW_MS + 30_000), 3_600_000);
        assert_eq!(skew.shift_ms("b", NOW_MS, NOW_MS), 0);
        assert_eq!(skew.shift_ms("b", NOW_MS, NOW_MS - 3_600_000), 0, "late, not skewed");
    }

    #[test]
    fn a_session_that_reports_is_remembered_while_thousands_come_and_go_and_memory_stays_bounded() {
        let mut skew = ClockSkew::new(100);
        skew.shift_ms("faithful", NOW_MS, NOW_MS - 3_600_000);
        skew.shift_ms("silent", NOW_MS, NOW_MS - 3_600_000);
        for other in 0..10_000 {
            skew.shift_ms(&format!("other {other}"), NOW_MS, NOW_MS);
            assert!(skew.young.len() + skew.old.len() <= 100);
            assert_eq!(skew.shift_ms("faithful", NOW_MS, NOW_MS), 3_600_000);
        }
        assert_eq!(skew.shift_ms("silent", NOW_MS, NOW_MS), 0, "forgotten, and told anew");
    }

    #[test]
    fn absurd_times_overflow_nothing() {
        let mut skew = ClockSkew::default();
        skew.shift_ms("a", i64::MAX, i64::MIN);
        skew.shift_ms("b", i64::MIN, i64::MAX);
        assert_eq!(skew.shift_ms("c", NOW_MS, NOW_MS), 0);
    }
}
