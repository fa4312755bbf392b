//! `playhead alerts replay`: what the rules would have fired over stored gold.
//!
//! Stands in front of `watch::Judge`, which judges as in production, and `alert::replay`, which counts.
//!
//! Invariant: reads only; nothing is recorded and nobody is told.

use std::path::{Path, PathBuf};

use chrono::DateTime;
use serde_json::{Value, json};

use super::read;
use crate::alert::replay::{Firing, Score, diff, firings, parse_truth, score, table};
use crate::alert::rule::RuleSet;
use crate::alert::{Transition, message};
use crate::config::Config;
use crate::daemon::{self, Complaints};
use crate::lake::Lake;
use crate::rollup;
use crate::sql::pipeline::Pipeline;
use crate::sql::{self, MINUTE_MS};
use crate::watch::{End, Judge, stored_only, tables_of};

/// Window ends whose rows are in memory at once: a day.
const ENDS_AT_ONCE: usize = 1_440;
/// Longer than a year is a typing error in one of the two times.
const ENDS_MAX: i64 = 366 * 1_440;
/// An incident may be told this long after its end: the windows of the shipped rules and their `for`.
const GRACE_MS: i64 = 30 * MINUTE_MS;

/// The window ends to judge, both included.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    from_ms: i64,
    to_ms: i64,
}

impl Span {
    /// # Errors
    /// What is no time, or no span.
    pub fn of(from: &str, to: &str) -> Result<Span, Complaints> {
        let time = |name: &str, text: &str| match DateTime::parse_from_rfc3339(text) {
            Ok(time) => Ok(time.timestamp_millis()),
            Err(_) => Err(Complaints(vec![format!("{name} `{text}` is no time; write 2026-11-01T00:00:00Z")])),
        };
        let (from_ms, to_ms) = (time("--from", from)?, time("--to", to)?);
        if to_ms < from_ms || (to_ms - from_ms) / MINUTE_MS > ENDS_MAX {
            return Err(Complaints(vec![
                "--to is before --from, or more than a year after it; give a shorter span".to_owned(),
            ]));
        }
        Ok(Span { from_ms, to_ms })
    }

    fn ends(self) -> Vec<End> {
        let first = self.from_ms.div_euclid(MINUTE_MS) + i64::from(self.from_ms.rem_euclid(MINUTE_MS) > 0);
        let end = |minute: i64| End {
            at_ms: minute * MINUTE_MS,
            has_rows: true,
        };
        (first..=self.to_ms.div_euclid(MINUTE_MS)).map(end).collect()
    }
}

/// What is asked of a replay.
#[derive(Clone, Copy)]
pub struct Wanted<'w> {
    pub span: Span,
    /// Rule files to compare with.
    pub diffed: &'w [PathBuf],
    /// What really happened.
    pub truth: Option<&'w Path>,
    /// Whether the cause of each firing is looked for: it takes most of the time of a long replay.
    pub causes: bool,
    pub as_json: bool,
}

