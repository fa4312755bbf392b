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
use crate::watch::{OwnHealth, Reached, Watch};

/// What closes and judges.
pub struct Keeper {
    pub rollup: Rollup,
    pub watch: Watch,
    /// None where nobody waits for what comes next.
    pub own_health: Option<OwnHealth>,
    pub clock: Arc<dyn Clock>,
}

impl Keeper {
    /// Returns how many minutes were closed.
    async fn close(&mut self, watermark_ms: Option<i64>, flush: bool) -> anyhow::Result<usize> {
        let closed = self.rollup.run(watermark_ms, flush).await?;
        let reached = Reached {
            watermark_ms,
            closed_ms: self.rollup.closed_ms(watermark_ms),
            is_end: flush,
        };
        self.watch.run(&closed.minutes, reached, self.clock.now_ms()).await?;
        let now_ms = self.clock.now_ms();
        if let Some(own_health) = &mut self.own_health
            && let Some(end_ms) = own_health.write_minute(watermark_ms, now_ms).await?
        {
            self.watch.judge_own_health(end_ms, reached, now_ms).await?;
        }
        Ok(closed.minute_count())
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
