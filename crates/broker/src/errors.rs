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

/// What a client of a coordinator is told when the log does not take what it asks for. It asks
/// again, wherever the coordinator is by then.
pub(crate) fn coordinator(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader | AppendError::Storage(StorageError::Closed) => {
            ErrorCode::NotCoordinator
        }
        AppendError::NotEnoughReplicas
        | AppendError::Storage(
            StorageError::DiskFull { .. }
            | StorageError::Suspect
            | StorageError::Damaged
            | StorageError::Busy,
        ) => ErrorCode::CoordinatorNotAvailable,
        // Mistakes of ours: records are no producer's, and fit their batches.
        AppendError::Producer(_) | AppendError::Storage(StorageError::TooLarge { .. }) => {
            ErrorCode::UnknownServerError
        }
    }
}

/// What a consumer is told when the log cannot be read.
pub(crate) fn read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Damaged { .. }
        | ReadError::Suspect
        | ReadError::TooManyOpenFiles
        // Clients ask again; REQUEST_TIMED_OUT is none of a fetch's, and Kafka's consumer throws.
        | ReadError::Busy
        | ReadError::Io { .. } => ErrorCode::KafkaStorageError,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A consumer throws on any code that is none of a fetch's.
    #[test]
    fn a_read_that_may_be_tried_again_is_told_in_a_code_that_consumers_try_again() {
        for error in [ReadError::Busy, ReadError::TooManyOpenFiles] {
            assert_eq!(read(&error), ErrorCode::KafkaStorageError, "{error}");
        }
        assert_eq!(read(&ReadError::Closed), ErrorCode::NotLeaderOrFollower);
    }
}
