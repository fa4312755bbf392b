//! Baselines from history: the same slot of earlier days, or the slots just before.
//!
//! Stands under `baseline::of`; the rows come from `Rule::history_sql`, less those that `usable`
//! leaves out, so that an incident does not become what is usual.
//!
//! Invariant: a slot that has no value is no history.

use std::collections::BTreeMap;

use super::super::rule::{Baseline, History, Rule, Shape, Stat, slot_of};
use super::super::state::AlertState;
use super::super::transition::{Fingerprint, Status, Transition};
use super::super::window::{Dims, SlotRow, Totals};
use super::super::{DAY_MS, States};
use super::{Found, deviation, median, median_spread};

/// When alerts were firing, by fingerprint: from the start of the first breaching window (inclusive)
/// to the end of the last (exclusive), epoch ms.
pub type FiringSpans = BTreeMap<Fingerprint, Vec<(i64, i64)>>;

/// The spans of past episodes in `events`, and those of what fires still, which are open.
pub fn firing_spans<'e>(events: impl IntoIterator<Item = &'e Transition>, states: &States) -> FiringSpans {
    let mut spans = FiringSpans::new();
    let mut add = |event: &Transition, to_ms: i64| {
        let window_ms = event.window_end_ms.saturating_sub(event.window_start_ms);
        let from_ms = event.starts_at_ms.saturating_sub(window_ms);
        spans.entry(event.fingerprint.clone()).or_default().push((from_ms, to_ms));
    };
    for event in events.into_iter().filter(|event| event.status == Status::Resolved) {
        add(event, event.ends_at_ms.unwrap_or(event.window_end_ms));
    }
    for state in states.iter().filter(|state| state.status().is_firing()) {
        add(AlertState::last(state), i64::MAX);
    }
    spans
}

/// The history that a rule may lean on: without the slots in which the group's own alert was firing,
/// unless the rule says otherwise, and without the days of the calendars that it excludes.
pub fn usable(rule: &Rule, history: Vec<SlotRow>, spans: &FiringSpans) -> Vec<SlotRow> {
    let Some(Baseline::History(wanted)) = &rule.baseline else {
        return history;
    };
    let is_usable = |row: &SlotRow| {
        let from_ms = start_of(row, wanted.slot_ms);
        let is_excluded_day = wanted.exclude_days.iter().any(|calendar| calendar.contains(from_ms));
        let is_incident = wanted.exclude_firing && was_firing(rule, row, from_ms, wanted.slot_ms, spans);
        !is_excluded_day && !is_incident
    };
    history.into_iter().filter(is_usable).collect()
}

fn was_firing(rule: &Rule, row: &SlotRow, from_ms: i64, slot_ms: i64, spans: &FiringSpans) -> bool {
    if spans.is_empty() {
        return false;
    }
    let dims: Vec<_> = rule.group_by.iter().cloned().zip(row.dims.iter().cloned()).collect();
    let to_ms = from_ms.saturating_add(slot_ms);
    let overlaps = |(start, end): &(i64, i64)| *start < to_ms && from_ms < *end;
    spans
        .get(&Fingerprint::of(&rule.uid, &dims))
        .is_some_and(|spans| spans.iter().any(overlaps))
}

fn start_of(row: &SlotRow, slot_ms: i64) -> i64 {
    i64::from(row.day)
        .saturating_mul(DAY_MS)
        .saturating_add(i64::from(row.slot).saturating_mul(slot_ms))
}

/// One slot of a group: how many slots or days before the window it lies, and its sums.
struct Point {
    age: i64,
    totals: Totals,
}

pub(super) fn of(wanted: &History, window_end_ms: i64, window_ms: i64, rows: &[SlotRow]) -> BTreeMap<Dims, Found> {
    let mut points: BTreeMap<&Dims, Vec<Point>> = BTreeMap::new();
    for row in rows {
        let totals = Totals::from(row);
        if let (Some(age), Some(_)) = (age(wanted, window_end_ms, window_ms, row), totals.value()) {
            points.entry(&row.dims).or_default().push(Point { age, totals });
        }
    }
    let mut found = BTreeMap::new();
    for (dims, points) in points {
        if let Some(baseline) = of_points(wanted, points) {
            found.insert(dims.clone(), baseline);
        }
    }
    found
}

