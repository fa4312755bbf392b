//! Patterns of hosts and of path parts: literal text, `*`, `{content_id}`.
//!
//! `names` builds its rules from these. Parsed once, at the start; matching allocates nothing.
//!
//! Invariant: matching takes time in proportion to the text: a wildcard takes the least that lets the
//! literal behind it match, and never gives it back.

use std::fmt;

/// The one name that a pattern may hold.
pub(super) const CONTENT_ID: &str = "{content_id}";

/// Characters of a pattern; hosts and path parts in use are far shorter.
const CHARS_MAX: usize = 1024;

/// Why a pattern cannot be used: where, what and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {fault}")]
pub struct PatternError {
    /// Character of the setting's text, from 1.
    pub column: usize,
    pub fault: PatternFault,
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternFault {
    Empty,
    TooLong,
    UnknownName(String),
    UnclosedBrace,
    StrayBrace,
    Adjacent,
    NoContentIdHere,
    TwoContentIds,
    NoContentId,
    NoLeadingSlash,
    HasQuery,
    DoubleStarInPart,
    TooManyDoubleStars,
    HasPort,
}

impl fmt::Display for PatternFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            PatternFault::Empty => "it is empty; leave the setting out, or write what is to match",
            PatternFault::TooLong => "it is longer than 1024 characters; shorten it with * or **",
            PatternFault::UnknownName(name) => {
                return write!(
                    out,
                    "{{{name}}} is no name that is known here; write {CONTENT_ID}, or * for what may be anything"
                );
            }
            PatternFault::UnclosedBrace => "this { is not closed; write {content_id}",
            PatternFault::StrayBrace => "this } closes nothing; take it out",
            PatternFault::Adjacent => "two wildcards stand side by side, and nothing says where the first ends; put text between them",
            PatternFault::NoContentIdHere => "a host holds no {content_id}; write * there, and {content_id} in the path",
            PatternFault::TwoContentIds => "{content_id} stands here a second time; write * for one of them",
            PatternFault::NoContentId => "{content_id} is missing; write it where the path names the content",
            PatternFault::NoLeadingSlash => "a path begins with /; put one in front",
            PatternFault::HasQuery => "a path is matched without its query; end it before the ?",
            PatternFault::DoubleStarInPart => "** stands for whole parts of a path; write it alone between slashes, or a single *",
            PatternFault::TooManyDoubleStars => "this is the third **; two are enough for any path",
            PatternFault::HasPort => "a host is matched without its port; end it before the :",
        };
        out.write_str(text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wildcard {
    /// Any text, also none.
    Star,
    /// Any text but none; it is what a match gives.
    ContentId,
}

/// A literal, then wildcards with the literal behind each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    head: Box<str>,
    tail: Vec<(Wildcard, Box<str>)>,
}

impl Pattern {
    /// `text` begins at character `column` of the setting.
    pub(super) fn parse(text: &str, column: usize) -> Result<Pattern, PatternError> {
        let at = |byte: usize, fault| {
            Err(PatternError {
                column: column + text[..byte].chars().count(),
                fault,
            })
        };
        if text.chars().count() > CHARS_MAX {
            return at(0, PatternFault::TooLong);
        }
        let mut pattern = Pattern {
            head: "".into(),
            tail: Vec::new(),
        };
        let mut from = 0;
        loop {
            let end = text[from..].find(['*', '{', '}']).map_or(text.len(), |length| from + length);
            let literal = &text[from..end];
            match pattern.tail.last_mut() {
                None => pattern.head = literal.into(),
                Some((_, behind)) => *behind = literal.into(),
            }
            if end == text.len() {
                return Ok(pattern);
            }
            let (wildcard, length) = match wildcard(&text[end..]) {
                Ok(found) => found,
                Err(fault) => return at(end, fault),
            };
            if literal.is_empty() && !pattern.tail.is_empty() {
                return at(end, PatternFault::Adjacent);
            }
            if wildcard == Wildcard::ContentId && pattern.has_content_id() {
                return at(end, PatternFault::TwoContentIds);
            }
            pattern.tail.push((wildcard, "".into()));
            from = end + length;
        }
    }

    pub(super) fn has_content_id(&self) -> bool {
        self.tail.iter().any(|(wildcard, _)| *wildcard == Wildcard::ContentId)
    }

    /// What `{content_id}` stands for in `text`, empty where the pattern has none. `None`: no match.
    pub(super) fn content_id<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.walk(text, begins_exactly, find_exact)
    }

    /// Whether all of `text` matches, whatever the case of its ASCII letters.
    pub(super) fn matches_any_case(&self, text: &str) -> bool {
        self.walk(text, begins_any_case, find_any_case).is_some()
    }

    fn walk<'t>(&self, text: &'t str, begins: impl Fn(&str, &str) -> bool, find: impl Fn(&str, &str) -> Option<usize>) -> Option<&'t str> {
        if !begins(text, &self.head) {
            return None;
        }
        let mut rest = text.get(self.head.len()..)?;
        let Some(((last, end), inner)) = self.tail.split_last() else {
            return rest.is_empty().then_some("");
        };
        let mut content_id = "";
        for (wildcard, literal) in inner {
            let least = wildcard.least(rest)?;
            let length = least + find(&rest[least..], literal)?;
            if *wildcard == Wildcard::ContentId {
                content_id = &rest[..length];
            }
            rest = &rest[length + literal.len()..];
        }
        let length = rest
            .len()
            .checked_sub(end.len())
            .filter(|length| *length >= last.least(rest).unwrap_or(1))?;
        if !begins(rest.get(length..)?, end) {
            return None;
        }
        if *last == Wildcard::ContentId {
            content_id = &rest[..length];
        }
        Some(content_id)
    }
}

