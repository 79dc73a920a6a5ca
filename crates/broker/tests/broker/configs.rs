//! Settings changed by request: of topics and of brokers, and what holds then.

use tidelog_protocol::kafka_protocol::messages::{
    AlterConfigsRequest, CreateTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, ListConfigResourcesRequest, TopicName, alter_configs_request,
    create_topics_request::CreatableTopic,
    describe_configs_request::DescribeConfigsResource,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};

use crate::{
    context::{BrokerTest, text},
    records::{batch, produce},
};

pub const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

type Change<'a> = (&'a str, i8, Option<&'a str>);

fn resource(kind: i8, name: &str, changes: &[Change<'_>]) -> AlterConfigsResource {
    let config = |(key, operation, value): &Change<'_>| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    };
    AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(changes.iter().map(config).collect())
}

/// Error code and text of a changed resource.
fn alter(test: &BrokerTest, kind: i8, name: &str, changes: &[Change<'_>]) -> (i16, String) {
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(vec![resource(kind, name, changes)]);
    let dry = test.call(1, &request.clone().with_validate_only(true)).responses.remove(0);
    let answer = test.call(1, &request).responses.remove(0);
    assert_eq!((answer.resource_type, &*answer.resource_name), (kind, name));
    assert_eq!((dry.error_code, &dry.error_message), (answer.error_code, &answer.error_message));
    (answer.error_code, answer.error_message.map(|text| text.to_string()).unwrap_or_default())
}

/// A setting as DescribeConfigs tells it: value, source and whether it is read only.
pub fn described(test: &BrokerTest, kind: i8, name: &str, key: &str) -> Option<(String, i8, bool)> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(Some(vec![text(key)]));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    let mut result = test.call(4, &request).results.remove(0);
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let config = result.configs.pop()?;
    let value = config.value.map(|value| value.to_string()).unwrap_or_default();
    assert_eq!(config.synonyms[0].value.as_deref(), Some(value.as_str()));
    Some((value, config.config_source, config.read_only))
}

fn told(value: &str, source: i8, read_only: bool) -> Option<(String, i8, bool)> {
    Some((value.to_owned(), source, read_only))
}

#[test]
fn a_topics_setting_changes_at_once_and_for_good() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let key = "max.message.bytes";
    assert_eq!(produce(&test, "topic", batch(&["value"])).0, 0);
    assert_eq!(alter(&test, TOPIC, "topic", &[(key, SET, Some("10"))]).0, 0);
    assert_eq!(produce(&test, "topic", batch(&["value"])).0, 10, "too large now");
    let test = test.after_power_loss(1);
    assert_eq!(described(&test, TOPIC, "topic", key), told("10", 1, false));
    assert_eq!(produce(&test, "topic", batch(&["value"])).0, 10);
    assert_eq!(alter(&test, TOPIC, "topic", &[(key, DELETE, None)]).0, 0);
    assert_eq!(described(&test, TOPIC, "topic", key), told("1048588", 5, false));
    assert_eq!(produce(&test, "topic", batch(&["value"])).0, 0);
}

