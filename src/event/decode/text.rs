//! What all decoders share: text into values, JSON objects into members, and the bounds of both.
//!
//! Stands below the dialects: a dialect says which key means what, this file says what a number,
//! a time, an absent value and a too long text are.
//!
//! Invariant: an object is parsed once; values stay borrowed from the line until a rule asks for them.
//! Invariant: no message made here quotes the record; it may name offsets and counts.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use chrono::NaiveDate;
use percent_encoding::percent_decode;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{DecodeContext, NESTING_MAX};
use crate::event::{Reject, RejectReason};

/// Unknown keys kept per record: far above what players send, and it keeps a row small.
pub(super) const EXT_KEYS_MAX: usize = 64;
/// Characters kept of one unknown value; the payload still holds the rest.
pub(super) const EXT_VALUE_CHARS_MAX: usize = 4096;
/// Characters of an unknown key; a longer key is data, not a name, and is left to the payload.
pub(super) const EXT_KEY_CHARS_MAX: usize = 128;
/// How often a user agent may be percent-encoded: the logger does it once or twice, a proxy once more.
const DECODES_MAX: i64 = 3;
/// Keys that a dialect may know: one bit each in `Object::used`.
const KNOWN_KEYS_MAX: usize = 64;
/// Longest key that any dialect knows; a longer one is unknown without a look-up.
const KNOWN_KEY_BYTES_MAX: usize = 32;
/// Members of an ordinary event, so that collecting them allocates once.
const MEMBERS_USUAL: usize = 24;
/// Above 2^53 a number that passed through JavaScript is not exact any more.
pub(super) const INTEGER_MAX: i64 = 1 << 53;
/// Digits, and zeros behind them, that are always a number below 2^63.
const SHORT_DIGITS_MAX: usize = 18;
/// 2010-01-01T00:00:00Z: an earlier clock is a clock that was never set.
const EVENT_TIME_MIN_MS: i64 = 1_262_304_000_000;
/// How far ahead of ours a client's clock may run.
const EVENT_TIME_AHEAD_MAX_MS: i64 = 24 * 60 * 60 * 1000;

pub(super) fn reject(reason: RejectReason, detail: impl Into<String>) -> Reject {
    Reject {
        reason,
        detail: detail.into(),
    }
}

/// Notes a broken data-quality rule, once a record.
pub(super) fn flag(flags: &mut Vec<&'static str>, name: &'static str) {
    if !flags.contains(&name) {
        flags.push(name);
    }
}

/// The line without its `\n`, `\r\n` or `\r`.
pub(super) fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The text without a byte order mark, which some writers put before the first record.
pub(super) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The first `chars_max` characters, and whether that cut something off.
pub(super) fn cut(text: &str, chars_max: usize) -> (&str, bool) {
    if text.len() <= chars_max {
        return (text, false);
    }
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    }
}

/// The text, cut at `chars_max` characters with the flag `truncated`.
pub(super) fn bounded(text: &str, chars_max: usize, flags: &mut Vec<&'static str>) -> String {
    let (kept, was_cut) = cut(text, chars_max);
    if was_cut {
        flag(flags, "truncated");
    }
    kept.to_owned()
}

/// A decimal text times 10^`scale`, rounded half away from zero, without a float in between.
///
/// Saturates at the bounds of `i64`; `None` if the text is not a number.
pub(super) fn decimal(text: &str, scale: usize) -> Option<i64> {
    if let Some(value) = short_decimal(text, scale) {
        return Some(value);
    }
    let text = text.trim();
    if text.bytes().any(|byte| matches!(byte, b'e' | b'E')) {
        return exponent_form(text, scale);
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let kept = fraction.bytes().chain(std::iter::repeat(b'0')).take(scale);
    let mut value: i64 = 0;
    for digit in whole.bytes().chain(kept) {
        value = value.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
    }
    if fraction.as_bytes().get(scale).is_some_and(|digit| *digit >= b'5') {
        value = value.saturating_add(1);
    }
    Some(if negative { -value } else { value })
}

/// Digits, and perhaps a point among them, so few that nothing can overflow: nearly every number.
/// `None`: it must be looked at more closely.
fn short_decimal(text: &str, scale: usize) -> Option<i64> {
    let bytes = text.as_bytes();
    if !bytes.first()?.is_ascii_digit() || bytes.len() + scale > SHORT_DIGITS_MAX {
        return None;
    }
    let mut value: i64 = 0;
    let mut rest = bytes.iter();
    for byte in rest.by_ref().take_while(|byte| **byte != b'.') {
        value = value * 10 + digit(*byte)?;
    }
    for _ in 0..scale {
        value = value * 10 + rest.next().map_or(Some(0), |byte| digit(*byte))?;
    }
    if let Some(next) = rest.next() {
        value += i64::from(digit(*next)? >= 5);
    }
    rest.all(u8::is_ascii_digit).then_some(value)
}

fn digit(byte: u8) -> Option<i64> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(i64::from(digit))
}

