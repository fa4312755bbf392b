//! The dashboards of the folder that the settings name, and what is wrong with them.
//!
//! Stands behind `playhead check` and the page. A dashboard that is wrong stops nothing: the others are
//! there, and the complaint names file, panel and reason.
//!
//! Invariant: reads files and touches nothing else.

use std::collections::BTreeMap;

use super::check::{Complaints, folder_files, gold_specs, pipelines};
use crate::builtin;
use crate::config::{Config, Folder};
use crate::serve::dashboard::{Dashboard, PanelKind, expand, read};
use crate::sql;

/// The end and the length of the time range that SQL is planned with; any will do.
const PLANNED_TO_MS: i64 = 1_772_323_200_000;
const PLANNED_RANGE_MS: i64 = 6 * 3_600_000;

/// What a folder holds.
pub struct Dashboards {
    /// With the names of their files.
    pub readable: Vec<(String, Dashboard)>,
    pub complaints: Vec<String>,
}

/// Reads the folder that the settings name.
///
/// # Errors
/// The folder cannot be read.
pub fn dashboards(config: &Config) -> Result<Dashboards, Complaints> {
    let files = folder_files(&config.dashboards, "json", &builtin::DASHBOARDS)?;
    let mut found = Dashboards {
        readable: Vec::new(),
        complaints: Vec::new(),
    };
    for (file, text) in files {
        match read(&text) {
            Ok(dashboard) => found.readable.push((file, dashboard)),
            Err(error) => found.complaints.push(format!("{file}: {error}")),
        }
    }
    found.complaints.extend(names_taken_twice(&found.readable));
    Ok(found)
}

/// Everything that is wrong with the dashboards of the user's folder, their SQL planned over empty tables.
/// Those that are compiled in are not looked at: they fit the pipelines that are compiled in.
///
/// # Errors
/// The folder or the pipelines cannot be read.
pub async fn dashboard_complaints(config: &Config) -> Result<Vec<String>, Complaints> {
    if config.dashboards == Folder::BuiltIn {
        return Ok(Vec::new());
    }
    let found = dashboards(config)?;
    let specs = gold_specs(&pipelines(config)?).await?;
    let context = sql::empty_lake(&specs).await.map_err(|error| Complaints(vec![error.to_string()]))?;
    let mut complaints = found.complaints;
    for (file, dashboard) in &found.readable {
        for (place, text) in questions(dashboard) {
            if let Err(reason) = planned(&context, dashboard, text).await {
                complaints.push(format!("{file}: {place}: {reason}"));
            }
        }
    }
    Ok(complaints)
}

fn names_taken_twice(readable: &[(String, Dashboard)]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut files: BTreeMap<&str, &str> = BTreeMap::new();
    for (file, dashboard) in readable {
        if let Some(other) = files.insert(&dashboard.uid, file) {
            complaints.push(format!("{file}: uid `{}` is that of {other} too; choose another", dashboard.uid));
        }
        let mut titles: BTreeMap<i64, &str> = BTreeMap::new();
        for panel in &dashboard.panels {
            if let Some(other) = titles.insert(panel.id, &panel.title) {
                complaints.push(format!(
                    "{file}: panels `{other}` and `{}` have the same id {}",
                    panel.title, panel.id
                ));
            }
        }
    }
    complaints
}

/// Every SQL of a dashboard, and where it stands.
fn questions(dashboard: &Dashboard) -> Vec<(String, &str)> {
    let of_variables = dashboard.variables.iter().filter(|variable| !variable.query.is_empty());
    let mut found: Vec<(String, &str)> = of_variables
        .map(|variable| (format!("variable {}", variable.name), variable.query.as_str()))
        .collect();
    for panel in dashboard.panels.iter().filter(|panel| panel.kind != PanelKind::Text) {
        for target in &panel.targets {
            found.push((
                format!("panel {} `{}`, query {}", panel.id, panel.title, target.ref_id),
                &target.raw_sql,
            ));
        }
    }
    found
}

async fn planned(context: &sql::Session, dashboard: &Dashboard, text: &str) -> Result<(), String> {
    if let Some(name) = dashboard.unknown_names(text).first() {
        return Err(format!("there is no variable ${name}; add it to the dashboard or take it out"));
    }
    let scope = dashboard.first_scope(PLANNED_TO_MS - PLANNED_RANGE_MS, PLANNED_TO_MS);
    let text = expand(text, &scope).map_err(|error| error.to_string())?;
    match context.sql(&text).await {
        Ok(_) => Ok(()),
        Err(error) => Err(sql::SqlError::from(error).to_string()),
    }
}
