//! Answers that were given: whoever asks the same of the same tables gets the same rows, at no cost.
//!
//! A wall of screens, or fifty people with one dashboard, ask the same questions of one moment. The first who asks
//! has it computed, those who ask meanwhile wait for it, and later ones get it as it is.
//!
//! Invariant: an answer is kept only where asking again could give no other: no clock, no chance, one moment.
//! Invariant: what is kept is bounded, in bytes and in number, and goes with its moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use datafusion::common::ParamValues;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use tokio::sync::OnceCell;

/// Larger answers are exports, and no panel's: nobody asks for one twice.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// All answers of a moment: some hundred panels.
const BYTES_MAX: usize = 32 << 20;
/// Questions of a moment that are told apart, and how long they may be: both more than all dashboards have.
const QUESTIONS_MAX: usize = 1_000;
const QUESTION_BYTES_MAX: usize = 16 << 10;

/// A question, planned over the tables of one moment.
#[derive(Clone)]
pub struct PlannedQuestion {
    pub plan: LogicalPlan,
    /// What tells it from others.
    text: String,
}

impl PlannedQuestion {
    pub fn new(plan: LogicalPlan, text: String) -> PlannedQuestion {
        PlannedQuestion { plan, text }
    }

    /// The same with values for its parameters.
    ///
    /// # Errors
    /// A value is missing, or of no type that fits.
    pub fn with_values(self, values: &ParamValues) -> Result<PlannedQuestion, DataFusionError> {
        Ok(PlannedQuestion {
            plan: self.plan.replace_params_with_values(values)?,
            text: format!("{} {values:?}", self.text),
        })
    }
}

/// An answer that somebody has had.
pub enum Kept {
    Whole(Vec<RecordBatch>),
    /// It is not kept: it is too large, or there is no room left.
    TooMuch,
}

/// Filled by the first who asks.
pub type Slot = OnceCell<Kept>;

/// The answers of one moment.
#[derive(Default)]
pub struct Known {
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    bytes: AtomicUsize,
}

impl Known {
    /// Where the answer to this question is, or will be; `None`: it has to be computed each time.
    pub fn slot(&self, question: &PlannedQuestion) -> Option<Arc<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&question.text) {
            return Some(Arc::clone(slot));
        }
        if slots.len() >= QUESTIONS_MAX || question.text.len() > QUESTION_BYTES_MAX || !is_repeatable(&question.plan) {
            return None;
        }
        Some(Arc::clone(slots.entry(question.text.clone()).or_default()))
    }

    /// Takes room for an answer; false: there is none.
    pub fn take_room(&self, bytes: usize) -> bool {
        let taken = |before: usize| before.checked_add(bytes).filter(|after| *after <= BYTES_MAX);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

/// True for what the tables alone decide: no function that looks at a clock or draws a number, and no measuring of the run.
fn is_repeatable(plan: &LogicalPlan) -> bool {
    let mut repeatable = true;
    let seen = plan.apply_with_subqueries(|node| {
        repeatable &= !matches!(node, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::ScalarFunction(call) = part {
                    repeatable &= call.func.signature().volatility == Volatility::Immutable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    seen.is_ok() && repeatable
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn planned(text: &str) -> PlannedQuestion {
        let context = SessionContext::new();
        let plan = context.state().create_logical_plan(text).await.expect("sound");
        PlannedQuestion::new(plan, text.to_owned())
    }

    #[tokio::test]
    async fn the_same_question_has_one_slot_and_each_value_its_own() {
        let known = Known::default();
        let same = |one: &Option<Arc<Slot>>, other: &Option<Arc<Slot>>| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        let first = known.slot(&planned("SELECT abs(-1)").await);
        assert!(same(&first, &known.slot(&planned("SELECT abs(-1)").await)));
        assert!(!same(&first, &known.slot(&planned("SELECT abs(-2)").await)));
        let with = |number: i64| async move {
            let values = ParamValues::from(vec![datafusion::scalar::ScalarValue::Int64(Some(number))]);
            planned("SELECT abs($1)").await.with_values(&values).expect("fits")
        };
        let one = known.slot(&with(1).await);
        assert!(same(&one, &known.slot(&with(1).await)));
        assert!(!same(&one, &known.slot(&with(2).await)));
    }

    #[tokio::test]
    async fn what_the_clock_or_chance_decides_has_none() {
        let known = Known::default();
        for text in [
            "SELECT now()",
            "SELECT 1 WHERE now() > TIMESTAMP '2020-01-01 00:00:00Z'",
            "SELECT 1 WHERE EXISTS (SELECT random() AS r WHERE random() > 0.5)",
            "EXPLAIN SELECT 1",
        ] {
            assert!(known.slot(&planned(text).await).is_none(), "{text}");
        }
    }

    #[tokio::test]
    async fn questions_and_bytes_are_bounded() {
        let known = Known::default();
        assert!(known.take_room(BYTES_MAX - 1));
        assert!(!known.take_room(2));
        assert!(known.take_room(1));
        let question = planned("SELECT 1").await;
        for number in 0..QUESTIONS_MAX {
            let other = PlannedQuestion::new(question.plan.clone(), number.to_string());
            assert!(known.slot(&other).is_some());
        }
        assert!(known.slot(&question).is_none());
        let long = PlannedQuestion::new(question.plan.clone(), "x".repeat(QUESTION_BYTES_MAX + 1));
        assert!(Known::default().slot(&long).is_none());
    }
}
