//! The one integration binary: linking DataFusion and Delta is slow, so it is paid once.

mod alerts;
mod bad_input;
mod cloudfront;
mod cmcd;
mod contract;
mod daemon;
mod determinism;
mod eyevinn;
mod files;
mod hostile;
mod house;
mod http_client;
mod manual;
mod network;
mod pipelines;
mod privacy;
mod quality;
mod receiver;
mod reference;
mod restart;
mod score_check;
mod support;
mod vectors;
mod waterloo;
