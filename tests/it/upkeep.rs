//! Upkeep under load, and killed: fewer files, the same rows.
//!
//! The long forms, with their figures:
//! `PLAYHEAD_UPKEEP_COMMITS=10000 cargo test --locked upkeep -- --nocapture`
//! `PLAYHEAD_UPKEEP_KILLS=60 cargo test --locked upkeep::killed -- --nocapture`

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Date32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use playhead::clock::{Clock, SystemClock};
use playhead::event::schema::utc_day;
use playhead::lake::place::Place;
use playhead::lake::tables::{SILVER_PLAYER, fixed_tables};
use playhead::lake::upkeep::{Action, Upkeep, UpkeepSettings};
use playhead::lake::{Commit, Lake, TimeRange, Victims};
use serde_json::{Value, json};

use crate::support::{Bench, contents, simulate};

const TABLE: &str = SILVER_PLAYER;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 1_440 * MINUTE_MS;
/// 2026-01-01: an old day, into which rows come now.
const EPOCH_MS: i64 = 1_767_225_600_000;
const ROWS_PER_COMMIT: u64 = 3;
/// Commits before upkeep begins: without it each costs more than the one before (`without_upkeep_commits_become_dear`).
const ALONE_MAX: u64 = 1_000;
const SEED: u64 = 20_260_101;

fn place(folder: &Path) -> Place {
    Place::folder(folder).expect("a folder is a place")
}

async fn open(folder: &Path) -> Lake {
    Lake::open(place(folder), Arc::new(SystemClock)).await.expect("the lake opens")
}

#[allow(clippy::disallowed_methods)]
fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// When the player event of a number was.
fn at_ms(number: u64) -> i64 {
    EPOCH_MS + (number as i64 % 80_000) * 1_000
}

/// Player events with these numbers as ids, a second apart.
fn rows(numbers: Range<u64>) -> RecordBatch {
    let spec = fixed_tables()
        .into_iter()
        .find(|spec| spec.name == TABLE)
        .expect("the table is one of ours");
    let column = |field: &Arc<Field>| -> ArrayRef {
        let count = numbers.clone().count();
        match (field.name().as_str(), field.data_type()) {
            ("event_id", _) => Arc::new(StringArray::from_iter_values(
                numbers.clone().map(|number| format!("{number:032x}")),
            )),
            (_, DataType::Date32) => Arc::new(Date32Array::from_iter_values(numbers.clone().map(|number| utc_day(at_ms(number))))),
            (_, DataType::Timestamp(..)) => Arc::new(
                TimestampMicrosecondArray::from_iter_values(numbers.clone().map(|number| at_ms(number) * 1_000)).with_timezone("UTC"),
            ),
            (_, other) if field.is_nullable() => arrow::array::new_null_array(other, count),
            (_, DataType::Utf8) => Arc::new(StringArray::from_iter_values(
                numbers.clone().map(|number| format!("v{}", number % 7)),
            )),
            (_, DataType::Int64) => Arc::new(Int64Array::from_iter_values(numbers.clone().map(|number| number as i64))),
            (_, DataType::List(item)) => Arc::new(ListArray::new(
                Arc::clone(item),
                OffsetBuffer::from_lengths(std::iter::repeat_n(0, count)),
                arrow::array::new_empty_array(item.data_type()),
                None,
            )),
            (_, DataType::Map(entry, is_sorted)) => Arc::new(MapArray::new(
                Arc::clone(entry),
                OffsetBuffer::from_lengths(std::iter::repeat_n(0, count)),
                arrow::array::new_empty_array(entry.data_type()).as_struct().clone(),
                None,
                *is_sorted,
            )),
            (_, DataType::Boolean) => Arc::new(BooleanArray::from(vec![false; count])),
            (name, other) => panic!("no value for {name}: {other}"),
        }
    };
    let columns = spec.schema.fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(&spec.schema), columns).expect("the columns fit the schema")
}

fn note(number: u64) -> Commit {
    Commit {
        covers: vec![("test:numbers".to_string(), number as i64)],
        note: json!({"totals": number, "positions": {"p": [0, number]}}),
    }
}

async fn append(lake: &Lake, commit: u64) {
    let numbers = commit * ROWS_PER_COMMIT..(commit + 1) * ROWS_PER_COMMIT;
    lake.append(TABLE, vec![rows(numbers)], note(commit))
        .await
        .expect("the commit lands");
}

