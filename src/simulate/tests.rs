//! What every simulation keeps to, seen from its lines.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use serde_json::Value;

use super::incident::{DEVICE_HIT, ISP_HIT, POP_HIT, RELEASE_HIT};
use super::*;

/// 2026-03-01 00:00 UTC.
const START_MS: i64 = 1_772_323_200_000;
const HOUR_MS: i64 = 3_600_000;

struct Outcome {
    player: String,
    cdn: String,
    truth: Truth,
}

fn simulated(seed: u64, sessions: u32, incident: bool) -> Outcome {
    let (from_ms, to_ms) = Simulation::middle_third(START_MS, HOUR_MS);
    let simulation = Simulation {
        incidents: if incident { Planted::three(from_ms, to_ms) } else { Vec::new() },
        ..plain(seed, sessions, HOUR_MS)
    };
    outcome(&simulation)
}

fn plain(seed: u64, sessions: u32, span_ms: i64) -> Simulation {
    Simulation {
        seed,
        sessions,
        start_ms: START_MS,
        span_ms,
        curve: Curve::Even,
        lifelike: false,
        dialect: Dialect::Reference,
        incidents: Vec::new(),
    }
}

fn outcome(simulation: &Simulation) -> Outcome {
    let (mut player, mut cdn) = (Vec::new(), Vec::new());
    let truth = simulation.run(&mut player, &mut cdn).unwrap();
    Outcome {
        player: String::from_utf8(player).unwrap(),
        cdn: String::from_utf8(cdn).unwrap(),
        truth,
    }
}

fn events(player: &str) -> Vec<Value> {
    let parsed = player.lines().map(serde_json::from_str);
    parsed.map(|event| event.expect("a line of JSON")).collect()
}

fn requests(cdn: &str) -> Vec<Vec<&str>> {
    let lines = cdn.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split('\t').collect()).collect()
}

fn metric(event: &Value) -> &str {
    event["MetricType"].as_str().unwrap()
}

/// FNV-1a, 64 bits.
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// If this fails, every seed in tests, benchmarks and bug reports has changed its meaning.
#[test]
fn a_seed_gives_the_same_bytes_everywhere_and_for_ever() {
    let outcome = simulated(42, 200, true);
    let hashes = (hash(&outcome.player), hash(&outcome.cdn));
    assert_eq!(hashes, (6_178_905_057_214_719_089, 12_577_655_033_029_259_204));
    assert_ne!(simulated(43, 200, true).player, outcome.player);
}

#[test]
fn the_truth_is_what_the_lines_say() {
    let Outcome { player, cdn, truth } = simulated(1, 1_500, true);
    let events = events(&player);
    let count = |name: &str| events.iter().filter(|e| metric(e) == name).count() as u64;
    let without_user = events.iter().filter(|e| e["user_id"].is_null()).count();
    let startup_ms: u64 = events
        .iter()
        .filter(|event| metric(event) == "FIRSTFRAME")
        .map(|event| event["time_millisecond"].as_u64().unwrap())
        .sum();
    let (stalls, stall_ms) = real_stalls(&events);
    let started = truth.plays + truth.start_failures + truth.exits_before_start;
    assert_eq!(truth.sessions, 1_500);
    assert_eq!(started, truth.sessions);
    assert_eq!(truth.events, events.len() as u64);
    assert_eq!(truth.cdn_requests, requests(&cdn).len() as u64);
    assert_eq!(truth.plays, count("FIRSTFRAME"));
    assert_eq!(truth.start_failures + truth.playback_failures, count("ERROR"));
    assert_eq!(truth.finished, count("STOP"));
    assert_eq!(truth.anonymous_events, without_user as u64);
    assert_eq!(truth.startup_ms, startup_ms);
    assert_eq!((truth.stalls, truth.stall_ms), (stalls, stall_ms));
    assert!(truth.finished > 100 && truth.playback_failures > 5);
}

/// Stall reports that are neither start-up waits, nor tails of a seek, nor as old as the epoch.
fn real_stalls(events: &[Value]) -> (u64, u64) {
    let mut last_seek_ms = HashMap::new();
    let (mut count, mut total_ms) = (0, 0);
    for event in events {
        let viewing = (event["user_id"].as_str(), event["video_id"].as_str());
        let time_ms = event["TimeStamp"].as_i64().unwrap();
        if metric(event) == "SEEK" {
            last_seek_ms.insert(viewing, time_ms);
        }
        let is_after_seek = last_seek_ms.get(&viewing).is_some_and(|seek_ms| time_ms - seek_ms < 100);
        let is_start = event["at"].as_f64() == Some(0.0);
        let is_stall = event["buffer_type"] == "ScreenFreezedBuffer";
        if is_stall && !is_start && !is_after_seek {
            count += 1;
            total_ms += event["time_millisecond"].as_u64().unwrap();
        }
    }
    (count, total_ms)
}

