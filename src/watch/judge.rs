//! The judge: rules in force, what they remember, and one window end after the other.
//!
//! Stands between gold and the record of `watch`, and can judge history
//! without recording: a session over gold and window ends in, transitions out.
//!
//! Invariant: all rules of a window end are judged against the states before it, in order of event time.
//! Invariant: a rule whose query fails says so by its `eval_error` and stops no other; a lake that cannot
//! be read stops all of them, for then nothing has been judged.
//! Invariant: what is judged follows from the rows alone, not from how many ends come at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::task::JoinSet;

use super::answers::{Minutes, add_minutes, shared_minutes, slots};
use super::why::explain_new;
use crate::alert::baseline::{FiringSpans, firing_spans, usable};
use crate::alert::rule::{Rule, RuleSet, shared, shared_sql};
use crate::alert::{
    MinuteRow, SlotRow, States, Transition, amended, close_removed, early, evaluate, evaluate_failed, fold, route, route_early,
};
use crate::sql::{self, QueryLimits, Session, SqlError};

/// Past episodes of one alert that its baseline leaves out, the newest: the longest lookback is eight weeks,
/// and an alert that fires more often than this has no usual state.
const SPANS_MAX: usize = 1_000;
/// Questions in hand at once: what they cost is the planning, on one core each.
const ASKED_AT_ONCE: usize = 2;

/// Rules in force with their memory.
pub struct Judge {
    rules: Arc<RuleSet>,
    states: States,
    /// Episodes that have ended.
    ended: FiringSpans,
    /// False: nobody wants to know why, only what.
    looks_for_causes: bool,
}

/// A window end, and whether a row of gold is near enough to be in its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub at_ms: i64,
    pub has_rows: bool,
}

/// The answer to a rule's `history_sql`, kept for as long as the text stays the same.
type Histories<'r> = BTreeMap<&'r str, (String, Result<Vec<SlotRow>, String>)>;

impl Judge {
    /// `events` are all transitions that are stored.
    pub fn new(rules: RuleSet, events: &[Transition]) -> Judge {
        Judge {
            rules: Arc::new(rules),
            states: fold(events),
            ended: firing_spans(events, &States::default()),
            looks_for_causes: true,
        }
    }

    /// Judges the same and searches for no cause, which takes most of the time of a long replay.
    #[must_use]
    pub fn without_causes(mut self) -> Judge {
        self.looks_for_causes = false;
        self
    }

    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    pub fn replace_rules(&mut self, rules: RuleSet) {
        self.rules = Arc::new(rules);
    }

    pub fn states(&self) -> &States {
        &self.states
    }

    /// True while an end without rows near it may change something: an alert is open, or a rule tells that
    /// there are none.
    pub fn is_awake(&self) -> bool {
        !self.states.is_empty() || self.rules.rules.iter().any(Rule::tells_no_data)
    }

