//! Alerts over closed windows: asks gold, judges, records, sends.
//!
//! Runs after the rollup. Each closed minute is judged once, in order of event time, by the pure
//! functions of `alert`; `ops.alert_events` is their memory and the outbox in one commit.
//!
//! Invariant: a window is judged once. The table's marker says through which; a crash before the
//! commit judges it again with the same result, a crash after it sends what is not acknowledged.
//! Invariant: a window that late data change after it was judged is not judged again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type, TimestampMicrosecondType};

use crate::alert::message::{self, Producer};
use crate::alert::rule::{Rule, RuleSet};
use crate::alert::{AlertState, Fingerprint, MinuteRow, SlotRow, TableVersion, Transition, close_removed, evaluate, fold};
use crate::event::schema::utc_day;
use crate::lake::tables::ALERT_EVENTS;
use crate::lake::{Commit, Lake, LakeError, TimeRange};
use crate::notify::Notifier;
use crate::sql::pipeline::Pipeline;
use crate::sql::{self, MINUTE_MS, QueryLimits, SqlError};

/// The application id of the marker: through which window end (epoch seconds) rules have judged.
const MARKER: &str = "alerts";
/// Ends judged before they are committed: bounds the memory of a long backfill.
const ENDS_PER_COMMIT: usize = 1_440;
/// Messages in hand between two acknowledgements: a crash repeats at most these.
const MESSAGES_PER_COMMIT: usize = 10;

/// Rules in force with their memory.
pub struct Watch {
    lake: Arc<Lake>,
    rules: RuleSet,
    pipelines: Vec<Pipeline>,
    limits: QueryLimits,
    states: BTreeMap<Fingerprint, AlertState>,
    judged_through_ms: i64,
    /// Minutes with gold rows whose windows are not all judged.
    minutes: BTreeSet<i64>,
    undelivered: Vec<Outgoing>,
    notifier: Option<Notifier>,
}

/// A message in the outbox.
#[derive(Clone)]
struct Outgoing {
    event: Transition,
    body: String,
    target: String,
}

impl Watch {
    /// Takes up the rules' memory from the lake. Without a notifier, alerts are recorded only.
    pub async fn open(
        lake: Arc<Lake>,
        rules: RuleSet,
        pipelines: Vec<Pipeline>,
        limits: QueryLimits,
        notifier: Option<Notifier>,
    ) -> Result<Watch, SqlError> {
        let judged_through_ms = judged_through(&lake, &rules).await?;
        let rows = lake
            .scan(
                ALERT_EVENTS,
                &["kind", "event_id", "target", "transition", "message"],
                TimeRange::ALL,
                None,
            )
            .await?;
        let (events, bodies, delivered) = memory(&rows);
        let states = fold(&events);
        let undelivered = undelivered(&events, &bodies, &delivered);
        let mut watch = Watch {
            lake,
            rules,
            pipelines,
            limits,
            states,
            judged_through_ms,
            minutes: BTreeSet::new(),
            undelivered,
            notifier,
        };
        watch.minutes = watch.unjudged_minutes().await?;
        Ok(watch)
    }

    /// Rules that are firing now.
    pub fn firing(&self) -> usize {
        self.states
            .values()
            .filter(|state| state.status() == crate::alert::Status::Firing)
            .count()
    }

    /// Rules in force.
    pub fn rules(&self) -> usize {
        self.rules.rules.len()
    }

    /// Messages that wait for a target; none where delivery is switched off.
    pub fn undelivered(&self) -> usize {
        self.notifier.as_ref().map_or(0, |_| self.undelivered.len())
    }

    /// Puts other rules in force. Alerts of rules that are gone end at the next window.
    pub fn replace_rules(&mut self, rules: RuleSet) {
        self.rules = rules;
    }

    /// Judges the windows that newly closed minutes complete, records and sends. `closed`: by table.
    pub async fn run(&mut self, closed: &BTreeMap<String, BTreeSet<i64>>, now_ms: i64) -> Result<(), SqlError> {
        // A table that no rule reads may be far ahead: rejects go by the time of their receipt.
        for table in self.tables() {
            self.minutes.extend(closed.get(&table).into_iter().flatten());
        }
        let ends = self.due_ends();
        for ends in ends.chunks(ENDS_PER_COMMIT) {
            self.judge(ends, now_ms).await?;
        }
        self.deliver(now_ms).await?;
        Ok(())
    }

