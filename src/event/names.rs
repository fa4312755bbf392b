//! Names that facts hold as `&'static str`, as numbers: how they are kept in bytes.
//!
//! Stands beside `facts`, in checkpoints of the session engine only; tables hold the names as text.
//!
//! Invariant: a name keeps its number for ever; new names are added at the end.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name of the tables. (An alias, since serde would borrow a `&str` from the bytes.)
pub type Name = &'static str;

const KNOWN: [Name; 28] = [
    "",
    "aws_demo",
    "ivs",
    "epas",
    "cmcd1_log",
    "cmcd2_log",
    "cmcd2_event",
    "finished",
    "user_quit",
    "error",
    "replaced",
    "timeout",
    "unknown",
    "shown",
    "requested",
    "inferred_request",
    "inferred_frame",
    "startup_seek",
    "startup_background",
    "msd_recomputed",
    "stall_clipped",
    "stall_open_end",
    "counter_reconciled",
    "coverage_approximate",
    "ts_order_conflict",
    "undefined_state",
    "events_capped",
    "unit_settled",
];

fn number_of(name: &str) -> Option<u8> {
    let at = KNOWN.iter().position(|known| *known == name)?;
    u8::try_from(at).ok()
}

fn name_of(number: u8) -> Option<Name> {
    KNOWN.get(usize::from(number)).copied()
}

/// One name.
pub mod one {
    use super::*;

    pub fn serialize<S: Serializer>(name: &str, serializer: S) -> Result<S::Ok, S::Error> {
        let number = number_of(name).ok_or_else(|| S::Error::custom(format!("{name} is missing in event::names")))?;
        number.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        let number = u8::deserialize(deserializer)?;
        name_of(number).ok_or_else(|| D::Error::custom(format!("no name has the number {number}")))
    }
}

#[derive(Serialize, Deserialize)]
struct Numbered(#[serde(with = "one")] Name);

/// A name or none.
pub mod option {
    use super::*;

    pub fn serialize<S: Serializer>(name: &Option<Name>, serializer: S) -> Result<S::Ok, S::Error> {
        name.map(Numbered).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Name>, D::Error> {
        Ok(Option::<Numbered>::deserialize(deserializer)?.map(|name| name.0))
    }
}

/// Names in order.
pub mod list {
    use super::*;

    pub fn serialize<S: Serializer>(names: &[Name], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(names.iter().map(|name| Numbered(name)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Name>, D::Error> {
        let names = Vec::<Numbered>::deserialize(deserializer)?;
        Ok(names.into_iter().map(|name| name.0).collect())
    }
}
