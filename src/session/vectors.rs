//! The golden vectors of events and metrics 3.11, and the worked examples of CTA-2066 and CTA-5004-B.
//!
//! Stands beside the rules, in tests only: each vector is one script and the figures that anybody who
//! follows the definitions must find. The sums of M11 are those of gold.

use super::fixtures::{T0, check, check_columns, check_pieces, facts};
use super::rig::{Rig, Tables, keyed};
use crate::event::facts::{PlaybackState, Score};

const M1: &str = "0 playback_request
    2 playback_start
    20 stall_start
    30 stall_end
    40 playback_pause at=28 duration=60
    70 playback_start
    102 playback_finish at=60 duration=60";

fn ratio(part: i64, rest: i64) -> f64 {
    part as f64 / (part + rest) as f64
}

fn assert_near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
}

#[test]
fn m1_a_clip_with_a_stall_and_a_pause() {
    check_columns(
        M1,
        "102",
        "startup_ms=2000 startup_derived_ms=2000 content_startup_ms=2000 playing_ms=60000 stall_ms=10000 stall_count=1 \
         stall_conn_ms=10000 stall_max_ms=10000 watched_ms=72000 quartile=100 covered_ms=60000 deliberate_pauses=1 finished=1",
    );
    let row = &facts(M1, "102")[0].session;
    assert_near(ratio(row.stall_ms, row.playing_ms), 0.142_857, 0.000_001);
    assert_near(row.stall_ms as f64 / row.watched_ms as f64, 0.138_9, 0.000_05);
    let hours = (row.playing_ms + row.stall_ms) as f64 / 3_600_000.0;
    assert_near(row.stall_count as f64 / hours, 51.43, 0.005);
}

#[test]
fn m2_a_stall_over_a_window_boundary() {
    let text = "0 playback_request\n2 playback_start\n55 stall_start\n65 playback_start\n120 heartbeat";
    let facts = facts(text, "120");
    let in_window = |window: i64, state: PlaybackState| -> (i64, i64) {
        let of = facts[0]
            .pieces
            .iter()
            .filter(|p| (p.start_ms - T0) / 60_000 == window && p.state == state);
        of.fold((0, 0), |(ms, starts), p| (ms + p.end_ms - p.start_ms, starts + p.starts))
    };
    let windows = [(0, 53_000, 1, 0.086_207), (1, 55_000, 0, 0.083_333)];
    for (window, playing_ms, count, expected) in windows {
        let (stall_ms, starts) = in_window(window, PlaybackState::Rebuffering);
        assert_eq!(
            (in_window(window, PlaybackState::Playing).0, stall_ms, starts),
            (playing_ms, 5_000, count)
        );
        assert_near(ratio(stall_ms, playing_ms), expected, 0.000_001);
    }
    let lengths: Vec<_> = facts[0].pieces.iter().map(|p| p.stall_length_ms).collect();
    assert_eq!(lengths, [None, None, None, Some(10_000), None]);
}

#[test]
fn m3_buffering_inside_a_seek_and_soon_after() {
    let seek = "0 playback_request\n1 playback_start\n30 seek_start\n31.2 seek_end\n31.2 stall_start seq=9\n33 playback_start";
    check_columns(
        &format!("{seek}\n60 heartbeat"),
        "60",
        "stall_ms=0 stall_seek_ms=0 seek_wait_ms=3000",
    );
    check_columns(
        &format!("{seek}\n33.5 stall_start\n34 stall_end\n60 heartbeat"),
        "60",
        "stall_ms=0 stall_count=0 stall_conn_ms=0 stall_seek_ms=500 seek_wait_ms=3000 stall_max_ms=0",
    );
}

#[test]
fn m4_exits_before_start() {
    let quit = |at: &str| format!("0 playback_request\n{at} session_end reason=user_quit");
    check_columns(&quit("3.2"), "-", "exits_before_start=1 exit_wait_ms=3200 early_exits=0");
    check_columns(&quit("0.6"), "-", "exits_before_start=1 exit_wait_ms=600 early_exits=1");
}

#[test]
fn m5_a_fatal_error_at_the_start() {
    let fatal = "0 playback_request\n4 playback_error fatal=true class=technical";
    check_columns(fatal, "15", "start_failures=1 plays=0 fatal_errors=1");
    let class = facts(fatal, "15")[0].session.error_class;
    assert_eq!(class.map(|class| class.as_str()), Some("technical"));
    check_columns(
        &format!("{fatal}\n6 playback_start"),
        "15",
        "plays=1 startup_ms=6000 recovered_errors=1 fatal_errors=0",
    );
}

