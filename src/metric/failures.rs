//! Errors after the first frame, and errors by client (events and metrics, 3.4).

use super::{Better, Measure, Metric, Mode, Section, Table, Unit};

/// A share of plays that ended.
const OF_ENDED_PLAYS: Metric = Metric {
    name: "",
    title: "",
    section: Section::Failures,
    unit: Unit::Ratio,
    better: Better::Lower,
    def_version: 1,
    mode: Mode::End,
    measure: Measure::Plain { expression: "" },
    table: Table::Ended,
    minute_only: false,
    min_samples: 50,
    samples: "sum(ended_plays)",
    help: "",
    source: "",
};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "vpf",
        title: "Video playback failures",
        unit: Unit::Count,
        measure: Measure::Plain {
            expression: "sum(playback_failures)",
        },
        min_samples: 0,
        samples: "",
        help: "Plays that an unrecovered fatal error ended after the first frame.",
        source: "Conviva (VPF)",
        ..OF_ENDED_PLAYS
    },
    Metric {
        name: "vpf_ratio",
        title: "Video playback failures over ended plays",
        measure: Measure::Ratio {
            numerator: "sum(playback_failures)",
            denominator: "sum(ended_plays)",
        },
        help: "Share of the plays that ended in the window which an unrecovered fatal error ended. An error after which \
               playing went on within 10 s is recovered and does not count.",
        source: "Conviva (VPF)",
        ..OF_ENDED_PLAYS
    },
    Metric {
        name: "vpf_t_ratio",
        title: "Technical video playback failures over ended plays",
        measure: Measure::Ratio {
            numerator: "sum(playback_failures) - sum(playback_failures_business)",
            denominator: "sum(ended_plays)",
        },
        help: "The part of vpf_ratio that is technical; codes that no rule knows count as technical.",
        source: "Conviva (VPF-T)",
        ..OF_ENDED_PLAYS
    },
    Metric {
        name: "vpf_b_ratio",
        title: "Business video playback failures over ended plays",
        measure: Measure::Ratio {
            numerator: "sum(playback_failures_business)",
            denominator: "sum(ended_plays)",
        },
        help: "The part of vpf_ratio in which the service itself ended the play, for example at a concurrency limit or when \
               a token expired.",
        source: "Conviva (VPF-B)",
        ..OF_ENDED_PLAYS
    },
    Metric {
        name: "playback_failure_pct_cta2066",
        title: "Playback failure percentage of CTA-2066",
        unit: Unit::Percent,
        measure: Measure::Ratio {
            numerator: "100.0 * sum(fatal_sessions)",
            denominator: "sum(ended_sessions)",
        },
        samples: "sum(ended_sessions)",
        help: "Percentage of all sessions that ended in the window which a fatal error ended, before or after the first frame. \
               Unlike vsf_ratio and vpf_ratio it does not ask whether the viewer saw anything.",
        source: "CTA-2066 Playback Failure Percentage",
        ..OF_ENDED_PLAYS
    },
    Metric {
        name: "error_rate_app",
        title: "Clients with a fatal error over clients",
        mode: Mode::Overlap,
        measure: Measure::Ratio {
            numerator: "sum(clients_with_errors)",
            denominator: "sum(clients)",
        },
        table: Table::Errors,
        samples: "sum(clients)",
        help: "Share of the different clients (device, else user, else session) with at least one fatal error, by app and \
               release. One client with a hundred errors counts once. Exact within one minute; over several minutes a \
               client counts once in each. Null under 50 clients.",
        source: "ours",
        ..OF_ENDED_PLAYS
    },
    Metric {
        name: "warnings_per_hour",
        title: "Warnings per hour of play",
        unit: Unit::PerHour,
        measure: Measure::Ratio {
            numerator: "sum(warnings)",
            denominator: "sum(ended_playing_ms) / 3600000.0",
        },
        samples: "sum(ended_sessions)",
        help: "Errors that broke nothing, per hour of playing of the sessions that ended in the window. The same code again \
               within 10 s counts once.",
        source: "ours",
        ..OF_ENDED_PLAYS
    },
    Metric {
        name: "errors_per_hour",
        title: "Errors per hour of play",
        unit: Unit::PerHour,
        measure: Measure::Ratio {
            numerator: "sum(errors)",
            denominator: "sum(ended_playing_ms) / 3600000.0",
        },
        samples: "sum(ended_sessions)",
        help: "All error events (those that ended a session, those that were recovered, and warnings) per hour of playing of the \
               sessions that ended in the window. A code repeated at once counts each time, unlike in warnings_per_hour.",
        source: "ours",
        ..OF_ENDED_PLAYS
    },
];
