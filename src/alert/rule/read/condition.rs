//! When a rule breaches: its baseline, and its conditions with their thresholds.
//!
//! Stands in the reading of rules.
//!
//! Invariant: a threshold of a share cannot be mistaken by a factor of a hundred.
//! Invariant: a condition on a baseline has one, and a baseline is used by a condition.

use super::super::schema::{CONDITION, PEERS, SAME_SLOT};
use super::super::yaml::Node;
use super::super::{Baseline, Condition, Measure, Op, Test};
use super::FileReader;
use super::field::{Entry, Fields};
use crate::alert::{DAY_MS, MINUTE_MS, message};

/// `condition` and `and` together.
const MAX_CONDITIONS: usize = 8;
/// Gold minutes older than this are seldom kept.
const MAX_LOOKBACK_MS: i64 = 90 * DAY_MS;

const DEFAULT_SLOT_MS: i64 = 60 * MINUTE_MS;
const DEFAULT_LOOKBACK_DAYS: i64 = 7;
const DEFAULT_MIN_HISTORY_DAYS: i64 = 3;
const DEFAULT_MIN_PEERS: i64 = 3;

impl FileReader<'_, '_> {
    pub(super) fn baseline(&mut self, fields: &Fields, group_by: &[String]) -> Option<Baseline> {
        let entry = fields.get("baseline")?;
        let fix = "write `kind: same_slot` or `kind: peers`";
        let Node::Map(entries) = entry.value else {
            self.complain(&entry.place, "`baseline` must be a mapping", fix);
            return None;
        };
        let Some((_, kind)) = entries.iter().find(|(key, _)| key.value == "kind") else {
            self.complain(&entry.place, "`kind` is missing", fix);
            return None;
        };
        let kind = Entry::new(kind, format!("{}.kind", entry.place.path));
        let kinds = [("same_slot", true), ("peers", false)];
        let later = ["ewma", "forecast", "fixed", "same_slot_weekly"];
        if self.word(&kind, &kinds, &later)? {
            return self.same_slot(entry);
        }
        self.peers(entry, group_by)
    }

    fn same_slot(&mut self, entry: Entry) -> Option<Baseline> {
        let fields = self.fields(entry, &SAME_SLOT)?;
        self.only_word(&fields, "stat", "mean", &["median"]);
        self.only_word(&fields, "cold_start", "suppress", &["alert", "fire"]);
        let slot_ms = self.duration_ms(&fields, "slot", MINUTE_MS, MINUTE_MS..=DAY_MS);
        let slot_ms = slot_ms.unwrap_or(DEFAULT_SLOT_MS);
        if DAY_MS % slot_ms != 0 {
            let fix = "write 5m, 15m, 30m, 1h, 2h, 6h or 1d";
            self.complain(&fields.place_of("slot"), "a day is no multiple of the slot", fix);
        }
        let mut days = |key| {
            let range_ms = DAY_MS..=MAX_LOOKBACK_MS;
            let length_ms = self.duration_ms(&fields, key, DAY_MS, range_ms)?;
            Some(length_ms / DAY_MS)
        };
        let lookback_days = days("lookback").unwrap_or(DEFAULT_LOOKBACK_DAYS);
        let min_history_days = days("min_history").unwrap_or(DEFAULT_MIN_HISTORY_DAYS.min(lookback_days));
        if min_history_days > lookback_days {
            let message = "`min_history` is longer than `lookback`";
            let fix = format!("write {lookback_days}d or less");
            self.complain(&fields.place_of("min_history"), message, fix);
        }
        Some(Baseline::SameSlot {
            slot_ms,
            lookback_days,
            min_history_days,
        })
    }

    fn peers(&mut self, entry: Entry, group_by: &[String]) -> Option<Baseline> {
        let fields = self.fields(entry, &PEERS)?;
        let fix = "name one of `group_by`";
        let over_name = self.required_text(&fields, "over", fix)?;
        let Some(over) = group_by.iter().position(|dim| *dim == over_name) else {
            let message = format!("`{}` is not in `group_by`", message::clean(&over_name));
            self.complain(&fields.place_of("over"), message, fix);
            return None;
        };
        let within = self.within(&fields, group_by, over);
        if let Some(entry) = fields.get("leave_one_out")
            && !matches!(entry.value, Node::Bool(true))
        {
            let message = "only `leave_one_out: true` is supported yet";
            self.complain(&entry.place, message, "write `true`");
        }
        let min_peers = match fields.get("min_peers") {
            Some(entry) => self.whole_number(&entry, 1)?,
            None => DEFAULT_MIN_PEERS,
        };
        let min_peers = usize::try_from(min_peers).unwrap_or(usize::MAX);
        Some(Baseline::Peers { over, within, min_peers })
    }