/// `1.5e3` and the like: rare, and exact enough as a float.
fn exponent_form(text: &str, scale: usize) -> Option<i64> {
    let scaled = real(text)? * 10f64.powi(i32::try_from(scale).ok()?);
    // A float cast saturates, as `decimal` promises.
    Some(scaled.round() as i64)
}

/// A finite number; words such as `inf` are none.
pub(super) fn real(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    if !text.bytes().all(plain) {
        return None;
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// `YYYY-MM-DD` and `HH:MM:SS`, UTC, as epoch milliseconds.
pub(super) fn utc_ms(date: &str, time: &str) -> Option<i64> {
    let [year, month, day] = three_numbers(date, b'-', 4)?;
    let [hour, minute, second] = three_numbers(time, b':', 2)?;
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    let moment = date.and_hms_opt(hour, minute, second)?;
    Some(moment.and_utc().timestamp_millis())
}

/// Three numbers of fixed width: the first of `first_digits`, the others of two digits.
fn three_numbers(text: &str, separator: u8, first_digits: usize) -> Option<[u32; 3]> {
    let bytes = text.as_bytes();
    if bytes.len() != first_digits + 6 {
        return None;
    }
    if bytes[first_digits] != separator || bytes[first_digits + 3] != separator {
        return None;
    }
    let first = digits(&bytes[..first_digits])?;
    let second = digits(&bytes[first_digits + 1..first_digits + 3])?;
    let third = digits(&bytes[first_digits + 4..])?;
    Some([first, second, third])
}

fn digits(bytes: &[u8]) -> Option<u32> {
    let mut value = 0;
    for byte in bytes {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u32::from(byte - b'0');
    }
    Some(value)
}

/// True for `YYYY-MM-DD`.
pub(super) fn is_date(text: &str) -> bool {
    utc_ms(text, "00:00:00").is_some()
}

/// Refuses a time before 2010 or more than a day ahead: it would move a watermark (DESIGN, D16).
pub(super) fn event_time_in_range(event_ts_ms: i64, context: &DecodeContext) -> Result<i64, Reject> {
    if event_ts_ms < EVENT_TIME_MIN_MS {
        return Err(reject(
            RejectReason::EventTimeOutOfRange,
            "event time is before 2010; set the clock of the sender",
        ));
    }
    if event_ts_ms > context.now_ms.saturating_add(EVENT_TIME_AHEAD_MAX_MS) {
        return Err(reject(
            RejectReason::EventTimeOutOfRange,
            "event time is more than one day in the future; set the clock of the sender",
        ));
    }
    Ok(event_ts_ms)
}

/// A user agent freed of percent-encoding, and how many times that changed it.
///
/// CloudFront's logger encodes once or twice, depending on the age of the log and on who wrote it,
/// so the depth is found per value (events and metrics, 4.5 rule 3). Bytes that are not UTF-8 after
/// decoding become U+FFFD.
pub(super) fn percent_decoded(text: &str) -> (Cow<'_, str>, i64) {
    if memchr::memchr(b'%', text.as_bytes()).is_none() {
        return (Cow::Borrowed(text), 0);
    }
    let mut bytes = Cow::Borrowed(text.as_bytes());
    for depth in 0..DECODES_MAX {
        match Cow::from(percent_decode(&bytes)) {
            Cow::Borrowed(_) => return (lossy(bytes), depth),
            Cow::Owned(next) => bytes = Cow::Owned(next),
        }
    }
    (lossy(bytes), DECODES_MAX)
}

fn lossy(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => {
            Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
        }
    }
}

/// The place of an edge: `LHR` of `LHR50-C1`, `BOM` of Fastly's `cache-bom18223`.
pub(super) fn pop(edge_location: &str) -> Option<String> {
    let letters = |text: &str| {
        let end = text.bytes().position(|byte| !byte.is_ascii_alphabetic());
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let pop = match edge_location.strip_prefix("cache-") {
        Some(fastly) => letters(fastly).to_ascii_uppercase(),
        None => letters(edge_location),
    };
    Some(pop).filter(|pop| !pop.is_empty())
}

/// Unknown keys as they are stored: sorted, the last of equal keys, within the bounds.
///
/// `pinned` is the decoder's own entry and survives the bound on the number of keys.
pub(super) fn ext<'a>(
    mut unknown: Vec<(&'a str, Cow<'a, str>)>,
    pinned: Option<(&'a str, Cow<'a, str>)>,
    flags: &mut Vec<&'static str>,
) -> Vec<(String, String)> {
    if unknown.is_empty() && pinned.is_none() {
        return Vec::new();
    }
    // Turned round, so that the last of equal keys comes first and `dedup_by` keeps it.
    unknown.reverse();
    unknown.sort_by(|left, right| left.0.cmp(right.0));
    unknown.dedup_by(|later, kept| later.0 == kept.0);

    let counted = unknown.len();
    unknown.retain(|(key, _)| !cut(key, EXT_KEY_CHARS_MAX).1);
    unknown.truncate(EXT_KEYS_MAX - usize::from(pinned.is_some()));
    if unknown.len() < counted {
        flag(flags, "ext_truncated");
    }
    if let Some(pinned) = pinned {
        let place = unknown.partition_point(|(key, _)| *key < pinned.0);
        unknown.insert(place, pinned);
    }

    let mut stored = Vec::with_capacity(unknown.len());
    for (key, value) in unknown {
        let (kept, was_cut) = cut(&value, EXT_VALUE_CHARS_MAX);
        if was_cut {
            flag(flags, "ext_truncated");
        }
        stored.push((key.to_owned(), kept.to_owned()));
    }
    stored
}

/// A JSON value that says something.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(&'a str),
    Bool(bool),
    /// An object or a list, as its JSON text.
    Nested(&'a str),
}

impl<'a> Scalar<'a> {
    /// `None` for `null`, an empty text and the text `undefined`, which players send alike.
    pub(super) fn read(raw: &'a str) -> Option<Scalar<'a>> {
        match raw.as_bytes().first()? {
            b'"' => {
                let text = unescaped(raw);
                let absent = text.is_empty() || text == "undefined";
                (!absent).then_some(Scalar::Text(text))
            }
            b'n' => None,
            b't' => Some(Scalar::Bool(true)),
            b'f' => Some(Scalar::Bool(false)),
            b'{' | b'[' => Some(Scalar::Nested(raw)),
            _ => Some(Scalar::Number(raw)),
        }
    }

    pub(super) fn into_text(self) -> Cow<'a, str> {
        match self {
            Scalar::Text(text) => text,
            Scalar::Number(raw) | Scalar::Nested(raw) => Cow::Borrowed(raw),
            Scalar::Bool(true) => Cow::Borrowed("true"),
            Scalar::Bool(false) => Cow::Borrowed("false"),
        }
    }

    /// The text of a number, sent as a number or as a text; `None` for NaN and infinities.
    ///
    /// What is no number at all is given back as an empty text, which no number parser accepts.
    fn numeric_text(&self) -> Option<&str> {
        match self {
            Scalar::Number(raw) => Some(raw),
            Scalar::Text(text) if is_not_finite(text) => None,
            Scalar::Text(text) => Some(text),
            Scalar::Bool(_) | Scalar::Nested(_) => Some(""),
        }
    }

    /// The number times 10^`scale`: `Ok(None)` if it is NaN or infinite, `Err` if it is no number.
    pub(super) fn decimal(&self, scale: usize) -> Result<Option<i64>, BadValue> {
        let Some(text) = self.numeric_text() else {
            return Ok(None);
        };
        decimal(text, scale).map(Some).ok_or(BadValue)
    }

    pub(super) fn real(&self) -> Result<Option<f64>, BadValue> {
        let Some(text) = self.numeric_text() else {
            return Ok(None);
        };
        real(text).map(Some).ok_or(BadValue)
    }

    pub(super) fn boolean(&self) -> Result<bool, BadValue> {
        match self {
            Scalar::Bool(value) => Ok(*value),
            Scalar::Text(text) if text.eq_ignore_ascii_case("true") || text == "1" => Ok(true),
            Scalar::Text(text) if text.eq_ignore_ascii_case("false") || text == "0" => Ok(false),
            Scalar::Number("1") => Ok(true),
            Scalar::Number("0") => Ok(false),
            _ => Err(BadValue),
        }
    }
}

/// A value of the wrong kind; the record survives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadValue;

fn is_not_finite(text: &str) -> bool {
    if text.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        return false;
    }
    let text = text.trim();
    let name = text.strip_prefix(['-', '+']).unwrap_or(text);
    ["nan", "infinity", "inf"].iter().any(|word| name.eq_ignore_ascii_case(word))
}

