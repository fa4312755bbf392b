//! What `tumble` and `hop` mean: the window of a row's event time, put into the parsed text.
//!
//! Stands between the check of the dialect and the planner. `tumble(width)` becomes the struct of start
//! and end that the time falls into. `hop(slide, width)` copies each row into every window that it lies
//! in, width over slide of them. Windows are [start, end) and begin at whole multiples of the slide since
//! the Unix epoch, as on Arroyo.
//!
//! Invariant: the text of the file stays as it is; only its tree is given a meaning.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, TableAlias, TableFactor,
    Value, visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::{Refusal, TIME_COLUMN, refusal};

/// Copies of a row that `hop` may make: an hour by minutes. More want a coarser slide.
const COPIES_MAX: i64 = 60;
const MINUTES_PER_DAY: i64 = 1440;
/// The copies of a row: how far each one's window starts before the row's last one.
const HOPS: &str = "_hops";

/// One call of `tumble` or `hop`, in seconds, with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    width_seconds: i64,
    slide_seconds: i64,
    place: (u64, u64),
}

/// The windows of a pipeline.
pub struct Window {
    pub width_minutes: i64,
    pub slide_minutes: i64,
}

/// The one window of a file whose calls these are.
pub fn the_one(found: &[Found]) -> Result<Window, Refusal> {
    let Some(first) = found.first() else {
        let message = "no window: group by `tumble(interval '1 minute')`, so that a gold row belongs to one window";
        return Err((message.to_string(), 0, 0));
    };
    let (line, column) = first.place;
    let refuse = |message: &str| Err((message.to_string(), line, column));
    if found
        .iter()
        .any(|other| (other.width_seconds, other.slide_seconds) != (first.width_seconds, first.slide_seconds))
    {
        return refuse("windows of different lengths in one pipeline; use one length, or two files");
    }
    let (width, slide) = (first.width_seconds / 60, first.slide_seconds / 60);
    let are_minutes = first.width_seconds % 60 == 0 && first.slide_seconds % 60 == 0;
    // Gold is partitioned by the day of a window's start: windows start at the same times every day.
    if !are_minutes || width > MINUTES_PER_DAY || MINUTES_PER_DAY % slide != 0 {
        return refuse(
            "write the window as tumble(interval '1 minute') or hop(interval '1 minute', interval '5 minutes'): whole minutes or hours that \
             divide a day, up to one day",
        );
    }
    Ok(Window {
        width_minutes: width,
        slide_minutes: slide,
    })
}

/// Replaces the calls in every SELECT and tells them in the order of the text.
pub fn give_meaning(query: &mut Query) -> Result<Vec<Found>, Refusal> {
    let mut found = Vec::new();
    in_query(query, &mut found)?;
    Ok(found)
}

fn in_query(query: &mut Query, found: &mut Vec<Found>) -> Result<(), Refusal> {
    for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        in_query(&mut cte.query, found)?;
    }
    in_set(&mut query.body, found)
}

fn in_set(body: &mut SetExpr, found: &mut Vec<Found>) -> Result<(), Refusal> {
    match body {
        SetExpr::Select(select) => in_select(select, found),
        SetExpr::Query(query) => in_query(query, found),
        SetExpr::SetOperation { left, right, .. } => {
            in_set(left, found)?;
            in_set(right, found)
        }
        _ => Ok(()),
    }
}

