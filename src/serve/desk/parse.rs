//! From text to statements, in PostgreSQL's dialect and as its clients write them.
//!
//! Invariant: what is handed on as a question only reads.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::sql::parser::Statement as PlannedStatement;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Statement, visit_relations_mut};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;

use super::names::{COLUMNS, DESCRIBED};
use crate::sql::SqlError;

/// Refuses what a plan would change, should anything get past `Question`.
pub static READ_ONLY: LazyLock<SQLOptions> = LazyLock::new(|| {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
});

static PARSER: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// One statement that reads.
#[derive(Debug, Clone)]
pub struct Question(Box<Statement>);

impl Question {
    /// `None`: the statement does something else than reading.
    pub fn of(statement: Statement) -> Option<Question> {
        let reads = match &statement {
            Statement::Query(_) | Statement::ShowTables { .. } | Statement::ShowColumns { .. } | Statement::ExplainTable { .. } => true,
            Statement::Explain { statement, .. } => matches!(**statement, Statement::Query(_)),
            _ => false,
        };
        reads.then(|| Question(Box::new(statement)))
    }

    pub fn statement(&self) -> &Statement {
        &self.0
    }

    pub(super) fn into_statement(self) -> PlannedStatement {
        PlannedStatement::Statement(self.0)
    }
}

/// All statements of a text.
///
/// # Errors
/// The text is no SQL; the message says where.
pub fn parse(text: &str) -> Result<Vec<Statement>, SqlError> {
    let no_sql = |error| DataFusionError::SQL(Box::new(error), None);
    let text = without_search_path(text);
    // Its stand-ins are for questions about the catalogue, and it forgets where in the text things stand.
    let mut statements = match text.contains("pg_") {
        true => PARSER.parse(&text).map_err(no_sql)?,
        false => {
            let statements = Parser::parse_sql(&PostgreSqlDialect {}, &text).map_err(no_sql)?;
            statements.into_iter().map(|statement| PARSER.rewrite(statement)).collect()
        }
    };
    statements.iter_mut().for_each(lead_to_described);
    Ok(statements)
}

/// `information_schema.columns` is asked where its types have PostgreSQL's names.
fn lead_to_described(statement: &mut Statement) {
    let _ = visit_relations_mut(statement, |name| {
        let parts: Vec<String> = name
            .0
            .iter()
            .map(|part| part.to_string().trim_matches('"').to_lowercase())
            .collect();
        if let [.., schema, table] = parts.as_slice()
            && schema == "information_schema"
            && table == COLUMNS
        {
            *name = ObjectName::from(vec![Ident::new(DESCRIBED), Ident::new(COLUMNS)]);
        }
        ControlFlow::<()>::Continue(())
    });
}

/// Grafana's query builder asks for the tables of the search path by taking a setting apart with constructs
/// that the engine lacks, and the parser's own stand-in finds none. The path is always the same.
fn without_search_path(text: &str) -> Cow<'_, str> {
    const FIRST: &str = "CASE WHEN trim(s[i])";
    const LAST: &str = "string_to_array(current_setting('search_path'),',') s";
    let found = text.find(FIRST).and_then(|first| Some((text[..first].rfind("SELECT")?, first)));
    let Some((start, first)) = found else { return Cow::Borrowed(text) };
    match text[first..].find(LAST) {
        Some(length) => Cow::Owned(format!("{}'gold'{}", &text[..start], &text[first + length + LAST.len()..])),
        None => Cow::Borrowed(text),
    }
}

/// The one question of a text.
///
/// # Errors
/// As `parse`; or there is not exactly one statement, or it does not only read.
pub fn single(text: &str) -> Result<Question, SqlError> {
    let refused = |message: &str| DataFusionError::Plan(message.to_owned());
    let mut statements = parse(text)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(Question::of(statement).ok_or_else(|| refused("only SELECT, SHOW and EXPLAIN are answered"))?),
        (None, _) => Err(refused("there is no statement in the text").into()),
        (Some(_), false) => Err(refused("more than one statement; ask one at a time").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_is_a_question() {
        for (text, reads) in [
            ("SELECT 1", true),
            ("EXPLAIN SELECT 1", true),
            ("EXPLAIN ANALYZE SELECT 1", true),
            ("INSERT INTO t VALUES (1)", false),
            ("EXPLAIN ANALYZE INSERT INTO t VALUES (1)", false),
            ("CREATE TABLE t AS SELECT 1", false),
            ("COPY t TO 'x'", false),
            ("SET a = 1", false),
        ] {
            let mut statements = parse(text).expect("it is SQL");
            let statement = statements.pop().expect("there is one");
            assert_eq!(Question::of(statement).is_some(), reads, "{text}");
        }
        assert!(single("SELECT 1; SELECT 2").is_err());
        assert!(single("").is_err());
    }

    #[test]
    fn an_error_names_its_place() {
        let error = parse("SELECT a,\n FROM WHERE").expect_err("it is no SQL").to_string();
        assert!(error.contains("at Line: 2"), "{error}");
    }

    #[test]
    fn the_search_path_of_grafanas_builder_is_gold() {
        let text = "SELECT a WHERE b IN (\n SELECT CASE WHEN trim(s[i]) = 'x' THEN user ELSE trim(s[i]) END FROM y, string_to_array(current_setting('search_path'),',') s\n) AND c";
        assert_eq!(without_search_path(text), "SELECT a WHERE b IN (\n 'gold'\n) AND c");
        assert_eq!(without_search_path("SELECT 1"), "SELECT 1");
    }
}
