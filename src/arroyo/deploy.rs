//! What would change on a cluster, and the change: all of it, or nothing.
//!
//! A pipeline of ours carries its file's name and a fingerprint of its text as tags. The same
//! fingerprint stays; another one is stopped with a checkpoint, replaced by a new pipeline that reads
//! from the beginning of its topics, and deleted once all others are there too. Only another width
//! keeps its state: it is stopped with a checkpoint and started again from it.
//!
//! Invariant: deploying twice changes nothing the second time.
//! Invariant: when one part fails, what was created goes and what was stopped runs again.

use std::fmt;
use std::time::Duration;

use serde_json::json;

use super::Program;
use super::cluster::{Cluster, ClusterError, FINGERPRINT_TAG, Pipeline};

/// Arroyo asks a worker that is gone ten times, in pauses that double, before it counts its job as failed: four minutes.
const STOPS_AT_ONCE_WITHIN: Duration = Duration::from_secs(300);
const STOP_ASKED_EVERY: Duration = Duration::from_millis(500);

/// What becomes of one pipeline.
#[derive(Debug, Clone)]
pub enum Change {
    Create(Program),
    /// Another text: new pipeline, the old ones go.
    Replace(Program, Vec<Pipeline>),
    /// The same text at another width.
    Widen(Program, Pipeline),
    /// The same text, stopped by somebody.
    Start(Program, Pipeline),
    Keep(Program),
    /// Ours, and no file of that name runs on Arroyo any more. Left alone, for its table may be read.
    Orphan(Pipeline),
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Create(program) => write!(out, "create {} ({})", program.name, program.fingerprint),
            Change::Replace(program, _) => write!(out, "replace {} (text is now {})", program.name, program.fingerprint),
            Change::Widen(program, _) => write!(out, "restart {} at parallelism {}", program.name, program.parallelism),
            Change::Start(program, _) => write!(out, "start {}", program.name),
            Change::Keep(program) => write!(out, "keep {}", program.name),
            Change::Orphan(pipeline) => write!(
                out,
                "leave {} alone: no pipeline file of that name runs on Arroyo; delete it there if nobody needs it",
                pipeline.name
            ),
        }
    }
}

/// Why a deployment came to nothing, and what became of what was done.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("Arroyo does not take {}: {}; nothing was changed", .0.name, .0.errors.join("; "))]
    Invalid(Invalid),
    #[error("{pipeline} did not stop, its state is {state}; look at it in Arroyo's console and deploy again")]
    StillRunning { pipeline: String, state: String },
    #[error("{cause}; what was created was taken back and what was stopped runs again")]
    RolledBack { cause: Box<DeployError> },
    #[error("{cause}; taking it back failed too: {}; look at Arroyo's console, then deploy again", .left.join("; "))]
    HalfDone { cause: Box<DeployError>, left: Vec<String> },
}

#[derive(Debug)]
pub struct Invalid {
    pub name: String,
    pub errors: Vec<String>,
}

/// What deploying would change.
pub fn changes(programs: &[Program], found: &[Pipeline]) -> Vec<Change> {
    let mut changes: Vec<Change> = programs.iter().map(|program| change(program, found)).collect();
    let orphans = found.iter().filter(|pipeline| {
        let file = pipeline.file().unwrap_or_default();
        !programs.iter().any(|program| program.name == file)
    });
    changes.extend(orphans.cloned().map(Change::Orphan));
    changes
}

fn change(program: &Program, found: &[Pipeline]) -> Change {
    let ours: Vec<&Pipeline> = found.iter().filter(|pipeline| pipeline.file() == Some(&program.name)).collect();
    let is_same = |pipeline: &&&Pipeline| pipeline.tags.get(FINGERPRINT_TAG) == Some(&program.fingerprint);
    match (ours.iter().find(is_same), ours.is_empty()) {
        (_, true) => Change::Create(program.clone()),
        (None, false) => Change::Replace(program.clone(), ours.into_iter().cloned().collect()),
        // A deployment was cut off before its last step: begin anew, with one.
        (Some(_), false) if ours.len() > 1 => Change::Replace(program.clone(), ours.into_iter().cloned().collect()),
        (Some(same), false) if same.parallelism().is_some_and(|width| width != program.parallelism) => {
            Change::Widen(program.clone(), (*same).clone())
        }
        (Some(same), false) if same.is_stopped() => Change::Start(program.clone(), (*same).clone()),
        (Some(_), false) => Change::Keep(program.clone()),
    }
}

/// Has the cluster check every function and every text; changes nothing.
pub async fn validate(cluster: &Cluster, programs: &[Program]) -> Result<(), DeployError> {
    let mut seen: Vec<&str> = Vec::new();
    for (name, text) in programs.iter().flat_map(|program| &program.functions) {
        if seen.contains(&name.as_str()) {
            continue;
        }
        seen.push(name);
        let errors = cluster.validate_function(name, text).await?;
        refuse(&format!("the function {name}"), errors)?;
    }
    for program in programs {
        refuse(&program.name, cluster.validate_query(program).await?)?;
    }
    Ok(())
}

