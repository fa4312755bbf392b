//! Records of event mode (CTA-5004-B): what happened, when, and to what the record must say for it.
//!
//! Stands after `fields`: adds kind and time, and what only one event means by a key.
//!
//! Invariant: a record that lacks what its event needs is kept, as the most that it still says.

use super::fields::Filling;
use super::keys::Key;
use super::rule;
use super::set::CmcdSet;
use crate::event::decode::DecodeContext;
use crate::event::decode::text::{event_time_in_range, flag};
use crate::event::{EventKind, PlayerEvent, Reject, ReportedState};

const SOURCE: &str = "cmcd2_event";

/// Errors: `EventTimeOutOfRange`.
pub(super) fn decode(set: &CmcdSet, context: &DecodeContext) -> Result<Box<PlayerEvent>, Reject> {
    let token = set.token(Key::E);
    let mut filling = Filling::new(set, Some(token.unwrap_or_default()));
    let mut event = filling.fill(SOURCE);
    event.event_ts_raw = filling.number(Key::Ts);
    event.event_ts_ms = match event.event_ts_raw {
        Some(sent) => event_time_in_range(sent, context)?,
        None => {
            filling.fault(Key::Ts, rule::MISSING);
            flag(&mut filling.flags, "receive_time");
            context.now_ms
        }
    };
    event.kind = Some(match token {
        Some(token) => {
            check_needs(token, &mut filling);
            kind(token, event.state)
        }
        None => {
            filling.fault(Key::E, rule::MISSING);
            EventKind::Heartbeat
        }
    });
    own_meaning(token, &mut event);
    Ok(filling.finish(event))
}

/// What one event needs beside `e` and `ts` (2.5).
fn check_needs(token: &str, filling: &mut Filling<'_>) {
    let needed = match token {
        "e" => Key::Ec,
        "ps" => Key::Sta,
        "ce" => Key::Cen,
        "rr" => Key::Url,
        _ => return,
    };
    if filling.set.value(needed).is_none() {
        filling.fault(needed, rule::MISSING);
    }
}

fn kind(token: &str, state: Option<ReportedState>) -> EventKind {
    match token {
        "ps" => kind_of_state(state),
        "e" => EventKind::PlaybackError,
        "bc" => EventKind::RenditionUpdate,
        "pr" => EventKind::RateChange,
        "b" => EventKind::BackgroundChange,
        "abs" => EventKind::AdBreakStart,
        "abe" => EventKind::AdBreakEnd,
        "as" => EventKind::AdStart,
        "ae" => EventKind::AdEnd,
        "sk" => EventKind::AdSkip,
        "c" => EventKind::ContentChange,
        "h" => EventKind::HostChange,
        "pe" | "pc" => EventKind::PlayerResize,
        "m" | "um" => EventKind::MuteChange,
        "rr" => EventKind::Response,
        "ce" => EventKind::Custom,
        _ => EventKind::Heartbeat,
    }
}

/// A change to a state that cannot be read says no more than that the player lives.
fn kind_of_state(state: Option<ReportedState>) -> EventKind {
    match state {
        Some(ReportedState::Preloading) => EventKind::SessionStart,
        Some(ReportedState::Starting) => EventKind::PlaybackRequest,
        Some(ReportedState::Playing) => EventKind::PlaybackStart,
        Some(ReportedState::Paused) => EventKind::PlaybackPause,
        Some(ReportedState::Rebuffering) => EventKind::StallStart,
        Some(ReportedState::Seeking) => EventKind::SeekStart,
        Some(ReportedState::Ended) => EventKind::PlaybackFinish,
        Some(ReportedState::Quit) => EventKind::SessionEnd,
        Some(ReportedState::Failed) => EventKind::PlaybackError,
        Some(ReportedState::Waiting) => EventKind::Custom,
        None => EventKind::Heartbeat,
    }
}

