//! Alert rules: the YAML of `alerts/*.yaml` made into rules that can be evaluated.
//!
//! Stands before `alert::evaluate`: files in, a `RuleSet` or every complaint out. It reads no file,
//! no environment and no table; text, variables and columns are handed in.
//!
//! Invariant: a `Rule` comes only from `parse_rules`, so what is evaluated has been checked.
//! Invariant: one complaint makes the whole set invalid; the caller keeps the set that it has.
//! Invariant: the same files in any order give the same set and the same hash.
//! Invariant: a value taken from the environment is in no complaint.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_saphyr::{Location, Spanned};
use sha2::{Digest, Sha256};

use super::{DAY_MS, MINUTE_MS, message};

/// A rule file is written by hand; 1 MiB is some ten thousand rules.
const MAX_FILE_BYTES: usize = 1 << 20;
/// The schema needs nine levels; the parser recurses, and 16 fit a 2 MiB stack in a debug build.
const MAX_DEPTH: usize = 16;
/// An alias saves a few lines; more than this is an alias bomb.
const MAX_ALIASES: usize = 100;
/// Nodes that all aliases of a file may expand to.
const MAX_ALIAS_NODES: usize = 10_000;
/// Nodes of one file: ten thousand rules of ten keys.
const MAX_NODES: usize = 200_000;
/// Each rule is one query a minute.
const MAX_RULES: usize = 1_000;
/// More complaints than this help nobody; the first ones are kept.
const MAX_COMPLAINTS: usize = 200;
/// More dimensions than this make groups of one session.
const MAX_DIMS: usize = 8;
/// `condition` and `and` together.
const MAX_CONDITIONS: usize = 8;
/// Annotations, and labels, of one rule: what fits a message of 64 KiB.
const MAX_TEMPLATES: usize = 16;
/// Names become part of subjects, which must stay under 100 characters.
const MAX_NAME_CHARS: usize = 64;
/// Expressions and templates are one line of thought.
const MAX_TEXT_BYTES: usize = 4_096;
/// A window is read again every minute; a day is 1,440 rows a group.
const MAX_WINDOW_MS: i64 = DAY_MS;
/// Longer than this an alert is a report.
const MAX_HOLD_MS: i64 = 7 * DAY_MS;
/// Gold minutes older than this are seldom kept.
const MAX_LOOKBACK_MS: i64 = 90 * DAY_MS;
/// Longest part of a source line shown in a complaint.
const MAX_SHOWN_CHARS: usize = 160;

const DEFAULT_WINDOW_MS: i64 = 5 * MINUTE_MS;
const DEFAULT_Z: f64 = 3.0;
const DEFAULT_MIN_HISTORY_DAYS: i64 = 3;
const DEFAULT_MIN_PEERS: usize = 3;

/// What the rules may read. Implemented over the lake's tables.
pub trait Catalogue {
    /// The columns of a table written as in `from`, for instance `gold.cdn_1m`; none if unknown.
    fn columns(&self, table: &str) -> Option<Vec<String>>;
    fn tables(&self) -> Vec<String>;
}

/// Something wrong in a rule file. `Display` gives place, cause, the line, and the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Complaint {
    pub file: String,
    /// From 1; 0 when the complaint is about the file as a whole.
    pub line: usize,
    /// In characters from 1.
    pub column: usize,
    /// Where in the document, for instance `groups[0].rules[2].value.mean.sum`; may be empty.
    pub path: String,
    pub message: String,
    pub fix: String,
    /// The line as written.
    pub source_line: String,
    /// Characters to underline.
    pub width: usize,
}

impl Complaint {
    fn text(&self) -> String {
        let at = if self.path.is_empty() {
            String::new()
        } else {
            format!(", at {}", self.path)
        };
        let head = format!(
            "{}:{}:{}: {}{at}",
            self.file, self.line, self.column, self.message
        );
        if self.line == 0 {
            return format!("{head}\n  {}", self.fix);
        }
        let shown: String = self.source_line.chars().take(MAX_SHOWN_CHARS).collect();
        let indent = " ".repeat((self.column - 1).min(MAX_SHOWN_CHARS));
        let room = shown.chars().count().saturating_sub(self.column - 1);
        let caret = "^".repeat(self.width.clamp(1, room.max(1)));
        format!(
            "{head}\n{:>5} | {shown}\n      | {indent}{caret} {}",
            self.line, self.fix
        )
    }
}

/// Every rule and target in force, and the hash that names them.
#[derive(Debug, Clone)]
pub struct RuleSet {
    /// The enabled rules, in order of file name and place.
    pub rules: Vec<Rule>,
    pub targets: BTreeMap<String, Target>,
    /// `sha256:` and 64 hex digits over the texts in order of file name, each after its length.
    pub hash: String,
}

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Sns {
        topic_arn: String,
        endpoint_url: Option<String>,
        /// The topic's own region unless `region` says otherwise.
        region: String,
    },
}

/// How bad it is. Later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    const ALL: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Critical];

    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// What the rule looks at; each text is an SQL expression over columns, summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Measure {
    Ratio { num: String, den: String },
    Mean { sum: String, count: String },
}

impl Measure {
    pub(super) fn parts(&self) -> (&str, &str) {
        match self {
            Measure::Ratio { num, den } => (num, den),
            Measure::Mean { sum, count } => (sum, count),
        }
    }

    pub(super) fn is_ratio(&self) -> bool {
        matches!(self, Measure::Ratio { .. })
    }
}

/// How sure the value must be before it counts as a breach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Confidence {
    /// The value as it stands.
    None,
    /// Wilson score bound: only for a numerator that counts a part of the denominator.
    Wilson { z: f64 },
    /// Normal bound with the variance p(1 - p), the largest that a share of anything can have.
    Normal { z: f64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Baseline {
    SameSlot {
        slot_ms: i64,
        lookback_days: i64,
        min_history_days: i64,
    },
    Peers {
        /// Index into `group_by`.
        over: usize,
        /// Indexes into `group_by`.
        within: Vec<usize>,
        min_peers: usize,
    },
}

impl Baseline {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Baseline::SameSlot { .. } => "same_slot",
            Baseline::Peers { .. } => "peers",
        }
    }
}

/// Which number a condition looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    Value,
    /// value / baseline - 1.
    RatioToBaseline,
    /// value - baseline.
    DiffToBaseline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    #[serde(rename = ">")]
    Above,
    #[serde(rename = ">=")]
    AtLeast,
    #[serde(rename = "<")]
    Below,
    #[serde(rename = "<=")]
    AtMost,
}

impl Op {
    /// True when small values are the bad ones.
    pub(super) fn is_below(self) -> bool {
        matches!(self, Op::Below | Op::AtMost)
    }

    pub(super) fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Op::Above => left > right,
            Op::AtLeast => left >= right,
            Op::Below => left < right,
            Op::AtMost => left <= right,
        }
    }
}

/// One test against one threshold; a share is a fraction, all else in the unit of the value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    pub test: Test,
    pub op: Op,
    pub value: f64,
}

/// A checked rule. It has no constructor but `parse_rules`.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(super) uid: String,
    pub(super) alert: String,
    pub(super) owner: Option<String>,
    pub(super) runbook: Option<String>,
    pub(super) from: String,
    pub(super) measure: Measure,
    pub(super) samples: String,
    pub(super) window_ms: i64,
    pub(super) group_by: Vec<String>,
    pub(super) filter: Option<String>,
    pub(super) min_samples: f64,
    pub(super) confidence: Confidence,
    pub(super) baseline: Option<Baseline>,
    pub(super) condition: Condition,
    pub(super) and: Vec<Condition>,
    pub(super) hold_ms: i64,
    pub(super) severity: Severity,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) targets: Vec<String>,
}

impl Rule {
    pub fn uid(&self) -> &str {
        &self.uid
    }

    pub fn alert(&self) -> &str {
        &self.alert
    }

    /// The gold table, as written.
    pub fn from(&self) -> &str {
        &self.from
    }

    pub fn group_by(&self) -> &[String] {
        &self.group_by
    }

    pub fn window_ms(&self) -> i64 {
        self.window_ms
    }

    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// The query for the minute rows of [from, to): `window_start`, one text column a dimension in
    /// the order of `group_by`, then `num`, `den`, `samples` as doubles.
    pub fn sql(&self, from_ms: i64, to_ms: i64) -> String {
        let dims = self.dims_sql();
        let group = ordinals(1 + self.group_by.len());
        format!(
            "SELECT window_start, {dims}{} FROM {} WHERE {} GROUP BY {group}",
            self.sums_sql(),
            quoted(&self.from),
            self.filter_sql(from_ms, to_ms),
        )
    }

    /// The query for the history that a `same_slot` baseline needs at this window end: `day` (days
    /// since 1970-01-01), `slot` (number of the slot in its day), dimensions, `num`, `den`,
    /// `samples`. None for a rule that needs no history. The text is the same all through a slot,
    /// so its answer may be kept that long.
    pub fn history_sql(&self, window_end_ms: i64) -> Option<String> {
        let Some(Baseline::SameSlot {
            slot_ms,
            lookback_days,
            ..
        }) = self.baseline
        else {
            return None;
        };
        let (day, slot) = slot_of(window_end_ms, slot_ms);
        let today_ms = day.saturating_mul(DAY_MS);
        let first_ms = today_ms.saturating_sub(lookback_days * DAY_MS);
        let epoch_s = "CAST(date_part('epoch', window_start) AS BIGINT)";
        let slot_sql = format!("{epoch_s} % {} / {}", DAY_MS / 1_000, slot_ms / 1_000);
        Some(format!(
            "SELECT CAST({epoch_s} / {} AS INT) AS day, CAST({slot_sql} AS INT) AS slot, {}{} \
             FROM {} WHERE {} AND {slot_sql} = {slot} GROUP BY {}",
            DAY_MS / 1_000,
            self.dims_sql(),
            self.sums_sql(),
            quoted(&self.from),
            self.filter_sql(first_ms, today_ms),
            ordinals(2 + self.group_by.len()),
        ))
    }

    fn dims_sql(&self) -> String {
        let cast = |dim: &String| format!("CAST({0} AS VARCHAR) AS {0}, ", quoted(dim));
        self.group_by.iter().map(cast).collect()
    }

    fn sums_sql(&self) -> String {
        let (num, den) = self.measure.parts();
        let sum =
            |expression: &str, name: &str| format!("CAST(sum({expression}) AS DOUBLE) AS {name}");
        [
            sum(num, "num"),
            sum(den, "den"),
            sum(&self.samples, "samples"),
        ]
        .join(", ")
    }

    fn filter_sql(&self, from_ms: i64, to_ms: i64) -> String {
        let filter = match &self.filter {
            Some(filter) => format!(" AND ({filter})"),
            None => String::new(),
        };
        format!(
            "window_start >= TIMESTAMP '{}' AND window_start < TIMESTAMP '{}'{filter}",
            message::sql_time(from_ms),
            message::sql_time(to_ms),
        )
    }

    /// The unit of the value: `ratio`, else by the name of the summed column.
    pub(super) fn unit(&self) -> Option<&'static str> {
        let Measure::Mean { sum, .. } = &self.measure else {
            return Some("ratio");
        };
        let name = sum.strip_suffix("_sum").unwrap_or(sum);
        ["ms", "bps", "kbps", "bytes"]
            .into_iter()
            .find(|unit| name.ends_with(&format!("_{unit}")))
    }

    /// What one sample is, in words: the column it is counted in, or `samples`.
    pub(super) fn samples_of(&self) -> String {
        let is_name = self
            .samples
            .chars()
            .all(|c| c == '_' || c.is_ascii_alphanumeric());
        if is_name && !self.samples.ends_with("_count") {
            return self.samples.replace('_', " ");
        }
        "samples".to_owned()
    }

    pub(super) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        std::iter::once(&self.condition).chain(&self.and)
    }
}

/// Day since 1970-01-01 and slot of the day that hold the last minute of a window.
pub(super) fn slot_of(window_end_ms: i64, slot_ms: i64) -> (i64, i64) {
    let last_minute_ms = window_end_ms.saturating_sub(MINUTE_MS);
    let day = last_minute_ms.div_euclid(DAY_MS);
    (day, last_minute_ms.rem_euclid(DAY_MS) / slot_ms)
}

fn ordinals(count: usize) -> String {
    let numbers: Vec<String> = (1..=count).map(|n| n.to_string()).collect();
    numbers.join(", ")
}

/// `gold.cdn_1m` as `"gold"."cdn_1m"`.
fn quoted(name: &str) -> String {
    let quote = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
    name.split('.').map(quote).collect::<Vec<_>>().join(".")
}

