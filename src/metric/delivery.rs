//! What the CDN delivered (events and metrics, 3.8).

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
    samples: "sum(requests)",
    help: "",
    source: "ours, over the W3C fields of CloudFront",
};

/// An amount.
const AMOUNT: Metric = Metric {
    unit: Unit::Count,
    better: Better::Neither,
    min_samples: 0,
    samples: "",
    ..OF_REQUESTS
};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "requests",
        title: "Requests",
        measure: Measure::Plain {
            expression: "sum(requests)",
        },
        help: "Requests that the CDN logged, duplicates taken out, by the end of the response.",
        ..AMOUNT
    },
    Metric {
        name: "request_rate",
        title: "Requests per second",
        unit: Unit::PerSecond,
        measure: Measure::Ratio {
            numerator: "sum(requests)",
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
        ..OF_REQUESTS
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
        ..OF_REQUESTS
    },
    Metric {
        name: "error_5xx",
        title: "Answers 5xx",
        measure: Measure::Ratio {
            numerator: "sum(status_5xx)",
            denominator: "sum(requests)",
        },
        help: "Share of the requests that were answered with 500 to 599; the same rule for closed clients as error_4xx.",
        ..OF_REQUESTS
    },
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
        name: "cache_hit_ratio",
        title: "Cache hits",
        better: Better::Higher,
        measure: Measure::Ratio {
            numerator: "sum(cache_hits)",
            denominator: "sum(cache_lookups)",
        },
        samples: "sum(cache_lookups)",
        help: "Hit, RefreshHit and OriginShieldHit over those and Miss, by the result type of the response: a segment that the \
               client closed is a hit still. Errors, redirects and refusals are in neither sum.",
        ..OF_REQUESTS
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
    Metric {
        name: "edge_latency_mean_ms",
        title: "Whole request at the edge, mean",
        unit: Unit::Milliseconds,
        measure: Measure::Ratio {
            numerator: "sum(time_taken_ms_sum)",
            denominator: "sum(time_taken_count)",
        },
        samples: "sum(time_taken_count)",
        help: "Mean time of the whole request at the edge, of good answers. Grows with the size of the object and the client's \
               own connection.",
        ..OF_REQUESTS
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
];
