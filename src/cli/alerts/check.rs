//! `playhead alerts check`: are these rule files right?
//!
//! Stands in front of `daemon::rules_in`, which reads them as the daemon does. `playhead check` reads the
//! settings and the pipelines as well.
//!
//! Invariant: reads only; what it accepts the daemon accepts.

use std::path::PathBuf;

use serde_json::json;

use crate::alert::rule::{Rule, RuleSet};
use crate::config::Config;
use crate::daemon::{self, Complaints};

/// Prints what the files hold, or everything that is wrong with them.
///
/// # Errors
/// Pipelines that are wrong, for rules are checked against the tables that they fill.
pub async fn run(config: &Config, paths: &[PathBuf], as_json: bool) -> anyhow::Result<u8> {
    let specs = daemon::gold_specs(&daemon::pipelines(config)?).await?;
    let read = match daemon::rule_files(config, paths) {
        Ok(files) => daemon::rules_in(&files, &specs).await,
        Err(complaints) => Err(complaints),
    };
    Ok(match read {
        Ok(rules) => {
            if as_json {
                let uids: Vec<&str> = rules.rules.iter().map(Rule::uid).collect();
                println!("{}", json!({"ok": true, "rules": uids, "hash": rules.hash, "complaints": []}));
            } else {
                println!("{}", told(&rules));
            }
            0
        }
        Err(Complaints(complaints)) => {
            if as_json {
                println!("{}", json!({"ok": false, "rules": [], "complaints": complaints}));
            } else {
                complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
                eprintln!("{} to mend", complaints.len());
            }
            super::super::EXIT_USAGE
        }
    })
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn told(rules: &RuleSet) -> String {
    let names: Vec<&str> = rules.rules.iter().map(Rule::alert).collect();
    let targets: Vec<&str> = rules.targets.keys().map(String::as_str).collect();
    format!(
        "in order: rules {}; targets {}; silences {}",
        listed(&names),
        listed(&targets),
        rules.silences.len()
    )
}
