//! The books without a broker: order, bounds, turns, leaving and coming back.

use super::*;

const LIMITS: BatchLimits = BatchLimits {
    bytes: 1 << 20,
    records: 1000,
};

fn places(numbers: &[i32]) -> Vec<TopicPartition> {
    numbers.iter().map(|number| ("t".to_string(), *number)).collect()
}

fn mark(offset: i64) -> Mark {
    Mark { offset, token: None }
}

/// Partitions that are read from offset 10 on.
fn reading(numbers: &[i32]) -> Books {
    let mut books = Books::default();
    books.assign(&places(numbers));
    for name in books.take_found() {
        books.start(&name, Some(&mark(10)));
    }
    for (place, _) in books.due_starts(Instant::now()) {
        books.begin_reading(&place, 10, 10, false);
    }
    books
}

fn push(books: &mut Books, number: i32, offset: i64, payload: &[u8]) {
    let taken = Taken {
        offset,
        payload: Some(payload),
        attributes: b"{}",
        timestamp_ms: Some(offset * 1000),
    };
    books.take_in("t", number, taken);
}

fn payloads(part: &Part) -> Vec<(i64, &str)> {
    let text = |line: &Line| {
        assert_eq!(&part.buffer[line.attributes.0..line.attributes.1], b"{}");
        (line.offset, std::str::from_utf8(&part.buffer[line.start..line.end]).unwrap())
    };
    part.lines.iter().map(text).collect()
}

#[test]
fn parts_follow_one_another_whatever_the_limits() {
    let mut books = reading(&[0]);
    let words = ["a", "bb", "", "dddd", "eeeee", "f"];
    for (at, word) in words.iter().enumerate() {
        // Every second offset is missing, as a transaction's marks are.
        push(&mut books, 0, 10 + 2 * at as i64, word.as_bytes());
    }
    let mut got = Vec::new();
    let mut reached = 10;
    let tight = BatchLimits { bytes: 8, records: 2 };
    while let Some(part) = books.next_part(tight) {
        assert_eq!((&*part.partition, part.from), ("kafka:t/0", reached));
        assert!(part.lines.len() <= 2 && (part.buffer.len() <= 8 || part.lines.len() == 1));
        got.extend(payloads(&part).into_iter().map(|(offset, text)| (offset, text.to_string())));
        reached = part.to;
    }
    let expected: Vec<(i64, String)> = words
        .iter()
        .enumerate()
        .map(|(at, word)| (10 + 2 * at as i64, word.to_string()))
        .collect();
    assert_eq!((got, reached, books.queued_bytes()), (expected, 21, 0));
}

#[test]
fn partitions_take_turns() {
    let mut books = reading(&[0, 1, 2]);
    let one = BatchLimits { bytes: 1, records: 1 };
    for offset in 10..13 {
        push(&mut books, 0, offset, b"x");
    }
    push(&mut books, 1, 10, b"x");
    push(&mut books, 2, 10, b"x");
    let order: Vec<_> = std::iter::from_fn(|| books.next_part(one))
        .map(|part| (part.partition, part.from))
        .collect();
    let expected = [(0, 10), (1, 10), (2, 10), (0, 11), (0, 12)].map(|(number, from)| (name_of("t", number), from));
    assert_eq!(order, expected);
}

#[test]
fn what_was_taken_in_before_or_is_not_read_is_let_go() {
    let mut books = reading(&[0]);
    books.assign(&places(&[1]));
    push(&mut books, 0, 9, b"too early");
    push(&mut books, 0, 10, b"a");
    push(&mut books, 0, 10, b"again");
    push(&mut books, 1, 10, b"not started");
    push(&mut books, 7, 10, b"not ours");
    let part = books.next_part(LIMITS).unwrap();
    assert_eq!(payloads(&part), [(10, "a")]);
    assert!(books.next_part(LIMITS).is_none());
}

