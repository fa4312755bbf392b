//! One playback session from the viewer's first tap to silence, as the player and the CDN see it.
//!
//! A plan is a list of moments in the order of time. Position moves in steps of one segment (5 s of
//! media), which is also the distance of the player's heartbeats.
//!
//! Invariant: what the tally counts is what a correct engine should find in the moments, so the
//! false stalls that the reference player reports are in the moments and not in the tally.

use super::Simulation;
use super::audience::{APP_FAULT, CDN_FAULT, ISP_FAULT, RUNGS, TITLES, Title, Viewer};
use super::random::Random;

/// Segments that stall without any incident, of a thousand.
pub const STALL_PER_MILLE: u32 = 4;

/// Of a thousand attempts: those that fail, and those whose viewer gives up, before the first frame.
const START_FAILURE_PER_MILLE: u32 = 7;
const EXIT_BEFORE_START_PER_MILLE: u32 = 20;

/// Media length of a segment and of the heartbeat's distance, in hundredths of a second and ms.
const SEGMENT_CS: u32 = 500;
const SEGMENT_MS: i64 = 5_000;

/// A step begins at a heartbeat; what disturbs it comes this much later, so that a stall is never
/// taken for the tail of a seek (engines allow a second for that).
const DISTURBANCE_AFTER_MS: (u32, u32) = (1_500, 4_000);

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
    pub tally: Tally,
}

pub struct Moment {
    pub time_ms: i64,
    pub what: What,
}

pub enum What {
    Player(PlayerEvent),
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
    /// Stalls by the ISP, failures by the app, slow responses by the CDN.
    pub incident_effects: [u64; 3],
}

const BY_ISP: usize = 0;
const BY_APP: usize = 1;
const BY_CDN: usize = 2;

/// Plans session number `session`. Its first moment lies in its slot of the span.
pub fn plan(simulation: &Simulation, session: u32) -> Plan {
    let is_return = session % RETURN_EVERY == RETURN_EVERY - 1;
    let viewer = match is_return {
        true => Viewer::draw(simulation.seed, session + 1 - RETURN_EVERY),
        false => Viewer::draw(simulation.seed, session),
    };
    // The second visit is for another title: one session for one user and video.
    let title = &TITLES[(viewer.title + usize::from(is_return)) % TITLES.len()];
    let mut random = Random::of(simulation.seed, SESSIONS, u64::from(session));
    let slot_ms = simulation.slot_start_ms(session + 1) - simulation.slot_start_ms(session);
    let into_slot_ms = random.below(u32::try_from(slot_ms).unwrap_or(u32::MAX));
    let start_ms = simulation.slot_start_ms(session) + i64::from(into_slot_ms);
    let request_ids = Random::of(simulation.seed, REQUEST_IDS, u64::from(session)).next();
    let mut script = Script::new(simulation, &viewer, title, random, start_ms);
    script.perform();
    let Script { mut moments, tally, .. } = script;
    // Stable: what happened in the same millisecond stays in the order in which it was written.
    moments.sort_by_key(|moment| moment.time_ms);
    Plan {
        viewer,
        title,
        request_ids,
        moments,
        tally,
    }
}

/// A session being written down.
struct Script<'a> {
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
    tally: Tally,
}

impl<'a> Script<'a> {
    fn new(simulation: &'a Simulation, viewer: &'a Viewer, title: &'static Title, random: Random, start_ms: i64) -> Script<'a> {
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
            tally: Tally::default(),
        }
    }

    fn perform(&mut self) {
        let by_app = self.hits_app_fault() && self.random.chance(APP_FAULT.failure_per_mille, 1_000);
        if by_app || self.random.chance(START_FAILURE_PER_MILLE, 1_000) {
            self.fail_to_start(by_app);
        } else if self.random.chance(EXIT_BEFORE_START_PER_MILLE, 1_000) {
            self.exit_before_start();
        } else {
            self.start();
            self.watch();
        }
    }

    fn hits_app_fault(&self) -> bool {
        self.simulation.in_incident(self.start_ms)
            && self.viewer.app_version == APP_FAULT.app_version
            && self.viewer.device.device_type == APP_FAULT.device_type
    }

