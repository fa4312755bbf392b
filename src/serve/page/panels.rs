//! `/api/panel`: columns and rows of one panel of a dashboard file, and the SQL that was run.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::answers::{Answered, PANEL_TIME};
use super::choices::Asked;
use super::{Page, Refusal};
use crate::serve::dashboard::{Format, expand};

/// What the browser draws.
#[derive(Serialize)]
pub struct PanelAnswer {
    from_ms: i64,
    to_ms: i64,
    interval_ms: i64,
    frames: Vec<Frame>,
    /// Rows are missing: there were more than are drawn.
    is_cut: bool,
    rows: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
struct Frame {
    #[serde(rename = "refId")]
    ref_id: String,
    format: Format,
    sql: String,
    rows: usize,
    took_ms: f64,
    #[serde(serialize_with = "columns")]
    columns: Arc<Answered>,
}

fn columns<S: Serializer>(answered: &Arc<Answered>, serializer: S) -> Result<S::Ok, S::Error> {
    answered.columns.serialize(serializer)
}

impl Page {
    pub(super) async fn panel(&self, query: &str) -> Result<PanelAnswer, Refusal> {
        let asked = Asked::parse(query)?;
        let dashboard = self.shelf.find(&asked.dashboard)?;
        let id = asked
            .panel
            .ok_or_else(|| Refusal::Wrong("say which panel: panel=<id>".to_owned()))?;
        let panel = dashboard.panel(id);
        let panel = panel.ok_or_else(|| Refusal::NotFound(format!("dashboard {:?} has no panel {id}", dashboard.uid)))?;
        let desk = self.desk()?;
        let scope = self.scope(&desk, &asked, &dashboard, panel).await?;
        let about = |error: &dyn std::fmt::Display| Refusal::Failed(format!("{}, panel {id} ({}): {error}", dashboard.uid, panel.title));
        let mut frames = Vec::with_capacity(panel.targets.len());
        for target in &panel.targets {
            let sql = expand(&target.raw_sql, &scope).map_err(|error| about(&error))?;
            let answered = self.answers.get(&desk, &sql, PANEL_TIME).await.map_err(|refusal| match refusal {
                Refusal::Failed(text) => about(&text),
                other => other,
            })?;
            frames.push(Frame {
                ref_id: target.ref_id.clone(),
                format: target.format,
                sql,
                rows: answered.rows,
                took_ms: answered.took_ms,
                columns: answered,
            });
        }
        Ok(PanelAnswer {
            from_ms: scope.from_ms,
            to_ms: scope.to_ms,
            interval_ms: scope.interval_ms,
            is_cut: frames.iter().any(|frame| frame.columns.is_cut),
            rows: frames.iter().map(|frame| frame.rows).max().unwrap_or(0),
            frames,
        })
    }
}
