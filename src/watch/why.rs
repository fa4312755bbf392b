//! Looks for the cause of alerts that have begun to fire.
//!
//! Stands between the judge and `alert::cause`: for each alert that is to be told, the two questions of
//! `Rule::why`, their rows, and the answer on the transition, before its message is made.
//!
//! Invariant: at most `LOOKED_AT` alerts a window end, the worst first: an incident that fires a thousand
//! series has one cause, and nobody is told later because of the thousandth.
//! Invariant: an alert goes out without a cause rather than late or not at all.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};

use super::answers::{floats, texts};
use crate::alert::cause::{Answer, Counts, Explanation, Rows, RowsError, explain};
use crate::alert::message::{Cause, Causes};
use crate::alert::rule::{Rule, RuleSet, Why};
use crate::alert::{Status, Transition};
use crate::sql::{self, QueryLimits, Session, SqlError};

/// Alerts of one window end whose causes are looked for.
const LOOKED_AT: usize = 10;

/// Puts the causes on the transitions that tell of a new firing.
///
/// # Errors
/// The lake cannot be read.
pub async fn explain_new(context: &Session, limits: QueryLimits, rules: &RuleSet, events: &mut [Transition]) -> Result<(), SqlError> {
    let by_uid: BTreeMap<&str, &Rule> = rules.rules.iter().map(|rule| (rule.uid(), rule)).collect();
    let is_new = |event: &&mut Transition| event.status == Status::Firing && event.is_sent() && event.causes.is_none();
    let mut new: Vec<&mut Transition> = events.iter_mut().filter(is_new).collect();
    new.sort_by(|a, b| b.severity.cmp(&a.severity).then(b.samples.total_cmp(&a.samples)));
    let asked = new.into_iter().filter_map(|event| {
        let why = by_uid.get(event.rule_uid.as_str())?.why(event)?;
        Some((event, why))
    });
    for (event, why) in asked.take(LOOKED_AT) {
        match look(context, limits, &why).await {
            Ok(explanation) => event.causes = Some(causes(&explanation)),
            Err(Trouble::Sql(error)) if error.is_of_lake() => return Err(error),
            Err(trouble) => tracing::warn!(rule = event.rule_uid, "the cause of an alert was not looked for: {trouble}"),
        }
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error(transparent)]
    Rows(#[from] RowsError),
}

async fn look(context: &Session, limits: QueryLimits, why: &Why) -> Result<Explanation, Trouble> {
    let mut rows = Rows::new(&why.dims)?;
    let (_, now) = sql::query(context, &why.now, limits).await?;
    add(&mut rows, &now, why.dims.len(), |[num, den, samples]| Counts {
        num,
        den,
        samples,
        ..Counts::default()
    })?;
    let (_, before) = sql::query(context, &why.before, limits).await?;
    add(&mut rows, &before, why.dims.len(), |[base_num, base_den, _]| Counts {
        base_num,
        base_den,
        ..Counts::default()
    })?;
    Ok(explain(&rows, why.search))
}

fn add(rows: &mut Rows, batches: &[RecordBatch], dims: usize, counts: impl Fn([f64; 3]) -> Counts) -> Result<(), RowsError> {
    for batch in batches {
        let values: Vec<_> = (0..dims).map(|index| texts(batch.column(index))).collect();
        let sums = [0, 1, 2].map(|index| floats(batch.column(dims + index)));
        for row in 0..batch.num_rows() {
            let texts: Vec<Option<&str>> = values.iter().map(|value| value.is_valid(row).then(|| value.value(row))).collect();
            let sum = |index: usize| if sums[index].is_valid(row) { sums[index].value(row) } else { 0.0 };
            rows.push_texts(&texts, counts([sum(0), sum(1), sum(2)]))?;
        }
    }
    Ok(())
}

/// As a message holds them.
fn causes(explanation: &Explanation) -> Causes {
    let answer = match explanation.answer {
        Answer::Found => "found",
        Answer::NoSingleCause => "no_single_cause",
        Answer::NoExcess => "no_excess",
        Answer::NoBaseline => "no_baseline",
    };
    let found = explanation.candidates.iter().map(|cause| Cause {
        dims: cause.dims.clone(),
        share: cause.explains.min(1.0),
        now: cause.value,
        before: cause.baseline,
        samples: cause.samples,
    });
    Causes {
        answer: answer.to_owned(),
        found: found.collect(),
    }
}
