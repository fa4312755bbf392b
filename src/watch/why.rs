//! Looks for the cause of alerts that have begun to fire.
//!
//! Stands between the judge and `sql::cause`: for each alert that is to be told, the two questions of
//! `Rule::why`, and the answer on the transition, before its message is made.
//!
//! Invariant: at most `LOOKED_AT` alerts a window end, the worst first: an incident that fires a thousand
//! series has one cause, and nobody is told later because of the thousandth.
//! Invariant: an alert goes out without a cause rather than late or not at all.

use std::collections::BTreeMap;

use crate::alert::cause::Explanation;
use crate::alert::message::{Cause, Causes};
use crate::alert::rule::{Rule, RuleSet};
use crate::alert::{Status, Transition};
use crate::sql::cause::{CauseError, look};
use crate::sql::explain_change::word;
use crate::sql::{QueryLimits, Session, SqlError};

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
            Err(CauseError::Sql(error)) if error.is_of_lake() => return Err(error),
            Err(trouble) => tracing::warn!(rule = event.rule_uid, "the cause of an alert was not looked for: {trouble}"),
        }
    }
    Ok(())
}

/// As a message holds them.
fn causes(explanation: &Explanation) -> Causes {
    let found = explanation.candidates.iter().map(|cause| Cause {
        dims: cause.dims.clone(),
        share: cause.explains.min(1.0),
        now: cause.value,
        before: cause.baseline,
        samples: cause.samples,
    });
    Causes {
        answer: word(explanation.answer).to_owned(),
        found: found.collect(),
    }
}
