//! Columns of `silver.playback_intervals` and `silver.playback_sessions`: what the session engine
//! concludes, additive.
//!
//! Invariant: sums over intervals equal the totals on the session row.

use super::{Column, Get};
use crate::event::facts::{PlaybackInterval, PlaybackSession, Segments};

/// `silver.playback_intervals`: one row a session, minute and stretch of one state.
pub fn interval_columns() -> Vec<Column<PlaybackInterval>> {
    let mut columns: Vec<Column<PlaybackInterval>> = vec![
        Column::required("event_date", "UTC day of interval_start", Get::Date(|r| r.start_ms)),
        Column::required(
            "state",
            "starting, playing, rebuffering, seeking, paused, background, waiting, ad, gap or silent",
            Get::Text(|r| Some(r.state.as_str())),
        ),
        Column::required("interval_start", "start of the piece, UTC", Get::Time(|r| Some(r.start_ms))),
        Column::required("interval_end", "end of the piece, exclusive, UTC", Get::Time(|r| Some(r.end_ms))),
        Column::required("session_id", "playback session", Get::Text(|r| Some(&r.session_id))),
        Column::required(
            "session_key",
            "viewer and content that the session was derived from",
            Get::Text(|r| Some(&r.session_key)),
        ),
        Column::new(
            "stall_cause",
            "connection, seek_induced, ad_boundary, decoder, rendition_switch or natural_end; only on rebuffering",
            Get::Text(|r| r.cause.map(|cause| cause.as_str())),
        ),
        Column::required(
            "starts",
            "1 if the stretch starts in this piece, else 0",
            Get::Int(|r| Some(r.starts)),
        ),
        Column::required("duration_ms", "length of the piece, ms", Get::Int(|r| Some(r.end_ms - r.start_ms))),
        Column::required("media_ms", "playing time x playback rate, ms", Get::Int(|r| Some(r.media_ms))),
        Column::required("shown_bits", "bitrate x media time, bit", Get::Int(|r| Some(r.shown_bits))),
        Column::required(
            "bitrate_known_ms",
            "media time whose bitrate is known, ms",
            Get::Int(|r| Some(r.bitrate_known_ms)),
        ),
        Column::new(
            "shown_wall_bits",
            "bitrate x playing time, bit",
            Get::Int(|r| Some(r.shown_wall_bits)),
        ),
        Column::new(
            "bitrate_known_wall_ms",
            "playing time whose bitrate is known, ms",
            Get::Int(|r| Some(r.bitrate_known_wall_ms)),
        ),
        Column::new(
            "height_px_ms",
            "picture height x playing time, px ms",
            Get::Int(|r| Some(r.height_px_ms)),
        ),
        Column::new(
            "height_known_ms",
            "playing time whose picture height is known, ms",
            Get::Int(|r| Some(r.height_known_ms)),
        ),
        Column::new(
            "switches_up",
            "changes to a higher shown video bitrate in this piece",
            Get::Int(|r| Some(r.switches_up)),
        ),
        Column::new(
            "switches_down",
            "changes to a lower shown video bitrate in this piece",
            Get::Int(|r| Some(r.switches_down)),
        ),
        Column::new(
            "stall_length_ms",
            "on the last piece of a stall: the length of the whole stall, ms",
            Get::Int(|r| r.stall_length_ms),
        ),
        Column::new(
            "is_provisional",
            "true while the end of a stall is not known",
            Get::Flag(|r| Some(r.is_provisional)),
        ),
    ];
    columns.extend(segment_columns());
    columns
}

