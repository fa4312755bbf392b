//! Alert life: inactive, pending, firing, recovering, resolved. The pure evaluation of rules.
//!
//! Stands behind gold: `watch` reads a closed window's minute rows, calls `evaluate` for each rule
//! and `route` for all of them, once per closed minute in order, and commits the transitions to
//! `ops.alert_events`, which is state and outbox in one (DESIGN D9).
//!
//! In the order of the walk: `rule` (files to checked rules), `window` (rows to groups), `baseline`,
//! `reading` (what a rule sees of a group), `life` (where an alert goes from there), `evaluate`,
//! `transition` and `state` (what is recorded and what is remembered), `route` (silences, inhibition,
//! hours, many alerts as one), `cause` (what explains it), `message`. Beside it: `rule_test` and `replay` for people who write rules.
//!
//! Invariant: no clock, no randomness; the same input gives the same transitions, bit for bit, in
//! whatever order the rows come.
//! Invariant: state is the fold of transitions; nothing else is remembered.

pub mod baseline;
pub mod cause;
mod early;
pub mod evaluate;
pub mod form;
mod late;
mod life;
pub mod message;
mod reading;
pub mod replay;
pub mod route;
pub mod rule;
pub mod rule_test;
pub mod state;
pub mod target;
mod template;
pub mod transition;
pub mod window;

#[cfg(test)]
mod compliance;
#[cfg(test)]
mod fixture;

pub use early::early;
pub use evaluate::{close_removed, evaluate, evaluate_failed};
pub use late::{amended, is_amendable};
pub use route::{route, route_early};
pub use state::{AlertState, States, fold};
pub use transition::{BaselineReading, Fingerprint, Held, Member, Reason, Remediation, Status, TableVersion, Transition};
pub use window::{Dims, MinuteRow, SlotRow};

pub(crate) const MINUTE_MS: i64 = 60_000;
pub(crate) const DAY_MS: i64 = 86_400_000;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
