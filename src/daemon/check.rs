//! Settings, pipelines and alert rules that fit each other, read before anything is opened.
//!
//! Stands before the daemon and behind `playhead check`.
//!
//! Invariant: reads files and touches nothing else.

use std::path::{Path, PathBuf};

use super::publishing;
use crate::alert::rule::{Catalogue, RuleSet, parse_rules};
use crate::builtin;
use crate::config::{Config, Folder, process_env};
use crate::lake::tables::{TableSpec, health};
use crate::rollup::table_spec;
use crate::sql::pipeline::{Pipeline, parse_all};
use crate::sql::views::{self, ViewSpec};
use crate::sql::{QueryLimits, empty_gold};

/// A list of things that a person has to mend in settings, pipelines or alerts.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Complaints(pub Vec<String>);

/// Pipelines of the folder that the settings name.
pub fn pipelines(config: &Config) -> Result<Vec<Pipeline>, Complaints> {
    let files = pipeline_files(config)?;
    parse_all(&files).map_err(|complaints| Complaints(complaints.iter().map(ToString::to_string).collect()))
}

pub(super) fn pipeline_files(config: &Config) -> Result<Vec<(String, String)>, Complaints> {
    folder_files(&config.pipelines, "sql", &builtin::PIPELINES)
}

/// The gold tables that these pipelines fill.
pub async fn gold_specs(pipelines: &[Pipeline]) -> Result<Vec<TableSpec>, Complaints> {
    let mut specs = Vec::new();
    let mut complaints = Vec::new();
    for pipeline in pipelines {
        match table_spec(pipeline).await {
            Ok(spec) => specs.push(spec),
            Err(error) => complaints.push(error.to_string()),
        }
    }
    // What is wrong with a file is wrong with every table that rolls it up.
    complaints.dedup();
    if complaints.is_empty() {
        Ok(specs)
    } else {
        Err(Complaints(complaints))
    }
}

/// The views over these gold tables.
pub async fn gold_views(specs: &[TableSpec]) -> Result<Vec<ViewSpec>, Complaints> {
    views::described(specs).await.map_err(|error| Complaints(vec![error.to_string()]))
}

/// Pipelines and rules that fit each other.
pub struct Checked {
    pub pipelines: Vec<Pipeline>,
    pub rules: RuleSet,
}

/// Reads pipelines and rules; touches nothing else.
pub async fn check(config: &Config) -> Result<Checked, Complaints> {
    let pipelines = pipelines(config)?;
    let specs = gold_specs(&pipelines).await?;
    let rules = rules(config, &specs).await?;
    let figures = publishing::complaints(config, &pipelines);
    if !figures.is_empty() {
        return Err(Complaints(figures));
    }
    Ok(Checked { pipelines, rules })
}

/// Rules of the folder that the settings name, checked against the gold tables.
pub async fn rules(config: &Config, specs: &[TableSpec]) -> Result<RuleSet, Complaints> {
    rules_in(&alert_files(config)?, specs).await
}

/// Rules of these files, checked against the gold tables.
pub async fn rules_in(files: &[(String, String)], specs: &[TableSpec]) -> Result<RuleSet, Complaints> {
    let views = gold_views(specs).await?;
    let specs = &with_own(specs);
    let rules = parse_rules(files, &GoldCatalogue(specs, &views), &process_env)
        .map_err(|complaints| Complaints(complaints.iter().map(ToString::to_string).collect()))?;
    let context = empty_gold(specs).await.map_err(|error| Complaints(vec![error.to_string()]))?;
    let mut complaints = Vec::new();
    for rule in &rules.rules {
        // One end that every slide has.
        for text in rule.queries(&[0]).into_iter().chain(rule.history_sql(0)) {
            if let Err(error) = context.sql(&text).await {
                let on = if rule.from().is_empty() { "gold" } else { rule.from() };
                complaints.push(format!("rule `{}`: its expressions do not run on {on}: {error}", rule.uid()));
                break;
            }
        }
    }
    if complaints.is_empty() {
        Ok(rules)
    } else {
        Err(Complaints(complaints))
    }
}

/// These tables and the one that tells of the daemon's own health: what rules may read.
pub fn with_own(specs: &[TableSpec]) -> Vec<TableSpec> {
    specs.iter().cloned().chain([health()]).collect()
}

/// The texts of these files and folders; of the folder of the settings where there are none.
///
/// # Errors
/// What cannot be read.
pub fn rule_files(config: &Config, paths: &[PathBuf]) -> Result<Vec<(String, String)>, Complaints> {
    if paths.is_empty() {
        return alert_files(config);
    }
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(folder_files(&Folder::Path(path.clone()), "yaml", &[])?);
            continue;
        }
        match std::fs::read_to_string(path) {
            Ok(text) => files.push((path.display().to_string(), text)),
            Err(error) => return Err(Complaints(vec![format!("cannot read {}: {error}; check its name", path.display())])),
        }
    }
    Ok(files)
}

struct GoldCatalogue<'a>(&'a [TableSpec], &'a [ViewSpec]);

impl Catalogue for GoldCatalogue<'_> {
    fn columns(&self, table: &str) -> Option<Vec<String>> {
        let stored = self.0.iter().find(|spec| spec.name == table).map(|spec| &spec.schema);
        let schema = stored.or(self.1.iter().find(|view| view.name == table).map(|view| &view.schema))?;
        Some(schema.fields().iter().map(|field| field.name().clone()).collect())
    }

    fn tables(&self) -> Vec<String> {
        let stored = self.0.iter().map(|spec| spec.name.clone());
        stored.chain(self.1.iter().map(|view| view.name.clone())).collect()
    }
}

pub(super) fn folder_files(folder: &Folder, ending: &str, shipped: &[(&str, &str)]) -> Result<Vec<(String, String)>, Complaints> {
    let path = match folder {
        Folder::BuiltIn => return Ok(shipped.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()),
        Folder::Path(path) => path,
    };
    let unreadable = |path: &Path, error: &std::io::Error| {
        Complaints(vec![format!(
            "cannot read {}: {error}; check the folder in the settings",
            path.display()
        )])
    };
    let entries = std::fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|found| found == ending || (ending == "yaml" && found == "yml"))
    });
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        files.push((path.display().to_string(), text));
    }
    Ok(files)
}

/// Bounds of queries, from the settings.
pub fn query_limits(config: &Config) -> QueryLimits {
    QueryLimits {
        memory_bytes: usize::try_from(config.sql.memory_bytes).unwrap_or(usize::MAX),
        timeout: config.sql.timeout,
    }
}

pub(super) fn alert_files(config: &Config) -> Result<Vec<(String, String)>, Complaints> {
    folder_files(&config.alerts.folder, "yaml", &builtin::ALERTS)
}
