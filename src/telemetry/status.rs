//! The status routes: what an orchestrator, a load balancer and Prometheus ask.
//!
//! ```text
//! GET /healthz   200 `ok`; 503 once only a restart helps
//! GET /readyz    200 `{"ready":true}`; 503 with each failing part: what, why, since when
//! GET /metrics   Prometheus text (`telemetry::metrics`)
//! ```
//!
//! Invariant: no answer holds a client's address, a key or an id.
//! Invariant: no route waits for the lake or a source: each answers with what was reported last.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use super::health::{Failing, SharedHealth};
use super::metrics::Meters;
use crate::clock::Clock;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// The text format's own type: Prometheus refuses what has another.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that the status routes show.
#[derive(Clone)]
pub struct StatusPage {
    pub health: SharedHealth,
    pub meters: Meters,
    pub clock: Arc<dyn Clock>,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failing: Vec<Failing>,
}

/// The three routes.
pub fn router(page: StatusPage) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(page)
}

/// Counts every answer of a router, also those to paths that it does not know.
pub fn counted(router: Router, meters: Meters) -> Router {
    router.layer(middleware::from_fn_with_state(meters, count))
}

async fn count(State(meters): State<Meters>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    meters.http_answered(&path, response.status().as_u16());
    response
}

async fn healthz(State(page): State<StatusPage>) -> Response {
    if page.health.lock().is_live() {
        return answer(StatusCode::OK, TEXT, "ok\n".to_owned());
    }
    readiness(&page)
}

async fn readyz(State(page): State<StatusPage>) -> Response {
    readiness(&page)
}

async fn metrics(State(page): State<StatusPage>) -> Response {
    answer(StatusCode::OK, PROMETHEUS_TEXT, page.meters.render())
}

fn readiness(page: &StatusPage) -> Response {
    let failing = page.health.lock().failing_parts(page.clock.now_ms());
    let ready = failing.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let json = serde_json::to_string(&Readiness { ready, failing }).expect("texts and numbers are always JSON");
    answer(status, JSON, json + "\n")
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // An answer of a minute ago is worse than none.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::clock::ManualClock;
    use crate::telemetry::health::HealthPart;

    const T0: i64 = 1_700_000_000_000;

    struct Server {
        page: StatusPage,
        address: std::net::SocketAddr,
        _runtime: tokio::runtime::Runtime,
    }

    fn server() -> Server {
        let page = StatusPage {
            health: SharedHealth::starting(T0),
            meters: Meters::new(["http"], ["bronze.player_events"]),
            clock: Arc::new(ManualClock::at(T0 + 4_000)),
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = counted(router(page.clone()), page.meters.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Server {
            page,
            address,
            _runtime: runtime,
        }
    }

    /// Status, content type and body.
    fn ask(server: &Server, method: &str, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(server.address).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let content_type = head
            .lines()
            .find_map(|line| line.strip_prefix("content-type: "))
            .unwrap_or_default();
        (status, content_type.to_owned(), body.to_owned())
    }

    #[track_caller]
    fn check(server: &Server, path: &str, status: u16, content_type: &str, body: &str) {
        let found = ask(server, "GET", path);
        assert_eq!(found, (status, content_type.to_owned(), body.to_owned()), "{path}");
    }

    #[test]
    fn a_daemon_that_starts_is_live_and_not_ready() {
        let server = server();
        check(&server, "/healthz", 200, TEXT, "ok\n");
        let starting = r#"{"ready":false,"failing":[{"part":"start","reason":"the lake is being opened","since":"2023-11-14T22:13:20Z","for_seconds":4}]}"#;
        check(&server, "/readyz", 503, JSON, &format!("{starting}\n"));
        server.page.health.lock().well(&HealthPart::Start);
        check(&server, "/readyz", 200, JSON, "{\"ready\":true}\n");
    }

    #[test]
    fn what_recovers_by_itself_is_no_reason_for_a_restart_and_what_does_not_is() {
        let server = server();
        server.page.health.lock().failing(HealthPart::Lake, "503", T0);
        check(&server, "/healthz", 200, TEXT, "ok\n");
        server.page.health.lock().broken(HealthPart::Spool, "fdatasync failed", T0);
        let (status, _, body) = ask(&server, "GET", "/healthz");
        assert_eq!(status, 503);
        assert!(body.contains("fdatasync failed"), "{body}");
    }

    #[test]
    fn metrics_come_in_prometheus_own_type_and_count_the_requests() {
        let server = server();
        check(&server, "/healthz", 200, TEXT, "ok\n");
        assert_eq!(ask(&server, "GET", "/nowhere?user=7").0, 404);
        assert_eq!(ask(&server, "POST", "/metrics").0, 405);
        let (status, content_type, body) = ask(&server, "GET", "/metrics");
        assert_eq!((status, content_type.as_str()), (200, PROMETHEUS_TEXT));
        for series in [
            r#"{path="/healthz",status="200"} 1"#,
            r#"{path="other",status="404"} 1"#,
            r#"{path="/metrics",status="405"} 1"#,
        ] {
            let line = format!("playhead_http_requests_total{series}\n");
            assert!(body.contains(&line), "{line} in\n{body}");
        }
        assert!(!body.contains("nowhere"), "{body}");
    }
}
