//! Names that hosts and paths stand for: content id by configured rule, CDN name by host.
//!
//! `enrich` asks here for requests and events that name neither. A rule is data of the settings:
//!
//! ```text
//! /vod/{content_id}/**          /vod/film-1/video/seg1.m4s       film-1
//! /**/{content_id}.ism/**       /a/b/film-1.ism/Manifest         film-1
//! /live/*/{content_id}-*.ts     /live/eu/news-00017.ts           news
//! ```
//!
//! `*` is any text within a part, `**` any number of parts, also none. The path comes without its
//! query, and CMCD has been read before.
//!
//! Invariant: the first rule that matches decides.

use std::borrow::Cow;

use memchr::memchr;
use percent_encoding::percent_decode_str;

use super::pattern::Pattern;
pub use super::pattern::{PatternError, PatternFault};

/// `**` in one path. Two are enough for any place of the id, and keep matching quick.
const DOUBLE_STARS_MAX: usize = 2;

/// Hosts by which CDNs can be told without a setting, and the name that their logs go by.
const WELL_KNOWN_HOSTS: [(&str, &str); 17] = [
    ("*.cloudfront.net", "cloudfront"),
    ("*.akamaized.net", "akamai"),
    ("*.akamaihd.net", "akamai"),
    ("*.akamai.net", "akamai"),
    ("*.edgesuite.net", "akamai"),
    ("*.edgekey.net", "akamai"),
    ("*.fastly.net", "fastly"),
    ("*.fastlylb.net", "fastly"),
    ("*.cdn.cloudflare.net", "cloudflare"),
    ("*.cloudflarestream.com", "cloudflare"),
    ("*.edgecastcdn.net", "edgecast"),
    ("*.llnwd.net", "limelight"),
    ("*.azureedge.net", "azure"),
    ("*.azurefd.net", "azure"),
    ("*.b-cdn.net", "bunny"),
    ("*.cdn77.org", "cdn77"),
    ("*.gcdn.co", "gcore"),
];

/// One rule of the settings: where the content id stands in the paths of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct ContentRule {
    host: Option<Pattern>,
    parts: Vec<Part>,
}

/// A part of a path, between two slashes.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    One(Pattern),
    /// `**`
    Many,
}

impl ContentRule {
    /// `host`: a pattern with `*`, in any case; `None`: every host.
    ///
    /// # Errors
    ///
    /// The column of the faulty one of the two texts, what is wrong and what to write.
    pub fn parse(host: Option<&str>, path: &str) -> Result<ContentRule, PatternError> {
        let host = host.map(parse_host).transpose()?;
        Ok(ContentRule {
            host,
            parts: parse_path(path)?,
        })
    }

    fn content_id<'p>(&self, host: Option<&str>, path: &'p str) -> Option<&'p str> {
        if let Some(pattern) = &self.host
            && !host.is_some_and(|host| pattern.matches_any_case(without_port(host)))
        {
            return None;
        }
        content_id(&self.parts, Some(path.strip_prefix('/').unwrap_or(path)))
    }
}

/// The rules of the settings, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContentRules(Vec<ContentRule>);

impl ContentRules {
    pub fn new(rules: Vec<ContentRule>) -> ContentRules {
        ContentRules(rules)
    }

    /// The content that `path` is about, percent-decoded once. A query is not looked at.
    pub fn content_id<'p>(&self, host: Option<&str>, path: &'p str) -> Option<Cow<'p, str>> {
        if self.0.is_empty() {
            return None;
        }
        let path = memchr(b'?', path.as_bytes()).map_or(path, |query| &path[..query]);
        let found = self.0.iter().find_map(|rule| rule.content_id(host, path))?;
        match memchr(b'%', found.as_bytes()) {
            Some(_) => Some(percent_decode_str(found).decode_utf8_lossy()),
            None => Some(Cow::Borrowed(found)),
        }
    }
}

/// Which CDN a host belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct CdnNames {
    configured: Vec<(Pattern, Box<str>)>,
    well_known: Vec<(Pattern, &'static str)>,
}

impl Default for CdnNames {
    fn default() -> CdnNames {
        let well_known = WELL_KNOWN_HOSTS
            .iter()
            .filter_map(|(host, name)| Some((parse_host(host).ok()?, *name)));
        CdnNames {
            configured: Vec::new(),
            well_known: well_known.collect(),
        }
    }
}

impl CdnNames {
    /// Appends a rule of the settings: hosts that match `host` are `cdn`'s.
    ///
    /// # Errors
    ///
    /// The column of `host`, what is wrong and what to write.
    pub fn add(&mut self, host: &str, cdn: &str) -> Result<(), PatternError> {
        self.configured.push((parse_host(host)?, cdn.into()));
        Ok(())
    }

