//! Who may look: the host that a request names, the password or token that it brings, and the headers that
//! keep a browser from doing more than showing the page.
//!
//! Stands before every route of the page. On loopback whoever is on the machine may look, but only under a
//! name of this machine: a page of another site that gives its own name our address gets nothing. On any other
//! address a password or a token is needed; without one set nobody may look.
//!
//! Invariant: how long a comparison takes tells nothing about the secret.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{Access, Page};

/// Scripts, styles and connections from here alone. plotly.js sets styles on what it draws and makes a style
/// sheet of its own, hence `unsafe-inline` for styles; no script runs that is not a file of ours.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const CLOSED: &str = "the page is open on loopback only; for this address set page.password or page.token, each as ${NAME}";
const FOREIGN: &str = "this name is not one of this machine; open the page as http://localhost or http://127.0.0.1, or set page.password";

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Welcome,
    /// Nothing is set that could open the page.
    Closed,
    ForeignHost,
    /// It may try with a password or a token.
    AskWho,
}

pub async fn guard(State(page): State<Arc<Page>>, request: Request, next: Next) -> Response {
    match verdict(&page.access, page.address, request.headers()) {
        Verdict::Welcome => next.run(request).await,
        Verdict::Closed => refused(StatusCode::FORBIDDEN, CLOSED),
        Verdict::ForeignHost => refused(StatusCode::FORBIDDEN, FOREIGN),
        Verdict::AskWho => {
            let mut response = refused(
                StatusCode::UNAUTHORIZED,
                "this page needs the password or the token of its settings",
            );
            let scheme = if page.access.password.is_some() {
                "Basic realm=\"Playhead\", charset=\"UTF-8\""
            } else {
                "Bearer"
            };
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            response
        }
    }
}

fn refused(status: StatusCode, text: &'static str) -> Response {
    (status, axum::Json(serde_json::json!({"error": text}))).into_response()
}

fn verdict(access: &Access, address: IpAddr, headers: &HeaderMap) -> Verdict {
    let is_open = access.password.is_none() && access.token.is_none();
    if !is_open {
        return if brings_a_secret(access, headers) {
            Verdict::Welcome
        } else {
            Verdict::AskWho
        };
    }
    if !address.to_canonical().is_loopback() {
        return Verdict::Closed;
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_of_this_machine(host) {
        Verdict::Welcome
    } else {
        Verdict::ForeignHost
    }
}

fn brings_a_secret(access: &Access, headers: &HeaderMap) -> bool {
    let Some((scheme, sent)) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' ')) else {
        return false;
    };
    let sent = sent.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return access
            .token
            .as_ref()
            .is_some_and(|token| is_same(token.as_bytes(), sent.as_bytes()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return false;
    }
    let decoded = STANDARD.decode(sent).unwrap_or_default();
    // The name is anybody's; only the password is asked for.
    let password = decoded.iter().position(|byte| *byte == b':').map(|colon| &decoded[colon + 1..]);
    match (&access.password, password) {
        (Some(known), Some(password)) => is_same(known.as_bytes(), password),
        _ => false,
    }
}

/// By their digests: where these differ says nothing about where the texts do.
fn is_same(known: &[u8], sent: &[u8]) -> bool {
    let differing = Sha256::digest(known)
        .iter()
        .zip(Sha256::digest(sent))
        .fold(0, |bits, (a, b)| bits | (a ^ b));
    differing == 0
}

/// `localhost`, or a loopback address, with any port.
fn is_of_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Headers of every answer of the page.
pub async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    const HOME: &str = "127.0.0.1";
    const ALL: &str = "0.0.0.0";

    #[track_caller]
    fn check(access: (&str, &str), address: &str, headers: &[(&str, &str)], expected: Verdict) {
        let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let access = Access {
            password: set(access.0),
            token: set(access.1),
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        assert_eq!(verdict(&access, address.parse().unwrap(), &map), expected, "{headers:?}");
    }

    #[test]
    fn on_loopback_only_names_of_this_machine_are_answered() {
        for host in [
            "localhost",
            "LOCALHOST:8480",
            "127.0.0.1:8480",
            "127.9.9.9",
            "[::1]:8480",
            "localhost.",
        ] {
            check(("", ""), HOME, &[("host", host)], Verdict::Welcome);
        }
        for host in [
            "evil.example",
            "evil.example:8480",
            "localhost.evil.example",
            "192.168.1.1",
            "[fe80::1]",
            "",
        ] {
            check(("", ""), HOME, &[("host", host)], Verdict::ForeignHost);
        }
        check(("", ""), "::1", &[("host", "localhost")], Verdict::Welcome);
        check(("", ""), "::ffff:127.0.0.1", &[("host", "localhost")], Verdict::Welcome);
    }

    #[test]
    fn elsewhere_nobody_is_without_a_secret_that_is_set() {
        check(("", ""), ALL, &[("host", "localhost")], Verdict::Closed);
        check(("open", ""), ALL, &[("host", "noc.example")], Verdict::AskWho);
        check(("open", ""), ALL, &[("authorization", "Basic YW55OndyYXA=")], Verdict::AskWho);
        check(("open", ""), ALL, &[("authorization", "Basic YW55Om9wZW4=")], Verdict::Welcome);
        check(("open", ""), ALL, &[("authorization", "Bearer open")], Verdict::AskWho);
        check(("", "t0k"), ALL, &[("authorization", "bearer t0k")], Verdict::Welcome);
        check(("", "t0k"), ALL, &[("authorization", "Basic YW55OnQwaw==")], Verdict::AskWho);
        check(("open", "t0k"), ALL, &[("authorization", "Digest x")], Verdict::AskWho);
        check(("open", ""), HOME, &[("host", "localhost")], Verdict::AskWho);
    }

    #[test]
    fn a_secret_is_compared_whole() {
        assert!(is_same(b"abc", b"abc"));
        for other in [&b""[..], b"ab", b"abcd", b"abC"] {
            assert!(!is_same(b"abc", other));
        }
    }
}
