//! The feature levels of a new cluster, the ones that this release can work with, and their
//! changes (KIP-584).

use std::{cmp::Ordering, collections::BTreeSet};

use tidelog_types::Uuid;

use crate::{
    controller::{Controller, ControllerResult},
    error::ControllerError,
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

/// A feature level that a request wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// Which feature.
    pub name: String,
    /// Its level from then on; 0 takes it away.
    pub level: i16,
    /// Which way it may go.
    pub upgrade_type: UpgradeType,
}

/// Which way a feature level may go, with Kafka's numbers (KIP-778).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeType {
    /// Up only.
    Upgrade = 1,
    /// Down, where nothing is lost by it.
    SafeDowngrade = 2,
    /// Down, whatever is lost by it.
    UnsafeDowngrade = 3,
}

impl UpgradeType {
    /// The type with Kafka's number; `None` for a number that names none.
    #[must_use]
    pub fn from_number(number: i8) -> Option<UpgradeType> {
        match number {
            1 => Some(UpgradeType::Upgrade),
            2 => Some(UpgradeType::SafeDowngrade),
            3 => Some(UpgradeType::UnsafeDowngrade),
            _ => None,
        }
    }
}

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

    /// Plans new feature levels: all of them, or none and why.
    pub fn update_features(
        &self,
        updates: &[FeatureUpdate],
        validate_only: bool,
    ) -> ControllerResult<Result<(), ControllerError>> {
        let mut names = BTreeSet::new();
        let mut records = Vec::new();
        for update in updates {
            let checked = match names.insert(update.name.as_str()) {
                true => self.check_update(update),
                false => Err("It was named twice.".to_owned()),
            };
            if let Err(reason) = checked {
                let FeatureUpdate { name, level, .. } = update;
                let error = ControllerError::InvalidUpdateVersion(format!(
                    "Invalid update version {level} for feature {name}. {reason}"
                ));
                return ControllerResult::unchanged(Err(error));
            }
            if update.level != self.image.features().level(&update.name) && !validate_only {
                let FeatureUpdate { name, level, .. } = update.clone();
                records.push(MetadataRecord::FeatureLevel { name, level });
            }
        }
        ControllerResult { records, response: Ok(()) }
    }

    fn check_update(&self, update: &FeatureUpdate) -> Result<(), String> {
        let FeatureUpdate { name, level, upgrade_type } = update;
        if *level < 0 {
            return Err("A feature version cannot be less than 0.".to_owned());
        }
        let feature = FEATURES.iter().find(|feature| feature.name == name);
        let feature = feature.ok_or("The controller does not support this feature.")?;
        let (min, max) = (feature.min_level, feature.max_level);
        check_range(*level, min, max, "The controller")?;
        for broker in self.image.cluster().brokers() {
            let supported = broker.features.iter().find(|feature| feature.name == *name);
            let (min, max) = supported.map_or((0, 0), |range| (range.min_level, range.max_level));
            check_range(*level, min, max, &format!("Broker {}", broker.broker_id))?;
        }
        match (level.cmp(&self.image.features().level(name)), upgrade_type) {
            (Ordering::Less, UpgradeType::Upgrade) => Err("Can't downgrade the version of this \
                 feature without setting the upgrade type to either safe or unsafe downgrade."
                .to_owned()),
            (Ordering::Greater, UpgradeType::SafeDowngrade | UpgradeType::UnsafeDowngrade) => {
                Err("Can't downgrade to a newer version.".to_owned())
            }
            (Ordering::Less | Ordering::Equal | Ordering::Greater, _) => Ok(()),
        }
    }
}

fn check_range(level: i16, min: i16, max: i16, who: &str) -> Result<(), String> {
    match (min..=max).contains(&level) {
        true => Ok(()),
        false => Err(format!("{who} only supports versions {min}-{max}")),
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

    #[test]
    fn a_feature_level_changes_only_to_what_everybody_supports() {
        let mut test = ControllerTest::with_brokers(2);
        let range = "The controller only supports versions 1-1";
        let unknown = "The controller does not support this feature.";
        let negative = "A feature version cannot be less than 0.";
        use UpgradeType::{SafeDowngrade, UnsafeDowngrade, Upgrade};
        for (name, level, upgrade_type, refused) in [
            (METADATA_FEATURE, 1, Upgrade, None),
            (METADATA_FEATURE, 1, SafeDowngrade, None),
            (METADATA_FEATURE, 2, Upgrade, Some(range)),
            (METADATA_FEATURE, 0, UnsafeDowngrade, Some(range)),
            (METADATA_FEATURE, -1, UnsafeDowngrade, Some(negative)),
            ("metadata.version", 29, Upgrade, Some(unknown)),
            ("transaction.version", 2, Upgrade, Some(unknown)),
        ] {
            let update = FeatureUpdate { name: name.to_owned(), level, upgrade_type };
            let planned = test.controller.update_features(&[update], false);
            assert_eq!(planned.records, vec![], "{name} is at the level that it can have");
            let refused = refused.map(|reason| {
                let text = format!("Invalid update version {level} for feature {name}. {reason}");
                ControllerError::InvalidUpdateVersion(text)
            });
            assert_eq!(test.play(planned), refused.map_or(Ok(()), Err), "{name} {level}");
        }
    }

    #[test]
    fn a_feature_level_that_brokers_do_not_support_or_that_goes_the_wrong_way_is_refused() {
        let mut test = ControllerTest::with_brokers(1);
        let level =
            |level| MetadataRecord::FeatureLevel { name: METADATA_FEATURE.to_owned(), level };
        let update = |upgrade_type| FeatureUpdate {
            name: METADATA_FEATURE.to_owned(),
            level: 1,
            upgrade_type,
        };
        let check = |test: &ControllerTest, upgrade_type| {
            test.controller.check_update(&update(upgrade_type)).is_ok()
        };
        let planned = ControllerResult { records: vec![level(0)], response: () };
        test.play(planned);
        assert!(check(&test, UpgradeType::Upgrade) && !check(&test, UpgradeType::SafeDowngrade));
        let both = [update(UpgradeType::Upgrade), update(UpgradeType::Upgrade)];
        assert!(test.controller.update_features(&both, false).response.is_err(), "named twice");
        let dry = test.controller.update_features(&both[..1], true);
        assert_eq!((dry.records, dry.response), (vec![], Ok(())));
        let planned = test.controller.update_features(&both[..1], false);
        assert_eq!(planned.records, [level(1)]);
        assert_eq!(test.play(planned), Ok(()));

        let mut old = crate::controller_test::registration(2, 1);
        old.features[0].max_level = 7;
        let planned = test.controller.register_broker(&old);
        test.play(planned).expect("a lawful registration");
        let planned = ControllerResult { records: vec![level(7)], response: () };
        test.play(planned);
        assert!(!check(&test, UpgradeType::Upgrade) && check(&test, UpgradeType::SafeDowngrade));
    }
}
