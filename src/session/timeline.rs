//! The rules: the events of one session key to its sessions and their intervals (events and metrics,
//! 2.4 and 3.1).
//!
//! Stands inside `session`. A key's events are split into sessions; each session is walked once, event
//! by event, into stretches of one state; a reported length is then laid back over the stretches that
//! it covers. Rows are cut from the stretches at the end.
//!
//! Invariant: the facts are a function of the event set and the watermark, and of nothing else.
//! Invariant: stretches of a session never overlap, and every total is the sum of its intervals.
//! Invariant: nothing is extended past the last evidence, save an open stall by one heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::shard::{Kept, KeyEvents};
use super::{EventDetail, SessionSettings};
use crate::event::EventKind;
use crate::event::facts::{
    Outcome, PlaybackInterval, PlaybackSession, PlaybackState, Segments, StallCause,
};

/// Intervals are cut at whole minutes, the finest window of gold.
const MINUTE_MS: i64 = 60_000;
/// A session is cut after a day: a screen in a shop window would otherwise never end.
const SESSION_LENGTH_MAX_MS: i64 = 24 * 3_600_000;
/// A frame this soon after a fatal error means that the player recovered (3.1, rule 1).
const RECOVERY_MS: i64 = 10_000;
/// Requests this close before any frame are one impatient viewer.
const DOUBLE_REQUEST_MS: i64 = 10_000;
/// Longer reported lengths are broken clocks (3.1, rule 8); seeks are held to the bound of stalls.
const STALL_MAX_MS: i64 = 30 * 60_000;
const STARTUP_MAX_MS: i64 = 10 * 60_000;
const BITRATE_MAX_BPS: i64 = 200_000_000;
/// Players offer up to 16 times the speed; more is not a rate.
const PLAYBACK_RATE_MAX: f64 = 16.0;
const RATE_ONE_PPM: i64 = 1_000_000;
/// Longest extension of a stall that ends in silence (2.4).
const OPEN_STALL_MAX_MS: i64 = 120_000;
/// A session is timed out after this many heartbeats failed to come (2.4).
const HEARTBEATS_MISSED: i64 = 3;
/// A position counts as reached after this much playing since the last seek (3.6).
const PLAYED_THERE_MIN_MS: i64 = 1_000;
/// The end counts as reached within 2 s or 1 % of it (3.6).
const END_TOLERANCE_MS: i64 = 2_000;

/// One row of `silver.playback_intervals` without what it shares with its session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece {
    pub start_ms: i64,
    end_ms: i64,
    state: PlaybackState,
    cause: Option<StallCause>,
    starts: i64,
    media_ms: i64,
    shown_bits: i64,
    bitrate_known_ms: i64,
}

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
            media_ms: piece.media_ms,
            shown_bits: piece.shown_bits,
            bitrate_known_ms: piece.bitrate_known_ms,
            segments: Arc::clone(&self.session.segments),
        }
    }
}

/// Derives the facts of one key, ascending by start.
///
/// `previous` are facts derived before; they only lend their segments, so that equal ones stay one
/// allocation.
pub fn derive(
    session_key: &str,
    events: &KeyEvents,
    previous: &[SessionFacts],
    watermark_ms: Option<i64>,
    settings: &SessionSettings,
) -> Vec<SessionFacts> {
    let key = Key {
        session_key,
        details: &events.details,
        previous,
        watermark_ms,
        settings,
    };
    let mut facts = Vec::new();
    let ids = events.details.iter().map(|d| &d.native_session_id);
    let one_id = ids.clone().zip(ids.skip(1)).all(|(id, next)| id == next);
    if one_id {
        key.derive_group(&events.events, &mut facts);
    } else {
        for group in by_native_session(events).values() {
            key.derive_group(group, &mut facts);
        }
    }
    facts.sort_by(|a, b| a.row_key().cmp(&b.row_key()));
    if events.capped
        && let Some(last) = facts.last_mut()
    {
        last.session.dq_flags.push("events_capped");
        last.session.dq_flags.sort_unstable();
    }
    facts
}

/// Events of each native session id, and those without one, in canonical order.
fn by_native_session(events: &KeyEvents) -> BTreeMap<Option<&str>, Vec<Kept>> {
    let mut groups: BTreeMap<Option<&str>, Vec<Kept>> = BTreeMap::new();
    for event in &events.events {
        let id = &events.details[event.detail as usize].native_session_id;
        groups.entry(id.as_deref()).or_default().push(*event);
    }
    groups
}

/// What all sessions of a key share.
struct Key<'a> {
    session_key: &'a str,
    details: &'a [EventDetail],
    previous: &'a [SessionFacts],
    watermark_ms: Option<i64>,
    settings: &'a SessionSettings,
}

/// Why a session ends where the next one of its key begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Boundary {
    Silence,
    Length,
    Replaced,
}

