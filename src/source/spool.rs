//! The spool: records that were answered for and are not in bronze yet, one line each, on disk.
//!
//! Stands between `source::http` and the files source, which follows the spool's folder like any
//! other. One thread writes; requests that come together share one write and one `fdatasync`.
//!
//! ```text
//! <data>/spool/http-<start ms>-<n>.ndjson    a segment: appended to, closed, read, removed
//! <data>/spool/.lock                         held by the one daemon that writes here
//! ```
//!
//! Invariant: `append` gives `Ok` only when its lines would survive a `kill -9` or a loss of power.
//! Invariant: a segment that was closed is never written to again, and neither is one after a failed
//! write: a reader's position in it stays true.
//! Invariant: bytes on disk, bytes in the queue and bytes in one write are bounded.

mod writer;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::clock::Clock;
use writer::Writer;

const LOCK_NAME: &str = ".lock";
const SEGMENT_PREFIX: &str = "http-";
const SEGMENT_SUFFIX: &str = ".ndjson";

/// Requests that wait for the writer. Each is one connection's, so the bound on connections is met
/// first; past this the disk is far too slow anyway.
const QUEUE_MAX: usize = 4_096;
/// What is read at once while the end of a torn line is sought.
const TAIL_CHUNK_BYTES: u64 = 64 << 10;

/// How much a spool may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Of all segments together; past it `append` is refused until segments are removed.
    pub bytes_max: u64,
    /// Of one segment; past it the next one begins.
    pub segment_bytes: u64,
}

impl Default for SpoolLimits {
    /// 4 GiB are hours of a busy machine whose lake cannot be reached; 64 MiB are read in a second.
    fn default() -> SpoolLimits {
        SpoolLimits {
            bytes_max: 4 << 30,
            segment_bytes: 64 << 20,
        }
    }
}

/// Why lines were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    #[error("the spool {path} is used by another daemon; stop it, or give this one a data folder of its own")]
    Locked { path: String },
    #[error("the spool holds {bytes} of at most {bytes_max} bytes; records come faster than the lake takes them")]
    Full { bytes: u64, bytes_max: u64 },
    #[error("cannot write the spool {path}: {why}; check the disk and its permissions")]
    Io { path: String, why: String },
}

/// One file of the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub path: PathBuf,
    pub bytes: u64,
    /// Lines may still be appended to it.
    pub is_open: bool,
}

/// The spool of one daemon. Dropping it finishes what is queued and lets go of the lock.
#[derive(Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    /// `None` only while the spool is being dropped.
    queue: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
    /// Locked for as long as it is open.
    _lock: File,
}

/// What requests and the writer both look at.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    limits: SpoolLimits,
    /// On disk and queued.
    bytes: AtomicU64,
    /// A `fdatasync` failed: what the disk holds is unknown from then on, so nothing is promised.
    failed: AtomicBool,
    /// Why the last write failed, if it did.
    refuses: Mutex<Option<SpoolError>>,
    open_segment: Mutex<Option<PathBuf>>,
}

type Answer = oneshot::Sender<Result<(), SpoolError>>;

#[derive(Debug)]
enum Job {
    Append { text: String, answer: Answer },
    Close { answer: Answer },
}

