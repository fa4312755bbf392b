//! The screen: what is shown at each instant, and the sums over the time it is played.
//!
//! Stands between `walk::picture`, which writes down each change of what is shown, and `pieces`, which
//! plays the stretches of a session over those changes in order of time.
//!
//! Invariant: all sums are of whole numbers, so a session cut in two adds up to the same.
//! Invariant: what is not known takes part neither in a sum nor in the time it is weighted by.

use serde::{Deserialize, Serialize};

/// One, in millionths.
pub const ONE_PPM: i64 = 1_000_000;

/// Bitrates of what is shown, or of what is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rendition {
    /// Video and audio together.
    pub total_bps: Option<i64>,
    pub video_bps: Option<i64>,
    pub audio_bps: Option<i64>,
}

impl Rendition {
    /// What a switch is judged by: the video, or the whole where the sender does not tell them apart.
    fn picture_bps(&self) -> Option<i64> {
        self.video_bps.or(self.total_bps)
    }
}

/// Whether a session's bitrates are those on the screen or those asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitrateBasis {
    Shown,
    Requested,
}

impl BitrateBasis {
    pub fn as_str(self) -> &'static str {
        match self {
            BitrateBasis::Shown => "shown",
            BitrateBasis::Requested => "requested",
        }
    }
}

/// What is shown from an instant on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub from_ms: i64,
    /// Playback rate in millionths, so that sums are exact.
    pub rate_ppm: i64,
    pub shown: Rendition,
    pub requested: Rendition,
    /// Lowest and highest bitrate of the ladder.
    pub ladder_bps: Option<(i64, i64)>,
    pub height_px: Option<i64>,
    pub viewport_height_px: Option<i64>,
    /// Frames a second, in thousandths.
    pub fps_milli: Option<i64>,
    /// First of a content or after an advertisement: another bitrate than before is no switch.
    pub is_fresh: bool,
}

impl Shown {
    pub fn at(from_ms: i64) -> Self {
        Self {
            from_ms,
            rate_ppm: ONE_PPM,
            shown: Rendition::default(),
            requested: Rendition::default(),
            ladder_bps: None,
            height_px: None,
            viewport_height_px: None,
            fps_milli: None,
            is_fresh: false,
        }
    }

    pub fn rendition(&self, basis: BitrateBasis) -> Rendition {
        match basis {
            BitrateBasis::Shown => self.shown,
            BitrateBasis::Requested => self.requested,
        }
    }

    /// ln(bitrate / low) / ln(top / low) in millionths, 0 to one.
    fn quality_ppm(&self, bitrate_bps: i64) -> Option<i64> {
        let (low_bps, top_bps) = self.ladder_bps.filter(|(low, top)| low < top)?;
        let of_low = |bps: i64| (bps as f64 / low_bps as f64).ln();
        let quality = (of_low(bitrate_bps) / of_low(top_bps)).clamp(0.0, 1.0);
        Some((quality * ONE_PPM as f64).round() as i64)
    }

    fn quality_of(&self, basis: BitrateBasis) -> Option<i64> {
        let bitrate_bps = self.rendition(basis).total_bps;
        bitrate_bps.and_then(|bps| self.quality_ppm(bps))
    }

    fn upscale_ppm(&self) -> Option<i64> {
        let (height, viewport) = (self.height_px?, self.viewport_height_px?);
        Some(((viewport - height) * ONE_PPM / height).max(0))
    }
}

