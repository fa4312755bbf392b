//! `playhead alerts ...` as a person who writes rules meets it: check, test, replay, schema, silence.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::alerts;
use crate::support::{Bench, simulate};

/// Where the text that everybody copies begins and ends, in pages that show it.
const EXAMPLE_BEGINS: &str = "<!-- an alert: a test runs what stands from here -->";
const EXAMPLE_ENDS: &str = "<!-- to here -->";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A bench whose rules are these files, in the folder `rules`.
fn bench(rules: &[(&str, String)]) -> Bench {
    let mut bench = Bench::new();
    std::fs::create_dir_all(bench.path("rules")).expect("a folder can be made");
    for (name, text) in rules {
        bench.write(&format!("rules/{name}"), text);
    }
    let folder = bench.path("rules");
    bench.set_settings(&format!("alerts: {{folder: {}}}\n", folder.display()));
    bench
}

fn error_rule() -> String {
    alerts::shipped("playback_errors.yaml", &[("min_samples: 500", "min_samples: 100")])
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn good(bench: &Bench, arguments: &[&str]) -> String {
    let output = bench.run(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}\n{}{}", out(&output), err(&output));
    out(&output)
}

#[track_caller]
fn refused(bench: &Bench, arguments: &[&str], parts: &[&str]) {
    let output = bench.run(arguments);
    let text = err(&output);
    assert_eq!(output.status.code(), Some(64), "{arguments:?}\n{text}");
    for part in parts {
        assert!(text.contains(part), "{arguments:?}: no `{part}` in\n{text}");
    }
}

// ---- check ----

#[test]
fn check_says_file_line_column_and_what_to_write() {
    let bench = bench(&[("errors.yaml", error_rule())]);
    let text = good(&bench, &["alerts", "check"]);
    assert!(
        text.starts_with("in order: rules PlaybackErrorShare; targets console; silences 0"),
        "{text}"
    );
    let json: Value = serde_json::from_str(&good(&bench, &["alerts", "check", "--json"])).expect("it is JSON");
    assert_eq!(json["rules"], json!(["playback-error-share"]));

    bench.write(
        "rules/typo.yaml",
        "version: 1\nrules:\n  - alert: Typo\n    metric: rebufer_ratio\n    condition: \"> 2%\"\n",
    );
    let parts = [
        "typo.yaml:4:13: unknown metric `rebufer_ratio`",
        "did you mean `rebuffer_ratio`?",
        "1 to mend",
    ];
    refused(&bench, &["alerts", "check"], &parts);
    let file = bench.path("rules/errors.yaml");
    good(&bench, &["alerts", "check", file.to_str().expect("a plain path")]);
    refused(
        &bench,
        &["alerts", "check", "nowhere.yaml"],
        &["cannot read nowhere.yaml", "check its name"],
    );
}

// ---- test ----

#[test]
fn every_shipped_rule_has_a_test_that_passes() {
    let bench = Bench::new();
    let names = |folder: &str| {
        let entries = std::fs::read_dir(root().join(folder)).expect("the folder is shipped").flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.ends_with(".yaml"));
        names.sort();
        names
    };
    assert_eq!(names("alerts"), names("alerts/tests"), "each rule file has a test file of its name");
    let settings = bench.write("s.yaml", format!("alerts: {{folder: {}}}\n", root().join("alerts").display()));
    let text = good(&bench, &["alerts", "test", "--settings", settings.to_str().expect("a plain path")]);
    assert!(!text.contains("FAILED"), "{text}");
    for name in names("alerts/tests") {
        assert!(text.contains(&name), "{name} was not run:\n{text}");
    }
}

#[test]
fn a_test_that_fails_says_what_was_seen() {
    let bench = bench(&[("playback_errors.yaml", alerts::shipped("playback_errors.yaml", &[]))]);
    let shipped = std::fs::read_to_string(root().join("alerts/tests/playback_errors.yaml")).expect("it is shipped");
    let wrong = shipped
        .replace("alerts/playback_errors.yaml", "rules/playback_errors.yaml")
        .replacen("-x13 px2 fx6", "-x13 px1 fx7", 1);
    bench.write("rules/tests/wrong.yaml", wrong);
    let output = bench.run(&["alerts", "test"]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(1), "{text}{}", err(&output));
    assert!(text.contains("FAILED nine percent of the clients of one device"), "{text}");
    assert!(text.contains("ok     one of four clients pages nobody"), "{text}");
    bench.write("rules/tests/wrong.yaml", "rules: [rules/none.yaml]\ntests: []\n");
    refused(&bench, &["alerts", "test"], &["there is no rules/none.yaml", "check `rules`"]);
}

