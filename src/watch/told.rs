//! Firings that were told of late, and which of them were amended.
//!
//! Stands beside the judge of `watch`. A rule that says `on_late: amend` has the windows of these judged once more:
//! those that late data touch, and all of them after a start, for a crash may have come between gold and the judgement.
//!
//! Invariant: memory is bounded by time and by number; what is older is never amended.

use std::collections::{BTreeSet, VecDeque};

use crate::alert::{Fingerprint, Status, Transition};
use crate::sql::MINUTE_MS;

/// A firing of longer ago is not amended: a day covers what a phone sends when it is back.
const AMENDED_MS: i64 = 86_400_000;
/// Firings that are kept, the newest: each may be asked for after a start.
const TOLD_MAX: usize = 500;

type Key = (Fingerprint, i64, u32);

/// Firings of the last day, in order of their windows.
#[derive(Default)]
pub struct Told {
    firings: VecDeque<Transition>,
    amended: BTreeSet<Key>,
}

fn key(event: &Transition) -> Key {
    (event.fingerprint.clone(), event.starts_at_ms, event.seq)
}

impl Told {
    /// Takes up what has been recorded, in order of event time.
    pub fn note<'e>(&mut self, events: impl IntoIterator<Item = &'e Transition>) {
        for event in events.into_iter().filter(|event| event.is_sent()) {
            match event.status {
                Status::Firing => self.firings.push_back(event.clone()),
                Status::Amended => _ = self.amended.insert(key(event)),
                _ => {}
            }
        }
        let newest_ms = self.firings.back().map_or(i64::MIN, |event| event.window_end_ms);
        let is_old = |event: &Transition| event.window_end_ms < newest_ms.saturating_sub(AMENDED_MS);
        while self.firings.len() > TOLD_MAX || self.firings.front().is_some_and(is_old) {
            if let Some(old) = self.firings.pop_front() {
                self.amended.remove(&key(&old));
            }
        }
    }

    /// Firings that are not amended yet and have one of these minutes in their window; all of them for none.
    pub fn touched(&self, minutes: Option<&BTreeSet<i64>>) -> Vec<Transition> {
        let is_touched = |event: &&Transition| match minutes {
            None => true,
            Some(minutes) => {
                let window = event.window_start_ms.div_euclid(MINUTE_MS)..event.window_end_ms.div_euclid(MINUTE_MS);
                minutes.range(window).next().is_some()
            }
        };
        let open = self.firings.iter().filter(|event| !self.amended.contains(&key(event)));
        open.filter(is_touched).cloned().collect()
    }
}
