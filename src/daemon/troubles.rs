//! What is wrong with the sources, as the person on duty should see it: from the first complaint until
//! the source gives records again, or has been silent about it for long.
//!
//! Stands between the reader's complaints and health and log. Pure: time is passed in.
//!
//! Invariant: one complaint a source, the newest; it is logged when it begins or changes, not at every try.

use std::collections::BTreeMap;

use crate::source::SourceError;

/// A complaint that is not repeated is over after this time: longer than the longest wait between two
/// tries of any source, which is a minute.
const STANDS_MS: i64 = 90_000;

/// The standing complaints by the name of their source.
#[derive(Debug, Default)]
pub struct Troubles {
    standing: BTreeMap<String, Standing>,
}

#[derive(Debug)]
struct Standing {
    complaint: SourceError,
    heard_ms: i64,
}

impl Troubles {
    /// Takes what a turn of the loop brought; returns the complaints that are new.
    pub fn hear(&mut self, complaints: Vec<SourceError>, gave_records: impl Fn(&str) -> bool, now_ms: i64) -> Vec<SourceError> {
        self.standing
            .retain(|name, standing| !gave_records(name) && now_ms - standing.heard_ms < STANDS_MS);
        let mut new = Vec::new();
        for complaint in complaints {
            let standing = Standing {
                complaint: complaint.clone(),
                heard_ms: now_ms,
            };
            let before = self.standing.insert(complaint.source_name.clone(), standing);
            if before.is_none_or(|before| before.complaint != complaint) {
                new.push(complaint);
            }
        }
        new
    }

    pub fn of(&self, source_name: &str) -> Option<&SourceError> {
        Some(&self.standing.get(source_name)?.complaint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(source_name: &str, what: &str) -> SourceError {
        SourceError {
            source_name: source_name.to_owned(),
            what: what.to_owned(),
            advice: "look".to_owned(),
        }
    }

    /// What is logged of these complaints, and whether the source `a` is in trouble then.
    fn check(troubles: &mut Troubles, at_ms: i64, whats: &[&str], gives: bool, expected: (&[&str], bool)) {
        let complaints = whats.iter().map(|what| complaint("a", what)).collect();
        let new = troubles.hear(complaints, |name| gives && name == "a", at_ms);
        let new: Vec<&str> = new.iter().map(|complaint| complaint.what.as_str()).collect();
        assert_eq!((&new[..], troubles.of("a").is_some()), expected, "at {at_ms}");
    }

    #[test]
    fn a_complaint_stands_between_two_tries_and_is_logged_once() {
        let mut troubles = Troubles::default();
        check(&mut troubles, 0, &[], false, (&[], false));
        check(&mut troubles, 1_000, &["down"], false, (&["down"], true));
        check(&mut troubles, 2_000, &[], false, (&[], true));
        check(&mut troubles, 61_000, &["down"], false, (&[], true));
        check(&mut troubles, 62_000, &["denied"], false, (&["denied"], true));
        check(&mut troubles, 63_000, &[], true, (&[], false));
        check(&mut troubles, 64_000, &["down"], true, (&["down"], true));
        check(&mut troubles, 64_000 + STANDS_MS - 1, &[], false, (&[], true));
        check(&mut troubles, 64_000 + STANDS_MS, &[], false, (&[], false));
    }

    #[test]
    fn a_source_is_not_blamed_for_another() {
        let mut troubles = Troubles::default();
        troubles.hear(vec![complaint("a", "down"), complaint("b", "down")], |_| false, 0);
        troubles.hear(Vec::new(), |name| name == "b", 1);
        assert_eq!((troubles.of("a").is_some(), troubles.of("b").is_some()), (true, false));
    }
}
