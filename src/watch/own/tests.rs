//! The daemon's own health under a clock that is turned by hand: what is written, and what the shipped rules say to it.

use super::*;
use crate::alert::rule::{Catalogue, RuleSet, parse_rules};
use crate::clock::{Clock, ManualClock};
use crate::lake::place::Place;
use crate::lake::tables::health;
use crate::sql::{self, QueryLimits};
use crate::telemetry::metrics::SourceCounts;
use crate::watch::{Reached, Watch};

/// 2026-11-01T20:00:00Z.
const T0: i64 = 1_793_563_200_000;
const LIMITS: QueryLimits = QueryLimits {
    memory_bytes: 64 << 20,
    timeout: std::time::Duration::from_secs(30),
};

struct OnlyHealth;

impl Catalogue for OnlyHealth {
    fn columns(&self, table: &str) -> Option<Vec<String>> {
        let names = || health().schema.fields().iter().map(|field| field.name().clone()).collect();
        (table == HEALTH).then(names)
    }

    fn tables(&self) -> Vec<String> {
        vec![HEALTH.to_owned()]
    }
}

fn shipped() -> RuleSet {
    let text = include_str!("../../../alerts/own_health.yaml");
    parse_rules(&[("own_health.yaml".to_owned(), text.to_owned())], &OnlyHealth, &|_| None).unwrap()
}

/// A daemon reduced to its heart beat.
struct Beating {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    lake: Arc<Lake>,
    own: OwnHealth,
    watch: Watch,
}

impl Beating {
    async fn start(folder: tempfile::TempDir, now_ms: i64) -> Beating {
        let clock = Arc::new(ManualClock::at(now_ms));
        let lake = Lake::open(Place::folder(folder.path()).unwrap(), clock.clone()).await.unwrap();
        let lake = Arc::new(lake);
        let own = OwnHealth::open(Arc::clone(&lake), ["edge", "http"].map(str::to_owned), now_ms)
            .await
            .unwrap();
        let watch = Watch::open(Arc::clone(&lake), shipped(), Vec::new(), LIMITS, None, clock.clone())
            .await
            .unwrap();
        Beating {
            folder,
            clock,
            lake,
            own,
            watch,
        }
    }

    /// The next minute, at whose end these records of `edge` were committed.
    async fn minute(&mut self, received: u64, watermark_ms: Option<i64>) {
        let counts = SourceCounts {
            received,
            stored: received,
            ..SourceCounts::default()
        };
        self.own.heard().epoch("edge", &counts);
        let now_ms = self.clock.advance(MINUTE_MS);
        if let Some(end_ms) = self.own.write_minute(watermark_ms, now_ms).await.unwrap() {
            let reached = Reached {
                watermark_ms,
                closed_ms: None,
                is_end: false,
                is_held: false,
            };
            self.watch.judge_own_health(end_ms, reached, now_ms).await.unwrap();
        }
    }

    /// Rule, status and minute of the window's end since T0.
    async fn told(&self) -> Vec<(String, String, i64)> {
        let context = sql::open(&self.lake, &[], LIMITS).await.unwrap();
        let text = "SELECT rule_uid, status, CAST(date_part('epoch', window_end) AS BIGINT) AS at_s FROM ops.alert_events \
                    WHERE kind = 'transition' AND status IN ('firing', 'resolved') ORDER BY window_end, rule_uid";
        let (_, batches) = sql::query(&context, text, LIMITS).await.unwrap();
        let mut told = Vec::new();
        for batch in &batches {
            let (rules, statuses) = (texts(batch.column(0)), texts(batch.column(1)));
            let at_s = crate::sql::cause::floats(batch.column(2));
            for row in 0..batch.num_rows() {
                let minute = (at_s.value(row) as i64 * 1_000 - T0) / MINUTE_MS;
                told.push((rules.value(row).to_owned(), statuses.value(row).to_owned(), minute));
            }
        }
        told
    }

