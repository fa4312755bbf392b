//! The walk of an event without the lake: bytes to `PlayerEvent`, and on to the session engine.
//!
//! ```text
//! cargo bench --bench walk
//! ```
//! The goal is 200,000 CMCD or reference events a second and core through both (ARCHITECTURE.md,
//! "Speed"). Nothing here is a test: a bench says how fast, and never fails for being slow.

use divan::Bencher;
use divan::counter::ItemsCount;
use playhead::enrich::network::NetworkDatabases;
use playhead::enrich::{Enricher, EnrichmentFiles};
use playhead::event::PlayerEvent;
use playhead::event::decode::{DecodeContext, Decoded, Decoder, Format};
use playhead::session::{KeyedEvent, SessionSettings, Sessions};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// 2026-01-01T00:00:00Z.
const T0_MS: i64 = 1_767_225_600_000;
const SESSIONS: usize = 2_000;
/// Heartbeats of a session, one every 10 s.
const HEARTBEATS: usize = 50;
/// Records between two watermarks, as an epoch of the daemon has them.
const BATCH: usize = 10_000;

fn main() {
    divan::main();
}

#[divan::bench]
fn cmcd_decode(bencher: Bencher) {
    decode(bencher, Format::Cmcd, &cmcd_lines());
}

#[divan::bench]
fn reference_decode(bencher: Bencher) {
    decode(bencher, Format::Reference, &reference_lines());
}

#[divan::bench]
fn cmcd_decode_and_sessions(bencher: Bencher) {
    decode_and_sessions(bencher, Format::Cmcd, &cmcd_lines());
}

#[divan::bench]
fn reference_decode_and_sessions(bencher: Bencher) {
    decode_and_sessions(bencher, Format::Reference, &reference_lines());
}

/// The goal is 300,000 rows a second and core.
#[divan::bench]
fn cloudfront_decode_and_enrich(bencher: Bencher) {
    let lines = cloudfront_lines();
    let enricher = enricher();
    let context = DecodeContext {
        now_ms: T0_MS + 86_400_000,
    };
    bencher.counter(ItemsCount::new(lines.len())).bench_local(|| {
        let mut decoder = Decoder::with_fields(Format::CloudFrontV1, Some(CLOUDFRONT_FIELDS));
        let requests = lines
            .iter()
            .filter_map(|line| match decoder.decode(line.as_bytes(), &context).ok()? {
                Decoded::Cdn(mut request) => {
                    enricher.enrich_request(&mut request);
                    Some(request)
                }
                _ => None,
            });
        requests.count()
    });
}

fn decode(bencher: Bencher, format: Format, lines: &[String]) {
    bencher.counter(ItemsCount::new(lines.len())).bench_local(|| {
        let mut decoder = Decoder::new(format);
        lines.iter().filter_map(|line| event(&mut decoder, line)).count()
    });
}

fn decode_and_sessions(bencher: Bencher, format: Format, lines: &[String]) {
    bencher.counter(ItemsCount::new(lines.len())).bench_local(|| {
        let mut decoder = Decoder::new(format);
        let mut sessions = Sessions::new(SessionSettings::default(), 1);
        let mut rows = 0;
        for batch in lines.chunks(BATCH) {
            let events: Vec<KeyedEvent> = batch
                .iter()
                .filter_map(|line| Some((line, event(&mut decoder, line)?)))
                .map(|(line, event)| {
                    let mut keyed = KeyedEvent::from(&event);
                    keyed.event.event_id = xxhash_rust::xxh3::xxh3_64(line.as_bytes());
                    keyed
                })
                .collect();
            let watermark_ms = events.iter().map(|keyed| keyed.event.event_ts_ms).max();
            rows += sessions.apply(events, watermark_ms).intervals_added.len();
        }
        rows
    });
}

/// Keys are what `privacy` would make of them, at no cost: it is not what is measured here.
fn event(decoder: &mut Decoder, line: &str) -> Option<PlayerEvent> {
    let context = DecodeContext {
        now_ms: T0_MS + 86_400_000,
    };
    match decoder.decode(line.as_bytes(), &context).ok()? {
        Decoded::Player(mut event) => {
            let viewer = event.native_session_id.as_ref().or(event.user_id.as_ref())?;
            event.session_key.clone_from(viewer);
            Some(*event)
        }
        _ => None,
    }
}

