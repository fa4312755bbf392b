//! Known faults of players, mended where one event tells them (events and metrics, 2.6).
//!
//! Stands between `event::decode` and the rest of `enrich`. The table is data (`quirks.yaml`): who has
//! which fault, and who mends it. The mending itself is code here, one function a symptom.
//!
//! Invariant: every mending leaves a `KeyFault`; an event without the fault is not touched.
//! Invariant: the payload is never changed.
//! Invariant: applying the table twice is applying it once.

mod decimals;

use serde::Deserialize;

use crate::event::{KeyFault, PlayerEvent, ReportedState};

/// The table of this build.
const SHIPPED: &str = include_str!("quirks.yaml");
/// What `player` says of a fault that is mended for all.
const ANY_PLAYER: &str = "any";
/// A ladder beyond 100 Mbit/s beside a request below it is a ladder told in another unit.
const TOP_BITRATE_MAX_BPS: i64 = 100_000_000;

/// Who mends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Decode,
    Record,
    Session,
}

impl Place {
    fn as_str(self) -> &'static str {
        match self {
            Place::Decode => "decode",
            Place::Record => "record",
            Place::Session => "session",
        }
    }
}

/// Changes an event that has the fault.
type Mend = fn(&mut PlayerEvent);

/// Every symptom that a table may name, who mends it, and how where that is here.
const SYMPTOMS: [(&str, Place, Option<Mend>); 13] = [
    ("decimals", Place::Record, Some(decimals::round)),
    ("error_code_bare", Place::Decode, None),
    ("error_code_repeated", Place::Session, None),
    ("startup_delay_drifts", Place::Session, None),
    ("top_bitrate_in_bps", Place::Record, Some(scale_top_bitrate)),
    ("latency_while_not_playing", Place::Record, Some(drop_latency)),
    ("throughput_zero", Place::Record, Some(drop_throughput)),
    ("stall_flag_on_each_type", Place::Session, None),
    ("boolean_spelled_out", Place::Decode, None),
    ("playhead_unit", Place::Decode, None),
    ("buffer_length_is_a_time", Place::Session, None),
    ("buffer_after_seek", Place::Session, None),
    ("first_buffer_repeated", Place::Decode, None),
];

/// One row as it is written. `evidence` and `treatment` are for the reader; a row without them is not
/// accepted, for nobody could tell later why it is there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    symptom: String,
    player: String,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    below: Option<String>,
    #[serde(rename = "where")]
    place: Place,
    evidence: String,
    treatment: String,
}

/// What is wrong with a table, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuirkError {
    #[error("the quirk table cannot be read: {0}; correct the YAML there or just above")]
    NotYaml(String),
    #[error("quirk `{symptom}`: {problem}; {fix}")]
    BadRow { symptom: String, problem: String, fix: String },
}

/// A fault that is mended here, and in which players.
#[derive(Debug, Clone)]
struct Quirk {
    /// Lower case; `None`: any player.
    player: Option<String>,
    from: Option<Version>,
    below: Option<Version>,
    mend: Mend,
}

/// The faults that one event tells, in the order of the table.
#[derive(Debug, Clone)]
pub struct Quirks {
    quirks: Vec<Quirk>,
}

impl Default for Quirks {
    fn default() -> Quirks {
        Quirks::shipped()
    }
}

impl Quirks {
    /// The table of this build.
    pub fn shipped() -> Quirks {
        Quirks::parse(SHIPPED).expect("a test reads the table that is compiled in")
    }

    /// A table as YAML.
    ///
    /// Errors: the text is not a list of rows, or a row names a symptom, place or version that does
    /// not exist.
    pub fn parse(yaml: &str) -> Result<Quirks, QuirkError> {
        let rows: Vec<Row> = serde_saphyr::from_str(yaml).map_err(|error| QuirkError::NotYaml(error.to_string()))?;
        let mut quirks = Vec::new();
        for row in rows {
            quirks.extend(quirk(&row)?);
        }
        Ok(Quirks { quirks })
    }

    /// Mends what is known to be wrong.
    pub fn apply(&self, event: &mut PlayerEvent) {
        for quirk in &self.quirks {
            if quirk.concerns(event) {
                (quirk.mend)(event);
            }
        }
    }
}