#[test]
fn a_gap_at_the_start_is_believed_only_when_it_is_there_twice() {
    let mut books = reading(&[0, 1]);
    // Partition 0 was put somewhere else; in partition 1 the records before 12 are not there.
    for number in 0..2 {
        push(&mut books, number, 12, b"c");
        push(&mut books, number, 13, b"d");
        assert!(books.next_part(LIMITS).is_none());
    }
    let doubted = books.doubted();
    assert_eq!(doubted, places(&[0, 1]).into_iter().map(|place| (place, 10)).collect::<Vec<_>>());
    doubted.iter().for_each(|(place, _)| books.sought_again(place));
    assert!(books.doubted().is_empty());
    push(&mut books, 0, 10, b"a");
    push(&mut books, 1, 12, b"c");
    push(&mut books, 1, 15, b"f");
    let parts: Vec<_> = std::iter::from_fn(|| books.next_part(LIMITS)).collect();
    let got: Vec<_> = parts.iter().map(|part| (part.from, part.to, payloads(part))).collect();
    assert_eq!(got, [(10, 11, vec![(10, "a")]), (10, 16, vec![(12, "c"), (15, "f")])]);
    assert!(books.doubted().is_empty(), "later gaps are the broker's own");
}

#[test]
fn long_records_keep_their_length_and_tombstones_their_attributes() {
    let mut books = reading(&[0]);
    let longest = vec![b'x'; RECORD_BYTES_MAX];
    let too_long = vec![b'x'; RECORD_BYTES_MAX + 1];
    for (offset, payload) in [(10, Some(&too_long)), (11, None), (12, Some(&longest))] {
        let taken = Taken {
            offset,
            payload: payload.map(Vec::as_slice),
            attributes: b"{\"key\":1}",
            timestamp_ms: None,
        };
        books.take_in("t", 0, taken);
    }
    let all = BatchLimits {
        bytes: 4 << 20,
        records: 10,
    };
    let part = books.next_part(all).unwrap();
    let seen: Vec<_> = part
        .lines
        .iter()
        .map(|line| (line.end - line.start, line.oversized_bytes))
        .collect();
    assert_eq!(seen, [(0, Some(RECORD_BYTES_MAX as i64 + 1)), (0, None), (RECORD_BYTES_MAX, None)]);
    for line in &part.lines {
        assert_eq!(&part.buffer[line.attributes.0..line.attributes.1], b"{\"key\":1}");
    }
}

#[test]
fn a_lost_partition_drops_its_queue_and_is_told_before_it_is_found_again() {
    let mut books = reading(&[0, 1]);
    push(&mut books, 0, 10, b"handed over");
    push(&mut books, 1, 10, b"other");
    let handed = books.next_part(LIMITS).unwrap();
    push(&mut books, 0, 11, b"queued");
    let lost = places(&[0]);
    books.begin_leaving(&lost);
    assert!(!books.is_handed_over(&lost), "a part of it is still in the daemon's hands");
    books.committed(&handed.partition, &mark(handed.to));
    assert!(books.is_handed_over(&lost));
    assert_eq!(books.unconfirmed(&lost), [(lost[0].clone(), 11)]);
    books.end_leaving(&lost);
    books.assign(&lost);
    assert!(books.take_found().is_empty(), "it has not been told as lost yet");
    assert_eq!(books.take_lost(), [name_of("t", 0)]);
    assert_eq!(books.take_found(), [name_of("t", 0)]);
    assert_eq!(&*books.next_part(LIMITS).unwrap().partition, "kafka:t/1");
    assert_eq!((books.next_part(LIMITS).is_none(), books.queued_bytes()), (true, 0));
}

#[test]
fn a_partition_that_the_daemon_never_heard_of_is_not_told_as_lost() {
    let mut books = Books::default();
    books.assign(&places(&[0]));
    books.begin_leaving(&places(&[0]));
    assert!(books.is_handed_over(&places(&[0])));
    assert_eq!((books.take_lost(), books.take_found()), (Vec::new(), Vec::new()));
}

