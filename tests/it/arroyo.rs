//! `playhead arroyo` against a stand-in for Arroyo's REST API: what is sent, in which order, and what is
//! taken back when a part fails. No Arroyo is needed, but for `real`.

mod contract;
mod real;

use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use serde_json::Value;

use crate::support::{Bench, reference};
use contract::Contract;

/// The shipped tables that a cluster computes.
const COMPUTED: [&str; 8] = [
    "audience_1m",
    "cdn_1m",
    "cdn_objects_1m",
    "concurrency_1m",
    "ended_1m",
    "errors_1m",
    "latency_1m",
    "playback_1m",
];

/// Attempts by minute, in a file of its own.
fn pipeline(name: &str, words: &str) -> String {
    format!(
        "-- {words}\n-- Columns:\n--   attempts: attempts (count)\n\
         SELECT window.start AS window_start, window.end AS window_end, device_type, attempts\nFROM (\n  \
         SELECT tumble(interval '1 minute') AS window, device_type, sum(attempts) AS attempts, max(startup_band(startup_ms)) AS {name}\n  \
         FROM silver.playback_sessions\n  GROUP BY window, device_type\n) AS minutes\n"
    )
}

struct Deployed {
    bench: Bench,
    cluster: Contract,
    settings: String,
}

impl Deployed {
    fn new() -> Deployed {
        let bench = Bench::new();
        let cluster = Contract::start();
        bench.write("pipelines/one_1m.sql", pipeline("one", "The first."));
        bench.write("pipelines/two_1m.sql", pipeline("two", "The second."));
        bench.write("alerts/none.txt", "");
        let mut deployed = Deployed {
            bench,
            cluster,
            settings: String::new(),
        };
        deployed.set(1);
        deployed
    }

    fn set(&mut self, parallelism: u64) {
        let bench = &self.bench;
        let text = format!(
            "pipelines: {{folder: {}}}\nalerts: {{folder: {}}}\narroyo: {{api: \"{}\", brokers: \"broker:9092\", stop_within: 1s, parallelism: {parallelism}}}\n",
            bench.path("pipelines").display(),
            bench.path("alerts").display(),
            self.cluster.address
        );
        self.settings = bench.write("cluster.yaml", text).display().to_string();
    }

    /// Whether a command went well, and what it said.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let arguments = [arguments, &["--settings", &self.settings]].concat();
        let output = self.bench.run(&arguments);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    #[track_caller]
    fn well(&self, arguments: &[&str]) -> String {
        let (went_well, said) = self.run(arguments);
        assert!(went_well, "{arguments:?}: {said}");
        said
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], reason: &str) {
        let (went_well, said) = self.run(arguments);
        assert!(!went_well && said.contains(reason), "{arguments:?}: {said}");
    }
}

#[test]
fn the_plan_holds_each_file_byte_for_byte_with_its_functions() {
    let deployed = Deployed::new();
    let plan: Value = serde_json::from_str(&deployed.well(&["arroyo", "plan", "--json"])).expect("JSON");
    assert_eq!(plan["changes"].as_array().map(Vec::len), Some(2), "{plan}");
    for (body, name) in plan["bodies"].as_array().expect("a list").iter().zip(["one", "two"]) {
        let file = std::fs::read_to_string(deployed.bench.path(&format!("pipelines/{name}_1m.sql"))).expect("a file");
        let query = body["query"].as_str().expect("a text");
        assert!(query.ends_with(&format!("\nFROM (\n{file}\n) AS made\n;\n")), "{query}");
        assert!(
            query.contains(&format!(
                "INSERT INTO gold_{name}_1m\nSELECT window_start, window_end, device_type, attempts, "
            )),
            "{query}"
        );
        assert!(
            query.contains("WATERMARK FOR started_at AS started_at - INTERVAL '60 seconds'"),
            "{query}"
        );
        let function = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/udfs/startup_band.rs")).expect("a file");
        assert_eq!(body["udfs"][0]["definition"], Value::from(function));
        assert_eq!(body["udfs"].as_array().map(Vec::len), Some(1));
    }
    let shown = deployed.well(&["arroyo", "plan"]);
    assert!(
        shown.contains("create one_1m (") && shown.contains("---- function startup_band ----"),
        "{shown}"
    );
    assert!(deployed.cluster.changes().is_empty(), "a plan changes nothing");
}

