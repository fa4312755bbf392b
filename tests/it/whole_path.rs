//! Planted incidents the whole way: `playhead simulate`, `ingest`, `alerts replay` against the truth file.
//!
//! The rules are the shipped ones with numbers for a small crowd; `PLAYHEAD_INCIDENTS=200` sends one large enough
//! for the shipped numbers, too. What gold holds of the healthy minutes is compared with the model that the
//! hundreds of incidents of `incidents.rs` are drawn from.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::alerts::shipped;
use crate::daemon::Daemon;
use crate::delivery_kills::{minutes, move_in};
use crate::gold_model::{ERRORS, TTFB_MS, waiting};
use crate::judged::wanted;
use crate::support::{Bench, PLAYHEAD, simulate};

/// 2026-01-01T00:00:00Z, when simulations begin.
const START_S: i64 = 1_767_225_600;
const DAY_S: i64 = 86_400;
/// Days before with requests: what the CDN's rule needs to know what is usual, and one.
const DAYS_BEFORE: i64 = 4;
const PLANTED: [&str; 3] = ["isp_stalls", "app_start_failures", "cdn_slow_first_byte"];

/// One simulation with three incidents at once, ingested and judged.
struct Whole {
    bench: Bench,
    replayed: Value,
}

impl Whole {
    /// `rules` by file name; the incidents are minutes `from` to `from + lasts` of so many.
    fn new(rules: &[(&str, String)], sessions: u32, seed: u64, [from, lasts, minutes]: [i64; 3]) -> Whole {
        let mut bench = Bench::new();
        for (name, text) in rules {
            bench.write(&format!("rules/{name}"), text);
        }
        let folder = bench.path("rules");
        bench.set_settings(&format!("alerts: {{folder: {}}}\n", folder.display()));
        let per_minute = sessions / u32::try_from(minutes).expect("an hour or so");
        for day in 1..=DAYS_BEFORE {
            let log = requests_of_a_minute(&bench, START_S - day * DAY_S, per_minute.max(60));
            bench.ingest(&[&log]);
        }
        let (sessions, seed, span) = (sessions.to_string(), seed.to_string(), minutes.to_string());
        let planted = PLANTED.map(|name| format!("{name}@{from}+{lasts}"));
        let mut options = vec![
            "--lifelike",
            "--peak-hour",
            "0",
            "--sessions",
            &sessions,
            "--seed",
            &seed,
            "--minutes",
            &span,
        ];
        planted.iter().for_each(|planted| options.extend(["--plant", planted.as_str()]));
        let simulated = simulate(&bench, &options);
        bench.ingest(&[&simulated.join("player.ndjson"), &simulated.join("cdn.tsv")]);
        let truth = simulated.join("truth.json");
        let truth = truth.to_str().expect("a plain path");
        let to = format!("2026-01-01T{:02}:{:02}:00Z", minutes / 60, minutes % 60);
        let output = bench.run(&[
            "alerts",
            "replay",
            "--from",
            "2026-01-01T00:00:00Z",
            "--to",
            &to,
            "--causes",
            "--truth",
            truth,
            "--json",
        ]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let replayed = serde_json::from_slice(&output.stdout).expect("it is JSON");
        Whole { bench, replayed }
    }

    /// Each incident fires once, in time, and is named; nothing else fires.
    #[track_caller]
    fn check(&self, from: i64, longest_minutes: &[(&str, i64)]) {
        let score = &self.replayed["score"];
        assert_eq!(
            (&score["wrong"], &score["missed"], &score["found"], &score["repeated"]),
            (&json!(0), &json!(0), &json!(3), &json!(0)),
            "{:#}",
            self.replayed
        );
        let firings = self.replayed["firings"].as_array().expect("a list");
        let named: Vec<(&str, &Value, &Value)> = firings
            .iter()
            .map(|firing| {
                (
                    firing["rule_uid"].as_str().unwrap_or(""),
                    &firing["dims"],
                    &firing["cause"][0]["dims"],
                )
            })
            .collect();
        // A CDN's log names no country; without a database of networks it is unknown.
        let expected = [
            ("isp-rebuffering-peers", json!({"isp": "Musterkabel", "country": "DE"}), Value::Null),
            (
                "playback-error-share",
                json!({"device_type": "tv", "app_name": "Example TV"}),
                json!({"app_version": "5.3.0"}),
            ),
            (
                "cdn-latency-baseline",
                json!({"cdn": "cloudfront", "country": null}),
                json!({"pop": "GRU"}),
            ),
        ];
        for (uid, dims, cause) in &expected {
            assert!(named.contains(&(*uid, dims, cause)), "{uid} {dims} {cause} is not in\n{named:#?}");
        }
        for (uid, longest) in longest_minutes {
            let firing = firings.iter().find(|firing| firing["rule_uid"] == *uid).expect("it has fired");
            let fired = firing["fired_at_ms"].as_i64().expect("a time") / 60_000 - START_S / 60 - from;
            println!("{uid} fired after {fired} min, {longest} at the most");
            assert!((1..=*longest).contains(&fired), "{uid} after {fired} minutes");
            assert_eq!(firing["messages"], 2, "it is told once, and its end once: {firing}");
        }
        self.check_recorded(firings.len());
    }

    /// What was recorded and told while the files were read is what the replay says.
    #[track_caller]
    fn check_recorded(&self, firings: usize) {
        let told = |status: &str| {
            self.bench.int(&format!(
                "SELECT count(*) FROM ops.alert_events WHERE kind = 'transition' AND status = '{status}'"
            ))
        };
        let firings = i64::try_from(firings).expect("a few");
        assert_eq!((told("firing"), told("resolved")), (firings, firings));
    }

    /// The model has the numbers that the simulator's audience has in gold before anything is wrong.
    #[track_caller]
    fn check_model(&self, from: i64) {
        let healthy = format!("window_start >= TIMESTAMP '2026-01-01 00:03:00' AND window_start < TIMESTAMP '2026-01-01 00:{from:02}:00'");
        let ratio = |num: &str, den: &str, table: &str| {
            let text = format!("SELECT CAST(sum({num}) AS DOUBLE) / sum({den}) AS ratio FROM {table} WHERE {healthy}");
            self.bench.value(&text).as_f64().expect("a number")
        };
        for (what, model, simulated, factor) in [
            ("errors", ERRORS, ratio("clients_with_errors", "clients", "gold.errors_1m"), 2.0),
            ("first byte", TTFB_MS, ratio("ttfb_ms_sum", "ttfb_count", "gold.cdn_1m"), 1.15),
            (
                "waiting",
                waiting(4.5),
                ratio("stall_ms", "(stall_ms + playing_ms)", "gold.playback_1m"),
                2.0,
            ),
        ] {
            println!("{what}: {model:.5} in the model, {simulated:.5} in gold");
            let off = simulated / model;
            assert!(
                (1.0 / factor..factor).contains(&off),
                "{what}: {model} in the model, {simulated} in gold"
            );
        }
    }
}

/// A CDN's log of a few viewers who came in one minute.
fn requests_of_a_minute(bench: &Bench, start_s: i64, sessions: u32) -> PathBuf {
    let folder = bench.path(&format!("before-{start_s}"));
    let output = Command::new(PLAYHEAD)
        .arg("simulate")
        .arg(&folder)
        .args(["--lifelike", "--minutes", "1", "--start", &start_s.to_string()])
        .args(["--sessions", &sessions.to_string(), "--seed", &start_s.to_string()])
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join("cdn.tsv")
}

#[test]
fn three_incidents_at_once_are_found_and_named_from_events_to_messages() {
    let errors = shipped("playback_errors.yaml", &[("min_samples: 500", "min_samples: 50"), ("z: 3", "z: 1")]);
    let peers = [
        ("min_samples: 1000", "min_samples: 40"),
        ("window: 15m", "window: 5m"),
        ("for: 15m", "for: 2m"),
    ];
    let rules = [
        ("errors.yaml", errors),
        ("isp.yaml", shipped("isp_rebuffering.yaml", &peers)),
        (
            "cdn.yaml",
            shipped("cdn_latency.yaml", &[("min_samples: 5000", "min_samples: 200")]),
        ),
    ];
    let whole = Whole::new(&rules, 3_000, 21, [14, 14, 42]);
    whole.check(
        14,
        &[
            ("playback-error-share", 7),
            ("cdn-latency-baseline", 8),
            ("isp-rebuffering-peers", 7),
        ],
    );
    whole.check_model(14);
}

#[test]
fn a_large_crowd_trips_the_rules_as_they_are_shipped() {
    if wanted().is_none() {
        println!("skipped: half a million lines take minutes; PLAYHEAD_INCIDENTS=200 sends them");
        return;
    }
    let names = ["playback_errors.yaml", "isp_rebuffering.yaml", "cdn_latency.yaml"];
    let rules = names.map(|name| (name, shipped(name, &[])));
    let whole = Whole::new(&rules, 30_000, 22, [15, 35, 70]);
    whole.check(
        15,
        &[
            ("playback-error-share", 7),
            ("cdn-latency-baseline", 8),
            ("isp-rebuffering-peers", 30),
        ],
    );
    whole.check_model(15);
}

/// From the moment when the last event that a window waits for is there, to the line of the alert: the daemon as it
/// is set up by default, fed as the clock goes. Told, not judged: the machine may be busy.
#[test]
fn how_soon_after_its_window_an_alert_is_told() {
    if wanted().is_none() {
        println!("skipped: a minute of waiting; PLAYHEAD_INCIDENTS=200 waits");
        return;
    }
    let bench = Bench::new();
    let told = bench.path("told.ndjson");
    let rule = "rules:\n  - alert: Errors\n    from: gold.errors_1m\n    value: {ratio: {num: clients_with_errors, den: clients}}\n    window: 1m\n    \
                group_by: [app_name, device_type]\n    min_samples: 2\n    confidence: {method: none}\n    condition: \"> 5%\"\n";
    bench.write(
        "rules/rule.yaml",
        format!("version: 1\ntargets: {{out: {{file: {{path: {}}}}}}}\n{rule}", told.display()),
    );
    std::fs::create_dir(bench.path("incoming")).expect("a folder can be made");
    let settings = format!(
        "sources: [{{path: {}}}]\nalerts: {{folder: {}}}\nupkeep: {{bronze_days: 0, silver_days: 0, gold_days: 0}}\n",
        bench.path("incoming").display(),
        bench.path("rules").display()
    );
    let mut daemon = Daemon::start(&bench, &settings);
    let log = daemon.own_log();
    daemon.wait_until("it runs", || log.text().contains("playhead is running"));
    let lines = || std::fs::read_to_string(&told).map_or(0, |text| text.lines().count());
    let mut waits = Vec::new();
    for number in 0..8 {
        let before = lines();
        move_in(&bench, &format!("part-{number}.ndjson"), &minutes(number));
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < Duration::from_secs(8) {
            last = (lines() > before)
                .then_some(())
                .map_or(last, |()| Some(last.unwrap_or(began.elapsed())));
            std::thread::sleep(Duration::from_millis(20));
        }
        waits.extend(last);
    }
    waits.sort();
    println!("from the last event of a window to its message: {waits:?}");
    assert!(waits.len() >= 6, "{} of 8 files closed windows that were told", waits.len());
    assert!(daemon.stop().success());
}