/// Reads every rule file. `files` are (name, text); `lookup_env` answers `${NAME}` in targets.
///
/// Targets are shared by all files; `defaults` hold for their own file. A rule with
/// `enabled: false` is checked and left out.
pub fn parse_rules(
    files: &[(String, String)],
    catalogue: &dyn Catalogue,
    lookup_env: &dyn Fn(&str) -> Option<String>,
) -> Result<RuleSet, Vec<Complaint>> {
    let mut files: Vec<&(String, String)> = files.iter().collect();
    files.sort();
    let mut set = SetReader {
        catalogue,
        lookup_env,
        targets: BTreeMap::new(),
        names: BTreeMap::new(),
        rules: Vec::new(),
        complaints: Vec::new(),
    };
    let mut documents = Vec::new();
    for (name, text) in &files {
        documents.push((name, text, read_yaml(name, text, &mut set.complaints)));
    }
    let mut opened = Vec::new();
    for (name, text, document) in &documents {
        let Some(document) = document else { continue };
        let mut file = FileReader::new(name, text, &mut set);
        let Some(top) = file.top(document) else {
            continue;
        };
        file.targets(&top);
        opened.push((name, text, top));
    }
    for (name, text, top) in &opened {
        FileReader::new(name, text, &mut set).groups(top);
    }
    if !set.complaints.is_empty() {
        set.complaints
            .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        set.complaints.truncate(MAX_COMPLAINTS);
        return Err(set.complaints);
    }
    Ok(RuleSet {
        rules: set.rules,
        targets: set.targets,
        hash: hash_of(&files),
    })
}

fn hash_of(files: &[&(String, String)]) -> String {
    let mut hasher = Sha256::new();
    for (_, text) in files {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    format!("sha256:{}", super::hex(&hasher.finalize()))
}

// ------------------------------------------------------------------ the document, with its places

/// A YAML node that keeps its place.
#[derive(Debug)]
enum Node {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Null,
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> de::Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::Float(value as f64), Node::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

fn read_yaml(name: &str, text: &str, complaints: &mut Vec<Complaint>) -> Option<Spanned<Node>> {
    if text.len() > MAX_FILE_BYTES {
        complaints.push(Complaint {
            file: name.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            message: format!("the file has {} bytes", text.len()),
            fix: format!("split it; a rule file may have {MAX_FILE_BYTES} bytes"),
            source_line: String::new(),
            width: 0,
        });
        return None;
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_nodes: MAX_NODES,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIAS_NODES,
            max_replay_stack_depth: MAX_DEPTH,
        },
        strict_booleans: true,
    };
    match serde_saphyr::from_str_with_options(text, options) {
        Ok(document) => Some(document),
        Err(error) => {
            complaints.push(yaml_complaint(name, text, &error));
            None
        }
    }
}

fn yaml_complaint(name: &str, text: &str, error: &serde_saphyr::Error) -> Complaint {
    let mut options = serde_saphyr::RenderOptions::new(&serde_saphyr::UserMessageFormatter);
    options.snippets = serde_saphyr::SnippetMode::Off;
    let rendered = error.render_with_options(options);
    let message = rendered
        .split_once(" at line ")
        .map_or(rendered.as_str(), |(message, _)| message);
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let (line, column) = place(location);
    Complaint {
        file: name.to_owned(),
        line,
        column,
        path: String::new(),
        message: format!("not readable as YAML: {message}"),
        fix: "correct the YAML here or just above".to_owned(),
        source_line: source_line(text, line),
        width: 1,
    }
}

fn place(location: Location) -> (usize, usize) {
    let line = usize::try_from(location.line()).unwrap_or(1).max(1);
    let column = usize::try_from(location.column()).unwrap_or(1).max(1);
    (line, column)
}

fn source_line(text: &str, line: usize) -> String {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or("");
    line.trim_end().to_owned()
}

// ------------------------------------------------------------------ which keys there are

/// The keys of one mapping: those that work, and those of the schema that do not work yet.
struct Schema {
    /// The mapping's name in complaints.
    name: &'static str,
    known: &'static [&'static str],
    later: &'static [&'static str],
}

const TOP: Schema = Schema {
    name: "a rule file",
    known: &["version", "defaults", "targets", "groups"],
    later: &["inhibit", "silences", "calendars"],
};
const DEFAULTS: Schema = Schema {
    name: "`defaults`",
    known: &["window", "confidence", "for", "severity", "owner", "notify"],
    later: &[
        "slide",
        "lateness",
        "no_data",
        "eval_error",
        "max_alerts",
        "on_late",
        "keep_firing_for",
        "clear",
        "explain",
    ],
};
const GROUP: Schema = Schema {
    name: "a group",
    known: &["name", "interval", "rules"],
    later: &[],
};
const RULE: Schema = Schema {
    name: "a rule",
    known: &[
        "alert",
        "uid",
        "owner",
        "runbook",
        "from",
        "value",
        "samples",
        "window",
        "group_by",
        "where",
        "min_samples",
        "confidence",
        "baseline",
        "condition",
        "and",
        "for",
        "severity",
        "annotations",
        "labels",
        "notify",
        "enabled",
    ],
    later: &[
        "slide",
        "lateness",
        "min_impacted",
        "clear",
        "keep_firing_for",
        "no_data",
        "eval_error",
        "explain",
        "links",
        "remediation",
        "max_alerts",
        "on_late",
    ],
};
const VALUE: Schema = Schema {
    name: "`value`",
    known: &["ratio", "mean"],
    later: &["expr", "quantile", "sql"],
};
const RATIO: Schema = Schema {
    name: "`ratio`",
    known: &["num", "den"],
    later: &[],
};
const MEAN: Schema = Schema {
    name: "`mean`",
    known: &["sum", "count"],
    later: &[],
};
const CONFIDENCE: Schema = Schema {
    name: "`confidence`",
    known: &["method", "z"],
    later: &[],
};
const SAME_SLOT: Schema = Schema {
    name: "a `same_slot` baseline",
    known: &[
        "kind",
        "slot",
        "lookback",
        "min_history",
        "stat",
        "cold_start",
    ],
    later: &["exclude"],
};
const PEERS: Schema = Schema {
    name: "a `peers` baseline",
    known: &["kind", "over", "within", "leave_one_out", "min_peers"],
    later: &["weight"],
};
const CONDITION: Schema = Schema {
    name: "a condition",
    known: &["test", "op", "threshold"],
    later: &[],
};
const NOTIFY: Schema = Schema {
    name: "`notify`",
    known: &["targets"],
    later: &[
        "group_by",
        "group_wait",
        "group_interval",
        "repeat_interval",
        "send_resolved",
        "active",
    ],
};
const TARGET: Schema = Schema {
    name: "a target",
    known: &["stdout", "sns"],
    later: &["webhook"],
};
const STDOUT: Schema = Schema {
    name: "`stdout`",
    known: &[],
    later: &["format"],
};
const SNS: Schema = Schema {
    name: "`sns`",
    known: &["topic_arn", "endpoint_url", "region"],
    later: &["format", "max_per_second"],
};

// ------------------------------------------------------------------ reading

/// A mapping whose keys have been checked.
struct Fields<'n> {
    at: Location,
    path: String,
    entries: BTreeMap<&'n str, &'n Spanned<Node>>,
}

impl<'n> Fields<'n> {
    fn get(&self, key: &str) -> Option<&'n Spanned<Node>> {
        self.entries.get(key).copied()
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            return key.to_owned();
        }
        format!("{}.{key}", self.path)
    }
}

/// What all files share.
struct SetReader<'s> {
    catalogue: &'s dyn Catalogue,
    lookup_env: &'s dyn Fn(&str) -> Option<String>,
    targets: BTreeMap<String, Target>,
    /// `uid x` or `alert X` to where it was first used.
    names: BTreeMap<String, String>,
    rules: Vec<Rule>,
    complaints: Vec<Complaint>,
}

/// `defaults` of one file.
#[derive(Default)]
struct Defaults<'n> {
    window_ms: Option<i64>,
    hold_ms: Option<i64>,
    confidence: Option<Confidence>,
    severity: Option<Severity>,
    owner: Option<String>,
    notify: Option<(&'n Spanned<Node>, String)>,
}

struct FileReader<'f, 's> {
    name: &'f str,
    text: &'f str,
    set: &'f mut SetReader<'s>,
}

impl<'f, 's> FileReader<'f, 's> {
    fn new(name: &'f str, text: &'f str, set: &'f mut SetReader<'s>) -> Self {
        FileReader { name, text, set }
    }

    fn complain(
        &mut self,
        at: Location,
        path: &str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let (line, column) = place(at);
        let width = usize::try_from(at.span().len()).unwrap_or(1);
        self.complain_at((line, column, width), path, message.into(), fix.into());
    }

    fn complain_at(
        &mut self,
        (line, column, width): (usize, usize, usize),
        path: &str,
        message: String,
        fix: String,
    ) {
        self.set.complaints.push(Complaint {
            file: self.name.to_owned(),
            line,
            column,
            path: path.to_owned(),
            message,
            fix,
            source_line: source_line(self.text, line),
            width,
        });
    }

    // -------------------------------------------------------------- mappings and plain values

