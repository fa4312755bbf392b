//! Health and metrics as the daemon serves them: where events are posted, or on an address of their own.
//!
//! An address of its own listens before the lake is opened, so that a daemon that takes up a large lake
//! is live and says why it is not ready.

use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch as signal;

use crate::clock::Clock;
use crate::config::Config;
use crate::source::http::{ReceiverSettings, held, serve};
use crate::telemetry::health::SharedHealth;
use crate::telemetry::metrics::Meters;
use crate::telemetry::status::{StatusPage, counted, router};

/// Probes and scrapers, some of them twice; whoever else asks waits.
const CONNECTIONS_MAX: usize = 32;

/// What the status routes show, and whether they have an address of their own.
pub struct StatusServer {
    page: StatusPage,
    has_own_address: bool,
}

impl StatusServer {
    /// Listens at `http.status`, if that is set.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn start(
        config: &Config,
        meters: Meters,
        clock: Arc<dyn Clock>,
        stop: signal::Receiver<bool>,
    ) -> anyhow::Result<StatusServer> {
        let page = StatusPage {
            health: SharedHealth::starting(clock.now_ms()),
            meters,
            clock,
        };
        if let Some(address) = config.http.status {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address}; stop what listens there, or set http.status to another address"))?;
            let bound = listener.local_addr().unwrap_or(address);
            tracing::info!("health and metrics on http://{bound}/healthz, /readyz and /metrics");
            let routes = counted(held(router(page.clone())), page.meters.clone());
            tokio::spawn(async move {
                let settings = ReceiverSettings {
                    connections_max: CONNECTIONS_MAX,
                    ..ReceiverSettings::default()
                };
                if let Err(error) = serve(listener, routes, &settings, stop).await {
                    tracing::error!("health and metrics are served no more: {error}; start playhead again");
                }
            });
        }
        Ok(StatusServer {
            page,
            has_own_address: config.http.status.is_some(),
        })
    }

    /// What to serve where events are posted; `None`: it has its own address.
    pub fn page_beside_events(&self) -> Option<StatusPage> {
        (!self.has_own_address).then(|| self.page.clone())
    }

    pub fn health(&self) -> &SharedHealth {
        &self.page.health
    }

    pub fn meters(&self) -> &Meters {
        &self.page.meters
    }
}
