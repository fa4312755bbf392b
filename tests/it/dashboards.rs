//! The shipped dashboards: each file as Grafana and the page read it, and what `playhead check` says of wrong ones.
//!
//! Grafana itself is not here. Its macros and variables are put in by `serve::dashboard::expand`, whose own
//! tests compare it with Grafana's sources; what comes out is run in `answers`.

mod answers;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use playhead::serve::dashboard::{ALL, Dashboard, Panel, PanelKind, read};
use playhead::{builtin, metric};
use serde_json::Value;

use crate::support::Bench;

fn dashboards() -> Vec<(&'static str, Dashboard)> {
    let read = |(file, text): &(&'static str, &str)| (*file, read(text).unwrap_or_else(|error| panic!("{file}: {error}")));
    builtin::DASHBOARDS.iter().map(read).collect()
}

/// Every panel that asks something, with a name for messages.
fn panels(all: &[(&'static str, Dashboard)]) -> Vec<(String, Dashboard, Panel)> {
    let of = |(file, dashboard): &(&str, Dashboard)| {
        let named = |panel: &Panel| {
            (
                format!("{file}, panel {} `{}`", panel.id, panel.title),
                dashboard.clone(),
                panel.clone(),
            )
        };
        dashboard.panels.iter().map(named).collect::<Vec<_>>()
    };
    let is_asking = |panel: &Panel| !matches!(panel.kind, PanelKind::Row | PanelKind::Text);
    all.iter().flat_map(of).filter(|(_, _, panel)| is_asking(panel)).collect()
}

#[test]
fn every_file_is_understood_whole() {
    let all = dashboards();
    assert!(all.len() >= 10, "only {} dashboards", all.len());
    let mut uids = BTreeSet::new();
    for (file, dashboard) in &all {
        let stem = Path::new(file).file_stem().expect("a name").to_string_lossy().into_owned();
        assert_eq!(dashboard.uid, format!("playhead-{stem}"), "{file}: the uid follows from the name");
        assert!(uids.insert(&dashboard.uid), "{file}: uid taken twice");
        assert_eq!(dashboard.left_out, Vec::<String>::new(), "{file}");
        assert!(
            dashboard.tags.contains(&"playhead".to_owned()),
            "{file}: without its tag the menu of dashboards misses it"
        );
        assert!(!dashboard.description.is_empty(), "{file}: says nothing of itself");
        let ids: BTreeSet<i64> = dashboard.panels.iter().map(|panel| panel.id).collect();
        assert_eq!(ids.len(), dashboard.panels.len(), "{file}: panel ids");
        assert_eq!(overlaps(dashboard), Vec::<String>::new(), "{file}");
    }
}

fn overlaps(dashboard: &Dashboard) -> Vec<String> {
    let mut taken = BTreeMap::new();
    let mut found = Vec::new();
    for panel in &dashboard.panels {
        let grid = panel.grid;
        if grid.x + grid.w > 24 || grid.w == 0 || grid.h == 0 {
            found.push(format!("`{}` does not fit", panel.title));
        }
        for cell in (grid.x..grid.x + grid.w).flat_map(|x| (grid.y..grid.y + grid.h).map(move |y| (x, y))) {
            if let Some(other) = taken.insert(cell, &panel.title) {
                found.push(format!("`{}` lies over `{other}`", panel.title));
            }
        }
    }
    found.dedup();
    found
}

#[test]
fn a_panel_says_what_it_shows_and_in_which_unit() {
    for (name, _, panel) in panels(&dashboards()) {
        assert!(panel.description.len() > 20, "{name}: no description");
        assert!(!panel.targets.is_empty(), "{name}: asks nothing");
        let has_unit = panel.field_config.defaults.unit.is_some() || panel.kind == PanelKind::Table;
        assert!(has_unit, "{name}: no unit");
        let of_ratios = panel.field_config.defaults.unit.as_deref() == Some("percentunit");
        assert!(!of_ratios || panel.field_config.defaults.decimals.is_some(), "{name}: no decimals");
    }
}

#[test]
fn every_link_leads_to_a_dashboard_with_that_variable() {
    let all = dashboards();
    let (mut looked_at, files) = (0, Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards"));
    for (file, _) in &all {
        let text = std::fs::read_to_string(files.join(Path::new(file).file_name().expect("a name"))).expect("the file is there");
        for link in text.split("\"/d/").skip(1) {
            let link = link.split('"').next().unwrap_or_default();
            let (uid, query) = link.split_once('?').unwrap_or((link, ""));
            let to = all.iter().find(|(_, dashboard)| dashboard.uid == uid);
            let (_, to) = to.unwrap_or_else(|| panic!("{file}: there is no dashboard {uid}"));
            // A name that comes from the row (`var-${__data.fields.kind}`) is not known here.
            let names = query.split("&var-").skip(1).filter_map(|part| part.split('=').next());
            for variable in names.filter(|name| !name.starts_with('$')) {
                assert!(to.variable(variable).is_some(), "{file}: {uid} has no variable {variable}");
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 10, "only {looked_at} links with variables");
}

/// One number has one definition: a column with the name of a metric holds its formula from the manual.
#[test]
fn a_metrics_column_holds_the_manuals_formula() {
    let mut checked = BTreeSet::new();
    for (name, _, panel) in panels(&dashboards()) {
        let mut formulas = BTreeSet::new();
        for target in &panel.targets {
            let text = target.raw_sql.split_whitespace().collect::<Vec<_>>().join(" ").replace('"', "");
            for alias in aliases(&text) {
                let Some(metric) = metric::find(&alias) else { continue };
                let whole = [metric.sql(), metric.value_sql()].map(|formula| formula.replace('"', ""));
                let stands = whole.iter().any(|formula| text.contains(&format!("{formula} AS {alias}")));
                assert!(stands, "{name}: {alias} is not the manual's `{}`", metric.sql());
                assert!(
                    panel.description.contains(&format!("`{alias}`")),
                    "{name}: the description does not define {alias}"
                );
                formulas.extend(whole);
                checked.insert(alias);
            }
            let before = text.contains(" AS before");
            assert!(
                !before || formulas.iter().any(|formula| text.contains(&format!("{formula} AS before"))),
                "{name}: before"
            );
        }
    }
    assert!(checked.len() >= 40, "only {} metrics are shown: {checked:?}", checked.len());
}

fn aliases(text: &str) -> Vec<String> {
    let word = |part: &str| {
        part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    text.split(" AS ").skip(1).map(word).collect()
}

/// A filter that a reader sets acts on every panel whose table has the column.
#[test]
fn a_variable_filters_every_table_that_has_its_column() {
    const COLUMNS: [(&str, &str); 11] = [
        ("stream", "stream_type"),
        ("app", "app_name"),
        ("version", "app_version"),
        ("device", "device_type"),
        ("os", "os"),
        ("browser", "browser"),
        ("country", "country"),
        ("isp", "isp"),
        ("cdn", "cdn"),
        ("pop", "pop"),
        ("content", "content_id"),
    ];
    let bench = Bench::new();
    bench.ingest(&[&bench.write("none.ndjson", "")]);
    let rows = bench.sql("SELECT concat(table_schema, '.', table_name) AS name, column_name FROM information_schema.columns");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let columns: BTreeSet<(String, String)> = rows.iter().map(|row| (word(&row["name"]), word(&row["column_name"]))).collect();
    let mut filters = 0;
    for (name, dashboard, panel) in panels(&dashboards()) {
        for target in &panel.targets {
            let tables: Vec<String> = tables_read(&target.raw_sql);
            for (variable, column) in COLUMNS.iter().filter(|(variable, _)| dashboard.variable(variable).is_some()) {
                let filtered = target
                    .raw_sql
                    .matches(&format!("coalesce({column}, 'unknown') IN (${variable}))"))
                    .count();
                let with_it = tables
                    .iter()
                    .filter(|table| columns.contains(&((*table).clone(), (*column).to_owned())))
                    .count();
                assert_eq!(filtered, with_it, "{name}, query {}: ${variable} over {tables:?}", target.ref_id);
                filters += filtered;
            }
        }
    }
    assert!(filters > 500, "only {filters} filters were looked at");
}

/// The tables of the lake that a text reads, those of gold by the minute.
fn tables_read(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let after = words
        .windows(2)
        .filter(|pair| ["FROM", "JOIN"].contains(&pair[0]) && pair[1].contains('.'));
    after.map(|pair| pair[1].replace("${grain}", "1m")).collect()
}

// ---- playhead check ----

#[test]
fn a_wrong_dashboard_is_named_by_file_panel_and_reason() {
    let bench = Bench::new();
    let good = |uid: &str, sql: &str| {
        serde_json::json!({
            "uid": uid, "title": "Mine", "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": [{"name": "app", "type": "query", "multi": true, "includeAll": true, "allValue": "'*'",
                "query": "SELECT DISTINCT app_name FROM gold.playback_1m", "current": {"value": ALL}}]},
            "panels": [{"id": 4, "type": "stat", "title": "Plays", "targets": [{"refId": "A", "format": "table", "rawSql": sql}]}],
        })
        .to_string()
    };
    let check = || bench.run(&["check", "--settings", bench.path("s.yaml").to_str().expect("text")]);
    let sql = "SELECT sum(plays) FROM gold.playback_1m WHERE $__timeFilter(window_start) AND '*' IN ($app)";
    bench.write("s.yaml", "dashboards: {folder: ./boards}\n");
    bench.write("boards/good.json", good("good", sql));
    let output = check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (text, reason) in [
        (good("other", &sql.replace("plays", "play")), "panel 4 `Plays`, query A: "),
        (good("other", &sql.replace("plays", "play")), "No field named play"),
        (good("other", &sql.replace("$app", "$apps")), "there is no variable $apps"),
        (good("other", &sql.replace("Filter", "Fliter")), "there is no macro $__timeFliter"),
        (good("good", sql), "uid `good` is that of"),
        ("{\"uid\": 1}".to_owned(), "line 1 column 9"),
    ] {
        bench.write("boards/wrong.json", text);
        let output = check();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{reason}: {told}");
        assert!(
            told.contains("boards/wrong.json: ") && told.contains(reason),
            "no `{reason}` in {told}"
        );
    }
}
