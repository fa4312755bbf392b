//! The three alerts of the seed, as they are shipped, against incidents whose truth is known.
//!
//! Incidents are drawn as gold (`gold_model`) and judged from there on by the code of production (`judged`): each
//! has to fire once, in time, with what was planted named first, and to end once. `no_incident.rs` has healthy time
//! and changes of the traffic's mix, `whole_path.rs` simulations that go the whole way.
//!
//! ```text
//! cargo test --locked --test it incident -- --nocapture                           a few of each, as in CI
//! PLAYHEAD_INCIDENTS=200 cargo test --locked --test it incident -- --nocapture    all of them
//! ```

use std::collections::{BTreeMap, BTreeSet};

use playhead::alert::replay::Firing;

use crate::gold_model::{Leaf, MINUTE_MS, Random, Set, Table, World, denominator, holds, noise, place};
use crate::judged::{BEGINS, Group, LASTS, LASTS_FOR_PEERS, Shipped, T0, group_of, rule_of, runtime, wanted};

/// Incidents where nobody asks for more.
const USUAL_INCIDENTS: usize = 9;

// ---- what is planted ----

/// What goes wrong, where.
#[derive(Debug, Clone)]
struct Fault {
    table: Table,
    set: Set,
}

/// The columns of a set that somebody could plant.
fn columns(random: &mut Random, table: Table, depth: usize) -> Vec<&'static str> {
    let one_of = |random: &mut Random, names: &[&'static str]| names[random.below(names.len())];
    match (table, depth) {
        (Table::Errors, 1) => vec![one_of(random, &["app_version", "device_type"])],
        (Table::Errors, _) => vec!["device_type", "app_version"],
        (Table::Cdn, 1) => vec![one_of(random, &["pop", "isp", "country"])],
        (Table::Cdn, _) => vec!["pop", "isp"],
        (Table::Playback, 1) => vec!["isp"],
        (Table::Playback, _) => vec!["isp", one_of(random, &["device_type", "app_version", "content_id"])],
    }
}

fn plant(random: &mut Random, usual: &World, now: &mut World, table: Table, depth: usize) -> Fault {
    let names = columns(random, table, depth);
    let leaves = usual.leaves(table);
    let leaf = &leaves[random.below(leaves.len())];
    let set: Set = names.iter().map(|name| (*name, leaf.values[place(table, name)])).collect();
    let group = group_of(table, leaf);
    let in_group = || leaves.iter().filter(|leaf| group_of(table, leaf) == group);
    let den: f64 = in_group().map(|leaf| denominator(table, leaf)).sum();
    let of_hit = in_group().filter(|leaf| holds(table, leaf, &set));
    let hit = of_hit.map(|leaf| denominator(table, leaf) * leaf.ratio).sum::<f64>() / den;
    let factor = match table {
        // So many of those that are hit fail.
        Table::Errors => random.between(0.1..0.6) / leaf.ratio,
        // So many ms more in the group.
        Table::Cdn => 1.0 + random.between(26.0..90.0) / hit,
        // So much of the time is waited in the group.
        Table::Playback => 1.0 + random.between(0.02..0.08) / hit,
    };
    for leaf in now.leaves_mut(table).iter_mut().filter(|leaf| holds(table, leaf, &set)) {
        leaf.ratio *= factor;
    }
    Fault { table, set }
}

/// A group that has to fire, with the faults that hit it.
struct Expected {
    table: Table,
    group: Group,
    faults: Vec<Set>,
}

/// The groups that the faults hit; none where one of them is no incident to its rule, or is hardly told apart.
fn expected(usual: &World, now: &World, faults: &[Fault]) -> Option<Vec<Expected>> {
    let mut expected = Vec::new();
    for table in Table::ALL {
        let (usual, now) = (usual.leaves(table), now.leaves(table));
        let groups: BTreeSet<Group> = usual.iter().map(|leaf| group_of(table, leaf)).collect();
        for group in groups {
            let leaves = || usual.iter().zip(now).filter(|(leaf, _)| group_of(table, leaf) == group);
            let hits = |fault: &&Fault| fault.table == table && leaves().any(|(leaf, _)| holds(table, leaf, &fault.set));
            let faults: Vec<Set> = faults.iter().filter(hits).map(|fault| fault.set.clone()).collect();
            if faults.is_empty() {
                continue;
            }
            let pairs: Vec<(&Leaf, &Leaf)> = leaves().collect();
            if !(is_incident(table, &pairs, now, &group) && are_apart(table, &pairs, &faults)) {
                return None;
            }
            expected.push(Expected { table, group, faults });
        }
    }
    Some(expected)
}

