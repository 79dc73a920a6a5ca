//! The files of a chain: those that recovery would read, and those that are ready to be written.

use std::{
    collections::VecDeque,
    io::IoSlice,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Blank, ChainConfig, ChainFile, FileHeader, block_align};
use crate::{
    env::{Caching, File, FileSystem, Open, write_all_at},
    error::{Fatal, WalError, sync_dir},
};

/// Bytes of the file that a log goes on in when there is no room for any more.
const FULL_DISK_FILE_BYTES: u64 = 64 << 10;
/// Bytes of zeros written at once.
const ZEROS_BYTES: usize = 1 << 20;

/// Shared by the writer, who takes files, whoever recycles them, and whoever fills new ones.
#[derive(Debug)]
pub struct FilePool {
    fs: Arc<dyn FileSystem>,
    config: ChainConfig,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first; the last one is being written.
    live: VecDeque<Arc<ChainFile>>,
    ready: VecDeque<Blank>,
    /// Files being zeroed, which count against the bound.
    filling: usize,
    /// The next file may be one more than the bound allows.
    may_exceed: bool,
    /// By how many files the bound was exceeded at most.
    exceeded: usize,
    next_slot: u64,
    highest_number: u64,
}

impl State {
    fn wants_file(&self, config: &ChainConfig) -> bool {
        let coming = self.ready_whole(config) + self.filling;
        let may_exceed = self.may_exceed && coming == 0;
        coming < config.files_ready && (self.files(config) < config.files_max || may_exceed)
    }

    fn files(&self, config: &ChainConfig) -> usize {
        self.live.len() + self.ready_whole(config) + self.filling
    }

    /// Smaller ones, of a start-up or an earlier setting, are used up where they suffice; nobody
    /// may have to wait because of them.
    fn ready_whole(&self, config: &ChainConfig) -> usize {
        self.ready.iter().filter(|blank| blank.bytes >= config.file_bytes).count()
    }
}

impl FilePool {
    pub(super) fn new(
        fs: Arc<dyn FileSystem>,
        config: ChainConfig,
        live: Vec<Arc<ChainFile>>,
        ready: Vec<Blank>,
        next_slot: u64,
        highest_number: u64,
    ) -> Arc<FilePool> {
        let (live, ready) = (live.into(), ready.into());
        let state = State { live, ready, next_slot, highest_number, ..State::default() };
        Arc::new(FilePool { fs, config, state: Mutex::new(state) })
    }

    /// Whether a file should be zeroed now.
    #[must_use]
    pub fn wants_file(&self) -> bool {
        self.lock().wants_file(&self.config)
    }

