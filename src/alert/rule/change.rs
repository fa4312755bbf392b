//! A question without a rule: why a metric differs between two spans of time.
//!
//! Stands beside `why`: what a person asks by `explain_change(...)` or `playhead alerts explain` becomes the
//! same two texts as the question of an alert that fires, and the same search.
//!
//! Invariant: what comes from outside is in a query only as a checked expression or as a quoted name.

use super::expression::column_names;
use super::query::double;
use super::why::{BEFORE_MS, Why, by_dims_sql};
use super::{Rule, did_you_mean, metric};
use crate::alert::MINUTE_MS;
use crate::alert::cause::{Kind, Search, Worse};
use crate::metric::{METRICS, Metric, find};

/// Where a cause is looked for unless the question names dimensions: those of these that the table has.
pub const DIMS_USUAL: [&str; 8] = ["cdn", "pop", "isp", "country", "device_type", "os", "app_version", "content_id"];

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// A name of `playhead metrics`.
    pub metric: String,
    /// Epoch ms, the end not included.
    pub now: (i64, i64),
    /// What it is compared with; none: the hour before.
    pub before: Option<(i64, i64)>,
    /// Empty: the usual ones.
    pub dims: Vec<String>,
    /// A condition over the columns of the table.
    pub filter: Option<String>,
}

impl Change {
    /// The gold tables that can answer, the best first: the coarsest whose windows begin and end where the spans do.
    ///
    /// # Errors
    /// A metric that nobody knows or that does not add up, or a span that is none.
    pub fn tables(&self) -> Result<Vec<String>, String> {
        let metric = self.known()?;
        self.parts(metric)?;
        let (from_ms, to_ms) = self.now;
        let (before_ms, before_to_ms) = self.before();
        for (what, (from_ms, to_ms)) in [("the span", self.now), ("the span before", self.before())] {
            if to_ms <= from_ms {
                return Err(format!(
                    "{what} ends before it begins: give its first instant, then the one after its last"
                ));
            }
        }
        if before_to_ms > from_ms && before_ms < to_ms {
            return Err("the two spans overlap: what has changed would be compared with itself".to_owned());
        }
        let mut tables = metric.tables();
        let stem = |name: &str| name.rsplit_once('_').map(|(stem, _)| stem.to_owned());
        let first = tables.first().and_then(|name| stem(name));
        tables.retain(|name| stem(name) == first);
        tables.retain(|name| {
            let grain_ms = grain_ms(name);
            [from_ms, to_ms, before_ms, before_to_ms].iter().all(|at_ms| at_ms % grain_ms == 0) || grain_ms == MINUTE_MS
        });
        tables.reverse();
        Ok(tables)
    }

    /// The two questions to one of `tables`, which has these columns.
    ///
    /// # Errors
    /// As `tables`, and names that the table does not have.
    pub fn why(&self, table: &str, columns: &[String]) -> Result<Why, String> {
        let parts = self.parts(self.known()?)?;
        let dims = self.dims_of(table, columns)?;
        let filter = match &self.filter {
            Some(filter) => format!(" AND ({})", checked(filter, table, columns)?),
            None => String::new(),
        };
        let sums = format!(
            "{}, {}, {}",
            double(&parts.num, "num"),
            double(&parts.den, "den"),
            double(&parts.samples, "samples")
        );
        let text = |(from_ms, to_ms): (i64, i64)| by_dims_sql(&dims, &sums, table, &format!("{}{filter}", Rule::span_sql(from_ms, to_ms)));
        Ok(Why {
            now: text(self.now),
            before: text(self.before()),
            dims,
            search: Search {
                worse: parts.worse,
                ..Search::new(parts.kind)
            },
        })
    }

    fn before(&self) -> (i64, i64) {
        self.before.unwrap_or((self.now.0.saturating_sub(BEFORE_MS), self.now.0))
    }

    fn known(&self) -> Result<&'static Metric, String> {
        find(&self.metric).ok_or_else(|| {
            let hint = did_you_mean(&self.metric, METRICS.iter().map(|metric| metric.name));
            let hint = hint.unwrap_or_else(|| "`playhead metrics` lists them".to_owned());
            format!("unknown metric `{}`; {hint}", self.metric)
        })
    }

    fn parts(&self, of: &Metric) -> Result<Parts, String> {
        let found = metric::of(of).filter(|found| !found.is_one_minute);
        let parts = found.as_ref().and_then(|found| {
            let (num, den) = found.measure.parts()?;
            let samples = found.samples.sql();
            let is_share = found.measure.is_share() && den.sql() == samples;
            Some(Parts {
                num: num.sql(),
                den: den.sql(),
                samples,
                kind: if is_share { Kind::Share } else { Kind::Mean },
                worse: if found.is_low_bad == Some(true) {
                    Worse::Lower
                } else {
                    Worse::Higher
                },
            })
        });
        parts.ok_or_else(|| {
            format!(
                "`{}` does not add up over parts of the audience, so no part can be blamed; take a metric that is a quotient of sums",
                of.name
            )
        })
    }

    fn dims_of(&self, table: &str, columns: &[String]) -> Result<Vec<String>, String> {
        let has = |dim: &str| columns.iter().any(|column| column == dim);
        if self.dims.is_empty() {
            return Ok(DIMS_USUAL.iter().filter(|dim| has(dim)).map(|dim| (*dim).to_owned()).collect());
        }
        match self.dims.iter().find(|dim| !has(dim)) {
            Some(dim) => Err(unknown(dim, table, columns)),
            None => Ok(self.dims.clone()),
        }
    }
}