/// Ids of the table, sorted; one that is there twice is there twice.
async fn numbers(lake: &Lake) -> Vec<u64> {
    let batches = lake
        .scan(TABLE, &["event_id"], TimeRange::ALL, None)
        .await
        .expect("the table can be read");
    let mut numbers = Vec::new();
    for batch in &batches {
        let ids = arrow::compute::cast(batch.column(0), &DataType::Utf8).expect("ids are text");
        numbers.extend(
            ids.as_string::<i32>()
                .iter()
                .flatten()
                .map(|id| u64::from_str_radix(id, 16).expect("ids are hex")),
        );
    }
    numbers.sort_unstable();
    numbers
}

fn files(lake: &Path, table: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![lake.join(table.replace('.', "/"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder can be listed").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("_delta_log") {
                folders.push(path);
            } else if path.is_file() {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// Graces below zero, so that everything is due at once, also by a clock that was read a little ago.
fn eager() -> UpkeepSettings {
    UpkeepSettings {
        min_files: 4,
        compact_every_ms: 0,
        io_bytes_per_minute: u64::MAX >> 1,
        orphan_grace_ms: -MINUTE_MS,
        removed_grace_ms: -MINUTE_MS,
        vacuum_every_ms: 0,
        versions_kept: 20,
        log_grace_ms: -MINUTE_MS,
        ..UpkeepSettings::default()
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Where the next commits of a lake go, and its upkeep if it has one.
struct Subject {
    lake: Arc<Lake>,
    upkeep: Option<Upkeep>,
    commits: u64,
}

impl Subject {
    async fn new(folder: &Path, settings: Option<UpkeepSettings>) -> Subject {
        let lake = Arc::new(open(folder).await);
        let upkeep = settings.map(|settings| Upkeep::new(Arc::clone(&lake), settings));
        Subject { lake, upkeep, commits: 0 }
    }

    /// Commits once, does a step of upkeep, and tells how long the commit took.
    async fn commit(&mut self) -> Duration {
        let started = Instant::now();
        append(&self.lake, self.commits).await;
        let took = started.elapsed();
        self.commits += 1;
        if let Some(upkeep) = &mut self.upkeep {
            upkeep.step(SystemClock.now_ms()).await.expect("the step goes well");
        }
        took
    }
}

/// Medians of a commit to a lake of a hundred commits and to one of many, taken in turns so that what
/// else the machine does weighs on both alike.
async fn young_and_old(commits: u64, settings: Option<UpkeepSettings>) -> (Duration, Duration) {
    let (one, other) = (Bench::new(), Bench::new());
    let mut old = Subject::new(&one.lake(), settings.clone()).await;
    while old.commits < commits {
        old.commit().await;
    }
    let mut young = Subject::new(&other.lake(), settings).await;
    while young.commits < 50 {
        young.commit().await;
    }
    let (mut of_young, mut of_old) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        of_young.push(young.commit().await);
        of_old.push(old.commit().await);
    }
    assert_eq!(numbers(&old.lake).await.len() as u64, old.commits * ROWS_PER_COMMIT);
    (median(&of_young), median(&of_old))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_commit_costs_what_an_early_one_did() {
    let commits = from_env("PLAYHEAD_UPKEEP_COMMITS", 300);
    let settings = UpkeepSettings {
        min_files: 8,
        versions_kept: 1_000,
        ..eager()
    };
    let (early, late) = young_and_old(commits, Some(settings)).await;
    println!("median of a commit after 100 {early:?}, after {commits} {late:?}");
    assert!(late < early * 3 / 2 + Duration::from_millis(5), "early {early:?}, late {late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures only: what growth looks like without upkeep"]
async fn without_upkeep_commits_become_dear() {
    let commits = from_env("PLAYHEAD_UPKEEP_COMMITS", 300);
    let (early, late) = young_and_old(commits, None).await;
    println!("without upkeep: median of a commit after 100 {early:?}, after {commits} {late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures only: what upkeep beside it costs a load"]
async fn upkeep_beside_a_load_slows_it_little() {
    let bench = Bench::new();
    let lake = Arc::new(open(&bench.lake()).await);
    let commits = from_env("PLAYHEAD_UPKEEP_COMMITS", 1_200);
    let landed = Arc::new(AtomicU64::new(0));
    let (mut alone, mut beside) = (Duration::ZERO, Duration::ZERO);
    let part = commits / 12;
    for turn in 0..12 {
        let numbers = turn * part..(turn + 1) * part;
        // Alone, beside, beside, alone: the table grows meanwhile.
        if matches!(turn % 4, 0 | 3) {
            alone += load(Arc::clone(&lake), numbers, Arc::clone(&landed)).await;
            continue;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let upkeep = tokio::spawn(keep_up(Arc::clone(&lake), UpkeepSettings::default(), Arc::clone(&stop)));
        beside += load(Arc::clone(&lake), numbers, Arc::clone(&landed)).await;
        stop.store(true, Ordering::SeqCst);
        println!("{:?}", upkeep.await.expect("upkeep goes well"));
    }
    println!("{commits} commits, half of them alone in {alone:?}, half beside upkeep in {beside:?}");
}

/// Appends, and takes one row out and puts it in again with every tenth commit. Returns how long it took.
async fn load(lake: Arc<Lake>, commits: Range<u64>, landed: Arc<AtomicU64>) -> Duration {
    let started = Instant::now();
    for commit in commits {
        append(&lake, commit).await;
        landed.store((commit + 1) * ROWS_PER_COMMIT, Ordering::SeqCst);
        if commit % 10 == 9 {
            let number = commit * ROWS_PER_COMMIT / 2;
            let id = format!("{number:032x}");
            let is_victim = |batch: &RecordBatch| {
                let ids = arrow::compute::cast(&batch["event_id"], &DataType::Utf8)?;
                Ok(ids
                    .as_string::<i32>()
                    .iter()
                    .map(|found| Some(found == Some(id.as_str())))
                    .collect())
            };
            // An edit knows when its rows were, as those of the daemon do.
            let range = TimeRange::around([at_ms(number)].into_iter()).expect("one instant");
            let victims = Victims {
                range,
                ids: None,
                is_victim: &is_victim,
            };
            let again = vec![rows(number..number + 1)];
            let prepared = lake.prepare_edit(TABLE, victims, again).await.expect("the edit is prepared");
            lake.commit(TABLE, prepared, note(commit)).await.expect("the edit lands");
        }
    }
    started.elapsed()
}

/// Steps until told to stop; counts what was done.
async fn keep_up(lake: Arc<Lake>, settings: UpkeepSettings, stop: Arc<AtomicBool>) -> BTreeMap<&'static str, usize> {
    let mut upkeep = Upkeep::new(lake, settings);
    let mut done: BTreeMap<&'static str, usize> = BTreeMap::new();
    while !stop.load(Ordering::SeqCst) {
        let report = upkeep.step(SystemClock.now_ms()).await.expect("the step goes well");
        for action in &report.actions {
            *done.entry(kind(action)).or_default() += 1;
        }
        let pause_ms = if report.is_idle { 250 } else { 1 };
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    done
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Checkpoint { .. } => "checkpoint",
        Action::Compact { .. } => "compact",
        Action::Postpone { .. } => "postpone",
        Action::Drop { .. } => "drop",
        Action::CleanLog { .. } => "clean_log",
        Action::Vacuum { .. } => "vacuum",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_under_load_leaves_few_files_and_every_row_once() {
    let bench = Bench::new();
    let lake = Arc::new(open(&bench.lake()).await);
    let commits = from_env("PLAYHEAD_UPKEEP_COMMITS", 250);
    let landed = Arc::new(AtomicU64::new(0));
    let alone = (commits / 2).min(ALONE_MAX);
    let before = load(Arc::clone(&lake), 0..alone, Arc::clone(&landed)).await;
    let stop = Arc::new(AtomicBool::new(false));
    // Two at once: each table is one's at a time.
    let first = tokio::spawn(keep_up(Arc::clone(&lake), eager(), Arc::clone(&stop)));
    let second = tokio::spawn(keep_up(Arc::clone(&lake), eager(), Arc::clone(&stop)));
    let loading = tokio::spawn(load(Arc::clone(&lake), alone..commits, Arc::clone(&landed)));
    let mut asked = 0;
    while !loading.is_finished() {
        let at_least = landed.load(Ordering::SeqCst);
        let found = numbers(&lake).await;
        let distinct: BTreeSet<u64> = found.iter().copied().collect();
        assert_eq!(distinct.len(), found.len(), "a row is there twice");
        assert!(found.len() as u64 >= at_least, "{} rows, {at_least} had landed", found.len());
        asked += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let during = loading.await.expect("the load goes well");
    stop.store(true, Ordering::SeqCst);
    let done = [first.await.expect("upkeep goes well"), second.await.expect("upkeep goes well")];
    let mut upkeep = Upkeep::new(Arc::clone(&lake), eager());
    let report = upkeep.run_all(SystemClock.now_ms(), &mut |_| {}).await.expect("the rest is done");
    println!(
        "{commits} commits: the first {alone} alone {before:?}, the others under upkeep {during:?}; {done:?}, {asked} queries, {} actions after it",
        report.actions.len()
    );
    assert_eq!(numbers(&lake).await, (0..commits * ROWS_PER_COMMIT).collect::<Vec<_>>());
    let left = files(&bench.lake(), TABLE);
    println!("{} files are left", left.len());
    assert!(left.len() < 50, "{left:?}");
    assert_eq!(upkeep.plan(SystemClock.now_ms()).await.expect("the plan is made"), Vec::new());
    // Another program reads the same.
    let other = Lake::open_read_only(place(&bench.lake()))
        .await
        .expect("the lake opens for reading");
    assert_eq!(numbers(&other).await.len() as u64, commits * ROWS_PER_COMMIT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commits_say_of_progress_outlives_any_number_of_upkeep_commits() {
    let bench = Bench::new();
    let lake = Arc::new(open(&bench.lake()).await);
    for commit in 0..2 {
        append(&lake, commit).await;
    }
    let mut upkeep = Upkeep::new(
        Arc::clone(&lake),
        UpkeepSettings {
            min_files: 2,
            ..UpkeepSettings::default()
        },
    );
    let version = lake.version(TABLE).await.expect("the table is open");
    let report = upkeep.run_all(SystemClock.now_ms(), &mut |_| {}).await.expect("upkeep goes well");
    assert_eq!(report.actions.iter().map(kind).collect::<Vec<_>>(), ["compact"]);
    let note = lake
        .newest_note(TABLE, "totals")
        .await
        .expect("the log can be read")
        .expect("the newest commit has it");
    assert_eq!(
        (&note["totals"], &note["positions"], &note["minutes"]),
        (&json!(1), &Value::Null, &Value::Null)
    );
    let entries = lake
        .log_after(TABLE, version)
        .await
        .expect("the log can be read")
        .expect("it reaches back");
    assert_eq!(entries.len(), 1);
    assert_eq!(lake.covered(TABLE, "test:numbers").await.expect("the markers can be read"), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_commit_in_flight_and_files_of_others_stay() {
    let bench = Bench::new();
    let lake = Arc::new(open(&bench.lake()).await);
    append(&lake, 0).await;
    let prepared = lake.prepare_append(TABLE, vec![rows(3..6)]).await.expect("files are written");
    let day = bench.lake().join("silver/player_events/event_date=2026-01-01");
    std::fs::write(day.join("part-orphan.parquet"), "x").expect("a file can be written");
    std::fs::write(day.join("part-half.parquet#1"), "x").expect("a file can be written");
    std::fs::write(day.join("notes.txt"), "x").expect("a file can be written");
    let mut upkeep = Upkeep::new(Arc::clone(&lake), eager());
    let now_ms = SystemClock.now_ms();
    let report = upkeep.run_all(now_ms, &mut |_| {}).await.expect("upkeep goes well");
    assert_eq!(report.actions, []);
    lake.commit(TABLE, prepared, note(1)).await.expect("the commit lands");
    let report = upkeep.run_all(now_ms + 1, &mut |_| {}).await.expect("upkeep goes well");
    assert_eq!(report.actions.iter().map(kind).collect::<Vec<_>>(), ["vacuum"]);
    assert_eq!(numbers(&lake).await, (0..6).collect::<Vec<_>>());
    assert_eq!(files(&bench.lake(), TABLE).len(), 3, "two files of the table and the notes");
}

/// Upkeep of the fixed tables of a lake that nobody has open, at some time.
fn keep_up_at(bench: &Bench, settings: UpkeepSettings, now_ms: i64) -> Vec<Action> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let lake = Arc::new(open(&bench.lake()).await);
        let mut upkeep = Upkeep::new(lake, settings);
        upkeep.run_all(now_ms, &mut |_| {}).await.expect("upkeep goes well").actions
    })
}

fn gold_of(bench: &Bench) -> BTreeMap<String, Vec<String>> {
    contents(bench)
        .into_iter()
        .filter(|(table, _)| table.starts_with("gold."))
        .collect()
}

#[test]
fn ingest_goes_on_after_retention_and_gold_keeps_its_windows() {
    let bench = Bench::new();
    let folder = simulate(&bench, &["--sessions", "40", "--minutes", "20"]);
    let summary = bench.ingest(&[&folder]);
    let gold = gold_of(&bench);
    let now_ms = SystemClock.now_ms();
    let today = keep_up_at(&bench, UpkeepSettings::default(), now_ms);
    assert!(
        !today.iter().any(|action| kind(action) == "drop"),
        "what came in today stays: {today:?}"
    );
    let later = keep_up_at(&bench, UpkeepSettings::default(), now_ms + 40 * DAY_MS);
    let dropped = later.iter().filter(|action| kind(action) == "drop").count();
    assert!(dropped >= 6, "bronze and silver have outlived their retention: {later:?}");
    let rows = contents(&bench);
    assert_eq!(rows["bronze.player_events"].len() + rows["silver.playback_sessions"].len(), 0);
    assert_eq!(gold_of(&bench), gold);
    // Known files are still known, totals go on, and the new rows of the old day spoil no window.
    assert_eq!(bench.ingest(&[&folder])["received"], json!(0));
    let late = simulate(&bench, &["--sessions", "5", "--minutes", "20", "--seed", "9"]);
    std::fs::rename(&late, bench.path("late")).expect("the folder can be renamed");
    let again = bench.ingest(&[&bench.path("late")]);
    assert!(again["stored"].as_u64() > Some(0), "{again}");
    assert!(summary["received"].as_u64() > Some(0));
    assert_eq!(gold_of(&bench), gold);
}

#[test]
fn answers_of_a_whole_lake_are_the_same_after_upkeep() {
    let bench = Bench::new();
    let folder = simulate(&bench, &["--sessions", "60", "--minutes", "20"]);
    bench.ingest_with("ingest: {batch_records: 200}\n", &[&folder]);
    let before = contents(&bench);
    let many = files(&bench.lake(), TABLE).len();
    let eager = UpkeepSettings { min_files: 2, ..eager() };
    keep_up_at(&bench, eager, SystemClock.now_ms());
    let few = files(&bench.lake(), TABLE).len();
    assert!(few < many, "{few} files of {many}");
    assert_eq!(contents(&bench), before);
    assert_eq!(bench.ingest(&[&folder])["received"], json!(0));
    assert_eq!(contents(&bench), before);
}

/// Commit files of the whole lake with the time at which they were written.
fn commit_files(lake: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut found = Vec::new();
    for layer in ["bronze", "silver", "gold", "ops"] {
        for table in std::fs::read_dir(lake.join(layer)).expect("the layer can be listed").flatten() {
            let log = std::fs::read_dir(table.path().join("_delta_log")).expect("the log can be listed");
            let commits = log
                .flatten()
                .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"));
            found.extend(commits.map(|entry| {
                let written = entry.metadata().and_then(|metadata| metadata.modified());
                (entry.path(), written.expect("the file has a time"))
            }));
        }
    }
    found
}

#[test]
fn bronze_that_silver_has_not_taken_in_is_left_as_it_is() {
    let bench = Bench::new();
    let folder = simulate(&bench, &["--sessions", "60", "--minutes", "20"]);
    bench.ingest_with("ingest: {batch_records: 200}\n", &[&folder]);
    let whole = contents(&bench);
    // As if the process had died between its last commits to bronze and to silver.
    let commits = commit_files(&bench.lake());
    let of_silver = |path: &Path| path.starts_with(bench.lake().join(TABLE.replace('.', "/")));
    let died = commits
        .iter()
        .filter(|(path, _)| of_silver(path))
        .map(|(_, at)| *at)
        .max()
        .expect("silver has commits");
    for (path, _) in commits.iter().filter(|(_, at)| *at >= died) {
        std::fs::remove_file(path).expect("a commit file can be removed");
    }
    let settings = UpkeepSettings { min_files: 2, ..eager() };
    let actions = keep_up_at(&bench, settings, SystemClock.now_ms());
    let of_bronze = |action: &Action| matches!(action, Action::Compact { table, .. } if table == "bronze.player_events");
    assert!(actions.iter().any(of_bronze), "what silver has is put together: {actions:?}");
    bench.ingest_with("ingest: {batch_records: 200}\n", &[&folder]);
    assert_eq!(contents(&bench), whole);
}

#[test]
fn the_command_tells_what_it_does_and_leaves_a_lake_in_use_alone() {
    let bench = Bench::new();
    let folder = simulate(&bench, &["--sessions", "5", "--minutes", "5"]);
    bench.ingest(&[&folder]);
    let answer = bench.run(&["upkeep", "--json", "--dry-run"]);
    let answer: Value = serde_json::from_slice(&answer.stdout).expect("the answer is JSON");
    assert_eq!(answer["dry_run"], json!(true));
    assert!(bench.run(&["upkeep"]).status.success());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let _held = runtime.block_on(open(&bench.lake()));
    let refused = bench.run(&["upkeep"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("a running daemon does its own upkeep"), "{told}");
    assert!(bench.run(&["upkeep", "--dry-run"]).status.success());
}

/// One life of a process that commits and keeps the table up, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the test that kills it"]
async fn child_that_is_killed() {
    #[allow(clippy::disallowed_methods)]
    let Ok(folder) = std::env::var("PLAYHEAD_UPKEEP_CHILD") else {
        return;
    };
    let lake = Arc::new(open(Path::new(&folder)).await);
    let mut upkeep = Upkeep::new(Arc::clone(&lake), eager());
    let mut commit = lake
        .covered(TABLE, "test:numbers")
        .await
        .expect("markers are read")
        .map_or(0, |last| last as u64 + 1);
    loop {
        for _ in 0..12 {
            println!("\nphase append");
            append(&lake, commit).await;
            commit += 1;
            println!("\nlanded {commit}");
        }
        println!("\nphase checkpoint");
        lake.checkpoint(TABLE).await.expect("the checkpoint is written");
        loop {
            let plan = upkeep.plan(SystemClock.now_ms()).await.expect("the plan is made");
            let Some(next) = plan.first() else { break };
            println!("\nphase {}", kind(next));
            upkeep.step(SystemClock.now_ms()).await.expect("the step goes well");
        }
    }
}

/// Lets a child live until the phase has begun and a little longer. Returns what it had landed.
fn one_life(folder: &Path, phase: &str, delay: Duration) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().expect("the test knows its binary"))
        .args(["upkeep::child_that_is_killed", "--exact", "--ignored", "--nocapture"])
        .env("PLAYHEAD_UPKEEP_CHILD", folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts");
    let mut landed = None;
    let output = BufReader::new(child.stdout.take().expect("the output is piped"));
    for line in output.lines().map_while(Result::ok) {
        if let Some(count) = line.strip_prefix("landed ") {
            landed = count.parse().ok();
        }
        if line == format!("phase {phase}") {
            std::thread::sleep(delay);
            child.kill().expect("the child can be killed");
        }
    }
    let status = child.wait().expect("the child ends");
    assert!(!status.success(), "the child ended by itself before {phase}");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "the child failed before {phase}"
    );
    landed
}

#[test]
fn killed_during_upkeep_the_table_opens_with_the_same_rows() {
    let bench = Bench::new();
    let folder = bench.lake();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let mut random = SEED;
    let kills = from_env("PLAYHEAD_UPKEEP_KILLS", 8);
    let phases = ["compact", "checkpoint", "vacuum", "clean_log"];
    let mut known = 0;
    for kill in 0..kills {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let phase = phases[kill as usize % phases.len()];
        let delay = Duration::from_micros((random >> 33) % 40_000);
        let landed = one_life(&folder, phase, delay);
        known = known.max(landed.unwrap_or(0));
        let found = runtime.block_on(async {
            let lake = open(&folder).await;
            numbers(&lake).await
        });
        // The child may have landed one commit more than it could tell.
        let commits = found.len() as u64 / ROWS_PER_COMMIT;
        println!("kill {kill} {delay:?} into {phase}: {commits} commits");
        assert!(
            commits >= known && (phase != "append" || commits <= known + 1),
            "{commits} commits, {known} were told"
        );
        assert_eq!(found, (0..commits * ROWS_PER_COMMIT).collect::<Vec<_>>());
        known = commits;
    }
    runtime.block_on(async {
        let lake = Arc::new(open(&folder).await);
        let mut upkeep = Upkeep::new(Arc::clone(&lake), eager());
        upkeep.run_all(SystemClock.now_ms(), &mut |_| {}).await.expect("upkeep goes well");
        assert_eq!(numbers(&lake).await.len() as u64, known * ROWS_PER_COMMIT);
    });
    let left = files(&folder, TABLE);
    assert!(left.len() < 12, "what kills left behind is gone: {left:?}");
}
