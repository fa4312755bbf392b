//! The rules: the events of one session key to its sessions and their intervals (events and metrics,
//! 2.4 and 3.1).
//!
//! Stands inside `session`. A key's events are put in order (`order`) and split into sessions
//! (`boundary`); each session is walked once, event by event (`walk`), into stretches of one state, from
//! which its rows are cut (`pieces`).
//!
//! Invariant: the facts are a function of the event set and the watermark, and of nothing else.
//! Invariant: nothing is extended past the last evidence, save an open stall by one heartbeat and the
//! presence of a viewer who fell silent by one and a half.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::boundary::{Boundary, Progress};
use super::events::{Kept, KeyEvents};
use super::outlook::{Ends, Outlook, RECOVERY_MS, Verdict, is_serious};
use super::pieces::Piece;
use super::units::Units;
use super::walk::{Ending, Identity, Walk};
use super::{EventDetail, SessionSettings, order, segments};
use crate::event::facts::{PlaybackInterval, PlaybackSession, Segments};

/// One session and its intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionFacts {
    pub session: PlaybackSession,
    /// Ascending by start.
    pub pieces: Vec<Piece>,
    /// The facts change by themselves once the watermark is past this time.
    pub changes_after_ms: Option<i64>,
}

impl SessionFacts {
    /// What tells sessions of one key apart, in the order in which `derive` returns them.
    pub fn row_key(&self) -> (i64, &str) {
        (self.session.started_at_ms, &self.session.session_id)
    }

    pub fn interval(&self, piece: &Piece) -> PlaybackInterval {
        PlaybackInterval {
            session_id: self.session.session_id.clone(),
            session_key: self.session.session_key.clone(),
            start_ms: piece.start_ms,
            end_ms: piece.end_ms,
            state: piece.state,
            cause: piece.cause,
            starts: piece.starts,
            media_ms: piece.played.media_ms,
            shown_bits: piece.played.shown_bits,
            bitrate_known_ms: piece.played.bitrate_known_ms,
            shown_wall_bits: piece.played.shown_wall_bits,
            bitrate_known_wall_ms: piece.played.bitrate_known_wall_ms,
            height_px_ms: piece.played.height_px_ms,
            height_known_ms: piece.played.height_known_ms,
            switches_up: piece.played.switches_up,
            switches_down: piece.played.switches_down,
            stall_length_ms: piece.stall_length_ms,
            is_provisional: piece.is_provisional,
            segments: Arc::clone(&self.session.segments),
        }
    }
}

/// A session under way: what its events so far have told. Bytes of it are a checkpoint's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Course {
    pub started_at_ms: i64,
    progress: Progress,
    walk: Walk,
    ends: Ends,
    units: Units,
    #[serde(skip)]
    pub segments: Arc<Segments>,
    #[serde(skip)]
    pub native_session_id: Option<String>,
}

impl Course {
    fn new(first: &Kept, detail: &EventDetail, settings: &SessionSettings) -> Self {
        Self {
            started_at_ms: first.event_ts_ms,
            progress: Progress::default(),
            walk: Walk::new(*settings, first.event_ts_ms, detail.source),
            ends: Ends::default(),
            units: Units::default(),
            segments: Arc::clone(&detail.segments),
            native_session_id: detail.native_session_id.clone(),
        }
    }

    /// With all its times counted from its start, so that they are small.
    pub fn since_start(mut self) -> Self {
        self.shift(-self.started_at_ms);
        self
    }

    /// Undoes `since_start`.
    pub fn since_epoch(mut self, settings: SessionSettings) -> Self {
        self.walk.set_settings(settings);
        self.shift(self.started_at_ms);
        self
    }

    fn shift(&mut self, by_ms: i64) {
        self.progress.shift(by_ms);
        self.walk.shift(by_ms);
        self.ends.shift(by_ms);
        self.units.shift(by_ms);
    }

