//! When a rule breaches and when that ends: its conditions with their thresholds, and its severities.
//!
//! Stands in the reading of rules.
//!
//! Invariant: a threshold of a share cannot be mistaken by a factor of a hundred.
//! Invariant: a condition on a baseline has one, and a baseline is used by a condition.
//! Invariant: what is clear is not a breach.

use super::super::schema::{CLEAR, CONDITION, STEP};
use super::super::yaml::Node;
use super::super::{Clear, Condition, Op, Severity, Test};
use super::FileReader;
use super::field::{Entry, Fields};
use super::measure::Measured;
use super::timing::MAX_HOLD_MS;

/// `condition` and `and` together.
const MAX_CONDITIONS: usize = 8;

/// How a threshold is written.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// `5%` or `0.05`.
    Share,
    /// `5%` or `5`: the value itself is in per cent.
    Percent,
    /// `20`, in the unit of the value.
    Plain,
}

pub(super) struct Conditions {
    pub(super) condition: Condition,
    pub(super) and: Vec<Condition>,
    pub(super) clear: Option<Clear>,
}

/// One severity, or the mildest of a ladder and its steps.
pub(super) struct Severities {
    pub(super) mildest: Severity,
    pub(super) ladder: Vec<(f64, Severity)>,
}

impl Severities {
    fn one(severity: Severity) -> Severities {
        Severities {
            mildest: severity,
            ladder: Vec::new(),
        }
    }

    pub(super) fn worst(&self) -> Severity {
        self.ladder.iter().map(|(_, severity)| *severity).max().unwrap_or(self.mildest)
    }
}

impl Measured {
    fn scale(&self) -> Option<Scale> {
        let measure = self.measure.as_ref()?;
        Some(match self.unit.as_deref() {
            _ if measure.is_share() => Scale::Share,
            Some("%") => Scale::Percent,
            _ => Scale::Plain,
        })
    }

    pub(super) fn scale_of(&self, test: Test) -> Option<Scale> {
        match test {
            Test::RatioToBaseline => Some(Scale::Share),
            Test::Zscore => Some(Scale::Plain),
            Test::Value | Test::DiffToBaseline => self.scale(),
        }
    }
}

impl FileReader<'_, '_> {
    /// `condition`, the conditions of `and`, and `clear`.
    pub(super) fn conditions(&mut self, fields: &Fields, measured: &Measured) -> Option<Conditions> {
        let fix = "add `condition: \"> 5%\"` or `condition: {test: value, op: \">\", threshold: ...}`";
        let main = self.required(fields, "condition", fix);
        let has_main = main.is_some();
        let has_baseline = fields.get("baseline").is_some();
        let condition = main.and_then(|entry| self.condition(entry, measured, has_baseline));
        let mut and = Vec::new();
        for entry in self.further_conditions(fields) {
            and.push(self.condition(entry, measured, has_baseline));
        }
        let is_on_value = |condition: &Option<Condition>| condition.is_some_and(|condition| condition.test == Test::Value);
        if has_main && has_baseline && is_on_value(&condition) && and.iter().all(is_on_value) {
            let fix = "test ratio_to_baseline, diff_to_baseline or zscore, or take it out";
            self.complain(&fields.place_of("baseline"), "no condition uses the baseline", fix);
        }
        let condition = condition?;
        Some(Conditions {
            condition,
            and: and.into_iter().flatten().collect(),
            clear: self.clear(fields, measured, condition),
        })
    }

