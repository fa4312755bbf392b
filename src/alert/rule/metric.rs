//! What a rule takes from the metric table: `metric: rebuffer_ratio`.
//!
//! Stands between `crate::metric` and the reading of rules.
//!
//! Invariant: a metric whose parts add up is judged by its sums; any other is asked for whole windows.

use super::{Measure, Sum};
use crate::metric::{self, Better, Metric, Unit};

/// What a metric says about a rule over it.
pub(super) struct FromMetric {
    pub(super) table: String,
    pub(super) measure: Measure,
    pub(super) unit: Option<String>,
    pub(super) samples: Sum,
    pub(super) min_samples: i64,
    /// True where the windows of the table cannot be put together: the window is one minute.
    pub(super) is_one_minute: bool,
    /// True when small values are the bad ones; none where neither is.
    pub(super) is_low_bad: Option<bool>,
}

pub(super) fn of(metric: &Metric) -> Option<FromMetric> {
    let table = metric.tables().into_iter().next()?;
    let is_share = metric.unit == Unit::Ratio;
    let whole = || Measure::Whole {
        value: metric.value_sql(),
        is_share,
    };
    let measure = match metric.measure {
        metric::Measure::Ratio { numerator, denominator } if adds_up(numerator) && adds_up(denominator) => {
            let sum = |text: &str| Sum::Aggregate(text.to_owned());
            let (num, den) = (sum(numerator), sum(denominator));
            if is_share {
                Measure::Ratio { num, den }
            } else {
                Measure::Mean { sum: num, count: den }
            }
        }
        _ => whole(),
    };
    let samples = match metric.samples {
        "" => "count(*)",
        samples => samples,
    };
    Some(FromMetric {
        table,
        measure,
        unit: unit(metric.unit).map(str::to_owned),
        samples: Sum::Aggregate(samples.to_owned()),
        min_samples: i64::from(metric.min_samples.max(1)),
        is_one_minute: metric.minute_only,
        is_low_bad: match metric.better {
            Better::Lower => Some(false),
            Better::Higher => Some(true),
            Better::Neither => None,
        },
    })
}

/// True for an expression over sums alone: what two minutes give can be added.
fn adds_up(expression: &str) -> bool {
    let calls = expression.match_indices('(').filter_map(|(at, _)| {
        let before = &expression[..at];
        let start = before
            .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .map_or(0, |at| at + 1);
        Some(&before[start..]).filter(|name| !name.is_empty())
    });
    let mut calls = calls.peekable();
    calls.peek().is_some() && calls.all(|name| name == "sum")
}

/// As messages write it: `ratio` is shown in per cent.
fn unit(unit: Unit) -> Option<&'static str> {
    match unit {
        Unit::Count => None,
        unit => Some(unit.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_add_up_and_nothing_else_does() {
        assert!(adds_up("sum(a) - sum(b) / 1000.0"));
        assert!(adds_up("8.0 * (sum(a) + sum(b))"));
        assert!(!adds_up(
            "date_part('epoch', max(window_end)) - date_part('epoch', min(window_start))"
        ));
        assert!(!adds_up("sum(a) / max(b)"));
        assert!(!adds_up("1"));
    }

    #[test]
    fn every_metric_can_be_alerted_on() {
        for metric in metric::METRICS {
            let found = of(metric).unwrap_or_else(|| panic!("{} has no table", metric.name));
            assert!(found.table.ends_with("_1m"), "{}", found.table);
            assert!(found.min_samples >= 1);
        }
        let ratio = of(metric::find("rebuffer_ratio").unwrap()).unwrap();
        assert_eq!(ratio.table, "gold.playback_1m");
        assert!(ratio.measure.parts().is_some() && ratio.measure.is_share());
        assert_eq!(ratio.is_low_bad, Some(false));
        let percentile = of(metric::find("startup_p95_ms").unwrap()).unwrap();
        assert!(percentile.measure.parts().is_none());
        assert_eq!(percentile.unit.as_deref(), Some("ms"));
    }
}
