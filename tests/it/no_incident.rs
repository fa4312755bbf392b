//! The shipped alerts where nothing is wrong: healthy hours, weeks and a week minute by minute, another mix of the
//! same traffic, too little to say anything. Nothing fires, and whatever fires blames nobody.
//!
//! `PLAYHEAD_INCIDENTS=200 cargo test --locked --test it incident -- --nocapture` plays all of them, and the week.

use playhead::alert::replay::Firing;
use playhead::sql::{self, Session};

use crate::gold_model::{Gold, Leaf, MINUTE_MS, Random, Set, Table, World, holds, place};
use crate::judged::{BEGINS, DAY_MS, LASTS, LASTS_FOR_PEERS, LIMITS, Shipped, T0, history, runtime, wanted};

#[test]
fn healthy_hours_fire_nothing() {
    let all = wanted().unwrap_or(3);
    runtime().block_on(async {
        let shipped = Shipped::new(&[]).await;
        let mut fired = 0;
        for seed in 0..all as u64 {
            let mut random = Random(9_000_000 + seed);
            let scale = random.between(1.0..3.0);
            let usual = World::new(&mut random, scale);
            let seen = shipped.story(&mut random, &usual, &usual, BEGINS..BEGINS + LASTS).await;
            seen.iter().for_each(|firing| println!("fired without a fault: {firing:?}"));
            fired += usize::from(!seen.is_empty());
        }
        println!("{all} healthy hours: {fired} with an alert");
        assert_eq!(fired, 0, "of {all} healthy hours");
    });
}

/// Every minute of a week, with the curve of the day; the baseline grows as it goes on.
#[test]
fn a_healthy_week_fires_nothing() {
    let Some(_) = wanted() else {
        println!("skipped: a week of minutes takes minutes; PLAYHEAD_INCIDENTS=200 plays it");
        return;
    };
    runtime().block_on(async {
        let shipped = Shipped::new(&[]).await;
        let mut random = Random(1);
        let mut usual = World::new(&mut random, 1.0);
        // One title is enough where nobody looks for a cause, and a quarter of the rows.
        let of_one = |leaf: &Leaf| holds(Table::Playback, leaf, &[("content_id", "harbour-lights-e01")]);
        usual.0.get_mut(&Table::Playback).expect("all are there").retain(of_one);
        usual.leaves_mut(Table::Playback).iter_mut().for_each(|leaf| leaf.size *= 2.5);
        let mut gold = Gold::default();
        history(&mut random, &mut gold, &usual, 24);
        for minute in 0..7 * 1_440 {
            let mut world = usual.clone();
            let of_day = 1.0 + 0.5 * (minute as f64 / 1_440.0 * std::f64::consts::TAU).sin();
            for table in Table::ALL {
                world.leaves_mut(table).iter_mut().for_each(|leaf| leaf.size *= of_day);
                gold.count(&mut random, &world, table, "1m", T0 + minute * MINUTE_MS, 1.0);
            }
        }
        let seen = shipped.firings(gold, 15..7 * 1_440).await;
        println!("a healthy week, minute by minute: {} alerts", seen.len());
        assert!(seen.is_empty(), "{seen:#?}");
    });
}

/// Who watches changes so that the group gets worse, and each part of it stays as it was.
fn mix(random: &mut Random, usual: &mut World, now: &mut World, table: Table) {
    let (names, ratio, size) = match table {
        Table::Errors => (vec!["device_type", "app_version"], 0.12, 10.0),
        Table::Cdn => (vec!["pop"], 160.0, 12.0),
        Table::Playback => (vec!["isp", "content_id"], 0.05, 10.0),
    };
    let leaf = usual.leaves(table)[random.below(usual.leaves(table).len())].clone();
    let set: Set = names.iter().map(|name| (*name, leaf.values[place(table, name)])).collect();
    // Everywhere this title waits longer, and few watch it: that is no news.
    let usually: Set = set.iter().filter(|(name, _)| *name != "isp").copied().collect();
    for world in [&mut *usual, &mut *now] {
        for leaf in world.leaves_mut(table).iter_mut().filter(|leaf| holds(table, leaf, &usually)) {
            leaf.ratio = ratio;
            leaf.size /= 4.0;
        }
    }
    let factor = random.between(size..2.0 * size);
    for leaf in now.leaves_mut(table).iter_mut().filter(|leaf| holds(table, leaf, &set)) {
        leaf.size *= factor;
    }
}

#[test]
fn a_mere_change_of_the_mix_is_never_blamed() {
    let all = wanted().map_or(3, |wanted| wanted / 2).max(3);
    runtime().block_on(async {
        let shipped = Shipped::new(&[]).await;
        let (mut alerts, mut blamed) = (0, 0);
        for seed in 0..all {
            let mut random = Random(7_000_000 + seed as u64);
            let mut usual = World::new(&mut random, 3.0);
            let mut now = usual.clone();
            let table = Table::ALL[seed % Table::ALL.len()];
            mix(&mut random, &mut usual, &mut now, table);
            let lasts = if table == Table::Playback { LASTS_FOR_PEERS } else { LASTS };
            let seen = shipped.story(&mut random, &usual, &now, BEGINS..BEGINS + lasts).await;
            let has_cause = |firing: &&Firing| firing.causes.as_ref().is_none_or(|causes| !causes.found.is_empty());
            seen.iter()
                .filter(has_cause)
                .for_each(|firing| println!("blamed: {table:?} {firing:?}"));
            alerts += usize::from(!seen.is_empty());
            blamed += usize::from(seen.iter().any(|firing| has_cause(&firing)));
        }
        println!("{all} changes of the mix: {alerts} with an alert, {blamed} blamed");
        assert!(
            alerts * 10 >= all * 9,
            "{alerts} of {all} made the whole worse, as a test of this has to"
        );
        assert!(blamed * 20 <= all, "{blamed} of {all}");
    });
}

