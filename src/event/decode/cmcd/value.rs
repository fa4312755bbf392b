//! One value against the rule of its key: a typed value, the faults it has, or nothing.
//!
//! Stands between `grammar` (what is written) and the set of keys (what is meant). CTA-5004-B,
//! section 6: a bad value costs its key and nothing else. What events and metrics 2.5, 2.6 and 4.5
//! tolerate is kept, and named.
//!
//! Invariant: a number kept here is a whole number from 0 to 2^53, save for `ltc`, which may be a
//! little below zero.

use super::super::text::{INTEGER_MAX, cut, decimal, real};
use super::grammar::{Members, Raw, parameters};
use super::keys::{Form, Key, OBJECT_TYPES};
use super::rule;

/// Members read of one list: nine object types, and a stall or an error code a second in between
/// two reports.
const LIST_MEMBERS_MAX: usize = 64;
/// Members of an ordinary list: video and audio.
const MEMBERS_USUAL: usize = 2;
/// Characters kept of one error code.
const CODE_CHARS_MAX: usize = 512;
/// Digits that are always a number below 2^53.
const SHORT_NUMBER_DIGITS_MAX: usize = 15;
/// How far ahead of the live edge a player's clock may put it (2.6), ms.
const LATENCY_MIN_MS: i64 = -1000;

/// A whole number, and the object type it is about, if it is tagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tagged {
    pub(super) number: i64,
    pub(super) tag: Option<&'static str>,
}

/// A string of a list, and its byte range where it names an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranged {
    pub(super) text: String,
    pub(super) range: Option<String>,
}

/// A value in the form in which it was sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Boolean(bool),
    Integer(Tagged),
    Integers(Vec<Tagged>),
    Decimal(f64),
    Text(String),
    Texts(Vec<Ranged>),
    Token(&'static str),
}

/// Reads one value of one record.
pub(super) struct Reader<'n> {
    pub(super) version: i64,
    /// JSON has no tokens, so a quoted one is no fault there.
    pub(super) is_json: bool,
    /// The rules broken so far by this value.
    pub(super) broken: &'n mut Vec<&'static str>,
}

