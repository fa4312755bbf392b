//! The shipped pipelines on a real Arroyo, against our own runner.
//!
//! Runs where `ARROYO_BIN` names a binary of Arroyo 0.15 or newer with its Kafka connector (from its release page or
//! image, or `cargo build --release --bin arroyo` in its repository) and a broker can be started; the ports 5114 to 5117 of this
//! machine must be free, and the compiler service needs cargo, a C compiler and a crate registry. Elsewhere it says so.
//!
//! A simulated hour is ingested; the runner's gold of that lake is what is expected. The same silver is relayed, Arroyo
//! computes it, a collector in a lake of its own commits it. Compared are all windows that end ten minutes before the last
//! row that was relayed: Arroyo closes no window before rows behind it have come.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::COMPUTED;
use crate::cluster::gold;
use crate::daemon::Daemon;
use crate::relay::{VIEWS, published};
use crate::services::{self, Service};
use crate::support::{Bench, simulate};

const API: &str = "127.0.0.1:5115";
const PARTITIONS: u32 = 3;
/// Compiling the functions the first time takes minutes.
const DEPLOY_PATIENCE: Duration = Duration::from_secs(900);
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Minutes before the last relayed row that Arroyo has surely closed: lateness twice, and room.
const OPEN_S: i64 = 600;

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
            assert!(
                ended.is_none(),
                "Arroyo ended ({ended:?}); its log is {}",
                self.folder.join("log").display()
            );
            assert!(started.elapsed() < START_PATIENCE, "Arroyo does not answer at {API}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// `kill -9` in the middle, and up again on the same state.
    fn kill_and_restart(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it has ended");
        self.child = launch(&self.binary, &self.folder);
        self.wait_until_it_answers();
    }
}

impl Drop for Arroyo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(binary: &Path, folder: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log"));
    let log = log.expect("the log can be opened");
    let mut command = Command::new(binary);
    command.arg("cluster").stdout(Stdio::null()).stderr(log);
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
    let day = simulate(&bench, &["--seed", "3", "--sessions", "600", "--minutes", "60", "--incident"]);
    bench.ingest(&[&day.join("player.ndjson"), &day.join("cdn.tsv")]);
    let mut arroyo = Arroyo::start(&binary, &bench.path(""));
    for parallelism in [1, 2, 4] {
        let topics = format!("p{parallelism}");
        let collected = run(&broker, &bench, &mut arroyo, &topics, parallelism);
        drop(collected);
    }
}

/// One deployment from relay to comparison.
fn run(broker: &Service, bench: &Bench, arroyo: &mut Arroyo, topics: &str, parallelism: u32) -> Bench {
    for (view, ..) in VIEWS {
        broker.create_topic(&format!("{topics}.silver.{view}"), PARTITIONS, &[]);
    }
    for table in COMPUTED {
        broker.create_topic(&format!("{topics}.gold.{table}"), PARTITIONS, &[]);
    }
    let together = Bench::new();
    let address = broker.address();
    let cluster = format!("arroyo: {{api: \"http://{API}\", brokers: \"{address}\", topics: {topics}, parallelism: {parallelism}}}\n");
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
    let minutes = VIEWS
        .iter()
        .flat_map(|(view, ..)| published(broker, &format!("{topics}.silver.{view}")));
    let until_s = minutes.map(|record| record.2).max().expect("rows were relayed") * 60 - OPEN_S;

    let collect = format!("{cluster}role: collect\ncollect: {{brokers: \"{address}\", settle: 0s, idle: 5s}}\n");
    let mut collector = Daemon::start(&together, &collect);
    for table in COMPUTED {
        let expected = gold(bench, table, until_s);
        collector.wait_until(&format!("{topics}: gold.{table} is complete"), || {
            together.lake().join("gold").join(table).is_dir() && gold(&together, table, until_s).len() == expected.len()
        });
        let found = gold(&together, table, until_s);
        let first = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert!(first.is_none(), "{topics}: gold.{table}: {first:?}");
    }
    assert!(collector.stop().success());
    together
}