#[test]
fn a_setting_that_cannot_be_set_is_refused_in_kafkas_words() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    for (kind, name, change, code, words) in [
        (TOPIC, "none", ("flush.ms", SET, Some("1")), 3, "does not host"),
        (TOPIC, "topic", ("flush.mz", SET, Some("1")), 40, "did you mean \"flush.ms\"?"),
        (TOPIC, "topic", ("flush.ms", SET, Some("x")), 40, "a whole number"),
        (TOPIC, "topic", ("flush.ms", SET, None), 42, "Null value not supported for : flush.ms"),
        (TOPIC, "topic", ("flush.ms", APPEND, Some("1")), 40, "its type is not LIST"),
        (TOPIC, "topic", ("flush.ms", SUBTRACT, Some("1")), 40, "its type is not LIST"),
        (TOPIC, "topic", ("flush.ms", 7, Some("1")), 42, "Unknown operation type 7"),
        (BROKER, "1", ("node.id", SET, Some("2")), 42, "cannot be changed while the broker runs"),
        (BROKER, "1", ("message.max.bytes", SET, Some("-1")), 42, "a whole number"),
        (BROKER, "1", ("no.such.key", SET, Some("1")), 40, "unknown setting"),
        (BROKER, "2", ("message.max.bytes", SET, Some("1")), 42, "expected 1, but received 2"),
        (BROKER, "01", ("message.max.bytes", SET, Some("1")), 42, "expected 1, but received 01"),
        (BROKER, "one", ("message.max.bytes", SET, Some("1")), 42, "must be an integer"),
        (8, "1", ("root", SET, Some("DEBUG")), 42, "log levels"),
        (16, "m", ("metrics", SET, Some("*")), 42, "client metrics"),
        (32, "g", ("key", SET, Some("1")), 42, "groups"),
        (1, "x", ("key", SET, Some("1")), 42, "Unknown resource type 1"),
    ] {
        let (found, text) = alter(&test, kind, name, &[change]);
        assert_eq!(found, code, "{kind} {name} {change:?}: {text}");
        assert!(text.contains(words), "{text}");
    }
    let twice = [("flush.ms", SET, Some("1")), ("flush.ms", DELETE, None)];
    assert_eq!(alter(&test, TOPIC, "topic", &twice).0, 42);
    assert_eq!(described(&test, TOPIC, "topic", "flush.ms"), told("9223372036854775807", 5, false));
}

#[test]
fn a_resource_named_twice_is_not_altered_and_the_others_are() {
    let test = BrokerTest::new();
    test.create_topic("twice", 1, &[]);
    test.create_topic("once", 1, &[]);
    let set = |value| [("flush.ms", SET, Some(value))];
    let resources = [("twice", "1"), ("once", "2"), ("twice", "3"), ("none", "4")]
        .map(|(name, value)| resource(TOPIC, name, &set(value)));
    let request = IncrementalAlterConfigsRequest::default().with_resources(resources.into());
    let answers = test.call(0, &request).responses;
    let codes: Vec<_> = answers.iter().map(|answer| answer.error_code).collect();
    assert_eq!(codes, [42, 0, 42, 3]);
    assert_eq!(described(&test, TOPIC, "once", "flush.ms"), told("2", 1, false));
    assert_eq!(described(&test, TOPIC, "twice", "flush.ms").map(|told| told.1), Some(5));
}

#[test]
fn replacing_all_settings_forgets_those_that_are_not_named() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[("flush.ms", "7"), ("flush.messages", "9")]);
    let replace = |values: &[(&str, Option<&str>)]| {
        let config = |(key, value): &(&str, Option<&str>)| {
            let config = alter_configs_request::AlterableConfig::default();
            config.with_name(text(key)).with_value(value.map(text))
        };
        let resource = alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text("topic"))
            .with_configs(values.iter().map(config).collect());
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        test.call(2, &request).responses[0].error_code
    };
    let told =
        |key| described(&test, TOPIC, "topic", key).map(|(value, source, _)| (value, source));
    let own = |value: &str| Some((value.to_owned(), 1));
    assert_eq!(replace(&[("flush.ms", None)]), 42);
    assert_eq!(replace(&[("flush.ms", Some("x"))]), 40);
    assert_eq!((told("flush.ms"), told("flush.messages")), (own("7"), own("9")));
    assert_eq!(replace(&[("flush.ms", Some("8"))]), 0);
    assert_eq!((told("flush.ms"), told("flush.messages").map(|t| t.1)), (own("8"), Some(5)));
    assert_eq!(replace(&[]), 0);
    assert_eq!(told("flush.ms").map(|told| told.1), Some(5));
}

