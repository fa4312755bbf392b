//! What a rule measures: its table, its value and samples, its groups, and how sure it must be.
//!
//! Stands in the reading of rules, over the catalogue of tables and `expression`.
//!
//! Invariant: every column that a rule names is in its table.
//! Invariant: a confidence bound is used only where it has a meaning.

use serde_saphyr::Location;

use super::super::complaint::{did_you_mean, listed};
use super::super::expression::column_names;
use super::super::schema::{CONFIDENCE, MEAN, RATIO, VALUE};
use super::super::yaml::{Node, place, source_line, width};
use super::super::{Confidence, Measure};
use super::field::{Entry, Fields};
use super::{Defaults, FileReader};
use crate::alert::message;

/// More dimensions than this make groups of one session.
const MAX_DIMS: usize = 8;

const DEFAULT_Z: f64 = 3.0;

impl FileReader<'_, '_> {
    pub(super) fn table(&mut self, fields: &Fields) -> Option<(String, Vec<String>)> {
        let table = self.required_text(fields, "from", "name a gold table")?;
        if let Some(columns) = self.set.catalogue.columns(&table) {
            return Some((table, columns));
        }
        let tables = self.set.catalogue.tables();
        let names: Vec<&str> = tables.iter().map(String::as_str).collect();
        let fix = did_you_mean(&table, names.iter().copied()).unwrap_or_else(|| format!("the tables are {}", listed(&names)));
        let message = format!("unknown table `{}`", message::clean(&table));
        self.complain(&fields.place_of("from"), message, fix);
        None
    }

    pub(super) fn measure(&mut self, fields: &Fields, columns: Option<&[String]>) -> Option<Measure> {
        let fix = "add `value: {ratio: {num: ..., den: ...}}` or `value: {mean: {sum: ..., count: ...}}`";
        let entry = self.required(fields, "value", fix)?;
        let before = self.set.complaints.len();
        let value = self.fields(entry, &VALUE)?;
        match (value.get("ratio"), value.get("mean")) {
            (Some(entry), None) => {
                let parts = self.fields(entry, &RATIO)?;
                let num = self.required_expression(&parts, "num", columns);
                let den = self.required_expression(&parts, "den", columns);
                Some(Measure::Ratio { num: num?, den: den? })
            }
            (None, Some(entry)) => {
                let parts = self.fields(entry, &MEAN)?;
                let sum = self.required_expression(&parts, "sum", columns);
                let count = self.required_expression(&parts, "count", columns);
                Some(Measure::Mean { sum: sum?, count: count? })
            }
            _ => {
                self.complain_of_choice(&value, before, "a value is one of ratio and mean", fix);
                None
            }
        }
    }

    fn required_expression(&mut self, fields: &Fields, key: &str, columns: Option<&[String]>) -> Option<String> {
        let entry = self.required(fields, key, "name a column or an expression over columns")?;
        self.expression(&entry, columns)
    }

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

