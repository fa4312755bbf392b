//! Events of the Eyevinn Player Analytics Specification, version 0.2 (events and metrics, 1.2): an
//! envelope of `event, sessionId, timestamp, playhead, duration`, and a `payload` that some events need.
//!
//! Stands first in the walk of a player event: the record comes from a source, the event goes to
//! `enrich`. The rules of the specification's JSON schema are kept by hand: what it requires must be
//! there, and what it does not know is kept in `ext` (its text allows fields of one's own).
//!
//! Invariant: every occurrence of a user or device id, in the envelope and in `payload`, has an
//! identity span, and the last one is the one that counts.

mod position;

use std::borrow::Cow;
use std::ops::Range;

use super::DecodeContext;
use super::reading::{
    CONTENT_ID_CHARS_MAX, PIXELS, Reading, SESSION_ID_CHARS_MAX, TEXT_CHARS_MAX, THOUSANDTHS, event_time, receive_time, span,
};
use super::text::{Object, Scalar, Vocabulary, bounded, ext, flag, reject};
use crate::event::{EventKind, Identity, PlayerEvent, Reject, RejectReason};
use position::{Position, UNKNOWN, thousandths};

/// The dialect's name in `source`.
const SOURCE: &str = "epas";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Event,
    SessionId,
    Timestamp,
    Playhead,
    Duration,
    Payload,
    UserId,
    DeviceId,
}

impl Vocabulary for Key {
    fn find(lower_case: &str) -> Option<Key> {
        Some(match lower_case {
            "event" => Key::Event,
            "sessionid" => Key::SessionId,
            "timestamp" => Key::Timestamp,
            "playhead" => Key::Playhead,
            "duration" => Key::Duration,
            "payload" => Key::Payload,
            "userid" => Key::UserId,
            "deviceid" => Key::DeviceId,
            _ => return None,
        })
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// The keys inside `payload`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Live,
    ContentId,
    ContentTitle,
    UserId,
    DeviceId,
    DeviceModel,
    DeviceType,
    Bitrate,
    VideoBitrate,
    AudioBitrate,
    Width,
    Height,
    Reason,
    Category,
    Code,
    Message,
}

impl Vocabulary for Detail {
    fn find(lower_case: &str) -> Option<Detail> {
        Some(match lower_case {
            "live" => Detail::Live,
            "contentid" => Detail::ContentId,
            "contenttitle" => Detail::ContentTitle,
            "userid" => Detail::UserId,
            "deviceid" => Detail::DeviceId,
            "devicemodel" => Detail::DeviceModel,
            "devicetype" => Detail::DeviceType,
            "bitrate" => Detail::Bitrate,
            "videobitrate" => Detail::VideoBitrate,
            "audiobitrate" => Detail::AudioBitrate,
            "width" => Detail::Width,
            "height" => Detail::Height,
            "reason" => Detail::Reason,
            "category" => Detail::Category,
            "code" => Detail::Code,
            "message" => Detail::Message,
            _ => return None,
        })
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// True if the object has the envelope's two names. `is_whole`: it must also be sound.
pub(super) fn recognises(json: &str, is_whole: bool) -> bool {
    let (object, outcome) = Object::<Key>::parse_prefix(json);
    let is_readable = outcome.is_ok() || !is_whole;
    is_readable && object.has(Key::Event) && object.has(Key::SessionId)
}

/// One record. Sets neither `event_id` nor `session_key` nor `client_prefix`.
///
/// Rejects what the schema requires and the record has not: `MissingEventType`, `MissingEventTime`,
/// `MissingFields`, and `BadValue` where a part of the envelope is of another kind. In the payload such a
/// value is flagged and the record kept.
pub(super) fn decode(line: &str, context: &DecodeContext) -> Result<PlayerEvent, Reject> {
    let mut envelope = Reading::new(Object::parse(line)?);
    let name = event_name(&mut envelope)?;
    let (event_ts_ms, event_ts_raw) = time_of(&mut envelope, context)?;
    let native_session_id = session_id(&mut envelope)?;
    let position = Position::read(&mut envelope)?;
    let mut detail = payload_of(&mut envelope, &name)?;
    check_required(&name, &detail)?;

    let mut event = PlayerEvent {
        source: SOURCE,
        event_ts_ms,
        event_ts_raw: Some(event_ts_raw),
        native_session_id,
        payload: line.to_owned(),
        ..PlayerEvent::default()
    };
    position.place(&mut event);
    identify(line, &mut envelope, &mut detail, &mut event);
    content(&mut detail, &mut event);
    let kind = what_happened(&name, &mut detail, &mut event);
    event.kind = Some(kind);

    let own_name = (kind == EventKind::Custom).then_some(("event", name));
    event.ext = left_over(&mut envelope, &mut detail, own_name);
    event.dq_flags = envelope.flags;
    for name in detail.flags {
        flag(&mut event.dq_flags, name);
    }
    Ok(event)
}

fn event_name<'a>(envelope: &mut Reading<'a, Key>) -> Result<Cow<'a, str>, Reject> {
    match envelope.object.take(Key::Event) {
        Some(Scalar::Text(name)) => Ok(name),
        _ => Err(reject(RejectReason::MissingEventType, "event is missing, empty or not a text")),
    }
}

/// The raw JSON of the member that counts, whatever it says.
fn raw<'a>(envelope: &Reading<'a, Key>, key: Key) -> Option<&'a str> {
    envelope.object.raw_of_all(key).last()
}

