//! Events of the Amazon IVS quality dashboard's player and of the channel itself (reference
//! solution, 1.5): one flat JSON object a record, `metric_type` in lower case.
//!
//! Stands first in the walk of a player event: the record comes from a source, the event goes to
//! `enrich`. API Gateway has added its own time (`event_time`) and CloudFront's viewer headers.
//!
//! Invariant: what the channel reports of itself names no viewer, so it is in no session and is
//! never a viewer's stall.
//! Invariant: latitude, longitude and postal code are stored nowhere: no field takes them, and each
//! has an identity span.
//! Invariant: every occurrence of a user or device id has an identity span.

use std::borrow::Cow;
use std::ops::Range;

use super::DecodeContext;
use super::reading::{
    ANY_COUNT, CONTENT_ID_CHARS_MAX, MEDIA_MS, PIXELS, Reading, SESSION_ID_CHARS_MAX, TEXT_CHARS_MAX, THOUSANDTHS, UNITS, event_time,
    receive_time, span,
};
use super::text::{Object, Scalar, Vocabulary, flag, reject};
use crate::event::{EventKind, Identity, PlayerEvent, Reject, RejectReason};

/// The dialect's name in `source`.
const SOURCE: &str = "ivs";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    MetricType,
    /// The reference player's `MetricType`: a record with it is not of this dialect.
    ReferenceType,
    EventTime,
    UserId,
    DeviceId,
    SessionId,
    IsLive,
    ChannelWatched,
    StartupLatency,
    PlayingTime,
    BufferingTime,
    BufferingCount,
    RenditionHeight,
    LiveLatency,
    ToRenditionName,
    ToBitrate,
    EndPosition,
    ViewerAddress,
    ViewerAsn,
    ViewerCountry,
    ViewerCountryName,
    ViewerRegion,
    ViewerCity,
    ViewerLatitude,
    ViewerLongitude,
    ViewerPostalCode,
    IsSmartTv,
    IsTablet,
    IsMobile,
    IsDesktop,
}

