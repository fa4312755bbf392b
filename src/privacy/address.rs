//! One address, read from any spelling and cut down to its network.
//!
//! Stands between a text field known to hold a client address and everything that may be stored:
//! `enrich` looks the full address up (`parse`), `privacy` stores only its prefix (`mask`).
//! `scrub` finds addresses inside longer texts and comes here to judge and to cut them.
//!
//! ```text
//! 203.0.113.77:5123                        ->  203.0.113.0
//! 2001:DB8:85A3:8D3:1319:8A2E:370:7348     ->  2001:db8:85a3::
//! ::ffff:cb00:714d                         ->  203.0.113.0
//! ```
//!
//! Invariant: `mask` keeps at most 24 bits of any IPv4 address, whatever IPv6 form carries it. The
//! one exception is Teredo, whose /48 holds 16 bits of the *server*, never of the client.
//! Invariant: `mask` of its own result is that result.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest text that is read as an address: the longest IPv6 spelling (45), brackets, a zone id of
/// interface-name length and a port fit twice over.
const ADDRESS_TEXT_BYTES_MAX: usize = 128;

/// A bare number below this would be an address in 0.0.0.0/8, which no client has; it is far more
/// likely a counter that stands in the wrong column.
const BARE_NUMBER_MIN: u32 = 1 << 24;

/// The address written in `text`, for look-ups. In memory only.
///
/// Understands ports, brackets, zone ids, upper case, leading zeros, surrounding quotes, and IPv4
/// as one decimal, octal or hexadecimal number or as a quad of such. IPv4-mapped and
/// IPv4-compatible IPv6 come back as the IPv4 address. `None`: not an address.
pub fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"').trim();
    if text.len() > ADDRESS_TEXT_BYTES_MAX {
        return None;
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        let (inside, after) = bracketed.split_once(']')?;
        let has_clean_end = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return has_clean_end.then(|| parse_bare(inside)).flatten();
    }
    if let Some((host, port)) = text.split_once(':')
        && !port.contains(':')
    {
        return is_port(port).then(|| parse_v4(host)).flatten().map(IpAddr::V4);
    }
    parse_bare(text)
}

/// `text` cut to /24 (IPv4) or /48 (IPv6), spelled canonically. `None`: not an address.
pub fn mask(text: &str) -> Option<String> {
    parse(text).map(|address| mask_ip(address).to_string())
}

/// The network of `address`: /24 of IPv4 in whatever form it comes, else /48.
///
/// 6to4 (RFC 3056) holds the client's IPv4 address in its /48, so only 24 bits of that stay.
pub fn mask_ip(address: IpAddr) -> IpAddr {
    match unwrap_embedded(address) {
        IpAddr::V4(v4) => IpAddr::V4(mask_v4(v4)),
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            let is_6to4 = a == 0x2002;
            let c = if is_6to4 { c & 0xff00 } else { c };
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

/// IPv6 in text, without brackets or zone; a dotted quad at the end may carry leading zeros.
pub(super) fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (head, quad) = text.rsplit_once(':')?;
    let [a, b, c, d] = parse_quad(quad)?.octets();
    format!("{head}:{a:02x}{b:02x}:{c:02x}{d:02x}").parse().ok()
}

/// IPv6 with a port and no brackets, where no other reading is possible: a ninth group, or a last
/// group of five digits. Gives the address and the length of its text.
pub(super) fn parse_v6_with_bare_port(text: &str) -> Option<(Ipv6Addr, usize)> {
    let (head, port) = text.rsplit_once(':')?;
    if head.ends_with(':') {
        return None;
    }
    let address = is_port(port).then(|| parse_v6(head)).flatten()?;
    Some((address, head.len()))
}

/// Can `digits` be one part of a dotted quad? Decimal to 255, zero-padded or octal to 0377.
pub(super) fn is_octet(digits: &[u8]) -> bool {
    match digits {
        [] => false,
        [b'0', b'0'..=b'3', b'0'..=b'7', b'0'..=b'7'] => true,
        [_, _, _, _, ..] => false,
        _ => digits
            .iter()
            .try_fold(0u32, |value, digit| {
                digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0'))
            })
            .is_some_and(|value| value <= 255),
    }
}

/// IPv4-mapped (`::ffff:0:0/96`) and IPv4-compatible (`::/96`) to the IPv4 address they carry.
/// `::` to `::ffff` stay IPv6: `::1` is the loopback, not 0.0.0.1.
fn unwrap_embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    let [0, 0, 0, 0, 0, 0, high, low] = v6.segments() else {
        return address;
    };
    if high == 0 {
        return address;
    }
    IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

fn mask_v4(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & 0xffff_ff00)
}

/// An address without brackets; IPv6 may carry a zone id (RFC 4007) or a bare port.
fn parse_bare(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return parse_v4(text).map(IpAddr::V4);
    }
    let text = match text.split_once('%') {
        Some((_, "")) => return None,
        Some((address, _zone)) => address,
        None => text,
    };
    let address = parse_v6(text).or_else(|| parse_v6_with_bare_port(text).map(|(v6, _)| v6))?;
    Some(unwrap_embedded(IpAddr::V6(address)))
}

/// IPv4 in the forms of `inet_aton` with one part or four.
fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    if text.contains('.') {
        return parse_quad(text);
    }
    let bits = parse_number(text)?;
    (bits >= BARE_NUMBER_MIN).then(|| Ipv4Addr::from_bits(bits))
}

