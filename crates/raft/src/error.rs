//! What can go wrong, by what the caller can do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use tidelog_wal::{WalError, error::Fatal};

/// Why a Raft node did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The disk says something that no crash explains. An operator must look.
    #[error("{} is damaged at byte {position}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What was found there.
        reason: String,
    },
    /// The file system refused.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The files of the log could not be opened or created.
    #[error(transparent)]
    Files(WalError),
    /// The configuration cannot work.
    #[error("the Raft configuration cannot work: {0}")]
    Config(String),
    /// The operating system gave no thread.
    #[error("no thread for {0}")]
    Thread(&'static str, #[source] io::Error),
    /// A thread of the node ended by a panic.
    #[error("the thread {0} panicked")]
    Panicked(&'static str),
}

/// Why a proposal was not taken. Nothing of it will ever be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead in the term the proposal was planned in: plan again elsewhere.
    #[error("not the leader in term {term}; leader: {leader:?}")]
    NotLeader {
        /// The term the caller planned in.
        term: u64,
        /// Who leads, as far as this node knows.
        leader: Option<u64>,
    },
    /// Too much is proposed and not yet applied: wait for some of it, then try again.
    #[error("{waiting} bytes are waiting to be applied, and no more than {limit} may")]
    Full {
        /// Bytes proposed and not applied.
        waiting: u64,
        /// The bound, `raft.entries.memory.bytes`.
        limit: u64,
    },
    /// No log file has room for it: propose less at once.
    #[error("an entry of {bytes} bytes does not fit a file of the Raft log; at most {limit} do")]
    TooLarge {
        /// The proposal's size.
        bytes: u64,
        /// The most that a file with `raft.segment.bytes` takes.
        limit: u64,
    },
    /// The node is stopping.
    #[error("the Raft node is stopped")]
    Stopped,
}

impl RaftError {
    /// A failed call on a file while starting.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> RaftError {
        RaftError::Io { doing, path: path.to_owned(), source }
    }

    /// Bytes that no crash explains.
    pub(crate) fn damaged(path: &Path, position: u64, reason: impl Into<String>) -> RaftError {
        RaftError::Damaged { path: path.to_owned(), position, reason: reason.into() }
    }
}

impl From<Fatal> for RaftError {
    fn from(fatal: Fatal) -> RaftError {
        RaftError::Io { doing: fatal.what, path: fatal.path, source: fatal.source }
    }
}
