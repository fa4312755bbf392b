//! One database file: read when it changes, looked up in memory.
//!
//! `network` holds one of these for each kind (`watched` has how a file is replaced).
//!
//! Invariant: a file is used only after every record of it was decoded; a bad new file leaves the
//! old one in use.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;

use super::record::{Carrier, CarrierRecord, PlaceRecord};
use super::{DatabaseKind, NetworkComplaint};
use crate::enrich::watched::{LookedAt, Watched};
use crate::event::Network;

/// Largest file read into memory: the largest edition sold is well under half of this.
const DATABASE_BYTES_MAX: u64 = 1 << 30;

/// Networks looked at for each node of a file's tree before it is taken to lead in circles: a sound one
/// has two branches a node.
const NETWORKS_PER_NODE_MAX: usize = 3;

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
    #[error("it is damaged (its search tree leads in circles)")]
    Endless,
    #[error("it is a {edition}, whose records tell nothing of the kind")]
    OtherContent { edition: String },
}

impl From<MaxMindDbError> for UnusableDatabase {
    fn from(error: MaxMindDbError) -> UnusableDatabase {
        UnusableDatabase::Damaged(error)
    }
}

impl From<io::Error> for UnusableDatabase {
    fn from(error: io::Error) -> UnusableDatabase {
        match error.kind() {
            io::ErrorKind::NotFound => UnusableDatabase::Missing,
            _ => UnusableDatabase::Unreadable(error),
        }
    }
}

/// One file, and the newest usable content of it.
#[derive(Debug)]
pub(super) struct Database {
    kind: DatabaseKind,
    file: Watched<Reader<Vec<u8>>>,
}

impl Database {
    pub(super) fn new(kind: DatabaseKind, path: PathBuf) -> Database {
        Database {
            kind,
            file: Watched::new(path),
        }
    }

    pub(super) fn reload_if_changed(&self) -> LookedAt<UnusableDatabase> {
        self.file.reload_if_changed(|path| read_database(self.kind, path))
    }

    pub(super) fn complaint(&self, cause: UnusableDatabase, keeps_old: bool) -> NetworkComplaint {
        NetworkComplaint {
            kind: self.kind,
            path: self.file.path().to_owned(),
            cause,
            keeps_old,
        }
    }

    pub(super) fn place(&self, address: IpAddr) -> Option<Network> {
        let reader = self.file.content();
        let record: PlaceRecord<'_> = record(reader.as_ref()?, address)?;
        Some(record.place())
    }

    pub(super) fn carrier(&self, address: IpAddr) -> Option<Carrier> {
        let reader = self.file.content();
        let record: CarrierRecord<'_> = record(reader.as_ref()?, address)?;
        Some(record.carrier())
    }
}

/// The record of `address`. `None`: there is none, it is damaged, or the file knows IPv4 alone.
fn record<'a, R: Deserialize<'a>>(reader: &'a Reader<Vec<u8>>, address: IpAddr) -> Option<R> {
    reader.lookup(address).ok()?.decode().ok()?
}

pub(super) fn read_database(kind: DatabaseKind, path: &Path) -> Result<Reader<Vec<u8>>, UnusableDatabase> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > DATABASE_BYTES_MAX {
        return Err(UnusableDatabase::TooLarge { bytes });
    }
    let reader = Reader::from_source(std::fs::read(path)?)?;
    let tells_something = match kind {
        DatabaseKind::City => decode_all(&reader, |record: PlaceRecord<'_>| record.place().country.is_some()),
        DatabaseKind::Asn => decode_all(&reader, |record: CarrierRecord<'_>| record.carrier().asn.is_some()),
        DatabaseKind::Isp => decode_all(&reader, |record: CarrierRecord<'_>| record.carrier().isp.is_some()),
    };
    if tells_something? {
        return Ok(reader);
    }
    Err(UnusableDatabase::OtherContent {
        edition: reader.metadata().database_type.clone(),
    })
}

/// Walks the whole tree and decodes each record once. False: not one of them tells anything.
fn decode_all<'a, R: Deserialize<'a>>(reader: &'a Reader<Vec<u8>>, tells: impl Fn(R) -> bool) -> Result<bool, UnusableDatabase> {
    let nodes = usize::try_from(reader.metadata().node_count).unwrap_or(usize::MAX);
    let networks_max = nodes.saturating_mul(NETWORKS_PER_NODE_MAX);
    let mut decoded = HashSet::new();
    let mut tells_something = false;
    for (at, network) in reader.networks(Default::default())?.enumerate() {
        if at > networks_max {
            return Err(UnusableDatabase::Endless);
        }
        let network = network?;
        if network.offset().is_some_and(|offset| decoded.insert(offset)) {
            let record: Option<R> = network.decode()?;
            tells_something |= record.is_some_and(&tells);
        }
    }
    Ok(tells_something)
}