/// A week against the week before, by the SQL that people ask: sizes change from day to day, nothing else does.
#[test]
fn fault_free_weeks_have_nobody_to_blame() {
    let all = wanted().unwrap_or(10);
    runtime().block_on(async {
        let shipped = Shipped::new(&[]).await;
        let mut weeks_blamed = 0;
        for seed in 0..all as u64 {
            let mut random = Random(5_000_000 + seed);
            let usual = World::new(&mut random, 1.0);
            let mut gold = Gold::default();
            for day in 0..14 {
                let mut world = usual.clone();
                for table in Table::ALL {
                    let of_day = random.between(0.7..1.3);
                    for leaf in world.leaves_mut(table) {
                        leaf.size *= of_day * random.between(0.8..1.25);
                    }
                    let grain = if table == Table::Errors { "1m" } else { "1d" };
                    gold.count(&mut random, &world, table, grain, T0 / DAY_MS * DAY_MS + day * DAY_MS, 1_440.0);
                }
            }
            let context = shipped.session(gold).await;
            let mut is_blamed = false;
            for (metric, dims) in [
                ("error_rate_app", "app_name, device_type, app_version"),
                ("ttfb_mean_ms", ""),
                ("rebuffer_ratio", ""),
            ] {
                let found = explained(&context, metric, dims).await;
                found
                    .iter()
                    .for_each(|cause| println!("seed {seed}: {metric} is blamed on {cause}"));
                is_blamed |= !found.is_empty();
            }
            weeks_blamed += usize::from(is_blamed);
        }
        println!("{all} fault-free weeks, three metrics each: {weeks_blamed} with somebody blamed");
        assert!(weeks_blamed <= all.div_ceil(100), "{weeks_blamed} of {all}");
    });
}

/// The causes between the week from T0's day on and the one after it.
async fn explained(context: &Session, metric: &str, dims: &str) -> Vec<String> {
    let day = |days: i64| format!("to_timestamp_millis({})", T0 / DAY_MS * DAY_MS + days * DAY_MS);
    let text = format!(
        "SELECT cause FROM explain_change('{metric}', {}, {}, {}, {}, '{dims}') WHERE cause IS NOT NULL",
        day(7),
        day(14),
        day(0),
        day(7)
    );
    let (_, batches) = sql::query(context, &text, LIMITS).await.expect("it is answered");
    let texts = batches.iter().map(|batch| sql::cause::texts(batch.column(0)));
    texts
        .flat_map(|texts| texts.iter().flatten().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn fifteen_percent_of_latency_fire_and_five_do_not() {
    runtime().block_on(async {
        let shipped = Shipped::new(&[]).await;
        for (factor, expected) in [(1.05, 0), (1.15, 1)] {
            let mut random = Random(1_500);
            let mut usual = World::new(&mut random, 1.5);
            // A CDN of 200 ms, for the rule wants 20 ms as well.
            usual.leaves_mut(Table::Cdn).iter_mut().for_each(|leaf| leaf.ratio *= 5.0);
            let mut now = usual.clone();
            let of_country = |leaf: &&mut Leaf| holds(Table::Cdn, leaf, &[("country", "DE")]);
            now.leaves_mut(Table::Cdn)
                .iter_mut()
                .filter(of_country)
                .for_each(|leaf| leaf.ratio *= factor);
            let seen = shipped.story(&mut random, &usual, &now, BEGINS..BEGINS + LASTS).await;
            assert_eq!(seen.len(), expected, "times {factor}: {seen:#?}");
        }
    });
}

#[test]
fn one_of_four_clients_is_no_incident() {
    runtime().block_on(async {
        let shipped = Shipped::new(&[("min_samples: 500", "min_samples: 50")]).await;
        let mut random = Random(4);
        let mut usual = World::new(&mut random, 1.0);
        let mut now = usual.clone();
        for world in [&mut usual, &mut now] {
            let thin = |leaf: &&mut Leaf| holds(Table::Errors, leaf, &[("device_type", "tv")]);
            world
                .leaves_mut(Table::Errors)
                .iter_mut()
                .filter(thin)
                .for_each(|leaf| leaf.size = 4.0 / 15.0);
        }
        let tvs = |leaf: &&mut Leaf| holds(Table::Errors, leaf, &[("device_type", "tv")]);
        now.leaves_mut(Table::Errors)
            .iter_mut()
            .filter(tvs)
            .for_each(|leaf| leaf.ratio = 0.25);
        let seen = shipped.story(&mut random, &usual, &now, BEGINS..BEGINS + LASTS).await;
        assert!(seen.is_empty(), "{seen:#?}");
    });
}
