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

mod audience;
mod plan;
mod random;
mod render;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};

use serde::Serialize;

use audience::{APP_FAULT, CDN_FAULT, ISP_FAULT};
use plan::{Plan, What};
pub use render::CDN_HEADER;

/// What to simulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simulation {
    pub seed: u64,
    pub sessions: u32,
    /// When the first session may start, epoch ms.
    pub start_ms: i64,
    /// Sessions start evenly spread over this long; the last ones end some minutes after it.
    pub span_ms: i64,
    /// Plants three incidents into the middle third of the span.
    pub incident: bool,
}

/// What happened, as an all-seeing observer would count it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Truth {
    pub seed: u64,
    pub start_ms: i64,
    pub span_ms: i64,
    /// Lines of the players' output.
    pub events: u64,
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
}

/// One planted incident and what it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incident {
    pub name: &'static str,
    /// One sentence for people.
    pub what: String,
    /// The dimension values that explain it, as (column, value).
    pub segment: Vec<(&'static str, &'static str)>,
    pub from_ms: i64,
    /// Exclusive.
    pub to_ms: i64,
    /// Stalls, failed starts or slow responses that this incident caused.
    pub effects: u64,
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
        let mut playout = self.play_out();
        let mut text = Vec::new();
        while let Some(line) = playout.next_line(&mut text) {
            match line.output {
                Output::Player => player.write_all(&text)?,
                Output::Cdn => cdn.write_all(&text)?,
            }
        }
        player.flush()?;
        cdn.flush()?;
        Ok(playout.into_truth())
    }

    /// The same line by line, for callers that follow a clock.
    pub fn play_out(&self) -> PlayOut {
        PlayOut::new(*self)
    }

    /// Start (included) and end (not included) of the incidents, epoch ms.
    pub fn incident_window(&self) -> (i64, i64) {
        let third = self.span_ms / 3;
        (self.start_ms + third, self.start_ms + 2 * third)
    }

    fn in_incident(&self, time_ms: i64) -> bool {
        let (from_ms, to_ms) = self.incident_window();
        self.incident && (from_ms..to_ms).contains(&time_ms)
    }

    /// Sessions start one in each of `sessions` equal slots, so starts are in order without sorting.
    fn slot_start_ms(&self, session: u32) -> i64 {
        let into_span = i128::from(self.span_ms) * i128::from(session) / i128::from(self.sessions);
        self.start_ms + into_span as i64
    }
}

