//! The keys of one shard: what is kept of each, and when to look again.
//!
//! Stands behind `Sessions`, which sends each key to one shard; a shard knows no other. Rows are not
//! kept: what they were is derived again before a key's events change, and compared with what they are.
//!
//! Invariant: after `step`, every key's rows are those of its events at the watermark of that step.
//! Invariant: a key in memory has exactly one entry in `due`, at or before the watermark at which its
//! rows change by themselves or it may leave.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::checkpoint::{self, Fit, Memory, Work};
use super::parts::Parts;
use super::pieces::Piece;
use super::shelves::{Place, Shelves};
use super::slots::{SessionKey, Slot, Slots, Time};
use super::timeline::{self, SessionFacts, Step};
use super::{FactChanges, KeyedEvent, SessionEvent, SessionSettings};

/// How much longer than the idle gap a closed key stays, so that a little lateness costs no read from
/// the lake.
const EVICTION_SLACK_MS: i64 = 5 * 60_000;

/// More unsettled events of one key are settled: an hour of heartbeats every 30 s has twice as many.
const TAIL_EVENTS_MAX: usize = 64;

/// With more unsettled events in all shards, keys are packed and settled as they are touched, and with
/// each of them one that is not. Unpacked, an event takes about 500 bytes with its share of the key.
const EVENTS_MAX: usize = 250_000;

/// In need, a step looks at so many slots for each key that it touches, for one that is still open.
const SOUGHT_PER_VISIT: usize = 16;

/// In need, an event this far behind the watermark is settled; a later one costs a read from the lake. A
/// minute more takes 40 bytes of every open session.
const SETTLE_LAG_MS: i64 = 30_000;

/// When events are settled, and keys packed.
#[derive(Debug, Clone, Copy)]
pub struct Folding {
    /// Of more events of one key, half are settled, so that one event more costs the same in the tenth
    /// hour.
    pub tail_events_max: usize,
    /// With more events in the shard, all keys that are touched are settled and packed, then the others.
    pub events_max: usize,
    /// How far behind the watermark an event is settled.
    pub settle_lag_ms: i64,
}

impl Folding {
    /// For one of so many shards.
    pub fn of_shards(shards: usize) -> Self {
        Self {
            tail_events_max: TAIL_EVENTS_MAX,
            events_max: EVENTS_MAX / shards,
            settle_lag_ms: SETTLE_LAG_MS,
        }
    }
}

/// A part of the keys.
pub struct Shard {
    settings: SessionSettings,
    folding: Folding,
    slots: Slots,
    parts: Parts,
    shelves: Shelves,
    /// Keys that are not packed.
    unpacked: usize,
    /// Where the search for those comes to.
    hand: u32,
    /// By the second: slots of the keys whose `due_ms` is in it, the first watermark that may change a
    /// key's rows or send it out. Slots that have another by now are passed over.
    due: BTreeMap<i64, Vec<u32>>,
    evicted_through_ms: Option<i64>,
    open_sessions: usize,
    events: usize,
    events_left_out: u64,
}

/// What happens to a key in one step.
struct Visit {
    slot: u32,
    events: Vec<SessionEvent>,
    is_rewritten: bool,
}

impl Shard {
    pub fn new(settings: SessionSettings, folding: Folding) -> Self {
        Self {
            settings,
            folding,
            slots: Slots::default(),
            parts: Parts::default(),
            shelves: Shelves::default(),
            unpacked: 0,
            hand: 0,
            due: BTreeMap::new(),
            evicted_through_ms: None,
            open_sessions: 0,
            events: 0,
            events_left_out: 0,
        }
    }

