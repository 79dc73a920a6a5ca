//! Settings of topics and brokers: which may be set, to what, and how requests change them
//! (KIP-226, KIP-339).

use std::collections::{BTreeMap, BTreeSet};

use tidelog_types::{
    property::{Kind, Property, PropertyError, nearest},
    topic_settings::TopicSettings,
};

use crate::{
    controller::{Controller, ControllerResult},
    error::ControllerError,
    record::{ConfigResource, MetadataRecord},
};

/// Bytes of the longest value that is stored.
const VALUE_BYTES_MAX: usize = 4096;

/// A broker's setting, as the controller has to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerSetting {
    /// What it is.
    pub property: &'static Property,
    /// What this broker was started with.
    pub value: String,
}

/// What a request wants of one resource's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterConfigs {
    /// Whose settings.
    pub resource: ConfigResource,
    /// What is to become of them.
    pub alteration: Alteration,
}

/// What is to become of a resource's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alteration {
    /// These change; the others stay.
    Each(Vec<(String, ConfigOperation)>),
    /// These are all that is set from now on.
    ReplaceAll(Vec<(String, String)>),
}

/// What is to become of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOperation {
    /// It gets this value.
    Set(String),
    /// Nobody sets it any more.
    Delete,
    /// These words are added to its list.
    Append(String),
    /// These words are taken from its list.
    Subtract(String),
}

impl Alteration {
    /// How many settings it names.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Alteration::Each(changes) => changes.len(),
            Alteration::ReplaceAll(values) => values.len(),
        }
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Controller {
    /// Plans changed settings, each resource for itself: all that is asked for it, or none and
    /// why. Answers come in the order of the request, which names a resource once.
    pub fn alter_configs(
        &self,
        wanted: &[AlterConfigs],
        validate_only: bool,
    ) -> ControllerResult<Vec<Result<(), ControllerError>>> {
        let mut records = Vec::new();
        let mut altered = BTreeSet::new();
        let mut response = Vec::new();
        for AlterConfigs { resource, alteration } in wanted {
            assert!(altered.insert(resource), "{resource:?} is altered twice by one request");
            response.push(self.alter(resource, alteration).map(|mut planned| {
                records.append(&mut planned);
            }));
        }
        if validate_only {
            records.clear();
        }
        ControllerResult { records, response }
    }

    /// The records that alter one resource's settings.
    fn alter(
        &self,
        resource: &ConfigResource,
        alteration: &Alteration,
    ) -> Result<Vec<MetadataRecord>, ControllerError> {
        self.check_resource(resource)?;
        let none = BTreeMap::new();
        let set = self.image.configs().get(resource).map_or(&none, AsRef::as_ref);
        let operations = operations(alteration, set)?;
        let mut records = Vec::new();
        for (key, operation) in operations {
            let value = match operation {
                ConfigOperation::Delete => None,
                _ => Some(self.new_value(resource, key, &operation, set.get(key))?),
            };
            if value.as_ref() != set.get(key) {
                let (resource, key) = (resource.clone(), key.to_owned());
                records.push(MetadataRecord::Config { resource, key, value });
            }
        }
        Ok(records)
    }

    fn check_resource(&self, resource: &ConfigResource) -> Result<(), ControllerError> {
        match resource {
            ConfigResource::Topic(name) if self.image.topics().get(name).is_none() => {
                Err(ControllerError::UnknownTopic { name: name.clone() })
            }
            ConfigResource::Broker(Some(broker_id))
                if self.image.cluster().broker(*broker_id).is_none() =>
            {
                Err(ControllerError::UnknownBroker { broker_id: *broker_id })
            }
            ConfigResource::Topic(_) | ConfigResource::Broker(_) => Ok(()),
        }
    }

    /// What a setting will be, if it may be that. `set` is what was set before.
    fn new_value(
        &self,
        resource: &ConfigResource,
        key: &str,
        operation: &ConfigOperation,
        set: Option<&String>,
    ) -> Result<String, ControllerError> {
        let (property, default) = self.setting(resource, key)?;
        let present = || set.cloned().unwrap_or(default);
        let value = match operation {
            ConfigOperation::Set(value) => value.clone(),
            ConfigOperation::Append(words) => {
                check_is_list(property, "APPEND")?;
                append(&present(), words)
            }
            ConfigOperation::Subtract(words) => {
                check_is_list(property, "SUBTRACT")?;
                subtract(&present(), words)
            }
            ConfigOperation::Delete => unreachable!("what is deleted has no value"),
        };
        match resource {
            ConfigResource::Topic(_) => check_topic_config(key, &value)?,
            ConfigResource::Broker(_) => check_broker_config(property, &value)?,
        }
        Ok(value)
    }

    /// A setting that may be changed, and the value that it has where nobody changed it.
    fn setting(
        &self,
        resource: &ConfigResource,
        key: &str,
    ) -> Result<(&'static Property, String), ControllerError> {
        match resource {
            ConfigResource::Topic(_) => {
                let property = TopicSettings::property(key)
                    .ok_or_else(|| unknown(key, TopicSettings::PROPERTIES))?;
                let default = self.config.topic_defaults.get(key);
                Ok((property, default.expect("a topic's setting has a value")))
            }
            ConfigResource::Broker(_) => {
                let settings = &self.config.broker_settings;
                let known = settings.iter().find(|setting| setting.property.key == key);
                let known = known.ok_or_else(|| {
                    let all: Vec<_> = settings.iter().map(|setting| *setting.property).collect();
                    unknown(key, &all)
                })?;
                match known.property.dynamic {
                    true => Ok((known.property, known.value.clone())),
                    // Kafka's own code for it.
                    false => Err(ControllerError::InvalidRequest(format!(
                        "{key} cannot be changed while the broker runs: set it where the broker \
                         is started"
                    ))),
                }
            }
        }
    }
}

