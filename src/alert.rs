//! Alert life: inactive, pending, firing, resolved. The pure evaluation of one rule.
//!
//! Stands behind gold: `watch` reads a closed window's minute rows, calls `evaluate` once per closed
//! minute in order, and commits the transitions to `ops.alert_events`, which is state and outbox in
//! one (DESIGN D9). States mean what they mean in Prometheus: a group that breaches is pending,
//! fires once it has breached in each evaluation for `for` of event time, and resolves at the first
//! evaluation at which it does not breach.
//!
//! A group has no say, and so does not breach, when it has fewer samples than `min_samples`, no
//! denominator, no baseline, or no row at all. Pending then becomes inactive and firing becomes
//! resolved, with the reason named: an alert is never kept alive by the absence of data, and never
//! ends without a word.
//!
//! Invariant: no clock, no randomness; the same input gives the same transitions, bit for bit, in
//! whatever order the rows come.
//! Invariant: state is the fold of transitions; nothing else is remembered.
//! Invariant: nothing fires on fewer samples than its rule demands.
//! Invariant: a window is evaluated for the `GROUPS_MAX` groups with the most samples, and no more.

pub mod baseline;
pub mod message;
pub mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use baseline::Found;
use rule::{Condition, Rule, Severity, Test};

pub(crate) const MINUTE_MS: i64 = 60_000;
pub(crate) const DAY_MS: i64 = 86_400_000;

/// Groups of one rule in one window. Each can become a transition, and so a row and a message: a
/// dimension that somebody floods with names must not make a million of them. Ten thousand are more
/// than anyone can be told of, and seldom are as many large enough to be believed.
const GROUPS_MAX: usize = 10_000;

/// Values of the dimensions in the order of the rule's `group_by`; `None` is unknown.
pub type Dims = Vec<Option<String>>;

/// One minute of one group, as `Rule::sql` returns it.
#[derive(Debug, Clone, PartialEq)]
pub struct MinuteRow {
    /// Start of the minute (`window_start`), epoch ms.
    pub minute_ms: i64,
    pub dims: Dims,
    pub num: f64,
    pub den: f64,
    pub samples: f64,
}

/// One slot of one day of one group, as `Rule::history_sql` returns it.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotRow {
    /// Days since 1970-01-01, UTC.
    pub day: i32,
    /// Number of the slot in its day, from 0.
    pub slot: i32,
    pub dims: Dims,
    pub num: f64,
    pub den: f64,
    pub samples: f64,
}

/// Names a group of a rule: the first 16 hex digits of SHA-256 over the uid and the dimensions in
/// order of name, each text as `<bytes>:<text>`, an unknown value as `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(String);

impl Fingerprint {
    pub fn of(uid: &str, dims: &[(String, Option<String>)]) -> Fingerprint {
        let mut sorted: Vec<_> = dims.iter().collect();
        sorted.sort();
        let mut text = length_prefixed(uid);
        for (name, value) in sorted {
            text.push_str(&length_prefixed(name));
            text.push_str(&value.as_deref().map_or("-".to_owned(), length_prefixed));
        }
        Fingerprint(hex(&Sha256::digest(text))[..16].to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn length_prefixed(text: &str) -> String {
    format!("{}:{text}", text.len())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a transition leads to. Firing and resolved are sent; the others are only recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Pending,
    Firing,
    Resolved,
    /// A pending alert that came to nothing.
    Inactive,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Firing => "firing",
            Status::Resolved => "resolved",
            Status::Inactive => "inactive",
        }
    }

    /// True when the target is told.
    pub fn is_sent(self) -> bool {
        matches!(self, Status::Firing | Status::Resolved)
    }

    fn is_open(self) -> bool {
        matches!(self, Status::Pending | Status::Firing)
    }
}

/// Why a transition happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The value crossed the threshold, this way or that.
    Threshold,
    /// The window holds no row of the group.
    MissingSeries,
    /// Fewer than the rule demands, or than `GROUPS_MAX` other groups have.
    TooFewSamples,
    /// The denominator is zero or a sum is no number.
    NoValue,
    /// Too little history, or too few peers.
    NoBaseline,
    /// The rule is gone, disabled, or groups by other dimensions.
    RuleChanged,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Threshold => "threshold",
            Reason::MissingSeries => "missing_series",
            Reason::TooFewSamples => "too_few_samples",
            Reason::NoValue => "no_value",
            Reason::NoBaseline => "no_baseline",
            Reason::RuleChanged => "rule_changed",
        }
    }
}

/// The baseline that a value was compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineReading {
    /// `same_slot` or `peers`.
    pub kind: String,
    pub value: f64,
    /// Days of history, or peers.
    pub samples: usize,
}

/// A table version that an evaluation read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableVersion {
    pub table: String,
    pub version: i64,
}

/// One step in the life of an alert: a row of `ops.alert_events`, and all that its message needs.
///
/// Numbers are rounded to nine digits after the decision has been made on the exact ones, so that
/// they survive any text form unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// First 32 hex digits of SHA-256 over `fingerprint|episode start|seq|status|rules hash`.
    pub event_id: String,
    pub fingerprint: Fingerprint,
    /// Grows by one with each transition of an episode; firing is 1, also where nothing was pending.
    pub seq: u32,
    pub status: Status,
    pub reason: Reason,
    pub rule_uid: String,
    pub alert: String,
    pub owner: Option<String>,
    pub runbook: Option<String>,
    pub severity: Severity,
    pub rules_hash: String,
    /// In the order of `group_by`.
    pub dims: Vec<(String, Option<String>)>,
    /// Rendered.
    pub labels: BTreeMap<String, String>,
    /// Rendered.
    pub annotations: BTreeMap<String, String>,
    /// None where the group has no value (its rows or its denominator are missing).
    pub value: Option<f64>,
    /// `ratio`, `ms`, ...; none where the column's name does not tell.
    pub unit: Option<String>,
    pub baseline: Option<BaselineReading>,
    /// value / baseline - 1; none without a baseline or where it is 0.
    pub ratio_to_baseline: Option<f64>,
    pub threshold: Condition,
    pub samples: f64,
    /// What a sample is, for people: `clients`.
    pub samples_of: String,
    /// True when a sample is what the denominator counts.
    pub is_share_of_samples: bool,
    pub window_start_ms: i64,
    pub window_end_ms: i64,
    /// When the episode began to breach: the end of its first breaching window.
    pub starts_at_ms: i64,
    pub ends_at_ms: Option<i64>,
    pub targets: Vec<String>,
    /// When the daemon evaluated; `stamp` sets it. Not part of the event's identity.
    pub evaluated_at_ms: Option<i64>,
    /// Versions of the tables read; `stamp` sets them.
    pub lineage: Vec<TableVersion>,
}