    /// Whether an event may have a place among what is in the lake and not in memory.
    /// `evicted_through_ms` counts for keys that are not in memory.
    pub fn lacks_history(&self, session_key: &str, event: &SessionEvent, evicted_through_ms: Option<i64>) -> bool {
        let number = self.slots.find(&SessionKey::new(session_key));
        let Some(slot) = number.and_then(|number| self.slots.get(number)) else {
            return Some(event.event_ts_ms) < evicted_through_ms;
        };
        let is_before = slot.complete_from_ms.get().is_some_and(|ms| event.event_ts_ms < ms);
        let bytes = (&self.shelves, &self.parts);
        is_before || !checkpoint::fits(&slot.memory, event, slot.settled_ms.get(), session_key, bytes)
    }

    pub fn evicted_through(&self) -> Option<i64> {
        self.evicted_through_ms
    }

    pub fn open_sessions(&self) -> usize {
        self.open_sessions
    }

    pub fn events(&self) -> usize {
        self.events
    }

    /// Events that came too late for their key, whose history was not loaded for them.
    pub fn events_left_out(&self) -> u64 {
        self.events_left_out
    }

    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// For what was counted elsewhere.
    pub fn set_events_left_out(&mut self, events: u64) {
        self.events_left_out = events;
    }

    /// The bytes of a packed key, which count on `parts`.
    pub fn packed(&self, place: Place) -> &[u8] {
        self.shelves.get(place)
    }

    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    pub fn settings(&self) -> SessionSettings {
        self.settings
    }

    /// Takes up a key that another process packed, whose parts are these. `slot` has no memory yet. `None`
    /// if the bytes are not a checkpoint's.
    pub fn take_up(&mut self, slot: Slot, bytes: &[u8], is_packed: bool, parts: &Parts) -> Option<()> {
        let bytes = checkpoint::renumber(bytes, |place| Some(self.parts.hold(Arc::clone(parts.get(place)?))))?;
        let session_key = slot.key.to_text();
        let work = checkpoint::check(&bytes, &session_key, &self.parts, self.settings)?;
        let number = self.slots.find_or_insert(slot.key.clone(), None);
        let events = work.events.events.len();
        let memory = if is_packed {
            Memory::Packed(self.shelves.put(number, &bytes))
        } else {
            Memory::Empty
        };
        self.open_sessions += slot.open_sessions as usize;
        if let Some(due_ms) = slot.due_ms.get() {
            self.due.entry(second_of(due_ms)).or_default().push(number);
        }
        *self.slots.get_mut(number)? = Slot {
            memory,
            events: events as u32,
            ..slot
        };
        if is_packed {
            self.events += events;
        } else {
            self.keep(number, work, &session_key, false);
        }
        Some(())
    }

    #[cfg(test)]
    pub fn set_folding(&mut self, folding: Folding) {
        self.folding = folding;
    }

    /// Takes events whose rows are already written: all of the key from `loaded_from_ms` on.
    pub fn load(&mut self, session_key: &str, events: Vec<SessionEvent>, loaded_from_ms: Option<i64>, watermark_ms: Option<i64>) {
        // Of a key that comes to memory by this, nothing is held before.
        let number = self.slots.find_or_insert(SessionKey::new(session_key), Some(i64::MAX));
        let mut work = self.open(number, session_key);
        let start_ms = work.course.as_ref().map(|course| course.started_at_ms);
        if start_ms.is_some_and(|start_ms| events.iter().all(|event| event.event_ts_ms != start_ms)) {
            // The span lacks the session under way: what is in memory knows more.
            return self.keep(number, work, session_key, false);
        }
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        // What was not loaded reaches one idle gap into what was.
        let reached_ms = loaded_from_ms.map(|ms| ms.saturating_add(self.settings.idle_gap_ms));
        let complete_from_ms = match work.course.take() {
            Some(_) => reached_ms,
            // `None` is the least of all: it stands for the whole history, and stays.
            None => slot.complete_from_ms.get().min(reached_ms),
        };
        let tail = std::mem::take(&mut work.events);
        work.events.capped = tail.capped;
        slot.complete_from_ms = complete_from_ms.into();
        slot.settled_ms = Time::NONE;
        for event in tail.to_events().into_iter().chain(events) {
            slot.newest_ms = slot.newest_ms.get().max(Some(event.event_ts_ms)).into();
            work.events.insert(event);
        }
        let mut facts = self.derive(&work, session_key, watermark_ms);
        if let Some(start_ms) = start_ms
            && facts.iter().all(|facts| facts.session.started_at_ms != start_ms)
        {
            // The span begins within a session and divides what follows elsewhere.
            self.begin_at(number, &mut work, start_ms);
            facts = self.derive(&work, session_key, watermark_ms);
        }
        self.account(number, &facts);
        self.keep(number, work, session_key, false);
    }

