//! Columns of `bronze.player_events` (as received, minus identity, plus what the address told us)
//! and `silver.player_events` (typed).
//!
//! Invariant: whatever of an event cannot be read again from `payload` stands in a bronze column of
//! its own, so that silver can be rebuilt from bronze alone.

use super::{Column, Get, PlayerRow};
use crate::event::EventKind;

fn kind(row: &PlayerRow) -> Option<&str> {
    Some(row.event.kind.unwrap_or(EventKind::Custom).as_str())
}

/// `bronze.player_events`: one row a stored record.
pub fn bronze_player_columns() -> Vec<Column<PlayerRow>> {
    vec![
        Column::required("event_date", "UTC day of event_ts", Get::Date(|r| r.event.event_ts_ms)),
        Column::required("event_type", "what happened, CTA-2066 word", Get::Text(kind)),
        Column::required("event_ts", "event time, corrected, UTC", Get::Time(|r| Some(r.event.event_ts_ms))),
        Column::required(
            "received_at",
            "when Playhead took the record in, UTC",
            Get::Time(|r| Some(r.place.received_at_ms)),
        ),
        Column::required("event_id", "dedupe key, 128 bit, hex", Get::Text(|r| Some(&r.event.event_id))),
        Column::required("format", "decoder that reads payload", Get::Text(|r| Some(r.place.format))),
        Column::required(
            "payload",
            "the record as received; addresses cut, user and device ids replaced as set",
            Get::Text(|r| Some(&r.event.payload)),
        ),
        Column::new(
            "client_prefix",
            "/24 or /48 of the client address",
            Get::Text(|r| r.event.client_prefix.as_deref()),
        ),
        Column::new(
            "country",
            "ISO 3166-1 alpha-2, from the full address",
            Get::Text(|r| r.event.network.country.as_deref()),
        ),
        Column::new("region", "ISO 3166-2 subdivision", Get::Text(|r| r.event.network.region.as_deref())),
        Column::new(
            "city",
            "city, from the full address",
            Get::Text(|r| r.event.network.city.as_deref()),
        ),
        Column::new("asn", "autonomous system number", Get::Int(|r| r.event.network.asn)),
        Column::new(
            "isp",
            "ISP, else the AS organisation",
            Get::Text(|r| r.event.network.isp.as_deref()),
        ),
        Column::new(
            "user_agent",
            "user agent of the request that brought the record",
            Get::Text(|r| r.event.user_agent.as_deref()),
        ),
        Column::required(
            "source_partition",
            "file or partition that held the record",
            Get::Text(|r| Some(&r.place.source_partition)),
        ),
        Column::required(
            "source_offset",
            "where the record stood: byte of a file (decompressed), offset of a topic, number in a shard",
            Get::Int(|r| Some(r.place.source_offset)),
        ),
        Column::new(
            "source_attributes",
            "what came beside the record (a message's key, headers and time) as JSON, anonymous",
            Get::Text(|r| r.place.attributes.as_deref()),
        ),
    ]
}

