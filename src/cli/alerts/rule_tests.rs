//! `playhead alerts test`: stories about rules, judged by the engine that judges in production.
//!
//! Stands between `alert::rule_test`, which plays a story, and `sql`, which answers what the rules ask of
//! its rows.
//!
//! Invariant: the rules' own texts run over the rows of the test, in tables of the shape of gold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::read;
use crate::alert::rule::{Rule, RuleSet};
use crate::alert::rule_test::{self, InputRow, RowSource, TestFile, parse_tests};
use crate::alert::{MinuteRow, SlotRow};
use crate::config::{Config, Folder};
use crate::daemon::{self, Complaints};
use crate::lake::tables::TableSpec;
use crate::sql::{self, MINUTE_MS, QueryLimits, Session, SqlError};
use crate::watch::{Minutes, add_minutes, slots};

/// Runs these files; the exit code is 1 if a test fails.
///
/// # Errors
/// A file that cannot be read, or is no test file; rules that are wrong.
pub async fn run(config: &Config, files: &[PathBuf]) -> anyhow::Result<u8> {
    let files = if files.is_empty() { &of_folder(config)? } else { files };
    let specs = daemon::gold_specs(&daemon::pipelines(config)?).await?;
    let tables = daemon::with_own(&specs);
    let mut source = Gold {
        specs: &tables,
        limits: daemon::query_limits(config),
        opened: None,
    };
    let mut is_good = true;
    for path in files {
        let (name, text) = read(path)?;
        let tests = parse_tests(&name, &text).map_err(|complaint| Complaints(vec![complaint]))?;
        let rules = rules_of(path, &tests, &specs).await?;
        // The runner asks while it plays; what it asks runs on the other threads of the runtime.
        let report = tokio::task::block_in_place(|| rule_test::run(&rules, &tests, &mut source));
        println!("{name}\n{report}");
        is_good &= report.is_good();
    }
    Ok(if is_good { 0 } else { super::super::EXIT_FAILURE })
}

/// The test files that lie beside the rules.
fn of_folder(config: &Config) -> Result<Vec<PathBuf>, Complaints> {
    let Folder::Path(folder) = &config.alerts.folder else {
        let why = "the alerts are those of the binary; name the test files, or set alerts.folder in the settings";
        return Err(Complaints(vec![why.to_owned()]));
    };
    let folder = folder.join("tests");
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| Complaints(vec![format!("cannot read {}: {error}; name the test files", folder.display())]))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml"));
    paths.sort();
    Ok(paths)
}

/// The rules that a test file names, from the nearest folder above it that has them.
async fn rules_of(path: &Path, tests: &TestFile, specs: &[TableSpec]) -> anyhow::Result<RuleSet> {
    let path = std::path::absolute(path)?;
    let mut files = Vec::new();
    for name in &tests.rules {
        let found = path.ancestors().skip(1).map(|folder| folder.join(name)).find(|path| path.is_file());
        let Some(found) = found else {
            let why = format!("{}: there is no {name} in its folder or above; check `rules`", path.display());
            return Err(Complaints(vec![why]).into());
        };
        files.push((name.clone(), read(&found)?.1));
    }
    Ok(daemon::rules_in(&files, specs).await?)
}

/// Gold as a test says it is.
struct Gold<'s> {
    specs: &'s [TableSpec],
    limits: QueryLimits,
    /// The rows that were asked about last, and the session over them.
    opened: Option<(Vec<InputRow>, Session)>,
}

impl RowSource for Gold<'_> {
    fn rows(&mut self, rule: &Rule, ends: &[i64], input: &[InputRow]) -> Result<Vec<MinuteRow>, String> {
        let mut minutes = Minutes::new();
        for text in rule.queries(ends) {
            add_minutes(&mut minutes, &self.answer(&text, input)?, rule.group_by().len());
        }
        Ok(minutes.into_values().flatten().collect())
    }

    fn history(&mut self, rule: &Rule, window_end_ms: i64, input: &[InputRow]) -> Result<Vec<SlotRow>, String> {
        let Some(text) = rule.history_sql(window_end_ms) else {
            return Ok(Vec::new());
        };
        Ok(slots(&self.answer(&text, input)?, rule.group_by().len()))
    }
}

impl Gold<'_> {
    fn answer(&mut self, text: &str, input: &[InputRow]) -> Result<Vec<RecordBatch>, String> {
        let limits = self.limits;
        let answer = tokio::runtime::Handle::current().block_on(async {
            let session = self.session(input).await?;
            sql::query(session, text, limits).await
        });
        answer.map(|(_, batches)| batches).map_err(|error| error.to_string())
    }

    async fn session(&mut self, input: &[InputRow]) -> Result<&Session, SqlError> {
        if self.opened.as_ref().is_none_or(|(known, _)| known != input) {
            let mut rows = BTreeMap::new();
            for spec in self.specs {
                let of_table: Vec<&InputRow> = input.iter().filter(|row| row.table == spec.name).collect();
                rows.insert(spec.name.clone(), batch(spec, &of_table)?);
            }
            self.opened = Some((input.to_vec(), sql::gold_of(self.specs, &rows).await?));
        }
        Ok(&self.opened.as_ref().expect("it was opened just now").1)
    }
}

/// Rows of a table; what a row does not say is null.
fn batch(spec: &TableSpec, rows: &[&InputRow]) -> Result<RecordBatch, SqlError> {
    let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
    let schema: SchemaRef = Arc::new(Schema::new(spec.schema.fields().iter().map(nullable).collect::<Vec<_>>()));
    let columns: Result<Vec<ArrayRef>, _> = schema.fields().iter().map(|field| column(field, rows)).collect();
    let batch = columns.and_then(|columns| RecordBatch::try_new(schema, columns));
    batch.map_err(|error| SqlError::Query(error.into()))
}

fn column(field: &Field, rows: &[&InputRow]) -> Result<ArrayRef, arrow::error::ArrowError> {
    let name = field.name().as_str();
    let times = |offset_ms: i64| {
        let times = rows.iter().map(|row| (row.minute_ms + offset_ms) * 1000);
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"));
        times
    };
    let says: BTreeSet<&str> = rows.iter().flat_map(|row| row.dims.keys()).map(String::as_str).collect();
    let values: ArrayRef = match name {
        "window_start" => times(0),
        "window_end" => times(MINUTE_MS),
        "event_date" => cast(&times(0), field.data_type())?,
        _ if says.contains(name) => {
            let texts = rows.iter().map(|row| row.dims.get(name).cloned().flatten());
            Arc::new(StringArray::from_iter(texts))
        }
        _ if rows.iter().any(|row| row.columns.contains_key(name)) => {
            let numbers = rows.iter().map(|row| row.columns.get(name).copied());
            Arc::new(Float64Array::from_iter(numbers))
        }
        _ => return Ok(new_null_array(field.data_type(), rows.len())),
    };
    cast(&values, field.data_type())
}
