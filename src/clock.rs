//! The clock: what time it is, asked of whoever was handed in.
//!
//! The shell hands `SystemClock` to the conductors; tests and replays hand in a `ManualClock` and
//! turn it themselves, so an hour of football takes a millisecond.
//!
//! Invariant: this is the only file that reads the machine's clock (`clippy.toml` bans the calls
//! elsewhere). How long our own work took is measured with `std::time::Instant`, which is no time
//! of day and is allowed everywhere.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time of day.
pub trait Clock: Send + Sync {
    /// Now, epoch milliseconds UTC.
    fn now_ms(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    // This is the one place where the machine's clock is read.
    #[allow(clippy::disallowed_methods)]
    fn now_ms(&self) -> i64 {
        let now = SystemTime::now();
        match now.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            // A machine whose clock was never set stands at, or shortly before, 1970.
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }
}

/// A clock that stands still until it is turned by hand.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ms: AtomicI64,
}

impl ManualClock {
    pub fn at(now_ms: i64) -> ManualClock {
        ManualClock {
            now_ms: AtomicI64::new(now_ms),
        }
    }

    pub fn set(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }

    /// Moves on by `by_ms` and returns the new time.
    pub fn advance(&self, by_ms: i64) -> i64 {
        self.now_ms.fetch_add(by_ms, Ordering::SeqCst) + by_ms
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }
}

/// A shared clock is a clock, so one hand-turned clock can drive several tasks.
impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now_ms(&self) -> i64 {
        (**self).now_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_manual_clock_moves_only_when_turned() {
        let clock = ManualClock::at(1_000);
        assert_eq!((clock.now_ms(), clock.now_ms()), (1_000, 1_000));
        assert_eq!(clock.advance(250), 1_250);
        clock.set(5);
        assert_eq!(clock.now_ms(), 5);
    }

    #[test]
    fn a_clock_shared_between_tasks_shows_them_the_same_time() {
        let clock = Arc::new(ManualClock::at(7));
        let of_a_task: Arc<dyn Clock> = clock.clone();
        clock.advance(3);
        assert_eq!(of_a_task.now_ms(), 10);
    }

    #[test]
    fn the_system_clock_counts_milliseconds_since_1970() {
        // 2020 and 2200: off by a factor of a thousand would fall outside.
        let now = SystemClock.now_ms();
        assert!((1_577_836_800_000..7_258_118_400_000).contains(&now), "{now}");
    }
}
