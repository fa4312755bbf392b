//! Which addresses a webhook may speak to.
//!
//! A URL of a rule file is a way into our own network: names are resolved once, every address is
//! checked, and the connection goes to what was checked (alerts spec 6.7).
//!
//! Invariant: an address that is not known to be public is refused, and so is a name of which any
//! address is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

/// First address and prefix length of the IPv4 blocks that are not for the public (IANA special-purpose
/// registry), and what they are.
const NOT_PUBLIC_V4: [([u8; 4], u32, &str); 16] = [
    ([0, 0, 0, 0], 8, "this network"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "carrier-grade NAT"),
    ([127, 0, 0, 0], 8, "loopback"),
    // The metadata service of a cloud machine, 169.254.169.254, lies here.
    ([169, 254, 0, 0], 16, "link-local or metadata"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "protocol assignments"),
    ([192, 0, 2, 0], 24, "documentation"),
    ([192, 88, 99, 0], 24, "6to4 relay"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "benchmarking"),
    ([198, 51, 100, 0], 24, "documentation"),
    ([203, 0, 113, 0], 24, "documentation"),
    // Looks public: what answers Azure machines.
    ([168, 63, 129, 16], 32, "metadata"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// The only IPv6 block of public addresses.
const PUBLIC_V6: ([u16; 2], u32) = ([0x2000, 0], 3);
/// What in it is not. Outside of it lie loopback, mapped and NAT64 forms, unique local (with the
/// metadata service fd00:ec2::254), link-local and multicast.
const NOT_PUBLIC_V6: [([u16; 2], u32, &str); 4] = [
    // With Teredo, which carries an IPv4 address.
    ([0x2001, 0], 23, "protocol assignments"),
    ([0x2001, 0x0db8], 32, "documentation"),
    ([0x2002, 0], 16, "6to4"),
    ([0x3fff, 0], 20, "documentation"),
];

/// An address that a webhook may not speak to. The address is one of ours or of the rule's author,
/// never of a viewer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} is at {address}, which is not public ({kind}); say `allow_private: true` at the target if it is meant")]
pub struct NotPublic {
    pub host: String,
    pub address: IpAddr,
    pub kind: &'static str,
}

/// What an address is for, unless it is public.
pub fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    let is_in = |first: [u8; 4], length: u32| (address.to_bits() ^ u32::from_be_bytes(first)) >> (32 - length) == 0;
    let block = NOT_PUBLIC_V4.into_iter().find(|(first, length, _)| is_in(*first, *length));
    block.map(|(.., kind)| kind)
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    // No block is longer than these 32 bits.
    let high = (address.to_bits() >> 96) as u32;
    let is_in = |first: [u16; 2], length: u32| (high ^ (u32::from(first[0]) << 16 | u32::from(first[1]))) >> (32 - length) == 0;
    if !is_in(PUBLIC_V6.0, PUBLIC_V6.1) {
        return Some("not global unicast");
    }
    let block = NOT_PUBLIC_V6.into_iter().find(|(first, length, _)| is_in(*first, *length));
    block.map(|(.., kind)| kind)
}

/// Checks a host that is written as an address: no name is resolved for it.
pub fn check_literal(host: &Host<&str>) -> Result<(), NotPublic> {
    let address = match host {
        Host::Domain(_) => return Ok(()),
        Host::Ipv4(address) => IpAddr::V4(*address),
        Host::Ipv6(address) => IpAddr::V6(*address),
    };
    check(&address.to_string(), address)
}

fn check(host: &str, address: IpAddr) -> Result<(), NotPublic> {
    match not_public(address) {
        None => Ok(()),
        Some(kind) => Err(NotPublic {
            host: host.to_owned(),
            address,
            kind,
        }),
    }
}

/// Resolves names for the HTTP client, which connects to nothing else.
pub struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str();
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            for address in &addresses {
                check(host, address.ip())?;
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The refusal behind an error of the HTTP client, if it was ours.
pub fn refusal<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e NotPublic> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refusal) = error.downcast_ref::<NotPublic>() {
            return Some(refusal);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_kind(address: &str, expected: Option<&str>) {
        assert_eq!(not_public(address.parse().unwrap()), expected, "{address}");
    }

    #[test]
    fn our_own_network_and_the_clouds_metadata_are_not_public() {
        let cases = [
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("0.0.0.0", "this network"),
            ("10.1.2.3", "private"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("100.64.0.1", "carrier-grade NAT"),
            ("100.100.100.200", "carrier-grade NAT"),
            ("169.254.169.254", "link-local or metadata"),
            ("168.63.129.16", "metadata"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "not global unicast"),
            ("::1", "not global unicast"),
            ("::ffff:127.0.0.1", "not global unicast"),
            ("::ffff:93.184.216.34", "not global unicast"),
            ("64:ff9b::a9fe:a9fe", "not global unicast"),
            ("64:ff9b:1::1", "not global unicast"),
            ("fd00:ec2::254", "not global unicast"),
            ("fe80::1", "not global unicast"),
            ("ff02::1", "not global unicast"),
            ("2001::1", "protocol assignments"),
            ("2001:db8::1", "documentation"),
            ("2002:7f00:1::", "6to4"),
        ];
        for (address, kind) in cases {
            check_kind(address, Some(kind));
        }
    }

    #[test]
    fn the_neighbours_of_what_is_not_public_are() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "168.63.129.17",
            "223.255.255.255",
            "2001:200::1",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            check_kind(address, None);
        }
    }

    #[test]
    fn a_literal_is_seen_through_its_odd_spellings() {
        for url in [
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::ffff:7f00:1]/",
            "https://0177.0.0.1/",
        ] {
            let url = url::Url::parse(url).unwrap();
            assert!(check_literal(&url.host().unwrap()).is_err(), "{url}");
        }
        let url = url::Url::parse("https://93.184.216.34/").unwrap();
        assert_eq!(check_literal(&url.host().unwrap()), Ok(()));
    }
}
