//! Builds every part from the settings and runs them: once over given files, or for as long as the
//! process lives.
//!
//! Both ways are the same loop over the same parts. While one batch is being committed, the next is
//! read and decoded on a thread of its own.
//!
//! Invariant: at most one batch is being committed and one is in hand; the source is not read
//! further than that.

mod http_intake;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch as signal};

use crate::alert::rule::{Catalogue, RuleSet, parse_rules};
use crate::builtin;
use crate::clock::Clock;
use crate::config::{Config, Folder, Identity, PrivacyKey, SourceFormat, process_env};
use crate::enrich::Enricher;
use crate::enrich::network::{NetworkComplaint, NetworkDatabases};
use crate::event::decode::Format;
use crate::ingest::intake::{Batch, Intake};
use crate::ingest::{Counts, Ingest};
use crate::lake::Lake;
use crate::lake::tables::TableSpec;
use crate::notify::{Notifier, SnsDefaults, Terminal};
use crate::privacy::{IdentityPolicy, Privacy};
use crate::rollup::{Rollup, table_spec};
use crate::source::BatchLimits;
use crate::source::files::{Discovered, FileSource, FilesError, FilesSpec};
use crate::sql::pipeline::{Pipeline, parse_all};
use crate::sql::{QueryLimits, empty_gold};
use crate::telemetry::chain;
use crate::watch::Watch;
use http_intake::HttpIntake;

/// How often the network databases are looked at for a newer file.
const DATABASE_CHECK_EVERY: Duration = Duration::from_secs(60);

/// How often the alert folder is looked at for an edit.
const ALERTS_CHECK_EVERY: Duration = Duration::from_secs(1);

/// A list of things that a person has to mend in settings, pipelines or alerts.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Complaints(pub Vec<String>);

/// What came of an `ingest`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Summary {
    #[serde(flatten)]
    pub counts: Counts,
    pub epochs: u64,
    pub files: u64,
    /// Files that could not be read, each with its reason.
    pub unreadable: Vec<String>,
    pub gold_windows: u64,
    pub open_sessions: u64,
    pub alerts_firing: u64,
    pub alerts_undelivered: u64,
    pub seconds: f64,
}

/// Told after each epoch.
pub trait Progress: Send {
    fn epoch(&mut self, total: Counts, bytes_done: u64, bytes_all: u64);
}

/// Everything that carries an epoch.
struct Parts {
    ingest: Ingest,
    rollup: Rollup,
    watch: Watch,
    clock: Arc<dyn Clock>,
}

/// Pipelines of the folder that the settings name.
pub fn pipelines(config: &Config) -> Result<Vec<Pipeline>, Complaints> {
    let files = folder_files(&config.pipelines, "sql", &builtin::PIPELINES)?;
    parse_all(&files).map_err(|complaints| Complaints(complaints.iter().map(ToString::to_string).collect()))
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
    Ok(Checked { pipelines, rules })
}

