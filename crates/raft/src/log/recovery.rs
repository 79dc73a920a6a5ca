//! Where the log ends, and whether it may be believed.
//!
//! Only the newest file may end in a torn record, and only above everything that some valid record
//! calls durable. Anything else that does not read is damage, and damage refuses the start: a log
//! is never shortened silently.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tidelog_wal::{
    WalError,
    chain::{
        self, BLOCK_BYTES, ChainConfig, ChainFile, ChainWriter, FileHeader, FilePool,
        RecoveredChain, block_align, whole_blocks,
    },
    env::{Caching, FileSystem, Open, read_exact_at},
};
use tracing::warn;

use super::{
    offsets::OffsetTable,
    record::{Framed, RECORD_ALIGN, Record},
    replay::{Location, Replay},
};
use crate::{config::RaftConfig, entry_cache::EntryCache, error::RaftError};

/// Tells our files from those of the partition log.
const OWNER: [u8; 4] = *b"RAFT";
/// Bytes of the file that a start creates when none is ready; the next ones are created beside.
const FIRST_FILE_BYTES: u64 = 512 << 10;
/// Freed files that are kept for the next ones.
const FILES_RECYCLED_MAX: usize = 4;
/// Bytes of a file that records other than entries may take.
const STATE_BYTES_MAX: u64 = 16 << 10;

/// The log as it was found, ready to go on in a fresh file that has nothing in it yet.
#[derive(Debug)]
pub(crate) struct RecoveredLog {
    pub(crate) replay: Replay,
    pub(crate) pool: Arc<FilePool>,
    pub(crate) chain: ChainWriter,
    pub(crate) next_sequence: u64,
    /// Whether there was no log at all.
    pub(crate) is_fresh: bool,
}

/// Bytes of the largest entry that a log with these settings takes.
pub(crate) fn entry_bytes_max(config: &RaftConfig) -> u64 {
    const RECORD_OVERHEAD: u64 = 256;
    whole_blocks(config.settings.segment_bytes) - BLOCK_BYTES - STATE_BYTES_MAX - RECORD_OVERHEAD
}

/// Reads the log in `dir`, makes what it keeps durable, and begins a fresh file.
///
/// # Errors
/// [`RaftError::Damaged`] where something that was synced does not read.
pub(crate) fn recover(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    config: &RaftConfig,
) -> Result<RecoveredLog, RaftError> {
    let oldest = oldest_sequence(&**fs, dir)?;
    let mut chain = chain::recover(Arc::clone(fs), chain_config(dir, config), oldest)?;
    let settings = &config.settings;
    let cache = EntryCache::new(0, settings.entries_memory_bytes, settings.entries_memory_max);
    let mut replay = Replay::new(cache, OffsetTable::new(settings.segment_bytes));
    let next_sequence = scan_files(&chain.files, config.group, &mut replay)?;
    free_files(&mut chain, &mut replay);
    let (pool, chain) = chain.resume(next_sequence)?;
    Ok(RecoveredLog { replay, pool, chain, next_sequence, is_fresh: next_sequence == 1 })
}

/// What an earlier life freed and did not use again is still linked to the log: without this, a
/// start would find no file to go on in, and make one.
fn free_files(chain: &mut RecoveredChain, replay: &mut Replay) {
    let (truncated, _) = replay.terms.truncated();
    for number in replay.table.files_below(truncated) {
        replay.table.forget_oldest(number);
    }
    if let Some(oldest) = replay.table.oldest_file() {
        chain.free_before(oldest);
    }
}

fn chain_config(dir: &Path, config: &RaftConfig) -> ChainConfig {
    let file_bytes = whole_blocks(config.settings.segment_bytes);
    ChainConfig {
        dir: dir.to_owned(),
        owner: OWNER,
        file_bytes,
        first_file_bytes: file_bytes.min(FIRST_FILE_BYTES),
        files_max: usize::MAX,
        files_ready: 1,
        files_recycled_max: FILES_RECYCLED_MAX,
    }
}

/// First sequence of the oldest file that the newest one's predecessors lead to.
fn oldest_sequence(fs: &dyn FileSystem, dir: &Path) -> Result<u64, RaftError> {
    if !fs.exists(dir).map_err(|error| RaftError::io("cannot look for", dir, error))? {
        return Ok(0);
    }
    Ok(chain_headers(fs, dir)?.first().map_or(0, |(header, _)| header.first_sequence))
}

