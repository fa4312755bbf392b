//! What of a file is read, and what is left out and named.

use serde_json::json;

use super::super::{ALL, Chosen};
use super::*;

fn dashboard(panels: Value, variables: Value) -> Value {
    json!({
        "uid": "u", "title": "T", "schemaVersion": 39, "time": {"from": "now-6h", "to": "now"}, "refresh": "30s",
        "panels": panels, "templating": {"list": variables}, "annotations": {"list": []}, "editable": true
    })
}

fn of(panels: Value, variables: Value) -> Dashboard {
    read(&dashboard(panels, variables).to_string()).expect("a dashboard")
}

fn sql(text: &str) -> Value {
    json!({"refId": "A", "rawSql": text, "format": "table", "rawQuery": true, "datasource": {"type": DATA_SOURCE_TYPE, "uid": "playhead"}})
}

#[test]
fn a_panel_is_read_with_what_is_drawn() {
    let panel = json!({
        "id": 7, "type": "timeseries", "title": "Plays", "description": "plays a minute", "interval": "1m", "maxDataPoints": 500,
        "gridPos": {"x": 12, "y": 4, "w": 12, "h": 8}, "pluginVersion": "11.6.0",
        "targets": [sql("SELECT 1"), {"refId": "B", "rawSql": "SELECT 2"}, {"refId": "C", "rawSql": "SELECT 3", "hide": true}],
        "fieldConfig": {
            "defaults": {"unit": "short", "decimals": 0, "min": 0, "custom": {"lineWidth": 2}, "color": {"mode": "palette-classic"},
                "thresholds": {"mode": "absolute", "steps": [{"color": "green", "value": null}, {"color": "red", "value": 5}]}},
            "overrides": [{"matcher": {"id": "byName", "options": "plays"}, "properties": [{"id": "unit", "value": "percent"}]}]
        },
        "options": {"legend": {"showLegend": true}}
    });
    let read = of(json!([panel]), json!([]));
    let panel = read.panel(7).expect("it is read");
    assert_eq!(
        (panel.kind, panel.grid.x, panel.min_interval_ms),
        (PanelKind::TimeSeries, 12, 60_000)
    );
    let formats: Vec<Format> = panel.targets.iter().map(|target| target.format).collect();
    assert_eq!(formats, [Format::Table, Format::TimeSeries]);
    let defaults = &panel.field_config.defaults;
    assert_eq!(
        (defaults.unit.as_deref(), defaults.decimals, defaults.min),
        (Some("short"), Some(0), Some(0.0))
    );
    assert_eq!(defaults.thresholds.as_ref().map(|thresholds| thresholds.steps.len()), Some(2));
    assert_eq!(panel.field_config.overrides[0].properties[0].value, "percent");
    assert_eq!((read.refresh.as_str(), read.left_out.len()), ("30s", 0));
}

#[test]
fn what_is_not_drawn_is_named() {
    let panels = json!([
        {"id": 1, "type": "nodeGraph", "title": "graph"},
        {"id": 2, "type": "stat", "title": "other", "targets": [{"refId": "A", "expr": "up", "datasource": {"type": "prometheus"}}]},
        {"id": 3, "type": "table", "title": "joined", "targets": [sql("SELECT 1")], "transformations": [{"id": "merge"}]},
        {"title": "nameless", "type": "stat"},
        {"id": 5, "type": "stat", "title": "odd", "fieldConfig": {"defaults": {"decimals": "many"}}}
    ]);
    let read = of(panels, json!([{"name": "ds", "type": "datasource"}, {"type": "query"}]));
    assert_eq!(read.panels.iter().map(|panel| panel.id).collect::<Vec<_>>(), [2, 3, 5]);
    let expected = [
        "panel 1 \"graph\": panels of type \"nodeGraph\" are not drawn",
        "panel 2 \"other\": query A asks a data source of type prometheus",
        "panel 3 \"joined\": its transformations are not made; say it in SQL",
        "panel null \"nameless\": missing field `id`",
        "panel 5 \"odd\": fieldConfig: invalid type: string \"many\", expected u32",
        "variable ds: variables of type datasource are not known",
        "variable null: missing field `name`",
    ];
    assert_eq!(read.left_out, expected);
}

#[test]
fn a_folded_row_comes_before_its_panels() {
    let row = json!({"id": 1, "type": "row", "title": "more", "collapsed": true, "panels": [{"id": 2, "type": "text"}, {"id": 3, "type": "text"}]});
    let read = of(json!([row, {"id": 4, "type": "text"}]), json!([]));
    assert_eq!(read.panels.iter().map(|panel| panel.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn what_is_no_dashboard_says_so() {
    for text in [
        "",
        "[]",
        "{\"spec\": {}}",
        "{\"uid\": \"u\", \"title\": \"T\", \"time\": {}, \"panels\": []}",
    ] {
        let error = read(text).expect_err(text);
        assert!(error.contains(" line ") && error.contains("save the dashboard"), "{error}");
    }
}

#[test]
fn every_kind_of_variable_has_its_choices() {
    let read = of(
        json!([]),
        json!([
            {"name": "app", "type": "query", "query": "SELECT 1", "multi": true, "includeAll": true, "allValue": "'*'", "current": {"value": ["$__all"]}},
            {"name": "isp", "type": "query", "query": {"rawSql": "SELECT 2"}, "multi": true, "includeAll": true, "hide": 2},
            {"name": "by", "type": "custom", "label": "Compare by", "query": "Device : device_type, browser"},
            {"name": "step", "type": "interval", "query": "1m,5m", "current": {"value": "5m"}},
            {"name": "session", "type": "textbox", "query": ""}
        ]),
    );
    let [app, isp, by, step, session] = read.variables.as_slice() else {
        panic!("{:?}", read.variables)
    };
    assert_eq!(
        (app.query.as_str(), app.label.as_str(), &app.current),
        ("SELECT 1", "app", &vec![ALL.to_owned()])
    );
    assert_eq!((isp.query.as_str(), isp.hide), ("SELECT 2", Hide::Variable));
    let pairs: Vec<_> = by
        .options
        .iter()
        .map(|option| (option.text.as_str(), option.value.as_str()))
        .collect();
    assert_eq!(pairs, [("Device", "device_type"), ("browser", "browser")]);
    assert_eq!((by.label.as_str(), &by.current), ("Compare by", &vec!["device_type".to_owned()]));
    assert_eq!(step.current, ["5m"]);
    assert_eq!(
        (session.kind, session.current.as_slice()),
        (VariableKind::TextBox, &[String::new()][..])
    );
}

#[test]
fn all_means_what_the_file_says() {
    let all = [ALL.to_owned()];
    let choices = ["a".to_owned(), "b".to_owned()];
    let read = of(
        json!([]),
        json!([
            {"name": "written", "type": "query", "query": "", "multi": true, "includeAll": true, "allValue": "'*'"},
            {"name": "listed", "type": "query", "query": "", "multi": true, "includeAll": true},
            {"name": "single", "type": "query", "query": ""}
        ]),
    );
    let chosen = |name: &str, values: &[String]| read.variable(name).expect("it is there").chosen(values, &choices);
    assert_eq!(chosen("written", &all), Chosen::AsWritten("'*'".to_owned()));
    assert_eq!(chosen("written", &choices[..1]), Chosen::Many(choices[..1].to_vec()));
    assert_eq!(chosen("listed", &all), Chosen::Many(choices.to_vec()));
    assert_eq!(chosen("single", &all), Chosen::One(ALL.to_owned()));
    assert_eq!(chosen("single", &[]), Chosen::One(String::new()));
}
