//! One JSON record on its way into a `PlayerEvent`: members into values, and the rules they broke.
//!
//! Stands between `text`, which knows what a number is, and the dialects `ivs` and `epas`, which know
//! what a key means.
//!
//! Invariant: a value that breaks a rule is absent and flagged; the record survives it.
//! Invariant: a place handed to privacy is inside the line that was given.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

use super::DecodeContext;
use super::text::{BadValue, INTEGER_MAX, Object, Scalar, Vocabulary, bounded, content, event_time_in_range, flag};
use crate::event::Reject;

/// CTA-5004-B bounds a session id at 64 characters and a content id at 128.
pub(super) const SESSION_ID_CHARS_MAX: usize = 64;
pub(super) const CONTENT_ID_CHARS_MAX: usize = 128;
/// Longest other text: user agents are the longest honest ones.
pub(super) const TEXT_CHARS_MAX: usize = 512;
/// Longest asset believed: ten years. A live playhead counts from the channel's start.
pub(super) const MEDIA_MS_MAX: i64 = 10 * 365 * 24 * 60 * 60 * 1000;
/// A time stamp below this is in seconds: as milliseconds it would be before 1973-03-03.
const SECONDS_BELOW: i64 = 100_000_000_000;

pub(super) const ANY_COUNT: RangeInclusive<i64> = 0..=INTEGER_MAX;
pub(super) const MEDIA_MS: RangeInclusive<i64> = 0..=MEDIA_MS_MAX;
/// Largest picture side believed, in pixels.
pub(super) const PIXELS: RangeInclusive<i64> = 1..=100_000;

/// Scale of `Scalar::decimal` for a value that is already in the unit wanted.
pub(super) const UNITS: usize = 0;
/// Scale of `Scalar::decimal` for seconds that are wanted in milliseconds, and kbit/s in bit/s.
pub(super) const THOUSANDTHS: usize = 3;

/// The members of a record, and the names of the data-quality rules it broke so far.
pub(super) struct Reading<'a, K> {
    pub(super) object: Object<'a, K>,
    pub(super) flags: Vec<&'static str>,
}