#[test]
fn m6_silence_is_counted_as_concurrent_for_a_heartbeat_and_a_half() {
    let text = "0 playback_request\n1 playback_start\n30 heartbeat\n60 heartbeat";
    check_columns(text, "150.001", "playing_ms=59000 watched_ms=60000");
    check_pieces(text, "150", "starting 0-1, playing 1-60");
    check_pieces(text, "150.001", "starting 0-1, playing 1-60, silent 60-105");
    let paused = "0 playback_request\n1 playback_start\n30 playback_pause";
    check_pieces(paused, "2000", "starting 0-1, playing 1-30");
    check_columns(paused, "2000", "paused_ms=0 deliberate_pauses=1");
    let hidden = "0 playback_start\n30 heartbeat background=true";
    check_pieces(hidden, "2000", "playing 0-30");
}

#[test]
fn m7_a_stall_that_ends_in_silence() {
    let text = "0 playback_start\n60 stall_start";
    check_columns(text, "151", "stall_ms=30000 abandoned_in_stall=1");
    check_pieces(text, "151", "playing 0-60, rebuffering 60-90, silent 90-105");
    let row = &facts(text, "151")[0].session;
    assert!(row.dq_flags.contains(&"stall_open_end"));
}

#[test]
fn m8_a_pair_whose_times_contradict_its_numbers() {
    let text = "100 playback_start seq=1\n150.889 stall_start seq=2\n150.112 playback_start seq=3 stall=1.5\n180 heartbeat seq=4";
    check_columns(
        text,
        "-",
        "stall_ms=1500 stall_count=1 order_conflicts=1 lost_reports=0 playing_ms=78500",
    );
    check_pieces(text, "-", "playing 100-149.389, rebuffering 149.389-150.889, playing 150.889-180");
    let row = &facts(text, "-")[0].session;
    assert_eq!(row.dq_flags, ["inferred_request", "ts_order_conflict"]);
}

#[test]
fn m9_bitrate_is_weighted_by_media_time_and_by_wall_time() {
    let text = "0 playback_request
        0.1 playback_start bps=1000000
        10.1 rendition_update bps=3000000
        40.1 playback_pause
        60.1 playback_start rate=2
        80.1 playback_finish";
    let row = &facts(text, "-")[0].session;
    assert_eq!(row.shown_bits / row.bitrate_known_ms, 2_750);
    assert_near(row.shown_wall_bits as f64 / row.bitrate_known_wall_ms as f64, 2_666.67, 0.005);
    check_columns(text, "-", "switches_up=1 switches_down=0 start_bitrate_bps=1000000 media_ms=80000");
}

#[test]
fn m10_counters_survive_lost_reports() {
    let text = "0 playback_request\n2 playback_start\n30 stall_end stall=1.2\n90 playback_finish bsa=3 bsda=4.15";
    check_columns(text, "-", "stall_ms=4150 stall_count=3 playing_ms=83850");
    assert_eq!(facts(text, "-")[0].session.dq_flags, ["counter_reconciled"]);
}

#[test]
fn m12_the_score_and_its_losses() {
    let text = "0 playback_request\n4 playback_start\n34 stall_end stall=0.5\n44 stall_end stall=0.5\n54 playback_finish";
    let row = &facts(text, "-")[0].session;
    assert_eq!((row.startup_ms, row.stall_conn_ms, row.playing_ms), (Some(4_000), 1_000, 49_000));
    let score: Score = row.score.expect("a session that played has a score");
    assert_near(score.score, 76.91, 0.005);
    assert_near(score.loss_startup, 10.51, 0.005);
    assert_near(score.loss_stall_time, 9.02, 0.005);
    assert_near(score.loss_interruptions, 3.55, 0.005);
}

#[test]
fn m13_the_pause_before_the_end_is_not_deliberate() {
    let text = "590.2 heartbeat at=590.2 duration=596.48\n595.2 playback_pause at=595.2\n595.205 playback_finish";
    check_columns(text, "-", "deliberate_pauses=0 finished=1");
    let pauses = |text: &str| {
        let facts = facts(&format!("0 playback_start\n{text}\n90 session_end"), "-");
        facts[0].session.deliberate_pauses
    };
    assert_eq!(pauses("10 playback_pause\n10.9 playback_start"), 0);
    assert_eq!(pauses("10 playback_pause\n11 playback_start"), 1);
    assert_eq!(pauses("10 playback_pause\n10.2 seek_start\n14 seek_end\n14.1 playback_start"), 0);
    assert_eq!(pauses("10 playback_pause\n14 seek_end seek=3.8\n14.1 playback_start"), 0);
    assert_eq!(pauses("10 playback_pause\n20 seek_end seek=3.8\n20.1 playback_start"), 1);
    assert_eq!(pauses("89 playback_pause"), 1);
}

