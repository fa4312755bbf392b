//! What the group and the brokers tell the member: partitions given and taken, commits answered, trouble.
//!
//! librdkafka calls this from the member's own thread, while it polls.
//!
//! Invariant: a partition that is given is paused before anything of it is read.
//! Invariant: before a partition goes, the daemon has had the time to finish what it was handed, and
//! what it has committed is at the broker; both waits are bounded.
//! Invariant: trouble is told once for each change of state.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::KafkaSettings;
use super::books::{Books, TopicPartition};
use super::lag::LogView;
use super::place::metadata_of;
use super::shared::Shared;
use crate::source::SourceError;

/// How long a partition that is taken from us waits for the daemon to finish what it was handed: a commit
/// on object storage. Far below the five minutes that the group gives a member.
const HANDOVER_WAIT: Duration = Duration::from_secs(15);
/// How long offsets are waited for to reach the broker before a partition goes.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// How long a place to park new partitions at is looked for; without one it is 0, and should that be outside of the
/// log, the member joins anew.
const PARK_WAIT: Duration = Duration::from_secs(5);
/// Commits refused in a row before somebody is told: a rebalance refuses one or two.
const REFUSED_COMMITS_TOLD: u32 = 10;
/// How often it is said that no broker answers: far more often than a complaint is forgotten.
const TOLD_AGAIN: Duration = Duration::from_secs(30);
/// Longest part of librdkafka's own words in an error, characters.
const REASON_CHARS_MAX: usize = 300;

pub type GroupConsumer = BaseConsumer<Group>;

/// The group's side of the member.
pub struct Group {
    settings: Arc<KafkaSettings>,
    shared: Arc<Shared>,
    /// Set once the consumer stands; a flush that takes too long keeps it alive by itself.
    consumer: OnceLock<Weak<GroupConsumer>>,
    is_unreachable: AtomicBool,
    must_rejoin: AtomicBool,
    refused_commits: AtomicU32,
    /// What was told, by its code.
    told: Mutex<BTreeMap<String, Told>>,
}

struct Told {
    what: String,
    advice: &'static str,
    at: Instant,
}

impl Group {
    pub fn new(settings: Arc<KafkaSettings>, shared: Arc<Shared>) -> Group {
        Group {
            settings,
            shared,
            consumer: OnceLock::new(),
            is_unreachable: AtomicBool::new(false),
            must_rejoin: AtomicBool::new(false),
            refused_commits: AtomicU32::new(0),
            told: Mutex::default(),
        }
    }

    pub fn is_run_by(&self, consumer: &Arc<GroupConsumer>) {
        self.consumer.get_or_init(|| Arc::downgrade(consumer));
    }

    pub fn is_unreachable(&self) -> bool {
        self.is_unreachable.load(Ordering::Relaxed)
    }

    /// The consumer is of no more use: it has to be made anew.
    pub fn must_rejoin(&self) -> bool {
        self.must_rejoin.load(Ordering::Relaxed)
    }

    pub fn rejoin(&self) {
        self.must_rejoin.store(true, Ordering::Relaxed);
    }

