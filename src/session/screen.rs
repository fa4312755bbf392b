//! The screen: what is shown at each instant, and the sums over the time it is played.
//!
//! Stands between `walk::picture`, which writes down each change of what is shown, and `pieces`, which
//! plays the stretches of a session over those changes in order of time.
//!
//! Invariant: all sums are of whole numbers, so a session cut in two adds up to the same.
//! Invariant: what is not known takes part neither in a sum nor in the time it is weighted by.

/// One, in millionths.
pub const ONE_PPM: i64 = 1_000_000;

/// Bitrates of what is shown, or of what is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

    fn upscale_ppm(&self) -> Option<i64> {
        let (height, viewport) = (self.height_px?, self.viewport_height_px?);
        Some(((viewport - height) * ONE_PPM / height).max(0))
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

/// What is shown now, and what will be.
pub struct Screen<'a> {
    next: &'a [Shown],
    basis: BitrateBasis,
    now: Shown,
    quality_ppm: Option<i64>,
    /// What was last played.
    last: Rendition,
    totals: ScreenTotals,
}

impl<'a> Screen<'a> {
    /// `shown` ascends by time.
    pub fn new(shown: &'a [Shown], basis: BitrateBasis) -> Self {
        Self {
            next: shown,
            basis,
            now: Shown::at(i64::MIN),
            quality_ppm: None,
            last: Rendition::default(),
            totals: ScreenTotals::default(),
        }
    }

    pub fn totals(&self) -> ScreenTotals {
        self.totals
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
            self.last = Rendition::default();
        }
        self.now = next;
        let bitrate_bps = next.rendition(self.basis).total_bps;
        self.quality_ppm = bitrate_bps.and_then(|bps| next.quality_ppm(bps));
    }

    fn add(&mut self, length_ms: i64, sums: &mut Sums) {
        if length_ms <= 0 {
            return;
        }
        let rendition = self.now.rendition(self.basis);
        self.count_switches(rendition, sums);
        let time = i128::from(length_ms * self.now.rate_ppm);
        sums.time += time;
        if let Some(bitrate_bps) = rendition.total_bps {
            let bitrate_bps = i128::from(bitrate_bps);
            sums.known_time += time;
            sums.bits += time * bitrate_bps;
            sums.wall_bits += i128::from(length_ms) * bitrate_bps;
            sums.played.bitrate_known_wall_ms += length_ms;
        }
        if let Some(height_px) = self.now.height_px {
            sums.played.height_px_ms += height_px * length_ms;
            sums.played.height_known_ms += length_ms;
        }
        self.add_totals(length_ms);
    }

    fn add_totals(&mut self, length_ms: i64) {
        let totals = &mut self.totals;
        if let Some(upscale_ppm) = self.now.upscale_ppm() {
            totals.upscale_ppm_ms = totals.upscale_ppm_ms.saturating_add(upscale_ppm.saturating_mul(length_ms));
            totals.upscale_known_ms += length_ms;
        }
        if let Some(fps_milli) = self.now.fps_milli {
            totals.frames_ppm += i128::from(fps_milli) * i128::from(length_ms);
        }
        if let Some(quality_ppm) = self.quality_ppm {
            totals.quality_ppm_ms += i128::from(quality_ppm) * i128::from(length_ms);
            totals.quality_known_ms += length_ms;
        }
    }

    /// A switch is counted once the other bitrate is really played.
    fn count_switches(&mut self, now: Rendition, sums: &mut Sums) {
        if now == self.last {
            return;
        }
        if let (Some(old), Some(new)) = (self.last.picture_bps(), now.picture_bps()) {
            sums.played.switches_up += i64::from(new > old);
            sums.played.switches_down += i64::from(new < old);
        }
        if let (Some(old), Some(new)) = (self.last.audio_bps, now.audio_bps) {
            self.totals.audio_switches += i64::from(new != old);
        }
        self.last = now;
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
    let unit = i128::from(unit);
    ((sum + unit / 2) / unit) as i64
}