    /// The entries of a mapping; every key that is not in the schema is a complaint.
    fn fields<'n>(
        &mut self,
        node: &'n Spanned<Node>,
        path: &str,
        schema: &Schema,
    ) -> Option<Fields<'n>> {
        let Node::Map(entries) = &node.value else {
            let fix = format!("the keys are {}", listed(schema.known));
            let message = format!("{} must be a mapping", schema.name);
            self.complain(node.referenced, path, message, fix);
            return None;
        };
        let mut fields = Fields {
            at: node.referenced,
            path: path.to_owned(),
            entries: BTreeMap::new(),
        };
        for (key, value) in entries {
            if schema.known.contains(&key.value.as_str()) {
                fields.entries.insert(&key.value, value);
                continue;
            }
            let path = fields.path_of(&key.value);
            self.refuse_key(key, &path, schema);
        }
        Some(fields)
    }

    fn refuse_key(&mut self, key: &Spanned<String>, path: &str, schema: &Schema) {
        let name = key.value.as_str();
        if schema.later.contains(&name) {
            let message = format!("`{name}` in {} is not supported yet", schema.name);
            self.complain(key.referenced, path, message, "take it out");
            return;
        }
        if schema.name == DEFAULTS.name && RULE.known.contains(&name) {
            let message = format!("`{name}` cannot have a default");
            self.complain(key.referenced, path, message, "write it in each rule");
            return;
        }
        let all = schema.known.iter().chain(schema.later).copied();
        let fix = did_you_mean(name, all)
            .unwrap_or_else(|| format!("take it out; the keys are {}", listed(schema.known)));
        let message = format!("unknown key `{name}` in {}", schema.name);
        self.complain(key.referenced, path, message, fix);
    }

    /// For a mapping with not exactly one key of a choice, unless a refused key has said it already.
    fn complain_of_choice(&mut self, fields: &Fields, before: usize, message: &str, fix: &str) {
        if self.set.complaints.len() == before {
            self.complain(fields.at, &fields.path, message, fix);
        }
    }

    fn required<'n>(
        &mut self,
        fields: &Fields<'n>,
        key: &str,
        fix: &str,
    ) -> Option<&'n Spanned<Node>> {
        let node = fields.get(key);
        if node.is_none() {
            let message = format!("`{key}` is missing");
            self.complain(fields.at, &fields.path, message, fix);
        }
        node
    }

    fn text_of(&mut self, node: &Spanned<Node>, path: &str, fix: &str) -> Option<String> {
        match &node.value {
            Node::Text(text) if text.trim().is_empty() => {
                self.complain(node.referenced, path, "the text is empty", fix);
                None
            }
            Node::Text(text) if text.len() > MAX_TEXT_BYTES => {
                let message = format!("the text has {} bytes", text.len());
                let fix = format!("at most {MAX_TEXT_BYTES} bytes fit");
                self.complain(node.referenced, path, message, fix);
                None
            }
            Node::Text(text) => Some(text.trim().to_owned()),
            _ => {
                self.complain(node.referenced, path, "a text is needed", fix);
                None
            }
        }
    }

    fn optional_text(&mut self, fields: &Fields, key: &str, fix: &str) -> Option<String> {
        let node = fields.get(key)?;
        self.text_of(node, &fields.path_of(key), fix)
    }

    fn required_text(&mut self, fields: &Fields, key: &str, fix: &str) -> Option<String> {
        let node = self.required(fields, key, fix)?;
        self.text_of(node, &fields.path_of(key), fix)
    }

    /// One of a list of words; `None` after a complaint.
    fn word<T>(
        &mut self,
        node: &Spanned<Node>,
        path: &str,
        words: &[(&str, T)],
        later: &[&str],
    ) -> Option<T>
    where
        T: Copy,
    {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let fix = format!("write one of {}", listed(&known));
        let text = self.text_of(node, path, &fix)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        if later.contains(&text.as_str()) {
            let message = format!("`{text}` is not supported yet");
            self.complain(node.referenced, path, message, fix);
            return None;
        }
        let hint = did_you_mean(&text, known.iter().copied()).unwrap_or(fix);
        let message = format!("`{}` is not known here", message::clean(&text));
        self.complain(node.referenced, path, message, hint);
        None
    }

    fn duration_ms(
        &mut self,
        node: &Spanned<Node>,
        path: &str,
        step_ms: i64,
        range_ms: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let (low, high) = (*range_ms.start(), *range_ms.end());
        let fix = format!(
            "write a multiple of {} from {} to {}",
            message::duration(step_ms),
            message::duration(low),
            message::duration(high),
        );
        let parsed = match &node.value {
            Node::Text(text) => parse_duration_ms(text.trim()),
            _ => None,
        };
        let Some(duration_ms) = parsed else {
            let message = "a duration is a whole number and s, m, h or d, such as `5m`";
            self.complain(node.referenced, path, message, fix);
            return None;
        };
        if !range_ms.contains(&duration_ms) || duration_ms % step_ms != 0 {
            let message = format!("{} does not fit", message::duration(duration_ms));
            self.complain(node.referenced, path, message, fix);
            return None;
        }
        Some(duration_ms)
    }

    fn optional_duration_ms(
        &mut self,
        fields: &Fields,
        key: &str,
        step_ms: i64,
        range_ms: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let node = fields.get(key)?;
        self.duration_ms(node, &fields.path_of(key), step_ms, range_ms)
    }

    fn whole_number(&mut self, node: &Spanned<Node>, path: &str, at_least: i64) -> Option<i64> {
        match node.value {
            Node::Int(number) if number >= at_least => Some(number),
            _ => {
                let fix = format!("write a whole number, {at_least} or more");
                self.complain(node.referenced, path, "a whole number is needed", fix);
                None
            }
        }
    }

    /// A list of texts with their places.
    fn texts(&mut self, node: &Spanned<Node>, path: &str, fix: &str) -> Vec<(Location, String)> {
        let Node::List(items) = &node.value else {
            self.complain(node.referenced, path, "a list is needed", fix);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some(text) = self.text_of(item, &path, fix) {
                texts.push((item.referenced, text));
            }
        }
        texts
    }

    // -------------------------------------------------------------- the file

    fn top<'n>(&mut self, document: &'n Spanned<Node>) -> Option<Fields<'n>> {
        let top = self.fields(document, "", &TOP)?;
        if let Some(version) = self.required(&top, "version", "add `version: 1`")
            && !matches!(version.value, Node::Int(1))
        {
            let message = "this release reads version 1";
            self.complain(version.referenced, "version", message, "write `version: 1`");
        }
        Some(top)
    }

    fn targets(&mut self, top: &Fields) {
        let Some(node) = top.get("targets") else {
            return;
        };
        let Node::Map(entries) = &node.value else {
            let fix = "write for instance `console: {stdout: {}}`";
            self.complain(node.referenced, "targets", "a mapping is needed", fix);
            return;
        };
        for (key, value) in entries {
            let path = format!("targets.{}", key.value);
            let Some(target) = self.target(value, &path) else {
                continue;
            };
            let earlier = self.set.targets.insert(key.value.clone(), target.clone());
            if earlier.is_some_and(|earlier| earlier != target) {
                let message = format!("target `{}` differs from that of another file", key.value);
                let fix = "targets are shared by all files: give this one another name";
                self.complain(key.referenced, &path, message, fix);
            }
        }
    }

    fn target(&mut self, node: &Spanned<Node>, path: &str) -> Option<Target> {
        let before = self.set.complaints.len();
        let fields = self.fields(node, path, &TARGET)?;
        match (fields.get("stdout"), fields.get("sns")) {
            (Some(stdout), None) => {
                self.fields(stdout, &fields.path_of("stdout"), &STDOUT)?;
                Some(Target::Stdout)
            }
            (None, Some(sns)) => self.sns(sns, &fields.path_of("sns")),
            _ => {
                let fix = "write `stdout: {}` or `sns: {topic_arn: ...}`";
                self.complain_of_choice(&fields, before, "a target is one of stdout and sns", fix);
                None
            }
        }
    }

    fn sns(&mut self, node: &Spanned<Node>, path: &str) -> Option<Target> {
        let fields = self.fields(node, path, &SNS)?;
        let arn_fix = "write `arn:aws:sns:<region>:<account>:<topic>` or `${NAME}`";
        self.required(&fields, "topic_arn", arn_fix);
        let topic_arn = self.resolved_text(&fields, "topic_arn", arn_fix);
        let endpoint_url =
            self.resolved_text(&fields, "endpoint_url", "write an http or https URL");
        let region = self.resolved_text(&fields, "region", "write a region such as eu-west-1");
        let topic_arn = topic_arn?;
        let parts: Vec<&str> = topic_arn.split(':').collect();
        let ["arn", _, "sns", arn_region, _, topic] = parts[..] else {
            let at = fields.get("topic_arn")?.referenced;
            let path = fields.path_of("topic_arn");
            self.complain(
                at,
                &path,
                "`topic_arn` is not the ARN of an SNS topic",
                arn_fix,
            );
            return None;
        };
        if arn_region.is_empty() || topic.is_empty() {
            let at = fields.get("topic_arn")?.referenced;
            let path = fields.path_of("topic_arn");
            self.complain(
                at,
                &path,
                "`topic_arn` names no region or no topic",
                arn_fix,
            );
            return None;
        }
        let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if endpoint_url.as_ref().is_some_and(|url| !is_url(url)) {
            let at = fields.get("endpoint_url")?.referenced;
            let path = fields.path_of("endpoint_url");
            let fix = "write an http or https URL";
            self.complain(at, &path, "`endpoint_url` is not a URL", fix);
        }
        if region.as_ref().is_some_and(|region| region != arn_region) {
            let at = fields.get("region")?.referenced;
            let path = fields.path_of("region");
            let fix = "take `region` out; SNS wants the topic's own";
            self.complain(at, &path, "`region` is not the topic's region", fix);
        }
        let region = region.unwrap_or_else(|| arn_region.to_owned());
        Some(Target::Sns {
            topic_arn,
            endpoint_url,
            region,
        })
    }

    /// A text in which each `${NAME}` has been replaced from the environment.
    fn resolved_text(&mut self, fields: &Fields, key: &str, fix: &str) -> Option<String> {
        let node = fields.get(key)?;
        let path = fields.path_of(key);
        let text = self.text_of(node, &path, fix)?;
        let mut resolved = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("${") {
            let name = after.split('}').next().unwrap_or_default();
            if name.len() == after.len() || !is_env_name(name) {
                let fix = "write `${NAME}` in capitals, digits and underscores";
                self.complain(node.referenced, &path, "`${` opens no name", fix);
                return None;
            }
            let Some(value) = (self.set.lookup_env)(name) else {
                let message = format!("the environment variable `{name}` is not set");
                let fix = format!("set {name} before the start, or take the target out");
                self.complain(node.referenced, &path, message, fix);
                return None;
            };
            resolved.push_str(before);
            resolved.push_str(&value);
            rest = &after[name.len() + 1..];
        }
        resolved.push_str(rest);
        Some(resolved)
    }

    fn defaults<'n>(&mut self, top: &Fields<'n>) -> Defaults<'n> {
        let fields = match top.get("defaults") {
            Some(node) => self.fields(node, "defaults", &DEFAULTS),
            None => None,
        };
        let Some(fields) = fields else {
            return Defaults::default();
        };
        Defaults {
            window_ms: self.window_ms(&fields),
            hold_ms: self.hold_ms(&fields),
            confidence: self.confidence(&fields),
            severity: self.severity(&fields),
            owner: self.optional_text(&fields, "owner", "write the name of a team"),
            notify: fields
                .get("notify")
                .map(|node| (node, fields.path_of("notify"))),
        }
    }

    fn groups(&mut self, top: &Fields) {
        let defaults = self.defaults(top);
        let Some(node) = top.get("groups") else {
            return;
        };
        let Node::List(groups) = &node.value else {
            let fix = "write `- name: ...` with `rules`";
            self.complain(node.referenced, "groups", "a list is needed", fix);
            return;
        };
        for (index, group) in groups.iter().enumerate() {
            self.group(group, &format!("groups[{index}]"), &defaults);
        }
    }

    fn group(&mut self, node: &Spanned<Node>, path: &str, defaults: &Defaults) {
        let Some(fields) = self.fields(node, path, &GROUP) else {
            return;
        };
        self.required_text(&fields, "name", "add `name: <text>`");
        if let Some(interval) = fields.get("interval") {
            self.word(
                interval,
                &fields.path_of("interval"),
                &[("watermark", ())],
                &[],
            );
        }
        let Some(rules) = self.required(&fields, "rules", "add `rules:` and a list") else {
            return;
        };
        let path = fields.path_of("rules");
        let Node::List(rules) = &rules.value else {
            let fix = "write `- alert: ...`";
            self.complain(rules.referenced, &path, "a list is needed", fix);
            return;
        };
        for (index, rule) in rules.iter().enumerate() {
            self.rule(rule, &format!("{path}[{index}]"), defaults);
        }
    }

    // -------------------------------------------------------------- one rule

    fn rule(&mut self, node: &Spanned<Node>, path: &str, defaults: &Defaults) {
        let before = self.set.complaints.len();
        let Some(fields) = self.fields(node, path, &RULE) else {
            return;
        };
        let enabled = self.enabled(&fields);
        let rule = self.checked_rule(&fields, defaults);
        let Some(rule) = rule else { return };
        if self.set.complaints.len() > before {
            return;
        }
        if self.set.rules.len() >= MAX_RULES {
            let message = format!("there are more than {MAX_RULES} rules");
            self.complain(fields.at, path, message, "merge or remove rules");
            return;
        }
        if enabled {
            self.set.rules.push(rule);
        }
    }

    fn enabled(&mut self, fields: &Fields) -> bool {
        match fields
            .get("enabled")
            .map(|node| (&node.value, node.referenced))
        {
            None => true,
            Some((Node::Bool(enabled), _)) => *enabled,
            Some((_, at)) => {
                let path = fields.path_of("enabled");
                self.complain(
                    at,
                    &path,
                    "a yes or no is needed",
                    "write `true` or `false`",
                );
                true
            }
        }
    }

    /// Reads every part before giving up, so that each is complained about.
    fn checked_rule(&mut self, fields: &Fields, defaults: &Defaults) -> Option<Rule> {
        let alert = self.name(fields, "alert", "letters, digits and `_`", is_alert_name);
        let uid = self.name(fields, "uid", "a-z, 0-9, `-` and `_`", is_uid);
        let table = self.table(fields);
        let columns = table.as_ref().map(|(_, columns)| columns.as_slice());
        let measure = self.measure(fields, columns);
        let samples = fields
            .get("samples")
            .map(|node| self.expression(node, &fields.path_of("samples"), columns));
        let filter = match fields.get("where") {
            Some(node) => self.expression(node, &fields.path_of("where"), columns),
            None => None,
        };
        let group_by = self.group_by(fields, columns);
        let min_samples = self.min_samples(fields, uid.as_deref());
        let window_ms = self.window_ms(fields);
        let hold_ms = self.hold_ms(fields);
        let asked = self.confidence(fields);
        let confidence = measure.as_ref().map(|measure| {
            self.fitting_confidence(fields, measure, samples.is_some(), asked, defaults)
        });
        let baseline = self.baseline(fields, &group_by);
        let (condition, and) = self.conditions(fields, measure.as_ref());
        let severity = self.severity(fields).or(defaults.severity);
        let severity = severity.unwrap_or(Severity::Warning);
        let owner = self.owner(fields, severity, defaults);
        let runbook = self.optional_text(fields, "runbook", "write a URL");
        let targets = self.notify(fields, defaults);
        let labels = self.templates(fields, "labels");
        let annotations = self.templates(fields, "annotations");
        let measure = measure?;
        let samples = match samples {
            Some(samples) => samples?,
            None => measure.parts().1.to_owned(),
        };
        let rule = Rule {
            uid: uid?,
            alert: alert?,
            owner,
            runbook,
            from: table?.0,
            measure,
            samples,
            window_ms: window_ms
                .or(defaults.window_ms)
                .unwrap_or(DEFAULT_WINDOW_MS),
            group_by,
            filter,
            min_samples: min_samples? as f64,
            confidence: confidence?,
            baseline,
            condition: condition?,
            and,
            hold_ms: hold_ms.or(defaults.hold_ms).unwrap_or(0),
            severity,
            labels,
            annotations,
            targets,
        };
        self.check_templates(fields, &rule);
        Some(rule)
    }

    /// `alert` or `uid`: well-formed, and used once in all files.
    fn name(
        &mut self,
        fields: &Fields,
        key: &str,
        alphabet: &str,
        is_well_formed: fn(&str) -> bool,
    ) -> Option<String> {
        let fix = format!("write up to {MAX_NAME_CHARS} of {alphabet}");
        let name = self.required_text(fields, key, &fix)?;
        let at = fields.get(key)?.referenced;
        let path = fields.path_of(key);
        if !is_well_formed(&name) || name.len() > MAX_NAME_CHARS {
            self.complain(at, &path, format!("`{key}` is not a plain name"), fix);
            return None;
        }
        let here = format!("{}:{}", self.name, place(at).0);
        let earlier = self.set.names.insert(format!("{key} {name}"), here);
        if let Some(earlier) = earlier {
            let message = format!("`{key}: {name}` is used at {earlier} already");
            let fix = "give each rule its own; state is kept by uid";
            self.complain(at, &path, message, fix);
        }
        Some(name)
    }

    fn table(&mut self, fields: &Fields) -> Option<(String, Vec<String>)> {
        let table = self.required_text(fields, "from", "name a gold table")?;
        if let Some(columns) = self.set.catalogue.columns(&table) {
            return Some((table, columns));
        }
        let tables = self.set.catalogue.tables();
        let names: Vec<&str> = tables.iter().map(String::as_str).collect();
        let fix = did_you_mean(&table, names.iter().copied())
            .unwrap_or_else(|| format!("the tables are {}", listed(&names)));
        let at = fields.get("from")?.referenced;
        let message = format!("unknown table `{}`", message::clean(&table));
        self.complain(at, &fields.path_of("from"), message, fix);
        None
    }

    fn measure(&mut self, fields: &Fields, columns: Option<&[String]>) -> Option<Measure> {
        let fix =
            "add `value: {ratio: {num: ..., den: ...}}` or `value: {mean: {sum: ..., count: ...}}`";
        let node = self.required(fields, "value", fix)?;
        let before = self.set.complaints.len();
        let value = self.fields(node, &fields.path_of("value"), &VALUE)?;
        match (value.get("ratio"), value.get("mean")) {
            (Some(node), None) => {
                let parts = self.fields(node, &value.path_of("ratio"), &RATIO)?;
                let num = self.required_expression(&parts, "num", columns);
                let den = self.required_expression(&parts, "den", columns);
                Some(Measure::Ratio {
                    num: num?,
                    den: den?,
                })
            }
            (None, Some(node)) => {
                let parts = self.fields(node, &value.path_of("mean"), &MEAN)?;
                let sum = self.required_expression(&parts, "sum", columns);
                let count = self.required_expression(&parts, "count", columns);
                Some(Measure::Mean {
                    sum: sum?,
                    count: count?,
                })
            }
            _ => {
                self.complain_of_choice(&value, before, "a value is one of ratio and mean", fix);
                None
            }
        }
    }

    fn required_expression(
        &mut self,
        fields: &Fields,
        key: &str,
        columns: Option<&[String]>,
    ) -> Option<String> {
        let node = self.required(fields, key, "name a column or an expression over columns")?;
        self.expression(node, &fields.path_of(key), columns)
    }

    /// An SQL expression whose columns exist. The planner of the caller checks the rest.
    fn expression(
        &mut self,
        node: &Spanned<Node>,
        path: &str,
        columns: Option<&[String]>,
    ) -> Option<String> {
        let text = self.text_of(node, path, "write an SQL expression over columns")?;
        let names = match column_names(&text) {
            Ok(names) => names,
            Err(message) => {
                let fix = "write one SQL expression over the columns of the table";
                self.complain(node.referenced, path, message, fix);
                return None;
            }
        };
        let columns = columns?;
        let before = self.set.complaints.len();
        for (offset, name) in names {
            if columns.iter().any(|column| column == name) {
                continue;
            }
            let place = self.place_in(node.referenced, offset, name);
            let (message, fix) = unknown_column(name, columns);
            self.complain_at(place, path, message, fix);
        }
        (self.set.complaints.len() == before).then_some(text)
    }

    /// Where a word of a text stands, if the text is on one line; else where the text starts.
    fn place_in(&self, at: Location, offset: usize, word: &str) -> (usize, usize, usize) {
        let (line, column) = place(at);
        let source: Vec<char> = source_line(self.text, line).chars().collect();
        let width = word.chars().count();
        let stands_at = |start: usize| {
            let found: String = source.iter().skip(start).take(width).collect();
            found == word
        };
        let first = column - 1 + offset;
        match [first, first + 1]
            .into_iter()
            .find(|start| stands_at(*start))
        {
            Some(start) => (line, start + 1, width),
            None => (line, column, usize::try_from(at.span().len()).unwrap_or(1)),
        }
    }

    fn group_by(&mut self, fields: &Fields, columns: Option<&[String]>) -> Vec<String> {
        let Some(node) = fields.get("group_by") else {
            return Vec::new();
        };
        let path = fields.path_of("group_by");
        let mut dims = Vec::new();
        for (at, dim) in self.texts(node, &path, "list columns of the table") {
            let is_time = dim == "window_start" || dim == "window_end";
            if is_time || dims.contains(&dim) {
                let message = format!("`{dim}` cannot be a dimension here");
                let fix = "name each dimension once; time is no dimension";
                self.complain(at, &path, message, fix);
                continue;
            }
            if let Some(columns) = columns
                && !columns.contains(&dim)
            {
                let (message, fix) = unknown_column(&dim, columns);
                self.complain(at, &path, message, fix);
            }
            dims.push(dim);
        }
        if dims.len() > MAX_DIMS {
            let message = format!("{} dimensions are too many", dims.len());
            let fix = format!("keep to {MAX_DIMS}");
            self.complain(node.referenced, &path, message, fix);
        }
        dims
    }

    fn min_samples(&mut self, fields: &Fields, uid: Option<&str>) -> Option<i64> {
        let Some(node) = fields.get("min_samples") else {
            let message = format!("rule `{}` has no `min_samples`", uid.unwrap_or("?"));
            let fix = "add `min_samples: <n>`; with 25 sessions a healthy 3 % group breaches 5 % in 17 % of windows";
            self.complain(fields.at, &fields.path, message, fix);
            return None;
        };
        self.whole_number(node, &fields.path_of("min_samples"), 1)
    }

    fn window_ms(&mut self, fields: &Fields) -> Option<i64> {
        self.optional_duration_ms(fields, "window", MINUTE_MS, MINUTE_MS..=MAX_WINDOW_MS)
    }

    fn hold_ms(&mut self, fields: &Fields) -> Option<i64> {
        self.optional_duration_ms(fields, "for", 1_000, 0..=MAX_HOLD_MS)
    }

    fn severity(&mut self, fields: &Fields) -> Option<Severity> {
        let node = fields.get("severity")?;
        let path = fields.path_of("severity");
        if matches!(node.value, Node::List(_)) {
            let message = "a ladder of severities is not supported yet";
            self.complain(node.referenced, &path, message, "write one severity");
            return None;
        }
        let words = Severity::ALL.map(|severity| (severity.as_str(), severity));
        self.word(node, &path, &words, &[])
    }

    fn owner(
        &mut self,
        fields: &Fields,
        severity: Severity,
        defaults: &Defaults,
    ) -> Option<String> {
        let fix = "add `owner: <team>`";
        if fields.get("owner").is_none()
            && defaults.owner.is_none()
            && severity == Severity::Critical
        {
            let message = "a critical rule needs an `owner`";
            self.complain(fields.at, &fields.path, message, fix);
        }
        self.optional_text(fields, "owner", fix)
            .or_else(|| defaults.owner.clone())
    }

    fn confidence(&mut self, fields: &Fields) -> Option<Confidence> {
        let node = fields.get("confidence")?;
        let fields = self.fields(node, &fields.path_of("confidence"), &CONFIDENCE)?;
        let fix = "write `method: wilson`, `normal` or `none`";
        let method = self.required(&fields, "method", fix)?;
        let z = match fields.get("z").map(|node| (&node.value, node.referenced)) {
            None => DEFAULT_Z,
            Some((Node::Int(z @ 1..=10), _)) => *z as f64,
            Some((Node::Float(z), _)) if *z > 0.0 && *z <= 10.0 => *z,
            Some((_, at)) => {
                let fix = "write a number above 0, at most 10; 3 is usual";
                self.complain(at, &fields.path_of("z"), "`z` does not fit", fix);
                DEFAULT_Z
            }
        };
        let methods = [
            ("wilson", Confidence::Wilson { z }),
            ("normal", Confidence::Normal { z }),
            ("none", Confidence::None),
        ];
        self.word(method, &fields.path_of("method"), &methods, &[])
    }

    /// The bound that the value admits. A default that does not fit is passed over; a bound that
    /// the rule itself asks for and that has no meaning is a complaint.
    fn fitting_confidence(
        &mut self,
        fields: &Fields,
        measure: &Measure,
        has_own_samples: bool,
        asked: Option<Confidence>,
        defaults: &Defaults,
    ) -> Confidence {
        let is_share = measure.is_ratio() && !has_own_samples;
        let fits = |confidence: &Confidence| match confidence {
            Confidence::None => true,
            Confidence::Wilson { .. } => is_share,
            Confidence::Normal { .. } => measure.is_ratio(),
        };
        let Some(asked) = asked else {
            let usual = if is_share {
                Confidence::Wilson { z: DEFAULT_Z }
            } else {
                Confidence::None
            };
            return defaults.confidence.filter(fits).unwrap_or(usual);
        };
        if fits(&asked) {
            return asked;
        }
        let path = fields.path_of("confidence");
        let at = fields
            .get("confidence")
            .map_or(fields.at, |node| node.referenced);
        let (message, fix) = match asked {
            Confidence::Wilson { .. } => (
                "wilson holds only for a ratio that counts a part of its denominator",
                "write `method: none`, or `normal` for a ratio with its own `samples`",
            ),
            _ => (
                "normal needs a spread, and a mean of sums has none",
                "write `method: none` and a larger `min_samples`",
            ),
        };
        self.complain(at, &path, message, fix);
        Confidence::None
    }

    // -------------------------------------------------------------- baseline and conditions

    fn baseline(&mut self, fields: &Fields, group_by: &[String]) -> Option<Baseline> {
        let node = fields.get("baseline")?;
        let path = fields.path_of("baseline");
        let fix = "write `kind: same_slot` or `kind: peers`";
        let Node::Map(entries) = &node.value else {
            self.complain(node.referenced, &path, "`baseline` must be a mapping", fix);
            return None;
        };
        let Some((_, kind)) = entries.iter().find(|(key, _)| key.value == "kind") else {
            self.complain(node.referenced, &path, "`kind` is missing", fix);
            return None;
        };
        let kinds = [("same_slot", true), ("peers", false)];
        let later = ["ewma", "forecast", "fixed", "same_slot_weekly"];
        if self.word(kind, &format!("{path}.kind"), &kinds, &later)? {
            return self.same_slot(node, &path);
        }
        self.peers(node, &path, group_by)
    }

    fn same_slot(&mut self, node: &Spanned<Node>, path: &str) -> Option<Baseline> {
        let fields = self.fields(node, path, &SAME_SLOT)?;
        self.only_word(&fields, "stat", "mean", &["median"]);
        self.only_word(&fields, "cold_start", "suppress", &["alert", "fire"]);
        let slot_ms = self.optional_duration_ms(&fields, "slot", MINUTE_MS, MINUTE_MS..=DAY_MS);
        let slot_ms = slot_ms.unwrap_or(60 * MINUTE_MS);
        if DAY_MS % slot_ms != 0 {
            let at = fields.get("slot").map_or(fields.at, |node| node.referenced);
            let fix = "write 5m, 15m, 30m, 1h, 2h, 6h or 1d";
            self.complain(
                at,
                &fields.path_of("slot"),
                "a day is no multiple of the slot",
                fix,
            );
        }
        let days = DAY_MS..=MAX_LOOKBACK_MS;
        let lookback = self.optional_duration_ms(&fields, "lookback", DAY_MS, days.clone());
        let lookback_days = lookback.unwrap_or(7 * DAY_MS) / DAY_MS;
        let history = self.optional_duration_ms(&fields, "min_history", DAY_MS, days);
        let min_history_days = history.map_or(DEFAULT_MIN_HISTORY_DAYS.min(lookback_days), |ms| {
            ms / DAY_MS
        });
        if min_history_days > lookback_days {
            let at = fields
                .get("min_history")
                .map_or(fields.at, |node| node.referenced);
            let fix = format!("write {lookback_days}d or less");
            let message = "`min_history` is longer than `lookback`";
            self.complain(at, &fields.path_of("min_history"), message, fix);
        }
        Some(Baseline::SameSlot {
            slot_ms,
            lookback_days,
            min_history_days,
        })
    }

    fn only_word(&mut self, fields: &Fields, key: &str, word: &str, later: &[&str]) {
        if let Some(node) = fields.get(key) {
            self.word(node, &fields.path_of(key), &[(word, ())], later);
        }
    }

    fn peers(&mut self, node: &Spanned<Node>, path: &str, group_by: &[String]) -> Option<Baseline> {
        let fields = self.fields(node, path, &PEERS)?;
        let fix = "name one of `group_by`";
        let index = |dim: &str| group_by.iter().position(|known| known == dim);
        let over = self.required_text(&fields, "over", fix)?;
        let Some(over_index) = index(&over) else {
            let at = fields.get("over")?.referenced;
            let message = format!("`{}` is not in `group_by`", message::clean(&over));
            self.complain(at, &fields.path_of("over"), message, fix);
            return None;
        };
        let mut within = Vec::new();
        if let Some(node) = fields.get("within") {
            let path = fields.path_of("within");
            for (at, dim) in self.texts(node, &path, "list dimensions of `group_by`") {
                match index(&dim).filter(|index| *index != over_index) {
                    Some(index) => within.push(index),
                    None => {
                        let dim = message::clean(&dim);
                        let message = format!("`{dim}` is not in `group_by`, or is `over` itself");
                        self.complain(at, &path, message, fix);
                    }
                }
            }
        } else {
            within.extend((0..group_by.len()).filter(|index| *index != over_index));
        }
        if let Some(node) = fields.get("leave_one_out")
            && !matches!(node.value, Node::Bool(true))
        {
            let message = "only `leave_one_out: true` is supported yet";
            self.complain(
                node.referenced,
                &fields.path_of("leave_one_out"),
                message,
                "write `true`",
            );
        }
        let min_peers = match fields.get("min_peers") {
            Some(node) => self.whole_number(node, &fields.path_of("min_peers"), 1)?,
            None => DEFAULT_MIN_PEERS as i64,
        };
        Some(Baseline::Peers {
            over: over_index,
            within,
            min_peers: usize::try_from(min_peers).unwrap_or(usize::MAX),
        })
    }

    fn conditions(
        &mut self,
        fields: &Fields,
        measure: Option<&Measure>,
    ) -> (Option<Condition>, Vec<Condition>) {
        let fix = "add `condition: {test: value, op: \">\", threshold: ...}`";
        let main = self.required(fields, "condition", fix);
        let mut nodes: Vec<(&Spanned<Node>, String)> = Vec::new();
        nodes.extend(main.map(|node| (node, fields.path_of("condition"))));
        if let Some(node) = fields.get("and") {
            let path = fields.path_of("and");
            match &node.value {
                Node::List(list) if list.len() < MAX_CONDITIONS => {
                    let at = |(index, node)| (node, format!("{path}[{index}]"));
                    nodes.extend(list.iter().enumerate().map(at));
                }
                _ => {
                    let fix = format!("write a list of up to {} conditions", MAX_CONDITIONS - 1);
                    self.complain(node.referenced, &path, "a list is needed", fix);
                }
            }
        }
        let mut read = Vec::new();
        for (node, path) in &nodes {
            read.push(self.condition(node, path, measure, fields.get("baseline").is_some()));
        }
        if main.is_some() {
            self.check_baseline_is_used(fields, &read);
        }
        let mut read = read.into_iter();
        let condition = main.and_then(|_| read.next()).flatten();
        (condition, read.flatten().collect())
    }

    fn check_baseline_is_used(&mut self, fields: &Fields, conditions: &[Option<Condition>]) {
        let Some(node) = fields.get("baseline") else {
            return;
        };
        let only_values = |condition: &Option<Condition>| {
            condition.is_some_and(|condition| condition.test == Test::Value)
        };
        if conditions.iter().all(only_values) {
            let fix = "test ratio_to_baseline or diff_to_baseline, or take it out";
            let path = fields.path_of("baseline");
            self.complain(
                node.referenced,
                &path,
                "no condition uses the baseline",
                fix,
            );
        }
    }

    fn condition(
        &mut self,
        node: &Spanned<Node>,
        path: &str,
        measure: Option<&Measure>,
        has_baseline: bool,
    ) -> Option<Condition> {
        let fields = self.fields(node, path, &CONDITION)?;
        let tests = [
            ("value", Test::Value),
            ("ratio_to_baseline", Test::RatioToBaseline),
            ("diff_to_baseline", Test::DiffToBaseline),
        ];
        let ops = [
            (">", Op::Above),
            (">=", Op::AtLeast),
            ("<", Op::Below),
            ("<=", Op::AtMost),
        ];
        let test = self
            .required(&fields, "test", "add `test: value`")
            .and_then(|node| self.word(node, &fields.path_of("test"), &tests, &["zscore"]));
        let op = self
            .required(&fields, "op", "add `op: \">\"`")
            .and_then(|node| self.word(node, &fields.path_of("op"), &ops, &[]));
        let threshold = self.required(&fields, "threshold", "add `threshold: ...`");
        let test = test?;
        if test != Test::Value && !has_baseline {
            let at = fields.get("test").map_or(fields.at, |node| node.referenced);
            let fix = "add a `baseline`, or test `value`";
            self.complain(at, &fields.path_of("test"), "the rule has no baseline", fix);
        }
        let is_share = test == Test::RatioToBaseline || measure?.is_ratio();
        let value = self.threshold(threshold?, &fields.path_of("threshold"), is_share)?;
        Some(Condition {
            test,
            op: op?,
            value,
        })
    }

    /// `5%` or `0.05` for a share, a bare number for all else.
    fn threshold(&mut self, node: &Spanned<Node>, path: &str, is_share: bool) -> Option<f64> {
        let percent = match &node.value {
            Node::Text(text) => text.trim().strip_suffix('%').map(str::trim_end),
            _ => None,
        };
        let percent = percent.and_then(|text| text.parse::<f64>().ok());
        let number = match node.value {
            Node::Int(number) => Some(number as f64),
            Node::Float(number) => Some(number),
            _ => None,
        };
        let (message, fix) = match (percent, number) {
            (Some(percent), _) if is_share && percent.is_finite() => return Some(percent / 100.0),
            (_, Some(number)) if !is_share || number.abs() < 1.0 => return Some(number),
            (_, Some(number)) => (
                format!("`{number}` could mean {number} % or {} %", number * 100.0),
                format!("write `{number}%` or `{}%`", number * 100.0),
            ),
            (Some(_), _) => (
                "this threshold is no share".to_owned(),
                "write a number in the unit of the value, such as `20`".to_owned(),
            ),
            (None, None) => (
                "a threshold is a number".to_owned(),
                "write a share as `5%` or `0.05`, all else as a number".to_owned(),
            ),
        };
        self.complain(node.referenced, path, message, fix);
        None
    }

    // -------------------------------------------------------------- notify and templates

    fn notify(&mut self, fields: &Fields, defaults: &Defaults) -> Vec<String> {
        let fix = "add `notify: {targets: [console]}`";
        let own = fields
            .get("notify")
            .map(|node| (node, fields.path_of("notify")));
        let Some((node, path)) = own.or_else(|| defaults.notify.clone()) else {
            let message = "nobody is told: `notify` is missing";
            self.complain(fields.at, &fields.path, message, fix);
            return Vec::new();
        };
        let Some(notify) = self.fields(node, &path, &NOTIFY) else {
            return Vec::new();
        };
        let Some(list) = self.required(&notify, "targets", fix) else {
            return Vec::new();
        };
        let path = notify.path_of("targets");
        let mut targets = BTreeSet::new();
        let named = self.texts(list, &path, fix);
        if named.is_empty() {
            self.complain(list.referenced, &path, "the rule has no target", fix);
        }
        for (at, name) in named {
            if !self.set.targets.contains_key(&name) {
                let known: Vec<String> = self.set.targets.keys().cloned().collect();
                let fix = did_you_mean(&name, known.iter().map(String::as_str))
                    .unwrap_or_else(|| "define it under `targets`".to_owned());
                let message = format!("unknown target `{}`", message::clean(&name));
                self.complain(at, &path, message, fix);
            }
            targets.insert(name);
        }
        targets.into_iter().collect()
    }

    fn templates(&mut self, fields: &Fields, key: &str) -> BTreeMap<String, String> {
        let Some(node) = fields.get(key) else {
            return BTreeMap::new();
        };
        let path = fields.path_of(key);
        let Node::Map(entries) = &node.value else {
            let fix = "write `name: text`";
            self.complain(node.referenced, &path, "a mapping is needed", fix);
            return BTreeMap::new();
        };
        if entries.len() > MAX_TEMPLATES {
            let message = format!("{} entries are too many", entries.len());
            let fix = format!("keep to {MAX_TEMPLATES}");
            self.complain(node.referenced, &path, message, fix);
        }
        let mut templates = BTreeMap::new();
        for (name, value) in entries {
            let path = format!("{path}.{}", name.value);
            if let Some(text) = self.text_of(value, &path, "write a text in quotes") {
                templates.insert(name.value.clone(), text);
            }
        }
        templates
    }

    /// Renders each template with sample values, and once more as for a group that has vanished.
    fn check_templates(&mut self, fields: &Fields, rule: &Rule) {
        for (key, templates) in [("labels", &rule.labels), ("annotations", &rule.annotations)] {
            let Some(Node::Map(entries)) = fields.get(key).map(|node| &node.value) else {
                continue;
            };
            for (name, node) in entries {
                let Some(template) = templates.get(&name.value) else {
                    continue;
                };
                let Err(reason) = message::try_template(template, rule) else {
                    continue;
                };
                let path = format!("{}.{}", fields.path_of(key), name.value);
                let fix = format!(
                    "the fields are {}; the filters are pct and ms",
                    listed(&message::field_names(rule))
                );
                let message = format!("the template does not work: {reason}");
                self.complain(node.referenced, &path, message, fix);
            }
        }
    }
}

