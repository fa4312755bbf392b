//! Checkpoints: what is kept of a key between steps, unpacked or as bytes.
//!
//! Stands between `shard`, which opens a key's memory when something happens to it, and `timeline`,
//! whose `Course` is what the settled events of a key have come to.
//!
//! Invariant: a key derived from its checkpoint and the events after it has the rows that all of its
//! events would give, save those that have left memory for good.
//! Invariant: an event that a checkpoint cannot take is never taken: `fit` tells.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::events::{Kept, KeyEvents};
use super::packed::{Reader, Text, Writer, squeeze, unsqueeze};
use super::parts::{PackedSegments, Parts};
use super::segments;
use super::shelves::{Place, Shelves};
use super::timeline::Course;
use super::{EventDetail, Readings, SessionEvent, SessionSettings};
use crate::event::EventKind;
use crate::event::facts::Segments;

/// The first byte of a checkpoint; another one is another layout.
pub const VERSION: u8 = 2;

/// What is kept of a key between steps.
#[derive(Debug, Default)]
pub enum Memory {
    #[default]
    Empty,
    Open(Box<Work>),
    Packed(Place),
}

/// A key as the rules work on it: a session under way, and the events that came after.
#[derive(Debug, Default)]
pub struct Work {
    pub course: Option<Course>,
    pub events: KeyEvents,
    /// Parts that are to be released once these bytes are no longer kept.
    held: Vec<PackedSegments>,
}

/// Whether what is in memory of a key suffices to take an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Fits,
    /// Its place may be among the settled events.
    Late,
    /// It changes the segments of rows that have left memory.
    NewSegments,
}

impl Work {
    /// Gives back the parts that the bytes held from which this came.
    pub fn release(&mut self, parts: &mut Parts) {
        for packed in self.held.drain(..) {
            parts.release(&packed);
        }
    }

    pub fn fit(&self, event: &SessionEvent, settled_ms: Option<i64>, settings: &SessionSettings) -> Fit {
        let Some(course) = &self.course else {
            return Fit::Fits;
        };
        let frozen = || self.frozen().map(|frozen| (&*course.segments, frozen));
        let fit = fit(event, settled_ms, course.native_session_id.as_deref(), frozen);
        match fit {
            Fit::Late if course.is_over_by(event.event_ts_ms, settings) => Fit::Fits,
            Fit::NewSegments if self.is_later(course, event, settings) => Fit::Fits,
            fit => fit,
        }
    }

    /// What must be known of a session that has frozen rows before it takes an event.
    fn frozen(&self) -> Option<Frozen> {
        let course = self.course.as_ref().filter(|course| course.has_frozen())?;
        let details = &self.events.details;
        let differs = |event: &&Kept| {
            let detail = &details[event.detail as usize];
            detail.native_session_id == course.native_session_id && segments::would_change(&course.segments, &detail.segments)
        };
        let newest = self.events.events.iter().rev().find(differs);
        Some(Frozen {
            others_until_ms: newest.map(|event| event.event_ts_ms),
        })
    }

    /// Whether an event is of a later session than the one under way, wherever its number puts it.
    fn is_later(&self, course: &Course, event: &SessionEvent, settings: &SessionSettings) -> bool {
        let details = &self.events.details;
        let of_id = |old: &&Kept| details[old.detail as usize].native_session_id == course.native_session_id;
        let events: Vec<Kept> = self.events.events.iter().filter(of_id).cloned().collect();
        course.ends_before(event.event_ts_ms, &events, details, settings)
    }
}

/// What must be known of a session that has frozen rows before it takes an event.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Frozen {
    /// Time of the last event in memory that has other segments: it is of a later session, and an event
    /// before it may show that it is not.
    others_until_ms: Option<i64>,
}

fn fit<S: std::ops::Deref<Target = Segments>>(
    event: &SessionEvent,
    settled_ms: Option<i64>,
    native_session_id: Option<&str>,
    frozen: impl FnOnce() -> Option<(S, Frozen)>,
) -> Fit {
    // Sessions of other native ids are apart, and none of their events are settled.
    if event.detail.native_session_id.as_deref() != native_session_id {
        return Fit::Fits;
    }
    if Some(event.event_ts_ms) <= settled_ms {
        return Fit::Late;
    }
    let Some((merged, frozen)) = frozen() else {
        return Fit::Fits;
    };
    let is_before_others = Some(event.event_ts_ms) <= frozen.others_until_ms;
    if is_before_others || segments::would_change(&merged, &event.detail.segments) {
        return Fit::NewSegments;
    }
    Fit::Fits
}