    /// Gold minutes that windows not yet judged can reach.
    async fn unjudged_minutes(&self) -> Result<BTreeSet<i64>, SqlError> {
        let range = TimeRange {
            from_ms: self.judged_through_ms - self.longest_window_ms(),
            to_ms: i64::MAX / 1000,
        };
        let mut minutes = BTreeSet::new();
        for table in self.tables() {
            for batch in self.lake.scan(&table, &["window_start"], range, None).await? {
                let starts = batch.column(0).as_primitive::<TimestampMicrosecondType>();
                minutes.extend(starts.iter().flatten().map(|start| start.div_euclid(MINUTE_MS * 1000)));
            }
        }
        Ok(minutes)
    }

    /// The gold tables that the rules read, those behind a view instead of it.
    fn tables(&self) -> BTreeSet<String> {
        tables_of(&self.rules)
    }

    fn longest_window_ms(&self) -> i64 {
        self.rules.rules.iter().map(Rule::window_ms).max().unwrap_or(MINUTE_MS)
    }

    /// Window ends to judge: every minute that a window with rows can end in, up to the newest row.
    fn due_ends(&mut self) -> Vec<i64> {
        let Some(newest) = self.minutes.last().copied() else {
            return Vec::new();
        };
        let reach = self.longest_window_ms() / MINUTE_MS;
        let after = self.judged_through_ms / MINUTE_MS;
        let ends: BTreeSet<i64> = self
            .minutes
            .iter()
            // One past the longest window sees the group gone, and so ends its alert.
            .flat_map(|minute| minute + 1..=minute + reach + 1)
            .filter(|end| *end > after && *end <= newest + 1)
            .collect();
        self.minutes.retain(|minute| minute + reach + 1 > newest + 1);
        ends.into_iter().map(|end| end * MINUTE_MS).collect()
    }

    async fn judge(&mut self, ends: &[i64], now_ms: i64) -> Result<(), SqlError> {
        let (Some(first), Some(last)) = (ends.first(), ends.last()) else {
            return Ok(());
        };
        let tables = self.tables();
        let read = self.pipelines.iter().filter(|pipeline| tables.contains(&pipeline.table()));
        let context = sql::open(&self.lake, &stored_only(read), self.limits).await?;
        let mut rows = Vec::new();
        for rule in &self.rules.rules {
            let text = rule.sql(first - rule.window_ms(), *last);
            let (_, batches) = sql::query(&context, &text, self.limits).await?;
            rows.push(minute_rows(&batches, rule.group_by().len())?);
        }
        let lineage = self.lineage().await?;
        let mut histories: HashMap<String, Vec<SlotRow>> = HashMap::new();
        let mut transitions = Vec::new();
        for end in ends {
            let (removed, states) = close_removed(&self.rules.rules, *end, &self.states, &self.rules.hash);
            self.states = states;
            transitions.extend(removed);
            for (rule, rows) in self.rules.rules.iter().zip(&rows) {
                let history = match rule.history_sql(*end) {
                    Some(text) => {
                        if !histories.contains_key(&text) {
                            let (_, batches) = sql::query(&context, &text, self.limits).await?;
                            histories.insert(text.clone(), slot_rows(&batches, rule.group_by().len())?);
                        }
                        histories[&text].as_slice()
                    }
                    None => &[],
                };
                let window = rows
                    .range(end - rule.window_ms()..*end)
                    .flat_map(|(_, rows)| rows)
                    .cloned()
                    .collect::<Vec<_>>();
                let (events, states) = evaluate(rule, *end, &window, history, &self.states, &self.rules.hash);
                self.states = states;
                transitions.extend(events);
            }
        }
        for event in &mut transitions {
            event.stamp(now_ms, lineage.clone());
        }
        self.record(transitions, *last).await
    }

    async fn lineage(&self) -> Result<Vec<TableVersion>, LakeError> {
        let mut lineage = Vec::new();
        for table in self.tables() {
            let version = self.lake.version(&table).await?;
            lineage.push(TableVersion { table, version });
        }
        Ok(lineage)
    }

    async fn record(&mut self, transitions: Vec<Transition>, judged_through_ms: i64) -> Result<(), SqlError> {
        let producer = producer();
        let mut rows = Rows::default();
        for event in transitions {
            let body = message::json(&event, producer);
            rows.transition(&event, &body);
            if event.status.is_sent() {
                let outgoing = event.targets.clone().into_iter().map(|target| Outgoing {
                    event: event.clone(),
                    body: body.clone(),
                    target,
                });
                self.undelivered.extend(outgoing);
            }
        }
        let covers = vec![(MARKER.to_string(), judged_through_ms / 1000)];
        self.lake
            .append(
                ALERT_EVENTS,
                vec![rows.batch()?],
                Commit {
                    covers,
                    note: serde_json::Value::Null,
                },
            )
            .await?;
        self.judged_through_ms = judged_through_ms;
        Ok(())
    }

