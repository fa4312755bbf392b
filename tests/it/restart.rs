//! Killed at any moment and started again: nothing lost, nothing twice.
//!
//! Two ways to die. `kill -9` at random moments of a real process, spread over the whole ingest by
//! counting its commits; and the lake cut off before a commit, which is what a death between two
//! commits leaves, for every table.
//!
//! The long form, 200,000 player events, prints where each kill fell:
//! `PLAYHEAD_KILL_EVENTS=200000 cargo test --locked kill -- --nocapture`
//! `PLAYHEAD_KILL_SEED` draws the same moments again; every run prints its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::{Bench, contents, simulate};

const KILLS: usize = 20;
/// Every fifth kill falls into the start of a process: opening, recovery, reading ahead.
const START_UP_KILLS: usize = 5;
/// Player events that `simulate` makes of a session, on average.
const EVENTS_PER_SESSION: u64 = 25;
/// With `BATCHES` about 30 epochs of 400 records, so that kills fall between epochs and between the
/// commits of one.
const EVENTS: u64 = 6_000;
const BATCHES: u64 = 15;
/// For lakes that are cut: enough that every table has more than two commits with rows.
const SMALL_EVENTS: u64 = 1_000;
const SMALL_BATCHES: u64 = 5;
/// The seed of a run that names none: fixed, so that a red build is red again.
const SEED: u64 = 20_260_101;
/// No step of these tests takes as long, even in the long form on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// Rules that fire on a small audience, so that alert state is at stake too.
const RULES: &str = "
version: 1
targets: {console: {stdout: {}}}
groups:
  - name: small
    interval: watermark
    rules:
      - alert: StallShare
        uid: stall-share
        owner: team-test
        from: gold.playback_1m
        value: {ratio: {num: stall_ms, den: stall_ms + playing_ms}}
        samples: active_sessions
        window: 5m
        group_by: [isp]
        min_samples: 5
        condition: {test: value, op: '>', threshold: 1%}
        for: 1m
        severity: warning
        notify: {targets: [console]}
      - alert: CdnErrors
        uid: cdn-first-byte
        owner: team-test
        from: gold.cdn_1m
        value: {mean: {sum: ttfb_ms_sum, count: ttfb_count}}
        window: 5m
        group_by: [pop]
        min_samples: 5
        condition: {test: value, op: '>', threshold: 40}
        severity: warning
        notify: {targets: [console]}
";

#[test]
fn kill_minus_nine_at_twenty_moments_leaves_the_tables_of_an_undisturbed_run() {
    let seed = number_from_environment("PLAYHEAD_KILL_SEED").unwrap_or(SEED);
    let events = number_from_environment("PLAYHEAD_KILL_EVENTS").unwrap_or(EVENTS);
    println!("seed {seed}, {events} player events; PLAYHEAD_KILL_SEED={seed} draws these moments again");
    let input = Input::simulated(events, seed, BATCHES);
    let undisturbed = Bench::new();
    let started = Instant::now();
    input.ingest_to_the_end(&undisturbed);
    let commits = commit_files(&undisturbed).len();
    let pace = started.elapsed() / u32::try_from(commits).unwrap_or(1);
    println!("undisturbed: {commits} commits in {:.1} s", started.elapsed().as_secs_f64());

    let killed = Bench::new();
    for (number, moment) in moments(&mut Dice(seed), commits).into_iter().enumerate() {
        let mut child = input.start(&killed);
        wait_for(&killed, &mut child, moment, pace);
        let ended_by_itself = child.try_wait().expect("a child can be asked").is_some();
        assert!(
            !ended_by_itself,
            "the process ended before kill {}: {moment:?} of {commits} commits",
            number + 1
        );
        child.kill().expect("a child can be killed");
        let status = child.wait().expect("a child can be waited for");
        assert_eq!(status.signal(), Some(9));
        println!("kill {} of {KILLS}: {moment:?}; {}", number + 1, newest_commit(&killed));
    }
    input.ingest_to_the_end(&killed);

    assert_same(&everything(&undisturbed), &everything(&killed));
    for table in ["bronze.player_events", "bronze.cdn_logs"] {
        let totals = totals(&killed, table);
        assert_eq!(totals, self::totals(&undisturbed, table), "{table}");
        let count = |name: &str| totals[name].as_i64().expect("a total is a number");
        assert_eq!(
            count("received"),
            count("stored") + count("duplicates") + count("rejected"),
            "{table}"
        );
        assert_eq!(count("stored"), killed.int(&format!("SELECT count(*) FROM {table}")), "{table}");
        assert!(
            count("duplicates") > 0 && count("rejected") > 0,
            "{table}: the input plants both: {totals}"
        );
    }
}

