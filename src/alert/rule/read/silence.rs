//! Silences, inhibitions and calendars.
//!
//! Stands in the reading of rule files; all three are shared by all files.
//!
//! Invariant: a silence says who, why and until when.

use std::collections::BTreeMap;

use chrono::DateTime;

use super::super::calendar::{self, Calendar, Zone};
use super::super::complaint::did_you_mean;
use super::super::schema::{CALENDAR, INHIBIT, SILENCE};
use super::super::yaml::Node;
use super::super::{Inhibition, Matchers, Pattern, Silence};
use super::FileReader;
use super::field::{Entry, Fields, Place};
use crate::alert::message;

/// A silence that outlives a season is a rule to be changed.
const MAX_SILENCE_MS: i64 = 92 * crate::alert::DAY_MS;
/// Each is asked for every alert in every window.
const MAX_SILENCES: usize = 1_000;

impl FileReader<'_, '_> {
    pub(super) fn inhibitions(&mut self, top: &Fields) {
        for entry in self.entries(top, "inhibit", "write `- {when: ..., mute: ..., equal: [...]}`") {
            let Some(fields) = self.fields(entry, &INHIBIT) else {
                continue;
            };
            let [when, mute] = ["when", "mute"].map(|key| self.matchers(&fields, key));
            let equal = fields.get("equal").map(|entry| self.texts(&entry, "list dimensions or labels"));
            if let (Some(when), Some(mute)) = (when, mute) {
                let equal = equal.unwrap_or_default().into_iter().map(|(_, name)| name).collect();
                self.set.inhibitions.push(Inhibition { when, mute, equal });
            }
        }
    }

    pub(super) fn silences(&mut self, top: &Fields) {
        for entry in self.entries(top, "silences", "write `- matchers: ...` with starts, ends, author and comment") {
            let place = entry.place.clone();
            if self.set.silences.len() >= MAX_SILENCES {
                self.complain(
                    &place,
                    format!("there are more than {MAX_SILENCES} silences"),
                    "take out those that have ended",
                );
                return;
            }
            if let Some(silence) = self.silence(entry) {
                self.set.silences.push(silence);
            }
        }
    }

    fn silence(&mut self, entry: Entry) -> Option<Silence> {
        let fields = self.fields(entry, &SILENCE)?;
        let matchers = self.matchers(&fields, "matchers");
        let [starts_ms, ends_ms] = ["starts", "ends"].map(|key| self.time_ms(&fields, key));
        let author = self.required_text(&fields, "author", "add `author: <who>`");
        let comment = self.required_text(&fields, "comment", "add `comment: <why>`");
        let (starts_ms, ends_ms, author) = (starts_ms?, ends_ms?, author?);
        let length_ms = ends_ms.saturating_sub(starts_ms);
        if length_ms <= 0 || length_ms > MAX_SILENCE_MS {
            let fix = format!("write an end up to {} after the start", message::duration(MAX_SILENCE_MS));
            self.complain(&fields.place_of("ends"), "the silence has no such length", fix);
            return None;
        }
        let id = match fields.get("id") {
            Some(entry) => self.text_of(&entry, "write a text")?,
            None => format!("{author}@{}", message::time(starts_ms)),
        };
        let here = format!("{}:{}", self.name, super::yaml::place(fields.place.at).0);
        if let Some(earlier) = self.set.names.insert(format!("silence {id}"), here) {
            let message = format!("the silence `{}` stands at {earlier} already", message::clean(&id));
            self.complain(&fields.place, message, "give it an `id` of its own");
        }
        Some(Silence {
            id,
            matchers: matchers?,
            starts_ms,
            ends_ms,
            author,
            comment: comment?,
        })
    }

    fn time_ms(&mut self, fields: &Fields, key: &str) -> Option<i64> {
        let fix = "write a time such as 2026-12-01T01:00:00Z";
        let text = self.required_text(fields, key, fix)?;
        let time = DateTime::parse_from_rfc3339(&text);
        if time.is_err() {
            self.complain(&fields.place_of(key), format!("`{key}` is no time"), fix);
        }
        time.ok().map(|time| time.timestamp_millis())
    }

