//! The vocabulary: what a player event and a CDN request are once a dialect has been understood.
//!
//! Every layer below the decoders speaks these types and no dialect's own names. Names follow
//! CTA-2066 for events and CTA-5004-B (`sta`) for states.
//!
//! Invariant: unknown is `None`, never 0, -1 or an empty text.
//! Invariant: times are epoch milliseconds UTC, lengths are milliseconds, bitrates are bit/s.
//! Invariant: `client_address`, `user_id` and `device_id` here may still identify a person; only
//! `privacy::anonymise` turns these types into something that the lake accepts.

pub mod decode;
pub mod facts;
pub mod schema;

use std::ops::Range;

/// What happened, in the words of CTA-2066 (DESIGN: events and metrics, 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    SessionStart,
    PlaybackRequest,
    PlaybackStart,
    PlaybackPause,
    StallStart,
    StallEnd,
    SeekStart,
    SeekEnd,
    RenditionUpdate,
    RateChange,
    Heartbeat,
    PlaybackError,
    PlaybackFinish,
    SessionEnd,
    Metadata,
    Custom,
}

impl EventKind {
    pub const ALL: [EventKind; 16] = [
        EventKind::SessionStart,
        EventKind::PlaybackRequest,
        EventKind::PlaybackStart,
        EventKind::PlaybackPause,
        EventKind::StallStart,
        EventKind::StallEnd,
        EventKind::SeekStart,
        EventKind::SeekEnd,
        EventKind::RenditionUpdate,
        EventKind::RateChange,
        EventKind::Heartbeat,
        EventKind::PlaybackError,
        EventKind::PlaybackFinish,
        EventKind::SessionEnd,
        EventKind::Metadata,
        EventKind::Custom,
    ];

    /// The name stored in `event_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::SessionStart => "session_start",
            EventKind::PlaybackRequest => "playback_request",
            EventKind::PlaybackStart => "playback_start",
            EventKind::PlaybackPause => "playback_pause",
            EventKind::StallStart => "stall_start",
            EventKind::StallEnd => "stall_end",
            EventKind::SeekStart => "seek_start",
            EventKind::SeekEnd => "seek_end",
            EventKind::RenditionUpdate => "rendition_update",
            EventKind::RateChange => "rate_change",
            EventKind::Heartbeat => "heartbeat",
            EventKind::PlaybackError => "playback_error",
            EventKind::PlaybackFinish => "playback_finish",
            EventKind::SessionEnd => "session_end",
            EventKind::Metadata => "metadata",
            EventKind::Custom => "custom",
        }
    }

    pub fn parse(name: &str) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// How a value came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Basis {
    #[default]
    Reported,
    Derived,
    Estimated,
}

impl Basis {
    pub fn as_str(self) -> &'static str {
        match self {
            Basis::Reported => "reported",
            Basis::Derived => "derived",
            Basis::Estimated => "estimated",
        }
    }
}

/// What an address told us before it was cut (filled by `enrich`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Option<String>,
    /// ISO 3166-2 subdivision code without the country, e.g. `CA`.
    pub region: Option<String>,
    pub city: Option<String>,
    pub asn: Option<i64>,
    pub isp: Option<String>,
}

/// What the user agent told us (filled by `enrich`, or sent by the player itself).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// `desktop`, `mobile`, `tablet`, `tv`, `console`, `bot` or as sent.
    pub device_type: Option<String>,
    pub device_model: Option<String>,
    pub os: Option<String>,
    pub browser: Option<String>,
}

/// Whose identity a part of the raw payload holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    User,
    Device,
}

/// One player message, understood.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlayerEvent {
    /// `aws_demo` for the reference player; one name a dialect.
    pub source: &'static str,
    pub kind: Option<EventKind>,
    /// Event time, corrected (seconds turned into milliseconds).
    pub event_ts_ms: i64,
    /// Event time as sent.
    pub event_ts_raw: Option<i64>,
    pub basis: Basis,
    /// The sender's own event id, if it sends one.
    pub native_event_id: Option<String>,
    /// The sender's own session id, if it sends one (cut at 64 characters).
    pub native_session_id: Option<String>,
    pub seq: Option<i64>,
    pub user_id: Option<String>,
    pub device_id: Option<String>,
    pub content_id: Option<String>,
    pub content_title: Option<String>,
    /// `vod`, `live`, `ll_live`.
    pub stream_type: Option<&'static str>,
    /// `dash`, `hls`, `hesp`, `smooth`, `other`.
    pub stream_format: Option<&'static str>,
    pub duration_ms: Option<i64>,
    pub playhead_ms: Option<i64>,
    pub playback_rate: Option<f64>,
    /// Bitrate being shown, bit/s.
    pub bitrate_bps: Option<i64>,
    /// Bitrate being requested (a rendition switch that is not on the screen yet), bit/s.
    pub req_bitrate_bps: Option<i64>,
    pub width: Option<i64>,
    pub height: Option<i64>,
    pub fps: Option<f64>,
    pub codec: Option<String>,
    /// Length of the stall that this event reports, as sent (sanity is judged by the session engine).
    pub stall_ms: Option<i64>,
    pub startup_ms: Option<i64>,
    /// Length of the seek that this event reports.
    pub seek_ms: Option<i64>,
    pub seek_from_ms: Option<i64>,
    pub seek_to_ms: Option<i64>,
    pub error_codes: Vec<String>,
    pub error_category: Option<String>,
    pub error_message: Option<String>,
    /// `None`: the sender does not say.
    pub error_fatal: Option<bool>,
    /// `finished`, `user_quit`, `error`, `replaced`, `unknown`.
    pub end_reason: Option<&'static str>,
    pub background: Option<bool>,
    /// Round trip of the current media segment, ms.
    pub rtt_ms: Option<f64>,
    /// The CDN's id of the request for the current segment: the join key to CDN logs.
    pub request_id: Option<String>,
    pub cdn: Option<String>,
    pub host: Option<String>,
    pub connection_type: Option<String>,
    pub app_name: Option<String>,
    pub app_version: Option<String>,
    pub player_name: Option<String>,
    pub player_version: Option<String>,
    pub device: Device,
    pub user_agent: Option<String>,
    /// The full client address. In memory only; gone after `privacy::anonymise`.
    pub client_address: Option<String>,
    /// /24 or /48 of the client address; set by `privacy::anonymise`.
    pub client_prefix: Option<String>,
    pub network: Network,
    /// Unknown keys, sorted by key, values as text (JSON text where the value is not a plain scalar).
    pub ext: Vec<(String, String)>,
    /// Names of the data-quality rules this event broke.
    pub dq_flags: Vec<&'static str>,
    /// The record as received; scrubbed by `privacy::anonymise`.
    pub payload: String,
    /// Byte ranges of `payload` (inside the quotes) that hold a user or device id, ascending.
    pub identity_spans: Vec<(Range<usize>, Identity)>,
    /// Dedupe key, 32 hex digits; set by `privacy::anonymise`.
    pub event_id: String,
    /// What sessions are derived from, 32 hex digits or the native session id; set by
    /// `privacy::anonymise`. Events with the same key belong to the same viewer on the same content.
    pub session_key: String,
    /// True when the event names nobody: it is kept, and takes part in no session.
    pub unattributed: bool,
}