impl Spool {
    /// Opens the folder, makes it if there is none, and cuts off lines that a kill tore. The first
    /// segment is made with the first append.
    ///
    /// # Errors
    /// `Locked`: another daemon writes here. `Io`: the folder cannot be made, read or written.
    pub fn open(folder: &Path, limits: SpoolLimits, clock: Arc<dyn Clock>) -> Result<Spool, SpoolError> {
        let failed = |error: &Error| io_error(folder, error);
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        let lock = lock(folder)?;
        let mut bytes = 0;
        for path in segment_paths(folder).map_err(|error| failed(&error))? {
            bytes += cut_torn_line(&path).map_err(|error| io_error(&path, &error))?;
        }
        let shared = Arc::new(Shared {
            folder: folder.to_path_buf(),
            limits,
            bytes: AtomicU64::new(bytes),
            failed: AtomicBool::new(false),
            refuses: Mutex::new(None),
            open_segment: Mutex::new(None),
        });
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        let mut writer = Writer::new(Arc::clone(&shared), clock);
        let thread = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || writer.run(&jobs))
            .map_err(|error| failed(&error))?;
        Ok(Spool {
            shared,
            queue: Some(queue),
            writer: Some(thread),
            _lock: lock,
        })
    }

    /// Appends lines, given without their line feeds. They are durable when this resolves; all of
    /// them or, as far as the caller may tell anybody, none.
    ///
    /// # Errors
    /// `Full`: try again later. `Io`: the lines may or may not be there; whoever sent them must send
    /// them again.
    pub async fn append(&self, lines: Vec<String>) -> Result<(), SpoolError> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = String::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        let size = text.len() as u64;
        self.shared.reserve(size)?;
        let (answer, told) = oneshot::channel();
        if let Err(error) = self.send(Job::Append { text, answer }) {
            self.shared.release(size);
            return Err(error);
        }
        self.wait(told).await
    }

    /// Closes the open segment, so that it can be removed once it has been read.
    ///
    /// # Errors
    /// `Full`: the writer is overloaded; try again later.
    pub async fn close_segment(&self) -> Result<(), SpoolError> {
        let (answer, told) = oneshot::channel();
        self.send(Job::Close { answer })?;
        self.wait(told).await
    }

    fn send(&self, job: Job) -> Result<(), SpoolError> {
        let sent = match &self.queue {
            Some(queue) => queue.try_send(job),
            None => return Err(self.shared.writer_is_gone()),
        };
        sent.map_err(|error| match error {
            TrySendError::Full(_) => self.shared.full(),
            TrySendError::Disconnected(_) => self.shared.writer_is_gone(),
        })
    }

    async fn wait(&self, told: oneshot::Receiver<Result<(), SpoolError>>) -> Result<(), SpoolError> {
        told.await.unwrap_or_else(|_| Err(self.shared.writer_is_gone()))
    }

    /// On disk and in the queue.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Nothing more is taken until segments are removed.
    pub fn is_full(&self) -> bool {
        self.bytes() >= self.shared.limits.bytes_max
    }

    /// The disk failed to keep a promise; the daemon has to be started anew.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Why the last write failed, if it did. It is tried again every few seconds, also when nothing comes.
    pub fn refuses(&self) -> Option<String> {
        let refuses = self.shared.refuses.lock().unwrap_or_else(PoisonError::into_inner);
        refuses.as_ref().map(SpoolError::to_string)
    }

    /// All segments, the oldest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn segments(&self) -> Result<Vec<Segment>, SpoolError> {
        let paths = segment_paths(&self.shared.folder).map_err(|error| io_error(&self.shared.folder, &error))?;
        // After the list and before the sizes: what is closed by now has its last size.
        let open = self.shared.open_segment();
        let mut segments = Vec::with_capacity(paths.len());
        for path in paths {
            let metadata = std::fs::metadata(&path).map_err(|error| io_error(&path, &error))?;
            segments.push(Segment {
                is_open: open.as_ref() == Some(&path),
                bytes: metadata.len(),
                path,
            });
        }
        Ok(segments)
    }

    /// Removes a closed segment whose every line bronze has committed. `false`: it is not a closed
    /// segment of this spool, and stays.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(&self, path: &Path) -> Result<bool, SpoolError> {
        let Some(segment) = self.segments()?.into_iter().find(|segment| segment.path == path) else {
            return Ok(false);
        };
        if segment.is_open {
            return Ok(false);
        }
        std::fs::remove_file(path).map_err(|error| io_error(path, &error))?;
        self.shared.release(segment.bytes);
        Ok(true)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has answered nobody with success; there is nothing to add.
            let _ = writer.join();
        }
    }
}

