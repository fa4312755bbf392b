//! The threads that queries work on: their own, for a query may keep a thread busy for long, and ingest must not
//! wait for it.
//!
//! Invariant: nothing but queries runs here.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use tokio::runtime::{Builder, Handle, Runtime};

/// The threads of one desk.
pub struct Readers(Option<Runtime>);

impl Readers {
    /// As many as there are cores: the machine's own scheduler divides these between queries and ingest.
    ///
    /// # Errors
    /// The machine gives no thread.
    pub fn start() -> Result<Readers, DataFusionError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores)
            .thread_name("reader")
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
