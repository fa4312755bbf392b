//! Is an error a fault of the delivery, or a decision of the service?
//!
//! `enrich` asks here for each error event. The rules are data (`error_classes.yaml`), in order; the
//! first that fits decides (events and metrics, 3.3).
//!
//! Invariant: an error that no rule knows is `Unknown`; it is never guessed from a bare number.
//! Invariant: an answer depends on code, category, message and player of one event, and on nothing else.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::event::{ErrorClass, EventKind, PlayerEvent};

/// The rules of this build.
static SHIPPED: LazyLock<ErrorClasses> =
    LazyLock::new(|| ErrorClasses::parse(include_str!("error_classes.yaml")).expect("a test reads the rules that are compiled in"));

/// Characters of a message that are looked at: what an error is stands at its beginning.
const MESSAGE_CHARS_MAX: usize = 512;

/// The class of an error by the shipped rules; `None` if the event is about no error.
pub fn classify(event: &PlayerEvent) -> Option<ErrorClass> {
    SHIPPED.classify(event)
}

/// What is wrong with a list of rules, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErrorClassesError {
    #[error("the error classes cannot be read: {0}; correct the YAML there or just above")]
    NotYaml(String),
    #[error("error class rule `{rule}`: {problem}; {fix}")]
    BadRule {
        rule: String,
        problem: &'static str,
        fix: &'static str,
    },
}

/// A class that a rule may give; `unknown` is what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Class {
    Technical,
    Business,
}

impl Class {
    fn as_error_class(self) -> ErrorClass {
        match self {
            Class::Technical => ErrorClass::Technical,
            Class::Business => ErrorClass::Business,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    rule: String,
    class: Class,
    #[serde(default)]
    player: Vec<String>,
    #[serde(default)]
    code: Option<Pattern>,
    #[serde(default)]
    category: Option<Pattern>,
    #[serde(default)]
    message: Option<Pattern>,
}

/// What a text must be like: one of these is enough.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Pattern {
    equals: Vec<String>,
    prefix: Vec<String>,
    contains: Vec<String>,
    word: Vec<String>,
    between: Option<(i64, i64)>,
}

/// Rules in order.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorClasses {
    rules: Vec<Rule>,
}

impl ErrorClasses {
    /// Rules as YAML.
    ///
    /// Errors: the text is not a list of rules, or a rule could never fit or would fit everything.
    pub fn parse(yaml: &str) -> Result<ErrorClasses, ErrorClassesError> {
        let rules: Vec<Rule> = serde_saphyr::from_str(yaml).map_err(|error| ErrorClassesError::NotYaml(error.to_string()))?;
        for (position, rule) in rules.iter().enumerate() {
            let is_twice = rules[..position].iter().any(|earlier| earlier.rule == rule.rule);
            let complaint = if is_twice {
                Some(("another rule has this name", "give each rule a name of its own"))
            } else {
                rule.complaint()
            };
            if let Some((problem, fix)) = complaint {
                let rule = rule.rule.clone();
                return Err(ErrorClassesError::BadRule { rule, problem, fix });
            }
        }
        Ok(ErrorClasses { rules })
    }

    /// The class of an error; `None` if the event is about no error.
    pub fn classify(&self, event: &PlayerEvent) -> Option<ErrorClass> {
        let is_error = event.kind == Some(EventKind::PlaybackError) || event.end_reason == Some("error");
        if !is_error {
            return None;
        }
        let error = Error::of(event);
        let rule = self.rules.iter().find(|rule| rule.fits(&error));
        Some(rule.map_or(ErrorClass::Unknown, |rule| rule.class.as_error_class()))
    }
}

