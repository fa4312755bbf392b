//! The search against audiences from a seed: incidents whose cause is known, windows without any,
//! and windows in which only the mix of the traffic changed.

use std::collections::BTreeMap;

use super::{Answer, Counts, Explanation, Kind, Rows, Search, explain};

pub(crate) const DIMENSIONS: [&str; 7] = ["cdn", "pop", "isp", "country", "device", "version", "content"];
/// Dimensions of which one implies the other: a set of both is no smaller than that of the one.
const NESTED: [(usize, usize); 2] = [(0, 1), (2, 3)];
const LEAVES: usize = 4_000;
const SESSIONS: f64 = 200_000.0;
/// The baseline has counted this many windows.
const BASELINE: f64 = 5.0;
/// Spread of one sample of a mean, in units of the mean: more than the search takes it for.
const SPREAD: f64 = 2.5;
/// A planted set touches this share of the sessions.
const SHARES: std::ops::Range<f64> = 0.005..0.4;
/// Excess of a planted fault in standard deviations of the whole.
pub(crate) const STRENGTH: std::ops::Range<f64> = 5.0..15.0;

/// splitmix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to 1, both left out.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, range: std::ops::Range<f64>) -> f64 {
        range.start + self.unit() * (range.end - range.start)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    /// Few large values, many small ones.
    fn skewed(&mut self, end: usize) -> usize {
        let unit = self.unit();
        (unit * unit * end as f64) as usize
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn spread(&mut self, sigma: f64) -> f64 {
        (sigma * self.normal()).exp()
    }

    pub(crate) fn poisson(&mut self, mean: f64) -> f64 {
        if mean > 50.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let limit = (-mean).exp();
        let (mut count, mut product) = (0.0, self.unit());
        while product > limit {
            count += 1.0;
            product *= self.unit();
        }
        count
    }

    /// A numerator beside this denominator.
    fn num(&mut self, kind: Kind, of: f64, ratio: f64) -> f64 {
        match kind {
            Kind::Share => self.failures(of, ratio),
            Kind::Mean if of > 0.0 => {
                // Log-normal, so that it is never negative and its mean is right.
                let variance = (1.0 + SPREAD * SPREAD / of).ln();
                of * ratio * self.spread(variance.sqrt()) * (-variance / 2.0).exp()
            }
            Kind::Mean => 0.0,
        }
    }

    pub(crate) fn failures(&mut self, of: f64, ratio: f64) -> f64 {
        let mean = of * ratio;
        if mean > 50.0 {
            return (mean + (mean * (1.0 - ratio)).sqrt() * self.normal()).round().clamp(0.0, of);
        }
        if ratio > 0.2 {
            return (0..of as u64).filter(|_| self.unit() < ratio).count() as f64;
        }
        self.poisson(mean).min(of)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) values: [usize; 7],
    /// Sessions in a window.
    pub(crate) sessions: f64,
    pub(crate) ratio: f64,
}

pub(crate) fn audience(random: &mut Random) -> Vec<Leaf> {
    let sizes = [4, 20, 15, 5, 6, 8, 20];
    let effects: Vec<Vec<f64>> = sizes.iter().map(|size| (0..*size).map(|_| random.spread(0.3)).collect()).collect();
    let mut audience: Vec<Leaf> = (0..LEAVES)
        .map(|_| {
            let mut values = sizes.map(|size| random.skewed(size));
            values[0] = values[1] % 4;
            values[3] = values[2] % 5;
            let effect: f64 = values.iter().zip(&effects).map(|(value, effects)| effects[*value]).product();
            Leaf {
                values,
                sessions: random.spread(1.0),
                ratio: (0.02 * effect * random.spread(0.2)).clamp(0.000_5, 0.2),
            }
        })
        .collect();
    let weights: f64 = audience.iter().map(|leaf| leaf.sessions).sum();
    audience.iter_mut().for_each(|leaf| leaf.sessions *= SESSIONS / weights);
    audience
}

/// Dimension and value.
pub(crate) type Set = Vec<(usize, usize)>;

fn holds(set: &Set, leaf: &Leaf) -> bool {
    set.iter().all(|(dimension, value)| leaf.values[*dimension] == *value)
}

/// Standard deviation of the numerator of a window against the baseline.
pub(crate) fn noise(kind: Kind, audience: &[Leaf]) -> f64 {
    let variance_of = |leaf: &Leaf| match kind {
        Kind::Share => leaf.ratio * (1.0 - leaf.ratio),
        Kind::Mean => (SPREAD * leaf.ratio).powi(2),
    };
    let variance: f64 = audience.iter().map(|leaf| leaf.sessions * variance_of(leaf)).sum();
    (variance * (1.0 + 1.0 / BASELINE)).sqrt()
}

fn share(audience: &[Leaf], set: &Set) -> f64 {
    audience
        .iter()
        .filter(|leaf| holds(set, leaf))
        .map(|leaf| leaf.sessions)
        .sum::<f64>()
        / SESSIONS
}

