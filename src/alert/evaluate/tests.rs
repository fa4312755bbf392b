//! The evaluation of whole rules: the three shipped ones, edits while something is open, and properties.

use super::super::fixture::{FIRING, GONE, Gold, HASH, NOTHING, T0, check, plain_rule, row, seed_files, seed_rule, step, told};
use super::super::rule::parse_rules;
use super::super::{DAY_MS, MINUTE_MS, message};
use super::*;

#[test]
fn an_edit_of_group_by_closes_what_was_open() {
    let before = plain_rule(&[("        for: 2m\n", "")]);
    let end_ms = T0 + MINUTE_MS;
    let rows = [row(end_ms, &["tv"], 60.0, 1_000.0)];
    let (_, states) = step(&before, end_ms, &rows, &[], &States::default());
    let after = plain_rule(&[("[device_type]", "[app_name]")]);
    let (events, states) = step(&after, end_ms + MINUTE_MS, &[], &[], &states);
    let told: Vec<_> = events.iter().map(|e| (e.status, e.reason, e.seq)).collect();
    assert_eq!(told, [(Status::Resolved, Reason::RuleChanged, 2)]);
    assert_eq!(events[0].dims, [("device_type".to_owned(), Some("tv".to_owned()))]);
    assert!(states.is_empty());
}

#[test]
fn an_edit_that_keeps_uid_and_group_by_keeps_the_alert() {
    let before = plain_rule(&[("        for: 2m\n", "")]);
    let end_ms = T0 + MINUTE_MS;
    let rows = [row(end_ms, &["tv"], 60.0, 1_000.0)];
    let (_, states) = step(&before, end_ms, &rows, &[], &States::default());
    let after = plain_rule(&[("alert: Errors", "alert: Renamed")]);
    let rows = [row(end_ms + MINUTE_MS, &["tv"], 60.0, 1_000.0)];
    let (events, kept) = step(&after, end_ms + MINUTE_MS, &rows, &[], &states);
    assert_eq!(events, []);
    assert_eq!(kept, states);
}

#[test]
fn a_removed_rule_closes_its_alerts_and_leaves_the_others() {
    let rule = plain_rule(&[("        for: 2m\n", "")]);
    let other = seed_rule("playback-error-share");
    let end_ms = T0 + MINUTE_MS;
    let rows = [row(end_ms, &["tv"], 60.0, 1_000.0)];
    let (_, states) = step(&rule, end_ms, &rows, &[], &States::default());
    let rows = [row(end_ms, &["tv", "main"], 600.0, 1_000.0)];
    let (_, states) = step(&other, end_ms, &rows, &[], &states);
    assert_eq!(states.len(), 2, "states of other rules come back untouched");
    let events = close_removed(&[other], end_ms + MINUTE_MS, &states, HASH);
    let mut left = states.clone();
    left.apply_all(&events);
    let told: Vec<_> = events.iter().map(|e| (e.rule_uid.as_str(), e.status, e.reason)).collect();
    assert_eq!(told, [("errors", Status::Resolved, Reason::RuleChanged)]);
    let uids: Vec<_> = left.iter().map(|state| state.last().rule_uid.as_str()).collect();
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
    let (events, states) = step(&rule, T0, &rows, &[], &States::default());
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
    let (events, _) = step(&rule, later, &rows, &[], &states);
    assert_eq!(events[0].status, Status::Firing);
    let (events, _) = step(&rule, later, &rows[..3], &[], &states);
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
    let (events, _) = step(&rule, T0, &rows, &[], &States::default());
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
    let run = |mean: f64, history: &[SlotRow]| step(&rule, T0, &rows(mean), history, &States::default()).0;
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
fn a_rule_without_any_rows_may_be_an_alert_of_its_own() {
    let rule = plain_rule(&[("for: 2m", "no_data: {state: alert, after: 1m}")]);
    check(&rule, &[GONE, GONE, GONE], &["pending no_data 0", "firing no_data 1", NOTHING]);
    let (events, states) = step(&rule, T0, &[], &[], &States::default());
    assert_eq!(events[0].dims, [("rule_state".to_owned(), Some("no_data".to_owned()))]);
    let later = T0 + MINUTE_MS;
    let (_, states) = step(&rule, later, &[], &[], &states);
    let later = later + MINUTE_MS;
    let (events, states) = step(&rule, later, &[row(later, &["tv"], 10.0, 1_000.0)], &[], &states);
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), ["resolved data_returned 2"]);
    assert!(states.is_empty());
}