/// The row as a rule; `None` if another part mends it.
fn quirk(row: &Row) -> Result<Option<Quirk>, QuirkError> {
    let bad = |problem: String, fix: String| QuirkError::BadRow {
        symptom: row.symptom.clone(),
        problem,
        fix,
    };
    let Some((_, place, mend)) = SYMPTOMS.iter().find(|(name, ..)| *name == row.symptom) else {
        let known: Vec<&str> = SYMPTOMS.iter().map(|(name, ..)| *name).collect();
        return Err(bad("no such symptom".to_owned(), format!("use one of {}", known.join(", "))));
    };
    if *place != row.place {
        let problem = format!("where is `{}`", row.place.as_str());
        return Err(bad(
            problem,
            format!("write `where: {}`, which is where it is mended", place.as_str()),
        ));
    }
    for (name, text) in [("player", &row.player), ("evidence", &row.evidence), ("treatment", &row.treatment)] {
        if text.trim().is_empty() {
            return Err(bad(format!("{name} is empty"), "say it, or leave the row out".to_owned()));
        }
    }
    let version = |name: &str, text: &Option<String>| match text.as_deref().map(Version::parse) {
        Some(None) => Err(bad(
            format!("{name} is no version"),
            "write numbers and dots, in quotes: \"8.100\"".to_owned(),
        )),
        read => Ok(read.flatten()),
    };
    let (from, below) = (version("from", &row.from)?, version("below", &row.below)?);
    let is_any = row.player == ANY_PLAYER;
    if is_any && (from.is_some() || below.is_some()) {
        let problem = "versions of any player mean nothing".to_owned();
        return Err(bad(problem, "name the player, or leave `from` and `below` out".to_owned()));
    }
    Ok(mend.map(|mend| Quirk {
        player: (!is_any).then(|| row.player.to_ascii_lowercase()),
        from,
        below,
        mend,
    }))
}

impl Quirk {
    /// A player or a version that does not say its name is not taken for one that has the fault.
    fn concerns(&self, event: &PlayerEvent) -> bool {
        let Some(player) = &self.player else {
            return true;
        };
        let is_player = event.player_name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(player));
        if !is_player {
            return false;
        }
        if self.from.is_none() && self.below.is_none() {
            return true;
        }
        let Some(version) = event.player_version.as_deref().and_then(Version::parse) else {
            return false;
        };
        self.from.as_ref().is_none_or(|from| version >= *from) && self.below.as_ref().is_none_or(|below| version < *below)
    }
}

/// The numbers of a version; `8.100.0` is `8.100`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Version(Vec<u64>);

impl Version {
    /// Reads `8`, `v8.100` and `8.100.0-beta.1+build`, of which the first three numbers count.
    fn parse(text: &str) -> Option<Version> {
        let text = text.trim();
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let numbers = text.split(['-', '+', ' ']).next()?;
        let mut parts = Vec::new();
        for part in numbers.split('.') {
            parts.push(part.parse().ok()?);
        }
        while parts.last() == Some(&0) {
            parts.pop();
        }
        Some(Version(parts))
    }
}

fn fault(event: &mut PlayerEvent, key: &'static str, rule: &'static str) {
    event.key_faults.push(KeyFault { key, rule });
}

fn scale_top_bitrate(event: &mut PlayerEvent) {
    let (Some(top), Some(requested)) = (event.top_bitrate_bps, event.req_bitrate_bps) else {
        return;
    };
    if top > TOP_BITRATE_MAX_BPS && requested < TOP_BITRATE_MAX_BPS {
        event.top_bitrate_bps = Some(top / 1000);
        fault(event, "tb", "bit_per_second");
    }
}

/// A player that does not say what state it is in is believed.
fn drop_latency(event: &mut PlayerEvent) {
    let is_playing = event.state.is_none_or(|state| state == ReportedState::Playing);
    if !is_playing && event.live_latency_ms.take().is_some() {
        fault(event, "ltc", "not_playing");
    }
}

