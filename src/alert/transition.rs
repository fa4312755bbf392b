//! One step in the life of an alert, as it is stored and sent.
//!
//! Stands behind `evaluate` and `route`, which make transitions; `state` folds them, `message` words
//! them.
//!
//! Invariant: a stored transition of an earlier release reads back with the meaning that it had: a
//! new field has a default, and no word changes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rule::{Condition, Severity};
use super::{hex, message};

/// The dimension of alerts about a rule itself: no data, a failed query, many alerts as one. No
/// column may be grouped by under this name.
pub const RULE_STATE: &str = "rule_state";

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

/// What a transition leads to. Firing and resolved are sent unless held back; the others are only
/// recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Pending,
    Firing,
    /// Firing still, but it has stopped breaching: waits for `clear`, `keep_firing_for` or `no_data`.
    Recovering,
    Resolved,
    /// A pending alert that came to nothing.
    Inactive,
    /// A window changed after it was judged, and the judgement with it. Changes no state.
    Amended,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Firing => "firing",
            Status::Recovering => "recovering",
            Status::Resolved => "resolved",
            Status::Inactive => "inactive",
            Status::Amended => "amended",
        }
    }

    /// True when the target is told, unless the transition is held back: ask `Transition::is_sent`.
    pub fn is_sent(self) -> bool {
        matches!(self, Status::Firing | Status::Resolved | Status::Amended)
    }

    /// True while an alert has a state.
    pub fn is_open(self) -> bool {
        matches!(self, Status::Pending | Status::Firing | Status::Recovering)
    }

    /// True where Prometheus would say `firing`.
    pub fn is_firing(self) -> bool {
        matches!(self, Status::Firing | Status::Recovering)
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
    /// Fewer are hit than `min_impacted` demands.
    TooFewImpacted,
    /// The denominator is zero or a sum is no number.
    NoValue,
    /// Too little history, or too few peers.
    NoBaseline,
    /// The rule is gone, disabled, or groups by other dimensions.
    RuleChanged,
    /// The window holds no row of any group, and the rule says `no_data: {state: alert}`.
    NoData,
    /// Rows, or answers, have come back.
    DataReturned,
    /// The rule's query failed.
    EvalError,
    /// A firing alert climbed its ladder of severities.
    SeverityRaised,
    /// It is firing still, and what held its message back is over.
    HoldEnded,
    /// It is firing still, after `repeat_interval`.
    Repeat,
    /// More alerts of the rule than are told one by one.
    ManyAlerts,
    /// Twice as many since the last message.
    ManyMoreAlerts,
    /// All alerts that were told as one have ended.
    AllEnded,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Threshold => "threshold",
            Reason::MissingSeries => "missing_series",
            Reason::TooFewSamples => "too_few_samples",
            Reason::TooFewImpacted => "too_few_impacted",
            Reason::NoValue => "no_value",
            Reason::NoBaseline => "no_baseline",
            Reason::RuleChanged => "rule_changed",
            Reason::NoData => "no_data",
            Reason::DataReturned => "data_returned",
            Reason::EvalError => "eval_error",
            Reason::SeverityRaised => "severity_raised",
            Reason::HoldEnded => "hold_ended",
            Reason::Repeat => "repeat",
            Reason::ManyAlerts => "many_alerts",
            Reason::ManyMoreAlerts => "many_more_alerts",
            Reason::AllEnded => "all_ended",
        }
    }
}

/// Why a transition that would be sent is only recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Held {
    Silenced {
        /// The silence's id.
        id: String,
        author: String,
    },
    Inhibited {
        /// The alert that explains this one.
        by: Fingerprint,
        alert: String,
    },
    /// One message tells of this and others: the alert with this fingerprint.
    ToldTogether { by: Fingerprint },
    /// Outside the hours of the rule's `active` calendar.
    OutsideHours { calendar: String },
    /// It went from firing to recovering and back: the target knows that it fires.
    AlreadyTold,
    /// Its firing was never sent, so neither is its end.
    NeverTold,
    /// The rule says `send_resolved: false`.
    ResolvedNotWanted,
}

impl Held {
    /// For tables and counters.
    pub fn as_str(&self) -> &'static str {
        match self {
            Held::Silenced { .. } => "silenced",
            Held::Inhibited { .. } => "inhibited",
            Held::ToldTogether { .. } => "told_together",
            Held::OutsideHours { .. } => "outside_hours",
            Held::AlreadyTold => "already_told",
            Held::NeverTold => "never_told",
            Held::ResolvedNotWanted => "resolved_not_wanted",
        }
    }
}

