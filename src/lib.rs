//! Playhead: streaming-video QoS/QoE analytics in one binary.
//!
//! Player events and CDN logs go in; bronze, silver and gold Delta tables, exact metrics and alerts
//! come out. The walk of one event, and the modules in its order:
//!
//! 1. `source` hands over a bounded batch of bytes with its positions.
//! 2. `event::decode` makes a `PlayerEvent` or a `CdnRequest` of each record, or a `Reject`.
//! 3. `enrich` adds what the address and the user agent tell, while the address is in memory.
//! 4. `privacy` takes the identity out; only what it returns can be stored.
//! 5. `ingest` drops what the lake knows already and commits bronze, then silver (`lake`).
//! 6. `session` turns the events of a session into additive facts; they are silver too.
//! 7. `watermark` says up to when the input is complete; `rollup` runs `pipelines/*.sql` over the
//!    windows that this closes and replaces them in gold.
//! 8. `watch` judges the closed windows by `alerts/*.yaml` (`alert`), records and sends (`notify`).
//! 9. `sql` answers questions over all layers; `serve` is asked by other programs.
//!
//! Who may import whom, from the top down:
//!
//! ```text
//! shell        main  cli  daemon  serve  config  contract  telemetry  builtin
//! conductors   ingest  rollup  watch
//! edges        source  lake  sql  notify  arroyo  relay
//! rules        event::decode  event::schema  enrich  privacy  session  watermark  alert  publish
//! words        event  event::facts  metric  sketch  clock  simulate  udfs
//! ```
//!
//! `tests/it/house.rs` checks it. `ARCHITECTURE.md` says why it is so.

pub mod alert;
pub mod arroyo;
pub mod builtin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod contract;
pub mod daemon;
pub mod enrich;
pub mod event;
pub mod ingest;
pub mod lake;
pub mod metric;
pub mod notify;
pub mod privacy;
pub mod publish;
pub mod relay;
pub mod rollup;
pub mod serve;
pub mod session;
pub mod simulate;
pub mod sketch;
pub mod source;
pub mod sql;
pub mod telemetry;
pub mod udfs;
pub mod watch;
pub mod watermark;