/// The native session id of a key.
#[derive(Serialize, Deserialize)]
enum NativeId {
    None,
    /// It is the key.
    Key,
    Other(Text),
}

impl NativeId {
    fn pack(id: Option<&str>, session_key: &str) -> NativeId {
        match id {
            None => NativeId::None,
            Some(id) if id == session_key => NativeId::Key,
            id => NativeId::Other(Text::pack(id)),
        }
    }

    fn unpack(&self, session_key: &str) -> Option<String> {
        match self {
            NativeId::None => None,
            NativeId::Key => Some(session_key.to_owned()),
            NativeId::Other(text) => text.unpack(),
        }
    }
}

/// The part of a checkpoint that is read without the rest.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u8,
    native_id: NativeId,
    /// Only of a session under way.
    segments: Option<PackedSegments>,
    frozen: Option<Frozen>,
    /// Other segments than those of the session under way.
    others: Vec<PackedSegments>,
}

#[derive(Serialize, Deserialize)]
struct Body {
    course: Option<Course>,
    details: Vec<PackedDetail>,
    settled: usize,
    capped: bool,
}

#[derive(Serialize, Deserialize)]
struct PackedDetail {
    /// 0: those of the session under way, else one more than their place.
    segments: u32,
    /// `None`: that of the head.
    other_native_id: Option<NativeId>,
    detail: EventDetail,
}

/// Packs a key. `None` if it holds a name that has no number: it must stay open.
pub fn pack(work: &Work, session_key: &str, parts: &mut Parts) -> Option<Vec<u8>> {
    Packer::new(session_key, parts).pack(work)
}

/// Opens what `pack` made.
pub fn unpack(bytes: &[u8], session_key: &str, parts: &Parts, settings: SessionSettings) -> Box<Work> {
    let work = unpack_bytes(bytes, session_key, parts, settings);
    Box::new(work.expect("the bytes were packed by this process"))
}

/// Opens bytes of another process; `None` if they cannot be a checkpoint's.
pub fn check(bytes: &[u8], session_key: &str, parts: &Parts, settings: SessionSettings) -> Option<Box<Work>> {
    let work = unpack_bytes(bytes, session_key, parts, settings).ok()?;
    let details = work.events.details.len();
    let is_whole = work.events.events.iter().all(|event| (event.detail as usize) < details);
    is_whole.then(|| Box::new(work))
}

/// The same checkpoint where parts have other places; `None` if one has none, or the bytes are not a
/// checkpoint's.
pub fn renumber(bytes: &[u8], mut place_of: impl FnMut(u32) -> Option<u32>) -> Option<Vec<u8>> {
    let (mut head, rest) = postcard::take_from_bytes::<Head>(bytes).ok()?;
    for packed in head.segments.iter_mut().chain(&mut head.others) {
        packed.renumber(&mut place_of)?;
    }
    let out = Vec::with_capacity(bytes.len() + 2 * size_of::<u64>());
    let mut out = postcard::to_extend(&head, out).ok()?;
    out.extend_from_slice(rest);
    Some(out)
}

/// Whether what is in memory of a key suffices to take an event. Unlike `Work::fit`, which tells of the
/// next event, this tells of any of those that are to come together.
pub fn fits(
    memory: &Memory,
    event: &SessionEvent,
    settled_ms: Option<i64>,
    session_key: &str,
    (shelves, parts): (&Shelves, &Parts),
) -> bool {
    match memory {
        Memory::Empty => true,
        Memory::Open(work) => {
            let Some(course) = &work.course else { return true };
            let frozen = || work.frozen().map(|frozen| (&*course.segments, frozen));
            fit(event, settled_ms, course.native_session_id.as_deref(), frozen) == Fit::Fits
        }
        Memory::Packed(_) if settled_ms.is_none() => true,
        Memory::Packed(place) => {
            let Ok((head, _)) = postcard::take_from_bytes::<Head>(shelves.get(*place)) else {
                return false;
            };
            let merged = |packed: &PackedSegments| Box::new(parts.unpack(packed));
            let frozen = || head.segments.as_ref().map(merged).zip(head.frozen);
            let native_id = head.native_id.unpack(session_key);
            fit(event, settled_ms, native_id.as_deref(), frozen) == Fit::Fits
        }
    }
}

