//! What can be wrong with what others send, and what a client is told about it.

use tidelog_types::{BrokerId, ErrorCode, LeaderEpoch, Offset, ProducerEpoch, ProducerId};

use crate::fetch_session::{SessionEpoch, SessionId};

/// A client's or follower's leader epoch is not this leader's (KIP-320).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// The sender is behind: it must look for newer metadata.
    #[error("leader epoch {requested} is older than {current}")]
    Fenced {
        /// As sent.
        requested: LeaderEpoch,
        /// This leader's.
        current: LeaderEpoch,
    },
    /// The sender is ahead: it must ask again when this broker has caught up.
    #[error("leader epoch {requested} is newer than {current}")]
    Unknown {
        /// As sent.
        requested: LeaderEpoch,
        /// This leader's.
        current: LeaderEpoch,
    },
}

impl EpochError {
    /// What the sender is told.
    #[must_use]
    pub fn error_code(&self) -> ErrorCode {
        match self {
            EpochError::Fenced { .. } => ErrorCode::FencedLeaderEpoch,
            EpochError::Unknown { .. } => ErrorCode::UnknownLeaderEpoch,
        }
    }
}

/// Why a follower's fetch tells the leader nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The follower lives in another leader epoch.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// The follower claims records that this leader never wrote.
    #[error("{follower} fetches from {fetch_offset}, past the log end offset {log_end_offset}")]
    OffsetOutOfRange {
        /// Who asked.
        follower: BrokerId,
        /// As sent.
        fetch_offset: Offset,
        /// This leader's.
        log_end_offset: Offset,
    },
    /// The leader does not follow itself.
    #[error("{follower} is this leader")]
    NotAFollower {
        /// Who asked.
        follower: BrokerId,
    },
}

impl FetchError {
    /// What the follower is told.
    #[must_use]
    pub fn error_code(&self) -> ErrorCode {
        match self {
            FetchError::Epoch(error) => error.error_code(),
            FetchError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            FetchError::NotAFollower { .. } => ErrorCode::InvalidRequest,
        }
    }
}

/// Why a fetch cannot go on with a session (KIP-227): its client begins another, or does without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// It was ended, or another one took its place.
    #[error("there is no fetch session {}", id.0)]
    NotFound {
        /// As sent.
        id: SessionId,
    },
    /// The request is not the one that follows: one got lost, came twice, or was overtaken.
    #[error("fetch session {} is at epoch {}, the request says {}", id.0, current.0, requested.0)]
    InvalidEpoch {
        /// The session.
        id: SessionId,
        /// As sent.
        requested: SessionEpoch,
        /// What would have been right.
        current: SessionEpoch,
    },
    /// The session was begun with topic names and goes on with ids, or the other way round.
    #[error("fetch session {} does not name topics as the request does", id.0)]
    TopicIds {
        /// The session.
        id: SessionId,
    },
}

impl SessionError {
    /// What the client is told.
    #[must_use]
    pub fn error_code(&self) -> ErrorCode {
        match self {
            SessionError::NotFound { .. } => ErrorCode::FetchSessionIdNotFound,
            SessionError::InvalidEpoch { .. } => ErrorCode::InvalidFetchSessionEpoch,
            SessionError::TopicIds { .. } => ErrorCode::FetchSessionTopicIdError,
        }
    }
}

/// Why an idempotent producer's batch is not appended (protocol rules of KIP-98 and KIP-360).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// The batch names a producer but no lawful epoch or sequence.
    #[error("{producer_id:?} sent epoch {epoch:?} and sequence {base_sequence}")]
    Malformed {
        /// As sent.
        producer_id: ProducerId,
        /// As sent.
        epoch: ProducerEpoch,
        /// As sent.
        base_sequence: i32,
    },
    /// A newer incarnation of the producer has written here.
    #[error("{producer_id:?} sent epoch {epoch:?}, but {current:?} has written here")]
    InvalidEpoch {
        /// As sent.
        producer_id: ProducerId,
        /// As sent.
        epoch: ProducerEpoch,
        /// The newest epoch seen.
        current: ProducerEpoch,
    },
    /// A batch before this one is missing, or was overtaken.
    #[error("{producer_id:?} sent sequence {base_sequence} where {expected} follows")]
    OutOfOrderSequence {
        /// As sent.
        producer_id: ProducerId,
        /// As sent.
        base_sequence: i32,
        /// What would have been right.
        expected: i32,
    },
    /// What the producer wrote before cannot be read, so that this may be stored already.
    #[error(
        "{producer_id:?} sent sequence {base_sequence}, and what it wrote before may lie where the \
         log is damaged"
    )]
    Lost {
        /// As sent.
        producer_id: ProducerId,
        /// As sent.
        base_sequence: i32,
    },
}

impl ProducerError {
    /// What the producer is told. Not PRODUCER_FENCED: that one is for coordinators.
    #[must_use]
    pub fn error_code(&self) -> ErrorCode {
        match self {
            ProducerError::Malformed { .. } => ErrorCode::InvalidRecord,
            ProducerError::InvalidEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            // A producer that hears this starts over in a new epoch or gives up; it never sends
            // again as if nothing had been stored.
            ProducerError::OutOfOrderSequence { .. } | ProducerError::Lost { .. } => {
                ErrorCode::OutOfOrderSequenceNumber
            }
        }
    }
}

/// Why the bytes of a partition snapshot cannot be used. The state is then rebuilt from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes end before what they announce.
    #[error("the snapshot ends after {bytes} bytes")]
    Truncated {
        /// Bytes that are there.
        bytes: usize,
    },
    /// The bytes are not a partition snapshot.
    #[error("the snapshot starts with {found:#010x}")]
    WrongMagic {
        /// The first four bytes.
        found: u32,
    },
    /// A later release wrote the bytes.
    #[error("the snapshot has version {found}; this release reads up to {newest}")]
    UnknownVersion {
        /// As written.
        found: u16,
        /// The newest that this release knows.
        newest: u16,
    },
    /// The bytes were damaged.
    #[error("the snapshot's CRC is {found:#010x}, its bytes have {computed:#010x}")]
    WrongChecksum {
        /// As written.
        found: u32,
        /// Of the bytes read.
        computed: u32,
    },
    /// The bytes pass their CRC but contradict themselves.
    #[error("the snapshot contradicts itself: {what}")]
    Malformed {
        /// The rule that is broken.
        what: &'static str,
    },
}
