//! The golden metric vectors M1 to M15 (events and metrics, 3.11), from the wire to the tables.
//!
//! Each vector is one or more sessions with a content id of their own, so that all of them stand in one
//! lake; M11, which is about concurrency, shares one content id among its three. A lake is filled in five
//! ways: in order, shuffled, every record twice, one record a batch, and with the last record of each
//! session 23 h late. In each of them every figure is the same, and so is every row.
//!
//! Most vectors are CMCD version 2. M1 and M15 are EPAS, which alone of the two tells how long the asset
//! is; M13 is the AWS player's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::Bench;

/// 2026-04-14T07:00:00Z, a whole hour. The times of CTA-5004-B 8.2.5 end in 150889 and 150112, so
/// they are 150.889 s and 150.112 s from here.
const T0_MS: i64 = 1_776_150_000_000;
const HOUR_MS: i64 = 3_600_000;
/// What "23 h late" is measured against: by then every other session is closed.
const BEACON_MS: i64 = T0_MS + 23 * HOUR_MS;

/// Where the records of a dialect go: a file is of one format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Dialect {
    Cmcd,
    Epas,
    Reference,
}

#[derive(Debug, Clone, PartialEq)]
struct Record {
    dialect: Dialect,
    at_ms: i64,
    line: String,
}

/// The records of one session, ascending by time.
type Session = Vec<Record>;

/// Milliseconds of `0`, `2.5` or `150.889` seconds.
fn ms(seconds: &str) -> i64 {
    (seconds.parse::<f64>().expect("a number of seconds") * 1_000.0).round() as i64
}

/// `seconds rest`, one record a line.
fn script(text: &str) -> impl Iterator<Item = (i64, &str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| {
        let (at, rest) = line.split_once(' ').expect("seconds and what happened");
        (ms(at), rest)
    })
}

/// CMCD version 2, event mode. A line that begins with `sta` is a change of the play state.
fn cmcd(session: &str, content: &str, text: &str) -> Session {
    let record = |(at_ms, pairs): (i64, &str)| {
        let event = if pairs.starts_with("sta=") { "e=ps," } else { "" };
        let ts = T0_MS + at_ms;
        Record {
            dialect: Dialect::Cmcd,
            at_ms,
            line: format!("{event}{pairs},ts={ts},sid=\"{session}\",cid=\"{content}\",v=2"),
        }
    };
    script(text).map(record).collect()
}

/// EPAS of an asset of 60 s; each line is `seconds event playhead`, the playhead in seconds.
fn epas(session: &str, text: &str) -> Session {
    let record = |(at_ms, rest): (i64, &str)| {
        let (event, playhead) = rest.split_once(' ').expect("an event and a playhead");
        let mut payload = json!({"contentId": session, "live": false});
        if event == "stopped" {
            payload["reason"] = json!("ended");
        }
        let line = json!({"event": event, "sessionId": session, "timestamp": T0_MS + at_ms,
                          "playhead": ms(playhead), "duration": 60_000, "payload": payload});
        Record {
            dialect: Dialect::Epas,
            at_ms,
            line: line.to_string(),
        }
    };
    script(text).map(record).collect()
}

/// The AWS player; each line is `seconds MetricType at`.
fn aws(content: &str, text: &str) -> Session {
    let record = |(at_ms, rest): (i64, &str)| {
        let (metric, at) = rest.split_once(' ').expect("a metric type and a position");
        let line = json!({"MetricType": metric, "at": at.parse::<f64>().expect("a position"), "duration": 596.48,
                          "user_id": "us-west-2:m13", "video_id": content, "playlist_type": "VOD",
                          "time_millisecond": 640, "TimeStamp": T0_MS + at_ms});
        Record {
            dialect: Dialect::Reference,
            at_ms,
            line: line.to_string(),
        }
    };
    script(text).map(record).collect()
}

const M1: &str = "0 loading 0
    2 playing 0
    20 buffering 18
    30 buffered 18
    40 paused 28
    70 playing 28
    102 stopped 60";

const M3: &str = "0 sta=s
    1 sta=p
    30 sta=k
    31.2 sta=r
    33 sta=p";

