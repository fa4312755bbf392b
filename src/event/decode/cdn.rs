//! The formats of CDN logs, one file each, and what they share.
//!
//! Stands first in the walk of a CDN request: a line becomes a `CdnRequest` in CloudFront's words.
//!
//! Invariant: a format sets `uri_query` as logged; what the player said in it is taken out afterwards,
//! for all formats alike (`cmcd_in_log::settle`).

pub(super) mod akamai;
pub(super) mod cdn_json;
pub(super) mod cloudflare;
pub(super) mod cloudfront;
pub mod cmcd_in_log;
pub(super) mod combined;
pub(super) mod fastly;
pub(super) mod field_map;
pub(super) mod generic;
mod json_row;
pub(super) mod media_cdn;
pub(super) mod report;
