//! Delivery: one alert message to one target.
//!
//! Last step of the walk. `watch` decides and keeps the outbox in the lake, `outbox` says what goes
//! when, `courier` carries; this folder sends, a file a kind of target.
//!
//! Invariant: the bytes sent are those that were stored with the transition, or follow from them
//! alone; a repeat is identical. What is known only when it is sent (that it is late) goes beside
//! the body: an attribute, a header, a word in a form for people.
//! Invariant: success is said only when the target has taken the message (for SNS: a message id).
//! Invariant: one call is one attempt; whether and when there is another is the outbox's to say.

pub mod courier;
mod file;
mod guard;
pub mod outbox;
mod sns;
mod terminal;
mod webhook;

use std::path::PathBuf;
use std::time::Duration;

use crate::alert::form::FormError;
use crate::alert::message::{self, Producer};
use crate::alert::target::Target;
use crate::alert::{Status, Transition};
use outbox::{Answer, Entry};

pub use sns::Topic;
pub use terminal::Terminal;

/// A target that takes longer than this is treated as away.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest text of a target that is shown: the first sentence says it.
const MAX_REASON_CHARS: usize = 300;

/// Why a message could not be delivered. It stays in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    #[error("{target} is away: {why}; the message stays in ops.alert_events and is sent again")]
    Away { target: String, why: String },
    #[error("{target} has asked for fewer messages: {why}; the message stays in ops.alert_events and is sent again")]
    Throttled {
        target: String,
        why: String,
        retry_after: Option<Duration>,
    },
    #[error("{target} takes nothing from us: {why}; it is asked again once a minute; {fix}")]
    TargetRefused { target: String, why: String, fix: &'static str },
    #[error("{target} does not take this message: {why}; it is sent again once a minute, other alerts go on")]
    MessageRefused { target: String, why: String },
    #[error("cannot make the body for {target}: {source}; other alerts go on")]
    Form { target: String, source: FormError },
    #[error("cannot write to the terminal: {0}")]
    Terminal(std::io::Error),
    #[error("cannot append to {}: {source}; the message stays in ops.alert_events and is written again; check the folder, its rights and the space left", path.display())]
    File { path: PathBuf, source: std::io::Error },
}

impl NotifyError {
    /// What the outbox makes of it.
    pub fn answer(&self) -> Answer {
        match self {
            NotifyError::Away { .. } | NotifyError::Terminal(_) | NotifyError::File { .. } => Answer::Later { retry_after_ms: None },
            NotifyError::Throttled { retry_after, .. } => Answer::Later {
                retry_after_ms: retry_after.map(|after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX)),
            },
            NotifyError::TargetRefused { .. } => Answer::TargetRefused,
            NotifyError::MessageRefused { .. } | NotifyError::Form { .. } => Answer::MessageRefused,
        }
    }
}

/// A stored transition and its stored bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub event: Transition,
    pub body: String,
}

impl Message {
    /// For the outbox of a target; the payload may be shared by several.
    pub fn entry(self: std::sync::Arc<Self>) -> Entry<std::sync::Arc<Message>> {
        Entry {
            event_id: self.event.event_id.clone(),
            fingerprint: self.event.fingerprint.clone(),
            stored_at_ms: self.event.evaluated_at_ms.unwrap_or(self.event.window_end_ms),
            expires_at_ms: message::expires_at_ms(&self.event),
            bytes: self.body.len(),
            payload: self,
        }
    }
}

/// One attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    pub message: &'a Message,
    /// Past its `expires_at`: nobody may act on it.
    pub is_stale: bool,
    pub now_ms: i64,
}

impl Attempt<'_> {
    fn is_end(&self) -> bool {
        self.message.event.status == Status::Resolved
    }
}

/// Settings that hold for every SNS target unless the target says otherwise.
#[derive(Debug, Clone, Default)]
pub struct SnsDefaults {
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
}

/// Sends messages; keeps one client per endpoint and region, and one per webhook.
pub struct Notifier {
    terminal: Terminal,
    producer: Producer<'static>,
    sns: sns::Clients,
    webhooks: webhook::Clients,
}

impl Notifier {
    pub fn new(defaults: SnsDefaults, terminal: Terminal, producer: Producer<'static>) -> Notifier {
        Notifier {
            terminal,
            producer,
            sns: sns::Clients::new(defaults),
            webhooks: webhook::Clients::default(),
        }
    }

    /// Sends one message and returns once the target has it. Targets do not wait for each other: it
    /// may be called for several at once.
    ///
    /// # Errors
    /// The target is away, throttles or refuses; `NotifyError::answer` tells the outbox which.
    pub async fn deliver(&self, target: &Target, attempt: Attempt<'_>) -> Result<(), NotifyError> {
        match target {
            Target::Stdout => self.terminal.write(attempt).map_err(NotifyError::Terminal),
            Target::File(target) => file::append(target, attempt).await,
            Target::Sns(target) => self.sns.publish(target, attempt, self.producer).await,
            Target::Webhook(target) => self.webhooks.post(target, attempt, self.producer).await,
        }
    }

    /// Sends published figures to a topic: they are not kept, and not sent again.
    ///
    /// # Errors
    /// As `deliver`.
    pub async fn publish(&self, topic: &Topic, figures: &[crate::publish::Figure]) -> Result<(), NotifyError> {
        self.sns.publish_figures(topic, figures).await
    }
}

/// A reason as a target words it, fit for a log line.
fn reason(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().chars().take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
pub(crate) mod tests;
