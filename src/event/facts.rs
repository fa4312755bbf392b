//! What the session engine concludes: additive facts, one row a piece.
//!
//! Stands between `session` (which makes these) and the silver tables (which hold them).
//!
//! Invariant: a row depends on the set of events of its session and on whether the watermark has
//! passed its end, never on the order, the batching or the repetition of delivery.

use super::names::Name;
use super::{Device, ErrorClass, Network};

/// State of a playback session in an interval (CTA-5004-B `sta`, in words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum PlaybackState {
    Starting,
    Playing,
    Rebuffering,
    Seeking,
    Paused,
    Background,
    /// `sta=w`, which the standard does not define: neither playing nor a stall.
    Waiting,
    /// An advertisement plays.
    Ad,
    /// No report for more than two intervals while in the background: nothing is known.
    Gap,
    /// A session that went silent while active, for one and a half heartbeats: the viewer is presumed
    /// to be there still. In no sum of time; concurrency counts it (3.6).
    Silent,
}

impl PlaybackState {
    /// In the order of the variants.
    pub const ALL: [PlaybackState; 10] = [
        PlaybackState::Starting,
        PlaybackState::Playing,
        PlaybackState::Rebuffering,
        PlaybackState::Seeking,
        PlaybackState::Paused,
        PlaybackState::Background,
        PlaybackState::Waiting,
        PlaybackState::Ad,
        PlaybackState::Gap,
        PlaybackState::Silent,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            PlaybackState::Starting => "starting",
            PlaybackState::Playing => "playing",
            PlaybackState::Rebuffering => "rebuffering",
            PlaybackState::Seeking => "seeking",
            PlaybackState::Paused => "paused",
            PlaybackState::Background => "background",
            PlaybackState::Waiting => "waiting",
            PlaybackState::Ad => "ad",
            PlaybackState::Gap => "gap",
            PlaybackState::Silent => "silent",
        }
    }
}

/// Why a stall is counted apart. `connection` is the default; the classes always add up to the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum StallCause {
    Connection,
    /// Began within the grace after a seek.
    SeekInduced,
    /// Began within 1 s of an advertisement's start or end.
    AdBoundary,
    /// Every buffer held 5 s or more: the decoder or the device, not the network.
    Decoder,
    /// Began within 1 s of a change of rendition or of playback rate.
    RenditionSwitch,
    /// Began within 1 s of the natural end.
    NaturalEnd,
}

impl StallCause {
    /// In the order of the variants.
    pub const ALL: [StallCause; 6] = [
        StallCause::Connection,
        StallCause::SeekInduced,
        StallCause::AdBoundary,
        StallCause::Decoder,
        StallCause::RenditionSwitch,
        StallCause::NaturalEnd,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            StallCause::Connection => "connection",
            StallCause::SeekInduced => "seek_induced",
            StallCause::AdBoundary => "ad_boundary",
            StallCause::Decoder => "decoder",
            StallCause::RenditionSwitch => "rendition_switch",
            StallCause::NaturalEnd => "natural_end",
        }
    }
}

/// How an attempt ended, or `Open` while the watermark cannot tell yet.
///
/// Over sessions with `attempts` = 1: attempts = played + exit_before_start + start_failure + open,
/// where `Played` covers every attempt that showed a frame. All others, open or closed, are
/// `NoAttempt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
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
    /// 1 on the first piece of a stretch (of stalls that a report adds up: how many), 0 on those that a
    /// minute boundary or a pause cut off from it.
    pub starts: i64,
    /// Playing time multiplied by the playback rate, ms; 0 unless playing.
    pub media_ms: i64,
    /// Shown bits: bitrate x media time; 0 where the bitrate is unknown.
    pub shown_bits: i64,
    /// Media time for which the bitrate is known, ms.
    pub bitrate_known_ms: i64,
    /// Bitrate x playing time, bit: `shown_bits` without the playback rate.
    pub shown_wall_bits: i64,
    /// Playing time for which the bitrate is known, ms.
    pub bitrate_known_wall_ms: i64,
    /// Picture height x playing time, px ms.
    pub height_px_ms: i64,
    /// Playing time for which the height is known, ms.
    pub height_known_ms: i64,
    /// Changes of the shown video bitrate in this piece.
    pub switches_up: i64,
    pub switches_down: i64,
    /// On the last piece of a stall whose end is known: the length of the whole stall, over all its
    /// pieces, ms (for percentiles of single stalls). `None` on every other piece.
    pub stall_length_ms: Option<i64>,
    /// True while the end of a stall is not known and the piece ends where it was last heard of.
    pub is_provisional: bool,
    pub segments: std::sync::Arc<Segments>,
}

