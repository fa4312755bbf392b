//! The table of composed records: every key of version 2 and of version 1, and what becomes of it.
//!
//! Tests only. A row gives the pair as it is written, what the set reads, and the fields it fills;
//! the test sends it through every transport and asks for the same.

use serde_json::{Map, Value as Json, json};

use super::keys::{Key, RULES, Shard};
use super::value::{Tagged, Value};
use super::{CmcdSet, decode_event, decode_request};
use crate::event::decode::DecodeContext;
use crate::event::{PlayerEvent, ReportedState};

pub(super) const NOW_MS: i64 = 1_776_200_000_000;
pub(super) const CONTEXT: DecodeContext = DecodeContext { now_ms: NOW_MS };

/// The set in the shape of the foreign vectors; a tagged member is an object of number and type.
pub(super) fn rendered(set: &CmcdSet) -> Json {
    let mut object = Map::new();
    for (key, value) in set.values() {
        object.insert(key.name().to_owned(), rendered_value(value));
    }
    for custom in &set.custom {
        let text = custom.text.as_str();
        let number = text.parse::<i64>().map(Json::from);
        let value = match text {
            "true" => json!(true),
            "false" => json!(false),
            _ => number.unwrap_or_else(|_| json!(text)),
        };
        object.insert(custom.key.clone(), value);
    }
    Json::Object(object)
}

fn rendered_value(value: &Value) -> Json {
    let member = |member: &Tagged| match member.tag {
        Some(tag) => json!({"value": member.number, "type": tag}),
        None => json!(member.number),
    };
    match value {
        Value::Boolean(value) => json!(value),
        Value::Integer(number) => member(number),
        Value::Integers(numbers) => numbers.iter().map(member).collect(),
        Value::Decimal(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Texts(texts) => texts.iter().map(|text| json!(text.text)).collect(),
        Value::Token(token) => json!(token),
    }
}

/// One key of one version.
struct Row {
    version: i64,
    /// The pair as it is written.
    pair: &'static str,
    /// The value of the pair, as JSON.
    value: &'static str,
    /// What the event has to hold.
    holds: fn(&PlayerEvent) -> bool,
}

fn ext<'e>(event: &'e PlayerEvent, key: &str) -> Option<&'e str> {
    let entry = event.ext.iter().find(|(known, _)| known == key)?;
    Some(&entry.1)
}

macro_rules! rows {
    ($($version:literal $pair:literal $value:literal $holds:expr;)*) => {
        &[$(Row { version: $version, pair: $pair, value: $value, holds: $holds }),*]
    };
}