/// `silver.playback_sessions`: one row a playback session.
pub fn session_columns() -> Vec<Column<PlaybackSession>> {
    let mut columns: Vec<Column<PlaybackSession>> = vec![
        Column::required("event_date", "UTC day of started_at", Get::Date(|r| r.started_at_ms)),
        Column::required(
            "outcome",
            "open, played, exit_before_start, start_failure, or no_attempt",
            Get::Text(|r| Some(r.outcome.as_str())),
        ),
        Column::required("started_at", "first event, UTC", Get::Time(|r| Some(r.started_at_ms))),
        Column::required("ended_at", "last evidence of life, UTC", Get::Time(|r| Some(r.ended_at_ms))),
        Column::required(
            "session_id",
            "playback session: as sent, else derived",
            Get::Text(|r| Some(&r.session_id)),
        ),
        Column::required(
            "session_key",
            "viewer and content that the session was derived from",
            Get::Text(|r| Some(&r.session_key)),
        ),
        Column::required(
            "is_open",
            "true until an end event or the timeout closes it",
            Get::Flag(|r| Some(r.is_open)),
        ),
        Column::new(
            "end_reason",
            "finished, user_quit, error, replaced or timeout; null while open",
            Get::Text(|r| r.end_reason),
        ),
        Column::required("attempts", "1 if there was an intent to play", Get::Int(|r| Some(r.attempts))),
        Column::required("plays", "1 if a frame was shown", Get::Int(|r| Some(r.plays))),
        Column::required(
            "exits_before_start",
            "1 if the viewer left before the first frame, without a fatal error",
            Get::Int(|r| Some(r.exits_before_start)),
        ),
        Column::required(
            "start_failures",
            "1 if a fatal error came before the first frame",
            Get::Int(|r| Some(r.start_failures)),
        ),
        Column::required(
            "playback_failures",
            "1 if an unrecovered fatal error came after the first frame",
            Get::Int(|r| Some(r.playback_failures)),
        ),
        Column::required(
            "fatal_errors",
            "1 if a fatal error ended the session",
            Get::Int(|r| Some(r.fatal_errors)),
        ),
        Column::required("errors", "error events", Get::Int(|r| Some(r.errors))),
        Column::required(
            "recovered_errors",
            "errors after which playback went on",
            Get::Int(|r| Some(r.recovered_errors)),
        ),
        Column::new(
            "fatal_error_at",
            "when the fatal error came, UTC",
            Get::Time(|r| r.fatal_error_at_ms),
        ),
        Column::new("error_code", "code of the fatal error", Get::Text(|r| r.error_code.as_deref())),
        Column::new("startup_ms", "play intent to first frame, ms", Get::Int(|r| r.startup_ms)),
        Column::new(
            "exit_wait_ms",
            "play intent to exit of an attempt without a frame, ms",
            Get::Int(|r| r.exit_wait_ms),
        ),
        Column::required("playing_ms", "time that frames moved, ms", Get::Int(|r| Some(r.playing_ms))),
        Column::required("media_ms", "playing time x playback rate, ms", Get::Int(|r| Some(r.media_ms))),
        Column::required(
            "startup_wait_ms",
            "time in state starting, ms",
            Get::Int(|r| Some(r.startup_wait_ms)),
        ),
        Column::required("stall_ms", "rebuffering, seek-induced excluded, ms", Get::Int(|r| Some(r.stall_ms))),
        Column::required(
            "stall_count",
            "rebufferings, seek-induced excluded",
            Get::Int(|r| Some(r.stall_count)),
        ),
        Column::required("stall_seek_ms", "seek-induced rebuffering, ms", Get::Int(|r| Some(r.stall_seek_ms))),
        Column::required("seek_wait_ms", "waiting for a seek, ms", Get::Int(|r| Some(r.seek_wait_ms))),
        Column::required("seek_count", "seeks", Get::Int(|r| Some(r.seek_count))),
        Column::required("paused_ms", "paused, ms", Get::Int(|r| Some(r.paused_ms))),
        Column::required("background_ms", "hidden by the user, ms", Get::Int(|r| Some(r.background_ms))),
        Column::required("shown_bits", "bitrate x media time, bit", Get::Int(|r| Some(r.shown_bits))),
        Column::required(
            "bitrate_known_ms",
            "media time whose bitrate is known, ms",
            Get::Int(|r| Some(r.bitrate_known_ms)),
        ),
        Column::new("start_bitrate_bps", "first bitrate shown, bit/s", Get::Int(|r| r.start_bitrate_bps)),
        Column::required(
            "switches_up",
            "changes to a higher shown bitrate",
            Get::Int(|r| Some(r.switches_up)),
        ),
        Column::required(
            "switches_down",
            "changes to a lower shown bitrate",
            Get::Int(|r| Some(r.switches_down)),
        ),
        Column::new("duration_ms", "length of the asset, ms", Get::Int(|r| r.duration_ms)),
        Column::new("max_playhead_ms", "furthest position, ms", Get::Int(|r| r.max_playhead_ms)),
        Column::new(
            "quartile",
            "highest of 0, 25, 50, 75, 100 % reached by playing; null if live or unknown",
            Get::Int(|r| r.quartile),
        ),
        Column::required("finished", "1 if the asset was played to its end", Get::Int(|r| Some(r.finished))),
        Column::required("events", "events of the session", Get::Int(|r| Some(r.events))),
        Column::required(
            "anomalies",
            "reported lengths beyond the sanity bounds, in no sum",
            Get::Int(|r| Some(r.anomalies)),
        ),
        Column::required("dq_flags", "data-quality rules that the session broke", Get::Flags(|r| &r.dq_flags)),
        Column::new("source", "dialect of the first event", Get::Text(|r| Some(r.source))),
        Column::new(
            "content_plays",
            "1 if a frame of the content itself was shown",
            Get::Int(|r| Some(r.content_plays)),
        ),
        Column::new(
            "preloaded",
            "1 if the player was loading before the intent to play",
            Get::Int(|r| Some(r.preloaded)),
        ),
        Column::new(
            "startup_derived_ms",
            "startup time worked out from the events, ms",
            Get::Int(|r| r.startup_derived_ms),
        ),
        Column::new(
            "content_startup_ms",
            "play intent to first frame of the content, advertisements taken out, ms",
            Get::Int(|r| r.content_startup_ms),
        ),
        Column::new(
            "early_exits",
            "1 if the exit before the first frame came within 1 s",
            Get::Int(|r| Some(r.early_exits)),
        ),
        Column::new(
            "warnings",
            "errors that broke nothing; the same code within 10 s once",
            Get::Int(|r| Some(r.warnings)),
        ),
        Column::new(
            "error_class",
            "technical, business or unknown, of the fatal error",
            Get::Text(|r| r.error_class.map(|class| class.as_str())),
        ),
        Column::new(
            "stall_conn_ms",
            "connection-induced rebuffering (our definition), ms",
            Get::Int(|r| Some(r.stall_conn_ms)),
        ),
        Column::new(
            "stall_conn_count",
            "connection-induced rebufferings",
            Get::Int(|r| Some(r.stall_conn_count)),
        ),
        Column::new(
            "stall_ad_ms",
            "rebuffering within 1 s of an advertisement's boundary, ms",
            Get::Int(|r| Some(r.stall_ad_ms)),
        ),
        Column::new(
            "stall_decoder_ms",
            "rebuffering with 5 s or more in every buffer, ms",
            Get::Int(|r| Some(r.stall_decoder_ms)),
        ),
        Column::new(
            "stall_switch_ms",
            "rebuffering within 1 s of a change of rendition or rate, ms",
            Get::Int(|r| Some(r.stall_switch_ms)),
        ),
        Column::new(
            "stall_end_ms",
            "rebuffering within 1 s of the natural end, ms",
            Get::Int(|r| Some(r.stall_end_ms)),
        ),
        Column::new(
            "stall_max_ms",
            "longest rebuffering, seek-induced excluded, ms",
            Get::Int(|r| Some(r.stall_max_ms)),
        ),
        Column::new(
            "abandoned_in_stall",
            "1 if the session ended while rebuffering",
            Get::Int(|r| Some(r.abandoned_in_stall)),
        ),
        Column::new(
            "deliberate_pauses",
            "pauses of 1 s or more, not at the end and no part of a scrub",
            Get::Int(|r| Some(r.deliberate_pauses)),
        ),
        Column::new(
            "waiting_ms",
            "state waiting, which CTA-5004-B does not define, ms",
            Get::Int(|r| Some(r.waiting_ms)),
        ),
        Column::new("ad_ms", "advertisements playing, ms", Get::Int(|r| Some(r.ad_ms))),
        Column::new("gap_ms", "in the background without a report, ms", Get::Int(|r| Some(r.gap_ms))),
        Column::new(
            "watched_ms",
            "wall time from a request to the next pause, end or failure (CTA-2066), ms",
            Get::Int(|r| Some(r.watched_ms)),
        ),
        Column::new(
            "shown_wall_bits",
            "bitrate x playing time, bit",
            Get::Int(|r| Some(r.shown_wall_bits)),
        ),
        Column::new(
            "bitrate_known_wall_ms",
            "playing time whose bitrate is known, ms",
            Get::Int(|r| Some(r.bitrate_known_wall_ms)),
        ),
        Column::new(
            "bitrate_basis",
            "shown, or requested where the player never says what it shows",
            Get::Text(|r| r.bitrate_basis),
        ),
        Column::new(
            "top_bitrate_bps",
            "highest bitrate that the player may choose, bit/s",
            Get::Int(|r| r.top_bitrate_bps),
        ),
        Column::new(
            "audio_switches",
            "changes of the shown audio bitrate",
            Get::Int(|r| Some(r.audio_switches)),
        ),
        Column::new(
            "height_px_ms",
            "picture height x playing time, px ms",
            Get::Int(|r| Some(r.height_px_ms)),
        ),
        Column::new(
            "height_known_ms",
            "playing time whose picture height is known, ms",
            Get::Int(|r| Some(r.height_known_ms)),
        ),
        Column::new(
            "upscale_ppm_ms",
            "max(0, viewport / height - 1) x playing time, millionths x ms",
            Get::Int(|r| Some(r.upscale_ppm_ms)),
        ),
        Column::new(
            "upscale_known_ms",
            "playing time whose viewport and height are known, ms",
            Get::Int(|r| Some(r.upscale_known_ms)),
        ),
        Column::new("dropped_frames", "frames dropped", Get::Int(|r| Some(r.dropped_frames))),
        Column::new(
            "expected_frames",
            "playing time x frame rate, where both are known",
            Get::Int(|r| Some(r.expected_frames)),
        ),
        Column::new(
            "picture_quality",
            "time-weighted ln(bitrate / low) / ln(top / low), 0 to 1; null if the ladder is unknown",
            Get::Real(|r| r.picture_quality),
        ),
        Column::new(
            "content_changes",
            "changes of content within the session, advertisements excluded",
            Get::Int(|r| Some(r.content_changes)),
        ),
        Column::new(
            "covered_ms",
            "unique media covered by playing, ms",
            Get::Int(|r| Some(r.covered_ms)),
        ),
        Column::new(
            "lost_reports",
            "gaps in the sender's sequence numbers",
            Get::Int(|r| Some(r.lost_reports)),
        ),
        Column::new(
            "order_conflicts",
            "events whose time contradicts their sequence number",
            Get::Int(|r| Some(r.order_conflicts)),
        ),
        Column::new(
            "score",
            "experience, 0 to 100; null where it means nothing (docs/metrics.md)",
            Get::Real(|r| r.score.map(|score| score.score)),
        ),
        Column::new(
            "loss_availability",
            "points of the score lost to availability",
            Get::Real(|r| r.score.map(|score| score.loss_availability)),
        ),
        Column::new(
            "loss_startup",
            "points of the score lost to startup",
            Get::Real(|r| r.score.map(|score| score.loss_startup)),
        ),
        Column::new(
            "loss_stall_time",
            "points of the score lost to stall time",
            Get::Real(|r| r.score.map(|score| score.loss_stall_time)),
        ),
        Column::new(
            "loss_interruptions",
            "points of the score lost to interruptions",
            Get::Real(|r| r.score.map(|score| score.loss_interruptions)),
        ),
        Column::new(
            "loss_picture",
            "points of the score lost to picture",
            Get::Real(|r| r.score.map(|score| score.loss_picture)),
        ),
        Column::new(
            "top_reason",
            "largest loss of the score",
            Get::Text(|r| r.score.and_then(|score| score.top_reason)),
        ),
        Column::new(
            "is_good",
            "all thresholds of a good session are met",
            Get::Flag(|r| r.score.map(|score| score.is_good)),
        ),
    ];
    columns.extend(segment_columns());
    columns
}