/// Changes of the picture as numbers: each as what differs from the one before.
pub mod packed_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Rendition, Shown};
    use crate::session::packed::{Reader, Writer};

    /// Every value of an entry, the time as the time since the entry before.
    fn values(shown: &Shown, last_ms: i64) -> [Option<i64>; 14] {
        let (low_bps, top_bps) = shown.ladder_bps.unzip();
        [
            Some(shown.from_ms.wrapping_sub(last_ms)),
            Some(shown.rate_ppm),
            shown.shown.total_bps,
            shown.shown.video_bps,
            shown.shown.audio_bps,
            shown.requested.total_bps,
            shown.requested.video_bps,
            shown.requested.audio_bps,
            low_bps,
            top_bps,
            shown.height_px,
            shown.viewport_height_px,
            shown.fps_milli,
            shown.is_fresh.then_some(1),
        ]
    }

    fn shown_of(values: [Option<i64>; 14], last_ms: i64) -> Shown {
        let [
            from_ms,
            rate_ppm,
            total,
            video,
            audio,
            req_total,
            req_video,
            req_audio,
            low,
            top,
            height_px,
            viewport_height_px,
            fps_milli,
            fresh,
        ] = values;
        Shown {
            from_ms: from_ms.unwrap_or(0).wrapping_add(last_ms),
            rate_ppm: rate_ppm.unwrap_or(0),
            shown: Rendition {
                total_bps: total,
                video_bps: video,
                audio_bps: audio,
            },
            requested: Rendition {
                total_bps: req_total,
                video_bps: req_video,
                audio_bps: req_audio,
            },
            ladder_bps: low.zip(top),
            height_px,
            viewport_height_px,
            fps_milli,
            is_fresh: fresh.is_some(),
        }
    }

    pub fn serialize<S: Serializer>(list: &[Shown], serializer: S) -> Result<S::Ok, S::Error> {
        let mut writer = Writer::default();
        let (mut before, mut last_ms) = ([None; 14], 0);
        for shown in list {
            let now = values(shown, last_ms);
            last_ms = shown.from_ms;
            let differs = |at: &usize| now[*at] != before[*at];
            let changed = (0..now.len()).filter(differs).fold(0, |bits, at| bits | 1 << at);
            writer.number(changed);
            let known = (0..now.len()).filter(|at| now[*at].is_some()).fold(0, |bits, at| bits | 1 << at);
            writer.number(known & changed);
            for value in (0..now.len()).filter(differs).filter_map(|at| now[at]) {
                writer.signed(value);
            }
            before = now;
        }
        writer.bytes.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Shown>, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let mut reader = Reader { rest: &bytes };
        let mut list = Vec::new();
        let (mut values, mut last_ms) = ([None; 14], 0);
        while !reader.rest.is_empty() {
            let (changed, known) = (reader.number(), reader.number());
            for (at, value) in values.iter_mut().enumerate().filter(|(at, _)| changed >> at & 1 == 1) {
                *value = (known >> at & 1 == 1).then(|| reader.signed());
            }
            let shown = shown_of(values, last_ms);
            last_ms = shown.from_ms;
            list.push(shown);
        }
        Ok(list)
    }
}

/// One such entry.
pub mod packed_one {
    use serde::{Deserializer, Serializer};

    use super::{Shown, packed_list};

    pub fn serialize<S: Serializer>(shown: &Shown, serializer: S) -> Result<S::Ok, S::Error> {
        packed_list::serialize(std::slice::from_ref(shown), serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Shown, D::Error> {
        Ok(packed_list::deserialize(deserializer)?.pop().unwrap_or(Shown::at(0)))
    }
}

/// What one piece of playing showed: the columns of `PlaybackInterval` of these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Played {
    pub media_ms: i64,
    pub shown_bits: i64,
    pub bitrate_known_ms: i64,
    pub shown_wall_bits: i64,
    pub bitrate_known_wall_ms: i64,
    pub height_px_ms: i64,
    pub height_known_ms: i64,
    pub switches_up: i64,
    pub switches_down: i64,
}

/// What a session's playing showed that is in no interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScreenTotals {
    pub audio_switches: i64,
    pub upscale_ppm_ms: i64,
    pub upscale_known_ms: i64,
    /// Frames due, in millionths.
    frames_ppm: i128,
    quality_ppm_ms: i128,
    quality_known_ms: i64,
}

impl ScreenTotals {
    pub fn expected_frames(&self) -> i64 {
        round_half_up(self.frames_ppm, ONE_PPM)
    }

    pub fn picture_quality(&self) -> Option<f64> {
        let known_ppm_ms = i128::from(self.quality_known_ms) * i128::from(ONE_PPM);
        (known_ppm_ms > 0).then(|| self.quality_ppm_ms as f64 / known_ppm_ms as f64)
    }
}

/// How far a screen has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    #[serde(with = "packed_one")]
    pub now: Shown,
    /// What was last played.
    last: Rendition,
    totals: ScreenTotals,
}

/// What is shown now, and what will be.
pub struct Screen<'a> {
    next: &'a [Shown],
    basis: BitrateBasis,
    so_far: Progress,
    quality_ppm: Option<i64>,
}

impl<'a> Screen<'a> {
    /// `shown` ascends by time; `so_far` is what came before it.
    pub fn new(so_far: Option<Progress>, shown: &'a [Shown], basis: BitrateBasis) -> Self {
        let nothing = Progress {
            now: Shown::at(i64::MIN),
            last: Rendition::default(),
            totals: ScreenTotals::default(),
        };
        let so_far = so_far.unwrap_or(nothing);
        Self {
            next: shown,
            basis,
            so_far,
            quality_ppm: so_far.now.quality_of(basis),
        }
    }

