//! What viewers got by POP: player events joined to the CDN's log, and the CDNs side by side.

use serde_json::{Value, json};

use crate::support::{Bench, simulate};

/// 2026-01-01T12:00:00Z.
const NOON_MS: i64 = 1_767_268_800_000;
const DAY_MS: i64 = 86_400_000;
/// Layout of the logs that these tests write.
const FIELDS: &str =
    "cdn_name=own time=ts:epoch_ms request_id=id url=url status=status ttfb=ttfb:ms pop=pop result_type=cache country=cc cmcd_session=cmcd";
/// What both `gold.playback` and `gold.delivery` add up.
const SUMS: &str = "sum(attempts) AS attempts, sum(plays) AS plays, sum(start_failures) AS failures, sum(startup_count) AS starts, \
     sum(startup_ms_sum) AS startup_ms, sum(playing_ms) AS playing_ms, sum(stall_ms) AS stall_ms, sum(stall_count) AS stalls";

/// An alert over the view: any answer at all fires.
const STEER: &str = "version: 1
targets:
  console:
    stdout: {}
groups:
  - name: steer
    interval: watermark
    rules:
      - alert: CdnAnswers
        uid: cdn-answers
        owner: team-delivery
        from: gold.cdn_compare_1m
        value:
          ratio: {num: requests - status_5xx, den: requests}
        window: 5m
        group_by: [cdn, country]
        min_samples: 1
        condition: {test: value, op: \">\", threshold: 10%}
        severity: warning
        annotations:
          summary: \"{{ cdn }} answers\"
        notify: {targets: [console]}
";

/// One request to `pop`: milliseconds after noon, path, time to first byte, session.
fn request(id: &str, after_ms: i64, path: &str, pop: &str, ttfb_ms: i64, session: Option<&str>) -> Value {
    json!({
        "ts": NOON_MS + after_ms, "id": id, "url": format!("https://media.example{path}"), "status": 200, "ttfb": ttfb_ms,
        "pop": pop, "cache": if ttfb_ms > 1_000 { "MISS" } else { "HIT" }, "cc": "DE",
        "cmcd": session.map(|session| format!("sid=\"{session}\"")),
    })
}

#[track_caller]
fn ingest_log(bench: &Bench, name: &str, requests: &[Value]) {
    let lines: Vec<String> = requests.iter().map(|request| format!("{request}\n")).collect();
    let file = bench.write(name, lines.concat());
    let path = file.to_str().expect("a test's path is text");
    let output = bench.run(&["ingest", path, "--format", "generic_json", "--fields", FIELDS, "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
    assert_eq!(summary["rejected"], 0, "{summary}");
}

/// All rows of the four tables, but for the versions that they were computed from.
fn delivery(bench: &Bench) -> Vec<(&'static str, Vec<String>)> {
    let rows_of = |grain: &'static str| {
        let mut rows = bench.sql(&format!("SELECT * FROM gold.delivery_{grain}"));
        rows.iter_mut().filter_map(Value::as_object_mut).for_each(|row| {
            row.remove("silver_versions");
        });
        let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        rows.sort();
        (grain, rows)
    };
    ["1m", "5m", "1h", "1d"].map(rows_of).into()
}

#[test]
fn nothing_of_what_viewers_got_is_lost_in_the_join_however_late_the_log_comes() {
    let whole = Bench::new();
    let input = simulate(&whole, &["--sessions", "120", "--seed", "8", "--minutes", "45", "--incident"]);
    whole.ingest(&[&input]);
    let expected = whole.sql(&format!("SELECT {SUMS} FROM gold.playback_1m"));
    assert!(expected[0]["stall_ms"].as_i64() > Some(0), "{expected:?}");
    for grain in ["1m", "5m", "1h", "1d"] {
        let found = whole.sql(&format!("SELECT {SUMS} FROM gold.delivery_{grain}"));
        assert_eq!(found, expected, "{grain}");
    }
    let row = &whole.sql(
        "SELECT sum(reports) AS reports, sum(matched_by_id) AS matched, sum(matched_by_session) AS by_session, \
         sum(located_ms) AS located_ms, sum(playing_ms) + sum(stall_ms) AS viewing_ms, count(DISTINCT pop) AS pops FROM gold.delivery_1m",
    )[0];
    let number = |name: &str| row[name].as_i64().unwrap_or(0);
    let reports = whole.int("SELECT count(*) FROM silver.player_events WHERE request_id IS NOT NULL");
    assert_eq!((number("reports"), number("by_session")), (reports, 0), "{row}");
    assert!(number("matched") * 10 >= reports * 8 && number("matched") <= reports, "{row}");
    assert!(
        number("located_ms") * 2 > number("viewing_ms") && number("located_ms") <= number("viewing_ms"),
        "{row}"
    );
    assert!(number("pops") > 1, "{row}");

    // The log of the first half comes after that of the second, and both after the players.
    let late = Bench::new();
    let log = std::fs::read_to_string(input.join("cdn.tsv")).expect("it was simulated");
    let (header, rows): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.starts_with('#'));
    let (first, second) = rows.split_at(rows.len() / 2);
    late.ingest(&[&input.join("player.ndjson")]);
    for (name, rows) in [("second.tsv", second), ("first.tsv", first)] {
        let text = [&header[..], rows].concat().join("\n") + "\n";
        late.ingest(&[&late.write(name, text)]);
    }
    let (expected, found) = (delivery(&whole), delivery(&late));
    for ((grain, expected), (_, found)) in expected.iter().zip(&found) {
        let missing: Vec<_> = expected.iter().filter(|row| !found.contains(row)).take(2).collect();
        assert!(expected == found, "delivery_{grain}: missing {missing:#?}");
    }
}

#[test]
fn a_report_without_an_id_is_joined_by_session_path_and_thirty_seconds() {
    let bench = Bench::new();
    let report = |after_ms: i64, path: &str| {
        let ts = NOON_MS + after_ms;
        format!("cid=\"film\",e=rr,rc=200,sid=\"s-1\",sta=p,ts={ts},url=\"https://media.example{path}?token=1\",v=2\n")
    };
    // 12:00:50 and 12:01:05 are in two minutes and 15 s apart; the playlist is asked for again and again.
    let reports = [
        report(50_000, "/a/1.m4s"),
        report(51_000, "/a/list.m3u8"),
        report(100_000, "/a/1.m4s"),
        report(101_000, "/b/1.m4s"),
    ];
    bench.ingest(&[&bench.write("player.cmcd", reports.concat())]);
    ingest_log(
        &bench,
        "cdn.ndjson",
        &[
            request("r1", 65_000, "/a/1.m4s", "lhr", 20, Some("s-1")),
            request("r2", 50_000, "/a/list.m3u8", "lhr", 20, Some("s-1")),
            request("r3", 53_000, "/a/list.m3u8", "lhr", 20, Some("s-1")),
            request("r4", 100_000, "/a/1.m4s", "fra", 20, Some("s-2")),
        ],
    );
    let rows = bench.sql(
        "SELECT window_start, cdn, pop, sum(reports) AS reports, sum(matched_by_id) AS by_id, sum(matched_by_session) AS by_session \
         FROM gold.delivery_1m WHERE reports > 0 GROUP BY 1, 2, 3 ORDER BY 1",
    );
    assert_eq!(
        rows,
        [
            json!({"window_start": "2026-01-01T12:00:00Z", "cdn": "own", "pop": "LHR", "reports": 2, "by_id": 0, "by_session": 2}),
            json!({"window_start": "2026-01-01T12:01:00Z", "cdn": "own", "pop": "LHR", "reports": 2, "by_id": 0, "by_session": 0}),
        ]
    );
}

#[test]
fn a_session_that_the_log_alone_knows_has_a_pop_and_matches_nothing() {
    let bench = Bench::new();
    let requests: Vec<Value> = (0..30)
        .map(|n| {
            let path = format!("/a/{n}.m4s");
            request(&format!("r{n}"), n * 4_000, &path, "lhr", 20, Some("s-1"))
        })
        .collect();
    ingest_log(&bench, "cdn.ndjson", &requests);
    let row = bench.sql(
        "SELECT count(*) > 0 AS there, sum(reports) AS reports, sum(matched_by_id + matched_by_session) AS matched, \
         min(pop) AS pop, count(*) = count(pop) AS everywhere FROM gold.delivery_1m",
    );
    assert_eq!(
        row,
        [json!({"there": true, "reports": 0, "matched": 0, "pop": "LHR", "everywhere": true})]
    );
}

#[test]
fn a_session_that_stalled_shows_the_requests_that_it_met() {
    let bench = Bench::new();
    let event = |kind: &str, after_ms: i64, extra: Value| {
        let mut event = json!({
            "MetricType": kind, "at": 1, "user_id": "viewer", "video_id": "film", "playlist_type": "VOD", "TimeStamp": NOON_MS + after_ms,
        });
        let members = event.as_object_mut().expect("an object");
        members.extend(extra.as_object().expect("an object").clone());
        format!("{event}\n")
    };
    let events = [
        event("PLAY", 0, json!({})),
        event("FIRSTFRAME", 800, json!({"time_millisecond": 800, "cdn_tracking_id": "r1"})),
        event("STREAM", 10_000, json!({"cdn_tracking_id": "r2"})),
        event(
            "BUFFER",
            15_000,
            json!({"buffer_type": "ScreenFreezedBuffer", "time_millisecond": 2_000, "cdn_tracking_id": "r3"}),
        ),
        event("STREAM", 70_000, json!({"cdn_tracking_id": "r4"})),
        event("STOP", 80_000, json!({})),
    ];
    bench.ingest(&[&bench.write("player.ndjson", events.concat())]);
    ingest_log(
        &bench,
        "cdn.ndjson",
        &[
            request("r1", 500, "/a/1.m4s", "lhr", 20, None),
            request("r2", 9_000, "/a/2.m4s", "lhr", 30, None),
            request("r3", 14_000, "/a/3.m4s", "lhr", 1_500, None),
            request("r4", 69_000, "/a/4.m4s", "lhr", 1_600, None),
        ],
    );
    let row = bench.sql(
        "SELECT stall_ms, reports, matched_by_id, stalled_ttfb_ms_sum, stalled_ttfb_count, stalled_slow_requests, stalled_hits, \
         stalled_misses FROM gold.delivery_1m WHERE pop = 'LHR' AND stall_ms > 0",
    );
    assert_eq!(
        row,
        [json!({
            "stall_ms": 2_000, "reports": 3, "matched_by_id": 3, "stalled_ttfb_ms_sum": 1_550, "stalled_ttfb_count": 3,
            "stalled_slow_requests": 1, "stalled_hits": 2, "stalled_misses": 1,
        })]
    );
}

#[test]
fn the_cdns_stand_side_by_side_with_their_own_day_before() {
    let bench = Bench::new();
    let requests: Vec<Value> = [(0, 100), (1_000, 300), (DAY_MS, 400), (DAY_MS + 61_000, 200)]
        .iter()
        .enumerate()
        .map(|(n, (after_ms, ttfb_ms))| request(&format!("r{n}"), *after_ms, "/a/1.m4s", "lhr", *ttfb_ms, None))
        .collect();
    ingest_log(&bench, "cdn.ndjson", &requests);
    let rows = bench.sql(
        "SELECT window_start, cdn, country, requests, error_5xx, cache_hit_ratio, ttfb_mean_ms, ttfb_day_before_ms, \
         ttfb_to_day_before, match_ratio FROM gold.cdn_compare_1m ORDER BY 1",
    );
    let row = |start: &str, requests: i64, mean: f64, before: Option<f64>| {
        json!({
            "window_start": start, "cdn": "own", "country": "DE", "requests": requests, "error_5xx": 0.0, "cache_hit_ratio": 1.0,
            "ttfb_mean_ms": mean, "ttfb_day_before_ms": before, "ttfb_to_day_before": before.map(|before| mean / before),
            "match_ratio": null,
        })
    };
    assert_eq!(
        rows,
        [
            row("2026-01-01T12:00:00Z", 2, 200.0, None),
            row("2026-01-02T12:00:00Z", 1, 400.0, Some(200.0)),
            row("2026-01-02T12:01:00Z", 1, 200.0, Some(200.0)),
        ]
    );
    let hits = bench.sql(
        "SELECT round(ttfb_hit_day_before_ms, -1) AS before, round(ttfb_hit_to_day_before) AS ratio, ttfb_miss_to_day_before AS of_misses \
         FROM gold.cdn_compare_1m WHERE window_start = TIMESTAMP '2026-01-02T12:00:00Z'",
    );
    assert_eq!(hits, [json!({"before": 100.0, "ratio": 4.0, "of_misses": null})]);
    let days = bench.sql("SELECT ttfb_mean_ms, ttfb_to_day_before FROM gold.cdn_compare_1d ORDER BY window_start");
    assert_eq!(
        days,
        [
            json!({"ttfb_mean_ms": 200.0, "ttfb_to_day_before": null}),
            json!({"ttfb_mean_ms": 300.0, "ttfb_to_day_before": 1.5}),
        ]
    );
}

#[test]
fn the_view_adds_up_to_the_tables_behind_it_and_alerts_may_read_it() {
    let mut bench = Bench::new();
    bench.write("rules/steer.yaml", STEER);
    bench.set_settings(&format!("alerts: {{folder: {}}}\n", bench.path("rules").display()));
    let input = simulate(&bench, &["--sessions", "60", "--seed", "8", "--minutes", "30"]);
    bench.ingest(&[&input]);
    for grain in ["1m", "5m", "1h", "1d"] {
        let sums = bench.sql(&format!(
            "SELECT sum(requests) AS requests, sum(bytes) AS bytes, sum(plays) AS plays, sum(stall_ms) AS stall_ms, sum(matched) AS matched \
             FROM gold.cdn_compare_{grain}"
        ));
        let cdn = &bench.sql(&format!(
            "SELECT sum(requests) AS requests, sum(bytes) AS bytes FROM gold.cdn_{grain}"
        ))[0];
        let viewers = &bench.sql(&format!(
            "SELECT sum(plays) AS plays, sum(stall_ms) AS stall_ms, sum(matched_by_id + matched_by_session) AS matched FROM gold.delivery_{grain}"
        ))[0];
        for name in ["requests", "bytes"] {
            assert_eq!(sums[0][name], cdn[name], "{grain} {name}");
        }
        for name in ["plays", "stall_ms", "matched"] {
            assert_eq!(sums[0][name], viewers[name], "{grain} {name}");
        }
        let twice = bench.sql(&format!(
            "SELECT window_start, cdn, country FROM gold.cdn_compare_{grain} GROUP BY 1, 2, 3 HAVING count(*) > 1"
        ));
        assert!(twice.is_empty(), "{twice:?}");
    }
    let fired = bench.int("SELECT count(*) FROM ops.alert_events WHERE rule_uid = 'cdn-answers' AND status = 'firing'");
    assert!(fired > 0, "the rule over the view was judged");
}

/// The rule of `docs/cdn-logs.md`, with a number that fits a small log.
fn edge_rule() -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cdn-logs.md")).expect("the page is there");
    let (_, behind) = page.split_once("```yaml\nversion: 1\n").expect("the page has a rule");
    let (rule, _) = behind.split_once("```").expect("a block ends");
    assert!(rule.contains("min_samples: 500"), "{rule}");
    format!("version: 1\n{}", rule.replace("min_samples: 500", "min_samples: 20"))
}

