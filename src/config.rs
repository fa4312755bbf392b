//! The settings as resolved: every value present, checked, in the type its user needs.
//!
//! The shell calls `load` once at start and passes the parts down by value; nothing below the shell
//! imports this file. `config/file.rs` reads what was written, this file decides what it means;
//! `config/reference.yaml` is what `playhead settings` prints.
//!
//! Invariant: after `load` no value is left to be decided later.
//! Invariant: the environment is read here and nowhere else.
//! Invariant: a secret comes from the environment and is never shown, not even by `{:?}`.

mod arroyo;
mod cdn;
pub mod file;
mod page;
mod postgres;
mod publish;
mod sources;

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use crate::lake::upkeep::{Retention, UpkeepSettings};
use crate::publish::PublishSettings;
pub use arroyo::{Arroyo, Collect, Relay, Role};
pub use cdn::Cdn;
use file::{ConfigFile, Places, Source};
pub use page::{Live, Page};
pub use postgres::{Postgres, Tls};
pub use sources::{HTTP, Kafka, Kinesis, S3, SourceConfig, SourceFormat, SourceKind, StartFrom};

/// Every key, its default and one sentence; a test keeps it true.
pub const REFERENCE: &str = include_str!("config/reference.yaml");

/// The key file inside the data folder.
const KEY_FILE: &str = "playhead.key";
const PIPELINES_FOLDER: &str = "pipelines";
const ALERTS_FOLDER: &str = "alerts";
const DASHBOARDS_FOLDER: &str = "dashboards";

/// A batch must hold at least one record of the largest size (1 MiB); above 1 GiB it no longer
/// fits small machines.
const BATCH_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 30;
/// Above ten million records a batch's rows no longer fit small machines.
const BATCH_RECORDS: RangeInclusive<u64> = 1..=10_000_000;
/// Faster than 100 ms makes more small files than any compaction clears; slower than 10 min is an
/// outage.
const COMMIT_EVERY: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);
/// Faster than 10 ms is a busy loop.
const POLL_EVERY: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);
/// Loopback only: who listens to the world says so (ARCHITECTURE.md, promise 8).
const HTTP_LISTEN: &str = "127.0.0.1:8480";
/// Below 1 KiB not even one record fits; above 64 MiB one request holds what many should share.
const HTTP_BODY: RangeInclusive<u64> = 1 << 10..=64 << 20;
/// As many as the splitter of bodies takes.
const HTTP_RECORDS: RangeInclusive<u64> = 1..=10_000;
/// A connection costs a descriptor and some kilobytes.
const HTTP_CONNECTIONS: RangeInclusive<u64> = 1..=100_000;
/// Room for one body of the largest size, packed and unpacked.
const HTTP_MEMORY: RangeInclusive<u64> = 16 << 20..=64 << 30;
const HTTP_SPOOL: RangeInclusive<u64> = 1 << 20..=1 << 40;
/// CDN logs come up to 24 h late; what is later reopens its window.
const LATENESS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
const UPKEEP_FILE: RangeInclusive<u64> = 1 << 20..=4 << 30;
const UPKEEP_IO: RangeInclusive<u64> = 1 << 20..=1 << 40;
/// Longest: what the log remembers of removed files. Shortest: no commit takes longer.
const UPKEEP_GRACE: RangeInclusive<Duration> = Duration::from_secs(600)..=Duration::from_secs(86_400);
/// Below 16 MiB not even one sort runs; the upper end only catches slips of the unit.
const SQL_MEMORY: RangeInclusive<u64> = 16 << 20..=1 << 40;
const SQL_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

/// All settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which part of a cluster this daemon is.
    pub role: Role,
    /// The daemon's own folder; the tables lie in it unless `lake` says otherwise.
    pub data: PathBuf,
    pub lake: Option<RemoteLake>,
    pub sources: Vec<SourceConfig>,
    pub http: Http,
    pub postgres: Postgres,
    pub page: Page,
    pub ingest: Ingest,
    pub privacy: Privacy,
    pub network: Network,
    pub devices: Devices,
    pub cdn: Cdn,
    pub windows: Windows,
    pub pipelines: Folder,
    pub alerts: Alerts,
    pub dashboards: Folder,
    pub sns: Sns,
    pub publish: Vec<PublishSettings>,
    pub upkeep: Upkeep,
    pub sql: Sql,
    pub arroyo: Arroyo,
    pub relay: Relay,
    pub collect: Collect,
    pub log: Log,
}

