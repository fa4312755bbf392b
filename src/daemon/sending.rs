//! Sending alerts, on a task of its own beside everything else.
//!
//! Stands behind `Parts`: the outbox of `watch` is woken when something was recorded, and comes back by
//! itself to a target that was away, whether windows close meanwhile or not.
//!
//! Invariant: it has ended before the lake is given back or taken up again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as signal;
use tokio::task::JoinHandle;

use crate::watch::Outbox;

/// The task that sends.
pub struct Sending {
    outbox: Arc<Outbox>,
    stop: signal::Sender<bool>,
    task: JoinHandle<()>,
}

impl Sending {
    pub fn start(outbox: Arc<Outbox>) -> Sending {
        let (stop, stopped) = signal::channel(false);
        let task = tokio::spawn(Arc::clone(&outbox).keep_sending(stopped));
        Sending { outbox, stop, task }
    }

    /// Ends the task after one more round, and goes on for as long as something waits and can be sent.
    pub async fn finish(self, patience: Duration) {
        // Nobody listens if the task has ended already.
        let _ = self.stop.send(true);
        if let Err(panic) = self.task.await
            && panic.is_panic()
        {
            std::panic::resume_unwind(panic.into_panic());
        }
        if !patience.is_zero() {
            self.outbox.send_all(patience).await;
        }
    }
}
