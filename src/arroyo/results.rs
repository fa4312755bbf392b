//! Window results out of Kafka: the topics that Arroyo writes to, from given positions on.
//!
//! The consumer has no group's partitions: whoever collects holds the lake's lock, so it takes all of them, from
//! where the tables stand (`rollup::collect` says). Offsets at the broker follow for the tools.
//!
//! Invariant: only what is committed is seen; what the broker has deleted before it was read is told by number.
//! Invariant: what waits in memory is bounded (`QUEUED_KIB_MAX`, and `Room` of who takes it).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// A broker that is away for longer is told, and tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Results that librdkafka keeps ready, all topics together.
const QUEUED_KIB_MAX: &str = "16384";
/// How often new topics and partitions are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often librdkafka tells where the logs end: lag is as old as that.
const STATISTICS_MS: &str = "1000";
/// Longest pause between two tries to reach a broker.
const RECONNECT_MS_MAX: &str = "2000";

/// Properties that are not the settings' to change, and why.
const REFUSED: [(&str, &str); 6] = [
    ("group.id", "positions are kept in the lake"),
    ("bootstrap.servers", "use the setting `brokers`"),
    ("isolation.level", "rows of aborted transactions are never read"),
    ("auto.offset.reset", "lost rows are reported, never skipped"),
    ("enable.auto.commit", "offsets follow the lake"),
    ("statistics.interval.ms", "lag is measured with it"),
];

#[derive(Clone)]
pub struct Settings {
    pub brokers: String,
    pub properties: BTreeMap<String, String>,
    /// Names the collector to the broker's tools.
    pub group: String,
}

/// What keeps results from being read.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    #[error("cannot {act}: {source}; check collect.brokers, and that the gold topics exist and may be read")]
    Kafka {
        act: &'static str,
        #[source]
        source: KafkaError,
    },
    #[error(
        "{topic}/{number} ends at {end}, and rows up to {from} of it are in the table: the topic was made anew; give it a name that was \
         never used (arroyo.topics), and deploy again"
    )]
    MadeAnew { topic: String, number: i32, from: i64, end: i64 },
    #[error("property `{name}` cannot be set in collect.properties: {why}")]
    Property { name: String, why: &'static str },
}

fn kafka(act: &'static str) -> impl Fn(KafkaError) -> ResultsError {
    move |source| ResultsError::Kafka { act, source }
}

/// A partition of one of the topics, by the topic's place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    pub topic: usize,
    pub number: i32,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: Partition,
    pub offset: i64,
    /// `None`: a tombstone.
    pub payload: Option<Vec<u8>>,
}

/// How much is taken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub records: usize,
    pub bytes: usize,
}

/// The next records.
#[derive(Debug, Default)]
pub struct Taken {
    pub records: Vec<Record>,
    /// More waits: the room was used up.
    pub is_full: bool,
    /// What is wrong with the brokers, if something is.
    pub trouble: Option<ResultsError>,
}

/// Where logs end, as librdkafka's statistics tell.
#[derive(Default)]
struct Ends {
    lags: Mutex<HashMap<(String, i32), (i64, bool)>>,
}

impl ClientContext for Ends {
    fn stats(&self, statistics: Statistics) {
        let mut lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, view) in &statistics.topics {
            for (number, view) in view.partitions.iter().filter(|(_, view)| view.ls_offset >= 0) {
                // The marks of transactions are no rows: behind the last one nothing waits.
                let is_at_end = view.fetchq_cnt == 0 && view.next_offset >= view.ls_offset;
                lags.insert((topic.clone(), *number), (view.ls_offset, is_at_end));
            }
        }
    }
}

impl ConsumerContext for Ends {}

/// The topics of the results.
pub struct Results {
    consumer: BaseConsumer<Ends>,
    topics: Vec<Arc<str>>,
    /// Partitions that are read, and what is taken next from each.
    next: BTreeMap<Partition, i64>,
    /// Where logs ended that have not been read so far since they were taken up.
    to_catch_up: BTreeMap<Partition, i64>,
    looked: Option<Instant>,
    /// Topics that are not there, as far as was told.
    missing: BTreeSet<usize>,
}

impl Results {
    /// Sets the consumer up; that the brokers are away is no error here.
    ///
    /// # Errors
    /// A property that may not be set, or that librdkafka does not know.
    pub fn open(settings: &Settings, topics: Vec<String>) -> Result<Results, ResultsError> {
        if let Some((name, why)) = REFUSED.iter().find(|(name, _)| settings.properties.contains_key(*name)) {
            let name = (*name).to_owned();
            return Err(ResultsError::Property { name, why });
        }
        let own = [
            ("client.id", "playhead"),
            ("bootstrap.servers", settings.brokers.as_str()),
            ("group.id", settings.group.as_str()),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("allow.auto.create.topics", "false"),
            ("queued.max.messages.kbytes", QUEUED_KIB_MAX),
            ("statistics.interval.ms", STATISTICS_MS),
            ("reconnect.backoff.max.ms", RECONNECT_MS_MAX),
            ("log.connection.close", "false"),
        ];
        let mut config = ClientConfig::new();
        for (name, value) in own {
            config.set(name, value);
        }
        for (name, value) in &settings.properties {
            config.set(name, value);
        }
        Ok(Results {
            consumer: config
                .create_with_context(Ends::default())
                .map_err(kafka("set the consumer of the gold topics up"))?,
            topics: topics.into_iter().map(Arc::from).collect(),
            next: BTreeMap::new(),
            to_catch_up: BTreeMap::new(),
            looked: None,
            missing: BTreeSet::new(),
        })
    }

