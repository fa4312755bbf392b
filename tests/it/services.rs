//! Real components for the tests: a Kafka broker, Kinesis and S3 of others' making, on 127.0.0.1.
//!
//! `tests/services/service` does the work. Tests never install anything: what is not there is
//! skipped with a line that says how to get it, or fails where `PLAYHEAD_SERVICES=required` is set.
//!
//! Invariant: every wait has a bound (they stand in `tests/services/common.sh` and `kafka.sh`), and
//! no service outlives the test process, not even one that is killed (`--owner`).

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fault_proxy::FaultProxy;
use crate::http_client::{self, Answer};

/// A component that runs; dropped, it ends and its folder goes.
pub struct Service {
    name: String,
    address: String,
    behind: Option<String>,
    folder: PathBuf,
}

/// Starts a component (`kafka`, `kinesalite`, `kinesis-local`, `moto`) on a free port; `None`, with a
/// line that says why and what to do, if it is not installed.
#[track_caller]
pub fn start(name: &str) -> Option<Service> {
    start_with(name, &[])
}

/// The same with options of `tests/services/service NAME start`, for instance `--fake-time`.
#[track_caller]
pub fn start_with(name: &str, options: &[&str]) -> Option<Service> {
    is_available(name).then(|| Service::launch(name, options))
}

/// A kinesalite whose clock [`Service::shift_clock`] moves.
#[track_caller]
pub fn start_with_movable_clock() -> Option<Service> {
    (is_available("faketime") && is_available("kinesalite")).then(|| Service::launch("kinesalite", &["--fake-time"]))
}

/// A Kafka broker whose clients find it through the proxy alone: connect to `proxy.address()`. The
/// service's own address goes straight to the broker, past every fault.
#[track_caller]
pub fn start_kafka_behind(proxy: &FaultProxy) -> Option<Service> {
    let broker = start_with("kafka", &["--behind", &proxy.address().to_string()])?;
    let upstream = broker.behind.as_deref().expect("it was started behind a proxy");
    proxy.set_upstream(upstream.parse().expect("the script prints a socket address"));
    Some(broker)
}

