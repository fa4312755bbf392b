//! A request's body: read in bounded time and memory, and unpacked.
//!
//! Stands between the connection and `records`. Every byte that is held is taken from one budget for
//! all requests together, as it arrives: who announces much and sends nothing holds nothing.
//!
//! Invariant: no more than the limit is kept of any body, whatever it announces or unpacks to.

use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is unpacked between two looks at the limits.
const CHUNK_BYTES: usize = 64 << 10;
/// Largest window of a zstd body, as a power of two: 8 MiB is the format's own advice to decoders
/// (RFC 8878, 3.1.1.1.2), and no more than a body may unpack to.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Of a body that is refused this much is read and thrown away: a client that is still sending when
/// the connection closes would never see the answer.
const DRAIN_BYTES_MAX: usize = 8 << 20;
/// No longer than this either.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Why a body cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    /// Larger than `limit_bytes`, as sent or unpacked.
    TooLarge { limit_bytes: usize, is_unpacked: bool },
    /// The budget of all requests together is used up.
    NoMemory,
    /// It took longer than it may.
    TooSlow,
    /// The client broke off.
    BrokenOff,
    /// It does not unpack.
    Damaged(Encoding),
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// `None`: packed in a way that nobody here unpacks, or more than once.
    pub fn of(headers: &HeaderMap) -> Option<Encoding> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else {
            return Some(Encoding::Identity);
        };
        let name = value.to_str().ok()?.trim().to_ascii_lowercase();
        match (name.as_str(), values.next()) {
            ("" | "identity", None) => Some(Encoding::Identity),
            ("gzip" | "x-gzip", None) => Some(Encoding::Gzip),
            ("zstd", None) => Some(Encoding::Zstd),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Zstd => "zstd",
        }
    }
}