/// The event time in milliseconds, and as sent. -1 and 0 are a player without a clock.
fn time_of(envelope: &mut Reading<'_, Key>, context: &DecodeContext) -> Result<(i64, i64), Reject> {
    let no_time = |what: &str| {
        let detail = format!("timestamp is {what}; send epoch milliseconds, or -1 to have the time of receipt");
        reject(RejectReason::MissingEventTime, detail)
    };
    let sent = raw(envelope, Key::Timestamp).ok_or_else(|| no_time("missing"))?;
    let thousandths = thousandths(sent).ok_or_else(|| no_time("not a number"))?;
    envelope.object.take(Key::Timestamp);
    if thousandths == 0 || thousandths == UNKNOWN {
        return Ok(receive_time(context, &mut envelope.flags));
    }
    event_time(thousandths, context, &mut envelope.flags)
}

fn session_id(envelope: &mut Reading<'_, Key>) -> Result<Option<String>, Reject> {
    let sent = raw(envelope, Key::SessionId).ok_or_else(|| {
        let detail = "sessionId is missing; send the id that all events of the session share";
        reject(RejectReason::MissingFields, detail)
    })?;
    if !sent.starts_with('"') {
        return Err(reject(RejectReason::BadValue, "sessionId is not a text; send it in quotes"));
    }
    Ok(envelope.text(Key::SessionId, SESSION_ID_CHARS_MAX))
}

/// The members of `payload`; none where there is no payload and the event needs none.
fn payload_of<'a>(envelope: &mut Reading<'a, Key>, name: &str) -> Result<Reading<'a, Detail>, Reject> {
    let sent = raw(envelope, Key::Payload).filter(|sent| *sent != "null");
    envelope.object.take(Key::Payload);
    if sent.is_none() && name == "metadata" {
        let detail = "payload is missing, and a metadata event says nothing without it";
        return Err(reject(RejectReason::MissingFields, detail));
    }
    let object = sent.unwrap_or("{}");
    if !object.starts_with('{') {
        return Err(reject(RejectReason::BadValue, "payload is not an object"));
    }
    Ok(Reading::new(Object::parse(object)?))
}

/// What the schema requires in the payload of some events. An empty text is there.
fn check_required(name: &str, detail: &Reading<'_, Detail>) -> Result<(), Reject> {
    let (key, key_name) = match name {
        "bitrate_changed" => (Detail::Bitrate, "bitrate"),
        "stopped" => (Detail::Reason, "reason"),
        "error" | "warning" => (Detail::Code, "code"),
        _ => return Ok(()),
    };
    if detail.object.has(key) {
        return Ok(());
    }
    let text = format!("payload.{key_name} is missing, which this event needs");
    Err(reject(RejectReason::MissingFields, text))
}