/// Care of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upkeep {
    /// The daemon does it; otherwise only `playhead upkeep`.
    pub enabled: bool,
    pub settings: UpkeepSettings,
}

/// Tables on an object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLake {
    pub url: Url,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
}

/// The receiver of player events over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// `None`: nothing listens.
    pub listen: Option<SocketAddr>,
    /// Where health and metrics are served; `None`: where events are posted.
    pub status: Option<SocketAddr>,
    /// False: senders are told to stop for the rest of their session.
    pub accepting: bool,
    pub allowed_origins: Vec<String>,
    pub trusted_proxies: Vec<String>,
    pub correct_clocks: bool,
    pub body_bytes: u64,
    pub body_unpacked_bytes: u64,
    pub body_records: u64,
    pub connections: u64,
    pub memory_bytes: u64,
    pub spool_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    pub batch_bytes: u64,
    pub batch_records: u64,
    pub commit_every: Duration,
    pub poll_every: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privacy {
    pub identity: Identity,
    pub key: PrivacyKey,
}

/// What happens to user and device ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    #[default]
    Pseudonym,
    Keep,
}

/// Where the pseudonym key comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum PrivacyKey {
    Given([u8; 32]),
    /// Read from this file; the shell generates it (mode 0600) where it does not exist.
    File(PathBuf),
}

impl fmt::Debug for PrivacyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrivacyKey::Given(_) => f.write_str("Given(...)"),
            PrivacyKey::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// MaxMind databases; `None` means that this kind of look-up is not made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    pub city: Option<PathBuf>,
    pub asn: Option<PathBuf>,
    pub isp: Option<PathBuf>,
}

/// What tells devices, browsers and crawlers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Devices {
    /// uap-core's rules; `None`: what is compiled in.
    pub user_agents: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    pub lateness: Duration,
}

/// A folder of files, or the copies compiled into the binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folder {
    Path(PathBuf),
    BuiltIn,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alerts {
    pub folder: Folder,
    /// False: alerts are evaluated and recorded, and nothing is sent.
    pub deliver: bool,
}

/// `None` leaves the choice to the AWS SDK.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sns {
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql {
    pub memory_bytes: u64,
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    pub format: LogFormat,
    pub level: LogLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl Default for Config {
    /// What no file at all gives, where neither of the default folders exists.
    fn default() -> Config {
        let mut checks = Checks::new(Places::default());
        resolve(ConfigFile::default(), &mut checks, &|_| false)
    }
}

/// Something wrong in what a user wrote: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{message}; {fix}")]
pub struct Complaint {
    pub place: Place,
    pub message: String,
    pub fix: String,
}

impl Complaint {
    fn new(place: Place, message: impl Into<String>, fix: impl Into<String>) -> Complaint {
        Complaint {
            place,
            message: message.into(),
            fix: fix.into(),
        }
    }
}

/// A place in a settings file. Line and column count from 1; 0 means that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    pub file: Arc<str>,
    pub line: u64,
    pub column: u64,
    /// Key path such as `ingest.batch_bytes` or `sources[0].path`.
    pub key: String,
    /// The environment supplied the value: it may be a secret and is not shown.
    pub from_environment: bool,
}

impl fmt::Display for Place {
    /// `file:line:column: key: `, leaving out what there is not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:{}:", self.line, self.column)?;
            }
            f.write_str(" ")?;
        }
        match self.key.is_empty() {
            true => Ok(()),
            false => write!(f, "{}: ", self.key),
        }
    }
}

