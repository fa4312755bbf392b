//! Objects between their announcement and the commit of their last record.
//!
//! Serves the objects source: listing and notifications both announce here, so that an object that is
//! announced twice is read once, and so that discovery waits when enough is under way.
//!
//! Invariant: at most `ALOFT_MAX` objects are under way; the next announcement waits.
//! Invariant: a message is told of an object before it is decided whether the object is read, so that
//! no commit falls between the two.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object_store::path::Path;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use xxhash_rust::xxh3::xxh3_128;

use super::Known;
use super::fetch::{FetchError, Patience, fetch_head};
use super::queue::Desk;
use super::reading::{Item, PEEK_BYTES};
use super::store::Bucket;
use crate::clock::Clock;
use crate::event::decode::Format;
use crate::source::SourceError;

/// Objects that are announced and not yet committed: enough to bring an hour of small ones into order.
pub const ALOFT_MAX: usize = 1_000;
/// Damaged objects that are remembered so as not to be tried again: past it the oldest are tried again.
const GIVEN_UP_MAX: usize = 10_000;

/// What the ledger says of an object.
///
/// It must know of a commit before the source is told of it by `committed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// New, or begun and not finished.
    Wanted,
    /// Every record of it is in the lake.
    Finished,
    /// Last modified before the ledger's horizon, and unknown to it.
    TooOld,
}

/// A partition's name as it is remembered: names are long.
pub fn key_of(partition: &str) -> u128 {
    xxh3_128(partition.as_bytes())
}

/// What came of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is read, or was under way already.
    Aloft,
    /// There is nothing to read: finished, too old, or gone.
    Settled,
    /// It is damaged, or could not be looked at.
    Left,
}

/// What the tasks of discovery send to the source.
pub enum Arrival {
    Item(Box<Item>),
    Error(SourceError),
}

/// What is under way.
pub struct Flight {
    places: Arc<Semaphore>,
    state: Mutex<State>,
    known: Known,
    clock: Arc<dyn Clock>,
    too_old: AtomicU64,
}

#[derive(Default)]
struct State {
    aloft: HashMap<u128, OwnedSemaphorePermit>,
    given_up: HashSet<u128>,
    given_up_order: VecDeque<u128>,
}

impl Flight {
    pub fn new(known: Known, clock: Arc<dyn Clock>) -> Flight {
        Flight {
            places: Arc::new(Semaphore::new(ALOFT_MAX)),
            state: Mutex::new(State::default()),
            known,
            clock,
            too_old: AtomicU64::new(0),
        }
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Objects that were not read because they are older than the horizon, in the newest listing or
    /// since the start, whichever is more.
    pub fn too_old(&self) -> u64 {
        self.too_old.load(Ordering::Relaxed)
    }

    pub fn count_too_old(&self, objects: u64) {
        if self.too_old.fetch_max(objects, Ordering::Relaxed) == 0 && objects > 0 {
            tracing::warn!(
                objects,
                "objects older than the horizon are not read; a longer `horizon` would take them in"
            );
        }
    }

    /// `None`: it is under way already or was given up.
    pub fn standing(&self, partition: &str, last_modified_ms: i64) -> Option<Standing> {
        let key = key_of(partition);
        let state = self.state();
        if state.aloft.contains_key(&key) || state.given_up.contains(&key) {
            return None;
        }
        drop(state);
        Some((self.known)(partition, last_modified_ms))
    }

    /// Takes an object up, unless it is under way, settled or given up.
    fn claim(&self, partition: &str, last_modified_ms: i64, place: OwnedSemaphorePermit) -> Claim {
        let key = key_of(partition);
        // Taken first and asked about afterwards: what was landed before is finished in the ledger.
        let mut state = self.state();
        if state.given_up.contains(&key) {
            return Claim::GivenUp;
        }
        if state.aloft.contains_key(&key) {
            return Claim::Aloft;
        }
        state.aloft.insert(key, place);
        drop(state);
        match (self.known)(partition, last_modified_ms) {
            Standing::Wanted => return Claim::Taken,
            Standing::Finished => {}
            Standing::TooOld => self.count_too_old(self.too_old() + 1),
        }
        self.land(partition);
        Claim::Settled
    }

    /// An object has left: committed to its end, or read no further.
    pub fn land(&self, partition: &str) {
        self.state().aloft.remove(&key_of(partition));
    }

    /// A damaged object has left and is not tried again.
    pub fn give_up(&self, partition: &str) {
        let key = key_of(partition);
        let mut state = self.state();
        state.aloft.remove(&key);
        if state.given_up.insert(key) {
            state.given_up_order.push_back(key);
        }
        if state.given_up_order.len() > GIVEN_UP_MAX
            && let Some(oldest) = state.given_up_order.pop_front()
        {
            state.given_up.remove(&oldest);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Claim {
    Taken,
    Aloft,
    Settled,
    GivenUp,
}

/// Looks into objects and hands them to the source; shared by listing and notifications.
#[derive(Clone)]
pub struct Announcer {
    pub source_name: String,
    pub bucket: Bucket,
    pub format: Option<Format>,
    pub names_columns: bool,
    pub patience: Patience,
    pub flight: Arc<Flight>,
    pub arrivals: mpsc::Sender<Arrival>,
    /// Where messages wait for objects, if there is a queue.
    pub desk: Option<Arc<Desk>>,
}

impl Announcer {
    /// Announces whatever stands under a key now; `message` waits for it.
    pub async fn announce(&self, path: &Path, message: Option<&str>) -> Outcome {
        let Ok(place) = Arc::clone(&self.flight.places).acquire_owned().await else {
            return Outcome::Left;
        };
        let (object, peeked) = match fetch_head(&self.bucket, path, PEEK_BYTES, self.patience).await {
            Ok(fetched) => fetched,
            Err(error) => return self.not_looked_at(path, &error),
        };
        let partition = Arc::clone(&object.partition);
        if let (Some(desk), Some(message)) = (&self.desk, message) {
            desk.attach(message, key_of(&partition));
        }
        match self.flight.claim(&partition, object.last_modified_ms, place) {
            Claim::Taken => {
                let item = Box::new(Item::inspect(object, &peeked, self.format, self.names_columns));
                match self.arrivals.send(Arrival::Item(item)).await {
                    Ok(()) => Outcome::Aloft,
                    Err(_) => Outcome::Left,
                }
            }
            Claim::Aloft => Outcome::Aloft,
            Claim::GivenUp => Outcome::Left,
            Claim::Settled => {
                // For whoever found it under way meanwhile as well.
                if let Some(desk) = &self.desk {
                    desk.settle(key_of(&partition));
                }
                Outcome::Settled
            }
        }
    }

    fn not_looked_at(&self, path: &Path, error: &FetchError) -> Outcome {
        let (advice, outcome) = match error {
            FetchError::Vanished | FetchError::Replaced => (
                "nothing of it was read; if a lifecycle rule deletes objects, keep them for longer",
                Outcome::Settled,
            ),
            FetchError::Refused(_) => ("allow s3:GetObject on it; it is tried again", Outcome::Left),
            FetchError::Broken(_) => ("it is tried again", Outcome::Left),
        };
        self.report(format!("{}: {error}", self.bucket.name_of(path)), advice);
        outcome
    }

    /// Tells the person on duty, unless so much is told already that nobody reads it.
    pub fn report(&self, what: String, advice: &str) {
        let error = SourceError {
            source_name: self.source_name.clone(),
            what,
            advice: advice.to_string(),
        };
        if let Err(unsent) = self.arrivals.try_send(Arrival::Error(error)) {
            drop(unsent);
        }
    }
}