const ROWS: &[Row] = rows! {
    2 "ab=(2500)" "[2500]" |e| e.req_bitrate_bps == Some(2_500_000);
    2 "bg" "true" |e| e.background == Some(true);
    2 "bl=(5000;v 320;a)" r#"[{"value":5000,"type":"v"},{"value":320,"type":"a"}]"#
        |e| (e.buffer_ms, e.buffer_video_ms, e.buffer_audio_ms) == (Some(320), Some(5000), Some(320));
    2 "br=(3000;v 164;a)" r#"[{"value":3000,"type":"v"},{"value":164,"type":"a"}]"# |e| e.req_bitrate_bps == Some(3_164_000);
    2 "bs=?0" "false" |e| e.stall_flag == Some(false);
    2 "bsa=(3;v 1;a)" r#"[{"value":3,"type":"v"},{"value":1,"type":"a"}]"# |e| e.stall_count_total == Some(3);
    2 "bsd=(1500 800)" "[1500,800]" |e| (e.stall_ms, e.stall_count) == (Some(2300), Some(2));
    2 "bsda=(4100)" "[4100]" |e| e.stall_total_ms == Some(4100);
    2 "cen=\"intro-skipped\"" "\"intro-skipped\"" |e| ext(e, "cen") == Some("intro-skipped");
    2 "cid=\"a film\"" "\"a film\"" |e| e.content_id.as_deref() == Some("a film");
    2 "cmsdd=\"ImNkbiI7ZXRwPTc2\"" "\"ImNkbiI7ZXRwPTc2\"" |e| ext(e, "cmsdd") == Some("\"cdn\";etp=76");
    2 "cmsds=\"b3Q9dg==\"" "\"b3Q9dg==\"" |e| ext(e, "cmsds") == Some("ot=v");
    2 "cs=\"123456\"" "\"123456\"" |e| ext(e, "cs") == Some("123456");
    2 "d=4004" "4004" |e| e.object_duration_ms == Some(4004);
    2 "dfa=17" "17" |e| e.dropped_frames_total == Some(17);
    2 "dl=10000" "10000" |e| e.deadline_ms == Some(10_000);
    2 "e=t" "\"t\"" |e| e.source == "cmcd2_event";
    2 "ec=(\"ERR001\" \"ERR \\\"2\\\"\")" r#"["ERR001","ERR \"2\""]"# |e| e.error_codes == ["ERR001", "ERR \"2\""];
    2 "h=\"edge.example.com\"" "\"edge.example.com\"" |e| e.host.as_deref() == Some("edge.example.com");
    2 "lab=(200)" "[200]" |e| e.low_bitrate_bps == Some(200_000);
    2 "lb=(100;v)" r#"[{"value":100,"type":"v"}]"# |e| e.low_bitrate_bps == Some(100_000);
    2 "ltc=1500" "1500" |e| e.live_latency_ms == Some(1500);
    2 "msd=812" "812" |e| e.startup_ms == Some(812);
    2 "mtp=(25400)" "[25400]" |e| e.throughput_bps == Some(25_400_000);
    2 "nor=(\"../a (2).m4v\";r=\"0-99\" \"b.m4v\")" r#"["../a (2).m4v","b.m4v"]"#
        |e| ext(e, "nor") == Some(r#"["../a (2).m4v","b.m4v"]"#) && ext(e, "nrr") == Some(r#"["0-99",null]"#);
    2 "nr" "true" |e| e.not_rendered == Some(true);
    2 "ot=tt" "\"tt\"" |e| e.object_type == Some("timed_text");
    2 "pb=(3000;v 164;a)" r#"[{"value":3000,"type":"v"},{"value":164,"type":"a"}]"#
        |e| (e.bitrate_bps, e.bitrate_video_bps, e.bitrate_audio_bps) == (Some(3_164_000), Some(3_000_000), Some(164_000));
    2 "pr=1.5" "1.5" |e| e.playback_rate == Some(1.5);
    2 "pt=45000" "45000" |e| e.playhead_ms == Some(45_000);
    2 "rc=0" "0" |e| e.http_status == Some(0);
    2 "rtp=8000" "8000" |e| e.req_throughput_max_bps == Some(8_000_000);
    2 "sf=e" "\"e\"" |e| e.stream_format == Some("hesp");
    2 "sid=\"6e2f,=b550\"" "\"6e2f,=b550\"" |e| e.native_session_id.as_deref() == Some("6e2f,=b550");
    2 "smrt=\"YQ\"" "\"YQ\"" |e| ext(e, "smrt") == Some("a");
    2 "sn=7" "7" |e| e.seq == Some(7);
    2 "st=ll" "\"ll\"" |e| e.stream_type == Some("ll_live");
    2 "sta=w" "\"w\"" |e| e.state == Some(ReportedState::Waiting) && e.dq_flags.contains(&"undefined_state");
    2 "su" "true" |e| e.startup_flag == Some(true);
    2 "tab=(3000)" "[3000]" |e| e.top_bitrate_bps == Some(3_000_000);
    2 "tb=(6000;v 192;a)" r#"[{"value":6000,"type":"v"},{"value":192,"type":"a"}]"# |e| e.top_bitrate_bps == Some(6_192_000);
    2 "tbl=(8000)" "[8000]" |e| e.buffer_target_ms == Some(8000);
    2 "tpb=(4000;av)" r#"[{"value":4000,"type":"av"}]"# |e| e.top_playable_bitrate_bps == Some(4_000_000);
    2 "ts=1776150889000" "1776150889000" |e| (e.event_ts_ms, e.event_ts_raw) == (1_776_150_889_000, Some(1_776_150_889_000));
    2 "ttfb=150" "150" |e| e.ttfb_ms == Some(150);
    2 "ttfbb=200" "200" |e| e.ttfbb_ms == Some(200);
    2 "ttlb=500" "500" |e| e.ttlb_ms == Some(500);
    2 "url=\"https://cdn.example.com/a/1.m4s?CMCD=sid%3D1\"" "\"https://cdn.example.com/a/1.m4s?CMCD=sid%3D1\""
        |e| e.url.as_deref() == Some("https://cdn.example.com/a/1.m4s") && e.host.as_deref() == Some("cdn.example.com");
    2 "v=2" "2" |e| e.source.starts_with("cmcd2");
    1 "bl=21300" "21300" |e| (e.buffer_ms, e.buffer_video_ms, e.buffer_audio_ms) == (Some(21_300), None, None);
    1 "br=3200" "3200" |e| e.req_bitrate_bps == Some(3_200_000);
    1 "bs" "true" |e| e.stall_flag == Some(true);
    1 "cid=\"a film\"" "\"a film\"" |e| e.content_id.as_deref() == Some("a film");
    1 "d=4004" "4004" |e| e.object_duration_ms == Some(4004);
    1 "dl=18500" "18500" |e| e.deadline_ms == Some(18_500);
    1 "mtp=48100" "48100" |e| e.throughput_bps == Some(48_100_000);
    1 "nor=\"..%2Ftesting%2F3.m4v\"" "\"..%2Ftesting%2F3.m4v\"" |e| ext(e, "nor") == Some("..%2Ftesting%2F3.m4v");
    1 "nrr=\"12323-48763\"" "\"12323-48763\"" |e| ext(e, "nrr") == Some("12323-48763");
    1 "ot=av" "\"av\"" |e| e.object_type == Some("muxed");
    1 "pr=1.08" "1.08" |e| e.playback_rate == Some(1.08);
    1 "rtp=12000" "12000" |e| e.req_throughput_max_bps == Some(12_000_000);
    1 "sf=h" "\"h\"" |e| e.stream_format == Some("hls");
    1 "sid=\"6e2fb550\"" "\"6e2fb550\"" |e| e.native_session_id.as_deref() == Some("6e2fb550");
    1 "st=l" "\"l\"" |e| e.stream_type == Some("live");
    1 "su" "true" |e| e.startup_flag == Some(true);
    1 "tb=6000" "6000" |e| e.top_bitrate_bps == Some(6_000_000);
    1 "v=1" "1" |e| e.source == "cmcd1_log";
};

impl Row {
    fn key(&self) -> Key {
        let name = self.pair.split('=').next().unwrap();
        Key::find(name).unwrap()
    }

    /// The record around the pair: what the version and the key's own event ask for.
    fn record(&self) -> String {
        let around: &[&str] = match (self.version, self.key().name()) {
            (1, _) => &["sid=\"s\""],
            (_, "cen") => &["e=ce", "ts=1776150889000", "v=2"],
            (_, "e") => &["ts=1776150889000", "v=2"],
            (_, "ts") => &["e=t", "v=2"],
            (_, "h") => &["e=h", "ts=1776150889000", "v=2"],
            (_, "url") => &["e=rr", "ts=1776150889000", "v=2"],
            (_, "rc" | "ttfb" | "ttfbb" | "ttlb" | "cmsdd" | "cmsds" | "smrt") => {
                &["e=rr", "ts=1776150889000", "url=\"https://a.example/1\"", "v=2"]
            }
            _ => &["sid=\"s\"", "v=2"],
        };
        let name = self.key().name();
        let rest = around.iter().filter(|pair| pair.split('=').next() != Some(name));
        let pairs: Vec<&str> = std::iter::once(self.pair).chain(rest.copied()).collect();
        pairs.join(",")
    }
}

/// Encoded as `encodeURIComponent` does it.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte);
    let mut query = String::new();
    for byte in text.bytes() {
        if plain(byte) {
            query.push(char::from(byte));
        } else {
            query.push_str(&format!("%{byte:02X}"));
        }
    }
    query
}