    /// The name that a rule of the settings gives.
    pub fn configured(&self, host: &str) -> Option<&str> {
        let host = without_port(host);
        let found = self.configured.iter().find(|(pattern, _)| pattern.matches_any_case(host));
        found.map(|(_, name)| &**name)
    }

    /// The name that a rule of the settings gives, else that of a host that is the CDN's own.
    pub fn name(&self, host: &str) -> Option<&str> {
        self.configured(host).or_else(|| {
            let host = without_port(host);
            let found = self.well_known.iter().find(|(pattern, _)| pattern.matches_any_case(host));
            found.map(|(_, name)| *name)
        })
    }
}

fn parse_host(text: &str) -> Result<Pattern, PatternError> {
    let at = |byte: usize, fault| PatternError {
        column: 1 + text[..byte].chars().count(),
        fault,
    };
    if text.is_empty() {
        return Err(at(0, PatternFault::Empty));
    }
    if let Some(colon) = text.find(':') {
        return Err(at(colon, PatternFault::HasPort));
    }
    let pattern = Pattern::parse(text, 1)?;
    if pattern.has_content_id() {
        return Err(at(text.find('{').unwrap_or_default(), PatternFault::NoContentIdHere));
    }
    Ok(pattern)
}

fn parse_path(text: &str) -> Result<Vec<Part>, PatternError> {
    let at = |byte: usize, fault| PatternError {
        column: 1 + text[..byte].chars().count(),
        fault,
    };
    if text.is_empty() {
        return Err(at(0, PatternFault::Empty));
    }
    if !text.starts_with('/') {
        return Err(at(0, PatternFault::NoLeadingSlash));
    }
    if let Some(query) = text.find('?') {
        return Err(at(query, PatternFault::HasQuery));
    }
    let mut parts = Vec::new();
    let (mut from, mut content_ids, mut double_stars) = (1, 0, 0);
    for part in text[1..].split('/') {
        let column = at(from, PatternFault::Empty).column;
        if part == "**" {
            double_stars += 1;
            if double_stars > DOUBLE_STARS_MAX {
                return Err(at(from, PatternFault::TooManyDoubleStars));
            }
            parts.push(Part::Many);
        } else {
            let pattern = Pattern::parse(part, column)?;
            content_ids += usize::from(pattern.has_content_id());
            if content_ids > 1 && pattern.has_content_id() {
                return Err(at(from, PatternFault::TwoContentIds));
            }
            parts.push(Part::One(pattern));
        }
        from += part.len() + 1;
    }
    match content_ids {
        0 => Err(at(0, PatternFault::NoContentId)),
        _ => Ok(parts),
    }
}

/// `path`: the parts that are left, `None` behind the last. Empty where the parts hold no content id.
fn content_id<'p>(parts: &[Part], path: Option<&'p str>) -> Option<&'p str> {
    let Some((first, parts_left)) = parts.split_first() else {
        return path.is_none().then_some("");
    };
    match first {
        Part::One(pattern) => {
            let (part, path_left) = next_part(path?);
            let found = pattern.content_id(part)?;
            let behind = content_id(parts_left, path_left)?;
            Some(if found.is_empty() { behind } else { found })
        }
        Part::Many if parts_left.is_empty() => Some(""),
        Part::Many => {
            let mut path = path;
            loop {
                if let Some(found) = content_id(parts_left, path) {
                    return Some(found);
                }
                path = next_part(path?).1;
            }
        }
    }
}

fn next_part(path: &str) -> (&str, Option<&str>) {
    memchr(b'/', path.as_bytes()).map_or((path, None), |slash| (&path[..slash], Some(&path[slash + 1..])))
}