    fn further_conditions<'n>(&mut self, fields: &Fields<'n>) -> Vec<Entry<'n>> {
        let Some(entry) = fields.get("and") else {
            return Vec::new();
        };
        let fix = format!("write a list of up to {} conditions", MAX_CONDITIONS - 1);
        if let Node::List(list) = entry.value
            && list.len() >= MAX_CONDITIONS
        {
            self.complain(&entry.place, "a list is needed", fix);
            return Vec::new();
        }
        self.list(&entry, &fix)
    }

    fn condition(&mut self, entry: Entry, measured: &Measured, has_baseline: bool) -> Option<Condition> {
        if let Node::Text(text) = entry.value {
            return self.short_condition(&entry, text, measured);
        }
        let fields = self.fields(entry, &CONDITION)?;
        let tests = [
            ("value", Test::Value),
            ("ratio_to_baseline", Test::RatioToBaseline),
            ("diff_to_baseline", Test::DiffToBaseline),
            ("zscore", Test::Zscore),
        ];
        let test = self.required(&fields, "test", "add `test: value`");
        let test = test.and_then(|entry| self.word(&entry, &tests, &[]));
        let op = self.required(&fields, "op", "add `op: \">\"`");
        let op = op.and_then(|entry| self.word(&entry, &OPS, &[]));
        let threshold = self.required(&fields, "threshold", "add `threshold: ...`");
        let test = test?;
        if test != Test::Value && !has_baseline {
            let fix = "add a `baseline`, or test `value`";
            self.complain(&fields.place_of("test"), "the rule has no baseline", fix);
        }
        let value = self.threshold(&threshold?, measured.scale_of(test)?)?;
        Some(Condition { test, op: op?, value })
    }

    /// `> 5%`: the value against a threshold. Of a metric that knows which side is bad, `5%` will do.
    fn short_condition(&mut self, entry: &Entry, text: &str, measured: &Measured) -> Option<Condition> {
        let text = text.trim();
        let found = SHORT_OPS.iter().find_map(|(sign, op)| Some((*op, text.strip_prefix(sign)?)));
        let usual = measured.is_low_bad.map(|is_low| if is_low { Op::Below } else { Op::Above });
        let Some((op, threshold)) = found.or_else(|| Some((usual?, text))) else {
            let fix = "write for instance `\"> 5%\"`, or `{test: value, op: \">\", threshold: 5%}`";
            self.complain(&entry.place, "the condition says no direction", fix);
            return None;
        };
        let threshold = threshold.trim();
        let node = match (threshold.parse::<i64>(), threshold.parse::<f64>()) {
            (Ok(whole), _) => Node::Int(whole),
            (_, Ok(number)) if number.is_finite() => Node::Float(number),
            _ => Node::Text(threshold.to_owned()),
        };
        let threshold = Entry {
            value: &node,
            place: entry.place.clone(),
        };
        let value = self.threshold(&threshold, measured.scale_of(Test::Value)?)?;
        Some(Condition {
            test: Test::Value,
            op,
            value,
        })
    }

    fn clear(&mut self, fields: &Fields, measured: &Measured, condition: Condition) -> Option<Clear> {
        let fields = self.fields(fields.get("clear")?, &CLEAR)?;
        let hold_ms = self.duration_ms(&fields, "for", 1_000, 0..=MAX_HOLD_MS).unwrap_or(0);
        let threshold = match fields.get("threshold") {
            Some(entry) => {
                let threshold = self.threshold(&entry, measured.scale_of(condition.test)?)?;
                let is_breach = threshold != condition.value && condition.op.holds(threshold, condition.value);
                if is_breach {
                    let fix = "write the threshold of the condition, or one on its good side";
                    self.complain(&entry.place, "it could be clear while it breaches", fix);
                }
                Some(threshold)
            }
            None => None,
        };
        Some(Clear { threshold, hold_ms })
    }

    /// A share of something: `5%` or `0.05`.
    pub(super) fn share(&mut self, entry: &Entry) -> Option<f64> {
        self.threshold(entry, Scale::Share)
    }

    pub(super) fn threshold(&mut self, entry: &Entry, scale: Scale) -> Option<f64> {
        let percent = match entry.value {
            Node::Text(text) => text.trim().strip_suffix('%').map(str::trim_end),
            _ => None,
        };
        let percent = percent
            .and_then(|text| text.parse::<f64>().ok())
            .filter(|percent| percent.is_finite());
        let number = match entry.value {
            Node::Int(number) => Some(*number as f64),
            Node::Float(number) => Some(*number).filter(|number| number.is_finite()),
            _ => None,
        };
        let (message, fix) = match (percent, number, scale) {
            (Some(percent), _, Scale::Share) => return Some(percent / 100.0),
            (Some(percent), _, Scale::Percent) => return Some(percent),
            (_, Some(number), Scale::Percent | Scale::Plain) => return Some(number),
            (_, Some(number), Scale::Share) if number.abs() < 1.0 => return Some(number),
            (_, Some(number), Scale::Share) => (
                format!("`{number}` could mean {number} % or {} %", number * 100.0),
                format!("write `{number}%` or `{}%`", number * 100.0),
            ),
            (Some(_), _, Scale::Plain) => (
                "this threshold is no share".to_owned(),
                "write a number in the unit of the value, such as `20`".to_owned(),
            ),
            (None, None, _) => (
                "a threshold is a number".to_owned(),
                "write a share as `5%` or `0.05`, all else as a number".to_owned(),
            ),
        };
        self.complain(&entry.place, message, fix);
        None
    }

    // -------------------------------------------------------------- severity

    /// One severity or a ladder; its thresholds are those of the condition's test, the mildest first.
    pub(super) fn severity(&mut self, fields: &Fields, measured: &Measured, condition: Option<Condition>) -> Severities {
        let Some(entry) = fields.get("severity").filter(|entry| matches!(entry.value, Node::List(_))) else {
            return Severities::one(self.severity_word(fields).unwrap_or(Severity::Warning));
        };
        let mut ladder: Vec<(f64, Severity)> = Vec::new();
        for step in self.list(&entry, "write a list of `{threshold: ..., severity: ...}`") {
            let place = step.place.clone();
            let Some((threshold, severity)) = self.step(step, measured, condition) else {
                continue;
            };
            let is_worse = ladder.last().is_none_or(|(before, milder)| {
                let is_further = condition.is_none_or(|condition| condition.op.holds(threshold, *before));
                severity > *milder && is_further && threshold != *before
            });
            if !is_worse {
                let fix = "list them from the mildest to the worst, each with a worse threshold";
                self.complain(&place, "this step is no worse than the one before", fix);
            }
            ladder.push((threshold, severity));
        }
        match ladder.first() {
            Some((_, mildest)) => Severities { mildest: *mildest, ladder },
            None => Severities::one(Severity::Warning),
        }
    }

    fn step(&mut self, entry: Entry, measured: &Measured, condition: Option<Condition>) -> Option<(f64, Severity)> {
        let fields = self.fields(entry, &STEP)?;
        let severity = self.required(&fields, "severity", "add `severity: critical`");
        let severity = severity.and_then(|entry| self.word(&entry, &SEVERITIES, &[]));
        let threshold = self.required(&fields, "threshold", "add `threshold: ...`")?;
        let threshold = self.threshold(&threshold, measured.scale_of(condition?.test)?)?;
        Some((threshold, severity?))
    }

    /// The severity where it is one word; a ladder is read with the rule.
    pub(super) fn severity_word(&mut self, fields: &Fields) -> Option<Severity> {
        let entry = fields.get("severity")?;
        if matches!(entry.value, Node::List(_)) {
            return None;
        }
        self.word(&entry, &SEVERITIES, &[])
    }
}

