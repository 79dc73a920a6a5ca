//! A machine in memory whose power can fail at any call.
//!
//! What was written and not synced may be on the disk afterwards, wholly, partly or not at all;
//! the same holds for names in a directory that was not synced. A seed decides, so that what broke
//! once breaks again. Time does not exist here, and no call blocks.

mod inode;
mod names;
pub(in crate::env) mod pages;
mod rng;
mod state;

#[cfg(test)]
mod tests;

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{
    inode::Inode,
    names::NodeId,
    rng::Rng,
    state::{Node, State},
};
use super::{Caching, DIRECT_ALIGN, File, FileSystem, Open};

/// A disk and the page cache above it. Clones are the same machine; [`MemFileSystem::fork`] is
/// another.
#[derive(Debug, Clone)]
pub struct MemFileSystem {
    state: Arc<Mutex<State>>,
}

impl Default for MemFileSystem {
    fn default() -> MemFileSystem {
        MemFileSystem::new()
    }
}

/// What a test does to the machine.
impl MemFileSystem {
    /// An empty machine that does not fail.
    #[must_use]
    pub fn new() -> MemFileSystem {
        MemFileSystem { state: Arc::new(Mutex::new(State::new())) }
    }

    /// A copy of the machine as it is now, to try another future. Handles stay with the original.
    #[must_use]
    pub fn fork(&self) -> MemFileSystem {
        let mut state = self.state().clone();
        state.process += 1;
        state.open_files = 0;
        state.locks.clear();
        MemFileSystem { state: Arc::new(Mutex::new(state)) }
    }

    /// The power fails and comes back: `seed` decides what of the unsynced is on the disk. Locks
    /// are free, handles from before are dead, and nothing is about to fail any more.
    pub fn crash(&self, seed: u64) {
        self.state().lose_power(seed);
    }

    /// The process dies, the kernel lives: as [`MemFileSystem::crash`], but nothing written is
    /// lost.
    pub fn kill(&self) {
        self.state().end_process();
    }

    /// Drops some clean pages: a read sees the disk again where a failed sync had left a lie.
    pub fn evict(&self, seed: u64) {
        self.state().evict(seed);
    }

    /// Calls so far that change anything, the one that failed included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The machine goes off in place of the changing call number `call` (the first is 1): that one
    /// and every later call fails until [`MemFileSystem::crash`] or [`MemFileSystem::kill`].
    pub fn crash_at(&self, call: u64) {
        self.state().crash_at = Some(call);
    }

    /// Whether the machine is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// File syncs so far, failed ones included.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Sync number `sync` of a file or of all (the first is 1) fails as Linux fails it: some
    /// sectors reached the disk, and the cache takes all of them for clean, so that a
    /// retry would succeed in vain.
    pub fn fail_sync_at(&self, sync: u64, seed: u64) {
        self.state().failing_sync = Some((sync, seed));
    }

    /// Bytes that all files together may have; writes beyond it fail with ENOSPC.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// Files that may be open at once; opens beyond it fail with EMFILE.
    pub fn set_open_files_max(&self, files: usize) {
        self.state().open_files_max = files;
    }

