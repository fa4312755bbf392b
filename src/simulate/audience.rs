//! Who watches what, where and on which device; and which of them the incidents hit.
//!
//! Invariant: all names are invented and all addresses are reserved for documentation.

use super::random::Random;

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
    /// Index into `TITLES` of what this viewer came for.
    pub title: usize,
}

#[derive(Debug)]
pub struct Isp {
    pub name: &'static str,
    pub country: &'static str,
    pub edge_locations: [&'static str; 2],
    /// What its customers' addresses start with.
    network: &'static str,
    share: u32,
}

#[derive(Debug)]
pub struct Device {
    pub device_type: &'static str,
    pub app_name: &'static str,
    /// Percent-encoded twice, as CloudFront logs it.
    pub user_agent: &'static str,
    /// What its players need for a start beyond the fastest, ms.
    pub startup_more_ms: u32,
    connection_types: &'static [&'static str],
    share: u32,
}

#[derive(Debug)]
pub struct Title {
    pub video_id: &'static str,
    /// `VOD`, `EVENT` or `LIVE`.
    pub playlist_type: &'static str,
    /// Hundredths of a second; `None` for a live title.
    pub duration_cs: Option<u32>,
    /// As the manifest says; a manifest without it names no average bitrate either.
    pub fps: Option<&'static str>,
}

/// One rung of the bitrate ladder.
#[derive(Debug)]
pub struct Rung {
    pub bitrate_bps: u32,
    pub resolution: &'static str,
    pub height: u32,
}

pub struct IspFault {
    pub isp: &'static str,
    pub stall_per_mille: u32,
}

pub struct AppFault {
    pub app_version: &'static str,
    pub device_type: &'static str,
    pub failure_per_mille: u32,
}

pub struct CdnFault {
    /// First letters of the edge location.
    pub pop: &'static str,
    pub ttfb_more_percent: u32,
}

pub const ISP_FAULT: IspFault = IspFault {
    isp: "Musterkabel",
    stall_per_mille: 120,
};

pub const APP_FAULT: AppFault = AppFault {
    app_version: "5.3.0",
    device_type: "tv",
    failure_per_mille: 120,
};

pub const CDN_FAULT: CdnFault = CdnFault {
    pop: "GRU",
    ttfb_more_percent: 40,
};

pub const ISPS: [Isp; 5] = [
    Isp {
        name: "Example Cable",
        country: "US",
        edge_locations: ["IAD89-C1", "LAX50-P2"],
        network: "203.0.113.",
        share: 30,
    },
    Isp {
        name: "Example Fiber",
        country: "US",
        edge_locations: ["IAD89-C1", "LAX50-P2"],
        network: "2001:db8:1:",
        share: 25,
    },
    Isp {
        name: "Beispielnetz",
        country: "DE",
        edge_locations: ["FRA56-P4", "MUC50-C1"],
        network: "198.51.100.",
        share: 20,
    },
    Isp {
        name: "Musterkabel",
        country: "DE",
        edge_locations: ["FRA56-P4", "MUC50-C1"],
        network: "2001:db8:2:",
        share: 15,
    },
    Isp {
        name: "Exemplo Telecom",
        country: "BR",
        edge_locations: ["GRU3-P1", "GIG51-C2"],
        network: "2001:db8:3:",
        share: 10,
    },
];

pub const DEVICES: [Device; 4] = [
    Device {
        device_type: "desktop",
        app_name: "Example Web",
        user_agent: "Mozilla/5.0%2520(Macintosh;%2520Intel%2520Mac%2520OS%2520X%252010_15_7)%2520AppleWebKit/537.36%2520(KHTML,%2520like%2520Gecko)%2520Chrome/120.0.0.0%2520Safari/537.36",
        startup_more_ms: 0,
        connection_types: &["4g", "4g", "not available"],
        share: 35,
    },
    Device {
        device_type: "mobile",
        app_name: "Example Mobile",
        user_agent: "Mozilla/5.0%2520(Linux;%2520Android%252014;%2520Pixel%25208)%2520AppleWebKit/537.36%2520(KHTML,%2520like%2520Gecko)%2520Chrome/120.0.0.0%2520Mobile%2520Safari/537.36",
        startup_more_ms: 150,
        connection_types: &["4g", "4g", "4g", "wifi", "3g"],
        share: 35,
    },
    Device {
        device_type: "tablet",
        app_name: "Example Mobile",
        user_agent: "Mozilla/5.0%2520(iPad;%2520CPU%2520OS%252017_1%2520like%2520Mac%2520OS%2520X)%2520AppleWebKit/605.1.15%2520(KHTML,%2520like%2520Gecko)%2520Version/17.1%2520Mobile/15E148%2520Safari/604.1",
        startup_more_ms: 100,
        connection_types: &["wifi", "wifi", "4g"],
        share: 10,
    },
    Device {
        device_type: "tv",
        app_name: "Example TV",
        user_agent: "Mozilla/5.0%2520(SMART-TV;%2520Linux;%2520Tizen%25207.0)%2520AppleWebKit/537.36%2520(KHTML,%2520like%2520Gecko)%2520Version/7.0%2520TV%2520Safari/537.36",
        startup_more_ms: 500,
        connection_types: &["not available"],
        share: 20,
    },
];