impl Reader<'_> {
    /// `None`: the value is lost, for the last rule noted; or it says nothing (an empty text).
    pub(super) fn read(&mut self, key: Key, raw: &Raw<'_>) -> Option<Value> {
        let key_rule = key.rule();
        let (own, other) = match self.version {
            1 => (key_rule.v1, key_rule.v2),
            _ => (key_rule.v2, key_rule.v1),
        };
        if key.is_draft() {
            self.note(rule::DRAFT_KEY);
        } else if own.is_none() {
            self.note(rule::NOT_IN_VERSION);
        }
        let form = own.or(other)?;
        if matches!(raw, Raw::Malformed) {
            return self.lost(rule::MALFORMED);
        }
        match form {
            Form::Boolean => self.boolean(raw),
            Form::Integer => self.integer(raw, key_rule.v2 == Some(Form::Integers)),
            Form::Latency => self.latency(raw),
            Form::Decimal => self.decimal(raw),
            Form::Integers => self.integers(raw),
            Form::Text(chars_max) => self.text(raw, chars_max),
            Form::Texts => self.texts(raw),
            Form::Token(tokens) => self.token(raw, tokens, other),
        }
    }

    fn note(&mut self, broken: &'static str) {
        if !self.broken.contains(&broken) {
            self.broken.push(broken);
        }
    }

    fn lost<T>(&mut self, broken: &'static str) -> Option<T> {
        self.note(broken);
        None
    }

    fn boolean(&mut self, raw: &Raw<'_>) -> Option<Value> {
        let literal = match raw {
            Raw::Boolean(value) => return Some(Value::Boolean(*value)),
            Raw::Token("true", _) => true,
            Raw::Token("false", _) => false,
            _ => return self.lost(rule::WRONG_TYPE),
        };
        self.note(rule::BOOLEAN_LITERAL);
        Some(Value::Boolean(literal))
    }

    fn integer(&mut self, raw: &Raw<'_>, may_be_list: bool) -> Option<Value> {
        let Raw::List(inside) = raw else {
            return self.tagged(raw).map(Value::Integer);
        };
        let members = self.members(inside)?;
        if members.len() != 1 && !may_be_list {
            return self.lost(rule::WRONG_TYPE);
        }
        self.note(rule::SCALAR_EXPECTED);
        Some(Value::Integers(members))
    }

    fn integers(&mut self, raw: &Raw<'_>) -> Option<Value> {
        if let Raw::List(inside) = raw {
            return self.members(inside).map(Value::Integers);
        }
        let tagged = self.tagged(raw)?;
        self.note(rule::LIST_EXPECTED);
        Some(Value::Integer(tagged))
    }

    /// All members or none: a sum over half a list would be a wrong number, which is worse than none.
    fn members(&mut self, inside: &str) -> Option<Vec<Tagged>> {
        let mut members = Vec::with_capacity(MEMBERS_USUAL);
        for member in Members::of(inside) {
            if members.len() == LIST_MEMBERS_MAX {
                self.note(rule::TOO_MANY);
                break;
            }
            members.push(self.tagged(&member)?);
        }
        Some(members)
    }

    fn tagged(&mut self, raw: &Raw<'_>) -> Option<Tagged> {
        let (text, sent) = match raw {
            Raw::Number(text, sent) => (*text, *sent),
            Raw::Malformed => return self.lost(rule::MALFORMED),
            _ => return self.lost(rule::WRONG_TYPE),
        };
        let number = match whole_number(text) {
            Ok(number) => number,
            Err(broken) => return self.lost(broken),
        };
        let mut tag = None;
        for (name, _) in parameters(sent) {
            match among(OBJECT_TYPES, name) {
                Some(known) => tag = Some(known),
                None => self.note(rule::UNKNOWN_TAG),
            }
        }
        Some(Tagged { number, tag })
    }

    fn latency(&mut self, raw: &Raw<'_>) -> Option<Value> {
        let Raw::Number(text, _) = raw else {
            return self.integer(raw, false);
        };
        if text.contains('.') {
            self.note(rule::NOT_AN_INTEGER);
        }
        let number = decimal(text, 0)?;
        if number > INTEGER_MAX {
            return self.lost(rule::TOO_LARGE);
        }
        if text.starts_with('-') {
            self.note(rule::NEGATIVE);
        }
        (number >= LATENCY_MIN_MS).then_some(Value::Integer(Tagged { number, tag: None }))
    }

    fn decimal(&mut self, raw: &Raw<'_>) -> Option<Value> {
        let Raw::Number(text, _) = raw else {
            return self.lost(rule::WRONG_TYPE);
        };
        let number = real(text)?;
        if text.starts_with('-') {
            return self.lost(rule::NEGATIVE);
        }
        if number > INTEGER_MAX as f64 {
            return self.lost(rule::TOO_LARGE);
        }
        Some(Value::Decimal(number))
    }

    fn text(&mut self, raw: &Raw<'_>, chars_max: usize) -> Option<Value> {
        if matches!(raw, Raw::List(_)) {
            let texts = self.texts(raw)?;
            self.note(rule::SCALAR_EXPECTED);
            return Some(texts);
        }
        let text = self.string(raw, chars_max)?;
        (!text.is_empty()).then_some(Value::Text(text))
    }

    /// A string, or a word that only lacks its quotes.
    fn string(&mut self, raw: &Raw<'_>, chars_max: usize) -> Option<String> {
        let text = match raw {
            Raw::Text(text, _) => text.as_ref(),
            Raw::Token(word, _) | Raw::Number(word, _) | Raw::Word(word) => {
                self.note(rule::UNQUOTED_STRING);
                word
            }
            Raw::Malformed => return self.lost(rule::MALFORMED),
            Raw::Boolean(_) | Raw::List(_) => return self.lost(rule::WRONG_TYPE),
        };
        let (kept, was_cut) = cut(text, chars_max);
        if was_cut {
            self.note(rule::TOO_LONG);
        }
        Some(kept.to_owned())
    }

    fn texts(&mut self, raw: &Raw<'_>) -> Option<Value> {
        let Raw::List(inside) = raw else {
            let text = match raw {
                // `ec=27`: the number is the whole of what the player had to say (2.6).
                Raw::Number(word, _) => (*word).to_owned(),
                _ => self.string(raw, CODE_CHARS_MAX)?,
            };
            self.note(rule::LIST_EXPECTED);
            return (!text.is_empty()).then(|| Value::Texts(vec![Ranged { text, range: None }]));
        };
        let mut texts = Vec::new();
        for member in Members::of(inside) {
            if texts.len() == LIST_MEMBERS_MAX {
                self.note(rule::TOO_MANY);
                break;
            }
            let text = self.string(&member, CODE_CHARS_MAX)?;
            let range = match &member {
                Raw::Text(_, sent) => parameters(sent).find(|(name, _)| *name == "r").map(|(_, range)| range.to_owned()),
                _ => None,
            };
            texts.push(Ranged { text, range });
        }
        Some(Value::Texts(texts))
    }

    fn token(&mut self, raw: &Raw<'_>, tokens: &[&'static str], other: Option<Form>) -> Option<Value> {
        let name = match raw {
            Raw::Token(name, _) => name,
            Raw::Text(name, _) => {
                if !self.is_json {
                    self.note(rule::QUOTED_TOKEN);
                }
                name.as_ref()
            }
            _ => return self.lost(rule::WRONG_TYPE),
        };
        if let Some(token) = among(tokens, name) {
            return Some(Value::Token(token));
        }
        let Some(Form::Token(others)) = other else {
            return self.lost(rule::UNKNOWN_TOKEN);
        };
        let Some(token) = among(others, name) else {
            return self.lost(rule::UNKNOWN_TOKEN);
        };
        self.note(rule::NOT_IN_VERSION);
        Some(Value::Token(token))
    }
}

