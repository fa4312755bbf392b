//! What the decoders of CDN logs share: a value as text, lengths in any unit, a URL in its parts, and the
//! cache's outcome in CloudFront's words; times are in `moment`.
//!
//! Stands below the formats of this folder: a format says which field means what, this file puts the
//! value into a `CdnRequest`.
//!
//! Invariant: `-`, an empty text and `null` are `None`; a value that breaks a rule is `None` and flagged.
//! Invariant: `ext` takes only what a format names: an unknown field may hold an address or a token,
//! and stays in the payload, unless its name tells what it is.
//! Invariant: `finish` marks in the payload whatever was called private.

mod moment;

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::cmcd_in_log::{self, Candidates};
use crate::event::decode::DecodeContext;
use crate::event::decode::cmcd::without_parameter;
use crate::event::decode::text::{
    INTEGER_MAX, Object, Scalar, Vocabulary, decimal, event_time_in_range, ext, flag, percent_decoded, pop, reject,
};
use crate::event::private::{Holds, Written, may_tell, tells};
use crate::event::{CdnRequest, Reject, RejectReason};

pub(super) use moment::{moment_ms, offset_ms, rfc3339_ms};

/// Proxies believed in one `X-Forwarded-For`.
const FORWARDED_MAX: usize = 32;
/// nginx and its descendants: the client closed before an answer.
const CLIENT_CLOSED_REQUEST: i64 = 499;
/// Statuses that send the viewer elsewhere.
const REDIRECTS: [i64; 5] = [301, 302, 303, 307, 308];
/// What a record weighs that no viewer caused.
const NO_REQUEST: i64 = 0;
/// The four headers of CMCD (CTA-5004, 2.1).
const CMCD_HEADERS: [&str; 4] = ["cmcd-request", "cmcd-object", "cmcd-status", "cmcd-session"];

/// A vocabulary without words: the formats here match names themselves, for many are longer or nested.
#[derive(Clone, Copy)]
pub(super) enum NoKey {}

impl Vocabulary for NoKey {
    fn find(_: &str) -> Option<NoKey> {
        None
    }

    fn index(self) -> usize {
        match self {}
    }
}

/// The members of one JSON object.
pub(super) type Members<'a> = Object<'a, NoKey>;

/// True if the object has all these names. `is_whole`: it must also be sound.
pub(super) fn has_names(json: &str, is_whole: bool, names: &[&str]) -> bool {
    let (object, outcome) = Members::parse_prefix(json);
    let has = |name: &&str| object.members().any(|(key, _)| key == *name);
    (outcome.is_ok() || !is_whole) && names.iter().all(has)
}

/// A JSON value as text; `None` if it says nothing. Objects and lists are their JSON text.
pub(super) fn value(raw: &str) -> Option<Cow<'_, str>> {
    Scalar::read(raw)?.into_text().into_said()
}

/// The members of a nested object; `None` if the value is none.
pub(super) fn nested(raw: &str) -> Option<Members<'_>> {
    let (object, outcome) = Members::parse_prefix(raw);
    outcome.is_ok().then_some(object)
}

trait Said: Sized {
    fn into_said(self) -> Option<Self>;
}

impl Said for Cow<'_, str> {
    fn into_said(self) -> Option<Self> {
        is_said(&self).then_some(self)
    }
}

/// False for the loggers' words for nothing: `-`, and Fastly's `(null)`.
pub(super) fn is_said(text: &str) -> bool {
    !matches!(text, "" | "-" | "(null)")
}

/// Where an object came from, before it is told in CloudFront's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Hit,
    /// Stale, asked about at the origin, and still good.
    RefreshHit,
    Miss,
    /// Not at the edge, but in a cache of the same CDN behind it.
    ShieldHit,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Hit => "Hit",
            Outcome::RefreshHit => "RefreshHit",
            Outcome::Miss | Outcome::ShieldHit => "Miss",
        }
    }

    /// The words of nginx and Cloudflare, and Squid's, with or without their `TCP_`. What was never looked
    /// up in the cache (`bypass`, `dynamic`) came from the origin, which CloudFront calls a miss.
    pub(super) fn of_word(word: &str) -> Option<Outcome> {
        let has_prefix = word.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("TCP_"));
        let word = if has_prefix { &word[4..] } else { word };
        let known = WORDS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(word));
        known.map(|(_, outcome)| outcome)
    }
}

