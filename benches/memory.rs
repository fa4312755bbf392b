//! Memory of a million open sessions.
//!
//! ```text
//! cargo bench --bench memory            one million sessions, one hour each
//! cargo bench --bench memory -- 100000 10   so many sessions, so many minutes each
//! ```
//! Prints the resident memory that the session engine takes for each open session: a heartbeat every
//! 30 s, every session with a viewer of its own. The goal is 600 bytes (ARCHITECTURE.md, "Memory").

use std::sync::Arc;

use playhead::event::facts::Segments;
use playhead::event::{Device, EventKind, Network};
use playhead::session::{EventDetail, KeyedEvent, Readings, SessionEvent, SessionSettings, Sessions};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const T0_MS: i64 = 1_767_225_600_000;
const HEARTBEAT_MS: i64 = 30_000;
/// Events that the engine is given at once: few, so that what the bench itself needs does not count.
const BATCH: i64 = 5_000;

fn main() {
    let numbers: Vec<i64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sessions = numbers.first().copied().unwrap_or(1_000_000);
    let minutes = numbers.get(1).copied().unwrap_or(60);
    let before = resident_bytes();
    let engine = filled(sessions, minutes);
    let bytes = resident_bytes() - before;
    let open = engine.open_sessions();
    println!(
        "{open} open sessions of {minutes} min, {} events in memory: {} MiB resident, {} bytes a session",
        engine.events_in_memory(),
        bytes >> 20,
        bytes / open.max(1) as i64
    );
}

/// Every session starts, shows its first frame and sends heartbeats until `minutes` have passed. The
/// sessions come one after the other, which the engine does not mind and which saves hours: what it
/// holds in the end is what counts.
fn filled(sessions: i64, minutes: i64) -> Sessions {
    let mut engine = Sessions::new(SessionSettings::default(), 1);
    let steps = 2 + minutes * 60_000 / HEARTBEAT_MS;
    let watermark_ms = T0_MS + (steps - 1) * HEARTBEAT_MS;
    let mut session = 0;
    while session < sessions {
        let last = (session + BATCH / steps).min(sessions).max(session + 1);
        let events = (session..last).flat_map(|session| (0..steps).map(move |step| event(session, step)));
        drop(engine.apply(events.collect(), Some(watermark_ms)));
        session = last;
    }
    engine
}

fn event(session: i64, step: i64) -> KeyedEvent {
    let kind = match step {
        0 => EventKind::PlaybackRequest,
        1 => EventKind::PlaybackStart,
        _ => EventKind::Heartbeat,
    };
    let key = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&session.to_le_bytes()));
    let made = SessionEvent {
        event_id: xxhash_rust::xxh3::xxh3_64(&[session.to_le_bytes(), step.to_le_bytes()].concat()),
        kind,
        event_ts_ms: T0_MS + step * HEARTBEAT_MS + session % 1_000,
        seq: Some(step),
        playhead_ms: Some((step - 1).max(0) * HEARTBEAT_MS),
        readings: Some(Box::new(Readings {
            buffer_ms: Some(10_000 + step * 10),
            ..Readings::default()
        })),
        detail: EventDetail {
            duration_ms: Some(5_400_000),
            bitrate_bps: Some(4_800_000),
            segments: Arc::new(segments(session)),
            ..EventDetail::default()
        },
    };
    KeyedEvent {
        session_key: key,
        event: made,
    }
}

/// A viewer of its own; everything else as a service has it: some titles, apps, devices and ISPs.
fn segments(session: i64) -> Segments {
    let of = |what: &str, count: i64| Some(format!("{what}-{}", session % count));
    Segments {
        user_id: Some(format!("p-{:032x}", xxhash_rust::xxh3::xxh3_128(&(session ^ 0x55).to_le_bytes()))),
        content_id: of("content", 1_000),
        stream_type: Some("vod".to_owned()),
        app_name: of("app", 5),
        app_version: of("5.1", 20),
        player_name: Some("hls.js".to_owned()),
        player_version: of("1.6", 10),
        device: Device {
            device_type: of("device", 6),
            os: of("os", 12),
            browser: of("browser", 15),
            ..Device::default()
        },
        network: Network {
            country: of("C", 40),
            city: of("city", 2_000),
            isp: of("isp", 400),
            asn: Some(session % 400),
            ..Network::default()
        },
        cdn: of("cdn", 3),
        ..Segments::default()
    }
}

/// Resident memory of this process, from Linux; 0 elsewhere.
fn resident_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|kib| kib.parse::<i64>().ok());
    kib.unwrap_or(0) * 1024
}
