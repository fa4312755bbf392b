//! The HTTP receiver: `POST /cmcd` for players that speak CTA-5004-B, `POST /v1/events` for all others.
//!
//! Stands before the spool. A request is read within bounds, its records are decoded, enriched and
//! made anonymous, and their lines appended to the spool; then it is answered. The files source takes
//! them from there.
//!
//! ```text
//! POST /cmcd        CMCD lines, or JSON objects; or CMCD in the headers or the query of an empty body
//! POST /v1/events   objects, arrays, NDJSON, `Records` envelopes; any dialect
//! ```
//!
//! Invariant: success is answered only for records that would survive a `kill -9` right after.
//! Invariant: every record of a body that was looked at is in the spool, as an event or as a refusal.
//! Invariant: no full client address leaves memory: not to disk, not to a log, not to an answer.

mod answer;
mod body;
mod client_address;
mod clock_skew;
mod connections;
mod records;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::post;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::clock::Clock;
use crate::enrich::Enricher;
use crate::privacy::Privacy;
use crate::source::spool::Spool;
use answer::Refusal;
use body::{Encoding, Hold};
use client_address::TrustedProxies;
use clock_skew::ClockSkew;
pub use connections::InHand;
use connections::{BoundedListener, Caller, ConnectionLimits};
use records::{BodyKind, RecordLimits, Sender, Taken, Treatment};

/// The headers of CMCD (CTA-5004-B, 4), in the order in which their keys are read.
const CMCD_HEADERS: [&str; 4] = ["cmcd-request", "cmcd-object", "cmcd-status", "cmcd-session"];
/// The query parameter of CMCD.
const CMCD_PARAMETER: &str = "CMCD=";
const FORWARDED_FOR: &str = "x-forwarded-for";

const CMCD_TYPES: &str = "application/cmcd or application/json";
const EVENT_TYPES: &str = "application/json, application/x-ndjson or text/plain";

/// What the receiver is allowed and how much it takes.
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    /// `false`: every sender is told to stop for the rest of its session (410).
    pub accepting: bool,
    /// Web pages that may send, as `https://host`; `*` = all.
    pub allowed_origins: Vec<String>,
    /// Addresses and ranges whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
    /// Shift the times of a session whose clock is more than five minutes wrong.
    pub correct_clocks: bool,
    /// Of one body as sent.
    pub body_bytes_max: usize,
    /// Of one body unpacked.
    pub unpacked_bytes_max: usize,
    pub records_max: usize,
    pub record_bytes_max: usize,
    /// Of all requests together.
    pub memory_bytes_max: usize,
    pub connections_max: usize,
    pub head_time: Duration,
    pub body_time: Duration,
    pub idle_time: Duration,
}

impl Default for ReceiverSettings {
    fn default() -> ReceiverSettings {
        ReceiverSettings {
            accepting: true,
            allowed_origins: vec![answer::ANY_ORIGIN.to_owned()],
            trusted_proxies: Vec::new(),
            correct_clocks: true,
            body_bytes_max: 1 << 20,
            unpacked_bytes_max: 8 << 20,
            records_max: 5_000,
            record_bytes_max: 64 << 10,
            memory_bytes_max: 128 << 20,
            connections_max: 1_024,
            head_time: Duration::from_secs(5),
            body_time: Duration::from_secs(15),
            idle_time: Duration::from_secs(60),
        }
    }
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    #[error("http.trusted_proxies: {0:?} is neither an address nor a range; write it like 10.0.0.0/8")]
    TrustedProxy(String),
}

/// Records and requests since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiverCounts {
    /// Records of all bodies that were looked at; `accepted` and `rejected` add up to it.
    pub received: u64,
    pub accepted: u64,
    pub rejected: u64,
    /// Requests of which nothing was stored, by the class of their answer.
    pub refused_by_client_fault: u64,
    pub refused_for_load: u64,
    pub refused_for_failure: u64,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    rejected: AtomicU64,
    refused_by_client_fault: AtomicU64,
    refused_for_load: AtomicU64,
    refused_for_failure: AtomicU64,
}

