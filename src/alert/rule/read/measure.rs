//! What a rule measures: its table, its value and samples, and its groups.
//!
//! Stands in the reading of rules, over the catalogue of tables and the metric table; `columns` reads
//! what names columns, `samples` how many there must be and how sure they make.
//!
//! Invariant: a value is read in one way, and its samples are what it is divided by, unless the rule says.

use super::super::complaint::{did_you_mean, listed};
use super::super::metric::{self, FromMetric};
use super::super::schema::{MEAN, QUANTILE, RATIO, VALUE};
use super::super::yaml::Node;
use super::super::{Confidence, Measure, MinImpacted, Sum};
use super::FileReader;
use super::field::{Entry, Fields};
use crate::alert::message;

/// More dimensions than this make groups of one session.
const MAX_DIMS: usize = 8;

/// What the parts of a rule say that name columns; none for a part that was complained about.
pub(super) struct Measured {
    pub(super) columns: Option<Vec<String>>,
    pub(super) from: Option<String>,
    pub(super) measure: Option<Measure>,
    pub(super) unit: Option<String>,
    pub(super) samples: Option<Sum>,
    pub(super) filter: Option<String>,
    pub(super) group_by: Vec<String>,
    pub(super) min_samples: Option<i64>,
    pub(super) min_impacted: Option<MinImpacted>,
    pub(super) impacted: Option<Sum>,
    pub(super) confidence: Option<Confidence>,
    /// Of the metric: whether small values are the bad ones.
    pub(super) is_low_bad: Option<bool>,
    /// Of the metric: its windows cannot be put together.
    pub(super) is_one_minute: bool,
}

impl FileReader<'_, '_> {
    pub(super) fn measured(&mut self, fields: &Fields, uid: Option<&str>) -> Measured {
        let metric = self.metric(fields);
        let table = self.table(fields, metric.as_ref());
        let columns = table.as_ref().and_then(|(_, columns)| columns.clone());
        let columns = columns.as_deref();
        let (measure, unit) = match &metric {
            Some(metric) if fields.get("value").is_none() => (Some(metric.measure.clone()), metric.unit.clone()),
            _ => {
                let measure = self.measure(fields, columns);
                let unit = measure.as_ref().and_then(unit_of);
                (measure, unit)
            }
        };
        let own_samples = fields.get("samples").map(|entry| self.expression(&entry, columns).map(Sum::Of));
        let of_metric = metric.as_ref().map(|metric| metric.samples.clone());
        let samples = match own_samples {
            Some(samples) => samples,
            None => self.usual_samples(fields, measure.as_ref(), of_metric),
        };
        let filter = fields.get("where").and_then(|entry| self.expression(&entry, columns));
        let group_by = self.group_by(fields, columns);
        let (min_impacted, impacted) = self.min_impacted(fields, measure.as_ref(), columns);
        let least = metric.as_ref().map(|metric| metric.min_samples);
        let min_samples = self.min_samples(fields, uid, least);
        let confidence = measure
            .as_ref()
            .map(|measure| self.fitting_confidence(fields, measure, samples.as_ref()));
        Measured {
            from: table.map(|(from, _)| from),
            columns: columns.map(<[String]>::to_vec),
            measure,
            unit,
            samples,
            filter,
            group_by,
            min_samples,
            min_impacted,
            impacted,
            confidence,
            is_low_bad: metric.as_ref().and_then(|metric| metric.is_low_bad),
            is_one_minute: metric.is_some_and(|metric| metric.is_one_minute),
        }
    }

    fn metric(&mut self, fields: &Fields) -> Option<FromMetric> {
        let name = self.optional_text(fields, "metric", "name a metric of `playhead metrics`")?;
        let found = crate::metric::find(&name).and_then(metric::of);
        if found.is_none() {
            let names = crate::metric::METRICS.iter().map(|metric| metric.name);
            let fix = did_you_mean(&name, names).unwrap_or_else(|| "`playhead metrics` lists them".to_owned());
            let message = format!("unknown metric `{}`", message::clean(&name));
            self.complain(&fields.place_of("metric"), message, fix);
        }
        found
    }

    /// The table's name and its columns; a query of the author's own has no table.
    fn table(&mut self, fields: &Fields, metric: Option<&FromMetric>) -> Option<(String, Option<Vec<String>>)> {
        if fields.get("from").is_none() {
            if let Some(metric) = metric {
                return Some((metric.table.clone(), self.set.catalogue.columns(&metric.table)));
            }
            if is_query(fields) {
                return Some((String::new(), None));
            }
            if fields.get("metric").is_some() {
                return None;
            }
        }
        let table = self.required_text(fields, "from", "name a gold table")?;
        if let Some(columns) = self.set.catalogue.columns(&table) {
            return Some((table, Some(columns)));
        }
        let tables = self.set.catalogue.tables();
        let names: Vec<&str> = tables.iter().map(String::as_str).collect();
        let fix = did_you_mean(&table, names.iter().copied()).unwrap_or_else(|| format!("the tables are {}", listed(&names)));
        let message = format!("unknown table `{}`", message::clean(&table));
        self.complain(&fields.place_of("from"), message, fix);
        None
    }