/// How far before the window a row lies, from 1; none for a row that is not meant.
fn age(wanted: &History, window_end_ms: i64, window_ms: i64, row: &SlotRow) -> Option<i64> {
    let (today, slot) = slot_of(window_end_ms, wanted.slot_ms);
    let age = match wanted.shape {
        Shape::SameSlot if i64::from(row.slot) == slot => today.saturating_sub(i64::from(row.day)),
        Shape::SameSlotWeekly if i64::from(row.slot) == slot => {
            let days = today.saturating_sub(i64::from(row.day));
            if days % 7 != 0 {
                return None;
            }
            days / 7
        }
        Shape::Trailing | Shape::Ewma { .. } => {
            let first = window_end_ms.saturating_sub(window_ms).div_euclid(wanted.slot_ms);
            first.saturating_sub(start_of(row, wanted.slot_ms).div_euclid(wanted.slot_ms))
        }
        _ => return None,
    };
    (1..=wanted.lookback).contains(&age).then_some(age)
}

fn of_points(wanted: &History, points: Vec<Point>) -> Option<Found> {
    let mut by_age: BTreeMap<i64, Vec<Totals>> = BTreeMap::new();
    for point in points {
        by_age.entry(point.age).or_default().push(point.totals);
    }
    let slots: Vec<(i64, Totals)> = by_age.into_iter().map(|(age, parts)| (age, Totals::sum(parts))).collect();
    let values: Vec<f64> = slots.iter().filter_map(|(_, totals)| totals.value()).collect();
    if i64::try_from(slots.len()).unwrap_or(i64::MAX) < wanted.min_history {
        return None;
    }
    let (value, spread) = match (wanted.shape, wanted.stat) {
        (Shape::Ewma { half_life }, _) => weighted(&slots, half_life)?,
        (_, Stat::Median) => (median(&values)?, median_spread(&values)),
        (_, Stat::Mean) => {
            let pooled = Totals::sum(slots.iter().map(|(_, totals)| *totals).collect());
            (pooled.value()?, deviation(&values))
        }
    };
    Some(Found {
        value,
        points: slots.len(),
        spread,
    })
}

/// Level and spread in which a slot counts half as much as one that is `half_life` slots younger.
/// Sums are weighted, not values, so that a thin slot counts little.
fn weighted(slots: &[(i64, Totals)], half_life: f64) -> Option<(f64, Option<f64>)> {
    let weight = |age: i64| 0.5f64.powf(age as f64 / half_life);
    let mut pooled = Totals::default();
    for (age, totals) in slots.iter().rev() {
        let by = weight(*age);
        pooled.num += totals.num * by;
        pooled.den += totals.den * by;
    }
    let level = pooled.value()?;
    let (mut squares, mut weights) = (0.0, 0.0);
    for (age, totals) in slots.iter().rev() {
        let value = totals.value()?;
        squares += weight(*age) * (value - level) * (value - level);
        weights += weight(*age);
    }
    let spread = (slots.len() > 1).then(|| (squares / weights).sqrt());
    Some((level, spread))
}

#[cfg(test)]
mod tests {
    use super::super::super::MINUTE_MS;
    use super::super::super::fixture::{T0, plain_rule, row, step};
    use super::*;

    fn wanted(shape: Shape, slot_ms: i64, lookback: i64, min_history: i64) -> History {
        History {
            shape,
            slot_ms,
            lookback,
            min_history,
            stat: Stat::Mean,
            exclude_firing: true,
            exclude_days: Vec::new(),
        }
    }

    fn slot_row(day: i64, slot: i32, num: f64, den: f64) -> SlotRow {
        SlotRow {
            day: i32::try_from(day).unwrap(),
            slot,
            dims: vec![Some("tv".to_owned())],
            num,
            den,
            samples: den,
        }
    }

    const HOUR_MS: i64 = 60 * MINUTE_MS;
    const TODAY: i64 = T0 / DAY_MS;

    #[track_caller]
    fn check(wanted: &History, rows: &[SlotRow], expected: Option<(f64, usize, Option<f64>)>) {
        let found = of(wanted, T0, 5 * MINUTE_MS, rows);
        let found = found.values().next().map(|found| (found.value, found.points, found.spread));
        assert_eq!(found, expected);
    }

    #[test]
    fn same_slot_divides_once_and_wants_enough_days() {
        let rows = [
            slot_row(TODAY - 1, 20, 100.0, 1.0),
            slot_row(TODAY - 2, 20, 900.0, 9.0),
            slot_row(TODAY - 3, 20, 2_000.0, 10.0),
            slot_row(TODAY - 1, 21, 9.0, 1.0),
            slot_row(TODAY - 8, 20, 9.0, 1.0),
            slot_row(TODAY, 20, 9.0, 1.0),
        ];
        let spread = deviation(&[100.0, 100.0, 200.0]);
        check(&wanted(Shape::SameSlot, HOUR_MS, 7, 3), &rows, Some((150.0, 3, spread)));
        check(&wanted(Shape::SameSlot, HOUR_MS, 7, 4), &rows, None);
    }

