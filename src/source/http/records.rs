//! A body's bytes to lines of the spool: split, decode, enrich, anonymise, tell the clock's error.
//!
//! Stands between `body` and the spool, on a thread where it may take its time. The last place that
//! sees a full client address: what leaves here is text that may be stored.
//!
//! Invariant: every record of a body becomes exactly one line, of an event or of a refusal.
//! Invariant: no line is longer than the files source takes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::body::{BodyError, Hold};
use super::clock_skew::ClockSkew;
use crate::enrich::Enricher;
use crate::event::decode::spooled::{Refused, Spooled};
use crate::event::decode::{DecodeContext, Decoded, Decoder, Format, RECORD_BYTES_MAX, body, detect_record};
use crate::event::{Reject, RejectReason};
use crate::privacy::Privacy;

/// Longest user agent that is kept: as long as the longest text of a record.
const USER_AGENT_CHARS_MAX: usize = 512;

/// The flag of an event without a time of its own: it has the receiver's.
const RECEIVE_TIME: &str = "receive_time";

/// What a body is made of, by its content type and its route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// CMCD records, one a line (CTA-5004-B, batches).
    CmcdLines,
    /// CMCD keys as members of JSON objects (the JSON mode of version 1).
    CmcdJson,
    /// Records of any dialect, in any of the wrappings that `event::decode::body` knows.
    AnyDialect,
}

/// Where a body came from.
#[derive(Debug, Clone)]
pub struct Sender {
    pub address: IpAddr,
    pub user_agent: Option<String>,
    pub received_at_ms: i64,
}

/// How much one body may hold.
#[derive(Debug, Clone, Copy)]
pub struct RecordLimits {
    pub records_max: usize,
    pub record_bytes_max: usize,
}

/// What a body came to.
#[derive(Debug, Default)]
pub struct Taken {
    pub received: usize,
    pub refusals: Vec<Refusal>,
    /// One for each record, in the order of the body.
    pub lines: Vec<String>,
}

/// A record that was refused, for the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its place in the body, from 0.
    pub index: usize,
    pub reject: Reject,
}

/// Why no record of a body was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordsError {
    TooMany { records_max: usize },
    NoMemory,
}

/// All that a record is treated with; one for all requests.
#[derive(Debug)]
pub struct Treatment {
    pub enricher: Arc<Enricher>,
    pub privacy: Arc<Privacy>,
    pub limits: RecordLimits,
    /// `None`: every clock is believed.
    pub clock_skew: Option<Mutex<ClockSkew>>,
}

impl Treatment {
    /// # Errors
    /// More records than a body may hold, or no memory for them.
    pub fn take(&self, bytes: &[u8], kind: BodyKind, sender: &Sender, hold: &mut Hold) -> Result<Taken, RecordsError> {
        let too_many = RecordsError::TooMany {
            records_max: self.limits.records_max,
        };
        let Ok(pieces) = split(bytes, kind) else {
            return Err(too_many);
        };
        if pieces.len() > self.limits.records_max {
            return Err(too_many);
        }
        let mut records = Vec::with_capacity(pieces.len());
        for piece in pieces {
            // An event holds its payload again and some hundred fields; its line as much again.
            let needed = 2 * (size_of::<Spooled>() + piece.as_ref().map_or(0, |piece| piece.len()));
            hold.grow(needed).map_err(|_: BodyError| RecordsError::NoMemory)?;
            records.extend(self.record(piece, kind, sender).transpose());
        }
        self.correct_clocks(&mut records, sender.received_at_ms);
        Ok(taken(records))
    }

    /// `Ok(None)`: no record after all.
    fn record(&self, piece: Piece<'_>, kind: BodyKind, sender: &Sender) -> Result<Option<Spooled>, Refused> {
        let size_bytes = piece.as_ref().map_or(0, |piece| i64::try_from(piece.len()).unwrap_or(i64::MAX));
        let refused = |format: Option<Format>, reject: Reject| Refused {
            format,
            reject,
            received_at_ms: sender.received_at_ms,
            size_bytes,
        };
        let piece = piece.map_err(|reject| refused(None, reject))?;
        if piece.len() > self.limits.record_bytes_max {
            return Err(refused(None, too_large(piece.len(), self.limits.record_bytes_max)));
        }
        let piece: &[u8] = &piece;
        let format = match kind {
            BodyKind::CmcdLines | BodyKind::CmcdJson => Format::Cmcd,
            BodyKind::AnyDialect => detect_record(piece).ok_or_else(|| refused(None, unknown_dialect()))?,
        };
        let context = DecodeContext {
            now_ms: sender.received_at_ms,
        };
        match Decoder::new(format).decode(piece, &context) {
            Ok(Decoded::Player(event)) => Ok(Some(self.spooled(*event, format, sender))),
            Ok(Decoded::Nothing) => Ok(None),
            Ok(_) => Err(refused(Some(format), not_a_player_event())),
            Err(reject) => Err(refused(Some(format), reject)),
        }
    }