/// The files that the newest one's predecessors lead to, oldest first.
pub(crate) fn chain_headers(
    fs: &dyn FileSystem,
    dir: &Path,
) -> Result<Vec<(FileHeader, PathBuf)>, RaftError> {
    let mut by_number = BTreeMap::new();
    for path in fs.list(dir).map_err(|error| RaftError::io("cannot list", dir, error))? {
        if path.extension().is_some_and(|extension| extension == "wal") {
            let header = read_header(fs, &path)?;
            by_number.extend(header.map(|header| (header.number, (header, path))));
        }
    }
    let mut next = by_number.keys().next_back().copied();
    let mut chain = Vec::new();
    while let Some(found) = next.and_then(|number| by_number.remove(&number)) {
        next = Some(found.0.predecessor);
        chain.push(found);
    }
    chain.reverse();
    Ok(chain)
}

fn read_header(fs: &dyn FileSystem, path: &Path) -> Result<Option<FileHeader>, RaftError> {
    let failed = |error| RaftError::io("cannot read", path, error);
    let file = fs.open(path, Open::Read, Caching::Buffered).map_err(failed)?;
    let mut header = [0; BLOCK_BYTES as usize];
    read_exact_at(&*file, &mut header, 0).map_err(failed)?;
    FileHeader::decode_block(&header, OWNER)
        .map_err(|error| RaftError::damaged(path, 0, error.to_string()))
}

/// Reads all files and makes what it keeps durable; returns the sequence to go on with.
fn scan_files(files: &[Arc<ChainFile>], group: u32, replay: &mut Replay) -> Result<u64, RaftError> {
    let Some(newest) = read_files(files, group, replay)? else { return Ok(1) };
    newest.settle()?;
    Ok(newest.next_sequence)
}

/// Reads all files, oldest first, and changes nothing; returns where the newest one ends.
pub(crate) fn read_files<'a>(
    files: &'a [Arc<ChainFile>],
    group: u32,
    replay: &mut Replay,
) -> Result<Option<Scan<'a>>, RaftError> {
    let Some((newest, sealed)) = files.split_last() else {
        return Ok(None);
    };
    let mut damage = None;
    for (file, successor) in sealed.iter().zip(&files[1..]) {
        let seal = successor.header.first_sequence;
        let mut scan = Scan::begin(file, group, replay)?;
        let stopped = scan.run(replay, Some(seal));
        if let Some(reason) = stopped {
            // No loss if a later record truncates past it; else the reason to refuse.
            replay.lose_anchor();
            damage = Some(RaftError::damaged(&file.path, scan.position, reason));
        }
    }
    let mut scan = Scan::begin(newest, group, replay)?;
    if let Some(reason) = scan.run(replay, None) {
        scan.judge(reason)?;
    }
    if scan.next_sequence > 1 {
        let missing = replay.finish().err();
        let missing = missing.map(|reason| RaftError::damaged(&newest.path, BLOCK_BYTES, reason));
        let unread = damage.filter(|_| missing.is_some() || !replay.has_anchor());
        if let Some(refusal) = unread.or(missing) {
            return Err(refusal);
        }
    }
    Ok(Some(scan))
}

/// Reading one file from its first record on.
pub(crate) struct Scan<'a> {
    file: &'a ChainFile,
    group: u32,
    bytes: Bytes,
    position: u64,
    next_sequence: u64,
    durable_through: u64,
}