const WORDS: [(&str, Outcome); 22] = [
    ("hit", Outcome::Hit),
    ("miss", Outcome::Miss),
    ("stale", Outcome::Hit),
    ("updating", Outcome::Hit),
    ("ignored", Outcome::Hit),
    ("stream_hit", Outcome::Hit),
    ("mem_hit", Outcome::Hit),
    ("ims_hit", Outcome::Hit),
    ("revalidated", Outcome::RefreshHit),
    ("refreshhit", Outcome::RefreshHit),
    ("refresh_hit", Outcome::RefreshHit),
    ("expired", Outcome::Miss),
    ("expired_hit", Outcome::Hit),
    ("expired_miss", Outcome::Miss),
    ("refresh_miss", Outcome::Miss),
    ("bypass", Outcome::Miss),
    ("dynamic", Outcome::Miss),
    ("deferred", Outcome::Miss),
    ("pass", Outcome::Miss),
    ("scarce", Outcome::Miss),
    ("originshieldhit", Outcome::ShieldHit),
    ("shield_hit", Outcome::ShieldHit),
];

/// A record on its way into a `CdnRequest`.
pub(super) struct Row<'a> {
    pub(super) request: CdnRequest,
    pub(super) outcome: Option<Outcome>,
    kept: Vec<(&'a str, Cow<'a, str>)>,
    cmcd_headers: Vec<(&'static str, Cow<'a, str>)>,
    cmcd_columns: Vec<(&'static str, Cow<'a, str>)>,
    private: Vec<(&'a str, Holds, Written)>,
}

