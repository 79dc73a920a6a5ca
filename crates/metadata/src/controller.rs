//! Who decides about the cluster's metadata: requests to records, and records to state.

use std::sync::Arc;

use tidelog_types::topic_settings::TopicSettings;

use crate::{
    control::configs::BrokerSetting, delta::MetadataDelta, image::MetadataImage,
    record::MetadataRecord,
};

/// The active controller's speculative state: the image that holds once everything planned so
/// far is committed.
///
/// A plan takes `&self` and changes nothing. Its records are proposed as one Raft entry and
/// replayed at once, so that the next plan sees them. If a proposal is lost, or the leadership,
/// this controller is thrown away and a new one made of the last committed image.
#[derive(Debug, Clone)]
pub struct Controller {
    pub(crate) image: MetadataImage,
    pub(crate) config: ControllerConfig,
}

/// What the operator set for the controller.
#[derive(Debug, Clone, PartialEq)]
pub struct ControllerConfig {
    /// Partitions of a topic that does not say. `num.partitions`
    pub num_partitions: i32,
    /// Replicas of a partition that does not say. `default.replication.factor`
    pub replication_factor: i16,
    /// What holds for a topic that was given no settings.
    pub topic_defaults: TopicSettings,
    /// Every setting of a broker.
    pub broker_settings: Vec<BrokerSetting>,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        ControllerConfig {
            num_partitions: 1,
            replication_factor: 1,
            topic_defaults: TopicSettings::default(),
            broker_settings: Vec::new(),
        }
    }
}

/// A plan: what to write, and what to answer once that is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ControllerResult<T> {
    /// One Raft entry. Empty: there is nothing to wait for but what was planned before.
    pub records: Vec<MetadataRecord>,
    /// True once the records, and all that the plan could have seen, are committed.
    pub response: T,
}

impl<T> ControllerResult<T> {
    /// A plan that changes nothing.
    pub fn unchanged(response: T) -> ControllerResult<T> {
        ControllerResult { records: Vec::new(), response }
    }
}

impl Controller {
    /// A controller that plans on what is committed, with default settings.
    #[must_use]
    pub fn new(image: Arc<MetadataImage>) -> Controller {
        Controller::with_config(image, ControllerConfig::default())
    }

    /// A controller that plans on what is committed.
    #[must_use]
    pub fn with_config(image: Arc<MetadataImage>, config: ControllerConfig) -> Controller {
        assert!(config.num_partitions > 0, "num.partitions was checked before");
        assert!(config.replication_factor > 0, "default.replication.factor was checked before");
        Controller { image: Arc::unwrap_or_clone(image), config }
    }

    /// Applies a fact. Runs at start-up too, so it cannot fail, wait or ask why.
    pub fn replay(&mut self, record: &MetadataRecord) {
        self.image.replay(record, &mut MetadataDelta::default());
    }

    /// Applies a plan's records, in order.
    pub fn replay_all(&mut self, records: &[MetadataRecord]) {
        let mut delta = MetadataDelta::default();
        for record in records {
            self.image.replay(record, &mut delta);
        }
    }

    /// What the next plan will see. Its index is that of the image the controller was made of.
    #[must_use]
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidelog_types::{BrokerEpoch, BrokerId};

    use super::*;
    use crate::{
        AlterConfigs, Alteration, ConfigOperation, TopicReference,
        controller_test::{ControllerTest, topic},
        record::ConfigResource,
    };

