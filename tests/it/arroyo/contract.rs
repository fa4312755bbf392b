//! A stand-in for Arroyo's REST API, as its published types have it (crates/arroyo-rpc/src/api_types of
//! 0.15 and of the 0.16 snapshot addb390a): the same paths, fields, refusals and states.
//!
//! Bodies are read with unknown fields refused, so a body that the real API would not take fails here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Udf {
    pub definition: String,
    #[serde(default)]
    language: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidateQueryPost {
    query: String,
    udfs: Option<Vec<Udf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct PipelinePost {
    name: String,
    query: String,
    udfs: Option<Vec<Udf>>,
    parallelism: u64,
    checkpoint_interval_micros: Option<u64>,
    state_url: Option<String>,
    tags: Option<HashMap<String, String>>,
    env_vars: Option<HashMap<String, String>>,
    scheduler_config: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct PipelinePatch {
    parallelism: Option<u64>,
    checkpoint_interval_micros: Option<u64>,
    stop: Option<String>,
    env_vars: Option<HashMap<String, String>>,
    scheduler_config: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paging {
    limit: Option<usize>,
    starting_after: Option<String>,
}

#[derive(Clone)]
struct Running {
    id: String,
    name: String,
    query: String,
    tags: HashMap<String, String>,
    parallelism: u64,
    stop: String,
    /// Its worker crashes on its way out: the last checkpoint never comes.
    crashes: bool,
}

impl Running {
    fn shown(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "query": self.query, "udfs": [], "checkpoint_interval_micros": 10_000_000,
            "stop": self.stop, "created_at": 1, "action": "checkpoint", "action_text": "Stop", "action_in_progress": false,
            "graph": {"nodes": [{"node_id": 1, "operator": "source", "description": "", "parallelism": self.parallelism}], "edges": []},
            "preview": false, "state_url": null, "tags": self.tags,
        })
    }

    fn state(&self) -> &'static str {
        match self.stop.as_str() {
            "none" => "Running",
            "checkpoint" if self.crashes => "CheckpointStopping",
            _ => "Stopped",
        }
    }
}

#[derive(Default)]
struct Inner {
    pipelines: Vec<Running>,
    made: usize,
    calls: Vec<String>,
    /// A text with this in it is not created.
    fails_on: Option<String>,
    /// A text with this in it is not planned.
    refuses: Option<String>,
}

type Shared = Arc<Mutex<Inner>>;
type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

/// A cluster that plans nothing and keeps books.
pub struct Contract {
    pub address: String,
    shared: Shared,
}

fn refusal(why: &str) -> (StatusCode, Json<Value>) {
    (StatusCode::BAD_REQUEST, Json(json!({"error": why})))
}

impl Contract {
    pub fn start() -> Contract {
        let shared = Shared::default();
        let app = Router::new()
            .route("/udfs/validate", post(validate_udf))
            .route("/pipelines/validate_query", post(validate_query))
            .route("/pipelines", get(list).post(create))
            .route("/pipelines/{id}", patch(change).delete(delete))
            .route("/pipelines/{id}/jobs", get(jobs))
            .route("/pipelines/{id}/jobs/{job}/checkpoints", get(checkpoints))
            .route("/pipelines/{id}/jobs/{job}/errors", get(errors))
            .with_state(Arc::clone(&shared));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                axum::serve(listener, Router::new().nest("/api/v1", app)).await
            })
        });
        Contract { address, shared }
    }

    /// The calls that changed something since they were last asked for.
    pub fn changes(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().expect("no test panicked").calls)
    }

    /// Name, width and state of each pipeline.
    pub fn pipelines(&self) -> Vec<String> {
        let inner = self.shared.lock().expect("no test panicked");
        let shown = inner
            .pipelines
            .iter()
            .map(|one| format!("{} {} {}", one.name, one.parallelism, one.state()));
        shown.collect()
    }

    pub fn texts(&self) -> Vec<String> {
        let inner = self.shared.lock().expect("no test panicked");
        inner.pipelines.iter().map(|one| one.query.clone()).collect()
    }

    pub fn fail_on(&self, text: Option<&str>) {
        self.shared.lock().expect("no test panicked").fails_on = text.map(str::to_owned);
    }

    /// Pipelines that are there now never come to a last checkpoint.
    pub fn crash_on_stop(&self) {
        let mut inner = self.shared.lock().expect("no test panicked");
        inner.pipelines.iter_mut().for_each(|one| one.crashes = true);
    }

    pub fn refuse(&self, text: Option<&str>) {
        self.shared.lock().expect("no test panicked").refuses = text.map(str::to_owned);
    }
}

