//! The macros of Grafana's PostgreSQL data source: `$__timeFilter(column)` and its kin.
//!
//! Called by `expand` with the arguments as the author wrote them, variables already put in. What each
//! gives is what the data source's `macros.go` and `sqleng` give, to the byte.

use chrono::{DateTime, Utc};

use super::expand::ExpandError;
use super::scope::{Scope, span_ms};

/// The SQL that a macro stands for.
pub(super) fn evaluate(name: &str, arguments: &[String], scope: &Scope) -> Result<String, ExpandError> {
    let column = || match arguments.first() {
        Some(column) if !column.is_empty() => Ok(column.as_str()),
        _ => Err(ExpandError::NoColumn(name.to_owned())),
    };
    let (from_s, to_s) = (scope.from_ms.div_euclid(1000), scope.to_ms.div_euclid(1000));
    let nanoseconds = |ms: i64| i128::from(ms) * 1_000_000;
    Ok(match name {
        "__time" => format!("{} AS \"time\"", column()?),
        "__timeEpoch" => format!("extract(epoch from {}) as \"time\"", column()?),
        "__timeFilter" => format!("{} BETWEEN {} AND {}", column()?, time(scope.from_ms)?, time(scope.to_ms)?),
        "__timeFrom" => time(scope.from_ms)?,
        "__timeTo" => time(scope.to_ms)?,
        "__timeGroup" => time_group(name, arguments)?,
        "__timeGroupAlias" => format!("{} AS \"time\"", time_group(name, arguments)?),
        "__unixEpochFilter" => epoch_filter(column()?, from_s.into(), to_s.into()),
        "__unixEpochFrom" => from_s.to_string(),
        "__unixEpochTo" => to_s.to_string(),
        "__unixEpochNanoFilter" => epoch_filter(column()?, nanoseconds(scope.from_ms), nanoseconds(scope.to_ms)),
        "__unixEpochNanoFrom" => nanoseconds(scope.from_ms).to_string(),
        "__unixEpochNanoTo" => nanoseconds(scope.to_ms).to_string(),
        "__unixEpochGroup" => epoch_group(name, arguments)?,
        "__unixEpochGroupAlias" => format!("{} AS \"time\"", epoch_group(name, arguments)?),
        _ => return Err(ExpandError::UnknownMacro(name.to_owned())),
    })
}

fn time_group(name: &str, arguments: &[String]) -> Result<String, ExpandError> {
    let (column, seconds) = grouping(name, arguments)?;
    Ok(format!("floor(extract(epoch from {column})/{seconds})*{seconds}"))
}

fn epoch_group(name: &str, arguments: &[String]) -> Result<String, ExpandError> {
    let (column, seconds) = grouping(name, arguments)?;
    Ok(format!("floor(({column})/{seconds})*{seconds}"))
}

fn epoch_filter(column: &str, from: i128, to: i128) -> String {
    format!("{column} >= {from} AND {column} <= {to}")
}

/// Column and step in seconds. What fills gaps is not SQL: it is checked and left to who draws.
fn grouping<'a>(name: &str, arguments: &'a [String]) -> Result<(&'a str, f64), ExpandError> {
    let [column, step, fill @ ..] = arguments else {
        return Err(ExpandError::NoStep(name.to_owned()));
    };
    let step_ms = span_ms(step.trim_matches('\'')).ok_or_else(|| ExpandError::BadStep(step.clone()))?;
    if let [fill] = fill
        && !["NULL", "previous"].contains(&fill.as_str())
        && fill.parse::<f64>().is_err()
    {
        return Err(ExpandError::BadFill(fill.clone()));
    }
    Ok((column, step_ms as f64 / 1000.0))
}

/// A literal as Go's RFC3339Nano writes it: no zeros at the end of the fraction.
fn time(epoch_ms: i64) -> Result<String, ExpandError> {
    let time: DateTime<Utc> = DateTime::from_timestamp_millis(epoch_ms).ok_or(ExpandError::BadTime(epoch_ms))?;
    let text = time.format("%Y-%m-%dT%H:%M:%S%.3f").to_string();
    let text = text.trim_end_matches('0').trim_end_matches('.');
    Ok(format!("'{text}Z'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluated(name: &str, arguments: &[&str]) -> Result<String, ExpandError> {
        // 2026-03-01 00:00:00 to 06:00:00.5 UTC.
        let scope = Scope::new(1_772_323_200_000, 1_772_344_800_500, 100, 1);
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        evaluate(name, &arguments, &scope)
    }

    #[test]
    fn each_macro_gives_what_the_data_source_gives() {
        for (name, arguments, expected) in [
            ("__time", &["t"][..], "t AS \"time\""),
            ("__timeEpoch", &["t"], "extract(epoch from t) as \"time\""),
            (
                "__timeFilter",
                &["t"],
                "t BETWEEN '2026-03-01T00:00:00Z' AND '2026-03-01T06:00:00.5Z'",
            ),
            ("__timeFrom", &[""], "'2026-03-01T00:00:00Z'"),
            ("__timeTo", &[""], "'2026-03-01T06:00:00.5Z'"),
            ("__timeGroup", &["t", "'5m'"], "floor(extract(epoch from t)/300)*300"),
            ("__timeGroup", &["t", "500ms", "NULL"], "floor(extract(epoch from t)/0.5)*0.5"),
            (
                "__timeGroupAlias",
                &["t", "1y", "0"],
                "floor(extract(epoch from t)/31536000)*31536000 AS \"time\"",
            ),
            ("__unixEpochFilter", &["t"], "t >= 1772323200 AND t <= 1772344800"),
            ("__unixEpochFrom", &[""], "1772323200"),
            ("__unixEpochTo", &[""], "1772344800"),
            (
                "__unixEpochNanoFilter",
                &["t"],
                "t >= 1772323200000000000 AND t <= 1772344800500000000",
            ),
            ("__unixEpochNanoFrom", &[""], "1772323200000000000"),
            ("__unixEpochNanoTo", &[""], "1772344800500000000"),
            ("__unixEpochGroup", &["t", "1h", "previous"], "floor((t)/3600)*3600"),
            ("__unixEpochGroupAlias", &["t", "1h"], "floor((t)/3600)*3600 AS \"time\""),
        ] {
            assert_eq!(evaluated(name, arguments).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn what_the_data_source_refuses_is_refused() {
        for (name, arguments, expected) in [
            ("__timeFilter", &[""][..], "macro $__timeFilter needs a time column"),
            ("__timeGroup", &["t"], "macro $__timeGroup needs a time column and an interval"),
            (
                "__timeGroup",
                &["t", "often"],
                "`often` is no interval; write it as 30s, 5m, 1h or 1d",
            ),
            (
                "__timeGroup",
                &["t", "5m", "x"],
                "`x` fills no gaps; write NULL, previous or a number",
            ),
            ("__timeTravel", &["t"], "there is no macro $__timeTravel"),
        ] {
            let error = evaluated(name, arguments).expect_err(name);
            assert_eq!(error.to_string(), expected);
        }
        let scope = Scope::new(0, i64::MAX, 100, 1);
        assert!(evaluate("__timeTo", &[], &scope).is_err());
    }
}