#[test]
fn a_brokers_setting_changes_for_all_topics_that_have_none_of_their_own() {
    let test = BrokerTest::with(&[("message.max.bytes", "5000")]);
    test.create_topic("topic", 1, &[]);
    test.create_topic("own", 1, &[("max.message.bytes", "4000")]);
    let key = "message.max.bytes";
    let of_topic = || described(&test, TOPIC, "topic", "max.message.bytes");
    let large = || produce(&test, "topic", batch(&["value"])).0;
    for (name, operation, value, broker, topic, code) in [
        ("", SET, Some("10"), told("10", 3, false), told("10", 3, false), 10),
        ("1", SET, Some("20"), told("20", 2, false), told("20", 2, false), 10),
        ("1", SET, Some("1000"), told("1000", 2, false), told("1000", 2, false), 0),
        ("1", DELETE, None, told("10", 3, false), told("10", 3, false), 10),
        ("", DELETE, None, told("5000", 4, false), told("5000", 4, false), 0),
    ] {
        assert_eq!(alter(&test, BROKER, name, &[(key, operation, value)]), (0, String::new()));
        assert_eq!(described(&test, BROKER, "1", key), broker, "{name:?} {value:?}");
        assert_eq!(of_topic(), topic, "{name:?} {value:?}");
        assert_eq!(large(), code, "{name:?} {value:?}");
        let own = described(&test, TOPIC, "own", "max.message.bytes");
        assert_eq!(own, told("4000", 1, false));
    }
    assert_eq!(described(&test, BROKER, "1", "node.id"), told("1", 5, true));
    assert_eq!(described(&test, BROKER, "", key), None, "nothing is set for all brokers");
}

#[test]
fn what_all_brokers_were_given_is_described_apart_and_survives() {
    let test = BrokerTest::new();
    let changes = [("auto.create.topics.enable", SET, Some("false"))];
    assert_eq!(alter(&test, BROKER, "", &changes).0, 0);
    let test = test.after_power_loss(4);
    let key = "auto.create.topics.enable";
    assert_eq!(described(&test, BROKER, "", key), told("false", 3, false));
    assert_eq!(described(&test, BROKER, "", "message.max.bytes"), None);
    assert_eq!(test.metadata_of("new"), 3, "topics are no longer created by asking for them");
    assert_eq!(alter(&test, BROKER, "", &[(key, DELETE, None)]).0, 0);
    assert_eq!(test.metadata_of("new"), 0);
}

#[test]
fn what_has_settings_is_listed_by_type() {
    let test = BrokerTest::new();
    test.create_topic("b", 1, &[]);
    test.create_topic("a", 1, &[]);
    let list = |version, types: &[i8]| {
        let request = ListConfigResourcesRequest::default().with_resource_types(types.into());
        let response = test.call(version, &request);
        let resources = response.config_resources.into_iter();
        let told: Vec<_> =
            resources.map(|r| (r.resource_type, r.resource_name.to_string())).collect();
        (response.error_code, told)
    };
    let topics = [(TOPIC, "a".to_owned()), (TOPIC, "b".to_owned())];
    let broker = (BROKER, "1".to_owned());
    let all = [&topics[..], std::slice::from_ref(&broker)].concat();
    assert_eq!(list(0, &[]), (0, vec![]), "there are no client metrics");
    for (types, expected) in [
        (&[][..], (0, all.clone())),
        (&[4, 2, 4], (0, all)),
        (&[2], (0, topics.to_vec())),
        (&[4], (0, vec![broker])),
        (&[8, 16, 32], (0, vec![])),
        (&[2, 1], (35, vec![])),
    ] {
        assert_eq!(list(1, types), expected, "{types:?}");
    }
}

#[test]
fn clients_cannot_create_the_brokers_own_topics() {
    let test = BrokerTest::new();
    for name in ["__consumer_offsets", "__transaction_state", "__share_group_state"] {
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        let response = test.call(7, &request.with_timeout_ms(10_000));
        assert_eq!(response.topics[0].error_code, 17, "{name}");
        assert_eq!(test.metadata_of(name), 3, "{name}");
        assert_eq!(produce(&test, name, batch(&["value"])).0, 3, "{name}");
    }
}