/// A row that belongs to a session and so to its segments.
trait OfSession {
    fn segments(&self) -> &Segments;
    fn session_id(&self) -> &str;
}

impl OfSession for PlaybackInterval {
    fn segments(&self) -> &Segments {
        &self.segments
    }

    fn session_id(&self) -> &str {
        &self.session_id
    }
}

impl OfSession for PlaybackSession {
    fn segments(&self) -> &Segments {
        &self.segments
    }

    fn session_id(&self) -> &str {
        &self.session_id
    }
}

/// What both tables are grouped by.
fn segment_columns<R: OfSession>() -> Vec<Column<R>> {
    vec![
        Column::new(
            "user_id",
            "user, pseudonymised as set",
            Get::Text(|r: &R| r.segments().user_id.as_deref()),
        ),
        Column::new(
            "device_id",
            "device, pseudonymised as set",
            Get::Text(|r: &R| r.segments().device_id.as_deref()),
        ),
        Column::new("content_id", "content", Get::Text(|r: &R| r.segments().content_id.as_deref())),
        Column::new(
            "stream_type",
            "vod, live or ll_live",
            Get::Text(|r: &R| r.segments().stream_type.as_deref()),
        ),
        Column::new("app_name", "app", Get::Text(|r: &R| r.segments().app_name.as_deref())),
        Column::new(
            "app_version",
            "release of the app",
            Get::Text(|r: &R| r.segments().app_version.as_deref()),
        ),
        Column::new("player_name", "player", Get::Text(|r: &R| r.segments().player_name.as_deref())),
        Column::new(
            "player_version",
            "release of the player",
            Get::Text(|r: &R| r.segments().player_version.as_deref()),
        ),
        Column::new(
            "device_type",
            "desktop, mobile, tablet, tv, console, bot or as sent",
            Get::Text(|r: &R| r.segments().device.device_type.as_deref()),
        ),
        Column::new(
            "device_model",
            "device model",
            Get::Text(|r: &R| r.segments().device.device_model.as_deref()),
        ),
        Column::new("os", "operating system", Get::Text(|r: &R| r.segments().device.os.as_deref())),
        Column::new("browser", "browser", Get::Text(|r: &R| r.segments().device.browser.as_deref())),
        Column::new(
            "country",
            "ISO 3166-1 alpha-2",
            Get::Text(|r: &R| r.segments().network.country.as_deref()),
        ),
        Column::new(
            "region",
            "ISO 3166-2 subdivision",
            Get::Text(|r: &R| r.segments().network.region.as_deref()),
        ),
        Column::new("city", "city", Get::Text(|r: &R| r.segments().network.city.as_deref())),
        Column::new("asn", "autonomous system number", Get::Int(|r: &R| r.segments().network.asn)),
        Column::new(
            "isp",
            "ISP, else the AS organisation",
            Get::Text(|r: &R| r.segments().network.isp.as_deref()),
        ),
        Column::new("cdn", "CDN name", Get::Text(|r: &R| r.segments().cdn.as_deref())),
        Column::new(
            "connection_type",
            "kind of connection as sent",
            Get::Text(|r: &R| r.segments().connection_type.as_deref()),
        ),
        Column::required(
            "client",
            "device, else user, else session: what client counts count",
            Get::Text(|r: &R| Some(r.segments().client(r.session_id()))),
        ),
    ]
}
