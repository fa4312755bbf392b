//! Arroyo's REST API, as far as it is needed (openapi of 0.15 and the 0.16 snapshot, `/api/v1`).
//!
//! One method a call; what an answer holds beyond the fields here is left alone, so that a newer cluster
//! does no harm.
//!
//! Invariant: a token is sent and never shown; every call ends within its time.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Client, Method};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Program;

/// A function may have to be compiled first: minutes on an empty host.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Pipelines asked for at a time.
const PAGE: u32 = 50;
/// No cluster runs more pipelines than this many pages hold.
const PAGES_MAX: usize = 100;
/// Of a refusal this much is shown.
const ANSWER_CHARS_MAX: usize = 500;

/// Tags by which our own pipelines are known on a cluster.
pub const NAME_TAG: &str = "playhead.pipeline";
pub const FINGERPRINT_TAG: &str = "playhead.fingerprint";

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("cannot reach Arroyo at {url}: {why}; check arroyo.api and that the cluster runs")]
    Away { url: String, why: String },
    #[error("Arroyo refused to {act} (status {status}): {said}")]
    Refused { act: String, status: u16, said: String },
    #[error("Arroyo's answer to {act} is not understood: {why}; is arroyo.api the address of its API?")]
    Unreadable { act: String, why: String },
}

/// A cluster's API.
pub struct Cluster {
    client: Client,
    base: String,
    token: Option<String>,
    stop_within: Duration,
}

/// A pipeline on the cluster.
#[derive(Debug, Clone, Deserialize)]
pub struct Pipeline {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub stop: String,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    #[serde(default)]
    graph: Graph,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Graph {
    #[serde(default)]
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Deserialize)]
struct Node {
    parallelism: u64,
}

impl Pipeline {
    /// How many subtasks its widest operator has; tags stay what they were when it was made.
    pub fn parallelism(&self) -> Option<u64> {
        self.graph.nodes.iter().map(|node| node.parallelism).max()
    }

    /// The pipeline file it was made of, if it is one of ours.
    pub fn file(&self) -> Option<&str> {
        self.tags.get(NAME_TAG).map(String::as_str)
    }

