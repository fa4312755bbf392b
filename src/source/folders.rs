//! Files and folders as a source of the daemon, and the spool, which is a folder that is cleared.
//!
//! Stands between the daemon's reader and `files`, which knows how files are found and read.
//!
//! Invariant: a segment of the spool is removed only after all of its bytes have been committed to
//! bronze.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::files::{Discovered, FileSource, FilesError};
use super::spool::Spool;
use super::{BatchLimits, Found, Lag, Mark, Part, Source, SourceError};

/// Followed or one-shot files under a name.
pub struct FolderSource {
    name: String,
    files: FileSource,
    /// The spool that these files are, if a receiver writes one.
    spool: Option<Arc<Spool>>,
    /// Found, and waiting for their position.
    waiting: HashMap<Arc<str>, Discovered>,
    started: u64,
    is_stopped: bool,
    committed: HashMap<Arc<str>, i64>,
    /// Swept before anything of them was read in this run: nobody waits for them any more.
    swept: Vec<Arc<str>>,
    paths: HashMap<Arc<str>, PathBuf>,
}

impl FolderSource {
    pub fn new(name: &str, files: FileSource, spool: Option<Arc<Spool>>) -> FolderSource {
        FolderSource {
            name: name.to_string(),
            files,
            spool,
            waiting: HashMap::new(),
            started: 0,
            is_stopped: false,
            committed: HashMap::new(),
            swept: Vec::new(),
            paths: HashMap::new(),
        }
    }

    fn told(&self, error: &FilesError) -> SourceError {
        let text = error.to_string();
        let (what, advice) = text.split_once("; ").unwrap_or((&text, "see what stands there"));
        SourceError {
            source_name: self.name.clone(),
            what: what.to_string(),
            advice: advice.to_string(),
        }
    }

    /// Removes the segments that bronze has taken whole.
    fn sweep(&mut self) {
        let Some(spool) = &self.spool else { return };
        let segments = match spool.segments() {
            Ok(segments) => segments,
            Err(error) => return tracing::warn!("{error}"),
        };
        for segment in segments {
            let Some((partition, _)) = self.paths.iter().find(|(_, path)| **path == segment.path) else {
                continue;
            };
            let taken = self.committed.get(partition).and_then(|offset| u64::try_from(*offset).ok());
            if segment.is_open || taken.is_none_or(|taken| taken < segment.bytes) {
                continue;
            }
            let partition = Arc::clone(partition);
            match spool.remove(&segment.path) {
                Ok(true) => {
                    self.files.forget(&segment.path);
                    self.paths.remove(&partition);
                    self.committed.remove(&partition);
                    self.swept.push(partition);
                }
                Ok(false) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }
}

impl Source for FolderSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn discover(&mut self) -> Result<Vec<Found>, SourceError> {
        // Here and not at each commit: one look at the folder serves them all, and a segment may be closed
        // after its last line was committed.
        self.sweep();
        let discovered = self.files.discover().map_err(|error| self.told(&error))?;
        let mut found = Vec::with_capacity(discovered.len());
        for file in discovered {
            found.push(Found {
                partition: Arc::clone(&file.partition),
                format: file.format,
                header: Arc::clone(&file.header),
                first_line: file.first_line.clone(),
            });
            self.waiting.insert(Arc::clone(&file.partition), file);
        }
        Ok(found)
    }

    fn start(&mut self, partition: &Arc<str>, from: Option<Mark>) {
        let Some(file) = self.waiting.remove(partition) else { return };
        self.started += 1;
        let offset = from.map_or(0, |mark| mark.offset);
        if self.spool.is_some() {
            self.paths.insert(Arc::clone(partition), file.path.clone());
            self.committed.insert(Arc::clone(partition), offset);
        }
        self.files.start(file, offset, i64::MIN);
    }

    fn next_part(&mut self, limits: BatchLimits) -> Result<Option<Part>, SourceError> {
        if self.is_stopped {
            return Ok(None);
        }
        self.files.next_part(limits).map_err(|error| self.told(&error))
    }

    fn committed(&mut self, partition: &Arc<str>, to: &Mark) {
        if self.spool.is_some() {
            self.committed.insert(Arc::clone(partition), to.offset);
        }
    }

    fn take_lost(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.swept)
    }

    fn advance(&mut self, partition: &str, read_to_ms: i64) {
        self.files.advance(partition, read_to_ms);
    }

    fn is_live(&self) -> bool {
        false
    }

    fn lag(&self) -> Lag {
        Lag {
            partitions: self.started,
            ..Lag::default()
        }
    }

    fn progress_bytes(&self) -> Option<(u64, u64)> {
        Some((self.files.done_bytes(), self.files.queued_bytes()))
    }

    fn stop(&mut self) {
        self.is_stopped = true;
        self.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{Records, passes};
    use super::super::files::FilesSpec;
    use super::*;

    /// A folder of files with numbered lines, as a source and as what it should give.
    fn folder() -> (tempfile::TempDir, Records) {
        let folder = tempfile::tempdir().unwrap();
        let mut expected = Records::new();
        for file in ["a", "b"] {
            let lines: Vec<String> = (0..10).map(|number| format!("{{\"file\":\"{file}\",\"n\":{number}}}")).collect();
            let path = folder.path().join(format!("{file}.ndjson"));
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
            expected.insert(file.to_string(), lines);
        }
        (folder, expected)
    }

    #[test]
    fn a_folder_passes_what_every_source_passes() {
        let (folder, by_file) = folder();
        let make = || {
            let spec = FilesSpec {
                path: folder.path().to_path_buf(),
                format: None,
                names_columns: false,
            };
            FolderSource::new("files", FileSource::new(vec![spec], false), None)
        };
        let mut names: Vec<Arc<str>> = make().discover().unwrap().into_iter().map(|found| found.partition).collect();
        names.sort();
        let expected = names.iter().map(|name| name.to_string()).zip(by_file.into_values()).collect();
        passes(&mut || Box::new(make()), &expected);
    }
}