    fn spooled(&self, mut event: crate::event::PlayerEvent, format: Format, sender: &Sender) -> Spooled {
        // A forwarder names its viewers' addresses in their records; its own is of no interest then.
        event.client_address.get_or_insert_with(|| sender.address.to_string());
        let has_user_agent_of_request = event.user_agent.is_none();
        if has_user_agent_of_request {
            event.user_agent.clone_from(&sender.user_agent);
        }
        self.enricher.enrich_event(&mut event);
        Spooled {
            format,
            event: self.privacy.anonymise(event),
            received_at_ms: sender.received_at_ms,
            shift_ms: 0,
            has_user_agent_of_request,
        }
    }

    /// Sets `shift_ms` of every event whose session's clock is wrong.
    fn correct_clocks(&self, records: &mut [Result<Spooled, Refused>], received_at_ms: i64) {
        let Some(clock_skew) = &self.clock_skew else { return };
        let mut newest_ms: HashMap<&str, i64> = HashMap::new();
        for spooled in records.iter().flatten().filter(|spooled| has_clock(spooled)) {
            let newest = newest_ms.entry(&spooled.event.session_key).or_insert(i64::MIN);
            *newest = spooled.event.event_ts_ms.max(*newest);
        }
        let mut clock_skew = clock_skew.lock().unwrap_or_else(PoisonError::into_inner);
        let shifts: HashMap<String, i64> = newest_ms
            .into_iter()
            .map(|(session, newest_ms)| (session.to_owned(), clock_skew.shift_ms(session, received_at_ms, newest_ms)))
            .filter(|(_, shift_ms)| *shift_ms != 0)
            .collect();
        drop(clock_skew);
        for spooled in records.iter_mut().flatten().filter(|spooled| has_clock(spooled)) {
            spooled.shift_ms = shifts.get(&spooled.event.session_key).copied().unwrap_or(0);
        }
    }
}

/// Its time is the sender's, and it names a session that the clock can be told of.
fn has_clock(spooled: &Spooled) -> bool {
    !spooled.event.unattributed && !spooled.event.dq_flags.contains(&RECEIVE_TIME)
}

/// A record of a body, or why it is none.
type Piece<'a> = Result<Cow<'a, [u8]>, Reject>;

/// The records of a body, without the blank lines between them.
///
/// # Errors
/// So many that they were not even counted.
fn split(bytes: &[u8], kind: BodyKind) -> Result<Vec<Piece<'_>>, Reject> {
    let is_json = matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['));
    if kind == BodyKind::CmcdLines || !is_json {
        return Ok(lines(bytes).map(|line| Ok(Cow::Borrowed(line))).collect());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        return json_records(text);
    }
    // A record that is not UTF-8 costs itself, not the lines beside it.
    let mut pieces = Vec::new();
    for line in lines(bytes) {
        match std::str::from_utf8(line) {
            Ok(text) => pieces.extend(json_records(text)?),
            Err(error) => pieces.push(Err(Reject {
                reason: RejectReason::NotUtf8,
                detail: format!("not UTF-8 at byte {}", error.valid_up_to()),
            })),
        }
    }
    Ok(pieces)
}

fn json_records(text: &str) -> Result<Vec<Piece<'_>>, Reject> {
    Ok(body::records(text)?.into_iter().map(|record| record.map(bytes_of)).collect())
}

fn bytes_of(record: Cow<'_, str>) -> Cow<'_, [u8]> {
    match record {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
}

fn taken(records: Vec<Result<Spooled, Refused>>) -> Taken {
    let mut taken = Taken {
        received: records.len(),
        ..Taken::default()
    };
    for (index, record) in records.into_iter().enumerate() {
        let line = match record.and_then(line_of) {
            Ok(line) => line,
            Err(refused) => {
                let line = refused.to_line();
                taken.refusals.push(Refusal {
                    index,
                    reject: refused.reject,
                });
                line
            }
        };
        taken.lines.push(line);
    }
    taken
}

/// A pseudonym is longer than the id it stands for, and a JSON text longer than what it says.
fn line_of(spooled: Spooled) -> Result<String, Refused> {
    let line = spooled.to_line();
    if line.len() <= RECORD_BYTES_MAX {
        return Ok(line);
    }
    Err(Refused {
        format: Some(spooled.format),
        reject: too_large(line.len(), RECORD_BYTES_MAX),
        received_at_ms: spooled.received_at_ms,
        size_bytes: i64::try_from(spooled.event.payload.len()).unwrap_or(i64::MAX),
    })
}

/// The user agent of a request, within its bound; `None` if it says nothing.
pub fn user_agent(header: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(header);
    let text: String = text.trim().chars().take(USER_AGENT_CHARS_MAX).collect();
    (!text.is_empty()).then_some(text)
}

fn too_large(bytes: usize, bytes_max: usize) -> Reject {
    Reject {
        reason: RejectReason::TooLarge,
        detail: format!("{bytes} bytes long, at most {bytes_max} are accepted over HTTP"),
    }
}

fn unknown_dialect() -> Reject {
    Reject {
        reason: RejectReason::UnknownFormat,
        detail: "no dialect has such a record; send CMCD, IVS, EPAS or reference player events".to_owned(),
    }
}

fn not_a_player_event() -> Reject {
    Reject {
        reason: RejectReason::UnknownFormat,
        detail: "a CDN log is no player event; give it to a files source".to_owned(),
    }
}