#[test]
fn death_before_a_commit_of_bronze_or_silver_events_is_made_good() {
    check_deaths_before(&[
        ("bronze.player_events", 2),
        ("bronze.cdn_logs", 2),
        ("silver.rejects", 2),
        ("silver.player_events", 2),
        ("silver.cdn_requests", 2),
    ]);
}

#[test]
fn death_before_a_commit_of_session_facts_is_made_good() {
    // The newest is the one that closes sessions at the end of the input.
    check_deaths_before(&[
        ("silver.playback_intervals", 1),
        ("silver.playback_intervals", 2),
        ("silver.playback_sessions", 1),
        ("silver.playback_sessions", 2),
    ]);
}

#[test]
fn sessions_that_requests_made_due_are_closed_after_a_death() {
    let input = Input::simulated(SMALL_EVENTS, SEED, SMALL_BATCHES).with_players_cut_short();
    check_deaths_of(&input, &[("silver.playback_intervals", 1), ("silver.playback_sessions", 1)]);
}

#[test]
fn death_before_a_commit_of_gold_is_made_good() {
    check_deaths_before(&[
        ("gold.playback_1m", 2),
        ("gold.errors_1m", 1),
        ("gold.cdn_1m", 2),
        ("gold.delivery_1m", 1),
        ("gold.audience_1m", 2),
    ]);
}

#[test]
fn death_before_a_commit_of_alerts_is_made_good() {
    check_deaths_before(&[("ops.alert_events", 1), ("ops.alert_events", 2), ("ops.alert_events", 3)]);
}

/// For each table: cuts a finished lake off before its nth newest commit with rows, as if the process
/// had died there, and lets `playhead ingest` go on.
#[track_caller]
fn check_deaths_before(cuts: &[(&str, usize)]) {
    check_deaths_of(&Input::simulated(SMALL_EVENTS, SEED, SMALL_BATCHES), cuts);
}

#[track_caller]
fn check_deaths_of(input: &Input, cuts: &[(&str, usize)]) {
    let finished = Bench::new();
    let ends = input.ingest_from(0, &finished);
    let expected = everything(&finished);
    let commits = commit_files(&finished);
    for (table, nth) in cuts {
        let with_rows: Vec<&CommitFile> = commits
            .iter()
            .filter(|commit| commit.table == *table && commit.adds_rows())
            .collect();
        assert!(with_rows.len() >= *nth, "{table} has {} commits with rows", with_rows.len());
        let cut = with_rows[with_rows.len() - nth];
        let cut_lake = Bench::new();
        copy_folder(&finished.lake(), &cut_lake.lake());
        for gone in commits.iter().filter(|commit| commit.at >= cut.at) {
            let path = cut_lake
                .lake()
                .join(gone.path.strip_prefix(finished.lake()).expect("it was found in this lake"));
            std::fs::remove_file(path).expect("a commit file can be removed");
        }
        println!("died before {table} version {}", cut.version);
        let died_in_run = ends.iter().filter(|end| **end < cut.at).count();
        input.ingest_from(died_in_run, &cut_lake);
        assert_same(&expected, &everything(&cut_lake));
    }
}

// ---- the input ----

/// A player file and a CDN file with duplicates and broken lines in them, and the settings that cut
/// them into many epochs.
struct Input {
    /// Holds the folder for as long as the input is used.
    _bench: Bench,
    settings: PathBuf,
    /// The files of each `playhead ingest`, one after the other.
    runs: Vec<Vec<PathBuf>>,
}

impl Input {
    /// Every batch holds a share of the player events; there are as many requests again.
    fn simulated(events: u64, seed: u64, batches: u64) -> Input {
        let bench = Bench::new();
        let sessions = (events / EVENTS_PER_SESSION).to_string();
        let seed = seed.to_string();
        let folder = simulate(
            &bench,
            &["--sessions", &sessions, "--seed", &seed, "--minutes", "120", "--incident"],
        );
        let (player, cdn) = (folder.join("player.ndjson"), folder.join("cdn.tsv"));
        spoil(&player, "{\"MetricType\":\"STREAM\",\"TimeStamp\":");
        spoil(&cdn, "2026-01-01\tnot a request");
        bench.write("rules/small.yaml", RULES);
        let batch_records = events / batches;
        // The shortest cadence: gold is written at every epoch, and so are there moments to die at.
        let settings = bench.write(
            "playhead.yaml",
            format!(
                "ingest: {{batch_records: {batch_records}, batch_bytes: 1MiB, commit_every: 100ms}}\nalerts: {{folder: {}}}\n",
                bench.path("rules").display()
            ),
        );
        Input {
            _bench: bench,
            settings,
            runs: vec![vec![player, cdn]],
        }
    }

