//! Views over gold: answers that are put together from several gold tables when they are asked for.
//!
//! Stands between the gold tables of a session and whoever asks: `playhead sql`, alert rules, the page of
//! the tables. One file of `views/` makes one view for each length of window.
//!
//! Invariant: a view has no rows of its own, so there is nothing to compute, to repair or to keep.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;

use super::{SqlError, empty_gold, pipeline, schema};
use crate::lake::tables::{TableSpec, with_comments};

/// Name and text of every view, as of the finest tables.
const TEXTS: [(&str, &str); 1] = [("cdn_compare_1m", include_str!("../../views/cdn_compare_1m.sql"))];
/// The ending of the tables that a view's text names, and of the first view made from it.
const FINEST: &str = "_1m";
/// The endings of the views made from one text, those of tables that are rolled up.
const GRAINS: [&str; 4] = [FINEST, "_5m", "_1h", "_1d"];

/// One view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Without its layer: `cdn_compare_5m`.
    pub name: String,
    pub text: String,
    /// The view of the finest windows that is made from the same text, if it is another.
    pub finest: Option<String>,
}

/// A view as its readers see it.
#[derive(Debug, Clone)]
pub struct ViewSpec {
    /// `gold.cdn_compare_5m`.
    pub name: String,
    pub about: String,
    /// The tables that it reads, `gold.cdn_5m`.
    pub reads: Vec<String>,
    /// `gold.cdn_compare_1m`, if this is another: it has the same columns.
    pub finest: Option<String>,
    /// Each column has its comment.
    pub schema: SchemaRef,
}

/// All views, the finest of each text first.
pub fn all() -> Vec<View> {
    let of_grain = |(name, text): &(&str, &str), grain: &str| View {
        name: name.replace(FINEST, grain),
        text: text.replace(FINEST, grain),
        finest: (grain != FINEST).then(|| name.to_string()),
    };
    TEXTS.iter().flat_map(|text| GRAINS.map(|grain| of_grain(text, grain))).collect()
}

impl View {
    /// The gold tables that it reads, without their layer.
    pub fn reads(&self) -> Vec<String> {
        let body = self.text.lines().filter(|line| !line.starts_with("--"));
        let words = body.flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')));
        let tables: BTreeSet<String> = words.filter_map(|word| word.strip_prefix("gold.")).map(str::to_owned).collect();
        tables.into_iter().collect()
    }
}

/// `gold.x` itself, or what it reads if it is a view.
pub fn tables_behind(name: &str) -> Vec<String> {
    let view = all().into_iter().find(|view| name.strip_prefix("gold.") == Some(&view.name));
    match view {
        Some(view) => view.reads().iter().map(|table| format!("gold.{table}")).collect(),
        None => vec![name.to_owned()],
    }
}

/// Registers each view whose tables are all there with the columns that it names: who has pipelines of
/// his own may have other ones, and then has no such view.
///
/// # Errors
/// The session has no schema for gold.
pub async fn register(context: &SessionContext) -> Result<(), DataFusionError> {
    let gold = schema(context, "gold")?;
    for view in all() {
        if gold.table_exist(&view.name) || !view.reads().iter().all(|table| gold.table_exist(table)) {
            continue;
        }
        if let Ok(frame) = context.sql(&view.text).await {
            gold.register_table(view.name, frame.into_view())?;
        }
    }
    Ok(())
}

/// The views over gold tables of these shapes.
///
/// # Errors
/// As `register`.
pub async fn described(specs: &[TableSpec]) -> Result<Vec<ViewSpec>, SqlError> {
    let context = empty_gold(specs).await?;
    let gold = schema(&context, "gold")?;
    let stored = |name: &str| specs.iter().any(|spec| spec.name.strip_prefix("gold.") == Some(name));
    let mut described: Vec<ViewSpec> = Vec::new();
    for view in all() {
        if stored(&view.name) {
            continue;
        }
        let Some(table) = gold.table(&view.name).await? else { continue };
        let (about, comments) = pipeline::comments(&view.text);
        let plain = Schema::new(table.schema().fields().iter().map(Arc::clone).collect::<Vec<_>>());
        described.push(ViewSpec {
            name: format!("gold.{}", view.name),
            about,
            reads: view.reads().iter().map(|table| format!("gold.{table}")).collect(),
            finest: view.finest.as_ref().map(|finest| format!("gold.{finest}")),
            schema: with_comments(&plain, |name| Some(comments.get(name).cloned().unwrap_or_default())),
        });
    }
    Ok(described)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::pipeline::parse_all;
    use crate::sql::planning_context;

    const CDN: (&str, &str) = ("pipelines/cdn_1m.sql", include_str!("../../pipelines/cdn_1m.sql"));
    const DELIVERY: (&str, &str) = ("pipelines/delivery_1m.sql", include_str!("../../pipelines/delivery_1m.sql"));

    async fn specs(files: &[(&str, &str)]) -> Vec<TableSpec> {
        let files: Vec<(String, String)> = files.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        let mut specs: Vec<TableSpec> = Vec::new();
        for pipeline in parse_all(&files).expect("the shipped pipelines are sound") {
            let finer = pipeline.finer.as_ref().map(|finer| finer.table());
            let finer = specs.iter().find(|spec| Some(&spec.name) == finer.as_ref());
            let context = planning_context(finer).expect("there is memory to plan");
            let plan = pipeline.plan(&context).await.expect("it can be planned");
            specs.push(pipeline.table_spec(&plan).expect("its columns can be stored"));
        }
        specs
    }

    #[tokio::test]
    async fn every_view_is_planned_over_the_shipped_tables_and_explains_each_column() {
        let views = described(&specs(&[CDN, DELIVERY]).await).await.expect("they fit");
        let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "gold.cdn_compare_1m",
                "gold.cdn_compare_5m",
                "gold.cdn_compare_1h",
                "gold.cdn_compare_1d"
            ]
        );
        assert_eq!(views[1].reads, ["gold.cdn_1d", "gold.cdn_5m", "gold.delivery_5m"]);
        assert_eq!(views[3].reads, ["gold.cdn_1d", "gold.delivery_1d"]);
        for field in views.iter().flat_map(|view| view.schema.fields()) {
            let comment = field.metadata().get("comment").map_or("", String::as_str);
            assert!(!comment.is_empty(), "{} is not explained", field.name());
        }
    }

    #[tokio::test]
    async fn a_view_whose_tables_are_not_there_is_not_there_either() {
        let views = described(&specs(&[CDN]).await).await.expect("they fit");
        assert!(views.is_empty(), "{views:?}");
    }

    #[test]
    fn behind_a_view_stand_its_tables_and_behind_a_table_itself() {
        assert_eq!(tables_behind("gold.cdn_1m"), ["gold.cdn_1m"]);
        assert_eq!(
            tables_behind("gold.cdn_compare_1h"),
            ["gold.cdn_1d", "gold.cdn_1h", "gold.delivery_1h"]
        );
    }
}
