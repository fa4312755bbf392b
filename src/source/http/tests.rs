//! The receiver from outside: a real server, and a client that writes every byte itself.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::ManualClock;
use crate::event::decode::spooled::{Unspooled, decode};
use crate::privacy::IdentityPolicy;
use crate::source::BatchLimits;
use crate::source::files::{FileSource, FilesSpec};
use crate::source::spool::SpoolLimits;

const NOW_MS: i64 = 1_790_000_000_000;
const CMCD: &str = r#"e=ps,sta=p,sid="s1",sn=1,ts=1789999999000,v=2"#;
const EVENT: &str = r#"{"MetricType":"STREAM","TimeStamp":1789999999000,"user_id":"u1","video_id":"v1"}"#;
const OLD_EVENT: &str = r#"{"MetricType":"STREAM","TimeStamp":1000,"user_id":"u1","video_id":"v1"}"#;
/// A client that waits longer than this for an answer has found a bug.
const PATIENCE: Duration = Duration::from_secs(20);

/// A receiver that listens, with a spool of its own.
struct Server {
    address: SocketAddr,
    receiver: Arc<Receiver>,
    spool: Arc<Spool>,
    stop: watch::Sender<bool>,
    serving: Option<JoinHandle<std::io::Result<()>>>,
    runtime: Runtime,
    folder: tempfile::TempDir,
}

fn quick() -> ReceiverSettings {
    ReceiverSettings {
        head_time: Duration::from_millis(300),
        body_time: Duration::from_millis(500),
        idle_time: Duration::from_millis(600),
        ..ReceiverSettings::default()
    }
}

fn server(settings: ReceiverSettings) -> Server {
    server_with_spool(settings, SpoolLimits::default())
}

