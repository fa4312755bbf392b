//! The experience score of sessions and what took it down (events and metrics, 3.9).

use super::{Better, Measure, Metric, Mode, Section, Table, Unit};

/// A mean over scored sessions by their end.
const OF_SCORED: Metric = Metric {
    name: "",
    title: "",
    section: Section::Experience,
    unit: Unit::Points,
    better: Better::Higher,
    def_version: 1,
    mode: Mode::End,
    measure: Measure::Plain { expression: "" },
    table: Table::Ended,
    minute_only: false,
    min_samples: 50,
    samples: "sum(score_count)",
    help: "",
    source: "ours; Krishnan and Sitaraman, IMC 2012, for startup and stall time",
};

macro_rules! loss {
    ($name:literal, $column:literal, $title:literal, $help:literal) => {
        Metric {
            name: $name,
            title: $title,
            better: Better::Lower,
            measure: Measure::Ratio {
                numerator: concat!("sum(", $column, ")"),
                denominator: "sum(score_count)",
            },
            help: concat!(
                "Points of 100 that sessions lost on average to ",
                $help,
                ". With score_mean the five losses make 100."
            ),
            ..OF_SCORED
        }
    };
}

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "score_mean",
        title: "Experience score, mean",
        measure: Measure::Ratio {
            numerator: "sum(score_sum)",
            denominator: "sum(score_count)",
        },
        help: "Mean experience score, 0 to 100, of the sessions that ended in the window and have one. None have: business \
               failures, early exits, bots, sessions of which less than 1 s is known. docs/metrics.md has the formula and what it is worth.",
        ..OF_SCORED
    },
    Metric {
        name: "score_p10",
        title: "Experience score, 10th percentile",
        measure: Measure::Quantile {
            sketch: "score_sketch",
            quantile: "0.1",
        },
        min_samples: 100,
        help: "The score that nine sessions of ten reach, in whole points and at most 1 % off. Shows the unlucky whom a mean hides.",
        ..OF_SCORED
    },
    Metric {
        name: "score_p50",
        title: "Experience score, median",
        measure: Measure::Quantile {
            sketch: "score_sketch",
            quantile: "0.5",
        },
        min_samples: 20,
        help: "The score that half of the sessions reach, in whole points and at most 1 % off.",
        ..OF_SCORED
    },
    Metric {
        name: "good_session_ratio",
        title: "Good sessions",
        unit: Unit::Ratio,
        measure: Measure::Ratio {
            numerator: "sum(good_sessions)",
            denominator: "sum(score_count)",
        },
        help: "Share of the scored sessions that meet every threshold: startup at most 5 s, connection-induced stall ratio at \
               most 0.4 %, no technical failure, wait at an exit at most 10 s, average bitrate at least 365 kbit/s on a phone, \
               2000 kbit/s on a television set or console, 730 kbit/s on anything else. An unknown figure breaks none.",
        source: "ours, after Conviva (SPI)",
        ..OF_SCORED
    },
    loss!(
        "loss_availability_mean",
        "loss_availability_sum",
        "Points lost to availability",
        "failures and exits before start"
    ),
    loss!(
        "loss_startup_mean",
        "loss_startup_sum",
        "Points lost to startup",
        "waiting for the first frame"
    ),
    loss!(
        "loss_stall_time_mean",
        "loss_stall_time_sum",
        "Points lost to stall time",
        "the time that connection-induced stalls took"
    ),
    loss!(
        "loss_interruptions_mean",
        "loss_interruptions_sum",
        "Points lost to interruptions",
        "the number of connection-induced stalls"
    ),
    loss!(
        "loss_picture_mean",
        "loss_picture_sum",
        "Points lost to the picture",
        "a bitrate below the best and changes to lower ones"
    ),
];
