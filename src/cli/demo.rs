//! `playhead demo`: an audience that is not there, the daemon that watches it, and incidents to find.
//!
//! The half hour before the start is written first, so that charts are full; from then on events and CDN log
//! lines come as the clock goes. The daemon is the same that `playhead run` starts, with default settings but
//! for its folder, its source and a shorter wait for late events.
//!
//! Invariant: nothing is left behind unless `--keep` names a folder, and nothing is written outside of it.

mod audience;
mod folder;
mod looks;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tokio::sync::watch as signal;

use super::{EXIT_FAILURE, stop_signal};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::daemon::{self, Complaints};
use crate::telemetry;

use audience::{Audience, Pace};
use folder::Folder;

/// Room for a history in which the first incident lasts long enough for its alert.
const HISTORY_MINUTES: i64 = 30;
/// Enough viewers that the shipped alerts are sure of what they say: they ask for 500 clients in five minutes.
const ATTEMPTS_PER_MINUTE: u32 = 480;

/// How the demo is to be.
#[derive(Args)]
pub struct DemoArgs {
    /// Keep everything in this folder, which must be new or empty; by default nothing is left behind.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Settings file that changes the demo's daemon; a later one overrides an earlier one.
    #[arg(long = "settings", value_name = "FILE")]
    settings: Vec<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Playback attempts a minute at the peak of the day.
    #[arg(long, default_value_t = ATTEMPTS_PER_MINUTE, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    attempts: u32,
    /// Minutes before the start that the charts show.
    #[arg(long, default_value_t = HISTORY_MINUTES, value_parser = clap::value_parser!(i64).range(1..=720))]
    history: i64,
    /// The audience lives this many times as fast as the clock.
    #[arg(long, hide = true, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=600))]
    speed: i64,
}

/// Runs until it is stopped; returns the exit code.
///
/// # Errors
/// A folder that is in use, settings that are wrong, a disk that cannot be written.
pub async fn run(arguments: &DemoArgs) -> anyhow::Result<u8> {
    let folder = Folder::make(arguments.keep.as_deref())?;
    let (config, moved) = settings(&arguments.settings, folder.path())?;
    telemetry::start(&config.log);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let pace = Pace {
        began_ms: clock.now_ms(),
        speed: arguments.speed,
    };
    let (tell, stop) = signal::channel(false);
    let stopper = tell.clone();
    tokio::spawn(async move {
        stop_signal().await;
        // Nobody listens any more only when the demo has ended by itself.
        let _ = stopper.send(true);
    });
    looks::welcome(arguments.attempts, arguments.history);
    let audience = Audience::new(arguments.seed, arguments.attempts, arguments.history, pace);
    let incidents = audience.incidents();
    let live = audience.start(&incoming(folder.path()), Arc::clone(&clock), stop.clone())?;
    let shown = looks::Shown {
        config: &config,
        incidents: &incidents,
        moved: &moved,
        pace,
    };
    let looks = tokio::spawn(looks::announce(shown.facts(), Arc::clone(&clock), stop.clone()));
    let followed = daemon::follow(&config, clock, stop).await;
    // Whatever ended the daemon, the audience goes home and the terminal is told no more.
    let _ = tell.send(true);
    let fed = live.finish();
    let _ = looks.await;
    match followed {
        Err(error) if !daemon::is_usage(&error) => {
            tracing::error!("playhead: {}", daemon::explain(&error));
            Ok(EXIT_FAILURE)
        }
        other => {
            other?;
            fed?;
            looks::goodbye(&folder);
            Ok(0)
        }
    }
}

fn incoming(folder: &Path) -> PathBuf {
    folder.join("incoming")
}

/// Defaults of the demo, what the user's files say, and on top what makes it a demo. Addresses that are taken
/// give way to free ones; the second value says which.
fn settings(files: &[PathBuf], folder: &Path) -> anyhow::Result<(Config, Vec<String>)> {
    let quoted = |path: PathBuf| serde_json::Value::from(path.display().to_string()).to_string();
    // The audience is never late by more than some seconds, and whoever looks does not want to wait a minute.
    let defaults = "windows: {lateness: 10s}\ningest: {commit_every: 2s, poll_every: 500ms}\nlog: {level: warn}\n";
    let fixed = format!(
        "data: {}\nsources: [{{name: audience, path: {}}}]\n",
        quoted(folder.join("lake")),
        quoted(incoming(folder))
    );
    let mut texts = vec![("demo".to_owned(), defaults.to_owned())];
    for path in files {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Complaints(vec![format!(
                "cannot read the settings file {}: {error}; check its name",
                path.display()
            )])
        })?;
        texts.push((path.display().to_string(), text));
    }
    texts.push(("demo".to_owned(), fixed));
    let mut config = config::parse(&texts, &config::process_env, &|path| path.is_dir())
        .map_err(|complaints| Complaints(complaints.iter().map(ToString::to_string).collect()))?;
    let mut moved = Vec::new();
    for address in [&mut config.http.listen, &mut config.http.status, &mut config.postgres.listen]
        .into_iter()
        .flatten()
    {
        let free = free_address(*address)?;
        if free != *address && address.port() != 0 {
            moved.push(format!("{address} is taken, so {free} is used"));
        }
        *address = free;
    }
    Ok((config, moved))
}

/// The address if nobody listens there, else a free port of the same host.
fn free_address(wanted: SocketAddr) -> std::io::Result<SocketAddr> {
    let at = |address: SocketAddr| TcpListener::bind(address).and_then(|listener| listener.local_addr());
    at(wanted).or_else(|_| at(SocketAddr::new(wanted.ip(), 0)))
}

/// Where a browser on this machine finds what listens at an address.
fn seen_from_here(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        false => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_gives_way_to_a_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = taken.local_addr().unwrap();
        let found = free_address(wanted).unwrap();
        assert_eq!(found.ip(), wanted.ip());
        assert_ne!(found.port(), wanted.port());
    }

    #[test]
    fn the_users_settings_change_the_daemon_but_not_its_folder() {
        let bench = tempfile::tempdir().unwrap();
        let file = bench.path().join("mine.yaml");
        std::fs::write(
            &file,
            "data: /elsewhere\nwindows: {lateness: 3s}\nhttp: {listen: off}\npostgres: {listen: off}\n",
        )
        .unwrap();
        let (config, moved) = settings(&[file], &bench.path().join("demo")).unwrap();
        assert_eq!(config.data, bench.path().join("demo/lake"));
        assert_eq!(config.windows.lateness.as_secs(), 3);
        assert_eq!((config.http.listen, moved.len()), (None, 0));
    }
}
