//! Webhooks: a signed POST to an address that was checked.
//!
//! Invariant: a request goes to an address that `guard` has passed, unless the target says
//! `allow_private`; no redirect is followed and no proxy asked, either would go round the guard.
//! Invariant: no secret, and no path or query of a URL (they hold tokens), is in a log line.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, redirect};
use sha2::Sha256;
use tokio::sync::Mutex;
use url::Url;

use super::guard::{self, PublicOnly};
use super::{Attempt, NotifyError, TIMEOUT, reason, terminal};
use crate::alert::form::{self, Facts};
use crate::alert::message::{self, Producer};
use crate::alert::target::{WebhookForm, WebhookTarget};

/// A receiver that does not take the connection in this time is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// As much of an answer is read as can hold a reason.
const MAX_ANSWER_BYTES: usize = 4 << 10;
/// `t=<unix s>,v1=<hex>` and `kid=<id>` where the target has one: HMAC-SHA-256 over `<t>.<body>`.
const SIGNATURE: &str = "playhead-signature";
/// Statuses of a receiver that asks for patience.
const PATIENCE: [u16; 3] = [408, 425, 429];
/// Statuses that are about us or the address, not about this message.
const ABOUT_THE_TARGET: [u16; 6] = [401, 402, 403, 404, 405, 410];
/// Shorter words of a header, such as `Bearer`, are no secret.
const MIN_SECRET_CHARS: usize = 8;
const FIX: &str = "check the target's url, secret and headers";

/// Clients by whether they may speak to our own network.
#[derive(Default)]
pub(super) struct Clients {
    clients: Mutex<HashMap<bool, Client>>,
}

impl Clients {
    pub(super) async fn post(&self, target: &WebhookTarget, attempt: Attempt<'_>, producer: Producer<'_>) -> Result<(), NotifyError> {
        if !form::tells(&target.form, attempt.message.event.status) {
            return Ok(());
        }
        let name = name_of(target.url.reveal());
        let refused = |why: String| NotifyError::TargetRefused {
            target: name.clone(),
            why,
            fix: FIX,
        };
        let url = Url::parse(target.url.reveal()).map_err(|error| refused(error.to_string()))?;
        if !target.allow_private {
            let host = url.host().ok_or_else(|| refused("its url has no host".to_owned()))?;
            guard::check_literal(&host).map_err(|error| refused(error.to_string()))?;
        }
        let body = body(target, attempt).map_err(|source| NotifyError::Form {
            target: name.clone(),
            source,
        })?;
        let headers =
            headers(target, attempt, producer, &body).ok_or_else(|| refused("one of its headers holds what no header can".to_owned()))?;
        let client = self.client(target.allow_private).await.map_err(|error| away(&name, &error))?;
        let sent = client.post(url).headers(headers).body(body).send().await;
        match sent {
            Ok(answer) => judged(name, answer, target).await,
            Err(error) => match guard::refusal(&error) {
                Some(refusal) => Err(refused(refusal.to_string())),
                None => Err(away(&name, &error)),
            },
        }
    }

    async fn client(&self, allow_private: bool) -> reqwest::Result<Client> {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(&allow_private) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .https_only(!allow_private)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT);
        if !allow_private {
            builder = builder.dns_resolver(Arc::new(PublicOnly));
        }
        let client = builder.build()?;
        clients.insert(allow_private, client.clone());
        Ok(client)
    }
}

/// `webhook hooks.example.org`: a path or query may be the receiver's password.
fn name_of(url: &str) -> String {
    let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    format!("webhook {}", host.unwrap_or_default())
}

fn body(target: &WebhookTarget, attempt: Attempt) -> Result<String, form::FormError> {
    let facts = Facts {
        body: &attempt.message.body,
        text: &terminal::line(attempt),
        subject: &message::subject(&attempt.message.event),
        is_stale: attempt.is_stale,
    };
    form::render(&target.form, facts)
}

