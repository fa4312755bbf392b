//! What a rule asks of the lake.
//!
//! Stands between a checked rule and the engine: texts out. The rows come back as `MinuteRow` and
//! `SlotRow`, with the columns in the order given here.
//!
//! Invariant: a value of a rule is in a query only as a checked expression or as a quoted name.

use super::{Baseline, History, Measure, Rule, Shape, Sum};
use crate::alert::{DAY_MS, MINUTE_MS, message};

impl Rule {
    /// True where minutes do not add up: each window is a query of its own, and one row a group.
    pub fn is_per_window(&self) -> bool {
        self.measure.parts().is_none()
    }

    /// How far back the rows reach that are pooled for a window.
    pub(in crate::alert) fn pooled_ms(&self) -> i64 {
        if self.is_per_window() { MINUTE_MS } else { self.window_ms }
    }

    /// The queries whose rows, taken together, judge the windows that end at `ends` (in order). Each
    /// gives `window_start`, one text column a dimension in the order of `group_by`, then `num`,
    /// `den`, `samples`, `impacted` as doubles.
    pub fn queries(&self, ends: &[i64]) -> Vec<String> {
        let (Some(first), Some(last)) = (ends.first(), ends.last()) else {
            return Vec::new();
        };
        if self.is_per_window() {
            let due = ends.iter().filter(|end| self.is_due(**end));
            return due.map(|end| self.window_sql(*end)).collect();
        }
        vec![self.sql(first.saturating_sub(self.window_ms), *last)]
    }

    /// The query for the minute rows of [from, to); for a rule of whole windows, that of the window
    /// that ends at `to`.
    pub fn sql(&self, from_ms: i64, to_ms: i64) -> String {
        if self.is_per_window() {
            return self.window_sql(to_ms);
        }
        let group = ordinals(1..=1 + self.group_by.len());
        format!(
            "SELECT window_start, {}{} FROM {} WHERE {} GROUP BY {group}",
            self.dims_sql(),
            self.sums_sql(),
            quoted(&self.from),
            self.filter_sql(from_ms, to_ms),
        )
    }

    /// One row a group for the whole window, under its last minute. No value is NaN, which is none.
    fn window_sql(&self, window_end_ms: i64) -> String {
        let last_minute = message::sql_time(window_end_ms.saturating_sub(MINUTE_MS));
        let head = format!("SELECT arrow_cast(TIMESTAMP '{last_minute}', 'Timestamp(Microsecond, None)') AS window_start");
        if let Measure::Query { text } = &self.measure {
            return format!(
                "{head}, {}coalesce(CAST(value AS DOUBLE), CAST('NaN' AS DOUBLE)) AS num, CAST(1 AS DOUBLE) AS den, \
                 CAST(samples AS DOUBLE) AS samples, CAST(0 AS DOUBLE) AS impacted FROM ({text}) AS rule_query \
                 WHERE window_end = TIMESTAMP '{}'",
                self.dims_sql(),
                message::sql_time(window_end_ms),
            );
        }
        let group = match self.group_by.len() {
            0 => "HAVING count(*) > 0".to_owned(),
            dims => format!("GROUP BY {}", ordinals(2..=1 + dims)),
        };
        format!(
            "{head}, {}{} FROM {} WHERE {} {group}",
            self.dims_sql(),
            self.sums_sql(),
            quoted(&self.from),
            self.filter_sql(window_end_ms.saturating_sub(self.window_ms), window_end_ms),
        )
    }

    /// The query for the history that a baseline needs at this window end: `day` (days since
    /// 1970-01-01), `slot` (number of the slot in its day), dimensions, `num`, `den`, `samples`. None
    /// for a rule that needs no history. The text is the same all through a slot, so its answer may
    /// be kept that long.
    pub fn history_sql(&self, window_end_ms: i64) -> Option<String> {
        let Some(Baseline::History(history)) = &self.baseline else {
            return None;
        };
        let (day_sql, slot_sql) = day_and_slot_sql(history.slot_ms);
        let (from_ms, to_ms, meant) = self.history_range(history, window_end_ms);
        Some(format!(
            "SELECT CAST({day_sql} AS INT) AS day, CAST({slot_sql} AS INT) AS slot, {}{} FROM {} WHERE {}{meant} GROUP BY {}",
            self.dims_sql(),
            self.history_sums_sql(),
            quoted(&self.from),
            self.filter_sql(from_ms, to_ms),
            ordinals(1..=2 + self.group_by.len()),
        ))
    }

