//! Creating topics, by Kafka's rules (KIP-4, KIP-464).

use std::collections::{BTreeMap, BTreeSet};

use tidelog_types::{
    BrokerId, LeaderEpoch, PartitionEpoch, TopicId, Uuid, topic_settings::TopicSettings,
};

use super::name::{check_topic_name, is_internal_topic};
use crate::{
    control::configs::{check_topic_configs, topic_config_records},
    controller::{Controller, ControllerResult},
    error::ControllerError,
    image::topics::lookalike_key,
    placement::{Candidate, place},
    record::{LeaderRecoveryState, MetadataRecord, PartitionRegistration},
};

/// Partitions that one request may create: more would make one Raft entry too large.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// A topic that a request wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 for the broker's `num.partitions`, or with assignments.
    pub num_partitions: i32,
    /// How many replicas; -1 for `default.replication.factor`, or with assignments.
    pub replication_factor: i16,
    /// Where each partition goes; empty leaves that to the broker.
    pub assignments: Vec<ReplicaAssignment>,
    /// Settings, as key and value.
    pub configs: Vec<(String, Option<String>)>,
    /// Whether it is one of the broker's own, which no client may create.
    pub is_internal: bool,
}

/// Where one partition of a new topic goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaAssignment {
    /// The partition.
    pub partition: i32,
    /// Its brokers, the preferred leader first.
    pub broker_ids: Vec<BrokerId>,
}

/// What became of one topic that a request wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopicResult {
    /// As the request named it.
    pub name: String,
    /// The topic as it will be.
    pub result: Result<CreatedTopic, ControllerError>,
}

/// A topic as it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its identity; zero where the request only wanted to know whether it could be.
    pub topic_id: TopicId,
    /// How many partitions.
    pub num_partitions: i32,
    /// How many replicas each.
    pub replication_factor: i16,
    /// What was set for it.
    pub configs: BTreeMap<String, String>,
}

impl CreateTopic {
    /// A topic with everything as the broker has it: what auto-creation makes.
    #[must_use]
    pub fn with_defaults(name: &str) -> CreateTopic {
        CreateTopic {
            name: name.to_owned(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
            is_internal: false,
        }
    }
}

/// What one request has planned so far: its later topics must fit beside its earlier ones.
struct Plan<'a> {
    validate_only: bool,
    ids: &'a mut dyn FnMut() -> TopicId,
    candidates: Vec<Candidate>,
    lookalikes: BTreeMap<String, String>,
    topic_ids: BTreeSet<TopicId>,
    partitions: usize,
    records: Vec<MetadataRecord>,
}

impl Controller {
    /// Plans new topics, each for itself: one that cannot be does not keep the others from being.
    /// Answers come in the order of the request, one for each name. `ids` gives random ids; it is
    /// asked again for one that cannot be used.
    pub fn create_topics(
        &self,
        topics: &[CreateTopic],
        validate_only: bool,
        ids: &mut dyn FnMut() -> TopicId,
    ) -> ControllerResult<Vec<CreateTopicResult>> {
        let mut plan = Plan {
            validate_only,
            ids,
            candidates: self.candidates(),
            lookalikes: BTreeMap::new(),
            topic_ids: BTreeSet::new(),
            partitions: 0,
            records: Vec::new(),
        };
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        topics.iter().for_each(|topic| *times.entry(&topic.name).or_insert(0) += 1);
        let mut response = Vec::new();
        for topic in topics {
            let result = match times.remove(topic.name.as_str()) {
                None => continue, // answered where it came first
                Some(1) => self.create_topic(topic, &mut plan),
                Some(_) => Err(invalid_request("Duplicate topic name.")),
            };
            response.push(CreateTopicResult { name: topic.name.clone(), result });
        }
        ControllerResult { records: plan.records, response }
    }

    fn create_topic(
        &self,
        topic: &CreateTopic,
        plan: &mut Plan<'_>,
    ) -> Result<CreatedTopic, ControllerError> {
        self.check_name(topic, plan)?;
        let configs = match topic.is_internal {
            true => own_configs(&topic.configs),
            false => check_topic_configs(&topic.configs)?,
        };
        let replicas = match topic.assignments.as_slice() {
            [] => self.place_partitions(topic, plan)?,
            assignments => {
                check_manual(topic)?;
                plan.check_partitions(assignments.len())?;
                self.check_assignments(assignments)?
            }
        };
        let created = CreatedTopic {
            topic_id: self.unused_topic_id(plan),
            num_partitions: replicas.len() as i32,
            replication_factor: replicas[0].len() as i16,
            configs,
        };
        self.add_records(&topic.name, &created, replicas, plan);
        Ok(created)
    }

