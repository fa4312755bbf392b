//! What the panels' SQL answers over the tables of a simulated hour, and over empty ones.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use playhead::lake::Lake;
use playhead::lake::place::Place;
use playhead::serve::dashboard::{Dashboard, Format, Hide, Scope, Target, Variable, expand, names_in};
use playhead::{builtin, rollup, sql};
use serde_json::Value;

use super::{dashboards, panels, wire};
use crate::alerts::{outage, shipped};
use crate::support::{Bench, simulate};

/// 2026-01-14T12:00:00Z, when the simulated hour and the outage of the alert tests begin.
const NOON_S: i64 = 1_768_392_000;
const HOUR_MS: i64 = 3_600_000;
/// The hour, and two hours after it, in which the last sessions end.
const RANGE_MS: (i64, i64) = (NOON_S * 1000, NOON_S * 1000 + 3 * HOUR_MS);
const GRAINS: [&str; 2] = ["1m", "1d"];
/// A percentile of a sketch is within 1 % of the true value, a distinct count has a standard error of 0.81 %.
const SKETCH_ERROR: f64 = 0.03;

/// A lake and one session over it, for hundreds of questions.
struct Desk {
    runtime: tokio::runtime::Runtime,
    session: sql::Session,
    limits: sql::QueryLimits,
}

impl Desk {
    fn over(bench: &Bench) -> Desk {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let limits = sql::QueryLimits {
            memory_bytes: 256 << 20,
            timeout: Duration::from_secs(60),
        };
        let session = runtime.block_on(async {
            let place = Place::folder(&bench.lake()).expect("a folder");
            let lake = Lake::open_read_only(place).await.expect("a lake");
            let pipelines = builtin::PIPELINES.map(|(name, text)| (name.to_owned(), text.to_owned()));
            let pipelines = sql::pipeline::parse_all(&pipelines).expect("they are shipped");
            let open = rollup::open_windows(&lake, pipelines).await.expect("its notes can be read");
            sql::open(&lake, &open, limits).await.expect("its tables can be read")
        });
        Desk { runtime, session, limits }
    }

    fn ask(&self, text: &str) -> Result<(SchemaRef, Vec<RecordBatch>), String> {
        let asked = self.runtime.block_on(sql::query(&self.session, text, self.limits));
        asked.map_err(|error| format!("{error}\n{text}"))
    }

    #[track_caller]
    fn number(&self, text: &str) -> f64 {
        let (_, batches) = self.ask(text).unwrap_or_else(|error| panic!("{error}"));
        first_number(&batches).unwrap_or_else(|| panic!("no number: {text}"))
    }
}

fn first_number(batches: &[RecordBatch]) -> Option<f64> {
    let batch = batches.iter().find(|batch| batch.num_rows() > 0)?;
    let numbers = as_numbers(batch.column(batch.num_columns() - 1));
    let numbers = numbers.as_primitive::<Float64Type>();
    (!numbers.is_null(0)).then(|| numbers.value(0))
}

fn as_numbers(column: &ArrayRef) -> ArrayRef {
    arrow::compute::cast(column, &DataType::Float64).expect("a number")
}

/// An hour of a simulated audience with its incidents, an alert that fired, and records that are refused.
fn full_lake() -> Bench {
    let bench = Bench::new();
    let start = NOON_S.to_string();
    let hour = [
        "--sessions",
        "1500",
        "--minutes",
        "60",
        "--seed",
        "3",
        "--incident",
        "--start",
        &start,
    ];
    let folder = simulate(&bench, &hour);
    let events = bench.write("outage.ndjson", format!("{}{{\"MetricType\": \"PLAY\"}}\n", outage()));
    let rule = shipped("playback_errors.yaml", &[("min_samples: 500", "min_samples: 100")]);
    bench.write("rules/playback_errors.yaml", rule);
    let settings = format!("alerts: {{folder: {}}}\n", bench.path("rules").display());
    bench.ingest_with(&settings, &[&folder.join("player.ndjson"), &folder.join("cdn.tsv"), &events]);
    bench
}

fn scope(dashboard: &Dashboard, range_ms: (i64, i64), chosen: &dyn Fn(&Variable) -> Vec<String>) -> Scope {
    let mut scope = dashboard.first_scope(range_ms.0, range_ms.1);
    for variable in &dashboard.variables {
        scope
            .variables
            .insert(variable.name.clone(), variable.chosen(&chosen(variable), &[]));
    }
    scope
}

/// As a reader finds it; the windows are of this length.
fn as_first(grain: &str) -> impl Fn(&Variable) -> Vec<String> {
    move |variable| match variable.name.as_str() {
        "grain" => vec![grain.to_owned()],
        _ => variable.current.clone(),
    }
}

