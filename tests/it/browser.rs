//! The page in a real browser: Chromium looks at every dashboard over a simulated lake with an incident in it.
//!
//! `PLAYHEAD_PICTURES=FOLDER cargo test --locked --test it browser::` writes the pictures as well.
//! Skipped where there is no Chromium: `tests/services/service chromium install`.

use serde_json::Value;

use crate::alerts::{error_rule, outage_in};
use crate::daemon::Daemon;
use crate::http_client::request;
use crate::services;
use crate::support::{Bench, simulate};

/// Half an hour before the outage of `alerts` begins, epoch seconds: 2026-01-14T11:30:00Z.
const START: &str = "1768390200";
const FROM_MS: i64 = 1_768_390_200_000;
const TO_MS: i64 = FROM_MS + 50 * 60_000;

/// An audience, and on top of it one app that fails on TVs from 12:08 to the end.
fn lake() -> Bench {
    let mut bench = Bench::new();
    let explained = error_rule(&[
        ("group_by: [device_type, app_name]", "group_by: [app_name]"),
        ("explain: {dims: [app_version]}", "explain: {dims: [app_name, device_type]}"),
    ]);
    bench.write("rules/errors.yaml", explained.replace("on {{ device_type }} ", ""));
    let rules = bench.path("rules").display().to_string();
    bench.set_settings(&format!("alerts: {{folder: {rules}, deliver: false}}\n"));
    let audience = simulate(
        &bench,
        &[
            "--sessions",
            "600",
            "--minutes",
            "50",
            "--seed",
            "11",
            "--start",
            START,
            "--incident",
        ],
    );
    // One app on both devices, so that the device is what explains it.
    let outage = bench.write(
        "outage.ndjson",
        outage_in(8..20).replace("Example Web", "Stadium").replace("Example TV", "Stadium"),
    );
    bench.ingest(&[&audience.join("player.ndjson"), &audience.join("cdn.tsv"), &outage]);
    bench
}

#[allow(clippy::disallowed_methods)] // Tests have no settings; the variable is documented at the top.
fn pictures() -> Option<String> {
    std::env::var("PLAYHEAD_PICTURES").ok()
}

#[test]
fn every_dashboard_is_drawn_without_an_error_and_shows_what_sql_gives() {
    if !services::is_available("chromium") {
        return;
    }
    let bench = lake();
    let mut daemon = Daemon::start(&bench, "http: {listen: \"127.0.0.1:0\"}\n");
    let address = daemon.address();
    let base = format!("http://{address}");
    let session = bench.value("SELECT min(session_id) FROM silver.playback_sessions WHERE stall_count > 0");
    let country = bench.value("SELECT min(country) FROM gold.playback_1m WHERE country <> ''");
    let choice = format!("country={}", country.as_str().expect("the audience has countries"));
    let (from, to) = (FROM_MS.to_string(), TO_MS.to_string());
    let mut arguments = vec![
        base.as_str(),
        &from,
        &to,
        "--session",
        session.as_str().expect("an id"),
        "--choose",
        &choice,
    ];
    let folder = pictures();
    if let Some(folder) = &folder {
        arguments.extend(["--pictures", folder]);
    }
    let seen = services::browse("look.mjs", &arguments).expect("it is available");
    assert_eq!(seen["trouble"], serde_json::json!([]));
    let dashboards = seen["dashboards"].as_object().expect("a map");
    for (uid, panels) in dashboards {
        for panel in panels.as_array().expect("a list") {
            let (state, drawn) = (panel["state"].as_str().unwrap_or_default(), panel["drawn"].as_bool());
            assert!(state == "empty" || (state == "shown" && drawn == Some(true)), "{uid}: {panel}");
        }
    }
    let overview = &seen["dashboards"]["playhead-noc"];
    let shown = overview
        .as_array()
        .expect("it was looked at")
        .iter()
        .filter(|panel| panel["state"] == "shown");
    assert!(shown.count() >= 8, "{overview}");
    check_figures(address, overview, "");
    check_figures(address, &seen["chosen"], &format!("&var-{choice}"));
    assert_ne!(overview, &seen["chosen"], "the choice changes what is shown");
    let incidents = seen["incidents"].to_string();
    assert!(incidents.contains("Firing") && incidents.contains("Cause:"), "{incidents}");
    assert!(seen["session"].to_string().contains("Timeline"), "{}", seen["session"]);
    assert!(
        seen["tableOnDemand"].as_i64() > Some(0) && seen["sql"].to_string().contains("gold."),
        "{seen}"
    );
    assert_eq!(
        (&seen["overview-light"]["theme"], &seen["wall"]["theme"]),
        (&Value::from("light"), &Value::from("dark"))
    );
    assert_eq!(seen["phone"]["overflow"], 0, "a phone scrolls in one direction only");
}

/// Every stat shows the numbers that its SQL gives, one a column.
#[track_caller]
fn check_figures(address: std::net::SocketAddr, panels: &Value, choice: &str) {
    let mut checked = 0;
    for panel in panels.as_array().expect("a list") {
        let figures = panel["figures"].as_array().expect("a list");
        if figures.is_empty() {
            continue;
        }
        let target = format!(
            "/api/panel?dashboard=playhead-noc&panel={}&from={FROM_MS}&to={TO_MS}{choice}",
            panel["id"]
        );
        let answer = request(address, "GET", &target, &[], b"").json();
        let frames = answer["frames"].as_array().expect("a list").iter();
        let columns = frames.flat_map(|frame| frame["columns"].as_array().expect("a list"));
        let numbers: Vec<Option<f64>> = columns
            .filter(|column| column["type"] == "number")
            .map(|column| column["values"].as_array().expect("a list").iter().rev().find_map(Value::as_f64))
            .collect();
        let shown: Vec<Option<f64>> = figures
            .iter()
            .map(|figure| figure["value"].as_str().and_then(|text| text.parse().ok()))
            .collect();
        assert_eq!(shown, numbers, "{panel}");
        checked += 1;
    }
    assert!(checked >= 4, "{checked} stats were compared");
}