/// Every session of M1 to M15.
fn sessions() -> Vec<Session> {
    let one = |name: &str, text: &str| cmcd(name, name, text);
    vec![
        epas("m1", M1),
        one("m2", "0 sta=s\n2 sta=p\n55 sta=r\n65 sta=p\n120 sta=q"),
        one("m3", &format!("{M3}\n60 e=t,sta=p")),
        one("m3-after", &format!("{M3}\n33.5 sta=r\n34 sta=p\n60 e=t,sta=p")),
        one("m4", "0 sta=s\n3.2 sta=q"),
        one("m4-early", "0 sta=s\n0.6 sta=q"),
        one("m5", "0 sta=s\n4 e=e,ec=(\"27\"),sta=f"),
        one("m5-recovered", "0 sta=s\n4 e=e,ec=(\"27\"),sta=f\n6 sta=p\n36 e=t,sta=p"),
        one("m6", "0 sta=s\n1 sta=p\n30 e=t,sta=p\n60 e=t,sta=p"),
        one("m7", "0 sta=p\n30 e=t,sta=p\n60 sta=r"),
        // CTA-5004-B 8.2.5: state entered at ...150889, left at ...150112 with a length of 1500.
        one(
            "m8",
            "98 sta=s,sn=0\n100 sta=p,sn=1\n150.889 sta=r,sn=2\n150.112 sta=p,bsd=(1500),bs,sn=3\n180 e=t,sta=p,sn=4",
        ),
        one(
            "m9",
            "0 sta=s\n1 sta=p,pb=(1000)\n11 e=bc,pb=(3000)\n41 sta=a\n61 sta=p,pb=(3000),pr=2\n81 sta=e",
        ),
        one("m10", "0 sta=s\n2 sta=p\n30 sta=p,bsd=(1200)\n90 sta=e,bsa=(3;v),bsda=(4150;v)"),
        cmcd("m11-a", "m11", "0 sta=p\n100 sta=q"),
        cmcd("m11-b", "m11", "50 sta=p\n150 sta=q"),
        cmcd("m11-c", "m11", "90 sta=p\n95 sta=q"),
        one(
            "m12",
            "0 sta=s\n4 sta=p\n33.5 sta=r\n34 sta=p\n43.5 sta=r\n44 sta=p\n54 sta=e",
        ),
        aws("m13", "0 PLAY 0\n0.64 FIRSTFRAME 0\n300 STREAM 299.36\n595.2 PAUSE 594.56\n595.205 STOP 594.56"),
        one(
            "m14",
            "-1 sta=s\n0 sta=p\n100 e=b,bg\n130 e=t,sta=p,bg\n380 e=t,sta=p,bg\n400 e=b,sta=p\n410 sta=q",
        ),
        epas("m15", M1),
    ]
}

/// An attempt that is still starting when all the rest is a day old.
fn beacon() -> Record {
    Record {
        dialect: Dialect::Cmcd,
        at_ms: BEACON_MS - T0_MS,
        line: format!("e=ps,sta=s,ts={BEACON_MS},sid=\"beacon\",cid=\"beacon\",v=2"),
    }
}

/// What a column must hold.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// Exactly this whole number.
    N(i64),
    /// This number, give or take.
    Near(f64, f64),
    /// This text, truth value or list, as JSON.
    Is(&'static str),
}

use Want::{Is, N, Near};

impl Want {
    fn is_met_by(self, found: &Value) -> bool {
        match self {
            N(expected) => found.as_i64() == Some(expected),
            Near(expected, tolerance) => found.as_f64().is_some_and(|found| (found - expected).abs() <= tolerance),
            Is(expected) => found.to_string() == expected,
        }
    }
}

/// Rows of one vector: where to look, and columns with what they must hold.
struct Check {
    vector: &'static str,
    from: &'static str,
    columns: &'static [(&'static str, Want)],
}

const RATIO: f64 = 1e-6;
const CENT: f64 = 0.005;

const STALL_RATIO: &str = "CAST(stall_ms AS DOUBLE) / (playing_ms + stall_ms)";
const STALLED_SHARE: &str = "CAST(stall_ms AS DOUBLE) / watched_ms";
const STALLS_AN_HOUR: &str = "stall_count * 3600000.0 / (playing_ms + stall_ms)";

