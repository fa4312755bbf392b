//! The scripts, sessions and texts that the tests of this module share.
//!
//! Stands beside the rules, in tests only: `check` reads a script of events, derives its sessions and
//! compares them with what a person would write down.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::events::KeyEvents;
use super::pieces::Piece;
use super::timeline::{SessionFacts, derive};
use super::{EventDetail, MediaDetail, Readings, SessionEvent, SessionSettings};
use crate::event::facts::PlaybackSession;
use crate::event::{ErrorClass, EventKind, ReportedState};

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
        event_id: xxh3_64_with_seed(line.as_bytes(), n as u64),
        kind,
        event_ts_ms,
        seq: None,
        playhead_ms: None,
        readings: None,
        detail: EventDetail::default(),
    };
    for word in words {
        let (name, value) = word.split_once('=').expect("name=value");
        set(&mut event, name, value);
    }
    event
}

/// Names of the values that differ from report to report.
fn set_reading(readings: &mut Readings, name: &str, value: &str) -> bool {
    match name {
        "buffer" => readings.buffer_ms = Some(ms(value)),
        "video_buffer" => readings.buffer_video_ms = Some(ms(value)),
        "audio_buffer" => readings.buffer_audio_ms = Some(ms(value)),
        "played" => readings.played_ms = Some(ms(value)),
        "stalls" => readings.stall_count = value.parse().ok(),
        "bsa" => readings.stall_count_total = value.parse().ok(),
        "bsda" => readings.stall_total_ms = Some(ms(value)),
        "dropped" => readings.dropped_frames_total = value.parse().ok(),
        _ => return false,
    }
    true
}

/// Names of what only some players say of their media.
fn set_media(media: &mut MediaDetail, name: &str, value: &str) -> bool {
    match name {
        "video" => media.bitrate_video_bps = value.parse().ok(),
        "audio" => media.bitrate_audio_bps = value.parse().ok(),
        "top" => media.top_bitrate_bps = value.parse().ok(),
        "playable" => media.top_playable_bitrate_bps = value.parse().ok(),
        "low" => media.low_bitrate_bps = value.parse().ok(),
        "viewport" => media.viewport_height = value.parse().ok(),
        "object" => media.object_duration_ms = Some(ms(value)),
        _ => return false,
    }
    true
}

