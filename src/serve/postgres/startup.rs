//! The greeting: who asks, whether there is a place, and what clients are told of the server.
//!
//! Invariant: with a password set nobody gets further without it; it is never sent, in neither direction.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::auth::sasl::SASLAuthStartupHandler;
use datafusion_postgres::pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, ScramAuth, gen_salted_password};
use datafusion_postgres::pgwire::api::auth::{
    AuthSource, DefaultServerParameterProvider, LoginInfo, Password, ServerParameterProvider, StartupHandler, finish_authentication,
    protocol_negotiation, save_startup_parameters_to_metadata,
};
use datafusion_postgres::pgwire::api::{ClientInfo, PgWireConnectionState, PidSecretKeyGenerator, RandomPidSecretKeyGenerator};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures_util::Sink;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::cancel::Registered;
use super::refusal::{FATAL, refusal};
use crate::serve::desk::SERVER_VERSION;

/// As long as those of PostgreSQL itself.
const SALT_BYTES: usize = 16;
/// One source of numbers for all connections: two must not have the same.
static NUMBERS: LazyLock<Arc<RandomPidSecretKeyGenerator>> = LazyLock::new(Arc::default);

/// The password as SCRAM keeps it.
pub struct Scram {
    user: String,
    salt: [u8; SALT_BYTES],
    salted: Vec<u8>,
}

impl Scram {
    /// # Errors
    /// The machine gives no randomness.
    pub fn of(user: &str, password: &str) -> anyhow::Result<Scram> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| anyhow::anyhow!("the machine gives no randomness: {error}"))?;
        Ok(Scram {
            user: user.to_owned(),
            salted: gen_salted_password(password, &salt, SCRAM_ITERATIONS),
            salt,
        })
    }
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scram").field("user", &self.user).finish_non_exhaustive()
    }
}

#[async_trait]
impl AuthSource for Scram {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        match login.user() {
            Some(user) if user == self.user => Ok(Password::new(Some(self.salt.to_vec()), self.salted.clone())),
            user => Err(PgWireError::InvalidPassword(user.unwrap_or_default().to_owned())),
        }
    }
}

/// What clients are told.
struct Parameters;

impl ServerParameterProvider for Parameters {
    fn server_parameters<C: ClientInfo>(&self, client: &C) -> Option<HashMap<String, String>> {
        let mut usual = DefaultServerParameterProvider::default();
        usual.server_version = SERVER_VERSION.to_owned();
        usual.search_path = "gold".to_owned();
        usual.is_superuser = false;
        usual.default_transaction_read_only = true;
        usual.time_zone = "UTC".to_owned();
        usual.server_parameters(client)
    }
}

/// The greeting of one connection.
pub struct Startup {
    /// `None`: whoever reaches the address may ask.
    scram: Option<SASLAuthStartupHandler<Parameters>>,
    places: Arc<Semaphore>,
    place: Mutex<Option<OwnedSemaphorePermit>>,
    registered: Arc<Registered>,
}

impl Startup {
    pub fn new(scram: Option<Arc<Scram>>, places: Arc<Semaphore>, registered: Arc<Registered>) -> Startup {
        let scram = scram.map(|scram| {
            SASLAuthStartupHandler::new(Arc::new(Parameters))
                .with_scram(ScramAuth::new(scram))
                .with_pid_secret_key_generator(Arc::clone(&*NUMBERS) as Arc<dyn PidSecretKeyGenerator>)
        });
        Startup {
            scram,
            places,
            place: Mutex::new(None),
            registered,
        }
    }

    fn take_place(&self) -> PgWireResult<()> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            let taken = Arc::clone(&self.places).try_acquire_owned();
            *place = Some(taken.map_err(|_| {
                let mut info = ErrorInfo::new(FATAL.to_owned(), "53300".to_owned(), "too many connections".to_owned());
                info.hint = Some("close some, or raise postgres.connections in playhead's settings".to_owned());
                PgWireError::UserError(Box::new(info))
            })?);
        }
        Ok(())
    }
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.take_place()?;
        match (&self.scram, &message) {
            (Some(scram), _) => {
                if let Err(error) = scram.on_startup(client, message).await {
                    return Err(refused(error));
                }
            }
            (None, PgWireFrontendMessage::Startup(startup)) => {
                protocol_negotiation(client, startup).await?;
                save_startup_parameters_to_metadata(client, startup);
                let (pid, secret) = NUMBERS.generate(&*client);
                client.set_pid_and_secret_key(pid, secret);
                finish_authentication(client, &Parameters).await?;
            }
            (None, _) => return Err(refusal("08P01", "a client has to begin with a startup message")),
        }
        if matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            let (pid, secret) = client.pid_and_secret_key();
            self.registered.register(pid, secret);
        }
        Ok(())
    }
}

/// A wrong password ends the connection, and says no more than that it was wrong.
fn refused(error: PgWireError) -> PgWireError {
    match error {
        PgWireError::InvalidPassword(user) => {
            let message = format!("password authentication failed for user \"{user}\"");
            PgWireError::UserError(Box::new(ErrorInfo::new(FATAL.to_owned(), "28P01".to_owned(), message)))
        }
        other => other,
    }
}
