//! What of cookies, queries and referrers may be stored, by the lists of the settings.
//!
//! ```text
//! token=1&CMCD=bs&lang=de        ->  CMCD=bs            (keep_query: nothing)
//! session=1; ab=2                ->  ab=2               (keep_cookies: [ab])
//! https://site.example/a?user=1  ->  https://site.example/
//! ```
//!
//! Invariant: what was treated once stays as it is when it is treated again.
//! Invariant: a name or a value that cannot be told apart from others goes.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::event::decode::cmcd::query::{Parameter, parameters, plain_name};
use crate::event::private::path_of;

/// How often a referrer may be percent-encoded: by the logger and two proxies.
const DECODES_MAX: usize = 3;

/// What is kept of the page that sent the viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Referrer {
    /// Scheme, host and port, as `https://site.example/`.
    #[default]
    Origin,
    Drop,
    /// As sent.
    Keep,
}

/// The lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lists {
    /// Names of parameters, case-sensitive. CMCD needs none: it is kept where it was read from.
    pub keep_query: Vec<String>,
    /// Names of cookies, case-sensitive.
    pub keep_cookies: Vec<String>,
    pub referrer: Referrer,
}

/// What of a query is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// Nothing: the request has another one.
    Unused,
    /// The listed parameters.
    Listed,
    /// The listed parameters and the first CMCD.
    ListedAndCmcd,
}

impl Lists {
    /// A query, with or without its `?`. Empty: nothing may stay.
    pub fn query<'a>(&self, query: &'a str, kept: Query) -> Cow<'a, str> {
        let query = query.strip_prefix('?').unwrap_or(query);
        if kept == Query::Unused || query.is_empty() {
            return Cow::Borrowed("");
        }
        let mut takes_cmcd = kept == Query::ListedAndCmcd;
        let mut out: Vec<&str> = Vec::new();
        for parameter in parameters(query) {
            let may_stay = if parameter.is_cmcd() {
                std::mem::take(&mut takes_cmcd)
            } else {
                self.keeps(&parameter)
            };
            if may_stay {
                out.push(parameter.whole);
            }
        }
        match out[..] {
            [] => Cow::Borrowed(""),
            [only] => Cow::Borrowed(only),
            _ => Cow::Owned(out.join("&")),
        }
    }

    fn keeps(&self, parameter: &Parameter<'_>) -> bool {
        let is_listed = |name: &str| self.keep_query.iter().any(|kept| kept == name);
        !self.keep_query.is_empty() && is_listed(&plain_name(parameter.name))
    }

    /// Cookies as a request sends them. Empty: nothing may stay.
    pub fn cookie(&self, cookies: &str) -> String {
        if self.keep_cookies.is_empty() {
            return String::new();
        }
        let listed = |cookie: &&str| {
            let name = plain_name(cookie.split('=').next().unwrap_or(cookie));
            self.keep_cookies.iter().any(|kept| *kept == name)
        };
        let kept: Vec<&str> = cookies.split(';').map(without_blank).filter(listed).collect();
        kept.join(";")
    }

    /// A referrer. Empty: nothing may stay.
    pub fn referrer<'a>(&self, referrer: &'a str) -> Cow<'a, str> {
        match self.referrer {
            Referrer::Keep => Cow::Borrowed(referrer),
            Referrer::Drop => Cow::Borrowed(""),
            Referrer::Origin => origin(referrer).map_or(Cow::Borrowed(""), Cow::Owned),
        }
    }

    /// A path or URL: a name and password before the host, the fragment and what of the query may not stay go.
    pub fn target(&self, target: &str, kept: Query) -> String {
        let (scheme, authority, rest) = authority(target);
        let host = authority.rsplit('@').next().unwrap_or(authority);
        let path = path_of(rest);
        let mut out = [scheme, host, path].concat();
        if out.is_empty() {
            out.push('/');
        }
        let query = self.query(query_of(rest), kept);
        if !query.is_empty() {
            out.push('?');
            out.push_str(&query);
        }
        out
    }
}

/// The query of a path or URL as the decoders take it; empty if there is none.
pub fn query_of(target: &str) -> &str {
    let behind = &target[path_of(target).len()..];
    let before_fragment = behind.split('#').next().unwrap_or(behind);
    before_fragment.split_once('?').map_or("", |(_, query)| query)
}

/// `https://`, `ann:pw@host` and the rest of a URL; a path is all rest.
fn authority(target: &str) -> (&str, &str, &str) {
    let is_scheme = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let Some(scheme) = target.find("://").filter(|end| is_scheme(&target[..*end])) else {
        return ("", "", target);
    };
    let (scheme, rest) = target.split_at(scheme + "://".len());
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    (scheme, authority, rest)
}

