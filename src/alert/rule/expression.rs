//! The columns that an SQL expression names.
//!
//! Stands under the reading of rules: an expression in, its column names with their places out. The
//! planner of the caller checks the rest.
//!
//! Invariant: what passes is one expression; no comment, statement or query gets through.

/// Words of SQL that are no columns; type names are there for `CAST`.
const SQL_WORDS: [&str; 31] = [
    "and",
    "or",
    "not",
    "in",
    "is",
    "null",
    "like",
    "ilike",
    "between",
    "true",
    "false",
    "case",
    "when",
    "then",
    "else",
    "end",
    "cast",
    "as",
    "escape",
    "distinct",
    "from",
    "bigint",
    "int",
    "integer",
    "double",
    "float",
    "varchar",
    "text",
    "boolean",
    "date",
    "timestamp",
];
/// Words that would make an expression a query.
const QUERY_WORDS: [&str; 6] = ["select", "union", "with", "insert", "delete", "update"];

/// The columns that an SQL expression names, with their offsets in characters; an error if the text
/// could be more than one expression.
pub(super) fn column_names(text: &str) -> Result<Vec<(usize, &str)>, String> {
    let mut names = Vec::new();
    let mut depth = 0usize;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let offset = text[..text.len() - rest.len()].chars().count();
        let length = match first {
            '\'' => quoted_length(rest, '\'')?,
            '"' => {
                let length = quoted_length(rest, '"')?;
                names.push((offset + 1, &rest[1..length - 1]));
                length
            }
            '0'..='9' => word_length(rest, |c| c.is_ascii_alphanumeric() || c == '.'),
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = word_length(rest, |c| c.is_ascii_alphanumeric() || c == '_');
                let word = &rest[..length];
                let lower = word.to_ascii_lowercase();
                if QUERY_WORDS.contains(&lower.as_str()) {
                    return Err(format!("`{word}` makes it a query"));
                }
                let is_call = rest[length..].trim_start().starts_with('(');
                if !is_call && !SQL_WORDS.contains(&lower.as_str()) {
                    names.push((offset, word));
                }
                length
            }
            '(' => {
                depth += 1;
                1
            }
            ')' => {
                depth = depth.checked_sub(1).ok_or("a `)` closes nothing")?;
                1
            }
            '-' if rest.starts_with("--") => return Err("a comment is not allowed here".into()),
            '/' if rest.starts_with("/*") => return Err("a comment is not allowed here".into()),
            '+' | '-' | '*' | '/' | '%' | '=' | '<' | '>' | '!' | ',' | '.' | '|' => 1,
            space if space.is_ascii_whitespace() => 1,
            other => return Err(format!("`{}` is not allowed here", other.escape_default())),
        };
        rest = &rest[length..];
    }
    if depth > 0 {
        return Err("a `(` is not closed".to_owned());
    }
    Ok(names)
}

fn word_length(text: &str, is_part: impl Fn(char) -> bool) -> usize {
    text.find(|c: char| !is_part(c)).unwrap_or(text.len())
}

/// Bytes of a quoted text from its first to its last quote; a doubled quote stands for itself.
fn quoted_length(text: &str, quote: char) -> Result<usize, String> {
    let mut start = 1;
    loop {
        let Some(found) = text[start..].find(quote) else {
            return Err(format!("a {quote} is not closed"));
        };
        let end = start + found + 1;
        if !text[end..].starts_with(quote) {
            return Ok(end);
        }
        start = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn an_expression_is_one_expression() {
        check(
            "den: clients}",
            r#"den: "(clients"}"#,
            r#"
alerts/a.yaml:10:56: a `(` is not closed, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "(clients"}}
      |                                                        ^^^^^^^^^^ write one SQL expression over the columns of the table
"#,
        );
        check(
            "den: clients}",
            r#"den: "clients; DROP TABLE x"}"#,
            r#"
alerts/a.yaml:10:56: `;` is not allowed here, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "clients; DROP TABLE x"}}
      |                                                        ^^^^^^^^^^^^^^^^^^^^^^^ write one SQL expression over the columns of the table
"#,
        );
        check(
            "den: clients}",
            r#"den: "(SELECT 1)"}"#,
            r#"
alerts/a.yaml:10:56: `SELECT` makes it a query, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "(SELECT 1)"}}
      |                                                        ^^^^^^^^^^^^ write one SQL expression over the columns of the table
"#,
        );
        check(
            "den: clients}",
            r#"den: "clients -- all"}"#,
            r#"
alerts/a.yaml:10:56: a comment is not allowed here, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "clients -- all"}}
      |                                                        ^^^^^^^^^^^^^^^^ write one SQL expression over the columns of the table
"#,
        );
        check(
            "den: clients}",
            r#"den: "clients'"}"#,
            r#"
alerts/a.yaml:10:56: a ' is not closed, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "clients'"}}
      |                                                        ^^^^^^^^^^ write one SQL expression over the columns of the table
"#,
        );
        check(
            "{ratio: {num: clients_with_errors, den: clients}}",
            "{ratio: {num: clients_with_errors}}",
            r"
alerts/a.yaml:10:24: `den` is missing, at groups[0].rules[0].value.ratio
   10 |         value: {ratio: {num: clients_with_errors}}
      |                        ^ name a column or an expression over columns
",
        );
    }
}
