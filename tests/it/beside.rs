//! Readers and ingest on the same cores: how much each slows the other.
//!
//! The figures are printed and not judged, for they belong to a machine; that every question is answered and every
//! event counted is judged. A client asks one panel after another, each `ASK_EVERY`.
//! `PLAYHEAD_BESIDE=2000000 cargo test --release --locked beside -- --nocapture` takes two million events and
//! fifty clients, then two clients whose queries would never end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::audience::received;
use crate::backlog::{carried, events, peak_mib, wait_until_carried};
use crate::daemon::{Daemon, OwnLog};
use crate::postgres::{connect, runtime, told, wait_for_address};
use crate::support::Bench;

/// Where nobody asks for more.
const USUAL: Size = Size { events: 4_000, clients: 5 };
const CLIENTS: usize = 50;
/// A screen of twenty panels that is renewed each 20 s.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Asked without ingest beside, for comparison.
const ALONE: Duration = Duration::from_secs(15);

/// What stands on a screen: a line, a table and two tiles over an hour.
const PANELS: [&str; 4] = [
    "SELECT window_start, isp, CAST(sum(stall_ms) AS DOUBLE) / nullif(sum(playing_ms) + sum(stall_ms), 0) \
     FROM gold.playback_1m WHERE window_start >= (SELECT max(window_start) FROM gold.playback_1m) - INTERVAL '1 hour' GROUP BY 1, 2 ORDER BY 1",
    "SELECT app_version, device_type, sum(attempts), sum(fatal_errors) \
     FROM gold.playback_1m WHERE window_start >= (SELECT max(window_start) FROM gold.playback_1m) - INTERVAL '1 hour' GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 20",
    "SELECT sum(attempts) FROM gold.playback_1m WHERE window_start >= (SELECT max(window_start) FROM gold.playback_1m) - INTERVAL '1 hour'",
    "SELECT window_start, sum(attempts) FROM gold.playback_1m GROUP BY 1 ORDER BY 1",
];

/// What nobody should ask: rows of all rows with all rows.
const ENDLESS: [&str; 2] = [
    "SELECT count(*) FROM silver.player_events AS a CROSS JOIN silver.player_events AS b CROSS JOIN silver.player_events AS c \
     WHERE a.session_key < b.session_key AND b.session_key < c.session_key",
    "SELECT a.session_key, b.event_id FROM silver.player_events AS a CROSS JOIN silver.player_events AS b ORDER BY 1, 2",
];
/// Of them a query is stopped by its time (57014), its memory (53200), its share of the disk (53100) or its rows (54000).
const STOPPED: [&str; 4] = ["57014", "53200", "53100", "54000"];
/// So long may each of them try: the next comes right after.
const PATIENCE: &str = "SET statement_timeout = '5s'";

/// Who asks, beside ingest.
#[derive(Clone, Copy)]
struct Crowd {
    clients: usize,
    asks: &'static [&'static str],
    /// Codes that an answer may end with instead.
    stopped: &'static [&'static str],
}

const NOBODY: Crowd = Crowd {
    clients: 0,
    asks: &PANELS,
    stopped: &[],
};
const RUTHLESS: Crowd = Crowd {
    clients: 2,
    asks: &ENDLESS,
    stopped: &STOPPED,
};

struct Size {
    events: usize,
    clients: usize,
}

#[allow(clippy::disallowed_methods)] // Tests have no settings; the variable is documented above.
fn size() -> Size {
    match std::env::var("PLAYHEAD_BESIDE") {
        Ok(events) => Size {
            events: events.parse().expect("a whole number"),
            clients: CLIENTS,
        },
        Err(_) => USUAL,
    }
}

/// A daemon that finds all events in a folder, with or without people who ask.
struct Run {
    seconds: f64,
    peak_mib: u64,
    /// How long each question took while there was something to take in, ms.
    beside_ms: Vec<f64>,
    /// The same once all was taken in.
    alone_ms: Vec<f64>,
}

#[test]
fn readers_beside_ingest_get_answers_and_lose_nothing() {
    let size = size();
    let lines = events(size.events);
    let crowd = Crowd {
        clients: size.clients,
        ..NOBODY
    };
    let asked = compare(&lines, crowd);
    println!("beside ingest {}", told_of(asked.beside_ms));
    println!("without it    {}", told_of(asked.alone_ms));
}

#[test]
fn queries_without_an_end_are_stopped_and_ingest_goes_on() {
    let asked = compare(&events(size().events), RUTHLESS);
    println!("beside ingest {}", told_of(asked.beside_ms));
}

