//! Address to country, region, city, ASN and ISP, from MaxMind DB files.
//!
//! `enrich` asks here while the full address is in memory. Understood are MaxMind's City and Country,
//! ASN and ISP editions (GeoLite2 and GeoIP2), and the flat form that DB-IP's data comes in
//! (`country_code`, `state1`, `city` as plain texts).
//!
//! Files are read into memory, not mapped: a mapped file that is replaced in place kills the process.
//! This is the one file access of the rules layer; it happens in `load` and `reload_changed`, never
//! in a look-up.
//!
//! Invariant: a file is used only after some of its records were decoded; a bad new file leaves the
//! old one in use.
//! Invariant: look-ups never fail; what is not known is `None`.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::event::Network;

/// Largest file read into memory: the largest edition sold is well under half of this.
const DATABASE_BYTES_MAX: u64 = 1 << 30;

/// Records decoded before a file is trusted, at least.
const SAMPLE_RECORDS_MIN: usize = 64;

/// Records looked at to find one that tells what the file is for; reserved networks come first and
/// hold nothing.
const SAMPLE_RECORDS_MAX: usize = 4096;

/// Where the database files lie; `None`: not used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkDatabases {
    /// A City or a Country edition.
    pub city: Option<PathBuf>,
    pub asn: Option<PathBuf>,
    pub isp: Option<PathBuf>,
}

/// Which of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    City,
    Asn,
    Isp,
}

impl DatabaseKind {
    /// The setting that names the file.
    pub fn setting(self) -> &'static str {
        match self {
            DatabaseKind::City => "network.city",
            DatabaseKind::Asn => "network.asn",
            DatabaseKind::Isp => "network.isp",
        }
    }

    fn told(self) -> &'static str {
        match self {
            DatabaseKind::City => "country, region and city",
            DatabaseKind::Asn => "ASN",
            DatabaseKind::Isp => "ISP",
        }
    }

    fn editions(self) -> &'static str {
        match self {
            DatabaseKind::City => "a City or Country edition",
            DatabaseKind::Asn => "an ASN edition",
            DatabaseKind::Isp => "an ISP edition",
        }
    }
}

/// A database file that cannot be used: what, where, what happens now and what to do.
#[derive(Debug)]
pub struct NetworkComplaint {
    pub kind: DatabaseKind,
    pub path: PathBuf,
    pub cause: UnusableDatabase,
    /// An older file was read before and stays in use.
    pub keeps_old: bool,
}

impl fmt::Display for NetworkComplaint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (setting, path) = (self.kind.setting(), self.path.display());
        write!(out, "cannot use {setting} {path}: {}; ", self.cause)?;
        match self.keeps_old {
            true => write!(out, "the file read before stays in use; ")?,
            false => write!(out, "{} stay empty unless the sender gives them; ", self.kind.told())?,
        }
        write!(out, "put {} (.mmdb) there, it is picked up while running", self.kind.editions())
    }
}

impl std::error::Error for NetworkComplaint {}

/// Why a database file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableDatabase {
    #[error("it does not exist")]
    Missing,
    #[error("it cannot be read ({0})")]
    Unreadable(io::Error),
    #[error("it has {bytes} bytes, more than the {DATABASE_BYTES_MAX} that are read into memory")]
    TooLarge { bytes: u64 },
    #[error("it is damaged or no MaxMind DB ({0})")]
    Damaged(MaxMindDbError),
    #[error("it is a {edition}, whose records tell nothing of the kind")]
    OtherContent { edition: String },
}

impl From<io::Error> for UnusableDatabase {
    fn from(error: io::Error) -> UnusableDatabase {
        match error.kind() {
            io::ErrorKind::NotFound => UnusableDatabase::Missing,
            _ => UnusableDatabase::Unreadable(error),
        }
    }
}

/// The databases in memory; shared by all threads that decode.
#[derive(Debug, Default)]
pub struct NetworkLookup {
    city: Option<Database>,
    asn: Option<Database>,
    isp: Option<Database>,
}

impl NetworkLookup {
    /// Reads the files. One that cannot be used is complained about, and looked for again by
    /// `reload_changed`.
    pub fn load(paths: &NetworkDatabases) -> (NetworkLookup, Vec<NetworkComplaint>) {
        let database = |kind, path: &Option<PathBuf>| Some(Database::new(kind, path.clone()?));
        let lookup = NetworkLookup {
            city: database(DatabaseKind::City, &paths.city),
            asn: database(DatabaseKind::Asn, &paths.asn),
            isp: database(DatabaseKind::Isp, &paths.isp),
        };
        let complaints = lookup.reload_changed();
        (lookup, complaints)
    }

