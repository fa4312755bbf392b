//! What the settings say of CDN logs: names of content and of CDNs, proxies of one's own, and what of queries,
//! cookies and referrers is kept.
//!
//! Stands beside `sources`, which says where logs are read.

use super::Checks;
use super::file::{CdnFile, ReferrerFile};
use crate::enrich::names::{CdnNames, ContentRule, ContentRules};
use crate::privacy::lists::{Lists, Referrer};

/// Rules are searched in order for every request.
const RULES_MAX: usize = 64;
/// More proxies in a row than anybody has.
const PROXIES_MAX: u64 = 16;
/// Names are compared with every parameter of every query.
const NAMES_MAX: usize = 64;
/// The parameter that is kept without being listed.
const CMCD: &str = "CMCD";

/// How requests are named.
#[derive(Debug, Clone, PartialEq)]
pub struct Cdn {
    pub content: ContentRules,
    pub hosts: CdnNames,
    /// Proxies of one's own between viewer and CDN; 0: `X-Forwarded-For` is not believed.
    pub trusted_proxies: usize,
    /// What is stored of cookies, queries and referrers.
    pub lists: Lists,
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
    let lists = Lists {
        keep_query: names("cdn.keep_query", written.keep_query, checks),
        keep_cookies: names("cdn.keep_cookies", written.keep_cookies, checks),
        referrer: match written.referrer.unwrap_or_default() {
            ReferrerFile::Origin => Referrer::Origin,
            ReferrerFile::Drop => Referrer::Drop,
            ReferrerFile::Keep => Referrer::Keep,
        },
    };
    Cdn {
        content: ContentRules::new(content),
        hosts,
        trusted_proxies: usize::try_from(trusted).unwrap_or(0),
        lists,
    }
}

/// Names of parameters or cookies.
fn names(key: &str, written: Option<Vec<String>>, checks: &mut Checks) -> Vec<String> {
    let names = written.unwrap_or_default();
    if names.len() > NAMES_MAX {
        checks.complain(key, format!("more than {NAMES_MAX} names"), "keep what a report needs");
    }
    for (index, name) in names.iter().enumerate() {
        let is_name = !name.is_empty() && !name.contains(['=', '&', ';', '%', '?', ' ', '*']);
        if !is_name || name == CMCD {
            let fix = "write one whole name, not encoded; CMCD is kept without being listed";
            checks.complain(&format!("{key}[{index}]"), "not a name that can be listed", fix);
        }
    }
    names
}
