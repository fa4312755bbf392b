//! Causes: what a stall is put down to (events and metrics, 3.5).
//!
//! Stands below `walk`, which notes what may cause a stall; `pieces` asks when one is laid down.
//!
//! Invariant: a cause depends on what happened before the stall began and within a second after.

use serde::{Deserialize, Serialize};

use super::packed::shift;
use crate::event::facts::StallCause;

/// So near an advertisement's start or end, a switch or the natural end, a stall is put down to it.
pub const NEAR_MS: i64 = 1_000;
/// With this much media in every buffer, the network is not what was waited for.
const FULL_BUFFER_MS: i64 = 5_000;
/// How many instants of a sort are remembered: a stall reported at its end looks back past the newest.
const REMEMBERED: usize = 4;

/// The newest instants at which something happened.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Recent([Option<i64>; REMEMBERED]);

impl Recent {
    fn note(&mut self, now_ms: i64) {
        if self.0[0] != Some(now_ms) {
            self.0.rotate_right(1);
            self.0[0] = Some(now_ms);
        }
    }

    fn within(&self, from_ms: i64, to_ms: i64) -> bool {
        self.0.iter().flatten().any(|ms| (from_ms..=to_ms).contains(ms))
    }
}

/// What may cause a stall that begins soon.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Causes {
    pub seek_ended_ms: Option<i64>,
    grace_ms: i64,
    ad_boundaries: Recent,
    switches: Recent,
    /// When the buffers were last told, and the least of them.
    buffer: Option<(i64, i64)>,
}

impl Causes {
    pub fn new(grace_ms: i64) -> Self {
        Self {
            seek_ended_ms: None,
            grace_ms,
            ad_boundaries: Recent::default(),
            switches: Recent::default(),
            buffer: None,
        }
    }

    /// Moves all times.
    pub fn shift(&mut self, by_ms: i64) {
        shift(&mut self.seek_ended_ms, by_ms);
        let recent = self.ad_boundaries.0.iter_mut().chain(&mut self.switches.0);
        recent.for_each(|time_ms| shift(time_ms, by_ms));
        self.buffer = self.buffer.map(|(ms, least_ms)| (ms + by_ms, least_ms));
    }

    pub fn note_ad_boundary(&mut self, now_ms: i64) {
        self.ad_boundaries.note(now_ms);
    }

    /// A change of rendition or of playback rate.
    pub fn note_switch(&mut self, now_ms: i64) {
        self.switches.note(now_ms);
    }

    pub fn note_buffer(&mut self, now_ms: i64, least_ms: i64) {
        self.buffer = Some((now_ms, least_ms));
    }

    /// The first class that fits; the order is that of the definition.
    pub fn of_stall(&self, start_ms: i64) -> StallCause {
        let just_before = |ms: i64| (0..=NEAR_MS).contains(&(start_ms - ms));
        if self.seek_ended_ms.is_some_and(|ms| (0..=self.grace_ms).contains(&(start_ms - ms))) {
            StallCause::SeekInduced
        } else if self.ad_boundaries.within(start_ms - NEAR_MS, start_ms + NEAR_MS) {
            StallCause::AdBoundary
        } else if self
            .buffer
            .is_some_and(|(ms, least_ms)| just_before(ms) && least_ms >= FULL_BUFFER_MS)
        {
            StallCause::Decoder
        } else if self.switches.within(start_ms - NEAR_MS, start_ms) {
            StallCause::RenditionSwitch
        } else {
            StallCause::Connection
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::event::facts::StallCause;
    use crate::session::fixtures::facts;

    /// Causes of the stalls of a script that plays from its start.
    fn check(text: &str, expected: &[StallCause]) {
        let facts = facts(&format!("0 playback_start\n{text}"), "-");
        let stalls = facts[0].pieces.iter().filter(|piece| piece.starts > 0);
        let causes: Vec<StallCause> = stalls.filter_map(|piece| piece.cause).collect();
        assert_eq!(causes, expected, "\n{text}");
    }

    #[test]
    fn a_stall_near_an_advertisement_is_the_advertisements() {
        use StallCause::{AdBoundary, Connection};
        check("10 ad_start\n11 stall_start\n12 stall_end", &[AdBoundary]);
        check("10 ad_start\n11.001 stall_start\n12 stall_end", &[Connection]);
        check("10 ad_start\n20 ad_end\n26 stall_end stall=15.5", &[AdBoundary]);
        check("9 stall_start\n9.5 stall_end\n10 ad_start", &[AdBoundary]);
        check("9 stall_start\n10 ad_break_start\n12 stall_end", &[AdBoundary]);
        check("8.999 stall_start\n9.5 stall_end\n10 ad_start", &[Connection]);
    }

    #[test]
    fn a_stall_with_full_buffers_is_the_decoders() {
        use StallCause::{Connection, Decoder};
        check("10 stall_start buffer=5 audio_buffer=6\n12 stall_end", &[Decoder]);
        check("10 stall_start buffer=9 audio_buffer=4.999\n12 stall_end", &[Connection]);
        check("9 heartbeat buffer=30\n10 stall_start\n12 stall_end", &[Decoder]);
        check("8.9 heartbeat buffer=30\n10 stall_start\n12 stall_end", &[Connection]);
        check("12 stall_end stall=2 buffer=30", &[Connection]);
    }

    #[test]
    fn a_stall_just_after_a_switch_is_the_switchs() {
        use StallCause::{Connection, RenditionSwitch};
        check("10 rendition_update\n11 stall_start\n12 stall_end", &[RenditionSwitch]);
        check("10 rate_change rate=2\n11 stall_start\n12 stall_end", &[RenditionSwitch]);
        check(
            "5 heartbeat bps=1000\n10 heartbeat bps=2000\n11 stall_start\n12 stall_end",
            &[RenditionSwitch],
        );
        check("10 rendition_update\n11.1 stall_start\n12 stall_end", &[Connection]);
        check("10 heartbeat bps=2000\n11 stall_start\n12 stall_end", &[Connection]);
    }

    #[test]
    fn a_stall_just_before_the_natural_end_is_the_ends() {
        use StallCause::{Connection, NaturalEnd, RenditionSwitch};
        check("59.2 stall_start\n59.9 stall_end\n60 playback_finish", &[NaturalEnd]);
        check("59.2 stall_start\n60.2 playback_finish", &[NaturalEnd]);
        check("59.2 stall_start\n60.201 playback_finish", &[Connection]);
        check("59.2 stall_start\n59.9 stall_end\n60 session_end", &[Connection]);
        check(
            "59 rate_change rate=2\n59.2 stall_start\n59.9 stall_end\n60 playback_finish",
            &[RenditionSwitch],
        );
    }

    #[test]
    fn the_grace_after_a_seek_comes_first() {
        check(
            "10 seek_end seek=1\n11 ad_start\n11 stall_start seq=9\n12 stall_end",
            &[StallCause::SeekInduced],
        );
    }
}
