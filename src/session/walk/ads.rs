//! Advertisements and changes of content (events and metrics, 2.4 and 3.3).
//!
//! Stands beside `walk`. Between the start and the end of an advertisement, or of a break, what plays is
//! the advertisement: its time, positions and bitrates are not those of the content.
//!
//! Invariant: a content is counted as changed only outside advertisements, and only where the sender
//! names its sessions; elsewhere another content is another session.

use serde::{Deserialize, Serialize};

use super::Walk;
use crate::event::EventKind;
use crate::event::facts::StallCause;
use crate::session::EventDetail;
use crate::session::causes::NEAR_MS;

/// Whether an advertisement plays, and what else does.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Ads {
    in_break: bool,
    in_ad: bool,
    content_id: Option<String>,
}

impl Ads {
    pub fn is_on(&self) -> bool {
        self.in_break || self.in_ad
    }
}

pub fn is_ad_event(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::AdBreakStart | EventKind::AdBreakEnd | EventKind::AdStart | EventKind::AdEnd | EventKind::AdSkip
    )
}

impl Walk {
    pub(super) fn on_ad_event(&mut self, now_ms: i64, kind: EventKind) {
        match kind {
            EventKind::AdBreakStart => self.ads.in_break = true,
            EventKind::AdStart => self.ads.in_ad = true,
            EventKind::AdEnd | EventKind::AdSkip => self.ads.in_ad = false,
            EventKind::AdBreakEnd => (self.ads.in_break, self.ads.in_ad) = (false, false),
            _ => return,
        }
        self.causes.note_ad_boundary(now_ms);
        self.stretches.put_down_to(now_ms - NEAR_MS, StallCause::AdBoundary);
        self.picture.expect_fresh();
    }

    pub(super) fn observe_content(&mut self, kind: EventKind, detail: &EventDetail) {
        let is_content = !(self.ads.is_on() || detail.is_ad || is_ad_event(kind));
        if !is_content || detail.native_session_id.is_none() || kind == EventKind::Response {
            return;
        }
        let next = detail.segments.content_id.as_deref();
        let known = self.ads.content_id.as_deref();
        let is_told = kind == EventKind::ContentChange && next.is_none();
        let is_other = known.is_some() && next.is_some() && known != next;
        if is_told || is_other {
            // What was played so far is of the content that the row names.
            self.coverage.jump();
            self.row.content_changes += 1;
            self.picture.expect_fresh();
        }
        if is_told || next.is_some() && known != next {
            self.ads.content_id = next.map(str::to_owned);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::session::fixtures::{check_columns, check_pieces};

    const PRE_ROLL: &str = "0 playback_request
        1 ad_break_start
        1.5 ad_start
        2 playback_start bps=9000000
        32 ad_end
        33 ad_break_end
        33 playback_start seq=1 bps=1000000
        60 heartbeat bps=1000000";

    #[test]
    fn a_pre_roll_ends_the_startup_and_is_not_content() {
        check_pieces(PRE_ROLL, "-", "starting 0-2, ad 2-33, playing 33-60");
        check_columns(
            PRE_ROLL,
            "60",
            "plays=1 content_plays=1 startup_ms=2000 content_startup_ms=2000 ad_ms=31000 playing_ms=27000 \
             bitrate_known_ms=27000 shown_bits=27000000 watched_ms=60000 switches_down=0",
        );
        let left = PRE_ROLL.lines().take(4).collect::<Vec<_>>().join("\n");
        check_columns(
            &format!("{left}\n9 session_end"),
            "-",
            "plays=1 content_plays=0 startup_ms=2000 content_startup_ms=- ad_ms=7000 playing_ms=0",
        );
    }

    #[test]
    fn waiting_between_advertisement_and_content_is_content_startup() {
        check_columns(
            "0 playback_request\n2 ad_start\n2 playback_start seq=1 startup=2.1\n12 stall_start\n13 stall_end\n20 ad_end\n\
             20 stall_start seq=2\n23 stall_end\n30 heartbeat",
            "-",
            "startup_ms=2100 content_startup_ms=6100 ad_ms=17000 stall_ms=4000 stall_ad_ms=3000 stall_conn_ms=1000",
        );
    }

    #[test]
    fn a_mid_roll_is_no_switch_and_no_coverage() {
        check_columns(
            "0 playback_start at=0 duration=100 bps=1000\n20 heartbeat at=20 bps=1000\n20 ad_start bps=5000\n\
             30 heartbeat at=5 bps=5000\n40 ad_end\n41 heartbeat at=21 bps=2000\n50 heartbeat at=30 bps=3000\n60 heartbeat",
            "-",
            "ad_ms=20000 playing_ms=40000 switches_up=1 switches_down=0 covered_ms=40000 content_changes=0",
        );
    }

    #[test]
    fn another_content_in_one_session_is_counted() {
        let play = "0 playback_start sid=a content=x at=0 duration=100\n30 heartbeat sid=a content=x at=30";
        let of = |rest: &str, expected: &str| check_columns(&format!("{play}\n{rest}"), "-", expected);
        of(
            "40 heartbeat sid=a content=y at=2",
            "content_changes=1 covered_ms=40000 quartile=25",
        );
        of("40 content_change sid=a\n41 heartbeat sid=a content=y", "content_changes=1");
        of("40 content_change sid=a content=x", "content_changes=0");
        of("40 ad_start sid=a content=y\n50 heartbeat sid=a content=y", "content_changes=0");
        of("40 heartbeat sid=a content=y ad=true", "content_changes=0");
        of("40 heartbeat sid=a content=y\n50 heartbeat sid=a content=x", "content_changes=2");
        check_columns("0 playback_start content=x\n9 heartbeat content=y", "-", "content_changes=0");
    }
}