    /// Judges these window ends, in order; those that have no rows only while it is awake. Returns what
    /// changes, and the last end that was judged.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn judge(
        &mut self,
        context: &Session,
        limits: QueryLimits,
        ends: &[End],
    ) -> Result<(Vec<Transition>, Option<i64>), SqlError> {
        let ask = &Ask { context, limits };
        let rules = &*Arc::clone(&self.rules);
        let asked: Vec<i64> = ends.iter().map(|end| end.at_ms).collect();
        let answers = ask.all_minutes(&rules.rules, &asked).await?;
        let mut histories = Histories::new();
        let (mut transitions, mut last) = (Vec::new(), None);
        for end in ends {
            if !end.has_rows && !self.is_awake() {
                continue;
            }
            let mut events = close_removed(&rules.rules, end.at_ms, &self.states, &rules.hash);
            for (rule, answer) in rules.rules.iter().zip(&answers) {
                let history = self.history(rule, end.at_ms, ask, &mut histories).await?;
                events.extend(match (answer, history) {
                    (Ok(minutes), Ok(history)) => self.evaluated(rule, end.at_ms, minutes, &history, &rules.hash),
                    _ => evaluate_failed(rule, end.at_ms, &self.states, &rules.hash),
                });
            }
            let mut events = route(rules, end.at_ms, events, &self.states);
            if self.looks_for_causes {
                explain_new(context, limits, rules, &mut events).await?;
            }
            self.states.apply_all(&events);
            self.note_ended(&events);
            transitions.extend(events);
            last = Some(end.at_ms);
        }
        Ok((transitions, last))
    }

    /// What rules that ask for it tell of the windows that end after `after_ms` and have begun by `newest_ms`, by the
    /// rows of them that are there so far. They are judged for good when they close.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn judge_early(
        &mut self,
        context: &Session,
        limits: QueryLimits,
        after_ms: i64,
        newest_ms: i64,
    ) -> Result<Vec<Transition>, SqlError> {
        let ask = &Ask { context, limits };
        let rules = &*Arc::clone(&self.rules);
        let mut histories = Histories::new();
        let mut by_end: BTreeMap<i64, Vec<Transition>> = BTreeMap::new();
        for rule in rules.rules.iter().filter(|rule| rule.is_early()) {
            let ends = rule.open_ends_ms(after_ms, newest_ms);
            // A query that fails says so when the window is judged.
            let Ok(minutes) = ask.minutes(rule, &ends).await? else { continue };
            // What open windows would lead to one after the other, so that `for` counts through them.
            let mut supposed = self.states.clone();
            for end_ms in ends {
                let Ok(history) = self.history(rule, end_ms, ask, &mut histories).await? else {
                    break;
                };
                let rows = in_window(rule, end_ms, &minutes);
                let events = evaluate(rule, end_ms, &rows, &history, &supposed, &rules.hash);
                supposed.apply_all(&events);
                by_end.entry(end_ms).or_default().extend(events);
            }
        }
        let mut transitions = Vec::new();
        for (end_ms, events) in by_end {
            let mut events = route_early(rules, end_ms, early(events, &self.states), &self.states);
            explain_new(context, limits, rules, &mut events).await?;
            self.states.apply_all(&events);
            transitions.extend(events);
        }
        Ok(transitions)
    }

    /// What these firings would not be any more, by the rows that are there now.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn amended(&self, context: &Session, limits: QueryLimits, firings: &[Transition]) -> Result<Vec<Transition>, SqlError> {
        let ask = &Ask { context, limits };
        let mut histories = Histories::new();
        let mut events = Vec::new();
        for told in firings {
            let Some(rule) = self.rules.rules.iter().find(|rule| rule.uid() == told.rule_uid) else {
                continue;
            };
            let end_ms = told.window_end_ms;
            let history = self.history(rule, end_ms, ask, &mut histories).await?;
            // A query that fails says so when the next window is judged.
            if let (Ok(minutes), Ok(history)) = (ask.minutes(rule, &[end_ms]).await?, history) {
                let rows = in_window(rule, end_ms, &minutes);
                events.extend(amended(rule, told, &rows, &history, &self.rules.hash));
            }
        }
        Ok(events)
    }

    fn evaluated(&self, rule: &Rule, end_ms: i64, minutes: &Minutes, history: &[SlotRow], hash: &str) -> Vec<Transition> {
        let rows = in_window(rule, end_ms, minutes);
        evaluate(rule, end_ms, &rows, history, &self.states, hash)
    }

    /// What the rule's baseline leans on, without the time of incidents.
    async fn history<'r>(
        &self,
        rule: &'r Rule,
        end_ms: i64,
        ask: &Ask<'_>,
        histories: &mut Histories<'r>,
    ) -> Result<Result<Vec<SlotRow>, String>, SqlError> {
        let Some(text) = rule.history_sql(end_ms) else {
            return Ok(Ok(Vec::new()));
        };
        if histories.get(rule.uid()).is_none_or(|(known, _)| *known != text) {
            let answer = ask.slots(rule, &text).await?;
            histories.insert(rule.uid(), (text, answer));
        }
        let (_, answer) = &histories[rule.uid()];
        Ok(answer.clone().map(|history| usable(rule, history, &self.spans())))
    }

    /// When alerts were firing, and since when they are.
    fn spans(&self) -> FiringSpans {
        let mut spans = firing_spans([], &self.states);
        for (fingerprint, ended) in &self.ended {
            spans.entry(fingerprint.clone()).or_default().extend(ended);
        }
        spans
    }

    fn note_ended(&mut self, events: &[Transition]) {
        for (fingerprint, spans) in firing_spans(events, &States::default()) {
            let known = self.ended.entry(fingerprint).or_default();
            known.extend(spans);
            known.drain(..known.len().saturating_sub(SPANS_MAX));
        }
    }
}

