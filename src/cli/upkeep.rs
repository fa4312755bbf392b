//! `playhead upkeep`: all upkeep that is due, once, on a lake that no daemon has open.
//!
//! A running daemon does its own upkeep; a dry run reads and may look at a lake in use.

use std::sync::Arc;

use serde_json::json;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::lake::upkeep::{Action, Upkeep, UpkeepSettings};
use crate::lake::{Lake, LakeError};
use crate::{daemon, rollup};

/// How to go about it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub dry_run: bool,
    pub json: bool,
}

/// Does what is due and tells it, line by line or as one JSON object.
///
/// # Errors
/// A lake in use, or whatever the lake says. What was done before stays done.
pub async fn run(config: &Config, settings: UpkeepSettings, options: Options) -> anyhow::Result<u8> {
    let lake = open(config, options.dry_run).await?;
    let mut upkeep = Upkeep::new(Arc::new(lake), settings);
    let now_ms = SystemClock.now_ms();
    let verb = if options.dry_run { "would " } else { "" };
    let mut tell = |action: &Action| {
        if !options.json {
            println!("{verb}{}", told(action));
        }
    };
    let (actions, io_bytes) = if options.dry_run {
        let due = upkeep.plan(now_ms).await?;
        due.iter().for_each(&mut tell);
        (due, 0)
    } else {
        let report = upkeep.run_all(now_ms, &mut tell).await?;
        (report.actions, report.io_bytes)
    };
    if options.json {
        println!("{}", json!({"dry_run": options.dry_run, "actions": actions, "io_bytes": io_bytes}));
    } else if actions.is_empty() {
        println!("nothing to do");
    }
    Ok(0)
}

async fn open(config: &Config, read_only: bool) -> anyhow::Result<Lake> {
    let lake = if read_only {
        Lake::open_read_only(daemon::lake_place(config)?).await?
    } else {
        // Never makes a lake where there is none.
        Lake::open_read_only(daemon::lake_place(config)?).await?;
        match Lake::open(daemon::lake_place(config)?, Arc::new(SystemClock)).await {
            Err(LakeError::InUse { lake, holder }) => anyhow::bail!(
                "the lake {lake} is in use by another playhead process{holder}; a running daemon does its own upkeep (`upkeep` in its settings), or stop it first; --dry-run may look meanwhile"
            ),
            opened => opened?,
        }
    };
    for pipeline in daemon::pipelines(config)? {
        lake.open_existing(rollup::table_spec(&pipeline).await?).await?;
    }
    Ok(lake)
}

fn told(action: &Action) -> String {
    match action {
        Action::Checkpoint { table, version } => format!("checkpoint {table} at version {version}"),
        Action::Compact {
            table,
            day,
            files,
            bytes,
            rows,
        } => format!("compact {table} {day}: {files} files, {rows} rows, {}", mebibytes(*bytes)),
        Action::Postpone { table, day } => format!("postpone {table} {day}: its files are being changed"),
        Action::Drop {
            table,
            kept_from,
            files,
            rows,
        } => format!("drop {table} before {kept_from}: {files} files, {rows} rows"),
        Action::CleanLog { table, kept_from, files } => format!("clean the log of {table} before version {kept_from}: {files} files"),
        Action::Vacuum { table, files, bytes } => format!("vacuum {table}: {files} files, {}", mebibytes(*bytes)),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_is_one_line_that_names_its_table() {
        let check = |action: Action, line: &str| assert_eq!(told(&action), line);
        let table = || "gold.playback_1m".to_string();
        check(
            Action::Compact {
                table: table(),
                day: "2026-01-31".to_string(),
                files: 12,
                bytes: 3 << 19,
                rows: 700,
            },
            "compact gold.playback_1m 2026-01-31: 12 files, 700 rows, 1.5 MiB",
        );
        check(
            Action::CleanLog {
                table: table(),
                kept_from: 900,
                files: 800,
            },
            "clean the log of gold.playback_1m before version 900: 800 files",
        );
        check(
            Action::Vacuum {
                table: table(),
                files: 3,
                bytes: 0,
            },
            "vacuum gold.playback_1m: 3 files, 0.0 MiB",
        );
    }
}