/// None where a value cannot stand in a header.
fn headers(target: &WebhookTarget, attempt: Attempt, producer: Producer, body: &str) -> Option<HeaderMap> {
    let event = &attempt.message.event;
    let mut headers = HeaderMap::new();
    let program = format!("playhead/{}", producer.version);
    for (name, value) in [
        ("content-type", "application/json"),
        ("user-agent", &program),
        ("idempotency-key", &event.event_id),
        ("playhead-event-id", &event.event_id),
        ("playhead-schema", message::SCHEMA),
        ("playhead-stale", if attempt.is_stale { "true" } else { "false" }),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).ok()?);
    }
    for (name, value) in &target.headers {
        let mut value = HeaderValue::from_str(value.reveal()).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    if let Some(secret) = &target.secret {
        let signature = signature(secret.reveal(), target.key_id.as_deref(), attempt.now_ms.div_euclid(1_000), body);
        headers.insert(HeaderName::from_static(SIGNATURE), HeaderValue::from_str(&signature).ok()?);
    }
    Some(headers)
}

/// Over time and body, so that a request that somebody has kept is refused five minutes later.
fn signature(secret: &str, key_id: Option<&str>, at_s: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length will do");
    mac.update(format!("{at_s}.{body}").as_bytes());
    let code = crate::alert::hex(&mac.finalize().into_bytes());
    match key_id {
        Some(key_id) => format!("t={at_s},kid={key_id},v1={code}"),
        None => format!("t={at_s},v1={code}"),
    }
}

/// Taken, or why not.
async fn judged(target: String, answer: Response, settings: &WebhookTarget) -> Result<(), NotifyError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let retry_after = retry_after(&answer);
    let said = reason(&without_secrets(beginning(answer).await, settings));
    let why = match said.is_empty() {
        true => format!("status {}", status.as_u16()),
        false => format!("status {}: {said}", status.as_u16()),
    };
    let code = status.as_u16();
    Err(match code {
        _ if status.is_redirection() => NotifyError::TargetRefused {
            target,
            why: format!("{why}; redirects are not followed"),
            fix: "write the address that it leads to",
        },
        503 if retry_after.is_some() => NotifyError::Throttled { target, why, retry_after },
        _ if PATIENCE.contains(&code) => NotifyError::Throttled { target, why, retry_after },
        _ if ABOUT_THE_TARGET.contains(&code) => NotifyError::TargetRefused { target, why, fix: FIX },
        _ if status.is_client_error() => NotifyError::MessageRefused { target, why },
        _ => NotifyError::Away { target, why },
    })
}

/// In seconds; the form with a date is left to our own pauses.
fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get("retry-after")?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The beginning of an answer; what comes after, or does not come, is not waited for.
async fn beginning(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= MAX_ANSWER_BYTES {
            break;
        }
    }
    bytes.truncate(MAX_ANSWER_BYTES);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A receiver may say back what it was sent.
fn without_secrets(mut said: String, target: &WebhookTarget) -> String {
    let routing_key = match &target.form {
        WebhookForm::PagerDuty { routing_key } => Some(routing_key),
        _ => None,
    };
    let secrets = target
        .headers
        .values()
        .chain(&target.secret)
        .chain(routing_key)
        .chain([&target.url]);
    for secret in secrets {
        // `Bearer x` may come back as `x`.
        for part in secret.reveal().split(' ').filter(|part| part.len() >= MIN_SECRET_CHARS) {
            said = said.replace(part, "(secret)");
        }
    }
    said
}

/// The innermost words say it; the outer ones hold the URL.
fn away(target: &str, error: &reqwest::Error) -> NotifyError {
    let mut why: &dyn std::error::Error = error;
    while let Some(source) = why.source() {
        why = source;
    }
    let is_outermost = std::ptr::addr_eq(why, error);
    let words = match error {
        _ if error.is_timeout() => format!("no answer within {} s", TIMEOUT.as_secs()),
        _ if is_outermost => "the request failed".to_owned(),
        _ => why.to_string(),
    };
    NotifyError::Away {
        target: target.to_owned(),
        why: reason(&words),
    }
}

#[cfg(test)]
mod tests;
