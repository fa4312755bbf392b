//! Amazon SQS as the queue of notifications.
//!
//! Serves the objects source; knows requests and nothing of objects.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry};
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use super::{BATCH, Message, Queue};

/// Attempts within one request of ours; above it the watcher waits and tries again.
const ATTEMPTS: u32 = 3;
/// Longest wait for an answer: the longest poll of 20 s, and some.
const TIMEOUT: Duration = Duration::from_secs(40);
/// Longest part of an error's text that is passed on.
const WHY_CHARS_MAX: usize = 300;

/// Where a queue stands and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePlace {
    pub queue_url: String,
    pub region: Option<String>,
    pub endpoint_url: Option<String>,
}

/// A queue of SQS. Credentials come from the environment or the machine's role, when first used.
pub struct Sqs {
    place: QueuePlace,
    client: OnceCell<Client>,
}

impl Sqs {
    pub fn new(place: QueuePlace) -> Sqs {
        Sqs {
            place,
            client: OnceCell::new(),
        }
    }

    async fn client(&self) -> &Client {
        self.client
            .get_or_init(|| async {
                let mut loader = aws_config::defaults(BehaviorVersion::latest())
                    .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
                    .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(TIMEOUT).build());
                if let Some(region) = &self.place.region {
                    loader = loader.region(aws_config::Region::new(region.clone()));
                }
                if let Some(endpoint_url) = &self.place.endpoint_url {
                    loader = loader.endpoint_url(endpoint_url);
                }
                Client::new(&loader.load().await)
            })
            .await
    }

    async fn receive(&self, wait: Duration, hold: Duration) -> Result<Vec<Message>, String> {
        let request = self.client().await.receive_message();
        let answer = request
            .queue_url(&self.place.queue_url)
            .max_number_of_messages(i32::try_from(BATCH).unwrap_or(1))
            .wait_time_seconds(seconds(wait))
            .visibility_timeout(seconds(hold))
            .send()
            .await
            .map_err(|error| why(&error))?;
        let messages = answer.messages.unwrap_or_default().into_iter();
        Ok(messages
            .filter_map(|message| {
                Some(Message {
                    id: message.message_id?,
                    receipt: message.receipt_handle?,
                    body: message.body.unwrap_or_default(),
                })
            })
            .collect())
    }

    async fn delete(&self, receipts: Vec<String>) -> Result<Vec<String>, String> {
        let mut request = self.client().await.delete_message_batch().queue_url(&self.place.queue_url);
        for (number, receipt) in receipts.iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder()
                .id(number.to_string())
                .receipt_handle(receipt)
                .build();
            request = request.entries(entry.map_err(|error| error.to_string())?);
        }
        let answer = request.send().await.map_err(|error| why(&error))?;
        // A delivery that the queue does not know any more comes again as a new one.
        let failed = answer.failed.into_iter().filter(|failed| !failed.sender_fault);
        Ok(failed
            .filter_map(|failed| receipts.get(failed.id.parse::<usize>().ok()?).cloned())
            .collect())
    }

    async fn hold(&self, receipts: Vec<String>, hold: Duration) -> Result<(), String> {
        let mut request = self
            .client()
            .await
            .change_message_visibility_batch()
            .queue_url(&self.place.queue_url);
        for (number, receipt) in receipts.iter().enumerate() {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(number.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(seconds(hold))
                .build();
            request = request.entries(entry.map_err(|error| error.to_string())?);
        }
        request.send().await.map(drop).map_err(|error| why(&error))
    }
}

impl Queue for Sqs {
    fn receive(&self, wait: Duration, hold: Duration) -> BoxFuture<'_, Result<Vec<Message>, String>> {
        Box::pin(self.receive(wait, hold))
    }

    fn delete(&self, receipts: Vec<String>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        Box::pin(self.delete(receipts))
    }

    fn hold(&self, receipts: Vec<String>, hold: Duration) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.hold(receipts, hold))
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

fn why(error: &impl std::error::Error) -> String {
    let text = DisplayErrorContext(error).to_string().replace('\n', " ");
    text.chars().take(WHY_CHARS_MAX).collect()
}
