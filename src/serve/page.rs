//! The NOC page on the HTTP port: it draws the same dashboard files as Grafana does.
//!
//! Stands at the end of the walk, over `desk` and `dashboard`, beside the status routes.
//!
//! ```text
//! GET /, /d/<uid>, /session/<id>     the page; which of them it is, its script reads from the address
//! GET /assets/<hash>/<name>          its files, for ever: another content has another hash
//! GET /api/dashboards, /<uid>        what there is to see
//! GET /api/variables                 what can be chosen in a dashboard
//! GET /api/panel                     columns and rows of one panel, and the SQL that was run
//! GET /api/session/<id>              what `playhead session ID --json` gives
//! GET /api/incidents, /api/stream    alerts with their causes; the same as server-sent events
//! ```
//!
//! Invariant: no request brings SQL; the server completes that of the dashboard files.
//! Invariant: nothing that is answered makes a browser ask another host.
//! Invariant: past its bounds a question waits or is refused (503); ingest does not notice.

mod answers;
mod assets;
mod choices;
mod frames;
mod guard;
mod incidents;
mod panels;
mod pulse;
mod shelf;
mod stream;
mod time_range;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::desk::{Desk, SharedDesk};
use super::{dossier, live};
use crate::clock::Clock;
use crate::sql::SqlError;
use answers::Answers;
pub(super) use guard::guard;
use pulse::Pulse;
use shelf::Shelf;
pub use shelf::Source;
use stream::Streams;

/// Questions in hand: a wall of twenty screens asks this many in one second. The desk bounds those at work.
const QUESTIONS_MAX: usize = 256;
/// Longest session id that is looked for; no dialect has longer ones.
const SESSION_ID_BYTES_MAX: usize = 512;

/// Who may look, as the settings say.
#[derive(Clone, Default)]
pub struct Access {
    /// Basic, with any user name.
    pub password: Option<String>,
    /// Bearer.
    pub token: Option<String>,
}

/// What the page needs from outside.
pub struct Means {
    pub access: Access,
    pub live: live::Settings,
    /// Where it listens: on another address than loopback nobody sees it without a password or a token.
    pub address: IpAddr,
    pub dashboards: Source,
    pub clock: Arc<dyn Clock>,
    /// Streams end when this says so, or the daemon could not.
    pub stop: watch::Receiver<bool>,
}

/// Where the desk is found; nothing while the lake is being opened for the first time.
#[derive(Clone, Default)]
pub struct DeskPlace(Arc<OnceLock<Arc<SharedDesk>>>);

impl DeskPlace {
    /// A second call changes nothing: what is shared is exchanged within.
    pub fn put(&self, desk: Arc<SharedDesk>) {
        let _ = self.0.set(desk);
    }

    fn get(&self) -> Result<Arc<Desk>, Refusal> {
        let desk = self.0.get().map(|shared| shared.get());
        desk.ok_or_else(|| Refusal::Unavailable("the lake is being opened; see /readyz".to_owned()))
    }
}