// ------------------------------------------------------------------ small texts

fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

fn unknown_column(name: &str, columns: &[String]) -> (String, String) {
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    let fix = did_you_mean(name, names.iter().copied())
        .unwrap_or_else(|| format!("the columns are {}", listed(&names)));
    (format!("unknown column `{}`", message::clean(name)), fix)
}

fn is_alert_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_uid(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    name.chars().all(is_part)
}

fn is_env_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

fn parse_duration_ms(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_ms = match unit {
        "s" => 1_000,
        "m" => MINUTE_MS,
        "h" => 60 * MINUTE_MS,
        "d" => DAY_MS,
        _ => return None,
    };
    if !number.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    number.parse::<i64>().ok()?.checked_mul(unit_ms)
}

/// The nearest name, as a question, if it is near enough to be a slip.
fn did_you_mean<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<String> {
    let allowed = (name.chars().count() / 3).max(1);
    known
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// Levenshtein distance in characters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// Words of SQL that are no columns; type names are there for `CAST`.
const SQL_WORDS: [&str; 31] = [
    "and",
    "or",
    "not",
    "in",
    "is",
    "null",
    "like",
    "ilike",
    "between",
    "true",
    "false",
    "case",
    "when",
    "then",
    "else",
    "end",
    "cast",
    "as",
    "escape",
    "distinct",
    "from",
    "bigint",
    "int",
    "integer",
    "double",
    "float",
    "varchar",
    "text",
    "boolean",
    "date",
    "timestamp",
];
/// Words that would make an expression a query.
const QUERY_WORDS: [&str; 6] = ["select", "union", "with", "insert", "delete", "update"];

/// The columns that an SQL expression names, with their offsets in characters; an error if the text
/// could be more than one expression.
fn column_names(text: &str) -> Result<Vec<(usize, &str)>, String> {
    let mut names = Vec::new();
    let mut depth = 0usize;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let offset = text[..text.len() - rest.len()].chars().count();
        let length = match first {
            '\'' => quoted_length(rest, '\'')?,
            '"' => {
                let length = quoted_length(rest, '"')?;
                names.push((offset + 1, &rest[1..length - 1]));
                length
            }
            '0'..='9' => word_length(rest, |c| c.is_ascii_alphanumeric() || c == '.'),
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = word_length(rest, |c| c.is_ascii_alphanumeric() || c == '_');
                let word = &rest[..length];
                let lower = word.to_ascii_lowercase();
                if QUERY_WORDS.contains(&lower.as_str()) {
                    return Err(format!("`{word}` makes it a query"));
                }
                let is_call = rest[length..].trim_start().starts_with('(');
                if !is_call && !SQL_WORDS.contains(&lower.as_str()) {
                    names.push((offset, word));
                }
                length
            }
            '(' => {
                depth += 1;
                1
            }
            ')' => {
                depth = depth.checked_sub(1).ok_or("a `)` closes nothing")?;
                1
            }
            '-' if rest.starts_with("--") => return Err("a comment is not allowed here".into()),
            '/' if rest.starts_with("/*") => return Err("a comment is not allowed here".into()),
            '+' | '-' | '*' | '/' | '%' | '=' | '<' | '>' | '!' | ',' | '.' | '|' => 1,
            space if space.is_ascii_whitespace() => 1,
            other => return Err(format!("`{}` is not allowed here", other.escape_default())),
        };
        rest = &rest[length..];
    }
    if depth > 0 {
        return Err("a `(` is not closed".to_owned());
    }
    Ok(names)
}