fn check_set(set: &CmcdSet, row: &Row, transport: &str) {
    let read = rendered(set);
    let expected: Json = serde_json::from_str(row.value).unwrap();
    assert_eq!(read[row.key().name()], expected, "{} by {transport}", row.pair);
    assert_eq!(set.faults(), [], "{} by {transport}", row.pair);
    assert_eq!(set.version(), row.version, "{} by {transport}", row.pair);
}

#[test]
fn the_table_has_every_key_of_both_versions() {
    for (version, count) in [(1, 18), (2, 49)] {
        let mut names: Vec<&str> = ROWS
            .iter()
            .filter(|row| row.version == version)
            .map(|row| row.key().name())
            .collect();
        names.sort_unstable();
        let standard = RULES.iter().filter(|rule| !rule.key.is_draft());
        let expected: Vec<&str> = standard
            .filter(|rule| if version == 1 { rule.v1.is_some() } else { rule.v2.is_some() })
            .map(|rule| rule.name)
            .collect();
        assert_eq!((names.len(), &names), (count, &expected));
    }
}

#[test]
fn every_key_reads_the_same_from_a_body_line_and_fills_its_field() {
    for row in ROWS {
        let record = row.record();
        check_set(&CmcdSet::from_text(&record), row, "line");
        let event = decode_event(&record, &CONTEXT).unwrap();
        assert!((row.holds)(&event), "{record}: {event:#?}");
        assert_eq!((event.key_faults.as_slice(), event.payload.as_str()), (&[][..], record.as_str()));
    }
}

