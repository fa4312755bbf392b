//! Units: whether an EPAS player tells positions and lengths in seconds or in milliseconds (events and
//! metrics, 1.2).
//!
//! Stands below `timeline`. The decoder takes both for seconds, since one report does not tell; how far
//! the position moves while the player plays does, and holds for the whole session.
//!
//! Invariant: the unit is a function of the session's events in canonical order; once found, it stays.
//! Invariant: nothing but 0 becomes 0, so that boundaries and verdicts are the same in either unit.

use serde::{Deserialize, Serialize};

use super::EventDetail;
use super::events::Kept;
use super::outlook::shows_frame;
use super::packed::shift;
use crate::event::EventKind;

/// The dialect whose unit is to be found.
const SOURCE: &str = "epas";
/// Positions are cached and rounded to whole seconds: nearer to each other, two reports decide nothing.
const APART_MIN_MS: i64 = 5_000;
/// Playing faster or slower than this, times or parts, is a jump or a wait that nobody told of.
const RATE_MAX: i64 = 5;
/// Milliseconds in a second: how far off a unit is that was taken for the other.
const THOUSAND: i64 = 1_000;
/// Where nothing moves, a longer asset is told in milliseconds: assets of less than a minute are rarer
/// than those of less than half a day.
const LENGTH_MAX_MS: i64 = 12 * 3_600_000;
/// After so many reports the length decides: until then a session is kept event by event. Two hours of
/// heartbeats every 30 s.
const REPORTS_MAX: u32 = 240;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Unit {
    Seconds,
    Milliseconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
enum Player {
    #[default]
    Unknown,
    Playing,
    Stopped,
}

/// What the reports of one session so far say of their unit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Units {
    known: Option<Unit>,
    player: Player,
    /// In a stall or a seek.
    waits: bool,
    /// Time of a report since which the player did nothing but play.
    from_ms: Option<i64>,
    /// The position in that report, as the decoder took it.
    from_playhead_ms: i64,
    longest_ms: i64,
    reports: u32,
}

impl Units {
    /// Takes the next event of the session.
    pub fn take(&mut self, event: &Kept, detail: &EventDetail) {
        if self.known.is_some() || detail.source != SOURCE {
            return;
        }
        self.reports += u32::from(has_unit(event, detail));
        self.longest_ms = self.longest_ms.max(detail.duration_ms.unwrap_or(0));
        let known = self.by_move(event);
        self.follow(event, detail);
        self.mark(event);
        let known = known.or_else(|| (self.reports >= REPORTS_MAX).then(|| self.by_length()));
        if known.is_some() {
            *self = Units { known, ..Units::default() };
        }
    }

    /// Whether the unit of this event may yet turn out to be another.
    pub fn is_open_for(&self, event: &Kept, detail: &EventDetail) -> bool {
        self.known.is_none() && detail.source == SOURCE && has_unit(event, detail)
    }

    /// Whether positions and lengths of this session were sent in milliseconds.
    pub fn are_milliseconds(&self) -> bool {
        self.known.unwrap_or_else(|| self.by_length()) == Unit::Milliseconds
    }

    /// An event and its detail in the unit of the session; `None`: they are in it.
    pub fn convert(&self, event: &Kept, detail: &EventDetail) -> Option<(Kept, EventDetail)> {
        if detail.source != SOURCE || !has_unit(event, detail) || !self.are_milliseconds() {
            return None;
        }
        let (mut event, mut detail) = (event.clone(), detail.clone());
        event.playhead_ms = event.playhead_ms.map(from_milliseconds);
        detail.duration_ms = detail.duration_ms.map(from_milliseconds);
        Some((event, detail))
    }

    /// Moves all times.
    pub fn shift(&mut self, by_ms: i64) {
        shift(&mut self.from_ms, by_ms);
    }

    /// What the way since the last mark says.
    fn by_move(&self, event: &Kept) -> Option<Unit> {
        if breaks_off(event.kind) {
            return None;
        }
        let gone_ms = event.event_ts_ms - self.from_ms?;
        let gained_ms = event.playhead_ms?.saturating_sub(self.from_playhead_ms);
        if gone_ms < APART_MIN_MS {
            return None;
        }
        if is_playing_speed(gained_ms, gone_ms) {
            return Some(Unit::Seconds);
        }
        is_playing_speed(gained_ms / THOUSAND, gone_ms).then_some(Unit::Milliseconds)
    }

    fn by_length(&self) -> Unit {
        if self.longest_ms > LENGTH_MAX_MS {
            Unit::Milliseconds
        } else {
            Unit::Seconds
        }
    }