/// The token with this name. They are a letter or two: comparing bytes here is quicker than a call.
fn among(tokens: &[&'static str], name: &str) -> Option<&'static str> {
    let is_name = |token: &&&'static str| token.len() == name.len() && token.bytes().eq(name.bytes());
    tokens.iter().find(is_name).copied()
}

/// Digits as a number, or the rule that the text breaks.
fn whole_number(text: &str) -> Result<i64, &'static str> {
    if let Some(number) = short_number(text) {
        return Ok(number);
    }
    if text.contains('.') {
        return Err(rule::NOT_AN_INTEGER);
    }
    if text.starts_with('-') {
        return Err(rule::NEGATIVE);
    }
    match text.parse() {
        Ok(number) if number <= INTEGER_MAX => Ok(number),
        _ => Err(rule::TOO_LARGE),
    }
}

/// Nothing but digits, and few enough to be below the limit: nearly every number.
fn short_number(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > SHORT_NUMBER_DIGITS_MAX {
        return None;
    }
    let mut number = 0;
    for byte in text.bytes() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + i64::from(digit);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::super::grammar::Pairs;
    use super::*;

    /// What the pair means in this version, and the rules it breaks.
    fn read(version: i64, text: &str) -> (Option<Value>, Vec<&'static str>) {
        let pair = Pairs::of(text).next().unwrap();
        let mut broken = Vec::new();
        let mut reader = Reader {
            version,
            is_json: false,
            broken: &mut broken,
        };
        let value = reader.read(Key::find(pair.key).unwrap(), &pair.value);
        (value, broken)
    }

    fn plain(number: i64) -> Value {
        Value::Integer(Tagged { number, tag: None })
    }

    fn list(members: &[(i64, Option<&'static str>)]) -> Value {
        let tagged = |(number, tag): &(i64, Option<&'static str>)| Tagged {
            number: *number,
            tag: *tag,
        };
        Value::Integers(members.iter().map(tagged).collect())
    }

    fn codes(codes: &[&str]) -> Value {
        let ranged = |code: &&str| Ranged {
            text: (*code).to_owned(),
            range: None,
        };
        Value::Texts(codes.iter().map(ranged).collect())
    }

    #[test]
    fn a_value_that_cannot_be_meant_is_lost_and_says_why() {
        let check = |version: i64, text: &str, broken: &'static str| {
            assert_eq!(read(version, text), (None, vec![broken]), "{text}");
        };
        for version in [1, 2] {
            check(version, "d=12px", "wrong_type");
            check(version, "d=nan", "wrong_type");
            check(version, "d=1e3", "wrong_type");
            check(version, "d=\"325\"", "wrong_type");
            check(version, "d", "wrong_type");
            check(version, "d=(1 2)", "wrong_type");
            check(version, "d=325.5", "not_an_integer");
            check(version, "d=325.0", "not_an_integer");
            check(version, "d=-1", "negative");
            check(version, "d=9007199254740993", "too_large");
            check(version, "d=99999999999999999999", "too_large");
            check(version, "d=", "malformed");
            check(version, "d=+1\"", "malformed");
            check(version, "bs=1", "wrong_type");
            check(version, "bs=yes", "wrong_type");
            check(version, "bs=?2", "malformed");
            check(version, "ot=x", "unknown_token");
            check(version, "ot=V", "unknown_token");
            check(version, "ot=1", "wrong_type");
            check(version, "sid=\"a", "malformed");
            check(version, "sid", "wrong_type");
            check(version, "pr=fast", "wrong_type");
            check(version, "pr=-1.5", "negative");
            check(version, "st=x", "unknown_token");
        }
        check(2, "bl=(5000;v 3x;a)", "wrong_type");
        check(2, "bl=(5000.5;v 300;a)", "not_an_integer");
        check(2, "bl=(5000,300)", "malformed");
        check(2, "bl=3993.8321995464853", "not_an_integer");
        check(2, "bl=(5000", "malformed");
        check(2, "ec=(\"a\",\"b\")", "malformed");
        check(2, "ltc=-1001", "negative");
        check(2, "ltc=99999999999999999", "too_large");
        check(2, "e=zz", "unknown_token");
    }

    #[test]
    fn a_value_in_another_form_is_kept_and_says_so() {
        let check = |version: i64, text: &str, value: Value, broken: &'static str| {
            assert_eq!(read(version, text), (Some(value), vec![broken]), "{text}");
        };
        check(2, "bl=5000", plain(5000), "list_expected");
        check(
            2,
            "bl=5000;v",
            Value::Integer(Tagged {
                number: 5000,
                tag: Some("v"),
            }),
            "list_expected",
        );
        check(
            1,
            "bl=(5000;v 320;a)",
            list(&[(5000, Some("v")), (320, Some("a"))]),
            "scalar_expected",
        );
        check(2, "d=(325)", list(&[(325, None)]), "scalar_expected");
        check(2, "br=(3000;x)", list(&[(3000, None)]), "unknown_tag");
        check(2, "ec=27", codes(&["27"]), "list_expected");
        check(2, "ec=\"27\"", codes(&["27"]), "list_expected");
        check(2, "ec=(27 28)", codes(&["27", "28"]), "unquoted_string");
        check(1, "bs=true", Value::Boolean(true), "boolean_literal");
        check(2, "su=false", Value::Boolean(false), "boolean_literal");
        check(2, "sid=6e2fb550", Value::Text("6e2fb550".into()), "unquoted_string");
        check(2, "ot=\"v\"", Value::Token("v"), "quoted_token");
        check(1, "st=ll", Value::Token("ll"), "not_in_version");
        check(1, "sf=e", Value::Token("e"), "not_in_version");
        check(1, "sta=p", Value::Token("p"), "not_in_version");
        check(1, "ec=(\"a\")", codes(&["a"]), "not_in_version");
        check(2, "nrr=\"0-9\"", Value::Text("0-9".into()), "not_in_version");
        check(2, "cdn=\"x\"", Value::Text("x".into()), "draft_key");
        check(2, "ltc=1500.5", plain(1501), "not_an_integer");
        check(2, "ltc=-1000", plain(-1000), "negative");
        let long = "x".repeat(65);
        check(1, &format!("cid=\"{long}\""), Value::Text("x".repeat(64)), "too_long");
        check(2, &format!("sid=\"{long}\""), Value::Text("x".repeat(64)), "too_long");
        check(2, &format!("bsd=({})", "1 ".repeat(65)), list(&[(1, None); 64]), "too_many");
    }

    #[test]
    fn a_sound_value_has_no_fault() {
        let check = |version: i64, text: &str, value: Value| {
            assert_eq!(read(version, text), (Some(value), Vec::new()), "{text}");
        };
        check(1, "bl=5000", plain(5000));
        check(2, "bl=()", list(&[]));
        check(2, "br=(3000;v 164;a)", list(&[(3000, Some("v")), (164, Some("a"))]));
        check(2, "ts=9007199254740992", plain(1 << 53));
        check(2, "bs=?0", Value::Boolean(false));
        check(2, "sf=e", Value::Token("e"));
        check(2, "st=ll", Value::Token("ll"));
        check(2, "pr=1.08", Value::Decimal(1.08));
        check(1, "pr=0", Value::Decimal(0.0));
        check(2, &format!("cid=\"{}\"", "x".repeat(128)), Value::Text("x".repeat(128)));
        assert_eq!(read(2, "sid=\"\""), (None, Vec::new()));
    }
}
