//! Adding partitions to topics, by Kafka's rules (KIP-195).

use std::{cmp::Ordering, collections::BTreeMap};

use tidelog_types::BrokerId;

use super::create::{check_partition_count, invalid_assignment, invalid_request};
use crate::{
    controller::{Controller, ControllerResult},
    error::ControllerError,
    image::TopicImage,
    placement::place,
    record::MetadataRecord,
};

/// Partitions that a request wants a topic to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePartitions {
    /// The topic.
    pub name: String,
    /// How many it is to have in all.
    pub count: i32,
    /// Each new partition's brokers, the preferred leader first; `None` leaves that to the broker.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// What became of one topic that is to grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePartitionsResult {
    /// As the request named it.
    pub name: String,
    /// Whether it will have what was asked for.
    pub result: Result<(), ControllerError>,
}

impl Controller {
    /// Plans new partitions, each topic for itself. Answers come in the order of the request, one
    /// for each name.
    pub fn create_partitions(
        &self,
        topics: &[CreatePartitions],
        validate_only: bool,
    ) -> ControllerResult<Vec<CreatePartitionsResult>> {
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        topics.iter().for_each(|topic| *times.entry(&topic.name).or_insert(0) += 1);
        let (mut records, mut response) = (Vec::new(), Vec::new());
        for topic in topics {
            let result = match times.remove(topic.name.as_str()) {
                None => continue, // answered where it came first
                Some(1) => self.grow(topic, &mut records),
                Some(_) => Err(invalid_request("Duplicate topic name.")),
            };
            response.push(CreatePartitionsResult { name: topic.name.clone(), result });
        }
        if validate_only {
            records.clear();
        }
        ControllerResult { records, response }
    }

    /// Adds the records of one topic's new partitions; each record so far is a partition too.
    fn grow(
        &self,
        wanted: &CreatePartitions,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), ControllerError> {
        let topic = self.image.topics().get(&wanted.name);
        let topic =
            topic.ok_or_else(|| ControllerError::UnknownTopic { name: wanted.name.clone() })?;
        let more = additional(topic, wanted.count)?;
        check_partition_count(records.len() + more)?;
        let first_replicas = topic.partition(0).map(|partition| partition.replicas.len());
        let factor = first_replicas.expect("a topic has a partition");
        let replicas = match &wanted.assignments {
            None => self.place_more(more, factor, records.len())?,
            Some(assignments) => {
                self.check_new_assignments(topic, assignments, more, factor)?;
                assignments.clone()
            }
        };
        let topic_id = topic.topic_id();
        for (partition, replicas) in (topic.partition_count()..).zip(replicas) {
            let registration = self.new_partition(replicas);
            records.push(MetadataRecord::Partition { topic_id, partition, registration });
        }
        Ok(())
    }

    fn place_more(
        &self,
        more: usize,
        factor: usize,
        planned: usize,
    ) -> Result<Vec<Vec<BrokerId>>, ControllerError> {
        let first = self.image.topics().partition_count() as usize + planned;
        place(&self.candidates(), more, factor, first).map_err(|error| {
            ControllerError::InvalidReplicationFactor(format!(
                "Unable to replicate the partition {factor} time(s): {error}"
            ))
        })
    }

    fn check_new_assignments(
        &self,
        topic: &TopicImage,
        assignments: &[Vec<BrokerId>],
        more: usize,
        factor: usize,
    ) -> Result<(), ControllerError> {
        if assignments.len() != more {
            return Err(invalid_assignment(format!(
                "Attempted to add {more} additional partition(s), but only {} assignment(s) were \
                 specified.",
                assignments.len()
            )));
        }
        for (partition, broker_ids) in (topic.partition_count()..).zip(assignments) {
            self.check_assignment(partition, broker_ids)?;
            if broker_ids.len() != factor {
                return Err(invalid_assignment(format!(
                    "The manual partition assignment includes a partition with {} replica(s), \
                     but this is not consistent with previous partitions, which have {factor} \
                     replica(s).",
                    broker_ids.len()
                )));
            }
        }
        Ok(())
    }
}

/// How many partitions are missing to `count`, which is more than none.
fn additional(topic: &TopicImage, count: i32) -> Result<usize, ControllerError> {
    let now = topic.partition_count();
    let wrong = |text| Err(ControllerError::InvalidPartitions(text));
    match count.cmp(&now) {
        Ordering::Greater => Ok((count - now) as usize),
        Ordering::Equal => wrong(format!("Topic already has {now} partition(s).")),
        Ordering::Less => wrong(format!(
            "The topic {} currently has {now} partition(s); {count} would not be an increase.",
            topic.name()
        )),
    }
}
