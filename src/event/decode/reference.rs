//! The reference player's events: one flat JSON object a line (reference solution, 1.1 to 1.4).
//!
//! Stands first in the walk of a player event: the line comes from a source, the event goes to
//! `enrich`. Names what the player meant, and leaves judging lengths and states to `session`.
//!
//! Invariant: start-up waiting never becomes a stall here, whatever the player calls it.
//! Invariant: every occurrence of a user or device id at the top level has an identity span, also
//! one that a later duplicate key replaced.
//! Invariant: a client address goes into `client_address` or nowhere; never into `ext`.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

use chrono::{DateTime, NaiveDateTime};

use super::DecodeContext;
use super::text::{BadValue, INTEGER_MAX, Object, Scalar, Vocabulary, bounded, content, cut, event_time_in_range, flag, reject};
use crate::event::{Device, EventKind, Identity, Network, PlayerEvent, Reject, RejectReason};

/// The dialect's name in `source`.
const SOURCE: &str = "aws_demo";

/// CTA-5004-B bounds a session id at 64 characters and a content id at 128.
const SESSION_ID_CHARS_MAX: usize = 64;
const CONTENT_ID_CHARS_MAX: usize = 128;
/// Longest request id: CloudFront sends 56 characters, Fastly 36; a longer text is a sentence.
const REQUEST_ID_CHARS_MAX: usize = 128;
/// Longest other text: user agents are the longest honest ones.
const TEXT_CHARS_MAX: usize = 512;
/// Longest asset and playhead believed: ten years. A live playhead counts from the channel's start.
const MEDIA_MS_MAX: i64 = 10 * 365 * 24 * 60 * 60 * 1000;
/// A time stamp below this is in seconds: as milliseconds it would be before 1973-03-03.
const SECONDS_BELOW: i64 = 100_000_000_000;
/// Largest picture side believed, in pixels.
const PIXELS_MAX: i64 = 100_000;

const ANY_COUNT: RangeInclusive<i64> = 0..=INTEGER_MAX;
const MEDIA_MS: RangeInclusive<i64> = 0..=MEDIA_MS_MAX;

/// Scale of `Scalar::decimal` for a value that is already in the unit wanted.
const UNITS: usize = 0;
/// Scale of `Scalar::decimal` for seconds that are wanted in milliseconds.
const SECONDS_TO_MS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    MetricType,
    TimeStamp,
    IsoTimestamp,
    At,
    Duration,
    UserId,
    DeviceId,
    VideoId,
    PlaylistType,
    Package,
    Resolution,
    Fps,
    AvgBitrate,
    BitrateTo,
    Rtt,
    ConnectionType,
    TimeMillisecond,
    CdnTrackingId,
    BufferType,
    SeekFrom,
    SeekTo,
    Message,
    SessionId,
    EventId,
    Seq,
    AppName,
    AppType,
    AppVersion,
    PlayerName,
    PlayerVersion,
    DeviceType,
    DeviceModel,
    Os,
    Browser,
    UserAgent,
    Cdn,
    Host,
    ContentTitle,
    ClientAddress,
    Country,
    Region,
    City,
    Asn,
    Isp,
    ErrorCode,
    ErrorCategory,
    ErrorFatal,
    Background,
}