    /// Forgets what came before the start of a session, which an event before it has loaded again.
    fn begin_at(&mut self, number: u32, work: &mut Work, start_ms: i64) {
        let events = std::mem::take(&mut work.events);
        work.events.capped = events.capped;
        let rest = events.to_events().into_iter().filter(|event| event.event_ts_ms >= start_ms);
        for event in rest {
            work.events.insert(event);
        }
        if let Some(slot) = self.slots.get_mut(number) {
            slot.complete_from_ms = Some(start_ms.saturating_add(1)).into();
        }
    }

    /// Takes new events, writes the keys of `rewrite` anew, and moves on from one watermark to another.
    pub fn step(
        &mut self,
        events: Vec<KeyedEvent>,
        rewrite: Vec<String>,
        watermarks_ms: (Option<i64>, Option<i64>),
        evicted_through_ms: Option<i64>,
    ) -> FactChanges {
        let mut changes = FactChanges::default();
        let visits = self.visits(events, &rewrite, watermarks_ms.1, evicted_through_ms);
        let visited = visits.len();
        for visit in visits {
            self.visit(visit, watermarks_ms, &mut changes);
        }
        self.fold_others(visited, watermarks_ms.1);
        changes.rewritten_keys = rewrite;
        changes.rewritten_keys.sort_unstable();
        changes.rewritten_keys.dedup();
        changes
    }

    /// The keys that this step concerns, each once: with new events, to be rewritten, or due.
    fn visits(
        &mut self,
        events: Vec<KeyedEvent>,
        rewrite: &[String],
        watermark_ms: Option<i64>,
        evicted_through_ms: Option<i64>,
    ) -> Vec<Visit> {
        let mut places: HashMap<u32, usize> = HashMap::new();
        let mut visits: Vec<Visit> = Vec::new();
        let mut visit_of = |slot: u32, visits: &mut Vec<Visit>| -> usize {
            *places.entry(slot).or_insert_with(|| {
                visits.push(Visit {
                    slot,
                    events: Vec::new(),
                    is_rewritten: false,
                });
                visits.len() - 1
            })
        };
        for keyed in events {
            let key = SessionKey::new(&keyed.session_key);
            let slot = self.slots.find_or_insert(key, evicted_through_ms);
            let at = visit_of(slot, &mut visits);
            visits[at].events.push(keyed.event);
        }
        for session_key in rewrite {
            if let Some(slot) = self.slots.find(&SessionKey::new(session_key)) {
                let at = visit_of(slot, &mut visits);
                visits[at].is_rewritten = true;
            }
        }
        for slot in self.take_due(watermark_ms) {
            visit_of(slot, &mut visits);
        }
        visits
    }

    /// Slots of the keys whose time has come.
    fn take_due(&mut self, watermark_ms: Option<i64>) -> Vec<u32> {
        let mut taken = Vec::new();
        let Some(watermark_ms) = watermark_ms else {
            return taken;
        };
        while let Some(entry) = self.due.first_entry()
            && *entry.key() <= second_of(watermark_ms)
        {
            let (second, slots) = entry.remove_entry();
            let mut later = Vec::new();
            for number in slots {
                let slot = self.slots.get_mut(number);
                let Some(slot) = slot.filter(|slot| slot.due_ms.get().map(second_of) == Some(second)) else {
                    continue;
                };
                if slot.due_ms.get() > Some(watermark_ms) {
                    later.push(number);
                    continue;
                }
                slot.due_ms = Time::NONE;
                taken.push(number);
            }
            if !later.is_empty() {
                self.due.insert(second, later);
                break;
            }
        }
        taken
    }