/// Ingest by itself, and beside a crowd; gives the second.
fn compare(lines: &[String], crowd: Crowd) -> Run {
    let (quiet, asked) = (run(lines, NOBODY), run(lines, crowd));
    let speed = |run: &Run| lines.len() as f64 / run.seconds;
    println!(
        "{} events: {:.0} a second and {} MiB without readers, {:.0} and {} MiB with {} clients ({:+.0} %)",
        lines.len(),
        speed(&quiet),
        quiet.peak_mib,
        speed(&asked),
        asked.peak_mib,
        crowd.clients,
        100.0 * (speed(&asked) / speed(&quiet) - 1.0)
    );
    asked
}

fn told_of(mut took_ms: Vec<f64>) -> String {
    took_ms.sort_by(f64::total_cmp);
    let at = |share: f64| took_ms[((took_ms.len() - 1) as f64 * share) as usize];
    format!(
        "{} questions: {:.0} ms at the median, {:.0} ms at p95, {:.0} ms at p99",
        took_ms.len(),
        at(0.5),
        at(0.95),
        at(0.99)
    )
}

fn run(lines: &[String], crowd: Crowd) -> Run {
    let bench = Bench::new();
    let incoming = bench.path("incoming");
    std::fs::create_dir_all(&incoming).expect("a folder can be made");
    let settings = format!(
        "sources: [{{path: '{}'}}]\npostgres: {{listen: '127.0.0.1:0', connections: {}}}\n\
         upkeep: {{bronze_days: 0, silver_days: 0, gold_days: 0, rejects_days: 0}}\n",
        incoming.display(),
        crowd.clients.max(1)
    );
    let mut daemon = Daemon::start(&bench, &settings);
    let log = daemon.own_log();
    let readers = Readers::start(&mut daemon, &log, crowd);
    let written = bench.path("player.new");
    std::fs::write(&written, lines.join("\n") + "\n").expect("it can be written");
    std::fs::rename(written, incoming.join("player.ndjson")).expect("it can be put in place");
    let began = Instant::now();
    wait_until_carried(&mut daemon, &log, lines.len());
    let (seconds, peak_mib) = (began.elapsed().as_secs_f64(), peak_mib(&daemon));
    assert_eq!(carried(&log), lines.len());
    let (beside_ms, alone_ms) = readers.end();
    assert_eq!(received(&bench), lines.len());
    assert!(daemon.stop().success());
    Run {
        seconds,
        peak_mib,
        beside_ms,
        alone_ms,
    }
}

/// Clients that ask until they are told to end.
struct Readers {
    runtime: tokio::runtime::Runtime,
    clients: Vec<tokio::task::JoinHandle<Vec<(Instant, f64)>>>,
    is_over: Arc<AtomicBool>,
}

impl Readers {
    fn start(daemon: &mut Daemon, log: &OwnLog, crowd: Crowd) -> Readers {
        daemon.wait_until("SQL is answered", || log.text().contains(crate::postgres::ANSWERING));
        let address = wait_for_address(|| log.text(), || false);
        let (runtime, is_over) = (runtime(), Arc::new(AtomicBool::new(false)));
        let clients = (0..crowd.clients)
            .map(|number| runtime.spawn(client(address.clone(), crowd, number, Arc::clone(&is_over))))
            .collect();
        Readers { runtime, clients, is_over }
    }

    /// What the questions took before now, and what they take from now on.
    fn end(self) -> (Vec<f64>, Vec<f64>) {
        let now = Instant::now();
        if !self.clients.is_empty() {
            std::thread::sleep(ALONE);
        }
        self.is_over.store(true, Ordering::Relaxed);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for client in self.clients {
            for (asked, took_ms) in self.runtime.block_on(client).expect("every question was answered") {
                if asked < now { before.push(took_ms) } else { after.push(took_ms) }
            }
        }
        (before, after)
    }
}

/// One client, `number` of them all: they do not ask at the same instant.
async fn client(address: String, crowd: Crowd, number: usize, is_over: Arc<AtomicBool>) -> Vec<(Instant, f64)> {
    let client = connect(&address, "user=anybody").await.expect("there is a place");
    if !crowd.stopped.is_empty() {
        client.simple_query(PATIENCE).await.expect("it may be shortened");
    }
    tokio::time::sleep(ASK_EVERY.mul_f64((number % CLIENTS) as f64 / CLIENTS as f64)).await;
    let mut asked = Vec::new();
    for panel in crowd.asks.iter().cycle().skip(number) {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        if let Err(error) = client.simple_query(panel).await {
            let is_meant = error.code().is_some_and(|code| crowd.stopped.contains(&code.code()));
            assert!(is_meant, "{panel}: {}", told(&error));
        }
        asked.push((began, began.elapsed().as_secs_f64() * 1_000.0));
        tokio::time::sleep(ASK_EVERY.saturating_sub(began.elapsed())).await;
    }
    asked
}