/// Ids and their places. The last occurrence in the line counts, as it does for `privacy`.
fn identify(line: &str, envelope: &mut Reading<'_, Key>, detail: &mut Reading<'_, Detail>, event: &mut PlayerEvent) {
    envelope.object.take(Key::UserId);
    envelope.object.take(Key::DeviceId);
    detail.object.take(Detail::UserId);
    detail.object.take(Detail::DeviceId);

    let mut found: Vec<(Range<usize>, &str, Identity)> = Vec::new();
    let mut add = |raw, identity| found.extend(span(line, raw).map(|range| (range, raw, identity)));
    envelope.object.raw_of_all(Key::UserId).for_each(|raw| add(raw, Identity::User));
    envelope.object.raw_of_all(Key::DeviceId).for_each(|raw| add(raw, Identity::Device));
    // Also the payloads that a later one replaced: they are in the line.
    for payload in envelope.object.raw_of_all(Key::Payload) {
        let (object, _) = Object::<Detail>::parse_prefix(payload);
        object.raw_of_all(Detail::UserId).for_each(|raw| add(raw, Identity::User));
        object.raw_of_all(Detail::DeviceId).for_each(|raw| add(raw, Identity::Device));
    }
    found.sort_by_key(|(range, ..)| range.start);

    for (range, raw, identity) in found {
        let id = Scalar::read(raw).map(|id| bounded(&id.into_text(), TEXT_CHARS_MAX, &mut envelope.flags));
        match identity {
            Identity::User => event.user_id = id,
            Identity::Device => event.device_id = id,
            Identity::Position | Identity::Url => {}
        }
        event.identity_spans.push((range, identity));
    }
}

fn content(detail: &mut Reading<'_, Detail>, event: &mut PlayerEvent) {
    event.content_id = detail.text(Detail::ContentId, CONTENT_ID_CHARS_MAX);
    event.content_title = detail.text(Detail::ContentTitle, TEXT_CHARS_MAX);
    if event.content_id.is_none() {
        // Many installations send the title alone; it is then what tells contents apart.
        event.content_id = detail.text(Detail::ContentTitle, CONTENT_ID_CHARS_MAX);
    }
    if let Some(is_live) = detail.boolean(Detail::Live) {
        event.stream_type = Some(if is_live { "live" } else { "vod" });
    }
    if event.stream_type == Some("live") {
        event.duration_ms = None;
    }
    event.device.device_model = detail.text(Detail::DeviceModel, TEXT_CHARS_MAX);
    event.device.device_type = detail.text(Detail::DeviceType, TEXT_CHARS_MAX);
}

/// The kind of event, and the fields that only this event gives a meaning to.
fn what_happened(name: &str, detail: &mut Reading<'_, Detail>, event: &mut PlayerEvent) -> EventKind {
    match name {
        "init" => EventKind::SessionStart,
        "metadata" | "loaded" => EventKind::Metadata,
        "heartbeat" => EventKind::Heartbeat,
        "loading" => EventKind::PlaybackRequest,
        "playing" => EventKind::PlaybackStart,
        "paused" => EventKind::PlaybackPause,
        "buffering" => EventKind::StallStart,
        "buffered" => EventKind::StallEnd,
        "seeking" => {
            event.seek_from_ms = event.playhead_ms;
            EventKind::SeekStart
        }
        "seeked" => {
            event.seek_to_ms = event.playhead_ms;
            EventKind::SeekEnd
        }
        "bitrate_changed" => {
            rendition(detail, event);
            EventKind::RenditionUpdate
        }
        "stopped" => stopped(detail, event),
        "error" | "warning" => {
            event.error_fatal = Some(name == "error");
            error(detail, event);
            EventKind::PlaybackError
        }
        _ => EventKind::Custom,
    }
}

