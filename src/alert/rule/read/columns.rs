//! Columns: expressions over them, and lists of them.
//!
//! Stands in the reading of rules, over the catalogue of tables and `expression`.
//!
//! Invariant: every column that a rule names is in its table.

use serde_saphyr::Location;

use super::super::complaint::{did_you_mean, listed};
use super::super::expression::column_names;
use super::super::yaml::{place, source_line, width};
use super::FileReader;
use super::field::Entry;
use crate::alert::message;
use crate::alert::transition::RULE_STATE;

impl FileReader<'_, '_> {
    /// An SQL expression whose columns exist. The planner of the caller checks the rest.
    pub(super) fn expression(&mut self, entry: &Entry, columns: Option<&[String]>) -> Option<String> {
        let text = self.text_of(entry, "write an SQL expression over columns")?;
        let names = match column_names(&text) {
            Ok(names) => names,
            Err(message) => {
                let fix = "write one SQL expression over the columns of the table";
                self.complain(&entry.place, message, fix);
                return None;
            }
        };
        let columns = columns?;
        let before = self.set.complaints.len();
        for (offset, name) in names {
            if columns.iter().any(|column| column == name) {
                continue;
            }
            let at = self.word_at(entry.place.at, offset, name);
            let (message, fix) = unknown_column(name, columns);
            self.complain_at(at, &entry.place.path, message, fix);
        }
        (self.set.complaints.len() == before).then_some(text)
    }

    /// Line, column and width of a word of a text, if the text is on one line; else of the text.
    fn word_at(&self, text_at: Location, offset: usize, word: &str) -> (usize, usize, usize) {
        let (line, column) = place(text_at);
        let source: Vec<char> = source_line(self.text, line).chars().collect();
        let word: Vec<char> = word.chars().collect();
        // A quoted text starts one character later.
        let first = column - 1 + offset;
        let stands_at = |start: &usize| source.get(*start..).is_some_and(|rest| rest.starts_with(&word));
        match [first, first + 1].into_iter().find(stands_at) {
            Some(start) => (line, start + 1, word.len()),
            None => (line, column, width(text_at)),
        }
    }

    /// A text that is one column.
    pub(super) fn columns_of_text(&mut self, entry: &Entry, columns: Option<&[String]>) -> Option<String> {
        let name = self.text_of(entry, "name a column")?;
        let known = columns?;
        if known.contains(&name) {
            return Some(name);
        }
        let (message, fix) = unknown_column(&name, known);
        self.complain(&entry.place, message, fix);
        None
    }

    /// A list of columns, each once, without those of time.
    pub(super) fn columns_of(&mut self, entry: &Entry, columns: Option<&[String]>) -> Vec<String> {
        let mut dims = Vec::new();
        for (place, dim) in self.texts(entry, "list columns of the table") {
            let is_taken = dim == "window_start" || dim == "window_end" || dim == RULE_STATE;
            if is_taken || dims.contains(&dim) {
                let message = format!("`{dim}` cannot be a dimension here");
                let fix = "name each dimension once; time is no dimension";
                self.complain(&place, message, fix);
                continue;
            }
            if let Some(columns) = columns
                && !columns.contains(&dim)
            {
                let (message, fix) = unknown_column(&dim, columns);
                self.complain(&place, message, fix);
            }
            dims.push(dim);
        }
        dims
    }
}

fn unknown_column(name: &str, columns: &[String]) -> (String, String) {
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    let fix = did_you_mean(name, names.iter().copied()).unwrap_or_else(|| format!("the columns are {}", listed(&names)));
    (format!("unknown column `{}`", message::clean(name)), fix)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::check;

    #[test]
    fn tables_and_columns_must_exist() {
        check(
            "gold.errors_1m",
            "gold.error_1m",
            r"
alerts/a.yaml:9:15: unknown table `gold.error_1m`, at groups[0].rules[0].from
    9 |         from: gold.error_1m
      |               ^^^^^^^^^^^^^ did you mean `gold.errors_1m`?
",
        );
        check(
            "gold.errors_1m",
            "silver.audience",
            r"
alerts/a.yaml:9:15: unknown table `silver.audience`, at groups[0].rules[0].from
    9 |         from: silver.audience
      |               ^^^^^^^^^^^^^^^ the tables are gold.cdn_1m, gold.errors_1m, gold.playback_1m
",
        );
        check(
            "num: clients_with_errors",
            "num: clients_with_error",
            r"
alerts/a.yaml:10:30: unknown column `clients_with_error`, at groups[0].rules[0].value.ratio.num
   10 |         value: {ratio: {num: clients_with_error, den: clients}}
      |                              ^^^^^^^^^^^^^^^^^^ did you mean `clients_with_errors`?
",
        );
        check(
            "den: clients}",
            r#"den: "clients + 2 * client"}"#,
            r#"
alerts/a.yaml:10:71: unknown column `client`, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "clients + 2 * client"}}
      |                                                                       ^^^^^^ did you mean `clients`?
"#,
        );
        check(
            "group_by: [device_type, app_name]",
            "group_by: [device_typ, app_name, app_name]",
            r"
alerts/a.yaml:11:20: unknown column `device_typ`, at groups[0].rules[0].group_by
   11 |         group_by: [device_typ, app_name, app_name]
      |                    ^^^^^^^^^^ did you mean `device_type`?
alerts/a.yaml:11:42: `app_name` cannot be a dimension here, at groups[0].rules[0].group_by
   11 |         group_by: [device_typ, app_name, app_name]
      |                                          ^^^^^^^^ name each dimension once; time is no dimension
",
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        where: "app_nam = 'x'' y' AND device_type IN ('tv') AND upper(app_name) <> 'A'""#,
            r#"
alerts/a.yaml:13:17: unknown column `app_nam`, at groups[0].rules[0].where
   13 |         where: "app_nam = 'x'' y' AND device_type IN ('tv') AND upper(app_name) <> 'A'"
      |                 ^^^^^^^ did you mean `app_name`?
"#,
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        where: >-\n          app_name = 'x'\n          and nosuch = 3",
            r"
alerts/a.yaml:14:11: unknown column `nosuch`, at groups[0].rules[0].where
   14 |           app_name = 'x'
      |           ^^^^^^^^^^^^^^ the columns are window_start, window_end, app_name, app_version, device_type, clients, clients_with_errors
",
        );
    }
}
