//! `kill -9` of a running daemon at chosen moments, again and again.
//!
//! A moment is aimed at by what the daemon has just written, and hit or missed: where the process really
//! died is told afterwards from what it left, the commits of its tables and its log. Only that is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::daemon::Daemon;
use crate::restart::Dice;
use crate::support::Bench;

/// How long a moment is waited for: where nothing is written any more the kill comes anyway.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A long run says how it goes after so many daemons.
const TOLD_EVERY: usize = 20;
/// Where no state file is written, the kill comes within this time after the request to stop.
const LONGEST_STOP: Duration = Duration::from_millis(800);
/// The log says so once the lake has been taken up.
const RUNNING: &str = "playhead is running";
/// And so once an epoch is in gold.
const CARRIED: &str = "epoch committed";
const STOPPED: &str = "stopped in order";
/// Silver tables that follow bronze in every epoch.
const SILVER: [&str; 3] = ["player_events", "playback_intervals", "playback_sessions"];
/// A cache file that is being written has this ending.
const UNFINISHED: &str = "unfinished";

/// Where in its work the daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// It has not said that it is running.
    StartingUp,
    /// It has said so, and every epoch it has begun is complete.
    Reading,
    /// Bronze has an epoch that a table of silver lacks.
    BetweenBronzeAndSilver,
    /// Silver has an epoch that was not carried through gold.
    InGold,
    /// It was asked to stop and has not: it finishes its epoch and writes its state files; or one of those
    /// is there by half.
    WritingState,
}

const MOMENTS: [Moment; 5] = [
    Moment::Reading,
    Moment::BetweenBronzeAndSilver,
    Moment::InGold,
    Moment::StartingUp,
    Moment::WritingState,
];

/// How often, and from which seed.
#[derive(Debug, Clone, Copy)]
pub struct Kills {
    pub count: usize,
    seed: u64,
}

impl Kills {
    /// `PLAYHEAD_KILLS` and `PLAYHEAD_SEED`, or the usual ones.
    #[allow(clippy::disallowed_methods)] // Tests have no settings; the variables are documented here.
    pub fn from_environment(usual: usize) -> Kills {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
        Kills {
            count: number("PLAYHEAD_KILLS").map_or(usual, |count| usize::try_from(count).expect("a few hundred")),
            seed: number("PLAYHEAD_SEED").unwrap_or(20_260_101),
        }
    }

    /// So many moments have to be hit, each by about the same share of the kills.
    fn wanted(&self, moment: Moment) -> usize {
        let place = MOMENTS.iter().position(|other| *other == moment).expect("all are listed");
        (self.count + MOMENTS.len() - 1 - place) / MOMENTS.len()
    }

    /// Some kills miss; after so many the tally has to do.
    fn most(&self) -> usize {
        self.count + self.count / 2 + 2
    }

    /// Parts of the input: one for each kill, for a few that miss, and one for the daemon that is left.
    pub fn shares(&self) -> usize {
        self.count + self.count / 10 + 3
    }
}

/// Who hands out the input bit by bit, so that there is something to be killed over until the last kill.
pub trait Feeder {
    /// Everything up to share `upto` of `of` may go out.
    fn give(&self, upto: usize, of: usize);
    /// The daemon is about to die: nobody must take another process for it.
    fn hold(&self) {}
}

/// How often the daemon died where.
pub struct Tally(BTreeMap<Moment, usize>);

impl Tally {
    fn of(&self, moment: Moment) -> usize {
        self.0.get(&moment).copied().unwrap_or(0)
    }

    /// Fails unless every moment was hit as often as was asked for.
    #[track_caller]
    pub fn assert_complete(&self, kills: Kills) {
        for moment in MOMENTS {
            assert!(
                self.of(moment) >= kills.wanted(moment),
                "{moment:?} was hit too seldom: {:?}",
                self.0
            );
        }
    }
}