    #[test]
    fn a_day_without_data_is_no_day_of_history() {
        let rows = [
            slot_row(TODAY - 1, 20, 100.0, 1.0),
            slot_row(TODAY - 2, 20, 0.0, 0.0),
            slot_row(TODAY - 2, 20, f64::NAN, 4.0),
        ];
        check(&wanted(Shape::SameSlot, HOUR_MS, 7, 2), &rows, None);
        check(&wanted(Shape::SameSlot, HOUR_MS, 7, 1), &rows, Some((100.0, 1, None)));
    }

    #[test]
    fn the_median_of_weeks_forgets_one_bad_week() {
        let weeks = [(1, 10.0), (2, 12.0), (3, 900.0), (4, 11.0)];
        let mut rows: Vec<SlotRow> = weeks.iter().map(|(week, num)| slot_row(TODAY - 7 * week, 20, *num, 1.0)).collect();
        rows.push(slot_row(TODAY - 1, 20, 5_000.0, 1.0));
        let median = History {
            stat: Stat::Median,
            ..wanted(Shape::SameSlotWeekly, HOUR_MS, 4, 3)
        };
        let spread = median_spread(&[10.0, 12.0, 900.0, 11.0]);
        check(&median, &rows, Some((11.5, 4, spread)));
    }

    #[test]
    fn the_trailing_mean_ends_before_the_window() {
        // The window begins at 20:05; slots of 5 minutes from 19:50 on.
        let slot = |index: i32, num: f64| slot_row(TODAY, index, num, 1.0);
        let rows = [
            slot(238, 10.0),
            slot(239, 20.0),
            slot(240, 30.0),
            slot(241, 900.0),
            slot(237, 900.0),
        ];
        let five = 5 * MINUTE_MS;
        check(&wanted(Shape::Trailing, five, 3, 2), &rows, Some((20.0, 3, Some(10.0))));
        let at_midnight = of(
            &wanted(Shape::Trailing, five, 3, 1),
            TODAY * DAY_MS + five,
            five,
            &[slot_row(TODAY - 1, 287, 7.0, 1.0)],
        );
        assert_eq!(
            at_midnight.values().map(|found| found.value).collect::<Vec<_>>(),
            [7.0],
            "a day has 288 slots"
        );
    }

    #[test]
    fn a_slot_counts_half_after_its_half_life() {
        let slot = |index: i32, num: f64| slot_row(TODAY, index, num, 1.0);
        let ewma = wanted(Shape::Ewma { half_life: 1.0 }, 5 * MINUTE_MS, 10, 2);
        let found = of(&ewma, T0, 5 * MINUTE_MS, &[slot(240, 40.0), slot(239, 10.0)]);
        let level = found.values().next().unwrap().value;
        assert!((level - 30.0).abs() < 1e-12, "two thirds of 40 and a third of 10: {level}");
    }

    #[test]
    fn an_incident_does_not_become_what_is_usual() {
        let text = "baseline: {kind: trailing, slot: 5m, lookback: 1h, min_history: 10m}\n        condition: {test: ratio_to_baseline";
        let rule = plain_rule(&[("condition: {test: value", text), ("        for: 2m\n", "")]);
        let slots = |from: i32, to: i32| (from..to).map(|slot| slot_row(TODAY, slot, 10.0, 1_000.0)).collect::<Vec<_>>();
        let (events, states) = step(&rule, T0, &[row(T0, &["tv"], 60.0, 1_000.0)], &slots(230, 241), &States::default());
        assert_eq!(events.len(), 1);
        let spans = firing_spans(&[], &states);
        let left = usable(&rule, slots(236, 248), &spans);
        let last = left.last().map(|row| row.slot);
        assert_eq!(last, Some(240), "the window of 20:09 lies in the slot of 20:05, number 241");
        let later = T0 + 10 * MINUTE_MS;
        let (events, states) = step(&rule, later, &[row(later, &["tv"], 5.0, 1_000.0)], &slots(230, 241), &states);
        assert_eq!(events[0].status, Status::Resolved);
        let spans = firing_spans(&events, &states);
        let slots: Vec<i32> = usable(&rule, slots(239, 246), &spans).iter().map(|row| row.slot).collect();
        assert_eq!(slots, [239, 240, 244, 245]);
    }
}
