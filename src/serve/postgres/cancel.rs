//! Cancelling: a client names the number and the secret of another connection, whose query then ends.
//!
//! Invariant: without the secret nothing is cancelled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::messages::cancel::CancelRequest;
use datafusion_postgres::pgwire::messages::startup::SecretKey;
use tokio::sync::watch;

/// All connections that can be told to stop.
#[derive(Default)]
pub struct Cancels {
    connections: Mutex<HashMap<i32, (SecretKey, watch::Sender<u64>)>>,
}

impl Cancels {
    fn connections(&self) -> MutexGuard<'_, HashMap<i32, (SecretKey, watch::Sender<u64>)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CancelHandler for Cancels {
    async fn on_cancel_request(&self, request: CancelRequest) {
        let connections = self.connections();
        if let Some((secret, times)) = connections.get(&request.pid)
            // Whoever cancels has not said which release of the protocol he speaks, which the secret's form goes by.
            && secret.to_bytes() == request.secret_key.to_bytes()
        {
            times.send_modify(|times| *times += 1);
        }
    }
}

/// One connection's place among them, for as long as it lasts.
pub struct Registered {
    cancels: Arc<Cancels>,
    pid: OnceLock<i32>,
    times: watch::Sender<u64>,
}

impl Registered {
    pub fn new(cancels: Arc<Cancels>) -> Registered {
        Registered {
            cancels,
            pid: OnceLock::new(),
            times: watch::Sender::new(0),
        }
    }

    /// Once the client has been told its number.
    pub fn register(&self, pid: i32, secret: SecretKey) {
        if self.pid.set(pid).is_ok() {
            self.cancels.connections().insert(pid, (secret, self.times.clone()));
        }
    }

    /// Tells of what is cancelled from now on.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.times.subscribe()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.get() {
            self.cancels.connections().remove(pid);
        }
    }
}