/// M1, in seconds from the request: starting 0-2, playing 2-20, stall 20-30, playing 30-40, paused
/// 40-70, playing 70-102. Playing 18 + 10 + 32 = 60; ratio 10 / (60 + 10) = 0.142857; watched 0-40 and
/// 70-102 = 72, of which 10 / 72 = 0.138889 stalled; 1 stall in 70 s = 3600 / 70 = 51.43 an hour.
const M1_SESSION: &[(&str, Want)] = &[
    ("startup_ms", N(2_000)),
    ("playing_ms", N(60_000)),
    ("stall_ms", N(10_000)),
    ("stall_count", N(1)),
    (STALL_RATIO, Near(0.142857, RATIO)),
    ("watched_ms", N(72_000)),
    (STALLED_SHARE, Near(0.138889, RATIO)),
    (STALLS_AN_HOUR, Near(51.43, CENT)),
    ("paused_ms", N(30_000)),
    ("quartile", N(100)),
    ("deliberate_pauses", N(1)),
    ("end_reason", Is("\"finished\"")),
];
const M1_ENDED: &[(&str, Want)] = &[
    ("quartile_25", N(1)),
    ("quartile_50", N(1)),
    ("quartile_75", N(1)),
    ("quartile_100", N(1)),
    ("deliberate_pause_plays", N(1)),
    ("paused_then_finished", N(1)),
    ("finished_without_pause", N(0)),
];

const fn check(vector: &'static str, from: &'static str, columns: &'static [(&'static str, Want)]) -> Check {
    Check { vector, from, columns }
}

