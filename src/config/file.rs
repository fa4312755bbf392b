//! The settings as they are written: YAML text to `ConfigFile`.
//!
//! First half of the way from file to `Config` (`config.rs` is the second): parse every file into a
//! tree that remembers line and column, lay later trees over earlier ones, fill in `${NAME}`, and
//! read the tree into `ConfigFile`.
//!
//! Invariant: every complaint names the file, line and column of the text that caused it, and all
//! complaints come at once.
//! Invariant: what the environment filled in is never shown again, in a complaint or elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_saphyr::Spanned;

use super::{Complaint, Identity, LogFormat, LogLevel, Place, Role, SourceFormat, StartFrom};
use crate::publish::UpdateType;

/// More complaints than this help nobody: the first ones explain the rest.
const COMPLAINTS_MAX: usize = 32;

/// Settings nest three deep; a document deeper than this is a mistake or an attack.
const DEPTH_MAX: usize = 16;

/// How far a wrong key may be from a right one to be taken for its misspelling.
const MISSPELLING_LIKENESS_MIN: f64 = 0.75;

/// One settings file as written. Absent and empty both mean "the default".
#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    pub role: Option<Role>,
    pub data: Option<PathBuf>,
    pub lake: LakeFile,
    pub sources: Option<Vec<SourceFile>>,
    pub http: HttpFile,
    pub postgres: PostgresFile,
    pub page: PageFile,
    pub ingest: IngestFile,
    pub privacy: PrivacyFile,
    pub network: NetworkFile,
    pub devices: DevicesFile,
    pub cdn: CdnFile,
    pub windows: WindowsFile,
    pub pipelines: PipelinesFile,
    pub alerts: AlertsFile,
    pub dashboards: DashboardsFile,
    pub sns: SnsFile,
    pub publish: Option<Vec<PublishFile>>,
    pub upkeep: UpkeepFile,
    pub sql: SqlFile,
    pub arroyo: ArroyoFile,
    pub relay: RelayFile,
    pub collect: CollectFile,
    pub log: LogFile,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    pub name: Option<String>,
    pub path: Option<PathBuf>,
    pub kafka: Option<KafkaFile>,
    pub kinesis: Option<KinesisFile>,
    pub s3: Option<S3File>,
    pub format: Option<SourceFormat>,
    pub fields: Option<Vec<String>>,
}

#[derive(Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct KafkaFile {
    pub brokers: String,
    pub group: Option<String>,
    pub topics: Vec<String>,
    pub start: Option<StartFrom>,
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaFile {
    /// Properties hold passwords: only their names may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaFile")
            .field("brokers", &self.brokers)
            .field("topics", &self.topics)
            .field("properties", &self.properties.keys())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct KinesisFile {
    pub stream: String,
    pub start: Option<StartFrom>,
    pub share: Option<bool>,
    pub region: Option<String>,
    pub endpoint_url: Option<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct S3File {
    pub url: String,
    pub suffixes: Option<Vec<String>>,
    pub list_every: Option<Span>,
    pub late: Option<Span>,
    pub queue_url: Option<String>,
    pub region: Option<String>,
    pub endpoint_url: Option<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct LakeFile {
    pub url: Option<String>,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct HttpFile {
    pub listen: Option<String>,
    pub status: Option<String>,
    pub accepting: Option<bool>,
    pub allowed_origins: Option<Vec<String>>,
    pub trusted_proxies: Option<Vec<String>>,
    pub correct_clocks: Option<bool>,
    pub body: Option<Bytes>,
    pub body_unpacked: Option<Bytes>,
    pub body_records: Option<u64>,
    pub connections: Option<u64>,
    pub memory: Option<Bytes>,
    pub spool: Option<Bytes>,
}

#[derive(Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct PostgresFile {
    pub listen: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub connections: Option<u64>,
    pub rows: Option<u64>,
}

impl fmt::Debug for PostgresFile {
    /// The password is a secret: only whether there is one may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresFile")
            .field("listen", &self.listen)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "..."))
            .finish_non_exhaustive()
    }
}

#[derive(Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct PageFile {
    pub enabled: Option<bool>,
    pub password: Option<String>,
    pub token: Option<String>,
    pub connections: Option<u64>,
    pub live: LiveFile,
}