    /// Reads the files whose modification time or length has changed. A file that is missing or
    /// unusable is complained about once, and the one read before stays in use.
    pub fn reload_changed(&self) -> Vec<NetworkComplaint> {
        [&self.city, &self.asn, &self.isp]
            .into_iter()
            .flatten()
            .filter_map(Database::reload_if_changed)
            .collect()
    }

    /// What the databases know of `address`. The ISP is that of the ISP database, else the
    /// organisation that the ASN belongs to.
    pub fn lookup(&self, address: IpAddr) -> Network {
        let place = self.city.as_ref().and_then(|database| database.place(address));
        let carrier = |database: &Option<Database>| database.as_ref().and_then(|database| database.carrier(address)).unwrap_or_default();
        let (by_asn, by_isp) = (carrier(&self.asn), carrier(&self.isp));
        Network {
            asn: by_asn.asn.or(by_isp.asn),
            isp: by_isp.isp.or(by_asn.isp).or(by_asn.organisation).or(by_isp.organisation),
            ..place.unwrap_or_default()
        }
    }
}

/// One file, and the newest usable content of it.
#[derive(Debug)]
struct Database {
    kind: DatabaseKind,
    path: PathBuf,
    reader: RwLock<Option<Reader<Vec<u8>>>>,
    seen: Mutex<Seen>,
}

/// How the file looked when it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    NotYet,
    Absent,
    Present { modified_at: Option<SystemTime>, bytes: u64 },
}

impl Database {
    fn new(kind: DatabaseKind, path: PathBuf) -> Database {
        Database {
            kind,
            path,
            reader: RwLock::new(None),
            seen: Mutex::new(Seen::NotYet),
        }
    }

    fn reload_if_changed(&self) -> Option<NetworkComplaint> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = look_at(&self.path);
        let now = *found.as_ref().unwrap_or(&Seen::Absent);
        if now == *seen {
            return None;
        }
        *seen = now;
        match found.and_then(|_| read_database(self.kind, &self.path)) {
            Ok(reader) => {
                *self.reader.write().unwrap_or_else(PoisonError::into_inner) = Some(reader);
                None
            }
            Err(cause) => Some(NetworkComplaint {
                kind: self.kind,
                path: self.path.clone(),
                cause,
                keeps_old: self.reader.read().unwrap_or_else(PoisonError::into_inner).is_some(),
            }),
        }
    }

    fn place(&self, address: IpAddr) -> Option<Network> {
        let reader = self.reader.read().unwrap_or_else(PoisonError::into_inner);
        let record: PlaceRecord<'_> = record(reader.as_ref()?, address)?;
        Some(record.place())
    }

    fn carrier(&self, address: IpAddr) -> Option<Carrier> {
        let reader = self.reader.read().unwrap_or_else(PoisonError::into_inner);
        let record: CarrierRecord<'_> = record(reader.as_ref()?, address)?;
        Some(record.carrier())
    }
}

/// The record of `address`. `None`: there is none, it is damaged, or the file knows IPv4 alone.
fn record<'a, R: Deserialize<'a>>(reader: &'a Reader<Vec<u8>>, address: IpAddr) -> Option<R> {
    reader.lookup(address).ok()?.decode().ok()?
}

fn look_at(path: &Path) -> Result<Seen, UnusableDatabase> {
    let metadata = std::fs::metadata(path)?;
    Ok(Seen::Present {
        modified_at: metadata.modified().ok(),
        bytes: metadata.len(),
    })
}