/// The figures of 3.11.
const CHECKS: &[Check] = &[
    check("M1", "silver.playback_sessions WHERE content_id = 'm1'", M1_SESSION),
    check("M1", "gold.ended_1m WHERE content_id = 'm1'", M1_ENDED),
    // Window 0-60: playing 2-55 = 53, stall 55-60 = 5, ratio 5 / 58. Window 60-120: stall 60-65 = 5,
    // playing 65-120 = 55, ratio 5 / 60. The stall counts where it began.
    check(
        "M2",
        "gold.playback_1m WHERE content_id = 'm2' AND window_start = '2026-04-14T07:00:00Z'",
        &[
            ("playing_ms", N(53_000)),
            ("stall_ms", N(5_000)),
            (STALL_RATIO, Near(0.086207, RATIO)),
            ("stall_count", N(1)),
            ("stall_length_count", N(0)),
        ],
    ),
    check(
        "M2",
        "gold.playback_1m WHERE content_id = 'm2' AND window_start = '2026-04-14T07:01:00Z'",
        &[
            ("playing_ms", N(55_000)),
            ("stall_ms", N(5_000)),
            (STALL_RATIO, Near(0.083333, RATIO)),
            ("stall_count", N(0)),
            ("stall_length_ms_sum", N(10_000)),
        ],
    ),
    // From the seek at 30 to playing at 33 is seek wait: 3 s, 1.8 of them buffering.
    check(
        "M3",
        "silver.playback_sessions WHERE content_id = 'm3'",
        &[
            ("stall_ms", N(0)),
            ("stall_count", N(0)),
            ("stall_seek_ms", N(0)),
            ("seek_wait_ms", N(3_000)),
            ("playing_ms", N(56_000)),
        ],
    ),
    // 33.5 is within 1 s of 33: the half second is the seek's.
    check(
        "M3",
        "silver.playback_sessions WHERE content_id = 'm3-after'",
        &[
            ("stall_seek_ms", N(500)),
            ("stall_ms", N(0)),
            ("stall_conn_ms", N(0)),
            (STALL_RATIO, Near(0.0, 0.0)),
            ("seek_wait_ms", N(3_000)),
            ("playing_ms", N(55_500)),
        ],
    ),
    check(
        "M3",
        "silver.playback_intervals WHERE content_id = 'm3-after' AND state = 'rebuffering'",
        &[("stall_cause", Is("\"seek_induced\"")), ("duration_ms", N(500))],
    ),
    check(
        "M4",
        "silver.playback_sessions WHERE content_id = 'm4'",
        &[
            ("outcome", Is("\"exit_before_start\"")),
            ("exit_wait_ms", N(3_200)),
            ("early_exits", N(0)),
            ("startup_ms", Is("null")),
        ],
    ),
    check(
        "M4",
        "silver.playback_sessions WHERE content_id = 'm4-early'",
        &[
            ("outcome", Is("\"exit_before_start\"")),
            ("exit_wait_ms", N(600)),
            ("early_exits", N(1)),
            ("score", Is("null")),
        ],
    ),
    // Business errors are those that the service decides; code 27 is none of them.
    check(
        "M5",
        "gold.playback_1m WHERE content_id = 'm5'",
        &[
            ("attempts", N(1)),
            ("plays", N(0)),
            ("start_failures", N(1)),
            ("start_failures_business", N(0)),
            ("fatal_errors", N(1)),
            ("playback_failures", N(0)),
        ],
    ),
    check(
        "M5",
        "silver.playback_sessions WHERE content_id = 'm5-recovered'",
        &[
            ("plays", N(1)),
            ("startup_ms", N(6_000)),
            ("recovered_errors", N(1)),
            ("start_failures", N(0)),
            ("fatal_errors", N(0)),
        ],
    ),
    // Playing 1-60; silent, but there, for one and a half heartbeats more: 60 + 1.5 x 30 = 105.
    check(
        "M6",
        "silver.playback_sessions WHERE content_id = 'm6'",
        &[
            ("is_open", Is("false")),
            ("end_reason", Is("\"timeout\"")),
            ("playing_ms", N(59_000)),
        ],
    ),
    check(
        "M6",
        "(SELECT max(interval_end) AS counted_until FROM silver.playback_intervals WHERE content_id = 'm6')",
        &[("counted_until", Is("\"2026-04-14T07:01:45Z\""))],
    ),
    // Minute 1 has nothing but the silence of 60-105: 45 s.
    check(
        "M6",
        "gold.audience_1m WHERE content_id = 'm6' AND window_start = '2026-04-14T07:01:00Z'",
        &[("active_ms", N(45_000)), ("concurrent_avg", Near(0.75, RATIO)), ("concurrent_peak", N(1))],
    ),
    // Last heard at 60 in a stall; it is taken to last one heartbeat more.
    check(
        "M7",
        "silver.playback_sessions WHERE content_id = 'm7'",
        &[
            ("stall_ms", N(30_000)),
            ("stall_count", N(1)),
            ("abandoned_in_stall", N(1)),
            ("playing_ms", N(60_000)),
            ("array_has(dq_flags, 'stall_open_end')", Is("true")),
        ],
    ),
    // 80 s from the first frame to the last report, less the 1.5 s that were reported.
    check(
        "M8",
        "silver.playback_sessions WHERE content_id = 'm8'",
        &[
            ("stall_ms", N(1_500)),
            ("stall_count", N(1)),
            ("playing_ms", N(78_500)),
            ("order_conflicts", N(1)),
            ("lost_reports", N(0)),
            ("array_has(dq_flags, 'ts_order_conflict')", Is("true")),
        ],
    ),
    // Media: (1000 x 10 + 3000 x 30 + 3000 x 20 x 2) / (10 + 30 + 40) = 220000 / 80 = 2750.
    // Wall: (1000 x 10 + 3000 x 30 + 3000 x 20) / (10 + 30 + 20) = 160000 / 60 = 2666.67.
    check(
        "M9",
        "silver.playback_sessions WHERE content_id = 'm9'",
        &[
            ("shown_bits / CAST(bitrate_known_ms AS DOUBLE)", Near(2_750.0, RATIO)),
            ("shown_wall_bits / CAST(bitrate_known_wall_ms AS DOUBLE)", Near(8_000.0 / 3.0, RATIO)),
            ("media_ms", N(80_000)),
            ("switches_up", N(1)),
            ("switches_down", N(0)),
        ],
    ),
    check(
        "M10",
        "silver.playback_sessions WHERE content_id = 'm10'",
        &[
            ("stall_ms", N(4_150)),
            ("stall_count", N(3)),
            ("playing_ms", N(83_850)),
            ("array_has(dq_flags, 'counter_reconciled')", Is("true")),
        ],
    ),
    check(
        "M10",
        "(SELECT sum(stall_ms) AS ms, sum(stall_count) AS stalls FROM gold.playback_1m WHERE content_id = 'm10')",
        &[("ms", N(4_150)), ("stalls", N(3))],
    ),
    // (100 + 100 + 5) / 150 = 1.366667; all three at 90-95.
    check(
        "M11",
        "(SELECT concurrent_peak(interval_start, interval_end) AS peak, sum(duration_ms) / 150000.0 AS mean,
                 count(DISTINCT session_id) AS sessions
          FROM silver.playback_intervals
          WHERE content_id = 'm11' AND state IN ('playing', 'rebuffering', 'seeking', 'silent'))",
        &[("peak", N(3)), ("mean", Near(1.366667, RATIO)), ("sessions", N(3))],
    ),
    check(
        "M11",
        "(SELECT max(concurrent_peak) AS peak, sum(active_ms) / 150000.0 AS mean,
                 max(sessions_in_window) AS sessions
          FROM gold.audience_1m WHERE content_id = 'm11')",
        &[("peak", N(3)), ("mean", Near(1.366667, RATIO)), ("sessions", N(3))],
    ),
    // 4 s of startup: 0.942^2 = 0.887364. 1 s in 50 stalled: e^(-5.13 x 0.02) = 0.902488. 0.98^2 = 0.9604.
    // Product 0.769122. Each takes of the 23.09 lost its share of the logarithm.
    check(
        "M12",
        "silver.playback_sessions WHERE content_id = 'm12'",
        &[
            ("startup_ms", N(4_000)),
            (
                "CAST(stall_conn_ms AS DOUBLE) / (playing_ms + stall_conn_ms)",
                Near(0.02, RATIO),
            ),
            ("stall_conn_count", N(2)),
            ("score", Near(76.91, CENT)),
            ("loss_startup", Near(10.51, CENT)),
            ("loss_stall_time", Near(9.02, CENT)),
            ("loss_interruptions", Near(3.55, CENT)),
            ("loss_picture", Near(0.0, 0.0)),
            ("loss_availability", Near(0.0, 0.0)),
            (
                "score + loss_startup + loss_stall_time + loss_interruptions + loss_picture + loss_availability",
                Near(100.0, 0.0),
            ),
            ("top_reason", Is("\"startup\"")),
        ],
    ),
    check(
        "M13",
        "silver.playback_sessions WHERE content_id = 'm13'",
        &[
            ("deliberate_pauses", N(0)),
            ("finished", N(1)),
            ("end_reason", Is("\"finished\"")),
            ("paused_ms", N(5)),
        ],
    ),
    check(
        "M13",
        "gold.ended_1m WHERE content_id = 'm13'",
        &[
            ("deliberate_pause_plays", N(0)),
            ("paused_then_finished", N(0)),
            ("finished_without_pause", N(1)),
        ],
    ),
    // Playing 0-100 and 400-410; hidden between, for 250 s of it without a report.
    check(
        "M14",
        "silver.playback_sessions WHERE content_id = 'm14'",
        &[
            ("background_ms", N(300_000)),
            ("stall_ms", N(0)),
            ("stall_count", N(0)),
            ("playing_ms", N(110_000)),
        ],
    ),
    check("M15", "silver.playback_sessions WHERE content_id = 'm15'", M1_SESSION),
    check("M15", "gold.ended_1m WHERE content_id = 'm15'", M1_ENDED),
];