    fn take(&mut self, event: &Kept, detail: &EventDetail, verdict: impl FnOnce() -> Verdict) {
        segments::take(&mut self.segments, &detail.segments);
        match self.units.convert(event, detail) {
            Some((event, detail)) => self.walk.take(&event, &detail, verdict),
            None => self.walk.take(event, detail, verdict),
        }
    }

    /// Whether an event of this time begins another session, whatever it is.
    pub fn is_over_by(&self, event_ts_ms: i64, settings: &SessionSettings) -> bool {
        self.progress.is_over_by(event_ts_ms, settings)
    }

    /// Whether one of the events that follow begins another session, well before `before_ms`.
    pub fn ends_before(&self, before_ms: i64, events: &[Kept], details: &[EventDetail], settings: &SessionSettings) -> bool {
        let mut progress = self.progress.clone();
        let well_before_ms = before_ms.saturating_sub(order::LOOK_BACK_MS);
        let events = order::in_sequence(events, details);
        for event in events.iter().take_while(|event| event.event_ts_ms < well_before_ms) {
            let detail = &details[event.detail as usize];
            if progress.boundary_before(event, detail, settings).is_some() {
                return true;
            }
            progress.take(event, detail);
        }
        progress.is_over_by(before_ms, settings)
    }

    /// Whether rows of this session have left memory.
    pub fn has_frozen(&self) -> bool {
        self.walk.has_frozen()
    }
}

/// Derives the facts of one key, ascending by start: of the session under way when the settled events
/// were over, if any were settled, and of all that begin later.
pub fn derive(
    session_key: &str,
    settled: Option<&Course>,
    events: &KeyEvents,
    watermark_ms: Option<i64>,
    settings: &SessionSettings,
) -> Vec<SessionFacts> {
    let key = Key {
        session_key,
        details: &events.details,
        watermark_ms,
        settings,
    };
    let facts = match events.has_one_native_id(settled) {
        true => key.derive_group(settled, &events.events),
        false => key.derive_groups(settled, &events.events),
    };
    in_order(facts, events.capped)
}

/// A key before a step and after it. All that is new in the step follows on what was there.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// How many of the events were there before.
    pub known: usize,
    /// Whether an event had been left out before.
    pub was_capped: bool,
    pub before_ms: Option<i64>,
    pub watermark_ms: Option<i64>,
}

/// What `derive` gives before a step and what it gives after it. Events that are in both are walked once.
pub fn derive_both(
    session_key: &str,
    settled: Option<&Course>,
    events: &KeyEvents,
    step: Step,
    settings: &SessionSettings,
) -> (Vec<SessionFacts>, Vec<SessionFacts>) {
    let at = |watermark_ms: Option<i64>| Key {
        session_key,
        details: &events.details,
        watermark_ms,
        settings,
    };
    let (old, new) = (at(step.before_ms), at(step.watermark_ms));
    let known = &events.events[..step.known];
    let (before, after) = if !events.has_one_native_id(settled) {
        (old.derive_groups(settled, known), new.derive_groups(settled, &events.events))
    } else if order::is_in_sequence(&events.events, &events.details) {
        Pair {
            old,
            new,
            before: Vec::new(),
            after: Vec::new(),
        }
        .derive(settled, &events.events, step.known)
    } else {
        (old.derive_group(settled, known), new.derive_group(settled, &events.events))
    };
    (in_order(before, step.was_capped), in_order(after, events.capped))
}

/// The facts of a key as they leave here. `capped`: an event was left out.
fn in_order(mut facts: Vec<SessionFacts>, capped: bool) -> Vec<SessionFacts> {
    facts.sort_by(|a, b| a.row_key().cmp(&b.row_key()));
    if let Some(last) = facts.last_mut().filter(|_| capped) {
        last.session.dq_flags.push("events_capped");
        last.session.dq_flags.sort_unstable();
    }
    facts
}

/// Where settling came to.
pub struct Settled {
    pub course: Course,
    /// How many of the events went into it.
    pub events: usize,
    /// No event at or before this time may follow.
    pub through_ms: i64,
}