/// Reads the files in `paths`, each overriding those before it; no file at all gives the defaults.
///
/// `env` looks up `${NAME}` (in the binary: `process_env`). `is_folder` tells whether the default
/// folders of pipelines, alerts and dashboards are there (in the binary: `Path::is_dir`).
pub fn load(paths: &[PathBuf], env: &dyn Fn(&str) -> Option<String>, is_folder: &dyn Fn(&Path) -> bool) -> Result<Config, Vec<Complaint>> {
    let mut complaints = Vec::new();
    let mut texts = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => texts.push((name, text)),
            Err(error) => complaints.push(unreadable(name, &error)),
        }
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    parse(&texts, env, is_folder)
}

fn unreadable(name: String, error: &std::io::Error) -> Complaint {
    let place = Place {
        file: Arc::from(name),
        ..Place::default()
    };
    let message = format!("cannot read this settings file: {error}");
    Complaint::new(place, message, "check the path and its permissions")
}

/// The same as `load` for texts already read: pairs of file name and text.
pub fn parse(
    texts: &[(String, String)],
    env: &dyn Fn(&str) -> Option<String>,
    is_folder: &dyn Fn(&Path) -> bool,
) -> Result<Config, Vec<Complaint>> {
    let sources: Vec<Source> = texts.iter().map(|(name, text)| Source { name, text }).collect();
    let (config_file, places) = file::read(&sources, env)?;
    let mut checks = Checks::new(places);
    let config = resolve(config_file, &mut checks, is_folder);
    match checks.complaints.is_empty() {
        true => Ok(config),
        false => Err(checks.complaints),
    }
}

/// Looks up a variable of this process's environment; one that is not Unicode counts as not set.
// The one place where the environment is read.
#[allow(clippy::disallowed_methods)]
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn resolve(written: ConfigFile, checks: &mut Checks, is_folder: &dyn Fn(&Path) -> bool) -> Config {
    let data = written.data.unwrap_or_else(|| PathBuf::from("./lake"));
    let key_file = data.join(KEY_FILE);
    Config {
        lake: lake(written.lake, checks),
        sources: sources::sources(written.sources, checks),
        http: http(written.http, checks),
        postgres: postgres::postgres(written.postgres, checks),
        page: page::page(written.page, checks),
        ingest: ingest(written.ingest, checks),
        privacy: privacy(written.privacy, key_file, checks),
        network: Network {
            city: written.network.city,
            asn: written.network.asn,
            isp: written.network.isp,
        },
        devices: Devices {
            user_agents: written.devices.user_agents,
        },
        cdn: cdn::cdn(written.cdn, checks),
        windows: Windows {
            lateness: checks.span("windows.lateness", written.windows.lateness, Duration::from_secs(60), LATENESS),
        },
        pipelines: folder(written.pipelines.folder, PIPELINES_FOLDER, is_folder),
        alerts: Alerts {
            folder: folder(written.alerts.folder, ALERTS_FOLDER, is_folder),
            deliver: written.alerts.deliver.unwrap_or(true),
        },
        dashboards: folder(written.dashboards.folder, DASHBOARDS_FOLDER, is_folder),
        sns: sns(written.sns, checks),
        publish: publish::publish(written.publish, checks),
        upkeep: upkeep(&written.upkeep, checks),
        sql: Sql {
            memory_bytes: checks.bytes("sql.memory", written.sql.memory, 512 << 20, SQL_MEMORY),
            timeout: checks.span("sql.timeout", written.sql.timeout, Duration::from_secs(30), SQL_TIMEOUT),
        },
        arroyo: arroyo::arroyo(written.arroyo, checks),
        relay: arroyo::relay(written.relay, checks),
        collect: arroyo::collect(written.collect, checks),
        role: written.role.unwrap_or_default(),
        log: Log {
            format: written.log.format.unwrap_or_default(),
            level: written.log.level.unwrap_or_default(),
        },
        data,
    }
}

