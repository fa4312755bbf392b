//! Which file of a table holds which rows, for tables whose rows are edited one by one.
//!
//! An edit names its rows by id and time. Statistics tell a file's span of time alone, and a session that
//! began hours ago may still change: by them every edit would read all files of those hours. So the names
//! of a file's rows are kept as hashes. They are read once, for a file never changes.
//!
//! Invariant: a file that is not known here is looked into, never passed over. Two rows with one hash cost
//! a look and nothing else.

use std::collections::{BTreeSet, HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Rows that are remembered in a table, 8 bytes each: a day of eight million sessions. What is more is
/// read anew, its names alone.
const ROWS_MAX: usize = 8_000_000;

/// What a row is remembered by.
pub fn row_hash(id: &str, time_us: i64) -> u64 {
    xxh3_64_with_seed(id.as_bytes(), time_us.cast_unsigned())
}

/// What one file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub rows: Vec<u64>,
    /// Rows that are expected to change.
    pub has_open: bool,
}

#[derive(Debug)]
struct Known {
    contents: Contents,
    /// Turn in which it was last asked for.
    asked: u64,
}

/// What is known of one table's files, by their names without the folder.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    files: HashMap<String, Known>,
    rows: usize,
    turn: u64,
}

impl Whereabouts {
    /// Those of these files that have to be looked into.
    pub(super) fn unknown<'a>(&self, paths: impl Iterator<Item = &'a str>) -> Vec<String> {
        paths
            .filter(|path| !self.files.contains_key(file_name(path)))
            .map(str::to_owned)
            .collect()
    }

    pub(super) fn learn(&mut self, path: &str, contents: Contents) {
        self.rows += contents.rows.len();
        let known = Known {
            contents,
            asked: self.turn,
        };
        if let Some(before) = self.files.insert(file_name(path).to_owned(), known) {
            self.rows -= before.contents.rows.len();
        }
    }

    /// Those of these files that hold one of the wanted rows, or are not known.
    pub(super) fn holding<'a>(&mut self, paths: impl Iterator<Item = &'a str>, wanted: &HashSet<u64>) -> Vec<String> {
        self.turn += 1;
        let turn = self.turn;
        let held = paths.filter(|path| {
            let Some(known) = self.files.get_mut(file_name(path)) else {
                return true;
            };
            known.asked = turn;
            known.contents.rows.iter().any(|row| wanted.contains(row))
        });
        held.map(str::to_owned).collect()
    }

    /// True for a file that is known to hold rows which are expected to change.
    pub(super) fn has_open(&self, path: &str) -> bool {
        self.files.get(file_name(path)).is_some_and(|known| known.contents.has_open)
    }

    /// Forgets files that the table has no more, and past the bound those that were not asked for longest.
    pub(super) fn forget(&mut self, removed: &[String]) {
        for path in removed {
            self.drop_file(file_name(path).to_owned());
        }
        if self.rows <= ROWS_MAX {
            return;
        }
        let by_age: BTreeSet<(u64, String)> = self.files.iter().map(|(name, known)| (known.asked, name.clone())).collect();
        for (_, name) in by_age {
            if self.rows <= ROWS_MAX {
                break;
            }
            self.drop_file(name);
        }
    }

    fn drop_file(&mut self, name: String) {
        if let Some(known) = self.files.remove(&name) {
            self.rows -= known.contents.rows.len();
        }
    }
}

/// Names hold a UUID each; a scan tells files by their whole address, the log by their path in the table.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(rows: impl IntoIterator<Item = u64>) -> Contents {
        Contents {
            rows: rows.into_iter().collect(),
            has_open: false,
        }
    }

    #[test]
    fn files_that_hold_none_of_the_rows_are_passed_over_and_unknown_ones_never() {
        let mut whereabouts = Whereabouts::default();
        whereabouts.learn("event_date=2026-01-01/a.parquet", contents([1, 2]));
        whereabouts.learn("event_date=2026-01-01/b.parquet", contents([3]));
        let paths = ["file:///lake/x/event_date=2026-01-01/a.parquet", "b.parquet", "c.parquet"];
        assert_eq!(whereabouts.unknown(paths.into_iter()), ["c.parquet"]);
        let held = whereabouts.holding(paths.into_iter(), &HashSet::from([2]));
        assert_eq!(held, [paths[0], "c.parquet"]);
    }

    #[test]
    fn a_file_that_went_is_forgotten_and_past_the_bound_the_one_asked_for_least_lately() {
        let mut whereabouts = Whereabouts::default();
        whereabouts.learn("old", contents(0..10));
        whereabouts.learn("gone", contents(0..10));
        whereabouts.holding(["gone"].into_iter(), &HashSet::new());
        whereabouts.learn("large", contents(0..ROWS_MAX as u64));
        whereabouts.forget(&["x/gone".to_owned()]);
        assert_eq!(whereabouts.unknown(["old", "gone", "large"].into_iter()), ["old", "gone"]);
        assert_eq!(whereabouts.rows, ROWS_MAX);
    }

    #[test]
    fn a_row_is_told_by_its_id_and_its_time() {
        assert_ne!(row_hash("a", 1), row_hash("a", 2));
        assert_ne!(row_hash("a", 1), row_hash("b", 1));
    }
}
