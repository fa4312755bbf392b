//! A scripted target: every attempt is recorded, and so is every acknowledgement.

use std::collections::BTreeMap;

use super::*;

const MINUTE_MS: i64 = 60_000;

/// `a3` is the third message of the alert `a`; stored in the second of its place.
fn entry(id: &str, place: i64) -> Entry<()> {
    let alert = id.trim_end_matches(|c: char| c.is_ascii_digit());
    Entry {
        event_id: id.to_owned(),
        fingerprint: Fingerprint::of(alert, &[]),
        stored_at_ms: place * 1_000,
        expires_at_ms: Some(place * 1_000 + 5 * MINUTE_MS),
        bytes: 1_000,
        payload: (),
    }
}

fn entries(ids: &str) -> Vec<Entry<()>> {
    ids.split(' ').zip(0..).map(|(id, place)| entry(id, place)).collect()
}

/// A lane, the lake behind it and a target that answers as it is told.
struct Bench<F> {
    lane: Lane<()>,
    lake: Vec<Entry<()>>,
    acknowledged: Vec<String>,
    target: F,
    /// Time and id of every attempt.
    attempts: Vec<(i64, String)>,
    stale: Vec<String>,
    /// What the target took, in order.
    taken: Vec<String>,
    now_ms: i64,
    refills: usize,
}

impl<F: FnMut(i64, &str) -> Answer> Bench<F> {
    fn new(lake: Vec<Entry<()>>, target: F) -> Bench<F> {
        Bench {
            lane: Lane::of(lake.clone()),
            lake,
            acknowledged: Vec::new(),
            target,
            attempts: Vec::new(),
            stale: Vec::new(),
            taken: Vec::new(),
            now_ms: 0,
            refills: 0,
        }
    }

    fn undelivered(&self) -> Vec<Entry<()>> {
        let acknowledged: HashSet<&String> = self.acknowledged.iter().collect();
        let is_left = |entry: &&Entry<()>| !acknowledged.contains(&entry.event_id);
        self.lake.iter().filter(is_left).cloned().collect()
    }

    /// One step; false when there is nothing to do before `until_ms`.
    fn step(&mut self, until_ms: i64) -> bool {
        match self.lane.next(self.now_ms) {
            Next::Send { entry, is_stale } => {
                let id = entry.event_id.clone();
                if is_stale {
                    self.stale.push(id.clone());
                }
                self.attempts.push((self.now_ms, id.clone()));
                let answer = (self.target)(self.now_ms, &id);
                if answer == Answer::Delivered {
                    self.taken.push(id);
                }
                self.now_ms += 1;
                self.lane.answer(answer, self.now_ms, 0.5);
                true
            }
            Next::Acknowledge => {
                let ids = self.lane.unacknowledged().iter().map(|done| done.entry.event_id.clone());
                self.acknowledged.extend(ids);
                self.lane.acknowledged();
                true
            }
            Next::WaitUntil(at_ms) if at_ms <= until_ms => {
                assert!(at_ms > self.now_ms, "it waits for what has passed");
                self.now_ms = at_ms;
                true
            }
            Next::Refill => {
                self.refills += 1;
                let undelivered = self.undelivered();
                self.lane.refill(undelivered);
                true
            }
            Next::WaitUntil(_) | Next::Idle => false,
        }
    }

    fn run_until(&mut self, until_ms: i64) {
        while self.step(until_ms) {}
        self.now_ms = self.now_ms.max(until_ms);
    }

    /// Kill -9 and a start: memory is what the lake has.
    fn crash(&mut self) {
        self.lane = Lane::of(self.undelivered());
    }

    fn taken_of(&self, alert: &str) -> Vec<&str> {
        let of_alert = |id: &&str| id.trim_end_matches(|c: char| c.is_ascii_digit()) == alert;
        self.taken.iter().map(String::as_str).filter(of_alert).collect()
    }
}

const AWAY: Answer = Answer::Later { retry_after_ms: None };

