//! How much was tried, shown and watched (events and metrics, 3.2).

use super::{Better, Measure, Metric, Mode, Section, Table, Unit};

/// A count of sessions by their start.
const BY_START: Metric = Metric {
    name: "",
    title: "",
    section: Section::Volume,
    unit: Unit::Count,
    better: Better::Neither,
    def_version: 1,
    mode: Mode::Start,
    measure: Measure::Plain { expression: "" },
    table: Table::Playback,
    minute_only: false,
    min_samples: 0,
    samples: "",
    help: "",
    source: "",
};

/// Time, in hours, by the windows that it lies in.
const HOURS: Metric = Metric {
    unit: Unit::Hours,
    mode: Mode::Overlap,
    ..BY_START
};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "attempts",
        title: "Attempts to play",
        measure: Measure::Plain {
            expression: "sum(attempts)",
        },
        help: "Sessions with at least one intent to play; a first frame implies one. Autoplay counts. Preloading alone, \
               a resume, a replay after the end within the session and scrubbing do not add one. \
               Always: attempts = plays + ebvs + vsf + open_attempts.",
        source: "CTA-2066 (playback request), Conviva (attempts)",
        ..BY_START
    },
    Metric {
        name: "plays",
        title: "Plays",
        measure: Measure::Plain { expression: "sum(plays)" },
        help: "Attempts that showed at least one frame of any media, an advertisement included.",
        source: "CTA-2066 (playback start)",
        ..BY_START
    },
    Metric {
        name: "content_plays",
        title: "Plays that reached the content",
        measure: Measure::Plain {
            expression: "sum(content_plays)",
        },
        help: "Attempts that showed at least one frame of the content itself. Less plays it is the number of viewers who \
               left during the advertisements before it.",
        source: "CTA-2066 (playback start), content only",
        ..BY_START
    },
    Metric {
        name: "open_attempts",
        title: "Attempts still starting",
        measure: Measure::Plain {
            expression: "sum(open_attempts)",
        },
        help: "Attempts that the watermark finds still starting: neither shown, left nor failed. They become one of the \
               three when later events or the timeout decide, and the window is written again.",
        source: "ours; closes the identity of attempts",
        ..BY_START
    },
    Metric {
        name: "preloaded_ratio",
        title: "Plays that were preloaded",
        unit: Unit::Ratio,
        measure: Measure::Ratio {
            numerator: "sum(preloaded_plays)",
            denominator: "sum(plays)",
        },
        min_samples: 50,
        samples: "sum(plays)",
        help: "Share of plays whose player was loading before the intent to play. Their startup is short for that reason \
               and stays in the startup figures; look here before praising a release for its startup.",
        source: "CTA-5004-B `sta=d`",
        ..BY_START
    },
    Metric {
        name: "play_time_h",
        title: "Playing time",
        measure: Measure::Plain {
            expression: "sum(playing_ms) / 3600000.0",
        },
        help: "Hours in which frames of the content moved, on the wall clock and whatever the playback rate. Stalls, pauses, \
               seeks and advertisements are not in it.",
        source: "CTA-2066 (playing state)",
        ..HOURS
    },
    Metric {
        name: "ad_time_h",
        title: "Advertisement time",
        measure: Measure::Plain {
            expression: "sum(ad_ms) / 3600000.0",
        },
        help: "Hours in which an advertisement played. In no other time.",
        source: "ours",
        ..HOURS
    },
    Metric {
        name: "watched_time_h",
        title: "Watched time",
        mode: Mode::End,
        measure: Measure::Plain {
            expression: "sum(watched_ms) / 3600000.0",
        },
        table: Table::Ended,
        help: "Hours from each request to the next pause, end or failure, of the sessions that ended in the window. Startup, \
               stalls and seeks are in it, pauses are not: a 60 s clip with a 10 s stall and a 30 s pause is 70 s; \
               at half speed without either it is 120 s.",
        source: "CTA-2066 watched time",
        ..HOURS
    },
    Metric {
        name: "unique_viewers",
        title: "Unique viewers",
        mode: Mode::Overlap,
        measure: Measure::Distinct { sketch: "viewers_sketch" },
        table: Table::Audience,
        help: "Different viewers (user, else device, else session) who did anything in the window, estimated from merged HyperLogLog \
               sketches of 16384 registers: standard error 0.81 %. May be taken over any rows, for sketches are merged; the \
               figures themselves must not be added.",
        source: "ours; Flajolet et al. 2007, Ertl 2017",
        ..BY_START
    },
    Metric {
        name: "ended_plays",
        title: "Plays that ended",
        mode: Mode::End,
        measure: Measure::Plain {
            expression: "sum(ended_plays)",
        },
        table: Table::Ended,
        help: "Plays whose session ended in the window by finish, exit, failure or timeout. What playback failures, quartiles \
               and completion are over.",
        source: "Conviva (ended plays)",
        ..BY_START
    },
    Metric {
        name: "anomalies",
        title: "Reported lengths out of bounds",
        better: Better::Lower,
        mode: Mode::End,
        measure: Measure::Plain {
            expression: "sum(anomalies)",
        },
        table: Table::Ended,
        help: "Reported values that no sum uses because they cannot be: a stall over 30 min, a startup over 10 min, a bitrate \
               over 200000 kbit/s, a negative length. Rising after a release means the player reports nonsense.",
        source: "ours",
        ..BY_START
    },
];