#[test]
fn every_shipped_pipeline_is_planned_or_stays_with_its_reason() {
    let bench = Bench::new();
    let settings = bench.write("cluster.yaml", "arroyo: {api: \"http://127.0.0.1:9\", brokers: \"broker:9092\"}\n");
    let output = bench.run(&["arroyo", "plan", "--json", "--settings", settings.to_str().expect("a plain path")]);
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names = |key: &str| -> Vec<String> {
        let rows = plan[key].as_array().expect("a list").iter();
        rows.map(|row| row["name"].as_str().expect("a name").replace("playhead ", ""))
            .collect()
    };
    assert_eq!(names("bodies"), COMPUTED);
    assert_eq!(names("here_only"), ["delivery_1m", "quality_1h"]);
    assert!(
        plan["changes"][0].as_str().expect("a text").contains("cannot reach Arroyo"),
        "{}",
        plan["changes"]
    );
}

/// Arroyo's own grammar adds the watermark to what the parser below knows: all else must parse.
#[test]
fn every_shipped_text_is_sound_sql_but_for_the_watermark() {
    let bench = Bench::new();
    let settings = bench.write("cluster.yaml", "arroyo: {api: \"http://127.0.0.1:9\", brokers: \"broker:9092\"}\n");
    let output = bench.run(&["arroyo", "plan", "--json", "--settings", settings.to_str().expect("a plain path")]);
    let plan: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for body in plan["bodies"].as_array().expect("a list") {
        let text = body["query"].as_str().expect("a text");
        let watermarks = text.matches(",\n  WATERMARK FOR ").count();
        let known: Vec<&str> = text.lines().filter(|line| !line.starts_with("  WATERMARK FOR ")).collect();
        let known = known.join("\n").replace(",\n) WITH (", "\n) WITH (");
        let statements = Parser::parse_sql(&GenericDialect {}, &known).unwrap_or_else(|error| panic!("{error}\n{known}"));
        let views = statements
            .iter()
            .filter(|statement| matches!(statement, Statement::CreateView(_)))
            .count();
        // The sources, the sink, what was moved out into views, the INSERT.
        assert_eq!(statements.len(), watermarks + 1 + views + 1, "{known}");
        let Some(Statement::Insert(insert)) = statements.last() else {
            panic!("the last statement writes no results:\n{known}");
        };
        // Arroyo's planner groups no union: one stands in a view of its own.
        assert!(!insert.to_string().contains(" UNION "), "{insert}");
        // Arroyo's tables know no day: what is one is left out of what is relayed.
        assert!(!text.contains(" DATE"), "{text}");
    }
}

#[test]
fn deploying_twice_changes_nothing_the_second_time() {
    let deployed = Deployed::new();
    let said = deployed.well(&["arroyo", "deploy"]);
    assert!(said.contains("create one_1m ("), "{said}");
    assert_eq!(
        deployed.cluster.pipelines(),
        ["playhead one_1m 1 Running", "playhead two_1m 1 Running"]
    );
    assert_eq!(deployed.cluster.changes(), ["create playhead one_1m", "create playhead two_1m"]);
    let said = deployed.well(&["arroyo", "deploy"]);
    assert!(said.contains("keep one_1m") && said.contains("keep two_1m"), "{said}");
    assert!(deployed.cluster.changes().is_empty());
    let said = deployed.well(&["arroyo", "status"]);
    assert!(
        said.contains("one_1m: Running, parallelism 1, checkpoint 2 at 2026-01-01T00:00:00Z"),
        "{said}"
    );
}

#[test]
fn another_text_replaces_and_another_width_restarts_from_the_checkpoint() {
    let mut deployed = Deployed::new();
    deployed.well(&["arroyo", "deploy"]);
    deployed.cluster.changes();
    deployed
        .bench
        .write("pipelines/two_1m.sql", pipeline("two", "The second, reworded."));
    deployed.well(&["arroyo", "deploy"]);
    let changes = deployed.cluster.changes();
    assert_eq!(
        changes,
        [
            "checkpoint of playhead two_1m to 1",
            "create playhead two_1m",
            "delete playhead two_1m"
        ]
    );
    assert!(deployed.cluster.texts()[1].contains("reworded"));
    deployed.set(4);
    deployed.well(&["arroyo", "deploy"]);
    assert_eq!(
        deployed.cluster.changes(),
        [
            "checkpoint of playhead one_1m to 1",
            "none of playhead one_1m to 4",
            "checkpoint of playhead two_1m to 1",
            "none of playhead two_1m to 4"
        ]
    );
    deployed.well(&["arroyo", "deploy"]);
    assert!(deployed.cluster.changes().is_empty(), "the width is kept");
}

