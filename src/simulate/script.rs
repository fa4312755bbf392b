//! A session being written down, moment by moment.
//!
//! Stands under `plan`. Position moves in steps of one segment (5 s of media), which is also the distance of
//! the player's heartbeats.
//!
//! Invariant: what the tally counts is what a correct engine should find in the moments, so the
//! false stalls that the reference player reports are in the moments and not in the tally.

mod draws;
mod requests;

use super::Simulation;
use super::audience::Viewer;
use super::fact::{At, Fact};
use super::incident::Fault;
use super::plan::{Metric, Moment, PlayerEvent, Tally, What};
use super::random::Random;
use super::world::{RUNGS, Title};

/// Of a thousand attempts: those that fail, and those whose viewer gives up, before the first frame.
const START_FAILURE_PER_MILLE: u32 = 7;
const EXIT_BEFORE_START_PER_MILLE: u32 = 20;

/// What a slow POP adds to the segments that stall, of a thousand.
const SLOW_POP_STALLS_MORE_PER_MILLE: u32 = 15;

/// Media length of a segment and of the heartbeat's distance, in hundredths of a second and ms.
const SEGMENT_CS: u32 = 500;
const SEGMENT_MS: i64 = 5_000;

/// A step begins at a heartbeat; what disturbs it comes this much later, so that a stall is never
/// taken for the tail of a seek (engines allow a second for that).
const DISTURBANCE_AFTER_MS: (u32, u32) = (1_500, 4_000);

/// Why an attempt fails: an incident with the status that its request gets, or chance.
struct StartFailure {
    by: Option<usize>,
    status: u32,
}

/// A session being written down.
pub struct Script<'a> {
    simulation: &'a Simulation,
    viewer: &'a Viewer,
    title: &'static Title,
    random: Random,
    start_ms: i64,
    /// Wall time of the last heartbeat (or of the first frame).
    now_ms: i64,
    /// Media position reached at `now_ms`, a multiple of a segment except after the start.
    position_cs: u32,
    /// Positions of the last two heartbeats: players report these, not where they are.
    last_at: u32,
    at_before_last: u32,
    start_rung: usize,
    rung: usize,
    /// The browser has fired `waiting`, so the player has something to measure false stalls from.
    has_waited: bool,
    playlist_type: &'static str,
    next_request: u32,
    moments: Vec<Moment>,
    facts: Vec<At>,
    tally: Tally,
}

/// A session as it was written down.
pub struct Written {
    /// In the order of time; within a millisecond in the order in which they were written.
    pub moments: Vec<Moment>,
    /// In the same order.
    pub facts: Vec<At>,
    pub tally: Tally,
}