    fn measure(&mut self, fields: &Fields, columns: Option<&[String]>) -> Option<Measure> {
        if fields.get("value").is_none() && fields.get("metric").is_some() {
            return None;
        }
        let fix = "add `value: {ratio: {num: ..., den: ...}}`, `value: {mean: {sum: ..., count: ...}}` or `metric: ...`";
        let entry = self.required(fields, "value", fix)?;
        let before = self.set.complaints.len();
        let value = self.fields(entry, &VALUE)?;
        let kinds: Vec<&str> = VALUE.names().into_iter().filter(|name| value.get(name).is_some()).collect();
        let [kind] = kinds[..] else {
            let message = format!("a value is one of {}", listed(&VALUE.names()));
            self.complain_of_choice(&value, before, &message, fix);
            return None;
        };
        let entry = value.get(kind)?;
        match kind {
            "ratio" => {
                let parts = self.fields(entry, &RATIO)?;
                let num = self.required_sum(&parts, "num", columns);
                let den = self.required_sum(&parts, "den", columns);
                Some(Measure::Ratio { num: num?, den: den? })
            }
            "mean" => {
                let parts = self.fields(entry, &MEAN)?;
                let sum = self.required_sum(&parts, "sum", columns);
                let count = self.required_sum(&parts, "count", columns);
                Some(Measure::Mean { sum: sum?, count: count? })
            }
            "expr" => Some(Measure::Whole {
                value: self.expression(&entry, columns)?,
                is_share: false,
            }),
            "quantile" => self.quantile(entry, columns),
            _ => self.query(&entry),
        }
    }

    fn required_sum(&mut self, fields: &Fields, key: &str, columns: Option<&[String]>) -> Option<Sum> {
        let entry = self.required(fields, key, "name a column or an expression over columns")?;
        self.expression(&entry, columns).map(Sum::Of)
    }

    fn quantile(&mut self, entry: Entry, columns: Option<&[String]>) -> Option<Measure> {
        let fields = self.fields(entry, &QUANTILE)?;
        let sketch = self.required(&fields, "sketch", "name a sketch column")?;
        let column = self.columns_of_text(&sketch, columns);
        let q = self.required(&fields, "q", "write for instance `q: 0.95`")?;
        let Node::Float(quantile) = q.value else {
            self.complain(&q.place, "`q` does not fit", "write a number above 0 and below 1, such as 0.95");
            return None;
        };
        if !(*quantile > 0.0 && *quantile < 1.0) {
            self.complain(&q.place, "`q` does not fit", "write a number above 0 and below 1, such as 0.95");
            return None;
        }
        let column = column?;
        if !column.ends_with("_sketch") {
            let message = format!("`{column}` is no sketch");
            self.complain(&sketch.place, message, "name a column that ends in `_sketch`");
            return None;
        }
        Some(Measure::Whole {
            value: format!("sketch_quantile(sketch_merge({column}), {quantile})"),
            is_share: false,
        })
    }

    /// A query of the author's own. The planner of the caller checks it; here it is one statement that reads.
    fn query(&mut self, entry: &Entry) -> Option<Measure> {
        let text = self.text_of(entry, "write a SELECT")?;
        let lower = text.to_ascii_lowercase();
        let fix = "write one SELECT that gives window_end, the dimensions, value and samples";
        let is_read = lower.starts_with("select ") || lower.starts_with("with ");
        let is_one = !text.contains([';']) && !text.contains("--") && !text.contains("/*");
        if !is_read || !is_one {
            self.complain(&entry.place, "this is not one plain query", fix);
            return None;
        }
        Some(Measure::Query { text })
    }

    fn usual_samples(&mut self, fields: &Fields, measure: Option<&Measure>, of_metric: Option<Sum>) -> Option<Sum> {
        if of_metric.is_some() && fields.get("value").is_none() {
            return of_metric;
        }
        match measure? {
            Measure::Ratio { den, .. } => Some(den.clone()),
            Measure::Mean { count, .. } => Some(count.clone()),
            Measure::Query { .. } => Some(Sum::Of("samples".to_owned())),
            Measure::Whole { .. } => {
                let message = "`samples` is missing: this value has no denominator to count";
                self.complain(&fields.place, message, "add `samples: <column>`");
                None
            }
        }
    }

