//! CMCD, version 1 (CTA-5004) and version 2 (CTA-5004-B, April 2026): records of players and of the
//! requests that players make.
//!
//! Stands first in the walk of a CMCD record. `grammar` cuts the text into pairs, `keys` says what a
//! key may hold, `value` reads it, `set` gathers the values of one record, `transport` finds them in
//! a query, in headers or in JSON, and `event_mode`, `request_mode` and `fields` turn them into a
//! `PlayerEvent`.
//!
//! Invariant: a bad value costs its key and never the record (CTA-5004-B, section 6); every key that
//! broke a rule is named in the faults.
//! Invariant: the query that carried CMCD never becomes a part of a URL or of a content id.

mod event_mode;
mod fields;
mod grammar;
mod keys;
mod logged;
pub mod query;
mod request_mode;
pub mod rule;
mod set;
mod transport;
mod value;

#[cfg(test)]
mod vectors;

use super::DecodeContext;
use super::text::{reject, without_bom};
use crate::event::{PlayerEvent, Reject, RejectReason};

pub use logged::{LoggedSet, custom_items, custom_items_of_cmcd, headers_block_of_cmcd, without_parameter};
pub use request_mode::decode_request;
pub use set::CmcdSet;

/// Pairs that `recognises` looks at: a record that says nothing of itself in so many is not ours.
const RECOGNISE_PAIRS_MAX: usize = 64;

/// One record of a POST body: a line of pairs, a JSON object of version 1, or a query or URL with CMCD.
///
/// An event (it has `e` or `ts`) gives its own kind and time. Any other record is a snapshot: a
/// heartbeat at the time of receipt, flagged `receive_time`.
///
/// Errors: `MissingFields` if no reserved key stands in the line, `BadValue` if `v` is above 2,
/// `EventTimeOutOfRange`, and those of JSON.
pub(super) fn decode_event(line: &str, context: &DecodeContext) -> Result<Box<PlayerEvent>, Reject> {
    let set = transport::set_of_line(line)?;
    if set.is_ignored() {
        let detail = "v is above 2, the highest version of CMCD that is understood; the record is ignored";
        return Err(reject(RejectReason::BadValue, detail));
    }
    if !set.has_reserved_key() {
        let detail = "no reserved CMCD key stands in the record; send key=value pairs separated by commas";
        return Err(reject(RejectReason::MissingFields, detail));
    }
    let mut event = if set.is_event() {
        event_mode::decode(&set, context)?
    } else {
        request_mode::received(&set, context.now_ms)
    };
    event.payload = line.to_owned();
    Ok(event)
}