impl Vocabulary for Key {
    fn find(lower_case: &str) -> Option<Key> {
        Some(match lower_case {
            "metrictype" => Key::MetricType,
            "timestamp" => Key::TimeStamp,
            "isotimestamp" => Key::IsoTimestamp,
            "at" => Key::At,
            "duration" => Key::Duration,
            "user_id" => Key::UserId,
            "device_id" => Key::DeviceId,
            "video_id" => Key::VideoId,
            "playlist_type" => Key::PlaylistType,
            "package" => Key::Package,
            "resolution" => Key::Resolution,
            "fps" => Key::Fps,
            "avg_bitrate" => Key::AvgBitrate,
            "bitrate_to" => Key::BitrateTo,
            "rtt" => Key::Rtt,
            "connection_type" => Key::ConnectionType,
            "time_millisecond" => Key::TimeMillisecond,
            "cdn_tracking_id" => Key::CdnTrackingId,
            "buffer_type" => Key::BufferType,
            "seek_from" => Key::SeekFrom,
            "seek_to" => Key::SeekTo,
            "message" => Key::Message,
            "session_id" => Key::SessionId,
            "event_id" => Key::EventId,
            "seq" | "sn" => Key::Seq,
            "app_name" => Key::AppName,
            "app_type" => Key::AppType,
            "app_version" => Key::AppVersion,
            "player_name" => Key::PlayerName,
            "player_version" => Key::PlayerVersion,
            "device_type" => Key::DeviceType,
            "device_model" => Key::DeviceModel,
            "os" => Key::Os,
            "browser" => Key::Browser,
            "user_agent" => Key::UserAgent,
            "cdn" => Key::Cdn,
            "host" => Key::Host,
            "content_title" => Key::ContentTitle,
            "client_ip" | "clientip" | "ip" | "remote_addr" => Key::ClientAddress,
            "country" => Key::Country,
            "region" => Key::Region,
            "city" => Key::City,
            "asn" => Key::Asn,
            "isp" => Key::Isp,
            "error_code" => Key::ErrorCode,
            "error_category" => Key::ErrorCategory,
            "error_fatal" | "fatal" => Key::ErrorFatal,
            "background" => Key::Background,
            _ => return None,
        })
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// True if the object is a player event: it names a metric type. `is_whole`: it must also be sound.
pub(super) fn recognises(json: &str, is_whole: bool) -> bool {
    let (object, outcome) = Object::<Key>::parse_prefix(json);
    let is_readable = outcome.is_ok() || !is_whole;
    is_readable && object.has(Key::MetricType)
}

/// One line, without its line end. Sets neither `event_id` nor `session_key` nor `client_prefix`.
pub(super) fn decode(payload: &str, context: &DecodeContext) -> Result<PlayerEvent, Reject> {
    let mut reading = Reading {
        object: Object::parse(payload)?,
        flags: Vec::new(),
    };
    let type_name = reading.type_name()?;
    let (event_ts_ms, event_ts_raw) = reading.event_time(context)?;

    let mut event = PlayerEvent {
        source: SOURCE,
        event_ts_ms,
        event_ts_raw: Some(event_ts_raw),
        payload: payload.to_owned(),
        ..PlayerEvent::default()
    };
    reading.identity(&mut event);
    reading.content(&mut event);
    reading.picture(&mut event);
    reading.delivery(&mut event);
    reading.application(&mut event);
    reading.errors(&mut event);

    let kind = reading.what_happened(&type_name, &mut event);
    event.kind = Some(kind);
    let own_name = (kind == EventKind::Custom).then_some(("MetricType", type_name));
    event.ext = reading.object.left_over(own_name, &mut reading.flags);
    event.identity_spans = identity_spans(payload, &reading.object);
    event.dq_flags = reading.flags;
    Ok(event)
}

/// Where the payload holds user and device ids, ascending.
fn identity_spans(payload: &str, object: &Object<'_, Key>) -> Vec<(Range<usize>, Identity)> {
    let mut spans = Vec::new();
    for (key, identity) in [(Key::UserId, Identity::User), (Key::DeviceId, Identity::Device)] {
        for raw in object.raw_of_all(key) {
            if Scalar::read(raw).is_none() {
                continue;
            }
            let inside = content(raw);
            let start = inside.as_ptr() as usize - payload.as_ptr() as usize;
            spans.push((start..start + inside.len(), identity));
        }
    }
    spans.sort_by_key(|(span, _)| span.start);
    spans
}

/// One record on its way into a `PlayerEvent`.
struct Reading<'a> {
    object: Object<'a, Key>,
    flags: Vec<&'static str>,
}

impl<'a> Reading<'a> {
    fn type_name(&mut self) -> Result<Cow<'a, str>, Reject> {
        let name = self.object.take(Key::MetricType).map(Scalar::into_text);
        name.ok_or_else(|| reject(RejectReason::MissingEventType, "MetricType is missing or empty"))
    }

    /// The event time in milliseconds, and as sent.
    fn event_time(&mut self, context: &DecodeContext) -> Result<(i64, i64), Reject> {
        let Some(sent) = self.object.take(Key::TimeStamp) else {
            return self.iso_time(context);
        };
        let thousandths = match sent.decimal(SECONDS_TO_MS) {
            Ok(Some(thousandths)) => thousandths,
            Ok(None) => return self.iso_time(context),
            Err(BadValue) => {
                let detail = "TimeStamp is not a number; send epoch milliseconds";
                return Err(reject(RejectReason::MissingEventTime, detail));
            }
        };
        let raw = thousandths / 1000;
        if raw >= SECONDS_BELOW {
            return Ok((event_time_in_range(raw, context)?, raw));
        }
        flag(&mut self.flags, "seconds_timestamp");
        Ok((event_time_in_range(thousandths, context)?, raw))
    }

    /// The load generator's ISO time, for want of a `TimeStamp`. Without an offset it is UTC.
    fn iso_time(&mut self, context: &DecodeContext) -> Result<(i64, i64), Reject> {
        let sent = self.object.take(Key::IsoTimestamp).map(Scalar::into_text);
        let Some(event_ts_ms) = sent.and_then(|text| iso_ms(&text)) else {
            let detail = "TimeStamp is missing or empty; send epoch milliseconds";
            return Err(reject(RejectReason::MissingEventTime, detail));
        };
        flag(&mut self.flags, "iso_timestamp");
        Ok((event_time_in_range(event_ts_ms, context)?, event_ts_ms))
    }

    fn identity(&mut self, event: &mut PlayerEvent) {
        event.native_event_id = self.text(Key::EventId, TEXT_CHARS_MAX);
        event.native_session_id = self.text(Key::SessionId, SESSION_ID_CHARS_MAX);
        event.seq = self.number(Key::Seq, UNITS, ANY_COUNT, "bad_value");
        event.user_id = self.text(Key::UserId, TEXT_CHARS_MAX);
        event.device_id = self.text(Key::DeviceId, TEXT_CHARS_MAX);
        event.client_address = self.text(Key::ClientAddress, TEXT_CHARS_MAX);
    }

    fn content(&mut self, event: &mut PlayerEvent) {
        event.content_id = self.text(Key::VideoId, CONTENT_ID_CHARS_MAX);
        event.content_title = self.text(Key::ContentTitle, TEXT_CHARS_MAX);
        event.stream_type = self.stream_type();
        event.stream_format = self.stream_format();
        let duration_ms = self.number(Key::Duration, SECONDS_TO_MS, MEDIA_MS, "bad_value");
        event.duration_ms = duration_ms.filter(|length_ms| *length_ms > 0);
        event.playhead_ms = self.number(Key::At, SECONDS_TO_MS, MEDIA_MS, "bad_playhead");
    }

