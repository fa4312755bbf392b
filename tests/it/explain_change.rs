//! `explain_change(...)` and `playhead alerts explain`: the cause of a change, asked by people.
//!
//! An outage of a kind of device goes in; both ways of asking, and both ends of the SQL (the command and the wire),
//! have to name it as the alert would.

use serde_json::{Value, json};

use crate::alerts::outage;
use crate::postgres::Served;
use crate::support::Bench;

const FROM: &str = "2026-01-14T12:08:00Z";
const TO: &str = "2026-01-14T12:13:00Z";
const BEFORE: &str = "2026-01-14T12:00:00Z";
/// Of viewers on TVs three in ten fail from minute 8 to 12, and nobody before or elsewhere.
const EXPLAINED: &str =
    "explain_change('vsf_ratio', '2026-01-14T12:08:00Z', '2026-01-14T12:13:00Z', '2026-01-14T12:00:00Z', '2026-01-14T12:08:00Z')";

fn bench() -> Bench {
    let bench = Bench::new();
    let file = bench.write("outage.ndjson", outage());
    bench.ingest(&[&file]);
    bench
}

#[track_caller]
fn refused(bench: &Bench, question: &str, part: &str) {
    let output = bench.run(&["sql", question]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && text.contains(part),
        "{question}: no `{part}` in\n{text}"
    );
}

#[test]
fn sql_names_the_device_that_fails_and_says_how_much_it_explains() {
    let bench = bench();
    let rows = bench.sql(&format!("SELECT * FROM {EXPLAINED}"));
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!(
        (&row["answer"], &row["rank"], &row["cause"]),
        (&json!("found"), &json!(1), &json!("device_type=tv")),
        "{row}"
    );
    assert_eq!((row["value"].as_f64(), row["samples"].as_f64()), (Some(0.3), Some(200.0)), "{row}");
    assert!(row["explains"].as_f64() > Some(0.9) && row["share"].as_f64() == Some(0.5), "{row}");

    let columns = bench.sql(&format!("SELECT cause, explains > 0.5 AS main FROM {EXPLAINED} WHERE rank = 1"));
    assert_eq!(columns, [json!({"cause": "device_type=tv", "main": true})], "as any other table");
    let by_app = EXPLAINED.replace("')", "', 'app_name, content_id')");
    assert_eq!(bench.value(&format!("SELECT cause FROM {by_app}")), json!("app_name=Example TV"));
    let elsewhere = EXPLAINED.replace("')", "', 'device_type', 'device_type = ''desktop''')");
    assert_eq!(
        bench.sql(&format!("SELECT answer, cause FROM {elsewhere}")),
        [json!({"answer": "no_excess", "cause": null})]
    );
    let by_times = "explain_change('vsf_ratio', TIMESTAMP '2026-01-14 12:08:00', TIMESTAMP '2026-01-14 12:13:00')";
    assert_eq!(
        bench.value(&format!("SELECT cause FROM {by_times}")),
        json!("device_type=tv"),
        "compared with the hour before"
    );
}

#[test]
fn the_command_finds_what_sql_finds_and_the_alert_that_fired() {
    let bench = bench();
    let asked = [
        "alerts",
        "explain",
        "vsf_ratio",
        "--from",
        FROM,
        "--to",
        TO,
        "--before-from",
        BEFORE,
        "--before-to",
        FROM,
    ];
    let out = |more: &[&str]| {
        let output = bench.run(&[&asked[..], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = out(&[]);
    assert!(
        text.starts_with("device_type=tv explains ") && text.contains("(vsf_ratio 30 %, before 0 %, 200 samples)"),
        "{text}"
    );
    let found: Value = serde_json::from_str(&out(&["--json"])).expect("it is JSON");
    let row = &bench.sql(&format!("SELECT * FROM {EXPLAINED}"))[0];
    assert_eq!(found["answer"], row["answer"]);
    assert_eq!(found["candidates"][0]["explains"], row["explains"], "one search");
    assert_eq!(found["candidates"][0]["excess"], row["excess"]);

    let output = bench.run(&["alerts", "explain", "vsf_ratios", "--from", FROM, "--to", TO]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("unknown metric `vsf_ratios`; did you mean `vsf_ratio`?"), "{text}");
}

#[test]
fn over_the_wire_it_is_a_table_like_others() {
    let served = Served::over(bench(), "");
    assert_eq!(served.texts(&format!("SELECT cause FROM {EXPLAINED}")), ["device_type=tv"]);
    assert_eq!(
        served.texts(&format!("SELECT answer || ' ' || rank FROM {EXPLAINED} ORDER BY rank LIMIT 1")),
        ["found 1"]
    );
    let plan = served.texts(&format!("EXPLAIN SELECT cause FROM {EXPLAINED}"));
    assert!(!plan.is_empty());
    let (code, message) = served.refused("SELECT * FROM explain_change('rebufer_ratio', '2026-01-14T12:08:00Z', '2026-01-14T12:13:00Z')");
    assert!(message.contains("did you mean `rebuffer_ratio`?"), "{message}");
    assert_eq!(code, "42601");
}

#[test]
fn what_cannot_be_explained_is_told() {
    let bench = bench();
    let of = |arguments: &str| format!("SELECT * FROM explain_change({arguments})");
    refused(
        &bench,
        &of("'vsf_ratio'"),
        "it takes 3, 5, 6 or 7 values; write explain_change(metric, from, to",
    );
    refused(
        &bench,
        &of(&format!("'vsf_ratio', 'noon', '{TO}'")),
        "`noon` is no time; write 2026-11-01T20:00:00Z",
    );
    refused(&bench, &of(&format!("'vsf_ratio', '{TO}', '{FROM}'")), "ends before it begins");
    refused(
        &bench,
        &of(&format!("'startup_p95_ms', '{FROM}', '{TO}'")),
        "does not add up over parts of the audience",
    );
    let of_dims = |dims: &str, filter: &str| {
        of(&format!(
            "'vsf_ratio', '{FROM}', '{TO}', '{BEFORE}', '{FROM}', '{dims}', '{filter}'"
        ))
    };
    refused(&bench, &of_dims("device", ""), "has no column `device`");
    refused(&bench, &of_dims("", "1 = 1) UNION SELECT (1"), "a `)` closes nothing");
}