/// True where the rule's limit is passed by more than chance could take back, and five times the noise.
fn is_incident(table: Table, pairs: &[(&Leaf, &Leaf)], all_now: &[Leaf], group: &Group) -> bool {
    let minutes = rule_of(table).2 as f64;
    let den: f64 = pairs.iter().map(|(_, leaf)| denominator(table, leaf)).sum();
    let num = |leaf: &Leaf| denominator(table, leaf) * leaf.ratio;
    let (before, value) = (
        pairs.iter().map(|(leaf, _)| num(leaf)).sum::<f64>() / den,
        pairs.iter().map(|(_, leaf)| num(leaf)).sum::<f64>() / den,
    );
    let chance = pairs
        .iter()
        .map(|(leaf, _)| noise(table, leaf, minutes).powi(2))
        .sum::<f64>()
        .sqrt();
    let chance_now = pairs
        .iter()
        .map(|(_, leaf)| noise(table, leaf, minutes).powi(2))
        .sum::<f64>()
        .sqrt()
        / (den * minutes);
    let is_possible = pairs.iter().all(|(_, leaf)| table == Table::Cdn || leaf.ratio < 0.9);
    let is_clear = match table {
        Table::Errors => value - 6.0 * chance_now > 0.05,
        Table::Cdn => value - before - 4.0 * chance_now > 20.0,
        Table::Playback => {
            let country = place(table, "country");
            let peers = all_now
                .iter()
                .filter(|leaf| leaf.values[country] == group[1] && group_of(table, leaf) != *group);
            let (peers_num, peers_den) = peers.fold((0.0, 0.0), |(nums, dens), leaf| (nums + num(leaf), dens + denominator(table, leaf)));
            value - 6.0 * chance_now > (2.0 * peers_num / peers_den).max(0.01)
        }
    };
    is_possible && is_clear && (value - before) * den * minutes >= 5.0 * chance
}

/// True for one fault, or for two of one group that share nobody, spare a third of it and are about as large.
fn are_apart(table: Table, pairs: &[(&Leaf, &Leaf)], faults: &[Set]) -> bool {
    let [a, b] = faults else { return true };
    let den: f64 = pairs.iter().map(|(leaf, _)| denominator(table, leaf)).sum();
    let of = |set: &Set| {
        let hit = pairs.iter().filter(|(leaf, _)| holds(table, leaf, set));
        hit.fold((0.0, 0.0), |(dens, more), (usual, now)| {
            let den = denominator(table, usual);
            (dens + den, more + den * (now.ratio - usual.ratio))
        })
    };
    let ((den_a, more_a), (den_b, more_b)) = (of(a), of(b));
    let share_nobody = !pairs.iter().any(|(leaf, _)| holds(table, leaf, a) && holds(table, leaf, b));
    share_nobody && den_a + den_b <= 0.67 * den && more_a <= 3.0 * more_b && more_b <= 3.0 * more_a
}

// ---- what is seen ----

/// How many stories went as they should.
#[derive(Debug, Default)]
struct Score {
    cases: usize,
    /// Every group fired once and ended once, and no other fired.
    once: usize,
    /// Within the rule's window and its `for`.
    in_time: usize,
    /// What was planted is what the alert's own dimensions and its first causes name.
    named_first: usize,
    slowest_minutes: BTreeMap<&'static str, i64>,
}

impl Score {
    fn add(&mut self, usual: &World, expected: &[Expected], firings: &[Firing]) {
        let (mut once, mut in_time, mut named) = (firings.len() == expected.len(), true, true);
        for expected in expected {
            let (uid, dims, window, hold) = rule_of(expected.table);
            let is_of = |firing: &&Firing| {
                let group = dims.iter().zip(&expected.group);
                let has = |(dim, value): (&&str, &&str)| firing.dims.iter().any(|(name, of)| name == dim && of.as_deref() == Some(*value));
                firing.rule_uid == uid && group.into_iter().all(has)
            };
            let of_group: Vec<&Firing> = firings.iter().filter(is_of).collect();
            let [firing] = of_group[..] else {
                (once, in_time, named) = (false, false, false);
                continue;
            };
            once &= firing.messages == 2 && firing.ended_at_ms.is_some();
            let delay = (firing.fired_at_ms - T0) / MINUTE_MS - BEGINS;
            let slowest = self.slowest_minutes.entry(uid).or_default();
            *slowest = delay.max(*slowest);
            in_time &= (1..=window + hold).contains(&delay);
            named &= is_named(usual, expected, firing);
        }
        self.cases += 1;
        self.once += usize::from(once);
        self.in_time += usize::from(in_time);
        self.named_first += usize::from(named);
        if !(once && in_time && named) {
            let planted: Vec<_> = expected.iter().map(|of| (&of.group, &of.faults)).collect();
            println!("once {once}, in time {in_time}, named {named}: planted {planted:?}, seen {firings:#?}");
        }
    }