    fn stream_type(&mut self) -> Option<&'static str> {
        let sent = self.object.take(Key::PlaylistType)?.into_text();
        if sent.eq_ignore_ascii_case("VOD") {
            return Some("vod");
        }
        if sent.eq_ignore_ascii_case("LIVE") || sent.eq_ignore_ascii_case("EVENT") {
            return Some("live");
        }
        self.object.give_back(Key::PlaylistType);
        None
    }

    fn stream_format(&mut self) -> Option<&'static str> {
        let sent = self.object.take(Key::Package)?.into_text();
        if sent.eq_ignore_ascii_case("HLS") {
            return Some("hls");
        }
        if sent.eq_ignore_ascii_case("DASH") {
            return Some("dash");
        }
        Some("other")
    }

    fn picture(&mut self, event: &mut PlayerEvent) {
        let bitrate_bps = self.number(Key::AvgBitrate, UNITS, ANY_COUNT, "bad_value");
        event.bitrate_bps = bitrate_bps.filter(|bitrate_bps| *bitrate_bps > 0);
        event.fps = self.real(Key::Fps).filter(|fps| *fps > 0.0);
        if let Some(sent) = self.object.take(Key::Resolution) {
            match width_and_height(&sent.into_text()) {
                Some((width, height)) => (event.width, event.height) = (Some(width), Some(height)),
                None => flag(&mut self.flags, "bad_value"),
            }
        }
    }

    fn delivery(&mut self, event: &mut PlayerEvent) {
        event.rtt_ms = self.real(Key::Rtt);
        event.request_id = self.request_id();
        let connection_type = self.text(Key::ConnectionType, TEXT_CHARS_MAX);
        event.connection_type = connection_type.filter(|name| !name.eq_ignore_ascii_case("not available"));
        event.cdn = self.text(Key::Cdn, TEXT_CHARS_MAX);
        event.host = self.text(Key::Host, TEXT_CHARS_MAX);
        event.network = Network {
            country: self.text(Key::Country, TEXT_CHARS_MAX),
            region: self.text(Key::Region, TEXT_CHARS_MAX),
            city: self.text(Key::City, TEXT_CHARS_MAX),
            asn: self.number(Key::Asn, UNITS, ANY_COUNT, "bad_value"),
            isp: self.text(Key::Isp, TEXT_CHARS_MAX),
        };
    }

    /// On an abnormal end the player puts an English sentence here (reference solution, 1.2).
    fn request_id(&mut self) -> Option<String> {
        let sent = self.object.take(Key::CdnTrackingId)?.into_text();
        if sent.contains(' ') || cut(&sent, REQUEST_ID_CHARS_MAX).1 {
            self.object.give_back(Key::CdnTrackingId);
            flag(&mut self.flags, "bad_request_id");
            return None;
        }
        Some(sent.into_owned())
    }

    fn application(&mut self, event: &mut PlayerEvent) {
        event.app_name = self.text(Key::AppName, TEXT_CHARS_MAX);
        if event.app_name.is_none() {
            event.app_name = self.text(Key::AppType, TEXT_CHARS_MAX);
        }
        event.app_version = self.text(Key::AppVersion, TEXT_CHARS_MAX);
        event.player_name = self.text(Key::PlayerName, TEXT_CHARS_MAX);
        event.player_version = self.text(Key::PlayerVersion, TEXT_CHARS_MAX);
        event.device = Device {
            device_type: self.text(Key::DeviceType, TEXT_CHARS_MAX),
            device_model: self.text(Key::DeviceModel, TEXT_CHARS_MAX),
            os: self.text(Key::Os, TEXT_CHARS_MAX),
            browser: self.text(Key::Browser, TEXT_CHARS_MAX),
        };
        event.user_agent = self.text(Key::UserAgent, TEXT_CHARS_MAX);
        event.background = self.boolean(Key::Background);
    }

    fn errors(&mut self, event: &mut PlayerEvent) {
        event.error_codes.extend(self.text(Key::ErrorCode, TEXT_CHARS_MAX));
        event.error_category = self.text(Key::ErrorCategory, TEXT_CHARS_MAX);
        event.error_fatal = self.boolean(Key::ErrorFatal);
    }

    /// The kind of event, and the fields that only this type gives a meaning to.
    fn what_happened(&mut self, type_name: &str, event: &mut PlayerEvent) -> EventKind {
        let is = |name: &str| type_name.eq_ignore_ascii_case(name);
        if is("STREAM") {
            return EventKind::Heartbeat;
        }
        if is("PLAY") {
            return EventKind::PlaybackRequest;
        }
        if is("PAUSE") {
            return EventKind::PlaybackPause;
        }
        if is("FIRSTFRAME") {
            event.startup_ms = self.length_ms();
            return EventKind::PlaybackStart;
        }
        if is("BUFFER") {
            return self.buffer(event);
        }
        if is("STEP") {
            // The player reports the playlist being loaded, not the picture being shown.
            event.req_bitrate_bps = self.number(Key::BitrateTo, UNITS, ANY_COUNT, "bad_value");
            return EventKind::RenditionUpdate;
        }
        if is("SEEK") {
            event.seek_ms = self.length_ms();
            event.seek_from_ms = self.number(Key::SeekFrom, SECONDS_TO_MS, MEDIA_MS, "bad_value");
            event.seek_to_ms = self.number(Key::SeekTo, SECONDS_TO_MS, MEDIA_MS, "bad_value");
            return EventKind::SeekEnd;
        }
        if is("ERROR") {
            event.error_message = self.text(Key::Message, TEXT_CHARS_MAX);
            return EventKind::PlaybackError;
        }
        if is("STOP") {
            event.end_reason = Some("finished");
            return EventKind::PlaybackFinish;
        }
        EventKind::Custom
    }

    /// A finished wait for data. At the start it is part of the start-up, whatever its label: the
    /// player calls most start-up waits `ScreenFreezedBuffer` (reference solution, 1.2).
    fn buffer(&mut self, event: &mut PlayerEvent) -> EventKind {
        let label = self.object.peek(Key::BufferType).map(Scalar::into_text);
        let is_first = label.is_some_and(|label| label.eq_ignore_ascii_case("FirstBuffer"));
        if is_first || event.playhead_ms == Some(0) {
            flag(&mut self.flags, "startup_buffer");
            return EventKind::Metadata;
        }
        event.stall_ms = self.length_ms();
        EventKind::StallEnd
    }

    fn length_ms(&mut self) -> Option<i64> {
        self.number(Key::TimeMillisecond, UNITS, ANY_COUNT, "bad_length")
    }

    fn text(&mut self, key: Key, chars_max: usize) -> Option<String> {
        match self.object.take(key)?.into_text() {
            // The usual case: borrowed, and copied once.
            Cow::Borrowed(text) => Some(bounded(text, chars_max, &mut self.flags)),
            Cow::Owned(text) => Some(bounded(&text, chars_max, &mut self.flags)),
        }
    }

    /// A number times 10^`scale`; outside of `range`, or no number, it is `None` with the flag.
    fn number(&mut self, key: Key, scale: usize, range: RangeInclusive<i64>, bad: &'static str) -> Option<i64> {
        match self.object.take(key)?.decimal(scale) {
            Ok(None) => None,
            Ok(Some(value)) if range.contains(&value) => Some(value),
            Ok(Some(_)) | Err(BadValue) => {
                flag(&mut self.flags, bad);
                None
            }
        }
    }

    /// A number from 0 upwards.
    fn real(&mut self, key: Key) -> Option<f64> {
        match self.object.take(key)?.real() {
            Ok(None) => None,
            Ok(Some(value)) if value >= 0.0 => Some(value),
            Ok(Some(_)) | Err(BadValue) => {
                flag(&mut self.flags, "bad_value");
                None
            }
        }
    }

    fn boolean(&mut self, key: Key) -> Option<bool> {
        let value = self.object.take(key)?.boolean();
        if value == Err(BadValue) {
            flag(&mut self.flags, "bad_value");
        }
        value.ok()
    }
}

