//! Calendars: hours and days of a place, such as office hours or holidays.
//!
//! Stands beside rules: `notify.active` sends within one, a baseline leaves the days of one out.
//!
//! Summer time follows the rules of the European Union and of the United States, which are written
//! out here, so that no table of time zones is needed; other places are given as an offset.
//!
//! Invariant: no clock; the instant is handed in.

use chrono::{Datelike, NaiveDate};

use crate::alert::{DAY_MS, MINUTE_MS};

const HOUR_MS: i64 = 60 * MINUTE_MS;

/// When summer time holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Summer {
    Never,
    /// Last Sunday of March to last Sunday of October, 01:00 UTC (Directive 2000/84/EC).
    Europe,
    /// Second Sunday of March to first Sunday of November, 02:00 local (Energy Policy Act of 2005).
    America,
}

/// A place's distance from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Zone {
    standard_ms: i64,
    summer: Summer,
}

/// Minutes east of UTC in winter.
const PLACES: [(&str, i64, Summer); 28] = [
    ("UTC", 0, Summer::Never),
    ("Europe/London", 0, Summer::Europe),
    ("Europe/Dublin", 0, Summer::Europe),
    ("Europe/Lisbon", 0, Summer::Europe),
    ("Europe/Madrid", 60, Summer::Europe),
    ("Europe/Paris", 60, Summer::Europe),
    ("Europe/Berlin", 60, Summer::Europe),
    ("Europe/Rome", 60, Summer::Europe),
    ("Europe/Amsterdam", 60, Summer::Europe),
    ("Europe/Brussels", 60, Summer::Europe),
    ("Europe/Vienna", 60, Summer::Europe),
    ("Europe/Zurich", 60, Summer::Europe),
    ("Europe/Stockholm", 60, Summer::Europe),
    ("Europe/Oslo", 60, Summer::Europe),
    ("Europe/Copenhagen", 60, Summer::Europe),
    ("Europe/Warsaw", 60, Summer::Europe),
    ("Europe/Prague", 60, Summer::Europe),
    ("Europe/Budapest", 60, Summer::Europe),
    ("Europe/Athens", 120, Summer::Europe),
    ("Europe/Helsinki", 120, Summer::Europe),
    ("Europe/Bucharest", 120, Summer::Europe),
    ("America/New_York", -300, Summer::America),
    ("America/Chicago", -360, Summer::America),
    ("America/Denver", -420, Summer::America),
    ("America/Los_Angeles", -480, Summer::America),
    ("America/Sao_Paulo", -180, Summer::Never),
    ("Asia/Tokyo", 540, Summer::Never),
    ("Asia/Kolkata", 330, Summer::Never),
];

impl Zone {
    pub(super) const UTC: Zone = Zone {
        standard_ms: 0,
        summer: Summer::Never,
    };

    /// `UTC`, `+01:00` or the name of a place that is known here.
    pub(super) fn parse(text: &str) -> Option<Zone> {
        if let Some((_, minutes, summer)) = PLACES.iter().find(|(name, _, _)| *name == text) {
            return Some(Zone {
                standard_ms: minutes * MINUTE_MS,
                summer: *summer,
            });
        }
        let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(rest), _) => (1, rest),
            (_, Some(rest)) => (-1, rest),
            _ => return None,
        };
        let minutes = parse_minutes(rest).filter(|minutes| *minutes <= 14 * 60)?;
        Some(Zone {
            standard_ms: sign * minutes * MINUTE_MS,
            summer: Summer::Never,
        })
    }

    pub(super) fn known_places() -> impl Iterator<Item = &'static str> {
        PLACES.iter().map(|(name, _, _)| *name)
    }

    fn offset_ms(self, at_ms: i64) -> i64 {
        let year = date_of(at_ms.saturating_add(self.standard_ms)).year();
        let summer = match self.summer {
            Summer::Never => return self.standard_ms,
            Summer::Europe => last_sunday_ms(year, 3) + HOUR_MS..last_sunday_ms(year, 10) + HOUR_MS,
            Summer::America => {
                let first = sunday_ms(year, 3, 2) + 2 * HOUR_MS - self.standard_ms;
                let last = sunday_ms(year, 11, 1) + HOUR_MS - self.standard_ms;
                first..last
            }
        };
        let saved_ms = if summer.contains(&at_ms) { HOUR_MS } else { 0 };
        self.standard_ms + saved_ms
    }
}

