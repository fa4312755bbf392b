//! The one integration binary: linking DataFusion and Delta is slow, so it is paid once.

mod alerts;
mod bad_input;
mod cloudfront;
mod contract;
mod daemon;
mod determinism;
mod files;
mod hostile;
mod house;
mod network;
mod pipelines;
mod privacy;
mod reference;
mod restart;
mod support;
