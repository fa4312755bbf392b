//! Discovery by listing: every while, all keys under a prefix, compared with the ledger.
//!
//! Serves the objects source. Names order nothing: what the ledger does not know is announced, the
//! earliest written first. A prefix with `{yyyy}`, `{MM}`, `{dd}`, `{HH}` is listed for the last hours
//! only, so that a bucket of years costs what its last day costs.
//!
//! Invariant: a listing holds at most `CANDIDATES_MAX` names; what is left out comes with the next one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::fetch::{FetchError, Object};
use super::flight::{Announcer, Standing};

/// Names of one listing that are held at once, about 20 MiB: the earliest written are kept.
const CANDIDATES_MAX: usize = 100_000;
/// Objects that are looked into side by side.
const LOOKS_AT_ONCE: usize = 8;
/// Hours that a template is filled in for at most: a quarter.
const HOURS_MAX: i64 = 24 * 92;

/// Which keys are objects of ours.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The start of the keys, with or without places for the hour.
    pub prefix: String,
    /// Ends of the keys, one of which must match; none: every key but hidden and unfinished ones.
    pub suffixes: Vec<String>,
}

impl Selection {
    /// Whether a key ends as it should. Hidden and temporary names are somebody's unfinished writing.
    pub fn takes_name(&self, key: &str) -> bool {
        let name = key.rsplit('/').next().unwrap_or(key);
        let is_unfinished = name.starts_with('.') || name.starts_with('_') || name.ends_with(".tmp") || name.ends_with(".part");
        !is_unfinished && (self.suffixes.is_empty() || self.suffixes.iter().any(|suffix| key.ends_with(suffix.as_str())))
    }

    /// Whether a key begins as it should, whatever its hour.
    pub fn takes_start(&self, key: &str) -> bool {
        let fixed = self.prefix.split('{').next().unwrap_or_default();
        key.starts_with(fixed)
    }
}

/// The starts of the keys to list: of the hours from `late` ago until now.
pub fn prefixes(template: &str, now_ms: i64, late: Duration) -> Vec<String> {
    if !template.contains('{') {
        return vec![template.to_string()];
    }
    let Some(now) = DateTime::from_timestamp_millis(now_ms) else {
        return Vec::new();
    };
    let hours = i64::try_from(late.as_secs().div_ceil(3_600)).unwrap_or(HOURS_MAX).min(HOURS_MAX);
    let mut prefixes: Vec<String> = (0..=hours)
        .map(|hours_ago| filled(template, now - TimeDelta::hours(hours_ago)))
        .collect();
    prefixes.sort();
    prefixes.dedup();
    prefixes
}

fn filled(template: &str, hour: DateTime<Utc>) -> String {
    let places = [("{yyyy}", "%Y"), ("{MM}", "%m"), ("{dd}", "%d"), ("{HH}", "%H")];
    places.iter().fold(template.to_string(), |text, (place, format)| {
        text.replace(place, &hour.format(format).to_string())
    })
}

/// The task that lists.
pub struct Lister {
    pub announcer: Announcer,
    /// With the folder of the URL before its prefix.
    pub selection: Selection,
    pub every: Duration,
    pub late: Duration,
}

impl Lister {
    pub async fn run(self) {
        // What is wrong is told once and not with every listing: the text holds how long each one took.
        let mut told = None;
        loop {
            let began = Instant::now();
            let failed = self.round().await.err();
            let kind = failed.as_ref().map(std::mem::discriminant);
            if let Some(error) = failed.filter(|_| kind != told) {
                let what = format!("cannot list `{}`: {error}", self.selection.prefix);
                self.announcer
                    .report(what, "check the bucket and that s3:ListBucket is allowed; it is tried again");
            }
            if kind.is_none() && told.is_some() {
                tracing::info!(source = self.announcer.source_name, "the objects can be listed again");
            }
            told = kind;
            tokio::time::sleep(self.every.saturating_sub(began.elapsed())).await;
        }
    }

    async fn round(&self) -> Result<(), FetchError> {
        let mut candidates = Candidates::default();
        let mut too_old = 0;
        for prefix in prefixes(&self.selection.prefix, self.announcer.flight.now_ms(), self.late) {
            let mut listed = self.announcer.bucket.list(&prefix);
            while let Some(meta) = listed.next().await {
                let meta = meta?;
                match self.standing(&meta) {
                    Some(Standing::Wanted) => candidates.add(meta),
                    Some(Standing::TooOld) => too_old += 1,
                    Some(Standing::Finished) | None => {}
                }
            }
        }
        self.announcer.flight.count_too_old(too_old);
        let looks = futures_util::stream::iter(candidates.by_time);
        looks
            .for_each_concurrent(LOOKS_AT_ONCE, |(_, path)| async move {
                self.announcer.announce(&path, None).await;
            })
            .await;
        Ok(())
    }

    /// `None`: not ours, under way already, or given up.
    fn standing(&self, meta: &ObjectMeta) -> Option<Standing> {
        if meta.size == 0 || !self.selection.takes_name(meta.location.as_ref()) {
            return None;
        }
        let object = Object::of(&self.announcer.bucket, meta);
        self.announcer.flight.standing(&object.partition, object.last_modified_ms)
    }
}

/// The earliest written of what was listed.
#[derive(Default)]
struct Candidates {
    by_time: BTreeSet<(i64, Path)>,
}

impl Candidates {
    fn add(&mut self, meta: ObjectMeta) {
        self.by_time.insert((meta.last_modified.timestamp_millis(), meta.location));
        if self.by_time.len() > CANDIDATES_MAX {
            self.by_time.pop_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21 01:30 UTC.
    const NOW_MS: i64 = 1_795_224_600_000;

    fn check(template: &str, late_hours: u64, expected: &[&str]) {
        let got = prefixes(template, NOW_MS, Duration::from_hours(late_hours));
        assert_eq!(got, expected, "{template}");
    }

    #[test]
    fn a_template_is_filled_in_for_the_last_hours() {
        check("logs/", 2, &["logs/"]);
        check(
            "E1.{yyyy}-{MM}-{dd}-{HH}.",
            2,
            &["E1.2026-11-20-23.", "E1.2026-11-21-00.", "E1.2026-11-21-01."],
        );
        check("l/{yyyy}/{MM}/{dd}/", 26, &["l/2026/11/19/", "l/2026/11/20/", "l/2026/11/21/"]);
        check("l/{yyyy}/", 26, &["l/2026/"]);
    }

    #[test]
    fn the_hours_of_a_template_are_bounded() {
        assert_eq!(
            prefixes("{yyyy}{MM}{dd}{HH}", NOW_MS, Duration::from_secs(u64::MAX)).len(),
            24 * 92 + 1
        );
    }

    #[test]
    fn unfinished_and_foreign_names_are_left_alone() {
        let all = Selection {
            prefix: "logs/{yyyy}".to_string(),
            suffixes: Vec::new(),
        };
        let packed = Selection {
            suffixes: vec![".gz".to_string(), ".parquet".to_string()],
            ..all.clone()
        };
        for (key, of_all, of_packed) in [
            ("logs/a.gz", true, true),
            ("logs/a.json", true, false),
            ("logs/_SUCCESS", false, false),
            ("logs/.a.gz", false, false),
            ("logs/a.gz.tmp", false, false),
            ("logs/_x/a.parquet", true, true),
        ] {
            assert_eq!((all.takes_name(key), packed.takes_name(key)), (of_all, of_packed), "{key}");
        }
        assert!(all.takes_start("logs/2026/a"));
        assert!(!all.takes_start("other/2026/a"));
    }
}
