//! Look-ups against MaxMind's own test databases, and the source data that they were made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use playhead::enrich::network::{DatabaseKind, NetworkDatabases, NetworkLookup, UnusableDatabase};
use playhead::event::Network;
use serde_json::Value;

use crate::support::fixtures;

const BROKEN: &str = "GeoIP2-City-Test-Broken-Double-Format";

fn database(folder: &Path, name: &str) -> PathBuf {
    folder.join("test-data").join(name).with_extension("mmdb")
}

fn load(paths: &NetworkDatabases) -> NetworkLookup {
    let (lookup, complaints) = NetworkLookup::load(paths);
    assert!(complaints.is_empty(), "{complaints:?}");
    lookup
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// What a City or Country record of the source data says.
fn place(record: &Value) -> Network {
    Network {
        country: text(&record["country"]["iso_code"]),
        region: text(&record["subdivisions"][0]["iso_code"]),
        city: text(&record["city"]["names"]["en"]),
        ..Network::default()
    }
}

/// What an ASN or ISP record of the source data says.
fn carrier(record: &Value) -> Network {
    let names = ["isp", "autonomous_system_organization", "organization"];
    Network {
        asn: record["autonomous_system_number"].as_i64(),
        isp: names.iter().find_map(|name| text(&record[*name])),
        ..Network::default()
    }
}

/// Every network of the source data, by its first address. How many there were.
fn check_every_network(folder: &Path, kind: &str, expected: fn(&Value) -> Network, paths: &NetworkDatabases) -> usize {
    let lookup = load(paths);
    let source =
        std::fs::read_to_string(folder.join("source-data").join(kind).with_extension("json")).expect("the source data can be read");
    let networks: Vec<BTreeMap<String, Value>> = serde_json::from_str(&source).expect("the source data is a list of networks");
    let mut checked = 0;
    for (network, record) in networks.iter().flatten() {
        let (address, _) = network.split_once('/').expect("a network has a length");
        let address = address.parse().expect("a network has an address");
        for _ in ["worked out", "remembered"] {
            assert_eq!(*lookup.lookup(address), expected(record), "{network} of {kind}");
        }
        checked += 1;
    }
    assert!(lookup.asked().hits >= checked, "{:?}", lookup.asked());
    println!("{kind}: {checked} networks");
    usize::try_from(checked).expect("a list fits in memory")
}

#[test]
fn every_network_of_the_source_data_is_found() {
    let Some(folder) = fixtures("maxmind") else { return };
    let city = |name: &str| NetworkDatabases {
        city: Some(database(&folder, name)),
        ..NetworkDatabases::default()
    };
    let asn = NetworkDatabases {
        asn: Some(database(&folder, "GeoLite2-ASN-Test")),
        ..NetworkDatabases::default()
    };
    let isp = NetworkDatabases {
        isp: Some(database(&folder, "GeoIP2-ISP-Test")),
        ..NetworkDatabases::default()
    };
    let checked = [
        check_every_network(&folder, "GeoIP2-City-Test", place, &city("GeoIP2-City-Test")),
        check_every_network(&folder, "GeoIP2-Country-Test", place, &city("GeoIP2-Country-Test")),
        check_every_network(&folder, "GeoLite2-ASN-Test", carrier, &asn),
        check_every_network(&folder, "GeoIP2-ISP-Test", carrier, &isp),
    ];
    assert!(checked.iter().all(|networks| *networks > 100), "{checked:?}");
}

#[test]
fn one_answer_is_put_together_from_all_databases() {
    let Some(folder) = fixtures("maxmind") else { return };
    let lookup = load(&NetworkDatabases {
        city: Some(database(&folder, "GeoIP2-City-Test")),
        asn: Some(database(&folder, "GeoLite2-ASN-Test")),
        isp: Some(database(&folder, "GeoIP2-ISP-Test")),
    });
    let london = Network {
        country: Some("GB".to_owned()),
        region: Some("ENG".to_owned()),
        city: Some("London".to_owned()),
        asn: None,
        isp: Some("Andrews & Arnold Ltd".to_owned()),
    };
    let telstra = Network {
        asn: Some(1221),
        isp: Some("Telstra Internet".to_owned()),
        ..Network::default()
    };
    for (address, expected) in [
        ("81.2.69.160", &london),
        ("::ffff:81.2.69.160", &london),
        ("1.128.0.1", &telstra),
        ("10.0.0.1", &Network::default()),
        ("fe80::1", &Network::default()),
    ] {
        assert_eq!(&*lookup.lookup(address.parse().expect("an address")), expected, "{address}");
    }
}

#[test]
fn a_corrupt_database_is_refused_and_the_old_one_kept() {
    let Some(folder) = fixtures("maxmind") else { return };
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("city.mmdb");
    let whole = std::fs::read(database(&folder, "GeoIP2-City-Test")).expect("the database can be read");
    let broken = std::fs::read(database(&folder, BROKEN)).expect("the broken database can be read");
    let marker = whole
        .windows(14)
        .rposition(|window| window == b"\xab\xcd\xefMaxMind.com")
        .expect("a database ends so");
    let paths = NetworkDatabases {
        city: Some(path.clone()),
        ..NetworkDatabases::default()
    };
    // Each of a length of its own, or a change might not be seen within a tick of the clock.
    let corrupt: [(&str, Vec<u8>); 6] = [
        ("doubles of a wrong length", broken.clone()),
        ("cut in half", whole[..whole.len() / 2].to_vec()),
        ("without its end", whole[..marker].to_vec()),
        ("empty", Vec::new()),
        ("no database", b"<html>429 Too Many Requests</html>".to_vec()),
        (
            "records overwritten",
            [&whole[..marker / 2], &vec![0xff; marker - marker / 2 - 1], &whole[marker..]].concat(),
        ),
    ];
    for (how, bytes) in corrupt {
        std::fs::write(&path, &whole).expect("the folder can be written");
        let lookup = load(&paths);
        std::fs::write(&path, &bytes).expect("the folder can be written");
        let complaints = lookup.reload_changed();
        let [complaint] = &complaints[..] else {
            panic!("{how}: {complaints:?}")
        };
        assert_eq!((complaint.kind, complaint.keeps_old), (DatabaseKind::City, true), "{how}");
        let is_damaged = matches!(complaint.cause, UnusableDatabase::Damaged(_) | UnusableDatabase::Endless);
        assert!(is_damaged, "{how}: {complaint}");
        let said = complaint.to_string();
        assert!(
            said.contains("cannot use network.city") && said.contains("the file read before stays in use"),
            "{how}: {said}"
        );
        assert!(lookup.reload_changed().is_empty(), "{how}: said once");
        let london = lookup.lookup("81.2.69.160".parse().expect("an address"));
        assert_eq!(london.city.as_deref(), Some("London"), "{how}");
    }
    let (lookup, complaints) = NetworkLookup::load(&NetworkDatabases {
        city: Some(database(&folder, BROKEN)),
        ..NetworkDatabases::default()
    });
    assert!(!complaints[0].keeps_old, "{complaints:?}");
    assert_eq!(*lookup.lookup("81.2.69.160".parse().expect("an address")), Network::default());
}
