//! The HTTP receiver of `playhead run`: what players post is answered, kept, and in the lake once.
//!
//! Every test talks to a real daemon over a socket and asks the tables afterwards.

mod answers;
mod promises;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::http_client::{Answer, post};
use crate::support::Bench;

/// A port of the system's choice, a proxy on this machine, and short waits.
const SETTINGS: &str = "
http: {listen: '127.0.0.1:0', trusted_proxies: [127.0.0.1]}
ingest: {commit_every: 200ms, poll_every: 50ms}
";
/// What the log says once the door is open.
const LISTENING: &str = "taking player events on http://";
const CMCD: (&str, &str) = ("content-type", "application/cmcd");
const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn every_way_in_which_a_player_sends_cmcd_reaches_its_session() {
    let bench = Bench::new();
    let (mut daemon, address) = start(&bench, SETTINGS);
    let now = now_ms();
    let three = |sid: &str| {
        format!(
            "e=ps,sta=s,sid=\"{sid}\",sn=0,ts={},v=2\n  e=ps, sta=p, msd=700, sid=\"{sid}\", sn=1, ts={}, v=2\r\n\ne=t,sta=p,bl=(5000;v 320;a),sid=\"{sid}\",sn=2,ts={},v=2",
            now - 2_000,
            now - 1_300,
            now
        )
    };
    let types = [
        "application/cmcd",
        "text/cmcd",
        "application/cmcd+text",
        "text/plain; charset=UTF-8",
    ];
    for content_type in types {
        let sid = content_type.split(';').next().expect("a type");
        let answer = post(address, "/cmcd", &[("content-type", content_type)], three(sid));
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{content_type}");
    }
    let no_content = |what: &str, answer: Answer| assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{what}");
    let four_headers = [
        ("CMCD-Request", "bl=(21300;v),sta=p"),
        ("cmcd-object", "br=(3200;v),ot=v"),
        ("CMCD-STATUS", "bs"),
        ("CMCD-Session", "sid=\"headers\",v=2"),
    ];
    no_content("headers", post(address, "/cmcd", &four_headers, ""));
    no_content("query", post(address, "/cmcd?x=1&CMCD=bl%3D4000%2Csid%3D%22query%22", &[], ""));
    let both = post(
        address,
        "/cmcd?CMCD=sid%3D%22loses%22",
        &[("cmcd-session", "sid=\"headers win\"")],
        "",
    );
    no_content("headers and query", both);
    let object = json!({"sid": "json", "bl": 1500, "st": "l", "bs": true}).to_string();
    no_content("JSON of version 1", post(address, "/cmcd", &[JSON], object));
    let beacon = json!([{"sid": "beacon", "bl": 100}, {"sid": "beacon", "bl": 200}]).to_string();
    no_content("a beacon", post(address, "/cmcd", &[("content-type", "text/plain")], beacon));

    wait_for_records(&bench, &mut daemon, 4 * 3 + 6);
    let found = bench.sql(
        "SELECT e.session_id, count(*) AS events, max(e.buffer_ms) AS buffer_ms, max(s.startup_ms) AS startup_ms, \
         count(DISTINCT s.session_id) AS sessions \
         FROM silver.player_events AS e JOIN silver.playback_sessions AS s ON e.session_id = s.session_id \
         GROUP BY e.session_id ORDER BY e.session_id",
    );
    let found: BTreeMap<String, Value> = found
        .into_iter()
        .map(|row| {
            let figures = json!([row["events"], row["buffer_ms"], row["startup_ms"], row["sessions"]]);
            (text(&row["session_id"]), figures)
        })
        .collect();
    let expected = BTreeMap::from([
        ("application/cmcd".to_string(), json!([3, 320, 700, 1])),
        ("application/cmcd+text".to_string(), json!([3, 320, 700, 1])),
        ("text/cmcd".to_string(), json!([3, 320, 700, 1])),
        ("text/plain".to_string(), json!([3, 320, 700, 1])),
        ("headers".to_string(), json!([1, 21_300, null, 1])),
        ("headers win".to_string(), json!([1, null, null, 1])),
        ("query".to_string(), json!([1, 4_000, null, 1])),
        ("json".to_string(), json!([1, 1_500, null, 1])),
        ("beacon".to_string(), json!([2, 200, null, 1])),
    ]);
    assert_eq!(found, expected);
    let of_headers = bench.sql(
        "SELECT state, req_bitrate_bps, object_type, stall_flag, source, dq_flags FROM silver.player_events WHERE session_id = 'headers'",
    );
    assert_eq!(
        of_headers,
        [
            json!({"state": "playing", "req_bitrate_bps": 3_200_000, "object_type": "video", "stall_flag": true,
                "source": "cmcd2_log", "dq_flags": ["receive_time"]})
        ]
    );
    let of_json = bench.sql("SELECT stream_type, stall_flag, source FROM silver.player_events WHERE session_id = 'json'");
    assert_eq!(of_json, [json!({"stream_type": "live", "stall_flag": true, "source": "cmcd1_log"})]);
    assert!(daemon.stop().success());
}

