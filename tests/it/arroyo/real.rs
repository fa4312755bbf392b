//! The shipped pipelines on a real Arroyo, against our own runner.
//!
//! Runs where `ARROYO_BIN` names a binary of Arroyo 0.15 or newer with its Kafka connector (from its release page or
//! image, or `cargo build --release --bin arroyo` in its repository) and a broker can be started; the ports 5114 to 5117 of this
//! machine must be free, and the compiler service needs cargo, a C compiler and a crate registry. Elsewhere it says so.
//!
//! A simulated hour is ingested; the runner's gold of that lake is what is expected. The same silver is relayed, Arroyo
//! computes it, a collector in a lake of its own commits it. Arroyo closes no window before later rows have come in every
//! partition, so the topics go on with an hour of the same size four hours later, and the first one's windows are compared.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::COMPUTED;
use crate::cluster::gold;
use crate::daemon::Daemon;
use crate::relay::create_topics;
use crate::services::{self, Service};
use crate::support::{Bench, simulate};

/// Outlives the test: why Arroyo did not do something is said nowhere else.
const LOG: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/arroyo.log");
const API: &str = "127.0.0.1:5115";
const GOLD_PARTITIONS: u32 = 3;
/// Arroyo stamps its results with the time of their window; a broker would delete those of a day long past at once.
const STAMPED_BY_BROKER: &str = "message.timestamp.type=LogAppendTime";
/// Compiling the functions the first time takes minutes.
const DEPLOY_PATIENCE: Duration = Duration::from_secs(900);
const START_PATIENCE: Duration = Duration::from_secs(60);
const RESULTS_PATIENCE: Duration = Duration::from_secs(300);
/// 2026-01-01, as the simulation has it by itself.
const STARTS_S: i64 = 1_767_225_600;
/// Between the hour that is compared and the one that follows it: all sessions have ended by then.
const LATER_S: i64 = 4 * 3600;

/// A cluster in one process. It dies with the test.
struct Arroyo {
    binary: PathBuf,
    folder: PathBuf,
    child: Child,
}

impl Arroyo {
    fn start(binary: &Path, folder: &Path) -> Arroyo {
        let mut arroyo = Arroyo {
            binary: binary.to_owned(),
            folder: folder.to_owned(),
            child: launch(binary, folder),
        };
        arroyo.wait_until_it_answers();
        arroyo
    }