impl Vocabulary for Key {
    fn find(lower_case: &str) -> Option<Key> {
        Some(match lower_case {
            "metric_type" => Key::MetricType,
            "metrictype" => Key::ReferenceType,
            "event_time" => Key::EventTime,
            "user_id" => Key::UserId,
            "device_id" => Key::DeviceId,
            "session_id" => Key::SessionId,
            "is_live" => Key::IsLive,
            "channel_watched" => Key::ChannelWatched,
            "startup_latency_ms" => Key::StartupLatency,
            "playing_time_ms" => Key::PlayingTime,
            "buffering_time_ms" => Key::BufferingTime,
            "buffering_count" => Key::BufferingCount,
            "rendition_height" => Key::RenditionHeight,
            "live_latency_ms" => Key::LiveLatency,
            "to_rendition_name" => Key::ToRenditionName,
            "to_bitrate" => Key::ToBitrate,
            "end_playback_position_sec" => Key::EndPosition,
            "cloudfront-viewer-address" => Key::ViewerAddress,
            "cloudfront-viewer-asn" => Key::ViewerAsn,
            "cloudfront-viewer-country" => Key::ViewerCountry,
            "cloudfront-viewer-country-name" => Key::ViewerCountryName,
            "cloudfront-viewer-country-region" => Key::ViewerRegion,
            "cloudfront-viewer-city" => Key::ViewerCity,
            "cloudfront-viewer-latitude" => Key::ViewerLatitude,
            "cloudfront-viewer-longitude" => Key::ViewerLongitude,
            "cloudfront-viewer-postal-code" => Key::ViewerPostalCode,
            "cloudfront-is-smarttv-viewer" => Key::IsSmartTv,
            "cloudfront-is-tablet-viewer" => Key::IsTablet,
            "cloudfront-is-mobile-viewer" => Key::IsMobile,
            "cloudfront-is-desktop-viewer" => Key::IsDesktop,
            _ => return None,
        })
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// What the viewer's place is told by; none of it is stored.
const POSITION: [Key; 3] = [Key::ViewerLatitude, Key::ViewerLongitude, Key::ViewerPostalCode];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MetricType {
    Play,
    Stop,
    PlaybackSummary,
    QualityChanged,
    QuizAnswer,
    /// A fact of the channel, from EventBridge.
    Channel,
}

impl MetricType {
    fn parse(name: &str) -> Option<MetricType> {
        const NAMES: [(&str, MetricType); 10] = [
            ("PLAY", MetricType::Play),
            ("STOP", MetricType::Stop),
            ("PLAYBACK_SUMMARY", MetricType::PlaybackSummary),
            ("QUALITY_CHANGED", MetricType::QualityChanged),
            ("QUIZ_ANSWER", MetricType::QuizAnswer),
            ("STREAM_START", MetricType::Channel),
            ("STREAM_END", MetricType::Channel),
            ("STARVATION_START", MetricType::Channel),
            ("STARVATION_END", MetricType::Channel),
            ("CHANNEL_CONCURRENCY", MetricType::Channel),
        ];
        let found = NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        found.map(|(_, metric_type)| *metric_type)
    }
}

/// True if the object names one of this dialect's types and is not the reference player's.
/// `is_whole`: it must also be sound.
pub(super) fn recognises(json: &str, is_whole: bool) -> bool {
    let (object, outcome) = Object::<Key>::parse_prefix(json);
    let is_readable = outcome.is_ok() || !is_whole;
    let type_name = object.peek(Key::MetricType).map(Scalar::into_text);
    is_readable && !object.has(Key::ReferenceType) && type_name.is_some_and(|name| MetricType::parse(&name).is_some())
}

/// One record. Sets neither `event_id` nor `session_key` nor `client_prefix`.
pub(super) fn decode(payload: &str, context: &DecodeContext) -> Result<PlayerEvent, Reject> {
    let mut reading = Reading::new(Object::parse(payload)?);
    let type_name = type_name(&mut reading)?;
    let metric_type = MetricType::parse(&type_name);
    let (event_ts_ms, event_ts_raw) = time_of(&mut reading, context)?;

    let mut event = PlayerEvent {
        source: SOURCE,
        event_ts_ms,
        event_ts_raw: Some(event_ts_raw),
        payload: payload.to_owned(),
        ..PlayerEvent::default()
    };
    match metric_type {
        Some(MetricType::Channel) => channel(&mut reading, &mut event),
        _ => viewer(&mut reading, &mut event),
    }
    content(&mut reading, &mut event);
    headers(&mut reading, &mut event);
    let kind = what_happened(metric_type, &mut reading, &mut event);
    event.kind = Some(kind);

    let own_name = (kind == EventKind::Custom).then_some(("metric_type", type_name));
    event.ext = reading.object.left_over(own_name, &mut reading.flags);
    event.identity_spans = identity_spans(payload, &reading.object);
    event.dq_flags = reading.flags;
    Ok(event)
}

fn type_name<'a>(reading: &mut Reading<'a, Key>) -> Result<Cow<'a, str>, Reject> {
    let name = reading.object.take(Key::MetricType).map(Scalar::into_text);
    name.ok_or_else(|| reject(RejectReason::MissingEventType, "metric_type is missing or empty"))
}

/// The receiver's time in milliseconds: API Gateway adds it. A record that came to us without a
/// gateway in between has none, and then we are the receiver.
fn time_of(reading: &mut Reading<'_, Key>, context: &DecodeContext) -> Result<(i64, i64), Reject> {
    let Some(sent) = reading.object.take(Key::EventTime) else {
        return Ok(receive_time(context, &mut reading.flags));
    };
    match sent.decimal(THOUSANDTHS) {
        Ok(Some(thousandths)) => event_time(thousandths, context, &mut reading.flags),
        _ => {
            let detail = "event_time is not a number; send epoch milliseconds, or leave it out to have the time of receipt";
            Err(reject(RejectReason::MissingEventTime, detail))
        }
    }
}

fn viewer(reading: &mut Reading<'_, Key>, event: &mut PlayerEvent) {
    event.native_session_id = reading.text(Key::SessionId, SESSION_ID_CHARS_MAX);
    event.user_id = reading.text(Key::UserId, TEXT_CHARS_MAX);
    event.device_id = reading.text(Key::DeviceId, TEXT_CHARS_MAX);
}

