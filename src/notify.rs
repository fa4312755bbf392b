//! Delivery: one alert message to one target.
//!
//! Last step of the walk. `watch` decides and keeps the outbox; this file only sends.
//!
//! Invariant: the bytes sent are those that were stored with the transition; a repeat is identical.
//! Invariant: success is said only when the target has taken the message (for SNS: a message id).

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sns::Client;
use aws_sdk_sns::types::MessageAttributeValue;

use crate::alert::Transition;
use crate::alert::message;
use crate::alert::rule::Target;

/// Attempts of one delivery; the outbox tries again at the next window, so few are enough here.
const ATTEMPTS: u32 = 4;
/// A target that takes longer than this is treated as away.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why a message could not be delivered. It stays in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    #[error(
        "cannot publish to {topic}: {why}; the message stays in ops.alert_events and is sent again; check the topic, the region and the credentials"
    )]
    Sns { topic: String, why: String },
    #[error("cannot write to the terminal: {0}")]
    Terminal(#[from] std::io::Error),
}

/// Settings that hold for every SNS target unless the target says otherwise.
#[derive(Debug, Clone, Default)]
pub struct SnsDefaults {
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
}

/// Which of its two outputs the terminal target uses: a command that answers in JSON keeps the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    Output,
    Errors,
}

/// Sends messages; keeps one client per endpoint and region.
pub struct Notifier {
    defaults: SnsDefaults,
    terminal: Terminal,
    producer_version: &'static str,
    clients: HashMap<(Option<String>, String), Client>,
}

impl Notifier {
    pub fn new(defaults: SnsDefaults, terminal: Terminal, producer_version: &'static str) -> Notifier {
        Notifier {
            defaults,
            terminal,
            producer_version,
            clients: HashMap::new(),
        }
    }

    /// Sends one message and returns once the target has it.
    pub async fn deliver(&mut self, target: &Target, event: &Transition, body: &str) -> Result<(), NotifyError> {
        match target {
            Target::Stdout => {
                let line = message::human(event);
                match self.terminal {
                    Terminal::Output => writeln!(std::io::stdout().lock(), "{line}")?,
                    Terminal::Errors => writeln!(std::io::stderr().lock(), "{line}")?,
                }
                Ok(())
            }
            Target::Sns {
                topic_arn,
                endpoint_url,
                region,
            } => {
                let endpoint = endpoint_url.clone().or_else(|| self.defaults.endpoint_url.clone());
                let region = self.defaults.region.clone().unwrap_or_else(|| region.clone());
                self.publish(topic_arn, endpoint, region, event, body).await
            }
        }
    }

    async fn publish(
        &mut self,
        topic_arn: &str,
        endpoint: Option<String>,
        region: String,
        event: &Transition,
        body: &str,
    ) -> Result<(), NotifyError> {
        let producer = message::Producer {
            env: "default",
            version: self.producer_version,
        };
        let client = self.client(endpoint, region).await;
        let is_fifo = topic_arn.ends_with(".fifo");
        let mut request = client.publish().topic_arn(topic_arn).message(body);
        // A JSON body with a subject is refused by FIFO topics; mail readers want one.
        if !is_fifo {
            request = request.subject(message::subject(event));
        }
        if is_fifo {
            request = request
                .message_group_id(event.fingerprint.as_str())
                .message_deduplication_id(&event.event_id);
        }
        for (name, value) in message::attributes(event, producer) {
            let attribute = MessageAttributeValue::builder().data_type("String").string_value(value).build();
            let attribute = attribute.map_err(|error| sns_error(topic_arn, &error))?;
            request = request.message_attributes(name, attribute);
        }
        let answer = request.send().await.map_err(|error| {
            let why = aws_sdk_sns::error::DisplayErrorContext(&error).to_string();
            NotifyError::Sns {
                topic: topic_arn.to_string(),
                why,
            }
        })?;
        match answer.message_id() {
            Some(_) => Ok(()),
            None => Err(NotifyError::Sns {
                topic: topic_arn.to_string(),
                why: "the answer holds no message id".to_string(),
            }),
        }
    }

    async fn client(&mut self, endpoint: Option<String>, region: String) -> Client {
        let key = (endpoint.clone(), region.clone());
        if let Some(client) = self.clients.get(&key) {
            return client.clone();
        }
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(aws_config::Region::new(region))
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(TimeoutConfig::builder().operation_timeout(TIMEOUT).build());
        if let Some(endpoint) = endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let client = Client::new(&loader.load().await);
        self.clients.insert(key, client.clone());
        client
    }
}

fn sns_error(topic: &str, error: &dyn std::fmt::Display) -> NotifyError {
    NotifyError::Sns {
        topic: topic.to_string(),
        why: error.to_string(),
    }
}
