//! Stretches and pieces: a session as a row of spans of one state, and the rows cut from it.
//!
//! Stands below `walk`, which extends the last stretch with each event and lays reported lengths back
//! over the stretches that they cover; at the end pieces are cut at whole minutes.
//!
//! Invariant: stretches never overlap, ascend, and are never none: the last one is the present.
//! Invariant: the pieces of a session cover its stretches exactly, so every total is the sum of them.
//! Invariant: nothing that ended more than `LOOK_BACK_MS` before the present changes any more.

use serde::{Deserialize, Serialize};

use super::causes::Causes;
use super::screen::{Played, Screen};
use crate::event::facts::{PlaybackState, StallCause};

/// Intervals are cut at whole minutes, the finest window of gold.
const MINUTE_MS: i64 = 60_000;
/// The longest length that a report may have (3.1, rule 8), and so how far any of them reaches back.
pub const LOOK_BACK_MS: i64 = 30 * 60_000;

/// One row of `silver.playback_intervals` without what it shares with its session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece {
    pub start_ms: i64,
    pub end_ms: i64,
    pub state: PlaybackState,
    pub cause: Option<StallCause>,
    pub starts: i64,
    /// On the last piece of a stall that is over: its whole length.
    pub stall_length_ms: Option<i64>,
    pub is_provisional: bool,
    pub played: Played,
}

/// A span of one state. The last one is the present and grows with each event.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Stretch {
    start_ms: i64,
    end_ms: i64,
    /// `None` where nothing is known to have happened: before the intent, after a failure.
    state: Option<PlaybackState>,
    cause: Option<StallCause>,
    /// How many begin here: more than one where a report adds stalls up, none where a counter grew in time
    /// and not in number, and on later parts.
    starts: i64,
    /// A later part of a stall that something interrupted.
    continues: bool,
}

impl Stretch {
    fn is_played(&self) -> bool {
        is_played(self.state)
    }

    fn length_ms(&self) -> i64 {
        self.end_ms - self.start_ms
    }
}

/// Whether media is on the screen, of whatever kind.
pub fn is_played(state: Option<PlaybackState>) -> bool {
    matches!(state, Some(PlaybackState::Playing | PlaybackState::Ad))
}

/// How much of a reported stall found room.
#[derive(Debug, Clone, Copy, Default)]
pub struct Placed {
    pub content_ms: i64,
    pub ad_ms: i64,
}

impl Placed {
    pub fn total_ms(self) -> i64 {
        self.content_ms + self.ad_ms
    }
}

/// A stall that a report tells of after the fact.
#[derive(Debug, Clone, Copy)]
pub struct ReportedStall {
    pub length_ms: i64,
    /// How many stalls the length adds up.
    pub count: i64,
}

/// Stretches as numbers: each as what it is, then its length, and before it the time between it and the
/// one before if it does not begin where that ended, as nearly all do.
mod packed_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Stretch;
    use crate::event::facts::{PlaybackState, StallCause};
    use crate::session::packed::{Reader, Writer};

    const APART: u64 = 1;
    const BEGINS: u64 = 2;
    /// More than one begins: their number follows.
    const BEGIN_MANY: u64 = 4;
    const CONTINUES: u64 = 8;
    const STATE_SHIFT: u32 = 4;
    const STATE_BITS: u32 = 4;

    pub fn serialize<S: Serializer>(list: &[Stretch], serializer: S) -> Result<S::Ok, S::Error> {
        let mut writer = Writer::default();
        let mut last_ms = 0;
        for stretch in list {
            let state = stretch.state.map_or(0, |state| 1 + state as u64);
            let cause = stretch.cause.map_or(0, |cause| 1 + cause as u64);
            let apart_ms = stretch.start_ms - last_ms;
            let apart = if apart_ms == 0 { 0 } else { APART };
            let continues = if stretch.continues { CONTINUES } else { 0 };
            let begins = match stretch.starts {
                0 => 0,
                1 => BEGINS,
                _ => BEGIN_MANY,
            };
            writer.number((cause << STATE_BITS | state) << STATE_SHIFT | continues | begins | apart);
            if apart_ms != 0 {
                writer.signed(apart_ms);
            }
            if begins == BEGIN_MANY {
                writer.signed(stretch.starts);
            }
            writer.signed(stretch.length_ms());
            last_ms = stretch.end_ms;
        }
        writer.bytes.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Stretch>, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let mut reader = Reader { rest: &bytes };
        let mut list = Vec::new();
        let mut last_ms = 0;
        while !reader.rest.is_empty() {
            let what = reader.number();
            let apart_ms = if what & APART == 0 { 0 } else { reader.signed() };
            let starts = match what & (BEGINS | BEGIN_MANY) {
                0 => 0,
                BEGINS => 1,
                _ => reader.signed(),
            };
            let start_ms = last_ms + apart_ms;
            last_ms = start_ms + reader.signed();
            let number = what >> STATE_SHIFT;
            list.push(Stretch {
                start_ms,
                end_ms: last_ms,
                state: nth(&PlaybackState::ALL, number & ((1 << STATE_BITS) - 1)),
                cause: nth(&StallCause::ALL, number >> STATE_BITS),
                starts,
                continues: what & CONTINUES != 0,
            });
        }
        Ok(list)
    }

    /// 0 is none.
    fn nth<T: Copy>(all: &[T], number: u64) -> Option<T> {
        all.get((number as usize).checked_sub(1)?).copied()
    }
}

