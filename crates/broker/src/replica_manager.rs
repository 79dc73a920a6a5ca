//! The partitions that this broker hosts, found without a lock.
//!
//! One writer, the metadata thread; readers load an immutable, structurally shared map.

use std::{sync::Arc, time::Duration};

use arc_swap::{ArcSwap, Guard};
use tidelog_protocol::TopicRef;
use tidelog_types::{
    BrokerId, Clock, ErrorCode, TopicId, TopicIdPartition, topic_settings::TopicSettings,
};
use tidelog_wal::{LogSettings, RecoveredPartition, Wal, WalError};
use tracing::error;

use crate::{
    metrics::BrokerMetrics,
    partition::{Leadership, Partition},
};

/// All topics at one moment.
#[derive(Clone, Default)]
pub struct Topics {
    by_id: imbl::HashMap<TopicId, Arc<Topic>>,
    by_name: imbl::HashMap<Arc<str>, Arc<Topic>>,
}

/// One topic, as those who append and read need it.
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// What holds for it.
    pub settings: TopicSettings,
    /// Its partitions by number.
    partitions: Vec<Hosted>,
}

/// Where a partition's log is.
#[derive(Clone)]
enum Hosted {
    /// On this broker, which leads it.
    Here(Arc<Partition>),
    /// On this broker, but its log could not be opened.
    Failed,
    /// On other brokers.
    Elsewhere,
}

/// What metadata says of one topic.
pub struct TopicSpec {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// What holds for it.
    pub settings: TopicSettings,
    /// By partition number; `None` where this broker does not lead.
    pub partitions: Vec<Option<Leadership>>,
}

/// Why a partition cannot be used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// There is no topic of this name, or it has no such partition.
    #[error("no such topic or partition")]
    Unknown,
    /// There is no topic of this id.
    #[error("no such topic id")]
    UnknownId,
    /// Another broker leads it.
    #[error("this broker does not lead the partition")]
    NotHere,
    /// Its log could not be opened.
    #[error("the partition's log could not be opened")]
    Failed,
    /// A request names it twice where once is all that makes sense.
    #[error("the partition is named twice")]
    Twice,
}

impl LookupError {
    /// What a client is told.
    #[must_use]
    pub fn error_code(self) -> ErrorCode {
        match self {
            LookupError::Unknown => ErrorCode::UnknownTopicOrPartition,
            LookupError::UnknownId => ErrorCode::UnknownTopicId,
            LookupError::NotHere => ErrorCode::NotLeaderOrFollower,
            LookupError::Failed => ErrorCode::KafkaStorageError,
            LookupError::Twice => ErrorCode::InvalidRequest,
        }
    }
}

impl Topics {
    /// The topic that a request names.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, topic: &TopicRef) -> Result<&Arc<Topic>, LookupError> {
        match topic {
            TopicRef::Name(name) => self.named(name),
            TopicRef::Id(id) => self.by_id.get(id).ok_or(LookupError::UnknownId),
        }
    }

    /// The topic of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(&self, name: &str) -> Result<&Arc<Topic>, LookupError> {
        self.by_name.get(name).ok_or(LookupError::Unknown)
    }

    /// All topics, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_id.values()
    }

    /// The topic of this id, if any.
    #[must_use]
    pub fn with_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    fn insert(&mut self, topic: Arc<Topic>) {
        self.by_id.insert(topic.id, Arc::clone(&topic));
        self.by_name.insert(Arc::clone(&topic.name), topic);
    }

    fn remove(&mut self, id: TopicId) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        // A topic of the same name may have been created since.
        if self.by_name.get(&topic.name).is_some_and(|named| named.id == id) {
            self.by_name.remove(&topic.name);
        }
        Some(topic)
    }
}

impl Topic {
    /// A partition that this broker leads.
    ///
    /// # Errors
    /// When it does not exist, is led elsewhere or could not be opened.
    pub fn partition(&self, index: i32) -> Result<&Arc<Partition>, LookupError> {
        let hosted = usize::try_from(index).ok().and_then(|index| self.partitions.get(index));
        match hosted.ok_or(LookupError::Unknown)? {
            Hosted::Here(partition) => Ok(partition),
            Hosted::Failed => Err(LookupError::Failed),
            Hosted::Elsewhere => Err(LookupError::NotHere),
        }
    }

    /// How many partitions it has, here and elsewhere.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).expect("partitions are numbered by i32")
    }

    /// The partitions that this broker leads, by number.
    pub fn hosted_here(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().filter_map(|hosted| match hosted {
            Hosted::Here(partition) => Some(partition.as_ref()),
            Hosted::Failed | Hosted::Elsewhere => None,
        })
    }

    fn hosted(&self, index: usize) -> Option<&Hosted> {
        self.partitions.get(index)
    }
}

