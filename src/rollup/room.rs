//! How many minutes one run of a table's pipeline may span, and which windows do not fit at all.
//!
//! Stands beside `rollup`, one `Room` a table. A run that passes its memory is halved and tried again,
//! down to a single window; one that does not fit by itself is put aside and tried at ever rarer runs.
//! Pure: a run is counted, not timed.
//!
//! Invariant: every refusal either narrows the runs or puts a window aside, so a table's turn ends.

use std::collections::{BTreeMap, BTreeSet};

/// Runs that a window which did not fit is left in peace for, at first and at the most; each refusal
/// doubles it. A run follows every epoch: at one every five seconds, three minutes to an hour and a half.
const FIRST_WAIT_RUNS: u64 = 32;
const LONGEST_WAIT_RUNS: u64 = 1024;

/// Rows that a run makes, as far as those of the run before tell: some kilobytes each while they are grouped,
/// with their sketches, and again while they are written: 30 KB a row of `gold.playback_1m`.
const ROWS_PER_RUN: usize = 8_192;

/// What a table's runs have found out about memory. Lives as long as the process.
#[derive(Debug)]
pub struct Room {
    /// Minutes that a run may span.
    minutes: i64,
    /// The widest run that fitted, minutes.
    fitted_minutes: i64,
    /// Of the last run.
    rows_per_minute: usize,
    run: u64,
    aside: BTreeMap<i64, Aside>,
}

#[derive(Debug)]
struct Aside {
    wait_runs: u64,
    until_run: u64,
}

/// What follows from a run that did not fit.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// Runs are narrower from now on; the same windows are to be tried again.
    Narrowed { minutes: i64 },
    /// This window alone does not fit. `is_new`: it was not known before.
    Alone { window: i64, is_new: bool },
}

impl Room {
    /// `minutes` that a run may span at first.
    pub fn new(minutes: i64) -> Room {
        Room {
            minutes,
            fitted_minutes: 0,
            rows_per_minute: 0,
            run: 0,
            aside: BTreeMap::new(),
        }
    }

    /// Begins a run: takes the windows that are put aside out of `windows` and returns them. `is_last`:
    /// there will be no later run, so all are tried.
    pub fn put_aside(&mut self, windows: &mut BTreeSet<i64>, is_last: bool) -> BTreeSet<i64> {
        self.run += 1;
        let waits = |window: &i64| !is_last && self.aside.get(window).is_some_and(|aside| aside.until_run > self.run);
        let waiting: BTreeSet<i64> = windows.iter().copied().filter(waits).collect();
        windows.retain(|window| !waiting.contains(window));
        waiting
    }

    /// The first of the windows, as many as one run may span.
    pub fn first_run(&self, windows: &BTreeSet<i64>) -> BTreeSet<i64> {
        let Some(first) = windows.first() else { return BTreeSet::new() };
        let by_rows = ROWS_PER_RUN
            .checked_div(self.rows_per_minute)
            .and_then(|minutes| i64::try_from(minutes).ok());
        let minutes = by_rows.map_or(self.minutes, |minutes| minutes.clamp(1, self.minutes.max(1)));
        windows.iter().copied().take_while(|window| window - first < minutes).collect()
    }

    /// These windows of `width` minutes were computed and came to so many rows.
    pub fn fitted(&mut self, windows: &BTreeSet<i64>, width: i64, rows: usize) {
        let minutes = windows.len() * usize::try_from(width).unwrap_or(1);
        self.rows_per_minute = rows.div_ceil(minutes.max(1));
        self.fitted_minutes = self.fitted_minutes.max(span(windows, width));
        self.aside.retain(|window, _| !windows.contains(window));
    }

    /// These windows of `width` minutes needed more memory than there is.
    pub fn refused(&mut self, windows: &BTreeSet<i64>, width: i64) -> Refused {
        if windows.len() > 1 {
            self.minutes = (span(windows, width) / 2).max(width);
            return Refused::Narrowed { minutes: self.minutes };
        }
        let window = windows.first().copied().unwrap_or_default();
        // One heavy window is no reason to compute all others one by one.
        self.minutes = self.minutes.max(self.fitted_minutes);
        let before = self.aside.get(&window).map(|aside| aside.wait_runs);
        let wait_runs = before.map_or(FIRST_WAIT_RUNS, |runs| (runs * 2).min(LONGEST_WAIT_RUNS));
        let until_run = self.run + wait_runs;
        self.aside.insert(window, Aside { wait_runs, until_run });
        Refused::Alone {
            window,
            is_new: before.is_none(),
        }
    }
}

