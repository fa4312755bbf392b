//! The worlds that an audience can live in: its ISPs, devices, titles and ladder.
//!
//! The plain world is small and every ISP in it is as good as the next: seeds of tests and benchmarks mean
//! that one. The lifelike one has more of everything, each with its own behaviour, and titles that are
//! watched by Zipf's law.
//!
//! Invariant: all names are invented and all addresses are reserved for documentation.

use std::sync::LazyLock;

use super::incident::{ISP_HIT, TITLE_HIT};
use super::random::Random;

/// Where an audience lives.
#[derive(Debug)]
pub struct World {
    pub isps: Vec<Isp>,
    /// The most watched first.
    pub titles: Vec<Title>,
    /// How often each title is chosen; none: the lower of two even draws.
    title_weights: Option<Vec<u32>>,
    pub is_lifelike: bool,
}

#[derive(Debug)]
pub struct Isp {
    pub name: &'static str,
    pub country: &'static str,
    pub edge_locations: [&'static str; 2],
    /// What its customers' addresses start with.
    pub network: &'static str,
    pub share: u32,
    /// Segments that stall without any incident, of a thousand.
    pub stall_per_mille: u32,
    /// What its customers wait for a start more than others, ms; may be less.
    pub startup_more_ms: i32,
}

#[derive(Debug)]
pub struct Device {
    pub device_type: &'static str,
    pub app_name: &'static str,
    /// Percent-encoded twice, as CloudFront logs it.
    pub user_agent: &'static str,
    /// What its players need for a start beyond the fastest, ms.
    pub startup_more_ms: u32,
    pub connection_types: &'static [&'static str],
    pub share: u32,
}

#[derive(Debug)]
pub struct Title {
    pub video_id: String,
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

/// Segments that stall without any incident, of a thousand, where the ISP says nothing else.
pub const STALL_PER_MILLE: u32 = 4;

/// Series of the lifelike world, and how many episodes each has.
const SERIES: [&str; 8] = [
    "salt-and-timber",
    "the-night-desk",
    "orchard-road",
    "low-tide",
    "second-platform",
    "kilometre-nine",
    "ash-valley",
    "the-understudy",
];
const EPISODES: u32 = 8;
/// The weight of the most watched title; that of rank n is an n-th of it.
const ZIPF_TOP: u32 = 100_000;

static PLAIN: LazyLock<World> = LazyLock::new(|| World {
    isps: plain_isps(),
    titles: titles(),
    title_weights: None,
    is_lifelike: false,
});

static LIFELIKE: LazyLock<World> = LazyLock::new(|| {
    let mut titles = titles();
    for (index, series) in SERIES.iter().enumerate() {
        let episode = |number| {
            let length_cs = 120_000 + 31_000 * (index as u32) + 700 * number;
            vod(&format!("{series}-e{number:02}"), length_cs, "25.000")
        };
        titles.extend((1..=EPISODES).map(episode));
    }
    let weights = (1..=titles.len() as u32).map(|rank| ZIPF_TOP / rank).collect();
    World {
        isps: lifelike_isps(),
        titles,
        title_weights: Some(weights),
        is_lifelike: true,
    }
});

impl World {
    pub fn plain() -> &'static World {
        &PLAIN
    }

    pub fn lifelike() -> &'static World {
        &LIFELIKE
    }

    pub fn draw_isp(&self, random: &mut Random) -> &Isp {
        let shares: Vec<u32> = self.isps.iter().map(|isp| isp.share).collect();
        &self.isps[random.weighted(&shares)]
    }

    /// Index into `titles` of what a viewer comes for.
    pub fn draw_title(&self, random: &mut Random) -> usize {
        match &self.title_weights {
            Some(weights) => random.weighted(weights),
            None => {
                let titles = self.titles.len() as u32;
                random.below(titles).min(random.below(titles)) as usize
            }
        }
    }
}

