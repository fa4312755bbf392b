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
use crate::event::{CdnRequest, PlayerEvent, Reject, RejectReason};
use crate::privacy::Privacy;
use crate::source::{BatchLimits, Found, Line, Mark, Part, Source, SourceError};

/// The sources with everything that turns their bytes into rows.
pub struct Intake {
    sources: Vec<Box<dyn Source>>,
    /// The source that is asked first for the next part: each in turn.
    turn: usize,
    limits: BatchLimits,
    enricher: Arc<Enricher>,
    privacy: Arc<Privacy>,
    clock: Arc<dyn Clock>,
    decoders: HashMap<Arc<str>, Decoder>,
    /// By source: the layout that the settings give its records.
    fields: Vec<Option<String>>,
    complaints: Vec<SourceError>,
}

/// A partition that waits for its position, and the source that found it.
#[derive(Debug)]
pub struct NewPartition {
    pub source: usize,
    pub partition: Arc<str>,
    /// Event time of its first record, where that is known.
    pub first_event_ms: Option<i64>,
    /// Records come as they happen, as opposed to a file that lies there.
    pub is_live: bool,
}

/// One epoch's worth of rows, not yet compared with what the lake holds.
#[derive(Default)]
pub struct Batch {
    pub players: Vec<PlayerRow>,
    /// What players said in requests that are among `requests`: no records of their own, and counted as none.
    pub reports: Vec<PlayerRow>,
    pub requests: Vec<RequestRow>,
    pub rejects: Vec<RejectRow>,
    pub positions: Vec<Position>,
    /// Bounded by the limits and not by what there was: more waits. So it is taken to do behind half as much:
    /// a broker gives what its queue holds, which may be a little less than a batch.
    pub is_full: bool,
}

/// How far a partition has been read by a batch.
#[derive(Debug, Clone)]
pub struct Position {
    /// Index of the source among the daemon's.
    pub source: usize,
    pub partition: Arc<str>,
    pub kind: Kind,
    pub from: i64,
    pub to: i64,
    /// What finding `to` again needs besides the number.
    pub token: Option<Arc<str>>,
    pub received: u64,
    /// Newest event time among the records, ms.
    pub newest_ms: Option<i64>,
    pub finished: bool,
}

impl Position {
    pub fn mark(&self) -> Mark {
        Mark {
            offset: self.to,
            token: self.token.clone(),
        }
    }
}

impl Intake {
    pub fn new(
        sources: Vec<Box<dyn Source>>,
        fields: Vec<Option<String>>,
        limits: BatchLimits,
        enricher: Arc<Enricher>,
        privacy: Arc<Privacy>,
        clock: Arc<dyn Clock>,
    ) -> Intake {
        Intake {
            sources,
            turn: 0,
            limits,
            enricher,
            privacy,
            clock,
            decoders: HashMap::new(),
            fields,
            complaints: Vec::new(),
        }
    }

    pub fn sources(&self) -> &[Box<dyn Source>] {
        &self.sources
    }

    /// Partitions that are newly ours, of all sources.
    pub fn discover(&mut self) -> Vec<NewPartition> {
        let mut new = Vec::new();
        for source in 0..self.sources.len() {
            match self.sources[source].discover() {
                Ok(found) => new.extend(found.into_iter().map(|found| NewPartition {
                    source,
                    first_event_ms: self.first_event_ms(source, &found),
                    is_live: self.sources[source].is_live(),
                    partition: found.partition,
                })),
                Err(complaint) => self.complaints.push(complaint),
            }
        }
        new
    }

    /// Event time of a partition's first record, to put partitions in order.
    fn first_event_ms(&self, source: usize, found: &Found) -> Option<i64> {
        let context = DecodeContext {
            now_ms: self.clock.now_ms(),
        };
        match self
            .decoder_for(source, found.format?, &found.header)
            .decode(&found.first_line, &context)
            .ok()?
        {
            Decoded::Player(event) => Some(event.event_ts_ms),
            Decoded::Cdn(request) => Some(request.event_ts_ms),
            Decoded::Spooled(Unspooled::Event { event, .. }) => Some(event.event_ts_ms),
            Decoded::Spooled(Unspooled::Refused(_)) | Decoded::Nothing => None,
        }
    }

    /// Reads a new partition from a mark on; `None`: from its start.
    pub fn start(&mut self, new: &NewPartition, from: Option<Mark>) {
        let source = &mut self.sources[new.source];
        source.start(&new.partition, from);
        if let Some(first_event_ms) = new.first_event_ms {
            source.advance(&new.partition, first_event_ms);
        }
    }

    /// Bronze has committed a partition up to a mark.
    pub fn committed(&mut self, source: usize, partition: &Arc<str>, to: &Mark) {
        self.sources[source].committed(partition, to);
    }

    /// Partitions that are not ours any more.
    pub fn take_lost(&mut self) -> Vec<Arc<str>> {
        let lost: Vec<Arc<str>> = self.sources.iter_mut().flat_map(|source| source.take_lost()).collect();
        for partition in &lost {
            self.decoders.remove(partition);
        }
        lost
    }

    pub fn stop(&mut self) {
        for source in &mut self.sources {
            source.stop();
        }
    }