fn refuse(name: &str, errors: Vec<String>) -> Result<(), DeployError> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(DeployError::Invalid(Invalid {
            name: name.to_string(),
            errors,
        })),
    }
}

/// What was done so far, to be taken back.
#[derive(Default)]
struct Done {
    created: Vec<Pipeline>,
    stopped: Vec<Pipeline>,
    /// To be deleted when everything else is done.
    replaced: Vec<Pipeline>,
}

/// Carries the changes out.
pub async fn apply(cluster: &Cluster, changes: &[Change]) -> Result<(), DeployError> {
    let mut done = Done::default();
    for change in changes {
        if let Err(cause) = carry(cluster, change, &mut done).await {
            return Err(take_back(cluster, done, cause).await);
        }
    }
    // From here on there is no way back: the new ones run. What cannot be deleted is found next time.
    for pipeline in &done.replaced {
        cluster.delete(pipeline).await?;
    }
    Ok(())
}

async fn carry(cluster: &Cluster, change: &Change, done: &mut Done) -> Result<(), DeployError> {
    match change {
        Change::Create(program) => done.created.push(cluster.create(program).await?),
        Change::Replace(program, old) => {
            for pipeline in old {
                done.stopped.push(pipeline.clone());
                stop(cluster, pipeline).await?;
            }
            done.created.push(cluster.create(program).await?);
            done.replaced.extend(old.iter().cloned());
        }
        Change::Widen(program, pipeline) => {
            done.stopped.push(pipeline.clone());
            stop(cluster, pipeline).await?;
            let interval = program.checkpoint_every_ms.saturating_mul(1000);
            let wider = json!({"parallelism": program.parallelism, "checkpoint_interval_micros": interval, "stop": "none"});
            cluster.change(pipeline, &wider).await?;
        }
        Change::Start(_, pipeline) => cluster.change(pipeline, &json!({"stop": "none"})).await?,
        Change::Keep(_) | Change::Orphan(_) => {}
    }
    Ok(())
}

/// Stops a pipeline with a last checkpoint, or without: a worker that crashes on its way out (a batch of a function's outlives
/// the function's library in 0.16) leaves its job waiting for that checkpoint for ever. The newest whole one counts then.
async fn stop(cluster: &Cluster, pipeline: &Pipeline) -> Result<(), DeployError> {
    match stop_by(cluster, pipeline, "checkpoint", cluster.stop_within()).await {
        Err(DeployError::StillRunning { .. }) => stop_at_once(cluster, pipeline).await,
        other => other,
    }
}

async fn stop_at_once(cluster: &Cluster, pipeline: &Pipeline) -> Result<(), DeployError> {
    stop_by(cluster, pipeline, "immediate", STOPS_AT_ONCE_WITHIN).await
}

/// Asks a pipeline to stop and waits until its jobs have.
async fn stop_by(cluster: &Cluster, pipeline: &Pipeline, how: &str, within: Duration) -> Result<(), DeployError> {
    cluster.change(pipeline, &json!({"stop": how})).await?;
    let mut state = String::new();
    let asked_max = within.as_millis() / STOP_ASKED_EVERY.as_millis();
    for _ in 0..asked_max {
        let jobs = cluster.jobs(pipeline).await?;
        let running = jobs
            .iter()
            .find(|job| !["Stopped", "Finished", "Failed"].contains(&job.state.as_str()));
        let Some(job) = running else { return Ok(()) };
        state = job.state.clone();
        tokio::time::sleep(STOP_ASKED_EVERY).await;
    }
    Err(DeployError::StillRunning {
        pipeline: pipeline.name.clone(),
        state,
    })
}

/// Takes back what was done, in its reverse order.
async fn take_back(cluster: &Cluster, done: Done, cause: DeployError) -> DeployError {
    let mut left = Vec::new();
    for pipeline in done.created.iter().rev() {
        let gone = match stop_at_once(cluster, pipeline).await {
            Ok(()) => cluster.delete(pipeline).await.map_err(DeployError::from),
            Err(error) => Err(error),
        };
        left.extend(gone.err().map(|error| error.to_string()));
    }
    for pipeline in done.stopped.iter().rev().filter(|pipeline| !pipeline.is_stopped()) {
        let again = cluster.change(pipeline, &json!({"stop": "none"})).await;
        left.extend(again.err().map(|error| error.to_string()));
    }
    let cause = Box::new(cause);
    match left.is_empty() {
        true => DeployError::RolledBack { cause },
        false => DeployError::HalfDone { cause, left },
    }
}