/// Rules of the folder that the settings name, checked against the gold tables.
pub async fn rules(config: &Config, specs: &[TableSpec]) -> Result<RuleSet, Complaints> {
    let files = alert_files(config)?;
    let rules = parse_rules(&files, &GoldCatalogue(specs), &process_env)
        .map_err(|complaints| Complaints(complaints.iter().map(ToString::to_string).collect()))?;
    let context = empty_gold(specs).map_err(|error| Complaints(vec![error.to_string()]))?;
    let mut complaints = Vec::new();
    for rule in &rules.rules {
        let texts = [Some(rule.sql(0, 1)), rule.history_sql(0)];
        for text in texts.into_iter().flatten() {
            if let Err(error) = context.sql(&text).await {
                complaints.push(format!(
                    "rule `{}`: its expressions do not run on {}: {error}",
                    rule.uid(),
                    rule.from()
                ));
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

struct GoldCatalogue<'a>(&'a [TableSpec]);

impl Catalogue for GoldCatalogue<'_> {
    fn columns(&self, table: &str) -> Option<Vec<String>> {
        let spec = self.0.iter().find(|spec| spec.name == table)?;
        Some(spec.schema.fields().iter().map(|field| field.name().clone()).collect())
    }

    fn tables(&self) -> Vec<String> {
        self.0.iter().map(|spec| spec.name.clone()).collect()
    }
}

fn folder_files(folder: &Folder, ending: &str, shipped: &[(&str, &str)]) -> Result<Vec<(String, String)>, Complaints> {
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

impl Parts {
    async fn open(
        config: &Config,
        checked: Checked,
        clock: Arc<dyn Clock>,
        enricher: Arc<Enricher>,
        privacy: Arc<Privacy>,
        terminal: Terminal,
    ) -> anyhow::Result<Parts> {
        let Checked { pipelines, rules } = checked;
        let lake = Arc::new(Lake::open(&config.data).await?);
        let shards = std::thread::available_parallelism().map_or(1, usize::from);
        let ingest = Ingest::open(Arc::clone(&lake), enricher, privacy, shards).await?;
        let limits = query_limits(config);
        let lateness_ms = i64::try_from(config.windows.lateness.as_millis()).unwrap_or(i64::MAX);
        let rollup = Rollup::open(Arc::clone(&lake), pipelines.clone(), lateness_ms, limits.memory_bytes).await?;
        let defaults = SnsDefaults {
            endpoint_url: config.sns.endpoint_url.clone(),
            region: config.sns.region.clone(),
        };
        let notifier = config
            .alerts
            .deliver
            .then(|| Notifier::new(defaults, terminal, env!("CARGO_PKG_VERSION")));
        let watch = Watch::open(lake, rules, pipelines, limits, notifier).await?;
        Ok(Parts {
            ingest,
            rollup,
            watch,
            clock,
        })
    }

    /// One batch, all the way to alerts. Returns its counts and the windows it closed.
    async fn carry(&mut self, batch: Batch) -> anyhow::Result<(Counts, usize)> {
        let counts = self.ingest.commit_batch(batch, self.clock.now_ms()).await?;
        self.ingest.close_due_sessions().await?;
        let windows = self.close_windows(false).await?;
        Ok((counts, windows))
    }

    async fn close_windows(&mut self, flush: bool) -> anyhow::Result<usize> {
        let closed = self.rollup.run(self.ingest.watermark_ms(), flush).await?;
        self.watch.run(&closed.minutes, self.clock.now_ms()).await?;
        Ok(closed.minute_count())
    }
}

/// Reads the given files to their end, once.
///
/// # Errors
/// Settings, pipelines or alerts that are wrong; a path that does not exist; a lake that cannot be
/// written. A single unreadable file is named in the summary and does not stop the others.
pub async fn ingest_once(
    config: &Config,
    clock: Arc<dyn Clock>,
    terminal: Terminal,
    progress: &mut dyn Progress,
) -> anyhow::Result<Summary> {
    let started = std::time::Instant::now();
    let mut source = file_source(config, true);
    // All is checked before anything is written, the key of pseudonyms included.
    let found = source.discover()?;
    let checked = check(config).await?;
    let (enricher, privacy) = rules_of_identity(config)?;
    let mut parts = Parts::open(
        config,
        checked,
        Arc::clone(&clock),
        Arc::clone(&enricher),
        Arc::clone(&privacy),
        terminal,
    )
    .await?;
    let mut intake = Intake::new(source, batch_limits(config), enricher, privacy, clock);
    let files = found.len() as u64;
    for found in found {
        start_file(&mut parts, &mut intake, found).await?;
    }
    let bytes_all = intake.source.queued_bytes();
    let mut summary = Summary {
        counts: Counts::default(),
        epochs: 0,
        files,
        unreadable: Vec::new(),
        gold_windows: 0,
        open_sessions: 0,
        alerts_firing: 0,
        alerts_undelivered: 0,
        seconds: 0.0,
    };
    let (mut reading, reader) = read_ahead(intake);
    while let Some(Read {
        next,
        bytes_done,
        unreadable,
    }) = reading.recv().await
    {
        for error in unreadable {
            tracing::error!("{error}");
            summary.unreadable.push(error.to_string());
        }
        let Some(batch) = next else { continue };
        let (counts, windows) = parts.carry(batch).await?;
        summary.counts.add(counts);
        summary.epochs += 1;
        summary.gold_windows += windows as u64;
        progress.epoch(summary.counts, bytes_done, bytes_all);
    }
    if reader.join().is_err() {
        bail!("the reading thread stopped with a bug (see above); run the same command again: what was read is kept, the rest follows");
    }
    parts.ingest.close_due_sessions().await?;
    summary.gold_windows += parts.close_windows(true).await? as u64;
    summary.open_sessions = parts.ingest.open_sessions() as u64;
    summary.alerts_firing = parts.watch.firing() as u64;
    summary.alerts_undelivered = parts.watch.undelivered() as u64;
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

/// Puts a discovered file at the position that the lake has of it.
async fn start_file(parts: &mut Parts, intake: &mut Intake, found: Discovered) -> anyhow::Result<()> {
    let position = parts.ingest.position_of(&found).await?;
    let first_event_ms = intake.first_event_ms(&found);
    parts.ingest.expect(&found.partition, first_event_ms);
    intake.source.start(found, position, first_event_ms.unwrap_or(i64::MIN));
    Ok(())
}

/// What the reading thread hands over.
struct Read {
    next: Option<Batch>,
    bytes_done: u64,
    unreadable: Vec<FilesError>,
}

/// Reads on one thread of its own until there is nothing left. One thread, for what it allocates is
/// freed elsewhere: its memory is used again by the next batch only if the same thread reads it.
fn read_ahead(mut intake: Intake) -> (mpsc::Receiver<Read>, std::thread::JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(1);
    let runtime = tokio::runtime::Handle::current();
    let reader = std::thread::spawn(move || {
        // The permit comes before the batch: one is being committed, one is in hand, no third is read.
        while let Ok(permit) = runtime.block_on(sender.reserve()) {
            let (next, mut unreadable) = match intake.next_batch() {
                Ok(Some(batch)) => (Some(batch), Vec::new()),
                Ok(None) => break,
                Err(error) => (None, vec![error]),
            };
            unreadable.extend(intake.take_unreadable());
            permit.send(Read {
                next,
                bytes_done: intake.source.done_bytes(),
                unreadable,
            });
        }
    });
    (receiver, reader)
}

/// Follows the sources of the settings until `stop` is set; the epoch in hand is finished first.
///
/// # Errors
/// As `ingest_once`; a file that cannot be read is logged and tried again when it changes.
pub async fn follow(config: &Config, clock: Arc<dyn Clock>, mut stop: signal::Receiver<bool>) -> anyhow::Result<()> {
    let checked = check(config).await?;
    let (enricher, privacy) = rules_of_identity(config)?;
    let source = file_source(config, false);
    let mut parts = Parts::open(
        config,
        checked,
        Arc::clone(&clock),
        Arc::clone(&enricher),
        Arc::clone(&privacy),
        Terminal::Output,
    )
    .await?;
    let http = HttpIntake::start(config, &enricher, &privacy, &clock, stop.clone()).await?;
    let mut intake = Intake::new(source, batch_limits(config), Arc::clone(&enricher), privacy, Arc::clone(&clock));
    let watched: Vec<String> = config
        .sources
        .iter()
        .map(|source| format!("{} ({})", source.name, source.path.display()))
        .collect();
    tracing::info!(lake = %config.data.display(), watching = watched.join(", "), "playhead is running; stop it with Ctrl-C");
    let mut databases_checked = std::time::Instant::now();
    let mut alerts_checked = std::time::Instant::now();
    let mut alerts = AlertFolder::of(config);
    while !*stop.borrow() {
        let epoch_started = std::time::Instant::now();
        let busy = follow_once(&mut parts, &mut intake, &clock).await?;
        if let Some(http) = &http {
            http.sweep(&mut intake.source);
            if http.has_failed() {
                bail!(
                    "the disk failed while a record was written to the spool; check the disk of the data folder, then start playhead again"
                );
            }
        }
        if alerts_checked.elapsed() >= ALERTS_CHECK_EVERY {
            alerts_checked = std::time::Instant::now();
            alerts.take_up_edits(config, &mut parts.watch).await;
        }
        if databases_checked.elapsed() >= DATABASE_CHECK_EVERY {
            databases_checked = std::time::Instant::now();
            log_complaints(&enricher.reload_changed());
        }
        // A full batch means that more is waiting; otherwise small epochs are held to the cadence.
        let pause = match busy {
            Busy::Full => Duration::ZERO,
            Busy::Some => config.ingest.commit_every.saturating_sub(epoch_started.elapsed()),
            Busy::Nothing => config.ingest.poll_every,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => {}
        }
    }
    if let Some(http) = http {
        http.finish().await;
    }
    let totals = parts.ingest.totals();
    tracing::info!(
        received = totals.received,
        stored = totals.stored,
        duplicates = totals.duplicates,
        rejected = totals.rejected,
        "stopped in order"
    );
    Ok(())
}

/// The alert files as they were last looked at.
struct AlertFolder {
    files: Option<Vec<(String, String)>>,
}

impl AlertFolder {
    fn of(config: &Config) -> AlertFolder {
        AlertFolder {
            files: alert_files(config).ok(),
        }
    }

    /// An edit takes effect as a whole: all files are right, or the rules in force stay.
    async fn take_up_edits(&mut self, config: &Config, watch: &mut Watch) {
        let files = alert_files(config).ok();
        if files == self.files {
            return;
        }
        self.files = files;
        match check(config).await.map(|checked| checked.rules) {
            Ok(rules) => {
                tracing::info!(rules = rules.rules.len(), hash = rules.hash, "alert rules taken up");
                watch.replace_rules(rules);
            }
            Err(complaints) => {
                tracing::error!("the alert files were changed and are not right; the rules before stay in force:\n{complaints}")
            }
        }
    }
}

fn alert_files(config: &Config) -> Result<Vec<(String, String)>, Complaints> {
    folder_files(&config.alerts.folder, "yaml", &builtin::ALERTS)
}

enum Busy {
    Full,
    Some,
    Nothing,
}

async fn follow_once(parts: &mut Parts, intake: &mut Intake, clock: &Arc<dyn Clock>) -> anyhow::Result<Busy> {
    match intake.source.discover() {
        Ok(found) => {
            for found in found {
                start_file(parts, intake, found).await?;
            }
        }
        Err(error) => tracing::warn!("{error}"),
    }
    parts.ingest.release_idle(clock.now_ms());
    let batch = match tokio::task::block_in_place(|| intake.next_batch()) {
        Ok(Some(batch)) => batch,
        Ok(None) => {
            parts.close_windows(false).await?;
            return Ok(Busy::Nothing);
        }
        Err(error) => {
            tracing::warn!("{error}");
            return Ok(Busy::Nothing);
        }
    };
    for error in intake.take_unreadable() {
        tracing::warn!("{error}");
    }
    let is_last = intake.source.is_idle();
    let records: u64 = batch.positions.iter().map(|position| position.received).sum();
    let (counts, windows) = parts.carry(batch).await?;
    if records > 0 {
        tracing::info!(
            received = counts.received,
            stored = counts.stored,
            duplicates = counts.duplicates,
            rejected = counts.rejected,
            windows,
            "epoch committed"
        );
    }
    Ok(match (records, is_last) {
        (0, _) => Busy::Nothing,
        (_, true) => Busy::Some,
        (_, false) => Busy::Full,
    })
}

fn file_source(config: &Config, one_shot: bool) -> FileSource {
    let specs = config.sources.iter().map(|source| FilesSpec {
        path: source.path.clone(),
        format: format_of(source.format),
    });
    let mut specs: Vec<FilesSpec> = specs.collect();
    if !one_shot {
        // Also when nothing listens any more: what was answered before is carried on.
        specs.push(FilesSpec {
            path: config.data.join(http_intake::SPOOL_FOLDER),
            format: Some(Format::Spooled),
        });
    }
    FileSource::new(specs, one_shot)
}

fn format_of(format: SourceFormat) -> Option<Format> {
    match format {
        SourceFormat::Auto => None,
        SourceFormat::Reference => Some(Format::Reference),
        SourceFormat::Ivs => Some(Format::Ivs),
        SourceFormat::Epas => Some(Format::Epas),
        SourceFormat::Cmcd => Some(Format::Cmcd),
        SourceFormat::CloudfrontV1 => Some(Format::CloudFrontV1),
        SourceFormat::CdnJson => Some(Format::CdnJson),
    }
}

fn batch_limits(config: &Config) -> BatchLimits {
    BatchLimits {
        bytes: usize::try_from(config.ingest.batch_bytes).unwrap_or(usize::MAX),
        records: usize::try_from(config.ingest.batch_records).unwrap_or(usize::MAX),
    }
}

fn database_paths(config: &Config) -> NetworkDatabases {
    NetworkDatabases {
        city: config.network.city.clone(),
        asn: config.network.asn.clone(),
        isp: config.network.isp.clone(),
    }
}

/// What is wrong with the network databases. They stop nothing: look-ups go without.
pub fn database_complaints(config: &Config) -> Vec<String> {
    Enricher::load(&database_paths(config)).1.iter().map(ToString::to_string).collect()
}

fn rules_of_identity(config: &Config) -> anyhow::Result<(Arc<Enricher>, Arc<Privacy>)> {
    let paths = database_paths(config);
    if paths.city.is_none() && paths.asn.is_none() && paths.isp.is_none() {
        tracing::warn!(
            "no network database is set: country and ISP stay empty unless the sender gives them; set network.city and network.asn (MaxMind files)"
        );
    }
    let (enricher, complaints) = Enricher::load(&paths);
    log_complaints(&complaints);
    let policy = match config.privacy.identity {
        Identity::Pseudonym => IdentityPolicy::Pseudonym,
        Identity::Keep => IdentityPolicy::Keep,
    };
    let key = match &config.privacy.key {
        PrivacyKey::Given(key) => *key,
        PrivacyKey::File(path) => key_file(path)?,
    };
    Ok((Arc::new(enricher), Arc::new(Privacy::new(policy, key))))
}

fn log_complaints(complaints: &[NetworkComplaint]) {
    for complaint in complaints {
        tracing::warn!("{complaint}");
    }
}

/// The key of pseudonyms: read, or made at first start, readable by its owner alone.
fn key_file(path: &Path) -> anyhow::Result<[u8; 32]> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse_key(text.trim()).with_context(|| {
            format!(
                "{} does not hold a key of 64 hex digits; restore it from a copy, or remove it to start with new pseudonyms",
                path.display()
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make_key(path),
        Err(error) => bail!(
            "cannot read the key file {}: {error}; check its owner and permissions",
            path.display()
        ),
    }
}

fn parse_key(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut key = [0u8; 32];
    for (byte, digits) in key.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

fn make_key(path: &Path) -> anyhow::Result<[u8; 32]> {
    use std::io::Write;
    let mut key = [0u8; 32];
    getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options
        .open(path)
        .with_context(|| format!("cannot create the key file {}", path.display()))?;
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(file, "{hex}").with_context(|| format!("cannot write the key file {}", path.display()))?;
    file.sync_all()
        .with_context(|| format!("cannot write the key file {}", path.display()))?;
    Ok(key)
}

/// A settings error that a person mends, as opposed to a failure of the world.
pub fn is_usage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Complaints>().is_some()
        || matches!(
            error.downcast_ref::<FilesError>(),
            Some(FilesError::NotFound { .. } | FilesError::TooMany { .. })
        )
}

/// The chain of an error, for the person who reads it.
pub fn explain(error: &anyhow::Error) -> String {
    chain(error.as_ref())
}
