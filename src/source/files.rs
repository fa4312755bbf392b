//! Local files and folders: plain, gzip and zstd, read once, resumed by name and byte.
//!
//! Implements the files source. A file's partition is its path and a fingerprint of its first record,
//! so that a rotated file under an old name is a new partition; what overlaps is caught as
//! duplicates.
//!
//! Files are read side by side, the one that is furthest behind in event time first, so that a replay
//! of many files meets its events nearly in order and few sessions are open at once (DESIGN D16).
//!
//! Invariant: a bounded number of files is open, and a batch never holds more than its limits plus
//! one record.
//! Invariant: half a last line waits for its end. A compressed file, or an input that is known to be
//! complete, ends its last line itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::lines::{self, CHUNK_BYTES, Codec, HEAD_BYTES, LastLine, LineReader, first_record, last_field_list, share_of, split_header};
use super::{BatchLimits, Part};
use crate::event::decode::{Format, detect};

/// The part of the first record that fingerprints a file: enough to hold an event's time and id.
const FINGERPRINT_BYTES: usize = 1 << 10;
/// Files that one source follows; past it the oldest idle names must be moved away.
pub const FILES_MAX: usize = 100_000;
/// Files that are open at once: enough for the hosts of a fleet, far below any limit of descriptors.
const OPEN_MAX: usize = 64;
/// Folders below a watched folder that are entered.
const FOLDER_DEPTH_MAX: usize = 16;

/// What can go wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("cannot read {path}: no such file or folder; check the name (relative names count from {cwd})")]
    NotFound { path: String, cwd: String },
    #[error("cannot read {path}: {why}; check its permissions (Playhead needs to read it)")]
    Unreadable { path: String, why: String },
    #[error(
        "cannot read {path} past byte {offset}: the {codec} stream is damaged ({why}); everything before was taken, replace the file to get the rest"
    )]
    Damaged {
        path: String,
        codec: &'static str,
        offset: i64,
        why: String,
    },
    #[error("more than {FILES_MAX} files below {path}; split the folder, or ingest it in parts")]
    TooMany { path: String },
}

/// A folder or file to read, with an optional format.
#[derive(Debug, Clone)]
pub struct FilesSpec {
    pub path: PathBuf,
    /// `None`: detected per file.
    pub format: Option<Format>,
    /// The first line names the columns and is no record.
    pub names_columns: bool,
}

/// A file that was found and waits for its position.
#[derive(Debug, Clone)]
pub struct Discovered {
    pub path: PathBuf,
    pub partition: Arc<str>,
    pub format: Option<Format>,
    /// What binds the columns of its first record.
    pub header: Arc<[u8]>,
    /// The first record's line, to tell the file's place in time.
    pub first_line: Vec<u8>,
    pub size_bytes: u64,
}

struct Followed {
    found: Discovered,
    codec: Codec,
    offset: i64,
    /// What binds the columns at `offset`; `None`: a `#Fields` line may stand before it and was not looked for.
    header: Option<Arc<[u8]>>,
    /// How far it has been read in event time; the earliest is read next.
    read_to_ms: i64,
    /// Size when the file was last read to its end.
    read_size: u64,
}

/// Reads the files it was given, side by side in event time.
pub struct FileSource {
    specs: Vec<FilesSpec>,
    /// The input is complete as it lies: last lines end at the end of the file.
    one_shot: bool,
    files: BTreeMap<PathBuf, Followed>,
    queue: BTreeSet<PathBuf>,
    open: BTreeMap<PathBuf, LineReader>,
}

impl Followed {
    /// The header at `offset`. Where reading begins in the middle of a file that has field lists, what stands
    /// before is read for the newest of them.
    fn header_in_force(&mut self) -> Result<Arc<[u8]>, FilesError> {
        if let Some(header) = &self.header {
            return Ok(Arc::clone(header));
        }
        let path = &self.found.path;
        let before = open_at(path, self.codec, 0)?.take(self.offset.unsigned_abs());
        let header = lines::newest_field_list(before).map_err(|error| read_error(path, self.codec, self.offset, &error))?;
        let header = header.map_or_else(|| Arc::clone(&self.found.header), Arc::from);
        self.header = Some(Arc::clone(&header));
        Ok(header)
    }
}

impl FileSource {
    pub fn new(specs: Vec<FilesSpec>, one_shot: bool) -> FileSource {
        FileSource {
            specs,
            one_shot,
            files: BTreeMap::new(),
            queue: BTreeSet::new(),
            open: BTreeMap::new(),
        }
    }

    /// Files that are new or have grown since the last call. New ones need `start`.
    ///
    /// # Errors
    /// A path that does not exist or cannot be read, in one-shot mode; a watched path may appear later.
    pub fn discover(&mut self) -> Result<Vec<Discovered>, FilesError> {
        let mut found = Vec::new();
        for spec in self.specs.clone() {
            let mut paths = Vec::new();
            match list(&spec.path, FOLDER_DEPTH_MAX, &mut paths) {
                Ok(()) => {}
                Err(FilesError::NotFound { .. }) if !self.one_shot => continue,
                Err(error) => return Err(error),
            }
            if paths.len() > FILES_MAX {
                return Err(FilesError::TooMany {
                    path: spec.path.display().to_string(),
                });
            }
            paths.sort();
            for path in paths {
                if let Some(new) = self.look_at(&path, &spec)? {
                    found.push(new);
                }
            }
        }
        Ok(found)
    }

