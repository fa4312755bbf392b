//! The dialect that both engines run: what a pipeline may not use, and why. `docs/pipelines.md` lists it.
//!
//! Stands between the parser and everything that gives a pipeline a meaning. The reasons are Arroyo's:
//! its planner refuses these texts, makes a retracting stream of them that no gold table takes, or
//! computes something else than here.
//!
//! Invariant: what is refused is refused with its line and its reason; a file that says it runs here only
//! is still held to what a table needs: no order, no limit, no look-ups of rows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::functions_aggregate::all_default_aggregate_functions;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, DuplicateTreatment, Expr, Function, FunctionArguments, GroupByExpr, JoinConstraint, JoinOperator, ObjectName,
    Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier, TableFactor, TableWithJoins, TimezoneInfo, Value, WindowType,
    visit_expressions, visit_relations,
};

use super::{Refusal, refusal};

/// Silver that no relay publishes: what is in them names places in sources, and nothing else.
const NOT_RELAYED: [&str; 2] = ["silver.rejects", "silver.duplicates"];
/// Aggregates of ours that Arroyo cannot have: its plugin compiles none over bytes.
const MERGES: [&str; 2] = ["sketch_merge", "distinct_merge"];
/// Aggregates of `pipelines/udfs` and of ours.
const OUR_AGGREGATES: [&str; 4] = ["sketch_build", "distinct_build", "concurrent_peak", "weighted_mean"];
/// Functions that Arroyo runs over the rows of one window.
const RANKS: [&str; 3] = ["row_number", "rank", "dense_rank"];

const ORDER: &str = "ORDER BY cannot stand in a pipeline: Arroyo has none, and rows of a table have no order; sort where you query";
const LIMIT: &str = "LIMIT cannot stand in a pipeline: Arroyo has none, and it would drop rows silently";
const LOOK_UP: &str = "IN (SELECT ...), EXISTS and SELECT as a value do not run on Arroyo; use a join";
const NO_WINDOW: &str = "an aggregate without a window: Arroyo would retract and repeat its rows for ever, which no gold table takes; group by a \
     window, `tumble(interval '1 minute') AS window ... GROUP BY window`";
const TWO_WINDOWS: &str = "a second window: Arroyo knows one in a GROUP BY, and none over the rows of another window";
const JOINS: &str = "Arroyo joins what the same window closed: JOIN two subqueries that each GROUP BY their window, ON one.window = other.window \
     AND ...; other rows it would hold for a day and give the later time";

const COUNT_FILTER: &str = "write count(CASE WHEN the condition THEN 1 END): Arroyo's count(...) FILTER also counts rows whose condition is NULL, \
     as that of `startup_ms <= 500` is where startup_ms is";

/// Names of the columns that hold a window.
type Windows = BTreeSet<String>;

/// Refuses what cannot stand in a pipeline; of a file that runs `here_only`, what no table can have.
pub fn check(query: &Query, here_only: bool) -> Result<(), Refusal> {
    rows_of_a_table(query)?;
    if here_only {
        return Ok(());
    }
    expressions(query)?;
    relations(query)?;
    Checker { ctes: BTreeMap::new() }.query(query).map(drop)
}

/// No order, no limit, no look-up of rows, wherever it stands.
fn rows_of_a_table(query: &Query) -> Result<(), Refusal> {
    if let Some(order_by) = &query.order_by {
        return Err(refusal(ORDER, order_by));
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return Err(refusal(LIMIT, query));
    }
    found(visit_expressions(query, |expr| match expr {
        Expr::InSubquery { .. } | Expr::Exists { .. } | Expr::Subquery(_) => ControlFlow::Break(refusal(LOOK_UP, expr)),
        _ => ControlFlow::Continue(()),
    }))
}