/// A way to bring the records: what a first and a second run of `ingest` read.
struct Delivery {
    name: &'static str,
    settings: &'static str,
    first: Vec<Record>,
    second: Vec<Record>,
}

/// A shuffle of its own, the same on every machine: Fisher-Yates over a linear congruential generator
/// (Knuth's MMIX constants).
pub fn shuffled<T>(mut items: Vec<T>, seed: u64) -> Vec<T> {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (state >> 33) as usize % (last + 1));
    }
    items
}

/// All records, ascending by time.
fn in_order() -> Vec<Record> {
    let mut records: Vec<Record> = sessions().into_iter().flatten().chain([beacon()]).collect();
    records.sort_by_key(|record| record.at_ms);
    records
}

fn doubled(records: Vec<Record>) -> Vec<Record> {
    records.into_iter().flat_map(|record| [record.clone(), record]).collect()
}

fn deliveries() -> Vec<Delivery> {
    let mut last = Vec::new();
    let mut but_last = vec![beacon()];
    for mut session in sessions() {
        last.extend(session.pop());
        but_last.extend(session);
    }
    let at_once = |name, settings, first| Delivery {
        name,
        settings,
        first,
        second: Vec::new(),
    };
    vec![
        at_once("in order", "{}", in_order()),
        at_once("shuffled", "{}", shuffled(in_order(), 15)),
        at_once("doubled", "{}", doubled(in_order())),
        at_once("batches of 1", "ingest: {batch_records: 1}", in_order()),
        Delivery {
            name: "last record 23 h late",
            settings: "{}",
            first: but_last,
            second: doubled(last),
        },
    ]
}

