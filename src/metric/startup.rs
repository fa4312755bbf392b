//! Whether and how fast a play starts (events and metrics, 3.3).

use super::{Better, Measure, Metric, Mode, Section, Table, Unit};

/// A share of attempts.
const OF_ATTEMPTS: Metric = Metric {
    name: "",
    title: "",
    section: Section::Startup,
    unit: Unit::Ratio,
    better: Better::Lower,
    def_version: 1,
    mode: Mode::Start,
    measure: Measure::Plain { expression: "" },
    table: Table::Playback,
    minute_only: false,
    min_samples: 50,
    samples: "sum(attempts)",
    help: "",
    source: "",
};

/// A number of attempts.
const COUNT: Metric = Metric {
    unit: Unit::Count,
    min_samples: 0,
    samples: "",
    ..OF_ATTEMPTS
};

const STARTUP_HELP: &str = "of the times from the first request to the first frame of any media, less pause and background \
     between. The reported value wins over the derived one. Plays with a seek before the first frame or loaded in the \
     background have no startup time and are left out; preloaded plays are in. At most 1 % off. The smallest sample \
     leaves ten plays beyond the percentile.";
const STARTUP_SOURCE: &str = "CTA-2066 initialStartupTime, CTA-5004-B `msd`";

macro_rules! percentile {
    ($name:literal, $title:literal, $quantile:literal, $min_samples:literal) => {
        Metric {
            name: $name,
            title: $title,
            unit: Unit::Milliseconds,
            measure: Measure::Quantile {
                sketch: "startup_sketch",
                quantile: $quantile,
            },
            min_samples: $min_samples,
            samples: "sum(startup_count)",
            help: STARTUP_HELP,
            source: STARTUP_SOURCE,
            ..OF_ATTEMPTS
        }
    };
}

macro_rules! within {
    ($column:literal, $limit:literal) => {
        Metric {
            name: $column,
            title: concat!("Started within ", $limit),
            better: Better::Higher,
            measure: Measure::Ratio {
                numerator: concat!("sum(", $column, ")"),
                denominator: "sum(startup_count)",
            },
            samples: "sum(startup_count)",
            help: concat!(
                "Share of the plays with a known startup time whose startup took at most ",
                $limit,
                ". A step of the histogram; the steps are cumulative."
            ),
            source: "CTA-2066 appendix B (histogram, not mean)",
            ..OF_ATTEMPTS
        }
    };
}

