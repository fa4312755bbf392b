//! URLs that a player names in its report, CMCD's `nor` and `url`, treated by the lists of the settings.
//!
//! ```text
//! ..%2F3.m4v%3Ftoken%3D1                 ->  ..%2F3.m4v
//! ("../3.m4v?token=1";r="0-99" "4.m4v")  ->  ("../3.m4v";r="0-99" "4.m4v")
//! ```
//!
//! Stands beside `lists`: the same list says what of a query may stay. A URL may be encoded by CMCD, by the player
//! that put it into a query, and by the logger; what is kept of it is encoded as often as it was.
//!
//! Invariant: what was treated once stays as it is when it is treated again.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::lists::{Lists, Query};
use super::unescaped;
use crate::event::decode::cmcd::query::encoded;
use crate::event::private::names_more_than_a_path;

/// How often a URL may be percent-encoded: by CMCD, the player, the logger and one proxy.
const DECODES_MAX: i64 = 4;

impl Lists {
    /// One URL or path, or a list of quoted ones, as CMCD or JSON write it. `None`: it may stay as it is.
    pub fn named_urls(&self, sent: &str) -> Option<String> {
        let mut stored = self.treated_once(sent)?;
        // Parts that were encoded more often than others are plain only now.
        for _ in 0..DECODES_MAX {
            match self.treated_once(&stored) {
                Some(again) => stored = again,
                None => break,
            }
        }
        Some(stored)
    }

    fn treated_once(&self, sent: &str) -> Option<String> {
        let is_list = |text: &str| text.starts_with(['(', '[', '"']);
        let (text, depth) = decoded_until(sent, |text| is_list(text) || is_plain(text));
        if !is_list(&text) {
            return self.named_url(sent);
        }
        let treated = self.each_of(&text);
        (treated != text).then(|| encoded(treated, depth))
    }

    /// The list with each of its members treated. A quote that stays open ends with the list.
    fn each_of(&self, list: &str) -> String {
        let mut out = String::with_capacity(list.len());
        let mut rest = list;
        while let Some((before, behind)) = rest.split_once('"') {
            let (member, behind) = behind.split_at(closing_quote(behind));
            out.extend([&*self.each_bare(before), "\"", &*self.url_or(member)]);
            rest = behind;
            if let Some(behind) = rest.strip_prefix('"') {
                out.push('"');
                rest = behind;
            }
        }
        out.push_str(&self.each_bare(rest));
        out
    }

    /// Members without quotes, which CMCD does not allow and some players send.
    fn each_bare(&self, text: &str) -> String {
        let words: Vec<Cow<'_, str>> = text.split(' ').map(|word| self.url_or(word)).collect();
        words.join(" ")
    }

    fn url_or<'a>(&self, url: &'a str) -> Cow<'a, str> {
        self.named_url(url).map_or(Cow::Borrowed(url), Cow::Owned)
    }

    fn named_url(&self, sent: &str) -> Option<String> {
        if !names_more_than_a_path(sent) {
            return None;
        }
        let (text, depth) = decoded_until(sent, is_plain);
        let plain = unescaped(&text);
        let treated = self.target(&plain, Query::Listed);
        let is_changed = treated != plain;
        is_changed.then(|| encoded(treated.replace('\\', "\\\\").replace('"', "\\\""), depth))
    }
}

/// The text at the first depth of decoding at which `is_reached`, or at the last that changes it.
fn decoded_until(sent: &str, is_reached: impl Fn(&str) -> bool) -> (Cow<'_, str>, i64) {
    let mut text = Cow::Borrowed(sent);
    for depth in 0..DECODES_MAX {
        if is_reached(&text) {
            return (text, depth);
        }
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == text {
            return (text, depth);
        }
        text = Cow::Owned(decoded);
    }
    (text, DECODES_MAX)
}