/// Takes requests to the spool.
pub struct Receiver {
    settings: ReceiverSettings,
    accepting: AtomicBool,
    proxies: TrustedProxies,
    treatment: Arc<Treatment>,
    clock: Arc<dyn Clock>,
    spool: Arc<Spool>,
    memory: Arc<Semaphore>,
    counters: Counters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Cmcd,
    Events,
}

impl Receiver {
    /// # Errors
    /// Settings that cannot be used.
    pub fn new(
        settings: ReceiverSettings,
        enricher: Arc<Enricher>,
        privacy: Arc<Privacy>,
        clock: Arc<dyn Clock>,
        spool: Arc<Spool>,
    ) -> Result<Receiver, ReceiverError> {
        let treatment = Treatment {
            enricher,
            privacy,
            limits: RecordLimits {
                records_max: settings.records_max,
                record_bytes_max: settings.record_bytes_max,
            },
            clock_skew: settings.correct_clocks.then(|| Mutex::new(ClockSkew::default())),
        };
        Ok(Receiver {
            accepting: AtomicBool::new(settings.accepting),
            proxies: TrustedProxies::parse(&settings.trusted_proxies).map_err(ReceiverError::TrustedProxy)?,
            treatment: Arc::new(treatment),
            clock,
            spool,
            memory: Arc::new(Semaphore::new(settings.memory_bytes_max.min(Semaphore::MAX_PERMITS))),
            counters: Counters::default(),
            settings,
        })
    }

