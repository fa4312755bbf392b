//! One object from its head to its last record: what it is, and a worker that unpacks and splits it.
//!
//! Serves the objects source. A task fetches ranges, a blocking thread unpacks and splits them, and the
//! source takes finished parts without waiting: bounded queues between the three.
//!
//! Invariant: an open object holds at most two ranges and two parts; a worker whose parts nobody takes
//! stands still without a connection.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::fetch::{self, Chunks, FetchError, Object, Patience, fetch_error_in};
use super::parquet::RowReader;
use super::store::Bucket;
use crate::event::decode::{Format, detect};
use crate::source::lines::{Codec, HEAD_BYTES, LastLine, LineReader, first_record, skip, split_header};
use crate::source::{BatchLimits, Part};

/// How much of an object is fetched to tell what it is: more than one packed block of zstd (128 KiB).
pub const PEEK_BYTES: u64 = 192 << 10;
/// Parts that wait for the source, beside the one that the worker is filling.
const PARTS_AHEAD: usize = 1;
/// The first bytes of a Parquet file.
const PARQUET_MAGIC: &[u8] = b"PAR1";

/// How an object's records are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Lines(Codec),
    /// Parquet: each row becomes a line of JSON.
    Rows,
}

/// An object that was looked into.
#[derive(Debug, Clone)]
pub struct Item {
    pub object: Object,
    pub packing: Packing,
    pub format: Option<Format>,
    pub header: Arc<[u8]>,
    pub first_line: Vec<u8>,
}

impl Item {
    /// Tells from the first bytes of an object what it is. `names_columns`: as `decode::names_columns` says.
    pub fn inspect(object: Object, peeked: &Bytes, format: Option<Format>, names_columns: bool) -> Item {
        if peeked.starts_with(PARQUET_MAGIC) {
            return Item {
                object,
                packing: Packing::Rows,
                format,
                header: Arc::new([]),
                first_line: Vec::new(),
            };
        }
        let codec = Codec::of(peeked);
        let head = unpacked_head(codec, peeked.clone());
        let is_all = peeked.len() as u64 >= object.size_bytes && head.len() < HEAD_BYTES;
        let whole_bytes = match memchr::memrchr(b'\n', &head) {
            Some(end) if !is_all => end + 1,
            _ => head.len(),
        };
        let (header, records) = split_header(&head[..whole_bytes], names_columns);
        Item {
            object,
            packing: Packing::Lines(codec),
            format: format.or_else(|| detect(&head)),
            header: header.into(),
            first_line: first_record(records).unwrap_or_default().to_vec(),
        }
    }

    /// A part that begins where reading stands.
    pub fn empty_part(&self, at: i64) -> Part {
        Part {
            partition: Arc::clone(&self.object.partition),
            format: self.format,
            header: Arc::clone(&self.header),
            buffer: Vec::new(),
            lines: Vec::new(),
            from: at,
            to: at,
            token: Some(self.object.last_modified_ms.to_string().into()),
            finished: false,
        }
    }
}

/// What can be unpacked of the first bytes; where they are cut or damaged, what came before.
fn unpacked_head(codec: Codec, peeked: Bytes) -> Vec<u8> {
    use std::io::Read;
    let mut head = Vec::new();
    if let Ok(reader) = codec.unpack(std::io::Cursor::new(peeked)) {
        // A head that is cut ends in an error, which says nothing of the object; reading it will tell.
        let _ = reader.take(HEAD_BYTES as u64).read_to_end(&mut head);
    }
    head
}

/// Why an object is read no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    Fetch(FetchError),
    Damaged { what: &'static str, why: String },
}

impl ReadError {
    fn of(error: &std::io::Error, what: &'static str) -> ReadError {
        match fetch_error_in(error) {
            Some(fetch) => ReadError::Fetch(fetch.clone()),
            None => ReadError::Damaged {
                what,
                why: error.to_string(),
            },
        }
    }
}

/// Rung by workers, so that the source need not look again and again.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until it rings; `false`: it did not within `at_most`.
    pub fn wait(&self, at_most: Duration) -> bool {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(rung, at_most, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung)
    }
}

/// What a worker needs besides the object.
#[derive(Clone)]
pub struct Workshop {
    pub runtime: Handle,
    pub bucket: Bucket,
    pub patience: Patience,
    pub bell: Arc<Bell>,
    /// The bounds of the next part, as the source was last asked.
    pub limits: Arc<Mutex<BatchLimits>>,
}

/// An object that is being read.
pub struct Opened {
    parts: mpsc::Receiver<Result<Part, ReadError>>,
    ready: Option<Result<Part, ReadError>>,
    /// Since when the next part is waited for.
    waiting_since: Instant,
}

impl Opened {
    /// Begins to read an object from an offset on.
    pub fn open(workshop: &Workshop, item: &Item, offset: i64) -> Opened {
        let (into, parts) = mpsc::channel(PARTS_AHEAD);
        let (workshop, item) = (workshop.clone(), item.clone());
        let runtime = workshop.runtime.clone();
        runtime.spawn_blocking(move || Worker { workshop, item, into }.run(offset));
        Opened {
            parts,
            ready: None,
            waiting_since: Instant::now(),
        }
    }

    pub fn is_ready(&mut self) -> bool {
        if self.ready.is_none() {
            self.ready = match self.parts.try_recv() {
                Ok(part) => Some(part),
                Err(TryRecvError::Empty) => None,
                // A worker says how it ends, unless the bytes made its unpacker panic.
                Err(TryRecvError::Disconnected) => Some(Err(ReadError::Damaged {
                    what: "packed",
                    why: "the unpacker gave up".to_string(),
                })),
            };
        }
        self.ready.is_some()
    }