fn server_with_spool(settings: ReceiverSettings, limits: SpoolLimits) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW_MS));
    let spool = Arc::new(Spool::open(folder.path(), limits, Arc::clone(&clock)).unwrap());
    let privacy = Arc::new(Privacy::new(IdentityPolicy::Pseudonym, [7; 32]));
    let receiver = Receiver::new(settings.clone(), Arc::default(), privacy, clock, Arc::clone(&spool)).unwrap();
    let receiver = Arc::new(receiver);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let router = router(Arc::clone(&receiver));
    let serving = runtime.spawn(async move { serve(listener, router, &settings, stopped).await });
    Server {
        address,
        receiver,
        spool,
        stop,
        serving: Some(serving),
        runtime,
        folder,
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Server {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One request on a connection of its own; `head` is the request line and headers, separated by `|`.
    fn send(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let length = body.len();
        let head = head.replace('|', "\r\n");
        let request = format!("{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        // A server that refuses early may have closed its side.
        let _ = stream.write_all(body);
        answer_of(stream)
    }

    fn cmcd(&self, body: &str) -> Answer {
        self.send("POST /cmcd HTTP/1.1|Content-Type: application/cmcd", body.as_bytes())
    }

    fn events(&self, body: &str) -> Answer {
        self.send("POST /v1/events HTTP/1.1|Content-Type: application/json", body.as_bytes())
    }

    fn spool_text(&self) -> String {
        let paths = self.spool.segments().unwrap().into_iter().map(|segment| segment.path);
        paths.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }

    fn unspooled(&self) -> Vec<Unspooled> {
        self.spool_text().lines().map(|line| decode(line).unwrap()).collect()
    }

    /// Payloads of events, or reasons of refusals with a `!`.
    fn spooled(&self) -> Vec<String> {
        let of = |line: Unspooled| match line {
            Unspooled::Event { event, .. } => event.payload,
            Unspooled::Refused(refused) => format!("!{}", refused.reject.reason.as_str()),
        };
        self.unspooled().into_iter().map(of).collect()
    }
}

fn answer_of(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer was read changes nothing of it.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Answer {
            status: 0,
            head: text,
            body: String::new(),
        };
    };
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn what_is_answered_with_success_is_in_the_spool_when_the_answer_arrives() {
    let server = server(ReceiverSettings::default());
    for number in 1..=20 {
        let record = CMCD.replace("sn=1", &format!("sn={number}"));
        let answer = server.cmcd(&record);
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        assert_eq!(server.spooled().len(), number);
        assert_eq!(server.spooled().last(), Some(&record));
    }
}

#[test]
fn the_files_source_follows_the_spool_from_segment_to_segment_and_sees_nothing_else() {
    let limits = SpoolLimits {
        segment_bytes: 400,
        ..SpoolLimits::default()
    };
    let server = server_with_spool(ReceiverSettings::default(), limits);
    let spec = FilesSpec {
        path: server.folder.path().to_path_buf(),
        format: None,
        names_columns: false,
    };
    let mut source = FileSource::new(vec![spec], false);
    let mut read = Vec::new();
    for number in 1..=9 {
        assert_eq!(server.cmcd(&CMCD.replace("sn=1", &format!("sn={number}"))).status, 204);
        for found in source.discover().unwrap() {
            source.start(found, 0, 0);
        }
        let limits = BatchLimits {
            bytes: 1 << 20,
            records: 100,
        };
        while let Some(part) = source.next_part(limits).unwrap() {
            read.extend(part.lines.iter().map(|line| part.buffer[line.start..line.end].to_vec()));
        }
        assert_eq!(read.len(), number);
    }
    assert!(server.spool.segments().unwrap().len() > 2);
    assert_eq!(read.join(&b'\n'), server.spool_text().trim_end().as_bytes());
}

#[test]
fn each_route_takes_its_content_types_and_refuses_the_others() {
    let server = server(ReceiverSettings::default());
    let check = |route: &str, content_type: &str, body: &str, expected: u16| {
        let answer = server.send(&format!("POST {route} HTTP/1.1{content_type}"), body.as_bytes());
        assert_eq!(answer.status, expected, "{route} {content_type} {}", answer.body);
    };
    for content_type in [
        "application/cmcd",
        "text/cmcd",
        "application/cmcd+text",
        "text/plain;charset=UTF-8",
        "Application/CMCD ; x=y",
    ] {
        check("/cmcd", &format!("|Content-Type: {content_type}"), CMCD, 204);
    }
    check("/cmcd", "", CMCD, 204);
    check("/cmcd", "|Content-Type: application/json", r#"{"sid":"s1","bl":2100,"v":1}"#, 204);
    check(
        "/cmcd",
        "|Content-Type: text/plain",
        r#"[{"sid":"s1","bl":2100},{"sid":"s1","bl":2200}]"#,
        204,
    );
    check("/cmcd", "|Content-Type: application/xml", CMCD, 415);
    check("/cmcd", "|Content-Type: application/x-ndjson", CMCD, 415);
    for content_type in ["application/json", "application/x-ndjson", "text/plain; charset=utf-8"] {
        check("/v1/events", &format!("|Content-Type: {content_type}"), EVENT, 204);
    }
    check("/v1/events", "|Content-Type: text/plain", CMCD, 204);
    check("/v1/events", "", EVENT, 204);
    check("/v1/events", "|Content-Type: application/cmcd", EVENT, 415);
    check("/v1/events", "|Content-Type: application/json|Content-Encoding: br", EVENT, 415);
    check(
        "/v1/events",
        "|Content-Type: application/json|Content-Encoding: gzip, gzip",
        EVENT,
        415,
    );
    check("/other", "", EVENT, 404);
    assert_eq!(server.send("GET /cmcd HTTP/1.1", b"").status, 405);
}

#[test]
fn a_batch_of_cmcd_counts_each_line_and_knows_no_answer_in_part() {
    let server = server(ReceiverSettings::default());
    let second = CMCD.replace("sn=1", "sn=2");
    let body = format!("  {CMCD} \r\n\n \t\nnothing of ours\n{second}\n");
    assert_eq!(server.cmcd(&body).status, 204);
    assert_eq!(server.spooled(), [CMCD, "!missing_fields", &second]);
    let counts = server.receiver.counts();
    assert_eq!((counts.received, counts.accepted, counts.rejected), (3, 2, 1));

    assert_eq!(server.cmcd("nothing of ours\nnor this").status, 400);
    assert_eq!(server.spooled().len(), 5, "refused records are counted where rows come from");
    for empty in ["", "\n \r\n\n"] {
        assert_eq!(server.cmcd(empty).status, 400);
    }
    let counts = server.receiver.counts();
    assert_eq!((counts.received, counts.accepted, counts.rejected), (5, 2, 3));
    assert_eq!(counts.refused_by_client_fault, 2);
}

#[test]
fn events_are_answered_record_by_record() {
    let server = server(ReceiverSettings::default());
    let check = |body: &str, status: u16, expected: &str| {
        let answer = server.events(body);
        assert_eq!(answer.status, status, "{body} {}", answer.body);
        if answer.body.is_empty() {
            assert_eq!(expected, "");
            return;
        }
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let summary = answer.json();
        let rejected: Vec<String> = summary["rejected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rejected| {
                assert!(!rejected["detail"].as_str().unwrap().is_empty());
                format!("{} {}", rejected["index"], rejected["reason"].as_str().unwrap())
            })
            .collect();
        let found = format!("{}/{} {}", summary["accepted"], summary["received"], rejected.join(", "));
        assert_eq!(found, expected);
    };
    check(&format!("[{EVENT},{EVENT}]"), 204, "");
    check(&format!("{EVENT}\n{CMCD}\n"), 200, "1/2 1 malformed_json");
    check(
        &format!("[{EVENT},{OLD_EVENT},7]"),
        200,
        "1/3 1 event_time_out_of_range, 2 not_an_object",
    );
    check(&format!("{EVENT}\n{{\"a\":\n{EVENT}"), 200, "2/3 1 malformed_json");
    check(OLD_EVENT, 400, "0/1 0 event_time_out_of_range");
    check(&format!("{{\"Records\":[{{\"Data\":{EVENT}}}]}}"), 204, "");
    let answer = server.send(
        "POST /v1/events HTTP/1.1",
        format!("{EVENT}\n{{\"a\":\"\u{e4}\"}}\n").replace('\u{e4}', "\u{0}").as_bytes(),
    );
    assert_eq!(answer.status, 200);
    let mut bytes = format!("{EVENT}\n").into_bytes();
    bytes.extend_from_slice(b"{\"a\":\"\xff\"}\n");
    let answer = server.send("POST /v1/events HTTP/1.1", &bytes);
    assert_eq!(answer.json()["rejected"][0]["reason"], "not_utf8");
    assert_eq!(server.events("[]").status, 400);
    let counts = server.receiver.counts();
    assert_eq!(counts.received as usize, server.spooled().len());
}

#[test]
fn a_request_without_a_body_carries_cmcd_in_its_headers_or_else_in_its_query() {
    let server = server(ReceiverSettings::default());
    let query = "POST /cmcd?a=b&CMCD=bl%3D2100%2Csid%3D%22q%22 HTTP/1.1";
    assert_eq!(server.send(query, b"").status, 204);
    let headers = "|CMCD-Session: sid=\"h\",v=1|CMCD-Request: bl=2100|CMCD-Object: br=3200";
    assert_eq!(server.send(&format!("{query}{headers}"), b"").status, 204);
    assert_eq!(server.send(&format!("{query}{headers}"), CMCD.as_bytes()).status, 204);
    assert_eq!(server.spooled(), [r#"bl=2100,sid="q""#, r#"bl=2100,br=3200,sid="h",v=1"#, CMCD]);
    assert_eq!(server.send(&format!("{query}|Content-Encoding: gzip"), b"").status, 204);
    assert_eq!(server.send("POST /cmcd?CMCD= HTTP/1.1", b"").status, 400);
    assert_eq!(server.send("POST /v1/events?CMCD=bl%3D1 HTTP/1.1", b"").status, 400);
}

#[test]
fn packed_bodies_are_unpacked_and_bombs_are_not() {
    let server = server(ReceiverSettings::default());
    let check = |encoding: &str, body: &[u8], expected: u16| {
        let head = format!("POST /v1/events HTTP/1.1|Content-Type: application/json|Content-Encoding: {encoding}");
        let answer = server.send(&head, body);
        assert_eq!(answer.status, expected, "{encoding} {}", answer.body);
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 19).unwrap();
    check("gzip", &gzip(EVENT.as_bytes()), 204);
    check("zstd", &zstd(EVENT.as_bytes()), 204);
    assert_eq!(server.spooled().len(), 2);
    check("gzip", EVENT.as_bytes(), 400);
    check("zstd", &gzip(EVENT.as_bytes()), 400);
    let zeros = vec![b' '; 100 << 20];
    check("gzip", &gzip(&zeros), 413);
    check("zstd", &zstd(&zeros), 413);
    assert_eq!(server.spooled().len(), 2);
    assert_eq!(server.receiver.memory.available_permits(), 128 << 20, "all memory is given back");
}

#[test]
fn what_is_too_large_is_refused_and_a_record_that_is_too_large_costs_itself() {
    let server = server(ReceiverSettings::default());
    let long = format!("{CMCD},com.example-x=\"{}\"", "y".repeat(70_000));
    assert_eq!(server.cmcd(&format!("{long}\n{CMCD}")).status, 204);
    assert_eq!(server.spooled(), ["!too_large", CMCD]);

    let many = format!("{CMCD}\n").repeat(5_001);
    assert_eq!(server.cmcd(&many).status, 413);
    assert_eq!(server.cmcd(&"x".repeat((1 << 20) + 1)).status, 413);
    assert_eq!(server.spooled().len(), 2);

    let mut stream = server.connect();
    let head = "POST /cmcd HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..17 {
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let _ = stream.write_all(b"0\r\n\r\n");
    assert_eq!(answer_of(stream).status, 413);
}

#[test]
fn load_is_answered_with_a_time_to_come_again() {
    let small = ReceiverSettings {
        memory_bytes_max: 10_000,
        ..ReceiverSettings::default()
    };
    let server = server(small);
    let answer = server.cmcd(&format!("{CMCD}\n").repeat(100));
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("10")));
    assert_eq!(server.cmcd(CMCD).status, 204);

    let limits = SpoolLimits {
        bytes_max: 300,
        segment_bytes: 100,
    };
    let full = server_with_spool(ReceiverSettings::default(), limits);
    assert_eq!(full.cmcd(CMCD).status, 204);
    let answer = (0..3).map(|_| full.cmcd(CMCD)).last().unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("10")));
    assert!(full.spool_text().len() <= 300);
    let counts = full.receiver.counts();
    assert_eq!(counts.received as usize, full.spooled().len());
    assert!(counts.refused_for_load > 0);
}