/// What a metric is made of, as texts.
struct Parts {
    num: String,
    den: String,
    samples: String,
    kind: Kind,
    worse: Worse,
}

/// The length of the windows of a table, by its ending.
fn grain_ms(table: &str) -> i64 {
    match table.rsplit_once('_') {
        Some((_, "5m")) => 5 * MINUTE_MS,
        Some((_, "1h")) => 60 * MINUTE_MS,
        Some((_, "1d")) => 1_440 * MINUTE_MS,
        _ => MINUTE_MS,
    }
}

fn checked<'f>(filter: &'f str, table: &str, columns: &[String]) -> Result<&'f str, String> {
    let names = column_names(filter).map_err(|why| format!("the condition `{filter}`: {why}"))?;
    match names.iter().find(|(_, name)| !columns.iter().any(|column| column == name)) {
        Some((_, name)) => Err(unknown(name, table, columns)),
        None => Ok(filter),
    }
}

fn unknown(name: &str, table: &str, columns: &[String]) -> String {
    let hint = did_you_mean(name, columns.iter().map(String::as_str));
    let hint = hint.unwrap_or_else(|| "`playhead tables` lists its columns".to_owned());
    format!("{table} has no column `{name}`; {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-01T20:00:00Z.
    const T0: i64 = 1_793_563_200_000;
    const HOUR_MS: i64 = 60 * MINUTE_MS;

    fn change(metric: &str, minutes: i64) -> Change {
        Change {
            metric: metric.to_owned(),
            now: (T0, T0 + minutes * MINUTE_MS),
            before: None,
            dims: Vec::new(),
            filter: None,
        }
    }

    fn columns() -> Vec<String> {
        ["isp", "cdn", "device_type", "stall_ms"].map(str::to_owned).to_vec()
    }

    #[test]
    fn the_coarsest_table_whose_windows_fit_is_asked_first() {
        let tables = |minutes| change("rebuffer_ratio", minutes).tables().unwrap();
        assert_eq!(tables(7), ["gold.playback_1m"]);
        assert_eq!(tables(10), ["gold.playback_5m", "gold.playback_1m"]);
        assert_eq!(tables(120), ["gold.playback_1h", "gold.playback_5m", "gold.playback_1m"]);
    }

    #[test]
    fn both_questions_are_those_of_an_alert() {
        let mut asked = change("vsf_ratio", 5);
        asked.filter = Some("device_type = 'tv'".to_owned());
        let why = asked.why("gold.playback_5m", &columns()).unwrap();
        assert_eq!(why.dims, ["cdn", "isp", "device_type"]);
        assert!(
            why.now
                .starts_with("SELECT CAST(\"cdn\" AS VARCHAR) AS \"cdn\", CAST(\"isp\" AS VARCHAR) AS \"isp\", ")
                && why.now.ends_with(
                    " FROM \"gold\".\"playback_5m\" WHERE window_start >= TIMESTAMP '2026-11-01 20:00:00' AND window_start < \
                     TIMESTAMP '2026-11-01 20:05:00' AND (device_type = 'tv') GROUP BY 1, 2, 3"
                ),
            "{}",
            why.now
        );
        assert!(
            why.before
                .contains("window_start >= TIMESTAMP '2026-11-01 19:00:00' AND window_start < TIMESTAMP '2026-11-01 20:00:00'"),
            "{}",
            why.before
        );
        assert_eq!((why.search.kind, why.search.worse), (Kind::Share, Worse::Higher));
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        let error = |asked: &Change| asked.tables().and_then(|tables| asked.why(&tables[0], &columns())).unwrap_err();
        assert!(error(&change("rebufer_ratio", 5)).contains("did you mean `rebuffer_ratio`?"));
        assert!(error(&change("startup_p95_ms", 5)).contains("does not add up"));
        assert!(error(&change("rebuffer_ratio", 0)).contains("ends before it begins"));
        let with = |dims: &[&str], filter: Option<&str>, before| Change {
            dims: dims.iter().map(|dim| (*dim).to_owned()).collect(),
            filter: filter.map(str::to_owned),
            before,
            ..change("rebuffer_ratio", 5)
        };
        assert!(error(&with(&["isps"], None, None)).contains("gold.playback_5m has no column `isps`; did you mean `isp`?"));
        assert!(error(&with(&[], Some("isp = 'a') OR (SELECT 1"), None)).contains("a `)` closes nothing"));
        assert!(error(&with(&[], Some("pop = 'x'"), None)).contains("no column `pop`"));
        assert!(error(&with(&[], None, Some((T0 - HOUR_MS, T0 + MINUTE_MS)))).contains("overlap"));
    }
}