/// What happens to each setting, by key. Replacing all deletes what is `set` and not named.
fn operations<'a>(
    alteration: &'a Alteration,
    set: &'a BTreeMap<String, String>,
) -> Result<BTreeMap<&'a str, ConfigOperation>, ControllerError> {
    let mut operations = BTreeMap::new();
    let named: Vec<(&str, ConfigOperation)> = match alteration {
        Alteration::Each(changes) => {
            changes.iter().map(|(key, operation)| (key.as_str(), operation.clone())).collect()
        }
        Alteration::ReplaceAll(values) => {
            operations.extend(set.keys().map(|key| (key.as_str(), ConfigOperation::Delete)));
            let set = |value: &String| ConfigOperation::Set(value.clone());
            values.iter().map(|(key, value)| (key.as_str(), set(value))).collect()
        }
    };
    let mut seen = BTreeSet::new();
    for (key, operation) in named {
        if !seen.insert(key) {
            return Err(ControllerError::InvalidRequest(format!(
                "Error due to duplicate config keys: {key}"
            )));
        }
        operations.insert(key, operation);
    }
    Ok(operations)
}

/// The words of `list`, and those of `words` that it does not have.
fn append(list: &str, words: &str) -> String {
    let mut all = words_of(list);
    for word in words_of(words) {
        if !all.contains(&word) {
            all.push(word);
        }
    }
    all.join(",")
}

/// The words of `list` that are not among `words`.
fn subtract(list: &str, words: &str) -> String {
    let taken = words_of(words);
    let mut kept = words_of(list);
    kept.retain(|word| !taken.contains(word));
    kept.join(",")
}

fn words_of(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn check_is_list(property: &Property, operation: &str) -> Result<(), ControllerError> {
    match property.kind {
        Kind::List(_) => Ok(()),
        Kind::Boolean
        | Kind::Int { .. }
        | Kind::Long { .. }
        | Kind::Double { .. }
        | Kind::Text
        | Kind::Form(_)
        | Kind::Choice(_) => Err(ControllerError::InvalidConfig(format!(
            "Can't {operation} to key {} because its type is not LIST.",
            property.key
        ))),
    }
}

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
    check_length(key, value)?;
    TopicSettings::check(key, value)
        .map_err(|error| ControllerError::InvalidConfig(error.to_string()))
}

/// Kafka answers INVALID_REQUEST here, where a topic's setting is INVALID_CONFIG (KAFKA-13609).
fn check_broker_config(property: &Property, value: &str) -> Result<(), ControllerError> {
    check_length(property.key, value)?;
    property.check(value).map_err(|error| ControllerError::InvalidRequest(error.to_string()))
}

fn check_length(key: &str, value: &str) -> Result<(), ControllerError> {
    match value.len() {
        ..=VALUE_BYTES_MAX => Ok(()),
        bytes => Err(ControllerError::InvalidConfig(format!(
            "{key}: a value has at most {VALUE_BYTES_MAX} bytes, not {bytes}"
        ))),
    }
}

