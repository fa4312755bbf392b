//! Listing: what is found, how often it is read, from where and in which order.

use std::sync::atomic::Ordering;

use super::*;

#[test]
fn objects_are_read_whatever_they_are_packed_in() {
    let mut rig = Rig::new(settings(), None);
    rig.put("a.log", "#Fields: x\nplain 1\nplain 2");
    rig.put("b.gz", gzip(b"#Fields: x\ngzip 1\ngzip 2\n"));
    rig.put("deep/er/c", zstd::encode_all(&b"zstd 1\n"[..], 1).expect("in memory"));
    rig.put("_SUCCESS", "no record");
    rig.put("d.tmp", "no record");
    rig.put("empty", "");
    rig.run_until("all read", |rig| rig.lines.len() >= 7);
    rig.run_on();
    let expected = ["#Fields: x", "#Fields: x", "gzip 1", "gzip 2", "plain 1", "plain 2", "zstd 1"];
    assert_eq!(rig.texts(), expected);
    assert_eq!(rig.errors, Vec::<String>::new());
}

#[test]
fn rows_of_parquet_are_read_as_lines_of_json() {
    let numbers: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(0..300));
    let batch = arrow::array::RecordBatch::try_from_iter([("n", numbers)]).expect("one column");
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("in memory");
    writer.write(&batch).expect("in memory");
    let mut rig = Rig::new(settings(), None);
    rig.put("a.parquet", writer.into_inner().expect("in memory"));
    rig.put("b.parquet", "PAR1 and nothing sound after it");
    rig.run_until("read", |rig| rig.lines.len() >= 300 && !rig.errors.is_empty());
    assert_eq!(rig.lines[299].1, r#"{"n":299}"#);
    assert!(
        rig.errors[0].contains("b.parquet#") && rig.errors[0].contains("parquet stream is damaged"),
        "{:?}",
        rig.errors
    );
}

#[test]
fn what_binds_the_columns_comes_with_every_part() {
    let mut rig = Rig::new(settings(), None);
    rig.put("a.gz", gzip(b"#Version: 1.0\n#Fields: x\n1\n2\n"));
    let began = Instant::now();
    let found = loop {
        assert!(began.elapsed() < AT_MOST);
        if let Some(found) = rig.source.discover().expect("sound").pop() {
            break found;
        }
    };
    assert_eq!(&*found.header, b"#Version: 1.0\n#Fields: x\n");
    assert_eq!(found.first_line, b"1");
    // Past the header: the decoder starts from the part's own.
    rig.source.start(&found.partition, Some(Mark { offset: 27, token: None }));
    let part = loop {
        assert!(began.elapsed() < AT_MOST);
        if let Some(part) = rig.source.next_part(LIMITS).expect("sound") {
            break part;
        }
    };
    assert_eq!(&*part.header, b"#Version: 1.0\n#Fields: x\n");
    assert_eq!((part.from, part.to, part.finished, part.buffer), (27, 29, true, b"2\n".to_vec()));
}

#[test]
fn an_object_is_read_once_however_often_it_is_listed() {
    let mut rig = Rig::new(settings(), None);
    rig.put("a", "one\n");
    rig.run_until("read", |rig| !rig.lines.is_empty());
    rig.run_on();
    assert_eq!(rig.texts(), ["one"]);
    // Nor while its commit is awaited.
    rig.commits = false;
    rig.put("b", "two\n");
    rig.run_until("read", |rig| rig.lines.len() > 1);
    rig.run_on();
    assert_eq!(rig.texts(), ["one", "two"]);
    assert_eq!(rig.source.lag().partitions, 0);
}

#[test]
fn a_replaced_object_is_another_one() {
    let mut rig = Rig::new(settings(), None);
    rig.put("a", "old\n");
    rig.run_until("read", |rig| !rig.lines.is_empty());
    rig.put("a", "old\nnew\n");
    rig.run_until("read again", |rig| rig.lines.len() >= 3);
    assert_eq!(rig.texts(), ["new", "old", "old"]);
    assert_ne!(rig.lines[0].0, rig.lines[2].0);
    assert!(rig.lines[0].0.starts_with("s3://logs/a#"), "{}", rig.lines[0].0);
}

#[test]
fn objects_that_come_out_of_name_order_and_late_are_read() {
    let mut rig = Rig::new(settings(), None);
    rig.put("2026-11-21-12", "noon\n");
    rig.run_until("read", |rig| !rig.lines.is_empty());
    rig.put("2026-11-20-12", "a day late\n");
    rig.put("2026-11-21-11", "an hour late\n");
    rig.run_until("read", |rig| rig.lines.len() >= 3);
    assert_eq!(rig.texts(), ["a day late", "an hour late", "noon"]);
}

