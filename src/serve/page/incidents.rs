//! The incident list: runs of alerts from their first breach to their end, folded from `ops.alert_events`.
//!
//! Invariant: pure: messages in, incidents out. An incident that never fired is shown only while it is pending.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

/// Resolved incidents that are listed.
const RESOLVED_MAX: usize = 30;
/// Open ones: more than this is one incident, whatever the rules say.
const OPEN_MAX: usize = 100;

/// One run of an alert.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    pub episode_id: String,
    /// pending, firing, recovering or resolved.
    pub status: String,
    severity: Value,
    alert: Value,
    summary: Value,
    dims: Value,
    value: Value,
    unit: Value,
    baseline: Value,
    threshold: Value,
    samples: Value,
    impacted: Value,
    starts_at: Value,
    ends_at: Value,
    cause_answer: Value,
    cause: Value,
    dashboard: Value,
    #[serde(skip)]
    has_fired: bool,
}

/// Messages in the order of their windows; gives open incidents, then resolved ones, the newest first.
pub fn incidents(messages: impl Iterator<Item = String>) -> Vec<Incident> {
    let mut by_episode: HashMap<String, Incident> = HashMap::new();
    for message in messages {
        let Ok(message) = serde_json::from_str::<Value>(&message) else {
            continue;
        };
        let Some(next) = incident(&message) else { continue };
        match by_episode.get_mut(&next.episode_id) {
            Some(known) => known.take(next),
            None => {
                by_episode.insert(next.episode_id.clone(), next);
            }
        }
    }
    let newest_first = |a: &Incident, b: &Incident| {
        let key = |one: &Incident| (one.starts_at.to_string(), one.episode_id.clone());
        key(b).cmp(&key(a))
    };
    let (mut open, mut resolved): (Vec<_>, Vec<_>) = by_episode
        .into_values()
        .filter(|one| one.has_fired || one.status == "pending")
        .partition(|one| one.status != "resolved");
    open.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| newest_first(a, b)));
    resolved.sort_by(newest_first);
    open.truncate(OPEN_MAX);
    resolved.truncate(RESOLVED_MAX);
    open.append(&mut resolved);
    open
}

fn rank(incident: &Incident) -> usize {
    let order = ["firing", "recovering", "pending"];
    order.iter().position(|status| incident.status == *status).unwrap_or(order.len())
}

fn incident(message: &Value) -> Option<Incident> {
    let at = |pointer: &str| message.pointer(pointer).cloned().unwrap_or(Value::Null);
    let status = message["status"].as_str()?;
    if !["pending", "firing", "recovering", "resolved", "inactive"].contains(&status) {
        return None;
    }
    Some(Incident {
        episode_id: message["episode_id"].as_str()?.to_owned(),
        status: status.to_owned(),
        severity: at("/severity"),
        alert: at("/rule/alert"),
        summary: at("/annotations/summary"),
        dims: at("/dims"),
        value: at("/value"),
        unit: at("/unit"),
        baseline: at("/baseline"),
        threshold: at("/threshold"),
        samples: at("/samples"),
        impacted: at("/impacted"),
        starts_at: at("/starts_at"),
        ends_at: at("/ends_at"),
        cause_answer: at("/cause_answer"),
        cause: at("/cause"),
        dashboard: at("/links/dashboard"),
        // What only was pending ends as inactive.
        has_fired: ["firing", "recovering", "resolved"].contains(&status),
    })
}

impl Incident {
    /// The next step of the same run. The cause is searched for when it fires; what it was when it fired stays
    /// with it to the end.
    fn take(&mut self, next: Incident) {
        let before = std::mem::replace(self, next);
        self.has_fired |= before.has_fired;
        self.starts_at = before.starts_at;
        let has_cause = |cause: &Value| cause.as_array().is_some_and(|causes| !causes.is_empty());
        if self.cause_answer.is_null() || (has_cause(&before.cause) && !has_cause(&self.cause)) {
            self.cause = before.cause;
            self.cause_answer = before.cause_answer;
        }
        if self.status == "resolved" || self.value.is_null() {
            self.value = before.value;
            self.baseline = before.baseline;
            self.summary = before.summary;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(episode: &str, status: &str, value: f64, cause: &Value) -> String {
        let ends_at = (status == "resolved").then_some("2026-11-01T20:30:00Z");
        json!({"episode_id": episode, "status": status, "severity": "critical", "rule": {"alert": "A"}, "annotations": {"summary": format!("at {value}")},
            "dims": {"cdn": "b"}, "value": value, "unit": "ms", "starts_at": "2026-11-01T20:11:00Z", "ends_at": ends_at, "cause": cause, "cause_answer": "found"})
        .to_string()
    }

    #[test]
    fn a_run_keeps_its_cause_and_what_it_fired_at() {
        let cause = json!([{"dims": {"pop": "MAD51"}, "share": 0.9}]);
        let steps = [
            message("a", "pending", 150.0, &json!([])),
            message("a", "firing", 200.0, &cause),
            message("a", "recovering", 120.0, &json!([])),
            message("a", "resolved", 100.0, &json!([])),
        ];
        let after = |count: usize| incidents(steps[..count].iter().cloned()).remove(0);
        assert_eq!((after(1).status.as_str(), after(2).status.as_str()), ("pending", "firing"));
        assert_eq!((after(3).status.as_str(), &after(3).cause), ("recovering", &cause));
        let ended = after(4);
        assert_eq!(
            (ended.status.as_str(), &ended.cause, &ended.ends_at),
            ("resolved", &cause, &json!("2026-11-01T20:30:00Z"))
        );
        assert_eq!((ended.value, ended.summary), (json!(120.0), json!("at 120")));
    }

    #[test]
    fn what_came_to_nothing_is_gone_and_what_fires_stands_first() {
        let none = json!([]);
        let steps = [
            message("nothing", "pending", 1.0, &none),
            message("nothing", "inactive", 1.0, &none),
            message("old", "firing", 1.0, &none),
            message("old", "resolved", 1.0, &none),
            message("soon", "pending", 1.0, &none),
            message("now", "firing", 1.0, &none),
            // It fired before the time that is looked at.
            message("long ago", "resolved", 1.0, &none),
            "no JSON".to_owned(),
            "{}".to_owned(),
        ];
        let names: Vec<String> = incidents(steps.into_iter()).into_iter().map(|one| one.episode_id).collect();
        assert_eq!(names, ["now", "soon", "old", "long ago"]);
    }
}
