//! Pipelines: one SQL file, one gold table.
//!
//! Reads `pipelines/*.sql`, checks that each file is one windowed SELECT that Arroyo would take as it
//! lies (`dialect`), and runs it over windows of silver. The text is never changed: `tumble` and `hop`
//! get their meaning in the parsed tree (`windows`), as Arroyo gives it them while planning.
//!
//! Invariant: a file that is accepted here uses only constructs that both engines know, unless it says
//! `-- Runs on: here only, because ...`.

mod dialect;
mod roll_up;
mod unions;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Spanned, Statement, visit_relations};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use sha2::{Digest, Sha256};

use crate::event::schema::timestamp_type;
use crate::lake::tables::{PARTITION_COLUMN, TableSpec, WINDOWED_VIEWS};
use roll_up::RollUp;
pub use unions::{UnionsApart, unions_apart};
use windows::{Window, interval_minutes};

/// The hidden event-time column of every windowed view.
pub const TIME_COLUMN: &str = "_timestamp";
const WINDOW_START: &str = "window_start";
const WINDOW_END: &str = "window_end";
/// Lineage columns that the runner adds to each gold row (DESIGN D14).
pub const PIPELINE_HASH: &str = "pipeline_hash";
pub const SILVER_VERSIONS: &str = "silver_versions";
/// A reach widens every window's reading by twice itself: past an hour a join wants another design.
const REACH_MINUTES_MAX: i64 = 60;
/// Hex digits of a pipeline's hash that are stored: 64 bits tell the versions of one file apart.
const HASH_DIGITS: usize = 16;

/// Something that a person has to mend in a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub place: String,
    pub message: String,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// One parsed pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Gold table without its layer: the file's name without `.sql`.
    pub name: String,
    /// First 16 hex digits of the SHA-256 of the file.
    pub hash: String,
    /// Window length in minutes.
    pub window_minutes: i64,
    /// Minutes from the start of a window to that of the next: its length, or less where windows hop.
    pub slide_minutes: i64,
    /// Why it cannot run on Arroyo (`-- Runs on: here only, because ...`); `None`: it can.
    pub here_only: Option<String>,
    /// Names of the silver views that it reads, itself or through the gold table that it rolls up.
    pub reads: Vec<String>,
    /// The finer table that it rolls up instead of reading silver.
    pub finer: Option<Arc<Pipeline>>,
    /// How far from a window the rows may lie that it joins (`-- Reach: 5 minutes`), minutes; of a table
    /// that is rolled up, the finest one's.
    pub reach_minutes: i64,
    /// Silver tables without each of which its table stays empty (`-- Begins with: silver.cdn_requests`): a join
    /// is not computed for a lake that has nothing to join; of a table that is rolled up, the finest one's.
    pub begins_with: Vec<&'static str>,
    /// Windows that its table is rolled up into (`-- Rolls up: 5 minutes, 1 hour`), ascending.
    rolls_up: Vec<RollUp>,
    about: String,
    column_comments: BTreeMap<String, String>,
    statement: Statement,
    file: String,
}

impl Pipeline {
    /// `gold.<name>`.
    pub fn table(&self) -> String {
        format!("gold.{}", self.name)
    }

    /// Was it read from this file?
    pub fn is_of(&self, file: &str) -> bool {
        self.file == file
    }

    /// Parses one file.
    ///
    /// # Errors
    /// One complaint with file, line, column and the fix.
    pub fn parse(file: &str, text: &str) -> Result<Pipeline, Complaint> {
        Pipeline::parse_over(file, text, None)
    }