/// A set that can be told from each of its parts: it is clearly smaller than any of them.
pub(crate) fn planted(random: &mut Random, audience: &[Leaf], depth: usize) -> Set {
    loop {
        let leaf = &audience[random.below(audience.len())];
        let mut dimensions: Vec<usize> = (0..depth).map(|_| random.below(DIMENSIONS.len())).collect();
        dimensions.sort_unstable();
        dimensions.dedup();
        let is_nested = NESTED.iter().any(|(a, b)| dimensions.contains(a) && dimensions.contains(b));
        let set: Set = dimensions.iter().map(|dimension| (*dimension, leaf.values[*dimension])).collect();
        let own = share(audience, &set);
        let is_distinct = set.len() < 2 || set.iter().all(|condition| own < 0.7 * share(audience, &vec![*condition]));
        if set.len() == depth && !is_nested && is_distinct && SHARES.contains(&own) {
            return set;
        }
    }
}

/// Adds to `now` what a fault in a set makes fail: so many more, in proportion to what fails there
/// usually. False where that is nearly all.
pub(crate) fn break_down(usual: &[Leaf], now: &mut [Leaf], set: &Set, failures: f64) -> bool {
    let before: f64 = usual
        .iter()
        .filter(|leaf| holds(set, leaf))
        .map(|leaf| leaf.sessions * leaf.ratio)
        .sum();
    let mut is_possible = true;
    for (usual, now) in usual.iter().zip(now).filter(|(usual, _)| holds(set, usual)) {
        now.ratio += usual.ratio * failures / before;
        is_possible &= now.ratio < 0.95;
    }
    is_possible
}

/// True when half of the smaller set is in the other: hardly two faults.
pub(crate) fn overlap(audience: &[Leaf], sets: &[Set]) -> bool {
    let [a, b] = sets else { return false };
    let both: Set = a.iter().chain(b).copied().collect();
    share(audience, &both) >= 0.5 * share(audience, a).min(share(audience, b))
}

/// Counts a window of `now` against a baseline of `usual`.
fn counted(kind: Kind, random: &mut Random, usual: &[Leaf], now: &[Leaf]) -> Rows {
    let mut rows = Rows::new(&DIMENSIONS).unwrap();
    for (usual, now) in usual.iter().zip(now) {
        let texts: Vec<String> = now.values.iter().map(|value| format!("v{value}")).collect();
        let texts: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
        let jitter = random.spread(0.15);
        let den = random.poisson(now.sessions * jitter);
        let base_den = random.poisson(usual.sessions * BASELINE);
        let counts = Counts {
            num: random.num(kind, den, now.ratio),
            den,
            samples: den,
            base_num: random.num(kind, base_den, usual.ratio),
            base_den,
        };
        rows.push_texts(&texts, counts).unwrap();
    }
    rows
}

pub(crate) fn dims(set: &Set) -> BTreeMap<String, Option<String>> {
    set.iter()
        .map(|(dimension, value)| (DIMENSIONS[*dimension].to_owned(), Some(format!("v{value}"))))
        .collect()
}

/// What was found of what was planted.
#[derive(Debug, Default)]
struct Score {
    cases: usize,
    first: usize,
    /// First, and nothing else was blamed.
    alone: usize,
}

impl Score {
    fn add(&mut self, planted: &[Set], found: &Explanation) {
        let planted: Vec<_> = planted.iter().map(dims).collect();
        let first = found.candidates.iter().take(planted.len());
        self.cases += 1;
        if first.clone().count() == planted.len() && first.clone().all(|cause| planted.contains(&cause.dims)) {
            self.first += 1;
            self.alone += usize::from(found.candidates.len() == planted.len());
        } else {
            let found: Vec<String> = found
                .candidates
                .iter()
                .map(|cause| format!("{cause} {:.2}/{:.2}", cause.explains, cause.share))
                .collect();
            println!("planted {planted:?}, found {found:?}");
        }
    }
}

/// Incidents of `faults` sets of `depth` values each.
fn incidents(kind: Kind, cases: u64, depth: usize, faults: usize) -> Score {
    let mut score = Score::default();
    let mut seed = 0;
    while (score.cases as u64) < cases {
        seed += 1;
        let mut random = Random(seed * 1_000 + depth as u64 * 10 + faults as u64);
        let usual = audience(&mut random);
        let mut now = usual.clone();
        let sets: Vec<Set> = (0..faults).map(|_| planted(&mut random, &usual, depth)).collect();
        let mut is_possible = !overlap(&usual, &sets);
        for set in &sets {
            let failures = random.between(STRENGTH) * noise(kind, &usual);
            is_possible &= break_down(&usual, &mut now, set, failures) || kind == Kind::Mean;
        }
        if !is_possible {
            continue;
        }
        let rows = counted(kind, &mut random, &usual, &now);
        score.add(&sets, &explain(&rows, Search::new(kind)));
    }
    println!("{kind:?} depth {depth}, faults {faults}: {score:?}");
    score
}

#[test]
fn planted_dimensions_come_first() {
    let scores = [
        incidents(Kind::Share, 80, 1, 1),
        incidents(Kind::Share, 60, 2, 1),
        incidents(Kind::Share, 30, 1, 2),
        incidents(Kind::Share, 30, 2, 2),
    ];
    let cases: usize = scores.iter().map(|score| score.cases).sum();
    let first: usize = scores.iter().map(|score| score.first).sum();
    assert_eq!(cases, 200);
    assert!(first * 100 >= cases * 95, "{first} of {cases}");
}

