//! `kill -9` again and again while events come in over HTTP, as files, over Kafka and
//! over Kinesis: nothing lost, nothing twice.
//!
//! `PLAYHEAD_KILLS=200 cargo test --locked kill_loop -- --nocapture` hits every moment 40 times; the
//! seed is printed and can be given as `PLAYHEAD_SEED`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::audience::Audience;
use crate::aws::{self, Stream};
use crate::daemon::{Daemon, OwnLog};
use crate::http_client::try_request;
use crate::kafka;
use crate::killing::{Feeder, Kills, kill_while_fed};
use crate::kinesis;
use crate::services;
use crate::support::Bench;

/// Kills where nobody asks for more: one a moment, and one again.
const USUAL_KILLS: usize = 6;
/// Events that a file or a batch of messages holds.
const LINES_A_FILE: usize = 20;
/// Events that a player's request holds: few, so that a kill finds some on their way.
const LINES_A_REQUEST: usize = 5;
/// One answer in so many is lost on its way back, and the request is sent again.
const LOST_ANSWERS: usize = 7;
/// Small epochs, so that there are many to die in. Old events stay: their times are simulated.
pub const SMALL_EPOCHS: &str = "\
ingest: {commit_every: 100ms, poll_every: 20ms, batch_records: 1000}
upkeep: {bronze_days: 0, silver_days: 0, gold_days: 0, rejects_days: 0}
";
/// A killed member of a group keeps its partitions until it is missed.
const SOON_MISSED: &str = "{session.timeout.ms: \"1200\", heartbeat.interval.ms: \"300\"}";
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
/// Pause of a sender or a mover that has to wait.
const PAUSE: Duration = Duration::from_millis(5);

/// Enough events for every kill, and a minute that closes for most of them.
fn audience(kills: Kills) -> Audience {
    let shares = u32::try_from(kills.shares()).expect("a few hundred");
    Audience::simulated_over(shares.max(20) * 2, shares.max(10) * 5, 11)
}

#[test]
fn kill_loop_over_http_players_repeat_what_was_not_answered_and_every_event_is_held_once() {
    let kills = Kills::from_environment(USUAL_KILLS);
    let audience = audience(kills);
    let bench = Bench::new();
    let players = Players::new(&audience.lines);
    let settings = format!("http: {{listen: '127.0.0.1:0', correct_clocks: false}}\n{SMALL_EPOCHS}");
    let start = |bench: &Bench, _: &Path| {
        let daemon = Daemon::start(bench, &settings);
        players.turn_to(Some(daemon.own_log()));
        daemon
    };
    std::thread::scope(|scope| {
        let _until_the_end = EndsWithTheTest(&players.is_over);
        scope.spawn(|| players.send());
        let (mut daemon, tally) = kill_while_fed(&bench, kills, &start, &players);
        daemon.wait_until("everything was answered", || players.answered() == audience.lines.len());
        audience.wait_until_held_once(&mut daemon, &bench);
        assert!(daemon.stop().success());
        tally.assert_complete(kills);
    });
    let came_twice = bench.int("SELECT coalesce(sum(duplicates), 0) FROM silver.duplicates");
    let broken = players.broken.load(Ordering::SeqCst);
    println!("{came_twice} events came twice; {broken} requests broke off with a killed daemon");
    assert!(came_twice > 0, "every request reached the lake once: the senders repeated nothing");
}

#[test]
fn kill_loop_over_files_that_are_moved_into_a_folder_every_event_is_held_once() {
    let kills = Kills::from_environment(USUAL_KILLS);
    let audience = audience(kills);
    let bench = Bench::new();
    let mover = Mover::new(&bench, &audience.lines);
    let settings = format!(
        "sources:\n  - name: files\n    path: {}\n{SMALL_EPOCHS}",
        bench.path("incoming").display()
    );
    let drip = Drip::of(mover.files.len());
    kill_over(&bench, kills, &audience, &settings, &drip, |number| mover.move_in(number));
}

/// Kills daemons while parts of the audience's input drip into what they read.
fn kill_over(bench: &Bench, kills: Kills, audience: &Audience, settings: &str, drip: &Drip, deliver: impl Fn(usize) + Send) {
    let start = |bench: &Bench, _: &Path| Daemon::start(bench, settings);
    std::thread::scope(|scope| {
        let _until_the_end = EndsWithTheTest(&drip.is_over);
        scope.spawn(|| drip.run(deliver));
        let (mut daemon, tally) = kill_while_fed(bench, kills, &start, drip);
        audience.wait_until_equal(&mut daemon, bench);
        assert!(daemon.stop().success());
        tally.assert_complete(kills);
    });
}

/// Numbered parts of the input, handed out one after the other as far as is allowed.
struct Drip {
    parts: usize,
    allowed: AtomicUsize,
    is_over: AtomicBool,
}

