//! Stretches and pieces: a session as a row of spans of one state, and the rows cut from it.
//!
//! Stands below `walk`, which extends the last stretch with each event and lays reported lengths back
//! over the stretches that they cover; at the end pieces are cut at whole minutes.
//!
//! Invariant: stretches never overlap, ascend, and are never none: the last one is the present.
//! Invariant: the pieces of a session cover its stretches exactly, so every total is the sum of them.

use crate::event::facts::{PlaybackState, StallCause};

/// Intervals are cut at whole minutes, the finest window of gold.
const MINUTE_MS: i64 = 60_000;
/// One, as a playback rate in millionths.
pub const RATE_ONE_PPM: i64 = 1_000_000;

/// One row of `silver.playback_intervals` without what it shares with its session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece {
    pub start_ms: i64,
    pub end_ms: i64,
    pub state: PlaybackState,
    pub cause: Option<StallCause>,
    pub starts: i64,
    pub media_ms: i64,
    pub shown_bits: i64,
    pub bitrate_known_ms: i64,
}

/// What is shown from an instant on.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub from_ms: i64,
    pub bitrate_bps: Option<i64>,
    /// Playback rate in millionths, so that sums are exact.
    pub rate_ppm: i64,
}

/// A span of one state. The last one is the present and grows with each event.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    start_ms: i64,
    end_ms: i64,
    /// `None` where nothing is known to have happened: before the intent, after a failure.
    state: Option<PlaybackState>,
    cause: Option<StallCause>,
    /// False on the later parts of a stall that a pause interrupted: it is one stall.
    begins: bool,
}

/// The last seek that ended, which stalls after it are put down to.
#[derive(Debug, Clone, Copy)]
pub struct PostSeek {
    pub ended_ms: Option<i64>,
    pub grace_ms: i64,
}

impl PostSeek {
    fn cause_at(&self, stall_start_ms: i64) -> StallCause {
        let since_seek_ms = self.ended_ms.map(|ms| stall_start_ms - ms);
        match since_seek_ms {
            Some(ms) if (0..=self.grace_ms).contains(&ms) => StallCause::SeekInduced,
            _ => StallCause::Connection,
        }
    }
}

/// The time of one session so far.
pub struct Stretches {
    list: Vec<Stretch>,
}