fn drop_throughput(event: &mut PlayerEvent) {
    if event.throughput_bps == Some(0) {
        event.throughput_bps = None;
        fault(event, "mtp", "zero");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Applies the shipped table, twice: the second time must change nothing.
    fn mended(mut event: PlayerEvent) -> PlayerEvent {
        let quirks = Quirks::shipped();
        quirks.apply(&mut event);
        let once = event.clone();
        quirks.apply(&mut event);
        assert_eq!(event, once);
        once
    }

    fn faults(event: &PlayerEvent) -> Vec<(&str, &str)> {
        event.key_faults.iter().map(|fault| (fault.key, fault.rule)).collect()
    }

    fn ext(entries: &[(&str, &str)]) -> Vec<(String, String)> {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_shipped_table_names_every_symptom_once() {
        let rows: Vec<Row> = serde_saphyr::from_str(SHIPPED).unwrap();
        let mut named: Vec<&str> = rows.iter().map(|row| row.symptom.as_str()).collect();
        let mut known: Vec<&str> = SYMPTOMS.iter().map(|(name, ..)| *name).collect();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
        for (name, place, mend) in SYMPTOMS {
            assert_eq!(place == Place::Record, mend.is_some(), "{name}");
        }
    }

    #[test]
    fn a_ladder_in_bits_is_told_by_the_request_beside_it() {
        let check = |top: i64, requested: Option<i64>, expected: i64| {
            let event = mended(PlayerEvent {
                top_bitrate_bps: Some(top),
                req_bitrate_bps: requested,
                ..PlayerEvent::default()
            });
            assert_eq!(event.top_bitrate_bps, Some(expected), "{top} beside {requested:?}");
            let expected: &[(&str, &str)] = if top == expected { &[] } else { &[("tb", "bit_per_second")] };
            assert_eq!(faults(&event), expected);
        };
        check(6_000_000_000, Some(3_000_000), 6_000_000);
        check(100_000_001, Some(99_999_999), 100_000);
        check(100_000_000, Some(3_000_000), 100_000_000);
        check(6_000_000_000, Some(100_000_000), 6_000_000_000);
        check(6_000_000_000, None, 6_000_000_000);
    }

    #[test]
    fn latency_counts_while_playing_only() {
        let check = |state: Option<ReportedState>, expected: Option<i64>| {
            let event = mended(PlayerEvent {
                state,
                live_latency_ms: Some(3000),
                ..PlayerEvent::default()
            });
            assert_eq!(event.live_latency_ms, expected, "{state:?}");
            assert_eq!(faults(&event).contains(&("ltc", "not_playing")), expected.is_none());
        };
        for state in ReportedState::ALL {
            check(Some(state), (state == ReportedState::Playing).then_some(3000));
        }
        check(None, Some(3000));
    }

    #[test]
    fn no_throughput_is_unknown_and_an_empty_buffer_is_not() {
        let event = mended(PlayerEvent {
            throughput_bps: Some(0),
            buffer_ms: Some(0),
            deadline_ms: Some(0),
            ..PlayerEvent::default()
        });
        assert_eq!((event.throughput_bps, event.buffer_ms, event.deadline_ms), (None, Some(0), Some(0)));
        assert_eq!(faults(&event), [("mtp", "zero")]);
        let rounded_to_nothing = mended(PlayerEvent {
            ext: ext(&[("cmcd.mtp", "0.2")]),
            ..PlayerEvent::default()
        });
        assert_eq!(rounded_to_nothing.throughput_bps, None);
        assert_eq!(faults(&rounded_to_nothing), [("mtp", "nonint"), ("mtp", "zero")]);
    }

    #[test]
    fn a_rule_concerns_its_player_in_its_versions() {
        let rule = |bounds: &str| {
            let yaml = format!("- {{symptom: throughput_zero, player: HLS.js, where: record, evidence: e, treatment: t{bounds}}}");
            Quirks::parse(&yaml).unwrap()
        };
        let concerns = |quirks: &Quirks, name: Option<&str>, version: Option<&str>| {
            let mut event = PlayerEvent {
                throughput_bps: Some(0),
                player_name: name.map(str::to_owned),
                player_version: version.map(str::to_owned),
                ..PlayerEvent::default()
            };
            quirks.apply(&mut event);
            event.throughput_bps.is_none()
        };
        let all = rule("");
        assert!(concerns(&all, Some("hls.JS"), None));
        assert!(!concerns(&all, Some("shaka"), None) && !concerns(&all, None, None));
        let some = rule(r#", from: "1.2", below: "1.10.1""#);
        for (version, expected) in [
            ("1.2", true),
            ("1.2.0", true),
            ("v1.9.9", true),
            ("1.10", true),
            ("1.10.0-beta.1", true),
            ("1.10.1", false),
            ("1.1.99", false),
            ("2", false),
            ("new", false),
            ("", false),
        ] {
            assert_eq!(concerns(&some, Some("hls.js"), Some(version)), expected, "{version}");
        }
        assert!(!concerns(&some, Some("hls.js"), None));
    }

    #[test]
    fn a_table_that_cannot_be_used_says_which_row_and_what_to_do() {
        let check = |yaml: &str, expected: &str| {
            let error = Quirks::parse(yaml).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let row = |members: &str| format!("- {{{members}, evidence: e, treatment: t}}");
        check(
            &row("symptom: nonsense, player: any, where: record"),
            "quirk `nonsense`: no such symptom; use one of decimals, ",
        );
        check(
            &row("symptom: decimals, player: any, where: session"),
            "quirk `decimals`: where is `session`; write `where: record`",
        );
        check(
            &row("symptom: decimals, player: '', where: record"),
            "quirk `decimals`: player is empty",
        );
        check(
            &row("symptom: decimals, player: p, where: record, from: new"),
            "quirk `decimals`: from is no version",
        );
        check(
            &row("symptom: decimals, player: any, where: record, below: '2'"),
            "quirk `decimals`: versions of any player mean nothing",
        );
        check(
            &row("symptom: decimals, player: any, where: there"),
            "the quirk table cannot be read: ",
        );
        check(
            &row("symptom: decimals, player: any, where: record, what: 1"),
            "the quirk table cannot be read: ",
        );
        check("- symptom: decimals", "the quirk table cannot be read: ");
        check("decimals", "the quirk table cannot be read: ");
    }

    proptest! {
        #[test]
        fn any_table_is_read_without_a_panic(text in "\\PC{0,60}") {
            let _ = Quirks::parse(&text);
        }
    }
}
