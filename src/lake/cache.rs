//! Files beside the tables that only save time: each can be thrown away at any moment.
//!
//! Invariant: a cache file is there whole or not at all, whatever is killed when.

use std::fs::File;
use std::io::{Error, Write};
use std::path::Path;

/// Writes a file under another name, makes it durable and gives it its name.
///
/// # Errors
/// What the file system says; the file before stays as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}
