//! `playhead alerts explain`: why a metric differs between two spans of time.
//!
//! Stands in front of `sql::cause`, as an alert that fires and `explain_change(...)` do.

use chrono::DateTime;
use clap::Args;

use crate::alert::cause::{Explanation, Wording};
use crate::alert::rule::Change;
use crate::config::Config;
use crate::daemon::{self, Complaints};
use crate::lake::Lake;
use crate::metric::{self, Unit};
use crate::rollup;
use crate::sql::{self, cause, explain_change};

/// The two spans, and where to look.
#[derive(Args)]
pub struct ExplainArgs {
    /// A metric of `playhead metrics` that is a quotient of sums.
    metric: String,
    /// First instant, such as 2026-11-01T20:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: String,
    /// The instant after the last.
    #[arg(long, value_name = "TIME")]
    to: String,
    /// First instant of what it is compared with; unless given, the hour before.
    #[arg(long, value_name = "TIME", requires = "before_to")]
    before_from: Option<String>,
    /// The instant after its last.
    #[arg(long, value_name = "TIME", requires = "before_from")]
    before_to: Option<String>,
    /// Columns to look in; unless given, cdn, pop, isp, country, device_type, os, app_version and content_id.
    #[arg(long, value_name = "COLUMNS", default_value = "")]
    dims: String,
    /// A condition over the columns of the table: "country = 'ES'".
    #[arg(long = "where", value_name = "CONDITION")]
    filter: Option<String>,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the causes, the best first.
///
/// # Errors
/// A question that cannot be asked; a lake that cannot be read.
pub async fn run(config: &Config, asked: &ExplainArgs) -> anyhow::Result<u8> {
    let change = asked.change()?;
    change.tables().map_err(|complaint| Complaints(vec![complaint]))?;
    let lake = Lake::open_read_only(daemon::lake_place(config)?).await?;
    let limits = daemon::query_limits(config);
    let meant = format!("{} {}", explain_change::NAME, change.metric);
    let pipelines = sql::mentioned(daemon::pipelines(config)?, &meant);
    let pipelines = rollup::open_windows(&lake, pipelines).await?;
    let context = sql::open(&lake, &pipelines, limits).await?;
    let why = explain_change::why(&context.state(), &change).await;
    let why = why.map_err(|error| Complaints(vec![sql::SqlError::from(error).to_string()]))?;
    let found = cause::look(&context, limits, &why).await?;
    match asked.json {
        true => println!("{}", serde_json::to_string_pretty(&found)?),
        false => println!("{}", lines(&found, &change)),
    }
    Ok(0)
}

fn lines(found: &Explanation, change: &Change) -> String {
    let metric = metric::find(&change.metric);
    let unit = metric.map(|metric| metric.unit).filter(|unit| *unit != Unit::Count);
    let wording = Wording {
        value: &change.metric,
        unit: unit.map(Unit::as_str),
        samples: "samples",
    };
    found.lines(wording).join("\n")
}

impl ExplainArgs {
    fn change(&self) -> Result<Change, Complaints> {
        let time = |name: &str, text: &str| match DateTime::parse_from_rfc3339(text) {
            Ok(time) => Ok(time.timestamp_millis()),
            Err(_) => Err(Complaints(vec![format!("{name} `{text}` is no time; write 2026-11-01T20:00:00Z")])),
        };
        let before = match (&self.before_from, &self.before_to) {
            (Some(from), Some(to)) => Some((time("--before-from", from)?, time("--before-to", to)?)),
            _ => None,
        };
        Ok(Change {
            metric: self.metric.clone(),
            now: (time("--from", &self.from)?, time("--to", &self.to)?),
            before,
            dims: explain_change::names_in(&self.dims),
            filter: self.filter.clone(),
        })
    }
}