fn in_select(select: &mut Select, found: &mut Vec<Found>) -> Result<(), Refusal> {
    for table in select
        .from
        .iter_mut()
        .flat_map(|from| std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|join| &mut join.relation)))
    {
        if let TableFactor::Derived { subquery, .. } = table {
            in_query(subquery, found)?;
        }
    }
    let Some(call) = first_call(select)? else { return Ok(()) };
    let Some(from) = select.from.first_mut() else {
        return Err(refusal("a window needs a table whose event time it can go by", select));
    };
    let time = event_time_of(&mut from.relation)?;
    let start = match call.slide_seconds < call.width_seconds {
        true => hopped(&mut from.relation, &call, &time)?,
        false => format!("date_bin({}, {time})", interval(call.slide_seconds)),
    };
    let window = parsed(&format!(
        "named_struct('start', {start}, 'end', {start} + {})",
        interval(call.width_seconds)
    ));
    let mut replace = |expr: &mut Expr| match window_call(expr) {
        None => ControlFlow::Continue(()),
        Some(Err(refusal)) => ControlFlow::Break(refusal),
        Some(Ok(call)) => {
            found.push(call);
            *expr = window.clone();
            ControlFlow::Continue(())
        }
    };
    for item in &mut select.projection {
        if let ControlFlow::Break(refusal) = visit_expressions_mut(item, &mut replace) {
            return Err(refusal);
        }
    }
    if let GroupByExpr::Expressions(group, _) = &mut select.group_by
        && let ControlFlow::Break(refusal) = visit_expressions_mut(group, &mut replace)
    {
        return Err(refusal);
    }
    Ok(())
}

/// The first call of a SELECT itself.
fn first_call(select: &Select) -> Result<Option<Found>, Refusal> {
    let look = |expr: &Expr| match window_call(expr) {
        None => ControlFlow::Continue(()),
        Some(call) => ControlFlow::Break(call),
    };
    let in_group = match &select.group_by {
        GroupByExpr::Expressions(group, _) => visit_expressions(group, look),
        GroupByExpr::All(_) => ControlFlow::Continue(()),
    };
    let in_projection = select.projection.iter().map(|item| visit_expressions(item, look));
    let found = in_projection.chain([in_group]).find_map(|found| found.break_value());
    found.transpose()
}

/// Copies each row of a FROM's first table into all windows that it lies in; gives the start of a copy's.
fn hopped(relation: &mut TableFactor, call: &Found, time: &Expr) -> Result<String, Refusal> {
    let Expr::CompoundIdentifier(path) = time else {
        return Err(refusal("hop() must stand over a table or a subquery", relation));
    };
    // The last part but one: a table's own name, or its alias.
    let Some(name) = path.iter().rev().nth(1).cloned() else {
        return Err(refusal("hop() over a subquery needs an alias: FROM (...) AS rows", relation));
    };
    let copies = call.width_seconds / call.slide_seconds;
    let offsets: Vec<String> = (0..copies)
        .map(|copy| format!("({})", interval(copy * call.slide_seconds)))
        .collect();
    let text = format!(
        "SELECT {name}.*, {HOPS}.hop AS {HOPS} FROM (VALUES {}) AS {HOPS}(hop) CROSS JOIN placeholder AS {name}",
        offsets.join(", ")
    );
    let mut copied = parsed_query(&text);
    let SetExpr::Select(select) = copied.body.as_mut() else {
        return Err(refusal("hop() must stand over a table or a subquery", relation));
    };
    let inner = select.from.first_mut().and_then(|from| from.joins.first_mut());
    let inner = inner.map(|join| &mut join.relation).expect("the text above has one join");
    let alias = match inner {
        TableFactor::Table { alias, .. } => alias.clone(),
        _ => None,
    };
    std::mem::swap(inner, relation);
    set_alias(inner, alias.clone());
    *relation = TableFactor::Derived {
        lateral: false,
        subquery: Box::new(copied),
        alias,
        sample: None,
    };
    Ok(format!(
        "date_bin({}, {name}.{TIME_COLUMN}) - {name}.{HOPS}",
        interval(call.slide_seconds)
    ))
}

fn set_alias(relation: &mut TableFactor, new: Option<TableAlias>) {
    if let TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } = relation {
        *alias = new;
    }
}

/// The expression that names the event time of a FROM's first table; a subquery is made to hand it up.
fn event_time_of(relation: &mut TableFactor) -> Result<Expr, Refusal> {
    let qualifier = match relation {
        TableFactor::Table { name, alias, .. } => match alias {
            Some(alias) => vec![alias.name.clone()],
            None => name.0.iter().filter_map(|part| part.as_ident().cloned()).collect(),
        },
        TableFactor::Derived { subquery, alias, .. } => {
            hand_time_up(&mut subquery.body)?;
            alias.iter().map(|alias| alias.name.clone()).collect()
        }
        other => return Err(refusal("a window must stand over a table or a subquery", other)),
    };
    let mut path = qualifier;
    path.push(Ident::new(TIME_COLUMN));
    Ok(Expr::CompoundIdentifier(path))
}

