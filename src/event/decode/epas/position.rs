//! Where an EPAS player is, and how long its content: the two numbers of the envelope whose unit has
//! to be found out (events and metrics, 1.2).
//!
//! Stands below `epas`, which places the result in the event.
//!
//! Invariant: -1 is unknown, never a position or a length.
//! Invariant: a unit that had to be guessed is flagged `unit_assumed`.
//! Invariant: a time of day is never taken for a position in an asset.

use super::super::reading::{MEDIA_MS_MAX, Reading, THOUSANDTHS};
use super::super::text::{Scalar, flag, reject};
use super::{Key, raw};
use crate::event::{PlayerEvent, Reject, RejectReason};

/// A length below this is in seconds: twelve hours in seconds, 43 s in milliseconds, and assets of
/// less than a minute are rarer than those of less than half a day.
const SECONDS_BELOW: i64 = 43_200;
/// 2100-01-01 in epoch milliseconds: what is between the longest asset and this is a time of day.
const TIME_OF_DAY_MAX_MS: i64 = 4_102_444_800_000;
/// -1 in thousandths.
pub(super) const UNKNOWN: i64 = -1000;

/// Playhead and length.
#[derive(Debug, PartialEq)]
pub(super) struct Position {
    playhead_ms: Option<i64>,
    duration_ms: Option<i64>,
    /// One of the two is a time of day, as only a live channel has it.
    is_live: bool,
}

impl Position {
    /// The specification says milliseconds in its text, seconds in its types, and its web player
    /// sends seconds. A fraction or a short length tells seconds; else it is what the text says.
    ///
    /// Rejects `MissingFields` and `BadValue` where one of the two is no number.
    pub(super) fn read(envelope: &mut Reading<'_, Key>) -> Result<Position, Reject> {
        let playhead = known(envelope, Key::Playhead, "playhead", "bad_playhead")?;
        let duration = known(envelope, Key::Duration, "duration", "bad_value")?.filter(|length| *length > 0);
        let has_fraction = |value: Option<i64>| value.is_some_and(|thousandths| thousandths % 1000 != 0);
        let is_short = duration.is_some_and(|length| length < SECONDS_BELOW * 1000);
        let is_seconds = has_fraction(playhead) || has_fraction(duration) || is_short;
        if playhead.is_some_and(|position| position != 0) || duration.is_some() {
            flag(&mut envelope.flags, "unit_assumed");
        }

        let ms = |thousandths: i64| if is_seconds { thousandths } else { thousandths / 1000 };
        let playhead = Moment::of(playhead.map(ms));
        let duration = Moment::of(duration.map(ms));
        if playhead == Moment::TimeOfDay {
            // Kept under its own name: a position in an asset is counted on from.
            envelope.object.give_back(Key::Playhead);
        }
        if playhead == Moment::Impossible {
            flag(&mut envelope.flags, "bad_playhead");
        }
        if duration == Moment::Impossible {
            flag(&mut envelope.flags, "bad_value");
        }
        Ok(Position {
            playhead_ms: playhead.offset_ms(),
            duration_ms: duration.offset_ms(),
            is_live: playhead == Moment::TimeOfDay || duration == Moment::TimeOfDay,
        })
    }

    pub(super) fn place(&self, event: &mut PlayerEvent) {
        event.playhead_ms = self.playhead_ms;
        event.duration_ms = self.duration_ms;
        event.stream_type = self.is_live.then_some("live");
    }
}

/// What a number of milliseconds can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Unknown,
    /// From the start of the asset.
    Offset(i64),
    /// Since 1970: the live edge, or a place before it.
    TimeOfDay,
    Impossible,
}

impl Moment {
    fn of(ms: Option<i64>) -> Moment {
        match ms {
            None => Moment::Unknown,
            Some(ms) if ms <= MEDIA_MS_MAX => Moment::Offset(ms),
            Some(ms) if ms <= TIME_OF_DAY_MAX_MS => Moment::TimeOfDay,
            Some(_) => Moment::Impossible,
        }
    }

    fn offset_ms(self) -> Option<i64> {
        match self {
            Moment::Offset(ms) => Some(ms),
            Moment::Unknown | Moment::TimeOfDay | Moment::Impossible => None,
        }
    }
}

