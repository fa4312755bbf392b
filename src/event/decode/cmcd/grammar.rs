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
    fn next_of(&self, from: usize, wanted: impl Fn(u8) -> bool) -> usize {
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
        let (end, odds) = self.bare_end(start);
        self.at = end;
        if let Some(value) = plain(&self.text[start..end], odds) {
            return (value, start..end);
        }
        let word = self.text[start..end].trim_ascii_end();
        let open = usize::from(word.starts_with(['"', '(']));
        (bare(word), start + open..start + word.len())
    }

    /// The place of the comma behind a value that is not quoted, and what it holds besides digits.
    fn bare_end(&self, start: usize) -> (usize, u8) {
        let mut odds = 0;
        for (at, byte) in self.text.bytes().enumerate().skip(start) {
            if byte == b',' {
                return (at, odds);
            }
            odds |= ODDS[usize::from(byte)];
        }
        (self.text.len(), odds)
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
        if matches!(self.text.as_bytes().get(from), None | Some(b',')) {
            return Some(("", from));
        }
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
        let (key, _) = behind(key, b';');
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
    let digits = leading_digits(word.as_bytes());
    if digits > 0 && digits == word.len() {
        return Raw::Number(word, "");
    }
    let (value, parameters) = match word.bytes().position(|byte| byte == b';') {
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
    let mut is_quoted = false;
    for byte in text.bytes() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'(' | b')' => return false,
            _ => {}
        }
    }
    text.starts_with(';') && !is_quoted
}

fn leading_digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let (whole, rest) = digits.split_at(leading_digits(digits));
    let is_fraction = match rest {
        [] => true,
        [b'.', fraction @ ..] => !fraction.is_empty() && leading_digits(fraction) == fraction.len(),
        _ => false,
    };
    !whole.is_empty() && is_fraction
}

/// A byte that is no digit.
const NO_DIGIT: u8 = 1;
/// A byte that no token has.
const NO_TOKEN: u8 = 2;

/// What each byte is not: nearly every value is told by one look at each of its bytes.
static ODDS: [u8; 256] = {
    let in_token = b"!#$%&'*+-.^_`|~:/";
    let mut table = [NO_DIGIT | NO_TOKEN; 256];
    let mut byte = 0;
    while byte < table.len() {
        if (byte as u8).is_ascii_alphabetic() {
            table[byte] = NO_DIGIT;
        } else if (byte as u8).is_ascii_digit() {
            table[byte] = 0;
        }
        byte += 1;
    }
    let mut at = 0;
    while at < in_token.len() {
        table[in_token[at] as usize] = NO_DIGIT;
        at += 1;
    }
    table
};

/// A word without parameters that is a number without sign and point, or a token: `bare` for the most
/// of values. `odds`: what it holds.
fn plain(word: &str, odds: u8) -> Option<Raw<'_>> {
    let first = word.bytes().next()?;
    if odds == 0 {
        return Some(Raw::Number(word, ""));
    }
    let is_token = odds & NO_TOKEN == 0 && (first.is_ascii_alphabetic() || first == b'*');
    is_token.then_some(Raw::Token(word, ""))
}

fn is_token(text: &str) -> bool {
    text.bytes().all(|byte| ODDS[usize::from(byte)] & NO_TOKEN == 0)
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
        if !text.starts_with('"') {
            let end = member_end(text, 0);
            self.rest = &text[end..];
            let word = &text[..end];
            let has_comma = word.bytes().any(|byte| byte == b',');
            return Some(if has_comma { Raw::Malformed } else { bare(word) });
        }
        let Some((member, close)) = string(text, 0) else {
            self.rest = "";
            return Some(Raw::Malformed);
        };
        let end = member_end(text, close + 1);
        self.rest = &text[end..];
        let parameters = &text[close + 1..end];
        if are_parameters(parameters) {
            return Some(Raw::Text(member, parameters));
        }
        Some(Raw::Malformed)
    }
}

/// The end of a member of which `from` on is not read: at the next space, or, where its parameter is a
/// string, as `r` of `nor` is, behind that: the string may hold spaces.
fn member_end(text: &str, from: usize) -> usize {
    let (mut word_end, mut has_quote) = (text.len(), false);
    for (at, byte) in text.bytes().enumerate().skip(from) {
        if byte.is_ascii_whitespace() {
            word_end = at;
            break;
        }
        has_quote |= byte == b'"';
    }
    let quote = if has_quote { text[from..word_end].find("=\"") } else { None };
    let close = quote.and_then(|quote| string(text, from + quote + 1));
    close.map_or(word_end, |(_, close)| close + 1)
}

/// The names and values of `;a;r="0-99"`.
pub(super) fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = behind(text, b';').1;
    std::iter::from_fn(move || {
        let (parameter, others) = behind(rest?, b';');
        rest = others;
        let (name, value) = behind(parameter, b'=');
        let value = value.unwrap_or_default();
        Some((name.trim_ascii(), value.trim_ascii().trim_matches('"')))
    })
}

/// What stands before the first `mark`, and what behind it. Most texts here are empty or a few bytes.
fn behind(text: &str, mark: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|byte| byte == mark) {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the UDF file says of each key is what is read here.
    fn value_text(value: &Raw<'_>) -> Option<String> {
        Some(match value {
            Raw::Boolean(value) => value.to_string(),
            Raw::Number(text, _) | Raw::Token(text, _) | Raw::Word(text) => (*text).to_owned(),
            Raw::Text(text, _) | Raw::List(text) => text.to_string(),
            Raw::Malformed => return None,
        })
    }

    fn check_udf(record: &str) {
        for pair in Pairs::of(record) {
            let last = Pairs::of(record).filter(|other| other.key == pair.key).last();
            let expected = last.and_then(|last| value_text(&last.value));
            let told = crate::udfs::cmcd_value::cmcd_value(record, pair.key);
            assert_eq!(told, expected, "{} of {record}", pair.key);
        }
    }

    #[test]
    fn the_udf_file_reads_records_as_they_are_read_here() {
        for record in [
            r#"bl=21300,br=3200,sid="6e2f-4c",su,ot=v;a"#,
            r#"br=(3200;v 128;a),nor=("a b.mp4";r="0-99" "c,d")"#,
            r#"sid="open,bl=5,cid="a\"b\\c",x-y="é""#,
            "bl=1,bl=2,v=?1,w=?0,z=?2,mtp=12px,ltc=-5,pr=1.25,q=1.,r=-",
            " , bl = 5 ;a , su;x ,,=4,(a=b)",
            r#"sid="a"b,bl=(1 (2),br=(1"#,
        ] {
            check_udf(record);
        }
    }

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
            check_udf(&text);
            for pair in Pairs::of(&text) {
                prop_assert!(text.get(pair.span.clone()).is_some());
                if let Raw::List(inside) = pair.value {
                    Members::of(&inside).for_each(drop);
                }
            }
        }
    }
}