#[test]
fn the_other_door_takes_every_wrapping_and_dialect_and_accounts_for_every_record() {
    let bench = Bench::new();
    let (mut daemon, address) = start(&bench, SETTINGS);
    let now = now_ms();
    let mut sent = Sent::default();
    let mut send = |what: &str, headers: &[(&str, &str)], body: &[u8], good: u64, bad: u64| {
        let answer = post(address, "/v1/events", headers, body);
        sent.check(what, &answer, good, bad);
        answer
    };
    let epas =
        |sid: &str, event: &str| json!({"event": event, "sessionId": sid, "timestamp": now, "playhead": -1, "duration": -1}).to_string();
    let reference = |user: &str| {
        json!({"MetricType": "PLAY", "at": 0, "duration": 0, "user_id": user, "video_id": "film", "playlist_type": "VOD", "TimeStamp": now})
            .to_string()
    };
    let ivs = |sid: &str| {
        json!({"metric_type": "PLAY", "user_id": "u", "session_id": sid, "client_platform": "web", "is_live": true,
               "channel_watched": "c", "event_time": now})
        .to_string()
    };
    let cmcd = |sid: &str| format!("e=t,sta=p,sid=\"{sid}\",sn=0,ts={now},v=2");
    let wrapped =
        |record: &str| json!({"Records": [{"Data": serde_json::from_str::<Value>(record).expect("JSON")}, {"Data": record}]}).to_string();

    send("one object", &[JSON], epas("object", "init").as_bytes(), 1, 0);
    send("no type at all", &[], epas("untyped", "init").as_bytes(), 1, 0);
    let array = format!("[{},\n {}]", epas("array", "init"), epas("array", "loading"));
    send("an array", &[JSON], array.as_bytes(), 2, 0);
    let lines = format!("{}\n\n{}\r\n", epas("ndjson", "init"), epas("ndjson", "loading"));
    send("NDJSON", &[("content-type", "application/x-ndjson")], lines.as_bytes(), 2, 0);
    // The same record twice: as an object and as a text.
    send("an envelope", &[JSON], wrapped(&epas("envelope", "init")).as_bytes(), 2, 0);
    let mixed = format!("{}\n{}\n{}", reference("mixed"), ivs("mixed-ivs"), epas("mixed-epas", "init"));
    send("three dialects", &[JSON], mixed.as_bytes(), 3, 0);
    let plain = format!("{}\n{}\n", cmcd("mixed-cmcd"), cmcd("mixed-cmcd-2"));
    send("CMCD as plain text", &[("content-type", "text/plain")], plain.as_bytes(), 2, 0);
    let packed = gzip(format!("[{},{}]", epas("gzip", "init"), ivs("gzip-ivs")).as_bytes());
    send("gzip", &[JSON, ("content-encoding", "gzip")], &packed, 2, 0);
    let packed = zstd::encode_all(epas("zstd", "init").as_bytes(), 3).expect("it packs");
    send("zstd", &[JSON, ("content-encoding", "zstd")], &packed, 1, 0);
    send("a record sent again", &[JSON], epas("object", "init").as_bytes(), 1, 0);

    let partly = format!(
        "[{}, {{\"no\": \"dialect\"}}, {}, 7]",
        epas("partly", "init"),
        epas("partly", "init").replace(&now.to_string(), "-5")
    );
    let answer = send("refused in part", &[JSON], partly.as_bytes(), 1, 3);
    let told = answer.json();
    let places: Vec<&Value> = told["rejected"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["index"])
        .collect();
    assert_eq!(places, [&json!(1), &json!(2), &json!(3)], "{told}");
    assert!(
        told["rejected"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|one| one["reason"].is_string() && one["detail"].is_string())
    );
    let none = send("refused as a whole", &[JSON], b"{\"event\":\"init\"}\n{\"a\":1}", 0, 2);
    assert_eq!((none.status, &none.json()["accepted"]), (400, &json!(0)));
    let future = format!("e=t,sid=\"far\",ts={},v=2", now + 40 * 86_400_000);
    let from_cmcd = post(address, "/cmcd", &[CMCD], format!("{}\nv=3,bl=(1)\n{future}", cmcd("cmcd-part")));
    assert_eq!(from_cmcd.status, 204, "CMCD knows no answer in part");
    sent.good += 1;
    sent.bad += 2;

    wait_for_received(&bench, &mut daemon, sent.good + sent.bad);
    let log = stop_and_read(&bench, daemon);
    let totals = totals_of(&log);
    let stored = bench.int("SELECT count(*) FROM bronze.player_events");
    assert_eq!(totals["received"], to_i64(sent.good + sent.bad), "{log}");
    assert_eq!(
        totals["received"],
        totals["stored"] + totals["duplicates"] + totals["rejected"],
        "{log}"
    );
    assert_eq!((totals["stored"], totals["rejected"]), (stored, to_i64(sent.bad)), "{log}");
    assert_eq!(
        totals["duplicates"], 2,
        "the envelope's second record and the one sent again: {log}"
    );
    assert_eq!(
        bench.int("SELECT count(*) FROM silver.player_events"),
        stored,
        "what is stored is typed too"
    );
    assert_eq!(bench.int("SELECT sum(duplicates) FROM silver.duplicates"), 2);
    let rejects = bench.sql("SELECT reason, format, count(*) AS n FROM silver.rejects GROUP BY 1, 2 ORDER BY 1, 2");
    let told: BTreeSet<String> = rejects
        .iter()
        .map(|row| format!("{} {}", text(&row["reason"]), text(&row["format"])))
        .collect();
    assert_eq!(bench.int("SELECT count(*) FROM silver.rejects"), to_i64(sent.bad), "{told:?}");
    for expected in ["bad_value cmcd", "event_time_out_of_range cmcd", "unknown_format unknown"] {
        assert!(told.contains(expected), "{expected} is not among {told:?}");
    }
    let sessions = bench.sql("SELECT source, session_id FROM silver.player_events WHERE session_id IS NOT NULL");
    let sessions: BTreeSet<String> = sessions
        .iter()
        .map(|row| format!("{} {}", text(&row["source"]), text(&row["session_id"])))
        .collect();
    for sid in [
        "epas object",
        "epas untyped",
        "epas array",
        "epas ndjson",
        "epas envelope",
        "epas mixed-epas",
        "ivs mixed-ivs",
        "cmcd2_event mixed-cmcd",
        "cmcd2_event cmcd-part",
        "epas gzip",
        "ivs gzip-ivs",
        "epas zstd",
        "epas partly",
    ] {
        assert!(sessions.contains(sid), "{sid} is not among {sessions:?}");
    }
    assert_eq!(bench.int("SELECT count(*) FROM silver.player_events WHERE source = 'aws_demo'"), 1);
}

