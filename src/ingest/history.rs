//! Rows of the lake back to the types of the rules: what ingest has to remember.
//!
//! Used when an hour's ids, a session's earlier events or a bronze commit that silver lacks are
//! needed.
//!
//! Invariant: an event read back from bronze or silver equals the one that was written, as far as the
//! rules can see.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};

use crate::enrich::Enricher;
use crate::event::decode::{DecodeContext, Decoded, Decoder, Format};
use crate::event::schema::{PlayerRow, Provenance, RequestRow};
use crate::event::{CLOCK_SHIFTED, Device, ErrorClass, EventKind, Network, PlayerEvent, ReportedState, SOURCES};
use crate::privacy::Privacy;
use crate::session::SessionEvent;

/// Columns of `silver.player_events` that the session engine needs.
pub const SESSION_COLUMNS: [&str; 68] = [
    "session_key",
    "session_id",
    "event_id",
    "event_type",
    "event_ts",
    "event_ts_raw",
    "seq",
    "user_id",
    "device_id",
    "content_id",
    "stream_type",
    "duration_ms",
    "playhead_ms",
    "playback_rate",
    "bitrate_bps",
    "stall_ms",
    "startup_ms",
    "seek_ms",
    "seek_from_ms",
    "seek_to_ms",
    "error_fatal",
    "end_reason",
    "background",
    "cdn",
    "connection_type",
    "app_name",
    "app_version",
    "player_name",
    "player_version",
    "device_type",
    "device_model",
    "os",
    "browser",
    "country",
    "region",
    "city",
    "isp",
    "asn",
    "error_codes",
    "bitrate_video_bps",
    "bitrate_audio_bps",
    "req_bitrate_bps",
    "top_bitrate_bps",
    "top_playable_bitrate_bps",
    "low_bitrate_bps",
    "throughput_bps",
    "buffer_ms",
    "buffer_video_ms",
    "buffer_audio_ms",
    "buffer_target_ms",
    "width",
    "height",
    "viewport_width",
    "viewport_height",
    "stall_count",
    "stall_count_total",
    "stall_total_ms",
    "played_ms",
    "live_latency_ms",
    "dropped_frames_total",
    "object_duration_ms",
    "stall_flag",
    "startup_flag",
    "source",
    "state",
    "error_class",
    "ad_id",
    "fps",
];

/// An event of a session as silver holds it.
pub struct RememberedEvent {
    pub session_key: String,
    pub event: SessionEvent,
}

/// The columns of one batch, by name, in the types that the lake writes.
struct Columns<'a> {
    batch: &'a RecordBatch,
}

impl Columns<'_> {
    fn texts(&self, name: &str) -> StringArray {
        self.batch
            .column_by_name(name)
            .and_then(|column| cast(column, &DataType::Utf8).ok())
            .map_or_else(
                || StringArray::new_null(self.batch.num_rows()),
                |column| column.as_string::<i32>().clone(),
            )
    }

    fn ints(&self, name: &str) -> Int64Array {
        self.batch
            .column_by_name(name)
            .and_then(|column| column.as_primitive_opt::<Int64Type>().cloned())
            .unwrap_or_else(|| Int64Array::new_null(self.batch.num_rows()))
    }

    fn reals(&self, name: &str) -> Float64Array {
        self.batch
            .column_by_name(name)
            .and_then(|column| column.as_primitive_opt::<Float64Type>().cloned())
            .unwrap_or_else(|| Float64Array::new_null(self.batch.num_rows()))
    }

    fn flags(&self, name: &str) -> BooleanArray {
        self.batch
            .column_by_name(name)
            .and_then(|column| column.as_boolean_opt().cloned())
            .unwrap_or_else(|| BooleanArray::new_null(self.batch.num_rows()))
    }

    fn times(&self, name: &str) -> TimestampMicrosecondArray {
        self.batch
            .column_by_name(name)
            .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>().cloned())
            .unwrap_or_else(|| TimestampMicrosecondArray::new_null(self.batch.num_rows()))
    }
}

/// The first member of each list of texts.
fn firsts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let lists = batch.column_by_name(name).and_then(|column| column.as_list_opt::<i32>().cloned());
    let first = |row: usize| {
        let members = cast(&lists.as_ref()?.value(row), &DataType::Utf8).ok()?;
        text(members.as_string::<i32>(), 0)
    };
    (0..batch.num_rows()).map(first).collect()
}

fn text(column: &StringArray, row: usize) -> Option<String> {
    (row < column.len() && column.is_valid(row)).then(|| column.value(row).to_string())
}

fn int(column: &Int64Array, row: usize) -> Option<i64> {
    column.is_valid(row).then(|| column.value(row))
}

/// Event time (ms) and id of rows that hold `event_ts` and `event_id`.
pub fn event_ids(batches: &[RecordBatch]) -> Vec<(i64, u128)> {
    let mut ids = Vec::new();
    for batch in batches {
        let columns = Columns { batch };
        let (times, texts) = (columns.times("event_ts"), columns.texts("event_id"));
        for row in 0..batch.num_rows() {
            if let Ok(id) = u128::from_str_radix(texts.value(row), 16) {
                ids.push((times.value(row).div_euclid(1000), id));
            }
        }
    }
    ids
}

