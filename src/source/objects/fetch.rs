//! The bytes of one object, by ranges, with retries.
//!
//! Serves the objects source. An object is read in ranges of a few MiB and never over one long
//! request, so that a reader that waits for the pipeline holds no connection open, and a read that
//! broke goes on at the byte where it stood.
//!
//! Invariant: every range is of the version that was announced, or the read ends as `Replaced`.
//! Invariant: retries are bounded, and wait longer each time.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::store::{Bucket, version_of};

/// How much is asked for at once: large enough that a request's latency does not count, and small
/// enough to hold a few for every open object.
pub const RANGE_BYTES: u64 = 4 << 20;
/// Ranges read ahead of the unpacking.
const RANGES_AHEAD: usize = 1;
/// Longest part of a store's error text that is passed on: it can quote a whole page.
const WHY_CHARS_MAX: usize = 300;

/// How often and after how long a failed request is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    pub attempts: u32,
    /// The first wait; each further one is twice as long, less a random part.
    pub wait: Duration,
    pub wait_max: Duration,
    /// Longest an answer may take with its body: a connection that hangs is given up.
    pub answer_max: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            attempts: 6,
            wait: Duration::from_millis(200),
            wait_max: Duration::from_secs(10),
            answer_max: Duration::from_secs(60),
        }
    }
}

impl Patience {
    /// The wait after a failed attempt, counted from 0; a seed spreads the readers.
    fn wait_after(&self, attempt: u32, seed: u64) -> Duration {
        let full = self.wait.saturating_mul(2_u32.saturating_pow(attempt)).min(self.wait_max);
        let thousandth = u32::try_from(xxh3_64_with_seed(&attempt.to_le_bytes(), seed) % 500).unwrap_or(0);
        full * (1_000 - thousandth) / 1_000
    }
}

/// Why no bytes came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("it is gone")]
    Vanished,
    #[error("it was replaced while it was read")]
    Replaced,
    #[error("the store refuses it ({0})")]
    Refused(String),
    #[error("the store fails ({0})")]
    Broken(String),
}

impl From<object_store::Error> for FetchError {
    fn from(error: object_store::Error) -> FetchError {
        use object_store::Error as Store;
        let why = || error.to_string().replace('\n', " ").chars().take(WHY_CHARS_MAX).collect::<String>();
        match &error {
            Store::NotFound { .. } => FetchError::Vanished,
            Store::Precondition { .. } | Store::NotModified { .. } => FetchError::Replaced,
            Store::PermissionDenied { .. }
            | Store::Unauthenticated { .. }
            | Store::InvalidPath { .. }
            | Store::NotSupported { .. }
            | Store::NotImplemented { .. } => FetchError::Refused(why()),
            _ => FetchError::Broken(why()),
        }
    }
}

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub partition: Arc<str>,
    pub path: Path,
    /// As the store gave it, quotes and all; `None`: the store has none.
    pub e_tag: Option<String>,
    pub size_bytes: u64,
    pub last_modified_ms: i64,
}

impl Object {
    pub fn of(bucket: &Bucket, meta: &ObjectMeta) -> Object {
        Object {
            partition: bucket.partition(meta.location.as_ref(), &version_of(meta)),
            path: meta.location.clone(),
            e_tag: meta.e_tag.clone(),
            size_bytes: meta.size,
            last_modified_ms: meta.last_modified.timestamp_millis(),
        }
    }
}

/// The first bytes of whatever stands under a key now, with what it is.
///
/// # Errors
/// See `FetchError`; an object without bytes gives none.
pub async fn fetch_head(bucket: &Bucket, path: &Path, bytes: u64, patience: Patience) -> Result<(Object, Bytes), FetchError> {
    let seed = xxh3_64_with_seed(path.as_ref().as_bytes(), 0);
    persist(patience, seed, || async {
        let options = GetOptions {
            range: Some(GetRange::Bounded(0..bytes)),
            ..GetOptions::default()
        };
        let result = bucket.store.get_opts(path, options).await?;
        let object = Object::of(bucket, &result.meta);
        Ok((object, result.bytes().await?))
    })
    .await
}

/// A range of an object's bytes, whole.
///
/// # Errors
/// See `FetchError`.
pub async fn fetch_range(bucket: &Bucket, object: &Object, range: Range<u64>, patience: Patience) -> Result<Bytes, FetchError> {
    let seed = xxh3_64_with_seed(object.partition.as_bytes(), range.start);
    persist(patience, seed, || async {
        let options = GetOptions {
            if_match: object.e_tag.clone(),
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let result = bucket.store.get_opts(&object.path, options).await?;
        if Object::of(bucket, &result.meta).partition != object.partition {
            return Err(FetchError::Replaced);
        }
        let bytes = result.bytes().await?;
        let wanted = range.end - range.start;
        if bytes.len() as u64 != wanted {
            return Err(FetchError::Broken(format!("{} of {wanted} bytes came", bytes.len())));
        }
        Ok(bytes)
    })
    .await
}

/// A longer range, put together from several requests.
///
/// # Errors
/// See `FetchError`.
pub async fn fetch_long(bucket: &Bucket, object: &Object, range: Range<u64>, patience: Patience) -> Result<Bytes, FetchError> {
    let mut all = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + RANGE_BYTES);
        all.extend_from_slice(&fetch_range(bucket, object, at..end, patience).await?);
        at = end;
    }
    Ok(all.into())
}