    fn follow(&mut self, event: &Kept, detail: &EventDetail) {
        match event.kind {
            EventKind::SessionStart | EventKind::PlaybackRequest => (self.player, self.waits) = (Player::Unknown, false),
            EventKind::PlaybackStart => (self.player, self.waits) = (Player::Playing, false),
            EventKind::PlaybackPause | EventKind::PlaybackFinish | EventKind::SessionEnd => self.player = Player::Stopped,
            EventKind::PlaybackError if detail.error_fatal != Some(false) => self.player = Player::Stopped,
            EventKind::StallStart | EventKind::SeekStart => self.waits = true,
            EventKind::StallEnd | EventKind::SeekEnd => self.waits = false,
            _ if self.player == Player::Unknown && shows_frame(event, detail) => self.player = Player::Playing,
            _ => {}
        }
    }

    /// Notes the position if from here on the way can be measured.
    fn mark(&mut self, event: &Kept) {
        if self.player != Player::Playing || self.waits || breaks_off(event.kind) {
            self.from_ms = None;
        }
        let is_fresh = self.from_ms.is_some_and(|ms| event.event_ts_ms - ms < APART_MIN_MS);
        if let Some(playhead_ms) = event.playhead_ms
            && self.player == Player::Playing
            && !self.waits
            && !is_fresh
        {
            (self.from_ms, self.from_playhead_ms) = (Some(event.event_ts_ms), playhead_ms);
        }
    }
}

/// Whether an event has a number that another unit makes another.
fn has_unit(event: &Kept, detail: &EventDetail) -> bool {
    event.playhead_ms.is_some_and(|ms| ms != 0) || detail.duration_ms.is_some_and(|ms| ms != 0)
}

/// Whether the player was not playing on before an event of this kind, or was playing elsewhere: players
/// say that they seek when the position is the new one already.
fn breaks_off(kind: EventKind) -> bool {
    use EventKind::{PlaybackRequest, PlaybackStart, SeekEnd, SeekStart, SessionStart, StallEnd};
    matches!(
        kind,
        SessionStart | PlaybackRequest | PlaybackStart | StallEnd | SeekStart | SeekEnd
    )
}

fn is_playing_speed(gained_ms: i64, gone_ms: i64) -> bool {
    (gone_ms / RATE_MAX..=gone_ms * RATE_MAX).contains(&gained_ms)
}

/// What was taken for a number of seconds and is one of milliseconds; rounded up.
fn from_milliseconds(ms: i64) -> i64 {
    ms / THOUSAND + i64::from(ms % THOUSAND > 0)
}

#[cfg(test)]
mod tests {
    use crate::session::fixtures::{check_columns, facts};

