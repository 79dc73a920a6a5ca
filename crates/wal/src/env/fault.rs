//! A file system that fails where a test says so: full disk, I/O error, no descriptor, short write.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Caching, File, FileSystem, Open};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the calls of `FileSystem` and `File`, and no more")]
pub enum Call {
    /// An open that may not create.
    Open,
    /// An open that may create.
    Create,
    Rename,
    RemoveFile,
    RemoveDir,
    CreateDir,
    List,
    SyncDir,
    SyncAll,
    Lock,
    Read,
    Write,
    Sync,
    SetLen,
    DropCache,
}

/// What a call that meets a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It fails with this error number and does nothing.
    Error(i32),
    /// It reads or writes at most this many bytes. Any other call goes through.
    Short(usize),
}

/// Which calls fail, and how.
#[derive(Debug, Clone)]
pub struct Fault {
    call: Call,
    path_part: Option<String>,
    skip: u64,
    times: u64,
    effect: Effect,
}

impl Fault {
    /// Every call of this kind, from now on.
    #[must_use]
    pub fn every(call: Call, effect: Effect) -> Fault {
        Fault { call, path_part: None, skip: 0, times: u64::MAX, effect }
    }

    /// Disk full.
    #[must_use]
    pub fn enospc(call: Call) -> Fault {
        Fault::every(call, Effect::Error(libc::ENOSPC))
    }

    /// The device failed.
    #[must_use]
    pub fn eio(call: Call) -> Fault {
        Fault::every(call, Effect::Error(libc::EIO))
    }

    /// No descriptor left.
    #[must_use]
    pub fn emfile(call: Call) -> Fault {
        Fault::every(call, Effect::Error(libc::EMFILE))
    }

    /// Only on paths that contain `part`; for a rename, the new name counts.
    #[must_use]
    pub fn on_path(mut self, part: impl Into<String>) -> Fault {
        self.path_part = Some(part.into());
        self
    }

    /// Lets the first `calls` go through.
    #[must_use]
    pub fn after(mut self, calls: u64) -> Fault {
        self.skip = calls;
        self
    }

    /// Ends after so many calls met it.
    #[must_use]
    pub fn times(mut self, calls: u64) -> Fault {
        self.times = calls;
        self
    }