impl<'a> Row<'a> {
    pub(super) fn new(cdn: &str) -> Row<'a> {
        let request = CdnRequest {
            cdn: Some(cdn.to_owned()),
            ..CdnRequest::default()
        };
        Row {
            request,
            outcome: None,
            kept: Vec::new(),
            cmcd_headers: Vec::new(),
            cmcd_columns: Vec::new(),
            private: Vec::new(),
        }
    }

    /// `raw`, a piece of the record, may tell of the viewer.
    pub(super) fn private(&mut self, raw: &'a str, holds: Holds, written: Written) {
        if may_tell(holds, raw) {
            self.private.push((raw, holds, written));
        }
    }

    /// A JSON value that may tell of the viewer.
    pub(super) fn private_json(&mut self, raw: &'a str, holds: Holds) {
        self.private(raw, holds, Written::Json);
    }

    /// A member that the format does not know: it stays in the payload, unless its name tells.
    pub(super) fn unknown(&mut self, key: &str, raw: &'a str) {
        if tells(key, raw) {
            self.private_json(raw, Holds::Withheld);
        }
    }

    /// An entry of `ext`. Not for addresses, cookies, queries or names of people.
    pub(super) fn keep(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        self.kept.push((name, value.into()));
    }

    pub(super) fn flag(&mut self, name: &'static str) {
        flag(&mut self.request.dq_flags, name);
    }

    /// A count from 0 upwards, times 10^`scale`.
    pub(super) fn number(&mut self, text: &str, scale: usize) -> Option<i64> {
        let value = decimal(text, scale).filter(|value| (0..=INTEGER_MAX).contains(value));
        if value.is_none() {
            self.flag("bad_value");
        }
        value
    }

    /// Milliseconds of a count of microseconds, rounded.
    pub(super) fn microseconds(&mut self, text: &str) -> Option<i64> {
        self.number(text, 0).map(|value| rounded(value, 1_000))
    }

    /// Milliseconds of `0.126644940s`, the JSON form of a protobuf `Duration`.
    pub(super) fn seconds(&mut self, text: &str) -> Option<i64> {
        self.number(text.strip_suffix('s').unwrap_or(text), 3)
    }

    pub(super) fn boolean(&mut self, text: &str) -> Option<bool> {
        let value = boolean(text);
        if value.is_none() {
            self.flag("bad_value");
        }
        value
    }

    /// A user agent, percent-encoded as often as it may be.
    pub(super) fn user_agent(&mut self, sent: &str) {
        let (user_agent, depth) = percent_decoded(sent);
        self.request.user_agent = Some(user_agent.into_owned());
        self.request.decode_depth = Some(depth);
    }

    /// The host that the viewer asked for. These CDNs log no other.
    pub(super) fn host(&mut self, host: &str) {
        self.request.host = Some(host.to_owned());
        self.request.host_header = Some(host.to_owned());
    }

    /// A whole URL, or a path, with or without a query. A name and password before the host go nowhere.
    pub(super) fn url(&mut self, sent: &str) {
        let Some((scheme, rest)) = sent.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
            self.target(sent);
            return;
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        self.request.protocol = Some(scheme.to_ascii_lowercase());
        let authority = &rest[..end];
        self.host(authority.rsplit('@').next().unwrap_or(authority));
        self.target(&rest[end..]);
    }

    /// A path with or without its first slash and a query.
    pub(super) fn target(&mut self, sent: &str) {
        let sent = sent.split('#').next().unwrap_or(sent);
        let (path, query) = sent.split_once('?').unwrap_or((sent, ""));
        let slash = if path.starts_with('/') { "" } else { "/" };
        self.request.uri_stem = Some(format!("{slash}{path}"));
        if is_said(query) {
            self.request.uri_query = Some(query.to_owned());
        }
    }

    /// `HTTP/2`, `HTTP/1.1`; `HTTP/2.0` in CloudFront's spelling where a log leaves the zero out.
    pub(super) fn protocol_version(&mut self, sent: &str) {
        let spelled = match sent {
            "HTTP/2" => "HTTP/2.0",
            "HTTP/3" => "HTTP/3.0",
            other => other,
        };
        self.request.protocol_version = Some(spelled.to_owned());
    }

    /// `TLS 1.3`, `TLSv1.3`, in CloudFront's spelling `TLSv1.3`; the words for plain text are none.
    pub(super) fn ssl_protocol(&mut self, sent: &str) {
        if sent.eq_ignore_ascii_case("none") {
            return;
        }
        let version = sent.strip_prefix("TLS ").map(|version| format!("TLSv{version}"));
        self.request.ssl_protocol = Some(version.unwrap_or_else(|| sent.to_owned()));
    }

    pub(super) fn ssl_cipher(&mut self, sent: &str) {
        if !sent.eq_ignore_ascii_case("none") {
            self.request.ssl_cipher = Some(sent.to_owned());
        }
    }

    /// `bytes=0-99`, `0-99`, `100-`: the first range, as CloudFront logs it.
    pub(super) fn range(&mut self, sent: &str) {
        let ranges = sent.trim().strip_prefix("bytes=").unwrap_or(sent);
        let first = ranges.split(',').next().unwrap_or(ranges).trim();
        let Some((start, end)) = first.split_once('-') else {
            self.flag("bad_value");
            return;
        };
        // The last bytes of an object: where they begin is not said.
        if start.is_empty() {
            return;
        }
        self.request.range_start = self.number(start, 0);
        self.request.range_end = (!end.is_empty()).then(|| self.number(end, 0)).flatten();
    }

    /// The addresses of `X-Forwarded-For`, in their order.
    pub(super) fn forwarded_for(&mut self, sent: &str) {
        let (decoded, _) = percent_decoded(sent);
        let mut addresses = decoded.split(',').map(str::trim).filter(|item| is_said(item));
        self.request.forwarded_for = addresses.by_ref().take(FORWARDED_MAX).map(str::to_owned).collect();
        if addresses.next().is_some() {
            self.flag("truncated");
        }
    }

    /// ISO 3166-1 alpha-2; other words for a country are left to the look-up.
    pub(super) fn country(&mut self, sent: &str) {
        if sent.len() == 2 && sent.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            self.request.network.country = Some(sent.to_ascii_uppercase());
        }
    }

    /// `64496` or `AS64496`; 0 is nobody's.
    pub(super) fn asn(&mut self, sent: &str) {
        let digits = sent.strip_prefix("AS").unwrap_or(sent);
        self.request.network.asn = self.number(digits, 0).filter(|asn| *asn > 0);
    }

    /// The edge as logged, and its place.
    pub(super) fn edge_location(&mut self, sent: &str) {
        self.request.edge_location = Some(sent.to_owned());
        if self.request.pop.is_none() {
            self.request.pop = pop(sent).map(|place| place.to_ascii_uppercase());
        }
    }

    /// How many requests this one stands for, as the log's sampling says; 1 is no sampling.
    pub(super) fn sample_interval(&mut self, sent: &str) {
        let weight = self.number(sent, 3).filter(|weight| *weight > 0 && *weight != 1_000);
        if self.request.sample_weight_milli != Some(NO_REQUEST) {
            self.request.sample_weight_milli = weight;
        }
    }

    /// A record of the CDN's own traffic (shield, cache fill, edge program): counted as no request.
    pub(super) fn is_no_viewer(&mut self) {
        self.request.sample_weight_milli = Some(NO_REQUEST);
    }

    /// One of the four CMCD headers, plain; any other header goes nowhere.
    pub(super) fn cmcd_header(&mut self, name: &str, value: Cow<'a, str>) {
        if let Some(known) = cmcd_header_named(name) {
            self.cmcd_headers.push((known, value));
        }
    }

    /// A key of CMCD that the CDN parsed itself.
    pub(super) fn cmcd_column(&mut self, key: &'static str, value: Cow<'a, str>) {
        self.cmcd_columns.push((key, value));
    }

    /// The request, complete but for `event_id` and `client_prefix`.
    ///
    /// Errors: `MissingEventTime` with `missing` for its detail, `EventTimeOutOfRange`.
    pub(super) fn finish(
        mut self,
        end_ms: Option<i64>,
        missing: &str,
        payload: &str,
        context: &DecodeContext,
    ) -> Result<CdnRequest, Reject> {
        let end_ms = end_ms.ok_or_else(|| reject(RejectReason::MissingEventTime, missing))?;
        self.request.event_ts_ms = event_time_in_range(end_ms, context)?;
        self.tell_aborts();
        self.tell_outcome();
        self.request.payload = payload.to_owned();
        for (raw, holds, written) in std::mem::take(&mut self.private) {
            self.request.private.mark(payload, raw, holds, written);
        }
        self.take_cmcd();
        self.request.ext = ext(self.kept, None, &mut self.request.dq_flags);
        Ok(self.request)
    }

    /// What the player said in headers and columns; its query is for `cmcd_in_log::settle`. The CDN's own
    /// traffic repeats what the viewer's request said, and must not say it twice.
    fn take_cmcd(&mut self) {
        if self.request.sample_weight_milli == Some(NO_REQUEST) {
            let query = self.request.uri_query.take();
            let rest = query.map(|query| without_parameter(&query).unwrap_or(query));
            self.request.uri_query = rest.filter(|rest| !rest.is_empty());
            return;
        }
        let candidates = Candidates {
            headers: self.cmcd_headers.iter().map(|(name, value)| (*name, value.as_ref())).collect(),
            columns: self.cmcd_columns.iter().map(|(key, value)| (*key, value.as_ref())).collect(),
            ..Candidates::default()
        };
        cmcd_in_log::take(&mut self.request, &candidates);
    }

    /// A viewer that went before an answer has status 0 in every format.
    fn tell_aborts(&mut self) {
        if self.request.status == Some(CLIENT_CLOSED_REQUEST) {
            self.keep("status", "499");
            self.request.status = Some(0);
        }
        if self.request.status == Some(0) {
            self.request.is_aborted = Some(true);
        }
    }

    /// The three result types (events and metrics, 4.1): an aborted answer is an `Error` whose
    /// response type still says where the object came from.
    fn tell_outcome(&mut self) {
        let status = self.request.status.unwrap_or(0);
        let is_error = status >= 400;
        let is_aborted = self.request.is_aborted == Some(true);
        let response = match self.outcome {
            _ if is_error => Some("Error"),
            Some(outcome) => Some(outcome.as_str()),
            None if REDIRECTS.contains(&status) => Some("Redirect"),
            None => None,
        };
        let detailed = match (is_error, is_aborted, self.outcome) {
            (true, _, _) => Some("Error"),
            (_, true, _) => Some("ClientCommError"),
            (_, _, Some(Outcome::ShieldHit)) => Some("OriginShieldHit"),
            _ => response,
        };
        let result = if is_aborted { Some("Error") } else { response };
        self.request.result_type = result.map(str::to_owned);
        self.request.response_result_type = response.map(str::to_owned);
        self.request.detailed_result_type = detailed.map(str::to_owned);
    }
}