struct Packer<'a> {
    session_key: &'a str,
    parts: &'a mut Parts,
    /// Segments that have a place already, that of the session under way first.
    known: Vec<(Arc<Segments>, u32)>,
    packed: Vec<PackedSegments>,
}

impl<'a> Packer<'a> {
    fn new(session_key: &'a str, parts: &'a mut Parts) -> Self {
        Self {
            session_key,
            parts,
            known: Vec::new(),
            packed: Vec::new(),
        }
    }

    fn pack(mut self, work: &Work) -> Option<Vec<u8>> {
        let of_course = work.course.as_ref().map(|course| &course.native_session_id);
        let of_events = work.events.details.first().map(|detail| &detail.native_session_id);
        let native_id = of_course.or(of_events).and_then(Option::as_deref);
        let segments = work.course.as_ref().map(|course| {
            self.known.push((Arc::clone(&course.segments), 0));
            self.parts.pack(&course.segments)
        });
        let details = work
            .events
            .details
            .iter()
            .map(|detail| self.pack_detail(detail, native_id))
            .collect();
        let head = Head {
            version: VERSION,
            native_id: NativeId::pack(native_id, self.session_key),
            segments,
            frozen: work.frozen(),
            others: self.packed,
        };
        let body = Body {
            course: work.course.clone().map(Course::since_start),
            details,
            settled: work.events.settled,
            capped: work.events.capped,
        };
        let bytes = to_bytes(&head, &work.events.events, &body);
        if bytes.is_none() {
            for packed in head.segments.iter().chain(&head.others) {
                self.parts.release(packed);
            }
        }
        bytes
    }

    fn pack_detail(&mut self, detail: &EventDetail, native_id: Option<&str>) -> PackedDetail {
        let own_id = detail.native_session_id.as_deref();
        PackedDetail {
            segments: self.place_of(&detail.segments),
            other_native_id: (own_id != native_id).then(|| NativeId::pack(own_id, self.session_key)),
            detail: detail.clone(),
        }
    }

    fn place_of(&mut self, segments: &Arc<Segments>) -> u32 {
        if let Some((_, place)) = self.known.iter().find(|(known, _)| known == segments) {
            return *place;
        }
        self.packed.push(self.parts.pack(segments));
        let place = self.packed.len() as u32;
        self.known.push((Arc::clone(segments), place));
        place
    }
}

/// The head, the events, and the rest with its zeros squeezed.
fn to_bytes(head: &Head, events: &[Kept], body: &Body) -> Option<Vec<u8>> {
    let mut writer = Writer {
        bytes: postcard::to_stdvec(head).ok()?,
    };
    pack_events(events, &mut writer);
    squeeze(&postcard::to_stdvec(body).ok()?, &mut writer.bytes);
    Some(writer.bytes)
}

/// Which of an event's numbers are known, beside its kind.
const HAS_SEQ: u64 = 1;
const HAS_PLAYHEAD: u64 = 2;
const HAS_READINGS: u64 = 4;
const KIND_SHIFT: u32 = 3;

/// Times as the time since the event before, and positions as how far they went ahead of the time.
fn pack_events(events: &[Kept], writer: &mut Writer) {
    writer.number(events.len() as u64);
    let (mut last_ms, mut last_ahead_ms) = (0, 0);
    for event in events {
        let seq = if event.seq.is_some() { HAS_SEQ } else { 0 };
        let playhead = if event.playhead_ms.is_some() { HAS_PLAYHEAD } else { 0 };
        let kind = EventKind::ALL.iter().position(|kind| *kind == event.kind).unwrap_or_default();
        let readings = if event.readings.is_some() { HAS_READINGS } else { 0 };
        writer.number((kind as u64) << KIND_SHIFT | seq | playhead | readings);
        writer.bytes.extend(event.event_id.to_be_bytes());
        writer.signed(event.event_ts_ms.wrapping_sub(last_ms));
        last_ms = event.event_ts_ms;
        writer.number(u64::from(event.detail));
        if let Some(seq) = event.seq {
            writer.signed(seq);
        }
        if let Some(playhead_ms) = event.playhead_ms {
            let ahead_ms = playhead_ms.wrapping_sub(event.event_ts_ms);
            writer.signed(ahead_ms.wrapping_sub(last_ahead_ms));
            last_ahead_ms = ahead_ms;
        }
        if let Some(readings) = &event.readings {
            pack_readings(readings, writer);
        }
    }
}

