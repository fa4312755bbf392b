//! The metric table: every figure that Playhead reports, defined once.
//!
//! The manual, `playhead metrics`, `playhead check`, alert rules and dashboards read it. A metric is
//! a formula over columns of gold tables; the SQL that answers it is made from the formula here.
//!
//! Invariant: a ratio is a ratio of sums, so it may be taken over any rows; a percentile comes from a
//! merged sketch. Nothing averages averages.
//! Invariant: a metric whose formula, edges or attribution change gets a new `def_version`.

mod audience;
mod columns;
mod continuity;
mod delivery;
mod experience;
mod failures;
mod manual;
mod quality;
mod startup;
mod volume;

pub use columns::{ONE_WINDOW, Table};
pub use manual::{SCORE_CHECK, json_of, manual_markdown, manual_text, metric_text, to_json};

/// One figure and all that one must know to read it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    pub name: &'static str,
    pub title: &'static str,
    pub section: Section,
    pub unit: Unit,
    pub better: Better,
    /// Counts changes of the formula, the edges or the attribution.
    pub def_version: u32,
    pub mode: Mode,
    pub measure: Measure,
    pub table: Table,
    /// True where the columns do not add up over windows: coarser tables cannot answer it.
    pub minute_only: bool,
    /// Below this many of `samples` the value is null: a thin group says nothing.
    pub min_samples: u32,
    /// An aggregate expression; empty where `min_samples` is 0.
    pub samples: &'static str,
    /// The exact definition with its edges.
    pub help: &'static str,
    /// The standard or publication that the definition follows.
    pub source: &'static str,
}

/// How the value is worked out; each text is an SQL aggregate expression over gold columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    Plain {
        expression: &'static str,
    },
    /// Null where the denominator is 0.
    Ratio {
        numerator: &'static str,
        denominator: &'static str,
    },
    /// A percentile of merged sketches.
    Quantile {
        sketch: &'static str,
        quantile: &'static str,
    },
    /// A distinct count of merged sketches.
    Distinct {
        sketch: &'static str,
    },
}

/// Subjects in the order of the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    Volume,
    Startup,
    Failures,
    Continuity,
    Audience,
    Quality,
    Delivery,
    Experience,
}

impl Section {
    pub const ALL: [Section; 8] = [
        Section::Volume,
        Section::Startup,
        Section::Failures,
        Section::Continuity,
        Section::Audience,
        Section::Quality,
        Section::Delivery,
        Section::Experience,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Section::Volume => "Volume",
            Section::Startup => "Startup",
            Section::Failures => "Playback failures",
            Section::Continuity => "Continuity",
            Section::Audience => "Audience",
            Section::Quality => "Quality",
            Section::Delivery => "CDN",
            Section::Experience => "Experience score",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    /// 0 to 1.
    Ratio,
    Percent,
    Milliseconds,
    Hours,
    PerHour,
    PerSecond,
    Kbps,
    Mbps,
    Bytes,
    Pixels,
    /// Of 100.
    Points,
}

impl Unit {
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Count => "count",
            Unit::Ratio => "ratio",
            Unit::Percent => "%",
            Unit::Milliseconds => "ms",
            Unit::Hours => "h",
            Unit::PerHour => "1/h",
            Unit::PerSecond => "1/s",
            Unit::Kbps => "kbit/s",
            Unit::Mbps => "Mbit/s",
            Unit::Bytes => "bytes",
            Unit::Pixels => "px",
            Unit::Points => "points",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
    /// Says how much, not how well.
    Neither,
}

impl Better {
    pub fn as_str(self) -> &'static str {
        match self {
            Better::Higher => "higher",
            Better::Lower => "lower",
            Better::Neither => "neither",
        }
    }
}

/// The window that a session or a request is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The window of the first request.
    Start,
    /// Every window, each with the part that lies in it.
    Overlap,
    /// The window of the session's end.
    End,
    /// As `Overlap`, and only the newest window is meant.
    Now,
    /// The window of the event or the CDN request itself.
    Request,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Start => "start",
            Mode::Overlap => "overlap",
            Mode::End => "end",
            Mode::Now => "now",
            Mode::Request => "request",
        }
    }
}

