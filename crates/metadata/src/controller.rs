//! Who decides about the cluster's metadata: requests to records, and records to state.

use std::sync::Arc;

use crate::{delta::MetadataDelta, image::MetadataImage, record::MetadataRecord};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerConfig {
    /// Partitions of a topic that does not say. `num.partitions`
    pub num_partitions: i32,
    /// Replicas of a partition that does not say. `default.replication.factor`
    pub replication_factor: i16,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        ControllerConfig { num_partitions: 1, replication_factor: 1 }
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
