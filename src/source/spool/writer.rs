//! The spool's one writer: takes what requests queued, writes and syncs it together, and answers.
//!
//! Stands on a thread of its own, for a disk may take its time.
//!
//! Invariant: `Ok` is answered after `fdatasync`, never before.
//! Invariant: a segment is written to by one `Writer`, from its creation to its close, and not after a
//! failed write.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Answer, Job, SEGMENT_PREFIX, SEGMENT_SUFFIX, Shared, SpoolError, cut_torn_line, io_error};
use crate::clock::Clock;

/// One write and one `fdatasync`: some milliseconds of a slow disk, so that nobody waits long.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// A segment is closed at this age, so that what bronze holds is soon removed here, and the files
/// source has few names to remember: 24 a day.
const SEGMENT_AGE_MS: i64 = 60 * 60 * 1000;
/// How often an idle writer looks at the age of its segment.
const IDLE_LOOK: Duration = Duration::from_secs(1);
/// How often it is tried whether a disk that failed can be written again: a sender that was told to come
/// again later may be waiting for just that.
const RETRY_EVERY_MS: i64 = 5_000;
/// No record to any decoder.
const BLANK_LINE: &str = "\n";

/// The thread that owns the open segment.
pub(super) struct Writer {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    segment: Option<OpenSegment>,
    segments_made: u64,
    is_failing: bool,
    tried_ms: i64,
}

struct OpenSegment {
    file: File,
    path: PathBuf,
    bytes: u64,
    started_ms: i64,
}

/// Appends that are written together.
#[derive(Default)]
struct Group {
    text: String,
    answers: Vec<Answer>,
}

impl Group {
    fn add(&mut self, text: &str, answer: Answer) {
        self.text.push_str(text);
        self.answers.push(answer);
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, clock: Arc<dyn Clock>) -> Writer {
        Writer {
            shared,
            clock,
            segment: None,
            segments_made: 0,
            is_failing: false,
            tried_ms: 0,
        }
    }

    /// Until the spool is dropped and its queue is empty.
    pub(super) fn run(&mut self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(IDLE_LOOK) {
                Ok(first) => self.work(first, jobs),
                Err(RecvTimeoutError::Timeout) => {
                    self.close_if_old();
                    self.try_again();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One job and those that came while the one before was written.
    fn work(&mut self, first: Job, jobs: &Receiver<Job>) {
        let mut group = Group::default();
        let mut closes = None;
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Append { text, answer } => group.add(&text, answer),
                Job::Close { answer } => {
                    closes = Some(answer);
                    break;
                }
            }
            next = (group.text.len() < GROUP_BYTES_MAX).then(|| jobs.try_recv().ok()).flatten();
        }
        if !group.answers.is_empty() {
            self.commit(group);
        }
        if let Some(answer) = closes {
            self.close();
            // Whoever asked may have gone; the segment is closed all the same.
            let _ = answer.send(Ok(()));
        }
    }

    fn commit(&mut self, group: Group) {
        let told = self.write_durably(&group.text);
        if told.is_err() {
            self.shared.release(group.text.len() as u64);
        }
        self.note_change(&told);
        for answer in group.answers {
            // A request that was given up needs no answer; its lines are taken as a repeat later.
            let _ = answer.send(told.clone());
        }
    }

    /// Once when writing begins to fail and once when it works again, not for every request.
    fn note_change(&mut self, told: &Result<(), SpoolError>) {
        match told {
            Err(error) if !self.is_failing => tracing::error!(%error, "events are refused and senders told to come again"),
            Ok(()) if self.is_failing => tracing::info!("the spool can be written again"),
            _ => {}
        }
        if told.is_err() || self.is_failing {
            *self.shared.refuses.lock().unwrap_or_else(PoisonError::into_inner) = told.clone().err();
        }
        self.is_failing = told.is_err();
    }

    /// After a failed write, while nothing comes: whether there is room again.
    fn try_again(&mut self) {
        let now_ms = self.clock.now_ms();
        let is_due = self.is_failing && now_ms.saturating_sub(self.tried_ms) >= RETRY_EVERY_MS;
        if !is_due || self.shared.reserve(BLANK_LINE.len() as u64).is_err() {
            return;
        }
        self.tried_ms = now_ms;
        self.commit(Group {
            text: BLANK_LINE.to_owned(),
            answers: Vec::new(),
        });
    }

    fn write_durably(&mut self, text: &str) -> Result<(), SpoolError> {
        if self.shared.failed.load(Ordering::Relaxed) {
            let why = Error::other("the disk failed to keep an earlier write; start the daemon again");
            return Err(io_error(&self.shared.folder, &why));
        }
        self.close_if_full(text.len() as u64);
        self.close_if_old();
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => self.create_segment().map_err(|error| io_error(&self.shared.folder, &error))?,
        };
        let written = segment.file.write_all(text.as_bytes()).map_err(|error| (error, false));
        let synced = written.and_then(|()| segment.file.sync_data().map_err(|error| (error, true)));
        match synced {
            Ok(()) => {
                segment.bytes += text.len() as u64;
                self.segment = Some(segment);
                Ok(())
            }
            Err((error, was_sync)) => {
                self.abandon(&segment, &error, was_sync);
                Err(io_error(&segment.path, &error))
            }
        }
    }

