//! `playhead simulate` and its truth: what the truth file says of each minute, gold shows exactly.
//!
//! Everything goes through the front door: simulated, ingested, asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::support::{Bench, PLAYHEAD, simulate};

/// A span of 40 minutes.
const MINUTES: &str = "40";
const MINUTE_MS: i64 = 60_000;

/// Columns by start of the minute, epoch ms; minutes and columns of nothing are left out.
type Minutes = BTreeMap<i64, BTreeMap<String, i64>>;

struct Simulated {
    bench: Bench,
    truth: Value,
}

impl Simulated {
    /// Simulates with these options, 300 sessions unless they say otherwise, and ingests everything.
    #[track_caller]
    fn new(options: &[&str]) -> Simulated {
        let bench = Bench::new();
        let mut all = vec!["--minutes", MINUTES];
        all.extend(options);
        if !options.contains(&"--sessions") {
            all.extend(["--sessions", "300"]);
        }
        let folder = simulate(&bench, &all);
        let summary = bench.ingest(&[&folder.join("player.ndjson"), &folder.join("cdn.tsv")]);
        let truth = std::fs::read(folder.join("truth.json")).expect("the truth is written");
        let truth: Value = serde_json::from_slice(&truth).expect("the truth is JSON");
        let count = |name: &str| truth[name].as_u64().expect("a count");
        let stored = count("events") + count("cdn_requests");
        assert_eq!(summary["stored"].as_u64(), Some(stored), "{summary}");
        assert_eq!(summary["duplicates"].as_u64(), Some(count("duplicates")), "{summary}");
        Simulated { bench, truth }
    }

    /// What gold has, of these columns.
    fn gold(&self, table: &str, columns: &[String], filter: &str) -> Minutes {
        let sums: Vec<String> = columns
            .iter()
            .map(|column| format!("CAST(sum({column}) AS BIGINT) AS {column}"))
            .collect();
        let rows = self.bench.sql(&format!(
            "SELECT CAST(date_part('epoch', window_start) AS BIGINT) AS minute, {} FROM {table} WHERE {filter} GROUP BY 1",
            sums.join(", ")
        ));
        let number = |row: &Value, name: &str| row[name].as_i64().unwrap_or(0);
        let row = |row: &Value| {
            let numbers = columns.iter().map(|column| (column.clone(), number(row, column)));
            (number(row, "minute") * 1_000, numbers.collect())
        };
        without_nothing(rows.iter().map(row).collect())
    }

    /// Compares the minutes of a truth with gold, all columns that it has but those left out.
    #[track_caller]
    fn assert_gold_is(&self, truth: &Value, table: &str, filter: &str, left_out: &[&str]) {
        let end_ms = ["start_ms", "span_ms"].iter().filter_map(|name| self.truth[name].as_i64()).sum();
        // Who is still on air when the lines end has an open session: whether an error was the end of it, the next
        // half minute would tell.
        let before_the_end = |minutes: Minutes| -> Minutes { minutes.into_iter().filter(|(minute, _)| *minute < end_ms).collect() };
        let expected = before_the_end(minutes_of(truth, left_out));
        let columns: Vec<String> = expected.values().flat_map(BTreeMap::keys).cloned().collect();
        let columns: Vec<String> = BTreeSet::from_iter(columns).into_iter().collect();
        assert!(!columns.is_empty(), "the truth about {table} where {filter} is empty");
        let found = before_the_end(self.gold(table, &columns, filter));
        let differs = |minute: &&i64| found.get(minute) != expected.get(minute);
        let minutes: BTreeSet<i64> = found.keys().chain(expected.keys()).copied().collect();
        if let Some(minute) = minutes.iter().find(differs) {
            panic!(
                "{table} where {filter} at {minute}:\n found    {:?}\n expected {:?}",
                found.get(minute),
                expected.get(minute)
            );
        }
    }

    #[track_caller]
    fn assert_all_is_true(&self) {
        self.assert_gold_is(&self.truth["playback_minutes"], "gold.playback_1m", "true", &[]);
        self.assert_gold_is(&self.truth["cdn_minutes"], "gold.cdn_1m", "true", &[]);
        for incident in self.truth["incidents"].as_array().expect("a list") {
            let table = incident["table"].as_str().expect("a name");
            self.assert_gold_is(&incident["minutes"], table, &segment_sql(incident), &[]);
        }
    }

