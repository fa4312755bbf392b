//! `playhead run` while the machine fails under it: a full disk, a lake that cannot be written, a clock
//! that jumps, a flood, a request to stop in the middle of everything. What was answered with success
//! is in the lake afterwards, once.
//!
//! The disk tests mount, so they want root; the clock test wants libfaketime. Without, each says so.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::audience::{Audience, wait_for};
use crate::daemon::Daemon;
use crate::http_client::{Answer, request, try_request};
use crate::services;
use crate::support::{Bench, KEY};

/// Simulated times are old: no clock is corrected by them, and no day of theirs is dropped.
const SETTINGS: &str = "\
http: {listen: '127.0.0.1:0', correct_clocks: false}
ingest: {commit_every: 200ms, poll_every: 50ms}
upkeep: {bronze_days: 0, silver_days: 0, gold_days: 0, rejects_days: 0}
";
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const LINES_A_REQUEST: usize = 20;
const DAY_MS: i64 = 86_400_000;
/// Longest time between SIGTERM and the end, of a debug binary on a busy machine. The unit file gives 120 s.
const STOP_BOUND: Duration = Duration::from_secs(30);

#[test]
fn a_full_disk_is_told_of_and_what_was_answered_is_in_the_lake_once_there_is_room_again() {
    /// A few requests go into the spool, and what a commit writes does not fit beside them.
    const ROOM_BYTES: u64 = 64 << 10;
    let bench = Bench::new();
    let Some(_disk) = Mount::tmpfs(&bench.lake(), "48m") else { return };
    std::fs::write(bench.lake().join("playhead.key"), KEY).expect("the disk is empty");
    let audience = Audience::simulated(40, 3);
    let mut daemon = Daemon::start(&bench, SETTINGS);
    let address = daemon.address();
    assert_eq!(post_all(address, audience.share(0, 3)), audience.first(1, 3), "there is room");
    wait_for(&mut daemon, &bench, audience.first(1, 3));

    fill_but_for(&bench.path("lake/ballast"), ROOM_BYTES);
    // What a player is not answered, it keeps.
    let spooled = post_all(address, audience.share(1, 3));
    assert!(0 < spooled && spooled < audience.share(1, 3).len(), "{spooled} lines found room");
    let answered = audience.first(1, 3) + spooled;
    let log = daemon.own_log();
    daemon.wait_until("players are refused, and what they were answered cannot be committed", || {
        let (is_ready, told) = ready(address);
        log.text().contains("events are refused") && !is_ready && told.contains("\"spool\"")
    });
    let told = ready(address).1;
    println!("{told}");
    assert!(told.contains("No space left on device"), "the reason is the system's: {told}");
    assert_eq!(get(address, "/healthz").status, 200, "a restart would make no room");

    std::fs::remove_file(bench.path("lake/ballast")).expect("there is a ballast");
    daemon.wait_until("it is ready again", || ready(address).0);
    let rest = &audience.lines[answered..];
    daemon.wait_until("the rest is taken", || post_all(address, &rest[..1]) == 1);
    assert_eq!(post_all(address, &rest[1..]), rest.len() - 1);
    audience.wait_until_held_once(&mut daemon, &bench);
    assert!(daemon.stop().success());
}

#[test]
fn a_lake_that_becomes_read_only_makes_the_daemon_unready_and_loses_nothing() {
    let bench = Bench::new();
    let audience = Audience::simulated(40, 4);
    let mut daemon = Daemon::start(&bench, SETTINGS);
    let address = daemon.address();
    assert_eq!(post_all(address, audience.share(0, 3)), audience.first(1, 3));
    wait_for(&mut daemon, &bench, audience.first(1, 3));

    let Some(bronze) = Mount::read_only(&bench.path("lake/bronze")) else {
        return;
    };
    let second = audience.share(1, 3);
    assert_eq!(post_all(address, second), second.len(), "the spool can be written");
    daemon.wait_until("it is not ready", || !ready(address).0);
    let told = ready(address).1;
    assert!(told.contains("Read-only file system"), "the reason is the system's: {told}");
    assert_eq!(get(address, "/healthz").status, 200, "a restart would cure nothing");
    let rows = bench.int("SELECT count(*) FROM bronze.player_events");
    assert_eq!(rows, to_i64(audience.first(1, 3)), "it can be read all the while");
    drop(bronze);

    daemon.wait_until("it is ready again", || ready(address).0);
    let third = audience.share(2, 3);
    assert_eq!(post_all(address, third), third.len());
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
}