/// What one request holds of the memory that all share; given back when it is dropped.
#[derive(Debug)]
pub struct Hold {
    budget: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Hold {
    pub fn of(budget: &Arc<Semaphore>) -> Hold {
        Hold {
            budget: Arc::clone(budget),
            held: None,
        }
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// `NoMemory`: the others hold too much.
    pub fn grow(&mut self, bytes: usize) -> Result<(), BodyError> {
        let permits = u32::try_from(bytes).map_err(|_| BodyError::NoMemory)?;
        let more = Arc::clone(&self.budget)
            .try_acquire_many_owned(permits)
            .map_err(|_| BodyError::NoMemory)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}

/// The body as sent.
///
/// # Errors
/// See `BodyError`; a body that is refused for its size is read on for a moment.
pub async fn read(mut body: Body, headers: &HeaderMap, limit_bytes: usize, time: Duration, hold: &mut Hold) -> Result<Vec<u8>, BodyError> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let reading = async {
        if announced.is_some_and(|bytes| bytes > limit_bytes as u64) {
            return Err(too_large(limit_bytes));
        }
        read_all(&mut body, limit_bytes, hold).await
    };
    let read = tokio::time::timeout(time, reading).await.unwrap_or(Err(BodyError::TooSlow));
    if matches!(read, Err(BodyError::TooLarge { .. } | BodyError::NoMemory)) {
        // The answer stands whether or not the client has sent all that it wanted to.
        let _ = tokio::time::timeout(DRAIN_TIME, drain(&mut body)).await;
    }
    read
}

fn too_large(limit_bytes: usize) -> BodyError {
    BodyError::TooLarge {
        limit_bytes,
        is_unpacked: false,
    }
}

async fn read_all(body: &mut Body, limit_bytes: usize, hold: &mut Hold) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    while let Some(data) = next_data(body).await {
        let data = data.map_err(|_| BodyError::BrokenOff)?;
        if bytes.len() + data.len() > limit_bytes {
            return Err(too_large(limit_bytes));
        }
        hold.grow(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

async fn drain(body: &mut Body) {
    let mut drained = 0;
    while let Some(Ok(data)) = next_data(body).await {
        drained += data.len();
        if drained > DRAIN_BYTES_MAX {
            return;
        }
    }
}

/// The next bytes; trailers say nothing about records.
async fn next_data(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_trailers)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// The body as it was before it was packed.
///
/// # Errors
/// `TooLarge` as soon as the limit is passed; `Damaged`; `NoMemory`.
pub fn unpack(encoding: Encoding, packed: Vec<u8>, limit_bytes: usize, hold: &mut Hold) -> Result<Vec<u8>, BodyError> {
    let damaged = |_: std::io::Error| BodyError::Damaged(encoding);
    match encoding {
        Encoding::Identity => Ok(packed),
        Encoding::Gzip => unpack_all(flate2::read::MultiGzDecoder::new(&packed[..]), encoding, limit_bytes, hold),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&packed[..]).map_err(damaged)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
            unpack_all(decoder, encoding, limit_bytes, hold)
        }
    }
}

fn unpack_all(mut reader: impl Read, encoding: Encoding, limit_bytes: usize, hold: &mut Hold) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    loop {
        hold.grow(CHUNK_BYTES)?;
        let read = reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut bytes);
        match read {
            Ok(0) => return Ok(bytes),
            Ok(_) if bytes.len() > limit_bytes => {
                return Err(BodyError::TooLarge {
                    limit_bytes,
                    is_unpacked: true,
                });
            }
            Ok(_) => {}
            Err(_) => return Err(BodyError::Damaged(encoding)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LIMIT_BYTES: usize = 1 << 20;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 19).unwrap()
    }

    fn unpacked(encoding: Encoding, packed: Vec<u8>, budget_bytes: usize) -> Result<Vec<u8>, BodyError> {
        let budget = Arc::new(Semaphore::new(budget_bytes));
        let mut hold = Hold::of(&budget);
        let unpacked = unpack(encoding, packed, LIMIT_BYTES, &mut hold);
        drop(hold);
        assert_eq!(budget.available_permits(), budget_bytes, "all is given back");
        unpacked
    }

    #[test]
    fn packed_bodies_unpack_to_what_they_were() {
        let text = b"sid=\"s\",ts=1\n".repeat(1_000);
        assert_eq!(unpacked(Encoding::Identity, text.clone(), 0), Ok(text.clone()));
        assert_eq!(unpacked(Encoding::Gzip, gzip(&text), 1 << 20), Ok(text.clone()));
        assert_eq!(unpacked(Encoding::Zstd, zstd(&text), 1 << 20), Ok(text.clone()));
        let members = [gzip(&text), gzip(&text)].concat();
        assert_eq!(unpacked(Encoding::Gzip, members, 1 << 20), Ok(text.repeat(2)));
    }

    #[test]
    fn a_bomb_is_refused_as_soon_as_it_passes_the_limit() {
        let refused = Err(BodyError::TooLarge {
            limit_bytes: LIMIT_BYTES,
            is_unpacked: true,
        });
        let zeros = vec![0; 64 << 20];
        assert_eq!(unpacked(Encoding::Gzip, gzip(&zeros), 2 << 20), refused);
        assert_eq!(unpacked(Encoding::Zstd, zstd(&zeros), 2 << 20), refused);
        let many = gzip(&zeros[..LIMIT_BYTES]).repeat(20);
        assert_eq!(unpacked(Encoding::Gzip, many, 2 << 20), refused);
    }

    #[test]
    fn a_body_of_exactly_the_limit_passes_and_a_small_budget_refuses_it() {
        let full = vec![b'x'; LIMIT_BYTES];
        assert_eq!(
            unpacked(Encoding::Gzip, gzip(&full), 2 << 20).map(|bytes| bytes.len()),
            Ok(LIMIT_BYTES)
        );
        assert_eq!(unpacked(Encoding::Gzip, gzip(&full), 1 << 18), Err(BodyError::NoMemory));
    }

    #[test]
    fn what_does_not_unpack_is_called_damaged() {
        let check = |encoding: Encoding, packed: Vec<u8>| {
            assert_eq!(unpacked(encoding, packed, 1 << 20), Err(BodyError::Damaged(encoding)));
        };
        check(Encoding::Gzip, b"plain text".to_vec());
        check(Encoding::Zstd, b"plain text".to_vec());
        let cut = |mut bytes: Vec<u8>| {
            bytes.truncate(bytes.len() - 3);
            bytes
        };
        check(Encoding::Gzip, cut(gzip(b"some text that is cut")));
        check(Encoding::Zstd, cut(zstd(b"some text that is cut")));
    }

    #[test]
    fn encodings_are_known_by_their_names() {
        let check = |values: &[&str], expected: Option<Encoding>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            assert_eq!(Encoding::of(&headers), expected, "{values:?}");
        };
        check(&[], Some(Encoding::Identity));
        check(&["identity"], Some(Encoding::Identity));
        check(&["GZip"], Some(Encoding::Gzip));
        check(&["zstd"], Some(Encoding::Zstd));
        check(&["br"], None);
        check(&["gzip, gzip"], None);
        check(&["gzip", "zstd"], None);
    }
}
