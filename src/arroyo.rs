//! Pipelines for an Arroyo cluster: the text that it gets, and the REST calls that bring it there.
//!
//! Stands beside the lake, not on it: the shell hands over what each pipeline reads and writes as plain
//! lists. `text` writes declarations around the query file, `cluster` speaks Arroyo's REST API, `deploy`
//! finds out what differs and changes it as a whole or not at all; `results` reads what comes back.
//!
//! ```text
//! pipelines/x.sql + silver's columns + gold's columns  ->  text  ->  REST body  ->  cluster
//! cluster  ->  playhead.gold.x  ->  results  ->  rollup::collect
//! ```
//!
//! Invariant: the query file is in the text byte for byte, between our declarations and its end; only its unions stand before it.
//! Invariant: the same files, columns and settings give the same text and the same fingerprint.

pub mod cluster;
pub mod deploy;
pub mod results;
mod text;

use sha2::{Digest, Sha256};

/// A column as Arroyo declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub sql_type: &'static str,
    pub is_required: bool,
}

/// One silver table that a pipeline reads, under the name and by the time that it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `playback_intervals` of `silver.playback_intervals`.
    pub name: String,
    pub time_column: String,
    pub columns: Vec<Column>,
}

/// One pipeline, as plain lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Name of the file and of the gold table, without layer.
    pub name: String,
    /// Name and text of what the query reads by name.
    pub views: Vec<(String, String)>,
    /// The file, byte for byte but for what is in `views`.
    pub query: String,
    pub sources: Vec<Source>,
    /// Columns of the SELECT, in its order.
    pub sink: Vec<Column>,
    /// Name and text of the functions that the query calls.
    pub functions: Vec<(String, String)>,
}

/// What the cluster is told besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Kafka brokers as the cluster's workers reach them, `host:9092,...`.
    pub brokers: String,
    /// What topics begin with: `playhead` gives `playhead.silver.cdn_requests`.
    pub topics: String,
    pub parallelism: u64,
    pub checkpoint_every_ms: u64,
    /// How long a window waits for late rows, as the daemon's own.
    pub lateness_ms: u64,
}

/// One pipeline as it goes to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub name: String,
    /// Declarations, query file, end.
    pub text: String,
    pub functions: Vec<(String, String)>,
    /// Of text and functions: another one is another pipeline.
    pub fingerprint: String,
    pub parallelism: u64,
    pub checkpoint_every_ms: u64,
}

/// Column of a result that is also its key: the window's start as text.
pub const WINDOW_KEY: &str = "playhead_window";
/// Column of a result that tells which text made it: the fingerprint.
pub const MADE_BY: &str = "playhead_text";

/// Topic that the results of a pipeline go to.
pub fn results_topic(topics: &str, pipeline: &str) -> String {
    format!("{topics}.gold.{pipeline}")
}

/// Hex digits of a fingerprint: 64 bits tell the texts of one pipeline apart.
const FINGERPRINT_DIGITS: usize = 16;

