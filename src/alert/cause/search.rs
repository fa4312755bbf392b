//! The search: sets of dimension values by how much of the excess they cover, one fault after the
//! other (excess coverage search with deflation, alerts spec 3.4).
//!
//! Stands behind `table`. A round looks at every set whose excess could be a cause, takes the best
//! and removes its leaves; the next round looks at what is left.
//!
//! Invariant: the leaves of two causes are disjoint.
//! Invariant: a cause is significant by itself, and what is outside it fared clearly better.

use super::expect::{Expected, Sums};
use super::rows::Leaves;
use super::table::Table;
use super::{CAUSES_MAX, Search};

/// Weight of the share of traffic that a set touches against the share of the excess that it
/// explains: 0.5 was best in each of five folds over 135 labelled incidents (alerts spec 3.3).
const SHARE_WEIGHT: f64 = 0.5;
/// More than all of the excess is explained where the rest improved; as little as this counts.
pub(super) const EXPLAINS_MAX: f64 = 1.05;
/// A best set that scores less than this is no cause (alerts spec 3.4 d).
const SCORE_MIN: f64 = 0.3;
/// A further cause explains at least this much of the whole excess (alerts spec 3.4 c).
pub(super) const EXPLAINS_MIN: f64 = 0.1;
/// A whole excess of this many standard deviations is one: chance gives one window in 740 as much.
pub(super) const TOTAL_SIGMAS: f64 = 3.0;
/// From this many on, a cause is looked for: what touches few may stand out while the noise of all
/// the others hides it in the whole.
pub(super) const SEARCH_SIGMAS: f64 = 2.0;
/// The excess of a set must be this many: some thousand sets are looked at, and chance gives one of
/// 30,000 as much.
const SET_SIGMAS: f64 = 4.0;
/// A value is followed up when its excess, with this much luck taken off, could be enough.
const FOLLOW_SIGMAS: f64 = 3.0;
/// Leaves are said to have been hit or spared only where the two would lie this far apart: at the
/// middle, each is taken for the other in one case of 44.
const TELLING_SIGMAS: f64 = 4.0;
/// Scores that differ by less are equal (alerts spec 3.4 b), or by less than chance moves them.
const SCORE_TIE: f64 = 0.01;
const SCORE_TIE_SIGMAS: f64 = 2.0;
const SCORE_TIE_MAX: f64 = 0.2;
/// A set is only the envelope of a narrower one, or of two, whose evidence is so much stronger.
const ENVELOPE_EVIDENCE: f64 = 1.5;
/// Narrower sets that are tried as the one of two, those with the most evidence.
const ENVELOPE_PARTS: usize = 8;
/// A narrower set that carries this much of the excess is preferred (alerts spec 3.4 b).
const CARRIES: f64 = 0.95;
/// Values of one dimension by which one set is narrowed: three can carry 0.3 each, the others are
/// there by chance.
const BRANCHES_MAX: usize = 16;
/// Sets looked at in one round: a bound for data in which everything is excess.
const SETS_MAX: usize = 20_000;
/// Sets compared with each other, the best ones.
const CANDIDATES_MAX: usize = 400;

/// What chance does to sums.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    /// +1 where more is worse, -1 where less is.
    pub sign: f64,
    /// How much more the leaves vary than their kind lets expect, from 1.
    pub dispersion: f64,
    pub unit_variance: f64,
    pub prior_den: f64,
}

impl Noise {
    pub fn excess(&self, sums: &Sums) -> f64 {
        self.sign * (sums.num - sums.expected)
    }

    /// Standard deviation of the excess: chance in the window, and in the baseline that it is
    /// compared with.
    pub fn sigma(&self, sums: &Sums) -> f64 {
        let by_baseline = sums.den / (sums.base_den + self.prior_den);
        (self.dispersion * (sums.variance * (1.0 + by_baseline)).max(0.0) + self.unit_variance).sqrt()
    }

    /// The excess with luck taken off.
    pub fn at_most(&self, sums: &Sums) -> f64 {
        self.excess(sums) + FOLLOW_SIGMAS * self.sigma(sums)
    }

    pub fn is_significant(&self, sums: &Sums, sigmas: f64) -> bool {
        self.excess(sums) >= sigmas * self.sigma(sums)
    }

