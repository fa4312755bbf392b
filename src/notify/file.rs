//! A file that keeps each message as one line of JSON.
//!
//! Invariant: a message is delivered once it is on the disk; a line that a crash cut short is ended
//! before the next one begins.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{Attempt, NotifyError};
use crate::alert::target::FileTarget;

pub(super) async fn append(target: &FileTarget, attempt: Attempt<'_>) -> Result<(), NotifyError> {
    let (path, body) = (target.path.clone(), attempt.message.body.clone());
    let written = tokio::task::spawn_blocking(move || append_line(&path, &body)).await;
    // A write that panicked has not happened.
    let written = written.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    written.map_err(|source| NotifyError::File {
        path: target.path.clone(),
        source,
    })
}

fn append_line(path: &Path, body: &str) -> std::io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let mut line = String::with_capacity(body.len() + 2);
    if ends_in_a_line(&mut file)? {
        line.push('\n');
    }
    line.push_str(body);
    line.push('\n');
    file.write_all(line.as_bytes())?;
    file.sync_data()?;
    if is_new {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// True when the last line has no end.
fn ends_in_a_line(file: &mut File) -> std::io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_a_torn_one_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alerts.ndjson");
        append_line(&path, "{\"a\":1}").unwrap();
        append_line(&path, "{\"a\":2}").unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"a\":").unwrap();
        append_line(&path, "{\"a\":3}").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"a\":1}\n{\"a\":2}\n{\"a\":\n{\"a\":3}\n");
    }

    #[test]
    fn a_folder_that_is_missing_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(append_line(&folder.path().join("missing/alerts.ndjson"), "{}").is_err());
    }
}
