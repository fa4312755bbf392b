//! What a player said in a request that a CDN logged, as bronze keeps it: a line of its own, from which the
//! event can be made again without the log.
//!
//! Stands behind `cmcd_in_log`, which finds the pairs in a log, and `Decoder`, which reads them back.
//!
//! ```text
//! {"at":1764547199816,"id":"...","cdn":"cloudfront","status":206}<tab>br=3200,bs,sid="6e2fb550"
//! ```
//!
//! Invariant: `decode` of an event's payload gives the event, all but address, network and user agent, for
//! which bronze has columns.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::event::decode::DecodeContext;
use crate::event::decode::cmcd::LoggedSet;
use crate::event::decode::text::{event_time_in_range, reject};
use crate::event::{Basis, EventKind, PlayerEvent, Reject, RejectReason};

/// What the log knew of the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request<'a> {
    /// When the player asked, epoch ms.
    pub at: i64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub cdn: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttfb_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttlb_ms: Option<i64>,
    /// The logger cut the pairs short.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The event of a set whose text is `logged.text`.
pub fn event(request: &Request<'_>, mut logged: LoggedSet) -> Box<PlayerEvent> {
    logged.text.truncate(logged.text.trim_end_matches(['\r', '\n']).len());
    let known = serde_json::to_string(request).expect("texts and numbers");
    let payload = format!("{known}\t{}", logged.text);
    if request.cut {
        logged.note_cut();
    }
    let mut event = logged.into_event(request.at);
    for (span, _) in &mut event.identity_spans {
        *span = span.start + known.len() + 1..span.end + known.len() + 1;
    }
    event.payload = payload;
    event.kind = Some(EventKind::Response);
    event.basis = Basis::Estimated;
    let text = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
    event.native_event_id = text(&request.id);
    event.request_id = text(&request.id);
    event.cdn = text(&request.cdn);
    event.host = text(&request.host);
    event.url = text(&request.url);
    event.http_status = request.status;
    event.ttfb_ms = request.ttfb_ms;
    event.ttlb_ms = request.ttlb_ms;
    event
}

/// A payload that `event` wrote.
///
/// Rejects what it did not write, and times out of range.
pub fn decode(line: &str, context: &DecodeContext) -> Result<Box<PlayerEvent>, Reject> {
    let other = || reject(RejectReason::MalformedJson, "not a player's report out of a CDN's log");
    let (known, pairs) = line.split_once('\t').ok_or_else(other)?;
    let request: Request<'_> = serde_json::from_str(known).map_err(|_| other())?;
    event_time_in_range(request.at, context)?;
    Ok(event(&request, LoggedSet::from_text(pairs.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DecodeContext = DecodeContext { now_ms: 1_800_000_000_000 };

    fn request() -> Request<'static> {
        Request {
            at: 1_764_547_199_816,
            id: Some("id\t1".into()),
            cdn: Some("cloudfront".into()),
            host: None,
            url: Some("https://v.example/a \"b\"".into()),
            status: Some(206),
            ttfb_ms: Some(0),
            ttlb_ms: None,
            cut: false,
        }
    }

    #[test]
    fn an_event_is_made_again_of_its_payload() {
        for pairs in ["br=3200,bs,sid=\"s\",com.a-uid=\"ann\"", "bl=x", "v=2,sta=p,bl=(1 2)", "\tbl=1"] {
            for cut in [false, true] {
                let request = Request { cut, ..request() };
                let made = event(&request, LoggedSet::from_text(pairs.to_owned()));
                assert_eq!(decode(&made.payload, &NOW), Ok(made.clone()), "{pairs}");
                assert_eq!(made.key_faults.iter().any(|fault| fault.rule == "cut_by_logger"), cut);
            }
        }
    }

    #[test]
    fn ids_are_found_behind_what_the_log_knew() {
        let made = event(&request(), LoggedSet::from_text("com.a-uid=\"ann\",sid=\"s\"".to_owned()));
        let ids: Vec<&str> = made.identity_spans.iter().map(|(span, _)| &made.payload[span.clone()]).collect();
        assert_eq!(ids, ["ann"]);
    }

    #[test]
    fn another_line_is_refused() {
        for line in [
            "",
            "{}\tbl=1",
            "{\"at\":1764547199816}",
            "{\"at\":1,\"x\":2}\tbl=1",
            "bl=1",
            "{\"at\":9e99}\t",
        ] {
            assert!(decode(line, &NOW).is_err(), "{line}");
        }
    }
}