impl Wildcard {
    /// Bytes it takes at least: those of one character, for a content id. `None`: there is none.
    fn least(self, rest: &str) -> Option<usize> {
        match self {
            Wildcard::Star => Some(0),
            Wildcard::ContentId => rest.chars().next().map(char::len_utf8),
        }
    }
}

fn wildcard(text: &str) -> Result<(Wildcard, usize), PatternFault> {
    match text.as_bytes()[0] {
        b'*' if text.starts_with("**") => Err(PatternFault::DoubleStarInPart),
        b'*' => Ok((Wildcard::Star, 1)),
        b'}' => Err(PatternFault::StrayBrace),
        _ if text.starts_with(CONTENT_ID) => Ok((Wildcard::ContentId, CONTENT_ID.len())),
        _ => match text.find('}') {
            Some(end) => Err(PatternFault::UnknownName(text[1..end].to_owned())),
            None => Err(PatternFault::UnclosedBrace),
        },
    }
}

fn begins_any_case(text: &str, literal: &str) -> bool {
    let start = text.as_bytes().get(..literal.len());
    literal.is_empty() || start.is_some_and(|start| start.eq_ignore_ascii_case(literal.as_bytes()))
}

/// An empty literal is not compared: comparing no bytes at the address of an empty box takes the
/// processor longer than all the rest.
fn begins_exactly(text: &str, literal: &str) -> bool {
    literal.is_empty() || text.starts_with(literal)
}

/// Parts are short: looking at each place is quicker than to prepare a search.
fn find_exact(text: &str, literal: &str) -> Option<usize> {
    text.as_bytes()
        .windows(literal.len())
        .position(|window| window == literal.as_bytes())
}

fn find_any_case(text: &str, literal: &str) -> Option<usize> {
    let mut windows = text.as_bytes().windows(literal.len());
    windows.position(|window| window.eq_ignore_ascii_case(literal.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_matches_the_whole_text_and_gives_the_content_id() {
        let check = |pattern: &str, text: &str, expected: Option<&str>| {
            let parsed = Pattern::parse(pattern, 1).unwrap();
            assert_eq!(parsed.content_id(text), expected, "{pattern} on {text}");
        };
        check("vod", "vod", Some(""));
        check("vod", "vods", None);
        check("vod", "vo", None);
        check("*", "", Some(""));
        check("v*d", "vd", Some(""));
        check("v*d", "vodd", Some(""));
        check("v*d", "v", None);
        check("{content_id}", "film-1", Some("film-1"));
        check("{content_id}", "", None);
        check("{content_id}.ism", "film.ism", Some("film"));
        check("{content_id}.ism", ".ism", None);
        check("{content_id}_*", "film_1_2", Some("film"));
        check("*_{content_id}", "a_b_c", Some("b_c"));
        check("*-{content_id}-*.mp4", "a-b-c-d.mp4", Some("b"));
        check("{content_id}x*", "xx1", Some("x"));
        check("é{content_id}é", "ééé", Some("é"));
        check("é{content_id}é", "éé", None);
    }

    #[test]
    fn hosts_match_in_any_case() {
        let check = |pattern: &str, host: &str, expected: bool| {
            assert_eq!(
                Pattern::parse(pattern, 1).unwrap().matches_any_case(host),
                expected,
                "{pattern} on {host}"
            );
        };
        check("*.example.com", "A.B.EXAMPLE.com", true);
        check("*.example.com", "example.com", false);
        check("cdn-*.Example.*", "CDN-3.example.net", true);
        check("cdn-*.example.*", "cdn-3.other.net", false);
        check("é.*", "É.x", false);
    }

    #[test]
    fn a_faulty_pattern_is_refused_with_place_and_fix() {
        let check = |pattern: &str, expected: &str| {
            let error = Pattern::parse(pattern, 1).unwrap_err().to_string();
            assert_eq!(error, expected, "{pattern}");
        };
        check(
            "é-{contentid}",
            "column 3: {contentid} is no name that is known here; write {content_id}, or * for what may be anything",
        );
        check("a{content_id", "column 2: this { is not closed; write {content_id}");
        check("a}", "column 2: this } closes nothing; take it out");
        check(
            "*{content_id}",
            "column 2: two wildcards stand side by side, and nothing says where the first ends; put text between them",
        );
        check(
            "{content_id}-{content_id}",
            "column 14: {content_id} stands here a second time; write * for one of them",
        );
        check(
            "a**",
            "column 2: ** stands for whole parts of a path; write it alone between slashes, or a single *",
        );
        check(
            &"a".repeat(CHARS_MAX + 1),
            "column 1: it is longer than 1024 characters; shorten it with * or **",
        );
    }

    proptest! {
        #[test]
        fn any_pattern_and_text_are_no_panic(pattern in "([aé.*-]|\\{content_id\\}|[{}]){0,8}", text in "[aAéÉ.*-]{0,12}") {
            if let Ok(pattern) = Pattern::parse(&pattern, 1) {
                let content_id = pattern.content_id(&text);
                prop_assert!(content_id.is_none_or(|id| text.contains(id)));
                prop_assert!(content_id.is_none() || pattern.matches_any_case(&text));
            }
        }
    }
}
