//! Answers: what other programs ask of the lake, and how.
//!
//! Stands at the end of the walk, beside the daemon or over a lake that another process writes. `desk` runs
//! the questions of all readers over one session; each way of asking stands beside it.
//!
//! Invariant: read-only. Nothing that comes in here changes a table, and no reader can hold up ingest: time,
//! memory, rows and the number of queries are bounded.

pub mod dashboard;
pub mod desk;
pub mod dossier;
pub mod live;
pub mod page;
pub mod postgres;