    /// `{cdn: b, isp: [x, y*]}`.
    fn matchers(&mut self, fields: &Fields, key: &str) -> Option<Matchers> {
        let fix = "write `{alert: ..., <dimension>: ...}`";
        let entry = self.required(fields, key, fix)?;
        let before = self.set.complaints.len();
        let mut matchers = BTreeMap::new();
        for (_, name, value) in self.named(&entry, fix) {
            let texts = match value.value {
                Node::List(_) => self.texts(&value, fix).into_iter().map(|(_, text)| text).collect(),
                _ => self.text_of(&value, fix).into_iter().collect::<Vec<_>>(),
            };
            matchers.insert(name.to_owned(), texts.iter().map(|text| Pattern::new(text)).collect());
        }
        let matchers = Matchers::new(matchers);
        if matchers.is_none() && self.set.complaints.len() == before {
            self.complain(&entry.place, "this would match every alert", fix);
        }
        matchers
    }

    // -------------------------------------------------------------- calendars

    pub(super) fn calendars(&mut self, top: &Fields) {
        let Some(entry) = top.get("calendars") else {
            return;
        };
        for (at, name, value) in self.named(&entry, "write for instance `office: {days: [mon-fri]}`") {
            let place = Place {
                at,
                path: value.place.path.clone(),
            };
            let Some(calendar) = self.calendar(name, value) else {
                continue;
            };
            let earlier = self.set.calendars.insert(name.to_owned(), calendar.clone());
            if earlier.is_some_and(|earlier| earlier != calendar) {
                let message = format!("calendar `{name}` differs from that of another file");
                self.complain(&place, message, "calendars are shared by all files: give this one another name");
            }
        }
    }

    fn calendar(&mut self, name: &str, entry: Entry) -> Option<Calendar> {
        let fields = self.fields(entry, &CALENDAR)?;
        let zone = self.zone(&fields);
        let mut days = [fields.get("days").is_none(); 7];
        let read = |text: &str| calendar::parse_days(text);
        for listed in self.parsed_texts(&fields, "days", "write mon, tue or mon-fri", read) {
            for day in listed {
                days[day] = true;
            }
        }
        let fix = "write for instance \"08:00-19:00\"";
        let minutes = match self.optional_text(&fields, "hours", fix) {
            None => (0, 24 * 60),
            Some(text) => calendar::parse_hours(&text).unwrap_or_else(|| {
                self.complain(&fields.place_of("hours"), "these are no hours", fix);
                (0, 24 * 60)
            }),
        };
        let dates = self.parsed_texts(
            &fields,
            "dates",
            "write 2026-12-25, or 2026-12-24..2026-12-26",
            calendar::parse_dates,
        );
        Some(Calendar {
            name: name.to_owned(),
            zone,
            days,
            minutes,
            dates,
        })
    }

    fn zone(&mut self, fields: &Fields) -> Zone {
        let fix = "write UTC, an offset such as +01:00, or a place such as Europe/Madrid";
        let Some(text) = self.optional_text(fields, "tz", fix) else {
            return Zone::UTC;
        };
        Zone::parse(&text).unwrap_or_else(|| {
            let hint = did_you_mean(&text, Zone::known_places()).unwrap_or(fix.to_owned());
            let message = format!("`{}` is not known here", message::clean(&text));
            self.complain(&fields.place_of("tz"), message, hint);
            Zone::UTC
        })
    }

    fn parsed_texts<T>(&mut self, fields: &Fields, key: &str, fix: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let Some(entry) = fields.get(key) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for (place, text) in self.texts(&entry, fix) {
            match read(&text) {
                Some(value) => all.push(value),
                None => self.complain(&place, format!("`{}` does not fit in `{key}`", message::clean(&text)), fix),
            }
        }
        all
    }

