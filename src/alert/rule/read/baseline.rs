//! What a rule compares its value with.
//!
//! Stands in the reading of rules, over `group_by` and what the rule measures.
//!
//! Invariant: a baseline that needs history can be asked for it: a query of the author's own cannot.
//! Invariant: percentiles are not averaged: their usual value is a median.

use super::super::complaint::listed;
use super::super::schema::{EWMA, FIXED, PEERS, SAME_SLOT, SAME_SLOT_WEEKLY, Schema, TRAILING};
use super::super::yaml::Node;
use super::super::{Baseline, Calendar, History, Measure, PeerWeight, Peers, Shape, Stat, Test};
use super::FileReader;
use super::condition::Scale;
use super::field::{Entry, Fields};
use super::measure::Measured;
use crate::alert::{DAY_MS, MINUTE_MS, message};

/// Gold minutes older than this are seldom kept.
const MAX_LOOKBACK_MS: i64 = 90 * DAY_MS;
/// A quarter of a year.
const MAX_WEEKS: i64 = 13;
/// Slots just before the window: more are a baseline of the same slot. Each is a row a group.
const MAX_TRAILING_SLOTS: i64 = 288;
/// After six half-lives a slot counts less than a sixtieth.
const HALF_LIVES: i64 = 6;

const HOUR_MS: i64 = 60 * MINUTE_MS;
const DEFAULT_LOOKBACK_DAYS: i64 = 7;
const DEFAULT_MIN_HISTORY_DAYS: i64 = 3;
const DEFAULT_WEEKS: i64 = 4;
const DEFAULT_MIN_WEEKS: i64 = 3;
const DEFAULT_MIN_PEERS: i64 = 3;

const KINDS: [(&str, &Schema); 6] = [
    ("same_slot", &SAME_SLOT),
    ("same_slot_weekly", &SAME_SLOT_WEEKLY),
    ("trailing", &TRAILING),
    ("ewma", &EWMA),
    ("peers", &PEERS),
    ("fixed", &FIXED),
];

impl FileReader<'_, '_> {
    pub(super) fn baseline(&mut self, fields: &Fields, measured: &Measured) -> Option<Baseline> {
        let entry = fields.get("baseline")?;
        let fix = format!("write `kind:` and one of {}", listed(&KINDS.map(|(kind, _)| kind)));
        let Node::Map(entries) = entry.value else {
            self.complain(&entry.place, "`baseline` must be a mapping", fix);
            return None;
        };
        let Some((_, kind)) = entries.iter().find(|(key, _)| key.value == "kind") else {
            self.complain(&entry.place, "`kind` is missing", fix);
            return None;
        };
        let kind = Entry::new(kind, format!("{}.kind", entry.place.path));
        let words = KINDS.map(|(kind, schema)| (kind, (kind, schema)));
        let (name, schema) = self.word(&kind, &words, &["forecast"])?;
        let place = kind.place.clone();
        let fields = self.fields(entry, schema)?;
        match name {
            "peers" => self.peers(&fields, measured).map(Baseline::Peers),
            "fixed" => self.fixed(&fields, measured),
            _ => {
                if matches!(measured.measure, Some(Measure::Query { .. })) {
                    let fix = "compare with `peers` or `fixed`, or write the value as `ratio`, `mean` or `expr`";
                    self.complain(&place, "a query of your own cannot be asked for its history", fix);
                }
                self.history(name, &fields, measured).map(Baseline::History)
            }
        }
    }