    /// Log-likelihood gained by saying that this set's ratio has changed: large for much excess
    /// over little expectation (the scan statistic of Kulldorff 1997).
    fn evidence(&self, sums: &Sums) -> f64 {
        let Sums {
            num, expected, variance, ..
        } = *sums;
        if num <= 0.0 || expected <= 0.0 || variance <= 0.0 {
            return (self.excess(sums) / self.sigma(sums)).powi(2) / 2.0;
        }
        (num * (num / expected).ln() - (num - expected)) * expected / variance
    }

    /// What became of leaves beside others whose excess is `lift` times their expectation.
    fn fate(&self, sums: &Sums, lift: f64) -> Fate {
        let if_hit = lift * sums.expected;
        if if_hit < TELLING_SIGMAS * self.sigma(sums) {
            return Fate::Unknown;
        }
        if self.excess(sums) < if_hit / 2.0 {
            Fate::Spared
        } else {
            Fate::Hit
        }
    }

    fn lift(&self, sums: &Sums) -> f64 {
        if sums.expected > 0.0 {
            self.excess(sums) / sums.expected
        } else {
            f64::MAX.sqrt()
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Hit,
    Spared,
    /// Too few to tell.
    Unknown,
}

/// `dimension = value` as places in the order of dimensions and in the searched values from 1.
type Condition = (usize, u8);

/// A set of leaves by the values that they share.
#[derive(Debug, Clone)]
struct Candidate {
    /// In the order of dimensions.
    set: Vec<Condition>,
    sums: Sums,
    score: f64,
    evidence: f64,
}

impl Candidate {
    fn is_narrower_than(&self, other: &Candidate) -> bool {
        self.set.len() > other.set.len() && other.set.iter().all(|condition| self.set.contains(condition))
    }
}

/// A cause as the search sees it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Dimension and place of the value in `Leaves::texts`.
    pub set: Vec<(usize, u32)>,
    pub sums: Sums,
    pub score: f64,
}

/// All causes, the best first, and the cells that are in none.
#[derive(Debug)]
pub(super) struct Outcome {
    pub causes: Vec<Found>,
    pub left: Vec<u32>,
}

/// `total` are the sums over all cells.
pub(super) fn causes(table: &Table, noise: &Noise, search: &Search, total: &Sums) -> Outcome {
    let mut left: Vec<u32> = (0..).take(table.sums.len()).collect();
    let mut rest = *total;
    let mut causes = Vec::new();
    while causes.len() < search.top.min(CAUSES_MAX) && noise.is_significant(&rest, SEARCH_SIGMAS) {
        let round = Round::new(table, noise, search, &left, rest, EXPLAINS_MIN * noise.excess(total));
        let Some(best) = round.best() else { break };
        left.retain(|cell| {
            !best
                .set
                .iter()
                .all(|(dimension, code)| table.codes[*cell as usize][*dimension] == *code)
        });
        rest = sum(table, &left);
        causes.push(Found {
            set: best
                .set
                .iter()
                .map(|(dimension, code)| (*dimension, table.values[*dimension][usize::from(*code) - 1]))
                .collect(),
            sums: best.sums,
            score: best.score,
        });
    }
    Outcome { causes, left }
}

pub(super) fn sum(table: &Table, cells: &[u32]) -> Sums {
    let mut total = Sums::default();
    for cell in cells {
        total.add(&table.sums[*cell as usize]);
    }
    total
}

/// The search for one fault among the cells that are left.
struct Round<'t> {
    table: &'t Table,
    noise: &'t Noise,
    max_depth: usize,
    cells: &'t [u32],
    total: Sums,
    /// The least excess of a cause.
    floor: f64,
}

