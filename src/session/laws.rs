//! Laws: what holds for every set of events, however it is delivered.
//!
//! Stands beside the rules, in tests only. The generator knows every kind of event and every field; what
//! it makes is mostly nonsense, and must still give rows that add up and do not depend on delivery.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::fixtures::T0;
use super::pieces::Piece;
use super::rig::{Rig, Tables};
use super::row::{add_piece, blank_row};
use super::screen::Played;
use super::{EventDetail, KeyedEvent, MediaDetail, Readings, SessionEvent};
use crate::event::facts::{Outcome, PlaybackInterval, PlaybackSession, PlaybackState, Segments};
use crate::event::{ErrorClass, EventKind, ReportedState};

fn any_length_ms() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        3 => Just(None),
        4 => (0..20_000i64).prop_map(Some),
        1 => prop_oneof![Just(Some(-5)), Just(Some(T0))],
    ]
}

/// Mostly crowded into minutes, sometimes hours away, so that every boundary is crossed.
fn any_time_ms() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0..180_000i64,
        2 => 0..7_200_000i64,
        1 => (0..200i64).prop_map(|half_hours| half_hours * 1_800_000),
    ]
}

/// Everything that a report may carry besides what `any_detail` gives.
fn any_readings() -> impl Strategy<Value = Option<Box<Readings>>> {
    let small = || proptest::option::weighted(0.4, -1..9_000i64);
    let counts = || proptest::option::weighted(0.4, prop_oneof![0..6i64, -1..90_000i64]);
    let readings = (small(), small(), small(), small(), counts(), counts(), counts(), counts());
    let readings = readings.prop_map(|(buffer_ms, buffer_video_ms, buffer_audio_ms, played_ms, a, b, c, d)| {
        Some(Box::new(Readings {
            buffer_ms,
            buffer_video_ms,
            buffer_audio_ms,
            played_ms,
            stall_count: a,
            stall_count_total: b,
            stall_total_ms: c,
            dropped_frames_total: d,
        }))
    });
    prop_oneof![1 => Just(None), 1 => readings]
}

fn any_picture() -> impl Strategy<Value = EventDetail> {
    let bitrate = || proptest::option::weighted(0.3, prop_oneof![8 => 1..8_000_000i64, 1 => Just(300_000_000), 1 => Just(-1)]);
    let size = || proptest::option::weighted(0.2, prop_oneof![Just(720), Just(1_080), Just(0), Just(99_999)]);
    let rates = (proptest::option::of(0.0..3.0f64), proptest::option::weighted(0.3, 0.0..70.0f64));
    let bitrates = (bitrate(), bitrate(), bitrate(), bitrate(), bitrate(), bitrate(), bitrate());
    (bitrates, rates, (size(), size())).prop_map(|(bitrates, (playback_rate, fps), (height, viewport_height))| EventDetail {
        bitrate_bps: bitrates.0,
        req_bitrate_bps: bitrates.3,
        media: bitrates.1.or(bitrates.4).map(|_| {
            Box::new(MediaDetail {
                bitrate_video_bps: bitrates.1,
                bitrate_audio_bps: bitrates.2,
                top_bitrate_bps: bitrates.4,
                top_playable_bitrate_bps: bitrates.5,
                low_bitrate_bps: bitrates.6,
                viewport_height,
                object_duration_ms: viewport_height.map(|px| px * 10),
            })
        }),
        playback_rate,
        fps,
        height,
        ..EventDetail::default()
    })
}

fn any_detail() -> impl Strategy<Value = EventDetail> {
    let lengths = (any_length_ms(), any_length_ms(), any_length_ms());
    let states = proptest::option::weighted(0.4, 0..ReportedState::ALL.len());
    let errors = (
        proptest::option::weighted(0.3, any::<bool>()),
        proptest::option::weighted(0.2, 0..3u8),
        proptest::option::weighted(0.2, 0..ErrorClass::ALL.len()),
        proptest::option::weighted(0.2, 0..4usize),
    );
    let rest = (
        proptest::option::weighted(0.1, any::<bool>()),
        proptest::bool::weighted(0.1),
        0..4usize,
    );
    (any_picture(), lengths, states, errors, rest).prop_map(|(picture, lengths, state, errors, (background, is_ad, source))| EventDetail {
        source: ["cmcd2_event", "cmcd2_log", "aws_demo", "epas"][source],
        state: state.map(|at| ReportedState::ALL[at]),
        duration_ms: Some(600_000),
        stall_ms: lengths.0,
        startup_ms: lengths.1,
        seek_ms: lengths.2,
        error_fatal: errors.0,
        error_code: errors.1.map(|code| code.to_string()),
        error_class: errors.2.map(|at| ErrorClass::ALL[at]),
        end_reason: errors.3.map(|at| ["finished", "user_quit", "error", "unknown"][at]),
        background,
        is_ad,
        ..picture
    })
}

