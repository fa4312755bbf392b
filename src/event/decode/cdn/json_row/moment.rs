//! A time as a CDN writes it, RFC 3339 or a unix time in any unit, as epoch milliseconds.
//!
//! Stands below the formats of `cdn`; what a day and a second are, `text` knows.
//!
//! Invariant: any text gives a time or none; what is no time is never guessed at.

use crate::event::decode::text::{decimal, utc_ms};

/// A time below this is in seconds, and each thousandfold names the next unit: as milliseconds it
/// would be before 1973, as seconds after the year 5000.
const EPOCH_SECONDS_BELOW: i64 = 100_000_000_000;

/// Epoch ms of RFC 3339, or of an epoch time in seconds, milli-, micro- or nanoseconds by its size.
pub(in crate::event::decode::cdn) fn moment_ms(text: &str) -> Option<i64> {
    rfc3339_ms(text).or_else(|| epoch_ms(text))
}

fn epoch_ms(text: &str) -> Option<i64> {
    let whole = text.split('.').next().unwrap_or(text);
    let value = decimal(whole, 0).filter(|value| *value >= 0)?;
    if value < EPOCH_SECONDS_BELOW {
        return decimal(text, 3);
    }
    let mut milliseconds = value;
    while milliseconds >= EPOCH_SECONDS_BELOW * 1_000 {
        milliseconds /= 1_000;
    }
    Some(milliseconds)
}

/// Epoch ms of RFC 3339 (a blank for the `T` is accepted, and no offset is UTC); finer digits are cut.
pub(in crate::event::decode::cdn) fn rfc3339_ms(text: &str) -> Option<i64> {
    let separator = text.as_bytes().get(10)?;
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let seconds_ms = utc_ms(text.get(..10)?, text.get(11..19)?)?;
    let (fraction_ms, rest) = fraction_ms(text.get(19..)?)?;
    seconds_ms.checked_add(fraction_ms)?.checked_sub(offset_ms(rest)?)
}

/// The milliseconds of `.695328200Z`, and what follows the digits.
fn fraction_ms(text: &str) -> Option<(i64, &str)> {
    let Some(digits) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = digits.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let mut milliseconds = 0;
    for place in 0..3 {
        let digit = digits.as_bytes().get(place).filter(|_| place < end).map_or(0, |byte| byte - b'0');
        milliseconds = milliseconds * 10 + i64::from(digit);
    }
    (end > 0).then_some((milliseconds, &digits[end..]))
}

/// The offset from UTC of `Z`, `+05:30`, `-0700`, ` +0000` or nothing, in milliseconds.
pub(in crate::event::decode::cdn) fn offset_ms(text: &str) -> Option<i64> {
    let text = text.trim_start();
    if matches!(text, "" | "Z" | "z" | "UTC") {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = text.get(1..)?;
    let (hours, minutes) = match digits.len() {
        5 if digits.as_bytes()[2] == b':' => (digits.get(..2)?, digits.get(3..)?),
        4 => (digits.get(..2)?, digits.get(2..)?),
        2 => (digits, "0"),
        _ => return None,
    };
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes) * 60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_any_unit() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(moment_ms(text), expected, "{text}");
        check("2022-11-19T00:24:13.695328200Z", Some(1_668_817_453_695));
        check("2022-11-19T00:24:13Z", Some(1_668_817_453_000));
        check("2022-11-19 00:24:13", Some(1_668_817_453_000));
        check("2022-11-19T05:54:13.6+05:30", Some(1_668_817_453_600));
        check("2022-11-18T17:24:13-0700", Some(1_668_817_453_000));
        check("1668817453", Some(1_668_817_453_000));
        check("1668817453.695", Some(1_668_817_453_695));
        check("1668817453695", Some(1_668_817_453_695));
        check("1668817453695328", Some(1_668_817_453_695));
        check("1668817453695328200", Some(1_668_817_453_695));
        for junk in [
            "",
            "-",
            "yesterday",
            "2022-11-19",
            "2022-11-19T24:00:00Z",
            "2022-11-19T00:24:13.Z",
            "2022-11-19T00:24:13+99:00",
            "2022-11-19T00:24:13+5",
            "2022-11-19T00:24:13 CET",
            "2022-11-19T00:24:1é",
            "-1668817453",
        ] {
            check(junk, None);
        }
    }
}