/// Whether the component or tool could be used now, without a network.
#[allow(clippy::disallowed_methods)] // Tests have no settings; the variable is documented at the top.
#[track_caller]
pub fn is_available(name: &str) -> bool {
    let output = script(&[name, "available"]);
    if output.status.success() {
        return true;
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    let required = std::env::var_os("PLAYHEAD_SERVICES").is_some_and(|value| value == "required");
    assert!(!required, "{}", reason.trim());
    println!("skipped: {}", reason.trim());
    false
}

/// Has Chromium look at a page by a script of `tests/browser`; gives what the script found, or `None`, with a line
/// that says why, if there is no browser.
#[track_caller]
pub fn browse(name: &str, arguments: &[&str]) -> Option<Value> {
    if !is_available("chromium") {
        return None;
    }
    let printed = run_script(&[&["chromium", "run", name], arguments].concat());
    Some(serde_json::from_str(&printed).expect("the script prints JSON"))
}

/// Where a tool that is available stands (`faketime`, `promtool`, `psql`, the Python of `sql-clients`).
#[track_caller]
pub fn path(name: &str) -> String {
    run_script(&[name, "path"]).trim().to_string()
}

impl Service {
    #[track_caller]
    fn launch(name: &str, options: &[&str]) -> Service {
        let owner = std::process::id().to_string();
        let mut arguments = vec![name, "start", "--owner", &owner];
        arguments.extend(options);
        let printed = run_script(&arguments);
        let mut facts: BTreeMap<&str, &str> = printed.lines().filter_map(|line| line.split_once('=')).collect();
        let mut fact = |key| facts.remove(key).map(str::to_string);
        Service {
            name: name.to_string(),
            address: fact("address").expect("the script prints the address"),
            behind: fact("behind"),
            folder: fact("folder").expect("the script prints the folder").into(),
        }
    }

    /// What a client is told: `127.0.0.1:port` for Kafka, `http://127.0.0.1:port` for the others.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Kill -9: nothing is written any more, connections break.
    #[track_caller]
    pub fn kill(&self) {
        run_script(&[&self.name, "kill", self.folder()]);
    }

    /// Starts a killed service again, on its folder and its port.
    #[track_caller]
    pub fn restart(&self) {
        let again = Service::launch(&self.name, &["--folder", self.folder()]);
        assert_eq!(again.address, self.address, "it came back somewhere else");
        // It is the same service; only `self` ends it.
        std::mem::forget(again);
    }

    #[track_caller]
    pub fn kill_and_restart(&self) {
        self.kill();
        self.restart();
    }

    /// From now on the service's clock shows this many seconds more than the real one.
    #[track_caller]
    pub fn shift_clock(&self, seconds: i64) {
        let offset = self.folder.join("offset.txt");
        assert!(offset.is_file(), "{} was not started with a movable clock", self.name);
        // Renamed into place: the service must never read half a number.
        let written = self.folder.join("offset.new");
        std::fs::write(&written, format!("{seconds:+}\n")).expect("the offset can be written");
        std::fs::rename(&written, &offset).expect("the offset can be put in place");
    }

    /// Creates a Kafka topic; settings are topic settings such as `retention.ms=1000`.
    #[track_caller]
    pub fn create_topic(&self, topic: &str, partitions: u32, settings: &[&str]) {
        let partitions = partitions.to_string();
        let mut arguments = vec![self.name.as_str(), "topic", &self.address, topic, &partitions];
        arguments.extend(settings);
        run_script(&arguments);
    }

    /// Widens a Kafka topic to this many partitions.
    #[track_caller]
    pub fn add_partitions(&self, topic: &str, total: u32) {
        run_script(&[&self.name, "add-partitions", &self.address, topic, &total.to_string()]);
    }

    /// Makes the records before the offset unreadable, as retention does.
    #[track_caller]
    pub fn delete_records(&self, topic: &str, partition: u32, before_offset: u64) {
        let (partition, offset) = (partition.to_string(), before_offset.to_string());
        run_script(&[&self.name, "delete-records", &self.address, topic, &partition, &offset]);
    }

    /// Runs a class of kafka-tools and gives what it printed.
    #[track_caller]
    pub fn kafka_tool(&self, class: &str, arguments: &[&str]) -> String {
        kafka_tool(&self.address, class, arguments)
    }

    fn folder(&self) -> &str {
        self.folder.to_str().expect("the script makes folders with plain names")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let output = script(&[&self.name, "stop", self.folder()]);
        if !output.status.success() {
            println!("{} was not stopped: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[track_caller]
fn kafka_tool(address: &str, class: &str, arguments: &[&str]) -> String {
    let class = format!("org.apache.kafka.tools.{class}");
    let mut all = vec!["kafka", "run", &class, "--bootstrap-server", address];
    all.extend(arguments);
    run_script(&all)
}

fn script(arguments: &[&str]) -> Output {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/service"))
        .args(arguments)
        .output()
        .expect("tests/services/service starts; it needs bash")
}

#[track_caller]
fn run_script(arguments: &[&str]) -> String {
    let output = script(arguments);
    assert!(
        output.status.success(),
        "tests/services/service {}\n{}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the script prints UTF-8")
}

// ---- the services keep what tests build on ----

/// Earliest or latest offsets as `topic:partition:offset` lines; -2 is the earliest, -1 the latest.
fn offsets(broker: &Service, topic: &str, time: &str) -> Vec<String> {
    let printed = broker.kafka_tool("GetOffsetShell", &["--topic", topic, "--time", time]);
    printed.lines().map(str::to_string).collect()
}

#[test]
fn a_kafka_broker_keeps_its_topics_through_kill_9_and_forgets_only_what_it_is_told_to() {
    let Some(broker) = start("kafka") else { return };
    broker.create_topic("plays", 1, &["retention.ms=3600000"]);
    broker.kafka_tool(
        "ProducerPerformance",
        &[
            "--topic",
            "plays",
            "--num-records",
            "50",
            "--record-size",
            "100",
            "--throughput",
            "-1",
        ],
    );
    broker.kill_and_restart();
    assert_eq!(offsets(&broker, "plays", "-1"), ["plays:0:50"]);
    broker.delete_records("plays", 0, 20);
    assert_eq!(offsets(&broker, "plays", "-2"), ["plays:0:20"]);
    broker.add_partitions("plays", 2);
    assert_eq!(offsets(&broker, "plays", "-1"), ["plays:0:50", "plays:1:0"]);
}

#[test]
fn clients_of_a_kafka_broker_behind_a_proxy_come_back_through_the_proxy() {
    let proxy = FaultProxy::start_without_upstream();
    let Some(broker) = start_kafka_behind(&proxy) else { return };
    broker.create_topic("plays", 1, &[]);
    assert_eq!(proxy.connections(), 0, "the service's own address goes past the proxy");
    let printed = kafka_tool(&proxy.address().to_string(), "GetOffsetShell", &["--topic", "plays"]);
    assert_eq!(printed.trim(), "plays:0:0");
    // One to ask who holds the partition, one more to the address that the answer named.
    assert!(proxy.connections() >= 2, "{} connections", proxy.connections());
}

/// The fakes of AWS look at the form of a signature, not at its value.
const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00";

fn socket_address(service: &Service) -> SocketAddr {
    let address = service.address().trim_start_matches("http://");
    address.parse().expect("the script prints a socket address")
}

fn kinesis(service: &Service, action: &str, body: &Value) -> Answer {
    let headers = [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", &format!("Kinesis_20131202.{action}")),
        ("x-amz-date", "20260101T000000Z"),
        ("authorization", SIGNATURE),
    ];
    http_client::post(socket_address(service), "/", &headers, body.to_string())
}

/// Makes a stream of one shard and gives an iterator of it.
fn shard_iterator(service: &Service) -> Value {
    let created = kinesis(service, "CreateStream", &json!({"StreamName": "plays", "ShardCount": 1}));
    assert_eq!(created.status, 200, "{created:?}");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let described = kinesis(service, "DescribeStream", &json!({"StreamName": "plays"})).json();
        let stream = &described["StreamDescription"];
        if stream["StreamStatus"] == "ACTIVE" {
            let request = json!({"StreamName": "plays", "ShardId": stream["Shards"][0]["ShardId"], "ShardIteratorType": "TRIM_HORIZON"});
            return kinesis(service, "GetShardIterator", &request).json()["ShardIterator"].clone();
        }
        assert!(Instant::now() < deadline, "the stream does not become active: {described}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn both_kinesis_fakes_give_an_iterator_that_reads() {
    for name in ["kinesalite", "kinesis-local"] {
        let Some(service) = start(name) else { continue };
        let iterator = shard_iterator(&service);
        let read = kinesis(&service, "GetRecords", &json!({"ShardIterator": iterator}));
        assert_eq!(read.status, 200, "{name}: {read:?}");
        assert_eq!(read.json()["Records"], json!([]), "{name}");
    }
}

#[test]
fn an_iterator_expires_when_the_clock_of_kinesalite_is_moved_by_five_minutes() {
    let Some(service) = start_with_movable_clock() else { return };
    let iterator = shard_iterator(&service);
    let read = |iterator: &Value| kinesis(&service, "GetRecords", &json!({"ShardIterator": iterator}));
    assert_eq!(read(&iterator).status, 200);
    service.shift_clock(301);
    let expired = read(&iterator);
    assert!(expired.body.contains("ExpiredIteratorException"), "{expired:?}");
}

#[test]
fn moto_keeps_the_first_of_two_objects_that_must_not_exist_yet() {
    let Some(service) = start("moto") else { return };
    let put = |target: &str, body: &str| {
        let headers = [("if-none-match", "*"), ("authorization", SIGNATURE)];
        http_client::request(socket_address(&service), "PUT", target, &headers, body.as_bytes()).status
    };
    assert_eq!(put("/bucket", ""), 200);
    assert_eq!([put("/bucket/key", "first"), put("/bucket/key", "second")], [200, 412]);
}

#[test]
fn a_service_that_is_dropped_is_gone_with_its_folder() {
    let Some(service) = start("kinesalite") else { return };
    let address = socket_address(&service);
    let folder = service.folder.clone();
    assert!(TcpStream::connect(address).is_ok(), "it answers while it runs");
    service.kill_and_restart();
    assert!(TcpStream::connect(address).is_ok(), "it answers at the same place after kill -9");
    drop(service);
    assert!(TcpStream::connect(address).is_err(), "it still listens on {address}");
    assert!(!folder.exists(), "{} is still there", folder.display());
}