    fn history(&mut self, kind: &str, fields: &Fields, measured: &Measured) -> Option<History> {
        self.only_word(fields, "cold_start", "suppress", &["alert", "fire"]);
        let is_daily = kind.starts_with("same_slot");
        let slot_ms = self.duration_ms(fields, "slot", MINUTE_MS, MINUTE_MS..=DAY_MS);
        let slot_ms = slot_ms.unwrap_or(if is_daily { HOUR_MS } else { 5 * MINUTE_MS });
        if DAY_MS % slot_ms != 0 {
            let fix = "write 5m, 15m, 30m, 1h, 2h, 6h or 1d";
            self.complain(&fields.place_of("slot"), "a day is no multiple of the slot", fix);
        }
        let (shape, lookback, min_history) = match kind {
            "same_slot" => {
                let (lookback, least) = self.span(fields, DAY_MS, MAX_LOOKBACK_MS, DEFAULT_LOOKBACK_DAYS, DEFAULT_MIN_HISTORY_DAYS);
                (Shape::SameSlot, lookback, least)
            }
            "same_slot_weekly" => {
                let weeks = self
                    .bounded(fields, "weeks", 1, MAX_WEEKS)
                    .map_or(DEFAULT_WEEKS, |weeks| weeks as i64);
                let least = self.bounded(fields, "min_weeks", 1, weeks).map(|weeks| weeks as i64);
                (Shape::SameSlotWeekly, weeks, least.unwrap_or(DEFAULT_MIN_WEEKS.min(weeks)))
            }
            "trailing" => {
                let hour = HOUR_MS / slot_ms;
                let (lookback, least) = self.span(fields, slot_ms, MAX_TRAILING_SLOTS * slot_ms, hour.max(2), (hour / 2).max(1));
                (Shape::Trailing, lookback, least)
            }
            _ => {
                let longest_ms = MAX_TRAILING_SLOTS / HALF_LIVES * slot_ms;
                let half_life_ms = self.duration_ms(fields, "half_life", slot_ms, slot_ms..=longest_ms);
                let half_life = half_life_ms.unwrap_or(HOUR_MS.max(slot_ms).min(longest_ms)) / slot_ms;
                let least_ms = self.duration_ms(fields, "min_history", slot_ms, slot_ms..=longest_ms);
                let least = least_ms.map_or(half_life, |ms| ms / slot_ms);
                (
                    Shape::Ewma {
                        half_life: half_life as f64,
                    },
                    HALF_LIVES * half_life,
                    least,
                )
            }
        };
        let (exclude_firing, exclude_days) = self.exclude(fields);
        Some(History {
            shape,
            slot_ms,
            lookback,
            min_history,
            stat: self.stat(kind, fields, measured),
            exclude_firing,
            exclude_days,
        })
    }

    /// `lookback` and `min_history`, in steps.
    fn span(&mut self, fields: &Fields, step_ms: i64, longest_ms: i64, lookback: i64, least: i64) -> (i64, i64) {
        let mut steps = |key| Some(self.duration_ms(fields, key, step_ms, step_ms..=longest_ms)? / step_ms);
        let lookback = steps("lookback").unwrap_or(lookback);
        let least = steps("min_history").unwrap_or(least.min(lookback));
        if least > lookback {
            let message = "`min_history` is longer than `lookback`";
            let fix = format!("write {} or less", message::duration(lookback * step_ms));
            self.complain(&fields.place_of("min_history"), message, fix);
        }
        (lookback, least)
    }

    /// The mean where sums can be pooled; the median where they cannot, and of weeks, which are few.
    fn stat(&mut self, kind: &str, fields: &Fields, measured: &Measured) -> Stat {
        let adds_up = measured.measure.as_ref().is_none_or(|measure| measure.parts().is_some());
        let usual = if adds_up && kind != "same_slot_weekly" {
            Stat::Mean
        } else {
            Stat::Median
        };
        let words = [("mean", Stat::Mean), ("median", Stat::Median)];
        let stat = fields.get("stat").and_then(|entry| self.word(&entry, &words, &[])).unwrap_or(usual);
        if stat == Stat::Mean && !adds_up {
            let message = "this value has no mean over time: percentiles and peaks are not averaged";
            self.complain(&fields.place_of("stat"), message, "write `stat: median`");
        }
        stat
    }