/// The part of a raw JSON value that a reader sees: inside the quotes, or all of it.
pub(super) fn content(raw: &str) -> &str {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(raw)
}

/// A JSON text without its quotes and escapes.
///
/// An escape that names no character (a lone surrogate, which JavaScript can send) leaves the text
/// as it was written, since refusing the whole record would lose more.
pub(super) fn unescaped(raw: &str) -> Cow<'_, str> {
    let inner = content(raw);
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Cow::Borrowed(inner);
    }
    match serde_json::from_str::<String>(raw) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(inner),
    }
}

/// The keys of one dialect.
pub(super) trait Vocabulary: Copy {
    /// The key with this name, given in lower case.
    fn find(lower_case: &str) -> Option<Self>;
    /// Its own number, below `KNOWN_KEYS_MAX`.
    fn index(self) -> usize;
}

/// One member of a JSON object, borrowed from the line.
struct Member<'a> {
    key: Cow<'a, str>,
    raw: &'a str,
    known: Option<usize>,
}

/// A JSON object of one line: members in order, and where the keys of the dialect stand.
pub(super) struct Object<'a, K> {
    members: Vec<Member<'a>>,
    /// Place of the last member with this key, counted from 1; 0 is none.
    places: [u32; KNOWN_KEYS_MAX],
    /// Bit set: the value went into a field, so it is not left over.
    used: u64,
    vocabulary: PhantomData<K>,
}

