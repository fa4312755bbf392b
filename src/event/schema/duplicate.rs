//! Columns of `silver.duplicates`: how often records came that the lake already held, by minute and
//! player; the records themselves stand once in bronze.

use super::{Column, Get, PlayerRow};

const MINUTE_MS: i64 = 60_000;

/// Player records of one minute, file and player that were known already.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DuplicateRow {
    /// Minute of the event time.
    pub minute_ms: i64,
    /// The dialect, as `silver.player_events` names it.
    pub source: &'static str,
    pub player_name: Option<String>,
    pub player_version: Option<String>,
    pub source_partition: String,
    pub duplicates: i64,
}

/// One row a minute, format, player and partition, sorted.
pub fn count_duplicates<'a>(rows: impl Iterator<Item = &'a PlayerRow>) -> Vec<DuplicateRow> {
    let mut found: Vec<DuplicateRow> = rows
        .map(|row| DuplicateRow {
            minute_ms: row.event.event_ts_ms - row.event.event_ts_ms.rem_euclid(MINUTE_MS),
            source: row.event.source,
            player_name: row.event.player_name.clone(),
            player_version: row.event.player_version.clone(),
            source_partition: row.place.source_partition.to_string(),
            duplicates: 1,
        })
        .collect();
    found.sort_unstable();
    found.dedup_by(|next, kept| {
        let same = (
            &next.minute_ms,
            &next.source,
            &next.player_name,
            &next.player_version,
            &next.source_partition,
        ) == (
            &kept.minute_ms,
            &kept.source,
            &kept.player_name,
            &kept.player_version,
            &kept.source_partition,
        );
        kept.duplicates += i64::from(same);
        same
    });
    found
}

/// `silver.duplicates`.
pub fn duplicate_columns() -> Vec<Column<DuplicateRow>> {
    vec![
        Column::required("event_date", "UTC day of event_ts", Get::Date(|r| r.minute_ms)),
        Column::required(
            "event_ts",
            "minute of the records' event time, UTC",
            Get::Time(|r| Some(r.minute_ms)),
        ),
        Column::required("source", "dialect that they came in", Get::Text(|r| Some(r.source))),
        Column::new("player_name", "player", Get::Text(|r| r.player_name.as_deref())),
        Column::new(
            "player_version",
            "release of the player",
            Get::Text(|r| r.player_version.as_deref()),
        ),
        Column::required(
            "source_partition",
            "file or partition that held them",
            Get::Text(|r| Some(&r.source_partition)),
        ),
        Column::required("duplicates", "records that the lake already held", Get::Int(|r| Some(r.duplicates))),
    ]
}
