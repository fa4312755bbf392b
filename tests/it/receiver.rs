//! The HTTP receiver of `playhead run`: what players post is answered, kept, and in the lake once.
//!
//! Every test talks to a real daemon over a socket and asks the tables afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::http_client::{Answer, post, request, try_request};
use crate::support::{Bench, files_below};

/// A port of the system's choice, a proxy on this machine, and short waits.
const SETTINGS: &str = "
http: {listen: '127.0.0.1:0', trusted_proxies: [127.0.0.1]}
ingest: {commit_every: 200ms, poll_every: 50ms}
";
/// After the first commit nothing more is read: what is answered stays in the spool.
const NEVER_AGAIN: &str = "
http: {listen: '127.0.0.1:0'}
ingest: {commit_every: 10m, poll_every: 50ms}
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
        "SELECT e.session_id, count(*) AS events, max(e.buffer_ms) AS buffer_ms, max(s.plays) AS plays, max(s.startup_ms) AS startup_ms, \
         count(DISTINCT s.session_id) AS sessions \
         FROM silver.player_events AS e JOIN silver.playback_sessions AS s ON e.session_id = s.session_id \
         GROUP BY e.session_id ORDER BY e.session_id",
    );
    let found: BTreeMap<String, Value> = found
        .into_iter()
        .map(|row| {
            let figures = json!([row["events"], row["buffer_ms"], row["plays"], row["startup_ms"], row["sessions"]]);
            (text(&row["session_id"]), figures)
        })
        .collect();
    let expected = BTreeMap::from([
        ("application/cmcd".to_string(), json!([3, 320, 1, 700, 1])),
        ("application/cmcd+text".to_string(), json!([3, 320, 1, 700, 1])),
        ("text/cmcd".to_string(), json!([3, 320, 1, 700, 1])),
        ("text/plain".to_string(), json!([3, 320, 1, 700, 1])),
        ("headers".to_string(), json!([1, 21_300, 1, null, 1])),
        ("headers win".to_string(), json!([1, null, found["headers win"][2], null, 1])),
        ("query".to_string(), json!([1, 4_000, found["query"][2], null, 1])),
        ("json".to_string(), json!([1, 1_500, found["json"][2], null, 1])),
        ("beacon".to_string(), json!([2, 200, found["beacon"][2], null, 1])),
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

#[test]
fn what_cannot_be_taken_is_told_so_and_nothing_of_it_is_stored() {
    let bench = Bench::new();
    let limits = "http: {listen: '127.0.0.1:0', body: 4KiB, body_unpacked: 64KiB, body_records: 3, allowed_origins: ['https://tv.example']}
ingest: {commit_every: 200ms, poll_every: 50ms}
";
    let (mut daemon, address) = start(&bench, limits);
    let record = format!("e=t,sta=p,sid=\"refused\",sn=0,ts={},v=2", now_ms());
    let check = |what: &str, target: &str, headers: &[(&str, &str)], body: &[u8], expected: u16| {
        let answer = post(address, target, headers, body);
        assert_eq!(answer.status, expected, "{what}: {answer:?}");
        assert!(!answer.body.contains("refused"), "{what}: the answer quotes the body: {answer:?}");
        answer
    };
    let large = vec![b' '; 4_097];
    check("more bytes than a body may have", "/cmcd", &[CMCD], &large, 413);
    let bomb = gzip(format!("{record}\n{}", " ".repeat(200_000)).as_bytes());
    assert!(bomb.len() < 4_096, "the bomb is small as sent");
    check("too large unpacked", "/cmcd", &[CMCD, ("content-encoding", "gzip")], &bomb, 413);
    let many = format!("{record}\n").repeat(4);
    let answer = check("too many records", "/cmcd", &[CMCD], many.as_bytes(), 413);
    assert!(answer.body.contains('3'), "it names the bound: {answer:?}");
    for (target, content_type) in [
        ("/cmcd", "text/html"),
        ("/cmcd", "application/x-www-form-urlencoded"),
        ("/v1/events", "application/cmcd"),
        ("/v1/events", "multipart/form-data; boundary=x"),
    ] {
        check(content_type, target, &[("content-type", content_type)], record.as_bytes(), 415);
    }
    check(
        "an unknown packing",
        "/cmcd",
        &[CMCD, ("content-encoding", "br")],
        record.as_bytes(),
        415,
    );
    check(
        "a broken packing",
        "/cmcd",
        &[CMCD, ("content-encoding", "gzip")],
        record.as_bytes(),
        400,
    );
    check("an empty body", "/v1/events", &[JSON], b"", 400);
    check("blank lines", "/cmcd", &[CMCD], b"\n \n", 400);
    check("neither body nor headers nor query", "/cmcd", &[], b"", 400);
    check("another path", "/v2/events", &[JSON], record.as_bytes(), 404);
    assert_eq!(request(address, "GET", "/cmcd", &[], b"").status, 405);
    assert_eq!(request(address, "GET", "/healthz", &[], b"").status, 200);

    let asked = |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        request(address, "OPTIONS", "/cmcd", &headers, b"")
    };
    let answer = asked("https://tv.example");
    assert!((200..300).contains(&answer.status), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://tv.example"));
    assert!(
        answer
            .header("access-control-allow-methods")
            .is_some_and(|methods| methods.contains("POST"))
    );
    let allowed = answer.header("access-control-allow-headers").unwrap_or_default().to_lowercase();
    for name in ["content-type", "cmcd-request", "cmcd-object", "cmcd-status", "cmcd-session"] {
        assert!(allowed.contains(name), "{name} is not among {allowed}");
    }
    assert_eq!(asked("https://evil.example").header("access-control-allow-origin"), None);

    let good = record.replace("refused", "taken");
    let answer = post(address, "/cmcd", &[CMCD, ("origin", "https://tv.example")], good);
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (204, Some("https://tv.example"))
    );
    wait_for_records(&bench, &mut daemon, 1);
    assert_eq!(bench.value("SELECT max(session_id) FROM silver.player_events"), json!("taken"));
    assert_eq!(
        bench.int("SELECT count(*) FROM silver.rejects"),
        0,
        "a body that was not looked at has no records"
    );
    assert_eq!(totals_of(&stop_and_read(&bench, daemon))["received"], 1);
}

#[test]
fn a_receiver_that_takes_no_events_tells_players_to_stop_for_good() {
    let bench = Bench::new();
    let (daemon, address) = start(&bench, "http: {listen: '127.0.0.1:0', accepting: false}\n");
    for (target, headers) in [("/cmcd", [CMCD]), ("/v1/events", [JSON])] {
        let answer = post(address, target, &headers, format!("e=t,sid=\"a\",ts={},v=2", now_ms()));
        assert_eq!(answer.status, 410, "{target}: {answer:?}");
        assert_eq!(answer.header("retry-after"), None, "nobody should come again");
    }
    assert!(daemon.stop().success());
    assert_eq!(spool_bytes(&bench), 0);
}

#[test]
fn a_full_spool_sends_players_away_and_takes_them_again_once_the_lake_has_caught_up() {
    let bench = Bench::new();
    let settings = "http: {listen: '127.0.0.1:0', spool: 1MiB}\ningest: {commit_every: 5s, poll_every: 50ms}\n";
    let (mut daemon, address) = start(&bench, settings);
    let now = now_ms();
    // The ext of a record holds what fills the spool.
    let body = |sid: &str| {
        let record = |n: usize| format!("e=t,sid=\"{sid}\",sn={n},ts={now},v=2,com.example-x=\"{}\"\n", "x".repeat(10_000));
        (0..10).map(record).collect::<String>()
    };
    // The first one makes the daemon commit, and wait for the next time to do so.
    assert_eq!(
        post(address, "/cmcd", &[CMCD], format!("e=t,sid=\"first\",sn=0,ts={now},v=2")).status,
        204
    );
    wait_for_received(&bench, &mut daemon, 1);
    let (mut taken, mut refused) = (1, None);
    for n in 0..20 {
        let answer = post(address, "/cmcd", &[CMCD], body(&format!("fill-{n}")));
        match answer.status {
            204 => taken += 10,
            _ => {
                refused = Some(answer);
                break;
            }
        }
        assert!(spool_bytes(&bench) <= 1 << 20, "the bound is on bytes on disk");
    }
    let refused = refused.expect("2 MB do not go into a spool of 1 MiB");
    assert_eq!(refused.status, 429, "{refused:?}");
    let retry_after: u64 = refused
        .header("retry-after")
        .and_then(|value| value.parse().ok())
        .expect("whole seconds");
    assert!((1..=300).contains(&retry_after), "{retry_after} s");
    assert!(taken > 50, "the spool took only {taken} records");
    assert_eq!(
        request(address, "GET", "/healthz", &[], b"").status,
        200,
        "a full spool is no failure"
    );

    daemon.wait_until("senders are taken again", || {
        let answer = post(address, "/cmcd", &[CMCD], body("again"));
        assert!(matches!(answer.status, 204 | 429), "{answer:?}");
        answer.status == 204
    });
    taken += 10;
    wait_for_records(&bench, &mut daemon, taken);
    assert_eq!(
        bench.int("SELECT count(*) FROM silver.player_events WHERE session_id = 'again'"),
        10
    );
    assert!(daemon.stop().success());
}

/// What was answered with success is a promise. Killed before, between and after commits.
#[test]
fn whatever_was_answered_with_success_survives_kill_minus_nine_exactly_once() {
    let bench = Bench::new();
    let mut promised = BTreeSet::new();
    let mut sent = BTreeSet::new();

    // After the first commit nothing more is read: the second body is provably in no table when the
    // daemon dies.
    let (mut daemon, address) = start(&bench, NEVER_AGAIN);
    send_body(address, "before", 0, &mut sent, &mut promised);
    wait_for_received(&bench, &mut daemon, 3);
    for number in 1..5 {
        send_body(address, "before", number, &mut sent, &mut promised);
    }
    drop(daemon);
    assert_eq!(promised.len(), 15, "every body was answered");
    assert_eq!(bench.int("SELECT count(*) FROM bronze.player_events"), 3);
    // A write that the power cut tore: nobody was promised this one.
    let segment = segments(&bench).pop().expect("the spool holds what was promised");
    let mut file = std::fs::OpenOptions::new().append(true).open(segment).expect("it can be opened");
    file.write_all(b"{\"format\":\"cmcd\",\"received_at_ms\":1790")
        .expect("it can be written");
    drop(file);

    // Killed so many answers after the start, while more are on their way.
    for (round, answers) in [1, 2, 12, 30, 60].into_iter().enumerate() {
        let (mut daemon, address) = start(&bench, SETTINGS);
        let answered = AtomicUsize::new(0);
        let (more_sent, more_promised) = std::thread::scope(|scope| {
            let sender = scope.spawn(|| send_until_it_is_gone(address, round, &answered));
            daemon.wait_until("so many answers", || answered.load(Ordering::Relaxed) >= answers);
            drop(daemon);
            sender.join().expect("the sender ends when nobody answers")
        });
        sent.extend(more_sent);
        promised.extend(more_promised);
    }

    let (mut daemon, address) = start(&bench, SETTINGS);
    daemon.wait_until("the spool is cleared", || segments(&bench).is_empty());
    let rows = bench.sql("SELECT session_id, seq, count(*) AS n FROM silver.player_events GROUP BY 1, 2");
    let twice: Vec<&Value> = rows.iter().filter(|row| row["n"] != json!(1)).collect();
    assert!(twice.is_empty(), "in the lake more than once: {twice:?}");
    let stored: BTreeSet<(String, i64)> = rows
        .iter()
        .map(|row| (text(&row["session_id"]), row["seq"].as_i64().expect("every record has its number")))
        .collect();
    let lost: Vec<_> = promised.difference(&stored).collect();
    assert!(lost.is_empty(), "answered with success and lost: {lost:?}");
    assert!(
        stored.is_subset(&sent),
        "nobody sent {:?}",
        stored.difference(&sent).collect::<Vec<_>>()
    );
    assert!(promised.len() > 15 + 3 * 100, "the kills came early: {}", promised.len());
    let in_bronze = bench.int("SELECT count(*) FROM bronze.player_events");
    assert_eq!(
        usize::try_from(in_bronze).expect("a count"),
        stored.len(),
        "bronze and silver hold the same"
    );
    assert_eq!(
        bench.int("SELECT count(*) FROM silver.rejects"),
        0,
        "the torn line is nobody's record"
    );
    let sessions =
        "SELECT count(*) FROM (SELECT session_id FROM silver.playback_sessions GROUP BY session_id HAVING count(*) > 1) AS twice";
    assert_eq!(bench.int(sessions), 0);

    send_body(address, "after", 0, &mut sent, &mut promised);
    assert_eq!(segments(&bench).len(), 1, "the one that is open");
    wait_for_records(&bench, &mut daemon, in_bronze as u64 + 3);
    assert!(daemon.stop().success());
}

#[test]
fn no_client_address_is_anywhere_on_the_disk_or_in_the_log_and_its_network_is() {
    /// What a proxy says, the address in its spellings, and the network that is kept.
    const CLIENTS: [(&str, &[&str], &str); 5] = [
        ("203.0.113.77", &["203.0.113.77"], "203.0.113.0"),
        ("198.51.100.201:4711, 127.0.0.1", &["198.51.100.201"], "198.51.100.0"),
        (
            "2001:DB8:85A3:8D3:1319:8A2E:370:7348",
            &["2001:db8:85a3:8d3:1319:8a2e:370:7348", "1319:8a2e"],
            "2001:db8:85a3::",
        ),
        ("\"[::ffff:192.0.2.178]:443\"", &["192.0.2.178", "c000:2b2"], "192.0.2.0"),
        ("::FFFF:CB00:71E9", &["203.0.113.233", "cb00:71e9"], "203.0.113.0"),
    ];
    let bench = Bench::new();
    let (mut daemon, address) = start(&bench, SETTINGS);
    let now = now_ms();
    for (number, (forwarded, spellings, _)) in CLIENTS.iter().enumerate() {
        let own = spellings[0];
        let agent = format!("Player/1.0 (client {own})");
        let headers = [("x-forwarded-for", *forwarded), ("user-agent", agent.as_str())];
        // In a custom key, in a URL, and in a record that is refused.
        let cmcd = format!(
            "e=rr,sid=\"ip-{number}\",sn=0,ts={now},v=2,url=\"https://cdn.example/{own}/a.m4s?ip={own}\",com.example-ip=\"{own}\"\n{own}"
        );
        let answer = post(address, "/cmcd", &[&headers[..], &[CMCD]].concat(), cmcd);
        assert_eq!(answer.status, 204);
        let event = json!({"event": "init", "sessionId": format!("epas-{number}"), "timestamp": now, "playhead": -1, "duration": -1,
                           "payload": {"clientIp": own, "note": format!("from {own}")}});
        let body = format!("[{event}, {{\"ip\": \"{own}\"}}, \"{own}\"]");
        let answer = post(address, "/v1/events", &[&headers[..], &[JSON]].concat(), body);
        assert_eq!(answer.status, 200);
        assert!(!answer.body.contains(own), "{answer:?}");
    }
    wait_for_received(&bench, &mut daemon, 5 * (2 + 3));
    assert!(spool_bytes(&bench) > 0, "the spool is part of what is searched");
    let on_disk = files_below(&bench.lake());
    let log = stop_and_read(&bench, daemon);

    let mut shown = String::new();
    let tables: BTreeSet<String> = on_disk
        .keys()
        .filter_map(|name| Some(name.to_str()?.split_once("/_delta_log/")?.0.replace('/', ".")))
        .collect();
    assert!(tables.contains("silver.rejects") && tables.len() > 10, "{tables:?}");
    for table in &tables {
        shown.push_str(&Value::Array(bench.sql(&format!("SELECT * FROM {table}"))).to_string());
    }
    let searched = on_disk
        .iter()
        .map(|(name, bytes)| (name.display().to_string(), String::from_utf8_lossy(bytes).to_lowercase()))
        .chain([
            ("the log".to_string(), log.to_lowercase()),
            ("the rows".to_string(), shown.to_lowercase()),
        ]);
    for (place, content) in searched {
        for spelling in CLIENTS.iter().flat_map(|(_, spellings, _)| *spellings) {
            assert!(!content.contains(spelling), "{spelling} stands in {place}");
        }
    }
    for table in ["bronze", "silver"] {
        let rows = bench.sql(&format!(
            "SELECT client_prefix, count(*) AS n FROM {table}.player_events GROUP BY client_prefix"
        ));
        let found: BTreeMap<String, Value> = rows.iter().map(|row| (text(&row["client_prefix"]), row["n"].clone())).collect();
        let mut expected = BTreeMap::new();
        for (_, _, network) in CLIENTS {
            *expected.entry(network.to_string()).or_insert(0) += 2;
        }
        let expected: BTreeMap<String, Value> = expected.into_iter().map(|(network, n)| (network, json!(n))).collect();
        assert_eq!(found, expected, "{table}");
    }
}

#[test]
fn a_player_whose_clock_is_three_hours_ahead_is_put_where_it_belongs_and_no_length_changes() {
    const AHEAD_MS: i64 = 3 * 3_600_000;
    let bench = Bench::new();
    let (mut daemon, address) = start(&bench, SETTINGS);
    let now = now_ms();
    let send = |sid: &str, start_ms: i64, records: &[(i64, i64, &str)]| {
        let line = |(seq, after, pairs): &(i64, i64, &str)| format!("e=ps,{pairs},sid=\"{sid}\",sn={seq},ts={},v=2\n", start_ms + after);
        let answer = post(address, "/cmcd", &[CMCD], records.iter().map(line).collect::<String>());
        assert_eq!(answer.status, 204);
    };
    for (sid, ahead_ms) in [("right", 0), ("ahead", AHEAD_MS)] {
        let start_ms = now + ahead_ms - 25_000;
        send(sid, start_ms, &[(0, 0, "sta=s"), (1, 812, "sta=p"), (2, 20_000, "sta=r")]);
        send(sid, start_ms, &[(3, 20_720, "sta=p,bsd=(720)"), (4, 25_000, "sta=e")]);
    }
    wait_for_records(&bench, &mut daemon, 10);

    let events = bench
        .sql("SELECT session_id, seq, CAST(event_ts AS BIGINT) AS event_us, event_ts_raw, dq_flags FROM silver.player_events ORDER BY seq");
    for row in &events {
        let is_ahead = row["session_id"] == json!("ahead");
        let shift_ms = if is_ahead { AHEAD_MS } else { 0 };
        let place = [0, 812, 20_000, 20_720, 25_000][usize::try_from(row["seq"].as_i64().expect("sn")).expect("from 0")];
        assert_eq!(row["event_ts_raw"], json!(now + shift_ms - 25_000 + place), "as sent: {row}");
        let expected = json!((now - 25_000 + place) * 1_000);
        assert_eq!(row["event_us"], expected, "whole minutes off, so exactly here: {row}");
        assert_eq!(row["dq_flags"] == json!(["clock_shifted"]), is_ahead, "{row}");
    }
    let sessions = bench.sql(
        "SELECT session_id, startup_ms, startup_derived_ms, stall_ms, stall_count, playing_ms, finished, end_reason, \
         CAST(started_at AS BIGINT) AS started_us, array_has(dq_flags, 'clock_shifted') AS shifted FROM silver.playback_sessions ORDER BY session_id",
    );
    let session = |sid: &str, shifted: bool| {
        json!({"session_id": sid, "startup_ms": 812, "startup_derived_ms": 812, "stall_ms": 720, "stall_count": 1, "playing_ms": 23_468,
               "finished": 1, "end_reason": "finished", "started_us": (now - 25_000) * 1_000, "shifted": shifted})
    };
    assert_eq!(sessions, [session("ahead", true), session("right", false)]);
    assert!(daemon.stop().success());
}

#[test]
fn without_a_setting_only_this_machine_is_listened_to() {
    let bench = Bench::new();
    let log = bench.path("default.log");
    let file = std::fs::File::create(&log).expect("the log can be made");
    let mut child = bench
        .command(&["run"])
        .stdout(std::process::Stdio::null())
        .stderr(file)
        .spawn()
        .expect("the binary starts");
    // The port may be another's on this machine: then the daemon says so and ends, and names it too.
    let started = std::time::Instant::now();
    let said = loop {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let has_ended = child.try_wait().expect("a child can be asked").is_some();
        if said.contains(LISTENING) || has_ended || started.elapsed() > Duration::from_secs(60) {
            break said;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // 127.0.0.2 is this machine by another address: who listens everywhere answers there too.
    let listens_here = said.contains(LISTENING);
    let elsewhere = try_request(SocketAddr::from(([127, 0, 0, 2], 8480)), "GET", "/healthz", &[], b"");
    let here = try_request(SocketAddr::from(([127, 0, 0, 1], 8480)), "GET", "/healthz", &[], b"");
    let _ = child.kill();
    let _ = child.wait();
    if listens_here {
        assert!(said.contains("taking player events on http://127.0.0.1:8480/cmcd"), "{said}");
        assert_eq!(here.map(|answer| answer.status), Some(200));
        assert!(elsewhere.is_none(), "it answers on another address than 127.0.0.1");
    } else {
        assert!(said.contains("cannot listen on 127.0.0.1:8480"), "{said}");
    }
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

/// Sends three records of one session; what is answered with success goes into `promised`. False:
/// there was no answer.
fn send_body(
    address: SocketAddr,
    sid: &str,
    number: i64,
    sent: &mut BTreeSet<(String, i64)>,
    promised: &mut BTreeSet<(String, i64)>,
) -> bool {
    let records: Vec<(String, i64)> = (0..3).map(|place| (sid.to_string(), number * 3 + place)).collect();
    let now = now_ms();
    let line = |(sid, seq): &(String, i64)| format!("e=t,sta=p,sid=\"{sid}\",sn={seq},ts={now},v=2\n");
    let body: String = records.iter().map(line).collect();
    sent.extend(records.iter().cloned());
    match try_request(address, "POST", "/cmcd", &[CMCD], body.as_bytes()) {
        Some(answer) => {
            assert_eq!(answer.status, 204, "{answer:?}");
            promised.extend(records);
            true
        }
        None => false,
    }
}

type Records = BTreeSet<(String, i64)>;

fn send_until_it_is_gone(address: SocketAddr, round: usize, answered: &AtomicUsize) -> (Records, Records) {
    let (mut sent, mut promised) = (BTreeSet::new(), BTreeSet::new());
    for number in 0.. {
        if !send_body(address, &format!("round-{round}"), number, &mut sent, &mut promised) {
            break;
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    (sent, promised)
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
