//! The commands. Each prints for people by default and JSON with `--json`.
//!
//! Exit codes: 0 done, 64 usage or settings, 1 failure.

mod alerts;
mod arroyo;
mod demo;
mod session;
mod simulate;
mod upkeep;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::SystemClock;
use crate::config::{self, Config, Role};
use crate::daemon::{self, Complaints, Progress, Summary};
use crate::ingest::Counts;
use crate::lake::Lake;
use crate::notify::Terminal;
use crate::{metric, rollup, sql, telemetry};

/// Threads for file system calls: a few keep a disk busy, and each keeps some memory of its own.
const BLOCKING_THREADS: usize = 8;
const EXIT_USAGE: u8 = 64;
const EXIT_FAILURE: u8 = 1;

#[derive(Parser)]
#[command(
    name = "playhead",
    version,
    about = "Streaming-video QoS/QoE analytics: player events and CDN logs in; Delta tables, exact metrics and alerts out."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Settings that every command takes.
#[derive(Args)]
struct SettingsArgs {
    /// Settings file; a later one overrides an earlier one.
    #[arg(long = "settings", value_name = "FILE", global = true)]
    settings: Vec<PathBuf>,
    /// Folder of the tables, instead of `data` in the settings.
    #[arg(long, value_name = "FOLDER", global = true)]
    data: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Read files or folders once, to the end, into the lake.
    #[command(after_help = "Example:\n  playhead ingest tests/sample --data ./lake")]
    Ingest {
        #[arg(required = true, value_name = "FILE|FOLDER")]
        paths: Vec<PathBuf>,
        /// Format of all of them, instead of looking: reference, ivs, epas, cmcd, or of a CDN's log cloudfront_v1,
        /// cloudfront_v2, cloudfront_realtime, akamai_ds2, fastly, cloudflare, google_media_cdn, combined,
        /// generic_json, generic_csv, cdn_json.
        #[arg(long)]
        format: Option<String>,
        /// The field list or map of records that do not name their fields (docs/cdn-logs.md), in one argument.
        #[arg(long, requires = "format")]
        fields: Option<String>,
        /// Print the summary as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Follow the sources of the settings until stopped.
    #[command(after_help = "Example:\n  playhead run --settings playhead.yaml")]
    Run {
        /// Which part of a cluster this is; overrides the setting.
        #[arg(long, value_enum)]
        role: Option<Role>,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Answer SQL for psql, Grafana and drivers over a lake that another process writes, or nobody; read-only.
    #[command(after_help = "Example:\n  playhead serve --data ./lake")]
    Serve {
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Ask the lake: SELECT over bronze, silver, gold and ops.
    #[command(after_help = "Example:\n  playhead sql \"SELECT window_start, sum(attempts) FROM gold.playback_1m GROUP BY 1 ORDER BY 1\"")]
    Sql {
        query: String,
        #[arg(long, value_enum, default_value_t = Output::Table)]
        format: Output,
        /// The same as --format json.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Print one session: its timeline, its facts, and its score with the reason for each loss.
    #[command(after_help = "Example:\n  playhead session s-0b1f6a8e3f0c4e2b9d7a5c3e1f2a4b6c")]
    Session {
        /// The sender's session id, or the derived one (`s-...`) of silver.playback_sessions.
        id: String,
        /// Print everything as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Print the manual of metrics: what each one is, exactly.
    #[command(after_help = "Example:\n  playhead metrics rebuffer_ratio")]
    Metrics {
        /// One metric; default: all.
        name: Option<String>,
        /// As docs/metrics.md.
        #[arg(long, conflicts_with_all = ["json", "name"])]
        markdown: bool,
        /// As a list of objects, also of one.
        #[arg(long)]
        json: bool,
    },
    /// Read settings, pipelines, alerts and dashboards, and say what is wrong with them.
    #[command(after_help = "Example:\n  playhead check --settings playhead.yaml")]
    Check {
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Publish closed minutes of silver to Kafka, each row once, for an Arroyo cluster.
    #[command(after_help = "Example:\n  playhead relay --settings cluster.yaml")]
    Relay {
        /// Publish what has closed, then end.
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Bring the pipelines to an Arroyo cluster.
    #[command(after_help = "Example:\n  playhead arroyo plan --settings cluster.yaml")]
    Arroyo {
        #[command(subcommand)]
        command: arroyo::ArroyoCommand,
    },
    /// Test rules, replay them over history, keep alerts quiet, print the schema of rule files.
    #[command(after_help = "Example:\n  playhead alerts test alerts/tests/playback_errors.yaml")]
    Alerts(alerts::AlertsArgs),
    /// Put small files together, keep the log short, delete what nothing needs, drop what has expired.
    #[command(after_help = "Example:\n  playhead upkeep --dry-run")]
    Upkeep {
        /// Say what would be done and do nothing; may look at a lake in use.
        #[arg(long)]
        dry_run: bool,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Print every setting with its default and what it does.
    #[command(after_help = "Example:\n  playhead settings > playhead.yaml")]
    Settings,
    /// Print the contract of the tables: columns, types, units.
    #[command(after_help = "Example:\n  playhead tables > docs/tables.md")]
    Tables {
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Show it: a simulated audience with incidents, watched live; nothing is left behind.
    #[command(after_help = "Example:\n  playhead demo")]
    Demo {
        #[command(flatten)]
        demo: demo::DemoArgs,
    },
    /// Write a simulated audience: player events, CDN log and a truth file, from a seed.
    #[command(
        after_help = "Example:\n  playhead simulate ./incoming --sessions 1000 --seed 7 --lifelike --plant isp_stalls@20+15\n  playhead simulate http://127.0.0.1:8480 --dialect cmcd --rate 100"
    )]
    Simulate {
        #[command(flatten)]
        simulate: simulate::SimulateArgs,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Csv,
    Json,
}

/// Runs one command line and gives the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("playhead: cannot start: {error}");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    match runtime.block_on(dispatch(cli.command)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("playhead: {}", daemon::explain(&error));
            ExitCode::from(if daemon::is_usage(&error) { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Ingest {
            paths,
            format,
            fields,
            json,
            settings,
        } => ingest(&settings, &paths, format.as_deref(), fields.as_deref(), json).await,
        Command::Run { role, settings } => until_stopped(&settings, Work::Run { role }).await,
        Command::Serve { settings } => until_stopped(&settings, Work::Serve).await,
        Command::Sql {
            query,
            format,
            json,
            settings,
        } => ask(&settings, &query, if json { Output::Json } else { format }).await,
        Command::Session { id, json, settings } => show_session(&settings, &id, json).await,
        Command::Metrics { name, markdown, json } => show_metrics(name.as_deref(), markdown, json),
        Command::Check { json, settings } => check(&settings, json).await,
        Command::Relay { once, settings } => until_stopped(&settings, Work::Relay { once }).await,
        Command::Arroyo { command } => arroyo::run(command).await,
        Command::Alerts(arguments) => alerts::run(arguments).await,
        Command::Upkeep { dry_run, json, settings } => {
            let config = load(&settings, "")?;
            telemetry::start(&config.log);
            let settings = config.upkeep.settings.clone();
            upkeep::run(&config, settings, upkeep::Options { dry_run, json }).await
        }
        Command::Settings => show(config::REFERENCE.as_bytes()),
        Command::Tables { settings } => tables(&settings).await,
        Command::Demo { demo } => demo::run(&demo).await,
        Command::Simulate { simulate } => simulate::run(&simulate),
    }
}

/// The settings files, with what the command line overrides on top.
fn load(settings: &SettingsArgs, overrides: &str) -> Result<Config, Complaints> {
    let mut texts = Vec::new();
    let mut complaints = Vec::new();
    for path in &settings.settings {
        match std::fs::read_to_string(path) {
            Ok(text) => texts.push((path.display().to_string(), text)),
            Err(error) => complaints.push(format!("cannot read the settings file {}: {error}; check its name", path.display())),
        }
    }
    if !complaints.is_empty() {
        return Err(Complaints(complaints));
    }
    let mut command_line = overrides.to_string();
    if let Some(data) = &settings.data {
        command_line.push_str(&format!("data: {}\n", serde_json::Value::from(data.display().to_string())));
    }
    if !command_line.is_empty() {
        texts.push(("command line".to_string(), command_line));
    }
    config::parse(&texts, &config::process_env, &|path| path.is_dir())
        .map_err(|complaints| Complaints(complaints.iter().map(ToString::to_string).collect()))
}

async fn ingest(settings: &SettingsArgs, paths: &[PathBuf], format: Option<&str>, fields: Option<&str>, json: bool) -> anyhow::Result<u8> {
    let format = format.unwrap_or("auto");
    let fields = fields.map_or_else(String::new, |fields| format!(", fields: [{}]", serde_json::Value::from(fields)));
    let mut overrides = "sources:\n".to_string();
    for path in paths {
        let path = serde_json::Value::from(path.display().to_string());
        overrides.push_str(&format!("  - {{path: {path}, format: {format}{fields}}}\n"));
    }
    let config = load(settings, &overrides)?;
    telemetry::start(&config.log);
    let terminal = if json { Terminal::Errors } else { Terminal::Output };
    let mut progress = Bar::new(json);
    let summary = daemon::ingest_once(&config, Arc::new(SystemClock), terminal, &mut progress).await?;
    progress.finish();
    if json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        print!("{}", told(&summary, &config));
    }
    Ok(if summary.unreadable.is_empty() { 0 } else { EXIT_FAILURE })
}

fn told(summary: &Summary, config: &Config) -> String {
    let Counts {
        received,
        stored,
        duplicates,
        rejected,
    } = summary.counts;
    let rate = received as f64 / summary.seconds.max(0.001);
    let mut text = format!(
        "received {received} = stored {stored} + duplicates {duplicates} + rejected {rejected}\n\
         {} files, {} epochs, {} window minutes in gold, {} open sessions, {:.1} s, {rate:.0} records/s\n",
        summary.files, summary.epochs, summary.gold_windows, summary.open_sessions, summary.seconds,
    );
    if rejected > 0 {
        text.push_str(
            "why records were rejected: playhead sql \"SELECT reason, detail, source_partition, source_offset FROM silver.rejects\"\n",
        );
    }
    if summary.alerts_undelivered > 0 {
        text.push_str(&format!(
            "{} alert messages wait in ops.alert_events for a target that is away\n",
            summary.alerts_undelivered
        ));
    }
    for unreadable in &summary.unreadable {
        text.push_str(&format!("not read: {unreadable}\n"));
    }
    text.push_str(&format!(
        "the tables are in {}; ask them with `playhead sql --data {}`\n",
        config.data.display(),
        config.data.display()
    ));
    text
}

/// A bar on a terminal, plain lines otherwise, nothing beside JSON.
struct Bar {
    bar: Option<ProgressBar>,
    plain: bool,
}

impl Bar {
    fn new(quiet: bool) -> Bar {
        let on_terminal = std::io::stderr().is_terminal();
        Bar {
            bar: (on_terminal && !quiet).then(|| ProgressBar::new(0)),
            plain: !on_terminal && !quiet,
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn epoch(&mut self, total: Counts, bytes_done: u64, bytes_all: u64) {
        if let Some(bar) = &self.bar {
            if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {msg}") {
                bar.set_style(style);
            }
            bar.set_length(bytes_all);
            bar.set_position(bytes_done);
            bar.set_message(format!("{} records", total.received));
        }
        if self.plain {
            eprintln!(
                "{} received, {} stored, {} duplicates, {} rejected",
                total.received, total.stored, total.duplicates, total.rejected
            );
        }
    }
}

/// What goes on until it is stopped.
enum Work {
    Run { role: Option<Role> },
    Serve,
    Relay { once: bool },
}

/// Becomes true when somebody wants the process to end.
fn stop_asked() -> tokio::sync::watch::Receiver<bool> {
    let (tell, stop) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        stop_signal().await;
        // Nobody listens any more only when the daemon has ended by itself.
        let _ = tell.send(true);
    });
    stop
}

async fn until_stopped(settings: &SettingsArgs, work: Work) -> anyhow::Result<u8> {
    let mut config = load(settings, "")?;
    if let Work::Run { role: Some(role) } = work {
        config.role = role;
    }
    telemetry::start(&config.log);
    let stop = stop_asked();
    let clock = Arc::new(SystemClock);
    let ended = match work {
        Work::Run { .. } => daemon::run(&config, clock, stop).await,
        Work::Serve => daemon::serve(&config, clock, stop).await,
        Work::Relay { once } => daemon::relay(&config, once, stop).await,
    };
    match ended {
        // In the log and in its form: that is where the person who looks for it looks.
        Err(error) if !daemon::is_usage(&error) => {
            tracing::error!("playhead: {}", daemon::explain(&error));
            Ok(EXIT_FAILURE)
        }
        other => other.map(|()| 0),
    }
}

async fn stop_signal() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}

async fn ask(settings: &SettingsArgs, query: &str, output: Output) -> anyhow::Result<u8> {
    let config = load(settings, "")?;
    telemetry::start(&config.log);
    let pipelines = sql::mentioned(daemon::pipelines(&config)?, query);
    let lake = Lake::open_read_only(daemon::lake_place(&config)?).await?;
    let limits = daemon::query_limits(&config);
    let pipelines = rollup::open_windows(&lake, pipelines).await?;
    let context = sql::open(&lake, &pipelines, limits).await?;
    let (schema, batches) = sql::query(&context, query, limits).await?;
    show(&rendered(&schema, &batches, output)?)
}

/// Prints an answer that may be long.
fn show(text: &[u8]) -> anyhow::Result<u8> {
    match std::io::stdout().lock().write_all(text) {
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        other => Ok(other.map(|()| 0)?),
    }
}

async fn show_session(settings: &SettingsArgs, id: &str, json: bool) -> anyhow::Result<u8> {
    let config = load(settings, "")?;
    telemetry::start(&config.log);
    let lake = Lake::open_read_only(daemon::lake_place(&config)?).await?;
    let dossier = session::Dossier::read(&lake, id, daemon::query_limits(&config)).await?;
    if dossier.is_empty() {
        eprintln!(
            "playhead: no session `{id}` in {}; list them with `playhead sql --data {} \"SELECT session_id, started_at FROM silver.playback_sessions\"`",
            config.data.display(),
            config.data.display()
        );
        return Ok(EXIT_FAILURE);
    }
    let text = if json {
        format!("{}\n", serde_json::to_string_pretty(&dossier.to_json())?)
    } else {
        dossier.to_text()
    };
    show(text.as_bytes())
}

fn show_metrics(name: Option<&str>, markdown: bool, json: bool) -> anyhow::Result<u8> {
    let shown = match (name, markdown, json) {
        (Some(name), ..) => match metric::find(name) {
            Some(metric) if json => format!("{}\n", serde_json::to_string_pretty(&[metric::json_of(metric)])?),
            Some(metric) => metric::metric_text(metric),
            None => {
                eprintln!("playhead: no metric `{name}`; `playhead metrics` lists them all");
                return Ok(EXIT_USAGE);
            }
        },
        (None, true, _) => metric::manual_markdown(metric::SCORE_CHECK),
        (None, _, true) => format!("{}\n", serde_json::to_string_pretty(&metric::to_json())?),
        (None, ..) => metric::manual_text(),
    };
    show(shown.as_bytes())
}

fn rendered(schema: &SchemaRef, batches: &[RecordBatch], output: Output) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let empty = [RecordBatch::new_empty(Arc::clone(schema))];
    let shown = if batches.is_empty() { &empty } else { batches };
    match output {
        Output::Table => writeln!(text, "{}", arrow::util::pretty::pretty_format_batches(shown)?)?,
        Output::Csv => {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut text);
            shown.iter().try_for_each(|batch| writer.write(batch))?;
        }
        Output::Json => {
            let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, arrow::json::writer::JsonArray>(&mut text);
            writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
            writer.finish()?;
            drop(writer);
            writeln!(text)?;
        }
    }
    Ok(text)
}

async fn check(settings: &SettingsArgs, json: bool) -> anyhow::Result<u8> {
    let found = complaints(settings).await;
    if json {
        println!("{}", serde_json::json!({"ok": found.is_empty(), "complaints": found}));
    } else if found.is_empty() {
        println!("settings, pipelines, alerts and dashboards are in order");
    } else {
        for complaint in &found {
            eprintln!("{complaint}");
        }
        eprintln!("{} to mend", found.len());
    }
    Ok(if found.is_empty() { 0 } else { EXIT_USAGE })
}

/// Everything that is wrong, in the order in which it must be mended.
async fn complaints(settings: &SettingsArgs) -> Vec<String> {
    match checked(settings).await {
        Ok(()) => Vec::new(),
        Err(Complaints(list)) => list,
    }
}

async fn checked(settings: &SettingsArgs) -> Result<(), Complaints> {
    let config = load(settings, "")?;
    daemon::check(&config).await?;
    let mut found = daemon::enrichment_complaints(&config);
    found.extend(daemon::dashboard_complaints(&config).await?);
    if found.is_empty() { Ok(()) } else { Err(Complaints(found)) }
}

async fn tables(settings: &SettingsArgs) -> anyhow::Result<u8> {
    let config = load(settings, "")?;
    let pipelines = daemon::pipelines(&config)?;
    let specs = daemon::gold_specs(&pipelines).await?;
    let views = daemon::gold_views(&specs).await?;
    show(crate::contract::tables_markdown(&specs, &views).as_bytes())
}
