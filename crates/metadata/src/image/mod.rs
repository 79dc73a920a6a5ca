//! The cluster's metadata at one moment: immutable, cheap to copy, read without a lock.

pub mod cluster;
pub mod configs;
pub mod features;
pub mod producer_ids;
pub mod topics;

pub use cluster::{BrokerRegistration, ClusterImage};
pub use configs::ConfigsImage;
pub use features::FeaturesImage;
pub use producer_ids::ProducerIdsImage;
pub use topics::{TopicImage, TopicsImage};

use crate::{
    delta::MetadataDelta,
    record::{ConfigResource, MetadataRecord},
};

/// Everything that the records up to one index of the Raft log say.
///
/// Copies share what they have in common: copying one and changing it costs as much as the
/// change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetadataImage {
    index: u64,
    features: FeaturesImage,
    cluster: ClusterImage,
    topics: TopicsImage,
    configs: ConfigsImage,
    producer_ids: ProducerIdsImage,
}

impl MetadataImage {
    /// The image after one more Raft entry, and what the entry changed.
    #[must_use]
    pub fn apply(&self, records: &[MetadataRecord], index: u64) -> (MetadataImage, MetadataDelta) {
        assert!(index > self.index, "entry {index} was applied up to {}", self.index);
        let mut image = self.clone();
        let mut delta = MetadataDelta::default();
        for record in records {
            image.replay(record, &mut delta);
        }
        image.index = index;
        (image, delta)
    }

    /// Applies one fact and notes what it changed. Cannot fail, wait or ask why.
    pub(crate) fn replay(&mut self, record: &MetadataRecord, delta: &mut MetadataDelta) {
        match record {
            MetadataRecord::FeatureLevel { name, level } => {
                self.features.replay(name, *level);
                delta.features = true;
            }
            MetadataRecord::Cluster { cluster_id } => {
                self.cluster.replay_cluster_id(*cluster_id);
                delta.cluster_id = true;
            }
            MetadataRecord::RegisterBroker(broker) => {
                self.cluster.replay_register(broker);
                delta.brokers.insert(broker.broker_id);
            }
            MetadataRecord::UnregisterBroker { broker_id, broker_epoch } => {
                self.cluster.replay_unregister(*broker_id, *broker_epoch);
                delta.brokers.insert(*broker_id);
            }
            MetadataRecord::BrokerChange { broker_id, fenced, in_controlled_shutdown, .. } => {
                self.cluster.replay_change(*broker_id, *fenced, *in_controlled_shutdown);
                delta.brokers.insert(*broker_id);
            }
            MetadataRecord::Topic { name, topic_id } => {
                self.topics.replay_topic(name, *topic_id);
                delta.created(*topic_id);
            }
            MetadataRecord::Partition { topic_id, partition, registration } => {
                self.topics.replay_partition(*topic_id, *partition, registration);
                delta.changed(*topic_id, *partition);
            }
            MetadataRecord::PartitionChange(change) => {
                self.topics.replay_change(change);
                delta.changed(change.topic_id, change.partition);
            }
            MetadataRecord::RemoveTopic { topic_id } => {
                let topic = self.topics.replay_remove(*topic_id);
                let resource = ConfigResource::Topic(topic.name().to_owned());
                if self.configs.replay_remove_all(&resource) {
                    delta.configs.insert(resource);
                }
                delta.removed(topic);
            }
            MetadataRecord::Config { resource, key, value } => {
                self.configs.replay(resource, key, value.as_deref());
                delta.configs.insert(resource.clone());
            }
            MetadataRecord::ProducerIds { next_producer_id, .. } => {
                self.producer_ids.replay(*next_producer_id);
                delta.producer_ids = true;
            }
        }
    }

    /// Index of the last Raft entry in this image.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Feature levels.
    #[must_use]
    pub fn features(&self) -> &FeaturesImage {
        &self.features
    }

    /// The cluster's id and its brokers.
    #[must_use]
    pub fn cluster(&self) -> &ClusterImage {
        &self.cluster
    }

    /// Topics and their partitions.
    #[must_use]
    pub fn topics(&self) -> &TopicsImage {
        &self.topics
    }

    /// Settings that were set.
    #[must_use]
    pub fn configs(&self) -> &ConfigsImage {
        &self.configs
    }

    /// Producer ids given out.
    #[must_use]
    pub fn producer_ids(&self) -> &ProducerIdsImage {
        &self.producer_ids
    }

    /// Records that make this image of an empty one, less what [`MetadataImage::restore`] is told.
    pub(crate) fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        self.features.to_records(&mut records);
        self.cluster.to_records(&mut records);
        self.topics.to_records(&mut records);
        self.configs.to_records(&mut records);
        self.producer_ids.to_records(&mut records);
        records
    }

    /// The image that [`MetadataImage::to_records`] described.
    pub(crate) fn restore(
        records: &[MetadataRecord],
        index: u64,
        features_epoch: i64,
        next_broker_epoch: i64,
    ) -> MetadataImage {
        let mut image = MetadataImage::default();
        let mut everything = MetadataDelta::default();
        for record in records {
            image.replay(record, &mut everything);
        }
        image.index = index;
        image.features.restore_epoch(features_epoch);
        image.cluster.restore_next_broker_epoch(next_broker_epoch);
        image
    }
}