    /// Parses a text that reads silver or, instead, the table of `finer`.
    fn parse_over(file: &str, text: &str, finer: Option<Arc<Pipeline>>) -> Result<Pipeline, Complaint> {
        let at = |line: u64, column: u64, message: String| Complaint {
            place: if line == 0 {
                file.to_string()
            } else {
                format!("{file}:{line}:{column}")
            },
            message,
        };
        let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            return Err(at(
                0,
                0,
                format!("`{name}` cannot name a table; use lower-case letters, digits and `_`"),
            ));
        }
        let mut statements = Parser::parse_sql(&GenericDialect {}, text).map_err(|error| {
            let message = error.to_string();
            let (line, column) = place_in(&message);
            at(line, column, message.trim_start_matches("sql parser error: ").to_string())
        })?;
        if statements.len() != 1 {
            return Err(at(0, 0, format!("{} statements found; a pipeline is one SELECT", statements.len())));
        }
        let Statement::Query(mut query) = statements.remove(0) else {
            return Err(at(
                1,
                1,
                "not a SELECT; a pipeline is one SELECT, the table it fills is named by the file".to_string(),
            ));
        };
        let header = header(text).map_err(|message| at(0, 0, message))?;
        dialect::check(&query, header.here_only.is_some() || finer.is_some())
            .map_err(|(message, line, column)| at(line, column, message))?;
        let reads = relations(&query, finer.as_deref()).map_err(|(message, line, column)| at(line, column, message))?;
        let found = windows::give_meaning(&mut query).map_err(|(message, line, column)| at(line, column, message))?;
        let Window {
            width_minutes: window_minutes,
            slide_minutes,
        } = windows::the_one(&found).map_err(|(message, line, column)| at(line, column, message))?;
        let Header {
            about,
            column_comments,
            reach_minutes,
            begins_with,
            rolls_up,
            here_only,
        } = header;
        if !rolls_up.is_empty() && slide_minutes < window_minutes {
            let message = "windows that hop overlap, so a sum over several would count a row twice; take out `-- Rolls up:`";
            return Err(at(0, 0, message.to_string()));
        }
        // A change that reaches a finer window reaches the one over it, across its own edge too.
        let reach_minutes = finer.as_ref().map_or(reach_minutes, |finer| finer.reach_minutes);
        let begins_with = finer.as_ref().map_or(begins_with, |finer| finer.begins_with.clone());
        // Another text of the finer table makes other rows here too.
        let content = format!("{}{text}", finer.as_ref().map_or("", |finer| finer.hash.as_str()));
        let hash: String = Sha256::digest(content.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Pipeline {
            name,
            hash: hash[..HASH_DIGITS].to_string(),
            window_minutes,
            slide_minutes,
            here_only,
            reads,
            finer,
            reach_minutes,
            begins_with,
            rolls_up,
            about,
            column_comments,
            statement: Statement::Query(query),
            file: file.to_string(),
        })
    }

    /// The minutes whose windows a change in `minutes` can reach; where windows hop, the minutes in which
    /// these windows start, for a minute lies in several.
    pub fn reached(&self, minutes: &BTreeSet<i64>) -> BTreeSet<i64> {
        let reach = self.reach_minutes;
        let minutes = minutes.iter().flat_map(|minute| minute - reach..=minute + reach);
        match self.window_minutes - self.slide_minutes {
            0 => minutes.collect(),
            before => {
                let step = usize::try_from(self.slide_minutes).unwrap_or(1);
                let starts = minutes.map(|minute| self.window_of(minute));
                starts.flat_map(|start| (start - before..=start).step_by(step)).collect()
            }
        }
    }

    /// The columns that are no measures: what names a row within its window.
    pub fn dimensions(&self) -> Vec<String> {
        roll_up::columns(self).0
    }

    /// The start of the last window that a minute lies in.
    pub fn window_of(&self, minute: i64) -> i64 {
        minute - minute.rem_euclid(self.slide_minutes)
    }

    /// The plan over the views that `context` holds.
    pub async fn plan(&self, context: &SessionContext) -> datafusion::error::Result<LogicalPlan> {
        context
            .state()
            .statement_to_plan(DfStatement::Statement(Box::new(self.statement.clone())))
            .await
    }

    /// The gold table that the plan's columns make.
    ///
    /// # Errors
    /// Which column is missing or has a type that Delta cannot hold.
    pub fn table_spec(&self, plan: &LogicalPlan) -> Result<TableSpec, Complaint> {
        self.spec_of(plan).map_err(|message| Complaint {
            place: self.file.clone(),
            message,
        })
    }

    /// What the planner refuses, with its place in the file where the planner knows it.
    pub fn complaint(&self, error: &DataFusionError) -> Complaint {
        let start = error.diagnostic().and_then(|diagnostic| diagnostic.span).map(|span| span.start);
        let place = match start {
            Some(start) if start.line > 0 => format!("{}:{}:{}", self.file, start.line, start.column),
            _ => self.file.clone(),
        };
        Complaint {
            place,
            message: error.strip_backtrace().trim_start_matches("Schema error: ").to_string(),
        }
    }

    fn spec_of(&self, plan: &LogicalPlan) -> Result<TableSpec, String> {
        let planned = plan.schema();
        for name in [WINDOW_START, WINDOW_END] {
            if !planned.fields().iter().any(|field| field.name() == name) {
                return Err(format!(
                    "no column `{name}`; select `window.start AS window_start, window.end AS window_end`"
                ));
            }
        }
        let mut fields = vec![Field::new(PARTITION_COLUMN, DataType::Date32, false).with_metadata(comment("UTC day of window_start"))];
        let mut texts = Vec::new();
        for field in planned.fields() {
            let data_type = stored_type(field.data_type()).ok_or_else(|| {
                format!(
                    "column `{}` has the type {}, which a gold table cannot hold; cast it",
                    field.name(),
                    field.data_type()
                )
            })?;
            if data_type == DataType::Utf8 {
                texts.push(field.name().clone());
            }
            let about = match field.name().as_str() {
                WINDOW_START => "start of the window, UTC".to_string(),
                WINDOW_END => "end of the window, exclusive, UTC".to_string(),
                name => self.column_comments.get(name).cloned().unwrap_or_default(),
            };
            fields.push(Field::new(field.name(), data_type, true).with_metadata(comment(&about)));
        }
        fields
            .push(Field::new(PIPELINE_HASH, DataType::Utf8, true).with_metadata(comment("content of the pipeline file that made the row")));
        fields.push(
            Field::new(SILVER_VERSIONS, DataType::Utf8, true).with_metadata(comment("versions of the silver tables it was computed from")),
        );
        let mut sort_columns = vec![WINDOW_START.to_string()];
        sort_columns.extend(texts.iter().cloned());
        let mut statistics = vec![WINDOW_START.to_string(), WINDOW_END.to_string()];
        statistics.extend(texts);
        Ok(TableSpec {
            name: self.table(),
            about: self.about.clone(),
            rolled_up_from: self.finer.as_ref().map(|finer| finer.table()),
            schema: Arc::new(Schema::new(fields)),
            time_column: WINDOW_START.to_string(),
            window_columns: vec![WINDOW_START.to_string()],
            sort_columns,
            statistics,
            row_id: None,
            open_column: None,
        })
    }

    /// The columns that the SELECT itself gives, in the types that are stored.
    pub fn selected_schema(spec: &TableSpec) -> SchemaRef {
        let is_ours = |name: &str| [PARTITION_COLUMN, PIPELINE_HASH, SILVER_VERSIONS].contains(&name);
        let fields: Vec<Field> = spec
            .schema
            .fields()
            .iter()
            .filter(|field| !is_ours(field.name()))
            .map(|field| field.as_ref().clone())
            .collect();
        Arc::new(Schema::new(fields))
    }
}

