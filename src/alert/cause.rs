//! Causes: which dimension values explain that a figure is worse than its baseline.
//!
//! Stands behind `evaluate`: when an alert fires, its window and its baseline are counted by the
//! dimensions of `explain`, and `explain` finds the smallest sets of values that cover the excess.
//! It is excess coverage search with deflation (alerts spec 3.4). "No single cause" is an answer.
//!
//! What a leaf exceeds is reckoned against its own usual ratio (`expect`): a mere change of the
//! traffic mix blames nobody.
//!
//! Invariant: no clock, no randomness; the same rows give the same answer, bit for bit, in whatever
//! order they come.
//! Invariant: the causes of one answer are disjoint: a session counts for one of them at most.

mod expect;
#[cfg(test)]
mod properties;
mod rows;
mod search;
#[cfg(test)]
pub(crate) mod simulation;
mod table;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::message::{clean, quantity};
use super::transition::rounded;
use expect::Sums;
pub use rows::{Counts, DIMENSIONS_MAX, ROWS_MAX, Rows, RowsError, ValueId};
use search::{Found, Noise};
use table::Table;

/// Names the rules of this search in stored causes; changes when an answer may change.
pub const METHOD: &str = "excess-coverage/1";
/// Values that one cause may name at most. More are hardly a cause, and each one more makes the
/// search several times as long.
pub const DEPTH_MAX: usize = 4;
pub const DEPTH_DEFAULT: usize = 3;
/// Causes of one answer. What a fourth fault explains beside three is hardly more than chance.
pub const CAUSES_MAX: usize = 3;
/// A cause that explains this much is the main one.
const MAIN_EXPLAINS: f64 = 0.5;
/// How much more the leaves must vary than thought before the search is made again.
const DISPERSION_TOLD: f64 = 1.5;

/// What the figure is, and so how far chance moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The numerator counts a part of what the denominator counts: failed starts of attempts.
    Share,
    /// Any other quotient of sums: milliseconds per request, waiting of watched time.
    Mean,
}

/// Which change is the bad one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worse {
    #[default]
    Higher,
    Lower,
}

/// What to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    pub kind: Kind,
    pub worse: Worse,
    /// Values that a cause may name, 1 to `DEPTH_MAX`; others are taken for the nearest of these.
    pub max_depth: usize,
    /// Causes to name, 1 to `CAUSES_MAX`; others likewise.
    pub top: usize,
}

impl Search {
    pub fn new(kind: Kind) -> Search {
        Search {
            kind,
            worse: Worse::Higher,
            max_depth: DEPTH_DEFAULT,
            top: CAUSES_MAX,
        }
    }

    fn bounded(self) -> Search {
        Search {
            max_depth: self.max_depth.clamp(1, DEPTH_MAX),
            top: self.top.clamp(1, CAUSES_MAX),
            ..self
        }
    }
}

/// The answer to "why?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// At least one cause was found.
    Found,
    /// There is an excess, but no set of values explains enough of it: it is everywhere.
    NoSingleCause,
    /// The whole is no worse than its leaves' own baselines let expect: chance, or another mix of
    /// the same traffic.
    NoExcess,
    /// The baseline has counted nothing.
    NoBaseline,
}

/// How much a cause accounts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Half of the excess or more.
    Main,
    /// Less: one of several.
    Part,
}

/// One set of values that explains a part of the excess. Numbers have nine digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// `None` is the unknown value.
    pub dims: BTreeMap<String, Option<String>>,
    /// Share of the total excess, 0 to 1.05.
    pub explains: f64,
    /// Share of the denominator that is touched.
    pub share: f64,
    /// `explains` less half of `share`, both of what earlier causes had left.
    pub score: f64,
    pub verdict: Verdict,
    /// Numerator above what the baseline lets expect (below, where lower is worse).
    pub excess: f64,
    /// The ratio in the window; none without a denominator.
    pub value: Option<f64>,
    /// The ratio in the baseline; none where it has counted nothing of this set.
    pub baseline: Option<f64>,
    pub samples: f64,
}

/// What explains a change. Its JSON is the `cause` of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub method: String,
    pub answer: Answer,
    /// Numerator above what the leaves' own baselines let expect, over everything.
    pub excess: f64,
    /// What chance does to `excess`: one standard deviation.
    pub noise: f64,
    /// The best first. None of the leaves of a cause are in a later one.
    pub candidates: Vec<Cause>,
}