    /// The dimensions that peers share: those named, else all but `over`.
    fn within(&mut self, fields: &Fields, group_by: &[String], over: usize) -> Vec<usize> {
        let Some(entry) = fields.get("within") else {
            return (0..group_by.len()).filter(|index| *index != over).collect();
        };
        let mut within = Vec::new();
        for (place, dim) in self.texts(&entry, "list dimensions of `group_by`") {
            match group_by.iter().position(|known| *known == dim) {
                Some(index) if index != over => within.push(index),
                _ => {
                    let dim = message::clean(&dim);
                    let message = format!("`{dim}` is not in `group_by`, or is `over` itself");
                    self.complain(&place, message, "name one of `group_by`");
                }
            }
        }
        within
    }

    /// `condition`, and the conditions of `and`.
    pub(super) fn conditions(&mut self, fields: &Fields, measure: Option<&Measure>) -> (Option<Condition>, Vec<Condition>) {
        let fix = "add `condition: {test: value, op: \">\", threshold: ...}`";
        let main = self.required(fields, "condition", fix);
        let has_main = main.is_some();
        let has_baseline = fields.get("baseline").is_some();
        let condition = main.and_then(|entry| self.condition(entry, measure, has_baseline));
        let mut and = Vec::new();
        for entry in self.further_conditions(fields) {
            and.push(self.condition(entry, measure, has_baseline));
        }
        let is_on_value = |condition: &Option<Condition>| condition.is_some_and(|condition| condition.test == Test::Value);
        if has_main && has_baseline && is_on_value(&condition) && and.iter().all(is_on_value) {
            let fix = "test ratio_to_baseline or diff_to_baseline, or take it out";
            self.complain(&fields.place_of("baseline"), "no condition uses the baseline", fix);
        }
        (condition, and.into_iter().flatten().collect())
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

    fn condition(&mut self, entry: Entry, measure: Option<&Measure>, has_baseline: bool) -> Option<Condition> {
        let fields = self.fields(entry, &CONDITION)?;
        let tests = [
            ("value", Test::Value),
            ("ratio_to_baseline", Test::RatioToBaseline),
            ("diff_to_baseline", Test::DiffToBaseline),
        ];
        let ops = [(">", Op::Above), (">=", Op::AtLeast), ("<", Op::Below), ("<=", Op::AtMost)];
        let test = self.required(&fields, "test", "add `test: value`");
        let test = test.and_then(|entry| self.word(&entry, &tests, &["zscore"]));
        let op = self.required(&fields, "op", "add `op: \">\"`");
        let op = op.and_then(|entry| self.word(&entry, &ops, &[]));
        let threshold = self.required(&fields, "threshold", "add `threshold: ...`");
        let test = test?;
        if test != Test::Value && !has_baseline {
            let fix = "add a `baseline`, or test `value`";
            self.complain(&fields.place_of("test"), "the rule has no baseline", fix);
        }
        let is_share = test == Test::RatioToBaseline || measure?.is_ratio();
        let value = self.threshold(&threshold?, is_share)?;
        Some(Condition { test, op: op?, value })
    }

    /// `5%` or `0.05` for a share, a bare number for all else.
    fn threshold(&mut self, entry: &Entry, is_share: bool) -> Option<f64> {
        let percent = match entry.value {
            Node::Text(text) => text.trim().strip_suffix('%').map(str::trim_end),
            _ => None,
        };
        let percent = percent.and_then(|text| text.parse::<f64>().ok());
        let number = match entry.value {
            Node::Int(number) => Some(*number as f64),
            Node::Float(number) => Some(*number),
            _ => None,
        };
        let (message, fix) = match (percent, number) {
            (Some(percent), _) if is_share && percent.is_finite() => return Some(percent / 100.0),
            (_, Some(number)) if !is_share || number.abs() < 1.0 => return Some(number),
            (_, Some(number)) => (
                format!("`{number}` could mean {number} % or {} %", number * 100.0),
                format!("write `{number}%` or `{}%`", number * 100.0),
            ),
            (Some(_), _) => (
                "this threshold is no share".to_owned(),
                "write a number in the unit of the value, such as `20`".to_owned(),
            ),
            (None, None) => (
                "a threshold is a number".to_owned(),
                "write a share as `5%` or `0.05`, all else as a number".to_owned(),
            ),
        };
        self.complain(&entry.place, message, fix);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{check, parsed};
    use crate::alert::tests::seed_rule;

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
            r#"{test: zscore, op: "=>", threshold: 5%}"#,
            r#"
alerts/a.yaml:13:27: `zscore` is not supported yet, at groups[0].rules[0].condition.test
   13 |         condition: {test: zscore, op: "=>", threshold: 5%}
      |                           ^^^^^^ write one of value, ratio_to_baseline, diff_to_baseline
alerts/a.yaml:13:39: `=>` is not known here, at groups[0].rules[0].condition.op
   13 |         condition: {test: zscore, op: "=>", threshold: 5%}
      |                                       ^^^^ did you mean `>`?
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
      |         ^ add `condition: {test: value, op: ">", threshold: ...}`
"#,
        );
    }

