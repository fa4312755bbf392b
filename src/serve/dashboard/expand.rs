//! The SQL of a panel with its macros and variables put in, as Grafana's PostgreSQL data source does it.
//!
//! Stands between a dashboard file and the SQL session. Grafana puts the variables in first, in the
//! browser, and looks for macros in what came out of it; here both happen in one walk over the author's
//! text, so a value that looks like a macro stays a value.
//!
//! Invariant: a value stays inside the literal, the list or the name that the author gave it a place in.
//! Where Grafana would let it out (a value with a quote in `${x:raw}`), it is refused by name.

use super::macros;
use super::reference::{Reference, reference};
use super::scope::{Chosen, Scope, interval_text};

/// Why a panel's SQL cannot be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error("there is no macro ${0}")]
    UnknownMacro(String),
    #[error("macro ${0} needs a time column")]
    NoColumn(String),
    #[error("macro ${0} needs a time column and an interval")]
    NoStep(String),
    #[error("`{0}` is no interval; write it as 30s, 5m, 1h or 1d")]
    BadStep(String),
    #[error("`{0}` fills no gaps; write NULL, previous or a number")]
    BadFill(String),
    #[error("{0} ms after 1970 is no time")]
    BadTime(i64),
    #[error("macro ${0} stands inside quotes; take it out of them")]
    MacroInQuotes(String),
    #[error("format :{1} of variable {0} is not known; use :csv, :raw, :sqlstring or none")]
    UnknownFormat(String, String),
    #[error("variable {0} has a value that is no plain word, and stands where only one may; put it in quotes, or use :sqlstring")]
    NotAWord(String),
    #[error("variable {0} brings its own quotes and stands inside quotes; take these away, or use :csv")]
    QuotedTwice(String),
    #[error("text between dollar signs ($$) cannot be told from variables; use single quotes")]
    DollarQuotes,
}

/// Completes the SQL of a target or a variable.
///
/// # Errors
/// A macro or a format that there is not, or a value where it could get out of its place.
pub fn expand(sql: &str, scope: &Scope) -> Result<String, ExpandError> {
    let mut walk = Walk {
        sql,
        at: 0,
        out: String::with_capacity(sql.len()),
        place: Place::Code,
    };
    while walk.at < sql.len() {
        let rest = &sql[walk.at..];
        match reference(rest) {
            Some(found) => walk.put_in(&found, scope)?,
            None => walk.copy_one(rest)?,
        }
    }
    Ok(walk.out)
}

/// Where in the SQL a reference stands: what its value may hold depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Code,
    /// Between single quotes; `true` after an E, where a backslash escapes.
    Literal(bool),
    /// Between double quotes.
    Name,
}

struct Walk<'a> {
    sql: &'a str,
    at: usize,
    out: String,
    place: Place,
}

impl Walk<'_> {
    fn put_in(&mut self, found: &Reference, scope: &Scope) -> Result<(), ExpandError> {
        if let Some(chosen) = scope.variables.get(found.name) {
            let text = value_text(found, chosen, self.place)?;
            if text.starts_with('\'') && ends_with_e(&self.out) {
                return Err(ExpandError::QuotedTwice(found.name.to_owned()));
            }
            self.out.push_str(&text);
            self.at += found.bytes;
        } else if let Some(text) = of_the_range(found.name, scope) {
            self.out.push_str(&text);
            self.at += found.bytes;
        } else if let Some(arguments) = found.arguments {
            let text = self.macro_text(found, arguments, scope)?;
            self.out.push_str(&text);
            self.at += found.bytes_with_arguments();
        } else {
            // Grafana leaves what it does not know as it is; `$1` of a prepared statement, for one.
            let end = self.at + found.bytes;
            if self.sql[end..].starts_with('$') && self.place == Place::Code {
                return Err(ExpandError::DollarQuotes);
            }
            self.out.push_str(&self.sql[self.at..end]);
            self.at = end;
        }
        Ok(())
    }

    fn macro_text(&self, found: &Reference, arguments: &str, scope: &Scope) -> Result<String, ExpandError> {
        if self.place != Place::Code {
            return Err(ExpandError::MacroInQuotes(found.name.to_owned()));
        }
        let arguments = arguments.split(',').map(|argument| expand(argument.trim_matches(' '), scope));
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        // The data source looks at the first place with the same text, and so do we.
        let whole = &self.sql[self.at..self.at + found.bytes_with_arguments()];
        let after = self.sql.find(whole).map(|first| &self.sql[first + whole.len()..]);
        let name = match (found.name, after) {
            ("__timeGroup", Some(after)) if after.starts_with(',') => "__timeGroupAlias",
            (name, _) => name,
        };
        macros::evaluate(name, &arguments, scope)
    }

    /// Copies what is no reference, a comment as a whole, and notes where that leads.
    fn copy_one(&mut self, rest: &str) -> Result<(), ExpandError> {
        let Some(c) = rest.chars().next() else { return Ok(()) };
        let taken = match self.place {
            Place::Code if rest.starts_with("$$") => return Err(ExpandError::DollarQuotes),
            Place::Code if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            Place::Code if rest.starts_with("/*") => block_comment_bytes(rest),
            Place::Literal(true) if c == '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => c.len_utf8(),
        };
        self.place = match (self.place, c) {
            (Place::Code, '\'') => Place::Literal(ends_with_e(&self.out)),
            (Place::Code, '"') => Place::Name,
            (Place::Literal(_), '\'') | (Place::Name, '"') => Place::Code,
            (place, _) => place,
        };
        self.out.push_str(&rest[..taken]);
        self.at += taken;
        Ok(())
    }
}

