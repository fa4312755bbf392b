//! The exact numbers of each minute, as gold has to show them.
//!
//! A session's attempt counts in the minute of the intent, time and stalls in the minutes in which they
//! pass, a failure in the minute of the error, a request in the minute in which its response ended.
//!
//! Invariant: a number has the name of its column in `gold.playback_1m` or `gold.cdn_1m`.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::Serialize;

use super::fact::{At, Fact};
use super::plan::{Cache, Request};

const MINUTE_MS: i64 = 60_000;

/// By start of the minute, epoch ms.
pub type Minutes<T> = BTreeMap<i64, T>;

/// Columns of `gold.playback_1m`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Playback {
    pub attempts: u64,
    pub plays: u64,
    pub start_failures: u64,
    pub exits_before_start: u64,
    pub startup_ms_sum: u64,
    pub playback_failures: u64,
    pub stall_count: u64,
    pub stall_ms: u64,
    pub playing_ms: u64,
    pub paused_ms: u64,
}

/// Columns of `gold.cdn_1m`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cdn {
    pub requests: u64,
    pub client_aborts: u64,
    pub status_4xx: u64,
    pub status_5xx: u64,
    pub cache_hits: u64,
    pub ttfb_ms_sum: u64,
    pub ttfb_count: u64,
    pub bytes: u64,
}

impl AddAssign for Playback {
    fn add_assign(&mut self, other: Playback) {
        self.attempts += other.attempts;
        self.plays += other.plays;
        self.start_failures += other.start_failures;
        self.exits_before_start += other.exits_before_start;
        self.startup_ms_sum += other.startup_ms_sum;
        self.playback_failures += other.playback_failures;
        self.stall_count += other.stall_count;
        self.stall_ms += other.stall_ms;
        self.playing_ms += other.playing_ms;
        self.paused_ms += other.paused_ms;
    }
}

impl AddAssign for Cdn {
    fn add_assign(&mut self, other: Cdn) {
        self.requests += other.requests;
        self.client_aborts += other.client_aborts;
        self.status_4xx += other.status_4xx;
        self.status_5xx += other.status_5xx;
        self.cache_hits += other.cache_hits;
        self.ttfb_ms_sum += other.ttfb_ms_sum;
        self.ttfb_count += other.ttfb_count;
        self.bytes += other.bytes;
    }
}

/// Adds the minutes of one to those of many.
pub fn add<T: AddAssign + Default + Copy>(sum: &mut Minutes<T>, part: &Minutes<T>) {
    for (minute, numbers) in part {
        *sum.entry(*minute).or_default() += *numbers;
    }
}

pub fn minute_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(MINUTE_MS) * MINUTE_MS
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Starting,
    Playing,
    Paused,
    Stalled,
    Seeking,
}

/// The numbers of one session, from its facts in the order of time.
///
/// `is_told_by_viewer`: the dialect names no session, so that what names no viewer is nobody's.
pub fn of_session(facts: &[At], is_told_by_viewer: bool) -> Minutes<Playback> {
    let mut minutes = Minutes::new();
    let Some((start_ms, _)) = seen_from(facts, is_told_by_viewer) else {
        return minutes;
    };
    let mut doing = Doing::Starting;
    let (mut played, mut failed) = (false, false);
    let mut before_ms = start_ms;
    for (time_ms, fact) in facts.iter().filter(|(time_ms, _)| *time_ms >= start_ms) {
        spend(&mut minutes, doing, before_ms, *time_ms);
        before_ms = *time_ms;
        let now: &mut Playback = minutes.entry(minute_of(*time_ms)).or_default();
        match *fact {
            Fact::FirstFrame { startup_ms, .. } => {
                played = true;
                minutes.entry(minute_of(start_ms)).or_default().startup_ms_sum += u64::from(startup_ms);
                doing = Doing::Playing;
            }
            Fact::StallStart { .. } => {
                now.stall_count += 1;
                doing = Doing::Stalled;
            }
            Fact::StallEnd { .. } | Fact::Resume { .. } => doing = Doing::Playing,
            Fact::Pause { .. } | Fact::SeekEnd { .. } => doing = Doing::Paused,
            Fact::SeekStart { .. } | Fact::SeekTail => doing = Doing::Seeking,
            Fact::FatalError { .. } => {
                failed = true;
                now.playback_failures += u64::from(played);
            }
            Fact::Intent { .. } | Fact::Heartbeat { .. } | Fact::Rung { .. } | Fact::Finish { .. } => {}
        }
    }
    let begun = minutes.entry(minute_of(start_ms)).or_default();
    begun.attempts += 1;
    begun.plays += u64::from(played);
    begun.start_failures += u64::from(failed && !played);
    begun.exits_before_start += u64::from(!failed && !played);
    minutes
}

/// From where on the session can be told to be its viewer's; none: nothing of it can.
fn seen_from(facts: &[At], is_told_by_viewer: bool) -> Option<At> {
    let is_anonymous = |fact: &Fact| is_told_by_viewer && matches!(fact, Fact::Intent { names_user: false });
    facts.iter().copied().find(|(_, fact)| !is_anonymous(fact))
}

/// Time that passes, to the minutes that it passes in.
fn spend(minutes: &mut Minutes<Playback>, doing: Doing, from_ms: i64, to_ms: i64) {
    let mut at_ms = from_ms;
    while at_ms < to_ms {
        let minute = minute_of(at_ms);
        let until_ms = to_ms.min(minute + MINUTE_MS);
        let spent_ms = (until_ms - at_ms).unsigned_abs();
        let numbers = minutes.entry(minute).or_default();
        match doing {
            Doing::Playing => numbers.playing_ms += spent_ms,
            Doing::Paused => numbers.paused_ms += spent_ms,
            Doing::Stalled => numbers.stall_ms += spent_ms,
            Doing::Starting | Doing::Seeking => {}
        }
        at_ms = until_ms;
    }
}

/// The numbers of one request.
pub fn of_request(request: &Request) -> Cdn {
    let is_ok = request.status == 200;
    let is = |holds: bool| u64::from(holds);
    Cdn {
        requests: 1,
        client_aborts: is(request.status == 0),
        status_4xx: is((400..500).contains(&request.status)),
        status_5xx: is((500..600).contains(&request.status)),
        cache_hits: is(matches!(request.result, Cache::Hit | Cache::RefreshHit)),
        ttfb_ms_sum: if is_ok { u64::from(request.ttfb_ms) } else { 0 },
        ttfb_count: is(is_ok),
        bytes: u64::from(request.bytes),
    }
}