#[test]
fn everything_is_sent_once_the_oldest_first() {
    let mut bench = Bench::new(entries("a1 b1 a2 c1 b2 a3"), |_, _| Answer::Delivered);
    bench.run_until(0);
    assert_eq!(bench.taken.join(" "), "a1 b1 a2 c1 b2 a3");
    assert_eq!(bench.acknowledged, bench.taken);
    assert_eq!(bench.lane.next(1_000), Next::Idle);
    assert_eq!(bench.lane.oldest_stored_at_ms(), None);
}

#[test]
fn a_target_that_is_down_for_ten_minutes_gets_all_in_order_soon_after() {
    let back_ms = 10 * MINUTE_MS;
    let is_up = move |now_ms| if now_ms < back_ms { AWAY } else { Answer::Delivered };
    let mut bench = Bench::new(entries("a1 b1 a2 b2"), move |now_ms, _| is_up(now_ms));
    bench.run_until(back_ms - 1);
    assert!(bench.taken.is_empty() && bench.lane.len() == 4);
    let tries = bench.attempts.len();
    assert!((20..40).contains(&tries), "{tries} attempts in ten minutes");
    assert!(
        bench.attempts.iter().all(|(_, id)| id.ends_with('1')),
        "what is later in an alert waits"
    );
    bench.run_until(back_ms + MINUTE_MS);
    assert_eq!(bench.taken_of("a"), ["a1", "a2"]);
    assert_eq!(bench.taken_of("b"), ["b1", "b2"]);
    assert!(
        bench.taken.iter().all(|id| bench.stale.contains(id)),
        "all are past their time and say so"
    );
    assert!(bench.attempts[..4].iter().all(|(at_ms, _)| *at_ms < 5 * MINUTE_MS));
}

#[test]
fn pauses_double_from_a_tenth_of_a_second_to_a_minute() {
    let pauses: Vec<i64> = (0..12).map(|misses| pause_ms(misses, 1.0)).collect();
    assert_eq!(
        pauses,
        [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000]
    );
    assert_eq!([pause_ms(0, 0.0), pause_ms(u32::MAX, 0.5)], [10, 30_000]);
    assert_eq!([refusal_pause_ms(0.0), refusal_pause_ms(1.0)], [60_000, 66_000]);
}

#[test]
fn a_target_of_people_gets_messages_at_their_pace() {
    let mut bench = Bench::new(entries("a1 b1 c1 d1"), |_, _| Answer::Delivered);
    bench.lane.set_pace_ms(500);
    bench.run_until(MINUTE_MS);
    let times: Vec<i64> = bench.attempts.iter().map(|(at_ms, _)| *at_ms).collect();
    assert_eq!(times, [0, 501, 1_002, 1_503], "each is answered after a millisecond");
    assert_eq!(bench.acknowledged.len(), 4);
}

#[test]
fn a_throttling_target_gets_the_rest_that_it_asks_for() {
    let mut count = 0;
    let throttled = Answer::Later {
        retry_after_ms: Some(20_000),
    };
    let mut bench = Bench::new(entries("a1 b1 c1"), move |_, _| {
        count += 1;
        if count == 2 { throttled } else { Answer::Delivered }
    });
    bench.run_until(MINUTE_MS);
    assert_eq!(bench.taken.len(), 3);
    assert_eq!(bench.attempts[2].0, 20_002, "the second attempt was answered at 2 ms");
    let days = Answer::Later {
        retry_after_ms: Some(i64::MAX),
    };
    let mut lane = Lane::of(entries("a1"));
    lane.next(0);
    lane.answer(days, 0, 1.0);
    assert_eq!(lane.next(0), Next::WaitUntil(3_600_000), "an hour is the most");
}

