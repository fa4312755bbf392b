//! A start from a snapshot of the sessions gives what a start that reads the lake gives, and so does one
//! whose snapshot is damaged.

use std::path::{Path, PathBuf};

use crate::audience::{Audience, wait_for};
use crate::daemon::Daemon;
use crate::kill_loops::SMALL_EPOCHS;
use crate::support::{Bench, files_below};

/// One event in so many of the first third comes late.
const LATE: usize = 5;
const TAKEN_UP: &str = "open sessions are taken up from the snapshot";

#[test]
fn a_start_from_a_snapshot_or_without_one_leads_to_the_same_tables() {
    let audience = Audience::simulated(60, 21);
    let bench = Bench::new();
    let incoming = Incoming::of(&bench);
    let settings = incoming.settings();
    let (late, in_time): (Vec<_>, Vec<_>) = audience.share(0, 3).iter().enumerate().partition(|(number, _)| number % LATE == 0);

    incoming.give(0, in_time.iter().map(|(_, line)| line.as_str()));
    let mut daemon = Daemon::start(&bench, &settings);
    wait_for(&mut daemon, &bench, in_time.len());
    assert!(daemon.stop().success());
    assert!(!snapshots(&bench.lake()).is_empty(), "it was written when the daemon stopped");

    // Commits that the snapshot lacks, some with what comes before all that its sessions know.
    let mut daemon = Daemon::start(&bench, &settings);
    incoming.give(1, audience.share(1, 3).iter().map(String::as_str));
    wait_for(&mut daemon, &bench, in_time.len() + audience.share(1, 3).len());
    incoming.give(2, late.iter().map(|(_, line)| line.as_str()));
    wait_for(&mut daemon, &bench, audience.first(2, 3));
    // Of an epoch that is cut off between two tables no snapshot is sure: two days are read then.
    let log = daemon.own_log();
    let given = audience.first(2, 3) - in_time.len();
    daemon.wait_until("the last epoch has ended", || records_of_epochs(&log.text()) == given);
    daemon.kill();

    let without = copy_of(&bench);
    let damaged = copy_of(&bench);
    std::fs::remove_dir_all(without.lake().join("state")).expect("the copy has it");
    for path in snapshots(&damaged.lake()) {
        std::fs::write(path, "playhead-sessions {}\n").expect("a copy can be written");
    }
    incoming.give(3, audience.share(2, 3).iter().map(String::as_str));
    for (bench, is_taken_up) in [(&bench, true), (&without, false), (&damaged, false)] {
        let mut daemon = Daemon::start(bench, &settings);
        audience.wait_until_equal(&mut daemon, bench);
        let log = daemon.own_log().text();
        assert!(daemon.stop().success());
        assert_eq!(log.contains(TAKEN_UP), is_taken_up, "{log}");
        assert!(!is_taken_up || !log.contains("and 0 commits after it"), "{log}");
    }
}

/// Records of the epochs that have ended.
fn records_of_epochs(log: &str) -> usize {
    let received = log.lines().filter_map(|line| line.split_once("epoch committed received="));
    let received = received.filter_map(|(_, rest)| rest.split_whitespace().next()?.parse::<usize>().ok());
    received.sum()
}

/// A folder of the first lake, which all of them read.
struct Incoming<'a> {
    bench: &'a Bench,
}

impl Incoming<'_> {
    fn of(bench: &Bench) -> Incoming<'_> {
        std::fs::create_dir(bench.path("incoming")).expect("a folder can be made");
        Incoming { bench }
    }

    fn settings(&self) -> String {
        let folder = self.bench.path("incoming");
        format!("sources:\n  - name: files\n    path: {}\n{SMALL_EPOCHS}", folder.display())
    }

    fn give<'a>(&self, number: usize, lines: impl Iterator<Item = &'a str>) {
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let written = self.bench.write(&format!("elsewhere/part-{number}.ndjson"), text);
        let moved = self.bench.path("incoming").join(format!("part-{number}.ndjson"));
        std::fs::rename(written, moved).expect("a file can be moved");
    }
}

fn snapshots(lake: &Path) -> Vec<PathBuf> {
    let folder = lake.join("state");
    let names = files_below(&folder).into_keys();
    names
        .filter(|name| name.extension().is_some_and(|ending| ending == "snapshot"))
        .map(|name| folder.join(name))
        .collect()
}

/// Another daemon's lake, as this one stands.
fn copy_of(bench: &Bench) -> Bench {
    let copy = Bench::new();
    for (name, bytes) in files_below(&bench.lake()) {
        let to = copy.lake().join(name);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder can be made");
        std::fs::write(to, bytes).expect("a file can be written");
    }
    copy
}
