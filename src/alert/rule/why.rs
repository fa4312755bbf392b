//! What a rule asks of the lake to find the cause of an alert.
//!
//! Stands beside `query`: one text for the window of the alert and one for what it is compared with, both
//! by the dimensions of `explain`. The rows go into `alert::cause`.
//!
//! Invariant: the minutes of the incident itself are never what it is compared with.

use super::query::{ordinals, quoted};
use super::{Baseline, Rule};
use crate::alert::cause::{Kind, Search, Worse};
use crate::alert::evaluate::MANY;
use crate::alert::{MINUTE_MS, Transition};

/// What a rule without history is compared with: this much before its first bad window.
pub(super) const BEFORE_MS: i64 = 60 * MINUTE_MS;

/// Two questions and how to look at their answers. Each answer has the dimensions as texts, in order,
/// then `num`, `den` and `samples` as doubles.
#[derive(Debug, Clone, PartialEq)]
pub struct Why {
    pub dims: Vec<String>,
    pub now: String,
    pub before: String,
    pub search: Search,
}

impl Rule {
    /// Where to look for the cause of this alert. None for a rule that does not ask, whose values do not
    /// add up over rows, and for an alert about the rule itself; for many alerts told as one it is looked
    /// for over all groups.
    pub fn why(&self, event: &Transition) -> Option<Why> {
        let explain = self.explain.as_ref()?;
        if self.is_per_window() || event.rule_state().is_some_and(|about| about != MANY) {
            return None;
        }
        let is_many = event.rule_state().is_some();
        // Inside the alert's group these have one value each, which explains nothing.
        let is_open = |dim: &&String| is_many || !self.group_by.contains(*dim);
        let dims: Vec<String> = explain.dims.iter().filter(is_open).cloned().collect();
        if dims.is_empty() {
            return None;
        }
        let group = if is_many { String::new() } else { self.group_sql(event, |_| true) };
        let (from_ms, to_ms) = (event.window_start_ms, event.window_end_ms);
        let now = self.by_dims_sql(&dims, &format!("{}{group}", self.filter_sql(from_ms, to_ms)));
        let before = self.by_dims_sql(&dims, &self.before_sql(event, &group));
        let kind = if self.is_share_of_samples() { Kind::Share } else { Kind::Mean };
        let worse = if self.condition.op.is_below() {
            Worse::Lower
        } else {
            Worse::Higher
        };
        let search = Search {
            worse,
            max_depth: explain.max_depth,
            top: explain.top,
            ..Search::new(kind)
        };
        Some(Why { dims, now, before, search })
    }

    fn by_dims_sql(&self, dims: &[String], filter: &str) -> String {
        by_dims_sql(dims, &self.history_sums_sql(), &self.from, filter)
    }

    /// The rows that the alert is compared with.
    fn before_sql(&self, event: &Transition, group: &str) -> String {
        match &self.baseline {
            Some(Baseline::History(history)) => {
                let (from_ms, to_ms, slots) = self.history_range(history, event.window_end_ms);
                format!("{}{slots}{group}", self.filter_sql(from_ms, to_ms))
            }
            Some(Baseline::Peers(peers)) if !group.is_empty() => {
                let over = &self.group_by[peers.over];
                let is_within = |name: &str| peers.within.iter().any(|index| self.group_by[*index] == name);
                let mine = event
                    .dims
                    .iter()
                    .find(|(name, _)| name == over)
                    .and_then(|(_, value)| value.as_deref());
                format!(
                    "{}{} AND ({} IS DISTINCT FROM {})",
                    self.filter_sql(event.window_start_ms, event.window_end_ms),
                    self.group_sql(event, is_within),
                    as_text(over),
                    literal(mine),
                )
            }
            _ => {
                let to_ms = event.starts_at_ms.saturating_sub(self.window_ms);
                format!("{}{group}", self.filter_sql(to_ms.saturating_sub(BEFORE_MS), to_ms))
            }
        }
    }

