//! A simulated audience as a file, the tables that `playhead ingest` makes of it, and the wait until
//! another lake holds the same.

use std::collections::BTreeMap;

use crate::daemon::Daemon;
use crate::support::{Bench, contents, simulate};

/// What differs between two lakes is shown up to this many characters a row.
const SHOWN_CHARS: usize = 400;

/// Lines of events and what they are worth.
pub struct Audience {
    pub lines: Vec<String>,
    pub tables: BTreeMap<String, Vec<String>>,
}

impl Audience {
    /// Half an hour of so many sessions; `seed` tells audiences apart.
    pub fn simulated(sessions: u32, seed: u32) -> Audience {
        Audience::simulated_over(30, sessions, seed)
    }

    /// So many minutes of so many sessions.
    pub fn simulated_over(minutes: u32, sessions: u32, seed: u32) -> Audience {
        let bench = Bench::new();
        let [minutes, sessions, seed] = [minutes, sessions, seed].map(|number| number.to_string());
        let folder = simulate(&bench, &["--sessions", &sessions, "--seed", &seed, "--minutes", &minutes]);
        let file = folder.join("player.ndjson");
        let text = std::fs::read_to_string(&file).expect("the simulation wrote it");
        bench.ingest(&[&file]);
        Audience {
            lines: text.lines().map(str::to_string).collect(),
            tables: contents(&bench),
        }
    }

    /// Number `index` of `of` equal shares of the lines, in their order.
    pub fn share(&self, index: usize, of: usize) -> &[String] {
        let at = |index: usize| self.lines.len() * index / of;
        &self.lines[at(index)..at(index + 1)]
    }

    /// How many lines the first shares have.
    pub fn first(&self, shares: usize, of: usize) -> usize {
        self.lines.len() * shares / of
    }

    /// Waits until the lake that the daemon writes holds what the one made of the file does, and every
    /// line was taken once.
    #[track_caller]
    pub fn wait_until_equal(&self, daemon: &mut Daemon, bench: &Bench) {
        self.wait_until_held_once(daemon, bench);
        let read_again = bench.value("SELECT coalesce(sum(duplicates), 0) AS n FROM silver.duplicates");
        assert_eq!(read_again, 0, "records were read twice\n{}", daemon.log());
    }

    /// As `wait_until_equal`, where senders may have sent a line twice.
    #[track_caller]
    pub fn wait_until_held_once(&self, daemon: &mut Daemon, bench: &Bench) {
        wait_for(daemon, bench, self.lines.len());
        let mut shown = String::new();
        // Partitions that have nothing more are released after half a minute; until then sessions stay open.
        daemon.wait_until("the tables are those of the file", || {
            let difference = self.difference(bench);
            if !difference.is_empty() && difference != shown {
                println!("not yet: {difference}");
            }
            shown = difference;
            shown.is_empty()
        });
    }

    /// The first row of the first table that is not as it should be; empty: there is none.
    fn difference(&self, bench: &Bench) -> String {
        // One look is cheaper than eleven, and tells most of the time that it is too early.
        let sessions = bench.int("SELECT count(*) AS n FROM gold.audience_1m");
        let expected = self.tables["gold.audience_1m"].len();
        if sessions != to_rows(expected) {
            return format!("{sessions} rows of gold.audience_1m instead of {expected}");
        }
        let found = contents(bench);
        for (table, expected) in &self.tables {
            let found = &found[table];
            if found == expected {
                continue;
            }
            let first = |rows: &[String], others: &[String]| -> String {
                let row = rows.iter().find(|row| !others.contains(row)).cloned().unwrap_or_default();
                row.chars().take(SHOWN_CHARS).collect()
            };
            return format!(
                "{table} has {} rows instead of {}; has {}; should have {}",
                found.len(),
                expected.len(),
                first(found, expected),
                first(expected, found)
            );
        }
        String::new()
    }
}

/// Player events in bronze; none while there is no table yet.
pub fn received(bench: &Bench) -> usize {
    let output = bench.run(&["sql", "--json", "SELECT count(*) AS n FROM bronze.player_events"]);
    if !output.status.success() {
        return 0;
    }
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the answer is JSON");
    rows[0]["n"].as_u64().and_then(|rows| usize::try_from(rows).ok()).expect("a count")
}

/// Waits until so many player events are in bronze, for as long as there are more from time to time.
#[track_caller]
pub fn wait_for(daemon: &mut Daemon, bench: &Bench, rows: usize) {
    let mut held = 0;
    while held < rows {
        let before = held;
        daemon.wait_until(&format!("more than {before} of {rows} events are in bronze"), || {
            held = received(bench);
            held > before
        });
    }
}

fn to_rows(rows: usize) -> i64 {
    i64::try_from(rows).expect("a few")
}