    #[test]
    fn baselines_are_checked() {
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: ewma}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:26: `ewma` is not supported yet, at groups[0].rules[0].baseline.kind
   13 |         baseline: {kind: ewma}
      |                          ^^^^ write one of same_slot, peers
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {slot: 1h}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:19: `kind` is missing, at groups[0].rules[0].baseline
   13 |         baseline: {slot: 1h}
      |                   ^ write `kind: same_slot` or `kind: peers`
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: median, cold_start: fire}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:43: a day is no multiple of the slot, at groups[0].rules[0].baseline.slot
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: median, cold_start: fire}
      |                                           ^^ write 5m, 15m, 30m, 1h, 2h, 6h or 1d
alerts/a.yaml:13:74: `min_history` is longer than `lookback`, at groups[0].rules[0].baseline.min_history
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: median, cold_start: fire}
      |                                                                          ^^ write 2d or less
alerts/a.yaml:13:84: `median` is not supported yet, at groups[0].rules[0].baseline.stat
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: median, cold_start: fire}
      |                                                                                    ^^^^^^ write one of mean
alerts/a.yaml:13:104: `fire` is not supported yet, at groups[0].rules[0].baseline.cold_start
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: median, cold_start: fire}
      |                                                                                                        ^^^^ write one of suppress
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: peers, over: isp, weight: clients}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:39: `isp` is not in `group_by`, at groups[0].rules[0].baseline.over
   13 |         baseline: {kind: peers, over: isp, weight: clients}
      |                                       ^^^ name one of `group_by`
alerts/a.yaml:13:44: `weight` in a `peers` baseline is not supported yet, at groups[0].rules[0].baseline.weight
   13 |         baseline: {kind: peers, over: isp, weight: clients}
      |                                            ^^^^^^ take it out
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: peers, over: app_name, within: [app_name], leave_one_out: false, min_peers: 0}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:58: `app_name` is not in `group_by`, or is `over` itself, at groups[0].rules[0].baseline.within
   13 |         baseline: {kind: peers, over: app_name, within: [app_name], leave_one_out: false, min_peers: 0}
      |                                                          ^^^^^^^^ name one of `group_by`
alerts/a.yaml:13:84: only `leave_one_out: true` is supported yet, at groups[0].rules[0].baseline.leave_one_out
   13 |         baseline: {kind: peers, over: app_name, within: [app_name], leave_one_out: false, min_peers: 0}
      |                                                                                    ^^^^^ write `true`
alerts/a.yaml:13:102: a whole number is needed, at groups[0].rules[0].baseline.min_peers
   13 |         baseline: {kind: peers, over: app_name, within: [app_name], leave_one_out: false, min_peers: 0}
      |                                                                                                      ^ write a whole number, 1 or more
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        baseline: {kind: peers, over: app_name}",
            r"
alerts/a.yaml:13:19: no condition uses the baseline, at groups[0].rules[0].baseline
   13 |         baseline: {kind: peers, over: app_name}
      |                   ^ test ratio_to_baseline or diff_to_baseline, or take it out
",
        );
    }
}