fn in_window(rule: &Rule, end_ms: i64, minutes: &Minutes) -> Vec<MinuteRow> {
    let window = minutes.range(end_ms - rule.window_ms()..end_ms);
    window.flat_map(|(_, rows)| rows).cloned().collect()
}

/// Schema and rows.
type Answer = Result<(SchemaRef, Vec<RecordBatch>), SqlError>;

/// Questions of rules to gold.
struct Ask<'c> {
    context: &'c Session,
    limits: QueryLimits,
}

impl Ask<'_> {
    /// What all rules are judged by, in their order: those that can be are asked together. Where that fails each
    /// is asked alone, so that the one at fault is named and stops no other.
    async fn all_minutes(&self, rules: &[Rule], ends: &[i64]) -> Result<Vec<Result<Minutes, String>>, SqlError> {
        let mut answers: Vec<Option<Result<Minutes, String>>> = rules.iter().map(|_| None).collect();
        let mut waiting = shared(rules).into_iter();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < ASKED_AT_ONCE
                && let Some(together) = waiting.next()
            {
                self.ask_together(&mut asked, rules, together, ends);
            }
            let Some(told) = asked.join_next().await else { break };
            let (together, answer) = told.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            let dims = rules[together[0]].group_by().len();
            for (index, minutes) in together.iter().zip(of_all(answer, dims, together.len())?) {
                answers[*index] = Some(Ok(minutes));
            }
        }
        let mut all = Vec::with_capacity(rules.len());
        for (rule, answer) in rules.iter().zip(answers) {
            all.push(match answer {
                Some(answer) => answer,
                None => self.minutes(rule, ends).await?,
            });
        }
        Ok(all)
    }

    /// Asks for the rules at these places, on a task of its own, if they can be asked together.
    fn ask_together(&self, asked: &mut JoinSet<(Vec<usize>, Answer)>, rules: &[Rule], together: Vec<usize>, ends: &[i64]) {
        let (Some(first), Some(last)) = (ends.first(), ends.last()) else {
            return;
        };
        let of_all: Vec<&Rule> = together.iter().map(|index| &rules[*index]).collect();
        let Some(text) = shared_sql(&of_all, *first, *last) else { return };
        let (context, limits) = (self.context.clone(), self.limits);
        asked.spawn(async move { (together, sql::query(&context, &text, limits).await) });
    }

    async fn minutes(&self, rule: &Rule, ends: &[i64]) -> Result<Result<Minutes, String>, SqlError> {
        let mut minutes = Minutes::new();
        for text in rule.queries(ends) {
            match of_rule(rule, sql::query(self.context, &text, self.limits).await)? {
                Ok((_, batches)) => add_minutes(&mut minutes, &batches, rule.group_by().len()),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(minutes))
    }

    async fn slots(&self, rule: &Rule, text: &str) -> Result<Result<Vec<SlotRow>, String>, SqlError> {
        let answer = of_rule(rule, sql::query(self.context, text, self.limits).await)?;
        Ok(answer.map(|(_, batches)| slots(&batches, rule.group_by().len())))
    }
}

/// The minutes of each of so many rules; nothing where they could not be answered together.
fn of_all(answer: Answer, dims: usize, rules: usize) -> Result<Vec<Minutes>, SqlError> {
    match answer {
        Ok((_, batches)) => Ok(shared_minutes(&batches, dims, rules)),
        Err(error) if error.is_of_lake() => Err(error),
        Err(error) => {
            tracing::debug!("{rules} rules are asked one by one: {error}");
            Ok(Vec::new())
        }
    }
}

/// Tells what is wrong with the rule from what is wrong with the lake.
fn of_rule<T>(rule: &Rule, answer: Result<T, SqlError>) -> Result<Result<T, String>, SqlError> {
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(error) if error.is_of_lake() => Err(error),
        Err(error) => {
            tracing::error!(
                rule = rule.uid(),
                "the query of an alert rule failed: {error}; its windows are judged by its `eval_error`"
            );
            Ok(Err(error.to_string()))
        }
    }
}

#[cfg(test)]
mod incidents;
#[cfg(test)]
mod together;
