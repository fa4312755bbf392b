//! The outbox and SNS: messages through lanes and the notifier to moto, and from there into queues.
//!
//! The SDK takes its credentials from the environment of the process, so the tests proper run in a child
//! of this binary that has them. Skipped where moto cannot be started.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use playhead::alert::message::{self, Producer};
use playhead::alert::target::{SnsForm, SnsTarget, Target};
use playhead::notify::outbox::{Answer, Entry, Lane, Next};
use playhead::notify::{Attempt, Message, Notifier, SnsDefaults, Terminal, Topic as FigureTopic};
use playhead::publish::{Audience, PublishSettings, Publisher, TitleRow};
use serde_json::json;

use crate::aws::{Queue, REGION, Topic, socket_address};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::services;

const PRODUCER: Producer = Producer {
    env: "test",
    version: "0.1.0",
};
const START_MS: i64 = 1_793_564_100_000;

fn message_of(alert: usize, seq: usize) -> Arc<Message> {
    let event = json!({
        "event_id": format!("{alert:016x}{seq:016x}"), "fingerprint": format!("{alert:016x}"), "seq": seq,
        "status": if seq % 2 == 1 { "firing" } else { "resolved" }, "reason": "threshold", "rule_uid": "errors", "alert": "Errors",
        "owner": null, "runbook": null, "severity": if alert.is_multiple_of(2) { "critical" } else { "warning" }, "rules_hash": "sha256:00",
        "dims": [["isp", format!("isp-{alert}")]], "labels": {}, "annotations": {}, "value": 0.1, "unit": "ratio", "baseline": null,
        "ratio_to_baseline": null, "threshold": {"test": "value", "op": ">", "value": 0.05}, "samples": 100.0, "samples_of": "clients",
        "is_share_of_samples": true, "window_start_ms": START_MS, "window_end_ms": START_MS + 60_000 * seq as i64,
        "starts_at_ms": START_MS, "ends_at_ms": null, "targets": ["noc"], "evaluated_at_ms": START_MS + 60_000 * seq as i64, "lineage": []
    });
    let event = serde_json::from_value(event).unwrap();
    let body = message::json(&event, PRODUCER);
    Arc::new(Message { event, body })
}

/// The lake in a test: what is stored, and which ids are acknowledged.
struct Outbox {
    stored: Vec<Arc<Message>>,
    acknowledged: BTreeSet<String>,
    lane: Lane<Arc<Message>>,
    target: Target,
    attempts: usize,
    now_ms: i64,
}

impl Outbox {
    fn new(stored: Vec<Arc<Message>>, topic_arn: String, endpoint: String) -> Outbox {
        let target = Target::Sns(SnsTarget {
            topic_arn,
            endpoint_url: Some(endpoint),
            region: REGION.to_string(),
            form: SnsForm::Json,
            pace_ms: 0,
        });
        let mut outbox = Outbox {
            stored,
            acknowledged: BTreeSet::new(),
            lane: Lane::default(),
            target,
            attempts: 0,
            now_ms: START_MS,
        };
        outbox.start();
        outbox
    }

    fn start(&mut self) {
        let left = self
            .stored
            .iter()
            .filter(|message| !self.acknowledged.contains(&message.event.event_id));
        self.lane = Lane::of(left.map(|message| Arc::clone(message).entry()).collect::<Vec<Entry<_>>>());
    }