#[test]
fn every_key_reads_the_same_from_a_query_that_was_encoded_twice_once_or_never() {
    for row in ROWS {
        let record = row.record();
        let (once, twice) = (encoded(&record), encoded(&encoded(&record)));
        for (depth, value) in [(0, &record), (1, &once), (2, &twice)] {
            let set = CmcdSet::from_query(&format!("a=1&CMCD={value}&CMCD=bl%3D1")).unwrap();
            check_set(&set, row, value);
            assert_eq!(set.decode_depth(), Some(depth), "{value}");
            assert_eq!(rendered(&set), rendered(&CmcdSet::from_text(&record)), "{value}");
        }
    }
}

#[test]
fn every_key_reads_the_same_from_its_own_header_and_names_every_other() {
    let shards = [
        ("CMCD-Request", Shard::Request),
        ("cmcd-object", Shard::Object),
        ("CMCD-STATUS", Shard::Status),
        ("Cmcd-Session", Shard::Session),
    ];
    for row in ROWS {
        let version = if row.version == 2 && row.key() != Key::V {
            "v=2"
        } else {
            "sid=\"s\""
        };
        for (name, shard) in shards {
            let set = CmcdSet::from_headers([("Accept", "*/*"), ("CMCD-Session", version), (name, row.pair)]).unwrap();
            let is_own = row.key().rule().shard == Some(shard) || row.key() == Key::Pr && shard == Shard::Session;
            let wrong = set.faults().iter().any(|fault| fault.rule == "wrong_header");
            assert_eq!(wrong, !is_own, "{} in {name}", row.pair);
            let expected: Json = serde_json::from_str(row.value).unwrap();
            assert_eq!(rendered(&set)[row.key().name()], expected, "{} in {name}", row.pair);
        }
    }
}

#[test]
fn every_key_of_a_request_fills_its_field_out_of_a_log() {
    for row in ROWS {
        let event_only = !row.key().rule().place.allows(None);
        let event = decode_request(&CmcdSet::from_text(&row.record()), 1_776_150_889_000);
        assert_eq!(event.event_ts_ms, 1_776_150_889_000);
        assert_eq!(event.source, if row.version == 1 { "cmcd1_log" } else { "cmcd2_log" });
        if event_only {
            assert!(!event.key_faults.is_empty(), "{}", row.pair);
        } else {
            assert!((row.holds)(&event), "{}: {event:#?}", row.pair);
        }
    }
}