/// The time of one session so far, save what was frozen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stretches {
    #[serde(with = "packed_list")]
    list: Vec<Stretch>,
}

impl Stretches {
    pub fn new(started_at_ms: i64) -> Self {
        let present = Stretch {
            start_ms: started_at_ms,
            end_ms: started_at_ms,
            state: None,
            cause: None,
            starts: 1,
            continues: false,
        };
        Self { list: vec![present] }
    }

    /// The state of the present.
    pub fn state(&self) -> Option<PlaybackState> {
        self.list.last().and_then(|present| present.state)
    }

    fn present(&mut self) -> &mut Stretch {
        self.list
            .last_mut()
            .expect("the list begins with one stretch and never loses the last without a new one")
    }

    /// Moves the end of the present to `now_ms`; returns by how much.
    pub fn advance(&mut self, now_ms: i64) -> i64 {
        let present = self.present();
        let length_ms = now_ms - present.end_ms;
        present.end_ms = now_ms;
        length_ms
    }

    /// Begins a stretch at `now_ms` if the state is another than before. A present without length
    /// makes room for it, unless it keeps two stalls apart.
    pub fn enter(&mut self, now_ms: i64, state: Option<PlaybackState>, causes: &Causes) {
        let present = *self.present();
        if present.state == state {
            return;
        }
        let is_stall = state == Some(PlaybackState::Rebuffering);
        if present.start_ms == present.end_ms && self.list.len() > 1 && !is_stall {
            self.list.pop();
        }
        self.begin(now_ms, state, causes);
    }

    /// Makes the last stretch one of `state`.
    fn begin(&mut self, now_ms: i64, state: Option<PlaybackState>, causes: &Causes) {
        if self.list.last().is_some_and(|last| last.state == state) {
            return;
        }
        let is_stall = state == Some(PlaybackState::Rebuffering);
        self.list.push(Stretch {
            start_ms: now_ms,
            end_ms: now_ms,
            state,
            cause: is_stall.then(|| causes.of_stall(now_ms)),
            starts: 1,
            continues: false,
        });
    }

    /// Turns the stall of now back into playing of the kind that `state` says.
    pub fn unstall_present(&mut self, state: Option<PlaybackState>) {
        let present = self.present();
        present.state = state;
        present.cause = None;
        if let [.., before, present] = &mut self.list[..]
            && before.state == present.state
        {
            before.end_ms = present.end_ms;
            self.list.pop();
        }
    }

    /// Lays a reported stall over the time before `now_ms`, and goes on in `state`. It reaches back to
    /// the last start-up, seek, stall or background; pauses on the way stay pauses; the rest of the
    /// report is dropped. Returns how much of it was placed.
    pub fn place_stall(&mut self, now_ms: i64, stall: ReportedStall, state: Option<PlaybackState>, causes: &Causes) -> Placed {
        let from_ms = now_ms.saturating_sub(stall.length_ms);
        let is_open = |stretch: &&Stretch| stretch.is_played() || stretch.state == Some(PlaybackState::Paused);
        let covered = self.list.iter().rev().take_while(is_open).take_while(|s| s.end_ms >= from_ms);
        let keep = self.list.len() - covered.count();
        let placed = self.stall_after(keep, from_ms, stall.count, causes);
        self.begin(now_ms, state, causes);
        placed
    }

