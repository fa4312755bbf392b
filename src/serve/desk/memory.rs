//! Memory of queries: one bound for all that are at work, and a share of it for each.
//!
//! Invariant: a query that wants too much is refused itself, before the others feel it.

use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;

/// A query may have this part of the memory of all: one that runs wild leaves as much to the others.
const SHARE_OF_ONE: usize = 2;

/// The memory of all queries.
pub struct Whole {
    pool: Arc<GreedyMemoryPool>,
    bytes: usize,
}

impl Whole {
    pub fn new(bytes: usize) -> Whole {
        Whole {
            pool: Arc::new(GreedyMemoryPool::new(bytes)),
            bytes,
        }
    }

    /// What one query runs in: its own share, and all else in common.
    pub fn runtime_for_one(&self, common: &RuntimeEnv) -> Arc<RuntimeEnv> {
        Arc::new(RuntimeEnv {
            memory_pool: Arc::new(Share {
                own: FairSpillPool::new(self.bytes / SHARE_OF_ONE),
                whole: Arc::clone(&self.pool),
            }),
            ..common.clone()
        })
    }
}

/// The memory of one query.
struct Share {
    own: FairSpillPool,
    whole: Arc<GreedyMemoryPool>,
}

impl MemoryPool for Share {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.whole.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.whole.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<(), DataFusionError> {
        self.own.try_grow(reservation, additional)?;
        let granted = self.whole.try_grow(reservation, additional);
        if granted.is_err() {
            self.own.shrink(reservation, additional);
        }
        granted
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query({}, of all {})", self.own, self.whole)
    }
}
