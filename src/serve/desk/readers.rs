//! The threads that queries work on: their own, for a query may keep a thread busy for long, and ingest must not
//! wait for it.
//!
//! Invariant: nothing but queries runs here.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};
use tokio::runtime::{Builder, Handle, Runtime};

/// How much of the way a reader's thread has to go from the lowest to the highest rank, per cent: a nice value of 9 on
/// Linux, where such a thread gets about an eighth of what a thread of ingest gets of a core that both want. People
/// wait for an answer, or their browser does; events that are not taken in are everybody's loss.
const RANK: u8 = 25;

/// The threads of one desk.
pub struct Readers(Option<Runtime>);

impl Readers {
    /// As many as there are cores: the machine's own scheduler divides these between queries and ingest, which
    /// goes first.
    ///
    /// # Errors
    /// The machine gives no thread.
    pub fn start() -> Result<Readers, DataFusionError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores)
            .thread_name("reader")
            .on_thread_start(stand_back)
            .enable_all()
            .build();
        Ok(Readers(Some(runtime?)))
    }

    /// `None`: they have been sent home.
    pub fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // To wait for them is not allowed where a desk may be dropped, and nobody does.
            runtime.shutdown_background();
        }
    }
}

/// Gives this thread the rank of readers. Where the machine does not allow it, they share as equals.
fn stand_back() {
    let rank = ThreadPriorityValue::try_from(RANK).map(ThreadPriority::Crossplatform);
    if let Ok(rank) = rank
        && let Err(error) = set_current_thread_priority(rank)
    {
        tracing::debug!("queries have the same right to the cores as ingest: {error:?}");
    }
}

/// The same plan, in which whatever can make many rows of few gives way to others now and then. The engine sees to it
/// where rows are read; a join without columns would go on for ever in between, and nobody could stop it.
///
/// # Errors
/// What the plan says of its parts.
pub fn giving_way(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let changed = plan.transform_up(|node| {
        let may_multiply = node.children().len() > 1 || node.name().starts_with("Unnest");
        Ok(match may_multiply {
            true => Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>),
            false => Transformed::no(node),
        })
    });
    Ok(changed?.data)
}