fn hand_time_up(body: &mut SetExpr) -> Result<(), Refusal> {
    match body {
        SetExpr::Select(select) => {
            let Some(from) = select.from.first_mut() else {
                return Err(refusal("a window needs a table whose event time it can go by", select.as_ref()));
            };
            let time = event_time_of(&mut from.relation)?;
            select.projection.push(SelectItem::ExprWithAlias {
                expr: time,
                alias: Ident::new(TIME_COLUMN),
            });
            Ok(())
        }
        SetExpr::Query(query) => hand_time_up(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            hand_time_up(left)?;
            hand_time_up(right)
        }
        other => Err(refusal("a window must stand over a table or a subquery", other)),
    }
}

/// A call of `tumble` or `hop`; `None` for any other expression.
fn window_call(expr: &Expr) -> Option<Result<Found, Refusal>> {
    let Expr::Function(function) = expr else { return None };
    let name = function.name.to_string().to_ascii_lowercase();
    let is_hop = match name.as_str() {
        "tumble" => false,
        "hop" => true,
        _ => return None,
    };
    let FunctionArguments::List(list) = &function.args else {
        return Some(Err(wrong_call(expr, is_hop)));
    };
    let seconds: Option<Vec<i64>> = list.args.iter().map(argument_seconds).collect();
    let (slide_seconds, width_seconds) = match (is_hop, seconds.as_deref()) {
        (false, Some([width])) => (*width, *width),
        (true, Some([slide, width])) => (*slide, *width),
        _ => return Some(Err(wrong_call(expr, is_hop))),
    };
    if slide_seconds > width_seconds || width_seconds % slide_seconds != 0 || width_seconds / slide_seconds > COPIES_MAX {
        let message = format!("hop(slide, width): the width is a whole multiple of the slide, {COPIES_MAX} times at the most");
        return Some(Err(refusal(&message, expr)));
    }
    let (_, line, column) = refusal("", expr);
    Some(Ok(Found {
        width_seconds,
        slide_seconds,
        place: (line, column),
    }))
}

fn wrong_call(expr: &Expr, is_hop: bool) -> Refusal {
    let message = match is_hop {
        true => {
            "write the window as hop(interval '1 minute', interval '5 minutes'): slide, then width; whole minutes or hours, up to one day"
        }
        false => "write the window as tumble(interval '1 minute'): whole minutes or hours, up to one day",
    };
    refusal(message, expr)
}

fn argument_seconds(argument: &FunctionArg) -> Option<i64> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Interval(parts))) = argument else {
        return None;
    };
    let Expr::Value(value) = parts.value.as_ref() else {
        return None;
    };
    let Value::SingleQuotedString(text) = &value.value else {
        return None;
    };
    let unit = parts.leading_field.as_ref().map(ToString::to_string).unwrap_or_default();
    interval_seconds(&format!("{text} {unit}"))
}

/// `5 minutes` as seconds; months have no length.
fn interval_seconds(text: &str) -> Option<i64> {
    let mut words = text.split_whitespace();
    let count: i64 = words.next()?.parse().ok()?;
    let unit = match words.next()?.to_ascii_lowercase().trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        _ => return None,
    };
    let seconds = count.checked_mul(unit)?;
    (words.next().is_none() && seconds > 0).then_some(seconds)
}

/// Whole minutes that divide a day: lengths of windows that do not straddle one.
pub fn interval_minutes(text: &str) -> Option<i64> {
    let seconds = interval_seconds(text)?;
    let minutes = seconds / 60;
    (seconds % 60 == 0 && MINUTES_PER_DAY % minutes == 0).then_some(minutes)
}

fn interval(seconds: i64) -> String {
    match seconds % 60 {
        0 if seconds == 60 => "INTERVAL '1 minute'".to_string(),
        0 => format!("INTERVAL '{} minutes'", seconds / 60),
        _ => format!("INTERVAL '{seconds} seconds'"),
    }
}

