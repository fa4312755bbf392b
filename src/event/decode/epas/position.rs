//! Where an EPAS player is, and how long its content: the two numbers of the envelope whose unit is in
//! doubt (events and metrics, 1.2).
//!
//! Stands below `epas`, which places the result in the event. The specification says milliseconds in its
//! text and seconds in its types, and its web player sends seconds. One event does not tell, so that each
//! is taken for seconds here; from all events of a session the session engine finds the unit
//! (`session::units`).
//!
//! Invariant: -1 is unknown, never a position or a length.
//! Invariant: seconds are assumed of every event alike, and `unit_assumed` says so.
//! Invariant: a time of day is never taken for a position in an asset.

use super::super::reading::{MEDIA_MS_MAX, Reading, THOUSANDTHS};
use super::super::text::{Scalar, flag, reject};
use super::{Key, raw};
use crate::event::{PlayerEvent, Reject, RejectReason};

/// 2100-01-01 in epoch milliseconds. What is sent between the longest asset in seconds and this is a time
/// of day, in seconds or milliseconds.
const TIME_OF_DAY_MAX: i64 = 4_102_444_800_000;
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
    /// Rejects `MissingFields` and `BadValue` where one of the two is no number.
    pub(super) fn read(envelope: &mut Reading<'_, Key>) -> Result<Position, Reject> {
        let playhead = known(envelope, Key::Playhead, "playhead", "bad_playhead")?;
        let duration = known(envelope, Key::Duration, "duration", "bad_value")?.filter(|length| *length > 0);
        if playhead.is_some_and(|position| position != 0) || duration.is_some() {
            flag(&mut envelope.flags, "unit_assumed");
        }

        let playhead = Moment::of(playhead);
        let duration = Moment::of(duration);
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

/// What a number can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Unknown,
    /// From the start of the asset, in ms if it was sent in seconds.
    Offset(i64),
    /// Since 1970, in either unit: the live edge, or a place before it.
    TimeOfDay,
    Impossible,
}

impl Moment {
    fn of(thousandths: Option<i64>) -> Moment {
        match thousandths {
            None => Moment::Unknown,
            Some(ms) if ms <= MEDIA_MS_MAX => Moment::Offset(ms),
            Some(thousandths) if thousandths / 1000 <= TIME_OF_DAY_MAX => Moment::TimeOfDay,
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
    fn both_are_taken_for_seconds() {
        let check = |playhead: &str, duration: &str, expected| check(playhead, duration, expected, false, &["unit_assumed"]);
        check("12.5", "600", (Some(12_500), Some(600_000)));
        check("12", "600.04", (Some(12_000), Some(600_040)));
        check("12", "43199", (Some(12_000), Some(43_199_000)));
        check("12", "43200", (Some(12_000), Some(43_200_000)));
        check("12000", "600000", (Some(12_000_000), Some(600_000_000)));
        check("12000.0", "600000.0", (Some(12_000_000), Some(600_000_000)));
        check("12.5", "-1", (Some(12_500), None));
        check("12000", "-1", (Some(12_000_000), None));
        check("0.0004", "315360000", (Some(0), Some(MEDIA_MS_MAX)));
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
        check("1634911660", "-1", (None, None), true, &["unit_assumed"]);
        check("315360000.001", "4102444800000", (None, None), true, &["unit_assumed"]);
        check("4102444800001", "-1", (None, None), false, &["unit_assumed", "bad_playhead"]);
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
