//! Every table: layer, name, schema, time column, sort order and the columns that carry statistics.
//!
//! Stands between the column lists of `event::schema` (and the pipelines, for gold) and the Delta
//! tables on disk.
//!
//! Invariant: partitioned by `event_date` alone; event type (or state) is the first sort key inside
//! a file, so that statistics prune by type without multiplying small files (DESIGN D15).
//! Invariant: no statistics on a column that can identify a person.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::event::schema::{self, Column, arrow_schema, timestamp_type};

/// The column that every table is partitioned by.
pub const PARTITION_COLUMN: &str = "event_date";

pub const BRONZE_PLAYER: &str = "bronze.player_events";
pub const BRONZE_CDN: &str = "bronze.cdn_logs";
pub const SILVER_PLAYER: &str = "silver.player_events";
pub const SILVER_INTERVALS: &str = "silver.playback_intervals";
pub const SILVER_SESSIONS: &str = "silver.playback_sessions";
pub const SILVER_REQUESTS: &str = "silver.cdn_requests";
pub const SILVER_REJECTS: &str = "silver.rejects";
pub const SILVER_DUPLICATES: &str = "silver.duplicates";
pub const ALERT_EVENTS: &str = "ops.alert_events";
pub const ALERT_CAUSES: &str = "ops.alert_causes";
pub const HEALTH: &str = "ops.health_1m";

/// What one table is.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// `layer.name`.
    pub name: String,
    pub about: String,
    /// The finer gold table that this one adds up.
    pub rolled_up_from: Option<String>,
    pub schema: SchemaRef,
    /// The event-time column that windows and pruning go by.
    pub time_column: String,
    /// Time columns that windows are computed over: a change of a row touches their minutes.
    pub window_columns: Vec<String>,
    pub sort_columns: Vec<String>,
    /// Columns with file statistics.
    pub statistics: Vec<String>,
    /// The id by which an edit names rows, with the time column; `None` where edits go by windows.
    pub row_id: Option<&'static str>,
    /// True in rows that are expected to change. They lie in files apart from the others, so that changing
    /// them leaves those as they are.
    pub open_column: Option<&'static str>,
}

/// The tables whose shape is fixed by code. Gold tables come from the pipelines.
pub fn fixed_tables() -> Vec<TableSpec> {
    vec![
        spec(
            BRONZE_PLAYER,
            "Player records as received, minus identity, plus what the address told us.",
            &schema::bronze_player_columns(),
            "event_ts",
            &["event_type", "event_ts", "event_id"],
            &["event_type", "received_at", "country", "asn"],
        ),
        spec(
            BRONZE_CDN,
            "CDN log records as received, minus identity, plus what the address told us.",
            &schema::bronze_cdn_columns(),
            "event_ts",
            &["event_ts", "event_id"],
            &["received_at", "country", "asn"],
        ),
        spec(
            SILVER_PLAYER,
            "Player events, typed.",
            &schema::silver_player_columns(),
            "event_ts",
            &["event_type", "event_ts", "event_id"],
            &[
                "event_type",
                "received_at",
                "content_id",
                "app_name",
                "app_version",
                "country",
                "isp",
                "cdn",
            ],
        ),
        spec(
            SILVER_INTERVALS,
            "What each playback session did, minute by minute: additive.",
            &schema::interval_columns(),
            "interval_start",
            &["state", "interval_start", "session_id"],
            &[
                "state",
                "interval_end",
                "content_id",
                "app_name",
                "app_version",
                "country",
                "isp",
                "cdn",
            ],
        ),
        spec(
            SILVER_SESSIONS,
            "One row a playback session.",
            &schema::session_columns(),
            "started_at",
            &["outcome", "started_at", "session_id"],
            &[
                "outcome",
                "is_open",
                "ended_at",
                "fatal_error_at",
                "content_id",
                "app_name",
                "app_version",
                "country",
                "isp",
                "cdn",
            ],
        ),
        spec(
            SILVER_REQUESTS,
            "CDN requests, typed.",
            &schema::silver_cdn_columns(),
            "event_ts",
            &["cdn", "event_ts", "event_id"],
            &[
                "cdn",
                "pop",
                "edge_location",
                "status",
                "result_type",
                "country",
                "isp",
                "received_at",
            ],
        ),
        spec(
            SILVER_REJECTS,
            "Records that could not be used: place and reason, never the bytes.",
            &schema::reject_columns(),
            "received_at",
            &["reason", "source_partition", "source_offset"],
            &["reason", "format"],
        ),
        spec(
            SILVER_DUPLICATES,
            "How often player records came that the lake already held.",
            &schema::duplicate_columns(),
            "event_ts",
            &["event_ts", "player_name", "player_version"],
            &["source", "player_name", "player_version"],
        ),
        alert_events(),
        alert_causes(),
        health(),
    ]
}