    pub(super) fn known_calendar(&mut self, place: &Place, name: &str) -> Option<Calendar> {
        let found = self.set.calendars.get(name).cloned();
        if found.is_none() {
            let known = self.set.calendars.keys().map(String::as_str);
            let fix = did_you_mean(name, known).unwrap_or_else(|| "define it under `calendars`".to_owned());
            self.complain(place, format!("unknown calendar `{}`", message::clean(name)), fix);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{check, edited, parse};

    #[test]
    fn a_silence_says_who_and_why_and_until_when() {
        check(
            "version: 1",
            "version: 1\nsilences:\n  - {matchers: {}, starts: 2026-12-01T01:00:00Z, ends: tomorrow, author: a}",
            r"
alerts/a.yaml:3:5: `comment` is missing, at silences[0]
    3 |   - {matchers: {}, starts: 2026-12-01T01:00:00Z, ends: tomorrow, author: a}
      |     ^ add `comment: <why>`
alerts/a.yaml:3:16: this would match every alert, at silences[0].matchers
    3 |   - {matchers: {}, starts: 2026-12-01T01:00:00Z, ends: tomorrow, author: a}
      |                ^ write `{alert: ..., <dimension>: ...}`
alerts/a.yaml:3:56: `ends` is no time, at silences[0].ends
    3 |   - {matchers: {}, starts: 2026-12-01T01:00:00Z, ends: tomorrow, author: a}
      |                                                        ^^^^^^^^ write a time such as 2026-12-01T01:00:00Z
",
        );
        check(
            "version: 1",
            "version: 1\nsilences:\n  - {matchers: {cdn: b}, starts: 2026-12-01T01:00:00Z, ends: 2027-12-01T01:00:00Z, author: a, comment: c}",
            r"
alerts/a.yaml:3:62: the silence has no such length, at silences[0].ends
    3 |   - {matchers: {cdn: b}, starts: 2026-12-01T01:00:00Z, ends: 2027-12-01T01:00:00Z, author: a, comment: c}
      |                                                              ^^^^^^^^^^^^^^^^^^^^ write an end up to 92d after the start
",
        );
    }

    #[test]
    fn inhibitions_are_read() {
        let text = edited(
            "version: 1",
            "version: 1\ninhibit:\n  - {when: {alert: PopDown}, mute: {alert: [Isp*, Errors]}, equal: [country]}",
        );
        let set = parse(&[("a", text)]).unwrap();
        assert_eq!(set.inhibitions[0].equal, ["country"]);
        assert_eq!(set.inhibitions[0].mute.iter().map(|(_, patterns)| patterns.len()).sum::<usize>(), 2);
    }

    #[test]
    fn calendars_are_checked() {
        check(
            "version: 1",
            "version: 1\ncalendars: {office: {tz: Europe/Madrit, days: [mon-fry], hours: \"8-19\"}}",
            r#"
alerts/a.yaml:2:26: `Europe/Madrit` is not known here, at calendars.office.tz
    2 | calendars: {office: {tz: Europe/Madrit, days: [mon-fry], hours: "8-19"}}
      |                          ^^^^^^^^^^^^^ did you mean `Europe/Madrid`?
alerts/a.yaml:2:48: `mon-fry` does not fit in `days`, at calendars.office.days
    2 | calendars: {office: {tz: Europe/Madrit, days: [mon-fry], hours: "8-19"}}
      |                                                ^^^^^^^ write mon, tue or mon-fri
alerts/a.yaml:2:65: these are no hours, at calendars.office.hours
    2 | calendars: {office: {tz: Europe/Madrit, days: [mon-fry], hours: "8-19"}}
      |                                                                 ^^^^^^ write for instance "08:00-19:00"
"#,
        );
        check(
            "{targets: [console]}",
            "{targets: [console], active: office}",
            r"
alerts/a.yaml:14:46: unknown calendar `office`, at groups[0].rules[0].notify.active
   14 |         notify: {targets: [console], active: office}
      |                                              ^^^^^^ define it under `calendars`
",
        );
    }
}
