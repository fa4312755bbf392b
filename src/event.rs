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
pub mod names;
pub mod private;
pub mod schema;

use std::ops::Range;

use private::PrivateParts;

/// What happened, in the words of CTA-2066 (DESIGN: events and metrics, 2.2).
///
/// The order of the variants is the order of one instant's events in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
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
    BackgroundChange,
    AdBreakStart,
    AdBreakEnd,
    AdStart,
    AdEnd,
    AdSkip,
    ContentChange,
    HostChange,
    PlayerResize,
    MuteChange,
    Response,
    Metadata,
    Custom,
}

impl EventKind {
    pub const ALL: [EventKind; 27] = [
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
        EventKind::BackgroundChange,
        EventKind::AdBreakStart,
        EventKind::AdBreakEnd,
        EventKind::AdStart,
        EventKind::AdEnd,
        EventKind::AdSkip,
        EventKind::ContentChange,
        EventKind::HostChange,
        EventKind::PlayerResize,
        EventKind::MuteChange,
        EventKind::Response,
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
            EventKind::BackgroundChange => "background_change",
            EventKind::AdBreakStart => "ad_break_start",
            EventKind::AdBreakEnd => "ad_break_end",
            EventKind::AdStart => "ad_start",
            EventKind::AdEnd => "ad_end",
            EventKind::AdSkip => "ad_skip",
            EventKind::ContentChange => "content_change",
            EventKind::HostChange => "host_change",
            EventKind::PlayerResize => "player_resize",
            EventKind::MuteChange => "mute_change",
            EventKind::Response => "response",
            EventKind::Metadata => "metadata",
            EventKind::Custom => "custom",
        }
    }

    pub fn parse(name: &str) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// State of the player as the player itself reports it (CTA-5004-B `sta`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum ReportedState {
    Preloading,
    Starting,
    Playing,
    Seeking,
    Rebuffering,
    Paused,
    /// `sta=w`: listed by the standard and not defined there; neither playing nor a stall.
    Waiting,
    Ended,
    Failed,
    Quit,
}

impl ReportedState {
    pub const ALL: [ReportedState; 10] = [
        ReportedState::Preloading,
        ReportedState::Starting,
        ReportedState::Playing,
        ReportedState::Seeking,
        ReportedState::Rebuffering,
        ReportedState::Paused,
        ReportedState::Waiting,
        ReportedState::Ended,
        ReportedState::Failed,
        ReportedState::Quit,
    ];

    /// The name stored in `state`.
    pub fn as_str(self) -> &'static str {
        match self {
            ReportedState::Preloading => "preloading",
            ReportedState::Starting => "starting",
            ReportedState::Playing => "playing",
            ReportedState::Seeking => "seeking",
            ReportedState::Rebuffering => "rebuffering",
            ReportedState::Paused => "paused",
            ReportedState::Waiting => "waiting",
            ReportedState::Ended => "ended",
            ReportedState::Failed => "failed",
            ReportedState::Quit => "quit",
        }
    }

    pub fn parse(name: &str) -> Option<ReportedState> {
        ReportedState::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// Whether a fatal error is a fault of the delivery or a decision of the service (3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum ErrorClass {
    Technical,
    /// Entitlement, geo-block, concurrency limit, parental control, expired token, DRM licence refused.
    Business,
    /// No rule knows the code; counted as technical, and listed.
    Unknown,
}