#[test]
fn m14_the_background_takes_the_time_and_the_gap() {
    let background = "0 playback_start\n100 heartbeat background=true\n130 heartbeat\n380 heartbeat\n\
                      400 heartbeat background=false\n410 session_end";
    check_columns(background, "-", "background_ms=300000 gap_ms=0 stall_ms=0 playing_ms=110000");
    let told = "0 playback_start\n100 background_change background=true\n150 heartbeat\n400 background_change\n410 session_end";
    check_columns(told, "-", "background_ms=300000 gap_ms=0 playing_ms=110000");
    let untold = "0 playback_start\n100 background_change background=true\n150 heartbeat\n400 heartbeat background=false\n410 session_end";
    check_columns(untold, "-", "background_ms=50000 gap_ms=250000 stall_ms=0 playing_ms=110000");
    let stalled = "0 playback_start\n100 heartbeat background=true\n110 stall_start\n180 stall_end\n200 heartbeat background=false";
    check_columns(stalled, "-", "background_ms=100000 stall_ms=0 playing_ms=100000");
}

#[test]
fn m15_m1_shuffled_doubled_and_a_day_late() {
    let expected = Tables::of(&keyed("k", M1), Some(T0 + 83_000_000));
    assert_eq!(expected.sessions.len(), 1);
    let mut events = keyed("k", M1);
    let last = events.pop().expect("M1 has a last event");
    let mut rig = Rig::new(1);
    for step in 0..events.len() {
        let event = events[step * 5 % events.len()].clone();
        rig.deliver(vec![event.clone(), event], Some(T0 + 40_000));
    }
    rig.deliver(Vec::new(), Some(T0 + 83_000_000));
    rig.deliver(vec![last.clone(), last], None);
    assert_eq!(rig.tables, expected);
    check_columns(M1, "83000", "playing_ms=60000 stall_ms=10000 watched_ms=72000 finished=1");
}

/// CTA-2066, in prose: a clip of 60 s with a stall of 10 s and a pause of 30 s was watched for 70 s;
/// at half the speed, a clip of 60 s was watched for 120 s.
#[test]
fn cta_2066_watched_time() {
    let clip = "0 playback_request\n0 playback_start seq=1\n20 stall_start\n30 stall_end\n40 playback_pause\n70 playback_request\n\
                70 playback_start seq=1\n100 playback_finish";
    check_columns(clip, "-", "watched_ms=70000 playing_ms=60000");
    let slow = "0 playback_request\n0 playback_start seq=1 rate=0.5\n120 playback_finish";
    check_columns(slow, "-", "watched_ms=120000 playing_ms=120000 media_ms=60000");
}

/// CTA-5004-B, 8.2.2: five reports of a session, and heartbeats every 30 s in state `e` after them.
#[test]
fn cta_5004_b_8_2_2() {
    let five = "0 playback_request state=starting seq=0 sid=a
        0.812 playback_start state=playing startup=0.812 seq=1 sid=a
        20 stall_start state=rebuffering seq=2 sid=a
        20.72 playback_start state=playing stall=0.72 seq=3 sid=a
        25 playback_finish state=ended seq=4 sid=a";
    let figures = "startup_ms=812 stall_ms=720 stall_count=1 finished=1 playing_ms=23468 watched_ms=25000 lost_reports=0";
    check_columns(five, "-", figures);
    let later = "30 heartbeat state=ended seq=5 sid=a\n60 heartbeat state=ended seq=6 sid=a";
    check_columns(&format!("{five}\n{later}"), "-", figures);
    let by_state = five.replace("25 playback_finish", "25 heartbeat");
    check_columns(&format!("{by_state}\n{later}"), "-", figures);
}