    async fn count(&self, condition: &str) -> usize {
        let context = sql::open(&self.lake, &[], LIMITS).await.unwrap();
        let text = format!("SELECT source FROM ops.health_1m WHERE {condition}");
        let (_, batches) = sql::query(&context, &text, LIMITS).await.unwrap();
        batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Killed, and started again so many minutes later.
    async fn again(self, minutes: i64) -> Beating {
        let now_ms = self.clock.advance(minutes * MINUTE_MS);
        let Beating {
            folder, lake, own, watch, ..
        } = self;
        lake.give_back().await;
        // The lock goes with the last of those that know the lake.
        drop((own, watch, lake));
        Beating::start(folder, now_ms).await
    }
}

fn told(list: &[(&str, &str, i64)]) -> Vec<(String, String, i64)> {
    list.iter()
        .map(|(rule, status, minute)| ((*rule).to_owned(), (*status).to_owned(), *minute))
        .collect()
}

#[tokio::test]
async fn a_source_that_goes_silent_fires_within_a_minute_of_its_bound_and_ends_when_it_is_back() {
    let mut beating = Beating::start(tempfile::tempdir().unwrap(), T0).await;
    for minute in 0..30 {
        let is_silent = (5..20).contains(&minute);
        // Event time goes on all the same: another source moves it.
        beating.minute(if is_silent { 0 } else { 50 }, Some(T0 + minute * MINUTE_MS)).await;
    }
    // The last records are of the minute that ends at 5; ten minutes later it is not yet more than ten.
    assert_eq!(
        beating.told().await,
        told(&[("source-silent", "firing", 16), ("source-silent", "resolved", 21)])
    );
    assert_eq!(beating.count("source = 'edge' AND received = 50").await, 15);
    assert_eq!(
        beating.count("source = 'http' AND silent_ms IS NULL AND received = 0").await,
        30,
        "it never sent anything"
    );
}

#[tokio::test]
async fn since_when_a_source_is_silent_outlives_a_restart() {
    let mut beating = Beating::start(tempfile::tempdir().unwrap(), T0).await;
    for _ in 0..3 {
        beating.minute(10, Some(T0)).await;
    }
    let mut beating = beating.again(5).await;
    for _ in 0..8 {
        beating.minute(0, Some(T0)).await;
    }
    assert_eq!(beating.told().await, told(&[("source-silent", "firing", 14)]));
    // The alert itself outlives one as well, and is not told again.
    let mut beating = beating.again(2).await;
    beating.minute(0, Some(T0)).await;
    beating.minute(10, Some(T0 + MINUTE_MS)).await;
    assert_eq!(
        beating.told().await,
        told(&[("source-silent", "firing", 14), ("source-silent", "resolved", 20)])
    );
}

#[tokio::test]
async fn event_time_that_stands_still_while_records_come_fires() {
    let mut beating = Beating::start(tempfile::tempdir().unwrap(), T0).await;
    for minute in 0..20 {
        let watermark_ms = if minute < 15 { T0 } else { T0 + minute * MINUTE_MS };
        beating.minute(100, Some(watermark_ms)).await;
    }
    assert_eq!(
        beating.told().await,
        told(&[("event-time-stands", "firing", 12), ("event-time-stands", "resolved", 16)])
    );
}

#[tokio::test]
async fn a_minute_is_written_once_and_a_long_pause_is_one_minute() {
    let mut beating = Beating::start(tempfile::tempdir().unwrap(), T0 + 1_500).await;
    beating.minute(7, None).await;
    let now_ms = beating.clock.now_ms();
    assert_eq!(beating.own.write_minute(None, now_ms + 5_000).await.unwrap(), None);
    beating.clock.advance(9 * MINUTE_MS);
    beating.minute(3, None).await;
    assert_eq!(beating.count("source = 'edge'").await, 2);
    assert_eq!(beating.count("source = 'edge' AND received = 3 AND watermark IS NULL").await, 1);
}
