//! What can be planted into a simulation: five kinds of trouble, whom each hits, and how hard.
//!
//! Invariant: whom an incident hits is said in the columns and values of the tables.

use serde::Serialize;

use super::audience::Viewer;
use super::minutes::{Cdn, Minutes, Playback};
use super::world::{STALL_PER_MILLE, Title};

/// The ISP that congests.
pub const ISP_HIT: &str = "Musterkabel";
/// The release that fails, and the kind of device that it fails on.
pub const RELEASE_HIT: &str = "5.3.0";
pub const DEVICE_HIT: &str = "tv";
/// The POP that slows: the first letters of its edge locations.
pub const POP_HIT: &str = "GRU";
/// The title that is broken.
pub const TITLE_HIT: &str = "harbour-lights-e02";

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Viewers of one ISP stall.
    IspStalls,
    /// One release fails to start on one kind of device.
    AppStartFailures,
    /// One POP of the CDN answers late.
    CdnSlowFirstByte,
    /// One title fails to start: its first segments are gone.
    TitleBroken,
    /// The origin answers 503 and 504 to what no edge holds.
    OriginMelts,
}

/// Trouble of a kind, for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planted {
    pub fault: Fault,
    pub from_ms: i64,
    /// Exclusive.
    pub to_ms: i64,
    /// How hard, of a thousand: attempts or segments hit; how much later the first byte comes.
    pub per_mille: u32,
}

/// One planted incident and what it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incident {
    pub name: &'static str,
    /// One sentence for people.
    pub what: String,
    /// The dimension values that explain it, as (column, value); none: it hits everybody.
    pub segment: Vec<(&'static str, &'static str)>,
    pub from_ms: i64,
    /// Exclusive.
    pub to_ms: i64,
    /// Stalls, failed starts or slow or failed responses that this incident caused.
    pub effects: u64,
    /// The gold table in which it is seen.
    pub table: &'static str,
    /// What that table has to show of the segment, minute by minute of the whole span.
    pub minutes: SegmentMinutes,
}

/// Numbers of a segment, by start of the minute, epoch ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum SegmentMinutes {
    Playback(Minutes<Playback>),
    Cdn(Minutes<Cdn>),
}

impl Fault {
    pub const ALL: [Fault; 5] = [
        Fault::IspStalls,
        Fault::AppStartFailures,
        Fault::CdnSlowFirstByte,
        Fault::TitleBroken,
        Fault::OriginMelts,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fault::IspStalls => "isp_stalls",
            Fault::AppStartFailures => "app_start_failures",
            Fault::CdnSlowFirstByte => "cdn_slow_first_byte",
            Fault::TitleBroken => "title_broken",
            Fault::OriginMelts => "origin_melts",
        }
    }

    pub fn named(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Hard enough to be seen by whoever looks.
    fn plain_per_mille(self) -> u32 {
        match self {
            Fault::IspStalls => 120,
            Fault::AppStartFailures => 700,
            Fault::CdnSlowFirstByte => 15_000,
            Fault::TitleBroken => 800,
            Fault::OriginMelts => 400,
        }
    }

    /// It is seen in the CDN's numbers, not in the players'.
    fn is_of_cdn(self) -> bool {
        matches!(self, Fault::CdnSlowFirstByte | Fault::OriginMelts)
    }

    /// True for whoever is in the segment that it hits, whether it is going on or not.
    pub fn hits(self, viewer: &Viewer, title: &Title) -> bool {
        match self {
            Fault::IspStalls => viewer.isp.name == ISP_HIT,
            Fault::AppStartFailures => viewer.app_version == RELEASE_HIT && viewer.device.device_type == DEVICE_HIT,
            Fault::CdnSlowFirstByte => viewer.edge_location.starts_with(POP_HIT),
            Fault::TitleBroken => title.video_id == TITLE_HIT,
            Fault::OriginMelts => true,
        }
    }

    fn segment(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Fault::IspStalls => vec![("isp", ISP_HIT)],
            Fault::AppStartFailures => vec![("app_version", RELEASE_HIT), ("device_type", DEVICE_HIT)],
            Fault::CdnSlowFirstByte => vec![("pop", POP_HIT)],
            Fault::TitleBroken => vec![("content_id", TITLE_HIT)],
            Fault::OriginMelts => Vec::new(),
        }
    }
}

impl Planted {
    pub fn new(fault: Fault, from_ms: i64, to_ms: i64) -> Planted {
        Planted {
            fault,
            from_ms,
            to_ms,
            per_mille: fault.plain_per_mille(),
        }
    }

    /// The three at once, so mild that they have to be looked for.
    pub fn three(from_ms: i64, to_ms: i64) -> Vec<Planted> {
        let mild = [
            (Fault::IspStalls, 120),
            (Fault::AppStartFailures, 120),
            (Fault::CdnSlowFirstByte, 400),
        ];
        let planted = mild.map(|(fault, per_mille)| Planted {
            per_mille,
            ..Planted::new(fault, from_ms, to_ms)
        });
        planted.into()
    }

    pub fn is_at(&self, fault: Fault, time_ms: i64) -> bool {
        self.fault == fault && (self.from_ms..self.to_ms).contains(&time_ms)
    }

    pub(super) fn incident(&self) -> Incident {
        Incident {
            name: self.fault.name(),
            what: self.sentence(),
            segment: self.fault.segment(),
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            effects: 0,
            table: if self.fault.is_of_cdn() {
                "gold.cdn_1m"
            } else {
                "gold.playback_1m"
            },
            minutes: match self.fault.is_of_cdn() {
                true => SegmentMinutes::Cdn(Minutes::new()),
                false => SegmentMinutes::Playback(Minutes::new()),
            },
        }
    }

    /// What is wrong, for people.
    pub fn sentence(&self) -> String {
        let percent = self.per_mille / 10;
        match self.fault {
            Fault::IspStalls => format!(
                "viewers of {ISP_HIT} stall at {percent} % of their segments instead of {} %",
                f64::from(STALL_PER_MILLE) / 10.0
            ),
            Fault::AppStartFailures => {
                format!("version {RELEASE_HIT} on {DEVICE_HIT} fails to start in {percent} % of the attempts")
            }
            Fault::CdnSlowFirstByte => format!("the first byte from {POP_HIT} comes {percent} % later"),
            Fault::TitleBroken => format!("{TITLE_HIT} fails to start in {percent} % of the attempts, its segments answer 404"),
            Fault::OriginMelts => format!("the origin answers 503 or 504 to {percent} % of what the edges ask it for"),
        }
    }
}
