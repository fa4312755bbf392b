//! SNS: one message a publish, standard and FIFO topics; published figures in batches.
//!
//! Invariant: a message with its attributes is never larger than SNS takes, and always valid JSON.
//! Invariant: on a FIFO topic the group is the alert and the de-duplication id the event, so that a
//! repeat within five minutes is one message, and a resolve is never taken for its firing.
//! Invariant: a log line names a topic without its account.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sns::Client;
use aws_sdk_sns::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};
use tokio::sync::Mutex;

use super::{Attempt, NotifyError, SnsDefaults, TIMEOUT, reason, terminal};
use crate::alert::message::{self, Producer};
use crate::alert::target::{SnsForm, SnsTarget};
use crate::publish::Figure;

/// Most bytes of a message and its attributes.
const MAX_BYTES: usize = 262_144;
/// An SMS of more than this is cut into several.
const MAX_SHORT_CHARS: usize = 160;
/// The most messages of one batch.
const MAX_BATCH: usize = 10;
/// A figure that is later than this is old news; the next one is on its way.
const FIGURE_TIMEOUT: Duration = Duration::from_secs(2);
/// Words in the error codes that ask for patience.
const THROTTLING: [&str; 4] = ["Throttl", "TooManyRequests", "RequestLimitExceeded", "SlowDown"];
/// Codes that are about the message; every other refusal is about the topic or about us.
const ABOUT_THE_MESSAGE: [&str; 5] = [
    "InvalidParameter",
    "InvalidParameterException",
    "InvalidParameterValue",
    "ParameterValueInvalid",
    "ValidationException",
];
const FIX: &str = "check the topic, its region and policy, and the credentials";

/// A topic that figures are published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub arn: String,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
}

/// One client per endpoint and region.
pub(super) struct Clients {
    defaults: SnsDefaults,
    clients: Mutex<HashMap<(Option<String>, String), Client>>,
}

/// What goes over the wire.
#[derive(Debug, Clone, PartialEq)]
struct Publish {
    message: String,
    structure: Option<&'static str>,
    subject: Option<String>,
    group_id: Option<String>,
    deduplication_id: Option<String>,
    attributes: BTreeMap<&'static str, String>,
}

impl Clients {
    pub(super) fn new(defaults: SnsDefaults) -> Clients {
        Clients {
            defaults,
            clients: Mutex::new(HashMap::new()),
        }
    }

    pub(super) async fn publish(&self, target: &SnsTarget, attempt: Attempt<'_>, producer: Producer<'_>) -> Result<(), NotifyError> {
        let topic = name_of(&target.topic_arn);
        let publish = publish(target, attempt, producer);
        if publish.bytes() > MAX_BYTES {
            let why = format!("it has {} bytes, more than SNS takes ({MAX_BYTES})", publish.bytes());
            return Err(NotifyError::MessageRefused { target: topic, why });
        }
        let client = self.client(target.endpoint_url.as_ref(), Some(&target.region)).await;
        let mut request = client
            .publish()
            .topic_arn(&target.topic_arn)
            .message(publish.message)
            .set_message_structure(publish.structure.map(str::to_owned))
            .set_subject(publish.subject)
            .set_message_group_id(publish.group_id)
            .set_message_deduplication_id(publish.deduplication_id);
        for (name, value) in publish.attributes {
            request = request.message_attributes(name, attribute(value));
        }
        match request.send().await {
            Ok(answer) if answer.message_id().is_some() => Ok(()),
            Ok(_) => Err(NotifyError::Away {
                target: topic,
                why: "the answer holds no message id".to_owned(),
            }),
            Err(error) => Err(trouble(topic, &error)),
        }
    }