impl Transition {
    /// Adds what only the caller knows, before the transition is stored.
    pub fn stamp(&mut self, evaluated_at_ms: i64, lineage: Vec<TableVersion>) {
        self.evaluated_at_ms = Some(evaluated_at_ms);
        self.lineage = lineage;
    }

    /// Names the episode: from the first breach to the end.
    pub fn episode_id(&self) -> String {
        format!("{}@{}", self.fingerprint, message::time(self.starts_at_ms))
    }

    fn identified(mut self) -> Transition {
        let identity = format!(
            "{}|{}|{}|{}|{}",
            self.fingerprint,
            message::time(self.starts_at_ms),
            self.seq,
            self.status.as_str(),
            self.rules_hash,
        );
        self.event_id = hex(&Sha256::digest(identity))[..32].to_owned();
        self
    }
}

/// An open alert, pending or firing: the transition that led here. A group without a state is
/// inactive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AlertState {
    last: Transition,
}

impl AlertState {
    /// The transition that led to this state.
    pub fn last(&self) -> &Transition {
        &self.last
    }

    pub fn status(&self) -> Status {
        self.last.status
    }
}

/// The states after some events, in whatever order they are read back.
pub fn fold<'e>(events: impl IntoIterator<Item = &'e Transition>) -> BTreeMap<Fingerprint, AlertState> {
    let mut events: Vec<&Transition> = events.into_iter().collect();
    events.sort_by_key(|event| (event.window_end_ms, event.starts_at_ms, event.seq));
    let mut states = BTreeMap::new();
    for event in events {
        apply(&mut states, event);
    }
    states
}

fn apply(states: &mut BTreeMap<Fingerprint, AlertState>, event: &Transition) {
    if event.status.is_open() {
        let state = AlertState { last: event.clone() };
        states.insert(event.fingerprint.clone(), state);
    } else {
        states.remove(&event.fingerprint);
    }
}

/// Evaluates one rule for the window that ends at `window_end_ms`.
///
/// `rows` are the minutes of the window (others are passed over), `history` is what
/// `Rule::history_sql` gives for this window end. `previous` may hold the states of all rules:
/// those of other rules come back untouched. Returns what changed and the states after it.
///
/// Of more than `GROUPS_MAX` groups, those with the most samples are evaluated. The others are no
/// peers either, and their open alerts end for too few samples.
pub fn evaluate(
    rule: &Rule,
    window_end_ms: i64,
    rows: &[MinuteRow],
    history: &[SlotRow],
    previous: &BTreeMap<Fingerprint, AlertState>,
    rules_hash: &str,
) -> (Vec<Transition>, BTreeMap<Fingerprint, AlertState>) {
    let (groups, left_out) = largest(pooled(rule, window_end_ms, rows));
    let baselines = baseline::of(rule, window_end_ms, &groups, history);
    let mut transitions = Vec::new();
    let mut seen = BTreeSet::new();
    for (values, totals) in &groups {
        let dims = named(rule, values);
        let fingerprint = Fingerprint::of(&rule.uid, &dims);
        let reading = read(rule, *totals, baselines.get(values).copied());
        let step = next_step(rule, window_end_ms, &reading, previous.get(&fingerprint));
        seen.insert(fingerprint.clone());
        if let Some(step) = step {
            let event = transition(rule, window_end_ms, dims, &reading, step, rules_hash);
            transitions.push(event);
        }
    }
    let vanished = previous
        .iter()
        .filter(|(fingerprint, state)| state.last.rule_uid == rule.uid && !seen.contains(*fingerprint));
    for (_, state) in vanished {
        transitions.push(ended(rule, window_end_ms, state, &left_out, rules_hash));
    }
    let mut states = previous.clone();
    for event in &transitions {
        apply(&mut states, event);
    }
    (transitions, states)
}

/// Ends the alerts of rules that are no longer there, so that an edit never drops one silently.
pub fn close_removed(
    rules: &[Rule],
    window_end_ms: i64,
    previous: &BTreeMap<Fingerprint, AlertState>,
    rules_hash: &str,
) -> (Vec<Transition>, BTreeMap<Fingerprint, AlertState>) {
    let known: BTreeSet<&str> = rules.iter().map(|rule| rule.uid.as_str()).collect();
    let mut states = previous.clone();
    let mut transitions = Vec::new();
    for state in previous.values() {
        if known.contains(state.last.rule_uid.as_str()) {
            continue;
        }
        let event = rule_changed(window_end_ms, state, rules_hash);
        apply(&mut states, &event);
        transitions.push(event);
    }
    (transitions, states)
}

/// Sums of a group over a window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Totals {
    pub num: f64,
    pub den: f64,
    pub samples: f64,
}

impl Totals {
    /// Adds up in an order that does not depend on the order given.
    fn sum(mut parts: Vec<Totals>) -> Totals {
        parts.sort_by(|a, b| {
            a.num
                .total_cmp(&b.num)
                .then(a.den.total_cmp(&b.den))
                .then(a.samples.total_cmp(&b.samples))
        });
        parts.into_iter().fold(Totals::default(), Totals::plus)
    }