impl<'t> Round<'t> {
    fn new(table: &'t Table, noise: &'t Noise, search: &Search, cells: &'t [u32], total: Sums, least: f64) -> Round<'t> {
        Round {
            table,
            noise,
            max_depth: search.max_depth,
            cells,
            total,
            floor: least.max(SCORE_MIN * noise.excess(&total)),
        }
    }

    fn best(&self) -> Option<Candidate> {
        let mut candidates = self.candidates();
        candidates.retain(|candidate| candidate.score >= SCORE_MIN && self.stands_out(candidate));
        candidates.sort_by(|a, b| {
            b.score
                .total_cmp(&a.score)
                .then(a.set.len().cmp(&b.set.len()))
                .then(a.set.cmp(&b.set))
        });
        candidates.truncate(CANDIDATES_MAX);
        let lead = candidates.iter().find(|candidate| !self.is_envelope(candidate, &candidates))?;
        let by_chance = SCORE_TIE_SIGMAS * self.noise.sigma(&self.total) / self.noise.excess(&self.total);
        let least = lead.score - by_chance.clamp(SCORE_TIE, SCORE_TIE_MAX);
        let tied = candidates.iter().take_while(|candidate| candidate.score >= least);
        let stronger = |best: &'_ Candidate, next: &Candidate| next.evidence > best.evidence && !self.is_envelope(next, &candidates);
        let strongest = tied.fold(lead, |best, next| if stronger(best, next) { next } else { best });
        let narrowed = self.narrowed(strongest, &candidates);
        Some(self.widened(narrowed, &candidates).clone())
    }

    /// True when the set's excess is its own: significant, and not shared by all the rest.
    fn stands_out(&self, candidate: &Candidate) -> bool {
        let rest = self.total.without(&candidate.sums);
        self.noise.is_significant(&candidate.sums, SET_SIGMAS) && self.noise.fate(&rest, self.noise.lift(&candidate.sums)) == Fate::Spared
    }

    /// True for a set around one or two faults, most of which nothing happened to.
    fn is_envelope(&self, wide: &Candidate, candidates: &[Candidate]) -> bool {
        let mut parts: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.is_narrower_than(wide)).collect();
        parts.sort_by(|a, b| b.evidence.total_cmp(&a.evidence).then(a.set.cmp(&b.set)));
        let needed = ENVELOPE_EVIDENCE * wide.evidence;
        if parts.first().is_some_and(|part| part.evidence > needed) {
            return true;
        }
        parts.iter().take(ENVELOPE_PARTS).any(|part| {
            let beside: Vec<u32> = self
                .cells
                .iter()
                .copied()
                .filter(|cell| self.holds(wide, *cell) && !self.holds(part, *cell))
                .collect();
            let mut others = Vec::new();
            self.grow(&mut Vec::new(), &beside, &mut others);
            others
                .iter()
                .any(|other| self.noise.is_significant(&other.sums, SET_SIGMAS) && part.evidence + other.evidence > needed)
        })
    }

    fn holds(&self, candidate: &Candidate, cell: u32) -> bool {
        let codes = &self.table.codes[cell as usize];
        candidate.set.iter().all(|(dimension, code)| codes[*dimension] == *code)
    }

    /// The narrower set that carries nearly all of the excess while the remainder was spared.
    fn narrowed<'c>(&self, from: &'c Candidate, candidates: &'c [Candidate]) -> &'c Candidate {
        let mut best = from;
        for narrow in candidates.iter().filter(|candidate| candidate.is_narrower_than(from)) {
            let rest = from.sums.without(&narrow.sums);
            let carries = self.noise.excess(&narrow.sums) > CARRIES * self.noise.excess(&from.sums);
            let is_spared = self.noise.fate(&rest, self.noise.lift(&narrow.sums)) == Fate::Spared;
            if carries && is_spared && narrow.evidence > best.evidence {
                best = narrow;
            }
        }
        best
    }

    /// The widest set of which this one is a part like the others, or nearly all.
    fn widened<'c>(&self, from: &'c Candidate, candidates: &'c [Candidate]) -> &'c Candidate {
        let mut best = from;
        for wide in candidates.iter().filter(|candidate| from.is_narrower_than(candidate)) {
            let rest = wide.sums.without(&from.sums);
            let is_part = match self.noise.fate(&rest, self.noise.lift(&from.sums)) {
                Fate::Hit => true,
                Fate::Unknown => wide.score >= from.score - SCORE_TIE,
                Fate::Spared => false,
            };
            if is_part && wide.set.len() < best.set.len() {
                best = wide;
            }
        }
        best
    }

    fn candidates(&self) -> Vec<Candidate> {
        let mut found = Vec::new();
        self.grow(&mut Vec::new(), self.cells, &mut found);
        found
    }