/// What of a topic's settings the log itself honours.
fn log_settings(settings: &TopicSettings) -> LogSettings {
    let milliseconds = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    // What is only compacted keeps each key's last record, however old.
    let deletes = settings.cleanup_policy.split(',').any(|policy| policy.trim() == "delete");
    let unless_kept = |limit: i64| if deletes { limit } else { -1 };
    LogSettings {
        segment_bytes: u64::from(settings.segment_bytes),
        segment_ms: settings.segment_ms,
        segment_jitter_ms: settings.segment_jitter_ms,
        index_interval_bytes: u32::try_from(settings.index_interval_bytes).unwrap_or(0),
        retention_ms: unless_kept(settings.retention_ms),
        retention_bytes: unless_kept(settings.retention_bytes),
        file_delete_delay: milliseconds(settings.file_delete_delay_ms),
    }
}

/// Opens, leads and removes partitions as metadata says.
pub struct ReplicaManager {
    me: BrokerId,
    wal: Wal,
    clock: Arc<dyn Clock>,
    metrics: Arc<BrokerMetrics>,
    topics: ArcSwap<Topics>,
}

impl ReplicaManager {
    /// Hosts nothing yet.
    #[must_use]
    pub fn new(
        me: BrokerId,
        wal: Wal,
        clock: Arc<dyn Clock>,
        metrics: Arc<BrokerMetrics>,
    ) -> ReplicaManager {
        let topics = ArcSwap::from_pointee(Topics::default());
        ReplicaManager { me, wal, clock, metrics, topics }
    }

    /// All topics, as of now.
    pub fn topics(&self) -> Guard<Arc<Topics>> {
        self.topics.load()
    }

    /// Opens and leads what metadata says, and gives up what it no longer has. For the metadata
    /// thread alone. `recovered` tells what is on disk; what is opened is taken out of it.
    pub fn apply(
        &self,
        specs: Vec<TopicSpec>,
        removed: &[TopicId],
        recovered: &mut dyn FnMut(TopicIdPartition) -> Option<RecoveredPartition>,
    ) {
        let mut topics = Topics::clone(&self.topics.load());
        for id in removed {
            if let Some(topic) = topics.remove(*id) {
                self.retire(&topic);
            }
        }
        for spec in specs {
            let before = topics.by_id.get(&spec.id).cloned();
            topics.insert(Arc::new(self.host(spec, before.as_deref(), recovered)));
        }
        self.metrics.topics.set(i64::try_from(topics.by_id.len()).unwrap_or(i64::MAX));
        self.topics.store(Arc::new(topics));
    }

    /// Removes a log whose topic no longer exists.
    pub fn remove_stray(&self, id: TopicIdPartition) {
        match self.wal.remove_log(id) {
            Ok(()) => self.metrics.stray_logs_removed.inc(),
            Err(error) => error!(%id, %error, "a log of an unknown topic could not be removed"),
        }
    }

    fn host(
        &self,
        spec: TopicSpec,
        before: Option<&Topic>,
        recovered: &mut dyn FnMut(TopicIdPartition) -> Option<RecoveredPartition>,
    ) -> Topic {
        let TopicSpec { id, name, settings, partitions } = spec;
        let log_settings = log_settings(&settings);
        let mut hosted = Vec::with_capacity(partitions.len());
        for (index, leadership) in partitions.into_iter().enumerate() {
            let before = before.and_then(|topic| topic.hosted(index));
            let partition = i32::try_from(index).expect("partitions are numbered by i32");
            let id = TopicIdPartition { topic_id: id, partition };
            hosted.push(match leadership {
                None => self.resign(before),
                Some(leadership) => self.lead(id, log_settings, &leadership, before, recovered),
            });
        }
        Topic { id, name, settings, partitions: hosted }
    }

    fn lead(
        &self,
        id: TopicIdPartition,
        settings: LogSettings,
        leadership: &Leadership,
        before: Option<&Hosted>,
        recovered: &mut dyn FnMut(TopicIdPartition) -> Option<RecoveredPartition>,
    ) -> Hosted {
        if let Some(Hosted::Here(partition)) = before {
            self.wal.update_settings(id, settings);
            partition.lead(self.me, leadership);
            return Hosted::Here(Arc::clone(partition));
        }
        match self.open(id, settings, recovered(id)) {
            Ok(partition) => {
                partition.lead(self.me, leadership);
                self.metrics.partitions.inc();
                Hosted::Here(Arc::new(partition))
            }
            Err(error) => {
                error!(%id, %error, "a partition's log could not be opened");
                Hosted::Failed
            }
        }
    }

    fn open(
        &self,
        id: TopicIdPartition,
        settings: LogSettings,
        recovered: Option<RecoveredPartition>,
    ) -> Result<Partition, WalError> {
        Partition::open(&self.wal, id, recovered.as_ref(), settings, Arc::clone(&self.clock))
    }

    fn resign(&self, before: Option<&Hosted>) -> Hosted {
        if let Some(Hosted::Here(partition)) = before {
            partition.resign();
            self.metrics.partitions.dec();
        }
        Hosted::Elsewhere
    }

    /// Gives up a topic that was deleted: its waits fail, then its logs go.
    fn retire(&self, topic: &Topic) {
        for hosted in &topic.partitions {
            let Hosted::Here(partition) = hosted else { continue };
            partition.resign();
            self.metrics.partitions.dec();
            if let Err(error) = self.wal.remove_log(partition.id()) {
                error!(id = %partition.id(), %error, "a deleted topic's log could not be removed");
            }
        }
    }
}