    /// Whether this call meets the fault; counts it either way.
    fn meets(&mut self, call: Call, path: &Path) -> bool {
        let part = self.path_part.as_deref().unwrap_or_default();
        if call != self.call || self.times == 0 || !path.to_string_lossy().contains(part) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

/// Another file system, with faults. Clones share them.
#[derive(Debug, Clone)]
pub struct FaultFileSystem {
    inner: Arc<dyn FileSystem>,
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    faults: Vec<Fault>,
    calls: BTreeMap<Call, u64>,
    met: u64,
}

impl FaultFileSystem {
    /// No fault yet.
    #[must_use]
    pub fn new(inner: Arc<dyn FileSystem>) -> FaultFileSystem {
        FaultFileSystem { inner, script: Arc::default() }
    }

    /// Adds a fault; the first that a call meets decides.
    pub fn inject(&self, fault: Fault) {
        self.with(|script| script.faults.push(fault));
    }

    /// Everything works again.
    pub fn clear(&self) {
        self.with(|script| script.faults.clear());
    }

    /// Calls of this kind so far, failed ones included.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.with(|script| script.calls.get(&call).copied().unwrap_or(0))
    }

    /// Calls that met a fault so far.
    #[must_use]
    pub fn faults_met(&self) -> u64 {
        self.with(|script| script.met)
    }

    /// Counts a call; the most bytes it may move, or the error it fails with.
    fn enter(&self, call: Call, path: &Path) -> io::Result<usize> {
        self.with(|script| {
            *script.calls.entry(call).or_default() += 1;
            let fault =
                script.faults.iter_mut().find_map(|f| f.meets(call, path).then_some(f.effect));
            script.met += u64::from(fault.is_some());
            match fault {
                None => Ok(usize::MAX),
                Some(Effect::Short(bytes)) => Ok(bytes),
                Some(Effect::Error(number)) => Err(io::Error::from_raw_os_error(number)),
            }
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FileSystem for FaultFileSystem {
    fn open(&self, path: &Path, open: Open, caching: Caching) -> io::Result<Arc<dyn File>> {
        let call = match open {
            Open::Read | Open::Write => Call::Open,
            Open::CreateNew | Open::CreateOrOpen => Call::Create,
        };
        self.enter(call, path)?;
        let file = self.inner.open(path, open, caching)?;
        Ok(Arc::new(FaultFile { file, path: path.to_owned(), faults: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.enter(Call::Rename, to)?;
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.enter(Call::RemoveFile, path)?;
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.enter(Call::RemoveDir, path)?;
        self.inner.remove_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.enter(Call::CreateDir, path)?;
        self.inner.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.enter(Call::List, path)?;
        self.inner.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.enter(Call::SyncDir, path)?;
        self.inner.sync_dir(path)
    }

    fn can_sync_all(&self) -> bool {
        self.inner.can_sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.enter(Call::SyncAll, path)?;
        self.inner.sync_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        self.inner.modified_ms(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.enter(Call::Lock, path)?;
        self.inner.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.total_bytes(path)
    }

    fn random(&self) -> io::Result<u64> {
        self.inner.random()
    }
}

#[derive(Debug)]
struct FaultFile {
    file: Arc<dyn File>,
    path: PathBuf,
    faults: FaultFileSystem,
}

impl File for FaultFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let most = self.faults.enter(Call::Read, &self.path)?.min(buffer.len());
        self.file.read_at(&mut buffer[..most], position)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut most = self.faults.enter(Call::Write, &self.path)?;
        let mut some = Vec::with_capacity(buffers.len());
        for buffer in buffers {
            let part = most.min(buffer.len());
            some.push(IoSlice::new(&buffer[..part]));
            most -= part;
        }
        some.retain(|buffer| !buffer.is_empty());
        self.file.write_at(&some, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.enter(Call::Sync, &self.path)?;
        self.file.sync()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.faults.enter(Call::SetLen, &self.path)?;
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.faults.enter(Call::DropCache, &self.path)?;
        self.file.drop_cache()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{mem::MemFileSystem, write_all_at};

    fn numbers(results: impl IntoIterator<Item = io::Result<usize>>) -> Vec<Result<usize, i32>> {
        results.into_iter().map(|r| r.map_err(|e| e.raw_os_error().unwrap())).collect()
    }

    #[test]
    fn a_fault_meets_the_calls_it_names_and_no_other() {
        let fs = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
        let open = |path: &str| fs.open(Path::new(path), Open::CreateOrOpen, Caching::Buffered);
        let (a, b) = (open("a").unwrap(), open("b").unwrap());
        fs.inject(Fault::enospc(Call::Write).on_path("a").after(1).times(2));
        let write = |file: &Arc<dyn File>| file.write_at(&[IoSlice::new(b"four")], 0);
        let results = numbers([write(&a), write(&b), write(&a), write(&a), write(&a)]);
        assert_eq!(results, [Ok(4), Ok(4), Err(libc::ENOSPC), Err(libc::ENOSPC), Ok(4)]);
        assert_eq!((fs.calls(Call::Write), fs.faults_met()), (5, 2));
    }

    #[test]
    fn what_is_full_or_out_of_descriptors_recovers_when_cleared() {
        let fs = FaultFileSystem::new(Arc::new(MemFileSystem::new()));
        let open = || fs.open(Path::new("a"), Open::CreateOrOpen, Caching::Buffered);
        fs.inject(Fault::emfile(Call::Create));
        assert_eq!(open().unwrap_err().raw_os_error(), Some(libc::EMFILE));
        fs.clear();
        assert!(open().is_ok());
    }

    #[test]
    fn a_writer_goes_on_after_a_short_write() {
        let mem = MemFileSystem::new();
        let fs = FaultFileSystem::new(Arc::new(mem.clone()));
        let file = fs.open(Path::new("a"), Open::CreateNew, Caching::Buffered).unwrap();
        fs.inject(Fault::every(Call::Write, Effect::Short(5)));
        let mut slices = [IoSlice::new(b"abc"), IoSlice::new(b"defgh"), IoSlice::new(b"ijkl")];
        write_all_at(&*file, &mut slices, 0).unwrap();
        assert_eq!(mem.contents("a").unwrap(), b"abcdefghijkl");
        assert_eq!(fs.calls(Call::Write), 3);
    }
}
