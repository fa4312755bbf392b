//! Whether playing goes on (events and metrics, 3.5).

use super::{Better, Measure, Metric, Mode, Section, Table, Unit};

/// Playing and stalling, in minutes of one viewer.
const VIEWER_MINUTES: &str = "(sum(playing_ms) + sum(stall_ms)) / 60000";

/// A share of time, by the windows that the time lies in.
const OF_TIME: Metric = Metric {
    name: "",
    title: "",
    section: Section::Continuity,
    unit: Unit::Ratio,
    better: Better::Lower,
    def_version: 1,
    mode: Mode::Overlap,
    measure: Measure::Plain { expression: "" },
    table: Table::Playback,
    minute_only: false,
    min_samples: 50,
    samples: VIEWER_MINUTES,
    help: "",
    source: "",
};

/// A share of plays that ended.
const OF_ENDED_PLAYS: Metric = Metric {
    mode: Mode::End,
    table: Table::Ended,
    samples: "sum(ended_plays)",
    ..OF_TIME
};

/// The length of single stalls.
const STALL_LENGTH: Metric = Metric {
    unit: Unit::Milliseconds,
    samples: "sum(stall_length_count)",
    ..OF_TIME
};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "rebuffer_ratio",
        title: "Rebuffering ratio",
        measure: Measure::Ratio {
            numerator: "sum(stall_ms)",
            denominator: "sum(playing_ms) + sum(stall_ms)",
        },
        help: "Stall time over playing and stall time. All stalls after the first frame but those that a seek caused (begun \
               within 1 s after playing resumed from one); time in the background, startup and waiting for a seek are in \
               neither sum. A stall across a window's end counts in both windows with its part. An open stall counts up to the \
               watermark and is set right when its end comes.",
        source: "Puffer (NSDI 2020), Conviva (rebuffering ratio)",
        ..OF_TIME
    },
    Metric {
        name: "rebuffer_ratio_conn",
        title: "Connection-induced rebuffering ratio",
        measure: Measure::Ratio {
            numerator: "sum(stall_conn_ms)",
            denominator: "sum(playing_ms) + sum(stall_conn_ms)",
        },
        help: "Connection-induced stall time over playing and that stall time. Connection-induced (our definition) is a stall \
               not caused by a seek, not within 1 s of an advertisement's start or end, not with 5 s or more in every \
               buffer, not within 1 s of a change of rendition or rate, not within 1 s of the natural end. Each class \
               left out has a column of its own, and all classes add up to stall_ms.",
        source: "ours, after Conviva (CIRR)",
        ..OF_TIME
    },
    Metric {
        name: "stalled_time_pct_cta2066",
        title: "Stalled time percentage of CTA-2066",
        unit: Unit::Percent,
        measure: Measure::Ratio {
            numerator: "100.0 * sum(ended_stall_ms)",
            denominator: "sum(watched_ms)",
        },
        samples: "sum(ended_sessions)",
        help: "Stall time over watched time of the sessions that ended in the window. Watched time holds startup and seeks \
               too, so the figure is lower than the rebuffering ratio of the same sessions.",
        source: "CTA-2066 (normative)",
        ..OF_ENDED_PLAYS
    },
    Metric {
        name: "wait_ratio",
        title: "Waiting ratio",
        measure: Measure::Ratio {
            numerator: "sum(startup_wait_ms) + sum(stall_ms) + sum(seek_wait_ms)",
            denominator: "sum(startup_wait_ms) + sum(stall_ms) + sum(seek_wait_ms) + sum(playing_ms)",
        },
        help: "Everything that viewers waited for (startup, stalls, seeks) over that and playing time. The headline figure for \
               short clips, where startup weighs more than stalls.",
        source: "R4WG20 issue 6",
        ..OF_TIME
    },
    Metric {
        name: "rebuffer_frequency_per_hour",
        title: "Stalls per hour",
        unit: Unit::PerHour,
        measure: Measure::Ratio {
            numerator: "sum(stall_count)",
            denominator: "(sum(playing_ms) + sum(stall_ms)) / 3600000.0",
        },
        help: "Stalls that began in the window, seek-induced ones left out, per hour of playing and stalling. Any length \
               counts (smallest stall 0 ms in version 1); a stall that an open window cuts counts where it began.",
        source: "CTA-2066 (stalled count), Conviva (rebuffering frequency)",
        ..OF_TIME
    },
    Metric {
        name: "stall_duration_p50_ms",
        title: "Length of a stall, median",
        measure: Measure::Quantile {
            sketch: "stall_length_sketch",
            quantile: "0.5",
        },
        min_samples: 20,
        help: "Median length of single stalls that are over, seek-induced ones left out; at most 1 % off. An open stall enters \
               when it ends.",
        source: "CTA-2066 (stalled duration)",
        ..STALL_LENGTH
    },
    Metric {
        name: "stall_duration_p95_ms",
        title: "Length of a stall, 95th percentile",
        measure: Measure::Quantile {
            sketch: "stall_length_sketch",
            quantile: "0.95",
        },
        min_samples: 200,
        help: "95th percentile of the length of single stalls that are over, seek-induced ones left out; at most 1 % off.",
        source: "CTA-2066 (stalled duration)",
        ..STALL_LENGTH
    },
    Metric {
        name: "stall_duration_mean_ms",
        title: "Length of a stall, mean",
        measure: Measure::Ratio {
            numerator: "sum(stall_length_ms_sum)",
            denominator: "sum(stall_length_count)",
        },
        min_samples: 20,
        help: "Mean length of single stalls that are over, seek-induced ones left out; an open stall enters when it ends. A few long \
               stalls pull it up: read the percentiles too.",
        source: "CTA-2066 (stalled duration)",
        ..STALL_LENGTH
    },
    Metric {
        name: "sessions_with_stall_ratio",
        title: "Plays with a stall",
        measure: Measure::Ratio {
            numerator: "sum(sessions_with_stall)",
            denominator: "sum(ended_plays)",
        },
        help: "Share of the plays that ended in the window with at least one stall, seek-induced ones left out.",
        source: "CTA-2066 (sessions with stalls)",
        ..OF_ENDED_PLAYS
    },
    Metric {
        name: "abandoned_in_stall_ratio",
        title: "Plays left while stalling",
        measure: Measure::Ratio {
            numerator: "sum(abandoned_in_stall)",
            denominator: "sum(ended_plays)",
        },
        help: "Share of the plays that ended in the window whose last state was rebuffering: the viewer gave up, or the player \
               fell silent. Of a silent one the stall is counted to the last evidence and one heartbeat more (at most \
               120 s), and flagged.",
        source: "ours",
        ..OF_ENDED_PLAYS
    },
];
