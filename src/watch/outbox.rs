//! The outbox: messages that wait for their targets, and the courier's rounds.
//!
//! Stands between `watch`, which stores transitions and hands their messages in, and `notify`, which sends.
//! It works on a task of its own with its own hold of the lake, so that no target holds up a window, and no
//! window holds up a message.
//!
//! Invariant: what is handed in is in the lake already; an acknowledgement is a row there. So a crash at any
//! moment loses nothing, and repeats no more than what was not acknowledged, with the same ids.
//! Invariant: memory is bounded: what does not fit stays in the lake and is read from there later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, watch as signal};

use super::ledger::{Ledger, Rows};
use crate::alert::rule::Target;
use crate::clock::Clock;
use crate::lake::tables::ALERT_EVENTS;
use crate::lake::{Commit, Lake, LakeError};
use crate::notify::courier::{Means, Rest, carry};
use crate::notify::outbox::{Answer, Done, Entry, Lane, MESSAGES_MAX, Next};
use crate::notify::{Attempt, Message, Notifier};

/// A round ends after this long at a target: acknowledgements are stored by then, and new messages are let in.
const ROUND_MS: i64 = 5_000;
/// Between two rounds at most: a target that is back, and a lake that is, are found within this time.
const REST_MAX_MS: i64 = 1_000;
/// A trouble that stays the same is logged this often: a lane may try ten times in its first seconds.
const LOG_EVERY_MS: i64 = 60_000;

type Letter = Arc<Message>;
type Targets = BTreeMap<String, Target>;

/// Messages on their way from the lake to their targets.
pub struct Outbox {
    lake: Arc<Lake>,
    notifier: Notifier,
    clock: Arc<dyn Clock>,
    inbox: Mutex<Inbox>,
    woken: Notify,
    lanes: tokio::sync::Mutex<BTreeMap<String, Lane<Letter>>>,
    troubles: Mutex<BTreeMap<String, (String, i64)>>,
}

/// What the next round takes up.
struct Inbox {
    targets: Arc<Targets>,
    new: Vec<(String, Letter)>,
    /// Targets for which a message did not fit in here: from then on theirs wait in the lake.
    overflowed: BTreeSet<String>,
    /// Undelivered as of the last round.
    waiting: usize,
    /// When the oldest of these was stored.
    oldest_ms: Option<i64>,
}

impl Outbox {
    pub fn new(lake: Arc<Lake>, notifier: Notifier, clock: Arc<dyn Clock>, targets: Targets, undelivered: Vec<(String, Letter)>) -> Outbox {
        let mut lanes: BTreeMap<String, Lane<Letter>> = BTreeMap::new();
        for (target, message) in undelivered {
            lanes.entry(target).or_default().extend([message.entry()]);
        }
        let waiting = lanes.values().map(Lane::len).sum();
        let oldest_ms = oldest_ms(&lanes);
        Outbox {
            lake,
            notifier,
            clock,
            inbox: Mutex::new(Inbox {
                targets: Arc::new(targets),
                new: Vec::new(),
                overflowed: BTreeSet::new(),
                waiting,
                oldest_ms,
            }),
            woken: Notify::new(),
            lanes: tokio::sync::Mutex::new(lanes),
            troubles: Mutex::default(),
        }
    }

    /// Takes in messages that have just been stored.
    pub fn put(&self, messages: impl IntoIterator<Item = Letter>) {
        let mut inbox = self.inbox();
        for message in messages {
            for target in &message.event.targets {
                if inbox.new.len() >= MESSAGES_MAX || inbox.overflowed.contains(target) {
                    inbox.overflowed.insert(target.clone());
                } else {
                    inbox.new.push((target.clone(), Arc::clone(&message)));
                }
            }
        }
        drop(inbox);
        self.woken.notify_one();
    }

    pub fn replace_targets(&self, targets: Targets) {
        self.inbox().targets = Arc::new(targets);
        self.woken.notify_one();
    }

    /// Messages that wait, as far as they are in memory.
    pub fn waiting(&self) -> usize {
        let inbox = self.inbox();
        inbox.waiting + inbox.new.len()
    }