/// What the head of a text says of it and of its columns.
pub fn comments(text: &str) -> (String, BTreeMap<String, String>) {
    header(text)
        .map(|header| (header.about, header.column_comments))
        .unwrap_or_default()
}

fn comment(about: &str) -> std::collections::HashMap<String, String> {
    std::collections::HashMap::from([("comment".to_string(), about.to_string())])
}

/// The type a planned column is stored in; `None` if there is none.
fn stored_type(planned: &DataType) -> Option<DataType> {
    Some(match planned {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => DataType::Int64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Boolean => DataType::Boolean,
        DataType::Date32 => DataType::Date32,
        DataType::Timestamp(_, _) => timestamp_type(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        _ => return None,
    })
}

/// Reads every `.sql` file of a folder, in name order; each is followed by the tables that roll it up.
///
/// # Errors
/// All complaints of all files.
pub fn parse_all(files: &[(String, String)]) -> Result<Vec<Pipeline>, Vec<Complaint>> {
    let mut pipelines = Vec::new();
    let mut complaints = Vec::new();
    for (file, text) in files {
        match Pipeline::parse(file, text).and_then(roll_up::with_coarser) {
            Ok(family) => pipelines.extend(family),
            Err(complaint) => complaints.push(complaint),
        }
    }
    if complaints.is_empty() { Ok(pipelines) } else { Err(complaints) }
}

/// A refusal and where in the text it stands.
type Refusal = (String, u64, u64);

fn refusal(message: &str, spanned: &impl Spanned) -> Refusal {
    let start = spanned.span().start;
    (message.to_string(), start.line, start.column)
}

/// The silver views that a query reads; anything else is refused.
fn relations(query: &Query, finer: Option<&Pipeline>) -> Result<Vec<String>, Refusal> {
    let ctes: Vec<String> = query
        .with
        .iter()
        .flat_map(|with| &with.cte_tables)
        .map(|cte| cte.alias.name.value.clone())
        .collect();
    let mut reads = Vec::new();
    let found = visit_relations(query, |relation: &ObjectName| {
        let name = relation.to_string();
        if let Some(finer) = finer.filter(|finer| finer.table() == name) {
            reads.clone_from(&finer.reads);
            return ControlFlow::Continue(());
        }
        let Some(view) = name.strip_prefix("silver.") else {
            if ctes.contains(&name) {
                return ControlFlow::Continue(());
            }
            let message = format!("`{name}` cannot be read by a pipeline; it reads silver only: {}", view_names());
            return ControlFlow::Break(refusal(&message, relation));
        };
        if !WINDOWED_VIEWS.iter().any(|known| known.name == view) {
            let message = format!("no table `{name}`; a pipeline reads {}", view_names());
            return ControlFlow::Break(refusal(&message, relation));
        }
        if !reads.iter().any(|read| read == view) {
            reads.push(view.to_string());
        }
        ControlFlow::Continue(())
    });
    match found {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(reads),
    }
}

fn view_names() -> String {
    WINDOWED_VIEWS.map(|view| format!("silver.{}", view.name)).join(", ")
}

struct Header {
    about: String,
    column_comments: BTreeMap<String, String>,
    reach_minutes: i64,
    begins_with: Vec<&'static str>,
    rolls_up: Vec<RollUp>,
    here_only: Option<String>,
}

/// The header comment: its first line, its `--   column: meaning` lines, `-- Reach:`, `-- Begins with:`,
/// `-- Rolls up:` and `-- Runs on:`.
fn header(text: &str) -> Result<Header, String> {
    let mut header = Header {
        about: String::new(),
        column_comments: BTreeMap::new(),
        reach_minutes: 0,
        begins_with: Vec::new(),
        rolls_up: Vec::new(),
        here_only: None,
    };
    for line in text.lines().map_while(|line| line.strip_prefix("--")) {
        let is_column = line.starts_with("   ");
        match line.trim().split_once(':') {
            Some((name, meaning)) if is_column => {
                header.column_comments.insert(name.trim().to_string(), meaning.trim().to_string());
            }
            Some(("Reach", reach)) => {
                header.reach_minutes = interval_minutes(reach.trim())
                    .filter(|minutes| *minutes <= REACH_MINUTES_MAX)
                    .ok_or_else(|| {
                        format!("`-- Reach:{reach}` is not understood; write for instance `-- Reach: 5 minutes`, one hour at the most")
                    })?;
            }
            Some(("Begins with", names)) => header.begins_with = begins_with(names)?,
            Some(("Runs on", engines)) => {
                let reason = engines
                    .trim()
                    .strip_prefix("here only, because ")
                    .filter(|reason| !reason.is_empty());
                let unclear =
                    || format!("`-- Runs on:{engines}` is not understood; write `-- Runs on: here only, because ...` with the reason");
                header.here_only = Some(reason.ok_or_else(unclear)?.to_string());
            }
            Some(("Rolls up", windows)) => header.rolls_up = roll_up::windows(windows)?,
            _ if header.about.is_empty() => header.about = line.trim().to_string(),
            _ => {}
        }
    }
    Ok(header)
}

/// The tables of `-- Begins with: silver.cdn_requests, silver.playback_sessions`.
fn begins_with(names: &str) -> Result<Vec<&'static str>, String> {
    let table = |name: &str| {
        let view = WINDOWED_VIEWS.iter().find(|view| name.trim() == format!("silver.{}", view.name));
        let unknown = || {
            let name = name.trim();
            format!("`-- Begins with: {name}` names no silver table; write for instance `-- Begins with: silver.cdn_requests`")
        };
        Ok(view.ok_or_else(unknown)?.table)
    };
    names.split(',').map(table).collect()
}

