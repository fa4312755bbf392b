//! A Grafana dashboard as Playhead draws and checks it: one file of `dashboards/*.json`.
//!
//! Stands behind the gold tables: Grafana reads the same file by itself. Here it is read as far as we
//! draw it (`read`), and its SQL is completed (`expand`) with a time range and the values of its
//! variables (`scope`) just as Grafana's PostgreSQL data source does.
//!
//! Invariant: pure; files are read by whoever calls.
//! Invariant: what is not understood is left out and named in `left_out`; it never fails the file.
//! Invariant: a value that a reader chose cannot leave its literal.

mod expand;
mod macros;
mod read;
mod reference;
mod scope;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use expand::{ExpandError, expand};
pub use read::read;
pub use reference::names_in;
pub use scope::{ALL, Chosen, Scope, interval_text, rounded_interval_ms, span_ms};

/// The data source that our dashboards name, and its type.
pub const DATA_SOURCE_UID: &str = "playhead";
pub const DATA_SOURCE_TYPE: &str = "grafana-postgresql-datasource";

/// Points of a panel whose width is not known.
const FIRST_POINTS: i64 = 1_000;

/// One dashboard.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dashboard {
    pub uid: String,
    pub title: String,
    pub description: String,
    pub tags: Vec<String>,
    pub variables: Vec<Variable>,
    /// In the order of the file; those of a folded row follow their row.
    pub panels: Vec<Panel>,
    pub links: Vec<Link>,
    pub time: TimeSpan,
    /// How often it asks again, as `30s`; empty: never by itself.
    pub refresh: String,
    /// What of the file is not drawn, one sentence each.
    pub left_out: Vec<String>,
}

/// A time range in Grafana's words: `now-6h`, `now/d`, or a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeSpan {
    pub from: String,
    pub to: String,
}

/// What a reader may choose.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    pub name: String,
    pub label: String,
    pub description: String,
    pub kind: VariableKind,
    /// The SQL that gives the choices; empty unless the kind is `Query`.
    pub query: String,
    /// The choices that the file itself gives.
    pub options: Vec<Choice>,
    pub multi: bool,
    pub include_all: bool,
    /// What stands for all of them in SQL, as it is; `None`: the list of all choices.
    pub all_value: Option<String>,
    pub hide: Hide,
    /// What is chosen at first.
    pub current: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VariableKind {
    Query,
    Custom,
    Interval,
    Constant,
    TextBox,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hide {
    Nothing,
    Label,
    Variable,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    pub text: String,
    pub value: String,
}

/// One panel.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Panel {
    pub id: i64,
    pub title: String,
    pub description: String,
    pub kind: PanelKind,
    pub grid: Grid,
    pub targets: Vec<Target>,
    pub field_config: FieldConfig,
    /// As the file has them; what they mean depends on the kind.
    pub options: Value,
    pub links: Vec<Link>,
    /// The smallest step, ms; 1 if the file says none.
    pub min_interval_ms: i64,
    /// Points that the file asks for at most.
    pub max_data_points: Option<i64>,
}

/// The kinds that are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PanelKind {
    Row,
    Text,
    Stat,
    TimeSeries,
    BarChart,
    BarGauge,
    Gauge,
    Table,
    PieChart,
    HeatMap,
    GeoMap,
}

/// Place in a grid that is 24 wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Grid {
    pub x: u32,
    pub y: u32,
    pub w: u32,
    pub h: u32,
}

/// One question of a panel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub ref_id: String,
    /// As in the file, macros and variables and all.
    pub raw_sql: String,
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    TimeSeries,
    Table,
}

/// How values are shown, and what differs for some columns.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FieldConfig {
    pub defaults: Field,
    pub overrides: Vec<Override>,
}

/// How one value is shown.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Field {
    pub unit: Option<String>,
    pub decimals: Option<u32>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub display_name: Option<String>,
    /// What stands where there is no value.
    pub no_value: Option<String>,
    pub color: Option<Color>,
    pub thresholds: Option<Thresholds>,
    pub mappings: Vec<Mapping>,
    pub links: Vec<Link>,
    /// What only one kind of panel understands.
    pub custom: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Color {
    pub mode: String,
    #[serde(default)]
    pub fixed_color: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    pub mode: ThresholdMode,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThresholdMode {
    Absolute,
    Percentage,
}

/// From this value upwards, this colour; the first has none and means everything below the second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub color: String,
    pub value: Option<f64>,
}

/// Other words or colours for some values, as the file has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mapping {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub options: Value,
}

/// Other settings for the columns that match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Override {
    pub matcher: Matcher,
    #[serde(default)]
    pub properties: Vec<Property>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matcher {
    pub id: String,
    #[serde(default)]
    pub options: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Property {
    pub id: String,
    #[serde(default)]
    pub value: Value,
}

/// A way to another page; variables in its address are those of the dashboard and `__data.fields`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Link {
    pub title: String,
    pub url: String,
    pub target_blank: bool,
    /// The reader's time range and variables go along.
    pub keep_time: bool,
    pub include_vars: bool,
}

impl Dashboard {
    pub fn panel(&self, id: i64) -> Option<&Panel> {
        self.panels.iter().find(|panel| panel.id == id)
    }

    /// The scope of a reader who has chosen nothing yet.
    pub fn first_scope(&self, from_ms: i64, to_ms: i64) -> Scope {
        let mut scope = Scope::new(from_ms, to_ms, FIRST_POINTS, 1);
        let chosen = |variable: &Variable| (variable.name.clone(), variable.chosen(&variable.current, &[]));
        scope.variables = self.variables.iter().map(chosen).collect();
        scope
    }

    /// What a text refers to as a variable and the file does not have.
    pub fn unknown_names(&self, text: &str) -> Vec<String> {
        let is_unknown = |name: &String| !name.starts_with("__") && name.parse::<u32>().is_err() && self.variable(name).is_none();
        names_in(text).into_iter().filter(is_unknown).collect()
    }

    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|variable| variable.name == name)
    }
}

impl Variable {
    /// What a reader's choice means in SQL. `values` is what was picked (`ALL` for all of them), `choices`
    /// is what could have been.
    pub fn chosen(&self, values: &[String], choices: &[String]) -> Chosen {
        let is_all = self.include_all && values.iter().any(|value| value == ALL);
        match (&self.all_value, is_all) {
            (Some(text), true) => Chosen::AsWritten(text.clone()),
            (None, true) => Chosen::Many(choices.to_vec()),
            (_, false) if self.multi => Chosen::Many(values.to_vec()),
            (_, false) => Chosen::One(values.first().cloned().unwrap_or_default()),
        }
    }
}
