//! The contract of the tables as a page: `docs/tables.md`, printed by `playhead tables`.
//!
//! Made from the same lists that make the tables; a test compares the page in the repository.

use std::fmt::Write;

use arrow::datatypes::{DataType, Schema};

use crate::lake::tables::{TableSpec, WINDOWED_VIEWS, fixed_tables};
use crate::sql::views::ViewSpec;

const HEAD: &str = "# Tables

Made by `playhead tables`; do not edit. Every table is a Delta table below the data folder
(`bronze.player_events` in `bronze/player_events`), partitioned by `event_date` and sorted inside a
file. Times are microseconds UTC. Unknown is null.

";

/// The page for the fixed tables, these gold tables and the views over them.
pub fn tables_markdown(gold: &[TableSpec], views: &[ViewSpec]) -> String {
    let mut page = HEAD.to_string();
    for spec in fixed_tables().iter().chain(gold) {
        let finer = spec.rolled_up_from.as_ref();
        match finer.and_then(|finer| gold.iter().find(|other| other.name == *finer)) {
            Some(finer) => coarser_table(&mut page, spec, finer),
            None => table(&mut page, spec),
        }
    }
    for of in views {
        view(&mut page, of);
    }
    page.push_str("## What pipelines read\n\n| name in a pipeline | table | window by |\n| --- | --- | --- |\n");
    for view in WINDOWED_VIEWS {
        let _ = writeln!(page, "| `silver.{}` | `{}` | `{}` |", view.name, view.table, view.time_column);
    }
    page
}

fn table(page: &mut String, spec: &TableSpec) {
    let _ = writeln!(page, "## {}\n\n{}\n", spec.name, spec.about);
    let _ = writeln!(
        page,
        "Sorted by {}. Statistics on {}.\n",
        list(&spec.sort_columns),
        list(&spec.statistics)
    );
    columns(page, &spec.schema);
}

fn columns(page: &mut String, schema: &Schema) {
    page.push_str("| column | type | null | meaning |\n| --- | --- | --- | --- |\n");
    for field in schema.fields() {
        let about = field.metadata().get("comment").map_or("", String::as_str);
        let null = if field.is_nullable() { "yes" } else { "no" };
        let _ = writeln!(page, "| `{}` | {} | {null} | {about} |", field.name(), type_name(field.data_type()));
    }
    page.push('\n');
}

/// What is answered from other tables: in `playhead sql` and for alert rules, not on disk.
fn view(page: &mut String, spec: &ViewSpec) {
    let _ = writeln!(
        page,
        "## {}\n\n{}\n\nA view over {}: known to `playhead sql` and to alert rules, not stored.\n",
        spec.name,
        spec.about,
        list(&spec.reads)
    );
    match &spec.finest {
        Some(finest) => {
            let _ = writeln!(page, "Columns as in `{finest}`.\n");
        }
        None => columns(page, &spec.schema),
    }
}

/// A table with the columns of another: only what is missing is said.
fn coarser_table(page: &mut String, spec: &TableSpec, finer: &TableSpec) {
    let _ = write!(page, "## {}\n\n{}\n\nColumns as in `{}`", spec.name, spec.about, finer.name);
    let missing = finer
        .schema
        .fields()
        .iter()
        .filter(|field| spec.schema.field_with_name(field.name()).is_err());
    let missing: Vec<String> = missing.map(|field| field.name().clone()).collect();
    if !missing.is_empty() {
        let _ = write!(page, ", without {}", list(&missing));
    }
    page.push_str(".\n\n");
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Utf8 => "text",
        DataType::Int64 => "int64",
        DataType::Float64 => "float64",
        DataType::Boolean => "boolean",
        DataType::Date32 => "date",
        DataType::Timestamp(_, _) => "timestamp",
        DataType::List(_) => "list of text",
        DataType::Map(_, _) => "map of text",
        _ => "binary",
    }
}
