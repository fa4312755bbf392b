//! Columns of `silver.rejects`: what could not be used, where it stood, and why; never the bytes.

use super::{Column, Get, Provenance};
use crate::event::Reject;

/// A rejected record with its place.
#[derive(Debug, Clone)]
pub struct RejectRow {
    pub reject: Reject,
    pub place: Provenance,
    pub size_bytes: i64,
}

/// `silver.rejects`: one row a record that was refused.
pub fn reject_columns() -> Vec<Column<RejectRow>> {
    vec![
        Column::required(
            "event_date",
            "UTC day of received_at: the record's own time may be the reason",
            Get::Date(|r| r.place.received_at_ms),
        ),
        Column::required(
            "reason",
            "why it was refused, one word",
            Get::Text(|r| Some(r.reject.reason.as_str())),
        ),
        Column::required(
            "detail",
            "what exactly was wrong; no part of the record",
            Get::Text(|r| Some(&r.reject.detail)),
        ),
        Column::required(
            "received_at",
            "when Playhead took the record in, UTC",
            Get::Time(|r| Some(r.place.received_at_ms)),
        ),
        Column::required("format", "format that it was read with", Get::Text(|r| Some(r.place.format))),
        Column::required("size_bytes", "size of the record, bytes", Get::Int(|r| Some(r.size_bytes))),
        Column::required(
            "source_partition",
            "file or partition that held the record",
            Get::Text(|r| Some(&r.place.source_partition)),
        ),
        Column::required(
            "source_offset",
            "byte at which the record starts, decompressed",
            Get::Int(|r| Some(r.place.source_offset)),
        ),
    ]
}
