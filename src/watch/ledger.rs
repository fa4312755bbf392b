//! `ops.alert_events`, written and read back: state and outbox in one table.
//!
//! Stands between `watch` and the lake: transitions and deliveries in, rows out, and at a start the other
//! way round.
//!
//! Invariant: a transition is stored with the bytes of its message; both are read back unchanged.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use crate::alert::{Status, Transition};
use crate::event::schema::utc_day;
use crate::lake::tables::ALERT_EVENTS;
use crate::lake::{Lake, LakeError, TimeRange};
use crate::notify::Message;
use crate::sql::cause::texts;

/// What the table remembers.
pub struct Ledger {
    pub events: Vec<Transition>,
    bodies: HashMap<String, String>,
    /// Event id and target.
    delivered: HashSet<(String, String)>,
}

impl Ledger {
    pub async fn read(lake: &Lake) -> Result<Ledger, LakeError> {
        let columns = ["kind", "event_id", "target", "transition", "message"];
        let batches = lake.scan(ALERT_EVENTS, &columns, TimeRange::ALL, None).await?;
        Ok(Ledger::of(&batches))
    }

    fn of(batches: &[RecordBatch]) -> Ledger {
        let mut ledger = Ledger {
            events: Vec::new(),
            bodies: HashMap::new(),
            delivered: HashSet::new(),
        };
        for batch in batches {
            let [kinds, ids, targets, transitions, messages] = [0, 1, 2, 3, 4].map(|index| texts(batch.column(index)));
            for row in 0..batch.num_rows() {
                let id = ids.value(row).to_string();
                if kinds.value(row) == "delivery" {
                    ledger.delivered.insert((id, targets.value(row).to_string()));
                } else if let Ok(event) = serde_json::from_str::<Transition>(transitions.value(row)) {
                    ledger.bodies.insert(id, messages.value(row).to_string());
                    ledger.events.push(event);
                }
            }
        }
        ledger
            .events
            .sort_by_key(|event| (event.window_end_ms, event.starts_at_ms, event.seq, event.status == Status::Amended));
        ledger
    }

    /// Messages that a target has not taken, in order, each with its target.
    pub fn undelivered(&self) -> Vec<(String, Arc<Message>)> {
        let mut undelivered = Vec::new();
        for event in self.events.iter().filter(|event| event.is_sent()) {
            let is_open = |target: &&String| !self.delivered.contains(&(event.event_id.clone(), (*target).clone()));
            let targets: Vec<&String> = event.targets.iter().filter(is_open).collect();
            if targets.is_empty() {
                continue;
            }
            let message = Arc::new(Message {
                event: event.clone(),
                body: self.bodies.get(&event.event_id).cloned().unwrap_or_default(),
            });
            undelivered.extend(targets.into_iter().map(|target| (target.clone(), Arc::clone(&message))));
        }
        undelivered
    }
}

/// Rows of `ops.alert_events` in the making.
#[derive(Default)]
pub struct Rows {
    kinds: Vec<&'static str>,
    window_ends_ms: Vec<i64>,
    event_ids: Vec<String>,
    rule_uids: Vec<String>,
    statuses: Vec<&'static str>,
    fingerprints: Vec<String>,
    targets: Vec<Option<String>>,
    hashes: Vec<String>,
    transitions: Vec<Option<String>>,
    messages: Vec<Option<String>>,
}

impl Rows {
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    pub fn transition(&mut self, message: &Message) {
        let text = serde_json::to_string(&message.event).expect("a transition holds plain values only");
        let status = message.event.status.as_str();
        self.push("transition", &message.event, status, None, Some(text), Some(message.body.clone()));
    }

    /// What became of a message at a target.
    pub fn delivery(&mut self, event: &Transition, target: &str, outcome: &'static str, at_ms: i64) {
        let note = format!("{{\"at_ms\":{at_ms}}}");
        self.push("delivery", event, outcome, Some(target.to_owned()), Some(note), None);
    }

    fn push(
        &mut self,
        kind: &'static str,
        event: &Transition,
        status: &'static str,
        target: Option<String>,
        transition: Option<String>,
        message: Option<String>,
    ) {
        self.kinds.push(kind);
        self.window_ends_ms.push(event.window_end_ms);
        self.event_ids.push(event.event_id.clone());
        self.rule_uids.push(event.rule_uid.clone());
        self.statuses.push(status);
        self.fingerprints.push(event.fingerprint.as_str().to_string());
        self.targets.push(target);
        self.hashes.push(event.rules_hash.clone());
        self.transitions.push(transition);
        self.messages.push(message);
    }

    pub fn batch(self) -> Result<RecordBatch, LakeError> {
        let days = self.window_ends_ms.iter().map(|at_ms| utc_day(*at_ms));
        let times = TimestampMicrosecondArray::from_iter_values(self.window_ends_ms.iter().map(|at_ms| at_ms * 1000)).with_timezone("UTC");
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("event_date", Arc::new(Date32Array::from_iter_values(days))),
            ("kind", Arc::new(StringArray::from(self.kinds))),
            ("window_end", Arc::new(times)),
            ("event_id", Arc::new(StringArray::from(self.event_ids))),
            ("rule_uid", Arc::new(StringArray::from(self.rule_uids))),
            ("status", Arc::new(StringArray::from(self.statuses))),
            ("fingerprint", Arc::new(StringArray::from(self.fingerprints))),
            ("target", Arc::new(StringArray::from(self.targets))),
            ("rules_hash", Arc::new(StringArray::from(self.hashes))),
            ("transition", Arc::new(StringArray::from(self.transitions))),
            ("message", Arc::new(StringArray::from(self.messages))),
        ];
        RecordBatch::try_from_iter(columns).map_err(|source| LakeError::Rows {
            table: ALERT_EVENTS.to_string(),
            source,
        })
    }
}
