//! The dialects beside the reference player's: the facts of a session as CMCD version 2, EPAS and IVS say them.
//!
//! What a dialect cannot say stays unsaid, as with real players. CMCD version 2 says everything but device, ISP
//! and country. EPAS says no end of a seek's wait. IVS says nothing before the first frame, and nothing of
//! failures, pauses and seeks; stalls are sums of its summaries.
//!
//! Invariant: integers only, so the same seed gives the same bytes.

use std::fmt::Write;

use super::fact::{At, Fact};
use super::plan::Plan;
use super::random::Random;
use super::world::RUNGS;

/// What players of a simulation speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// The reference player's, traps included.
    #[default]
    Reference,
    Cmcd,
    Epas,
    Ivs,
}

/// Stream of random numbers that session ids are drawn from.
const SESSION_IDS: u64 = 4;

impl Dialect {
    pub const ALL: [Dialect; 4] = [Dialect::Reference, Dialect::Cmcd, Dialect::Epas, Dialect::Ivs];

    /// As `playhead ingest --format` names it.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Reference => "reference",
            Dialect::Cmcd => "cmcd",
            Dialect::Epas => "epas",
            Dialect::Ivs => "ivs",
        }
    }

    pub fn named(name: &str) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|dialect| dialect.name() == name)
    }

    /// The lines of a session, newlines included; none for the reference dialect, which is no translation.
    pub fn lines(self, plan: &Plan) -> Vec<(i64, String)> {
        let mut teller = Teller::new(plan);
        let mut lines = Vec::with_capacity(plan.facts.len());
        for at in &plan.facts {
            match self {
                Dialect::Reference => {}
                Dialect::Cmcd => lines.push((at.0, teller.cmcd(*at))),
                Dialect::Epas => lines.extend(teller.epas(*at).map(|line| (at.0, line))),
                Dialect::Ivs => lines.extend(teller.ivs(*at).map(|line| (at.0, line))),
            }
        }
        lines
    }
}

/// A session being told.
struct Teller<'a> {
    plan: &'a Plan,
    session_id: String,
    names_user: bool,
    /// Events told so far.
    told: u32,
    /// Since the last summary of IVS.
    sums: Sums,
}

/// What a summary adds up.
#[derive(Default)]
struct Sums {
    playing_since_ms: Option<i64>,
    playing_ms: i64,
    stall_ms: i64,
    stalls: u32,
}

impl<'a> Teller<'a> {
    fn new(plan: &'a Plan) -> Teller<'a> {
        let mut random = Random::of(plan.request_ids, SESSION_IDS, 0);
        let (high, low) = (random.next(), random.next());
        let session_id = format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0x0fff,
            0x8000 | (low >> 48) & 0x3fff,
            low & 0xffff_ffff_ffff,
        );
        Teller {
            plan,
            session_id,
            names_user: true,
            told: 0,
            sums: Sums::default(),
        }
    }

    /// Keys in the order of the alphabet, as the specification wants them.
    fn cmcd(&mut self, (time_ms, fact): At) -> String {
        let Plan { viewer, title, .. } = self.plan;
        let (event, state) = match fact {
            Fact::Intent { .. } => ("ps", "s"),
            Fact::FirstFrame { .. } | Fact::StallEnd { .. } | Fact::Resume { .. } => ("ps", "p"),
            Fact::StallStart { .. } => ("ps", "r"),
            Fact::Pause { .. } | Fact::SeekEnd { .. } => ("ps", "a"),
            Fact::SeekStart { .. } | Fact::SeekTail => ("ps", "k"),
            Fact::Finish { .. } => ("ps", "e"),
            Fact::FatalError { .. } => ("e", "f"),
            Fact::Heartbeat { .. } => ("t", "p"),
            Fact::Rung { .. } => ("bc", "p"),
        };
        let mut line = String::with_capacity(360);
        match fact {
            Fact::FirstFrame { rung, .. } | Fact::Rung { rung } => {
                put(&mut line, format_args!("br=({};v),", RUNGS[rung].bitrate_bps / 1_000))
            }
            _ => {}
        }
        put(&mut line, format_args!("cid=\"{}\",", title.video_id));
        put(&mut line, format_args!("com.example-app-name=\"{}\",", viewer.device.app_name));
        put(&mut line, format_args!("com.example-app-version=\"{}\",", viewer.app_version));
        put(&mut line, format_args!("com.example-user-id=\"{}\",e={event},", viewer.user_id));
        match fact {
            Fact::FatalError { status } => put(&mut line, format_args!("ec=(\"{}\"),", error_code(status))),
            Fact::FirstFrame { startup_ms, .. } => put(&mut line, format_args!("msd={startup_ms},")),
            Fact::Heartbeat { at_cs } if title.duration_cs.is_some() => put(&mut line, format_args!("pt={},", u64::from(at_cs) * 10)),
            _ => {}
        }
        let stream = if title.duration_cs.is_some() { "v" } else { "l" };
        let (session_id, number) = (&self.session_id, self.told);
        put(
            &mut line,
            format_args!("sf=h,sid=\"{session_id}\",sn={number},st={stream},sta={state},ts={time_ms},v=2\n"),
        );
        self.told += 1;
        line
    }