    fn visit(&mut self, visit: Visit, (before_ms, watermark_ms): (Option<i64>, Option<i64>), changes: &mut FactChanges) {
        let number = visit.slot;
        let Some(slot) = self.slots.get(number) else {
            return;
        };
        let session_key = slot.key.to_text();
        let is_due = slot.due_ms == Time::NONE;
        let mut work = self.open(number, &session_key);
        let follow = visit.events.iter().all(|event| work.events.ends_before(event));
        let step = Step {
            known: work.events.events.len(),
            was_capped: work.events.capped,
            before_ms,
            watermark_ms,
        };
        let before = (!follow).then(|| self.derive(&work, &session_key, before_ms));
        let is_changed = self.insert(number, &mut work, visit.events);
        if !is_changed && !is_due && !visit.is_rewritten {
            return self.keep(number, work, &session_key, false);
        }
        let (before, after) = match before {
            Some(before) => (before, self.derive(&work, &session_key, watermark_ms)),
            None => timeline::derive_both(&session_key, work.course.as_ref(), &work.events, step, &self.settings),
        };
        let before = if visit.is_rewritten { &[][..] } else { &before };
        compare(before, &after, changes);
        self.account(number, &after);
        if self.is_over(number, watermark_ms) {
            return self.evict(number, work);
        }
        let is_full = self.events > self.folding.events_max;
        if is_full || work.events.events.len() > self.folding.tail_events_max {
            self.settle(number, &mut work, watermark_ms, is_full);
        }
        self.keep(number, work, &session_key, is_full);
    }

    /// Opens what is kept of a key, for as long as it is worked on.
    fn open(&mut self, number: u32, session_key: &str) -> Box<Work> {
        let Some(slot) = self.slots.get_mut(number) else {
            return Box::default();
        };
        self.events -= slot.events as usize;
        slot.events = 0;
        match std::mem::take(&mut slot.memory) {
            Memory::Empty => Box::default(),
            Memory::Open(work) => {
                self.unpacked -= 1;
                work
            }
            Memory::Packed(place) => {
                let work = checkpoint::unpack(self.shelves.get(place), session_key, &self.parts, self.settings);
                self.clear(place);
                work
            }
        }
    }

    /// Takes away what is no longer kept packed, and tells the key whose bytes are there now.
    fn clear(&mut self, place: Place) {
        let moved = self.shelves.remove(place).and_then(|owner| self.slots.get_mut(owner));
        if let Some(Memory::Packed(moved)) = moved.map(|slot| &mut slot.memory) {
            *moved = moved.moved_to(place);
        }
    }

    /// Puts back what is kept of a key.
    fn keep(&mut self, number: u32, mut work: Box<Work>, session_key: &str, packed: bool) {
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        slot.events = work.events.events.len() as u32;
        self.events += slot.events as usize;
        let bytes = if packed {
            checkpoint::pack(&work, session_key, &mut self.parts)
        } else {
            None
        };
        work.release(&mut self.parts);
        slot.memory = match bytes {
            Some(bytes) => Memory::Packed(self.shelves.put(number, &bytes)),
            None => {
                self.unpacked += 1;
                Memory::Open(work)
            }
        };
    }

