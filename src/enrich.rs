//! Adds to an event what its address and its user agent tell.
//!
//! Stands between `event::decode` and `privacy`: the last place that sees the full client address.
//!
//! Invariant: what the sender said is never overwritten; only fields that are `None` are filled.
//! Invariant: an answer depends on the event and on files read into memory before; no clock, no
//! network, no log.

pub mod device;
pub mod errors;
pub mod names;
pub mod network;
pub mod object;
mod pattern;
pub mod pop;
pub mod quirks;
pub mod remembered;
mod watched;

use std::net::IpAddr;
use std::path::PathBuf;

use crate::event::{CdnRequest, Device, Network, PlayerEvent};
use crate::privacy::address;
use device::{DeviceLookup, RulesComplaint, UserAgent};
use names::{CdnNames, ContentRules};
use network::{NetworkComplaint, NetworkDatabases, NetworkLookup};
use quirks::Quirks;
use remembered::Asked;

/// Files that operators keep up to date.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnrichmentFiles {
    pub network: NetworkDatabases,
    /// uap-core's rules (`regexes.yaml`); `None`: what is compiled in.
    pub user_agents: Option<PathBuf>,
}

/// A file that cannot be used. It stops nothing.
#[derive(Debug, thiserror::Error)]
pub enum EnrichmentComplaint {
    #[error(transparent)]
    Network(#[from] NetworkComplaint),
    #[error(transparent)]
    UserAgents(#[from] RulesComplaint),
}

/// The databases and the memory of one daemon; shared by all threads that decode.
#[derive(Debug, Default)]
pub struct Enricher {
    network: NetworkLookup,
    devices: DeviceLookup,
    quirks: Quirks,
    /// How many proxies of our own stand between the viewer and the logged address. 0:
    /// `X-Forwarded-For` is not believed at all, for anyone can send one.
    trusted_proxies: usize,
    content_rules: ContentRules,
    cdn_names: CdnNames,
}

impl Enricher {
    /// Reads the files. What cannot be read is complained about and left out.
    pub fn load(files: &EnrichmentFiles) -> (Enricher, Vec<EnrichmentComplaint>) {
        let (network, of_network) = NetworkLookup::load(&files.network);
        let (devices, of_rules) = DeviceLookup::load(files.user_agents.clone());
        let enricher = Enricher {
            network,
            devices,
            ..Enricher::default()
        };
        (enricher, complaints(of_network, of_rules))
    }

    /// Believes the hop that stands `trusted_proxies` from the end of a request's `X-Forwarded-For`.
    pub fn with_trusted_proxies(self, trusted_proxies: usize) -> Enricher {
        Enricher { trusted_proxies, ..self }
    }

    /// Names content by its path and CDNs by their hosts.
    pub fn with_names(self, content_rules: ContentRules, cdn_names: CdnNames) -> Enricher {
        Enricher {
            content_rules,
            cdn_names,
            ..self
        }
    }

    /// How often the memory of addresses, and that of user agents, knew the answer.
    pub fn asked(&self) -> (Asked, Asked) {
        (self.network.asked(), self.devices.asked())
    }

    /// Reads the files that have changed on disk since; see `NetworkLookup::reload_changed`.
    pub fn reload_changed(&self) -> Vec<EnrichmentComplaint> {
        complaints(self.network.reload_changed(), self.devices.reload_changed())
    }

    pub fn enrich_event(&self, event: &mut PlayerEvent) {
        self.quirks.apply(event);
        event.error_class = errors::classify(event);
        let address = event.client_address.as_deref().and_then(address::parse);
        self.fill_network(&mut event.network, address);
        if let (None, Some(host)) = (&event.cdn, &event.host) {
            event.cdn = self.cdn_names.name(host).map(str::to_owned);
        }
        if let Some(told) = self.read_user_agent(event.user_agent.as_deref()) {
            fill_device(&mut event.device, &told.device);
            if event.player_name.is_none() && told.player_name.is_some() {
                event.player_name = told.player_name.map(str::to_owned);
                fill(&mut event.player_version, &told.player_version);
            }
        }
    }

    pub fn enrich_request(&self, request: &mut CdnRequest) {
        let address = self.viewer_address(request);
        self.fill_network(&mut request.network, address);
        self.name_request(request);
        let Some(told) = self.read_user_agent(request.user_agent.as_deref()) else {
            return;
        };
        fill_device(&mut request.device, &told.device);
        if told.is_bot {
            request.is_bot.get_or_insert(true);
        }
    }

    fn name_request(&self, request: &mut CdnRequest) {
        if let Some(report) = &request.player_event {
            fill(&mut request.session_id, &report.native_session_id);
            fill(&mut request.content_id, &report.content_id);
            fill(&mut request.object_type, &report.object_type);
        }
        let path = request.uri_stem.as_deref();
        let told = object::object(path, request.content_type.as_deref(), request.object_type);
        request.object_class = Some(told.class.as_str());
        request.container = told.container;
        let host = request.host_header.as_deref().or(request.host.as_deref());
        // Rules of the settings know better than a player, whose ids are its own, and than a log's format.
        if let Some(id) = path.and_then(|path| self.content_rules.content_id(host, path)) {
            request.content_id = Some(id.into_owned());
        }
        if let Some(name) = host.and_then(|host| self.cdn_names.configured(host)) {
            request.cdn = Some(name.to_owned());
        }
        let edge = request.edge_location.as_deref().or(request.pop.as_deref());
        if let Some(place) = edge.and_then(pop::pop) {
            request.pop_city = Some(place.city);
            request.pop_country = Some(place.country);
        }
    }

    /// The first hop that is not one of our proxies; without such a setting, who asked the CDN.
    fn viewer_address(&self, request: &CdnRequest) -> Option<IpAddr> {
        let hops = &request.forwarded_for;
        let hop = match self.trusted_proxies {
            0 => None,
            trusted => hops.get(hops.len().saturating_sub(trusted)),
        };
        hop.and_then(|hop| address::parse(hop))
            .or_else(|| address::parse(request.client_address.as_deref()?))
    }

    fn fill_network(&self, network: &mut Network, address: Option<IpAddr>) {
        let Some(address) = address.filter(|_| !is_complete(network)) else {
            return;
        };
        let told = self.network.lookup(address);
        // Parts of two answers that contradict each other would name a place that does not exist.
        let agrees_on_country = network.country.is_none() || network.country == told.country;
        if agrees_on_country {
            fill(&mut network.country, &told.country);
            fill(&mut network.region, &told.region);
            fill(&mut network.city, &told.city);
        }
        let agrees_on_asn = network.asn.is_none() || network.asn == told.asn;
        if agrees_on_asn {
            fill(&mut network.asn, &told.asn);
            fill(&mut network.isp, &told.isp);
        }
    }

    fn read_user_agent(&self, user_agent: Option<&str>) -> Option<std::sync::Arc<UserAgent>> {
        user_agent.filter(|text| !text.is_empty()).map(|text| self.devices.lookup(text))
    }
}

fn complaints(network: Vec<NetworkComplaint>, rules: Option<RulesComplaint>) -> Vec<EnrichmentComplaint> {
    let network = network.into_iter().map(EnrichmentComplaint::from);
    network.chain(rules.map(EnrichmentComplaint::from)).collect()
}

fn is_complete(network: &Network) -> bool {
    network.country.is_some() && network.region.is_some() && network.city.is_some() && network.asn.is_some() && network.isp.is_some()
}

fn fill_device(device: &mut Device, told: &Device) {
    fill(&mut device.device_type, &told.device_type);
    fill(&mut device.device_model, &told.device_model);
    fill(&mut device.os, &told.os);
    fill(&mut device.browser, &told.browser);
}

fn fill<T: Clone>(field: &mut Option<T>, told: &Option<T>) {
    if field.is_none() {
        field.clone_from(told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enricher(folder: &tempfile::TempDir) -> Enricher {
        let files = EnrichmentFiles {
            network: network::testing::databases(folder.path()),
            user_agents: None,
        };
        let (enricher, complaints) = Enricher::load(&files);
        assert!(complaints.is_empty(), "{complaints:?}");
        enricher
    }

    fn event(address: &str) -> PlayerEvent {
        PlayerEvent {
            client_address: Some(address.to_owned()),
            user_agent: Some("Mozilla/5.0 (iPhone; CPU iPhone OS 10_2_1 like Mac OS X)".to_owned()),
            ..PlayerEvent::default()
        }
    }

    #[test]
    fn an_event_learns_its_network_and_device() {
        let folder = tempfile::tempdir().unwrap();
        for address in ["203.0.113.77", "203.0.113.77:5123", "::ffff:cb00:714d"] {
            let mut event = event(address);
            enricher(&folder).enrich_event(&mut event);
            let network = &event.network;
            assert_eq!(network.country.as_deref(), Some("GB"), "{address}");
            assert_eq!(network.region.as_deref(), Some("ENG"));
            assert_eq!(network.city.as_deref(), Some("London"));
            assert_eq!((network.asn, network.isp.as_deref()), (Some(64500), Some("Example Cable")));
            assert_eq!(event.device.os.as_deref(), Some("iOS"));
            assert_eq!(event.client_address.as_deref(), Some(address), "privacy takes it, not enrich");
        }
    }

    #[test]
    fn what_the_sender_said_stays_and_is_not_mixed_with_another_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut event = event("203.0.113.77");
        event.network.country = Some("FR".to_owned());
        event.network.asn = Some(1);
        event.device.os = Some("VendorOS".to_owned());
        enricher(&folder).enrich_event(&mut event);
        let expected = Network {
            country: Some("FR".to_owned()),
            asn: Some(1),
            ..Network::default()
        };
        assert_eq!(event.network, expected);
        assert_eq!(event.device.os.as_deref(), Some("VendorOS"));
        assert_eq!(event.device.device_type.as_deref(), Some("mobile"));
    }

    #[test]
    fn no_address_and_junk_tell_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for address in ["", "-", "unknown", "192.0.2.1"] {
            let mut event = event(address);
            event.user_agent = Some(String::new());
            let expected = event.clone();
            enricher(&folder).enrich_event(&mut event);
            assert_eq!(event, expected, "{address}");
        }
    }

    #[test]
    fn a_forwarded_address_is_believed_only_behind_trusted_proxies() {
        let folder = tempfile::tempdir().unwrap();
        let city = |trusted: usize, hops: &[&str]| {
            let mut request = CdnRequest {
                client_address: Some("198.51.100.9".to_owned()),
                forwarded_for: hops.iter().map(|hop| (*hop).to_owned()).collect(),
                ..CdnRequest::default()
            };
            enricher(&folder).with_trusted_proxies(trusted).enrich_request(&mut request);
            request.network.city
        };
        let hops = ["203.0.113.77", "198.51.100.9"];
        assert_eq!(city(0, &hops).as_deref(), Some("Springfield"));
        assert_eq!(city(1, &hops).as_deref(), Some("Springfield"));
        assert_eq!(city(2, &hops).as_deref(), Some("London"));
        assert_eq!(city(9, &hops).as_deref(), Some("London"));
        assert_eq!(city(1, &["unknown"]).as_deref(), Some("Springfield"));
        assert_eq!(city(1, &[]).as_deref(), Some("Springfield"));
    }

    #[test]
    fn a_crawler_is_a_bot_unless_the_log_says_otherwise() {
        let is_bot = |sent: Option<bool>, user_agent: &str| {
            let mut request = CdnRequest {
                user_agent: Some(user_agent.to_owned()),
                is_bot: sent,
                ..CdnRequest::default()
            };
            Enricher::default().enrich_request(&mut request);
            request.is_bot
        };
        let crawler = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
        assert_eq!(is_bot(None, crawler), Some(true));
        assert_eq!(is_bot(Some(false), crawler), Some(false));
        assert_eq!(is_bot(None, "curl/7.55.1"), None);
    }
}