impl Drip {
    fn of(parts: usize) -> Drip {
        Drip {
            parts,
            allowed: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    fn run(&self, deliver: impl Fn(usize)) {
        for number in 0..self.parts {
            while number >= self.allowed.load(Ordering::SeqCst) {
                if self.is_over.load(Ordering::SeqCst) {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
            deliver(number);
            std::thread::sleep(PAUSE);
        }
    }
}

impl Feeder for Drip {
    fn give(&self, upto: usize, of: usize) {
        self.allowed.store((self.parts * upto).div_ceil(of), Ordering::SeqCst);
    }
}

#[test]
fn kill_loop_over_kafka_every_event_of_three_partitions_is_held_once() {
    let Some(broker) = services::start("kafka") else { return };
    let kills = Kills::from_environment(USUAL_KILLS);
    let audience = audience(kills);
    broker.create_topic(kafka::TOPIC, kafka::PARTITIONS, &[]);
    let batches: Vec<&[String]> = audience.lines.chunks(LINES_A_FILE).collect();
    let source = kafka::source(&broker, "[beacons]", "g");
    let settings = format!("{source}      properties: {SOON_MISSED}\n{SMALL_EPOCHS}");
    kill_over(&Bench::new(), kills, &audience, &settings, &Drip::of(batches.len()), |number| {
        kafka::send(&broker, kafka::TOPIC, batches[number], kafka::PARTITIONS);
    });
}

#[test]
fn kill_loop_over_kinesis_every_event_of_two_shards_is_held_once() {
    let Some(service) = services::start("kinesalite") else { return };
    let kills = Kills::from_environment(USUAL_KILLS);
    let audience = audience(kills);
    let stream = Stream::create(&service, kinesis::STREAM, kinesis::SHARDS);
    let batches: Vec<&[String]> = audience.lines.chunks(LINES_A_FILE).collect();
    let settings = format!("{}{SMALL_EPOCHS}", kinesis::source(&service));
    kill_over(&aws::bench(), kills, &audience, &settings, &Drip::of(batches.len()), |number| {
        stream.send(batches[number]);
    });
}

/// A thread of a test that fails must end too.
struct EndsWithTheTest<'a>(&'a AtomicBool);

impl Drop for EndsWithTheTest<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

// ---- over HTTP ----

/// Players behind one sender: each request is repeated until it is answered with success.
struct Players<'a> {
    lines: &'a [String],
    allowed: AtomicUsize,
    answered: AtomicUsize,
    broken: AtomicUsize,
    /// What the daemon of now writes; `None`: there is none, or it is about to die.
    log: Mutex<Option<OwnLog>>,
    is_over: AtomicBool,
}

impl<'a> Players<'a> {
    fn new(lines: &'a [String]) -> Players<'a> {
        Players {
            lines,
            allowed: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            log: Mutex::new(None),
            is_over: AtomicBool::new(false),
        }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Where the daemon of now listens.
    fn door(&self) -> Option<SocketAddr> {
        self.log.lock().expect("no holder panics").as_ref()?.address()
    }

    fn turn_to(&self, log: Option<OwnLog>) {
        *self.log.lock().expect("no holder panics") = log;
    }

    fn send(&self) {
        let mut sent = 0;
        while !self.is_over.load(Ordering::SeqCst) && self.answered() < self.lines.len() {
            let from = self.answered();
            let to = self.allowed.load(Ordering::SeqCst).min(from + LINES_A_REQUEST);
            let (Some(address), true) = (self.door(), from < to) else {
                std::thread::sleep(PAUSE);
                continue;
            };
            std::thread::sleep(PAUSE);
            let body = self.lines[from..to].join("\n");
            sent += 1;
            match try_request(address, "POST", "/v1/events", &[NDJSON], body.as_bytes()) {
                Some(answer) if answer.status == 204 && sent % LOST_ANSWERS == 0 => {}
                Some(answer) if answer.status == 204 => self.answered.store(to, Ordering::SeqCst),
                // A daemon that is stopping may say so; anything else is wrong.
                Some(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                None => {
                    self.broken.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

impl Feeder for Players<'_> {
    fn give(&self, upto: usize, of: usize) {
        self.allowed.store(self.lines.len() * upto / of, Ordering::SeqCst);
    }

    fn hold(&self) {
        self.turn_to(None);
    }
}

// ---- as files ----

/// Somebody who writes files elsewhere and moves each into the folder when it is complete.
struct Mover<'a> {
    bench: &'a Bench,
    files: Vec<&'a [String]>,
}

impl<'a> Mover<'a> {
    fn new(bench: &'a Bench, lines: &'a [String]) -> Mover<'a> {
        std::fs::create_dir(bench.path("incoming")).expect("a folder can be made");
        Mover {
            bench,
            files: lines.chunks(LINES_A_FILE).collect(),
        }
    }

    /// Every third one is packed.
    fn move_in(&self, number: usize) {
        let plain = format!("part-{number:05}.ndjson");
        let text = self.files[number].join("\n");
        let (name, bytes) = match number % 3 {
            0 => (format!("{plain}.gz"), packed(&text)),
            _ => (plain, format!("{text}\n").into_bytes()),
        };
        let elsewhere = self.bench.write(&format!("elsewhere/{name}"), bytes);
        std::fs::rename(elsewhere, self.bench.path("incoming").join(name)).expect("a file can be moved");
    }
}

fn packed(text: &str) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(text.as_bytes()).expect("it packs");
    packer.finish().expect("it packs")
}
