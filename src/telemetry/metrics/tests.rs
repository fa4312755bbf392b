//! Tests of the daemon's metrics: the text is read back as a scraper would.

use super::*;
use crate::enrich::remembered::Asked;

const SOURCES: [&str; 2] = ["edge", "http"];
const TABLES: [&str; 2] = ["bronze.player_events", "gold.cdn_1m"];

fn meters() -> Meters {
    Meters::new(SOURCES, TABLES)
}

/// Value of one series, as written.
fn value(text: &str, series: &str) -> Option<String> {
    let rest = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(rest.to_owned())
}

#[track_caller]
fn check(meters: &Meters, series: &str, expected: &str) {
    let text = meters.render();
    assert_eq!(value(&text, series).as_deref(), Some(expected), "{series} in\n{text}");
}

/// Every method once, with names that the settings have.
fn touch_all(meters: &Meters) {
    let counts = SourceCounts {
        received: 10,
        stored: 6,
        duplicates: 1,
        rejected: BTreeMap::from([(RejectReason::NotUtf8, 2), (RejectReason::TooDeep, 1)]),
    };
    meters.epoch_committed([("edge", &counts)], Duration::from_millis(300), 1_700_000_000_500);
    meters.epoch_failed();
    let lag = Lag {
        partitions: 3,
        records: Some(40),
        seconds: None,
    };
    meters.source_lag("edge", &lag);
    meters.watermark(Some(1_700_000_000_000));
    meters.commit_took("bronze.player_events", Duration::from_millis(20));
    meters.commit_retried("bronze.player_events");
    meters.late_records(5);
    meters.dirty_windows(7);
    meters.sessions(SessionSize {
        open: 8,
        events_in_memory: 90,
        events_left_out: 2,
    });
    meters.queue_fill(Queue::Reader, 1, 2);
    meters.queue_fill(Queue::HttpMemory, 0, 128);
    meters.lookups(LookupMemory::Network, Asked { hits: 9, misses: 1 });
    meters.spool(250, 1000);
    meters.http_answered("/cmcd", 204);
    meters.alerts(4, 1, 2, Duration::from_secs(30));
    meters.alert_rules_refused(true);
    let work = UpkeepWork {
        files_removed: 12,
        bytes_written: 4096,
    };
    meters.collected("gold.cdn_1m", 5, 1, 2);
    meters.collect_standing("gold.cdn_1m", Some(7), Some(1_700_000_000_000));
    for task in [UpkeepTask::Compact, UpkeepTask::Log, UpkeepTask::Vacuum, UpkeepTask::Retention] {
        meters.upkeep_done(task, work, Duration::from_secs(2));
        meters.upkeep_failed(task);
    }
}

#[test]
fn every_metric_of_the_table_is_there_with_its_kind_help_and_labels_and_no_other() {
    let meters = meters();
    touch_all(&meters);
    let text = meters.render();
    let mut expected: Vec<String> = METERS
        .iter()
        .flat_map(|meter| {
            let kind = meter.kind.as_str();
            [
                format!("# HELP {} {}", meter.name, meter.help),
                format!("# TYPE {} {kind}", meter.name),
            ]
        })
        .collect();
    if resident_bytes().is_none() {
        expected.retain(|line| !line.contains(table::MEMORY_BYTES.name));
    }
    let mut found: Vec<String> = text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    for meter in &METERS {
        for line in text.lines().filter(|line| line.starts_with(&format!("{}{{", meter.name))) {
            let labels: Vec<&str> = line.split(['{', ',']).skip(1).filter_map(|pair| pair.split('=').next()).collect();
            assert_eq!(labels, meter.labels, "{line}");
        }
    }
}