    /// Sends what the outbox holds; what a target refuses stays in it.
    async fn deliver(&mut self, now_ms: i64) -> Result<(), LakeError> {
        let Some(notifier) = &mut self.notifier else { return Ok(()) };
        let mut left = Vec::new();
        let mut away: HashSet<String> = HashSet::new();
        let mut acknowledged = Rows::default();
        for outgoing in std::mem::take(&mut self.undelivered) {
            let Some(target) = self.rules.targets.get(&outgoing.target) else {
                tracing::warn!(
                    target = outgoing.target,
                    "an alert names a target that the rules no longer define; it is dropped"
                );
                acknowledged.delivery(&outgoing, "target_removed", now_ms);
                continue;
            };
            if away.contains(&outgoing.target) {
                left.push(outgoing);
                continue;
            }
            match notifier.deliver(target, &outgoing.event, &outgoing.body).await {
                Ok(()) => acknowledged.delivery(&outgoing, "delivered", now_ms),
                Err(error) => {
                    tracing::warn!("{error}");
                    away.insert(outgoing.target.clone());
                    left.push(outgoing);
                }
            }
            if acknowledged.len() >= MESSAGES_PER_COMMIT {
                acknowledge(&self.lake, &mut acknowledged).await?;
            }
        }
        self.undelivered = left;
        acknowledge(&self.lake, &mut acknowledged).await
    }
}

/// Through which window end the rules have judged. The first time it is set down before anything is
/// judged, so that a crash after the first gold commit loses no window: from the start on in a lake
/// without gold, from now on in one that has a history.
async fn judged_through(lake: &Lake, rules: &RuleSet) -> Result<i64, LakeError> {
    if let Some(seconds) = lake.covered(ALERT_EVENTS, MARKER).await? {
        return Ok(seconds * 1000);
    }
    let mut newest_ms = 0;
    for table in tables_of(rules) {
        for batch in lake.scan(&table, &["window_end"], TimeRange::ALL, None).await? {
            let ends = batch.column(0).as_primitive::<TimestampMicrosecondType>();
            newest_ms = ends.iter().flatten().map(|end| end.div_euclid(1000)).fold(newest_ms, i64::max);
        }
    }
    let covers = vec![(MARKER.to_string(), newest_ms / 1000)];
    lake.append(
        ALERT_EVENTS,
        Vec::new(),
        Commit {
            covers,
            note: serde_json::Value::Null,
        },
    )
    .await?;
    Ok(newest_ms)
}

async fn acknowledge(lake: &Lake, rows: &mut Rows) -> Result<(), LakeError> {
    if rows.len() == 0 {
        return Ok(());
    }
    lake.append(ALERT_EVENTS, vec![std::mem::take(rows).batch()?], Commit::default())
        .await?;
    Ok(())
}

fn tables_of(rules: &RuleSet) -> BTreeSet<String> {
    rules.rules.iter().flat_map(|rule| sql::views::tables_behind(rule.from())).collect()
}

fn producer() -> Producer<'static> {
    Producer {
        env: "default",
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// Rules read what is stored: an open window has no final answer to judge.
fn stored_only<'a>(pipelines: impl Iterator<Item = &'a Pipeline>) -> Vec<(Pipeline, BTreeSet<i64>)> {
    pipelines.map(|pipeline| (pipeline.clone(), BTreeSet::new())).collect()
}

type Bodies = HashMap<String, String>;
type Delivered = HashSet<(String, String)>;

/// Transitions, their stored bytes, and what was delivered where.
fn memory(batches: &[RecordBatch]) -> (Vec<Transition>, Bodies, Delivered) {
    let (mut events, mut bodies, mut delivered) = (Vec::new(), Bodies::new(), Delivered::new());
    for batch in batches {
        let [kinds, ids, targets, transitions, messages] = [0, 1, 2, 3, 4].map(|index| texts(batch.column(index)));
        for row in 0..batch.num_rows() {
            let id = ids.value(row).to_string();
            if kinds.value(row) == "delivery" {
                delivered.insert((id, targets.value(row).to_string()));
            } else if let Ok(event) = serde_json::from_str::<Transition>(transitions.value(row)) {
                bodies.insert(id, messages.value(row).to_string());
                events.push(event);
            }
        }
    }
    (events, bodies, delivered)
}

