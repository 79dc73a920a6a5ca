//! Topics by name and by id, and their partitions.

use std::{ops::Bound, sync::Arc};

use imbl::{OrdMap, Vector};
use tidelog_types::{TopicId, TopicIdPartition};

use crate::record::{MetadataRecord, PartitionChange, PartitionRegistration};

/// All topics.
///
/// Invariant: `names`, `lookalikes` and `partition_count` follow from `topics`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicsImage {
    topics: OrdMap<TopicId, Arc<TopicImage>>,
    names: OrdMap<Arc<str>, TopicId>,
    /// Names that contain `.` or `_`, by what metrics make of them: `.` becomes `_`.
    lookalikes: OrdMap<String, Arc<str>>,
    partition_count: u64,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    name: Arc<str>,
    topic_id: TopicId,
    partitions: Vector<Arc<PartitionRegistration>>,
}

impl TopicImage {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name, to keep without copying.
    #[must_use]
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Its identity.
    #[must_use]
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// One partition; `None` for a number that it does not have.
    #[must_use]
    pub fn partition(&self, partition: i32) -> Option<&Arc<PartitionRegistration>> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    /// All partitions, by number, from 0.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = (i32, &Arc<PartitionRegistration>)> {
        self.partitions.iter().enumerate().map(|(number, state)| (number as i32, state))
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        self.partitions.len() as i32
    }
}

impl TopicsImage {
    /// A topic by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<TopicImage>> {
        let topic = self.topics.get(self.names.get(name)?);
        assert!(topic.is_some(), "topic {name} has a name but no state");
        topic
    }

    /// A topic by id.
    #[must_use]
    pub fn get_by_id(&self, topic_id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(&topic_id)
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, id: TopicIdPartition) -> Option<&Arc<PartitionRegistration>> {
        self.get_by_id(id.topic_id)?.partition(id.partition)
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.names
            .values()
            .map(|topic_id| self.topics.get(topic_id).expect("a topic that has a name has a state"))
    }

    /// Topics from this name on, by name.
    pub fn iter_from(&self, name: &str) -> impl Iterator<Item = &Arc<TopicImage>> {
        let from_there = (Bound::Included(name), Bound::Unbounded);
        let named = self.names.range::<(Bound<&str>, Bound<&str>), str>(from_there);
        named.map(|(_, id)| self.topics.get(id).expect("a topic that has a name has a state"))
    }

    /// How many topics there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there is no topic.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// How many partitions all topics have.
    #[must_use]
    pub fn partition_count(&self) -> u64 {
        self.partition_count
    }

    /// The topic whose name looks like `name` in a metric, where `.` and `_` are the same.
    #[must_use]
    pub fn lookalike(&self, name: &str) -> Option<&str> {
        self.lookalikes.get(&lookalike_key(name)?).map(AsRef::as_ref)
    }

    pub(super) fn replay_topic(&mut self, name: &str, topic_id: TopicId) {
        let name: Arc<str> = Arc::from(name);
        let other = self.names.insert(Arc::clone(&name), topic_id);
        assert!(other.is_none(), "two topics are called {name}");
        if let Some(key) = lookalike_key(&name) {
            self.lookalikes.insert(key, Arc::clone(&name));
        }
        let topic = Arc::new(TopicImage { name, topic_id, partitions: Vector::new() });
        let other = self.topics.insert(topic_id, topic);
        assert!(other.is_none(), "two topics have the id {topic_id}");
    }

    pub(super) fn replay_partition(
        &mut self,
        topic_id: TopicId,
        partition: i32,
        registration: &PartitionRegistration,
    ) {
        let topic = self.topic_mut(topic_id);
        assert_eq!(partition, topic.partition_count(), "a topic's partitions come in order");
        assert_sound(registration);
        topic.partitions.push_back(Arc::new(registration.clone()));
        self.partition_count += 1;
    }

    pub(super) fn replay_change(&mut self, change: &PartitionChange) {
        let number = usize::try_from(change.partition).expect("partitions are counted from 0");
        let topic = self.topic_mut(change.topic_id);
        let partition = topic.partitions.get_mut(number).expect("only a partition changes");
        Arc::make_mut(partition).replay(change);
    }

    pub(super) fn replay_remove(&mut self, topic_id: TopicId) -> Arc<TopicImage> {
        let topic = self.topics.remove(&topic_id).expect("only a topic is removed");
        self.names.remove(&topic.name);
        if let Some(key) = lookalike_key(&topic.name) {
            self.lookalikes.remove(&key);
        }
        self.partition_count -= topic.partitions.len() as u64;
        topic
    }

    pub(super) fn to_records(&self, records: &mut Vec<MetadataRecord>) {
        for topic in self.topics.values() {
            let topic_id = topic.topic_id;
            records.push(MetadataRecord::Topic { name: topic.name().to_owned(), topic_id });
            for (partition, registration) in topic.partitions() {
                let registration = registration.as_ref().clone();
                records.push(MetadataRecord::Partition { topic_id, partition, registration });
            }
        }
    }

    fn topic_mut(&mut self, topic_id: TopicId) -> &mut TopicImage {
        Arc::make_mut(self.topics.get_mut(&topic_id).expect("a partition has a topic"))
    }
}

impl PartitionRegistration {
    fn replay(&mut self, change: &PartitionChange) {
        assert!(
            change.partition_epoch > self.partition_epoch,
            "{}-{}: the partition epoch did not rise",
            change.topic_id,
            change.partition
        );
        self.partition_epoch = change.partition_epoch;
        if let Some(leader_epoch) = change.leader_epoch {
            assert!(leader_epoch > self.leader_epoch, "a leader epoch did not rise");
            self.leader_epoch = leader_epoch;
        }
        if let Some(leader) = change.leader {
            let rose = change.leader_epoch.is_some();
            assert!(rose || leader == self.leader, "a leader changed within its leader epoch");
            self.leader = leader;
        }
        replace(&mut self.replicas, &change.replicas);
        replace(&mut self.isr, &change.isr);
        replace(&mut self.elr, &change.elr);
        replace(&mut self.last_known_elr, &change.last_known_elr);
        replace(&mut self.adding_replicas, &change.adding_replicas);
        replace(&mut self.removing_replicas, &change.removing_replicas);
        replace(&mut self.directories, &change.directories);
        self.leader_recovery_state =
            change.leader_recovery_state.unwrap_or(self.leader_recovery_state);
        assert_sound(self);
    }
}

fn replace<T: Clone>(field: &mut Vec<T>, change: &Option<Vec<T>>) {
    if let Some(changed) = change {
        field.clone_from(changed);
    }
}

/// What holds for every partition at every moment.
fn assert_sound(partition: &PartitionRegistration) {
    let assigned = |ids: &[_]| ids.iter().all(|id| partition.replicas.contains(id));
    assert!(!partition.replicas.is_empty(), "a partition has a replica");
    assert!(assigned(&partition.isr), "a replica is in sync that is not assigned");
    assert!(assigned(&partition.elr), "a replica may be elected that is not assigned");
    assert!(
        partition.leader.is_none_or(|leader| partition.isr.contains(&leader)),
        "a leader is in sync with itself"
    );
    assert!(
        partition.elr.iter().all(|id| !partition.isr.contains(id)),
        "a replica is in sync or only eligible, not both"
    );
    assert!(
        [0, partition.replicas.len()].contains(&partition.directories.len()),
        "every replica has its directory or none has"
    );
}

/// What a metric makes of a name; `None` for one that no other can look like.
pub(crate) fn lookalike_key(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}