impl ErrorClass {
    pub const ALL: [ErrorClass; 3] = [ErrorClass::Technical, ErrorClass::Business, ErrorClass::Unknown];

    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::Technical => "technical",
            ErrorClass::Business => "business",
            ErrorClass::Unknown => "unknown",
        }
    }

    pub fn parse(name: &str) -> Option<ErrorClass> {
        ErrorClass::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

/// A key of a record whose value broke a rule: the value is lost or mended, the record is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyFault {
    /// The dialect's name of the key; `custom` for one of the sender's own.
    pub key: &'static str,
    /// The rule, e.g. `not_an_integer`, `unknown_token`, `too_long`.
    pub rule: &'static str,
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

/// The dialects' names, as `PlayerEvent::source` has them.
pub const SOURCES: [&str; 6] = ["aws_demo", "ivs", "epas", "cmcd1_log", "cmcd2_log", "cmcd2_event"];

/// The rule an event broke whose sender's clock was wrong and has been corrected.
pub const CLOCK_SHIFTED: &str = "clock_shifted";

/// What an address told us before it was cut (filled by `enrich`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize)]
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
    /// Where the viewer stands, to the street: latitude, longitude, postal code. Emptied always.
    Position,
    /// A URL, or a list of URLs, with more than a path: treated as a request's URL is, always.
    Url,
}