    #[track_caller]
    fn check(&self, what: &str) {
        println!(
            "{what}: {} incidents, {} fired once and ended once, {} in time (slowest {:?} min), {} named first",
            self.cases, self.once, self.in_time, self.slowest_minutes, self.named_first
        );
        for (what, right) in [("once", self.once), ("in time", self.in_time), ("named first", self.named_first)] {
            assert!(right * 100 >= self.cases * 95, "{what}: {right} of {}", self.cases);
        }
    }
}

/// The leaves of the alert's group that a set holds: two names of the same leaves say the same.
fn within<'w>(usual: &'w World, of: &Expected, set: &[(&str, &str)]) -> Vec<&'w Vec<&'static str>> {
    let leaves = usual.leaves(of.table).iter();
    let hit = leaves.filter(|leaf| group_of(of.table, leaf) == of.group && holds(of.table, leaf, set));
    hit.map(|leaf| &leaf.values).collect()
}

fn is_named(usual: &World, expected: &Expected, firing: &Firing) -> bool {
    let Some(causes) = &firing.causes else { return false };
    let found: Vec<Vec<(&str, &str)>> = causes
        .found
        .iter()
        .take(expected.faults.len())
        .map(|cause| {
            cause
                .dims
                .iter()
                .filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
                .collect()
        })
        .collect();
    let whole = within(usual, expected, &[]);
    expected.faults.iter().all(|fault| {
        let planted = within(usual, expected, fault);
        let is_whole_group = planted == whole;
        let is_found = found.iter().any(|set| within(usual, expected, set) == planted);
        // The alert itself names the group.
        is_found || (is_whole_group && causes.found.is_empty())
    })
}

// ---- the tests ----

/// Incidents of so many faults of so many values each.
async fn incidents(shipped: &Shipped, score: &mut Score, cases: usize, depth: usize, faults: usize) {
    let wanted = score.cases + cases;
    let mut seed = 0;
    while score.cases < wanted {
        seed += 1;
        let mut random = Random(seed * 1_000 + depth as u64 * 10 + faults as u64);
        let scale = random.between(1.0..3.0);
        let usual = World::new(&mut random, scale);
        let mut now = usual.clone();
        let planted: Vec<Fault> = (0..faults)
            .map(|_| {
                let table = Table::ALL[random.below(Table::ALL.len())];
                plant(&mut random, &usual, &mut now, table, depth)
            })
            .collect();
        let Some(expected) = expected(&usual, &now, &planted) else {
            continue;
        };
        let lasts = if planted.iter().any(|fault| fault.table == Table::Playback) {
            LASTS_FOR_PEERS
        } else {
            LASTS
        };
        let seen = shipped.story(&mut random, &usual, &now, BEGINS..BEGINS + lasts).await;
        score.add(&usual, &expected, &seen);
    }
}

#[test]
fn planted_incidents_fire_once_in_time_and_are_named_first() {
    let all = wanted().unwrap_or(USUAL_INCIDENTS);
    runtime().block_on(async {
        let shipped = Shipped::new(&[]).await;
        let mut total = Score::default();
        for (what, share, depth, faults) in [
            ("one value", 40, 1, 1),
            ("two values", 30, 2, 1),
            ("two at once", 15, 1, 2),
            ("two of two values", 15, 2, 2),
        ] {
            let mut score = Score::default();
            incidents(&shipped, &mut score, (all * share / 100).max(1), depth, faults).await;
            println!("{what}: {score:?}");
            total.cases += score.cases;
            total.once += score.once;
            total.in_time += score.in_time;
            total.named_first += score.named_first;
            for (rule, minutes) in score.slowest_minutes {
                let slowest = total.slowest_minutes.entry(rule).or_default();
                *slowest = minutes.max(*slowest);
            }
        }
        total.check("the shipped alerts");
    });
}