/// `silver.player_events`: the same records, typed.
pub fn silver_player_columns() -> Vec<Column<PlayerRow>> {
    vec![
        Column::required("event_date", "UTC day of event_ts", Get::Date(|r| r.event.event_ts_ms)),
        Column::required("event_type", "what happened, CTA-2066 word", Get::Text(kind)),
        Column::required("event_ts", "event time, corrected, UTC", Get::Time(|r| Some(r.event.event_ts_ms))),
        Column::new("event_ts_raw", "event time as sent (number)", Get::Int(|r| r.event.event_ts_raw)),
        Column::required(
            "received_at",
            "when Playhead took the record in, UTC",
            Get::Time(|r| Some(r.place.received_at_ms)),
        ),
        Column::required("event_id", "dedupe key, 128 bit, hex", Get::Text(|r| Some(&r.event.event_id))),
        Column::required("source", "dialect that the event came in", Get::Text(|r| Some(r.event.source))),
        Column::required(
            "basis",
            "reported, derived or estimated",
            Get::Text(|r| Some(r.event.basis.as_str())),
        ),
        Column::required(
            "session_key",
            "viewer and content that sessions are derived from",
            Get::Text(|r| Some(&r.event.session_key)),
        ),
        Column::new(
            "session_id",
            "session id as sent; derived ones stand in playback_sessions",
            Get::Text(|r| r.event.native_session_id.as_deref()),
        ),
        Column::required(
            "unattributed",
            "true if the event names nobody and so takes part in no session",
            Get::Flag(|r| Some(r.event.unattributed)),
        ),
        Column::new("seq", "sender's sequence number", Get::Int(|r| r.event.seq)),
        Column::new("user_id", "user, pseudonymised as set", Get::Text(|r| r.event.user_id.as_deref())),
        Column::new(
            "device_id",
            "device, pseudonymised as set",
            Get::Text(|r| r.event.device_id.as_deref()),
        ),
        Column::new("content_id", "content", Get::Text(|r| r.event.content_id.as_deref())),
        Column::new("content_title", "content title", Get::Text(|r| r.event.content_title.as_deref())),
        Column::new("stream_type", "vod, live or ll_live", Get::Text(|r| r.event.stream_type)),
        Column::new(
            "stream_format",
            "dash, hls, hesp, smooth or other",
            Get::Text(|r| r.event.stream_format),
        ),
        Column::new(
            "duration_ms",
            "length of the asset, ms; null if live (flag unit_assumed: taken for seconds, settled on the session)",
            Get::Int(|r| r.event.duration_ms),
        ),
        Column::new(
            "playhead_ms",
            "position in the asset, ms (flag unit_assumed: taken for seconds, settled on the session)",
            Get::Int(|r| r.event.playhead_ms),
        ),
        Column::new("playback_rate", "1.0 is normal speed", Get::Real(|r| r.event.playback_rate)),
        Column::new("bitrate_bps", "bitrate being shown, bit/s", Get::Int(|r| r.event.bitrate_bps)),
        Column::new(
            "req_bitrate_bps",
            "bitrate being requested, bit/s",
            Get::Int(|r| r.event.req_bitrate_bps),
        ),
        Column::new("width", "pixels", Get::Int(|r| r.event.width)),
        Column::new("height", "pixels", Get::Int(|r| r.event.height)),
        Column::new("fps", "frames per second", Get::Real(|r| r.event.fps)),
        Column::new("codec", "codec as sent", Get::Text(|r| r.event.codec.as_deref())),
        Column::new(
            "stall_ms",
            "length of the stall that the event reports, as sent, ms",
            Get::Int(|r| r.event.stall_ms),
        ),
        Column::new(
            "startup_ms",
            "startup time that the event reports, as sent, ms",
            Get::Int(|r| r.event.startup_ms),
        ),
        Column::new(
            "seek_ms",
            "length of the seek that the event reports, as sent, ms",
            Get::Int(|r| r.event.seek_ms),
        ),
        Column::new("seek_from_ms", "position before the seek, ms", Get::Int(|r| r.event.seek_from_ms)),
        Column::new("seek_to_ms", "position after the seek, ms", Get::Int(|r| r.event.seek_to_ms)),
        Column::required("error_codes", "error codes as sent", Get::Texts(|r| &r.event.error_codes)),
        Column::new(
            "error_category",
            "error category as sent",
            Get::Text(|r| r.event.error_category.as_deref()),
        ),
        Column::new(
            "error_message",
            "error message as sent",
            Get::Text(|r| r.event.error_message.as_deref()),
        ),
        Column::new("error_fatal", "null if the sender does not say", Get::Flag(|r| r.event.error_fatal)),
        Column::new(
            "end_reason",
            "finished, user_quit, error, replaced or unknown",
            Get::Text(|r| r.event.end_reason),
        ),
        Column::new("background", "hidden by the user", Get::Flag(|r| r.event.background)),
        Column::new("rtt_ms", "round trip of the current segment, ms", Get::Real(|r| r.event.rtt_ms)),
        Column::new(
            "request_id",
            "the CDN's id of the request for the current segment",
            Get::Text(|r| r.event.request_id.as_deref()),
        ),
        Column::new("cdn", "CDN name as sent", Get::Text(|r| r.event.cdn.as_deref())),
        Column::new("host", "host as sent", Get::Text(|r| r.event.host.as_deref())),
        Column::new(
            "connection_type",
            "kind of connection as sent",
            Get::Text(|r| r.event.connection_type.as_deref()),
        ),
        Column::new("app_name", "app", Get::Text(|r| r.event.app_name.as_deref())),
        Column::new("app_version", "release of the app", Get::Text(|r| r.event.app_version.as_deref())),
        Column::new("player_name", "player", Get::Text(|r| r.event.player_name.as_deref())),
        Column::new(
            "player_version",
            "release of the player",
            Get::Text(|r| r.event.player_version.as_deref()),
        ),
        Column::new(
            "device_type",
            "desktop, mobile, tablet, tv, console, bot or as sent",
            Get::Text(|r| r.event.device.device_type.as_deref()),
        ),
        Column::new(
            "device_model",
            "device model",
            Get::Text(|r| r.event.device.device_model.as_deref()),
        ),
        Column::new("os", "operating system", Get::Text(|r| r.event.device.os.as_deref())),
        Column::new("browser", "browser", Get::Text(|r| r.event.device.browser.as_deref())),
        Column::new(
            "client_prefix",
            "/24 or /48 of the client address",
            Get::Text(|r| r.event.client_prefix.as_deref()),
        ),
        Column::new("country", "ISO 3166-1 alpha-2", Get::Text(|r| r.event.network.country.as_deref())),
        Column::new("region", "ISO 3166-2 subdivision", Get::Text(|r| r.event.network.region.as_deref())),
        Column::new("city", "city", Get::Text(|r| r.event.network.city.as_deref())),
        Column::new("asn", "autonomous system number", Get::Int(|r| r.event.network.asn)),
        Column::new(
            "isp",
            "ISP, else the AS organisation",
            Get::Text(|r| r.event.network.isp.as_deref()),
        ),
        Column::required("ext", "keys that no column holds, as sent", Get::Map(|r| &r.event.ext)),
        Column::required(
            "dq_flags",
            "data-quality rules that the event broke",
            Get::Flags(|r| &r.event.dq_flags),
        ),
        Column::new(
            "state",
            "state of the player as reported (CTA-5004-B sta)",
            Get::Text(|r| r.event.state.map(|state| state.as_str())),
        ),
        Column::new(
            "bitrate_video_bps",
            "video part of bitrate_bps, bit/s",
            Get::Int(|r| r.event.bitrate_video_bps),
        ),
        Column::new(
            "bitrate_audio_bps",
            "audio part of bitrate_bps, bit/s",
            Get::Int(|r| r.event.bitrate_audio_bps),
        ),
        Column::new(
            "top_bitrate_bps",
            "highest bitrate of the ladder, bit/s",
            Get::Int(|r| r.event.top_bitrate_bps),
        ),
        Column::new(
            "top_playable_bitrate_bps",
            "highest bitrate that the player may choose, bit/s",
            Get::Int(|r| r.event.top_playable_bitrate_bps),
        ),
        Column::new(
            "low_bitrate_bps",
            "lowest bitrate of the ladder, bit/s",
            Get::Int(|r| r.event.low_bitrate_bps),
        ),
        Column::new(
            "throughput_bps",
            "throughput that the player measured, bit/s",
            Get::Int(|r| r.event.throughput_bps),
        ),
        Column::new(
            "req_throughput_max_bps",
            "throughput that the player asks for at most, bit/s",
            Get::Int(|r| r.event.req_throughput_max_bps),
        ),
        Column::new("buffer_ms", "media in the buffer, ms", Get::Int(|r| r.event.buffer_ms)),
        Column::new("buffer_video_ms", "video in the buffer, ms", Get::Int(|r| r.event.buffer_video_ms)),
        Column::new("buffer_audio_ms", "audio in the buffer, ms", Get::Int(|r| r.event.buffer_audio_ms)),
        Column::new(
            "buffer_target_ms",
            "buffer that the player aims at, ms",
            Get::Int(|r| r.event.buffer_target_ms),
        ),
        Column::new(
            "viewport_width",
            "width on the screen, pixels",
            Get::Int(|r| r.event.viewport_width),
        ),
        Column::new(
            "viewport_height",
            "height on the screen, pixels",
            Get::Int(|r| r.event.viewport_height),
        ),
        Column::new(
            "stall_flag",
            "the buffer ran dry since the last report",
            Get::Flag(|r| r.event.stall_flag),
        ),
        Column::new("stall_count", "how many stalls stall_ms adds up", Get::Int(|r| r.event.stall_count)),
        Column::new(
            "stall_count_total",
            "stalls since the session began, as sent",
            Get::Int(|r| r.event.stall_count_total),
        ),
        Column::new(
            "stall_total_ms",
            "stall time since the session began, as sent, ms",
            Get::Int(|r| r.event.stall_total_ms),
        ),
        Column::new(
            "played_ms",
            "time played since the last report, as sent, ms",
            Get::Int(|r| r.event.played_ms),
        ),
        Column::new(
            "startup_flag",
            "the player fills its buffer after start, seek or stall",
            Get::Flag(|r| r.event.startup_flag),
        ),
        Column::new("live_latency_ms", "behind the live edge, ms", Get::Int(|r| r.event.live_latency_ms)),
        Column::new(
            "dropped_frames_total",
            "frames dropped since the session began, as sent",
            Get::Int(|r| r.event.dropped_frames_total),
        ),
        Column::new(
            "error_class",
            "technical, business or unknown",
            Get::Text(|r| r.event.error_class.map(|class| class.as_str())),
        ),
        Column::new(
            "not_rendered",
            "the media was fetched and not shown",
            Get::Flag(|r| r.event.not_rendered),
        ),
        Column::new("ad_id", "advertisement", Get::Text(|r| r.event.ad_id.as_deref())),
        Column::new(
            "object_type",
            "manifest, audio, video, muxed, init, caption, timed_text, key or other",
            Get::Text(|r| r.event.object_type),
        ),
        Column::new(
            "object_duration_ms",
            "length of the media object, ms",
            Get::Int(|r| r.event.object_duration_ms),
        ),
        Column::new(
            "deadline_ms",
            "how long the object may take without harm, ms",
            Get::Int(|r| r.event.deadline_ms),
        ),
        Column::new("url", "media request without its query", Get::Text(|r| r.event.url.as_deref())),
        Column::new(
            "http_status",
            "status of the media request; 0 = no answer",
            Get::Int(|r| r.event.http_status),
        ),
        Column::new("ttfb_ms", "first byte of the media request, ms", Get::Int(|r| r.event.ttfb_ms)),
        Column::new("ttfbb_ms", "first byte of its body, ms", Get::Int(|r| r.event.ttfbb_ms)),
        Column::new("ttlb_ms", "last byte, ms", Get::Int(|r| r.event.ttlb_ms)),
        Column::new(
            "key_faults",
            "keys whose value broke a rule, as key:rule",
            Get::MadeTexts(|r| {
                r.event
                    .key_faults
                    .iter()
                    .map(|fault| format!("{}:{}", fault.key, fault.rule))
                    .collect()
            }),
        ),
        Column::required(
            "source_partition",
            "file or partition that held the record",
            Get::Text(|r| Some(&r.place.source_partition)),
        ),
        Column::required(
            "source_offset",
            "where the record stood: byte of a file (decompressed), offset of a topic, number in a shard",
            Get::Int(|r| Some(r.place.source_offset)),
        ),
    ]
}
