//! The same questions over the wire, by a driver that shares no code with the endpoint: in text over the simple
//! protocol, as Grafana's backend sends them, and in binary over the extended one.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::support::Bench;

/// What the log says once SQL is answered.
const ANSWERING: &str = "answering SQL on postgres://";
/// A test machine may be busy with all the other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks each question, given with a name for messages, of `playhead serve` over the bench's lake.
pub fn every_question_is_answered(runtime: &tokio::runtime::Runtime, bench: &Bench, questions: &[(String, String)]) {
    let served = Served::over(bench);
    let client = runtime.block_on(connect(&served.address));
    for (name, text) in questions {
        let simple = answered(name, text, runtime.block_on(client.simple_query(text)));
        let rows = simple
            .iter()
            .filter(|message| matches!(message, SimpleQueryMessage::Row(_)))
            .count();
        let statement = answered(name, text, runtime.block_on(client.prepare(text)));
        for column in statement.columns() {
            assert!(is_drawable(column.type_()), "{name}: {} is {}", column.name(), column.type_());
        }
        let extended = answered(name, text, runtime.block_on(client.query(&statement, &[])));
        assert_eq!(rows, extended.len(), "{name}: rows in text and in binary");
    }
}

#[track_caller]
fn answered<T>(name: &str, text: &str, answer: Result<T, tokio_postgres::Error>) -> T {
    answer.unwrap_or_else(|error| panic!("{name}: {error:?}\n{text}"))
}

/// Grafana's data source makes frames of these, as far as our tables have them.
fn is_drawable(of: &Type) -> bool {
    let is_time = matches!(*of, Type::TIMESTAMPTZ | Type::TIMESTAMP);
    let is_number = matches!(*of, Type::INT4 | Type::INT8 | Type::FLOAT8 | Type::NUMERIC);
    is_time || is_number || matches!(*of, Type::TEXT | Type::VARCHAR | Type::BOOL)
}

struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn over(bench: &Bench) -> Served {
        let settings = bench.write("serve.yaml", "postgres: {listen: '127.0.0.1:0'}\n");
        let log = bench.path("serve.log");
        let mut command = bench.command(&["serve"]);
        command.arg("--settings").arg(settings).stdin(Stdio::null());
        command.stderr(std::fs::File::create(&log).expect("a file can be made"));
        let mut served = Served {
            child: command.spawn().expect("the binary starts"),
            address: String::new(),
        };
        let started = Instant::now();
        while served.address.is_empty() {
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            let has_ended = served.child.try_wait().expect("it is our child").is_some();
            assert!(!has_ended && started.elapsed() < PATIENCE, "it does not answer: {told}");
            if let Some((_, rest)) = told.split_once(ANSWERING)
                && let Some((place, _)) = rest.split_once("/playhead")
            {
                served.address = place.rsplit('@').next().unwrap_or(place).to_owned();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        served
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn connect(address: &str) -> Client {
    let (host, port) = address.rsplit_once(':').expect("an address and a port");
    let told = format!("host={host} port={port} user=playhead dbname=playhead");
    let (client, connection) = tokio_postgres::connect(&told, NoTls).await.expect("it lets us in");
    tokio::spawn(connection);
    client
}
