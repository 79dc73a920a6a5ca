//! What a group shard is asked and what it answers, free of API versions.

use std::time::Duration;

use bytes::Bytes;
use tidelog_types::{ErrorCode, LeaderEpoch, Offset, TopicId, Uuid};

/// One request that a shard took; the shell that asked knows whom the response is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// The moment of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines: never goes back. Since some fixed moment of this process.
    pub elapsed: Duration,
    /// For what is written down: milliseconds since 1970. May jump.
    pub wall_ms: i64,
}

/// A request of one group, or of all groups of the shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupRequest {
    /// JoinGroup.
    Join(JoinGroup),
    /// SyncGroup.
    Sync(SyncGroup),
    /// Heartbeat.
    Heartbeat(Heartbeat),
    /// LeaveGroup.
    Leave(LeaveGroup),
    /// OffsetCommit.
    CommitOffsets(CommitOffsets),
    /// OffsetFetch.
    FetchOffsets(FetchOffsets),
    /// OffsetDelete.
    DeleteOffsets(DeleteOffsets),
    /// ListGroups: the groups of this shard.
    List(ListGroups),
    /// DescribeGroups: one of its groups.
    Describe {
        /// The group.
        group_id: String,
    },
    /// DeleteGroups: one of its groups.
    Delete {
        /// The group.
        group_id: String,
    },
    /// Topics that no longer exist: their offsets go in all groups of the shard.
    ForgetTopics {
        /// Their names.
        topics: Vec<String>,
    },
}

/// The answer to a [`GroupRequest`], variant for variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupResponse {
    /// To [`GroupRequest::Join`].
    Join(Joined),
    /// To [`GroupRequest::Sync`].
    Sync(Synced),
    /// To [`GroupRequest::Heartbeat`].
    Heartbeat(ErrorCode),
    /// To [`GroupRequest::Leave`].
    Leave(Left),
    /// To [`GroupRequest::CommitOffsets`]: in the order of the request.
    CommitOffsets(Vec<ErrorCode>),
    /// To [`GroupRequest::FetchOffsets`].
    FetchOffsets(Result<Vec<FetchedOffset>, ErrorCode>),
    /// To [`GroupRequest::DeleteOffsets`]: in the order of the request.
    DeleteOffsets(Result<Vec<ErrorCode>, ErrorCode>),
    /// To [`GroupRequest::List`].
    List(Vec<ListedGroup>),
    /// To [`GroupRequest::Describe`]. `Err` is GROUP_ID_NOT_FOUND, which old versions of the API
    /// tell as a dead group.
    Describe(Result<DescribedGroup, ErrorCode>),
    /// To [`GroupRequest::Delete`].
    Delete(ErrorCode),
    /// To [`GroupRequest::ForgetTopics`].
    ForgetTopics,
}

/// A client asks to become, or to stay, a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroup {
    /// The group.
    pub group_id: String,
    /// Empty for whoever has no member id yet.
    pub member_id: String,
    /// Of a static member (KIP-345).
    pub group_instance_id: Option<String>,
    /// As the client calls itself; member ids start with it.
    pub client_id: String,
    /// Its address, as Kafka writes it: `/127.0.0.1`.
    pub client_host: String,
    /// Random: the rest of the member id, should one be given.
    pub new_member: Uuid,
    /// Silence after which the member is removed.
    pub session_timeout: Duration,
    /// How long a rebalance waits for this member.
    pub rebalance_timeout: Duration,
    /// `consumer`, `connect`, `sr`: what its protocols are about.
    pub protocol_type: String,
    /// The assignors it can do, the best first, and what it tells each.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether a new member is first told its id, and joins with it (KIP-394; v4 and later).
    pub requires_known_member_id: bool,
    /// Whether a leader understands that there is nothing to assign (v9 and later).
    pub supports_skipping_assignment: bool,
    /// Why, in the client's words. Logged.
    pub reason: Option<String>,
}

/// A member's place in a generation, or why it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// NONE, or why not.
    pub error_code: ErrorCode,
    /// -1 on an error.
    pub generation_id: i32,
    /// What the group's protocols are about; `None` on an error.
    pub protocol_type: Option<String>,
    /// The assignor that all can do; `None` on an error.
    pub protocol_name: Option<String>,
    /// The leader's member id; empty on an error.
    pub leader: String,
    /// Whether the leader is to leave the assignment as it is.
    pub skip_assignment: bool,
    /// The member's id: a new one, or the one it asked with.
    pub member_id: String,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// The member.
    pub member_id: String,
    /// Of a static member.
    pub group_instance_id: Option<String>,
    /// What it told the chosen assignor.
    pub metadata: Bytes,
}

