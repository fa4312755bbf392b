//! What the experience score is worth: its rank correlation with the opinions of people.
//!
//! Reads 30 sessions of the Waterloo Streaming QoE Database IV, which stand outside the repository.
//! The figure is whatever it is; `docs/metrics.md` must state the same one.

use std::path::{Path, PathBuf};

use playhead::session::score::{ScoreInput, ScoreParams, score};
use serde_json::Value;

const SESSIONS: usize = 30;

/// One session: what we say and what people said.
#[derive(Debug, Clone)]
struct Rated {
    device: String,
    score: f64,
    opinion: f64,
}

/// Correlations over some sessions.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    pub sessions: usize,
    pub spearman: f64,
    pub pearson: f64,
}

/// Over all sessions and by device; `None` without the fixtures.
pub fn correlations() -> Option<(Check, Vec<(String, Check)>)> {
    let sessions = rated_sessions(&fixtures()?);
    let mut devices: Vec<String> = sessions.iter().map(|session| session.device.clone()).collect();
    devices.sort();
    devices.dedup();
    let by_device = devices.into_iter().map(|device| {
        let of_device: Vec<Rated> = sessions.iter().filter(|session| session.device == device).cloned().collect();
        (device, check(&of_device))
    });
    Some((check(&sessions), by_device.collect()))
}

#[test]
fn the_manual_states_how_the_score_agrees_with_people() {
    let Some((all, by_device)) = correlations() else {
        println!("skipped: no fixtures; set PLAYHEAD_FIXTURES");
        return;
    };
    println!("{all:?}");
    for (device, check) in &by_device {
        println!("{device}: {check:?}");
    }
    for check in by_device.iter().map(|(_, check)| check).chain([&all]) {
        let is_correlation = |value: f64| (-1.0..=1.0).contains(&value);
        assert!(is_correlation(check.spearman) && is_correlation(check.pearson), "{check:?}");
    }
    assert_eq!(all.sessions, SESSIONS);
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let manual = std::fs::read_to_string(manual).expect("docs/metrics.md is there");
    let stated = format!("Spearman's rank correlation: {:.2} over {SESSIONS} sessions", all.spearman);
    assert!(manual.contains(&stated), "docs/metrics.md does not say {stated:?}");
}

#[test]
fn rank_correlation_is_that_of_the_textbook() {
    let rated = |pairs: &[(f64, f64)]| -> Vec<Rated> {
        let rated = |(score, opinion): &(f64, f64)| Rated {
            device: String::new(),
            score: *score,
            opinion: *opinion,
        };
        pairs.iter().map(rated).collect()
    };
    let spearman = |pairs: &[(f64, f64)]| check(&rated(pairs)).spearman;
    assert!((spearman(&[(1.0, 10.0), (2.0, 100.0), (3.0, 1000.0)]) - 1.0).abs() < 1e-12);
    assert!((spearman(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]) + 1.0).abs() < 1e-12);
    // 1 - 6 (0 + 1 + 1 + 0) / (4 x 15)
    assert!((spearman(&[(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 4.0)]) - 0.8).abs() < 1e-12);
    // Ties share their mean rank: 1.5, 1.5, 3 against 1, 2, 3.
    assert!((spearman(&[(5.0, 1.0), (5.0, 2.0), (6.0, 3.0)]) - 0.75_f64.sqrt()).abs() < 1e-12);
}

fn fixtures() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures").into_os_string();
    #[allow(clippy::disallowed_methods, reason = "a test has no settings file")]
    let folder = PathBuf::from(std::env::var_os("PLAYHEAD_FIXTURES").unwrap_or_else(beside));
    let folder = folder.join("qoe-sessions/waterloo-iv");
    folder.is_dir().then_some(folder)
}

fn rated_sessions(folder: &Path) -> Vec<Rated> {
    let expected = std::fs::read_to_string(folder.join("expected-sessions.jsonl")).expect("the sessions can be read");
    let sessions: Vec<(Value, Vec<Chunk>)> = expected
        .lines()
        .map(|line| {
            let session: Value = serde_json::from_str(line).expect("a session is JSON");
            let log = folder.join("streaming_logs").join(format!("{}.csv", text(&session, "session")));
            let log = std::fs::read_to_string(log).expect("each session has a log");
            (session, chunks(&log))
        })
        .collect();
    sessions.iter().map(|(session, chunks)| rate(session, chunks, &sessions)).collect()
}

