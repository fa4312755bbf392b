//! The HTTP receiver as the daemon runs it: listening and spooling.
//!
//! The receiver writes a spool inside the data folder; a source follows the spool like any other
//! folder. So what was answered with success is on disk, and comes to the lake exactly once by the
//! positions that every file has.

use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch as signal;
use tokio::task::JoinHandle;

use super::status::StatusServer;
use crate::clock::Clock;
use crate::config::{Config, Http};
use crate::enrich::Enricher;
use crate::privacy::Privacy;
use crate::source::http::{Receiver, ReceiverSettings, router, serve};
use crate::source::spool::{Spool, SpoolLimits};
use crate::telemetry::metrics::{Meters, Queue};
use crate::telemetry::status;

/// The spool's folder inside the data folder.
pub const SPOOL_FOLDER: &str = "spool";
/// Segments of a full spool at least. Only a closed one can be removed: a small spool that is one open
/// segment would stay full until that is old, with everything in it long committed.
const SEGMENTS_MIN: u64 = 4;

/// The running receiver.
pub struct HttpIntake {
    spool: Arc<Spool>,
    spool_bytes_max: u64,
    receiver: Arc<Receiver>,
    serving: JoinHandle<()>,
}

impl HttpIntake {
    /// Listens as the settings say; `None` if they say not to.
    ///
    /// # Errors
    /// The address is taken, the spool is another daemon's or cannot be written.
    pub async fn start(
        config: &Config,
        enricher: &Arc<Enricher>,
        privacy: &Arc<Privacy>,
        clock: &Arc<dyn Clock>,
        status_server: &StatusServer,
        stop: signal::Receiver<bool>,
    ) -> anyhow::Result<Option<HttpIntake>> {
        let Some(address) = config.http.listen else {
            return Ok(None);
        };
        let limits = SpoolLimits {
            bytes_max: config.http.spool_bytes,
            segment_bytes: SpoolLimits::default().segment_bytes.min(config.http.spool_bytes / SEGMENTS_MIN),
        };
        let spool = Arc::new(Spool::open(&config.data.join(SPOOL_FOLDER), limits, Arc::clone(clock))?);
        let settings = receiver_settings(&config.http);
        let receiver = Receiver::new(
            settings.clone(),
            Arc::clone(enricher),
            Arc::clone(privacy),
            Arc::clone(clock),
            Arc::clone(&spool),
        )?;
        let receiver = Arc::new(receiver);
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; stop what listens there, or set http.listen to another address or to off")
        })?;
        let bound = listener.local_addr().unwrap_or(address);
        let mut routes = router(Arc::clone(&receiver));
        if let Some(beside) = status_server.beside_events(bound) {
            routes = routes.merge(beside);
        }
        let routes = status::counted(routes, status_server.meters().clone());
        tracing::info!("taking player events on http://{bound}/cmcd and http://{bound}/v1/events");
        let serving = tokio::spawn(async move {
            if let Err(error) = serve(listener, routes, &settings, stop).await {
                tracing::error!("the HTTP receiver stopped: {error}; start playhead again");
            }
        });
        Ok(Some(HttpIntake {
            spool,
            spool_bytes_max: limits.bytes_max,
            receiver,
            serving,
        }))
    }

    /// True once the disk has failed to keep a promise: what it holds is unknown, so nothing more can
    /// be taken until the daemon is started anew.
    pub fn has_failed(&self) -> bool {
        self.spool.has_failed()
    }

    /// Why events are refused and their senders told to come again; `None`: they are taken.
    pub fn refuses(&self) -> Option<String> {
        self.spool.refuses()
    }

    /// Tells how full the bounded queues are.
    pub fn report(&self, meters: &Meters) {
        meters.spool(self.spool.bytes(), self.spool_bytes_max);
        let (used, bound) = self.receiver.memory_in_use();
        meters.queue_fill(Queue::HttpMemory, used as u64, bound as u64);
    }

    /// What the receiver writes and the source `http` reads and clears.
    pub fn spool(&self) -> Arc<Spool> {
        Arc::clone(&self.spool)
    }

    /// Waits until the requests in hand are answered; the stop signal has been given.
    pub async fn finish(self) {
        // Only a panic in the server can be lost here, and it has been printed.
        let _ = self.serving.await;
    }
}

fn receiver_settings(http: &Http) -> ReceiverSettings {
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    ReceiverSettings {
        accepting: http.accepting,
        allowed_origins: http.allowed_origins.clone(),
        trusted_proxies: http.trusted_proxies.clone(),
        correct_clocks: http.correct_clocks,
        body_bytes_max: size(http.body_bytes),
        unpacked_bytes_max: size(http.body_unpacked_bytes),
        records_max: size(http.body_records),
        memory_bytes_max: size(http.memory_bytes),
        connections_max: size(http.connections),
        ..ReceiverSettings::default()
    }
}
