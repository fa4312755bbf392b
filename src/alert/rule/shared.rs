//! One question for many rules.
//!
//! Stands beside `query`: rules that read the same table by the same dimensions over the same span are asked
//! together, each by aggregates of its own with its `where` as their filter. A thousand rules are then some
//! dozens of queries, and the table is read some dozens of times.
//!
//! Invariant: a rule has the same rows whether it is asked alone or with others; a group none of whose rows
//! pass its `where` has none.
//! Invariant: what cannot be filtered by the text alone is asked alone.

use std::collections::BTreeMap;

use super::query::{double, ordinals, quoted};
use super::{Rule, Sum};

/// Rules of one question: five aggregates each, and the planner's time grows faster than their number.
const RULES_MAX: usize = 32;

/// Sums that a rule has in a shared answer, after a count of its rows.
pub const SHARED_SUMS: usize = 5;

/// Indexes of rules that can be asked together, two or more; the others are asked alone.
pub fn shared(rules: &[Rule]) -> Vec<Vec<usize>> {
    let mut alike: BTreeMap<(&str, &[String], i64), Vec<usize>> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        if rule.filtered_sums().is_some() {
            alike.entry((&rule.from, &rule.group_by, rule.window_ms)).or_default().push(index);
        }
    }
    let chunks = alike.values().flat_map(|indexes| indexes.chunks(RULES_MAX));
    chunks.filter(|chunk| chunk.len() > 1).map(<[usize]>::to_vec).collect()
}

/// The question of these rules for the minutes of the windows that end from `first_ms` to `last_ms`: `window_start`,
/// the dimensions as texts, then for each rule the number of its rows, `num`, `den`, `samples` and `impacted`.
/// None where they cannot be asked together.
pub fn shared_sql(rules: &[&Rule], first_ms: i64, last_ms: i64) -> Option<String> {
    let rule = rules.first()?;
    let mut sums = Vec::with_capacity(rules.len() * SHARED_SUMS);
    for (number, rule) in rules.iter().enumerate() {
        let of_rule = rule.filtered_sums()?;
        sums.extend(
            of_rule
                .iter()
                .enumerate()
                .map(|(place, sum)| double(sum, &format!("s{number}_{place}"))),
        );
    }
    let dims: String = rule
        .group_by
        .iter()
        .map(|dim| format!("CAST({0} AS VARCHAR) AS {0}, ", quoted(dim)))
        .collect();
    Some(format!(
        "SELECT window_start, {dims}{} FROM {} WHERE {} GROUP BY {}",
        sums.join(", "),
        quoted(&rule.from),
        Rule::span_sql(first_ms.saturating_sub(rule.window_ms), last_ms),
        ordinals(1..=1 + rule.group_by.len()),
    ))
}

impl Rule {
    /// How many rows pass the rule's `where`, and its sums over them. None for windows that do not add up, and
    /// for an aggregate of which it is not plain where a filter belongs.
    fn filtered_sums(&self) -> Option<[String; SHARED_SUMS]> {
        let (num, den) = self.measure.parts()?;
        let filter = self.filter.as_deref();
        let none = || Some("0".to_owned());
        Some([
            filtered("count(*)", filter)?,
            filtered(&num.sql(), filter)?,
            filtered(&den.sql(), filter)?,
            filtered(&self.samples.sql(), filter)?,
            self.impacted.as_ref().map_or_else(none, |sum| filtered(&Sum::sql(sum), filter))?,
        ])
    }
}

/// The text with the filter behind each of its aggregates. None where there is a function that is none of the
/// two that are known to be aggregates.
fn filtered(text: &str, filter: Option<&str>) -> Option<String> {
    let Some(filter) = filter else { return Some(text.to_owned()) };
    let mut made = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('(') {
        let (before, inside) = rest.split_at(at);
        let name = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("");
        made.push_str(before);
        if name.is_empty() {
            made.push('(');
            rest = &inside[1..];
            continue;
        }
        if !matches!(name, "sum" | "count") {
            return None;
        }
        let length = closed(inside)?;
        made.push_str(&format!("{} FILTER (WHERE {filter})", &inside[..length]));
        rest = &inside[length..];
    }
    made.push_str(rest);
    Some(made)
}

/// The length of a text up to the bracket that closes its first one. None where a literal might hold one.
fn closed(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(at + 1),
            ')' => depth -= 1,
            '\'' | '"' => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::fixture::plain_rule;

    #[test]
    fn the_filter_stands_behind_each_aggregate() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(filtered(text, Some("a = 'x)'")).as_deref(), expected, "{text}");
        check("sum(b)", Some("sum(b) FILTER (WHERE a = 'x)')"));
        check(
            "8.0 * (sum(b + (c)) - count(*)) / 2",
            Some("8.0 * (sum(b + (c)) FILTER (WHERE a = 'x)') - count(*) FILTER (WHERE a = 'x)')) / 2"),
        );
        check("max(b)", None);
        check("coalesce(sum(b), 0)", None);
        check("sum(CASE WHEN a = ')' THEN 1 END)", None);
        check("1", Some("1"));
        assert_eq!(
            filtered("max(b)", None).as_deref(),
            Some("max(b)"),
            "without a filter anything goes"
        );
    }

    #[test]
    fn rules_alike_are_asked_together_and_others_alone() {
        let plain = || plain_rule(&[]);
        let named = |text: &str| plain_rule(&[("min_samples: 100", &format!("min_samples: 100\n        where: \"{text}\""))]);
        let wider = plain_rule(&[("window: 1m", "window: 5m")]);
        let rules = vec![plain(), wider, named("app_name = 'a'"), named("app_name = 'b'")];
        assert_eq!(shared(&rules), [vec![0, 2, 3]]);
        assert_eq!(shared(&rules[..2]), Vec::<Vec<usize>>::new());
        let many: Vec<Rule> = (0..RULES_MAX + 2).map(|_| plain()).collect();
        let sizes: Vec<usize> = shared(&many).iter().map(Vec::len).collect();
        assert_eq!(sizes, [RULES_MAX, 2]);
    }

    #[test]
    fn each_rule_has_its_sums_in_their_order() {
        let rules = [
            plain_rule(&[]),
            plain_rule(&[("min_samples: 100", "min_samples: 100\n        where: \"app_name = 'a'\"")]),
        ];
        let text = shared_sql(&rules.each_ref(), 1_793_563_800_000, 1_793_563_860_000).unwrap();
        assert_eq!(
            text,
            "SELECT window_start, CAST(\"device_type\" AS VARCHAR) AS \"device_type\", CAST(count(*) AS DOUBLE) AS s0_0, \
             CAST(sum(clients_with_errors) AS DOUBLE) AS s0_1, CAST(sum(clients) AS DOUBLE) AS s0_2, CAST(sum(clients) AS DOUBLE) AS s0_3, \
             CAST(0 AS DOUBLE) AS s0_4, CAST(count(*) FILTER (WHERE app_name = 'a') AS DOUBLE) AS s1_0, \
             CAST(sum(clients_with_errors) FILTER (WHERE app_name = 'a') AS DOUBLE) AS s1_1, \
             CAST(sum(clients) FILTER (WHERE app_name = 'a') AS DOUBLE) AS s1_2, CAST(sum(clients) FILTER (WHERE app_name = 'a') AS DOUBLE) AS s1_3, \
             CAST(0 AS DOUBLE) AS s1_4 FROM \"gold\".\"errors_1m\" WHERE window_start >= TIMESTAMP '2026-11-01 20:09:00' \
             AND window_start < TIMESTAMP '2026-11-01 20:11:00' GROUP BY 1, 2"
        );
    }
}
