//! Health: which parts of the daemon work, which do not, why, and since when.
//!
//! Whoever does the work reports; `/healthz` and `/readyz` (`telemetry::status`) ask. Live means that a
//! restart would cure nothing: a slow object store or a lost broker is no reason for one. Ready means
//! that records come in and reach the lake.
//!
//! Invariant: pure but for the lock: time is passed in.
//! Invariant: bounded: one entry a part, and parts are named by the code or the settings.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

/// Longest reason that is shown: an error's chain may quote whole queries.
const REASON_CHARS_MAX: usize = 500;

/// A part of the daemon that can fail by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthPart {
    /// Opening the lake and taking up what it holds.
    Start,
    /// The last epoch: reading, committing, closing windows, judging.
    Epoch,
    /// The lake takes commits.
    Lake,
    /// What is posted over HTTP can be kept on disk.
    Spool,
    /// A source of the settings, by its name, can be reached.
    Source(Arc<str>),
    /// Silver is published.
    Relay,
}

impl HealthPart {
    fn name(&self) -> String {
        match self {
            HealthPart::Start => "start".to_owned(),
            HealthPart::Epoch => "epoch".to_owned(),
            HealthPart::Lake => "lake".to_owned(),
            HealthPart::Spool => "spool".to_owned(),
            HealthPart::Source(name) => format!("source {name}"),
            HealthPart::Relay => "relay".to_owned(),
        }
    }
}

/// What is wrong with a part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    reason: String,
    since_ms: i64,
    /// Only a restart helps.
    is_final: bool,
}

/// State of all parts. A part that nobody has reported on is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    faults: BTreeMap<HealthPart, Fault>,
}

/// One failing part, as `/readyz` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    pub part: String,
    pub reason: String,
    /// When it began to fail, UTC.
    pub since: String,
    pub for_seconds: i64,
}

impl Health {
    /// At the start of the process: not ready until `Start` is reported well.
    pub fn starting(now_ms: i64) -> Health {
        let mut health = Health { faults: BTreeMap::new() };
        health.failing(HealthPart::Start, "the lake is being opened", now_ms);
        health
    }

    pub fn well(&mut self, part: &HealthPart) {
        if !self.faults.get(part).is_some_and(|fault| fault.is_final) {
            self.faults.remove(part);
        }
    }

    /// The part fails and may recover by itself. The first report since it was well counts as the
    /// beginning; the newest reason is shown.
    pub fn failing(&mut self, part: HealthPart, reason: &str, now_ms: i64) {
        self.report(part, reason, now_ms, false);
    }

    /// The part fails for as long as this process lives.
    pub fn broken(&mut self, part: HealthPart, reason: &str, now_ms: i64) {
        self.report(part, reason, now_ms, true);
    }

    fn report(&mut self, part: HealthPart, reason: &str, now_ms: i64, is_final: bool) {
        let before = self.faults.remove(&part);
        let fault = Fault {
            reason: shortened(reason),
            since_ms: before.as_ref().map_or(now_ms, |before| before.since_ms),
            is_final: is_final || before.is_some_and(|before| before.is_final),
        };
        self.faults.insert(part, fault);
    }

    /// False once only a restart helps.
    pub fn is_live(&self) -> bool {
        self.faults.values().all(|fault| !fault.is_final)
    }

    /// Failing parts in a fixed order; none: ready.
    pub fn failing_parts(&self, now_ms: i64) -> Vec<Failing> {
        let shown = |(part, fault): (&HealthPart, &Fault)| Failing {
            part: part.name(),
            reason: fault.reason.clone(),
            since: utc_text(fault.since_ms),
            // A clock that was set back makes no negative age.
            for_seconds: (now_ms - fault.since_ms).max(0) / 1000,
        };
        self.faults.iter().map(shown).collect()
    }
}

/// `2026-11-21T03:00:00Z`; a time that no calendar has stays a number.
fn utc_text(at_ms: i64) -> String {
    match DateTime::from_timestamp_millis(at_ms) {
        Some(at) => at.to_rfc3339_opts(SecondsFormat::Secs, true),
        None => at_ms.to_string(),
    }
}

