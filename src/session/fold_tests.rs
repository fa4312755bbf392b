//! Folding changes no row: the same deliveries to engines that settle and pack always, never, and now
//! and then.
//!
//! Stands beside the tests of `session`, whose rig and generators it uses.

use proptest::prelude::*;

use super::fixtures::T0;
use super::laws::{any_event, check_rows};
use super::rig::{Rig, Tables, keyed};
use super::shard::Folding;
use super::{KeyedEvent, Sessions};

pub const NEVER: Folding = Folding {
    tail_events_max: usize::MAX,
    events_max: usize::MAX,
    settle_lag_ms: 0,
};
pub const ALWAYS: Folding = Folding {
    tail_events_max: 0,
    events_max: 0,
    settle_lag_ms: 0,
};

impl Sessions {
    pub fn set_folding(&mut self, folding: Folding) {
        self.shards.iter_mut().for_each(|shard| shard.set_folding(folding));
    }
}

/// Three engines that are given the same.
struct Rigs {
    never: Rig,
    always: Rig,
    at_random: Rig,
    dice: u64,
}

impl Rigs {
    fn new(dice: u64) -> Self {
        let mut rigs = Self {
            never: Rig::new(2),
            always: Rig::new(2),
            at_random: Rig::new(2),
            dice,
        };
        rigs.set();
        rigs
    }

    fn set(&mut self) {
        self.never.sessions.set_folding(NEVER);
        self.always.sessions.set_folding(ALWAYS);
        self.dice = xxhash_rust::xxh3::xxh3_64(&self.dice.to_le_bytes());
        let folding = Folding {
            tail_events_max: (self.dice % 8) as usize,
            events_max: if self.dice & 0x100 == 0 { usize::MAX } else { 0 },
            settle_lag_ms: (self.dice >> 9) as i64 % 240_000,
        };
        self.at_random.sessions.set_folding(folding);
    }

    fn deliver(&mut self, batch: &[KeyedEvent], watermark_ms: Option<i64>) {
        self.set();
        for rig in [&mut self.never, &mut self.always, &mut self.at_random] {
            rig.deliver(batch.to_vec(), watermark_ms);
            assert_eq!(rig.sessions.events_left_out(), 0);
        }
        self.always.tables.check_same(&self.never.tables, "always");
        self.at_random.tables.check_same(&self.never.tables, "at random");
        let open = self.never.sessions.open_sessions();
        assert_eq!(self.always.sessions.open_sessions(), open);
        assert_eq!(self.at_random.sessions.open_sessions(), open);
    }

    fn restart(&mut self, watermark_ms: i64) {
        for rig in [&mut self.never, &mut self.always, &mut self.at_random] {
            rig.restart(watermark_ms);
        }
    }
}

/// An id that is sent again with another time is told only while the first is not settled.
pub fn with_distinct_ids(mut events: Vec<KeyedEvent>) -> Vec<KeyedEvent> {
    for (index, keyed) in events.iter_mut().enumerate() {
        keyed.event.event_id = keyed.event.event_id << 32 | index as u64;
    }
    events
}