/// Looks for the causes of the excess in these rows.
pub fn explain(rows: &Rows, search: Search) -> Explanation {
    let search = search.bounded();
    let leaves = rows.leaves();
    let Some(expected) = expect::expected(&leaves, &search) else {
        return Explanation::without_causes(Answer::NoBaseline, 0.0, 0.0);
    };
    let mut total = Sums::default();
    expected.sums.iter().for_each(|leaf| total.add(leaf));
    let mut noise = Noise {
        sign: if search.worse == Worse::Higher { 1.0 } else { -1.0 },
        dispersion: 1.0,
        unit_variance: expected.unit_variance,
        prior_den: expected.prior_den,
    };
    let excess = noise.excess(&total);
    if !noise.is_significant(&total, search::SEARCH_SIGMAS) {
        return Explanation::without_causes(Answer::NoExcess, excess, noise.sigma(&total));
    }
    let mut table = Table::new(&leaves, &expected, &noise, search::EXPLAINS_MIN * excess);
    let mut outcome = search::causes(&table, &noise, &search, &total);
    let dispersion = search::dispersion(&leaves, &expected, &table, &outcome.left);
    if dispersion > DISPERSION_TOLD {
        noise.dispersion = dispersion;
        table = Table::new(&leaves, &expected, &noise, search::EXPLAINS_MIN * excess);
        outcome = search::causes(&table, &noise, &search, &total);
    }
    let answer = match (outcome.causes.is_empty(), noise.is_significant(&total, search::TOTAL_SIGMAS)) {
        (false, _) => Answer::Found,
        (true, true) => Answer::NoSingleCause,
        (true, false) => Answer::NoExcess,
    };
    let mut explanation = Explanation::without_causes(answer, excess, noise.sigma(&total));
    let named = |cause: &Found| Cause::named(cause, &leaves, &noise, &total);
    explanation.candidates = outcome.causes.iter().map(named).collect();
    explanation
}

impl Explanation {
    fn without_causes(answer: Answer, excess: f64, noise: f64) -> Explanation {
        Explanation {
            method: METHOD.to_owned(),
            answer,
            excess: rounded(excess),
            noise: rounded(noise),
            candidates: Vec::new(),
        }
    }

    /// A line per cause, or one that says why there is none.
    pub fn lines(&self, wording: Wording) -> Vec<String> {
        let line = match self.answer {
            Answer::Found => return self.candidates.iter().map(|cause| cause.line(wording)).collect(),
            Answer::NoSingleCause => "no single cause: it is worse everywhere",
            Answer::NoExcess => "no cause: every part is as its own baseline lets expect, only their mix may differ",
            Answer::NoBaseline => "no cause: the baseline has counted nothing to compare with",
        };
        vec![line.to_owned()]
    }
}

/// The words around the numbers of a cause.
#[derive(Debug, Clone, Copy)]
pub struct Wording<'w> {
    /// What the ratio is: `error rate`.
    pub value: &'w str,
    /// `ratio`, `ms`, ...; none where it has none.
    pub unit: Option<&'w str>,
    /// What a sample is: `sessions`.
    pub samples: &'w str,
}

impl Cause {
    fn named(found: &Found, leaves: &rows::Leaves, noise: &Noise, total: &Sums) -> Cause {
        let name = |(dimension, value): &(usize, u32)| {
            let text = leaves.texts[*dimension][*value as usize].clone();
            (leaves.dimensions[*dimension].clone(), text)
        };
        let excess = noise.excess(&found.sums);
        let explains = (excess / noise.excess(total)).clamp(0.0, search::EXPLAINS_MAX);
        Cause {
            dims: found.set.iter().map(name).collect(),
            explains: rounded(explains),
            share: rounded(found.sums.den / total.den),
            score: rounded(found.score),
            verdict: if explains >= MAIN_EXPLAINS { Verdict::Main } else { Verdict::Part },
            excess: rounded(excess),
            value: quotient(found.sums.num, found.sums.den),
            baseline: quotient(found.sums.base_num, found.sums.base_den),
            samples: rounded(found.sums.samples),
        }
    }

    /// `cdn=fastly, pop=FRA explains 83 % of the excess (error rate 12.1 %, before 2 %, 4,310 sessions)`
    pub fn line(&self, wording: Wording) -> String {
        let Wording { value, unit, samples } = wording;
        let figure = |figure: Option<f64>| figure.map_or("unknown".to_owned(), |figure| quantity(figure, unit));
        format!(
            "{self} explains {:.0} % of the excess ({value} {}, before {}, {} {samples})",
            (self.explains * 100.0).min(100.0),
            figure(self.value),
            figure(self.baseline),
            quantity(self.samples.round(), None),
        )
    }
}

/// `cdn=fastly, pop=FRA`
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, (dimension, value)) in self.dims.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            let value = value.as_deref().map_or("unknown".to_owned(), clean);
            write!(f, "{separator}{dimension}={value}")?;
        }
        Ok(())
    }
}

