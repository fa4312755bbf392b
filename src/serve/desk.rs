//! The desk: all tables as of one moment for all readers, renewed as they move on, and the bounds of their queries.
//!
//! A moment is a snapshot of every table. It is shared by all queries, so what one has found out (files,
//! footers, open windows, small answers) is there for the next.
//!
//! Invariant: a query sees one state of all tables from its planning to its last row.
//! Invariant: whatever is asked, the memory, the time, the rows and the number of queries at work are bounded.

mod functions;
mod gold_table;
mod known;
mod memory;
mod names;
mod parse;
mod range;
mod readers;
mod running;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OnceCell, Semaphore};

use crate::clock::Clock;
use crate::lake::Lake;
use crate::lake::tables::{TableSpec, fixed_tables};
use crate::rollup::table_spec;
use crate::sql::pipeline::Pipeline;
use crate::sql::{QueryLimits, Session, SqlError};
pub use functions::{SERVER_VERSION, SETTINGS};
use known::Known;
pub use known::PlannedQuestion;
use memory::Whole;
use names::Names;
pub use parse::{Question, parse};
use readers::Readers;
use running::Means;
pub use running::Running;
use snapshot::Snapshot;

/// The database as clients name it in a table's full name.
pub const DATABASE: &str = "playhead";
/// A moment is at least this old before the tables are looked at again: people do not see more often.
const MOMENT_AGE_MIN: Duration = Duration::from_secs(1);
/// Open windows are computed once a moment: it lasts this many times as long as they took, so that
/// readers take a fifth of a core from ingest at the most.
const LIVE_COST_TIMES: u32 = 5;
/// However dear open windows are, answers are not older than this.
const MOMENT_AGE_MAX: Duration = Duration::from_secs(30);
/// Queries at work at a time; the others wait in line. Two keep two cores busy, two more fill their pauses
/// for the disk, and each may use a share of the memory.
const QUERIES_AT_ONCE_MIN: usize = 4;
/// What all queries together may put on the disk where memory does not suffice: enough to sort a day of events.
const SPILL_BYTES_MAX: u64 = 4 << 30;
/// Rows of an answer that is held in memory; no page shows more.
const ANSWER_ROWS_MAX: usize = 100_000;

/// The answer to one question, in memory.
#[derive(Debug, Clone)]
pub struct Answer {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// There were more rows than an answer holds.
    pub is_cut: bool,
}

/// The desk of now: a daemon that had to take its tables up anew has a new one.
pub struct SharedDesk(RwLock<Arc<Desk>>);

impl SharedDesk {
    pub fn new(desk: Arc<Desk>) -> SharedDesk {
        SharedDesk(RwLock::new(desk))
    }

    pub fn get(&self) -> Arc<Desk> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn replace(&self, desk: Arc<Desk>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = desk;
    }
}

/// Answers all readers of one lake.
pub struct Desk {
    lake: Asked,
    pipelines: Arc<Vec<Pipeline>>,
    limits: QueryLimits,
    clock: Arc<dyn Clock>,
    runtime: Arc<RuntimeEnv>,
    readers: Readers,
    names: Names,
    /// The shapes of all tables that there may be.
    specs: OnceCell<Vec<TableSpec>>,
    current: Mutex<Option<Current>>,
    at_work: Arc<Semaphore>,
    whole: Arc<Whole>,
}

/// The lake that is asked.
enum Asked {
    /// Another process writes it.
    Others(Arc<Lake>),
    /// This one does. Readers must not keep it, and with it the lock, from whoever has to take it up anew; they
    /// are answered from the last moment meanwhile.
    Ours(Weak<Lake>),
}

/// All tables as they are at one moment, and what was answered from them.
pub struct Moment {
    session: Session,
    known: Known,
}

/// The moment that is answered from.
struct Current {
    moment: Arc<Moment>,
    versions: BTreeMap<String, i64>,
    looked_at_ms: i64,
    /// What its open windows took to compute so far, ms.
    live_cost_ms: Arc<AtomicU64>,
}

impl Current {
    /// How long it is used before the tables are looked at again.
    fn age_max(&self) -> Duration {
        let cost = Duration::from_millis(self.live_cost_ms.load(Ordering::Relaxed));
        (cost * LIVE_COST_TIMES).clamp(MOMENT_AGE_MIN, MOMENT_AGE_MAX)
    }
}

