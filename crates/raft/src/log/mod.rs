//! The Raft log on disk: typed records in a chain of files, one writer, one reader of old blocks.

mod blocks;
mod offsets;
mod record;
mod recovery;
mod replay;
mod writer;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tidelog_wal::{chain::FilePool, env::FileSystem};

pub(crate) use blocks::{ColdError, DecodedBlock};
pub(crate) use offsets::OffsetTable;
pub(crate) use record::entry_payload_bytes;
pub(crate) use recovery::{RecoveredLog, chain_headers, entry_bytes_max, read_files, recover};
pub(crate) use replay::{Replay, SnapshotMeta};
pub use writer::Step;
pub(crate) use writer::{LogState, LogWriter, Request, WriterLinks};

/// Where the log is, and what is where in it. Clones share it: one writes, the others read.
#[derive(Debug, Clone)]
pub(crate) struct LogFiles {
    /// The group whose log it is.
    pub(crate) group: u32,
    pub(crate) fs: Arc<dyn FileSystem>,
    /// Where the snapshot files are.
    pub(crate) snapshots_dir: PathBuf,
    /// The log's own files.
    pub(crate) pool: Arc<FilePool>,
    /// Where in them the entries are.
    pub(crate) table: Arc<Mutex<OffsetTable>>,
}