    fn exclude(&mut self, fields: &Fields) -> (bool, Vec<Calendar>) {
        let Some(entry) = fields.get("exclude") else {
            return (true, Vec::new());
        };
        let fix = "write `firing_windows` or `calendar:<name>`";
        let (mut is_firing, mut days) = (false, Vec::new());
        for (place, text) in self.texts(&entry, fix) {
            match text.strip_prefix("calendar:") {
                Some(name) => days.extend(self.known_calendar(&place, name.trim())),
                None if text == "firing_windows" => is_firing = true,
                None => self.complain(&place, format!("`{}` is not known here", message::clean(&text)), fix),
            }
        }
        (is_firing, days)
    }

    fn fixed(&mut self, fields: &Fields, measured: &Measured) -> Option<Baseline> {
        let entry = self.required(fields, "value", "write the number")?;
        let scale = measured.scale_of(Test::Value).unwrap_or(Scale::Plain);
        let value = self.threshold(&entry, scale)?;
        Some(Baseline::Fixed { value })
    }

    fn peers(&mut self, fields: &Fields, measured: &Measured) -> Option<Peers> {
        let group_by = &measured.group_by;
        let fix = "name one of `group_by`";
        let over_name = self.required_text(fields, "over", fix)?;
        let Some(over) = group_by.iter().position(|dim| *dim == over_name) else {
            let message = format!("`{}` is not in `group_by`", message::clean(&over_name));
            self.complain(&fields.place_of("over"), message, fix);
            return None;
        };
        let within = self.within(fields, group_by, over);
        let min_peers = match fields.get("min_peers") {
            Some(entry) => self.whole_number(&entry, 1)?,
            None => DEFAULT_MIN_PEERS,
        };
        Some(Peers {
            over,
            within,
            min_peers: usize::try_from(min_peers).unwrap_or(usize::MAX),
            leave_one_out: self.flag(fields, "leave_one_out", true),
            weight: self.weight(fields, measured)?,
        })
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

    fn weight(&mut self, fields: &Fields, measured: &Measured) -> Option<PeerWeight> {
        let Some(text) = self.optional_text(fields, "weight", "write `equal`, the samples or the denominator") else {
            return Some(PeerWeight::Denominator);
        };
        let den = measured.measure.as_ref().and_then(Measure::parts).map(|(_, den)| den);
        let is_column = |sum: &super::super::Sum| *sum == super::super::Sum::Of(text.clone()) || sum.column() == Some(&text);
        match text.as_str() {
            "equal" => Some(PeerWeight::Equal),
            "samples" => Some(PeerWeight::Samples),
            _ if den.is_some_and(is_column) => Some(PeerWeight::Denominator),
            _ if measured.samples.as_ref().is_some_and(is_column) => Some(PeerWeight::Samples),
            _ => {
                let message = "peers are weighted by what the rule counts already";
                let fix = "write `equal`, `samples`, or the denominator as it is written under `value`";
                self.complain(&fields.place_of("weight"), message, fix);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{check, parsed};
    use super::*;

    fn baseline(text: &str) -> Baseline {
        let old = "condition: {test: value, op: \">\", threshold: 5%}";
        let new = format!("baseline: {text}\n        condition: {{test: zscore, op: \">\", threshold: 4}}");
        parsed(old, &new).baseline.unwrap()
    }

    #[test]
    fn every_kind_has_its_usual_numbers() {
        let numbers = |text: &str| match baseline(text) {
            Baseline::History(history) => (history.shape, history.slot_ms, history.lookback, history.min_history, history.stat),
            other => panic!("{other:?}"),
        };
        assert_eq!(numbers("{kind: same_slot}"), (Shape::SameSlot, HOUR_MS, 7, 3, Stat::Mean));
        assert_eq!(
            numbers("{kind: same_slot, stat: median}"),
            (Shape::SameSlot, HOUR_MS, 7, 3, Stat::Median)
        );
        assert_eq!(
            numbers("{kind: same_slot_weekly, weeks: 2}"),
            (Shape::SameSlotWeekly, HOUR_MS, 2, 2, Stat::Median)
        );
        assert_eq!(numbers("{kind: trailing}"), (Shape::Trailing, 5 * MINUTE_MS, 12, 6, Stat::Mean));
        let shape = Shape::Ewma { half_life: 6.0 };
        assert_eq!(numbers("{kind: ewma, half_life: 30m}"), (shape, 5 * MINUTE_MS, 36, 6, Stat::Mean));
        assert_eq!(baseline("{kind: fixed, value: 2%}"), Baseline::Fixed { value: 0.02 });
    }

    #[test]
    fn peers_are_weighted_by_what_the_rule_counts() {
        let weight = |text: &str| match baseline(&format!("{{kind: peers, over: app_name{text}}}")) {
            Baseline::Peers(peers) => (peers.weight, peers.leave_one_out),
            other => panic!("{other:?}"),
        };
        assert_eq!(weight(""), (PeerWeight::Denominator, true));
        assert_eq!(weight(", weight: clients, leave_one_out: false"), (PeerWeight::Denominator, false));
        assert_eq!(weight(", weight: equal"), (PeerWeight::Equal, true));
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: peers, over: app_name, weight: viewers}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:57: peers are weighted by what the rule counts already, at groups[0].rules[0].baseline.weight
   13 |         baseline: {kind: peers, over: app_name, weight: viewers}
      |                                                         ^^^^^^^ write `equal`, `samples`, or the denominator as it is written under `value`
",
        );
    }

    #[test]
    fn percentiles_are_not_averaged() {
        check(
            "value: {ratio: {num: clients_with_errors, den: clients}}\n        group_by: [device_type, app_name]\n        min_samples: 500\n        condition: {test: value",
            "value: {expr: \"max(clients)\"}\n        samples: clients\n        min_samples: 500\n        baseline: {kind: same_slot, stat: mean}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:43: this value has no mean over time: percentiles and peaks are not averaged, at groups[0].rules[0].baseline.stat
   13 |         baseline: {kind: same_slot, stat: mean}
      |                                           ^^^^ write `stat: median`
",
        );
    }

    #[test]
    fn baselines_are_checked() {
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: forecast}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:26: `forecast` is not supported yet, at groups[0].rules[0].baseline.kind
   13 |         baseline: {kind: forecast}
      |                          ^^^^^^^^ write one of same_slot, same_slot_weekly, trailing, ewma, peers, fixed
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {slot: 1h}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:19: `kind` is missing, at groups[0].rules[0].baseline
   13 |         baseline: {slot: 1h}
      |                   ^ write `kind:` and one of same_slot, same_slot_weekly, trailing, ewma, peers, fixed
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: mode, cold_start: fire}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:43: a day is no multiple of the slot, at groups[0].rules[0].baseline.slot
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: mode, cold_start: fire}
      |                                           ^^ write 5m, 15m, 30m, 1h, 2h, 6h or 1d
alerts/a.yaml:13:74: `min_history` is longer than `lookback`, at groups[0].rules[0].baseline.min_history
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: mode, cold_start: fire}
      |                                                                          ^^ write 2d or less
alerts/a.yaml:13:84: `mode` is not known here, at groups[0].rules[0].baseline.stat
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: mode, cold_start: fire}
      |                                                                                    ^^^^ write one of mean, median
alerts/a.yaml:13:102: `fire` is not supported yet, at groups[0].rules[0].baseline.cold_start
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: mode, cold_start: fire}
      |                                                                                                      ^^^^ write one of suppress
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: peers, over: isp, weight: clients}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:39: `isp` is not in `group_by`, at groups[0].rules[0].baseline.over
   13 |         baseline: {kind: peers, over: isp, weight: clients}
      |                                       ^^^ name one of `group_by`
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: peers, over: app_name, within: [app_name], leave_one_out: false, min_peers: 0}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:58: `app_name` is not in `group_by`, or is `over` itself, at groups[0].rules[0].baseline.within
   13 |         baseline: {kind: peers, over: app_name, within: [app_name], leave_one_out: false, min_peers: 0}
      |                                                          ^^^^^^^^ name one of `group_by`
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
      |                   ^ test ratio_to_baseline, diff_to_baseline or zscore, or take it out
",
        );
    }
}
