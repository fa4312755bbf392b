//! Roll-ups: from one pipeline the coarser tables of its columns (DESIGN D6).
//!
//! A file says `-- Rolls up: 5 minutes, 1 hour, 1 day`, and each coarser table is made from the next
//! finer one by a query that is written here from the columns' units: sums are added, peaks take the
//! greatest, sketches are merged. It is ordinary pipeline text and takes the ordinary path.
//!
//! Invariant: no average is ever averaged: what cannot be put together again without loss (distinct
//! counts, ratios) is not in the coarser tables; its parts are.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{SelectItem, SetExpr, Statement};

use super::windows::interval_minutes;
use super::{Complaint, Pipeline, WINDOW_END, WINDOW_START};

/// One coarser window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollUp {
    /// As an interval: `5 minutes`.
    interval: String,
    minutes: i64,
}

impl RollUp {
    /// What the table's name ends in: `_5m`, `_1h`, `_1d`.
    fn suffix(&self) -> String {
        match self.minutes {
            minutes if minutes % 1440 == 0 => format!("_{}d", minutes / 1440),
            minutes if minutes % 60 == 0 => format!("_{}h", minutes / 60),
            minutes => format!("_{minutes}m"),
        }
    }
}

/// How a column is put together over several windows, by the unit at the end of its comment.
enum Together {
    Sum,
    Greatest,
    Merge(&'static str),
    /// Not without loss.
    Never,
}

fn together(comment: &str) -> Together {
    let unit = comment.rsplit_once('(').map_or("", |(_, unit)| unit.trim_end_matches(')'));
    match unit {
        "peak" => Together::Greatest,
        "sketch" => Together::Merge("sketch_merge"),
        "distinct sketch" => Together::Merge("distinct_merge"),
        "distinct" | "ratio" => Together::Never,
        _ => Together::Sum,
    }
}

/// The windows of `-- Rolls up:`, each a whole multiple of the one before.
pub fn windows(list: &str) -> Result<Vec<RollUp>, String> {
    let mut windows: Vec<RollUp> = Vec::new();
    for interval in list.split(',').map(str::trim) {
        let minutes = interval_minutes(interval);
        let before = windows.last().map_or(1, |window| window.minutes);
        let Some(minutes) = minutes.filter(|minutes| *minutes > before && minutes % before == 0) else {
            return Err(format!(
                "`-- Rolls up: {interval}` is not understood; write ascending windows, each a multiple of the one before, as `-- Rolls up: 5 minutes, 1 hour, 1 day`"
            ));
        };
        windows.push(RollUp {
            interval: interval.to_string(),
            minutes,
        });
    }
    Ok(windows)
}

/// A pipeline and, finest first, the pipelines that roll it up.
pub fn with_coarser(pipeline: Pipeline) -> Result<Vec<Pipeline>, Complaint> {
    let base = pipeline.name.strip_suffix("_1m").unwrap_or(&pipeline.name).to_string();
    let mut family = vec![pipeline];
    for window in family[0].rolls_up.clone() {
        let finer = Arc::new(family[family.len() - 1].clone());
        let text = coarser_text(&finer, &window);
        let file = format!("{base}{}.sql", window.suffix());
        family.push(Pipeline::parse_over(&file, &text, Some(finer))?);
    }
    Ok(family)
}

/// Dimensions and measures in the order of the SELECT; measures are the columns with a comment.
pub(super) fn columns(pipeline: &Pipeline) -> (Vec<String>, Vec<String>) {
    let Statement::Query(query) = &pipeline.statement else {
        return Default::default();
    };
    let SetExpr::Select(select) = query.body.as_ref() else {
        return Default::default();
    };
    let name = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(expr) => Some(expr.to_string()),
        _ => None,
    };
    let names = select.projection.iter().filter_map(name);
    let names = names.filter(|name| name != WINDOW_START && name != WINDOW_END);
    names.partition(|name| !pipeline.column_comments.contains_key(name))
}