    /// The next batch, taken from each source in turn; `None` if there is nothing to read now.
    pub fn next_batch(&mut self) -> Option<Batch> {
        let context = DecodeContext {
            now_ms: self.clock.now_ms(),
        };
        let mut batch = Batch::default();
        let (mut bytes, mut records) = (0, 0);
        let mut drained = 0;
        while bytes < self.limits.bytes && records < self.limits.records && drained < self.sources.len() {
            let source = self.turn;
            let part = match self.sources[source].next_part(self.limits) {
                Ok(Some(part)) => part,
                nothing => {
                    // What is wrong with one source is no reason not to read the others.
                    self.complaints.extend(nothing.err());
                    drained += 1;
                    self.turn = (self.turn + 1) % self.sources.len();
                    continue;
                }
            };
            drained = 0;
            self.turn = (self.turn + 1) % self.sources.len();
            bytes += part.buffer.len();
            records += part.lines.len();
            let newest_ms = self.decode_part(source, &part, &context, &mut batch);
            if let Some(newest_ms) = newest_ms {
                self.sources[source].advance(&part.partition, newest_ms);
            }
        }
        let is_half = bytes >= self.limits.bytes / 2 || records >= self.limits.records / 2;
        batch.is_full = drained < self.sources.len() || is_half;
        batch.merge_positions();
        (!batch.positions.is_empty()).then_some(batch)
    }

    /// What went wrong with sources since the last call.
    pub fn take_complaints(&mut self) -> Vec<SourceError> {
        std::mem::take(&mut self.complaints)
    }

    /// Returns the newest event time of the part.
    fn decode_part(&mut self, source: usize, part: &Part, context: &DecodeContext, batch: &mut Batch) -> Option<i64> {
        let format = part.format.or_else(|| detect(&part.buffer));
        let mut position = Position {
            source,
            partition: Arc::clone(&part.partition),
            kind: format.map_or(Kind::Player, Format::table),
            from: part.from,
            to: part.to,
            token: part.token.clone(),
            received: 0,
            newest_ms: None,
            finished: part.finished,
        };
        let mut decoder = format.map(|format| {
            let known = self.decoders.remove(&part.partition);
            known.unwrap_or_else(|| self.decoder_for(source, format, &part.header))
        });
        for line in &part.lines {
            let bytes = &part.buffer[line.start..line.end];
            let place = Provenance {
                source_partition: Arc::clone(&part.partition),
                source_offset: line.offset,
                attributes: self.attributes(&part.buffer[line.attributes.0..line.attributes.1]),
                received_at_ms: context.now_ms,
                format: format.map_or(NO_FORMAT, Format::as_str),
            };
            let decoded = match is_tombstone(part, line) {
                true => Err(tombstone()),
                false => decode_line(decoder.as_mut(), line, bytes, context),
            };
            match decoded {
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
                Ok(Decoded::Cdn(request)) => self.take_request(request, place, &mut position, batch),
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

    fn attributes(&self, text: &[u8]) -> Option<Arc<str>> {
        let has_some = !text.is_empty();
        has_some.then(|| self.privacy.anonymise_attributes(text))?.map(Arc::from)
    }

    fn take_request(&self, mut request: Box<CdnRequest>, place: Provenance, position: &mut Position, batch: &mut Batch) {
        position.newest_ms = position.newest_ms.max(Some(request.event_ts_ms));
        self.enricher.enrich_request(&mut request);
        if let Some(mut event) = request.player_event.take() {
            // The request knows more of its proxies.
            event.network.clone_from(&request.network);
            self.enricher.enrich_event(&mut event);
            let place = Provenance {
                format: Format::CmcdLog.as_str(),
                ..place.clone()
            };
            let event = self.privacy.anonymise(event);
            batch.reports.push(PlayerRow { event, place });
        }
        batch.requests.push(RequestRow {
            request: self.privacy.anonymise_request(request),
            place,
        });
    }

    fn decoder_for(&self, source: usize, format: Format, header: &[u8]) -> Decoder {
        let fields = self.fields.get(source).and_then(Option::as_deref);
        let mut decoder = Decoder::with_fields(format, fields);
        let context = DecodeContext { now_ms: i64::MAX };
        for line in header.split(|byte| *byte == b'\n') {
            // Header lines bind columns and are no records; a broken one shows on the records below it.
            let _ = decoder.decode(line, &context);
        }
        decoder
    }

    fn take_event(&self, mut event: Box<PlayerEvent>, place: Provenance, position: &mut Position, batch: &mut Batch) {
        position.newest_ms = position.newest_ms.max(Some(event.event_ts_ms));
        self.enricher.enrich_event(&mut event);
        batch.players.push(PlayerRow {
            event: self.privacy.anonymise(event),
            place,
        });
    }
}

impl Batch {
    /// Forgets what was read of a partition: whoever has it now reads it again.
    pub fn throw_away(&mut self, lost: &[Arc<str>]) {
        if lost.is_empty() {
            return;
        }
        let is_ours = |partition: &Arc<str>| !lost.contains(partition);
        self.players.retain(|row| is_ours(&row.place.source_partition));
        self.reports.retain(|row| is_ours(&row.place.source_partition));
        self.requests.retain(|row| is_ours(&row.place.source_partition));
        self.rejects.retain(|row| is_ours(&row.place.source_partition));
        self.positions.retain(|position| is_ours(&position.partition));
    }

    /// One position a partition: parts of a file that alternate with others become one span.
    fn merge_positions(&mut self) {
        let mut merged: Vec<Position> = Vec::with_capacity(self.positions.len());
        for position in std::mem::take(&mut self.positions) {
            match merged.iter_mut().find(|known| known.partition == position.partition) {
                Some(known) => {
                    known.to = position.to;
                    known.token = position.token;
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

/// A source marks a message without a value so; a blank line is no record at all.
fn is_tombstone(part: &Part, line: &Line) -> bool {
    let (start, end) = line.attributes;
    line.start == line.end && line.oversized_bytes.is_none() && part.buffer[start..end].starts_with(b"{\"tombstone\":true")
}

fn tombstone() -> Reject {
    Reject {
        reason: RejectReason::Tombstone,
        detail: "the message has no value; a compacted topic deletes a key so, and there is nothing to store".to_string(),
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