    fn check_name(&self, topic: &CreateTopic, plan: &Plan<'_>) -> Result<(), ControllerError> {
        let name = topic.name.as_str();
        check_topic_name(name)?;
        if name == "__cluster_metadata" {
            let text = "Creation of internal topic __cluster_metadata is prohibited.";
            return Err(invalid_request(text));
        }
        if self.image.topics().get(name).is_some() {
            return Err(ControllerError::TopicAlreadyExists { name: name.to_owned() });
        }
        assert!(is_internal_topic(name) || !topic.is_internal, "{name} is nobody's own topic");
        if is_internal_topic(name) && !topic.is_internal {
            return Err(ControllerError::InvalidTopicName(format!(
                "Topic '{name}' is internal: the broker creates it itself when it is needed."
            )));
        }
        let planned = lookalike_key(name).and_then(|key| plan.lookalikes.get(&key));
        let other = self.image.topics().lookalike(name).or(planned.map(String::as_str));
        match other {
            None => Ok(()),
            Some(other) => Err(ControllerError::InvalidTopicName(format!(
                "Topic '{name}' collides with existing topic: {other}"
            ))),
        }
    }

    fn place_partitions(
        &self,
        topic: &CreateTopic,
        plan: &Plan<'_>,
    ) -> Result<Vec<Vec<BrokerId>>, ControllerError> {
        let replication_factor = match topic.replication_factor {
            -1 => self.config.replication_factor,
            given => given,
        };
        let num_partitions = match topic.num_partitions {
            -1 => self.config.num_partitions,
            given => given,
        };
        if replication_factor < 1 {
            return Err(ControllerError::InvalidReplicationFactor(
                "Replication factor must be larger than 0, or -1 to use the default value."
                    .to_owned(),
            ));
        }
        if num_partitions < 1 {
            return Err(ControllerError::InvalidPartitions(
                "Number of partitions was set to an invalid non-positive value.".to_owned(),
            ));
        }
        let (partitions, replicas) = (num_partitions as usize, replication_factor as usize);
        plan.check_partitions(partitions)?;
        let first = self.image.topics().partition_count() as usize + plan.partitions;
        place(&plan.candidates, partitions, replicas, first).map_err(|error| {
            ControllerError::InvalidReplicationFactor(format!(
                "Unable to replicate the partition {replicas} time(s): {error}"
            ))
        })
    }

    /// The brokers of each partition, if the request's own assignment can be.
    fn check_assignments(
        &self,
        assignments: &[ReplicaAssignment],
    ) -> Result<Vec<Vec<BrokerId>>, ControllerError> {
        let mut by_partition = BTreeMap::new();
        for ReplicaAssignment { partition, broker_ids } in assignments {
            self.check_assignment(*partition, broker_ids)?;
            if by_partition.insert(*partition, broker_ids.clone()).is_some() {
                return Err(invalid_assignment(format!(
                    "Found multiple manual partition assignments for partition {partition}"
                )));
            }
        }
        let factor = assignments[0].broker_ids.len();
        if let Some(other) = by_partition.values().find(|ids| ids.len() != factor) {
            return Err(invalid_assignment(format!(
                "The manual partition assignment includes a partition with {} replica(s), but \
                 this is not consistent with previous partitions, which have {factor} replica(s).",
                other.len()
            )));
        }
        if !by_partition.keys().copied().eq(0..assignments.len() as i32) {
            return Err(invalid_assignment(
                "partitions should be a consecutive 0-based integer sequence".to_owned(),
            ));
        }
        Ok(by_partition.into_values().collect())
    }

    pub(super) fn check_assignment(
        &self,
        partition: i32,
        broker_ids: &[BrokerId],
    ) -> Result<(), ControllerError> {
        let wrong = |text: String| Err(invalid_assignment(text));
        if broker_ids.is_empty() {
            return wrong(format!(
                "The manual partition assignment for partition {partition} includes an empty \
                 replica list."
            ));
        }
        let mut seen = BTreeSet::new();
        for id in broker_ids {
            if self.image.cluster().broker(*id).is_none() {
                return wrong(format!(
                    "The manual partition assignment includes broker {id}, but no such broker is \
                     registered."
                ));
            }
            if !seen.insert(id) {
                return wrong(format!(
                    "The manual partition assignment includes the broker {id} more than once."
                ));
            }
        }
        if !broker_ids.iter().any(|id| self.image.cluster().is_active(*id)) {
            return wrong(format!(
                "All brokers specified in the manual partition assignment for partition \
                 {partition} are fenced or in controlled shutdown."
            ));
        }
        Ok(())
    }