    /// Whether the disk has room for one more file.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // A disk that does not say how much is free says so when it is written to.
        self.fs.free_bytes(&self.config.dir).unwrap_or(u64::MAX) >= self.config.file_bytes
    }

    /// Creates and zeroes one file if one is wanted; returns whether it did. Reads and writes the
    /// disk for as long as that takes, so it belongs on a thread of its own.
    ///
    /// # Errors
    /// [`WalError::DiskFull`] leaves nothing behind; [`WalError::TooManyOpenFiles`] likewise.
    pub fn fill_one(&self) -> Result<bool, WalError> {
        let slot = {
            let mut state = self.lock();
            if !state.wants_file(&self.config) {
                return Ok(false);
            }
            if !self.has_room() {
                // Not even begun: what is free others may need to go on.
                let path = self.config.dir.join(file_name(state.next_slot));
                return Err(WalError::DiskFull { path });
            }
            let files = state.files(&self.config) + 1;
            if files > self.config.files_max {
                state.may_exceed = false;
                state.exceeded = state.exceeded.max(files - self.config.files_max);
            }
            state.filling += 1;
            state.next_slot += 1;
            state.next_slot - 1
        };
        let made = self.create(slot, self.config.file_bytes);
        let mut state = self.lock();
        state.filling -= 1;
        state.ready.push_back(made?);
        let files_max = self.config.files_max.saturating_add(state.exceeded);
        assert!(state.files(&self.config) <= files_max, "no more files than allowed");
        Ok(true)
    }

    /// Has one file more than the bound allows made for whoever waits for one, because the older
    /// files are freed only by what he has to write.
    pub(crate) fn exceed(&self) {
        self.lock().may_exceed = true;
    }

    /// Recycles the files, oldest first, that hold nothing at or above `oldest_needed`; returns
    /// how many. Call it only when what made them unnecessary is durable.
    ///
    /// # Errors
    /// When a file that is not kept cannot be removed.
    pub fn recycle_below(&self, oldest_needed: u64) -> Result<usize, WalError> {
        let mut recycled = 0;
        loop {
            let mut state = self.lock();
            let Some(next) = state.live.get(1) else { return Ok(recycled) };
            if next.header.first_sequence > oldest_needed {
                return Ok(recycled);
            }
            let Some(file) = state.live.pop_front() else { return Ok(recycled) };
            recycled += 1;
            if file.bytes == self.config.file_bytes
                && state.files(&self.config) < self.config.files_max
                && state.ready_whole(&self.config) < self.config.files_recycled_max
            {
                state.ready.push_back(Blank::of(&file));
            } else {
                drop(state);
                self.fs
                    .remove_file(&file.path)
                    .map_err(|error| WalError::of("cannot remove", &file.path, error))?;
            }
        }
    }

    /// The files that recovery would read, oldest first.
    #[must_use]
    pub fn live_files(&self) -> Vec<Arc<ChainFile>> {
        self.lock().live.iter().cloned().collect()
    }

    /// Bytes of the files that recovery would read.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.lock().live.iter().map(|file| file.bytes).sum()
    }

    /// First sequence of the oldest file that recovery would read.
    #[must_use]
    pub fn first_sequence(&self) -> Option<u64> {
        self.lock().live.front().map(|file| file.header.first_sequence)
    }

    pub(super) fn random_epoch(&self) -> Result<u64, Fatal> {
        let random = self.fs.random();
        random.map_err(|error| Fatal::new("no randomness for", &self.config.dir, error))
    }

    pub(super) fn config(&self) -> &ChainConfig {
        &self.config
    }

    /// Makes a blank of at least `bytes_min` bytes the newest file of the chain. Its header is
    /// made up, not written. `None` if no such file is ready.
    pub(super) fn start_file(
        &self,
        first_sequence: u64,
        bytes_min: u64,
        epoch: u64,
    ) -> Option<Arc<ChainFile>> {
        let mut state = self.lock();
        let place = state.ready.iter().position(|blank| blank.bytes >= bytes_min)?;
        let blank = state.ready.remove(place)?;
        state.highest_number += 1;
        let predecessor = state.live.back().map_or(0, |file| file.header.number);
        let number = state.highest_number;
        assert!(predecessor < number, "a file's number is above its predecessor's");
        let before = state.live.back().map_or(0, |file| file.header.first_sequence);
        assert!(before < first_sequence, "a file begins behind its predecessor's first record");
        let header = FileHeader { number, epoch, first_sequence, predecessor };
        let Blank { path, bytes, file } = blank;
        let file = Arc::new(ChainFile { header, path, bytes, file });
        state.live.push_back(Arc::clone(&file));
        Some(file)
    }

    /// Creates a file of the first file's size at once, for a start-up with none ready; a much
    /// smaller one where the disk is full, so that what it holds can be served.
    pub(super) fn create_first(&self) -> Result<(), WalError> {
        let slot = {
            let mut state = self.lock();
            state.next_slot += 1;
            state.next_slot - 1
        };
        let bytes = self.config.first_file_bytes;
        let blank = match self.create(slot, bytes) {
            Err(WalError::DiskFull { .. }) => self.create(slot, bytes.min(FULL_DISK_FILE_BYTES)),
            made => made,
        };
        self.lock().ready.push_front(blank?);
        Ok(())
    }

    /// A zeroed file gets its name when all its bytes are on disk, so that a name in the chain
    /// never stands for a short file.
    fn create(&self, slot: u64, bytes: u64) -> Result<Blank, WalError> {
        let path = self.config.dir.join(file_name(slot));
        let temporary = path.with_extension("tmp");
        let made = self.create_at(&temporary, &path, bytes);
        if made.is_err() {
            // Whatever is left of it only takes space; the next recovery finds it free as well.
            let _ = self.fs.remove_file(&temporary);
            let _ = self.fs.remove_file(&path);
        }
        made
    }

    fn create_at(&self, temporary: &Path, path: &Path, bytes: u64) -> Result<Blank, WalError> {
        let failed = |what| move |error| WalError::of(what, path, error);
        let fatal = |error| Fatal::new("cannot sync", path, error);
        self.zero(temporary, bytes).map_err(failed("cannot zero"))?;
        let file = self
            .fs
            .open(temporary, Open::Write, Caching::Buffered)
            .map_err(failed("cannot open"))?;
        file.sync().map_err(fatal)?;
        self.fs.rename(temporary, path).map_err(failed("cannot rename"))?;
        sync_dir(&*self.fs, &self.config.dir)?;
        Ok(Blank { path: path.to_owned(), bytes, file })
    }

    /// Past the page cache where the file system allows it: a writeback of this size beside the
    /// writer's syncs would hold them up.
    fn zero(&self, path: &Path, bytes: u64) -> std::io::Result<()> {
        let direct = self.fs.open(path, Open::CreateOrOpen, Caching::Direct);
        let file = match direct {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                self.fs.open(path, Open::CreateOrOpen, Caching::Buffered)?
            }
            other => other?,
        };
        write_zeros(&*file, bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_zeros(file: &dyn File, bytes: u64) -> std::io::Result<()> {
    let align = crate::env::DIRECT_ALIGN;
    let piece = ZEROS_BYTES.min(block_align(bytes) as usize);
    let zeros = vec![0_u8; piece + align];
    let start = zeros.as_ptr().align_offset(align);
    let zeros = &zeros[start..start + piece];
    let mut position = 0;
    while position < bytes {
        let piece = zeros.len().min((bytes - position) as usize);
        write_all_at(file, &mut [IoSlice::new(&zeros[..piece])], position)?;
        position += piece as u64;
    }
    Ok(())
}

/// Name of the file in a slot. Says nothing about its place in the chain.
pub(super) fn file_name(slot: u64) -> PathBuf {
    PathBuf::from(format!("{slot:020}.wal"))
}
