//! Alert rules: what a checked rule is, and the queries it asks of the lake.
//!
//! Stands before `alert::evaluate`: files in, a `RuleSet` or every complaint out. It reads no file,
//! no environment and no table; text, variables and columns are handed in. A text becomes nodes with
//! places (`yaml`), nodes become rules or complaints (`read`, after the keys of `schema`).
//!
//! Invariant: a `Rule` comes only from `parse_rules`, so what is evaluated has been checked.
//! Invariant: a value of a rule is in a query only as a checked expression or as a quoted name.

mod complaint;
mod expression;
mod read;
mod schema;
mod yaml;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DAY_MS, MINUTE_MS, message};

pub use complaint::Complaint;
pub use read::parse_rules;

/// What the rules may read. Implemented over the lake's tables.
pub trait Catalogue {
    /// The columns of a table written as in `from`, for instance `gold.cdn_1m`; none if unknown.
    fn columns(&self, table: &str) -> Option<Vec<String>>;
    fn tables(&self) -> Vec<String>;
}

/// Every rule and target in force, and the hash that names them.
#[derive(Debug, Clone)]
pub struct RuleSet {
    /// The enabled rules, in order of file name and place.
    pub rules: Vec<Rule>,
    pub targets: BTreeMap<String, Target>,
    /// `sha256:` and 64 hex digits over the texts in order of file name, each after its length.
    pub hash: String,
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Sns {
        topic_arn: String,
        endpoint_url: Option<String>,
        /// The topic's own region unless `region` says otherwise.
        region: String,
    },
}

/// How bad it is. Later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    pub(super) const ALL: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Critical];

    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// What the rule looks at; each text is an SQL expression over columns, summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Measure {
    Ratio { num: String, den: String },
    Mean { sum: String, count: String },
}

impl Measure {
    pub(super) fn parts(&self) -> (&str, &str) {
        match self {
            Measure::Ratio { num, den } => (num, den),
            Measure::Mean { sum, count } => (sum, count),
        }
    }

    pub(super) fn is_ratio(&self) -> bool {
        matches!(self, Measure::Ratio { .. })
    }
}

/// How sure the value must be before it counts as a breach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Confidence {
    /// The value as it stands.
    None,
    /// Wilson score bound: only for a numerator that counts a part of the denominator.
    Wilson { z: f64 },
    /// Normal bound with the variance p(1 - p), the largest that a share of anything can have.
    Normal { z: f64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Baseline {
    SameSlot {
        slot_ms: i64,
        lookback_days: i64,
        min_history_days: i64,
    },
    Peers {
        /// Index into `group_by`.
        over: usize,
        /// Indexes into `group_by`.
        within: Vec<usize>,
        min_peers: usize,
    },
}

impl Baseline {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Baseline::SameSlot { .. } => "same_slot",
            Baseline::Peers { .. } => "peers",
        }
    }
}

/// Which number a condition looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    Value,
    /// value / baseline - 1.
    RatioToBaseline,
    /// value - baseline.
    DiffToBaseline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    #[serde(rename = ">")]
    Above,
    #[serde(rename = ">=")]
    AtLeast,
    #[serde(rename = "<")]
    Below,
    #[serde(rename = "<=")]
    AtMost,
}

impl Op {
    /// True when small values are the bad ones.
    pub(super) fn is_below(self) -> bool {
        matches!(self, Op::Below | Op::AtMost)
    }

    pub(super) fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Op::Above => left > right,
            Op::AtLeast => left >= right,
            Op::Below => left < right,
            Op::AtMost => left <= right,
        }
    }
}

/// One test against one threshold; a share is a fraction, all else in the unit of the value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    pub test: Test,
    pub op: Op,
    pub value: f64,
}

/// A checked rule. It has no constructor but `parse_rules`.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(super) uid: String,
    pub(super) alert: String,
    pub(super) owner: Option<String>,
    pub(super) runbook: Option<String>,
    pub(super) from: String,
    pub(super) measure: Measure,
    pub(super) samples: String,
    pub(super) window_ms: i64,
    pub(super) group_by: Vec<String>,
    pub(super) filter: Option<String>,
    pub(super) min_samples: f64,
    pub(super) confidence: Confidence,
    pub(super) baseline: Option<Baseline>,
    pub(super) condition: Condition,
    pub(super) and: Vec<Condition>,
    pub(super) hold_ms: i64,
    pub(super) severity: Severity,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) targets: Vec<String>,
}

impl Rule {
    pub fn uid(&self) -> &str {
        &self.uid
    }

    pub fn alert(&self) -> &str {
        &self.alert
    }

    /// The gold table, as written.
    pub fn from(&self) -> &str {
        &self.from
    }

    pub fn group_by(&self) -> &[String] {
        &self.group_by
    }

    pub fn window_ms(&self) -> i64 {
        self.window_ms
    }

    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// The query for the minute rows of [from, to): `window_start`, one text column a dimension in
    /// the order of `group_by`, then `num`, `den`, `samples` as doubles.
    pub fn sql(&self, from_ms: i64, to_ms: i64) -> String {
        let dims = self.dims_sql();
        let group = ordinals(1 + self.group_by.len());
        format!(
            "SELECT window_start, {dims}{} FROM {} WHERE {} GROUP BY {group}",
            self.sums_sql(),
            quoted(&self.from),
            self.filter_sql(from_ms, to_ms),
        )
    }