impl<'a> Script<'a> {
    pub fn new(simulation: &'a Simulation, viewer: &'a Viewer, title: &'static Title, random: Random, start_ms: i64) -> Script<'a> {
        let start_rung = match viewer.connection_type {
            "3g" => 1,
            _ => 2,
        };
        Script {
            simulation,
            viewer,
            title,
            random,
            start_ms,
            now_ms: start_ms,
            position_cs: first_position(title, start_ms),
            last_at: 0,
            at_before_last: 0,
            start_rung,
            rung: start_rung,
            has_waited: false,
            playlist_type: title.playlist_type,
            next_request: 0,
            moments: Vec::with_capacity(64),
            facts: Vec::with_capacity(64),
            tally: Tally {
                incident_effects: vec![0; simulation.incidents.len()],
                ..Tally::default()
            },
        }
    }

    pub fn perform(mut self) -> Written {
        if let Some(failure) = self.draw_start_failure() {
            self.fail_to_start(failure);
        } else if self.random.chance(EXIT_BEFORE_START_PER_MILLE, 1_000) {
            self.exit_before_start();
        } else {
            self.start();
            self.watch();
        }
        // Stable, so that what happened in one millisecond stays in its order.
        self.moments.sort_by_key(|moment| moment.time_ms);
        self.facts.sort_by_key(|(time_ms, _)| *time_ms);
        let end = self.facts.iter().position(|(_, fact)| fact.is_end());
        self.facts.truncate(end.map_or(usize::MAX, |end| end + 1));
        Written {
            moments: self.moments,
            facts: self.facts,
            tally: self.tally,
        }
    }

    /// Whether the attempt fails, and by what.
    fn draw_start_failure(&mut self) -> Option<StartFailure> {
        for (fault, status) in [(Fault::AppStartFailures, 200), (Fault::TitleBroken, 404), (Fault::OriginMelts, 503)] {
            let Some((number, per_mille)) = self.hit_by(fault, self.start_ms) else {
                continue;
            };
            // Most titles are held by the edges: few starts need the origin.
            let share = if fault == Fault::OriginMelts { per_mille / 5 } else { per_mille };
            if self.random.chance(share, 1_000) {
                return Some(StartFailure { by: Some(number), status });
            }
        }
        let is_chance = self.random.chance(START_FAILURE_PER_MILLE, 1_000);
        is_chance.then_some(StartFailure { by: None, status: 0 })
    }

    /// The incident of this kind that is going on and hits this viewer: its number, and how hard.
    fn hit_by(&self, fault: Fault, time_ms: i64) -> Option<(usize, u32)> {
        let planted = self.simulation.planted(fault, time_ms)?;
        fault.hits(self.viewer, self.title).then_some((planted.0, planted.1.per_mille))
    }

    fn fail_to_start(&mut self, failure: StartFailure) {
        // A player whose manifest never arrived calls everything live.
        if self.random.chance(30, 100) {
            self.playlist_type = "LIVE";
        }
        self.first_play();
        let error_ms = self.start_ms + i64::from(self.random.between(800, 4_000));
        let status = match failure.by {
            Some(_) => failure.status,
            None => [403, 404, 503][self.random.weighted(&[2, 3, 5])],
        };
        let request = self.request(error_ms - 200, status);
        let told = (status != 200).then_some(status);
        self.note(error_ms, Fact::FatalError { status: told });
        // The app that fails by itself blames no request.
        let request = (status != 200).then_some(request);
        self.say(error_ms, Metric::Error { at: 0, request });
        self.tally.start_failure = true;
        self.note_effect(failure.by);
    }

    fn note_effect(&mut self, of: Option<usize>) {
        if let Some(number) = of {
            self.tally.incident_effects[number] += 1;
        }
    }

    fn exit_before_start(&mut self) {
        self.first_play();
        if self.random.chance(1, 2) {
            let gone_ms = self.start_ms + i64::from(self.random.between(500, 8_000));
            self.request(gone_ms, 0);
        }
        self.tally.exit_before_start = true;
    }

    /// PLAY, FIRSTFRAME and the report of the start-up wait.
    fn start(&mut self) {
        self.first_play();
        let startup_ms = self.draw_startup_ms();
        let frame_ms = self.start_ms + i64::from(startup_ms);
        let request = self.request(frame_ms - 60, 200);
        let rtt = self.draw_rtt();
        let rung = self.rung;
        let frame = Metric::FirstFrame {
            rtt,
            rung,
            startup_ms,
            request,
        };
        self.say(frame_ms, frame);
        self.note(frame_ms, Fact::FirstFrame { startup_ms, rung });
        let until_full_ms = self.random.between(60, 460);
        // Start-up waits are often labelled as stalls; `at` 0 gives them away.
        let first = self.random.chance(70, 100);
        self.has_waited = !first;
        let length_ms = i64::from(startup_ms + until_full_ms);
        let full = Metric::Buffer {
            first,
            at: 0,
            rtt,
            length_ms,
            request,
        };
        self.say(self.start_ms + length_ms, full);
        self.now_ms = frame_ms;
        self.tally.played = true;
        self.tally.startup_ms = u64::from(startup_ms);
    }

    fn first_play(&mut self) {
        let names_user = !self.random.chance(5, 1_000);
        let playlist_type = self.random.chance(9, 10).then_some(self.playlist_type);
        let event = PlayerEvent {
            metric: Metric::Play {
                at: 0,
                knows_duration: false,
            },
            names_user,
            playlist_type,
        };
        self.note(self.start_ms, Fact::Intent { names_user });
        self.tally.anonymous_events += u64::from(!names_user);
        self.tally.events += 1;
        self.moments.push(Moment {
            time_ms: self.start_ms,
            what: What::Player(event),
        });
    }

    /// Steps from heartbeat to heartbeat until the title, the viewer's patience or the player ends.
    fn watch(&mut self) {
        let steps = self.draw_patience_s() / 5;
        for _ in 0..steps {
            if self.is_last_segment() {
                return self.finish();
            }
            if self.random.chance(6, 10_000) {
                return self.fail();
            }
            match self.random.below(1_000) {
                0..6 => self.pause(),
                6..11 => self.seek(),
                11 => self.report_load_again(),
                _ => self.stall_perhaps(),
            }
            self.heartbeat();
        }
        self.leave();
    }

    fn is_last_segment(&self) -> bool {
        let end = self.title.duration_cs;
        end.is_some_and(|end| self.position_cs + SEGMENT_CS >= end)
    }

    /// Fetches and plays one segment, then reports.
    fn heartbeat(&mut self) {
        let into_segment_cs = self.position_cs % SEGMENT_CS;
        let to_play_cs = SEGMENT_CS - into_segment_cs;
        self.position_cs += to_play_cs;
        self.now_ms += i64::from(to_play_cs) * 10;
        if self.random.chance(3, 1_000) {
            let status = [404, 503][self.random.weighted(&[1, 2])];
            self.request(self.now_ms - 4_200, status);
        }
        self.ask_melting_origin();
        let request = self.request(self.now_ms - 3_000, 200);
        let rtt = self.draw_rtt();
        // `timeupdate` comes up to a quarter of a second after the whole second.
        let late_cs = self.random.below(25);
        let end = self.title.duration_cs.unwrap_or(u32::MAX);
        let at = (self.position_cs + late_cs).min(end);
        self.at_before_last = self.last_at;
        self.last_at = at;
        let (rung, start_rung) = (self.rung, self.start_rung);
        let stream = Metric::Stream {
            at,
            rtt,
            rung,
            start_rung,
            request,
        };
        let told_ms = self.now_ms + i64::from(late_cs) * 10;
        self.say(told_ms, stream);
        self.note(told_ms, Fact::Heartbeat { at_cs: at });
        if self.rung + 1 < RUNGS.len() && self.random.chance(6, 100) {
            self.step_to(self.rung + 1, self.now_ms + 400);
        }
    }

    fn step_to(&mut self, to: usize, time_ms: i64) {
        let step = Metric::Step {
            at: self.last_at,
            from: self.rung,
            to,
            start_rung: self.start_rung,
        };
        self.say(time_ms, step);
        self.note(time_ms, Fact::Rung { rung: to });
        self.rung = to;
    }

    /// Most segments arrive in time. Before the first heartbeat none stalls: with `at` 0 nobody
    /// could tell the report from a start-up wait.
    fn stall_perhaps(&mut self) {
        if self.last_at == 0 {
            return;
        }
        let by_isp = self.hit_by(Fault::IspStalls, self.now_ms);
        let mut per_mille = by_isp.map_or(self.viewer.isp.stall_per_mille, |(_, per_mille)| per_mille);
        if self.simulation.lifelike && self.hit_by(Fault::CdnSlowFirstByte, self.now_ms).is_some() {
            per_mille += SLOW_POP_STALLS_MORE_PER_MILLE;
        }
        if !self.random.chance(per_mille, 1_000) {
            return;
        }
        let (earliest, latest) = DISTURBANCE_AFTER_MS;
        let into_step_ms = i64::from(self.random.between(earliest, latest));
        let length_ms = i64::from(self.random.between(300, 2_500) + self.random.below(2_500));
        let end_ms = self.now_ms + into_step_ms + length_ms;
        let rtt = self.draw_rtt() * 3;
        let request = self.request(end_ms - 20, 200);
        let stall = Metric::Buffer {
            first: false,
            at: self.last_at,
            rtt,
            length_ms,
            request,
        };
        self.say(end_ms, stall);
        let at_cs = self.last_at;
        self.note(end_ms - length_ms, Fact::StallStart { at_cs });
        self.note(end_ms, Fact::StallEnd { at_cs, length_ms });
        if self.rung > 0 && self.random.chance(1, 2) {
            self.step_to(self.rung - 1, end_ms + 120);
        }
        self.has_waited = true;
        self.now_ms += length_ms;
        self.tally.stalls += 1;
        self.tally.stall_ms += length_ms as u64;
        self.note_effect(by_isp.map(|(number, _)| number));
    }

    fn pause(&mut self) {
        let at = self.last_at;
        let pause_ms = self.now_ms + i64::from(self.random.between(700, 3_000));
        let length_ms = i64::from(self.random.between(4_000, 90_000));
        self.say(pause_ms, Metric::Pause { at });
        self.note(pause_ms, Fact::Pause { at_cs: at });
        self.note(pause_ms + length_ms, Fact::Resume { at_cs: at });
        let resume = Metric::Play { at, knows_duration: true };
        self.say(pause_ms + length_ms, resume);
        self.now_ms += length_ms;
    }

    /// Scrubbing: PAUSE, SEEK, PLAY, and the false stall that the reference player reports.
    fn seek(&mut self) {
        let Some(duration_cs) = self.title.duration_cs else {
            return;
        };
        let played_cs = self.random.between(60, 200);
        let target_cs = self.position_cs + self.random.between(3_000, 12_000);
        if self.last_at == 0 || target_cs + 2 * SEGMENT_CS > duration_cs {
            return;
        }
        let grab_ms = self.now_ms + i64::from(played_cs) * 10;
        let wait_ms = self.random.between(200, 900);
        let seeked_ms = grab_ms + i64::from(wait_ms);
        let at = self.last_at;
        let rtt = self.draw_rtt();
        self.position_cs = target_cs;
        let request = self.request(seeked_ms - 30, 200);
        self.say(grab_ms, Metric::Pause { at });
        let seek = Metric::Seek {
            from: self.at_before_last,
            to: target_cs,
            rtt,
            length_ms: wait_ms,
            request,
        };
        self.say(seeked_ms, seek);
        self.note(
            grab_ms,
            Fact::SeekStart {
                from_cs: self.at_before_last,
            },
        );
        self.note(seeked_ms, Fact::SeekEnd { to_cs: target_cs });
        let resume = Metric::Play { at, knows_duration: true };
        self.say(seeked_ms + 4, resume);
        let ready_ms = seeked_ms + i64::from(self.random.between(20, 90));
        let false_stall = Metric::Buffer {
            first: false,
            at,
            rtt,
            // Never waited: the player subtracts nothing, and the "stall" began in 1970.
            length_ms: match self.has_waited {
                true => ready_ms - grab_ms,
                false => ready_ms,
            },
            request,
        };
        self.say(ready_ms, false_stall);
        // Only where the player has something to measure from does its false stall hide the picture.
        if self.has_waited {
            self.note(seeked_ms + 4, Fact::SeekTail);
            self.note(ready_ms, Fact::Resume { at_cs: at });
        } else {
            self.note(seeked_ms + 4, Fact::Resume { at_cs: at });
        }
        self.now_ms = seeked_ms;
    }

    /// `canplaythrough` without a stall: the player reports the first buffering once more.
    fn report_load_again(&mut self) {
        let time_ms = self.now_ms + i64::from(self.random.between(500, 3_000));
        let again = Metric::Buffer {
            first: true,
            at: self.last_at,
            rtt: self.draw_rtt(),
            length_ms: time_ms - self.start_ms,
            request: self.next_request - 1,
        };
        self.say(time_ms, again);
    }

    fn fail(&mut self) {
        let error_ms = self.now_ms + i64::from(self.random.between(500, 4_000));
        let status = [404, 503][self.random.weighted(&[1, 2])];
        let request = Some(self.request(error_ms - 100, status));
        let at = self.last_at;
        self.say(error_ms, Metric::Error { at, request });
        self.note(error_ms, Fact::FatalError { status: Some(status) });
        self.tally.playback_failure = true;
    }

    /// PAUSE comes milliseconds before STOP, with the position of the last heartbeat.
    fn finish(&mut self) {
        let end = self.title.duration_cs.unwrap_or(self.position_cs);
        self.now_ms += i64::from(end - self.position_cs) * 10;
        let at = self.last_at;
        self.say(self.now_ms, Metric::Pause { at });
        self.note(self.now_ms, Fact::Pause { at_cs: at });
        self.note(self.now_ms + 5, Fact::Finish { at_cs: end });
        let stop = Metric::Stop {
            at: end,
            rung: self.rung,
            start_rung: self.start_rung,
        };
        self.say(self.now_ms + 5, stop);
        self.tally.finished = true;
    }

    /// Closing a tab says nothing; some viewers pause first, and the CDN may see the break.
    fn leave(&mut self) {
        let gone_ms = self.now_ms + i64::from(self.random.between(300, 2_500));
        if self.random.chance(30, 100) {
            let at = self.last_at;
            self.say(gone_ms, Metric::Pause { at });
            self.note(gone_ms, Fact::Pause { at_cs: at });
        }
        if self.random.chance(20, 100) {
            self.request(gone_ms, 0);
        }
    }

    fn say(&mut self, time_ms: i64, metric: Metric) {
        let event = PlayerEvent {
            metric,
            names_user: true,
            playlist_type: Some(self.playlist_type),
        };
        self.tally.events += 1;
        self.moments.push(Moment {
            time_ms,
            what: What::Player(event),
        });
    }

    fn note(&mut self, time_ms: i64, fact: Fact) {
        self.facts.push((time_ms, fact));
    }
}

/// Live titles are joined where the day stands, others at their beginning.
fn first_position(title: &Title, start_ms: i64) -> u32 {
    const DAY_MS: i64 = 86_400_000;
    match title.duration_cs {
        Some(_) => 0,
        None => (start_ms.rem_euclid(DAY_MS) / SEGMENT_MS) as u32 * SEGMENT_CS,
    }
}