/// `1280x720` as pixels.
fn width_and_height(resolution: &str) -> Option<(i64, i64)> {
    let (width, height) = resolution.split_once(['x', 'X'])?;
    let side = |text: &str| {
        let pixels = text.trim().parse::<i64>().ok()?;
        (1..=PIXELS_MAX).contains(&pixels).then_some(pixels)
    };
    Some((side(width)?, side(height)?))
}

fn iso_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Some(moment.timestamp_millis());
    }
    let text = text.replacen(' ', "T", 1);
    let moment = NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
    Some(moment.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/ref_player.ndjson"));
    /// The first event of the reference session.
    const START_MS: i64 = 1_588_752_000_000;
    const CONTEXT: DecodeContext = DecodeContext { now_ms: 1_600_000_000_000 };

    /// The event of a record with these members beside a type and a time.
    fn with(metric_type: &str, members: &str) -> PlayerEvent {
        let record = format!(r#"{{"MetricType":"{metric_type}","TimeStamp":1588752000000,{members}}}"#);
        decode(&record, &CONTEXT).unwrap()
    }

    fn heartbeat(members: &str) -> PlayerEvent {
        with("STREAM", members)
    }

    /// What an event says, in one line: kind, seconds since `START_MS`, then every value known.
    fn summary(event: &PlayerEvent) -> String {
        let mut words = vec![
            event.kind.unwrap().as_str().to_owned(),
            format!("+{}ms", event.event_ts_ms - START_MS),
        ];
        let mut number = |name: &str, value: Option<i64>| words.extend(value.map(|value| format!("{name}={value}")));
        number("at", event.playhead_ms);
        number("of", event.duration_ms);
        number("shown", event.bitrate_bps);
        number("wanted", event.req_bitrate_bps);
        number("width", event.width);
        number("height", event.height);
        number("stall", event.stall_ms);
        number("startup", event.startup_ms);
        number("seek", event.seek_ms);
        number("from", event.seek_from_ms);
        number("to", event.seek_to_ms);
        words.extend(event.fps.map(|fps| format!("fps={fps}")));
        words.extend(event.rtt_ms.map(|rtt_ms| format!("rtt={rtt_ms}")));
        words.extend(event.connection_type.clone());
        words.extend(event.stream_format.map(str::to_owned));
        words.extend(event.request_id.as_ref().map(|id| format!("id={}", &id[..4])));
        words.extend(event.error_message.as_ref().map(|message| format!("message={message}")));
        words.extend(event.end_reason.map(|reason| format!("end={reason}")));
        words.extend(event.ext.iter().map(|(key, value)| format!("{key}:{value}")));
        words.extend(event.dq_flags.iter().map(|name| format!("!{name}")));
        words.join(" ")
    }

    #[test]
    fn every_line_of_the_reference_session_is_understood() {
        let expected = [
            "playback_request +0ms at=0",
            "playback_start +640ms shown=2149280 width=1280 height=720 startup=640 fps=29.97 rtt=88 4g hls id=kQ3v",
            "metadata +850ms at=0 rtt=88 4g id=kQ3v buffer_type:FirstBuffer time_millisecond:850 !startup_buffer",
            "heartbeat +6100ms at=5020 of=596480 shown=2149280 width=1280 height=720 fps=29.97 rtt=70 4g hls id=pL7a",
            "rendition_update +7400ms at=5020 wanted=4799824 width=1280 height=720 fps=29.97 4g hls \
             bitrate_from:2149280 direction:UP",
            "heartbeat +11200ms at=10110 of=596480 shown=4799824 width=1280 height=720 fps=29.97 rtt=140 4g hls id=Zr5T",
            "stall_end +16300ms at=10110 stall=1840 rtt=140 4g id=Zr5T buffer_type:ScreenFreezedBuffer",
            "seek_end +20000ms seek=412 from=5020 to=300400 rtt=95 4g id=Hy2V",
            "heartbeat +24700ms at=305070 of=596480 shown=4799824 width=1280 height=720 fps=29.97 rtt=91 4g hls id=Hy2V",
            "playback_pause +31000ms at=305070 of=596480",
            "playback_request +95000ms at=305070 of=596480",
            "playback_pause +386900ms at=595210 of=596480",
            "playback_finish +386905ms at=596480 of=596480 shown=4799824 width=1280 height=720 fps=29.97 4g hls \
             end=finished",
            "playback_request +12000ms at=0",
            "playback_start +14950ms shown=612480 width=640 height=360 startup=2950 fps=24 rtt=310 3g hls id=Wd8K",
            "metadata +15410ms at=0 rtt=310 3g id=Wd8K buffer_type:ScreenFreezedBuffer time_millisecond:3410 \
             !startup_buffer",
            "heartbeat +20900ms at=5300 of=734170 shown=612480 width=640 height=360 fps=24 rtt=355 3g hls id=Nf6J",
            "rendition_update +22300ms at=5300 wanted=397120 width=640 height=360 fps=24 3g hls \
             bitrate_from:612480 direction:DOWN",
            "stall_end +30100ms at=5300 stall=5120 rtt=355 3g id=Nf6J buffer_type:ScreenFreezedBuffer",
            "playback_request +40000ms at=0",
            "playback_start +40900ms width=1920 height=1080 startup=900 rtt=61 hls id=Tb4H",
            "heartbeat +52400ms at=40210500 width=1920 height=1080 rtt=58 hls",
            "stall_end +100123ms at=40210500 stall=1588752100123 rtt=58 id=Tb4H buffer_type:ScreenFreezedBuffer",
            "playback_request +60000ms at=0",
            "playback_error +61250ms at=0 message=Error",
        ];
        let summaries: Vec<String> = LINES.lines().map(|line| summary(&decode(line, &CONTEXT).unwrap())).collect();
        assert_eq!(summaries, expected);
    }

    #[test]
    fn viewers_and_titles_of_the_reference_session_are_kept_as_sent() {
        let viewers = [
            (13, "us-west-2:5f2c7b1e-8d0a-4a53-9b1f-2c6f0d1c7e10", "BigBuckBunny", "vod"),
            (6, "us-west-2:91ab03d4-77c2-4e0e-a2c5-6e1f5d7b0a22", "TearsOfSteel", "vod"),
            (4, "us-west-2:c4d8e611-0b3f-4f6d-8a77-19d2b3f4e533", "news-live", "live"),
            (2, "us-west-2:e07f29aa-5c14-4b8b-b6e9-4470aa91cc44", "oceans", "live"),
        ];
        let mut lines = LINES.lines();
        for (count, viewer, title, stream_type) in viewers {
            for line in lines.by_ref().take(count) {
                let event = decode(line, &CONTEXT).unwrap();
                assert_eq!(event.user_id.as_deref(), Some(viewer), "{line}");
                assert_eq!(event.content_id.as_deref(), Some(title), "{line}");
                assert_eq!(event.stream_type, Some(stream_type), "{line}");
                assert_eq!(event.event_ts_raw, Some(event.event_ts_ms), "{line}");
                assert_eq!((event.source, event.error_fatal), ("aws_demo", None));
                assert_eq!(event.payload, line);
                let [(span, Identity::User)] = &event.identity_spans[..] else {
                    panic!("one identity span in {line}");
                };
                assert_eq!(&event.payload[span.clone()], viewer);
                assert!(event.event_id.is_empty() && event.session_key.is_empty());
            }
        }
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn keys_and_types_are_read_in_any_case_and_the_last_duplicate_wins() {
        let line = r#"{"metrictype":"play","video_id":"v","timestamp":"1588752000000","AT":1,"at":2,"x":1,"x":2}"#;
        let event = decode(line, &CONTEXT).unwrap();
        assert_eq!(summary(&event), "playback_request +0ms at=2000 x:2");
        assert_eq!(event.content_id.as_deref(), Some("v"));
        let unused = heartbeat(r#""Seek_From":1,"seek_from":2"#);
        assert_eq!(summary(&unused), "heartbeat +0ms seek_from:2");
    }

    #[test]
    fn an_unknown_type_is_custom_and_keeps_its_name_and_fields() {
        let line = r#"{"MetricType":"Ad_Start","ad_id":"a-1","user_id":"u","video_id":"v","pod":{"n":1},"TimeStamp":1588752000000}"#;
        let event = decode(line, &CONTEXT).unwrap();
        assert_eq!(summary(&event), r#"custom +0ms MetricType:Ad_Start ad_id:a-1 pod:{"n":1}"#);
        assert_eq!((event.user_id.as_deref(), event.content_id.as_deref()), (Some("u"), Some("v")));
    }

    #[test]
    fn event_times_come_in_many_spellings() {
        let check = |members: &str, expected_ms: i64, raw: i64, flags: &[&str]| {
            let event = decode(&format!(r#"{{"MetricType":"PLAY",{members}}}"#), &CONTEXT).unwrap();
            assert_eq!((event.event_ts_ms, event.event_ts_raw), (expected_ms, Some(raw)), "{members}");
            assert_eq!(event.dq_flags, flags, "{members}");
        };
        check(r#""TimeStamp":1588752006100"#, 1_588_752_006_100, 1_588_752_006_100, &[]);
        check(r#""TimeStamp":1588752006100.9"#, 1_588_752_006_100, 1_588_752_006_100, &[]);
        check(r#""TimeStamp":" 1588752006100 ""#, 1_588_752_006_100, 1_588_752_006_100, &[]);
        check(r#""TimeStamp":1.5887520061e12"#, 1_588_752_006_100, 1_588_752_006_100, &[]);
        check(
            r#""TimeStamp":1588752006"#,
            1_588_752_006_000,
            1_588_752_006,
            &["seconds_timestamp"],
        );
        check(
            r#""TimeStamp":"1588752006.125""#,
            1_588_752_006_125,
            1_588_752_006,
            &["seconds_timestamp"],
        );
        check(r#""TimeStamp":1262304000000"#, 1_262_304_000_000, 1_262_304_000_000, &[]);
        check(r#""TimeStamp":1600086400000"#, 1_600_086_400_000, 1_600_086_400_000, &[]);
        let iso = [
            r#""TimeStamp":null,"isotimestamp":"2020-05-06T08:00:06.100Z""#,
            r#""isotimestamp":"2020-05-06T10:00:06.100+02:00""#,
            r#""isotimestamp":"2020-05-06 08:00:06.100""#,
        ];
        for members in iso {
            check(members, 1_588_752_006_100, 1_588_752_006_100, &["iso_timestamp"]);
        }
    }

    #[test]
    fn an_iso_time_beside_a_time_stamp_is_only_kept() {
        let event = heartbeat(r#""isotimestamp":"2021-05-06T08:00:00Z""#);
        assert_eq!(summary(&event), "heartbeat +0ms isotimestamp:2021-05-06T08:00:00Z");
    }

    #[test]
    fn an_event_without_a_type_or_a_believable_time_is_rejected() {
        let check = |line: &str, expected: RejectReason| {
            assert_eq!(decode(line, &CONTEXT).unwrap_err().reason, expected, "{line}");
        };
        check(r#"{"TimeStamp":1588752000000}"#, RejectReason::MissingEventType);
        check(r#"{"MetricType":"","TimeStamp":1588752000000}"#, RejectReason::MissingEventType);
        check(r#"{"MetricType":null,"TimeStamp":1588752000000}"#, RejectReason::MissingEventType);
        check(r#"{"MetricType":"PLAY"}"#, RejectReason::MissingEventTime);
        check(r#"{"MetricType":"PLAY","TimeStamp":"NaN"}"#, RejectReason::MissingEventTime);
        check(r#"{"MetricType":"PLAY","TimeStamp":"noon"}"#, RejectReason::MissingEventTime);
        check(r#"{"MetricType":"PLAY","TimeStamp":[1]}"#, RejectReason::MissingEventTime);
        check(r#"{"MetricType":"PLAY","TimeStamp":0}"#, RejectReason::EventTimeOutOfRange);
        check(r#"{"MetricType":"PLAY","TimeStamp":-5}"#, RejectReason::EventTimeOutOfRange);
        check(
            r#"{"MetricType":"PLAY","TimeStamp":1262303999999}"#,
            RejectReason::EventTimeOutOfRange,
        );
        check(
            r#"{"MetricType":"PLAY","TimeStamp":1600086400001}"#,
            RejectReason::EventTimeOutOfRange,
        );
        check(
            r#"{"MetricType":"PLAY","TimeStamp":1588752000000000000}"#,
            RejectReason::EventTimeOutOfRange,
        );
        check(r#"{"MetricType":"PLAY","TimeStamp":1e300}"#, RejectReason::EventTimeOutOfRange);
    }

    #[test]
    fn unknown_values_are_absent_however_they_are_written() {
        let nothing = summary(&heartbeat(r#""x":null"#));
        assert_eq!(nothing, "heartbeat +0ms");
        for value in ["null", r#""""#, r#""undefined""#, r#""NaN""#, r#""-Infinity""#] {
            let members = format!(r#""at":{value},"duration":{value},"avg_bitrate":{value},"fps":{value},"rtt":{value},"seq":{value}"#);
            assert_eq!(summary(&heartbeat(&members)), nothing, "{value}");
        }
        for value in ["null", r#""""#, r#""undefined""#] {
            let members = format!(
                r#""user_id":{value},"video_id":{value},"resolution":{value},"cdn_tracking_id":{value},"fatal":{value},"y":{value}"#
            );
            let event = heartbeat(&members);
            assert_eq!(summary(&event), nothing, "{value}");
            assert_eq!((event.user_id, event.content_id, event.error_fatal), (None, None, None));
            assert!(event.identity_spans.is_empty());
        }
        assert_eq!(
            summary(&heartbeat(
                r#""avg_bitrate":0,"duration":0,"fps":"0","connection_type":"Not Available""#
            )),
            nothing
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_flagged_and_dropped() {
        let check = |members: &str, expected: &str| {
            assert_eq!(summary(&heartbeat(members)), format!("heartbeat +0ms {expected}"), "{members}");
        };
        check(r#""at":"5.02","avg_bitrate":"2149280""#, "at=5020 shown=2149280");
        check(r#""at":5.0205"#, "at=5021");
        check(r#""at":-0.1"#, "!bad_playhead");
        check(r#""at":"soon""#, "!bad_playhead");
        check(r#""at":315360000"#, "at=315360000000");
        check(r#""at":315360000.001"#, "!bad_playhead");
        check(r#""duration":"50""#, "of=50000");
        check(r#""duration":-1"#, "!bad_value");
        check(r#""avg_bitrate":2149280.5"#, "shown=2149281");
        check(r#""avg_bitrate":-1"#, "!bad_value");
        check(r#""avg_bitrate":1e18"#, "!bad_value");
        check(r#""fps":"fast","rtt":-1"#, "!bad_value");
        check(r#""rtt":70.5,"fps":25"#, "fps=25 rtt=70.5");
        check(r#""resolution":"1280""#, "!bad_value");
        check(r#""resolution":"0x0""#, "!bad_value");
        check(r#""resolution":"1280X720""#, "width=1280 height=720");
        check(r#""asn":"AS1","seq":-1,"background":"maybe""#, "!bad_value");
        check(r#""package":"dash""#, "dash");
        check(r#""package":"SMOOTH""#, "other");
        check(r#""playlist_type":"DVR""#, "playlist_type:DVR");
    }

    #[test]
    fn lengths_are_kept_as_sent_unless_they_are_no_lengths() {
        let check = |members: &str, stall_ms: Option<i64>, flags: &[&str]| {
            let event = with("BUFFER", &format!(r#""at":9,{members}"#));
            assert_eq!(event.kind, Some(EventKind::StallEnd));
            assert_eq!((event.stall_ms, &event.dq_flags[..]), (stall_ms, flags), "{members}");
        };
        check(r#""time_millisecond":1840"#, Some(1840), &[]);
        check(r#""time_millisecond":"1840.4""#, Some(1840), &[]);
        check(r#""time_millisecond":1588753024800"#, Some(1_588_753_024_800), &[]);
        check(r#""time_millisecond":0"#, Some(0), &[]);
        check(r#""time_millisecond":null"#, None, &[]);
        check(r#""time_millisecond":-1"#, None, &["bad_length"]);
        check(r#""time_millisecond":"long""#, None, &["bad_length"]);
        check(r#""time_millisecond":true"#, None, &["bad_length"]);
    }

    #[test]
    fn only_waiting_after_the_start_is_a_stall() {
        let check = |members: &str, expected: EventKind| {
            let event = with("BUFFER", &format!(r#""time_millisecond":900,{members}"#));
            let is_stall = expected == EventKind::StallEnd;
            assert_eq!((event.kind, event.stall_ms), (Some(expected), is_stall.then_some(900)), "{members}");
            assert_eq!(event.dq_flags.contains(&"startup_buffer"), !is_stall, "{members}");
        };
        check(r#""buffer_type":"FirstBuffer","at":65.9"#, EventKind::Metadata);
        check(r#""buffer_type":"firstbuffer""#, EventKind::Metadata);
        check(r#""buffer_type":"ScreenFreezedBuffer","at":0"#, EventKind::Metadata);
        check(r#""buffer_type":"ScreenFreezedBuffer","at":"0.0""#, EventKind::Metadata);
        check(r#""buffer_type":"ScreenFreezedBuffer","at":0.5"#, EventKind::StallEnd);
        check(r#""buffer_type":"ScreenFreezedBuffer""#, EventKind::StallEnd);
    }

    #[test]
    fn a_sentence_is_no_request_id() {
        let check = |id: &str, is_id: bool| {
            let event = heartbeat(&format!(r#""cdn_tracking_id":"{id}""#));
            if is_id {
                assert_eq!((event.request_id.as_deref(), event.dq_flags.len()), (Some(id), 0));
                return;
            }
            assert_eq!((event.request_id, event.dq_flags), (None, vec!["bad_request_id"]), "{id}");
            assert_eq!(event.ext, [("cdn_tracking_id".to_owned(), id.to_owned())]);
        };
        check("33c478dd-0491-4bfb-b303-64f546b819e7", true);
        check(&"x".repeat(128), true);
        check(&"x".repeat(129), false);
        check("Current position is not at the end", false);
    }

    #[test]
    fn what_other_players_send_beside_the_reference_is_understood() {
        let event = heartbeat(
            r#""session_id":"s","event_id":"e","sn":7,"device_id":"d","app_name":"a","app_type":"t","app_version":"1",
            "player_name":"p","player_version":"2","device_type":"tv","device_model":"m","os":"o","browser":"b",
            "user_agent":"ua","cdn":"c","host":"h","content_title":"ct","clientip":"203.0.113.77","country":"GB",
            "region":"ENG","city":"London","asn":"64500","isp":"Example","error_code":3,"error_category":"network",
            "fatal":"true","background":false"#,
        );
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        assert_eq!(text(&event.native_session_id) + &text(&event.native_event_id), "se");
        assert_eq!((event.seq, event.device_id.as_deref()), (Some(7), Some("d")));
        assert_eq!(text(&event.app_name) + &text(&event.app_version), "a1");
        assert_eq!(text(&event.player_name) + &text(&event.player_version), "p2");
        assert_eq!(
            event.device,
            Device {
                device_type: Some("tv".to_owned()),
                device_model: Some("m".to_owned()),
                os: Some("o".to_owned()),
                browser: Some("b".to_owned()),
            }
        );
        assert_eq!(text(&event.user_agent) + &text(&event.cdn) + &text(&event.host), "uach");
        assert_eq!(text(&event.content_title), "ct");
        assert_eq!(text(&event.client_address), "203.0.113.77");
        assert_eq!(
            event.network,
            Network {
                country: Some("GB".to_owned()),
                region: Some("ENG".to_owned()),
                city: Some("London".to_owned()),
                asn: Some(64_500),
                isp: Some("Example".to_owned()),
            }
        );
        assert_eq!(
            (&event.error_codes[..], text(&event.error_category)),
            (&["3".to_owned()][..], "network".to_owned())
        );
        assert_eq!((event.error_fatal, event.background), (Some(true), Some(false)));
        assert_eq!(event.ext, [("app_type".to_owned(), "t".to_owned())]);
        assert_eq!(heartbeat(r#""app_type":"t""#).app_name.as_deref(), Some("t"));
    }

    #[test]
    fn a_client_address_never_reaches_ext() {
        let event = heartbeat(r#""ip":"192.0.2.1","client_ip":"192.0.2.2","Remote_Addr":"192.0.2.3""#);
        assert_eq!(event.client_address.as_deref(), Some("192.0.2.3"));
        assert!(event.ext.is_empty());
    }

    #[test]
    fn texts_are_cut_at_their_bound_between_characters() {
        let check = |key: &str, chars: usize, field: fn(PlayerEvent) -> Option<String>| {
            let fits = heartbeat(&format!(r#""{key}":"{}""#, "ä".repeat(chars)));
            assert!(fits.dq_flags.is_empty(), "{key}");
            assert_eq!(field(fits), Some("ä".repeat(chars)), "{key}");
            let long = heartbeat(&format!(r#""{key}":"{}""#, "ä".repeat(chars + 1)));
            assert_eq!(long.dq_flags, ["truncated"], "{key}");
            assert_eq!(field(long), Some("ä".repeat(chars)), "{key}");
        };
        check("session_id", 64, |event| event.native_session_id);
        check("video_id", 128, |event| event.content_id);
        check("user_agent", 512, |event| event.user_agent);
        check("user_id", 512, |event| event.user_id);
    }

    #[test]
    fn identity_spans_cover_every_id_that_the_payload_holds() {
        let check = |members: &str, expected: &[(&str, Identity)]| {
            let event = heartbeat(members);
            let found: Vec<(&str, Identity)> = event
                .identity_spans
                .iter()
                .map(|(span, identity)| (&event.payload[span.clone()], *identity))
                .collect();
            assert_eq!(found, expected, "{members}");
        };
        let (user, device) = (Identity::User, Identity::Device);
        check(r#""user_id":"u","device_id":"d""#, &[("u", user), ("d", device)]);
        check(r#""device_id":"d","user_id" : "u""#, &[("d", device), ("u", user)]);
        check(r#""user_id":12345,"device_id":null"#, &[("12345", user)]);
        check(r#""user_id":"a\u00e4\"b""#, &[(r#"a\u00e4\"b"#, user)]);
        check(r#""user_id":"first","USER_ID":"last""#, &[("first", user), ("last", user)]);
        check(r#""\u0075ser_id":"u""#, &[("u", user)]);
        check(r#""user_id":{"id":"u"}"#, &[(r#"{"id":"u"}"#, user)]);

        let escaped = heartbeat(r#""user_id":"a\u00e4\"b","device_id":12"#);
        assert_eq!(
            (escaped.user_id.as_deref(), escaped.device_id.as_deref()),
            (Some("aä\"b"), Some("12"))
        );
    }

    #[test]
    fn white_space_and_a_byte_order_mark_do_not_shift_the_spans() {
        let line = "\u{feff} { \"MetricType\" : \"PLAY\", \"TimeStamp\" : 1588752000000, \"user_id\" : \"ü\" } ";
        let event = decode(line, &CONTEXT).unwrap();
        assert_eq!(event.payload, line);
        assert_eq!(&event.payload[event.identity_spans[0].0.clone()], "ü");
    }
}
