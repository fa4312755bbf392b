//! Webhooks against receivers on this machine, which is why most say `allow_private`.

use super::super::tests::{NOW_MS, PRODUCER, Receiver, answer_of, attempt, message};
use super::*;
use crate::alert::Status;
use crate::alert::target::Secret;

fn target(url: &str) -> WebhookTarget {
    WebhookTarget {
        url: Secret::new(format!("{url}/hook?token=canary")),
        form: WebhookForm::Json,
        secret: None,
        key_id: None,
        allow_private: true,
        headers: [("authorization".to_owned(), Secret::new("Bearer canary"))].into(),
        pace_ms: 0,
    }
}

async fn post(target: &WebhookTarget) -> Result<(), NotifyError> {
    let message = message();
    Clients::default().post(target, attempt(&message), PRODUCER).await
}

#[tokio::test]
async fn a_request_carries_the_stored_bytes_signed_with_its_time() {
    let receiver = Receiver::start("200 OK", "").await;
    let mut target = target(&receiver.url);
    target.secret = Some(Secret::new("0123456789abcdef"));
    target.key_id = Some("k1".to_owned());
    post(&target).await.unwrap();
    let request = &receiver.requests()[0];
    assert_eq!(request.body, message().body);
    assert!(request.head.starts_with("post /hook?token=canary http/1.1"), "{}", request.head);
    let expected = signature("0123456789abcdef", Some("k1"), NOW_MS / 1_000, &request.body);
    for line in [
        "content-type: application/json".to_owned(),
        "authorization: bearer canary".to_owned(),
        "idempotency-key: 9501a8b83c30af850d905517dabc3329".to_owned(),
        "playhead-stale: false".to_owned(),
        format!("playhead-signature: {expected}"),
    ] {
        assert!(request.head.contains(&line), "{line} in {}", request.head);
    }
}

#[test]
fn the_signature_is_that_of_the_standard() {
    // Computed with: printf '1.{}' | openssl dgst -sha256 -hmac key
    let code = "1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224";
    assert_eq!(signature("key", None, 1, "{}"), format!("t=1,v1={code}"));
}

#[tokio::test]
async fn answers_are_told_apart() {
    let receiver = Receiver::start("200 OK", "").await;
    let (target, clients, message) = (target(&receiver.url), Clients::default(), message());
    for (head, expected) in [
        ("204 No Content", "delivered"),
        ("302 Found\r\nlocation: http://127.0.0.1:1/", "target"),
        ("400 Bad Request", "message"),
        ("401 Unauthorized", "target"),
        ("404 Not Found", "target"),
        ("413 Too Large", "message"),
        ("408 Timeout", "later"),
        ("429 Too Many\r\nretry-after: 20", "later 20000"),
        ("429 Too Many\r\nretry-after: Fri, 07 Nov 2036 23:59:59 GMT", "later"),
        ("500 Broken", "later"),
        ("503 Away\r\nretry-after: 3", "later 3000"),
    ] {
        receiver.set(head, "why it is so");
        let had = receiver.requests().len();
        let answer = match clients.post(&target, attempt(&message), PRODUCER).await {
            Ok(()) => "delivered".to_owned(),
            Err(error) => {
                assert!(!error.to_string().contains("canary"), "{error}");
                assert!(error.to_string().contains("why it is so"), "{error}");
                answer_of(&error)
            }
        };
        assert_eq!(answer, expected, "{head}");
        assert_eq!(receiver.requests().len(), had + 1, "one attempt, and no redirect followed: {head}");
    }
}

#[tokio::test]
async fn our_own_network_is_refused_by_address_and_by_name() {
    let receiver = Receiver::start("200 OK", "").await;
    let port = receiver.url.rsplit(':').next().unwrap().to_owned();
    let (clients, message) = (Clients::default(), message());
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "169.254.169.254", "0x7f.1"] {
        let mut target = target("");
        target.url = Secret::new(format!("https://{host}:{port}/canary"));
        target.allow_private = false;
        let error = clients.post(&target, attempt(&message), PRODUCER).await.unwrap_err();
        assert_eq!(answer_of(&error), "target", "{error}");
        assert!(error.to_string().contains("which is not public"), "{error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
    assert!(receiver.requests().is_empty());
}

#[tokio::test]
async fn what_a_receiver_says_back_holds_no_secret() {
    let receiver = Receiver::start("400 Bad", "no: Bearer canary-header, key canary-routing").await;
    let mut target = target(&receiver.url);
    target.headers = [("authorization".to_owned(), Secret::new("Bearer canary-header"))].into();
    target.form = WebhookForm::PagerDuty {
        routing_key: Secret::new("canary-routing"),
    };
    let text = post(&target).await.unwrap_err().to_string();
    assert!(text.contains("no: Bearer (secret), key (secret)"), "{text}");
}

#[tokio::test]
async fn pagerduty_which_knows_no_amendment_is_not_told_of_one() {
    let receiver = Receiver::start("200 OK", "").await;
    let mut target = target(&receiver.url);
    target.form = WebhookForm::PagerDuty {
        routing_key: Secret::new("key"),
    };
    let mut message = message();
    message.event.status = Status::Amended;
    Clients::default().post(&target, attempt(&message), PRODUCER).await.unwrap();
    assert!(receiver.requests().is_empty());
    target.form = WebhookForm::Json;
    Clients::default().post(&target, attempt(&message), PRODUCER).await.unwrap();
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn without_leave_nothing_goes_out_in_the_clear() {
    let mut target = target("http://93.184.216.34");
    target.allow_private = false;
    let error = post(&target).await.unwrap_err();
    assert!(!error.to_string().contains("canary"), "{error}");
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_away_and_its_url_is_not_told() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = post(&target(&format!("http://{nobody}"))).await.unwrap_err();
    assert_eq!(answer_of(&error), "later");
    let text = error.to_string();
    assert!(
        text.starts_with("webhook 127.0.0.1 is away: ") && !text.contains("canary"),
        "{text}"
    );
}

#[tokio::test]
async fn a_late_message_says_so_beside_its_bytes() {
    let receiver = Receiver::start("200 OK", "").await;
    let message = message();
    let mut late = attempt(&message);
    late.is_stale = true;
    Clients::default().post(&target(&receiver.url), late, PRODUCER).await.unwrap();
    let request = &receiver.requests()[0];
    assert!(request.head.contains("playhead-stale: true"));
    assert_eq!(request.body, message.body);
}

#[tokio::test]
async fn slack_gets_its_own_form() {
    let receiver = Receiver::start("200 OK", "ok").await;
    let mut target = target(&receiver.url);
    target.form = WebhookForm::Slack;
    post(&target).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&receiver.requests()[0].body).unwrap();
    let text = body["text"].as_str().unwrap();
    assert!(
        text.starts_with("FIRING critical Errors isp=Müller &lt;!channel&gt;: 8.2 % of 1,234 clients"),
        "{text}"
    );
}

#[tokio::test]
async fn a_template_that_fails_on_this_message_holds_up_its_alert_only() {
    let mut target = target("http://127.0.0.1:1");
    target.form = WebhookForm::Template("{{ missing | json }}".to_owned());
    assert_eq!(answer_of(&post(&target).await.unwrap_err()), "message");
}