fn word_length(text: &str, is_part: impl Fn(char) -> bool) -> usize {
    text.find(|c: char| !is_part(c)).unwrap_or(text.len())
}

/// Bytes of a quoted text from its first to its last quote; a doubled quote stands for itself.
fn quoted_length(text: &str, quote: char) -> Result<usize, String> {
    let mut start = 1;
    loop {
        let Some(found) = text[start..].find(quote) else {
            return Err(format!("a {quote} is not closed"));
        };
        let end = start + found + 1;
        if !text[end..].starts_with(quote) {
            return Ok(end);
        }
        start = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Gold, seed_files, seed_rule};
    use super::*;

    const RULES: &str = r#"version: 1
targets:
  console: {stdout: {}}
groups:
  - name: core
    rules:
      - alert: Errors
        uid: errors
        from: gold.errors_1m
        value: {ratio: {num: clients_with_errors, den: clients}}
        group_by: [device_type, app_name]
        min_samples: 500
        condition: {test: value, op: ">", threshold: 5%}
        notify: {targets: [console]}
"#;
    const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:noc";

    fn parse(files: &[(&str, String)]) -> Result<RuleSet, Vec<Complaint>> {
        let owned = |(name, text): &(&str, String)| (name.to_string(), text.clone());
        let files: Vec<_> = files.iter().map(owned).collect();
        parse_rules(&files, &Gold, &|name| {
            (name == "TOPIC").then(|| TOPIC.to_owned())
        })
    }

    fn edited(old: &str, new: &str) -> String {
        assert!(RULES.contains(old), "{old}");
        RULES.replacen(old, new, 1)
    }

    fn texts(complaints: &[Complaint]) -> String {
        complaints.iter().map(|c| format!("{c}\n")).collect()
    }

    /// The good file with one edit gives exactly these complaints.
    #[track_caller]
    fn check(old: &str, new: &str, expected: &str) {
        let complaints = parse(&[("alerts/a.yaml", edited(old, new))]).unwrap_err();
        assert_eq!(format!("\n{}", texts(&complaints)), expected);
    }

    #[track_caller]
    fn parsed(old: &str, new: &str) -> Rule {
        match parse(&[("alerts/a.yaml", edited(old, new))]) {
            Ok(set) => set.rules[0].clone(),
            Err(complaints) => panic!("{}", texts(&complaints)),
        }
    }

    #[test]
    fn the_seed_files_are_good() {
        let set = parse_rules(&seed_files(), &Gold, &|_| None).unwrap();
        let uids: Vec<&str> = set.rules.iter().map(Rule::uid).collect();
        assert_eq!(
            uids,
            [
                "cdn-latency-baseline",
                "isp-rebuffering-peers",
                "playback-error-share"
            ]
        );
        let console = BTreeMap::from([("console".to_owned(), Target::Stdout)]);
        assert_eq!(set.targets, console);
    }

    #[test]
    fn the_hash_depends_on_the_texts_and_not_on_the_order_of_files() {
        let files = [("a", RULES.to_owned()), ("b", "version: 1\n".to_owned())];
        let hash = parse(&files).unwrap().hash;
        assert_eq!(hash.len(), "sha256:".len() + 64);
        let [a, b] = files.clone();
        assert_eq!(parse(&[b, a]).unwrap().hash, hash);
        let comment = ("b", "version: 1\n# note\n".to_owned());
        assert_ne!(parse(&[files[0].clone(), comment]).unwrap().hash, hash);
    }

    #[test]
    fn thresholds_are_read_as_shares_or_as_plain_numbers() {
        let share = |text: &str| {
            let rule = parsed("threshold: 5%", &format!("threshold: {text}"));
            rule.condition.value
        };
        assert_eq!(share("5%"), 0.05);
        assert_eq!(share("\"5 %\""), 0.05);
        assert_eq!(share("0.05"), 0.05);
        assert_eq!(share("0"), 0.0);
        assert_eq!(share("150%"), 1.5);
        let cdn = seed_rule("cdn-latency-baseline");
        assert_eq!(cdn.condition.value, 0.1);
        assert_eq!(cdn.and[0].value, 20.0);
    }

    #[test]
    fn a_share_is_bounded_by_wilson_unless_it_has_samples_of_its_own() {
        let z3 = Confidence::Wilson { z: 3.0 };
        let with = |text: &str| {
            parsed(
                "min_samples: 500",
                &format!("min_samples: 500\n        {text}"),
            )
            .confidence
        };
        assert_eq!(with("enabled: true"), z3);
        assert_eq!(with("samples: clients"), Confidence::None);
        assert_eq!(with("confidence: {method: none}"), Confidence::None);
        let normal = "samples: clients\n        confidence: {method: normal, z: 2.5}";
        assert_eq!(with(normal), Confidence::Normal { z: 2.5 });
        assert_eq!(
            seed_rule("cdn-latency-baseline").confidence,
            Confidence::None
        );
        assert_eq!(
            seed_rule("isp-rebuffering-peers").confidence,
            Confidence::None
        );
    }

    #[test]
    fn defaults_hold_where_a_rule_says_nothing() {
        let defaults = "version: 1\ndefaults: {window: 10m, for: 1m, severity: critical, owner: us, confidence: {method: wilson, z: 2}, notify: {targets: [console]}}";
        let text = edited("version: 1", defaults);
        let text = text.replace("        notify: {targets: [console]}\n", "");
        let rule = parse(&[("a", text.clone())]).unwrap().rules[0].clone();
        assert_eq!(rule.window_ms, 10 * MINUTE_MS);
        assert_eq!(rule.hold_ms, MINUTE_MS);
        assert_eq!(rule.severity, Severity::Critical);
        assert_eq!(rule.owner.as_deref(), Some("us"));
        assert_eq!(rule.confidence, Confidence::Wilson { z: 2.0 });
        assert_eq!(rule.targets, ["console"]);
        let own = text.replace("min_samples", "samples: clients\n        min_samples");
        let rule = parse(&[("a", own)]).unwrap().rules[0].clone();
        assert_eq!(
            rule.confidence,
            Confidence::None,
            "wilson has no meaning there"
        );
    }

    #[test]
    fn a_disabled_rule_is_checked_and_left_out() {
        let disabled = edited("uid: errors", "uid: errors\n        enabled: false");
        assert!(parse(&[("a", disabled.clone())]).unwrap().rules.is_empty());
        let broken = disabled.replace("min_samples: 500", "min_samples: 0");
        assert_eq!(parse(&[("a", broken)]).unwrap_err().len(), 1);
    }

    #[test]
    fn targets_are_shared_by_all_files() {
        let mut second = RULES.replace("uid: errors", "uid: other");
        second = second.replace("alert: Errors", "alert: Other");
        let both = |second: &str| parse(&[("a", RULES.to_owned()), ("b", second.to_owned())]);
        assert_eq!(both(&second).unwrap().rules.len(), 2);
        let without = second.replace("targets:\n  console: {stdout: {}}\n", "");
        assert_eq!(both(&without).unwrap().targets.len(), 1);
        let differing = second.replace("{stdout: {}}", "{sns: {topic_arn: \"${TOPIC}\"}}");
        assert_eq!(
            texts(&both(&differing).unwrap_err()),
            "b:3:3: target `console` differs from that of another file, at targets.console\n    \
             3 |   console: {sns: {topic_arn: \"${TOPIC}\"}}\n      \
             |   ^^^^^^^ targets are shared by all files: give this one another name\n"
        );
    }

    #[test]
    fn sns_targets_take_their_region_from_the_topic() {
        let sns = "console: {sns: {topic_arn: \"${TOPIC}\", endpoint_url: \"http://localhost:1\"}}";
        let text = edited("console: {stdout: {}}", sns);
        let expected = Target::Sns {
            topic_arn: TOPIC.to_owned(),
            endpoint_url: Some("http://localhost:1".to_owned()),
            region: "eu-west-1".to_owned(),
        };
        assert_eq!(parse(&[("a", text)]).unwrap().targets["console"], expected);
    }

    #[test]
    fn a_value_of_the_environment_is_in_no_complaint() {
        let sns =
            "console: {sns: {topic_arn: \"${TOPIC}:x\", region: r, endpoint_url: \"${TOPIC}\"}}";
        let complaints = parse(&[("a", edited("console: {stdout: {}}", sns))]).unwrap_err();
        assert!(!complaints.is_empty());
        assert!(!texts(&complaints).contains("123456789012"));
    }

    #[test]
    fn a_uid_is_used_once_in_all_files() {
        let complaints = parse(&[("a", RULES.to_owned()), ("b", RULES.to_owned())]).unwrap_err();
        let messages: Vec<&str> = complaints.iter().map(|c| c.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "`alert: Errors` is used at a:7 already",
                "`uid: errors` is used at a:8 already"
            ]
        );
    }

    #[test]
    fn every_file_is_complained_about_in_order_of_place() {
        let broken = "version: 3\ngroups: [{nam: x}]\n".to_owned();
        let unreadable = "version: [\n".to_owned();
        let complaints = parse(&[("b", broken), ("a", unreadable)]).unwrap_err();
        let places: Vec<(&str, usize, usize)> = complaints
            .iter()
            .map(|c| (c.file.as_str(), c.line, c.column))
            .collect();
        assert_eq!(
            places,
            [
                ("a", 1, 10),
                ("b", 1, 10),
                ("b", 2, 10),
                ("b", 2, 10),
                ("b", 2, 11)
            ]
        );
    }

    #[test]
    fn size_aliases_and_the_number_of_complaints_are_bounded() {
        let large = format!("version: 1\n#{}", "x".repeat(MAX_FILE_BYTES));
        let complaints = parse(&[("a", large)]).unwrap_err();
        assert_eq!(
            texts(&complaints),
            "a:0:0: the file has 1048588 bytes\n  split it; a rule file may have 1048576 bytes\n"
        );
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, of) in ["b", "c", "d", "e", "f", "g"]
            .iter()
            .zip(["a", "b", "c", "d", "e", "f"])
        {
            let aliases = vec![format!("*{of}"); 10].join(", ");
            bomb.push_str(&format!("{name}: &{name} [{aliases}]\n"));
        }
        let complaints = parse(&[("a", bomb)]).unwrap_err();
        assert!(complaints[0].message.starts_with("not readable as YAML: "));
        let unknown: String = (0..300).map(|n| format!("k{n}: 1\n")).collect();
        let complaints = parse(&[("a", unknown)]).unwrap_err();
        assert_eq!(complaints.len(), MAX_COMPLAINTS);
    }

    #[test]
    fn the_query_quotes_names_and_wraps_the_filter() {
        let rule = parsed(
            "min_samples: 500",
            "min_samples: 500\n        where: \"app_name = 'x' OR app_name = 'y'\"",
        );
        assert_eq!(
            rule.sql(1_793_563_740_000, 1_793_564_040_000),
            "SELECT window_start, CAST(\"device_type\" AS VARCHAR) AS \"device_type\", \
             CAST(\"app_name\" AS VARCHAR) AS \"app_name\", \
             CAST(sum(clients_with_errors) AS DOUBLE) AS num, CAST(sum(clients) AS DOUBLE) AS den, \
             CAST(sum(clients) AS DOUBLE) AS samples FROM \"gold\".\"errors_1m\" \
             WHERE window_start >= TIMESTAMP '2026-11-01 20:09:00' \
             AND window_start < TIMESTAMP '2026-11-01 20:14:00' \
             AND (app_name = 'x' OR app_name = 'y') GROUP BY 1, 2, 3"
        );
        assert_eq!(rule.history_sql(1_793_564_040_000), None);
    }

    #[test]
    fn the_history_query_reads_the_slot_of_earlier_days_only() {
        let rule = seed_rule("cdn-latency-baseline");
        let sql = rule.history_sql(1_793_564_040_000).unwrap();
        assert_eq!(
            sql,
            "SELECT CAST(CAST(date_part('epoch', window_start) AS BIGINT) / 86400 AS INT) AS day, \
             CAST(CAST(date_part('epoch', window_start) AS BIGINT) % 86400 / 3600 AS INT) AS slot, \
             CAST(\"cdn\" AS VARCHAR) AS \"cdn\", CAST(\"country\" AS VARCHAR) AS \"country\", \
             CAST(sum(ttfb_ms_sum) AS DOUBLE) AS num, CAST(sum(ttfb_count) AS DOUBLE) AS den, \
             CAST(sum(ttfb_count) AS DOUBLE) AS samples FROM \"gold\".\"cdn_1m\" \
             WHERE window_start >= TIMESTAMP '2026-10-25 00:00:00' \
             AND window_start < TIMESTAMP '2026-11-01 00:00:00' \
             AND CAST(date_part('epoch', window_start) AS BIGINT) % 86400 / 3600 = 20 \
             GROUP BY 1, 2, 3, 4"
        );
        let at_the_end_of_the_slot = rule.history_sql(1_793_566_800_000).unwrap();
        assert_eq!(sql, at_the_end_of_the_slot, "21:00 ends the slot of 20:00");
    }

    #[test]
    fn quotes_in_names_cannot_break_out() {
        assert_eq!(quoted("gold.a\"b"), "\"gold\".\"a\"\"b\"");
    }

    #[test]
    fn slots_hold_the_last_minute_of_the_window() {
        let hour = 60 * MINUTE_MS;
        assert_eq!(slot_of(DAY_MS + hour, hour), (1, 0));
        assert_eq!(slot_of(DAY_MS + hour + MINUTE_MS, hour), (1, 1));
        assert_eq!(slot_of(DAY_MS, hour), (0, 23));
        assert_eq!(slot_of(0, hour), (-1, 23));
    }

    #[test]
    fn the_version_is_asked_for() {
        check(
            "version: 1",
            "version: 2",
            r"
alerts/a.yaml:1:10: this release reads version 1, at version
    1 | version: 2
      |          ^ write `version: 1`
",
        );
        check(
            "version: 1\n",
            "\n",
            r"
alerts/a.yaml:2:1: `version` is missing
    2 | targets:
      | ^ add `version: 1`
",
        );
        check(
            "version: 1",
            "versoin: 1",
            r"
alerts/a.yaml:1:1: unknown key `versoin` in a rule file, at versoin
    1 | versoin: 1
      | ^^^^^^^ did you mean `version`?
alerts/a.yaml:1:1: `version` is missing
    1 | versoin: 1
      | ^ add `version: 1`
",
        );
    }

    #[test]
    fn a_key_of_the_schema_is_not_supported_yet_and_any_other_is_unknown() {
        check(
            "version: 1",
            "version: 1\ninhibit: []",
            r"
alerts/a.yaml:2:1: `inhibit` in a rule file is not supported yet, at inhibit
    2 | inhibit: []
      | ^^^^^^^ take it out
",
        );
        check(
            "version: 1",
            "version: 1\ndefaults: {slide: 1m, min_samples: 3, windw: 5m}",
            r"
alerts/a.yaml:2:12: `slide` in `defaults` is not supported yet, at defaults.slide
    2 | defaults: {slide: 1m, min_samples: 3, windw: 5m}
      |            ^^^^^ take it out
alerts/a.yaml:2:23: `min_samples` cannot have a default, at defaults.min_samples
    2 | defaults: {slide: 1m, min_samples: 3, windw: 5m}
      |                       ^^^^^^^^^^^ write it in each rule
alerts/a.yaml:2:39: unknown key `windw` in `defaults`, at defaults.windw
    2 | defaults: {slide: 1m, min_samples: 3, windw: 5m}
      |                                       ^^^^^ did you mean `window`?
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        explain: {dims: [a]}",
            r"
alerts/a.yaml:13:9: `explain` in a rule is not supported yet, at groups[0].rules[0].explain
   13 |         explain: {dims: [a]}
      |         ^^^^^^^ take it out
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        min_sample: 3",
            r"
alerts/a.yaml:13:9: unknown key `min_sample` in a rule, at groups[0].rules[0].min_sample
   13 |         min_sample: 3
      |         ^^^^^^^^^^ did you mean `min_samples`?
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        colour: red",
            r"
alerts/a.yaml:13:9: unknown key `colour` in a rule, at groups[0].rules[0].colour
   13 |         colour: red
      |         ^^^^^^ take it out; the keys are alert, uid, owner, runbook, from, value, samples, window, group_by, where, min_samples, confidence, baseline, condition, and, for, severity, annotations, labels, notify, enabled
",
        );
        check(
            "{targets: [console]}",
            "{targets: [console], repeat_interval: 4h}",
            r"
alerts/a.yaml:14:38: `repeat_interval` in `notify` is not supported yet, at groups[0].rules[0].notify.repeat_interval
   14 |         notify: {targets: [console], repeat_interval: 4h}
      |                                      ^^^^^^^^^^^^^^^ take it out
",
        );
        check(
            "{ratio: {num: clients_with_errors, den: clients}}",
            "{quantile: {sketch: s, q: 0.9}}",
            r"
alerts/a.yaml:10:17: `quantile` in `value` is not supported yet, at groups[0].rules[0].value.quantile
   10 |         value: {quantile: {sketch: s, q: 0.9}}
      |                 ^^^^^^^^ take it out
",
        );
        check(
            "console: {stdout: {}}",
            "console: {stdout: {}}\n  hook: {webhook: {url: x}}",
            r"
alerts/a.yaml:4:10: `webhook` in a target is not supported yet, at targets.hook.webhook
    4 |   hook: {webhook: {url: x}}
      |          ^^^^^^^ take it out
",
        );
    }

    #[test]
    fn names_are_plain() {
        check(
            "uid: errors",
            "uid: Err Ors",
            r"
alerts/a.yaml:8:14: `uid` is not a plain name, at groups[0].rules[0].uid
    8 |         uid: Err Ors
      |              ^^^^^^^ write up to 64 of a-z, 0-9, `-` and `_`
",
        );
        check(
            "alert: Errors",
            "alert: 5xx!",
            r"
alerts/a.yaml:7:16: `alert` is not a plain name, at groups[0].rules[0].alert
    7 |       - alert: 5xx!
      |                ^^^^ write up to 64 of letters, digits and `_`
",
        );
        check(
            "        uid: errors\n",
            "",
            r"
alerts/a.yaml:7:9: `uid` is missing, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ write up to 64 of a-z, 0-9, `-` and `_`
",
        );
        check(
            "name: core",
            "name: core\n    interval: 1m",
            r"
alerts/a.yaml:6:15: `1m` is not known here, at groups[0].interval
    6 |     interval: 1m
      |               ^^ write one of watermark
",
        );
    }

    #[test]
    fn tables_and_columns_must_exist() {
        check(
            "gold.errors_1m",
            "gold.error_1m",
            r"
alerts/a.yaml:9:15: unknown table `gold.error_1m`, at groups[0].rules[0].from
    9 |         from: gold.error_1m
      |               ^^^^^^^^^^^^^ did you mean `gold.errors_1m`?
",
        );
        check(
            "gold.errors_1m",
            "silver.audience",
            r"
alerts/a.yaml:9:15: unknown table `silver.audience`, at groups[0].rules[0].from
    9 |         from: silver.audience
      |               ^^^^^^^^^^^^^^^ the tables are gold.cdn_1m, gold.errors_1m, gold.playback_1m
",
        );
        check(
            "num: clients_with_errors",
            "num: clients_with_error",
            r"
alerts/a.yaml:10:30: unknown column `clients_with_error`, at groups[0].rules[0].value.ratio.num
   10 |         value: {ratio: {num: clients_with_error, den: clients}}
      |                              ^^^^^^^^^^^^^^^^^^ did you mean `clients_with_errors`?
",
        );
        check(
            "den: clients}",
            r#"den: "clients + 2 * client"}"#,
            r#"
alerts/a.yaml:10:71: unknown column `client`, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "clients + 2 * client"}}
      |                                                                       ^^^^^^ did you mean `clients`?
