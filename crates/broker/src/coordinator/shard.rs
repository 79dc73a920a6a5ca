//! What the coordinator's loop asks of a state machine over one partition of an internal topic.

use std::time::Duration;

use bytes::Bytes;
use tidelog_coordinator::{
    Event, GroupRecord, GroupRequest, GroupResponse, GroupSettings, GroupShard, Now, Planned,
    RebalanceCause, RequestId,
};
use tidelog_types::ErrorCode;

/// One partition's state machine. Pure: it neither waits nor writes, and plans change nothing.
pub(crate) trait Shard: Send + 'static {
    /// What an operator decides about it.
    type Settings: Clone + Send + 'static;
    /// What it is asked.
    type Request: Send + 'static;
    /// What it answers.
    type Response: Send + 'static;
    /// What a plan says has happened.
    type Event;

    /// The internal topic whose partitions are its logs.
    const TOPIC: &'static str;

    /// One that knows nothing, to be loaded.
    fn new(settings: &Self::Settings) -> Self;

    /// Takes in one record of its log.
    ///
    /// # Errors
    /// When it is no record of this shard's, in words. Nothing has changed then.
    fn load(&mut self, record: LoggedRecord) -> Result<(), String>;

    /// What it leads to that the log was read to its end.
    fn plan_loaded(&self, now: Now) -> Plan<Self>;

    /// What a request leads to.
    fn plan(&self, id: RequestId, request: &Self::Request, now: Now) -> Plan<Self>;

    /// What time leads to.
    fn plan_due(&self, now: Now) -> Plan<Self>;

    /// Changes the shard.
    fn replay(&mut self, event: &Self::Event);

    /// What of an event goes to the log.
    fn logged(event: &Self::Event) -> Option<LoggedRecord>;

    /// When [`Shard::plan_due`] has something to do next, as [`Now::elapsed`].
    fn next_deadline(&self) -> Option<Duration>;

    /// The request, if it has to be made, that has topics forgotten which no longer exist.
    fn forget(topics: &[String]) -> Option<Self::Request>;

    /// What a request is told whose record is larger than the log takes.
    fn too_large(request: &Self::Request) -> ErrorCode;
}

/// One record, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoggedRecord {
    /// What it is about.
    pub key: Bytes,
    /// `None`: there is no such thing any more.
    pub value: Option<Bytes>,
}

/// Events to replay in order, and who is answered then.
pub(crate) struct Plan<S: Shard + ?Sized> {
    /// What has happened.
    pub events: Vec<S::Event>,
    /// To requests of this plan or of earlier ones.
    pub replies: Vec<(RequestId, S::Response)>,
    /// Rebalances that begin, if it is groups that the shard looks after: to be counted.
    pub rebalances: Vec<RebalanceCause>,
}

impl Shard for GroupShard {
    type Settings = GroupSettings;
    type Request = GroupRequest;
    type Response = GroupResponse;
    type Event = Event;

    const TOPIC: &'static str = "__consumer_offsets";

    fn new(settings: &GroupSettings) -> GroupShard {
        GroupShard::new(settings.clone())
    }

    fn load(&mut self, LoggedRecord { key, value }: LoggedRecord) -> Result<(), String> {
        let record = GroupRecord::decode(&key, value.as_ref());
        record.map(|record| GroupShard::load(self, &record)).map_err(|error| error.to_string())
    }

    fn plan_loaded(&self, now: Now) -> Plan<GroupShard> {
        GroupShard::plan_loaded(self, now).into()
    }

    fn plan(&self, id: RequestId, request: &GroupRequest, now: Now) -> Plan<GroupShard> {
        GroupShard::plan(self, id, request, now).into()
    }

    fn plan_due(&self, now: Now) -> Plan<GroupShard> {
        GroupShard::plan_due(self, now).into()
    }

    fn replay(&mut self, event: &Event) {
        GroupShard::replay(self, event);
    }

    fn logged(event: &Event) -> Option<LoggedRecord> {
        match event {
            Event::Record(record) => {
                let (key, value) = record.encode();
                Some(LoggedRecord { key, value })
            }
            Event::Volatile(_) => None,
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        GroupShard::next_deadline(self)
    }

    fn forget(topics: &[String]) -> Option<GroupRequest> {
        let topics = topics.to_vec();
        (!topics.is_empty()).then_some(GroupRequest::ForgetTopics { topics })
    }

    fn too_large(request: &GroupRequest) -> ErrorCode {
        match request {
            GroupRequest::CommitOffsets(_) => ErrorCode::InvalidCommitOffsetSize,
            GroupRequest::Join(_)
            | GroupRequest::Sync(_)
            | GroupRequest::Heartbeat(_)
            | GroupRequest::Leave(_)
            | GroupRequest::FetchOffsets(_)
            | GroupRequest::DeleteOffsets(_)
            | GroupRequest::List(_)
            | GroupRequest::Describe { .. }
            | GroupRequest::Delete { .. }
            | GroupRequest::ForgetTopics { .. } => ErrorCode::UnknownServerError,
        }
    }
}

impl From<Planned> for Plan<GroupShard> {
    fn from(Planned { events, replies, rebalances }: Planned) -> Plan<GroupShard> {
        let rebalances = rebalances.into_iter().map(|begun| begun.cause).collect();
        Plan { events, replies, rebalances }
    }
}
