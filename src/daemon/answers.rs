//! What answers readers: the desk over the lake, and the addresses at which it is asked.
//!
//! The daemon has it beside its sources; `playhead serve` has nothing else.
//!
//! Invariant: a lake that is taken up anew gets a new desk, and no client notices more than that.

use std::sync::Arc;

use tokio::sync::watch as signal;

use super::check::{pipelines, query_limits};
use super::lake_place;
use super::status::StatusServer;
use crate::clock::Clock;
use crate::config::Config;
use crate::lake::Lake;
use crate::serve::desk::{Desk, SharedDesk};
use crate::serve::postgres::Endpoint;
use crate::sql::pipeline::Pipeline;
use crate::telemetry::health::HealthPart;
use crate::telemetry::metrics::Meters;

/// The desk and who asks it.
pub struct Answers {
    desk: Arc<SharedDesk>,
    postgres: Option<Endpoint>,
}

impl Answers {
    /// Listens as the settings say.
    ///
    /// # Errors
    /// An address is taken, or a certificate cannot be used.
    pub async fn start(
        config: &Config,
        lake: Arc<Lake>,
        pipelines: Vec<Pipeline>,
        clock: Arc<dyn Clock>,
        stop: signal::Receiver<bool>,
    ) -> anyhow::Result<Answers> {
        let desk = Arc::new(SharedDesk::new(desk(config, lake, pipelines, clock)?));
        let postgres = Endpoint::start(&config.postgres, Arc::clone(&desk), stop).await?;
        Ok(Answers { desk, postgres })
    }

    /// From now on answers come from this lake.
    ///
    /// # Errors
    /// The engine cannot be set up.
    pub fn take_up(&self, config: &Config, lake: Arc<Lake>, pipelines: Vec<Pipeline>, clock: Arc<dyn Clock>) -> anyhow::Result<()> {
        self.desk.replace(desk(config, lake, pipelines, clock)?);
        Ok(())
    }

    /// Where the desk of now is found.
    pub fn desk(&self) -> Arc<SharedDesk> {
        Arc::clone(&self.desk)
    }

    /// Waits until nobody is let in any more; the stop signal has been given.
    pub async fn finish(self) {
        if let Some(postgres) = self.postgres {
            postgres.finish().await;
        }
    }
}

fn desk(config: &Config, lake: Arc<Lake>, pipelines: Vec<Pipeline>, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<Desk>> {
    Ok(Arc::new(Desk::new(lake, pipelines, query_limits(config), clock)?))
}

/// Answers readers of a lake that another process writes, or nobody, until `stop` is set.
///
/// # Errors
/// There is no lake, an address is taken, or the settings are wrong.
pub async fn serve(config: &Config, clock: Arc<dyn Clock>, mut stop: signal::Receiver<bool>) -> anyhow::Result<()> {
    let pipelines = pipelines(config)?;
    let has_page = config.page.enabled && config.http.status.is_some();
    if config.postgres.listen.is_none() && !has_page {
        let nowhere = "postgres.listen is off and http.status is not set: there is nothing to serve; set one of them to an address \
                       such as 127.0.0.1:8432";
        return Err(super::Complaints(vec![nowhere.to_owned()]).into());
    }
    let lake = Arc::new(Lake::open_read_only(lake_place(config)?).await?);
    let status = StatusServer::start(config, Meters::new([], []), Arc::clone(&clock), stop.clone()).await?;
    let answers = Answers::start(config, lake, pipelines, clock, stop.clone()).await?;
    status.open_desk(answers.desk());
    status.health().lock().well(&HealthPart::Start);
    tracing::info!("playhead serves and writes nothing; stop it with Ctrl-C");
    // An error means that nobody can give the signal any more.
    let _ = stop.wait_for(|is_stopping| *is_stopping).await;
    answers.finish().await;
    Ok(())
}