/// Takes a key's events up to `through_ms` for settled, as far as nothing that comes later can change
/// what they say. The events have one native session id. `None` if nothing can be settled.
pub fn settle(settled: Option<&Course>, events: &KeyEvents, through_ms: i64, settings: &SessionSettings) -> Option<Settled> {
    let key = Key {
        session_key: "",
        details: &events.details,
        watermark_ms: None,
        settings,
    };
    // An event that is still to come may be put in front of those just before it (`order`).
    let mut last_ms = through_ms.saturating_sub(order::LOOK_BACK_MS);
    loop {
        let passed = events.events.partition_point(|event| event.event_ts_ms <= last_ms);
        let count = order::settled_count(&events.events, passed, &events.details);
        if count == 0 {
            return None;
        }
        let next_ms = events.events.get(count).map(|event| event.event_ts_ms);
        let until_ms = next_ms.map_or(through_ms, |ms| ms.min(through_ms));
        let settled_events = &order::in_sequence(&events.events[..count], &events.details)[..];
        let (begin, course) = key.last_session(settled, settled_events);
        match key.walk_settled(course, &settled_events[begin..], until_ms) {
            Ok(mut course) => {
                course.walk.freeze(until_ms);
                return Some(Settled {
                    course,
                    events: count,
                    through_ms,
                });
            }
            Err(undecided_ms) => last_ms = undecided_ms.saturating_sub(1),
        }
    }
}

/// Events of each native session id, and those without one, in canonical order.
fn by_native_session<'a>(events: &[Kept], details: &'a [EventDetail]) -> BTreeMap<Option<&'a str>, Vec<Kept>> {
    let mut groups: BTreeMap<Option<&str>, Vec<Kept>> = BTreeMap::new();
    for event in events {
        let id = &details[event.detail as usize].native_session_id;
        groups.entry(id.as_deref()).or_default().push(event.clone());
    }
    groups
}

/// What all sessions of a key share.
#[derive(Clone, Copy)]
struct Key<'a> {
    session_key: &'a str,
    details: &'a [EventDetail],
    watermark_ms: Option<i64>,
    settings: &'a SessionSettings,
}