/// True for a line of CMCD: pairs that are mostly CMCD's with a readable `sid`, `e`, `v` or `bl` among
/// them, or a query or URL that carries CMCD. JSON, tables and W3C logs are left to other dialects.
pub(super) fn recognises(line: &str) -> bool {
    let line = without_bom(line).trim_ascii();
    if line.starts_with(['{', '[', '#']) || line.contains('\t') {
        return false;
    }
    if transport::query_of_line(line).is_some() {
        return !line.contains(' ');
    }
    let (mut ours, mut strange, mut names_itself) = (0, 0, false);
    for pair in grammar::Pairs::of(line).take(RECOGNISE_PAIRS_MAX) {
        match keys::Key::find(pair.key) {
            Some(key) => {
                ours += 1;
                let names = matches!(key, keys::Key::Sid | keys::Key::E | keys::Key::V | keys::Key::Bl);
                names_itself |= names && set::is_readable(key, &pair.value);
            }
            None if grammar::is_key(pair.key) && pair.key.contains('-') => {}
            None => strange += 1,
        }
    }
    names_itself && ours > strange
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::vectors::{CONTEXT, NOW_MS, rendered};
    use super::*;
    use crate::event::EventKind;

    /// A file of the foreign fixtures, which are outside the repository.
    #[allow(clippy::disallowed_methods, reason = "where the fixtures are is the tests' own setting")]
    fn fixture(name: &str) -> Option<String> {
        let folder = match std::env::var_os("PLAYHEAD_FIXTURES") {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")),
        };
        let path = folder.join("cmcd").join(name);
        if !path.exists() {
            println!("skipped: no {}; set PLAYHEAD_FIXTURES", path.display());
            return None;
        }
        Some(std::fs::read_to_string(path).unwrap())
    }

    fn set_of_vector(vector: &Json) -> CmcdSet {
        let input = &vector["input"];
        let text = || input.as_str().unwrap();
        match vector["form"].as_str().unwrap() {
            "string" => CmcdSet::from_text(text()),
            "query" => CmcdSet::from_query(text()).unwrap(),
            "urlvalue" => CmcdSet::from_query_value(text()),
            "headers" => {
                let headers = input.as_object().unwrap().iter();
                CmcdSet::from_headers(headers.map(|(name, value)| (name.as_str(), value.as_str().unwrap()))).unwrap()
            }
            form => panic!("no reader for {form}"),
        }
    }

    /// None of the 13 touches a row of 6.2 in its values, so the oracle's answer is ours word for word.
    #[test]
    fn the_13_vectors_of_svta_decode_as_its_oracle_does() {
        let Some(text) = fixture("svta-decode.json") else {
            return;
        };
        let vectors: Vec<Json> = serde_json::from_str(&text).unwrap();
        assert_eq!(vectors.len(), 13);
        for vector in &vectors {
            assert_eq!(rendered(&set_of_vector(vector)), vector["expect"], "{}", vector["id"]);
        }
    }

    /// 20 lines of dash.js. Three ask for an init segment (`ot=i`) before anything is buffered and
    /// truly send no `bl`; the other 17 send one, and all of them are whole numbers.
    #[test]
    fn every_recorded_query_has_its_session_and_the_buffer_length_that_it_sent() {
        let Some(text) = fixture("recorded/cmcd-data-samples-queries.txt") else {
            return;
        };
        let mut buffers = 0;
        let mut lines = 0;
        for line in text.lines() {
            assert!(recognises(line), "{line}");
            let event = decode_event(line, &CONTEXT).unwrap();
            assert_eq!(event.native_session_id.as_deref(), Some("b248658d-1d1a-4039-91d0-8c08ba597da5"));
            assert_eq!((event.source, event.key_faults.len()), ("cmcd1_log", 0), "{line}");
            assert!(event.url.is_some_and(|url| !url.contains("CMCD")));
            assert_eq!(event.buffer_ms.is_some(), line.contains("bl%3D"), "{line}");
            assert_eq!(event.buffer_ms.is_none(), event.object_type == Some("init"), "{line}");
            buffers += usize::from(event.buffer_ms.is_some());
            lines += 1;
        }
        assert_eq!((lines, buffers), (20, 17));
    }

    #[test]
    fn a_record_of_another_kind_is_a_snapshot_at_the_time_of_receipt() {
        let check = |line: &str, source: &str, ext: &[(&str, &str)]| {
            let event = decode_event(line, &CONTEXT).unwrap();
            assert_eq!((event.source, event.kind), (source, Some(EventKind::Heartbeat)), "{line}");
            assert_eq!((event.event_ts_ms, event.event_ts_raw), (NOW_MS, None));
            assert_eq!(event.dq_flags, ["receive_time"]);
            assert_eq!((event.native_session_id.as_deref(), event.payload.as_str()), (Some("s"), line));
            let kept: Vec<(&str, &str)> = event.ext.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(kept, ext, "{line}");
        };
        check("bl=21300,sid=\"s\"", "cmcd1_log", &[]);
        check("bl=(21300;v),sid=\"s\",v=2", "cmcd2_log", &[]);
        check("{\"bl\":21300,\"sid\":\"s\"}", "cmcd1_log", &[]);
        check("bl=25767.613999998,sid=\"s\"", "cmcd1_log", &[("cmcd.bl", "25767.613999998")]);
        check("pt=1776150889000,st=l,sid=\"s\",v=2", "cmcd2_log", &[("pt", "1776150889000")]);
        check("pt=1776150889000,sid=\"s\",v=2", "cmcd2_log", &[("pt", "1776150889000")]);
    }

    #[test]
    fn what_is_no_record_is_refused_without_its_content() {
        let check = |line: &str, reason: &str| {
            let reject = decode_event(line, &CONTEXT).unwrap_err();
            assert_eq!(reject.reason.as_str(), reason, "{line}");
            assert!(!reject.detail.contains("secret"));
        };
        check("secret", "missing_fields");
        check("com.secret-x=\"y\"", "missing_fields");
        check("[\"secret\"]", "missing_fields");
        check("{\"secret\":1}", "missing_fields");
        check("{\"secret", "malformed_json");
        check("sid=\"secret\",v=3", "bad_value");
        assert!(decode_event("sid=\"", &CONTEXT).is_ok());
    }

    #[test]
    fn latency_and_audio_alone_are_taken_for_what_they_are() {
        let check = |line: &str, latency: Option<i64>, faults: usize| {
            let event = decode_event(line, &CONTEXT).unwrap();
            assert_eq!((event.live_latency_ms, event.key_faults.len()), (latency, faults), "{line}");
        };
        check("ltc=1500,sta=p,v=2", Some(1500), 0);
        check("ltc=1500,v=2", Some(1500), 0);
        check("ltc=1500,sta=r,v=2", None, 1);
        check("ltc=1499.5,sta=p,v=2", Some(1500), 1);
        check("ltc=-20,sta=p,v=2", Some(-20), 1);
        check("ltc=-5000,sta=p,v=2", None, 1);
        let audio = decode_event("pb=(164),bl=(900),ot=a,mtp=(0),v=2", &CONTEXT).unwrap();
        assert_eq!((audio.bitrate_bps, audio.bitrate_audio_bps), (None, Some(164_000)));
        assert_eq!(
            (audio.buffer_ms, audio.buffer_audio_ms, audio.throughput_bps),
            (Some(900), Some(900), None)
        );
    }

    #[test]
    fn lines_of_cmcd_are_recognised_and_lines_of_others_are_not() {
        for line in [
            "e=ps,sta=p,ts=1776150889000,v=2",
            "sid=\"s\"",
            "bl=1200, mtp=500",
            "com.example-x=\"y\",v=2",
            "CMCD=bl%3D1%2Csid%3D%22s%22",
            "https://a.example/1.mp4?x=1&CMCD=bl%253D1",
            "/1.mp4?CMCD=bl%3D1",
            "bl=25767.613999998,sid=\"s\"",
        ] {
            assert!(recognises(line), "{line}");
        }
        for line in [
            "",
            "hello",
            "{\"MetricType\":\"PLAY\",\"sid\":1}",
            "{\"sid\":\"s\"}",
            "[1]",
            "#Version: 1.0",
            "#Fields: date time cs-uri-query",
            "2020-05-06\t08:00:00\tLHR50-C1\t5\tCMCD=bl%3D1",
            "10.0.0.1 - - [06/May/2020] \"GET /1.mp4?CMCD=bl%3D1 HTTP/1.1\" 200",
            "date,time,sid",
            "level=info msg=\"v=2\"",
            "v=1 foo=bar",
            "a=1,b=2,c=3,v=2",
            "su,bs",
            "ot=v,st=v",
        ] {
            assert!(!recognises(line), "{line}");
        }
    }

    const SOUND: [&str; 12] = [
        "bl=(5000;v 320;a)",
        "bs",
        "cid=\"a, (film)\"",
        "com.example-x=\"y\"",
        "d=4004",
        "e=t",
        "ec=(\"E1\" \"E,2\")",
        "mtp=(25400)",
        "ot=v",
        "sid=\"s\"",
        "ts=1776150889000",
        "v=2",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_line_is_survived(line in r#"([a-z]{1,4}|com\.a-uid|CMCD=|[=,;&?%+()"\\ .0-9{}\[\]:-]|%22|%2522|ä|\PC){0,60}"#) {
            recognises(&line);
            let _ = CmcdSet::from_query(&line);
            let _ = CmcdSet::from_url(&line);
            let _ = CmcdSet::from_logged_headers(&line);
            let _ = CmcdSet::from_json(&line);
            if let Ok(event) = decode_event(&line, &CONTEXT) {
                prop_assert_eq!(&event.payload, &line);
                let mut end = 0;
                for (span, _) in &event.identity_spans {
                    prop_assert!(event.payload.get(span.clone()).is_some());
                    prop_assert!(line.contains('%') || span.start >= end);
                    end = span.end;
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..400)) {
            let line = String::from_utf8_lossy(&bytes);
            recognises(&line);
            let _ = decode_event(&line, &CONTEXT);
        }

        /// The garbage has no comma, for a comma begins a new pair, and cannot close what it opens.
        #[test]
        fn one_bad_value_loses_its_key_and_nothing_else(
            place in 0..SOUND.len(),
            garbage in prop_oneof!["[(\"][a-z0-9 ;.]{0,12}", "[0-9]{1,3}[a-z;]{0,3}[\"(][a-z]{0,4}", "[!@%&][a-z]{0,4}\"?", "\\?[2-9]?"],
        ) {
            let key = SOUND[place].split('=').next().unwrap();
            let mut pairs = SOUND.map(str::to_owned);
            pairs[place] = format!("{key}={garbage}");
            let damaged = CmcdSet::from_text(&pairs.join(","));
            let mut expected = rendered(&CmcdSet::from_text(&SOUND.join(",")));
            let mut read = rendered(&damaged);
            expected.as_object_mut().unwrap().remove(key);
            read.as_object_mut().unwrap().remove(key);
            prop_assert_eq!(read, expected);
            prop_assert!(!damaged.faults().is_empty());
            prop_assert!(decode_event(&pairs.join(","), &CONTEXT).is_ok());
        }
    }
}
