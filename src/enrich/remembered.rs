//! Answers of late, kept by question: what `device` and `network` looked up before.
//!
//! Shared by all threads that decode. Entries are kept in two generations: a full young one becomes
//! the old one, and what is asked for again moves back to the young one. So what is in use stays, and
//! the rest goes, without a list to keep in order.
//!
//! Invariant: at most `entries_max` entries a generation, whatever is asked.
//! Invariant: an answer worked out before `forget_all` is never given after it.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Locks, so that threads seldom wait for each other; a power of two.
const SHARDS: usize = 16;

/// How often a memory was asked, since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// Answered from memory.
    pub hits: u64,
    /// Had to be worked out.
    pub misses: u64,
}

#[derive(Debug)]
pub(super) struct Remembered<K, V> {
    shards: [Shard<K, V>; SHARDS],
    entries_max: usize,
    seeded: Seeded,
    /// How often all was forgotten.
    epoch: AtomicU64,
}

/// Alone on its cache lines, or counting would slow other threads down.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<K, V> {
    generations: RwLock<Generations<K, V>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, V, Seeded>,
    old: HashMap<K, V, Seeded>,
}

impl<K: Hash + Eq, V: Clone> Remembered<K, V> {
    /// `entries_max`: of a generation.
    pub(super) fn new(entries_max: usize) -> Remembered<K, V> {
        let seeded = Seeded(RandomState::new().hash_one(0));
        let shard = || Shard {
            generations: RwLock::new(Generations::new(seeded)),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        };
        Remembered {
            shards: std::array::from_fn(|_| shard()),
            entries_max: entries_max / SHARDS,
            seeded,
            epoch: AtomicU64::new(0),
        }
    }

    /// The answer to `key`; `work_out` is asked where it is not known.
    pub(super) fn answer<Q>(&self, key: &Q, work_out: impl FnOnce() -> V) -> V
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let shard = &self.shards[self.shard_of(key)];
        let (known, is_young) = shard.read().get(key);
        if let Some(known) = known {
            shard.hits.fetch_add(1, Ordering::Relaxed);
            if !is_young {
                shard.write().insert(key.to_owned(), known.clone(), self.entries_max);
            }
            return known;
        }
        shard.misses.fetch_add(1, Ordering::Relaxed);
        let epoch = self.epoch.load(Ordering::Acquire);
        let found = work_out();
        let mut generations = shard.write();
        // Under the lock that `forget_all` takes behind its count: either it is seen here, or it empties this.
        if self.epoch.load(Ordering::Acquire) == epoch {
            generations.insert(key.to_owned(), found.clone(), self.entries_max);
        }
        found
    }

    /// What was learnt before holds no more.
    pub(super) fn forget_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for shard in &self.shards {
            *shard.write() = Generations::new(self.seeded);
        }
    }

    pub(super) fn asked(&self) -> Asked {
        let sum = |count: fn(&Shard<K, V>) -> &AtomicU64| self.shards.iter().map(|shard| count(shard).load(Ordering::Relaxed)).sum();
        Asked {
            hits: sum(|shard| &shard.hits),
            misses: sum(|shard| &shard.misses),
        }
    }

    /// The upper bits: the maps use the lower ones.
    fn shard_of<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        (self.seeded.hash_one(key) >> 32) as usize % SHARDS
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let lens = self.shards.iter().map(|shard| {
            let generations = shard.read();
            generations.young.len() + generations.old.len()
        });
        lens.sum()
    }
}

impl<K, V> Shard<K, V> {
    // A thread that panicked while it held the lock left whole maps behind: entries are only inserted
    // or all removed.
    fn read(&self) -> RwLockReadGuard<'_, Generations<K, V>> {
        self.generations.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Generations<K, V>> {
        self.generations.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Generations<K, V> {
    fn new(seeded: Seeded) -> Generations<K, V> {
        Generations {
            young: HashMap::with_hasher(seeded),
            old: HashMap::with_hasher(seeded),
        }
    }
}

impl<K: Hash + Eq, V: Clone> Generations<K, V> {
    /// And whether it stands in the young generation.
    fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> (Option<V>, bool)
    where
        K: Borrow<Q>,
    {
        match self.young.get(key) {
            Some(known) => (Some(known.clone()), true),
            None => (self.old.get(key).cloned(), false),
        }
    }

    fn insert(&mut self, key: K, value: V, entries_max: usize) {
        if self.young.len() >= entries_max && !self.young.contains_key(&key) {
            let fresh = HashMap::with_hasher(*self.young.hasher());
            self.old = std::mem::replace(&mut self.young, fresh);
        }
        self.young.insert(key, value);
    }
}

/// XXH3 with a seed that nobody outside knows: quick on user agents, and a sender cannot make keys collide.
#[derive(Debug, Clone, Copy)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = Hashing;

    fn build_hasher(&self) -> Hashing {
        Hashing(self.0)
    }
}

struct Hashing(u64);

impl Hasher for Hashing {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(hits: u64, misses: u64) -> Asked {
        Asked { hits, misses }
    }

    #[test]
    fn what_was_asked_before_is_not_worked_out_again() {
        let memory: Remembered<String, u32> = Remembered::new(1024);
        assert_eq!(memory.answer("a", || 1), 1);
        assert_eq!(memory.answer("a", || unreachable!("it is known")), 1);
        assert_eq!(memory.answer("b", || 2), 2);
        assert_eq!(memory.asked(), asked(1, 2));
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_is_in_use() {
        let memory: Remembered<String, u32> = Remembered::new(64 * SHARDS);
        memory.answer("in use", || 7);
        for number in 0..100_000 {
            memory.answer(&number.to_string(), || number);
            if number % 16 == 0 {
                memory.answer("in use", || unreachable!("it is in use"));
            }
        }
        assert!(memory.len() <= 2 * 64 * SHARDS, "{}", memory.len());
        let before = memory.asked().misses;
        memory.answer("0", || 0);
        assert_eq!(memory.asked().misses, before + 1, "it was long ago");
    }

    #[test]
    fn an_answer_worked_out_before_all_was_forgotten_is_not_kept() {
        let memory: Remembered<String, u32> = Remembered::new(1024);
        let first = memory.answer("a", || {
            memory.forget_all();
            1
        });
        assert_eq!(first, 1);
        assert_eq!(memory.answer("a", || 2), 2);
        memory.forget_all();
        assert_eq!(memory.answer("a", || 3), 3);
        assert_eq!(memory.len(), 1);
    }

    #[test]
    fn threads_share_one_memory() {
        let memory: Remembered<String, usize> = Remembered::new(1 << 16);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|number| assert_eq!(memory.answer(&number.to_string(), || number), number)));
            }
        });
        let Asked { hits, misses } = memory.asked();
        assert_eq!((hits + misses, memory.len()), (4000, 1000));
        assert!(misses >= 1000);
    }
}
