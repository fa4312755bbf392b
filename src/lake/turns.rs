//! Who may change what of a table, within this process.
//!
//! Ingest and the roll-up append to and edit a table, upkeep rewrites and deletes files of it. Between
//! processes the lake's lock file keeps writers apart; these locks do it inside one.
//!
//! Invariant: from the moment an edit looks for the files that hold its rows until it is committed, no
//! other edit and no upkeep takes files out of that table.
//! Invariant: while files are written and not yet committed, nothing that the log does not name is
//! deleted from that table.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The locks of one table, in the order in which they are taken.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Held by one upkeep of the table at a time: two compactions at once would double its rows.
    upkeep: Arc<Mutex<()>>,
    /// Held by whoever takes files out of the table.
    edit: Arc<Mutex<()>>,
    /// Held together by all whose files are on their way into the table.
    flight: Arc<RwLock<()>>,
    /// Held over one commit: each is built on the one before.
    commit: Mutex<()>,
}

/// What a prepared change holds of its table's turns until it is committed or given up.
#[derive(Debug, Default)]
pub struct Held {
    _flight: Option<OwnedRwLockReadGuard<()>>,
    _edit: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    pub(super) async fn append(&self) -> Held {
        Held {
            _flight: Some(Arc::clone(&self.flight).read_owned().await),
            _edit: None,
        }
    }

    pub(super) async fn edit(&self) -> Held {
        let edit = Arc::clone(&self.edit).lock_owned().await;
        Held {
            _flight: Some(Arc::clone(&self.flight).read_owned().await),
            _edit: Some(edit),
        }
    }

    pub(super) async fn commit(&self) -> MutexGuard<'_, ()> {
        self.commit.lock().await
    }

    /// `None` if another upkeep of this table is under way.
    pub(super) fn upkeep(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.upkeep).try_lock_owned().ok()
    }

    /// `None` if files are on their way. Never waits: a waiting writer would hold up every new append.
    pub(super) fn nothing_in_flight(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        Arc::clone(&self.flight).try_write_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn appends_fly_together_and_hold_back_deletion_until_they_land() {
        let turns = Turns::default();
        let one = turns.append().await;
        let other = turns.append().await;
        assert!(turns.nothing_in_flight().is_none());
        drop(one);
        assert!(turns.nothing_in_flight().is_none());
        drop(other);
        assert!(turns.nothing_in_flight().is_some());
    }

    #[tokio::test]
    async fn one_edit_waits_for_the_other_and_appends_do_not() {
        let turns = Turns::default();
        let edit = turns.edit().await;
        let _append = turns.append().await;
        let second = tokio::time::timeout(std::time::Duration::from_millis(20), turns.edit());
        assert!(second.await.is_err());
        drop(edit);
        turns.edit().await;
    }

    #[tokio::test]
    async fn a_second_upkeep_is_turned_away() {
        let turns = Turns::default();
        let first = turns.upkeep();
        assert!(first.is_some());
        assert!(turns.upkeep().is_none());
        drop(first);
        assert!(turns.upkeep().is_some());
    }
}
