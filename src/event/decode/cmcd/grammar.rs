//! The tolerant reader of a CMCD dictionary: text into pairs, each pair parsed alone.
//!
//! Stands first in the walk of a CMCD record. RFC 8941 throws the whole record away at the first bad
//! byte; CTA-5004-B, section 6, asks to ignore the bad value only. So a pair that cannot be read is
//! given as `Raw::Malformed`, and reading goes on at the next comma that can begin a pair.
//!
//! Invariant: any text ends, and the work grows with its length: an open quote or list ends at the next.
//! Invariant: everything stays borrowed from the text, save for strings with escapes.

use std::borrow::Cow;
use std::ops::Range;

/// A value as it is written, before the rule of its key is applied.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw<'a> {
    /// A bare key, `?0` or `?1`.
    Boolean(bool),
    /// Digits with at most one sign and one point; the parameters behind it.
    Number(&'a str, &'a str),
    /// A quoted string without quotes and escapes; the parameters behind it.
    Text(Cow<'a, str>, &'a str),
    /// A letter or `*`, then characters of a token; the parameters behind it.
    Token(&'a str, &'a str),
    /// What stands between the parentheses.
    List(Cow<'a, str>),
    /// One word that is none of these, such as `12px` or an unquoted id; no quotes, no spaces.
    Word(&'a str),
    Malformed,
}

/// One member of the dictionary.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair<'a> {
    pub(super) key: &'a str,
    pub(super) value: Raw<'a>,
    /// Bytes of the text that the value fills, inside its quotes if it has any.
    pub(super) span: Range<usize>,
}

/// The members of a dictionary, in order.
pub(super) struct Pairs<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Pairs<'a> {
    pub(super) fn of(text: &'a str) -> Pairs<'a> {
        Pairs { text, at: 0 }
    }

    fn skip(&mut self, also_commas: bool) {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !(byte.is_ascii_whitespace() || also_commas && *byte == b',') {
                return;
            }
            self.at += 1;
        }
    }

    /// The place of the first of these bytes, or the end.
    fn next_of(&self, from: usize, wanted: fn(u8) -> bool) -> usize {
        let rest = &self.text.as_bytes()[from..];
        from + rest.iter().position(|byte| wanted(*byte)).unwrap_or(rest.len())
    }

    fn value(&mut self) -> (Raw<'a>, Range<usize>) {
        self.skip(false);
        let start = self.at;
        let read = match self.text.as_bytes().get(start) {
            Some(b'"') => self.quoted(start),
            Some(b'(') => self.list(start),
            _ => None,
        };
        if let Some((value, span, end)) = read {
            self.at = end;
            return (value, span);
        }
        let end = self.next_of(start, |byte| byte == b',');
        self.at = end;
        let word = self.text[start..end].trim_ascii_end();
        let open = usize::from(word.starts_with(['"', '(']));
        (bare(word), start + open..start + word.len())
    }

    /// A string that ends where a pair may end. `None`: the quote stays open, or text follows it.
    fn quoted(&self, start: usize) -> Option<(Raw<'a>, Range<usize>, usize)> {
        let (text, close) = string(self.text, start)?;
        let (parameters, end) = self.parameters(close + 1)?;
        Some((Raw::Text(text, parameters), start + 1..close, end))
    }

    /// A list that is closed before another one opens; commas inside make its members malformed.
    fn list(&self, start: usize) -> Option<(Raw<'a>, Range<usize>, usize)> {
        let close = list_end(self.text, start)?;
        let (_, end) = self.parameters(close + 1)?;
        let inside = &self.text[start + 1..close];
        Some((Raw::List(Cow::Borrowed(inside)), start..close + 1, end))
    }

    /// The parameters from here to the end of the pair. `None`: something else stands here.
    fn parameters(&self, from: usize) -> Option<(&'a str, usize)> {
        let end = self.next_of(from, |byte| byte == b',');
        let rest = self.text[from..end].trim_ascii();
        are_parameters(rest).then_some((rest, end))
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        self.skip(true);
        let start = self.at;
        if start >= self.text.len() {
            return None;
        }
        let end = self.next_of(start, |byte| matches!(byte, b'=' | b','));
        let key = self.text[start..end].trim_ascii_end();
        if self.text.as_bytes().get(end) == Some(&b'=') {
            self.at = end + 1;
            let (value, span) = self.value();
            return Some(Pair { key, value, span });
        }
        self.at = end;
        let key = key.split(';').next().unwrap_or(key);
        let value = Raw::Boolean(true);
        Some(Pair {
            key,
            value,
            span: end..end,
        })
    }
}

