//! The Raft log on disk: typed records in a chain of files, one writer, one reader of old blocks.

mod blocks;
mod offsets;
mod record;
mod recovery;
mod replay;
mod writer;

pub(crate) use blocks::{BlockReader, ColdError, DecodedBlock};
pub(crate) use offsets::OffsetTable;
pub(crate) use record::entry_payload_bytes;
pub(crate) use recovery::{RecoveredLog, entry_bytes_max, recover};
pub(crate) use replay::SnapshotMeta;
pub(crate) use writer::{LogState, LogWriter, Request, Step};