/// Writes the records to a file for each dialect, ingests them, and accounts for each.
#[track_caller]
fn ingest(bench: &Bench, name: &str, run: &str, settings: &str, records: &[Record]) {
    let mut texts: BTreeMap<Dialect, String> = BTreeMap::new();
    for record in records {
        let text = texts.entry(record.dialect).or_default();
        text.push_str(&record.line);
        text.push('\n');
    }
    let files: Vec<_> = texts
        .iter()
        .map(|(dialect, text)| bench.write(&format!("{run}/{dialect:?}.ndjson"), text))
        .collect();
    let paths: Vec<_> = files.iter().map(AsRef::as_ref).collect();
    let summary = bench.ingest_with(settings, &paths);
    let different: BTreeSet<&str> = records.iter().map(|record| record.line.as_str()).collect();
    let expected = json!({"received": records.len(), "stored": different.len(),
                          "duplicates": records.len() - different.len(), "rejected": 0});
    for (figure, expected) in expected.as_object().expect("an object") {
        assert_eq!(&summary[figure], expected, "{name}, {run} run, {figure}: {summary}");
    }
}

impl Delivery {
    fn lake(&self) -> Bench {
        let bench = Bench::new();
        ingest(&bench, self.name, "first", self.settings, &self.first);
        if !self.second.is_empty() {
            let closed = "SELECT count(*) FROM silver.playback_sessions WHERE is_open AND content_id <> 'beacon'";
            assert_eq!(bench.int(closed), 0, "{}: a session is open before the late records come", self.name);
            ingest(&bench, self.name, "second", self.settings, &self.second);
        }
        bench
    }
}

/// Every column of a vector that is not what 3.11 says.
fn complaints(bench: &Bench, delivery: &str, vector: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for check in CHECKS.iter().filter(|check| check.vector == vector) {
        let columns: Vec<String> = check
            .columns
            .iter()
            .enumerate()
            .map(|(at, (column, _))| format!("{column} AS c{at}"))
            .collect();
        let rows = bench.sql(&format!("SELECT {} FROM {}", columns.join(", "), check.from));
        if rows.len() != 1 {
            complaints.push(format!("{vector}, {delivery}: {} rows in {}", rows.len(), check.from));
            continue;
        }
        for (at, (column, want)) in check.columns.iter().enumerate() {
            let found = &rows[0][format!("c{at}")];
            if !want.is_met_by(found) {
                complaints.push(format!(
                    "{vector}, {delivery}, {column}: expected {want:?}, got {found}; {}",
                    check.from
                ));
            }
        }
    }
    complaints
}

/// Tables that must not depend on the delivery. `quality_1h` counts duplicates and is none of them.
const TABLES: [&str; 9] = [
    "silver.playback_sessions",
    "silver.playback_intervals",
    "gold.playback_1m",
    "gold.ended_1m",
    "gold.audience_1m",
    "gold.concurrency_1m",
    "gold.playback_1h",
    "gold.ended_1d",
    "gold.audience_5m",
];

/// A message of more differing rows than this is read by nobody.
const DIFFERENCES_TOLD: usize = 4;

/// The columns that tell of the delivery: when and where a record came, and which version it made.
const OF_DELIVERY: [&str; 4] = ["received_at", "source_partition", "source_offset", "silver_versions"];

/// The rows of a table, without what tells of the delivery, and how often each stands there.
pub fn rows(bench: &Bench, table: &str) -> BTreeMap<String, usize> {
    let mut rows = BTreeMap::new();
    for mut row in bench.sql(&format!("SELECT * FROM {table}")) {
        let columns = row.as_object_mut().expect("a row is an object");
        OF_DELIVERY.iter().for_each(|column| {
            columns.remove(*column);
        });
        *rows.entry(row.to_string()).or_default() += 1;
    }
    rows
}

