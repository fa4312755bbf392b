//! Where a lake lies: a folder of this machine, or a prefix of an object store.
//!
//! Stands below `lake`: names become addresses here, and the lock is taken here.
//!
//! Invariant: two daemons never write one lake. In a folder the kernel keeps the lock; on an object
//! store a lease does, and a daemon that has lost it stops.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deltalake::DeltaTableBuilder;
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use url::Url;

use super::lease::{Lease, LeaseError};
use super::{LakeError, file_error, table_error};
use crate::clock::Clock;

const LOCK_FILE: &str = "playhead.lock";

/// A store that does not answer is asked again until the lease would be lost. The ten tries that are usual
/// are over within three seconds where every connection is refused, and the daemon would end.
const RETRIES: [(&str, &str); 3] = [("max_retries", "1000"), ("max_backoff", "2s"), ("retry_timeout", "25s")];

/// A folder or a prefix that holds the tables of a lake.
#[derive(Debug, Clone)]
pub struct Place {
    /// Ends with a slash.
    url: Url,
    /// `None`: the tables are on an object store.
    folder: Option<PathBuf>,
    options: HashMap<String, String>,
}

/// Held for as long as this process may write.
pub enum Lock {
    /// The kernel lets go of it when the process ends, however it ends.
    File(File),
    Lease(Lease),
}

impl Place {
    /// # Errors
    /// The path cannot be made absolute.
    pub fn folder(path: &Path) -> Result<Place, LakeError> {
        let absolute = std::path::absolute(path).map_err(file_error("resolve", path))?;
        let url = Url::from_directory_path(&absolute).map_err(|()| LakeError::Damaged {
            table: absolute.display().to_string(),
            what: "its path cannot be written as a URL".to_string(),
        })?;
        Ok(Place {
            url,
            folder: Some(path.to_path_buf()),
            options: HashMap::new(),
        })
    }

    /// A prefix such as `s3://bucket/lake`; `options` as object_store names them (`aws_endpoint`).
    pub fn remote(mut url: Url, options: HashMap<String, String>) -> Place {
        deltalake::aws::register_handlers(None);
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let retries = RETRIES.map(|(name, value)| (name.to_string(), value.to_string()));
        Place {
            url,
            folder: None,
            options: retries.into_iter().chain(options).collect(),
        }
    }

    /// For people.
    pub fn name(&self) -> String {
        match &self.folder {
            Some(folder) => folder.display().to_string(),
            None => self.url.to_string(),
        }
    }

    pub fn options(&self) -> HashMap<String, String> {
        self.options.clone()
    }

    /// Where `layer.table` lies.
    pub fn table_url(&self, table: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{}/", self.url.path(), table.replace('.', "/")));
        url
    }

    /// The folder of a table; `None` on an object store.
    pub fn table_folder(&self, table: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(table.replace('.', "/")))
    }

    /// True if a table has a log.
    ///
    /// # Errors
    /// The object store cannot be reached.
    pub async fn holds(&self, table: &str) -> Result<bool, LakeError> {
        if let Some(folder) = self.table_folder(table) {
            return Ok(is_table(&folder));
        }
        let store = self.store_at(table, self.table_url(table))?;
        let mut listing = store.list(Some(&object_store::path::Path::from("_delta_log")));
        let first = listing
            .try_next()
            .await
            .map_err(|error| table_error("look for", table)(error.into()))?;
        Ok(first.is_some())
    }

    /// True if there is a lake to read here.
    pub fn is_there(&self) -> bool {
        self.folder.as_ref().is_none_or(|folder| folder.is_dir())
    }

    /// Takes the lock, making the folder if it is missing.
    ///
    /// # Errors
    /// `InUse`: another process writes this lake.
    pub async fn lock(&self, clock: Arc<dyn Clock>) -> Result<Lock, LakeError> {
        let Some(folder) = &self.folder else {
            let store = self.store()?;
            return match Lease::take(store, LOCK_FILE, clock).await {
                Ok(lease) => Ok(Lock::Lease(lease)),
                Err(LeaseError::Held { by }) => Err(LakeError::InUse {
                    lake: self.name(),
                    holder: format!(" ({by})"),
                }),
                Err(LeaseError::Store(error)) => Err(table_error("lock", "the lake")(error.into())),
            };
        };
        std::fs::create_dir_all(folder).map_err(file_error("create the lake folder", folder))?;
        lock_file(folder).map(Lock::File)
    }

    /// The object store below the lake's own prefix.
    ///
    /// # Errors
    /// It cannot be used as it is set.
    pub fn store(&self) -> Result<Arc<dyn ObjectStore>, LakeError> {
        self.store_at("the lake", self.url.clone())
    }

    fn store_at(&self, what: &str, url: Url) -> Result<Arc<dyn ObjectStore>, LakeError> {
        let storage = DeltaTableBuilder::from_url(url)
            .map_err(table_error("open", what))?
            .with_storage_options(self.options())
            .build_storage()
            .map_err(table_error("open", what))?;
        Ok(storage.object_store(None))
    }
}

impl Lock {
    /// False once another daemon has taken the lake over: nothing may be committed any more.
    pub fn is_held(&self) -> bool {
        match self {
            Lock::File(_) => true,
            Lock::Lease(lease) => lease.is_held(),
        }
    }

    /// A file's lock goes with the file; a lease is handed back, or the next daemon would wait for it to
    /// run out.
    pub async fn give_back(&self) {
        if let Lock::Lease(lease) = self {
            lease.give_back().await;
        }
    }
}

/// A process that was killed while it made a table leaves a log without a commit and no data beside it:
/// that is no table yet. Data without a commit is a table that is damaged.
fn is_table(folder: &Path) -> bool {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let log = folder.join("_delta_log");
    let is_commit = |name: &Path| name.extension().is_some_and(|ending| ending == "json" || ending == "parquet");
    log.is_dir() && (entries(&log).any(|entry| is_commit(Path::new(&entry.file_name()))) || entries(folder).count() > 1)
}

fn lock_file(root: &Path) -> Result<File, LakeError> {
    let path = root.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(file_error("open the lock file", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            let holder = if holder.is_empty() {
                String::new()
            } else {
                format!(" (pid {})", holder.trim())
            };
            return Err(LakeError::InUse {
                lake: root.display().to_string(),
                holder,
            });
        }
        Err(TryLockError::Error(source)) => {
            return Err(LakeError::File {
                act: "lock",
                path: path.display().to_string(),
                source,
            });
        }
    }
    file.set_len(0).map_err(file_error("write the lock file", &path))?;
    writeln!(file, "{}", std::process::id()).map_err(file_error("write the lock file", &path))?;
    Ok(file)
}