#[test]
fn a_failed_query_is_told_after_for_and_ends_nothing() {
    let rule = plain_rule(&[]);
    let minute = |n: i64| T0 + n * MINUTE_MS;
    let bad = |n: i64| row(minute(n), &["tv"], 60.0, 1_000.0);
    let mut states = States::default();
    let mut all = Vec::new();
    for n in 0..7 {
        let events = if (1..=4).contains(&n) {
            evaluate_failed(&rule, minute(n), &states, HASH)
        } else {
            evaluate(&rule, minute(n), &[bad(n)], &[], &states, HASH)
        };
        states.apply_all(&events);
        all.push(events.iter().map(told).collect::<Vec<_>>().join(", "));
    }
    let expected = [
        "pending threshold 0",
        "pending eval_error 0",
        "",
        "firing eval_error 1",
        "",
        "firing threshold 1, resolved data_returned 2",
        "",
    ];
    assert_eq!(all, expected);
}

#[test]
fn a_failed_query_may_end_alerts_or_mean_nothing() {
    let outcome = |state: &str| {
        let rule = plain_rule(&[("for: 2m", &format!("eval_error: {{state: {state}}}"))]);
        let (_, states) = step(&rule, T0, &[row(T0, &["tv"], 60.0, 1_000.0)], &[], &States::default());
        let events = evaluate_failed(&rule, T0 + MINUTE_MS, &states, HASH);
        events.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(outcome("ok"), ["resolved eval_error 2"]);
    assert_eq!(outcome("keep"), Vec::<String>::new());
    assert_eq!(outcome("alert"), [FIRING.replace("threshold", "eval_error")]);
}

#[test]
fn between_two_slides_nothing_is_judged() {
    let rule = plain_rule(&[("for: 2m", "slide: 2m")]);
    let events = |n: i64| {
        step(
            &rule,
            T0 + n * MINUTE_MS,
            &[row(T0 + n * MINUTE_MS, &["tv"], 60.0, 1_000.0)],
            &[],
            &States::default(),
        )
        .0
    };
    assert_eq!((events(0).len(), events(1).len()), (1, 0));
}

#[test]
fn a_score_far_from_the_usual_fires() {
    let text = "baseline: {kind: same_slot, slot: 1h, min_history: 3d}\n        condition: {test: zscore, op: \">\", threshold: 4}";
    let rule = plain_rule(&[
        ("condition: {test: value, op: \">\", threshold: 5%}", text),
        ("        for: 2m\n", ""),
    ]);
    let today = i32::try_from(T0 / DAY_MS).unwrap();
    let history: Vec<SlotRow> = [0.010, 0.011, 0.009, 0.010]
        .iter()
        .zip(1..)
        .map(|(share, back)| SlotRow {
            day: today - back,
            slot: 20,
            dims: vec![Some("tv".to_owned())],
            num: share * 1_000.0,
            den: 1_000.0,
            samples: 1_000.0,
        })
        .collect();
    let run = |num: f64| step(&rule, T0, &[row(T0, &["tv"], num, 1_000.0)], &history, &States::default()).0;
    assert_eq!(run(13.0), [], "3.7 spreads");
    let events = run(14.0);
    let spread = events[0].baseline.as_ref().and_then(|baseline| baseline.spread).unwrap();
    assert!((spread - 0.000_816).abs() < 1e-6, "{spread}");
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
            impacted: 0.0,
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
                    step(&rule, end_ms, &rows, &history, &States::default());
                let mut turned = rows.clone();
                turned.reverse();
                let mut past = history.clone();
                past.reverse();
                let (again, _) = step(&rule, end_ms, &turned, &past, &States::default());
                prop_assert_eq!(format!("{first:?}"), format!("{again:?}"));
                let later = end_ms.saturating_add(15 * MINUTE_MS);
                let (second, _) = step(&rule, later, &rows, &history, &states);
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