async fn validate_udf(Json(udf): Json<Udf>) -> Json<Value> {
    assert_eq!(udf.language.as_deref(), Some("rust"));
    let errors: Vec<&str> = if udf.definition.contains("#[udf]") {
        vec![]
    } else {
        vec!["no #[udf]"]
    };
    Json(json!({"udf_name": "f", "errors": errors}))
}

async fn validate_query(State(shared): State<Shared>, Json(body): Json<ValidateQueryPost>) -> Json<Value> {
    let inner = shared.lock().expect("no handler panicked");
    assert!(body.udfs.is_some());
    let errors = match &inner.refuses {
        Some(text) if body.query.contains(text) => {
            json!([{"message": "Table not found", "span": {"start": {"line": 7, "column": 3}, "end": {"line": 7, "column": 9}}}])
        }
        _ => json!([]),
    };
    Json(json!({"graph": null, "errors": errors}))
}

async fn list(State(shared): State<Shared>, Query(paging): Query<Paging>) -> Json<Value> {
    let inner = shared.lock().expect("no handler panicked");
    let after = paging
        .starting_after
        .and_then(|id| inner.pipelines.iter().position(|one| one.id == id));
    // One a page, so that a page is turned.
    let from = after.map_or(0, |at| at + 1);
    let data: Vec<Value> = inner
        .pipelines
        .iter()
        .skip(from)
        .take(paging.limit.unwrap_or(10).min(1))
        .map(Running::shown)
        .collect();
    let has_more = inner.pipelines.len() > from + data.len();
    Json(json!({"data": data, "hasMore": has_more}))
}

async fn create(State(shared): State<Shared>, Json(body): Json<PipelinePost>) -> Answer {
    let mut inner = shared.lock().expect("no handler panicked");
    if inner.fails_on.as_ref().is_some_and(|text| body.query.contains(text)) {
        return Err(refusal("no slots left"));
    }
    inner.made += 1;
    inner.calls.push(format!("create {}", body.name));
    let made = Running {
        id: format!("pl_{}", inner.made),
        name: body.name,
        query: body.query,
        tags: body.tags.unwrap_or_default(),
        parallelism: body.parallelism,
        stop: "none".to_string(),
        crashes: false,
    };
    inner.pipelines.push(made.clone());
    Ok(Json(made.shown()))
}

async fn change(State(shared): State<Shared>, Path(id): Path<String>, Json(body): Json<PipelinePatch>) -> Answer {
    let mut inner = shared.lock().expect("no handler panicked");
    let Some(found) = inner.pipelines.iter_mut().find(|one| one.id == id) else {
        return Err(refusal("no such pipeline"));
    };
    found.parallelism = body.parallelism.unwrap_or(found.parallelism);
    if let Some(stop) = body.stop {
        assert!(
            ["none", "checkpoint", "graceful", "immediate", "force"].contains(&stop.as_str()),
            "{stop}"
        );
        found.stop = stop;
    }
    let (told, shown) = (format!("{} of {} to {}", found.stop, found.name, found.parallelism), found.shown());
    inner.calls.push(told);
    Ok(Json(shown))
}

async fn delete(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let mut inner = shared.lock().expect("no handler panicked");
    let Some(at) = inner.pipelines.iter().position(|one| one.id == id) else {
        return Err(refusal("no such pipeline"));
    };
    if inner.pipelines[at].stop == "none" {
        return Err(refusal("Pipeline's jobs must be in a terminal state"));
    }
    let gone = inner.pipelines.remove(at);
    inner.calls.push(format!("delete {}", gone.name));
    Ok(Json(Value::Null))
}

async fn jobs(State(shared): State<Shared>, Path(id): Path<String>) -> Answer {
    let inner = shared.lock().expect("no handler panicked");
    let Some(found) = inner.pipelines.iter().find(|one| one.id == id) else {
        return Err(refusal("no such pipeline"));
    };
    Ok(Json(json!({"data": [{
        "id": format!("job_{id}"), "pipeline_id": id, "running_desired": found.stop == "none", "state": found.state(), "run_id": 1,
        "start_time": 1, "finish_time": null, "tasks": 4, "failure_reason": null, "created_at": 1, "scheduler_config": {}, "env_vars": {},
    }]})))
}

async fn checkpoints(Path((_, _)): Path<(String, String)>) -> Json<Value> {
    let one = |epoch: u64| json!({"epoch": epoch, "backend": "parquet", "checkpoint_type": "scheduled", "start_time": 1, "finish_time": 1_767_225_600_000_000_u64 + epoch, "events": []});
    Json(json!({"data": [one(1), one(2)]}))
}

async fn errors(Path((_, _)): Path<(String, String)>) -> Json<Value> {
    Json(json!({"data": [], "hasMore": false}))
}