fn found(flow: ControlFlow<Refusal>) -> Result<(), Refusal> {
    match flow {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn relations(query: &Query) -> Result<(), Refusal> {
    found(visit_relations(query, |relation: &ObjectName| {
        let name = relation.to_string().to_ascii_lowercase();
        match NOT_RELAYED.contains(&name.as_str()) {
            true => {
                let message = format!("`{name}` is not relayed: Arroyo has no such rows");
                ControlFlow::Break(refusal(&message, relation))
            }
            false => ControlFlow::Continue(()),
        }
    }))
}

/// Rules that need no more than the expression itself.
fn expressions(query: &Query) -> Result<(), Refusal> {
    found(visit_expressions(query, |expr| match complaint(expr) {
        Some(message) => ControlFlow::Break(refusal(&message, expr)),
        None => ControlFlow::Continue(()),
    }))
}

fn complaint(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Function(function) => function_complaint(function),
        Expr::Cast { data_type, .. } if has_zone(data_type) => {
            Some("Arroyo's timestamps have no zone; every time here is UTC, write TIMESTAMP".to_string())
        }
        Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => {
            Some("GROUPING SETS, CUBE and ROLLUP do not run on Arroyo; write a file for each grouping".to_string())
        }
        _ => None,
    }
}

fn has_zone(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz))
}

fn function_complaint(function: &Function) -> Option<String> {
    let name = name_of(function);
    if name == "session" {
        return Some("session(gap) cannot stand in a pipeline: sessions are made by the daemon; read silver.playback_sessions".to_string());
    }
    if MERGES.contains(&name.as_str()) {
        return Some(format!(
            "{name}() does not run on Arroyo, whose plugin compiles no aggregate over bytes; build the sketch from the values"
        ));
    }
    if function.over.is_some() {
        return over_complaint(function, &name);
    }
    if name == "count" && function.filter.is_some() && !is_distinct(function) {
        return Some(COUNT_FILTER.to_string());
    }
    let is_percentile = name.starts_with("approx_percentile_cont") || name == "percentile_cont";
    if is_percentile && function.within_group.is_empty() {
        return Some(format!(
            "write {name}(0.95) WITHIN GROUP (ORDER BY x): Arroyo refuses the form with two arguments"
        ));
    }
    None
}

fn is_distinct(function: &Function) -> bool {
    matches!(&function.args, FunctionArguments::List(list) if list.duplicate_treatment == Some(DuplicateTreatment::Distinct))
}

fn over_complaint(function: &Function, name: &str) -> Option<String> {
    let by_window = match &function.over {
        Some(WindowType::WindowSpec(spec)) => spec.partition_by.iter().any(|expr| last_name(expr).as_deref() == Some("window")),
        _ => false,
    };
    let is_rank = RANKS.contains(&name);
    (!is_rank || !by_window).then(|| {
        format!("{name}() OVER does not run on Arroyo: it knows no row before another; row_number, rank and dense_rank OVER (PARTITION BY window, ...) do")
    })
}

struct Checker {
    ctes: BTreeMap<String, Windows>,
}

impl Checker {
    /// The window columns that a query hands up.
    fn query(&mut self, query: &Query) -> Result<Windows, Refusal> {
        rows_of_a_table(query)?;
        if let Some(with) = &query.with {
            if with.recursive {
                return Err(refusal("WITH RECURSIVE does not run on Arroyo", with));
            }
            for cte in &with.cte_tables {
                let windows = self.query(&cte.query)?;
                self.ctes.insert(cte.alias.name.value.to_ascii_lowercase(), windows);
            }
        }
        self.set(&query.body)
    }

