//! An audience that is not there: player events and CDN logs from a seed, and the truth about them.
//!
//! Stands before the walk of an event: what it writes goes in where real players' and CDNs' bytes
//! go in. `demo`, `simulate`, benchmarks and tests use it.
//!
//! A session is planned as a whole from its own random numbers, then all sessions are played out
//! together in the order of time, as a collector would have received them. Players speak the
//! reference dialect, traps included: numbers as texts, absent members, start-up waits labelled as
//! stalls, false stalls after seeks, a PAUSE before every STOP, silence when a viewer leaves. The
//! CDN speaks CloudFront's standard log (v1, 33 columns); `x-edge-request-id` is the players'
//! `cdn_tracking_id`. Addresses are those reserved for documentation.
//!
//! Invariant: the same seed gives the same bytes on every machine: integers only, no hash order,
//! no clock.
//! Invariant: memory holds the sessions on air, never the whole span.

mod arrivals;
mod audience;
mod dialect;
mod fact;
mod incident;
mod minutes;
mod plan;
mod random;
mod render;
mod schedule;
mod script;
#[cfg(test)]
mod tests;
mod truth;
mod world;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};

pub use arrivals::Arrivals;
pub use dialect::Dialect;
pub use incident::{Fault, Incident, Planted};
use plan::{Plan, What};
pub use render::CDN_HEADER;
pub use schedule::Curve;
use schedule::Schedule;
pub use truth::Truth;
use world::World;

/// What to simulate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulation {
    pub seed: u64,
    pub sessions: u32,
    /// When the first session may start, epoch ms.
    pub start_ms: i64,
    /// Sessions start within this long; the last ones end some minutes after it.
    pub span_ms: i64,
    pub curve: Curve,
    /// ISPs, devices and titles that differ, and events that come late, twice and out of order; otherwise
    /// every ISP is as good as the next and everything comes in the order of time.
    pub lifelike: bool,
    pub dialect: Dialect,
    pub incidents: Vec<Planted>,
}

/// Which output a line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Player,
    Cdn,
}

/// Where a line belongs, and in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub time_ms: i64,
    pub output: Output,
}

impl Simulation {
    /// Writes everything: players' NDJSON to `player`, the CDN's log with its header to `cdn`.
    pub fn run(&self, player: &mut dyn Write, cdn: &mut dyn Write) -> io::Result<Truth> {
        cdn.write_all(CDN_HEADER.as_bytes())?;
        let mut arrivals = self.arrivals();
        let mut text = Vec::new();
        while let Some(line) = arrivals.next_line(&mut text) {
            match line.output {
                Output::Player => player.write_all(&text)?,
                Output::Cdn => cdn.write_all(&text)?,
            }
        }
        player.flush()?;
        cdn.flush()?;
        Ok(arrivals.into_truth())
    }

    /// The same line by line, for callers that follow a clock.
    pub fn arrivals(&self) -> Arrivals {
        Arrivals::new(self.play_out(), self.seed, self.lifelike)
    }

    fn play_out(&self) -> PlayOut {
        PlayOut::new(self.clone())
    }

    /// Start (included) and end (not included) of the middle third of the span, epoch ms.
    pub fn middle_third(start_ms: i64, span_ms: i64) -> (i64, i64) {
        let third = span_ms / 3;
        (start_ms + third, start_ms + 2 * third)
    }

    fn world(&self) -> &'static World {
        match self.lifelike {
            true => World::lifelike(),
            false => World::plain(),
        }
    }

    /// The incident of this kind that is going on, with its number.
    fn planted(&self, fault: Fault, time_ms: i64) -> Option<(usize, &Planted)> {
        let mut planted = self.incidents.iter().enumerate();
        planted.find(|(_, planted)| planted.is_at(fault, time_ms))
    }
}

/// A simulation being played out in the order of time.
struct PlayOut {
    simulation: Simulation,
    schedule: Schedule,
    /// The next session to go on air.
    next_session: u32,
    /// Sessions on air by the time of their next line; the slot breaks ties, so order is fixed.
    upcoming: BinaryHeap<Reverse<(i64, u32, usize)>>,
    on_air: Vec<Option<OnAir>>,
    free_slots: Vec<usize>,
    truth: Truth,
}

struct OnAir {
    plan: Plan,
    next_line: usize,
}

impl PlayOut {
    fn new(simulation: Simulation) -> PlayOut {
        let Simulation {
            curve,
            start_ms,
            span_ms,
            sessions,
            ..
        } = simulation;
        PlayOut {
            schedule: Schedule::new(curve, start_ms, span_ms, sessions),
            truth: Truth::of_nothing(&simulation),
            simulation,
            next_session: 0,
            upcoming: BinaryHeap::new(),
            on_air: Vec::new(),
            free_slots: Vec::new(),
        }
    }

    /// Puts the next line, newline included, into `text`; nothing when all is told.
    fn next_line(&mut self, text: &mut Vec<u8>) -> Option<Line> {
        self.admit_due_sessions();
        let Reverse((time_ms, session, slot)) = self.upcoming.pop()?;
        let on_air = self.on_air[slot]
            .as_mut()
            .expect("a slot is freed with the last line of its session");
        let moment = &on_air.plan.moments[on_air.next_line];
        text.clear();
        let output = match &moment.what {
            What::Player(event) => {
                render::player_line(text, &on_air.plan, time_ms, event);
                Output::Player
            }
            What::Told(line) => {
                text.extend_from_slice(line.as_bytes());
                Output::Player
            }
            What::Cdn(request) => {
                render::cdn_line(text, &on_air.plan, time_ms, request);
                Output::Cdn
            }
        };
        on_air.next_line += 1;
        match on_air.plan.moments.get(on_air.next_line) {
            Some(next) => self.upcoming.push(Reverse((next.time_ms, session, slot))),
            None => {
                self.on_air[slot] = None;
                self.free_slots.push(slot);
            }
        }
        Some(Line { time_ms, output })
    }

    /// What happened in all sessions that went on air so far.
    fn into_truth(self) -> Truth {
        self.truth
    }

    /// Plans every session that may have the next line.
    fn admit_due_sessions(&mut self) {
        while self.next_session < self.simulation.sessions {
            let slot_start_ms = self.schedule.slot_start_ms(self.next_session);
            let is_due = match self.upcoming.peek() {
                Some(Reverse((next_ms, _, _))) => slot_start_ms <= *next_ms,
                None => true,
            };
            if !is_due {
                return;
            }
            self.admit(self.next_session);
            self.next_session += 1;
        }
    }

    fn admit(&mut self, session: u32) {
        let plan = plan::plan(&self.simulation, &self.schedule, session);
        self.truth.add(&self.simulation, &plan);
        // Some dialects have nothing to say of a session that shows nothing.
        let Some(first_ms) = plan.moments.first().map(|moment| moment.time_ms) else {
            return;
        };
        let on_air = OnAir { plan, next_line: 0 };
        let slot = match self.free_slots.pop() {
            Some(slot) => {
                self.on_air[slot] = Some(on_air);
                slot
            }
            None => {
                self.on_air.push(Some(on_air));
                self.on_air.len() - 1
            }
        };
        self.upcoming.push(Reverse((first_ms, session, slot)));
    }
}