"#,
        );
        check(
            "group_by: [device_type, app_name]",
            "group_by: [device_typ, app_name, app_name]",
            r"
alerts/a.yaml:11:20: unknown column `device_typ`, at groups[0].rules[0].group_by
   11 |         group_by: [device_typ, app_name, app_name]
      |                    ^^^^^^^^^^ did you mean `device_type`?
alerts/a.yaml:11:42: `app_name` cannot be a dimension here, at groups[0].rules[0].group_by
   11 |         group_by: [device_typ, app_name, app_name]
      |                                          ^^^^^^^^ name each dimension once; time is no dimension
",
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        where: "app_nam = 'x'' y' AND device_type IN ('tv') AND upper(app_name) <> 'A'""#,
            r#"
alerts/a.yaml:13:17: unknown column `app_nam`, at groups[0].rules[0].where
   13 |         where: "app_nam = 'x'' y' AND device_type IN ('tv') AND upper(app_name) <> 'A'"
      |                 ^^^^^^^ did you mean `app_name`?
"#,
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        where: >-\n          app_name = 'x'\n          and nosuch = 3",
            r"
alerts/a.yaml:14:11: unknown column `nosuch`, at groups[0].rules[0].where
   14 |           app_name = 'x'
      |           ^^^^^^^^^^^^^^ the columns are window_start, window_end, app_name, app_version, device_type, clients, clients_with_errors
",
        );
    }

    #[test]
    fn an_expression_is_one_expression() {
        check(
            "den: clients}",
            r#"den: "(clients"}"#,
            r#"
alerts/a.yaml:10:56: a `(` is not closed, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "(clients"}}
      |                                                        ^^^^^^^^^^ write one SQL expression over the columns of the table
