//! When a rule is judged, how patient it is, and what the absence of data means.
//!
//! Stands in the reading of rules; every key here may have a default in its file.
//!
//! Invariant: windows and slides are whole minutes, as gold is.

use super::super::schema::{EVAL_ERROR, NO_DATA};
use super::super::{ErrorState, NoData, NoDataState, Op, Rule};
use super::FileReader;
use super::field::Fields;
use crate::alert::{DAY_MS, MINUTE_MS};

/// A window is read again every minute; a day is 1,440 rows a group.
const MAX_WINDOW_MS: i64 = DAY_MS;
/// Longer than this an alert is a report.
pub(super) const MAX_HOLD_MS: i64 = 7 * DAY_MS;
/// Alerts of one rule that are told one by one: the most that `max_alerts` may say.
const MAX_ALERTS: i64 = 1_000;

const DEFAULT_WINDOW_MS: i64 = 5 * MINUTE_MS;
const DEFAULT_NO_DATA_AFTER_MS: i64 = 10 * MINUTE_MS;
const DEFAULT_MAX_ALERTS: usize = 50;

pub(super) struct Timing {
    pub(super) window_ms: i64,
    pub(super) slide_ms: i64,
    pub(super) lateness_ms: i64,
    pub(super) hold_ms: i64,
    pub(super) keep_firing_ms: i64,
    pub(super) no_data: NoData,
    pub(super) eval_error: ErrorState,
    pub(super) max_alerts: usize,
    pub(super) amends: bool,
    pub(super) is_early: bool,
}

impl FileReader<'_, '_> {
    /// `is_one_minute`: the windows of the metric cannot be put together.
    pub(super) fn timing(&mut self, fields: &Fields, is_one_minute: bool) -> Timing {
        let window_ms = self.duration_ms(fields, "window", MINUTE_MS, MINUTE_MS..=MAX_WINDOW_MS);
        if let Some(entry) = fields.own("window").filter(|_| is_one_minute && window_ms != Some(MINUTE_MS)) {
            let message = "the windows of this metric cannot be put together";
            self.complain(&entry.place, message, "write `window: 1m`, or take it out");
        }
        let whole_minutes = MINUTE_MS..=MAX_WINDOW_MS;
        let hold = 0..=MAX_HOLD_MS;
        let slide_ms = self.duration_ms(fields, "slide", MINUTE_MS, whole_minutes);
        let lateness_ms = self.duration_ms(fields, "lateness", 1_000, 0..=MAX_WINDOW_MS);
        let hold_ms = self.duration_ms(fields, "for", 1_000, hold.clone());
        let keep_firing_ms = self.duration_ms(fields, "keep_firing_for", 1_000, hold);
        Timing {
            window_ms: if is_one_minute {
                MINUTE_MS
            } else {
                window_ms.unwrap_or(DEFAULT_WINDOW_MS)
            },
            slide_ms: slide_ms.unwrap_or(MINUTE_MS),
            lateness_ms: lateness_ms.unwrap_or(0),
            hold_ms: hold_ms.unwrap_or(0),
            keep_firing_ms: keep_firing_ms.unwrap_or(0),
            no_data: self.no_data(fields),
            eval_error: self.eval_error(fields),
            max_alerts: self.bounded(fields, "max_alerts", 1, MAX_ALERTS).unwrap_or(DEFAULT_MAX_ALERTS),
            amends: self.amends(fields),
            is_early: self.flag(fields, "early", false),
        }
    }

    /// Without a word, alerts end when their rows do, as in Prometheus.
    fn no_data(&mut self, fields: &Fields) -> NoData {
        let ends = NoData {
            state: NoDataState::Ok,
            after_ms: 0,
        };
        let Some(fields) = fields.get("no_data").and_then(|entry| self.fields(entry, &NO_DATA)) else {
            return ends;
        };
        let states = [("ok", NoDataState::Ok), ("keep", NoDataState::Keep), ("alert", NoDataState::Alert)];
        let after_ms = self.duration_ms(&fields, "after", MINUTE_MS, 0..=MAX_HOLD_MS);
        let state = self.required(&fields, "state", "write `state: ok`, `keep` or `alert`");
        match state.and_then(|entry| self.word(&entry, &states, &[])) {
            None | Some(NoDataState::Ok) => ends,
            Some(state) => NoData {
                state,
                after_ms: after_ms.unwrap_or(DEFAULT_NO_DATA_AFTER_MS),
            },
        }
    }

    fn eval_error(&mut self, fields: &Fields) -> ErrorState {
        let states = [("ok", ErrorState::Ok), ("keep", ErrorState::Keep), ("alert", ErrorState::Alert)];
        fields
            .get("eval_error")
            .and_then(|entry| self.fields(entry, &EVAL_ERROR))
            .and_then(|fields| self.required(&fields, "state", "write `state: ok`, `keep` or `alert`"))
            .and_then(|entry| self.word(&entry, &states, &[]))
            .unwrap_or(ErrorState::Alert)
    }

