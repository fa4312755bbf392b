//! How far a partition is behind, from what librdkafka's statistics told of its log.
//!
//! Invariant: what the log keeps for itself (the marks of transactions) does not count as waiting
//! once everything before it has been handed over.

/// What is known of a partition's log and of librdkafka's place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogView {
    /// The offset after the last one that may be read: open transactions are beyond it.
    pub end: i64,
    /// What librdkafka fetches next; `None`: it has not begun.
    pub fetch_next: Option<i64>,
    /// Messages that it has fetched and not handed to us.
    pub fetched: i64,
}

/// Where the source itself stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Everything before this offset has been handed to the daemon.
    pub handed_to: i64,
    /// Messages wait in our own queue.
    pub is_queued: bool,
    /// Time of the oldest message that waits in our queue, else of the newest that was handed over.
    pub time_ms: Option<i64>,
}

/// Records that wait.
pub fn records(log: LogView, standing: Standing) -> u64 {
    let all_fetched = log.fetched == 0 && log.fetch_next.is_some_and(|next| next >= log.end);
    if all_fetched && !standing.is_queued {
        return 0;
    }
    u64::try_from(log.end - standing.handed_to).unwrap_or(0)
}

/// Age of what waits, seconds; `None`: its time is not known.
pub fn seconds(records: u64, standing: Standing, now_ms: i64) -> Option<f64> {
    if records == 0 {
        return Some(0.0);
    }
    let age_ms = now_ms.saturating_sub(standing.time_ms?).max(0);
    Some(age_ms as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_what_waits_and_not_what_the_log_keeps_for_itself() {
        let check = |end: i64, fetch_next: Option<i64>, fetched: i64, handed_to: i64, is_queued: bool, expected: u64| {
            let log = LogView { end, fetch_next, fetched };
            let standing = Standing {
                handed_to,
                is_queued,
                time_ms: None,
            };
            assert_eq!(records(log, standing), expected, "{log:?} {standing:?}");
        };
        check(100, Some(100), 0, 100, false, 0);
        check(101, Some(101), 0, 100, false, 0);
        check(101, Some(101), 0, 40, true, 61);
        check(101, Some(101), 7, 40, false, 61);
        check(101, Some(60), 0, 40, false, 61);
        check(101, None, 0, 40, false, 61);
        // The statistics are older than what we have been given since.
        check(50, Some(50), 3, 60, false, 0);
    }

    #[test]
    fn the_age_is_that_of_what_waits() {
        let standing = |time_ms| Standing {
            handed_to: 0,
            is_queued: true,
            time_ms,
        };
        assert_eq!(seconds(0, standing(Some(1_000)), 9_500), Some(0.0));
        assert_eq!(seconds(1, standing(Some(1_000)), 9_500), Some(8.5));
        assert_eq!(
            seconds(1, standing(Some(99_000)), 9_500),
            Some(0.0),
            "a producer's clock that runs ahead"
        );
        assert_eq!(seconds(1, standing(None), 9_500), None);
    }
}
