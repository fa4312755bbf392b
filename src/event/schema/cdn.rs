//! Columns of `bronze.cdn_logs` and `silver.cdn_requests`.
//!
//! Invariant: `payload` with `fields` and the network columns is enough to make the silver row again.

use super::{Column, Get, RequestRow};

/// Thousandths of a request that a row stands for.
const NOT_SAMPLED: i64 = 1000;

/// `bronze.cdn_logs`: one row a stored log record.
pub fn bronze_cdn_columns() -> Vec<Column<RequestRow>> {
    vec![
        Column::required("event_date", "UTC day of event_ts", Get::Date(|r| r.request.event_ts_ms)),
        Column::required("event_ts", "end of the response, UTC", Get::Time(|r| Some(r.request.event_ts_ms))),
        Column::required(
            "received_at",
            "when Playhead took the record in, UTC",
            Get::Time(|r| Some(r.place.received_at_ms)),
        ),
        Column::required("event_id", "dedupe key, 128 bit, hex", Get::Text(|r| Some(&r.request.event_id))),
        Column::required("format", "decoder that reads payload", Get::Text(|r| Some(r.place.format))),
        Column::new(
            "fields",
            "the #Fields list in force for payload (W3C logs)",
            Get::Text(|r| r.request.fields.as_deref()),
        ),
        Column::required(
            "payload",
            "the record as received, addresses cut",
            Get::Text(|r| Some(&r.request.payload)),
        ),
        Column::new(
            "client_prefix",
            "/24 or /48 of the client address",
            Get::Text(|r| r.request.client_prefix.as_deref()),
        ),
        Column::new(
            "country",
            "ISO 3166-1 alpha-2, from the full address",
            Get::Text(|r| r.request.network.country.as_deref()),
        ),
        Column::new(
            "region",
            "ISO 3166-2 subdivision",
            Get::Text(|r| r.request.network.region.as_deref()),
        ),
        Column::new(
            "city",
            "city, from the full address",
            Get::Text(|r| r.request.network.city.as_deref()),
        ),
        Column::new("asn", "autonomous system number", Get::Int(|r| r.request.network.asn)),
        Column::new(
            "isp",
            "ISP, else the AS organisation",
            Get::Text(|r| r.request.network.isp.as_deref()),
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

/// `silver.cdn_requests`: the same records, typed; W3C names with underscores.
pub fn silver_cdn_columns() -> Vec<Column<RequestRow>> {
    vec![
        Column::required("event_date", "UTC day of event_ts", Get::Date(|r| r.request.event_ts_ms)),
        Column::required("event_ts", "end of the response, UTC", Get::Time(|r| Some(r.request.event_ts_ms))),
        Column::required(
            "received_at",
            "when Playhead took the record in, UTC",
            Get::Time(|r| Some(r.place.received_at_ms)),
        ),
        Column::required("event_id", "dedupe key, 128 bit, hex", Get::Text(|r| Some(&r.request.event_id))),
        Column::new(
            "request_id",
            "the CDN's id of the request: the join key to player events",
            Get::Text(|r| r.request.request_id.as_deref()),
        ),
        Column::new("cdn", "CDN name", Get::Text(|r| r.request.cdn.as_deref())),
        Column::new(
            "edge_location",
            "edge location as logged, e.g. LHR50-C1",
            Get::Text(|r| r.request.edge_location.as_deref()),
        ),
        Column::new(
            "pop",
            "letters of the edge location, e.g. LHR",
            Get::Text(|r| r.request.pop.as_deref()),
        ),
        Column::new("status", "HTTP status; 0 = closed before an answer", Get::Int(|r| r.request.status)),
        Column::new(
            "sc_bytes",
            "bytes to the client, headers included",
            Get::Int(|r| r.request.sc_bytes),
        ),
        Column::new("cs_bytes", "bytes from the client", Get::Int(|r| r.request.cs_bytes)),
        Column::new("method", "HTTP method", Get::Text(|r| r.request.method.as_deref())),
        Column::new("host", "distribution's host, cs(Host)", Get::Text(|r| r.request.host.as_deref())),
        Column::new(
            "host_header",
            "host that the viewer asked for",
            Get::Text(|r| r.request.host_header.as_deref()),
        ),
        Column::new("uri_stem", "path", Get::Text(|r| r.request.uri_stem.as_deref())),
        Column::new(
            "uri_query",
            "listed parameters of the query, addresses cut",
            Get::Text(|r| r.request.uri_query.as_deref()),
        ),
        Column::new(
            "referer",
            "origin of the referer, or as the settings have it, addresses cut",
            Get::Text(|r| r.request.referer.as_deref()),
        ),
        Column::new("user_agent", "user agent, decoded", Get::Text(|r| r.request.user_agent.as_deref())),
        Column::new(
            "decode_depth",
            "times the user agent had been percent-encoded",
            Get::Int(|r| r.request.decode_depth),
        ),
        Column::new(
            "cookie",
            "listed cookies, addresses cut",
            Get::Text(|r| r.request.cookie.as_deref()),
        ),
        Column::new(
            "result_type",
            "Hit, RefreshHit, Miss, Error, ...",
            Get::Text(|r| r.request.result_type.as_deref()),
        ),
        Column::new(
            "response_result_type",
            "result type of the response",
            Get::Text(|r| r.request.response_result_type.as_deref()),
        ),
        Column::new(
            "detailed_result_type",
            "result type in detail",
            Get::Text(|r| r.request.detailed_result_type.as_deref()),
        ),
        Column::new("protocol", "http, https, ws, wss", Get::Text(|r| r.request.protocol.as_deref())),
        Column::new(
            "protocol_version",
            "HTTP version",
            Get::Text(|r| r.request.protocol_version.as_deref()),
        ),
        Column::new("ssl_protocol", "TLS version", Get::Text(|r| r.request.ssl_protocol.as_deref())),
        Column::new("ssl_cipher", "TLS cipher", Get::Text(|r| r.request.ssl_cipher.as_deref())),
        Column::new(
            "time_taken_ms",
            "whole request at the edge, ms",
            Get::Int(|r| r.request.time_taken_ms),
        ),
        Column::new("ttfb_ms", "time to first byte at the edge, ms", Get::Int(|r| r.request.ttfb_ms)),
        Column::required(
            "forwarded_for",
            "X-Forwarded-For, addresses cut",
            Get::Texts(|r| &r.request.forwarded_for),
        ),
        Column::new(
            "fle_status",
            "field-level encryption status",
            Get::Text(|r| r.request.fle_status.as_deref()),
        ),
        Column::new(
            "fle_encrypted_fields",
            "field-level encryption fields",
            Get::Text(|r| r.request.fle_encrypted_fields.as_deref()),
        ),
        Column::new("client_port", "port of the client", Get::Int(|r| r.request.client_port)),
        Column::new(
            "content_type",
            "content type of the answer",
            Get::Text(|r| r.request.content_type.as_deref()),
        ),
        Column::new(
            "content_length",
            "content length of the answer, bytes",
            Get::Int(|r| r.request.content_length),
        ),
        Column::new("range_start", "first byte of the range", Get::Int(|r| r.request.range_start)),
        Column::new("range_end", "last byte of the range", Get::Int(|r| r.request.range_end)),
        Column::new(
            "origin_ttfb_ms",
            "first byte from the origin as the edge saw it, ms",
            Get::Int(|r| r.request.origin_ttfb_ms),
        ),
        Column::new(
            "origin_time_ms",
            "last byte from the origin as the edge saw it, ms",
            Get::Int(|r| r.request.origin_time_ms),
        ),
        Column::required(
            "sample_weight_milli",
            "requests that this row stands for, in thousandths: 1000 where the log is not sampled, 0 for traffic between the CDN's own servers",
            Get::Int(|r| Some(r.request.sample_weight_milli.unwrap_or(NOT_SAMPLED))),
        ),
        Column::new(
            "error_code",
            "the CDN's own word for what went wrong",
            Get::Text(|r| r.request.error_code.as_deref()),
        ),
        Column::new(
            "is_aborted",
            "the viewer went before the answer was whole, where the log tells",
            Get::Flag(|r| r.request.is_aborted),
        ),
        Column::new("pop_city", "city of the POP", Get::Text(|r| r.request.pop_city)),
        Column::new(
            "pop_country",
            "country of the POP, ISO 3166-1 alpha-2",
            Get::Text(|r| r.request.pop_country),
        ),
        Column::new(
            "object_class",
            "manifest, init, segment, key, subtitle, image or other",
            Get::Text(|r| r.request.object_class),
        ),
        Column::new(
            "container",
            "as the path or the content type says: mp4, ts, m3u8, ...",
            Get::Text(|r| r.request.container),
        ),
        Column::new(
            "content_id",
            "by cdn.content of the settings, else what the player's CMCD names",
            Get::Text(|r| r.request.content_id.as_deref()),
        ),
        Column::new(
            "session_id",
            "session that the player's CMCD names",
            Get::Text(|r| r.request.session_id.as_deref()),
        ),
        Column::new(
            "cmcd_carrier",
            "what carried CMCD: headers, columns or query",
            Get::Text(|r| r.request.cmcd_carrier),
        ),
        Column::new(
            "cmcd_decode_depth",
            "how many times the query's CMCD had to be percent-decoded",
            Get::Int(|r| r.request.cmcd_decode_depth),
        ),
        Column::new("is_bot", "user agent is a crawler", Get::Flag(|r| r.request.is_bot)),
        Column::new(
            "device_type",
            "desktop, mobile, tablet, tv, console or bot",
            Get::Text(|r| r.request.device.device_type.as_deref()),
        ),
        Column::new("os", "operating system", Get::Text(|r| r.request.device.os.as_deref())),
        Column::new("browser", "browser", Get::Text(|r| r.request.device.browser.as_deref())),
        Column::new(
            "client_prefix",
            "/24 or /48 of the client address",
            Get::Text(|r| r.request.client_prefix.as_deref()),
        ),
        Column::new("country", "ISO 3166-1 alpha-2", Get::Text(|r| r.request.network.country.as_deref())),
        Column::new(
            "region",
            "ISO 3166-2 subdivision",
            Get::Text(|r| r.request.network.region.as_deref()),
        ),
        Column::new("city", "city", Get::Text(|r| r.request.network.city.as_deref())),
        Column::new("asn", "autonomous system number", Get::Int(|r| r.request.network.asn)),
        Column::new(
            "isp",
            "ISP, else the AS organisation",
            Get::Text(|r| r.request.network.isp.as_deref()),
        ),
        Column::required("ext", "columns that no field above holds, as logged", Get::Map(|r| &r.request.ext)),
        Column::required(
            "dq_flags",
            "data-quality rules that the record broke",
            Get::Flags(|r| &r.request.dq_flags),
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