fn spec<R>(name: &str, about: &str, columns: &[Column<R>], time_column: &str, sort_columns: &[&str], statistics: &[&str]) -> TableSpec {
    let comments: HashMap<&str, &str> = columns.iter().map(|column| (column.name, column.about)).collect();
    let mut with_statistics = vec![time_column.to_string()];
    with_statistics.extend(statistics.iter().filter(|s| **s != time_column).map(|s| s.to_string()));
    TableSpec {
        name: name.to_string(),
        about: about.to_string(),
        rolled_up_from: None,
        schema: with_comments(&arrow_schema(columns), |name| comments.get(name).map(|c| c.to_string())),
        time_column: time_column.to_string(),
        window_columns: window_columns(name),
        sort_columns: sort_columns.iter().map(|s| s.to_string()).collect(),
        statistics: with_statistics,
        row_id: [SILVER_INTERVALS, SILVER_SESSIONS].contains(&name).then_some("session_id"),
        open_column: (name == SILVER_SESSIONS).then_some("is_open"),
    }
}

/// A table that pipelines read, by one of its time columns.
///
/// A session counts in the window of its start, of its end or of its failure (DESIGN: metrics 3.1,
/// attribution), so `silver.playback_sessions` is read under three names.
pub struct WindowedView {
    pub name: &'static str,
    pub table: &'static str,
    pub time_column: &'static str,
}

/// Sessions by their end: the view whose rows are known latest, for silence tells nothing until it has lasted.
pub const ENDED_SESSIONS: &str = "ended_sessions";

/// What `FROM silver.x` may name in a pipeline, and which time `tumble` goes by there.
pub const WINDOWED_VIEWS: [WindowedView; 8] = [
    WindowedView {
        name: "player_events",
        table: SILVER_PLAYER,
        time_column: "event_ts",
    },
    WindowedView {
        name: "playback_intervals",
        table: SILVER_INTERVALS,
        time_column: "interval_start",
    },
    WindowedView {
        name: "playback_sessions",
        table: SILVER_SESSIONS,
        time_column: "started_at",
    },
    WindowedView {
        name: ENDED_SESSIONS,
        table: SILVER_SESSIONS,
        time_column: "ended_at",
    },
    WindowedView {
        name: "failed_sessions",
        table: SILVER_SESSIONS,
        time_column: "fatal_error_at",
    },
    WindowedView {
        name: "cdn_requests",
        table: SILVER_REQUESTS,
        time_column: "event_ts",
    },
    WindowedView {
        name: "rejects",
        table: SILVER_REJECTS,
        time_column: "received_at",
    },
    WindowedView {
        name: "duplicates",
        table: SILVER_DUPLICATES,
        time_column: "event_ts",
    },
];

fn window_columns(table: &str) -> Vec<String> {
    WINDOWED_VIEWS
        .iter()
        .filter(|view| view.table == table)
        .map(|view| view.time_column.to_string())
        .collect()
}

