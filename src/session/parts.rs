//! Parts: what the sessions of a shard share of their segments, each kept once.
//!
//! Stands below `checkpoint`. A session of its own has only its viewer; its application, device,
//! network and content are those of many others.
//!
//! Invariant: a part is kept while a checkpoint counts on it, and forgotten with the last one.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::packed::Text;
use crate::event::facts::Segments;
use crate::event::{Device, Network};

/// What many sessions have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Part {
    App([Option<String>; 4]),
    Device(Device),
    Network(Network),
    Content([Option<String>; 4]),
}

/// Segments as a checkpoint holds them: the viewer, and the places of the parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedSegments {
    user_id: Text,
    device_id: Text,
    parts: [u32; 4],
}

impl PackedSegments {
    /// Says where the same parts are kept elsewhere; `None` if they are not.
    pub fn renumber(&mut self, mut place_of: impl FnMut(u32) -> Option<u32>) -> Option<()> {
        for place in &mut self.parts {
            *place = place_of(*place)?;
        }
        Some(())
    }
}

/// A part and how many checkpoints hold its place.
#[derive(Debug)]
struct Held {
    part: Arc<Part>,
    holders: u32,
}

/// The parts of one shard.
#[derive(Debug, Default)]
pub struct Parts {
    places: HashMap<Arc<Part>, u32>,
    held: Vec<Option<Held>>,
    free: Vec<u32>,
}

impl Parts {
    /// The caller holds the parts until it gives the packed segments to `release`.
    pub fn pack(&mut self, segments: &Segments) -> PackedSegments {
        let s = segments.clone();
        let app = Part::App([s.app_name, s.app_version, s.player_name, s.player_version]);
        let content = Part::Content([s.content_id, s.stream_type, s.cdn, s.connection_type]);
        let parts = [app, Part::Device(s.device), Part::Network(s.network), content];
        PackedSegments {
            user_id: Text::pack(s.user_id.as_deref()),
            device_id: Text::pack(s.device_id.as_deref()),
            parts: parts.map(|part| self.hold(Arc::new(part))),
        }
    }

    pub fn unpack(&self, packed: &PackedSegments) -> Segments {
        let mut segments = Segments {
            user_id: packed.user_id.unpack(),
            device_id: packed.device_id.unpack(),
            ..Segments::default()
        };
        for place in packed.parts {
            let held = self.held.get(place as usize).and_then(Option::as_ref);
            match held.map(|held| &*held.part) {
                Some(Part::App(texts)) => {
                    let [name, version, player_name, player_version] = texts.clone();
                    (segments.app_name, segments.app_version) = (name, version);
                    (segments.player_name, segments.player_version) = (player_name, player_version);
                }
                Some(Part::Device(device)) => segments.device.clone_from(device),
                Some(Part::Network(network)) => segments.network.clone_from(network),
                Some(Part::Content(texts)) => {
                    let [content_id, stream_type, cdn, connection_type] = texts.clone();
                    (segments.content_id, segments.stream_type) = (content_id, stream_type);
                    (segments.cdn, segments.connection_type) = (cdn, connection_type);
                }
                None => {}
            }
        }
        segments
    }

    /// Gives back what `pack` took.
    pub fn release(&mut self, packed: &PackedSegments) {
        for place in packed.parts {
            let Some(slot) = self.held.get_mut(place as usize) else {
                continue;
            };
            let Some(held) = slot else { continue };
            held.holders -= 1;
            if held.holders == 0 {
                self.places.remove(&held.part);
                *slot = None;
                self.free.push(place);
            }
        }
    }

    pub fn get(&self, place: u32) -> Option<&Arc<Part>> {
        let held = self.held.get(place as usize)?.as_ref();
        held.map(|held| &held.part)
    }

    /// The place of a part that is kept for one holder more.
    pub fn hold(&mut self, part: Arc<Part>) -> u32 {
        if let Some(place) = self.places.get(&part).copied()
            && let Some(held) = &mut self.held[place as usize]
        {
            held.holders += 1;
            return place;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.held.push(None);
            (self.held.len() - 1) as u32
        });
        self.places.insert(Arc::clone(&part), place);
        self.held[place as usize] = Some(Held { part, holders: 1 });
        place
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(user_id: &str, app_name: &str, city: Option<&str>) -> Segments {
        let mut segments = Segments {
            user_id: Some(user_id.to_owned()),
            app_name: Some(app_name.to_owned()),
            ..Segments::default()
        };
        segments.network.city = city.map(str::to_owned);
        segments
    }

    #[test]
    fn equal_parts_are_kept_once_and_leave_with_their_last_holder() {
        let mut parts = Parts::default();
        let all = [
            segments("a", "tv", Some("Kiel")),
            segments("b", "tv", None),
            segments("c", "web", Some("Kiel")),
        ];
        let packed: Vec<PackedSegments> = all.iter().map(|segments| parts.pack(segments)).collect();
        // Two applications, two networks, and a device and a content of which nothing is known.
        assert_eq!(parts.len(), 6);
        let unpacked: Vec<Segments> = packed.iter().map(|packed| parts.unpack(packed)).collect();
        assert_eq!(unpacked, all);
        parts.release(&packed[2]);
        assert_eq!(parts.len(), 5);
        assert_eq!(parts.unpack(&packed[0]), all[0]);
        let again = parts.pack(&segments("d", "radio", None));
        assert_eq!(parts.unpack(&again).app_name.as_deref(), Some("radio"));
        for packed in [&packed[0], &packed[1], &again] {
            parts.release(packed);
        }
        assert_eq!(parts.len(), 0);
        assert!(parts.held.len() <= 6, "places are used again");
    }
}
