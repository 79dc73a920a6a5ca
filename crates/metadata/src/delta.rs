//! What some records changed, so that publishers need not compare images.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidelog_types::{BrokerId, TopicId};

use crate::{
    image::{MetadataImage, TopicImage},
    record::ConfigResource,
};

/// What changed between two images. It may name what changed and changed back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetadataDelta {
    /// Topics that came, changed or went.
    pub topics: BTreeMap<TopicId, TopicDelta>,
    /// Brokers that registered, changed or went.
    pub brokers: BTreeSet<BrokerId>,
    /// Resources whose settings changed.
    pub configs: BTreeSet<ConfigResource>,
    /// Whether a feature level changed.
    pub features: bool,
    /// Whether the cluster got its id.
    pub cluster_id: bool,
    /// Whether producer ids were given out.
    pub producer_ids: bool,
}

/// What became of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicDelta {
    /// It is new: all of its partitions are.
    Created,
    /// These partitions are new or changed.
    Changed(BTreeSet<i32>),
    /// It is gone; this is how it was.
    Removed(Arc<TopicImage>),
}

impl MetadataDelta {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == MetadataDelta::default()
    }

    /// What differs between two images: for one that came as a snapshot.
    #[must_use]
    pub fn between(old: &MetadataImage, new: &MetadataImage) -> MetadataDelta {
        let mut delta = MetadataDelta {
            features: old.features() != new.features(),
            cluster_id: old.cluster().cluster_id() != new.cluster().cluster_id(),
            producer_ids: old.producer_ids() != new.producer_ids(),
            ..MetadataDelta::default()
        };
        delta.add_topics(old, new);
        delta.add_brokers(old, new);
        delta.add_configs(old, new);
        delta
    }

    pub(crate) fn created(&mut self, topic_id: TopicId) {
        let other = self.topics.insert(topic_id, TopicDelta::Created);
        assert!(other.is_none(), "the id {topic_id} was used before");
    }

    pub(crate) fn changed(&mut self, topic_id: TopicId, partition: i32) {
        let changed = || TopicDelta::Changed(BTreeSet::new());
        match self.topics.entry(topic_id).or_insert_with(changed) {
            TopicDelta::Created => {}
            TopicDelta::Changed(partitions) => {
                partitions.insert(partition);
            }
            TopicDelta::Removed(topic) => panic!("topic {} changed after its end", topic.name()),
        }
    }

    pub(crate) fn removed(&mut self, topic: Arc<TopicImage>) {
        let topic_id = topic.topic_id();
        if let Some(TopicDelta::Created) = self.topics.remove(&topic_id) {
            return; // nobody ever saw it
        }
        self.topics.insert(topic_id, TopicDelta::Removed(topic));
    }

    fn add_topics(&mut self, old: &MetadataImage, new: &MetadataImage) {
        for topic in new.topics().iter() {
            match old.topics().get_by_id(topic.topic_id()) {
                None => self.created(topic.topic_id()),
                Some(before) if Arc::ptr_eq(before, topic) => {}
                Some(before) => self.add_partitions(before, topic),
            }
        }
        for topic in old.topics().iter() {
            if new.topics().get_by_id(topic.topic_id()).is_none() {
                self.removed(Arc::clone(topic));
            }
        }
    }

    fn add_partitions(&mut self, before: &TopicImage, topic: &TopicImage) {
        for (number, partition) in topic.partitions() {
            if before.partition(number) != Some(partition) {
                self.changed(topic.topic_id(), number);
            }
        }
    }

    fn add_brokers(&mut self, old: &MetadataImage, new: &MetadataImage) {
        let all = old.cluster().brokers().chain(new.cluster().brokers());
        let changed = all
            .map(|broker| broker.broker_id)
            .filter(|id| old.cluster().broker(*id) != new.cluster().broker(*id));
        self.brokers.extend(changed);
    }

    fn add_configs(&mut self, old: &MetadataImage, new: &MetadataImage) {
        let all = old.configs().resources().chain(new.configs().resources());
        let changed = all.filter(|r| old.configs().get(r) != new.configs().get(r)).cloned();
        self.configs.extend(changed);
    }
}
