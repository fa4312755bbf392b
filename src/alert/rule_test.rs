//! Tests of rules: `playhead alerts test`.
//!
//! Stands beside `evaluate` and `route`, which it drives as the daemon does: minute by minute, over rows
//! that a test names. What a rule's expressions make of those rows is asked of a `RowSource`, which the
//! daemon implements over its own SQL engine, so that a test judges what production judges.
//!
//! Invariant: pure but for the row source; the same file gives the same report.

mod file;
mod series;

use std::collections::BTreeMap;
use std::fmt;

pub use file::{Expectation, ExpectedAlert, Minutes, Samples, Series, Start, StateLine, StateSeries, TestCase, TestFile, parse_tests};
pub use series::{MAX_SAMPLES, Sample, parse as parse_series};

use super::rule::{Rule, RuleSet};
use super::state::States;
use super::transition::{Status, Transition};
use super::window::{MinuteRow, SlotRow};
use super::{MINUTE_MS, evaluate, evaluate_failed, route};

/// Failures of one test that are named; more help nobody.
const MAX_FAILURES: usize = 20;

/// One row of a gold table, as a test says.
#[derive(Debug, Clone, PartialEq)]
pub struct InputRow {
    pub table: String,
    /// Start of the minute (`window_start`), epoch ms.
    pub minute_ms: i64,
    pub dims: BTreeMap<String, Option<String>>,
    /// Those that have a sample.
    pub columns: BTreeMap<String, f64>,
}

/// Answers what a rule asks of gold, over the rows of a test.
pub trait RowSource {
    /// What the texts of `rule.queries(ends)` give over these rows.
    fn rows(&mut self, rule: &Rule, ends: &[i64], input: &[InputRow]) -> Result<Vec<MinuteRow>, String>;
    /// What `rule.history_sql(window_end_ms)` gives over these rows.
    fn history(&mut self, rule: &Rule, window_end_ms: i64, input: &[InputRow]) -> Result<Vec<SlotRow>, String>;
}

/// What came of the tests of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub tests: Vec<Outcome>,
}

/// What came of one test; no failures is a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub name: String,
    pub failures: Vec<String>,
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.tests.iter().all(|test| test.failures.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for test in &self.tests {
            let verdict = if test.failures.is_empty() { "ok" } else { "FAILED" };
            writeln!(f, "{verdict:<6} {}", test.name)?;
            for failure in &test.failures {
                writeln!(f, "       {failure}")?;
            }
        }
        let failed = self.tests.iter().filter(|test| !test.failures.is_empty()).count();
        write!(f, "{} passed, {failed} failed", self.tests.len() - failed)
    }
}

/// Runs the tests of a file against the rules that it names, which the caller has read.
pub fn run(set: &RuleSet, file: &TestFile, source: &mut dyn RowSource) -> Report {
    let outcome = |case: &TestCase| Outcome {
        name: case.name.clone(),
        failures: failures(set, case, source),
    };
    Report {
        tests: file.tests.iter().map(outcome).collect(),
    }
}

/// Everything that happened in one test.
struct Story {
    start_ms: i64,
    /// By minute.
    events: Vec<Vec<Transition>>,
    /// After each minute.
    states: Vec<States>,
}

fn failures(set: &RuleSet, case: &TestCase, source: &mut dyn RowSource) -> Vec<String> {
    let mut failures = Vec::new();
    for uid in case.uids().filter(|uid| !set.rules.iter().any(|rule| rule.uid() == *uid)) {
        let known = set.rules.iter().map(Rule::uid);
        let hint = super::rule::did_you_mean(uid, known).unwrap_or_else(|| "it is not in the files under `rules`".to_owned());
        failures.push(format!("there is no rule `{uid}`; {hint}"));
    }
    if !failures.is_empty() {
        return failures;
    }
    match story(set, case, source) {
        Ok(story) => {
            for expectation in &case.expect {
                failures.extend(story.misses(expectation));
            }
            for line in &case.states {
                failures.extend(story.strays(line));
            }
            failures.extend(story.surprises(case));
        }
        Err(error) => failures.push(error),
    }
    failures.truncate(MAX_FAILURES);
    failures
}

impl TestCase {
    fn uids(&self) -> impl Iterator<Item = &str> {
        let expected = self.expect.iter().flat_map(|expectation| &expectation.alerts);
        expected
            .map(|alert| alert.uid.as_str())
            .chain(self.states.iter().map(|line| line.uid.as_str()))
    }

