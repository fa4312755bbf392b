//! Snapshots: the engine as bytes, and back, so that a start need not read two days of the lake.
//!
//! Stands beside `Sessions`, whose keys it packs as `checkpoint` does. The bytes are a line of JSON, for
//! people too, and blocks of keys; each block holds the parts of the segments that it is the first to
//! need. No file and no clock: the caller brings a writer or a reader.
//!
//! Invariant: an engine that was taken up from a snapshot gives the rows that the one it was made of
//! would have given, on however many shards.
//! Invariant: the same state gives the same bytes; damaged or foreign ones give an error, never a part
//! of an engine.

use std::collections::BTreeSet;
use std::io::{BufRead, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::checkpoint::{self, Memory};
use super::parts::{Part, Parts};
use super::shard::Shard;
use super::slots::{SessionKey, Slot, Time};
use super::{KeyedEvent, SessionSettings, Sessions};

/// How lines and blocks are laid out; another number is another layout.
const FORMAT: u32 = 1;
/// Raised whenever the same events give other rows, or a key other bytes: a test watches over both.
const RULES: u32 = 2;
/// What the first line begins with.
const MAGIC: &[u8] = b"playhead-sessions ";
/// Longer first lines are not ours.
const HEAD_MAX_BYTES: u64 = 1 << 20;
/// A block is written once it is so long: all of the snapshot that is in memory at a time.
const BLOCK_BYTES: usize = 256 * 1024;
const CHECKSUM_BYTES: usize = size_of::<u64>();
/// A part that has no place in the snapshot yet.
const UNPLACED: u32 = u32::MAX;

/// Why there is no snapshot, or why it is not taken up.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot of the sessions cannot be read or written")]
    Io(#[from] std::io::Error),
    #[error("the snapshot of the sessions is damaged: {0}")]
    Damaged(&'static str),
    #[error("the snapshot of the sessions is of {found}, this Playhead takes up {expected}")]
    Version { found: String, expected: String },
    #[error("the snapshot of the sessions was made under other settings of the session rules")]
    Settings,
    #[error("the session {0} cannot be packed: it holds a name that event::names lacks")]
    Unpackable(String),
}

/// An engine as it was, and what the caller had noted beside it.
pub struct Restored {
    pub sessions: Sessions,
    pub note: Value,
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    engine: String,
    settings: SessionSettings,
    watermark_ms: Option<i64>,
    evicted_through_ms: Option<i64>,
    events_left_out: u64,
    keys: usize,
    note: Value,
}

/// The part of the first line that every format has.
#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: u32,
}

/// What is known of a key beside its bytes, which follow.
#[derive(Serialize, Deserialize)]
struct Record {
    key: SessionKey,
    newest_ms: Option<i64>,
    /// These three are counted from the newest event, so that they are small.
    due_after_ms: Option<i64>,
    complete_after_ms: Option<i64>,
    settled_after_ms: Option<i64>,
    open_sessions: u32,
    is_packed: bool,
    bytes: u32,
}

impl Record {
    fn new(slot: &Slot, bytes: &[u8]) -> Self {
        let newest_ms = slot.newest_ms.get();
        let after_newest = |time: Time| time.get().map(|ms| ms.wrapping_sub(newest_ms.unwrap_or(0)));
        Self {
            key: slot.key.clone(),
            newest_ms,
            due_after_ms: after_newest(slot.due_ms),
            complete_after_ms: after_newest(slot.complete_from_ms),
            settled_after_ms: after_newest(slot.settled_ms),
            open_sessions: slot.open_sessions,
            is_packed: matches!(slot.memory, Memory::Packed(_)),
            bytes: bytes.len() as u32,
        }
    }

    /// The slot without its memory.
    fn to_slot(&self) -> Slot {
        let time = |after_ms: Option<i64>| after_ms.map(|ms| ms.wrapping_add(self.newest_ms.unwrap_or(0))).into();
        Slot {
            newest_ms: self.newest_ms.into(),
            due_ms: time(self.due_after_ms),
            settled_ms: time(self.settled_after_ms),
            open_sessions: self.open_sessions,
            complete_from_ms: time(self.complete_after_ms),
            ..Slot::new(self.key.clone(), None)
        }
    }
}

impl Sessions {
    /// Writes the engine as it is. `note` comes back with it. Takes 16 bytes of memory for each key, and
    /// the parts that the keys share.
    ///
    /// # Errors
    /// What the writer says, or a session cannot be packed.
    pub fn snapshot(&self, note: &Value, out: &mut impl Write) -> Result<(), SnapshotError> {
        let mut keys: Vec<(&Slot, u32)> = Vec::with_capacity(self.shards.iter().map(|shard| shard.slots().len()).sum());
        for (number, shard) in self.shards.iter().enumerate() {
            keys.extend(shard.slots().iter().map(|slot| (slot, number as u32)));
        }
        keys.sort_unstable_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        let checksum = write_head(&self.head(keys.len(), note), out)?;
        let mut writer = Writer::new(out, checksum, self.shards.len());
        for (slot, shard) in keys {
            writer.key(slot, shard as usize, &self.shards[shard as usize])?;
        }
        writer.finish()
    }

    /// Takes up what `snapshot` wrote, on any number of shards; 0 is taken as 1.
    ///
    /// # Errors
    /// The bytes are damaged, cut off, of another version of the engine or of other settings.
    pub fn restore(mut input: impl BufRead, settings: SessionSettings, shards: usize) -> Result<Restored, SnapshotError> {
        let (head, checksum) = read_head(&mut input)?;
        if head.settings != settings {
            return Err(SnapshotError::Settings);
        }
        let mut sessions = Sessions {
            watermark_ms: head.watermark_ms,
            restored_ms: head.evicted_through_ms,
            ..Sessions::new(settings, shards)
        };
        sessions.shards[0].set_events_left_out(head.events_left_out);
        let mut loader = Loader::new(&mut sessions);
        let mut blocks = Blocks { input, checksum };
        while let Some(block) = blocks.next_block()? {
            loader.block(&block)?;
        }
        if loader.keys != head.keys {
            return Err(SnapshotError::Damaged("keys are missing"));
        }
        Ok(Restored { sessions, note: head.note })
    }

    /// Takes events whose rows the lake already holds, as a start does that goes on from an older snapshot.
    ///
    /// A key with an event that needs a history joins `outdated` and leaves: what the lake has of it by now
    /// would be mistaken for what was known then. The caller names the watermark with `restore_watermark`
    /// when all batches are in, and then loads these keys as a start without a snapshot does.
    pub fn catch_up(&mut self, mut events: Vec<KeyedEvent>, watermark_ms: Option<i64>, outdated: &mut BTreeSet<String>) {
        for session_key in self.missing(&events) {
            let shard = self.shard_of(&session_key);
            self.shards[shard].forget(&session_key);
            outdated.insert(session_key);
        }
        events.retain(|keyed| !outdated.contains(&keyed.session_key));
        drop(self.apply(events, watermark_ms));
    }

    fn head(&self, keys: usize, note: &Value) -> Head {
        Head {
            engine: engine(),
            settings: self.shards[0].settings(),
            watermark_ms: self.watermark_ms,
            evicted_through_ms: self.evicted_through(),
            events_left_out: self.events_left_out(),
            keys,
            note: note.clone(),
        }
    }
}

/// The version of rules and bytes: a snapshot of another one is not taken up.
fn engine() -> String {
    format!("{}/{RULES}/{}", env!("CARGO_PKG_VERSION"), checkpoint::VERSION)
}

/// Returns the checksum, from which that of the first block goes on.
fn write_head(head: &Head, out: &mut impl Write) -> Result<u64, SnapshotError> {
    let (Value::Object(mut fields), Value::Object(head)) = (to_json(&Format { format: FORMAT })?, to_json(head)?) else {
        unreachable!("structures are objects");
    };
    fields.extend(head);
    let mut line = MAGIC.to_vec();
    serde_json::to_writer(&mut line, &fields).map_err(std::io::Error::from)?;
    line.push(b'\n');
    let checksum = xxh3_64(&line);
    out.write_all(&line)?;
    out.write_all(&checksum.to_le_bytes())?;
    Ok(checksum)
}

fn to_json(fields: &impl Serialize) -> Result<Value, SnapshotError> {
    Ok(serde_json::to_value(fields).map_err(std::io::Error::from)?)
}

fn read_head(input: &mut impl BufRead) -> Result<(Head, u64), SnapshotError> {
    let mut line = Vec::new();
    input.take(HEAD_MAX_BYTES).read_until(b'\n', &mut line)?;
    let Some(json) = line.strip_prefix(MAGIC) else {
        return Err(SnapshotError::Damaged("it does not begin as one"));
    };
    let checksum = xxh3_64(&line);
    if read_array(input)? != checksum.to_le_bytes() {
        return Err(SnapshotError::Damaged("its first line has another checksum"));
    }
    let unreadable = |_| SnapshotError::Damaged("its first line cannot be read");
    let Format { format } = serde_json::from_slice(json).map_err(unreadable)?;
    if format != FORMAT {
        return Err(SnapshotError::Version {
            found: format!("format {format}"),
            expected: format!("format {FORMAT}"),
        });
    }
    let fields: Value = serde_json::from_slice(json).map_err(unreadable)?;
    let found = fields["engine"].as_str().unwrap_or_default();
    if found != engine() {
        return Err(SnapshotError::Version {
            found: format!("engine {found}"),
            expected: format!("engine {}", engine()),
        });
    }
    let head = serde_json::from_value(fields).map_err(unreadable)?;
    Ok((head, checksum))
}

/// Puts keys into blocks.
struct Writer<'a, W> {
    out: &'a mut W,
    /// That of what was written last, from which the next goes on: a block can be nowhere else.
    checksum: u64,
    /// The parts of all keys so far.
    parts: Parts,
    parts_written: u32,
    /// By shard: the places here of the parts there.
    places: Vec<Vec<u32>>,
    keys: u32,
    records: Vec<u8>,
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(out: &'a mut W, checksum: u64, shards: usize) -> Self {
        Self {
            out,
            checksum,
            parts: Parts::default(),
            parts_written: 0,
            places: vec![Vec::new(); shards],
            keys: 0,
            records: Vec::new(),
        }
    }

    fn key(&mut self, slot: &Slot, number: usize, shard: &Shard) -> Result<(), SnapshotError> {
        let bytes = match &slot.memory {
            Memory::Packed(place) => {
                let places = &mut self.places[number];
                let parts = &mut self.parts;
                checkpoint::renumber(shard.packed(*place), |place| place_of(place, places, shard.parts(), parts))
            }
            Memory::Open(work) => checkpoint::pack(work, &slot.key.to_text(), &mut self.parts),
            Memory::Empty => None,
        };
        let bytes = bytes.ok_or_else(|| SnapshotError::Unpackable(slot.key.to_text()))?;
        self.records = append(std::mem::take(&mut self.records), &Record::new(slot, &bytes))?;
        self.records.extend_from_slice(&bytes);
        self.keys += 1;
        if self.records.len() >= BLOCK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SnapshotError> {
        let from = self.parts_written;
        let new: Vec<&Part> = (from..).map_while(|place| self.parts.get(place)).map(|part| &**part).collect();
        self.parts_written += new.len() as u32;
        let mut block = append(Vec::new(), &(new, self.keys))?;
        block.append(&mut self.records);
        self.keys = 0;
        self.write(&block)
    }

    fn write(&mut self, block: &[u8]) -> Result<(), SnapshotError> {
        let length = (block.len() as u64).to_le_bytes();
        self.checksum = checksum_of(length, block, self.checksum);
        self.out.write_all(&length)?;
        self.out.write_all(block)?;
        Ok(self.out.write_all(&self.checksum.to_le_bytes())?)
    }

    /// An empty block tells that the snapshot is whole.
    fn finish(mut self) -> Result<(), SnapshotError> {
        if self.keys > 0 {
            self.flush()?;
        }
        self.write(&[])?;
        Ok(self.out.flush()?)
    }
}

/// Where a part of a shard is in the snapshot; places are remembered, since finding one takes a while.
fn place_of(place: u32, places: &mut Vec<u32>, of_shard: &Parts, parts: &mut Parts) -> Option<u32> {
    let at = place as usize;
    if places.len() <= at {
        places.resize(at + 1, UNPLACED);
    }
    if places[at] == UNPLACED {
        places[at] = parts.hold(Arc::clone(of_shard.get(place)?));
    }
    Some(places[at])
}

fn append(bytes: Vec<u8>, fields: &impl Serialize) -> Result<Vec<u8>, SnapshotError> {
    Ok(postcard::to_extend(fields, bytes).map_err(std::io::Error::other)?)
}

fn checksum_of(length: [u8; 8], block: &[u8], before: u64) -> u64 {
    xxh3_64_with_seed(block, before ^ xxh3_64(&length))
}

/// The blocks, one after the other.
struct Blocks<R> {
    input: R,
    checksum: u64,
}

impl<R: BufRead> Blocks<R> {
    /// `None` at the end, behind which nothing may be.
    fn next_block(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        let length: [u8; 8] = read_array(&mut self.input)?;
        let bytes = u64::from_le_bytes(length);
        let mut block = Vec::new();
        // What is not there is given no room, whatever the length says.
        (&mut self.input).take(bytes).read_to_end(&mut block)?;
        if (block.len() as u64) < bytes {
            return Err(SnapshotError::Damaged("it is cut off"));
        }
        self.checksum = checksum_of(length, &block, self.checksum);
        if read_array(&mut self.input)? != self.checksum.to_le_bytes() {
            return Err(SnapshotError::Damaged("a block has another checksum"));
        }
        if !block.is_empty() {
            return Ok(Some(block));
        }
        if !self.input.fill_buf()?.is_empty() {
            return Err(SnapshotError::Damaged("something follows its end"));
        }
        Ok(None)
    }
}

fn read_array(input: &mut impl Read) -> Result<[u8; CHECKSUM_BYTES], SnapshotError> {
    let mut bytes = [0; CHECKSUM_BYTES];
    match input.read_exact(&mut bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(SnapshotError::Damaged("it is cut off")),
        done => Ok(done.map(|()| bytes)?),
    }
}

/// Puts the keys of blocks into an engine.
struct Loader<'a> {
    sessions: &'a mut Sessions,
    parts: Parts,
    newest: Option<SessionKey>,
    keys: usize,
}