impl<'a, K: Vocabulary> Object<'a, K> {
    fn new() -> Self {
        Object {
            members: Vec::with_capacity(MEMBERS_USUAL),
            places: [0; KNOWN_KEYS_MAX],
            used: 0,
            vocabulary: PhantomData,
        }
    }

    /// Reads one line that should be a JSON object.
    ///
    /// Rejects `TooDeep`, `NotAnObject` (other JSON) and `MalformedJson`.
    pub(super) fn parse(text: &'a str) -> Result<Self, Reject> {
        let json = without_bom(text);
        check_nesting(json)?;
        if !json.trim_ascii_start().starts_with('{') {
            return Err(not_an_object(json));
        }
        let (object, outcome) = Self::parse_prefix(json);
        match outcome {
            Ok(()) => Ok(object),
            Err(error) => Err(malformed(&error)),
        }
    }

    /// The members up to the first error, and that error: a cut object still has keys to look at.
    pub(super) fn parse_prefix(json: &'a str) -> (Self, Result<(), serde_json::Error>) {
        let mut object = Self::new();
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let outcome = deserializer
            .deserialize_map(MemberVisitor(&mut object))
            .and_then(|()| deserializer.end());
        (object, outcome)
    }

    fn push(&mut self, key: Cow<'a, str>, raw: &'a str) {
        let known = known_key::<K>(&key);
        self.members.push(Member { key, raw, known });
        if let Some(index) = known {
            // A record is at most 1 MiB long, so the count fits.
            self.places[index] = self.members.len() as u32;
        }
    }

