//! The lock of a lake on an object store: one small object, changed by conditional put alone.
//!
//! Whoever puts the object holds the lake and renews it; an object that has not changed for the lease
//! time, seen by the clock of the one who looks, is anybody's.
//!
//! Invariant: clocks that differ or jump steal nothing: what counts is for how long *we* saw no change.
//! Invariant: a holder that could not renew in time knows it before anybody else may take over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::Clock;

/// An object that has not changed for this long has lost its holder. Three renewals may fail.
const LEASE_TIME: Duration = Duration::from_secs(30);
const RENEW_EVERY: Duration = Duration::from_secs(8);
/// A holder stops by itself this long before anybody may take over.
const MARGIN: Duration = Duration::from_secs(5);
/// How often one who waits looks at the object.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why the lake is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("held by {by}")]
    Held { by: String },
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

/// The object as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    /// Drawn anew by each process; empty: given back.
    holder: String,
    /// For people: where the holder runs.
    host: String,
    pid: u32,
    /// By the holder's clock, for people who look; no rule reads it.
    renewed_at_ms: i64,
}

/// A lake that is ours. Dropped without `give_back`, it is anybody's after the lease time.
pub struct Lease {
    is_held: Arc<AtomicBool>,
    leaving: Arc<Notify>,
    renewing: Mutex<Option<JoinHandle<()>>>,
}

impl Lease {
    /// Takes the lease, waiting for as long as it takes to see that its holder is gone.
    ///
    /// # Errors
    /// `Held`: its holder lives.
    pub async fn take(store: Arc<dyn ObjectStore>, name: &str, clock: Arc<dyn Clock>) -> Result<Lease, LeaseError> {
        let path = Path::from(name);
        let mine = Written {
            holder: drawn()?,
            host: host_name(),
            pid: std::process::id(),
            renewed_at_ms: clock.now_ms(),
        };
        let before = wait_until_free(&*store, &path).await?;
        let version = put(&*store, &path, &mine, before).await.map_err(|error| match error {
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => LeaseError::Held {
                by: "a daemon that started at the same time".to_string(),
            },
            other => LeaseError::Store(other),
        })?;
        let is_held = Arc::new(AtomicBool::new(true));
        let leaving = Arc::new(Notify::new());
        let renewal = Renewal {
            store,
            path,
            mine,
            version,
            is_held: Arc::clone(&is_held),
        };
        let renewing = tokio::spawn(renewal.run(clock, Arc::clone(&leaving)));
        Ok(Lease {
            is_held,
            leaving,
            renewing: Mutex::new(Some(renewing)),
        })
    }

    /// Puts the object so that the next daemon need not wait.
    pub async fn give_back(&self) {
        self.leaving.notify_one();
        let renewing = self.renewing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(renewing) = renewing {
            // A panic of the task has been printed; the lease runs out by itself.
            let _ = renewing.await;
        }
    }

    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(renewing) = self.renewing.lock().unwrap_or_else(PoisonError::into_inner).take() {
            renewing.abort();
        }
    }
}

/// For people; a machine that does not tell its name has none.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_string()
}

fn drawn() -> Result<String, LeaseError> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| object_store::Error::Generic {
        store: "lease",
        source: error.to_string().into(),
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What stands there once it may be replaced; `None`: nothing does.
async fn wait_until_free(store: &dyn ObjectStore, path: &Path) -> Result<Option<UpdateVersion>, LeaseError> {
    let mut first: Option<Written> = None;
    let looked_at = Instant::now();
    loop {
        let Some((written, version)) = get(store, path).await? else {
            return Ok(None);
        };
        if written.holder.is_empty() || looked_at.elapsed() >= LEASE_TIME {
            return Ok(Some(version));
        }
        if first.as_ref().is_some_and(|first| *first != written) {
            return Err(LeaseError::Held {
                by: format!("pid {} on {}", written.pid, written.host),
            });
        }
        first = Some(written);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn get(store: &dyn ObjectStore, path: &Path) -> Result<Option<(Written, UpdateVersion)>, LeaseError> {
    let found = match store.get(path).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let version = UpdateVersion {
        e_tag: found.meta.e_tag.clone(),
        version: found.meta.version.clone(),
    };
    let bytes = found.bytes().await?;
    let written = serde_json::from_slice(&bytes).unwrap_or(Written {
        holder: "?".to_string(),
        host: "an unknown host (its lock cannot be read)".to_string(),
        pid: 0,
        renewed_at_ms: 0,
    });
    Ok(Some((written, version)))
}

async fn put(
    store: &dyn ObjectStore,
    path: &Path,
    written: &Written,
    before: Option<UpdateVersion>,
) -> Result<UpdateVersion, object_store::Error> {
    let bytes = serde_json::to_vec(written).expect("a struct of texts and numbers");
    let mode = before.map_or(PutMode::Create, PutMode::Update);
    let done = store.put_opts(path, PutPayload::from(bytes), PutOptions::from(mode)).await?;
    Ok(UpdateVersion {
        e_tag: done.e_tag,
        version: done.version,
    })
}

/// Keeps an object ours.
struct Renewal {
    store: Arc<dyn ObjectStore>,
    path: Path,
    mine: Written,
    version: UpdateVersion,
    is_held: Arc<AtomicBool>,
}

impl Renewal {
    async fn run(mut self, clock: Arc<dyn Clock>, leaving: Arc<Notify>) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < LEASE_TIME - MARGIN {
            tokio::select! {
                () = tokio::time::sleep(RENEW_EVERY) => {}
                () = leaving.notified() => return self.hand_back().await,
            }
            self.mine.renewed_at_ms = clock.now_ms();
            let putting = put(&*self.store, &self.path, &self.mine, Some(self.version.clone()));
            match tokio::time::timeout_at(renewed + LEASE_TIME - MARGIN, putting).await {
                Ok(Ok(newer)) => {
                    self.version = newer;
                    renewed = Instant::now();
                }
                Ok(Err(object_store::Error::Precondition { .. })) | Err(_) => break,
                Ok(Err(error)) => tracing::warn!("cannot renew the lock of the lake: {error}; it is tried again"),
            }
        }
        self.is_held.store(false, Ordering::Release);
        tracing::error!("the lock of the lake is lost: another daemon took it, or the object store could not be reached for too long");
    }

    async fn hand_back(mut self) {
        self.is_held.store(false, Ordering::Release);
        self.mine.holder.clear();
        let putting = put(&*self.store, &self.path, &self.mine, Some(self.version));
        if let Ok(Err(error)) = tokio::time::timeout(MARGIN, putting).await {
            tracing::warn!("cannot hand back the lock of the lake: {error}; the next daemon waits until it has run out");
        }
    }
}