#[test]
fn a_pipeline_that_never_comes_to_its_last_checkpoint_is_stopped_without_it() {
    let mut deployed = Deployed::new();
    deployed.well(&["arroyo", "deploy"]);
    deployed.cluster.crash_on_stop();
    deployed.cluster.changes();
    deployed.set(4);
    deployed.well(&["arroyo", "deploy"]);
    assert_eq!(
        deployed.cluster.changes(),
        [
            "checkpoint of playhead one_1m to 1",
            "immediate of playhead one_1m to 1",
            "none of playhead one_1m to 4",
            "checkpoint of playhead two_1m to 1",
            "immediate of playhead two_1m to 1",
            "none of playhead two_1m to 4"
        ]
    );
}

#[test]
fn when_one_part_fails_what_was_created_goes_and_what_was_stopped_runs_again() {
    let deployed = Deployed::new();
    deployed.cluster.fail_on(Some("gold_two_1m"));
    deployed.refused(
        &["arroyo", "deploy"],
        "Arroyo refused to create two_1m (status 400): no slots left; what was created was taken back",
    );
    assert!(deployed.cluster.pipelines().is_empty(), "{:?}", deployed.cluster.pipelines());
    deployed.cluster.fail_on(None);
    deployed.well(&["arroyo", "deploy"]);
    deployed.cluster.fail_on(Some("reworded"));
    deployed
        .bench
        .write("pipelines/two_1m.sql", pipeline("two", "The second, reworded."));
    deployed.refused(&["arroyo", "deploy"], "no slots left");
    assert_eq!(
        deployed.cluster.pipelines(),
        ["playhead one_1m 1 Running", "playhead two_1m 1 Running"]
    );
    assert!(!deployed.cluster.texts()[1].contains("reworded"));
}

#[test]
fn what_the_cluster_cannot_plan_changes_nothing() {
    let deployed = Deployed::new();
    deployed.cluster.refuse(Some("gold_two_1m"));
    deployed.refused(
        &["arroyo", "deploy"],
        "Arroyo does not take two_1m: line 7, column 3: Table not found; nothing was changed",
    );
    assert!(deployed.cluster.changes().is_empty());
}

#[test]
fn a_gold_table_has_one_writer() {
    let deployed = Deployed::new();
    deployed.well(&["ingest", reference("").to_str().expect("a plain path")]);
    let attempts = "SELECT sum(attempts) AS n FROM gold.one_1m";
    let version = "SELECT count(DISTINCT silver_versions) AS n FROM gold.one_1m";
    let ask = |query: &str| deployed.well(&["sql", "--json", query]);
    let (before, versions) = (ask(attempts), ask(version));
    deployed.refused(
        &["arroyo", "deploy"],
        "this lake's own runner writes gold.one_1m, gold.two_1m: a gold table has one writer",
    );
    assert!(deployed.cluster.changes().is_empty());
    deployed.well(&["arroyo", "deploy", "--hand-over"]);
    let later = deployed.bench.write("later/player.ndjson", LATER);
    deployed.well(&["ingest", later.to_str().expect("a plain path")]);
    assert_eq!(
        (ask(attempts), ask(version)),
        (before.clone(), versions),
        "Arroyo's table is left alone"
    );
    let said = deployed.well(&["arroyo", "take-back"]);
    assert!(said.contains("gold.one_1m is this lake's own again"), "{said}");
    assert_ne!(ask(attempts), before, "what came meanwhile is answered again");
    deployed.refused(&["arroyo", "deploy"], "a gold table has one writer");
}

const LATER: &str = r#"{"MetricType":"PLAY","at":0,"user_id":"u9","video_id":"v9","TimeStamp":1588752000000}
"#;