// ---- replay ----

#[test]
fn a_replay_says_what_would_have_fired_and_tells_nobody() {
    let bench = bench(&[("errors.yaml", error_rule())]);
    let file = bench.write("outage.ndjson", alerts::outage());
    bench.ingest(&[&file]);
    let recorded = "SELECT count(*) FROM ops.alert_events";
    let before = bench.int(recorded);
    let span = ["--from", "2026-01-14T12:00:00Z", "--to", "2026-01-14T12:30:00Z"];
    let text = good(&bench, &[&["alerts", "replay"], &span[..]].concat());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "a head and one firing:\n{text}");
    assert!(lines[0].starts_with("fired"), "{text}");
    assert!(
        lines[1].starts_with("2026-01-14T12:12:00Z") && lines[1].contains("PlaybackErrorShare") && lines[1].contains("device_type=tv"),
        "{text}"
    );
    assert!(!text.contains("FIRING"), "nobody is told:\n{text}");
    assert_eq!(bench.int(recorded), before, "nothing is recorded");

    let truth =
        "incidents:\n  - {what: PlaybackErrorShare, where: {device_type: tv}, from: 2026-01-14T12:08:00Z, to: 2026-01-14T12:13:00Z}\n";
    let truth = bench.write("truth.yaml", truth);
    let truth = truth.to_str().expect("a plain path");
    let text = good(&bench, &[&["alerts", "replay", "--truth", truth], &span[..]].concat());
    assert!(
        text.contains("precision 100.0 % (1 right, 0 wrong), recall 100.0 % (1 found, 0 missed), 0 told more than once"),
        "{text}"
    );
    let json: Value = serde_json::from_str(&good(
        &bench,
        &[&["alerts", "replay", "--json", "--truth", truth], &span[..]].concat(),
    ))
    .expect("it is JSON");
    assert_eq!(json["score"]["found"], 1, "{json}");
    assert_eq!(json["firings"][0]["dims"], json!({"app_name": "Example TV", "device_type": "tv"}));

    let deaf = bench.write("deaf.yaml", error_rule().replace("threshold: 5%", "threshold: 50%"));
    let deaf = deaf.to_str().expect("a plain path");
    let text = good(&bench, &[&["alerts", "replay", "--diff", deaf], &span[..]].concat());
    assert!(text.starts_with("- critical PlaybackErrorShare device_type=tv"), "{text}");
    assert!(text.contains("0 the same, 1 gone, 0 new, 0 changed"), "{text}");

    refused(
        &bench,
        &["alerts", "replay", "--from", "noon", "--to", "later"],
        &["--from `noon` is no time"],
    );
    let backwards = ["alerts", "replay", "--from", "2026-01-14T12:30:00Z", "--to", "2026-01-14T12:00:00Z"];
    refused(&bench, &backwards, &["--to is before --from"]);
}

// ---- schema ----

#[test]
fn the_schema_beside_the_rules_is_the_one_that_is_printed() {
    let bench = Bench::new();
    let shipped = std::fs::read_to_string(root().join("alerts/schema.json")).expect("it is shipped");
    let printed = good(&bench, &["alerts", "schema"]);
    assert_eq!(printed, shipped, "write it anew: playhead alerts schema > alerts/schema.json");
    for (name, text) in files_of("alerts") {
        let first = text.lines().next().unwrap_or_default();
        assert_eq!(
            first, "# yaml-language-server: $schema=schema.json",
            "{name}: editors find the schema by this line"
        );
    }
}

fn files_of(folder: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(root().join(folder)).expect("the folder is shipped").flatten();
    let paths = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    paths
        .map(|path| (path.display().to_string(), std::fs::read_to_string(&path).expect("it can be read")))
        .collect()
}

// ---- silence ----

