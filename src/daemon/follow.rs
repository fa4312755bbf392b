//! `playhead run`: follows the sources of the settings for as long as the process lives.
//!
//! Invariant: the batch in hand is carried to the end before the daemon stops, and acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch as signal;

use super::house::{House, UPKEEP_EVERY, live, note_upkeep};
use super::http_intake::HttpIntake;
use super::identity::log_complaints;
use super::publishing::Publishing;
use super::reader::{Order, Reader, Reading, Task};
use super::relay::{self, Relaying};
use super::sources::{self, Surroundings};
use super::troubles::Troubles;
use super::{Checked, Parts};
use crate::clock::Clock;
use crate::config::{Config, Role};
use crate::ingest::Counts;
use crate::ingest::intake::{Batch, Intake};
use crate::lake::upkeep::Upkeep;
use crate::notify::Terminal;
use crate::source::SourceError;
use crate::telemetry::health::HealthPart;
use crate::telemetry::metrics::{LookupMemory, Queue};

/// How often the network databases are looked at for a newer file.
const DATABASE_CHECK_EVERY: Duration = Duration::from_secs(60);

/// How often what only saves time at the next start is written.
const CACHES_EVERY: Duration = Duration::from_secs(60);

/// While batches wait a step is put off, for it takes half of a backlog's speed; but no longer than this: a
/// backlog may take days, and a table has some hundred small files by then.
const UPKEEP_PUT_OFF: Duration = Duration::from_secs(300);

/// How often a backlog stops for what it would be slower without: some epochs' worth of small files.
const UPKEEP_HURRIED_EVERY: Duration = Duration::from_secs(5);

/// Batches wait as long as one was full this lately: between two the sources may have to take breath.
const BEHIND_FOR: Duration = Duration::from_secs(10);

/// A source whose queue a batch has just emptied has the next records within milliseconds: for so long nothing is
/// taken for the end of a backlog, and it is asked again this often.
const TAKES_BREATH: Duration = Duration::from_millis(500);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Follows the sources of the settings until `stop` is set; the epoch in hand is finished first.
///
/// A lake that cannot be written for a while ends nothing: everything is taken up again from where the
/// tables stand, as after a crash, while the receiver goes on spooling.
///
/// # Errors
/// As `ingest_once`; what a person has to mend before anything can go on.
pub async fn follow(config: &Config, clock: Arc<dyn Clock>, stop: signal::Receiver<bool>) -> anyhow::Result<()> {
    live(config, clock, stop, async |house, checked, stop| {
        carry_on(config, house, checked, stop).await
    })
    .await
}

/// Takes the lake up and carries epochs until `stop` is set.
async fn carry_on(config: &Config, house: &mut House, checked: Checked, stop: &mut signal::Receiver<bool>) -> anyhow::Result<()> {
    let mut following = Following::start(config, house, checked, stop.clone()).await?;
    let ended = following.go_on(config, stop).await;
    if ended.is_err() {
        // What still closes windows must not meet its successor; its own error says nothing new.
        let _ = following.parts.gold.settle().await;
        following.end_publishing().await;
        following.parts.end_sending(Duration::ZERO).await;
        return ended;
    }
    following.finish().await
}

enum Busy {
    /// More waits: the next batch can be carried at once.
    Full,
    /// Nothing came, right after a full batch.
    Breathing,
    Some,
    Nothing,
}

/// The daemon between two turns of its loop.
struct Following<'a> {
    house: &'a mut House,
    parts: Parts,
    reader: Reader,
    /// None where no figures are published.
    publishing: Option<Publishing>,
    /// None where silver is not published by this daemon.
    relaying: Option<Relaying>,
    is_order_under_way: bool,
    /// For the next order.
    next: Order,
    databases_checked: Instant,
    caches_written: Instant,
    upkeep: Option<Upkeep>,
    upkeep_stepped: Instant,
    upkeep_hurried: Instant,
    /// When a batch was full, or a partition was found.
    last_full: Option<Instant>,
    troubles: Troubles,
    source_names: Vec<String>,
    batch_records: u64,
}