/// One request as a CDN logged it, understood. Column names follow the W3C names of CloudFront.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CdnRequest {
    /// `cloudfront`, `fastly`, ... as the log says, else by its format.
    pub cdn: Option<String>,
    /// End of the response, epoch ms.
    pub event_ts_ms: i64,
    pub request_id: Option<String>,
    /// `x-edge-location`, e.g. `LHR50-C1`.
    pub edge_location: Option<String>,
    /// Letters before the first digit, e.g. `LHR`.
    pub pop: Option<String>,
    pub sc_bytes: Option<i64>,
    pub cs_bytes: Option<i64>,
    pub method: Option<String>,
    pub host: Option<String>,
    pub host_header: Option<String>,
    pub uri_stem: Option<String>,
    pub uri_query: Option<String>,
    /// `0` = closed before an answer was sent.
    pub status: Option<i64>,
    pub referer: Option<String>,
    pub user_agent: Option<String>,
    /// How many times the user agent had to be percent-decoded.
    pub decode_depth: Option<i64>,
    pub cookie: Option<String>,
    /// Upper case as in the 12-key JSON is brought back to CloudFront's spelling (`Hit`, `RefreshHit`).
    pub result_type: Option<String>,
    pub response_result_type: Option<String>,
    pub detailed_result_type: Option<String>,
    pub protocol: Option<String>,
    pub protocol_version: Option<String>,
    pub ssl_protocol: Option<String>,
    pub ssl_cipher: Option<String>,
    /// Whole request at the edge, ms.
    pub time_taken_ms: Option<i64>,
    /// First byte, ms.
    pub ttfb_ms: Option<i64>,
    /// Addresses of `X-Forwarded-For`; full here, cut by `privacy::anonymise`.
    pub forwarded_for: Vec<String>,
    pub fle_status: Option<String>,
    pub fle_encrypted_fields: Option<String>,
    pub client_port: Option<i64>,
    pub content_type: Option<String>,
    pub content_length: Option<i64>,
    pub range_start: Option<i64>,
    pub range_end: Option<i64>,
    pub is_bot: Option<bool>,
    pub device: Device,
    /// The full client address. In memory only; gone after `privacy::anonymise`.
    pub client_address: Option<String>,
    pub client_prefix: Option<String>,
    pub network: Network,
    pub ext: Vec<(String, String)>,
    pub dq_flags: Vec<&'static str>,
    pub payload: String,
    /// The `#Fields` list in force for `payload` (W3C logs), separated by one space.
    pub fields: Option<String>,
    /// Dedupe key, 32 hex digits; set by `privacy::anonymise`.
    pub event_id: String,
}

/// A record that could not be used, and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    pub reason: RejectReason,
    /// What exactly was wrong, in one sentence; holds no part of an identity.
    pub detail: String,
}

/// Why a record was refused. The name is stored, counted and documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    MalformedJson,
    NotAnObject,
    NotUtf8,
    TooLarge,
    TooDeep,
    MissingEventType,
    MissingEventTime,
    EventTimeOutOfRange,
    UnknownFormat,
    MissingFields,
    WrongColumnCount,
    BadValue,
}

impl RejectReason {
    pub fn as_str(self) -> &'static str {
        match self {
            RejectReason::MalformedJson => "malformed_json",
            RejectReason::NotAnObject => "not_an_object",
            RejectReason::NotUtf8 => "not_utf8",
            RejectReason::TooLarge => "too_large",
            RejectReason::TooDeep => "too_deep",
            RejectReason::MissingEventType => "missing_event_type",
            RejectReason::MissingEventTime => "missing_event_time",
            RejectReason::EventTimeOutOfRange => "event_time_out_of_range",
            RejectReason::UnknownFormat => "unknown_format",
            RejectReason::MissingFields => "missing_fields",
            RejectReason::WrongColumnCount => "wrong_column_count",
            RejectReason::BadValue => "bad_value",
        }
    }
}
