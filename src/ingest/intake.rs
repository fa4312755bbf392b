//! Intake: raw bytes to anonymised rows; the synchronous half of an epoch.
//!
//! Runs on a thread of its own while the epoch before it is being committed. Reads a bounded batch
//! from the source, decodes, enriches and anonymises it.
//!
//! Invariant: no record is dropped: each one leaves as a row, as a reject, or is no record at all
//! (a blank line, a comment).

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Clock;
use crate::enrich::Enricher;
use crate::event::decode::spooled::{NO_FORMAT, Unspooled};
use crate::event::decode::{DecodeContext, Decoded, Decoder, Format, Kind, detect};
use crate::event::schema::{PlayerRow, Provenance, RejectRow, RequestRow};
use crate::event::{PlayerEvent, Reject, RejectReason};
use crate::privacy::Privacy;
use crate::source::files::{Discovered, FileSource, FilesError};
use crate::source::{BatchLimits, Line, Part};

/// A source with everything that turns its bytes into rows.
pub struct Intake {
    pub source: FileSource,
    limits: BatchLimits,
    enricher: Arc<Enricher>,
    privacy: Arc<Privacy>,
    clock: Arc<dyn Clock>,
    decoders: HashMap<Arc<str>, Decoder>,
    unreadable: Vec<FilesError>,
}

/// One epoch's worth of rows, not yet compared with what the lake holds.
#[derive(Default)]
pub struct Batch {
    pub players: Vec<PlayerRow>,
    pub requests: Vec<RequestRow>,
    pub rejects: Vec<RejectRow>,
    pub positions: Vec<Position>,
}

/// How far a partition has been read by a batch.
#[derive(Debug, Clone)]
pub struct Position {
    pub partition: Arc<str>,
    pub kind: Kind,
    pub from: i64,
    pub to: i64,
    pub received: u64,
    /// Newest event time among the records, ms.
    pub newest_ms: Option<i64>,
    pub finished: bool,
}

impl Intake {
    pub fn new(source: FileSource, limits: BatchLimits, enricher: Arc<Enricher>, privacy: Arc<Privacy>, clock: Arc<dyn Clock>) -> Intake {
        Intake {
            source,
            limits,
            enricher,
            privacy,
            clock,
            decoders: HashMap::new(),
            unreadable: Vec::new(),
        }
    }

    /// Event time of a file's first record, to put files in order.
    pub fn first_event_ms(&self, found: &Discovered) -> Option<i64> {
        let context = DecodeContext {
            now_ms: self.clock.now_ms(),
        };
        match decoder_for(found.format?, &found.header).decode(&found.first_line, &context).ok()? {
            Decoded::Player(event) => Some(event.event_ts_ms),
            Decoded::Cdn(request) => Some(request.event_ts_ms),
            Decoded::Spooled(Unspooled::Event { event, .. }) => Some(event.event_ts_ms),
            Decoded::Spooled(Unspooled::Refused(_)) | Decoded::Nothing => None,
        }
    }

