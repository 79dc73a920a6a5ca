//! The groups of one partition of the offsets topic.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tidelog_types::{ErrorCode, Offset};

use crate::event::{Event, ShardChange, Volatile};
use crate::group::admin::{self, CLASSIC};
use crate::group::change::Change;
use crate::group::classic::{check_group_id, check_join, heartbeat, left_nothing, refused_join};
use crate::group::draft::{Draft, volatile};
use crate::group::offsets::{self, Offsets, tombstone};
use crate::group::{Group, retention};
use crate::record::GroupRecord;
use crate::request::{
    CommitOffsets, DeleteOffsets, GroupRequest, GroupResponse, JoinGroup, LeaveGroup, Left, Now,
    RequestId, SyncGroup,
};
use crate::settings::GroupSettings;

/// Groups whose timers one call of [`GroupShard::plan_due`] looks at.
const DUE_GROUPS_MAX: usize = 100;
/// Timers of one group that one call plays.
const DUE_TIMERS_MAX: usize = 1_000;
/// Offsets that one call looks at, for what has expired; a group is looked at as a whole.
const SWEPT_OFFSETS_MAX: usize = 10_000;
/// Groups that one call looks at, for what has expired.
const SWEPT_GROUPS_MAX: usize = 1_000;

/// One partition of the offsets topic: its groups and their offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupShard {
    settings: GroupSettings,
    groups: BTreeMap<Arc<str>, Held>,
    /// When something falls due, for each group where something does.
    due: BTreeSet<(Duration, Arc<str>)>,
    /// When to look for expired offsets, and after which group; not before loading is over.
    sweep: Option<(Duration, Option<Arc<str>>)>,
}

/// A group and its offsets. There is one of each, or neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Held {
    group: Group,
    offsets: Offsets,
}

/// What a request, or the passing of time, leads to.
///
/// The records go to the log in their order. They may be cut into several batches: each of their
/// beginnings is a state that a shard can be in. The replies are due once all of them, and all that
/// the plan could have seen, is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planned {
    /// What has happened: to be replayed, in this order, before anything else is planned.
    pub events: Vec<Event>,
    /// Answers to this request and to such as waited for it.
    pub replies: Vec<(RequestId, GroupResponse)>,
    /// The rebalances that begin, for metrics and logs.
    pub rebalances: Vec<Rebalance>,
}

/// A rebalance that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebalance {
    /// Of this group.
    pub group_id: Arc<str>,
    /// The generation that ends; 0 for a group that had none.
    pub generation_id: i32,
    /// Why.
    pub cause: RebalanceCause,
}

/// Why the members of a group have to agree anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RebalanceCause {
    /// A client became a member.
    MemberJoined,
    /// A member has something new to say, or the leader something new to assign.
    MemberRejoined,
    /// A static member came back while others agreed, or with other protocols.
    StaticMemberReplaced,
    /// A member left or was removed by an administrator.
    MemberLeft,
    /// A member was not heard of for too long.
    SessionExpired,
    /// A member did not ask for its assignment.
    SyncExpired,
    /// The leader's assignment does not fit into a record.
    AssignmentTooLarge,
    /// The loaded group has more members than are allowed now.
    OverCapacity,
}

impl RebalanceCause {
    /// Every cause, for whoever counts them.
    pub const ALL: [RebalanceCause; 8] = [
        RebalanceCause::MemberJoined,
        RebalanceCause::MemberRejoined,
        RebalanceCause::StaticMemberReplaced,
        RebalanceCause::MemberLeft,
        RebalanceCause::SessionExpired,
        RebalanceCause::SyncExpired,
        RebalanceCause::AssignmentTooLarge,
        RebalanceCause::OverCapacity,
    ];

    /// In the form of a metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RebalanceCause::MemberJoined => "member_joined",
            RebalanceCause::MemberRejoined => "member_rejoined",
            RebalanceCause::StaticMemberReplaced => "static_member_replaced",
            RebalanceCause::MemberLeft => "member_left",
            RebalanceCause::SessionExpired => "session_expired",
            RebalanceCause::SyncExpired => "sync_expired",
            RebalanceCause::AssignmentTooLarge => "assignment_too_large",
            RebalanceCause::OverCapacity => "over_capacity",
        }
    }
}

/// What metrics tell of a group.
#[derive(Debug, Clone, Copy)]
pub struct GroupSummary<'a> {
    /// The group.
    pub group_id: &'a str,
    /// As in [`crate::request::ListedGroup`].
    pub state: &'static str,
    /// As in [`crate::request::ListedGroup`].
    pub group_type: &'static str,
    /// How many members it has.
    pub members: usize,
    offsets: &'a Offsets,
}

