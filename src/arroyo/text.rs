//! The declarations around a query file: what it reads from Kafka, and where its rows go.
//!
//! Arroyo takes one text: tables, then the INSERT. It looks a table up twice, while parsing by the name
//! as written (`silver.cdn_requests`) and while rewriting by its last part (`cdn_requests`), so each
//! source is declared under both; one of the two is read.
//!
//! Invariant: every value of the settings stands inside quotes, doubled where it has one itself.

use std::fmt::Write;

use super::{Column, Settings, Source, Unit};

/// Everything before the query file.
pub(super) fn declarations(unit: &Unit, settings: &Settings, fingerprint: &str) -> String {
    let mut text = String::new();
    for source in &unit.sources {
        for name in [format!("silver.{}", source.name), source.name.clone()] {
            declare_source(&mut text, &name, source, unit, settings, fingerprint);
        }
    }
    declare_sink(&mut text, unit, settings);
    let _ = writeln!(text, "INSERT INTO gold_{}", unit.name);
    text
}

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
            ("'source.offset'", "group"),
            ("'source.group_id'", &format!("{}-{}-{fingerprint}", settings.topics, unit.name)),
            // The relay writes in transactions.
            ("'source.read_mode'", "read_committed"),
        ],
    );
}

fn declare_sink(text: &mut String, unit: &Unit, settings: &Settings) {
    let _ = writeln!(text, "CREATE TABLE gold_{} (", unit.name);
    columns(text, &unit.sink);
    text.push_str("\n) WITH (\n");
    options(
        text,
        &[
            ("connector", "kafka"),
            ("type", "sink"),
            ("bootstrap_servers", &settings.brokers),
            ("topic", &format!("{}.gold.{}", settings.topics, unit.name)),
            ("format", "json"),
            ("'sink.commit_mode'", "exactly_once"),
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
