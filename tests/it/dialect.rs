//! What a pipeline may use, through `playhead check`: every shipped file passes, each of
//! `tests/pipelines_bad` breaks one rule and is refused with file, line and reason.

use std::path::{Path, PathBuf};

use crate::support::Bench;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "sql"));
    files.sort();
    files
}

/// What `playhead check` says of a folder with this one pipeline.
fn checked(file: &str, text: &str) -> (bool, String) {
    let bench = Bench::new();
    bench.write(&format!("pipelines/{file}"), text);
    bench.write("alerts/none.txt", "");
    let settings = bench.write(
        "playhead.yaml",
        format!(
            "pipelines: {{folder: {}}}\nalerts: {{folder: {}}}\n",
            bench.path("pipelines").display(),
            bench.path("alerts").display()
        ),
    );
    let output = bench.run(&["check", "--settings", settings.to_str().expect("a plain path")]);
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&told).into_owned())
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

#[test]
fn each_broken_rule_is_refused_with_its_line_and_its_reason() {
    let bad = files("tests/pipelines_bad");
    assert!(bad.len() >= 10, "{bad:?}");
    for path in bad {
        let text = std::fs::read_to_string(&path).expect("a file");
        let head = text.lines().next().and_then(|line| line.strip_prefix("-- Refused at line "));
        let (line, reason) = head
            .and_then(|head| head.split_once(": "))
            .expect("the first line says what is wrong");
        let (passed, told) = checked(&name(&path), &text);
        let place = format!("pipelines/{}:{line}:", name(&path));
        assert!(
            !passed && told.contains(&place) && told.contains(reason),
            "{place} {reason}\n{told}"
        );
    }
}

#[test]
fn every_shipped_pipeline_passes_and_those_that_run_here_only_say_why() {
    let mut here_only = Vec::new();
    for path in files("pipelines") {
        let text = std::fs::read_to_string(&path).expect("a file");
        let (passed, told) = checked(&name(&path), &text);
        assert!(passed, "{}: {told}", path.display());
        if text.contains("\n-- Runs on: here only, because ") {
            here_only.push(name(&path));
        }
    }
    assert_eq!(here_only, ["delivery_1m.sql", "quality_1h.sql"]);
}

#[test]
fn without_the_reason_a_file_that_runs_here_only_is_refused() {
    let delivery = files("pipelines")
        .into_iter()
        .find(|path| name(path) == "delivery_1m.sql")
        .expect("shipped");
    let text = std::fs::read_to_string(delivery).expect("a file");
    let line = text.lines().find(|line| line.starts_with("-- Runs on:")).expect("it says so");
    let (passed, told) = checked("delivery_1m.sql", &text.replace(line, "--"));
    assert!(!passed && told.contains("delivery_1m.sql:"), "{told}");
    let (passed, told) = checked("delivery_1m.sql", &text.replace(line, "-- Runs on: here"));
    assert!(!passed && told.contains("`-- Runs on: here` is not understood"), "{told}");
}