    /// The minutes that a baseline is made of: from, to, and what else a row must satisfy.
    pub(super) fn history_range(&self, history: &History, window_end_ms: i64) -> (i64, i64, String) {
        let slot_ms = history.slot_ms;
        let (day_sql, slot_sql) = day_and_slot_sql(slot_ms);
        let (day, slot) = slot_of(window_end_ms, slot_ms);
        let today_ms = day.saturating_mul(DAY_MS);
        match history.shape {
            Shape::SameSlot => (
                today_ms.saturating_sub(history.lookback * DAY_MS),
                today_ms,
                format!(" AND {slot_sql} = {slot}"),
            ),
            Shape::SameSlotWeekly => (
                today_ms.saturating_sub(7 * history.lookback * DAY_MS),
                today_ms,
                format!(" AND {slot_sql} = {slot} AND {day_sql} % 7 = {}", day.rem_euclid(7)),
            ),
            Shape::Trailing | Shape::Ewma { .. } => {
                let first = window_end_ms.saturating_sub(self.window_ms).div_euclid(slot_ms);
                let to_ms = first.saturating_mul(slot_ms);
                (to_ms.saturating_sub(history.lookback * slot_ms), to_ms, String::new())
            }
        }
    }

    fn dims_sql(&self) -> String {
        let cast = |dim: &String| format!("CAST({0} AS VARCHAR) AS {0}, ", quoted(dim));
        self.group_by.iter().map(cast).collect()
    }

    fn sums_sql(&self) -> String {
        let impacted = match &self.impacted {
            Some(sum) => double(&sum.sql(), "impacted"),
            None => double("0", "impacted"),
        };
        format!("{}, {impacted}", self.history_sums_sql())
    }

    pub(super) fn history_sums_sql(&self) -> String {
        let (num, den) = match &self.measure {
            Measure::Ratio { num, den } => (double(&num.sql(), "num"), double(&den.sql(), "den")),
            Measure::Mean { sum, count } => (double(&sum.sql(), "num"), double(&count.sql(), "den")),
            Measure::Whole { value, .. } => (
                format!("coalesce(CAST({value} AS DOUBLE), CAST('NaN' AS DOUBLE)) AS num"),
                double("1", "den"),
            ),
            Measure::Query { .. } => (double("value", "num"), double("1", "den")),
        };
        format!("{num}, {den}, {}", double(&Sum::sql(&self.samples), "samples"))
    }

    pub(super) fn filter_sql(&self, from_ms: i64, to_ms: i64) -> String {
        let filter = match &self.filter {
            Some(filter) => format!(" AND ({filter})"),
            None => String::new(),
        };
        format!("{}{filter}", Rule::span_sql(from_ms, to_ms))
    }

    pub(super) fn span_sql(from_ms: i64, to_ms: i64) -> String {
        format!(
            "window_start >= TIMESTAMP '{}' AND window_start < TIMESTAMP '{}'",
            message::sql_time(from_ms),
            message::sql_time(to_ms),
        )
    }
}

/// Day since 1970-01-01 and slot of the day that hold the last minute of a window.
pub(in crate::alert) fn slot_of(window_end_ms: i64, slot_ms: i64) -> (i64, i64) {
    let last_minute_ms = window_end_ms.saturating_sub(MINUTE_MS);
    let day = last_minute_ms.div_euclid(DAY_MS);
    (day, last_minute_ms.rem_euclid(DAY_MS) / slot_ms)
}

/// The day since 1970-01-01 and the slot of the day of a row.
fn day_and_slot_sql(slot_ms: i64) -> (String, String) {
    let epoch_s = "CAST(date_part('epoch', window_start) AS BIGINT)";
    let day_s = DAY_MS / 1_000;
    (format!("{epoch_s} / {day_s}"), format!("{epoch_s} % {day_s} / {}", slot_ms / 1_000))
}