#[test]
fn a_daemon_that_knows_of_the_loss_is_not_waited_for() {
    let mut books = reading(&[0]);
    push(&mut books, 0, 10, b"x");
    books.next_part(LIMITS).unwrap();
    books.begin_leaving(&places(&[0]));
    assert!(!books.is_handed_over(&places(&[0])));
    books.take_lost();
    assert!(books.is_handed_over(&places(&[0])));
    assert!(books.unconfirmed(&places(&[0])).is_empty(), "nothing was committed");
}

#[test]
fn offsets_are_sent_once_and_again_when_they_were_refused() {
    let mut books = reading(&[0]);
    for offset in 10..15 {
        push(&mut books, 0, offset, b"x");
    }
    books.next_part(LIMITS).unwrap();
    const NOTHING: [i64; 0] = [];
    let name = name_of("t", 0);
    let sent = |books: &mut Books| books.take_unsent().into_iter().map(|(_, to)| to).collect::<Vec<_>>();
    assert_eq!(sent(&mut books), NOTHING, "an offset that the lake has not committed is not sent");
    books.committed(&name, &mark(12));
    assert_eq!(sent(&mut books), [12]);
    assert_eq!(sent(&mut books), NOTHING);
    books.confirm("t", 0, None);
    assert_eq!(sent(&mut books), [12]);
    books.forget_unanswered();
    assert_eq!(sent(&mut books), [12]);
    books.confirm("t", 0, Some(12));
    books.committed(&name, &mark(11));
    books.committed(&name, &mark(99));
    assert_eq!(sent(&mut books), NOTHING, "neither back, nor past what was handed over");
    books.committed(&name, &mark(15));
    assert_eq!(sent(&mut books), [15]);
    assert_eq!(books.unconfirmed(&places(&[0])), [(places(&[0])[0].clone(), 15)]);
}

#[test]
fn a_place_that_is_our_own_is_sent_as_it_begins() {
    let mut books = Books::default();
    books.assign(&places(&[0]));
    books.start("kafka:t/0", None);
    books.begin_reading(&places(&[0])[0], 70, 70, true);
    assert_eq!(books.take_unsent(), [(places(&[0])[0].clone(), 70)]);
}

#[test]
fn the_lag_is_the_sum_of_the_records_and_the_age_of_the_oldest() {
    let mut books = reading(&[0, 1]);
    push(&mut books, 0, 10, b"x");
    push(&mut books, 0, 11, b"x");
    let view = |end| LogView {
        end,
        fetch_next: Some(end),
        fetched: 0,
    };
    books.see_log("t", 0, view(12));
    books.see_log("t", 1, view(10));
    let check = |books: &Books, records: u64, seconds: f64| {
        let expected = Lag {
            partitions: 2,
            records: Some(records),
            seconds: Some(seconds),
        };
        assert_eq!(books.lag(20_000), expected);
    };
    check(&books, 2, 10.0);
    books.next_part(LIMITS).unwrap();
    check(&books, 0, 0.0);
    books.see_log("t", 0, LogView { fetched: 5, ..view(17) });
    check(&books, 5, 9.0);
    books.see_end(&places(&[0])[0], 30);
    books.see_log("t", 0, LogView { fetched: 5, ..view(17) });
    check(&books, 18, 9.0);
}

#[test]
fn errors_are_bounded_and_come_back_when_nobody_asks() {
    let mut books = Books::default();
    let error = |number: usize| SourceError {
        source_name: "s".to_string(),
        what: number.to_string(),
        advice: String::new(),
    };
    assert!((0..ERRORS_MAX).all(|number| books.tell(error(number)).is_none()));
    assert_eq!(books.tell(error(7)), Some(error(7)));
    assert_eq!(books.take_error(), Some(error(0)));
}