/// True for a name that a key may have: capitals are allowed, for custom keys have them (4.5 rule 5).
pub(super) fn is_key(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'*');
    !name.is_empty() && name.bytes().all(plain)
}

/// The string that begins with the quote at `start`, and the place of its closing quote.
fn string(text: &str, start: usize) -> Option<(Cow<'_, str>, usize)> {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    let mut has_escape = false;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            break;
        }
        has_escape = true;
        at += 2;
    }
    let inside = &text[start + 1..at];
    if has_escape {
        return Some((Cow::Owned(unescaped(inside)), at));
    }
    Some((Cow::Borrowed(inside), at))
}

/// `\"` and `\\` without their backslash; a backslash before anything else is kept.
fn unescaped(inside: &str) -> String {
    let mut text = String::with_capacity(inside.len());
    let mut characters = inside.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\\'
            && let Some(escaped) = characters.next_if(|next| matches!(next, '"' | '\\'))
        {
            text.push(escaped);
            continue;
        }
        text.push(character);
    }
    text
}

/// The place of the parenthesis that closes the list. `None`: a quote or the list stays open.
fn list_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b')' => return Some(at),
            b'(' => return None,
            b'"' => at = string(text, at)?.1,
            _ => {}
        }
        at += 1;
    }
}

/// A value without quotes and parentheses, perhaps with parameters.
fn bare(word: &str) -> Raw<'_> {
    let (value, parameters) = match word.find(';') {
        Some(place) => (word[..place].trim_ascii_end(), &word[place..]),
        None => (word, ""),
    };
    if !are_parameters(parameters) {
        return Raw::Malformed;
    }
    match value.as_bytes().first() {
        None => Raw::Malformed,
        Some(b'?') => match value {
            "?1" => Raw::Boolean(true),
            "?0" => Raw::Boolean(false),
            _ => Raw::Malformed,
        },
        Some(b'-' | b'0'..=b'9') if is_number(value) => Raw::Number(value, parameters),
        Some(first) if (first.is_ascii_alphabetic() || *first == b'*') && is_token(value) => Raw::Token(value, parameters),
        _ if is_word(word) => Raw::Word(word),
        _ => Raw::Malformed,
    }
}

/// True for nothing and for `;a;r="0-99"`; false if a quote stays open or a parenthesis stands there.
fn are_parameters(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let quotes = text.bytes().filter(|byte| *byte == b'"').count();
    text.starts_with(';') && quotes.is_multiple_of(2) && !text.contains(['(', ')'])
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    all_digits(whole) && all_digits(fraction)
}

fn is_token(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    text.bytes().all(plain)
}

fn is_word(text: &str) -> bool {
    let odd = |byte: u8| byte <= b' ' || byte == 0x7f || matches!(byte, b'"' | b'(' | b')' | b'\\' | b'=');
    !text.bytes().any(odd)
}

/// The members of an inner list: each an item, or `Malformed`.
pub(super) struct Members<'a> {
    rest: &'a str,
}

impl<'a> Members<'a> {
    pub(super) fn of(inside: &'a str) -> Members<'a> {
        Members { rest: inside }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        let text = self.rest.trim_ascii_start();
        if text.is_empty() {
            return None;
        }
        let space_from = |from: usize| {
            let rest = &text.as_bytes()[from..];
            from + rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len())
        };
        if !text.starts_with('"') {
            let end = quoted_parameter_end(text).unwrap_or_else(|| space_from(0));
            self.rest = &text[end..];
            let word = &text[..end];
            return Some(if word.contains(',') { Raw::Malformed } else { bare(word) });
        }
        let Some((member, close)) = string(text, 0) else {
            self.rest = "";
            return Some(Raw::Malformed);
        };
        let end = quoted_parameter_end(&text[close + 1..]).map_or_else(|| space_from(close + 1), |end| close + 1 + end);
        self.rest = &text[end..];
        let parameters = &text[close + 1..end];
        if are_parameters(parameters) {
            return Some(Raw::Text(member, parameters));
        }
        Some(Raw::Malformed)
    }
}

/// The end of a member whose parameter is a string, as `r` of `nor` is: the string may hold spaces.
fn quoted_parameter_end(text: &str) -> Option<usize> {
    let word_end = text.bytes().position(|byte| byte.is_ascii_whitespace()).unwrap_or(text.len());
    memchr::memchr(b'"', &text.as_bytes()[..word_end])?;
    let quote = text[..word_end].find("=\"")? + 1;
    let (_, close) = string(text, quote)?;
    Some(close + 1)
}