    /// Something that happens to a cluster.
    #[derive(Debug, Clone)]
    enum Step {
        Create { names: Vec<String>, partitions: i32, replicas: i16, config: Option<String> },
        Delete { name: String, by_id: bool },
        Grow { name: String, count: i32 },
        Configure { name: String, value: Option<String>, all: bool },
        Register { broker: i32, incarnation: u8 },
        ProducerIds { broker: i32 },
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let names = prop::collection::vec("[ab][._]?[ab]?", 1..4);
        let config = prop::option::of("(1024|2048|x)");
        prop_oneof![
            4 => (names, -1..5_i32, -1..4_i16, config).prop_map(
                |(names, partitions, replicas, config)| {
                    Step::Create { names, partitions, replicas, config }
                }
            ),
            2 => ("[ab][._]?[ab]?", any::<bool>())
                .prop_map(|(name, by_id)| Step::Delete { name, by_id }),
            2 => ("[ab][._]?[ab]?", -1..9_i32)
                .prop_map(|(name, count)| Step::Grow { name, count }),
            2 => ("[ab][._]?[ab]?", prop::option::of("(1024|2048|x)"), any::<bool>())
                .prop_map(|(name, value, all)| Step::Configure { name, value, all }),
            2 => (1..5_i32, 1..4_u8)
                .prop_map(|(broker, incarnation)| Step::Register { broker, incarnation }),
            1 => (1..5_i32).prop_map(|broker| Step::ProducerIds { broker }),
            1 => Just(Step::Restart),
        ]
    }

    /// Plays one step; [`ControllerTest::play`] checks that all ways lead to the same state.
    fn play(test: &mut ControllerTest, step: Step) {
        match step {
            Step::Create { names, partitions, replicas, config } => {
                let configs: Vec<_> =
                    config.into_iter().map(|v| ("segment.bytes".to_owned(), Some(v))).collect();
                let wanted = |name: &String| crate::CreateTopic {
                    configs: configs.clone(),
                    ..topic(name, partitions, replicas)
                };
                test.create(&names.iter().map(wanted).collect::<Vec<_>>());
            }
            Step::Delete { name, by_id } => {
                let reference = match test.image.topics().get(&name) {
                    Some(topic) if by_id => TopicReference::Id(topic.topic_id()),
                    Some(_) | None => TopicReference::Name(name),
                };
                test.delete(&[reference]);
            }
            Step::Grow { name, count } => {
                let wanted = crate::CreatePartitions { name, count, assignments: None };
                let planned = test.controller.create_partitions(&[wanted], false);
                let _ = test.play(planned);
            }
            Step::Configure { name, value, all } => {
                let key = "segment.bytes".to_owned();
                let alteration = match (value, all) {
                    (Some(value), true) => Alteration::ReplaceAll(vec![(key, value)]),
                    (None, true) => Alteration::ReplaceAll(Vec::new()),
                    (Some(value), false) => {
                        Alteration::Each(vec![(key, ConfigOperation::Set(value))])
                    }
                    (None, false) => Alteration::Each(vec![(key, ConfigOperation::Delete)]),
                };
                let wanted = AlterConfigs { resource: ConfigResource::Topic(name), alteration };
                let planned = test.controller.alter_configs(&[wanted], false);
                let _ = test.play(planned);
            }
            Step::Register { broker, incarnation } => {
                test.register(broker, incarnation).expect("a lawful registration");
            }
            Step::ProducerIds { broker } => {
                let known = test.image.cluster().broker(BrokerId(broker));
                let epoch = known.map_or(BrokerEpoch(0), |broker| broker.broker_epoch);
                let planned = test.controller.allocate_producer_ids(BrokerId(broker), epoch);
                let _ = test.play(planned);
            }
            Step::Restart => test.restart(),
        }
    }

    fn assert_never_back(before: &MetadataImage, after: &MetadataImage) {
        assert!(after.producer_ids().next() >= before.producer_ids().next());
        assert!(after.cluster().next_broker_epoch() >= before.cluster().next_broker_epoch());
        assert!(after.features().epoch() >= before.features().epoch());
        for topic in before.topics().iter() {
            let Some(later) = after.topics().get_by_id(topic.topic_id()) else { continue };
            for ((_, old), (_, new)) in topic.partitions().zip(later.partitions()) {
                assert!(new.leader_epoch >= old.leader_epoch, "a leader epoch went back");
                assert!(new.partition_epoch >= old.partition_epoch, "a partition epoch went back");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn replaying_is_living_through_it(steps in prop::collection::vec(step(), 1..40)) {
            let mut test = ControllerTest::with_brokers(2);
            for step in steps {
                let before = Arc::clone(&test.image);
                play(&mut test, step);
                assert_never_back(&before, &test.image);
            }
        }
    }
}