    /// Files open now.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.state().open_files
    }

    /// Paths of all files, sorted, relative to the root.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.state().files()
    }

    /// A file's bytes as a read sees them.
    ///
    /// # Errors
    /// Where there is no such file.
    pub fn contents(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let state = self.state();
        let inode = state.file(state.find(path.as_ref())?)?;
        let mut bytes = vec![0; inode.len() as usize];
        inode.read(0, &mut bytes);
        Ok(bytes)
    }

    /// A file's bytes as they would be if everything unsynced were lost.
    ///
    /// # Errors
    /// Where there is no such file.
    pub fn disk_contents(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let state = self.state();
        let disk = state.file(state.find(path.as_ref())?)?.on_disk();
        let mut bytes = vec![0; disk.len() as usize];
        disk.read(0, &mut bytes);
        Ok(bytes)
    }

    /// Flips one bit, in the cache and on the disk.
    ///
    /// # Errors
    /// Where there is no such file.
    pub fn flip(&self, path: impl AsRef<Path>, position: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state();
        let node = state.find(path.as_ref())?;
        state.file_mut(node)?.flip(position, bit);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileSystem for MemFileSystem {
    fn open(&self, path: &Path, open: Open, caching: Caching) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        state.alive()?;
        if state.open_files >= state.open_files_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let node = open_node(&mut state, path, open)?;
        state.file(node)?;
        state.open_files += 1;
        let process = state.process;
        drop(state);
        Ok(Arc::new(MemFile { machine: self.clone(), node, process, open, caching }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick()?;
        state.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick()?;
        state.remove(path, false)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick()?;
        state.remove(path, true)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        state.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        state.alive()?;
        let names = state.dir(state.find(path)?)?;
        Ok(names.all().map(|(name, _)| path.join(name)).collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick()?;
        let node = state.find(path)?;
        state.dir_mut(node)?.sync();
        Ok(())
    }

    fn can_sync_all(&self) -> bool {
        true
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.tick()?;
        state.find(path)?;
        let failing = state.next_sync_fails();
        state.sync_all(failing)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        state.alive()?;
        match state.find(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state();
        state.alive()?;
        let node = state.find(path)?;
        if !state.locks.insert(node) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let process = state.process;
        drop(state);
        Ok(Box::new(Lock { machine: self.clone(), node, process }))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state();
        state.alive()?;
        Ok(state.free_bytes())
    }

    fn random(&self) -> io::Result<u64> {
        let mut state = self.state();
        state.randoms += 1;
        Ok(Rng::new(state.randoms).next())
    }
}

fn open_node(state: &mut State, path: &Path, open: Open) -> io::Result<NodeId> {
    let (parent, name) = state.place(path)?;
    match (state.dir(parent)?.get(&name), open) {
        (Some(_), Open::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
        (Some(node), _) => Ok(node),
        (None, Open::Read | Open::Write) => Err(io::ErrorKind::NotFound.into()),
        (None, Open::CreateNew | Open::CreateOrOpen) => {
            state.tick()?;
            state.create(parent, name, Node::File(Inode::default()))
        }
    }
}

/// An open file. It dies with the process that opened it.
#[derive(Debug)]
struct MemFile {
    machine: MemFileSystem,
    node: NodeId,
    process: u64,
    open: Open,
    caching: Caching,
}

impl MemFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.machine.state();
        state.alive()?;
        if state.process == self.process {
            Ok(state)
        } else {
            Err(io::Error::other("the process that opened the file has ended"))
        }
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, State>> {
        if self.open == Open::Read {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let mut state = self.state()?;
        state.tick()?;
        Ok(state)
    }

    fn check_aligned(&self, buffer: &[u8], position: u64) -> io::Result<()> {
        let aligned = (buffer.as_ptr() as usize).is_multiple_of(DIRECT_ALIGN)
            && buffer.len().is_multiple_of(DIRECT_ALIGN)
            && position.is_multiple_of(DIRECT_ALIGN as u64);
        if self.caching == Caching::Buffered || aligned {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }
}

impl File for MemFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.check_aligned(buffer, position)?;
        let state = self.state()?;
        let inode = state.file(self.node)?;
        Ok(match self.caching {
            Caching::Buffered => inode.read(position, buffer),
            Caching::Direct => inode.read_direct(position, buffer),
        })
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut state = self.writable()?;
        let bytes: u64 = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        let growth = (position + bytes).saturating_sub(state.file(self.node)?.len());
        if growth > 0 && growth > state.free_bytes() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let inode = state.file_mut(self.node)?;
        let mut at = position;
        for buffer in buffers {
            self.check_aligned(buffer, at)?;
            inode.write(at, buffer);
            at += buffer.len() as u64;
        }
        Ok(bytes as usize)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.tick()?;
        let failing = state.next_sync_fails();
        let inode = state.file_mut(self.node)?;
        match failing {
            Some(seed) => inode.sync_in_vain(&mut Rng::new(seed)),
            None => {
                inode.sync();
                Ok(())
            }
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.writable()?;
        let growth = bytes.saturating_sub(state.file(self.node)?.len());
        if growth > 0 && growth > state.free_bytes() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        state.file_mut(self.node)?.set_len(bytes);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state()?;
        Ok(state.file(self.node)?.len())
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.file_mut(self.node)?.forget(|| true);
        Ok(())
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let mut state = self.machine.state();
        if state.process == self.process {
            state.open_files -= 1;
        }
    }
}

/// A directory taken, until dropped or until the process that took it ends.
struct Lock {
    machine: MemFileSystem,
    node: NodeId,
    process: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.machine.state();
        if state.process == self.process {
            state.locks.remove(&self.node);
        }
    }
}
