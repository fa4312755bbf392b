//! The answers that wait for one shard into the parts that the daemon takes.
//!
//! Stands between the reader's queue and `Source::next_part`; never waits.
//!
//! Invariant: a part ends between two records of Kinesis: the lines of an aggregated record stand in one.
//! Invariant: the attributes of a part stand behind all of its lines, so that its format shows in front.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::lease::END;
use super::reader::{Answer, Progress};
use crate::event::decode::{Format, detect};
use crate::source::{BatchLimits, Line, Part};

/// How much of a shard's first lines is looked at for its format.
const DETECT_BYTES: usize = 64 << 10;
/// Ends its task when it is dropped.
pub struct Task(pub JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A shard that is being read.
pub struct Reading {
    pub partition: Arc<str>,
    /// Ends with us.
    pub _task: Task,
    pub answers: mpsc::Receiver<Answer>,
    /// An answer of which the first records have been handed over.
    pub front: Option<(Answer, usize)>,
    pub offset: i64,
    pub token: Option<Arc<str>>,
    /// Set, or detected by the first lines.
    pub format: Option<Format>,
    pub progress: Arc<Progress>,
}

impl Reading {
    /// Age of the oldest record that waits; `None` before the first answer.
    pub fn behind_ms(&self) -> Option<i64> {
        self.progress.behind_ms(self.front.is_some() || !self.answers.is_empty())
    }

    /// Whole records of Kinesis up to the limits, and one at least; `None`: nothing waits.
    pub fn next_part(&mut self, limits: BatchLimits) -> Option<Part> {
        let mut part = self.empty_part();
        let mut attributes = Vec::new();
        while !part.finished {
            let Some((answer, first)) = self.front.take().or_else(|| Some((self.answers.try_recv().ok()?, 0))) else {
                break;
            };
            let next = copy_records(&answer, first, limits, &mut part, &mut attributes);
            if next < answer.records.len() {
                self.front = Some((answer, next));
                break;
            }
            part.finished = answer.is_end;
        }
        if part.lines.is_empty() && !part.finished {
            return None;
        }
        if part.finished {
            part.token = Some(END.into());
        }
        self.format = self.format.or_else(|| detect(&part.buffer[..part.buffer.len().min(DETECT_BYTES)]));
        part.format = self.format;
        let text_bytes = part.buffer.len();
        part.buffer.append(&mut attributes);
        for line in &mut part.lines {
            line.attributes = (line.attributes.0 + text_bytes, line.attributes.1 + text_bytes);
        }
        self.offset = part.to;
        self.token.clone_from(&part.token);
        Some(part)
    }

    fn empty_part(&self) -> Part {
        Part {
            partition: Arc::clone(&self.partition),
            format: None,
            header: Arc::default(),
            buffer: Vec::new(),
            lines: Vec::new(),
            from: self.offset,
            to: self.offset,
            token: self.token.clone(),
            finished: false,
        }
    }
}

/// Adds an answer's records from `first` on, as far as the limits allow; returns the first left over.
fn copy_records(answer: &Answer, first: usize, limits: BatchLimits, part: &mut Part, attributes: &mut Vec<u8>) -> usize {
    for (index, record) in answer.records.iter().enumerate().skip(first) {
        let bytes = part.buffer.len() + attributes.len() + record.text.len() + record.attributes.len();
        let is_too_much = bytes > limits.bytes || part.lines.len() + record.placed.len() > limits.records;
        if is_too_much && !part.lines.is_empty() {
            return index;
        }
        let text_moves = (part.buffer.len(), record.text.start);
        let attributes_move = (attributes.len(), record.attributes.start);
        let moved = |(to, from): (usize, usize), (start, end): (usize, usize)| (start + to - from, end + to - from);
        for placed in &answer.lines.placed[record.placed.clone()] {
            let (start, end) = moved(text_moves, placed.line);
            part.lines.push(Line {
                offset: part.to,
                start,
                end,
                attributes: moved(attributes_move, placed.attributes),
                oversized_bytes: placed.oversized_bytes,
            });
            part.to += 1;
        }
        part.buffer.extend_from_slice(&answer.lines.text[record.text.clone()]);
        attributes.extend_from_slice(&answer.lines.attributes[record.attributes.clone()]);
        part.token = Some(Arc::clone(&record.sequence));
    }
    answer.records.len()
}
