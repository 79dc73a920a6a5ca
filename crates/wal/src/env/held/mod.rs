//! The operating system's files, but what is not synced lives in this process only: `kill -9` is a
//! power loss.
//!
//! For test builds. Contents and lengths reach the disk with [`File::sync`]; creations, renames
//! and removals with [`FileSystem::sync_dir`], in their order. Directories themselves are created
//! and removed at once. One process, one such file system.

mod inode;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::inode::Inode;
use super::{Caching, File, FileSystem, Open, std::StdFileSystem};

type Shared = Arc<Mutex<Inode>>;

/// Holds back what was not synced. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct HeldFileSystem {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Files of the operating system that are open or not clean, by their path there.
    known: BTreeMap<PathBuf, Shared>,
    /// Directories with names that were not synced.
    dirs: BTreeMap<PathBuf, Pending>,
}

/// What happened to a directory's names since its last sync.
#[derive(Debug, Default)]
struct Pending {
    changes: Vec<Change>,
    /// Names that are not as the operating system has them.
    names: BTreeMap<OsString, Option<Shared>>,
}

#[derive(Debug)]
enum Change {
    Create(PathBuf, Shared),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl HeldFileSystem {
    /// Nothing is held yet.
    #[must_use]
    pub fn new() -> HeldFileSystem {
        HeldFileSystem::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl FileSystem for HeldFileSystem {
    fn open(&self, path: &Path, open: Open, _caching: Caching) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        let inode = match (state.find(path)?, open) {
            (Some(_), Open::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, Open::Read | Open::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, Open::CreateNew | Open::CreateOrOpen) => state.create(path)?,
        };
        Ok(Arc::new(HeldFile { system: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.find(from)?.ok_or(io::ErrorKind::NotFound)?;
        if from.parent() != to.parent() {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let (from_name, to_name) = (name_of(from)?, name_of(to)?);
        let pending = state.pending(from);
        pending.changes.push(Change::Rename(from.to_owned(), to.to_owned()));
        pending.names.insert(from_name, None);
        pending.names.insert(to_name, Some(inode));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(path)?.ok_or(io::ErrorKind::NotFound)?;
        let name = name_of(path)?;
        let pending = state.pending(path);
        pending.changes.push(Change::Remove(path.to_owned()));
        pending.names.insert(name, None);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.state().sync_dir(path)?;
        StdFileSystem.remove_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        StdFileSystem.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        let mut names: BTreeSet<PathBuf> = StdFileSystem.list(path)?.into_iter().collect();
        for (name, inode) in state.dirs.get(path).iter().flat_map(|pending| &pending.names) {
            match inode {
                Some(_) => names.insert(path.join(name)),
                None => names.remove(&path.join(name)),
            };
        }
        Ok(names.into_iter().collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.state().sync_dir(path)?;
        StdFileSystem.sync_dir(path)
    }

    fn can_sync_all(&self) -> bool {
        StdFileSystem.can_sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.state().sync_all()?;
        StdFileSystem.sync_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.state().held(path) {
            Some(inode) => Ok(inode.is_some()),
            None => StdFileSystem.exists(path),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        StdFileSystem.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        StdFileSystem.free_bytes(path)
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        StdFileSystem.total_bytes(path)
    }
}

impl State {
    /// What is held of a name: nothing, its removal, or its file.
    fn held(&self, path: &Path) -> Option<Option<Shared>> {
        self.dirs.get(path.parent()?)?.names.get(path.file_name()?).cloned()
    }

    fn find(&mut self, path: &Path) -> io::Result<Option<Shared>> {
        if let Some(inode) = self.held(path) {
            return Ok(inode);
        }
        if let Some(inode) = self.known.get(path) {
            return Ok(Some(Arc::clone(inode)));
        }
        match Inode::open(path) {
            Ok(inode) => {
                let inode = Arc::new(Mutex::new(inode));
                self.known.insert(path.to_owned(), Arc::clone(&inode));
                Ok(Some(inode))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&mut self, path: &Path) -> io::Result<Shared> {
        if !StdFileSystem.exists(path.parent().unwrap_or(Path::new("")))? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name = name_of(path)?;
        let inode = Arc::new(Mutex::new(Inode::nameless()));
        let pending = self.pending(path);
        pending.changes.push(Change::Create(path.to_owned(), Arc::clone(&inode)));
        pending.names.insert(name, Some(Arc::clone(&inode)));
        Ok(inode)
    }

    fn pending(&mut self, path: &Path) -> &mut Pending {
        self.dirs.entry(path.parent().unwrap_or(Path::new("")).to_owned()).or_default()
    }

    /// Does to the operating system's names what was held back.
    fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        for change in self.dirs.remove(dir).unwrap_or_default().changes {
            match change {
                Change::Create(path, inode) => {
                    lock(&inode).settle(&path)?;
                    self.known.insert(path, inode);
                }
                Change::Rename(from, to) => {
                    StdFileSystem.rename(&from, &to)?;
                    self.known.remove(&to);
                    if let Some(inode) = self.known.remove(&from) {
                        self.known.insert(to, inode);
                    }
                }
                Change::Remove(path) => {
                    StdFileSystem.remove_file(&path)?;
                    self.known.remove(&path);
                }
            }
        }
        Ok(())
    }

    fn sync_all(&mut self) -> io::Result<()> {
        let pending = self.dirs.values().flat_map(|pending| pending.names.values().flatten());
        for inode in self.known.values().chain(pending) {
            lock(inode).sync()?;
        }
        let dirs: Vec<PathBuf> = self.dirs.keys().cloned().collect();
        dirs.iter().try_for_each(|dir| self.sync_dir(dir))
    }

    /// Forgets a file that nobody has open and that the disk has all of.
    fn close(&mut self, closing: &Shared) {
        // Known here and held by the handle that goes; a directory's pending names count more.
        let last = Arc::strong_count(closing) == 2 && lock(closing).is_clean();
        if last {
            self.known.retain(|_, inode| !Arc::ptr_eq(inode, closing));
        }
    }
}

#[derive(Debug)]
struct HeldFile {
    system: HeldFileSystem,
    inode: Shared,
}

impl File for HeldFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        lock(&self.inode).read(position, buffer)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        lock(&self.inode).write(buffers, position)
    }

    fn sync(&self) -> io::Result<()> {
        lock(&self.inode).sync()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        lock(&self.inode).set_len(bytes);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.inode).len())
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        self.system.state().close(&self.inode);
    }
}

fn name_of(path: &Path) -> io::Result<OsString> {
    Ok(path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::write_all_at;

    /// The process is killed: what a new one finds.
    fn killed(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let names = StdFileSystem.list(dir).unwrap();
        let found = names.into_iter().map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        });
        found.collect()
    }

    fn open(fs: &HeldFileSystem, path: &Path) -> Arc<dyn File> {
        fs.open(path, Open::CreateOrOpen, Caching::Buffered).unwrap()
    }

    fn write(file: &Arc<dyn File>, position: u64, bytes: &[u8]) {
        write_all_at(&**file, &mut [IoSlice::new(bytes)], position).unwrap();
    }

    fn contents(fs: &HeldFileSystem, path: &Path) -> Vec<u8> {
        let file = fs.open(path, Open::Read, Caching::Buffered).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize + 9];
        let read = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(read);
        bytes
    }

    #[test]
    fn only_what_was_synced_under_a_synced_name_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, fs) = (dir.path(), HeldFileSystem::new());
        let path = dir.join("a");
        write(&open(&fs, &path), 0, b"synced");
        assert_eq!(killed(dir), []);
        assert_eq!(contents(&fs, &path), b"synced");
        open(&fs, &path).sync().unwrap();
        assert_eq!(killed(dir), []);
        fs.sync_dir(dir).unwrap();
        assert_eq!(killed(dir), [("a".to_owned(), b"synced".to_vec())]);
        write(&open(&fs, &path), 3, b"held back");
        open(&fs, &path).set_len(8).unwrap();
        assert_eq!(contents(&fs, &path), b"synheld ");
        assert_eq!(killed(dir), [("a".to_owned(), b"synced".to_vec())]);
        open(&fs, &path).sync().unwrap();
        assert_eq!(killed(dir), [("a".to_owned(), b"synheld ".to_vec())]);
        assert!(fs.state().known.is_empty(), "a clean closed file is remembered");
    }

    #[test]
    fn a_name_that_was_synced_before_its_contents_names_an_empty_file() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, fs) = (dir.path(), HeldFileSystem::new());
        let file = open(&fs, &dir.join("a"));
        write(&file, 0, b"late");
        fs.sync_dir(dir).unwrap();
        assert_eq!(killed(dir), [("a".to_owned(), vec![])]);
        assert_eq!(contents(&fs, &dir.join("a")), b"late");
        file.sync().unwrap();
        assert_eq!(killed(dir), [("a".to_owned(), b"late".to_vec())]);
    }

    #[test]
    fn names_change_on_disk_when_their_directory_is_synced_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, fs) = (dir.path(), HeldFileSystem::new());
        for name in ["a", "b"] {
            let file = open(&fs, &dir.join(name));
            write(&file, 0, name.as_bytes());
            file.sync().unwrap();
        }
        fs.sync_dir(dir).unwrap();
        fs.rename(&dir.join("b"), &dir.join("c")).unwrap();
        fs.rename(&dir.join("a"), &dir.join("b")).unwrap();
        fs.remove_file(&dir.join("c")).unwrap();
        write(&open(&fs, &dir.join("a")), 0, b"new, unsynced");
        let names = |names: &[&str]| names.iter().map(|name| dir.join(name)).collect::<Vec<_>>();
        assert_eq!(fs.list(dir).unwrap(), names(&["a", "b"]));
        assert_eq!(contents(&fs, &dir.join("b")), b"a");
        assert!(!fs.exists(&dir.join("c")).unwrap());
        let disk = |name: &str, bytes: &str| (name.to_owned(), bytes.as_bytes().to_vec());
        assert_eq!(killed(dir), [disk("a", "a"), disk("b", "b")]);
        fs.sync_dir(dir).unwrap();
        assert_eq!(killed(dir), [disk("a", ""), disk("b", "a")]);
    }

    #[test]
    fn what_was_cut_away_reads_as_zeros_when_the_file_grows_again() {
        let dir = tempfile::tempdir().unwrap();
        let (dir, fs) = (dir.path(), HeldFileSystem::new());
        let file = open(&fs, &dir.join("a"));
        write(&file, 0, &[1; 9000]);
        file.sync().unwrap();
        fs.sync_dir(dir).unwrap();
        file.set_len(10).unwrap();
        file.set_len(6000).unwrap();
        write(&file, 5000, &[2; 4]);
        let mut expected = vec![0; 6000];
        expected[..10].fill(1);
        expected[5000..5004].fill(2);
        assert_eq!(contents(&fs, &dir.join("a")), expected);
        file.sync().unwrap();
        assert_eq!(killed(dir), [("a".to_owned(), expected)]);
    }
}
