//! Alerts over closed windows: asks gold, judges, records, hands over to the outbox.
//!
//! Runs after the rollup. Each closed minute is judged once, in order of event time, by the pure
//! functions of `alert` (`judge`); `ops.alert_events` is their memory and the outbox in one commit
//! (`ledger`). What is recorded is sent by `outbox`, on a task of its own.
//!
//! Invariant: a window is judged once. The table's marker says through which; a crash before the
//! commit judges it again with the same result, a crash after it sends what is not acknowledged.
//! Rules over `ops.health_1m` (`own`) are judged apart, minute by minute of the machine's clock: they tell that
//! event time stands still. They need no marker: a minute that nobody judged is past.
//!
//! Invariant: a window that late data change after it was judged changes no state and fires nothing. A firing that
//! was told and would not be now is amended, once, where its rule asks for it (`told`).

mod answers;
mod causes;
mod judge;
mod ledger;
mod outbox;
mod own;
mod told;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;

use crate::alert::message::{self, Producer};
use crate::alert::rule::{Rule, RuleSet};
use crate::alert::{TableVersion, Transition, is_amendable};
use crate::clock::Clock;
use crate::lake::tables::{ALERT_EVENTS, HEALTH, WINDOWED_VIEWS};
use crate::lake::{Commit, Lake, LakeError, TimeRange};
use crate::notify::{Message, Notifier};
use crate::sql::pipeline::Pipeline;
use crate::sql::{self, MINUTE_MS, QueryLimits, Session, SqlError};

pub use answers::{Minutes, add_minutes, slots};
pub use judge::{End, Judge};
pub use outbox::Outbox;
pub use own::{Heard, OwnHealth};

use ledger::{Ledger, Rows};
use told::Told;

/// The application id of the marker: through which window end (epoch seconds) rules have judged.
const MARKER: &str = "alerts";
/// Ends judged before they are committed: bounds the memory of a long backfill.
const ENDS_PER_COMMIT: usize = 1_440;
/// Minutes without rows that are judged at most after the last that has some, or after a long rest: a week.
/// Whoever has not heard of a silence by then does not wait for this message.
const QUIET_MAX: i64 = 7 * 1_440;
/// How often the windows that are open are looked at, for rules that ask for it: often enough to tell of a breach
/// within seconds, and seldom enough to cost no more than a panel of a dashboard.
const EARLY_EVERY_MS: i64 = 5_000;
/// How far event time has come.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    pub watermark_ms: Option<i64>,
    /// Windows that end by then are closed.
    pub closed_ms: Option<i64>,
    /// Nothing more will come: everything is closed.
    pub is_end: bool,
    /// Rows of windows that are stored in part still wait: nothing is judged.
    pub is_held: bool,
}

/// Rules in force with their memory.
pub struct Watch {
    lake: Arc<Lake>,
    pipelines: Vec<Pipeline>,
    limits: QueryLimits,
    judge: Judge,
    /// Of the rules over the daemon's own health.
    own_judge: Judge,
    judged_through_ms: i64,
    told: Told,
    /// What late data have changed is not known minute by minute: a start, or a wait, lies before.
    amends_all: bool,
    /// Minutes with gold rows whose windows are not all judged.
    minutes: BTreeSet<i64>,
    /// When open windows were looked at last.
    looked_early_ms: i64,
    outbox: Option<Arc<Outbox>>,
}

/// Who sends. The same value is in the attributes of what is delivered.
pub fn producer() -> Producer<'static> {
    Producer {
        env: "default",
        version: env!("CARGO_PKG_VERSION"),
    }
}