    fn plus(self, other: Totals) -> Totals {
        Totals {
            num: self.num + other.num,
            den: self.den + other.den,
            samples: self.samples + other.samples,
        }
    }

    /// num / den, unless there is nothing to divide by.
    fn value(self) -> Option<f64> {
        let is_defined = self.num.is_finite() && self.den.is_finite() && self.den > 0.0;
        is_defined.then(|| self.num / self.den).filter(|value| value.is_finite())
    }
}

fn pooled(rule: &Rule, window_end_ms: i64, rows: &[MinuteRow]) -> BTreeMap<Dims, Totals> {
    let window = window_end_ms.saturating_sub(rule.window_ms)..window_end_ms;
    let mut parts: BTreeMap<&Dims, Vec<Totals>> = BTreeMap::new();
    for row in rows {
        if window.contains(&row.minute_ms) && row.dims.len() == rule.group_by.len() {
            parts.entry(&row.dims).or_default().push(Totals {
                num: row.num,
                den: row.den,
                samples: row.samples,
            });
        }
    }
    parts.into_iter().map(|(dims, parts)| (dims.clone(), Totals::sum(parts))).collect()
}

/// The groups to evaluate, and those left out: the largest first, equal ones in order of their
/// dimensions. Samples that are no number count as none.
fn largest(groups: BTreeMap<Dims, Totals>) -> (BTreeMap<Dims, Totals>, BTreeMap<Dims, Totals>) {
    if groups.len() <= GROUPS_MAX {
        return (groups, BTreeMap::new());
    }
    let size = |totals: &Totals| if totals.samples.is_finite() { totals.samples } else { 0.0 };
    let mut ranked: Vec<(Dims, Totals)> = groups.into_iter().collect();
    // The sort is stable, so equal groups stay in the order of the map.
    ranked.sort_by(|(_, a), (_, b)| size(b).total_cmp(&size(a)));
    let left_out = ranked.split_off(GROUPS_MAX);
    (ranked.into_iter().collect(), left_out.into_iter().collect())
}

fn named(rule: &Rule, values: &Dims) -> Vec<(String, Option<String>)> {
    rule.group_by.iter().cloned().zip(values.iter().cloned()).collect()
}

/// What a rule sees of one group in one window.
struct Reading {
    totals: Totals,
    value: Option<f64>,
    baseline: Option<Found>,
    verdict: Verdict,
}

impl Reading {
    /// Of a group without rows.
    const MISSING: Reading = Reading {
        totals: Totals {
            num: 0.0,
            den: 0.0,
            samples: 0.0,
        },
        value: None,
        baseline: None,
        verdict: Verdict::Calm(Reason::MissingSeries),
    };