    /// Turns what was played after `from_ms`, in the stretches from the `keep`th on, into a stall.
    fn stall_after(&mut self, keep: usize, from_ms: i64, count: i64, causes: &Causes) -> Placed {
        let tail = self.list.split_off(keep);
        let mut placed = Placed::default();
        let mut cause = StallCause::Connection;
        for stretch in tail {
            let cut_ms = stretch.start_ms.max(from_ms);
            if !stretch.is_played() || cut_ms >= stretch.end_ms {
                self.list.push(stretch);
                continue;
            }
            if stretch.start_ms < cut_ms {
                self.list.push(Stretch { end_ms: cut_ms, ..stretch });
            }
            let is_first = placed.total_ms() == 0;
            if is_first {
                cause = causes.of_stall(cut_ms);
            }
            self.list.push(Stretch {
                start_ms: cut_ms,
                state: Some(PlaybackState::Rebuffering),
                cause: Some(cause),
                starts: if is_first { count } else { 0 },
                continues: !is_first,
                ..stretch
            });
            match stretch.state {
                Some(PlaybackState::Ad) => placed.ad_ms += stretch.end_ms - cut_ms,
                _ => placed.content_ms += stretch.end_ms - cut_ms,
            }
        }
        placed
    }

    /// Lays stalls of which only a counter told over the playing nearest before `now_ms`, whatever lies
    /// between, and goes on in `state`.
    pub fn place_unreported(&mut self, now_ms: i64, stall: ReportedStall, state: Option<PlaybackState>, causes: &Causes) -> Placed {
        let (mut keep, mut wanted_ms, mut from_ms) = (self.list.len(), stall.length_ms, now_ms);
        for (at, stretch) in self.list.iter().enumerate().rev() {
            if wanted_ms <= 0 || stretch.end_ms < now_ms - LOOK_BACK_MS {
                break;
            }
            if stretch.is_played() {
                let start_ms = stretch.start_ms.max(now_ms - LOOK_BACK_MS);
                let taken_ms = wanted_ms.min(stretch.end_ms - start_ms);
                (keep, from_ms) = (at, stretch.end_ms - taken_ms);
                wanted_ms -= taken_ms;
            }
        }
        let placed = self.stall_after(keep, from_ms, stall.count, causes);
        self.begin(now_ms, state, causes);
        placed
    }

    /// Lays a reported seek over the time before `now_ms`, and goes on in `state`. It covers playing,
    /// pause and stall, since buffering inside a seek is seek wait.
    pub fn place_seek(&mut self, now_ms: i64, length_ms: i64, state: Option<PlaybackState>, causes: &Causes) {
        use PlaybackState::{Ad, Paused, Playing, Rebuffering};
        let from_ms = now_ms.saturating_sub(length_ms);
        let mut start_ms = now_ms;
        while let Some(last) = self.list.last_mut() {
            let is_open = matches!(last.state, Some(Playing | Ad | Paused | Rebuffering));
            if !is_open || last.end_ms <= from_ms {
                break;
            }
            if last.start_ms < from_ms {
                last.end_ms = from_ms;
                start_ms = from_ms;
                break;
            }
            start_ms = last.start_ms;
            self.list.pop();
        }
        if start_ms < now_ms {
            self.list.push(Stretch {
                start_ms,
                end_ms: now_ms,
                state: Some(PlaybackState::Seeking),
                cause: None,
                starts: 1,
                continues: false,
            });
        }
        self.begin(now_ms, state, causes);
    }

    /// Puts stalls that began at or after `from_ms` down to `cause`, unless they have an earlier one in
    /// the order of the definition.
    pub fn put_down_to(&mut self, from_ms: i64, cause: StallCause) {
        for stretch in self.list.iter_mut().rev().take_while(|stretch| stretch.end_ms >= from_ms) {
            let old = stretch.cause.filter(|_| stretch.start_ms >= from_ms && stretch.starts > 0);
            if old.is_some_and(|old| old == StallCause::Connection || old > cause) {
                stretch.cause = Some(cause);
            }
        }
    }