// ---- the daemon ----

/// Starts a daemon and waits until its door is open.
#[track_caller]
fn start(bench: &Bench, settings: &str) -> (Daemon, SocketAddr) {
    // The log of a daemon that was killed before is in the same file.
    let log = bench.path("run.log");
    let doors = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| Some(line.split_once(LISTENING)?.1.split_once('/')?.0.to_string()));
        lines.collect::<Vec<String>>()
    };
    let before = doors().len();
    let mut daemon = Daemon::start(bench, settings);
    daemon.wait_until("the receiver listens", || doors().len() > before);
    let door = doors().pop().expect("there is one more than before");
    let address = door.parse().unwrap_or_else(|error| panic!("{door:?} is no address: {error}"));
    (daemon, address)
}

/// Waits until the epochs of the log have received so many records.
#[track_caller]
fn wait_for_received(bench: &Bench, daemon: &mut Daemon, records: u64) {
    let expected = to_i64(records);
    let log = bench.path("run.log");
    daemon.wait_until("every record is committed", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let epochs = text.lines().filter(|line| line.contains("epoch committed"));
        epochs.filter_map(|line| number_after(line, "received=")).sum::<i64>() >= expected
    });
}

/// Waits until the lake holds so many player events.
#[track_caller]
fn wait_for_records(bench: &Bench, daemon: &mut Daemon, records: u64) {
    let expected = to_i64(records);
    daemon.wait_until("every record is in the lake, typed and in its session", || {
        bench.int("SELECT count(*) FROM silver.player_events") >= expected
            && bench.int("SELECT coalesce(sum(events), 0) FROM silver.playback_sessions") >= expected
    });
}

