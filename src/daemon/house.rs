//! What outlives a lake that cannot be written, and the life around it: everything is taken up anew, until it is
//! to stop.
//!
//! Stands around `follow` and `collect`, which carry what comes from one taking-up to the next failure.
//!
//! Invariant: what a person has to mend ends the daemon with its reason; what may pass by itself is tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::sync::watch as signal;

use super::Checked;
use super::answers::Answers;
use super::check::{alert_files, check};
use super::http_intake::HttpIntake;
use super::identity::rules_of_identity;
use super::roles;
use super::status::StatusServer;
use crate::clock::Clock;
use crate::config::Config;
use crate::enrich::Enricher;
use crate::lake::tables::fixed_tables;
use crate::lake::upkeep::{Action, Report as UpkeepReport};
use crate::lake::{Lake, LakeError};
use crate::privacy::Privacy;
use crate::rollup::collect::{Report, SOURCE};
use crate::sql::SqlError;
use crate::sql::pipeline::Pipeline;
use crate::telemetry::chain;
use crate::telemetry::health::HealthPart;
use crate::telemetry::metrics::{Meters, UpkeepTask, UpkeepWork};
use crate::watch::{Heard, Watch};

/// How often one step of upkeep is taken; what a step may move in a minute is a setting.
pub(super) const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// How often the alert folder is looked at for an edit.
const ALERTS_CHECK_EVERY: Duration = Duration::from_secs(1);