    /// Minutes to play: to the end of what is given and of what is asked.
    fn minutes(&self) -> i64 {
        let ends = self.input.iter().map(|series| series.from.0 + series.step.0 * series.len() as i64);
        let asked = self.expect.iter().map(|expectation| expectation.at.0 + 1);
        let lines = self.states.iter().map(|line| line.states.0.len() as i64);
        ends.chain(asked).chain(lines).max().unwrap_or(0).clamp(0, MAX_SAMPLES as i64)
    }

    fn rows(&self) -> Vec<InputRow> {
        let mut rows = Vec::new();
        for series in &self.input {
            for index in 0..series.len() {
                let sample = |samples: &Samples| samples.0.get(index).and_then(|sample| sample.value());
                let columns: BTreeMap<String, f64> = series
                    .columns
                    .iter()
                    .filter_map(|(name, samples)| Some((name.clone(), sample(samples)?)))
                    .collect();
                if columns.is_empty() {
                    continue;
                }
                let minute = series.from.0 + series.step.0 * index as i64;
                rows.push(InputRow {
                    table: series.table.clone(),
                    minute_ms: self.start.0 + minute * MINUTE_MS,
                    dims: series.dims.clone(),
                    columns,
                });
            }
        }
        rows
    }
}

impl Series {
    fn len(&self) -> usize {
        self.columns.values().map(|samples| samples.0.len()).max().unwrap_or(0)
    }
}

fn story(set: &RuleSet, case: &TestCase, source: &mut dyn RowSource) -> Result<Story, String> {
    let input = case.rows();
    let ends: Vec<i64> = (1..=case.minutes()).map(|minute| case.start.0 + minute * MINUTE_MS).collect();
    let mut rows = Vec::new();
    for rule in &set.rules {
        rows.push(source.rows(rule, &ends, &input));
    }
    let mut story = Story {
        start_ms: case.start.0,
        events: Vec::new(),
        states: Vec::new(),
    };
    let mut states = States::default();
    for end in ends {
        let mut events = Vec::new();
        for (rule, rows) in set.rules.iter().zip(&rows) {
            let Ok(rows) = rows else {
                events.extend(evaluate_failed(rule, end, &states, &set.hash));
                continue;
            };
            let history = match rule.history_sql(end) {
                Some(_) => source.history(rule, end, &input)?,
                None => Vec::new(),
            };
            events.extend(evaluate(rule, end, rows, &history, &states, &set.hash));
        }
        let events = route(set, end, events, &states);
        states.apply_all(&events);
        story.events.push(events);
        story.states.push(states.clone());
    }
    // A rule that cannot be asked is no test of it.
    match rows.into_iter().find_map(Result::err) {
        Some(error) => Err(error),
        None => Ok(story),
    }
}

impl Story {
    /// The last transition of each alert up to a minute, its end included.
    fn last_words(&self, minute: usize) -> Vec<&Transition> {
        let mut last: BTreeMap<_, &Transition> = BTreeMap::new();
        for event in self
            .events
            .iter()
            .take(minute + 1)
            .flatten()
            .filter(|event| event.status != Status::Amended)
        {
            last.insert((&event.rule_uid, &event.fingerprint), event);
        }
        last.into_values().collect()
    }

    /// Why an expectation is not met.
    fn misses(&self, expectation: &Expectation) -> Vec<String> {
        let at = expectation.at.0;
        let Ok(minute) = usize::try_from(at) else {
            return vec![format!("at {at}m: nothing is evaluated before the start")];
        };
        let mut left = self.last_words(minute);
        let mut misses = Vec::new();
        for expected in &expectation.alerts {
            if let Some(index) = left.iter().position(|event| expected.complaint(event).is_none()) {
                left.remove(index);
                continue;
            }
            // The alert that comes nearest is complained about once.
            let nearest = left
                .iter()
                .position(|event| expected.is_about(event))
                .map(|index| left.remove(index));
            let found = match nearest {
                Some(event) => expected.complaint(event).unwrap_or_default(),
                None => "nothing has happened".to_owned(),
            };
            misses.push(format!("at {at}m: {} and {found}", expected.shown()));
        }
        let unexpected = left.iter().filter(|event| event.status.is_firing());
        misses.extend(unexpected.map(|event| format!("at {at}m: {} was not expected", shown(event))));
        misses
    }

