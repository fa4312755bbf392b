//! Address to country, region, city, ASN and ISP, from MaxMind DB files.
//!
//! `enrich` asks here while the full address is in memory. Understood are MaxMind's City and Country,
//! ASN and ISP editions (GeoLite2 and GeoIP2), and the flat form that DB-IP's data comes in
//! (`country_code`, `state1`, `city` as plain texts).
//!
//! Files are read in `load` and `reload_changed`, never in a look-up.
//!
//! Invariant: a file is used only after every record of it was decoded; a bad new file leaves the
//! old one in use.
//! Invariant: look-ups never fail; what is not known is `None`.
//! Invariant: memory is bounded, and no answer of an old file is given once a new one is in use.

mod database;
mod record;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use database::Database;
pub use database::UnusableDatabase;

use super::remembered::{Asked, Remembered};
use super::watched::LookedAt;
use crate::event::Network;

/// Addresses remembered in a generation: viewers ask every few seconds, so those of an evening come
/// back soon. With long names both generations hold 20 MiB.
const REMEMBERED_MAX: usize = 32_768;

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

/// The databases in memory, and what they told of late; shared by all threads that decode.
#[derive(Debug)]
pub struct NetworkLookup {
    city: Option<Database>,
    asn: Option<Database>,
    isp: Option<Database>,
    remembered: Remembered<IpAddr, Arc<Network>>,
    nothing: Arc<Network>,
}

impl Default for NetworkLookup {
    fn default() -> NetworkLookup {
        NetworkLookup {
            city: None,
            asn: None,
            isp: None,
            remembered: Remembered::new(REMEMBERED_MAX),
            nothing: Arc::default(),
        }
    }
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
            ..NetworkLookup::default()
        };
        let complaints = lookup.reload_changed();
        (lookup, complaints)
    }

    /// Reads the files whose modification time or length has changed. A file that is missing or
    /// unusable is complained about once, and the one read before stays in use.
    pub fn reload_changed(&self) -> Vec<NetworkComplaint> {
        let databases = [&self.city, &self.asn, &self.isp].into_iter().flatten();
        let mut complaints = Vec::new();
        let mut is_replaced = false;
        for database in databases {
            match database.reload_if_changed() {
                LookedAt::Unchanged => {}
                LookedAt::Replaced => is_replaced = true,
                LookedAt::Refused { cause, keeps_old } => complaints.push(database.complaint(cause, keeps_old)),
            }
        }
        if is_replaced {
            self.remembered.forget_all();
        }
        complaints
    }

    /// What the databases know of `address`. The ISP is that of the ISP database, else the
    /// organisation that the ASN belongs to.
    pub fn lookup(&self, address: IpAddr) -> Arc<Network> {
        if self.city.is_none() && self.asn.is_none() && self.isp.is_none() {
            return Arc::clone(&self.nothing);
        }
        self.remembered.answer(&address, || Arc::new(self.read(address)))
    }

    /// How often the memory of addresses knew the answer; nothing is counted without a database.
    pub fn asked(&self) -> Asked {
        self.remembered.asked()
    }

    fn read(&self, address: IpAddr) -> Network {
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

/// Small databases of our own making.
#[cfg(test)]
pub(super) mod testing {
    use std::path::Path;
    use std::time::SystemTime;

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
    use std::path::Path;

    use super::testing::{asn, city, databases, write};
    use super::*;
    use mmdb_writer::Value;

    /// country/region/city/asn/isp, `-` where nothing is known.
    fn shown(lookup: &NetworkLookup, address: &str) -> String {
        let Network {
            country,
            region,
            city,
            asn,
            isp,
        } = Network::clone(&lookup.lookup(address.parse().unwrap()));
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
    fn what_was_looked_up_is_remembered_until_a_new_file_comes() {
        let folder = tempfile::tempdir().unwrap();
        let paths = databases(folder.path());
        let lookup = load(&paths);
        for _ in 0..3 {
            assert_eq!(shown(&lookup, "203.0.113.77"), "GB/ENG/London/64500/Example Cable");
        }
        let asked = |hits, misses| Asked { hits, misses };
        assert_eq!(lookup.asked(), asked(2, 1));
        write(
            &paths.city.unwrap(),
            "GeoLite2-City",
            &[("203.0.113.0/24", city("GB", "SCT", "Edinburgh"))],
        );
        assert!(lookup.reload_changed().is_empty());
        assert_eq!(shown(&lookup, "203.0.113.77"), "GB/SCT/Edinburgh/64500/Example Cable");
        assert_eq!(lookup.asked(), asked(2, 2));
        shown(&NetworkLookup::default(), "203.0.113.77");
        assert_eq!(NetworkLookup::default().asked(), asked(0, 0));
    }

    /// Whatever is done to a file, it is refused or used, and a look-up answers.
    #[test]
    fn no_damage_to_a_file_is_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let paths = databases(folder.path());
        let path = paths.city.clone().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let is_refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let (lookup, complaints) = NetworkLookup::load(&paths);
            shown(&lookup, "203.0.113.77");
            !complaints.is_empty()
        };
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            refused += usize::from(is_refused(&damaged));
            assert!(is_refused(&whole[..at]), "cut at {at}");
        }
        assert!(refused > whole.len() / 4, "{refused} of {}", whole.len());
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
}