    fn look_at(&mut self, path: &Path, spec: &FilesSpec) -> Result<Option<Discovered>, FilesError> {
        let size_bytes = std::fs::metadata(path).map_err(unreadable(path))?.len();
        let is_known = |followed: &Followed| size_bytes == followed.read_size || self.queue.contains(path);
        if self.files.get(path).is_some_and(is_known) {
            return Ok(None);
        }
        let found = inspect(path, spec, size_bytes)?;
        if let Some(followed) = self.files.get(path) {
            // A longer file that begins otherwise is a new one: the old one was rotated away between two looks.
            let has_grown = size_bytes > followed.read_size && found.partition == followed.found.partition;
            if has_grown && followed.codec == Codec::Plain {
                self.queue.insert(path.to_path_buf());
                return Ok(None);
            }
            self.files.remove(path);
        }
        // A file whose first record is not complete has no name yet: it waits.
        Ok(Some(found).filter(|found| self.one_shot || !found.first_line.is_empty()))
    }

    /// Queues a discovered file from a position; `read_to_ms` is the event time it stands at.
    pub fn start(&mut self, found: Discovered, offset: i64, read_to_ms: i64) {
        let codec = codec_of(&found.path).unwrap_or(Codec::Plain);
        let path = found.path.clone();
        self.queue.insert(path.clone());
        let is_bound = offset == 0 || !found.header.starts_with(b"#");
        self.files.insert(
            path,
            Followed {
                header: is_bound.then(|| Arc::clone(&found.header)),
                found,
                codec,
                offset,
                read_to_ms,
                read_size: 0,
            },
        );
    }

    /// Tells how far a partition has been read in event time.
    pub fn advance(&mut self, partition: &str, read_to_ms: i64) {
        for followed in self.files.values_mut().filter(|followed| &*followed.found.partition == partition) {
            followed.read_to_ms = followed.read_to_ms.max(read_to_ms);
        }
    }

    /// The queued file that is furthest behind in event time.
    fn next_file(&self) -> Option<PathBuf> {
        let time = |path: &&PathBuf| self.files.get(*path).map_or(i64::MIN, |followed| followed.read_to_ms);
        self.queue.iter().min_by_key(time).cloned()
    }

    /// Bytes of all queued files, for a progress bar (as stored, not as decompressed).
    pub fn queued_bytes(&self) -> u64 {
        self.files.values().map(|followed| followed.found.size_bytes).sum()
    }

    /// Bytes of the files that have been read to their end.
    pub fn done_bytes(&self) -> u64 {
        self.files.values().map(|followed| followed.read_size).sum()
    }

    /// True if every byte of a file of this size has been handed over.
    pub fn is_read(&self, path: &Path, size_bytes: u64) -> bool {
        let read_to = self.files.get(path).map(|followed| followed.offset);
        !self.queue.contains(path) && read_to.is_some_and(|offset| u64::try_from(offset).is_ok_and(|offset| offset >= size_bytes))
    }