impl Shared {
    /// Takes room for `size` more bytes.
    fn reserve(&self, size: u64) -> Result<(), SpoolError> {
        let with_room = |bytes: u64| (bytes + size <= self.limits.bytes_max).then_some(bytes + size);
        match self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_room) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.full()),
        }
    }

    fn release(&self, size: u64) {
        let less = |bytes: u64| Some(bytes.saturating_sub(size));
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn full(&self) -> SpoolError {
        SpoolError::Full {
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_max: self.limits.bytes_max,
        }
    }

    fn writer_is_gone(&self) -> SpoolError {
        io_error(&self.folder, &Error::other("its writer has stopped"))
    }

    fn open_segment(&self) -> Option<PathBuf> {
        self.open_segment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_open_segment(&self, path: Option<PathBuf>) {
        *self.open_segment.lock().unwrap_or_else(PoisonError::into_inner) = path;
    }
}

fn io_error(path: &Path, error: &Error) -> SpoolError {
    SpoolError::Io {
        path: path.display().to_string(),
        why: error.to_string(),
    }
}

fn lock(folder: &Path) -> Result<File, SpoolError> {
    let path = folder.join(LOCK_NAME);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| io_error(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::Locked {
            path: folder.display().to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error(&path, &error)),
    }
}

/// The segments in a folder, by name, which is by age.
fn segment_paths(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_segment = name
            .to_str()
            .is_some_and(|name| name.starts_with(SEGMENT_PREFIX) && name.ends_with(SEGMENT_SUFFIX));
        if is_segment && entry.file_type()?.is_file() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Cuts a file behind its last line feed and returns its length.
///
/// What stands there is a line that a kill tore: it was not answered for, and it is no record.
fn cut_torn_line(path: &Path) -> Result<u64, Error> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut end = length;
    let mut chunk = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(TAIL_CHUNK_BYTES);
        chunk.clear();
        (&file).seek(SeekFrom::Start(start))?;
        (&file).take(end - start).read_to_end(&mut chunk)?;
        if let Some(at) = memchr::memrchr(b'\n', &chunk) {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
        file.sync_all()?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::clock::ManualClock;

    const SMALL: SpoolLimits = SpoolLimits {
        bytes_max: 1_000,
        segment_bytes: 100,
    };

    fn open(folder: &Path, limits: SpoolLimits) -> Spool {
        Spool::open(folder, limits, Arc::new(ManualClock::at(1_790_000_000_000))).unwrap()
    }

    fn lines_on_disk(folder: &Path) -> Vec<String> {
        let texts = segment_paths(folder)
            .unwrap()
            .into_iter()
            .map(|path| std::fs::read_to_string(path).unwrap());
        texts
            .flat_map(|text| text.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    fn names(spool: &Spool) -> Vec<(String, u64, bool)> {
        let segments = spool.segments().unwrap().into_iter();
        segments
            .map(|segment| {
                (
                    segment.path.file_name().unwrap().to_str().unwrap().to_owned(),
                    segment.bytes,
                    segment.is_open,
                )
            })
            .collect()
    }

    #[tokio::test]
    async fn lines_are_on_disk_when_the_append_resolves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/spool");
        let spool = open(&path, SpoolLimits::default());
        assert_eq!(names(&spool), [], "no file before the first line");
        for line in ["a", "b", "c"] {
            spool.append(vec![line.to_owned(), format!("{line}{line}")]).await.unwrap();
            assert_eq!(lines_on_disk(&path).last().unwrap(), &format!("{line}{line}\n"));
        }
        assert_eq!(lines_on_disk(&path).concat(), "a\naa\nb\nbb\nc\ncc\n");
        assert_eq!(spool.bytes(), 15);
        assert_eq!(names(&spool), [("http-1790000000000-0001.ndjson".to_owned(), 15, true)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_requests_at_once_each_find_their_lines() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Arc::new(open(
            folder.path(),
            SpoolLimits {
                segment_bytes: 300,
                ..SpoolLimits::default()
            },
        ));
        let appends = (0..200).map(|number| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move { spool.append(vec![format!("line {number:03}")]).await })
        });
        for append in appends.collect::<Vec<_>>() {
            append.await.unwrap().unwrap();
        }
        let mut lines = lines_on_disk(folder.path());
        lines.sort();
        let expected: Vec<String> = (0..200).map(|number| format!("line {number:03}\n")).collect();
        assert_eq!(lines, expected);
        assert_eq!(spool.bytes(), 200 * 9);
    }

    #[tokio::test]
    async fn a_full_segment_is_followed_by_another_and_a_full_spool_refuses_until_one_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(folder.path(), SMALL);
        let line = || vec!["x".repeat(89)];
        for _ in 0..11 {
            spool.append(line()).await.unwrap();
        }
        let full = SpoolError::Full {
            bytes: 990,
            bytes_max: 1_000,
        };
        assert_eq!(spool.append(line()).await, Err(full));
        let segments = spool.segments().unwrap();
        assert_eq!(segments.len(), 11);
        assert!(segments[..10].iter().all(|segment| segment.bytes == 90 && !segment.is_open));
        assert!(segments[10].is_open);

        assert_eq!(spool.remove(&segments[10].path), Ok(false), "it may still grow");
        assert_eq!(spool.remove(&folder.path().join(".lock")), Ok(false));
        assert_eq!(spool.remove(Path::new("/etc/hostname")), Ok(false));
        assert_eq!(spool.remove(&segments[0].path), Ok(true));
        assert_eq!(spool.remove(&segments[0].path), Ok(false), "gone already");
        assert_eq!(spool.bytes(), 900);
        spool.append(line()).await.unwrap();
    }

    #[tokio::test]
    async fn an_old_segment_is_closed_and_so_is_one_on_demand() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_790_000_000_000));
        let spool = Spool::open(folder.path(), SpoolLimits::default(), clock.clone()).unwrap();
        spool.append(vec!["a".to_owned()]).await.unwrap();
        clock.advance(60 * 60 * 1000);
        spool.append(vec!["b".to_owned()]).await.unwrap();
        spool.close_segment().await.unwrap();
        spool.close_segment().await.unwrap();
        let expected = [("http-1790000000000-0001.ndjson", false), ("http-1790003600000-0002.ndjson", false)];
        let found = names(&spool);
        assert_eq!(
            found.iter().map(|(name, _, is_open)| (name.as_str(), *is_open)).collect::<Vec<_>>(),
            expected
        );
    }

    #[tokio::test]
    async fn a_line_that_a_kill_tore_is_cut_off_and_the_segment_is_not_written_to_again() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("http-1790000000000-0001.ndjson");
        let check = |before: &str, after: &str| {
            std::fs::write(&old, before).unwrap();
            let spool = open(folder.path(), SpoolLimits::default());
            assert_eq!(std::fs::read_to_string(&old).unwrap(), after);
            assert_eq!(spool.bytes(), after.len() as u64);
            spool
        };
        let long = "y".repeat(200_000);
        check("", "");
        check("whole\n", "whole\n");
        check("torn", "");
        check(&format!("whole\n{long}"), "whole\n");
        check(&format!("{long}\n{long}"), &format!("{long}\n"));
        let spool = check("whole\nto", "whole\n");
        spool.append(vec!["new".to_owned()]).await.unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "whole\n");
        assert_eq!(lines_on_disk(folder.path()).concat(), "whole\nnew\n");
    }

    #[tokio::test]
    async fn two_daemons_never_share_a_spool() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), SMALL);
        let second = Spool::open(folder.path(), SMALL, Arc::new(ManualClock::at(0)));
        assert!(matches!(second, Err(SpoolError::Locked { .. })), "{second:?}");
        drop(first);
        open(folder.path(), SMALL);
    }

    #[tokio::test]
    async fn a_disk_that_fails_is_told_and_intake_goes_on_when_it_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let spool = open(&path, SMALL);
        std::fs::remove_dir_all(&path).unwrap();
        let told = spool.append(vec!["a".to_owned()]).await;
        assert!(matches!(told, Err(SpoolError::Io { .. })), "{told:?}");
        assert_eq!((spool.bytes(), spool.has_failed()), (0, false));
        assert!(spool.refuses().is_some_and(|why| why.contains("cannot write the spool")));
        std::fs::create_dir(&path).unwrap();
        // Nobody sends: it finds out by itself that there is room again.
        let until = Instant::now() + Duration::from_secs(20);
        while spool.refuses().is_some() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((spool.refuses(), lines_on_disk(&path).concat().trim()), (None, ""));
        spool.append(vec!["b".to_owned()]).await.unwrap();
        assert_eq!(lines_on_disk(&path).concat().trim_start(), "b\n");
    }

    #[tokio::test]
    async fn what_is_queued_when_the_spool_is_dropped_is_still_written() {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(folder.path(), SMALL);
        let (answer, told) = oneshot::channel();
        spool
            .send(Job::Append {
                text: "last\n".to_owned(),
                answer,
            })
            .unwrap();
        drop(spool);
        assert_eq!(told.await.unwrap(), Ok(()));
        assert_eq!(lines_on_disk(folder.path()).concat(), "last\n");
    }
}
