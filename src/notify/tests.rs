//! A message, a receiver that answers as it is told, and what the outbox makes of troubles.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

pub const PRODUCER: Producer = Producer {
    env: "test",
    version: "0.1.0",
};
/// 2026-11-01T20:15:00Z.
pub const NOW_MS: i64 = 1_793_564_100_000;

/// A firing alert as it is read back from the lake.
pub fn message() -> Message {
    let event = serde_json::json!({
        "event_id": "9501a8b83c30af850d905517dabc3329", "fingerprint": "7bd8081cf25321ed", "seq": 1,
        "status": "firing", "reason": "threshold", "rule_uid": "errors", "alert": "Errors", "owner": "team",
        "runbook": "https://runbooks.example/errors", "severity": "critical", "rules_hash": "sha256:00",
        "dims": [["isp", "Müller <!channel>"]], "labels": {}, "annotations": {"summary": "8.2 % of clients fail"},
        "value": 0.082, "unit": "ratio", "baseline": null, "ratio_to_baseline": null,
        "threshold": {"test": "value", "op": ">", "value": 0.05}, "samples": 1234.0, "samples_of": "clients",
        "is_share_of_samples": true, "window_start_ms": NOW_MS - 300_000, "window_end_ms": NOW_MS,
        "starts_at_ms": NOW_MS, "ends_at_ms": null, "targets": ["noc"], "evaluated_at_ms": NOW_MS, "lineage": []
    });
    let event: Transition = serde_json::from_value(event).unwrap();
    let body = message::json(&event, PRODUCER);
    Message { event, body }
}

pub fn attempt(message: &Message) -> Attempt<'_> {
    Attempt {
        message,
        is_stale: false,
        now_ms: NOW_MS,
    }
}

/// A request as it came: the head in lower case, and the body.
#[derive(Debug, Clone)]
pub struct Request {
    pub head: String,
    pub body: String,
}

/// Answers every request as it was last told.
pub struct Receiver {
    pub url: String,
    answer: Arc<Mutex<String>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    /// `head`: status line and headers without the length.
    pub async fn start(head: &str, body: &str) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (answer, requests) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(Vec::new())));
        let receiver = Receiver { url, answer, requests };
        receiver.set(head, body);
        let (answer, taken) = (Arc::clone(&receiver.answer), Arc::clone(&receiver.requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.lock().unwrap().clone();
                if let Some(request) = serve(stream, &answer).await {
                    taken.lock().unwrap().push(request);
                }
            }
        });
        receiver
    }

    /// What it answers from now on.
    pub fn set(&self, head: &str, body: &str) {
        let length = body.len();
        *self.answer.lock().unwrap() = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, answer: &str) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let count = stream.read(&mut part).await.ok()?;
        bytes.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if count == 0 {
                return None;
            }
            continue;
        };
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            stream.write_all(answer.as_bytes()).await.ok()?;
            return Some(Request {
                head,
                body: body.to_owned(),
            });
        }
    }
}

/// `later`, `later 20000`, `target`, `message`.
pub fn answer_of(error: &NotifyError) -> String {
    match error.answer() {
        Answer::Delivered => "delivered".to_owned(),
        Answer::Later { retry_after_ms: None } => "later".to_owned(),
        Answer::Later {
            retry_after_ms: Some(after_ms),
        } => format!("later {after_ms}"),
        Answer::TargetRefused => "target".to_owned(),
        Answer::MessageRefused => "message".to_owned(),
    }
}

#[tokio::test]
async fn a_file_gets_a_line_and_a_missing_folder_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let notifier = Notifier::new(SnsDefaults::default(), Terminal::Errors, PRODUCER);
    let message = message();
    let file = |name: &str| {
        Target::File(crate::alert::target::FileTarget {
            path: folder.path().join(name),
        })
    };
    notifier.deliver(&file("a.ndjson"), attempt(&message)).await.unwrap();
    let written = std::fs::read_to_string(folder.path().join("a.ndjson")).unwrap();
    assert_eq!(written, format!("{}\n", message.body));
    let error = notifier.deliver(&file("no/a.ndjson"), attempt(&message)).await.unwrap_err();
    assert_eq!(answer_of(&error), "later");
}

#[test]
fn an_entry_of_the_outbox_knows_when_it_expires() {
    let entry = Arc::new(message()).entry();
    assert_eq!(entry.event_id, "9501a8b83c30af850d905517dabc3329");
    assert_eq!((entry.stored_at_ms, entry.expires_at_ms), (NOW_MS, Some(NOW_MS + 300_000)));
}

#[test]
fn what_a_target_says_is_one_short_line() {
    assert_eq!(reason(" a\r\nb\u{1b}[31m "), "a  b [31m");
    assert_eq!(reason(&"x".repeat(1_000)).len(), MAX_REASON_CHARS);
}
