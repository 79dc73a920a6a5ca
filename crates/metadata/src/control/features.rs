//! The feature levels of a new cluster, and the ones that this release can work with.

use tidelog_types::Uuid;

use crate::{
    controller::{Controller, ControllerResult},
    record::{MetadataRecord, SupportedFeature},
};

/// A feature that this release knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// The least level that this release works with.
    pub min_level: i16,
    /// The greatest level that this release works with.
    pub max_level: i16,
    /// The level that a new cluster gets; 0 leaves it out.
    pub bootstrap_level: i16,
}

/// Which kinds of metadata records and which of their fields may be written.
pub const METADATA_FEATURE: &str = "tidelog.metadata.version";

/// Every feature that this release knows. `transaction.version` is not among them for as long as
/// there are no transactions: clients choose their dialect by it.
pub const FEATURES: &[Feature] =
    &[Feature { name: METADATA_FEATURE, min_level: 1, max_level: 1, bootstrap_level: 1 }];

/// What a broker of this release says of itself when it registers.
#[must_use]
pub fn supported_features() -> Vec<SupportedFeature> {
    let supported = |feature: &Feature| SupportedFeature {
        name: feature.name.to_owned(),
        min_level: feature.min_level,
        max_level: feature.max_level,
    };
    FEATURES.iter().map(supported).collect()
}

impl Controller {
    /// The first records of a new cluster: feature levels, then its id. Nothing where the cluster
    /// is set up already.
    pub fn bootstrap(&self, cluster_id: Uuid) -> ControllerResult<()> {
        assert!(!cluster_id.is_zero(), "the wire's \"no id\" cannot be a cluster's");
        if self.image.cluster().cluster_id().is_some() {
            return ControllerResult::unchanged(());
        }
        let levels = FEATURES.iter().filter(|feature| feature.bootstrap_level > 0);
        let records = levels
            .map(|feature| MetadataRecord::FeatureLevel {
                name: feature.name.to_owned(),
                level: feature.bootstrap_level,
            })
            .chain([MetadataRecord::Cluster { cluster_id }]);
        ControllerResult { records: records.collect(), response: () }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller_test::{CLUSTER, ControllerTest};

    #[test]
    fn a_new_cluster_begins_with_its_feature_levels_once() {
        let mut test = ControllerTest::empty();
        let planned = test.controller.bootstrap(CLUSTER);
        let level = MetadataRecord::FeatureLevel { name: METADATA_FEATURE.to_owned(), level: 1 };
        let cluster = MetadataRecord::Cluster { cluster_id: CLUSTER };
        assert_eq!(planned.records, [level, cluster]);
        test.play(planned);
        assert_eq!(test.image.features().iter().collect::<Vec<_>>(), [(METADATA_FEATURE, 1)]);
        assert_eq!(test.image.features().level("transaction.version"), 0);
        assert_eq!(test.controller.bootstrap(CLUSTER).records, vec![]);
    }
}