fn unknown(key: &str, properties: &[Property]) -> ControllerError {
    let nearest = nearest(key, properties);
    let error = PropertyError::Unknown { key: key.to_owned(), nearest };
    ControllerError::InvalidConfig(error.to_string())
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

#[cfg(test)]
mod tests {
    use tidelog_types::{BrokerId, ErrorCode};

    use super::{Alteration::*, ConfigOperation::*, *};
    use crate::controller_test::{ControllerTest, topic};

    fn property(key: &'static str, kind: Kind, dynamic: bool) -> &'static Property {
        Box::leak(Box::new(Property { key, kind, default: "1", doc: "", dynamic }))
    }

    /// One broker, with a few settings, and a topic `t`.
    fn cluster() -> ControllerTest {
        let mut test = ControllerTest::with_brokers(1);
        let number = Kind::Int { min: 1, max: 9 };
        let setting = |property, value: &str| BrokerSetting { property, value: value.to_owned() };
        test.controller.config.broker_settings = vec![
            setting(property("node.id", number, false), "1"),
            setting(property("some.number", number, true), "3"),
            setting(property("some.list", Kind::List(&["a", "b", "c"]), true), "a"),
        ];
        test.create(&[topic("t", 1, 1)]);
        test
    }

    fn of_topic() -> ConfigResource {
        ConfigResource::Topic("t".to_owned())
    }

    fn of_broker() -> ConfigResource {
        ConfigResource::Broker(Some(BrokerId(1)))
    }

    fn each(changes: &[(&str, ConfigOperation)]) -> Alteration {
        Each(
            changes.iter().map(|(key, operation)| ((*key).to_owned(), operation.clone())).collect(),
        )
    }

    fn alter(
        test: &mut ControllerTest,
        resource: &ConfigResource,
        alteration: Alteration,
    ) -> Result<(), ControllerError> {
        let wanted = [AlterConfigs { resource: resource.clone(), alteration }];
        let dry = test.controller.alter_configs(&wanted, true);
        let planned = test.controller.alter_configs(&wanted, false);
        assert_eq!((dry.records.len(), &dry.response), (0, &planned.response));
        test.play(planned).remove(0)
    }

    fn set(test: &ControllerTest, resource: &ConfigResource) -> Vec<(String, String)> {
        let set = test.image.configs().get(resource);
        set.map(|set| set.as_ref().clone()).unwrap_or_default().into_iter().collect()
    }

    fn owned(values: &[(&str, &str)]) -> Vec<(String, String)> {
        values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn to(value: &str) -> ConfigOperation {
        Set(value.to_owned())
    }

    #[test]
    fn settings_change_one_by_one_or_all_together() {
        let mut test = cluster();
        let topic = of_topic();
        for (alteration, expected) in [
            (
                each(&[("segment.bytes", to("4096")), ("max.message.bytes", to("100"))]),
                &[("max.message.bytes", "100"), ("segment.bytes", "4096")][..],
            ),
            (
                each(&[("segment.bytes", to("8192"))]),
                &[("max.message.bytes", "100"), ("segment.bytes", "8192")],
            ),
            (each(&[("max.message.bytes", Delete)]), &[("segment.bytes", "8192")]),
            (each(&[("retention.ms", Delete)]), &[("segment.bytes", "8192")]),
            (
                ReplaceAll(owned(&[("flush.ms", "7"), ("min.insync.replicas", "2")])),
                &[("flush.ms", "7"), ("min.insync.replicas", "2")],
            ),
            (ReplaceAll(vec![]), &[]),
        ] {
            assert_eq!(alter(&mut test, &topic, alteration.clone()), Ok(()), "{alteration:?}");
            assert_eq!(set(&test, &topic), owned(expected), "{alteration:?}");
        }
    }

    #[test]
    fn words_are_added_to_and_taken_from_what_a_list_holds_now() {
        let mut test = cluster();
        let broker = of_broker();
        let (append, subtract) =
            (|words: &str| Append(words.to_owned()), |words: &str| Subtract(words.to_owned()));
        for (operation, expected) in [
            (append("b"), "a,b"), // to what the broker was started with
            (append("c, b"), "a,b,c"),
            (subtract("b,a"), "c"),
            (subtract("a"), "c"),
            (append(""), "c"),
        ] {
            assert_eq!(alter(&mut test, &broker, each(&[("some.list", operation)])), Ok(()));
            assert_eq!(set(&test, &broker), owned(&[("some.list", expected)]));
        }
    }

    #[test]
    fn a_value_that_is_set_already_is_not_written_again() {
        let mut test = cluster();
        let wanted = || each(&[("segment.bytes", to("4096"))]);
        assert_eq!(alter(&mut test, &of_topic(), wanted()), Ok(()));
        let again = [AlterConfigs { resource: of_topic(), alteration: wanted() }];
        assert_eq!(test.controller.alter_configs(&again, false).records, vec![]);
    }

    #[test]
    fn what_cannot_be_set_is_refused_and_nothing_of_its_resource_changes() {
        let mut test = cluster();
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        let unregistered = ConfigResource::Broker(Some(BrokerId(9)));
        let missing = ConfigResource::Topic("missing".to_owned());
        let default = ConfigResource::Broker(None);
        let (config, request) = (ErrorCode::InvalidConfig, ErrorCode::InvalidRequest);
        let unknown = ErrorCode::UnknownTopicOrPartition;
        for (resource, change, code, text) in [
            (of_topic(), ("segment.byte", to("4096")), config, "did you mean \"segment.bytes\""),
            (of_topic(), ("segment.bytes", to("x")), config, "expected a whole number"),
            (of_topic(), ("flush.ms", to(&long)), config, "at most 4096 bytes"),
            (
                of_topic(),
                ("flush.ms", Append("1".to_owned())),
                config,
                "Can't APPEND to key flush.ms because its type is not LIST.",
            ),
            (
                of_topic(),
                ("flush.ms", Subtract("1".to_owned())),
                config,
                "Can't SUBTRACT to key flush.ms",
            ),
            (missing, ("flush.ms", to("1")), unknown, "does not host"),
            (unregistered, ("some.number", to("1")), ErrorCode::BrokerIdNotRegistered, "9"),
            (of_broker(), ("node.id", to("2")), request, "cannot be changed while the broker runs"),
            (of_broker(), ("some.number", to("10")), request, "from 1 to 9"),
            (default.clone(), ("some.nmber", to("1")), config, "did you mean \"some.number\""),
            (default, ("some.list", Append("d".to_owned())), request, "list of a, b, c"),
        ] {
            let lawful = match resource {
                ConfigResource::Topic(_) => ("segment.bytes", to("4096")),
                ConfigResource::Broker(_) => ("some.number", to("5")),
            };
            let key = change.0;
            let mut changes = vec![change];
            if key != lawful.0 {
                changes.insert(0, lawful);
            }
            let refused = alter(&mut test, &resource, each(&changes)).expect_err("a refusal");
            assert_eq!(refused.error_code(), code, "{key}");
            assert!(refused.to_string().contains(text), "{refused}");
            assert_eq!(set(&test, &resource), vec![], "{key}");
        }
    }

    #[test]
    fn a_setting_named_twice_is_refused_and_other_resources_change_all_the_same() {
        let mut test = cluster();
        let twice = each(&[("flush.ms", to("1")), ("flush.ms", Delete)]);
        let once = each(&[("some.number", to("2"))]);
        let wanted = [
            AlterConfigs { resource: of_topic(), alteration: twice },
            AlterConfigs { resource: ConfigResource::Broker(None), alteration: once },
        ];
        let planned = test.controller.alter_configs(&wanted, false);
        let duplicate = "Error due to duplicate config keys: flush.ms".to_owned();
        let refused = Err(ControllerError::InvalidRequest(duplicate));
        assert_eq!(test.play(planned), [refused, Ok(())]);
        assert_eq!(set(&test, &of_topic()), vec![]);
        let default = ConfigResource::Broker(None);
        assert_eq!(set(&test, &default), owned(&[("some.number", "2")]));
    }

    #[test]
    fn settings_end_with_their_topic() {
        let mut test = cluster();
        assert_eq!(alter(&mut test, &of_topic(), each(&[("flush.ms", to("1"))])), Ok(()));
        test.delete(&[crate::TopicReference::Name("t".to_owned())]);
        test.create(&[topic("t", 1, 1)]);
        assert_eq!(set(&test, &of_topic()), vec![]);
    }
}
