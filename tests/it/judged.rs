//! The shipped rules, judged over gold that is drawn: from gold onward the code of production.
//!
//! A story is an hour and some that is as usual but for some minutes. `incidents.rs` and `no_incident.rs` tell them.

use std::ops::Range;

use playhead::alert::replay::{Firing, firings};
use playhead::alert::rule::RuleSet;
use playhead::lake::tables::TableSpec;
use playhead::sql::{self, QueryLimits, Session};
use playhead::watch::{End, Judge};
use playhead::{builtin, daemon};

use crate::alerts::shipped;
use crate::gold_model::{Gold, Leaf, MINUTE_MS, Random, Table, World, place};

/// 2026-11-01T20:00:00Z.
pub const T0: i64 = 1_793_563_200_000;
pub const DAY_MS: i64 = 1_440 * MINUTE_MS;
/// Minutes since T0: drawn five at a time up to here, then one by one; judged from; the fault begins.
const ONE_BY_ONE: i64 = 40;
const JUDGED_FROM: i64 = 60;
pub const BEGINS: i64 = 70;
/// What a fault lasts, and what is judged after it.
pub const LASTS: i64 = 20;
pub const LASTS_FOR_PEERS: i64 = 40;
const AFTER: i64 = 25;
/// Days before with requests in the hours of the story: what the CDN's rule calls usual.
const DAYS_BEFORE: i64 = 4;
pub const LIMITS: QueryLimits = QueryLimits {
    memory_bytes: 512 << 20,
    timeout: std::time::Duration::from_secs(120),
};

/// How many of 200, by `PLAYHEAD_INCIDENTS`.
#[allow(clippy::disallowed_methods)] // Tests have no settings; the variable is documented above.
pub fn wanted() -> Option<usize> {
    let number = std::env::var("PLAYHEAD_INCIDENTS").ok()?;
    Some(number.parse().expect("PLAYHEAD_INCIDENTS is a whole number"))
}

/// What is known of the rule over a table.
pub fn rule_of(table: Table) -> (&'static str, [&'static str; 2], i64, i64) {
    match table {
        Table::Errors => ("playback-error-share", ["device_type", "app_name"], 5, 2),
        Table::Cdn => ("cdn-latency-baseline", ["cdn", "country"], 5, 3),
        Table::Playback => ("isp-rebuffering-peers", ["isp", "country"], 15, 15),
    }
}

pub type Group = Vec<&'static str>;

pub fn group_of(table: Table, leaf: &Leaf) -> Group {
    rule_of(table).1.map(|dim| leaf.values[place(table, dim)]).to_vec()
}

/// The shipped rules with the tables that they read.
pub struct Shipped {
    specs: Vec<TableSpec>,
    rules: RuleSet,
}

impl Shipped {
    pub async fn new(errors: &[(&str, &str)]) -> Shipped {
        let files = builtin::PIPELINES.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let pipelines = sql::pipeline::parse_all(&files).expect("the shipped pipelines are right");
        let mut specs = daemon::gold_specs(&pipelines).await.expect("the shipped pipelines are right");
        specs.retain(|spec| {
            [
                "gold.errors_1m",
                "gold.cdn_1m",
                "gold.playback_1m",
                "gold.cdn_1d",
                "gold.playback_1d",
            ]
            .contains(&spec.name.as_str())
        });
        let files = ["playback_errors.yaml", "cdn_latency.yaml", "isp_rebuffering.yaml"].map(|name| {
            let replaced = if name == "playback_errors.yaml" { errors } else { &[] };
            (name.to_owned(), shipped(name, replaced))
        });
        let rules = daemon::rules_in(&files, &specs).await;
        Shipped {
            rules: rules.expect("the shipped rules are right"),
            specs,
        }
    }

    pub async fn session(&self, gold: Gold) -> Session {
        let rows = gold.batches();
        sql::gold_of(&self.specs, &rows).await.expect("rows in memory can be registered")
    }

    /// What fires at these window ends, minutes since T0.
    pub async fn firings(&self, gold: Gold, ends: Range<i64>) -> Vec<Firing> {
        let context = self.session(gold).await;
        let ends: Vec<End> = ends
            .map(|minute| End {
                at_ms: T0 + minute * MINUTE_MS,
                has_rows: true,
            })
            .collect();
        let mut judge = Judge::new(self.rules.clone(), &[]);
        let mut events = Vec::new();
        for ends in ends.chunks(1_440) {
            events.extend(judge.judge(&context, LIMITS, ends).await.expect("rows in memory can be read").0);
        }
        firings(&events)
    }

    /// The same of a story: everybody as usual, but for these minutes.
    pub async fn story(&self, random: &mut Random, usual: &World, now: &World, minutes: Range<i64>) -> Vec<Firing> {
        let mut gold = Gold::default();
        history(random, &mut gold, usual, 3);
        let end = minutes.end + AFTER;
        for table in Table::ALL {
            for minute in (0..ONE_BY_ONE).step_by(5) {
                gold.count(random, usual, table, "1m", T0 + minute * MINUTE_MS, 5.0);
            }
            for minute in ONE_BY_ONE..end {
                let world = if minutes.contains(&minute) { now } else { usual };
                gold.count(random, world, table, "1m", T0 + minute * MINUTE_MS, 1.0);
            }
        }
        self.firings(gold, JUDGED_FROM..end + 1).await
    }
}

/// Requests in some hours from T0's on, of the days before.
pub fn history(random: &mut Random, gold: &mut Gold, usual: &World, hours: i64) {
    for day in 1..=DAYS_BEFORE {
        for hour in 0..hours {
            let start_ms = T0 - day * DAY_MS + hour * 60 * MINUTE_MS;
            gold.count(random, usual, Table::Cdn, "1m", start_ms, 60.0);
        }
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.expect("a runtime can be had")
}