pub fn any_event() -> impl Strategy<Value = KeyedEvent> {
    let place = (0..4usize, any_time_ms(), 0..EventKind::ALL.len(), any::<u64>());
    let numbers = (proptest::option::of(0..600_000i64), proptest::option::weighted(0.5, 0..6i64));
    (place, numbers, any_detail(), any_readings()).prop_map(|((key, time_ms, kind, id), (playhead_ms, seq), detail, readings)| {
        // The last two keys have native ids; one of them has two, as no sender should.
        let native = match key {
            2 => Some("native".to_owned()),
            3 => (id % 3 != 0).then(|| format!("native-{}", id % 2)),
            _ => None,
        };
        let segments = Segments {
            content_id: (id % 4 == 0).then(|| format!("content-{}", id % 3)),
            connection_type: (id % 5 == 0).then(|| format!("net-{}", id % 3)),
            ..Segments::default()
        };
        // EPAS positions and lengths are in either unit, and both are taken for seconds.
        let times = if detail.source == "epas" && id % 7 < 3 { 1_000 } else { 1 };
        KeyedEvent {
            session_key: format!("key-{key}"),
            event: SessionEvent {
                event_id: id,
                kind: EventKind::ALL[kind],
                event_ts_ms: T0 + time_ms,
                seq,
                playhead_ms: playhead_ms.map(|ms| if ms < 200_000 { 0 } else { ms * times }),
                readings,
                detail: EventDetail {
                    native_session_id: native,
                    segments: Arc::new(segments),
                    duration_ms: detail.duration_ms.map(|ms| ms * times),
                    ..detail
                },
            },
        }
    })
}

pub fn check_rows(tables: &Tables) {
    let mut sums: BTreeMap<(&str, i64), PlaybackSession> = BTreeMap::new();
    let mut last: Option<&PlaybackInterval> = None;
    for row in tables.intervals.values() {
        assert!(row.start_ms < row.end_ms, "empty {row:?}");
        assert_eq!(row.start_ms.div_euclid(60_000), (row.end_ms - 1).div_euclid(60_000));
        if let Some(last) = last.filter(|last| last.session_id == row.session_id) {
            assert!(last.end_ms <= row.start_ms, "overlap {last:?} {row:?}");
        }
        let mut starts = tables.sessions.keys().rev();
        let owner = starts.find(|(id, at_ms)| *id == row.session_id && *at_ms <= row.start_ms);
        let (id, at_ms) = owner.expect("an interval belongs to a session");
        add_interval(sums.entry((id, *at_ms)).or_insert_with(|| blank_row(*at_ms)), row);
        last = Some(row);
    }
    for ((id, at_ms), row) in &tables.sessions {
        let sum = sums.remove(&(id.as_str(), *at_ms)).unwrap_or_else(|| blank_row(*at_ms));
        assert_eq!(totals(row), totals(&sum), "totals are the sums of intervals: {row:?}");
        check_session(row);
    }
}

fn add_interval(sum: &mut PlaybackSession, row: &PlaybackInterval) {
    assert_eq!(row.cause.is_some(), row.state == PlaybackState::Rebuffering, "{row:?}");
    assert!(row.state == PlaybackState::Rebuffering || row.stall_length_ms.is_none() && !row.is_provisional);
    let piece = Piece {
        start_ms: row.start_ms,
        end_ms: row.end_ms,
        state: row.state,
        cause: row.cause,
        starts: row.starts,
        stall_length_ms: row.stall_length_ms,
        is_provisional: row.is_provisional,
        played: Played {
            media_ms: row.media_ms,
            shown_bits: row.shown_bits,
            bitrate_known_ms: row.bitrate_known_ms,
            shown_wall_bits: row.shown_wall_bits,
            bitrate_known_wall_ms: row.bitrate_known_wall_ms,
            height_px_ms: row.height_px_ms,
            height_known_ms: row.height_known_ms,
            switches_up: row.switches_up,
            switches_down: row.switches_down,
        },
    };
    add_piece(sum, &piece);
}

