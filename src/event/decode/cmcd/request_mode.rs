//! Sets that travelled with a media request, of either version, into a `PlayerEvent`.
//!
//! Stands after `fields`. A request carries no kind and no time of its own: it is a snapshot of the
//! player, taken when the CDN logged it or when we received it.
//!
//! Invariant: nothing here looks at keys that only events have.

use super::fields::Filling;
use super::set::CmcdSet;
use crate::event::decode::text::flag;
use crate::event::{EventKind, PlayerEvent};

/// The names of the two versions in `source`.
fn source(set: &CmcdSet) -> &'static str {
    if set.version() == 1 { "cmcd1_log" } else { "cmcd2_log" }
}

/// What the CDN's log says of a request that carried this set: `at_ms` is the time of the log.
///
/// A heartbeat; a response where the set came with the URL of its request. Sets neither `payload` nor
/// the spans of ids in it. A set that is ignored (`CmcdSet::is_ignored`) gives an empty heartbeat: ask before.
pub fn decode_request(set: &CmcdSet, at_ms: i64) -> PlayerEvent {
    *logged(set, at_ms)
}

/// The same, where it was made: an event is large.
pub(super) fn logged(set: &CmcdSet, at_ms: i64) -> Box<PlayerEvent> {
    let mut filling = Filling::new(set, None);
    let mut event = filling.fill(source(set));
    event.event_ts_ms = at_ms;
    event.event_ts_raw = Some(at_ms);
    event.kind = Some(EventKind::Heartbeat);
    // The payload is the caller's, and only the caller knows where in it the set stood.
    event.identity_spans.clear();
    if let Some(url) = &set.request_url {
        event.kind = Some(EventKind::Response);
        event.url = Some(url.clone());
    }
    filling.finish(event)
}

/// A request's set that came in a POST body: nobody says when it was made.
pub(super) fn received(set: &CmcdSet, now_ms: i64) -> Box<PlayerEvent> {
    let mut filling = Filling::new(set, None);
    let mut event = filling.fill(source(set));
    event.event_ts_ms = now_ms;
    event.kind = Some(EventKind::Heartbeat);
    event.url = set.request_url.clone();
    flag(&mut filling.flags, "receive_time");
    filling.finish(event)
}
