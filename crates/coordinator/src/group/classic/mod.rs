//! How members of a classic group come, agree on who does what, and go.

mod due;
mod heartbeat;
mod join;
mod leave;
mod rebalance;
mod sync;

use tidelog_types::ErrorCode;

use super::Group;
use super::change::Change;
use crate::record::STRING_BYTES_MAX;
use crate::request::Now;

pub(crate) use heartbeat::heartbeat;
#[cfg(test)]
pub(crate) use join::{PROTOCOLS_MAX, RESERVED_IDS_MAX};
pub(crate) use join::{check_join, refused_join};
pub(crate) use leave::left_nothing;
pub(crate) use sync::refused_sync;

/// Whether a group can have this id.
pub(crate) fn check_group_id(group_id: &str) -> Result<(), ErrorCode> {
    if group_id.is_empty() || group_id.len() > STRING_BYTES_MAX {
        return Err(ErrorCode::InvalidGroupId);
    }
    Ok(())
}

impl Group {
    /// Whether a client is who it says. An instance id has one owner at a time (KIP-345).
    pub(crate) fn check_member(
        &self,
        member_id: &str,
        group_instance_id: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = group_instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(owner) if **owner != *member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if !self.members.contains_key(member_id) {
            return Err(ErrorCode::UnknownMemberId);
        }
        Ok(())
    }

    /// What it means to have heard of a member; nothing while one of its requests waits, which is
    /// a sign of life that lasts.
    pub(crate) fn renewal(&self, member_id: &str, now: Now) -> Option<Change> {
        let member = self.members.get(member_id)?;
        if member.join.is_some() || member.sync.is_some() {
            return None;
        }
        let until = now.elapsed + member.session_timeout;
        Some(Change::SessionRenewed { member_id: member.member_id.clone(), until })
    }
}