#[test]
fn a_spool_that_cannot_be_written_is_answered_with_come_again() {
    let server = server(ReceiverSettings::default());
    std::fs::remove_dir_all(server.folder.path()).unwrap();
    let answer = server.cmcd(CMCD);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("10")));
    assert_eq!(server.receiver.counts().received, 0);
    std::fs::create_dir(server.folder.path()).unwrap();
    assert_eq!(server.cmcd(CMCD).status, 204);
}

#[test]
fn intake_that_is_switched_off_tells_players_to_stop() {
    let server = server(ReceiverSettings {
        accepting: false,
        ..ReceiverSettings::default()
    });
    assert_eq!((server.cmcd(CMCD).status, server.events(EVENT).status), (410, 410));
    server.receiver.set_accepting(true);
    assert_eq!(server.cmcd(CMCD).status, 204);
    assert_eq!(server.spooled(), [CMCD]);
}

#[test]
fn browsers_may_send_from_the_origins_on_the_list() {
    let check = |allowed: &[&str], origin: &str, expected: Option<&str>| {
        let server = server(ReceiverSettings {
            allowed_origins: allowed.iter().map(|origin| (*origin).to_owned()).collect(),
            ..ReceiverSettings::default()
        });
        for route in ["/cmcd", "/v1/events"] {
            let asked = "Access-Control-Request-Method: POST|Access-Control-Request-Headers: content-type,cmcd-session";
            let answer = server.send(&format!("OPTIONS {route} HTTP/1.1|Origin: {origin}|{asked}"), b"");
            assert_eq!(answer.status, 204);
            assert_eq!(answer.header("access-control-allow-origin"), expected);
            assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
            let headers = answer.header("access-control-allow-headers").unwrap();
            for header in [
                "Content-Type",
                "Content-Encoding",
                "CMCD-Request",
                "CMCD-Object",
                "CMCD-Status",
                "CMCD-Session",
            ] {
                assert!(headers.contains(header), "{headers}");
            }
            assert_eq!(answer.header("access-control-max-age"), Some("86400"));
        }
        let answer = server.send(&format!("POST /cmcd HTTP/1.1|Origin: {origin}"), CMCD.as_bytes());
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, expected));
        let answer = server.send(&format!("POST /cmcd HTTP/1.1|Origin: {origin}"), b"");
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (400, expected));
    };
    check(&["*"], "https://tv.example", Some("*"));
    check(
        &["https://a.example", "https://tv.example"],
        "https://tv.example",
        Some("https://tv.example"),
    );
    check(&["https://a.example"], "https://tv.example", None);
    check(&[], "https://tv.example", None);
}