/// Starts daemons and kills each while its input comes in; returns the one that is left alone, which has
/// been given everything.
pub fn kill_while_fed(bench: &Bench, kills: Kills, start: &dyn Fn(&Bench, &Path) -> Daemon, feeder: &dyn Feeder) -> (Daemon, Tally) {
    println!(
        "{} kills, seed {}; PLAYHEAD_SEED={} draws them again",
        kills.count, kills.seed, kills.seed
    );
    let began = Instant::now();
    let mut dice = Dice(kills.seed);
    let mut tally = Tally(BTreeMap::new());
    let mut start_up = None;
    let mut rounds = 0;
    while let Some(aim) = next_aim(&tally, kills, rounds) {
        feeder.give((rounds + 1).min(kills.shares() - 1), kills.shares());
        rounds += 1;
        let life = Life::begin(bench);
        let mut daemon = start(bench, &bench.lake());
        let log = daemon.own_log();
        let was_asked = life.wait_for(aim, &mut daemon, &mut dice, &mut start_up);
        feeder.hold();
        let status = daemon.kill();
        let place = match status.signal() {
            Some(9) => life.place_of_death(&log.text(), was_asked),
            _ => {
                assert!(
                    was_asked && status.success(),
                    "the daemon ended by itself: {status}\n{}",
                    log.text()
                );
                None
            }
        };
        if let Some(place) = place {
            *tally.0.entry(place).or_default() += 1;
        }
        if rounds % TOLD_EVERY == 0 {
            println!("{rounds} daemons, {:.0} s: {:?}", began.elapsed().as_secs_f64(), tally.0);
        }
    }
    println!(
        "{rounds} daemons in {:.1} s, killed at {:?}, {} had stopped before",
        began.elapsed().as_secs_f64(),
        tally.0,
        rounds - tally.0.values().sum::<usize>()
    );
    let daemon = start(bench, &bench.lake());
    feeder.give(1, 1);
    (daemon, tally)
}

/// What has been hit least often of what was asked for.
fn next_aim(tally: &Tally, kills: Kills, rounds: usize) -> Option<Moment> {
    let missing = |moment: &Moment| kills.wanted(*moment).saturating_sub(tally.of(*moment));
    // The last of equals is taken, hence the other way round: reading comes first.
    let aim = MOMENTS.into_iter().rev().max_by_key(missing)?;
    (rounds < kills.most() && missing(&aim) > 0).then_some(aim)
}

/// One daemon from its start to its end, as seen from outside.
struct Life<'a> {
    bench: &'a Bench,
    bronze_before: usize,
    state_before: BTreeSet<StateFile>,
}

/// Name, size and time of a file beside the tables.
type StateFile = (PathBuf, u64, Option<SystemTime>);