    fn epas(&mut self, (time_ms, fact): At) -> Option<String> {
        let Plan { viewer, title, .. } = self.plan;
        let (event, at_cs, more) = match fact {
            Fact::Intent { names_user } => {
                self.names_user = names_user;
                ("loading", 0, String::new())
            }
            Fact::FirstFrame { .. } => ("playing", 0, String::new()),
            Fact::Resume { at_cs } => ("playing", at_cs, String::new()),
            Fact::Heartbeat { at_cs } => ("heartbeat", at_cs, String::new()),
            Fact::StallStart { at_cs } => ("buffering", at_cs, String::new()),
            Fact::StallEnd { at_cs, .. } => ("buffered", at_cs, String::new()),
            Fact::Pause { at_cs } => ("paused", at_cs, String::new()),
            Fact::SeekStart { from_cs } => ("seeking", from_cs, String::new()),
            Fact::SeekEnd { to_cs } => ("seeked", to_cs, String::new()),
            Fact::SeekTail => return None,
            Fact::Rung { rung } => {
                let Rates { kbps, height } = rates(rung);
                ("bitrate_changed", 0, format!(",\"bitrate\":{kbps},\"height\":{height}"))
            }
            Fact::FatalError { status } => ("error", 0, format!(",\"code\":\"{}\"", error_code(status))),
            Fact::Finish { at_cs } => ("stopped", at_cs, ",\"reason\":\"ended\"".to_owned()),
        };
        let (playhead, duration) = match title.duration_cs {
            Some(cs) => (seconds(at_cs), seconds(cs)),
            None => ("-1".to_owned(), "-1".to_owned()),
        };
        let mut line = format!(
            "{{\"event\":\"{event}\",\"sessionId\":\"{}\",\"timestamp\":{time_ms},\"playhead\":{playhead},\"duration\":{duration},\"payload\":{{\
             \"live\":{},\"contentId\":\"{}\",\"deviceType\":\"{}\"{more}",
            self.session_id,
            title.duration_cs.is_none(),
            title.video_id,
            viewer.device.device_type,
        );
        if self.names_user {
            put(&mut line, format_args!(",\"userId\":\"{}\"", viewer.user_id));
        }
        self.names_user = true;
        line.push_str("}}\n");
        Some(line)
    }

    fn ivs(&mut self, (time_ms, fact): At) -> Option<String> {
        self.sums.take(time_ms, fact);
        let (metric_type, more) = match fact {
            Fact::FirstFrame { startup_ms, .. } => ("PLAY", format!(",\"startup_latency_ms\":{startup_ms}")),
            Fact::Heartbeat { .. } => {
                let sums = std::mem::take(&mut self.sums);
                self.sums.playing_since_ms = sums.playing_since_ms;
                let Sums {
                    playing_ms,
                    stall_ms,
                    stalls,
                    ..
                } = sums;
                let more = format!(
                    ",\"error_count\":0,\"playing_time_ms\":{playing_ms},\"buffering_time_ms\":{stall_ms},\"buffering_count\":{stalls}"
                );
                ("PLAYBACK_SUMMARY", more)
            }
            Fact::Rung { rung } => {
                let (bps, height) = (RUNGS[rung].bitrate_bps, RUNGS[rung].height);
                (
                    "QUALITY_CHANGED",
                    format!(",\"to_bitrate\":{bps},\"to_rendition_name\":\"{height}p\""),
                )
            }
            Fact::Finish { at_cs } => ("STOP", format!(",\"end_playback_position_sec\":{}", seconds(at_cs))),
            _ => return None,
        };
        let Plan { viewer, title, .. } = self.plan;
        let is = |device_type: &str| viewer.device.device_type == device_type;
        Some(format!(
            "{{\"metric_type\":\"{metric_type}\",\"user_id\":\"{}\",\"session_id\":\"{}\",\"is_live\":{},\"channel_watched\":\"{}\"{more},\
             \"CloudFront-Viewer-Country\":\"{}\",\"CloudFront-Is-SmartTV-Viewer\":{},\"CloudFront-Is-Tablet-Viewer\":{},\
             \"CloudFront-Is-Mobile-Viewer\":{},\"CloudFront-Is-Desktop-Viewer\":{},\"event_time\":{time_ms}}}\n",
            viewer.user_id,
            self.session_id,
            title.duration_cs.is_none(),
            title.video_id,
            viewer.isp.country,
            is("tv"),
            is("tablet"),
            is("mobile"),
            is("desktop"),
        ))
    }
}

impl Sums {
    fn take(&mut self, time_ms: i64, fact: Fact) {
        if let Some(since_ms) = self.playing_since_ms {
            self.playing_ms += time_ms - since_ms;
            self.playing_since_ms = Some(time_ms);
        }
        match fact {
            Fact::FirstFrame { .. } | Fact::Resume { .. } => self.playing_since_ms = Some(time_ms),
            Fact::StallEnd { length_ms, .. } => {
                self.playing_since_ms = Some(time_ms);
                self.stall_ms += length_ms;
                self.stalls += 1;
            }
            Fact::StallStart { .. } | Fact::Pause { .. } | Fact::SeekStart { .. } => self.playing_since_ms = None,
            _ => {}
        }
    }
}

struct Rates {
    kbps: u32,
    height: u32,
}

fn rates(rung: usize) -> Rates {
    Rates {
        kbps: RUNGS[rung].bitrate_bps / 1_000,
        height: RUNGS[rung].height,
    }
}

/// Of the request that failed, or of the player itself.
fn error_code(status: Option<u32>) -> String {
    status.map_or("DECODE".to_owned(), |status| format!("HTTP_{status}"))
}

/// Hundredths of a second as a number of seconds.
fn seconds(cs: u32) -> String {
    format!("{}.{:02}", cs / 100, cs % 100)
}

/// Writes to memory, which cannot fail.
fn put(line: &mut String, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text).expect("memory takes every letter");
}