#[test]
fn requests_of_a_log_are_waited_for_by_the_buffer() {
    let open = |text: &str, watermark: &str| facts(text, watermark)[0].session.is_open;
    let logged = "0 heartbeat source=cmcd1_log at=1 buffer=40 object=6";
    assert!(open(logged, "60"));
    assert!(!open(logged, "60.001"));
    let long = "0 heartbeat source=cmcd1_log at=1 buffer=60 object=6";
    assert!(open(long, "72"));
    assert!(!open(long, "72.001"));
    assert!(open(&format!("{long}\n0 heartbeat source=cmcd2_event at=1"), "90"));
}

#[test]
fn the_heartbeat_interval_is_that_of_the_first_nine_gaps() {
    let mut text = "0 playback_start\n".to_owned();
    for n in 0..=9 {
        text += &format!("{} heartbeat\n", 10 + n * 40);
    }
    text += "371 heartbeat\n372 heartbeat\n373 heartbeat\n";
    let silence = |watermark: &str| facts(&text, watermark)[0].session.is_open;
    assert!(silence("493"), "three times 40 s after 373 s");
    assert!(!silence("493.001"));
}

#[test]
fn what_is_shown_is_weighed_by_its_time() {
    let text = "0 playback_start video=3000 audio=100 top=4000 low=1000 height=720 viewport=1080 fps=25
        10 heartbeat video=1000 audio=200 dropped=5
        20 heartbeat height=1080 dropped=9
        30 session_end";
    check_columns(
        text,
        "-",
        "shown_bits=55000 bitrate_known_ms=30000 switches_up=0 switches_down=1 audio_switches=1 top_bitrate_bps=4000 \
         height_px_ms=25200000 height_known_ms=30000 upscale_ppm_ms=10000000000 upscale_known_ms=30000 dropped_frames=9 \
         expected_frames=750",
    );
    let row = &facts(text, "-")[0].session;
    let quality = |bps: f64| (bps / 1_000.0).ln() / 4.0_f64.ln();
    let expected = (quality(3_100.0) + 2.0 * quality(1_200.0)) / 3.0;
    assert_near(row.picture_quality.expect("the ladder is known"), expected, 0.000_001);
    assert_eq!(row.bitrate_basis, Some("shown"));
}

#[test]
fn requested_bitrates_stand_in_where_none_is_shown() {
    let basis = |text: &str| facts(text, "-")[0].session.bitrate_basis;
    let requested = "0 playback_start req=1000\n10 heartbeat req=2000\n20 session_end";
    check_columns(requested, "-", "shown_bits=30000 switches_up=1 start_bitrate_bps=1000");
    assert_eq!(basis(requested), Some("requested"));
    let shown = "0 playback_start\n5 rendition_update req=9000\n10 heartbeat bps=2000\n20 session_end";
    check_columns(shown, "-", "shown_bits=20000 bitrate_known_ms=10000 switches_up=0");
    assert_eq!(basis(shown), Some("shown"));
    let late = "0 playback_start req=1000\n1500 heartbeat\n1801 heartbeat bps=2000\n1900 session_end";
    assert_eq!(basis(late), Some("requested"));
    assert_eq!(basis("0 playback_start\n5 session_end"), None);
}

#[test]
fn m1_as_a_row() {
    check(
        "0 playback_request
         2 playback_start
         20 stall_start
         30 stall_end
         40 playback_pause at=28 duration=60
         70 playback_start
         102 playback_finish at=60 duration=60",
        "102",
        &["attempts=1 plays=1 startup_ms=2000 playing_ms=60000 startup_wait_ms=2000 \
           stall_ms=10000 stall_count=1 paused_ms=30000 quartile=100 finished=1 finished"],
    );
}

#[test]
fn m3_as_rows() {
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
    check(&format!("{seek}\n33.5 stall_start\n34 stall_end\n60 heartbeat"), "60", &[after]);
    check(&format!("{seek}\n34 stall_end stall=0.5\n60 heartbeat"), "60", &[after]);
}

#[test]
fn m4_as_rows() {
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
fn m13_as_a_row() {
    check(
        "590.2 heartbeat at=590.2 duration=596.48\n595.2 playback_pause at=595.2\n595.205 playback_finish",
        "-",
        &["attempts=1 plays=1 playing_ms=5000 paused_ms=5 quartile=100 finished=1 \
           finished inferred_frame inferred_request"],
    );
}

#[test]
fn m14_as_a_row() {
    check(
        "0 playback_start\n100 heartbeat background=true\n130 heartbeat\n380 heartbeat\n\
         400 heartbeat background=false\n410 session_end",
        "-",
        &["attempts=1 plays=1 playing_ms=110000 background_ms=300000 user_quit inferred_request"],
    );
}
