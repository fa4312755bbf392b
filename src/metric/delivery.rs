//! What the CDN delivered, and what viewers got of it by POP (events and metrics, 3.8).

use super::{Better, Measure, Metric, Mode, Section, Table, Unit};

/// A share of requests.
const OF_REQUESTS: Metric = Metric {
    name: "",
    title: "",
    section: Section::Delivery,
    unit: Unit::Ratio,
    better: Better::Lower,
    def_version: 1,
    mode: Mode::Request,
    measure: Measure::Plain { expression: "" },
    table: Table::Cdn,
    minute_only: false,
    min_samples: 100,
    samples: "sum(logged)",
    help: "",
    source: "ours, over the W3C fields of CloudFront",
};

/// A share of requests, by class of object too.
const OF_OBJECTS: Metric = Metric {
    table: Table::CdnObjects,
    ..OF_REQUESTS
};

/// A percentile or mean of times.
const TIME: Metric = Metric {
    unit: Unit::Milliseconds,
    ..OF_OBJECTS
};

/// What the sessions saw that a POP served, by the windows of `gold.playback`.
const OF_VIEWERS: Metric = Metric {
    table: Table::Delivery,
    min_samples: 50,
    samples: "sum(startup_count)",
    source: "ours: sessions joined to the CDN's requests",
    ..OF_REQUESTS
};

/// An amount.
const AMOUNT: Metric = Metric {
    unit: Unit::Count,
    better: Better::Neither,
    min_samples: 0,
    samples: "",
    ..OF_OBJECTS
};

macro_rules! status_share {
    ($name:literal, $column:literal, $status:literal, $help:literal) => {
        Metric {
            name: $name,
            title: concat!("Answers ", $status),
            measure: Measure::Ratio {
                numerator: concat!("sum(", $column, ")"),
                denominator: "sum(requests)",
            },
            help: concat!("Share of the requests that were answered with ", $status, ": ", $help),
            ..OF_REQUESTS
        }
    };
}

