//! One client, from its greeting to its end.
//!
//! Invariant: a client that hangs up is noticed while its query is at work, and the query with it ends.

use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::api::PgWireServerHandlers;
use datafusion_postgres::pgwire::api::auth::StartupHandler;
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::tokio::{TlsAcceptor, process_socket};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::cancel::{Cancels, Registered};
use super::queries::Queries;
use super::startup::{Scram, Startup};
use super::tls;
use crate::config::Postgres;
use crate::serve::desk::SharedDesk;

/// How soon a client is missed that left something unread behind it.
const HANGUP_LOOK_EVERY: Duration = Duration::from_millis(250);

/// What all connections have in common.
pub struct House {
    desk: Arc<SharedDesk>,
    rows_max: u64,
    tls: Option<TlsAcceptor>,
    scram: Option<Arc<Scram>>,
    cancels: Arc<Cancels>,
    /// Places of those who have come in.
    places: Arc<Semaphore>,
}

impl House {
    /// # Errors
    /// The certificate cannot be used, or the machine gives no randomness.
    pub fn build(settings: &Postgres, desk: Arc<SharedDesk>) -> anyhow::Result<House> {
        let scram = match &settings.password {
            Some(password) => Some(Arc::new(Scram::of(&settings.user, password)?)),
            None => None,
        };
        let places = usize::try_from(settings.connections).unwrap_or(usize::MAX);
        Ok(House {
            desk,
            rows_max: settings.rows,
            tls: settings.tls.as_ref().map(tls::acceptor).transpose()?,
            scram,
            cancels: Arc::default(),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
        })
    }
}

/// Talks with a client until one of the two has had enough.
pub async fn serve(socket: TcpStream, house: &House) {
    let (socket, watched) = match twice(socket) {
        Ok(twice) => twice,
        Err(error) => {
            tracing::warn!("a connection cannot be taken: {error}");
            return;
        }
    };
    let registered = Arc::new(Registered::new(Arc::clone(&house.cancels)));
    let connection = Connection {
        startup: Arc::new(Startup::new(
            house.scram.clone(),
            Arc::clone(&house.places),
            Arc::clone(&registered),
        )),
        queries: Arc::new(Queries::new(Arc::clone(&house.desk), house.rows_max, registered)),
        cancels: Arc::clone(&house.cancels),
    };
    tokio::select! {
        ended = process_socket(socket, house.tls.clone(), connection) => {
            if let Err(error) = ended {
                tracing::debug!("a client of the Postgres endpoint left: {error}");
            }
        }
        () = hung_up(watched) => {}
    }
}

/// A second handle of the same socket, to watch it while the first is at work.
fn twice(socket: TcpStream) -> std::io::Result<(TcpStream, TcpStream)> {
    let socket = socket.into_std()?;
    let watched = socket.try_clone()?;
    Ok((TcpStream::from_std(socket)?, TcpStream::from_std(watched)?))
}

/// Ends when the client has.
async fn hung_up(watched: TcpStream) {
    loop {
        match watched.peek(&mut [0]).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tokio::time::sleep(HANGUP_LOOK_EVERY).await,
        }
    }
}

struct Connection {
    startup: Arc<Startup>,
    queries: Arc<Queries>,
    cancels: Arc<Cancels>,
}

impl PgWireServerHandlers for Connection {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.queries)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::clone(&self.queries)
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::clone(&self.startup)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::clone(&self.cancels)
    }
}