    fn command(&self, lake: &Bench, files: &[PathBuf]) -> Command {
        let mut command = lake.command(&["ingest", "--json"]);
        command.arg("--settings").arg(&self.settings).args(files);
        command
    }

    fn start(&self, lake: &Bench) -> Child {
        let mut command = self.command(lake, &self.runs[0]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts")
    }

    #[track_caller]
    fn ingest_to_the_end(&self, lake: &Bench) {
        self.ingest_from(0, lake);
    }

    /// The runs from the nth on: a person starts again what died, not what had ended before. (The end
    /// of a run closes its windows, so an earlier one must not be run over the half of a later one.)
    /// Returns when the newest commit of each run landed.
    fn ingest_from(&self, first_run: usize, lake: &Bench) -> Vec<SystemTime> {
        let mut ends = Vec::new();
        for files in &self.runs[first_run..] {
            let output = self.command(lake, files).output().expect("the binary starts");
            assert!(
                output.status.success(),
                "ingest failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            ends.extend(commit_files(lake).iter().map(|commit| commit.at).max());
        }
        ends
    }

    /// Breaks the player events off in the middle of many sessions; the requests go on, in a run of
    /// their own, and their time closes what was left open.
    fn with_players_cut_short(mut self) -> Input {
        let [player, cdn] = [0, 1].map(|file| self.runs[0][file].clone());
        let text = std::fs::read_to_string(&player).expect("the player file can be read");
        let lines: Vec<&str> = text.lines().collect();
        std::fs::write(&player, lines[..lines.len() / 2].join("\n") + "\n").expect("the player file can be written");
        self.runs = vec![vec![player], vec![cdn]];
        self
    }
}

/// Says some lines twice, at once and much later, and puts broken ones between others.
fn spoil(path: &Path, broken: &str) {
    let text = std::fs::read_to_string(path).expect("the simulated file can be read");
    let mut spoilt = String::with_capacity(text.len() * 2);
    let mut again = Vec::new();
    for (number, line) in text.lines().enumerate() {
        spoilt.push_str(line);
        spoilt.push('\n');
        if number % 50 == 49 {
            spoilt.push_str(line);
            spoilt.push('\n');
            again.push(line);
        }
        if number % 210 == 209 {
            spoilt.push_str(broken);
            spoilt.push('\n');
        }
    }
    again.iter().for_each(|line| {
        spoilt.push_str(line);
        spoilt.push('\n');
    });
    std::fs::write(path, spoilt).expect("the simulated file can be written");
}

// ---- the kills ----

#[derive(Debug, Clone, Copy)]
enum Moment {
    /// This share of the way to the next commit, once the lake has so many.
    AfterCommits { commits: usize, part_of_a_gap: f64 },
    /// So long after the process was started.
    InStartUp { after: Duration },
}

/// Moments in the order in which they come: spread evenly over all commits, for a clock would put
/// nearly all kills into the first few runs, and those after the last record would kill nothing.
fn moments(dice: &mut Dice, commits: usize) -> Vec<Moment> {
    // A run that is killed makes fewer: windows that would have been closed one after the other are closed
    // together after a start.
    let last = commits / 2;
    let mut counts: Vec<usize> = (0..KILLS - START_UP_KILLS).map(|_| dice.below(last)).collect();
    counts.sort_unstable();
    let mut moments: Vec<Moment> = counts
        .into_iter()
        // Past one gap, the next commit may be through: that is a moment like any other.
        .map(|commits| Moment::AfterCommits {
            commits,
            part_of_a_gap: dice.share() * 2.0,
        })
        .collect();
    for _ in 0..START_UP_KILLS {
        let after = Duration::from_millis(dice.below(400) as u64);
        moments.insert(dice.below(moments.len()), Moment::InStartUp { after });
    }
    moments
}

fn wait_for(lake: &Bench, child: &mut Child, moment: Moment, pace: Duration) {
    match moment {
        Moment::InStartUp { after } => std::thread::sleep(after),
        Moment::AfterCommits { commits, part_of_a_gap } => {
            let started = Instant::now();
            while commit_files(lake).len() < commits {
                assert!(started.elapsed() < PATIENCE, "the lake never had {commits} commits");
                if child.try_wait().expect("a child can be asked").is_some() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(pace.mul_f64(part_of_a_gap));
        }
    }
}

/// Random numbers that a seed decides (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("below a usize")
    }

    /// In 0 to 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

// ---- what a lake holds ----

struct CommitFile {
    table: String,
    version: i64,
    path: PathBuf,
    at: SystemTime,
}

impl CommitFile {
    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).expect("a commit can be read")
    }