impl Key<'_> {
    fn detail(&self, event: &Kept) -> &EventDetail {
        &self.details[event.detail as usize]
    }

    fn derive_group(&self, events: &[Kept], facts: &mut Vec<SessionFacts>) {
        let mut begin = 0;
        let mut progress = Progress::default();
        for (index, event) in events.iter().enumerate() {
            let detail = self.detail(event);
            if let Some(boundary) = progress.boundary_before(event, detail, self.settings) {
                facts.push(self.derive_session(&events[begin..index], Some(boundary)));
                begin = index;
                progress = Progress::default();
            }
            progress.take(event, detail);
        }
        if begin < events.len() {
            facts.push(self.derive_session(&events[begin..], None));
        }
    }

    fn derive_session(&self, events: &[Kept], boundary: Option<Boundary>) -> SessionFacts {
        let outlook = Outlook::of(events, self.details);
        let decided_before_ms = match boundary {
            Some(_) => i64::MAX,
            None => self
                .watermark_ms
                .map_or(i64::MIN, |ms| ms.saturating_sub(RECOVERY_MS)),
        };
        let mut walk = Walk::new(self.settings, events[0].event_ts_ms);
        for (index, event) in events.iter().enumerate() {
            walk.row.events += 1;
            if event.kind == EventKind::PlaybackError {
                walk.row.errors += 1;
            }
            if walk.ending != Ending::None {
                continue;
            }
            let detail = self.detail(event);
            if walk.is_bogus_report(event.kind, detail) {
                walk.row.anomalies += 1;
                continue;
            }
            walk.observe(event, detail);
            if event.kind == EventKind::PlaybackError {
                let verdict = outlook.verdict(index, event, detail, decided_before_ms);
                walk.on_error(event.event_ts_ms, verdict, detail);
            }
        }
        self.finish(walk, events, boundary)
    }

    fn finish(
        &self,
        mut walk: Walk<'_>,
        events: &[Kept],
        boundary: Option<Boundary>,
    ) -> SessionFacts {
        let closing = self.closing(&walk, events, boundary);
        if closing.end_reason == Some("timeout") && boundary != Some(Boundary::Length) {
            walk.extend_open_stall(closing.heartbeat_ms);
        }
        let started_at_ms = walk.row.started_at_ms;
        walk.row.session_id = match &self.detail(&events[0]).native_session_id {
            Some(id) => id.clone(),
            None => derived_session_id(self.session_key, started_at_ms),
        };
        walk.row.session_key = self.session_key.to_owned();
        walk.row.segments = self.segments(events, started_at_ms);
        let pieces = walk.pieces();
        SessionFacts {
            session: walk.into_row(closing.end_reason, &pieces),
            pieces,
            changes_after_ms: closing.changes_after_ms,
        }
    }

    fn closing(&self, walk: &Walk<'_>, events: &[Kept], boundary: Option<Boundary>) -> Closing {
        let mut closing = Closing {
            end_reason: None,
            changes_after_ms: None,
            heartbeat_ms: self.settings.heartbeat_interval_ms,
        };
        match walk.ending {
            Ending::Ended(reason) => closing.end_reason = Some(reason),
            Ending::Failed => closing.end_reason = Some("error"),
            Ending::Undecided => {
                closing.changes_after_ms = Some(walk.last_evidence_ms.saturating_add(RECOVERY_MS));
            }
            Ending::None => {
                closing.heartbeat_ms =
                    heartbeat_interval(events, walk.last_evidence_ms, self.settings);
                let timeout_ms = walk.timeout(closing.heartbeat_ms);
                let deadline_ms = walk.last_evidence_ms.saturating_add(timeout_ms);
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

    /// The first value known of each field in event order, save that the last stream type counts: the
    /// reference player calls everything live until the manifest is loaded.
    fn segments(&self, events: &[Kept], started_at_ms: i64) -> Arc<Segments> {
        let mut last = &self.detail(&events[0]).segments;
        let mut merged = Arc::clone(last);
        let mut stream_type = last.stream_type.as_ref();
        for event in events {
            let next = &self.detail(event).segments;
            if Arc::ptr_eq(next, last) {
                continue;
            }
            last = next;
            stream_type = next.stream_type.as_ref().or(stream_type);
            if !adds_to(next, &merged) {
                continue;
            }
            if covers(next, &merged) {
                merged = Arc::clone(next);
            } else {
                fill_segments(Arc::make_mut(&mut merged), next);
            }
        }
        if merged.stream_type.as_ref() != stream_type {
            Arc::make_mut(&mut merged).stream_type = stream_type.cloned();
        }
        let previous = self.previous.iter().map(|facts| &facts.session);
        let same = previous
            .filter(|session| session.started_at_ms == started_at_ms)
            .find(|session| session.segments == merged);
        same.map_or(merged, |session| Arc::clone(&session.segments))
    }
}

/// What is decided once a session's last event has been walked.
struct Closing {
    /// `None` while the session is open.
    end_reason: Option<&'static str>,
    changes_after_ms: Option<i64>,
    heartbeat_ms: i64,
}

/// Every text of the segments but the stream type, which has a rule of its own.
fn texts(segments: &Segments) -> [&Option<String>; 17] {
    let (device, network) = (&segments.device, &segments.network);
    [
        &segments.user_id,
        &segments.device_id,
        &segments.content_id,
        &segments.app_name,
        &segments.app_version,
        &segments.player_name,
        &segments.player_version,
        &segments.cdn,
        &segments.connection_type,
        &device.device_type,
        &device.device_model,
        &device.os,
        &device.browser,
        &network.country,
        &network.region,
        &network.city,
        &network.isp,
    ]
}
/// Whether `next` knows something that `known` does not.
fn adds_to(next: &Segments, known: &Segments) -> bool {
    let adds_text =
        |(known, next): (&Option<String>, &Option<String>)| known.is_none() && next.is_some();
    let mut pairs = texts(known).into_iter().zip(texts(next));
    pairs.any(adds_text) || known.network.asn.is_none() && next.network.asn.is_some()
}

/// Whether `next` says everything that `known` says.
fn covers(next: &Segments, known: &Segments) -> bool {
    let keeps_text =
        |(known, next): (&Option<String>, &Option<String>)| known.is_none() || known == next;
    let (asn, next_asn) = (known.network.asn, next.network.asn);
    let mut pairs = texts(known).into_iter().zip(texts(next));
    pairs.all(keeps_text) && (asn.is_none() || asn == next_asn)
}

fn fill_segments(known: &mut Segments, next: &Segments) {
    fn fill<T: Clone>(known: &mut Option<T>, next: &Option<T>) {
        if known.is_none() {
            known.clone_from(next);
        }
    }
    fill(&mut known.user_id, &next.user_id);
    fill(&mut known.device_id, &next.device_id);
    fill(&mut known.content_id, &next.content_id);
    fill(&mut known.app_name, &next.app_name);
    fill(&mut known.app_version, &next.app_version);
    fill(&mut known.player_name, &next.player_name);
    fill(&mut known.player_version, &next.player_version);
    fill(&mut known.device.device_type, &next.device.device_type);
    fill(&mut known.device.device_model, &next.device.device_model);
    fill(&mut known.device.os, &next.device.os);
    fill(&mut known.device.browser, &next.device.browser);
    fill(&mut known.network.country, &next.network.country);
    fill(&mut known.network.region, &next.network.region);
    fill(&mut known.network.city, &next.network.city);
    fill(&mut known.network.asn, &next.network.asn);
    fill(&mut known.network.isp, &next.network.isp);
    fill(&mut known.cdn, &next.cdn);
    fill(&mut known.connection_type, &next.connection_type);
}

fn derived_session_id(session_key: &str, started_at_ms: i64) -> String {
    let hash = xxh3_128_with_seed(session_key.as_bytes(), started_at_ms as u64);
    format!("s-{hash:032x}")
}

/// Median gap of the heartbeats, or the setting while there is no gap to measure.
fn heartbeat_interval(events: &[Kept], last_evidence_ms: i64, settings: &SessionSettings) -> i64 {
    let mut gaps: Vec<i64> = Vec::new();
    let mut last_ms = None;
    for event in events {
        if event.kind != EventKind::Heartbeat || event.event_ts_ms > last_evidence_ms {
            continue;
        }
        if let Some(last_ms) = last_ms.replace(event.event_ts_ms) {
            gaps.push(event.event_ts_ms - last_ms);
        }
    }
    if gaps.is_empty() {
        return settings.heartbeat_interval_ms;
    }
    let middle = (gaps.len() - 1) / 2;
    *gaps.select_nth_unstable(middle).1
}

/// Whether an event shows that the player is past its first frame.
fn shows_frame(event: &Kept) -> bool {
    match event.kind {
        EventKind::PlaybackStart | EventKind::PlaybackFinish => true,
        // Some players send heartbeats while they still load, at position 0.
        EventKind::Heartbeat => event.playhead_ms != Some(0),
        _ => false,
    }
}

/// A session so far, as far as its boundaries go.
#[derive(Default)]
struct Progress {
    span_ms: Option<(i64, i64)>,
    last_request_ms: Option<i64>,
    framed: bool,
    /// Something other than requests has shown what the player does.
    acted: bool,
    ended: bool,
    /// The last error that nothing has healed yet, and whether it is known to be fatal.
    error: Option<(i64, bool)>,
}

impl Progress {
    /// Whether `event` begins a new session (2.4). Sessions with a native id are split by silence and
    /// length alone: the sender has said what belongs together.
    fn boundary_before(
        &self,
        event: &Kept,
        detail: &EventDetail,
        settings: &SessionSettings,
    ) -> Option<Boundary> {
        let (start_ms, last_ms) = self.span_ms?;
        let now_ms = event.event_ts_ms;
        if now_ms - last_ms > settings.idle_gap_ms {
            return Some(Boundary::Silence);
        }
        if now_ms - start_ms >= SESSION_LENGTH_MAX_MS {
            return Some(Boundary::Length);
        }
        // Two sessions of one key never share a start: it makes their id.
        if detail.native_session_id.is_some() || now_ms == start_ms {
            return None;
        }
        let begins = match event.kind {
            EventKind::PlaybackStart => self.is_over_at(now_ms),
            EventKind::PlaybackRequest if event.playhead_ms == Some(0) => {
                self.is_superseded_at(now_ms)
            }
            _ => false,
        };
        begins.then_some(Boundary::Replaced)
    }

    fn is_over_at(&self, now_ms: i64) -> bool {
        let failed = self.error.is_some_and(|(ms, _)| now_ms - ms > RECOVERY_MS);
        self.ended || failed
    }

    fn is_superseded_at(&self, now_ms: i64) -> bool {
        if self.ended || self.error.is_some() || self.framed {
            return true;
        }
        let Some(last_request_ms) = self.last_request_ms else {
            return false;
        };
        self.acted || now_ms - last_request_ms > DOUBLE_REQUEST_MS
    }

    fn take(&mut self, event: &Kept, detail: &EventDetail) {
        let now_ms = event.event_ts_ms;
        let start_ms = self.span_ms.map_or(now_ms, |(start_ms, _)| start_ms);
        self.span_ms = Some((start_ms, now_ms));
        if shows_frame(event) {
            self.framed = true;
            let heals_fatal = event.kind == EventKind::PlaybackStart;
            self.error = self.error.filter(|(_, fatal)| *fatal && !heals_fatal);
        }
        match event.kind {
            EventKind::PlaybackRequest => self.last_request_ms = Some(now_ms),
            EventKind::PlaybackFinish | EventKind::SessionEnd => self.ended = true,
            EventKind::PlaybackError if detail.error_fatal != Some(false) => {
                self.error = Some((now_ms, detail.error_fatal == Some(true)));
            }
            EventKind::PlaybackPause
            | EventKind::StallStart
            | EventKind::StallEnd
            | EventKind::SeekStart
            | EventKind::SeekEnd => self.acted = true,
            _ => {}
        }
    }
}

/// What the rest of a session says about an error in it.
#[derive(Default)]
struct Outlook {
    /// Place and time of each `PlaybackStart`; only filled when the session holds an error.
    starts: Vec<(usize, i64)>,
    last_frame: Option<usize>,
    ends: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Warning,
    /// The error broke playback, and a frame followed in time.
    Restarted,
    /// It did not even break playback.
    PlayedOn,
    Undecided,
    Fatal,
}

impl Outlook {
    fn of(events: &[Kept], details: &[EventDetail]) -> Self {
        let is_serious = |event: &Kept| {
            let fatal = details[event.detail as usize].error_fatal;
            event.kind == EventKind::PlaybackError && fatal != Some(false)
        };
        let mut outlook = Outlook::default();
        if !events.iter().any(is_serious) {
            return outlook;
        }
        for (index, event) in events.iter().enumerate() {
            if event.kind == EventKind::PlaybackStart {
                outlook.starts.push((index, event.event_ts_ms));
            }
            if shows_frame(event) {
                outlook.last_frame = Some(index);
            }
            if is_end(event.kind) {
                outlook.ends = true;
                break;
            }
        }
        outlook
    }

    /// `decided_before_ms`: an earlier error can no longer be followed by an unknown event in time.
    fn verdict(
        &self,
        index: usize,
        event: &Kept,
        detail: &EventDetail,
        decided_before_ms: i64,
    ) -> Verdict {
        let error_ms = event.event_ts_ms;
        match detail.error_fatal {
            Some(false) => return Verdict::Warning,
            Some(true) if self.restarts(index, error_ms) => return Verdict::Restarted,
            None if self.last_frame > Some(index) => return Verdict::PlayedOn,
            _ => {}
        }
        if error_ms < decided_before_ms || self.ends {
            return Verdict::Fatal;
        }
        Verdict::Undecided
    }

    fn restarts(&self, index: usize, error_ms: i64) -> bool {
        let next = self.starts.partition_point(|(start, _)| *start < index);
        let start = self.starts.get(next);
        start.is_some_and(|(_, start_ms)| start_ms - error_ms <= RECOVERY_MS)
    }
}

fn is_end(kind: EventKind) -> bool {
    matches!(kind, EventKind::PlaybackFinish | EventKind::SessionEnd)
}

/// A span of one state. The last one is the present and grows with each event.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    start_ms: i64,
    end_ms: i64,
    /// `None` where nothing is known to have happened: before the intent, after a failure.
    state: Option<PlaybackState>,
    cause: Option<StallCause>,
    /// False on the later parts of a stall that a pause interrupted: it is one stall.
    begins: bool,
}

/// What is shown from an instant on.
#[derive(Debug, Clone, Copy)]
struct Shown {
    from_ms: i64,
    bitrate_bps: Option<i64>,
    /// Playback rate in millionths, so that sums are exact.
    rate_ppm: i64,
}

/// A seek whose start has been seen and whose end has not.
#[derive(Debug, Clone, Copy, Default)]
struct OpenSeek {
    was_paused: bool,
    /// The seek itself is over and only its buffering is awaited.
    sought: bool,
    stalled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    None,
    Ended(&'static str),
    Failed,
    Undecided,
}

/// The walk through one session.
struct Walk<'a> {
    settings: &'a SessionSettings,
    stretches: Vec<Stretch>,
    shown: Vec<Shown>,
    /// What the player does, whether or not anybody sees it.
    state: Option<PlaybackState>,
    in_background: bool,
    seek: OpenSeek,
    seek_ended_ms: Option<i64>,
    played_since_seek_ms: i64,
    reached_ms: Option<i64>,
    first_request_ms: Option<i64>,
    framed: bool,
    /// True if the first frame was reported and not only implied.
    start_seen: bool,
    startup_ms: Option<i64>,
    last_evidence_ms: i64,
    ending: Ending,
    row: PlaybackSession,
}

impl<'a> Walk<'a> {
    fn new(settings: &'a SessionSettings, started_at_ms: i64) -> Self {
        let present = Stretch {
            start_ms: started_at_ms,
            end_ms: started_at_ms,
            state: None,
            cause: None,
            begins: true,
        };
        Self {
            settings,
            stretches: vec![present],
            shown: Vec::new(),
            state: None,
            in_background: false,
            seek: OpenSeek::default(),
            seek_ended_ms: None,
            played_since_seek_ms: 0,
            reached_ms: None,
            first_request_ms: None,
            framed: false,
            start_seen: false,
            startup_ms: None,
            last_evidence_ms: started_at_ms,
            ending: Ending::None,
            row: blank_row(started_at_ms),
        }
    }

    /// A report of an impossible length says nothing, not even that the player lives.
    fn is_bogus_report(&self, kind: EventKind, detail: &EventDetail) -> bool {
        match kind {
            EventKind::StallEnd => {
                let ends_wait = self.state == Some(PlaybackState::Rebuffering)
                    || self.state == Some(PlaybackState::Seeking) && self.seek.stalled;
                is_insane(detail.stall_ms, STALL_MAX_MS) && !ends_wait
            }
            EventKind::SeekEnd => {
                is_insane(detail.seek_ms, STALL_MAX_MS)
                    && self.state != Some(PlaybackState::Seeking)
            }
            _ => false,
        }
    }

    fn observe(&mut self, event: &Kept, detail: &EventDetail) {
        let now_ms = event.event_ts_ms;
        self.advance(now_ms);
        self.observe_position(event, detail);
        self.observe_background(detail);
        self.observe_shown(now_ms, detail);
        self.observe_startup(event.kind, detail);
        match event.kind {
            EventKind::PlaybackRequest => self.on_request(now_ms),
            EventKind::PlaybackStart => self.on_start(now_ms, detail),
            EventKind::Heartbeat => self.on_heartbeat(event, detail),
            EventKind::PlaybackPause => self.on_pause(),
            EventKind::StallStart => self.on_stall_start(now_ms),
            EventKind::StallEnd => self.on_stall_end(now_ms, detail),
            EventKind::SeekStart => self.on_seek_start(),
            EventKind::SeekEnd => self.on_seek_end(now_ms, detail),
            EventKind::PlaybackFinish => self.on_finish(),
            EventKind::SessionEnd => self.on_session_end(now_ms, detail),
            _ => {}
        }
        self.enter(now_ms);
        if self.framed && self.row.start_bitrate_bps.is_none() {
            self.row.start_bitrate_bps = self.shown.last().and_then(|shown| shown.bitrate_bps);
        }
    }

    fn advance(&mut self, now_ms: i64) {
        let present = self.present();
        if present.state == Some(PlaybackState::Playing) {
            let played_ms = now_ms - present.end_ms;
            present.end_ms = now_ms;
            self.played_since_seek_ms += played_ms;
        } else {
            present.end_ms = now_ms;
        }
        self.last_evidence_ms = now_ms;
    }

    fn present(&mut self) -> &mut Stretch {
        self.stretches
            .last_mut()
            .expect("a walk begins with one stretch and never removes the last without a new one")
    }

    fn observe_position(&mut self, event: &Kept, detail: &EventDetail) {
        if let Some(duration_ms) = detail.duration_ms.filter(|ms| *ms > 0) {
            self.row.duration_ms = Some(duration_ms);
        }
        self.row.max_playhead_ms = self.row.max_playhead_ms.max(event.playhead_ms);
        let tells_position = matches!(
            event.kind,
            EventKind::Heartbeat | EventKind::PlaybackPause | EventKind::PlaybackFinish
        );
        let was_playing = self.present().state == Some(PlaybackState::Playing);
        if tells_position && was_playing && self.played_since_seek_ms >= PLAYED_THERE_MIN_MS {
            self.reached_ms = self.reached_ms.max(event.playhead_ms);
        }
    }

    fn observe_background(&mut self, detail: &EventDetail) {
        let Some(in_background) = detail.background else {
            return;
        };
        self.in_background = in_background;
        if in_background && !self.framed {
            self.flag("startup_background");
        }
    }

    fn observe_shown(&mut self, now_ms: i64, detail: &EventDetail) {
        let before = self.shown.last().copied().unwrap_or(Shown {
            from_ms: now_ms,
            bitrate_bps: None,
            rate_ppm: RATE_ONE_PPM,
        });
        let mut shown = before;
        match detail.bitrate_bps {
            Some(bitrate_bps) if bitrate_bps > BITRATE_MAX_BPS => self.row.anomalies += 1,
            Some(bitrate_bps) if bitrate_bps > 0 => shown.bitrate_bps = Some(bitrate_bps),
            _ => {}
        }
        if let Some(rate) = detail.playback_rate
            && (0.0..=PLAYBACK_RATE_MAX).contains(&rate)
        {
            shown.rate_ppm = (rate * RATE_ONE_PPM as f64).round() as i64;
        }
        if (shown.bitrate_bps, shown.rate_ppm) == (before.bitrate_bps, before.rate_ppm) {
            return;
        }
        if let (true, Some(old), Some(new)) = (self.framed, before.bitrate_bps, shown.bitrate_bps) {
            self.row.switches_up += i64::from(new > old);
            self.row.switches_down += i64::from(new < old);
        }
        shown.from_ms = now_ms;
        self.shown.push(shown);
    }

    fn observe_startup(&mut self, kind: EventKind, detail: &EventDetail) {
        if matches!(kind, EventKind::Metadata | EventKind::Custom) {
            return;
        }
        if is_insane(detail.startup_ms, STARTUP_MAX_MS) {
            self.row.anomalies += 1;
        } else if self.startup_ms.is_none() {
            self.startup_ms = detail.startup_ms;
        }
    }

    fn on_request(&mut self, now_ms: i64) {
        self.first_request_ms.get_or_insert(now_ms);
        if !self.framed {
            self.state = Some(PlaybackState::Starting);
        } else if self.state == Some(PlaybackState::Paused) {
            self.state = Some(PlaybackState::Playing);
        } else {
            self.seek.was_paused = false;
        }
    }

    fn on_start(&mut self, now_ms: i64, detail: &EventDetail) {
        match self.state {
            Some(PlaybackState::Rebuffering) => self.settle_open_stall(now_ms, detail.stall_ms),
            Some(PlaybackState::Seeking) => self.leave_seek(now_ms),
            Some(PlaybackState::Playing) => self.place_reported_stall(now_ms, detail.stall_ms),
            _ => {}
        }
        self.start_seen |= !self.framed;
        self.framed = true;
        self.state = Some(PlaybackState::Playing);
    }

    fn on_heartbeat(&mut self, event: &Kept, detail: &EventDetail) {
        if shows_frame(event) {
            self.on_implied_frame();
        }
        // While a stall is open its length is not known yet, whatever the counter says.
        if self.framed && self.state != Some(PlaybackState::Rebuffering) {
            self.place_reported_stall(event.event_ts_ms, detail.stall_ms);
        }
    }

    /// A heartbeat or an end shows that a first frame was seen and its event lost. How long the start
    /// took is then unknown, so no startup is counted.
    fn on_implied_frame(&mut self) {
        if self.framed {
            return;
        }
        self.framed = true;
        self.flag("inferred_frame");
        for stretch in &mut self.stretches {
            if stretch.state == Some(PlaybackState::Starting) {
                stretch.state = None;
            }
        }
        self.state = Some(PlaybackState::Playing);
    }

    fn on_pause(&mut self) {
        if self.state == Some(PlaybackState::Seeking) {
            self.seek_ended_ms = Some(self.last_evidence_ms);
        }
        if self.state.is_some() {
            self.state = Some(PlaybackState::Paused);
        }
    }

    fn on_stall_start(&mut self, now_ms: i64) {
        match self.state {
            Some(PlaybackState::Seeking) => self.seek.stalled = true,
            // Buffering that begins where the seek ended is still the seek (3.1, rule 3).
            Some(PlaybackState::Playing) if self.seek_ended_ms == Some(now_ms) => {
                self.state = Some(PlaybackState::Seeking);
                self.seek = OpenSeek {
                    was_paused: false,
                    sought: true,
                    stalled: true,
                };
            }
            Some(PlaybackState::Playing) => self.state = Some(PlaybackState::Rebuffering),
            _ => {}
        }
    }

    fn on_stall_end(&mut self, now_ms: i64, detail: &EventDetail) {
        match self.state {
            Some(PlaybackState::Rebuffering) => self.settle_open_stall(now_ms, detail.stall_ms),
            Some(PlaybackState::Seeking) => {
                self.seek.stalled = false;
                if self.seek.sought {
                    self.leave_seek(now_ms);
                } else if detail.stall_ms.is_some_and(|ms| ms > 0) {
                    self.flag("stall_clipped");
                }
            }
            _ => self.place_reported_stall(now_ms, detail.stall_ms),
        }
    }

    fn place_reported_stall(&mut self, now_ms: i64, reported_ms: Option<i64>) {
        if is_insane(reported_ms, STALL_MAX_MS) {
            self.row.anomalies += 1;
        } else if let Some(length_ms) = reported_ms.filter(|ms| *ms > 0) {
            self.place_stall(now_ms, length_ms);
        }
    }

    /// A stall whose start was seen ends. The player's own length wins if it is sane.
    fn settle_open_stall(&mut self, now_ms: i64, reported_ms: Option<i64>) {
        self.state = Some(PlaybackState::Playing);
        let is_visible = self.present().state == Some(PlaybackState::Rebuffering);
        if is_insane(reported_ms, STALL_MAX_MS) {
            self.row.anomalies += 1;
        } else if let (true, Some(length_ms)) = (is_visible, reported_ms.filter(|ms| *ms > 0)) {
            self.unstall_present();
            self.place_stall(now_ms, length_ms);
        }
    }

    /// Turns the stall of now back into playing.
    fn unstall_present(&mut self) {
        let present = self.present();
        present.state = Some(PlaybackState::Playing);
        present.cause = None;
        let (state, end_ms) = (present.state, present.end_ms);
        let before = self.stretches.len().wrapping_sub(2);
        if let Some(last) = self.stretches.get_mut(before)
            && last.state == state
        {
            last.end_ms = end_ms;
            self.stretches.pop();
        }
    }

    /// Lays a reported stall over the time before `now_ms`. It reaches back to the last start-up,
    /// seek, stall or background; pauses on the way stay pauses; the rest of the report is dropped.
    fn place_stall(&mut self, now_ms: i64, length_ms: i64) {
        let from_ms = now_ms.saturating_sub(length_ms);
        let is_open = |stretch: &Stretch| {
            let state = stretch.state;
            state == Some(PlaybackState::Playing) || state == Some(PlaybackState::Paused)
        };
        let covered = self.stretches.iter().rev();
        let covered = covered.take_while(|s| is_open(s) && s.end_ms >= from_ms);
        let keep = self.stretches.len() - covered.count();
        let tail = self.stretches.split_off(keep);
        let mut placed_ms = 0;
        let mut cause = StallCause::Connection;
        for stretch in tail {
            let cut_ms = stretch.start_ms.max(from_ms);
            let is_covered =
                stretch.state == Some(PlaybackState::Playing) && cut_ms < stretch.end_ms;
            if !is_covered {
                self.stretches.push(stretch);
                continue;
            }
            if stretch.start_ms < cut_ms {
                self.stretches.push(Stretch {
                    end_ms: cut_ms,
                    ..stretch
                });
            }
            if placed_ms == 0 {
                cause = self.cause_at(cut_ms);
            }
            self.stretches.push(Stretch {
                start_ms: cut_ms,
                state: Some(PlaybackState::Rebuffering),
                cause: Some(cause),
                begins: placed_ms == 0,
                ..stretch
            });
            placed_ms += stretch.end_ms - cut_ms;
        }
        self.played_since_seek_ms = (self.played_since_seek_ms - placed_ms).max(0);
        if placed_ms < length_ms {
            self.flag("stall_clipped");
        }
        self.begin_present(now_ms);
    }

    fn cause_at(&self, stall_start_ms: i64) -> StallCause {
        let since_seek_ms = self.seek_ended_ms.map(|ms| stall_start_ms - ms);
        match since_seek_ms {
            Some(ms) if (0..=self.settings.post_seek_grace_ms).contains(&ms) => {
                StallCause::SeekInduced
            }
            _ => StallCause::Connection,
        }
    }

    fn on_seek_start(&mut self) {
        if !self.framed {
            self.flag("startup_seek");
            return;
        }
        self.played_since_seek_ms = 0;
        match self.state {
            Some(PlaybackState::Seeking) => self.seek.sought = false,
            Some(state) => {
                self.seek = OpenSeek {
                    was_paused: state == PlaybackState::Paused,
                    ..OpenSeek::default()
                };
                self.state = Some(PlaybackState::Seeking);
            }
            None => {}
        }
    }

    fn on_seek_end(&mut self, now_ms: i64, detail: &EventDetail) {
        if !self.framed {
            self.flag("startup_seek");
            return;
        }
        if self.state == Some(PlaybackState::Seeking) {
            self.row.anomalies += i64::from(is_insane(detail.seek_ms, STALL_MAX_MS));
            self.seek.sought = true;
            if !self.seek.stalled {
                self.leave_seek(now_ms);
            }
            return;
        }
        if let Some(length_ms) = detail.seek_ms.filter(|ms| *ms > 0) {
            self.place_seek(now_ms, length_ms);
        }
        self.seek_ended_ms = Some(now_ms);
        self.played_since_seek_ms = 0;
    }

    fn leave_seek(&mut self, now_ms: i64) {
        let resumed = if self.seek.was_paused {
            PlaybackState::Paused
        } else {
            PlaybackState::Playing
        };
        self.state = Some(resumed);
        self.seek_ended_ms = Some(now_ms);
        self.played_since_seek_ms = 0;
    }

    /// Lays a reported seek over the time before `now_ms`: over playing, pause and stall, since
    /// buffering inside a seek is seek wait.
    fn place_seek(&mut self, now_ms: i64, length_ms: i64) {
        let is_open = |stretch: &Stretch| {
            matches!(
                stretch.state,
                Some(PlaybackState::Playing | PlaybackState::Paused | PlaybackState::Rebuffering)
            )
        };
        let from_ms = now_ms.saturating_sub(length_ms);
        let mut start_ms = now_ms;
        while let Some(last) = self.stretches.last_mut() {
            if !is_open(last) || last.end_ms <= from_ms {
                break;
            }
            if last.start_ms < from_ms {
                last.end_ms = from_ms;
                start_ms = from_ms;
                break;
            }
            start_ms = last.start_ms;
            self.stretches.pop();
        }
        if start_ms < now_ms {
            self.stretches.push(Stretch {
                start_ms,
                end_ms: now_ms,
                state: Some(PlaybackState::Seeking),
                cause: None,
                begins: true,
            });
        }
        self.begin_present(now_ms);
    }

    fn on_finish(&mut self) {
        self.on_implied_frame();
        self.row.finished = 1;
        self.ending = Ending::Ended("finished");
    }

    fn on_session_end(&mut self, now_ms: i64, detail: &EventDetail) {
        match detail.end_reason {
            Some("error") => self.fail(now_ms, detail),
            Some(reason) => {
                self.row.finished = i64::from(reason == "finished" && self.framed);
                self.ending = Ending::Ended(reason);
            }
            None => self.ending = Ending::Ended("user_quit"),
        }
    }

    fn on_error(&mut self, now_ms: i64, verdict: Verdict, detail: &EventDetail) {
        match verdict {
            Verdict::Warning => {}
            Verdict::PlayedOn => self.row.recovered_errors += 1,
            Verdict::Restarted => {
                self.row.recovered_errors += 1;
                if self.framed {
                    self.state = None;
                    self.enter(now_ms);
                }
            }
            Verdict::Undecided => self.ending = Ending::Undecided,
            Verdict::Fatal => self.fail(now_ms, detail),
        }
    }

    fn fail(&mut self, now_ms: i64, detail: &EventDetail) {
        self.row.fatal_errors = 1;
        self.row.fatal_error_at_ms = Some(now_ms);
        self.row.error_code.clone_from(&detail.error_code);
        self.ending = Ending::Failed;
    }

    /// Begins a stretch at `now_ms` if the state is another than before.
    fn enter(&mut self, now_ms: i64) {
        let state = self.visible_state();
        let present = *self.present();
        if present.state == state {
            return;
        }
        if present.start_ms == present.end_ms && self.stretches.len() > 1 {
            self.stretches.pop();
        }
        self.begin_present(now_ms);
    }

    /// Makes the last stretch one of the state of now.
    fn begin_present(&mut self, now_ms: i64) {
        let state = self.visible_state();
        if self
            .stretches
            .last()
            .is_some_and(|last| last.state == state)
        {
            return;
        }
        let is_stall = state == Some(PlaybackState::Rebuffering);
        self.stretches.push(Stretch {
            start_ms: now_ms,
            end_ms: now_ms,
            state,
            cause: is_stall.then(|| self.cause_at(now_ms)),
            begins: true,
        });
    }

    fn visible_state(&self) -> Option<PlaybackState> {
        if self.in_background && self.state.is_some() {
            return Some(PlaybackState::Background);
        }
        self.state
    }

    fn flag(&mut self, name: &'static str) {
        if !self.row.dq_flags.contains(&name) {
            self.row.dq_flags.push(name);
        }
    }

    /// How long after the last evidence a silent session is closed (2.4).
    fn timeout(&self, heartbeat_ms: i64) -> i64 {
        if self.in_background || self.state == Some(PlaybackState::Paused) {
            return self.settings.idle_gap_ms;
        }
        let patience_ms = heartbeat_ms.saturating_mul(HEARTBEATS_MISSED);
        let floor_ms = self.settings.timeout_floor_ms;
        patience_ms.max(floor_ms).min(self.settings.idle_gap_ms)
    }

    /// A stall that ends in silence lasted at least until the next heartbeat would have come.
    fn extend_open_stall(&mut self, heartbeat_ms: i64) {
        let present = self.present();
        if present.state != Some(PlaybackState::Rebuffering) {
            return;
        }
        present.end_ms += heartbeat_ms.min(OPEN_STALL_MAX_MS);
        self.last_evidence_ms = present.end_ms;
        self.flag("stall_open_end");
    }

    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut shown = self.shown.iter().copied().peekable();
        let mut now_shown = None;
        for stretch in &self.stretches {
            let Some(state) = stretch.state else {
                continue;
            };
            let mut start_ms = stretch.start_ms;
            while start_ms < stretch.end_ms {
                let minute_end_ms = (start_ms.div_euclid(MINUTE_MS) + 1) * MINUTE_MS;
                let end_ms = stretch.end_ms.min(minute_end_ms);
                let mut media = Media::default();
                if state == PlaybackState::Playing {
                    let mut from_ms = start_ms;
                    while let Some(next) = shown.next_if(|next| next.from_ms < end_ms) {
                        media.add(next.from_ms - from_ms, now_shown);
                        from_ms = from_ms.max(next.from_ms);
                        now_shown = Some(next);
                    }
                    media.add(end_ms - from_ms, now_shown);
                }
                let begins = stretch.begins && start_ms == stretch.start_ms;
                pieces.push(Piece {
                    start_ms,
                    end_ms,
                    state,
                    cause: stretch.cause,
                    starts: i64::from(begins),
                    media_ms: round_half_up(media.time, RATE_ONE_PPM),
                    shown_bits: round_half_up(media.bits, RATE_ONE_PPM * 1_000),
                    bitrate_known_ms: round_half_up(media.known_time, RATE_ONE_PPM),
                });
                start_ms = end_ms;
            }
        }
        pieces
    }

    fn into_row(mut self, end_reason: Option<&'static str>, pieces: &[Piece]) -> PlaybackSession {
        self.settle_row(end_reason);
        self.settle_startup();
        let quartile = self.quartile();
        let mut row = self.row;
        row.quartile = quartile;
        for piece in pieces {
            add_piece(&mut row, piece);
        }
        row.dq_flags.sort_unstable();
        row
    }

    fn settle_row(&mut self, end_reason: Option<&'static str>) {
        let requested = self.first_request_ms.is_some();
        if self.framed && !requested {
            self.flag("inferred_request");
        }
        let row = &mut self.row;
        row.ended_at_ms = self.last_evidence_ms;
        row.end_reason = end_reason;
        row.is_open = end_reason.is_none();
        row.attempts = i64::from(requested || self.framed);
        row.plays = i64::from(self.framed);
        row.playback_failures = row.plays * row.fatal_errors;
        row.outcome = match (self.framed, requested, row.fatal_errors) {
            (true, _, _) => Outcome::Played,
            (false, true, 1) => Outcome::StartFailure,
            (false, true, _) if !row.is_open => Outcome::ExitBeforeStart,
            _ => Outcome::Open,
        };
        row.start_failures = i64::from(row.outcome == Outcome::StartFailure);
        row.exits_before_start = i64::from(row.outcome == Outcome::ExitBeforeStart);
        if row.outcome == Outcome::ExitBeforeStart {
            let wait_ms = self.first_request_ms.map(|ms| row.ended_at_ms - ms);
            row.exit_wait_ms = wait_ms;
        }
    }

    /// A start with a seek or out of sight is no measure of the service (3.3); flags count it.
    fn settle_startup(&mut self) {
        let is_excluded = |flag: &&str| matches!(*flag, "startup_seek" | "startup_background");
        if !self.framed || self.row.dq_flags.iter().any(is_excluded) {
            return;
        }
        let may_derive = self.start_seen && self.first_request_ms.is_some();
        let starting = Some(PlaybackState::Starting);
        let starts = self.stretches.iter().filter(|s| s.state == starting);
        let derived_ms = starts.map(|s| s.end_ms - s.start_ms).sum::<i64>();
        self.row.startup_ms = self.startup_ms.or(may_derive.then_some(derived_ms));
        if is_insane(self.row.startup_ms, STARTUP_MAX_MS) {
            self.row.startup_ms = None;
            self.row.anomalies += 1;
        }
    }

    fn quartile(&self) -> Option<i64> {
        let stream_type = self.row.segments.stream_type.as_deref();
        if !self.framed || matches!(stream_type, Some("live" | "ll_live")) {
            return None;
        }
        let duration_ms = self.row.duration_ms?;
        let tolerance_ms = END_TOLERANCE_MS.max(duration_ms / 100);
        let reached_ms = self.reached_ms.unwrap_or(0).max(0);
        let reached_end = duration_ms > tolerance_ms && reached_ms >= duration_ms - tolerance_ms;
        if self.row.finished == 1 || reached_end {
            return Some(100);
        }
        // Wide, since a length is whatever the sender says.
        let percent = i128::from(reached_ms) * 100 / i128::from(duration_ms);
        Some((percent.min(99) / 25 * 25) as i64)
    }
}

