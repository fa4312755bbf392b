//! Windows that were computed once and have changed since, and which of them a run leaves for a later one.
//!
//! Stands beside `rollup`. A session changes the minute that it began in until it ends, so every epoch touches
//! minutes of the last hour. After an epoch that nothing waits behind they are computed at once. In a backlog
//! event time flies: computed after each epoch, a minute would be computed a dozen times in a few seconds, and
//! ingest would wait for it. Pure: who calls says when it is time for all.
//!
//! Invariant: a window later than all that were computed is never left, nor what a coarser one needs that is.
//! Invariant: what is left stays pending, and is said to be so in the table's log like any other.

use std::collections::BTreeSet;

/// Which of the due windows a run computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Those that are new; there will be a run of `Closed` soon.
    New,
    /// All that the watermark has closed.
    Closed,
    /// Closed or not: the input has ended.
    Everything,
}

/// The newest window of one table that this process has computed, by the minute it starts in.
#[derive(Debug, Default, Clone, Copy)]
pub struct Front(Option<i64>);

impl Front {
    pub fn advance(&mut self, computed: &BTreeSet<i64>) {
        self.0 = self.0.max(computed.last().copied());
    }

    /// After a start nothing is known to have been computed, so everything is new.
    fn is_new(self, window: i64) -> bool {
        self.0.is_none_or(|front| window > front)
    }

    /// Minutes of the windows among these that are new.
    pub fn new_minutes(self, due: &BTreeSet<i64>, width: i64) -> impl Iterator<Item = i64> {
        let new = due.iter().copied().filter(move |window| self.is_new(*window));
        new.flat_map(move |window| window..window + width)
    }

    /// Takes the windows that can wait out of `due` and returns them. `needed`: minutes that new windows of
    /// coarser tables are made of.
    pub fn put_off(self, due: &mut BTreeSet<i64>, width: i64, needed: &BTreeSet<i64>) -> BTreeSet<i64> {
        let is_needed = |window: i64| needed.range(window..window + width).next().is_some();
        due.extract_if(.., |window| !self.is_new(*window) && !is_needed(*window)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(computed: impl IntoIterator<Item = i64>) -> Front {
        let mut front = Front::default();
        front.advance(&computed.into_iter().collect());
        front
    }

    #[test]
    fn what_was_computed_waits_and_what_is_new_does_not() {
        let mut due = BTreeSet::from([3, 9, 10, 11]);
        assert_eq!(front([8, 10]).put_off(&mut due, 1, &BTreeSet::new()), BTreeSet::from([3, 9, 10]));
        assert_eq!(due, BTreeSet::from([11]));
    }

    #[test]
    fn minutes_of_a_new_coarser_window_do_not_wait() {
        let hours = BTreeSet::from([0, 60]);
        let needed: BTreeSet<i64> = front([0]).new_minutes(&hours, 60).collect();
        assert_eq!((needed.first(), needed.last()), (Some(&60), Some(&119)));
        let mut minutes = BTreeSet::from([58, 60, 119]);
        assert_eq!(front([130]).put_off(&mut minutes, 1, &needed), BTreeSet::from([58]));
        let mut fives = BTreeSet::from([55, 60, 115]);
        assert_eq!(front([130]).put_off(&mut fives, 5, &needed), BTreeSet::from([55]));
    }

    #[test]
    fn after_a_start_nothing_waits() {
        let mut due = BTreeSet::from([1, 2]);
        assert!(front([]).put_off(&mut due, 1, &BTreeSet::new()).is_empty());
        assert_eq!(due.len(), 2);
    }
}