fn date_of(at_ms: i64) -> NaiveDate {
    let days = i32::try_from(at_ms.div_euclid(DAY_MS)).unwrap_or(0);
    epoch()
        .checked_add_signed(chrono::TimeDelta::days(i64::from(days)))
        .unwrap_or(epoch())
}

fn epoch() -> NaiveDate {
    NaiveDate::default()
}

fn midnight_ms(date: NaiveDate) -> i64 {
    date.signed_duration_since(epoch()).num_days() * DAY_MS
}

/// Midnight of the n-th Sunday of a month.
fn sunday_ms(year: i32, month: u32, n: u8) -> i64 {
    NaiveDate::from_weekday_of_month_opt(year, month, chrono::Weekday::Sun, n).map_or(0, midnight_ms)
}

fn last_sunday_ms(year: i32, month: u32) -> i64 {
    match sunday_ms(year, month, 5) {
        0 => sunday_ms(year, month, 4),
        fifth => fifth,
    }
}

/// Hours and days of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    pub(super) name: String,
    pub(super) zone: Zone,
    /// Monday first.
    pub(super) days: [bool; 7],
    /// Minutes of the day, from (inclusive) and to (exclusive); a `to` before `from` is past midnight.
    pub(super) minutes: (i64, i64),
    /// First and last day since 1970-01-01; every day where there are none.
    pub(super) dates: Vec<(i64, i64)>,
}

impl Calendar {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True when this instant lies within. Hours past midnight count to the day on the wall.
    pub fn contains(&self, at_ms: i64) -> bool {
        let local_ms = at_ms.saturating_add(self.zone.offset_ms(at_ms));
        let day = local_ms.div_euclid(DAY_MS);
        // 1970-01-01 was a Thursday.
        let weekday = usize::try_from((day + 3).rem_euclid(7)).unwrap_or(0);
        let minute = local_ms.rem_euclid(DAY_MS) / MINUTE_MS;
        let (from, to) = self.minutes;
        let is_hour = if from < to {
            (from..to).contains(&minute)
        } else {
            minute >= from || minute < to
        };
        let is_date = self.dates.is_empty() || self.dates.iter().any(|(first, last)| (*first..=*last).contains(&day));
        self.days[weekday] && is_hour && is_date
    }
}

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// `mon`, or `mon-fri`; past Sunday it goes on with Monday.
pub(super) fn parse_days(text: &str) -> Option<Vec<usize>> {
    let day = |text: &str| WEEKDAYS.iter().position(|name| *name == text.trim());
    let Some((first, last)) = text.split_once('-') else {
        return day(text).map(|day| vec![day]);
    };
    let (first, last) = (day(first)?, day(last)?);
    let length = (last + 7 - first) % 7;
    Some((0..=length).map(|n| (first + n) % 7).collect())
}

/// `08:00-19:00` as minutes of the day.
pub(super) fn parse_hours(text: &str) -> Option<(i64, i64)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (parse_minutes(from.trim())?, parse_minutes(to.trim())?);
    (from != to && from < 24 * 60).then_some((from, to))
}

/// `08:30` as minutes; `24:00` is the end of the day.
fn parse_minutes(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let is_plain = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(hours) || !is_plain(minutes) {
        return None;
    }
    let (hours, minutes) = (hours.parse::<i64>().ok()?, minutes.parse::<i64>().ok()?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= 24 * 60).then_some(total)
}