/// Every column that is a sum of pieces.
fn totals(row: &PlaybackSession) -> [i64; 27] {
    [
        row.playing_ms,
        row.startup_wait_ms,
        row.stall_ms,
        row.stall_count,
        row.stall_conn_ms,
        row.stall_conn_count,
        row.stall_ad_ms,
        row.stall_decoder_ms,
        row.stall_switch_ms,
        row.stall_end_ms,
        row.stall_seek_ms,
        row.seek_wait_ms,
        row.seek_count,
        row.paused_ms,
        row.background_ms,
        row.waiting_ms,
        row.ad_ms,
        row.gap_ms,
        row.media_ms,
        row.shown_bits,
        row.bitrate_known_ms,
        row.shown_wall_bits,
        row.bitrate_known_wall_ms,
        row.height_px_ms,
        row.height_known_ms,
        row.switches_up,
        row.switches_down,
    ]
}

fn check_session(row: &PlaybackSession) {
    let watched_or_not_ms =
        row.playing_ms + row.startup_wait_ms + row.stall_ms + row.stall_seek_ms + row.seek_wait_ms + row.waiting_ms + row.ad_ms;
    let total_ms = watched_or_not_ms + row.paused_ms + row.background_ms + row.gap_ms;
    let wall_ms = row.ended_at_ms - row.started_at_ms;
    assert!(total_ms <= wall_ms && row.watched_ms <= wall_ms, "{row:?}");
    let classes_ms = row.stall_ad_ms + row.stall_decoder_ms + row.stall_switch_ms + row.stall_end_ms;
    assert_eq!(row.stall_ms, row.stall_conn_ms + classes_ms);
    assert!(
        row.stall_max_ms <= row.stall_ms && row.stall_conn_count <= row.stall_count,
        "{row:?}"
    );
    assert!(row.bitrate_known_ms <= row.media_ms && row.bitrate_known_wall_ms <= row.playing_ms);
    assert!(row.covered_ms <= row.duration_ms.unwrap_or(i64::MAX), "{row:?}");
    assert!(row.content_plays <= row.plays && row.early_exits <= row.exits_before_start);
    assert!(row.picture_quality.is_none_or(|quality| (0.0..=1.0).contains(&quality)));
    assert!(
        row.lost_reports >= 0 && row.dropped_frames >= 0 && row.warnings <= row.errors,
        "{row:?}"
    );
    assert_eq!(row.fatal_errors == 1, row.error_class.is_some(), "{row:?}");
    let open = i64::from(row.attempts == 1 && row.outcome == Outcome::Open);
    assert_eq!(row.attempts, row.plays + row.exits_before_start + row.start_failures + open);
    assert!(open == 0 || row.is_open, "{row:?}");
    assert_eq!(row.attempts == 0, row.outcome == Outcome::NoAttempt, "{row:?}");
    assert_eq!(row.is_open, row.end_reason.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn order_batching_and_repetition_do_not_matter(
        events in proptest::collection::vec(any_event(), 1..60),
        shuffled_by in any::<u64>(),
        batch in 1..12usize,
        watermark_s in 0..8_000i64,
    ) {
        let watermark_ms = Some(T0 + watermark_s * 1_000);
        let expected = Tables::of(&events, watermark_ms);
        check_rows(&expected);

        let mut delivered = [events.clone(), events].concat();
        delivered.sort_by_key(|keyed| {
            xxhash_rust::xxh3::xxh3_64_with_seed(&keyed.event.event_id.to_le_bytes(), shuffled_by)
        });
        let mut rig = Rig::new(2);
        for part in delivered.chunks(batch) {
            rig.deliver(part.to_vec(), None);
        }
        rig.deliver(Vec::new(), watermark_ms);
        prop_assert_eq!(rig.tables, expected);
    }

    #[test]
    fn late_events_and_restarts_do_not_matter(
        events in proptest::collection::vec(any_event(), 1..60),
        watermarks_s in proptest::collection::vec(0..20_000i64, 60),
        restart_at in 0..60usize,
    ) {
        let mut rig = Rig::new(2);
        let mut newest = None;
        for (index, keyed) in events.iter().enumerate() {
            newest = newest.max(Some(T0 + watermarks_s[index] * 1_000));
            rig.deliver(vec![keyed.clone()], newest);
            if let (true, Some(watermark_ms)) = (index == restart_at, newest) {
                rig.restart(watermark_ms);
            }
            prop_assert_eq!(&rig.tables, &Tables::of(&events[..=index], newest));
        }
        check_rows(&rig.tables);
    }
}