#[test]
fn a_silence_is_written_listed_and_ended() {
    let bench = bench(&[("errors.yaml", error_rule())]);
    let wanted = [
        "alerts",
        "silence",
        "alert=PlaybackErrorShare",
        "device_type=t*",
        "--for",
        "2h",
        "--author",
        "ada",
        "--reason",
        "ticket: 4711",
    ];
    let text = good(&bench, &wanted);
    assert!(text.contains("silences.yaml") && text.contains("silence ada-"), "{text}");
    let written = std::fs::read_to_string(bench.path("rules/silences.yaml")).expect("it is written");
    for part in [
        "\"alert\": [\"PlaybackErrorShare\"]",
        "\"device_type\": [\"t*\"]",
        "author: \"ada\"",
        "comment: \"ticket: 4711\"",
    ] {
        assert!(written.contains(part), "no `{part}` in\n{written}");
    }
    assert!(good(&bench, &["alerts", "check"]).contains("silences 1"), "it reads back");
    let listed = good(&bench, &["alerts", "silence", "--list"]);
    assert!(listed.contains("author: \"ada\""), "{listed}");

    let id = text.split_whitespace().find(|word| word.starts_with("ada-")).expect("it is named");
    good(&bench, &["alerts", "silence", "--end", id]);
    refused(
        &bench,
        &["alerts", "silence", "--end", "nobody-1"],
        &["there is no silence `nobody-1`", "--list"],
    );

    let complete = ["alerts", "silence", "alert=X", "--for", "2h", "--author", "ada", "--reason", "r"];
    for (left_out, complaint) in [
        ("alert=X", "match every alert"),
        ("--for", "a silence needs an end"),
        ("--author", "needs --author"),
    ] {
        let mut arguments = complete.to_vec();
        let at = arguments
            .iter()
            .position(|argument| *argument == left_out)
            .expect("it is one of them");
        arguments.drain(at..at + if left_out.starts_with("--") { 2 } else { 1 });
        refused(&bench, &arguments, &[complaint]);
    }
}

#[test]
fn a_silence_holds_back_what_it_matches_and_the_record_names_who_said_so() {
    let bench = bench(&[("errors.yaml", error_rule())]);
    let silence = "version: 1\nsilences:\n  - matchers: {device_type: tv}\n    starts: 2026-01-14T00:00:00Z\n    ends: 2026-01-15T00:00:00Z\n    author: ada\n    comment: works\n";
    bench.write("rules/silences.yaml", silence);
    let file = bench.write("outage.ndjson", alerts::outage());
    let file = file.to_str().expect("a plain path");
    let text = good(&bench, &["ingest", file]);
    assert!(!text.contains("FIRING"), "{text}");
    let rows = bench.sql("SELECT transition FROM ops.alert_events WHERE kind = 'transition' AND status = 'firing'");
    assert_eq!(rows.len(), 1, "it is recorded");
    let transition = rows[0]["transition"].as_str().unwrap_or_default();
    assert!(transition.contains("silenced") && transition.contains("ada"), "{transition}");
}

// ---- the example that everybody copies ----

/// The YAML between the markers of a page; none where it shows none.
fn example_of(page: &Path) -> Option<String> {
    let text = std::fs::read_to_string(page).expect("the page is there");
    let (_, rest) = text.split_once(EXAMPLE_BEGINS)?;
    let (part, _) = rest.split_once(EXAMPLE_ENDS).expect("what begins ends");
    let (_, yaml) = part.split_once("```yaml\n").expect("the example is YAML");
    let (yaml, _) = yaml.split_once("```").expect("the block ends");
    Some(yaml.to_owned())
}

#[test]
fn the_example_of_the_pages_is_right_and_fires_in_a_simulated_incident() {
    let pages: Vec<PathBuf> = ["docs/alerts.md", "README.md"].map(|page| root().join(page)).into();
    let examples: Vec<String> = pages.iter().filter_map(|page| example_of(page)).collect();
    assert!(!examples.is_empty(), "docs/alerts.md shows an example");
    assert!(examples.iter().all(|example| *example == examples[0]), "both pages show the same");
    let bench = bench(&[]);
    let folder = simulate(&bench, &["--sessions", "3000", "--seed", "7", "--minutes", "40", "--incident"]);
    bench.ingest(&[&folder.join("player.ndjson")]);
    // A file that is put into the folder is all there is to do.
    bench.write("rules/mine.yaml", &examples[0]);
    good(&bench, &["alerts", "check"]);
    let text = good(
        &bench,
        &[
            "alerts",
            "replay",
            "--json",
            "--from",
            "2026-01-01T00:00:00Z",
            "--to",
            "2026-01-01T01:00:00Z",
        ],
    );
    let json: Value = serde_json::from_str(&text).expect("it is JSON");
    let firings = json["firings"].as_array().expect("a list");
    let isps: Vec<&Value> = firings.iter().map(|firing| &firing["dims"]["isp"]).collect();
    assert_eq!(isps, [&json!("Musterkabel")], "the ISP that the simulation plants, once: {text}");
}
