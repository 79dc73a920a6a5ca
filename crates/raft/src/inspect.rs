//! Looks into a Raft log on disk and changes nothing: for `tidelog raft status` and `raft log`.

use std::{path::Path, sync::Arc};

use raft::eraftpb::Entry;
use tidelog_wal::{
    chain::ChainFile,
    env::{Caching, FileSystem, Open},
};

use crate::{
    entry_cache::EntryCache,
    error::RaftError,
    log::{OffsetTable, Replay, chain_headers, read_files},
};

/// What one group's log holds, as a start would find it.
#[derive(Debug)]
pub struct Inspection {
    /// The newest term this voter knows.
    pub term: u64,
    /// Whom it voted for in that term, 0 for nobody.
    pub vote: u64,
    /// The highest index it knows to be committed.
    pub commit: u64,
    /// The last index that the newest snapshot includes, and its term.
    pub snapshot: Option<(u64, u64)>,
    /// Raft ids of the voters as of that snapshot.
    pub voters: Vec<u64>,
    /// The first index on disk.
    pub first_index: u64,
    /// The last index on disk, `first_index - 1` where there is none.
    pub last_index: u64,
    /// The files, oldest first.
    pub files: Vec<LogFile>,
    /// The entries from `first_index` to `last_index`.
    entries: EntryCache,
}

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Its name in the log's directory.
    pub name: String,
    /// Its place in the order of all files there ever were.
    pub number: u64,
    /// Sequence of its first record.
    pub first_sequence: u64,
    /// Its length, in bytes.
    pub bytes: u64,
}

impl Inspection {
    /// Reads the log of the group whose directory this is (`<data dir>/raft/group-0`). A process
    /// may be writing to it: then this is what a crash at this moment would leave.
    ///
    /// # Errors
    /// [`RaftError::Damaged`] where a start would refuse, and as the file system fails.
    pub fn read(
        fs: &dyn FileSystem,
        group_dir: &Path,
        group: u32,
    ) -> Result<Inspection, RaftError> {
        let mut chain = Vec::new();
        for (header, path) in chain_headers(fs, &group_dir.join("log"))? {
            let failed = |error| RaftError::io("cannot read", &path, error);
            let file = fs.open(&path, Open::Read, Caching::Buffered).map_err(failed)?;
            let bytes = file.len().map_err(failed)?;
            chain.push(Arc::new(ChainFile { header, path, bytes, file }));
        }
        let everything = EntryCache::new(0, u64::MAX, usize::MAX);
        let largest = chain.iter().map(|file| file.bytes).max().unwrap_or(0);
        let mut replay = Replay::new(everything, OffsetTable::new(largest));
        read_files(&chain, group, &mut replay)?;
        let Replay { hard_state, snapshot, terms, cache, .. } = replay;
        let members = snapshot.as_ref().map(|snapshot| &snapshot.conf_state);
        let files = chain.iter().map(|file| LogFile::of(file)).collect();
        Ok(Inspection {
            term: hard_state.term,
            vote: hard_state.vote,
            commit: hard_state.commit,
            voters: members.map(|members| members.voters.clone()).unwrap_or_default(),
            snapshot: snapshot.map(|snapshot| (snapshot.index, snapshot.term)),
            first_index: terms.first(),
            last_index: terms.last(),
            files,
            entries: cache,
        })
    }

    /// Up to `entries_max` entries from index `from` on, or from the first there is.
    #[must_use]
    pub fn entries(&self, from: u64, entries_max: u64) -> Vec<Entry> {
        let low = from.max(self.first_index);
        let high = low.saturating_add(entries_max).min(self.last_index + 1);
        if low >= high {
            return Vec::new();
        }
        self.entries.slice(low, high, None).expect("no entry was evicted")
    }
}

impl LogFile {
    fn of(file: &ChainFile) -> LogFile {
        let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned());
        LogFile {
            name: name.unwrap_or_default(),
            number: file.header.number,
            first_sequence: file.header.first_sequence,
            bytes: file.bytes,
        }
    }
}