/// With the test databases of MaxMind where the foreign fixtures are; without any elsewhere.
fn enricher() -> Enricher {
    let database = |name: &str| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures/maxmind/test-data");
        Some(folder.join(name)).filter(|path| path.exists())
    };
    let files = EnrichmentFiles {
        network: NetworkDatabases {
            city: database("GeoIP2-City-Test.mmdb"),
            asn: database("GeoLite2-ASN-Test.mmdb"),
            isp: database("GeoIP2-ISP-Test.mmdb"),
        },
        user_agents: None,
    };
    Enricher::load(&files).0
}

const CLOUDFRONT_FIELDS: &str = "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent) \
    cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes time-taken x-forwarded-for ssl-protocol \
    ssl-cipher x-edge-response-result-type cs-protocol-version fle-status fle-encrypted-fields c-port time-to-first-byte \
    x-edge-detailed-result-type sc-content-type sc-content-len sc-range-start sc-range-end";

/// A thousand viewers behind fifty user agents.
fn cloudfront_lines() -> Vec<String> {
    side_by_side(|session, step, ts| {
        let viewer = session % 1_000;
        format!(
            "2026-01-01\t00:{:02}:{:02}\tLHR50-C{}\t1370422\t81.2.{}.{}\tGET\td1.cloudfront.net\t/vod/film-{}/720p/seg_{step:05}.m4s\t200\t\
             https://player.example.com/\tMozilla/5.0%20(Macintosh;%20Intel%20Mac%20OS%20X%2010_15_{})%20AppleWebKit/537.36\t-\t-\tHit\tid-{ts}\t\
             video.example.com\thttps\t112\t0.184\t-\tTLSv1.3\tTLS_AES_128_GCM_SHA256\tHit\tHTTP/2.0\t-\t-\t4011\t0.021\tHit\tvideo/mp4\t1370000\t-\t-",
            ts / 60_000 % 60,
            ts / 1_000 % 60,
            session % 4,
            viewer / 250,
            viewer % 250,
            session % 50,
            session % 50,
        )
    })
}

/// Lines of all sessions side by side in time, as they reach a receiver.
fn side_by_side(line: impl Fn(usize, usize, i64) -> String) -> Vec<String> {
    let steps = 0..HEARTBEATS + 3;
    steps
        .flat_map(|step| (0..SESSIONS).map(move |session| (step, session)))
        .map(|(step, session)| line(session, step, T0_MS + 10_000 * step as i64 + session as i64))
        .collect()
}

fn cmcd_lines() -> Vec<String> {
    side_by_side(|session, step, ts| {
        let what = match step {
            0 => "e=ps,sta=s".to_string(),
            1 => "e=ps,msd=800,sta=p".to_string(),
            step if step == HEARTBEATS + 2 => "e=ps,sta=e".to_string(),
            step => format!(
                "e=t,bl=({}),mtp=(24000),pb=(4800;v 128;a),pt={},sta=p",
                8_000 + step * 100,
                step * 10_000
            ),
        };
        format!(
            "{what},cid=\"content-{}\",sf=h,sid=\"session-{session:08}\",sn={step},st=v,ts={ts},v=2",
            session % 50
        )
    })
}

fn reference_lines() -> Vec<String> {
    side_by_side(|session, step, ts| {
        let at = step * 10;
        let what = match step {
            0 => "\"MetricType\":\"PLAY\",\"at\":0".to_string(),
            1 => "\"MetricType\":\"FIRSTFRAME\",\"time_millisecond\":800,\"avg_bitrate\":4800000".to_string(),
            step if step == HEARTBEATS + 2 => format!("\"MetricType\":\"STOP\",\"at\":{at}"),
            _ => format!("\"MetricType\":\"STREAM\",\"at\":{at},\"rtt\":31,\"avg_bitrate\":4800000,\"duration\":596.48"),
        };
        format!(
            "{{{what},\"connection_type\":\"4g\",\"package\":\"HLS\",\"resolution\":\"1280x720\",\"fps\":\"30.000\",\"user_id\":\"us-west-2:{session:032x}\",\"video_id\":\"BigBuckBunny\",\"playlist_type\":\"VOD\",\"TimeStamp\":{ts}}}"
        )
    })
}
