//! Whose address a request came from: the peer's, or the one that a trusted proxy names.
//!
//! Stands at the receiver's door; the answer goes to `enrich` and is cut by `privacy`.
//!
//! Invariant: `X-Forwarded-For` is read only if the peer is a trusted proxy, for anyone can send one.
//! Invariant: no address is written or logged here.

use std::net::IpAddr;

use crate::privacy::address;

/// Hops of `X-Forwarded-For` that are looked at, from the last: more proxies stand in no row.
const HOPS_MAX: usize = 32;

/// A range of addresses, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: IpAddr,
    prefix_bits: u32,
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text.trim(), None),
        };
        let first: IpAddr = address.parse().ok()?;
        let width = if first.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.unwrap_or(width);
        (prefix_bits <= width).then_some(Range { first, prefix_bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(other)) => {
                let differing = first.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= self.prefix_bits
            }
            (IpAddr::V6(first), IpAddr::V6(other)) => {
                let differing = first.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= self.prefix_bits
            }
            _ => false,
        }
    }
}

/// The proxies of our own that stand between viewers and the receiver.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    ranges: Vec<Range>,
}

impl TrustedProxies {
    /// Addresses and ranges of addresses (`10.0.0.0/8`, `2001:db8::/32`, `127.0.0.1`).
    ///
    /// # Errors
    /// The text that is neither.
    pub fn parse(texts: &[String]) -> Result<TrustedProxies, String> {
        let range = |text: &String| Range::parse(text).ok_or_else(|| text.clone());
        let ranges = texts.iter().map(range).collect::<Result<_, _>>()?;
        Ok(TrustedProxies { ranges })
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// The client's address: from the last hop of `X-Forwarded-For` on, the first that is public and
    /// not a trusted proxy. Hops before it are the client's own claim. `forwarded` holds the values of
    /// the header in their order.
    pub fn client_address<'a>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.contains(peer) {
            return peer;
        }
        forwarded
            .rev()
            .flat_map(|value| value.rsplit(','))
            .take(HOPS_MAX)
            .filter_map(address::parse)
            .find(|hop| is_public(*hop) && !self.contains(*hop))
            .unwrap_or(peer)
    }
}

/// Can a viewer on the internet have it? Private, shared (RFC 6598) and local addresses are none.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            !(a == 0 || v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || is_shared)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUSTED: [&str; 3] = ["10.0.0.0/8", "2001:db8:ff::/48", "127.0.0.1"];

    fn check(peer: &str, forwarded: &[&str], expected: &str) {
        let texts = TRUSTED.map(str::to_owned);
        let proxies = TrustedProxies::parse(&texts).unwrap();
        let found = proxies.client_address(peer.parse().unwrap(), forwarded.iter().copied());
        assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
    }

    #[test]
    fn a_stranger_cannot_name_another_address() {
        check("203.0.113.77", &["198.51.100.9"], "203.0.113.77");
        check("::ffff:203.0.113.77", &["198.51.100.9"], "203.0.113.77");
        check("11.0.0.1", &["198.51.100.9"], "11.0.0.1");
        check("2001:db8:fe::1", &["198.51.100.9"], "2001:db8:fe::1");
    }

    #[test]
    fn behind_a_trusted_proxy_the_last_public_hop_is_the_client() {
        check("10.1.2.3", &["198.51.100.9"], "198.51.100.9");
        check("::ffff:10.1.2.3", &["198.51.100.9:4711"], "198.51.100.9");
        check("10.1.2.3", &["192.0.2.1, 198.51.100.9, 10.9.9.9"], "198.51.100.9");
        check("10.1.2.3", &["192.0.2.1", "198.51.100.9", "10.9.9.9"], "198.51.100.9");
        check("10.1.2.3", &["198.51.100.9, 192.168.1.1"], "198.51.100.9");
        check("2001:db8:ff::1", &["\"[2001:db8:1::9]:443\", 2001:db8:ff::2"], "2001:db8:1::9");
        check("127.0.0.1", &["unknown, 100.64.0.9, ::1, 203.0.113.77"], "203.0.113.77");
    }

    #[test]
    fn without_a_public_hop_the_proxy_itself_is_the_client() {
        check("10.1.2.3", &[], "10.1.2.3");
        check("10.1.2.3", &["", "unknown", "10.4.4.4, fe80::1, 100.64.0.1"], "10.1.2.3");
        let far = format!("203.0.113.77{}", ", 10.0.0.1".repeat(HOPS_MAX));
        check("10.1.2.3", &[&far], "10.1.2.3");
    }

    #[test]
    fn what_is_no_range_is_named() {
        for bad in ["10.0.0.0/33", "10.0.0/8", "example.org", "", "::/129", "10.0.0.0/x"] {
            assert_eq!(TrustedProxies::parse(&[bad.to_owned()]).unwrap_err(), bad);
        }
        let all = TrustedProxies::parse(&["0.0.0.0/0".to_owned(), "::/0".to_owned()]).unwrap();
        assert!(all.contains("203.0.113.77".parse().unwrap()) && all.contains("2001:db8::1".parse().unwrap()));
    }
}