impl Desk {
    /// A desk over a lake that this process writes, or one that it only reads.
    ///
    /// # Errors
    /// The engine cannot be set up.
    pub fn new(lake: Arc<Lake>, pipelines: Vec<Pipeline>, limits: QueryLimits, clock: Arc<dyn Clock>) -> Result<Desk, SqlError> {
        let runtime = RuntimeEnvBuilder::new().with_max_temp_directory_size(SPILL_BYTES_MAX).build_arc()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Desk {
            lake: match lake.is_ours() {
                true => Asked::Ours(Arc::downgrade(&lake)),
                false => Asked::Others(lake),
            },
            pipelines: Arc::new(pipelines),
            limits,
            clock,
            names: Names::new(&runtime)?,
            runtime,
            readers: Readers::start()?,
            specs: OnceCell::new(),
            current: Mutex::new(None),
            at_work: Arc::new(Semaphore::new(QUERIES_AT_ONCE_MIN.max(2 * cores))),
            whole: Arc::new(Whole::new(limits.memory_bytes)),
        })
    }

    /// The newest committed tables, with what they do not hold yet.
    ///
    /// # Errors
    /// The log of a table cannot be read.
    pub async fn moment(&self) -> Result<Arc<Moment>, SqlError> {
        let mut current = self.current.lock().await;
        let now_ms = self.clock.now_ms();
        if let Some(known) = &*current {
            let age_max_ms = i64::try_from(known.age_max().as_millis()).unwrap_or(i64::MAX);
            // A clock that was put back must not keep a moment for ever.
            if (0..age_max_ms).contains(&(now_ms - known.looked_at_ms)) {
                return Ok(Arc::clone(&known.moment));
            }
        }
        let lake = match &self.lake {
            Asked::Others(lake) => {
                lake.catch_up(self.specs.get_or_try_init(|| self.specs()).await?).await?;
                Some(Arc::clone(lake))
            }
            Asked::Ours(lake) => lake.upgrade(),
        };
        match (&mut *current, lake) {
            (Some(known), None) => Ok(Arc::clone(&known.moment)),
            (None, None) => Err(SqlError::Query(DataFusionError::Execution(
                "the tables are being taken up; ask again".to_owned(),
            ))),
            (Some(known), Some(lake)) if known.versions == lake.versions().await => {
                known.looked_at_ms = now_ms;
                Ok(Arc::clone(&known.moment))
            }
            (_, Some(lake)) => {
                let renewed = self.renewed(&lake, now_ms).await?;
                let moment = Arc::clone(&renewed.moment);
                *current = Some(renewed);
                Ok(moment)
            }
        }
    }

    async fn renewed(&self, lake: &Lake, now_ms: i64) -> Result<Current, SqlError> {
        let lake = Arc::new(lake.pinned().await);
        let versions = lake.versions().await;
        let live_cost_ms = Arc::new(AtomicU64::new(0));
        let tables = Snapshot {
            lake,
            pipelines: Arc::clone(&self.pipelines),
            runtime: Arc::clone(&self.runtime),
            memory_bytes: self.limits.memory_bytes,
            live_cost_ms: Arc::clone(&live_cost_ms),
        }
        .of_tables(versions.keys().cloned());
        Ok(Current {
            moment: Arc::new(Moment {
                session: self.names.session_over(tables)?,
                known: Known::default(),
            }),
            versions,
            looked_at_ms: now_ms,
            live_cost_ms,
        })
    }

    async fn specs(&self) -> Result<Vec<TableSpec>, SqlError> {
        let mut specs = fixed_tables();
        for pipeline in self.pipelines.iter() {
            specs.push(table_spec(pipeline).await?);
        }
        Ok(specs)
    }

    /// Plans a question as the tables of the moment are, on the threads of the readers.
    ///
    /// # Errors
    /// What the planner says; a statement that would change anything is refused.
    pub async fn plan(&self, moment: &Moment, question: Question) -> Result<PlannedQuestion, SqlError> {
        let state = moment.session.state();
        let planning = self.reading()?.spawn(async move {
            let text = question.statement().to_string();
            let plan = state.statement_to_plan(question.into_statement()).await?;
            parse::READ_ONLY.verify_plan(&plan)?;
            Ok(PlannedQuestion::new(plan, text))
        });
        let broken_off = |_| DataFusionError::Internal("the planner broke off".to_owned());
        planning.await.map_err(broken_off)?
    }

    /// Where queries work.
    fn reading(&self) -> Result<Handle, SqlError> {
        let closed = || DataFusionError::Execution("the desk is closed".to_owned());
        Ok(self.readers.handle().ok_or_else(closed)?)
    }

    /// Starts a planned question within the bounds of all, and of `timeout` if that is shorter. Waits in line
    /// while too many are at work.
    ///
    /// # Errors
    /// The planner's, or `Timeout`.
    pub async fn start(&self, moment: &Arc<Moment>, question: PlannedQuestion, timeout: Option<Duration>) -> Result<Running, SqlError> {
        let timeout = timeout.map_or(self.limits.timeout, |timeout| timeout.min(self.limits.timeout));
        let runtime = self.whole.runtime_for_one(&self.runtime);
        Running::start(Means {
            moment: Arc::clone(moment),
            question,
            timeout,
            runtime,
            at_work: Arc::clone(&self.at_work),
            readers: self.reading()?,
        })
        .await
    }

    /// One question, answered as a whole.
    ///
    /// # Errors
    /// What the text, the planner or the run says, or `Timeout`.
    pub async fn query(&self, text: &str) -> Result<Answer, SqlError> {
        let moment = self.moment().await?;
        let question = self.plan(&moment, parse::single(text)?).await?;
        let mut running = self.start(&moment, question, None).await?;
        let (mut batches, mut left) = (Vec::new(), ANSWER_ROWS_MAX);
        while let Some(batch) = running.next().await? {
            if batch.num_rows() > left {
                batches.push(batch.slice(0, left));
                return Ok(Answer {
                    schema: running.schema(),
                    batches,
                    is_cut: true,
                });
            }
            left -= batch.num_rows();
            batches.push(batch);
        }
        Ok(Answer {
            schema: running.schema(),
            batches,
            is_cut: false,
        })
    }
}