#[test]
fn an_alert_that_is_refused_holds_up_nobody_and_keeps_its_order() {
    let cured_ms = 3 * MINUTE_MS;
    let mut bench = Bench::new(entries("a1 b1 a2 b2 c1"), move |now_ms, id| {
        if id == "a1" && now_ms < cured_ms {
            Answer::MessageRefused
        } else {
            Answer::Delivered
        }
    });
    bench.run_until(cured_ms - MINUTE_MS);
    assert_eq!(bench.taken.join(" "), "b1 b2 c1");
    assert_eq!(bench.lane.refused_alerts(), 1);
    let late: Vec<Entry<()>> = vec![entry("a3", 9), entry("d1", 10)];
    bench.lake.extend(late.clone());
    bench.lane.extend(late);
    bench.run_until(cured_ms + 2 * MINUTE_MS);
    assert_eq!(bench.taken.join(" "), "b1 b2 c1 d1 a1 a2 a3");
    let tries: Vec<i64> = bench
        .attempts
        .iter()
        .filter(|(_, id)| id == "a1")
        .map(|(at_ms, _)| *at_ms)
        .collect();
    assert!(tries.windows(2).all(|two| two[1] - two[0] >= MINUTE_MS), "{tries:?}");
}

#[test]
fn a_message_that_the_target_fails_over_holds_up_its_own_alert_only() {
    let mut bench = Bench::new(entries("a1 b1 c1 a2 b2"), |_, id| if id == "a1" { AWAY } else { Answer::Delivered });
    bench.run_until(10 * MINUTE_MS);
    assert_eq!(bench.taken.join(" "), "b1 c1 b2");
    bench.lane.extend([entry("d1", 9)]);
    bench.run_until(12 * MINUTE_MS);
    assert_eq!(bench.taken.join(" "), "b1 c1 b2 d1");
}

#[test]
fn a_target_that_takes_nothing_is_asked_once_a_minute_whatever_waits() {
    let ids: Vec<String> = (0..500).map(|alert| format!("alert-{alert}-1")).collect();
    let mut bench = Bench::new(entries(&ids.join(" ")), |_, _| Answer::TargetRefused);
    bench.run_until(10 * MINUTE_MS);
    assert!((9..=11).contains(&bench.attempts.len()), "{} attempts", bench.attempts.len());
    assert_eq!(bench.lane.len(), 500);
}

#[test]
fn a_crash_between_sending_and_acknowledging_repeats_few_with_the_same_ids() {
    let ids: Vec<String> = (0..35).map(|message| format!("a{}", message + 100)).collect();
    for crash_after in 1..ids.len() {
        let mut bench = Bench::new(entries(&ids.join(" ")), |_, _| Answer::Delivered);
        while bench.taken.len() < crash_after {
            bench.step(0);
        }
        bench.crash();
        bench.run_until(0);
        let repeated = bench.taken.len() - ids.len();
        assert!(repeated <= UNACKNOWLEDGED_MAX, "{repeated} repeats after {crash_after}");
        let mut seen = BTreeMap::new();
        for id in &bench.taken {
            *seen.entry(id.clone()).or_insert(0) += 1;
        }
        assert!(seen.keys().eq(ids.iter()), "none lost");
        assert!(seen.values().all(|count| *count <= 2));
        // A consumer that drops known ids sees each once, in order.
        let mut first_seen = Vec::new();
        for id in &bench.taken {
            if !first_seen.contains(id) {
                first_seen.push(id.clone());
            }
        }
        assert_eq!(first_seen, ids);
        assert_eq!(bench.acknowledged, ids);
    }
}