    fn group_by(&mut self, fields: &Fields, columns: Option<&[String]>) -> Vec<String> {
        let Some(entry) = fields.get("group_by") else {
            return Vec::new();
        };
        let dims = self.columns_of(&entry, columns);
        if dims.len() > MAX_DIMS {
            let message = format!("{} dimensions are too many", dims.len());
            self.complain(&entry.place, message, format!("keep to {MAX_DIMS}"));
        }
        dims
    }
}

fn is_query(fields: &Fields) -> bool {
    let value = fields.get("value");
    value.is_some_and(|value| matches!(value.value, Node::Map(entries) if entries.iter().any(|(key, _)| key.value == "sql")))
}

/// The unit of the value: `ratio`, else by the name of the column.
fn unit_of(measure: &Measure) -> Option<String> {
    let name = match measure {
        Measure::Ratio { .. } => return Some("ratio".to_owned()),
        Measure::Mean { sum, .. } => sum.column()?,
        Measure::Whole { value, .. } => value.strip_prefix("sketch_quantile(sketch_merge(")?.split(')').next()?,
        Measure::Query { .. } => return None,
    };
    let name = name.strip_suffix("_sum").unwrap_or(name);
    let name = name.strip_suffix("_sketch").unwrap_or(name);
    if let Some(unit) = ["ms", "bps", "kbps", "bytes"]
        .into_iter()
        .find(|unit| name.ends_with(&format!("_{unit}")))
    {
        return Some(unit.to_owned());
    }
    // The sketches of times leave the unit out of their names.
    let is_time = ["ttfb", "startup", "stall_length", "live_latency", "buffer", "exit_wait"];
    (matches!(measure, Measure::Whole { .. }) && is_time.iter().any(|time| name.starts_with(time))).then(|| "ms".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{check, parsed};
    use super::*;

    #[test]
    fn a_metric_gives_table_value_and_samples() {
        let old = "from: gold.errors_1m\n        value: {ratio: {num: clients_with_errors, den: clients}}\n        group_by: [device_type, app_name]\n        min_samples: 500\n";
        let rule = parsed(old, "metric: error_rate_app\n        group_by: [device_type]\n");
        assert_eq!((rule.from.as_str(), rule.unit.as_deref()), ("gold.errors_1m", Some("ratio")));
        assert_eq!(rule.samples_of(), "clients");
        assert!(rule.is_share_of_samples());
        assert_eq!(rule.confidence, Confidence::Wilson { z: 3.0 });
        check(
            old,
            "metric: error_rate_ap\n",
            r"
alerts/a.yaml:9:17: unknown metric `error_rate_ap`, at groups[0].rules[0].metric
    9 |         metric: error_rate_ap
      |                 ^^^^^^^^^^^^^ did you mean `error_rate_app`?
",
        );
    }

    #[test]
    fn values_that_do_not_add_up_say_what_their_samples_are() {
        let old = "{ratio: {num: clients_with_errors, den: clients}}";
        check(
            old,
            "{expr: \"max(clients)\"}",
            r#"
alerts/a.yaml:7:9: `samples` is missing: this value has no denominator to count, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ add `samples: <column>`
alerts/a.yaml:13:54: this threshold is no share, at groups[0].rules[0].condition.threshold
   13 |         condition: {test: value, op: ">", threshold: 5%}
      |                                                      ^^ write a number in the unit of the value, such as `20`
"#,
        );
        check(
            old,
            "{quantile: {sketch: clients, q: 95}}",
            r#"
alerts/a.yaml:10:48: `q` does not fit, at groups[0].rules[0].value.quantile.q
   10 |         value: {quantile: {sketch: clients, q: 95}}
      |                                                ^^ write a number above 0 and below 1, such as 0.95
"#,
        );
        check(
            old,
            "{sql: \"SELECT 1; DROP TABLE x\"}",
            r#"
alerts/a.yaml:10:22: this is not one plain query, at groups[0].rules[0].value.sql
   10 |         value: {sql: "SELECT 1; DROP TABLE x"}
      |                      ^^^^^^^^^^^^^^^^^^^^^^^^ write one SELECT that gives window_end, the dimensions, value and samples
"#,
        );
        check(
            old,
            "{ratio: {num: clients_with_errors, den: clients}, expr: \"max(clients)\"}",
            r#"
alerts/a.yaml:10:16: a value is one of ratio, mean, expr, quantile, sql, at groups[0].rules[0].value
   10 |         value: {ratio: {num: clients_with_errors, den: clients}, expr: "max(clients)"}
      |                ^ add `value: {ratio: {num: ..., den: ...}}`, `value: {mean: {sum: ..., count: ...}}` or `metric: ...`
"#,
        );
    }
}
