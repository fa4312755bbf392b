//! What the demo says on the terminal: where to look, what to look for, and when it has caught up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch as signal;

use super::audience::Pace;
use super::folder::Folder;
use super::seen_from_here;
use crate::clock::Clock;
use crate::config::Config;
use crate::simulate::Planted;

/// How often the daemon is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// An answer of the status routes is small; what is longer is cut.
const ANSWER_BYTES: u64 = 1 << 20;
/// The tables have caught up when they are this close to the audience, by the clock: events under way for up to
/// half a minute do not count.
const CAUGHT_UP_MS: i64 = 15_000;
/// The gauge of the watermark, epoch seconds.
const WATERMARK: &str = "playhead_watermark_timestamp_seconds ";

/// What is told.
pub struct Shown<'a> {
    pub config: &'a Config,
    pub incidents: &'a [Planted],
    /// Addresses that were taken.
    pub moved: &'a [String],
    pub pace: Pace,
}

/// The same as texts, for a task of its own.
pub struct Facts {
    status: Option<SocketAddr>,
    addresses: String,
    incidents: Vec<Planted>,
    pace: Pace,
}

pub fn welcome(attempts_per_minute: u32, history_minutes: i64) {
    println!(
        "An audience of some {attempts_per_minute} playback attempts a minute is being made up, with the last {history_minutes} minutes as history."
    );
}

pub fn goodbye(folder: &Folder) {
    match folder.is_kept() {
        true => println!(
            "The demo's tables are kept: playhead sql --data {}/lake \"SELECT ...\"",
            folder.path().display()
        ),
        false => println!("The demo is over and its folder is removed."),
    }
}

impl Shown<'_> {
    pub fn facts(&self) -> Facts {
        let status = self.config.http.status.or(self.config.http.listen).map(seen_from_here);
        let mut addresses = String::new();
        let mut line = |what: &str, text: String| addresses.push_str(&format!("  {what:<10} {text}\n"));
        if let Some(status) = status {
            line("health", format!("http://{status}/readyz, metrics: http://{status}/metrics"));
        }
        if let Some(listen) = self.config.http.listen.map(seen_from_here) {
            line("events to", format!("http://{listen}/cmcd and http://{listen}/v1/events"));
        }
        line("tables in", self.config.data.display().to_string());
        let data = self.config.data.display();
        line(
            "ask them",
            format!("playhead sql --data {data} \"SELECT * FROM gold.playback_1m LIMIT 9\""),
        );
        self.moved.iter().for_each(|moved| line("note", moved.clone()));
        Facts {
            status,
            addresses,
            incidents: self.incidents.to_vec(),
            pace: self.pace,
        }
    }
}

/// Says where to look once there is something to see, then what goes wrong as it begins, until `stop` is set.
pub async fn announce(facts: Facts, clock: Arc<dyn Clock>, mut stop: signal::Receiver<bool>) {
    tokio::select! {
        () = tell(facts, clock) => {}
        _ = stop.changed() => {}
    }
}

async fn tell(facts: Facts, clock: Arc<dyn Clock>) {
    if let Some(status) = facts.status {
        until_ready(status).await;
    }
    println!("\nPlayhead is running; stop it with Ctrl-C.\n{}", facts.addresses);
    let now_ms = || facts.pace.event_ms(clock.now_ms());
    let start_ms = now_ms();
    for planted in facts.incidents.iter().filter(|planted| planted.from_ms <= start_ms) {
        println!("Planted at {}: {}.", time_of_day(planted.from_ms), planted.sentence());
    }
    if let Some(status) = facts.status {
        until_caught_up(status, &now_ms, CAUGHT_UP_MS * facts.pace.speed).await;
        println!("The history is in the tables; alerts are printed here as they fire.\n");
    }
    for planted in facts.incidents.iter().filter(|planted| planted.from_ms > start_ms) {
        while now_ms() < planted.from_ms {
            tokio::time::sleep(ASK_EVERY).await;
        }
        println!("Planted at {}: {}.", time_of_day(planted.from_ms), planted.sentence());
    }
    std::future::pending::<()>().await;
}

async fn until_ready(status: SocketAddr) {
    while !asked(status, "/readyz")
        .await
        .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    {
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn until_caught_up(status: SocketAddr, now_ms: &impl Fn() -> i64, behind_ms: i64) {
    loop {
        let metrics = asked(status, "/metrics").await.unwrap_or_default();
        let watermark = metrics.lines().find_map(|line| line.strip_prefix(WATERMARK));
        let watermark_s = watermark.and_then(|text| text.parse::<f64>().ok());
        if watermark_s.is_some_and(|seconds| seconds * 1_000.0 >= (now_ms() - behind_ms) as f64) {
            return;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Hours and minutes, UTC like the tables.
fn time_of_day(time_ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(time_ms).unwrap_or_default();
    time.format("%H:%M UTC").to_string()
}

/// The whole answer to a GET; none while nobody answers.
async fn asked(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
