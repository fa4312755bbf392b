//! Edge code to city and country: `LHR50-C1` is London, GB.
//!
//! `enrich` asks here. CDNs name their points of presence by the IATA code of a near airport; the
//! table (`pops.csv`) holds the codes that CloudFront, Cloudflare, Fastly and Google use.
//!
//! Invariant: a code that is not in the table is `None`; no place is guessed.

use std::sync::LazyLock;

/// Code, city, country, latitude, longitude; ascending by code.
const TABLE: &str = include_str!("pops.csv");

/// Letters of an IATA code.
const CODE_LETTERS: usize = 3;

/// How the names of Fastly's cache servers begin: `cache-lcy-eglc8600042-LCY`.
const FASTLY_SERVER: &str = "cache-";

/// Where a point of presence stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pop {
    /// IATA code, upper case.
    pub code: &'static str,
    /// English name.
    pub city: &'static str,
    /// ISO 3166-1 alpha-2.
    pub country: &'static str,
    /// Of the airport, degrees north.
    pub latitude: f64,
    /// Of the airport, degrees east.
    pub longitude: f64,
}

/// The table, each line behind its code as a number; ascending, as the codes are.
static POPS: LazyLock<Vec<(u32, Pop)>> = LazyLock::new(|| {
    let pops = TABLE.lines().skip(1).map(read);
    pops.filter_map(|pop| Some((key(pop.code.as_bytes().first_chunk()?), pop)))
        .collect()
});

/// The place of an edge code: the letters before anything else (`LHR50-C1`, `LHR`, `fra-1`), in any
/// case. A code of more or fewer letters than three names no airport.
pub fn pop(code: &str) -> Option<&'static Pop> {
    let bytes = code.strip_prefix(FASTLY_SERVER).unwrap_or(code).as_bytes();
    let (letters, rest) = bytes.split_first_chunk::<CODE_LETTERS>()?;
    let is_whole = letters.iter().all(u8::is_ascii_alphabetic) && !rest.first().is_some_and(u8::is_ascii_alphabetic);
    if !is_whole {
        return None;
    }
    let at = POPS.binary_search_by_key(&key(letters), |(key, _)| *key).ok()?;
    POPS.get(at).map(|(_, pop)| pop)
}

/// Orders as upper case does.
fn key(code: &[u8; CODE_LETTERS]) -> u32 {
    let [a, b, c] = code.map(|letter| letter.to_ascii_uppercase());
    u32::from_be_bytes([0, a, b, c])
}

fn read(line: &'static str) -> Pop {
    let mut columns = line.split(',');
    let mut next = || columns.next().expect("a test reads every line of the table");
    Pop {
        code: next(),
        city: next(),
        country: next(),
        latitude: next().parse().expect("a test reads every line of the table"),
        longitude: next().parse().expect("a test reads every line of the table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: &str, expected: Option<(&str, &str)>) {
        assert_eq!(pop(code).map(|pop| (pop.city, pop.country)), expected, "{code}");
    }

    #[test]
    fn an_edge_code_is_its_airports_city() {
        let london = Some(("London", "GB"));
        for code in ["LHR50-C1", "LHR", "lhr", "LHR3", "Lhr-1", "cache-lcy-eglc8600042-LCY", "LCY"] {
            check(code, london);
        }
        check("fra-1", Some(("Frankfurt am Main", "DE")));
        check("BOM51-C1", Some(("Mumbai", "IN")));
        check("cache-bom18223", Some(("Mumbai", "IN")));
    }

    #[test]
    fn what_is_no_known_code_is_none() {
        for code in [
            "", "-", "L", "LH", "QQQ", "LHRX", "LHRX1", "50LHR", "é€LHR", "LHé", "cache-", "cache-lh",
        ] {
            check(code, None);
        }
    }

    #[test]
    fn the_table_is_whole_and_ascending() {
        assert_eq!(TABLE.lines().next(), Some("code,city,country,latitude,longitude"));
        assert!(POPS.is_sorted_by(|(a, _), (b, _)| a < b), "each code once, ascending");
        assert_eq!(POPS.len(), TABLE.lines().count() - 1);
        for (_, pop) in POPS.iter() {
            assert!(
                pop.code.len() == CODE_LETTERS && pop.code.bytes().all(|byte| byte.is_ascii_uppercase()),
                "{pop:?}"
            );
            assert!(
                pop.country.len() == 2 && pop.country.bytes().all(|byte| byte.is_ascii_uppercase()),
                "{pop:?}"
            );
            assert!(!pop.city.is_empty() && pop.city.trim() == pop.city, "{pop:?}");
            assert!(pop.latitude.abs() < 90.0 && pop.longitude.abs() <= 180.0, "{pop:?}");
        }
        assert!(TABLE.lines().all(|line| line.split(',').count() == 5));
    }

    /// Codes whose city CloudFront's list calls otherwise, and why ours stays.
    const DIFFERENT: [(&str, &str); 2] = [
        ("DOH", "that list names the country, Qatar"),
        ("TPE", "the airport lies in Taoyuan; the city it serves, and AWS names, is Taipei"),
    ];

    /// Against a public list of CloudFront's edge locations, when the folder with the foreign fixtures is there.
    #[test]
    fn every_cloudfront_location_is_known() {
        #[allow(clippy::disallowed_methods)] // Where the fixtures lie is no setting of the product.
        let folder =
            std::env::var("PLAYHEAD_FIXTURES").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures").to_owned());
        let path = std::path::Path::new(&folder).join("cloudfront-edge-locations/aws-edge-locations.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("skipped: no {}; set PLAYHEAD_FIXTURES", path.display());
            return;
        };
        let locations: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert!(locations.len() > 100);
        let mut different = Vec::new();
        for (code, location) in &locations {
            let known = pop(code).unwrap_or_else(|| panic!("{code} is not in pops.csv"));
            assert_eq!(location["countryCode"], known.country, "{code}");
            let apart = |field: &str, ours: f64| (location[field].as_f64().unwrap() - ours).abs();
            assert!(
                apart("latitude", known.latitude) < 0.3 && apart("longitude", known.longitude) < 0.3,
                "{code}"
            );
            if location["city"] != known.city {
                different.push(code.as_str());
            }
        }
        assert_eq!(different, DIFFERENT.map(|(code, _)| code));
    }
}