impl Life<'_> {
    fn begin(bench: &Bench) -> Life<'_> {
        Life {
            bench,
            bronze_before: epochs_of(bench, "bronze/player_events").len(),
            state_before: state_files(bench),
        }
    }

    /// Waits until the moment seems to be there. True: the daemon was asked to stop.
    fn wait_for(&self, aim: Moment, daemon: &mut Daemon, dice: &mut Dice, start_up: &mut Option<Duration>) -> bool {
        let share = dice.share();
        let began = Instant::now();
        if let (Moment::StartingUp, Some(usual)) = (aim, *start_up) {
            std::thread::sleep(usual.mul_f64(share * 0.9));
            return false;
        }
        let log = daemon.own_log();
        daemon.wait_until("the daemon is running", || log.text().contains(RUNNING));
        *start_up = Some(start_up.unwrap_or(began.elapsed()).min(began.elapsed()));
        match aim {
            Moment::StartingUp => {}
            Moment::Reading => self.until(|| log.text().contains(CARRIED)),
            Moment::BetweenBronzeAndSilver => self.until_new("bronze"),
            Moment::InGold => {
                // What it makes good at its start is gold too, and no new epoch.
                self.until_new("bronze");
                self.until_new("gold");
            }
            Moment::WritingState => {
                // In the middle of its work, so that there is an epoch to finish.
                self.until_new("bronze");
                let before = state_files(self.bench);
                daemon.ask_to_stop();
                let until = Instant::now() + LONGEST_STOP.mul_f64(share);
                self.until(|| state_files(self.bench) != before || Instant::now() >= until);
                return true;
            }
        }
        let within = match aim {
            Moment::Reading => Duration::from_millis(150),
            Moment::BetweenBronzeAndSilver => Duration::from_millis(15),
            _ => Duration::from_millis(60),
        };
        std::thread::sleep(within.mul_f64(share));
        false
    }

    fn until(&self, holds: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Until a table of the layer has a new commit.
    fn until_new(&self, layer: &str) {
        let tables = match layer {
            "bronze" => vec![self.bench.lake().join("bronze/player_events")],
            _ => entries(&self.bench.lake().join(layer)),
        };
        let commits = || tables.iter().map(|table| commits_of(table).len()).collect::<Vec<_>>();
        let before = commits();
        self.until(|| commits() != before);
    }

    /// Where it died, by what it left. `None`: it had done everything.
    fn place_of_death(&self, log: &str, was_asked: bool) -> Option<Moment> {
        let is_half = |file: &StateFile| file.0.extension().is_some_and(|ending| ending == UNFINISHED);
        if state_files(self.bench).difference(&self.state_before).any(is_half) {
            return Some(Moment::WritingState);
        }
        if !log.contains(RUNNING) {
            return Some(Moment::StartingUp);
        }
        if was_asked {
            return (!log.contains(STOPPED)).then_some(Moment::WritingState);
        }
        let bronze = epochs_of(self.bench, "bronze/player_events");
        let newest = bronze.last().copied().unwrap_or(0);
        let covers = |table: &str| covered(&self.bench.lake().join("silver").join(table));
        if SILVER.iter().any(|table| covers(table) < newest) {
            return Some(Moment::BetweenBronzeAndSilver);
        }
        match log.matches(CARRIED).count() < bronze.len() - self.bronze_before {
            true => Some(Moment::InGold),
            false => Some(Moment::Reading),
        }
    }
}

// ---- what stands on disk ----

/// Versions and paths of a table's commits, oldest first.
fn commits_of(table: &Path) -> Vec<(u64, PathBuf)> {
    let mut commits: Vec<(u64, PathBuf)> = entries(&table.join("_delta_log"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .filter_map(|path| Some((path.file_stem()?.to_str()?.parse().ok()?, path)))
        .collect();
    commits.sort();
    commits
}

/// Versions of a table that brought an epoch; upkeep makes others.
fn epochs_of(bench: &Bench, table: &str) -> Vec<u64> {
    let commits = commits_of(&bench.lake().join(table)).into_iter();
    let is_epoch = |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"operation\":\"WRITE\""));
    commits.filter(|(_, path)| is_epoch(path)).map(|(version, _)| version).collect()
}

/// The version of bronze up to which a table of silver holds everything.
fn covered(table: &Path) -> u64 {
    let of_line = |line: &str| -> Option<u64> {
        let action: serde_json::Value = serde_json::from_str(line).ok()?;
        (action["txn"]["appId"] == "bronze.player_events").then(|| action["txn"]["version"].as_u64())?
    };
    let mut newest_first = commits_of(table).into_iter().rev();
    let found = newest_first.find_map(|(_, path)| std::fs::read_to_string(path).ok()?.lines().find_map(of_line));
    found.unwrap_or(0)
}

/// What lies in the daemon's folder and is neither a table nor the spool.
fn state_files(bench: &Bench) -> BTreeSet<StateFile> {
    const OTHERS: [&str; 7] = ["bronze", "silver", "gold", "ops", "spool", "playhead.lock", "playhead.key"];
    let mut found = BTreeSet::new();
    let mut folders = vec![bench.lake()];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            let is_other = path.file_name().is_some_and(|name| OTHERS.iter().any(|other| name == *other));
            match path.metadata() {
                Ok(_) if is_other => {}
                Ok(metadata) if metadata.is_dir() => folders.push(path),
                Ok(metadata) => {
                    found.insert((path, metadata.len(), metadata.modified().ok()));
                }
                // Given its name, or removed, since it was listed.
                Err(_) => {}
            }
        }
    }
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}