"#,
        );
        check(
            "den: clients}",
            r#"den: "clients; DROP TABLE x"}"#,
            r#"
alerts/a.yaml:10:56: `;` is not allowed here, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "clients; DROP TABLE x"}}
      |                                                        ^^^^^^^^^^^^^^^^^^^^^^^ write one SQL expression over the columns of the table
"#,
        );
        check(
            "den: clients}",
            r#"den: "(SELECT 1)"}"#,
            r#"
alerts/a.yaml:10:56: `SELECT` makes it a query, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "(SELECT 1)"}}
      |                                                        ^^^^^^^^^^^^ write one SQL expression over the columns of the table
"#,
        );
        check(
            "den: clients}",
            r#"den: "clients -- all"}"#,
            r#"
alerts/a.yaml:10:56: a comment is not allowed here, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "clients -- all"}}
      |                                                        ^^^^^^^^^^^^^^^^ write one SQL expression over the columns of the table
"#,
        );
        check(
            "den: clients}",
            r#"den: "clients'"}"#,
            r#"
alerts/a.yaml:10:56: a ' is not closed, at groups[0].rules[0].value.ratio.den
   10 |         value: {ratio: {num: clients_with_errors, den: "clients'"}}
      |                                                        ^^^^^^^^^^ write one SQL expression over the columns of the table
"#,
        );
        check(
            "{ratio: {num: clients_with_errors, den: clients}}",
            "{ratio: {num: clients_with_errors}}",
            r"
alerts/a.yaml:10:24: `den` is missing, at groups[0].rules[0].value.ratio
   10 |         value: {ratio: {num: clients_with_errors}}
      |                        ^ name a column or an expression over columns
",
        );
    }

    #[test]
    fn a_rule_says_how_many_samples_it_needs() {
        check(
            "        min_samples: 500\n",
            "",
            r"
alerts/a.yaml:7:9: rule `errors` has no `min_samples`, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ add `min_samples: <n>`; with 25 sessions a healthy 3 % group breaches 5 % in 17 % of windows
",
        );
        check(
            "min_samples: 500",
            "min_samples: 0",
            r"
alerts/a.yaml:12:22: a whole number is needed, at groups[0].rules[0].min_samples
   12 |         min_samples: 0
      |                      ^ write a whole number, 1 or more
",
        );
        check(
            "min_samples: 500",
            "min_samples: many",
            r"
alerts/a.yaml:12:22: a whole number is needed, at groups[0].rules[0].min_samples
   12 |         min_samples: many
      |                      ^^^^ write a whole number, 1 or more
",
        );
    }

    #[test]
    fn a_share_is_never_a_bare_number() {
        check(
            "threshold: 5%",
            "threshold: 5",
            r#"
alerts/a.yaml:13:54: `5` could mean 5 % or 500 %, at groups[0].rules[0].condition.threshold
   13 |         condition: {test: value, op: ">", threshold: 5}
      |                                                      ^ write `5%` or `500%`
"#,
        );
        check(
            "threshold: 5%",
            "threshold: lots",
            r#"
alerts/a.yaml:13:54: a threshold is a number, at groups[0].rules[0].condition.threshold
   13 |         condition: {test: value, op: ">", threshold: lots}
      |                                                      ^^^^ write a share as `5%` or `0.05`, all else as a number
"#,
        );
        check(
            "{ratio: {num: clients_with_errors, den: clients}}\n        group_by",
            "{mean: {sum: clients_with_errors, count: clients}}\n        group_by",
            r#"
alerts/a.yaml:13:54: this threshold is no share, at groups[0].rules[0].condition.threshold
   13 |         condition: {test: value, op: ">", threshold: 5%}
      |                                                      ^^ write a number in the unit of the value, such as `20`
"#,
        );
    }

    #[test]
    fn conditions_are_known_and_possible() {
        check(
            r#"{test: value, op: ">", threshold: 5%}"#,
            r#"{test: zscore, op: "=>", threshold: 5%}"#,
            r#"
alerts/a.yaml:13:27: `zscore` is not supported yet, at groups[0].rules[0].condition.test
   13 |         condition: {test: zscore, op: "=>", threshold: 5%}
      |                           ^^^^^^ write one of value, ratio_to_baseline, diff_to_baseline
alerts/a.yaml:13:39: `=>` is not known here, at groups[0].rules[0].condition.op
   13 |         condition: {test: zscore, op: "=>", threshold: 5%}
      |                                       ^^^^ did you mean `>`?
"#,
        );
        check(
            r#"{test: value, op: ">", threshold: 5%}"#,
            r#"{test: ratio_to_baseline, op: ">", threshold: 5%}"#,
            r#"
alerts/a.yaml:13:27: the rule has no baseline, at groups[0].rules[0].condition.test
   13 |         condition: {test: ratio_to_baseline, op: ">", threshold: 5%}
      |                           ^^^^^^^^^^^^^^^^^ add a `baseline`, or test `value`
"#,
        );
        check(
            r#"        condition: {test: value, op: ">", threshold: 5%}
"#,
            "",
            r#"
alerts/a.yaml:7:9: `condition` is missing, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ add `condition: {test: value, op: ">", threshold: ...}`
"#,
        );
    }

    #[test]
    fn durations_have_a_unit_and_fit_the_minutes_of_gold() {
        check(
            "min_samples: 500",
            "min_samples: 500\n        window: 90s",
            r"
alerts/a.yaml:13:17: 90s does not fit, at groups[0].rules[0].window
   13 |         window: 90s
      |                 ^^^ write a multiple of 1m from 1m to 1d
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        window: 5",
            r"
alerts/a.yaml:13:17: a duration is a whole number and s, m, h or d, such as `5m`, at groups[0].rules[0].window
   13 |         window: 5
      |                 ^ write a multiple of 1m from 1m to 1d
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        for: 2 min",
            r"
alerts/a.yaml:13:14: a duration is a whole number and s, m, h or d, such as `5m`, at groups[0].rules[0].for
   13 |         for: 2 min
      |              ^^^^^ write a multiple of 1s from 0s to 7d
",
        );
    }

    #[test]
    fn baselines_are_checked() {
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: ewma}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:26: `ewma` is not supported yet, at groups[0].rules[0].baseline.kind
   13 |         baseline: {kind: ewma}
      |                          ^^^^ write one of same_slot, peers
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {slot: 1h}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:19: `kind` is missing, at groups[0].rules[0].baseline
   13 |         baseline: {slot: 1h}
      |                   ^ write `kind: same_slot` or `kind: peers`
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: median, cold_start: fire}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:43: a day is no multiple of the slot, at groups[0].rules[0].baseline.slot
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: median, cold_start: fire}
      |                                           ^^ write 5m, 15m, 30m, 1h, 2h, 6h or 1d