    pub(super) fn group_by(&mut self, fields: &Fields, columns: Option<&[String]>) -> Vec<String> {
        let Some(entry) = fields.get("group_by") else {
            return Vec::new();
        };
        let mut dims = Vec::new();
        for (place, dim) in self.texts(&entry, "list columns of the table") {
            let is_time = dim == "window_start" || dim == "window_end";
            if is_time || dims.contains(&dim) {
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
        if dims.len() > MAX_DIMS {
            let message = format!("{} dimensions are too many", dims.len());
            self.complain(&entry.place, message, format!("keep to {MAX_DIMS}"));
        }
        dims
    }

    pub(super) fn min_samples(&mut self, fields: &Fields, uid: Option<&str>) -> Option<i64> {
        let Some(entry) = fields.get("min_samples") else {
            let message = format!("rule `{}` has no `min_samples`", uid.unwrap_or("?"));
            let fix = "add `min_samples: <n>`; with 25 sessions a healthy 3 % group breaches 5 % in 17 % of windows";
            self.complain(&fields.place, message, fix);
            return None;
        };
        self.whole_number(&entry, 1)
    }

    pub(super) fn confidence(&mut self, fields: &Fields) -> Option<Confidence> {
        let entry = fields.get("confidence")?;
        let fields = self.fields(entry, &CONFIDENCE)?;
        let method = self.required(&fields, "method", "write `method: wilson`, `normal` or `none`")?;
        let z = self.z(&fields);
        let methods = [
            ("wilson", Confidence::Wilson { z }),
            ("normal", Confidence::Normal { z }),
            ("none", Confidence::None),
        ];
        self.word(&method, &methods, &[])
    }

    fn z(&mut self, fields: &Fields) -> f64 {
        let Some(entry) = fields.get("z") else {
            return DEFAULT_Z;
        };
        match entry.value {
            Node::Int(z @ 1..=10) => *z as f64,
            Node::Float(z) if *z > 0.0 && *z <= 10.0 => *z,
            _ => {
                let fix = "write a number above 0, at most 10; 3 is usual";
                self.complain(&entry.place, "`z` does not fit", fix);
                DEFAULT_Z
            }
        }
    }

    /// The bound that the value admits. A default that does not fit is passed over; a bound that
    /// the rule itself asks for and that has no meaning is a complaint.
    pub(super) fn fitting_confidence(
        &mut self,
        fields: &Fields,
        measure: &Measure,
        has_own_samples: bool,
        asked: Option<Confidence>,
        defaults: &Defaults,
    ) -> Confidence {
        let is_share = measure.is_ratio() && !has_own_samples;
        let fits = |confidence: &Confidence| match confidence {
            Confidence::None => true,
            Confidence::Wilson { .. } => is_share,
            Confidence::Normal { .. } => measure.is_ratio(),
        };
        let Some(asked) = asked else {
            let usual = if is_share {
                Confidence::Wilson { z: DEFAULT_Z }
            } else {
                Confidence::None
            };
            return defaults.confidence.filter(fits).unwrap_or(usual);
        };
        if fits(&asked) {
            return asked;
        }
        let (message, fix) = match asked {
            Confidence::Wilson { .. } => (
                "wilson holds only for a ratio that counts a part of its denominator",
                "write `method: none`, or `normal` for a ratio with its own `samples`",
            ),
            _ => (
                "normal needs a spread, and a mean of sums has none",
                "write `method: none` and a larger `min_samples`",
            ),
        };
        self.complain(&fields.place_of("confidence"), message, fix);
        Confidence::None
    }
}

fn unknown_column(name: &str, columns: &[String]) -> (String, String) {
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    let fix = did_you_mean(name, names.iter().copied()).unwrap_or_else(|| format!("the columns are {}", listed(&names)));
    (format!("unknown column `{}`", message::clean(name)), fix)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{check, parsed};
    use super::*;
    use crate::alert::tests::seed_rule;

    #[test]
    fn a_share_is_bounded_by_wilson_unless_it_has_samples_of_its_own() {
        let z3 = Confidence::Wilson { z: 3.0 };
        let with = |text: &str| parsed("min_samples: 500", &format!("min_samples: 500\n        {text}")).confidence;
        assert_eq!(with("enabled: true"), z3);
        assert_eq!(with("samples: clients"), Confidence::None);
        assert_eq!(with("confidence: {method: none}"), Confidence::None);
        let normal = "samples: clients\n        confidence: {method: normal, z: 2.5}";
        assert_eq!(with(normal), Confidence::Normal { z: 2.5 });
        assert_eq!(seed_rule("cdn-latency-baseline").confidence, Confidence::None);
        assert_eq!(seed_rule("isp-rebuffering-peers").confidence, Confidence::None);
    }

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

    #[test]
    fn a_rule_says_how_many_samples_it_needs() {
        check(
            "        min_samples: 500\n",
            "",
            r"
alerts/a.yaml:7:9: rule `errors` has no `min_samples`, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ add `min_samples: <n>`; with 25 sessions a healthy 3 % group breaches 5 % in 17 % of windows
",
        );
        check(
            "min_samples: 500",
            "min_samples: 0",
            r"
alerts/a.yaml:12:22: a whole number is needed, at groups[0].rules[0].min_samples
   12 |         min_samples: 0
      |                      ^ write a whole number, 1 or more
",
        );
        check(
            "min_samples: 500",
            "min_samples: many",
            r"
alerts/a.yaml:12:22: a whole number is needed, at groups[0].rules[0].min_samples
   12 |         min_samples: many
      |                      ^^^^ write a whole number, 1 or more
",
        );
    }

    #[test]
    fn confidence_must_mean_something() {
        check(
            "min_samples: 500",
            "min_samples: 500\n        samples: clients\n        confidence: {method: wilson}",
            r"
alerts/a.yaml:14:21: wilson holds only for a ratio that counts a part of its denominator, at groups[0].rules[0].confidence
   14 |         confidence: {method: wilson}
      |                     ^ write `method: none`, or `normal` for a ratio with its own `samples`
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        confidence: {method: wilson, z: 50}",
            r"
alerts/a.yaml:13:41: `z` does not fit, at groups[0].rules[0].confidence.z
   13 |         confidence: {method: wilson, z: 50}
      |                                         ^^ write a number above 0, at most 10; 3 is usual
",
        );
        check(
            r#"{ratio: {num: clients_with_errors, den: clients}}
        group_by: [device_type, app_name]
        min_samples: 500
        condition: {test: value, op: ">", threshold: 5%}"#,
            r#"{mean: {sum: clients_with_errors, count: clients}}
        min_samples: 500
        confidence: {method: normal}
        condition: {test: value, op: ">", threshold: 5}"#,
            r"
alerts/a.yaml:12:21: normal needs a spread, and a mean of sums has none, at groups[0].rules[0].confidence
   12 |         confidence: {method: normal}
      |                     ^ write `method: none` and a larger `min_samples`
",
        );
    }
}
