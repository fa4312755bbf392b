//! Alert rules: what a checked rule is.
//!
//! Stands before `alert::evaluate`: files in, a `RuleSet` or every complaint out. It reads no file,
//! no environment and no table; text, variables and columns are handed in. A text becomes nodes with
//! places (`yaml`), nodes become rules or complaints (`read`, after the keys of `schema`); `query` is
//! what a rule asks of the lake.
//!
//! Invariant: a `Rule` comes only from `parse_rules`, so what is evaluated has been checked.
//! Invariant: a value of a rule is in a query only as a checked expression or as a quoted name.

mod calendar;
mod change;
mod complaint;
mod editor;
mod expression;
mod metric;
mod query;
mod read;
mod schema;
mod shared;
mod silence;
mod why;
pub(super) mod yaml;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::target::Target;
pub use calendar::Calendar;
pub use change::{Change, DIMS_USUAL};
pub use complaint::Complaint;
pub use editor::{rule_schema, silence_schema};
pub use read::{parse_duration_ms, parse_rules};
pub use shared::{SHARED_SUMS, shared, shared_sql};
pub use silence::{Inhibition, Matchers, Pattern, Silence, silence_yaml};
pub use why::Why;

pub(super) use silence::attribute;

pub(super) use complaint::did_you_mean;
pub(super) use query::slot_of;

/// Open windows of one rule that are looked at, each by a reading of its rows: what is older will close soon.
const OPEN_ENDS_MAX: i64 = 10;

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
    /// In order of file name and place.
    pub inhibitions: Vec<Inhibition>,
    /// In order of file name and place.
    pub silences: Vec<Silence>,
    /// `sha256:` and 64 hex digits over the texts in order of file name, each after its length. A
    /// file that holds silences alone is left out: who is told is no part of what is judged.
    pub hash: String,
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
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// An SQL text that adds up over rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sum {
    /// An expression over columns, to be summed.
    Of(String),
    /// An aggregate expression, as the metric table has it.
    Aggregate(String),
}

impl Sum {
    pub(super) fn sql(&self) -> String {
        match self {
            Sum::Of(expression) => format!("sum({expression})"),
            Sum::Aggregate(expression) => expression.clone(),
        }
    }

    /// The column that is summed, where it is one.
    pub(super) fn column(&self) -> Option<&str> {
        let text = match self {
            Sum::Of(text) => text.as_str(),
            Sum::Aggregate(text) => text.strip_prefix("sum(")?.strip_suffix(')')?,
        };
        let is_name = !text.is_empty() && text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
        is_name.then_some(text)
    }
}

/// What the rule looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Measure {
    /// A share: both are sums, so minutes add up.
    Ratio { num: Sum, den: Sum },
    /// A mean: both are sums, so minutes add up.
    Mean { sum: Sum, count: Sum },
    /// An aggregate expression over the whole window: a percentile, a peak, a rate.
    Whole { value: String, is_share: bool },
    /// A query that gives `window_end`, the dimensions, `value` and `samples`.
    Query { text: String },
}

impl Measure {
    /// Numerator and denominator of what adds up.
    pub(super) fn parts(&self) -> Option<(&Sum, &Sum)> {
        match self {
            Measure::Ratio { num, den } => Some((num, den)),
            Measure::Mean { sum, count } => Some((sum, count)),
            Measure::Whole { .. } | Measure::Query { .. } => None,
        }
    }

    /// True for what a threshold is written for as a share.
    pub(super) fn is_share(&self) -> bool {
        matches!(self, Measure::Ratio { .. } | Measure::Whole { is_share: true, .. })
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

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Baseline {
    History(History),
    Peers(Peers),
    Fixed { value: f64 },
}

/// A baseline from slots of earlier time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct History {
    pub(super) shape: Shape,
    pub(super) slot_ms: i64,
    /// In days, weeks or slots, as the shape has it.
    pub(super) lookback: i64,
    /// Fewer days, weeks or slots with a value than this are no baseline.
    pub(super) min_history: i64,
    pub(super) stat: Stat,
    /// Slots in which the group's own alert was firing are no history.
    pub(super) exclude_firing: bool,
    /// Slots that begin in one of these are no history.
    pub(super) exclude_days: Vec<Calendar>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    SameSlot,
    SameSlotWeekly,
    Trailing,
    /// In slots.
    Ewma {
        half_life: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stat {
    Mean,
    Median,
}

/// A baseline from the siblings in the same window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peers {
    /// Index into `group_by`.
    pub(super) over: usize,
    /// Indexes into `group_by`.
    pub(super) within: Vec<usize>,
    pub(super) min_peers: usize,
    pub(super) leave_one_out: bool,
    pub(super) weight: PeerWeight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerWeight {
    Denominator,
    Samples,
    Equal,
}

impl Baseline {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Baseline::Peers(_) => "peers",
            Baseline::Fixed { .. } => "fixed",
            Baseline::History(history) => match history.shape {
                Shape::SameSlot => "same_slot",
                Shape::SameSlotWeekly => "same_slot_weekly",
                Shape::Trailing => "trailing",
                Shape::Ewma { .. } => "ewma",
            },
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
    /// (value - baseline) / spread of the baseline.
    Zscore,
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

/// When what fires may end.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Clear {
    /// For the test of the condition; the condition's own where there is none.
    pub(super) threshold: Option<f64>,
    pub(super) hold_ms: i64,
}

/// How many must be hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MinImpacted {
    pub(super) count: f64,
    /// Of the samples, 0 to 1.
    pub(super) share: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoData {
    pub(super) state: NoDataState,
    pub(super) after_ms: i64,
}

/// What the absence of rows means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoDataState {
    /// All is well: alerts end at once.
    Ok,
    /// Firing alerts wait for `after`, then end.
    Keep,
    /// As `Keep`, and a window without any row is an alert of its own after `after`.
    Alert,
}

/// What a failed query means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorState {
    Ok,
    Keep,
    Alert,
}

/// Where the cause of an alert is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explain {
    /// Columns of the table.
    pub dims: Vec<String>,
    /// Dimensions that one cause may combine.
    pub max_depth: usize,
    /// Causes to name.
    pub top: usize,
}