/// One line, and not a long one.
fn shortened(reason: &str) -> String {
    let mut line: String = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(REASON_CHARS_MAX) {
        line.truncate(end);
        line.push_str("...");
    }
    line
}

/// The health that the daemon's threads and the status page share.
#[derive(Debug, Clone)]
pub struct SharedHealth(Arc<Mutex<Health>>);

impl SharedHealth {
    pub fn starting(now_ms: i64) -> SharedHealth {
        SharedHealth(Arc::new(Mutex::new(Health::starting(now_ms))))
    }

    /// Access for one short report or question.
    pub fn lock(&self) -> MutexGuard<'_, Health> {
        // Every change is one step on a map: a thread that panicked has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_700_000_000_000;

    fn running() -> Health {
        let mut health = Health::starting(T0);
        health.well(&HealthPart::Start);
        health
    }

    fn kafka() -> HealthPart {
        HealthPart::Source("eu".into())
    }

    /// Part, reason and age of everything that fails at `T0 + after_ms`.
    #[track_caller]
    fn check(health: &Health, after_ms: i64, expected: &[(&str, &str, i64)]) {
        let failing = health.failing_parts(T0 + after_ms);
        let found: Vec<_> = failing
            .iter()
            .map(|failing| (failing.part.as_str(), failing.reason.as_str(), failing.for_seconds))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn it_is_not_ready_until_it_has_started() {
        let mut health = Health::starting(T0);
        check(&health, 2_500, &[("start", "the lake is being opened", 2)]);
        assert!(health.is_live());
        health.well(&HealthPart::Start);
        check(&health, 3_000, &[]);
    }

    #[test]
    fn each_failing_part_is_named_with_its_newest_reason_and_its_first_moment() {
        let mut health = running();
        health.failing(kafka(), "no broker answers", T0 + 1_000);
        health.failing(HealthPart::Lake, "503", T0 + 2_000);
        health.failing(kafka(), "access denied", T0 + 9_000);
        check(&health, 11_000, &[("lake", "503", 9), ("source eu", "access denied", 10)]);
        health.well(&kafka());
        check(&health, 11_000, &[("lake", "503", 9)]);
        assert!(health.is_live());
    }

    #[test]
    fn the_moment_is_told_in_utc() {
        let health = Health::starting(T0);
        assert_eq!(health.failing_parts(T0)[0].since, "2023-11-14T22:13:20Z");
    }

    #[test]
    fn a_part_that_recovered_begins_anew_when_it_fails_again() {
        let mut health = running();
        health.failing(kafka(), "gone", T0);
        health.well(&kafka());
        health.failing(kafka(), "gone", T0 + 5_000);
        check(&health, 6_000, &[("source eu", "gone", 1)]);
    }

    #[test]
    fn a_broken_part_stays_broken_whatever_is_reported_later() {
        let mut health = running();
        health.broken(HealthPart::Spool, "fdatasync failed", T0);
        health.well(&HealthPart::Spool);
        health.failing(HealthPart::Spool, "still", T0 + 1_000);
        assert!(!health.is_live());
        check(&health, 2_000, &[("spool", "still", 2)]);
    }

    #[test]
    fn a_clock_that_goes_back_gives_no_negative_age() {
        let mut health = running();
        health.failing(HealthPart::Epoch, "disk full", T0);
        check(&health, -60_000, &[("epoch", "disk full", 0)]);
    }

    #[test]
    fn reasons_are_one_short_line() {
        let mut health = running();
        health.failing(HealthPart::Epoch, &format!("cannot\n  commit {}", "ü".repeat(2_000)), T0);
        let reason = &health.failing_parts(T0)[0].reason;
        assert!(reason.starts_with("cannot commit ü") && reason.ends_with("ü..."), "{reason}");
        assert_eq!(reason.chars().count(), REASON_CHARS_MAX + 3);
    }

    #[test]
    fn threads_share_one_state_also_after_one_of_them_panicked() {
        let shared = SharedHealth::starting(T0);
        let other = shared.clone();
        let panicked = std::thread::spawn(move || {
            let _held = other.lock();
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        shared.lock().well(&HealthPart::Start);
        assert_eq!(shared.lock().failing_parts(T0), []);
    }
}
