//! The one integration binary: linking DataFusion and Delta is slow, so it is paid once.

mod contract;
mod house;
mod support;