/// A cookie without the blank before it, which a logger may have encoded.
fn without_blank(cookie: &str) -> &str {
    let mut cookie = cookie.trim();
    while let Some(rest) = cookie.strip_prefix("%20").or_else(|| cookie.strip_prefix('+')) {
        cookie = rest.trim_start();
    }
    cookie.strip_prefix("%2520").unwrap_or(cookie)
}

/// `None`: not a URL with a plain host.
fn origin(referrer: &str) -> Option<String> {
    let mut url = Cow::Borrowed(referrer.trim());
    for _ in 0..DECODES_MAX {
        if url.contains("://") || !url.contains('%') {
            break;
        }
        url = Cow::Owned(percent_decode_str(&url).decode_utf8_lossy().into_owned());
    }
    let (scheme, rest) = url.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let authority = rest.split(['/', '?', '#', '\\', ' ']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let host = match host.split_once('%') {
        Some((host, escape)) if ends_host(escape) => host,
        Some(_) => return None,
        None => host,
    };
    (is_scheme && is_host(host)).then(|| format!("{scheme}://{host}/"))
}

/// True for `2F` (a slash), `3F` or `23`, or these encoded again, behind a percent sign.
fn ends_host(mut escape: &str) -> bool {
    while let Some(again) = escape.strip_prefix("25") {
        escape = again;
    }
    matches!(escape.get(..2), Some("2F" | "2f" | "3F" | "3f" | "23"))
}

/// A name or an address, perhaps with a port.
fn is_host(host: &str) -> bool {
    let is_plain = |text: &str| {
        text.chars()
            .all(|letter| letter.is_alphanumeric() || matches!(letter, '.' | '-' | '_'))
    };
    let is_port = |text: &str| text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let is_ipv6 = |text: &str| text.chars().all(|letter| letter.is_ascii_hexdigit() || matches!(letter, ':' | '.'));
        return rest
            .split_once(']')
            .is_some_and(|(address, port)| is_ipv6(address) && is_port(port.trim_start_matches(':')));
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    !name.is_empty() && is_plain(name) && is_port(port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lists(keep_query: &[&str], keep_cookies: &[&str], referrer: Referrer) -> Lists {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Lists {
            keep_query: owned(keep_query),
            keep_cookies: owned(keep_cookies),
            referrer,
        }
    }

    #[test]
    fn a_query_keeps_what_is_listed_and_the_cmcd_that_was_read() {
        let check = |query: &str, kept: Query, expected: &str| {
            assert_eq!(
                lists(&["lang", "q v"], &[], Referrer::Origin).query(query, kept),
                expected,
                "{query}"
            );
        };
        check("token=1&CMCD=bs&lang=de", Query::Listed, "lang=de");
        check("token=1&CMCD=bs&lang=de&CMCD=su", Query::ListedAndCmcd, "CMCD=bs&lang=de");
        check("token=1&CMCD=bs&lang=de", Query::Unused, "");
        check("?lang&Lang=x&langs=1&q%20v=2&q%2520v=3", Query::Listed, "lang&q%20v=2&q%2520v=3");
        check("token%3D1%26lang%3Dde", Query::Listed, "");
        check("lang%3Dde%26token=1", Query::Listed, "");
        check("%43MCD=bs&%2543MCD=su", Query::ListedAndCmcd, "%43MCD=bs");
        check("CMCD=bl=0,cid=\"a&b\"&t=1", Query::ListedAndCmcd, "CMCD=bl=0,cid=\"a&b\"");
        check("t=\"&CMCD=bs&u=\"", Query::ListedAndCmcd, "CMCD=bs");
    }

    #[test]
    fn a_cookie_stays_if_it_is_listed() {
        let check = |cookies: &str, expected: &str| {
            assert_eq!(lists(&[], &["ab", "c"], Referrer::Origin).cookie(cookies), expected, "{cookies}");
            assert_eq!(Lists::default().cookie(cookies), "");
        };
        check("session=1; ab=2; c=3", "ab=2;c=3");
        check("session=1;%20ab=2;%2520c=3", "ab=2;c=3");
        check("ab%3D2%3B%20session%3D1", "");
        check("abc=1", "");
    }

    #[test]
    fn a_referrer_is_its_origin() {
        let check = |referrer: &str, expected: &str| {
            let stored = Lists::default().referrer(referrer).into_owned();
            assert_eq!(stored, expected, "{referrer}");
            assert_eq!(Lists::default().referrer(&stored), expected, "{referrer}");
        };
        check("https://site.example/path?u=1", "https://site.example/");
        check("https://site.example", "https://site.example/");
        check("https://site.example:8443?u=1#x", "https://site.example:8443/");
        check("https%3A%2F%2Fsite.example%2Fpath%3Fu%3D1", "https://site.example/");
        check("https%253A%252F%252Fsite.example%252F", "https://site.example/");
        check("https://site.example%2Fpath", "https://site.example/");
        check("https://ann:pw@site.example/", "https://site.example/");
        check("https://ann%40:pw@site.example/", "https://site.example/");
        check("https://ann%3Apw%40site.example/", "");
        check("https://ann:pw", "");
        check("https://[2001:db8::]:443/a", "https://[2001:db8::]:443/");
        check("android-app://com.example.app/", "android-app://com.example.app/");
        check("site.example/path", "");
        check("https://user=1", "");
        check("-", "");
        let kept = lists(&[], &[], Referrer::Keep);
        assert_eq!(kept.referrer("https://a/b?c"), "https://a/b?c");
        assert_eq!(lists(&[], &[], Referrer::Drop).referrer("https://a/"), "");
    }

    #[test]
    fn a_target_keeps_its_path() {
        let check = |target: &str, expected: &str| {
            assert_eq!(Lists::default().target(target, Query::ListedAndCmcd), expected, "{target}");
        };
        check("/a/b.ts?token=1", "/a/b.ts");
        check("/a/b.ts?token=1&CMCD=bs#x", "/a/b.ts?CMCD=bs");
        check("/a#token=1?CMCD=bs", "/a");
        check("/a%3Ftoken%3D1", "/a");
        check("https://ann:pw@h.example/a?t=1", "https://h.example/a");
        check("?t=1", "/");
        check("/a?u=https://ann:pw@b/c", "/a");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_query_keeps_listed_names_only_and_stays_so(
            query in r#"(CMCD=|lang=|token=SECRET|SECRET=|%43MCD=|%6Cang|[&?=;]|["\\+%, ]|%3D|%26|%22|[a-z0-9ä]){0,24}"#,
        ) {
            let lists = lists(&["lang"], &[], Referrer::Origin);
            for kept in [Query::Unused, Query::Listed, Query::ListedAndCmcd] {
                let stored = lists.query(&query, kept).into_owned();
                prop_assert_eq!(lists.query(&stored, kept), stored.as_str());
                for parameter in parameters(&stored).filter(|parameter| !parameter.whole.is_empty()) {
                    let is_listed = plain_name(parameter.name) == "lang";
                    prop_assert!(is_listed || kept == Query::ListedAndCmcd && parameter.is_cmcd(), "{}", stored);
                }
                let target = lists.target(&format!("/a?{query}"), kept);
                prop_assert_eq!(lists.target(&target, kept), target.as_str());
            }
        }

        #[test]
        fn secret_parameters_go_and_cmcd_is_read_as_before(
            names in proptest::collection::vec("[a-zA-Z_%0-9]{1,8}", 0..5),
            values in proptest::collection::vec(r#"[a-z"\\%=;,+/]{0,4}SECRET[a-z"\\%=;,+/?#]{0,4}"#, 5),
            place in 0..6usize,
            cmcd in r#"(bl%3D0%2Cbs|bl=0,sid="a",bs|br%253D3200%252Cbs|sid%3D%22x%26y%22)"#,
        ) {
            let mut all: Vec<String> = names.iter().zip(&values).map(|(name, value)| format!("{name}={value}")).collect();
            all.insert(place.min(all.len()), format!("CMCD={cmcd}"));
            let query = all.join("&");
            prop_assert_eq!(Lists::default().query(&query, Query::ListedAndCmcd), format!("CMCD={cmcd}"));
            prop_assert_eq!(Lists::default().query(&query, Query::Listed), "");
        }

        #[test]
        fn any_referrer_leaves_at_most_an_origin(referrer in r#"(https?(://|%3A%2F%2F)|[/?#@:%\\ ]|%2F|%40|[a-z.0-9]{1,6}){0,10}"#) {
            let stored = Lists::default().referrer(&referrer).into_owned();
            prop_assert_eq!(Lists::default().referrer(&stored), stored.as_str());
            prop_assert!(!stored.contains(['?', '#', '@', '%', '\\']));
            prop_assert!(stored.matches('/').count() == 3 || stored.is_empty());
        }
    }
}