    /// Switches intake on or off; requests in hand are finished.
    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, Ordering::Relaxed);
    }

    /// Bytes that the requests in hand hold, and the most that they may.
    pub fn memory_in_use(&self) -> (usize, usize) {
        let bound = self.settings.memory_bytes_max.min(Semaphore::MAX_PERMITS);
        (bound - self.memory.available_permits().min(bound), bound)
    }

    pub fn counts(&self) -> ReceiverCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (accepted, rejected) = (count(&self.counters.accepted), count(&self.counters.rejected));
        ReceiverCounts {
            received: accepted + rejected,
            accepted,
            rejected,
            refused_by_client_fault: count(&self.counters.refused_by_client_fault),
            refused_for_load: count(&self.counters.refused_for_load),
            refused_for_failure: count(&self.counters.refused_for_failure),
        }
    }

    async fn answer(self: Arc<Self>, route: Route, caller: Caller, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let response = match self.take(route, &caller, &parts, body).await {
            Ok(taken) => answer::of_taken(taken, route == Route::Events),
            Err(refusal) => {
                self.count_refusal(refusal.status());
                answer::of_refusal(&refusal)
            }
        };
        answer::allow_origin(response, &parts.headers, &self.settings.allowed_origins)
    }

    async fn take(&self, route: Route, caller: &Caller, parts: &Parts, body: axum::body::Body) -> Result<Taken, Refusal> {
        let received = self.read(route, caller, parts, body).await?;
        self.store(received).await
    }

    /// What the request brought, within the bounds; nothing of it is looked at yet.
    async fn read(&self, route: Route, caller: &Caller, parts: &Parts, body: axum::body::Body) -> Result<Received, Refusal> {
        if !self.accepting.load(Ordering::Relaxed) {
            return Err(Refusal::Gone);
        }
        if self.spool.has_failed() {
            return Err(Refusal::Unavailable);
        }
        if self.spool.is_full() {
            return Err(Refusal::Full);
        }
        let kind = kind_of(route, &parts.headers)?;
        let mut encoding = Encoding::of(&parts.headers).ok_or(Refusal::ContentEncoding)?;
        let mut hold = Hold::of(&self.memory);
        let limit = self.settings.body_bytes_max;
        let mut bytes = body::read(body, &parts.headers, limit, self.settings.body_time, &mut hold).await?;
        if bytes.is_empty() {
            encoding = Encoding::Identity;
            if route == Route::Cmcd {
                bytes = cmcd_of_head(&parts.headers, &parts.uri);
            }
        }
        Ok(Received {
            bytes,
            encoding,
            kind,
            sender: self.sender(caller, parts),
            hold,
        })
    }

    async fn store(&self, received: Received) -> Result<Taken, Refusal> {
        let treatment = Arc::clone(&self.treatment);
        let limit = self.settings.unpacked_bytes_max;
        // Unpacking and decoding take some milliseconds for a large body: on a thread for such work.
        let work = tokio::task::spawn_blocking(move || received.treat(&treatment, limit));
        // A panic or a runtime that is being shut down: nothing was stored, and the client keeps its records.
        let (mut taken, _hold) = work.await.unwrap_or(Err(Refusal::Unavailable))?;
        if taken.received == 0 {
            return Err(Refusal::NoRecord);
        }
        self.spool.append(std::mem::take(&mut taken.lines)).await?;
        self.count_records(&taken);
        Ok(taken)
    }

    fn sender(&self, caller: &Caller, parts: &Parts) -> Sender {
        let forwarded: Vec<&str> = parts
            .headers
            .get_all(FORWARDED_FOR)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        Sender {
            address: self.proxies.client_address(caller.address(), forwarded.into_iter()),
            user_agent: parts
                .headers
                .get(USER_AGENT)
                .and_then(|value| records::user_agent(value.as_bytes())),
            received_at_ms: self.clock.now_ms(),
        }
    }

    fn count_records(&self, taken: &Taken) {
        let rejected = taken.refusals.len() as u64;
        self.counters.rejected.fetch_add(rejected, Ordering::Relaxed);
        self.counters
            .accepted
            .fetch_add(taken.received as u64 - rejected, Ordering::Relaxed);
    }

    fn count_refusal(&self, status: StatusCode) {
        let counter = match status {
            StatusCode::TOO_MANY_REQUESTS => &self.counters.refused_for_load,
            StatusCode::SERVICE_UNAVAILABLE => &self.counters.refused_for_failure,
            _ => &self.counters.refused_by_client_fault,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request that was read to its end.
struct Received {
    bytes: Vec<u8>,
    encoding: Encoding,
    kind: BodyKind,
    sender: Sender,
    hold: Hold,
}

impl Received {
    /// The lines of its records, and the memory that they take.
    fn treat(mut self, treatment: &Treatment, unpacked_bytes_max: usize) -> Result<(Taken, Hold), Refusal> {
        let bytes = body::unpack(self.encoding, self.bytes, unpacked_bytes_max, &mut self.hold)?;
        let kind = kind_by_content(self.kind, &bytes);
        let taken = treatment.take(&bytes, kind, &self.sender, &mut self.hold)?;
        Ok((taken, self.hold))
    }
}

/// What the route reads a body of this content type as; parameters such as `charset` do not count.
fn kind_of(route: Route, headers: &HeaderMap) -> Result<BodyKind, Refusal> {
    let unsupported = match route {
        Route::Cmcd => Refusal::ContentType(CMCD_TYPES),
        Route::Events => Refusal::ContentType(EVENT_TYPES),
    };
    let value = match headers.get(CONTENT_TYPE).map(|value| value.to_str()) {
        None => "",
        Some(Ok(value)) => value,
        Some(Err(_)) => return Err(unsupported),
    };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match (route, essence.as_str()) {
        (Route::Cmcd, "" | "application/cmcd" | "text/cmcd" | "application/cmcd+text" | "text/plain") => Ok(BodyKind::CmcdLines),
        (Route::Cmcd, "application/json") => Ok(BodyKind::CmcdJson),
        (Route::Events, "" | "application/json" | "application/x-ndjson" | "text/plain") => Ok(BodyKind::AnyDialect),
        _ => Err(unsupported),
    }
}

/// No CMCD line begins with a bracket: a beacon sends JSON under the name of plain text.
fn kind_by_content(kind: BodyKind, bytes: &[u8]) -> BodyKind {
    match (kind, bytes.trim_ascii_start().first()) {
        (BodyKind::CmcdLines, Some(b'{' | b'[')) => BodyKind::CmcdJson,
        (BodyKind::CmcdJson, Some(first)) if !matches!(first, b'{' | b'[') => BodyKind::CmcdLines,
        _ => kind,
    }
}

/// The record that a request without a body carries in its headers, else in its query; headers win
/// (CTA-5004-B, 4). Empty: there is none.
fn cmcd_of_head(headers: &HeaderMap, uri: &Uri) -> Vec<u8> {
    let values = CMCD_HEADERS.iter().flat_map(|name| headers.get_all(*name));
    let parts: Vec<&[u8]> = values
        .map(|value| value.as_bytes().trim_ascii())
        .filter(|value| !value.is_empty())
        .collect();
    if !parts.is_empty() {
        return parts.join(&b","[..]);
    }
    let parameters = uri.query().unwrap_or_default().split('&');
    let value = parameters.filter_map(|parameter| parameter.strip_prefix(CMCD_PARAMETER)).next();
    value.map(|value| percent_decode_str(value).collect()).unwrap_or_default()
}

/// The receiver's routes. `serve` has to serve them: they ask it for the connection's address.
pub fn router(receiver: Arc<Receiver>) -> Router {
    Router::new()
        .route("/cmcd", post(post_cmcd).options(preflight))
        .route("/v1/events", post(post_events).options(preflight))
        .with_state(receiver)
}

async fn post_cmcd(State(receiver): State<Arc<Receiver>>, ConnectInfo(caller): ConnectInfo<Caller>, request: Request) -> Response {
    answer_whole(receiver, Route::Cmcd, caller, request).await
}

async fn post_events(State(receiver): State<Arc<Receiver>>, ConnectInfo(caller): ConnectInfo<Caller>, request: Request) -> Response {
    answer_whole(receiver, Route::Events, caller, request).await
}

/// On a task of its own: a page that is left sends its last events and does not wait for the answer,
/// and what has arrived of it is stored all the same.
async fn answer_whole(receiver: Arc<Receiver>, route: Route, caller: Caller, request: Request) -> Response {
    // Before anything else of the connection is read: see `connections`.
    let in_hand = caller.begin();
    let answering = tokio::spawn(async move {
        let _in_hand = in_hand;
        receiver.answer(route, caller, request).await
    });
    // A panic, or a runtime that is being shut down: nothing was promised.
    answering.await.unwrap_or_else(|_| answer::of_refusal(&Refusal::Unavailable))
}

async fn preflight(State(receiver): State<Arc<Receiver>>, ConnectInfo(caller): ConnectInfo<Caller>, headers: HeaderMap) -> Response {
    let _in_hand = caller.begin();
    answer::allow_origin(answer::of_preflight(), &headers, &receiver.settings.allowed_origins)
}

/// Other routes that `serve` is to serve: their connections keep the receiver's deadlines. An answer that goes on
/// after its head, a stream, takes the `Arc<InHand>` of the request's extensions along.
pub fn held(routes: Router) -> Router {
    routes.layer(middleware::from_fn(hold))
}

async fn hold(ConnectInfo(caller): ConnectInfo<Caller>, mut request: Request, next: Next) -> Response {
    let in_hand = Arc::new(caller.begin());
    request.extensions_mut().insert(Arc::clone(&in_hand));
    let response = next.run(request).await;
    drop(in_hand);
    response
}

/// Serves until `stop` says so (or its sender is gone): then no connection is accepted any more, and
/// requests in hand are answered. `settings` bounds the connections.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &ReceiverSettings,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let limits = ConnectionLimits {
        connections_max: settings.connections_max,
        head_time: settings.head_time,
        idle_time: settings.idle_time,
    };
    let listener = BoundedListener::new(listener, limits);
    let service = router.into_make_service_with_connect_info::<Caller>();
    axum::serve(listener, service)
        .with_graceful_shutdown(async move {
            // Err: whoever could stop us is gone, which is a stop too.
            let _ = stop.wait_for(|is_stopped| *is_stopped).await;
        })
        .await
}