    pub fn waited(&self) -> Duration {
        self.waiting_since.elapsed()
    }

    pub fn take(&mut self) -> Option<Result<Part, ReadError>> {
        self.waiting_since = Instant::now();
        self.ready.take()
    }
}

/// The blocking side: unpacks, splits, and waits when nobody takes its parts.
struct Worker {
    workshop: Workshop,
    item: Item,
    into: mpsc::Sender<Result<Part, ReadError>>,
}

impl Worker {
    fn run(self, offset: i64) {
        let outcome = match self.item.packing {
            Packing::Lines(codec) => self.split(codec, offset),
            Packing::Rows => self.rows(offset),
        };
        if let Err(error) = outcome {
            self.hand_over(Err(error));
        }
    }

    /// `false`: nobody listens any more.
    fn hand_over(&self, part: Result<Part, ReadError>) -> bool {
        let taken = self.into.blocking_send(part).is_ok();
        self.workshop.bell.ring();
        taken
    }

    fn limits(&self) -> BatchLimits {
        *self.workshop.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn split(&self, codec: Codec, offset: i64) -> Result<(), ReadError> {
        let broken = |error: std::io::Error| ReadError::of(&error, codec.as_str());
        let (chunks_into, chunks) = Chunks::channel();
        // A plain object goes on at the byte; a packed one is unpacked again up to it.
        let (from_byte, skipped) = match codec {
            Codec::Plain => (offset.unsigned_abs(), 0),
            Codec::Gzip | Codec::Zstd => (0, offset.unsigned_abs()),
        };
        let (bucket, object) = (self.workshop.bucket.clone(), self.item.object.clone());
        let fetching = fetch::stream(bucket, object, from_byte, self.workshop.patience, chunks_into);
        self.workshop.runtime.spawn(fetching);
        let mut reader = codec.unpack(chunks).map_err(broken)?;
        skip(&mut reader, skipped).map_err(broken)?;
        let mut lines = LineReader::new(reader);
        self.deliver(offset, |part, limits| lines.read_part(part, limits, LastLine::Ends).map_err(broken))
    }

    fn rows(&self, offset: i64) -> Result<(), ReadError> {
        let broken = |error: std::io::Error| ReadError::of(&error, "parquet");
        let Workshop {
            runtime, bucket, patience, ..
        } = &self.workshop;
        let fetch = |range: std::ops::Range<u64>| {
            let fetched = fetch::fetch_long(bucket, &self.item.object, range, *patience);
            runtime.block_on(fetched).map_err(std::io::Error::other)
        };
        let mut rows = RowReader::open(&fetch, self.item.object.size_bytes, offset).map_err(broken)?;
        self.deliver(offset, |part, limits| rows.read_part(part, limits).map_err(broken))
    }

    fn deliver(&self, offset: i64, mut fill: impl FnMut(&mut Part, BatchLimits) -> Result<(), ReadError>) -> Result<(), ReadError> {
        let mut at = offset;
        loop {
            let mut part = self.item.empty_part(at);
            fill(&mut part, self.limits())?;
            at = part.to;
            let is_last = part.finished;
            if !self.hand_over(Ok(part)) || is_last {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::path::Path;

    fn check(bytes: &[u8], size_bytes: u64, packing: Packing, header: &str, first_line: &str) {
        let object = Object {
            partition: "s3://b/k#1".into(),
            path: Path::from("k"),
            e_tag: None,
            size_bytes,
            last_modified_ms: 5,
        };
        let item = Item::inspect(object, &Bytes::copy_from_slice(bytes), None, false);
        assert_eq!(item.packing, packing);
        assert_eq!(String::from_utf8_lossy(&item.header), header);
        assert_eq!(String::from_utf8_lossy(&item.first_line), first_line);
        assert_eq!(item.empty_part(7).token.as_deref(), Some("5"));
    }

    #[test]
    fn a_head_tells_packing_columns_and_first_record() {
        let log = "#Version: 1.0\n#Fields: date time\n2026-11-21\t10:00:00\n2026";
        let header = "#Version: 1.0\n#Fields: date time\n";
        let first = "2026-11-21\t10:00:00";
        let size = log.len() as u64;
        check(log.as_bytes(), size, Packing::Lines(Codec::Plain), header, first);
        let packed = zstd::encode_all(log.as_bytes(), 1).expect("in memory");
        check(&packed, packed.len() as u64, Packing::Lines(Codec::Zstd), header, first);
        check(b"{\"a\":1}", 7, Packing::Lines(Codec::Plain), "", "{\"a\":1}");
        check(b"PAR1....", 8, Packing::Rows, "", "");
        check(b"", 0, Packing::Lines(Codec::Plain), "", "");
    }

    #[test]
    fn a_head_that_is_cut_or_damaged_says_what_it_can() {
        check(b"{\"a\":1}\n{\"b", 900, Packing::Lines(Codec::Plain), "", "{\"a\":1}");
        check(b"\x1f\x8bnonsense", 10, Packing::Lines(Codec::Gzip), "", "");
    }

    #[test]
    fn a_bell_that_was_rung_before_is_heard() {
        let bell = Bell::default();
        assert!(!bell.wait(Duration::from_millis(1)));
        bell.ring();
        assert!(bell.wait(Duration::from_secs(5)));
        assert!(!bell.wait(Duration::ZERO));
    }
}