const APP_VERSIONS: [&str; 3] = ["5.1.0", "5.2.0", "5.3.0"];
const APP_VERSION_SHARES: [u32; 3] = [25, 45, 30];

pub const RUNGS: [Rung; 5] = [
    Rung {
        bitrate_bps: 397_120,
        resolution: "416x234",
        height: 234,
    },
    Rung {
        bitrate_bps: 612_480,
        resolution: "640x360",
        height: 360,
    },
    Rung {
        bitrate_bps: 2_149_280,
        resolution: "1280x720",
        height: 720,
    },
    Rung {
        bitrate_bps: 4_799_824,
        resolution: "1920x1080",
        height: 1080,
    },
    Rung {
        bitrate_bps: 7_800_064,
        resolution: "2560x1440",
        height: 1440,
    },
];

/// The most watched first.
pub const TITLES: [Title; 20] = [
    vod("harbour-lights-e01", 259_648, "25.000"),
    live("news-live", "LIVE", None),
    vod("harbour-lights-e02", 261_204, "25.000"),
    vod("TheLongPass", 59_648, "29.970"),
    live("cup-final", "EVENT", Some("50.000")),
    vod("quick-bites-14", 5_872, "29.970"),
    vod("quick-bites-15", 6_120, "29.970"),
    vod("MountainRailway", 73_417, "24.000"),
    vod("north-by-ferry", 541_000, "24.000"),
    vod("trailer-autumn", 4_533, "23.976"),
    live("city-cam", "LIVE", Some("25.000")),
    vod("TwoKitchens", 142_250, "25.000"),
    vod("glasshouse", 610_090, "24.000"),
    vod("bedtime-badger", 31_210, "25.000"),
    vod("trailer-winter", 7_401, "23.976"),
    vod("OldTownWalks", 88_035, "29.970"),
    vod("derby-1998", 330_500, "25.000"),
    vod("quick-bites-01", 8_964, "29.970"),
    vod("paper-planes", 120_044, "24.000"),
    vod("test-pattern", 100_000, "59.940"),
];

const fn vod(video_id: &'static str, duration_cs: u32, fps: &'static str) -> Title {
    Title {
        video_id,
        playlist_type: "VOD",
        duration_cs: Some(duration_cs),
        fps: Some(fps),
    }
}

const fn live(video_id: &'static str, playlist_type: &'static str, fps: Option<&'static str>) -> Title {
    Title {
        video_id,
        playlist_type,
        duration_cs: None,
        fps,
    }
}

/// Stream of random numbers that viewers are drawn from.
const VIEWERS: u64 = 1;

impl Viewer {
    pub fn draw(seed: u64, viewer: u32) -> Viewer {
        let mut random = Random::of(seed, VIEWERS, u64::from(viewer));
        let isp = &ISPS[random.weighted(&ISPS.each_ref().map(|isp| isp.share))];
        let device = &DEVICES[random.weighted(&DEVICES.each_ref().map(|device| device.share))];
        let choices = device.connection_types;
        // The lower of two draws: the first titles are watched most.
        let titles = TITLES.len() as u32;
        let title = random.below(titles).min(random.below(titles));
        Viewer {
            user_id: user_id(&mut random),
            client_ip: client_ip(isp.network, &mut random),
            isp,
            edge_location: isp.edge_locations[random.weighted(&[60, 40])],
            device,
            app_version: APP_VERSIONS[random.weighted(&APP_VERSION_SHARES)],
            connection_type: choices[random.below(choices.len() as u32) as usize],
            title: title as usize,
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

    #[test]
    fn viewers_live_at_documentation_addresses() {
        for viewer in 0..500 {
            let viewer = Viewer::draw(7, viewer);
            let is_reserved = match viewer.client_ip.parse().expect("an address") {
                IpAddr::V4(ip) => ip.is_documentation(),
                IpAddr::V6(ip) => ip.segments()[..2] == [0x2001, 0x0db8],
            };
            assert!(is_reserved, "{}", viewer.client_ip);
            assert_eq!(viewer.user_id.len(), "us-west-2:".len() + 36);
        }
    }

    #[test]
    fn the_incidents_hit_someone() {
        assert!(ISPS.iter().any(|isp| isp.name == ISP_FAULT.isp));
        assert!(APP_VERSIONS.contains(&APP_FAULT.app_version));
        let devices = DEVICES.iter().map(|device| device.device_type);
        assert!(devices.into_iter().any(|name| name == APP_FAULT.device_type));
        let mut edges = ISPS.iter().flat_map(|isp| isp.edge_locations);
        assert!(edges.any(|edge| edge.starts_with(CDN_FAULT.pop)));
    }
}