impl Stretches {
    pub fn new(started_at_ms: i64) -> Self {
        let present = Stretch {
            start_ms: started_at_ms,
            end_ms: started_at_ms,
            state: None,
            cause: None,
            begins: true,
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
    /// makes room for it.
    pub fn enter(&mut self, now_ms: i64, state: Option<PlaybackState>, post_seek: PostSeek) {
        let present = *self.present();
        if present.state == state {
            return;
        }
        if present.start_ms == present.end_ms && self.list.len() > 1 {
            self.list.pop();
        }
        self.begin(now_ms, state, post_seek);
    }

    /// Makes the last stretch one of `state`.
    fn begin(&mut self, now_ms: i64, state: Option<PlaybackState>, post_seek: PostSeek) {
        if self.list.last().is_some_and(|last| last.state == state) {
            return;
        }
        let is_stall = state == Some(PlaybackState::Rebuffering);
        self.list.push(Stretch {
            start_ms: now_ms,
            end_ms: now_ms,
            state,
            cause: is_stall.then(|| post_seek.cause_at(now_ms)),
            begins: true,
        });
    }

    /// Turns the stall of now back into playing.
    pub fn unstall_present(&mut self) {
        let present = self.present();
        present.state = Some(PlaybackState::Playing);
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
    pub fn place_stall(&mut self, now_ms: i64, length_ms: i64, state: Option<PlaybackState>, post_seek: PostSeek) -> i64 {
        let from_ms = now_ms.saturating_sub(length_ms);
        let is_open = |stretch: &&Stretch| matches!(stretch.state, Some(PlaybackState::Playing | PlaybackState::Paused));
        let covered = self.list.iter().rev().take_while(is_open).take_while(|s| s.end_ms >= from_ms);
        let keep = self.list.len() - covered.count();
        let tail = self.list.split_off(keep);
        let mut placed_ms = 0;
        let mut cause = StallCause::Connection;
        for stretch in tail {
            let cut_ms = stretch.start_ms.max(from_ms);
            let is_covered = stretch.state == Some(PlaybackState::Playing) && cut_ms < stretch.end_ms;
            if !is_covered {
                self.list.push(stretch);
                continue;
            }
            if stretch.start_ms < cut_ms {
                self.list.push(Stretch { end_ms: cut_ms, ..stretch });
            }
            if placed_ms == 0 {
                cause = post_seek.cause_at(cut_ms);
            }
            self.list.push(Stretch {
                start_ms: cut_ms,
                state: Some(PlaybackState::Rebuffering),
                cause: Some(cause),
                begins: placed_ms == 0,
                ..stretch
            });
            placed_ms += stretch.end_ms - cut_ms;
        }
        self.begin(now_ms, state, post_seek);
        placed_ms
    }

    /// Lays a reported seek over the time before `now_ms`, and goes on in `state`. It covers playing,
    /// pause and stall, since buffering inside a seek is seek wait.
    pub fn place_seek(&mut self, now_ms: i64, length_ms: i64, state: Option<PlaybackState>, post_seek: PostSeek) {
        use PlaybackState::{Paused, Playing, Rebuffering};
        let from_ms = now_ms.saturating_sub(length_ms);
        let mut start_ms = now_ms;
        while let Some(last) = self.list.last_mut() {
            let is_open = matches!(last.state, Some(Playing | Paused | Rebuffering));
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
                begins: true,
            });
        }
        self.begin(now_ms, state, post_seek);
    }

    /// Makes unknown what was taken for the wait before the first frame.
    pub fn forget_starting(&mut self) {
        for stretch in &mut self.list {
            if stretch.state == Some(PlaybackState::Starting) {
                stretch.state = None;
            }
        }
    }

    /// Wait before the first frame.
    pub fn starting_ms(&self) -> i64 {
        let starting = Some(PlaybackState::Starting);
        let starts = self.list.iter().filter(|s| s.state == starting);
        starts.map(|s| s.end_ms - s.start_ms).sum()
    }

    /// Cuts the stretches into pieces. `shown` ascends by time.
    pub fn pieces(&self, shown: &[Shown]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut screen = Screen { next: shown, now: None };
        for stretch in &self.list {
            let Some(state) = stretch.state else {
                continue;
            };
            let mut start_ms = stretch.start_ms;
            while start_ms < stretch.end_ms {
                let minute_end_ms = (start_ms.div_euclid(MINUTE_MS) + 1) * MINUTE_MS;
                let end_ms = stretch.end_ms.min(minute_end_ms);
                let media = match state {
                    PlaybackState::Playing => screen.play(start_ms, end_ms),
                    _ => Media::default(),
                };
                let begins = stretch.begins && start_ms == stretch.start_ms;
                pieces.push(Piece {
                    start_ms,
                    end_ms,
                    state,
                    cause: stretch.cause,
                    starts: i64::from(begins),
                    media_ms: round_half_up(media.time, RATE_ONE_PPM),
                    shown_bits: round_half_up(media.bits, RATE_ONE_PPM * 1_000),
                    bitrate_known_ms: round_half_up(media.known_time, RATE_ONE_PPM),
                });
                start_ms = end_ms;
            }
        }
        pieces
    }
}

/// What is shown now, and what will be.
struct Screen<'a> {
    next: &'a [Shown],
    now: Option<Shown>,
}

impl Screen<'_> {
    /// What was played from one instant to another, at or after every instant asked for before.
    fn play(&mut self, mut from_ms: i64, end_ms: i64) -> Media {
        let mut media = Media::default();
        while let [next, rest @ ..] = self.next
            && next.from_ms < end_ms
        {
            media.add(next.from_ms - from_ms, self.now);
            from_ms = from_ms.max(next.from_ms);
            self.now = Some(*next);
            self.next = rest;
        }
        media.add(end_ms - from_ms, self.now);
        media
    }
}

/// Exact sums of one piece: time in ms x millionths of the rate, bits in bit/s x that.
#[derive(Debug, Clone, Copy, Default)]
struct Media {
    time: i128,
    known_time: i128,
    bits: i128,
}

impl Media {
    fn add(&mut self, length_ms: i64, shown: Option<Shown>) {
        if length_ms <= 0 {
            return;
        }
        let rate_ppm = shown.map_or(RATE_ONE_PPM, |shown| shown.rate_ppm);
        let time = i128::from(length_ms * rate_ppm);
        self.time += time;
        if let Some(bitrate_bps) = shown.and_then(|shown| shown.bitrate_bps) {
            self.known_time += time;
            self.bits += time * i128::from(bitrate_bps);
        }
    }
}

fn round_half_up(sum: i128, unit: i64) -> i64 {
    let unit = i128::from(unit);
    ((sum + unit / 2) / unit) as i64
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
