//! What a record of a database says: MaxMind's City and Country, ASN and ISP editions, nested, and the
//! flat form that DB-IP's data comes in.
//!
//! `database` decodes these, borrowed from the file in memory.
//!
//! Invariant: an empty text is `None`.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::event::Network;

/// A record of a City or Country edition, nested (MaxMind) or flat (DB-IP).
#[derive(Deserialize)]
pub(super) struct PlaceRecord<'a> {
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
    pub(super) fn place(&self) -> Network {
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
pub(super) struct CarrierRecord<'a> {
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
pub(super) struct Carrier {
    pub(super) asn: Option<i64>,
    pub(super) isp: Option<String>,
    pub(super) organisation: Option<String>,
}

impl CarrierRecord<'_> {
    pub(super) fn carrier(&self) -> Carrier {
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
