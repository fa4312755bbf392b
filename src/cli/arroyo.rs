//! `playhead arroyo`: what a cluster would get, bringing it there, and how it does.

use std::fmt::Write;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{EXIT_FAILURE, SettingsArgs, load, show};
use crate::arroyo::cluster::{Cluster, ClusterError, body};
use crate::arroyo::deploy::{Change, apply, changes, validate};
use crate::arroyo::{Program, Unit};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::daemon::{self, Portable};
use crate::lake::{Lake, LakeError};
use crate::rollup::owner::{self, Owner};
use crate::sql::pipeline::Pipeline;
use crate::telemetry;

/// Errors of a job that are shown: the first ones explain the rest.
const ERRORS_SHOWN: usize = 3;

#[derive(Subcommand)]
pub enum ArroyoCommand {
    /// Print what the cluster would get: each text, the functions, the REST body, and what would change.
    #[command(after_help = "Example:\n  playhead arroyo plan --settings cluster.yaml")]
    Plan {
        /// Print the whole REST bodies as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Bring the pipelines to the cluster: all of them, or nothing.
    #[command(after_help = "Example:\n  playhead arroyo deploy --hand-over --settings cluster.yaml")]
    Deploy {
        /// Tables that this lake's runner has written so far become Arroyo's.
        #[arg(long)]
        hand_over: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Say how the deployed pipelines do: state, newest checkpoint, errors.
    #[command(after_help = "Example:\n  playhead arroyo status")]
    Status {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Give the gold tables back to this lake's own runner, which computes them again from silver.
    #[command(after_help = "Example:\n  playhead arroyo take-back")]
    TakeBack {
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

pub async fn run(command: ArroyoCommand) -> anyhow::Result<u8> {
    match command {
        ArroyoCommand::Plan { json, settings } => plan(&ready(&settings)?, json).await,
        ArroyoCommand::Deploy { hand_over, settings } => deploy(&ready(&settings)?, hand_over).await,
        ArroyoCommand::Status { json, settings } => status(&ready(&settings)?, json).await,
        ArroyoCommand::TakeBack { settings } => take_back(&ready(&settings)?).await,
    }
}

fn ready(settings: &SettingsArgs) -> anyhow::Result<Config> {
    let config = load(settings, "")?;
    telemetry::start(&config.log);
    Ok(config)
}

fn cluster(config: &Config) -> Cluster {
    Cluster::new(&config.arroyo.api, config.arroyo.token.clone(), config.arroyo.stop_within)
}

fn programs(portable: &Portable) -> Vec<Program> {
    let program = |(unit, _): &(Unit, Pipeline)| Program::new(unit, &portable.settings);
    portable.units.iter().map(program).collect()
}

async fn plan(config: &Config, as_json: bool) -> anyhow::Result<u8> {
    let portable = daemon::portable(config).await?;
    let programs = programs(&portable);
    let change = match cluster(config).pipelines().await {
        Ok(found) => changes(&programs, &found).iter().map(ToString::to_string).collect(),
        Err(error @ ClusterError::Away { .. }) => vec![format!("what would change is not known: {error}")],
        Err(error) => return Err(error.into()),
    };
    if as_json {
        let here_only: Vec<Value> = portable
            .here_only
            .iter()
            .map(|(name, reason)| json!({"name": name, "reason": reason}))
            .collect();
        let bodies: Vec<Value> = programs.iter().map(body).collect();
        let plan = json!({"changes": change, "here_only": here_only, "bodies": bodies});
        return show(format!("{}\n", serde_json::to_string_pretty(&plan)?).as_bytes());
    }
    show(planned(&programs, &portable.here_only, &change).as_bytes())
}

fn planned(programs: &[Program], here_only: &[(String, String)], changes: &[String]) -> String {
    let mut text = String::new();
    for program in programs {
        let _ = writeln!(text, "==== {} ({}) ====\n\n{}", program.name, program.fingerprint, program.text);
        for (name, function) in &program.functions {
            let _ = writeln!(text, "---- function {name} ----\n\n{function}");
        }
        let mut body = body(program);
        // Both stand above, in full.
        body["query"] = json!("(the text above)");
        body["udfs"] = json!(program.functions.iter().map(|(name, _)| name).collect::<Vec<_>>());
        let _ = writeln!(text, "---- POST /api/v1/pipelines ----\n\n{body:#}\n");
    }
    text.push_str("==== what would change ====\n\n");
    for change in changes {
        let _ = writeln!(text, "{change}");
    }
    for (name, reason) in here_only {
        let _ = writeln!(text, "{name} stays here: {reason}");
    }
    text
}

async fn deploy(config: &Config, hand_over: bool) -> anyhow::Result<u8> {
    let portable = daemon::portable(config).await?;
    let programs = programs(&portable);
    let cluster = cluster(config);
    let lake = open(config).await?;
    let done = deploy_under(&lake, &portable, &programs, &cluster, hand_over).await;
    lake.give_back().await;
    for change in done? {
        println!("{change}");
    }
    Ok(0)
}

/// With the lake's lock held: no daemon writes meanwhile.
async fn deploy_under(
    lake: &Lake,
    portable: &Portable,
    programs: &[Program],
    cluster: &Cluster,
    hand_over: bool,
) -> anyhow::Result<Vec<Change>> {
    let ours = tables_of_the_runner(lake, portable).await?;
    let written: Vec<String> = ours
        .iter()
        .filter(|(_, is_written)| *is_written)
        .map(|(pipeline, _)| pipeline.table())
        .collect();
    if !written.is_empty() && !hand_over {
        anyhow::bail!(
            "this lake's own runner writes {}: a gold table has one writer; add --hand-over to give them to Arroyo (`playhead arroyo take-back` \
             gives them back), or take the files out of pipelines.folder",
            written.join(", ")
        );
    }
    let found = cluster.pipelines().await?;
    validate(cluster, programs).await?;
    let changes = changes(programs, &found);
    // The owner first: were the cluster to write before, there would be two writers.
    for (pipeline, _) in &ours {
        owner::give(lake, pipeline, Owner::Arroyo).await?;
    }
    if let Err(error) = apply(cluster, &changes).await {
        for (pipeline, _) in &ours {
            owner::give(lake, pipeline, Owner::Runner).await?;
        }
        return Err(error.into());
    }
    Ok(changes)
}

/// Pipelines whose table is the runner's, and whether it has written there.
async fn tables_of_the_runner<'a>(lake: &Lake, portable: &'a Portable) -> anyhow::Result<Vec<(&'a Pipeline, bool)>> {
    let mut ours = Vec::new();
    for (_, pipeline) in &portable.units {
        let is_written = owner::open(lake, pipeline).await?;
        if owner::owner(lake, pipeline).await? == Owner::Runner {
            ours.push((pipeline, is_written));
        }
    }
    Ok(ours)
}

async fn open(config: &Config) -> anyhow::Result<Lake> {
    match Lake::open(daemon::lake_place(config)?, Arc::new(SystemClock)).await {
        Err(LakeError::InUse { lake, holder }) => anyhow::bail!(
            "the lake {lake} is in use by another playhead process{holder}, which writes its gold tables; stop it, then change who writes them"
        ),
        other => Ok(other?),
    }
}

async fn take_back(config: &Config) -> anyhow::Result<u8> {
    let pipelines = daemon::pipelines(config)?;
    let lake = open(config).await?;
    for pipeline in pipelines.iter().filter(|pipeline| pipeline.finer.is_none()) {
        owner::open(&lake, pipeline).await?;
        if owner::owner(&lake, pipeline).await? == Owner::Arroyo {
            owner::give(&lake, pipeline, Owner::Runner).await?;
            println!("{} is this lake's own again; stop its pipeline on the cluster", pipeline.table());
        }
    }
    lake.give_back().await;
    Ok(0)
}

async fn status(config: &Config, as_json: bool) -> anyhow::Result<u8> {
    let cluster = cluster(config);
    let mut rows = Vec::new();
    for pipeline in cluster.pipelines().await? {
        for job in cluster.jobs(&pipeline).await? {
            let checkpoint = cluster
                .checkpoints(&pipeline, &job)
                .await?
                .into_iter()
                .max_by_key(|checkpoint| checkpoint.epoch);
            let errors = cluster.errors(&pipeline, &job).await?;
            let mut told: Vec<String> = job.failure_reason.iter().map(|reason| reason.error.clone()).collect();
            told.extend(errors.into_iter().map(|error| error.message).take(ERRORS_SHOWN));
            rows.push(json!({
                "pipeline": pipeline.file(),
                "id": pipeline.id,
                "state": job.state,
                "tasks": job.tasks,
                "parallelism": pipeline.parallelism(),
                "checkpoint": checkpoint.as_ref().map(|checkpoint| checkpoint.epoch),
                "checkpoint_at": checkpoint.and_then(|checkpoint| checkpoint.finish_time).and_then(time_text),
                "errors": told,
            }));
        }
    }
    let is_well = rows.iter().all(|row| row["state"] == "Running" && row["errors"] == json!([]));
    match as_json {
        true => show(format!("{}\n", serde_json::to_string_pretty(&rows)?).as_bytes())?,
        false => show(status_text(&rows).as_bytes())?,
    };
    Ok(if is_well { 0 } else { EXIT_FAILURE })
}

fn status_text(rows: &[Value]) -> String {
    if rows.is_empty() {
        return "no pipeline of ours runs there; `playhead arroyo deploy` brings them\n".to_string();
    }
    let mut text = String::new();
    for row in rows {
        let word = |key: &str| row[key].as_str().map_or_else(|| row[key].to_string(), str::to_string);
        let _ = writeln!(
            text,
            "{}: {}, parallelism {}, checkpoint {} at {}",
            word("pipeline"),
            word("state"),
            word("parallelism"),
            word("checkpoint"),
            word("checkpoint_at")
        );
        for error in row["errors"].as_array().into_iter().flatten() {
            let _ = writeln!(text, "  {}", error.as_str().unwrap_or_default());
        }
    }
    text
}

/// Microseconds since 1970 as people write times.
fn time_text(micros: u64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp_micros(i64::try_from(micros).ok()?)?;
    Some(time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}