    /// Steps until nothing is due or so many attempts were made. Waiting costs a hundredth of the time.
    async fn run(&mut self, notifier: &Notifier, attempts: usize, wait_ms: i64) {
        let (end, until_ms) = (self.attempts + attempts, self.now_ms + wait_ms);
        while self.attempts < end {
            match self.lane.next(self.now_ms) {
                Next::Send { entry, is_stale } => {
                    let attempt = Attempt {
                        message: &entry.payload,
                        is_stale,
                        now_ms: self.now_ms,
                    };
                    let answer = match notifier.deliver(&self.target, attempt).await {
                        Ok(()) => Answer::Delivered,
                        Err(error) => error.answer(),
                    };
                    self.attempts += 1;
                    self.lane.answer(answer, self.now_ms, 0.5);
                }
                Next::Acknowledge => {
                    self.acknowledged
                        .extend(self.lane.unacknowledged().iter().map(|done| done.entry.event_id.clone()));
                    self.lane.acknowledged();
                }
                Next::WaitUntil(at_ms) if at_ms <= until_ms => {
                    tokio::time::sleep(Duration::from_millis((at_ms - self.now_ms) as u64 / 100)).await;
                    self.now_ms = at_ms;
                }
                Next::WaitUntil(_) | Next::Idle => return,
                Next::Refill => panic!("it fits"),
            }
        }
    }
}

#[test]
fn the_outbox_keeps_its_promises_at_sns() {
    if !services::is_available("moto") {
        return;
    }
    let binary = std::env::current_exe().expect("this binary has a place");
    let status = std::process::Command::new(binary)
        .args(["sns::", "--ignored", "--test-threads", "2"])
        .envs([
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", REGION),
        ])
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .status()
        .expect("this binary starts");
    assert!(status.success(), "see above");
}

fn notifier() -> Notifier {
    Notifier::new(SnsDefaults::default(), Terminal::Errors, PRODUCER)
}

