//! Snapshots change no row: an engine that goes on, and one that is taken up from its snapshot, are given
//! the same.
//!
//! Stands beside the tests of `session`, whose rig and generators it uses.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::fixtures::{BIG_BUCK_BUNNY, NEWS_LIVE, OCEANS, T0, TEARS_OF_STEEL};
use super::fold_tests::{ALWAYS, NEVER, with_distinct_ids};
use super::laws::any_event;
use super::rig::{Rig, keyed};
use super::shard::Folding;
use super::{KeyedEvent, SessionSettings, Sessions, SnapshotError};

/// Rows and bytes of `generated_events`, by which it is seen that the rules are others.
const FINGERPRINT: u64 = 0xd49c_4b57_6e5f_e6fe;

fn snapshot_of(sessions: &Sessions) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = sessions.snapshot(&json!({"bronze": 7}), &mut bytes);
    written.expect("a session of known names");
    bytes
}

fn restored(bytes: &[u8], shards: usize) -> Result<Sessions, SnapshotError> {
    Sessions::restore(bytes, SessionSettings::default(), shards).map(|restored| restored.sessions)
}

/// Two engines that are given the same, of which one is stopped now and then.
struct Pair {
    straight: Rig,
    stopped: Rig,
    folding: Folding,
}

impl Pair {
    fn new(folding: Folding) -> Self {
        let (mut straight, mut stopped) = (Rig::new(2), Rig::new(2));
        straight.sessions.set_folding(folding);
        stopped.sessions.set_folding(folding);
        Self {
            straight,
            stopped,
            folding,
        }
    }

    fn stop(&mut self, shards: usize) {
        let bytes = snapshot_of(&self.stopped.sessions);
        let mut sessions = restored(&bytes, shards).expect("a sound snapshot");
        assert!(snapshot_of(&sessions) == bytes, "a snapshot of what was taken up is the same");
        let size = |sessions: &Sessions| (sessions.open_sessions(), sessions.events_in_memory(), sessions.evicted_through());
        assert_eq!(size(&sessions), size(&self.stopped.sessions));
        sessions.set_folding(self.folding);
        self.stopped.sessions = sessions;
    }

    fn deliver(&mut self, batch: &[KeyedEvent], watermark_ms: Option<i64>) {
        let expected = self.straight.deliver(batch.to_vec(), watermark_ms);
        let changes = self.stopped.deliver(batch.to_vec(), watermark_ms);
        assert_eq!(changes, expected);
        let open = self.straight.sessions.open_sessions();
        assert_eq!(self.stopped.sessions.open_sessions(), open);
        assert_eq!(self.stopped.sessions.events_left_out(), 0);
    }
}