/// What readers may choose set to this value, and the windows to minutes.
fn all_set_to(value: &str) -> impl Fn(&Variable) -> Vec<String> {
    move |variable| match (variable.name.as_str(), variable.hide) {
        ("grain", _) | (_, Hide::Variable) => vec!["1m".to_owned()],
        ("baseline", _) => vec!["7 days".to_owned()],
        _ => vec![value.to_owned()],
    }
}

fn expanded(name: &str, target: &Target, scope: &Scope) -> String {
    expand(&target.raw_sql, scope).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Panels that show nothing here: the simulated players measure neither throughput nor latency, no session is
/// chosen at first, nothing fires any more, and what is refused counts in the hour in which it came.
const SILENT: [&str; 5] = [
    "session.json",
    "Throughput that",
    "Distance to",
    "Firing now",
    "Why records were rejected",
];

#[test]
fn every_question_of_every_dashboard_is_answered_in_types_that_grafana_draws() {
    let bench = full_lake();
    let desk = Desk::over(&bench);
    let all = dashboards();
    let (mut silent, mut questions) = (Vec::new(), Vec::new());
    for (name, dashboard, panel) in panels(&all) {
        for target in &panel.targets {
            let rows = rows_as_first(&desk, &name, &dashboard, target);
            if target.ref_id == "A" && rows == 0 && !SILENT.iter().any(|part| name.contains(part)) {
                silent.push(name.clone());
            }
            let first = expanded(&name, target, &scope(&dashboard, RANGE_MS, &as_first("1m")));
            questions.push((format!("{name}, query {}", target.ref_id), first));
            for value in ["DE", "'); SELECT 1 --"] {
                let text = expanded(&name, target, &scope(&dashboard, RANGE_MS, &all_set_to(value)));
                desk.ask(&text).unwrap_or_else(|error| panic!("{name} with {value}: {error}"));
            }
        }
    }
    assert_eq!(silent, Vec::<String>::new(), "panels without a row");
    variables_have_choices(&desk, &all);
    figures_are_those_of_silver(&desk, &all);
    a_choice_filters(&desk, &all);
    one_session_is_shown(&desk, &all);
    the_alert_is_told(&desk, &all);
    the_planted_isp_stands_first(&desk, &all);
    assert!(questions.len() > 100, "only {} questions", questions.len());
    wire::every_question_is_answered(&desk.runtime, &bench, &questions);
}

/// Asks for the shortest and the longest windows where there is a choice; gives the rows of the shortest.
fn rows_as_first(desk: &Desk, name: &str, dashboard: &Dashboard, target: &Target) -> usize {
    let has_choice = names_in(&target.raw_sql).contains("grain");
    let rows = GRAINS[..if has_choice { 2 } else { 1 }].iter().map(|grain| {
        let text = expanded(name, target, &scope(dashboard, RANGE_MS, &as_first(grain)));
        let (schema, batches) = desk.ask(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(undrawable(&schema, target.format), None, "{name}, query {}", target.ref_id);
        batches.iter().map(RecordBatch::num_rows).sum::<usize>()
    });
    rows.collect::<Vec<_>>()[0]
}

/// What Grafana's data source could not make a frame of.
fn undrawable(schema: &SchemaRef, format: Format) -> Option<String> {
    let names: BTreeSet<&String> = schema.fields().iter().map(|field| field.name()).collect();
    if names.len() != schema.fields().len() {
        return Some("two columns have one name".to_owned());
    }
    let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, _));
    for field in schema.fields() {
        let data_type = field.data_type();
        let fits = match (field.name().as_str(), format) {
            ("time", _) => is_time(data_type) || data_type.is_numeric(),
            ("metric", Format::TimeSeries) => is_text(data_type),
            (_, Format::TimeSeries) => data_type.is_numeric(),
            (_, Format::Table) => is_time(data_type) || data_type.is_numeric() || is_text(data_type) || *data_type == DataType::Boolean,
        };
        if !fits {
            return Some(format!("column {} of type {data_type}", field.name()));
        }
    }
    (format == Format::TimeSeries && !names.contains(&"time".to_owned())).then(|| "a time series without time".to_owned())
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

/// A variable offers what is there, as text.
fn variables_have_choices(desk: &Desk, all: &[(&str, Dashboard)]) {
    for (file, dashboard) in all {
        for variable in dashboard.variables.iter().filter(|variable| !variable.query.is_empty()) {
            let text = expand(&variable.query, &scope(dashboard, RANGE_MS, &as_first("1m"))).expect("shipped");
            let (schema, batches) = desk.ask(&text).unwrap_or_else(|error| panic!("{file}: {}: {error}", variable.name));
            assert!(
                schema.fields().len() == 1 && is_text(schema.field(0).data_type()),
                "{file}: {}",
                variable.name
            );
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            assert!(rows >= 1, "{file}: {} offers nothing", variable.name);
        }
    }
}

/// The grain that the hidden variable gives for a range of so many hours.
#[test]
fn a_longer_range_reads_longer_windows() {
    let bench = Bench::new();
    let (_, noc) = dashboards()
        .into_iter()
        .find(|(file, _)| file.ends_with("noc.json"))
        .expect("it is shipped");
    let grain = noc.variable("grain").expect("it has one");
    for (hours, expected) in [
        (1, "1m"),
        (6, "1m"),
        (7, "5m"),
        (72, "5m"),
        (73, "1h"),
        (24 * 35, "1h"),
        (24 * 36, "1d"),
    ] {
        let scope = scope(&noc, (RANGE_MS.0, RANGE_MS.0 + hours * HOUR_MS), &|variable| {
            variable.current.clone()
        });
        let text = expand(&grain.query, &scope).expect("shipped");
        assert_eq!(bench.value(&text), Value::from(expected), "{hours} h");
    }
}

/// The number of a panel as it is shown with this choice.
#[track_caller]
fn shown(desk: &Desk, all: &[(&str, Dashboard)], file: &str, title: &str, chosen: &dyn Fn(&Variable) -> Vec<String>) -> Option<f64> {
    let (_, dashboard) = all.iter().find(|(name, _)| name.ends_with(file)).expect("it is shipped");
    let panel = dashboard.panels.iter().find(|panel| panel.title == title);
    let panel = panel.unwrap_or_else(|| panic!("{file} has no panel {title}"));
    let text = expanded(title, &panel.targets[0], &scope(dashboard, RANGE_MS, chosen));
    first_number(&desk.ask(&text).unwrap_or_else(|error| panic!("{error}")).1)
}

/// What the tiles show is what the facts of the sessions give, asked in another way.
fn figures_are_those_of_silver(desk: &Desk, all: &[(&str, Dashboard)]) {
    let sessions = "FROM silver.playback_sessions";
    let state = |state: &str| format!("FILTER (WHERE state = '{state}' AND coalesce(stall_cause, '') <> 'seek_induced')");
    let stalled = format!("CAST(sum(duration_ms) {} AS DOUBLE)", state("rebuffering"));
    let played = format!("sum(duration_ms) {}", state("playing"));
    for (file, title, independent, error) in [
        ("noc.json", "Attempts to play", format!("SELECT sum(attempts) {sessions}"), 0.0),
        (
            "noc.json",
            "Start failures",
            format!("SELECT avg(CAST(start_failures AS DOUBLE)) {sessions} WHERE attempts = 1"),
            1e-9,
        ),
        (
            "noc.json",
            "Rebuffering",
            format!("SELECT {stalled} / ({stalled} + {played}) FROM silver.playback_intervals"),
            1e-9,
        ),
        (
            "noc.json",
            "Startup, 95th percentile",
            format!("SELECT percentile_cont(startup_ms, 0.95) {sessions} WHERE startup_ms IS NOT NULL"),
            SKETCH_ERROR,
        ),
        (
            "content.json",
            "Viewers",
            "SELECT count(DISTINCT coalesce(user_id, device_id, session_id)) FROM silver.playback_intervals".to_owned(),
            SKETCH_ERROR,
        ),
        (
            "cdn.json",
            "Server errors (5xx)",
            "SELECT avg(CASE WHEN status >= 500 THEN 1.0 ELSE 0.0 END) FROM silver.cdn_requests WHERE sample_weight_milli > 0".to_owned(),
            1e-9,
        ),
    ] {
        let shown = shown(desk, all, file, title, &as_first("1m")).unwrap_or_else(|| panic!("{title} is empty"));
        let expected = desk.number(&independent);
        assert!(
            (shown - expected).abs() <= expected * error,
            "{title} shows {shown}, silver says {expected}"
        );
    }
}

fn a_choice_filters(desk: &Desk, all: &[(&str, Dashboard)]) {
    let german = |variable: &Variable| match variable.name.as_str() {
        "country" => vec!["DE".to_owned()],
        _ => variable.current.clone(),
    };
    let attempts = shown(desk, all, "noc.json", "Attempts to play", &german);
    let expected = desk.number("SELECT sum(attempts) FROM silver.playback_sessions WHERE country = 'DE'");
    assert_eq!(attempts, Some(expected));
    assert!(expected > 0.0 && expected < desk.number("SELECT sum(attempts) FROM silver.playback_sessions"));
    let both = |variable: &Variable| match variable.name.as_str() {
        "country" => vec!["DE".to_owned(), "unknown".to_owned()],
        _ => variable.current.clone(),
    };
    let with_unknown = desk.number("SELECT sum(attempts) FROM silver.playback_sessions WHERE country = 'DE' OR country IS NULL");
    assert_eq!(shown(desk, all, "noc.json", "Attempts to play", &both), Some(with_unknown));
    // A value that nobody has, whatever it looks like.
    let hostile = all_set_to("x' OR '1'='1");
    assert_eq!(shown(desk, all, "noc.json", "Attempts to play", &hostile), None);
}

fn one_session_is_shown(desk: &Desk, all: &[(&str, Dashboard)]) {
    let (_, batches) = desk
        .ask("SELECT session_id FROM silver.playback_sessions WHERE score IS NOT NULL AND stall_count > 0 ORDER BY session_id LIMIT 1")
        .expect("there are sessions");
    let id = arrow::compute::cast(batches[0].column(0), &DataType::Utf8).expect("text");
    let id = id.as_string::<i32>().value(0).to_owned();
    let chosen = all_set_to(&id);
    for (title, column) in [("Score", "score"), ("Playing", "playing_ms"), ("Stalled", "stall_ms")] {
        let expected = desk.number(&format!("SELECT {column} FROM silver.playback_sessions WHERE session_id = '{id}'"));
        assert_eq!(shown(desk, all, "session.json", title, &chosen), Some(expected), "{title}");
    }
}

fn the_alert_is_told(desk: &Desk, all: &[(&str, Dashboard)]) {
    assert_eq!(shown(desk, all, "alerts.json", "Fired", &as_first("1m")), Some(1.0));
    let (_, noc) = all.iter().find(|(file, _)| file.ends_with("noc.json")).expect("it is shipped");
    let incidents = noc
        .panels
        .iter()
        .find(|panel| panel.title == "Incidents")
        .expect("it has incidents");
    let text = expanded("Incidents", &incidents.targets[0], &scope(noc, RANGE_MS, &as_first("1m")));
    let (_, batches) = desk.ask(&text).expect("shipped");
    let told = arrow::util::pretty::pretty_format_batches(&batches).expect("text").to_string();
    for word in [
        "2026-01-14T12:11:00Z",
        "resolved",
        "critical",
        "PlaybackErrorShare",
        "of Example TV on tv report playback errors",
    ] {
        assert!(told.contains(word), "no {word} in\n{told}");
    }
}

/// The worst segment of the overview is the one whose viewers were made to stall, and each leads on by a variable
/// of the dashboard that its link names.
fn the_planted_isp_stands_first(desk: &Desk, all: &[(&str, Dashboard)]) {
    let of = |end: &str| all.iter().find(|(file, _)| file.ends_with(end)).map(|(_, dashboard)| dashboard);
    let (noc, buffering) = (of("noc.json").expect("shipped"), of("buffering.json").expect("shipped"));
    let worst = noc
        .panels
        .iter()
        .find(|panel| panel.title == "Where it hurts most")
        .expect("it is there");
    let text = expanded("worst", &worst.targets[0], &scope(noc, RANGE_MS, &as_first("1m")));
    let (_, batches) = desk.ask(&text).expect("shipped");
    let texts = |column: usize| {
        let column = arrow::compute::cast(batches[0].column(column), &DataType::Utf8).expect("text");
        let column = column.as_string::<i32>();
        (0..column.len()).map(|row| column.value(row).to_owned()).collect::<Vec<_>>()
    };
    let (kinds, segments) = (texts(0), texts(1));
    assert_eq!((kinds[0].as_str(), segments[0].as_str()), ("isp", "Musterkabel"));
    assert!(kinds.iter().all(|kind| buffering.variable(kind).is_some()), "{kinds:?}");
}

#[test]
fn a_lake_without_a_row_gives_no_error() {
    let bench = Bench::new();
    bench.ingest(&[&bench.write("none.ndjson", "")]);
    let desk = Desk::over(&bench);
    for (name, dashboard, panel) in panels(&dashboards()) {
        for target in &panel.targets {
            let text = expanded(&name, target, &scope(&dashboard, RANGE_MS, &as_first("1m")));
            let (schema, _) = desk.ask(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(undrawable(&schema, target.format), None, "{name}, query {}", target.ref_id);
        }
    }
}