/// The rendition shown from now on; its bitrates are in kbit/s.
fn rendition(detail: &mut Reading<'_, Detail>, event: &mut PlayerEvent) {
    event.bitrate_bps = detail.bitrate_bps(Detail::Bitrate, THOUSANDTHS);
    event.bitrate_video_bps = detail.bitrate_bps(Detail::VideoBitrate, THOUSANDTHS);
    event.bitrate_audio_bps = detail.bitrate_bps(Detail::AudioBitrate, THOUSANDTHS);
    event.width = side(detail, Detail::Width);
    event.height = side(detail, Detail::Height);
}

/// Pixels. 0 is a rendition without a picture, which is no broken value.
fn side(detail: &mut Reading<'_, Detail>, key: Detail) -> Option<i64> {
    let pixels = detail.number(key, 0, 0..=*PIXELS.end(), "bad_value");
    pixels.filter(|pixels| *pixels > 0)
}

fn stopped(detail: &mut Reading<'_, Detail>, event: &mut PlayerEvent) -> EventKind {
    let reason = detail.object.peek(Detail::Reason).map(Scalar::into_text).unwrap_or_default();
    let is = |name: &str| reason.eq_ignore_ascii_case(name);
    let (kind, end_reason) = if is("ended") {
        (EventKind::PlaybackFinish, "finished")
    } else if is("aborted") {
        (EventKind::SessionEnd, "user_quit")
    } else if is("error") {
        (EventKind::SessionEnd, "error")
    } else {
        (EventKind::SessionEnd, "unknown")
    };
    // A reason that the specification does not name stays readable in `ext`.
    if end_reason != "unknown" || is("unknown") {
        detail.object.take(Detail::Reason);
    }
    event.end_reason = Some(end_reason);
    kind
}

fn error(detail: &mut Reading<'_, Detail>, event: &mut PlayerEvent) {
    event.error_codes.extend(detail.text(Detail::Code, TEXT_CHARS_MAX));
    event.error_category = detail.text(Detail::Category, TEXT_CHARS_MAX);
    event.error_message = detail.text(Detail::Message, TEXT_CHARS_MAX);
}

