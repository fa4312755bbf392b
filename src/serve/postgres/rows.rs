//! The rows of an answer, encoded as they come.
//!
//! Invariant: an answer is whole or ends with an error: too many rows, no time left, cancelled.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion_postgres::arrow_pg::datatypes::encode_recordbatch;
use datafusion_postgres::pgwire::api::results::{FieldInfo, QueryResponse};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::data::DataRow;
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;

use super::refusal::{self, TOO_MUCH, refusal};
use crate::serve::desk::{Desk, Moment, PlannedQuestion, Running};

/// A planned question of one client.
pub struct Asked {
    pub desk: Arc<Desk>,
    pub moment: Arc<Moment>,
    pub question: PlannedQuestion,
    pub text: Arc<str>,
    pub timeout: Option<Duration>,
    pub rows_max: u64,
    pub cancelled: watch::Receiver<u64>,
}

/// It is started when its first row is wanted: the statements of one text are answered one after the other.
pub fn response(asked: Asked, fields: Vec<FieldInfo>) -> QueryResponse {
    let fields = Arc::new(fields);
    let encoded = Arc::clone(&fields);
    let answer = Answer {
        rows_left: asked.rows_max,
        state: State::Asked(Box::new(asked)),
    };
    let rows = stream::unfold(answer, Answer::step).flat_map(move |batch| {
        let rows: Box<dyn Iterator<Item = PgWireResult<DataRow>> + Send> = match batch {
            Ok(batch) => encode_recordbatch(Arc::clone(&encoded), batch),
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        stream::iter(rows)
    });
    QueryResponse::new(fields, rows)
}

struct Answer {
    rows_left: u64,
    state: State,
}

enum State {
    Asked(Box<Asked>),
    Running(Box<Asked>, Box<Running>),
    Ended,
}

impl Answer {
    async fn step(mut self) -> Option<(PgWireResult<RecordBatch>, Answer)> {
        let (mut asked, running) = match std::mem::replace(&mut self.state, State::Ended) {
            State::Asked(asked) => (asked, None),
            State::Running(asked, running) => (asked, Some(running)),
            State::Ended => return None,
        };
        let mut cancelled = asked.cancelled.clone();
        let next = tokio::select! {
            next = next(&mut asked, running) => next,
            _ = cancelled.changed() => Err(PgWireError::QueryCanceled),
        };
        let (batch, running) = match next {
            Ok(Some(next)) => next,
            Ok(None) => return None,
            Err(error) => return Some((Err(error), self)),
        };
        let rows_max = asked.rows_max;
        match self.rows_left.checked_sub(batch.num_rows() as u64) {
            Some(left) => self.rows_left = left,
            None => {
                let message =
                    format!("the answer has more than {rows_max} rows; add a LIMIT, group, or raise postgres.rows in playhead's settings");
                return Some((Err(refusal(TOO_MUCH, message)), self));
            }
        }
        self.state = State::Running(asked, running);
        Some((Ok(batch), self))
    }
}

type Next = Option<(RecordBatch, Box<Running>)>;

async fn next(asked: &mut Asked, running: Option<Box<Running>>) -> PgWireResult<Next> {
    let failed = |error| refusal::of(&error, &asked.text);
    let mut running = match running {
        Some(running) => running,
        None => {
            let started = asked.desk.start(&asked.moment, asked.question.clone(), asked.timeout).await;
            Box::new(started.map_err(failed)?)
        }
    };
    let batch = running.next().await.map_err(failed)?;
    Ok(batch.map(|batch| (batch, running)))
}
