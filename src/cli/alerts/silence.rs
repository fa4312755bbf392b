//! `playhead alerts silence`: a line in `silences.yaml` of the alert folder.
//!
//! Invariant: the file is replaced as a whole, and only by one that reads back; other files are not touched.
//! Invariant: a silence says who, why and until when.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::DateTime;
use clap::Args;

use crate::alert::rule::{Matchers, Pattern, Silence, parse_duration_ms, silence_yaml};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Folder};
use crate::daemon::{self, Complaints};

/// The file; a folder may hold other files with silences, which are written by hand.
const FILE: &str = "silences.yaml";
/// A silence that has ended is kept this long, for whoever asks why nobody was told.
const KEPT_MS: i64 = 7 * 86_400_000;

#[derive(Args)]
pub struct SilenceArgs {
    /// What to keep quiet: alert=..., uid=..., severity=..., a dimension or a label; `*` stands for anything.
    /// All must match.
    #[arg(value_name = "NAME=VALUE")]
    matchers: Vec<String>,
    /// For how long from now: 30m, 2h, 7d.
    #[arg(long = "for", value_name = "LENGTH", conflicts_with = "until")]
    length: Option<String>,
    /// Until when, such as 2026-12-01T06:00:00Z.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Who says so.
    #[arg(long)]
    author: Option<String>,
    /// Why.
    #[arg(long = "reason", visible_alias = "comment", value_name = "TEXT")]
    comment: Option<String>,
    /// End the silence with this id now.
    #[arg(long, visible_alias = "expire", value_name = "ID", conflicts_with_all = ["length", "until", "matchers"])]
    end: Option<String>,
    /// Print the silences, and change nothing.
    #[arg(long, conflicts_with_all = ["end", "length", "until", "matchers"])]
    list: bool,
}

/// Writes, ends or lists.
///
/// # Errors
/// What lacks or is wrong; a folder that cannot be written; a file that does not read back.
pub async fn run(config: &Config, wanted: &SilenceArgs) -> anyhow::Result<u8> {
    let Folder::Path(folder) = &config.alerts.folder else {
        return Err(complaint("the alerts are those of the binary; set alerts.folder in the settings to a folder of your own").into());
    };
    let path = folder.join(FILE);
    let specs = daemon::gold_specs(&daemon::pipelines(config)?).await?;
    let mut silences = match std::fs::read_to_string(&path) {
        Ok(text) => daemon::rules_in(&[(path.display().to_string(), text)], &specs).await?.silences,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(complaint(format!("cannot read {}: {error}; check its rights", path.display())).into()),
    };
    if wanted.list {
        print!("{}", silence_yaml(&silences));
        return Ok(0);
    }
    let now_ms = SystemClock.now_ms();
    let told = match &wanted.end {
        Some(id) => end(&mut silences, id, now_ms)?,
        None => {
            let silence = silence(wanted, now_ms)?;
            let told = format!("silence {}", silence.id);
            silences.push(silence);
            told
        }
    };
    silences.retain(|silence| silence.ends_ms > now_ms - KEPT_MS);
    let text = format!(
        "# yaml-language-server: $schema=schema.json\n\
         # Written by `playhead alerts silence`, which keeps no comments but these; may be edited by hand.\n{}",
        silence_yaml(&silences)
    );
    // Read as the daemon will read it, before it is there to be read.
    daemon::rules_in(&[(FILE.to_owned(), text.clone())], &specs).await?;
    replace(&path, &text)?;
    println!("{told} is in {}; a running daemon takes it up within seconds", path.display());
    Ok(match daemon::rules(config, &specs).await {
        Ok(_) => 0,
        Err(complaints) => {
            eprintln!(
                "the silence is written, but the daemon takes up all files or none, and these have to be mended first:\n{complaints}"
            );
            super::super::EXIT_USAGE
        }
    })
}

fn silence(wanted: &SilenceArgs, now_ms: i64) -> Result<Silence, Complaints> {
    let mut matchers: BTreeMap<String, Vec<Pattern>> = BTreeMap::new();
    for text in &wanted.matchers {
        let Some((name, value)) = text.split_once('=') else {
            return Err(complaint(format!("`{text}` is no matcher; write for instance cdn=cdn-b")));
        };
        matchers.entry(name.to_owned()).or_default().push(Pattern::new(value));
    }
    let matchers = Matchers::new(matchers).ok_or_else(|| complaint("this would match every alert; write for instance cdn=cdn-b"))?;
    let ends_ms = match (&wanted.length, &wanted.until) {
        (Some(length), _) => {
            let length_ms =
                parse_duration_ms(length).ok_or_else(|| complaint(format!("--for `{length}` is no length; write 30m, 2h or 7d")))?;
            now_ms + length_ms
        }
        (None, Some(until)) => {
            let time = DateTime::parse_from_rfc3339(until);
            time.map_err(|_| complaint(format!("--until `{until}` is no time; write 2026-12-01T06:00:00Z")))?
                .timestamp_millis()
        }
        (None, None) => return Err(complaint("a silence needs an end; add --for 2h or --until TIME")),
    };
    let text = |value: &Option<String>, name: &str| value.clone().ok_or_else(|| complaint(format!("a silence needs --{name}")));
    let author = text(&wanted.author, "author")?;
    // Whole seconds: that is how the file holds times.
    let starts_ms = now_ms - now_ms.rem_euclid(1_000);
    Ok(Silence {
        id: format!("{author}-{}", starts_ms / 1_000),
        matchers,
        starts_ms,
        ends_ms: ends_ms - ends_ms.rem_euclid(1_000),
        author,
        comment: text(&wanted.comment, "reason")?,
    })
}

fn end(silences: &mut Vec<Silence>, id: &str, now_ms: i64) -> Result<String, Complaints> {
    let Some(at) = silences.iter().position(|silence| silence.id == id) else {
        return Err(complaint(format!(
            "there is no silence `{id}`; `playhead alerts silence --list` names them"
        )));
    };
    let now_ms = now_ms - now_ms.rem_euclid(1_000);
    if silences[at].starts_ms >= now_ms {
        silences.remove(at);
    } else {
        silences[at].ends_ms = silences[at].ends_ms.min(now_ms);
    }
    Ok(format!("the end of silence {id}"))
}

/// Under another name first: the daemon never reads half a file.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let beside = path.with_extension("yaml.new");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| anyhow::anyhow!("cannot write {}: {error}; check the folder and its rights", path.display()))
}

fn complaint(text: impl Into<String>) -> Complaints {
    Complaints(vec![text.into()])
}
