//! The same input gives the same tables, in whatever order, batches and repetitions it comes.
//!
//! Each way of delivery goes into a lake of its own; when all input is in, the tables of both lakes
//! must be equal but for the columns that tell of the delivery itself (`support::contents`).

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Bench, contents, reference, simulate};

/// A shuffle of its own, the same on every machine: Fisher-Yates over a linear congruential
/// generator (Knuth's MMIX constants).
fn shuffled<T>(mut items: Vec<T>, seed: u64) -> Vec<T> {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (state >> 33) as usize % (last + 1));
    }
    items
}

fn lines_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("the input is there");
    text.lines().map(str::to_string).collect()
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn reference_files() -> [PathBuf; 2] {
    [reference("ref_player.ndjson"), reference("ref_cdn.ndjson")]
}

/// The reference fixture, ingested as it lies.
fn in_order() -> Bench {
    let bench = Bench::new();
    let [player, cdn] = reference_files();
    bench.ingest(&[&player, &cdn]);
    bench
}

#[track_caller]
fn assert_same(found: &Bench, expected: &Bench) {
    assert_same_tables(&contents(found), &contents(expected));
}

/// Equal, with the first differing row of each table told.
#[track_caller]
fn assert_same_tables(found: &BTreeMap<String, Vec<String>>, expected: &BTreeMap<String, Vec<String>>) {
    let mut complaints = Vec::new();
    for (table, rows) in expected {
        let others = &found[table];
        if rows == others {
            continue;
        }
        let missing: Vec<&String> = rows.iter().filter(|row| !others.contains(row)).collect();
        let extra: Vec<&String> = others.iter().filter(|row| !rows.contains(row)).collect();
        complaints.push(format!(
            "{table}: {} rows instead of {}; {} missing, {} too many\n  missing {:?}\n  extra   {:?}",
            others.len(),
            rows.len(),
            missing.len(),
            extra.len(),
            missing.first(),
            extra.first()
        ));
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_same_files_again_change_nothing() {
    let bench = in_order();
    let before = contents(&bench);
    let [player, cdn] = reference_files();
    let again = bench.ingest(&[&player, &cdn]);
    assert_eq!(
        (&again["stored"], &again["rejected"]),
        (&Value::from(0), &Value::from(0)),
        "{again}"
    );
    assert_same_tables(&contents(&bench), &before);
}

#[test]
fn the_same_lines_under_another_name_are_all_duplicates() {
    let bench = in_order();
    let before = contents(&bench);
    let copies: Vec<PathBuf> = reference_files()
        .iter()
        .enumerate()
        .map(|(number, path)| bench.write(&format!("again/{number}.ndjson"), joined(&lines_of(path))))
        .collect();
    let again = bench.ingest(&[&copies[0], &copies[1]]);
    assert_eq!(
        (&again["received"], &again["stored"], &again["duplicates"]),
        (&33.into(), &0.into(), &33.into()),
        "{again}"
    );
    assert_same_tables(&contents(&bench), &before);
}

#[test]
fn lines_in_any_order_give_the_same_tables() {
    let expected = contents(&in_order());
    for seed in [1, 2] {
        let bench = Bench::new();
        let files: Vec<PathBuf> = reference_files()
            .iter()
            .enumerate()
            .map(|(number, path)| {
                let lines = lines_of(path);
                let mixed = shuffled(lines.clone(), seed);
                assert_ne!(mixed, lines, "seed {seed} shuffles nothing");
                bench.write(&format!("{number}.ndjson"), joined(&mixed))
            })
            .collect();
        bench.ingest(&[&files[0], &files[1]]);
        assert_same_tables(&contents(&bench), &expected);
    }
}

#[test]
fn every_line_twice_gives_the_same_tables() {
    let bench = Bench::new();
    let files: Vec<PathBuf> = reference_files()
        .iter()
        .enumerate()
        .map(|(number, path)| {
            let doubled: Vec<String> = lines_of(path).into_iter().flat_map(|line| [line.clone(), line]).collect();
            bench.write(&format!("{number}.ndjson"), joined(&doubled))
        })
        .collect();
    let summary = bench.ingest(&[&files[0], &files[1]]);
    assert_eq!(
        (&summary["received"], &summary["stored"], &summary["duplicates"]),
        (&66.into(), &33.into(), &33.into()),
        "{summary}"
    );
    assert_same(&bench, &in_order());
}

#[test]
fn a_day_told_backwards_in_three_deliveries_gives_the_same_tables() {
    let bench = Bench::new();
    let [player, cdn] = reference_files();
    // Every delivery but the first comes when the watermark has already closed its windows: sessions
    // are opened again and gold is computed again.
    for (number, third) in lines_of(&player).chunks(9).enumerate().collect::<Vec<_>>().into_iter().rev() {
        let file = bench.write(&format!("{number}.ndjson"), joined(third));
        bench.ingest(&[&file]);
    }
    for (number, half) in lines_of(&cdn).chunks(4).enumerate().collect::<Vec<_>>().into_iter().rev() {
        let file = bench.write(&format!("cdn{number}.ndjson"), joined(half));
        bench.ingest(&[&file]);
    }
    assert_same(&bench, &in_order());
}

#[test]
fn sessions_cut_across_deliveries_are_put_together_again() {
    // Unlike in contiguous thirds, here every session has events in every delivery.
    let bench = Bench::new();
    let lines = lines_of(&reference("ref_player.ndjson"));
    for part in [2, 0, 1] {
        let dealt: Vec<String> = lines.iter().skip(part).step_by(3).cloned().collect();
        let file = bench.write(&format!("{part}.ndjson"), joined(&dealt));
        bench.ingest(&[&file]);
    }
    bench.ingest(&[&reference("ref_cdn.ndjson")]);
    assert_same(&bench, &in_order());
}

#[test]
fn batches_of_one_record_give_the_same_tables() {
    let bench = Bench::new();
    let [player, cdn] = reference_files();
    let summary = bench.ingest_with("ingest: {batch_records: 1}\n", &[&player, &cdn]);
    assert!(
        summary["epochs"].as_u64() >= Some(33),
        "the batches were not single records: {summary}"
    );
    assert_same(&bench, &in_order());
}

// ---- a simulated audience ----

/// What `playhead simulate` wrote.
struct Audience {
    player: Vec<String>,
    cdn_header: Vec<String>,
    cdn: Vec<String>,
    truth: Value,
}

fn audience(bench: &Bench) -> Audience {
    let folder = simulate(bench, &["--sessions", "120", "--seed", "3", "--minutes", "30", "--incident"]);
    let (cdn_header, cdn) = lines_of(&folder.join("cdn.tsv"))
        .into_iter()
        .partition(|line| line.starts_with('#'));
    let truth = std::fs::read(folder.join("truth.json")).expect("the truth is there");
    Audience {
        player: lines_of(&folder.join("player.ndjson")),
        cdn_header,
        cdn,
        truth: serde_json::from_slice(&truth).expect("JSON"),
    }
}

impl Audience {
    fn ingest_in_order(&self, bench: &Bench) {
        let player = bench.write("in/player.ndjson", joined(&self.player));
        let cdn = bench.write("in/cdn.tsv", joined(&self.cdn_header) + &joined(&self.cdn));
        bench.ingest(&[&player, &cdn]);
    }
}

#[test]
fn an_audience_comes_out_the_same_mixed_doubled_and_backwards() {
    let expected = Bench::new();
    let audience = audience(&expected);
    audience.ingest_in_order(&expected);

    // In four deliveries, newest first; within each the lines are mixed, and a third of all lines
    // comes once more in the last one.
    let bench = Bench::new();
    let player: Vec<&[String]> = audience.player.chunks(audience.player.len().div_ceil(4)).collect();
    let cdn: Vec<&[String]> = audience.cdn.chunks(audience.cdn.len().div_ceil(4)).collect();
    for number in (0..4).rev() {
        let doubled = |all: &[String], part: &[String]| -> Vec<String> {
            let again = all.iter().step_by(3).filter(|_| number == 0);
            shuffled(part.iter().chain(part).chain(again).cloned().collect(), number as u64)
        };
        let player = bench.write(&format!("in/{number}.ndjson"), joined(&doubled(&audience.player, player[number])));
        let cdn = joined(&audience.cdn_header) + &joined(&doubled(&audience.cdn, cdn[number]));
        let cdn = bench.write(&format!("in/{number}.tsv"), cdn);
        bench.ingest(&[&player, &cdn]);
    }
    assert_same(&bench, &expected);
}

#[test]
fn an_audience_is_measured_as_its_truth_says() {
    let bench = Bench::new();
    let audience = audience(&bench);
    audience.ingest_in_order(&bench);
    let found = &bench.sql(
        "SELECT sum(attempts) AS sessions, sum(plays) AS plays, sum(start_failures) AS start_failures,
                sum(exits_before_start) AS exits_before_start, sum(playback_failures) AS playback_failures,
                sum(finished) AS finished, sum(stall_count) AS stalls, sum(stall_ms) AS stall_ms, sum(startup_ms) AS startup_ms
         FROM silver.playback_sessions",
    )[0];
    let truth = |name: &str| audience.truth[name].as_i64().expect("the truth counts it");

    // The one tolerance: an event that names nobody takes part in no session, so a viewer who leaves
    // before the first frame and sent nothing else is not seen.
    let exits = found["exits_before_start"].as_i64().expect("a count");
    let unseen = truth("exits_before_start") - exits;
    assert!(
        (0..=truth("anonymous_events")).contains(&unseen),
        "{unseen} exits before start are missing"
    );
    // A viewer who pauses before the first heartbeat resumes with a PLAY at 0, for the reference
    // player refreshes its position at heartbeats only: such a PLAY is no new session.
    assert!(
        resumes_at_zero(&audience.player) > 0,
        "this audience does not show it: choose another seed"
    );
    for name in [
        "sessions",
        "plays",
        "start_failures",
        "playback_failures",
        "finished",
        "stalls",
        "stall_ms",
        "startup_ms",
    ] {
        let unseen = if name == "sessions" {
            truth("exits_before_start") - exits
        } else {
            0
        };
        assert_eq!(found[name], truth(name) - unseen, "{name}");
    }
    assert_eq!(
        bench.int("SELECT count(*) FROM silver.player_events WHERE unattributed"),
        truth("anonymous_events")
    );
    assert_eq!(bench.int("SELECT count(*) FROM silver.player_events"), truth("events"));
    assert_eq!(bench.int("SELECT count(*) FROM silver.cdn_requests"), truth("cdn_requests"));
}

/// Resumes that look like a start: a PLAY at 0 of a viewer and title that had a PLAY before.
fn resumes_at_zero(player: &[String]) -> usize {
    let mut seen = HashSet::new();
    let events = player
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let plays = events.filter(|event| event["MetricType"] == "PLAY" && event["at"] == 0 && event["user_id"].is_string());
    plays
        .filter(|event| !seen.insert((event["user_id"].to_string(), event["video_id"].to_string())))
        .count()
}
