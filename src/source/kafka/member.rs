//! The member of the consumer group: one thread that polls, places, reads and commits.
//!
//! It polls at all times, so that the group keeps it while the daemon commits for minutes: when the
//! queue is full it stops reading, and if that lasts it pauses the partitions and polls on.
//!
//! Invariant: a partition is read only after `start` has said from where.
//! Invariant: at most `queue_bytes` wait, ours and librdkafka's together, and one fetch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::Offset;

use super::attributes::{self, Beside};
use super::books::{Books, Starting, Taken, TopicPartition, name_of};
use super::group::{Group, GroupConsumer, commit_list, list_of};
use super::place::{self, Committed, LogSpan, Place, Wanted};
use super::shared::Shared;
use super::{KafkaSettings, properties};
use crate::source::SourceError;

/// One look at the brokers' events; `start` and `stop` wait at most this long.
const POLL_WAIT: Duration = Duration::from_millis(50);
/// Messages taken before starts and commits are looked at again.
const BURST_MESSAGES: usize = 1000;
/// How long the queue may be full before the partitions are paused: pausing throws away what librdkafka has
/// fetched, and the daemon usually comes back sooner.
const FULL_PATIENCE: Duration = Duration::from_secs(1);
/// Offsets go to the broker this often.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Offsets that the broker has not confirmed go again this often.
const RESEND_EVERY: Duration = Duration::from_secs(5);
/// While partitions are paused, the ends of their logs are asked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for one question to a broker.
const ASK_WAIT: Duration = Duration::from_secs(2);
/// Longest time that questions keep us from polling in a row.
const ASK_ROUND: Duration = Duration::from_secs(5);
/// A start that did not work is tried again after this, then twice this, and so on.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Doublings that go past `RETRY_MAX`.
const RETRY_DOUBLINGS_MAX: u32 = 10;
/// Tries before somebody is told.
const TRIES_TOLD: u32 = 6;
/// Pause before a consumer is made anew.
const REJOIN_WAIT: Duration = Duration::from_secs(1);
/// Pause before a consumer that could not be made is tried again.
const REMAKE_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// The queue has been full since then; nothing is polled.
    Full(Instant),
    Paused,
}

/// A consumer in its group.
pub struct Member {
    settings: Arc<KafkaSettings>,
    shared: Arc<Shared>,
    consumer: Arc<GroupConsumer>,
    flow: Flow,
    next_commit: Instant,
    next_resend: Instant,
    next_look: Instant,
    /// Attributes of the message in hand.
    text: Vec<u8>,
}

/// Runs members one after the other until the source is stopped.
pub fn run(settings: &Arc<KafkaSettings>, shared: &Arc<Shared>, first: Member) {
    let mut next = Some(first);
    while !shared.lock().is_stopping {
        let wait = match next.take() {
            Some(member) => {
                member.serve();
                REJOIN_WAIT
            }
            None => match Member::join(settings, shared) {
                Ok(member) => {
                    next = Some(member);
                    Duration::ZERO
                }
                Err(error) => {
                    shared.change(|books| books.tell(error));
                    REMAKE_WAIT
                }
            },
        };
        shared.wait_until(wait, |books| books.is_stopping);
    }
}

impl Member {
    /// Makes a consumer and subscribes; nothing waits for the network here.
    ///
    /// # Errors
    /// librdkafka refuses a property or a topic's pattern.
    pub fn join(settings: &Arc<KafkaSettings>, shared: &Arc<Shared>) -> Result<Member, SourceError> {
        let refused = |what: String| SourceError {
            source_name: settings.name.clone(),
            what,
            advice: "correct the source's settings (librdkafka's CONFIGURATION.md lists the properties)".to_string(),
        };
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        for (name, value) in properties::of(settings) {
            config.set(name, value);
        }
        let group = Group::new(Arc::clone(settings), Arc::clone(shared));
        let consumer: GroupConsumer = config.create_with_context(group).map_err(|error| refused(without_value(&error)))?;
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        let subscribed = consumer.subscribe(&topics);
        subscribed.map_err(|error| refused(format!("cannot subscribe to `topics`: {error}")))?;
        let consumer = Arc::new(consumer);
        consumer.context().is_run_by(&consumer);
        Ok(Member {
            settings: Arc::clone(settings),
            shared: Arc::clone(shared),
            consumer,
            flow: Flow::Open,
            next_commit: Instant::now() + COMMIT_EVERY,
            next_resend: Instant::now() + RESEND_EVERY,
            next_look: Instant::now(),
            text: Vec::new(),
        })
    }

    fn group(&self) -> &Group {
        self.consumer.context()
    }

    /// Reads until the source stops or the consumer has to be made anew, and leaves the group.
    fn serve(mut self) {
        while !self.group().must_rejoin() && !self.shared.lock().is_stopping {
            self.start_due();
            self.seek_again();
            self.commit_due();
            self.read();
        }
        let all = self.shared.lock().all();
        self.group().leave(&all, true);
        let shared = Arc::clone(&self.shared);
        // Dropping the consumer closes it: the group hears that we leave.
        drop(self);
        shared.change(|books| {
            let rest: Vec<_> = books.all().into_iter().filter(|place| !all.contains(place)).collect();
            books.begin_leaving(&rest);
            books.end_leaving(&rest);
            books.end_leaving(&all);
        });
    }

