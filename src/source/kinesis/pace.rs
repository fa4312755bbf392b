//! How long to wait before Kinesis is asked again.
//!
//! A shard answers five reads a second, for all its readers together, and refuses what is more. So a
//! reader keeps a distance between its own reads, and waits longer and longer when it is refused.
//!
//! Invariant: no clock and no source of randomness; the same seed gives the same waits.

use std::time::Duration;

/// From an answer to the next read of the shard: five reads a second are what Amazon allows.
const READ_DISTANCE: Duration = Duration::from_millis(200);
/// The first wait after a failure: cut by half it still keeps the distance of reads.
const FIRST_WAIT: Duration = Duration::from_millis(400);
/// The longest wait: the limits count by the second, and a shard must not fall far behind.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Doublings that lead from the first wait past the longest.
const DOUBLINGS_MAX: u32 = 6;

/// Waits that double with every failure, each cut at random by up to half, so that readers which
/// failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    failures: u32,
    state: u64,
}

impl Backoff {
    pub fn new(seed: u64) -> Backoff {
        Backoff { failures: 0, state: seed }
    }

    /// Counts a failure and says how long to wait.
    pub fn next_wait(&mut self) -> Duration {
        let doublings = self.failures.min(DOUBLINGS_MAX);
        self.failures = self.failures.saturating_add(1);
        let whole = (FIRST_WAIT * 2_u32.pow(doublings)).min(LONGEST_WAIT);
        whole.mul_f64(0.5 + self.next_share() / 2.0)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// It went well. Returns how many failures there were before.
    pub fn succeed(&mut self) -> u32 {
        std::mem::take(&mut self.failures)
    }

    /// From 0 to 1, by SplitMix64 (Steele, Lea, Flood 2014).
    fn next_share(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        f64::from(u32::try_from(mixed >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }
}

/// How long to wait from an answer to the next read. `got_all`: the answer reached the end of the shard,
/// so there is no hurry.
pub fn distance(got_all: bool, idle_wait: Duration) -> Duration {
    if got_all { idle_wait.max(READ_DISTANCE) } else { READ_DISTANCE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(seed: u64, count: usize) -> Vec<Duration> {
        let mut backoff = Backoff::new(seed);
        (0..count).map(|_| backoff.next_wait()).collect()
    }

    #[test]
    fn waits_double_up_to_a_bound_and_are_cut_by_half_at_most() {
        let mut whole = FIRST_WAIT;
        for wait in waits(7, 12) {
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
            whole = (whole * 2).min(LONGEST_WAIT);
        }
    }

    #[test]
    fn a_seed_repeats_its_waits_and_another_one_gives_others() {
        assert_eq!(waits(1, 8), waits(1, 8));
        assert_ne!(waits(1, 8), waits(2, 8));
    }

    #[test]
    fn success_starts_over() {
        let mut backoff = Backoff::new(3);
        for _ in 0..40 {
            backoff.next_wait();
        }
        assert_eq!((backoff.failures(), backoff.succeed(), backoff.failures()), (40, 40, 0));
        assert!(backoff.next_wait() <= FIRST_WAIT);
    }

    #[test]
    fn reads_keep_their_distance_and_an_idle_shard_is_asked_less() {
        let check = |got_all, idle_ms, expected_ms| {
            assert_eq!(
                distance(got_all, Duration::from_millis(idle_ms)),
                Duration::from_millis(expected_ms)
            );
        };
        check(false, 500, 200);
        check(true, 500, 500);
        // A short idle wait never breaks the limit.
        check(true, 0, 200);
    }

    #[test]
    fn no_wait_after_a_failure_is_shorter_than_the_distance_of_reads() {
        for seed in 0..200 {
            assert!(waits(seed, 8).iter().all(|wait| *wait >= READ_DISTANCE), "seed {seed}");
        }
    }
}