/// Who is told, when and how often.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Notify {
    /// In order, each once.
    pub targets: Vec<String>,
    /// Alerts that agree in these may be told together: dimensions, `severity`, `alert`.
    pub group_by: Vec<String>,
    /// Timers of delivery, in wall-clock time.
    pub group_wait_ms: i64,
    pub group_interval_ms: i64,
    /// A firing alert is told again after this much event time; never, where there is none.
    pub repeat_interval_ms: Option<i64>,
    pub send_resolved: bool,
    /// Outside these hours nothing is sent; what fires still is told when they begin.
    pub active: Option<Calendar>,
}

/// What a machine may do about an alert; the parameters are templates.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Playbook {
    pub(super) playbook: String,
    pub(super) params: BTreeMap<String, String>,
    pub(super) limits: BTreeMap<String, serde_json::Value>,
    pub(super) valid_for_ms: i64,
    pub(super) dry_run: bool,
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
    pub(super) unit: Option<String>,
    pub(super) samples: Sum,
    pub(super) impacted: Option<Sum>,
    pub(super) window_ms: i64,
    pub(super) slide_ms: i64,
    pub(super) lateness_ms: i64,
    pub(super) group_by: Vec<String>,
    pub(super) filter: Option<String>,
    pub(super) min_samples: f64,
    pub(super) min_impacted: Option<MinImpacted>,
    pub(super) confidence: Confidence,
    pub(super) baseline: Option<Baseline>,
    pub(super) condition: Condition,
    pub(super) and: Vec<Condition>,
    pub(super) hold_ms: i64,
    pub(super) clear: Option<Clear>,
    pub(super) keep_firing_ms: i64,
    pub(super) no_data: NoData,
    pub(super) eval_error: ErrorState,
    /// The mildest of the ladder, where there is one.
    pub(super) severity: Severity,
    /// Thresholds of the condition's test, from the mildest to the worst.
    pub(super) ladder: Vec<(f64, Severity)>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) links: BTreeMap<String, String>,
    pub(super) explain: Option<Explain>,
    pub(super) notify: Notify,
    pub(super) remediation: Option<Playbook>,
    pub(super) max_alerts: usize,
    /// A firing whose window late data change is told so.
    pub(super) amends: bool,
    /// Windows that are open are judged as well.
    pub(super) is_early: bool,
}

impl Rule {
    pub fn uid(&self) -> &str {
        &self.uid
    }

    pub fn alert(&self) -> &str {
        &self.alert
    }

    /// The gold table, as written; empty for a rule whose value is a query of its own.
    pub fn from(&self) -> &str {
        &self.from
    }

    pub fn group_by(&self) -> &[String] {
        &self.group_by
    }

    /// True where a firing is amended when late data change its window.
    pub fn amends(&self) -> bool {
        self.amends
    }

    /// True where an open window that breaches by the rows so far is told.
    pub fn is_early(&self) -> bool {
        self.is_early
    }

    /// The ends after `after_ms` of windows that have begun by `newest_ms`, the newest `OPEN_ENDS_MAX`.
    pub fn open_ends_ms(&self, after_ms: i64, newest_ms: i64) -> Vec<i64> {
        let last = newest_ms.saturating_sub(1).div_euclid(self.slide_ms) + 1;
        let first = (after_ms.div_euclid(self.slide_ms) + 1).max(last - OPEN_ENDS_MAX + 1);
        (first..=last).map(|end| end * self.slide_ms).collect()
    }

    pub fn window_ms(&self) -> i64 {
        self.window_ms
    }

    /// How long after its end a window is judged.
    pub fn lateness_ms(&self) -> i64 {
        self.lateness_ms
    }

    pub fn targets(&self) -> &[String] {
        &self.notify.targets
    }

    pub fn notify(&self) -> &Notify {
        &self.notify
    }

    pub fn explain(&self) -> Option<&Explain> {
        self.explain.as_ref()
    }

    /// True when windows that end here are judged: every `slide`.
    pub fn is_due(&self, window_end_ms: i64) -> bool {
        window_end_ms.rem_euclid(self.slide_ms) == 0
    }

    /// True for a rule that tells of windows without any row.
    pub fn tells_no_data(&self) -> bool {
        self.no_data.state == NoDataState::Alert
    }

    /// What one sample is, in words: the column it is counted in, or `samples`.
    pub(super) fn samples_of(&self) -> String {
        match self.samples.column() {
            Some(name) if !name.ends_with("_count") => name.replace('_', " "),
            _ => "samples".to_owned(),
        }
    }

    /// True when a sample is what the denominator of a ratio counts.
    pub(super) fn is_share_of_samples(&self) -> bool {
        match &self.measure {
            Measure::Ratio { den, .. } => den.sql() == self.samples.sql(),
            _ => false,
        }
    }

    pub(super) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        std::iter::once(&self.condition).chain(&self.and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::fixture::Gold;

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
}