    fn member(&self, key: K) -> Option<&Member<'a>> {
        let place = self.places[key.index()] as usize;
        self.members.get(place.checked_sub(1)?)
    }

    pub(super) fn has(&self, key: K) -> bool {
        self.places[key.index()] != 0
    }

    /// What the key says, without using it up. `None` if it is not there or says nothing.
    pub(super) fn peek(&self, key: K) -> Option<Scalar<'a>> {
        Scalar::read(self.member(key)?.raw)
    }

    /// What the key says, for a field: it will not be left over.
    pub(super) fn take(&mut self, key: K) -> Option<Scalar<'a>> {
        self.used |= 1 << key.index();
        self.peek(key)
    }

    /// Undoes `take`: the value fits no field and is kept with the unknown keys.
    pub(super) fn give_back(&mut self, key: K) {
        self.used &= !(1 << key.index());
    }

    /// The raw JSON of every member with this key: also of those that a later one replaced.
    pub(super) fn raw_of_all(&self, key: K) -> impl Iterator<Item = &'a str> {
        let index = key.index();
        self.members
            .iter()
            .filter(move |member| member.known == Some(index))
            .map(|member| member.raw)
    }

    /// Silences the unknown members of which `tells` is true of key and raw JSON, and gives back their raw JSON.
    pub(super) fn withhold(&mut self, tells: fn(&str, &str) -> bool) -> Vec<&'a str> {
        let unknown = self.members.iter_mut().filter(|member| member.known.is_none());
        let telling = unknown.filter(|member| tells(&member.key, member.raw));
        telling.map(|member| std::mem::replace(&mut member.raw, "null")).collect()
    }

    /// Every member in order, by key and raw JSON: for a dialect that looks its keys up itself.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.members.iter().map(|member| (member.key.as_ref(), member.raw))
    }

    /// What no field took, as stored in `ext`.
    pub(super) fn left_over(&self, pinned: Option<(&'a str, Cow<'a, str>)>, flags: &mut Vec<&'static str>) -> Vec<(String, String)> {
        let mut unknown = Vec::new();
        for (position, member) in self.members.iter().enumerate() {
            if let Some(index) = member.known {
                let replaced = self.places[index] as usize != position + 1;
                if replaced || self.used & (1 << index) != 0 {
                    continue;
                }
            }
            if let Some(value) = Scalar::read(member.raw) {
                unknown.push((member.key.as_ref(), value.into_text()));
            }
        }
        ext(unknown, pinned, flags)
    }
}

fn known_key<K: Vocabulary>(key: &str) -> Option<usize> {
    if key.len() > KNOWN_KEY_BYTES_MAX {
        return None;
    }
    if !key.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return K::find(key).map(K::index);
    }
    let mut lower_case = [0; KNOWN_KEY_BYTES_MAX];
    let lower_case = lower_case.get_mut(..key.len())?;
    lower_case.copy_from_slice(key.as_bytes());
    lower_case.make_ascii_lowercase();
    let name = std::str::from_utf8(lower_case).ok()?;
    K::find(name).map(K::index)
}

/// Counts brackets before any parsing. Flat records, which are nearly all, pay one vector scan.
pub(super) fn check_nesting(json: &str) -> Result<(), Reject> {
    let openings = memchr::memchr2_iter(b'{', b'[', json.as_bytes());
    if openings.take(NESTING_MAX + 1).count() <= NESTING_MAX {
        return Ok(());
    }
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for (offset, byte) in json.bytes().enumerate() {
        if escaped {
            escaped = false;
            continue;
        }
        match byte {
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            let detail = format!("nested deeper than {NESTING_MAX} levels at byte {offset}");
            return Err(reject(RejectReason::TooDeep, detail));
        }
    }
    Ok(())
}

fn not_an_object(json: &str) -> Reject {
    match serde_json::from_str::<IgnoredAny>(json) {
        Ok(_) => reject(
            RejectReason::NotAnObject,
            "the line is JSON but not an object; send one object a line",
        ),
        Err(error) => malformed(&error),
    }
}

/// Names the place only: a parser's own message may quote the record.
fn malformed(error: &serde_json::Error) -> Reject {
    let column = error.column();
    let detail = if error.is_eof() {
        format!("the JSON ends early, at column {column}; the record was cut")
    } else {
        format!("the line is not JSON at column {column}")
    };
    reject(RejectReason::MalformedJson, detail)
}

struct MemberVisitor<'o, 'a, K>(&'o mut Object<'a, K>);

impl<'a, K: Vocabulary> Visitor<'a> for MemberVisitor<'_, 'a, K> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeyText)? {
            let value: &'a RawValue = map.next_value()?;
            self.0.push(key, value.get());
        }
        Ok(())
    }
}

/// A key, borrowed from the line unless it holds an escape.
struct KeyText;

impl<'a> DeserializeSeed<'a> for KeyText {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for KeyText {
    type Value = Cow<'a, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_scaled_without_float_error() {
        let check = |text: &str, scale: usize, expected: Option<i64>| {
            assert_eq!(decimal(text, scale), expected, "{text} at scale {scale}");
        };
        check("0.184", 3, Some(184));
        check("0.001", 3, Some(1));
        check("0.000", 3, Some(0));
        check("12", 3, Some(12_000));
        check("1.0005", 3, Some(1_001));
        check("1.00049", 3, Some(1_000));
        check("-1.5", 0, Some(-2));
        check(" 7 ", 0, Some(7));
        check(".5", 1, Some(5));
        check("5.", 1, Some(50));
        check("1607374321.541", 3, Some(1_607_374_321_541));
        check("1.5e3", 0, Some(1_500));
        check("99999999999999999999999", 3, Some(i64::MAX));
        check("1e300", 3, Some(i64::MAX));
        for junk in ["", ".", "-", "1.2.3", "abc", "1_000", "0x10", "e", "--1", "+-1", "NaN"] {
            check(junk, 3, None);
        }
    }