impl fmt::Debug for PageFile {
    /// Secrets: only whether there are any may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageFile")
            .field("enabled", &self.enabled)
            .field("password", &self.password.as_ref().map(|_| "..."))
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct LiveFile {
    pub public: Option<bool>,
    pub origins: Option<Vec<String>>,
    pub min_viewers: Option<u64>,
    pub top: Option<u64>,
    pub every: Option<Span>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct IngestFile {
    pub batch_bytes: Option<Bytes>,
    pub batch_records: Option<u64>,
    pub commit_every: Option<Span>,
    pub poll_every: Option<Span>,
}

#[derive(Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyFile {
    pub identity: Option<Identity>,
    pub key: Option<String>,
}

impl fmt::Debug for PrivacyFile {
    /// The key is a secret: only whether there is one may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivacyFile")
            .field("identity", &self.identity)
            .field("key", &self.key.as_ref().map(|_| "..."))
            .finish()
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct NetworkFile {
    pub city: Option<PathBuf>,
    pub asn: Option<PathBuf>,
    pub isp: Option<PathBuf>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct DevicesFile {
    pub user_agents: Option<PathBuf>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct CdnFile {
    pub content: Option<Vec<ContentFile>>,
    pub hosts: Option<Vec<HostFile>>,
    pub trusted_proxies: Option<u64>,
    pub keep_query: Option<Vec<String>>,
    pub keep_cookies: Option<Vec<String>>,
    pub referrer: Option<ReferrerFile>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum ReferrerFile {
    #[default]
    Origin,
    Drop,
    Keep,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct ContentFile {
    pub host: Option<String>,
    pub path: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct HostFile {
    pub host: String,
    pub cdn: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct WindowsFile {
    pub lateness: Option<Span>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct PipelinesFile {
    pub folder: Option<PathBuf>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct DashboardsFile {
    pub folder: Option<PathBuf>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct AlertsFile {
    pub folder: Option<PathBuf>,
    pub deliver: Option<bool>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct SnsFile {
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct PublishFile {
    pub name: Option<String>,
    pub topic_arn: Option<String>,
    pub figures: Option<Vec<UpdateType>>,
    pub every: Option<Span>,
    pub window: Option<Span>,
    pub total_window: Option<Span>,
    pub titles: Option<u64>,
    pub min_viewers: Option<u64>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct UpkeepFile {
    pub enabled: Option<bool>,
    pub file_size: Option<Bytes>,
    pub io_per_minute: Option<Bytes>,
    pub grace: Option<Span>,
    pub bronze_days: Option<u64>,
    pub silver_days: Option<u64>,
    pub gold_days: Option<u64>,
    pub rejects_days: Option<u64>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct SqlFile {
    pub memory: Option<Bytes>,
    pub timeout: Option<Span>,
}

#[derive(Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct ArroyoFile {
    pub api: Option<String>,
    pub token: Option<String>,
    pub brokers: Option<String>,
    pub topics: Option<String>,
    pub parallelism: Option<u64>,
    pub checkpoint_every: Option<Span>,
    pub stop_within: Option<Span>,
}

impl fmt::Debug for ArroyoFile {
    /// The token is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArroyoFile").field("api", &self.api).finish_non_exhaustive()
    }
}

#[derive(Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct RelayFile {
    pub brokers: Option<String>,
    pub properties: Option<BTreeMap<String, String>>,
    pub ends_after: Option<Span>,
}

impl fmt::Debug for RelayFile {
    /// Properties hold passwords: only their names may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.properties.iter().flat_map(BTreeMap::keys).collect::<Vec<_>>();
        f.debug_struct("RelayFile")
            .field("brokers", &self.brokers)
            .field("properties", &names)
            .field("ends_after", &self.ends_after)
            .finish()
    }
}

#[derive(Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct CollectFile {
    pub brokers: Option<String>,
    pub properties: Option<BTreeMap<String, String>>,
    pub settle: Option<Span>,
    pub idle: Option<Span>,
}

impl fmt::Debug for CollectFile {
    /// Properties hold passwords: only their names may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.properties.iter().flat_map(BTreeMap::keys).collect::<Vec<_>>();
        f.debug_struct("CollectFile")
            .field("brokers", &self.brokers)
            .field("properties", &names)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub struct LogFile {
    pub format: Option<LogFormat>,
    pub level: Option<LogLevel>,
}

// ---- values with units ----

/// A length of time as written: `500ms`, `30s`, `5m`, `24h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Span(pub Duration);

/// A size as written: `512B`, `64KiB`, `32MiB`, `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Bytes(pub u64);

const SPAN_UNITS_MS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const BYTE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// `what it is: how to write it`; both halves end up in a complaint.
const SPAN_FORM: &str = "a duration: a number and its unit, such as 500ms, 30s, 5m, 24h or 7d";
const BYTES_FORM: &str = "a size: a number and its unit, such as 64KiB, 32MiB or 2GiB";

impl Span {
    pub fn parse(text: &str) -> Option<Span> {
        let ms = with_unit(text, &SPAN_UNITS_MS)?;
        Some(Span(Duration::from_millis(ms)))
    }
}

impl Bytes {
    pub fn parse(text: &str) -> Option<Bytes> {
        with_unit(text, &BYTE_UNITS).map(Bytes)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        write_with_unit(f, ms, &SPAN_UNITS_MS)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_with_unit(f, self.0, &BYTE_UNITS)
    }
}

/// In the largest unit that leaves no rest, as a person would write it.
fn write_with_unit(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let without_rest = |(_, unit): &&(&str, u64)| value >= *unit && value.is_multiple_of(*unit);
    let (name, unit) = units.iter().rfind(without_rest).unwrap_or(&units[0]);
    write!(f, "{}{name}", value / unit)
}

/// Number times unit; nothing if either is missing or the product does not fit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits_end].parse().ok()?;
    let unit_text = text[digits_end..].trim_start();
    let (_, unit) = units.iter().find(|(name, _)| *name == unit_text)?;
    number.checked_mul(*unit)
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        let text = String::deserialize(deserializer)?;
        Span::parse(&text).ok_or_else(|| invalid(&text, &SPAN_FORM))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        Bytes::parse(&text).ok_or_else(|| invalid(&text, &BYTES_FORM))
    }
}

fn invalid<E: de::Error>(text: &str, form: &&'static str) -> E {
    E::invalid_value(Unexpected::Str(text), form)
}

// ---- reading ----

/// One file's name and text, as handed to `read`.
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

/// Where each key was written, for what can only be judged after reading.
#[derive(Debug, Default)]
pub struct Places {
    known: HashMap<String, Place>,
}

impl Places {
    /// The place of `key` (`sql.memory`, `sources[1].path`), or of nothing but the key itself.
    pub fn of(&self, key: &str) -> Place {
        let unwritten = || Place {
            key: key.to_owned(),
            ..Place::default()
        };
        self.known.get(key).cloned().unwrap_or_else(unwritten)
    }
}

/// Reads files that override each other in the order given. `env` looks up `${NAME}`.
pub fn read(files: &[Source], env: &dyn Fn(&str) -> Option<String>) -> Result<(ConfigFile, Places), Vec<Complaint>> {
    let mut complaints = Vec::new();
    let mut root = Node::default();
    for file in files {
        match parse(file) {
            Ok(node) => root.overlay(node),
            Err(complaint) => complaints.push(complaint),
        }
    }
    root.set_keys(&mut Vec::new());
    root.fill(env, &mut complaints);
    let mut places = Places::default();
    root.list_places(&mut places.known);
    let config_file = read_tree(root, &mut complaints);
    match complaints.is_empty() {
        true => Ok((config_file, places)),
        false => Err(complaints),
    }
}

/// Reads the tree; what cannot be read is complained of and cut out, so that the rest is read too.
fn read_tree(mut root: Node, complaints: &mut Vec<Complaint>) -> ConfigFile {
    while complaints.len() < COMPLAINTS_MAX {
        let fault = match ConfigFile::deserialize(Reader { node: &root }) {
            Ok(config_file) => return config_file,
            Err(fault) => fault,
        };
        root.cut(&fault.path);
        complaints.push(fault.into_complaint());
    }
    ConfigFile::default()
}

// ---- the tree ----

#[derive(Debug, Default)]
enum Value {
    #[default]
    Null,
    Bool(bool),
    Integer(i64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Default)]
struct Node {
    value: Value,
    place: Place,
}

#[derive(Debug)]
struct Entry {
    key: String,
    key_place: Place,
    node: Node,
}

/// One step from a node to its child.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Index(usize),
}

impl Node {
    /// Lays a later file over this one: maps merge, everything else is replaced.
    fn overlay(&mut self, later: Node) {
        let later_place = later.place.clone();
        match (&mut self.value, later.value) {
            (Value::Map(entries), Value::Map(later_entries)) => {
                for later_entry in later_entries {
                    match entries.iter_mut().find(|e| e.key == later_entry.key) {
                        Some(entry) => {
                            entry.key_place = later_entry.key_place;
                            entry.node.overlay(later_entry.node);
                        }
                        None => entries.push(later_entry),
                    }
                }
            }
            // A section or a whole file without content overrides nothing.
            (Value::Map(_), Value::Null) => {}
            (value, later_value) => {
                *value = later_value;
                self.place = later_place;
            }
        }
    }

    /// Replaces every `${NAME}` in texts below by what `env` says.
    fn fill(&mut self, env: &dyn Fn(&str) -> Option<String>, complaints: &mut Vec<Complaint>) {
        match &mut self.value {
            Value::Text(text) if text.contains("${") => {
                match fill_text(text, env) {
                    Ok(filled) => *text = filled,
                    Err(unfilled) => {
                        complaints.push(unfilled.into_complaint(&self.place));
                        // Empty stands for "default", so this value causes no second complaint.
                        self.value = Value::Null;
                    }
                }
                self.place.from_environment = true;
            }
            Value::List(nodes) => nodes.iter_mut().for_each(|node| node.fill(env, complaints)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.node.fill(env, complaints);
                }
            }
            _ => {}
        }
    }

    /// Removes what `path` points at.
    fn cut(&mut self, path: &[Step]) {
        match (path, &mut self.value) {
            ([Step::Key(key)], Value::Map(entries)) => entries.retain(|e| e.key != *key),
            ([Step::Index(index)], Value::List(nodes)) if *index < nodes.len() => {
                nodes.remove(*index);
            }
            ([Step::Key(key), rest @ ..], Value::Map(entries)) => {
                if let Some(entry) = entries.iter_mut().find(|e| e.key == *key) {
                    entry.node.cut(rest);
                }
            }
            ([Step::Index(index), rest @ ..], Value::List(nodes)) => {
                if let Some(node) = nodes.get_mut(*index) {
                    node.cut(rest);
                }
            }
            // The root itself is wrong: nothing of it can be read.
            _ => self.value = Value::Null,
        }
    }

    fn set_file(&mut self, file: &Arc<str>) {
        self.place.file = Arc::clone(file);
        match &mut self.value {
            Value::List(nodes) => nodes.iter_mut().for_each(|node| node.set_file(file)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.key_place.file = Arc::clone(file);
                    entry.node.set_file(file);
                }
            }
            _ => {}
        }
    }

    /// Tells every place which key stands there.
    fn set_keys(&mut self, path: &mut Vec<Step>) {
        self.place.key = written_path(path);
        match &mut self.value {
            Value::List(nodes) => {
                for (index, node) in nodes.iter_mut().enumerate() {
                    path.push(Step::Index(index));
                    node.set_keys(path);
                    path.pop();
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    path.push(Step::Key(entry.key.clone()));
                    entry.node.set_keys(path);
                    path.pop();
                    entry.key_place.key = entry.node.place.key.clone();
                }
            }
            _ => {}
        }
    }

    fn list_places(&self, known: &mut HashMap<String, Place>) {
        known.insert(self.place.key.clone(), self.place.clone());
        match &self.value {
            Value::List(nodes) => nodes.iter().for_each(|node| node.list_places(known)),
            Value::Map(entries) => entries.iter().for_each(|e| e.node.list_places(known)),
            _ => {}
        }
    }

    fn depth(&self) -> usize {
        let deepest_child = match &self.value {
            Value::List(nodes) => nodes.iter().map(Node::depth).max(),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.depth()).max(),
            _ => None,
        };
        1 + deepest_child.unwrap_or(0)
    }

    /// What this is, for "... is not a number". Never the text that the environment gave.
    fn describe(&self) -> String {
        match &self.value {
            Value::Text(_) if self.place.from_environment => "a value from the environment".to_owned(),
            Value::Text(text) => format!("the text {text:?}"),
            Value::Integer(number) => format!("the number {number}"),
            Value::Bool(flag) => format!("{flag}"),
            Value::Null => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

fn parse(file: &Source) -> Result<Node, Complaint> {
    let name: Arc<str> = Arc::from(file.name);
    let parsed: Result<Spanned<Node>, _> = serde_saphyr::from_str(file.text);
    let mut node = match parsed {
        Ok(spanned) => placed(spanned),
        Err(error) => return Err(not_yaml(&error, name)),
    };
    node.set_file(&name);
    let is_settings = matches!(node.value, Value::Map(_) | Value::Null);
    if !is_settings {
        let message = format!("{} is no settings file", node.describe());
        let fix = "start from the output of `playhead settings`";
        return Err(Complaint::new(node.place, message, fix));
    }
    if node.depth() > DEPTH_MAX {
        let message = format!("nested deeper than {DEPTH_MAX} levels");
        let fix = "compare with the output of `playhead settings`";
        return Err(Complaint::new(node.place, message, fix));
    }
    Ok(node)
}

fn not_yaml(error: &serde_saphyr::Error, file: Arc<str>) -> Complaint {
    let location = error.location();
    // Without the snippet: lines of the file may hold what should not be repeated in a log.
    let full = error.without_snippet().to_string();
    let message = match full.rfind(" at line ") {
        Some(end) => &full[..end],
        None => &full,
    };
    let message = message.split(", set DuplicateKeyPolicy").next();
    let place = Place {
        file,
        line: location.map_or(0, |at| at.line()),
        column: location.map_or(0, |at| at.column()),
        ..Place::default()
    };
    let message = format!("not readable as YAML: {}", message.unwrap_or_default());
    Complaint::new(place, message, "correct the line named, or the one above it")
}

fn placed(spanned: Spanned<Node>) -> Node {
    let at = spanned.referenced;
    let mut node = spanned.value;
    node.place.line = at.line();
    node.place.column = at.column();
    node
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let value = deserializer.deserialize_any(ValueVisitor)?;
        Ok(Node {
            value,
            place: Place::default(),
        })
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or_else(|_| Value::Text(number.to_string()), Value::Integer))
    }

    /// No setting is a fraction, so one can only be a text without quotes (a region `1.5`).
    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Text(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Node>>()? {
            nodes.push(placed(item));
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = pairs.next_key::<Spanned<String>>()? {
            let node = placed(pairs.next_value::<Spanned<Node>>()?);
            let key_place = Place {
                line: key.referenced.line(),
                column: key.referenced.column(),
                ..Place::default()
            };
            entries.push(Entry {
                key: key.value,
                key_place,
                node,
            });
        }
        Ok(Value::Map(entries))
    }
}

// ---- ${NAME} ----

#[derive(Debug, PartialEq)]
enum Unfilled {
    /// `${` without `}`, or a name that is no name.
    Malformed,
    Missing(String),
}

impl Unfilled {
    fn into_complaint(self, place: &Place) -> Complaint {
        match self {
            Unfilled::Malformed => Complaint::new(
                place.clone(),
                "a ${ that no name and } follow",
                "write ${NAME}, with letters, digits and _ in the name",
            ),
            Unfilled::Missing(name) => Complaint::new(
                place.clone(),
                format!("the environment variable {name} is not set"),
                format!("set {name} before starting playhead, or remove this line"),
            ),
        }
    }
}

fn fill_text(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Unfilled> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        filled.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let (name, tail) = after.split_once('}').ok_or(Unfilled::Malformed)?;
        if !is_variable_name(name) {
            return Err(Unfilled::Malformed);
        }
        filled.push_str(&env(name).ok_or_else(|| Unfilled::Missing(name.to_owned()))?);
        rest = tail;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_variable_name(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

// ---- the tree read into ConfigFile ----

/// Why the tree could not be read, and where.
#[derive(Debug)]
struct Fault {
    what: What,
    fix: String,
    place: Option<Place>,
    /// From the root to what is wrong.
    path: Vec<Step>,
}

#[derive(Debug)]
enum What {
    Said(String),
    /// The value is not this; what it is instead is added once its node is known.
    IsNot(String),
}

impl Fault {
    fn new(what: What, fix: impl Into<String>) -> Fault {
        Fault {
            what,
            fix: fix.into(),
            place: None,
            path: Vec::new(),
        }
    }

    /// `form` is `what is wanted: how to write it`.
    fn is_not(form: &str) -> Fault {
        let (wanted, how) = form.split_once(": ").unwrap_or((form, form));
        Fault::new(What::IsNot(wanted.to_owned()), format!("write {how}"))
    }

    /// Records that this fault was found in the value of `node`, or below it.
    fn in_value(mut self, step: Step, node: &Node) -> Fault {
        if let What::IsNot(wanted) = &self.what {
            self.what = What::Said(format!("{} is not {wanted}", node.describe()));
        }
        self.path.insert(0, step);
        self.place.get_or_insert_with(|| node.place.clone());
        self
    }

    fn in_key(mut self, entry: &Entry) -> Fault {
        self.path.insert(0, Step::Key(entry.key.clone()));
        self.place.get_or_insert_with(|| entry.key_place.clone());
        self
    }

    fn into_complaint(self) -> Complaint {
        let message = self.to_string();
        Complaint::new(self.place.unwrap_or_default(), message, self.fix)
    }
}

fn written_path(path: &[Step]) -> String {
    let mut written = String::new();
    for step in path {
        match step {
            Step::Key(key) if written.is_empty() => written.push_str(key),
            Step::Key(key) => {
                written.push('.');
                written.push_str(key);
            }
            Step::Index(index) => written.push_str(&format!("[{index}]")),
        }
    }
    written
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Said(message) => f.write_str(message),
            What::IsNot(wanted) => write!(f, "not {wanted}"),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Fault {
        let fix = "compare with the output of `playhead settings`";
        Fault::new(What::Said(message.to_string()), fix)
    }

    fn invalid_type(_found: Unexpected, wanted: &dyn Expected) -> Fault {
        Fault::is_not(&wanted.to_string())
    }

    fn invalid_value(_found: Unexpected, wanted: &dyn Expected) -> Fault {
        Fault::is_not(&wanted.to_string())
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Fault {
        let choices = expected.join(", ");
        let what = What::IsNot(format!("one of {choices}"));
        match nearest(variant, expected) {
            Some(known) => Fault::new(what, format!("did you mean {known:?}?")),
            None => Fault::new(what, format!("write one of {choices}")),
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Fault {
        let what = What::Said(format!("unknown key {field:?}"));
        match nearest(field, expected) {
            Some(known) => Fault::new(what, format!("did you mean {known:?}?")),
            None => Fault::new(what, format!("the keys here are: {}", expected.join(", "))),
        }
    }

    fn missing_field(field: &'static str) -> Fault {
        let what = What::Said(format!("the key {field:?} is missing"));
        Fault::new(what, format!("add `{field}: ...`"))
    }
}

/// The known word that `word` most likely misspells.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), *candidate))
        .filter(|(likeness, _)| *likeness >= MISSPELLING_LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

struct Reader<'a> {
    node: &'a Node,
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// The environment knows only texts, so a text that reads as a flag is one.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Text(text) if text == "true" || text == "false" => visitor.visit_bool(text == "true"),
            _ => Err(Fault::is_not("a flag: true or false")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let number = match &self.node.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => visitor.visit_u64(number),
            None => Err(Fault::is_not("a whole number: digits only, such as 200000")),
        }
    }

    /// `name: 17` means the text "17".
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_string(number.to_string()),
            Value::Bool(flag) => visitor.visit_string(flag.to_string()),
            _ => Err(Fault::is_not("a text: one value after the key")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_string(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::List(nodes) => visitor.visit_seq(Items { nodes, next: 0 }),
            _ => Err(Fault::is_not("a list: one `- ...` line for each item")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Map(entries) => visitor.visit_map(Pairs { entries, next: 0 }),
            Value::Null => visitor.visit_map(Pairs { entries: &[], next: 0 }),
            _ => Err(Fault::is_not("a section: `key: value` lines, indented, below it")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        choices: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(Fault::is_not(&format!("one of {}", choices.join(", ")))),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct identifier ignored_any
    }
}

struct Pairs<'a> {
    entries: &'a [Entry],
    next: usize,
}

impl<'de> MapAccess<'de> for Pairs<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(entry) = self.entries.get(self.next) else {
            return Ok(None);
        };
        let key = StrDeserializer::<Fault>::new(&entry.key);
        seed.deserialize(key).map(Some).map_err(|fault| fault.in_key(entry))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let entry = &self.entries[self.next];
        self.next += 1;
        seed.deserialize(Reader { node: &entry.node })
            .map_err(|fault| fault.in_value(Step::Key(entry.key.clone()), &entry.node))
    }
}

struct Items<'a> {
    nodes: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let index = self.next;
        let Some(node) = self.nodes.get(index) else {
            return Ok(None);
        };
        self.next += 1;
        seed.deserialize(Reader { node })
            .map(Some)
            .map_err(|fault| fault.in_value(Step::Index(index), node))
    }
}
