//! `playhead run --role collect`: Arroyo's results to gold, alerts over them, figures, answers; no source.
//!
//! The loop of `follow` without what stands before gold. Each turn takes in what waits, rolls it up and judges it.
//!
//! Invariant: the turn in hand is carried to the end before the daemon stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch as signal;

use super::gold::{Gold, Keeper};
use super::house::{House, UPKEEP_EVERY, live, note_upkeep};
use super::publishing::Publishing;
use super::roles::{collect_complaints, collector, leave_gold_to_arroyo, warn_of_unfilled};
use super::sending::Sending;
use super::{Checked, lake_place, query_limits, watch_over};
use crate::clock::Clock;
use crate::config::Config;
use crate::lake::Lake;
use crate::lake::upkeep::Upkeep;
use crate::notify::Terminal;
use crate::rollup::Rollup;
use crate::rollup::collect::SOURCE;
use crate::telemetry::health::HealthPart;
use crate::watch::{Heard, OwnHealth};

/// Collects until `stop` is set. A lake that cannot be written for a while ends nothing: everything is taken up
/// again from where the tables stand.
///
/// # Errors
/// What a person has to mend before anything can go on.
pub async fn collect(config: &Config, clock: Arc<dyn Clock>, stop: signal::Receiver<bool>) -> anyhow::Result<()> {
    collect_complaints(config)?;
    live(config, clock, stop, async |house, checked, stop| {
        carry_on(config, house, checked, stop).await
    })
    .await
}

async fn carry_on(config: &Config, house: &mut House, checked: Checked, stop: &mut signal::Receiver<bool>) -> anyhow::Result<()> {
    let mut collecting = Collecting::start(config, house, checked, stop.clone()).await?;
    let ended = collecting.go_on(config, stop).await;
    collecting.finish().await;
    ended
}

/// The daemon between two turns of its loop.
struct Collecting<'a> {
    house: &'a mut House,
    lake: Arc<Lake>,
    gold: Gold,
    heard: Arc<Heard>,
    sending: Option<Sending>,
    publishing: Option<Publishing>,
    upkeep: Option<Upkeep>,
    upkeep_stepped: Instant,
}

impl Collecting<'_> {
    async fn start<'a>(
        config: &Config,
        house: &'a mut House,
        checked: Checked,
        stop: signal::Receiver<bool>,
    ) -> anyhow::Result<Collecting<'a>> {
        let clock = Arc::clone(&house.clock);
        let Checked { pipelines, rules } = checked;
        let lake = Arc::new(Lake::open(lake_place(config)?, Arc::clone(&clock)).await?);
        let meters = house.status.meters().clone();
        lake.report_to(meters.clone());
        leave_gold_to_arroyo(&lake, &pipelines).await?;
        warn_of_unfilled(&rules, &pipelines);
        let now_ms = clock.now_ms();
        let collector = collector(config, &lake, &pipelines, &meters, now_ms).await?;
        // What is collected is complete when the collector says so: nothing more is waited for.
        let lateness_ms = 0;
        let memory_bytes = query_limits(config).memory_bytes;
        let rollup = Rollup::open(Arc::clone(&lake), pipelines.clone(), lateness_ms, memory_bytes).await?;
        let watch = watch_over(config, &lake, rules, pipelines.clone(), &clock, Terminal::Output).await?;
        let own_health = OwnHealth::open(Arc::clone(&lake), [SOURCE.to_owned()], now_ms).await?;
        house.answer_from(config, &lake, pipelines.clone(), &stop).await?;
        house.has_been_ready = true;
        house.status.health().lock().well(&HealthPart::Start);
        tracing::info!(lake = lake.name(), "playhead collects; stop it with Ctrl-C");
        let upkeep = config.upkeep.enabled;
        Ok(Collecting {
            house,
            heard: own_health.heard(),
            sending: watch.outbox().map(Sending::start),
            publishing: Publishing::start(config, Arc::clone(&lake), &pipelines, Arc::clone(&clock)),
            upkeep: upkeep.then(|| Upkeep::new(Arc::clone(&lake), config.upkeep.settings.clone())),
            lake,
            gold: Gold::new(Keeper::new(rollup, watch, collector, Some(own_health), clock)),
            upkeep_stepped: Instant::now(),
        })
    }

    /// Takes turns until `stop` is set.
    async fn go_on(&mut self, config: &Config, stop: &mut signal::Receiver<bool>) -> anyhow::Result<()> {
        loop {
            let began = Instant::now();
            let is_full = self.turn(began).await?;
            self.look_around(config).await;
            if *stop.borrow() {
                return Ok(());
            }
            let pause = match is_full {
                true => Duration::ZERO,
                false => config.ingest.commit_every.saturating_sub(began.elapsed()),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
            }
        }
    }

    /// One step of everything; true if more waits.
    async fn turn(&mut self, began: Instant) -> anyhow::Result<bool> {
        let closed = self.gold.close(None, false).await;
        let is_full = self.gold.is_collector_full();
        self.report(began);
        self.house.note_outcome(closed)?;
        Ok(is_full)
    }

    fn report(&mut self, began: Instant) {
        let Some(report) = self.gold.take_report() else { return };
        self.house.note_collected(&report, &self.heard, began);
        let Some(keeper) = self.gold.at_rest() else { return };
        let meters = self.house.status.meters();
        meters.watermark(keeper.reached_ms());
        keeper.report(meters);
        if let Some(publishing) = &self.publishing {
            publishing.reached(keeper.reached_ms());
        }
    }

    async fn look_around(&mut self, config: &Config) {
        self.house.look_at_alerts(config, self.gold.watch_at_rest()).await;
        let Some(upkeep) = &mut self.upkeep else { return };
        if self.upkeep_stepped.elapsed() >= UPKEEP_EVERY {
            self.upkeep_stepped = Instant::now();
            let stepped = upkeep.step(self.house.clock.now_ms()).await;
            note_upkeep(self.house.status.meters(), stepped, self.upkeep_stepped);
        }
    }

    async fn finish(mut self) {
        if let Some(publishing) = self.publishing.take() {
            publishing.finish().await;
        }
        if let Some(sending) = self.sending.take() {
            sending.finish(Duration::ZERO).await;
        }
        self.lake.give_back().await;
        tracing::info!("stopped in order");
    }
}