    /// Something came from a broker.
    pub fn is_reached(&self) {
        if self.is_unreachable.swap(false, Ordering::Relaxed) {
            tracing::info!(source = self.settings.name, "the Kafka brokers answer again");
            self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    pub fn tell(&self, what: String, advice: &str) {
        let error = SourceError {
            source_name: self.settings.name.clone(),
            what,
            advice: advice.to_string(),
        };
        if let Some(error) = self.shared.change(|books| books.tell(error)) {
            tracing::warn!(%error, "the daemon has not asked for errors for long");
        }
    }

    /// Takes partitions out of reading and sees to it that what is committed of them reaches the broker.
    pub fn leave(&self, places: &[TopicPartition], is_ours: bool) {
        self.shared.change(|books| books.begin_leaving(places));
        if !is_ours {
            return;
        }
        let is_done = |books: &Books| books.is_stopping || books.is_handed_over(places);
        if !self.shared.wait_until(HANDOVER_WAIT, is_done) {
            tracing::warn!(
                source = self.settings.name,
                partitions = places.len(),
                "partitions leave before their records were committed: whoever has them now reads the records again"
            );
        }
        let unconfirmed = self.shared.lock().unconfirmed(places);
        self.flush(unconfirmed);
    }

    /// Commits and waits for the answer, within a bound.
    fn flush(&self, offsets: Vec<(TopicPartition, i64)>) {
        let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) else {
            return;
        };
        if offsets.is_empty() {
            return;
        }
        let list = commit_list(&offsets, &self.settings.lake_id);
        let (answer, answered) = channel();
        let commit = move || {
            // Nobody listens any more when it has taken too long.
            let _ = answer.send(consumer.commit(&list, CommitMode::Sync));
        };
        let began = std::thread::Builder::new().name("kafka-flush".to_string()).spawn(commit);
        let result = began.map(|_| answered.recv_timeout(FLUSH_WAIT));
        if let Ok(Ok(Ok(()))) = result {
            return self.shared.change(|books| {
                for ((topic, number), offset) in &offsets {
                    books.confirm(topic, *number, Some(*offset));
                }
            });
        }
        tracing::warn!(
            source = self.settings.name,
            partitions = offsets.len(),
            "offsets did not reach the broker before the partitions left: tools show an older position, the lake has the right one"
        );
    }

    fn assigned(&self, consumer: &GroupConsumer, given: &TopicPartitionList) {
        let places = places_of(given);
        let list = parked(consumer, &places);
        if let Err(error) = consumer.incremental_assign(&list).and_then(|()| consumer.pause(&list)) {
            tracing::warn!(source = self.settings.name, %error, "cannot take partitions over; the group gives them out again");
            return self.rejoin();
        }
        tracing::info!(source = self.settings.name, partitions = places.len(), "partitions are ours");
        self.shared.change(|books| books.assign(&places));
    }

    fn revoked(&self, consumer: &GroupConsumer, taken: &TopicPartitionList) {
        let places = places_of(taken);
        self.leave(&places, !consumer.assignment_lost());
        if let Err(error) = consumer.incremental_unassign(&list_of(&places)) {
            tracing::warn!(source = self.settings.name, %error, "cannot give partitions back in order");
            self.rejoin();
        }
        tracing::info!(
            source = self.settings.name,
            partitions = places.len(),
            "partitions are no longer ours"
        );
        self.shared.change(|books| books.end_leaving(&places));
    }

    /// A commit that was not even sent.
    pub fn commit_refused(&self, error: KafkaError, offsets: &TopicPartitionList) {
        self.commit_callback(Err(error), offsets);
    }

    fn tell_once(&self, code: RDKafkaErrorCode, reason: &str) {
        let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
        let (what, advice) = (format!("Kafka says: {reason} ({code})"), advice_on(code));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Vacant(place) = told.entry(format!("{code:?}")) else {
            return;
        };
        place.insert(Told {
            what: what.clone(),
            advice,
            at: Instant::now(),
        });
        drop(told);
        self.tell(what, advice);
    }

    /// For as long as no broker answers, says again what was said: a complaint that is not repeated counts
    /// as over.
    pub fn remind(&self) {
        if !self.is_unreachable() {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.values_mut().filter(|told| told.at.elapsed() >= TOLD_AGAIN);
        let due: Vec<(String, &'static str)> = due
            .map(|told| {
                told.at = Instant::now();
                (told.what.clone(), told.advice)
            })
            .collect();
        drop(told);
        for (what, advice) in due {
            self.tell(what, advice);
        }
    }
}

fn advice_on(code: RDKafkaErrorCode) -> &'static str {
    use RDKafkaErrorCode as Code;
    match code {
        Code::AllBrokersDown => "check `brokers`, the network and the TLS settings; reading goes on by itself when a broker answers",
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism | Code::SSL => {
            "check the sasl.* and ssl.* properties of the source"
        }
        Code::TopicAuthorizationFailed => "allow the user to describe and read the topic",
        Code::GroupAuthorizationFailed => "allow the user to read the group",
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            "check `topics`; a topic that is made later is taken up by itself"
        }
        Code::Fatal => "the member joins the group anew by itself; is `group.instance.id` used twice?",
        _ => "if it lasts, look at the brokers' logs",
    }
}

/// Trouble that librdkafka mends by itself and that the state of the brokers tells better.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut | Code::PartitionEOF | Code::NodeUpdate
    )
}