/// Prints the firings, or with `diffed` what these files would change; with `truth` how right they were.
///
/// # Errors
/// Rules or files that are wrong; a lake that cannot be read.
pub async fn run(config: &Config, wanted: &Wanted<'_>) -> anyhow::Result<u8> {
    let Wanted {
        diffed,
        truth,
        causes,
        as_json,
        ..
    } = *wanted;
    let daemon::Checked { pipelines, rules } = daemon::check(config).await?;
    let incidents = match truth {
        Some(path) => {
            let (name, text) = read(path)?;
            Some(parse_truth(&name, &text).map_err(|complaint| Complaints(vec![complaint]))?)
        }
        None => None,
    };
    let others = if diffed.is_empty() {
        None
    } else {
        Some(others(diffed, &pipelines).await?)
    };
    let lake = Lake::open_read_only(daemon::lake_place(config)?).await?;
    for pipeline in &pipelines {
        lake.open_existing(rollup::table_spec(pipeline).await?).await?;
    }
    let found = replayed(config, &lake, &pipelines, rules, wanted).await?;
    if let Some(others) = others {
        let after = replayed(config, &lake, &pipelines, others, wanted).await?;
        println!("{}", diff(&found, &after));
    } else if as_json {
        let scored = incidents.as_ref().map(|incidents| told(&score(&found, incidents, GRACE_MS)));
        println!(
            "{}",
            json!({"firings": found.iter().map(firing).collect::<Vec<_>>(), "score": scored})
        );
        return Ok(0);
    } else {
        print!("{}", table(&found));
        if causes {
            print!("{}", why(&found));
        }
    }
    if let Some(incidents) = incidents {
        let score = score(&found, &incidents, GRACE_MS);
        let share = |share: Option<f64>| share.map_or("none".to_owned(), |share| format!("{:.1} %", share * 100.0));
        println!(
            "precision {} ({} right, {} wrong), recall {} ({} found, {} missed), {} told more than once",
            share(score.precision()),
            score.right,
            score.wrong.len(),
            share(score.recall()),
            score.found,
            score.missed.len(),
            score.repeated,
        );
    }
    Ok(0)
}

async fn others(paths: &[PathBuf], pipelines: &[Pipeline]) -> anyhow::Result<RuleSet> {
    let files: Result<Vec<_>, _> = paths.iter().map(|path| read(path)).collect();
    let specs = daemon::gold_specs(pipelines).await?;
    Ok(daemon::rules_in(&files?, &specs).await?)
}

async fn replayed(
    config: &Config,
    lake: &Lake,
    pipelines: &[Pipeline],
    rules: RuleSet,
    wanted: &Wanted<'_>,
) -> anyhow::Result<Vec<Firing>> {
    let limits = daemon::query_limits(config);
    let tables = tables_of(&rules, pipelines);
    let read = pipelines.iter().filter(|pipeline| tables.contains(&pipeline.table()));
    let context = sql::open(lake, &stored_only(read), limits).await?;
    let judge = Judge::new(rules, &[]);
    let mut judge = if wanted.causes { judge } else { judge.without_causes() };
    let mut events: Vec<Transition> = Vec::new();
    for ends in wanted.span.ends().chunks(ENDS_AT_ONCE) {
        events.extend(judge.judge(&context, limits, ends).await?.0);
    }
    Ok(firings(&events))
}

fn firing(firing: &Firing) -> Value {
    json!({
        "rule_uid": firing.rule_uid, "alert": firing.alert, "fingerprint": firing.fingerprint, "severity": firing.severity,
        "dims": firing.dims.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "starts_at_ms": firing.starts_at_ms, "fired_at_ms": firing.fired_at_ms, "ended_at_ms": firing.ended_at_ms,
        "value": firing.value, "messages": firing.messages, "cause_answer": firing.causes.as_ref().map(|causes| &causes.answer),
        "cause": firing.causes.as_ref().map(|causes| &causes.found),
    })
}

/// The causes as lines, under the table of the firings.
fn why(firings: &[Firing]) -> String {
    let mut text = String::new();
    for firing in firings {
        let Some(causes) = &firing.causes else { continue };
        let fired = message::time(firing.fired_at_ms);
        let lines = causes.found.iter().map(|cause| format!("  {cause}\n"));
        let (alert, place, answer) = (&firing.alert, firing.place(), causes.answer.replace('_', " "));
        text.push_str(&format!("why {alert} {place} at {fired}: {answer}\n{}", lines.collect::<String>()));
    }
    text
}

fn told(score: &Score) -> Value {
    json!({
        "precision": score.precision(), "recall": score.recall(), "right": score.right, "wrong": score.wrong.len(),
        "found": score.found, "missed": score.missed.len(), "repeated": score.repeated, "delays_ms": score.delays_ms,
    })
}