/// Rows that two lakes do not hold equally often: the first few of them.
pub fn differences(table: &str, delivery: &str, found: &BTreeMap<String, usize>, expected: &BTreeMap<String, usize>) -> Vec<String> {
    let all: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let times = |rows: &BTreeMap<String, usize>, row: &String| rows.get(row).copied().unwrap_or(0);
    let unequal = all.into_iter().filter(|row| times(found, row) != times(expected, row));
    unequal
        .take(DIFFERENCES_TOLD)
        .map(|row| {
            let (found, expected) = (times(found, row), times(expected, row));
            format!("{table}, {delivery}: {found} times instead of {expected}: {row}")
        })
        .collect()
}

#[test]
fn fifteen_vectors_are_exact_however_they_are_delivered() {
    let mut complaints_of_all = Vec::new();
    let mut comparisons = 0;
    let mut expected = BTreeMap::new();
    for delivery in deliveries() {
        let bench = delivery.lake();
        for number in 1..=15 {
            complaints_of_all.extend(complaints(&bench, delivery.name, &format!("M{number}")));
            comparisons += 1;
        }
        for table in TABLES {
            let found = rows(&bench, table);
            assert!(!found.is_empty(), "{table} is empty");
            match expected.get(table) {
                Some(expected) => complaints_of_all.extend(differences(table, delivery.name, &found, expected)),
                None => {
                    expected.insert(table, found);
                }
            }
        }
    }
    assert_eq!(comparisons, 75);
    assert!(complaints_of_all.is_empty(), "\n{}\n", complaints_of_all.join("\n"));
}

#[test]
fn m6_is_closed_once_event_time_is_past_150_and_no_earlier() {
    let clock = |at: &str| cmcd("clock", "clock", &format!("{at} e=t,sta=p"));
    for (at, is_open, end_reason) in [("150", true, Value::Null), ("150.001", false, json!("timeout"))] {
        let bench = Bench::new();
        let records = [cmcd("m6", "m6", "0 sta=s\n1 sta=p\n30 e=t,sta=p\n60 e=t,sta=p"), clock(at)].concat();
        ingest(&bench, at, "only", "{}", &records);
        let found = bench.sql("SELECT is_open, end_reason, playing_ms FROM silver.playback_sessions WHERE content_id = 'm6'");
        let expected = json!({"is_open": is_open, "end_reason": end_reason, "playing_ms": 59_000});
        assert_eq!(found, [expected], "event time {at}");
    }
}

/// Numeric columns that a table of minutes and its roll-up share and that add up.
fn additive_columns(bench: &Bench, minutes: &str, rolled_up: &str) -> Vec<String> {
    let columns = |table: &str| -> BTreeSet<String> {
        let rows = bench.sql(&format!("SELECT * FROM {table} LIMIT 1"));
        let row = rows[0].as_object().expect("a row is an object");
        let numbers = row.iter().filter(|(_, value)| value.is_number());
        numbers.map(|(name, _)| name.clone()).collect()
    };
    let shared = columns(minutes).intersection(&columns(rolled_up)).cloned().collect::<Vec<_>>();
    shared.into_iter().filter(|name| !name.starts_with("concurrent_")).collect()
}

/// Sums by window of `length` and content, in one order.
fn sums(bench: &Bench, table: &str, length: &str, columns: &[String]) -> Vec<Value> {
    let sums: Vec<String> = columns.iter().map(|column| format!("sum({column}) AS {column}")).collect();
    let content = match table.starts_with("gold.concurrency") {
        true => "'all'",
        false => "content_id",
    };
    bench.sql(&format!(
        "SELECT date_bin(interval '{length}', window_start) AS start, {content} AS content, {} FROM {table}
         GROUP BY 1, 2 ORDER BY 1, 2",
        sums.join(", ")
    ))
}

fn in_order_lake() -> Bench {
    let bench = Bench::new();
    ingest(&bench, "in order", "only", "{}", &in_order());
    bench
}