#[test]
fn a_lake_that_is_read_only_from_the_start_is_refused_with_its_reason_and_taken_up_later() {
    let bench = Bench::new();
    let audience = Audience::simulated(20, 5);
    let mut daemon = Daemon::start(&bench, SETTINGS);
    let address = daemon.address();
    assert_eq!(post_all(address, &audience.lines), audience.lines.len());
    daemon.kill();

    let Some(lake) = Mount::read_only(&bench.lake()) else { return };
    let mut daemon = Daemon::start(&bench, SETTINGS);
    let status = daemon.wait_for_end();
    let log = daemon.own_log().text();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("Read-only file system"), "{log}");
    assert!(log.contains(&bench.lake().display().to_string()), "the error says where: {log}");
    assert!(!log.contains("panicked"), "{log}");
    drop(lake);

    let mut daemon = Daemon::start(&bench, SETTINGS);
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
}

#[test]
fn a_clock_that_jumps_a_day_ahead_and_back_costs_no_window_and_times_far_ahead_move_nothing() {
    if !services::is_available("faketime") {
        return;
    }
    let mut bench = Bench::new();
    let clock = Clock::of(&mut bench);
    let audience = Audience::simulated(40, 6);
    let mut daemon = Daemon::start(&bench, SETTINGS);
    let address = daemon.address();
    let jumps = ["+0", "+1d", "+0", "-1d", "+0"];
    for (index, jump) in jumps.into_iter().enumerate() {
        clock.set(jump);
        let share = audience.share(index, jumps.len());
        assert_eq!(post_all(address, share), share.len(), "the clock stands at {jump}");
        wait_for(&mut daemon, &bench, audience.first(index + 1, jumps.len()));
        assert!(ready(address).0, "a clock is no failure");
    }
    audience.wait_until_equal(&mut daemon, &bench);

    let before = watermark_s(address).expect("events were read");
    let far = now_ms() + DAY_MS + 3_600_000;
    let event = format!("{{\"event\":\"init\",\"sessionId\":\"far\",\"timestamp\":{far},\"playhead\":-1,\"duration\":-1}}");
    let answer = post(address, event.as_bytes()).expect("it listens");
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("event_time_out_of_range"), "{answer:?}");
    daemon.wait_until("the refusal is in the lake", || {
        bench.int("SELECT count(*) FROM silver.rejects WHERE reason = 'event_time_out_of_range'") == 1
    });
    assert_eq!(watermark_s(address), Some(before), "what was refused says nothing of progress");
    assert!(daemon.stop().success());
}

#[test]
fn a_flood_is_met_with_429_in_bounded_memory_and_all_that_was_answered_is_in_the_lake() {
    const FLOOD: &str = "
http: {listen: '127.0.0.1:0', memory: 16MiB, spool: 4MiB, connections: 64}
ingest: {commit_every: 500ms, poll_every: 50ms}
";
    const SENDERS: usize = 12;
    const LASTS: Duration = Duration::from_secs(8);
    let bench = Bench::new();
    let mut daemon = Daemon::start(&bench, FLOOD);
    let address = daemon.address();
    let flood = Flood::default();
    let pid = daemon.pid();
    let resident = std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let flood = &flood;
            scope.spawn(move || flood.send(address, sender));
        }
        let samples = sample_resident(pid, LASTS);
        flood.is_over.store(true, Ordering::SeqCst);
        samples
    });
    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    let (taken, refused) = (count(&flood.taken), count(&flood.refused));
    let (first, second) = resident.split_at(resident.len() / 2);
    let [first, second] = [first, second].map(|half| half.iter().max().copied().unwrap_or(0) >> 10);
    println!("{taken} records taken, {refused} requests refused; resident at most {first} MiB, then {second} MiB");
    assert!(refused > 20, "that was no flood: {refused} refusals");
    assert!(taken > 1_000, "that was no service: {taken} records");
    assert!(second < first + first / 4 + 16, "memory grows: {first} MiB, then {second} MiB");

    daemon.wait_until("senders are taken again", || flood.post(address, "after", 0).status == 204);
    let expected = to_i64(count(&flood.taken));
    daemon.wait_until("everything that was answered is in the lake", || {
        bench.int("SELECT count(*) FROM silver.player_events") >= expected
    });
    let rows = &bench
        .sql("SELECT count(*) AS n, count(DISTINCT session_id || '/' || CAST(seq AS VARCHAR)) AS different FROM silver.player_events")[0];
    assert_eq!((rows["n"].as_i64(), rows["different"].as_i64()), (Some(expected), Some(expected)));
    assert!(daemon.stop().success());
}