    /// Where the states of an alert are not those of its line: the first minute alone.
    fn strays(&self, line: &StateLine) -> Option<String> {
        for (minute, expected) in line.states.0.iter().enumerate() {
            let states = self.states.get(minute)?;
            let of_rule = states.of_rule(&line.uid).filter(|state| has_dims(state.last(), line.dims.as_ref()));
            let found: Vec<Status> = of_rule.map(|state| state.status()).collect();
            if found.iter().copied().eq(*expected) {
                continue;
            }
            let words = |states: &mut dyn Iterator<Item = Status>| {
                let words: Vec<&str> = states.map(Status::as_str).collect();
                if words.is_empty() {
                    "inactive".to_owned()
                } else {
                    words.join(" and ")
                }
            };
            let (found, expected) = (words(&mut found.into_iter()), words(&mut expected.iter().copied()));
            return Some(format!("at {minute}m: `{}` is {found}, and should be {expected}", line.uid));
        }
        None
    }

    /// What `only` and `messages` forbid.
    fn surprises(&self, case: &TestCase) -> Vec<String> {
        let mut surprises = Vec::new();
        let is_named = |event: &Transition| {
            let expected = case.expect.iter().flat_map(|expectation| &expectation.alerts);
            let by_list = expected.map(|alert| (&alert.uid, &alert.dims));
            let by_line = case.states.iter().map(|line| (&line.uid, &line.dims));
            by_list
                .chain(by_line)
                .any(|(uid, dims)| *uid == event.rule_uid && has_dims(event, dims.as_ref()))
        };
        let all = || self.events.iter().flatten();
        if case.only {
            let firing = all().filter(|event| event.status == Status::Firing && !is_named(event));
            surprises.extend(firing.map(|event| format!("at {}m: {} was not expected", self.minute_of(event), shown(event))));
        }
        let sent = all().filter(|event| event.is_sent()).count();
        if case.messages.is_some_and(|expected| expected != sent) {
            let expected = case.messages.unwrap_or(0);
            surprises.push(format!("{sent} messages were sent, and should be {expected}"));
        }
        surprises
    }

    fn minute_of(&self, event: &Transition) -> i64 {
        (event.window_end_ms - self.start_ms) / MINUTE_MS - 1
    }
}

impl ExpectedAlert {
    fn is_about(&self, event: &Transition) -> bool {
        event.rule_uid == self.uid && has_dims(event, self.dims.as_ref())
    }

    /// Why this is not the alert; none if it is.
    fn complaint(&self, event: &Transition) -> Option<String> {
        let differs = |what: &str, found: &str, expected: &str| Some(format!("has {what} {found}, not {expected}"));
        if !self.is_about(event) {
            return Some("is another alert".to_owned());
        }
        if event.status != self.status {
            return Some(format!("is {}", event.status.as_str()));
        }
        if let Some(severity) = self.severity.as_ref().filter(|severity| *severity != event.severity.as_str()) {
            return differs("severity", event.severity.as_str(), severity);
        }
        if let Some(reason) = self.reason.as_ref().filter(|reason| *reason != event.reason.as_str()) {
            return differs("reason", event.reason.as_str(), reason);
        }
        let held = event.held.as_ref().map_or("no hold", |held| held.as_str());
        if let Some(expected) = self.held.as_ref().filter(|expected| *expected != held) {
            return differs("hold", held, expected);
        }
        if let Some(value) = self.value.filter(|value| !event.value.is_some_and(|found| is_near(found, *value))) {
            let found = event.value.map_or("no value".to_owned(), |found| found.to_string());
            return differs("value", &found, &value.to_string());
        }
        let texts = [(&self.labels, &event.labels), (&self.annotations, &event.annotations)];
        for (expected, found) in texts {
            let wrong = expected.iter().find(|(name, text)| found.get(*name) != Some(text));
            if let Some((name, text)) = wrong {
                let found = found.get(name).map_or("nothing", String::as_str);
                return differs(&format!("`{name}`"), &format!("\"{found}\""), &format!("\"{text}\""));
            }
        }
        None
    }

    fn shown(&self) -> String {
        format!("`{}` should be {}", self.uid, self.status.as_str())
    }
}

fn has_dims(event: &Transition, dims: Option<&BTreeMap<String, Option<String>>>) -> bool {
    let Some(dims) = dims else {
        return true;
    };
    dims.len() == event.dims.len() && event.dims.iter().all(|(name, value)| dims.get(name) == Some(value))
}

/// Nine digits are what a transition keeps.
fn is_near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-6 * expected.abs().max(1e-3)
}

fn shown(event: &Transition) -> String {
    let dims = super::message::dims_in_words(event);
    format!("`{}` {} ({dims})", event.rule_uid, event.status.as_str())
}

#[cfg(test)]
mod tests;