/// Stops the daemon as an init system does and returns its log.
#[track_caller]
fn stop_and_read(bench: &Bench, daemon: Daemon) -> String {
    assert!(daemon.stop().success());
    std::fs::read_to_string(bench.path("run.log")).expect("the log can be read")
}

/// The counts of the line that a daemon ends with.
#[track_caller]
fn totals_of(log: &str) -> BTreeMap<&'static str, i64> {
    let line = log.lines().rev().find(|line| line.contains("stopped in order"));
    let line = line.unwrap_or_else(|| panic!("no last line in\n{log}"));
    let counts = [
        ("received", "received="),
        ("stored", "stored="),
        ("duplicates", "duplicates="),
        ("rejected", "rejected="),
    ];
    counts
        .into_iter()
        .map(|(name, sign)| (name, number_after(line, sign).unwrap_or_else(|| panic!("no {name} in {line}"))))
        .collect()
}

fn number_after(line: &str, sign: &str) -> Option<i64> {
    let (_, rest) = line.split_once(sign)?;
    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

// ---- what is sent ----

/// Records of `/v1/events` so far, and the answer that each body must have.
#[derive(Default)]
struct Sent {
    good: u64,
    bad: u64,
}

impl Sent {
    #[track_caller]
    fn check(&mut self, what: &str, answer: &Answer, good: u64, bad: u64) {
        self.good += good;
        self.bad += bad;
        let expected = match (good, bad) {
            (_, 0) => 204,
            (0, _) => 400,
            _ => 200,
        };
        assert_eq!(answer.status, expected, "{what}: {answer:?}");
        if bad > 0 {
            let told = answer.json();
            assert_eq!(
                (&told["received"], &told["accepted"]),
                (&json!(good + bad), &json!(good)),
                "{what}: {told}"
            );
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(bytes).expect("it packs");
    packer.finish().expect("it packs")
}

// ---- the spool ----

fn segments(bench: &Bench) -> Vec<PathBuf> {
    let Ok(folder) = std::fs::read_dir(bench.lake().join("spool")) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "ndjson"));
    paths.sort();
    paths
}

fn spool_bytes(bench: &Bench) -> u64 {
    // A segment may be removed while it is looked at.
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    segments(bench).iter().map(size).sum()
}

// ---- small things ----

/// The receiver's own present: its clock is the system's.
#[allow(clippy::disallowed_methods)] // A player has a clock; there is none to pass in.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("milliseconds fit")
}

fn to_i64(count: u64) -> i64 {
    i64::try_from(count).expect("a small count")
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_string()
}
