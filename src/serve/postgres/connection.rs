//! One client, from its greeting to its end.
//!
//! Invariant: a client that hangs up is noticed while its query is at work, and the query with it ends.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use datafusion_postgres::pgwire::api::{ClientInfo, NoopHandler, PgWireConnectionState};
use datafusion_postgres::pgwire::messages::PgWireFrontendMessage;
use datafusion_postgres::pgwire::tokio::TlsAcceptor;
use datafusion_postgres::pgwire::tokio::server::{negotiate_tls, process_error, process_message};
use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::cancel::{Cancels, Registered};
use super::queries::{Prepared, Queries};
use super::refusal::{FATAL, TOO_MUCH, refusal_of};
use super::startup::{Scram, Startup};
use super::tls;
use crate::config::Postgres;
use crate::serve::desk::SharedDesk;

/// How soon a client is missed that left something unread behind it.
const HANGUP_LOOK_EVERY: Duration = Duration::from_millis(250);

/// The longest message of a client: a question of this length is nobody's.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// From the first byte to the right password.
const GREETING_MAX: Duration = Duration::from_secs(30);

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
        ended = connection.talk(socket, house.tls.clone()) => {
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

impl Connection {
    async fn talk(&self, socket: TcpStream, tls: Option<TlsAcceptor>) -> std::io::Result<()> {
        let greeting_ends = Instant::now() + GREETING_MAX;
        let Ok(negotiated) = timeout_at(greeting_ends, negotiate_tls::<Arc<Prepared>>(socket, tls)).await else {
            return Ok(());
        };
        let Some(mut socket) = negotiated? else { return Ok(()) };
        loop {
            let is_greeting = matches!(
                socket.state(),
                PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress
            );
            let mut is_too_long = false;
            let next = poll_fn(|context| match socket.poll_next_unpin(context) {
                Poll::Pending if socket.read_buffer().len() > MESSAGE_BYTES_MAX => {
                    is_too_long = true;
                    Poll::Ready(None)
                }
                next => next,
            });
            let next = match is_greeting {
                true => timeout_at(greeting_ends, next).await.unwrap_or(None),
                false => next.await,
            };
            if is_too_long {
                let message = format!("a message of more than {} MiB", MESSAGE_BYTES_MAX >> 20);
                return process_error(&mut socket, refusal_of(FATAL, TOO_MUCH, message), false).await;
            }
            let Some(Ok(message)) = next else { return Ok(()) };
            if matches!(message, PgWireFrontendMessage::Terminate(_)) {
                return Ok(());
            }
            let is_extended = message.is_extended_query();
            let (startup, queries) = (Arc::clone(&self.startup), Arc::clone(&self.queries));
            let (copy, cancels) = (Arc::new(NoopHandler), Arc::clone(&self.cancels));
            let answered = process_message(message, &mut socket, startup, Arc::clone(&queries), queries, copy, cancels).await;
            if let Err(error) = answered {
                process_error(&mut socket, error, is_extended).await?;
            }
        }
    }
}
