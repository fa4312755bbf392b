//! One query at work: its place in line, its time, its rows as they come.
//!
//! It works in a task of its own, one batch ahead of its reader.
//!
//! Invariant: its place and its memory are given back when its time is up, whether anybody reads or not.
//! Invariant: dropping it stops the query.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::execute_stream;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::Moment;
use super::known::{ANSWER_BYTES_MAX, Kept, PlannedQuestion};
use super::readers::giving_way;
use crate::sql::SqlError;

/// Batches that wait for a reader who is slower than the query: one, so that the two overlap.
const BATCHES_AHEAD: usize = 1;

/// What one query is given.
pub struct Means {
    pub moment: Arc<Moment>,
    pub question: PlannedQuestion,
    pub timeout: Duration,
    /// Its memory.
    pub runtime: Arc<RuntimeEnv>,
    pub at_work: Arc<Semaphore>,
    /// Where it works.
    pub readers: Handle,
}

/// Its task, which ends with it.
struct Task(JoinHandle<bool>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub struct Running {
    schema: SchemaRef,
    timeout: Duration,
    rows: mpsc::Receiver<Result<RecordBatch, SqlError>>,
    /// True at its end: every row was handed over.
    task: Option<Task>,
}

impl Running {
    /// Waits for a place and starts. The time runs from here.
    ///
    /// # Errors
    /// The planner's, or `Timeout`.
    pub async fn start(means: Means) -> Result<Running, SqlError> {
        // The names and types that people are told; the rows may come in a form of their own.
        let schema = Arc::new(means.question.plan.schema().as_arrow().clone());
        let (timeout, deadline) = (means.timeout, Instant::now() + means.timeout);
        let (to_reader, rows) = mpsc::channel(BATCHES_AHEAD);
        let (started, has_started) = oneshot::channel();
        let readers = means.readers.clone();
        let task = readers.spawn(async move {
            let done = timeout_at(deadline, work(means, started, to_reader)).await;
            done.is_ok()
        });
        let mut running = Running {
            schema,
            timeout,
            rows,
            task: Some(Task(task)),
        };
        match has_started.await {
            Ok(started) => started.map(|()| running),
            Err(_) => running.end().await.map(|()| running),
        }
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// What the run says, or `Timeout`.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, SqlError> {
        match self.rows.recv().await {
            Some(batch) => batch.map(Some),
            None => self.end().await.map(|()| None),
        }
    }

    /// What the end of the rows means.
    async fn end(&mut self) -> Result<(), SqlError> {
        let Some(mut task) = self.task.take() else { return Ok(()) };
        match (&mut task.0).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(SqlError::Timeout(self.timeout)),
            Err(_) => Err(DataFusionError::Internal("the query broke off inside the engine".to_owned()).into()),
        }
    }
}

async fn work(means: Means, started: oneshot::Sender<Result<(), SqlError>>, to_reader: mpsc::Sender<Result<RecordBatch, SqlError>>) {
    let mut answer = match answer(&means).await {
        Ok(answer) => answer,
        Err(error) => {
            let _ = started.send(Err(error.into()));
            return;
        }
    };
    if started.send(Ok(())).is_err() {
        return;
    }
    while let Some(batch) = answer.rows.next().await {
        let is_last = batch.is_err();
        // Nobody reads any more, or nothing comes after an error.
        if to_reader.send(batch.map_err(SqlError::from)).await.is_err() || is_last {
            return;
        }
    }
}

/// The rows of an answer, on their way.
struct OnItsWay {
    rows: BoxStream<'static, Result<RecordBatch, DataFusionError>>,
    /// Held while rows are computed; none where they are known.
    _place: Option<OwnedSemaphorePermit>,
}

/// The answer as somebody has had it, or computed: for all who ask, if it can be kept.
async fn answer(means: &Means) -> Result<OnItsWay, DataFusionError> {
    let Some(slot) = means.moment.known.slot(&means.question) else {
        return computed(means).await;
    };
    let mut own = None;
    let kept = slot.get_or_try_init(async || gather(means, &mut own).await).await?;
    match (kept, own) {
        (Kept::Whole(batches), _) => Ok(OnItsWay {
            rows: known(batches.clone()),
            _place: None,
        }),
        (Kept::TooMuch, Some(own)) => Ok(own),
        (Kept::TooMuch, None) => computed(means).await,
    }
}

/// Computes an answer that can be kept; one that is too large goes to `own`, whose reader has it all the same.
async fn gather(means: &Means, own: &mut Option<OnItsWay>) -> Result<Kept, DataFusionError> {
    let mut rest = computed(means).await?;
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while bytes <= ANSWER_BYTES_MAX {
        let Some(batch) = rest.rows.next().await else { break };
        let batch = batch?;
        bytes += batch.get_array_memory_size();
        batches.push(batch);
    }
    if bytes <= ANSWER_BYTES_MAX && means.moment.known.take_room(bytes) {
        return Ok(Kept::Whole(batches));
    }
    rest.rows = known(batches).chain(rest.rows).boxed();
    *own = Some(rest);
    Ok(Kept::TooMuch)
}

fn known(batches: Vec<RecordBatch>) -> BoxStream<'static, Result<RecordBatch, DataFusionError>> {
    stream::iter(batches.into_iter().map(Ok)).boxed()
}

/// Waits for a place and starts to compute.
async fn computed(means: &Means) -> Result<OnItsWay, DataFusionError> {
    let closed = |_| DataFusionError::Execution("the desk is closed".to_owned());
    let place = Arc::clone(&means.at_work).acquire_owned().await.map_err(closed)?;
    let state = means.moment.session.state();
    let physical = giving_way(state.create_physical_plan(&means.question.plan).await?)?;
    let task = TaskContext::from(&state).with_runtime(Arc::clone(&means.runtime));
    Ok(OnItsWay {
        rows: execute_stream(physical, Arc::new(task))?.boxed(),
        _place: Some(place),
    })
}