/// What was said of windows without a single cause.
#[derive(Debug, Default)]
struct Blame {
    /// Nobody was blamed.
    nobody: usize,
    /// An excess was seen, with or without a cause.
    excess: usize,
    /// The overall ratio rose by more than three standard deviations, whatever the reason.
    risen: usize,
}

fn blame(kind: Kind, cases: u64, change: impl Fn(&mut Random, &mut [Leaf])) -> Blame {
    let mut blame = Blame::default();
    for seed in 0..cases {
        let mut random = Random(seed);
        let usual = audience(&mut random);
        let mut now = usual.clone();
        change(&mut random, &mut now);
        let rows = counted(kind, &mut random, &usual, &now);
        let found = explain(&rows, Search::new(kind));
        blame.nobody += usize::from(found.candidates.is_empty());
        blame.excess += usize::from(found.answer != Answer::NoExcess);
        blame.risen += usize::from(rise(&usual, &now) > 3.0 * noise(kind, &now));
    }
    println!("{kind:?}, {cases} cases: {blame:?}");
    blame
}

/// The numerator above what the overall ratio of before lets expect.
fn rise(usual: &[Leaf], now: &[Leaf]) -> f64 {
    let sums = |audience: &[Leaf]| {
        let add = |(num, den): (f64, f64), leaf: &Leaf| (num + leaf.sessions * leaf.ratio, den + leaf.sessions);
        audience.iter().fold((0.0, 0.0), add)
    };
    let ((base_num, base_den), (num, den)) = (sums(usual), sums(now));
    num - base_num / base_den * den
}

/// One to three values have a fifth to five times as many viewers. Mixes are drawn until one makes
/// the whole worse, as an alert would see it: any other would be no test.
fn mixed_anew(kind: Kind, random: &mut Random, now: &mut [Leaf]) {
    let usual = now.to_vec();
    loop {
        now.clone_from_slice(&usual);
        for _ in 0..1 + random.below(3) {
            let dimension = random.below(DIMENSIONS.len());
            let value = now[random.below(now.len())].values[dimension];
            let factor = random.between(-1.6..1.6).exp();
            now.iter_mut()
                .filter(|leaf| leaf.values[dimension] == value)
                .for_each(|leaf| leaf.sessions *= factor);
        }
        if rise(&usual, now) > 4.0 * noise(kind, now) {
            return;
        }
    }
}

#[test]
fn a_window_without_fault_blames_nobody() {
    let Blame { nobody, .. } = blame(Kind::Share, 200, |_, _| ());
    assert!(nobody >= 198, "{nobody} of 200");
}

#[test]
fn another_mix_of_the_same_traffic_blames_nobody() {
    let Blame { nobody, risen, .. } = blame(Kind::Share, 100, |random, now| mixed_anew(Kind::Share, random, now));
    assert_eq!(risen, 100, "the mix makes the whole worse");
    assert!(nobody >= 95, "{nobody} of 100");
}

#[test]
fn a_fault_everywhere_has_no_single_cause() {
    let Blame { nobody, excess, .. } = blame(Kind::Share, 50, |random, now| {
        let lift = random.between(1.2..3.0);
        now.iter_mut().for_each(|leaf| leaf.ratio *= lift);
    });
    assert_eq!(excess, 50);
    assert!(nobody >= 48, "{nobody} of 50");
}

#[test]
fn slow_parts_are_found_in_means() {
    let scores = [incidents(Kind::Mean, 30, 1, 1), incidents(Kind::Mean, 30, 2, 1)];
    let first: usize = scores.iter().map(|score| score.first).sum();
    assert!(first >= 57, "{first} of 60");
    let Blame { nobody, .. } = blame(Kind::Mean, 100, |random, now| mixed_anew(Kind::Mean, random, now));
    assert!(nobody >= 95, "{nobody} of 100");
}

#[test]
fn ten_times_the_audience_has_the_same_cause() {
    for seed in 0..10 {
        let mut random = Random(seed);
        let usual = audience(&mut random);
        let mut now = usual.clone();
        let set = planted(&mut random, &usual, 2);
        if !break_down(&usual, &mut now, &set, 12.0 * noise(Kind::Share, &usual)) {
            continue;
        }
        for factor in [1.0, 10.0] {
            let scale = |leaves: &[Leaf]| -> Vec<Leaf> {
                let scaled = |leaf: &Leaf| Leaf {
                    sessions: leaf.sessions * factor,
                    ..leaf.clone()
                };
                leaves.iter().map(scaled).collect()
            };
            let rows = counted(Kind::Share, &mut random, &scale(&usual), &scale(&now));
            let found = explain(&rows, Search::new(Kind::Share));
            assert_eq!(
                found.candidates.first().map(|cause| cause.dims.clone()),
                Some(dims(&set)),
                "seed {seed}, times {factor}"
            );
        }
    }
}