    pub fn is_stopped(&self) -> bool {
        !(self.stop.is_empty() || self.stop == "none")
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    pub id: String,
    pub state: String,
    #[serde(default)]
    pub tasks: Option<u64>,
    #[serde(default)]
    pub failure_reason: Option<FailureReason>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct FailureReason {
    pub error: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Checkpoint {
    pub epoch: u64,
    /// Microseconds since 1970.
    #[serde(default)]
    pub finish_time: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct JobError {
    pub message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    data: Vec<T>,
    #[serde(default)]
    has_more: bool,
}

/// What a validation found.
#[derive(Deserialize)]
struct QueryValidation {
    errors: Vec<Diagnostic>,
}

#[derive(Deserialize)]
struct Diagnostic {
    message: String,
    #[serde(default)]
    span: Option<Span>,
}

#[derive(Deserialize)]
struct Span {
    start: Location,
}

#[derive(Deserialize)]
struct Location {
    line: u64,
    column: u64,
}

#[derive(Deserialize)]
struct FunctionValidation {
    errors: Vec<String>,
}

/// The body of `POST /pipelines`.
pub fn body(program: &Program) -> Value {
    json!({
        "name": format!("playhead {}", program.name),
        "query": program.text,
        "udfs": functions(program),
        "parallelism": program.parallelism,
        "checkpoint_interval_micros": program.checkpoint_every_ms.saturating_mul(1000),
        "tags": {
            NAME_TAG: program.name,
            FINGERPRINT_TAG: program.fingerprint,
        },
    })
}

fn functions(program: &Program) -> Value {
    let functions = program
        .functions
        .iter()
        .map(|(_, text)| json!({"definition": text, "language": "rust"}));
    functions.collect()
}

impl Cluster {
    pub fn new(api: &str, token: Option<String>, stop_within: Duration) -> Cluster {
        Cluster {
            client: Client::new(),
            base: format!("{}/api/v1", api.trim_end_matches('/')),
            token,
            stop_within,
        }
    }

    /// How long a pipeline may take for its last checkpoint.
    pub fn stop_within(&self) -> Duration {
        self.stop_within
    }

    /// What is wrong with a function, as its compiler says it.
    pub async fn validate_function(&self, name: &str, text: &str) -> Result<Vec<String>, ClusterError> {
        let body = json!({"definition": text, "language": "rust"});
        let act = format!("compile the function {name}");
        let answer: FunctionValidation = self.call(&act, Method::POST, "/udfs/validate", Some(&body)).await?;
        Ok(answer.errors)
    }

    /// What is wrong with a text, with its place where the planner knows it.
    pub async fn validate_query(&self, program: &Program) -> Result<Vec<String>, ClusterError> {
        let body = json!({"query": program.text, "udfs": functions(program)});
        let act = format!("plan {}", program.name);
        let answer: QueryValidation = self.call(&act, Method::POST, "/pipelines/validate_query", Some(&body)).await?;
        let told = answer.errors.into_iter().map(|error| match error.span {
            Some(Span { start }) => format!("line {}, column {}: {}", start.line, start.column, error.message),
            None => error.message,
        });
        Ok(told.collect())
    }

    /// Our own pipelines, previews left out.
    pub async fn pipelines(&self) -> Result<Vec<Pipeline>, ClusterError> {
        let mut found: Vec<Pipeline> = Vec::new();
        let mut after = String::new();
        for _ in 0..PAGES_MAX {
            let path = format!("/pipelines?limit={PAGE}{after}");
            let page: Page<Pipeline> = self.call("list its pipelines", Method::GET, &path, None::<&Value>).await?;
            let last = page.data.last().map(|pipeline| pipeline.id.clone());
            found.extend(page.data);
            match last.filter(|_| page.has_more) {
                Some(id) => after = format!("&starting_after={id}"),
                None => break,
            }
        }
        found.retain(|pipeline| pipeline.file().is_some());
        Ok(found)
    }

    pub async fn create(&self, program: &Program) -> Result<Pipeline, ClusterError> {
        let act = format!("create {}", program.name);
        self.call(&act, Method::POST, "/pipelines", Some(&body(program))).await
    }

    /// Asks for another state: `{"stop": "checkpoint"}`, `{"stop": "none", "parallelism": 4}`.
    pub async fn change(&self, pipeline: &Pipeline, change: &Value) -> Result<(), ClusterError> {
        let act = format!("change {}", pipeline.name);
        let path = format!("/pipelines/{}", pipeline.id);
        self.call::<Value>(&act, Method::PATCH, &path, Some(change)).await.map(drop)
    }

    pub async fn delete(&self, pipeline: &Pipeline) -> Result<(), ClusterError> {
        let path = format!("/pipelines/{}", pipeline.id);
        let act = format!("delete {}", pipeline.name);
        self.call::<Value>(&act, Method::DELETE, &path, None::<&Value>).await.map(drop)
    }

    pub async fn jobs(&self, pipeline: &Pipeline) -> Result<Vec<Job>, ClusterError> {
        let path = format!("/pipelines/{}/jobs", pipeline.id);
        self.list(&format!("list the jobs of {}", pipeline.name), &path).await
    }

    pub async fn checkpoints(&self, pipeline: &Pipeline, job: &Job) -> Result<Vec<Checkpoint>, ClusterError> {
        let path = format!("/pipelines/{}/jobs/{}/checkpoints", pipeline.id, job.id);
        self.list(&format!("list the checkpoints of {}", pipeline.name), &path).await
    }

    pub async fn errors(&self, pipeline: &Pipeline, job: &Job) -> Result<Vec<JobError>, ClusterError> {
        let path = format!("/pipelines/{}/jobs/{}/errors", pipeline.id, job.id);
        self.list(&format!("list the errors of {}", pipeline.name), &path).await
    }

    async fn list<T: DeserializeOwned>(&self, act: &str, path: &str) -> Result<Vec<T>, ClusterError> {
        let page: Page<T> = self.call(act, Method::GET, path, None::<&Value>).await?;
        Ok(page.data)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        act: &str,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<T, ClusterError> {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).timeout(TIMEOUT);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            let text = serde_json::to_string(body).map_err(|error| self.unreadable(act, &error))?;
            request = request.header("content-type", "application/json").body(text);
        }
        let answer = request.send().await.map_err(|error| self.away(&error))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| self.away(&error))?;
        if !status.is_success() {
            return Err(ClusterError::Refused {
                act: act.to_string(),
                status: status.as_u16(),
                said: refusal(&text),
            });
        }
        // Some answers are empty.
        let text = if text.is_empty() { "null" } else { &text };
        serde_json::from_str(text).map_err(|error| self.unreadable(act, &error))
    }

    fn away(&self, error: &reqwest::Error) -> ClusterError {
        let mut why: &dyn std::error::Error = error;
        while let Some(source) = why.source() {
            why = source;
        }
        ClusterError::Away {
            url: self.base.clone(),
            why: why.to_string(),
        }
    }

    fn unreadable(&self, act: &str, error: &serde_json::Error) -> ClusterError {
        ClusterError::Unreadable {
            act: act.to_string(),
            why: error.to_string(),
        }
    }
}

/// Arroyo says why as `{"error": "..."}`; anything else is shown as it is.
fn refusal(text: &str) -> String {
    let told: Option<Value> = serde_json::from_str(text).ok();
    let told = told.as_ref().and_then(|told| told["error"].as_str().or(told["message"].as_str()));
    told.unwrap_or(text).chars().take(ANSWER_CHARS_MAX).collect()
}