/// A bit for each that is known, and those.
fn pack_readings(readings: &Readings, writer: &mut Writer) {
    let all = readings.to_array();
    let bits = all.iter().rev().fold(0, |bits, reading| bits << 1 | u64::from(reading.is_some()));
    writer.number(bits);
    all.into_iter().flatten().for_each(|reading| writer.signed(reading));
}

fn unpack_readings(reader: &mut Reader<'_>) -> Readings {
    let bits = reader.number();
    let mut all = Readings::default().to_array();
    for (at, reading) in all.iter_mut().enumerate() {
        *reading = (bits >> at & 1 == 1).then(|| reader.signed());
    }
    Readings::from_array(all)
}

fn unpack_events(reader: &mut Reader<'_>) -> postcard::Result<Vec<Kept>> {
    let (mut last_ms, mut last_ahead_ms) = (0i64, 0i64);
    let events = reader.number();
    // Each takes some bytes: what says more is not a checkpoint's, and would be given room.
    if events > reader.rest.len() as u64 {
        return Err(postcard::Error::DeserializeUnexpectedEnd);
    }
    let mut unpack = || {
        let first = reader.number();
        let event_id = reader.id();
        last_ms = last_ms.wrapping_add(reader.signed());
        let detail = reader.number() as u32;
        let seq = (first & HAS_SEQ != 0).then(|| reader.signed());
        let playhead_ms = (first & HAS_PLAYHEAD != 0).then(|| {
            last_ahead_ms = last_ahead_ms.wrapping_add(reader.signed());
            last_ahead_ms.wrapping_add(last_ms)
        });
        let readings = (first & HAS_READINGS != 0).then(|| Box::new(unpack_readings(reader)));
        let kind = EventKind::ALL
            .get((first >> KIND_SHIFT) as usize)
            .copied()
            .unwrap_or(EventKind::Custom);
        Kept {
            event_id,
            event_ts_ms: last_ms,
            seq,
            playhead_ms,
            readings,
            kind,
            detail,
            is_mended: false,
        }
    };
    Ok((0..events).map(|_| unpack()).collect())
}

fn unpack_bytes(bytes: &[u8], session_key: &str, parts: &Parts, settings: SessionSettings) -> postcard::Result<Work> {
    let (head, rest) = postcard::take_from_bytes::<Head>(bytes)?;
    if head.version != VERSION {
        return Err(postcard::Error::DeserializeBadEncoding);
    }
    let mut reader = Reader { rest };
    let events = unpack_events(&mut reader)?;
    let body: Body = postcard::from_bytes(&unsqueeze(reader.rest))?;
    let native_id = head.native_id.unpack(session_key);
    let packed: Vec<PackedSegments> = head.segments.into_iter().chain(head.others).collect();
    let segments: Vec<Arc<Segments>> = packed.iter().map(|packed| Arc::new(parts.unpack(packed))).collect();
    let mut course = body.course.map(|course| course.since_epoch(settings));
    if let (Some(course), Some(merged)) = (&mut course, segments.first()) {
        course.segments = Arc::clone(merged);
        course.native_session_id.clone_from(&native_id);
    }
    let first = usize::from(course.is_none());
    let unpack_detail = |packed: PackedDetail| EventDetail {
        native_session_id: match packed.other_native_id {
            Some(other) => other.unpack(session_key),
            None => native_id.clone(),
        },
        segments: (packed.segments as usize)
            .checked_sub(first)
            .and_then(|at| segments.get(at).cloned())
            .unwrap_or_default(),
        ..packed.detail
    };
    Ok(Work {
        course,
        events: KeyEvents {
            details: body.details.into_iter().map(unpack_detail).collect(),
            events,
            settled: body.settled,
            capped: body.capped,
        },
        held: packed,
    })
}
