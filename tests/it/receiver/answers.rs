//! What the receiver says to those whose records it does not take, and to whom it listens.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::{CMCD, JSON, LISTENING, gzip, now_ms, spool_bytes, start, stop_and_read, totals_of, wait_for_received, wait_for_records};
use crate::http_client::{post, request, try_request};
use crate::support::Bench;

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
    let settings = "http: {listen: '127.0.0.1:0', spool: 1MiB}\ningest: {commit_every: 10s, poll_every: 50ms}\n";
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
    for n in 0..40 {
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
    let refused = refused.expect("4 MB do not go into a spool of 1 MiB between two commits");
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
