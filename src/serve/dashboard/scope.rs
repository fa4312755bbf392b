//! What a panel's SQL is completed with: the time range, the step and the values of variables.
//!
//! Handed to `expand`. The step follows Grafana's rule: the range over the points that fit, rounded to a
//! length that people read easily, and never below the panel's smallest.

use std::collections::BTreeMap;

/// The value that stands for all choices, in addresses as in the files.
pub const ALL: &str = "$__all";

/// Completes the SQL of one panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub from_ms: i64,
    pub to_ms: i64,
    pub interval_ms: i64,
    pub variables: BTreeMap<String, Chosen>,
}

/// The value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    One(String),
    Many(Vec<String>),
    /// SQL of the dashboard's author, put in as it is: the custom value for all choices.
    AsWritten(String),
}

impl Scope {
    /// The step comes from the width of the panel in points and its smallest step.
    pub fn new(from_ms: i64, to_ms: i64, max_data_points: i64, min_interval_ms: i64) -> Scope {
        let step_ms = (to_ms.saturating_sub(from_ms)).max(0) as f64 / max_data_points.max(1) as f64;
        Scope {
            from_ms,
            to_ms,
            interval_ms: rounded_interval_ms(step_ms).max(min_interval_ms),
            variables: BTreeMap::new(),
        }
    }
}

/// Up to which step (not included), ms, which step is taken: Grafana's `roundInterval`.
const STEPS: [(f64, i64); 29] = [
    (10.0, 1),
    (15.0, 10),
    (35.0, 20),
    (75.0, 50),
    (150.0, 100),
    (350.0, 200),
    (750.0, 500),
    (1_500.0, 1_000),
    (3_500.0, 2_000),
    (7_500.0, 5_000),
    (12_500.0, 10_000),
    (17_500.0, 15_000),
    (25_000.0, 20_000),
    (45_000.0, 30_000),
    (90_000.0, 60_000),
    (210_000.0, 120_000),
    (450_000.0, 300_000),
    (750_000.0, 600_000),
    (1_050_000.0, 900_000),
    (1_500_000.0, 1_200_000),
    (2_700_000.0, 1_800_000),
    (5_400_000.0, 3_600_000),
    (9_000_000.0, 7_200_000),
    (16_200_000.0, 10_800_000),
    (32_400_000.0, 21_600_000),
    (86_400_000.0, 43_200_000),
    (604_800_000.0, 86_400_000),
    (1_814_400_000.0, 604_800_000),
    (3_628_800_000.0, 2_592_000_000),
];
const YEAR_MS: i64 = 31_536_000_000;

/// The step that Grafana takes for this many milliseconds a point.
pub fn rounded_interval_ms(step_ms: f64) -> i64 {
    let found = STEPS.iter().find(|(below, _)| step_ms < *below);
    found.map_or(YEAR_MS, |(_, interval_ms)| *interval_ms)
}

/// A step in Grafana's words: its largest whole unit, `90s` is `1m`.
pub fn interval_text(interval_ms: i64) -> String {
    let whole = UNITS
        .iter()
        .filter(|(unit, _)| !["w", "M"].contains(unit))
        .find(|(_, unit_ms)| interval_ms >= *unit_ms);
    match whole {
        Some((unit, unit_ms)) => format!("{}{unit}", interval_ms / unit_ms),
        None => format!("{interval_ms}ms"),
    }
}

/// Grafana's units of time, the longest first.
const UNITS: [(&str, i64); 8] = [
    ("y", YEAR_MS),
    ("M", 2_592_000_000),
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The length of `5m`, `500ms` and the like.
pub fn span_ms(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(digits);
    let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let span_ms = count.parse::<i64>().ok()?.checked_mul(*unit_ms)?;
    (span_ms > 0).then_some(span_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn steps_are_grafanas() {
        for (step_ms, expected_ms) in [
            (0.0, 1),
            (9.9, 1),
            (10.0, 10),
            (43_200.0, 30_000),
            (45_000.0, 60_000),
            (1e12, YEAR_MS),
        ] {
            assert_eq!(rounded_interval_ms(step_ms), expected_ms, "{step_ms}");
        }
        assert_eq!(rounded_interval_ms(f64::INFINITY), YEAR_MS);
    }

    #[test]
    fn a_step_is_never_below_the_panels_smallest() {
        assert_eq!(Scope::new(0, 6 * HOUR_MS, 720, 1).interval_ms, 30_000);
        assert_eq!(Scope::new(0, 6 * HOUR_MS, 720, 60_000).interval_ms, 60_000);
        assert_eq!(Scope::new(0, 720 * HOUR_MS, 720, 60_000).interval_ms, HOUR_MS);
        assert_eq!(Scope::new(HOUR_MS, 0, 0, 60_000).interval_ms, 60_000);
    }

    #[test]
    fn spans_are_read_and_written_in_grafanas_words() {
        for (ms, text) in [
            (500, "500ms"),
            (1_000, "1s"),
            (60_000, "1m"),
            (21_600_000, "6h"),
            (604_800_000, "7d"),
            (YEAR_MS, "1y"),
        ] {
            assert_eq!(interval_text(ms), text);
            assert_eq!(span_ms(text), Some(ms));
        }
        assert_eq!((span_ms("1w"), span_ms("1M")), (Some(604_800_000), Some(2_592_000_000)));
        for wrong in ["", "5", "m", "-5m", "0s", "5 m", "5q", "99999999999999999999s"] {
            assert_eq!(span_ms(wrong), None, "{wrong}");
        }
    }
}