/// Ten requests a minute at two POPs on five days, nine hits of 50 ms and a miss of 1,500 ms. On the last day half of those
/// at one are misses, and the hits at the other take 80 ms.
#[test]
fn a_slow_edge_is_told_from_a_fall_of_the_hit_ratio_by_the_baseline_of_its_hits() {
    let mut bench = Bench::new();
    bench.write("rules/edge.yaml", edge_rule());
    bench.set_settings(&format!("alerts: {{folder: {}}}\n", bench.path("rules").display()));
    let mut requests = Vec::new();
    for (day, minute, number) in (0..5).flat_map(|day| (0..12).flat_map(move |minute| (0..10).map(move |number| (day, minute, number)))) {
        let after_ms = day * DAY_MS + minute * 60_000 + number * 5_000;
        let is_last = day == 4;
        for (pop, hits, hit_ms) in [("fra", if is_last { 5 } else { 9 }, 50), ("gru", 9, if is_last { 80 } else { 50 })] {
            let ttfb_ms = if number < hits { hit_ms } else { 1_500 };
            let id = format!("{pop}-{day}-{minute}-{number}");
            requests.push(request(&id, after_ms, "/a/1.m4s", pop, ttfb_ms, None));
        }
    }
    ingest_log(&bench, "cdn.ndjson", &requests);
    let means = bench.sql(
        "SELECT pop, sum(ttfb_ms_sum) / sum(ttfb_count) > 500 AS is_slow FROM gold.cdn_1d \
         WHERE window_start = TIMESTAMP '2026-01-05T00:00:00Z' GROUP BY pop ORDER BY pop",
    );
    let of_all = |pop: &str, is_slow: bool| json!({"pop": pop, "is_slow": is_slow});
    assert_eq!(
        means,
        [of_all("FRA", true), of_all("GRU", false)],
        "hits and misses together blame the other POP"
    );
    let rows = bench.sql("SELECT message FROM ops.alert_events WHERE status = 'firing'");
    let fired: Vec<Value> = rows
        .iter()
        .map(|row| serde_json::from_str(row["message"].as_str().expect("a message is text")).expect("a message is JSON"))
        .collect();
    let dims: Vec<&str> = fired.iter().filter_map(|event: &Value| event["dims"]["pop"].as_str()).collect();
    assert_eq!(dims, ["GRU"]);
    let baseline = fired[0]["baseline"]["value"].as_f64().unwrap_or(0.0);
    assert!((49.0..=51.0).contains(&baseline), "{}", fired[0]);
}
