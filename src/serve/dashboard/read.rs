//! Reads a Grafana dashboard file (classic JSON, Grafana 11 and 12) as far as Playhead draws it.
//!
//! Gives `Dashboard`. What a file holds beyond that is either without meaning for a drawing (schema
//! version, editor state) or named in `left_out`.
//!
//! Invariant: only a file that is no dashboard at all fails.

use serde::Deserialize;
use serde_json::Value;

use super::scope::span_ms;
use super::{
    Choice, DATA_SOURCE_TYPE, Dashboard, FieldConfig, Format, Grid, Hide, Link, Panel, PanelKind, Target, TimeSpan, Variable, VariableKind,
};

/// What Grafana called the type of our data source before version 10.
const OLD_DATA_SOURCE_TYPE: &str = "postgres";

#[derive(Deserialize)]
struct WrittenDashboard {
    uid: String,
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    templating: WrittenTemplating,
    panels: Vec<Value>,
    #[serde(default)]
    links: Vec<Link>,
    time: TimeSpan,
    #[serde(default)]
    refresh: Value,
}

#[derive(Deserialize, Default)]
struct WrittenTemplating {
    #[serde(default)]
    list: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenVariable {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    query: Value,
    #[serde(default)]
    multi: bool,
    #[serde(default)]
    include_all: bool,
    #[serde(default)]
    all_value: Option<String>,
    #[serde(default)]
    hide: u8,
    #[serde(default)]
    current: WrittenCurrent,
}

#[derive(Deserialize, Default)]
struct WrittenCurrent {
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenPanel {
    id: i64,
    #[serde(default)]
    title: String,
    #[serde(default)]
    description: String,
    #[serde(rename = "type")]
    kind: Value,
    #[serde(default)]
    grid_pos: Grid,
    #[serde(default)]
    targets: Vec<WrittenTarget>,
    #[serde(default)]
    field_config: Value,
    #[serde(default)]
    options: Value,
    #[serde(default)]
    links: Vec<Link>,
    #[serde(default)]
    interval: Option<String>,
    #[serde(default)]
    max_data_points: Option<i64>,
    #[serde(default)]
    transformations: Vec<Value>,
    /// Of a folded row.
    #[serde(default)]
    panels: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenTarget {
    #[serde(default)]
    ref_id: String,
    #[serde(default)]
    raw_sql: String,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    hide: bool,
    #[serde(default)]
    datasource: Value,
}

/// Reads the text of one file.
///
/// # Errors
/// It is no JSON, or no dashboard in Grafana's classic form: where and what.
pub fn read(text: &str) -> Result<Dashboard, String> {
    let written: WrittenDashboard = serde_json::from_str(text).map_err(|error| {
        format!("{error}; save the dashboard from Grafana as JSON in the classic form, with uid, title, panels and time")
    })?;
    let mut left_out = Vec::new();
    let mut panels = Vec::new();
    for value in &written.panels {
        panels_of(value, &mut panels, &mut left_out);
    }
    let variables = written.templating.list.iter().filter_map(|value| variable(value, &mut left_out));
    Ok(Dashboard {
        uid: written.uid,
        title: written.title,
        description: written.description,
        tags: written.tags,
        variables: variables.collect(),
        panels,
        // A menu of dashboards by tag has no address.
        links: written.links.into_iter().filter(|link| !link.url.is_empty()).collect(),
        time: written.time,
        refresh: written.refresh.as_str().unwrap_or_default().to_owned(),
        left_out,
    })
}

fn variable(value: &Value, left_out: &mut Vec<String>) -> Option<Variable> {
    let written = match WrittenVariable::deserialize(value) {
        Ok(written) => written,
        Err(error) => {
            left_out.push(format!("variable {}: {error}", value["name"]));
            return None;
        }
    };
    let kind = match written.kind.as_str() {
        "query" => VariableKind::Query,
        "custom" => VariableKind::Custom,
        "interval" => VariableKind::Interval,
        "constant" => VariableKind::Constant,
        "textbox" => VariableKind::TextBox,
        other => {
            left_out.push(format!("variable {}: variables of type {other} are not known", written.name));
            return None;
        }
    };
    let query = query_text(&written.query);
    let options = if kind == VariableKind::Query {
        Vec::new()
    } else {
        choices(kind, &query)
    };
    let mut current = texts(&written.current.value);
    if current.is_empty() {
        current.extend(options.first().map(|option| option.value.clone()));
    }
    Some(Variable {
        label: written
            .label
            .filter(|label| !label.is_empty())
            .unwrap_or_else(|| written.name.clone()),
        name: written.name,
        description: written.description.unwrap_or_default(),
        kind,
        query: if kind == VariableKind::Query { query } else { String::new() },
        options,
        multi: written.multi,
        include_all: written.include_all,
        all_value: written.all_value.filter(|text| !text.is_empty()),
        hide: match written.hide {
            0 => Hide::Nothing,
            1 => Hide::Label,
            _ => Hide::Variable,
        },
        current,
    })
}

/// The query of a variable: a text, or an object with it in one of two places.
fn query_text(query: &Value) -> String {
    let text = query.as_str().or(query["rawSql"].as_str()).or(query["query"].as_str());
    text.unwrap_or_default().to_owned()
}

/// `a, b` or `Text : value, Other : value` of a custom variable.
fn choices(kind: VariableKind, query: &str) -> Vec<Choice> {
    let choice = |text: &str, value: &str| Choice {
        text: text.trim().to_owned(),
        value: value.trim().to_owned(),
    };
    match kind {
        VariableKind::Custom => query
            .split(',')
            .map(|part| {
                part.split_once(" : ")
                    .map_or_else(|| choice(part, part), |(text, value)| choice(text, value))
            })
            .collect(),
        VariableKind::Interval => query.split(',').map(|part| choice(part, part)).collect(),
        VariableKind::Query | VariableKind::Constant | VariableKind::TextBox => vec![choice(query, query)],
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Number(number) => vec![number.to_string()],
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

fn panels_of(value: &Value, panels: &mut Vec<Panel>, left_out: &mut Vec<String>) {
    let named = || format!("panel {} {}", value["id"], value["title"]);
    let written = match WrittenPanel::deserialize(value) {
        Ok(written) => written,
        Err(error) => return left_out.push(format!("{}: {error}", named())),
    };
    let Ok(kind) = PanelKind::deserialize(&written.kind) else {
        return left_out.push(format!("{}: panels of type {} are not drawn", named(), written.kind));
    };
    if !written.transformations.is_empty() {
        left_out.push(format!("{}: its transformations are not made; say it in SQL", named()));
    }
    let field_config = match &written.field_config {
        Value::Null => FieldConfig::default(),
        config => FieldConfig::deserialize(config).unwrap_or_else(|error| {
            left_out.push(format!("{}: fieldConfig: {error}", named()));
            FieldConfig::default()
        }),
    };
    let targets = written.targets.into_iter().filter_map(|target| {
        read_target(target).unwrap_or_else(|reason| {
            left_out.push(format!("{}: {reason}", named()));
            None
        })
    });
    let targets = targets.collect();
    panels.push(Panel {
        id: written.id,
        title: written.title,
        description: written.description,
        kind,
        grid: written.grid_pos,
        targets,
        field_config,
        options: written.options,
        links: written.links,
        min_interval_ms: written.interval.as_deref().and_then(smallest_step_ms).unwrap_or(1),
        max_data_points: written.max_data_points,
    });
    for inner in &written.panels {
        panels_of(inner, panels, left_out);
    }
}

/// `5m`, or `>5m` as older files have it.
fn smallest_step_ms(text: &str) -> Option<i64> {
    span_ms(text.trim_start_matches('>'))
}

/// `None` for what the file itself hides.
fn read_target(written: WrittenTarget) -> Result<Option<Target>, String> {
    if written.hide {
        return Ok(None);
    }
    let asked = written.datasource["type"].as_str().unwrap_or(DATA_SOURCE_TYPE);
    if ![DATA_SOURCE_TYPE, OLD_DATA_SOURCE_TYPE].contains(&asked) {
        return Err(format!("query {} asks a data source of type {asked}", written.ref_id));
    }
    if written.raw_sql.is_empty() {
        return Err(format!("query {} has no SQL", written.ref_id));
    }
    Ok(Some(Target {
        ref_id: written.ref_id,
        raw_sql: written.raw_sql,
        format: match written.format.as_deref() {
            Some("table") => Format::Table,
            _ => Format::TimeSeries,
        },
    }))
}

#[cfg(test)]
mod tests;
