//! The picture: what events say of bitrates, ladder, size and speed, written down as changes.
//!
//! Stands beside `walk`, which shows it each event; `screen` plays the changes over the stretches.
//!
//! Invariant: an entry is added only when something differs from the one before.

use serde::{Deserialize, Serialize};

use crate::session::events::Kept;
use crate::session::outlook::is_snapshot;
use crate::session::packed::shift;
use crate::session::pieces::LOOK_BACK_MS;
use crate::session::screen::{BitrateBasis, ONE_PPM, Progress, Rendition, Screen, Shown, packed_list, packed_one};
use crate::session::{EventDetail, MediaDetail};

const BITRATE_MAX_BPS: i64 = 200_000_000;
/// Players offer up to 16 times the speed; more is not a rate.
const PLAYBACK_RATE_MAX: f64 = 16.0;
/// The largest screens have 8640 lines (16K).
const HEIGHT_MAX_PX: i64 = 8_640;
/// Above this, a frame rate is a count of something else.
const FPS_MAX: f64 = 1_000.0;

/// What an event changed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changed {
    /// Another bitrate or speed than was known before.
    pub switched: bool,
    /// Values that cannot be.
    pub anomalies: i64,
}

/// What is known of the picture so far.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Picture {
    /// What the screen showed before the list begins.
    so_far: Option<Progress>,
    #[serde(with = "packed_list")]
    list: Vec<Shown>,
    #[serde(with = "packed_one")]
    now: Shown,
    /// The detail that was last seen, and whether it was taken for what is shown: skips the most of
    /// events, and may be forgotten at any time.
    #[serde(skip)]
    said: Option<(u32, bool)>,
    /// The next bitrate is the first of a content, or the first after an advertisement.
    is_fresh: bool,
    first_shown_ms: Option<i64>,
    first_requested_ms: Option<i64>,
    start_shown_bps: Option<i64>,
    start_requested_bps: Option<i64>,
    low_bps: Option<i64>,
    top_bps: Option<i64>,
    top_playable_bps: Option<i64>,
}

impl Picture {
    pub fn new(started_at_ms: i64) -> Self {
        Self {
            so_far: None,
            list: Vec::new(),
            now: Shown::at(started_at_ms),
            said: None,
            is_fresh: false,
            first_shown_ms: None,
            first_requested_ms: None,
            start_shown_bps: None,
            start_requested_bps: None,
            low_bps: None,
            top_bps: None,
            top_playable_bps: None,
        }
    }

    /// Moves all times.
    pub fn shift(&mut self, by_ms: i64) {
        let so_far = self.so_far.iter_mut().map(|so_far| &mut so_far.now);
        for shown in self.list.iter_mut().chain(so_far).chain([&mut self.now]) {
            shown.from_ms = shown.from_ms.wrapping_add(by_ms);
        }
        shift(&mut self.first_shown_ms, by_ms);
        shift(&mut self.first_requested_ms, by_ms);
    }

    /// Forgets the changes that a screen has left behind.
    pub fn settle(&mut self, so_far: Progress, rest: usize) {
        self.so_far = Some(so_far);
        self.list.drain(..self.list.len() - rest);
    }

    /// Details have other places from now on.
    pub fn forget_details(&mut self) {
        self.said = None;
    }

    pub fn rate_ppm(&self) -> i64 {
        self.now.rate_ppm
    }

    /// The bitrates to come are those of another content, or of the same after an advertisement.
    pub fn expect_fresh(&mut self) {
        self.is_fresh = true;
    }

    /// The same detail again says nothing new.
    pub fn observe(&mut self, event: &Kept, detail: &EventDetail) -> Changed {
        let says = (event.detail, is_snapshot(event.kind, detail));
        if self.said == Some(says) {
            return Changed::default();
        }
        let changed = self.observe_new(event.event_ts_ms, detail, says.1);
        self.said = (changed.anomalies == 0).then_some(says);
        changed
    }

    /// `is_snapshot`: what is shown is what was shown at `now_ms`.
    fn observe_new(&mut self, now_ms: i64, detail: &EventDetail, is_snapshot: bool) -> Changed {
        let mut changed = Changed::default();
        let mut next = self.now;
        let media = detail.media.as_deref().copied().unwrap_or_default();
        self.observe_ladder(&mut next, &media, &mut changed);
        let requested = [detail.req_bitrate_bps, None, None];
        observe_rendition(&mut next.requested, requested.map(|bps| sane(bps, &mut changed)));
        if is_snapshot {
            let parts = [detail.bitrate_bps, media.bitrate_video_bps, media.bitrate_audio_bps];
            observe_rendition(&mut next.shown, parts.map(|bps| sane(bps, &mut changed)));
            observe_rate_and_size(&mut next, detail, media.viewport_height);
        }
        if next == self.now {
            return changed;
        }
        changed.switched = is_switch(&self.now, &next);
        self.note_first(now_ms, &next);
        let bitrates_of = |shown: &Shown| (shown.shown, shown.requested);
        next.is_fresh = self.is_fresh && bitrates_of(&next) != bitrates_of(&self.now);
        self.is_fresh &= !next.is_fresh;
        next.from_ms = now_ms;
        self.list.push(next);
        // Kept as the value to compare with; that it was fresh is no part of it.
        self.now = Shown { is_fresh: false, ..next };
        changed
    }