fn undelivered(events: &[Transition], bodies: &Bodies, delivered: &Delivered) -> Vec<Outgoing> {
    let mut outgoing = Vec::new();
    for event in events.iter().filter(|event| event.status.is_sent()) {
        for target in &event.targets {
            if !delivered.contains(&(event.event_id.clone(), target.clone())) {
                let body = bodies.get(&event.event_id).cloned().unwrap_or_default();
                outgoing.push(Outgoing {
                    event: event.clone(),
                    body,
                    target: target.clone(),
                });
            }
        }
    }
    outgoing.sort_by_key(|outgoing| (outgoing.event.window_end_ms, outgoing.event.seq));
    outgoing
}

/// Rows of `ops.alert_events` in the making.
#[derive(Default)]
struct Rows {
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
    fn len(&self) -> usize {
        self.kinds.len()
    }

    fn transition(&mut self, event: &Transition, body: &str) {
        let text = serde_json::to_string(event).expect("a transition holds plain values only");
        self.push("transition", event, event.status.as_str(), None, Some(text), Some(body.to_string()));
    }

    fn delivery(&mut self, outgoing: &Outgoing, status: &'static str, now_ms: i64) {
        let note = format!("{{\"at_ms\":{now_ms}}}");
        self.push("delivery", &outgoing.event, status, Some(outgoing.target.clone()), Some(note), None);
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

    fn batch(self) -> Result<RecordBatch, LakeError> {
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

/// Gold rows by minute.
fn minute_rows(batches: &[RecordBatch], dims: usize) -> Result<BTreeMap<i64, Vec<MinuteRow>>, SqlError> {
    let mut by_minute: BTreeMap<i64, Vec<MinuteRow>> = BTreeMap::new();
    for batch in batches {
        let starts = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let group = Group::of(batch, 1, dims);
        for row in 0..batch.num_rows() {
            let minute_ms = starts.value(row).div_euclid(1000);
            let [num, den, samples] = group.sums(row);
            by_minute.entry(minute_ms).or_default().push(MinuteRow {
                minute_ms,
                dims: group.dims(row),
                num,
                den,
                samples,
            });
        }
    }
    Ok(by_minute)
}

fn slot_rows(batches: &[RecordBatch], dims: usize) -> Result<Vec<SlotRow>, SqlError> {
    let mut slots = Vec::new();
    for batch in batches {
        let [days, numbers] = [0, 1].map(|index| int32s(batch.column(index)));
        let group = Group::of(batch, 2, dims);
        for row in 0..batch.num_rows() {
            let [num, den, samples] = group.sums(row);
            slots.push(SlotRow {
                day: days.value(row),
                slot: numbers.value(row),
                dims: group.dims(row),
                num,
                den,
                samples,
            });
        }
    }
    Ok(slots)
}

/// Dimensions and sums of a rule's query, from a given column on.
struct Group {
    dims: Vec<StringArray>,
    sums: Vec<arrow::array::Float64Array>,
}

impl Group {
    fn of(batch: &RecordBatch, first: usize, dims: usize) -> Group {
        let sums = first + dims..first + dims + 3;
        Group {
            dims: (first..first + dims).map(|index| texts(batch.column(index))).collect(),
            sums: sums
                .map(|index| batch.column(index).as_primitive::<Float64Type>().clone())
                .collect(),
        }
    }

    fn dims(&self, row: usize) -> Vec<Option<String>> {
        self.dims
            .iter()
            .map(|dim| dim.is_valid(row).then(|| dim.value(row).to_string()))
            .collect()
    }

    fn sums(&self, row: usize) -> [f64; 3] {
        [0, 1, 2].map(|index| {
            if self.sums[index].is_valid(row) {
                self.sums[index].value(row)
            } else {
                0.0
            }
        })
    }
}

fn texts(column: &ArrayRef) -> StringArray {
    match cast(column, &DataType::Utf8) {
        Ok(column) => column.as_string::<i32>().clone(),
        Err(_) => StringArray::new_null(column.len()),
    }
}

fn int32s(column: &ArrayRef) -> Int32Array {
    match cast(column, &DataType::Int32) {
        Ok(column) => column.as_primitive::<Int32Type>().clone(),
        Err(_) => Int32Array::from(vec![0; column.len()]),
    }
}
