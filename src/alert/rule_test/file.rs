//! The file of rule tests: what the rules see, and what they should do.
//!
//! Stands before the runner of `rule_test`. The form follows `promtool test rules`, with rows of gold in
//! place of series of a time-series database:
//!
//! ```yaml
//! rules: [alerts/playback_errors.yaml]
//! tests:
//!   - name: fires after two bad minutes
//!     start: 2026-11-01T20:00:00Z
//!     input:
//!       - table: gold.errors_1m
//!         dims: {device_type: tv, app_name: main}
//!         columns: {clients: "1000x29", clients_with_errors: "10x9 90x9 10x9"}
//!     expect:
//!       - {at: 12m, alerts: []}
//!       - at: 16m
//!         alerts: [{uid: playback-error-share, status: firing, dims: {device_type: tv, app_name: main}}]
//!     states:
//!       - {uid: playback-error-share, states: "-x12 px2 fx6 -x9"}
//! ```
//!
//! Sample n of a series is the row of minute n after `start`, and `at: 12m` is the evaluation that sees
//! minute 12 as its last.
//!
//! Invariant: an unknown key is an error with its line and column.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::Deserialize;

use super::series::{self, Sample};
use crate::alert::MINUTE_MS;
use crate::alert::rule::parse_duration_ms;
use crate::alert::transition::Status;

/// A test file is written by hand.
const MAX_FILE_BYTES: usize = 1 << 20;

/// The tests of one file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestFile {
    /// Rule files, relative to the folder above that of the rules, as the caller reads them.
    pub rules: Vec<String>,
    pub tests: Vec<TestCase>,
}

/// One story.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestCase {
    pub name: String,
    #[serde(default)]
    pub start: Start,
    /// What the tables hold.
    #[serde(default)]
    pub input: Vec<Series>,
    /// What is firing, or has ended, at some minutes.
    #[serde(default)]
    pub expect: Vec<Expectation>,
    /// The states of some alerts, minute by minute.
    #[serde(default)]
    pub states: Vec<StateLine>,
    /// Nothing fires but what `expect` and `states` name.
    #[serde(default)]
    pub only: bool,
    /// Messages that are sent, in all.
    #[serde(default)]
    pub messages: Option<usize>,
}

/// Epoch ms of minute 0; 2026-01-01T00:00:00Z unless given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Start(pub i64);

impl Default for Start {
    fn default() -> Start {
        Start(1_767_225_600_000)
    }
}

impl TryFrom<String> for Start {
    type Error = String;

    fn try_from(text: String) -> Result<Start, String> {
        let time = DateTime::parse_from_rfc3339(text.trim()).map_err(|_| format!("`{text}` is no time; write 2026-11-01T20:00:00Z"))?;
        let at_ms = time.timestamp_millis();
        if at_ms % MINUTE_MS != 0 {
            return Err(format!("`{text}` is no whole minute"));
        }
        Ok(Start(at_ms))
    }
}

/// Whole minutes; before the start where there is a minus sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Minutes(pub i64);

impl TryFrom<String> for Minutes {
    type Error = String;

    fn try_from(text: String) -> Result<Minutes, String> {
        let (sign, length) = match text.trim().strip_prefix('-') {
            Some(length) => (-1, length),
            None => (1, text.trim()),
        };
        let length_ms = parse_duration_ms(length).filter(|ms| ms % MINUTE_MS == 0);
        let length_ms = length_ms.ok_or_else(|| format!("`{text}` is no whole number of minutes; write 12m, 2h or -7d"))?;
        Ok(Minutes(sign * (length_ms / MINUTE_MS)))
    }
}

/// The rows of one combination of dimensions in one table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    pub table: String,
    #[serde(default)]
    pub dims: BTreeMap<String, Option<String>>,
    pub columns: BTreeMap<String, Samples>,
    /// When its first sample is, after the start: `-7d` for history.
    #[serde(default = "at_once")]
    pub from: Minutes,
    /// Between two samples.
    #[serde(default = "one_minute")]
    pub step: Minutes,
}

fn at_once() -> Minutes {
    Minutes(0)
}

fn one_minute() -> Minutes {
    Minutes(1)
}

/// A column in series notation, or one number for one row.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub struct Samples(pub Vec<Sample>);

impl TryFrom<serde_json::Value> for Samples {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Samples, String> {
        match value {
            serde_json::Value::String(text) => series::parse(&text).map(Samples),
            serde_json::Value::Number(number) => series::parse(&number.to_string()).map(Samples),
            other => Err(format!("`{other}` is no series")),
        }
    }
}