    #[test]
    fn dates_and_times_are_strict() {
        let check = |date: &str, time: &str, expected: Option<i64>| {
            assert_eq!(utc_ms(date, time), expected, "{date} {time}");
        };
        check("2020-05-06", "08:00:00", Some(1_588_752_000_000));
        check("2020-02-30", "08:00:00", None);
        check("2020-05-06", "24:00:00", None);
        check("2020-5-6", "08:00:00", None);
        check("2020/05/06", "08:00:00", None);
        check("2020-05-06", "08:00", None);
        check("ü020-05-0", "08:00:00", None);
    }

    #[test]
    fn a_user_agent_is_decoded_as_often_as_it_was_encoded() {
        let check = |text: &str, expected: &str, depth: i64| {
            assert_eq!(percent_decoded(text), (Cow::Borrowed(expected), depth), "{text}");
        };
        check("curl/7.55.1", "curl/7.55.1", 0);
        check("a%20b", "a b", 1);
        check("a%2520b", "a b", 2);
        check("a%252520b", "a b", 3);
        check("a%25252520b", "a%20b", 3);
        check("100%", "100%", 0);
        check("%E9", "\u{fffd}", 1);
    }

    #[test]
    fn an_edge_location_names_its_place() {
        let check = |location: &str, expected: Option<&str>| {
            assert_eq!(pop(location).as_deref(), expected, "{location}");
        };
        check("LHR50-C1", Some("LHR"));
        check("LAX1", Some("LAX"));
        check("cache-bom18223", Some("BOM"));
        check("cache-bom18223-BOM", Some("BOM"));
        check("50", None);
        check("cache-", None);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("äöü", 2), ("äö", true));
        assert_eq!(cut("äöü", 3), ("äöü", false));
        assert_eq!(cut("", 0), ("", false));
    }

    #[test]
    fn ext_is_sorted_bounded_and_keeps_the_pinned_entry() {
        let names: Vec<String> = (0..100).map(|number| format!("k{number:03}")).collect();
        let unknown = |value: &'static str| -> Vec<(&str, Cow<'_, str>)> {
            names.iter().rev().map(|name| (name.as_str(), Cow::Borrowed(value))).collect()
        };
        let mut flags = Vec::new();
        let stored = ext(unknown("v"), Some(("zz", Cow::Borrowed("pinned"))), &mut flags);
        assert_eq!(stored.len(), EXT_KEYS_MAX);
        assert_eq!(stored[0].0, "k000");
        assert_eq!(stored[63], ("zz".to_owned(), "pinned".to_owned()));
        assert_eq!(flags, ["ext_truncated"]);

        let mut flags = Vec::new();
        let twice = vec![("k", Cow::Borrowed("first")), ("k", Cow::Borrowed("last"))];
        assert_eq!(ext(twice, None, &mut flags), [("k".to_owned(), "last".to_owned())]);
        assert!(flags.is_empty());

        let long = "x".repeat(EXT_VALUE_CHARS_MAX + 1);
        let stored = ext(vec![("k", Cow::Borrowed(long.as_str()))], None, &mut flags);
        assert_eq!(stored[0].1.len(), EXT_VALUE_CHARS_MAX);
        assert_eq!(flags, ["ext_truncated"]);

        let mut flags = Vec::new();
        assert!(ext(vec![(long.as_str(), Cow::Borrowed("v"))], None, &mut flags).is_empty());
        assert_eq!(flags, ["ext_truncated"]);
    }

    #[test]
    fn a_lone_surrogate_costs_the_escape_and_not_the_record() {
        assert_eq!(Scalar::read(r#""a\ud800""#), Some(Scalar::Text(Cow::Borrowed(r"a\ud800"))));
        assert_eq!(Scalar::read(r#""a\u00e4\n""#), Some(Scalar::Text(Cow::Borrowed("aä\n"))));
    }
}