#[test]
fn what_is_reported_is_what_is_read() {
    let meters = meters();
    touch_all(&meters);
    check(&meters, r#"playhead_records_received_total{source="edge"}"#, "10");
    check(&meters, r#"playhead_records_stored_total{source="edge"}"#, "6");
    check(&meters, r#"playhead_records_duplicate_total{source="edge"}"#, "1");
    check(&meters, r#"playhead_records_rejected_total{source="edge",reason="not_utf8"}"#, "2");
    check(&meters, r#"playhead_records_rejected_total{source="edge",reason="too_deep"}"#, "1");
    check(&meters, r#"playhead_source_lag_records{source="edge"}"#, "40");
    check(&meters, r#"playhead_source_lag_seconds{source="edge"}"#, "NaN");
    check(&meters, r#"playhead_source_partitions{source="edge"}"#, "3");
    check(&meters, r#"playhead_lookups_total{memory="network",answer="hit"}"#, "9");
    check(&meters, "playhead_watermark_timestamp_seconds", "1700000000");
    check(&meters, "playhead_last_epoch_timestamp_seconds", "1700000000.5");
    check(&meters, r#"playhead_epoch_duration_seconds_bucket{le="0.25"}"#, "0");
    check(&meters, r#"playhead_epoch_duration_seconds_bucket{le="0.5"}"#, "1");
    check(&meters, "playhead_epoch_duration_seconds_sum", "0.3");
    let commit = r#"playhead_commit_duration_seconds_count{table="bronze.player_events"}"#;
    check(&meters, commit, "1");
    check(&meters, r#"playhead_queue_fill_ratio{queue="spool"}"#, "0.25");
    check(&meters, r#"playhead_queue_fill_ratio{queue="reader"}"#, "0.5");
    check(&meters, "playhead_spool_bytes", "250");
    check(&meters, "playhead_session_events_in_memory", "90");
    check(&meters, "playhead_events_left_out_total", "2");
    check(&meters, r#"playhead_http_requests_total{path="/cmcd",status="204"}"#, "1");
    check(&meters, "playhead_alerts_undelivered", "2");
    check(
        &meters,
        r#"playhead_collect_rows_total{table="gold.cdn_1m",outcome="superseded"}"#,
        "1",
    );
    check(&meters, r#"playhead_collect_lag_records{table="gold.cdn_1m"}"#, "7");
    check(&meters, "playhead_alerts_oldest_undelivered_seconds", "30");
    check(&meters, "playhead_alert_rules_refused", "1");
    check(&meters, r#"playhead_upkeep_runs_total{task="vacuum",outcome="failed"}"#, "1");
    check(&meters, r#"playhead_upkeep_files_removed_total{task="log"}"#, "12");
    let build = format!(r#"playhead_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"));
    check(&meters, &build, "1");
}

#[test]
fn a_source_of_the_settings_is_at_zero_before_its_first_record() {
    let meters = meters();
    check(&meters, r#"playhead_records_received_total{source="http"}"#, "0");
    check(&meters, r#"playhead_records_rejected_total{source="http",reason="bad_value"}"#, "0");
    assert_eq!(value(&meters.render(), "playhead_watermark_timestamp_seconds"), None);
}

#[test]
fn names_that_come_from_outside_open_no_series() {
    let meters = meters();
    touch_all(&meters);
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    let counts = SourceCounts {
        received: 1,
        stored: 1,
        ..SourceCounts::default()
    };
    let report = |number: u16| {
        let made_up = format!("203.0.113.{number}");
        meters.epoch_committed([(made_up.as_str(), &counts)], Duration::ZERO, 0);
        meters.source_lag(&made_up, &Lag::default());
        meters.commit_took(&made_up, Duration::ZERO);
        meters.commit_retried(&made_up);
        meters.http_answered(&format!("/{made_up}?token=x"), 600 + number);
    };
    report(0);
    let before = series(&meters.render());
    (1..100).for_each(report);
    let text = meters.render();
    assert_eq!(series(&text), before);
    assert!(!text.contains("203.0.113"), "{text}");
    assert_eq!(
        value(&text, r#"playhead_http_requests_total{path="other",status="other"}"#).as_deref(),
        Some("100")
    );
    assert_eq!(
        value(&text, r#"playhead_records_received_total{source="other"}"#).as_deref(),
        Some("100")
    );
}

#[test]
fn a_name_with_quotes_and_line_breaks_stays_on_its_line() {
    let meters = Meters::new(["a \"b\"\n\\c"], TABLES);
    let text = meters.render();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("playhead_records_stored_total"))
        .collect();
    assert_eq!(lines, [r#"playhead_records_stored_total{source="a \"b\"\n\\c"} 0"#]);
}

#[test]
fn observations_that_nobody_scrapes_are_put_into_buckets_and_none_is_lost() {
    let meters = meters();
    for _ in 0..OBSERVATIONS_MAX * 3 + 1 {
        meters.commit_took("bronze.player_events", Duration::from_millis(1));
    }
    let count = r#"playhead_commit_duration_seconds_count{table="bronze.player_events"}"#;
    check(&meters, count, &(OBSERVATIONS_MAX * 3 + 1).to_string());
}

#[test]
fn resident_memory_is_read_from_what_the_kernel_prints() {
    let check = |status: &str, expected: Option<u64>| assert_eq!(resident_of(status), expected, "{status}");
    check("VmHWM:\t   900 kB\nVmRSS:\t   123 kB\n", Some(123 * 1024));
    check("VmRSS: lots kB", None);
    check("Name: playhead", None);
}