/// `... at Line: 3, Column: 7` of a parser message.
fn place_in(message: &str) -> (u64, u64) {
    let number_after = |word: &str| {
        let (_, rest) = message.split_once(word)?;
        let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    (number_after("Line:").unwrap_or(0), number_after("Column:").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match Pipeline::parse("pipelines/t.sql", text) {
            Ok(pipeline) => format!("{} min: {}", pipeline.window_minutes, pipeline.statement),
            Err(complaint) => complaint.to_string(),
        };
        assert!(shown.contains(expected), "{shown}\nlacks\n{expected}");
    }

    #[test]
    fn tumble_goes_by_the_event_time_of_the_table() {
        check(
            "SELECT tumble(interval '1 minute') AS window, count(*) AS n FROM silver.cdn_requests GROUP BY window",
            "date_bin(INTERVAL '1 minute', silver.cdn_requests._timestamp)",
        );
    }

    #[test]
    fn a_table_may_begin_with_silver_tables_and_no_others() {
        let begins = |name: &str| {
            let text = format!(
                "-- About.\n-- Begins with: {name}\nSELECT tumble(interval '1 minute') AS window, count(*) AS n FROM silver.player_events GROUP BY window"
            );
            Pipeline::parse("pipelines/t.sql", &text).map(|pipeline| pipeline.begins_with)
        };
        assert_eq!(begins("silver.cdn_requests").ok(), Some(vec!["silver.cdn_requests"]));
        let both = vec!["silver.cdn_requests", "silver.playback_sessions"];
        assert_eq!(begins("silver.cdn_requests, silver.playback_sessions").ok(), Some(both));
        assert!(begins("silver.cdn_requests, silver.requests").is_err());
    }

    #[test]
    fn a_subquery_hands_its_event_time_up() {
        check(
            "SELECT tumble(interval '5 minutes') AS window, count(*) AS n FROM \
             (SELECT cdn FROM silver.cdn_requests UNION ALL SELECT cdn FROM silver.playback_sessions) AS both GROUP BY window",
            "FROM (SELECT cdn, silver.cdn_requests._timestamp AS _timestamp FROM silver.cdn_requests UNION ALL",
        );
    }

    #[test]
    fn a_minute_reaches_every_window_that_hops_over_it() {
        let text =
            "SELECT hop(interval '2 minutes', interval '6 minutes') AS window, count(*) AS n FROM silver.cdn_requests GROUP BY window";
        let reached = |text: &str| {
            let pipeline = Pipeline::parse("pipelines/t.sql", text).expect("sound");
            pipeline.reached(&BTreeSet::from([7])).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(reached(text), [2, 4, 6]);
        assert_eq!(reached(&format!("-- Reach: 1 minute\n{text}")), [2, 4, 6, 8]);
        assert_eq!(reached(&text.replace("interval '2 minutes', ", "interval '6 minutes', ")), [7]);
        let rolled = format!("-- Rolls up: 1 hour\n{text}");
        assert!(Pipeline::parse("pipelines/t.sql", &rolled).is_err_and(|complaint| complaint.message.contains("would count a row twice")));
    }

    #[test]
    fn what_a_pipeline_may_not_do_is_said_with_its_place() {
        check("SELECT cdn AS n FROM silver.cdn_requests", "no window");
        check(
            "SELECT tumble(interval '1 minute') AS w FROM gold.cdn_1m GROUP BY w",
            "pipelines/t.sql:1:46: `gold.cdn_1m` cannot be read",
        );
        check(
            "SELECT tumble(interval '1 minute') AS w FROM silver.sessions GROUP BY w",
            "no table `silver.sessions`; a pipeline reads silver.player_events",
        );
        check(
            "SELECT tumble(interval '7 minutes') AS w FROM silver.cdn_requests GROUP BY w",
            "whole minutes or hours",
        );
        check(
            "SELECT tumble(interval '1 minute') AS w FROM silver.cdn_requests GROUP BY w ORDER BY 1",
            "ORDER BY cannot stand",
        );
        check("SELEC 1", "pipelines/t.sql:1:1");
        check("SELECT 1; SELECT 2", "2 statements");
    }
}