impl Watch {
    /// Takes up the rules' memory from the lake. Without a notifier, alerts are recorded only.
    ///
    /// # Errors
    /// The lake cannot be read, or the marker cannot be set.
    pub async fn open(
        lake: Arc<Lake>,
        rules: RuleSet,
        pipelines: Vec<Pipeline>,
        limits: QueryLimits,
        notifier: Option<Notifier>,
        clock: Arc<dyn Clock>,
    ) -> Result<Watch, SqlError> {
        let targets = rules.targets.clone();
        let (rules, own_rules) = parted(rules);
        let judged_through_ms = judged_through(&lake, &rules, &pipelines).await?;
        let ledger = Ledger::read(&lake).await?;
        causes::catch_up(&lake, &ledger.events).await?;
        let undelivered = ledger.undelivered();
        let is_own = |event: &Transition| own_rules.rules.iter().any(|rule| rule.uid() == event.rule_uid);
        let (own_events, events): (Vec<_>, Vec<_>) = ledger.events.into_iter().partition(is_own);
        let outbox = notifier.map(|notifier| Arc::new(Outbox::new(Arc::clone(&lake), notifier, clock, targets, undelivered)));
        let mut told = Told::default();
        told.note(&events);
        let mut watch = Watch {
            lake,
            pipelines,
            limits,
            judge: Judge::new(rules, &events),
            own_judge: Judge::new(own_rules, &own_events),
            judged_through_ms,
            told,
            amends_all: true,
            minutes: BTreeSet::new(),
            looked_early_ms: i64::MIN,
            outbox,
        };
        watch.minutes = watch.unjudged_minutes().await?;
        Ok(watch)
    }

    /// Alerts that are firing now.
    pub fn firing(&self) -> usize {
        let states = self.judge.states().iter().chain(self.own_judge.states().iter());
        states
            .filter(|state| state.status().is_firing() && state.last().rule_state().is_none())
            .count()
    }

    /// Rules in force.
    pub fn rules(&self) -> usize {
        self.judge.rules().rules.len() + self.own_judge.rules().rules.len()
    }

