//! Kafka's error codes, as of 4.2.

macro_rules! error_codes {
    ($($name:ident = $code:literal $retriable:literal $text:literal,)*) => {
        /// What a response says of a request, a topic or a partition.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode { $(#[doc = $text] $name = $code,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// Reads the wire's number; `None` for one that this table does not have.
            #[must_use]
            pub fn from_wire(code: i16) -> Option<ErrorCode> {
                match code { $($code => Some(ErrorCode::$name),)* _ => None }
            }

            /// The code as the wire carries it.
            #[must_use]
            pub fn code(self) -> i16 { self as i16 }

            /// What it means, in one sentence.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }

            /// Whether a client may send the same request again.
            #[must_use]
            pub fn is_retriable(self) -> bool {
                match self { $(ErrorCode::$name => $retriable == 1,)* }
            }

            /// Kafka's name, in its own upper case.
            #[must_use]
            pub fn name(self) -> String {
                let mut name = String::new();
                for (place, letter) in self.variant().chars().enumerate() {
                    if letter.is_ascii_uppercase() && place > 0 { name.push('_'); }
                    name.push(letter.to_ascii_uppercase());
                }
                name
            }

            fn variant(self) -> &'static str {
                match self { $(ErrorCode::$name => stringify!($name),)* }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1 0 "The broker met an error that it did not expect.",
    None = 0 0 "No error.",
    OffsetOutOfRange = 1 0 "The offset lies outside the log.",
    CorruptMessage = 2 1 "The batch fails its checksum or is malformed.",
    UnknownTopicOrPartition = 3 1 "This broker does not know the topic or partition.",
    InvalidFetchSize = 4 0 "The fetch size is not valid.",
    LeaderNotAvailable = 5 1 "The partition has no leader just now.",
    NotLeaderOrFollower = 6 1 "This broker does not lead, or does not hold, the partition.",
    RequestTimedOut = 7 1 "The request was not done in its time.",
    BrokerNotAvailable = 8 0 "The broker is not available.",
    ReplicaNotAvailable = 9 1 "The replica is not available.",
    MessageTooLarge = 10 0 "The batch is larger than max.message.bytes.",
    StaleControllerEpoch = 11 0 "The controller has moved on.",
    OffsetMetadataTooLarge = 12 0 "The offset's metadata is too large.",
    NetworkException = 13 1 "The connection ended before the answer.",
    CoordinatorLoadInProgress = 14 1 "The coordinator is loading.",
    CoordinatorNotAvailable = 15 1 "The coordinator is not available.",
    NotCoordinator = 16 1 "This broker is not the coordinator.",
    InvalidTopicException = 17 0 "The topic's name is not valid or not allowed.",
    RecordListTooLarge = 18 0 "The batch is larger than a segment.",
    NotEnoughReplicas = 19 1 "Fewer replicas are in sync than min.insync.replicas.",
    NotEnoughReplicasAfterAppend = 20 1 "Appended, but to fewer replicas than required.",
    InvalidRequiredAcks = 21 0 "acks is none of -1, 0 and 1.",
    IllegalGeneration = 22 0 "The generation is not the group's.",
    InconsistentGroupProtocol = 23 0 "The member's protocols do not fit the group's.",
    InvalidGroupId = 24 0 "The group id is not valid.",
    UnknownMemberId = 25 0 "The group does not know the member.",
    InvalidSessionTimeout = 26 0 "The session timeout is outside the allowed range.",
    RebalanceInProgress = 27 0 "The group is rebalancing.",
    InvalidCommitOffsetSize = 28 0 "The offset commit is too large.",
    TopicAuthorizationFailed = 29 0 "Not authorised for the topic.",
    GroupAuthorizationFailed = 30 0 "Not authorised for the group.",
    ClusterAuthorizationFailed = 31 0 "Not authorised for the cluster.",
    InvalidTimestamp = 32 0 "A record's timestamp is out of the topic's bounds.",
    UnsupportedSaslMechanism = 33 0 "The SASL mechanism is not enabled.",
    IllegalSaslState = 34 0 "The request is not allowed at this point of SASL.",
    UnsupportedVersion = 35 0 "The version is not supported.",
    TopicAlreadyExists = 36 0 "The topic exists already.",
    InvalidPartitions = 37 0 "The number of partitions is not valid.",
    InvalidReplicationFactor = 38 0 "The replication factor is not valid.",
    InvalidReplicaAssignment = 39 0 "The replica assignment is not valid.",
    InvalidConfig = 40 0 "The configuration is not valid.",
    NotController = 41 1 "This broker is not the controller.",
    InvalidRequest = 42 0 "The request contradicts itself or the protocol.",
    UnsupportedForMessageFormat = 43 0 "The message format does not support this.",
    PolicyViolation = 44 0 "The request violates a policy.",
    OutOfOrderSequenceNumber = 45 0 "The batch's sequence does not follow the last one.",
    DuplicateSequenceNumber = 46 0 "The batch's sequence was already appended.",
    InvalidProducerEpoch = 47 0 "The producer's epoch is old.",
    InvalidTxnState = 48 0 "The transaction is in another state.",
    InvalidProducerIdMapping = 49 0 "The producer id is not the transactional id's.",
    InvalidTransactionTimeout = 50 0 "The transaction timeout is too large.",
    ConcurrentTransactions = 51 1 "Another change of the transaction is under way.",
    TransactionCoordinatorFenced = 52 0 "The transaction coordinator is fenced.",
    TransactionalIdAuthorizationFailed = 53 0 "Not authorised for the transactional id.",
    SecurityDisabled = 54 0 "Security features are off.",
    OperationNotAttempted = 55 0 "Not attempted, because another part of the request failed.",
    KafkaStorageError = 56 1 "The broker cannot read or write its disk just now.",
    LogDirNotFound = 57 0 "The log directory does not exist.",
    SaslAuthenticationFailed = 58 0 "SASL authentication failed.",
    UnknownProducerId = 59 0 "The producer id is not known any more.",
    ReassignmentInProgress = 60 0 "A reassignment is under way.",
    DelegationTokenAuthDisabled = 61 0 "Delegation tokens are off.",
    DelegationTokenNotFound = 62 0 "The delegation token does not exist.",
    DelegationTokenOwnerMismatch = 63 0 "The delegation token is somebody else's.",
    DelegationTokenRequestNotAllowed = 64 0 "Not allowed on this connection.",
    DelegationTokenAuthorizationFailed = 65 0 "Not authorised for the delegation token.",
    DelegationTokenExpired = 66 0 "The delegation token has expired.",
    InvalidPrincipalType = 67 0 "The principal type is not supported.",
    NonEmptyGroup = 68 0 "The group has members.",
    GroupIdNotFound = 69 0 "The group does not exist.",
    FetchSessionIdNotFound = 70 1 "The fetch session does not exist.",
    InvalidFetchSessionEpoch = 71 1 "The fetch session's epoch is another.",
    ListenerNotFound = 72 1 "The leader has no listener of this name.",
    TopicDeletionDisabled = 73 0 "Topic deletion is off.",
    FencedLeaderEpoch = 74 1 "The client's leader epoch is older than ours.",
    UnknownLeaderEpoch = 75 1 "The client's leader epoch is newer than ours.",
    UnsupportedCompressionType = 76 0 "The compression is not supported at this version.",
    StaleBrokerEpoch = 77 0 "The broker's epoch is old.",
    OffsetNotAvailable = 78 1 "The high watermark has not caught up since the election.",
    MemberIdRequired = 79 0 "Join again with the member id given.",
    PreferredLeaderNotAvailable = 80 1 "The preferred leader is not available.",
    GroupMaxSizeReached = 81 0 "The group is full.",
    FencedInstanceId = 82 0 "Another member has this instance id.",
    EligibleLeadersNotAvailable = 83 1 "No replica may lead.",
    ElectionNotNeeded = 84 0 "The partition has the leader asked for.",
    NoReassignmentInProgress = 85 0 "No reassignment is under way.",
    GroupSubscribedToTopic = 86 0 "The group is subscribed to the topic.",
    InvalidRecord = 87 0 "The broker refused a record.",
    UnstableOffsetCommit = 88 1 "A transaction's offsets are not decided yet.",
    ThrottlingQuotaExceeded = 89 1 "The throttling quota is exceeded.",
    ProducerFenced = 90 0 "A newer producer has this transactional id.",
    ResourceNotFound = 91 0 "The resource does not exist.",
    DuplicateResource = 92 0 "The resource was named twice.",
    UnacceptableCredential = 93 0 "The credential is not acceptable.",
    InconsistentVoterSet = 94 0 "The voter set is another.",
    InvalidUpdateVersion = 95 0 "The update is older than the state.",
    FeatureUpdateFailed = 96 0 "The features could not be updated.",
    PrincipalDeserializationFailure = 97 0 "The principal could not be read.",
    SnapshotNotFound = 98 0 "The snapshot does not exist.",
    PositionOutOfRange = 99 0 "The position lies outside the snapshot.",
    UnknownTopicId = 100 1 "This broker does not know the topic id.",
    DuplicateBrokerRegistration = 101 0 "The broker id is taken.",
    BrokerIdNotRegistered = 102 0 "The broker id is not registered.",
    InconsistentTopicId = 103 1 "The topic id is not the one of the log.",
    InconsistentClusterId = 104 0 "The cluster id is another.",
    TransactionalIdNotFound = 105 0 "The transactional id does not exist.",
    FetchSessionTopicIdError = 106 1 "The session mixes topic names and ids.",
    IneligibleReplica = 107 0 "The replica may not join the in-sync replicas.",
    NewLeaderElected = 108 0 "A new leader was elected.",
    OffsetMovedToTieredStorage = 109 0 "The offset is in tiered storage.",
    FencedMemberEpoch = 110 0 "The member's epoch is fenced.",
    UnreleasedInstanceId = 111 0 "The instance id is still in use.",
    UnsupportedAssignor = 112 0 "The assignor is not supported.",
    StaleMemberEpoch = 113 0 "The member's epoch is old.",
    MismatchedEndpointType = 114 0 "The request went to the wrong kind of endpoint.",
    UnsupportedEndpointType = 115 0 "The endpoint type is not supported.",
    UnknownControllerId = 116 0 "The controller id is not known.",
    UnknownSubscriptionId = 117 0 "The telemetry subscription is not known.",
    TelemetryTooLarge = 118 0 "The telemetry is too large.",
    InvalidRegistration = 119 0 "The registration is not valid.",
    TransactionAbortable = 120 0 "The transaction must be aborted.",
    InvalidRecordState = 121 0 "The record is in another state.",
    ShareSessionNotFound = 122 1 "The share session does not exist.",
    InvalidShareSessionEpoch = 123 1 "The share session's epoch is another.",
    FencedStateEpoch = 124 0 "The share state's epoch is fenced.",
    InvalidVoterKey = 125 0 "The voter key is not valid.",
    DuplicateVoter = 126 0 "The voter exists already.",
    VoterNotFound = 127 0 "The voter does not exist.",
    InvalidRegularExpression = 128 0 "The regular expression is not valid.",
    RebootstrapRequired = 129 0 "The client must bootstrap anew.",
    StreamsInvalidTopology = 130 0 "The streams topology is not valid.",
    StreamsInvalidTopologyEpoch = 131 0 "The streams topology's epoch is not valid.",
    StreamsTopologyFenced = 132 0 "The streams topology is fenced.",
    ShareSessionLimitReached = 133 1 "There are as many share sessions as allowed.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dense_and_read_back() {
        let codes: Vec<i16> = ErrorCode::ALL.iter().map(|code| code.code()).collect();
        assert_eq!(codes, (-1..=133).collect::<Vec<i16>>());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_wire(code.code()), Some(*code));
        }
    }

    #[test]
    fn names_are_kafkas() {
        let names = [
            (ErrorCode::None, "NONE"),
            (ErrorCode::NotLeaderOrFollower, "NOT_LEADER_OR_FOLLOWER"),
            (ErrorCode::KafkaStorageError, "KAFKA_STORAGE_ERROR"),
        ];
        for (code, name) in names {
            assert_eq!(code.name(), name);
        }
    }
}
