//! Stores that fail, and objects that cannot be read.

use std::sync::atomic::Ordering;

use super::stubs::Fault;
use super::*;

fn errors_about<'a>(rig: &'a Rig, text: &str) -> Vec<&'a str> {
    rig.errors.iter().map(String::as_str).filter(|error| error.contains(text)).collect()
}

#[test]
fn answers_that_fail_are_asked_for_again() {
    for fault in [Fault::Unavailable, Fault::Resets, Fault::Short, Fault::Hangs] {
        let mut rig = Rig::new(settings(), None);
        // More than one range, each of which fails first.
        let text = numbered("n", 90_000);
        rig.store.script("a", &[fault, fault]);
        rig.put("a", text.clone());
        rig.run_until("begun", |rig| !rig.lines.is_empty());
        rig.store.script("a", &[fault]);
        rig.run_until("all read", |rig| rig.lines.len() >= 90_000);
        let got: String = rig.lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        assert!(got == text, "{fault:?}: other lines than were written");
        assert_eq!(rig.errors, Vec::<String>::new(), "{fault:?}");
        assert!(rig.store.gets.load(Ordering::SeqCst) < 20, "{fault:?}: a storm of retries");
    }
}

#[test]
fn an_outage_rests_the_object_and_lets_the_others_go_on() {
    let mut rig = Rig::new(settings(), None);
    rig.commits = false;
    rig.put("bad", numbered("bad", 160_000));
    rig.run_until("begun", |rig| !rig.lines.is_empty());
    *rig.store.standing.lock().expect("sound") = Some(("bad".to_string(), Fault::Unavailable));
    rig.put("good", "good\n");
    rig.run_until("told", |rig| {
        !rig.errors.is_empty() && rig.lines.iter().any(|(_, line)| line == "good")
    });
    let told = errors_about(&rig, "s3://logs/bad#");
    assert!(
        told[0].contains("the store fails") && told[0].contains("nothing is lost"),
        "{told:?}"
    );
    let asked = rig.store.gets.load(Ordering::SeqCst);
    rig.run_on();
    assert_eq!(
        rig.store.gets.load(Ordering::SeqCst),
        asked,
        "a store that is down is left in peace"
    );
    assert_eq!(rig.source.lag().partitions, 1, "it is still to be read");
}

#[test]
fn an_object_that_vanished_is_named_and_the_others_go_on() {
    let mut rig = Rig::new(settings(), None);
    rig.commits = false;
    rig.put("a", numbered("a", 160_000));
    rig.run_until("begun", |rig| !rig.lines.is_empty());
    rig.runtime.block_on(rig.store.inner.delete(&Path::from("a"))).expect("in memory");
    rig.put("b", "still here\n");
    rig.run_until("told", |rig| {
        !rig.errors.is_empty() && rig.lines.iter().any(|(_, line)| line == "still here")
    });
    assert!(
        rig.errors[0].contains("s3://logs/a#") && rig.errors[0].contains("gone"),
        "{:?}",
        rig.errors
    );
    assert!(rig.lines.len() < 160_000);
}

#[test]
fn an_object_replaced_while_it_is_read_is_never_mixed() {
    let mut rig = Rig::new(settings(), None);
    rig.put("a", numbered("old", 160_000));
    rig.run_until("begun", |rig| !rig.lines.is_empty());
    rig.put("a", numbered("new", 160_000));
    rig.run_until("the new one is read", |rig| {
        rig.lines
            .last()
            .is_some_and(|(_, line)| line.starts_with("new") && line.ends_with("0159999"))
    });
    let mut texts_of: HashMap<&str, &str> = HashMap::new();
    for (partition, line) in &rig.lines {
        assert_eq!(
            *texts_of.entry(partition).or_insert(&line[..3]),
            &line[..3],
            "{partition} holds both"
        );
    }
    assert_eq!(texts_of.len(), 2);
    let new = rig.lines.iter().filter(|(_, line)| line.starts_with("new"));
    assert_eq!(new.count(), 160_000);
}

#[test]
fn a_damaged_object_gives_what_it_can_and_is_not_tried_again() {
    let mut rig = Rig::new(settings(), None);
    let packed = gzip(numbered("a", 100_000).as_bytes());
    rig.put("cut.gz", packed[..packed.len() / 2].to_vec());
    rig.put("good", "good\n");
    rig.run_until("told", |rig| {
        !rig.errors.is_empty() && rig.lines.iter().any(|(_, line)| line == "good")
    });
    let taken = rig.lines.len();
    assert!(taken > 1_000, "what came before the damage counts: {taken}");
    rig.run_on();
    assert_eq!(rig.lines.len(), taken);
    assert_eq!(rig.errors.len(), 1, "{:?}", rig.errors);
    assert!(
        rig.errors[0].contains("cut.gz#") && rig.errors[0].contains("gzip stream is damaged"),
        "{:?}",
        rig.errors
    );
}

#[test]
fn an_object_that_is_forbidden_is_named() {
    let mut rig = Rig::new(settings(), None);
    rig.store.script("a", &[Fault::Forbidden]);
    rig.put("a", "1\n");
    rig.run_until("told", |rig| !rig.errors.is_empty());
    assert!(
        rig.errors[0].contains("s3://logs/a") && rig.errors[0].contains("s3:GetObject"),
        "{:?}",
        rig.errors
    );
    rig.run_until("read once it is allowed", |rig| !rig.lines.is_empty());
}

#[test]
fn a_half_last_line_is_handed_over_and_not_dropped() {
    let mut rig = Rig::new(settings(), None);
    rig.put("a", "{\"x\":1}\n{\"x\":");
    rig.run_until("read", |rig| rig.lines.len() >= 2);
    assert_eq!(rig.texts(), ["{\"x\":", "{\"x\":1}"]);
}