impl Scan<'_> {
    fn begin<'a>(
        file: &'a ChainFile,
        group: u32,
        replay: &mut Replay,
    ) -> Result<Scan<'a>, RaftError> {
        replay.table.begin_file(file.header.number, file.header.epoch, BLOCK_BYTES, file.bytes);
        let contents = (file.bytes - BLOCK_BYTES) as usize;
        Ok(Scan {
            file,
            group,
            bytes: file.read(BLOCK_BYTES, contents)?.into(),
            position: BLOCK_BYTES,
            next_sequence: file.header.first_sequence,
            durable_through: file.header.first_sequence - 1,
        })
    }

    /// Applies records up to the seal, or up to the first that does not read; says why it stopped
    /// short.
    fn run(&mut self, replay: &mut Replay, seal: Option<u64>) -> Option<String> {
        while seal != Some(self.next_sequence) {
            let framed = match self.next_record() {
                Ok(framed) => framed,
                Err(reason) => return Some(reason),
            };
            let length = framed.bytes_in_file as u64;
            let location = Location { position: self.position, length };
            let applied = match Record::decode(&framed) {
                Some(record) => replay.apply(owned(record), location),
                None => Err("a record of a kind or layout that is not known".to_owned()),
            };
            if let Err(reason) = applied {
                return Some(reason);
            }
            self.durable_through = self.durable_through.max(framed.place.durable_through);
            self.next_sequence += 1;
            self.position += length;
        }
        None
    }

    /// The record that comes next. Behind a group's last record anything may lie that a crash
    /// made of its padding, so there the next block counts as well.
    fn next_record(&mut self) -> Result<Framed, String> {
        let mut found = self.framed(self.position);
        if found.is_none() && !self.position.is_multiple_of(BLOCK_BYTES) {
            let next_group = block_align(self.position);
            found = self.framed(next_group);
            if found.as_ref().is_some_and(|framed| framed.place.sequence == self.next_sequence) {
                self.position = next_group;
            }
        }
        match found {
            Some(framed) if framed.place.sequence == self.next_sequence => Ok(framed),
            Some(framed) => {
                let (found, expected) = (framed.place.sequence, self.next_sequence);
                Err(format!("record {found} where {expected} was expected"))
            }
            None => Err("no record where one was expected".to_owned()),
        }
    }

    /// Whether the newest file merely ends here, was torn here and is cut, or is damaged.
    fn judge(&self, reason: String) -> Result<(), RaftError> {
        let mut is_torn = self.looks_ours(self.position);
        let mut durable_through = self.durable_through;
        let (mut position, mut is_whole) = (self.position, false);
        while position + RECORD_ALIGN as u64 <= self.file.bytes {
            if let Some(framed) = self.framed(position) {
                durable_through = durable_through.max(framed.place.durable_through);
                // Whole and in its place, so no crash made it unreadable.
                is_whole |=
                    position == self.position && framed.place.sequence == self.next_sequence;
                is_torn = true;
            }
            position += RECORD_ALIGN as u64;
        }
        if is_whole || durable_through >= self.next_sequence {
            return Err(RaftError::damaged(&self.file.path, self.position, reason));
        }
        if is_torn {
            warn!(
                path = %self.file.path.display(), position = self.position,
                sequence = self.next_sequence,
                "cut a torn record off the end of the Raft log: {reason}"
            );
        }
        Ok(())
    }

    /// Makes what is kept of the newest file durable before anybody is told of it.
    fn settle(&self) -> Result<(), RaftError> {
        let kept = (self.position - BLOCK_BYTES) as usize;
        let kept = &self.bytes[..kept.min(self.bytes.len())];
        if self.file.settle(BLOCK_BYTES, kept)? {
            warn!(path = %self.file.path.display(), "wrote records again that the disk had not");
        }
        Ok(())
    }

    /// The record of this file and group at a position.
    fn framed(&self, position: u64) -> Option<Framed> {
        let at = ((position - BLOCK_BYTES) as usize).min(self.bytes.len());
        let framed = Framed::read(&self.bytes.slice(at..))?;
        let place = framed.place;
        let is_ours = place.group == self.group && place.file_epoch == self.file.header.epoch;
        is_ours.then_some(framed)
    }

    /// Whether what does not read was once written to this place by this log: its epoch or its
    /// sequence is there. A recycled file is full of records with neither.
    fn looks_ours(&self, position: u64) -> bool {
        let at = (position - BLOCK_BYTES) as usize;
        let field = |at: usize| {
            let bytes = self.bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_le_bytes)
        };
        field(at + 16) == Some(self.file.header.epoch) || field(at + 24) == Some(self.next_sequence)
    }
}

/// Entries were slices of the whole file; what stays in memory must not keep all of it there.
fn owned(record: Record) -> Record {
    match record {
        Record::Append(mut entries) => {
            for entry in &mut entries {
                entry.data = Bytes::copy_from_slice(&entry.data);
                entry.context = Bytes::copy_from_slice(&entry.context);
            }
            Record::Append(entries)
        }
        other => other,
    }
}

impl From<WalError> for RaftError {
    fn from(error: WalError) -> RaftError {
        match error {
            WalError::Corrupt { path, what } => RaftError::damaged(&path, 0, what),
            WalError::Fatal(fatal) => fatal.into(),
            other => RaftError::Files(other),
        }
    }
}