fn is_insane(length_ms: Option<i64>, max_ms: i64) -> bool {
    length_ms.is_some_and(|ms| !(0..=max_ms).contains(&ms))
}

/// Exact sums of one piece: time in ms x millionths of the rate, bits in bit/s x that.
#[derive(Debug, Clone, Copy, Default)]
struct Media {
    time: i128,
    known_time: i128,
    bits: i128,
}

impl Media {
    fn add(&mut self, length_ms: i64, shown: Option<Shown>) {
        if length_ms <= 0 {
            return;
        }
        let rate_ppm = shown.map_or(RATE_ONE_PPM, |shown| shown.rate_ppm);
        let time = i128::from(length_ms * rate_ppm);
        self.time += time;
        if let Some(bitrate_bps) = shown.and_then(|shown| shown.bitrate_bps) {
            self.known_time += time;
            self.bits += time * i128::from(bitrate_bps);
        }
    }
}

fn round_half_up(sum: i128, unit: i64) -> i64 {
    let unit = i128::from(unit);
    ((sum + unit / 2) / unit) as i64
}

fn add_piece(row: &mut PlaybackSession, piece: &Piece) {
    let length_ms = piece.end_ms - piece.start_ms;
    row.media_ms += piece.media_ms;
    row.shown_bits += piece.shown_bits;
    row.bitrate_known_ms += piece.bitrate_known_ms;
    match (piece.state, piece.cause) {
        (PlaybackState::Starting, _) => row.startup_wait_ms += length_ms,
        (PlaybackState::Playing, _) => row.playing_ms += length_ms,
        (PlaybackState::Rebuffering, Some(StallCause::SeekInduced)) => {
            row.stall_seek_ms += length_ms;
        }
        (PlaybackState::Rebuffering, _) => {
            row.stall_ms += length_ms;
            row.stall_count += piece.starts;
        }
        (PlaybackState::Seeking, _) => {
            row.seek_wait_ms += length_ms;
            row.seek_count += piece.starts;
        }
        (PlaybackState::Paused, _) => row.paused_ms += length_ms,
        (PlaybackState::Background, _) => row.background_ms += length_ms,
    }
}