    /// Partitions that are not read yet; looks for them now and then.
    ///
    /// # Errors
    /// The broker does not tell.
    pub fn new_partitions(&mut self) -> Result<Vec<Partition>, ResultsError> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(Vec::new());
        }
        let mut new = Vec::new();
        for (topic, name) in self.topics.iter().enumerate() {
            let told = self
                .consumer
                .fetch_metadata(Some(name), PATIENCE)
                .map_err(kafka("look for the gold topics"))?;
            let partitions = told.topics().iter().flat_map(|topic| topic.partitions());
            let found: Vec<Partition> = partitions.map(|found| Partition { topic, number: found.id() }).collect();
            match found.is_empty() {
                true if self.missing.insert(topic) => tracing::warn!("{name}: no such topic yet; create it, or deploy its pipeline"),
                true => {}
                false => _ = self.missing.remove(&topic),
            }
            new.extend(found.into_iter().filter(|partition| !self.next.contains_key(partition)));
        }
        self.looked = Some(Instant::now());
        Ok(new)
    }

    /// Reads a partition from an offset on, or from its beginning; tells how many records are gone before they were read.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn start(&mut self, partition: Partition, from: Option<i64>) -> Result<u64, ResultsError> {
        let act = "begin to read a gold topic";
        let topic = Arc::clone(&self.topics[partition.topic]);
        let bounds = self.consumer.fetch_watermarks(&topic, partition.number, PATIENCE);
        let (first, end) = bounds.map_err(kafka(act))?;
        if let Some(from) = from.filter(|from| *from > end) {
            return Err(ResultsError::MadeAnew {
                topic: topic.to_string(),
                number: partition.number,
                from,
                end,
            });
        }
        let begin = from.unwrap_or(first).max(first);
        let lost = from.map_or(0, |from| u64::try_from(begin - from).unwrap_or(0));
        let mut one = TopicPartitionList::new();
        one.add_partition_offset(&topic, partition.number, Offset::Offset(begin))
            .and_then(|()| self.consumer.incremental_assign(&one))
            .map_err(kafka(act))?;
        self.next.insert(partition, begin);
        self.lags().remove(&(topic.to_string(), partition.number));
        if begin < end {
            self.to_catch_up.insert(partition, end);
        }
        Ok(lost)
    }

    /// Takes what is there, or waits this long for something.
    pub fn take(&mut self, room: Room, patience: Duration) -> Taken {
        let mut taken = Taken::default();
        let mut bytes = 0;
        // The first record is worth waiting for; the others are there already.
        let mut wait = patience;
        while let Some(polled) = self.consumer.poll(wait) {
            let message = match polled {
                Ok(message) => message,
                Err(error) => {
                    self.forget_if_out_of_range(&error);
                    taken.trouble = Some(kafka("read the gold topics")(error));
                    break;
                }
            };
            wait = Duration::ZERO;
            let Some(topic) = self.topics.iter().position(|name| **name == *message.topic()) else {
                continue;
            };
            let partition = Partition {
                topic,
                number: message.partition(),
            };
            let payload = message.payload().map(<[u8]>::to_vec);
            bytes += payload.as_ref().map_or(0, Vec::len);
            self.next.insert(partition, message.offset() + 1);
            taken.records.push(Record {
                partition,
                offset: message.offset(),
                payload,
            });
            if taken.records.len() >= room.records || bytes >= room.bytes {
                taken.is_full = true;
                break;
            }
        }
        self.note_caught_up();
        taken
    }

    fn note_caught_up(&mut self) {
        if self.to_catch_up.is_empty() {
            return;
        }
        let mut to_catch_up = std::mem::take(&mut self.to_catch_up);
        to_catch_up.retain(|partition, end| {
            let told = (self.topics[partition.topic].to_string(), partition.number);
            let is_at_end = self.lags().get(&told).is_some_and(|(_, is_at_end)| *is_at_end);
            self.next.get(partition).is_some_and(|next| next < end) && !is_at_end
        });
        self.to_catch_up = to_catch_up;
    }

    /// True until all that was there when the partitions were taken up has been taken.
    pub fn is_catching_up(&self) -> bool {
        !self.to_catch_up.is_empty()
    }

    fn lags(&self) -> MutexGuard<'_, HashMap<(String, i32), (i64, bool)>> {
        self.consumer.context().lags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Retention has overtaken us: the partitions are taken up anew, and `start` tells what is gone.
    fn forget_if_out_of_range(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        if !matches!(code, Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset)) {
            return;
        }
        let mut all = TopicPartitionList::new();
        for partition in self.next.keys() {
            all.add_partition(&self.topics[partition.topic], partition.number);
        }
        // What is not unassigned is refused by the next assignment, and that is told.
        let _ = self.consumer.incremental_unassign(&all);
        self.next.clear();
        self.to_catch_up.clear();
        self.looked = None;
    }

    /// The lake has committed up to here; the broker is told for the tools, and may miss it.
    pub fn committed(&self, positions: impl Iterator<Item = (Partition, i64)>) {
        let mut list = TopicPartitionList::new();
        for (partition, next) in positions {
            let _ = list.add_partition_offset(&self.topics[partition.topic], partition.number, Offset::Offset(next));
        }
        if list.count() > 0 {
            let _ = self.consumer.commit(&list, CommitMode::Async);
        }
    }

    /// Records of a topic that wait; `None`: it is not known yet.
    pub fn lag(&self, topic: usize) -> Option<u64> {
        let lags = self.lags();
        let mut waiting = 0;
        for (partition, next) in self.next.iter().filter(|(partition, _)| partition.topic == topic) {
            let (end, is_at_end) = lags.get(&(self.topics[topic].to_string(), partition.number))?;
            waiting += if *is_at_end { 0 } else { u64::try_from(end - next).unwrap_or(0) };
        }
        Some(waiting)
    }
}
