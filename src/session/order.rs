//! Order: where a sender's sequence numbers contradict its times (events and metrics, 2.4).
//!
//! Stands above `timeline`, which derives sessions from the events in the order made here. Events come
//! in order of time; the number of the same source is trusted over the time, a few seconds far.
//!
//! Invariant: times never go back in the order made, and an event without a number keeps its place.
//! Invariant: only events within `LOOK_BACK_MS` of each other change places.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::EventDetail;
use super::events::Kept;
use crate::event::names::Name;

/// A sender whose clock is further off than this has other troubles than order.
pub const LOOK_BACK_MS: i64 = 10_000;
/// Neighbours looked at: a burst of reports at one instant must not cost the square of its length.
const LOOK_BACK_EVENTS: usize = 64;

/// The events in the order of their numbers where those contradict their times. An event that goes
/// before one of an earlier time is marked `is_mended`, and what follows it has at least its time.
pub fn in_sequence<'a>(events: &'a [Kept], details: &[EventDetail]) -> Cow<'a, [Kept]> {
    let Some(first) = first_conflict(events, details) else {
        return Cow::Borrowed(events);
    };
    let mut ordered = events[..first].to_vec();
    for event in &events[first..] {
        let mut event = event.clone();
        match overtakes(&ordered, &event, details) {
            Some(at) => {
                event.is_mended = true;
                ordered.insert(at, event);
            }
            None => ordered.push(event),
        }
    }
    let mut now_ms = i64::MIN;
    for event in &mut ordered {
        now_ms = now_ms.max(event.event_ts_ms);
        event.event_ts_ms = now_ms;
    }
    Cow::Owned(ordered)
}

/// Whether `in_sequence` leaves these events as they are.
pub fn is_in_sequence(events: &[Kept], details: &[EventDetail]) -> bool {
    first_conflict(events, details).is_none()
}

/// Place of the first event whose number contradicts its time.
fn first_conflict(events: &[Kept], details: &[EventDetail]) -> Option<usize> {
    // As nearly always: who looks back from a number that is the highest so far finds nothing.
    if events.iter().filter_map(|event| event.seq).is_sorted() {
        return None;
    }
    (0..events.len()).find(|at| overtakes(&events[..*at], &events[*at], details).is_some())
}

/// How many of these events, at most so many, no number of a later one moves: they may be put in
/// sequence without the rest, and the rest without them.
pub fn settled_count(events: &[Kept], at_most: usize, details: &[EventDetail]) -> usize {
    let mut count = at_most;
    let mut at = count;
    while count > 0
        && let Some(event) = events.get(at)
        && event.event_ts_ms - events[count - 1].event_ts_ms <= LOOK_BACK_MS
    {
        match overtakes(&events[..at], event, details).filter(|first| *first < count) {
            // Those from the first that is moved on are not settled, and may move others.
            Some(first) => (count, at) = (first, first),
            None => at += 1,
        }
    }
    count
}

/// Place of the first neighbour that the sender numbered after `event`.
fn overtakes(before: &[Kept], event: &Kept, details: &[EventDetail]) -> Option<usize> {
    let seq = event.seq?;
    let source_of = |event: &Kept| details[event.detail as usize].source;
    let near = before.iter().enumerate().rev().take(LOOK_BACK_EVENTS);
    near.take_while(|(_, other)| other.event_ts_ms >= event.event_ts_ms - LOOK_BACK_MS)
        .filter(|(_, other)| other.seq.is_some_and(|of_other| of_other > seq) && source_of(other) == source_of(event))
        .map(|(at, _)| at)
        .last()
}

/// The highest number of a source.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Highest {
    #[serde(with = "crate::event::names::one")]
    source: Name,
    seq: i64,
}

/// Reports that a sender numbered and that never came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Numbering {
    /// Of each source.
    highest: Vec<Highest>,
    pub lost: i64,
}

/// A wider gap is a sender that numbers by something else, such as a clock.
const GAP_MAX: i64 = 100_000;

impl Numbering {
    /// Takes the number of the next event. A number from before fills a gap; 0 begins anew.
    pub fn take(&mut self, seq: Option<i64>, source: &'static str) {
        let Some(seq) = seq else {
            return;
        };
        // Names are mostly one and the same text: looking at its place spares looking into it.
        let is_of_source = |highest: &&mut Highest| std::ptr::eq(highest.source, source) || highest.source == source;
        let Some(highest) = self.highest.iter_mut().find(is_of_source) else {
            self.highest.push(Highest { source, seq });
            return;
        };
        let highest = &mut highest.seq;
        let missing = seq.saturating_sub(*highest).saturating_sub(1);
        if seq > *highest {
            self.lost += if missing <= GAP_MAX { missing } else { 0 };
            *highest = seq;
        } else if seq == 0 {
            *highest = 0;
        } else if seq < *highest {
            self.lost = (self.lost - 1).max(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fixtures::{T0, facts, script, stored};

    /// Numbers and times, in seconds, in the order made.
    fn check(text: &str, expected: &[(i64, f64)]) {
        let store = stored(script(text));
        let ordered = in_sequence(&store.events, &store.details);
        let order: Vec<(i64, f64)> = ordered
            .iter()
            .map(|event| (event.seq.unwrap_or(-1), (event.event_ts_ms - T0) as f64 / 1_000.0))
            .collect();
        assert_eq!(order, expected, "\n{text}");
    }

    #[test]
    fn the_number_is_trusted_over_the_time_for_ten_seconds() {
        check("1 heartbeat seq=1\n2 heartbeat seq=2", &[(1, 1.0), (2, 2.0)]);
        check("1 heartbeat seq=2\n2 heartbeat seq=1", &[(1, 2.0), (2, 2.0)]);
        check(
            "1 heartbeat seq=3\n2 heartbeat seq=1\n3 heartbeat seq=2",
            &[(1, 2.0), (2, 3.0), (3, 3.0)],
        );
        check("1 heartbeat seq=2\n11 heartbeat seq=1", &[(1, 11.0), (2, 11.0)]);
        check("1 heartbeat seq=2\n11.001 heartbeat seq=1", &[(2, 1.0), (1, 11.001)]);
        check(
            "1 heartbeat seq=2\n2 heartbeat\n3 heartbeat seq=1",
            &[(1, 3.0), (2, 3.0), (-1, 3.0)],
        );
        check("1 heartbeat seq=2 source=ivs\n2 heartbeat seq=1 source=epas", &[(2, 1.0), (1, 2.0)]);
    }

    #[test]
    fn gaps_in_the_numbers_are_lost_reports() {
        let counts = |text: &str| {
            let session = &facts(text, "-")[0].session;
            (session.lost_reports, session.order_conflicts)
        };
        assert_eq!(counts("0 heartbeat seq=4\n1 heartbeat seq=5\n2 heartbeat seq=9"), (3, 0));
        assert_eq!(counts("0 heartbeat seq=4\n1 heartbeat seq=9\n2 heartbeat seq=6"), (3, 1));
        assert_eq!(counts("0 heartbeat seq=4\n1 heartbeat seq=9\n20 heartbeat seq=6"), (3, 0));
        assert_eq!(counts("0 heartbeat seq=4\n20 heartbeat seq=0\n40 heartbeat seq=2"), (1, 0));
        assert_eq!(counts("0 heartbeat seq=1\n1 heartbeat seq=9999999"), (0, 0));
        assert_eq!(
            counts("0 heartbeat seq=1 source=ivs\n1 heartbeat seq=7 source=epas\n2 heartbeat seq=3 source=ivs"),
            (1, 0)
        );
    }
}