    /// In need, settles and packs keys that nothing happens to, as many as a step has touched others: a
    /// key may be silent for long. Not before all of a step's events are in: they are judged by what was
    /// settled when `missing` was asked.
    fn fold_others(&mut self, mut keys: usize, watermark_ms: Option<i64>) {
        for _ in 0..keys * SOUGHT_PER_VISIT {
            if keys == 0 || self.unpacked == 0 || self.events <= self.folding.events_max {
                return;
            }
            self.hand = self.slots.after_number(self.hand);
            let Some(slot) = self.slots.get(self.hand).filter(|slot| matches!(slot.memory, Memory::Open(_))) else {
                continue;
            };
            let session_key = slot.key.to_text();
            let mut work = self.open(self.hand, &session_key);
            self.settle(self.hand, &mut work, watermark_ms, true);
            self.keep(self.hand, work, &session_key, true);
            keys -= 1;
        }
    }

    /// Inserts new events; says whether the rows may change by them.
    ///
    /// An event whose history was needed and not loaded is left out, or its segments are: whoever asks
    /// `missing` first and loads what it names never comes here.
    fn insert(&mut self, number: u32, work: &mut Work, mut events: Vec<SessionEvent>) -> bool {
        events.sort_by_key(|event| event.event_ts_ms);
        let Some(slot) = self.slots.get_mut(number) else {
            return false;
        };
        let mut is_changed = false;
        for mut event in events {
            match work.fit(&event, slot.settled_ms.get(), &self.settings) {
                Fit::Fits => {}
                Fit::Late => {
                    self.events_left_out += 1;
                    continue;
                }
                Fit::NewSegments => {
                    let known = work.course.as_ref().map(|course| Arc::clone(&course.segments));
                    event.detail.segments = known.unwrap_or_default();
                }
            }
            slot.newest_ms = slot.newest_ms.get().max(Some(event.event_ts_ms)).into();
            is_changed |= work.events.insert(event);
        }
        is_changed
    }

    fn derive(&self, work: &Work, session_key: &str, watermark_ms: Option<i64>) -> Vec<SessionFacts> {
        timeline::derive(session_key, work.course.as_ref(), &work.events, watermark_ms, &self.settings)
    }

    /// Settles what may be settled of a key whose rows are written: in need all of it, else so much that
    /// half of a tail is left, which spares late events a read from the lake.
    fn settle(&mut self, number: u32, work: &mut Work, watermark_ms: Option<i64>, is_full: bool) {
        let (Some(slot), Some(watermark_ms)) = (self.slots.get_mut(number), watermark_ms) else {
            return;
        };
        let mut through_ms = watermark_ms.saturating_sub(self.folding.settle_lag_ms);
        let half = work.events.events.len().saturating_sub(self.folding.tail_events_max / 2);
        if let (false, Some(spared)) = (is_full, work.events.events.get(half)) {
            through_ms = through_ms.min(spared.event_ts_ms - 1);
        }
        if !work.events.has_one_native_id(work.course.as_ref()) {
            return;
        }
        let settled = timeline::settle(work.course.as_ref(), &work.events, through_ms, &self.settings);
        if let Some(settled) = settled {
            work.events.settle(settled.events);
            work.course = Some(settled.course);
            slot.settled_ms = Some(settled.through_ms).into();
        }
    }

    /// Takes note of what was derived: how many sessions are open, and when to look again. An entry of
    /// `due` that has become too early stays: looking once in vain is cheaper than moving it with every
    /// event.
    fn account(&mut self, number: u32, facts: &[SessionFacts]) {
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        self.open_sessions -= slot.open_sessions as usize;
        slot.open_sessions = count_open(facts);
        self.open_sessions += slot.open_sessions as usize;
        let change_ms = facts.iter().filter_map(|facts| facts.changes_after_ms).min();
        let stay_ms = stay_ms(&self.settings);
        let leave_ms = slot.newest_ms.get().map(|newest_ms| newest_ms.saturating_add(stay_ms));
        // A key that was loaded in vain leaves with the next step.
        let after_ms = change_ms.or(leave_ms).unwrap_or(i64::MIN);
        let due_ms = after_ms.saturating_add(1);
        if slot.due_ms.get().is_some_and(|standing_ms| standing_ms <= due_ms) {
            return;
        }
        slot.due_ms = Some(due_ms).into();
        self.due.entry(second_of(due_ms)).or_default().push(number);
    }

