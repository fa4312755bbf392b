//! Answers that several readers share: the same SQL within its time is one query.
//!
//! Stands between the routes and the desk.
//!
//! Invariant: bounded: `KEPT_MAX` answers of at most `ROWS_MAX` rows, and none older than its time is given out.
//! Invariant: a reader that goes away does not take the answer of the others with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use super::Refusal;
use super::frames::{Column, columns};
use crate::clock::Clock;
use crate::serve::desk::Desk;

/// Screens that look at the same panel ask within the same second.
pub const PANEL_TIME: Duration = Duration::from_secs(1);
/// Choices of a variable change slowly, and their range is rounded to minutes.
pub const CHOICES_TIME: Duration = Duration::from_secs(30);
/// Some hundred panels in use at a time; older answers are taken out first.
const KEPT_MAX: usize = 512;
/// More rows no panel draws; what is cut is said.
const ROWS_MAX: usize = 20_000;

/// What came of one SQL text.
#[derive(Debug)]
pub struct Answered {
    pub columns: Vec<Column>,
    pub rows: usize,
    pub is_cut: bool,
    pub took_ms: f64,
}

type Cell = Arc<OnceCell<Result<Arc<Answered>, Refusal>>>;

struct Kept {
    cell: Cell,
    since_ms: i64,
    keep_ms: i64,
}

impl Kept {
    /// A clock that was put back keeps nothing.
    fn is_fresh(&self, now_ms: i64) -> bool {
        (0..self.keep_ms).contains(&(now_ms - self.since_ms))
    }
}

pub struct Answers {
    kept: Mutex<HashMap<String, Kept>>,
    clock: Arc<dyn Clock>,
}

impl Answers {
    pub fn new(clock: Arc<dyn Clock>) -> Answers {
        Answers {
            kept: Mutex::default(),
            clock,
        }
    }

    /// The answer to a query, asked now or at most `time` ago.
    ///
    /// # Errors
    /// What the desk says.
    pub async fn get(&self, desk: &Desk, sql: &str, time: Duration) -> Result<Arc<Answered>, Refusal> {
        let cell = self.cell(sql, time);
        cell.get_or_init(|| asked(desk, sql)).await.clone()
    }

    fn cell(&self, sql: &str, time: Duration) -> Cell {
        let now_ms = self.clock.now_ms();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(sql).filter(|known| known.is_fresh(now_ms)) {
            return Arc::clone(&known.cell);
        }
        kept.retain(|_, known| known.is_fresh(now_ms));
        if kept.len() >= KEPT_MAX {
            let oldest = kept.iter().min_by_key(|(_, known)| known.since_ms).map(|(sql, _)| sql.clone());
            oldest.and_then(|sql| kept.remove(&sql));
        }
        let fresh = Kept {
            cell: Cell::default(),
            since_ms: now_ms,
            keep_ms: i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
        };
        let cell = Arc::clone(&fresh.cell);
        kept.insert(sql.to_owned(), fresh);
        cell
    }
}

async fn asked(desk: &Desk, sql: &str) -> Result<Arc<Answered>, Refusal> {
    let began = Instant::now();
    let answer = desk.query(sql).await?;
    let all: usize = answer.batches.iter().map(|batch| batch.num_rows()).sum();
    let columns = columns(&answer.schema, &answer.batches, ROWS_MAX).map_err(|error| Refusal::Failed(error.to_string()))?;
    Ok(Arc::new(Answered {
        columns,
        rows: all.min(ROWS_MAX),
        is_cut: answer.is_cut || all > ROWS_MAX,
        took_ms: (began.elapsed().as_secs_f64() * 10_000.0).round() / 10.0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_same_question_within_its_time_is_the_same_cell() {
        let clock = Arc::new(ManualClock::at(1_000));
        let answers = Answers::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let first = answers.cell("SELECT 1", PANEL_TIME);
        assert!(Arc::ptr_eq(&first, &answers.cell("SELECT 1", PANEL_TIME)));
        assert!(!Arc::ptr_eq(&first, &answers.cell("SELECT 2", PANEL_TIME)));
        clock.set(1_999);
        assert!(Arc::ptr_eq(&first, &answers.cell("SELECT 1", PANEL_TIME)));
        clock.set(2_000);
        assert!(!Arc::ptr_eq(&first, &answers.cell("SELECT 1", PANEL_TIME)));
        clock.set(0);
        assert!(!Arc::ptr_eq(&first, &answers.cell("SELECT 1", PANEL_TIME)));
    }

    #[test]
    fn no_more_than_the_bound_is_kept() {
        let answers = Answers::new(Arc::new(ManualClock::at(0)));
        for number in 0..2 * KEPT_MAX {
            answers.cell(&format!("SELECT {number}"), PANEL_TIME);
        }
        assert_eq!(answers.kept.lock().unwrap().len(), KEPT_MAX);
    }
}