/// The page and everything that it answers from.
pub struct Page {
    access: Access,
    address: IpAddr,
    desk: DeskPlace,
    shelf: Shelf,
    answers: Answers,
    pulse: Pulse,
    /// What is wrong with an edit of the alert files that is not in force.
    refused_alerts: Mutex<Option<Arc<str>>>,
    questions: Semaphore,
    pub(super) live: live::Live,
    pub(super) streams: Streams,
    clock: Arc<dyn Clock>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Wrong(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Failed(String),
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Refusal {
        match error.is_of_lake() {
            true => Refusal::Unavailable(error.to_string()),
            false => Refusal::Failed(error.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Refusal::Wrong(_) => StatusCode::BAD_REQUEST,
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Failed(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        json_answer(status, &json!({"error": self.to_string()}))
    }
}

impl Page {
    /// A page without a desk yet: put one into `desk` when the lake is open.
    pub fn new(means: Means, desk: DeskPlace) -> Arc<Page> {
        // Packing the chart library takes a moment: nobody waits for it at the first look.
        std::thread::spawn(assets::all);
        Arc::new(Page {
            access: means.access,
            address: means.address,
            desk,
            shelf: Shelf::new(means.dashboards, Arc::clone(&means.clock)),
            answers: Answers::new(Arc::clone(&means.clock)),
            pulse: Pulse::default(),
            refused_alerts: Mutex::default(),
            questions: Semaphore::new(QUESTIONS_MAX),
            live: live::Live::new(means.live),
            streams: Streams::new(means.stop),
            clock: means.clock,
        })
    }

    /// An edit of the alert files is not in force, for this; `None`: what is in the files is.
    pub fn note_alert_edit(&self, refused: Option<&str>) {
        *self.refused_alerts.lock().unwrap_or_else(PoisonError::into_inner) = refused.map(Arc::from);
    }

    fn refused_alerts(&self) -> Option<Arc<str>> {
        self.refused_alerts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn desk(&self) -> Result<Arc<Desk>, Refusal> {
        self.desk.get()
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn place(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let busy = |_| Refusal::Unavailable("too many questions at once; ask again in a second".to_owned());
        self.questions.try_acquire().map_err(busy)
    }
}

/// All routes of the page, guarded, and those of the live figures.
pub fn router(page: Arc<Page>) -> Router {
    let guarded = Router::new()
        .route("/", get(index))
        .route("/d/{*rest}", get(index))
        .route("/session/{id}", get(index))
        .route("/assets/{hash}/{name}", get(asset))
        .route("/api/dashboards", get(dashboards))
        .route("/api/dashboards/{uid}", get(dashboard))
        .route("/api/variables", get(variables))
        .route("/api/panel", get(panel))
        .route("/api/session/{id}", get(session))
        .route("/api/incidents", get(incidents))
        .route("/api/stream", get(stream))
        .layer(middleware::from_fn_with_state(Arc::clone(&page), guard))
        .with_state(Arc::clone(&page));
    guarded.merge(live::router(page)).layer(middleware::from_fn(guard::headers))
}

async fn index() -> Response {
    assets::index()
}

async fn asset(Path((hash, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    assets::answer(&hash, &name, &headers)
}

async fn dashboards(State(page): State<Arc<Page>>) -> Response {
    let shelf = page.shelf.look();
    let named = |dashboard: &Arc<super::dashboard::Dashboard>| json!({"uid": dashboard.uid, "title": dashboard.title, "description": dashboard.description, "tags": dashboard.tags});
    let list: Vec<_> = shelf.dashboards.iter().map(named).collect();
    json_answer(
        StatusCode::OK,
        &json!({"version": env!("CARGO_PKG_VERSION"), "dashboards": list, "complaints": shelf.complaints}),
    )
}

async fn dashboard(State(page): State<Arc<Page>>, Path(uid): Path<String>) -> Result<Response, Refusal> {
    let dashboard = page.shelf.find(&uid)?;
    Ok(json_answer(StatusCode::OK, &*dashboard))
}

async fn variables(State(page): State<Arc<Page>>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let _place = page.place()?;
    let answer = page.variables(query.as_deref().unwrap_or_default()).await?;
    Ok(json_answer(StatusCode::OK, &answer))
}

async fn panel(State(page): State<Arc<Page>>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let _place = page.place()?;
    let answer = page.panel(query.as_deref().unwrap_or_default()).await?;
    Ok(json_answer(StatusCode::OK, &answer))
}

async fn session(State(page): State<Arc<Page>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let _place = page.place()?;
    if id.len() > SESSION_ID_BYTES_MAX {
        return Err(Refusal::Wrong(format!("a session id is at most {SESSION_ID_BYTES_MAX} bytes long")));
    }
    let desk = page.desk()?;
    let mut parts = Vec::new();
    for text in dossier::questions(&id) {
        let answer = desk.query(&text).await?;
        parts.push(dossier::rows(&answer.batches).map_err(|error| Refusal::Failed(error.to_string()))?);
    }
    let [sessions, intervals, events] = parts.try_into().expect("there are three questions");
    let losses = dossier::LOSSES.map(|(column, name, reasons)| json!({"column": column, "name": name, "reasons": reasons}));
    Ok(json_answer(
        StatusCode::OK,
        &json!({"sessions": sessions, "intervals": intervals, "events": events, "facts": dossier::FACTS, "losses": losses}),
    ))
}

async fn incidents(State(page): State<Arc<Page>>) -> Result<Response, Refusal> {
    let state = page.state().await?;
    Ok(json_text(StatusCode::OK, state.text.to_string()))
}

async fn stream(State(page): State<Arc<Page>>, request: axum::extract::Request) -> Response {
    let source = Arc::clone(&page);
    let next = move || {
        let page = Arc::clone(&source);
        async move { page.state().await.ok().map(|state| (state.tag, Arc::clone(&state.text))) }
    };
    page.streams.answer("state", request.extensions(), next)
}

fn json_answer(status: StatusCode, value: &impl Serialize) -> Response {
    let text = serde_json::to_string(value).expect("texts, numbers and lists are always JSON");
    json_text(status, text)
}

fn json_text(status: StatusCode, text: String) -> Response {
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