impl<'a> GroupSummary<'a> {
    /// How far it has come: topic, partition, next record to consume.
    pub fn offsets(&self) -> impl Iterator<Item = (&'a str, i32, Offset)> + use<'a> {
        self.offsets.iter().map(|(topic, partition, value)| (&**topic, partition, value.offset))
    }

    /// In how many partitions it has an offset.
    #[must_use]
    pub fn offsets_len(&self) -> usize {
        self.offsets.len()
    }
}

impl GroupShard {
    /// A shard that knows no group yet.
    #[must_use]
    pub fn new(settings: GroupSettings) -> GroupShard {
        let (groups, due) = (BTreeMap::new(), BTreeSet::new());
        GroupShard { settings, groups, due, sweep: None }
    }

    /// What an operator decides now; sessions that have begun go on as they were.
    pub fn set_settings(&mut self, settings: GroupSettings) {
        self.settings = settings;
    }

    /// What a request leads to. Nothing changes by it.
    #[must_use]
    pub fn plan(&self, id: RequestId, request: &GroupRequest, now: Now) -> Planned {
        match request {
            GroupRequest::Join(request) => self.plan_join(id, request, now),
            GroupRequest::Sync(request) => self.plan_sync(id, request, now),
            GroupRequest::Heartbeat(request) => {
                let group = self.group(&request.group_id);
                let (code, change) = heartbeat(group, request, now);
                let planned = self.only(id, GroupResponse::Heartbeat(code));
                self.with_change(planned, &request.group_id, change)
            }
            GroupRequest::Leave(request) => self.plan_leave(id, request, now),
            GroupRequest::CommitOffsets(request) => self.plan_commit(id, request, now),
            GroupRequest::FetchOffsets(request) => {
                let held = self.groups.get(request.group_id.as_str());
                let fetched = offsets::fetch(held.map(|held| &held.offsets), request);
                self.only(id, GroupResponse::FetchOffsets(Ok(fetched)))
            }
            GroupRequest::DeleteOffsets(request) => self.plan_delete_offsets(id, request),
            GroupRequest::List(request) => {
                let groups = self.groups.iter();
                let listed = groups.filter_map(|(id, held)| held.group.listed(id, request));
                self.only(id, GroupResponse::List(listed.collect()))
            }
            GroupRequest::Describe { group_id } => {
                let group = self.group(group_id).ok_or(ErrorCode::GroupIdNotFound);
                self.only(id, GroupResponse::Describe(group.map(Group::described)))
            }
            GroupRequest::Delete { group_id } => self.plan_delete(id, group_id),
            GroupRequest::ForgetTopics { topics } => self.plan_forget(id, topics),
        }
    }

    /// Applies what a plan says has happened.
    pub fn replay(&mut self, event: &Event) {
        match event {
            Event::Record(record) => self.load(record),
            Event::Volatile(Volatile(ShardChange::Group { group_id, change })) => {
                self.with_group(group_id, |held| held.group.apply(change));
            }
            Event::Volatile(Volatile(ShardChange::Swept { up_to, next })) => {
                self.sweep = Some((*next, up_to.clone()));
            }
        }
    }

    /// Applies a record of the log: at start-up, and as part of what a plan says.
    pub fn load(&mut self, record: &GroupRecord) {
        match record {
            GroupRecord::OffsetCommit { group_id, topic, partition, value } => {
                self.with_group(group_id, |held| {
                    held.offsets.replay(topic, *partition, value.as_ref());
                });
            }
            GroupRecord::GroupMetadata { group_id, value } => {
                self.with_group(group_id, |held| held.group.replay(value.as_ref()));
            }
            GroupRecord::Unknown { .. } => {}
        }
    }

    /// Loading is over: every member has a session's time to be heard of.
    #[must_use]
    pub fn plan_loaded(&self, now: Now) -> Planned {
        let mut planned = Planned::default();
        for (group_id, held) in
            self.groups.iter().filter(|(_, held)| !held.group.members.is_empty())
        {
            let mut draft = self.draft(group_id, Some(held), now);
            draft.start_sessions();
            planned.append(draft.into_planned());
        }
        let next = now.elapsed + self.settings.offsets_retention_check_interval;
        planned.events.push(swept(None, next));
        planned
    }

