//! Who is there, and how far they get (events and metrics, 3.6).

use super::{Better, Measure, Metric, Mode, Section, Table, Unit};

/// A number of sessions in the window.
const PRESENT: Metric = Metric {
    name: "",
    title: "",
    section: Section::Audience,
    unit: Unit::Count,
    better: Better::Neither,
    def_version: 1,
    mode: Mode::Overlap,
    measure: Measure::Plain { expression: "" },
    table: Table::Audience,
    minute_only: false,
    min_samples: 0,
    samples: "",
    help: "",
    source: "",
};

/// A share of sessions by their end.
const OF_ENDED: Metric = Metric {
    unit: Unit::Ratio,
    better: Better::Higher,
    mode: Mode::End,
    table: Table::Ended,
    min_samples: 50,
    samples: "sum(ended_plays)",
    ..PRESENT
};

macro_rules! quartile {
    ($name:literal, $column:literal, $title:literal, $help:literal) => {
        Metric {
            name: $name,
            title: $title,
            measure: Measure::Ratio {
                numerator: concat!("sum(", $column, ")"),
                denominator: "sum(quartile_known)",
            },
            samples: "sum(quartile_known)",
            help: $help,
            source: "VAST quartiles, with our rule against seeks",
            ..OF_ENDED
        }
    };
}

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "concurrent_peak",
        title: "Concurrent plays, peak",
        measure: Measure::Plain {
            expression: "max(concurrent_peak)",
        },
        help: "Most sessions active at one instant of the window. Active: first frame shown, and playing, rebuffering, seeking or in an \
               advertisement; paused and background are not. A session that falls silent stays active for one and a half \
               heartbeats. A peak does not add up: gold.concurrency has that of the whole service, gold.audience that of one \
               content, stream type and country; over several of its rows this is the largest single peak, not the \
               peak of all.",
        source: "ours",
        ..PRESENT
    },
    Metric {
        name: "concurrent_paused_peak",
        title: "Concurrent paused sessions, peak",
        measure: Measure::Plain {
            expression: "max(concurrent_paused_peak)",
        },
        help: "Most sessions paused at one instant of the window. They hold a seat and no bandwidth, hence are apart from \
               concurrent_peak. Does not add up over contents, stream types or countries.",
        source: "ours",
        ..PRESENT
    },
    Metric {
        name: "concurrent_avg",
        title: "Concurrent plays, average",
        measure: Measure::Ratio {
            numerator: "sum(active_ms) / 1000.0",
            denominator: "date_part('epoch', max(window_end)) - date_part('epoch', min(window_start))",
        },
        help: "Active time of all sessions over the length of time that the rows span, first window's start to last window's \
               end. Adds up over contents, countries and windows, unlike the peak.",
        source: "ours",
        ..PRESENT
    },
    Metric {
        name: "concurrent_now",
        title: "Concurrent plays, now",
        mode: Mode::Now,
        measure: Measure::Plain {
            expression: "sum(active_ms) / 60000.0",
        },
        minute_only: true,
        help: "Average concurrency of the newest minute; ask it of the newest window alone. Falls to 0 when nothing arrives, \
               for a session that is silent for one and a half heartbeats is active no more.",
        source: "ours",
        ..PRESENT
    },
    Metric {
        name: "sessions_in_window",
        title: "Sessions in the window",
        measure: Measure::Plain {
            expression: "sum(sessions_in_window)",
        },
        minute_only: true,
        help: "Different sessions that did anything in the minute. Not the concurrency: two that follow each other count as \
               two. Over several minutes a session counts once in each.",
        source: "CloudFront CMCD dashboard (called concurrent plays there)",
        ..PRESENT
    },
    quartile!(
        "quartile_25",
        "quartile_25",
        "Reached a quarter",
        "Share of ended plays of known length that played through a quarter of it: unique media covered reached it, or the \
         playhead stood past it after at least 1 s of playing there. A seek alone does not reach. Live is left out."
    ),
    quartile!(
        "quartile_50",
        "quartile_50",
        "Reached half",
        "Share of ended plays of known length that played through half of it; the same rule as quartile_25."
    ),
    quartile!(
        "quartile_75",
        "quartile_75",
        "Reached three quarters",
        "Share of ended plays of known length that played through three quarters of it; the same rule as quartile_25."
    ),
    quartile!(
        "quartile_100",
        "quartile_100",
        "Reached the end",
        "Share of ended plays of known length that finished, or whose playhead came within 2 s or 1 % of the end, whichever \
         is more."
    ),
    Metric {
        name: "completion_ratio",
        title: "Completion, by media time",
        measure: Measure::Ratio {
            numerator: "sum(covered_ms)",
            denominator: "sum(covered_duration_ms)",
        },
        samples: "sum(completion_count)",
        help: "Different media played over the length of the media, of the sessions of known length that ended in the window. \
               What is watched twice counts once, so it never exceeds 1. Long titles weigh more than short ones.",
        source: "CTA-2066 (completion), ours",
        ..OF_ENDED
    },
    Metric {
        name: "mean_session_completion_ratio",
        title: "Completion, mean of sessions",
        measure: Measure::Ratio {
            numerator: "sum(completion_ppm_sum) / 1e6",
            denominator: "sum(completion_count)",
        },
        samples: "sum(completion_count)",
        help: "Mean over sessions of the share of the media that each covered: every session weighs the same.",
        source: "CTA-2066 (completion), ours",
        ..OF_ENDED
    },
    Metric {
        name: "finished_ratio",
        title: "Finished plays over ended plays",
        measure: Measure::Ratio {
            numerator: "sum(finished_plays)",
            denominator: "sum(ended_plays)",
        },
        help: "Share of the plays that ended in the window which played to the natural end.",
        source: "ours",
        ..OF_ENDED
    },
    Metric {
        name: "paused_then_finished",
        title: "Paused, then finished",
        measure: Measure::Ratio {
            numerator: "sum(paused_then_finished)",
            denominator: "sum(deliberate_pause_plays)",
        },
        samples: "sum(deliberate_pause_plays)",
        help: "Share of the plays with a deliberate pause that finished all the same. Deliberate: at least 1 s long, not within \
               1 s before the end, not part of a scrub (pause, seek, play within 1 s).",
        source: "ours, after the AWS reference solution",
        ..OF_ENDED
    },
    Metric {
        name: "paused_not_finished",
        title: "Paused and not finished",
        better: Better::Lower,
        measure: Measure::Ratio {
            numerator: "sum(deliberate_pause_plays) - sum(paused_then_finished)",
            denominator: "sum(deliberate_pause_plays)",
        },
        samples: "sum(deliberate_pause_plays)",
        help: "Share of the plays with a deliberate pause that did not finish. With paused_then_finished it makes 1.",
        source: "ours, after the AWS reference solution",
        ..OF_ENDED
    },
    Metric {
        name: "finished_without_pause",
        title: "Finished without a pause",
        measure: Measure::Ratio {
            numerator: "sum(finished_without_pause)",
            denominator: "sum(ended_plays) - sum(deliberate_pause_plays)",
        },
        samples: "sum(ended_plays) - sum(deliberate_pause_plays)",
        help: "Share of the ended plays without a deliberate pause that finished: what paused_then_finished is to be compared \
               with.",
        source: "ours, after the AWS reference solution",
        ..OF_ENDED
    },
];
