//! Errors of segment files, and the removal of names.

use std::{
    collections::BTreeSet,
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
    if !remove_dir_unsynced(fs, dir)? {
        return Ok(());
    }
    let Some(topic) = dir.parent() else { return Ok(()) };
    sync_dir(fs, topic)?;
    match topic.parent() {
        Some(topics) if remove_if_empty(fs, topic)? => sync_dir(fs, topics),
        _ => Ok(()),
    }
}

/// Removes directories of partitions and those of their topics that are empty then, durably: with
/// one sync of the disk, where that can be, however many they are.
///
/// # Errors
/// As [`SegmentError`] says.
pub(crate) fn remove_dirs(
    fs: &dyn FileSystem,
    dirs: &[PathBuf],
    data_dir: &Path,
) -> Result<(), SegmentError> {
    let mut changed = BTreeSet::new();
    for dir in dirs {
        remove_dir_unsynced(fs, dir)?;
        changed.extend(dir.parent());
    }
    for topic in changed.clone() {
        if remove_if_empty(fs, topic)? {
            changed.remove(topic);
            changed.extend(topic.parent());
        }
    }
    if changed.len() > 1 && fs.can_sync_all() {
        let synced = fs.sync_all(data_dir);
        return Ok(synced.map_err(|e| Fatal::new("cannot sync the disk of", data_dir, e))?);
    }
    changed.into_iter().try_for_each(|dir| sync_dir(fs, dir))
}

/// Removes a directory and all in it; false where there is none. Durable once the directory that it
/// was in is synced.
fn remove_dir_unsynced(fs: &dyn FileSystem, dir: &Path) -> Result<bool, SegmentError> {
    let failed = |error| write_error("cannot remove", dir, error);
    let names = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        listed => listed.map_err(failed)?,
    };
    for path in names.iter().rev() {
        remove_if_there(fs, path)?;
    }
    fs.remove_dir(dir).map_err(failed)?;
    Ok(true)
}

/// Removes a directory in which there is nothing; whether it did. Lists nothing: a topic's may hold
/// thousands of partitions.
fn remove_if_empty(fs: &dyn FileSystem, dir: &Path) -> Result<bool, SegmentError> {
    match fs.remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        removed => removed.map(|()| true).map_err(|e| write_error("cannot remove", dir, e)),
    }
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