fn any_folding() -> impl Strategy<Value = Folding> {
    let folding = (0..8usize, prop_oneof![Just(0), 1..20usize, Just(usize::MAX)], 0..240_000i64);
    folding.prop_map(|(tail_events_max, events_max, settle_lag_ms)| Folding {
        tail_events_max,
        events_max,
        settle_lag_ms,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_engine_goes_on_from_its_snapshot_as_if_it_had_not_stopped(
        events in proptest::collection::vec(any_event(), 1..100),
        watermarks_s in proptest::collection::vec(0..20_000i64, 100),
        stops in proptest::collection::vec(0..30usize, 1..4),
        shards in 1..6usize,
        folding in any_folding(),
        batch in 1..6usize,
        grows in any::<bool>(),
    ) {
        let mut events = with_distinct_ids(events);
        if grows {
            events.sort_by_key(|keyed| keyed.event.event_ts_ms);
        }
        let mut pair = Pair::new(folding);
        let mut newest = None;
        for (index, part) in events.chunks(batch).enumerate() {
            let at_ms = if grows { part[0].event.event_ts_ms } else { T0 + watermarks_s[index] * 1_000 };
            newest = newest.max(Some(at_ms));
            pair.deliver(part, newest);
            if stops.contains(&index) {
                pair.stop(shards);
            }
        }
        pair.stop(shards);
        pair.deliver(&[], newest.map(|ms| ms + 3_600_000));
        pair.deliver(&[], Some(T0 + 1_000_000_000));
        prop_assert_eq!(pair.stopped.sessions.events_in_memory(), 0);
    }

    #[test]
    fn what_memory_pressure_does_not_choose_comes_out_byte_for_byte(
        events in proptest::collection::vec(any_event(), 1..60),
        shards in 1..6usize,
        tail_events_max in 0..8usize,
        stop_at in 0..60usize,
    ) {
        let mut pair = Pair::new(Folding { tail_events_max, ..NEVER });
        for (index, keyed) in with_distinct_ids(events).into_iter().enumerate() {
            pair.deliver(std::slice::from_ref(&keyed), Some(keyed.event.event_ts_ms - 60_000));
            if index == stop_at {
                pair.stop(shards);
            }
        }
        prop_assert!(snapshot_of(&pair.stopped.sessions) == snapshot_of(&pair.straight.sessions));
    }
}

/// Brings an engine from an older snapshot to where its lake stands.
fn catch_up(rig: &mut Rig, written: &[(&[KeyedEvent], Option<i64>)], watermark_ms: Option<i64>) {
    let mut outdated = BTreeSet::new();
    for (batch, watermark_ms) in written {
        rig.sessions.catch_up(batch.to_vec(), *watermark_ms, &mut outdated);
    }
    rig.sessions.catch_up(Vec::new(), watermark_ms, &mut outdated);
    let Some(as_of_ms) = watermark_ms.filter(|_| !outdated.is_empty()) else {
        return;
    };
    rig.sessions.restore_watermark(as_of_ms);
    for key in outdated {
        rig.load(&key, as_of_ms - SessionSettings::default().idle_gap_ms);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What `ingest::snapshots` counts on: batches whose rows the lake has are taken in and what they change
    /// is dropped, keys that reach back are read from the lake, and the batch that a crash cut short then
    /// changes what it would have.
    #[test]
    fn an_old_snapshot_is_brought_up_to_the_lake(
        events in proptest::collection::vec(any_event(), 2..80),
        watermarks_s in proptest::collection::vec(0..20_000i64, 80),
        stop_at in 0..40usize,
        shards in 1..4usize,
        folding in any_folding(),
        batch in 1..6usize,
        closes in any::<bool>(),
    ) {
        let events = with_distinct_ids(events);
        let batches: Vec<&[KeyedEvent]> = events.chunks(batch).collect();
        let (unwritten, written) = batches.split_last().expect("a batch");
        let mut straight = Rig::new(2);
        straight.sessions.set_folding(folding);
        let mut bytes = snapshot_of(&straight.sessions);
        let mut newest = None;
        let mut after = Vec::new();
        for (index, part) in written.iter().enumerate() {
            newest = newest.max(Some(T0 + watermarks_s[index] * 1_000));
            straight.deliver(part.to_vec(), newest);
            after.push((*part, newest));
            if index == stop_at {
                bytes = snapshot_of(&straight.sessions);
                after.clear();
            }
        }
        if closes {
            newest = newest.map(|ms| ms + 1_000_000);
            straight.deliver(Vec::new(), newest);
        }
        let lake = straight.lake.clone();
        let expected = straight.deliver(unwritten.to_vec(), newest);

        let mut late = Rig::new(1);
        late.lake = lake;
        late.sessions = restored(&bytes, shards).expect("a sound snapshot");
        late.sessions.set_folding(folding);
        catch_up(&mut late, &after, newest);
        late.load_missing(unwritten);
        prop_assert_eq!(late.sessions.apply(unwritten.to_vec(), newest), expected);
        prop_assert_eq!(late.sessions.events_left_out(), 0);
    }
}

/// Some of everything, the same each time.
fn generated_events() -> Vec<KeyedEvent> {
    let strategy = proptest::collection::vec(any_event(), 400);
    let tree = strategy.new_tree(&mut TestRunner::deterministic());
    let viewers = [("a", BIG_BUCK_BUNNY), ("b", TEARS_OF_STEEL), ("c", NEWS_LIVE), ("d", OCEANS)];
    let reference = viewers.into_iter().flat_map(|(key, text)| keyed(key, text));
    with_distinct_ids(tree.expect("events").current().into_iter().chain(reference).collect())
}

/// An engine of packed and open keys, settled and not.
fn engine() -> Sessions {
    let mut rig = Rig::new(3);
    for (index, batch) in generated_events().chunks(7).enumerate() {
        rig.sessions.set_folding(if index % 2 == 0 { ALWAYS } else { NEVER });
        rig.deliver(batch.to_vec(), Some(T0 + 60_000));
    }
    rig.sessions
}

#[test]
fn a_change_of_the_rules_or_of_the_bytes_is_another_engine() {
    let mut fingerprint = 0;
    let mut mix = |bytes: &[u8]| fingerprint = xxh3_64_with_seed(bytes, fingerprint);
    let mut rig = Rig::new(1);
    rig.sessions.set_folding(ALWAYS);
    let mut newest = None;
    for batch in generated_events().chunks(5) {
        newest = newest.max(batch.first().map(|keyed| keyed.event.event_ts_ms.min(T0 + 7_200_000)));
        let changes = rig.deliver(batch.to_vec(), newest);
        mix(format!("{changes:?}").as_bytes());
    }
    for block in blocks(&snapshot_of(&rig.sessions)) {
        mix(&block);
    }
    let now = format!("{fingerprint:#018x}");
    assert_eq!(
        now,
        format!("{FINGERPRINT:#018x}"),
        "the engine gives other rows or other bytes (or its tests other events): raise RULES in session/snapshot.rs, so that no snapshot of \
         the engine before is taken up, and write the new fingerprint here"
    );
}

/// The insides of a snapshot's blocks.
fn blocks(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &bytes[head_bytes(bytes)..];
    let mut blocks = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = u64::from_le_bytes(*length) as usize;
        blocks.push(after[..length].to_vec());
        rest = &after[length + 8..];
    }
    blocks
}

/// The first line and its checksum.
fn head_bytes(bytes: &[u8]) -> usize {
    let line = bytes.iter().position(|byte| *byte == b'\n').expect("a first line");
    line + 1 + 8
}

#[test]
fn the_first_line_is_for_people_too() {
    let mut sessions = Sessions::new(SessionSettings::default(), 2);
    sessions.apply(keyed("k", "0 playback_request\n1 playback_start"), Some(T0));
    let bytes = snapshot_of(&sessions);
    let line = &bytes[..head_bytes(&bytes) - 9];
    let head: Value = serde_json::from_slice(line.strip_prefix(b"playhead-sessions ").expect("the magic")).expect("JSON");
    assert_eq!(
        (&head["format"], &head["keys"], &head["watermark_ms"]),
        (&json!(1), &json!(1), &json!(T0))
    );
    assert_eq!(head["note"], json!({"bronze": 7}));
    let restored = Sessions::restore(&bytes[..], SessionSettings::default(), 1).expect("sound");
    assert_eq!(restored.note, json!({"bronze": 7}));
    assert_eq!(restored.sessions.watermark_ms(), Some(T0));
}

#[test]
fn an_empty_engine_has_a_snapshot() {
    let mut sessions = Sessions::new(SessionSettings::default(), 2);
    sessions.restore_watermark(T0);
    let taken_up = restored(&snapshot_of(&sessions), 3).expect("sound");
    let late = keyed("k", "-1 heartbeat");
    assert_eq!((taken_up.missing(&late), taken_up.watermark_ms()), (vec!["k".to_owned()], Some(T0)));
}

#[test]
fn what_was_left_out_before_stays_counted() {
    let mut rig = Rig::new(1);
    rig.sessions.set_folding(ALWAYS);
    rig.deliver(keyed("k", "0 playback_request\n1 playback_start\n60 heartbeat"), Some(T0 + 60_000));
    rig.sessions.apply(keyed("k", "30 stall_end stall=5"), None);
    for _ in 0..2 {
        rig.sessions = restored(&snapshot_of(&rig.sessions), 2).expect("sound");
        assert_eq!(rig.sessions.events_left_out(), 1);
    }
}

#[test]
fn a_snapshot_damaged_anywhere_is_refused() {
    let bytes = snapshot_of(&engine());
    assert!(blocks(&bytes).len() > 1 && restored(&bytes, 1).is_ok());
    let mut damaged = bytes.clone();
    let end = damaged.len();
    // Every byte of the beginning and of the end, and of what lies between one in some.
    let step = |at: usize| if at < 2_000 || at + 200 > end { 1 } else { 97 };
    let mut at = 0;
    while at < end {
        for bit in [1, 0x80] {
            damaged[at] ^= bit;
            assert!(restored(&damaged, 2).is_err(), "byte {at}");
            damaged[at] ^= bit;
        }
        assert!(restored(&bytes[..at], 2).is_err(), "cut at {at}");
        at += step(at);
    }
    damaged.push(0);
    assert!(restored(&damaged, 2).is_err(), "something follows");
}

/// With another first line, and its right checksum.
fn with_head(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    let end = head_bytes(bytes) - 8;
    let line = std::str::from_utf8(&bytes[..end]).expect("text");
    assert!(line.contains(old), "{line}");
    let line = line.replace(old, new);
    [line.as_bytes(), &xxh3_64(line.as_bytes()).to_le_bytes(), &bytes[end + 8..]].concat()
}

#[test]
fn a_snapshot_of_another_engine_is_refused_and_says_so() {
    let bytes = snapshot_of(&engine());
    let check = |bytes: &[u8], settings: SessionSettings, expected: &str| {
        let error = Sessions::restore(bytes, settings, 1).err().expect("refused");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let settings = SessionSettings::default();
    check(&with_head(&bytes, "\"format\":1", "\"format\":2"), settings, "is of format 2");
    check(
        &with_head(&bytes, env!("CARGO_PKG_VERSION"), "9.9.9"),
        settings,
        "this Playhead takes up engine",
    );
    let others = SessionSettings {
        idle_gap_ms: 1,
        ..settings
    };
    check(&bytes, others, "other settings");
    check(&bytes[..bytes.len() - 1], settings, "cut off");
    check(b"{}", settings, "does not begin as one");
    check(b"", settings, "does not begin as one");
}