    fn fail_to_start(&mut self, by_app: bool) {
        // A player whose manifest never arrived calls everything live.
        if self.random.chance(30, 100) {
            self.playlist_type = "LIVE";
        }
        self.first_play();
        let error_ms = self.start_ms + i64::from(self.random.between(800, 4_000));
        let status = match by_app {
            true => 200,
            false => [403, 404, 503][self.random.weighted(&[2, 3, 5])],
        };
        let request = self.request(error_ms - 200, status);
        let request = (!by_app).then_some(request);
        self.say(error_ms, Metric::Error { at: 0, request });
        self.tally.start_failure = true;
        if by_app {
            self.tally.incident_effects[BY_APP] += 1;
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
        self.tally.anonymous_events += u64::from(!names_user);
        self.tally.events += 1;
        self.moments.push(Moment {
            time_ms: self.start_ms,
            what: What::Player(event),
        });
    }

    /// Steps from heartbeat to heartbeat until the title, the viewer's patience or the player ends.
    fn watch(&mut self) {
        let patience_s = 20 + self.random.below(100) + self.random.below(100);
        let steps = patience_s / 5;
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
        self.say(self.now_ms + i64::from(late_cs) * 10, stream);
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
        self.rung = to;
    }

    /// Most segments arrive in time. Before the first heartbeat none stalls: with `at` 0 nobody
    /// could tell the report from a start-up wait.
    fn stall_perhaps(&mut self) {
        if self.last_at == 0 {
            return;
        }
        let by_isp = self.simulation.in_incident(self.now_ms) && self.viewer.isp.name == ISP_FAULT.isp;
        let per_mille = match by_isp {
            true => ISP_FAULT.stall_per_mille,
            false => STALL_PER_MILLE,
        };
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
        if self.rung > 0 && self.random.chance(1, 2) {
            self.step_to(self.rung - 1, end_ms + 120);
        }
        self.has_waited = true;
        self.now_ms += length_ms;
        self.tally.stalls += 1;
        self.tally.stall_ms += length_ms as u64;
        if by_isp {
            self.tally.incident_effects[BY_ISP] += 1;
        }
    }

    fn pause(&mut self) {
        let at = self.last_at;
        let pause_ms = self.now_ms + i64::from(self.random.between(700, 3_000));
        let length_ms = i64::from(self.random.between(4_000, 90_000));
        self.say(pause_ms, Metric::Pause { at });
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
        self.tally.playback_failure = true;
    }

    /// PAUSE comes milliseconds before STOP, with the position of the last heartbeat.
    fn finish(&mut self) {
        let end = self.title.duration_cs.unwrap_or(self.position_cs);
        self.now_ms += i64::from(end - self.position_cs) * 10;
        let at = self.last_at;
        self.say(self.now_ms, Metric::Pause { at });
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

    /// Logs a request for the segment being played, whose response ends at `end_ms`, and returns
    /// its number.
    fn request(&mut self, end_ms: i64, status: u32) -> u32 {
        let end_ms = end_ms.max(self.start_ms);
        let number = self.next_request;
        self.next_request += 1;
        let result = match status {
            200 => [Cache::Hit, Cache::RefreshHit, Cache::Miss][self.random.weighted(&[88, 3, 9])],
            _ => Cache::Error,
        };
        let mut ttfb_ms = match result {
            Cache::Hit => self.random.between(8, 40),
            Cache::RefreshHit => self.random.between(30, 90),
            Cache::Miss => self.random.between(80, 300),
            Cache::Error => self.random.between(5, 60),
        };
        if self.hits_cdn_fault(end_ms) {
            ttfb_ms += ttfb_ms * CDN_FAULT.ttfb_more_percent / 100;
            self.tally.incident_effects[BY_CDN] += 1;
        }
        // Five seconds of the rung, give or take a tenth; errors send a small page.
        let segment_bytes = RUNGS[self.rung].bitrate_bps / 8 * 5;
        let bytes = match status {
            200 => segment_bytes / 10 * 9 + self.random.below(segment_bytes / 5),
            0 => self.random.below(segment_bytes / 2),
            _ => self.random.between(240, 900),
        };
        // 20 to 60 Mbit/s are 2500 to 7500 bytes a millisecond.
        let transfer_ms = bytes / self.random.between(2_500, 7_500);
        let request = Request {
            number,
            segment: self.position_cs / SEGMENT_CS + 1,
            rung: self.rung,
            status,
            result,
            bytes,
            taken_ms: ttfb_ms + transfer_ms,
            ttfb_ms,
        };
        self.tally.cdn_requests += 1;
        self.moments.push(Moment {
            time_ms: end_ms,
            what: What::Cdn(request),
        });
        number
    }

    fn hits_cdn_fault(&self, time_ms: i64) -> bool {
        self.simulation.in_incident(time_ms) && self.viewer.edge_location.starts_with(CDN_FAULT.pop)
    }

    fn draw_startup_ms(&mut self) -> u32 {
        let slow_network_ms = match self.viewer.connection_type {
            "3g" => 1_200,
            _ => 0,
        };
        let spread_ms = self.random.below(700) + self.random.below(700);
        250 + spread_ms + slow_network_ms + self.viewer.device.startup_more_ms
    }

    fn draw_rtt(&mut self) -> u32 {
        match self.viewer.connection_type {
            "3g" => self.random.between(200, 420),
            _ => self.random.between(18, 140),
        }
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
