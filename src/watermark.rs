//! Event-time progress: up to which event time the input is complete.
//!
//! Stands beside `session` in the walk of an event: sources observe and finish partitions, the
//! session engine and the roll-up ask for `current`. A partition is an ordered part of a source: a
//! Kafka partition, a Kinesis shard, one file.
//!
//! Invariant: `current` never goes back.
//! Invariant: a file that is known and unread holds the watermark, so that replayed files give the
//! windows that live running gave, in whatever order they are read.
//! Invariant: what is kept is bounded by the partitions that are alive; finished and idle ones are
//! folded into one number.

use std::collections::BTreeMap;

/// A live partition that has been silent for this long no longer holds the others: one silent shard
/// would keep every window open.
pub const IDLE_RELEASE_MS: i64 = 30_000;

/// How far ahead of our clock an event time may lie before it is taken for a broken clock.
pub const AHEAD_MAX_MS: i64 = 86_400_000;

/// 2010-01-01T00:00:00Z. Older event times come from clocks that were never set.
pub const EARLIEST_MS: i64 = 1_262_304_000_000;

/// Stands for the partitions of a run before until one of this run shows itself.
const RESTORED: &str = "";

/// Progress of every partition, and the watermark that follows from it.
#[derive(Debug, Clone, Default)]
pub struct Watermarks {
    alive: BTreeMap<String, Progress>,
    newest_ms: Option<i64>,
    current_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    event_ts_ms: i64,
    observed_at_ms: i64,
    /// An expected partition waits for `finish`, however long it is silent.
    expected: bool,
}

impl Watermarks {
    pub fn new() -> Self {
        Self::default()
    }

    /// An event of `partition` was read. Times that no set clock shows move nothing.
    pub fn observe(&mut self, partition: &str, event_ts_ms: i64, now_ms: i64) {
        if event_ts_ms < EARLIEST_MS || event_ts_ms > now_ms.saturating_add(AHEAD_MAX_MS) {
            return;
        }
        match self.alive.get_mut(partition) {
            Some(progress) => {
                progress.event_ts_ms = progress.event_ts_ms.max(event_ts_ms);
                progress.observed_at_ms = progress.observed_at_ms.max(now_ms);
            }
            None => self.insert(partition, event_ts_ms, now_ms, false),
        }
        self.newest_ms = self.newest_ms.max(Some(event_ts_ms));
        self.settle();
    }

    /// A file is known and unread; its first event is at `first_ts_ms`. The watermark stays at or
    /// before that time until the file is read past it or finished.
    pub fn expect(&mut self, partition: &str, first_ts_ms: i64) {
        match self.alive.get_mut(partition) {
            Some(progress) => progress.expected = true,
            None => self.insert(partition, first_ts_ms, i64::MIN, true),
        }
        self.settle();
    }

    /// A partition is ours from now on and its first event is not known: the watermark waits where it
    /// is until one comes, or until the partition has been silent for `IDLE_RELEASE_MS`.
    pub fn assign(&mut self, partition: &str, now_ms: i64) {
        let waits_at_ms = self.current_ms.unwrap_or(EARLIEST_MS);
        if !self.alive.contains_key(partition) {
            self.insert(partition, waits_at_ms, now_ms, false);
        }
    }

    /// Takes up what a run before had read up to, `newest_ms`, with its watermark. What was not read when
    /// that run ended is given `IDLE_RELEASE_MS` to show itself; the first partition that does stands for it.
    pub fn restore(&mut self, current_ms: Option<i64>, newest_ms: Option<i64>, now_ms: i64) {
        self.current_ms = self.current_ms.max(current_ms);
        self.newest_ms = self.newest_ms.max(newest_ms);
        if let Some(current_ms) = current_ms {
            self.insert(RESTORED, current_ms, now_ms, false);
        }
    }

    /// Newest event time read, epoch ms.
    pub fn newest(&self) -> Option<i64> {
        self.newest_ms
    }

    /// The partition has ended and holds nothing back any more.
    pub fn finish(&mut self, partition: &str) {
        self.alive.remove(partition);
        self.settle();
    }

    /// Releases live partitions that have been silent for `IDLE_RELEASE_MS`. They come back with
    /// their next event.
    pub fn release_idle(&mut self, now_ms: i64) {
        self.alive.retain(|_, progress| {
            // A clock that was set back must not count as silence that has yet to begin.
            progress.observed_at_ms = progress.observed_at_ms.min(now_ms);
            progress.expected || now_ms.saturating_sub(progress.observed_at_ms) < IDLE_RELEASE_MS
        });
        self.settle();
    }

    /// Event time, epoch ms, up to which the input is complete; `None` before the first event.
    pub fn current(&self) -> Option<i64> {
        self.current_ms
    }

    fn insert(&mut self, partition: &str, event_ts_ms: i64, observed_at_ms: i64, expected: bool) {
        let progress = Progress {
            event_ts_ms,
            observed_at_ms,
            expected,
        };
        self.alive.remove(RESTORED);
        self.alive.insert(partition.to_owned(), progress);
    }