macro_rules! first_byte {
    ($name:literal, $of:literal, $quantile:literal, $title:literal, $min:literal, $help:literal) => {
        Metric {
            name: $name,
            title: $title,
            measure: Measure::Quantile {
                sketch: concat!("ttfb_", $of, "_sketch"),
                quantile: $quantile,
            },
            min_samples: $min,
            samples: concat!("sum(ttfb_", $of, "_count)"),
            help: $help,
            ..TIME
        }
    };
}

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "requests",
        title: "Requests",
        def_version: 2,
        measure: Measure::Plain {
            expression: "sum(requests_milli) / 1000.0",
        },
        help: "Requests that the CDN answered, duplicates taken out, by the end of the response. A sampled log is scaled up; traffic \
               between the CDN's own servers is left out.",
        ..AMOUNT
    },
    Metric {
        name: "request_rate",
        title: "Requests per second",
        unit: Unit::PerSecond,
        def_version: 2,
        measure: Measure::Ratio {
            numerator: "sum(requests_milli) / 1000.0",
            denominator: "date_part('epoch', max(window_end)) - date_part('epoch', min(window_start))",
        },
        help: "Requests over the length of time that the rows span, first window's start to last window's end.",
        ..AMOUNT
    },
    Metric {
        name: "ok_ratio",
        title: "Good answers",
        better: Better::Higher,
        measure: Measure::Ratio {
            numerator: "sum(ok_requests)",
            denominator: "sum(requests)",
        },
        help: "Share of the requests that were answered with 2xx or 304.",
        ..OF_OBJECTS
    },
    Metric {
        name: "error_4xx",
        title: "Answers 4xx",
        measure: Measure::Ratio {
            numerator: "sum(status_4xx)",
            denominator: "sum(requests)",
        },
        help: "Share of the requests that were answered with 400 to 499. A client that closed before the answer (status 0 or \
               000) is in the denominator and in neither class.",
        ..OF_OBJECTS
    },
    Metric {
        name: "error_5xx",
        title: "Answers 5xx",
        measure: Measure::Ratio {
            numerator: "sum(status_5xx)",
            denominator: "sum(requests)",
        },
        help: "Share of the requests that were answered with 500 to 599; the same rule for closed clients as error_4xx.",
        ..OF_OBJECTS
    },
    status_share!(
        "error_403",
        "status_403",
        "403",
        "forbidden, by a token, a geo-block or a firewall."
    ),
    status_share!(
        "error_404",
        "status_404",
        "404",
        "not found; live players that run ahead of the edge cause it too."
    ),
    status_share!("error_416", "status_416", "416", "a byte range beyond the end of the object."),
    status_share!("error_429", "status_429", "429", "too many requests of one client or in all."),
    status_share!(
        "error_502",
        "status_502",
        "502",
        "the edge could make nothing of what the origin answered."
    ),
    status_share!("error_503", "status_503", "503", "the edge or the origin is out of capacity."),
    status_share!("error_504", "status_504", "504", "the origin did not answer in time."),
    Metric {
        name: "client_abort_ratio",
        title: "Closed by the client",
        measure: Measure::Ratio {
            numerator: "sum(client_aborts)",
            denominator: "sum(requests)",
        },
        help: "Share of the requests that the client closed before an answer (status 0 or 000). Seeks and changes of rendition \
               do it too, so watch the change rather than the level.",
        ..OF_REQUESTS
    },
    Metric {
        name: "abort_ratio",
        title: "Aborted by the viewer",
        measure: Measure::Ratio {
            numerator: "sum(aborts)",
            denominator: "sum(requests)",
        },
        help: "Share of the requests whose viewer went before the answer was whole: client_abort_ratio and answers that were cut \
               short, where the log tells (an error word, or a result of Error over an answer that was none). Seeks and changes \
               of rendition do it too.",
        ..OF_OBJECTS
    },
    Metric {
        name: "cache_hit_ratio",
        title: "Cache hits",
        better: Better::Higher,
        def_version: 2,
        measure: Measure::Ratio {
            numerator: "sum(cache_hits)",
            denominator: "sum(cache_lookups)",
        },
        samples: "sum(cache_lookups)",
        help: "Hit, RefreshHit and OriginShieldHit over those and Miss, by the result type of the response: a segment that the \
               client closed is a hit still. GET and HEAD only; errors, redirects and refusals are in neither sum.",
        ..OF_OBJECTS
    },
    Metric {
        name: "edge_hit_ratio",
        title: "Cache hits, at the edge alone",
        better: Better::Higher,
        measure: Measure::Ratio {
            numerator: "sum(cache_hits) - sum(refresh_hits) - sum(shield_hits)",
            denominator: "sum(cache_lookups)",
        },
        samples: "sum(cache_lookups)",
        help: "Hit alone over the same sum as cache_hit_ratio: nobody behind the edge was asked.",
        ..OF_REQUESTS
    },
    Metric {
        name: "shield_hit_ratio",
        title: "Cache hits, at the shield",
        better: Better::Higher,
        measure: Measure::Ratio {
            numerator: "sum(shield_hits)",
            denominator: "sum(cache_lookups) - sum(cache_hits) + sum(shield_hits)",
        },
        samples: "sum(cache_lookups) - sum(cache_hits) + sum(shield_hits)",
        help: "Of the requests that the edge had no copy for, the share that the shield had one for: what the shield keeps away \
               from the origin. 0 where no shield is in use or the log does not tell.",
        ..OF_REQUESTS
    },
    Metric {
        name: "byte_hit_ratio",
        title: "Cache hits, by bytes",
        better: Better::Higher,
        measure: Measure::Ratio {
            numerator: "sum(hit_bytes)",
            denominator: "sum(lookup_bytes)",
        },
        help: "Bytes of cache hits over bytes of the same requests that cache_hit_ratio is over. What origin traffic costs goes \
               by this one: a missed segment weighs more than a missed manifest.",
        ..OF_OBJECTS
    },
    Metric {
        name: "cache_hit_all_ratio",
        title: "Cache hits over all requests",
        better: Better::Higher,
        measure: Measure::Ratio {
            numerator: "sum(cache_hits) - sum(refresh_hits) - sum(shield_hits)",
            denominator: "sum(requests)",
        },
        help: "Hit alone over all requests, errors and redirects included: for comparison with CloudFront's own dashboard, and \
               lower than cache_hit_ratio whenever something else fails.",
        source: "CloudFront CMCD dashboard",
        ..OF_REQUESTS
    },
    Metric {
        name: "origin_requests",
        title: "Requests to the origin",
        measure: Measure::Plain {
            expression: "sum(origin_requests)",
        },
        help: "Requests that reached the origin, as far as the log says: Miss, and RefreshHit, which asks whether the copy is \
               still good. Hits of the shield are not among them.",
        ..AMOUNT
    },
    Metric {
        name: "origin_bytes",
        title: "Bytes from the origin",
        unit: Unit::Bytes,
        measure: Measure::Plain {
            expression: "sum(origin_bytes)",
        },
        help: "Bytes of the misses as they went on to the client; a copy that was still good moves none. An edge that fetches \
               more than it was asked for (whole objects for ranges) takes more from the origin than this.",
        ..AMOUNT
    },
    Metric {
        name: "origin_ttfb_mean_ms",
        title: "Origin's time to first byte, mean",
        measure: Measure::Ratio {
            numerator: "sum(origin_ttfb_ms_sum)",
            denominator: "sum(origin_ttfb_count)",
        },
        samples: "sum(origin_ttfb_count)",
        help: "Mean time until the edge had the origin's first byte, where the log tells (origin-fbl of CloudFront). Take it from \
               ttfb_miss_p50_ms, and what is left is the CDN's own.",
        ..TIME
    },
    Metric {
        name: "ttfb_mean_ms",
        title: "Time to first byte, mean",
        unit: Unit::Milliseconds,
        measure: Measure::Ratio {
            numerator: "sum(ttfb_ms_sum)",
            denominator: "sum(ttfb_count)",
        },
        samples: "sum(ttfb_count)",
        help: "Mean time from the request to the first byte at the edge, of good answers (2xx, 304) whose time is known. Hits \
               and misses together: look at cache_hit_ratio before blaming the CDN.",
        ..OF_REQUESTS
    },
    first_byte!(
        "ttfb_hit_p50_ms",
        "hit",
        "0.5",
        "Time to first byte of hits, median",
        20,
        "Median time to first byte at the edge of good GETs from cache that were not aborted: the CDN's own work. At most 1 % off."
    ),
    first_byte!(
        "ttfb_hit_p95_ms",
        "hit",
        "0.95",
        "Time to first byte of hits, 95th percentile",
        200,
        "95th percentile of the time to first byte at the edge of good GETs from cache that were not aborted: the CDN's own work. At most 1 % off."
    ),
    first_byte!(
        "ttfb_hit_p99_ms",
        "hit",
        "0.99",
        "Time to first byte of hits, 99th percentile",
        1000,
        "99th percentile of the time to first byte at the edge of good GETs from cache that were not aborted: the CDN's own work. At most 1 % off."
    ),
    first_byte!(
        "ttfb_miss_p50_ms",
        "miss",
        "0.5",
        "Time to first byte of misses, median",
        20,
        "Median time to first byte at the edge of good GETs that missed the cache and were not aborted: the CDN's work and the \
         origin's. At most 1 % off."
    ),
    first_byte!(
        "ttfb_miss_p95_ms",
        "miss",
        "0.95",
        "Time to first byte of misses, 95th percentile",
        200,
        "95th percentile of the time to first byte at the edge of good GETs that missed the cache and were not aborted: the CDN's work and the \
         origin's. At most 1 % off."
    ),
    first_byte!(
        "ttfb_miss_p99_ms",
        "miss",
        "0.99",
        "Time to first byte of misses, 99th percentile",
        1000,
        "99th percentile of the time to first byte at the edge of good GETs that missed the cache and were not aborted: the CDN's work and the \
         origin's. At most 1 % off."
    ),
    Metric {
        name: "slow_request_ratio",
        title: "Slow requests",
        measure: Measure::Ratio {
            numerator: "sum(slow_requests)",
            denominator: "sum(ttfb_count)",
        },
        samples: "sum(ttfb_count)",
        help: "Share of the good answers whose first byte came after more than 1,000 ms. By rows of the log, sampled or not.",
        ..OF_REQUESTS
    },
    Metric {
        name: "edge_latency_mean_ms",
        title: "Whole request at the edge, mean",
        measure: Measure::Ratio {
            numerator: "sum(time_taken_ms_sum)",
            denominator: "sum(time_taken_count)",
        },
        samples: "sum(time_taken_count)",
        help: "Mean time of the whole request at the edge, of good answers. Grows with the size of the object and the client's \
               own connection: compare it within a class of object, in gold.cdn_objects.",
        ..TIME
    },
    Metric {
        name: "req_throughput_kbps",
        title: "Throughput of segments",
        unit: Unit::Kbps,
        better: Better::Higher,
        measure: Measure::Ratio {
            numerator: "8.0 * sum(throughput_bytes)",
            denominator: "sum(throughput_ms)",
        },
        samples: "sum(throughput_count)",
        help: "Bits of whole good segments of 64 KiB and more over the time from their first byte to their last, at least 1 ms \
               each. Optimistic: the edge's clock stops when the last byte is queued; what the player measures is in \
               gold.latency.",
        ..OF_OBJECTS
    },
    Metric {
        name: "bytes",
        title: "Bytes to clients",
        unit: Unit::Bytes,
        measure: Measure::Plain { expression: "sum(bytes)" },
        help: "Bytes that the CDN sent to clients, headers included as CloudFront counts them.",
        ..AMOUNT
    },
    Metric {
        name: "egress_mbps",
        title: "Egress",
        unit: Unit::Mbps,
        measure: Measure::Ratio {
            numerator: "8.0 * sum(bytes) / 1000000.0",
            denominator: "date_part('epoch', max(window_end)) - date_part('epoch', min(window_start))",
        },
        help: "Bits sent to clients over the length of time that the rows span, by the end of the responses.",
        ..AMOUNT
    },
    Metric {
        name: "match_ratio",
        title: "Reports joined to the CDN's log",
        better: Better::Higher,
        measure: Measure::Ratio {
            numerator: "sum(matched_by_id) + sum(matched_by_session)",
            denominator: "sum(reports)",
        },
        min_samples: 100,
        samples: "sum(reports)",
        help: "Of the player events that tell of one request, the share whose request is in the log: by the CDN's request id up to \
               1 minute apart, else by session and path within 30 s. Low means that logs are late, sampled or \
               missing, or that clocks differ; what is said by POP then speaks for fewer viewers.",
        ..OF_VIEWERS
    },
    Metric {
        name: "located_ratio",
        title: "Viewing time whose POP is known",
        better: Better::Higher,
        measure: Measure::Ratio {
            numerator: "sum(located_ms)",
            denominator: "sum(playing_ms) + sum(stall_ms)",
        },
        samples: "(sum(playing_ms) + sum(stall_ms)) / 60000",
        help: "Playing and stall time in minutes for which a request of the session is known, over all of it. The rest stands in \
               rows without a POP.",
        ..OF_VIEWERS
    },
    Metric {
        name: "pop_startup_p50_ms",
        title: "Startup by POP, median",
        unit: Unit::Milliseconds,
        mode: Mode::Start,
        measure: Measure::Quantile {
            sketch: "startup_sketch",
            quantile: "0.5",
        },
        help: "Median startup time by the POP and ISP that served the minute of the intent to play; defined as startup_p50_ms. A session's \
               minute belongs to the POP of the first request that is known of it.",
        ..OF_VIEWERS
    },
    Metric {
        name: "pop_startup_p95_ms",
        title: "Startup by POP, 95th percentile",
        unit: Unit::Milliseconds,
        mode: Mode::Start,
        measure: Measure::Quantile {
            sketch: "startup_sketch",
            quantile: "0.95",
        },
        min_samples: 200,
        help: "95th percentile of startup times by the POP and ISP that served the start; the same rules as \
               pop_startup_p50_ms.",
        ..OF_VIEWERS
    },
    Metric {
        name: "pop_rebuffer_ratio",
        title: "Rebuffering ratio by POP",
        mode: Mode::Overlap,
        measure: Measure::Ratio {
            numerator: "sum(stall_ms)",
            denominator: "sum(playing_ms) + sum(stall_ms)",
        },
        samples: "(sum(playing_ms) + sum(stall_ms)) / 60000",
        help: "Stall time over playing and stall time by the POP and ISP that served the session in that minute; defined as \
               rebuffer_ratio, and equal to it over all rows.",
        ..OF_VIEWERS
    },
    Metric {
        name: "stalled_slow_ratio",
        title: "Slow requests of stalled sessions",
        measure: Measure::Ratio {
            numerator: "sum(stalled_slow_requests)",
            denominator: "sum(stalled_ttfb_count)",
        },
        min_samples: 100,
        samples: "sum(stalled_ttfb_count)",
        help: "Of the requests that are known of sessions in minutes in which they stalled, the share whose first byte came after \
               more than 1,000 ms. Far above slow_request_ratio means that the CDN makes them stall; equal to it, look at the \
               last mile or the player.",
        ..OF_VIEWERS
    },
    Metric {
        name: "stalled_hit_ratio",
        title: "Cache hits of stalled sessions",
        better: Better::Higher,
        measure: Measure::Ratio {
            numerator: "sum(stalled_hits)",
            denominator: "sum(stalled_hits) + sum(stalled_misses)",
        },
        min_samples: 100,
        samples: "sum(stalled_hits) + sum(stalled_misses)",
        help: "Of the same requests, hits over hits and misses; compare with cache_hit_ratio.",
        ..OF_VIEWERS
    },
];