    /// The query for the history that a `same_slot` baseline needs at this window end: `day` (days
    /// since 1970-01-01), `slot` (number of the slot in its day), dimensions, `num`, `den`,
    /// `samples`. None for a rule that needs no history. The text is the same all through a slot,
    /// so its answer may be kept that long.
    pub fn history_sql(&self, window_end_ms: i64) -> Option<String> {
        let Some(Baseline::SameSlot {
            slot_ms, lookback_days, ..
        }) = self.baseline
        else {
            return None;
        };
        let (day, slot) = slot_of(window_end_ms, slot_ms);
        let today_ms = day.saturating_mul(DAY_MS);
        let first_ms = today_ms.saturating_sub(lookback_days * DAY_MS);
        let epoch_s = "CAST(date_part('epoch', window_start) AS BIGINT)";
        let slot_sql = format!("{epoch_s} % {} / {}", DAY_MS / 1_000, slot_ms / 1_000);
        Some(format!(
            "SELECT CAST({epoch_s} / {} AS INT) AS day, CAST({slot_sql} AS INT) AS slot, {}{} \
             FROM {} WHERE {} AND {slot_sql} = {slot} GROUP BY {}",
            DAY_MS / 1_000,
            self.dims_sql(),
            self.sums_sql(),
            quoted(&self.from),
            self.filter_sql(first_ms, today_ms),
            ordinals(2 + self.group_by.len()),
        ))
    }

    fn dims_sql(&self) -> String {
        let cast = |dim: &String| format!("CAST({0} AS VARCHAR) AS {0}, ", quoted(dim));
        self.group_by.iter().map(cast).collect()
    }

    fn sums_sql(&self) -> String {
        let (num, den) = self.measure.parts();
        let sum = |expression: &str, name: &str| format!("CAST(sum({expression}) AS DOUBLE) AS {name}");
        [sum(num, "num"), sum(den, "den"), sum(&self.samples, "samples")].join(", ")
    }

    fn filter_sql(&self, from_ms: i64, to_ms: i64) -> String {
        let filter = match &self.filter {
            Some(filter) => format!(" AND ({filter})"),
            None => String::new(),
        };
        format!(
            "window_start >= TIMESTAMP '{}' AND window_start < TIMESTAMP '{}'{filter}",
            message::sql_time(from_ms),
            message::sql_time(to_ms),
        )
    }

    /// The unit of the value: `ratio`, else by the name of the summed column.
    pub(super) fn unit(&self) -> Option<&'static str> {
        let Measure::Mean { sum, .. } = &self.measure else {
            return Some("ratio");
        };
        let name = sum.strip_suffix("_sum").unwrap_or(sum);
        ["ms", "bps", "kbps", "bytes"]
            .into_iter()
            .find(|unit| name.ends_with(&format!("_{unit}")))
    }

    /// What one sample is, in words: the column it is counted in, or `samples`.
    pub(super) fn samples_of(&self) -> String {
        let is_name = self.samples.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
        if is_name && !self.samples.ends_with("_count") {
            return self.samples.replace('_', " ");
        }
        "samples".to_owned()
    }

    pub(super) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        std::iter::once(&self.condition).chain(&self.and)
    }
}

/// Day since 1970-01-01 and slot of the day that hold the last minute of a window.
pub(super) fn slot_of(window_end_ms: i64, slot_ms: i64) -> (i64, i64) {
    let last_minute_ms = window_end_ms.saturating_sub(MINUTE_MS);
    let day = last_minute_ms.div_euclid(DAY_MS);
    (day, last_minute_ms.rem_euclid(DAY_MS) / slot_ms)
}

fn ordinals(count: usize) -> String {
    let numbers: Vec<String> = (1..=count).map(|n| n.to_string()).collect();
    numbers.join(", ")
}

/// `gold.cdn_1m` as `"gold"."cdn_1m"`.
fn quoted(name: &str) -> String {
    let quote = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
    name.split('.').map(quote).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::tests::{Gold, seed_rule};

    pub(super) const RULES: &str = r#"version: 1
targets:
  console: {stdout: {}}
groups:
  - name: core
    rules:
      - alert: Errors
        uid: errors
        from: gold.errors_1m
        value: {ratio: {num: clients_with_errors, den: clients}}
        group_by: [device_type, app_name]
        min_samples: 500
        condition: {test: value, op: ">", threshold: 5%}
        notify: {targets: [console]}
"#;
    pub(super) const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:noc";

    pub(super) fn parse(files: &[(&str, String)]) -> Result<RuleSet, Vec<Complaint>> {
        let owned = |(name, text): &(&str, String)| (name.to_string(), text.clone());
        let files: Vec<_> = files.iter().map(owned).collect();
        parse_rules(&files, &Gold, &|name| (name == "TOPIC").then(|| TOPIC.to_owned()))
    }

    pub(super) fn edited(old: &str, new: &str) -> String {
        assert!(RULES.contains(old), "{old}");
        RULES.replacen(old, new, 1)
    }

    pub(super) fn texts(complaints: &[Complaint]) -> String {
        complaints.iter().map(|c| format!("{c}\n")).collect()
    }

    /// The good file with one edit gives exactly these complaints.
    #[track_caller]
    pub(super) fn check(old: &str, new: &str, expected: &str) {
        let complaints = parse(&[("alerts/a.yaml", edited(old, new))]).unwrap_err();
        assert_eq!(format!("\n{}", texts(&complaints)), expected);
    }

    #[track_caller]
    pub(super) fn parsed(old: &str, new: &str) -> Rule {
        match parse(&[("alerts/a.yaml", edited(old, new))]) {
            Ok(set) => set.rules[0].clone(),
            Err(complaints) => panic!("{}", texts(&complaints)),
        }
    }

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
             CAST(sum(clients) AS DOUBLE) AS samples FROM \"gold\".\"errors_1m\" \
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
}
