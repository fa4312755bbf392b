//! Answers: what a client is told, and what a browser is allowed.
//!
//! Stands last in the walk of a request (events and metrics, 2.5): 204 taken, 200 in part, 400 not at
//! all, 410 stop for good, 429 and 503 come again later.
//!
//! Invariant: an answer says nothing of the records but their places and the rules they broke.

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, CONNECTION, CONTENT_TYPE, ORIGIN, RETRY_AFTER, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::body::BodyError;
use super::records::{RecordsError, Taken};
use crate::source::spool::SpoolError;

/// When to come again: two local commits later there is room, or somebody has to help anyway.
const RETRY_AFTER_S: &str = "10";
/// How long a browser need not ask again: a day, the most that any of them keeps.
const PREFLIGHT_MAX_AGE_S: &str = "86400";
const ALLOWED_METHODS: &str = "POST";
const ALLOWED_HEADERS: &str = "Content-Type, Content-Encoding, CMCD-Request, CMCD-Object, CMCD-Status, CMCD-Session";

/// Any page may send.
pub const ANY_ORIGIN: &str = "*";

/// Why a request was refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this receiver takes no events; stop sending for the rest of the session")]
    Gone,
    #[error("the body took too long to arrive")]
    TooSlow,
    #[error("the body is larger than {limit_bytes} bytes; send fewer records at once")]
    TooLarge { limit_bytes: usize },
    #[error("the body holds more than {limit_bytes} bytes unpacked; send fewer records at once")]
    TooLargeUnpacked { limit_bytes: usize },
    #[error("the body holds more than {records_max} records; send fewer at once")]
    TooMany { records_max: usize },
    #[error("content type not supported; send {0}")]
    ContentType(&'static str),
    #[error("content encoding not supported; send identity, gzip or zstd, once")]
    ContentEncoding,
    #[error("the body does not unpack as {0}")]
    Damaged(&'static str),
    #[error("the body broke off")]
    BrokenOff,
    #[error("the body holds no record")]
    NoRecord,
    #[error("too many requests at once; send again later")]
    Busy,
    #[error("no room for more events now; send again later")]
    Full,
    #[error("events cannot be stored now; send again later")]
    Unavailable,
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::Gone => StatusCode::GONE,
            Refusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::TooLarge { .. } | Refusal::TooLargeUnpacked { .. } | Refusal::TooMany { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::ContentType(_) | Refusal::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::Damaged(_) | Refusal::BrokenOff | Refusal::NoRecord => StatusCode::BAD_REQUEST,
            Refusal::Busy | Refusal::Full => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Nothing of the body was stored, and the client may keep it and come again.
    fn may_come_again(&self) -> bool {
        matches!(self, Refusal::Busy | Refusal::Full | Refusal::Unavailable)
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Refusal {
        match error {
            BodyError::TooLarge {
                limit_bytes,
                is_unpacked: false,
            } => Refusal::TooLarge { limit_bytes },
            BodyError::TooLarge { limit_bytes, .. } => Refusal::TooLargeUnpacked { limit_bytes },
            BodyError::NoMemory => Refusal::Busy,
            BodyError::TooSlow => Refusal::TooSlow,
            BodyError::BrokenOff => Refusal::BrokenOff,
            BodyError::Damaged(encoding) => Refusal::Damaged(encoding.as_str()),
        }
    }
}

impl From<RecordsError> for Refusal {
    fn from(error: RecordsError) -> Refusal {
        match error {
            RecordsError::TooMany { records_max } => Refusal::TooMany { records_max },
            RecordsError::NoMemory => Refusal::Busy,
        }
    }
}

impl From<SpoolError> for Refusal {
    fn from(error: SpoolError) -> Refusal {
        match error {
            SpoolError::Full { .. } => Refusal::Full,
            SpoolError::Io { .. } | SpoolError::Locked { .. } => Refusal::Unavailable,
        }
    }
}

/// What became of each record of a body.
#[derive(Serialize)]
struct Summary {
    received: usize,
    accepted: usize,
    rejected: Vec<Rejected>,
}

#[derive(Serialize)]
struct Rejected {
    index: usize,
    reason: &'static str,
    detail: String,
}

/// The answer to a body whose records are stored or counted as refused. `has_summary`: the route's
/// clients understand an answer in part; CMCD knows none.
pub fn of_taken(taken: Taken, has_summary: bool) -> Response {
    let received = taken.received;
    let accepted = received - taken.refusals.len();
    let status = match accepted {
        _ if taken.refusals.is_empty() => return empty(StatusCode::NO_CONTENT),
        0 => StatusCode::BAD_REQUEST,
        _ if has_summary => StatusCode::OK,
        _ => return empty(StatusCode::NO_CONTENT),
    };
    let rejected = taken.refusals.into_iter().map(|refusal| Rejected {
        index: refusal.index,
        reason: refusal.reject.reason.as_str(),
        detail: refusal.reject.detail,
    });
    let summary = Summary {
        received,
        accepted,
        rejected: rejected.collect(),
    };
    let json = serde_json::to_string(&summary).expect("texts and numbers are always JSON");
    let mut response = with_body(status, json);
    set(&mut response, CONTENT_TYPE, "application/json");
    response
}

pub fn of_refusal(refusal: &Refusal) -> Response {
    let mut response = with_body(refusal.status(), format!("{refusal}\n"));
    set(&mut response, CONTENT_TYPE, "text/plain; charset=utf-8");
    if refusal.may_come_again() {
        set(&mut response, RETRY_AFTER, RETRY_AFTER_S);
    }
    if matches!(refusal, Refusal::TooSlow | Refusal::BrokenOff) {
        set(&mut response, CONNECTION, "close");
    }
    response
}

/// What a browser asks before it sends from another site.
pub fn of_preflight() -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    set(&mut response, ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    set(&mut response, ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    set(&mut response, ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE_S);
    response
}

/// Lets the page that sent the request read the answer, if its origin is on the list.
pub fn allow_origin(mut response: Response, headers: &HeaderMap, allowed_origins: &[String]) -> Response {
    let is_any = allowed_origins.iter().any(|allowed| allowed == ANY_ORIGIN);
    let origin = headers.get(ORIGIN);
    let is_listed = origin.is_some_and(|origin| allowed_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()));
    if !is_any {
        set(&mut response, VARY, "Origin");
    }
    match origin {
        Some(_) if is_any => set(&mut response, ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN),
        Some(origin) if is_listed => {
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        _ => return response,
    }
    set(&mut response, ACCESS_CONTROL_EXPOSE_HEADERS, "Retry-After");
    response
}

fn set(response: &mut Response, name: axum::http::HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn with_body(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}