    fn set(&mut self, body: &SetExpr) -> Result<Windows, Refusal> {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation {
                op,
                set_quantifier,
                left,
                right,
            } => {
                if *op != SetOperator::Union || *set_quantifier != SetQuantifier::All {
                    return Err(refusal(
                        "only UNION ALL runs on Arroyo: it would have to hold all rows for ever to know which are the same",
                        body,
                    ));
                }
                let (left, right) = (self.set(left)?, self.set(right)?);
                Ok(left.intersection(&right).cloned().collect())
            }
            other => Err(refusal("a pipeline reads tables: no VALUES, no TABLE", other)),
        }
    }

    fn select(&mut self, select: &Select) -> Result<Windows, Refusal> {
        plain(select)?;
        let handed = self.from(select)?;
        let calls = window_calls(select)?;
        let own: Windows = select.projection.iter().filter_map(own_window).collect();
        if calls > 0 && !handed.is_empty() {
            return Err(refusal(TWO_WINDOWS, select));
        }
        one_level_up(select, &own)?;
        if is_aggregated(select) && !goes_by_window(select, &own, &handed) {
            return Err(match first_aggregate(select) {
                Some(item) => refusal(NO_WINDOW, item),
                None => refusal(NO_WINDOW, select),
            });
        }
        if calls > 0 && !is_aggregated(select) {
            return Err(refusal(
                "a window without GROUP BY: Arroyo knows windows in aggregates only",
                select,
            ));
        }
        let passed = select.projection.iter().filter_map(|item| match item {
            SelectItem::UnnamedExpr(expr) => last_name(expr).filter(|name| handed.contains(name)),
            SelectItem::ExprWithAlias { expr, alias } => last_name(expr)
                .filter(|name| handed.contains(name))
                .map(|_| alias.value.to_ascii_lowercase()),
            _ => None,
        });
        Ok(passed.chain(own.iter().cloned()).collect())
    }

    /// The window columns of what a SELECT reads.
    fn from(&mut self, select: &Select) -> Result<Windows, Refusal> {
        let [from] = &select.from[..] else {
            return Err(refusal(
                "a pipeline's SELECT reads one table, or tables joined by JOIN ... ON, in windows of tumble or hop",
                select,
            ));
        };
        let mut windows = self.relation(&from.relation)?;
        let TableWithJoins { joins, .. } = from;
        for join in joins {
            let other = self.relation(&join.relation)?;
            let constraint = match &join.join_operator {
                JoinOperator::Join(on)
                | JoinOperator::Inner(on)
                | JoinOperator::Left(on)
                | JoinOperator::LeftOuter(on)
                | JoinOperator::Right(on)
                | JoinOperator::RightOuter(on)
                | JoinOperator::FullOuter(on) => on,
                _ => return Err(refusal("only inner, left, right and full joins ON run on Arroyo", &join.relation)),
            };
            let JoinConstraint::On(on) = constraint else {
                return Err(refusal(
                    "write the join's condition as ON: Arroyo knows no USING, NATURAL or CROSS",
                    &join.relation,
                ));
            };
            if !is_on_windows(on, &windows, &other) {
                return Err(refusal(JOINS, on));
            }
            windows.extend(other);
        }
        Ok(windows)
    }

    fn relation(&mut self, relation: &TableFactor) -> Result<Windows, Refusal> {
        match relation {
            TableFactor::Table { name, args: None, .. } => {
                let name = name.to_string().to_ascii_lowercase();
                Ok(self.ctes.get(&name).cloned().unwrap_or_default())
            }
            TableFactor::Derived {
                lateral: false, subquery, ..
            } => self.query(subquery),
            other => Err(refusal(
                "a pipeline reads tables and subqueries: no LATERAL, no table functions",
                other,
            )),
        }
    }
}

/// Clauses that a SELECT may not have.
fn plain(select: &Select) -> Result<(), Refusal> {
    if select.distinct.is_some() {
        return Err(refusal(
            "SELECT DISTINCT does not run on Arroyo: it would have to hold all rows for ever; group by a window",
            select,
        ));
    }
    if let Some(qualify) = &select.qualify {
        return Err(refusal("QUALIFY does not run on Arroyo; filter one level up", qualify));
    }
    let modifiers = match &select.group_by {
        GroupByExpr::All(_) => return Err(refusal("GROUP BY ALL does not run on Arroyo; name the columns", &select.group_by)),
        GroupByExpr::Expressions(_, modifiers) => modifiers,
    };
    if !modifiers.is_empty() {
        return Err(refusal(
            "GROUPING SETS, CUBE and ROLLUP do not run on Arroyo; write a file for each grouping",
            &select.group_by,
        ));
    }
    if !select.lateral_views.is_empty() || select.top.is_some() || select.into.is_some() {
        return Err(refusal("LATERAL VIEW, TOP and INTO cannot stand in a pipeline", select));
    }
    let selection = select.selection.iter().chain(&select.having);
    for expr in selection {
        if let Some(call) = first(expr, &|expr| is_window_call(expr)) {
            return Err(refusal("a window stands in SELECT and GROUP BY only", &call));
        }
    }
    Ok(())
}

/// How many windows a SELECT calls; two different ones are refused.
fn window_calls(select: &Select) -> Result<usize, Refusal> {
    let mut calls: Vec<Expr> = Vec::new();
    let mut collect = |expr: &Expr| {
        if is_window_call(expr) {
            calls.push(expr.clone());
        }
        ControlFlow::<()>::Continue(())
    };
    for item in &select.projection {
        let _ = visit_expressions(item, &mut collect);
    }
    for expr in group(select) {
        let _ = visit_expressions(expr, &mut collect);
    }
    let other = calls.iter().find(|call| call.to_string() != calls[0].to_string());
    match other {
        Some(other) => Err(refusal(TWO_WINDOWS, other)),
        None => Ok(calls.len()),
    }
}

