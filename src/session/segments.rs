//! The segments of a session: what its events say of viewer, device, network and content, as one.
//!
//! Stands below `timeline`, which shows it each event.
//!
//! Invariant: the result depends on the order of the events and on nothing else.

use std::sync::Arc;

use crate::event::facts::Segments;

/// Takes the segments of a session's next event: the first value known of each field counts, save that
/// of stream types the last does: the reference player calls everything live until the manifest is
/// loaded.
pub fn take(merged: &mut Arc<Segments>, next: &Arc<Segments>) {
    if Arc::ptr_eq(merged, next) || !would_change(merged, next) {
        return;
    }
    let stream_type = next.stream_type.as_ref().or(merged.stream_type.as_ref()).cloned();
    if covers(next, merged) {
        *merged = Arc::clone(next);
    } else {
        fill(Arc::make_mut(merged), next);
    }
    if merged.stream_type != stream_type {
        Arc::make_mut(merged).stream_type = stream_type;
    }
}

/// Whether an event with the segments `next` changes what is known of its session.
pub fn would_change(merged: &Segments, next: &Segments) -> bool {
    let turns_stream = next.stream_type.is_some() && next.stream_type != merged.stream_type;
    turns_stream || adds_to(next, merged)
}

/// Every text of the segments but the stream type, which has a rule of its own.
fn texts(segments: &Segments) -> [&Option<String>; 17] {
    let (device, network) = (&segments.device, &segments.network);
    [
        &segments.user_id,
        &segments.device_id,
        &segments.content_id,
        &segments.app_name,
        &segments.app_version,
        &segments.player_name,
        &segments.player_version,
        &segments.cdn,
        &segments.connection_type,
        &device.device_type,
        &device.device_model,
        &device.os,
        &device.browser,
        &network.country,
        &network.region,
        &network.city,
        &network.isp,
    ]
}

/// Whether `next` knows something that `known` does not.
fn adds_to(next: &Segments, known: &Segments) -> bool {
    let adds_text = |(known, next): (&Option<String>, &Option<String>)| known.is_none() && next.is_some();
    let mut pairs = texts(known).into_iter().zip(texts(next));
    pairs.any(adds_text) || known.network.asn.is_none() && next.network.asn.is_some()
}

/// Whether `next` says everything that `known` says.
fn covers(next: &Segments, known: &Segments) -> bool {
    let keeps_text = |(known, next): (&Option<String>, &Option<String>)| known.is_none() || known == next;
    let (asn, next_asn) = (known.network.asn, next.network.asn);
    let mut pairs = texts(known).into_iter().zip(texts(next));
    pairs.all(keeps_text) && (asn.is_none() || asn == next_asn)
}

/// Fills what `known` does not know.
fn fill(known: &mut Segments, next: &Segments) {
    fn fill_one<T: Clone>(known: &mut Option<T>, next: &Option<T>) {
        if known.is_none() {
            known.clone_from(next);
        }
    }
    fill_one(&mut known.user_id, &next.user_id);
    fill_one(&mut known.device_id, &next.device_id);
    fill_one(&mut known.content_id, &next.content_id);
    fill_one(&mut known.app_name, &next.app_name);
    fill_one(&mut known.app_version, &next.app_version);
    fill_one(&mut known.player_name, &next.player_name);
    fill_one(&mut known.player_version, &next.player_version);
    fill_one(&mut known.device.device_type, &next.device.device_type);
    fill_one(&mut known.device.device_model, &next.device.device_model);
    fill_one(&mut known.device.os, &next.device.os);
    fill_one(&mut known.device.browser, &next.device.browser);
    fill_one(&mut known.network.country, &next.network.country);
    fill_one(&mut known.network.region, &next.network.region);
    fill_one(&mut known.network.city, &next.network.city);
    fill_one(&mut known.network.asn, &next.network.asn);
    fill_one(&mut known.network.isp, &next.network.isp);
    fill_one(&mut known.cdn, &next.cdn);
    fill_one(&mut known.connection_type, &next.connection_type);
}

#[cfg(test)]
mod tests {
    use crate::session::fixtures::facts;

    #[test]
    fn segments_are_the_first_known_and_the_last_stream_type() {
        let row = &facts(
            "0 playback_request stream=live app=tv\n1 playback_start stream=vod net=4g\n2 heartbeat net=3g app=web",
            "-",
        )[0]
        .session;
        assert_eq!(row.segments.stream_type.as_deref(), Some("vod"));
        assert_eq!(row.segments.app_name.as_deref(), Some("tv"));
        assert_eq!(row.segments.connection_type.as_deref(), Some("4g"));
    }
}
