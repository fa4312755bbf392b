//! anonymise_address(text) -> text: an address cut to its network, /24 of IPv4 or /48 of IPv6.
//!
//! ```sql
//! SELECT anonymise_address('203.0.113.77:5123')  -- 203.0.113.0
//! ```
//!
//! Ports, brackets, zone ids, upper case and IPv4 in any of its spellings are understood; what is no
//! address gives NULL, never the text itself. The rule of the daemon's own `privacy::address`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arroyo_udf_plugin::udf;

/// Longest text that is read: the longest IPv6 spelling, brackets, a zone id and a port fit twice over.
const TEXT_BYTES_MAX: usize = 128;
/// A bare number below this is a counter in the wrong column, no address.
const BARE_NUMBER_MIN: u32 = 1 << 24;

#[udf]
fn anonymise_address(address: &str) -> Option<String> {
    let text = address.trim().trim_matches('"').trim();
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    parse(text).map(|address| network(address).to_string())
}

fn parse(text: &str) -> Option<IpAddr> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (inside, after) = bracketed.split_once(']')?;
        let has_clean_end = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return has_clean_end.then(|| parse_bare(inside)).flatten();
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => is_port(port).then(|| parse_v4(host)).flatten().map(IpAddr::V4),
        _ => parse_bare(text),
    }
}

fn parse_bare(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return parse_v4(text).map(IpAddr::V4);
    }
    let text = match text.split_once('%') {
        Some((_, "")) => return None,
        Some((address, _zone)) => address,
        None => text,
    };
    parse_v6(text)
        .or_else(|| parse_v6_with_bare_port(text))
        .map(unwrap_embedded)
}

fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (head, quad) = text.rsplit_once(':')?;
    let [a, b, c, d] = parse_quad(quad)?.octets();
    format!("{head}:{a:02x}{b:02x}:{c:02x}{d:02x}").parse().ok()
}

fn parse_v6_with_bare_port(text: &str) -> Option<Ipv6Addr> {
    let (head, port) = text.rsplit_once(':')?;
    if head.ends_with(':') || !is_port(port) {
        return None;
    }
    parse_v6(head)
}

/// IPv4 inside IPv6 (mapped, compatible) is the IPv4 address; `::1` is the loopback and stays.
fn unwrap_embedded(v6: Ipv6Addr) -> IpAddr {
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
        _ => IpAddr::V6(v6),
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4) & 0xffff_ff00)),
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            // 6to4 holds the client's IPv4 address: 24 bits of it stay.
            let c = if a == 0x2002 { c & 0xff00 } else { c };
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    if text.contains('.') {
        return parse_quad(text);
    }
    let bits = parse_number(text)?;
    (bits >= BARE_NUMBER_MIN).then(|| Ipv4Addr::from(bits))
}

/// Four parts, decimal, octal or hexadecimal; a digit 8 or 9 behind a leading zero makes all decimal.
fn parse_quad(text: &str) -> Option<Ipv4Addr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    parse_quad_with(text, parse_number).or_else(|| parse_quad_with(text, |part| parse_digits(part, 10)))
}

fn parse_quad_with(text: &str, number: impl Fn(&str) -> Option<u32>) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(number(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn parse_number(text: &str) -> Option<u32> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return parse_digits(hex, 16);
    }
    let radix = if text.len() > 1 && text.starts_with('0') { 8 } else { 10 };
    parse_digits(text, radix)
}

/// Digits only: `from_str_radix` alone would take a sign.
fn parse_digits(text: &str, radix: u32) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_plain.then(|| u32::from_str_radix(text, radix).ok()).flatten()
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_cut_and_junk_is_nothing() {
        assert_eq!(anonymise_address("203.0.113.77:5123").as_deref(), Some("203.0.113.0"));
        assert_eq!(anonymise_address("[2001:DB8:85A3:8D3::1]:443").as_deref(), Some("2001:db8:85a3::"));
        assert_eq!(anonymise_address("::ffff:203.0.113.77").as_deref(), Some("203.0.113.0"));
        assert_eq!(anonymise_address("user-203"), None);
    }
}