    fn is_over(&self, number: u32, watermark_ms: Option<i64>) -> bool {
        let Some(slot) = self.slots.get(number) else {
            return false;
        };
        let leaves_after_ms = slot
            .newest_ms
            .get()
            .map(|newest_ms| newest_ms.saturating_add(stay_ms(&self.settings)));
        slot.open_sessions == 0 && leaves_after_ms.is_none_or(|ms| watermark_ms > Some(ms))
    }

    /// Drops a key as if it had never been in memory. The caller sees to it that it is loaded again.
    pub fn forget(&mut self, session_key: &str) {
        let Some(number) = self.slots.find(&SessionKey::new(session_key)) else {
            return;
        };
        let mut work = self.open(number, session_key);
        work.release(&mut self.parts);
        if let Some(slot) = self.slots.remove(number) {
            self.open_sessions -= slot.open_sessions as usize;
        }
    }

    fn evict(&mut self, number: u32, mut work: Box<Work>) {
        work.release(&mut self.parts);
        let Some(slot) = self.slots.remove(number) else {
            return;
        };
        if let Some(newest_ms) = slot.newest_ms.get() {
            // An event up to one idle gap after the last one would continue its session.
            let reachable_ms = newest_ms.saturating_add(self.settings.idle_gap_ms + 1);
            self.evicted_through_ms = self.evicted_through_ms.max(Some(reachable_ms));
        }
    }
}

fn second_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(1_000)
}

/// How long a closed key stays in memory after its newest event.
fn stay_ms(settings: &SessionSettings) -> i64 {
    settings.idle_gap_ms + EVICTION_SLACK_MS
}

fn count_open(facts: &[SessionFacts]) -> u32 {
    facts.iter().filter(|facts| facts.session.is_open).count() as u32
}

/// Adds the row differences of one key.
fn compare(before: &[SessionFacts], after: &[SessionFacts], changes: &mut FactChanges) {
    pair(before, after, SessionFacts::row_key, |old, new| {
        compare_session(old, new, changes);
    });
}

fn compare_session(before: Option<&SessionFacts>, after: Option<&SessionFacts>, changes: &mut FactChanges) {
    let (old, new) = (before.map(|f| &f.session), after.map(|f| &f.session));
    if old != new {
        let removed = old.map(|row| (row.session_id.clone(), row.started_at_ms));
        changes.sessions_removed.extend(removed);
        changes.sessions_added.extend(new.cloned());
    }
    let same_segments = old.map(|row| &row.segments) == new.map(|row| &row.segments);
    let old_pieces = before.map_or(&[][..], |facts| &facts.pieces);
    let new_pieces = after.map_or(&[][..], |facts| &facts.pieces);
    let start_of = |piece: &Piece| piece.start_ms;
    pair(old_pieces, new_pieces, start_of, |old_piece, new_piece| {
        if same_segments && old_piece == new_piece {
            return;
        }
        if let (Some(row), Some(piece)) = (old, old_piece) {
            let removed = (row.session_id.clone(), piece.start_ms);
            changes.intervals_removed.push(removed);
        }
        if let (Some(facts), Some(piece)) = (after, new_piece) {
            changes.intervals_added.push(facts.interval(piece));
        }
    });
}

/// Walks two lists that are sorted by the same key, and hands out what has the same key together.
fn pair<'a, T, K: Ord>(before: &'a [T], after: &'a [T], key_of: impl Fn(&'a T) -> K, mut visit: impl FnMut(Option<&'a T>, Option<&'a T>)) {
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => key_of(old).cmp(&key_of(new)),
        };
        let gone = if order.is_le() { old.next() } else { None };
        let come = if order.is_ge() { new.next() } else { None };
        visit(gone, come);
    }
}