fn read_database(kind: DatabaseKind, path: &Path) -> Result<Reader<Vec<u8>>, UnusableDatabase> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > DATABASE_BYTES_MAX {
        return Err(UnusableDatabase::TooLarge { bytes });
    }
    let reader = Reader::from_source(std::fs::read(path)?).map_err(UnusableDatabase::Damaged)?;
    let tells_something = match kind {
        DatabaseKind::City => sample(&reader, |record: PlaceRecord<'_>| record.place().country.is_some()),
        DatabaseKind::Asn => sample(&reader, |record: CarrierRecord<'_>| record.carrier().asn.is_some()),
        DatabaseKind::Isp => sample(&reader, |record: CarrierRecord<'_>| record.carrier().isp.is_some()),
    };
    if tells_something.map_err(UnusableDatabase::Damaged)? {
        return Ok(reader);
    }
    Err(UnusableDatabase::OtherContent {
        edition: reader.metadata().database_type.clone(),
    })
}

/// Decodes some records. False: not one of them tells anything.
fn sample<'a, R: Deserialize<'a>>(reader: &'a Reader<Vec<u8>>, tells: impl Fn(R) -> bool) -> Result<bool, MaxMindDbError> {
    let mut tells_something = false;
    for (at, network) in reader.networks(Default::default())?.take(SAMPLE_RECORDS_MAX).enumerate() {
        let record: Option<R> = network?.decode()?;
        tells_something |= record.is_some_and(&tells);
        if tells_something && at >= SAMPLE_RECORDS_MIN {
            break;
        }
    }
    Ok(tells_something)
}

/// A record of a City or Country edition, nested (MaxMind) or flat (DB-IP).
#[derive(Deserialize)]
struct PlaceRecord<'a> {
    #[serde(borrow, default)]
    country: Option<Coded<'a>>,
    #[serde(borrow, default)]
    country_code: Option<&'a str>,
    #[serde(borrow, default)]
    subdivisions: Vec<Coded<'a>>,
    #[serde(borrow, default)]
    state1: Option<&'a str>,
    #[serde(borrow, default)]
    city: Option<CityName<'a>>,
}

#[derive(Deserialize)]
struct Coded<'a> {
    #[serde(borrow, default)]
    iso_code: Option<&'a str>,
}

impl PlaceRecord<'_> {
    fn place(&self) -> Network {
        let country = self.country.as_ref().and_then(|country| country.iso_code);
        let subdivision = self.subdivisions.first().and_then(|subdivision| subdivision.iso_code);
        Network {
            country: text(country.or(self.country_code)).map(|code| code.to_ascii_uppercase()),
            region: text(subdivision.or(self.state1)),
            city: text(self.city.as_ref().and_then(|city| city.0)),
            ..Network::default()
        }
    }
}

/// The English name of a city: a map of names in MaxMind's files, a plain text in DB-IP's.
struct CityName<'a>(Option<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for CityName<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CityNameVisitor)
    }
}

struct CityNameVisitor;

impl<'de> Visitor<'de> for CityNameVisitor {
    type Value = CityName<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a city name or a map with names")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(CityName(Some(name)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut city: A) -> Result<Self::Value, A::Error> {
        let mut english = None;
        while let Some(key) = city.next_key::<&str>()? {
            if key == "names" {
                english = city.next_value::<Names<'de>>()?.en;
            } else {
                city.next_value::<IgnoredAny>()?;
            }
        }
        Ok(CityName(english))
    }
}

#[derive(Deserialize)]
struct Names<'a> {
    #[serde(borrow, default)]
    en: Option<&'a str>,
}

/// A record of an ASN edition (the first two) or an ISP edition (all).
#[derive(Deserialize)]
struct CarrierRecord<'a> {
    #[serde(default)]
    autonomous_system_number: Option<u32>,
    #[serde(borrow, default)]
    autonomous_system_organization: Option<&'a str>,
    #[serde(borrow, default)]
    isp: Option<&'a str>,
    #[serde(borrow, default)]
    organization: Option<&'a str>,
}

#[derive(Default)]
struct Carrier {
    asn: Option<i64>,
    isp: Option<String>,
    organisation: Option<String>,
}

impl CarrierRecord<'_> {
    fn carrier(&self) -> Carrier {
        Carrier {
            asn: self.autonomous_system_number.map(i64::from),
            isp: text(self.isp),
            organisation: text(self.autonomous_system_organization).or_else(|| text(self.organization)),
        }
    }
}

fn text(value: Option<&str>) -> Option<String> {
    value.map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned)
}