#[test]
fn a_request_to_stop_in_the_middle_of_work_is_met_in_time_and_loses_nothing() {
    let bench = Bench::new();
    let audience = Audience::simulated(60, 7);
    let (backlog, posted) = audience.lines.split_at(audience.first(2, 3));
    for (number, lines) in backlog.chunks(100).enumerate() {
        bench.write(&format!("incoming/part-{number:03}.ndjson"), lines.join("\n") + "\n");
    }
    let settings = SETTINGS.replace("poll_every: 50ms", "poll_every: 50ms, batch_records: 100");
    let halves = posted.split_at(posted.len() / 2);
    for (round, lines) in [halves.0, halves.1].into_iter().enumerate() {
        let mut daemon = Daemon::start(&bench, &settings);
        let address = daemon.address();
        let log = daemon.own_log();
        daemon.wait_until("it is in the middle of the backlog", || log.text().contains("epoch committed"));
        assert_eq!(post_all(address, lines), lines.len());
        // The second time, a player has begun to say something and does not go on.
        let _stalled = (round == 1).then(|| stalled(address));
        let asked = Instant::now();
        let status = daemon.stop();
        println!("stop {}: {:.1} s", round + 1, asked.elapsed().as_secs_f64());
        assert_eq!(status.code(), Some(0), "{}", log.text());
        assert!(asked.elapsed() < STOP_BOUND, "{:?}", asked.elapsed());
        assert!(log.text().contains("stopped in order"), "{}", log.text());
    }
    let mut daemon = Daemon::start(&bench, &settings);
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
}

#[test]
fn after_a_kill_with_everything_committed_the_next_daemon_goes_on_closing_windows() {
    let bench = Bench::new();
    let audience = Audience::simulated(40, 8);
    let mut daemon = Daemon::start(&bench, SETTINGS);
    let address = daemon.address();
    assert_eq!(post_all(address, audience.share(0, 2)), audience.first(1, 2));
    wait_for(&mut daemon, &bench, audience.first(1, 2));
    daemon.kill();

    // The spool's segment has been committed whole: there is nothing to read in it, and it is removed.
    let mut daemon = Daemon::start(&bench, SETTINGS);
    let address = daemon.address();
    let second = audience.share(1, 2);
    assert_eq!(post_all(address, second), second.len());
    audience.wait_until_equal(&mut daemon, &bench);
    assert!(daemon.stop().success());
}

// ---- requests ----

/// Posts lines in their order until one request is not answered with success; how many were.
fn post_all(address: SocketAddr, lines: &[String]) -> usize {
    let mut answered = 0;
    for some in lines.chunks(LINES_A_REQUEST) {
        match post(address, some.join("\n").as_bytes()) {
            Some(answer) if answer.status == 204 => answered += some.len(),
            Some(answer) => {
                assert_eq!(answer.status, 503, "{answer:?}");
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                break;
            }
            None => break,
        }
    }
    answered
}

fn post(address: SocketAddr, body: &[u8]) -> Option<Answer> {
    try_request(address, "POST", "/v1/events", &[NDJSON], body)
}

#[track_caller]
fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, &[], b"")
}

/// A request whose body never ends.
fn stalled(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let beginning = b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(beginning).expect("it is taken");
    stream
}

/// Whether it says that it is ready, and all that it says.
#[track_caller]
fn ready(address: SocketAddr) -> (bool, String) {
    let answer = get(address, "/readyz");
    (answer.status == 200, answer.body)
}

fn watermark_s(address: SocketAddr) -> Option<String> {
    let metrics = get(address, "/metrics").body;
    let mut values = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("playhead_watermark_timestamp_seconds "));
    values.next().map(str::to_string)
}

/// Many senders that heed nothing.
#[derive(Default)]
struct Flood {
    is_over: AtomicBool,
    /// Records that were answered with success.
    taken: AtomicUsize,
    /// Requests that were answered with 429.
    refused: AtomicUsize,
}

impl Flood {
    const RECORDS_A_REQUEST: usize = 100;

