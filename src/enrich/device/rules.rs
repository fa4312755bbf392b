//! Names of browsers and crawlers by uap-core's rules (`regexes.yaml`), where the settings name a file of them.
//!
//! `device` asks here first. The rules are a published set that changes often, so they are read like a
//! database and not compiled in; what they do not know, and everything without them, is told by woothee
//! and our own rows.
//!
//! Invariant: a file is used only after each of its expressions was compiled.
//! Invariant: a browser goes by one name on every device, as in `programs`.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use serde::Deserialize;
use ua_parser::user_agent::{Builder, Extractor, Parser};

/// Largest file read: the published one has 223 KB.
const RULES_BYTES_MAX: u64 = 4 << 20;
/// What uap-core says of what none of its rules knows.
const UNKNOWN: &str = "Other";
/// As much of an expression as tells which it is.
const TOLD_LETTERS_MAX: usize = 60;

/// Browsers that uap-core names by device, and the name that they all go by.
const ONE_NAME: &[(&str, &str)] = &[
    ("Chrome Mobile", "Chrome"),
    ("Chrome Mobile iOS", "Chrome"),
    ("Chrome Mobile WebView", "Chrome"),
    ("DuckDuckGo Mobile", "DuckDuckGo"),
    ("Ecosia Android", "Ecosia"),
    ("Ecosia iOS", "Ecosia"),
    ("Edge Mobile", "Edge"),
    ("Firefox Mobile", "Firefox"),
    ("Firefox iOS", "Firefox"),
    ("IE Mobile", "IE"),
    ("Mobile Safari", "Safari"),
    ("Mobile Safari UI/WKWebView", "Safari"),
    ("Opera Mobile", "Opera"),
    ("Opera Tablet", "Opera"),
    ("QQ Browser Mobile", "QQ Browser"),
];

/// Why a file of rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableRules {
    #[error("it does not exist")]
    Missing,
    #[error("it cannot be read ({0})")]
    Unreadable(io::Error),
    #[error("it has {bytes} bytes, more than the {RULES_BYTES_MAX} that are read")]
    TooLarge { bytes: u64 },
    #[error("it is not what uap-core publishes as regexes.yaml ({0})")]
    OtherContent(String),
    #[error("rule {number} of user_agent_parsers, `{expression}`, cannot be used ({problem})")]
    BadRule {
        number: usize,
        expression: String,
        problem: ua_parser::Error,
    },
    #[error("its rules together cannot be used ({0})")]
    Unbuildable(ua_parser::BuildError),
}

impl From<io::Error> for UnusableRules {
    fn from(error: io::Error) -> UnusableRules {
        match error.kind() {
            io::ErrorKind::NotFound => UnusableRules::Missing,
            _ => UnusableRules::Unreadable(error),
        }
    }
}

/// The part of the file that is used; it holds rules for systems and devices too.
#[derive(Deserialize)]
struct RulesFile {
    user_agent_parsers: Vec<Parser<'static>>,
}

/// Compiled rules.
pub(super) struct Rules(Extractor<'static>);

impl std::fmt::Debug for Rules {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Rules")
    }
}

impl Rules {
    pub(super) fn read(path: &Path) -> Result<Rules, UnusableRules> {
        let bytes = std::fs::metadata(path)?.len();
        if bytes > RULES_BYTES_MAX {
            return Err(UnusableRules::TooLarge { bytes });
        }
        Rules::parse(&std::fs::read_to_string(path)?)
    }

    fn parse(yaml: &str) -> Result<Rules, UnusableRules> {
        let file: RulesFile = serde_saphyr::from_str(yaml).map_err(|error| UnusableRules::OtherContent(error.to_string()))?;
        if file.user_agent_parsers.is_empty() {
            return Err(UnusableRules::OtherContent("user_agent_parsers is empty".to_owned()));
        }
        let mut builder = Builder::new();
        for (at, rule) in file.user_agent_parsers.into_iter().enumerate() {
            let expression = rule.regex.chars().take(TOLD_LETTERS_MAX).collect();
            builder = builder.push(rule).map_err(|problem| UnusableRules::BadRule {
                number: at + 1,
                expression,
                problem,
            })?;
        }
        Ok(Rules(builder.build().map_err(UnusableRules::Unbuildable)?))
    }

    /// The browser, crawler or library that a user agent names.
    pub(super) fn name(&self, text: &str) -> Option<String> {
        let family = self.0.extract(text)?.family;
        let one = ONE_NAME
            .iter()
            .find(|(theirs, _)| *theirs == family)
            .map(|(_, ours)| Cow::Borrowed(*ours));
        let name = one.unwrap_or(family);
        (!name.is_empty() && name != UNKNOWN).then(|| name.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "user_agent_parsers:
  - regex: '(CriOS)/(\\d+)'
    family_replacement: 'Chrome Mobile iOS'
  - regex: '(Example)-TV/(\\d+)'
os_parsers: [{regex: 'x'}]
";

    #[test]
    fn the_first_rule_that_matches_names_a_browser_by_one_name() {
        let rules = Rules::parse(TWO).unwrap();
        assert_eq!(rules.name("Mozilla/5.0 CriOS/80 Example-TV/1").as_deref(), Some("Chrome"));
        assert_eq!(rules.name("Example-TV/7").as_deref(), Some("Example"));
        assert_eq!(rules.name("Firefox/83.0"), None);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told() {
        let told = |yaml: &str| Rules::parse(yaml).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told("user_agent_parsers: []").contains("user_agent_parsers is empty"));
        assert!(told("groups: []").contains("regexes.yaml"));
        assert!(told("[").contains("regexes.yaml"));
        let bad = told("user_agent_parsers: [{regex: 'a(b)'}, {regex: '(c'}]");
        assert!(bad.contains("rule 2 of user_agent_parsers, `(c`"), "{bad}");
        let folder = tempfile::tempdir().unwrap();
        let missing = Rules::read(&folder.path().join("none.yaml")).unwrap_err();
        assert_eq!(missing.to_string(), "it does not exist");
    }
}