/// A member asks for its assignment; the leader brings everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroup {
    /// The group.
    pub group_id: String,
    /// As the join said.
    pub generation_id: i32,
    /// The member.
    pub member_id: String,
    /// Of a static member.
    pub group_instance_id: Option<String>,
    /// What the client believes the group to have chosen; `None` before v5.
    pub protocol_type: Option<String>,
    /// What the client believes the group to have chosen; `None` before v5.
    pub protocol_name: Option<String>,
    /// From the leader: an assignment for each member.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's assignment, or why it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// NONE, or why not.
    pub error_code: ErrorCode,
    /// `None` on an error.
    pub protocol_type: Option<String>,
    /// `None` on an error.
    pub protocol_name: Option<String>,
    /// Empty on an error.
    pub assignment: Bytes,
}

/// A member says that it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The group.
    pub group_id: String,
    /// As the join said.
    pub generation_id: i32,
    /// The member.
    pub member_id: String,
    /// Of a static member.
    pub group_instance_id: Option<String>,
}

/// Members leave, or are removed by an administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveGroup {
    /// The group.
    pub group_id: String,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// One member that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingMember {
    /// May be empty where the instance id says who.
    pub member_id: String,
    /// Of a static member.
    pub group_instance_id: Option<String>,
    /// Why, in the client's words. Logged.
    pub reason: Option<String>,
}

/// Who left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Of the whole request: the group's, not a member's.
    pub error_code: ErrorCode,
    /// In the order of the request; empty where the whole request failed.
    pub members: Vec<ErrorCode>,
}

/// Offsets to keep for a group. The shell has checked that the partitions exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffsets {
    /// The group.
    pub group_id: String,
    /// Negative for a client that is no member (a simple consumer or an administrator).
    pub generation_id: i32,
    /// Empty for a client that is no member.
    pub member_id: String,
    /// Of a static member.
    pub group_instance_id: Option<String>,
    /// How long to keep them instead of the broker's setting (versions 2 to 4).
    pub retention: Option<Duration>,
    /// What an unknown group is told that a client claims to be a member of: GROUP_ID_NOT_FOUND
    /// from v9, ILLEGAL_GENERATION before.
    pub unknown_group: ErrorCode,
    /// The offsets.
    pub offsets: Vec<OffsetToCommit>,
}

/// One partition's offset to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// The topic.
    pub topic: String,
    /// Its id, so that a topic created again under its name does not inherit the offset.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: i32,
    /// The next record to consume.
    pub offset: Offset,
    /// Of the last record consumed; [`LeaderEpoch::NONE`] if the client did not say.
    pub leader_epoch: LeaderEpoch,
    /// The client's own words.
    pub metadata: String,
}

/// Asks for a group's offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchOffsets {
    /// The group.
    pub group_id: String,
    /// Of a member that proves itself (v9 and later).
    pub member_id: Option<String>,
    /// Its epoch; -1 if it does not prove itself.
    pub member_epoch: i32,
    /// Which partitions, by topic; `None` is all that have an offset.
    pub partitions: Option<Vec<(String, i32)>>,
    /// Whether offsets of open transactions are to be waited for.
    pub require_stable: bool,
}

/// One partition's offset. In the order of the request, if that named partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The topic.
    pub topic: String,
    /// The id of the topic when the offset was committed; zero if there is none.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: i32,
    /// The next record to consume; `None` is "nothing committed".
    pub offset: Option<Offset>,
    /// Of the last record consumed.
    pub leader_epoch: LeaderEpoch,
    /// The client's own words.
    pub metadata: String,
    /// UNSTABLE_OFFSET_COMMIT while a transaction is open, if that matters to the client.
    pub error_code: ErrorCode,
}

/// Offsets of a group to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteOffsets {
    /// The group.
    pub group_id: String,
    /// Which.
    pub partitions: Vec<(String, i32)>,
}

/// Asks which groups there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListGroups {
    /// Only those in these states, whatever their case; empty is all.
    pub states: Vec<String>,
    /// Only those of these types (`classic`, `consumer`), whatever their case; empty is all.
    pub types: Vec<String>,
}

/// A group, in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group_id: String,
    /// Empty for a group that only keeps offsets.
    pub protocol_type: String,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`.
    pub state: &'static str,
    /// `classic`, as Kafka writes it in a list.
    pub group_type: &'static str,
}

/// A group, looked at closely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`.
    pub state: &'static str,
    /// Empty for a group that only keeps offsets.
    pub protocol_type: String,
    /// The chosen assignor; empty unless the group is stable.
    pub protocol_name: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// A member, looked at closely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    /// The member.
    pub member_id: String,
    /// Of a static member.
    pub group_instance_id: Option<String>,
    /// As the client called itself when it joined.
    pub client_id: String,
    /// Its address.
    pub client_host: String,
    /// What it told the chosen assignor; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless the group is stable.
    pub assignment: Bytes,
}