impl Program {
    pub fn new(unit: &Unit, settings: &Settings) -> Program {
        let mut digest = Sha256::new();
        digest.update(text::declarations(unit, settings, "").as_bytes());
        digest.update(unit.query.as_bytes());
        for (name, text) in &unit.functions {
            digest.update(format!("\0{name}\0{text}").as_bytes());
        }
        let digits: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let fingerprint = digits[..FINGERPRINT_DIGITS].to_string();
        // The consumer group is named by the text, for its progress is another one.
        let head = text::declarations(unit, settings, &fingerprint);
        Program {
            name: unit.name.clone(),
            text: format!("{head}{}{}", unit.query, text::END),
            functions: unit.functions.clone(),
            fingerprint,
            parallelism: settings.parallelism,
            checkpoint_every_ms: settings.checkpoint_every_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn column(name: &str, sql_type: &'static str) -> Column {
        Column {
            name: name.to_string(),
            sql_type,
            is_required: false,
        }
    }

    fn unit(query: &str) -> Unit {
        let event_ts = Column {
            is_required: true,
            ..column("event_ts", "TIMESTAMP")
        };
        Unit {
            name: "cdn_1m".to_string(),
            views: Vec::new(),
            query: query.to_string(),
            sources: vec![Source {
                name: "cdn_requests".to_string(),
                time_column: "event_ts".to_string(),
                columns: vec![event_ts, column("cdn", "TEXT")],
            }],
            sink: vec![column("window_start", "TIMESTAMP"), column("cdn", "TEXT")],
            functions: Vec::new(),
        }
    }

    fn settings() -> Settings {
        Settings {
            brokers: "broker:9092".to_string(),
            topics: "playhead".to_string(),
            parallelism: 2,
            checkpoint_every_ms: 10_000,
            lateness_ms: 60_000,
        }
    }

    const QUERY: &str = "-- What; \u{e9}\nSELECT window.start AS window_start, cdn\nFROM (...) AS minutes\n";

    #[test]
    fn the_query_file_is_in_the_text_byte_for_byte() {
        let program = Program::new(&unit(QUERY), &settings());
        assert!(
            program.text.ends_with(&format!("\nFROM (\n{QUERY}\n) AS made\n;\n")),
            "{}",
            program.text
        );
    }

    #[test]
    fn what_the_query_reads_by_name_stands_before_it_and_is_part_of_the_fingerprint() {
        let plain = unit(QUERY);
        let views = vec![("facts".to_string(), "SELECT 1 UNION ALL SELECT 2".to_string())];
        let program = Program::new(&Unit { views, ..plain.clone() }, &settings());
        let view = "CREATE VIEW facts AS\nSELECT 1 UNION ALL SELECT 2;\n\nINSERT INTO gold_cdn_1m\n";
        assert!(program.text.contains(view), "{}", program.text);
        assert_ne!(program.fingerprint, Program::new(&plain, &settings()).fingerprint);
    }

    #[test]
    fn a_source_is_declared_under_both_of_its_names_with_its_watermark() {
        let program = Program::new(&unit(QUERY), &settings());
        for name in ["silver.cdn_requests", "cdn_requests"] {
            let declared = format!(
                "CREATE TABLE {name} (\n  event_ts TIMESTAMP NOT NULL,\n  cdn TEXT,\n  WATERMARK FOR event_ts AS event_ts - INTERVAL '60 seconds'\n) WITH ("
            );
            assert!(program.text.contains(&declared), "{}", program.text);
        }
        assert!(program.text.contains("topic = 'playhead.silver.cdn_requests'"), "{}", program.text);
        assert!(program.text.contains("topic = 'playhead.gold.cdn_1m'"), "{}", program.text);
        // Each of the two from the beginning: another text computes everything anew.
        assert_eq!(program.text.matches("'source.offset' = 'earliest'").count(), 2, "{}", program.text);
    }

    #[test]
    fn each_result_says_which_text_made_it_and_has_its_window_as_key() {
        let program = Program::new(&unit(QUERY), &settings());
        let insert = format!(
            "INSERT INTO gold_cdn_1m\nSELECT window_start, cdn, CAST(window_start AS TEXT) AS playhead_window, '{}' AS playhead_text\n",
            program.fingerprint
        );
        assert!(program.text.contains(&insert), "{}", program.text);
        assert!(program.text.contains("'sink.key_field' = 'playhead_window'"), "{}", program.text);
    }

    #[test]
    fn what_is_computed_makes_the_fingerprint_and_how_wide_it_runs_does_not() {
        let first = Program::new(&unit(QUERY), &settings());
        let wider = Program::new(
            &unit(QUERY),
            &Settings {
                parallelism: 8,
                ..settings()
            },
        );
        assert_eq!(first.fingerprint, wider.fingerprint);
        let other = Program::new(&unit("SELECT 1"), &settings());
        assert_ne!(first.fingerprint, other.fingerprint);
        let mut with_function = unit(QUERY);
        with_function.functions.push(("f".to_string(), "fn f() {}".to_string()));
        assert_ne!(Program::new(&with_function, &settings()).fingerprint, first.fingerprint);
    }

    #[test]
    fn a_quote_in_a_setting_stays_inside_its_text() {
        let odd = Settings {
            brokers: "b'; DROP".to_string(),
            ..settings()
        };
        assert!(Program::new(&unit(QUERY), &odd).text.contains("bootstrap_servers = 'b''; DROP'"));
    }
}
