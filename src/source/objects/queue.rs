//! Discovery by notification: messages of a queue, held until every object they name is committed.
//!
//! Serves the objects source. The desk knows which message waits for which object; a watcher receives,
//! a keeper holds messages back from others and deletes those that are done.
//!
//! Invariant: a message is deleted only when each object that it names is in the lake, or has nothing to
//! be read. A message that names a damaged object, or none that can be understood, is left to the
//! queue, which sends it again and in the end moves it to its dead-letter queue.
//! Invariant: at most `MESSAGES_MAX` messages are held; then no more are received.

pub mod sqs;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use object_store::path::Path;
use tokio::sync::Notify;

use super::flight::{Announcer, Outcome, Standing};
use super::listing::Selection;
use super::notices::{Notice, parse};

/// Messages in hand. A message names seldom more than one object, and a thousand objects are under way.
pub const MESSAGES_MAX: usize = 1_000;
/// Messages that one request receives, deletes or extends: the most that SQS takes.
pub const BATCH: usize = 10;
/// Wait of a receiving request for messages: the most that SQS allows.
const RECEIVE_WAIT: Duration = Duration::from_secs(20);
/// Messages that are worked on side by side, of each received batch.
const LOOKS_AT_ONCE: usize = 8;
/// Waits after a request to the queue failed.
const RETRY_WAIT: Duration = Duration::from_secs(1);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often within its time a message is held back again: two requests may fail.
const HOLDS_PER_TIME: u32 = 3;
/// Holding back more often helps nobody.
const HOLD_EVERY_MIN: Duration = Duration::from_millis(10);
/// Deletions that failed and are tried again; past it the messages come again and are found done.
const DELETIONS_MAX: usize = 10_000;

/// A message as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    /// Names this one delivery of the message.
    pub receipt: String,
    pub body: String,
}

/// A queue of messages; `Err` says why a request failed.
pub trait Queue: Send + Sync {
    /// Up to `BATCH` messages, waiting for the first.
    fn receive(&self, wait: Duration, hold: Duration) -> BoxFuture<'_, Result<Vec<Message>, String>>;

    /// Deletes up to `BATCH` deliveries; returns those that could not be.
    fn delete(&self, receipts: Vec<String>) -> BoxFuture<'_, Result<Vec<String>, String>>;

    /// Holds up to `BATCH` deliveries back for so long from now.
    fn hold(&self, receipts: Vec<String>, hold: Duration) -> BoxFuture<'_, Result<(), String>>;
}

/// Which message waits for which object.
#[derive(Default)]
pub struct Desk {
    state: Mutex<DeskState>,
    /// Something can be deleted, a place is free, or the desk closes.
    changed: Notify,
    closed: Condvar,
}

#[derive(Default)]
struct DeskState {
    held: HashMap<String, Held>,
    /// Receipts of messages that are done.
    done: Vec<String>,
    is_closing: bool,
    is_closed: bool,
}

struct Held {
    receipt: String,
    waits_for: HashSet<u128>,
    /// Its objects are still being looked up.
    is_open: bool,
}

impl Desk {
    /// `false`: it is in hand already, and this delivery of it replaces the former one.
    fn take(&self, message: &Message) -> bool {
        let mut state = self.state();
        if let Some(held) = state.held.get_mut(&message.id) {
            held.receipt.clone_from(&message.receipt);
            return false;
        }
        let held = Held {
            receipt: message.receipt.clone(),
            waits_for: HashSet::new(),
            is_open: true,
        };
        state.held.insert(message.id.clone(), held);
        true
    }

    /// A message waits for an object.
    pub fn attach(&self, message: &str, object: u128) {
        if let Some(held) = self.state().held.get_mut(message) {
            held.waits_for.insert(object);
        }
    }

    /// All objects of a message are looked up.
    fn close(&self, message: &str) {
        let mut state = self.state();
        if let Some(held) = state.held.get_mut(message) {
            held.is_open = false;
        }
        self.collect(state);
    }

    /// A message is left to the queue.
    fn leave(&self, message: &str) {
        self.state().held.remove(message);
        self.changed.notify_waiters();
    }

    /// An object is in the lake, or there is nothing to read of it.
    pub fn settle(&self, object: u128) {
        let mut state = self.state();
        for held in state.held.values_mut() {
            held.waits_for.remove(&object);
        }
        self.collect(state);
    }

    /// An object cannot be read: the messages that name it are left to the queue.
    pub fn give_up(&self, object: u128) {
        self.state().held.retain(|_, held| !held.waits_for.contains(&object));
        self.changed.notify_waiters();
    }