impl Key<'_> {
    fn detail(&self, event: &Kept) -> &EventDetail {
        &self.details[event.detail as usize]
    }

    /// Events of several native session ids, each of which has sessions of its own.
    fn derive_groups(&self, settled: Option<&Course>, events: &[Kept]) -> Vec<SessionFacts> {
        let mut groups = by_native_session(events, self.details);
        let mut facts = Vec::new();
        if let Some(course) = settled {
            let group = groups.remove(&course.native_session_id.as_deref());
            facts.extend(self.derive_group(settled, &group.unwrap_or_default()));
        }
        for group in groups.values() {
            facts.extend(self.derive_group(None, group));
        }
        facts
    }

    fn derive_group(&self, settled: Option<&Course>, events: &[Kept]) -> Vec<SessionFacts> {
        let events = &order::in_sequence(events, self.details)[..];
        let mut facts = Vec::new();
        let mut begin = 0;
        let mut course = settled.cloned();
        let mut progress = settled.map(|course| course.progress.clone()).unwrap_or_default();
        for (index, event) in events.iter().enumerate() {
            let detail = self.detail(event);
            if let Some(boundary) = progress.boundary_before(event, detail, self.settings) {
                facts.extend(self.derive_session(course.take(), &events[begin..index], Some(boundary)));
                begin = index;
                progress = Progress::default();
            }
            progress.take(event, detail);
        }
        facts.extend(self.derive_session(course, &events[begin..], None));
        facts
    }

    /// `None` if there is neither a session under way nor an event.
    fn derive_session(&self, course: Option<Course>, events: &[Kept], boundary: Option<Boundary>) -> Option<SessionFacts> {
        let ends = course.as_ref().map(|course| course.ends).unwrap_or_default();
        let outlook = Outlook::of(ends, events, self.details);
        let decided_before_ms = match boundary {
            Some(_) => i64::MAX,
            None => self.watermark_ms.map_or(i64::MIN, |ms| ms.saturating_sub(RECOVERY_MS)),
        };
        let mut course = self.course_or_new(course, events)?;
        // The last report may be the first that tells the unit of all.
        self.take_units(&mut course, events);
        for (index, event) in events.iter().enumerate() {
            let detail = self.detail(event);
            course.take(event, detail, || outlook.verdict(index, event, detail, decided_before_ms));
        }
        Some(self.finish(course, boundary))
    }

    /// Whether what each of these events says is the same whatever follows it: none is an error that a
    /// later one may heal, and none tells a number whose unit is still to be found.
    fn is_walked_alike(&self, course: Option<&Course>, events: &[Kept]) -> bool {
        let unknown = Units::default();
        let units = course.map_or(&unknown, |course| &course.units);
        events.iter().all(|event| {
            let detail = self.detail(event);
            !is_serious(event.kind, detail) && !units.is_open_for(event, detail)
        })
    }

    /// Goes on through events that are walked alike, whose errors are warnings at most.
    fn walk_on(&self, course: &mut Course, events: &[Kept]) {
        self.take_units(course, events);
        for event in events {
            course.take(event, self.detail(event), || Verdict::Warning);
        }
    }

    fn course_or_new(&self, course: Option<Course>, events: &[Kept]) -> Option<Course> {
        let begin = || events.first().map(|first| Course::new(first, self.detail(first), self.settings));
        course.or_else(begin)
    }

    /// Where the last session of these events begins among them, and what was known of it before.
    fn last_session(&self, settled: Option<&Course>, events: &[Kept]) -> (usize, Option<Course>) {
        let mut begin = None;
        let mut progress = settled.map(|course| course.progress.clone()).unwrap_or_default();
        for (index, event) in events.iter().enumerate() {
            let detail = self.detail(event);
            if progress.boundary_before(event, detail, self.settings).is_some() {
                begin = Some(index);
                progress = Progress::default();
            }
            progress.take(event, detail);
        }
        match begin {
            Some(begin) => (begin, None),
            None => (0, settled.cloned()),
        }
    }

    fn take_units(&self, course: &mut Course, events: &[Kept]) {
        for event in events {
            course.units.take(event, self.detail(event));
        }
    }

    /// Walks the events of one session that are to be settled; none before `until_ms` is to follow. One
    /// stops it, with its time, that those which follow may change: an error in its verdict, a position in
    /// its unit.
    fn walk_settled(&self, course: Option<Course>, events: &[Kept], until_ms: i64) -> Result<Course, i64> {
        let ends = course.as_ref().map(|course| course.ends).unwrap_or_default();
        let outlook = Outlook::of(ends, events, self.details);
        let decided_before_ms = until_ms.saturating_sub(RECOVERY_MS);
        let mut course = self.course_or_new(course, events).ok_or(until_ms)?;
        self.take_units(&mut course, events);
        for (index, event) in events.iter().enumerate() {
            let detail = self.detail(event);
            if course.units.is_open_for(event, detail) {
                return Err(event.event_ts_ms);
            }
            let mut is_open = false;
            course.take(event, detail, || {
                is_open = !outlook.is_final(index, event, detail, decided_before_ms);
                outlook.verdict(index, event, detail, decided_before_ms)
            });
            if is_open {
                return Err(event.event_ts_ms);
            }
            course.progress.take(event, detail);
            course.ends.take(event, detail);
        }
        Ok(course)
    }

    fn finish(&self, course: Course, boundary: Option<Boundary>) -> SessionFacts {
        let mut walk = course.walk;
        let closing = self.closing(&walk, boundary);
        if closing.end_reason == Some("timeout") && boundary != Some(Boundary::Length) {
            walk.fall_silent();
        }
        let derived_id = || derived_session_id(self.session_key, course.started_at_ms);
        let identity = Identity {
            session_id: course.native_session_id.unwrap_or_else(derived_id),
            session_key: self.session_key.to_owned(),
            segments: course.segments,
        };
        let (mut session, pieces) = walk.finish(identity, closing.end_reason);
        if course.units.are_milliseconds() {
            session.dq_flags.push("unit_settled");
            session.dq_flags.sort_unstable();
        }
        SessionFacts {
            session,
            pieces,
            changes_after_ms: closing.changes_after_ms,
        }
    }

    fn closing(&self, walk: &Walk, boundary: Option<Boundary>) -> Closing {
        let mut closing = Closing {
            end_reason: None,
            changes_after_ms: None,
        };
        match walk.ending() {
            Ending::Ended(reason) => closing.end_reason = Some(reason),
            Ending::Failed => closing.end_reason = Some("error"),
            Ending::Undecided => {
                closing.changes_after_ms = Some(walk.last_evidence_ms().saturating_add(RECOVERY_MS));
            }
            Ending::None => {
                let deadline_ms = walk.last_evidence_ms().saturating_add(walk.timeout());
                match boundary {
                    Some(Boundary::Replaced) => closing.end_reason = Some("replaced"),
                    Some(_) => closing.end_reason = Some("timeout"),
                    None if self.watermark_ms > Some(deadline_ms) => {
                        closing.end_reason = Some("timeout");
                    }
                    None => closing.changes_after_ms = Some(deadline_ms),
                }
            }
        }
        closing
    }
}