#[test]
fn a_hundred_crashes_on_a_target_that_fails_often_lose_nothing() {
    let ids: Vec<String> = (0..40)
        .flat_map(|seq| ["a", "b", "c"].map(|alert| format!("{alert}{}", seq + 100)))
        .collect();
    let mut draw = 1_u64;
    let mut random = move |sides: u64| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draw >> 33) % sides
    };
    let mut crash_at = random;
    let mut bench = Bench::new(entries(&ids.join(" ")), move |_, _| match random(6) {
        0 => AWAY,
        1 => Answer::MessageRefused,
        2 => Answer::TargetRefused,
        _ => Answer::Delivered,
    });
    for _ in 0..100 {
        for _ in 0..crash_at(8) {
            bench.step(i64::MAX);
        }
        bench.crash();
    }
    bench.run_until(bench.now_ms + 60 * MINUTE_MS * 24);
    for alert in ["a", "b", "c"] {
        let mut taken = bench.taken_of(alert);
        let expected: Vec<&str> = ids.iter().map(String::as_str).filter(|id| id.starts_with(alert)).collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken, expected, "none lost");
        let mut newest = "";
        let mut news = Vec::new();
        for id in bench.taken_of(alert) {
            if id > newest {
                newest = id;
                news.push(id);
            }
        }
        assert_eq!(news, expected, "new ones come in order");
    }
    assert!(bench.undelivered().is_empty());
}

#[test]
fn what_does_not_fit_stays_in_the_lake_and_is_read_back_in_order() {
    let ids: Vec<String> = (0..25_000).map(|message| format!("a{}", message + 100_000)).collect();
    let lake = ids.iter().map(|id| entry(id, 0)).collect();
    let mut bench = Bench::new(lake, |_, _| Answer::Delivered);
    assert_eq!((bench.lane.len(), bench.lane.has_more_in_lake()), (MESSAGES_MAX, true));
    bench.lane.extend([entry("a999999", 0)]);
    assert_eq!(bench.lane.len(), MESSAGES_MAX, "nothing overtakes what waits in the lake");
    while bench.refills < 2 {
        let had = bench.acknowledged.len();
        let mut spared = 0;
        while bench.step(0) && bench.refills < 2 {
            spared += 1;
        }
        assert!(spared > 0 && bench.acknowledged.len() > had);
    }
    bench.run_until(0);
    assert_eq!(bench.taken, ids);
}

#[test]
fn large_messages_are_bounded_by_bytes_and_one_always_fits() {
    let large = |id: &str| Entry {
        bytes: BYTES_MAX / 2 + 1,
        ..entry(id, 0)
    };
    let lane = Lane::of([large("a1"), large("b1")]);
    assert_eq!((lane.len(), lane.has_more_in_lake()), (1, true));
    let huge = Entry {
        bytes: BYTES_MAX + 1,
        ..entry("a1", 0)
    };
    assert_eq!(Lane::of([huge]).len(), 1);
}

#[test]
fn after_a_week_a_message_is_given_up_and_recorded() {
    let week_ms = 7 * 24 * 60 * MINUTE_MS;
    let mut lane = Lane::of(entries("a1 a2 b1"));
    let mut sent = Vec::new();
    loop {
        match lane.next(week_ms + 1_000) {
            Next::Send { entry, is_stale } => sent.push((entry.event_id.clone(), is_stale)),
            other => {
                assert_eq!(other, Next::Acknowledge);
                break;
            }
        }
        lane.answer(Answer::Delivered, week_ms + 1_000, 0.0);
    }
    assert_eq!(sent, [("a2".to_owned(), true), ("b1".to_owned(), true)]);
    let outcomes: Vec<&str> = lane.unacknowledged().iter().map(|done| done.outcome.as_str()).collect();
    assert_eq!(outcomes, ["given_up", "delivered", "delivered"]);
}

#[test]
fn an_answer_that_never_came_means_the_same_message_again() {
    let mut lane = Lane::of(entries("a1 b1"));
    for _ in 0..2 {
        let Next::Send { entry, .. } = lane.next(0) else {
            panic!("a message is due")
        };
        assert_eq!(entry.event_id, "a1");
    }
    lane.extend(entries("a1 b1"));
    assert_eq!(lane.len(), 2, "nothing is taken in twice");
}

#[test]
fn the_oldest_message_tells_the_age_of_the_outbox() {
    let lane = Lane::of([entry("b1", 7), entry("a1", 3), entry("a2", 9)]);
    assert_eq!(lane.oldest_stored_at_ms(), Some(3_000));
}
