//! What tools ask of groups: ListGroups, DescribeGroups, DeleteGroups.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_types::ErrorCode;

use super::member::Member;
use super::offsets::{Offsets, tombstone};
use super::{Group, State};
use crate::record::GroupRecord;
use crate::request::{DescribedGroup, DescribedMember, ListGroups, ListedGroup};

/// As Kafka writes it in a list.
pub(crate) const CLASSIC: &str = "classic";

impl Group {
    /// The group as a list has it, if it is one of those that were asked for.
    pub(crate) fn listed(&self, group_id: &str, request: &ListGroups) -> Option<ListedGroup> {
        let state = self.state.name();
        let is_asked = |asked: &[String], ours: &str| {
            asked.is_empty() || asked.iter().any(|asked| asked.eq_ignore_ascii_case(ours))
        };
        if !is_asked(&request.states, state) || !is_asked(&request.types, CLASSIC) {
            return None;
        }
        Some(ListedGroup {
            group_id: group_id.to_owned(),
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().to_owned(),
            state,
            group_type: CLASSIC,
        })
    }

    /// The group in full. What members tell each other is of use only once they agree.
    pub(crate) fn described(&self) -> DescribedGroup {
        let protocol_name = self.protocol_name.as_deref();
        let protocol_name = protocol_name.filter(|_| self.state == State::Stable);
        DescribedGroup {
            state: self.state.name(),
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().to_owned(),
            protocol_name: protocol_name.unwrap_or_default().to_owned(),
            members: self.members.values().map(|member| member.described(protocol_name)).collect(),
        }
    }
}

impl Member {
    fn described(&self, protocol_name: Option<&str>) -> DescribedMember {
        DescribedMember {
            member_id: self.member_id.as_ref().to_owned(),
            group_instance_id: self.group_instance_id.as_deref().map(str::to_owned),
            client_id: self.client_id.as_ref().to_owned(),
            client_host: self.client_host.as_ref().to_owned(),
            metadata: protocol_name.map(|name| self.metadata(name)).unwrap_or_default(),
            assignment: protocol_name.map_or_else(Bytes::new, |_| self.assignment.clone()),
        }
    }
}

/// The tombstones of a group without members and of all its offsets: the group's own comes last,
/// so that what a crash leaves of them is still a group.
pub(crate) fn delete(
    group_id: &Arc<str>,
    group: &Group,
    offsets: &Offsets,
) -> Result<Vec<GroupRecord>, ErrorCode> {
    if group.state != State::Empty {
        return Err(ErrorCode::NonEmptyGroup);
    }
    let offsets = offsets.iter();
    let mut records: Vec<GroupRecord> =
        offsets.map(|(topic, partition, _)| tombstone(group_id, topic, partition)).collect();
    let group_id = group_id.clone();
    records.push(GroupRecord::GroupMetadata { group_id, value: None });
    Ok(records)
}