/// Texts of one column, without nulls.
pub fn texts(batches: &[RecordBatch], name: &str) -> Vec<String> {
    batches
        .iter()
        .flat_map(|batch| {
            let column = Columns { batch }.texts(name);
            (0..batch.num_rows()).filter_map(move |row| text(&column, row)).collect::<Vec<_>>()
        })
        .collect()
}

/// Session events of `silver.player_events` rows with `SESSION_COLUMNS`.
pub fn session_events(batches: &[RecordBatch]) -> Vec<RememberedEvent> {
    batches.iter().flat_map(|batch| session_events_of(&Columns { batch })).collect()
}

fn session_events_of(columns: &Columns<'_>) -> Vec<RememberedEvent> {
    let mut texts: HashMap<&str, StringArray> = HashMap::new();
    let mut ints: HashMap<&str, Int64Array> = HashMap::new();
    for field in columns.batch.schema_ref().fields() {
        let name = field.name().as_str();
        match field.data_type() {
            DataType::Int64 => drop(ints.insert(name, columns.ints(name))),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _) => {
                drop(texts.insert(name, columns.texts(name)));
            }
            _ => {}
        }
    }
    let get = |name: &str, row: usize| texts.get(name).and_then(|column| text(column, row));
    let get_int = |name: &str, row: usize| ints.get(name).and_then(|column| int(column, row));
    let (times, rates) = (columns.times("event_ts"), columns.reals("playback_rate"));
    let (fatals, backgrounds) = (columns.flags("error_fatal"), columns.flags("background"));
    let (stall_flags, startup_flags) = (columns.flags("stall_flag"), columns.flags("startup_flag"));
    let frame_rates = columns.reals("fps");
    let error_codes = firsts(columns.batch, "error_codes");
    (0..columns.batch.num_rows())
        .map(|row| {
            let event = PlayerEvent {
                kind: get("event_type", row).and_then(|name| EventKind::parse(&name)),
                event_ts_ms: times.value(row).div_euclid(1000),
                event_ts_raw: get_int("event_ts_raw", row),
                event_id: get("event_id", row).unwrap_or_default(),
                native_session_id: get("session_id", row),
                seq: get_int("seq", row),
                user_id: get("user_id", row),
                device_id: get("device_id", row),
                content_id: get("content_id", row),
                stream_type: get("stream_type", row).and_then(|name| known(&name, &["vod", "live", "ll_live"])),
                duration_ms: get_int("duration_ms", row),
                playhead_ms: get_int("playhead_ms", row),
                playback_rate: rates.is_valid(row).then(|| rates.value(row)),
                bitrate_bps: get_int("bitrate_bps", row),
                stall_ms: get_int("stall_ms", row),
                startup_ms: get_int("startup_ms", row),
                seek_ms: get_int("seek_ms", row),
                seek_from_ms: get_int("seek_from_ms", row),
                seek_to_ms: get_int("seek_to_ms", row),
                error_codes: error_codes[row].iter().cloned().collect(),
                error_fatal: fatals.is_valid(row).then(|| fatals.value(row)),
                end_reason: get("end_reason", row)
                    .and_then(|name| known(&name, &["finished", "user_quit", "error", "replaced", "unknown"])),
                background: backgrounds.is_valid(row).then(|| backgrounds.value(row)),
                source: get("source", row).and_then(|name| known(&name, &SOURCES)).unwrap_or_default(),
                state: get("state", row).and_then(|name| ReportedState::parse(&name)),
                error_class: get("error_class", row).and_then(|name| ErrorClass::parse(&name)),
                ad_id: get("ad_id", row),
                fps: frame_rates.is_valid(row).then(|| frame_rates.value(row)),
                stall_flag: stall_flags.is_valid(row).then(|| stall_flags.value(row)),
                startup_flag: startup_flags.is_valid(row).then(|| startup_flags.value(row)),
                bitrate_video_bps: get_int("bitrate_video_bps", row),
                bitrate_audio_bps: get_int("bitrate_audio_bps", row),
                req_bitrate_bps: get_int("req_bitrate_bps", row),
                top_bitrate_bps: get_int("top_bitrate_bps", row),
                top_playable_bitrate_bps: get_int("top_playable_bitrate_bps", row),
                low_bitrate_bps: get_int("low_bitrate_bps", row),
                throughput_bps: get_int("throughput_bps", row),
                buffer_ms: get_int("buffer_ms", row),
                buffer_video_ms: get_int("buffer_video_ms", row),
                buffer_audio_ms: get_int("buffer_audio_ms", row),
                buffer_target_ms: get_int("buffer_target_ms", row),
                width: get_int("width", row),
                height: get_int("height", row),
                viewport_width: get_int("viewport_width", row),
                viewport_height: get_int("viewport_height", row),
                stall_count: get_int("stall_count", row),
                stall_count_total: get_int("stall_count_total", row),
                stall_total_ms: get_int("stall_total_ms", row),
                played_ms: get_int("played_ms", row),
                live_latency_ms: get_int("live_latency_ms", row),
                dropped_frames_total: get_int("dropped_frames_total", row),
                object_duration_ms: get_int("object_duration_ms", row),
                cdn: get("cdn", row),
                connection_type: get("connection_type", row),
                app_name: get("app_name", row),
                app_version: get("app_version", row),
                player_name: get("player_name", row),
                player_version: get("player_version", row),
                device: Device {
                    device_type: get("device_type", row),
                    device_model: get("device_model", row),
                    os: get("os", row),
                    browser: get("browser", row),
                },
                network: Network {
                    country: get("country", row),
                    region: get("region", row),
                    city: get("city", row),
                    asn: get_int("asn", row),
                    isp: get("isp", row),
                },
                ..PlayerEvent::default()
            };
            RememberedEvent {
                session_key: get("session_key", row).unwrap_or_default(),
                event: SessionEvent::from(&event),
            }
        })
        .collect()
}