/// `window.start` of a window that the same SELECT makes is refused by Arroyo's planner.
fn one_level_up(select: &Select, own: &Windows) -> Result<(), Refusal> {
    let is_field = |expr: &Expr| match expr {
        Expr::CompoundIdentifier(path) => path.len() == 2 && own.contains(&path[0].value.to_ascii_lowercase()),
        Expr::CompoundFieldAccess { root, .. } => is_window_call(root),
        _ => false,
    };
    for item in &select.projection {
        if let Some(expr) = first(item, &is_field) {
            return Err(refusal(
                "read the window's start and end one query level up: SELECT window.start ... FROM (SELECT tumble(...) AS window ...)",
                &expr,
            ));
        }
    }
    Ok(())
}

fn group(select: &Select) -> &[Expr] {
    match &select.group_by {
        GroupByExpr::Expressions(group, _) => group,
        GroupByExpr::All(_) => &[],
    }
}

fn is_aggregated(select: &Select) -> bool {
    !group(select).is_empty() || first_aggregate(select).is_some()
}

fn first_aggregate(select: &Select) -> Option<&SelectItem> {
    select.projection.iter().find(|item| first(*item, &is_aggregate).is_some())
}

fn is_aggregate(expr: &Expr) -> bool {
    let Expr::Function(function) = expr else { return false };
    let name = name_of(function);
    let is_known = || {
        let known = all_default_aggregate_functions();
        known.iter().any(|known| known.name() == name || known.aliases().contains(&name))
    };
    function.over.is_none() && (OUR_AGGREGATES.contains(&name.as_str()) || is_known())
}

/// Does a GROUP BY name a window, its own or one that its rows bring along?
fn goes_by_window(select: &Select, own: &Windows, handed: &Windows) -> bool {
    group(select).iter().any(|expr| {
        let expr = match position(expr).and_then(|at| select.projection.get(at)) {
            Some(SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }) => item,
            _ => expr,
        };
        is_window_call(expr) || last_name(expr).is_some_and(|name| own.contains(&name) || handed.contains(&name))
    })
}

/// `GROUP BY 1`, counted from 0.
fn position(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse::<usize>().ok()?.checked_sub(1),
            _ => None,
        },
        _ => None,
    }
}

/// Is there an equality between windows of both sides among the conditions?
fn is_on_windows(on: &Expr, left: &Windows, right: &Windows) -> bool {
    let is_equal = |expr: &Expr| match expr {
        Expr::BinaryOp {
            left: one,
            op: BinaryOperator::Eq,
            right: other,
        } => {
            let names = (last_name(one), last_name(other));
            let of = |name: &Option<String>, windows: &Windows| name.as_ref().is_some_and(|name| windows.contains(name));
            (of(&names.0, left) && of(&names.1, right)) || (of(&names.0, right) && of(&names.1, left))
        }
        _ => false,
    };
    first(on, &is_equal).is_some()
}

fn own_window(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { expr, alias } if is_window_call(expr) => Some(alias.value.to_ascii_lowercase()),
        _ => None,
    }
}

fn is_window_call(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(function) if matches!(function.args, FunctionArguments::List(_)) && ["tumble", "hop"].contains(&name_of(function).as_str()))
}

fn name_of(function: &Function) -> String {
    function.name.to_string().to_ascii_lowercase()
}

/// The column's own name of `a` or `t.a`.
fn last_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(ident.value.to_ascii_lowercase()),
        Expr::CompoundIdentifier(path) => path.last().map(|ident| ident.value.to_ascii_lowercase()),
        _ => None,
    }
}

/// The first expression in `node` of which this is true.
fn first<N: datafusion::sql::sqlparser::ast::Visit>(node: &N, is_it: &impl Fn(&Expr) -> bool) -> Option<Expr> {
    let found = visit_expressions(node, |expr| match is_it(expr) {
        true => ControlFlow::Break(expr.clone()),
        false => ControlFlow::Continue(()),
    });
    found.break_value()
}