fn without_port(host: &str) -> &str {
    memchr(b':', host.as_bytes()).map_or(host, |colon| &host[..colon])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(rules: &[(Option<&str>, &str)]) -> ContentRules {
        let rules = rules.iter().map(|(host, path)| ContentRule::parse(*host, path).unwrap());
        ContentRules::new(rules.collect())
    }

    #[test]
    fn the_id_stands_where_the_rule_says() {
        let check = |rule: &str, path: &str, expected: Option<&str>| {
            assert_eq!(
                rules(&[(None, rule)]).content_id(None, path).as_deref(),
                expected,
                "{rule} on {path}"
            );
        };
        check("/vod/{content_id}/**", "/vod/film-1/video/seg1.m4s", Some("film-1"));
        check("/vod/{content_id}/**", "/vod/film-1", Some("film-1"));
        check("/vod/{content_id}/**", "/vod/film-1?CMCD=sid%3D1/x", Some("film-1"));
        check("/vod/{content_id}/**", "vod/film-1/a", Some("film-1"));
        check("/vod/{content_id}/**", "/vod/film%20one/a", Some("film one"));
        check("/vod/{content_id}/**", "/live/film-1/a", None);
        check("/vod/{content_id}/**", "/vod", None);
        check("/vod/{content_id}/**", "/vod//a", None);
        check("/vod/{content_id}", "/vod/a/b", None);
        check("/**/{content_id}.ism/**", "/a/b/film.ism/Manifest", Some("film"));
        check(
            "/**/{content_id}.ism/**",
            "/film.ism/QualityLevels(1)/Fragments(video=0)",
            Some("film"),
        );
        check("/**/{content_id}.ism/**", "/a/film.mp4", None);
        check("/live/*/{content_id}-*.ts", "/live/eu/news-00017.ts", Some("news"));
        check("/live/*/{content_id}-*.ts", "/live/eu/x/news-00017.ts", None);
        check("/**/{content_id}/**/end", "/a/b/c/end", Some("a"));
        check("/{content_id}/", "/a/", Some("a"));
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = rules(&[(Some("*.live.example.com"), "/{content_id}/**"), (None, "/vod/{content_id}/**")]);
        let check = |host: Option<&str>, path: &str, expected: Option<&str>| {
            assert_eq!(rules.content_id(host, path).as_deref(), expected, "{host:?} {path}");
        };
        check(Some("a.LIVE.example.com:443"), "/vod/x", Some("vod"));
        check(Some("a.example.com"), "/vod/x", Some("x"));
        check(None, "/vod/x", Some("x"));
        check(None, "/other/x", None);
        assert_eq!(ContentRules::default().content_id(None, "/vod/x"), None);
    }

    #[test]
    fn a_faulty_rule_is_refused_with_place_and_fix() {
        let check = |host: Option<&str>, path: &str, expected: &str| {
            let error = ContentRule::parse(host, path).unwrap_err().to_string();
            assert_eq!(error, expected, "{host:?} {path}");
        };
        check(None, "", "column 1: it is empty; leave the setting out, or write what is to match");
        check(None, "vod/{content_id}", "column 1: a path begins with /; put one in front");
        check(
            None,
            "/vod/**",
            "column 1: {content_id} is missing; write it where the path names the content",
        );
        check(
            None,
            "/{content_id}/{content_id}",
            "column 15: {content_id} stands here a second time; write * for one of them",
        );
        check(
            None,
            "/vod/{id}/**",
            "column 6: {id} is no name that is known here; write {content_id}, or * for what may be anything",
        );
        check(
            None,
            "/**/a/**/{content_id}/**",
            "column 23: this is the third **; two are enough for any path",
        );
        check(
            None,
            "/vod/a**/{content_id}",
            "column 7: ** stands for whole parts of a path; write it alone between slashes, or a single *",
        );
        check(
            None,
            "/{content_id}?x",
            "column 14: a path is matched without its query; end it before the ?",
        );
        check(
            Some("a:80"),
            "/{content_id}",
            "column 2: a host is matched without its port; end it before the :",
        );
        check(
            Some("a.{content_id}"),
            "/{content_id}",
            "column 3: a host holds no {content_id}; write * there, and {content_id} in the path",
        );
    }

    #[test]
    fn a_host_names_its_cdn() {
        let mut names = CdnNames::default();
        names.add("media*.example.com", "cdn-b").unwrap();
        names.add("*.example.com", "cdn-a").unwrap();
        let check = |host: &str, configured: Option<&str>, name: Option<&str>| {
            assert_eq!((names.configured(host), names.name(host)), (configured, name), "{host}");
        };
        check("media1.example.com", Some("cdn-b"), Some("cdn-b"));
        check("VOD.example.com:443", Some("cdn-a"), Some("cdn-a"));
        check("d1234.cloudfront.net", None, Some("cloudfront"));
        check("x.akamaized.net", None, Some("akamai"));
        check("cloudfront.net.example.org", None, None);
        check("", None, None);
        assert!(names.add("", "x").is_err());
    }

    #[test]
    fn every_well_known_host_is_a_pattern() {
        assert_eq!(CdnNames::default().well_known.len(), WELL_KNOWN_HOSTS.len());
    }

    proptest! {
        #[test]
        fn any_rule_and_path_are_no_panic(
            rule in "(/|\\*|\\*\\*|a|é|\\{content_id\\}|[{}?]){0,9}",
            path in "[/aé%4.?]{0,16}",
        ) {
            if let Ok(rule) = ContentRule::parse(None, &format!("/{rule}")) {
                let found = ContentRules::new(vec![rule]).content_id(Some("h"), &path).map(Cow::into_owned);
                prop_assert!(found.is_none_or(|id| !id.is_empty()));
            }
        }
    }
}