impl<'a> Loader<'a> {
    fn new(sessions: &'a mut Sessions) -> Self {
        Self {
            sessions,
            parts: Parts::default(),
            newest: None,
            keys: 0,
        }
    }

    fn block(&mut self, block: &[u8]) -> Result<(), SnapshotError> {
        const UNREADABLE: SnapshotError = SnapshotError::Damaged("a block cannot be read");
        let ((parts, keys), mut rest) = postcard::take_from_bytes::<(Vec<Part>, u32)>(block).map_err(|_| UNREADABLE)?;
        for part in parts {
            self.parts.hold(Arc::new(part));
        }
        for _ in 0..keys {
            let (record, after) = postcard::take_from_bytes::<Record>(rest).map_err(|_| UNREADABLE)?;
            let (bytes, after) = after.split_at_checked(record.bytes as usize).ok_or(UNREADABLE)?;
            rest = after;
            self.key(record, bytes).ok_or(SnapshotError::Damaged("a session cannot be read"))?;
        }
        if rest.is_empty() { Ok(()) } else { Err(UNREADABLE) }
    }

    /// `None` if the key is not one, or not in its place.
    fn key(&mut self, record: Record, bytes: &[u8]) -> Option<()> {
        if self.newest.as_ref() >= Some(&record.key) {
            return None;
        }
        let shard = self.sessions.shard_of(&record.key.to_text());
        self.sessions.shards[shard].take_up(record.to_slot(), bytes, record.is_packed, &self.parts)?;
        self.newest = Some(record.key);
        self.keys += 1;
        Some(())
    }
}
