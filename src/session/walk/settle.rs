//! What a checkpoint needs of a walk: to give up what is over, and to be kept as bytes.
//!
//! Stands beside `walk`; `timeline::settle` calls it when a key's events are settled.
//!
//! Invariant: a walk goes on from what is left as it would have gone on from the whole.

use super::Walk;
use crate::session::SessionSettings;
use crate::session::packed::shift;
use crate::session::pieces::LOOK_BACK_MS;
use crate::session::row::add_piece;

impl Walk {
    /// Adds the pieces that no later event can change to the totals, and forgets them. `until_ms`: no
    /// event before this time is to come. Before the first frame nothing is settled: a lost one changes
    /// what the time before it was.
    pub fn freeze(&mut self, until_ms: i64) {
        self.picture.forget_details();
        if !self.framed {
            return;
        }
        let Some((frozen, frozen_ms)) = self.stretches.freeze(until_ms.saturating_sub(LOOK_BACK_MS)) else {
            return;
        };
        let mut screen = self.picture.screen();
        for piece in frozen.pieces(&mut screen, false) {
            self.has_frozen = true;
            add_piece(&mut self.row, &piece);
        }
        let (so_far, rest) = screen.leave_at(frozen_ms);
        let rest = rest.len();
        self.picture.settle(so_far, rest);
        self.row.stall_max_ms = self.row.stall_max_ms.max(frozen.longest_stall_ms());
    }

    /// Whether rows of this session have left memory.
    pub fn has_frozen(&self) -> bool {
        self.has_frozen
    }

    /// Moves all times.
    pub fn shift(&mut self, by_ms: i64) {
        self.stretches.shift(by_ms);
        self.picture.shift(by_ms);
        self.causes.shift(by_ms);
        self.errors.shift(by_ms);
        self.startup.shift(by_ms);
        self.beats.shift(by_ms);
        shift(&mut self.paused_at_ms, by_ms);
        self.last_evidence_ms += by_ms;
        self.row.started_at_ms += by_ms;
        self.row.ended_at_ms += by_ms;
        shift(&mut self.row.fatal_error_at_ms, by_ms);
    }

    /// What bytes do not hold.
    pub fn set_settings(&mut self, settings: SessionSettings) {
        self.settings = settings;
    }
}
