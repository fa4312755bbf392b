//! What an address tells before it is cut: country, city, ASN and ISP from MaxMind's own test files.

use crate::support::{Bench, fixtures};

const VIEWERS: &str = r#"{"MetricType":"PLAY","at":0,"user_id":"u1","video_id":"v","TimeStamp":1588752000000,"client_ip":"81.2.69.142"}
{"MetricType":"PLAY","at":0,"user_id":"u2","video_id":"v","TimeStamp":1588752000001,"client_ip":"2001:218::1"}
{"MetricType":"PLAY","at":0,"user_id":"u3","video_id":"v","TimeStamp":1588752000002,"client_ip":"1.128.0.1"}
{"MetricType":"PLAY","at":0,"user_id":"u4","video_id":"v","TimeStamp":1588752000003,"client_ip":"192.0.2.1"}
"#;

fn seen(settings: &str) -> Option<(Bench, String)> {
    let databases = fixtures("maxmind")?.join("test-data");
    let databases = databases.display();
    let bench = Bench::new();
    let viewers = bench.write("viewers.ndjson", VIEWERS);
    let settings = bench.write("playhead.yaml", settings.replace("DATABASES", &databases.to_string()));
    let path = |path: &std::path::Path| path.to_str().expect("a plain path").to_string();
    let output = bench.run(&["ingest", "--settings", &path(&settings), &path(&viewers)]);
    assert!(output.status.success(), "a database never stops an ingest");
    Some((bench, String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn the_full_address_is_looked_up_before_it_is_cut() {
    let settings = "network:\n  city: DATABASES/GeoIP2-City-Test.mmdb\n  asn: DATABASES/GeoLite2-ASN-Test.mmdb\n  isp: DATABASES/GeoIP2-ISP-Test.mmdb\n";
    let Some((bench, _)) = seen(settings) else { return };
    for table in ["bronze.player_events", "silver.player_events"] {
        let rows = bench.sql(&format!(
            "SELECT client_prefix, country, region, city, asn, isp FROM {table} ORDER BY event_ts"
        ));
        let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
        assert_eq!(
            rows,
            [
                r#"{"asn":null,"city":"London","client_prefix":"81.2.69.0","country":"GB","isp":null,"region":"ENG"}"#,
                r#"{"asn":null,"city":null,"client_prefix":"2001:218::","country":"JP","isp":null,"region":null}"#,
                r#"{"asn":1221,"city":null,"client_prefix":"1.128.0.0","country":null,"isp":"Telstra Internet","region":null}"#,
                r#"{"asn":null,"city":null,"client_prefix":"192.0.2.0","country":null,"isp":null,"region":null}"#,
            ],
            "{table}"
        );
    }
}

#[test]
fn a_missing_or_damaged_database_is_named_once_and_stops_nothing() {
    let settings = "network:\n  city: DATABASES/not-there.mmdb\n  asn: DATABASES/GeoIP2-City-Test-Broken-Double-Format.mmdb\n";
    let Some((bench, said)) = seen(settings) else { return };
    assert_eq!(bench.int("SELECT count(*) FROM silver.player_events WHERE country IS NULL"), 4);
    for name in ["not-there.mmdb", "GeoIP2-City-Test-Broken-Double-Format.mmdb"] {
        assert_eq!(said.matches(name).count(), 1, "{name} in: {said}");
    }
}

#[test]
fn without_a_database_one_warning_says_what_is_missing() {
    let Some((_, said)) = seen("log: {level: info}\n") else { return };
    assert_eq!(said.matches("no network database is set").count(), 1, "{said}");
}