/// The unknown keys of both objects; where both have one, the payload's.
fn left_over<'a>(
    envelope: &mut Reading<'a, Key>,
    detail: &mut Reading<'a, Detail>,
    own_name: Option<(&'a str, Cow<'a, str>)>,
) -> Vec<(String, String)> {
    let outer = envelope.object.left_over(None, &mut envelope.flags);
    let inner = detail.object.left_over(None, &mut detail.flags);
    if inner.is_empty() && own_name.is_none() {
        return outer;
    }
    let unknown = outer.iter().chain(&inner);
    let unknown = unknown.map(|(key, value)| (key.as_str(), Cow::Borrowed(value.as_str()))).collect();
    ext(unknown, own_name, &mut envelope.flags)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::event::Device;

    const NOW_MS: i64 = 1_700_000_000_000;
    const CONTEXT: DecodeContext = DecodeContext { now_ms: NOW_MS };
    const TIME_MS: i64 = 1_634_911_668_339;

    fn record(event: &str, playhead: &str, duration: &str, payload: &str) -> String {
        let payload = if payload.is_empty() {
            String::new()
        } else {
            format!(r#","payload":{payload}"#)
        };
        format!(r#"{{"event":"{event}","sessionId":"s-1","timestamp":{TIME_MS},"playhead":{playhead},"duration":{duration}{payload}}}"#)
    }

    /// The event of a record whose position is unknown.
    fn with(event: &str, payload: &str) -> PlayerEvent {
        let mut event = decode(&record(event, "-1", "-1", payload), &CONTEXT).unwrap();
        event.payload = String::new();
        event
    }

    fn bare(kind: EventKind) -> PlayerEvent {
        PlayerEvent {
            source: "epas",
            kind: Some(kind),
            event_ts_ms: TIME_MS,
            event_ts_raw: Some(TIME_MS),
            native_session_id: Some("s-1".to_owned()),
            ..PlayerEvent::default()
        }
    }

    // The fixtures stand outside the repository, and no settings file is read in a unit test.
    #[allow(clippy::disallowed_methods)]
    fn fixtures() -> PathBuf {
        match std::env::var_os("PLAYHEAD_FIXTURES") {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")),
        }
    }

    #[test]
    fn the_specifications_own_events_are_accepted_and_refused_as_it_says() {
        let path = fixtures().join("player-events/eyevinn/events.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("skipped: no {}; set PLAYHEAD_FIXTURES", path.display());
            return;
        };
        let events: Value = serde_json::from_str(&text).unwrap();
        let list = |name: &str| events[name].as_array().unwrap().clone();
        let kinds: Vec<&str> = list("valid")
            .iter()
            .map(|record| decode(&record.to_string(), &CONTEXT).unwrap().kind.unwrap().as_str())
            .collect();
        let expected = [
            "session_start",
            "metadata",
            "heartbeat",
            "playback_request",
            "metadata",
            "playback_start",
            "playback_pause",
            "stall_start",
            "stall_end",
            "seek_start",
            "seek_end",
            "rendition_update",
            "playback_finish",
            "playback_error",
            "playback_error",
        ];
        assert_eq!(kinds, expected);
        let reasons: Vec<&str> = list("invalid")
            .iter()
            .map(|record| decode(&record.to_string(), &CONTEXT).unwrap_err().reason.as_str())
            .collect();
        let (time, field) = ("missing_event_time", "missing_fields");
        let expected = [
            time, field, field, field, time, field, time, field, time, field, time, time, field, time, time, time,
        ];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn each_event_has_its_kind() {
        let check = |name: &str, payload: &str, expected: PlayerEvent| assert_eq!(with(name, payload), expected, "{name} {payload}");
        for (name, kind) in [
            ("init", EventKind::SessionStart),
            ("loading", EventKind::PlaybackRequest),
            ("loaded", EventKind::Metadata),
            ("heartbeat", EventKind::Heartbeat),
            ("playing", EventKind::PlaybackStart),
            ("paused", EventKind::PlaybackPause),
            ("buffering", EventKind::StallStart),
            ("buffered", EventKind::StallEnd),
            ("seeking", EventKind::SeekStart),
            ("seeked", EventKind::SeekEnd),
        ] {
            check(name, "", bare(kind));
            check(name, "{}", bare(kind));
            check(name, "null", bare(kind));
        }
        check("metadata", "{}", bare(EventKind::Metadata));
        let own = PlayerEvent {
            ext: vec![("event".to_owned(), "chapter".to_owned()), ("n".to_owned(), "2".to_owned())],
            ..bare(EventKind::Custom)
        };
        check("chapter", r#"{"n":2}"#, own);
    }

    #[test]
    fn a_change_of_bitrate_is_in_kilobits_and_pixels() {
        let event = with(
            "bitrate_changed",
            r#"{"bitrate":2500.5,"videoBitrate":2372.5,"audioBitrate":128,"width":1280,"height":720}"#,
        );
        let expected = PlayerEvent {
            bitrate_bps: Some(2_500_500),
            bitrate_video_bps: Some(2_372_500),
            bitrate_audio_bps: Some(128_000),
            width: Some(1280),
            height: Some(720),
            ..bare(EventKind::RenditionUpdate)
        };
        assert_eq!(event, expected);
        let unknown = with("bitrate_changed", r#"{"bitrate":0,"width":0,"height":0}"#);
        assert_eq!(unknown, bare(EventKind::RenditionUpdate));
        assert_eq!(with("bitrate_changed", r#"{"bitrate":-1}"#).dq_flags, ["bad_value"]);
    }

    #[test]
    fn a_stop_says_why() {
        let check = |reason: &str, kind: EventKind, end_reason: &'static str, ext: &[&str]| {
            let event = with("stopped", &format!(r#"{{"reason":{reason}}}"#));
            let expected = PlayerEvent {
                end_reason: Some(end_reason),
                ext: ext.iter().map(|text| ("reason".to_owned(), (*text).to_owned())).collect(),
                ..bare(kind)
            };
            assert_eq!(event, expected, "{reason}");
        };
        check(r#""ended""#, EventKind::PlaybackFinish, "finished", &[]);
        check(r#""ABORTED""#, EventKind::SessionEnd, "user_quit", &[]);
        check(r#""error""#, EventKind::SessionEnd, "error", &[]);
        check(r#""unknown""#, EventKind::SessionEnd, "unknown", &[]);
        check(r#""other""#, EventKind::SessionEnd, "unknown", &["other"]);
        check(r#""""#, EventKind::SessionEnd, "unknown", &[]);
        check("7", EventKind::SessionEnd, "unknown", &["7"]);
    }

    #[test]
    fn an_error_is_fatal_and_a_warning_is_not() {
        let payload = r#"{"category":"NETWORK","code":"404","message":"Network Error","data":{"url":"x"}}"#;
        for (name, is_fatal) in [("error", true), ("warning", false)] {
            let expected = PlayerEvent {
                error_codes: vec!["404".to_owned()],
                error_category: Some("NETWORK".to_owned()),
                error_message: Some("Network Error".to_owned()),
                error_fatal: Some(is_fatal),
                ext: vec![("data".to_owned(), r#"{"url":"x"}"#.to_owned())],
                ..bare(EventKind::PlaybackError)
            };
            assert_eq!(with(name, payload), expected);
        }
        assert_eq!(with("error", r#"{"code":404}"#).error_codes, ["404"]);
        assert!(with("error", r#"{"code":""}"#).error_codes.is_empty());
    }

    #[test]
    fn metadata_tells_the_content_and_the_device() {
        let event = with(
            "metadata",
            r#"{"live":false,"contentTitle":"My Content","contentId":"c","contentUrl":"u","drmType":"d","deviceModel":"m","deviceType":"tv"}"#,
        );
        let expected = PlayerEvent {
            stream_type: Some("vod"),
            content_id: Some("c".to_owned()),
            content_title: Some("My Content".to_owned()),
            device: Device {
                device_type: Some("tv".to_owned()),
                device_model: Some("m".to_owned()),
                ..Device::default()
            },
            ext: vec![("contentUrl".to_owned(), "u".to_owned()), ("drmType".to_owned(), "d".to_owned())],
            ..bare(EventKind::Metadata)
        };
        assert_eq!(event, expected);
        let titled = with("metadata", r#"{"contentTitle":"T","contentId":""}"#);
        assert_eq!(
            (titled.content_id.as_deref(), titled.content_title.as_deref()),
            (Some("T"), Some("T"))
        );
    }

    #[test]
    fn live_has_no_length() {
        let check = |playhead: &str, duration: &str, payload: &str, expected: (Option<&str>, Option<i64>, Option<i64>)| {
            let event = decode(&record("heartbeat", playhead, duration, payload), &CONTEXT).unwrap();
            assert_eq!(
                (event.stream_type, event.playhead_ms, event.duration_ms),
                expected,
                "{duration} {payload}"
            );
        };
        check("1634911660000", "1634911668000", "", (Some("live"), None, None));
        check("-1", "-1", r#"{"live":true}"#, (Some("live"), None, None));
        check("-1", "7200", r#"{"live":true}"#, (Some("live"), None, None));
        check("-1", "7200", r#"{"live":false}"#, (Some("vod"), None, Some(7_200_000)));
        check("-1", "-1", "", (None, None, None));
        let line = record("heartbeat", "1634911660000", "-1", "");
        let kept = decode(&line, &CONTEXT).unwrap().ext;
        assert_eq!(kept, [("playhead".to_owned(), "1634911660000".to_owned())]);
    }

    #[test]
    fn a_seek_keeps_where_it_came_from_and_went_to() {
        let seeking = decode(&record("seeking", "10.5", "600", ""), &CONTEXT).unwrap();
        assert_eq!((seeking.seek_from_ms, seeking.seek_to_ms), (Some(10_500), None));
        let seeked = decode(&record("seeked", "99.5", "600", ""), &CONTEXT).unwrap();
        assert_eq!((seeked.seek_from_ms, seeked.seek_to_ms), (None, Some(99_500)));
    }

    #[test]
    fn a_player_without_a_clock_has_the_time_of_receipt() {
        let check = |timestamp: &str, expected: Result<(i64, i64), RejectReason>, flags: &[&str]| {
            let line = format!(r#"{{"event":"playing","sessionId":"s","timestamp":{timestamp},"playhead":-1,"duration":-1}}"#);
            let event = decode(&line, &CONTEXT);
            let time = event.as_ref().map(|event| (event.event_ts_ms, event.event_ts_raw.unwrap()));
            assert_eq!(time.map_err(|reject| reject.reason), expected, "{timestamp}");
            assert_eq!(event.map(|event| event.dq_flags).unwrap_or_default(), flags, "{timestamp}");
        };
        check("-1", Ok((NOW_MS, NOW_MS)), &["receive_time"]);
        check("0", Ok((NOW_MS, NOW_MS)), &["receive_time"]);
        check("1634911668339", Ok((TIME_MS, TIME_MS)), &[]);
        check("1634911668339.7", Ok((TIME_MS, TIME_MS)), &[]);
        check("1634911668", Ok((1_634_911_668_000, 1_634_911_668)), &["seconds_timestamp"]);
        check("-2", Err(RejectReason::EventTimeOutOfRange), &[]);
        check("1900000000000", Err(RejectReason::EventTimeOutOfRange), &[]);
        check(r#""1634911668339""#, Err(RejectReason::MissingEventTime), &[]);
        check("null", Err(RejectReason::MissingEventTime), &[]);
    }

    #[test]
    fn what_the_schema_requires_must_be_there() {
        let check = |line: &str, expected: RejectReason, detail: &str| {
            let reject = decode(line, &CONTEXT).unwrap_err();
            assert_eq!(reject.reason, expected, "{line}");
            assert!(reject.detail.contains(detail), "{}", reject.detail);
        };
        let (missing, bad) = (RejectReason::MissingFields, RejectReason::BadValue);
        check("{}", RejectReason::MissingEventType, "event");
        check(r#"{"event":7}"#, RejectReason::MissingEventType, "event");
        check(r#"{"event":"init"}"#, RejectReason::MissingEventTime, "timestamp is missing");
        check(r#"{"event":"init","timestamp":-1}"#, missing, "sessionId");
        check(r#"{"event":"init","timestamp":-1,"sessionId":7}"#, bad, "sessionId");
        check(r#"{"event":"init","timestamp":-1,"sessionId":"s"}"#, missing, "playhead");
        check(r#"{"event":"init","timestamp":-1,"sessionId":"s","playhead":"1"}"#, bad, "playhead");
        check(
            r#"{"event":"init","timestamp":-1,"sessionId":"s","playhead":1}"#,
            missing,
            "duration",
        );
        check(&record("init", "1", "true", ""), bad, "duration");
        check(&record("init", "1", "1e999", ""), bad, "duration");
        check(&record("init", "1", "1", "[]"), bad, "payload");
        check(&record("metadata", "1", "1", ""), missing, "payload is missing");
        check(&record("metadata", "1", "1", "null"), missing, "payload is missing");
        check(&record("stopped", "1", "1", "{}"), missing, "payload.reason");
        check(&record("error", "1", "1", ""), missing, "payload.code");
        check(&record("warning", "1", "1", "{}"), missing, "payload.code");
        check(&record("bitrate_changed", "1", "1", r#"{"width":1}"#), missing, "payload.bitrate");
    }

    #[test]
    fn a_session_without_a_name_is_accepted_and_in_no_session() {
        let line = r#"{"event":"init","sessionId":"","timestamp":-1,"playhead":-1,"duration":-1,"shardId":"7"}"#;
        let event = decode(line, &CONTEXT).unwrap();
        assert_eq!(event.native_session_id, None);
        assert_eq!(event.ext, [("shardId".to_owned(), "7".to_owned())]);
    }

    #[test]
    fn ids_inside_the_payload_have_spans_and_the_last_one_counts() {
        let check = |members: &str, ids: (Option<&str>, Option<&str>), expected: &[&str]| {
            let line = format!(r#" {{"event":"heartbeat","sessionId":"s","timestamp":-1,"playhead":-1,"duration":-1,{members}}}"#);
            let event = decode(&line, &CONTEXT).unwrap();
            assert_eq!((event.user_id.as_deref(), event.device_id.as_deref()), ids, "{members}");
            let found: Vec<&str> = event
                .identity_spans
                .iter()
                .map(|(range, _)| &event.payload[range.clone()])
                .collect();
            assert_eq!(found, expected, "{members}");
            assert!(event.ext.is_empty(), "{members}");
        };
        check(r#""payload":{"userId":"u","deviceId":"d"}"#, (Some("u"), Some("d")), &["u", "d"]);
        check(r#""payload" : { "userId" : 12 }"#, (Some("12"), None), &["12"]);
        check(r#""payload":{"userId":"","deviceId":null}"#, (None, None), &[]);
        check(r#""payload":{"\u0075serId":"a\"b"}"#, (Some("a\"b"), None), &[r#"a\"b"#]);
        check(
            r#""payload":{"userId":"a","userId":"b"},"userId":"c""#,
            (Some("c"), None),
            &["a", "b", "c"],
        );
        check(
            r#""userId":"c","payload":{"userId":"a","USERID":"b"}"#,
            (Some("b"), None),
            &["c", "a", "b"],
        );
        check(
            r#""payload":{"userId":"old"},"payload":{"deviceId":"new"}"#,
            (Some("old"), Some("new")),
            &["old", "new"],
        );
    }

    #[test]
    fn the_dialect_is_known_by_its_envelope() {
        let check = |json: &str, is_whole: bool, expected: bool| assert_eq!(recognises(json, is_whole), expected, "{json}");
        let line = record("init", "-1", "-1", "");
        check(&line, true, true);
        check(&line[..35], false, true);
        check(&line[..35], true, false);
        check(r#"{"event":"init"}"#, true, false);
        check(r#"{"sessionId":"s"}"#, true, false);
        check(r#"{"MetricType":"PLAY"}"#, true, false);
    }

    fn any_value() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\PC{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f32>()
                .prop_filter("JSON has no infinity", |number| number.is_finite())
                .prop_map(|number| format!("{number:e}")),
            prop::sample::select(vec![
                "null",
                "true",
                "{}",
                "[1]",
                "-1",
                r#"{"userId":"u","deviceId":3}"#,
                r#""a\u00e4\"b""#
            ])
            .prop_map(str::to_owned),
        ]
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,80}") {
            let _ = decode(&text, &CONTEXT);
            recognises(&text, false);
        }

        #[test]
        fn spans_lie_in_the_line_and_do_not_overlap(
            event in prop::sample::select(vec!["init", "metadata", "stopped", "error", "bitrate_changed", "seeked", "x"]),
            playhead in any_value(),
            duration in any_value(),
            payload in any_value(),
            user in any_value(),
        ) {
            let line = format!(
                r#"{{"event":"{event}","sessionId":"s","timestamp":-1,"playhead":{playhead},"duration":{duration},"payload":{{"userId":{user}}},"userId":{user},"payload":{payload}}}"#
            );
            if let Ok(event) = decode(&line, &CONTEXT) {
                prop_assert_eq!(&event.payload, &line);
                let mut done = 0;
                for (range, _) in event.identity_spans {
                    prop_assert!(range.start >= done && line.get(range.clone()).is_some());
                    done = range.end;
                }
            }
        }
    }
}
