//! The daemon's own health, minute by minute of the machine's clock: `ops.health_1m`.
//!
//! Stands beside the walk of an event: each epoch says what it did (`Heard`), and whenever a minute has
//! ended a row a source is written, which the rules over this table are judged by. Windows of gold close
//! with event time; that event time stands still, or that a source is silent, only a clock can tell.
//!
//! Invariant: a row says what became of the records of one source in one minute, and since when nothing has
//! come from it; a minute is written once or, where the daemon was down or could not write, not at all.
//! Invariant: since when a source is silent outlives a restart: it is read back from the table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;

use crate::event::schema::utc_day;
use crate::lake::tables::HEALTH;
use crate::lake::{Commit, Lake, LakeError, TimeRange};
use crate::sql::MINUTE_MS;
use crate::sql::cause::texts;
use crate::telemetry::metrics::SourceCounts;

/// How far back a start looks for the last record of a source: who has been silent for longer is known to be.
const REMEMBERED_MS: i64 = 86_400_000;

/// What became of the records of one source since the last minute that was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    received: u64,
    stored: u64,
    duplicates: u64,
    rejected: u64,
}

/// What epochs have told since the last minute that was written.
#[derive(Debug, Default)]
pub struct Heard {
    by_source: Mutex<BTreeMap<String, Counted>>,
}

impl Heard {
    /// One epoch's records of a source.
    pub fn epoch(&self, source: &str, counts: &SourceCounts) {
        let mut by_source = self.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = by_source.entry(source.to_owned()).or_default();
        counted.received += counts.received;
        counted.stored += counts.stored;
        counted.duplicates += counts.duplicates;
        counted.rejected += counts.rejected.values().sum::<u64>();
    }

    fn take(&self) -> BTreeMap<String, Counted> {
        std::mem::take(&mut *self.by_source.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Since when something is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moved {
    to_ms: i64,
    at_ms: i64,
}

/// Writes `ops.health_1m`.
pub struct OwnHealth {
    lake: Arc<Lake>,
    heard: Arc<Heard>,
    /// By the machine's clock; none for a source from which nothing has come in the last day.
    last_record_ms: BTreeMap<String, Option<i64>>,
    /// The watermark as it moved last.
    watermark: Option<Moved>,
    /// End of the last minute that is done with.
    through_ms: i64,
}

impl OwnHealth {
    /// Begins with the minute of `now_ms`, for these sources.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn open(lake: Arc<Lake>, sources: impl IntoIterator<Item = String>, now_ms: i64) -> Result<OwnHealth, LakeError> {
        let mut last_record_ms: BTreeMap<String, Option<i64>> = sources.into_iter().map(|source| (source, None)).collect();
        let range = TimeRange {
            from_ms: now_ms - REMEMBERED_MS,
            to_ms: now_ms,
        };
        for batch in lake.scan(HEALTH, &["source", "last_record_at"], range, None).await? {
            let (sources, times) = (texts(batch.column(0)), batch.column(1).as_primitive::<TimestampMicrosecondType>());
            for row in 0..batch.num_rows() {
                if let (Some(last_ms), true) = (last_record_ms.get_mut(sources.value(row)), times.is_valid(row)) {
                    *last_ms = (*last_ms).max(Some(times.value(row).div_euclid(1_000)));
                }
            }
        }
        Ok(OwnHealth {
            lake,
            heard: Arc::default(),
            last_record_ms,
            watermark: None,
            through_ms: now_ms - now_ms.rem_euclid(MINUTE_MS),
        })
    }

    /// Where epochs tell what they did.
    pub fn heard(&self) -> Arc<Heard> {
        Arc::clone(&self.heard)
    }

    /// Writes the minute that has ended, if one has; returns its end. Of several the last is written: the
    /// others were spent over one long epoch, whose records are in it.
    ///
    /// # Errors
    /// The table cannot be written; what was heard is then part of no minute, as after a crash.
    pub async fn write_minute(&mut self, watermark_ms: Option<i64>, now_ms: i64) -> Result<Option<i64>, LakeError> {
        if watermark_ms > self.watermark.map(|moved| moved.to_ms) {
            self.watermark = watermark_ms.map(|to_ms| Moved { to_ms, at_ms: now_ms });
        }
        let end_ms = now_ms - now_ms.rem_euclid(MINUTE_MS);
        if end_ms <= self.through_ms {
            return Ok(None);
        }
        self.through_ms = end_ms;
        let heard = self.heard.take();
        for (source, counted) in &heard {
            let last_ms = self.last_record_ms.entry(source.clone()).or_default();
            if counted.received > 0 {
                *last_ms = Some(end_ms);
            }
        }
        let batch = self.batch(&heard, end_ms)?;
        if batch.num_rows() > 0 {
            self.lake.append(HEALTH, vec![batch], Commit::default()).await?;
        }
        Ok(Some(end_ms))
    }

    fn batch(&self, heard: &BTreeMap<String, Counted>, end_ms: i64) -> Result<RecordBatch, LakeError> {
        let sources = || self.last_record_ms.iter();
        let rows = self.last_record_ms.len();
        let counted = |count: fn(&Counted) -> u64| {
            let of = |source: &String| heard.get(source).map_or(0, count);
            numbers(sources().map(|(source, _)| Some(i64::try_from(of(source)).unwrap_or(i64::MAX))))
        };
        let time = |at_ms: Option<i64>| times(sources().map(|_| at_ms));
        let start_ms = end_ms - MINUTE_MS;
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("event_date", Arc::new(Date32Array::from(vec![utc_day(start_ms); rows])), false),
            ("window_start", time(Some(start_ms)), false),
            ("window_end", time(Some(end_ms)), false),
            ("source", Arc::new(StringArray::from_iter_values(self.last_record_ms.keys())), false),
            ("received", counted(|counted| counted.received), false),
            ("stored", counted(|counted| counted.stored), false),
            ("duplicates", counted(|counted| counted.duplicates), false),
            ("rejected", counted(|counted| counted.rejected), false),
            ("last_record_at", times(sources().map(|(_, last_ms)| *last_ms)), true),
            (
                "silent_ms",
                numbers(sources().map(|(_, last_ms)| silent_ms(*last_ms, end_ms))),
                true,
            ),
            ("watermark", time(self.watermark.map(|moved| moved.to_ms)), true),
            (
                "watermark_still_ms",
                numbers(sources().map(|_| self.watermark.map(|moved| (end_ms - moved.at_ms).max(0)))),
                true,
            ),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).map_err(|source| LakeError::Rows {
            table: HEALTH.to_owned(),
            source,
        })
    }
}

/// None for what has been silent for longer than a start would remember: by then it is known.
fn silent_ms(last_ms: Option<i64>, now_ms: i64) -> Option<i64> {
    let silent_ms = now_ms.saturating_sub(last_ms?).max(0);
    (silent_ms <= REMEMBERED_MS).then_some(silent_ms)
}

fn times(at_ms: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let times: TimestampMicrosecondArray = at_ms.map(|at_ms| at_ms.map(|at_ms| at_ms.saturating_mul(1_000))).collect();
    Arc::new(times.with_timezone("UTC"))
}

fn numbers(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

#[cfg(test)]
mod tests;
