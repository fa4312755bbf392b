//! The lock between the member's thread and the daemon.
//!
//! Invariant: neither side holds it while it waits for the network.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::books::Books;

#[derive(Debug, Default)]
pub struct Shared {
    books: Mutex<Books>,
    changed: Condvar,
}

impl Shared {
    /// The books stay sound when a thread panics over them: every change is whole before anything else is called.
    pub fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the books and wakes whoever waits.
    pub fn change<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    /// Waits until the books say so, or the time is up; true: they do.
    pub fn wait_until(&self, bound: Duration, is_so: impl Fn(&Books) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), bound, |books| !is_so(books));
        let (_books, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
        !timed_out.timed_out()
    }
}