/// First pause after an epoch has failed; it doubles.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest pause: an object store that is back is used within half a minute.
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Carries on until `stop` is set: where that fails for what may pass by itself, everything is taken up again from
/// where the tables stand, as after a crash.
///
/// # Errors
/// What a person has to mend before anything can go on.
pub(super) async fn live(
    config: &Config,
    clock: Arc<dyn Clock>,
    mut stop: signal::Receiver<bool>,
    carry_on: impl AsyncFn(&mut House, Checked, &mut signal::Receiver<bool>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut checked = check(config).await?;
    let mut house = House::build(config, &checked, clock, stop.clone()).await?;
    let mut pause = RETRY_FIRST;
    loop {
        let began = Instant::now();
        let error = match carry_on(&mut house, checked, &mut stop).await {
            Ok(()) => return house.leave().await,
            Err(error) => error,
        };
        if !house.has_been_ready || !passes_by_itself(&error) {
            return Err(error);
        }
        if began.elapsed() > RETRY_LONGEST {
            pause = RETRY_FIRST;
        }
        tracing::error!(
            "{}; it is tried again in {pause:?}, from where the tables stand",
            chain(error.as_ref())
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.changed() => return house.leave().await,
        }
        house.look_at_spool()?;
        pause = (pause * 2).min(RETRY_LONGEST);
        checked = check(config).await?;
    }
}

/// True for what a disk, a network or an object store may take back by itself.
fn passes_by_itself(error: &anyhow::Error) -> bool {
    let of_lake = |error: &LakeError| !matches!(error, LakeError::InUse { .. } | LakeError::Newer { .. } | LakeError::Damaged { .. });
    match (error.downcast_ref::<LakeError>(), error.downcast_ref::<SqlError>()) {
        (Some(error), _) | (_, Some(SqlError::Lake(error))) => of_lake(error),
        (_, Some(SqlError::Query(_))) => true,
        _ => false,
    }
}

/// What outlives a lake that cannot be written: the addresses that are listened on, the spool, the
/// network databases.
pub(super) struct House {
    pub status: StatusServer,
    pub http: Option<HttpIntake>,
    answers: Option<Answers>,
    pub enricher: Arc<Enricher>,
    pub privacy: Arc<Privacy>,
    pub clock: Arc<dyn Clock>,
    alerts: AlertFolder,
    alerts_checked: Instant,
    /// The lake was taken up once: what fails from now on may pass by itself.
    pub has_been_ready: bool,
}

impl House {
    async fn build(config: &Config, checked: &Checked, clock: Arc<dyn Clock>, stop: signal::Receiver<bool>) -> anyhow::Result<House> {
        let status = StatusServer::start(config, meters(config, checked), Arc::clone(&clock), stop).await?;
        let (enricher, privacy) = rules_of_identity(config)?;
        Ok(House {
            status,
            http: None,
            answers: None,
            enricher,
            privacy,
            clock,
            alerts: AlertFolder::of(config),
            alerts_checked: Instant::now(),
            has_been_ready: false,
        })
    }

    /// Readers are answered from this lake from now on.
    pub async fn answer_from(
        &mut self,
        config: &Config,
        lake: &Arc<Lake>,
        pipelines: Vec<Pipeline>,
        stop: &signal::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let (lake, clock) = (Arc::clone(lake), Arc::clone(&self.clock));
        if let Some(answers) = &self.answers {
            return answers.take_up(config, lake, pipelines, clock);
        }
        let answers = Answers::start(config, lake, pipelines, clock, stop.clone()).await?;
        self.status.open_desk(answers.desk());
        self.answers = Some(answers);
        Ok(())
    }

    /// Whether what is posted can be kept.
    ///
    /// # Errors
    /// Only a restart can tell what the disk holds.
    pub fn look_at_spool(&self) -> anyhow::Result<()> {
        let Some(http) = &self.http else { return Ok(()) };
        http.report(self.status.meters());
        let now_ms = self.clock.now_ms();
        let mut health = self.status.health().lock();
        if http.has_failed() {
            let reason = "the disk failed while a record was written to the spool";
            health.broken(HealthPart::Spool, reason, now_ms);
            bail!("{reason}; check the disk of the data folder, then start playhead again");
        }
        match http.refuses() {
            Some(reason) => health.failing(HealthPart::Spool, &reason, now_ms),
            None => health.well(&HealthPart::Spool),
        }
        Ok(())
    }

    /// An epoch came to its end, well or not.
    pub fn note_outcome<T>(&self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        let mut health = self.status.health().lock();
        match &outcome {
            Ok(_) => {
                health.well(&HealthPart::Epoch);
                health.well(&HealthPart::Lake);
            }
            Err(error) => {
                self.status.meters().epoch_failed();
                let is_of_lake = error.is::<LakeError>() || matches!(error.downcast_ref::<SqlError>(), Some(SqlError::Lake(_)));
                let part = if is_of_lake { HealthPart::Lake } else { HealthPart::Epoch };
                health.failing(part, &chain(error.as_ref()), self.clock.now_ms());
            }
        }
        drop(health);
        outcome
    }

    /// Takes up an edit of the alert files now and then. Rules that are at work (`None`) are not exchanged; the next
    /// look is soon.
    pub async fn look_at_alerts(&mut self, config: &Config, watch: Option<&mut Watch>) {
        let Some(watch) = watch else { return };
        if self.alerts_checked.elapsed() < ALERTS_CHECK_EVERY {
            return;
        }
        self.alerts_checked = Instant::now();
        self.alerts.take_up_edits(config, watch).await;
        self.status.note_alert_edit(self.alerts.refused.as_deref());
    }

    /// What was collected, for metrics, health and the log.
    pub fn note_collected(&self, report: &Report, heard: &Heard, began: Instant) {
        let (now_ms, part) = (self.clock.now_ms(), HealthPart::Source(Arc::from(SOURCE)));
        let mut health = self.status.health().lock();
        match &report.trouble {
            Some(trouble) => health.failing(part, trouble, now_ms),
            None => health.well(&part),
        }
        drop(health);
        let counts = &report.counts;
        if counts.received == 0 {
            return;
        }
        heard.epoch(SOURCE, counts);
        self.status.meters().epoch_committed([(SOURCE, counts)], began.elapsed(), now_ms);
        tracing::info!(
            received = counts.received,
            stored = counts.stored,
            superseded = counts.duplicates,
            rejected = counts.rejected.values().sum::<u64>(),
            "results collected"
        );
    }

    /// Waits for the requests in hand to be answered.
    async fn leave(self) -> anyhow::Result<()> {
        if let Some(http) = self.http {
            http.finish().await;
        }
        if let Some(answers) = self.answers {
            answers.finish().await;
        }
        Ok(())
    }
}

/// A step of upkeep came to its end, well or not.
pub(super) fn note_upkeep(meters: &Meters, stepped: Result<UpkeepReport, LakeError>, began: Instant) {
    match stepped {
        Ok(report) => report.actions.iter().for_each(|action| {
            let (task, work) = metered(action, report.io_bytes);
            meters.upkeep_done(task, work, began.elapsed());
        }),
        Err(error) => {
            meters.upkeep_failed(UpkeepTask::Compact);
            tracing::warn!("upkeep: {}; it is tried again", chain(&error));
        }
    }
}

/// What a step of upkeep did, as metrics count it.
fn metered(action: &Action, io_bytes: u64) -> (UpkeepTask, UpkeepWork) {
    let work = |files: usize| UpkeepWork {
        files_removed: files as u64,
        bytes_written: io_bytes,
    };
    match action {
        Action::Compact { files, .. } => (UpkeepTask::Compact, work(*files)),
        Action::Postpone { .. } => (UpkeepTask::Compact, work(0)),
        Action::Checkpoint { .. } => (UpkeepTask::Log, work(0)),
        Action::CleanLog { files, .. } => (UpkeepTask::Log, work(*files)),
        Action::Drop { files, .. } => (UpkeepTask::Retention, work(*files)),
        Action::Vacuum { files, .. } => (UpkeepTask::Vacuum, work(*files)),
    }
}

/// The metrics of this daemon: their labels are the names that the settings and the pipelines have.
fn meters(config: &Config, checked: &Checked) -> Meters {
    let mut tables: Vec<String> = fixed_tables().into_iter().map(|spec| spec.name).collect();
    tables.extend(checked.pipelines.iter().map(|pipeline| pipeline.table()));
    Meters::new(roles::source_names(config), tables.iter().map(String::as_str))
}

/// The alert files as they were last looked at.
struct AlertFolder {
    files: Option<Vec<(String, String)>>,
    /// What is wrong with the last edit; the rules before it are in force.
    refused: Option<String>,
}

impl AlertFolder {
    fn of(config: &Config) -> AlertFolder {
        AlertFolder {
            files: alert_files(config).ok(),
            refused: None,
        }
    }

    /// An edit takes effect as a whole: all files are right, or the rules in force stay.
    async fn take_up_edits(&mut self, config: &Config, watch: &mut Watch) {
        let files = alert_files(config).ok();
        if files == self.files {
            return;
        }
        self.files = files;
        let checked = check(config).await.map(|checked| checked.rules);
        self.refused = checked.as_ref().err().map(ToString::to_string);
        match checked {
            Ok(rules) => {
                tracing::info!(rules = rules.rules.len(), hash = rules.hash, "alert rules taken up");
                watch.replace_rules(rules);
            }
            Err(complaints) => {
                tracing::error!("the alert files were changed and are not right; the rules before stay in force:\n{complaints}")
            }
        }
    }
}