const SEVERITIES: [(&str, Severity); 3] = [
    ("info", Severity::Info),
    ("warning", Severity::Warning),
    ("critical", Severity::Critical),
];

const OPS: [(&str, Op); 4] = [(">", Op::Above), (">=", Op::AtLeast), ("<", Op::Below), ("<=", Op::AtMost)];

/// The longer signs first, since the shorter ones begin them.
const SHORT_OPS: [(&str, Op); 4] = [(">=", Op::AtLeast), ("<=", Op::AtMost), (">", Op::Above), ("<", Op::Below)];

#[cfg(test)]
mod tests {
    use super::super::super::tests::{check, parsed};
    use super::*;
    use crate::alert::fixture::seed_rule;

    #[test]
    fn thresholds_are_read_as_shares_or_as_plain_numbers() {
        let share = |text: &str| {
            let rule = parsed("threshold: 5%", &format!("threshold: {text}"));
            rule.condition.value
        };
        assert_eq!(share("5%"), 0.05);
        assert_eq!(share("\"5 %\""), 0.05);
        assert_eq!(share("0.05"), 0.05);
        assert_eq!(share("0"), 0.0);
        assert_eq!(share("150%"), 1.5);
        let cdn = seed_rule("cdn-latency-baseline");
        assert_eq!(cdn.condition.value, 0.1);
        assert_eq!(cdn.and[0].value, 20.0);
    }

    #[test]
    fn a_share_is_never_a_bare_number() {
        check(
            "threshold: 5%",
            "threshold: 5",
            r#"
alerts/a.yaml:13:54: `5` could mean 5 % or 500 %, at groups[0].rules[0].condition.threshold
   13 |         condition: {test: value, op: ">", threshold: 5}
      |                                                      ^ write `5%` or `500%`
"#,
        );
        check(
            "threshold: 5%",
            "threshold: lots",
            r#"
alerts/a.yaml:13:54: a threshold is a number, at groups[0].rules[0].condition.threshold
   13 |         condition: {test: value, op: ">", threshold: lots}
      |                                                      ^^^^ write a share as `5%` or `0.05`, all else as a number
"#,
        );
        check(
            "{ratio: {num: clients_with_errors, den: clients}}\n        group_by",
            "{mean: {sum: clients_with_errors, count: clients}}\n        group_by",
            r#"
alerts/a.yaml:13:54: this threshold is no share, at groups[0].rules[0].condition.threshold
   13 |         condition: {test: value, op: ">", threshold: 5%}
      |                                                      ^^ write a number in the unit of the value, such as `20`
"#,
        );
    }