impl ClientContext for Group {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes through `error` as well; these lines repeat with every try.
        tracing::debug!(source = self.settings.name, facility, message, "librdkafka");
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.is_reached();
        }
        let mut books = self.shared.lock();
        for (topic, view) in &statistics.topics {
            for (number, view) in &view.partitions {
                let end = if view.ls_offset >= 0 { view.ls_offset } else { view.hi_offset };
                if end < 0 {
                    continue;
                }
                let log = LogView {
                    end,
                    fetch_next: Some(view.next_offset).filter(|next| *next >= 0),
                    fetched: view.fetchq_cnt,
                };
                books.see_log(topic, *number, log);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        match code {
            RDKafkaErrorCode::AllBrokersDown => {
                if !self.is_unreachable.swap(true, Ordering::Relaxed) {
                    self.tell_once(code, reason);
                }
            }
            // A position is outside its log: where to go on is looked up as at a start.
            RDKafkaErrorCode::AutoOffsetReset => self.rejoin(),
            RDKafkaErrorCode::Fatal => {
                self.tell_once(code, reason);
                self.rejoin();
            }
            code if is_passing(code) => tracing::debug!(source = self.settings.name, %code, reason, "librdkafka"),
            code => self.tell_once(code, reason),
        }
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &GroupConsumer, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, partitions),
            _ => self.revoked(consumer, partitions),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let mut refused = result.as_ref().err().cloned();
        let mut books = self.shared.lock();
        for element in offsets.elements() {
            let confirmed = match (&result, element.error(), element.offset()) {
                (Ok(()), Ok(()), Offset::Offset(offset)) => Some(offset),
                (_, Err(error), _) => {
                    refused = Some(error);
                    None
                }
                _ => None,
            };
            books.confirm(element.topic(), element.partition(), confirmed);
        }
        drop(books);
        let Some(error) = refused else {
            return self.refused_commits.store(0, Ordering::Relaxed);
        };
        if self.refused_commits.fetch_add(1, Ordering::Relaxed) + 1 == REFUSED_COMMITS_TOLD {
            let what = format!("the group's offsets cannot be committed: {error}");
            self.tell(
                what,
                "the lake has the right positions and nothing is lost; tools show older ones until it works again",
            );
        }
    }
}

pub fn places_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let place = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| (element.topic().to_string(), element.partition());
    list.elements().into_iter().map(place).collect()
}

pub fn list_of(places: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (topic, number) in places {
        list.add_partition(topic, *number);
    }
    list
}

/// Partitions at a number that is in their log, where nothing is read until `start`.
///
/// Neither without an offset nor at `Offset::End`: librdkafka would ask a broker for the number, and an answer that
/// comes after a seek makes it ask again half a second later and leave the place that was sought
/// (`rd_kafka_toppar_handle_Offset` in 2.12.1), which loses records without a word.
fn parked(consumer: &GroupConsumer, places: &[TopicPartition]) -> TopicPartitionList {
    let began = Instant::now();
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (topic, number) in places {
        let end = match PARK_WAIT.checked_sub(began.elapsed()) {
            Some(wait) => consumer.fetch_watermarks(topic, *number, wait).map_or(0, |(_, end)| end),
            None => 0,
        };
        let mut element = list.add_partition(topic, *number);
        element.set_offset(Offset::Offset(end.max(0))).expect("it is not negative");
    }
    list
}

/// Offsets to commit, in the lake's name.
pub fn commit_list(offsets: &[(TopicPartition, i64)], lake_id: &str) -> TopicPartitionList {
    let metadata = metadata_of(lake_id);
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for ((topic, number), offset) in offsets {
        let mut element = list.add_partition(topic, *number);
        element
            .set_offset(Offset::Offset(*offset))
            .expect("offsets of records are not negative");
        element.set_metadata(&metadata);
    }
    list
}
