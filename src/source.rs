//! Sources: where records come from, in bounded batches with positions.
//!
//! First step of the walk. A source hands over bytes and says where they stood; it never decodes.
//!
//! Invariant: a batch is bounded in bytes and records, and names the position it starts from and
//! the one it reaches, so that a wrong start can be refused and a replay gives the same batch.
//! Invariant: a position moves on only after bronze has committed it (DESIGN D1).

pub mod files;
pub mod http;
pub mod spool;

use std::sync::Arc;

use crate::event::decode::Format;

/// How much one batch may hold.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub bytes: usize,
    pub records: usize,
}

/// Records of one partition, as they stood.
#[derive(Debug)]
pub struct Part {
    /// File path with a fingerprint of its head, or topic and partition.
    pub partition: Arc<str>,
    /// Detected or set; `None` if the first lines decide nothing.
    pub format: Option<Format>,
    /// Comment lines at the head of the file that bind its columns (`#Fields`).
    pub header: Arc<[u8]>,
    pub buffer: Vec<u8>,
    pub lines: Vec<Line>,
    pub from: i64,
    pub to: i64,
    /// Nothing more is known to come.
    pub finished: bool,
}

/// One record: its place in the partition and in the part's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    pub offset: i64,
    pub start: usize,
    pub end: usize,
    /// Longer than a record may be; its bytes were skipped and only its length is known.
    pub oversized_bytes: Option<i64>,
}