    /// ` AND (...)` for each of these dimensions of the alert. In parentheses: the parser takes all that follows
    /// DISTINCT FROM, further conditions too, for its right side.
    fn group_sql(&self, event: &Transition, is_meant: impl Fn(&str) -> bool) -> String {
        let dims = event.dims.iter().filter(|(name, _)| is_meant(name));
        dims.map(|(name, value)| format!(" AND ({} IS NOT DISTINCT FROM {})", as_text(name), literal(value.as_deref())))
            .collect()
    }
}

/// The dimensions as texts, in order, then the sums, of the rows that the filter lets through.
pub(super) fn by_dims_sql(dims: &[String], sums: &str, table: &str, filter: &str) -> String {
    let names: Vec<String> = dims.iter().map(|dim| format!("CAST({0} AS VARCHAR) AS {0}", quoted(dim))).collect();
    format!(
        "SELECT {}, {sums} FROM {} WHERE {filter} GROUP BY {}",
        names.join(", "),
        quoted(table),
        ordinals(1..=dims.len()),
    )
}

fn as_text(name: &str) -> String {
    format!("CAST({} AS VARCHAR)", quoted(name))
}

fn literal(value: Option<&str>) -> String {
    value.map_or("NULL".to_owned(), |value| format!("'{}'", value.replace('\'', "''")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::States;
    use crate::alert::fixture::{T0, plain_rule, row, step};

    fn why(value: &str, replaced: &[(&str, &str)]) -> Option<Why> {
        let rule = plain_rule(replaced);
        let (events, _) = step(&rule, T0, &[row(T0, &[value], 60.0, 1_000.0)], &[], &States::default());
        rule.why(&events[0])
    }

    #[test]
    fn the_alerts_own_dimensions_are_fixed_and_the_hour_before_is_what_it_is_compared_with() {
        let why = why("t'v", &[("for: 2m", "explain: {dims: [device_type, app_name]}")]).unwrap();
        assert_eq!(why.dims, ["app_name"]);
        let head = "SELECT CAST(\"app_name\" AS VARCHAR) AS \"app_name\", ";
        let group = " AND (CAST(\"device_type\" AS VARCHAR) IS NOT DISTINCT FROM 't''v') GROUP BY 1";
        for text in [&why.now, &why.before] {
            assert!(text.starts_with(head) && text.ends_with(group), "{text}");
        }
        assert!(
            why.now
                .contains("window_start >= TIMESTAMP '2026-11-01 20:09:00' AND window_start < TIMESTAMP '2026-11-01 20:10:00'"),
            "{}",
            why.now
        );
        assert!(
            why.before
                .contains("window_start >= TIMESTAMP '2026-11-01 19:09:00' AND window_start < TIMESTAMP '2026-11-01 20:09:00'"),
            "{}",
            why.before
        );
        assert_eq!((why.search.kind, why.search.worse), (Kind::Share, Worse::Higher));
    }

    #[test]
    fn two_dimensions_of_an_alert_are_two_conditions() {
        let rule = plain_rule(&[
            ("group_by: [device_type]", "group_by: [device_type, app_version]"),
            ("for: 2m", "explain: {dims: [app_name]}"),
        ]);
        let (events, _) = step(&rule, T0, &[row(T0, &["tv", "5.3.0"], 60.0, 1_000.0)], &[], &States::default());
        let now = rule.why(&events[0]).unwrap().now;
        assert!(
            now.contains("'tv') AND (CAST(\"app_version\" AS VARCHAR) IS NOT DISTINCT FROM '5.3.0')"),
            "{now}"
        );
    }

    #[test]
    fn a_rule_that_does_not_ask_is_not_answered() {
        assert_eq!(why("tv", &[("        for: 2m\n", "")]), None);
        let only_its_own = "explain: {dims: [device_type]}";
        assert_eq!(why("tv", &[("for: 2m", only_its_own)]), None, "one value explains nothing");
    }
}