/// What is so at one minute. Alerts that are not listed are not firing then.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    pub at: Minutes,
    pub alerts: Vec<ExpectedAlert>,
}

/// What is left out may be anything.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedAlert {
    pub uid: String,
    pub status: Status,
    #[serde(default)]
    pub dims: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    pub severity: Option<String>,
    /// With which it came into its state.
    #[serde(default)]
    pub value: Option<f64>,
    #[serde(default)]
    pub reason: Option<String>,
    /// Why its last transition was not sent: `silenced`, `inhibited`, ...
    #[serde(default)]
    pub held: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The states of one alert from minute 0 on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateLine {
    pub uid: String,
    /// Needed where several groups of the rule are open.
    #[serde(default)]
    pub dims: Option<BTreeMap<String, Option<String>>>,
    pub states: StateSeries,
}

/// `-` inactive, `p` pending, `f` firing, `c` recovering; `fx3` is three of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct StateSeries(pub Vec<Option<Status>>);

impl TryFrom<String> for StateSeries {
    type Error = String;

    fn try_from(text: String) -> Result<StateSeries, String> {
        let mut states = Vec::new();
        for word in text.split_whitespace() {
            let wrong = || format!("`{word}` is no state; write -, p, f or c, and -x12 for twelve");
            let (letter, times) = match word.split_once('x') {
                Some((letter, times)) => (letter, times.parse::<usize>().map_err(|_| wrong())?),
                None => (word, 1),
            };
            let state = match letter {
                "-" => None,
                "p" => Some(Status::Pending),
                "f" => Some(Status::Firing),
                "c" => Some(Status::Recovering),
                _ => return Err(wrong()),
            };
            if states.len() + times > series::MAX_SAMPLES {
                return Err(format!("`{word}` makes it longer than {} minutes", series::MAX_SAMPLES));
            }
            states.extend(std::iter::repeat_n(state, times));
        }
        Ok(StateSeries(states))
    }
}

/// Reads a file of tests; the error says where and what.
pub fn parse_tests(name: &str, text: &str) -> Result<TestFile, String> {
    if text.len() > MAX_FILE_BYTES {
        return Err(format!("{name}: the file has {} bytes; split it, {MAX_FILE_BYTES} fit", text.len()));
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let place = error
            .location()
            .map_or(String::new(), |at| format!(":{}:{}", at.line(), at.column()));
        let mut options = serde_saphyr::RenderOptions::new(&serde_saphyr::UserMessageFormatter);
        options.snippets = serde_saphyr::SnippetMode::Off;
        let shown = error.render_with_options(options);
        let message = shown.split_once(" at line ").map_or(shown.as_str(), |(message, _)| message);
        format!("{name}{place}: {message}; correct it here or just above")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "rules: [a.yaml]\ntests:\n  - name: n\n    start: 2026-11-01T20:00:00Z\n    input:\n      - table: gold.t\n        \
                        dims: {a: x, b: null}\n        columns: {n: \"1x2\", m: 7}\n        from: -2h\n        step: 1h\n    expect:\n      \
                        - {at: 12m, alerts: [{uid: u, status: firing}]}\n    states: [{uid: u, states: \"-x2 p f\"}]\n";

    #[test]
    fn a_file_of_tests_is_read() {
        let file = parse_tests("t.yaml", FILE).unwrap_or_else(|error| panic!("{error}"));
        let case = &file.tests[0];
        assert_eq!(case.start, Start(1_793_563_200_000));
        assert_eq!((case.input[0].from, case.input[0].step), (Minutes(-120), Minutes(60)));
        assert_eq!(case.input[0].columns["m"].0, [Sample::Value(7.0)]);
        assert_eq!(case.input[0].dims["b"], None);
        assert_eq!(case.states[0].states.0, [None, None, Some(Status::Pending), Some(Status::Firing)]);
        assert!(!case.only);
    }

    #[track_caller]
    fn check(old: &str, new: &str, expected: &str) {
        assert!(FILE.contains(old));
        let error = parse_tests("t.yaml", &FILE.replace(old, new)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        check("    expect:", "    expct:", "t.yaml:11:5");
        check("2026-11-01T20:00:00Z", "yesterday", "`yesterday` is no time");
        check("12m", "12", "no whole number of minutes");
        check("1x2", "one", "`one` is no sample");
        check("p f", "p g", "`g` is no state");
        check("status: firing", "status: burning", "t.yaml:12:");
    }
}
