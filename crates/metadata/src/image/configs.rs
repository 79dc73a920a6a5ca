//! Settings that somebody set, for topics and brokers.

use std::{collections::BTreeMap, sync::Arc};

use imbl::OrdMap;

use crate::record::{ConfigResource, MetadataRecord};

/// All settings that were set. What was not set has its default, which is not here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigsImage {
    resources: OrdMap<ConfigResource, Arc<BTreeMap<String, String>>>,
}

impl ConfigsImage {
    /// What was set for one resource: key to value.
    #[must_use]
    pub fn get(&self, resource: &ConfigResource) -> Option<&Arc<BTreeMap<String, String>>> {
        self.resources.get(resource)
    }

    /// What was set for one topic, as pairs of key and value.
    pub fn topic(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let set = self.get(&ConfigResource::Topic(name.to_owned()));
        set.into_iter()
            .flat_map(|set| set.iter())
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Everything that has a setting.
    pub fn resources(&self) -> impl Iterator<Item = &ConfigResource> {
        self.resources.keys()
    }

    pub(super) fn replay(&mut self, resource: &ConfigResource, key: &str, value: Option<&str>) {
        let mut set =
            self.resources.get(resource).map(|set| set.as_ref().clone()).unwrap_or_default();
        match value {
            Some(value) => set.insert(key.to_owned(), value.to_owned()),
            None => set.remove(key),
        };
        if set.is_empty() {
            self.resources.remove(resource);
        } else {
            self.resources.insert(resource.clone(), Arc::new(set));
        }
    }

    /// Removes all of a resource's settings; returns whether there were any.
    pub(super) fn replay_remove_all(&mut self, resource: &ConfigResource) -> bool {
        self.resources.remove(resource).is_some()
    }

    pub(super) fn to_records(&self, records: &mut Vec<MetadataRecord>) {
        for (resource, set) in &self.resources {
            records.extend(set.iter().map(|(key, value)| MetadataRecord::Config {
                resource: resource.clone(),
                key: key.clone(),
                value: Some(value.clone()),
            }));
        }
    }
}