    pub fn totals(&self) -> ScreenTotals {
        self.so_far.totals
    }

    /// Goes on to `now_ms`, at or after every instant played; returns how far it came and what is to come.
    pub fn leave_at(mut self, now_ms: i64) -> (Progress, &'a [Shown]) {
        while let [next, rest @ ..] = self.next
            && next.from_ms <= now_ms
        {
            self.turn_to(*next);
            self.next = rest;
        }
        (self.so_far, self.next)
    }

    /// What was played from one instant to another, at or after every instant asked for before.
    pub fn play(&mut self, mut from_ms: i64, end_ms: i64) -> Played {
        let mut sums = Sums::default();
        while let [next, rest @ ..] = self.next
            && next.from_ms < end_ms
        {
            self.add(next.from_ms - from_ms, &mut sums);
            from_ms = from_ms.max(next.from_ms);
            self.turn_to(*next);
            self.next = rest;
        }
        self.add(end_ms - from_ms, &mut sums);
        sums.played()
    }

    fn turn_to(&mut self, next: Shown) {
        if next.is_fresh {
            self.so_far.last = Rendition::default();
        }
        self.so_far.now = next;
        self.quality_ppm = next.quality_of(self.basis);
    }

    fn add(&mut self, length_ms: i64, sums: &mut Sums) {
        if length_ms <= 0 {
            return;
        }
        let rendition = self.so_far.now.rendition(self.basis);
        self.count_switches(rendition, sums);
        let time = i128::from(length_ms * self.so_far.now.rate_ppm);
        sums.time += time;
        if let Some(bitrate_bps) = rendition.total_bps {
            let bitrate_bps = i128::from(bitrate_bps);
            sums.known_time += time;
            sums.bits += time * bitrate_bps;
            sums.wall_bits += i128::from(length_ms) * bitrate_bps;
            sums.played.bitrate_known_wall_ms += length_ms;
        }
        if let Some(height_px) = self.so_far.now.height_px {
            sums.played.height_px_ms += height_px * length_ms;
            sums.played.height_known_ms += length_ms;
        }
        self.add_totals(length_ms);
    }

    fn add_totals(&mut self, length_ms: i64) {
        let totals = &mut self.so_far.totals;
        if let Some(upscale_ppm) = self.so_far.now.upscale_ppm() {
            totals.upscale_ppm_ms = totals.upscale_ppm_ms.saturating_add(upscale_ppm.saturating_mul(length_ms));
            totals.upscale_known_ms += length_ms;
        }
        if let Some(fps_milli) = self.so_far.now.fps_milli {
            totals.frames_ppm += i128::from(fps_milli) * i128::from(length_ms);
        }
        if let Some(quality_ppm) = self.quality_ppm {
            totals.quality_ppm_ms += i128::from(quality_ppm) * i128::from(length_ms);
            totals.quality_known_ms += length_ms;
        }
    }

    /// A switch is counted once the other bitrate is really played.
    fn count_switches(&mut self, now: Rendition, sums: &mut Sums) {
        if now == self.so_far.last {
            return;
        }
        if let (Some(old), Some(new)) = (self.so_far.last.picture_bps(), now.picture_bps()) {
            sums.played.switches_up += i64::from(new > old);
            sums.played.switches_down += i64::from(new < old);
        }
        if let (Some(old), Some(new)) = (self.so_far.last.audio_bps, now.audio_bps) {
            self.so_far.totals.audio_switches += i64::from(new != old);
        }
        self.so_far.last = now;
    }
}

/// Exact sums of one piece: time in ms x millionths of the rate, bits in bit/s x that.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    time: i128,
    known_time: i128,
    bits: i128,
    /// In bit/s x ms.
    wall_bits: i128,
    played: Played,
}

impl Sums {
    fn played(self) -> Played {
        Played {
            media_ms: round_half_up(self.time, ONE_PPM),
            shown_bits: round_half_up(self.bits, ONE_PPM * 1_000),
            bitrate_known_ms: round_half_up(self.known_time, ONE_PPM),
            shown_wall_bits: round_half_up(self.wall_bits, 1_000),
            ..self.played
        }
    }
}

fn round_half_up(sum: i128, unit: i64) -> i64 {
    // Dividing wide numbers takes ten times as long, and few sums are wide.
    if let Some(sum) = i64::try_from(sum).ok().and_then(|sum| sum.checked_add(unit / 2)) {
        return sum / unit;
    }
    let unit = i128::from(unit);
    ((sum + unit / 2) / unit) as i64
}
