//! The gold columns that metrics may name, by table.
//!
//! Coarser tables have the same columns as the one-minute table, less `ONE_WINDOW`.

/// A family of gold tables that differ in the length of their windows alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// By the start of sessions, and what happened in the window.
    Playback,
    /// Sessions by their end.
    Ended,
    /// Concurrency: of the whole service, and by content.
    Audience,
    Errors,
    /// Samples that players report while playing.
    Latency,
    /// Requests by POP, ISP and country.
    Cdn,
    /// What requests by POP and requests by class of object both have.
    CdnObjects,
    /// What viewers got from each POP: sessions joined to requests.
    Delivery,
}

/// The endings of tables that are rolled up, and of those that are not.
const ROLLED_UP: &[&str] = &["1m", "5m", "1h", "1d"];
const MINUTE: &[&str] = &["1m"];

impl Table {
    pub const ALL: [Table; 8] = [
        Table::Playback,
        Table::Ended,
        Table::Audience,
        Table::Errors,
        Table::Latency,
        Table::Cdn,
        Table::CdnObjects,
        Table::Delivery,
    ];

    /// The names without the grain; where there are two, either answers: by other dimensions, or the first of the whole service.
    pub fn stems(self) -> &'static [&'static str] {
        match self {
            Table::Playback => &["gold.playback"],
            Table::Ended => &["gold.ended"],
            Table::Audience => &["gold.concurrency", "gold.audience"],
            Table::Errors => &["gold.errors"],
            Table::Latency => &["gold.latency"],
            Table::Cdn => &["gold.cdn"],
            Table::CdnObjects => &["gold.cdn", "gold.cdn_objects"],
            Table::Delivery => &["gold.delivery"],
        }
    }

    /// The endings of its tables, the finest first.
    pub fn grains(self) -> &'static [&'static str] {
        match self {
            Table::Playback | Table::Ended | Table::Audience | Table::Latency => ROLLED_UP,
            Table::Cdn | Table::CdnObjects | Table::Delivery => ROLLED_UP,
            Table::Errors => MINUTE,
        }
    }

    /// Columns that a formula may name: what is added up, and the window's ends.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Table::Playback => PLAYBACK,
            Table::Ended => ENDED,
            Table::Audience => AUDIENCE,
            Table::Errors => ERRORS,
            Table::Latency => LATENCY,
            Table::Cdn => CDN,
            Table::CdnObjects => CDN_OBJECTS,
            Table::Delivery => DELIVERY,
        }
    }
}

/// What cannot be put together over windows: distinct counts and averages.
pub const ONE_WINDOW: &[&str] = &["active_sessions", "sessions_in_window", "viewers", "concurrent_avg"];

const PLAYBACK: &[&str] = &[
    "window_start",
    "window_end",
    "attempts",
    "plays",
    "content_plays",
    "open_attempts",
    "exits_before_start",
    "early_exits",
    "start_failures",
    "start_failures_business",
    "startup_ms_sum",
    "startup_count",
    "startup_sketch",
    "startup_le_500",
    "startup_le_1000",
    "startup_le_2000",
    "startup_le_3000",
    "startup_le_4000",
    "startup_le_6000",
    "startup_le_8000",
    "startup_le_10000",
    "startup_le_15000",
    "startup_le_20000",
    "startup_le_30000",
    "startup_le_60000",
    "startup_gt_60000",
    "content_startup_ms_sum",
    "content_startup_count",
    "exit_wait_ms_sum",
    "exit_wait_sketch",
    "start_bitrate_bps_sum",
    "start_bitrate_count",
    "preloaded_plays",
    "playback_failures",
    "fatal_errors",
    "playing_ms",
    "media_ms",
    "stall_ms",
    "stall_count",
    "stall_length_ms_sum",
    "stall_length_count",
    "stall_length_sketch",
    "stall_conn_ms",
    "stall_conn_count",
    "stall_ad_ms",
    "stall_decoder_ms",
    "stall_switch_ms",
    "stall_end_ms",
    "stall_seek_ms",
    "seek_wait_ms",
    "startup_wait_ms",
    "paused_ms",
    "background_ms",
    "waiting_ms",
    "ad_ms",
    "shown_bits",
    "bitrate_known_ms",
    "shown_wall_bits",
    "bitrate_known_wall_ms",
    "height_px_ms",
    "height_known_ms",
    "switches_up",
    "switches_down",
    "active_sessions",
];

