//! One member of a classic group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::record::MemberMetadata;
use crate::request::{JoinGroup, RequestId};

/// What a member told its group and what the group owes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) member_id: Arc<str>,
    pub(crate) group_instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) client_host: Arc<str>,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// The assignors that it can do, the best first. Of a loaded member: the chosen one.
    pub(crate) protocols: Protocols,
    pub(crate) assignment: Bytes,
    /// The JoinGroup that waits for the next generation.
    pub(crate) join: Option<RequestId>,
    /// The SyncGroup that waits for the leader's.
    pub(crate) sync: Option<RequestId>,
    /// Never yet answered: it cannot send heartbeats, because it does not know its id.
    pub(crate) is_new: bool,
    /// Whether it has asked for its assignment in this generation.
    pub(crate) has_synced: bool,
    /// When it is removed unless it is heard of; `None` while one of its requests waits.
    pub(crate) deadline: Option<Duration>,
}

/// Protocol names, the best first, and what a member tells each. Shared, never copied.
pub(crate) type Protocols = Arc<[(Arc<str>, Bytes)]>;

impl Member {
    /// A client that asks to become a member, and waits.
    pub(crate) fn joining(
        member_id: Arc<str>,
        request: &JoinGroup,
        id: RequestId,
        deadline: Duration,
    ) -> Member {
        Member {
            member_id,
            group_instance_id: request.group_instance_id.as_deref().map(Into::into),
            client_id: request.client_id.as_str().into(),
            client_host: request.client_host.as_str().into(),
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout,
            protocols: protocols_of(request),
            assignment: Bytes::new(),
            join: Some(id),
            sync: None,
            is_new: true,
            has_synced: false,
            deadline: Some(deadline),
        }
    }

    /// A member as the log tells of it. It has no deadline before loading is over.
    pub(crate) fn loaded(member: &MemberMetadata, protocol_name: Option<&Arc<str>>) -> Member {
        let protocol = protocol_name.map(|name| (name.clone(), member.subscription.clone()));
        Member {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_timeout: from_ms(member.session_timeout_ms),
            rebalance_timeout: from_ms(member.rebalance_timeout_ms),
            protocols: protocol.into_iter().collect(),
            assignment: member.assignment.clone(),
            join: None,
            sync: None,
            is_new: false,
            has_synced: true,
            deadline: None,
        }
    }

    /// The member as its group's record tells of it, with the `assignment` of this generation.
    pub(crate) fn to_record(&self, protocol_name: &str, assignment: Bytes) -> MemberMetadata {
        MemberMetadata {
            member_id: self.member_id.clone(),
            group_instance_id: self.group_instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: to_ms(self.rebalance_timeout),
            session_timeout_ms: to_ms(self.session_timeout),
            subscription: self.metadata(protocol_name),
            assignment,
        }
    }

    /// What it told a protocol; empty if it does not know the protocol.
    pub(crate) fn metadata(&self, protocol_name: &str) -> Bytes {
        let mut protocols = self.protocols.iter();
        let found = protocols.find(|(name, _)| **name == *protocol_name);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// Whether a record tells of it what is so; the assignment aside, which is news.
    pub(crate) fn is_recorded_by(&self, record: &MemberMetadata, protocol_name: &str) -> bool {
        self.protocols.iter().any(|(name, _)| **name == *protocol_name)
            && self.to_record(protocol_name, record.assignment.clone()) == *record
    }

    /// Whether it would tell its group nothing new.
    pub(crate) fn says_the_same(&self, request: &JoinGroup) -> bool {
        let said = self.protocols.iter().map(|(name, metadata)| (&**name, metadata));
        said.eq(request.protocols.iter().map(|(name, metadata)| (name.as_str(), metadata)))
    }
}

/// What a request tells its group, in memory of its own: the request's frame can go.
pub(crate) fn protocols_of(request: &JoinGroup) -> Protocols {
    let owned = |(name, metadata): &(String, Bytes)| {
        (Arc::from(name.as_str()), Bytes::copy_from_slice(metadata))
    };
    request.protocols.iter().map(owned).collect()
}

fn from_ms(milliseconds: i32) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

/// What does not fit (24 days) never ends.
fn to_ms(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
