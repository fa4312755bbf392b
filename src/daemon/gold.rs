//! Closing windows and judging alerts, on a task of its own beside the epoch that follows.
//!
//! Stands behind `Parts`: while batches wait, the next ones are committed to bronze and silver as the windows of
//! the ones before are computed. Silver rows that come in between touch their minutes anew, so that the
//! next closing computes those again: a table ends as it would have one after the other.
//!
//! Invariant: one closing at a time; nothing else of this daemon writes gold or alerts meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::rollup::Rollup;
use crate::rollup::again::Extent;
use crate::rollup::collect::{Collector, Report, Step};
use crate::telemetry::metrics::Meters;
use crate::watch::{OwnHealth, Reached, Watch};

/// While batches wait, windows that changed after they were computed are computed again once so many times as long
/// has passed as it took the last time: a tenth of a backlog's speed at the most. Readers of the Postgres endpoint
/// and the page see them as they are meanwhile, for what is pending is answered from silver.
const AGAIN_TIMES: i64 = 9;
/// Sooner than this it is not worth it, and later nobody should have to wait.
const AGAIN_EVERY_MS: std::ops::Range<i64> = 30_000..300_000;

/// What closes and judges.
pub struct Keeper {
    rollup: Rollup,
    watch: Watch,
    /// None where nothing is collected.
    collector: Option<Collector>,
    /// How far alerts could be judged, epoch ms.
    reached_ms: Option<i64>,
    /// None where nobody waits for what comes next.
    own_health: Option<OwnHealth>,
    clock: Arc<dyn Clock>,
    /// When all that was due was computed, and how long to leave it at that.
    complete_ms: i64,
    again_after_ms: i64,
}

impl Keeper {
    pub fn new(rollup: Rollup, watch: Watch, collector: Option<Collector>, own_health: Option<OwnHealth>, clock: Arc<dyn Clock>) -> Keeper {
        Keeper {
            rollup,
            watch,
            collector,
            reached_ms: None,
            own_health,
            complete_ms: clock.now_ms(),
            again_after_ms: AGAIN_EVERY_MS.start,
            clock,
        }
    }

    /// Tells how windows and alerts stand.
    pub fn report(&self, meters: &Meters) {
        meters.dirty_windows(self.rollup.dirty_windows());
        let stored_ms = self.watch.oldest_undelivered_ms();
        let waits_ms = stored_ms.map_or(0, |stored_ms| self.clock.now_ms() - stored_ms);
        let waits = Duration::from_millis(u64::try_from(waits_ms).unwrap_or(0));
        let watch = &self.watch;
        meters.alerts(watch.rules(), watch.firing(), watch.undelivered(), waits);
    }

    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// How far alerts could be judged, epoch ms.
    pub fn reached_ms(&self) -> Option<i64> {
        self.reached_ms
    }

    /// Closes what the watermark has passed while more waits to be carried.
    async fn close_some(&mut self, watermark_ms: Option<i64>) -> anyhow::Result<usize> {
        let since_ms = self.clock.now_ms() - self.complete_ms;
        // A clock that was put back must not put windows off for ever.
        let extent = match (0..self.again_after_ms).contains(&since_ms) {
            true => Extent::New,
            false => Extent::Closed,
        };
        self.close(watermark_ms, extent).await
    }

    /// Returns how many minutes were closed. `watermark_ms`: of what was read here; `None` where nothing is.
    async fn close(&mut self, watermark_ms: Option<i64>, extent: Extent) -> anyhow::Result<usize> {
        let began_ms = self.clock.now_ms();
        let (collected, collected_ms) = self.collect(began_ms).await?;
        let mut closed = self.rollup.run(watermark_ms.or(collected_ms), extent).await?;
        for (table, minutes) in collected.minutes {
            closed.minutes.entry(table).or_default().extend(minutes);
        }
        if extent != Extent::New {
            self.complete_ms = self.clock.now_ms();
            let took_ms = self.complete_ms - began_ms;
            self.again_after_ms = (took_ms * AGAIN_TIMES).clamp(AGAIN_EVERY_MS.start, AGAIN_EVERY_MS.end);
        }
        let reached = self.reached(watermark_ms, collected_ms, extent == Extent::Everything);
        let watermark_ms = reached.watermark_ms;
        self.reached_ms = watermark_ms;
        let judging_ms = self.clock.now_ms();
        self.watch.run(&closed.minutes, reached, judging_ms).await?;
        // Behind a backlog the open windows are no news either.
        if extent == Extent::Closed {
            self.watch.look_early(|| self.rollup.pending_windows(), reached, judging_ms).await?;
        }
        tracing::debug!(
            ?extent,
            minutes = closed.minute_count(),
            rows = closed.rows,
            closing_ms = judging_ms - began_ms,
            judging_ms = self.clock.now_ms() - judging_ms,
            "windows closed"
        );
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
        collector.wait_for(self.watch.judged_by());
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
            is_held: self.collector.as_ref().is_some_and(|collector| collector.is_catching_up(now_ms)),
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

    /// Begins to close what the watermark has passed, beside the epochs that wait. What was begun before has to be
    /// settled.
    pub fn begin(&mut self, watermark_ms: Option<i64>) {
        let Some(mut keeper) = self.keeper.take() else { return };
        self.closing = Some(tokio::spawn(async move {
            let closed = keeper.close_some(watermark_ms).await;
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

    /// Closes all that the watermark has passed, with `flush` everything, before it returns.
    ///
    /// # Errors
    /// As `settle`.
    pub async fn close(&mut self, watermark_ms: Option<i64>, flush: bool) -> anyhow::Result<usize> {
        let before = self.settle().await?;
        let extent = if flush { Extent::Everything } else { Extent::Closed };
        match &mut self.keeper {
            Some(keeper) => Ok(before + keeper.close(watermark_ms, extent).await?),
            None => Ok(before),
        }
    }
}
