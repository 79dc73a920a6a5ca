//! Finds the chain in its directory: the newest valid header, and back from there.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    BLOCK_BYTES, Blank, ChainConfig, ChainFile, ChainWriter, FileHeader, FilePool, HeaderError,
};
use crate::{
    env::{Caching, File, FileSystem, Open, read_exact_at},
    error::{Fatal, WalError, sync_dir},
    rules::{Rule, holds},
};

/// What the directory holds. Nothing has been changed yet, but unfinished files removed.
#[derive(Debug)]
pub struct RecoveredChain {
    /// The chain, oldest file first. Its end is not judged: that is for who knows the records.
    pub files: Vec<Arc<ChainFile>>,
    fs: Arc<dyn FileSystem>,
    config: ChainConfig,
    blanks: Vec<Blank>,
    next_slot: u64,
    highest_number: u64,
}

/// Reads all headers and follows the newest one's predecessors back to the file that holds
/// `oldest_needed`. Files off that chain are free, whatever they hold.
///
/// # Errors
/// [`WalError::Corrupt`] when a file is somebody else's or one of the chain is missing.
pub fn recover(
    fs: Arc<dyn FileSystem>,
    config: ChainConfig,
    oldest_needed: u64,
) -> Result<RecoveredChain, WalError> {
    let dir = config.dir.clone();
    fs.create_dir_all(&dir).map_err(|error| WalError::of("cannot create", &dir, error))?;
    let names = fs.list(&dir).map_err(|error| WalError::of("cannot list", &dir, error))?;
    let mut found = Vec::new();
    let mut next_slot = 0;
    for path in names {
        match slot(&path) {
            Slot::File(slot) => {
                next_slot = next_slot.max(slot + 1);
                found.push(Found::open(&*fs, &config, path)?);
            }
            Slot::Unfinished => fs
                .remove_file(&path)
                .map_err(|error| WalError::of("cannot remove", &path, error))?,
            Slot::Other => {}
        }
    }
    if holds(Rule::RecoveryReadsTheDisk) {
        settle_newest(&mut found, &config)?;
    }
    let highest_number =
        found.iter().filter_map(|f| f.header).map(|h| h.number).max().unwrap_or_default();
    let (files, blanks) = follow(found, oldest_needed, &dir)?;
    Ok(RecoveredChain { files, fs, config, blanks, next_slot, highest_number })
}

impl RecoveredChain {
    /// Removes a file that holds nothing, to make room; `false` if there is none.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn give_up_blank(&mut self) -> Result<bool, WalError> {
        let Some(Blank { path, .. }) = self.blanks.pop() else { return Ok(false) };
        let removed = self.fs.remove_file(&path);
        removed.map_err(|error| WalError::of("cannot remove", &path, error))?;
        // The journal gives the room back once the removal is in it.
        sync_dir(&*self.fs, &self.config.dir)?;
        Ok(true)
    }

    /// Frees the files before the one with this number. Call it only when what made them
    /// unnecessary is durable.
    pub fn free_before(&mut self, number: u64) {
        let freed = self.files.extract_if(.., |file| file.header.number < number);
        self.blanks.extend(freed.map(|file| Blank::of(&file)));
    }

    /// Goes on in a fresh file whose first record has `next_sequence`. Files of the chain with
    /// nothing below that are freed. The header is written, not yet synced: append what proves
    /// that recovery is done, and sync.
    ///
    /// # Errors
    /// [`WalError::DiskFull`] and the like when a file has to be created and cannot.
    pub fn resume(self, next_sequence: u64) -> Result<(Arc<FilePool>, ChainWriter), WalError> {
        let RecoveredChain { files, fs, config, mut blanks, next_slot, highest_number } = self;
        let (live, emptied): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.header.first_sequence < next_sequence);
        blanks.extend(emptied.iter().map(|file| Blank::of(file)));
        let dir = config.dir.clone();
        let pool = FilePool::new(Arc::clone(&fs), config, live, blanks, next_slot, highest_number);
        sync_dir(&*fs, &dir)?;
        let mut writer = ChainWriter::new(Arc::clone(&pool));
        // A spare file that was cut short may have room for its header alone.
        if !writer.roll(next_sequence, BLOCK_BYTES)? {
            pool.create_first()?;
            let rolled = writer.roll(next_sequence, BLOCK_BYTES)?;
            assert!(rolled, "a file was made ready and nobody else takes any");
        }
        Ok((pool, writer))
    }
}

