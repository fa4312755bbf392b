//! Silver's rows to Kafka, each once: one transaction holds some minutes of rows and how far they reach.
//!
//! Stands beside the lake: the shell reads the rows of closed minutes and hands them over. How far each
//! topic has come is the offset of a consumer group that nobody reads with, committed in the same
//! transaction as the rows; so a relay that was killed goes on where its last transaction ended.
//!
//! ```text
//! rows of a minute -> JSON, keyed by session -> playhead.silver.<name>     \ one
//! the next minute  -> offset of group <topics>-relay-<lake>                / transaction
//! ```
//!
//! Invariant: who reads committed records only sees every row once, whatever was killed when.
//! Invariant: rows of one session go to one partition, for they have one key.

mod rows;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
pub use rows::Records;

/// Version of the records' shape: another one is another topic's reader's business.
pub const SCHEMA: &str = "1";
/// A broker that is away for longer is told, and tried again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a transaction may stay open: the largest minute, sent slowly.
const TRANSACTION_MS: &str = "600000";
/// Rows that wait in memory for the broker; past it the reading of silver waits.
const QUEUED_ROWS_MAX: &str = "100000";
const QUEUED_KIB_MAX: &str = "65536";
/// A short pause puts rows together: a third of the bytes, many times the speed.
const LINGER_MS: &str = "20";
/// As in the lake: a third of the time of level 3 for a few more bytes.
const ZSTD_LEVEL: &str = "1";
/// What a broker is asked about a topic for, in an error's words.
const LOOK: &str = "look at a topic";
/// Between two questions to a broker that is taking a group over.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The queue is full: a pause until it has been sent somewhat.
const FULL_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub struct Settings {
    pub brokers: String,
    /// What topics begin with.
    pub topics: String,
    /// Tells the lake, so that two lakes keep apart.
    pub lake: String,
    pub properties: BTreeMap<String, String>,
    /// Of each source of Arroyo's that reads the topics.
    pub subtasks: u64,
}

/// What keeps rows from being published.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("cannot {act}: {source}; check relay.brokers, and that the topics exist or may be made")]
    Kafka {
        act: &'static str,
        #[source]
        source: KafkaError,
    },
    #[error("another relay of this lake has taken over; stop one of the two")]
    TakenOver,
    #[error(
        "{topic} holds rows, and how far they reach is forgotten (group {group}: brokers drop offsets of groups that are silent for \
         offsets.retention.minutes); delete the topic to have it published anew"
    )]
    PositionLost { topic: String, group: String },
    #[error(
        "{topic} has {partitions} partitions and arroyo.parallelism is {subtasks}: a subtask of Arroyo that reads two of them would take rows \
         of one for late by rows of the other, and drop them silently; set arroyo.parallelism to {partitions}, here and where the \
         pipelines are deployed, or make the topics of silver anew with {subtasks}"
    )]
    TooManyPartitions { topic: String, partitions: u64, subtasks: u64 },
}

fn kafka(act: &'static str) -> impl Fn(KafkaError) -> RelayError {
    move |source| match source.rdkafka_error_code() {
        Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::InvalidProducerEpoch | RDKafkaErrorCode::ProducerFenced) => RelayError::TakenOver,
        _ => RelayError::Kafka { act, source },
    }
}

/// True while a group changes from one broker to another, or has just come into being.
fn is_of_coordinator(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::NotCoordinator | RDKafkaErrorCode::CoordinatorNotAvailable | RDKafkaErrorCode::CoordinatorLoadInProgress)
    )
}

/// A connection to the brokers, with the right to publish this lake.
pub struct Relay {
    producer: ThreadedProducer<DefaultProducerContext>,
    /// Reads nothing: its group's offsets are the positions.
    positions: BaseConsumer,
    group: String,
    topics: String,
    subtasks: u64,
}

