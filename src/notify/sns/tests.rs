//! What goes to SNS, and what its answers mean. The protocol itself is tested against a fake of AWS in
//! the integration tests.

use std::sync::Arc;

use aws_sdk_sns::config::{Credentials, Region};

use super::super::Message;
use super::super::tests::{PRODUCER, Receiver, answer_of, attempt, message};
use super::*;
use crate::publish::{Audience, PublishSettings, Publisher, TitleRow};

const STANDARD: &str = "arn:aws:sns:eu-west-1:123456789012:noc";
const FIFO: &str = "arn:aws:sns:eu-west-1:123456789012:noc.fifo";

fn target(topic_arn: &str, form: SnsForm) -> SnsTarget {
    SnsTarget {
        topic_arn: topic_arn.to_owned(),
        endpoint_url: None,
        region: "eu-west-1".to_owned(),
        form,
        pace_ms: 0,
    }
}

/// With so many members of a long name: an alert that tells of very many.
fn large(members: usize) -> Message {
    let mut message = message();
    let mut body: serde_json::Value = serde_json::from_str(&message.body).unwrap();
    let member = |index: usize| serde_json::json!({"fingerprint": format!("{index:016}"), "dims": {"isp": "\"é".repeat(200)}});
    body["members"] = (0..members).map(member).collect();
    message.body = body.to_string();
    message
}

#[test]
fn a_standard_topic_gets_a_subject_and_a_fifo_topic_its_ids() {
    let message = message();
    let sent = publish(&target(STANDARD, SnsForm::Json), attempt(&message), PRODUCER);
    assert_eq!(sent.subject.as_deref(), Some("FIRING critical Errors"));
    assert_eq!((&sent.message, sent.structure, &sent.group_id), (&message.body, None, &None));
    assert_eq!(sent.attributes.len(), 8);
    let sent = publish(&target(FIFO, SnsForm::Json), attempt(&message), PRODUCER);
    assert_eq!(sent.subject, None);
    assert_eq!(sent.group_id.as_deref(), Some("7bd8081cf25321ed"));
    assert_eq!(sent.deduplication_id.as_deref(), Some("9501a8b83c30af850d905517dabc3329"));
}

#[test]
fn a_late_message_has_the_same_bytes_and_another_attribute() {
    let message = message();
    let mut late = attempt(&message);
    late.is_stale = true;
    let [sent, sent_late] = [attempt(&message), late].map(|attempt| publish(&target(STANDARD, SnsForm::Json), attempt, PRODUCER));
    assert_eq!(sent.message, sent_late.message);
    assert_eq!([&sent.attributes["stale"], &sent_late.attributes["stale"]], ["false", "true"]);
}

#[test]
fn every_protocol_gets_its_own_text() {
    let message = message();
    let sent = publish(&target(STANDARD, SnsForm::PerProtocol), attempt(&message), PRODUCER);
    assert_eq!(sent.structure, Some("json"));
    let forms: BTreeMap<String, String> = serde_json::from_str(&sent.message).unwrap();
    assert!(
        forms["default"].starts_with("FIRING critical Errors isp=Müller"),
        "{}",
        forms["default"]
    );
    assert!(forms["sms"].chars().count() <= MAX_SHORT_CHARS);
    assert!(
        forms["email"].contains("8.2 % of clients fail\n\nrunbook: https://runbooks.example/errors\n\nIt goes on."),
        "{}",
        forms["email"]
    );
    assert_eq!([&forms["lambda"], &forms["sqs"]], [&message.body, &message.body]);
}

#[test]
fn the_largest_message_fits_with_its_attributes_and_is_json() {
    for form in [SnsForm::Json, SnsForm::PerProtocol] {
        for members in [100, 300, 600] {
            let message = large(members);
            let sent = publish(&target(STANDARD, form), attempt(&message), PRODUCER);
            assert!(sent.bytes() <= MAX_BYTES, "{} bytes", sent.bytes());
            let whole: serde_json::Value = serde_json::from_str(&sent.message).unwrap();
            let body = match form {
                SnsForm::Json => whole,
                SnsForm::PerProtocol => serde_json::from_str(whole["sqs"].as_str().unwrap()).unwrap(),
            };
            let left = body["members"].as_array().unwrap().len();
            assert_eq!(body["dropped"].as_u64().unwrap() as usize, members - left);
        }
    }
}

/// A client that finds the receiver in the place of SNS.
fn clients(url: &str) -> Clients {
    let config = aws_sdk_sns::Config::builder()
        .behavior_version(aws_sdk_sns::config::BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "canary", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(url)
        .build();
    let clients = HashMap::from([((None, "eu-west-1".to_owned()), Client::from_conf(config))]);
    Clients {
        defaults: SnsDefaults::default(),
        clients: Mutex::new(clients),
    }
}

fn error_body(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )
}