    /// Narrows `set`, whose cells are `cells`, by each later dimension.
    fn grow(&self, set: &mut Vec<Condition>, cells: &[u32], found: &mut Vec<Candidate>) {
        let first = set.last().map_or(0, |(dimension, _)| dimension + 1);
        for dimension in first..self.table.values.len() {
            for (code, sums) in self.promising(dimension, cells) {
                if found.len() >= SETS_MAX {
                    return;
                }
                set.push((dimension, code));
                found.push(self.candidate(set, sums));
                if set.len() < self.max_depth && dimension + 1 < self.table.values.len() {
                    let within: Vec<u32> = cells
                        .iter()
                        .copied()
                        .filter(|cell| self.table.codes[*cell as usize][dimension] == code)
                        .collect();
                    self.grow(set, &within, found);
                }
                set.pop();
            }
        }
    }

    /// The values of a dimension within some cells whose excess may be enough, the largest first.
    fn promising(&self, dimension: usize, cells: &[u32]) -> Vec<(u8, Sums)> {
        let mut sums = vec![Sums::default(); self.table.values[dimension].len() + 1];
        for cell in cells {
            let code = self.table.codes[*cell as usize][dimension];
            sums[usize::from(code)].add(&self.table.sums[*cell as usize]);
        }
        let named = (0..).zip(sums).skip(1);
        let mut kept: Vec<(f64, u8, Sums)> = named
            .map(|(code, sums)| (self.noise.at_most(&sums), code, sums))
            .filter(|(at_most, _, sums)| *at_most >= self.floor && sums.den > 0.0)
            .collect();
        kept.sort_by(|(a, x, _), (b, y, _)| b.total_cmp(a).then(x.cmp(y)));
        kept.truncate(BRANCHES_MAX);
        kept.into_iter().map(|(_, code, sums)| (code, sums)).collect()
    }

    fn candidate(&self, set: &[Condition], sums: Sums) -> Candidate {
        let excess = self.noise.excess(&sums);
        let explains = (excess / self.noise.excess(&self.total)).min(EXPLAINS_MAX);
        let share = sums.den / self.total.den;
        let score = if excess >= self.floor {
            explains - SHARE_WEIGHT * share
        } else {
            f64::NEG_INFINITY
        };
        Candidate {
            set: set.to_vec(),
            sums,
            score,
            evidence: self.noise.evidence(&sums),
        }
    }
}

/// Groups of leaves by which the dispersion is measured: enough for a median, and leaves enough in
/// each that chance is nearly normal.
const GROUPS: usize = 64;
const LEAVES_PER_GROUP: usize = 4;
/// Makes a standard deviation of a median of absolute values.
const MEDIAN_TO_SIGMA: f64 = 1.4826;

/// How much more the leaves outside all causes vary than their kind lets expect, at least 1: the
/// spread between groups of leaves drawn by lot, around their common level (more of it means more
/// chance too). Too few leaves tell nothing: 1.
pub(super) fn dispersion(leaves: &Leaves, expected: &Expected, table: &Table, left: &[u32]) -> f64 {
    let mut is_left = vec![false; table.sums.len()];
    for cell in left {
        is_left[*cell as usize] = true;
    }
    let mut groups = [Sums::default(); GROUPS];
    let mut members = 0;
    for ((key, sums), cell) in leaves.keys.iter().zip(&expected.sums).zip(&table.cell_of) {
        if is_left[*cell as usize] && sums.variance > 0.0 {
            groups[(mixed(*key) % GROUPS as u64) as usize].add(sums);
            members += 1;
        }
    }
    if members < GROUPS * LEAVES_PER_GROUP {
        return 1.0;
    }
    let mut total = Sums::default();
    groups.iter().for_each(|group| total.add(group));
    let level = total.num / total.expected;
    let grown = level.max(1.0);
    let mut strays: Vec<f64> = groups
        .iter()
        .map(|group| {
            let by_baseline = 1.0 + group.den / (group.base_den + expected.prior_den);
            (group.num - level * group.expected).abs() / (grown * group.variance * by_baseline + expected.unit_variance).sqrt()
        })
        .collect();
    strays.sort_by(f64::total_cmp);
    let median = (strays[GROUPS / 2 - 1] + strays[GROUPS / 2]) / 2.0;
    (median * MEDIAN_TO_SIGMA).powi(2).max(1.0)
}

/// Spreads keys evenly (the finish of splitmix64).
pub(super) fn mixed(key: u64) -> u64 {
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}