const fn isp(name: &'static str, country: &'static str, edge_locations: [&'static str; 2], network: &'static str, share: u32) -> Isp {
    Isp {
        name,
        country,
        edge_locations,
        network,
        share,
        stall_per_mille: STALL_PER_MILLE,
        startup_more_ms: 0,
    }
}

impl Isp {
    const fn behaving(self, stall_per_mille: u32, startup_more_ms: i32) -> Isp {
        Isp {
            stall_per_mille,
            startup_more_ms,
            ..self
        }
    }
}

const US: [&str; 2] = ["IAD89-C1", "LAX50-P2"];
const DE: [&str; 2] = ["FRA56-P4", "MUC50-C1"];
const BR: [&str; 2] = ["GRU3-P1", "GIG51-C2"];
const ES: [&str; 2] = ["MAD51-C1", "BCN50-P1"];

fn plain_isps() -> Vec<Isp> {
    vec![
        isp("Example Cable", "US", US, "203.0.113.", 30),
        isp("Example Fiber", "US", US, "2001:db8:1:", 25),
        isp("Beispielnetz", "DE", DE, "198.51.100.", 20),
        isp(ISP_HIT, "DE", DE, "2001:db8:2:", 15),
        isp("Exemplo Telecom", "BR", BR, "2001:db8:3:", 10),
    ]
}

/// Countries with several ISPs, so that one can be compared with its peers.
fn lifelike_isps() -> Vec<Isp> {
    vec![
        isp("Example Cable", "US", US, "203.0.113.", 18).behaving(4, 0),
        isp("Example Fiber", "US", US, "2001:db8:1:", 13).behaving(2, -60),
        isp("Sample Wireless", "US", US, "2001:db8:4:", 9).behaving(7, 180),
        isp("Placeholder DSL", "US", US, "2001:db8:5:", 6).behaving(6, 120),
        isp("Beispielnetz", "DE", DE, "198.51.100.", 10).behaving(3, 0),
        isp(ISP_HIT, "DE", DE, "2001:db8:2:", 11).behaving(4, 20),
        isp("Probefunk", "DE", DE, "2001:db8:6:", 6).behaving(6, 160),
        isp("Vorlage DSL", "DE", DE, "2001:db8:7:", 6).behaving(5, 110),
        isp("Exemplo Telecom", "BR", BR, "2001:db8:3:", 8).behaving(6, 140),
        isp("Modelo Fibra", "BR", BR, "2001:db8:8:", 5).behaving(4, 60),
        isp("Ejemplo Fibra", "ES", ES, "192.0.2.", 5).behaving(3, 10),
        isp("Muestra Cable", "ES", ES, "2001:db8:9:", 3).behaving(5, 80),
    ]
}

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

/// What both worlds watch, the most watched first.
fn titles() -> Vec<Title> {
    vec![
        vod("harbour-lights-e01", 259_648, "25.000"),
        live("news-live", "LIVE", None),
        vod(TITLE_HIT, 261_204, "25.000"),
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
    ]
}

fn vod(video_id: &str, duration_cs: u32, fps: &'static str) -> Title {
    Title {
        video_id: video_id.to_owned(),
        playlist_type: "VOD",
        duration_cs: Some(duration_cs),
        fps: Some(fps),
    }
}

fn live(video_id: &str, playlist_type: &'static str, fps: Option<&'static str>) -> Title {
    Title {
        video_id: video_id.to_owned(),
        playlist_type,
        duration_cs: None,
        fps,
    }
}

#[cfg(test)]
mod tests {
    use super::super::incident::POP_HIT;
    use super::*;

    #[test]
    fn whom_the_incidents_hit_is_in_both_worlds() {
        for world in [World::plain(), World::lifelike()] {
            assert!(world.isps.iter().any(|isp| isp.name == ISP_HIT));
            let mut edges = world.isps.iter().flat_map(|isp| isp.edge_locations);
            assert!(edges.any(|edge| edge.starts_with(POP_HIT)));
            assert!(world.titles.iter().any(|title| title.video_id == TITLE_HIT));
        }
    }

    #[test]
    fn titles_of_the_lifelike_world_follow_zipf() {
        let world = World::lifelike();
        let mut random = Random::of(1, 1, 1);
        let mut counts = vec![0u32; world.titles.len()];
        (0..100_000).for_each(|_| counts[world.draw_title(&mut random)] += 1);
        for rank in [2, 4, 10] {
            let times = f64::from(counts[0]) / f64::from(counts[rank - 1]);
            assert!((times / rank as f64 - 1.0).abs() < 0.15, "rank {rank}: {times}");
        }
    }
}