/// Makes a request until it is answered, refused, or the patience is at its end.
async fn persist<T, F, A>(patience: Patience, seed: u64, request: F) -> Result<T, FetchError>
where
    F: Fn() -> A,
    A: Future<Output = Result<T, FetchError>>,
{
    let mut attempt = 0;
    loop {
        let answer = tokio::time::timeout(patience.answer_max, request()).await;
        let answer = answer.unwrap_or_else(|_| Err(FetchError::Broken(format!("no answer within {:?}", patience.answer_max))));
        match answer {
            Err(FetchError::Broken(_)) if attempt + 1 < patience.attempts => {}
            settled => return settled,
        }
        tokio::time::sleep(patience.wait_after(attempt, seed)).await;
        attempt += 1;
    }
}

/// Sends an object's bytes from a byte on, range by range, until all were sent or nobody listens.
pub async fn stream(bucket: Bucket, object: Object, from_byte: u64, patience: Patience, into: mpsc::Sender<Result<Bytes, FetchError>>) {
    let mut at = from_byte;
    while at < object.size_bytes {
        let end = object.size_bytes.min(at + RANGE_BYTES);
        let fetched = tokio::select! {
            () = into.closed() => return,
            fetched = fetch_range(&bucket, &object, at..end, patience) => fetched,
        };
        let has_failed = fetched.is_err();
        if into.send(fetched).await.is_err() || has_failed {
            return;
        }
        at = end;
    }
}

/// The blocking end of `stream`: what a thread unpacks from.
pub struct Chunks {
    from: mpsc::Receiver<Result<Bytes, FetchError>>,
    current: Bytes,
}

impl Chunks {
    /// A channel's sending end and its reader.
    pub fn channel() -> (mpsc::Sender<Result<Bytes, FetchError>>, Chunks) {
        let (into, from) = mpsc::channel(RANGES_AHEAD);
        (
            into,
            Chunks {
                from,
                current: Bytes::new(),
            },
        )
    }
}

impl std::io::BufRead for Chunks {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.from.blocking_recv() {
                Some(Ok(bytes)) => self.current = bytes,
                Some(Err(error)) => return Err(std::io::Error::other(error)),
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        let _ = self.current.split_to(amount.min(self.current.len()));
    }
}

impl std::io::Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let available = std::io::BufRead::fill_buf(self)?;
        let length = available.len().min(into.len());
        into[..length].copy_from_slice(&available[..length]);
        std::io::BufRead::consume(self, length);
        Ok(length)
    }
}

/// The fetch error that an unpacker met below itself; `None`: the data are damaged.
pub fn fetch_error_in(error: &std::io::Error) -> Option<&FetchError> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<FetchError>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ_between_readers() {
        let patience = Patience {
            attempts: 9,
            wait: Duration::from_millis(100),
            wait_max: Duration::from_secs(1),
            ..Patience::default()
        };
        for attempt in 0..40 {
            let full = (100_u64 << attempt.min(10)).min(1_000);
            let wait = patience.wait_after(attempt, 7).as_millis();
            assert!((u128::from(full / 2)..=u128::from(full)).contains(&wait), "{attempt}: {wait}");
        }
        assert_ne!(patience.wait_after(3, 1), patience.wait_after(3, 2));
    }

    const HASTY: Patience = Patience {
        attempts: 6,
        wait: Duration::from_micros(10),
        wait_max: Duration::from_millis(1),
        answer_max: Duration::from_millis(20),
    };

    #[tokio::test]
    async fn only_what_may_pass_is_asked_again() {
        for (error, expected) in [
            (FetchError::Vanished, 1),
            (FetchError::Replaced, 1),
            (FetchError::Refused(String::new()), 1),
            (FetchError::Broken(String::new()), 6),
        ] {
            let asked = std::cell::Cell::new(0);
            let answer: Result<(), _> = persist(HASTY, 1, || {
                asked.set(asked.get() + 1);
                std::future::ready(Err(error.clone()))
            })
            .await;
            assert_eq!((answer, asked.get()), (Err(error), expected));
        }
    }

    #[tokio::test]
    async fn a_store_that_hangs_counts_as_broken() {
        let answer: Result<(), _> = persist(HASTY, 1, std::future::pending).await;
        assert!(matches!(answer, Err(FetchError::Broken(_))), "{answer:?}");
    }
}
