//! Cookies, queries and referrers of a CDN's record, treated by the lists in its fields and in its payload.
//!
//! Stands before the cut of addresses: the marked places are those of the payload as received.
//!
//! Invariant: the payload decoded again gives the fields as they are stored.
//! Invariant: a payload whose marks do not fit is not stored.

use std::borrow::Cow;
use std::cmp::Reverse;

use super::lists::{Query, query_of};
use super::{IdentityPolicy, Privacy, unescaped};
use crate::event::decode::cmcd::query::{parameters, replace_in_text, replace_in_value};
use crate::event::decode::cmcd::{custom_items_of_cmcd, headers_block_of_cmcd};
use crate::event::decode::written::{read, write};
use crate::event::private::{Holds, PrivatePart, PrivateParts, Written};
use crate::event::{CdnRequest, Identity};

/// Two of the values of `CdnRequest::cmcd_carrier`.
const CMCD_IN_QUERY: &str = "query";
const CMCD_IN_HEADERS: &str = "headers";
/// The rule a record broke whose decoder marked what the payload does not have.
const UNUSABLE_MARK: &str = "unusable_private_mark";
/// What a line has for a request that nobody can read, and that is none either.
const GARBLED: &str = "?";

/// What the parts of one record are treated by.
struct Treatment {
    /// Where the query stands that the request was read with.
    query_at: Option<usize>,
    is_cmcd_in_query: bool,
    is_cmcd_in_headers: bool,
    cmcd_tells: bool,
}

impl Privacy {
    /// Treats fields and payload, and forgets the marks.
    pub(super) fn withhold(&self, request: &mut CdnRequest) {
        let private = std::mem::take(&mut request.private);
        self.treat_fields(request);
        if private.parts.is_empty() {
            return;
        }
        match self.treated_payload(request, private) {
            Some(Cow::Owned(payload)) => request.payload = payload,
            Some(Cow::Borrowed(_)) => {}
            None => {
                request.payload.clear();
                request.dq_flags.push(UNUSABLE_MARK);
            }
        }
    }

    fn treat_fields(&self, request: &mut CdnRequest) {
        let lists = &self.lists;
        let treat = |field: &mut Option<String>, treated: &dyn Fn(&str) -> String| {
            *field = field.take().map(|text| treated(&text)).filter(|text| !text.is_empty());
        };
        treat(&mut request.cookie, &|text| lists.cookie(text));
        treat(&mut request.referer, &|text| lists.referrer(text).into_owned());
        treat(&mut request.uri_query, &|text| lists.query(text, Query::Listed).into_owned());
    }

