//! The file system as the log sees it: few calls, each of which a test can tear, lose or fail.
//!
//! Nothing in `wal` or `raft` touches a file but through these traits. That is what lets a test
//! crash at every call, and the simulator drive every thread by its `step()`.

#[cfg(any(test, feature = "test-fs"))]
pub mod fault;
#[cfg(any(test, feature = "held"))]
pub mod held;
#[cfg(any(test, feature = "test-fs"))]
pub mod mem;
pub mod sched;
pub mod std;

use ::std::{
    fmt,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// It exists; read only.
    Read,
    /// It exists; read and write.
    Write,
    /// It must not exist yet; read and write.
    CreateNew,
    /// Created if missing, kept if there; read and write.
    CreateOrOpen,
}

/// Whether reads and writes bypass the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caching {
    /// Through the page cache.
    Buffered,
    /// Past it. Buffers, lengths and positions are multiples of [`DIRECT_ALIGN`]; where the file
    /// system refuses, `open` fails with [`io::ErrorKind::InvalidInput`] and the caller falls back.
    Direct,
}

/// Alignment of buffers, lengths and positions of [`Caching::Direct`], in bytes.
pub const DIRECT_ALIGN: usize = 4096;

/// A file system. Paths are absolute or relative to the process's working directory.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// Opens a file. A new name is durable only after [`FileSystem::sync_dir`] of its directory.
    ///
    /// # Errors
    /// As the operating system says; EMFILE and ENFILE are load, not damage.
    fn open(&self, path: &Path, open: Open, caching: Caching) -> io::Result<Arc<dyn File>>;
    /// Replaces `to` by `from` in one step. Durable after `sync_dir`.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name. Durable after `sync_dir`.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory. Durable after `sync_dir` of its parent.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its parents; the ones that exist stay. Each new name is durable
    /// after `sync_dir` of the directory above it.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, sorted, so that every run reads them in one order.
    ///
    /// # Errors
    /// As the operating system says.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// Any error ends the process: see [`crate::error`].
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Whether [`FileSystem::sync_all`] works here and reports every failed write.
    fn can_sync_all(&self) -> bool {
        false
    }
    /// Makes everything durable that was written to the file system that holds `path`, names
    /// included: one wait where many files were touched.
    ///
    /// # Errors
    /// Any error ends the process; [`io::ErrorKind::Unsupported`] where it does not work.
    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Whether there is a file or directory of this name.
    ///
    /// # Errors
    /// As the operating system says.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// When a file was last written to, in milliseconds since 1970.
    ///
    /// # Errors
    /// As the operating system says; [`io::ErrorKind::Unsupported`] where nobody knows.
    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Takes the directory for this process until the guard is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Bytes that may still be written to the file system that holds `path`.
    ///
    /// # Errors
    /// As the operating system says.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Bytes that the file system that holds `path` has in all.
    ///
    /// # Errors
    /// As the operating system says; [`io::ErrorKind::Unsupported`] where nobody knows.
    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// A number that nobody can foresee and that does not come twice, for a file's epoch. A
    /// machine in memory has its own, so that a history replays to the byte.
    ///
    /// # Errors
    /// When the operating system has none.
    fn random(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// An open file. Reads and writes name their position, so threads may share one.
pub trait File: Send + Sync + fmt::Debug {
    /// Reads at most `buffer.len()` bytes; 0 only at the end of the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes some of the buffers, in order; the caller goes on after a partial write.
    ///
    /// # Errors
    /// ENOSPC and EDQUOT are a state of the disk; any other error ends the process.
    fn write_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    /// Makes the contents, and the length where it grew, durable (fdatasync).
    ///
    /// # Errors
    /// Any error ends the process: what the kernel dropped cannot be retried.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// As [`File::write_at`].
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// The file's length in bytes.
    ///
    /// # Errors
    /// As the operating system says.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    ///
    /// # Errors
    /// As the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Has the disk asked for these bytes now, because reads of them are about to follow. Does not
    /// wait, and may do nothing.
    fn will_read(&self, position: u64, bytes: u64) {
        let _ = (position, bytes);
    }
    /// Forgets clean pages of the file, so that the next read sees the disk.
    ///
    /// # Errors
    /// As the operating system says.
    fn drop_cache(&self) -> io::Result<()>;
}

/// Reads exactly `buffer.len()` bytes, however often a signal interrupts it.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] where the file ends before; else as [`File::read_at`].
pub fn read_exact_at(file: &dyn File, buffer: &mut [u8], position: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], position + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all the buffers in order, at most [`IOV_MAX`] a call, going on after partial writes and
/// signals.
///
/// # Errors
/// As [`File::write_at`]; [`io::ErrorKind::WriteZero`] where it wrote nothing.
pub fn write_all_at(
    file: &dyn File,
    mut buffers: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut buffers, 0);
    while !buffers.is_empty() {
        let some = &buffers[..buffers.len().min(IOV_MAX)];
        match file.write_at(some, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut buffers, written);
                position += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Most buffers that one vectored write takes.
pub const IOV_MAX: usize = 1024;