const PARTS: [&[Metric]; 8] = [
    volume::METRICS,
    startup::METRICS,
    failures::METRICS,
    continuity::METRICS,
    audience::METRICS,
    quality::METRICS,
    delivery::METRICS,
    experience::METRICS,
];

const COUNT: usize = {
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        count += PARTS[part].len();
        part += 1;
    }
    count
};

/// Every metric, in the order of the manual.
pub static METRICS: &[Metric] = &{
    let mut all = [volume::METRICS[0]; COUNT];
    let (mut filled, mut part) = (0, 0);
    while part < PARTS.len() {
        let mut at = 0;
        while at < PARTS[part].len() {
            all[filled] = PARTS[part][at];
            filled += 1;
            at += 1;
        }
        part += 1;
    }
    all
};

/// The metric of that name.
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

impl Metric {
    /// The aggregate expression that answers the metric over any rows of one of its tables; null
    /// where the denominator is 0 or the sample too small.
    pub fn sql(&self) -> String {
        match self.min_samples {
            0 => self.value_sql(),
            min => format!("CASE WHEN {} >= {min} THEN {} END", self.samples, self.value_sql()),
        }
    }

    /// The same, however small the sample.
    pub fn value_sql(&self) -> String {
        match self.measure {
            Measure::Plain { expression } => expression.to_owned(),
            Measure::Ratio { numerator, denominator } => {
                format!("CAST({numerator} AS DOUBLE) / nullif(CAST({denominator} AS DOUBLE), 0)")
            }
            Measure::Quantile { sketch, quantile } => format!("sketch_quantile(sketch_merge({sketch}), {quantile})"),
            Measure::Distinct { sketch } => format!("distinct_count(distinct_merge({sketch}))"),
        }
    }

    /// The formula for a reader: what is divided by what.
    pub fn formula(&self) -> String {
        match self.measure {
            Measure::Plain { expression } => expression.to_owned(),
            Measure::Ratio { numerator, denominator } => {
                let side = |text: &str| if is_one_term(text) { text.to_owned() } else { format!("({text})") };
                format!("{} / {}", side(numerator), side(denominator))
            }
            Measure::Quantile { .. } | Measure::Distinct { .. } => self.value_sql(),
        }
    }

    /// The gold tables that can answer it, the finest first.
    pub fn tables(&self) -> Vec<String> {
        let grains = self.table.grains();
        let grains = if self.minute_only { &grains[..1] } else { grains };
        let with_grains = |stem: &&str| grains.iter().map(|grain| format!("{stem}_{grain}")).collect::<Vec<_>>();
        self.table.stems().iter().flat_map(with_grains).collect()
    }
}