    fn observe_ladder(&mut self, next: &mut Shown, media: &MediaDetail, changed: &mut Changed) {
        let (low, top, playable) = (media.low_bitrate_bps, media.top_bitrate_bps, media.top_playable_bitrate_bps);
        if low.is_none() && top.is_none() && playable.is_none() {
            return;
        }
        let low_bps = sane(low, changed);
        self.low_bps = self.low_bps.into_iter().chain(low_bps).min();
        self.top_bps = self.top_bps.max(sane(top, changed));
        self.top_playable_bps = self.top_playable_bps.max(sane(playable, changed));
        next.ladder_bps = self.low_bps.zip(self.top_bitrate_bps());
    }

    fn note_first(&mut self, now_ms: i64, next: &Shown) {
        if next.shown.total_bps.is_some() {
            self.first_shown_ms.get_or_insert(now_ms);
        }
        if next.requested.total_bps.is_some() {
            self.first_requested_ms.get_or_insert(now_ms);
        }
    }

    /// Says that a frame is on the screen: the first bitrate from now on is that of the start.
    pub fn note_frame(&mut self) {
        self.start_shown_bps = self.start_shown_bps.or(self.now.shown.total_bps);
        self.start_requested_bps = self.start_requested_bps.or(self.now.requested.total_bps);
    }

    /// Highest bitrate that the player may choose, else the highest of the ladder.
    pub fn top_bitrate_bps(&self) -> Option<i64> {
        self.top_playable_bps.or(self.top_bps)
    }

    /// Requested bitrates stand in for those of a player that has said what it requests and within
    /// half an hour nothing of what it shows: later, no row would change any more.
    pub fn basis(&self) -> Option<BitrateBasis> {
        match (self.first_shown_ms, self.first_requested_ms) {
            (None, None) => None,
            (None, Some(_)) => Some(BitrateBasis::Requested),
            (Some(shown_ms), Some(requested_ms)) if shown_ms - requested_ms > LOOK_BACK_MS => Some(BitrateBasis::Requested),
            (Some(_), _) => Some(BitrateBasis::Shown),
        }
    }

    pub fn start_bitrate_bps(&self) -> Option<i64> {
        match self.basis()? {
            BitrateBasis::Shown => self.start_shown_bps,
            BitrateBasis::Requested => self.start_requested_bps,
        }
    }

    pub fn screen(&self) -> Screen<'_> {
        Screen::new(self.so_far, &self.list, self.basis().unwrap_or(BitrateBasis::Shown))
    }
}

fn sane(bitrate_bps: Option<i64>, changed: &mut Changed) -> Option<i64> {
    let bitrate_bps = bitrate_bps?;
    changed.anomalies += i64::from(bitrate_bps > BITRATE_MAX_BPS);
    (1..=BITRATE_MAX_BPS).contains(&bitrate_bps).then_some(bitrate_bps)
}

/// Takes the whole, the video and the audio. A whole without its parts makes old parts worthless; parts
/// without the whole add up to it.
fn observe_rendition(rendition: &mut Rendition, [total, video, audio]: [Option<i64>; 3]) {
    if video.is_some() || audio.is_some() {
        rendition.video_bps = video.or(rendition.video_bps);
        rendition.audio_bps = audio.or(rendition.audio_bps);
        let sum_bps = rendition.video_bps.unwrap_or(0) + rendition.audio_bps.unwrap_or(0);
        rendition.total_bps = total.or(Some(sum_bps));
    } else if total.is_some() && total != rendition.total_bps {
        *rendition = Rendition {
            total_bps: total,
            ..Rendition::default()
        };
    }
}

fn observe_rate_and_size(next: &mut Shown, detail: &EventDetail, viewport_height_px: Option<i64>) {
    if let Some(rate) = detail.playback_rate
        && (0.0..=PLAYBACK_RATE_MAX).contains(&rate)
    {
        next.rate_ppm = (rate * ONE_PPM as f64).round() as i64;
    }
    let height = |px: Option<i64>| px.filter(|px| (1..=HEIGHT_MAX_PX).contains(px));
    next.height_px = height(detail.height).or(next.height_px);
    next.viewport_height_px = height(viewport_height_px).or(next.viewport_height_px);
    let fps = detail.fps.filter(|fps| *fps > 0.0 && *fps <= FPS_MAX);
    next.fps_milli = fps.map(|fps| (fps * 1_000.0).round() as i64).or(next.fps_milli);
}

fn is_switch(old: &Shown, new: &Shown) -> bool {
    let (before, after) = (old.shown.total_bps, new.shown.total_bps);
    old.rate_ppm != new.rate_ppm || before.is_some() && before != after
}
