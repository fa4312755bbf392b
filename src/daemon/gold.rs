//! Closing windows and judging alerts, on a task of its own beside the epoch that follows.
//!
//! Stands behind `Parts`: while batches wait, the next ones are committed to bronze and silver as the windows of
//! the ones before are computed. Silver rows that come in between touch their minutes anew, so that the
//! next closing computes those again: a table ends as it would have one after the other.
//!
//! Invariant: one closing at a time; nothing else of this daemon writes gold or alerts meanwhile.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::rollup::Rollup;
use crate::rollup::collect::{Collector, Report, Step};
use crate::watch::{OwnHealth, Reached, Watch};

/// What closes and judges.
pub struct Keeper {
    pub rollup: Rollup,
    pub watch: Watch,
    /// None where nothing is collected.
    pub collector: Option<Collector>,
    /// How far alerts could be judged, epoch ms.
    pub reached_ms: Option<i64>,
    /// None where nobody waits for what comes next.
    pub own_health: Option<OwnHealth>,
    pub clock: Arc<dyn Clock>,
}

impl Keeper {
    /// Returns how many minutes were closed. `watermark_ms`: of what was read here; `None` where nothing is.
    async fn close(&mut self, watermark_ms: Option<i64>, flush: bool) -> anyhow::Result<usize> {
        let now_ms = self.clock.now_ms();
        let (collected, collected_ms) = self.collect(now_ms).await?;
        let mut closed = self.rollup.run(watermark_ms.or(collected_ms), flush).await?;
        for (table, minutes) in collected.minutes {
            closed.minutes.entry(table).or_default().extend(minutes);
        }
        let reached = self.reached(watermark_ms, collected_ms, flush);
        let watermark_ms = reached.watermark_ms;
        self.reached_ms = watermark_ms;
        self.watch.run(&closed.minutes, reached, self.clock.now_ms()).await?;
        let now_ms = self.clock.now_ms();
        if let Some(own_health) = &mut self.own_health
            && let Some(end_ms) = own_health.write_minute(watermark_ms, now_ms).await?
        {
            self.watch.judge_own_health(end_ms, reached, now_ms).await?;
        }
        Ok(closed.minute_count())
    }

    /// Takes results in; gives what is new, and through when all of them are there.
    async fn collect(&mut self, now_ms: i64) -> anyhow::Result<(Step, Option<i64>)> {
        let Some(collector) = &mut self.collector else {
            return Ok((Step::default(), None));
        };
        let step = collector.step(now_ms).await?;
        Ok((step, collector.closed_ms(now_ms)))
    }

    /// How far alerts can be judged: all tables that rules may read have come so far.
    fn reached(&self, watermark_ms: Option<i64>, collected_ms: Option<i64>, is_end: bool) -> Reached {
        let closed_ms = self.rollup.closed_ms(watermark_ms);
        let now_ms = self.clock.now_ms();
        let holds_up = self.collector.as_ref().is_some_and(|collector| collector.is_speaking(now_ms));
        let (watermark_ms, closed_ms) = match (watermark_ms, collected_ms) {
            (None, collected_ms) => (collected_ms, collected_ms),
            (Some(own_ms), Some(collected_ms)) if holds_up => (Some(own_ms.min(collected_ms)), closed_ms.min(Some(collected_ms))),
            (own_ms, _) => (own_ms, closed_ms),
        };
        Reached {
            watermark_ms,
            closed_ms,
            is_end,
        }
    }
}

type Closing = JoinHandle<(Box<Keeper>, anyhow::Result<usize>)>;

/// The keeper, at rest or at work.
pub struct Gold {
    /// `None` while it is at work.
    keeper: Option<Box<Keeper>>,
    closing: Option<Closing>,
}

impl Gold {
    pub fn new(keeper: Keeper) -> Gold {
        Gold {
            keeper: Some(Box::new(keeper)),
            closing: None,
        }
    }

    /// The keeper if it is at rest.
    pub fn at_rest(&self) -> Option<&Keeper> {
        self.keeper.as_deref()
    }

    pub fn watch_at_rest(&mut self) -> Option<&mut Watch> {
        Some(&mut self.keeper.as_mut()?.watch)
    }

    /// What was collected since it was last asked, if the keeper is at rest.
    pub fn take_report(&mut self) -> Option<Report> {
        Some(self.keeper.as_mut()?.collector.as_mut()?.take_report())
    }

    /// True if more results wait than one step takes.
    pub fn is_collector_full(&self) -> bool {
        let collector = self.keeper.as_ref().and_then(|keeper| keeper.collector.as_ref());
        collector.is_some_and(Collector::is_full)
    }

    /// Begins to close what the watermark has passed. What was begun before has to be settled.
    pub fn begin(&mut self, watermark_ms: Option<i64>) {
        let Some(mut keeper) = self.keeper.take() else { return };
        self.closing = Some(tokio::spawn(async move {
            let closed = keeper.close(watermark_ms, false).await;
            (keeper, closed)
        }));
    }

    /// True while windows are being closed.
    pub fn is_at_work(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| !closing.is_finished())
    }

    /// Waits for what was begun; returns how many minutes it closed.
    ///
    /// # Errors
    /// A table cannot be read or written.
    pub async fn settle(&mut self) -> anyhow::Result<usize> {
        let Some(closing) = self.closing.take() else { return Ok(0) };
        let (keeper, closed) = closing.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        self.keeper = Some(keeper);
        closed
    }

    /// Closes what the watermark has passed, with `flush` everything, before it returns.
    ///
    /// # Errors
    /// As `settle`.
    pub async fn close(&mut self, watermark_ms: Option<i64>, flush: bool) -> anyhow::Result<usize> {
        let before = self.settle().await?;
        match &mut self.keeper {
            Some(keeper) => Ok(before + keeper.close(watermark_ms, flush).await?),
            None => Ok(before),
        }
    }
}
