//! Time ranges in Grafana's words: `now`, `now-6h`, `now/d`, milliseconds since 1970, or a time (RFC 3339).
//!
//! Invariant: pure: now is passed in.

use chrono::DateTime;

const SECOND_MS: i64 = 1_000;
const DAY_MS: i64 = 86_400_000;
/// 1970 began on a Thursday; weeks begin on Monday.
const FIRST_MONDAY_MS: i64 = 4 * DAY_MS;

/// A resolved range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    pub from_ms: i64,
    pub to_ms: i64,
}

impl TimeRange {
    /// `now` counts in whole seconds: those who ask within the same one ask the same.
    ///
    /// # Errors
    /// Words that are no time, or an end that is not behind the start; what to write.
    pub fn of(from: &str, to: &str, now_ms: i64) -> Result<TimeRange, String> {
        let now_ms = now_ms.div_euclid(SECOND_MS) * SECOND_MS;
        let range = TimeRange {
            from_ms: moment(from, now_ms, false)?,
            to_ms: moment(to, now_ms, true)?,
        };
        match range.from_ms < range.to_ms {
            true => Ok(range),
            false => Err(format!("the range {from} to {to} is empty; its end must lie behind its start")),
        }
    }

    /// The same length, from a whole minute on: choices need not be asked anew each second, and may go by the
    /// length.
    pub fn on_whole_minutes(self) -> TimeRange {
        let from_ms = self.from_ms.div_euclid(60_000) * 60_000;
        TimeRange {
            from_ms,
            to_ms: from_ms + (self.to_ms - self.from_ms),
        }
    }
}

fn moment(text: &str, now_ms: i64, is_end: bool) -> Result<i64, String> {
    let text = text.trim();
    let wrong = || format!("{text:?} is no time; write now, now-6h, now/d, milliseconds since 1970 or 2026-11-21T18:00:00Z");
    if let Some(rest) = text.strip_prefix("now") {
        return relative(rest, now_ms, is_end).ok_or_else(wrong);
    }
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    DateTime::parse_from_rfc3339(text)
        .map(|at| at.timestamp_millis())
        .map_err(|_| wrong())
}

/// What follows `now`: steps such as `-6h`, then perhaps `/d`, the start of the day, or its end for an end.
fn relative(steps: &str, now_ms: i64, is_end: bool) -> Option<i64> {
    let (steps, rounding) = match steps.split_once('/') {
        Some((steps, unit)) => (steps, Some(unit)),
        None => (steps, None),
    };
    let mut at_ms = now_ms;
    let mut rest = steps;
    while !rest.is_empty() {
        let sign = match rest.as_bytes()[0] {
            b'-' => -1,
            b'+' => 1,
            _ => return None,
        };
        let digits = rest[1..].find(|c: char| !c.is_ascii_digit())? + 1;
        let count: i64 = rest[1..digits].parse().ok()?;
        let unit_end = rest[digits..].find(['-', '+']).map_or(rest.len(), |at| digits + at);
        at_ms = at_ms.checked_add(unit_ms(&rest[digits..unit_end])?.checked_mul(count)?.checked_mul(sign)?)?;
        rest = &rest[unit_end..];
    }
    match rounding {
        None => Some(at_ms),
        Some(unit) => Some(rounded(at_ms, unit, is_end)?),
    }
}

fn rounded(at_ms: i64, unit: &str, is_end: bool) -> Option<i64> {
    let length_ms = unit_ms(unit)?;
    let origin_ms = if unit == "w" { FIRST_MONDAY_MS } else { 0 };
    let start_ms = (at_ms - origin_ms).div_euclid(length_ms) * length_ms + origin_ms;
    Some(if is_end { start_ms + length_ms - 1 } else { start_ms })
}

/// Months and years have no one length: a dashboard that needs them writes days.
fn unit_ms(unit: &str) -> Option<i64> {
    Some(match unit {
        "s" => SECOND_MS,
        "m" => 60 * SECOND_MS,
        "h" => 3_600 * SECOND_MS,
        "d" => DAY_MS,
        "w" => 7 * DAY_MS,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tuesday, 2023-11-14T22:13:20.250Z.
    const NOW_MS: i64 = 1_700_000_000_250;

    #[track_caller]
    fn check(from: &str, to: &str, expected: (i64, i64)) {
        let range = TimeRange::of(from, to, NOW_MS).unwrap();
        assert_eq!((range.from_ms, range.to_ms), expected, "{from} {to}");
    }

    #[test]
    fn grafanas_words_are_understood() {
        check("now-1h", "now", (1_699_996_400_000, 1_700_000_000_000));
        check("now-1d-30m", "now-90s", (1_699_911_800_000, 1_699_999_910_000));
        check("now/d", "now/d", (1_699_920_000_000, 1_700_006_399_999));
        check("now-1w/w", "now/h", (1_699_228_800_000, 1_700_002_799_999));
        check("1699990000000", "2023-11-14T22:00:00Z", (1_699_990_000_000, 1_699_999_200_000));
    }

    #[test]
    fn other_words_and_empty_ranges_are_refused_with_what_to_write() {
        for (from, to) in [
            ("yesterday", "now"),
            ("now-", "now"),
            ("now-5", "now"),
            ("now-5M", "now"),
            ("now/y", "now"),
            ("now", "now-1h"),
            ("now-99999999999999999w", "now"),
        ] {
            let complaint = TimeRange::of(from, to, NOW_MS).unwrap_err();
            assert!(complaint.contains("write") || complaint.contains("must"), "{complaint}");
        }
    }

    #[test]
    fn a_range_from_a_whole_minute_keeps_its_length() {
        let range = TimeRange::of("now-1h", "now", NOW_MS).unwrap().on_whole_minutes();
        assert_eq!((range.from_ms, range.to_ms), (1_699_996_380_000, 1_699_999_980_000));
        assert_eq!(range.on_whole_minutes(), range);
    }
}