    /// The next batch; `None` if there is nothing to read now.
    ///
    /// # Errors
    /// A file that cannot be read; the next call goes on with the others.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, FilesError> {
        let context = DecodeContext {
            now_ms: self.clock.now_ms(),
        };
        let mut batch = Batch::default();
        let (mut bytes, mut records) = (0, 0);
        while bytes < self.limits.bytes && records < self.limits.records {
            let part = match self.source.next_part(self.limits) {
                Ok(Some(part)) => part,
                Ok(None) => break,
                Err(error) if batch.positions.is_empty() => return Err(error),
                Err(error) => {
                    self.unreadable.push(error);
                    break;
                }
            };
            bytes += part.buffer.len();
            records += part.lines.len();
            let newest_ms = self.decode_part(&part, &context, &mut batch);
            if let Some(newest_ms) = newest_ms {
                self.source.advance(&part.partition, newest_ms);
            }
        }
        batch.merge_positions();
        Ok((!batch.positions.is_empty()).then_some(batch))
    }

    /// Files that turned out unreadable in the middle of a batch, since the last call.
    pub fn take_unreadable(&mut self) -> Vec<FilesError> {
        std::mem::take(&mut self.unreadable)
    }

    /// Returns the newest event time of the part.
    fn decode_part(&mut self, part: &Part, context: &DecodeContext, batch: &mut Batch) -> Option<i64> {
        let format = part.format.or_else(|| detect(&part.buffer));
        let mut position = Position {
            partition: Arc::clone(&part.partition),
            kind: format.map_or(Kind::Player, Format::table),
            from: part.from,
            to: part.to,
            received: 0,
            newest_ms: None,
            finished: part.finished,
        };
        let mut decoder = format.map(|format| {
            self.decoders
                .remove(&part.partition)
                .unwrap_or_else(|| decoder_for(format, &part.header))
        });
        for line in &part.lines {
            let bytes = &part.buffer[line.start..line.end];
            let place = Provenance {
                source_partition: Arc::clone(&part.partition),
                source_offset: line.offset,
                received_at_ms: context.now_ms,
                format: format.map_or(NO_FORMAT, Format::as_str),
            };
            match decode_line(decoder.as_mut(), line, bytes, context) {
                Ok(Decoded::Nothing) => continue,
                Ok(Decoded::Player(event)) => self.take_event(event, place, &mut position, batch),
                Ok(Decoded::Spooled(Unspooled::Event {
                    event,
                    format,
                    received_at_ms,
                })) => {
                    let place = Provenance {
                        received_at_ms,
                        format: format.as_str(),
                        ..place
                    };
                    self.take_event(event, place, &mut position, batch);
                }
                Ok(Decoded::Cdn(mut request)) => {
                    position.newest_ms = position.newest_ms.max(Some(request.event_ts_ms));
                    self.enricher.enrich_request(&mut request);
                    batch.requests.push(RequestRow {
                        request: self.privacy.anonymise_request(*request),
                        place,
                    });
                }
                Ok(Decoded::Spooled(Unspooled::Refused(refused))) => batch.rejects.push(RejectRow {
                    reject: refused.reject,
                    place: Provenance {
                        received_at_ms: refused.received_at_ms,
                        format: refused.format.map_or(NO_FORMAT, Format::as_str),
                        ..place
                    },
                    size_bytes: refused.size_bytes,
                }),
                Err(reject) => {
                    let size_bytes = line.oversized_bytes.unwrap_or(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
                    batch.rejects.push(RejectRow { reject, place, size_bytes });
                }
            }
            position.received += 1;
        }
        if let Some(decoder) = decoder.filter(|_| !part.finished) {
            self.decoders.insert(Arc::clone(&part.partition), decoder);
        }
        let newest_ms = position.newest_ms;
        batch.positions.push(position);
        newest_ms
    }

    fn take_event(&self, mut event: Box<PlayerEvent>, place: Provenance, position: &mut Position, batch: &mut Batch) {
        position.newest_ms = position.newest_ms.max(Some(event.event_ts_ms));
        self.enricher.enrich_event(&mut event);
        batch.players.push(PlayerRow {
            event: self.privacy.anonymise(*event),
            place,
        });
    }
}

impl Batch {
    /// One position a partition: parts of a file that alternate with others become one span.
    fn merge_positions(&mut self) {
        let mut merged: Vec<Position> = Vec::with_capacity(self.positions.len());
        for position in std::mem::take(&mut self.positions) {
            match merged.iter_mut().find(|known| known.partition == position.partition) {
                Some(known) => {
                    known.to = position.to;
                    known.received += position.received;
                    known.newest_ms = known.newest_ms.max(position.newest_ms);
                    known.finished = position.finished;
                }
                None => merged.push(position),
            }
        }
        self.positions = merged;
    }
}

fn decode_line(decoder: Option<&mut Decoder>, line: &Line, bytes: &[u8], context: &DecodeContext) -> Result<Decoded, Reject> {
    if let Some(size) = line.oversized_bytes {
        return Err(Reject {
            reason: RejectReason::TooLarge,
            detail: format!(
                "the record has {size} bytes; the most is {}",
                crate::event::decode::RECORD_BYTES_MAX
            ),
        });
    }
    match decoder {
        Some(decoder) => decoder.decode(bytes, context),
        None if bytes.trim_ascii().is_empty() => Ok(Decoded::Nothing),
        None => Err(Reject {
            reason: RejectReason::UnknownFormat,
            detail: "no decoder knows the first lines of this file; set `format` for its source".to_string(),
        }),
    }
}

fn decoder_for(format: Format, header: &[u8]) -> Decoder {
    let mut decoder = Decoder::new(format);
    let context = DecodeContext { now_ms: i64::MAX };
    for line in header.split(|byte| *byte == b'\n') {
        // Header lines bind columns and are no records; a broken one shows on the records below it.
        let _ = decoder.decode(line, &context);
    }
    decoder
}