fn span(windows: &BTreeSet<i64>, width: i64) -> i64 {
    match (windows.first(), windows.last()) {
        (Some(first), Some(last)) => last - first + width,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computes minutes of which each weighs 1 but those of `heavy`, under a limit; tells the runs in turn.
    fn carry(room: &mut Room, minutes: std::ops::Range<i64>, heavy: &[(i64, i64)], limit: i64) -> String {
        let weight = |minute: &i64| heavy.iter().find(|(at, _)| at == minute).map_or(1, |(_, weight)| *weight);
        let mut left: BTreeSet<i64> = minutes.collect();
        let mut told = Vec::new();
        for window in room.put_aside(&mut left, false) {
            told.push(format!("wait {window}"));
        }
        while !left.is_empty() {
            let some = room.first_run(&left);
            let name = format!("{}+{}", some.first().expect("there is one"), some.len());
            if some.iter().map(weight).sum::<i64>() <= limit {
                room.fitted(&some, 1, some.len());
                left.retain(|window| !some.contains(window));
                told.push(name);
                continue;
            }
            match room.refused(&some, 1) {
                Refused::Narrowed { minutes } => told.push(format!("{name}>{minutes}")),
                Refused::Alone { window, is_new } => {
                    left.remove(&window);
                    told.push(format!("{}{window}", if is_new { "aside " } else { "still " }));
                }
            }
        }
        told.join(" ")
    }

    #[test]
    fn a_run_that_does_not_fit_is_halved_and_the_width_that_fits_is_kept() {
        let mut room = Room::new(16);
        assert_eq!(carry(&mut room, 0..16, &[], 5), "0+16>8 0+8>4 0+4 4+4 8+4 12+4");
        assert_eq!(carry(&mut room, 20..28, &[], 5), "20+4 24+4");
    }

    #[test]
    fn a_window_that_does_not_fit_alone_is_put_aside_and_the_others_go_on() {
        let mut room = Room::new(8);
        let told = carry(&mut room, 0..8, &[(5, 100)], 8);
        assert_eq!(told, "0+8>4 0+4 4+4>2 4+2>1 4+1 aside 5 6+2");
        assert_eq!(carry(&mut room, 5..9, &[(5, 100)], 8), "wait 5 6+3");
    }

    #[test]
    fn what_was_put_aside_is_tried_ever_more_rarely_until_it_fits() {
        let mut room = Room::new(8);
        let mut tried = Vec::new();
        for run in 0..4000 {
            if !carry(&mut room, 5..6, &[(5, 100)], 8).starts_with("wait") {
                tried.push(run);
            }
        }
        assert_eq!(tried, [0, 32, 96, 224, 480, 992, 2016, 3040]);
        while carry(&mut room, 5..6, &[], 8).starts_with("wait") {}
        assert_eq!(carry(&mut room, 5..6, &[(5, 100)], 8), "aside 5", "it had fitted in between");
    }

    #[test]
    fn the_last_run_of_all_tries_everything() {
        let mut room = Room::new(8);
        carry(&mut room, 5..6, &[(5, 100)], 8);
        let mut windows = BTreeSet::from([5, 6]);
        assert!(room.put_aside(&mut windows, true).is_empty());
        assert_eq!(windows, BTreeSet::from([5, 6]));
    }

    #[test]
    fn many_rows_a_minute_make_narrower_runs() {
        let mut room = Room::new(180);
        let hour: BTreeSet<i64> = (0..60).collect();
        assert_eq!(room.first_run(&hour).len(), 60);
        room.fitted(&BTreeSet::from([0, 1]), 1, ROWS_PER_RUN / 4);
        assert_eq!(room.first_run(&hour).len(), 8);
        room.fitted(&BTreeSet::from([0]), 1, 10 * ROWS_PER_RUN);
        assert_eq!(room.first_run(&hour).len(), 1, "never none");
        room.fitted(&BTreeSet::from([0]), 1, 0);
        assert_eq!(room.first_run(&hour).len(), 60);
    }

    #[test]
    fn wide_windows_are_taken_one_by_one() {
        let mut room = Room::new(180);
        let days = BTreeSet::from([0, 1440]);
        assert_eq!(room.first_run(&days), BTreeSet::from([0]));
        assert_eq!(room.refused(&BTreeSet::from([0]), 1440), Refused::Alone { window: 0, is_new: true });
    }
}
