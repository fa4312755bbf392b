//! The pipelines as an Arroyo cluster gets them: files, silver's columns, gold's columns, functions.
//!
//! Stands between the settings and `arroyo`, which knows neither the lake nor SQL.
//!
//! Invariant: what is handed over is what our own runner runs: the same files, tables and functions.

use arrow::datatypes::{DataType, SchemaRef};

use super::check::{Complaints, pipeline_files};
use crate::arroyo::{Column, Settings, Source, Unit};
use crate::config::Config;
use crate::lake::tables::{TableSpec, WINDOWED_VIEWS, WindowedView, fixed_tables};
use crate::rollup::table_spec;
use crate::sql::pipeline::{Pipeline, parse_all, unions_apart};
use crate::udfs;

/// The pipelines of the settings, by where they can run.
pub struct Portable {
    /// Each with what our own runner knows of it.
    pub units: Vec<(Unit, Pipeline)>,
    /// Name and reason of those that run here only.
    pub here_only: Vec<(String, String)>,
    pub settings: Settings,
}

/// Sorts out what can run on Arroyo.
///
/// # Errors
/// What is wrong with the pipelines, or that no brokers are set.
pub async fn portable(config: &Config) -> Result<Portable, Complaints> {
    let files = pipeline_files(config)?;
    let pipelines = parse_all(&files).map_err(|complaints| Complaints(complaints.iter().map(ToString::to_string).collect()))?;
    let mut portable = Portable {
        units: Vec::new(),
        here_only: Vec::new(),
        settings: settings(config)?,
    };
    // Coarser tables are rolled up here, from what comes back.
    for pipeline in pipelines.into_iter().filter(|pipeline| pipeline.finer.is_none()) {
        if let Some(reason) = &pipeline.here_only {
            portable.here_only.push((pipeline.name.clone(), reason.clone()));
            continue;
        }
        let text = files.iter().find(|(file, _)| pipeline.is_of(file)).map(|(_, text)| text.as_str());
        let unit = unit(&pipeline, text.unwrap_or_default()).await?;
        portable.units.push((unit, pipeline));
    }
    Ok(portable)
}

fn settings(config: &Config) -> Result<Settings, Complaints> {
    let Some(brokers) = config.arroyo.brokers.clone() else {
        let message =
            "arroyo.brokers is not set: Arroyo reads silver from Kafka and writes gold to it; name the brokers as its workers reach them";
        return Err(Complaints(vec![message.to_string()]));
    };
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Ok(Settings {
        brokers,
        topics: config.arroyo.topics.clone(),
        parallelism: config.arroyo.parallelism,
        checkpoint_every_ms: ms(config.arroyo.checkpoint_every),
        lateness_ms: ms(config.windows.lateness),
    })
}

async fn unit(pipeline: &Pipeline, text: &str) -> Result<Unit, Complaints> {
    let spec = table_spec(pipeline).await.map_err(|error| Complaints(vec![error.to_string()]))?;
    let tables = fixed_tables();
    let views = WINDOWED_VIEWS
        .iter()
        .filter(|view| pipeline.reads.iter().any(|name| name == view.name));
    let sources = views.filter_map(|view| Some(source(view, tables.iter().find(|table| table.name == view.table)?)));
    let functions = udfs::TEXTS.iter().filter(|(name, _)| text.contains(&format!("{name}(")));
    let apart = unions_apart(text);
    Ok(Unit {
        name: pipeline.name.clone(),
        views: apart.views,
        query: apart.query,
        sources: sources.collect(),
        sink: columns(&Pipeline::selected_schema(&spec), ""),
        functions: functions.map(|(name, text)| (name.to_string(), text.to_string())).collect(),
    })
}

fn source(view: &WindowedView, table: &TableSpec) -> Source {
    Source {
        name: view.name.to_string(),
        time_column: view.time_column.to_string(),
        columns: columns(&table.schema, view.time_column),
    }
}

/// Columns that Arroyo has a type for. A map is none, nor is a date in a connection (0.16: "cannot be used in a connection table"), and no
/// pipeline reads either.
fn columns(schema: &SchemaRef, time_column: &str) -> Vec<Column> {
    let column = |field: &std::sync::Arc<arrow::datatypes::Field>| {
        Some(Column {
            name: field.name().clone(),
            sql_type: sql_type(field.data_type())?,
            // A row without the time that it is read by is not published under that name.
            is_required: field.name() == time_column,
        })
    };
    schema.fields().iter().filter_map(column).collect()
}

/// What is relayed: each view, with the columns that Arroyo has a type for.
pub(super) fn relayed_columns() -> Vec<(&'static WindowedView, Vec<String>)> {
    let tables = fixed_tables();
    let views = WINDOWED_VIEWS.iter().filter(|view| !["rejects", "duplicates"].contains(&view.name));
    let with_columns = views.filter_map(|view| {
        let table = tables.iter().find(|table| table.name == view.table)?;
        let names = columns(&table.schema, view.time_column).into_iter().map(|column| column.name);
        Some((view, names.collect()))
    });
    with_columns.collect()
}

fn sql_type(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Utf8 => "TEXT",
        DataType::Int64 => "BIGINT",
        DataType::Float64 => "DOUBLE",
        DataType::Boolean => "BOOLEAN",
        DataType::Binary => "BYTEA",
        DataType::Timestamp(_, _) => "TIMESTAMP",
        DataType::List(inner) if inner.data_type() == &DataType::Utf8 => "TEXT[]",
        _ => return None,
    })
}
