//! The courier: carries what is due to one target, and says when to come again.
//!
//! Stands between a lane of the outbox, which decides, and whoever sends and stores. Lanes may be
//! carried side by side, so that a target that takes its time holds up no other.
//!
//! Invariant: an acknowledgement is stored before more than `UNACKNOWLEDGED_MAX` are outstanding, and
//! before the courier rests.
//! Invariant: it returns soon after its time is up: windows close behind it.

use super::outbox::{Answer, Done, Entry, Lane, Next};
use crate::clock::Clock;

/// Why the courier has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// There is nothing to carry.
    Idle,
    /// There is, from this instant on.
    Until(i64),
    /// Memory is empty and the lake holds more: hand it in with `Lane::refill`.
    Refill,
}

/// What the courier is given to do its work with.
pub trait Means<P>: Sync {
    type Error: Send;

    /// One attempt. `is_stale`: the entry is past its `expires_at`.
    fn send(&self, entry: &Entry<P>, is_stale: bool, now_ms: i64) -> impl Future<Output = Answer> + Send;

    /// Writes acknowledgements to the lake.
    fn store(&self, done: &[Done<P>]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Anything from 0 up to 1: spreads the attempts of many daemons.
    fn jitter(&self) -> f64;
}

/// Carries until nothing is due or the clock shows `until_ms`.
///
/// # Errors
/// Those of `store`. What was sent and not stored is still unacknowledged, and is stored the next time.
pub async fn carry<P: Send + Sync, M: Means<P>>(lane: &mut Lane<P>, clock: &dyn Clock, until_ms: i64, means: &M) -> Result<Rest, M::Error> {
    let mut is_time_up = false;
    loop {
        let now_ms = clock.now_ms();
        let rest = match lane.next(now_ms) {
            Next::Send { .. } if is_time_up => Rest::Until(now_ms),
            Next::Send { entry, is_stale } => {
                let answer = means.send(entry, is_stale, now_ms).await;
                let now_ms = clock.now_ms();
                lane.answer(answer, now_ms, means.jitter());
                is_time_up = now_ms >= until_ms;
                continue;
            }
            Next::Acknowledge => {
                means.store(lane.unacknowledged()).await?;
                lane.acknowledged();
                continue;
            }
            Next::WaitUntil(at_ms) => Rest::Until(at_ms),
            Next::Refill => Rest::Refill,
            Next::Idle => Rest::Idle,
        };
        if !lane.unacknowledged().is_empty() {
            means.store(lane.unacknowledged()).await?;
            lane.acknowledged();
        }
        return Ok(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::alert::Fingerprint;
    use crate::clock::ManualClock;

    fn lane(messages: usize) -> Lane<()> {
        let entry = |index: usize| Entry {
            event_id: format!("{index:04}"),
            fingerprint: Fingerprint::of("a", &[]),
            stored_at_ms: 0,
            expires_at_ms: None,
            bytes: 1,
            payload: (),
        };
        Lane::of((0..messages).map(entry))
    }

    /// Sends in a second, and notes what was sent and stored: `s0001`, `a0001`.
    struct Noted {
        clock: ManualClock,
        answer: Answer,
        is_lake_away: bool,
        log: Mutex<Vec<String>>,
    }

    impl Noted {
        fn new(answer: Answer) -> Noted {
            Noted {
                clock: ManualClock::at(0),
                answer,
                is_lake_away: false,
                log: Mutex::default(),
            }
        }

        async fn carry(&self, lane: &mut Lane<()>, until_ms: i64) -> (String, Result<Rest, &'static str>) {
            let rest = carry(lane, &self.clock, until_ms, self).await;
            (std::mem::take(&mut *self.log.lock().unwrap()).join(" "), rest)
        }
    }

    impl Means<()> for Noted {
        type Error = &'static str;

        async fn send(&self, entry: &Entry<()>, _: bool, _: i64) -> Answer {
            tokio::task::yield_now().await;
            self.log.lock().unwrap().push(format!("s{}", entry.event_id));
            self.clock.advance(1_000);
            self.answer
        }

        async fn store(&self, done: &[Done<()>]) -> Result<(), &'static str> {
            tokio::task::yield_now().await;
            if self.is_lake_away {
                return Err("the lake is away");
            }
            let stored = done.iter().map(|done| format!("a{}", done.entry.event_id));
            self.log.lock().unwrap().extend(stored);
            Ok(())
        }

        fn jitter(&self) -> f64 {
            1.0
        }
    }

    #[tokio::test]
    async fn what_was_sent_is_stored_before_the_courier_rests() {
        let (sent, rest) = Noted::new(Answer::Delivered).carry(&mut lane(2), 60_000).await;
        assert_eq!((sent.as_str(), rest), ("s0000 s0001 a0000 a0001", Ok(Rest::Idle)));
    }

    #[tokio::test]
    async fn ten_are_stored_before_the_eleventh_goes() {
        let (sent, _) = Noted::new(Answer::Delivered).carry(&mut lane(11), 60_000).await;
        let words: Vec<&str> = sent.split(' ').collect();
        assert_eq!(
            [words[9], words[10], words[19], words[20], words[21]],
            ["s0009", "a0000", "a0009", "s0010", "a0010"]
        );
    }

    #[tokio::test]
    async fn when_its_time_is_up_it_stores_and_says_that_there_is_more() {
        let mut lane = lane(5);
        let (sent, rest) = Noted::new(Answer::Delivered).carry(&mut lane, 2_000).await;
        assert_eq!((sent.as_str(), rest), ("s0000 s0001 a0000 a0001", Ok(Rest::Until(2_000))));
        assert_eq!(lane.len(), 3);
    }

    #[tokio::test]
    async fn a_target_that_is_away_is_come_back_to() {
        let away = Answer::Later { retry_after_ms: None };
        let (sent, rest) = Noted::new(away).carry(&mut lane(5), 60_000).await;
        assert_eq!((sent.as_str(), rest), ("s0000", Ok(Rest::Until(1_100))));
    }

    #[tokio::test]
    async fn acknowledgements_that_could_not_be_stored_are_stored_the_next_time() {
        let mut lane = lane(1);
        let mut noted = Noted::new(Answer::Delivered);
        noted.is_lake_away = true;
        let (sent, rest) = noted.carry(&mut lane, 1_000).await;
        assert_eq!((sent.as_str(), rest), ("s0000", Err("the lake is away")));
        noted.is_lake_away = false;
        let (sent, rest) = noted.carry(&mut lane, 1_000).await;
        assert_eq!((sent.as_str(), rest), ("a0000", Ok(Rest::Idle)), "it is not sent again");
    }

    #[tokio::test]
    async fn the_courier_may_run_on_a_task_of_its_own() {
        let task = tokio::spawn(async { Noted::new(Answer::Delivered).carry(&mut lane(1), 1_000).await });
        assert_eq!(task.await.unwrap().1, Ok(Rest::Idle));
    }
}
