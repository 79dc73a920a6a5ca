//! The operating system's file system.

use ::std::{
    collections::BTreeMap,
    fs,
    io::{self, IoSlice},
    num::NonZeroU64,
    os::{
        fd::AsFd as _,
        unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};
use rustix::{
    fs::{Advice, FlockOperation, fadvise, flock, statvfs, syncfs},
    io::{pwritev, retry_on_intr},
};

use super::{Caching, File, FileSystem, Open};

/// Files as the kernel gives them.
#[derive(Debug, Default, Clone, Copy)]
pub struct StdFileSystem;

impl FileSystem for StdFileSystem {
    fn open(&self, path: &Path, open: Open, caching: Caching) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match open {
            Open::Read => &mut options,
            Open::Write => options.write(true),
            Open::CreateNew => options.write(true).create_new(true),
            Open::CreateOrOpen => options.write(true).create(true).truncate(false),
        };
        if caching == Caching::Direct {
            options.custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
        }
        Ok(Arc::new(StdFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(path)?;
        let mut names = entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let directory = fs::File::open(path)?;
        disk_of(&directory, path)?;
        directory.sync_all()
    }

    fn can_sync_all(&self) -> bool {
        static WORKS: LazyLock<bool> = LazyLock::new(syncfs_reports_errors);
        *WORKS
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let directory = fs::File::open(path)?;
        let disk = disk_of(&directory, path)?;
        Ok(retry_on_intr(|| syncfs(&disk))?)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        let modified = fs::metadata(path)?.modified()?;
        let since = modified.duration_since(::std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let directory = fs::File::open(path)?;
        disk_of(&directory, path)?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(directory))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = statvfs(path)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }
}

/// A descriptor on the disk that holds an open directory: one for each disk, opened before anything
/// is written and never closed. The kernel tells a failed write to whoever had the disk open when
/// it failed; to a fresh descriptor, only if nobody else was told yet.
fn disk_of(directory: &fs::File, path: &Path) -> io::Result<Arc<fs::File>> {
    static DISKS: Mutex<BTreeMap<u64, Arc<fs::File>>> = Mutex::new(BTreeMap::new());
    let device = directory.metadata()?.dev();
    let mut disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(disk) = disks.get(&device) {
        return Ok(Arc::clone(disk));
    }
    // Not a duplicate of the caller's: that would share its lock.
    let disk = Arc::new(fs::File::open(path)?);
    disks.insert(device, Arc::clone(&disk));
    Ok(disk)
}

/// Linux before 5.8 answers success although writes failed.
fn syncfs_reports_errors() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|number| number.trim().parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (5, 8)
}

#[derive(Debug)]
struct StdFile(fs::File);

impl File for StdFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        Ok(pwritev(self.0.as_fd(), buffers, position)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn will_read(&self, position: u64, bytes: u64) {
        // Advice: a kernel that refuses it leaves the reads as they are.
        let _ = fadvise(&self.0, position, NonZeroU64::new(bytes), Advice::WillNeed);
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(fadvise(&self.0, 0, None, Advice::DontNeed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_synced_by_one_descriptor_that_stays() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let of = |path: &Path| disk_of(&fs::File::open(path).unwrap(), path).unwrap();
        let first = of(&inner);
        fs::remove_dir(&inner).unwrap();
        assert!(Arc::ptr_eq(&first, &of(dir.path())));
        StdFileSystem.sync_all(dir.path()).unwrap();
    }
}
