//! One playback session from the viewer's first tap to silence, as the player and the CDN see it.
//!
//! A plan is a list of moments in the order of time. Position moves in steps of one segment (5 s of
//! media), which is also the distance of the player's heartbeats.
//!
//! Invariant: what the tally counts is what a correct engine should find in the moments, so the
//! false stalls that the reference player reports are in the moments and not in the tally.

use super::Simulation;
use super::audience::Viewer;
use super::dialect::Dialect;
use super::fact::At;
use super::random::Random;
use super::schedule::Schedule;
use super::script::Script;
use super::world::Title;

/// Streams of random numbers.
const SESSIONS: u64 = 2;
const REQUEST_IDS: u64 = 3;

/// Every tenth viewer comes back for a second title.
const RETURN_EVERY: u32 = 10;

pub struct Plan {
    pub viewer: Viewer,
    pub title: &'static Title,
    /// Ids of this session's requests are drawn from this.
    pub request_ids: u64,
    pub moments: Vec<Moment>,
    pub facts: Vec<At>,
    pub tally: Tally,
}

pub struct Moment {
    pub time_ms: i64,
    pub what: What,
}

pub enum What {
    /// As the reference player says it.
    Player(PlayerEvent),
    /// As another dialect says it: the whole line.
    Told(String),
    Cdn(Request),
}

pub struct PlayerEvent {
    pub metric: Metric,
    /// A player that has just started may not know its user yet.
    pub names_user: bool,
    /// What the player believes; absent until the manifest is loaded.
    pub playlist_type: Option<&'static str>,
}

/// The reference player's nine types. `at` and the like in hundredths of a second of media;
/// `request` is the number of the session's request whose id the event carries.
pub enum Metric {
    Play {
        at: u32,
        knows_duration: bool,
    },
    FirstFrame {
        rtt: u32,
        rung: usize,
        startup_ms: u32,
        request: u32,
    },
    Buffer {
        first: bool,
        at: u32,
        rtt: u32,
        length_ms: i64,
        request: u32,
    },
    Stream {
        at: u32,
        rtt: u32,
        rung: usize,
        start_rung: usize,
        request: u32,
    },
    Step {
        at: u32,
        from: usize,
        to: usize,
        start_rung: usize,
    },
    Seek {
        from: u32,
        to: u32,
        rtt: u32,
        length_ms: u32,
        request: u32,
    },
    Pause {
        at: u32,
    },
    Stop {
        at: u32,
        rung: usize,
        start_rung: usize,
    },
    Error {
        at: u32,
        request: Option<u32>,
    },
}

/// One segment request; its moment is the end of the response.
pub struct Request {
    pub number: u32,
    pub segment: u32,
    pub rung: usize,
    /// 0: the client closed the connection before an answer.
    pub status: u32,
    pub result: Cache,
    pub bytes: u32,
    pub taken_ms: u32,
    pub ttfb_ms: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    Hit,
    RefreshHit,
    Miss,
    Error,
}

/// One session's part of the truth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub events: u64,
    pub cdn_requests: u64,
    pub played: bool,
    pub start_failure: bool,
    pub exit_before_start: bool,
    pub playback_failure: bool,
    pub finished: bool,
    pub stalls: u64,
    pub stall_ms: u64,
    pub startup_ms: u64,
    pub anonymous_events: u64,
    /// Of each planted incident.
    pub incident_effects: Vec<u64>,
}

/// Plans session number `session`. Its first moment lies in its slot of the span.
pub fn plan(simulation: &Simulation, schedule: &Schedule, session: u32) -> Plan {
    let is_return = session % RETURN_EVERY == RETURN_EVERY - 1;
    let world = simulation.world();
    let viewer = match is_return {
        true => Viewer::draw(world, simulation.seed, session + 1 - RETURN_EVERY),
        false => Viewer::draw(world, simulation.seed, session),
    };
    // The second visit is for another title: one session for one user and video.
    let title = &world.titles[(viewer.title + usize::from(is_return)) % world.titles.len()];
    let mut random = Random::of(simulation.seed, SESSIONS, u64::from(session));
    let slot_ms = schedule.slot_start_ms(session + 1) - schedule.slot_start_ms(session);
    let into_slot_ms = random.below(u32::try_from(slot_ms).unwrap_or(u32::MAX));
    let start_ms = schedule.slot_start_ms(session) + i64::from(into_slot_ms);
    let request_ids = Random::of(simulation.seed, REQUEST_IDS, u64::from(session)).next();
    let written = Script::new(simulation, &viewer, title, random, start_ms).perform();
    let mut plan = Plan {
        viewer,
        title,
        request_ids,
        moments: written.moments,
        facts: written.facts,
        tally: written.tally,
    };
    if simulation.dialect != Dialect::Reference {
        plan.translate(simulation.dialect);
    }
    plan
}

impl Plan {
    /// The same session told in another dialect; the CDN's part stays.
    fn translate(&mut self, dialect: Dialect) {
        let told = dialect.lines(self);
        self.tally.events = told.len() as u64;
        // Ids of sessions tell whose an event is where the viewer's is missing.
        self.tally.anonymous_events = 0;
        self.moments.retain(|moment| matches!(moment.what, What::Cdn(_)));
        let told = told.into_iter().map(|(time_ms, line)| Moment {
            time_ms,
            what: What::Told(line),
        });
        self.moments.extend(told);
        self.moments.sort_by_key(|moment| moment.time_ms);
    }
}
