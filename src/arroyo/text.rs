//! The declarations around a query file: what it reads from Kafka, and where its rows go.
//!
//! Arroyo takes one text: tables, then the INSERT. It looks a table up twice, while parsing by the name
//! as written (`silver.cdn_requests`) and while rewriting by its last part (`cdn_requests`), so each
//! source is declared under both; one of the two is read.
//!
//! Each row that comes out says which text made it and has its window as key: so all rows of a window lie in
//! one partition, in order, and who collects them (`results`) can tell a new result from the rest of an old one.
//!
//! Invariant: every value of the settings stands inside quotes, doubled where it has one itself.

use std::fmt::Write;

use super::{Column, MADE_BY, Settings, Source, Unit, WINDOW_KEY, results_topic};

/// Everything before the query file.
pub(super) fn declarations(unit: &Unit, settings: &Settings, fingerprint: &str) -> String {
    let mut text = String::new();
    for source in &unit.sources {
        for name in [format!("silver.{}", source.name), source.name.clone()] {
            declare_source(&mut text, &name, source, unit, settings, fingerprint);
        }
    }
    declare_sink(&mut text, unit, settings);
    for (name, query) in &unit.views {
        let _ = writeln!(text, "CREATE VIEW {name} AS\n{query};\n");
    }
    let names: Vec<&str> = unit.sink.iter().map(|column| column.name.as_str()).collect();
    let _ = writeln!(
        text,
        "INSERT INTO gold_{}\nSELECT {}, CAST(window_start AS TEXT) AS {WINDOW_KEY}, '{fingerprint}' AS {MADE_BY}\nFROM (",
        unit.name,
        names.join(", ")
    );
    text
}

/// Everything after it.
pub(super) const END: &str = "\n) AS made\n;\n";

fn declare_source(text: &mut String, name: &str, source: &Source, unit: &Unit, settings: &Settings, fingerprint: &str) {
    let _ = writeln!(text, "CREATE TABLE {name} (");
    columns(text, &source.columns);
    // Arroyo counts in whole seconds of event time.
    let seconds = settings.lateness_ms.div_ceil(1000);
    let time = &source.time_column;
    let _ = writeln!(text, ",\n  WATERMARK FOR {time} AS {time} - INTERVAL '{seconds} seconds'\n) WITH (");
    options(
        text,
        &[
            ("connector", "kafka"),
            ("type", "source"),
            ("bootstrap_servers", &settings.brokers),
            ("topic", &format!("{}.silver.{}", settings.topics, source.name)),
            ("format", "json"),
            ("bad_data", "fail"),
            // Without a checkpoint nothing is known of open windows, so all that the topic holds is read: from the group's
            // offset on, or by its default from now on, the first windows would be computed of a part of their rows.
            ("'source.offset'", "earliest"),
            // Tells tools how far it has come, and no more.
            ("'source.group_id'", &format!("{}-{}-{fingerprint}", settings.topics, unit.name)),
            // The relay writes in transactions.
            ("'source.read_mode'", "read_committed"),
        ],
    );
}

fn declare_sink(text: &mut String, unit: &Unit, settings: &Settings) {
    let _ = writeln!(text, "CREATE TABLE gold_{} (", unit.name);
    columns(text, &unit.sink);
    let _ = write!(text, ",\n  {WINDOW_KEY} TEXT,\n  {MADE_BY} TEXT\n) WITH (\n");
    options(
        text,
        &[
            ("connector", "kafka"),
            ("type", "sink"),
            ("bootstrap_servers", &settings.brokers),
            ("topic", &results_topic(&settings.topics, &unit.name)),
            ("format", "json"),
            ("'sink.commit_mode'", "exactly_once"),
            ("'sink.key_field'", WINDOW_KEY),
        ],
    );
}

fn columns(text: &mut String, columns: &[Column]) {
    let lines: Vec<String> = columns
        .iter()
        .map(|column| {
            let required = if column.is_required { " NOT NULL" } else { "" };
            format!("  {} {}{required}", column.name, column.sql_type)
        })
        .collect();
    text.push_str(&lines.join(",\n"));
}

fn options(text: &mut String, options: &[(&str, &str)]) {
    let lines: Vec<String> = options
        .iter()
        .map(|(key, value)| format!("  {key} = '{}'", value.replace('\'', "''")))
        .collect();
    let _ = write!(text, "{}\n);\n\n", lines.join(",\n"));
}