#[tokio::test]
async fn answers_are_told_apart() {
    let receiver = Receiver::start("200 OK", "").await;
    let (clients, message) = (clients(&receiver.url), message());
    for (head, code, text, expected) in [
        ("400 Bad", "Throttling", "Rate exceeded", "later"),
        ("400 Bad", "ThrottledException", "Rate exceeded", "later"),
        ("429 Bad\r\nretry-after: 7", "TooManyRequests", "", "later 7000"),
        ("400 Bad", "KMSThrottling", "", "later"),
        ("403 No", "AuthorizationError", "not allowed", "target"),
        ("403 No", "InvalidClientTokenId", "no such key", "target"),
        ("403 No", "SignatureDoesNotMatch", "", "target"),
        ("404 No", "NotFound", "Topic does not exist", "target"),
        ("400 Bad", "KMSDisabled", "", "target"),
        ("400 Bad", "InvalidParameter", "Invalid parameter: TopicArn", "target"),
        ("400 Bad", "InvalidParameter", "Invalid parameter: Message too long", "message"),
        ("400 Bad", "InvalidParameterValue", "", "message"),
        ("500 Broken", "InternalError", "", "later"),
        ("503 Away", "ServiceUnavailable", "", "later"),
    ] {
        receiver.set(head, &error_body(code, text));
        let had = receiver.requests().len();
        let sent = clients.publish(&target(STANDARD, SnsForm::Json), attempt(&message), PRODUCER).await;
        let error = sent.unwrap_err();
        assert_eq!(answer_of(&error), expected, "{code} {text}: {error}");
        let told = error.to_string();
        assert!(told.starts_with("SNS topic noc") && told.contains(code), "{told}");
        assert!(!told.contains("123456789012") && !told.contains("canary"), "{told}");
        assert_eq!(receiver.requests().len(), had + 1, "one attempt is one request");
    }
}

#[tokio::test]
async fn only_a_message_id_is_a_delivery() {
    let answer = |id: &str| format!("<PublishResponse><PublishResult>{id}</PublishResult></PublishResponse>");
    let receiver = Receiver::start("200 OK", "").await;
    let (clients, message) = (clients(&receiver.url), message());
    for (id, is_delivered) in [("<MessageId>1</MessageId>", true), ("", false)] {
        receiver.set("200 OK\r\ncontent-type: text/xml", &answer(id));
        let sent = clients.publish(&target(FIFO, SnsForm::Json), attempt(&message), PRODUCER).await;
        assert_eq!(sent.is_ok(), is_delivered);
        let body = &receiver.requests()[0].body;
        assert!(
            body.contains("MessageGroupId=7bd8081cf25321ed&") || body.ends_with("MessageGroupId=7bd8081cf25321ed"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn nobody_listening_is_away() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let message = Arc::new(message());
    let clients = clients(&format!("http://{nobody}"));
    let sent = clients.publish(&target(STANDARD, SnsForm::Json), attempt(&message), PRODUCER).await;
    assert_eq!(answer_of(&sent.unwrap_err()), "later");
}

fn figures(titles: usize, name_bytes: usize) -> Vec<Figure> {
    let title = |index: usize| TitleRow {
        content_id: format!("{}{index:04}", "x".repeat(name_bytes)),
        viewers: 1,
        views: 1,
    };
    let audience = Audience {
        as_of_ms: 0,
        active_users: 1,
        titles: (0..titles).map(title).collect(),
    };
    Publisher::new(PublishSettings::new("widgets", STANDARD)).figures(&audience, 0)
}

#[test]
fn batches_keep_both_limits() {
    let sizes = |figures: &[Figure]| batches(figures).iter().map(|batch| batch.len()).collect::<Vec<_>>();
    assert_eq!(sizes(&figures(0, 0)), [1]);
    assert_eq!(sizes(&figures(12, 10)), [10, 10, 5]);
    let large = figures(5, 100_000);
    assert_eq!(sizes(&large), [3, 2, 2, 2, 2]);
    assert_eq!(batches(&large).concat(), large);
    assert!(batches(&[]).is_empty());
}

#[tokio::test]
async fn a_figure_that_was_refused_is_told() {
    let failed = "<PublishBatchResponse><PublishBatchResult><Successful/><Failed><member><Id>0</Id><Code>InvalidParameter</Code>\
                  <Message>no</Message><SenderFault>true</SenderFault></member></Failed></PublishBatchResult></PublishBatchResponse>";
    let receiver = Receiver::start("200 OK\r\ncontent-type: text/xml", failed).await;
    let topic = Topic {
        arn: STANDARD.to_owned(),
        endpoint_url: None,
        region: Some("eu-west-1".to_owned()),
    };
    let error = clients(&receiver.url).publish_figures(&topic, &figures(1, 1)).await.unwrap_err();
    assert!(error.to_string().contains("InvalidParameter: no"), "{error}");
    let body = &receiver.requests()[0].body;
    assert!(
        body.contains("update_type") && body.contains("active_users") && body.contains("Subject=updates"),
        "{body}"
    );
}