    fn amends(&mut self, fields: &Fields) -> bool {
        let words = [("ignore", false), ("amend", true)];
        fields
            .get("on_late")
            .and_then(|entry| self.word(&entry, &words, &[]))
            .unwrap_or(false)
    }

    /// A sum grows while its window is open: that it is small so far says nothing.
    pub(super) fn check_early(&mut self, fields: &Fields, rule: &Rule) {
        let adds_up = rule.measure.parts().is_none() && !rule.measure.is_share();
        let is_below = rule.conditions().any(|condition| matches!(condition.op, Op::Below | Op::AtMost));
        if rule.is_early && adds_up && is_below {
            let message = "a window that is not full yet may be below the threshold for that alone";
            let fix = "take `early` out, or measure a `ratio` or a `mean`";
            self.complain(&fields.place_of("early"), message, fix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{check, parsed};
    use super::*;

    #[test]
    fn what_a_rule_does_not_say_has_the_usual_meaning() {
        let rule = parsed("min_samples: 500", "min_samples: 500");
        assert_eq!((rule.window_ms, rule.slide_ms, rule.lateness_ms), (5 * MINUTE_MS, MINUTE_MS, 0));
        assert_eq!((rule.hold_ms, rule.keep_firing_ms, rule.clear), (0, 0, None));
        assert_eq!(rule.no_data.state, NoDataState::Ok);
        assert_eq!(rule.eval_error, ErrorState::Alert);
        assert_eq!(rule.max_alerts, 50);
    }

    #[test]
    fn patience_is_read() {
        let text = "slide: 5m\n        lateness: 60s\n        keep_firing_for: 10m\n        no_data: {state: alert}\n        \
                    eval_error: {state: keep}\n        max_alerts: 5\n        on_late: amend\n        early: true";
        let rule = parsed("min_samples: 500", &format!("min_samples: 500\n        {text}"));
        assert_eq!(
            (rule.slide_ms, rule.lateness_ms, rule.keep_firing_ms),
            (5 * MINUTE_MS, MINUTE_MS, 10 * MINUTE_MS)
        );
        let silent = NoData {
            state: NoDataState::Alert,
            after_ms: 10 * MINUTE_MS,
        };
        assert_eq!((rule.no_data, rule.eval_error), (silent, ErrorState::Keep));
        assert_eq!((rule.max_alerts, rule.amends, rule.is_early), (5, true, true));
        assert!(rule.is_due(15 * MINUTE_MS) && !rule.is_due(16 * MINUTE_MS));
        let ends = |after: i64, newest: i64| {
            let ends = rule.open_ends_ms(after * MINUTE_MS, newest * MINUTE_MS);
            ends.iter().map(|end| end / MINUTE_MS).collect::<Vec<_>>()
        };
        assert_eq!((ends(4, 5), ends(4, 6), ends(5, 5)), (vec![5], vec![5, 10], vec![]));
        assert_eq!(ends(0, 1_000).len(), 10, "the newest");
    }

    #[test]
    fn an_open_window_is_not_asked_whether_it_is_full() {
        let ratio = "value: {ratio: {num: clients_with_errors, den: clients}}\n        group_by: [device_type, app_name]\n        \
                     min_samples: 500\n        condition: {test: value, op: \">\", threshold: 5%}";
        let sum = |condition: &str| {
            format!(
                "value: {{expr: sum(clients)}}\n        samples: clients\n        min_samples: 1\n        early: true\n        condition: \"{condition}\""
            )
        };
        assert!(parsed(ratio, &sum("> 100")).is_early);
        check(
            ratio,
            &sum("< 100"),
            r"
alerts/a.yaml:13:16: a window that is not full yet may be below the threshold for that alone, at groups[0].rules[0].early
   13 |         early: true
      |                ^^^^ take `early` out, or measure a `ratio` or a `mean`
",
        );
    }

    #[test]
    fn patience_that_cannot_be_is_refused() {
        check(
            "min_samples: 500",
            "min_samples: 500\n        no_data: {after: 5m}\n        max_alerts: 0\n        on_late: amends",
            r"
alerts/a.yaml:13:18: `state` is missing, at groups[0].rules[0].no_data
   13 |         no_data: {after: 5m}
      |                  ^ write `state: ok`, `keep` or `alert`
alerts/a.yaml:14:21: `max_alerts` does not fit, at groups[0].rules[0].max_alerts
   14 |         max_alerts: 0
      |                     ^ write a whole number from 1 to 1000
alerts/a.yaml:15:18: `amends` is not known here, at groups[0].rules[0].on_late
   15 |         on_late: amends
      |                  ^^^^^^ did you mean `amend`?
",
        );
    }
}