/// The sessions of a key with one native session id, before a step and after it.
struct Pair<'a> {
    old: Key<'a>,
    new: Key<'a>,
    before: Vec<SessionFacts>,
    after: Vec<SessionFacts>,
}

impl Pair<'_> {
    /// The events are in sequence, and the first `known` of them were there before.
    fn derive(mut self, settled: Option<&Course>, events: &[Kept], known: usize) -> (Vec<SessionFacts>, Vec<SessionFacts>) {
        let new = self.new;
        let mut begin = 0;
        let mut course = settled.cloned();
        let mut progress = settled.map(|course| course.progress.clone()).unwrap_or_default();
        for (index, event) in events.iter().enumerate() {
            let detail = new.detail(event);
            if let Some(boundary) = progress.boundary_before(event, detail, new.settings) {
                self.derive_session(course.take(), events, begin..index, known, Some(boundary));
                begin = index;
                progress = Progress::default();
            }
            progress.take(event, detail);
        }
        self.derive_session(course, events, begin..events.len(), known, None);
        (self.before, self.after)
    }

    /// Adds what the session of the events in `of` was and what it is.
    fn derive_session(&mut self, course: Option<Course>, events: &[Kept], of: Range<usize>, known: usize, boundary: Option<Boundary>) {
        let (begin, end) = (of.start, of.end);
        if known > end {
            // It was over before, and no watermark changes that.
            let facts = self.new.derive_session(course, &events[of], boundary);
            self.before.extend(facts.clone());
            self.after.extend(facts);
        } else if known <= begin && course.is_none() {
            self.after.extend(self.new.derive_session(course, &events[of], boundary));
        } else if self.new.is_walked_alike(course.as_ref(), &events[begin..end]) {
            self.walk(course, &events[begin..known], &events[known..end], boundary);
        } else {
            self.before
                .extend(self.old.derive_session(course.clone(), &events[begin..known], None));
            self.after.extend(self.new.derive_session(course, &events[begin..end], boundary));
        }
    }

    /// Walks the old events of a session and, from where that leads, the new ones.
    fn walk(&mut self, course: Option<Course>, old: &[Kept], new: &[Kept], boundary: Option<Boundary>) {
        let Some(mut course) = self.new.course_or_new(course, old) else {
            return;
        };
        self.new.walk_on(&mut course, old);
        self.before.push(self.old.finish(course.clone(), None));
        self.new.walk_on(&mut course, new);
        self.after.push(self.new.finish(course, boundary));
    }
}

/// What is decided once a session's last event has been walked.
struct Closing {
    /// `None` while the session is open.
    end_reason: Option<&'static str>,
    changes_after_ms: Option<i64>,
}