    /// A random id that no topic has, and that reads well: zero means "no id", the one after it
    /// is Kafka's for its own metadata, and one that starts with `-` looks like an option.
    fn unused_topic_id(&self, plan: &mut Plan<'_>) -> TopicId {
        if plan.validate_only {
            return Uuid::ZERO;
        }
        loop {
            let id = (plan.ids)();
            let reserved = u128::from_be_bytes(id.0) <= 1 || id.to_string().starts_with('-');
            let used = self.image.topics().get_by_id(id).is_some();
            if !reserved && !used && plan.topic_ids.insert(id) {
                return id;
            }
        }
    }

    fn add_records(
        &self,
        name: &str,
        created: &CreatedTopic,
        replicas: Vec<Vec<BrokerId>>,
        plan: &mut Plan<'_>,
    ) {
        plan.partitions += replicas.len();
        if let Some(key) = lookalike_key(name) {
            plan.lookalikes.insert(key, name.to_owned());
        }
        if plan.validate_only {
            return;
        }
        let topic_id = created.topic_id;
        plan.records.push(MetadataRecord::Topic { name: name.to_owned(), topic_id });
        plan.records.extend(topic_config_records(name, &created.configs));
        for (partition, replicas) in (0..).zip(replicas) {
            let registration = self.new_partition(replicas);
            plan.records.push(MetadataRecord::Partition { topic_id, partition, registration });
        }
    }

    /// The first active replica leads; all active ones are in sync, for there is nothing to lack.
    pub(super) fn new_partition(&self, replicas: Vec<BrokerId>) -> PartitionRegistration {
        let is_active = |id: &BrokerId| self.image.cluster().is_active(*id);
        let isr: Vec<_> = replicas.iter().copied().filter(is_active).collect();
        assert!(!isr.is_empty(), "a new partition has a leader");
        PartitionRegistration {
            leader: isr.first().copied(),
            replicas,
            isr,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            adding_replicas: Vec::new(),
            removing_replicas: Vec::new(),
            leader_recovery_state: LeaderRecoveryState::Recovered,
            directories: Vec::new(),
        }
    }

    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let brokers = self.image.cluster().brokers();
        let candidate = |broker: &std::sync::Arc<crate::image::BrokerRegistration>| Candidate {
            broker_id: broker.broker_id,
            rack: broker.rack.clone(),
            active: broker.is_active(),
        };
        brokers.map(candidate).collect()
    }
}

impl Plan<'_> {
    fn check_partitions(&self, more: usize) -> Result<(), ControllerError> {
        check_partition_count(self.partitions + more)
    }
}

/// Whether one request may create so many partitions in all.
pub(super) fn check_partition_count(partitions: usize) -> Result<(), ControllerError> {
    if partitions <= PARTITIONS_PER_REQUEST_MAX {
        return Ok(());
    }
    Err(ControllerError::PolicyViolation(format!(
        "Excessively large number of partitions per request: at most \
         {PARTITIONS_PER_REQUEST_MAX} can be created at once."
    )))
}

/// What the broker sets for a topic of its own. It knows what it does, so that it may use what
/// this release does not offer to others yet.
fn own_configs(configs: &[(String, Option<String>)]) -> BTreeMap<String, String> {
    let checked = |(key, value): &(String, Option<String>)| {
        let property = TopicSettings::property(key).expect("a topic's setting");
        let value = value.clone().expect("a value");
        assert_eq!(property.check(&value), Ok(()), "a setting of our own fits its bounds");
        (key.clone(), value)
    };
    configs.iter().map(checked).collect()
}

fn check_manual(topic: &CreateTopic) -> Result<(), ControllerError> {
    let wrong = match (topic.replication_factor, topic.num_partitions) {
        (-1, -1) => return Ok(()),
        (-1, _) => "number of partitions",
        (_, _) => "replication factor",
    };
    Err(invalid_request(&format!(
        "A manual partition assignment was specified, but {wrong} was not set to -1."
    )))
}

pub(super) fn invalid_request(text: &str) -> ControllerError {
    ControllerError::InvalidRequest(text.to_owned())
}

pub(super) fn invalid_assignment(text: String) -> ControllerError {
    ControllerError::InvalidReplicaAssignment(text)
}