    fn close_if_full(&mut self, more: u64) {
        let limit = self.shared.limits.segment_bytes;
        if self.segment.as_ref().is_some_and(|segment| segment.bytes + more > limit) {
            self.close();
        }
    }

    fn close_if_old(&mut self) {
        let now_ms = self.clock.now_ms();
        let is_old = |segment: &OpenSegment| now_ms.saturating_sub(segment.started_ms) >= SEGMENT_AGE_MS;
        if self.segment.as_ref().is_some_and(is_old) {
            self.close();
        }
    }

    fn close(&mut self) {
        self.segment = None;
        self.shared.set_open_segment(None);
    }

    /// A new file under a name that was never used, and the folder's entry for it made durable.
    fn create_segment(&mut self) -> Result<OpenSegment, Error> {
        let started_ms = self.clock.now_ms();
        loop {
            self.segments_made += 1;
            let name = format!("{SEGMENT_PREFIX}{started_ms:013}-{:04}{SEGMENT_SUFFIX}", self.segments_made);
            let path = self.shared.folder.join(name);
            // Called open before it is there, so that nobody sees it as closed.
            self.shared.set_open_segment(Some(path.clone()));
            let created = OpenOptions::new().append(true).create_new(true).open(&path);
            let durable = created.and_then(|file| File::open(&self.shared.folder)?.sync_all().map(|()| file));
            let file = match durable {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => {
                    self.close();
                    return Err(error);
                }
            };
            return Ok(OpenSegment {
                file,
                path,
                bytes: 0,
                started_ms,
            });
        }
    }

    /// Gives up a segment after a failed write.
    ///
    /// Whole lines stay, though nobody was told so: a reader may have seen them, and they are known as
    /// repeats when they are sent again. A full disk may have room later; any other failed `fdatasync`
    /// leaves unknown what the disk holds (the kernel reports it once), so nothing more is promised.
    fn abandon(&mut self, segment: &OpenSegment, error: &Error, was_sync: bool) {
        let is_space = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        if was_sync && !is_space {
            self.shared.failed.store(true, Ordering::Relaxed);
        }
        match cut_torn_line(&segment.path) {
            // Nobody can have read anything of it. If it cannot be removed it is an empty segment more.
            Ok(0) => drop(std::fs::remove_file(&segment.path)),
            Ok(bytes) => drop(self.shared.bytes.fetch_add(bytes.saturating_sub(segment.bytes), Ordering::Relaxed)),
            Err(_) => {}
        }
        self.close();
    }
}
