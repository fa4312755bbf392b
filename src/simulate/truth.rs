//! What happened in a simulation, as an all-seeing observer would count it.
//!
//! Invariant: it is what the tables have to show, not what players say.

use serde::Serialize;

use super::Simulation;
use super::dialect::Dialect;
use super::incident::{Incident, Planted, SegmentMinutes};
use super::minutes::{self, Cdn, Minutes, Playback};
use super::plan::{Plan, What};

/// What happened, as an all-seeing observer would count it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Truth {
    pub seed: u64,
    pub start_ms: i64,
    pub span_ms: i64,
    /// Lines of the players' output, those that came twice counted once.
    pub events: u64,
    /// Lines that came once more.
    pub duplicates: u64,
    /// Lines of the CDN's output, header lines not counted.
    pub cdn_requests: u64,
    /// Playback attempts; = plays + start_failures + exits_before_start.
    pub sessions: u64,
    /// Sessions that showed a frame.
    pub plays: u64,
    pub start_failures: u64,
    pub exits_before_start: u64,
    /// Plays that an error ended.
    pub playback_failures: u64,
    /// Plays that reached the natural end.
    pub finished: u64,
    /// Real stalls after the first frame; start-up waits and false stalls after seeks are none.
    pub stalls: u64,
    pub stall_ms: u64,
    /// Σ time to first frame over plays.
    pub startup_ms: u64,
    /// Events without a `user_id` (a player that did not know it yet).
    pub anonymous_events: u64,
    pub incidents: Vec<Incident>,
    /// What `gold.playback_1m` has to show, by start of the minute, epoch ms.
    pub playback_minutes: Minutes<Playback>,
    /// The same of `gold.cdn_1m`.
    pub cdn_minutes: Minutes<Cdn>,
}

impl Truth {
    pub(super) fn of_nothing(simulation: &Simulation) -> Truth {
        Truth {
            seed: simulation.seed,
            start_ms: simulation.start_ms,
            span_ms: simulation.span_ms,
            events: 0,
            duplicates: 0,
            cdn_requests: 0,
            sessions: 0,
            plays: 0,
            start_failures: 0,
            exits_before_start: 0,
            playback_failures: 0,
            finished: 0,
            stalls: 0,
            stall_ms: 0,
            startup_ms: 0,
            anonymous_events: 0,
            incidents: simulation.incidents.iter().map(Planted::incident).collect(),
            playback_minutes: Minutes::new(),
            cdn_minutes: Minutes::new(),
        }
    }

    pub(super) fn add(&mut self, simulation: &Simulation, plan: &Plan) {
        let tally = &plan.tally;
        self.sessions += 1;
        self.events += tally.events;
        self.cdn_requests += tally.cdn_requests;
        self.plays += u64::from(tally.played);
        self.start_failures += u64::from(tally.start_failure);
        self.exits_before_start += u64::from(tally.exit_before_start);
        self.playback_failures += u64::from(tally.playback_failure);
        self.finished += u64::from(tally.finished);
        self.stalls += tally.stalls;
        self.stall_ms += tally.stall_ms;
        self.startup_ms += tally.startup_ms;
        self.anonymous_events += tally.anonymous_events;
        for (incident, effects) in self.incidents.iter_mut().zip(&tally.incident_effects) {
            incident.effects += effects;
        }
        self.add_minutes(simulation, plan);
    }

    fn add_minutes(&mut self, simulation: &Simulation, plan: &Plan) {
        let playback = minutes::of_session(&plan.facts, simulation.dialect == Dialect::Reference);
        let mut cdn = Minutes::<Cdn>::new();
        for moment in &plan.moments {
            if let What::Cdn(request) = &moment.what {
                *cdn.entry(minutes::minute_of(moment.time_ms)).or_default() += minutes::of_request(request);
            }
        }
        for (incident, planted) in self.incidents.iter_mut().zip(&simulation.incidents) {
            if !planted.fault.hits(&plan.viewer, plan.title) {
                continue;
            }
            match &mut incident.minutes {
                SegmentMinutes::Playback(sum) => minutes::add(sum, &playback),
                SegmentMinutes::Cdn(sum) => minutes::add(sum, &cdn),
            }
        }
        minutes::add(&mut self.playback_minutes, &playback);
        minutes::add(&mut self.cdn_minutes, &cdn);
    }
}