    /// Each entry of a batch has an answer of its own; the first that failed is told.
    pub(super) async fn publish_figures(&self, topic: &Topic, figures: &[Figure]) -> Result<(), NotifyError> {
        let client = self.client(topic.endpoint_url.as_ref(), topic.region.as_ref()).await;
        let name = name_of(&topic.arn);
        let is_fifo = is_fifo(&topic.arn);
        for batch in batches(figures) {
            let entries = batch.iter().enumerate().map(|(index, figure)| {
                PublishBatchRequestEntry::builder()
                    .id(index.to_string())
                    .message(&figure.message)
                    .set_subject((!is_fifo).then(|| Figure::SUBJECT.to_owned()))
                    .message_attributes(Figure::ATTRIBUTE, attribute(figure.update_type.as_str().to_owned()))
                    .set_message_group_id(is_fifo.then(|| figure.group_id()))
                    .set_message_deduplication_id(is_fifo.then(|| figure.id()))
                    .build()
                    .expect("an id and a message are all it needs")
            });
            let request = client.publish_batch().topic_arn(&topic.arn);
            let request = request.set_publish_batch_request_entries(Some(entries.collect()));
            let Ok(sent) = tokio::time::timeout(FIGURE_TIMEOUT, request.send()).await else {
                let why = format!("no answer within {FIGURE_TIMEOUT:?}");
                return Err(NotifyError::Away { target: name, why });
            };
            let answer = sent.map_err(|error| trouble(name.clone(), &error))?;
            if let Some(failed) = answer.failed().first() {
                let why = reason(&format!("{}: {}", failed.code(), failed.message().unwrap_or_default()));
                return Err(NotifyError::MessageRefused { target: name, why });
            }
        }
        Ok(())
    }

    async fn client(&self, endpoint_url: Option<&String>, region: Option<&String>) -> Client {
        let endpoint = endpoint_url.or(self.defaults.endpoint_url.as_ref()).cloned();
        let region = self.defaults.region.as_ref().or(region).cloned().unwrap_or_default();
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(&(endpoint.clone(), region.clone())) {
            return client.clone();
        }
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            // When there is another attempt is the outbox's to say.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(TIMEOUT).build());
        if !region.is_empty() {
            loader = loader.region(aws_config::Region::new(region.clone()));
        }
        if let Some(endpoint) = &endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let client = Client::new(&loader.load().await);
        clients.insert((endpoint, region), client.clone());
        client
    }
}

fn is_fifo(topic_arn: &str) -> bool {
    topic_arn.ends_with(".fifo")
}

/// `SNS topic noc`: an ARN holds the account.
fn name_of(topic_arn: &str) -> String {
    let name = topic_arn.rsplit(':').next().unwrap_or_default();
    format!("SNS topic {name}")
}

fn attribute(value: String) -> MessageAttributeValue {
    let attribute = MessageAttributeValue::builder().data_type("String").string_value(value);
    attribute.build().expect("a type is all it needs")
}

fn publish(target: &SnsTarget, attempt: Attempt, producer: Producer) -> Publish {
    let event = &attempt.message.event;
    let is_fifo = is_fifo(&target.topic_arn);
    let mut attributes = BTreeMap::from(message::attributes(event, producer));
    if attempt.is_stale {
        attributes.insert("stale", "true".to_owned());
    }
    let taken: usize = attributes.iter().map(|(name, value)| attribute_bytes(name, value)).sum();
    let room = MAX_BYTES - taken.min(MAX_BYTES);
    let (message, structure) = match target.form {
        SnsForm::Json => (message::fit(attempt.message.body.clone(), room), None),
        SnsForm::PerProtocol => (per_protocol(attempt, room), Some("json")),
    };
    Publish {
        message,
        structure,
        // A FIFO topic has no mail readers, and has refused a JSON body with a subject (alerts spec 2.1).
        subject: (!is_fifo).then(|| message::subject(event)),
        group_id: is_fifo.then(|| event.fingerprint.to_string()),
        deduplication_id: is_fifo.then(|| event.event_id.clone()),
        attributes,
    }
}

impl Publish {
    fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| attribute_bytes(name, value));
        self.message.len() + attributes.sum::<usize>()
    }
}