    /// Messages that wait for a target; none where delivery is switched off.
    pub fn undelivered(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.waiting())
    }

    /// When the oldest of these was recorded.
    pub fn oldest_undelivered_ms(&self) -> Option<i64> {
        self.outbox.as_ref().and_then(|outbox| outbox.oldest_ms())
    }

    /// Where messages go from here; none where delivery is switched off.
    pub fn outbox(&self) -> Option<Arc<Outbox>> {
        self.outbox.clone()
    }

    /// Puts other rules in force. Alerts of rules that are gone end at the next window.
    pub fn replace_rules(&mut self, rules: RuleSet) {
        if let Some(outbox) = &self.outbox {
            outbox.replace_targets(rules.targets.clone());
        }
        let (rules, own_rules) = parted(rules);
        self.judge.replace_rules(rules);
        self.own_judge.replace_rules(own_rules);
    }

    /// Judges the rules over the daemon's own health for the minute that ended at `end_ms`, and records and hands
    /// over what changes.
    ///
    /// # Errors
    /// The lake cannot be read or written.
    pub async fn judge_own_health(&mut self, end_ms: i64, reached: Reached, now_ms: i64) -> Result<(), SqlError> {
        if self.own_judge.rules().rules.is_empty() && !self.own_judge.is_awake() {
            return Ok(());
        }
        let context = sql::open(&self.lake, &[], self.limits).await?;
        let end = End {
            at_ms: end_ms,
            has_rows: true,
        };
        let (transitions, _) = self.own_judge.judge(&context, self.limits, &[end]).await?;
        if transitions.is_empty() {
            return Ok(());
        }
        let version = self.lake.version(HEALTH).await?;
        let lineage = vec![TableVersion {
            table: HEALTH.to_owned(),
            version,
        }];
        self.record(transitions, lineage, Vec::new(), reached, now_ms).await
    }

    /// Judges the windows that newly closed minutes complete, records them and hands their messages over.
    /// `closed`: by table.
    ///
    /// # Errors
    /// The lake cannot be read or written.
    pub async fn run(&mut self, closed: &BTreeMap<String, BTreeSet<i64>>, reached: Reached, now_ms: i64) -> Result<(), SqlError> {
        // A table that no rule reads may be far ahead: rejects go by the time of their receipt.
        for table in self.tables() {
            self.minutes.extend(closed.get(&table).into_iter().flatten());
        }
        if reached.is_held {
            // Which of these change what was told is seen once all of them are there.
            self.amends_all = true;
            return Ok(());
        }
        self.amend(closed, reached, now_ms).await?;
        let ends = self.due_ends(reached);
        for ends in ends.chunks(ENDS_PER_COMMIT) {
            if self.judge.is_awake() || ends.iter().any(|end| end.has_rows) {
                self.judge_ends(ends, reached, now_ms).await?;
            }
        }
        Ok(())
    }

    /// Looks at the windows that are not closed of each rule that asks for it, and records and hands over what
    /// breaches already; every `EARLY_EVERY_MS` at the most. `pending`: windows that gold does not answer yet, by table.
    ///
    /// # Errors
    /// The lake cannot be read or written.
    pub async fn look_early(
        &mut self,
        pending: impl FnOnce() -> BTreeMap<String, BTreeSet<i64>>,
        reached: Reached,
        now_ms: i64,
    ) -> Result<(), SqlError> {
        // A clock that was put back must not put it off for ever.
        let has_just_looked = (self.looked_early_ms..self.looked_early_ms.saturating_add(EARLY_EVERY_MS)).contains(&now_ms);
        if has_just_looked || reached.is_held || !self.judge.rules().rules.iter().any(Rule::is_early) {
            return Ok(());
        }
        self.looked_early_ms = now_ms;
        let mut rules = self.judge.rules().clone();
        rules.rules.retain(Rule::is_early);
        let (read, pending) = (self.read_by(&rules), pending());
        let open = |pipeline: Pipeline| {
            let windows = pending.get(&pipeline.table()).cloned().unwrap_or_default();
            (pipeline, windows)
        };
        let read: Vec<(Pipeline, BTreeSet<i64>)> = read.into_iter().map(open).collect();
        let Some(newest) = read.iter().filter_map(|(_, windows)| windows.last()).max() else {
            return Ok(());
        };
        let newest_ms = (newest + 1) * MINUTE_MS;
        let context = sql::open(&self.lake, &read, self.limits).await?;
        let closed_ms = self.last_end(reached, None).saturating_mul(MINUTE_MS);
        let after_ms = self.judged_through_ms.max(closed_ms);
        let transitions = self.judge.judge_early(&context, self.limits, after_ms, newest_ms).await?;
        if transitions.is_empty() {
            return Ok(());
        }
        // What is not in gold yet comes from silver.
        let silver = WINDOWED_VIEWS.iter().map(|view| view.table.to_owned());
        let lineage = self
            .versions(self.tables().into_iter().chain(silver.collect::<BTreeSet<_>>()))
            .await?;
        self.record(transitions, lineage, Vec::new(), reached, now_ms).await
    }

    /// Judges firings once more whose windows late data have changed, and records and hands over what is amended.
    async fn amend(&mut self, closed: &BTreeMap<String, BTreeSet<i64>>, reached: Reached, now_ms: i64) -> Result<(), SqlError> {
        let judged = self.judged_through_ms.div_euclid(MINUTE_MS);
        let tables = self.tables();
        let minutes = tables.iter().filter_map(|table| closed.get(table)).flatten().copied();
        let late: BTreeSet<i64> = minutes.filter(|minute| *minute < judged).collect();
        let all = std::mem::take(&mut self.amends_all);
        if late.is_empty() && !all {
            return Ok(());
        }
        let rules = &self.judge.rules().rules;
        let mut firings = self.told.touched((!all).then_some(&late));
        firings.retain(|told| rules.iter().any(|rule| is_amendable(rule, told)));
        if firings.is_empty() {
            return Ok(());
        }
        let context = self.session().await?;
        let amended = self.judge.amended(&context, self.limits, &firings).await?;
        if amended.is_empty() {
            return Ok(());
        }
        let lineage = self.lineage().await?;
        self.record(amended, lineage, Vec::new(), reached, now_ms).await
    }

    /// Gold minutes that windows not yet judged can reach.
    async fn unjudged_minutes(&self) -> Result<BTreeSet<i64>, SqlError> {
        let range = TimeRange {
            from_ms: self.judged_through_ms - self.longest_window_ms(),
            to_ms: i64::MAX / 1000,
        };
        let mut minutes = BTreeSet::new();
        for table in self.tables() {
            for batch in self.lake.scan(&table, &["window_start"], range, None).await? {
                let starts = batch.column(0).as_primitive::<TimestampMicrosecondType>();
                minutes.extend(starts.iter().flatten().map(|start| start.div_euclid(MINUTE_MS * 1000)));
            }
        }
        Ok(minutes)
    }

    /// The gold tables that the rules read, those behind a view instead of it.
    fn tables(&self) -> BTreeSet<String> {
        tables_of(self.judge.rules(), &self.pipelines)
    }

    /// The pipelines behind what these rules read, the finest first.
    fn read_by(&self, rules: &RuleSet) -> Vec<Pipeline> {
        let named: Vec<String> = tables_of(rules, &self.pipelines).into_iter().collect();
        sql::mentioned(self.pipelines.clone(), &named.join(" "))
    }

    /// The gold tables that rules are judged by, with those that they are rolled up from.
    pub fn judged_by(&self) -> BTreeSet<String> {
        self.read_by(self.judge.rules()).iter().map(Pipeline::table).collect()
    }

    fn longest_window_ms(&self) -> i64 {
        let rules = self.judge.rules().rules.iter();
        rules.map(Rule::window_ms).max().unwrap_or(MINUTE_MS)
    }

    /// Window ends to judge: every minute that a window with rows can end in, up to the newest row, and
    /// the minutes without rows, which only an open alert and a rule that tells of silence ask for.
    fn due_ends(&mut self, reached: Reached) -> Vec<End> {
        let reach = self.longest_window_ms() / MINUTE_MS;
        let after = self.judged_through_ms / MINUTE_MS;
        let newest = self.minutes.last().map(|minute| minute + 1);
        let last = self.last_end(reached, newest);
        let mut ends: BTreeMap<i64, bool> = BTreeMap::new();
        if let Some(quiet_from) = self.quiet_from(after) {
            ends.extend((quiet_from.max(last.saturating_sub(QUIET_MAX))..=last).map(|end| (end, false)));
        }
        let newest = newest.unwrap_or(i64::MIN).min(last);
        // One past the longest window sees the group gone, and so ends its alert.
        let with_rows = self.minutes.iter().flat_map(|minute| minute + 1..=minute + reach + 1);
        ends.extend(with_rows.filter(|end| *end > after && *end <= newest).map(|end| (end, true)));
        self.minutes.retain(|minute| minute + reach + 1 > newest);
        let end = |(end, has_rows)| End {
            at_ms: end * MINUTE_MS,
            has_rows,
        };
        ends.into_iter().map(end).collect()
    }

    /// The last minute in which a window may be judged now.
    fn last_end(&self, reached: Reached, newest: Option<i64>) -> i64 {
        let newest = newest.unwrap_or(i64::MIN);
        if reached.is_end {
            return newest;
        }
        let closed = reached.closed_ms.map_or(i64::MIN, |closed_ms| closed_ms.div_euclid(MINUTE_MS));
        let lateness_ms = self.judge.rules().rules.iter().map(Rule::lateness_ms).max().unwrap_or(0);
        // A rule that waits for late data holds up all: they share one marker.
        match reached.watermark_ms {
            Some(watermark_ms) => newest.max(closed).min((watermark_ms - lateness_ms).div_euclid(MINUTE_MS)),
            None => newest,
        }
    }

    /// From where minutes without rows count; none before there has been any row.
    fn quiet_from(&self, after: i64) -> Option<i64> {
        match after {
            0 => self.minutes.first().map(|minute| minute + 1),
            after => Some(after + 1),
        }
    }

    async fn session(&self) -> Result<Session, SqlError> {
        let tables = self.tables();
        let read = self.pipelines.iter().filter(|pipeline| tables.contains(&pipeline.table()));
        sql::open(&self.lake, &stored_only(read), self.limits).await
    }

    async fn judge_ends(&mut self, ends: &[End], reached: Reached, now_ms: i64) -> Result<(), SqlError> {
        let context = self.session().await?;
        let (transitions, last) = self.judge.judge(&context, self.limits, ends).await?;
        let Some(last) = last else { return Ok(()) };
        self.judged_through_ms = last;
        let covers = vec![(MARKER.to_string(), self.judged_through_ms / 1000)];
        let lineage = self.lineage().await?;
        self.record(transitions, lineage, covers, reached, now_ms).await
    }

    async fn lineage(&self) -> Result<Vec<TableVersion>, LakeError> {
        self.versions(self.tables()).await
    }

    async fn versions(&self, tables: impl IntoIterator<Item = String>) -> Result<Vec<TableVersion>, LakeError> {
        let mut lineage = Vec::new();
        for table in tables {
            let version = self.lake.version(&table).await?;
            lineage.push(TableVersion { table, version });
        }
        Ok(lineage)
    }

    /// Transitions, their messages and the marker in one commit; then the outbox has them.
    async fn record(
        &mut self,
        transitions: Vec<Transition>,
        lineage: Vec<TableVersion>,
        covers: Vec<(String, i64)>,
        reached: Reached,
        now_ms: i64,
    ) -> Result<(), SqlError> {
        let mut rows = Rows::default();
        let mut messages = Vec::with_capacity(transitions.len());
        for mut event in transitions {
            event.stamp(now_ms, lineage.clone());
            event.watermark_ms = reached.watermark_ms;
            let body = message::json(&event, producer());
            let message = Arc::new(Message { event, body });
            rows.transition(&message);
            messages.push(message);
        }
        let note = serde_json::Value::Null;
        self.lake.append(ALERT_EVENTS, vec![rows.batch()?], Commit { covers, note }).await?;
        causes::store(&self.lake, messages.iter().map(|message| &message.event)).await?;
        self.told.note(messages.iter().map(|message| &message.event));
        if let Some(outbox) = &self.outbox {
            outbox.put(messages.into_iter().filter(|message| message.event.is_sent()));
        }
        Ok(())
    }
}