fn http(written: file::HttpFile, checks: &mut Checks) -> Http {
    let listen = written.listen.unwrap_or_else(|| HTTP_LISTEN.to_owned());
    let address = match listen.as_str() {
        // YAML reads a bare `off` as false.
        "off" | "false" => None,
        text => socket_address(text, "http.listen", checks),
    };
    let status = written.status.and_then(|text| socket_address(&text, "http.status", checks));
    let count = |count: &u64| count.to_string();
    Http {
        listen: address,
        status,
        accepting: written.accepting.unwrap_or(true),
        allowed_origins: written.allowed_origins.unwrap_or_else(|| vec!["*".to_owned()]),
        trusted_proxies: written.trusted_proxies.unwrap_or_default(),
        correct_clocks: written.correct_clocks.unwrap_or(true),
        body_bytes: checks.bytes("http.body", written.body, 1 << 20, HTTP_BODY),
        body_unpacked_bytes: checks.bytes("http.body_unpacked", written.body_unpacked, 8 << 20, HTTP_BODY),
        body_records: checks.within("http.body_records", written.body_records.unwrap_or(5_000), HTTP_RECORDS, count),
        connections: checks.within("http.connections", written.connections.unwrap_or(1_024), HTTP_CONNECTIONS, count),
        memory_bytes: checks.bytes("http.memory", written.memory, 128 << 20, HTTP_MEMORY),
        spool_bytes: checks.bytes("http.spool", written.spool, 4 << 30, HTTP_SPOOL),
    }
}

fn socket_address(text: &str, key: &str, checks: &mut Checks) -> Option<SocketAddr> {
    let parsed = text.parse::<SocketAddr>();
    if parsed.is_err() {
        let fix = match key {
            "http.listen" => "write an address and a port, such as 127.0.0.1:8480 or [::]:8480, or off",
            "postgres.listen" => "write an address and a port, such as 127.0.0.1:8432 or [::1]:8432, or off",
            _ => "write an address and a port, such as 127.0.0.1:8481 or [::]:8481",
        };
        checks.complain(key, format!("{text:?} is no address to listen on"), fix);
    }
    parsed.ok()
}

fn ingest(written: file::IngestFile, checks: &mut Checks) -> Ingest {
    Ingest {
        batch_bytes: checks.bytes("ingest.batch_bytes", written.batch_bytes, 32 << 20, BATCH_BYTES),
        batch_records: checks.within(
            "ingest.batch_records",
            written.batch_records.unwrap_or(50_000),
            BATCH_RECORDS,
            |count| count.to_string(),
        ),
        commit_every: checks.span("ingest.commit_every", written.commit_every, Duration::from_secs(5), COMMIT_EVERY),
        poll_every: checks.span("ingest.poll_every", written.poll_every, Duration::from_secs(1), POLL_EVERY),
    }
}

fn privacy(written: file::PrivacyFile, key_file: PathBuf, checks: &mut Checks) -> Privacy {
    const KEY: &str = "privacy.key";
    let identity = written.identity.unwrap_or_default();
    let Some(text) = written.key else {
        let key = PrivacyKey::File(key_file);
        return Privacy { identity, key };
    };
    if !checks.places.of(KEY).from_environment {
        let message = "a secret is written into the settings file";
        let fix = "put it into an environment variable and write `key: ${NAME}`";
        checks.complain(KEY, message, fix);
    }
    let key = match key_bytes(&text) {
        Some(bytes) => PrivacyKey::Given(bytes),
        None => {
            let fix = "make one with `openssl rand -hex 32`";
            checks.complain(KEY, "the key is not 64 hex digits", fix);
            PrivacyKey::File(key_file)
        }
    };
    Privacy { identity, key }
}

fn key_bytes(text: &str) -> Option<[u8; 32]> {
    let digits = text.trim().as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(bytes)
}

fn folder(written: Option<PathBuf>, default_name: &str, is_folder: &dyn Fn(&Path) -> bool) -> Folder {
    let default_folder = Path::new(default_name);
    match written {
        Some(path) => Folder::Path(path),
        None if is_folder(default_folder) => Folder::Path(default_folder.to_owned()),
        None => Folder::BuiltIn,
    }
}

fn lake(written: file::LakeFile, checks: &mut Checks) -> Option<RemoteLake> {
    check_endpoint("lake.endpoint_url", written.endpoint_url.as_deref(), checks);
    let text = written.url?;
    let url = Url::parse(&text)
        .ok()
        .filter(|url| url.scheme() == "s3" && url.host_str().is_some());
    if url.is_none() {
        let fix = "write it as s3://bucket/prefix; a folder of this machine is set with `data`";
        checks.complain("lake.url", format!("{text:?} is no place for tables"), fix);
    }
    Some(RemoteLake {
        url: url?,
        endpoint_url: written.endpoint_url,
        region: written.region,
    })
}