    /// When [`GroupShard::plan_due`] will have something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let due = self.due.first().map(|(deadline, _)| *deadline);
        let sweep = self.sweep.as_ref().map(|(next, _)| *next);
        due.into_iter().chain(sweep).min()
    }

    /// What is due: members that fell silent, waits that are over, offsets that have expired. A
    /// bounded part of it; the rest is still due then.
    #[must_use]
    pub fn plan_due(&self, now: Now) -> Planned {
        let mut planned = Planned::default();
        let due = self.due.iter().take_while(|(deadline, _)| *deadline <= now.elapsed);
        for (_, group_id) in due.take(DUE_GROUPS_MAX) {
            let mut draft = self.draft(group_id, self.groups.get(group_id), now);
            draft.catch_up(DUE_TIMERS_MAX);
            planned.append(draft.into_planned());
        }
        match &self.sweep {
            Some((next, after)) if planned.events.is_empty() && *next <= now.elapsed => {
                self.plan_sweep(after.as_ref(), now)
            }
            _ => planned,
        }
    }

    /// The requests that have no answer yet. When the shard goes, nobody else will answer them.
    pub fn waiting(&self) -> impl Iterator<Item = RequestId> {
        let members = self.groups.values().flat_map(|held| held.group.members.values());
        members.flat_map(|member| member.join.into_iter().chain(member.sync))
    }