/// Four parts, each decimal, octal (leading 0) or hexadecimal (0x).
///
/// Zero-padded decimals such as `192.068.001.009` are no octal; one digit 8 or 9 behind a leading
/// zero makes the whole quad decimal.
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
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric())
        .then(|| u32::from_str_radix(text, radix).ok())
        .flatten()
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(input: &str, expected: Option<&str>) {
        let masked = mask(input);
        assert_eq!(masked.as_deref(), expected, "mask of {input}");
        let on_arroyo = crate::udfs::anonymise_address::anonymise_address(input);
        assert_eq!(on_arroyo.as_deref(), expected, "anonymise_address of {input}");
        if let Some(masked) = masked {
            assert_eq!(mask(&masked).as_deref(), Some(masked.as_str()), "mask of a mask of {input}");
        }
    }

    #[test]
    fn the_last_octet_goes_and_a_port_with_it() {
        check("203.0.113.77", Some("203.0.113.0"));
        check("203.0.113.77:5123", Some("203.0.113.0"));
        check(" 203.0.113.77 ", Some("203.0.113.0"));
        check("[203.0.113.77]:80", Some("203.0.113.0"));
    }

    #[test]
    fn forty_eight_bits_of_ipv6_stay() {
        check("2001:db8:85a3:8d3:1319:8a2e:370:7348", Some("2001:db8:85a3::"));
        check("2001:DB8:85A3:8D3:1319:8A2E:370:ABCD", Some("2001:db8:85a3::"));
        check("2001:0db8:0000:0000:0000:0000:0000:0001", Some("2001:db8::"));
        check("2001:db8::1", Some("2001:db8::"));
        check("::1", Some("::"));
        check("::", Some("::"));
        check("fe80::1%eth0", Some("fe80::"));
        check("fe80::1%25eth0", Some("fe80::"));
        check("[fe80::1%eth0]:443", Some("fe80::"));
        check("[2001:db8::1]:443", Some("2001:db8::"));
        check("\"[2001:db8::1]:4711\"", Some("2001:db8::"));
        check("2001:db8:85a3:8d3:1319:8a2e:370:7348:51734", Some("2001:db8:85a3::"));
        check("2001:db8::1:51734", Some("2001:db8::"));
    }

    #[test]
    fn ipv4_inside_ipv6_is_cut_like_ipv4() {
        check("::ffff:203.0.113.77", Some("203.0.113.0"));
        check("::FFFF:203.0.113.77", Some("203.0.113.0"));
        check("::ffff:cb00:714d", Some("203.0.113.0"));
        check("0:0:0:0:0:ffff:cb00:714d", Some("203.0.113.0"));
        check("[::ffff:203.0.113.77]:5123", Some("203.0.113.0"));
        check("::ffff:203.000.113.077", Some("203.0.113.0"));
        check("::203.0.113.77", Some("203.0.113.0"));
        check("2002:cb00:714d::1", Some("2002:cb00:7100::"));
        check("64:ff9b::cb00:714d", Some("64:ff9b::"));
        check("64:ff9b::203.0.113.77", Some("64:ff9b::"));
        check("64:ff9b:1:cb00:71:4d00::", Some("64:ff9b:1::"));
        check("2001:0:4136:e378:8000:63bf:3fff:fdd2", Some("2001:0:4136::"));
    }

    #[test]
    fn integer_octal_and_hexadecimal_spellings_are_addresses_too() {
        check("0xCB00714D", Some("203.0.113.0"));
        check("0xcb00714d", Some("203.0.113.0"));
        check("3405803853", Some("203.0.113.0"));
        check("031300070515", Some("203.0.113.0"));
        check("0313.0.0161.0115", Some("203.0.113.0"));
        check("0xCB.0x00.0x71.0x4D", Some("203.0.113.0"));
        check("203.000.113.077", Some("203.0.113.0"));
        check("192.068.001.009", Some("192.68.1.0"));
    }

    #[test]
    fn junk_is_nothing() {
        for junk in [
            "",
            "-",
            "unknown",
            "_hidden",
            "1",
            "443",
            "16777215",
            "4294967296",
            "203.0.113",
            "203.0.113.256",
            "203.0.113.77.1",
            "203.0.113.77:",
            "203.0.113.77:99999",
            "1.2.3.-4",
            "+1.2.3.4",
            "[2001:db8::1",
            "[2001:db8::1]x",
            "2001:db8::1%",
            "2001:db8:::1",
            ":",
            "[]",
            "08:00:01",
            "00:1a:2b:3c:4d:5e",
            "localhost",
            "203.0.113.77, 198.51.100.9",
            "0x",
            "ä:ö::ü",
        ] {
            check(junk, None);
        }
        check(&"1".repeat(ADDRESS_TEXT_BYTES_MAX + 1), None);
    }

    #[test]
    fn look_ups_see_the_full_address() {
        let v4 = Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77)));
        for text in ["203.0.113.77:1", "::ffff:cb00:714d", "::203.0.113.77", "3405803853"] {
            assert_eq!(parse(text), v4, "{text}");
        }
        assert_eq!(parse("[2001:DB8::1]:443"), "2001:db8::1".parse().ok());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,60}|[0-9a-fA-Fx:.%\\[\\]\"]{0,60}") {
            prop_assert_eq!(mask(&text), crate::udfs::anonymise_address::anonymise_address(&text), "the UDF file");
            if let Some(masked) = mask(&text) {
                prop_assert_eq!(mask(&masked), Some(masked));
            }
        }

        #[test]
        fn no_mask_keeps_the_low_bits(bits: u128) {
            let IpAddr::V6(masked) = mask_ip(IpAddr::V6(Ipv6Addr::from_bits(bits | 0x1 << 120))) else {
                return Err(TestCaseError::fail("not embedded"));
            };
            prop_assert_eq!(masked.to_bits() << 48, 0);
        }
    }
}
