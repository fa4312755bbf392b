//! `playhead alerts ...`: for people who write rules, ask what they would have done, and keep them quiet.
//!
//! Stands in front of `alert` and `watch`. Nothing here sends a message or changes a table; `silence` writes
//! one file of the alert folder, and a running daemon takes it up within seconds.

mod check;
mod explain;
mod replay;
mod rule_tests;
mod silence;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::SettingsArgs;
use crate::alert::rule::{rule_schema, silence_schema};
use crate::telemetry;

const REPLAY_EXAMPLE: &str =
    "Example:\n  playhead alerts replay --from 2026-11-01T00:00:00Z --to 2026-11-08T00:00:00Z --diff new/playback_errors.yaml";
const EXPLAIN_EXAMPLE: &str =
    "Example:\n  playhead alerts explain rebuffer_ratio --from 2026-11-01T20:00:00Z --to 2026-11-01T20:10:00Z --dims isp,cdn,device_type";
const SILENCE_EXAMPLE: &str =
    "Example:\n  playhead alerts silence cdn=cdn-b country=ES --for 2h --author ada --reason \"maintenance, ticket 4711\"";

#[derive(Args)]
pub struct AlertsArgs {
    #[command(subcommand)]
    command: AlertsCommand,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Subcommand)]
enum AlertsCommand {
    /// Read rule files and say what is wrong, with file, line, column and what to write instead.
    #[command(after_help = "Example:\n  playhead alerts check alerts/playback_errors.yaml")]
    Check {
        /// Rule files, or folders of them; unless given, the folder of the settings.
        #[arg(value_name = "FILE|FOLDER")]
        paths: Vec<PathBuf>,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run unit tests of rules: rows in, states expected minute by minute.
    #[command(after_help = "Example:\n  playhead alerts test alerts/tests/*.yaml")]
    Test {
        /// Test files; unless given, all of `tests` in the alert folder.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say what the rules would have fired over the gold that is stored; nobody is told.
    #[command(after_help = REPLAY_EXAMPLE)]
    Replay {
        /// First window end, such as 2026-11-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        from: String,
        /// Last window end.
        #[arg(long, value_name = "TIME")]
        to: String,
        /// Rule files to compare with, in place of all of the settings.
        #[arg(long, value_name = "FILE")]
        diff: Vec<PathBuf>,
        /// What really happened: precision and recall are printed.
        #[arg(long, value_name = "FILE")]
        truth: Option<PathBuf>,
        /// Look for the cause of each firing, too.
        #[arg(long)]
        causes: bool,
        /// Print the firings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say which dimension values explain that a metric has changed, as an alert would.
    #[command(after_help = EXPLAIN_EXAMPLE)]
    Explain(explain::ExplainArgs),
    /// Print the JSON Schema of rule files, for editors.
    #[command(after_help = "Example:\n  playhead alerts schema > alerts.schema.json")]
    Schema {
        /// That of one silence.
        #[arg(long)]
        silence: bool,
    },
    /// Tell nobody of some alerts for a while; writes silences.yaml in the alert folder.
    #[command(after_help = SILENCE_EXAMPLE)]
    Silence(silence::SilenceArgs),
}

/// Runs one of them and gives the exit code.
///
/// # Errors
/// Settings, rules or files that are wrong; a lake that cannot be read.
pub async fn run(arguments: AlertsArgs) -> anyhow::Result<u8> {
    let AlertsArgs { command, settings } = arguments;
    if let AlertsCommand::Schema { silence } = command {
        let schema = if silence { silence_schema() } else { rule_schema() };
        println!("{}", serde_json::to_string_pretty(&schema)?);
        return Ok(0);
    }
    let config = super::load(&settings, "")?;
    telemetry::start(&config.log);
    match command {
        AlertsCommand::Check { paths, json } => check::run(&config, &paths, json).await,
        AlertsCommand::Test { files } => rule_tests::run(&config, &files).await,
        AlertsCommand::Replay {
            from,
            to,
            diff,
            truth,
            causes,
            json,
        } => {
            let wanted = replay::Wanted {
                span: replay::Span::of(&from, &to)?,
                diffed: &diff,
                truth: truth.as_deref(),
                causes,
                as_json: json,
            };
            replay::run(&config, &wanted).await
        }
        AlertsCommand::Explain(asked) => explain::run(&config, &asked).await,
        AlertsCommand::Silence(wanted) => silence::run(&config, &wanted).await,
        AlertsCommand::Schema { .. } => unreachable!("it was answered above"),
    }
}

/// A file's text under its name, or the complaint.
fn read(path: &std::path::Path) -> Result<(String, String), crate::daemon::Complaints> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((path.display().to_string(), text)),
        Err(error) => Err(crate::daemon::Complaints(vec![format!(
            "cannot read {}: {error}; check its name",
            path.display()
        )])),
    }
}
