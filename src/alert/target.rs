//! Where messages go: the targets that rule files define, as checked values.
//!
//! Stands between the reading of rules, which makes them, and `notify`, which sends to them.
//!
//! Invariant: a secret is in no `Debug` text.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stdout,
    File(FileTarget),
    Sns(SnsTarget),
    Webhook(WebhookTarget),
}

impl Target {
    /// The pause after each delivery.
    pub fn pace_ms(&self) -> i64 {
        match self {
            Target::Sns(sns) => sns.pace_ms,
            Target::Webhook(webhook) => webhook.pace_ms,
            Target::Stdout | Target::File(_) => 0,
        }
    }
}

/// A file to which each message is appended as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTarget {
    pub path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnsTarget {
    /// `arn:aws:sns:<region>:<account>:<topic>`; a name that ends in `.fifo` is a FIFO topic.
    pub topic_arn: String,
    /// Another endpoint than the region's, for tests and private links.
    pub endpoint_url: Option<String>,
    /// The topic's own region.
    pub region: String,
    pub form: SnsForm,
    /// Between two messages.
    pub pace_ms: i64,
}

/// What a topic's subscribers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnsForm {
    /// The JSON of the message, the same for all. For topics with machines behind them.
    #[default]
    Json,
    /// A short text for e-mail, SMS and whatever else, the JSON for Lambda, SQS, HTTP and Firehose.
    PerProtocol,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookTarget {
    /// `https`; `http` only with `allow_private`. Where Slack and others are reached is all that they ask for.
    pub url: Secret,
    pub form: WebhookForm,
    /// Signs each request; none leaves it unsigned.
    pub secret: Option<Secret>,
    /// Tells the receiver which secret has signed, while one replaces the other.
    pub key_id: Option<String>,
    /// True where the receiver is in our own network.
    pub allow_private: bool,
    /// Sent with each request, for instance a token that the receiver wants.
    pub headers: BTreeMap<String, Secret>,
    /// Between two messages.
    pub pace_ms: i64,
}

/// The body of a webhook's request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WebhookForm {
    /// Our own schema, `playhead.alert/1`.
    #[default]
    Json,
    /// For an incoming webhook of Slack, or of Mattermost and others that read the same.
    Slack,
    /// For the Events API v2 of PagerDuty.
    PagerDuty { routing_key: Secret },
    /// A template of the user's own that gives JSON.
    Template(String),
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for whoever needs it to sign or to send.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_nowhere() {
        let webhook = WebhookTarget {
            url: Secret::new("https://example.org/canary-0"),
            form: WebhookForm::PagerDuty {
                routing_key: Secret::new("canary-1"),
            },
            secret: Some(Secret::new("canary-2")),
            key_id: None,
            allow_private: false,
            headers: BTreeMap::from([("authorization".to_owned(), Secret::new("canary-3"))]),
            pace_ms: 0,
        };
        assert!(!format!("{:?}", Target::Webhook(webhook)).contains("canary"));
    }
}
