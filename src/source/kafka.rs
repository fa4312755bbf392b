//! Kafka: topics through a consumer group, positions from the lake, offsets at the broker for the tools.
//!
//! Implements the source contract over librdkafka. A thread of its own is the group's member
//! (`member`, and `group` for what the group tells it); the daemon and the thread share `books`. Where a
//! partition begins is decided in `place`, what came beside a message is written in `attributes`.
//!
//! Invariant: a new partition is paused until `start`; offsets are committed only after the lake has.
//! Invariant: one message is one line, whatever it holds; a message without a value is a line with
//! `"tombstone": true`, one that is too long a line without bytes.
//! Invariant: what the broker has deleted is reported by number, never passed over.

mod attributes;
mod books;
mod group;
mod lag;
mod member;
mod place;
mod properties;
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{BatchLimits, Found, Lag, Mark, Part, Source, SourceError};
use crate::clock::Clock;
use crate::event::decode::Format;
use member::Member;
use shared::Shared;

pub use attributes::ATTRIBUTES_BYTES_MAX;
pub use place::{Start, metadata_of};
pub use properties::{QUEUE_BYTES_MIN, validate};

/// How long `stop` waits for the offsets to be committed and the group to be left.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// A Kafka source as the settings say it.
#[derive(Clone)]
pub struct KafkaSettings {
    /// Name of the source.
    pub name: String,
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The consumer group; daemons of the same group share the partitions.
    pub group: String,
    /// Names, or patterns that start with `^`.
    pub topics: Vec<String>,
    /// Where a partition begins that no lake has read.
    pub start: Start,
    /// `None`: detected.
    pub format: Option<Format>,
    /// Given to librdkafka as they are (TLS, SASL and tuning); may hold secrets.
    pub properties: BTreeMap<String, String>,
    /// Names the lake in the group's offsets.
    pub lake_id: String,
    /// Most bytes of records that wait in memory, librdkafka's own included.
    pub queue_bytes: usize,
}

/// Reads the partitions that the group gives it.
pub struct KafkaSource {
    settings: Arc<KafkaSettings>,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaSource {
    /// Joins the group in the background; that the brokers are away is no error here.
    ///
    /// # Errors
    /// Settings that `validate` or librdkafka refuse.
    pub fn new(settings: KafkaSettings, clock: Arc<dyn Clock>) -> Result<KafkaSource, SourceError> {
        let refused = |what: String| SourceError {
            source_name: settings.name.clone(),
            what,
            advice: "correct the source's settings".to_string(),
        };
        validate(&settings).map_err(refused)?;
        let settings = Arc::new(settings);
        let shared = Arc::new(Shared::default());
        let member = Member::join(&settings, &shared)?;
        let body = {
            let (settings, shared) = (Arc::clone(&settings), Arc::clone(&shared));
            move || {
                let _ended = Ended(&settings, &shared);
                member::run(&settings, &shared, member);
            }
        };
        let thread = std::thread::Builder::new().name(format!("kafka-{}", settings.name)).spawn(body);
        let thread = thread.map_err(|error| SourceError {
            source_name: settings.name.clone(),
            what: format!("cannot start a thread: {error}"),
            advice: "raise the limit of threads".to_string(),
        })?;
        Ok(KafkaSource {
            settings,
            shared,
            clock,
            thread: Some(thread),
        })
    }
}

/// Says that the member's thread has ended, however it did.
struct Ended<'a>(&'a KafkaSettings, &'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let error = std::thread::panicking().then(|| SourceError {
            source_name: self.0.name.clone(),
            what: "reading has ended by a fault in Playhead".to_string(),
            advice: "restart the daemon, nothing is lost; please report what it wrote to the log".to_string(),
        });
        self.1.change(|books| {
            books.has_stopped = true;
            error.and_then(|error| books.tell(error))
        });
    }
}

impl Source for KafkaSource {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn discover(&mut self) -> Result<Vec<Found>, SourceError> {
        let mut books = self.shared.lock();
        let found = books.take_found();
        if found.is_empty()
            && let Some(error) = books.take_error()
        {
            return Err(error);
        }
        let format = self.settings.format;
        let found = found.into_iter().map(|partition| Found {
            partition,
            format,
            header: Arc::from([]),
            first_line: Vec::new(),
        });
        Ok(found.collect())
    }

    fn start(&mut self, partition: &Arc<str>, from: Option<Mark>) {
        self.shared.change(|books| books.start(partition, from.as_ref()));
    }

    fn next_part(&mut self, limits: BatchLimits) -> Result<Option<Part>, SourceError> {
        self.shared.change(|books| {
            if let Some(error) = books.take_error() {
                return Err(error);
            }
            if books.is_stopping {
                return Ok(None);
            }
            let part = books.next_part(limits);
            Ok(part.map(|part| Part {
                format: self.settings.format,
                ..part
            }))
        })
    }

    fn committed(&mut self, partition: &Arc<str>, to: &Mark) {
        self.shared.change(|books| books.committed(partition, to));
    }

    fn take_lost(&mut self) -> Vec<Arc<str>> {
        self.shared.change(books::Books::take_lost)
    }

    fn lag(&self) -> Lag {
        self.shared.lock().lag(self.clock.now_ms())
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.change(|books| books.is_stopping = true);
        if !self.shared.wait_until(STOP_WAIT, |books| books.has_stopped) {
            tracing::warn!(
                source = self.settings.name,
                "the Kafka group was not left in time; it gives the partitions out by itself"
            );
            return;
        }
        // A panic has been told as an error.
        let _ = thread.join();
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