fn parsed(text: &str) -> Expr {
    Parser::new(&GenericDialect {})
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_expr())
        .expect("made of names, intervals and fixed words")
}

fn parsed_query(text: &str) -> Query {
    Parser::new(&GenericDialect {})
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_query())
        .map(|query| *query)
        .expect("made of names, intervals and fixed words")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
    use datafusion::common::TableReference;
    use datafusion::prelude::SessionContext;
    use datafusion::sql::parser::Statement as DfStatement;
    use datafusion::sql::sqlparser::ast::Statement;
    use serde_json::Value;

    use super::*;

    /// The inputs and golden outputs of Arroyo's own tests. `None`, with a line: they are not on this machine.
    #[allow(clippy::disallowed_methods)] // Tests have no settings.
    fn fixture(name: &str) -> Option<Vec<Value>> {
        let folder = match std::env::var_os("PLAYHEAD_FIXTURES") {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures")),
        };
        let path = folder.join("windows/arroyo").join(name);
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("skipped: no {}; set PLAYHEAD_FIXTURES", path.display());
            return None;
        };
        Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// Counters by their time, under a name that pipelines read.
    fn impulses(rows: &[Value]) -> SessionContext {
        let time = |row: &Value| {
            let time = chrono::DateTime::parse_from_rfc3339(row["timestamp"].as_str().unwrap());
            time.unwrap().timestamp_micros()
        };
        let times: TimestampMicrosecondArray = rows.iter().map(|row| Some(time(row))).collect();
        let counters: Int64Array = rows.iter().map(|row| row["counter"].as_i64()).collect();
        let columns: [(&str, ArrayRef); 2] = [(TIME_COLUMN, Arc::new(times)), ("counter", Arc::new(counters))];
        let context = SessionContext::new();
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        context.register_batch("impulse", rows).unwrap();
        assert!(context.table_exist(TableReference::bare("impulse")).unwrap());
        context
    }

    async fn answers(context: &SessionContext, text: &str) -> Vec<Value> {
        let mut query = parsed_query(text);
        give_meaning(&mut query).unwrap();
        let statement = DfStatement::Statement(Box::new(Statement::Query(Box::new(query))));
        let plan = context.state().statement_to_plan(statement).await.unwrap();
        let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
        let mut writer = arrow::json::ArrayWriter::new(Vec::new());
        writer.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
        writer.finish().unwrap();
        serde_json::from_slice(&writer.into_inner()).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_hop_window_gives_the_rows_of_arroyos_own_test() {
        let (Some(inputs), Some(golden)) = (fixture("inputs/impulse.json"), fixture("golden/sliding_window_end.json")) else {
            return;
        };
        let rows = answers(
            &impulses(&inputs),
            "SELECT window.start AS start, window.end AS end, count, min, max FROM ( \
             SELECT hop(interval '2 seconds', interval '10 seconds') AS window, count(*) AS count, min(counter) AS min, max(counter) AS max \
             FROM impulse GROUP BY window) AS windows ORDER BY start",
        )
        .await;
        assert_eq!(rows, golden);
    }

    #[tokio::test]
    async fn hop_over_a_subquery_and_tumble_count_each_row_as_often_as_it_lies_in_a_window() {
        let rows: Vec<Value> = (0..100)
            .map(|second| serde_json::json!({"timestamp": format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60), "counter": second}))
            .collect();
        let context = impulses(&rows);
        let total = |window: &str| {
            format!(
                "SELECT sum(n) AS n FROM (SELECT {window} AS window, count(*) AS n FROM \
                 (SELECT counter FROM impulse WHERE counter < 50 UNION ALL SELECT counter FROM impulse WHERE counter >= 50) AS both \
                 GROUP BY window) AS windows"
            )
        };
        let hopped = answers(&context, &total("hop(interval '10 seconds', interval '1 minute')")).await;
        assert_eq!(hopped[0]["n"], 600);
        let tumbled = answers(&context, &total("tumble(interval '10 seconds')")).await;
        assert_eq!(tumbled[0]["n"], 100);
    }
}
