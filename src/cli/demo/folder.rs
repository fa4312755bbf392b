//! The demo's folder: of its own and gone at the end, or the user's and kept.
//!
//! Invariant: only a folder that was made here is removed.

use std::path::{Path, PathBuf};

use crate::daemon::Complaints;

/// Tries to find a name that nobody has; one process needs one.
const NAMES: u32 = 100;

/// A folder that is removed with this value, unless it is to be kept.
pub struct Folder {
    path: PathBuf,
    is_kept: bool,
}

impl Folder {
    /// The folder to keep, or a new one that only its owner may look into.
    ///
    /// # Errors
    /// The folder to keep has something in it; no folder can be made.
    pub fn make(kept: Option<&Path>) -> anyhow::Result<Folder> {
        if let Some(path) = kept {
            std::fs::create_dir_all(path)?;
            if std::fs::read_dir(path)?.next().is_some() {
                let complaint = format!("--keep {}: there is something in this folder; name a new one", path.display());
                return Err(Complaints(vec![complaint]).into());
            }
            return Ok(Folder {
                path: path.canonicalize()?,
                is_kept: true,
            });
        }
        let process = std::process::id();
        for number in 0..NAMES {
            let path = std::env::temp_dir().join(format!("playhead-demo-{process}-{number}"));
            match make_private(&path) {
                Ok(()) => return Ok(Folder { path, is_kept: false }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(anyhow::Error::new(error).context(format!("cannot make the folder {}", path.display()))),
            }
        }
        anyhow::bail!(
            "{} is full of folders of demos that were killed; remove playhead-demo-* there",
            std::env::temp_dir().display()
        )
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_kept(&self) -> bool {
        self.is_kept
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("playhead: {} is left behind: {error}", self.path.display());
        }
    }
}

fn make_private(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_its_own_is_gone_with_what_is_in_it() {
        let folder = Folder::make(None).unwrap();
        let path = folder.path().to_path_buf();
        std::fs::write(path.join("some.file"), "text").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_to_keep_is_kept_and_must_be_empty() {
        let bench = tempfile::tempdir().unwrap();
        let wanted = bench.path().join("mine");
        let folder = Folder::make(Some(&wanted)).unwrap();
        std::fs::write(folder.path().join("some.file"), "text").unwrap();
        drop(folder);
        assert!(wanted.join("some.file").exists());
        let error = Folder::make(Some(&wanted)).err().expect("it is not empty any more");
        assert!(error.to_string().contains("there is something in this folder"), "{error}");
    }
}
