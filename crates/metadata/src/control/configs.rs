//! Settings of topics: which may be set, and to what.

use std::collections::BTreeMap;

use tidelog_types::topic_settings::TopicSettings;

use crate::{
    error::ControllerError,
    record::{ConfigResource, MetadataRecord},
};

/// Bytes of the longest value that is stored.
const VALUE_BYTES_MAX: usize = 4096;

/// What a new topic sets, each key once; the last value wins, as in Kafka.
pub(super) fn check_topic_configs(
    configs: &[(String, Option<String>)],
) -> Result<BTreeMap<String, String>, ControllerError> {
    let mut checked = BTreeMap::new();
    for (key, value) in configs {
        let Some(value) = value else {
            return Err(ControllerError::InvalidConfig(format!(
                "Null value not supported for topic configs: {key}"
            )));
        };
        check_topic_config(key, value)?;
        checked.insert(key.clone(), value.clone());
    }
    Ok(checked)
}

fn check_topic_config(key: &str, value: &str) -> Result<(), ControllerError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(ControllerError::InvalidConfig(format!(
            "{key}: a value has at most {VALUE_BYTES_MAX} bytes, not {}",
            value.len()
        )));
    }
    TopicSettings::check(key, value)
        .map_err(|error| ControllerError::InvalidConfig(error.to_string()))
}

/// The records that set them.
pub(super) fn topic_config_records(
    name: &str,
    configs: &BTreeMap<String, String>,
) -> impl Iterator<Item = MetadataRecord> {
    configs.iter().map(|(key, value)| MetadataRecord::Config {
        resource: ConfigResource::Topic(name.to_owned()),
        key: key.clone(),
        value: Some(value.clone()),
    })
}