/// One playback session: `silver.playback_sessions`. Bytes of it, in a checkpoint,
/// lack what its session tells besides.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PlaybackSession {
    #[serde(skip)]
    pub session_id: String,
    #[serde(skip)]
    pub session_key: String,
    pub started_at_ms: i64,
    /// Last evidence of life.
    pub ended_at_ms: i64,
    /// False once an end event or the timeout has closed it.
    pub is_open: bool,
    /// Dialect of the session's first event.
    #[serde(with = "super::names::one")]
    pub source: Name,
    /// 1 if the session holds a play intent (or a frame, which implies one).
    pub attempts: i64,
    pub outcome: Outcome,
    /// 1 if a frame was shown.
    pub plays: i64,
    /// 1 if a frame of the content itself, not of an advertisement, was shown.
    pub content_plays: i64,
    /// 1 if the player was loading before the intent to play.
    pub preloaded: i64,
    /// First request to the first frame of any media, pause and background taken out (CTA-2066
    /// initialStartupTime; CMCD `msd`). The reported value wins; null where a seek or the background
    /// makes it meaningless.
    pub startup_ms: Option<i64>,
    /// The same, worked out from the events.
    pub startup_derived_ms: Option<i64>,
    /// To the first frame of the content, less the time advertisements played.
    pub content_startup_ms: Option<i64>,
    /// Waiting time at the exit of an attempt that showed no frame, ms.
    pub exit_wait_ms: Option<i64>,
    pub exits_before_start: i64,
    /// 1 if the exit came within 1 s of the request.
    pub early_exits: i64,
    pub start_failures: i64,
    /// Unrecovered fatal error after the first frame.
    pub playback_failures: i64,
    /// 1 if a fatal error ended the session (before or after the first frame).
    pub fatal_errors: i64,
    /// All error events.
    pub errors: i64,
    /// Errors that broke nothing; the same code again within 10 s counts once.
    pub warnings: i64,
    pub recovered_errors: i64,
    /// When the session's fatal error happened.
    pub fatal_error_at_ms: Option<i64>,
    pub error_code: Option<String>,
    /// Class of the session's fatal error.
    pub error_class: Option<ErrorClass>,
    pub playing_ms: i64,
    pub media_ms: i64,
    pub startup_wait_ms: i64,
    /// All stalls but the seek-induced: the sum of the four classes below and `stall_conn_ms`.
    pub stall_ms: i64,
    pub stall_count: i64,
    /// Connection-induced (our definition, 3.5).
    pub stall_conn_ms: i64,
    pub stall_conn_count: i64,
    pub stall_ad_ms: i64,
    pub stall_decoder_ms: i64,
    pub stall_switch_ms: i64,
    pub stall_end_ms: i64,
    pub stall_max_ms: i64,
    /// Seek-induced; in no other sum.
    pub stall_seek_ms: i64,
    /// 1 if the session ended while rebuffering.
    pub abandoned_in_stall: i64,
    pub seek_wait_ms: i64,
    pub seek_count: i64,
    pub paused_ms: i64,
    /// Pauses of 1 s or more, not within 1 s before the end and not part of a scrub.
    pub deliberate_pauses: i64,
    pub background_ms: i64,
    pub waiting_ms: i64,
    pub ad_ms: i64,
    pub gap_ms: i64,
    /// Wall time from a request to the next pause, end or failure (CTA-2066).
    pub watched_ms: i64,
    pub shown_bits: i64,
    pub bitrate_known_ms: i64,
    pub shown_wall_bits: i64,
    pub bitrate_known_wall_ms: i64,
    /// `shown`, or `requested` where the player never says what it shows.
    #[serde(with = "super::names::option")]
    pub bitrate_basis: Option<Name>,
    pub start_bitrate_bps: Option<i64>,
    /// Highest bitrate that the player may choose, else the highest of the ladder.
    pub top_bitrate_bps: Option<i64>,
    pub switches_up: i64,
    pub switches_down: i64,
    pub audio_switches: i64,
    pub height_px_ms: i64,
    pub height_known_ms: i64,
    /// max(0, viewport / height - 1) x playing time, millionths x ms.
    pub upscale_ppm_ms: i64,
    pub upscale_known_ms: i64,
    pub dropped_frames: i64,
    /// Frames that playing time and frame rate promise; 0 if the rate is unknown.
    pub expected_frames: i64,
    /// Time-weighted ln(bitrate / low) / ln(top / low), 0 to 1; null if the ladder is unknown.
    pub picture_quality: Option<f64>,
    pub content_changes: i64,
    /// Unique media covered by playing, ms.
    pub covered_ms: i64,
    pub duration_ms: Option<i64>,
    pub max_playhead_ms: Option<i64>,
    /// Highest of 0, 25, 50, 75, 100 % reached by playing there; null for live or unknown length.
    pub quartile: Option<i64>,
    /// 1 if the asset was played to its natural end.
    pub finished: i64,
    /// `finished`, `user_quit`, `error`, `replaced`, `timeout`; null while open.
    #[serde(with = "super::names::option")]
    pub end_reason: Option<Name>,
    pub events: i64,
    /// Gaps in the sender's sequence numbers.
    pub lost_reports: i64,
    /// Events whose time contradicts their sequence number.
    pub order_conflicts: i64,
    /// The experience score (3.9), 0 to 100, and its losses, which add up to 100 less the score.
    #[serde(skip)]
    pub score: Option<Score>,
    /// Reported lengths that broke a sanity bound and are in no sum.
    pub anomalies: i64,
    #[serde(with = "super::names::list")]
    pub dq_flags: Vec<Name>,
    #[serde(skip)]
    pub segments: std::sync::Arc<Segments>,
}

/// Experience of one session: `score` + all losses = 100 (events and metrics, 3.9).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    pub score: f64,
    pub loss_availability: f64,
    pub loss_startup: f64,
    pub loss_stall_time: f64,
    pub loss_interruptions: f64,
    pub loss_picture: f64,
    /// The name of the largest loss without `loss_`; `None` if nothing was lost.
    pub top_reason: Option<&'static str>,
    /// All thresholds of a good session are met.
    pub is_good: bool,
}

impl Segments {
    /// What client counts count: the device, else the user, else the session itself.
    pub fn client<'a>(&'a self, session_id: &'a str) -> &'a str {
        self.device_id.as_deref().or(self.user_id.as_deref()).unwrap_or(session_id)
    }
}
