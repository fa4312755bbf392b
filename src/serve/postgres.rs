//! The endpoint for programs that speak PostgreSQL: psql, Grafana, drivers of every language.
//!
//! `connection` is one client from its greeting to its end; `queries` answers what it asks, by the desk.
//!
//! Invariant: no client holds up another or the daemon: connections, statements and rows are bounded here,
//! time and memory at the desk; a client that is gone has its query stopped.

mod cancel;
mod column_names;
mod connection;
mod parameters;
mod queries;
mod refusal;
mod rows;
mod startup;
mod talk;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch as signal};
use tokio::task::JoinHandle;

use super::desk::SharedDesk;
use crate::config::Postgres;
use connection::House;

/// Sockets beside those of the connections: whoever cancels a query, or is told that there are too many.
const SOCKETS_BESIDE: usize = 16;
/// After the machine had no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running endpoint.
pub struct Endpoint {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Endpoint {
    /// Listens as the settings say; `None` if they say not to.
    ///
    /// # Errors
    /// The address is taken, or the certificate cannot be used.
    pub async fn start(settings: &Postgres, desk: Arc<SharedDesk>, stop: signal::Receiver<bool>) -> anyhow::Result<Option<Endpoint>> {
        let Some(address) = settings.listen else { return Ok(None) };
        let house = Arc::new(House::build(settings, desk)?);
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; stop what listens there, or set postgres.listen to another address or to off")
        })?;
        let address = listener.local_addr().unwrap_or(address);
        let connections = usize::try_from(settings.connections).unwrap_or(usize::MAX);
        let sockets = Arc::new(Semaphore::new(
            connections.saturating_add(SOCKETS_BESIDE).min(Semaphore::MAX_PERMITS),
        ));
        tracing::info!(
            "answering SQL on postgres://{}@{address}/playhead?sslmode={}",
            settings.user,
            if settings.tls.is_some() { "require" } else { "disable" }
        );
        Ok(Some(Endpoint {
            address,
            accepting: tokio::spawn(accept(listener, house, sockets, stop)),
        }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until nobody is let in any more; the stop signal has been given.
    pub async fn finish(self) {
        // Only a panic can be lost here, and it has been printed.
        let _ = self.accepting.await;
    }
}

async fn accept(listener: TcpListener, house: Arc<House>, sockets: Arc<Semaphore>, mut stop: signal::Receiver<bool>) {
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = Arc::clone(&sockets).acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => match accepted {
                Some(accepted) => accepted,
                None => return,
            },
            _ = stop.wait_for(|is_stopping| *is_stopping) => return,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!("no connection can be taken: {error}; it is tried again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (house, mut stop) = (Arc::clone(&house), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = connection::serve(socket, &house) => {}
                _ = stop.wait_for(|is_stopping| *is_stopping) => {}
            }
        });
    }
}