fn quotient(num: f64, den: f64) -> Option<f64> {
    (den > 0.0).then(|| rounded(num / den))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `values` apart by spaces, `-` is unknown; numerator and denominator of the window, of the
    /// baseline.
    type Row = (&'static str, (u32, u32), (u32, u32));

    fn rows(dimensions: &str, data: &[Row]) -> Rows {
        let names: Vec<&str> = dimensions.split(' ').collect();
        let mut rows = Rows::new(&names).unwrap();
        for (values, (num, den), (base_num, base_den)) in data {
            let values: Vec<Option<&str>> = values.split(' ').map(|value| (value != "-").then_some(value)).collect();
            rows.push_texts(&values, counts(*num, *den, *base_num, *base_den)).unwrap();
        }
        rows
    }

    fn counts(num: u32, den: u32, base_num: u32, base_den: u32) -> Counts {
        Counts {
            num: f64::from(num),
            den: f64::from(den),
            samples: f64::from(den),
            base_num: f64::from(base_num),
            base_den: f64::from(base_den),
        }
    }

    const ERRORS: Wording = Wording {
        value: "error rate",
        unit: Some("ratio"),
        samples: "sessions",
    };

    fn check(dimensions: &str, data: &[Row], expected: &[&str]) {
        let found = explain(&rows(dimensions, data), Search::new(Kind::Share));
        assert_eq!(found.lines(ERRORS), expected, "{found:#?}");
    }

    #[test]
    fn one_pop_of_one_cdn() {
        let data = [
            ("fastly FRA", (521, 4_310), (430, 21_500)),
            ("fastly MAD", (82, 4_000), (400, 20_000)),
            ("akamai FRA", (119, 6_000), (600, 30_000)),
            ("akamai MAD", (101, 5_000), (500, 25_000)),
        ];
        check(
            "cdn pop",
            &data,
            &["cdn=fastly, pop=FRA explains 100 % of the excess (error rate 12.1 %, before 2 %, 4,310 sessions)"],
        );
    }

    #[test]
    fn all_pops_of_a_cdn_are_the_cdn() {
        let data = [
            ("fastly FRA", (400, 4_000), (400, 20_000)),
            ("fastly MAD", (410, 4_000), (400, 20_000)),
            ("akamai FRA", (119, 6_000), (600, 30_000)),
            ("akamai MAD", (101, 5_000), (500, 25_000)),
        ];
        let expected = ["cdn=fastly explains 100 % of the excess (error rate 10.1 %, before 2 %, 8,000 sessions)"];
        check("cdn pop", &data, &expected);
    }

    #[test]
    fn an_only_child_is_not_named() {
        let data = [
            ("fastly FRA", (400, 4_000), (400, 20_000)),
            ("akamai MAD", (119, 6_000), (600, 30_000)),
            ("akamai LIS", (101, 5_000), (500, 25_000)),
        ];
        let expected = ["cdn=fastly explains 100 % of the excess (error rate 10 %, before 2 %, 4,000 sessions)"];
        check("cdn pop", &data, &expected);
    }

    #[test]
    fn two_faults_at_once_are_two_causes() {
        let data = [
            ("fastly tv", (600, 4_000), (400, 20_000)),
            ("fastly phone", (80, 4_000), (400, 20_000)),
            ("fastly web", (82, 4_000), (400, 20_000)),
            ("akamai tv", (121, 6_000), (600, 30_000)),
            ("akamai phone", (100, 5_000), (500, 25_000)),
            ("akamai web", (400, 5_000), (500, 25_000)),
        ];
        check(
            "cdn device",
            &data,
            &[
                "cdn=fastly, device=tv explains 63 % of the excess (error rate 15 %, before 2 %, 4,000 sessions)",
                "cdn=akamai, device=web explains 36 % of the excess (error rate 8 %, before 2 %, 5,000 sessions)",
            ],
        );
    }

    #[test]
    fn worse_everywhere_has_no_single_cause() {
        let data = [
            ("fastly tv", (2_000, 20_000), (400, 20_000)),
            ("fastly web", (410, 4_000), (400, 20_000)),
            ("akamai tv", (590, 6_000), (600, 30_000)),
            ("akamai web", (520, 5_000), (500, 25_000)),
        ];
        check("cdn device", &data, &["no single cause: it is worse everywhere"]);
    }

    #[test]
    fn more_viewers_where_it_was_always_bad_is_no_cause() {
        let data = [
            ("fibre", (100, 10_000), (1_000, 100_000)),
            ("mobile", (6_010, 60_000), (1_000, 10_000)),
        ];
        let expected = ["no cause: every part is as its own baseline lets expect, only their mix may differ"];
        check("isp", &data, &expected);
    }

    #[test]
    fn nothing_counted_before_is_nothing_to_compare_with() {
        let expected = ["no cause: the baseline has counted nothing to compare with"];
        check("isp", &[("fibre", (100, 1_000), (0, 0))], &expected);
        check("isp", &[], &expected);
    }

    #[test]
    fn a_new_version_and_an_unknown_isp_can_be_causes() {
        let data = [
            ("4.0 fibre", (100, 5_000), (1_000, 50_000)),
            ("4.0 mobile", (100, 5_000), (1_000, 50_000)),
            ("5.0 fibre", (300, 1_000), (0, 0)),
            ("5.0 mobile", (310, 1_000), (0, 0)),
        ];
        let expected = ["version=5.0 explains 100 % of the excess (error rate 30.5 %, before unknown, 2,000 sessions)"];
        check("version isp", &data, &expected);
        let data = [("fibre", (100, 5_000), (1_000, 50_000)), ("-", (300, 2_000), (200, 10_000))];
        let expected = ["isp=unknown explains 100 % of the excess (error rate 15 %, before 2 %, 2,000 sessions)"];
        check("isp", &data, &expected);
    }

    #[test]
    fn lower_can_be_worse_and_means_have_their_unit() {
        let data = [
            ("FRA", (2_000, 5_000), (45_000, 50_000)),
            ("MAD", (4_500, 5_000), (45_000, 50_000)),
            ("LIS", (4_510, 5_000), (45_000, 50_000)),
        ];
        let mut search = Search::new(Kind::Share);
        assert_eq!(explain(&rows("pop", &data), search).answer, Answer::NoExcess);
        search.worse = Worse::Lower;
        let found = explain(&rows("pop", &data), search);
        assert_eq!(found.candidates[0].to_string(), "pop=FRA");
        assert!(found.candidates[0].excess > 2_400.0, "{found:?}");

        let data = [
            ("FRA", (3_000_000, 5_000), (10_000_000, 50_000)),
            ("MAD", (1_010_000, 5_000), (10_000_000, 50_000)),
            ("LIS", (990_000, 5_000), (10_000_000, 50_000)),
        ];
        let found = explain(&rows("pop", &data), Search::new(Kind::Mean));
        let words = Wording {
            value: "first byte",
            unit: Some("ms"),
            samples: "requests",
        };
        let line = "pop=FRA explains 100 % of the excess (first byte 600 ms, before 200 ms, 5,000 requests)";
        assert_eq!(found.lines(words), [line]);
    }

    #[test]
    fn the_search_keeps_to_its_bounds() {
        let data = [
            ("fastly FRA", (521, 4_310), (430, 21_500)),
            ("akamai MAD", (82, 4_000), (400, 20_000)),
        ];
        let wild = Search {
            max_depth: 0,
            top: 99,
            ..Search::new(Kind::Share)
        };
        assert_eq!(explain(&rows("cdn pop", &data), wild).candidates.len(), 1);
        assert_eq!(Rows::new(&["a"; 9]).unwrap_err(), RowsError::Dimensions(9));
        assert_eq!(Rows::new(&["a", "b", "a"]).unwrap_err(), RowsError::Repeated("a".to_owned()));
        let mut some = rows("cdn pop", &data);
        let short = some.push_texts(&[None], Counts::default()).unwrap_err();
        assert_eq!(short, RowsError::Width { found: 1, expected: 2 });
        let known = some.intern(0, Some("fastly")).unwrap();
        let other = some.intern(0, Some("cloudfront")).unwrap();
        assert_eq!(
            some.push(&[known, other], Counts::default()),
            Err(RowsError::UnknownValue("pop".to_owned()))
        );
        let nonsense = Counts {
            den: f64::NAN,
            ..Counts::default()
        };
        some.push(&[known, known], nonsense).unwrap();
        assert_eq!((some.len(), some.unusable()), (2, 1));
    }

    #[test]
    fn names_from_outside_are_made_harmless() {
        let data = [
            ("fi\u{202e}bre", (500, 5_000), (1_000, 50_000)),
            ("mobile", (100, 5_000), (1_000, 50_000)),
        ];
        let found = explain(&rows("isp", &data), Search::new(Kind::Share));
        assert!(found.lines(ERRORS)[0].starts_with("isp=fibre explains"), "{found:?}");
    }

    #[test]
    fn the_json_is_that_of_the_message() {
        let data = [("fibre", (600, 5_000), (1_000, 50_000)), ("mobile", (100, 5_000), (1_000, 50_000))];
        let found = explain(&rows("isp", &data), Search::new(Kind::Share));
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["method"], "excess-coverage/1");
        assert_eq!(json["answer"], "found");
        assert_eq!(json["candidates"][0]["dims"], serde_json::json!({"isp": "fibre"}));
        assert_eq!(json["candidates"][0]["verdict"], "main");
        assert_eq!(json["candidates"][0]["value"], 0.12);
        assert_eq!(json["candidates"][0]["baseline"], 0.02);
        assert_eq!(serde_json::from_value::<Explanation>(json).unwrap(), found);
    }
}