    /// Forgets a file that has been removed.
    pub fn forget(&mut self, path: &Path) {
        self.let_go(path);
        self.files.remove(path);
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next bounded part of the file that is furthest behind; `None` if there is nothing to read.
    ///
    /// # Errors
    /// A file that cannot be read is taken out of the queue; the next call goes on with the others.
    pub fn next_part(&mut self, limits: BatchLimits) -> Result<Option<Part>, FilesError> {
        let Some(path) = self.next_file() else { return Ok(None) };
        match self.read_part(&path, share_of(limits)) {
            Ok(part) => {
                if part.finished {
                    self.let_go(&path);
                }
                Ok(Some(part))
            }
            Err(error) => {
                self.let_go(&path);
                if let Some(followed) = self.files.get_mut(&path) {
                    followed.read_size = followed.found.size_bytes;
                }
                Err(error)
            }
        }
    }

    fn let_go(&mut self, path: &Path) {
        self.queue.remove(path);
        self.open.remove(path);
    }

    fn read_part(&mut self, path: &Path, limits: BatchLimits) -> Result<Part, FilesError> {
        let one_shot = self.one_shot;
        let Some(followed) = self.files.get_mut(path) else {
            return Err(FilesError::NotFound {
                path: path.display().to_string(),
                cwd: current_folder(),
            });
        };
        if !self.open.contains_key(path) {
            let reader = open_at(path, followed.codec, followed.offset)?;
            if self.open.len() >= OPEN_MAX {
                // Any of them: a file that is closed is opened again at its offset.
                self.open.pop_first();
            }
            self.open.insert(path.to_path_buf(), LineReader::new(reader));
        }
        let Some(stream) = self.open.get_mut(path) else {
            return Err(FilesError::NotFound {
                path: path.display().to_string(),
                cwd: current_folder(),
            });
        };
        let mut part = Part {
            partition: Arc::clone(&followed.found.partition),
            format: followed.found.format,
            header: followed.header_in_force()?,
            buffer: Vec::new(),
            lines: Vec::new(),
            from: followed.offset,
            to: followed.offset,
            token: None,
            finished: false,
        };
        let last_line = match one_shot || followed.codec != Codec::Plain {
            true => LastLine::EndsIfWhole,
            false => LastLine::Waits,
        };
        stream
            .read_part(&mut part, limits, last_line)
            .map_err(|error| read_error(path, followed.codec, followed.offset, &error))?;
        followed.offset = part.to;
        if let Some(list) = last_field_list(&part) {
            followed.header = Some(list.into());
        }
        if part.finished {
            // What was read, not what is there by now: somebody may have written on since.
            followed.read_size = match followed.codec {
                Codec::Plain => part.to.unsigned_abs() + stream.unfinished_bytes(),
                Codec::Gzip | Codec::Zstd => followed.found.size_bytes,
            };
        }
        Ok(part)
    }
}

fn list(path: &Path, depth: usize, into: &mut Vec<PathBuf>) -> Result<(), FilesError> {
    let metadata = std::fs::metadata(path).map_err(unreadable(path))?;
    if metadata.is_file() {
        into.push(path.to_path_buf());
        return Ok(());
    }
    if depth == 0 || into.len() > FILES_MAX {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(unreadable(path))? {
        let entry = entry.map_err(unreadable(path))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Hidden and temporary names are somebody's unfinished writing.
        if name.starts_with('.') || name.starts_with('_') || name.ends_with(".tmp") || name.ends_with(".part") {
            continue;
        }
        list(&entry.path(), depth - 1, into)?;
    }
    Ok(())
}

fn inspect(path: &Path, spec: &FilesSpec, size_bytes: u64) -> Result<Discovered, FilesError> {
    let codec = codec_of(path)?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let read = open_at(path, codec, 0)?.take(HEAD_BYTES as u64).read_to_end(&mut head);
    if let Err(error) = read
        && head.is_empty()
    {
        return Err(read_error(path, codec, 0, &error));
    }
    // Headers stand alike at the head of every log: the first record tells one from the other.
    let (header, records) = split_header(&head, spec.names_columns);
    let identity = first_record(records).unwrap_or(&head);
    let fingerprint = xxh3_64(&identity[..identity.len().min(FINGERPRINT_BYTES)]);
    // The last line may still be written to, unless more is there than is looked at.
    let is_whole = codec != Codec::Plain || head.len() == HEAD_BYTES;
    let whole_bytes = if is_whole {
        head.len()
    } else {
        memchr::memrchr(b'\n', &head).map_or(0, |end| end + 1)
    };
    let (_, whole_records) = split_header(&head[..whole_bytes], spec.names_columns);
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    Ok(Discovered {
        path: path.to_path_buf(),
        partition: format!("{}#{:08x}", absolute.display(), fingerprint & 0xffff_ffff).into(),
        format: spec.format.or_else(|| detect(&head)),
        header: header.into(),
        first_line: first_record(whole_records).unwrap_or_default().to_vec(),
        size_bytes,
    })
}

fn codec_of(path: &Path) -> Result<Codec, FilesError> {
    let mut magic = [0u8; 4];
    let mut file = File::open(path).map_err(unreadable(path))?;
    let read = file.read(&mut magic).map_err(unreadable(path))?;
    Ok(Codec::of(&magic[..read]))
}

fn open_at(path: &Path, codec: Codec, offset: i64) -> Result<Box<dyn Read + Send>, FilesError> {
    let mut file = File::open(path).map_err(unreadable(path))?;
    let skip = offset.unsigned_abs();
    if codec == Codec::Plain {
        file.seek(SeekFrom::Start(skip)).map_err(unreadable(path))?;
        return Ok(Box::new(file));
    }
    let buffered = BufReader::with_capacity(CHUNK_BYTES, file);
    let mut reader = codec.unpack(buffered).map_err(unreadable(path))?;
    lines::skip(&mut reader, skip).map_err(|error| read_error(path, codec, offset, &error))?;
    Ok(reader)
}

fn read_error(path: &Path, codec: Codec, offset: i64, error: &std::io::Error) -> FilesError {
    if codec == Codec::Plain {
        return unreadable(path)(std::io::Error::new(error.kind(), error.to_string()));
    }
    FilesError::Damaged {
        path: path.display().to_string(),
        codec: codec.as_str(),
        offset,
        why: error.to_string(),
    }
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> FilesError + '_ {
    move |error| match error.kind() {
        std::io::ErrorKind::NotFound => FilesError::NotFound {
            path: path.display().to_string(),
            cwd: current_folder(),
        },
        _ => FilesError::Unreadable {
            path: path.display().to_string(),
            why: error.to_string(),
        },
    }
}

fn current_folder() -> String {
    std::env::current_dir().map_or_else(|_| "the working folder".to_string(), |path| path.display().to_string())
}