fn rate(session: &Value, chunks: &[Chunk], all: &[(Value, Vec<Chunk>)]) -> Rated {
    let profile = text(session, "encoding_profile");
    let of_profile = all.iter().filter(|(other, _)| text(other, "encoding_profile") == profile);
    let bitrates: Vec<f64> = of_profile.flat_map(|(_, chunks)| chunks).map(|chunk| chunk.kbps).collect();
    let lowest = bitrates.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = bitrates.iter().copied().fold(0.0, f64::max);
    let seconds: f64 = chunks.iter().map(|chunk| chunk.seconds).sum();
    let quality = chunks
        .iter()
        .map(|chunk| (chunk.kbps / lowest).ln() / (highest / lowest).ln() * chunk.seconds);
    let changes = chunks.windows(2).filter(|pair| pair[0].rendition != pair[1].rendition).count();
    assert_eq!(changes as f64, number(session, "bitrate_switches"), "{session}");
    let down = chunks.windows(2).filter(|pair| pair[0].rendition > pair[1].rendition).count();
    let ms = |name: &str| (number(session, name) * 1_000.0).round() as i64;
    let (startup_ms, stall_ms) = (ms("first_chunk_rebuffer_seconds"), ms("stall_seconds_after_first_chunk"));
    let input = ScoreInput {
        played: true,
        known_ms: startup_ms + stall_ms + ms("play_seconds"),
        startup_ms: Some(startup_ms),
        playing_ms: ms("play_seconds"),
        stall_conn_ms: stall_ms,
        stall_conn_count: number(session, "stall_count_after_first_chunk") as i64,
        picture_quality: Some(quality.sum::<f64>() / seconds),
        switches_down: down as i64,
        avg_bitrate_bps: Some(ms("time_weighted_bitrate_kbps")),
        ..ScoreInput::default()
    };
    Rated {
        device: text(session, "device").to_owned(),
        score: score(&input, &ScoreParams::default()).expect("each session played").score,
        opinion: number(session, "mos"),
    }
}

/// One segment as it was played.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    rendition: i64,
    kbps: f64,
    seconds: f64,
}

fn chunks(log: &str) -> Vec<Chunk> {
    let mut lines = log.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().expect("a log has a header");
    let place = |name: &str| names.iter().position(|column| *column == name).expect("the column is there");
    let places = ["representation_index", "video_bitrate", "chunk_duration"].map(place);
    lines
        .map(|fields| {
            let [rendition, kbps, seconds] = places.map(|place| fields[place].parse::<f64>().expect("a number"));
            Chunk {
                rendition: rendition as i64,
                kbps,
                seconds,
            }
        })
        .collect()
}

fn text<'a>(session: &'a Value, name: &str) -> &'a str {
    session[name].as_str().expect("the field is text")
}

fn number(session: &Value, name: &str) -> f64 {
    session[name].as_f64().expect("the field is a number")
}

fn check(sessions: &[Rated]) -> Check {
    let scores: Vec<f64> = sessions.iter().map(|session| session.score).collect();
    let opinions: Vec<f64> = sessions.iter().map(|session| session.opinion).collect();
    Check {
        sessions: sessions.len(),
        spearman: pearson(&ranks(&scores), &ranks(&opinions)),
        pearson: pearson(&scores, &opinions),
    }
}

/// Rank of each value, equal ones sharing the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        below as f64 + (equal as f64 + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

fn pearson(left: &[f64], right: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (left_mean, right_mean) = (mean(left), mean(right));
    let covariance: f64 = left.iter().zip(right).map(|(a, b)| (a - left_mean) * (b - right_mean)).sum();
    let spread = |values: &[f64], mean: f64| values.iter().map(|value| (value - mean).powi(2)).sum::<f64>().sqrt();
    covariance / (spread(left, left_mean) * spread(right, right_mean))
}
