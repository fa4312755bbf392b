//! The reading thread: asks the sources, decodes, and hands over one batch for each order.
//!
//! Stands between the sources and the daemon's loop. One thread, for what it allocates is freed
//! elsewhere: its memory is used again by the next batch only if the same thread reads it.
//!
//! Invariant: at most one batch is being committed and one is in hand; the sources are not read
//! further than that. A batch is read for an order, and an order is given for a batch taken.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::bail;
use tokio::sync::mpsc;

use crate::ingest::intake::{Batch, Intake, NewPartition};
use crate::source::{Lag, Mark, SourceError};

/// Orders and answers under way: one of each, by the protocol.
const UNDER_WAY: usize = 1;

/// What the daemon's loop tells the reader.
#[derive(Debug, Default)]
pub struct Order {
    /// Partitions that may be read, with what the lake has of them.
    pub starts: Vec<(NewPartition, Option<Mark>)>,
    /// What bronze has committed since the last order: source, partition, up to where.
    pub committed: Vec<(usize, Arc<str>, Mark)>,
    pub task: Task,
}

/// What is wanted beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// Which partitions are lost. Nothing else tells it: a source that gives a partition away waits until
    /// what it handed over is committed, or until we say here that we know.
    #[default]
    Acknowledge,
    /// A batch.
    Read,
    /// Partitions that are newly ours, and a batch.
    LookAndRead,
    /// Nothing more: the sources acknowledge and leave.
    Stop,
}

/// What came of an order.
#[derive(Default)]
pub struct Reading {
    pub batch: Option<Batch>,
    pub new: Vec<NewPartition>,
    pub lost: Vec<Arc<str>>,
    pub complaints: Vec<SourceError>,
    /// Of each source, by its index.
    pub lags: Vec<Lag>,
    /// Bytes done and bytes in all, where every source knows its end.
    pub progress: Option<(u64, u64)>,
}

/// The thread with its two channels.
pub struct Reader {
    /// `None` only while the reader is being dropped.
    orders: Option<mpsc::Sender<Order>>,
    readings: mpsc::Receiver<Reading>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub fn start(mut intake: Intake) -> std::io::Result<Reader> {
        let (orders, mut wanted) = mpsc::channel::<Order>(UNDER_WAY);
        let (done, readings) = mpsc::channel(UNDER_WAY);
        let thread = std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
            while let Some(order) = wanted.blocking_recv() {
                let task = order.task;
                if done.blocking_send(carry_out(&mut intake, order)).is_err() || task == Task::Stop {
                    break;
                }
            }
        })?;
        Ok(Reader {
            orders: Some(orders),
            readings,
            thread: Some(thread),
        })
    }

    /// Gives an order. One may be under way at a time.
    ///
    /// # Errors
    /// The thread has stopped with a bug.
    pub async fn order(&self, order: Order) -> anyhow::Result<()> {
        match &self.orders {
            Some(orders) if orders.send(order).await.is_ok() => Ok(()),
            _ => bail!(STOPPED),
        }
    }

    /// Waits for what came of the order.
    ///
    /// # Errors
    /// The thread has stopped with a bug.
    pub async fn reading(&mut self) -> anyhow::Result<Reading> {
        match self.readings.recv().await {
            Some(reading) => Ok(reading),
            None => bail!(STOPPED),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Its channels close first, so that it finds out.
        self.orders = None;
        self.readings.close();
        if let Some(thread) = self.thread.take() {
            // A panic has been printed by the thread itself.
            let _ = thread.join();
        }
    }
}

const STOPPED: &str = "the reading thread stopped with a bug (see above); start playhead again: what was read is kept, the rest follows";

fn carry_out(intake: &mut Intake, order: Order) -> Reading {
    for (source, partition, mark) in &order.committed {
        intake.committed(*source, partition, mark);
    }
    for (new, from) in order.starts {
        intake.start(&new, from);
    }
    let mut reading = Reading::default();
    match order.task {
        Task::Stop => intake.stop(),
        Task::Acknowledge => reading.lost = intake.take_lost(),
        Task::LookAndRead => {
            reading.new = intake.discover();
            reading.batch = intake.next_batch();
        }
        Task::Read => reading.batch = intake.next_batch(),
    }
    reading.complaints = intake.take_complaints();
    reading.lags = intake.sources().iter().map(|source| source.lag()).collect();
    reading.progress = intake
        .sources()
        .iter()
        .map(|source| source.progress_bytes())
        .try_fold((0, 0), |(done, all), of| {
            let (more_done, more) = of?;
            Some((done + more_done, all + more))
        });
    reading
}