/// One player message, understood.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlayerEvent {
    /// One name a dialect: `aws_demo` (the reference player), `ivs`, `epas`, `cmcd1_log`, `cmcd2_log`,
    /// `cmcd2_event`.
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
    /// State of the player as it reports it.
    pub state: Option<ReportedState>,
    /// Bitrate being shown, video and audio together, bit/s.
    pub bitrate_bps: Option<i64>,
    /// The video part of `bitrate_bps`, where the sender tells the parts apart, bit/s.
    pub bitrate_video_bps: Option<i64>,
    /// The audio part of `bitrate_bps`, bit/s.
    pub bitrate_audio_bps: Option<i64>,
    /// Bitrate being requested (a rendition switch that is not on the screen yet), bit/s.
    pub req_bitrate_bps: Option<i64>,
    /// Highest bitrate of the ladder, bit/s.
    pub top_bitrate_bps: Option<i64>,
    /// Highest bitrate that this player may choose (screen, licence), bit/s.
    pub top_playable_bitrate_bps: Option<i64>,
    /// Lowest bitrate of the ladder, bit/s.
    pub low_bitrate_bps: Option<i64>,
    /// Throughput that the player measured, bit/s.
    pub throughput_bps: Option<i64>,
    /// Throughput that the player asks the CDN for at most, bit/s.
    pub req_throughput_max_bps: Option<i64>,
    /// Media in the buffer, ms: all types, or the type that the report is about.
    pub buffer_ms: Option<i64>,
    pub buffer_video_ms: Option<i64>,
    pub buffer_audio_ms: Option<i64>,
    pub buffer_target_ms: Option<i64>,
    pub width: Option<i64>,
    pub height: Option<i64>,
    pub fps: Option<f64>,
    pub codec: Option<String>,
    pub viewport_width: Option<i64>,
    pub viewport_height: Option<i64>,
    /// The buffer ran dry since the last report (CMCD `bs`).
    pub stall_flag: Option<bool>,
    /// Stalls since the session began (CMCD `bsa`).
    pub stall_count_total: Option<i64>,
    /// Stall time since the session began, ms (CMCD `bsda`).
    pub stall_total_ms: Option<i64>,
    /// How many stalls `stall_ms` adds up, where a report covers several (IVS summary).
    pub stall_count: Option<i64>,
    /// Time played since the last report of this kind, ms (IVS summary).
    pub played_ms: Option<i64>,
    /// Length of the stall that this event reports, as sent (sanity is judged by the session engine).
    pub stall_ms: Option<i64>,
    pub startup_ms: Option<i64>,
    /// The player is filling its buffer after start, seek or stall (CMCD `su`).
    pub startup_flag: Option<bool>,
    /// Behind the live edge, ms.
    pub live_latency_ms: Option<i64>,
    /// Frames dropped since the session began (CMCD `dfa`).
    pub dropped_frames_total: Option<i64>,
    /// Length of the seek that this event reports.
    pub seek_ms: Option<i64>,
    pub seek_from_ms: Option<i64>,
    pub seek_to_ms: Option<i64>,
    pub error_codes: Vec<String>,
    pub error_category: Option<String>,
    pub error_message: Option<String>,
    /// `None`: the sender does not say.
    pub error_fatal: Option<bool>,
    /// Set by `enrich` from the code, the category and the message.
    pub error_class: Option<ErrorClass>,
    /// `finished`, `user_quit`, `error`, `replaced`, `unknown`.
    pub end_reason: Option<&'static str>,
    pub background: Option<bool>,
    /// The media was fetched and not shown (CMCD `nr`).
    pub not_rendered: Option<bool>,
    pub ad_id: Option<String>,
    /// `manifest`, `audio`, `video`, `muxed`, `init`, `caption`, `timed_text`, `key`, `other`.
    pub object_type: Option<&'static str>,
    pub object_duration_ms: Option<i64>,
    /// How long the object may take without harm, ms (CMCD `dl`).
    pub deadline_ms: Option<i64>,
    /// The media request that a response event is about, without its query.
    pub url: Option<String>,
    /// `0` = no answer.
    pub http_status: Option<i64>,
    pub ttfb_ms: Option<i64>,
    /// First byte of the body.
    pub ttfbb_ms: Option<i64>,
    pub ttlb_ms: Option<i64>,
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
    /// Keys whose value broke a rule, in the order of the record.
    pub key_faults: Vec<KeyFault>,
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
    /// First byte from the origin as the edge saw it, ms.
    pub origin_ttfb_ms: Option<i64>,
    /// Last byte from the origin as the edge saw it, ms.
    pub origin_time_ms: Option<i64>,
    /// Requests that this one stands for, in thousandths; `None`: the log is not sampled.
    pub sample_weight_milli: Option<i64>,
    /// The CDN's own word for what went wrong.
    pub error_code: Option<String>,
    /// The viewer went before the answer was whole, where the log tells.
    pub is_aborted: Option<bool>,
    /// Where the log held what the player said of itself (CMCD): `headers`, `columns` or `query`.
    pub cmcd_carrier: Option<&'static str>,
    /// How many times CMCD in the query had to be percent-decoded.
    pub cmcd_decode_depth: Option<i64>,
    /// What the player said of itself on this request, as an event of its session. In memory only, and
    /// as personal as any event: take it out and send it the way of `PlayerEvent`.
    pub player_event: Option<Box<PlayerEvent>>,
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
    /// City and country (ISO 3166-1 alpha-2) of the POP.
    pub pop_city: Option<&'static str>,
    pub pop_country: Option<&'static str>,
    /// What was asked for: manifest, init, segment, key, subtitle, image or other.
    pub object_class: Option<&'static str>,
    /// As the path or the content type says, e.g. `mp4`.
    pub container: Option<&'static str>,
    /// CMCD's `ot`, in the words of `PlayerEvent::object_type`.
    pub object_type: Option<&'static str>,
    /// By the rules of the settings, from host and path; else what the player's CMCD names.
    pub content_id: Option<String>,
    /// The session that the player's CMCD names.
    pub session_id: Option<String>,
    pub device: Device,
    /// The full client address. In memory only; gone after `privacy::anonymise`.
    pub client_address: Option<String>,
    pub client_prefix: Option<String>,
    pub network: Network,
    pub ext: Vec<(String, String)>,
    pub dq_flags: Vec<&'static str>,
    pub payload: String,
    /// Where `payload` may tell of a viewer; emptied by `privacy::anonymise_request`.
    pub private: PrivateParts,
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
    /// A message without a value: a compacted topic deletes a key by it.
    Tombstone,
}

impl RejectReason {
    pub const ALL: [RejectReason; 13] = [
        RejectReason::MalformedJson,
        RejectReason::NotAnObject,
        RejectReason::NotUtf8,
        RejectReason::TooLarge,
        RejectReason::TooDeep,
        RejectReason::MissingEventType,
        RejectReason::MissingEventTime,
        RejectReason::EventTimeOutOfRange,
        RejectReason::UnknownFormat,
        RejectReason::MissingFields,
        RejectReason::WrongColumnCount,
        RejectReason::BadValue,
        RejectReason::Tombstone,
    ];

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
            RejectReason::Tombstone => "tombstone",
        }
    }

    pub fn parse(name: &str) -> Option<RejectReason> {
        RejectReason::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}
