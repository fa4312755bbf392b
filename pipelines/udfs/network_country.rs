/*
[dependencies]
maxminddb = "0.32"
*/
//! network_country(text) -> text: ISO 3166 code of the country of an address.
//!
//! ```sql
//! SELECT network_country('81.2.69.142')  -- GB
//! ```
//!
//! Takes a full address (a port, brackets and IPv4 inside IPv6 are understood), so it stands before
//! anything is stored. The file is a MaxMind DB that the environment names in PLAYHEAD_CITY_MMDB on every
//! worker; it is read once, by the first row. NULL: no file, no such network, or no address.

use std::net::IpAddr;
use std::sync::OnceLock;

use arroyo_udf_plugin::udf;
use maxminddb::{PathElement, Reader};

#[udf]
fn network_country(address: &str) -> Option<String> {
    static FILE: OnceLock<Option<Reader<Vec<u8>>>> = OnceLock::new();
    let file = FILE.get_or_init(|| read_file(&std::env::var("PLAYHEAD_CITY_MMDB").ok()?));
    look_up(file.as_ref()?, address)
}

/// Largest file that is read into memory, as in the daemon.
const FILE_BYTES_MAX: u64 = 1 << 30;

fn read_file(path: &str) -> Option<Reader<Vec<u8>>> {
    let bytes = std::fs::metadata(path).ok()?.len();
    if bytes > FILE_BYTES_MAX {
        return None;
    }
    Reader::from_source(std::fs::read(path).ok()?).ok()
}

fn look_up(file: &Reader<Vec<u8>>, address: &str) -> Option<String> {
    let record = file.lookup(parse(address)?).ok()?;
    let nested = [PathElement::Key("country"), PathElement::Key("iso_code")];
    let flat = [PathElement::Key("country_code")];
    let code: Option<&str> = record.decode_path(&nested).ok().flatten();
    let code = code.or_else(|| record.decode_path(&flat).ok().flatten())?;
    let code = code.trim();
    (!code.is_empty()).then(|| code.to_ascii_uppercase())
}

fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"').trim();
    let bare = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?.0,
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => host,
            _ => text,
        },
    };
    let bare = bare.split_once('%').map_or(bare, |(address, _zone)| address);
    match bare.parse().ok()? {
        IpAddr::V6(v6) => Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)),
        v4 => Some(v4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_what_stands_around_them() {
        let v4: Option<IpAddr> = "81.2.69.142".parse().ok();
        for text in ["81.2.69.142", "81.2.69.142:443", "::ffff:81.2.69.142", "[::ffff:81.2.69.142]:443"] {
            assert_eq!(parse(text), v4, "{text}");
        }
        assert_eq!(parse("unknown"), None);
    }

    #[test]
    fn without_a_file_nothing_is_known() {
        assert!(read_file("/nowhere/there/is.mmdb").is_none());
    }
}