/// Name, type and value count.
fn attribute_bytes(name: &str, value: &str) -> usize {
    name.len() + "String".len() + value.len()
}

/// A short text where a person reads it, the JSON where a machine does. All of them share one limit, so the
/// JSON is cut until both copies of it fit.
fn per_protocol(attempt: Attempt, room: usize) -> String {
    let line = terminal::line(attempt);
    let short: String = line.chars().take(MAX_SHORT_CHARS).collect();
    let mail = mail(attempt, &line);
    let mut limit = room;
    loop {
        let body = message::fit(attempt.message.body.clone(), limit);
        let whole = serde_json::json!({
            "default": &line, "email": &mail, "sms": &short, "lambda": &body, "sqs": &body,
        })
        .to_string();
        // What cannot be cut further is refused by the caller, who measures.
        if whole.len() <= room || body.len() > limit {
            return whole;
        }
        limit = limit * 3 / 4;
    }
}

fn mail(attempt: Attempt, line: &str) -> String {
    let event = &attempt.message.event;
    let mut text = format!("{line}\n");
    for sentence in event.annotations.values() {
        text.push_str(&format!("\n{sentence}\n"));
    }
    for cause in event.causes.iter().flat_map(|causes| &causes.found) {
        text.push_str(&format!("\nCause: {cause}\n"));
    }
    let runbook = event.runbook.iter().map(|url| ("runbook", url));
    let links = event.links.iter().map(|(name, url)| (name.as_str(), url));
    for (name, url) in runbook.chain(links) {
        text.push_str(&format!("\n{}: {}\n", message::clean(name), message::clean(url)));
    }
    let end = if attempt.is_end() { "It is over." } else { "It goes on." };
    text.push_str(&format!("\n{end} Alert {}, step {}.\n", event.episode_id(), event.seq));
    text
}

/// Batches by number and by bytes: the sum has the same limit as one message.
fn batches(figures: &[Figure]) -> Vec<&[Figure]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, figure) in figures.iter().enumerate() {
        let weight = figure.message.len() + attribute_bytes(Figure::ATTRIBUTE, figure.update_type.as_str());
        if index > start && (index - start == MAX_BATCH || bytes + weight > MAX_BYTES) {
            batches.push(&figures[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += weight;
    }
    if start < figures.len() {
        batches.push(&figures[start..]);
    }
    batches
}

/// Away, throttled or refused.
fn trouble<E>(target: String, error: &SdkError<E>) -> NotifyError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let SdkError::ServiceError(answer) = error else {
        let why = reason(&DisplayErrorContext(error).to_string());
        return match error {
            SdkError::ConstructionFailure(_) => NotifyError::TargetRefused { target, why, fix: FIX },
            _ => NotifyError::Away { target, why },
        };
    };
    let status = answer.raw().status().as_u16();
    let code = answer.err().code().unwrap_or_default();
    let why = reason(&format!("{code} ({status}): {}", answer.err().message().unwrap_or_default()));
    let is_throttling = status == 429 || THROTTLING.iter().any(|word| code.contains(word));
    if is_throttling {
        let retry_after = answer.raw().headers().get("retry-after").and_then(|text| text.parse().ok());
        return NotifyError::Throttled {
            target,
            why,
            retry_after: retry_after.map(Duration::from_secs),
        };
    }
    match status {
        400..500 if status != 408 && ABOUT_THE_MESSAGE.contains(&code) && !names_the_topic(&why) => {
            NotifyError::MessageRefused { target, why }
        }
        400..500 if status != 408 => NotifyError::TargetRefused { target, why, fix: FIX },
        _ => NotifyError::Away { target, why },
    }
}

/// SNS calls a malformed ARN, or one of another region, an invalid parameter.
fn names_the_topic(why: &str) -> bool {
    ["TopicArn", "Topic ARN"].iter().any(|word| why.contains(word))
}

#[cfg(test)]
mod tests;