/// Length of a block comment, those inside it included; all that is left if it does not end.
fn block_comment_bytes(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        at += match rest {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        if depth == 0 {
            break;
        }
    }
    at
}

fn ends_with_e(code: &str) -> bool {
    let mut last = code.chars().rev();
    let is_part_of_a_word = |c: char| c.is_alphanumeric() || c == '_';
    matches!(last.next(), Some('e' | 'E')) && !last.next().is_some_and(is_part_of_a_word)
}

/// What Grafana knows of the time range, numbers and spans: safe wherever they stand.
fn of_the_range(name: &str, scope: &Scope) -> Option<String> {
    let range_ms = scope.to_ms.saturating_sub(scope.from_ms);
    Some(match name {
        "__interval" => interval_text(scope.interval_ms),
        "__interval_ms" => scope.interval_ms.to_string(),
        "__from" => scope.from_ms.to_string(),
        "__to" => scope.to_ms.to_string(),
        "__range_ms" => range_ms.to_string(),
        "__range_s" => (range_ms / 1000).to_string(),
        "__range" => format!("{}s", range_ms / 1000),
        _ => return None,
    })
}

fn value_text(found: &Reference, chosen: &Chosen, place: Place) -> Result<String, ExpandError> {
    let name = || found.name.to_owned();
    let is_quoted = match found.format {
        None => matches!(chosen, Chosen::Many(_)),
        Some("sqlstring" | "singlequote") => true,
        Some("csv" | "raw" | "text") => false,
        Some(other) => return Err(ExpandError::UnknownFormat(name(), other.to_owned())),
    };
    let values = match chosen {
        Chosen::AsWritten(text) if place == Place::Code => return Ok(text.clone()),
        Chosen::AsWritten(value) | Chosen::One(value) => std::slice::from_ref(value),
        Chosen::Many(values) => values.as_slice(),
    };
    match place {
        // Nothing chosen: a list that holds no value, and is still a list.
        Place::Code if is_quoted && values.is_empty() => Ok("NULL".to_owned()),
        Place::Code if is_quoted => Ok(joined(values, |value| format!("'{}'", value.replace('\'', "''")))),
        Place::Literal(_) if is_quoted => Err(ExpandError::QuotedTwice(name())),
        Place::Literal(false) => Ok(joined(values, |value| value.replace('\'', "''"))),
        Place::Literal(true) => Ok(joined(values, |value| value.replace('\\', "\\\\").replace('\'', "''"))),
        _ if values.iter().all(|value| is_a_word(value)) => Ok(joined(values, str::to_owned)),
        _ => Err(ExpandError::NotAWord(name())),
    }
}

fn joined(values: &[String], each: impl Fn(&str) -> String) -> String {
    values.iter().map(|value| each(value)).collect::<Vec<_>>().join(",")
}

/// A name, a number or the end of one: nothing that could begin or end anything else in SQL.
fn is_a_word(value: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    !value.is_empty() && value.chars().all(is_plain) && !value.contains("--") && !value.starts_with('-') && !value.ends_with('-')
}

#[cfg(test)]
mod tests;