    fn collect(&self, mut state: MutexGuard<'_, DeskState>) {
        let DeskState { held, done, .. } = &mut *state;
        held.retain(|_, held| {
            let is_done = !held.is_open && held.waits_for.is_empty();
            if is_done && done.len() < DELETIONS_MAX {
                done.push(held.receipt.clone());
            }
            !is_done
        });
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn messages(&self) -> usize {
        self.state().held.len()
    }

    /// No further work: what is done is deleted, the rest is given back at once.
    pub fn begin_closing(&self) {
        self.state().is_closing = true;
        self.changed.notify_waiters();
    }

    /// Waits until the keeper has done what `begin_closing` asked for.
    pub fn wait_closed(&self, at_most: Duration) {
        let waited = self.closed.wait_timeout_while(self.state(), at_most, |state| !state.is_closed);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn state(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits that grow while requests fail.
struct Backoff(Duration);

impl Backoff {
    /// Nothing has failed yet.
    fn is_fresh(&self) -> bool {
        self.0 == RETRY_WAIT
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(RETRY_WAIT_MAX);
    }
}

/// The task that receives messages and announces what they name.
pub struct Watcher {
    pub queue: Arc<dyn Queue>,
    pub desk: Arc<Desk>,
    pub announcer: Announcer,
    pub selection: Selection,
    pub hold: Duration,
}

impl Watcher {
    pub async fn run(self) {
        let mut backoff = Backoff(RETRY_WAIT);
        loop {
            self.wait_for_room().await;
            match self.queue.receive(RECEIVE_WAIT, self.hold).await {
                Ok(messages) => {
                    if !backoff.is_fresh() {
                        tracing::info!(source = self.announcer.source_name, "the queue gives messages again");
                    }
                    backoff = Backoff(RETRY_WAIT);
                    let works = futures_util::stream::iter(messages);
                    works.for_each_concurrent(LOOKS_AT_ONCE, |message| self.work_on(message)).await;
                }
                Err(why) => {
                    // Once, and not with every try.
                    if backoff.is_fresh() {
                        let what = format!("the queue gives no messages: {why}");
                        self.announcer
                            .report(what, "check `queue_url` and that sqs:ReceiveMessage is allowed; it is tried again");
                    }
                    backoff.wait().await;
                }
            }
        }
    }

    async fn wait_for_room(&self) {
        loop {
            let changed = self.desk.changed.notified();
            if self.desk.messages() + BATCH <= MESSAGES_MAX {
                return;
            }
            // Notified of a change that came in between at the latest with the next one.
            let _ = tokio::time::timeout(RETRY_WAIT, changed).await;
        }
    }

    async fn work_on(&self, message: Message) {
        let Ok(notices) = parse(&message.body) else {
            let what = format!("message {} of the queue is no event of S3", message.id);
            return self.announcer.report(what, "it is left to the queue; let only S3 events reach it");
        };
        if !self.desk.take(&message) {
            return;
        }
        for notice in notices {
            if self.announce(&message.id, &notice).await == Outcome::Left {
                return self.desk.leave(&message.id);
            }
        }
        self.desk.close(&message.id);
    }

    async fn announce(&self, message: &str, notice: &Notice) -> Outcome {
        let bucket = &self.announcer.bucket;
        let is_ours =
            notice.bucket == bucket.bucket_name() && self.selection.takes_start(&notice.key) && self.selection.takes_name(&notice.key);
        if !is_ours || notice.size_bytes == Some(0) {
            return Outcome::Settled;
        }
        let Ok(path) = Path::parse(&notice.key) else {
            let what = format!(
                "the key of an object in `{}` cannot be read: it has empty or relative parts",
                notice.bucket
            );
            self.announcer
                .report(what, "its message is left to the queue; write keys without `//`, `.` and `..`");
            return Outcome::Left;
        };
        // A version that is in the lake need not be fetched to know so; without its time the ledger's
        // horizon is not asked.
        if let Some(e_tag) = &notice.e_tag {
            let partition = bucket.partition(path.as_ref(), e_tag);
            if self.announcer.flight.standing(&partition, i64::MAX) == Some(Standing::Finished) {
                return Outcome::Settled;
            }
        }
        self.announcer.announce(&path, Some(message)).await
    }
}

/// The task that holds messages back while they are worked on and deletes those that are done.
pub struct Keeper {
    pub queue: Arc<dyn Queue>,
    pub desk: Arc<Desk>,
    pub hold: Duration,
}

impl Keeper {
    /// Ends when the desk closes.
    pub async fn run(self) {
        let mut holds = tokio::time::interval((self.hold / HOLDS_PER_TIME).max(HOLD_EVERY_MIN));
        holds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        holds.tick().await;
        loop {
            let changed = self.desk.changed.notified();
            self.delete_done().await;
            if self.desk.state().is_closing {
                return self.give_back().await;
            }
            tokio::select! {
                () = changed => {}
                _ = holds.tick() => self.hold_all(self.hold).await,
            }
        }
    }

    async fn delete_done(&self) {
        let mut done = std::mem::take(&mut self.desk.state().done);
        let mut again = Vec::new();
        while !done.is_empty() {
            let batch = done.split_off(done.len().saturating_sub(BATCH));
            match self.queue.delete(batch.clone()).await {
                Ok(undeleted) => again.extend(undeleted),
                Err(why) => {
                    tracing::warn!("messages cannot be deleted from the queue, it is tried again: {why}");
                    again.extend(batch);
                    again.append(&mut done);
                }
            }
        }
        self.desk.state().done.append(&mut again);
    }

    async fn hold_all(&self, hold: Duration) {
        let receipts: Vec<String> = self.desk.state().held.values().map(|held| held.receipt.clone()).collect();
        for batch in receipts.chunks(BATCH) {
            if let Err(why) = self.queue.hold(batch.to_vec(), hold).await {
                tracing::warn!("messages cannot be held back, others may receive them too: {why}");
                return;
            }
        }
    }

    async fn give_back(&self) {
        self.hold_all(Duration::ZERO).await;
        self.desk.state().is_closed = true;
        self.desk.closed.notify_all();
    }
}