    /// Makes unknown what was taken for the wait before the first frame.
    pub fn forget_starting(&mut self, now_ms: i64) {
        let recent = |stretch: &&mut Stretch| stretch.end_ms >= now_ms - LOOK_BACK_MS;
        for stretch in self.list.iter_mut().rev().take_while(recent) {
            if stretch.state == Some(PlaybackState::Starting) {
                stretch.state = None;
            }
        }
    }

    /// The longest stall that was not put down to a seek. Of stalls that a report adds up, their mean.
    pub fn longest_stall_ms(&self) -> i64 {
        let (mut longest_ms, mut so_far_ms) = (0, 0);
        for stretch in &self.list {
            let counts = stretch.state == Some(PlaybackState::Rebuffering) && stretch.cause != Some(StallCause::SeekInduced);
            if !counts {
                continue;
            }
            let length_ms = stretch.length_ms() / stretch.starts.max(1);
            so_far_ms = if stretch.continues { so_far_ms + length_ms } else { length_ms };
            longest_ms = longest_ms.max(so_far_ms);
        }
        longest_ms
    }

    /// Moves all times.
    pub fn shift(&mut self, by_ms: i64) {
        for stretch in &mut self.list {
            stretch.start_ms += by_ms;
            stretch.end_ms += by_ms;
        }
    }

    /// Takes out all time before a whole minute at or before `through_ms` where no stall is divided. The
    /// present stays where it is a stall: its end may take it back. Returns what was taken and where it
    /// ends.
    pub fn freeze(&mut self, through_ms: i64) -> Option<(Stretches, i64)> {
        let frozen_ms = self.freezable_until(through_ms);
        if self.list[0].start_ms >= frozen_ms {
            return None;
        }
        let over = self.list.partition_point(|stretch| stretch.end_ms <= frozen_ms);
        let keep = over.min(self.list.len() - 1);
        let mut frozen: Vec<Stretch> = self.list.drain(..keep).collect();
        let first = &mut self.list[0];
        if first.start_ms < frozen_ms {
            frozen.push(Stretch {
                end_ms: frozen_ms,
                ..*first
            });
            first.start_ms = frozen_ms;
            first.starts = 0;
        }
        Some((Stretches { list: frozen }, frozen_ms))
    }

    fn freezable_until(&self, through_ms: i64) -> i64 {
        let present = self.list.last().expect("the list is never empty");
        let mut frozen_ms = whole_minute(through_ms.min(present.end_ms - 1));
        // From the end on: a stall goes with all of its parts, and with the time between them.
        let mut is_later_part = false;
        for (at, stretch) in self.list.iter().enumerate().rev() {
            if stretch.state != Some(PlaybackState::Rebuffering) {
                continue;
            }
            let is_present = at + 1 == self.list.len();
            if stretch.end_ms > frozen_ms || is_later_part || is_present {
                frozen_ms = frozen_ms.min(whole_minute(stretch.start_ms));
            }
            is_later_part = stretch.continues && stretch.end_ms > frozen_ms;
        }
        frozen_ms
    }

    /// Cuts the stretches into pieces. `is_open`: a stall of the present may go on.
    pub fn pieces(&self, screen: &mut Screen<'_>, is_open: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut stall = SingleStall::default();
        for (at, stretch) in self.list.iter().enumerate() {
            let Some(state) = stretch.state else {
                continue;
            };
            let is_stall = state == PlaybackState::Rebuffering;
            if is_stall && !stretch.continues {
                stall.end(&mut pieces);
            }
            let is_provisional = is_open && is_stall && at + 1 == self.list.len();
            cut(stretch, state, is_provisional, screen, &mut pieces);
            if is_stall {
                stall.take(stretch, is_provisional, pieces.len());
            }
        }
        stall.end(&mut pieces);
        pieces
    }
}

fn whole_minute(time_ms: i64) -> i64 {
    time_ms.div_euclid(MINUTE_MS) * MINUTE_MS
}

/// Adds the pieces of one stretch.
fn cut(stretch: &Stretch, state: PlaybackState, is_provisional: bool, screen: &mut Screen<'_>, pieces: &mut Vec<Piece>) {
    let mut start_ms = stretch.start_ms;
    while start_ms < stretch.end_ms {
        let minute_end_ms = whole_minute(start_ms) + MINUTE_MS;
        let end_ms = stretch.end_ms.min(minute_end_ms);
        let played = match state {
            PlaybackState::Playing => screen.play(start_ms, end_ms),
            _ => Played::default(),
        };
        let begins = start_ms == stretch.start_ms;
        pieces.push(Piece {
            start_ms,
            end_ms,
            state,
            cause: stretch.cause,
            starts: if begins { stretch.starts } else { 0 },
            stall_length_ms: None,
            is_provisional,
            played,
        });
        start_ms = end_ms;
    }
}