/// A channel has no viewer; an id that stands there all the same reaches neither a field nor `ext`.
fn channel(reading: &mut Reading<'_, Key>, event: &mut PlayerEvent) {
    reading.object.take(Key::UserId);
    reading.object.take(Key::DeviceId);
    event.unattributed = true;
}

fn content(reading: &mut Reading<'_, Key>, event: &mut PlayerEvent) {
    event.content_id = reading.text(Key::ChannelWatched, CONTENT_ID_CHARS_MAX);
    let is_live = reading.boolean(Key::IsLive);
    event.stream_type = is_live.map(|is_live| if is_live { "live" } else { "vod" });
    event.playhead_ms = reading.number(Key::EndPosition, THOUSANDTHS, MEDIA_MS, "bad_playhead");
}

/// CloudFront's viewer headers.
fn headers(reading: &mut Reading<'_, Key>, event: &mut PlayerEvent) {
    event.client_address = reading.text(Key::ViewerAddress, TEXT_CHARS_MAX);
    event.network.country = country(reading);
    event.network.region = reading.text(Key::ViewerRegion, TEXT_CHARS_MAX);
    event.network.city = reading.text(Key::ViewerCity, TEXT_CHARS_MAX);
    event.network.asn = reading.number(Key::ViewerAsn, UNITS, ANY_COUNT, "bad_value");
    event.device.device_type = device_type(reading);
    for key in POSITION {
        // Privacy leaves an empty text in its place, which is flagged like what stood there.
        if reading.object.raw_of_all(key).any(|raw| raw != "null") {
            flag(&mut reading.flags, "position_dropped");
        }
        reading.object.take(key);
    }
}

/// A code of two letters; a name such as `Portugal` is left to `ext`.
fn country(reading: &mut Reading<'_, Key>) -> Option<String> {
    for key in [Key::ViewerCountry, Key::ViewerCountryName] {
        let Some(sent) = reading.object.peek(key).map(Scalar::into_text) else {
            continue;
        };
        if sent.len() == 2 && sent.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            reading.object.take(key);
            return Some(sent.to_ascii_uppercase());
        }
    }
    None
}

/// The most telling of the four classes: CloudFront may call a tablet mobile as well.
fn device_type(reading: &mut Reading<'_, Key>) -> Option<String> {
    const CLASSES: [(Key, &str); 4] = [
        (Key::IsSmartTv, "tv"),
        (Key::IsTablet, "tablet"),
        (Key::IsMobile, "mobile"),
        (Key::IsDesktop, "desktop"),
    ];
    let mut device_type = None;
    for (key, name) in CLASSES {
        if reading.boolean(key) == Some(true) {
            device_type.get_or_insert(name);
        }
    }
    device_type.map(str::to_owned)
}

/// The kind of event, and the fields that only this type gives a meaning to.
fn what_happened(metric_type: Option<MetricType>, reading: &mut Reading<'_, Key>, event: &mut PlayerEvent) -> EventKind {
    match metric_type {
        Some(MetricType::Play) => {
            // Sent when playing has begun: it brings the length of the start that is over.
            event.startup_ms = reading.number(Key::StartupLatency, UNITS, ANY_COUNT, "bad_length");
            EventKind::PlaybackStart
        }
        Some(MetricType::Stop) => {
            event.end_reason = Some("user_quit");
            EventKind::SessionEnd
        }
        Some(MetricType::PlaybackSummary) => {
            summary(reading, event);
            EventKind::Heartbeat
        }
        Some(MetricType::QualityChanged) => {
            quality(reading, event);
            EventKind::RenditionUpdate
        }
        Some(MetricType::QuizAnswer | MetricType::Channel) | None => EventKind::Custom,
    }
}