    /// All groups, for metrics.
    pub fn groups(&self) -> impl Iterator<Item = GroupSummary<'_>> {
        self.groups.iter().map(|(group_id, held)| GroupSummary {
            group_id,
            state: held.group.state.name(),
            group_type: CLASSIC,
            members: held.group.members.len(),
            offsets: &held.offsets,
        })
    }

    fn plan_join(&self, id: RequestId, request: &JoinGroup, now: Now) -> Planned {
        let held = self.groups.get(request.group_id.as_str());
        let checked = check_join(&self.settings, request).and_then(|()| {
            let can_begin = held.is_some() || request.member_id.is_empty();
            if can_begin { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
        });
        if let Err(error) = checked {
            return self.only(id, GroupResponse::Join(refused_join(error, &request.member_id)));
        }
        let mut draft = self.draft(&self.shared(&request.group_id), held, now);
        draft.join(id, request);
        draft.into_planned()
    }

    fn plan_sync(&self, id: RequestId, request: &SyncGroup, now: Now) -> Planned {
        let held = self.groups.get(request.group_id.as_str());
        let mut draft = self.draft(&self.shared(&request.group_id), held, now);
        draft.sync(id, request);
        draft.into_planned()
    }

    fn plan_leave(&self, id: RequestId, request: &LeaveGroup, now: Now) -> Planned {
        if let Err(error_code) = check_group_id(&request.group_id) {
            let left = Left { error_code, members: Vec::new() };
            return self.only(id, GroupResponse::Leave(left));
        }
        let Some(held) = self.groups.get(request.group_id.as_str()) else {
            return self.only(id, GroupResponse::Leave(left_nothing(request)));
        };
        let mut draft = self.draft(&self.shared(&request.group_id), Some(held), now);
        draft.leave(id, request);
        draft.into_planned()
    }

    fn plan_commit(&self, id: RequestId, request: &CommitOffsets, now: Now) -> Planned {
        let group = self.group(&request.group_id);
        if let Err(error) = offsets::check_commit(group, request) {
            let codes = vec![error; request.offsets.len()];
            return self.only(id, GroupResponse::CommitOffsets(codes));
        }
        let group_id = self.shared(&request.group_id);
        let (records, codes) = offsets::commit(&self.settings, &group_id, request, now);
        let planned = self.only(id, GroupResponse::CommitOffsets(codes)).with_records(records);
        let renewal = group.and_then(|group| group.renewal(&request.member_id, now));
        self.with_change(planned, &request.group_id, renewal)
    }

    fn plan_delete_offsets(&self, id: RequestId, request: &DeleteOffsets) -> Planned {
        let found = self.groups.get_key_value(request.group_id.as_str());
        let checked = check_group_id(&request.group_id)
            .and_then(|()| offsets::check_delete(found.map(|(_, held)| &held.group)));
        match (checked, found) {
            (Ok(group), Some((group_id, held))) => {
                let (records, codes) = offsets::delete(group_id, group, &held.offsets, request);
                self.only(id, GroupResponse::DeleteOffsets(Ok(codes))).with_records(records)
            }
            (Err(error), _) => self.only(id, GroupResponse::DeleteOffsets(Err(error))),
            (Ok(_), None) => unreachable!("a group that was checked is there"),
        }
    }

    fn plan_delete(&self, id: RequestId, group_id: &str) -> Planned {
        let found = self.groups.get_key_value(group_id).ok_or(ErrorCode::GroupIdNotFound);
        let deleted =
            found.and_then(|(group_id, held)| admin::delete(group_id, &held.group, &held.offsets));
        match deleted {
            Ok(records) => {
                self.only(id, GroupResponse::Delete(ErrorCode::None)).with_records(records)
            }
            Err(error) => self.only(id, GroupResponse::Delete(error)),
        }
    }

    fn plan_forget(&self, id: RequestId, topics: &[String]) -> Planned {
        let mut records = Vec::new();
        for (group_id, held) in &self.groups {
            let gone = topics.iter().flat_map(|topic| held.offsets.of_topic(topic));
            records.extend(gone.map(|(topic, partition)| tombstone(group_id, topic, partition)));
        }
        self.only(id, GroupResponse::ForgetTopics).with_records(records)
    }

    fn plan_sweep(&self, after: Option<&Arc<str>>, now: Now) -> Planned {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let (mut records, mut offsets_seen, mut last) = (Vec::new(), 0, None);
        let mut rest = self.groups.range((from, Bound::Unbounded));
        for (group_id, held) in rest.by_ref().take(SWEPT_GROUPS_MAX) {
            records.extend(retention::expire(
                &self.settings,
                group_id,
                &held.group,
                &held.offsets,
                now,
            ));
            offsets_seen += held.offsets.len();
            last = Some(group_id.clone());
            if offsets_seen >= SWEPT_OFFSETS_MAX {
                break;
            }
        }
        let interval = self.settings.offsets_retention_check_interval;
        let swept = match rest.next() {
            Some(_) => swept(last, now.elapsed),
            None => swept(None, now.elapsed + interval),
        };
        let mut planned = Planned::default().with_records(records);
        planned.events.push(swept);
        planned
    }

    fn group(&self, group_id: &str) -> Option<&Group> {
        self.groups.get(group_id).map(|held| &held.group)
    }

    /// The group's id, shared with the group if there is one.
    fn shared(&self, group_id: &str) -> Arc<str> {
        let known = self.groups.get_key_value(group_id);
        known.map_or_else(|| group_id.into(), |(group_id, _)| group_id.clone())
    }

    fn draft(&self, group_id: &Arc<str>, held: Option<&Held>, now: Now) -> Draft<'_> {
        let group = held.map(|held| held.group.clone()).unwrap_or_default();
        Draft::new(&self.settings, now, group_id.clone(), group)
    }

    fn only(&self, id: RequestId, response: GroupResponse) -> Planned {
        Planned { replies: vec![(id, response)], ..Planned::default() }
    }

    fn with_change(&self, mut planned: Planned, group_id: &str, change: Option<Change>) -> Planned {
        planned.events.extend(change.map(|change| volatile(&self.shared(group_id), change)));
        planned
    }

    /// Changes a group, which comes to be by it or vanishes by it, and keeps its place among those
    /// where something falls due.
    fn with_group(&mut self, group_id: &Arc<str>, change: impl FnOnce(&mut Held)) {
        if !self.groups.contains_key(group_id) {
            self.groups.insert(group_id.clone(), Held::default());
        }
        let held = self.groups.get_mut(group_id).expect("a group that is there");
        let before = held.group.next_due().map(|(deadline, _)| *deadline);
        change(held);
        let after = held.group.next_due().map(|(deadline, _)| *deadline);
        if held.group.is_nothing() && held.offsets.is_empty() {
            assert_eq!(after, None, "a group that is nothing waits for nothing");
            self.groups.remove(group_id);
        }
        if before != after {
            before.map(|before| self.due.remove(&(before, group_id.clone())));
            after.map(|after| self.due.insert((after, group_id.clone())));
        }
    }
}

impl Planned {
    fn with_records(mut self, records: Vec<GroupRecord>) -> Planned {
        self.events.extend(records.into_iter().map(Event::Record));
        self
    }

    fn append(&mut self, other: Planned) {
        self.events.extend(other.events);
        self.replies.extend(other.replies);
        self.rebalances.extend(other.rebalances);
    }
}

fn swept(up_to: Option<Arc<str>>, next: Duration) -> Event {
    Event::Volatile(Volatile(ShardChange::Swept { up_to, next }))
}