/// A stall while it is cut: its length goes on its last piece once that is known. Stalls that a report
/// adds up have no length of their own.
#[derive(Default)]
struct SingleStall {
    length_ms: i64,
    is_single: bool,
    /// How many pieces there were after its last.
    pieces: usize,
}

impl SingleStall {
    fn take(&mut self, stretch: &Stretch, is_provisional: bool, pieces: usize) {
        self.length_ms += stretch.length_ms();
        self.is_single |= stretch.starts == 1;
        self.is_single &= !is_provisional;
        self.pieces = pieces;
    }

    fn end(&mut self, pieces: &mut [Piece]) {
        let stall = std::mem::take(self);
        let last = stall.pieces.checked_sub(1).and_then(|at| pieces.get_mut(at));
        if let Some(last) = last.filter(|_| stall.is_single && stall.length_ms > 0) {
            last.stall_length_ms = Some(stall.length_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::session::fixtures::{T0, check, check_pieces, facts};

    #[test]
    fn m2_a_stall_over_a_minute_boundary_counts_where_it_began() {
        let facts = facts(
            "0 playback_request
             2 playback_start
             55 stall_start
             65 playback_start
             120 heartbeat at=108",
            "120",
        );
        let rows: Vec<_> = facts[0]
            .pieces
            .iter()
            .map(|p| (p.state.as_str(), p.start_ms - T0, p.end_ms - T0, p.starts))
            .collect();
        assert_eq!(
            rows,
            [
                ("starting", 0, 2_000, 1),
                ("playing", 2_000, 55_000, 1),
                ("rebuffering", 55_000, 60_000, 1),
                ("rebuffering", 60_000, 65_000, 0),
                ("playing", 65_000, 120_000, 1),
            ]
        );
    }

    #[test]
    fn m9_bitrate_is_weighted_by_media_time() {
        let facts = facts(
            "0 playback_request
             0.1 playback_start bps=1000000
             10.1 rendition_update bps=3000000
             40.1 playback_pause
             60.1 playback_start rate=2
             80.1 playback_finish",
            "-",
        );
        let row = &facts[0].session;
        assert_eq!((row.playing_ms, row.media_ms, row.bitrate_known_ms), (60_000, 80_000, 80_000));
        assert_eq!(row.shown_bits / row.bitrate_known_ms, 2_750);
        assert_eq!((row.switches_up, row.switches_down), (1, 0));
    }

    #[test]
    fn reported_stalls_are_clipped_to_what_was_playing() {
        let stall = |before: &str| format!("0 playback_request\n2 playback_start\n{before}");
        check_pieces(&stall("5 stall_end stall=4"), "-", "starting 0-2, rebuffering 2-5");
        check_pieces(
            &stall("8 stall_end stall=2\n9 stall_end stall=2"),
            "-",
            "starting 0-2, playing 2-6, rebuffering 6-8, rebuffering 8-9",
        );
        check_pieces(
            &stall("7 playback_pause\n9 playback_request at=5\n10 stall_end stall=5"),
            "-",
            "starting 0-2, playing 2-5, rebuffering 5-7, paused 7-9, rebuffering 9-10",
        );
        check_pieces(
            &stall("20 seek_end seek=1\n21 stall_end stall=600"),
            "-",
            "starting 0-2, playing 2-19, seeking 19-20, rebuffering 20-21",
        );
        check_pieces(
            &stall("10 stall_end stall=0.3\n10.2 seek_end seek=1\n12 heartbeat"),
            "-",
            "starting 0-2, playing 2-9.2, seeking 9.2-10.2, playing 10.2-12",
        );
        check(
            &stall("7 playback_pause\n9 playback_request at=5\n10 stall_end stall=5\n11 session_end"),
            "-",
            &[
                "attempts=1 plays=1 startup_ms=2000 playing_ms=4000 startup_wait_ms=2000 stall_ms=3000 \
             stall_count=1 paused_ms=2000 user_quit stall_clipped",
            ],
        );
    }
}