fn blank_row(started_at_ms: i64) -> PlaybackSession {
    PlaybackSession {
        session_id: String::new(),
        session_key: String::new(),
        started_at_ms,
        ended_at_ms: started_at_ms,
        is_open: true,
        attempts: 0,
        outcome: Outcome::Open,
        plays: 0,
        startup_ms: None,
        exit_wait_ms: None,
        exits_before_start: 0,
        start_failures: 0,
        playback_failures: 0,
        fatal_errors: 0,
        errors: 0,
        recovered_errors: 0,
        fatal_error_at_ms: None,
        error_code: None,
        playing_ms: 0,
        media_ms: 0,
        startup_wait_ms: 0,
        stall_ms: 0,
        stall_count: 0,
        stall_seek_ms: 0,
        seek_wait_ms: 0,
        seek_count: 0,
        paused_ms: 0,
        background_ms: 0,
        shown_bits: 0,
        bitrate_known_ms: 0,
        start_bitrate_bps: None,
        switches_up: 0,
        switches_down: 0,
        duration_ms: None,
        max_playhead_ms: None,
        quartile: None,
        finished: 0,
        end_reason: None,
        events: 0,
        anomalies: 0,
        dq_flags: Vec::new(),
        segments: Arc::default(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::session::SessionEvent;

    /// 2020-05-06T08:00:00Z, the hour of the reference fixture; a whole minute.
    pub const T0: i64 = 1_588_752_000_000;

    fn ms(seconds: &str) -> i64 {
        (seconds.parse::<f64>().expect("a number of seconds") * 1_000.0).round() as i64
    }

    /// One event a line: seconds after `T0`, kind, then `name=value` with times in seconds.
    pub fn script(text: &str) -> Vec<SessionEvent> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.enumerate().map(|(n, line)| event(n, line)).collect()
    }

    fn event(n: usize, line: &str) -> SessionEvent {
        let mut words = line.split_whitespace();
        let event_ts_ms = T0 + ms(words.next().expect("a time"));
        let kind = words.next().and_then(EventKind::parse).expect("a kind");
        let mut event = SessionEvent {
            event_id: xxh3_128_with_seed(line.as_bytes(), n as u64),
            kind,
            event_ts_ms,
            seq: None,
            playhead_ms: None,
            detail: EventDetail::default(),
        };
        for word in words {
            let (name, value) = word.split_once('=').expect("name=value");
            set(&mut event, name, value);
        }
        event
    }

    fn set(event: &mut SessionEvent, name: &str, value: &str) {
        let detail = &mut event.detail;
        let segments = Arc::make_mut(&mut detail.segments);
        match name {
            "at" => event.playhead_ms = Some(ms(value)),
            "seq" => event.seq = value.parse().ok(),
            "sid" => detail.native_session_id = Some(value.to_owned()),
            "duration" => detail.duration_ms = Some(ms(value)),
            "bps" => detail.bitrate_bps = value.parse().ok(),
            "stall" => detail.stall_ms = Some(ms(value)),
            "startup" => detail.startup_ms = Some(ms(value)),
            "seek" => detail.seek_ms = Some(ms(value)),
            "rate" => detail.playback_rate = value.parse().ok(),
            "fatal" => detail.error_fatal = value.parse().ok(),
            "code" => detail.error_code = Some(value.to_owned()),
            "background" => detail.background = value.parse().ok(),
            "reason" => {
                let known = ["finished", "user_quit", "error", "replaced", "unknown"];
                detail.end_reason = known.into_iter().find(|reason| *reason == value);
            }
            "stream" => segments.stream_type = Some(value.to_owned()),
            "net" => segments.connection_type = Some(value.to_owned()),
            "app" => segments.app_name = Some(value.to_owned()),
            _ => panic!("unknown name {name}"),
        }
    }

    pub fn stored(events: Vec<SessionEvent>) -> KeyEvents {
        let mut store = KeyEvents::default();
        for event in events {
            store.insert(event);
        }
        store
    }

    fn facts(text: &str, watermark: &str) -> Vec<SessionFacts> {
        let watermark_ms = (watermark != "-").then(|| T0 + ms(watermark));
        let settings = SessionSettings::default();
        derive("key", &stored(script(text)), &[], watermark_ms, &settings)
    }

    /// The numbers of a session that are not zero, by column name.
    fn numbers(row: &PlaybackSession) -> Vec<(&'static str, i64)> {
        let known = |name, value: Option<i64>| value.map(|value| (name, value));
        let positive = |name, value: i64| (value != 0).then_some((name, value));
        let all = [
            positive("attempts", row.attempts),
            positive("plays", row.plays),
            positive("open", i64::from(row.is_open)),
            known("startup_ms", row.startup_ms),
            known("exit_wait_ms", row.exit_wait_ms),
            positive("exits_before_start", row.exits_before_start),
            positive("start_failures", row.start_failures),
            positive("playback_failures", row.playback_failures),
            positive("fatal_errors", row.fatal_errors),
            positive("errors", row.errors),
            positive("recovered_errors", row.recovered_errors),
            known("fatal_error_at", row.fatal_error_at_ms.map(|ms| ms - T0)),
            positive("playing_ms", row.playing_ms),
            positive("media_ms", row.media_ms - row.playing_ms),
            positive("startup_wait_ms", row.startup_wait_ms),
            positive("stall_ms", row.stall_ms),
            positive("stall_count", row.stall_count),
            positive("stall_seek_ms", row.stall_seek_ms),
            positive("seek_wait_ms", row.seek_wait_ms),
            positive("seek_count", row.seek_count),
            positive("paused_ms", row.paused_ms),
            positive("background_ms", row.background_ms),
            positive("shown_bits", row.shown_bits),
            positive("bitrate_known_ms", row.bitrate_known_ms),
            known("start_bitrate_bps", row.start_bitrate_bps),
            positive("switches_up", row.switches_up),
            positive("switches_down", row.switches_down),
            known("quartile", row.quartile),
            positive("finished", row.finished),
            positive("anomalies", row.anomalies),
        ];
        all.into_iter().flatten().collect()
    }

    /// A session as text: its numbers (extra media time under `media_ms`), end reason and flags.
    fn describe(row: &PlaybackSession) -> String {
        let numbers = numbers(row).into_iter();
        let mut words: Vec<String> = numbers.map(|(name, n)| format!("{name}={n}")).collect();
        words.extend(row.end_reason.map(str::to_owned));
        words.extend(row.dq_flags.iter().map(|flag| (*flag).to_owned()));
        words.join(" ")
    }

    /// The intervals as text, with the cuts at minutes undone: state, from, to in seconds.
    fn describe_pieces(pieces: &[Piece]) -> String {
        let mut spans: Vec<(String, i64, i64)> = Vec::new();
        for piece in pieces {
            let (start_ms, end_ms) = (piece.start_ms - T0, piece.end_ms - T0);
            let name = piece.state.as_str();
            match spans.last_mut() {
                Some((state, _, end)) if piece.starts == 0 && *end == start_ms && state == name => {
                    *end = end_ms;
                }
                _ => spans.push((name.to_owned(), start_ms, end_ms)),
            }
        }
        let seconds = |ms: i64| ms as f64 / 1_000.0;
        let spans = spans.into_iter();
        let words = spans.map(|(s, from, to)| format!("{s} {}-{}", seconds(from), seconds(to)));
        words.collect::<Vec<_>>().join(", ")
    }

    /// The sessions of one key at a watermark (seconds after `T0`, `-` for none), a line each.
    fn check(text: &str, watermark: &str, expected: &[&str]) {
        let facts = facts(text, watermark);
        let rows: Vec<String> = facts.iter().map(|f| describe(&f.session)).collect();
        assert_eq!(rows, expected, "\n{text}");
        for facts in &facts {
            assert_eq!(
                facts.session.is_open,
                facts.changes_after_ms.is_some(),
                "only an open session waits for the watermark"
            );
        }
    }

    fn check_pieces(text: &str, watermark: &str, expected: &str) {
        let facts = facts(text, watermark);
        let all: Vec<String> = facts.iter().map(|f| describe_pieces(&f.pieces)).collect();
        assert_eq!(all.join(" | "), expected, "\n{text}");
    }

    /// `reference-solution.md` 1.4, line by line.
    pub const BIG_BUCK_BUNNY: &str = "
        0       playback_request at=0 stream=vod
        0.640   playback_start bps=2149280 startup=0.64 stream=vod net=4g
        0.850   metadata at=0 stream=vod net=4g
        6.1     heartbeat at=5.02 bps=2149280 duration=596.48 stream=vod net=4g
        7.4     rendition_update at=5.02 stream=vod net=4g
        11.2    heartbeat at=10.11 bps=4799824 duration=596.48 stream=vod net=4g
        16.3    stall_end at=10.11 stall=1.84 stream=vod net=4g
        20      seek_end seek=0.412 stream=vod net=4g
        24.7    heartbeat at=305.07 bps=4799824 duration=596.48 stream=vod net=4g
        31      playback_pause at=305.07 duration=596.48 stream=vod
        95      playback_request at=305.07 duration=596.48 stream=vod
        386.9   playback_pause at=595.21 duration=596.48 stream=vod
        386.905 playback_finish at=596.48 duration=596.48 bps=4799824 stream=vod net=4g";
    pub const TEARS_OF_STEEL: &str = "
        12      playback_request at=0 stream=vod
        14.95   playback_start bps=612480 startup=2.95 stream=vod net=3g
        15.41   metadata at=0 stream=vod net=3g
        20.9    heartbeat at=5.3 bps=612480 duration=734.17 stream=vod net=3g
        22.3    rendition_update at=5.3 stream=vod net=3g
        30.1    stall_end at=5.3 stall=5.12 stream=vod net=3g";
    pub const NEWS_LIVE: &str = "
        40      playback_request at=0 stream=live
        40.9    playback_start startup=0.9 stream=live
        52.4    heartbeat at=40210.5 stream=live
        100.123 stall_end at=40210.5 stall=1588752100.123 stream=live";
    pub const OCEANS: &str = "
        60      playback_request at=0 stream=live
        61.25   playback_error at=0 stream=live code=Error";

    #[test]
    fn the_reference_viewer_who_watched_to_the_end() {
        check(
            BIG_BUCK_BUNNY,
            "1000",
            &[
                "attempts=1 plays=1 startup_ms=640 playing_ms=320008 startup_wait_ms=640 \
               stall_ms=1840 stall_count=1 seek_wait_ms=412 seek_count=1 paused_ms=64005 \
               shown_bits=1507992334 bitrate_known_ms=320008 start_bitrate_bps=2149280 \
               switches_up=1 quartile=100 finished=1 finished",
            ],
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
            &[
                "attempts=1 plays=1 startup_ms=2950 playing_ms=10030 startup_wait_ms=2950 \
               stall_ms=5120 stall_count=1 shown_bits=6143174 bitrate_known_ms=10030 \
               start_bitrate_bps=612480 quartile=0 timeout",
            ],
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
            &[&format!(
                "{} anomalies=1",
                row.replace("startup_ms", "open=1 startup_ms")
            )],
        );
        check(
            NEWS_LIVE,
            "142.401",
            &[&format!("{row} anomalies=1 timeout")],
        );
        check_pieces(NEWS_LIVE, "-", "starting 40-40.9, playing 40.9-52.4");
    }

    #[test]
    fn the_reference_error_is_judged_ten_seconds_later() {
        let failed = "attempts=1 start_failures=1 fatal_errors=1 errors=1 fatal_error_at=61250 \
                      startup_wait_ms=1250 error";
        check(
            OCEANS,
            "71.25",
            &["attempts=1 open=1 errors=1 startup_wait_ms=1250"],
        );
        check(OCEANS, "71.251", &[failed]);
        let session = &facts(OCEANS, "72")[0].session;
        assert_eq!(session.outcome, Outcome::StartFailure);
        assert_eq!(session.error_code.as_deref(), Some("Error"));
    }

    #[test]
    fn m1_a_clip_with_a_stall_and_a_pause() {
        check(
            "0 playback_request
             2 playback_start
             20 stall_start
             30 stall_end
             40 playback_pause at=28 duration=60
             70 playback_start
             102 playback_finish at=60 duration=60",
            "102",
            &[
                "attempts=1 plays=1 startup_ms=2000 playing_ms=60000 startup_wait_ms=2000 \
               stall_ms=10000 stall_count=1 paused_ms=30000 quartile=100 finished=1 finished",
            ],
        );
    }

    #[test]
    fn m2_a_stall_over_a_minute_boundary_counts_where_it_began() {
        let facts = facts(
            "0 playback_request
             2 playback_start
             55 stall_start
             65 playback_start
             120 heartbeat at=108",
            "120",
        );
        let rows: Vec<_> = facts[0]
            .pieces
            .iter()
            .map(|p| (p.state.as_str(), p.start_ms - T0, p.end_ms - T0, p.starts))
            .collect();
        assert_eq!(
            rows,
            [
                ("starting", 0, 2_000, 1),
                ("playing", 2_000, 55_000, 1),
                ("rebuffering", 55_000, 60_000, 1),
                ("rebuffering", 60_000, 65_000, 0),
                ("playing", 65_000, 120_000, 1),
            ]
        );
    }

    #[test]
    fn m3_buffering_inside_a_seek_is_seek_wait() {
        let seek = "0 playback_request
             1 playback_start
             30 seek_start
             31.2 seek_end
             31.2 stall_start seq=9
             33 playback_start";
        let row = "attempts=1 plays=1 open=1 startup_ms=1000 playing_ms=56000 \
                   startup_wait_ms=1000 seek_wait_ms=3000 seek_count=1";
        check(&format!("{seek}\n60 heartbeat"), "60", &[row]);
        let left_by_stall_end = seek.replace("33 playback_start", "33 stall_end");
        check(&format!("{left_by_stall_end}\n60 heartbeat"), "60", &[row]);
        let never_said_sought = seek.replace("31.2 seek_end", "31.1 metadata");
        check(&format!("{never_said_sought}\n60 heartbeat"), "60", &[row]);

        let after = "attempts=1 plays=1 open=1 startup_ms=1000 playing_ms=55500 \
                     startup_wait_ms=1000 stall_seek_ms=500 seek_wait_ms=3000 seek_count=1";
        check(
            &format!("{seek}\n33.5 stall_start\n34 stall_end\n60 heartbeat"),
            "60",
            &[after],
        );
        check(
            &format!("{seek}\n34 stall_end stall=0.5\n60 heartbeat"),
            "60",
            &[after],
        );
    }

    #[test]
    fn m4_exits_before_start_keep_their_wait() {
        for (at, wait) in [("3.2", "3200"), ("0.6", "600")] {
            check(
                &format!("0 playback_request\n{at} session_end reason=user_quit"),
                "-",
                &[&format!(
                    "attempts=1 exit_wait_ms={wait} exits_before_start=1 startup_wait_ms={wait} user_quit"
                )],
            );
        }
    }

    #[test]
    fn m5_a_fatal_error_and_the_frame_that_heals_it() {
        let fatal = "0 playback_request\n4 playback_error fatal=true code=E7";
        check(
            fatal,
            "15",
            &["attempts=1 start_failures=1 fatal_errors=1 errors=1 \
                              fatal_error_at=4000 startup_wait_ms=4000 error"],
        );
        check(
            &format!("{fatal}\n6 playback_start"),
            "15",
            &[
                "attempts=1 plays=1 open=1 startup_ms=6000 errors=1 recovered_errors=1 startup_wait_ms=6000",
            ],
        );
    }

    #[test]
    fn m6_silence_closes_after_three_heartbeats() {
        let text = "0 playback_request\n1 playback_start\n30 heartbeat\n60 heartbeat";
        let row =
            "attempts=1 plays=1 startup_ms=1000 playing_ms=59000 startup_wait_ms=1000 timeout";
        let open = row
            .replace("plays=1", "plays=1 open=1")
            .replace(" timeout", "");
        check(text, "150", &[&open]);
        check(text, "150.001", &[row]);
    }

    #[test]
    fn m7_a_stall_that_ends_in_silence_lasts_one_heartbeat_more() {
        let text = "0 playback_start\n60 stall_start";
        check(
            text,
            "150",
            &["attempts=1 plays=1 open=1 playing_ms=60000 inferred_request"],
        );
        check(
            text,
            "151",
            &[
                "attempts=1 plays=1 playing_ms=60000 stall_ms=30000 stall_count=1 \
                              timeout inferred_request stall_open_end",
            ],
        );
    }

    #[test]
    fn m9_bitrate_is_weighted_by_media_time() {
        let facts = facts(
            "0 playback_request
             0.1 playback_start bps=1000000
             10.1 rendition_update bps=3000000
             40.1 playback_pause
             60.1 playback_start rate=2
             80.1 playback_finish",
            "-",
        );
        let row = &facts[0].session;
        assert_eq!(
            (row.playing_ms, row.media_ms, row.bitrate_known_ms),
            (60_000, 80_000, 80_000)
        );
        assert_eq!(row.shown_bits / row.bitrate_known_ms, 2_750);
        assert_eq!((row.switches_up, row.switches_down), (1, 0));
    }

    #[test]
    fn m13_the_pause_of_a_natural_end_is_its_five_milliseconds() {
        check(
            "590.2 heartbeat at=590.2 duration=596.48\n595.2 playback_pause at=595.2\n595.205 playback_finish",
            "-",
            &[
                "attempts=1 plays=1 playing_ms=5000 paused_ms=5 quartile=100 finished=1 \
               finished inferred_frame inferred_request",
            ],
        );
    }

    #[test]
    fn m14_the_background_takes_the_time_and_the_gap() {
        check(
            "0 playback_start\n100 heartbeat background=true\n130 heartbeat\n380 heartbeat\n\
             400 heartbeat background=false\n410 session_end",
            "-",
            &[
                "attempts=1 plays=1 playing_ms=110000 background_ms=300000 user_quit inferred_request",
            ],
        );
    }

    #[test]
    fn reported_stalls_are_clipped_to_what_was_playing() {
        let stall = |before: &str| format!("0 playback_request\n2 playback_start\n{before}");
        check_pieces(
            &stall("5 stall_end stall=4"),
            "-",
            "starting 0-2, rebuffering 2-5",
        );
        check_pieces(
            &stall("8 stall_end stall=2\n9 stall_end stall=2"),
            "-",
            "starting 0-2, playing 2-6, rebuffering 6-8, rebuffering 8-9",
        );
        check_pieces(
            &stall("7 playback_pause\n9 playback_request at=5\n10 stall_end stall=5"),
            "-",
            "starting 0-2, playing 2-5, rebuffering 5-7, paused 7-9, rebuffering 9-10",
        );
        check_pieces(
            &stall("20 seek_end seek=1\n21 stall_end stall=600"),
            "-",
            "starting 0-2, playing 2-19, seeking 19-20, rebuffering 20-21",
        );
        check_pieces(
            &stall("10 stall_end stall=0.3\n10.2 seek_end seek=1\n12 heartbeat"),
            "-",
            "starting 0-2, playing 2-9.2, seeking 9.2-10.2, playing 10.2-12",
        );
        check(
            &stall(
                "7 playback_pause\n9 playback_request at=5\n10 stall_end stall=5\n11 session_end",
            ),
            "-",
            &[
                "attempts=1 plays=1 startup_ms=2000 playing_ms=4000 startup_wait_ms=2000 stall_ms=3000 \
             stall_count=1 paused_ms=2000 user_quit stall_clipped",
            ],
        );
    }

    #[test]
    fn a_seen_stall_takes_the_length_that_the_player_reports() {
        check_pieces(
            "0 playback_start\n10 stall_start\n13 stall_end stall=2\n20 heartbeat",
            "-",
            "playing 0-11, rebuffering 11-13, playing 13-20",
        );
        check_pieces(
            "0 playback_start\n10 stall_start\n13 playback_start stall=4\n20 heartbeat",
            "-",
            "playing 0-9, rebuffering 9-13, playing 13-20",
        );
        check(
            "0 playback_start\n10 stall_start\n13 stall_end stall=-1\n20 session_end",
            "-",
            &[
                "attempts=1 plays=1 playing_ms=17000 stall_ms=3000 stall_count=1 anomalies=1 user_quit inferred_request",
            ],
        );
    }

    #[test]
    fn a_start_with_a_pause_a_seek_or_out_of_sight() {
        check(
            "0 playback_request\n2 playback_pause\n5 playback_request\n6 playback_start\n7 session_end",
            "-",
            &[
                "attempts=1 plays=1 startup_ms=3000 playing_ms=1000 startup_wait_ms=3000 paused_ms=3000 user_quit",
            ],
        );
        check(
            "0 playback_request\n2 seek_end seek=1\n6 playback_start\n7 session_end",
            "-",
            &["attempts=1 plays=1 playing_ms=1000 startup_wait_ms=6000 user_quit startup_seek"],
        );
        check(
            "0 playback_request\n2 metadata background=true\n5 metadata background=false\n6 playback_start\n7 session_end",
            "-",
            &[
                "attempts=1 plays=1 playing_ms=1000 startup_wait_ms=3000 background_ms=3000 user_quit startup_background",
            ],
        );
        check(
            "0 playback_request\n6 playback_start startup=601\n7 session_end",
            "-",
            &[
                "attempts=1 plays=1 startup_ms=6000 playing_ms=1000 startup_wait_ms=6000 anomalies=1 user_quit",
            ],
        );
    }

    #[test]
    fn a_heartbeat_shows_the_frame_whose_event_was_lost() {
        check(
            "0 playback_request\n8 heartbeat at=5\n13 heartbeat at=10\n14 session_end",
            "-",
            &["attempts=1 plays=1 playing_ms=6000 user_quit inferred_frame"],
        );
        check(
            "0 playback_request\n8 heartbeat at=0\n9 session_end",
            "-",
            &["attempts=1 exit_wait_ms=9000 exits_before_start=1 startup_wait_ms=9000 user_quit"],
        );
    }

    #[test]
    fn errors_while_playing() {
        let play = "0 playback_request\n1 playback_start\n10 playback_error";
        let base = "startup_ms=1000";
        check(
            &format!("{play}\n15 heartbeat\n16 session_end"),
            "-",
            &[&format!(
                "attempts=1 plays=1 {base} errors=1 recovered_errors=1 playing_ms=15000 startup_wait_ms=1000 user_quit"
            )],
        );
        check(
            &format!("{play} fatal=true\n15 heartbeat\n16 session_end"),
            "-",
            &[&format!(
                "attempts=1 plays=1 {base} playback_failures=1 fatal_errors=1 errors=1 \
             fatal_error_at=10000 playing_ms=9000 startup_wait_ms=1000 error"
            )],
        );
        check(
            &format!("{play} fatal=true\n14 playback_start\n16 session_end"),
            "-",
            &[&format!(
                "attempts=1 plays=1 {base} errors=1 recovered_errors=1 playing_ms=11000 startup_wait_ms=1000 user_quit"
            )],
        );
        check(
            &format!("{play} fatal=false\n16 session_end"),
            "-",
            &[&format!(
                "attempts=1 plays=1 {base} errors=1 playing_ms=15000 startup_wait_ms=1000 user_quit"
            )],
        );
        check(
            &format!("{play} fatal=true\n12 heartbeat\n30 playback_start\n31 session_end"),
            "-",
            &[
                &format!(
                    "attempts=1 plays=1 {base} playback_failures=1 fatal_errors=1 errors=1 \
             fatal_error_at=10000 playing_ms=9000 startup_wait_ms=1000 error"
                ),
                "attempts=1 plays=1 playing_ms=1000 user_quit inferred_request",
            ],
        );
    }

    #[test]
    fn nothing_counts_after_the_end() {
        check(
            "0 playback_request\n1 playback_start\n9 playback_finish\n10 heartbeat at=3\n11 playback_pause",
            "-",
            &[
                "attempts=1 plays=1 startup_ms=1000 playing_ms=8000 startup_wait_ms=1000 finished=1 finished",
            ],
        );
    }

    #[test]
    fn a_key_is_split_where_a_new_attempt_begins() {
        let starts = |text: &str| -> Vec<i64> {
            facts(text, "-")
                .iter()
                .map(|f| (f.session.started_at_ms - T0) / 1_000)
                .collect()
        };
        assert_eq!(
            starts("0 playback_request at=0\n9 playback_request at=0\n12 playback_start"),
            [0]
        );
        assert_eq!(
            starts("0 playback_request at=0\n11 playback_request at=0"),
            [0, 11]
        );
        assert_eq!(
            starts("0 playback_request at=0\n1 playback_start\n2 playback_request at=0"),
            [0, 2]
        );
        assert_eq!(
            starts("0 playback_request at=0\n1 playback_error\n2 playback_request at=0"),
            [0, 2]
        );
        assert_eq!(
            starts("0 playback_request at=0\n1 playback_start\n2 playback_request at=7"),
            [0]
        );
        assert_eq!(
            starts("0 playback_start\n5 playback_finish\n6 playback_start"),
            [0, 6]
        );
        assert_eq!(
            starts("0 playback_start\n5 playback_error\n6 playback_start"),
            [0]
        );
        assert_eq!(
            starts("0 playback_start\n5 playback_error\n16 playback_start"),
            [0, 16]
        );
        assert_eq!(
            starts("0 playback_start\n1800 heartbeat\n3600.001 heartbeat"),
            [0, 3600]
        );
        assert_eq!(
            starts("0 playback_start sid=a\n5 playback_finish sid=a\n6 playback_start sid=a"),
            [0]
        );
        assert_eq!(
            starts("0 playback_start sid=a\n1 playback_start sid=b\n2 heartbeat sid=a"),
            [0, 1]
        );
        check(
            "0 playback_request at=0\n1 playback_start\n20 playback_request at=0",
            "-",
            &[
                "attempts=1 plays=1 startup_ms=1000 startup_wait_ms=1000 replaced",
                "attempts=1 open=1",
            ],
        );
    }

    #[test]
    fn a_session_is_cut_after_a_day() {
        let text: String = (0..=60)
            .map(|n| format!("{} heartbeat\n", n * 1_500))
            .collect();
        let facts = facts(&text, "-");
        let starts: Vec<i64> = facts
            .iter()
            .map(|f| (f.session.started_at_ms - T0) / 1_000)
            .collect();
        assert_eq!(starts, [0, 87_000]);
        assert_eq!(facts[0].session.end_reason, Some("timeout"));
    }

    #[test]
    fn session_ids_are_native_or_made_of_key_and_start() {
        assert_eq!(
            facts("0 playback_request sid=abc", "-")[0]
                .session
                .session_id,
            "abc"
        );
        let derived = &facts("0 playback_request", "-")[0].session.session_id;
        assert_eq!(derived.len(), 34);
        assert_eq!(*derived, derived_session_id("key", T0));
        assert_ne!(*derived, derived_session_id("key", T0 + 1));
        assert_ne!(*derived, derived_session_id("yek", T0));
    }

    #[test]
    fn a_quartile_is_reached_by_playing_there() {
        let quartile = |text: &str| {
            facts(
                &format!("0 playback_start duration=100 stream=vod\n{text}"),
                "-",
            )[0]
            .session
            .quartile
        };
        assert_eq!(quartile("30 heartbeat at=30"), Some(25));
        assert_eq!(
            quartile("10 seek_end seek=0.1\n10.9 heartbeat at=80"),
            Some(0)
        );
        assert_eq!(
            quartile("10 seek_end seek=0.1\n11 heartbeat at=80"),
            Some(75)
        );
        assert_eq!(quartile("30 heartbeat at=98"), Some(100));
        assert_eq!(quartile("30 heartbeat at=97.9"), Some(75));
        assert_eq!(quartile("30 playback_finish"), Some(100));
        assert_eq!(quartile("30 heartbeat at=30 stream=live"), None);
    }

    #[test]
    fn segments_are_the_first_known_and_the_last_stream_type() {
        let row = &facts("0 playback_request stream=live app=tv\n1 playback_start stream=vod net=4g\n2 heartbeat net=3g app=web", "-")[0].session;
        assert_eq!(row.segments.stream_type.as_deref(), Some("vod"));
        assert_eq!(row.segments.app_name.as_deref(), Some("tv"));
        assert_eq!(row.segments.connection_type.as_deref(), Some("4g"));
    }

    #[test]
    fn an_event_that_implies_no_play_is_no_attempt() {
        check("0 session_start\n1 metadata", "1000", &["timeout"]);
    }
}
