//! The objects source against a store in memory whose faults are scripted, and a queue in memory.

mod discovery;
mod faults;
mod notifications;
mod stubs;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::runtime::Runtime;

use super::fetch::Patience;
use super::queue::Queue;
use super::store::Bucket;
use super::{ObjectSource, ObjectsSettings, Standing};
use crate::clock::ManualClock;
use crate::source::{BatchLimits, Mark, Source};
use stubs::Faulty;

/// Longest that a test waits for what must come.
const AT_MOST: Duration = Duration::from_secs(20);
const LIMITS: BatchLimits = BatchLimits {
    bytes: 8 << 20,
    records: 8_000,
};
/// 2100: the store in memory dates its objects by the machine's clock, which stands before it.
const NOW_MS: i64 = 4_102_444_800_000;

#[derive(Clone, Copy, Default)]
struct Known {
    offset: i64,
    finished: bool,
}

/// A source with everything around it; commits at once what it reads, unless told otherwise.
struct Rig {
    // Dropped before the runtime, which waits for its threads.
    source: ObjectSource,
    runtime: Runtime,
    store: Arc<Faulty>,
    known: Arc<Mutex<HashMap<String, Known>>>,
    lines: Vec<(String, String)>,
    errors: Vec<String>,
    /// Read and not committed: partition, place and whether that is its end.
    uncommitted: Vec<(Arc<str>, Mark, bool)>,
    commits: bool,
}

fn settings() -> ObjectsSettings {
    ObjectsSettings {
        list_every: Some(Duration::from_millis(20)),
        patience: Patience {
            attempts: 4,
            wait: Duration::from_millis(1),
            wait_max: Duration::from_millis(4),
            answer_max: Duration::from_millis(500),
        },
        queue_hold: Duration::from_millis(300),
        ..ObjectsSettings::new("logs", "s3://logs/")
    }
}

impl Rig {
    fn new(settings: ObjectsSettings, queue: Option<Arc<dyn Queue>>) -> Rig {
        Rig::over(settings, queue, Arc::new(Faulty::default()), Arc::default(), 0)
    }

    /// Objects last modified before `too_old_before_ms` and unknown are too old.
    fn over(
        settings: ObjectsSettings,
        queue: Option<Arc<dyn Queue>>,
        store: Arc<Faulty>,
        known: Arc<Mutex<HashMap<String, Known>>>,
        too_old_before_ms: i64,
    ) -> Rig {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let asked = Arc::clone(&known);
        let standing = move |partition: &str, modified_ms: i64| match asked.lock().expect("sound").get(partition) {
            Some(known) if known.finished => Standing::Finished,
            None if modified_ms < too_old_before_ms => Standing::TooOld,
            _ => Standing::Wanted,
        };
        let bucket = Bucket::over(store.clone(), "s3://logs/", "");
        let clock = Arc::new(ManualClock::at(NOW_MS));
        let source = ObjectSource::over(settings, bucket, queue, runtime.handle(), Arc::new(standing), clock);
        Rig {
            source,
            runtime,
            store,
            known,
            lines: Vec::new(),
            errors: Vec::new(),
            uncommitted: Vec::new(),
            commits: true,
        }
    }

    fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        let path = Path::from(key);
        let put = self.store.inner.put(&path, PutPayload::from(bytes.into()));
        self.runtime.block_on(put).expect("in memory");
    }

    /// One round of the daemon.
    fn step(&mut self) {
        match self.source.discover() {
            Ok(found) => {
                for found in found {
                    let known = self.known.lock().expect("sound").get(&*found.partition).copied();
                    let from = known.map(|known| Mark {
                        offset: known.offset,
                        token: None,
                    });
                    self.source.start(&found.partition, from);
                }
            }
            Err(error) => self.errors.push(error.to_string()),
        }
        match self.source.next_part(LIMITS) {
            Ok(Some(part)) => {
                assert!(part.lines.len() <= LIMITS.records);
                for line in &part.lines {
                    let text = String::from_utf8_lossy(&part.buffer[line.start..line.end]).into_owned();
                    self.lines.push((part.partition.to_string(), text));
                }
                let mark = Mark {
                    offset: part.to,
                    token: part.token.clone(),
                };
                self.uncommitted.push((Arc::clone(&part.partition), mark, part.finished));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => self.errors.push(error.to_string()),
        }
        if self.commits {
            self.commit();
        }
    }

    fn commit(&mut self) {
        for (partition, mark, finished) in self.uncommitted.drain(..) {
            let offset = mark.offset;
            self.known
                .lock()
                .expect("sound")
                .insert(partition.to_string(), Known { offset, finished });
            self.source.committed(&partition, &mark);
        }
    }

    /// Runs until something holds.
    fn run_until(&mut self, what: &str, holds: impl Fn(&Rig) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(
                began.elapsed() < AT_MOST,
                "{what}: not within {AT_MOST:?}; lines {}, errors {:?}",
                self.lines.len(),
                self.errors
            );
            self.step();
        }
    }

    /// Runs a few listings more, in which nothing must come.
    fn run_on(&mut self) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(150) {
            self.step();
        }
    }

    fn texts(&self) -> Vec<&str> {
        let mut texts: Vec<&str> = self.lines.iter().map(|(_, text)| text.as_str()).collect();
        texts.sort_unstable();
        texts
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// Lines of a hundred bytes, numbered.
fn numbered(name: &str, lines: usize) -> String {
    (0..lines).map(|number| format!("{name} {number:0>90}\n")).collect()
}