#[test]
fn reading_goes_on_where_the_lake_stands() {
    for packed in [false, true] {
        let text = numbered("n", 50_000);
        let bytes = if packed { gzip(text.as_bytes()) } else { text.clone().into_bytes() };
        let mut whole = Rig::new(settings(), None);
        whole.put("a", bytes.clone());
        whole.run_until("some are read", |rig| rig.lines.len() > 10_000);
        let taken = whole.lines.len();
        let (store, known) = (Arc::clone(&whole.store), Arc::clone(&whole.known));
        drop(whole);
        let mut rest = Rig::over(settings(), None, store, known, 0);
        rest.run_until("the rest is read", |rig| rig.lines.len() >= 50_000 - taken);
        rest.run_on();
        let got: String = rest.lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        assert!(text.ends_with(&got), "packed {packed}: {} lines after {taken}", rest.lines.len());
        assert_eq!(rest.lines.len() + taken, 50_000);
    }
}

#[test]
fn what_is_too_old_is_counted_and_not_read() {
    let mut rig = Rig::over(settings(), None, Arc::default(), Arc::default(), NOW_MS);
    rig.put("a", "old\n");
    rig.put("b", "old\n");
    rig.run_until("counted", |rig| rig.source.too_old() >= 2);
    rig.run_on();
    assert_eq!((rig.source.too_old(), rig.lines.len()), (2, 0));
}

#[test]
fn the_object_furthest_behind_in_event_time_is_read_next() {
    let mut rig = Rig::new(ObjectsSettings { open_max: 2, ..settings() }, None);
    for name in ["a", "b", "c"] {
        rig.put(name, numbered(name, 30_000));
    }
    let mut found = Vec::new();
    let began = Instant::now();
    while found.len() < 3 {
        assert!(began.elapsed() < AT_MOST);
        found.extend(rig.source.discover().expect("sound").into_iter().map(|found| found.partition));
    }
    found.sort();
    // The later the name, the earlier the time: c, then b, then a, an hour apart.
    for (partition, hours) in found.iter().zip([3, 2, 1]) {
        rig.source.start(partition, None);
        rig.source.advance(partition, hours * 3_600_000);
    }
    rig.run_until("all read", |rig| rig.lines.len() >= 90_000);
    let order: Vec<&str> = rig.lines.iter().map(|(_, line)| &line[..1]).collect();
    assert!(order.is_sorted_by(|left, right| left >= right), "not in the order of time");
}

#[test]
fn a_torn_listing_is_reported_and_made_again() {
    let mut rig = Rig::new(settings(), None);
    rig.store.list_faults.store(2, Ordering::SeqCst);
    rig.put("a", "1\n");
    rig.put("b", "2\n");
    rig.run_until("all read", |rig| rig.lines.len() >= 2 && !rig.errors.is_empty());
    assert!(rig.errors[0].contains("cannot list"), "{:?}", rig.errors);
}

#[test]
fn more_objects_than_may_be_under_way_are_read_all() {
    let mut rig = Rig::new(settings(), None);
    let objects = super::super::ALOFT_MAX + 200;
    for number in 0..objects {
        rig.put(&format!("k{number}"), format!("{number}\n"));
    }
    rig.run_until("all read", |rig| rig.lines.len() >= objects);
    assert_eq!(rig.lines.len(), objects);
}

#[test]
fn a_folder_is_a_store() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("sub")).expect("writable");
    std::fs::write(folder.path().join("sub/a b.log"), "one\n").expect("writable");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let settings = ObjectsSettings {
        url: format!("file://{}", folder.path().display()),
        prefix: "sub/".to_string(),
        ..settings()
    };
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let mut source = ObjectSource::open(settings, runtime.handle(), Arc::new(|_, _| Standing::Wanted), clock).expect("usable");
    let began = Instant::now();
    let part = loop {
        assert!(began.elapsed() < AT_MOST);
        for found in source.discover().expect("readable") {
            source.start(&found.partition, None);
        }
        if let Some(part) = source.next_part(LIMITS).expect("readable") {
            break part;
        }
    };
    assert_eq!(part.buffer, b"one\n");
    let start = format!("file://{}/sub/a b.log#", folder.path().display());
    assert!(part.partition.starts_with(&start), "{}", part.partition);
    source.stop();
}