/// True where a query begins that is not encoded, or nothing is.
fn is_plain(text: &str) -> bool {
    !text.contains('%') || text.contains(['?', '#'])
}

/// The place of the first quote that no backslash stands before, or the end.
fn closing_quote(text: &str) -> usize {
    let mut is_escaped = false;
    let closing = text.bytes().position(|byte| {
        let closes = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        closes
    });
    closing.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lists() -> Lists {
        Lists {
            keep_query: vec!["lang".to_owned()],
            ..Lists::default()
        }
    }

    fn stored(lists: &Lists, sent: &str) -> String {
        lists.named_urls(sent).unwrap_or_else(|| sent.to_owned())
    }

    #[test]
    fn a_url_keeps_its_path_and_what_is_listed_however_it_is_encoded() {
        let check = |sent: &str, expected: &str| assert_eq!(stored(&lists(), sent), expected, "{sent}");
        check("../3.m4v", "../3.m4v");
        check("..%2F3%20a.m4v", "..%2F3%20a.m4v");
        check("../3.m4v?token=1&lang=de#x", "../3.m4v?lang=de");
        check("..%2F3.m4v%3Ftoken%3D1", "..%2F3.m4v");
        check("..%2F3.m4v%3Ftoken%3D1%26lang%3Dde", "..%2F3.m4v%3Flang%3Dde");
        check("..%252F3.m4v%253Ftoken%253D1", "..%252F3.m4v");
        check("https%3A%2F%2Fann%3Apw%40h.example%2Fa", "https%3A%2F%2Fh.example%2Fa");
        check("https:\\/\\/ann:pw@h.example\\/a", "https://h.example/a");
        check("3.m4v?token=a%26lang=b", "3.m4v");
        check("", "");
    }

    #[test]
    fn each_member_of_a_list_is_treated() {
        let check = |sent: &str, expected: &str| assert_eq!(stored(&lists(), sent), expected, "{sent}");
        check(
            r#"("../a (2).m4v?t=1";r="0-99" "b.m4v#t=1" "c")"#,
            r#"("../a (2).m4v";r="0-99" "b.m4v" "c")"#,
        );
        check(r#"["a.m4v?t=1","b%3Ft=1"]"#, r#"["a.m4v","b"]"#);
        check("%28%22a.m4v%3Ft%3D1%22%20%22b%22%29", "%28%22a.m4v%22%20%22b%22%29");
        check("%22..%252Fa.m4v%253Ft%253D1%22", "%22..%252Fa.m4v%22");
        check("(a.m4v?t=1 b)", "(a.m4v b)");
        check(r#"("a.m4v?t=1"#, r#"("a.m4v"#);
        check(r#"("a\"b?t=1" "c?t=\"2")"#, r#"("a\"b" "c")"#);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_behind_a_question_mark_stays_and_what_was_treated_stays(
            path in r#"[a-z/.]{1,5}"#,
            query in r#"([a-zA-Z=&/?]|SECRET){0,12}SECRET"#,
            times in 0..=3i64,
            frame in prop::sample::select(vec![("", ""), ("\"", "\""), ("(\"", "\";r=\"0-9\" \"x\")"), ("[\"", "\"]")]),
        ) {
            let sent = encoded(format!("{}{}{}", frame.0, encoded(format!("{path}?{query}"), times % 2), frame.1), times / 2);
            let kept = stored(&Lists::default(), &sent);
            prop_assert!(!kept.contains("SECRET"), "{} of {}", kept, sent);
            prop_assert_eq!(Lists::default().named_urls(&kept), None, "{} of {}", kept, sent);
        }

        #[test]
        fn any_text_is_survived_and_what_was_treated_stays(sent in r#"([a-c/?#@%\\"() \[\]:]|%3F|%22|%25|://|ä){0,12}"#) {
            let kept = stored(&lists(), &sent);
            prop_assert_eq!(lists().named_urls(&kept), None, "{} of {}", kept, sent);
        }
    }
}