#[test]
fn every_coarser_table_holds_the_sums_of_the_minutes() {
    let bench = in_order_lake();
    let mut compared = 0;
    for name in ["playback", "ended", "audience", "concurrency"] {
        let minutes = format!("gold.{name}_1m");
        for (suffix, length) in [("5m", "5 minutes"), ("1h", "1 hour"), ("1d", "1 day")] {
            let rolled_up = format!("gold.{name}_{suffix}");
            let columns = additive_columns(&bench, &minutes, &rolled_up);
            compared += columns.len();
            let found = sums(&bench, &rolled_up, length, &columns);
            assert!(!found.is_empty(), "{rolled_up} is empty");
            assert_eq!(found, sums(&bench, &minutes, length, &columns), "{rolled_up}");
        }
    }
    assert!(compared > 3 * 90, "only {compared} columns add up");
}

#[test]
fn a_peak_of_an_hour_is_the_highest_of_its_minutes() {
    let bench = in_order_lake();
    for (suffix, length) in [("5m", "5 minutes"), ("1h", "1 hour"), ("1d", "1 day")] {
        let peaks = |table: &str| {
            bench.sql(&format!(
                "SELECT date_bin(interval '{length}', window_start) AS start, max(concurrent_peak) AS peak FROM {table}
                 GROUP BY 1 ORDER BY 1"
            ))
        };
        assert_eq!(peaks(&format!("gold.concurrency_{suffix}")), peaks("gold.concurrency_1m"), "{suffix}");
    }
}

/// 21 attempts: the sessions of M1 to M15, of which M3, M4 and M5 have two and M11 three, and the beacon.
/// Two left before the start (M4), one failed (M5), one is still starting (the beacon).
#[test]
fn every_attempt_is_a_play_an_exit_a_failure_or_open() {
    let bench = in_order_lake();
    for table in ["gold.playback_1m", "gold.playback_5m", "gold.playback_1h", "gold.playback_1d"] {
        let found = bench.sql(&format!(
            "SELECT sum(attempts) AS attempts, sum(plays) AS plays, sum(exits_before_start) AS exits,
                    sum(early_exits) AS early, sum(start_failures) AS failures, sum(open_attempts) AS open FROM {table}"
        ));
        let expected = json!({"attempts": 21, "plays": 17, "exits": 2, "early": 1, "failures": 1, "open": 1});
        assert_eq!(found, [expected], "{table}");
        let broken = bench.sql(&format!(
            "SELECT window_start, content_id FROM {table}
             WHERE attempts <> plays + exits_before_start + start_failures + open_attempts"
        ));
        assert!(broken.is_empty(), "{table}: {broken:?}");
    }
}

#[test]
fn a_merged_sketch_of_a_day_gives_the_quantiles_of_its_minutes() {
    let bench = in_order_lake();
    let quantile = |table: &str, sketch: &str, q: f64| bench.value(&format!("SELECT sketch_quantile(sketch_merge({sketch}), {q}) FROM {table}"));
    let sketches = [
        ("playback", "startup_sketch"),
        ("playback", "stall_length_sketch"),
        ("playback", "exit_wait_sketch"),
        ("ended", "score_sketch"),
    ];
    for (name, sketch) in sketches {
        for q in [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0] {
            let of_minutes = quantile(&format!("gold.{name}_1m"), sketch, q);
            assert!(of_minutes.is_number(), "{sketch}, {q}: {of_minutes}");
            for suffix in ["5m", "1h", "1d"] {
                assert_eq!(quantile(&format!("gold.{name}_{suffix}"), sketch, q), of_minutes, "{name}_{suffix}.{sketch}, {q}");
            }
        }
    }
    // The longest startup is the 6 s of M5, the longest stall the 30 s of M7, to 1 %.
    for (sketch, longest_ms) in [("startup_sketch", 6_000.0), ("stall_length_sketch", 30_000.0)] {
        let found = quantile("gold.playback_1d", sketch, 1.0).as_f64().expect("a number");
        assert!((found - longest_ms).abs() <= longest_ms * 0.01, "{sketch}: {found} is not {longest_ms}");
    }
    let viewers = |table: &str| bench.int(&format!("SELECT distinct_count(distinct_merge(viewers_sketch)) FROM {table}"));
    let seen = bench.int("SELECT count(DISTINCT coalesce(user_id, device_id, session_id)) FROM silver.playback_intervals");
    for table in ["gold.audience_1m", "gold.audience_1d", "gold.concurrency_1m", "gold.concurrency_1d"] {
        assert_eq!(viewers(table), seen, "{table}");
    }
}
