//! The requests of a session, as the CDN logs them.
//!
//! Stands under `script`, which asks for segments as the player does.

use super::super::incident::Fault;
use super::super::plan::{Cache, Moment, Request, What};
use super::super::world::RUNGS;
use super::{SEGMENT_CS, Script};

impl Script<'_> {
    /// While the origin melts, what the edge does not hold is refused before it comes at last.
    pub(super) fn ask_melting_origin(&mut self) {
        let Some((number, per_mille)) = self.hit_by(Fault::OriginMelts, self.now_ms) else {
            return;
        };
        // A tenth of the segments are not held.
        if self.random.chance(per_mille / 10, 1_000) {
            let status = [503, 504][self.random.weighted(&[2, 1])];
            self.request(self.now_ms - 4_500, status);
            self.note_effect(Some(number));
        }
    }

    /// Logs a request for the segment being played, whose response ends at `end_ms`, and returns
    /// its number.
    pub(super) fn request(&mut self, end_ms: i64, status: u32) -> u32 {
        let end_ms = end_ms.max(self.start_ms);
        let number = self.next_request;
        self.next_request += 1;
        let result = match status {
            200 => [Cache::Hit, Cache::RefreshHit, Cache::Miss][self.random.weighted(&[88, 3, 9])],
            _ => Cache::Error,
        };
        let mut ttfb_ms = match result {
            Cache::Hit => self.random.between(8, 40),
            Cache::RefreshHit => self.random.between(30, 90),
            Cache::Miss => self.random.between(80, 300),
            Cache::Error => self.random.between(5, 60),
        };
        if let Some((number, per_mille)) = self.hit_by(Fault::CdnSlowFirstByte, end_ms) {
            ttfb_ms += ttfb_ms * per_mille / 1_000;
            self.note_effect(Some(number));
        }
        // Five seconds of the rung, give or take a tenth; errors send a small page.
        let segment_bytes = RUNGS[self.rung].bitrate_bps / 8 * 5;
        let bytes = match status {
            200 => segment_bytes / 10 * 9 + self.random.below(segment_bytes / 5),
            0 => self.random.below(segment_bytes / 2),
            _ => self.random.between(240, 900),
        };
        // 20 to 60 Mbit/s are 2500 to 7500 bytes a millisecond.
        let transfer_ms = bytes / self.random.between(2_500, 7_500);
        let request = Request {
            number,
            segment: self.position_cs / SEGMENT_CS + 1,
            rung: self.rung,
            status,
            result,
            bytes,
            taken_ms: ttfb_ms + transfer_ms,
            ttfb_ms,
        };
        self.tally.cdn_requests += 1;
        self.moments.push(Moment {
            time_ms: end_ms,
            what: What::Cdn(request),
        });
        number
    }
}
