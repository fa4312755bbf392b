//! What the daemon tells of itself: logs and error chains here; its health, its metrics and the routes that
//! show them below.
//!
//! Invariant: logs go to standard error, answers to standard output.
//! Invariant: an error's chain is printed once, where it ends.

pub mod health;
pub mod metrics;
pub mod status;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Libraries that log an error which they also return: it would be told twice, once out of context.
const TOLD_BY_US: &str = "deltalake=off,deltalake_core=off,delta_kernel=off,buoyant_kernel=off,buoyant_kernel_engine=off";

/// Sets the process's log up. Libraries are held at `warn`: their `info` is about themselves.
pub fn start(log: &Log) {
    let filter = EnvFilter::new(format!("warn,{TOLD_BY_US},playhead={}", log.level.as_str()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    if log.format == LogFormat::Json {
        // A collector reads lines of JSON only: what a panic prints by itself would be lost.
        std::panic::set_hook(Box::new(|panic| tracing::error!("a bug: {panic}")));
    }
    // A second start in one process (tests) keeps the first.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// `what: because: because`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
