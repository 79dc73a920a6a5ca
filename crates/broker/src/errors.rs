//! What a client is told of an error of ours: one exhaustive match for each boundary.

use tidelog_raft::ProposeError;
use tidelog_types::ErrorCode;
use tidelog_wal::{ReadError, StorageError};

use crate::partition::{AppendError, DeleteRecordsError, LeaderError};

impl AppendError {
    /// What a producer is told.
    #[must_use]
    pub fn error_code(&self) -> ErrorCode {
        match self {
            AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
            AppendError::NotEnoughReplicas => ErrorCode::NotEnoughReplicas,
            AppendError::Producer(error) => error.error_code(),
            AppendError::Storage(error) => storage(error),
        }
    }
}

impl DeleteRecordsError {
    /// What an administrator is told.
    #[must_use]
    pub fn error_code(&self) -> ErrorCode {
        match self {
            DeleteRecordsError::NotLeader => ErrorCode::NotLeaderOrFollower,
            DeleteRecordsError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        }
    }
}

impl LeaderError {
    /// What a client is told.
    #[must_use]
    pub fn error_code(&self) -> ErrorCode {
        match self {
            LeaderError::NotLeader => ErrorCode::NotLeaderOrFollower,
            LeaderError::Epoch(error) => error.error_code(),
        }
    }
}

/// What a producer is told when the log cannot take a batch.
pub(crate) fn storage(error: &StorageError) -> ErrorCode {
    match error {
        StorageError::DiskFull { .. } | StorageError::Suspect | StorageError::Damaged => {
            ErrorCode::KafkaStorageError
        }
        StorageError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        StorageError::Busy => ErrorCode::RequestTimedOut,
        // The topic is being deleted, or the broker stops: look for the leader again.
        StorageError::Closed => ErrorCode::NotLeaderOrFollower,
    }
}

/// What a consumer is told when the log cannot be read.
pub(crate) fn read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Damaged { .. }
        | ReadError::Suspect
        | ReadError::TooManyOpenFiles
        | ReadError::Io { .. } => ErrorCode::KafkaStorageError,
        ReadError::Busy => ErrorCode::RequestTimedOut,
        ReadError::Closed => ErrorCode::NotLeaderOrFollower,
    }
}

/// What an administrator is told when metadata cannot be changed here and now.
pub(crate) fn propose(error: &ProposeError) -> ErrorCode {
    match error {
        ProposeError::NotLeader { .. } => ErrorCode::NotController,
        ProposeError::TooLarge { .. } => ErrorCode::PolicyViolation,
        ProposeError::Full { .. } | ProposeError::Stopped => ErrorCode::RequestTimedOut,
    }
}