impl RecoveredChain {
    /// Only for the test that shows why it is wrong. A recovery without rule 16 would go on where
    /// the last kept group ends, in the same file and with its epoch.
    pub(crate) fn resume_in_place(
        self,
        next_sequence: u64,
        position: u64,
    ) -> Result<(Arc<FilePool>, ChainWriter), WalError> {
        let RecoveredChain { files, fs, config, blanks, next_slot, highest_number } = self;
        let live: Vec<_> =
            files.into_iter().filter(|f| f.header.first_sequence < next_sequence).collect();
        let last = live.last().cloned();
        let pool = FilePool::new(fs, config, live, blanks, next_slot, highest_number);
        let mut writer = ChainWriter::new(Arc::clone(&pool));
        match last.filter(|last| position + BLOCK_BYTES <= last.bytes) {
            Some(last) => writer.go_on(last, position),
            None => {
                if !writer.roll(next_sequence, 0)? {
                    pool.create_first()?;
                    writer.roll(next_sequence, 0)?;
                }
            }
        }
        Ok((pool, writer))
    }
}

enum Slot {
    File(u64),
    Unfinished,
    Other,
}

fn slot(path: &Path) -> Slot {
    let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
    match (number, path.extension().and_then(|extension| extension.to_str())) {
        (Some(number), Some("wal")) => Slot::File(number),
        (Some(_), Some("tmp")) => Slot::Unfinished,
        _ => Slot::Other,
    }
}

struct Found {
    header: Option<FileHeader>,
    path: PathBuf,
    bytes: u64,
    file: Arc<dyn File>,
}

impl Found {
    fn open(fs: &dyn FileSystem, config: &ChainConfig, path: PathBuf) -> Result<Found, WalError> {
        let failed = |error| WalError::of("cannot read", &path, error);
        let file = fs.open(&path, Open::Write, Caching::Buffered).map_err(failed)?;
        let bytes = file.len().map_err(failed)?;
        let mut found = Found { header: None, path, bytes, file };
        found.read_header(config)?;
        Ok(found)
    }

    fn read_header(&mut self, config: &ChainConfig) -> Result<(), WalError> {
        let mut block = [0; BLOCK_BYTES as usize];
        read_exact_at(&*self.file, &mut block, 0)
            .map_err(|error| WalError::of("cannot read", &self.path, error))?;
        self.header = FileHeader::decode_block(&block, config.owner).map_err(|error| {
            let what = match error {
                HeaderError::Damaged | HeaderError::Impossible => "the file's header is damaged",
                HeaderError::Version => "the file was written by a later version",
                HeaderError::Owner => "the file belongs to another log",
            };
            WalError::Corrupt { path: self.path.clone(), what }
        })?;
        Ok(())
    }
}

/// Settles the only file in which what is read may not be on the disk. That its header was not
/// there either changes nothing for the file before: it was synced before the header was written.
fn settle_newest(found: &mut [Found], config: &ChainConfig) -> Result<(), WalError> {
    let newest = found.iter_mut().max_by_key(|found| found.header.map(|header| header.number));
    let Some(newest) = newest.filter(|newest| newest.header.is_some()) else { return Ok(()) };
    let path = &newest.path;
    newest.file.sync().map_err(|error| Fatal::new("cannot sync", path, error))?;
    let forgotten = newest.file.drop_cache();
    forgotten.map_err(|error| Fatal::new("cannot forget pages of", path, error))?;
    newest.read_header(config)
}

/// Splits what was found into the chain, oldest first, and the rest.
fn follow(
    found: Vec<Found>,
    oldest_needed: u64,
    dir: &Path,
) -> Result<(Vec<Arc<ChainFile>>, Vec<Blank>), WalError> {
    let mut by_number = BTreeMap::new();
    let mut blanks = Vec::new();
    for Found { header, path, bytes, file } in found {
        match header {
            Some(header) => {
                let file = Arc::new(ChainFile { header, path, bytes, file });
                if by_number.insert(header.number, file).is_some() {
                    let what = "two WAL files have the same number";
                    return Err(WalError::Corrupt { path: dir.to_owned(), what });
                }
            }
            None => blanks.push(Blank { path, bytes, file }),
        }
    }
    let mut chain = Vec::new();
    let mut next = by_number.keys().next_back().copied();
    while let Some(file) = next.and_then(|number| by_number.remove(&number)) {
        let enough = file.header.first_sequence <= oldest_needed;
        assert!(file.header.predecessor < file.header.number, "checked where headers are read");
        next = (!enough).then_some(file.header.predecessor);
        chain.push(file);
    }
    chain.reverse();
    if chain.first().is_some_and(|file| file.header.first_sequence > oldest_needed.max(1)) {
        let what = "a WAL file that is still needed is missing";
        return Err(WalError::Corrupt { path: dir.to_owned(), what });
    }
    blanks.extend(by_number.values().map(|file| Blank::of(file)));
    Ok((chain, blanks))
}
