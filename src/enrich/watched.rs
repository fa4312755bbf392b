//! A file that operators replace while we run: read when it changes, used from memory.
//!
//! `network` and `device` hold their data in these, and this is the one file access of the rules layer.
//! Files are read into memory, not mapped: a mapped file that is replaced in place kills the process.
//!
//! Invariant: content that cannot be used leaves the content before it in use.
//! Invariant: a file that has not changed is not read again, so a bad one is complained about once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

/// One file, and the newest usable content of it.
#[derive(Debug)]
pub(super) struct Watched<T> {
    path: PathBuf,
    content: RwLock<Option<T>>,
    seen: Mutex<Seen>,
}

/// What became of a file since it was last looked at.
#[derive(Debug)]
pub(super) enum LookedAt<E> {
    Unchanged,
    Replaced,
    Refused {
        cause: E,
        /// An older file was read before and stays in use.
        keeps_old: bool,
    },
}

/// How the file looked when it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    NotYet,
    Absent,
    Present { modified_at: Option<SystemTime>, bytes: u64 },
}

impl<T> Watched<T> {
    pub(super) fn new(path: PathBuf) -> Watched<T> {
        Watched {
            path,
            content: RwLock::new(None),
            seen: Mutex::new(Seen::NotYet),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// `None`: nothing usable was found so far.
    pub(super) fn content(&self) -> RwLockReadGuard<'_, Option<T>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file if its modification time or length has changed.
    pub(super) fn reload_if_changed<E: From<io::Error>>(&self, read: impl FnOnce(&Path) -> Result<T, E>) -> LookedAt<E> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = look_at(&self.path);
        let now = *found.as_ref().unwrap_or(&Seen::Absent);
        if now == *seen {
            return LookedAt::Unchanged;
        }
        *seen = now;
        match found.map_err(E::from).and_then(|_| read(&self.path)) {
            Ok(content) => {
                *self.content.write().unwrap_or_else(PoisonError::into_inner) = Some(content);
                LookedAt::Replaced
            }
            Err(cause) => LookedAt::Refused {
                cause,
                keeps_old: self.content().is_some(),
            },
        }
    }
}

fn look_at(path: &Path) -> io::Result<Seen> {
    let metadata = std::fs::metadata(path)?;
    Ok(Seen::Present {
        modified_at: metadata.modified().ok(),
        bytes: metadata.len(),
    })
}
