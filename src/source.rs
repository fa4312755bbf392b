//! Sources: where records come from, in bounded batches with positions.
//!
//! First step of the walk. A source hands over bytes and says where they stood; it never decodes.
//!
//! Invariant: a batch is bounded in bytes and records, and names the position it starts from and
//! the one it reaches, so that a wrong start can be refused and a replay gives the same batch.
//! Invariant: a position moves on only after bronze has committed it (DESIGN D1).

#[cfg(test)]
pub mod contract;
pub mod files;
pub mod folders;
pub mod http;
pub mod kafka;
pub mod kinesis;
pub mod lines;
pub mod objects;
pub mod spool;

use std::sync::Arc;

use crate::event::decode::Format;

/// How far a partition has been read. A part that ends at a mark is followed by one that starts there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Grows with every record: the byte of a file, the next offset of a topic's partition, the records
    /// read of a shard.
    pub offset: i64,
    /// What finding the place again needs besides: a shard's sequence number.
    pub token: Option<Arc<str>>,
}

/// A partition that is newly ours and waits for `Source::start`.
#[derive(Debug, Clone)]
pub struct Found {
    pub partition: Arc<str>,
    pub format: Option<Format>,
    /// Comment lines that bind the columns of what follows.
    pub header: Arc<[u8]>,
    /// The first record, where it is known: it tells the partition's place in time.
    pub first_line: Vec<u8>,
}

/// How far a source is behind what there is to read.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Lag {
    pub partitions: u64,
    /// `None`: the source cannot tell.
    pub records: Option<u64>,
    /// Age of the oldest record that waits.
    pub seconds: Option<f64>,
}

/// Where records come from, as the daemon sees it: it asks, the source never pushes.
///
/// A source with a network behind it has threads or tasks of its own that fill bounded queues; when the
/// queues are full they stop reading and stay members of their group. No call waits for the network for
/// longer than a few milliseconds.
pub trait Source: Send {
    /// Name in the settings.
    fn name(&self) -> &str;

    /// Partitions that became ours since the last call.
    ///
    /// # Errors
    /// The source cannot be reached or refuses us; it is asked again later.
    fn discover(&mut self) -> Result<Vec<Found>, SourceError>;

    /// Reads a partition from a mark on; `None`: the lake has nothing of it.
    fn start(&mut self, partition: &Arc<str>, from: Option<Mark>);

    /// The next bounded part; `None`: nothing is there now.
    ///
    /// # Errors
    /// What the person on duty should know; the next call goes on with what can be read.
    fn next_part(&mut self, limits: BatchLimits) -> Result<Option<Part>, SourceError>;

    /// Bronze has committed everything of a partition before `to`: it may be acknowledged.
    fn committed(&mut self, partition: &Arc<str>, to: &Mark);

    /// Partitions that were taken from us since the last call: parts of them that are not committed yet
    /// must be thrown away, whoever has the partition now reads them again.
    fn take_lost(&mut self) -> Vec<Arc<str>>;

    /// Tells how far a partition has been read in event time, ms: what is furthest behind is read next,
    /// where the source has that choice.
    fn advance(&mut self, _partition: &str, _read_to_ms: i64) {}

    /// Records come as they happen, as opposed to files that lie there.
    fn is_live(&self) -> bool {
        true
    }

    fn lag(&self) -> Lag;

    /// Bytes done and bytes in all, where the source knows its end.
    fn progress_bytes(&self) -> Option<(u64, u64)> {
        None
    }

    /// Leaves in order: nothing is read any more, what was committed is acknowledged.
    fn stop(&mut self);
}

/// Why a source gives nothing: what, where, what to do, without addresses of clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("source `{source_name}`: {what}; {advice}")]
pub struct SourceError {
    pub source_name: String,
    pub what: String,
    pub advice: String,
}

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
    /// What finding `to` again needs besides the number.
    pub token: Option<Arc<str>>,
    /// Nothing more is known to come.
    pub finished: bool,
}

/// One record: its place in the partition and in the part's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    pub offset: i64,
    pub start: usize,
    pub end: usize,
    /// What came beside the record, as a JSON object in the part's buffer (start, end): a message's key,
    /// headers and time. Empty: nothing did.
    pub attributes: (usize, usize),
    /// Longer than a record may be; its bytes were skipped and only its length is known.
    pub oversized_bytes: Option<i64>,
}
