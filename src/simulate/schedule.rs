//! When sessions start: evenly, or along the curve of a day.
//!
//! Invariant: sessions start one in each of as many slots, so starts are in order without sorting.
//! Invariant: integers only; the same on every machine.

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// How many viewers come, of a hundred at the peak, by hours after it: an evening, a night, a morning, a day.
const HOURS_AFTER_PEAK: [i64; 24] = [
    100, 85, 60, 38, 22, 14, 10, 9, 10, 14, 20, 27, 33, 38, 42, 45, 47, 50, 54, 60, 70, 80, 90, 97,
];

/// How the audience comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    Even,
    /// Most come at this time of the day, ms after midnight UTC.
    Daily {
        peak_ms: i64,
    },
}

/// The slots of a simulation's sessions.
#[derive(Debug, Clone)]
pub struct Schedule {
    start_ms: i64,
    span_ms: i64,
    sessions: u32,
    /// Weight of the span before each of its minutes, and of all of it; none: every moment weighs the same.
    /// Eight bytes a minute: a year takes 4 MiB.
    before: Option<Vec<u64>>,
}

impl Curve {
    /// Of a hundred times a minute's milliseconds; between two hours it runs straight.
    fn weight(self, time_ms: i64) -> u64 {
        let Curve::Daily { peak_ms } = self else { return 1 };
        let after_ms = (time_ms - peak_ms).rem_euclid(DAY_MS);
        let (hour, into_ms) = ((after_ms / HOUR_MS) as usize, after_ms % HOUR_MS);
        let (from, to) = (HOURS_AFTER_PEAK[hour], HOURS_AFTER_PEAK[(hour + 1) % 24]);
        (from * HOUR_MS + (to - from) * into_ms).unsigned_abs() / MINUTE_MS.unsigned_abs()
    }

    /// How many sessions a span has whose peak, were it in it, had so many a minute.
    pub fn sessions_at_peak(self, start_ms: i64, span_ms: i64, per_minute: u32) -> u32 {
        let peak = match self {
            Curve::Even => 1,
            Curve::Daily { peak_ms } => self.weight(peak_ms),
        };
        let minutes = span_ms / MINUTE_MS;
        let weights: u64 = (0..minutes).map(|minute| self.weight(start_ms + minute * MINUTE_MS)).sum();
        u32::try_from(weights * u64::from(per_minute) / peak).unwrap_or(u32::MAX)
    }
}

impl Schedule {
    pub fn new(curve: Curve, start_ms: i64, span_ms: i64, sessions: u32) -> Schedule {
        let before = (curve != Curve::Even).then(|| {
            let mut sum = 0;
            let mut before = vec![0];
            for minute_ms in (start_ms..start_ms + span_ms).step_by(MINUTE_MS as usize) {
                let length_ms = (start_ms + span_ms - minute_ms).min(MINUTE_MS);
                sum += curve.weight(minute_ms) * length_ms.unsigned_abs();
                before.push(sum);
            }
            before
        });
        Schedule {
            start_ms,
            span_ms,
            sessions,
            before,
        }
    }

    /// When the slot of a session begins, which is when the one before ends.
    pub fn slot_start_ms(&self, session: u32) -> i64 {
        let Some(before) = &self.before else {
            let into_span = i128::from(self.span_ms) * i128::from(session) / i128::from(self.sessions);
            return self.start_ms + into_span as i64;
        };
        let total = before.last().copied().unwrap_or(0);
        let weight = (u128::from(total) * u128::from(session) / u128::from(self.sessions)) as u64;
        let minute = before.partition_point(|before| *before <= weight) - 1;
        let Some(next) = before.get(minute + 1) else {
            return self.start_ms + self.span_ms;
        };
        let minute_ms = minute as i64 * MINUTE_MS;
        let length_ms = (self.span_ms - minute_ms).min(MINUTE_MS);
        let into_ms = u128::from(weight - before[minute]) * length_ms as u128 / u128::from(next - before[minute]);
        self.start_ms + minute_ms + into_ms as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-01 00:00 UTC.
    const START_MS: i64 = 1_772_323_200_000;

    fn starts(curve: Curve, span_ms: i64, sessions: u32) -> Vec<i64> {
        let schedule = Schedule::new(curve, START_MS, span_ms, sessions);
        (0..=sessions).map(|session| schedule.slot_start_ms(session)).collect()
    }

    #[test]
    fn slots_fill_the_span_in_order() {
        for curve in [Curve::Even, Curve::Daily { peak_ms: 20 * HOUR_MS }] {
            for (span_ms, sessions) in [(DAY_MS, 1_000), (90_500, 7), (2 * DAY_MS + 1, 100_000)] {
                let starts = starts(curve, span_ms, sessions);
                assert!(starts.is_sorted(), "{curve:?}");
                assert_eq!((starts[0], starts[sessions as usize]), (START_MS, START_MS + span_ms), "{curve:?}");
            }
        }
    }

    #[test]
    fn the_evening_has_eleven_times_the_viewers_of_the_night() {
        let starts = starts(Curve::Daily { peak_ms: 20 * HOUR_MS }, DAY_MS, 100_000);
        let within = |hour: i64| {
            let from_ms = START_MS + hour * HOUR_MS;
            starts.iter().filter(|start| (from_ms..from_ms + HOUR_MS).contains(start)).count()
        };
        assert_eq!(within(20) / within(3), 9, "{} {}", within(20), within(3));
    }

    #[test]
    fn as_many_come_as_the_peak_says() {
        let hour = |curve: Curve| curve.sessions_at_peak(START_MS, HOUR_MS, 100);
        assert_eq!(hour(Curve::Even), 6_000);
        let before_the_peak = hour(Curve::Daily { peak_ms: HOUR_MS });
        assert!((5_850..6_000).contains(&before_the_peak), "{before_the_peak}");
    }
}
