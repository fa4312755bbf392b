//! The four calls of Amazon Kinesis that a reader needs, and what their refusals mean.
//!
//! The only place that knows the SDK. It tries nothing twice: waiting is the readers' matter, who know
//! how far they are and keep their share of a shard's five reads a second.
//!
//! Invariant: no text of an error holds a byte of a record.

use std::error::Error;
use std::sync::Arc;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Region;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{Record, ShardIteratorType};

use super::KinesisSettings;
use super::shards::Shard;

/// Shards that one source follows: Amazon's largest on-demand stream has so many.
const SHARDS_MAX: usize = 10_000;
/// An error's text is cut here: it goes into one line of a log.
const ERROR_CHARS_MAX: usize = 300;

/// Where an iterator stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The oldest record there is.
    TrimHorizon,
    /// The first record that arrived at or after this time, epoch ms.
    AtTimestamp(i64),
    /// Behind the record with this sequence number.
    After(Arc<str>),
}

/// Why Kinesis gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Too many reads or bytes.
    Throttled,
    /// The iterator is older than five minutes.
    Expired,
    /// No such stream, or no such shard.
    NotFound,
    /// What was asked for cannot be: a sequence number of another stream, a time to come.
    Refused(String),
    /// We may not.
    Denied(String),
    /// No answer, a late one, or one that says it failed there.
    Failed(String),
}

/// One answer to a read.
#[derive(Debug)]
pub struct Read {
    pub records: Vec<Record>,
    /// `None`: the shard is closed and this was its end.
    pub next: Option<String>,
    /// How far the last record is behind the newest one.
    pub behind_ms: Option<i64>,
}

/// Makes the client: credentials come from where AWS tools look for them.
pub async fn connect(settings: &KinesisSettings) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(settings.answer_timeout)
        .operation_timeout(settings.answer_timeout)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(url) = &settings.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    Client::new(&loader.load().await)
}

/// A stream of Kinesis.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    stream: String,
    records_per_read: i32,
}

impl Api {
    pub fn new(client: Client, settings: &KinesisSettings) -> Api {
        Api {
            client,
            stream: settings.stream.clone(),
            records_per_read: settings.records_per_read,
        }
    }

    /// All shards whose records are still there, closed ones too.
    pub async fn list_shards(&self) -> Result<Vec<Shard>, Trouble> {
        let mut shards = Vec::new();
        let mut next: Option<String> = None;
        while shards.len() < SHARDS_MAX {
            let request = self.client.list_shards();
            // A later page names no stream: its token does.
            let request = match next.take() {
                Some(token) => request.next_token(token),
                None => request.stream_name(&self.stream),
            };
            let answer = request.send().await.map_err(|error| trouble(&error))?;
            shards.extend(answer.shards().iter().map(|shard| {
                Shard {
                    id: shard.shard_id().into(),
                    parents: [shard.parent_shard_id(), shard.adjacent_parent_shard_id()]
                        .into_iter()
                        .flatten()
                        .map(Arc::from)
                        .collect(),
                }
            }));
            next = answer.next_token;
            if next.is_none() {
                return Ok(shards);
            }
        }
        Err(Trouble::Refused(format!("the stream has more than {SHARDS_MAX} shards")))
    }

    pub async fn iterator(&self, shard: &str, place: &Place) -> Result<String, Trouble> {
        let request = self.client.get_shard_iterator().stream_name(&self.stream).shard_id(shard);
        let request = match place {
            Place::TrimHorizon => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
            Place::AtTimestamp(at_ms) => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(*at_ms)),
            Place::After(sequence) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(&**sequence),
        };
        let answer = request.send().await.map_err(|error| trouble(&error))?;
        answer
            .shard_iterator
            .ok_or_else(|| Trouble::Failed("the answer holds no iterator".to_owned()))
    }

    pub async fn read(&self, iterator: &str) -> Result<Read, Trouble> {
        let request = self.client.get_records().shard_iterator(iterator).limit(self.records_per_read);
        let answer = request.send().await.map_err(|error| trouble(&error))?;
        Ok(Read {
            records: answer.records,
            next: answer.next_shard_iterator,
            behind_ms: answer.millis_behind_latest,
        })
    }
}

fn trouble<E>(error: &SdkError<E, HttpResponse>) -> Trouble
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    classify(error.code().unwrap_or_default(), status, || text_of(error))
}

fn classify(code: &str, status: Option<u16>, text: impl FnOnce() -> String) -> Trouble {
    match code {
        "ProvisionedThroughputExceededException" | "LimitExceededException" | "KMSThrottlingException" | "ThrottlingException" => {
            Trouble::Throttled
        }
        "ExpiredIteratorException" | "ExpiredNextTokenException" => Trouble::Expired,
        "ResourceNotFoundException" => Trouble::NotFound,
        "InvalidArgumentException" | "ValidationException" => Trouble::Refused(text()),
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignatureException"
        | "MissingAuthenticationTokenException"
        | "ExpiredTokenException"
        | "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "KMSOptInRequired" => Trouble::Denied(text()),
        _ if status == Some(429) => Trouble::Throttled,
        _ => Trouble::Failed(text()),
    }
}

/// The error and its causes, once each.
fn text_of(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        cause = error.source();
    }
    text.chars().take(ERROR_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_their_codes() {
        let check = |code, status, expected| {
            let found = classify(code, status, || "text".to_owned());
            assert_eq!(found, expected, "{code} {status:?}");
        };
        check("ProvisionedThroughputExceededException", Some(400), Trouble::Throttled);
        check("LimitExceededException", Some(400), Trouble::Throttled);
        check("", Some(429), Trouble::Throttled);
        check("ExpiredIteratorException", Some(400), Trouble::Expired);
        check("ResourceNotFoundException", Some(400), Trouble::NotFound);
        check("InvalidArgumentException", Some(400), Trouble::Refused("text".to_owned()));
        check("AccessDeniedException", Some(400), Trouble::Denied("text".to_owned()));
        check("InternalFailure", Some(500), Trouble::Failed("text".to_owned()));
        check("", None, Trouble::Failed("text".to_owned()));
    }

    #[test]
    fn causes_are_said_once_and_cut() {
        #[derive(Debug, thiserror::Error)]
        #[error("{what}")]
        struct Nested {
            what: String,
            #[source]
            cause: Option<Box<Nested>>,
        }
        let nested = |what: &str, cause| Nested {
            what: what.to_owned(),
            cause: Option::map(cause, Box::new),
        };
        let error = nested("no answer", Some(nested("no answer", Some(nested("connection refused", None)))));
        assert_eq!(text_of(&error), "no answer: connection refused");
        assert_eq!(text_of(&nested(&"x".repeat(1_000), None)).len(), ERROR_CHARS_MAX);
    }
}
