//! Errors as clients of PostgreSQL know them: a code, a message, a place in their text.
//!
//! Invariant: a message says what to do and names no file of this machine.

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};

use crate::sql::SqlError;
use crate::telemetry::chain;

const ERROR: &str = "ERROR";
/// The connection ends with it.
pub const FATAL: &str = "FATAL";

pub const SYNTAX: &str = "42601";
pub const READ_ONLY: &str = "25006";
pub const NOT_SUPPORTED: &str = "0A000";
pub const TOO_MUCH: &str = "54000";
const DISK_FULL: &str = "53100";

pub fn refusal(code: &str, message: impl Into<String>) -> PgWireError {
    refusal_of(ERROR, code, message)
}

pub fn refusal_of(severity: &str, code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new(severity.to_owned(), code.to_owned(), message.into())))
}

/// What went wrong with a text.
pub fn of(error: &SqlError, text: &str) -> PgWireError {
    let mut info = ErrorInfo::new(ERROR.to_owned(), code(error).to_owned(), message(error));
    info.hint = hint(error).map(str::to_owned);
    let place = match error {
        SqlError::Query(error) => place_of(error),
        _ => None,
    };
    let position = place.and_then(|(line, column)| position(text, line, column));
    info.position = position.map(|position| position.to_string());
    PgWireError::UserError(Box::new(info))
}

fn message(error: &SqlError) -> String {
    match error {
        SqlError::Lake(_) => {
            tracing::warn!("a query found a table unreadable: {}", chain(error));
            "a table cannot be read just now; playhead's log says why".to_owned()
        }
        error => error.to_string(),
    }
}

fn hint(error: &SqlError) -> Option<&'static str> {
    match code(error) {
        DISK_FULL => Some("narrow the time range or group by less; what a query puts on disk is bounded, and so is the disk"),
        "53200" => Some("narrow the time range or group by less; the memory of queries is sql.memory in playhead's settings"),
        "42P01" => Some("SELECT table_schema, table_name FROM information_schema.tables lists what there is"),
        _ => None,
    }
}

fn code(error: &SqlError) -> &'static str {
    match error {
        SqlError::Timeout(_) => "57014",
        SqlError::Lake(_) => "58030",
        SqlError::Pipeline(_) => "XX000",
        SqlError::Query(error) => match error.find_root() {
            DataFusionError::SQL(..) => SYNTAX,
            DataFusionError::SchemaError(error, _) => match **error {
                SchemaError::FieldNotFound { .. } => "42703",
                SchemaError::AmbiguousReference { .. } => "42702",
                _ => "42701",
            },
            DataFusionError::Plan(message) => of_plan(message),
            DataFusionError::ResourcesExhausted(_) => "53200",
            DataFusionError::NotImplemented(_) => NOT_SUPPORTED,
            DataFusionError::ArrowError(error, _) => match **error {
                ArrowError::DivideByZero => "22012",
                ArrowError::ArithmeticOverflow(_) => "22003",
                ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
                // What does not fit into memory is put on disk, up to a bound.
                ArrowError::IoError(..) => DISK_FULL,
                _ => "22000",
            },
            DataFusionError::Execution(_) => "22000",
            DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ParquetError(_) => "58030",
            _ => "XX000",
        },
    }
}

/// The planner has one error for many things.
fn of_plan(message: &str) -> &'static str {
    let says = |words: &str| message.contains(words);
    if says("table '") && says("not found") {
        "42P01"
    } else if says("Invalid function") || says("table function '") {
        "42883"
    } else if says("DDL not supported") || says("DML not supported") || says("Statement not supported") {
        READ_ONLY
    } else if says("coerce") || says("argument types") {
        "42804"
    } else {
        SYNTAX
    }
}

/// Line and column, both from 1.
fn place_of(error: &DataFusionError) -> Option<(u64, u64)> {
    if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        return Some((span.start.line, span.start.column));
    }
    let DataFusionError::SQL(parser, _) = error.find_root() else {
        return None;
    };
    let text = parser.to_string();
    let (_, place) = text.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let column = column.trim_end_matches(|c: char| !c.is_ascii_digit());
    Some((line.parse().ok()?, column.parse().ok()?))
}

/// The same place, in letters from the beginning, from 1.
fn position(text: &str, line: u64, column: u64) -> Option<u64> {
    let before = usize::try_from(line.checked_sub(1)?).ok()?;
    let lines: Vec<&str> = text.split('\n').take(before + 1).collect();
    if lines.len() <= before || column == 0 {
        return None;
    }
    let letters: usize = lines[..before].iter().map(|line| line.chars().count() + 1).sum();
    u64::try_from(letters).ok()?.checked_add(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_letters_from_the_beginning() {
        assert_eq!(position("SELECT x", 1, 8), Some(8));
        assert_eq!(position("SELECT ü,\n  y FROM t", 2, 3), Some(13));
        assert_eq!(position("SELECT x", 3, 1), None);
        assert_eq!(position("SELECT x", 0, 1), None);
    }

    #[track_caller]
    fn check(error: DataFusionError, expected: &str) {
        let error = SqlError::Query(error);
        assert_eq!(code(&error), expected, "{error}");
    }

    #[test]
    fn errors_have_the_codes_of_postgresql() {
        check(DataFusionError::Plan("table 'playhead.gold.x' not found".to_owned()), "42P01");
        check(DataFusionError::Plan("DML not supported: Insert Into".to_owned()), READ_ONLY);
        check(DataFusionError::ResourcesExhausted("no".to_owned()).context("a join"), "53200");
        check(DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None), "22012");
    }
}