    // Reading.

    fn queue_bytes_max(&self) -> usize {
        self.settings.queue_bytes / 2
    }

    fn read(&mut self) {
        let queued = self.shared.lock().queued_bytes();
        let bound = self.queue_bytes_max();
        match self.flow {
            Flow::Open if queued >= bound => self.flow = Flow::Full(Instant::now()),
            Flow::Open => self.poll_burst(bound),
            Flow::Full(_) if queued < bound => self.flow = Flow::Open,
            Flow::Full(since) if since.elapsed() >= FULL_PATIENCE => self.pause(),
            Flow::Full(_) => {
                let has_room = |books: &Books| books.is_stopping || books.queued_bytes() < bound;
                self.shared.wait_until(POLL_WAIT, has_room);
            }
            Flow::Paused if queued <= bound / 2 => self.resume(),
            Flow::Paused => {
                self.poll_burst(bound);
                self.look_at_ends();
            }
        }
    }

    fn pause(&mut self) {
        tracing::debug!(source = self.settings.name, "the queue is full: reading pauses");
        self.flow = Flow::Paused;
        self.pause_or_resume(|consumer, list| consumer.pause(list));
    }

    fn resume(&mut self) {
        tracing::debug!(source = self.settings.name, "the queue has room: reading goes on");
        self.flow = Flow::Open;
        self.pause_or_resume(|consumer, list| consumer.resume(list));
    }

    fn pause_or_resume(&self, act: impl Fn(&GroupConsumer, &rdkafka::TopicPartitionList) -> KafkaResult<()>) {
        let reading = self.shared.lock().reading();
        if let Err(error) = act(&self.consumer, &list_of(&reading)) {
            tracing::warn!(source = self.settings.name, %error, "cannot pause or resume partitions; the member joins anew");
            self.group().rejoin();
        }
    }

    /// The statistics know no end of a log that is not read: the lag of a long pause has to be asked for.
    fn look_at_ends(&mut self) {
        self.group().remind();
        if self.next_look > Instant::now() || self.group().is_unreachable() {
            return;
        }
        let reading = self.shared.lock().reading();
        let began = Instant::now();
        for at in reading.iter().take_while(|_| began.elapsed() < ASK_ROUND) {
            if let Ok((_, end)) = self.consumer.fetch_watermarks(&at.0, at.1, ASK_WAIT) {
                self.shared.change(|books| books.see_end(at, end));
            }
        }
        self.next_look = Instant::now() + LOOK_EVERY;
    }