fn known(name: &str, names: &[&'static str]) -> Option<&'static str> {
    names.iter().find(|known| **known == name).copied()
}

/// Bronze rows read again: decoded anew from the payload, with what the address had told us.
pub struct Remade {
    pub players: Vec<PlayerRow>,
    pub requests: Vec<RequestRow>,
}

/// The receiver may have corrected the sender's clock; what it decided stands in bronze.
fn correct_clock(event: &mut PlayerEvent, stored_ms: i64) {
    if event.event_ts_ms != stored_ms {
        event.event_ts_ms = stored_ms;
        event.dq_flags.push(CLOCK_SHIFTED);
    }
}

/// The decoder of the row before: most rows of a file have its format and its fields.
struct LastDecoder {
    format: Format,
    fields: Option<String>,
    decoder: Decoder,
}

fn decoder_of(last: &mut Option<LastDecoder>, format: Format, fields: Option<String>) -> &mut Decoder {
    let same = last.take().filter(|last| last.format == format && last.fields == fields);
    let decoder = same.unwrap_or_else(|| LastDecoder {
        format,
        decoder: Decoder::with_fields(format, fields.as_deref()),
        fields,
    });
    &mut last.insert(decoder).decoder
}

/// Makes silver's input again from bronze rows (either bronze table).
///
/// The device is told again from the user agent; the network is not looked up again, for the full
/// address is gone and the databases may have changed.
pub fn remake(batches: &[RecordBatch], enricher: &Enricher, privacy: &Privacy) -> Remade {
    let mut remade = Remade {
        players: Vec::new(),
        requests: Vec::new(),
    };
    for batch in batches {
        let columns = Columns { batch };
        let (formats, fields, payloads) = (columns.texts("format"), columns.texts("fields"), columns.texts("payload"));
        let (prefixes, user_agents) = (columns.texts("client_prefix"), columns.texts("user_agent"));
        let event_times = columns.times("event_ts");
        let [countries, regions, cities, isps] = ["country", "region", "city", "isp"].map(|name| columns.texts(name));
        let asns = columns.ints("asn");
        let (partitions, offsets) = (columns.texts("source_partition"), columns.ints("source_offset"));
        let received = columns.times("received_at");
        let mut last: Option<LastDecoder> = None;
        for row in 0..batch.num_rows() {
            let Some(format) = Format::parse(formats.value(row)) else {
                continue;
            };
            let decoder = decoder_of(&mut last, format, text(&fields, row));
            let received_at_ms = received.value(row).div_euclid(1000);
            let context = DecodeContext { now_ms: received_at_ms };
            let network = Network {
                country: text(&countries, row),
                region: text(&regions, row),
                city: text(&cities, row),
                asn: int(&asns, row),
                isp: text(&isps, row),
            };
            let place = Provenance {
                source_partition: Arc::from(partitions.value(row)),
                source_offset: offsets.value(row),
                attributes: None,
                received_at_ms,
                format: format.as_str(),
            };
            match decoder.decode(payloads.value(row).as_bytes(), &context) {
                Ok(Decoded::Player(mut event)) => {
                    event.client_address = None;
                    event.user_agent = event.user_agent.take().or_else(|| text(&user_agents, row));
                    correct_clock(&mut event, event_times.value(row).div_euclid(1000));
                    enricher.enrich_event(&mut event);
                    event.network = network;
                    event.client_address = text(&prefixes, row);
                    remade.players.push(PlayerRow {
                        event: privacy.anonymise(event),
                        place,
                    });
                }
                Ok(Decoded::Cdn(mut request)) => {
                    request.client_address = None;
                    enricher.enrich_request(&mut request);
                    // It stands in bronze by itself.
                    request.player_event = None;
                    request.network = network;
                    request.client_address = text(&prefixes, row);
                    remade.requests.push(RequestRow {
                        request: privacy.anonymise_request(request),
                        place,
                    });
                }
                Ok(Decoded::Nothing | Decoded::Spooled(_)) | Err(_) => {}
            }
        }
    }
    remade
}