fn upkeep(written: &file::UpkeepFile, checks: &mut Checks) -> Upkeep {
    let usual = UpkeepSettings::default();
    let grace_ms = u64::try_from(usual.removed_grace_ms).unwrap_or(0);
    let grace = checks.span("upkeep.grace", written.grace, Duration::from_millis(grace_ms), UPKEEP_GRACE);
    let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    // Nought: for ever.
    let days = |written: Option<u64>, usual: Option<u32>| match written {
        None => usual,
        Some(0) => None,
        Some(days) => Some(u32::try_from(days).unwrap_or(u32::MAX)),
    };
    Upkeep {
        enabled: written.enabled.unwrap_or(true),
        settings: UpkeepSettings {
            target_bytes: checks.bytes("upkeep.file_size", written.file_size, usual.target_bytes, UPKEEP_FILE),
            io_bytes_per_minute: checks.bytes("upkeep.io_per_minute", written.io_per_minute, usual.io_bytes_per_minute, UPKEEP_IO),
            orphan_grace_ms: grace_ms,
            removed_grace_ms: grace_ms,
            retention: Retention {
                bronze_days: days(written.bronze_days, usual.retention.bronze_days),
                silver_days: days(written.silver_days, usual.retention.silver_days),
                gold_days: days(written.gold_days, usual.retention.gold_days),
                rejects_days: days(written.rejects_days, usual.retention.rejects_days),
            },
            ..usual
        },
    }
}

fn check_endpoint(key: &str, url: Option<&str>, checks: &mut Checks) {
    let is_http = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    if url.is_some_and(|url| !is_http(url)) {
        let fix = "write it with its scheme, such as http://localhost:4566";
        checks.complain(key, "this is no http address", fix);
    }
}

fn sns(written: file::SnsFile, checks: &mut Checks) -> Sns {
    check_endpoint("sns.endpoint_url", written.endpoint_url.as_deref(), checks);
    Sns {
        endpoint_url: written.endpoint_url,
        region: written.region,
    }
}

/// Collects complaints on the way from `ConfigFile` to `Config`.
struct Checks {
    places: Places,
    complaints: Vec<Complaint>,
}

impl Checks {
    fn new(places: Places) -> Checks {
        Checks {
            places,
            complaints: Vec::new(),
        }
    }

    fn complain(&mut self, key: &str, message: impl Into<String>, fix: impl Into<String>) {
        let place = self.places.of(key);
        self.complaints.push(Complaint::new(place, message, fix));
    }

    fn span(&mut self, key: &str, written: Option<file::Span>, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let value = written.map_or(default, |span| span.0);
        self.within(key, value, range, |span| file::Span(*span).to_string())
    }

    fn bytes(&mut self, key: &str, written: Option<file::Bytes>, default: u64, range: RangeInclusive<u64>) -> u64 {
        let value = written.map_or(default, |bytes| bytes.0);
        self.within(key, value, range, |bytes| file::Bytes(*bytes).to_string())
    }