/// Keys that mean something else, or whose absence means something, on one kind of event.
fn own_meaning(token: Option<&str>, event: &mut PlayerEvent) {
    if event.kind == Some(EventKind::PlaybackError) {
        event.error_fatal = Some(event.state == Some(ReportedState::Failed));
    }
    match event.kind {
        Some(EventKind::PlaybackFinish) => event.end_reason = Some("finished"),
        Some(EventKind::SessionEnd) => event.end_reason = Some("user_quit"),
        _ => {}
    }
    match token {
        // A boolean that is false, and a rate of 1, are left out.
        Some("b") => event.background = Some(event.background == Some(true)),
        Some("pr") => event.playback_rate = event.playback_rate.or(Some(1.0)),
        // Between `as` and `ae` the content is the advertisement.
        Some("as" | "ae" | "sk") => event.ad_id = event.content_id.take(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode_event;
    use super::super::keys::EVENTS;
    use super::super::vectors::{CONTEXT, NOW_MS};
    use super::*;

    const TS: i64 = 1_776_150_889_000;

    fn decoded(pairs: &str) -> Box<PlayerEvent> {
        decode_event(&format!("{pairs},sid=\"s\",ts={TS},v=2"), &CONTEXT).unwrap()
    }

    fn faults(event: &PlayerEvent) -> Vec<String> {
        let faults = event.key_faults.iter();
        faults.map(|fault| format!("{} {}", fault.key, fault.rule)).collect()
    }

    /// A sound record of each token but `ps`, its kind, and what else it says.
    #[test]
    fn every_event_token_has_its_kind_and_its_fields() {
        type Holds = fn(&PlayerEvent) -> bool;
        let rows: [(&str, EventKind, Holds); 20] = [
            ("e=abs", EventKind::AdBreakStart, |e| e.ad_id.is_none()),
            ("e=abe", EventKind::AdBreakEnd, |e| e.ad_id.is_none()),
            ("e=as,cid=\"ad-1\"", EventKind::AdStart, |e| {
                e.ad_id.as_deref() == Some("ad-1") && e.content_id.is_none()
            }),
            ("e=ae,cid=\"ad-1\"", EventKind::AdEnd, |e| {
                e.ad_id.as_deref() == Some("ad-1") && e.content_id.is_none()
            }),
            ("e=sk,cid=\"ad-1\"", EventKind::AdSkip, |e| {
                e.ad_id.as_deref() == Some("ad-1") && e.content_id.is_none()
            }),
            ("e=b,bg", EventKind::BackgroundChange, |e| e.background == Some(true)),
            ("e=b", EventKind::BackgroundChange, |e| e.background == Some(false)),
            ("e=bc,br=(3000;v)", EventKind::RenditionUpdate, |e| {
                e.req_bitrate_bps == Some(3_000_000)
            }),
            ("e=c,cid=\"film-2\"", EventKind::ContentChange, |e| {
                e.content_id.as_deref() == Some("film-2")
            }),
            ("e=ce,cen=\"x\"", EventKind::Custom, |e| {
                e.ext == [("cen".to_owned(), "x".to_owned())]
            }),
            ("e=e,ec=(\"E1\")", EventKind::PlaybackError, |e| {
                e.error_fatal == Some(false) && e.error_codes == ["E1"]
            }),
            ("e=h,h=\"b.example\"", EventKind::HostChange, |e| {
                e.host.as_deref() == Some("b.example")
            }),
            ("e=m", EventKind::MuteChange, |e| e.state.is_none()),
            ("e=um", EventKind::MuteChange, |e| e.state.is_none()),
            ("e=pc", EventKind::PlayerResize, |e| e.state.is_none()),
            ("e=pe", EventKind::PlayerResize, |e| e.state.is_none()),
            ("e=pr,pr=2", EventKind::RateChange, |e| e.playback_rate == Some(2.0)),
            ("e=pr", EventKind::RateChange, |e| e.playback_rate == Some(1.0)),
            ("e=rr,url=\"https://a/1?q\",rc=200", EventKind::Response, |e| {
                e.url.as_deref() == Some("https://a/1") && e.http_status == Some(200)
            }),
            ("e=t,sta=p,bl=(5000)", EventKind::Heartbeat, |e| {
                e.state == Some(ReportedState::Playing) && e.buffer_ms == Some(5000)
            }),
        ];
        for (pairs, kind, holds) in rows {
            let event = decoded(pairs);
            assert_eq!((event.kind, faults(&event)), (Some(kind), Vec::new()), "{pairs}");
            assert!(holds(&event), "{pairs}: {event:#?}");
            assert_eq!((event.source, event.event_ts_ms, event.event_ts_raw), (SOURCE, TS, Some(TS)));
        }
        for token in EVENTS.iter().filter(|token| **token != "ps") {
            let begins = |pairs: &str| pairs.split(',').next() == Some(&format!("e={token}"));
            assert!(rows.iter().any(|(pairs, ..)| begins(pairs)), "{token}");
        }
    }

    #[test]
    fn a_play_state_is_what_the_player_went_into() {
        let check = |state: &str, kind: EventKind, end_reason: Option<&str>, fatal: Option<bool>| {
            let event = decoded(&format!("e=ps,sta={state}"));
            assert_eq!(event.kind, Some(kind), "{state}");
            assert_eq!((event.end_reason, event.error_fatal), (end_reason, fatal), "{state}");
            assert!(event.state.is_some() && event.key_faults.is_empty(), "{state}");
            assert_eq!(event.dq_flags.contains(&"undefined_state"), state == "w");
        };
        check("d", EventKind::SessionStart, None, None);
        check("s", EventKind::PlaybackRequest, None, None);
        check("p", EventKind::PlaybackStart, None, None);
        check("a", EventKind::PlaybackPause, None, None);
        check("r", EventKind::StallStart, None, None);
        check("k", EventKind::SeekStart, None, None);
        check("w", EventKind::Custom, None, None);
        check("e", EventKind::PlaybackFinish, Some("finished"), None);
        check("q", EventKind::SessionEnd, Some("user_quit"), None);
        check("f", EventKind::PlaybackError, None, Some(true));
        let error = decoded("e=e,ec=(\"27\"),sta=f");
        assert_eq!((error.kind, error.error_fatal), (Some(EventKind::PlaybackError), Some(true)));
    }

    #[test]
    fn an_event_that_lacks_what_it_needs_is_kept_and_says_so() {
        let check = |pairs: &str, kind: EventKind, missing: &str| {
            let event = decoded(pairs);
            assert_eq!((event.kind, faults(&event)), (Some(kind), vec![missing.to_owned()]), "{pairs}");
        };
        check("e=e", EventKind::PlaybackError, "ec missing");
        check("e=ps", EventKind::Heartbeat, "sta missing");
        check("e=ce", EventKind::Custom, "cen missing");
        check("e=rr", EventKind::Response, "url missing");
        check("bl=(1)", EventKind::Heartbeat, "e missing");
        let event = decoded("e=zz,rc=200");
        assert_eq!((event.kind, event.http_status), (Some(EventKind::Heartbeat), Some(200)));
        assert_eq!(faults(&event), ["e unknown_token", "e missing"]);
    }

    #[test]
    fn a_key_of_another_event_is_ignored_and_named() {
        let check = |pairs: &str, named: &[&str]| assert_eq!(faults(&decoded(pairs)), named, "{pairs}");
        check("e=t,cen=\"x\"", &["cen not_allowed_here"]);
        check(
            "e=t,rc=200,ttfb=1,ttfbb=2,ttlb=3",
            &[
                "rc not_allowed_here",
                "ttfb not_allowed_here",
                "ttfbb not_allowed_here",
                "ttlb not_allowed_here",
            ],
        );
        check("e=t,cmsdd=\"YQ\",smrt=\"YQ\"", &["cmsdd not_allowed_here", "smrt not_allowed_here"]);
        let event = decoded("e=t,url=\"https://a/1\",rc=200,cmsds=\"YQ\",cen=\"x\",nrr=\"0-9\"");
        assert_eq!(
            (event.url, event.host, event.http_status, event.ext),
            (None, None, None, Vec::new())
        );
        assert_eq!(event.key_faults.len(), 6);
    }

    #[test]
    fn a_time_that_cannot_be_read_becomes_the_time_of_receipt() {
        for ts in ["1640995200000.5", "soon", "-1", "9007199254740993"] {
            let event = decode_event(&format!("e=t,ts={ts},v=2"), &CONTEXT).unwrap();
            assert_eq!((event.event_ts_ms, event.event_ts_raw), (NOW_MS, None), "{ts}");
            assert_eq!((event.kind, event.dq_flags), (Some(EventKind::Heartbeat), vec!["receive_time"]));
            assert_eq!(event.key_faults.last().map(|fault| fault.rule), Some("missing"), "{ts}");
        }
        for ts in ["0", "1262303999999", "1776300000001"] {
            let reject = decode_event(&format!("e=t,ts={ts},v=2"), &CONTEXT).unwrap_err();
            assert_eq!(reject.reason.as_str(), "event_time_out_of_range", "{ts}");
        }
    }

    #[test]
    fn without_a_version_an_event_is_of_version_2_and_above_2_it_is_refused() {
        let event = decode_event(&format!("e=t,bl=(5000),ts={TS}"), &CONTEXT).unwrap();
        assert_eq!((event.source, faults(&event)), (SOURCE, vec!["v missing".to_owned()]));
        let event = decode_event(&format!("e=t,ts={TS},v=two"), &CONTEXT).unwrap();
        assert_eq!(faults(&event), ["v missing", "v wrong_type"]);
        let event = decode_event(&format!("e=t,ts={TS},v=0"), &CONTEXT).unwrap();
        assert_eq!(faults(&event), ["v missing", "v out_of_range"]);
        for version in ["3", "99999999999999999999"] {
            let reject = decode_event(&format!("e=t,ts={TS},v={version}"), &CONTEXT).unwrap_err();
            assert_eq!(reject.reason.as_str(), "bad_value");
        }
    }

    /// CMCD-B's own case of a clock that ran back: the reported length is right, not the difference.
    #[test]
    fn spaces_after_commas_are_nothing_and_a_finished_stall_keeps_its_length() {
        let event = decoded("e=ps, sta=p, bsd=(1500), bs, sn=12");
        assert_eq!(
            (event.stall_ms, event.stall_count, event.stall_flag),
            (Some(1500), None, Some(true))
        );
        assert_eq!((event.seq, event.key_faults.len()), (Some(12), 0));
    }
}
