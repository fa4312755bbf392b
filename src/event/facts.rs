//! What the session engine concludes: additive facts, one row a piece.
//!
//! Stands between `session` (which makes these) and the silver tables (which hold them).
//!
//! Invariant: a row depends on the set of events of its session and on whether the watermark has
//! passed its end, never on the order, the batching or the repetition of delivery.

use super::{Device, Network};

/// State of a playback session in an interval (CTA-5004-B `sta`, in words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PlaybackState {
    Starting,
    Playing,
    Rebuffering,
    Seeking,
    Paused,
    Background,
}

impl PlaybackState {
    pub fn as_str(self) -> &'static str {
        match self {
            PlaybackState::Starting => "starting",
            PlaybackState::Playing => "playing",
            PlaybackState::Rebuffering => "rebuffering",
            PlaybackState::Seeking => "seeking",
            PlaybackState::Paused => "paused",
            PlaybackState::Background => "background",
        }
    }
}

/// Why a stall is counted apart. `connection` is the default; the classes always add up to the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StallCause {
    Connection,
    SeekInduced,
}

impl StallCause {
    pub fn as_str(self) -> &'static str {
        match self {
            StallCause::Connection => "connection",
            StallCause::SeekInduced => "seek_induced",
        }
    }
}

/// How an attempt ended, or `Open` while the watermark cannot tell yet.
///
/// Over sessions with `attempts` = 1: attempts = played + exit_before_start + start_failure + open,
/// where `Played` covers every attempt that showed a frame. All others, open or closed, are
/// `NoAttempt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    Open,
    Played,
    ExitBeforeStart,
    StartFailure,
    /// Neither a play intent nor a frame: `attempts` = 0.
    NoAttempt,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Open => "open",
            Outcome::Played => "played",
            Outcome::ExitBeforeStart => "exit_before_start",
            Outcome::StartFailure => "start_failure",
            Outcome::NoAttempt => "no_attempt",
        }
    }
}

/// The segments a session belongs to: the first value known in event order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segments {
    pub user_id: Option<String>,
    pub device_id: Option<String>,
    pub content_id: Option<String>,
    pub stream_type: Option<String>,
    pub app_name: Option<String>,
    pub app_version: Option<String>,
    pub player_name: Option<String>,
    pub player_version: Option<String>,
    pub device: Device,
    pub network: Network,
    pub cdn: Option<String>,
    pub connection_type: Option<String>,
}

/// One stretch of one state, cut at minute boundaries: `silver.playback_intervals`.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaybackInterval {
    pub session_id: String,
    pub session_key: String,
    pub start_ms: i64,
    /// Exclusive; never in a later minute than `start_ms`, save for exactly on the boundary.
    pub end_ms: i64,
    pub state: PlaybackState,
    /// Only on `Rebuffering`.
    pub cause: Option<StallCause>,
    /// 1 on the first piece of a stretch, 0 on those that a minute boundary cut off from it.
    pub starts: i64,
    /// Playing time multiplied by the playback rate, ms; 0 unless playing.
    pub media_ms: i64,
    /// Shown bits: bitrate x media time; 0 where the bitrate is unknown.
    pub shown_bits: i64,
    /// Media time for which the bitrate is known, ms.
    pub bitrate_known_ms: i64,
    pub segments: std::sync::Arc<Segments>,
}

/// One playback session: `silver.playback_sessions`.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaybackSession {
    pub session_id: String,
    pub session_key: String,
    pub started_at_ms: i64,
    /// Last evidence of life.
    pub ended_at_ms: i64,
    /// False once an end event or the timeout has closed it.
    pub is_open: bool,
    /// 1 if the session holds a play intent (or a frame, which implies one).
    pub attempts: i64,
    pub outcome: Outcome,
    /// 1 if a frame was shown.
    pub plays: i64,
    pub startup_ms: Option<i64>,
    /// Waiting time at the exit of an attempt that showed no frame, ms.
    pub exit_wait_ms: Option<i64>,
    pub exits_before_start: i64,
    pub start_failures: i64,
    /// Unrecovered fatal error after the first frame.
    pub playback_failures: i64,
    /// 1 if a fatal error ended the session (before or after the first frame).
    pub fatal_errors: i64,
    /// All error events.
    pub errors: i64,
    pub recovered_errors: i64,
    /// When the session's fatal error happened.
    pub fatal_error_at_ms: Option<i64>,
    pub error_code: Option<String>,
    pub playing_ms: i64,
    pub media_ms: i64,
    pub startup_wait_ms: i64,
    pub stall_ms: i64,
    pub stall_count: i64,
    pub stall_seek_ms: i64,
    pub seek_wait_ms: i64,
    pub seek_count: i64,
    pub paused_ms: i64,
    pub background_ms: i64,
    pub shown_bits: i64,
    pub bitrate_known_ms: i64,
    pub start_bitrate_bps: Option<i64>,
    pub switches_up: i64,
    pub switches_down: i64,
    pub duration_ms: Option<i64>,
    pub max_playhead_ms: Option<i64>,
    /// Highest of 0, 25, 50, 75, 100 % reached by playing there; null for live or unknown length.
    pub quartile: Option<i64>,
    /// 1 if the asset was played to its natural end.
    pub finished: i64,
    /// `finished`, `user_quit`, `error`, `replaced`, `timeout`; null while open.
    pub end_reason: Option<&'static str>,
    pub events: i64,
    /// Reported lengths that broke a sanity bound and are in no sum.
    pub anomalies: i64,
    pub dq_flags: Vec<&'static str>,
    pub segments: std::sync::Arc<Segments>,
}

impl Segments {
    /// What client counts count: the device, else the user, else the session itself.
    pub fn client<'a>(&'a self, session_id: &'a str) -> &'a str {
        self.device_id.as_deref().or(self.user_id.as_deref()).unwrap_or(session_id)
    }
}