impl Rule {
    fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        [&self.code, &self.category, &self.message].into_iter().flatten()
    }

    /// What makes the rule unusable, and what to do.
    fn complaint(&self) -> Option<(&'static str, &'static str)> {
        if self.patterns().next().is_none() {
            return Some(("it asks nothing of the error", "add code, category or message"));
        }
        self.patterns().find_map(Pattern::complaint)
    }

    fn fits(&self, error: &Error) -> bool {
        let is_player = self.player.is_empty() || self.player.iter().any(|name| error.player.contains(name));
        let fits = |pattern: &Option<Pattern>, texts: &[Text]| {
            let Some(pattern) = pattern else {
                return true;
            };
            texts.iter().any(|text| pattern.fits(text))
        };
        is_player && fits(&self.code, &error.codes) && fits(&self.category, &error.category) && fits(&self.message, &error.message)
    }
}

impl Pattern {
    fn complaint(&self) -> Option<(&'static str, &'static str)> {
        let squeezed = || self.equals.iter().chain(&self.prefix).chain(&self.contains);
        if squeezed().next().is_none() && self.word.is_empty() && self.between.is_none() {
            return Some(("a pattern is empty", "write equals, prefix, contains, word or between"));
        }
        if squeezed().any(|text| text.is_empty() || *text != squeeze(text)) {
            let fix = "write it in lower case, letters and digits alone: geoblock, not Geo-Block";
            return Some(("a pattern can never fit", fix));
        }
        if self.word.iter().any(|word| word.is_empty() || *word != word.to_lowercase()) {
            return Some(("a word can never fit", "write it in lower case"));
        }
        if self.between.is_some_and(|(first, last)| first > last) {
            return Some(("between can never fit", "write the smaller number first"));
        }
        None
    }

    fn fits(&self, text: &Text) -> bool {
        let squeezed = text.squeezed.as_str();
        self.equals.iter().any(|pattern| squeezed == pattern)
            || self.prefix.iter().any(|pattern| squeezed.starts_with(pattern.as_str()))
            || self.contains.iter().any(|pattern| squeezed.contains(pattern.as_str()))
            || self.word.iter().any(|word| holds_word(&text.lower, word))
            || self
                .between
                .is_some_and(|(first, last)| text.number.is_some_and(|number| (first..=last).contains(&number)))
    }
}

/// A text of an error, ready for the patterns.
struct Text {
    lower: String,
    /// Letters and digits alone.
    squeezed: String,
    number: Option<i64>,
}

impl Text {
    fn of(text: &str) -> Text {
        let lower: String = text.chars().take(MESSAGE_CHARS_MAX).flat_map(char::to_lowercase).collect();
        Text {
            squeezed: squeeze(&lower),
            number: text.trim().parse().ok(),
            lower,
        }
    }
}

struct Error {
    player: String,
    codes: Vec<Text>,
    category: Vec<Text>,
    message: Vec<Text>,
}

impl Error {
    fn of(event: &PlayerEvent) -> Error {
        let texts = |text: &Option<String>| text.iter().map(|text| Text::of(text)).collect();
        Error {
            player: event.player_name.as_deref().unwrap_or_default().to_lowercase(),
            codes: event.error_codes.iter().map(|code| Text::of(code)).collect(),
            category: texts(&event.error_category),
            message: texts(&event.error_message),
        }
    }
}

/// Lower case, letters and digits alone.
fn squeeze(text: &str) -> String {
    text.chars()
        .flat_map(char::to_lowercase)
        .filter(|letter| letter.is_alphanumeric())
        .collect()
}