    /// `None`: a mark is not in the payload.
    fn treated_payload<'a>(&self, request: &'a CdnRequest, private: PrivateParts) -> Option<Cow<'a, str>> {
        let payload = request.payload.as_str();
        let mut parts = private.parts;
        parts.sort_by_key(|part| (part.range.start, Reverse(part.range.end)));
        let texts: Option<Vec<Cow<'_, str>>> = parts
            .iter()
            .map(|part| Some(read(payload.get(part.range.clone())?, part.written)))
            .collect();
        let texts = texts?;
        let treatment = Treatment {
            query_at: place_of_query(&parts, &texts),
            is_cmcd_in_query: request.cmcd_carrier == Some(CMCD_IN_QUERY),
            is_cmcd_in_headers: request.cmcd_carrier == Some(CMCD_IN_HEADERS),
            cmcd_tells: private.cmcd_tells,
        };
        let mut out = String::new();
        let mut done = 0;
        let mut covered = 0;
        for (place, (part, text)) in parts.iter().zip(&texts).enumerate() {
            // Two fields of one map may be read from one place; the first mark treats it.
            if part.range.end <= covered {
                continue;
            }
            if part.range.start < covered {
                return None;
            }
            covered = part.range.end;
            let treated = self.treated(part.holds, text, &treatment, treatment.query_at == Some(place));
            // A line's word for nothing may stay; in JSON it may be a text.
            let is_nothing = treated.is_empty() && says_nothing(text) && part.written != Written::Json;
            if treated == *text || is_nothing {
                continue;
            }
            out.push_str(&payload[done..part.range.start]);
            out.push_str(&write(&treated, part.written));
            done = part.range.end;
        }
        if done == 0 {
            return Some(Cow::Borrowed(payload));
        }
        out.push_str(&payload[done..]);
        Some(Cow::Owned(out))
    }

    fn treated<'a>(&self, holds: Holds, text: &'a str, treatment: &Treatment, is_the_query: bool) -> Cow<'a, str> {
        let kept = match (is_the_query, treatment.is_cmcd_in_query) {
            (false, _) => Query::Unused,
            (true, false) => Query::Listed,
            (true, true) => Query::ListedAndCmcd,
        };
        let plain_cmcd = |text: &str| match treatment.cmcd_tells {
            true => self.without_names(text).unwrap_or_else(|| text.to_owned()),
            false => text.to_owned(),
        };
        match holds {
            Holds::Cookie => Cow::Owned(self.lists.cookie(text)),
            Holds::Referer => self.lists.referrer(text),
            Holds::Query => self.query(self.lists.query(text, kept), treatment),
            Holds::Target => Cow::Owned(self.target(text, kept, treatment)),
            Holds::RequestLine => Cow::Owned(self.request_line(text, kept, treatment)),
            Holds::Garbled => Cow::Borrowed(GARBLED),
            Holds::Withheld => Cow::Borrowed(""),
            Holds::CmcdUrl => self.lists.named_urls(text).map_or(Cow::Borrowed(text), Cow::Owned),
            _ if !treatment.is_cmcd_in_headers => Cow::Borrowed(""),
            Holds::HeadersBlock => Cow::Owned(headers_block_of_cmcd(text, plain_cmcd)),
            Holds::CustomField => Cow::Owned(custom_items_of_cmcd(text, plain_cmcd)),
            Holds::Cmcd if treatment.cmcd_tells => Cow::Owned(plain_cmcd(text)),
            Holds::Cmcd => Cow::Borrowed(text),
        }
    }

    fn target(&self, text: &str, kept: Query, treatment: &Treatment) -> String {
        let target = self.lists.target(text, kept);
        match target.split_once('?') {
            Some((path, query)) if treatment.cmcd_tells => {
                format!("{path}?{}", self.query(Cow::Borrowed(query), treatment))
            }
            _ => target,
        }
    }

    /// The target stands behind the first blanks; what is behind it is the protocol.
    fn request_line(&self, line: &str, kept: Query, treatment: &Treatment) -> String {
        let is_blank = |letter: char| letter.is_ascii_whitespace();
        let start = line.find(is_blank).unwrap_or(line.len());
        let start = line.len() - line[start..].trim_start_matches(is_blank).len();
        let (before, rest) = line.split_at(start);
        let (target, behind) = rest.split_at(rest.find(is_blank).unwrap_or(rest.len()));
        [before, &self.target(target, kept, treatment), behind].concat()
    }

    /// A query that was treated, with pseudonyms in its CMCD.
    fn query<'a>(&self, query: Cow<'a, str>, treatment: &Treatment) -> Cow<'a, str> {
        if !treatment.cmcd_tells || !treatment.is_cmcd_in_query {
            return query;
        }
        let parts: Vec<String> = parameters(&query)
            .map(|parameter| match parameter.value {
                Some(value) if parameter.is_cmcd() => {
                    let named = replace_in_value(value, |id, identity| self.name_of(id, identity));
                    format!("{}={}", parameter.name, named.as_deref().unwrap_or(value))
                }
                _ => parameter.whole.to_owned(),
            })
            .collect();
        Cow::Owned(parts.join("&"))
    }

    fn without_names(&self, text: &str) -> Option<String> {
        replace_in_text(text, |id, identity| self.name_of(id, identity))
    }

    /// What stands for a value that must not be stored as it is. `None`: it may.
    fn name_of(&self, value: &str, identity: Identity) -> Option<String> {
        match identity {
            Identity::Position => Some(String::new()),
            Identity::Url => self.lists.named_urls(value),
            Identity::User | Identity::Device if self.policy == IdentityPolicy::Keep => None,
            Identity::User | Identity::Device => Some(self.pseudonym(&unescaped(value))),
        }
    }
}

/// Which part has the query that the decoder took: the last column of queries, else the last target with one.
fn place_of_query(parts: &[PrivatePart], texts: &[Cow<'_, str>]) -> Option<usize> {
    let last = |has_query: &dyn Fn(Holds, &str) -> bool| {
        let mut places = parts.iter().zip(texts).enumerate().rev();
        places.find(|(_, (part, text))| has_query(part.holds, text)).map(|(place, _)| place)
    };
    let is_target = |holds: Holds| matches!(holds, Holds::Target | Holds::RequestLine);
    last(&|holds, text| holds == Holds::Query && !matches!(text, "" | "?" | "?-"))
        .or_else(|| last(&|holds, text| is_target(holds) && !says_nothing(query_of(text))))
}

/// The loggers' words for nothing, as the decoders know them.
fn says_nothing(text: &str) -> bool {
    matches!(text, "" | "-" | "(null)")
}

#[cfg(test)]
mod tests;