impl<'a, K: Vocabulary> Reading<'a, K> {
    pub(super) fn new(object: Object<'a, K>) -> Reading<'a, K> {
        Reading { object, flags: Vec::new() }
    }

    pub(super) fn text(&mut self, key: K, chars_max: usize) -> Option<String> {
        match self.object.take(key)?.into_text() {
            // The usual case: borrowed, and copied once.
            Cow::Borrowed(text) => Some(bounded(text, chars_max, &mut self.flags)),
            Cow::Owned(text) => Some(bounded(&text, chars_max, &mut self.flags)),
        }
    }

    /// A number times 10^`scale`; outside of `range`, or no number, it is `None` with the flag.
    pub(super) fn number(&mut self, key: K, scale: usize, range: RangeInclusive<i64>, bad: &'static str) -> Option<i64> {
        match self.object.take(key)?.decimal(scale) {
            Ok(None) => None,
            Ok(Some(value)) if range.contains(&value) => Some(value),
            Ok(Some(_)) | Err(BadValue) => {
                flag(&mut self.flags, bad);
                None
            }
        }
    }

    /// A bitrate in bit/s, from bit/s (`UNITS`) or kbit/s (`THOUSANDTHS`); 0 says nothing.
    pub(super) fn bitrate_bps(&mut self, key: K, scale: usize) -> Option<i64> {
        let bitrate_bps = self.number(key, scale, ANY_COUNT, "bad_value");
        bitrate_bps.filter(|bitrate_bps| *bitrate_bps > 0)
    }

    pub(super) fn boolean(&mut self, key: K) -> Option<bool> {
        let value = self.object.take(key)?.boolean();
        if value == Err(BadValue) {
            flag(&mut self.flags, "bad_value");
        }
        value.ok()
    }
}

/// An event time within the bounds, and as sent, from thousandths of what was sent: milliseconds, or
/// seconds with the flag `seconds_timestamp`.
pub(super) fn event_time(thousandths: i64, context: &DecodeContext, flags: &mut Vec<&'static str>) -> Result<(i64, i64), Reject> {
    let raw = thousandths / 1000;
    if raw >= SECONDS_BELOW {
        return Ok((event_time_in_range(raw, context)?, raw));
    }
    flag(flags, "seconds_timestamp");
    Ok((event_time_in_range(thousandths, context)?, raw))
}

/// The receiver's time for a record that brings none, with the flag `receive_time`.
///
/// It counts as the time sent, too: two equal reports a minute apart are two reports, and their
/// distance to the receiver's clock must not look like a clock that is wrong.
pub(super) fn receive_time(context: &DecodeContext, flags: &mut Vec<&'static str>) -> (i64, i64) {
    flag(flags, "receive_time");
    (context.now_ms, context.now_ms)
}

/// Where a member's content stands in the line, inside the quotes; `None` if it says nothing.
///
/// `raw` must be borrowed from `line`, as the members of its objects are, at any depth.
pub(super) fn span(line: &str, raw: &str) -> Option<Range<usize>> {
    Scalar::read(raw)?;
    let inside = content(raw);
    let start = inside.as_ptr() as usize - line.as_ptr() as usize;
    Some(start..start + inside.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_600_000_000_000;
    const CONTEXT: DecodeContext = DecodeContext { now_ms: NOW_MS };

    #[derive(Debug, Clone, Copy)]
    struct Only;

    impl Vocabulary for Only {
        fn find(lower_case: &str) -> Option<Only> {
            (lower_case == "a").then_some(Only)
        }

        fn index(self) -> usize {
            0
        }
    }

    fn reading(json: &str) -> Reading<'_, Only> {
        Reading::new(Object::parse(json).unwrap())
    }

    #[test]
    fn a_value_outside_of_its_range_is_absent_and_flagged() {
        let check = |json: &str, expected: Option<i64>, flags: &[&str]| {
            let mut reading = reading(json);
            assert_eq!(reading.number(Only, UNITS, PIXELS, "bad"), expected, "{json}");
            assert_eq!(reading.flags, flags, "{json}");
        };
        check(r#"{"a":720}"#, Some(720), &[]);
        check(r#"{"a":"720"}"#, Some(720), &[]);
        check(r#"{"a":0}"#, None, &["bad"]);
        check(r#"{"a":100001}"#, None, &["bad"]);
        check(r#"{"a":true}"#, None, &["bad"]);
        check(r#"{"a":"NaN"}"#, None, &[]);
        check(r#"{"a":null}"#, None, &[]);
        check(r#"{}"#, None, &[]);
    }

    #[test]
    fn a_bitrate_is_bits_whatever_it_was_and_never_zero() {
        assert_eq!(reading(r#"{"a":300}"#).bitrate_bps(Only, THOUSANDTHS), Some(300_000));
        assert_eq!(reading(r#"{"a":300}"#).bitrate_bps(Only, UNITS), Some(300));
        assert_eq!(reading(r#"{"a":0}"#).bitrate_bps(Only, UNITS), None);
    }

    #[test]
    fn a_boolean_that_is_none_is_flagged() {
        let mut no_boolean = reading(r#"{"a":"maybe"}"#);
        assert_eq!((no_boolean.boolean(Only), &no_boolean.flags[..]), (None, &["bad_value"][..]));
        assert_eq!(reading(r#"{"a":"TRUE"}"#).boolean(Only), Some(true));
    }

    #[test]
    fn times_are_milliseconds_or_seconds_and_else_the_receivers() {
        let mut flags = Vec::new();
        assert_eq!(
            event_time(1_588_752_000_123_000, &CONTEXT, &mut flags).unwrap(),
            (1_588_752_000_123, 1_588_752_000_123)
        );
        assert!(flags.is_empty());
        assert_eq!(
            event_time(1_588_752_000_123, &CONTEXT, &mut flags).unwrap(),
            (1_588_752_000_123, 1_588_752_000)
        );
        assert_eq!(receive_time(&CONTEXT, &mut flags), (NOW_MS, NOW_MS));
        assert_eq!(flags, ["seconds_timestamp", "receive_time"]);
        event_time((NOW_MS + 86_400_001) * 1000, &CONTEXT, &mut flags).unwrap_err();
    }

    #[test]
    fn a_span_is_what_stands_inside_the_quotes() {
        let line = r#" {"a":"ü"}"#;
        let raw = reading(line).object.raw_of_all(Only).next().unwrap();
        assert_eq!(&line[span(line, raw).unwrap()], "ü");
        let nothing = r#"{"a":null}"#;
        let raw = reading(nothing).object.raw_of_all(Only).next().unwrap();
        assert_eq!(span(nothing, raw), None);
    }
}
