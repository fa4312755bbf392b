//! What clients say beside their questions: settings of the connection, transactions that change nothing.
//!
//! Invariant: none of it reaches the desk, so no client changes anything for another.

use std::sync::Arc;
use std::time::Duration;

use datafusion::sql::sqlparser::ast::{Expr, Set, Statement};
use datafusion_postgres::pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::{ClientInfo, Type};
use datafusion_postgres::pgwire::error::PgWireResult;
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use futures_util::stream;

use super::refusal::refusal;
use crate::serve::desk::SETTINGS;

/// Where a connection keeps what was set.
const TIMEOUT: &str = "statement_timeout";
/// A client that sets more than this is not setting anything up.
const SETTINGS_MAX: usize = 200;

/// What a statement of this kind is answered with, as columns; `None`: it is a question.
pub fn columns(statement: &Statement) -> Option<Vec<FieldInfo>> {
    match statement {
        Statement::ShowVariable { variable } => Some(vec![column(&name_of(variable.iter().map(|part| part.value.as_str())))]),
        Statement::Set(_)
        | Statement::Reset(_)
        | Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::Savepoint { .. }
        | Statement::ReleaseSavepoint { .. }
        | Statement::Discard { .. }
        | Statement::Deallocate { .. }
        | Statement::Close { .. }
        | Statement::LISTEN { .. }
        | Statement::UNLISTEN { .. } => Some(Vec::new()),
        _ => None,
    }
}

fn column(name: &str) -> FieldInfo {
    FieldInfo::new(name.to_owned(), None, None, Type::TEXT, FieldFormat::Text)
}

/// Answers a statement of which `columns` knows.
pub fn reply<C: ClientInfo + ?Sized>(client: &mut C, statement: &Statement) -> PgWireResult<Response> {
    let done = |tag: &str| Ok(Response::Execution(Tag::new(tag)));
    match statement {
        Statement::ShowVariable { variable } => show(client, &name_of(variable.iter().map(|part| part.value.as_str()))),
        Statement::Set(set) => {
            keep(client, set);
            done("SET")
        }
        Statement::Reset(_) => {
            client.metadata_mut().remove(&key(TIMEOUT));
            done("RESET")
        }
        Statement::StartTransaction { .. } => Ok(Response::TransactionStart(Tag::new("BEGIN"))),
        Statement::Commit { .. } if client.transaction_status() == TransactionStatus::Error => {
            Ok(Response::TransactionEnd(Tag::new("ROLLBACK")))
        }
        Statement::Commit { .. } => Ok(Response::TransactionEnd(Tag::new("COMMIT"))),
        Statement::Rollback { savepoint: Some(_), .. } => done("ROLLBACK"),
        Statement::Rollback { .. } => Ok(Response::TransactionEnd(Tag::new("ROLLBACK"))),
        Statement::Savepoint { .. } => done("SAVEPOINT"),
        Statement::ReleaseSavepoint { .. } => done("RELEASE"),
        Statement::Discard { .. } => done("DISCARD ALL"),
        Statement::Deallocate { .. } => done("DEALLOCATE"),
        Statement::Close { .. } => done("CLOSE CURSOR"),
        Statement::LISTEN { .. } => done("LISTEN"),
        Statement::UNLISTEN { .. } => done("UNLISTEN"),
        _ => Err(refusal("XX000", "this statement has no answer")),
    }
}

/// The time that the client gives a statement at the most.
pub fn timeout<C: ClientInfo + ?Sized>(client: &C) -> Option<Duration> {
    let said = client.metadata().get(&key(TIMEOUT)).or_else(|| client.metadata().get(TIMEOUT))?;
    span(said).filter(|timeout| !timeout.is_zero())
}

/// `SHOW TIME ZONE` and `SHOW TRANSACTION ISOLATION LEVEL` are settings too.
fn name_of<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let name = parts.collect::<Vec<_>>().join("_").to_lowercase();
    match name.as_str() {
        "time_zone" => "timezone".to_owned(),
        "transaction_isolation_level" => "transaction_isolation".to_owned(),
        _ => name,
    }
}

fn key(name: &str) -> String {
    format!("set {name}")
}

fn show<C: ClientInfo + ?Sized>(client: &C, name: &str) -> PgWireResult<Response> {
    let said = client.metadata().get(&key(name)).or_else(|| client.metadata().get(name));
    let usual = SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let Some(value) = said.map(String::as_str).or(usual) else {
        return Err(refusal("42704", format!("unrecognized configuration parameter \"{name}\"")));
    };
    let fields = Arc::new(vec![column(name)]);
    let mut row = DataRowEncoder::new(Arc::clone(&fields));
    row.encode_field(&Some(value))?;
    let row = row.take_row();
    Ok(Response::Query(QueryResponse::new(fields, stream::iter([Ok(row)]))))
}

fn keep<C: ClientInfo + ?Sized>(client: &mut C, set: &Set) {
    let (name, value) = match set {
        Set::SingleAssignment { variable, values, .. } => (variable.to_string().to_lowercase(), values.first()),
        Set::SetTimeZone { value, .. } => ("timezone".to_owned(), Some(value)),
        _ => return,
    };
    // Times are told in UTC whatever is set, and text in UTF-8.
    let is_fixed = matches!(name.as_str(), "timezone" | "client_encoding" | "search_path" | "datestyle");
    let metadata = client.metadata_mut();
    if let Some(value) = value
        && !is_fixed
        && metadata.len() < SETTINGS_MAX
    {
        metadata.insert(key(&name), plain(value));
    }
}

fn plain(value: &Expr) -> String {
    value.to_string().trim_matches(|c| c == '\'' || c == '"').to_owned()
}

/// `500`, `500ms`, `30s`, `1min`.
fn span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit_ms = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.saturating_mul(unit_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_written_as_postgresql_writes_it() {
        assert_eq!(span("500"), Some(Duration::from_millis(500)));
        assert_eq!(span("30s"), Some(Duration::from_secs(30)));
        assert_eq!(span("2 min"), Some(Duration::from_secs(120)));
        assert_eq!(span("soon"), None);
    }
}