fn is_one_term(expression: &str) -> bool {
    !expression.contains(" + ") && !expression.contains(" - ") && !expression.contains(" / ") && !expression.contains(" * ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Functions and words of SQL that a formula may use.
    const WORDS: &[&str] = &[
        "sum",
        "max",
        "min",
        "date_part",
        "nullif",
        "CAST",
        "AS",
        "DOUBLE",
        "CASE",
        "WHEN",
        "THEN",
        "END",
        "sketch_quantile",
        "sketch_merge",
        "distinct_count",
        "distinct_merge",
    ];

    /// What is wrong with an expression over the columns of `table`.
    fn complaints(expression: &str, table: Table) -> Vec<String> {
        let mut found = Vec::new();
        let mut depth = 0;
        for c in expression.chars() {
            depth += i32::from(c == '(') - i32::from(c == ')');
            if depth < 0 {
                found.push("closes a bracket that is not open".to_owned());
                break;
            }
        }
        if depth > 0 {
            found.push("leaves a bracket open".to_owned());
        }
        // Every second piece between quotes is a literal.
        let code: String = expression.split('\'').step_by(2).collect::<Vec<_>>().join(" ");
        for word in code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '.') {
            let is_number = word.parse::<f64>().is_ok();
            let is_known = word.is_empty() || is_number || WORDS.contains(&word) || table.columns().contains(&word);
            if !is_known {
                found.push(format!("{} has no column {word}", table.stems()[0]));
            }
        }
        found
    }

    #[test]
    fn every_formula_reads_columns_that_its_table_has() {
        for metric in METRICS {
            for expression in [metric.sql(), metric.value_sql(), metric.formula()] {
                let complaints = complaints(&expression, metric.table);
                assert!(complaints.is_empty(), "{}: {complaints:?} in {expression}", metric.name);
            }
        }
    }

    #[test]
    fn no_formula_over_coarser_tables_reads_what_they_lack() {
        for metric in METRICS.iter().filter(|metric| metric.tables().len() > metric.table.stems().len()) {
            let sql = metric.sql();
            let lacking = |column: &&&str| sql.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == **column);
            assert_eq!(ONE_WINDOW.iter().find(lacking), None, "{}: {sql}", metric.name);
        }
    }

    #[test]
    fn a_wrong_formula_is_complained_of() {
        let check = |expression: &str, expected: &str| {
            assert_eq!(complaints(expression, Table::Playback), [expected], "{expression}");
        };
        check("sum(stall_ms", "leaves a bracket open");
        check("sum(stall_ms))", "closes a bracket that is not open");
        check("sum(stal_ms)", "gold.playback has no column stal_ms");
        check("sum(viewers)", "gold.playback has no column viewers");
    }

    #[test]
    fn names_are_unique_and_snake_case() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for name in names {
            let is_snake = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            assert!(is_snake && name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
        }
    }

    #[test]
    fn every_metric_is_explained_and_says_where_it_comes_from() {
        for metric in METRICS {
            let name = metric.name;
            assert!(metric.help.len() > 40 && metric.help.ends_with('.'), "{name}: help");
            assert!(!metric.source.is_empty() && !metric.title.is_empty(), "{name}: source or title");
            assert!(metric.def_version > 0, "{name}: version");
            assert_eq!(metric.min_samples == 0, metric.samples.is_empty(), "{name}: smallest sample");
        }
    }

    #[test]
    fn sections_stand_in_the_order_of_the_manual() {
        assert!(METRICS.is_sorted_by_key(|metric| metric.section));
        assert_eq!(METRICS.len(), COUNT);
        let all: BTreeSet<Section> = METRICS.iter().map(|metric| metric.section).collect();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), Section::ALL);
    }

    #[test]
    fn units_end_names_where_the_value_has_one() {
        for metric in METRICS {
            let ending = match metric.unit {
                Unit::Milliseconds => "_ms",
                Unit::Kbps => "_kbps",
                Unit::Mbps => "_mbps",
                Unit::Hours => "_h",
                Unit::PerHour => "_per_hour",
                _ => continue,
            };
            assert!(metric.name.ends_with(ending), "{}", metric.name);
        }
    }

    #[test]
    fn columns_are_named_once_a_table() {
        for table in Table::ALL {
            let names: BTreeSet<&str> = table.columns().iter().copied().collect();
            assert_eq!(names.len(), table.columns().len(), "{table:?}");
        }
    }

    #[test]
    fn a_ratio_is_null_without_a_denominator_or_a_sample() {
        let metric = find("rebuffer_ratio").expect("it is in the table");
        assert_eq!(metric.formula(), "sum(stall_ms) / (sum(playing_ms) + sum(stall_ms))");
        let value = "CAST(sum(stall_ms) AS DOUBLE) / nullif(CAST(sum(playing_ms) + sum(stall_ms) AS DOUBLE), 0)";
        assert_eq!(metric.value_sql(), value);
        assert_eq!(
            metric.sql(),
            format!("CASE WHEN (sum(playing_ms) + sum(stall_ms)) / 60000 >= 50 THEN {value} END")
        );
        assert_eq!(metric.tables()[..2], ["gold.playback_1m", "gold.playback_5m"]);
        assert_eq!(find("rebuffering"), None);
    }

    #[test]
    fn a_percentile_comes_from_a_merged_sketch() {
        let metric = find("startup_p95_ms").expect("it is in the table");
        let value = "sketch_quantile(sketch_merge(startup_sketch), 0.95)";
        assert_eq!(metric.sql(), format!("CASE WHEN sum(startup_count) >= 200 THEN {value} END"));
    }
}