/// `2026-12-25`, or `2026-12-24..2026-12-26`, as days since 1970-01-01.
pub(super) fn parse_dates(text: &str) -> Option<(i64, i64)> {
    let day = |text: &str| {
        let date = NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").ok()?;
        Some(date.signed_duration_since(epoch()).num_days())
    };
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (day(first)?, day(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(tz: &str, days: &str, hours: &str) -> Calendar {
        let mut calendar = Calendar {
            name: "c".to_owned(),
            zone: Zone::parse(tz).unwrap(),
            days: [false; 7],
            minutes: parse_hours(hours).unwrap(),
            dates: Vec::new(),
        };
        for day in parse_days(days).unwrap() {
            calendar.days[day] = true;
        }
        calendar
    }

    fn at(text: &str) -> i64 {
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[track_caller]
    fn check(calendar: &Calendar, cases: &[(&str, bool)]) {
        for (text, expected) in cases {
            assert_eq!(calendar.contains(at(text)), *expected, "{text}");
        }
    }

    #[test]
    fn the_office_of_madrid_opens_at_eight_by_its_own_clock() {
        let office = calendar("Europe/Madrid", "mon-fri", "08:00-19:00");
        check(
            &office,
            &[
                ("2026-11-23T06:59:59Z", false),
                ("2026-11-23T07:00:00Z", true),
                ("2026-11-23T17:59:59Z", true),
                ("2026-11-23T18:00:00Z", false),
                ("2026-11-22T12:00:00Z", false),
                ("2026-07-06T06:00:00Z", true),
                ("2026-07-06T05:59:59Z", false),
            ],
        );
    }

    #[test]
    fn summer_time_begins_and_ends_on_its_sundays() {
        let offset = |zone: &str, text: &str| Zone::parse(zone).unwrap().offset_ms(at(text)) / HOUR_MS;
        assert_eq!(offset("Europe/Berlin", "2026-03-29T00:59:59Z"), 1);
        assert_eq!(offset("Europe/Berlin", "2026-03-29T01:00:00Z"), 2);
        assert_eq!(offset("Europe/Berlin", "2026-10-25T00:59:59Z"), 2);
        assert_eq!(offset("Europe/Berlin", "2026-10-25T01:00:00Z"), 1);
        assert_eq!(offset("America/New_York", "2026-03-08T06:59:59Z"), -5);
        assert_eq!(offset("America/New_York", "2026-03-08T07:00:00Z"), -4);
        assert_eq!(offset("America/New_York", "2026-11-01T05:59:59Z"), -4);
        assert_eq!(offset("America/New_York", "2026-11-01T06:00:00Z"), -5);
        assert_eq!(offset("+01:00", "2026-07-01T00:00:00Z"), 1);
    }

    #[test]
    fn a_night_goes_past_midnight_and_a_week_past_sunday() {
        let night = calendar("UTC", "sat-mon", "22:00-06:00");
        check(
            &night,
            &[
                ("2026-11-21T23:00:00Z", true),
                ("2026-11-22T05:59:00Z", true),
                ("2026-11-22T06:00:00Z", false),
                ("2026-11-24T01:00:00Z", false),
            ],
        );
        let day = calendar("UTC", "mon-sun", "00:00-24:00");
        check(&day, &[("2026-11-21T23:59:59Z", true), ("2026-11-22T00:00:00Z", true)]);
    }

    #[test]
    fn dates_are_days_of_the_place() {
        let holidays = Calendar {
            dates: vec![parse_dates("2026-12-24..2026-12-26").unwrap(), parse_dates("2027-01-01").unwrap()],
            ..calendar("+02:00", "mon-sun", "00:00-24:00")
        };
        check(
            &holidays,
            &[
                ("2026-12-23T21:59:59Z", false),
                ("2026-12-23T22:00:00Z", true),
                ("2026-12-26T21:59:59Z", true),
                ("2026-12-26T22:00:00Z", false),
                ("2027-01-01T12:00:00Z", true),
            ],
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["8:00-19:00", "08:00", "08:00-08:00", "24:00-25:00", "08:60-09:00", "+8:00-09:00"] {
            assert_eq!(parse_hours(text), None, "{text}");
        }
        assert_eq!(parse_days("mon-xyz"), None);
        assert_eq!(parse_dates("2026-02-30"), None);
        assert_eq!(parse_dates("2026-12-26..2026-12-24"), None);
        assert_eq!(Zone::parse("Mars/Olympus"), None);
        assert_eq!(Zone::parse("+25:00"), None);
    }
}
