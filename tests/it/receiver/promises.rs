//! What the receiver promises: nothing answered for is lost or doubled, no address is kept, and a wrong
//! clock moves a session as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{CMCD, JSON, LISTENING, SETTINGS, now_ms, segments, start, stop_and_read, text, wait_for_received, wait_for_records};
use crate::daemon::Daemon;
use crate::http_client::{post, try_request};
use crate::support::{Bench, files_below};

/// After the first commit nothing more is read: what is answered stays in the spool.
const NEVER_AGAIN: &str = "
http: {listen: '127.0.0.1:0'}
ingest: {commit_every: 10m, poll_every: 50ms}
";

/// Session and sequence number: what tells the records of these tests apart.
type Records = BTreeSet<(String, i64)>;

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
    let twice_read = bench.int("SELECT coalesce(sum(duplicates), 0) FROM silver.duplicates");
    assert_eq!(twice_read, 0, "nobody sent anything twice, and nothing is read twice");
    let sessions =
        "SELECT count(*) FROM (SELECT session_id FROM silver.playback_sessions GROUP BY session_id HAVING count(*) > 1) AS twice";
    assert_eq!(bench.int(sessions), 0);

    send_body(address, "after", 0, &mut sent, &mut promised);
    assert_eq!(segments(&bench).len(), 1, "the one that is open");
    wait_for_records(&bench, &mut daemon, in_bronze as u64 + 3);
    assert!(daemon.stop().success());
}

#[test]
fn a_receiver_that_was_turned_off_listens_nowhere_and_keeps_what_it_had_promised() {
    let bench = Bench::new();
    let (mut sent, mut promised) = (Records::new(), Records::new());
    let (mut daemon, address) = start(&bench, NEVER_AGAIN);
    send_body(address, "before", 0, &mut sent, &mut promised);
    wait_for_received(&bench, &mut daemon, 3);
    send_body(address, "before", 1, &mut sent, &mut promised);
    drop(daemon);
    assert_eq!((promised.len(), bench.int("SELECT count(*) FROM bronze.player_events")), (6, 3));

    let mut daemon = Daemon::start(&bench, "http: {listen: off}\ningest: {commit_every: 200ms, poll_every: 50ms}\n");
    wait_for_records(&bench, &mut daemon, 6);
    let log = stop_and_read(&bench, daemon);
    assert_eq!(log.matches(LISTENING).count(), 1, "only the first daemon listened\n{log}");
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
    let on_disk = files_below(&bench.lake());
    let log = stop_and_read(&bench, daemon);
    let spooled = on_disk.iter().filter(|(name, _)| name.starts_with("spool"));
    let spooled: String = spooled.map(|(_, bytes)| String::from_utf8_lossy(bytes)).collect();
    assert!(spooled.contains("epas-4"), "the spool is part of what is searched");

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
         CAST(started_at AS BIGINT) AS started_us FROM silver.playback_sessions ORDER BY session_id",
    );
    let session = |sid: &str| {
        json!({"session_id": sid, "startup_ms": 812, "startup_derived_ms": 812, "stall_ms": 720, "stall_count": 1, "playing_ms": 23_468,
               "finished": 1, "end_reason": "finished", "started_us": (now - 25_000) * 1_000})
    };
    assert_eq!(sessions, [session("ahead"), session("right")]);
    assert!(daemon.stop().success());
}

/// Sends three records of one session; what is answered with success goes into `promised`. False:
/// there was no answer.
fn send_body(address: SocketAddr, sid: &str, number: i64, sent: &mut Records, promised: &mut Records) -> bool {
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