impl Relay {
    /// Connects; a transaction that an earlier process left open is given up.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    pub fn open(settings: &Settings) -> Result<Relay, RelayError> {
        let mut common = ClientConfig::new();
        common.set("bootstrap.servers", &settings.brokers);
        for (name, value) in &settings.properties {
            common.set(name, value);
        }
        let name = format!("{}-relay-{}", settings.topics, settings.lake);
        let producer: ThreadedProducer<DefaultProducerContext> = common
            .clone()
            .set("transactional.id", &name)
            .set("enable.idempotence", "true")
            .set("transaction.timeout.ms", TRANSACTION_MS)
            .set("queue.buffering.max.messages", QUEUED_ROWS_MAX)
            .set("queue.buffering.max.kbytes", QUEUED_KIB_MAX)
            .set("linger.ms", LINGER_MS)
            .set("compression.type", "zstd")
            .set("compression.level", ZSTD_LEVEL)
            .create()
            .map_err(kafka("set the producer up"))?;
        producer.init_transactions(PATIENCE).map_err(kafka("begin to publish"))?;
        let positions = common
            .set("group.id", &name)
            .set("enable.auto.commit", "false")
            .create()
            .map_err(kafka("set the positions up"))?;
        Ok(Relay {
            producer,
            positions,
            group: name,
            topics: settings.topics.clone(),
            subtasks: settings.subtasks,
        })
    }

    /// Arroyo keeps a watermark for each subtask, so none may read two partitions of a topic: rows come to it one partition after
    /// the other. A topic that is not there yet has none.
    ///
    /// # Errors
    /// A view's topic has more partitions than there are subtasks, or the broker does not tell.
    pub fn check_partitions(&self, view: &str) -> Result<(), RelayError> {
        let partitions = self.partitions(view)?.len() as u64;
        match partitions > self.subtasks {
            true => Err(RelayError::TooManyPartitions {
                topic: self.topic(view),
                partitions,
                subtasks: self.subtasks,
            }),
            false => Ok(()),
        }
    }

    /// Of a view's topic; none where it is not there.
    fn partitions(&self, view: &str) -> Result<Vec<i32>, RelayError> {
        let metadata = self.positions.fetch_metadata(Some(&self.topic(view)), PATIENCE);
        let metadata = metadata.map_err(kafka(LOOK))?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        Ok(partitions.map(|partition| partition.id()).collect())
    }

    fn topic(&self, view: &str) -> String {
        format!("{}.silver.{view}", self.topics)
    }

    /// The group whose offsets are the positions of this lake.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The minute before which a view's rows are published; `None`: nothing ever was. `has_begun`: something of this
    /// lake has been; without it rows in the topic are another lake's.
    ///
    /// # Errors
    /// The broker does not tell, or has forgotten it: to begin anew would publish rows twice.
    pub fn position(&self, view: &str, has_begun: bool) -> Result<Option<i64>, RelayError> {
        let offset = self.committed(view).map_err(kafka("read how far the relay has come"))?;
        match offset {
            Some(Offset::Offset(minute)) => Ok(Some(minute)),
            _ if has_begun && self.has_held_rows(view)? => Err(RelayError::PositionLost {
                topic: self.topic(view),
                group: self.group.clone(),
            }),
            _ => Ok(None),
        }
    }

    /// The group's offset of a view. A broker that has just taken the group over, or is about to, is asked again.
    fn committed(&self, view: &str) -> Result<Option<Offset>, KafkaError> {
        let began = Instant::now();
        loop {
            let mut wanted = TopicPartitionList::new();
            wanted.add_partition(&self.topic(view), 0);
            let left = PATIENCE.saturating_sub(began.elapsed());
            match self.positions.committed_offsets(wanted, left) {
                Ok(told) => return Ok(told.elements().first().map(|element| element.offset())),
                Err(error) if is_of_coordinator(&error) && !left.is_zero() => std::thread::sleep(ASK_AGAIN_AFTER),
                Err(error) => return Err(error),
            }
        }
    }

    /// Was anything ever written to a view's topic? The first transaction moves the position and writes nothing.
    fn has_held_rows(&self, view: &str) -> Result<bool, RelayError> {
        let topic = self.topic(view);
        for partition in self.partitions(view)? {
            let marks = self.positions.fetch_watermarks(&topic, partition, PATIENCE);
            let (_, end) = marks.map_err(kafka(LOOK))?;
            if end > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Begins a transaction for one view.
    ///
    /// # Errors
    /// The producer was fenced or is lost.
    pub fn begin(&self, view: &str) -> Result<Transaction<'_>, RelayError> {
        self.producer.begin_transaction().map_err(kafka("begin a transaction"))?;
        Ok(Transaction {
            relay: self,
            topic: self.topic(view),
            rows: 0,
            is_open: true,
        })
    }
}

/// Rows that are published together or not at all.
pub struct Transaction<'a> {
    relay: &'a Relay,
    topic: String,
    rows: usize,
    is_open: bool,
}

impl Transaction<'_> {
    /// Hands rows of one minute over; waits while the queue is full.
    ///
    /// # Errors
    /// The broker refuses a record.
    pub fn send(&mut self, records: &Records, minute: i64, silver_version: i64) -> Result<(), RelayError> {
        let (minute, version) = (minute.to_string(), silver_version.to_string());
        for (line, key) in records.iter() {
            let headers = OwnedHeaders::new_with_capacity(3)
                .insert(Header {
                    key: "schema",
                    value: Some(SCHEMA),
                })
                .insert(Header {
                    key: "minute",
                    value: Some(&minute),
                })
                .insert(Header {
                    key: "silver_version",
                    value: Some(&version),
                });
            let mut record = BaseRecord::to(&self.topic).payload(line).key(&key).headers(headers);
            while let Err((error, returned)) = self.relay.producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(kafka("publish a row")(error));
                }
                std::thread::sleep(FULL_PAUSE);
                record = returned;
            }
            self.rows += 1;
        }
        Ok(())
    }

    /// Makes the rows visible and moves the view's position to `next_minute`; gives their number.
    ///
    /// # Errors
    /// Nothing of the transaction is visible then.
    pub fn commit(mut self, next_minute: i64) -> Result<usize, RelayError> {
        let mut position = TopicPartitionList::new();
        position
            .add_partition_offset(&self.topic, 0, Offset::Offset(next_minute))
            .map_err(kafka("name the position"))?;
        let producer = &self.relay.producer;
        if let Some(group) = self.relay.positions.group_metadata() {
            producer
                .send_offsets_to_transaction(&position, &group, PATIENCE)
                .map_err(kafka("move the position"))?;
        }
        producer.commit_transaction(PATIENCE).map_err(kafka("commit a transaction"))?;
        self.is_open = false;
        Ok(self.rows)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // What fails here is given up by the next `open`.
            let _ = self.relay.producer.abort_transaction(PATIENCE);
        }
    }
}
