//! Health, metrics and the page as the daemon serves them: where events are posted, or on an address of their own.
//!
//! An address of its own listens before the lake is opened, so that a daemon that takes up a large lake
//! is live and says why it is not ready.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch as signal;

use super::check::folder_files;
use crate::builtin::DASHBOARDS;
use crate::clock::Clock;
use crate::config::Config;
use crate::serve::desk::SharedDesk;
use crate::serve::live::Settings;
use crate::serve::page::{self, Access, DeskPlace, Means, Page};
use crate::source::http::{ReceiverSettings, held, serve};
use crate::telemetry::health::SharedHealth;
use crate::telemetry::metrics::Meters;
use crate::telemetry::status::{StatusPage, counted, router};

/// Probes and scrapers, some of them twice; those of the page come on top. Whoever else asks waits.
const CONNECTIONS_MAX: usize = 32;

/// What the status routes show, the page beside them, and whether they have an address of their own.
pub struct StatusServer {
    page: StatusPage,
    noc: Option<Arc<Page>>,
    desk: DeskPlace,
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
        let desk = DeskPlace::default();
        let server = StatusServer {
            noc: noc(config, &page.clock, &stop, desk.clone()),
            page,
            desk,
            has_own_address: config.http.status.is_some(),
        };
        if let Some(address) = config.http.status {
            server.listen(address, config, stop).await?;
        }
        Ok(server)
    }

    async fn listen(&self, address: SocketAddr, config: &Config, stop: signal::Receiver<bool>) -> anyhow::Result<()> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}; stop what listens there, or set http.status to another address"))?;
        let bound = listener.local_addr().unwrap_or(address);
        tracing::info!("health and metrics on http://{bound}/healthz, /readyz and /metrics");
        let routes = counted(self.routes(bound), self.page.meters.clone());
        let connections = usize::try_from(config.page.connections).unwrap_or(usize::MAX);
        let settings = ReceiverSettings {
            connections_max: CONNECTIONS_MAX + connections,
            ..ReceiverSettings::default()
        };
        tokio::spawn(async move {
            if let Err(error) = serve(listener, routes, &settings, stop).await {
                tracing::error!("health and metrics are served no more: {error}; start playhead again");
            }
        });
        Ok(())
    }

    fn routes(&self, bound: SocketAddr) -> Router {
        let status = router(self.page.clone());
        held(match &self.noc {
            Some(noc) => {
                tracing::info!("the page is on http://{bound}/");
                status.merge(page::router(Arc::clone(noc)))
            }
            None => status,
        })
    }

    /// What to serve where events are posted; `None`: it has its own address.
    pub fn beside_events(&self, bound: SocketAddr) -> Option<Router> {
        (!self.has_own_address).then(|| self.routes(bound))
    }

    /// From now on the page answers from the desk of now.
    pub fn open_desk(&self, desk: Arc<SharedDesk>) {
        self.desk.put(desk);
    }

    /// An edit of the alert files is not in force, for this; `None`: what is in the files is.
    pub fn note_alert_edit(&self, refused: Option<&str>) {
        self.page.meters.alert_rules_refused(refused.is_some());
        if let Some(noc) = &self.noc {
            noc.note_alert_edit(refused);
        }
    }

    pub fn health(&self) -> &SharedHealth {
        &self.page.health
    }

    pub fn meters(&self) -> &Meters {
        &self.page.meters
    }
}

/// The page as the settings want it; `None`: they do not.
fn noc(config: &Config, clock: &Arc<dyn Clock>, stop: &signal::Receiver<bool>, desk: DeskPlace) -> Option<Arc<Page>> {
    let address = config.http.status.or(config.http.listen).filter(|_| config.page.enabled)?;
    let live = &config.page.live;
    let means = Means {
        access: Access {
            password: config.page.password.clone(),
            token: config.page.token.clone(),
        },
        live: Settings {
            is_public: live.is_public,
            origins: live.origins.clone(),
            min_viewers: live.min_viewers,
            top: usize::try_from(live.top).unwrap_or(usize::MAX),
            every: live.every,
        },
        address: address.ip(),
        dashboards: dashboards(config),
        clock: Arc::clone(clock),
        stop: stop.clone(),
    };
    Some(Page::new(means, desk))
}

/// Name and text of every dashboard file, as they are whenever it is asked.
fn dashboards(config: &Config) -> page::Source {
    let folder = config.dashboards.clone();
    Box::new(move || folder_files(&folder, "json", &DASHBOARDS).map_err(|complaints| complaints.to_string()))
}