#[test]
fn lines_come_in_the_order_of_time() {
    let Outcome { player, cdn, .. } = simulated(2, 500, true);
    let times: Vec<i64> = events(&player).iter().map(|event| event["TimeStamp"].as_i64().unwrap()).collect();
    assert!(times.is_sorted());
    assert!(times[0] >= START_MS);
    let log_times: Vec<String> = requests(&cdn).iter().map(|r| r[..2].join(" ")).collect();
    assert!(log_times.is_sorted());
    assert_eq!(&log_times[0][..13], "2026-03-01 00");
}

#[test]
fn every_tracking_id_is_logged_by_the_cdn_once() {
    let Outcome { player, cdn, .. } = simulated(3, 500, true);
    let mut logged = HashSet::new();
    for request in requests(&cdn) {
        assert_eq!(request.len(), 33);
        assert_eq!(request[14].len(), 56);
        assert!(logged.insert(request[14].to_owned()), "{}", request[14]);
    }
    let mut tracked = 0;
    for event in events(&player) {
        if let Some(id) = event["cdn_tracking_id"].as_str() {
            tracked += 1;
            assert!(logged.contains(id), "{event}");
        }
    }
    assert!(tracked > 5_000);
}

#[test]
fn a_session_has_about_twenty_five_events() {
    let truth = simulated(4, 1_000, false).truth;
    let events_a_session = truth.events / truth.sessions;
    assert!((22..=28).contains(&events_a_session), "{events_a_session}");
}

#[test]
fn players_have_the_reference_players_traps() {
    let events = events(&simulated(5, 1_500, false).player);
    let some = |test: &dyn Fn(&Value) -> bool| events.iter().any(test);
    let is = |event: &Value, name: &str| metric(event) == name;
    assert!(some(&|e| is(e, "FIRSTFRAME") && e["avg_bitrate"].is_string()));
    assert!(some(&|e| is(e, "FIRSTFRAME") && e["fps"].is_null()));
    assert!(some(&|e| is(e, "STREAM") && e["avg_bitrate"].is_u64() && e["fps"].is_string()));
    assert!(some(&|e| is(e, "STREAM") && e["avg_bitrate"] == 0));
    let has_no_length = |e: &Value| e["duration"].is_null() && e.get("duration").is_some();
    assert!(some(&|e| is(e, "STREAM") && has_no_length(e)));
    assert!(some(&|e| is(e, "BUFFER") && e["time_millisecond"] == e["TimeStamp"]));
    assert!(some(&|e| is(e, "PLAY") && e.get("playlist_type").is_none()));
    let is_mislabelled = |e: &Value| e["buffer_type"] == "ScreenFreezedBuffer" && e["at"] == 0;
    assert!(some(&|e| is_mislabelled(e)));
    for name in ["SEEK", "PAUSE", "STOP", "STEP", "ERROR"] {
        assert!(some(&|e| is(e, name)), "{name}");
    }
    assert!(!some(&|e| e.get("session_id").is_some()));
    assert!(!some(&|e| is(e, "PLAY") && e.get("cdn_tracking_id").is_some()));
}

#[test]
fn one_viewer_watches_one_title_once() {
    let events = events(&simulated(6, 1_000, false).player);
    let mut viewings = HashMap::new();
    for event in events.iter().filter(|e| metric(e) == "FIRSTFRAME") {
        let viewing = (event["user_id"].to_string(), event["video_id"].to_string());
        *viewings.entry(viewing).or_insert(0) += 1;
    }
    assert!(viewings.values().all(|count| *count == 1));
    let viewers: HashSet<_> = viewings.keys().map(|(user, _)| user).collect();
    assert!(viewers.len() < viewings.len());
}

