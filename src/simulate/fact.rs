//! What truly happened in a session, whatever a dialect can say of it.
//!
//! Stands between `script`, which writes facts down beside what the reference player says of them, and the
//! two that read them: `dialect`, which says them in another dialect, and `minutes`, which adds them up.

/// One thing that happened, at the time that stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The viewer wants to see it; a player may not know yet whose it is.
    Intent {
        names_user: bool,
    },
    FirstFrame {
        startup_ms: u32,
        rung: usize,
    },
    /// The player lives. `at_cs`: position in hundredths of a second.
    Heartbeat {
        at_cs: u32,
    },
    /// Another rung of the ladder from now on.
    Rung {
        rung: usize,
    },
    StallStart {
        at_cs: u32,
    },
    StallEnd {
        at_cs: u32,
        length_ms: i64,
    },
    Pause {
        at_cs: u32,
    },
    Resume {
        at_cs: u32,
    },
    SeekStart {
        from_cs: u32,
    },
    SeekEnd {
        to_cs: u32,
    },
    /// The seek is over and the picture is not back yet.
    SeekTail,
    /// Nothing more will be seen; `status` of the request that failed, if one did.
    FatalError {
        status: Option<u32>,
    },
    /// The natural end of the title.
    Finish {
        at_cs: u32,
    },
}

impl Fact {
    /// Nothing of the session comes after it, whatever a player still says.
    pub fn is_end(self) -> bool {
        matches!(self, Fact::FatalError { .. } | Fact::Finish { .. })
    }
}

/// A fact and when it was, epoch ms.
pub type At = (i64, Fact);