/// A simulation being played out in the order of time.
pub struct PlayOut {
    simulation: Simulation,
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
        PlayOut {
            simulation,
            next_session: 0,
            upcoming: BinaryHeap::new(),
            on_air: Vec::new(),
            free_slots: Vec::new(),
            truth: Truth::of_nothing(&simulation),
        }
    }

    /// Puts the next line, newline included, into `text`; nothing when all is told.
    pub fn next_line(&mut self, text: &mut Vec<u8>) -> Option<Line> {
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
    pub fn into_truth(self) -> Truth {
        self.truth
    }

    /// Plans every session that may have the next line.
    fn admit_due_sessions(&mut self) {
        while self.next_session < self.simulation.sessions {
            let slot_start_ms = self.simulation.slot_start_ms(self.next_session);
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
        let plan = plan::plan(&self.simulation, session);
        self.truth.add(&plan);
        let first_ms = plan.moments[0].time_ms;
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

impl Truth {
    fn of_nothing(simulation: &Simulation) -> Truth {
        Truth {
            seed: simulation.seed,
            start_ms: simulation.start_ms,
            span_ms: simulation.span_ms,
            events: 0,
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
            incidents: match simulation.incident {
                true => incidents(simulation),
                false => Vec::new(),
            },
        }
    }

    fn add(&mut self, plan: &Plan) {
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
        for (incident, effects) in self.incidents.iter_mut().zip(tally.incident_effects) {
            incident.effects += effects;
        }
    }
}

/// In the order of `Tally::incident_effects`.
fn incidents(simulation: &Simulation) -> Vec<Incident> {
    let (from_ms, to_ms) = simulation.incident_window();
    let planted = |name, what, segment| Incident {
        name,
        what,
        segment,
        from_ms,
        to_ms,
        effects: 0,
    };
    vec![
        planted(
            "isp_stalls",
            format!(
                "viewers of {} stall at {} % of their segments instead of {} %",
                ISP_FAULT.isp,
                ISP_FAULT.stall_per_mille / 10,
                plan::STALL_PER_MILLE as f64 / 10.0
            ),
            vec![("isp", ISP_FAULT.isp)],
        ),
        planted(
            "app_start_failures",
            format!(
                "version {} on {} fails to start in {} % of the attempts",
                APP_FAULT.app_version,
                APP_FAULT.device_type,
                APP_FAULT.failure_per_mille / 10
            ),
            vec![("app_version", APP_FAULT.app_version), ("device_type", APP_FAULT.device_type)],
        ),
        planted(
            "cdn_slow_first_byte",
            format!(
                "the first byte from {} comes {} % later",
                CDN_FAULT.pop, CDN_FAULT.ttfb_more_percent
            ),
            vec![("pop", CDN_FAULT.pop)],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde_json::Value;

    use super::*;

    /// 2026-03-01 00:00 UTC.
    const START_MS: i64 = 1_772_323_200_000;
    const HOUR_MS: i64 = 3_600_000;

    struct Outcome {
        player: String,
        cdn: String,
        truth: Truth,
    }

    fn simulated(seed: u64, sessions: u32, incident: bool) -> Outcome {
        let simulation = Simulation {
            seed,
            sessions,
            start_ms: START_MS,
            span_ms: HOUR_MS,
            incident,
        };
        let (mut player, mut cdn) = (Vec::new(), Vec::new());
        let truth = simulation.run(&mut player, &mut cdn).unwrap();
        Outcome {
            player: String::from_utf8(player).unwrap(),
            cdn: String::from_utf8(cdn).unwrap(),
            truth,
        }
    }

    fn events(player: &str) -> Vec<Value> {
        let parsed = player.lines().map(serde_json::from_str);
        parsed.map(|event| event.expect("a line of JSON")).collect()
    }

    fn requests(cdn: &str) -> Vec<Vec<&str>> {
        let lines = cdn.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split('\t').collect()).collect()
    }

    fn metric(event: &Value) -> &str {
        event["MetricType"].as_str().unwrap()
    }

    /// FNV-1a, 64 bits.
    fn hash(text: &str) -> u64 {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
    }

    /// If this fails, every seed in tests, benchmarks and bug reports has changed its meaning.
    #[test]
    fn a_seed_gives_the_same_bytes_everywhere_and_for_ever() {
        let outcome = simulated(42, 200, true);
        let hashes = (hash(&outcome.player), hash(&outcome.cdn));
        assert_eq!(hashes, (6_178_905_057_214_719_089, 12_577_655_033_029_259_204));
        assert_ne!(simulated(43, 200, true).player, outcome.player);
    }

    #[test]
    fn the_truth_is_what_the_lines_say() {
        let Outcome { player, cdn, truth } = simulated(1, 1_500, true);
        let events = events(&player);
        let count = |name: &str| events.iter().filter(|e| metric(e) == name).count() as u64;
        let without_user = events.iter().filter(|e| e["user_id"].is_null()).count();
        let startup_ms: u64 = events
            .iter()
            .filter(|event| metric(event) == "FIRSTFRAME")
            .map(|event| event["time_millisecond"].as_u64().unwrap())
            .sum();
        let (stalls, stall_ms) = real_stalls(&events);
        let started = truth.plays + truth.start_failures + truth.exits_before_start;
        assert_eq!(truth.sessions, 1_500);
        assert_eq!(started, truth.sessions);
        assert_eq!(truth.events, events.len() as u64);
        assert_eq!(truth.cdn_requests, requests(&cdn).len() as u64);
        assert_eq!(truth.plays, count("FIRSTFRAME"));
        assert_eq!(truth.start_failures + truth.playback_failures, count("ERROR"));
        assert_eq!(truth.finished, count("STOP"));
        assert_eq!(truth.anonymous_events, without_user as u64);
        assert_eq!(truth.startup_ms, startup_ms);
        assert_eq!((truth.stalls, truth.stall_ms), (stalls, stall_ms));
        assert!(truth.finished > 100 && truth.playback_failures > 5);
    }

    /// Stall reports that are neither start-up waits, nor tails of a seek, nor as old as the epoch.
    fn real_stalls(events: &[Value]) -> (u64, u64) {
        let mut last_seek_ms = HashMap::new();
        let (mut count, mut total_ms) = (0, 0);
        for event in events {
            let viewing = (event["user_id"].as_str(), event["video_id"].as_str());
            let time_ms = event["TimeStamp"].as_i64().unwrap();
            if metric(event) == "SEEK" {
                last_seek_ms.insert(viewing, time_ms);
            }
            let is_after_seek = last_seek_ms.get(&viewing).is_some_and(|seek_ms| time_ms - seek_ms < 100);
            let is_start = event["at"].as_f64() == Some(0.0);
            let is_stall = event["buffer_type"] == "ScreenFreezedBuffer";
            if is_stall && !is_start && !is_after_seek {
                count += 1;
                total_ms += event["time_millisecond"].as_u64().unwrap();
            }
        }
        (count, total_ms)
    }

    #[test]
    fn lines_come_in_the_order_of_time() {
        let Outcome { player, cdn, .. } = simulated(2, 500, true);
        let times: Vec<i64> = events(&player).iter().map(|event| event["TimeStamp"].as_i64().unwrap()).collect();
        assert!(times.is_sorted());
        assert!(times[0] >= START_MS);
        let log_times: Vec<String> = requests(&cdn).iter().map(|r| r[..2].join(" ")).collect();
        assert!(log_times.is_sorted());
        assert_eq!(&log_times[0][..13], "2026-03-01 00");
    }

    #[test]
    fn every_tracking_id_is_logged_by_the_cdn_once() {
        let Outcome { player, cdn, .. } = simulated(3, 500, true);
        let mut logged = HashSet::new();
        for request in requests(&cdn) {
            assert_eq!(request.len(), 33);
            assert_eq!(request[14].len(), 56);
            assert!(logged.insert(request[14].to_owned()), "{}", request[14]);
        }
        let mut tracked = 0;
        for event in events(&player) {
            if let Some(id) = event["cdn_tracking_id"].as_str() {
                tracked += 1;
                assert!(logged.contains(id), "{event}");
            }
        }
        assert!(tracked > 5_000);
    }

    #[test]
    fn a_session_has_about_twenty_five_events() {
        let truth = simulated(4, 1_000, false).truth;
        let events_a_session = truth.events / truth.sessions;
        assert!((22..=28).contains(&events_a_session), "{events_a_session}");
    }

    #[test]
    fn players_have_the_reference_players_traps() {
        let events = events(&simulated(5, 1_500, false).player);
        let some = |test: &dyn Fn(&Value) -> bool| events.iter().any(test);
        let is = |event: &Value, name: &str| metric(event) == name;
        assert!(some(&|e| is(e, "FIRSTFRAME") && e["avg_bitrate"].is_string()));
        assert!(some(&|e| is(e, "FIRSTFRAME") && e["fps"].is_null()));
        assert!(some(&|e| is(e, "STREAM") && e["avg_bitrate"].is_u64() && e["fps"].is_string()));
        assert!(some(&|e| is(e, "STREAM") && e["avg_bitrate"] == 0));
        let has_no_length = |e: &Value| e["duration"].is_null() && e.get("duration").is_some();
        assert!(some(&|e| is(e, "STREAM") && has_no_length(e)));
        assert!(some(&|e| is(e, "BUFFER") && e["time_millisecond"] == e["TimeStamp"]));
        assert!(some(&|e| is(e, "PLAY") && e.get("playlist_type").is_none()));
        let is_mislabelled = |e: &Value| e["buffer_type"] == "ScreenFreezedBuffer" && e["at"] == 0;
        assert!(some(&|e| is_mislabelled(e)));
        for name in ["SEEK", "PAUSE", "STOP", "STEP", "ERROR"] {
            assert!(some(&|e| is(e, name)), "{name}");
        }
        assert!(!some(&|e| e.get("session_id").is_some()));
        assert!(!some(&|e| is(e, "PLAY") && e.get("cdn_tracking_id").is_some()));
    }

    #[test]
    fn one_viewer_watches_one_title_once() {
        let events = events(&simulated(6, 1_000, false).player);
        let mut viewings = HashMap::new();
        for event in events.iter().filter(|e| metric(e) == "FIRSTFRAME") {
            let viewing = (event["user_id"].to_string(), event["video_id"].to_string());
            *viewings.entry(viewing).or_insert(0) += 1;
        }
        assert!(viewings.values().all(|count| *count == 1));
        let viewers: HashSet<_> = viewings.keys().map(|(user, _)| user).collect();
        assert!(viewers.len() < viewings.len());
    }

    #[test]
    fn incidents_happen_when_and_to_whom_the_truth_says() {
        let Outcome { player, truth, .. } = simulated(7, 3_000, true);
        let (from_ms, to_ms) = (truth.incidents[0].from_ms, truth.incidents[0].to_ms);
        let events = events(&player);
        let share = |numerator: &dyn Fn(&Value) -> bool, denominator: &dyn Fn(&Value) -> bool| {
            let count = |test: &dyn Fn(&Value) -> bool| events.iter().filter(|e| test(e)).count();
            count(numerator) as f64 / count(denominator) as f64
        };
        let in_window = |e: &Value| {
            let time_ms = e["TimeStamp"].as_i64().unwrap();
            (from_ms..to_ms).contains(&time_ms)
        };
        let of_isp = |e: &Value| e["isp"] == ISP_FAULT.isp;
        let beats = |e: &Value| metric(e) == "STREAM";
        let stalls = |e: &Value| {
            let is_sane = e["time_millisecond"].as_i64() < Some(60_000);
            e["buffer_type"] == "ScreenFreezedBuffer" && e["at"] != 0 && is_sane
        };
        let hit = share(&|e| stalls(e) && in_window(e) && of_isp(e), &|e| {
            beats(e) && in_window(e) && of_isp(e)
        });
        let spared = share(&|e| stalls(e) && in_window(e) && !of_isp(e), &|e| {
            beats(e) && in_window(e) && !of_isp(e)
        });
        assert!(hit > 0.09 && spared < 0.01, "{hit} {spared}");

        let of_app = |e: &Value| e["app_version"] == APP_FAULT.app_version && e["device_type"] == APP_FAULT.device_type;
        let starts = |e: &Value| metric(e) == "PLAY" && e["duration"] == 0;
        let fails = |e: &Value| metric(e) == "ERROR" && e["at"] == 0;
        let hit = share(&|e| fails(e) && in_window(e) && of_app(e), &|e| {
            starts(e) && in_window(e) && of_app(e)
        });
        let spared = share(&|e| fails(e) && !(in_window(e) && of_app(e)), &|e| {
            starts(e) && !(in_window(e) && of_app(e))
        });
        assert!(hit > 0.07 && spared < 0.02, "{hit} {spared}");
        assert!(truth.incidents.iter().all(|incident| incident.effects > 0));
    }

    #[test]
    fn one_pop_answers_later_during_the_incident() {
        let calm = simulated(8, 3_000, false);
        let troubled = simulated(8, 3_000, true);
        let mean_ttfb = |outcome: &Outcome, is_hit: bool| {
            let window = "00:20".."00:40";
            let requests = requests(&outcome.cdn);
            let of_pop: Vec<f64> = requests
                .iter()
                .filter(|r| r[2].starts_with(CDN_FAULT.pop))
                .filter(|r| window.contains(&&r[1][..5]) == is_hit)
                .map(|r| r[27].parse().unwrap())
                .collect();
            of_pop.iter().sum::<f64>() / of_pop.len() as f64
        };
        let rise = mean_ttfb(&troubled, true) / mean_ttfb(&calm, true);
        assert!((1.3..1.5).contains(&rise), "{rise}");
        let elsewhere = mean_ttfb(&troubled, false) / mean_ttfb(&calm, false);
        assert!((0.95..1.05).contains(&elsewhere), "{elsewhere}");
    }

    #[test]
    fn no_sessions_give_only_the_header() {
        let outcome = simulated(9, 0, true);
        assert_eq!(outcome.player, "");
        assert_eq!(outcome.cdn, CDN_HEADER);
        assert_eq!(outcome.truth.sessions, 0);
    }

    #[test]
    fn sessions_on_air_are_all_that_is_held() {
        let simulation = Simulation {
            seed: 10,
            sessions: 3_000,
            start_ms: START_MS,
            span_ms: 24 * HOUR_MS,
            incident: false,
        };
        let mut playout = simulation.play_out();
        let mut text = Vec::new();
        while playout.next_line(&mut text).is_some() {}
        // About two sessions a minute, each on air for some minutes.
        assert!(playout.on_air.len() < 60, "{}", playout.on_air.len());
    }
}