    #[track_caller]
    fn wait_until_it_answers(&mut self) {
        let started = Instant::now();
        while std::net::TcpStream::connect(API).is_err() {
            let ended = self.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "Arroyo ended ({ended:?}); its log is {LOG}");
            assert!(started.elapsed() < START_PATIENCE, "Arroyo does not answer at {API}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// `kill -9` of controller and workers, as when a machine dies.
    fn kill(&mut self) {
        let group = format!("-{}", self.child.id());
        // It fails where all have ended already.
        let _ = Command::new("kill").args(["-9", "--", &group]).status();
        let _ = self.child.wait();
    }

    /// In the middle, and up again on the same state.
    fn kill_and_restart(&mut self) {
        self.kill();
        self.child = launch(&self.binary, &self.folder);
        self.wait_until_it_answers();
    }
}

impl Drop for Arroyo {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(binary: &Path, folder: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(LOG);
    let log = log.expect("the log can be opened");
    let mut command = Command::new(binary);
    command.arg("cluster").stdout(Stdio::null()).stderr(log).process_group(0);
    for part in ["API", "CONTROLLER", "COMPILER", "WORKER", "ADMIN", "NODE"] {
        command.env(format!("ARROYO__{part}__BIND_ADDRESS"), "127.0.0.1");
    }
    command
        .env("ARROYO__DISABLE_TELEMETRY", "true")
        .env("ARROYO__CHECKPOINT_URL", format!("file://{}/checkpoints", folder.display()))
        .env("ARROYO__COMPILER__ARTIFACT_URL", format!("file://{}/artifacts", folder.display()))
        // Its database lies below it.
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .spawn()
        .expect("ARROYO_BIN can be started")
}

#[allow(clippy::disallowed_methods)] // Tests have no settings; the variable is documented at the top.
fn binary() -> Option<PathBuf> {
    let binary = std::env::var_os("ARROYO_BIN").map(PathBuf::from);
    if binary.is_none() {
        println!("skipped: ARROYO_BIN is not set; name a binary of Arroyo (its release page, or `cargo build --release --bin arroyo`)");
    }
    binary
}

#[test]
fn arroyo_computes_every_shipped_pipeline_as_our_runner_does_also_when_it_is_killed() {
    let Some(binary) = binary() else { return };
    let Some(broker) = services::start("kafka") else { return };
    let bench = Bench::new();
    ingest_hour(&bench, "compared", STARTS_S);
    ingest_hour(&bench, "later", STARTS_S + LATER_S);
    let mut arroyo = Arroyo::start(&binary, &bench.path(""));
    for parallelism in [1, 2, 4] {
        let topics = format!("p{parallelism}");
        let collected = run(&broker, &bench, &mut arroyo, &topics, parallelism);
        drop(collected);
    }
}

/// Rows for every view that is relayed.
fn ingest_hour(bench: &Bench, name: &str, starts_s: i64) {
    let start = starts_s.to_string();
    let hour = ["--minutes", "60", "--start", &start];
    let simulated = |options: &[&str], file: &str| {
        let bench = Bench::new();
        let folder = simulate(&bench, &[&hour[..], options].concat());
        std::fs::read_to_string(folder.join(file)).expect("the simulation wrote it")
    };
    let options = ["--seed", "3", "--sessions", "600", "--incident"];
    let players = bench.write(&format!("{name}.ndjson"), simulated(&options, "player.ndjson"));
    let cdn = bench.write(&format!("{name}.tsv"), simulated(&options, "cdn.tsv"));
    let reports = simulated(&["--seed", "4", "--sessions", "300", "--dialect", "cmcd"], "player.ndjson");
    let buffers = bench.write(&format!("{name}-buffers.ndjson"), with_buffers(&reports));
    bench.ingest(&[&players, &cdn, &buffers]);
}

/// The same reports with buffer, latency and throughput, which no simulated player tells.
fn with_buffers(reports: &str) -> String {
    let told = |(number, report): (usize, &str)| {
        let (buffer_ms, latency_ms, throughput_kbps) = (500 + number * 37 % 9000, 1500 + number * 53 % 4000, 2000 + number * 71 % 7000);
        format!("bl=({buffer_ms}),ltc={latency_ms},mtp=({throughput_kbps}),{report}\n")
    };
    reports.lines().enumerate().map(told).collect()
}

/// One deployment from relay to comparison.
fn run(broker: &Service, bench: &Bench, arroyo: &mut Arroyo, topics: &str, parallelism: u32) -> Bench {
    // No subtask may read two partitions (docs/scaling.md).
    create_topics(broker, topics, parallelism);
    for table in COMPUTED {
        broker.create_topic(&format!("{topics}.gold.{table}"), GOLD_PARTITIONS, &[STAMPED_BY_BROKER]);
    }
    let together = Bench::new();
    let address = broker.address();
    let cluster = format!(
        "arroyo: {{api: \"http://{API}\", brokers: \"{address}\", topics: {topics}, parallelism: {parallelism}, stop_within: 10s}}\n"
    );
    let settings = together.write("deploy.yaml", &cluster);
    let settings = settings.to_str().expect("a plain path");
    let deployed = together.run(&["arroyo", "deploy", "--settings", settings]);
    assert!(deployed.status.success(), "{}", String::from_utf8_lossy(&deployed.stderr));
    let started = Instant::now();
    while !together.run(&["arroyo", "status", "--settings", settings]).status.success() {
        assert!(started.elapsed() < DEPLOY_PATIENCE, "not every pipeline came to run");
        std::thread::sleep(Duration::from_secs(1));
    }

    let relay = bench.write("relay.yaml", format!("{cluster}relay: {{brokers: \"{address}\"}}\n"));
    let relayed = bench.run(&["relay", "--once", "--settings", relay.to_str().expect("a plain path")]);
    assert!(relayed.status.success(), "{}", String::from_utf8_lossy(&relayed.stderr));
    if parallelism == 2 {
        arroyo.kill_and_restart();
    }
    let collect = format!("{cluster}role: collect\ncollect: {{brokers: \"{address}\", settle: 0s, idle: 5s}}\n");
    let collector = Daemon::start(&together, &collect);
    let started = Instant::now();
    for table in COMPUTED {
        let expected = gold(bench, table, STARTS_S + LATER_S / 2);
        // A table that nothing has come for is not there yet.
        let rows = || match together.lake().join("gold").join(table).is_dir() {
            true => gold(&together, table, STARTS_S + LATER_S / 2),
            false => Vec::new(),
        };
        let is_complete = || rows().len() == expected.len();
        while !is_complete() {
            assert!(
                started.elapsed() < RESULTS_PATIENCE,
                "{topics}: gold.{table} has not its {} rows",
                expected.len()
            );
            std::thread::sleep(Duration::from_secs(1));
        }
        let found = rows();
        println!("{topics}: gold.{table}: {} rows compared", found.len());
        let first = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert!(first.is_none(), "{topics}: gold.{table}: {first:?}");
    }
    assert!(collector.stop().success());
    together
}