    fn send(&self, address: SocketAddr, sender: usize) {
        for number in 0.. {
            if self.is_over.load(Ordering::SeqCst) {
                break;
            }
            self.post(address, &format!("flood-{sender}"), number);
        }
    }

    fn post(&self, address: SocketAddr, session: &str, number: usize) -> Answer {
        let (now, filler) = (now_ms(), "x".repeat(1_000));
        let first = number * Flood::RECORDS_A_REQUEST;
        let line = |seq: usize| format!("e=t,sta=p,sid=\"{session}\",sn={seq},ts={now},v=2,com.example-x=\"{filler}\"\n");
        let body: String = (first..first + Flood::RECORDS_A_REQUEST).map(line).collect();
        let cmcd = ("content-type", "application/cmcd");
        let answer = request(address, "POST", "/cmcd", &[cmcd], body.as_bytes());
        match answer.status {
            204 => self.taken.fetch_add(Flood::RECORDS_A_REQUEST, Ordering::SeqCst),
            _ => {
                assert_eq!(answer.status, 429, "{answer:?}");
                let seconds = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok());
                assert!(seconds.is_some_and(|seconds| (1..=300).contains(&seconds)), "{answer:?}");
                self.refused.fetch_add(1, Ordering::SeqCst)
            }
        };
        answer
    }
}

/// KiB of memory that the process holds, again and again for so long.
fn sample_resident(pid: u32, during: Duration) -> Vec<u64> {
    let until = Instant::now() + during;
    let mut samples = Vec::new();
    while Instant::now() < until {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon lives");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = resident.and_then(|text| text.split_whitespace().next()?.parse().ok());
        samples.push(number.expect("the kernel tells"));
        std::thread::sleep(Duration::from_millis(50));
    }
    samples
}

// ---- disks ----

/// A mount that goes with the test.
struct Mount(PathBuf);

impl Mount {
    /// A disk of this size; `None`, with a line that says why: nothing can be mounted here.
    fn tmpfs(at: &Path, size: &str) -> Option<Mount> {
        let size = format!("size={size}");
        Mount::of(at, &["-t", "tmpfs", "-o", &size, "tmpfs"])
    }

    /// The folder itself, which cannot be written any more until this is dropped.
    fn read_only(folder: &Path) -> Option<Mount> {
        let itself = folder.to_str().expect("a temporary folder has a plain name");
        let mount = Mount::of(folder, &["--bind", itself])?;
        let done = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(folder).status();
        assert!(done.is_ok_and(|status| status.success()), "{itself} cannot be made read-only");
        Some(mount)
    }

    fn of(at: &Path, options: &[&str]) -> Option<Mount> {
        match Command::new("mount").args(options).arg(at).output() {
            Ok(output) if output.status.success() => Some(Mount(at.to_path_buf())),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                println!("skipped: nothing can be mounted ({}); run the test as root", why.trim());
                None
            }
            Err(error) => {
                println!("skipped: there is no mount ({error}); run the test on Linux, as root");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: after a failed test a daemon may still have it open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes a file until the disk is full, and makes it so much shorter.
fn fill_but_for(path: &Path, room_bytes: u64) {
    let mut file = std::fs::File::create(path).expect("there is room for a name");
    let mut piece = vec![0; 64 << 10];
    loop {
        match file.write(&piece) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull && piece.len() > 1 => piece.truncate(piece.len() / 2),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                break;
            }
        }
    }
    let size = file.metadata().expect("an open file has a size").len();
    file.set_len(size - room_bytes).expect("a file can be made shorter");
}

// ---- time ----

/// The clock of every process of a bench.
struct Clock(PathBuf);

impl Clock {
    fn of(bench: &mut Bench) -> Clock {
        let clock = Clock(bench.write("clock", "+0"));
        bench.set_variable("LD_PRELOAD", &services::path("faketime"));
        bench.set_variable("FAKETIME_TIMESTAMP_FILE", clock.0.to_str().expect("a plain name"));
        bench.set_variable("FAKETIME_NO_CACHE", "1");
        // How long something takes is no time of day.
        bench.set_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        clock
    }

    /// `+1d` is a day ahead of the machine's, `+0` is as the machine's.
    fn set(&self, offset: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, offset).expect("a file can be written");
        std::fs::rename(new, &self.0).expect("a file can be renamed");
    }
}

#[allow(clippy::disallowed_methods)] // A player has a clock; there is none to pass in.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_millis()).expect("milliseconds fit")
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).expect("a small count")
}