/// The ids that a queue holds.
fn ids(queue: &Queue) -> Vec<String> {
    queue
        .take_all()
        .iter()
        .map(|received| received.attributes["event_id"].clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a child with credentials"]
async fn topics_hand_on_what_their_filters_ask_for_and_an_outage_loses_nothing() {
    let Some(service) = services::start("moto") else { return };
    let proxy = FaultProxy::start(socket_address(&service));
    let endpoint = format!("http://{}", proxy.address());
    let stored: Vec<Arc<Message>> = (1..=6).flat_map(|seq| (0..5).map(move |alert| message_of(alert, seq))).collect();
    for name in ["noc", "noc.fifo"] {
        let topic = Topic::create(&service, name);
        let suffix = if name.ends_with(".fifo") { ".fifo" } else { "" };
        let all = topic.queue(&format!("all-{name}"), None);
        let critical = topic.queue(
            &format!("critical{suffix}"),
            Some(json!({"severity": ["critical"], "status": ["firing"]})),
        );
        let mut outbox = Outbox::new(stored.clone(), topic.arn(), endpoint.clone());
        outbox.run(&notifier(), 12, 0).await;
        // The service is away for ten minutes of the outbox, and the daemon is killed in between.
        proxy.set(Fault::Reset);
        outbox.run(&notifier(), usize::MAX - 100, 300_000).await;
        outbox.start();
        outbox.run(&notifier(), usize::MAX - 100, 300_000).await;
        assert!(outbox.lane.len() >= 18, "{} wait", outbox.lane.len());
        proxy.set(Fault::Pass);
        outbox.run(&notifier(), usize::MAX - 100, 120_000).await;
        assert_eq!(outbox.acknowledged.len(), 30);
        let got = all.take_all();
        check(&got, &stored, suffix == ".fifo");
        let expected: BTreeSet<String> = stored
            .iter()
            .filter(|message| message.event.severity.as_str() == "critical" && message.event.status.as_str() == "firing")
            .map(|message| message.event.event_id.clone())
            .collect();
        assert_eq!(BTreeSet::from_iter(ids(&critical)), expected, "{name}");
    }
}

fn check(got: &[crate::aws::Received], stored: &[Arc<Message>], is_fifo: bool) {
    let bodies: BTreeMap<&str, &str> = stored
        .iter()
        .map(|message| (message.event.event_id.as_str(), message.body.as_str()))
        .collect();
    let mut newest: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for received in got {
        let id = &received.attributes["event_id"];
        assert_eq!(received.body, bodies[id.as_str()], "the bytes are those that were stored");
        assert_eq!(received.attributes.len(), 8);
        let alert = received.attributes["fingerprint"].clone();
        if is_fifo {
            assert_eq!(received.group.as_ref(), Some(&alert));
        }
        if seen.insert(id.clone()) {
            let before = newest.insert(alert, id.clone());
            assert!(before.is_none_or(|before| before < *id), "order is kept");
        } else {
            assert!(!is_fifo, "a FIFO topic drops a repeat");
        }
    }
    assert_eq!(seen.len(), stored.len(), "none lost");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a child with credentials"]
async fn kills_between_sending_and_acknowledging_repeat_ids_that_a_fifo_topic_drops() {
    let Some(service) = services::start("moto") else { return };
    let topic = Topic::create(&service, "kills.fifo");
    let all = topic.queue("kills.fifo", None);
    let stored: Vec<Arc<Message>> = (1..=20).flat_map(|seq| (0..3).map(move |alert| message_of(alert, seq))).collect();
    let mut outbox = Outbox::new(stored.clone(), topic.arn(), service.address().to_string());
    let mut draw = 7_u64;
    for _ in 0..100 {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        outbox.run(&notifier(), (draw >> 33) as usize % 13, 0).await;
        outbox.start();
    }
    outbox.run(&notifier(), usize::MAX - 1_000, 0).await;
    assert_eq!(outbox.acknowledged.len(), 60);
    assert!(outbox.attempts > 60, "something was repeated");
    let got = all.take_all();
    assert_eq!(got.len(), 60, "none twice by id");
    check(&got, &stored, true);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a child with credentials"]
async fn what_sns_refuses_is_told_apart_from_what_is_away() {
    let Some(service) = services::start("moto") else { return };
    let missing = format!("arn:aws:sns:{REGION}:123456789012:nobody");
    let mut outbox = Outbox::new(vec![message_of(0, 1), message_of(1, 1)], missing, service.address().to_string());
    outbox.run(&notifier(), 100, 10 * 60_000).await;
    assert!((9..=11).contains(&outbox.attempts), "{} attempts in ten minutes", outbox.attempts);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a child with credentials"]
async fn subscribers_of_figures_get_their_kind_only() {
    let Some(service) = services::start("moto") else { return };
    for name in ["figures", "figures.fifo"] {
        let topic = Topic::create(&service, name);
        let suffix = if name.ends_with(".fifo") { ".fifo" } else { "" };
        let queue = |kind: &str| topic.queue(&format!("{kind}{suffix}"), Some(json!({"update_type": [kind]})));
        let [users, recent, totals] = ["active_users", "recent_views", "total_views"].map(queue);
        let mut publisher = Publisher::new(PublishSettings::new("widgets", &topic.arn()));
        let title = |index: usize| TitleRow {
            content_id: format!("film-{index}"),
            viewers: 2,
            views: 9,
        };
        let mut audience = Audience {
            as_of_ms: START_MS,
            active_users: 20,
            titles: (0..15).map(title).collect(),
        };
        let sns = FigureTopic {
            arn: topic.arn(),
            endpoint_url: Some(service.address().to_string()),
            region: Some(REGION.to_string()),
        };
        for _ in 0..2 {
            let figures = publisher.figures(&audience, audience.as_of_ms);
            notifier().publish(&sns, &figures).await.unwrap();
            publisher.told(&figures, audience.as_of_ms);
            audience.as_of_ms += 10_000;
            audience.active_users = 0;
            audience.titles.iter_mut().for_each(|title| title.viewers = 0);
        }
        let bodies = |queue: &Queue| queue.take_all().into_iter().map(|received| received.body).collect::<Vec<_>>();
        let [users, recent, totals] = [users, recent, totals].map(|queue| bodies(&queue));
        assert_eq!((users.len(), recent.len(), totals.len()), (2, 30, 15), "{name}");
        assert!(users[0].starts_with(r#"{"USER_COUNT":20,"EVENT_TIME":"#), "{}", users[0]);
        assert!(recent.iter().filter(|body| body.contains(r#""VIEWS":0,"#)).count() == 15);
    }
}