    fn adds_rows(&self) -> bool {
        self.text().lines().any(|action| action.starts_with("{\"add\""))
    }
}

/// The commits of all tables, oldest first: one process writes them one after the other.
fn commit_files(bench: &Bench) -> Vec<CommitFile> {
    let mut found = Vec::new();
    for layer in folders(&bench.lake()) {
        for table in folders(&layer) {
            let name = format!("{}.{}", file_name(&layer), file_name(&table));
            for path in entries(&table.join("_delta_log")) {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let is_commit = path.extension().is_some_and(|ending| ending == "json");
                let (true, Ok(version), Ok(metadata)) = (is_commit, stem.parse(), path.metadata()) else {
                    continue;
                };
                let at = metadata.modified().expect("the file system keeps times");
                found.push(CommitFile {
                    table: name.clone(),
                    version,
                    path,
                    at,
                });
            }
        }
    }
    found.sort_by(|a, b| (a.at, &a.table, a.version).cmp(&(b.at, &b.table, b.version)));
    found
}

fn newest_commit(bench: &Bench) -> String {
    let commits = commit_files(bench);
    match commits.last() {
        Some(newest) => format!("{} commits, the last {} version {}", commits.len(), newest.table, newest.version),
        None => "no commit yet".to_string(),
    }
}

/// What was counted since the lake was made, from the newest note that says so.
#[track_caller]
fn totals(bench: &Bench, table: &str) -> Value {
    let commits = commit_files(bench);
    let mut notes = commits.iter().rev().filter(|commit| commit.table == table).flat_map(|commit| {
        let actions: Vec<Value> = commit
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).expect("a commit is JSON lines"))
            .collect();
        actions
            .into_iter()
            .map(|action| action["commitInfo"]["playhead"]["totals"].clone())
            .filter(|totals| !totals.is_null())
    });
    notes.next().unwrap_or_else(|| panic!("no commit of {table} has totals"))
}

/// All rows of all tables, without what tells when and in which version something happened.
fn everything(bench: &Bench) -> BTreeMap<String, Vec<String>> {
    let mut tables = contents(bench);
    let mut rejects: Vec<String> = bench
        .sql("SELECT reason, detail, source_partition, source_offset, size_bytes FROM silver.rejects")
        .iter()
        .map(Value::to_string)
        .collect();
    rejects.sort();
    tables.insert("silver.rejects".to_string(), rejects);
    let alerts =
        bench.sql("SELECT kind, window_end, event_id, rule_uid, status, fingerprint, target, rules_hash, message FROM ops.alert_events");
    let mut alerts: Vec<String> = alerts.into_iter().map(|row| without_evaluation(row).to_string()).collect();
    alerts.sort();
    assert!(!alerts.is_empty(), "the rules of this test fire on its input");
    tables.insert("ops.alert_events".to_string(), alerts);
    tables
}

/// An alert row without when it was judged, how far event time had come by then, and the table versions that
/// it was judged from.
fn without_evaluation(mut row: Value) -> Value {
    if let Some(text) = row["message"].as_str() {
        let mut message: Value = serde_json::from_str(text).expect("a message is JSON");
        let fields = message.as_object_mut().expect("a message is an object");
        for name in ["evaluated_at", "expires_at", "lineage"] {
            assert!(fields.remove(name).is_some(), "a message has {name}");
        }
        let watermark = fields["window"].as_object_mut().and_then(|window| window.remove("watermark"));
        assert!(watermark.is_some(), "a window has its watermark");
        row["message"] = message;
    }
    row
}

/// Fails with the first rows that differ: the tables are too long to print.
#[track_caller]
fn assert_same(expected: &BTreeMap<String, Vec<String>>, found: &BTreeMap<String, Vec<String>>) {
    for (table, rows) in expected {
        assert!(!rows.is_empty(), "{table} is empty; equal nothings prove nothing");
        let others = &found[table];
        let (left, right): (BTreeSet<&String>, BTreeSet<&String>) = (rows.iter().collect(), others.iter().collect());
        let missing: Vec<_> = left.difference(&right).take(2).collect();
        let extra: Vec<_> = right.difference(&left).take(2).collect();
        assert!(
            rows == others,
            "{table}: {} rows, {} expected\nmissing: {missing:#?}\nextra: {extra:#?}",
            others.len(),
            rows.len()
        );
    }
    assert_eq!(expected.len(), found.len());
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for path in entries(from) {
        let target = to.join(file_name(&path));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a file can be copied");
        }
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    entries(path).into_iter().filter(|path| path.is_dir()).collect()
}

fn entries(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[allow(clippy::disallowed_methods)] // Tests have no settings; the variables are documented above.
fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number")))
}