pub(super) fn is_cmcd_header(name: &str) -> bool {
    cmcd_header_named(name).is_some()
}

fn cmcd_header_named(name: &str) -> Option<&'static str> {
    CMCD_HEADERS.into_iter().find(|known| known.eq_ignore_ascii_case(name))
}

/// A URL that the logger percent-encoded as a whole is decoded once; any other stays as it is.
pub(super) fn decoded_url(sent: &str) -> Cow<'_, str> {
    let starts_with = |start: &str| sent.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start));
    if starts_with("http%3A%2F") || starts_with("https%3A%2F") {
        return percent_decode_str(sent).decode_utf8_lossy();
    }
    Cow::Borrowed(sent)
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Rounded half up; `value` is not negative.
pub(super) fn rounded(value: i64, divisor: i64) -> i64 {
    value.saturating_add(divisor / 2) / divisor
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let check = |sent: &str, expected: [Option<&str>; 4]| {
            let mut row = Row::new("x");
            row.url(sent);
            let request = row.request;
            let parts = [&request.protocol, &request.host_header, &request.uri_stem, &request.uri_query];
            assert_eq!(parts.map(Option::as_deref), expected, "{sent}");
        };
        check(
            "https://cdn.example/a/b.m4s?CMCD=bl%3D1#x",
            [Some("https"), Some("cdn.example"), Some("/a/b.m4s"), Some("CMCD=bl%3D1")],
        );
        check("HTTP://cdn.example", [Some("http"), Some("cdn.example"), Some("/"), None]);
        check(
            "https://cdn.example?q=1",
            [Some("https"), Some("cdn.example"), Some("/"), Some("q=1")],
        );
        check(
            "https://ann:pw@cdn.example/a",
            [Some("https"), Some("cdn.example"), Some("/a"), None],
        );
        check("/a?u=https://b/c", [None, None, Some("/a"), Some("u=https://b/c")]);
        check("a/b", [None, None, Some("/a/b"), None]);
        check("/a?", [None, None, Some("/a"), None]);
    }

    #[test]
    fn outcomes_are_told_in_cloudfronts_words() {
        let check = |status: i64, is_aborted: Option<bool>, outcome: Option<Outcome>, expected: [Option<&str>; 3]| {
            let mut row = Row::new("x");
            row.request.status = Some(status);
            row.request.is_aborted = is_aborted;
            row.outcome = outcome;
            let context = DecodeContext { now_ms: 1_700_000_000_000 };
            let request = row.finish(Some(1_668_817_453_000), "", "", &context).unwrap();
            let types = [&request.result_type, &request.response_result_type, &request.detailed_result_type];
            assert_eq!(types.map(Option::as_deref), expected, "{status} {is_aborted:?} {outcome:?}");
        };
        check(200, None, Some(Outcome::Hit), [Some("Hit"); 3]);
        check(206, Some(false), Some(Outcome::RefreshHit), [Some("RefreshHit"); 3]);
        check(
            200,
            None,
            Some(Outcome::ShieldHit),
            [Some("Miss"), Some("Miss"), Some("OriginShieldHit")],
        );
        check(302, None, None, [Some("Redirect"); 3]);
        check(302, None, Some(Outcome::Miss), [Some("Miss"); 3]);
        check(404, None, Some(Outcome::Hit), [Some("Error"); 3]);
        check(
            200,
            Some(true),
            Some(Outcome::Hit),
            [Some("Error"), Some("Hit"), Some("ClientCommError")],
        );
        check(499, None, None, [Some("Error"), None, Some("ClientCommError")]);
        check(200, None, None, [None; 3]);
    }

    #[test]
    fn words_of_other_caches_are_known() {
        let check = |word: &str, expected: Option<Outcome>| assert_eq!(Outcome::of_word(word), expected, "{word}");
        check("HIT", Some(Outcome::Hit));
        check("TCP_HIT", Some(Outcome::Hit));
        check("tcp_refresh_hit", Some(Outcome::RefreshHit));
        check("TCP_MISS", Some(Outcome::Miss));
        check("OriginShieldHit", Some(Outcome::ShieldHit));
        check("TCP", None);
        check("TCPé", None);
        check("unknown", None);
    }

    #[test]
    fn ranges_and_proxies_are_read() {
        let check = |sent: &str, expected: (Option<i64>, Option<i64>)| {
            let mut row = Row::new("x");
            row.range(sent);
            assert_eq!((row.request.range_start, row.request.range_end), expected, "{sent}");
        };
        check("bytes=0-99", (Some(0), Some(99)));
        check("37334-42356", (Some(37_334), Some(42_356)));
        check("bytes=100-", (Some(100), None));
        check("bytes=-5, 7-9", (None, None));
        check("bytes", (None, None));

        let mut row = Row::new("x");
        row.forwarded_for("203.0.113.9,%20198.51.100.2, -");
        assert_eq!(row.request.forwarded_for, ["203.0.113.9", "198.51.100.2"]);
    }

    #[test]
    fn a_weight_of_nobody_is_not_sampled_up() {
        let mut row = Row::new("x");
        row.sample_interval("10");
        assert_eq!(row.request.sample_weight_milli, Some(10_000));
        row.is_no_viewer();
        row.sample_interval("10");
        assert_eq!(row.request.sample_weight_milli, Some(0));
        let mut row = Row::new("x");
        row.sample_interval("1");
        assert_eq!(row.request.sample_weight_milli, None);
    }
}
