//! Notifications: each object once, and a message goes only when its objects are in the lake.

use std::sync::atomic::Ordering;

use super::stubs::StubQueue;
use super::*;

fn event(bucket: &str, keys: &[&str]) -> String {
    let records: Vec<serde_json::Value> = keys
        .iter()
        .map(|key| serde_json::json!({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 9}}}))
        .collect();
    serde_json::json!({ "Records": records }).to_string()
}

fn rig() -> (Rig, Arc<StubQueue>) {
    let queue = Arc::new(StubQueue::default());
    let settings = ObjectsSettings {
        list_every: None,
        ..settings()
    };
    let rig = Rig::new(settings, Some(Arc::clone(&queue) as Arc<dyn Queue>));
    (rig, queue)
}

#[test]
fn a_message_goes_only_when_all_its_objects_are_committed() {
    let (mut rig, queue) = rig();
    rig.commits = false;
    rig.put("a b+c", "1\n");
    rig.put("d", "2\n");
    queue.send(&event("logs", &["a+b%2Bc", "d"]));
    rig.run_until("read", |rig| rig.lines.len() >= 2);
    // Longer than a message is held back at first: it is held again, and nobody else gets it.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(700) {
        rig.step();
        assert_eq!((queue.left(), queue.visible()), (1, 0));
    }
    let (partition, mark, _) = rig.uncommitted.remove(0);
    rig.known.lock().expect("sound").insert(
        partition.to_string(),
        Known {
            offset: mark.offset,
            finished: true,
        },
    );
    rig.source.committed(&partition, &mark);
    rig.run_on();
    assert_eq!(queue.left(), 1, "the other object is not committed");
    rig.commit();
    rig.run_until("deleted", |_| queue.left() == 0);
    assert_eq!(rig.texts(), ["1", "2"]);
}

#[test]
fn an_object_announced_twice_is_read_once() {
    let (mut rig, queue) = rig();
    rig.commits = false;
    rig.put("a", "1\n");
    queue.send(&event("logs", &["a", "a"]));
    queue.send(&event("logs", &["a"]));
    rig.run_until("read", |rig| !rig.lines.is_empty());
    rig.run_on();
    assert_eq!(queue.left(), 2);
    rig.commit();
    rig.run_until("deleted", |_| queue.left() == 0);
    queue.send(&event("logs", &["a"]));
    rig.run_until("deleted again", |_| queue.left() == 0);
    assert_eq!(rig.texts(), ["1"]);
}

#[test]
fn listing_and_notifications_together_read_once() {
    let queue = Arc::new(StubQueue::default());
    let mut rig = Rig::new(settings(), Some(Arc::clone(&queue) as Arc<dyn Queue>));
    for number in 0..50 {
        rig.put(&format!("k{number}"), format!("{number:0>2}\n"));
        queue.send(&event("logs", &[&format!("k{number}")]));
    }
    rig.run_until("read and deleted", |rig| rig.lines.len() >= 50 && queue.left() == 0);
    rig.run_on();
    assert_eq!(rig.lines.len(), 50);
}

#[test]
fn what_names_nothing_of_ours_is_deleted() {
    let (mut rig, queue) = rig();
    rig.put("_hidden", "x\n");
    queue.send(r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"logs"}"#);
    queue.send(&event("elsewhere", &["a"]));
    queue.send(&event("logs", &["_hidden"]));
    rig.run_until("deleted", |_| queue.left() == 0);
    assert_eq!((rig.lines.len(), rig.errors.len()), (0, 0));
}

#[test]
fn what_is_no_event_is_left_to_the_queue_and_told() {
    let (mut rig, queue) = rig();
    let number = queue.send("hello");
    rig.run_until("sent again", |_| queue.receives(number).is_some_and(|receives| receives >= 2));
    assert!(rig.errors[0].contains("no event of S3"), "{:?}", rig.errors);
    assert!(
        rig.errors.iter().all(|error| !error.contains("hello")),
        "an error holds what a message says"
    );
}

#[test]
fn a_message_with_a_damaged_object_is_left_to_the_queue() {
    let (mut rig, queue) = rig();
    rig.put("good", "1\n");
    rig.put("cut.gz", gzip(numbered("n", 9).as_bytes())[..40].to_vec());
    let number = queue.send(&event("logs", &["good", "cut.gz"]));
    rig.run_until("sent again", |_| queue.receives(number).is_some_and(|receives| receives >= 2));
    let sound = rig.lines.iter().filter(|(_, line)| line == "1");
    assert_eq!(sound.count(), 1, "the sound object is read once, however often its message comes");
    assert_eq!(rig.errors.len(), 1, "{:?}", rig.errors);
    assert!(rig.errors[0].contains("cut.gz#"), "{:?}", rig.errors);
}

#[test]
fn a_message_of_an_object_that_is_gone_is_deleted() {
    let (mut rig, queue) = rig();
    queue.send(&event("logs", &["gone"]));
    rig.run_until("deleted", |_| queue.left() == 0);
    rig.run_until("told", |rig| !rig.errors.is_empty());
    assert!(rig.errors[0].contains("s3://logs/gone"), "{:?}", rig.errors);
}

#[test]
fn a_queue_that_fails_is_told_and_asked_again() {
    let (mut rig, queue) = rig();
    queue.failing.store(1, Ordering::SeqCst);
    rig.put("a", "1\n");
    queue.send(&event("logs", &["a"]));
    rig.run_until("read", |rig| !rig.lines.is_empty());
    assert!(rig.errors[0].contains("gives no messages"), "{:?}", rig.errors);
    rig.run_until("deleted", |_| queue.left() == 0);
}

#[test]
fn a_stop_acknowledges_what_is_committed_and_gives_the_rest_back() {
    let (mut rig, queue) = rig();
    rig.commits = false;
    rig.put("a", "1\n");
    rig.put("b", "2\n");
    queue.send(&event("logs", &["a"]));
    queue.send(&event("logs", &["b"]));
    rig.run_until("read", |rig| rig.lines.len() >= 2);
    rig.uncommitted.retain(|(partition, _, _)| partition.starts_with("s3://logs/a#"));
    rig.commit();
    rig.source.stop();
    assert_eq!((queue.left(), queue.visible()), (1, 1));
}

#[test]
fn more_messages_than_may_be_held_are_worked_off() {
    let (mut rig, queue) = rig();
    let messages = super::super::queue::MESSAGES_MAX + 100;
    for number in 0..messages {
        rig.put(&format!("k{number}"), format!("{number}\n"));
        queue.send(&event("logs", &[&format!("k{number}")]));
    }
    rig.run_until("all read and deleted", |rig| rig.lines.len() >= messages && queue.left() == 0);
    assert_eq!(rig.lines.len(), messages);
}
