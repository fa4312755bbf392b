//! `playhead session ID`: everything that is known of one session, on one page.
//!
//! Reads silver as committed: the events as they came, the timeline that the engine made of them, the
//! facts, and the score with the reason for each point lost. For a player team that asks why a number
//! is what it is.
//!
//! Invariant: every figure shown is a column of a silver table; nothing is worked out anew here.

use serde_json::{Value, json};

use crate::lake::Lake;
use crate::serve::dossier::{self, FACTS, LOSSES, Row};
use crate::sql::{self, QueryLimits};

/// Events shown; a day of heartbeats would scroll the rest away. `--json` holds them all.
const EVENTS_SHOWN: usize = 200;
/// What the lake knows of one session id: usually one session, more if the sender used the id again.
pub struct Dossier {
    sessions: Vec<Row>,
    intervals: Vec<Row>,
    events: Vec<Row>,
}

impl Dossier {
    /// # Errors
    /// A lake that cannot be read. An id that nobody has is no error: `is_empty`.
    pub async fn read(lake: &Lake, session_id: &str, limits: QueryLimits) -> anyhow::Result<Dossier> {
        let context = sql::open(lake, &[], limits).await?;
        let mut parts = Vec::new();
        for text in dossier::questions(session_id) {
            parts.push(dossier::rows(&sql::query(&context, &text, limits).await?.1)?);
        }
        let [sessions, intervals, events] = parts.try_into().expect("there are three questions");
        Ok(Dossier {
            sessions,
            intervals,
            events,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub fn to_json(&self) -> Value {
        json!({"sessions": self.sessions, "intervals": self.intervals, "events": self.events})
    }

    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for session in &self.sessions {
            text.push_str(&headline(session));
            for (heading, columns) in FACTS {
                push_facts(&mut text, heading, columns, session);
            }
            push_score(&mut text, session);
            if let Some(flags) = session.get("dq_flags").and_then(Value::as_array).filter(|flags| !flags.is_empty()) {
                let flags: Vec<&str> = flags.iter().filter_map(Value::as_str).collect();
                text.push_str(&format!("flags     {}\n", flags.join(", ")));
            }
        }
        self.push_timeline(&mut text);
        self.push_events(&mut text);
        text
    }

    fn push_timeline(&self, text: &mut String) {
        text.push_str("\ntimeline\n");
        for row in &self.intervals {
            let begins = if int(row, "starts") > 0 { "" } else { "  (goes on)" };
            let cause = row.get("stall_cause").and_then(Value::as_str).unwrap_or("");
            let open = if row.get("is_provisional") == Some(&Value::Bool(true)) {
                "  not over yet"
            } else {
                ""
            };
            let known_ms = int(row, "bitrate_known_ms");
            let kbps = if known_ms > 0 {
                format!("  {} kbit/s", int(row, "shown_bits") / known_ms)
            } else {
                String::new()
            };
            let line = format!(
                "  {}  {:<12} {:>10.3} s  {cause}{kbps}{begins}{open}",
                time(row, "interval_start"),
                word(row, "state"),
                int(row, "duration_ms") as f64 / 1000.0
            );
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }

    fn push_events(&self, text: &mut String) {
        text.push_str("\nevents\n");
        for row in self.events.iter().take(EVENTS_SHOWN) {
            let mut said: Vec<String> = Vec::new();
            for column in [
                "state",
                "playhead_ms",
                "bitrate_bps",
                "stall_ms",
                "startup_ms",
                "error_codes",
                "key_faults",
            ] {
                if let Some(value) = row.get(column).filter(|value| !is_blank(value)) {
                    said.push(format!("{column} {}", plain(value)));
                }
            }
            let line = format!("  {}  {:<18} {}", time(row, "event_ts"), word(row, "event_type"), said.join(", "));
            text.push_str(line.trim_end());
            text.push('\n');
        }
        if self.events.len() > EVENTS_SHOWN {
            let more = self.events.len() - EVENTS_SHOWN;
            text.push_str(&format!("  and {more} more; --json shows all\n"));
        }
    }
}

fn headline(session: &Row) -> String {
    let open = if session.get("is_open") == Some(&Value::Bool(true)) {
        ", still open"
    } else {
        ""
    };
    format!(
        "session   {}\nfrom      {}\nto        {}\noutcome   {}{open}\n",
        word(session, "session_id"),
        time(session, "started_at"),
        time(session, "ended_at"),
        word(session, "outcome"),
    )
}

/// The columns that say something: what is null, empty or zero is left out.
fn push_facts(text: &mut String, heading: &str, columns: &[&str], session: &Row) {
    let said: Vec<String> = columns
        .iter()
        .filter_map(|column| Some((column, session.get(*column)?)))
        .filter(|(_, value)| !is_blank(value))
        .map(|(column, value)| format!("{column} {}", plain(value)))
        .collect();
    if !said.is_empty() {
        text.push_str(&format!("{heading:<10}{}\n", said.join(", ")));
    }
}

fn push_score(text: &mut String, session: &Row) {
    let Some(score) = session.get("score").and_then(Value::as_f64) else {
        text.push_str("score     none: open without a frame, a failure by decision of the service, an early exit or a bot\n");
        return;
    };
    text.push_str(&format!("score     {score:.2} of 100\n"));
    for (column, name, reasons) in LOSSES {
        let loss = session.get(column).and_then(Value::as_f64).unwrap_or(0.0);
        if loss > 0.0 {
            let why: Vec<String> = reasons
                .iter()
                .filter_map(|reason| Some(format!("{reason} {}", plain(session.get(*reason)?))))
                .collect();
            text.push_str(&format!("          -{loss:.2} {name} ({})\n", why.join(", ")));
        }
    }
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(_) | Value::Object(_) => false,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn word<'a>(row: &'a Row, column: &str) -> &'a str {
    row.get(column).and_then(Value::as_str).unwrap_or("")
}

/// `2020-05-06T08:00:00.640Z` as a person reads it.
fn time(row: &Row, column: &str) -> String {
    let sent = word(row, column);
    let Ok(at) = chrono::DateTime::parse_from_rfc3339(sent) else {
        return sent.to_string();
    };
    at.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

fn int(row: &Row, column: &str) -> i64 {
    row.get(column).and_then(Value::as_i64).unwrap_or(0)
}
