//! A controller as a test drives it: it plans, plays, restarts, and checks that every way to a
//! state comes to the same one.

use std::sync::Arc;

use tidelog_types::{BrokerEpoch, BrokerId, TopicId, Uuid};

use crate::{
    Controller, ControllerResult, CreateTopic, CreateTopicResult, MetadataDelta, MetadataImage,
    RegisterBrokerRequest, TopicReference,
    control::features::supported_features,
    decode_records, encode_records,
    record::{Endpoint, PartitionRegistration, SecurityProtocol},
    snapshot,
};

pub(crate) const CLUSTER: Uuid = Uuid([7; 16]);

/// The active controller, and an image that only ever saw the committed bytes.
pub(crate) struct ControllerTest {
    pub(crate) controller: Controller,
    pub(crate) image: Arc<MetadataImage>,
    pub(crate) deltas: Vec<MetadataDelta>,
    next_id: u128,
}

impl ControllerTest {
    /// A new cluster of brokers 1 to `brokers`.
    pub(crate) fn with_brokers(brokers: i32) -> ControllerTest {
        let mut test = ControllerTest::empty();
        let result = test.controller.bootstrap(CLUSTER);
        test.play(result);
        for id in 1..=brokers {
            test.register(id, 1).expect("a lawful registration");
        }
        test
    }

    pub(crate) fn empty() -> ControllerTest {
        let image = Arc::new(MetadataImage::default());
        let controller = Controller::new(Arc::clone(&image));
        ControllerTest { controller, image, deltas: Vec::new(), next_id: 100 }
    }

    /// Commits a plan: through bytes, as Raft would, and checks all ways to the new state.
    pub(crate) fn play<T>(&mut self, result: ControllerResult<T>) -> T {
        if result.records.is_empty() {
            return result.response;
        }
        self.controller.replay_all(&result.records);
        let committed = decode_records(&encode_records(&result.records)).expect("our own bytes");
        assert_eq!(committed, result.records);
        let (image, delta) = self.image.apply(&committed, self.image.index() + 1);
        let between = MetadataDelta::between(&self.image, &image);
        assert!(names_all(&delta, &between), "{delta:?} lacks some of {between:?}");
        assert_eq!(snapshot::decode(&snapshot::encode(&image)), Ok(image.clone()));
        assert_eq!(image.topics(), self.controller.image().topics());
        assert_eq!(image.cluster(), self.controller.image().cluster());
        assert_eq!(image.configs(), self.controller.image().configs());
        assert_eq!(image.features(), self.controller.image().features());
        assert_eq!(image.producer_ids(), self.controller.image().producer_ids());
        self.image = Arc::new(image);
        self.deltas.push(delta);
        result.response
    }

    /// A new controller on what is committed.
    pub(crate) fn restart(&mut self) {
        self.controller = Controller::new(Arc::clone(&self.image));
    }

    pub(crate) fn register(
        &mut self,
        broker_id: i32,
        incarnation: u8,
    ) -> Result<BrokerEpoch, crate::ControllerError> {
        let result = self.controller.register_broker(&registration(broker_id, incarnation));
        self.play(result)
    }

    pub(crate) fn create(&mut self, topics: &[CreateTopic]) -> Vec<CreateTopicResult> {
        let result = self.plan_create(topics, false);
        self.play(result)
    }

    pub(crate) fn plan_create(
        &mut self,
        topics: &[CreateTopic],
        validate_only: bool,
    ) -> ControllerResult<Vec<CreateTopicResult>> {
        let next_id = &mut self.next_id;
        let mut ids = || {
            *next_id += 1;
            Uuid(next_id.to_be_bytes())
        };
        self.controller.create_topics(topics, validate_only, &mut ids)
    }

    pub(crate) fn delete(
        &mut self,
        references: &[TopicReference],
    ) -> Vec<crate::DeleteTopicResult> {
        let result = self.controller.delete_topics(references);
        self.play(result)
    }

    pub(crate) fn topic_id(&self, name: &str) -> TopicId {
        self.image.topics().get(name).expect("a topic").topic_id()
    }

    pub(crate) fn partition(&self, name: &str, partition: i32) -> &PartitionRegistration {
        self.image.topics().get(name).expect("a topic").partition(partition).expect("a partition")
    }
}

/// Whether a delta names everything that differs.
fn names_all(delta: &MetadataDelta, between: &MetadataDelta) -> bool {
    use crate::TopicDelta::{Changed, Created, Removed};
    let topic =
        |(id, differs): (&TopicId, &crate::TopicDelta)| match (delta.topics.get(id), differs) {
            (Some(Created), Created) | (Some(Removed(_)), Removed(_)) => true,
            (Some(Changed(named)), Changed(differing)) => differing.is_subset(named),
            _ => false,
        };
    between.topics.iter().all(topic)
        && between.brokers.is_subset(&delta.brokers)
        && between.configs.is_subset(&delta.configs)
        && (delta.features || !between.features)
        && (delta.cluster_id || !between.cluster_id)
        && (delta.producer_ids || !between.producer_ids)
}

pub(crate) fn registration(broker_id: i32, incarnation: u8) -> RegisterBrokerRequest {
    let endpoint = Endpoint {
        listener: "PLAINTEXT".to_owned(),
        host: "localhost".to_owned(),
        port: 9092,
        security_protocol: SecurityProtocol::Plaintext,
    };
    RegisterBrokerRequest {
        broker_id: BrokerId(broker_id),
        cluster_id: CLUSTER,
        incarnation_id: Uuid([incarnation; 16]),
        endpoints: vec![endpoint],
        rack: None,
        directories: vec![Uuid([9; 16])],
        features: supported_features(),
    }
}

pub(crate) fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreateTopic {
    CreateTopic { num_partitions, replication_factor, ..CreateTopic::with_defaults(name) }
}
