//! Who watches what, where and on which device.
//!
//! Invariant: a viewer is the same in every session; viewer 17 does not depend on viewer 16.

use super::incident::RELEASE_HIT;
use super::random::Random;
use super::world::{DEVICES, Device, Isp, World};

/// A viewer, the same in every session.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// Cognito's form, `region:uuid`.
    pub user_id: String,
    pub client_ip: String,
    pub isp: &'static Isp,
    pub edge_location: &'static str,
    pub device: &'static Device,
    pub app_version: &'static str,
    pub connection_type: &'static str,
    /// Index into `World::titles` of what this viewer came for.
    pub title: usize,
}

const APP_VERSIONS: [&str; 3] = ["5.1.0", "5.2.0", RELEASE_HIT];
const APP_VERSION_SHARES: [u32; 3] = [25, 45, 30];

/// Stream of random numbers that viewers are drawn from.
const VIEWERS: u64 = 1;

impl Viewer {
    pub fn draw(world: &'static World, seed: u64, viewer: u32) -> Viewer {
        let mut random = Random::of(seed, VIEWERS, u64::from(viewer));
        let isp = world.draw_isp(&mut random);
        let device = &DEVICES[random.weighted(&DEVICES.each_ref().map(|device| device.share))];
        let choices = device.connection_types;
        let title = world.draw_title(&mut random);
        Viewer {
            user_id: user_id(&mut random),
            client_ip: client_ip(isp.network, &mut random),
            isp,
            edge_location: isp.edge_locations[random.weighted(&[60, 40])],
            device,
            app_version: APP_VERSIONS[random.weighted(&APP_VERSION_SHARES)],
            connection_type: choices[random.below(choices.len() as u32) as usize],
            title,
        }
    }
}

/// A version 4 UUID behind a region.
fn user_id(random: &mut Random) -> String {
    let (high, low) = (random.next(), random.next());
    format!(
        "us-west-2:{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0x0fff,
        0x8000 | (low >> 48) & 0x3fff,
        low & 0xffff_ffff_ffff,
    )
}

fn client_ip(network: &str, random: &mut Random) -> String {
    match network.contains(':') {
        true => format!("{network}{:x}::{:x}", random.between(1, 0x1_0000), random.between(1, 0x1_0000)),
        false => format!("{network}{}", random.between(1, 255)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    use super::super::incident::DEVICE_HIT;

    #[test]
    fn viewers_live_at_documentation_addresses() {
        for viewer in 0..1_000 {
            let world = if viewer < 500 { World::plain() } else { World::lifelike() };
            let viewer = Viewer::draw(world, 7, viewer);
            let is_reserved = match viewer.client_ip.parse().expect("an address") {
                IpAddr::V4(ip) => ip.is_documentation(),
                IpAddr::V6(ip) => ip.segments()[..2] == [0x2001, 0x0db8],
            };
            assert!(is_reserved, "{}", viewer.client_ip);
            assert_eq!(viewer.user_id.len(), "us-west-2:".len() + 36);
        }
    }

    #[test]
    fn the_release_that_fails_is_used_on_its_device() {
        assert!(APP_VERSIONS.contains(&RELEASE_HIT));
        assert!(DEVICES.iter().any(|device| device.device_type == DEVICE_HIT));
    }
}