fn coarser_text(finer: &Pipeline, window: &RollUp) -> String {
    let (dimensions, measures) = columns(finer);
    let mut comments = String::new();
    let mut kept = dimensions.clone();
    let mut sums = String::new();
    for name in measures {
        let comment = finer.column_comments.get(&name).map_or("", String::as_str);
        let value = match together(comment) {
            Together::Sum => format!("sum({name})"),
            Together::Greatest => format!("max({name})"),
            Together::Merge(function) => format!("{function}({name})"),
            Together::Never => continue,
        };
        comments.push_str(&format!("--   {name}: {comment}\n"));
        sums.push_str(&format!(", {value} AS {name}"));
        kept.push(name);
    }
    let about = finer.about.split(" (by ").next().unwrap_or_default();
    let group: String = dimensions.iter().map(|name| format!(", {name}")).collect();
    let (interval, table, kept) = (&window.interval, finer.table(), kept.join(", "));
    format!(
        "-- {about} (by {interval}, rolled up from {table})\n-- Columns:\n{comments}\
         SELECT window.start AS {WINDOW_START}, window.end AS {WINDOW_END}, {kept}\n\
         FROM (SELECT tumble(interval '{interval}') AS window{group}{sums}\n\
         FROM {table} GROUP BY window{group}) AS windows\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::pipeline::parse_all;

    const AUDIENCE: &str = "-- Who watches.\n-- Rolls up: 5 minutes, 1 hour\n-- Columns:\n--   active_ms: time (ms)\n\
        --   peak: most at once (peak)\n--   avg: average (ratio)\n--   lengths: sketch of lengths (sketch)\n\
        SELECT window.start AS window_start, window.end AS window_end, country, active_ms, peak, active_ms / 60 AS avg, lengths\n\
        FROM (SELECT tumble(interval '1 minute') AS window, country, sum(duration_ms) AS active_ms, max(starts) AS peak,\n\
        sketch_build(duration_ms) AS lengths FROM silver.playback_intervals GROUP BY window, country) AS minutes";

    fn texts(text: &str) -> Vec<String> {
        match parse_all(&[("pipelines/audience_1m.sql".to_string(), text.to_string())]) {
            Ok(family) => family
                .iter()
                .map(|p| format!("{} {} {:?} {}", p.name, p.window_minutes, p.reads, p.statement))
                .collect(),
            Err(complaints) => complaints.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn each_table_is_rolled_up_from_the_next_finer_one() {
        let family = texts(AUDIENCE);
        assert_eq!(family.len(), 3, "{family:#?}");
        assert!(
            family[1].starts_with("audience_5m 5 [\"playback_intervals\"] SELECT window.start"),
            "{}",
            family[1]
        );
        assert!(
            family[1].contains(
                "sum(active_ms) AS active_ms, max(peak) AS peak, sketch_merge(lengths) AS lengths FROM gold.audience_1m GROUP BY"
            ),
            "{}",
            family[1]
        );
        assert!(!family[1].contains("avg"), "an average is not averaged: {}", family[1]);
        assert!(family[2].starts_with("audience_1h 60"), "{}", family[2]);
        assert!(family[2].contains("FROM gold.audience_5m"), "{}", family[2]);
    }

    #[test]
    fn a_change_of_the_finest_text_is_a_change_of_all() {
        let hashes = |text: &str| -> Vec<String> {
            let family = parse_all(&[("audience_1m.sql".to_string(), text.to_string())]).expect("sound");
            family.into_iter().map(|p| p.hash).collect()
        };
        let (before, after) = (hashes(AUDIENCE), hashes(&AUDIENCE.replace("max(starts)", "min(starts)")));
        assert!(before.iter().zip(&after).all(|(before, after)| before != after));
    }

    #[test]
    fn a_change_reaches_the_coarser_windows_that_it_reaches_through_the_finer_ones() {
        let text = AUDIENCE.replace("-- Rolls up", "-- Reach: 2 minutes\n-- Rolls up");
        let family = parse_all(&[("audience_1m.sql".to_string(), text)]).expect("sound");
        let reaches: Vec<i64> = family.iter().map(|pipeline| pipeline.reach_minutes).collect();
        assert_eq!(reaches, [2, 2, 2]);
    }

    #[test]
    fn windows_ascend_and_divide_one_another() {
        let check = |list: &str, expected: &str| {
            let shown = match windows(list) {
                Ok(windows) => windows.iter().map(RollUp::suffix).collect::<Vec<_>>().join(" "),
                Err(complaint) => complaint,
            };
            assert!(shown.contains(expected), "{list}: {shown}");
        };
        check("5 minutes, 1 hour, 1 day", "_5m _1h _1d");
        check("30 minutes, 20 minutes", "`-- Rolls up: 20 minutes` is not understood");
        check("7 minutes", "is not understood");
        check("soon", "is not understood");
    }
}
