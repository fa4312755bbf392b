//! What holds for any rows: their order, their division and the unit of their sums change nothing.

use proptest::prelude::*;

use super::{CAUSES_MAX, Counts, DEPTH_MAX, Explanation, Kind, Rows, Search, Worse, explain};

type Raw = (Vec<Option<String>>, Counts);

fn amount() -> BoxedStrategy<f64> {
    prop_oneof![8 => (0u32..5_000).prop_map(f64::from), 1 => any::<f64>(), 1 => (0u32..5_000).prop_map(|n| f64::from(n) / 10.0)].boxed()
}

fn raw(amount: BoxedStrategy<f64>) -> impl Strategy<Value = Raw> {
    let value = prop_oneof![1 => Just(None), 6 => "[abc]".prop_map(Some)];
    let values = prop::collection::vec(value, 3);
    (values, (amount.clone(), amount.clone(), amount.clone()), (amount.clone(), amount)).prop_map(
        |(values, (num, den, samples), (base_num, base_den))| {
            let counts = Counts {
                num,
                den,
                samples,
                base_num,
                base_den,
            };
            (values, counts)
        },
    )
}

fn of(raw: &[Raw]) -> Rows {
    let mut rows = Rows::new(&["x", "y", "z"]).unwrap();
    for (values, counts) in raw {
        let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
        rows.push_texts(&values, *counts).unwrap();
    }
    rows
}

fn searches() -> impl Strategy<Value = Search> {
    let kind = prop_oneof![Just(Kind::Share), Just(Kind::Mean)];
    let worse = prop_oneof![Just(Worse::Higher), Just(Worse::Lower)];
    (kind, worse, 0usize..6, 0usize..6).prop_map(|(kind, worse, max_depth, top)| Search {
        kind,
        worse,
        max_depth,
        top,
    })
}

proptest! {
    #[test]
    fn the_order_of_the_rows_changes_nothing(raws in prop::collection::vec(raw(amount()), 0..60), search in searches(), turn in 0usize..60) {
        let found = explain(&of(&raws), search);
        let mut turned = raws.clone();
        turned.reverse();
        turned.rotate_left(turn.min(raws.len()));
        prop_assert_eq!(&explain(&of(&turned), search), &found);
        prop_assert!(found.candidates.len() <= CAUSES_MAX);
        for cause in &found.candidates {
            prop_assert!((1..=DEPTH_MAX).contains(&cause.dims.len()));
            prop_assert!((0.0..=1.05).contains(&cause.explains), "{:?}", cause);
            prop_assert!((0.0..=1.0).contains(&cause.share), "{:?}", cause);
        }
        let json = serde_json::to_string(&found).unwrap();
        let read: Explanation = serde_json::from_str(&json).unwrap();
        prop_assert_eq!((read.answer, read.candidates.len()), (found.answer, found.candidates.len()));
    }

    #[test]
    fn rows_of_one_combination_are_one(raws in prop::collection::vec(raw((0u32..5_000).prop_map(f64::from).boxed()), 1..40), search in searches()) {
        let halves = |(values, counts): &Raw| {
            let part = |all: f64| (all / 3.0).floor();
            let one = Counts {
                num: part(counts.num), den: part(counts.den), samples: part(counts.samples),
                base_num: part(counts.base_num), base_den: part(counts.base_den),
            };
            let other = Counts {
                num: counts.num - one.num, den: counts.den - one.den, samples: counts.samples - one.samples,
                base_num: counts.base_num - one.base_num, base_den: counts.base_den - one.base_den,
            };
            [(values.clone(), one), (values.clone(), other)]
        };
        let split: Vec<Raw> = raws.iter().flat_map(halves).collect();
        prop_assert_eq!(explain(&of(&split), search), explain(&of(&raws), search));
    }

    #[test]
    fn the_unit_of_a_mean_changes_nothing(raws in prop::collection::vec(raw((1u32..5_000).prop_map(f64::from).boxed()), 1..40)) {
        let search = Search::new(Kind::Mean);
        let scaled = |(values, counts): &Raw| {
            (values.clone(), Counts { num: counts.num * 1_024.0, base_num: counts.base_num * 1_024.0, ..*counts })
        };
        let scaled: Vec<Raw> = raws.iter().map(scaled).collect();
        let (one, other) = (explain(&of(&raws), search), explain(&of(&scaled), search));
        prop_assert_eq!(one.answer, other.answer);
        let shape = |found: &Explanation| -> Vec<_> {
            found.candidates.iter().map(|cause| (cause.dims.clone(), cause.explains, cause.score)).collect()
        };
        prop_assert_eq!(shape(&one), shape(&other));
    }
}
