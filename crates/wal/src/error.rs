//! What can go wrong, one variant for each thing that a caller can do about it.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use tidelog_types::{Offset, TopicIdPartition};

use crate::env::FileSystem;

/// Exit code of a process whose disk failed it.
pub const EXIT_CODE: i32 = 70;

/// What a failed call to the file system means (other people's fault, never damage by itself).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsErrorClass {
    /// ENOSPC or EDQUOT: a state of the disk that ends by itself.
    DiskFull,
    /// EMFILE or ENFILE: load, try again later.
    TooManyOpenFiles,
    /// Anything else.
    Other,
}

/// Sorts an error of a create, a write or a read. A failed *sync* is never sorted: it is fatal,
/// ENOSPC included, because the kernel may have dropped what it could not write.
#[must_use]
pub fn class(error: &io::Error) -> FsErrorClass {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => FsErrorClass::DiskFull,
        Some(libc::EMFILE | libc::ENFILE) => FsErrorClass::TooManyOpenFiles,
        _ => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FsErrorClass::DiskFull,
            _ => FsErrorClass::Other,
        },
    }
}

/// The disk failed in a way that nothing in this process can make good.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", path.display())]
pub struct Fatal {
    /// What was tried, as in "cannot sync".
    pub what: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl Fatal {
    /// Names what was tried on which file.
    #[must_use]
    pub fn new(what: &'static str, path: &Path, source: io::Error) -> Fatal {
        Fatal { what, path: path.to_owned(), source }
    }
}

/// Ends the process. Every thread loop calls this when its `step()` fails: what the kernel
/// dropped cannot be retried, and whoever starts the process again recovers from the disk.
pub fn die(fatal: &Fatal) -> ! {
    tracing::error!(path = %fatal.path.display(), error = %fatal.source, "{}; exiting", fatal.what);
    std::process::exit(EXIT_CODE)
}

/// Why the log of a data directory could not be opened, or one of its partitions not.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Another process has the directory.
    #[error("{} is in use by another process: stop the node first", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file without which nothing can be believed is unreadable; an operator must decide.
    #[error("{}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No space to start with.
    #[error("disk full: {}", path.display())]
    DiskFull {
        /// What was to be written.
        path: PathBuf,
    },
    /// Descriptors are short; try again later.
    #[error("too many open files: {}", path.display())]
    TooManyOpenFiles {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The partition is being removed; its id may come back once that is durable.
    #[error("{id} is being removed")]
    Removing {
        /// The partition.
        id: TopicIdPartition,
    },
    /// The log was closed, or is not there.
    #[error("the log is closed")]
    Closed,
    /// The disk failed.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl WalError {
    /// Sorts an error of a create, read or write of `path`.
    #[must_use]
    pub fn of(what: &'static str, path: &Path, source: io::Error) -> WalError {
        let path = path.to_owned();
        match class(&source) {
            FsErrorClass::DiskFull => WalError::DiskFull { path },
            FsErrorClass::TooManyOpenFiles => WalError::TooManyOpenFiles { path },
            FsErrorClass::Other => WalError::Fatal(Fatal { what, path, source }),
        }
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
/// [`WalError::TooManyOpenFiles`] when the directory could not even be opened: nothing was
/// dropped, so it may be tried again. Anything else is fatal.
pub(crate) fn sync_dir(fs: &dyn FileSystem, path: &Path) -> Result<(), WalError> {
    fs.sync_dir(path).map_err(|source| match class(&source) {
        FsErrorClass::TooManyOpenFiles => WalError::TooManyOpenFiles { path: path.to_owned() },
        FsErrorClass::DiskFull | FsErrorClass::Other => {
            WalError::Fatal(Fatal::new("cannot sync", path, source))
        }
    })
}

/// Why records cannot be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The disk is full; it ends by itself.
    #[error("disk full: {needed} bytes needed and {free} free at {}", path.display())]
    DiskFull {
        /// Bytes that were free when this was found.
        free: u64,
        /// Bytes that must be free before appends are accepted again.
        needed: u64,
        /// Where.
        path: PathBuf,
    },
    /// Records of this partition may be lost; it waits for a replica.
    #[error("the partition may have lost records")]
    Suspect,
    /// The place named lies in a damaged range.
    #[error("the log is damaged there")]
    Damaged,
    /// The disk cannot be asked now; try again later.
    #[error("the disk is busy")]
    Busy,
    /// A batch is larger than a WAL file.
    #[error("a batch of {bytes} bytes does not fit a WAL file")]
    TooLarge {
        /// The batch's size.
        bytes: u64,
    },
    /// The log was closed or removed.
    #[error("the log is closed")]
    Closed,
}

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Outside of the log.
    #[error("offset {offset} is outside of {log_start_offset}..{log_end_offset}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// First offset still readable.
        log_start_offset: Offset,
        /// The offset that the next record gets.
        log_end_offset: Offset,
    },
    /// Bytes there are not what was written.
    #[error("offsets {}..{} are damaged", range.start, range.end)]
    Damaged {
        /// The damaged offsets.
        range: Range<Offset>,
    },
    /// Records of this partition may be lost; it waits for a replica.
    #[error("the partition may have lost records")]
    Suspect,
    /// Descriptors are short; try again later.
    #[error("too many open files")]
    TooManyOpenFiles,
    /// More cold reads wait than are allowed; try again later.
    #[error("too many reads wait for the disk")]
    Busy,
    /// The log was closed or removed.
    #[error("the log is closed")]
    Closed,
    /// The disk could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}
