//! The terminal: one line a message, for people.
//!
//! Invariant: a line of ours holds no control character but its end.

use std::io::Write;

use super::Attempt;
use crate::alert::message;

/// Which of its two outputs the terminal target uses: a command that answers in JSON keeps the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    Output,
    Errors,
}

impl Terminal {
    pub(super) fn write(self, attempt: Attempt) -> std::io::Result<()> {
        let line = line(attempt);
        match self {
            Terminal::Output => writeln!(std::io::stdout().lock(), "{line}"),
            Terminal::Errors => writeln!(std::io::stderr().lock(), "{line}"),
        }
    }
}

/// The line for people; what is late says so.
pub(super) fn line(attempt: Attempt) -> String {
    let line = message::human(&attempt.message.event);
    match attempt.is_stale {
        true => format!("{line} (late: do not act on it)"),
        false => line,
    }
}
