//! The feature levels that all nodes agreed upon.

use imbl::OrdMap;

use crate::record::MetadataRecord;

/// Finalized feature levels. A feature that is not here has level 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeaturesImage {
    levels: OrdMap<String, i16>,
    epoch: i64,
}

impl FeaturesImage {
    /// The level of a feature; 0 where none was finalized.
    #[must_use]
    pub fn level(&self, name: &str) -> i16 {
        self.levels.get(name).copied().unwrap_or(0)
    }

    /// All finalized features, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i16)> {
        self.levels.iter().map(|(name, level)| (name.as_str(), *level))
    }

    /// Raised by every change: clients ignore features that come with an epoch they have seen.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Whether nothing was finalized: the cluster is not set up yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    pub(super) fn replay(&mut self, name: &str, level: i16) {
        assert!(level >= 0, "feature {name} was finalized at level {level}");
        if level == 0 {
            self.levels.remove(name);
        } else {
            self.levels.insert(name.to_owned(), level);
        }
        self.epoch += 1;
    }

    pub(super) fn restore_epoch(&mut self, epoch: i64) {
        assert!(epoch >= self.epoch, "fewer changes of features than there are features");
        self.epoch = epoch;
    }

    pub(super) fn to_records(&self, records: &mut Vec<MetadataRecord>) {
        records.extend(
            self.iter()
                .map(|(name, level)| MetadataRecord::FeatureLevel { name: name.to_owned(), level }),
        );
    }
}