/// The schema with a Delta column comment on each field.
pub fn with_comments(schema: &Schema, about: impl Fn(&str) -> Option<String>) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| match about(field.name()) {
            Some(comment) => field
                .as_ref()
                .clone()
                .with_metadata(HashMap::from([("comment".to_string(), comment)])),
            None => field.as_ref().clone(),
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// `ops.alert_events`: alert state and outbox in one append-only table (DESIGN D9).
fn alert_events() -> TableSpec {
    let columns = [
        ("event_date", DataType::Date32, false, "UTC day of window_end"),
        ("kind", DataType::Utf8, false, "transition or delivery"),
        ("window_end", timestamp_type(), false, "end of the window that was judged, UTC"),
        ("event_id", DataType::Utf8, false, "id of the transition; the same on every repeat"),
        ("rule_uid", DataType::Utf8, false, "rule"),
        (
            "status",
            DataType::Utf8,
            false,
            "pending, firing, resolved; delivered on a delivery row",
        ),
        ("fingerprint", DataType::Utf8, false, "rule and dimension values, hashed"),
        ("target", DataType::Utf8, true, "where a delivery went"),
        ("rules_hash", DataType::Utf8, false, "content of the alert files that decided"),
        ("transition", DataType::Utf8, true, "the transition in full, JSON"),
        ("message", DataType::Utf8, true, "the bytes that are sent, JSON"),
    ];
    TableSpec {
        name: ALERT_EVENTS.to_string(),
        about: "Alert transitions and their deliveries: state and outbox in one.".to_string(),
        rolled_up_from: None,
        schema: commented(&columns),
        time_column: "window_end".to_string(),
        window_columns: Vec::new(),
        sort_columns: vec!["window_end".into(), "event_id".into()],
        statistics: vec!["window_end".into(), "kind".into(), "status".into(), "rule_uid".into()],
        row_id: None,
        open_column: None,
    }
}

/// `ops.alert_causes`: what explained an alert, in columns.
fn alert_causes() -> TableSpec {
    let columns = [
        ("event_date", DataType::Date32, false, "UTC day of window_end"),
        ("window_end", timestamp_type(), false, "end of the window that was judged, UTC"),
        (
            "event_id",
            DataType::Utf8,
            false,
            "id of the transition that told of it, as in ops.alert_events",
        ),
        ("rule_uid", DataType::Utf8, false, "rule"),
        ("fingerprint", DataType::Utf8, false, "rule and dimension values, hashed"),
        (
            "answer",
            DataType::Utf8,
            false,
            "found, no_single_cause, no_excess or no_baseline; but for found there is one row, and no cause in it",
        ),
        ("rank", DataType::Int64, true, "1 is the best"),
        (
            "cause",
            DataType::Utf8,
            true,
            "the dimension values that explain it: cdn=cdn-b, pop=MAD51",
        ),
        ("dims", DataType::Utf8, true, "the same as JSON; an unknown value is null"),
        ("explains", DataType::Float64, true, "share of the excess that it explains, 0 to 1"),
        ("value", DataType::Float64, true, "the rule's value in it in the window"),
        ("baseline", DataType::Float64, true, "and in the baseline"),
        ("samples", DataType::Float64, true, "how many the value rests on"),
    ];
    TableSpec {
        name: ALERT_CAUSES.to_string(),
        about: "What explained each alert that was told, where its rule says explain: a row a cause.".to_string(),
        rolled_up_from: None,
        schema: commented(&columns),
        time_column: "window_end".to_string(),
        window_columns: Vec::new(),
        sort_columns: vec!["window_end".into(), "event_id".into(), "rank".into()],
        statistics: vec!["window_end".into(), "rule_uid".into(), "answer".into()],
        row_id: None,
        open_column: None,
    }
}

/// `ops.health_1m`: what the daemon knows of itself, by minute of the machine's clock.
pub fn health() -> TableSpec {
    let columns = [
        ("event_date", DataType::Date32, false, "UTC day of window_start"),
        (
            "window_start",
            timestamp_type(),
            false,
            "start of the minute by the machine's clock, UTC",
        ),
        ("window_end", timestamp_type(), false, "its end"),
        (
            "source",
            DataType::Utf8,
            false,
            "name of the source in the settings; http is the receiver",
        ),
        (
            "received",
            DataType::Int64,
            false,
            "records that were committed in this minute, whatever became of them",
        ),
        ("stored", DataType::Int64, false, "of them: stored"),
        ("duplicates", DataType::Int64, false, "of them: known already"),
        ("rejected", DataType::Int64, false, "of them: refused"),
        (
            "last_record_at",
            timestamp_type(),
            true,
            "end of the last minute with a record of this source; null before one in the last day",
        ),
        ("silent_ms", DataType::Int64, true, "since then, at the end of the minute"),
        ("watermark", timestamp_type(), true, "up to which event time the input is complete"),
        (
            "watermark_still_ms",
            DataType::Int64,
            true,
            "since the watermark moved, at the end of the minute",
        ),
    ];
    TableSpec {
        name: HEALTH.to_string(),
        about: "What came from each source, minute by minute of the machine's clock, and since when nothing has come. Not written while the daemon is down.".to_string(),
        rolled_up_from: None,
        schema: commented(&columns),
        time_column: "window_start".to_string(),
        window_columns: Vec::new(),
        sort_columns: vec!["source".into(), "window_start".into()],
        statistics: vec!["window_start".into(), "source".into()],
        row_id: None,
        open_column: None,
    }
}

fn commented(columns: &[(&str, DataType, bool, &str)]) -> SchemaRef {
    let field = |(name, data_type, nullable, about): &(&str, DataType, bool, &str)| {
        Field::new(*name, data_type.clone(), *nullable).with_metadata(HashMap::from([("comment".to_string(), about.to_string())]))
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}