#[test]
fn incidents_happen_when_and_to_whom_the_truth_says() {
    let Outcome { player, truth, .. } = simulated(7, 3_000, true);
    let (from_ms, to_ms) = (truth.incidents[0].from_ms, truth.incidents[0].to_ms);
    let events = events(&player);
    let share = |numerator: &dyn Fn(&Value) -> bool, denominator: &dyn Fn(&Value) -> bool| {
        let count = |test: &dyn Fn(&Value) -> bool| events.iter().filter(|e| test(e)).count();
        count(numerator) as f64 / count(denominator) as f64
    };
    let in_window = |e: &Value| {
        let time_ms = e["TimeStamp"].as_i64().unwrap();
        (from_ms..to_ms).contains(&time_ms)
    };
    let of_isp = |e: &Value| e["isp"] == ISP_HIT;
    let beats = |e: &Value| metric(e) == "STREAM";
    let stalls = |e: &Value| {
        let is_sane = e["time_millisecond"].as_i64() < Some(60_000);
        e["buffer_type"] == "ScreenFreezedBuffer" && e["at"] != 0 && is_sane
    };
    let hit = share(&|e| stalls(e) && in_window(e) && of_isp(e), &|e| {
        beats(e) && in_window(e) && of_isp(e)
    });
    let spared = share(&|e| stalls(e) && in_window(e) && !of_isp(e), &|e| {
        beats(e) && in_window(e) && !of_isp(e)
    });
    assert!(hit > 0.09 && spared < 0.01, "{hit} {spared}");

    let of_app = |e: &Value| e["app_version"] == RELEASE_HIT && e["device_type"] == DEVICE_HIT;
    let starts = |e: &Value| metric(e) == "PLAY" && e["duration"] == 0;
    let fails = |e: &Value| metric(e) == "ERROR" && e["at"] == 0;
    let hit = share(&|e| fails(e) && in_window(e) && of_app(e), &|e| {
        starts(e) && in_window(e) && of_app(e)
    });
    let spared = share(&|e| fails(e) && !(in_window(e) && of_app(e)), &|e| {
        starts(e) && !(in_window(e) && of_app(e))
    });
    assert!(hit > 0.07 && spared < 0.02, "{hit} {spared}");
    assert!(truth.incidents.iter().all(|incident| incident.effects > 0));
}

#[test]
fn one_pop_answers_later_during_the_incident() {
    let calm = simulated(8, 3_000, false);
    let troubled = simulated(8, 3_000, true);
    let mean_ttfb = |outcome: &Outcome, is_hit: bool| {
        let window = "00:20".."00:40";
        let requests = requests(&outcome.cdn);
        let of_pop: Vec<f64> = requests
            .iter()
            .filter(|r| r[2].starts_with(POP_HIT))
            .filter(|r| window.contains(&&r[1][..5]) == is_hit)
            .map(|r| r[27].parse().unwrap())
            .collect();
        of_pop.iter().sum::<f64>() / of_pop.len() as f64
    };
    let rise = mean_ttfb(&troubled, true) / mean_ttfb(&calm, true);
    assert!((1.3..1.5).contains(&rise), "{rise}");
    let elsewhere = mean_ttfb(&troubled, false) / mean_ttfb(&calm, false);
    assert!((0.95..1.05).contains(&elsewhere), "{elsewhere}");
}

#[test]
fn no_sessions_give_only_the_header() {
    let outcome = simulated(9, 0, true);
    assert_eq!(outcome.player, "");
    assert_eq!(outcome.cdn, CDN_HEADER);
    assert_eq!(outcome.truth.sessions, 0);
}

#[test]
fn sessions_on_air_are_all_that_is_held() {
    let mut playout = plain(10, 3_000, 24 * HOUR_MS).play_out();
    let mut text = Vec::new();
    while playout.next_line(&mut text).is_some() {}
    // About two sessions a minute, each on air for some minutes.
    assert!(playout.on_air.len() < 60, "{}", playout.on_air.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_simulation_is_the_same_twice_and_counted(
        seed in any::<u64>(), sessions in 0..25u32, lifelike in any::<bool>(), dialect in 0..4usize,
        planted in proptest::collection::vec((0..5usize, 0..50i64, 1..50i64), 0..3),
    ) {
        let planted = planted.into_iter().map(|(fault, from, minutes)| {
            let from_ms = START_MS + from * 60_000;
            Planted::new(Fault::ALL[fault], from_ms, from_ms + minutes * 60_000)
        });
        let simulation = Simulation {
            lifelike,
            curve: if lifelike { Curve::Daily { peak_ms: HOUR_MS } } else { Curve::Even },
            dialect: Dialect::ALL[dialect],
            incidents: planted.collect(),
            ..plain(seed, sessions, HOUR_MS)
        };
        let (first, second) = (outcome(&simulation), outcome(&simulation));
        prop_assert!(first.player == second.player && first.cdn == second.cdn);
        prop_assert_eq!(&first.truth, &second.truth);
        let truth = first.truth;
        prop_assert_eq!(first.player.lines().count() as u64, truth.events + truth.duplicates);
        prop_assert_eq!(requests(&first.cdn).len() as u64, truth.cdn_requests);
        let attempts: u64 = truth.playback_minutes.values().map(|minute| minute.attempts).sum();
        prop_assert!(truth.sessions - attempts <= truth.anonymous_events);
        let requests: u64 = truth.cdn_minutes.values().map(|minute| minute.requests).sum();
        prop_assert_eq!(requests, truth.cdn_requests);
    }
}