/// Sums since the last summary. `error_count` has no code to go with it and stays in `ext`.
fn summary(reading: &mut Reading<'_, Key>, event: &mut PlayerEvent) {
    event.played_ms = reading.number(Key::PlayingTime, UNITS, ANY_COUNT, "bad_length");
    event.stall_ms = reading.number(Key::BufferingTime, UNITS, ANY_COUNT, "bad_length");
    event.stall_count = reading.number(Key::BufferingCount, UNITS, ANY_COUNT, "bad_value");
    event.live_latency_ms = reading.number(Key::LiveLatency, UNITS, ANY_COUNT, "bad_length");
    event.height = reading.number(Key::RenditionHeight, UNITS, PIXELS, "bad_value");
}

/// The rendition shown from now on. The IVS player gives bitrates in bit/s.
fn quality(reading: &mut Reading<'_, Key>, event: &mut PlayerEvent) {
    event.bitrate_bps = reading.bitrate_bps(Key::ToBitrate, UNITS);
    let name = reading.object.peek(Key::ToRenditionName).map(Scalar::into_text);
    event.height = name.and_then(|name| height_of(&name));
}

/// `720p` and `720p60` as 720; other names tell no height.
fn height_of(rendition_name: &str) -> Option<i64> {
    let (height, frames) = rendition_name.split_once(['p', 'P'])?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(height) || !is_number(frames) {
        return None;
    }
    height.parse().ok().filter(|height| PIXELS.contains(height))
}