/// The baseline that a value was compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineReading {
    /// `same_slot`, `same_slot_weekly`, `trailing`, `ewma`, `peers` or `fixed`.
    pub kind: String,
    pub value: f64,
    /// Days or slots of history, or peers.
    pub samples: usize,
    /// Standard deviation, or 1.4826 times the median absolute deviation, in the unit of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
}

/// A table version that an evaluation read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableVersion {
    pub table: String,
    pub version: i64,
}

/// One of the alerts that are told together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub fingerprint: Fingerprint,
    pub dims: Vec<(String, Option<String>)>,
    pub severity: Severity,
    pub value: Option<f64>,
    pub samples: f64,
}

/// What a machine may do about the alert, with the templates of its parameters rendered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Remediation {
    pub playbook: String,
    pub params: BTreeMap<String, String>,
    /// Limits that the consumer must keep, as written in the rule.
    #[serde(rename = "static")]
    pub limits: BTreeMap<String, serde_json::Value>,
    /// Not to be acted upon later than this after its evaluation.
    pub valid_for_ms: i64,
    pub dry_run: bool,
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
    /// In the order of `group_by`; of an alert about the rule itself, `rule_state` comes first.
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
    /// Why it is recorded and not sent; none for what is sent, and for what never would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// How many are hit, where the rule counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impacted: Option<f64>,
    /// Rendered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<Remediation>,
    /// Of many alerts told as one: the worst, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// Of many alerts told as one: how many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_count: Option<u64>,
    /// What explains it, where it was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causes: Option<message::Causes>,
    /// How far event time had come; the daemon sets it with `stamp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark_ms: Option<i64>,
    /// Its window was open still: the value is that of the rows so far.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_early: bool,
}

/// What is not said is false: a stored transition of most rules is as it was before there was the word.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(value: &bool) -> bool {
    !value
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

    /// True when its message goes to the targets.
    pub fn is_sent(&self) -> bool {
        self.status.is_sent() && self.held.is_none()
    }

    /// What an alert about the rule itself is about: `no_data`, `eval_error`, `many`; none for a
    /// group's alert.
    pub fn rule_state(&self) -> Option<&str> {
        let (name, value) = self.dims.first()?;
        (name == RULE_STATE).then_some(value.as_deref()).flatten()
    }

    pub(super) fn identified(mut self) -> Transition {
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

/// Nine digits: more than anyone reads, few enough to come back from JSON bit for bit. What is no
/// number is 0.
pub(super) fn rounded(value: f64) -> f64 {
    if !value.is_finite() {
        return 0.0;
    }
    format!("{value:.8e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::fixture::{HASH, T0, plain_rule, row, step};
    use super::super::state::States;
    use super::*;

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
        let (events, _) = step(&rule, T0, &rows, &[], &States::default());
        let identity = format!("{}|2026-11-01T20:10:00Z|1|firing|{HASH}", events[0].fingerprint);
        assert_eq!(events[0].event_id, hex(&Sha256::digest(identity))[..32]);
    }

    /// As the release before this one wrote it.
    const STORED: &str = r#"{"event_id":"e","fingerprint":"f","seq":1,"status":"firing","reason":"threshold","rule_uid":"u","alert":"A",
        "owner":null,"runbook":null,"severity":"critical","rules_hash":"h","dims":[["a","tv"]],"labels":{},"annotations":{},"value":0.5,
        "unit":"ratio","baseline":{"kind":"peers","value":0.1,"samples":3},"ratio_to_baseline":4.0,
        "threshold":{"test":"value","op":">","value":0.05},"samples":10.0,"samples_of":"clients","is_share_of_samples":true,
        "window_start_ms":0,"window_end_ms":60000,"starts_at_ms":60000,"ends_at_ms":null,"targets":["console"],"evaluated_at_ms":null,
        "lineage":[]}"#;

    #[test]
    fn what_an_earlier_release_stored_means_what_it_meant() {
        let event: Transition = serde_json::from_str(STORED).unwrap();
        assert!(event.is_sent(), "a firing of that time was sent");
        assert_eq!(event.rule_state(), None);
        let again = serde_json::to_string(&event).unwrap();
        let old: serde_json::Value = serde_json::from_str(STORED).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&again).unwrap(),
            old,
            "what is not set is not written"
        );
    }
}