    /// Reports of an EPAS player, with positions and lengths as the decoder takes them.
    fn epas(text: &str) -> String {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| format!("{line} source=epas\n")).collect()
    }

    fn check(text: &str, expected: &str) {
        check_columns(&epas(text), "-", expected);
    }

    /// Furthest position of the last session, in ms, and whether it was sent in milliseconds.
    fn unit(text: &str) -> (Option<i64>, bool) {
        let row = facts(&epas(text), "-").pop().expect("a session").session;
        (row.max_playhead_ms, row.dq_flags.contains(&"unit_settled"))
    }

    #[test]
    fn a_short_clip_in_milliseconds() {
        let clip = "0 playback_request at=0 duration=40000\n1 playback_start at=0 duration=40000\n\
                    21 heartbeat at=20000 duration=40000\n41 playback_finish at=40000 duration=40000";
        check(
            clip,
            "duration_ms=40000 max_playhead_ms=40000 covered_ms=40000 quartile=100 playing_ms=40000",
        );
        assert_eq!(facts(&epas(clip), "-")[0].session.dq_flags, ["unit_settled"]);
    }

    #[test]
    fn a_film_of_thirteen_hours_in_seconds() {
        let film = "0 playback_request at=0 duration=46800\n1 playback_start at=0 duration=46800\n\
                    31 heartbeat at=30 duration=46800\n65 heartbeat at=64 duration=46800";
        check(film, "duration_ms=46800000 max_playhead_ms=64000 covered_ms=64000");
        assert!(facts(&epas(film), "-")[0].session.dq_flags.is_empty());
    }

    #[test]
    fn whole_seconds_of_an_unknown_length() {
        let text = "0 playback_request\n1 playback_start at=0\n31 heartbeat at=30\n61 heartbeat at=60\n101 session_end at=100";
        check(text, "duration_ms=- max_playhead_ms=100000");
        let in_ms = "0 playback_request\n1 playback_start at=0\n31 heartbeat at=30000\n61 heartbeat at=60000\n101 session_end at=100000";
        check(in_ms, "duration_ms=- max_playhead_ms=100000");
    }

    #[test]
    fn decimals_among_whole_seconds_change_no_unit() {
        let text = "0 playback_request\n0.5 playback_start\n30.75 heartbeat at=30.25\n60.5 heartbeat at=60\n91 heartbeat at=90.5";
        check(text, "max_playhead_ms=90500 covered_ms=90500");
    }

    #[test]
    fn the_first_report_that_decides_holds_for_those_before_and_after_it() {
        let before = "0 playback_start at=1\n2 playback_pause at=2000\n60 playback_start at=2000";
        assert_eq!(unit(before), (Some(2_000_000), false));
        assert_eq!(unit(&format!("{before}\n70 heartbeat at=12000")), (Some(12_000), true));
        let seconds = "0 playback_start at=0\n10 heartbeat at=10";
        assert_eq!(unit(&format!("{seconds}\n20 heartbeat at=10010")), (Some(10_010_000), false));
        let other = seconds.replace("at=10", "at=20000");
        assert_eq!(unit(&format!("{other}\n20 heartbeat at=20010")), (Some(20_010), true));
    }

    #[test]
    fn only_playing_on_for_five_seconds_decides() {
        let decides = |text: &str| unit(&format!("0 playback_start at=0\n{text}")).1;
        assert!(!decides("4.999 heartbeat at=4999"));
        assert!(decides("5 heartbeat at=5000"));
        assert!(decides("3 heartbeat at=3000\n6 heartbeat at=6000"));
        assert!(decides("10 playback_pause at=10000"));
        assert!(decides("10 stall_start at=10000"));
        assert!(decides("10 playback_finish at=10000"));
        assert!(!decides("10 seek_start at=10000"));
        assert!(!decides("2 seek_start at=2\n3 seek_end at=3000\n10 playback_start at=10000"));
        assert!(!decides("1 seek_start at=1\n10 heartbeat at=10000"));
        assert!(decides("1 seek_start at=1\n2 seek_end at=90\n12 heartbeat at=10090"));
        assert!(decides("1 stall_start at=1\n9 stall_end at=1000\n19 heartbeat at=11000"));
        assert!(!decides("1 stall_start at=1000\n9 heartbeat at=10000"));
        assert!(!decides("1 playback_pause at=1000\n9 heartbeat at=10000"));
        assert!(!decides("1 playback_error at=1000 fatal=true\n9 heartbeat at=10000"));
        assert!(decides("1 playback_error at=1000 fatal=false\n9 heartbeat at=10000"));
    }

    #[test]
    fn the_speed_of_playing_is_wide_and_what_is_between_decides_nothing() {
        let at = |position: &str| {
            unit(&format!(
                "0 playback_start at=0\n10 heartbeat at={position}\n20 session_end duration=43201"
            ))
        };
        for (position, expected) in [("2", false), ("50", false), ("1.999", true), ("50.001", true)] {
            assert_eq!(at(position).1, expected, "{position}");
        }
        for (position, expected) in [("2000", true), ("50000", true)] {
            assert_eq!(at(position).1, expected, "{position}");
        }
        let short = |position: &str| unit(&format!("0 playback_start at=0\n10 heartbeat at={position}")).1;
        assert_eq!(["1999", "2000", "50000", "50001"].map(short), [false, true, true, false]);
    }

    #[test]
    fn where_nothing_moves_the_length_decides() {
        let length = |duration: &str| {
            facts(&epas(&format!("0 playback_request duration={duration}")), "-")[0]
                .session
                .duration_ms
        };
        assert_eq!(length("43200"), Some(43_200_000));
        assert_eq!(length("43201"), Some(43_201));
        assert_eq!(length("600000"), Some(600_000));
    }

    #[test]
    fn a_session_that_never_tells_is_settled_by_its_length_in_the_end() {
        let still: String = (0..super::REPORTS_MAX)
            .map(|n| format!("{} metadata duration=600000\n", n + 1))
            .collect();
        let moved = "1000 playback_start at=0\n1010 heartbeat at=10\n";
        assert_eq!(unit(&format!("{still}{moved}")), (Some(10), true));
        let less = still.replacen("1 metadata duration=600000\n", "", 1);
        assert_eq!(unit(&format!("{less}{moved}")), (Some(10_000), false));
    }

    #[test]
    fn only_this_dialect_is_in_doubt() {
        let text = "0 playback_start at=0\n10 heartbeat at=10000\n20 heartbeat at=20000 duration=90000";
        check_columns(text, "-", "max_playhead_ms=20000000 duration_ms=90000000");
        let mixed = "0 playback_start at=0 source=epas\n10 heartbeat at=10000 source=epas\n20 heartbeat at=20 source=ivs";
        check_columns(mixed, "-", "max_playhead_ms=20000");
    }

    #[test]
    fn a_moment_after_the_start_is_not_the_start() {
        let text = "0 playback_request at=0\n1 playback_start at=0.4\n20 heartbeat at=19000";
        assert_eq!(unit(text), (Some(19_000), true));
        assert_eq!([0, 1, 400, 1_000, 1_001].map(super::from_milliseconds), [0, 1, 1, 1, 2]);
    }
}