/// Where the payload holds ids and the viewer's position, ascending.
///
/// A position counts as the device's identity: what takes its place cannot be read back.
fn identity_spans(payload: &str, object: &Object<'_, Key>) -> Vec<(Range<usize>, Identity)> {
    let mut spans = Vec::new();
    let ids = [(Key::UserId, Identity::User), (Key::DeviceId, Identity::Device)];
    let positions = POSITION.map(|key| (key, Identity::Position));
    for (key, identity) in ids.into_iter().chain(positions) {
        for raw in object.raw_of_all(key) {
            spans.extend(span(payload, raw).map(|range| (range, identity)));
        }
    }
    spans.sort_by_key(|(range, _)| range.start);
    spans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Device, Network};

    const NOW_MS: i64 = 1_600_200_000_000;
    const CONTEXT: DecodeContext = DecodeContext { now_ms: NOW_MS };
    const TIME_MS: i64 = 1_600_102_833_593;
    /// The example of the reference solution, 1.5.
    const SUMMARY: &str = r#"{"metric_type":"PLAYBACK_SUMMARY","user_id":"26d648a4bc334862a6d0bd001f231d0e","session_id":"7853d92ca5a94bb7b470cf615e75c322","client_platform":"web","is_live":true,"channel_watched":"demoChannel01","error_count":0,"playing_time_ms":57310,"buffering_time_ms":2690,"buffering_count":1,"rendition_name":"720p","rendition_height":720,"live_latency_ms":3180,"CloudFront-Viewer-Country-Name":"Portugal","CloudFront-Is-Mobile-Viewer":true,"event_time":1600102833593}"#;

    /// The event of a record with these members beside a type and a time.
    fn with(metric_type: &str, members: &str) -> PlayerEvent {
        let comma = if members.is_empty() { "" } else { "," };
        let record = format!(r#"{{"metric_type":"{metric_type}","event_time":{TIME_MS}{comma}{members}}}"#);
        let mut event = decode(&record, &CONTEXT).unwrap();
        assert_eq!(event.payload, record);
        event.payload = String::new();
        event
    }

    /// What every event has here, for comparison with `..bare(kind)`.
    fn bare(kind: EventKind) -> PlayerEvent {
        PlayerEvent {
            source: "ivs",
            kind: Some(kind),
            event_ts_ms: TIME_MS,
            event_ts_raw: Some(TIME_MS),
            ..PlayerEvent::default()
        }
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_published_summary_is_one_minute_of_playing() {
        let event = decode(SUMMARY, &CONTEXT).unwrap();
        let spans = event.identity_spans.clone();
        assert_eq!(&event.payload[spans[0].0.clone()], "26d648a4bc334862a6d0bd001f231d0e");
        let expected = PlayerEvent {
            native_session_id: Some("7853d92ca5a94bb7b470cf615e75c322".to_owned()),
            user_id: Some("26d648a4bc334862a6d0bd001f231d0e".to_owned()),
            content_id: Some("demoChannel01".to_owned()),
            stream_type: Some("live"),
            played_ms: Some(57_310),
            stall_ms: Some(2_690),
            stall_count: Some(1),
            live_latency_ms: Some(3_180),
            height: Some(720),
            device: Device {
                device_type: Some("mobile".to_owned()),
                ..Device::default()
            },
            ext: pairs(&[
                ("CloudFront-Viewer-Country-Name", "Portugal"),
                ("client_platform", "web"),
                ("error_count", "0"),
                ("rendition_name", "720p"),
            ]),
            payload: SUMMARY.to_owned(),
            identity_spans: spans,
            ..bare(EventKind::Heartbeat)
        };
        assert_eq!(event, expected);
        assert_eq!(event.identity_spans.len(), 1);
    }

    #[test]
    fn each_client_type_has_its_kind_and_fields() {
        assert_eq!(
            with("PLAY", r#""startup_latency_ms":812,"is_live":false"#),
            PlayerEvent {
                startup_ms: Some(812),
                stream_type: Some("vod"),
                ..bare(EventKind::PlaybackStart)
            }
        );
        assert_eq!(
            with("stop", r#""start_playback_position_sec":1.5,"end_playback_position_sec":61.25"#),
            PlayerEvent {
                end_reason: Some("user_quit"),
                playhead_ms: Some(61_250),
                ext: pairs(&[("start_playback_position_sec", "1.5")]),
                ..bare(EventKind::SessionEnd)
            }
        );
        let step = r#""from_rendition_name":"480p","to_rendition_name":"720p60","from_bitrate":1400000,"to_bitrate":2400000,"step_direction":"UP""#;
        assert_eq!(
            with("QUALITY_CHANGED", step),
            PlayerEvent {
                bitrate_bps: Some(2_400_000),
                height: Some(720),
                ext: pairs(&[
                    ("from_bitrate", "1400000"),
                    ("from_rendition_name", "480p"),
                    ("step_direction", "UP"),
                    ("to_rendition_name", "720p60"),
                ]),
                ..bare(EventKind::RenditionUpdate)
            }
        );
        assert_eq!(
            with("QUIZ_ANSWER", r#""answer":"b""#),
            PlayerEvent {
                ext: pairs(&[("answer", "b"), ("metric_type", "QUIZ_ANSWER")]),
                ..bare(EventKind::Custom)
            }
        );
        assert_eq!(
            with("SOMETHING_NEW", r#""playing_time_ms":1"#),
            PlayerEvent {
                ext: pairs(&[("metric_type", "SOMETHING_NEW"), ("playing_time_ms", "1")]),
                ..bare(EventKind::Custom)
            }
        );
    }

    #[test]
    fn a_starving_channel_is_no_viewers_stall() {
        for name in [
            "STREAM_START",
            "STREAM_END",
            "STARVATION_START",
            "STARVATION_END",
            "CHANNEL_CONCURRENCY",
        ] {
            let event = with(
                name,
                r#""channel_watched":"c","duration":12,"buffering_time_ms":12000,"user_id":"u""#,
            );
            let spans = event.identity_spans.len();
            assert_eq!(spans, 1, "{name}");
            let expected = PlayerEvent {
                unattributed: true,
                content_id: Some("c".to_owned()),
                ext: pairs(&[("buffering_time_ms", "12000"), ("duration", "12"), ("metric_type", name)]),
                identity_spans: event.identity_spans.clone(),
                ..bare(EventKind::Custom)
            };
            assert_eq!(event, expected, "{name}");
        }
    }

    #[test]
    fn viewer_headers_tell_the_network_and_the_device() {
        let event = with(
            "PLAY",
            r#""CloudFront-Viewer-Country":"pt","CloudFront-Viewer-Country-Name":"Portugal","cloudfront-viewer-country-region":"11",
            "CloudFront-Viewer-City":"Lisbon","CloudFront-Viewer-ASN":"64500","CloudFront-Viewer-Address":"203.0.113.77:4711",
            "CloudFront-Is-Mobile-Viewer":"true","CloudFront-Is-Tablet-Viewer":"true","CloudFront-Is-Desktop-Viewer":"false""#,
        );
        let expected = Network {
            country: Some("PT".to_owned()),
            region: Some("11".to_owned()),
            city: Some("Lisbon".to_owned()),
            asn: Some(64_500),
            isp: None,
        };
        assert_eq!(event.network, expected);
        assert_eq!(event.client_address.as_deref(), Some("203.0.113.77:4711"));
        assert_eq!(event.device.device_type.as_deref(), Some("tablet"));
        assert_eq!(event.ext, pairs(&[("CloudFront-Viewer-Country-Name", "Portugal")]));
        assert_eq!(
            with("PLAY", r#""CloudFront-Viewer-Country-Name":"GB""#).network.country.as_deref(),
            Some("GB")
        );
        let television = with("PLAY", r#""CloudFront-Is-Desktop-Viewer":true,"CloudFront-Is-SmartTV-Viewer":true"#);
        assert_eq!(television.device.device_type.as_deref(), Some("tv"));
    }

    #[test]
    fn a_position_reaches_no_field_and_each_spelling_of_it_has_a_span() {
        let record = r#"{"metric_type":"PLAY","event_time":1600102833593,"CloudFront-Viewer-Latitude":"38.71667","user_id":"u","CloudFront-Viewer-Longitude":-9.13333,"CLOUDFRONT-VIEWER-LATITUDE":38.7,"CloudFront-Viewer-Postal-Code":"1100"}"#;
        let event = decode(record, &CONTEXT).unwrap();
        let cut: Vec<&str> = event.identity_spans.iter().map(|(range, _)| &record[range.clone()]).collect();
        assert_eq!(cut, ["38.71667", "u", "-9.13333", "38.7", "1100"]);
        assert_eq!((event.dq_flags.as_slice(), event.ext.len()), (&["position_dropped"][..], 0));
        let known = format!(
            "{:?}",
            PlayerEvent {
                payload: String::new(),
                ..event
            }
        );
        assert!(
            !known.contains("38.7") && !known.contains("9.13") && !known.contains("1100"),
            "{known}"
        );
        assert!(with("PLAY", r#""CloudFront-Viewer-Latitude":null"#).dq_flags.is_empty());
    }

    #[test]
    fn the_time_is_the_gateways_else_that_of_receipt() {
        let check = |member: &str, expected: Result<(i64, i64), RejectReason>, flags: &[&str]| {
            let record = format!(r#"{{"metric_type":"PLAY"{member}}}"#);
            let event = decode(&record, &CONTEXT);
            let time = event.as_ref().map(|event| (event.event_ts_ms, event.event_ts_raw.unwrap()));
            assert_eq!(time.map_err(|reject| reject.reason), expected, "{member}");
            assert_eq!(event.map(|event| event.dq_flags).unwrap_or_default(), flags, "{member}");
        };
        check(r#","event_time":1600102833593"#, Ok((TIME_MS, TIME_MS)), &[]);
        check(r#","event_time":"1600102833593""#, Ok((TIME_MS, TIME_MS)), &[]);
        check(
            r#","event_time":1600102833"#,
            Ok((1_600_102_833_000, 1_600_102_833)),
            &["seconds_timestamp"],
        );
        check("", Ok((NOW_MS, NOW_MS)), &["receive_time"]);
        check(r#","event_time":null"#, Ok((NOW_MS, NOW_MS)), &["receive_time"]);
        check(r#","event_time":"noon""#, Err(RejectReason::MissingEventTime), &[]);
        check(r#","event_time":0"#, Err(RejectReason::EventTimeOutOfRange), &[]);
        check(r#","event_time":1900000000000"#, Err(RejectReason::EventTimeOutOfRange), &[]);
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_flagged_and_dropped() {
        let check = |metric_type: &str, members: &str, flags: &[&str]| {
            let event = with(metric_type, members);
            assert_eq!(event.dq_flags, flags, "{members}");
            let expected = PlayerEvent {
                dq_flags: event.dq_flags.clone(),
                end_reason: event.end_reason,
                ..bare(event.kind.unwrap())
            };
            assert_eq!(event, expected, "{members}");
        };
        check("PLAYBACK_SUMMARY", r#""playing_time_ms":-1"#, &["bad_length"]);
        check("PLAYBACK_SUMMARY", r#""buffering_count":"often""#, &["bad_value"]);
        check("PLAYBACK_SUMMARY", r#""rendition_height":0"#, &["bad_value"]);
        check("PLAYBACK_SUMMARY", r#""live_latency_ms":-3"#, &["bad_length"]);
        check("QUALITY_CHANGED", r#""to_bitrate":0"#, &[]);
        check("STOP", r#""end_playback_position_sec":-1"#, &["bad_playhead"]);
        check("PLAY", r#""is_live":"perhaps""#, &["bad_value"]);
    }

    #[test]
    fn only_numbers_before_the_p_are_a_height() {
        let check = |name: &str, expected: Option<i64>| assert_eq!(height_of(name), expected, "{name}");
        check("1080p", Some(1080));
        check("720P60", Some(720));
        check("160p30", Some(160));
        check("Audio Only", None);
        check("p", None);
        check("0p", None);
        check("7²p", None);
        check("source", None);
        check("99999999999999999999p", None);
    }

    #[test]
    fn the_dialect_is_known_by_its_types() {
        let check = |json: &str, is_whole: bool, expected: bool| assert_eq!(recognises(json, is_whole), expected, "{json}");
        check(SUMMARY, true, true);
        check(&SUMMARY[..60], false, true);
        check(&SUMMARY[..60], true, false);
        check(r#"{"metric_type":"starvation_end"}"#, true, true);
        check(r#"{"metric_type":"cpu"}"#, true, false);
        check(r#"{"metric_type":"PLAY","MetricType":"PLAY"}"#, true, false);
        check(r#"{"MetricType":"PLAY"}"#, true, false);
        check(r#"{"metric_type":"PL"#, false, false);
        check(r#"{"metric_type":{"a":"PLAY"}}"#, true, false);
    }

    #[test]
    fn a_record_without_a_type_is_rejected() {
        let check = |json: &str, expected: RejectReason| assert_eq!(decode(json, &CONTEXT).unwrap_err().reason, expected, "{json}");
        check(r#"{"event_time":1600102833593}"#, RejectReason::MissingEventType);
        check(r#"{"metric_type":""}"#, RejectReason::MissingEventType);
        check("[]", RejectReason::NotAnObject);
        check("{", RejectReason::MalformedJson);
    }

    fn any_member() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec![
            "user_id",
            "session_id",
            "event_time",
            "is_live",
            "to_bitrate",
            "to_rendition_name",
            "playing_time_ms",
            "CloudFront-Viewer-Latitude",
            "CloudFront-Viewer-Country",
            "x",
        ]);
        let value = prop_oneof![
            "\\PC{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f32>().prop_map(|number| format!("{number:e}")),
            prop::sample::select(vec!["null", "true", "{}", "[1]", "1600102833593", r#""a\u00e4\"b""#]).prop_map(str::to_owned),
        ];
        (key, value).prop_map(|(key, value)| format!(r#""{key}":{value}"#))
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,80}") {
            let _ = decode(&text, &CONTEXT);
            recognises(&text, false);
        }

        #[test]
        fn spans_lie_in_the_payload_and_do_not_overlap(
            metric_type in prop::sample::select(vec!["PLAY", "STOP", "PLAYBACK_SUMMARY", "QUALITY_CHANGED", "STREAM_END", "X"]),
            members in prop::collection::vec(any_member(), 0..8),
        ) {
            let record = format!(r#"{{"metric_type":"{metric_type}",{}}}"#, members.join(",")).replace(",}", "}");
            if let Ok(event) = decode(&record, &CONTEXT) {
                prop_assert_eq!(&event.payload, &record);
                let mut done = 0;
                for (range, _) in event.identity_spans {
                    prop_assert!(range.start >= done && record.get(range.clone()).is_some());
                    done = range.end;
                }
            }
        }
    }
}
