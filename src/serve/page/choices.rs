//! What a reader asks of a dashboard, and what the variables come to: their choices, and the values that hold.
//!
//! Stands between the address that the browser sends and `dashboard::expand`.
//!
//! Invariant: a variable's query sees the variables before it, as in Grafana.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::answers::{Answers, CHOICES_TIME};
use super::time_range::TimeRange;
use super::{Page, Refusal};
use crate::serve::dashboard::{ALL, Choice, Chosen, Dashboard, Panel, Scope, Variable, VariableKind, expand};
use crate::serve::desk::Desk;

/// Choices that are offered; a variable with more is searched by its first letters in SQL.
const CHOICES_MAX: usize = 1_000;
/// Values of one variable in a request; more than this is no choice but an attack.
const VALUES_MAX: usize = 1_000;
/// Columns of a query that give text and value, as Grafana names them.
const TEXT_COLUMN: &str = "__text";
const VALUE_COLUMN: &str = "__value";
/// Points of a panel whose width the browser does not say, and the most that it may.
const POINTS_USUAL: i64 = 800;
const POINTS_MAX: i64 = 4_000;

/// A request's parameters.
#[derive(Debug, Default, PartialEq)]
pub struct Asked {
    pub dashboard: String,
    pub panel: Option<i64>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub points: Option<i64>,
    pub values: BTreeMap<String, Vec<String>>,
}

impl Asked {
    /// # Errors
    /// A number that is none, or too many values.
    pub fn parse(query: &str) -> Result<Asked, Refusal> {
        let mut asked = Asked::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let number = || {
                value
                    .parse()
                    .map_err(|_| Refusal::Wrong(format!("{name} is a whole number, not {value:?}")))
            };
            match &*name {
                "dashboard" => asked.dashboard = value.into_owned(),
                "from" => asked.from = Some(value.into_owned()),
                "to" => asked.to = Some(value.into_owned()),
                "panel" => asked.panel = Some(number()?),
                "points" => asked.points = Some(number()?),
                _ => {
                    if let Some(name) = name.strip_prefix("var-") {
                        asked.values.entry(name.to_owned()).or_default().push(value.into_owned());
                    }
                }
            }
        }
        match asked.values.values().all(|values| values.len() <= VALUES_MAX) {
            true => Ok(asked),
            false => Err(Refusal::Wrong(format!("a variable has at most {VALUES_MAX} values; choose All"))),
        }
    }

    pub fn range(&self, dashboard: &Dashboard, now_ms: i64) -> Result<TimeRange, Refusal> {
        let from = self.from.as_ref().unwrap_or(&dashboard.time.from);
        let to = self.to.as_ref().unwrap_or(&dashboard.time.to);
        TimeRange::of(from, to, now_ms).map_err(Refusal::Wrong)
    }

    fn points(&self, panel: &Panel) -> i64 {
        let points = panel.max_data_points.or(self.points).unwrap_or(POINTS_USUAL);
        points.clamp(1, POINTS_MAX)
    }
}

/// Variables with their choices, and the range that they were asked for.
#[derive(Serialize)]
pub struct Variables {
    from_ms: i64,
    to_ms: i64,
    variables: Vec<Variable>,
}

impl Page {
    /// `/api/variables`.
    pub(super) async fn variables(&self, query: &str) -> Result<Variables, Refusal> {
        let asked = Asked::parse(query)?;
        let dashboard = self.shelf.find(&asked.dashboard)?;
        let range = asked.range(&dashboard, self.now_ms())?;
        let desk = self.desk()?;
        let mut settling = Settling::new(
            &desk,
            &self.answers,
            &asked,
            Scope::new(range.from_ms, range.to_ms, POINTS_USUAL, 1),
        );
        let mut variables = Vec::with_capacity(dashboard.variables.len());
        for variable in &dashboard.variables {
            let options = settling.choices(variable).await?;
            let current = settling.settle(variable, &options);
            variables.push(Variable {
                options,
                current,
                query: String::new(),
                ..variable.clone()
            });
        }
        Ok(Variables {
            from_ms: range.from_ms,
            to_ms: range.to_ms,
            variables,
        })
    }

    /// What a panel's SQL is completed with.
    pub(super) async fn scope(&self, desk: &Arc<Desk>, asked: &Asked, dashboard: &Dashboard, panel: &Panel) -> Result<Scope, Refusal> {
        let range = asked.range(dashboard, self.now_ms())?;
        let scope = Scope::new(range.from_ms, range.to_ms, asked.points(panel), panel.min_interval_ms);
        let mut settling = Settling::new(desk, &self.answers, asked, scope);
        for variable in &dashboard.variables {
            let options = if settling.needs_choices(variable) {
                settling.choices(variable).await?
            } else {
                Vec::new()
            };
            settling.settle(variable, &options);
        }
        Ok(settling.scope)
    }
}

/// Goes through the variables in order.
struct Settling<'a> {
    desk: &'a Desk,
    answers: &'a Answers,
    asked: &'a Asked,
    scope: Scope,
}