    #[test]
    fn conditions_are_known_and_possible() {
        check(
            r#"{test: value, op: ">", threshold: 5%}"#,
            r#"{test: z_score, op: "=>", threshold: 5%}"#,
            r#"
alerts/a.yaml:13:27: `z_score` is not known here, at groups[0].rules[0].condition.test
   13 |         condition: {test: z_score, op: "=>", threshold: 5%}
      |                           ^^^^^^^ did you mean `zscore`?
alerts/a.yaml:13:40: `=>` is not known here, at groups[0].rules[0].condition.op
   13 |         condition: {test: z_score, op: "=>", threshold: 5%}
      |                                        ^^^^ did you mean `>`?
"#,
        );
        check(
            r#"{test: value, op: ">", threshold: 5%}"#,
            r#"{test: ratio_to_baseline, op: ">", threshold: 5%}"#,
            r#"
alerts/a.yaml:13:27: the rule has no baseline, at groups[0].rules[0].condition.test
   13 |         condition: {test: ratio_to_baseline, op: ">", threshold: 5%}
      |                           ^^^^^^^^^^^^^^^^^ add a `baseline`, or test `value`
"#,
        );
        check(
            r#"        condition: {test: value, op: ">", threshold: 5%}
"#,
            "",
            r#"
alerts/a.yaml:7:9: `condition` is missing, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ add `condition: "> 5%"` or `condition: {test: value, op: ">", threshold: ...}`
"#,
        );
    }

    #[test]
    fn a_short_condition_tests_the_value() {
        let of = |text: &str| {
            let rule = parsed(r#"{test: value, op: ">", threshold: 5%}"#, text);
            (rule.condition.op, rule.condition.value)
        };
        assert_eq!(of("\"> 5%\""), (Op::Above, 0.05));
        assert_eq!(of("\"<=0.2\""), (Op::AtMost, 0.2));
        check(
            r#"{test: value, op: ">", threshold: 5%}"#,
            "5%",
            r#"
alerts/a.yaml:13:20: the condition says no direction, at groups[0].rules[0].condition
   13 |         condition: 5%
      |                    ^^ write for instance `"> 5%"`, or `{test: value, op: ">", threshold: 5%}`
"#,
        );
    }

    #[test]
    fn what_is_clear_is_not_a_breach() {
        let rule = parsed("min_samples: 500", "min_samples: 500\n        clear: {threshold: 5%, for: 5m}");
        let expected = Clear {
            threshold: Some(0.05),
            hold_ms: 300_000,
        };
        assert_eq!(rule.clear, Some(expected));
        check(
            "min_samples: 500",
            "min_samples: 500\n        clear: {threshold: 6%}",
            r"
alerts/a.yaml:13:28: it could be clear while it breaches, at groups[0].rules[0].clear.threshold
   13 |         clear: {threshold: 6%}
      |                            ^^ write the threshold of the condition, or one on its good side
",
        );
    }

    #[test]
    fn a_ladder_climbs() {
        let ladder = "severity: [{threshold: 5%, severity: warning}, {threshold: 30%, severity: critical}]";
        let rule = parsed(
            "min_samples: 500",
            &format!("min_samples: 500\n        owner: us\n        {ladder}"),
        );
        assert_eq!(rule.severity, Severity::Warning);
        assert_eq!(rule.ladder, [(0.05, Severity::Warning), (0.3, Severity::Critical)]);
        check(
            "min_samples: 500",
            "min_samples: 500\n        severity: [{threshold: 5%, severity: warning}, {threshold: 4%, severity: critical}]",
            r"
alerts/a.yaml:7:9: a critical rule needs an `owner`, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ add `owner: <team>`
alerts/a.yaml:13:56: this step is no worse than the one before, at groups[0].rules[0].severity[1]
   13 |         severity: [{threshold: 5%, severity: warning}, {threshold: 4%, severity: critical}]
      |                                                        ^ list them from the mildest to the worst, each with a worse threshold
",
        );
    }
}
