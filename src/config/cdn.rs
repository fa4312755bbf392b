//! What the settings say of CDN logs: names of content and of CDNs, and proxies of one's own.
//!
//! Stands beside `sources`, which says where logs are read.

use super::Checks;
use super::file::CdnFile;
use crate::enrich::names::{CdnNames, ContentRule, ContentRules};

/// Rules are searched in order for every request.
const RULES_MAX: usize = 64;
/// More proxies in a row than anybody has.
const PROXIES_MAX: u64 = 16;

/// How requests are named.
#[derive(Debug, Clone, PartialEq)]
pub struct Cdn {
    pub content: ContentRules,
    pub hosts: CdnNames,
    /// Proxies of one's own between viewer and CDN; 0: `X-Forwarded-For` is not believed.
    pub trusted_proxies: usize,
}

pub(super) fn cdn(written: CdnFile, checks: &mut Checks) -> Cdn {
    let mut content = Vec::new();
    for (index, rule) in written.content.unwrap_or_default().into_iter().enumerate() {
        match ContentRule::parse(rule.host.as_deref(), &rule.path) {
            Ok(rule) => content.push(rule),
            Err(error) => checks.complain(&format!("cdn.content[{index}]"), error.to_string(), "see docs/cdn-logs.md"),
        }
    }
    let mut hosts = CdnNames::default();
    let named = written.hosts.unwrap_or_default();
    if content.len() > RULES_MAX || named.len() > RULES_MAX {
        let message = format!("more than {RULES_MAX} rules");
        checks.complain(
            "cdn",
            message,
            "join some with * and **: every request is compared with all of them",
        );
    }
    for (index, host) in named.into_iter().enumerate() {
        if let Err(error) = hosts.add(&host.host, &host.cdn) {
            checks.complain(&format!("cdn.hosts[{index}]"), error.to_string(), "see docs/cdn-logs.md");
        }
    }
    let trusted = written.trusted_proxies.unwrap_or(0);
    if trusted > PROXIES_MAX {
        let message = format!("{trusted} proxies in a row");
        checks.complain("cdn.trusted_proxies", message, "count those of your own between viewer and CDN");
    }
    Cdn {
        content: ContentRules::new(content),
        hosts,
        trusted_proxies: usize::try_from(trusted).unwrap_or(0),
    }
}
