//! How good the picture is, and how late a live one (events and metrics, 3.7).

use super::{Better, Measure, Metric, Mode, Section, Table, Unit};

/// Playing and stalling, in minutes of one viewer.
const VIEWER_MINUTES: &str = "(sum(playing_ms) + sum(stall_ms)) / 60000";

/// A mean over time, by the windows that the time lies in.
const OVER_TIME: Metric = Metric {
    name: "",
    title: "",
    section: Section::Quality,
    unit: Unit::Kbps,
    better: Better::Higher,
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

/// The same of sessions by their end.
const OF_ENDED: Metric = Metric {
    mode: Mode::End,
    table: Table::Ended,
    samples: "sum(ended_plays)",
    ..OVER_TIME
};

/// A percentile of samples that players send while playing.
const SAMPLED: Metric = Metric {
    unit: Unit::Milliseconds,
    better: Better::Lower,
    mode: Mode::Request,
    table: Table::Latency,
    min_samples: 0,
    samples: "",
    ..OVER_TIME
};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "avg_bitrate_kbps",
        title: "Average bitrate",
        measure: Measure::Ratio {
            numerator: "sum(shown_bits)",
            denominator: "sum(bitrate_known_ms)",
        },
        help: "Shown bitrate (video and audio) x media time over the media time whose bitrate is known. Time before the first \
               known rendition is in neither sum. Where a player never says what it shows, what it requests is taken and \
               bitrate_basis says so. Never a mean of events. CTA-2066's draft multiplies a session by rate and by media \
               time, which would count the rate twice; this follows its aggregate definition.",
        source: "CTA-2066 (average bitrate)",
        ..OVER_TIME
    },
    Metric {
        name: "avg_bitrate_wall_kbps",
        title: "Average bitrate by the wall clock",
        measure: Measure::Ratio {
            numerator: "sum(shown_wall_bits)",
            denominator: "sum(bitrate_known_wall_ms)",
        },
        help: "Shown bitrate weighted by playing time on the wall clock. Differs from avg_bitrate_kbps only where the playback \
               rate is not 1.",
        source: "ours",
        ..OVER_TIME
    },
    Metric {
        name: "start_bitrate_kbps",
        title: "Bitrate of the first picture",
        mode: Mode::Start,
        measure: Measure::Ratio {
            numerator: "sum(start_bitrate_bps_sum) / 1000.0",
            denominator: "sum(start_bitrate_count)",
        },
        samples: "sum(start_bitrate_count)",
        help: "Mean bitrate of the first rendition shown, over plays that tell it. Low with a fast startup is a choice of the \
               player; low with a slow one is a poor connection.",
        source: "ours",
        ..OVER_TIME
    },
    Metric {
        name: "bitrate_ratio",
        title: "Bitrate over the best possible",
        unit: Unit::Ratio,
        measure: Measure::Ratio {
            numerator: "sum(top_shown_bits)",
            denominator: "sum(top_bits)",
        },
        help: "Shown bitrate over the highest bitrate that the player may choose (else the highest of the ladder), both \
               weighted by media time, of ended sessions that know both.",
        source: "CTA-5004-B `tpb` and `tb`",
        ..OF_ENDED
    },
    Metric {
        name: "switches_up_per_hour",
        title: "Changes to a higher bitrate per hour",
        unit: Unit::PerHour,
        better: Better::Neither,
        measure: Measure::Ratio {
            numerator: "sum(switches_up)",
            denominator: "sum(playing_ms) / 3600000.0",
        },
        help: "Changes of the shown video bitrate to a higher value per hour of playing. The initial choice, the edges of \
               advertisements, audio and equal values in a row are no changes.",
        source: "CTA-2066 (rendition switches)",
        ..OVER_TIME
    },
    Metric {
        name: "switches_down_per_hour",
        title: "Changes to a lower bitrate per hour",
        unit: Unit::PerHour,
        better: Better::Lower,
        measure: Measure::Ratio {
            numerator: "sum(switches_down)",
            denominator: "sum(playing_ms) / 3600000.0",
        },
        help: "Changes of the shown video bitrate to a lower value per hour of playing; the same rules as upwards.",
        source: "CTA-2066 (rendition switches)",
        ..OVER_TIME
    },
    Metric {
        name: "avg_height",
        title: "Average picture height",
        unit: Unit::Pixels,
        measure: Measure::Ratio {
            numerator: "sum(height_px_ms)",
            denominator: "sum(height_known_ms)",
        },
        help: "Picture height weighted by the playing time for which it is known.",
        source: "ours",
        ..OVER_TIME
    },
    Metric {
        name: "upscale_pct",
        title: "Upscaling",
        unit: Unit::Percent,
        better: Better::Lower,
        measure: Measure::Ratio {
            numerator: "sum(upscale_ppm_ms) / 10000.0",
            denominator: "sum(upscale_known_ms)",
        },
        help: "By how much the viewport is higher than the picture (never less than 0), weighted by playing time, of ended \
               sessions that tell both. 0: every pixel has its own; 100: a picture of half the height.",
        source: "Mux (upscale percentage)",
        ..OF_ENDED
    },
    Metric {
        name: "dropped_frame_ratio",
        title: "Dropped frames",
        unit: Unit::Ratio,
        better: Better::Lower,
        measure: Measure::Ratio {
            numerator: "sum(dropped_frames)",
            denominator: "sum(expected_frames)",
        },
        help: "Dropped frames over the frames that playing time and frame rate promise, of ended sessions whose frame rate is \
               known.",
        source: "CTA-5004-B `dfa`",
        ..OF_ENDED
    },
    Metric {
        name: "live_latency_p50_ms",
        title: "Behind live, median",
        measure: Measure::Quantile {
            sketch: "live_latency_sketch",
            quantile: "0.5",
        },
        min_samples: 20,
        samples: "sum(live_latency_count)",
        help: "Median of the samples of the time behind the live edge sent while playing, at most 1 % off. Samples below -1 s \
               (a wrong clock) are left out; the rest below 0 count as 0.",
        source: "CTA-5004-B `ltc`",
        ..SAMPLED
    },
    Metric {
        name: "live_latency_p95_ms",
        title: "Behind live, 95th percentile",
        measure: Measure::Quantile {
            sketch: "live_latency_sketch",
            quantile: "0.95",
        },
        min_samples: 200,
        samples: "sum(live_latency_count)",
        help: "95th percentile of the same samples as the median.",
        source: "CTA-5004-B `ltc`",
        ..SAMPLED
    },
    Metric {
        name: "buffer_p5_ms",
        title: "Media in the buffer, 5th percentile",
        better: Better::Higher,
        measure: Measure::Quantile {
            sketch: "buffer_sketch",
            quantile: "0.05",
        },
        min_samples: 200,
        samples: "sum(buffer_count)",
        help: "5th percentile of the buffer lengths that players report, at most 1 % off. Falls before stalls \
               come.",
        source: "CTA-5004-B `bl`",
        ..SAMPLED
    },
    Metric {
        name: "throughput_p50_kbps",
        title: "Throughput that players measure, median",
        unit: Unit::Kbps,
        better: Better::Higher,
        measure: Measure::Quantile {
            sketch: "throughput_sketch",
            quantile: "0.5",
        },
        min_samples: 20,
        samples: "sum(throughput_count)",
        help: "Median of the throughput that players measure and report, at most 1 % off. What the \
               CDN could deliver, not what it did.",
        source: "CTA-5004-B `mtp`",
        ..SAMPLED
    },
];