    /// A ratio of gold within and without the time of an incident, in its segment.
    fn ratio(&self, incident: &Value, numerator: &str, denominator: &str) -> (f64, f64) {
        let table = incident["table"].as_str().expect("a name");
        let (from_ms, to_ms) = (incident["from_ms"].as_i64().unwrap_or(0), incident["to_ms"].as_i64().unwrap_or(0));
        let of = |condition: &str| {
            let value = self.bench.value(&format!(
                "SELECT CAST(sum({numerator}) AS DOUBLE) / sum({denominator}) AS ratio FROM {table} WHERE {} AND \
                 {condition} (date_part('epoch', window_start) * 1000 >= {from_ms} AND date_part('epoch', window_start) * 1000 < {to_ms})",
                segment_sql(incident)
            ));
            value.as_f64().unwrap_or(0.0)
        };
        (of(""), of("NOT"))
    }
}

fn segment_sql(incident: &Value) -> String {
    let pairs = incident["segment"].as_array().expect("a list");
    let conditions = pairs.iter().map(|pair| format!("{} = '{}'", text(&pair[0]), text(&pair[1])));
    conditions.chain(["true".to_owned()]).collect::<Vec<_>>().join(" AND ")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn minutes_of(truth: &Value, left_out: &[&str]) -> Minutes {
    let minutes = truth.as_object().expect("minutes by their start").iter();
    let minute = |(start, numbers): (&String, &Value)| {
        let numbers = numbers.as_object().expect("numbers by column").iter();
        let kept = numbers.filter(|(column, _)| !left_out.contains(&column.as_str()));
        let kept = kept.map(|(column, number)| (column.clone(), number.as_i64().expect("a number")));
        (start.parse().expect("a time"), kept.collect())
    };
    without_nothing(minutes.map(minute).collect())
}

/// A minute of zeros and a minute that is not there say the same.
fn without_nothing(mut minutes: Minutes) -> Minutes {
    minutes.values_mut().for_each(|numbers| numbers.retain(|_, number| *number != 0));
    minutes.retain(|_, numbers| !numbers.is_empty());
    minutes
}

#[test]
fn gold_shows_the_truth_of_every_minute_of_an_even_audience() {
    Simulated::new(&["--seed", "11", "--incident"]).assert_all_is_true();
    Simulated::new(&["--seed", "12"]).assert_all_is_true();
}

#[test]
fn gold_shows_the_truth_of_every_minute_of_a_lifelike_audience_and_its_incidents() {
    let two_at_once = [
        "--seed",
        "13",
        "--lifelike",
        "--plant",
        "isp_stalls@10+15",
        "--plant",
        "origin_melts@15+10",
    ];
    Simulated::new(&two_at_once).assert_all_is_true();
    let others = [
        "--seed",
        "14",
        "--lifelike",
        "--plant",
        "title_broken@5+10",
        "--plant",
        "app_start_failures@18+10",
        "--plant",
        "cdn_slow_first_byte@30+10",
    ];
    Simulated::new(&others).assert_all_is_true();
}

#[test]
fn every_planted_incident_is_seen_in_the_numbers_of_its_segment() {
    let simulated = Simulated::new(&[
        "--sessions",
        "900",
        "--lifelike",
        "--plant",
        "isp_stalls@0+20",
        "--plant",
        "app_start_failures@0+20",
        "--plant",
        "cdn_slow_first_byte@0+20",
        "--plant",
        "title_broken@20+20",
        "--plant",
        "origin_melts@20+20",
    ]);
    let seen_by = [
        ("stall_ms", "(stall_ms + playing_ms)", 3.0),
        // What hits everybody later hits these, too.
        ("start_failures", "attempts", 3.0),
        ("ttfb_ms_sum", "ttfb_count", 5.0),
        ("start_failures", "attempts", 10.0),
        ("status_5xx", "requests", 3.0),
    ];
    let incidents = simulated.truth["incidents"].as_array().expect("a list");
    assert_eq!(incidents.len(), seen_by.len());
    for (incident, (numerator, denominator, times)) in incidents.iter().zip(seen_by) {
        assert!(incident["effects"].as_u64() > Some(0), "{incident}");
        let (within, without) = simulated.ratio(incident, numerator, denominator);
        assert!(within > times * without.max(0.001), "{}: {within} and {without}", incident["name"]);
    }
}

#[test]
fn a_session_has_the_same_numbers_in_every_dialect_that_can_say_them() {
    let of = |dialect: &str, left_out: &[&str]| {
        let simulated = Simulated::new(&["--seed", "15", "--dialect", dialect]);
        let minutes = &simulated.truth["playback_minutes"];
        simulated.assert_gold_is(minutes, "gold.playback_1m", "true", left_out);
        simulated
    };
    let cmcd = of("cmcd", &[]);
    // How long a seek waits is said by neither.
    of("epas", &["playing_ms", "paused_ms"]);
    // IVS knows only what played, and stalls as sums of summaries, which may lie in the minute before.
    let ivs = Simulated::new(&["--seed", "15", "--dialect", "ivs"]);
    let played = minutes_of(&ivs.truth["playback_minutes"], &[]);
    let sum = |column: &str| played.values().filter_map(|numbers| numbers.get(column)).sum::<i64>();
    for column in ["plays", "startup_ms_sum", "stall_count", "stall_ms"] {
        assert_eq!(
            ivs.bench.int(&format!("SELECT sum({column}) AS n FROM gold.playback_1m")),
            sum(column),
            "{column}"
        );
    }
    // The requests are the same, whatever the players speak.
    cmcd.assert_gold_is(&ivs.truth["cdn_minutes"], "gold.cdn_1m", "true", &[]);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for dialect in ["reference", "cmcd", "epas", "ivs"] {
        let written = |seed: &str| {
            let bench = Bench::new();
            let options = [
                "--sessions",
                "40",
                "--seed",
                seed,
                "--lifelike",
                "--dialect",
                dialect,
                "--plant",
                "isp_stalls@5+20",
            ];
            let folder = simulate(&bench, &options);
            ["player.ndjson", "cdn.tsv", "truth.json"].map(|name| std::fs::read(folder.join(name)).expect("it was written"))
        };
        let (first, second, other) = (written("7"), written("7"), written("8"));
        assert!(first == second, "{dialect}: two runs of one seed differ");
        assert!(first[0] != other[0] && first[1] != other[1], "{dialect}: seeds do not matter");
    }
}

#[test]
fn a_simulation_is_posted_to_a_running_daemon_as_the_clock_goes() {
    let bench = Bench::new();
    let mut daemon = Daemon::start(
        &bench,
        "http: {listen: \"127.0.0.1:0\"}\ningest: {commit_every: 200ms, poll_every: 50ms}\n",
    );
    let address = format!("http://{}", daemon.address());
    let truth_file = bench.path("truth.json");
    let sent = |dialect: &str| {
        let output = Command::new(PLAYHEAD)
            .args([
                "simulate",
                &address,
                "--dialect",
                dialect,
                "--sessions",
                "5",
                "--minutes",
                "1",
                "--truth",
            ])
            .arg(&truth_file)
            .output()
            .expect("the binary starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let truth: Value = serde_json::from_slice(&std::fs::read(&truth_file).expect("written")).expect("JSON");
        truth["events"].as_i64().expect("a count")
    };
    let events = sent("cmcd") + sent("epas");
    daemon.wait_until("every event is in bronze", || {
        let output = bench.run(&["sql", "--json", "SELECT count(*) AS n FROM bronze.player_events"]);
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        rows[0]["n"].as_i64() == Some(events)
    });
    assert!(daemon.stop().success());
}

#[test]
fn a_receiver_that_is_not_there_and_a_name_that_nobody_knows_are_told() {
    let bench = Bench::new();
    let told = |arguments: &[&str], code: i32| {
        let output = Command::new(PLAYHEAD)
            .arg("simulate")
            .args(arguments)
            .current_dir(bench.path(""))
            .output()
            .expect("the binary starts");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let nobody = told(&["http://127.0.0.1:9", "--sessions", "3"], 1);
    assert!(nobody.contains("is playhead running there?"), "{nobody}");
    assert!(told(&["https://127.0.0.1/x"], 64).contains("write http://HOST:PORT"));
    assert!(told(&["out", "--plant", "fire@1+2"], 64).contains("there are isp_stalls, "));
    assert!(told(&["out", "--dialect", "morse"], 64).contains("there are reference, cmcd, epas, ivs"));
    assert!(!Path::new(&bench.path("out")).exists(), "something was written all the same");
}

#[test]
fn the_clock_is_followed_at_the_rate_that_is_asked_for() {
    let output = Command::new(PLAYHEAD)
        .args(["simulate", "-", "--rate", "50", "--minutes", "1", "--start", "1767225600"])
        .output()
        .expect("the binary starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let times: Vec<i64> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("a line of JSON")["TimeStamp"]
                .as_i64()
                .expect("a time")
        })
        .collect();
    // What began long ago is not waited for; sessions of a minute go on for some minutes.
    let span_ms = times.last().copied().unwrap_or(0) - times.first().copied().unwrap_or(0);
    assert!((2_000..4_500).contains(&times.len()), "{} events", times.len());
    assert!(span_ms > MINUTE_MS && times.is_sorted());
}
