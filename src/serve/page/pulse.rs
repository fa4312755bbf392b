//! What the page shows beside its panels: how far the data reach, whether there is something new, the incidents, and
//! an edit of the alert files that is not in force.
//!
//! Asked for by every stream each few seconds; worked out once for all of them.
//!
//! Invariant: one reader at a time asks the desk, and only if the tables have moved on.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use serde_json::json;
use tokio::sync::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::incidents::{Incident, incidents};
use super::{Page, Refusal};
use crate::serve::desk::{Desk, Moment};

/// How often the tables are looked at: people do not see more often.
const LOOK_MS: i64 = 2_000;
/// Resolved incidents are listed for seven days, by the newest step.
const SINCE: &str = "(SELECT max(window_end) - interval '7 days' FROM ops.alert_events)";
/// Alerts that have been firing for longer; more are one incident, whatever the rules say.
const OPEN_MAX: usize = 100;
/// Steps of alerts that are read at most, the newest: each holds a message of some kilobytes.
const STEPS_MAX: usize = 5_000;
/// From first data to newest, of the table that every lake has.
const REACH: &str = "SELECT min(window_start) AS oldest, max(window_start) AS newest FROM gold.concurrency_1m";

/// What is told.
pub struct State {
    /// Another tag: another text.
    pub tag: u64,
    pub text: Arc<str>,
    pub newest_ms: Option<i64>,
}

#[derive(Default)]
pub struct Pulse {
    last: Mutex<Option<Last>>,
}

struct Last {
    /// Held, so that another moment never has its address.
    moment: Arc<Moment>,
    revision: u64,
    looked_at_ms: i64,
    newest_ms: Option<i64>,
    oldest_ms: Option<i64>,
    incidents: Vec<Incident>,
    state: Arc<State>,
}

impl Page {
    /// The state, at most `LOOK_MS` old.
    pub(in crate::serve) async fn state(&self) -> Result<Arc<State>, Refusal> {
        let desk = self.desk()?;
        let mut last = self.pulse.last.lock().await;
        let now_ms = self.now_ms();
        if let Some(known) = last.as_ref().filter(|known| (0..LOOK_MS).contains(&(now_ms - known.looked_at_ms))) {
            return Ok(Arc::clone(&known.state));
        }
        let moment = desk.moment().await?;
        let next = match last.take() {
            Some(known) if Arc::ptr_eq(&known.moment, &moment) => Last {
                looked_at_ms: now_ms,
                ..known
            },
            known => looked(&desk, moment, known.map_or(0, |known| known.revision), now_ms).await?,
        };
        let state = Arc::new(next.told(now_ms, self.refused_alerts().as_deref()));
        *last = Some(Last {
            state: Arc::clone(&state),
            ..next
        });
        Ok(state)
    }
}

async fn looked(desk: &Desk, moment: Arc<Moment>, revision: u64, now_ms: i64) -> Result<Last, Refusal> {
    let (oldest_ms, newest_ms) = reach(desk).await?;
    Ok(Last {
        moment,
        revision: revision + 1,
        looked_at_ms: now_ms,
        newest_ms,
        oldest_ms,
        incidents: steps(desk).await?,
        state: Arc::new(State {
            tag: 0,
            text: Arc::from(""),
            newest_ms,
        }),
    })
}

impl Last {
    fn told(&self, now_ms: i64, refused_alerts: Option<&str>) -> State {
        let value = json!({"revision": self.revision, "newest_ms": self.newest_ms, "oldest_ms": self.oldest_ms, "now_ms": now_ms,
            "incidents": self.incidents, "refused_alerts": refused_alerts});
        let text: Arc<str> = Arc::from(value.to_string());
        State {
            // The clock moves on by itself: it is no news.
            tag: xxh3_64(format!("{} {} {refused_alerts:?}", self.revision, now_ms.div_euclid(60_000)).as_bytes()),
            text,
            newest_ms: self.newest_ms,
        }
    }
}

/// Start of the first and of the newest minute that there is; none in an empty lake.
async fn reach(desk: &Desk) -> Result<(Option<i64>, Option<i64>), Refusal> {
    let answer = desk.query(REACH).await?;
    let at = |index: usize| {
        let batch = answer.batches.iter().find(|batch| batch.num_rows() > 0)?;
        let column = batch.column(index).as_primitive_opt::<TimestampMicrosecondType>()?;
        column.is_valid(0).then(|| column.value(0).div_euclid(1000))
    };
    Ok((at(0), at(1)))
}

async fn steps(desk: &Desk) -> Result<Vec<Incident>, Refusal> {
    let messages = "SELECT arrow_cast(message, 'Utf8') AS message FROM ops.alert_events WHERE kind = 'transition'";
    let recent = format!("{messages} AND window_end >= {SINCE} ORDER BY window_end DESC LIMIT {STEPS_MAX}");
    let mut steps = listed(desk, &recent).await?;
    let open = listed(desk, &open_for_long()).await?;
    if !open.is_empty() {
        let ids: Vec<String> = open.iter().map(|id| format!("'{}'", id.replace('\'', "''"))).collect();
        let text = format!("{messages} AND event_id IN ({})", ids.join(", "));
        steps.extend(listed(desk, &text).await?);
    }
    // The newest were asked for; they are folded from the oldest on.
    steps.sort_by_cached_key(|message| order_of(message));
    Ok(incidents(steps.into_iter()))
}

/// Steps that alerts have stood on for longer than the history reaches back, and stand on still.
fn open_for_long() -> String {
    format!(
        "SELECT arrow_cast(event_id, 'Utf8') AS event_id FROM (SELECT event_id, status, window_end, row_number() OVER (PARTITION BY \
         fingerprint ORDER BY window_end DESC, CASE WHEN status IN ('resolved', 'inactive') THEN 0 ELSE 1 END) AS place \
         FROM ops.alert_events WHERE kind = 'transition') AS last WHERE place = 1 AND status IN ('firing', 'recovering') \
         AND window_end < {SINCE} LIMIT {OPEN_MAX}"
    )
}

async fn listed(desk: &Desk, text: &str) -> Result<Vec<String>, Refusal> {
    let answer = desk.query(text).await?;
    Ok(answer.batches.iter().flat_map(texts).collect())
}

fn texts(batch: &RecordBatch) -> Vec<String> {
    let column = batch.column(0).as_string::<i32>();
    column.iter().flatten().map(str::to_owned).collect()
}

/// End of the window, then the step within the run.
fn order_of(message: &str) -> (String, i64) {
    let message: serde_json::Value = serde_json::from_str(message).unwrap_or_default();
    let end = message.pointer("/window/end").and_then(|end| end.as_str()).unwrap_or_default();
    (end.to_owned(), message["seq"].as_i64().unwrap_or(0))
}