const ENDED: &[&str] = &[
    "window_start",
    "window_end",
    "ended_sessions",
    "ended_plays",
    "playback_failures",
    "playback_failures_business",
    "fatal_sessions",
    "errors",
    "warnings",
    "recovered_errors",
    "sessions_with_stall",
    "abandoned_in_stall",
    "finished_plays",
    "deliberate_pause_plays",
    "paused_then_finished",
    "finished_without_pause",
    "quartile_known",
    "quartile_25",
    "quartile_50",
    "quartile_75",
    "quartile_100",
    "covered_ms",
    "covered_duration_ms",
    "completion_ppm_sum",
    "completion_count",
    "watched_ms",
    "ended_playing_ms",
    "ended_stall_ms",
    "ended_startup_wait_ms",
    "audio_switches",
    "dropped_frames",
    "expected_frames",
    "upscale_ppm_ms",
    "upscale_known_ms",
    "top_bits",
    "top_shown_bits",
    "score_sum",
    "score_count",
    "score_sketch",
    "good_sessions",
    "loss_availability_sum",
    "loss_startup_sum",
    "loss_stall_time_sum",
    "loss_interruptions_sum",
    "loss_picture_sum",
    "anomalies",
    "lost_reports",
];

const AUDIENCE: &[&str] = &[
    "window_start",
    "window_end",
    "active_ms",
    "concurrent_avg",
    "paused_ms",
    "concurrent_peak",
    "concurrent_paused_peak",
    "sessions_in_window",
    "viewers",
    "viewers_sketch",
];

const ERRORS: &[&str] = &["window_start", "window_end", "clients", "clients_with_errors", "fatal_errors"];

const LATENCY: &[&str] = &[
    "window_start",
    "window_end",
    "live_latency_ms_sum",
    "live_latency_count",
    "live_latency_sketch",
    "buffer_ms_sum",
    "buffer_count",
    "buffer_sketch",
    "throughput_kbps_sum",
    "throughput_count",
    "throughput_sketch",
];

const CDN: &[&str] = &[
    "window_start",
    "window_end",
    "logged",
    "requests",
    "requests_milli",
    "ok_requests",
    "client_aborts",
    "aborts",
    "status_2xx",
    "status_3xx",
    "status_4xx",
    "status_5xx",
    "status_403",
    "status_404",
    "status_416",
    "status_429",
    "status_502",
    "status_503",
    "status_504",
    "cache_hits",
    "cache_lookups",
    "refresh_hits",
    "shield_hits",
    "hit_bytes",
    "lookup_bytes",
    "origin_requests",
    "origin_bytes",
    "origin_ttfb_ms_sum",
    "origin_ttfb_count",
    "ttfb_ms_sum",
    "ttfb_count",
    "slow_requests",
    "ttfb_hit_count",
    "ttfb_hit_sketch",
    "ttfb_miss_count",
    "ttfb_miss_sketch",
    "time_taken_ms_sum",
    "time_taken_count",
    "throughput_bytes",
    "throughput_ms",
    "throughput_count",
    "bytes",
];

const CDN_OBJECTS: &[&str] = &[
    "window_start",
    "window_end",
    "logged",
    "requests",
    "requests_milli",
    "ok_requests",
    "aborts",
    "status_4xx",
    "status_5xx",
    "cache_hits",
    "cache_lookups",
    "hit_bytes",
    "lookup_bytes",
    "origin_requests",
    "origin_bytes",
    "origin_ttfb_ms_sum",
    "origin_ttfb_count",
    "ttfb_hit_count",
    "ttfb_hit_sketch",
    "ttfb_miss_count",
    "ttfb_miss_sketch",
    "time_taken_ms_sum",
    "time_taken_count",
    "throughput_bytes",
    "throughput_ms",
    "throughput_count",
    "bytes",
];

const DELIVERY: &[&str] = &[
    "window_start",
    "window_end",
    "attempts",
    "plays",
    "start_failures",
    "startup_ms_sum",
    "startup_count",
    "startup_sketch",
    "playing_ms",
    "stall_ms",
    "stall_count",
    "located_ms",
    "reports",
    "matched_by_id",
    "matched_by_session",
    "stalled_ttfb_ms_sum",
    "stalled_ttfb_count",
    "stalled_slow_requests",
    "stalled_hits",
    "stalled_misses",
];