/// What the envelope says, in thousandths of its unit. `None`: -1, or `null`, which is what
/// JavaScript makes of an infinite length.
fn known(envelope: &mut Reading<'_, Key>, key: Key, name: &str, bad: &'static str) -> Result<Option<i64>, Reject> {
    let Some(sent) = raw(envelope, key) else {
        let detail = format!("{name} is missing; send -1 where it is unknown");
        return Err(reject(RejectReason::MissingFields, detail));
    };
    envelope.object.take(key);
    if sent == "null" {
        return Ok(None);
    }
    let Some(value) = thousandths(sent) else {
        let detail = format!("{name} is not a number; send -1 where it is unknown");
        return Err(reject(RejectReason::BadValue, detail));
    };
    if value < 0 && value != UNKNOWN {
        flag(&mut envelope.flags, bad);
    }
    Ok(Some(value).filter(|value| *value >= 0))
}

/// A JSON number times a thousand; `None` for any other kind of value.
pub(super) fn thousandths(raw: &str) -> Option<i64> {
    match Scalar::read(raw)? {
        number @ Scalar::Number(_) => number.decimal(THOUSANDTHS).ok()?,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::text::Object;
    use super::*;

    fn read(members: &str) -> (Result<Position, RejectReason>, Vec<&'static str>) {
        let line = format!("{{{members}}}");
        let mut envelope = Reading::new(Object::parse(&line).unwrap());
        let position = Position::read(&mut envelope).map_err(|reject| reject.reason);
        (position, envelope.flags)
    }

    fn check(playhead: &str, duration: &str, expected: (Option<i64>, Option<i64>), is_live: bool, flags: &[&str]) {
        let (position, found) = read(&format!(r#""playhead":{playhead},"duration":{duration}"#));
        let expected = Position {
            playhead_ms: expected.0,
            duration_ms: expected.1,
            is_live,
        };
        assert_eq!(position, Ok(expected), "{playhead} of {duration}");
        assert_eq!(found, flags, "{playhead} of {duration}");
    }

    #[test]
    fn seconds_and_milliseconds_are_told_apart() {
        let check = |playhead: &str, duration: &str, expected| check(playhead, duration, expected, false, &["unit_assumed"]);
        check("12.5", "600", (Some(12_500), Some(600_000)));
        check("12", "600.04", (Some(12_000), Some(600_040)));
        check("12", "43199", (Some(12_000), Some(43_199_000)));
        check("12000", "43200", (Some(12_000), Some(43_200)));
        check("12000", "600000", (Some(12_000), Some(600_000)));
        check("12000.0", "600000.0", (Some(12_000), Some(600_000)));
        check("12.5", "-1", (Some(12_500), None));
        check("12000", "-1", (Some(12_000), None));
        check("0", "600", (Some(0), Some(600_000)));
        check("1.2e1", "6e2", (Some(12_000), Some(600_000)));
    }

    #[test]
    fn what_is_not_known_is_in_no_unit() {
        check("0", "0", (Some(0), None), false, &[]);
        check("-1", "-1", (None, None), false, &[]);
        check("-1.0", "null", (None, None), false, &[]);
        check("null", "-1", (None, None), false, &[]);
        check("-2", "-3", (None, None), false, &["bad_playhead", "bad_value"]);
        check("9e12", "9e12", (None, None), false, &["unit_assumed", "bad_playhead", "bad_value"]);
    }

    #[test]
    fn a_time_of_day_is_no_position() {
        check("1634911660000", "1634911668000", (None, None), true, &["unit_assumed"]);
        check("-1", "1634911668000", (None, None), true, &["unit_assumed"]);
        check("1634911660.5", "-1", (None, None), true, &["unit_assumed"]);
    }

    #[test]
    fn both_must_be_there_as_numbers() {
        let check = |members: &str, expected: RejectReason| assert_eq!(read(members).0, Err(expected), "{members}");
        check("", RejectReason::MissingFields);
        check(r#""playhead":1"#, RejectReason::MissingFields);
        check(r#""duration":1"#, RejectReason::MissingFields);
        check(r#""playhead":"1","duration":1"#, RejectReason::BadValue);
        check(r#""playhead":1,"duration":"""#, RejectReason::BadValue);
        check(r#""playhead":1,"duration":true"#, RejectReason::BadValue);
        check(r#""playhead":1e999,"duration":1"#, RejectReason::BadValue);
    }
}