    fn poll_burst(&mut self, bound: usize) {
        let mut wait = POLL_WAIT;
        for _ in 0..BURST_MESSAGES {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    let queued = take(&self.shared, &mut self.text, &message);
                    if queued >= bound {
                        return;
                    }
                }
                Some(Err(KafkaError::MessageConsumptionFatal(_))) => return self.group().rejoin(),
                // `Group::error` has seen it.
                Some(Err(_)) => {}
                None => return,
            }
            wait = Duration::ZERO;
        }
    }

    // Committing.

    fn commit_due(&mut self) {
        let now = Instant::now();
        if now < self.next_commit {
            return;
        }
        self.next_commit = now + COMMIT_EVERY;
        let is_resend = now >= self.next_resend;
        if is_resend {
            self.next_resend = now + RESEND_EVERY;
        }
        let unsent = self.shared.change(|books| {
            if is_resend {
                books.forget_unanswered();
            }
            books.take_unsent()
        });
        if unsent.is_empty() {
            return;
        }
        let list = commit_list(&unsent, &self.settings.lake_id);
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            self.group().commit_refused(error, &list);
        }
    }

    // Starting.

    fn start_due(&mut self) {
        let began = Instant::now();
        let due = self.shared.lock().due_starts(began);
        if due.is_empty() {
            return;
        }
        let places: Vec<TopicPartition> = due.iter().map(|(place, _)| place.clone()).collect();
        let committed = self.consumer.committed_offsets(list_of(&places), ASK_WAIT);
        for (place, starting) in due {
            if began.elapsed() > ASK_ROUND {
                return;
            }
            let started = match &committed {
                Ok(committed) => committed_of(committed, &place).and_then(|committed| self.start(&place, &starting, committed.as_ref())),
                Err(error) => Err(error.clone()),
            };
            if let Err(error) = started {
                self.put_off(&place, starting, &error);
            }
        }
    }

    fn start(&self, at: &TopicPartition, starting: &Starting, committed: Option<&Committed>) -> KafkaResult<()> {
        let wanted = place::wanted(starting.lake_mark, committed, &self.settings.lake_id, self.settings.start);
        let (first, end) = self.consumer.fetch_watermarks(&at.0, at.1, ASK_WAIT)?;
        match place::placed(wanted, LogSpan { first, end }) {
            Place::Beyond { wanted, end } => self.hold(at, starting, wanted, end),
            Place::From { offset, lost } => {
                self.seek(at, offset)?;
                if lost > 0 {
                    self.tell_lost(at, offset, lost);
                }
                tracing::info!(source = self.settings.name, partition = %name_of(&at.0, at.1), offset, "reading begins");
                // Not another lake's place, nor one past lost records: our lake has not committed up to there.
                let is_ours = matches!(wanted, Wanted::Setting(_)) || starting.lake_mark == Some(offset);
                self.shared.change(|books| books.begin_reading(at, offset, end, is_ours));
            }
        }
        Ok(())
    }

    fn seek(&self, at: &TopicPartition, offset: i64) -> KafkaResult<()> {
        let mut list = list_of(std::slice::from_ref(at));
        list.set_all_offsets(Offset::Offset(offset))?;
        let sought = self.consumer.seek_partitions(list, ASK_WAIT)?;
        for element in sought.elements() {
            element.error()?;
        }
        match self.flow {
            Flow::Paused => Ok(()),
            Flow::Open | Flow::Full(_) => self.consumer.resume(&list_of(std::slice::from_ref(at))),
        }
    }

    /// Goes once more to the places of partitions that began with a gap.
    fn seek_again(&self) {
        let doubted = self.shared.lock().doubted();
        for (place, offset) in doubted {
            match self.seek(&place, offset) {
                Ok(()) => self.shared.change(|books| books.sought_again(&place)),
                Err(error) => {
                    tracing::debug!(source = self.settings.name, %error, "a place cannot be sought again");
                    return self.group().rejoin();
                }
            }
        }
    }

    fn tell_lost(&self, at: &TopicPartition, offset: i64, lost: i64) {
        let name = name_of(&at.0, at.1);
        let wanted = offset - lost;
        let what = format!(
            "{lost} offsets of {name} are lost: the broker deleted {wanted} to {} before they were read",
            offset - 1
        );
        self.group()
            .tell(what, "reading goes on at the earliest that is there; raise the topic's retention");
    }

    fn hold(&self, at: &TopicPartition, starting: &Starting, wanted: i64, end: i64) {
        if !starting.is_told {
            let name = name_of(&at.0, at.1);
            let what = format!("{name} is not read: the lake has it up to offset {wanted}, and the broker's log ends at {end}");
            let advice = "the topic was made anew or a broker lost records; write to a topic of another name, or restore the log";
            self.group().tell(what, advice);
        }
        let retry = Starting {
            retry_at: Some(Instant::now() + RETRY_MAX),
            is_told: true,
            ..starting.clone()
        };
        self.shared.change(|books| books.put_off_start(at, retry));
    }

    fn put_off(&self, at: &TopicPartition, mut starting: Starting, error: &KafkaError) {
        let wait = RETRY_FIRST * 2_u32.pow(starting.tries.min(RETRY_DOUBLINGS_MAX));
        starting.tries = starting.tries.saturating_add(1);
        starting.retry_at = Some(Instant::now() + wait.min(RETRY_MAX));
        if starting.tries >= TRIES_TOLD && !starting.is_told && !self.group().is_unreachable() {
            starting.is_told = true;
            let what = format!("cannot find the place in {}: {error}", name_of(&at.0, at.1));
            self.group()
                .tell(what, "it is tried again by itself; look at the broker that leads the partition");
        }
        self.shared.change(|books| books.put_off_start(at, starting));
    }
}

/// Queues a message; returns what is queued then, bytes.
fn take(shared: &Shared, text: &mut Vec<u8>, message: &BorrowedMessage<'_>) -> usize {
    let payload = message.payload();
    let beside = Beside {
        key: message.key(),
        timestamp: message.timestamp(),
        is_tombstone: payload.is_none(),
    };
    let headers = message.headers().into_iter().flat_map(|headers| {
        // The crate panics over a name that is no text; such a header is kept without its name.
        let read = move |index| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| headers.try_get(index))).unwrap_or(None);
        (0..headers.count()).map(read)
    });
    let headers = headers.map(|header| header.map_or(("?", None), |header| (header.key, header.value)));
    attributes::write(text, beside, headers);
    let taken = Taken {
        offset: message.offset(),
        payload,
        attributes: text,
        timestamp_ms: message.timestamp().to_millis(),
    };
    let mut books = shared.lock();
    books.take_in(message.topic(), message.partition(), taken);
    books.queued_bytes()
}

fn committed_of(list: &rdkafka::TopicPartitionList, place: &TopicPartition) -> KafkaResult<Option<Committed>> {
    let Some(element) = list.find_partition(&place.0, place.1) else {
        return Ok(None);
    };
    element.error()?;
    Ok(match element.offset() {
        Offset::Offset(offset) => Some(Committed {
            offset,
            metadata: element.metadata().to_string(),
        }),
        _ => None,
    })
}

/// librdkafka's own words hold the value, which may be a secret.
fn without_value(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => format!("librdkafka refuses the property `{name}` or its value"),
        error => format!("librdkafka cannot make a consumer: {error}"),
    }
}