pub(super) const METRICS: &[Metric] = &[
    percentile!("startup_p50_ms", "Startup time, median", "0.5", 20),
    percentile!("startup_p75_ms", "Startup time, 75th percentile", "0.75", 40),
    percentile!("startup_p90_ms", "Startup time, 90th percentile", "0.9", 100),
    percentile!("startup_p95_ms", "Startup time, 95th percentile", "0.95", 200),
    percentile!("startup_p99_ms", "Startup time, 99th percentile", "0.99", 1000),
    Metric {
        name: "startup_mean_ms",
        title: "Startup time, mean",
        unit: Unit::Milliseconds,
        measure: Measure::Ratio {
            numerator: "sum(startup_ms_sum)",
            denominator: "sum(startup_count)",
        },
        min_samples: 20,
        samples: "sum(startup_count)",
        help: "Mean of the same times as the percentiles. A few long starts pull it up: prefer the median, or the histogram, \
               which CTA-2066 asks for.",
        source: STARTUP_SOURCE,
        ..OF_ATTEMPTS
    },
    within!("startup_le_500", "0.5 s"),
    within!("startup_le_1000", "1 s"),
    within!("startup_le_2000", "2 s"),
    within!("startup_le_3000", "3 s"),
    within!("startup_le_4000", "4 s"),
    within!("startup_le_6000", "6 s"),
    within!("startup_le_8000", "8 s"),
    within!("startup_le_10000", "10 s"),
    within!("startup_le_15000", "15 s"),
    within!("startup_le_20000", "20 s"),
    within!("startup_le_30000", "30 s"),
    within!("startup_le_60000", "60 s"),
    Metric {
        name: "startup_gt_60000",
        title: "Started after more than 60 s",
        measure: Measure::Ratio {
            numerator: "sum(startup_gt_60000)",
            denominator: "sum(startup_count)",
        },
        samples: "sum(startup_count)",
        help: "Share of the plays with a known startup time whose startup took more than 60 s. With startup_le_60000 it makes 1.",
        source: "CTA-2066 appendix B (histogram, not mean)",
        ..OF_ATTEMPTS
    },
    Metric {
        name: "never_started_ratio",
        title: "Attempts that never started",
        measure: Measure::Ratio {
            numerator: "sum(exits_before_start) + sum(start_failures)",
            denominator: "sum(attempts)",
        },
        help: "Share of attempts that showed no frame, left or failed; the histogram's last step. Attempts still starting are \
               in the denominator only.",
        source: "CTA-2066 appendix B (histogram, not mean)",
        ..OF_ATTEMPTS
    },
    Metric {
        name: "content_startup_mean_ms",
        title: "Startup time to the content, mean",
        unit: Unit::Milliseconds,
        measure: Measure::Ratio {
            numerator: "sum(content_startup_ms_sum)",
            denominator: "sum(content_startup_count)",
        },
        min_samples: 20,
        samples: "sum(content_startup_count)",
        help: "Mean time from the first request to the first frame of the content itself, less the time that advertisements \
               played. Equals the startup time where no advertisement comes first.",
        source: "Conviva (video startup time), our text",
        ..OF_ATTEMPTS
    },
    Metric {
        name: "ebvs",
        title: "Exits before video start",
        measure: Measure::Plain {
            expression: "sum(exits_before_start)",
        },
        help: "Attempts that showed no frame, met no fatal error, and ended by exit or timeout. Early exits are in it.",
        source: "Conviva (EBVS), R4WG20 issue 4",
        ..COUNT
    },
    Metric {
        name: "ebvs_ratio",
        title: "Exits before video start over attempts",
        measure: Measure::Ratio {
            numerator: "sum(exits_before_start)",
            denominator: "sum(attempts)",
        },
        help: "Share of attempts that were left before the first frame without a fatal error. Early exits are in it; \
               subtract early_exit_ratio to see the patient ones.",
        source: "Conviva (EBVS), R4WG20 issue 4",
        ..OF_ATTEMPTS
    },
    Metric {
        name: "early_exit_ratio",
        title: "Early exits over attempts",
        measure: Measure::Ratio {
            numerator: "sum(early_exits)",
            denominator: "sum(attempts)",
        },
        better: Better::Neither,
        help: "Share of attempts left before the first frame within 1 s of the request: a viewer who changed his mind, hardly \
               one who lost patience. A part of ebvs_ratio; such sessions have no score.",
        source: "Mux (leaves these out of its score), Conviva (short waits)",
        ..OF_ATTEMPTS
    },
    Metric {
        name: "exit_wait_mean_ms",
        title: "Wait at the exit before start, mean",
        unit: Unit::Milliseconds,
        better: Better::Neither,
        measure: Measure::Ratio {
            numerator: "sum(exit_wait_ms_sum)",
            denominator: "sum(exits_before_start)",
        },
        min_samples: 20,
        samples: "sum(exits_before_start)",
        help: "Mean time that viewers had waited when they left before the first frame. Long waits mean patience lost to slow \
               starts; short ones mean browsing.",
        source: "ours",
        ..OF_ATTEMPTS
    },
    Metric {
        name: "exit_wait_p50_ms",
        title: "Wait at the exit before start, median",
        unit: Unit::Milliseconds,
        better: Better::Neither,
        measure: Measure::Quantile {
            sketch: "exit_wait_sketch",
            quantile: "0.5",
        },
        min_samples: 20,
        samples: "sum(exits_before_start)",
        help: "Median time that viewers had waited when they left before the first frame, at most 1 % off.",
        source: "ours",
        ..OF_ATTEMPTS
    },
    Metric {
        name: "vsf",
        title: "Video start failures",
        measure: Measure::Plain {
            expression: "sum(start_failures)",
        },
        help: "Attempts that showed no frame and ended with a fatal error, technical or business. A fatal error that a success \
               follows within the session (10 s) is none.",
        source: "Conviva (VSF), R4WG20 issue 4",
        ..COUNT
    },
    Metric {
        name: "vsf_ratio",
        title: "Video start failures over attempts",
        measure: Measure::Ratio {
            numerator: "sum(start_failures)",
            denominator: "sum(attempts)",
        },
        help: "Share of attempts that a fatal error ended before the first frame, technical and business together.",
        source: "Conviva (VSF), R4WG20 issue 4",
        ..OF_ATTEMPTS
    },
    Metric {
        name: "vsf_t_ratio",
        title: "Technical video start failures over attempts",
        measure: Measure::Ratio {
            numerator: "sum(start_failures) - sum(start_failures_business)",
            denominator: "sum(attempts)",
        },
        help: "Share of attempts that a technical fatal error ended before the first frame. Codes that no rule knows count as \
               technical and are listed as unknown.",
        source: "Conviva (VSF-T)",
        ..OF_ATTEMPTS
    },
    Metric {
        name: "vsf_b_ratio",
        title: "Business video start failures over attempts",
        measure: Measure::Ratio {
            numerator: "sum(start_failures_business)",
            denominator: "sum(attempts)",
        },
        help: "Share of attempts that the service itself refused before the first frame: entitlement or subscription, \
               geo-block, concurrency limit, parental control, expired token, DRM licence refused with 401 or 403.",
        source: "Conviva (VSF-B)",
        ..OF_ATTEMPTS
    },
];