pub(super) fn double(expression: &str, name: &str) -> String {
    format!("CAST({expression} AS DOUBLE) AS {name}")
}

pub(super) fn ordinals(numbers: std::ops::RangeInclusive<usize>) -> String {
    let numbers: Vec<String> = numbers.map(|n| n.to_string()).collect();
    numbers.join(", ")
}

/// `gold.cdn_1m` as `"gold"."cdn_1m"`.
pub(super) fn quoted(name: &str) -> String {
    let quote = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
    name.split('.').map(quote).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::super::tests::parsed;
    use super::*;
    use crate::alert::fixture::{plain_rule, seed_rule};

    #[test]
    fn the_query_quotes_names_and_wraps_the_filter() {
        let rule = parsed(
            "min_samples: 500",
            "min_samples: 500\n        where: \"app_name = 'x' OR app_name = 'y'\"",
        );
        assert_eq!(
            rule.sql(1_793_563_740_000, 1_793_564_040_000),
            "SELECT window_start, CAST(\"device_type\" AS VARCHAR) AS \"device_type\", \
             CAST(\"app_name\" AS VARCHAR) AS \"app_name\", \
             CAST(sum(clients_with_errors) AS DOUBLE) AS num, CAST(sum(clients) AS DOUBLE) AS den, \
             CAST(sum(clients) AS DOUBLE) AS samples, CAST(0 AS DOUBLE) AS impacted FROM \"gold\".\"errors_1m\" \
             WHERE window_start >= TIMESTAMP '2026-11-01 20:09:00' \
             AND window_start < TIMESTAMP '2026-11-01 20:14:00' \
             AND (app_name = 'x' OR app_name = 'y') GROUP BY 1, 2, 3"
        );
        assert_eq!(rule.history_sql(1_793_564_040_000), None);
    }

    #[test]
    fn the_history_query_reads_the_slot_of_earlier_days_only() {
        let rule = seed_rule("cdn-latency-baseline");
        let sql = rule.history_sql(1_793_564_040_000).unwrap();
        assert_eq!(
            sql,
            "SELECT CAST(CAST(date_part('epoch', window_start) AS BIGINT) / 86400 AS INT) AS day, \
             CAST(CAST(date_part('epoch', window_start) AS BIGINT) % 86400 / 3600 AS INT) AS slot, \
             CAST(\"cdn\" AS VARCHAR) AS \"cdn\", CAST(\"country\" AS VARCHAR) AS \"country\", \
             CAST(sum(ttfb_ms_sum) AS DOUBLE) AS num, CAST(sum(ttfb_count) AS DOUBLE) AS den, \
             CAST(sum(ttfb_count) AS DOUBLE) AS samples FROM \"gold\".\"cdn_1m\" \
             WHERE window_start >= TIMESTAMP '2026-10-25 00:00:00' \
             AND window_start < TIMESTAMP '2026-11-01 00:00:00' \
             AND CAST(date_part('epoch', window_start) AS BIGINT) % 86400 / 3600 = 20 \
             GROUP BY 1, 2, 3, 4"
        );
        let at_the_end_of_the_slot = rule.history_sql(1_793_566_800_000).unwrap();
        assert_eq!(sql, at_the_end_of_the_slot, "21:00 ends the slot of 20:00");
    }

    #[test]
    fn quotes_in_names_cannot_break_out() {
        assert_eq!(quoted("gold.a\"b"), "\"gold\".\"a\"\"b\"");
    }

    #[test]
    fn slots_hold_the_last_minute_of_the_window() {
        let hour = 60 * MINUTE_MS;
        assert_eq!(slot_of(DAY_MS + hour, hour), (1, 0));
        assert_eq!(slot_of(DAY_MS + hour + MINUTE_MS, hour), (1, 1));
        assert_eq!(slot_of(DAY_MS, hour), (0, 23));
        assert_eq!(slot_of(0, hour), (-1, 23));
    }

    #[test]
    fn a_percentile_is_a_query_a_window_and_no_value_is_none() {
        let rule = plain_rule(&[
            ("gold.errors_1m", "gold.cdn_1m"),
            (
                "{ratio: {num: clients_with_errors, den: clients}}",
                "{quantile: {sketch: ttfb_hit_sketch, q: 0.95}}\n        samples: ttfb_hit_count",
            ),
            ("group_by: [device_type]", "group_by: [cdn]"),
            ("window: 1m", "window: 5m\n        slide: 5m"),
            ("threshold: 5%", "threshold: 300"),
        ]);
        assert!(rule.is_per_window());
        assert_eq!(rule.unit.as_deref(), Some("ms"));
        let end = 1_793_563_800_000;
        let texts = rule.queries(&[end - MINUTE_MS, end, end + MINUTE_MS, end + 5 * MINUTE_MS]);
        assert_eq!(texts.len(), 2, "one for each window of the slide");
        assert_eq!(
            texts[0],
            "SELECT arrow_cast(TIMESTAMP '2026-11-01 20:09:00', 'Timestamp(Microsecond, None)') AS window_start, \
             CAST(\"cdn\" AS VARCHAR) AS \"cdn\", \
             coalesce(CAST(sketch_quantile(sketch_merge(ttfb_hit_sketch), 0.95) AS DOUBLE), CAST('NaN' AS DOUBLE)) AS num, \
             CAST(1 AS DOUBLE) AS den, CAST(sum(ttfb_hit_count) AS DOUBLE) AS samples, CAST(0 AS DOUBLE) AS impacted \
             FROM \"gold\".\"cdn_1m\" WHERE window_start >= TIMESTAMP '2026-11-01 20:05:00' \
             AND window_start < TIMESTAMP '2026-11-01 20:10:00' GROUP BY 2"
        );
    }

    #[test]
    fn a_query_of_the_users_own_is_asked_for_one_window() {
        let rule = plain_rule(&[
            ("        from: gold.errors_1m\n", ""),
            (
                "{ratio: {num: clients_with_errors, den: clients}}",
                "{sql: \"SELECT window_end, device_type, 1 AS value, 500 AS samples FROM t\"}",
            ),
            ("threshold: 5%", "threshold: 3"),
        ]);
        assert_eq!(
            rule.sql(0, 120_000),
            "SELECT arrow_cast(TIMESTAMP '1970-01-01 00:01:00', 'Timestamp(Microsecond, None)') AS window_start, \
             CAST(\"device_type\" AS VARCHAR) AS \"device_type\", \
             coalesce(CAST(value AS DOUBLE), CAST('NaN' AS DOUBLE)) AS num, CAST(1 AS DOUBLE) AS den, \
             CAST(samples AS DOUBLE) AS samples, CAST(0 AS DOUBLE) AS impacted \
             FROM (SELECT window_end, device_type, 1 AS value, 500 AS samples FROM t) AS rule_query \
             WHERE window_end = TIMESTAMP '1970-01-01 00:02:00'"
        );
    }

    #[test]
    fn the_history_before_the_window_ends_with_the_last_whole_slot() {
        let text = "baseline: {kind: trailing, slot: 5m, lookback: 1h, min_history: 10m}\n        condition: {test: ratio_to_baseline";
        let rule = plain_rule(&[("condition: {test: value", text)]);
        let sql = rule.history_sql(1_793_563_800_000).unwrap();
        assert!(
            sql.contains(
                "window_start >= TIMESTAMP '2026-11-01 19:05:00' AND window_start < TIMESTAMP '2026-11-01 20:05:00' GROUP BY 1, 2, 3"
            ),
            "{sql}"
        );
    }

    #[test]
    fn the_weekly_history_asks_for_one_weekday() {
        let text = "baseline: {kind: same_slot_weekly}\n        condition: {test: zscore, op: \">\", threshold: 4}";
        let rule = plain_rule(&[("condition: {test: value, op: \">\", threshold: 5%}", text)]);
        let sql = rule.history_sql(1_793_563_800_000).unwrap();
        assert!(
            sql.contains("/ 86400 % 7 = 3 GROUP BY"),
            "2026-11-01 is day 20758, and 20758 % 7 is 3: {sql}"
        );
        assert!(sql.contains("window_start >= TIMESTAMP '2026-10-04 00:00:00'"), "{sql}");
    }
}