/// Those over gold, and those over the daemon's own health.
fn parted(rules: RuleSet) -> (RuleSet, RuleSet) {
    let mut own = rules.clone();
    own.rules.retain(|rule| rule.from() == HEALTH);
    let mut others = rules;
    others.rules.retain(|rule| rule.from() != HEALTH);
    (others, own)
}

/// Through which window end the rules have judged. The first time it is set down before anything is
/// judged, so that a crash after the first gold commit loses no window: from the start on in a lake
/// without gold, from now on in one that has a history.
async fn judged_through(lake: &Lake, rules: &RuleSet, pipelines: &[Pipeline]) -> Result<i64, LakeError> {
    if let Some(seconds) = lake.covered(ALERT_EVENTS, MARKER).await? {
        return Ok(seconds * 1000);
    }
    let mut newest_ms = 0;
    for table in tables_of(rules, pipelines) {
        for batch in lake.scan(&table, &["window_end"], TimeRange::ALL, None).await? {
            let ends = batch.column(0).as_primitive::<TimestampMicrosecondType>();
            newest_ms = ends.iter().flatten().map(|end| end.div_euclid(1000)).fold(newest_ms, i64::max);
        }
    }
    let covers = vec![(MARKER.to_string(), newest_ms / 1000)];
    let note = serde_json::Value::Null;
    lake.append(ALERT_EVENTS, Vec::new(), Commit { covers, note }).await?;
    Ok(newest_ms)
}

/// The gold tables that rules read: what they name, or of a query of their own, what its text names.
pub fn tables_of(rules: &RuleSet, pipelines: &[Pipeline]) -> BTreeSet<String> {
    let of_rule = |rule: &Rule| match rule.from() {
        "" => {
            let text = rule.sql(0, MINUTE_MS);
            let named = sql::mentioned(pipelines.to_vec(), &text);
            named.iter().map(Pipeline::table).collect()
        }
        from => sql::views::tables_behind(from),
    };
    rules.rules.iter().flat_map(of_rule).collect()
}

/// Rules read what is stored: an open window has no final answer to judge.
pub fn stored_only<'a>(pipelines: impl Iterator<Item = &'a Pipeline>) -> Vec<(Pipeline, BTreeSet<i64>)> {
    pipelines.map(|pipeline| (pipeline.clone(), BTreeSet::new())).collect()
}
