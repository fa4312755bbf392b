//! The functions of `pipelines/udfs`, through `playhead sql`: the vectors that Arroyo's plugin gets too.
//!
//! `tests/interop/compile_udfs.sh` runs the same file against each function compiled alone.

use std::path::Path;

use mmdb_writer::ipnet::IpNet;
use mmdb_writer::{Value as Record, Writer};
use serde_json::Value;

use crate::support::{Bench, KEY};

const VECTORS: &str = include_str!("../udfs/vectors.json");
/// Two networks with country, ISP and ASN in one file; small enough to be kept in the repository.
const NETWORKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/udfs/network.mmdb");

/// A bench whose commands know the networks and the key.
fn bench() -> Bench {
    let mut bench = Bench::new();
    for kind in ["CITY", "ISP", "ASN"] {
        bench.set_variable(&format!("PLAYHEAD_{kind}_MMDB"), NETWORKS);
    }
    bench.set_variable("PLAYHEAD_PSEUDONYM_KEY", KEY);
    bench
}

/// A value as SQL of that type.
fn literal(value: &Value, sql_type: &str) -> String {
    match (value, sql_type) {
        (Value::Null, "bytea") => "arrow_cast(NULL, 'Binary')".to_string(),
        (Value::Null, sql_type) => format!("CAST(NULL AS {sql_type})"),
        (Value::String(hex), "bytea") => format!("X'{hex}'"),
        (Value::String(text), _) => format!("'{}'", text.replace('\'', "''")),
        (number, sql_type) => format!("CAST('{number}' AS {sql_type})"),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn call(name: &str, function: &Value, vector: &Value) -> String {
    let types: Vec<&str> = list(&function["takes"]).iter().map(|name| name.as_str().expect("a type")).collect();
    let arguments = list(&vector["arguments"]);
    if !function["aggregate"].as_bool().unwrap_or(false) {
        let arguments: Vec<String> = arguments.iter().zip(&types).map(|(value, of)| literal(value, of)).collect();
        return format!("SELECT {name}({}) AS answer", arguments.join(", "));
    }
    let columns: Vec<String> = (0..types.len()).map(|at| format!("c{at}")).collect();
    let row = |row: usize| {
        let values = arguments.iter().zip(&types).map(|(column, of)| literal(&column[row], of));
        format!("({})", values.collect::<Vec<_>>().join(", "))
    };
    let rows: Vec<String> = (0..list(&arguments[0]).len()).map(row).collect();
    let columns = columns.join(", ");
    format!(
        "SELECT {name}({columns}) AS answer FROM (VALUES {}) AS t({columns})",
        rows.join(", ")
    )
}

#[test]
fn every_function_answers_its_vectors() {
    let bench = bench();
    let functions: Value = serde_json::from_str(VECTORS).expect("JSON");
    let functions = functions.as_object().expect("an object");
    for (name, function) in functions {
        let vectors = list(&function["vectors"]);
        let calls: Vec<String> = vectors.iter().map(|vector| format!("({})", call(name, function, vector))).collect();
        let columns: Vec<String> = calls.iter().enumerate().map(|(at, call)| format!("{call} AS v{at}")).collect();
        let answers = bench.sql(&format!("SELECT {}", columns.join(", ")));
        for (at, vector) in vectors.iter().enumerate() {
            let answer = answers[0].get(format!("v{at}")).unwrap_or(&Value::Null);
            assert_eq!(*answer, vector["gives"], "{name}{}", vector["arguments"]);
        }
    }
}

#[test]
fn every_file_has_vectors() {
    let functions: Value = serde_json::from_str(VECTORS).expect("JSON");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/udfs");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| {
            entry
                .expect("an entry")
                .path()
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    files.sort();
    let with_vectors: Vec<&String> = functions.as_object().expect("an object").keys().collect();
    assert_eq!(files.iter().collect::<Vec<_>>(), with_vectors);
}

#[test]
fn without_a_file_or_a_key_nothing_is_told_and_nothing_let_through() {
    let answers = Bench::new().sql("SELECT network_country('81.2.69.142') AS country, pseudonym('user-17') AS id");
    assert_eq!(answers[0].to_string(), r#"{"country":null,"id":null}"#);
}

fn record(code: &str, isp: &str, number: u32) -> Record {
    Record::map([
        ("autonomous_system_number", Record::from(number)),
        ("country", Record::map([("iso_code", Record::from(code))])),
        ("isp", Record::from(isp)),
    ])
}

#[test]
fn the_file_of_networks_is_what_this_writes() {
    let mut writer = Writer::builder("Playhead-Test")
        .build_epoch(std::time::SystemTime::UNIX_EPOCH)
        .description(&[("en", "made by tests/it/udfs.rs")])
        .build();
    for (network, record) in [
        ("81.2.69.0/24", record("GB", "Andrews & Arnold Ltd", 20712)),
        ("2001:db8::/32", record("DE", "Example Net", 64500)),
    ] {
        writer
            .insert_value(network.parse::<IpNet>().expect("a network"), record)
            .expect("room");
    }
    let bytes = writer.to_bytes().expect("bytes");
    assert!(
        std::fs::read(NETWORKS).is_ok_and(|found| found == bytes),
        "write these bytes to {NETWORKS}: {bytes:?}"
    );
}