    fn settle(&mut self) {
        let slowest_ms = self.alive.values().map(|p| p.event_ts_ms).min();
        let candidate_ms = match (slowest_ms, self.newest_ms) {
            // Nothing has been read yet: expected files alone do not say what is complete.
            (_, None) => None,
            (None, newest_ms) => newest_ms,
            (slowest_ms, _) => slowest_ms,
        };
        self.current_ms = self.current_ms.max(candidate_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_588_752_000_000;
    const NOW: i64 = T0 + 1_000;

    enum Step {
        Observe(&'static str, i64),
        ObserveAt(&'static str, i64, i64),
        Expect(&'static str, i64),
        Finish(&'static str),
        ReleaseIdle(i64),
    }
    use Step::*;

    /// Runs the steps; times are relative to `T0`. `expected` is the watermark after each step.
    fn check(steps: &[(Step, Option<i64>)]) {
        let mut marks = Watermarks::new();
        for (index, (step, expected)) in steps.iter().enumerate() {
            match *step {
                Observe(partition, ts) => marks.observe(partition, T0 + ts, NOW),
                ObserveAt(partition, ts, now) => marks.observe(partition, T0 + ts, NOW + now),
                Expect(partition, ts) => marks.expect(partition, T0 + ts),
                Finish(partition) => marks.finish(partition),
                ReleaseIdle(now) => marks.release_idle(NOW + now),
            }
            let relative = marks.current().map(|ms| ms - T0);
            assert_eq!(relative, *expected, "after step {index}");
        }
    }

    #[test]
    fn what_was_newest_before_a_restart_is_reached_when_nothing_more_comes() {
        let mut marks = Watermarks::new();
        marks.restore(Some(T0), Some(T0 + 5_000), NOW);
        marks.release_idle(NOW + 1);
        assert_eq!(marks.current(), Some(T0), "partitions may still show themselves");
        marks.release_idle(NOW + IDLE_RELEASE_MS);
        assert_eq!(marks.current(), Some(T0 + 5_000));
        let mut marks = Watermarks::new();
        marks.restore(Some(T0), Some(T0 + 5_000), NOW);
        marks.expect("a", T0 + 1_000);
        assert_eq!(marks.current(), Some(T0 + 1_000), "a partition of this run stands for those before");
    }

    #[test]
    fn the_slowest_partition_decides() {
        check(&[
            (Observe("a", 10), Some(10)),
            (Observe("b", 5), Some(10)),
            (Observe("a", 30), Some(10)),
            (Observe("b", 20), Some(20)),
            (Observe("b", 15), Some(20)),
        ]);
    }

    #[test]
    fn an_expected_file_holds_the_watermark_until_it_is_finished() {
        check(&[
            (Expect("late.json", 100), None),
            (Observe("early.json", 50), Some(50)),
            (Observe("early.json", 500), Some(100)),
            (Finish("early.json"), Some(100)),
            (ReleaseIdle(IDLE_RELEASE_MS * 10), Some(100)),
            (Observe("late.json", 300), Some(300)),
            (Finish("late.json"), Some(500)),
        ]);
    }

    #[test]
    fn expecting_a_file_that_is_being_read_does_not_set_it_back() {
        check(&[
            (Observe("a", 70), Some(70)),
            (Expect("a", 10), Some(70)),
            (ObserveAt("b", 400, IDLE_RELEASE_MS), Some(70)),
            (ReleaseIdle(IDLE_RELEASE_MS), Some(70)),
            (Finish("a"), Some(400)),
        ]);
    }

    #[test]
    fn a_silent_partition_is_released_and_comes_back() {
        check(&[
            (Observe("silent", 5), Some(5)),
            (ObserveAt("busy", 90, 29_000), Some(5)),
            (ReleaseIdle(29_999), Some(5)),
            (ReleaseIdle(30_000), Some(90)),
            (ObserveAt("silent", 6, 31_000), Some(90)),
            (ObserveAt("busy", 200, 31_000), Some(90)),
            (ObserveAt("silent", 150, 31_000), Some(150)),
        ]);
    }

    #[test]
    fn when_everything_has_ended_the_newest_event_counts() {
        check(&[
            (Observe("a", 10), Some(10)),
            (Observe("b", 90), Some(10)),
            (Finish("b"), Some(10)),
            (Finish("a"), Some(90)),
        ]);
    }

    #[test]
    fn broken_clocks_move_nothing() {
        check(&[
            (Observe("a", 1), Some(1)),
            (Observe("a", AHEAD_MAX_MS + 1_001), Some(1)),
            (Observe("a", EARLIEST_MS - T0 - 1), Some(1)),
            (Observe("a", AHEAD_MAX_MS + 1_000), Some(AHEAD_MAX_MS + 1_000)),
        ]);
    }

    #[test]
    fn finished_partitions_leave_no_trace() {
        let mut marks = Watermarks::new();
        for index in 0..10_000 {
            let name = format!("file-{index}");
            marks.observe(&name, T0 + index, NOW);
            marks.finish(&name);
        }
        assert_eq!(marks.alive.len(), 0);
        assert_eq!(marks.current(), Some(T0 + 9_999));
    }
}