    /// When the oldest of them was stored; what has come in since the last round is younger.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.inbox().oldest_ms
    }

    /// Sends until `stop` is set, and what is due once more then.
    pub async fn keep_sending(self: Arc<Self>, mut stop: signal::Receiver<bool>) {
        loop {
            let is_last = *stop.borrow();
            let rest_ms = self.round_or_trouble().await.unwrap_or(REST_MAX_MS);
            if is_last {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(millis(rest_ms.clamp(0, REST_MAX_MS))) => {}
                () = self.woken.notified() => {}
                _ = stop.changed() => {}
            }
        }
    }

    /// Sends until nothing waits or the time is up.
    pub async fn send_all(&self, patience: Duration) {
        let until_ms = self
            .clock
            .now_ms()
            .saturating_add(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
        loop {
            let rest_ms = self.round_or_trouble().await.unwrap_or(REST_MAX_MS);
            let left_ms = until_ms - self.clock.now_ms();
            if self.waiting() == 0 || rest_ms > left_ms {
                return;
            }
            tokio::time::sleep(millis(rest_ms)).await;
        }
    }

    /// How long there is nothing to do, ms; none if the lake could not be written.
    async fn round_or_trouble(&self) -> Option<i64> {
        match self.round().await {
            Ok(rest_ms) => Some(rest_ms),
            Err(error) => {
                self.note_trouble(
                    "lake",
                    &format!("cannot note in {ALERT_EVENTS} what was delivered: {error}; it is tried again"),
                );
                None
            }
        }
    }

    /// One round: every lane at once, for at most `ROUND_MS`. Returns for how long there is nothing to do.
    async fn round(&self) -> Result<i64, LakeError> {
        let mut lanes = self.lanes.lock().await;
        let targets = self.take_up(&mut lanes);
        self.drop_removed(&mut lanes, &targets).await?;
        let until_ms = self.clock.now_ms().saturating_add(ROUND_MS);
        let rounds = lanes.iter_mut().filter_map(|(name, lane)| {
            let target = targets.get(name)?;
            lane.set_pace_ms(target.pace_ms());
            let means = Sending {
                outbox: self,
                name,
                target,
            };
            Some(async move { (name.clone(), carry(lane, &*self.clock, until_ms, &means).await) })
        });
        let rests = join_all(rounds).await;
        let mut rest_ms = i64::MAX;
        let mut to_refill = BTreeSet::new();
        let mut trouble = None;
        for (name, rest) in rests {
            match rest {
                Ok(Rest::Idle) if self.inbox().overflowed.contains(&name) => _ = to_refill.insert(name),
                Ok(Rest::Idle) => {}
                Ok(Rest::Refill) => _ = to_refill.insert(name),
                Ok(Rest::Until(at_ms)) => rest_ms = rest_ms.min(at_ms.saturating_sub(self.clock.now_ms()).max(0)),
                Err(error) => trouble = Some(error),
            }
        }
        if !to_refill.is_empty() {
            self.refill(&mut lanes, &to_refill).await?;
            rest_ms = 0;
        }
        let mut inbox = self.inbox();
        inbox.waiting = lanes.values().map(Lane::len).sum();
        inbox.oldest_ms = oldest_ms(&lanes);
        drop(inbox);
        trouble.map_or(Ok(rest_ms), Err)
    }

    /// Brings what is new into the lanes.
    fn take_up(&self, lanes: &mut BTreeMap<String, Lane<Letter>>) -> Arc<Targets> {
        let mut inbox = self.inbox();
        for (target, message) in std::mem::take(&mut inbox.new) {
            lanes.entry(target).or_default().extend([message.entry()]);
        }
        for target in &inbox.overflowed {
            lanes.entry(target.clone()).or_default();
        }
        inbox.waiting = lanes.values().map(Lane::len).sum();
        Arc::clone(&inbox.targets)
    }

    /// Reads what waits for these targets from the lake; what is known already is not taken twice.
    async fn refill(&self, lanes: &mut BTreeMap<String, Lane<Letter>>, names: &BTreeSet<String>) -> Result<(), LakeError> {
        // Before the table is read: what is stored from now on comes in through the inbox as well.
        self.inbox().overflowed.retain(|name| !names.contains(name));
        let mut undelivered: BTreeMap<String, Vec<Entry<Letter>>> = BTreeMap::new();
        for (target, message) in Ledger::read(&self.lake).await?.undelivered() {
            if names.contains(&target) {
                undelivered.entry(target).or_default().push(message.entry());
            }
        }
        for name in names {
            if let Some(lane) = lanes.get_mut(name) {
                lane.refill(undelivered.remove(name).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Messages to a target that the rules no longer define go nowhere; the table says so.
    async fn drop_removed(&self, lanes: &mut BTreeMap<String, Lane<Letter>>, targets: &Targets) -> Result<(), LakeError> {
        let gone: Vec<String> = lanes.keys().filter(|name| !targets.contains_key(*name)).cloned().collect();
        for name in gone {
            let lane = lanes.get_mut(&name).expect("the name is a lane's");
            let mut rows = Rows::default();
            empty(lane, |done| {
                rows.delivery(&done.entry.payload.event, &name, "target_removed", self.clock.now_ms())
            });
            if !rows.is_empty() {
                tracing::warn!(
                    target = name,
                    "alerts wait for a target that the rules no longer define; they are dropped"
                );
                self.lake.append(ALERT_EVENTS, vec![rows.batch()?], Commit::default()).await?;
            }
            lanes.remove(&name);
        }
        Ok(())
    }

    fn inbox(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Logs a trouble when it begins or changes, and once a minute.
    fn note_trouble(&self, name: &str, text: &str) {
        let now_ms = self.clock.now_ms();
        let mut troubles = self.troubles.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_known = troubles
            .get(name)
            .is_some_and(|(known, at_ms)| known == text && now_ms - at_ms < LOG_EVERY_MS);
        if !is_known {
            tracing::warn!("{text}");
            troubles.insert(name.to_owned(), (text.to_owned(), now_ms));
        }
    }
}

/// When the oldest message was stored.
fn oldest_ms(lanes: &BTreeMap<String, Lane<Letter>>) -> Option<i64> {
    lanes.values().filter_map(Lane::oldest_stored_at_ms).min()
}

/// Takes everything out of a lane, whatever it waits for.
fn empty(lane: &mut Lane<Letter>, mut done: impl FnMut(&Done<Letter>)) {
    // No pause is as long, and what is as old is given up: nothing is sent.
    let end_of_time_ms = i64::MAX;
    lane.set_pace_ms(0);
    loop {
        match lane.next(end_of_time_ms) {
            Next::Send { .. } => lane.answer(Answer::Delivered, end_of_time_ms, 0.0),
            Next::Acknowledge => {
                lane.unacknowledged().iter().for_each(&mut done);
                lane.acknowledged();
            }
            Next::WaitUntil(_) | Next::Refill | Next::Idle => return,
        }
    }
}

/// One target's way out and its way back into the lake.
struct Sending<'o> {
    outbox: &'o Outbox,
    name: &'o str,
    target: &'o Target,
}

impl Means<Letter> for Sending<'_> {
    type Error = LakeError;

    async fn send(&self, entry: &Entry<Letter>, is_stale: bool, now_ms: i64) -> Answer {
        let attempt = Attempt {
            message: &entry.payload,
            is_stale,
            now_ms,
        };
        match self.outbox.notifier.deliver(self.target, attempt).await {
            Ok(()) => Answer::Delivered,
            Err(error) => {
                self.outbox.note_trouble(self.name, &error.to_string());
                error.answer()
            }
        }
    }

    async fn store(&self, done: &[Done<Letter>]) -> Result<(), LakeError> {
        let mut rows = Rows::default();
        for done in done {
            rows.delivery(&done.entry.payload.event, self.name, done.outcome.as_str(), done.at_ms);
        }
        let lake = &self.outbox.lake;
        lake.append(ALERT_EVENTS, vec![rows.batch()?], Commit::default()).await?;
        Ok(())
    }

    fn jitter(&self) -> f64 {
        // Without randomness every daemon comes back at the same moment, which is a pity and no more.
        getrandom::u32().map_or(1.0, |bits| f64::from(bits) / f64::from(u32::MAX))
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