/// Gaps in seconds as players leave them, with the kinds and details of any event.
fn any_course() -> impl Strategy<Value = Vec<KeyedEvent>> {
    let gap_ms = prop_oneof![
        4 => Just(30_000i64),
        4 => 29_900..30_100i64,
        3 => 0..5_000i64,
        2 => 0..600_000i64,
        1 => 1_500_000..1_900_000i64,
    ];
    let step = (gap_ms, any_event(), 0..10usize, 0..40usize);
    let steps = proptest::collection::vec(step, 1..150);
    // A third of the courses are those of an EPAS player that tells its positions in either unit, and that
    // does so only after a while.
    let epas = proptest::option::weighted(0.34, (prop_oneof![Just(1i64), Just(1_000)], 0..60usize));
    (steps, epas).prop_map(|(steps, epas)| {
        let mut now_ms = T0;
        let mut course = Vec::new();
        for (gap_ms, mut keyed, plain, key) in steps {
            now_ms += gap_ms;
            keyed.event.event_ts_ms = now_ms;
            if plain > 1 {
                keyed.event.kind = crate::event::EventKind::Heartbeat;
                keyed.event.detail.stall_ms = keyed.event.detail.stall_ms.filter(|_| plain > 8);
            }
            if let Some((times, silent)) = epas {
                let is_told = course.len() >= silent && plain != 5;
                keyed.event.detail.source = "epas";
                keyed.event.playhead_ms = is_told.then_some((now_ms - T0) * times);
                keyed.event.detail.duration_ms = (is_told && plain != 6).then_some(80_000_000 * times);
            }
            // One viewer has most events.
            if key > 3 {
                keyed.session_key = "key-0".to_owned();
                keyed.event.detail.native_session_id = None;
            }
            course.push(keyed);
        }
        with_distinct_ids(course)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn folding_changes_nothing_in_any_order(
        events in proptest::collection::vec(any_event(), 1..60),
        watermarks_s in proptest::collection::vec(0..20_000i64, 60),
        restart_at in 0..60usize,
        dice in any::<u64>(),
        batch in 1..6usize,
    ) {
        let events = with_distinct_ids(events);
        let mut rigs = Rigs::new(dice);
        let mut newest = None;
        for (index, part) in events.chunks(batch).enumerate() {
            newest = newest.max(Some(T0 + watermarks_s[index] * 1_000));
            rigs.deliver(part, newest);
            if let (true, Some(watermark_ms)) = (index == restart_at, newest) {
                rigs.restart(watermark_ms);
            }
        }
        rigs.always.tables.check_same(&Tables::of(&events, newest), "whole");
        check_rows(&rigs.always.tables);
    }

    #[test]
    fn folding_changes_nothing_of_sessions_that_grow(
        course in any_course(),
        lags_ms in proptest::collection::vec(prop_oneof![3 => Just(0i64), 2 => 0..200_000i64], 150),
        late in proptest::collection::vec(0..30usize, 150),
        dice in any::<u64>(),
    ) {
        let mut rigs = Rigs::new(dice);
        let mut newest = None;
        let mut held_back = Vec::new();
        let mut delivered = Vec::new();
        for (index, keyed) in course.into_iter().enumerate() {
            let watermark_ms = keyed.event.event_ts_ms - lags_ms[index];
            match late[index] {
                0 => {
                    held_back.push(keyed);
                    continue;
                }
                1 => delivered.append(&mut held_back),
                _ => {}
            }
            let begin = delivered.len();
            delivered.push(keyed);
            newest = newest.max(Some(watermark_ms));
            let from = if late[index] == 1 { 0 } else { begin };
            // All that was held back comes with the event, and all before it once more.
            rigs.deliver(&delivered[from..], newest);
        }
        rigs.deliver(&held_back, newest);
        delivered.append(&mut held_back);
        rigs.always.tables.check_same(&Tables::of(&delivered, newest), "whole");
        rigs.deliver(&[], newest.map(|ms| ms + 3_600_000));
        check_rows(&rigs.always.tables);
    }
}

#[test]
fn events_whose_unit_is_open_are_kept_until_it_is_known() {
    let mut rig = Rig::new(1);
    rig.sessions.set_folding(ALWAYS);
    let mut deliver = |line: &str, watermark_s: i64| -> usize {
        let events = keyed("k", &format!("{line} source=epas"));
        rig.deliver(events, Some(T0 + watermark_s * 1_000));
        rig.sessions.events_in_memory()
    };
    assert_eq!(deliver("0 playback_start", 300), 0, "it has no unit");
    assert_eq!(deliver("310 heartbeat at=310000", 600), 1);
    assert_eq!(deliver("620 heartbeat at=620000", 620), 2, "another may yet decide before it");
    assert_eq!(deliver("930 heartbeat at=930", 1_200), 0);
    let row = rig.tables.sessions.values().next().expect("one session");
    assert_eq!((row.max_playhead_ms, row.events), (Some(620_000), 4));
    assert_eq!(row.dq_flags, ["inferred_request", "unit_settled"]);
}

#[test]
fn a_late_event_without_its_history_is_left_out() {
    let mut rig = Rig::new(1);
    rig.sessions.set_folding(ALWAYS);
    rig.deliver(keyed("k", "0 playback_request\n1 playback_start\n60 heartbeat"), Some(T0 + 60_000));
    let late = keyed("k", "30 stall_end stall=5");
    assert_eq!(rig.sessions.missing(&late), ["k"]);
    let changes = rig.sessions.apply(late, None);
    assert_eq!(changes, super::FactChanges::default());
    assert_eq!(rig.sessions.events_left_out(), 1);
}

#[test]
fn in_need_a_key_that_nothing_happens_to_is_settled_with_one_that_is_touched() {
    let text = "0 playback_request\n1 playback_start\n30 heartbeat";
    let mut delivered: Vec<KeyedEvent> = ["a", "b", "c"].iter().flat_map(|key| keyed(key, text)).collect();
    let mut rig = Rig::new(1);
    rig.sessions.set_folding(NEVER);
    rig.deliver(delivered.clone(), Some(T0 + 30_000));
    assert_eq!(rig.sessions.events_in_memory(), 9);
    rig.sessions.set_folding(ALWAYS);
    for (line, expected) in [("60 heartbeat", 3), ("90 heartbeat", 0)] {
        let events = keyed("a", line);
        delivered.extend(events.clone());
        rig.deliver(events, Some(T0 + 110_000));
        assert_eq!(rig.sessions.events_in_memory(), expected, "{line}");
    }
    rig.tables.check_same(&Tables::of(&delivered, Some(T0 + 110_000)), "whole");
    for (key, expected) in [("b", vec!["b"]), ("d", vec![])] {
        assert_eq!(rig.sessions.missing(&keyed(key, "20 heartbeat")), expected);
    }
}