#[test]
fn a_request_in_small_pieces_is_one_request() {
    let server = server(ReceiverSettings::default());
    let mut stream = server.connect();
    let request = format!(
        "POST /cmcd HTTP/1.1\r\nHost: x\r\nContent-Type: application/cmcd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{CMCD}",
        CMCD.len()
    );
    for piece in request.as_bytes().chunks(7) {
        stream.write_all(piece).unwrap();
        stream.flush().unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(answer_of(stream).status, 204);
    assert_eq!(server.spooled(), [CMCD]);
}

#[test]
fn one_connection_takes_many_requests() {
    let server = server(quick());
    let mut stream = server.connect();
    let request = format!("POST /cmcd HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{CMCD}", CMCD.len());
    for _ in 0..4 {
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 204"));
        // Longer than the time for a head, shorter than the time between two requests.
        std::thread::sleep(Duration::from_millis(400));
    }
    assert_eq!(server.spooled().len(), 4);
    let begun = Instant::now();
    assert_eq!(answer_of(stream).status, 0, "an idle connection is closed");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_slow_client_is_cut_off_wherever_it_dawdles() {
    let server = server(quick());
    let silent = server.connect();
    let mut dribbling = server.connect();
    let mut slow_body = server.connect();
    slow_body
        .write_all(b"POST /cmcd HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsid=")
        .unwrap();
    let begun = Instant::now();
    let dribble = std::thread::spawn(move || {
        for byte in b"POST /cmcd HTTP/1.1\r\nHost: x\r\nX-Padding: aaaaaaaaaaaaaaaaaaaaaaaa".iter() {
            if dribbling.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        begun.elapsed()
    });
    assert_eq!(answer_of(silent).status, 0);
    assert_eq!(answer_of(slow_body).status, 408);
    let dribbled = dribble.join().unwrap();
    assert!(dribbled < Duration::from_secs(2), "{dribbled:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(server.spooled(), [""; 0]);
    assert_eq!(server.cmcd(CMCD).status, 204);
}

#[test]
fn a_head_without_end_is_cut_off() {
    let server = server(ReceiverSettings::default());
    let mut stream = server.connect();
    stream.write_all(b"POST /cmcd HTTP/1.1\r\nHost: x\r\nX-Padding: ").unwrap();
    let begun = Instant::now();
    let padding = [b'a'; 1 << 10];
    let sent = (0..10_000).take_while(|_| stream.write_all(&padding).is_ok()).count();
    assert!(
        sent < 10_000 && begun.elapsed() < Duration::from_secs(4),
        "{sent} KiB in {:?}",
        begun.elapsed()
    );
}

#[test]
fn a_page_that_is_left_need_not_wait_for_the_answer() {
    let server = server(ReceiverSettings::default());
    for _ in 0..20 {
        let mut stream = server.connect();
        let request = format!("POST /cmcd HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{CMCD}", CMCD.len());
        stream.write_all(request.as_bytes()).unwrap();
    }
    let begun = Instant::now();
    while server.receiver.counts().accepted < 20 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", server.receiver.counts());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.spooled().len(), 20);
}

#[test]
fn past_the_most_connections_a_new_one_waits_for_a_place() {
    let server = server(ReceiverSettings {
        connections_max: 2,
        ..ReceiverSettings::default()
    });
    let (first, second) = (server.connect(), server.connect());
    std::thread::scope(|scope| {
        let third = scope.spawn(|| server.cmcd(CMCD).status);
        std::thread::sleep(Duration::from_millis(200));
        assert!(!third.is_finished());
        first.shutdown(Shutdown::Both).unwrap();
        assert_eq!(third.join().unwrap(), 204);
    });
    drop(second);
}

#[test]
fn a_request_in_hand_is_answered_before_the_receiver_stops() {
    let mut server = server(ReceiverSettings::default());
    let mut stream = server.connect();
    let idle = server.connect();
    let (first, rest) = CMCD.split_at(9);
    let head = format!("POST /cmcd HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{first}", CMCD.len());
    stream.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    server.stop.send(true).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(TcpStream::connect(server.address).is_err(), "no new connection is taken");
    stream.write_all(rest.as_bytes()).unwrap();
    assert_eq!(answer_of(stream).status, 204);
    let serving = server.serving.take().unwrap();
    let begun = Instant::now();
    server.runtime.block_on(serving).unwrap().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "a connection without a request has no say"
    );
    drop(idle);
    assert_eq!(server.spooled(), [CMCD]);
}

/// Every byte below a folder, file names included.
fn bytes_below(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| format!("{} {}", path.display(), String::from_utf8_lossy(&std::fs::read(&path).unwrap())))
        .collect()
}

#[test]
fn a_full_client_address_is_nowhere_on_disk_and_its_prefix_is() {
    let check = |address: &str, prefix: &str, secrets: &[&str]| {
        let server = server(ReceiverSettings {
            trusted_proxies: vec!["127.0.0.0/8".to_owned()],
            ..ReceiverSettings::default()
        });
        let headers = format!("X-Forwarded-For: {address}|User-Agent: Player/1.2 ({address})|Referer: http://{address}/");
        let cmcd = format!(r#"{CMCD},cid="{address}",com.example-ip="{address}""#);
        let event = EVENT.replace(
            "}",
            &format!(r#","ip":"{address}","note":"from {address} to {address}","{address}":1}}"#),
        );
        let broken = format!(r#"{{"user_id":"{address}"#);
        assert_eq!(server.send(&format!("POST /cmcd HTTP/1.1|{headers}"), cmcd.as_bytes()).status, 204);
        let head = format!("POST /cmcd?CMCD=sid%3D%22s%22%2Cbl%3D2100%2Ccid%3D%22{address}%22 HTTP/1.1|{headers}");
        assert_eq!(server.send(&head, b"").status, 204);
        let head = format!("POST /cmcd HTTP/1.1|CMCD-Session: sid=\"s\",bl=2100,cid=\"{address}\"|{headers}");
        assert_eq!(server.send(&head, b"").status, 204);
        assert_eq!(
            server.send(&format!("POST /v1/events HTTP/1.1|{headers}"), event.as_bytes()).status,
            204
        );
        let answer = server.send(&format!("POST /v1/events HTTP/1.1|{headers}"), broken.as_bytes());
        assert_eq!(answer.status, 400);
        let stored = bytes_below(server.folder.path());
        for secret in secrets.iter().chain([&address]) {
            assert!(!stored.contains(secret), "{secret} in {stored}");
            assert!(!answer.body.contains(secret), "{}", answer.body);
        }
        let prefixes: Vec<_> = server
            .unspooled()
            .into_iter()
            .filter_map(|line| match line {
                Unspooled::Event { event, .. } => Some(event.client_prefix),
                Unspooled::Refused(_) => None,
            })
            .collect();
        assert_eq!(prefixes, vec![Some(prefix.to_owned()); 4], "{address}");
    };
    check("203.0.113.77", "203.0.113.0", &["113.77"]);
    check("2001:db8:85a3:8d3:1319:8a2e:370:7348", "2001:db8:85a3::", &["8d3:1319", "7348"]);
    check("2001:DB8:85A3:8D3:1319:8A2E:370:7348", "2001:db8:85a3::", &["1319", "7348"]);
    check("::ffff:203.0.113.77", "203.0.113.0", &["113.77", "714d"]);
    check("::ffff:cb00:714d", "203.0.113.0", &["113.77", "714d"]);
}

#[test]
fn a_forwarded_address_of_a_stranger_is_not_believed() {
    let server = server(ReceiverSettings::default());
    server.send("POST /cmcd HTTP/1.1|X-Forwarded-For: 203.0.113.77", CMCD.as_bytes());
    let text = server.spool_text();
    assert!(
        text.contains(r#""client_prefix":"127.0.0.0""#) && !text.contains("203.0.113"),
        "{text}"
    );
}

#[test]
fn a_session_whose_clock_is_wrong_is_moved_as_a_whole_and_others_are_not() {
    let times = |server: &Server| -> Vec<i64> {
        let of = |line: Unspooled| match line {
            Unspooled::Event { event, .. } => event.event_ts_ms - NOW_MS,
            Unspooled::Refused(refused) => panic!("{refused:?}"),
        };
        server.unspooled().into_iter().map(of).collect()
    };
    let record = |session: &str, number: u32, behind_ms: i64| {
        let ts = NOW_MS - behind_ms;
        format!(r#"e=ps,sta=p,sid="{session}",sn={number},ts={ts},v=2"#)
    };
    let server_of = |correct_clocks: bool| {
        server(ReceiverSettings {
            correct_clocks,
            ..ReceiverSettings::default()
        })
    };
    let bodies = [
        [
            record("wrong", 1, 3_610_000),
            record("wrong", 2, 3_600_000),
            record("right", 1, 20_000),
        ]
        .join("\n"),
        [record("wrong", 3, 3_590_000), record("right", 2, 900_000)].join("\n"),
        r#"bl=2100,sid="wrong""#.to_owned(),
    ];
    let server = server_of(true);
    for body in &bodies {
        assert_eq!(server.cmcd(body).status, 204);
    }
    assert_eq!(times(&server), [-10_000, 0, -20_000, 10_000, -900_000, 0]);
    let server = server_of(false);
    assert_eq!(server.cmcd(&bodies[0]).status, 204);
    assert_eq!(times(&server), [-3_610_000, -3_600_000, -20_000]);
}

#[test]
fn the_user_agent_of_the_request_tells_the_device() {
    let server = server(ReceiverSettings::default());
    server.send(
        "POST /cmcd HTTP/1.1|User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X)",
        CMCD.as_bytes(),
    );
    server.send("POST /cmcd HTTP/1.1|User-Agent:  ", CMCD.as_bytes());
    let agents: Vec<Option<String>> = server
        .unspooled()
        .into_iter()
        .map(|line| match line {
            Unspooled::Event { event, .. } => event.user_agent,
            Unspooled::Refused(refused) => panic!("{refused:?}"),
        })
        .collect();
    assert_eq!(
        agents,
        [Some("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X)".to_owned()), None]
    );
}

#[test]
fn settings_that_cannot_be_used_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW_MS));
    let spool = Arc::new(Spool::open(folder.path(), SpoolLimits::default(), Arc::clone(&clock)).unwrap());
    let privacy = Arc::new(Privacy::new(IdentityPolicy::Pseudonym, [7; 32]));
    let settings = ReceiverSettings {
        trusted_proxies: vec!["10.0.0.0/99".to_owned()],
        ..ReceiverSettings::default()
    };
    let error = Receiver::new(settings, Arc::default(), privacy, clock, spool).err().unwrap();
    assert!(error.to_string().contains("http.trusted_proxies: \"10.0.0.0/99\""));
}
