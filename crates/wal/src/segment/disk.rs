//! Errors of segment files, and the removal of names.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    env::FileSystem,
    error::{Fatal, FsErrorClass, WalError, class},
};

/// Why segments could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// It ends by itself; the same call may be made again.
    #[error("disk full: {}", path.display())]
    DiskFull {
        /// What was to be written.
        path: PathBuf,
    },
    /// Descriptors are short; the same call may be made again.
    #[error("too many open files: {}", path.display())]
    TooManyOpenFiles {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The disk failed: the process has to end.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl From<SegmentError> for WalError {
    fn from(error: SegmentError) -> WalError {
        match error {
            SegmentError::DiskFull { path } => WalError::DiskFull { path },
            SegmentError::TooManyOpenFiles { path } => WalError::TooManyOpenFiles { path },
            SegmentError::Fatal(fatal) => WalError::Fatal(fatal),
        }
    }
}

/// Removes a partition's directory and, if it was its topic's last, the topic's, durably.
///
/// # Errors
/// As [`SegmentError`] says.
pub fn remove_dir(fs: &dyn FileSystem, dir: &Path) -> Result<(), SegmentError> {
    let failed = |error| write_error("cannot remove", dir, error);
    let names = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(failed)?,
    };
    for path in names.iter().rev() {
        remove_if_there(fs, path)?;
    }
    sync_dir(fs, dir)?;
    fs.remove_dir(dir).map_err(failed)?;
    let Some(topic) = dir.parent() else { return Ok(()) };
    sync_dir(fs, topic)?;
    if fs.list(topic).map_err(failed)?.is_empty() {
        match fs.remove_dir(topic) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
            removed => removed.map_err(failed)?,
        }
        if let Some(topics) = topic.parent() {
            sync_dir(fs, topics)?;
        }
    }
    Ok(())
}

pub(crate) fn remove_if_there(fs: &dyn FileSystem, path: &Path) -> Result<(), SegmentError> {
    match fs.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|error| write_error("cannot remove", path, error)),
    }
}

pub(super) fn sync_dir(fs: &dyn FileSystem, dir: &Path) -> Result<(), SegmentError> {
    fs.sync_dir(dir).map_err(|error| match class(&error) {
        // The directory was not even opened: nothing was dropped, so it may be tried again.
        FsErrorClass::TooManyOpenFiles => SegmentError::TooManyOpenFiles { path: dir.to_owned() },
        FsErrorClass::DiskFull | FsErrorClass::Other => {
            Fatal::new("cannot sync", dir, error).into()
        }
    })
}

pub(crate) fn write_error(what: &'static str, path: &Path, error: io::Error) -> SegmentError {
    match class(&error) {
        FsErrorClass::DiskFull => SegmentError::DiskFull { path: path.to_owned() },
        FsErrorClass::TooManyOpenFiles => SegmentError::TooManyOpenFiles { path: path.to_owned() },
        FsErrorClass::Other => SegmentError::Fatal(Fatal::new(what, path, error)),
    }
}