alerts/a.yaml:13:74: `min_history` is longer than `lookback`, at groups[0].rules[0].baseline.min_history
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: median, cold_start: fire}
      |                                                                          ^^ write 2d or less
alerts/a.yaml:13:84: `median` is not supported yet, at groups[0].rules[0].baseline.stat
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: median, cold_start: fire}
      |                                                                                    ^^^^^^ write one of mean
alerts/a.yaml:13:104: `fire` is not supported yet, at groups[0].rules[0].baseline.cold_start
   13 |         baseline: {kind: same_slot, slot: 7m, lookback: 2d, min_history: 3d, stat: median, cold_start: fire}
      |                                                                                                        ^^^^ write one of suppress
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: peers, over: isp, weight: clients}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:39: `isp` is not in `group_by`, at groups[0].rules[0].baseline.over
   13 |         baseline: {kind: peers, over: isp, weight: clients}
      |                                       ^^^ name one of `group_by`
alerts/a.yaml:13:44: `weight` in a `peers` baseline is not supported yet, at groups[0].rules[0].baseline.weight
   13 |         baseline: {kind: peers, over: isp, weight: clients}
      |                                            ^^^^^^ take it out
",
        );
        check(
            "min_samples: 500\n        condition: {test: value",
            "min_samples: 500\n        baseline: {kind: peers, over: app_name, within: [app_name], leave_one_out: false, min_peers: 0}\n        condition: {test: ratio_to_baseline",
            r"
alerts/a.yaml:13:58: `app_name` is not in `group_by`, or is `over` itself, at groups[0].rules[0].baseline.within
   13 |         baseline: {kind: peers, over: app_name, within: [app_name], leave_one_out: false, min_peers: 0}
      |                                                          ^^^^^^^^ name one of `group_by`
alerts/a.yaml:13:84: only `leave_one_out: true` is supported yet, at groups[0].rules[0].baseline.leave_one_out
   13 |         baseline: {kind: peers, over: app_name, within: [app_name], leave_one_out: false, min_peers: 0}
      |                                                                                    ^^^^^ write `true`
alerts/a.yaml:13:102: a whole number is needed, at groups[0].rules[0].baseline.min_peers
   13 |         baseline: {kind: peers, over: app_name, within: [app_name], leave_one_out: false, min_peers: 0}
      |                                                                                                      ^ write a whole number, 1 or more
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        baseline: {kind: peers, over: app_name}",
            r"
alerts/a.yaml:13:19: no condition uses the baseline, at groups[0].rules[0].baseline
   13 |         baseline: {kind: peers, over: app_name}
      |                   ^ test ratio_to_baseline or diff_to_baseline, or take it out
",
        );
    }

    #[test]
    fn severity_and_owner_go_together() {
        check(
            "min_samples: 500",
            "min_samples: 500\n        severity: critical",
            r"
alerts/a.yaml:7:9: a critical rule needs an `owner`, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ add `owner: <team>`
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        severity: [{threshold: 5%, severity: warning}]",
            r"
alerts/a.yaml:13:19: a ladder of severities is not supported yet, at groups[0].rules[0].severity
   13 |         severity: [{threshold: 5%, severity: warning}]
      |                   ^ write one severity
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        severity: sever",
            r"
alerts/a.yaml:13:19: `sever` is not known here, at groups[0].rules[0].severity
   13 |         severity: sever
      |                   ^^^^^ write one of info, warning, critical
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        enabled: perhaps",
            r"
alerts/a.yaml:13:18: a yes or no is needed, at groups[0].rules[0].enabled
   13 |         enabled: perhaps
      |                  ^^^^^^^ write `true` or `false`
",
        );
    }

    #[test]
    fn confidence_must_mean_something() {
        check(
            "min_samples: 500",
            "min_samples: 500\n        samples: clients\n        confidence: {method: wilson}",
            r"
alerts/a.yaml:14:21: wilson holds only for a ratio that counts a part of its denominator, at groups[0].rules[0].confidence
   14 |         confidence: {method: wilson}
      |                     ^ write `method: none`, or `normal` for a ratio with its own `samples`
",
        );
        check(
            "min_samples: 500",
            "min_samples: 500\n        confidence: {method: wilson, z: 50}",
            r"
alerts/a.yaml:13:41: `z` does not fit, at groups[0].rules[0].confidence.z
   13 |         confidence: {method: wilson, z: 50}
      |                                         ^^ write a number above 0, at most 10; 3 is usual
",
        );
        check(
            r#"{ratio: {num: clients_with_errors, den: clients}}
        group_by: [device_type, app_name]
        min_samples: 500
        condition: {test: value, op: ">", threshold: 5%}"#,
            r#"{mean: {sum: clients_with_errors, count: clients}}
        min_samples: 500
        confidence: {method: normal}
        condition: {test: value, op: ">", threshold: 5}"#,
            r"
alerts/a.yaml:12:21: normal needs a spread, and a mean of sums has none, at groups[0].rules[0].confidence
   12 |         confidence: {method: normal}
      |                     ^ write `method: none` and a larger `min_samples`
",
        );
    }

    #[test]
    fn somebody_must_be_told() {
        check(
            "[console]",
            "[consol]",
            r"
alerts/a.yaml:14:28: unknown target `consol`, at groups[0].rules[0].notify.targets
   14 |         notify: {targets: [consol]}
      |                            ^^^^^^ did you mean `console`?
",
        );
        check(
            "[console]",
            "[]",
            r"
alerts/a.yaml:14:27: the rule has no target, at groups[0].rules[0].notify.targets
   14 |         notify: {targets: []}
      |                           ^ add `notify: {targets: [console]}`
",
        );
        check(
            "        notify: {targets: [console]}\n",
            "",
            r"
alerts/a.yaml:7:9: nobody is told: `notify` is missing, at groups[0].rules[0]
    7 |       - alert: Errors
      |         ^ add `notify: {targets: [console]}`
",
        );
    }

    #[test]
    fn targets_are_resolved_from_the_environment() {
        check(
            "console: {stdout: {}}",
            r#"console: {stdout: {}}
  noc: {sns: {topic_arn: "${NOC}"}}"#,
            r#"
alerts/a.yaml:4:26: the environment variable `NOC` is not set, at targets.noc.sns.topic_arn
    4 |   noc: {sns: {topic_arn: "${NOC}"}}
      |                          ^^^^^^^^ set NOC before the start, or take the target out
"#,
        );
        check(
            "console: {stdout: {}}",
            r#"console: {stdout: {}}
  noc: {sns: {topic_arn: "${noc}"}}"#,
            r#"
alerts/a.yaml:4:26: `${` opens no name, at targets.noc.sns.topic_arn
    4 |   noc: {sns: {topic_arn: "${noc}"}}
      |                          ^^^^^^^^ write `${NAME}` in capitals, digits and underscores
"#,
        );
        check(
            "console: {stdout: {}}",
            r#"console: {stdout: {}}
  noc: {sns: {topic_arn: "topic"}}"#,
            r#"
alerts/a.yaml:4:26: `topic_arn` is not the ARN of an SNS topic, at targets.noc.sns.topic_arn
    4 |   noc: {sns: {topic_arn: "topic"}}
      |                          ^^^^^^^ write `arn:aws:sns:<region>:<account>:<topic>` or `${NAME}`
"#,
        );
        check(
            "console: {stdout: {}}",
            r#"console: {stdout: {}}
  noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, format: json, endpoint_url: localhost}}"#,
            r#"
alerts/a.yaml:4:46: `region` is not the topic's region, at targets.noc.sns.region
    4 |   noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, format: json, endpoint_url: localhost}}
      |                                              ^^^^^^^^^ take `region` out; SNS wants the topic's own
alerts/a.yaml:4:57: `format` in `sns` is not supported yet, at targets.noc.sns.format
    4 |   noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, format: json, endpoint_url: localhost}}
      |                                                         ^^^^^^ take it out
alerts/a.yaml:4:85: `endpoint_url` is not a URL, at targets.noc.sns.endpoint_url
    4 |   noc: {sns: {topic_arn: "${TOPIC}", region: us-east-1, format: json, endpoint_url: localhost}}
      |                                                                                     ^^^^^^^^^ write an http or https URL
"#,
        );
        check(
            "console: {stdout: {}}",
            "console: {}",
            r"
alerts/a.yaml:3:12: a target is one of stdout and sns, at targets.console
    3 |   console: {}
      |            ^ write `stdout: {}` or `sns: {topic_arn: ...}`
alerts/a.yaml:14:28: unknown target `console`, at groups[0].rules[0].notify.targets
   14 |         notify: {targets: [console]}
      |                            ^^^^^^^ define it under `targets`
",
        );
    }

    #[test]
    fn templates_are_tried_when_they_are_loaded() {
        check(
            "min_samples: 500",
            r#"min_samples: 500
        annotations: {summary: "{{ device }}"}"#,
            r#"
alerts/a.yaml:13:32: the template does not work: undefined value, at groups[0].rules[0].annotations.summary
   13 |         annotations: {summary: "{{ device }}"}
      |                                ^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        annotations: {summary: "{{ baseline | pct }}"}"#,
            r#"
alerts/a.yaml:13:32: the template does not work: undefined value, at groups[0].rules[0].annotations.summary
   13 |         annotations: {summary: "{{ baseline | pct }}"}
      |                                ^^^^^^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        annotations: {summary: "{{ value * 2 }}"}"#,
            r#"
alerts/a.yaml:13:32: the template does not work: invalid operation: tried to use * operator on unsupported types none and number (for a group that has no value any more), at groups[0].rules[0].annotations.summary
   13 |         annotations: {summary: "{{ value * 2 }}"}
      |                                ^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        labels: {kind: "{% for i in dims %}"}"#,
            r#"
alerts/a.yaml:13:24: the template does not work: syntax error: unexpected end of input, expected end of block, at groups[0].rules[0].labels.kind
   13 |         labels: {kind: "{% for i in dims %}"}
      |                        ^^^^^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        labels: {kind: "{{ value | url }}"}"#,
            r#"
alerts/a.yaml:13:24: the template does not work: unknown filter: filter url is unknown, at groups[0].rules[0].labels.kind
   13 |         labels: {kind: "{{ value | url }}"}
      |                        ^^^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
"#,
        );
        check(
            "min_samples: 500",
            r#"min_samples: 500
        labels: {kind: "{% for a in [1,2,3,4,5,6,7,8,9] %}{% for b in [1,2,3,4,5,6,7,8,9] %}{% for c in [1,2,3,4,5,6,7,8,9] %}{{ c }}{% endfor %}{% endfor %}{% endfor %}"}"#,
            r#"
alerts/a.yaml:13:24: the template does not work: engine ran out of fuel, at groups[0].rules[0].labels.kind
   13 |         labels: {kind: "{% for a in [1,2,3,4,5,6,7,8,9] %}{% for b in [1,2,3,4,5,6,7,8,9] %}{% for c in [1,2,3,4,5,6,7,8,9] %}{{ c }}{% endfor %}{% endfor %}{% 
      |                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ the fields are device_type, app_name, alert, uid, severity, status, value, samples, threshold, window_start, window_end, starts_at; the filters are pct and ms
"#,
        );
    }

    #[test]
    fn broken_yaml_is_one_complaint() {
        check(
            "min_samples: 500",
            "min_samples: 500\n        min_samples: 400",
            r"
alerts/a.yaml:13:9: not readable as YAML: duplicate mapping key: min_samples not allowed here
   13 |         min_samples: 400
      |         ^ correct the YAML here or just above
",
        );
        check(
            "group_by: [device_type, app_name]",
            "group_by: [device_type",
            r"
alerts/a.yaml:12:20: not readable as YAML: illegal placement of ':' indicator
   12 |         min_samples: 500
      |                    ^ correct the YAML here or just above
",
        );
        check(
            "{stdout: {}}",
            "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
            r"
alerts/a.yaml:3:28: not readable as YAML: recursion limit exceeded
    3 |   console: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
      |                            ^ correct the YAML here or just above
",
        );
    }
    mod properties {
        use proptest::prelude::*;

        use super::*;

        proptest! {
            #[test]
            fn no_text_makes_the_reader_panic(text in "\\PC{0,200}", at in 0usize..500) {
                let mut file = RULES.to_owned();
                file.insert_str(at.min(file.len()), &text);
                for complaint in parse(&[("a", file), ("b", text)]).err().unwrap_or_default() {
                    prop_assert!(!complaint.to_string().is_empty());
                }
            }
        }
    }
}