/// The names and values of `;a;r="0-99"`.
pub(super) fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').skip(1).map(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (name.trim_ascii(), value.trim_ascii().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each pair as `key value`, the value written in the words of `Raw`.
    fn described(text: &str) -> Vec<String> {
        Pairs::of(text)
            .map(|pair| format!("{} {:?} <{}>", pair.key, pair.value, &text[pair.span]))
            .collect()
    }

    #[test]
    fn a_sound_dictionary_is_read_pair_by_pair() {
        let check = |text: &str, expected: &[&str]| assert_eq!(described(text), expected, "{text}");
        check("", &[]);
        check(" ,, ", &[]);
        check(
            r#"bl=5000,bs,su=?0, sid="a,b" ,ot=v"#,
            &[
                r#"bl Number("5000", "") <5000>"#,
                "bs Boolean(true) <>",
                "su Boolean(false) <?0>",
                r#"sid Text("a,b", "") <a,b>"#,
                r#"ot Token("v", "") <v>"#,
            ],
        );
        check(
            r#"br=(3000;v 164;a),nor=("a (1).mp4";r="0-9" "b")"#,
            &[
                r#"br List("3000;v 164;a") <(3000;v 164;a)>"#,
                r#"nor List("\"a (1).mp4\";r=\"0-9\" \"b\"") <("a (1).mp4";r="0-9" "b")>"#,
            ],
        );
        check(r#"q="\"Q\" \\ \n""#, &[r#"q Text("\"Q\" \\ \\n", "") <\"Q\" \\ \n>"#]);
        check(
            "pr=-1.25;x=1,bs;y",
            &[r#"pr Number("-1.25", ";x=1") <-1.25;x=1>"#, "bs Boolean(true) <>"],
        );
        check("com.example-myKey=1", &[r#"com.example-myKey Number("1", "") <1>"#]);
    }

    #[test]
    fn a_pair_that_stays_open_does_not_swallow_the_next() {
        let check = |text: &str| {
            let pairs: Vec<Pair> = Pairs::of(text).collect();
            assert_eq!(pairs[0].value, Raw::Malformed, "{text}");
            assert_eq!(pairs.last().map(|pair| &pair.value), Some(&Raw::Token("v", "")), "{text}");
        };
        check(r#"sid="abc,ot=v"#);
        check(r#"sid="abc,cid="x",ot=v"#);
        check(r#"cen="a"b",ot=v"#);
        check(r#"cen="a\",ot=v"#);
        check("bl=(5000;v 320,ot=v");
        check(r#"bl=(5000,ec=("a"),ot=v"#);
        check(r#"ec=("a,sid="abc",bl=(1),ot=v"#);
        check(r#"ec=("a")x,ot=v"#);
        check(r#"bl=12"3,ot=v"#);
        check("bl=,ot=v");
        check("bl=?2,ot=v");
        check("bl=5)0,ot=v");
        check("bl=50;(,ot=v");
        check("bl=50;\",ot=v");
    }

    #[test]
    fn the_members_of_a_list_keep_their_parameters() {
        let check = |inside: &str, expected: &[Raw]| {
            assert_eq!(Members::of(inside).collect::<Vec<_>>(), expected, "{inside}");
        };
        check("", &[]);
        check(" 5000;v  320;a ", &[Raw::Number("5000", ";v"), Raw::Number("320", ";a")]);
        check(
            r#""a b";r="0-9" "c""#,
            &[Raw::Text("a b".into(), ";r=\"0-9\""), Raw::Text("c".into(), "")],
        );
        check(r#""a";r="0- 9" 7"#, &[Raw::Text("a".into(), ";r=\"0- 9\""), Raw::Number("7", "")]);
        check("1,2", &[Raw::Malformed]);
        check(r#""a","b""#, &[Raw::Malformed]);
        check(r#""a"#, &[Raw::Malformed]);
        let read: Vec<_> = parameters(";a;r=\"0-9\"").collect();
        assert_eq!(read, [("a", ""), ("r", "0-9")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_survived(text in r#"([a-z]{0,3}|[=,;()"\\ ?.0-9-]|ä|\PC){0,40}"#) {
            for pair in Pairs::of(&text) {
                prop_assert!(text.get(pair.span.clone()).is_some());
                if let Raw::List(inside) = pair.value {
                    Members::of(&inside).for_each(drop);
                }
            }
        }
    }
}