    fn within<T: PartialOrd>(&mut self, key: &str, value: T, range: RangeInclusive<T>, show: impl Fn(&T) -> String) -> T {
        if !range.contains(&value) {
            let (low, high) = (show(range.start()), show(range.end()));
            let message = "the value is out of range";
            self.complain(key, message, format!("write one from {low} to {high}"));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::file::SourceFile;
    use super::*;

    fn no_env(_: &str) -> Option<String> {
        None
    }

    fn read(texts: &[&str], env: &dyn Fn(&str) -> Option<String>) -> Result<Config, String> {
        let named: Vec<(String, String)> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| (format!("{}.yaml", index + 1), (*text).to_owned()))
            .collect();
        parse(&named, env, &|_| false).map_err(|complaints| {
            let lines: Vec<String> = complaints.iter().map(Complaint::to_string).collect();
            lines.join("\n")
        })
    }

    /// What the settings give, without an environment.
    fn settings(texts: &[&str]) -> Config {
        read(texts, &no_env).expect("the test's settings are right")
    }

    /// Every line that a wrong file is answered with.
    fn check_complaints(text: &str, expected: &[&str]) {
        let complaints = read(&[text], &no_env).expect_err("the test's settings are wrong");
        let lines: Vec<&str> = complaints.lines().collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn without_any_file_there_are_defaults() {
        assert_eq!(settings(&[]), Config::default());
        assert_eq!(settings(&[""]), Config::default());
        assert_eq!(settings(&["# nothing yet\n"]), Config::default());
        let config = Config::default();
        assert_eq!(config.sources[0].name, "incoming");
        assert_eq!(config.ingest.batch_bytes, 33_554_432);
        assert_eq!(config.windows.lateness, Duration::from_secs(60));
        let key = PrivacyKey::File("./lake/playhead.key".into());
        assert_eq!(config.privacy.key, key);
    }

    #[test]
    fn the_reference_is_exactly_the_defaults() {
        assert_eq!(settings(&[REFERENCE]), Config::default());
    }

    #[test]
    fn the_reference_mentions_every_key() {
        let one_source = ConfigFile {
            sources: Some(vec![SourceFile::default()]),
            ..ConfigFile::default()
        };
        let known = serde_json::to_value(one_source).unwrap();
        let written: serde_json::Value = serde_saphyr::from_str(REFERENCE).unwrap();
        assert_eq!(keys(&written, ""), keys(&known, ""));
        assert!(keys(&known, "").contains(&".sources.path".to_owned()));
    }

    fn keys(value: &serde_json::Value, path: &str) -> Vec<String> {
        use serde_json::Value;
        let mut found: Vec<String> = match value {
            Value::Object(map) => map.iter().flat_map(|(key, below)| keys(below, &format!("{path}.{key}"))).collect(),
            Value::Array(items) => items.iter().flat_map(|item| keys(item, path)).collect(),
            _ => vec![path.to_owned()],
        };
        found.sort();
        found
    }

    #[test]
    fn a_later_file_overrides_key_by_key() {
        let config = settings(&[
            "data: /srv/lake\ningest: {commit_every: 15s, batch_records: 10}\n",
            "ingest:\n  commit_every: 500ms\nlog:\nsql:\n  memory: 1GiB\n",
            "",
        ]);
        assert_eq!(config.data, PathBuf::from("/srv/lake"));
        assert_eq!(config.ingest.commit_every, Duration::from_millis(500));
        assert_eq!(config.ingest.batch_records, 10);
        assert_eq!(config.sql.memory_bytes, 1 << 30);
        let key = PrivacyKey::File("/srv/lake/playhead.key".into());
        assert_eq!(config.privacy.key, key);
    }

    #[test]
    fn a_later_list_replaces_the_earlier_one() {
        let config = settings(&[
            "sources: [{path: a}, {path: b}]",
            "sources: [{name: edge, path: /logs, format: cloudfront_v1}]",
        ]);
        let edge = SourceConfig {
            name: "edge".to_owned(),
            from: SourceKind::Files("/logs".into()),
            format: SourceFormat::CloudfrontV1,
            fields: None,
        };
        assert_eq!(config.sources, [edge]);
    }

    #[test]
    fn a_key_without_a_value_takes_back_an_override() {
        let config = settings(&["windows: {lateness: 5m}", "windows:\n  lateness:\n"]);
        assert_eq!(config.windows.lateness, Duration::from_secs(60));
    }

    #[test]
    fn units_are_understood() {
        let spans = [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000)];
        for (text, ms) in spans {
            assert_eq!(file::Span::parse(text).unwrap().0, Duration::from_millis(ms));
        }
        assert_eq!(file::Span::parse("7d").unwrap().0.as_secs(), 604_800);
        let sizes = [("512B", 512), ("64KiB", 65_536), ("64 MiB", 67_108_864)];
        for (text, bytes) in sizes {
            assert_eq!(file::Bytes::parse(text).unwrap().0, bytes);
        }
        for wrong in ["", "5", "s", "-5s", "5 parsecs", "99999999999999999999s", "1e3s"] {
            assert_eq!(file::Span::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(file::Bytes::parse("18446744073709551615GiB"), None);
    }

    #[test]
    fn every_mistake_is_named_at_once_with_its_place_and_fix() {
        check_complaints(
            "data: ./lake\ningest:\n  comit_every: 5s\n  batch_records: many\nlog: {level: inof}\nsources:\n  - name: x\nsql:\n  timeout: 30\n",
            &[
                "1.yaml:3:3: ingest.comit_every: unknown key \"comit_every\"; did you mean \"commit_every\"?",
                "1.yaml:4:18: ingest.batch_records: the text \"many\" is not a whole number; write digits only, such as 200000",
                "1.yaml:5:14: log.level: the text \"inof\" is not one of error, warn, info, debug, trace; did you mean \"info\"?",
                "1.yaml:9:12: sql.timeout: the number 30 is not a duration; write a number and its unit, such as 500ms, 30s, 5m, 24h or 7d",
            ],
        );
    }

    #[test]
    fn a_key_like_no_other_is_answered_with_the_list() {
        check_complaints(
            "windows: {zebra: 1}",
            &["1.yaml:1:11: windows.zebra: unknown key \"zebra\"; the keys here are: lateness"],
        );
    }

    #[test]
    fn values_out_of_range_are_named_after_reading() {
        check_complaints(
            "sql: {memory: 1MiB}\nwindows:\n  lateness: 30d\ningest: {batch_records: 0}",
            &[
                "1.yaml:4:25: ingest.batch_records: the value is out of range; write one from 1 to 10000000",
                "1.yaml:3:13: windows.lateness: the value is out of range; write one from 0ms to 1d",
                "1.yaml:1:15: sql.memory: the value is out of range; write one from 16MiB to 1024GiB",
            ],
        );
    }

    #[test]
    fn the_wrong_kind_of_value_is_named() {
        check_complaints(
            "ingest: 5\nsources: {path: x}\nalerts: {deliver: maybe, folder: [a]}",
            &[
                "1.yaml:1:9: ingest: the number 5 is not a section; write `key: value` lines, indented, below it",
                "1.yaml:2:10: sources: a map is not a list; write one `- ...` line for each item",
                "1.yaml:3:19: alerts.deliver: the text \"maybe\" is not a flag; write true or false",
                "1.yaml:3:34: alerts.folder: a list is not a text; write one value after the key",
            ],
        );
    }

    #[test]
    fn text_that_is_no_yaml_is_named_with_line_and_column() {
        check_complaints(
            "data: ./lake\nlog:\n\tlevel: info\n",
            &[
                "1.yaml:3:2: not readable as YAML: tabs disallowed within this context (block indentation); correct the line named, or the one above it",
            ],
        );
        check_complaints(
            "data: a\ndata: b\n",
            &["1.yaml:2:1: not readable as YAML: duplicate mapping key: data; correct the line named, or the one above it"],
        );
        check_complaints(
            "- just\n- a list\n",
            &["1.yaml:1:1: a list is no settings file; start from the output of `playhead settings`"],
        );
    }

    #[test]
    fn a_source_is_read_from_one_place() {
        check_complaints(
            "sources:\n  - name: x\n  - {path: a, kinesis: {stream: s}}\n  - {name: http, path: b}\n  - kafka: {brokers: b, topics: []}\n",
            &[
                "1.yaml:2:5: sources[0]: nothing says where this source is read from; add `path: ...`, or one of `kafka:`, `kinesis:` and `s3:`",
                "1.yaml:3:5: sources[1]: this source is read from two places; make two sources of it, each with a name",
                "1.yaml:4:5: sources[2]: the name \"http\" is the receiver's; give this source another `name: ...`",
                "1.yaml:5:12: sources[3].kafka: `topics` is empty; name topics, or a pattern such as ^player-events-.*; see `playhead settings` for an example",
                "1.yaml:5:5: sources[3]: this source has no name; add `name: ...`",
            ],
        );
    }

    #[test]
    fn sources_of_one_name_are_refused() {
        check_complaints(
            "sources:\n  - path: a/logs\n  - path: b/logs\n  - path: /\n",
            &[
                "1.yaml:3:5: sources[1]: a second source named \"logs\"; give one of them another `name: ...`",
                "1.yaml:4:5: sources[2]: this source has no name; add `name: ...`",
            ],
        );
    }

    #[test]
    fn the_environment_fills_in_texts_numbers_and_flags() {
        let env = |name: &str| match name {
            "ROOT" => Some("/srv".to_owned()),
            "RECORDS" => Some("77".to_owned()),
            "DELIVER" => Some("false".to_owned()),
            _ => None,
        };
        let text = "data: ${ROOT}/lake-${RECORDS}\ningest: {batch_records: '${RECORDS}'}\nalerts: {deliver: '${DELIVER}'}";
        let config = read(&[text], &env).unwrap();
        assert_eq!(config.data, PathBuf::from("/srv/lake-77"));
        assert_eq!(config.ingest.batch_records, 77);
        assert!(!config.alerts.deliver);
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        check_complaints(
            "data: ${LAKE_ROOT}/x\nprivacy: {key: '${oops'}\n",
            &[
                "1.yaml:1:7: data: the environment variable LAKE_ROOT is not set; set LAKE_ROOT before starting playhead, or remove this line",
                "1.yaml:2:16: privacy.key: a ${ that no name and } follow; write ${NAME}, with letters, digits and _ in the name",
            ],
        );
    }

    #[test]
    fn a_variable_overridden_by_a_later_file_need_not_be_set() {
        let config = settings(&["data: ${LAKE_ROOT}", "data: here"]);
        assert_eq!(config.data, PathBuf::from("here"));
    }

    #[test]
    fn a_key_comes_from_the_environment_and_is_shown_nowhere() {
        let hex = "00ff".repeat(16);
        let env = |name: &str| (name == "KEY").then(|| hex.clone());
        let config = read(&["privacy: {key: '${KEY}'}"], &env).unwrap();
        let PrivacyKey::Given(bytes) = &config.privacy.key else {
            panic!("a key was given");
        };
        assert_eq!(bytes[..4], [0x00, 0xff, 0x00, 0xff]);
        assert!(format!("{config:?}").contains("Given(...)"));
    }

    #[test]
    fn a_wrong_key_is_refused_without_repeating_it() {
        let env = |_: &str| Some("hunter2".to_owned());
        let text = "privacy: {key: '${KEY}', identity: '${KEY}'}\nwindows: {lateness: '${KEY}'}";
        let complaints = read(&[text], &env).unwrap_err();
        assert!(!complaints.contains("hunter2"), "{complaints}");
        assert_eq!(complaints.lines().count(), 2);
        let complaints = read(&["privacy: {key: '${KEY}'}"], &env).unwrap_err();
        assert_eq!(
            complaints,
            "1.yaml:1:16: privacy.key: the key is not 64 hex digits; make one with `openssl rand -hex 32`"
        );
    }

    #[test]
    fn a_key_written_into_the_file_is_refused() {
        check_complaints(
            &format!("privacy:\n  key: {}\n", "ab".repeat(32)),
            &[
                "1.yaml:2:8: privacy.key: a secret is written into the settings file; put it into an environment variable and write `key: ${NAME}`",
            ],
        );
    }

    #[test]
    fn default_folders_count_only_where_they_exist() {
        let only_alerts = |path: &Path| path == Path::new("alerts");
        let config = parse(&[], &no_env, &only_alerts).unwrap();
        assert_eq!(config.pipelines, Folder::BuiltIn);
        assert_eq!(config.alerts.folder, Folder::Path("alerts".into()));
        assert_eq!(config.dashboards, Folder::BuiltIn);
        let config = settings(&["pipelines: {folder: my/sql}"]);
        assert_eq!(config.pipelines, Folder::Path("my/sql".into()));
        assert_eq!(settings(&["dashboards: {folder: mine}"]).dashboards, Folder::Path("mine".into()));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let missing = PathBuf::from("/nowhere/playhead.yaml");
        let complaints = load(&[missing], &no_env, &|_| false).unwrap_err();
        let line = complaints[0].to_string();
        let start = "/nowhere/playhead.yaml: cannot read this settings file: ";
        assert!(line.starts_with(start), "{line}");
    }
}
