//! What the rules of identity need: network databases, rules of user agents and the key of the pseudonyms.
//!
//! Part of starting up. A database that cannot be read stops nothing; a key that cannot be read does,
//! for new pseudonyms would no longer match the old ones.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::config::{Config, Identity, PrivacyKey};
use crate::enrich::network::NetworkDatabases;
use crate::enrich::{Enricher, EnrichmentComplaint, EnrichmentFiles};
use crate::privacy::{IdentityPolicy, Privacy};

fn enrichment_files(config: &Config) -> EnrichmentFiles {
    EnrichmentFiles {
        network: NetworkDatabases {
            city: config.network.city.clone(),
            asn: config.network.asn.clone(),
            isp: config.network.isp.clone(),
        },
        user_agents: config.devices.user_agents.clone(),
    }
}

/// What is wrong with the files that enrich. They stop nothing: look-ups go without.
pub fn enrichment_complaints(config: &Config) -> Vec<String> {
    let (_, complaints) = Enricher::load(&enrichment_files(config));
    complaints.iter().map(ToString::to_string).collect()
}

pub(super) fn rules_of_identity(config: &Config) -> anyhow::Result<(Arc<Enricher>, Arc<Privacy>)> {
    let files = enrichment_files(config);
    if files.network == NetworkDatabases::default() {
        tracing::warn!(
            "no network database is set: country and ISP stay empty unless the sender gives them; set network.city and network.asn (MaxMind files)"
        );
    }
    let (enricher, complaints) = Enricher::load(&files);
    log_complaints(&complaints);
    let enricher = enricher
        .with_trusted_proxies(config.cdn.trusted_proxies)
        .with_names(config.cdn.content.clone(), config.cdn.hosts.clone());
    let policy = match config.privacy.identity {
        Identity::Pseudonym => IdentityPolicy::Pseudonym,
        Identity::Keep => IdentityPolicy::Keep,
    };
    let key = match &config.privacy.key {
        PrivacyKey::Given(key) => *key,
        PrivacyKey::File(path) => key_file(path)?,
    };
    let privacy = Privacy::new(policy, key).with_lists(config.cdn.lists.clone());
    Ok((Arc::new(enricher), Arc::new(privacy)))
}

pub(super) fn log_complaints(complaints: &[EnrichmentComplaint]) {
    for complaint in complaints {
        tracing::warn!("{complaint}");
    }
}

/// The key of pseudonyms: read, or made at first start, readable by its owner alone.
fn key_file(path: &Path) -> anyhow::Result<[u8; 32]> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse_key(text.trim()).with_context(|| {
            format!(
                "{} does not hold a key of 64 hex digits; restore it from a copy, or remove it to start with new pseudonyms",
                path.display()
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make_key(path),
        Err(error) => bail!(
            "cannot read the key file {}: {error}; check its owner and permissions",
            path.display()
        ),
    }
}

fn parse_key(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut key = [0u8; 32];
    for (byte, digits) in key.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

fn make_key(path: &Path) -> anyhow::Result<[u8; 32]> {
    use std::io::Write;
    let mut key = [0u8; 32];
    getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("the system gives no random bytes: {error}"))?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options
        .open(path)
        .with_context(|| format!("cannot create the key file {}", path.display()))?;
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(file, "{hex}").with_context(|| format!("cannot write the key file {}", path.display()))?;
    file.sync_all()
        .with_context(|| format!("cannot write the key file {}", path.display()))?;
    Ok(key)
}
