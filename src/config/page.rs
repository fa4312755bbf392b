//! The settings of the page and of the live figures for apps: who may look, and how much is told.
//!
//! Part of `config`; read by the daemon, which hands the values to `serve`.
//!
//! Invariant: a password or a token comes from the environment and is never shown.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Checks;
use super::file::{LiveFile, PageFile};

/// Shorter secrets are found by trying.
const SECRET_CHARS_MIN: usize = 8;
/// Each connection costs a descriptor and some kilobytes.
const CONNECTIONS: RangeInclusive<u64> = 1..=100_000;
/// Below one a content that nobody watches would be named.
const MIN_VIEWERS: RangeInclusive<u64> = 1..=1_000_000;
/// Longer lists are a table, not a widget.
const TOP: RangeInclusive<u64> = 0..=1_000;
/// More often than the figures change is waste; more seldom is not live.
const EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// The page on the HTTP port.
#[derive(Clone, PartialEq, Eq)]
pub struct Page {
    pub enabled: bool,
    pub password: Option<String>,
    pub token: Option<String>,
    /// At once, where the page has an address of its own (`http.status`).
    pub connections: u64,
    pub live: Live,
}

/// The live figures for apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    pub is_public: bool,
    pub origins: Vec<String>,
    pub min_viewers: u64,
    pub top: u64,
    pub every: Duration,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("enabled", &self.enabled)
            .field("password", &self.password.as_ref().map(|_| "..."))
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("connections", &self.connections)
            .field("live", &self.live)
            .finish()
    }
}

pub fn page(written: PageFile, checks: &mut Checks) -> Page {
    let count = |count: &u64| count.to_string();
    Page {
        enabled: written.enabled.unwrap_or(true),
        password: secret(written.password, "page.password", checks),
        token: secret(written.token, "page.token", checks),
        connections: checks.within("page.connections", written.connections.unwrap_or(512), CONNECTIONS, count),
        live: live(written.live, checks),
    }
}

fn live(written: LiveFile, checks: &mut Checks) -> Live {
    let origins = written.origins.unwrap_or_default();
    let is_origin =
        |origin: &&String| *origin == "*" || url::Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == **origin);
    if let Some(wrong) = origins.iter().find(|origin| !is_origin(origin)) {
        checks.complain(
            "page.live.origins",
            format!("{wrong:?} is no origin"),
            "write it as https://www.example.com, or * for all",
        );
    }
    let count = |count: &u64| count.to_string();
    Live {
        is_public: written.public.unwrap_or(false),
        origins,
        min_viewers: checks.within("page.live.min_viewers", written.min_viewers.unwrap_or(10), MIN_VIEWERS, count),
        top: checks.within("page.live.top", written.top.unwrap_or(20), TOP, count),
        every: checks.span("page.live.every", written.every, Duration::from_secs(5), EVERY),
    }
}

fn secret(written: Option<String>, key: &str, checks: &mut Checks) -> Option<String> {
    let text = written?;
    if !checks.places.of(key).from_environment {
        let fix = format!(
            "put it into an environment variable and write `{}: ${{NAME}}`",
            key.trim_start_matches("page.")
        );
        checks.complain(key, "a secret is written into the settings file", fix);
    }
    if text.trim().chars().count() < SECRET_CHARS_MIN {
        let fix = format!("take one of {SECRET_CHARS_MIN} characters or more, such as that of `openssl rand -hex 16`");
        checks.complain(key, "this secret is too short", fix);
    }
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, parse};

    fn settings(text: &str) -> Result<Config, Vec<String>> {
        let env = |name: &str| match name {
            "GOOD" => Some("battery staple\n".to_owned()),
            "SHORT" => Some("abc".to_owned()),
            _ => None,
        };
        let texts = [("page.yaml".to_owned(), text.to_owned())];
        parse(&texts, &env, &|_| false).map_err(|complaints| complaints.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_secret_comes_from_the_environment_and_is_not_shown() {
        let config = settings("page: {password: \"${GOOD}\"}").unwrap();
        assert_eq!(config.page.password.as_deref(), Some("battery staple"));
        assert!(!format!("{config:?}").contains("battery"));
    }

    #[test]
    fn what_would_not_protect_is_refused() {
        let complaints = settings("page: {password: open sesame, token: \"${SHORT}\", live: {origins: [example.com]}}").unwrap_err();
        let text = complaints.join("\n");
        for expected in [
            "page.password: a secret is written",
            "page.token: this secret is too short",
            "\"example.com\" is no origin",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert!(!text.contains("sesame"), "{text}");
        assert!(settings("page: {live: {origins: [\"https://www.example.com\", \"*\"]}}").is_ok());
    }
}