fn derived_session_id(session_key: &str, started_at_ms: i64) -> String {
    let hash = xxh3_128_with_seed(session_key.as_bytes(), started_at_ms as u64);
    format!("s-{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::fixtures::{BIG_BUCK_BUNNY, NEWS_LIVE, T0, TEARS_OF_STEEL, check, check_pieces, facts};

    #[test]
    fn the_reference_viewer_who_watched_to_the_end() {
        check(
            BIG_BUCK_BUNNY,
            "1000",
            &["attempts=1 plays=1 startup_ms=640 playing_ms=320008 startup_wait_ms=640 \
               stall_ms=1840 stall_count=1 seek_wait_ms=412 seek_count=1 paused_ms=64005 \
               shown_bits=1507992334 bitrate_known_ms=320008 start_bitrate_bps=2149280 \
               switches_up=1 quartile=100 finished=1 finished"],
        );
        check_pieces(
            BIG_BUCK_BUNNY,
            "-",
            "starting 0-0.64, playing 0.64-14.46, rebuffering 14.46-16.3, playing 16.3-19.588, \
             seeking 19.588-20, playing 20-31, paused 31-95, playing 95-386.9, paused 386.9-386.905",
        );
    }

    #[test]
    fn the_reference_viewer_who_left_in_a_stall() {
        check(
            TEARS_OF_STEEL,
            "1000",
            &["attempts=1 plays=1 startup_ms=2950 playing_ms=10030 startup_wait_ms=2950 \
               stall_ms=5120 stall_count=1 shown_bits=6143174 bitrate_known_ms=10030 \
               start_bitrate_bps=612480 quartile=0 timeout"],
        );
        let row = &facts(TEARS_OF_STEEL, "1000")[0].session;
        let kbps = row.shown_bits as f64 / row.bitrate_known_ms as f64;
        assert!((kbps - 612.48).abs() < 0.005, "{kbps}");
        assert_eq!(row.segments.connection_type.as_deref(), Some("3g"));
    }

    #[test]
    fn the_reference_stall_as_long_as_the_epoch_is_no_evidence() {
        let row = "attempts=1 plays=1 startup_ms=900 playing_ms=11500 startup_wait_ms=900";
        check(
            NEWS_LIVE,
            "142.4",
            &[&format!("{} anomalies=1", row.replace("startup_ms", "open=1 startup_ms"))],
        );
        check(NEWS_LIVE, "142.401", &[&format!("{row} anomalies=1 timeout")]);
        check_pieces(NEWS_LIVE, "-", "starting 40-40.9, playing 40.9-52.4");
    }

    #[test]
    fn m6_silence_closes_after_three_heartbeats() {
        let text = "0 playback_request\n1 playback_start\n30 heartbeat\n60 heartbeat";
        let row = "attempts=1 plays=1 startup_ms=1000 playing_ms=59000 startup_wait_ms=1000 timeout";
        let open = row.replace("plays=1", "plays=1 open=1").replace(" timeout", "");
        check(text, "150", &[&open]);
        check(text, "150.001", &[row]);
    }

    #[test]
    fn m7_a_stall_that_ends_in_silence_lasts_one_heartbeat_more() {
        let text = "0 playback_start\n60 stall_start";
        check(text, "150", &["attempts=1 plays=1 open=1 playing_ms=60000 inferred_request"]);
        check(
            text,
            "151",
            &["attempts=1 plays=1 playing_ms=60000 stall_ms=30000 stall_count=1 \
                              timeout inferred_request stall_open_end"],
        );
    }

    #[test]
    fn session_ids_are_native_or_made_of_key_and_start() {
        assert_eq!(facts("0 playback_request sid=abc", "-")[0].session.session_id, "abc");
        let derived = &facts("0 playback_request", "-")[0].session.session_id;
        assert_eq!(derived.len(), 34);
        assert_eq!(*derived, derived_session_id("key", T0));
        assert_ne!(*derived, derived_session_id("key", T0 + 1));
        assert_ne!(*derived, derived_session_id("yek", T0));
    }
}