impl<'a> Settling<'a> {
    fn new(desk: &'a Desk, answers: &'a Answers, asked: &'a Asked, scope: Scope) -> Settling<'a> {
        Settling {
            desk,
            answers,
            asked,
            scope,
        }
    }

    /// What was chosen: by the address, else by the file.
    fn picked<'v>(&'v self, variable: &'v Variable) -> &'v [String] {
        let asked = self
            .asked
            .values
            .get(&variable.name)
            .filter(|_| variable.kind != VariableKind::Constant);
        asked.unwrap_or(&variable.current)
    }

    /// False where the values are known without asking for the choices.
    fn needs_choices(&self, variable: &Variable) -> bool {
        let is_all = self.picked(variable).iter().any(|value| value == ALL);
        match is_all {
            true => variable.all_value.is_none(),
            false => !self.asked.values.contains_key(&variable.name),
        }
    }

    async fn choices(&self, variable: &Variable) -> Result<Vec<Choice>, Refusal> {
        if variable.kind != VariableKind::Query {
            return Ok(variable.options.clone());
        }
        let range = TimeRange {
            from_ms: self.scope.from_ms,
            to_ms: self.scope.to_ms,
        };
        let scope = Scope {
            from_ms: range.on_whole_minutes().from_ms,
            to_ms: range.on_whole_minutes().to_ms,
            ..self.scope.clone()
        };
        let about = |error: &dyn std::fmt::Display| Refusal::Failed(format!("variable {}: {error}", variable.name));
        let sql = expand(&variable.query, &scope).map_err(|error| about(&error))?;
        let answered = self
            .answers
            .get(self.desk, &sql, CHOICES_TIME)
            .await
            .map_err(|refusal| match refusal {
                Refusal::Failed(text) => about(&text),
                other => other,
            })?;
        let named = |name: &str| answered.columns.iter().find(|column| column.name == name);
        let values = named(VALUE_COLUMN).or(answered.columns.first());
        let texts = named(TEXT_COLUMN).or(values);
        let (Some(values), Some(texts)) = (values, texts) else {
            return Ok(Vec::new());
        };
        let choice = |row| {
            let value = values.text(row)?;
            let text = texts.text(row).unwrap_or_else(|| value.clone());
            Some(Choice { text, value })
        };
        Ok((0..answered.rows.min(CHOICES_MAX)).filter_map(choice).collect())
    }

    /// Sets the variable; gives the values that hold.
    fn settle(&mut self, variable: &Variable, options: &[Choice]) -> Vec<String> {
        let choices: Vec<String> = options.iter().map(|option| option.value.clone()).collect();
        let picked = held(variable, self.asked.values.get(&variable.name), &choices);
        let chosen: Chosen = variable.chosen(&picked, &choices);
        self.scope.variables.insert(variable.name.clone(), chosen);
        picked
    }
}

/// The values that hold: those of the address; else those of the file, as long as the choices of a query have
/// them; else all, or the first.
pub fn held(variable: &Variable, asked: Option<&Vec<String>>, choices: &[String]) -> Vec<String> {
    if let Some(asked) = asked.filter(|_| variable.kind != VariableKind::Constant) {
        return asked.clone();
    }
    let is_there = |value: &String| variable.kind != VariableKind::Query || value == ALL || choices.contains(value);
    let current: Vec<String> = variable.current.iter().filter(|value| is_there(value)).cloned().collect();
    match (current.is_empty(), variable.include_all) {
        (false, _) => current,
        (true, true) => vec![ALL.to_owned()],
        (true, false) => choices.first().cloned().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_says_dashboard_panel_range_and_values() {
        let asked = Asked::parse("dashboard=noc&panel=7&from=now-1h&to=now&points=600&var-app=web&var-app=tv%20app&x=1").unwrap();
        let expected = Asked {
            dashboard: "noc".to_owned(),
            panel: Some(7),
            from: Some("now-1h".to_owned()),
            to: Some("now".to_owned()),
            points: Some(600),
            values: BTreeMap::from([("app".to_owned(), vec!["web".to_owned(), "tv app".to_owned()])]),
        };
        assert_eq!(asked, expected);
        assert!(matches!(Asked::parse("panel=x"), Err(Refusal::Wrong(text)) if text.contains("\"x\"")));
        assert!(Asked::parse(&"var-a=1&".repeat(VALUES_MAX + 1)).is_err());
    }

    #[track_caller]
    fn check(kind: VariableKind, include_all: bool, current: &[&str], asked: Option<&[&str]>, expected: &[&str]) {
        let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let variable = Variable {
            name: "x".to_owned(),
            label: String::new(),
            description: String::new(),
            kind,
            query: String::new(),
            options: Vec::new(),
            multi: true,
            include_all,
            all_value: None,
            hide: crate::serve::dashboard::Hide::Nothing,
            current: owned(current),
        };
        let asked = asked.map(owned);
        assert_eq!(held(&variable, asked.as_ref(), &owned(&["a", "b"])), owned(expected));
    }

    #[test]
    fn the_address_decides_then_the_file_then_what_there_is() {
        use VariableKind::{Constant, Custom, Query, TextBox};
        check(Query, true, &["a"], Some(&["z"]), &["z"]);
        check(Constant, false, &["a"], Some(&["z"]), &["a"]);
        check(Query, true, &[ALL], None, &[ALL]);
        check(Query, false, &["b"], None, &["b"]);
        check(Query, false, &["gone"], None, &["a"]);
        check(Query, true, &["gone"], None, &[ALL]);
        check(Custom, false, &["other"], None, &["other"]);
        check(TextBox, false, &[], None, &["a"]);
    }
}