    /// Of a group with rows, beyond the bound of groups.
    fn left_out(totals: Totals) -> Reading {
        Reading {
            totals,
            value: totals.value(),
            baseline: None,
            verdict: Verdict::Calm(Reason::TooFewSamples),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Breach,
    Calm(Reason),
}

fn read(rule: &Rule, totals: Totals, baseline: Option<Found>) -> Reading {
    let value = totals.value();
    let verdict = match value {
        _ if !has_enough(rule, totals.samples) => Verdict::Calm(Reason::TooFewSamples),
        None => Verdict::Calm(Reason::NoValue),
        Some(_) if rule.baseline.is_some() && baseline.is_none() => Verdict::Calm(Reason::NoBaseline),
        Some(value) => {
            let is_breach = rule
                .conditions()
                .all(|condition| breaches(rule, condition, value, totals.samples, baseline));
            if is_breach {
                Verdict::Breach
            } else {
                Verdict::Calm(Reason::Threshold)
            }
        }
    };
    Reading {
        totals,
        value,
        baseline,
        verdict,
    }
}

/// False also for a sum that is no number.
fn has_enough(rule: &Rule, samples: f64) -> bool {
    samples.is_finite() && samples >= rule.min_samples
}

/// A breach must be cleared by the near end of the confidence interval, in every condition.
fn breaches(rule: &Rule, condition: &Condition, value: f64, samples: f64, baseline: Option<Found>) -> bool {
    let is_lower = !condition.op.is_below();
    let bound = baseline::bound(rule.confidence, value, samples, is_lower);
    let tested = match (condition.test, baseline) {
        (Test::Value, _) => bound,
        (Test::RatioToBaseline, Some(baseline)) => ratio_to(bound, baseline.value),
        (Test::DiffToBaseline, Some(baseline)) => bound - baseline.value,
        (_, None) => return false,
    };
    condition.op.holds(tested, condition.value)
}

/// value / baseline - 1. Above a baseline of 0 it is without limit, so that a fault that nobody else
/// has is seen; 0 against 0 is no number, and no breach. An `and` with an absolute floor keeps
/// trifles out.
fn ratio_to(value: f64, baseline: f64) -> f64 {
    if baseline < 0.0 {
        return f64::NAN;
    }
    value / baseline - 1.0
}

/// Where an alert goes from here.
struct Step {
    status: Status,
    reason: Reason,
    seq: u32,
    starts_at_ms: i64,
}

fn next_step(rule: &Rule, window_end_ms: i64, reading: &Reading, state: Option<&AlertState>) -> Option<Step> {
    let last = state.map(|state| &state.last);
    match (reading.verdict, last) {
        (Verdict::Breach, None) => {
            let is_firing = rule.hold_ms == 0;
            Some(Step {
                status: if is_firing { Status::Firing } else { Status::Pending },
                reason: Reason::Threshold,
                seq: u32::from(is_firing),
                starts_at_ms: window_end_ms,
            })
        }
        (Verdict::Breach, Some(last)) => {
            let held_ms = window_end_ms.saturating_sub(last.starts_at_ms);
            let fires = last.status == Status::Pending && held_ms >= rule.hold_ms;
            fires.then(|| Step {
                status: Status::Firing,
                reason: Reason::Threshold,
                seq: last.seq + 1,
                starts_at_ms: last.starts_at_ms,
            })
        }
        (Verdict::Calm(_), None) => None,
        (Verdict::Calm(reason), Some(last)) => Some(end_step(last, reason)),
    }
}

fn end_step(last: &Transition, reason: Reason) -> Step {
    Step {
        status: match last.status {
            Status::Pending => Status::Inactive,
            _ => Status::Resolved,
        },
        reason,
        seq: last.seq + 1,
        starts_at_ms: last.starts_at_ms,
    }
}

/// The end of an alert whose group was not evaluated: it has no rows, or too many groups are larger.
fn ended(rule: &Rule, window_end_ms: i64, state: &AlertState, left_out: &BTreeMap<Dims, Totals>, rules_hash: &str) -> Transition {
    let last = &state.last;
    let is_same_grouping = last.dims.iter().map(|(name, _)| name).eq(&rule.group_by);
    if !is_same_grouping {
        return rule_changed(window_end_ms, state, rules_hash);
    }
    let values: Dims = last.dims.iter().map(|(_, value)| value.clone()).collect();
    let (reading, reason) = match left_out.get(&values) {
        Some(totals) => (Reading::left_out(*totals), Reason::TooFewSamples),
        None => (Reading::MISSING, Reason::MissingSeries),
    };
    let step = end_step(last, reason);
    transition(rule, window_end_ms, last.dims.clone(), &reading, step, rules_hash)
}

/// The end of an alert whose rule can no longer be asked: its last words, with no value.
fn rule_changed(window_end_ms: i64, state: &AlertState, rules_hash: &str) -> Transition {
    let step = end_step(&state.last, Reason::RuleChanged);
    let last = state.last.clone();
    let window_ms = last.window_end_ms.saturating_sub(last.window_start_ms);
    Transition {
        seq: step.seq,
        status: step.status,
        reason: step.reason,
        rules_hash: rules_hash.to_owned(),
        value: None,
        baseline: None,
        ratio_to_baseline: None,
        samples: 0.0,
        window_start_ms: window_end_ms.saturating_sub(window_ms),
        window_end_ms,
        ends_at_ms: Some(window_end_ms),
        evaluated_at_ms: None,
        lineage: Vec::new(),
        ..last
    }
    .identified()
}

fn transition(
    rule: &Rule,
    window_end_ms: i64,
    dims: Vec<(String, Option<String>)>,
    reading: &Reading,
    step: Step,
    rules_hash: &str,
) -> Transition {
    let bare = bare_transition(rule, window_end_ms, dims, reading, step, rules_hash);
    message::rendered(bare, rule).identified()
}

/// A firing with a value and a resolve without one: what templates are tried on.
pub(crate) fn examples(rule: &Rule) -> [Transition; 2] {
    let dims: Vec<_> = rule
        .group_by
        .iter()
        .map(|name| (name.clone(), Some("example".to_owned())))
        .collect();
    let baseline = Found { value: 0.25, points: 3 };
    let breach = Reading {
        totals: Totals {
            num: 500.0,
            den: 1_000.0,
            samples: 1_000.0,
        },
        value: Some(0.5),
        baseline: rule.baseline.as_ref().map(|_| baseline),
        verdict: Verdict::Breach,
    };
    let step = |status, reason| Step {
        status,
        reason,
        seq: 1,
        starts_at_ms: 0,
    };
    let firing = step(Status::Firing, Reason::Threshold);
    let resolved = step(Status::Resolved, Reason::MissingSeries);
    [
        bare_transition(rule, 0, dims.clone(), &breach, firing, ""),
        bare_transition(rule, 0, dims, &Reading::MISSING, resolved, ""),
    ]
}

fn bare_transition(
    rule: &Rule,
    window_end_ms: i64,
    dims: Vec<(String, Option<String>)>,
    reading: &Reading,
    step: Step,
    rules_hash: &str,
) -> Transition {
    let ratio = reading
        .value
        .zip(reading.baseline)
        .map(|(value, baseline)| ratio_to(value, baseline.value));
    let kind = rule.baseline.as_ref().map_or("", |baseline| baseline.kind());
    Transition {
        event_id: String::new(),
        fingerprint: Fingerprint::of(&rule.uid, &dims),
        seq: step.seq,
        status: step.status,
        reason: step.reason,
        rule_uid: rule.uid.clone(),
        alert: rule.alert.clone(),
        owner: rule.owner.clone(),
        runbook: rule.runbook.clone(),
        severity: rule.severity,
        rules_hash: rules_hash.to_owned(),
        dims,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        value: reading.value.map(rounded),
        unit: rule.unit().map(str::to_owned),
        baseline: reading.baseline.map(|baseline| BaselineReading {
            kind: kind.to_owned(),
            value: rounded(baseline.value),
            samples: baseline.points,
        }),
        ratio_to_baseline: ratio.filter(|ratio| ratio.is_finite()).map(rounded),
        threshold: rule.condition,
        samples: rounded(reading.totals.samples),
        samples_of: rule.samples_of(),
        is_share_of_samples: rule.measure.is_ratio() && rule.measure.parts().1 == rule.samples,
        window_start_ms: window_end_ms.saturating_sub(rule.window_ms),
        window_end_ms,
        starts_at_ms: step.starts_at_ms,
        ends_at_ms: (!step.status.is_open()).then_some(window_end_ms),
        targets: rule.targets.clone(),
        evaluated_at_ms: None,
        lineage: Vec::new(),
    }
}

/// Nine digits: more than anyone reads, few enough to come back from JSON bit for bit. What is no
/// number is 0.
fn rounded(value: f64) -> f64 {
    if !value.is_finite() {
        return 0.0;
    }
    format!("{value:.8e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::rule::{Catalogue, parse_rules};
    use super::*;

    /// The gold tables that the seed alerts read.
    pub(super) struct Gold;

    impl Catalogue for Gold {
        fn columns(&self, table: &str) -> Option<Vec<String>> {
            let columns = match table {
                "gold.cdn_1m" => {
                    "window_start window_end cdn pop isp country requests ok_requests ttfb_ms_sum \
                     ttfb_count"
                }
                "gold.errors_1m" => {
                    "window_start window_end app_name app_version device_type clients \
                     clients_with_errors"
                }
                "gold.playback_1m" => "window_start window_end isp country cdn stall_ms playing_ms active_sessions",
                _ => return None,
            };
            Some(columns.split_whitespace().map(str::to_owned).collect())
        }

        fn tables(&self) -> Vec<String> {
            ["gold.cdn_1m", "gold.errors_1m", "gold.playback_1m"].map(str::to_owned).to_vec()
        }
    }

    pub(super) fn seed_files() -> Vec<(String, String)> {
        [
            ("cdn_latency", include_str!("../alerts/cdn_latency.yaml")),
            ("isp_rebuffering", include_str!("../alerts/isp_rebuffering.yaml")),
            ("playback_errors", include_str!("../alerts/playback_errors.yaml")),
        ]
        .map(|(name, text)| (format!("alerts/{name}.yaml"), text.to_owned()))
        .to_vec()
    }

    fn the_rule(files: &[(String, String)], uid: &str) -> Rule {
        let set = parse_rules(files, &Gold, &|_| None).unwrap();
        set.rules.into_iter().find(|rule| rule.uid == uid).unwrap()
    }

    pub(super) fn seed_rule(uid: &str) -> Rule {
        the_rule(&seed_files(), uid)
    }

    /// Error share by device over one minute, 100 clients at least, no bound; `edits` change the text.
    fn plain_rule(edits: &[(&str, &str)]) -> Rule {
        let mut text = r#"
version: 1
targets: {console: {stdout: {}}}
groups:
  - name: core
    rules:
      - alert: Errors
        uid: errors
        from: gold.errors_1m
        value: {ratio: {num: clients_with_errors, den: clients}}
        group_by: [device_type]
        window: 1m
        min_samples: 100
        confidence: {method: none}
        condition: {test: value, op: ">", threshold: 5%}
        for: 2m
        notify: {targets: [console]}
"#
        .to_owned();
        for (old, new) in edits {
            assert!(text.contains(old), "{old}");
            text = text.replace(old, new);
        }
        the_rule(&[("a".to_owned(), text)], "errors")
    }

    pub(super) const HASH: &str = "sha256:00";
    /// 2026-11-01T20:10:00Z.
    pub(super) const T0: i64 = 1_793_563_800_000;

    pub(super) type States = BTreeMap<Fingerprint, AlertState>;

    pub(super) fn row(end_ms: i64, dims: &[&str], num: f64, den: f64) -> MinuteRow {
        MinuteRow {
            minute_ms: end_ms - MINUTE_MS,
            dims: dims.iter().map(|dim| Some((*dim).to_owned())).collect(),
            num,
            den,
            samples: den,
        }
    }

    /// Evaluates minute after minute; each step is the (num, den) of device `tv`, or no row.
    /// The walk names each minute's transition: status, reason, seq; `-` for none.
    fn walk(rule: &Rule, minutes: &[Option<(f64, f64)>]) -> Vec<String> {
        let mut states = States::new();
        let mut all = Vec::new();
        let mut steps = Vec::new();
        for (index, minute) in minutes.iter().enumerate() {
            let end_ms = T0 + (index as i64 + 1) * MINUTE_MS;
            let rows: Vec<MinuteRow> = minute.map(|(num, den)| row(end_ms, &["tv"], num, den)).into_iter().collect();
            let (events, after) = evaluate(rule, end_ms, &rows, &[], &states, HASH);
            states = after;
            all.extend(events.iter().cloned());
            assert_eq!(fold(all.iter().rev()), states, "state is the fold of events");
            steps.push(match events.as_slice() {
                [] => "-".to_owned(),
                [event] => format!("{} {} {}", event.status.as_str(), event.reason.as_str(), event.seq),
                many => panic!("{many:?}"),
            });
        }
        steps
    }

    const BAD: Option<(f64, f64)> = Some((60.0, 1_000.0));
    const GOOD: Option<(f64, f64)> = Some((10.0, 1_000.0));
    const THIN: Option<(f64, f64)> = Some((60.0, 99.0));
    const EMPTY: Option<(f64, f64)> = Some((0.0, 0.0));
    const GONE: Option<(f64, f64)> = None;

    #[track_caller]
    fn check(rule: &Rule, minutes: &[Option<(f64, f64)>], expected: &[&str]) {
        assert_eq!(walk(rule, minutes), expected);
    }

    const PENDING: &str = "pending threshold 0";
    const FIRING: &str = "firing threshold 1";
    const RESOLVED: &str = "resolved threshold 2";
    const NOTHING: &str = "-";

    #[test]
    fn it_fires_after_for_and_resolves_once() {
        check(
            &plain_rule(&[]),
            &[GOOD, BAD, BAD, BAD, BAD, GOOD, GOOD],
            &[NOTHING, PENDING, NOTHING, FIRING, NOTHING, RESOLVED, NOTHING],
        );
    }

    #[test]
    fn one_good_minute_starts_the_wait_again() {
        check(
            &plain_rule(&[]),
            &[BAD, BAD, GOOD, BAD, BAD, BAD],
            &[PENDING, NOTHING, "inactive threshold 1", PENDING, NOTHING, FIRING],
        );
    }

    #[test]
    fn without_for_it_fires_at_once() {
        check(
            &plain_rule(&[("        for: 2m\n", "")]),
            &[BAD, BAD, GOOD, BAD],
            &[FIRING, NOTHING, RESOLVED, FIRING],
        );
    }

    #[test]
    fn a_vanished_group_ends_its_alert_with_the_reason() {
        check(
            &plain_rule(&[]),
            &[BAD, GONE, BAD, BAD, BAD, GONE, GONE],
            &[
                PENDING,
                "inactive missing_series 1",
                PENDING,
                NOTHING,
                FIRING,
                "resolved missing_series 2",
                NOTHING,
            ],
        );
    }

    #[test]
    fn too_few_samples_are_no_opinion() {
        check(
            &plain_rule(&[]),
            &[THIN, BAD, THIN, BAD, BAD, BAD, THIN],
            &[
                NOTHING,
                PENDING,
                "inactive too_few_samples 1",
                PENDING,
                NOTHING,
                FIRING,
                "resolved too_few_samples 2",
            ],
        );
    }

    #[test]
    fn nothing_to_divide_by_is_no_opinion() {
        let rule = plain_rule(&[
            ("den: clients}", "den: clients}}\n        samples: {x"),
            ("samples: {x}", "samples: clients"),
        ]);
        let mut empty = row(T0 + MINUTE_MS, &["tv"], 1.0, 0.0);
        empty.samples = 500.0;
        let (events, _) = evaluate(&rule, T0 + MINUTE_MS, &[empty], &[], &States::new(), HASH);
        assert_eq!(events, []);
        check(&rule, &[BAD, EMPTY], &[PENDING, "inactive too_few_samples 1"]);
    }

    #[test]
    fn the_threshold_itself_is_no_breach_of_above() {
        let at = Some((50.0, 1_000.0));
        let rule = plain_rule(&[("        for: 2m\n", "")]);
        check(&rule, &[at], &[NOTHING]);
        let rule = plain_rule(&[("        for: 2m\n", ""), ("\">\"", "\">=\"")]);
        check(&rule, &[at], &[FIRING]);
    }

    #[test]
    fn small_values_may_be_the_bad_ones() {
        let rule = plain_rule(&[("        for: 2m\n", ""), ("\">\"", "\"<\"")]);
        check(&rule, &[BAD, GOOD, BAD], &[NOTHING, FIRING, RESOLVED]);
    }

    #[test]
    fn the_bound_must_clear_the_threshold() {
        let wilson = [("        for: 2m\n", ""), ("{method: none}", "{method: wilson, z: 3}")];
        let rule = plain_rule(&wilson);
        let six_percent = |n: f64| Some((0.06 * n, n));
        check(
            &rule,
            &[six_percent(100.0), six_percent(1_000.0), six_percent(10_000.0)],
            &[NOTHING, NOTHING, FIRING],
        );
    }

    #[test]
    fn a_window_pools_its_minutes_and_no_others() {
        let rule = plain_rule(&[("        for: 2m\n", ""), ("window: 1m", "window: 5m")]);
        let end_ms = T0 + 5 * MINUTE_MS;
        let minute = |back: i64, num: f64| row(end_ms - back * MINUTE_MS, &["tv"], num, 1_000.0);
        let fires = |rows: &[MinuteRow]| {
            let (events, _) = evaluate(&rule, end_ms, rows, &[], &States::new(), HASH);
            events.first().map(|event| (event.value, event.samples))
        };
        let inside = [minute(0, 0.0), minute(4, 110.0)];
        assert_eq!(fires(&inside), Some((Some(0.055), 2_000.0)));
        let outside = [minute(0, 0.0), minute(5, 999.0), minute(-1, 999.0)];
        assert_eq!(fires(&outside), None);
    }

    /// One group more than the bound: all of 200 samples but these. Exactly one is left out.
    #[track_caller]
    fn check_left_out(others: &[(&str, f64)], expected: &str) {
        let group = |name: &str, samples: f64| {
            (
                vec![Some(name.to_owned())],
                Totals {
                    num: 0.0,
                    den: samples,
                    samples,
                },
            )
        };
        let crowd = (others.len()..=GROUPS_MAX).map(|n| group(&format!("crowd-{n:05}"), 200.0));
        let groups = crowd.chain(others.iter().map(|(name, samples)| group(name, *samples))).collect();
        let (kept, left_out) = largest(groups);
        assert_eq!(kept.len(), GROUPS_MAX);
        let names: Vec<_> = left_out.into_keys().flatten().flatten().collect();
        assert_eq!(names, [expected]);
    }

    #[test]
    fn of_too_many_groups_the_largest_are_evaluated() {
        check_left_out(&[("a", 199.0)], "a");
        check_left_out(&[("a", 201.0)], "crowd-10000");
        check_left_out(&[("a", 200.0), ("z", 200.0)], "z");
        check_left_out(&[("a", 1.0), ("z", 2.0)], "a");
        check_left_out(&[("a", f64::NAN), ("z", 1.0)], "a");
        check_left_out(&[("a", f64::INFINITY), ("z", 1.0)], "a");
    }

    #[test]
    fn an_alert_of_a_group_beyond_the_bound_ends_with_its_value() {
        let rule = plain_rule(&[("        for: 2m\n", "")]);
        let tv = |end_ms: i64| row(end_ms, &["tv"], 60.0, 150.0);
        let (_, states) = evaluate(&rule, T0, &[tv(T0)], &[], &States::new(), HASH);
        let later = T0 + MINUTE_MS;
        let crowd = (0..GROUPS_MAX).map(|n| row(later, &[&format!("crowd-{n}")], 0.0, 200.0));
        let rows: Vec<MinuteRow> = crowd.chain([tv(later)]).collect();
        let (events, _) = evaluate(&rule, later, &rows, &[], &states, HASH);
        let told: Vec<_> = events.iter().map(|e| (e.status, e.reason, e.value)).collect();
        assert_eq!(told, [(Status::Resolved, Reason::TooFewSamples, Some(0.4))]);
        let (events, _) = evaluate(&rule, later, &rows[1..], &[], &states, HASH);
        assert_eq!(events, [], "at the bound all groups are evaluated");
    }

    #[test]
    fn an_edit_of_group_by_closes_what_was_open() {
        let before = plain_rule(&[("        for: 2m\n", "")]);
        let end_ms = T0 + MINUTE_MS;
        let rows = [row(end_ms, &["tv"], 60.0, 1_000.0)];
        let (_, states) = evaluate(&before, end_ms, &rows, &[], &States::new(), HASH);
        let after = plain_rule(&[("[device_type]", "[app_name]")]);
        let (events, states) = evaluate(&after, end_ms + MINUTE_MS, &[], &[], &states, "sha256:11");
        let told: Vec<_> = events.iter().map(|e| (e.status, e.reason, e.seq)).collect();
        assert_eq!(told, [(Status::Resolved, Reason::RuleChanged, 2)]);
        assert_eq!(events[0].dims, [("device_type".to_owned(), Some("tv".to_owned()))]);
        assert_eq!(states, States::new());
    }

    #[test]
    fn an_edit_that_keeps_uid_and_group_by_keeps_the_alert() {
        let before = plain_rule(&[("        for: 2m\n", "")]);
        let end_ms = T0 + MINUTE_MS;
        let rows = [row(end_ms, &["tv"], 60.0, 1_000.0)];
        let (_, states) = evaluate(&before, end_ms, &rows, &[], &States::new(), HASH);
        let after = plain_rule(&[("alert: Errors", "alert: Renamed")]);
        let rows = [row(end_ms + MINUTE_MS, &["tv"], 60.0, 1_000.0)];
        let (events, kept) = evaluate(&after, end_ms + MINUTE_MS, &rows, &[], &states, "sha256:11");
        assert_eq!(events, []);
        assert_eq!(kept, states);
    }

    #[test]
    fn a_removed_rule_closes_its_alerts_and_leaves_the_others() {
        let rule = plain_rule(&[("        for: 2m\n", "")]);
        let other = seed_rule("playback-error-share");
        let end_ms = T0 + MINUTE_MS;
        let rows = [row(end_ms, &["tv"], 60.0, 1_000.0)];
        let (_, states) = evaluate(&rule, end_ms, &rows, &[], &States::new(), HASH);
        let rows = [row(end_ms, &["tv", "main"], 600.0, 1_000.0)];
        let (_, states) = evaluate(&other, end_ms, &rows, &[], &states, HASH);
        assert_eq!(states.len(), 2, "states of other rules come back untouched");
        let (events, left) = close_removed(&[other], end_ms + MINUTE_MS, &states, HASH);
        let told: Vec<_> = events.iter().map(|e| (e.rule_uid.as_str(), e.status, e.reason)).collect();
        assert_eq!(told, [("errors", Status::Resolved, Reason::RuleChanged)]);
        let uids: Vec<_> = left.values().map(|state| state.last().rule_uid.as_str()).collect();
        assert_eq!(uids, ["playback-error-share"]);
    }

    #[test]
    fn the_isp_alert_compares_with_the_other_isps_of_the_country() {
        let rule = seed_rule("isp-rebuffering-peers");
        let share = |isp: &str, country: &str, stall_ms: f64| MinuteRow {
            samples: 2_000.0,
            ..row(T0, &[isp, country], stall_ms, 100_000.0)
        };
        let rows = [
            share("a", "ES", 4_000.0),
            share("b", "ES", 1_000.0),
            share("c", "ES", 1_100.0),
            share("d", "ES", 900.0),
            share("a", "FR", 9_000.0),
            share("b", "FR", 9_000.0),
        ];
        let (events, states) = evaluate(&rule, T0, &rows, &[], &States::new(), HASH);
        assert_eq!(events.len(), 1, "France has too few peers, and all suffer alike");
        let event = &events[0];
        assert_eq!(event.status, Status::Pending);
        assert_eq!(event.value, Some(0.04));
        let baseline = event.baseline.clone().unwrap();
        assert_eq!((baseline.value, baseline.samples), (0.01, 3));
        assert_eq!(event.ratio_to_baseline, Some(3.0));
        let later = T0 + 15 * MINUTE_MS;
        let rows: Vec<MinuteRow> = rows
            .into_iter()
            .map(|row| MinuteRow {
                minute_ms: later - MINUTE_MS,
                ..row
            })
            .collect();
        let (events, _) = evaluate(&rule, later, &rows, &[], &states, HASH);
        assert_eq!(events[0].status, Status::Firing);
        let (events, _) = evaluate(&rule, later, &rows[..3], &[], &states, HASH);
        assert_eq!(events[0].reason, Reason::NoBaseline);
    }

    #[test]
    fn a_fault_that_no_peer_has_is_seen() {
        let rule = seed_rule("isp-rebuffering-peers");
        let rows: Vec<MinuteRow> = [("a", 5_000.0), ("b", 0.0), ("c", 0.0), ("d", 0.0)]
            .iter()
            .map(|(isp, stall_ms)| MinuteRow {
                samples: 2_000.0,
                ..row(T0, &[isp, "ES"], *stall_ms, 100_000.0)
            })
            .collect();
        let (events, _) = evaluate(&rule, T0, &rows, &[], &States::new(), HASH);
        assert_eq!(events.len(), 1, "0 against 0 is no breach");
        assert_eq!(events[0].ratio_to_baseline, None);
        assert_eq!(events[0].dims[0].1.as_deref(), Some("a"));
    }

    #[test]
    fn the_cdn_alert_compares_with_the_same_hour_of_earlier_days() {
        let rule = seed_rule("cdn-latency-baseline");
        let today = i32::try_from(T0 / DAY_MS).unwrap();
        let day = |back: i32, slot: i32, mean: f64| SlotRow {
            day: today - back,
            slot,
            dims: vec![Some("b".to_owned()), Some("ES".to_owned())],
            num: mean * 1_000.0,
            den: 1_000.0,
            samples: 1_000.0,
        };
        let mut history = vec![
            day(1, 20, 150.0),
            day(2, 20, 160.0),
            day(7, 20, 170.0),
            day(8, 20, 9_999.0),
            day(0, 20, 9_999.0),
            day(1, 21, 9_999.0),
        ];
        let rows = |mean: f64| [row(T0, &["b", "ES"], mean * 6_000.0, 6_000.0)];
        let run = |mean: f64, history: &[SlotRow]| evaluate(&rule, T0, &rows(mean), history, &States::new(), HASH).0;
        let events = run(200.0, &history);
        let baseline = events[0].baseline.clone().unwrap();
        assert_eq!((baseline.value, baseline.samples), (160.0, 3));
        assert_eq!(events[0].ratio_to_baseline, Some(0.25));
        assert_eq!(run(175.0, &history), [], "less than 10 % and 20 ms");
        assert_eq!(run(179.0, &history), [], "more than 10 %, less than 20 ms");
        history.remove(0);
        assert_eq!(run(200.0, &history), [], "two days are too little history");
    }

    #[test]
    fn a_fingerprint_tells_all_dimensions_apart() {
        let of = |uid: &str, dims: &[(&str, Option<&str>)]| {
            let owned: Vec<_> = dims
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
                .collect();
            Fingerprint::of(uid, &owned).to_string()
        };
        let tv = of("u", &[("a", Some("tv")), ("b", None)]);
        assert_eq!(tv, of("u", &[("b", None), ("a", Some("tv"))]));
        let digest = hex(&Sha256::digest("1:u1:a2:tv1:b-"));
        assert_eq!(tv, digest[..16]);
        let others = [
            of("u", &[("a", Some("tv")), ("b", Some("-"))]),
            of("u", &[("a", Some("tv1:b-"))]),
            of("u", &[("a", Some("tv"))]),
            of("v", &[("a", Some("tv")), ("b", None)]),
        ];
        let all: BTreeSet<&String> = others.iter().chain([&tv]).collect();
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn an_event_id_is_the_hash_of_its_five_parts() {
        let rule = plain_rule(&[("        for: 2m\n", "")]);
        let rows = [row(T0, &["tv"], 60.0, 1_000.0)];
        let (events, _) = evaluate(&rule, T0, &rows, &[], &States::new(), HASH);
        let identity = format!("{}|2026-11-01T20:10:00Z|1|firing|{HASH}", events[0].fingerprint);
        assert_eq!(events[0].event_id, hex(&Sha256::digest(identity))[..32]);
    }

    #[test]
    fn states_survive_json_bit_for_bit() {
        let rule = plain_rule(&[]);
        let rows = [row(T0, &["tv"], 61.0, 997.0)];
        let (_, states) = evaluate(&rule, T0, &rows, &[], &States::new(), HASH);
        let text = serde_json::to_string(&states).unwrap();
        assert_eq!(serde_json::from_str::<States>(&text).unwrap(), states);
    }

    mod properties {
        use proptest::prelude::*;

        use super::*;

        fn number() -> impl Strategy<Value = f64> {
            prop_oneof![
                4 => (0u32..3_000).prop_map(f64::from),
                1 => any::<f64>(),
                1 => Just(0.1),
            ]
        }

        fn dims() -> impl Strategy<Value = Dims> {
            let value = prop_oneof![Just(None), "[ab]".prop_map(Some), "\\PC{0,3}".prop_map(Some)];
            prop::collection::vec(value, 1..4)
        }

        fn minute_row() -> impl Strategy<Value = MinuteRow> {
            let at = prop_oneof![4 => (0i64..20).prop_map(|m| T0 - m * MINUTE_MS), 1 => any::<i64>()];
            (at, dims(), number(), number(), number()).prop_map(|(minute_ms, dims, num, den, samples)| MinuteRow {
                minute_ms,
                dims,
                num,
                den,
                samples,
            })
        }

        fn slot_row() -> impl Strategy<Value = SlotRow> {
            let today = i32::try_from(T0 / DAY_MS).unwrap();
            let day = prop_oneof![4 => today - 8..today, 1 => any::<i32>()];
            (day, 18i32..22, dims(), number(), number()).prop_map(|(day, slot, dims, num, den)| SlotRow {
                day,
                slot,
                dims,
                num,
                den,
                samples: den,
            })
        }

        fn seeds() -> Vec<Rule> {
            let set = parse_rules(&seed_files(), &Gold, &|_| None).unwrap();
            let plain = plain_rule(&[("        for: 2m\n", "")]);
            set.rules.into_iter().chain([plain]).collect()
        }

        proptest! {
            #[test]
            fn nothing_fires_on_too_little_and_order_changes_nothing(
                rows in prop::collection::vec(minute_row(), 0..40),
                history in prop::collection::vec(slot_row(), 0..40),
                end_ms in prop_oneof![4 => Just(T0), 1 => any::<i64>()],
            ) {
                for rule in seeds() {
                    let (first, states) =
                        evaluate(&rule, end_ms, &rows, &history, &States::new(), HASH);
                    let mut turned = rows.clone();
                    turned.reverse();
                    let mut past = history.clone();
                    past.reverse();
                    let (again, _) = evaluate(&rule, end_ms, &turned, &past, &States::new(), HASH);
                    prop_assert_eq!(format!("{first:?}"), format!("{again:?}"));
                    let later = end_ms.saturating_add(15 * MINUTE_MS);
                    let (second, _) = evaluate(&rule, later, &rows, &history, &states, HASH);
                    for event in first.iter().chain(&second) {
                        if matches!(event.status, Status::Firing | Status::Pending) {
                            prop_assert!(event.samples >= rule.min_samples, "{event:?}");
                        }
                        let producer = message::Producer { env: "test", version: "0" };
                        let json = message::json(event, producer);
                        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
                        prop_assert!(message::subject(event).len() < 100);
                        prop_assert!(!message::human(event).contains(char::is_control));
                    }
                }
            }
        }
    }
}