/// Is the word in the text with no letter or digit on either side?
fn holds_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(start, found)| {
        let before = text[..start].chars().next_back();
        let after = text[start + found.len()..].chars().next();
        let is_edge = |letter: Option<char>| letter.is_none_or(|letter| !letter.is_alphanumeric());
        is_edge(before) && is_edge(after)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(player: &str, code: &str, category: &str, message: &str) -> PlayerEvent {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        PlayerEvent {
            kind: Some(EventKind::PlaybackError),
            player_name: text(player),
            error_codes: text(code).into_iter().collect(),
            error_category: text(category),
            error_message: text(message),
            ..PlayerEvent::default()
        }
    }

    /// The class of an error of a player that does not say its name.
    fn check(code: &str, category: &str, message: &str, expected: ErrorClass) {
        check_of("", code, category, message, expected);
    }

    fn check_of(player: &str, code: &str, category: &str, message: &str, expected: ErrorClass) {
        let class = classify(&error(player, code, category, message));
        assert_eq!(class, Some(expected), "{player} {code} {category} {message}");
    }

    #[test]
    fn decisions_of_the_service_are_business() {
        let business = ErrorClass::Business;
        check("451", "", "", business);
        check("GEO_BLOCKED", "NETWORK", "", business);
        check("", "", "This title is not available in your country", business);
        check("E1", "Geo-Restriction", "", business);
        check("TooManyStreams", "", "", business);
        check("", "concurrency", "", business);
        check("", "", "Device limit reached", business);
        check("PARENTAL_PIN_REQUIRED", "", "", business);
        check("NOT_ENTITLED", "", "", business);
        check("", "Entitlement", "", business);
        check("SUBSCRIPTION_EXPIRED", "", "", business);
        check("", "", "Your subscription has lapsed: subscription required", business);
        check("token_expired", "NETWORK", "", business);
        check("", "", "The token has expired", business);
    }

    #[test]
    fn a_licence_refused_is_business_and_one_not_delivered_is_not() {
        let (business, technical) = (ErrorClass::Business, ErrorClass::Technical);
        check("403", "DRM", "", business);
        check("401", "license", "", business);
        check("6", "DRM", "license request answered 403", business);
        check(
            "keySystemLicenseRequestFailed",
            "keySystemError",
            "status 401 (Unauthorized)",
            business,
        );
        check_of("Shaka Player", "6007", "6", "HTTP 403", business);
        check_of("dash.js", "114", "", "DRM: status 403", business);
        check("500", "DRM", "", technical);
        check("6", "DRM", "took 14031 ms", technical);
        check("keySystemLicenseRequestFailed", "keySystemError", "status 500", technical);
        check_of("shaka", "6007", "6", "HTTP 500", technical);
    }

    #[test]
    fn faults_of_the_delivery_are_technical() {
        let technical = ErrorClass::Technical;
        check("", "NETWORK", "", technical);
        check("", "DECODER", "", technical);
        check("404", "", "", technical);
        check("503", "", "", technical);
        check("fragLoadTimeOut", "", "", technical);
        check("bufferAppendError", "", "", technical);
        check("7", "mediaError", "", technical);
        check("MEDIA_ERR_DECODE", "", "", technical);
        check("3", "", "PIPELINE_ERROR_DECODE: corrupt frame", technical);
        check("ERROR_CODE_IO_BAD_HTTP_STATUS", "", "", technical);
        check("", "", "The request timed out.", technical);
        check_of("shaka-player", "1001", "1", "", technical);
        check_of("dashjs", "27", "", "", technical);
        check_of("ExoPlayer", "4001", "", "", technical);
    }

    #[test]
    fn what_no_rule_knows_is_unknown() {
        let unknown = ErrorClass::Unknown;
        check("", "", "", unknown);
        check("27", "", "", unknown);
        check("1001", "", "", unknown);
        check("403", "", "", unknown);
        check("E-17", "", "Something went wrong", unknown);
        check("MEDIA_ERR_ABORTED", "", "", unknown);
        check("", "", "Current position is not at the end", unknown);
        check_of("shaka", "27", "", "", unknown);
        check_of("shaka", "7000", "7", "", unknown);
        check_of("hls.js", "1001", "", "", unknown);
    }

    #[test]
    fn only_errors_have_a_class_and_any_code_counts() {
        let mut event = error("", "404", "", "");
        event.error_codes.insert(0, "E-17".to_owned());
        assert_eq!(classify(&event), Some(ErrorClass::Technical));
        event.kind = Some(EventKind::Heartbeat);
        assert_eq!(classify(&event), None);
        event.kind = Some(EventKind::SessionEnd);
        event.end_reason = Some("user_quit");
        assert_eq!(classify(&event), None);
        event.end_reason = Some("error");
        assert_eq!(classify(&event), Some(ErrorClass::Technical));
        event.error_codes.clear();
        assert_eq!(classify(&event), Some(ErrorClass::Unknown));
    }

    #[test]
    fn every_shipped_rule_can_decide() {
        let rules = &SHIPPED.rules;
        for rule in rules {
            let sample = |pattern: &Option<Pattern>| {
                let Some(pattern) = pattern else {
                    return vec![String::new()];
                };
                let number = pattern.between.map(|(first, _)| first.to_string());
                let texts = pattern
                    .equals
                    .iter()
                    .chain(&pattern.prefix)
                    .chain(&pattern.contains)
                    .chain(&pattern.word);
                texts.cloned().chain(number).collect()
            };
            let player = rule.player.first().cloned().unwrap_or_default();
            for code in sample(&rule.code) {
                for category in sample(&rule.category) {
                    for message in sample(&rule.message) {
                        let error = Error::of(&error(&player, &code, &category, &message));
                        assert!(rule.fits(&error), "{} {code} {category} {message}", rule.rule);
                        let first = rules.iter().find(|rule| rule.fits(&error)).unwrap();
                        assert_eq!(first.class, rule.class, "{} is overruled by {}", rule.rule, first.rule);
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let yaml = "- {rule: a, class: business, code: {equals: [x]}}\n- {rule: b, class: technical, code: {contains: [x]}}";
        let rules = ErrorClasses::parse(yaml).unwrap();
        assert_eq!(rules.classify(&error("", "X", "", "")), Some(ErrorClass::Business));
        assert_eq!(rules.classify(&error("", "x-y", "", "")), Some(ErrorClass::Technical));
        assert_eq!(rules.classify(&error("", "y", "", "")), Some(ErrorClass::Unknown));
    }

    #[test]
    fn rules_that_cannot_be_used_say_which_and_what_to_do() {
        let check = |yaml: &str, expected: &str| {
            let error = ErrorClasses::parse(yaml).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let rule = |members: &str| format!("- {{rule: r, class: technical{members}}}");
        check(&rule(""), "error class rule `r`: it asks nothing of the error; add code");
        check(&rule(", code: {}"), "a pattern is empty");
        check(
            &rule(", code: {contains: [Geo-Block]}"),
            "a pattern can never fit; write it in lower case",
        );
        check(&rule(", message: {prefix: ['']}"), "a pattern can never fit");
        check(&rule(", message: {word: [HTTP]}"), "a word can never fit");
        check(&rule(", code: {between: [599, 500]}"), "between can never fit");
        check(&rule(", code: {like: [x]}"), "the error classes cannot be read: ");
        check(
            "- {rule: r, class: unknown, code: {equals: [x]}}",
            "the error classes cannot be read: ",
        );
        let twice = format!("{}\n{}", rule(", code: {equals: [x]}"), rule(", code: {equals: [y]}"));
        check(&twice, "error class rule `r`: another rule has this name");
    }

    proptest! {
        #[test]
        fn every_error_has_a_class(code in "\\PC{0,20}", category in "\\PC{0,20}", message in "\\PC{0,40}") {
            let class = classify(&error("shaka", &code, &category, &message));
            prop_assert!(class.is_some());
        }

        #[test]
        fn case_and_separators_of_a_name_do_not_matter(upper in any::<bool>(), separator in "[_. -]{0,2}") {
            let name = format!("geo{separator}blocked");
            let name = if upper { name.to_uppercase() } else { name };
            prop_assert_eq!(classify(&error("", &name, "", "")), Some(ErrorClass::Business));
        }
    }
}
