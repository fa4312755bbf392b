//! Firings against the truth: precision and recall.
//!
//! Stands under `replay`. The truth is a YAML or JSON file of incidents, by hand or from
//! `playhead simulate`:
//!
//! ```yaml
//! incidents:
//!   - what: IspRebufferingAbovePeers     # an alert or a uid; any alert where it is left out
//!     where: {isp: Musterkabel}
//!     from: 2026-01-01T00:13:00Z
//!     to: 2026-01-01T00:27:00Z
//! ```
//!
//! A firing is of an incident if it is of the alert that the incident names, overlaps it in time (with
//! some grace for the window and `for`), agrees with it in at least one dimension, its own or one of its
//! causes', and differs in none of its own.
//! Where the incident names no place, the alert and the time decide.
//!
//! Invariant: an alert about the rule itself is neither right nor wrong.

use std::collections::BTreeMap;
use std::fmt;

use chrono::DateTime;
use serde::Deserialize;

use super::Firing;
use crate::alert::message;

/// What happened, where and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// The alert or uid that should fire; any, where there is none.
    pub what: Option<String>,
    pub place: BTreeMap<String, String>,
    pub from_ms: i64,
    /// Exclusive.
    pub to_ms: i64,
}

#[derive(Deserialize)]
struct File {
    incidents: Vec<Entry>,
}

/// An entry by hand has `what`, `where`, `from`, `to`; one of the simulator `segment`, `from_ms`, `to_ms`,
/// and a sentence under `what`.
#[derive(Deserialize)]
struct Entry {
    what: Option<String>,
    #[serde(rename = "where")]
    place: Option<BTreeMap<String, String>>,
    from: Option<String>,
    to: Option<String>,
    segment: Option<Vec<(String, String)>>,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
}

/// Reads a truth file, YAML or JSON; the error says what is wrong.
pub fn parse_truth(name: &str, text: &str) -> Result<Vec<Incident>, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| format!("{name}: no truth file: {error}"))?;
    let entry = |(index, entry): (usize, Entry)| incident(entry).map_err(|why| format!("{name}: incidents[{index}]: {why}"));
    file.incidents.into_iter().enumerate().map(entry).collect()
}

fn incident(entry: Entry) -> Result<Incident, String> {
    let time = |at_ms: Option<i64>, text: Option<String>, key: &str| match (at_ms, text) {
        (Some(at_ms), _) => Ok(at_ms),
        (None, Some(text)) => match DateTime::parse_from_rfc3339(&text) {
            Ok(time) => Ok(time.timestamp_millis()),
            Err(_) => Err(format!("`{key}` is no time; write 2026-12-01T01:00:00Z")),
        },
        (None, None) => Err(format!("`{key}` is missing")),
    };
    let from_ms = time(entry.from_ms, entry.from, "from")?;
    let to_ms = time(entry.to_ms, entry.to, "to")?;
    if to_ms <= from_ms {
        return Err("`to` is not after `from`".to_owned());
    }
    let is_simulated = entry.segment.is_some();
    let segment = entry.segment.unwrap_or_default().into_iter().collect();
    Ok(Incident {
        what: entry.what.filter(|_| !is_simulated),
        place: entry.place.unwrap_or(segment),
        from_ms,
        to_ms,
    })
}

impl Incident {
    fn is_seen_by(&self, firing: &Firing, grace_ms: i64) -> bool {
        let is_what = self
            .what
            .as_ref()
            .is_none_or(|what| *what == firing.alert || *what == firing.rule_uid);
        let mut agrees = self.place.is_empty();
        for (name, value) in &firing.dims {
            match (self.place.get(name), value) {
                (Some(place), Some(value)) if place == value => agrees = true,
                (Some(_), _) => return false,
                (None, _) => {}
            }
        }
        let causes = firing.causes.iter().flat_map(|causes| &causes.found);
        let mut named = causes.flat_map(|cause| &cause.dims);
        agrees |= named.any(|(name, value)| value.is_some() && self.place.get(name) == value.as_ref());
        is_what && agrees && firing.overlaps(self.from_ms, self.to_ms.saturating_add(grace_ms))
    }
}

/// How right the firings were.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Firings of an incident.
    pub right: usize,
    /// Firings of none.
    pub wrong: Vec<Firing>,
    /// Incidents with a firing.
    pub found: usize,
    /// Incidents without.
    pub missed: Vec<Incident>,
    /// Incidents that fired more than once for one rule and group.
    pub repeated: usize,
    /// From the beginning of an incident to its first firing, ms, in order of the incidents found.
    pub delays_ms: Vec<i64>,
}

impl Score {
    /// Of the firings, those that were right; none without a firing.
    pub fn precision(&self) -> Option<f64> {
        share(self.right, self.right + self.wrong.len())
    }