/// Small databases of our own making.
#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use mmdb_writer::{Value, Writer, ipnet::IpNet};

    pub fn write(path: &Path, edition: &str, records: &[(&str, Value)]) {
        let mut writer = Writer::builder(edition)
            .build_epoch(SystemTime::UNIX_EPOCH)
            .description(&[("en", "made by a test")])
            .build();
        for (network, record) in records {
            let network: IpNet = network.parse().unwrap();
            writer.insert_value(network, record.clone()).unwrap();
        }
        std::fs::write(path, writer.to_bytes().unwrap()).unwrap();
    }

    pub fn city(country: &str, region: &str, name: &str) -> Value {
        let names = |name: &str| Value::map([("names", Value::map([("en", Value::from(name))]))]);
        let coded = |code: &str| Value::map([("iso_code", Value::from(code))]);
        Value::map([
            ("city", names(name)),
            ("country", coded(country)),
            ("location", Value::map([("latitude", Value::from(51.5))])),
            ("subdivisions", Value::array([coded(region)])),
        ])
    }

    pub fn asn(number: u32, organisation: &str) -> Value {
        Value::map([
            ("autonomous_system_number", Value::from(number)),
            ("autonomous_system_organization", Value::from(organisation)),
        ])
    }

    /// 203.0.113.0/24 is London on Example Cable, 198.51.100.0/24 is Springfield.
    pub fn databases(folder: &Path) -> NetworkDatabases {
        let (city_path, asn_path) = (folder.join("city.mmdb"), folder.join("asn.mmdb"));
        let places = [
            ("203.0.113.0/24", city("gb", "ENG", "London")),
            ("198.51.100.0/24", city("US", "IL", "Springfield")),
        ];
        write(&city_path, "GeoLite2-City", &places);
        write(&asn_path, "GeoLite2-ASN", &[("203.0.113.0/24", asn(64500, "Example Cable"))]);
        NetworkDatabases {
            city: Some(city_path),
            asn: Some(asn_path),
            isp: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{asn, city, databases, write};
    use super::*;
    use mmdb_writer::Value;
    use std::collections::BTreeMap;

    /// country/region/city/asn/isp, `-` where nothing is known.
    fn shown(lookup: &NetworkLookup, address: &str) -> String {
        let Network {
            country,
            region,
            city,
            asn,
            isp,
        } = lookup.lookup(address.parse().unwrap());
        [country, region, city, asn.map(|asn| asn.to_string()), isp]
            .map(|part| part.unwrap_or_else(|| "-".to_owned()))
            .join("/")
    }

    fn load(paths: &NetworkDatabases) -> NetworkLookup {
        let (lookup, complaints) = NetworkLookup::load(paths);
        assert!(complaints.is_empty(), "{complaints:?}");
        lookup
    }

    #[test]
    fn an_address_has_a_place_and_a_carrier() {
        let folder = tempfile::tempdir().unwrap();
        let lookup = load(&databases(folder.path()));
        assert_eq!(shown(&lookup, "203.0.113.77"), "GB/ENG/London/64500/Example Cable");
        assert_eq!(shown(&lookup, "::ffff:203.0.113.77"), "GB/ENG/London/64500/Example Cable");
        assert_eq!(shown(&lookup, "2002:cb00:714d::1"), "GB/ENG/London/64500/Example Cable");
        assert_eq!(shown(&lookup, "198.51.100.9"), "US/IL/Springfield/-/-");
        assert_eq!(shown(&lookup, "192.0.2.1"), "-/-/-/-/-");
        assert_eq!(shown(&lookup, "::1"), "-/-/-/-/-");
    }

    #[test]
    fn the_isp_is_the_isp_editions_else_the_organisation_of_the_asn() {
        let folder = tempfile::tempdir().unwrap();
        let mut paths = databases(folder.path());
        let isp_path = folder.path().join("isp.mmdb");
        let with_isp = Value::map([
            ("autonomous_system_number", Value::from(64501u32)),
            ("isp", Value::from("Brand of the Cable")),
            ("organization", Value::from("A Customer")),
        ]);
        let without = asn(64502, "Another Organisation");
        write(
            &isp_path,
            "GeoIP2-ISP",
            &[("203.0.113.0/24", with_isp), ("198.51.100.0/24", without)],
        );
        paths.isp = Some(isp_path);
        let lookup = load(&paths);
        assert_eq!(shown(&lookup, "203.0.113.77"), "GB/ENG/London/64500/Brand of the Cable");
        assert_eq!(shown(&lookup, "198.51.100.9"), "US/IL/Springfield/64502/Another Organisation");
        paths.asn = None;
        assert_eq!(shown(&load(&paths), "203.0.113.77"), "GB/ENG/London/64501/Brand of the Cable");
    }

    #[test]
    fn a_flat_record_is_read_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flat.mmdb");
        let flat = Value::map([
            ("city", Value::from("London")),
            ("country_code", Value::from("GB")),
            ("latitude", Value::from(51.5f32)),
            ("state1", Value::from("England")),
            ("state2", Value::from("")),
        ]);
        write(&path, "DBIP-City", &[("203.0.113.0/24", flat)]);
        let paths = NetworkDatabases {
            city: Some(path),
            ..NetworkDatabases::default()
        };
        assert_eq!(shown(&load(&paths), "203.0.113.77"), "GB/England/London/-/-");
    }

    fn complaint_of(complaints: &[NetworkComplaint], folder: &Path) -> String {
        let [complaint] = complaints else {
            panic!("one complaint, not {complaints:?}");
        };
        complaint.to_string().replace(&folder.display().to_string(), "/db")
    }

    #[test]
    fn a_missing_file_is_said_once_and_picked_up_when_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later.mmdb");
        let paths = NetworkDatabases {
            city: Some(path.clone()),
            ..NetworkDatabases::default()
        };
        let (lookup, complaints) = NetworkLookup::load(&paths);
        assert_eq!(
            complaint_of(&complaints, folder.path()),
            "cannot use network.city /db/later.mmdb: it does not exist; country, region and city stay empty unless the sender gives them; put a City or Country edition (.mmdb) there, it is picked up while running"
        );
        assert!(lookup.reload_changed().is_empty());
        assert_eq!(shown(&lookup, "203.0.113.77"), "-/-/-/-/-");
        write(&path, "GeoLite2-City", &[("203.0.113.0/24", city("GB", "ENG", "London"))]);
        assert!(lookup.reload_changed().is_empty());
        assert_eq!(shown(&lookup, "203.0.113.77"), "GB/ENG/London/-/-");
    }

    #[test]
    fn a_new_file_is_taken_and_a_bad_one_leaves_the_old_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let paths = databases(folder.path());
        let path = paths.city.clone().unwrap();
        let lookup = load(&paths);
        write(&path, "GeoLite2-City", &[("203.0.113.0/24", city("GB", "SCT", "Edinburgh"))]);
        assert!(lookup.reload_changed().is_empty());
        assert_eq!(shown(&lookup, "203.0.113.77"), "GB/SCT/Edinburgh/64500/Example Cable");

        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let complaint = complaint_of(&lookup.reload_changed(), folder.path());
        assert!(
            complaint.starts_with("cannot use network.city /db/city.mmdb: it is damaged or no MaxMind DB ("),
            "{complaint}"
        );
        assert!(complaint.contains("; the file read before stays in use; "), "{complaint}");
        assert!(lookup.reload_changed().is_empty(), "said once");

        std::fs::remove_file(&path).unwrap();
        let complaint = complaint_of(&lookup.reload_changed(), folder.path());
        assert!(
            complaint.contains("it does not exist; the file read before stays in use"),
            "{complaint}"
        );
        assert_eq!(shown(&lookup, "203.0.113.77"), "GB/SCT/Edinburgh/64500/Example Cable");

        std::fs::write(&path, &whole).unwrap();
        assert!(lookup.reload_changed().is_empty());
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut paths = databases(folder.path());
        paths.city = paths.asn.take();
        let (_, complaints) = NetworkLookup::load(&paths);
        let complaint = complaint_of(&complaints, folder.path());
        assert!(
            complaint.contains("it is a GeoLite2-ASN, whose records tell nothing of the kind"),
            "{complaint}"
        );
    }

    #[test]
    fn no_file_and_garbage_are_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.mmdb");
        let marker = b"\xab\xcd\xefMaxMind.com".to_vec();
        for bytes in [
            Vec::new(),
            vec![0; 5000],
            marker.clone(),
            [vec![255; 500], marker, vec![224; 50]].concat(),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let paths = NetworkDatabases {
                isp: Some(path.clone()),
                ..NetworkDatabases::default()
            };
            assert_eq!(NetworkLookup::load(&paths).1.len(), 1);
        }
        assert_eq!(shown(&NetworkLookup::default(), "203.0.113.77"), "-/-/-/-/-");
    }

    /// MaxMind's own test files, when the folder with the foreign fixtures is there.
    fn maxmind(file: &str) -> Option<PathBuf> {
        #[allow(clippy::disallowed_methods)] // Where the fixtures lie is no setting of the product.
        let folder =
            std::env::var("PLAYHEAD_FIXTURES").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures").to_owned());
        let path = Path::new(&folder).join("maxmind").join(file);
        if !path.exists() {
            eprintln!("skipped: {} is not there (PLAYHEAD_FIXTURES)", path.display());
            return None;
        }
        Some(path)
    }

    #[test]
    fn maxminds_own_examples_come_out() {
        let Some(city) = maxmind("test-data/GeoIP2-City-Test.mmdb") else {
            return;
        };
        let paths = NetworkDatabases {
            city: Some(city),
            asn: maxmind("test-data/GeoLite2-ASN-Test.mmdb"),
            isp: maxmind("test-data/GeoIP2-ISP-Test.mmdb"),
        };
        let lookup = load(&paths);
        let london = "GB/ENG/London/-/Andrews & Arnold Ltd";
        assert_eq!(shown(&lookup, "81.2.69.160"), london);
        assert_eq!(shown(&lookup, "::ffff:81.2.69.160"), london);
        assert_eq!(shown(&lookup, "1.128.0.1"), "-/-/-/1221/Telstra Internet");
        assert_eq!(shown(&lookup, "10.0.0.1"), "-/-/-/-/-");
        let country = NetworkDatabases {
            city: maxmind("test-data/GeoIP2-Country-Test.mmdb"),
            ..NetworkDatabases::default()
        };
        assert_eq!(shown(&load(&country), "81.2.69.160"), "GB/-/-/-/-");
    }

    #[test]
    fn maxminds_broken_file_is_refused_without_a_panic() {
        let Some(broken) = maxmind("test-data/GeoIP2-City-Test-Broken-Double-Format.mmdb") else {
            return;
        };
        let paths = NetworkDatabases {
            city: Some(broken),
            ..NetworkDatabases::default()
        };
        let (lookup, complaints) = NetworkLookup::load(&paths);
        assert!(matches!(complaints[0].cause, UnusableDatabase::Damaged(_)), "{complaints:?}");
        assert_eq!(shown(&lookup, "81.2.69.160"), "-/-/-/-/-");
    }

    /// Every network of MaxMind's source data gives what the source data says.
    #[test]
    fn every_network_of_the_source_data_is_found() {
        let check = |kind: &str, told: fn(&serde_json::Value) -> [serde_json::Value; 5], paths: NetworkDatabases| {
            let Some(source) = maxmind(&format!("source-data/{kind}.json")) else {
                return;
            };
            let lookup = load(&paths);
            let source = std::fs::read_to_string(source).unwrap();
            let networks: Vec<BTreeMap<String, serde_json::Value>> = serde_json::from_str(&source).unwrap();
            for (network, record) in networks.iter().flatten() {
                let (address, _) = network.split_once('/').unwrap();
                let expected = told(record).map(|part| match part {
                    serde_json::Value::Null => "-".to_owned(),
                    serde_json::Value::String(text) => text,
                    other => other.to_string(),
                });
                assert_eq!(shown(&lookup, address), expected.join("/"), "{network} of {kind}");
            }
        };
        let only = |city: Option<PathBuf>, asn, isp| NetworkDatabases { city, asn, isp };
        let place: fn(&serde_json::Value) -> [serde_json::Value; 5] = |record| {
            [
                record["country"]["iso_code"].clone(),
                record["subdivisions"][0]["iso_code"].clone(),
                record["city"]["names"]["en"].clone(),
                serde_json::Value::Null,
                serde_json::Value::Null,
            ]
        };
        let carrier: fn(&serde_json::Value) -> [serde_json::Value; 5] = |record| {
            let isp = ["isp", "autonomous_system_organization", "organization"]
                .map(|key| record[key].clone())
                .into_iter()
                .find(|isp| !isp.is_null())
                .unwrap_or_default();
            let nothing = serde_json::Value::Null;
            [
                nothing.clone(),
                nothing.clone(),
                nothing,
                record["autonomous_system_number"].clone(),
                isp,
            ]
        };
        check(
            "GeoIP2-City-Test",
            place,
            only(maxmind("test-data/GeoIP2-City-Test.mmdb"), None, None),
        );
        check(
            "GeoIP2-Country-Test",
            place,
            only(maxmind("test-data/GeoIP2-Country-Test.mmdb"), None, None),
        );
        check(
            "GeoLite2-ASN-Test",
            carrier,
            only(None, maxmind("test-data/GeoLite2-ASN-Test.mmdb"), None),
        );
        check(
            "GeoIP2-ISP-Test",
            carrier,
            only(None, None, maxmind("test-data/GeoIP2-ISP-Test.mmdb")),
        );
    }
}