impl Following<'_> {
    async fn start<'a>(
        config: &Config,
        house: &'a mut House,
        checked: Checked,
        stop: signal::Receiver<bool>,
    ) -> anyhow::Result<Following<'a>> {
        let clock = Arc::clone(&house.clock);
        let pipelines = checked.pipelines.clone();
        let parts = Parts::open(
            config,
            checked,
            Arc::clone(&clock),
            Arc::clone(&house.enricher),
            Arc::clone(&house.privacy),
            Terminal::Output,
            Some(house.status.meters()),
        )
        .await?;
        house.answer_from(config, &parts.lake, pipelines.clone(), &stop).await?;
        if !house.has_been_ready {
            // Nothing is answered for before there is a lake to bring it to.
            house.http = HttpIntake::start(config, &house.enricher, &house.privacy, &clock, &house.status, stop).await?;
            house.has_been_ready = true;
        }
        let around = Surroundings {
            spool: house.http.as_ref().map(HttpIntake::spool),
            known: parts.ingest.known_objects(Arc::clone(&clock)),
            lake_id: parts.lake_id.clone(),
            clock: Arc::clone(&clock),
        };
        let followed = sources::followed(config, around).await?;
        let source_names = followed.iter().map(|source| source.name().to_owned()).collect();
        let limits = sources::batch_limits(config);
        let intake = Intake::new(
            followed,
            sources::fields(config),
            limits,
            Arc::clone(&house.enricher),
            Arc::clone(&house.privacy),
            Arc::clone(&clock),
        );
        let reader = Reader::start(intake)?;
        let watched = config.sources.iter().map(|source| format!("{} ({})", source.name, source.from));
        let watched = watched.collect::<Vec<_>>().join(", ");
        let lake = Arc::clone(&parts.lake);
        house.status.health().lock().well(&HealthPart::Start);
        let upkeep = config.upkeep.enabled;
        let upkeep = upkeep.then(|| Upkeep::new(Arc::clone(&parts.lake), config.upkeep.settings.clone()));
        tracing::info!(
            lake = parts.lake.name(),
            watching = watched,
            "playhead is running; stop it with Ctrl-C"
        );
        // Figures are of everything, and a part of a cluster has a part of it.
        let is_part = config.role == Role::Ingest;
        let publishing = match is_part {
            true => None,
            false => Publishing::start(config, lake, &pipelines, Arc::clone(&clock)),
        };
        let relaying = relay::beside(config, house.status.health(), clock);
        Ok(Following {
            house,
            parts,
            reader,
            publishing,
            relaying,
            is_order_under_way: false,
            next: Order::default(),
            databases_checked: Instant::now(),
            caches_written: Instant::now(),
            upkeep,
            upkeep_stepped: Instant::now(),
            upkeep_hurried: Instant::now(),
            last_full: None,
            troubles: Troubles::default(),
            source_names,
            batch_records: config.ingest.batch_records,
        })
    }

    /// Carries epochs until `stop` is set.
    async fn go_on(&mut self, config: &Config, stop: &mut signal::Receiver<bool>) -> anyhow::Result<()> {
        self.order().await?;
        loop {
            let began = Instant::now();
            // Apart from the call: held while it runs, the borrow would block whoever gives the signal, and
            // with it a thread of the runtime.
            let is_stopping = *stop.borrow();
            let busy = self.turn(is_stopping).await?;
            self.look_around(config).await?;
            if self.is_order_under_way {
                continue;
            }
            if *stop.borrow() {
                break;
            }
            // Small epochs are held to the cadence.
            let pause = match busy {
                Busy::Some => config.ingest.commit_every.saturating_sub(began.elapsed()),
                Busy::Nothing => config.ingest.poll_every,
                Busy::Breathing => ASK_AGAIN_AFTER,
                Busy::Full => Duration::ZERO,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
            }
            self.order().await?;
        }
        Ok(())
    }

    async fn order(&mut self) -> anyhow::Result<()> {
        let order = Order {
            task: Task::LookAndRead,
            ..std::mem::take(&mut self.next)
        };
        self.is_order_under_way = true;
        self.reader.order(order).await
    }

    /// Tells the sources what is committed; returns the partitions that are not ours any more.
    async fn acknowledge(&mut self, task: Task) -> anyhow::Result<Vec<Arc<str>>> {
        let order = Order {
            task,
            committed: std::mem::take(&mut self.next.committed),
            ..Order::default()
        };
        self.reader.order(order).await?;
        Ok(self.reader.reading().await?.lost)
    }

    /// Takes what the reader has and carries it to the end.
    async fn turn(&mut self, is_stopping: bool) -> anyhow::Result<Busy> {
        let reading = self.reader.reading().await?;
        self.is_order_under_way = false;
        self.report_reading(&reading);
        self.hear(reading.complaints, reading.batch.as_ref());
        // Right before the commit: what was lost since it was read is somebody else's to commit.
        let lost = self.acknowledge(Task::Acknowledge).await?;
        self.parts.ingest.release(&lost);
        self.parts.ingest.release_idle(self.house.clock.now_ms());
        let starts = self.parts.take_up(reading.new).await?;
        let mut batch = reading.batch.unwrap_or_default();
        batch.throw_away(&lost);
        let more_waits = batch.is_full || !starts.is_empty();
        self.next.starts.extend(starts);
        if more_waits && !is_stopping {
            // Read while this batch is committed.
            self.order().await?;
        }
        if batch.positions.is_empty() {
            if !is_stopping && self.last_full.is_some_and(|at| at.elapsed() < TAKES_BREATH) {
                return Ok(Busy::Breathing);
            }
            // The watermark may have moved on: a partition that is silent no longer holds it.
            let closed = self.parts.close_what_is_due().await;
            self.note_outcome(closed)?;
            return Ok(if more_waits { Busy::Full } else { Busy::Nothing });
        }
        let received = self.carry(batch, more_waits).await?;
        if more_waits {
            // However long the epoch took, what is behind it waits still.
            self.last_full = Some(Instant::now());
        }
        Ok(match (received, more_waits) {
            (_, true) => Busy::Full,
            (0, false) => Busy::Nothing,
            (_, false) => Busy::Some,
        })
    }

    async fn carry(&mut self, batch: Batch, more_waits: bool) -> anyhow::Result<u64> {
        let marks = batch
            .positions
            .iter()
            .map(|position| (position.source, Arc::clone(&position.partition), position.mark()));
        let marks: Vec<_> = marks.collect();
        let began = Instant::now();
        let carried = self.parts.carry(batch, more_waits).await;
        let (epoch, windows) = self.note_outcome(carried)?;
        let meters = self.house.status.meters();
        meters.late_records(epoch.late);
        let by_source = epoch.by_source.iter();
        let by_source = by_source.map(|(source, counts)| (self.source_names[*source].as_str(), counts));
        by_source
            .clone()
            .for_each(|(source, counts)| self.parts.heard.epoch(source, counts));
        meters.epoch_committed(by_source, began.elapsed(), self.house.clock.now_ms());
        let counts = epoch.counts;
        self.next.committed.extend(marks);
        if counts.received > 0 {
            tracing::info!(
                received = counts.received,
                stored = counts.stored,
                duplicates = counts.duplicates,
                rejected = counts.rejected,
                windows,
                "epoch committed"
            );
        }
        Ok(counts.received)
    }

    /// How the sources stand, and how full the queues before the loop are.
    fn report_reading(&self, reading: &Reading) {
        let meters = self.house.status.meters();
        for (name, lag) in self.source_names.iter().zip(&reading.lags) {
            meters.source_lag(name, lag);
        }
        let records = reading.batch.as_ref().map_or(0, |batch| match batch.is_full {
            true => self.batch_records,
            false => batch.positions.iter().map(|position| position.received).sum(),
        });
        meters.queue_fill(Queue::Reader, records.min(self.batch_records), self.batch_records);
        let (network, user_agents) = self.house.enricher.asked();
        meters.lookups(LookupMemory::Network, network);
        meters.lookups(LookupMemory::UserAgent, user_agents);
    }

    /// An epoch came to its end, well or not. Gauges stand before the counters of the epoch are moved.
    fn note_outcome<T>(&mut self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        self.parts.report(self.house.status.meters());
        if let Some(report) = self.parts.gold.take_report() {
            self.house.note_collected(&report, &self.parts.heard, Instant::now());
        }
        self.house.note_outcome(outcome)
    }

    /// What is wrong with the sources, for the log and for health.
    fn hear(&mut self, complaints: Vec<SourceError>, batch: Option<&Batch>) {
        let positions = || batch.into_iter().flat_map(|batch| &batch.positions);
        let names = &self.source_names;
        let gave_records = |name: &str| positions().any(|position| position.received > 0 && names[position.source] == name);
        let now_ms = self.house.clock.now_ms();
        for complaint in self.troubles.hear(complaints, gave_records, now_ms) {
            tracing::warn!("{complaint}");
        }
        let mut health = self.house.status.health().lock();
        for name in &self.source_names {
            let part = HealthPart::Source(Arc::from(name.as_str()));
            match self.troubles.of(name) {
                Some(complaint) => health.failing(part, &complaint.to_string(), now_ms),
                None => health.well(&part),
            }
        }
    }

    /// What is looked at now and then, whatever comes in.
    async fn look_around(&mut self, config: &Config) -> anyhow::Result<()> {
        self.house.look_at_spool()?;
        if let Some(publishing) = &self.publishing {
            publishing.reached(self.parts.ingest.watermark_ms());
        }
        if self.caches_written.elapsed() >= CACHES_EVERY {
            self.caches_written = Instant::now();
            self.parts.ingest.save_caches().await;
        }
        let since_upkeep = self.upkeep_stepped.elapsed();
        let is_behind = self.last_full.is_some_and(|at| at.elapsed() < BEHIND_FOR);
        if since_upkeep >= UPKEEP_EVERY && (!is_behind || since_upkeep >= UPKEEP_PUT_OFF) {
            self.upkeep_stepped = Instant::now();
            self.keep_up().await?;
        } else if is_behind && self.upkeep_hurried.elapsed() >= UPKEEP_HURRIED_EVERY {
            self.upkeep_hurried = Instant::now();
            self.keep_up_in_a_hurry().await;
        }
        if config.role != Role::Ingest {
            self.house.look_at_alerts(config, self.parts.gold.watch_at_rest()).await;
        }
        if self.databases_checked.elapsed() >= DATABASE_CHECK_EVERY {
            self.databases_checked = Instant::now();
            log_complaints(&self.house.enricher.reload_changed());
        }
        Ok(())
    }

    /// One bounded step of upkeep. What it could not do is tried again: the next step goes on elsewhere.
    async fn keep_up(&mut self) -> anyhow::Result<()> {
        if self.upkeep.is_some() {
            // Files of gold that are being replaced are not joined with others at the same time.
            let settled = self.parts.gold.settle().await;
            self.note_outcome(settled)?;
        }
        let Some(upkeep) = &mut self.upkeep else { return Ok(()) };
        let began = Instant::now();
        let stepped = upkeep.step(self.house.clock.now_ms()).await;
        note_upkeep(self.house.status.meters(), stepped, began);
        Ok(())
    }

    /// The little that a backlog would be slower without. It touches no gold.
    async fn keep_up_in_a_hurry(&mut self) {
        let Some(upkeep) = &mut self.upkeep else { return };
        let began = Instant::now();
        let stepped = upkeep.step_beside_a_backlog(self.house.clock.now_ms()).await;
        note_upkeep(self.house.status.meters(), stepped, began);
    }

    async fn end_publishing(&mut self) {
        if let Some(publishing) = self.publishing.take() {
            publishing.finish().await;
        }
        if let Some(relaying) = self.relaying.take() {
            relaying.finish().await;
        }
    }

    /// Acknowledges what was committed last and gives the lake back.
    async fn finish(mut self) -> anyhow::Result<()> {
        self.acknowledge(Task::Stop).await?;
        self.parts.gold.settle().await?;
        self.end_publishing().await;
        self.parts.end_sending(Duration::ZERO).await;
        self.parts.ingest.save_caches().await;
        self.parts.lake.give_back().await;
        let totals: Counts = self.parts.ingest.totals();
        tracing::info!(
            received = totals.received,
            stored = totals.stored,
            duplicates = totals.duplicates,
            rejected = totals.rejected,
            "stopped in order"
        );
        Ok(())
    }
}