    /// Of the incidents, those that were found; none without an incident.
    pub fn recall(&self) -> Option<f64> {
        share(self.found, self.found + self.missed.len())
    }
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Compares firings with the truth; `grace_ms` is how long after its end an incident may still be told:
/// the window and `for`.
pub fn score(firings: &[Firing], incidents: &[Incident], grace_ms: i64) -> Score {
    let firings: Vec<&Firing> = firings.iter().filter(|firing| !firing.is_about_the_rule()).collect();
    let is_right = |firing: &&Firing| incidents.iter().any(|incident| incident.is_seen_by(firing, grace_ms));
    let mut score = Score {
        right: firings.iter().copied().filter(|firing| is_right(firing)).count(),
        wrong: firings
            .iter()
            .filter(|firing| !is_right(firing))
            .map(|firing| (*firing).clone())
            .collect(),
        found: 0,
        missed: Vec::new(),
        repeated: 0,
        delays_ms: Vec::new(),
    };
    for incident in incidents {
        let seen: Vec<&&Firing> = firings.iter().filter(|firing| incident.is_seen_by(firing, grace_ms)).collect();
        let Some(first_ms) = seen.iter().map(|firing| firing.fired_at_ms).min() else {
            score.missed.push(incident.clone());
            continue;
        };
        score.found += 1;
        score.delays_ms.push(first_ms.saturating_sub(incident.from_ms));
        let mut of_group: BTreeMap<_, usize> = BTreeMap::new();
        for firing in seen {
            *of_group.entry(&firing.fingerprint).or_default() += 1;
        }
        score.repeated += usize::from(of_group.values().any(|times| *times > 1));
    }
    score
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| message::quantity(share, Some("ratio")));
        let (right, found) = (self.right, self.found);
        writeln!(
            f,
            "precision {}: {right} of {} firings were of an incident",
            percent(self.precision()),
            right + self.wrong.len()
        )?;
        writeln!(
            f,
            "recall    {}: {found} of {} incidents were found",
            percent(self.recall()),
            found + self.missed.len()
        )?;
        let slowest = self.delays_ms.iter().max().map_or("-".to_owned(), |ms| message::duration(*ms));
        write!(
            f,
            "slowest   {slowest} from the beginning to the firing; {} fired more than once",
            self.repeated
        )?;
        for incident in &self.missed {
            let place: Vec<String> = incident.place.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let what = incident.what.as_deref().unwrap_or("any alert");
            write!(f, "\nmissed: {what} {} from {}", place.join(" "), message::time(incident.from_ms))?;
        }
        for firing in &self.wrong {
            write!(
                f,
                "\nwrong: {} {} at {}",
                firing.alert,
                firing.place(),
                message::time(firing.fired_at_ms)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{rule, walked};
    use super::*;

    const TRUTH: &str =
        "incidents:\n  - {what: Errors, where: {device_type: tv, country: ES}, from: 2026-11-01T20:10:00Z, to: 2026-11-01T20:13:00Z}\n";

    fn scored(minutes: &[&str], truth: &str) -> Score {
        let incidents = parse_truth("truth.yaml", truth).unwrap_or_else(|error| panic!("{error}"));
        score(&walked(&rule("1m"), minutes), &incidents, 60_000)
    }

    #[test]
    fn a_firing_in_the_right_place_at_the_right_time_is_right() {
        let score = scored(&["tv", "tv", "tv", ""], TRUTH);
        assert_eq!((score.precision(), score.recall()), (Some(1.0), Some(1.0)));
        assert_eq!((score.delays_ms, score.repeated), (vec![120_000], 0));
    }

    #[test]
    fn a_firing_elsewhere_or_too_late_is_wrong() {
        let score = scored(&["web", "web", ""], TRUTH);
        assert_eq!((score.precision(), score.recall()), (Some(0.0), Some(0.0)));
        assert!(
            score
                .to_string()
                .contains("missed: Errors country=ES device_type=tv from 2026-11-01T20:10:00Z"),
            "{score}"
        );
        assert!(
            score.to_string().contains("wrong: Errors device_type=web at 2026-11-01T20:12:00Z"),
            "{score}"
        );
        let late = scored(&["", "", "", "", "tv", "tv"], TRUTH);
        assert_eq!(late.recall(), Some(0.0));
        let nothing = scored(&[""], TRUTH);
        assert_eq!((nothing.precision(), nothing.recall()), (None, Some(0.0)));
    }

    #[test]
    fn an_incident_that_fires_twice_is_counted() {
        assert_eq!(scored(&["tv", "tv", "", "tv", "tv"], &TRUTH.replace("20:13", "20:19")).repeated, 1);
    }

    #[test]
    fn the_truth_of_the_simulator_is_read() {
        let json = r#"{"sessions": 3, "incidents": [{"name": "isp_stalls", "what": "viewers stall", "segment": [["device_type", "tv"]],
            "from_ms": 1793563800000, "to_ms": 1793564000000, "effects": 7}]}"#;
        let incidents = parse_truth("truth.json", json).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(incidents[0].what, None, "a sentence is no alert");
        assert_eq!(incidents[0].place["device_type"], "tv");
        assert_eq!(scored(&["tv", "tv", ""], json).recall(), Some(1.0));
    }

    #[test]
    fn what_is_wrong_with_a_truth_is_said() {
        let error = |text: &str| parse_truth("t", text).unwrap_err();
        assert!(error("incidents: [{from: x, to: y}]").contains("incidents[0]: `from` is no time"));
        assert!(error("incidents: [{from_ms: 5, to_ms: 5}]").contains("`to` is not after `from`"));
        assert!(error("incidents: [{from_ms: 5}]").contains("`to` is missing"));
        assert!(error("things: []").starts_with("t: no truth file: "));
    }
}