fn set(event: &mut SessionEvent, name: &str, value: &str) {
    let mut readings = event.readings.clone().unwrap_or_default();
    if set_reading(&mut readings, name, value) {
        event.readings = Some(readings);
        return;
    }
    let mut media = event.detail.media.clone().unwrap_or_default();
    if set_media(&mut media, name, value) {
        event.detail.media = Some(media);
        return;
    }
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
        "state" => detail.state = Some(ReportedState::parse(value).expect("a state")),
        "source" => {
            let known = ["aws_demo", "ivs", "epas", "cmcd1_log", "cmcd2_log", "cmcd2_event"];
            detail.source = known.into_iter().find(|source| *source == value).expect("a dialect");
        }
        "req" => detail.req_bitrate_bps = value.parse().ok(),
        "height" => detail.height = value.parse().ok(),
        "fps" => detail.fps = value.parse().ok(),
        "class" => detail.error_class = ErrorClass::parse(value),
        "ad" => detail.is_ad = value == "true",
        "content" => segments.content_id = Some(value.to_owned()),
        "device" => segments.device.device_type = Some(value.to_owned()),
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

pub fn facts(text: &str, watermark: &str) -> Vec<SessionFacts> {
    let watermark_ms = (watermark != "-").then(|| T0 + ms(watermark));
    let settings = SessionSettings::default();
    derive("key", None, &stored(script(text)), watermark_ms, &settings)
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

/// The value of a column of whole numbers, as `check_columns` names it.
fn column(row: &PlaybackSession, name: &str) -> Option<i64> {
    Some(match name {
        "attempts" => row.attempts,
        "plays" => row.plays,
        "content_plays" => row.content_plays,
        "preloaded" => row.preloaded,
        "startup_ms" => row.startup_ms?,
        "startup_derived_ms" => row.startup_derived_ms?,
        "content_startup_ms" => row.content_startup_ms?,
        "exit_wait_ms" => row.exit_wait_ms?,
        "exits_before_start" => row.exits_before_start,
        "early_exits" => row.early_exits,
        "start_failures" => row.start_failures,
        "playback_failures" => row.playback_failures,
        "fatal_errors" => row.fatal_errors,
        "errors" => row.errors,
        "warnings" => row.warnings,
        "recovered_errors" => row.recovered_errors,
        "playing_ms" => row.playing_ms,
        "media_ms" => row.media_ms,
        "startup_wait_ms" => row.startup_wait_ms,
        "stall_ms" => row.stall_ms,
        "stall_count" => row.stall_count,
        "stall_conn_ms" => row.stall_conn_ms,
        "stall_conn_count" => row.stall_conn_count,
        "stall_ad_ms" => row.stall_ad_ms,
        "stall_decoder_ms" => row.stall_decoder_ms,
        "stall_switch_ms" => row.stall_switch_ms,
        "stall_end_ms" => row.stall_end_ms,
        "stall_max_ms" => row.stall_max_ms,
        "stall_seek_ms" => row.stall_seek_ms,
        "abandoned_in_stall" => row.abandoned_in_stall,
        "seek_wait_ms" => row.seek_wait_ms,
        "seek_count" => row.seek_count,
        "paused_ms" => row.paused_ms,
        "deliberate_pauses" => row.deliberate_pauses,
        "background_ms" => row.background_ms,
        "waiting_ms" => row.waiting_ms,
        "ad_ms" => row.ad_ms,
        "gap_ms" => row.gap_ms,
        "watched_ms" => row.watched_ms,
        "shown_bits" => row.shown_bits,
        "bitrate_known_ms" => row.bitrate_known_ms,
        "shown_wall_bits" => row.shown_wall_bits,
        "bitrate_known_wall_ms" => row.bitrate_known_wall_ms,
        "start_bitrate_bps" => row.start_bitrate_bps?,
        "top_bitrate_bps" => row.top_bitrate_bps?,
        "switches_up" => row.switches_up,
        "switches_down" => row.switches_down,
        "audio_switches" => row.audio_switches,
        "height_px_ms" => row.height_px_ms,
        "height_known_ms" => row.height_known_ms,
        "upscale_ppm_ms" => row.upscale_ppm_ms,
        "upscale_known_ms" => row.upscale_known_ms,
        "dropped_frames" => row.dropped_frames,
        "expected_frames" => row.expected_frames,
        "content_changes" => row.content_changes,
        "covered_ms" => row.covered_ms,
        "duration_ms" => row.duration_ms?,
        "max_playhead_ms" => row.max_playhead_ms?,
        "quartile" => row.quartile?,
        "finished" => row.finished,
        "lost_reports" => row.lost_reports,
        "order_conflicts" => row.order_conflicts,
        "anomalies" => row.anomalies,
        _ => panic!("unknown column {name}"),
    })
}

/// Some columns of the last session of a script: `name=number`, `name=-` for null.
pub fn check_columns(text: &str, watermark: &str, expected: &str) {
    let facts = facts(text, watermark);
    let row = &facts.last().expect("a session").session;
    let describe = |word: &str| {
        let (name, _) = word.split_once('=').expect("name=value");
        let value = column(row, name).map_or("-".to_owned(), |n| n.to_string());
        format!("{name}={value}")
    };
    let found: Vec<String> = expected.split_whitespace().map(describe).collect();
    assert_eq!(
        found.join(" "),
        expected.split_whitespace().collect::<Vec<_>>().join(" "),
        "\n{text}"
    );
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
pub fn check(text: &str, watermark: &str, expected: &[&str]) {
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

pub fn check_pieces(text: &str, watermark: &str, expected: &str) {
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
