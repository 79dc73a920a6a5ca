//! Topics: created, asked for into being, described, deleted.

use tidelog_net::service::CloseReason;
use tidelog_protocol::kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, MetadataRequest, TopicName,
    create_topics_request::{CreatableTopic, CreatableTopicConfig},
    delete_topics_request::DeleteTopicState,
    describe_configs_request::DescribeConfigsResource,
    describe_configs_response::DescribeConfigsResourceResult,
    metadata_request::MetadataRequestTopic,
};

use crate::{
    context::{BrokerTest, resolve, text},
    records::{Fetch, batch, batches, produce},
};

pub fn delete(test: &BrokerTest, name: &str) -> i16 {
    let topic = DeleteTopicState::default().with_name(Some(TopicName(text(name))));
    let request = DeleteTopicsRequest::default().with_topics(vec![topic]);
    test.call(6, &request.with_timeout_ms(10_000)).responses[0].error_code
}

fn ask_for(test: &BrokerTest, version: i16, name: &str, may_create: bool) -> i16 {
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(may_create);
    test.call(version, &request).topics[0].error_code
}

#[test]
fn asking_creates_a_topic_only_where_both_sides_allow_it() {
    let test = BrokerTest::new();
    assert_eq!(ask_for(&test, 9, "new", false), 3);
    assert_eq!(ask_for(&test, 9, "new", true), 0);
    assert_eq!(ask_for(&test, 9, "new", false), 0);
    assert_eq!(ask_for(&test, 9, "not lawful", true), 17);
    assert_eq!(ask_for(&test, 9, "__consumer_offsets", true), 3);
    let test = BrokerTest::with(&[("auto.create.topics.enable", "false")]);
    assert_eq!(ask_for(&test, 9, "new", true), 3);
}

#[test]
fn asking_for_many_topics_creates_some_at_a_time() {
    let test = BrokerTest::new();
    let names: Vec<String> = (0..150).map(|number| format!("topic-{number}")).collect();
    let topic =
        |name: &String| MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
    let request = MetadataRequest::default()
        .with_topics(Some(names.iter().map(topic).collect()))
        .with_allow_auto_topic_creation(true);
    for unknown in [50, 0] {
        let response = test.call(9, &request);
        let count = |code| response.topics.iter().filter(|topic| topic.error_code == code).count();
        assert_eq!((count(0), count(3)), (150 - unknown, unknown));
    }
}

#[test]
fn what_a_request_may_be_about_has_an_end() {
    let test = BrokerTest::new();
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text("t"))));
    let request = MetadataRequest::default().with_allow_auto_topic_creation(false);
    let asked = |count| request.clone().with_topics(Some(vec![topic.clone(); count]));
    assert_eq!(test.call(9, &asked(100_000)).topics.len(), 1);
    assert_eq!(resolve(test.send(9, &asked(100_001))), Err(CloseReason::Malformed));
}

#[test]
fn an_error_does_not_quote_more_than_a_string_can_hold() {
    let test = BrokerTest::new();
    let long = "x".repeat(32_700);
    let config = |key: &str, value: &str| {
        let config = CreatableTopicConfig::default();
        vec![config.with_name(text(key)).with_value(Some(text(value)))]
    };
    let topic = |name: &str| CreatableTopic::default().with_name(TopicName(text(name)));
    let topic = |name| topic(name).with_num_partitions(1).with_replication_factor(1);
    for (topic, code) in [
        (topic(&long), 17),
        (topic("key").with_configs(config(&long, "1")), 40),
        (topic("value").with_configs(config("segment.bytes", &long)), 40),
    ] {
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        let response = test.call(2, &request.with_timeout_ms(10_000));
        let told = &response.topics[0];
        let bytes = told.error_message.as_ref().map_or(0, |message| message.len());
        assert_eq!((told.error_code, bytes <= 1024), (code, true), "{bytes}");
    }
    for (kind, code) in [(2, 3), (4, 42)] {
        assert_eq!(describe_all(&test, 1, &[(kind, &long)]), [(code, 0)]);
    }
}

#[test]
fn a_topic_created_by_asking_has_the_brokers_numbers() {
    let test = BrokerTest::with(&[("num.partitions", "3")]);
    assert_eq!(ask_for(&test, 9, "new", true), 0);
    let metadata = test.metadata(12);
    let topic = &metadata.topics[0];
    assert_eq!(topic.partitions.len(), 3);
    assert!(!topic.topic_id.is_nil());
    assert_eq!(metadata.cluster_id.as_deref(), Some("CQkJCQkJCQkJCQkJCQkJCQ"));
    assert_eq!(metadata.controller_id.0, 1);
}

#[test]
fn a_topic_that_cannot_be_is_refused_in_kafkas_words() {
    let test = BrokerTest::new();
    test.create_topic("taken", 1, &[]);
    let topic = |name: &str, partitions, factor| {
        CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(factor)
    };
    let config = |key, value| {
        let config = CreatableTopicConfig::default();
        vec![config.with_name(text(key)).with_value(Some(text(value)))]
    };
    let topics = vec![
        topic("taken", 1, 1),
        topic("a b", 1, 1),
        topic("none", 0, 1),
        topic("three", 1, 3),
        topic("unknown", 1, 1).with_configs(config("no.such.key", "1")),
        topic("later", 1, 1).with_configs(config("remote.storage.enable", "true")),
        topic("good", -1, -1),
    ];
    let request = CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(10_000);
    let dry = test.call(7, &request.clone().with_validate_only(true));
    let wet = test.call(7, &request);
    for response in [dry, wet] {
        let codes: Vec<_> = response.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [36, 17, 37, 38, 40, 40, 0]);
        let good = response.topics.last().expect("an answer for each");
        assert_eq!((good.num_partitions, good.replication_factor), (1, 1));
    }
    assert_eq!(test.metadata(12).topics.len(), 2);
}

#[test]
fn a_topic_created_again_is_another_one() {
    let test = BrokerTest::new();
    let first = test.create_topic("topic", 1, &[]);
    produce(&test, "topic", batch(&["old"]));
    assert_eq!(delete(&test, "topic"), 0);
    assert_eq!(delete(&test, "topic"), 3);
    let second = test.create_topic("topic", 1, &[]);
    assert_ne!(first, second);
    assert_eq!(batches(&Fetch::default().call(&test)), []);
    assert_eq!(produce(&test, "topic", batch(&["new"])), (0, 0));
}

#[test]
fn deletion_may_be_switched_off() {
    let test = BrokerTest::with(&[("delete.topic.enable", "false")]);
    test.create_topic("topic", 1, &[]);
    assert_eq!(delete(&test, "topic"), 73);
    assert_eq!(test.metadata(12).topics.len(), 1);
}

#[test]
fn a_topic_that_goes_is_named_in_one_way() {
    let test = BrokerTest::new();
    let id = test.create_topic("topic", 1, &[]);
    let name = Some(TopicName(text("topic")));
    let id = DeleteTopicState::default().with_topic_id(uuid::Uuid::from_bytes(id.0));
    let both = id.clone().with_name(name);
    let neither = DeleteTopicState::default().with_name(None);
    for (topic, code) in [(both, 42), (neither, 42), (id.with_name(None), 0)] {
        let request = DeleteTopicsRequest::default().with_topics(vec![topic]);
        let response = test.call(6, &request.with_timeout_ms(10_000));
        assert_eq!(response.responses[0].error_code, code);
    }
}

/// Error code and number of settings of each resource.
fn describe_all(test: &BrokerTest, version: i16, resources: &[(i8, &str)]) -> Vec<(i16, usize)> {
    let resource = |(kind, name): &(i8, &str)| {
        DescribeConfigsResource::default()
            .with_resource_type(*kind)
            .with_resource_name(text(name))
            .with_configuration_keys(Some(vec![text("segment.bytes")]))
    };
    let resources = resources.iter().map(resource).collect();
    let request = DescribeConfigsRequest::default().with_resources(resources);
    let results = test.call(version, &request).results;
    results.iter().map(|result| (result.error_code, result.configs.len())).collect()
}

#[test]
fn a_resource_named_twice_is_described_once() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let described = describe_all(&test, 4, &[(2, "topic"), (4, "1"), (2, "topic"), (4, "1")]);
    assert_eq!(described, [(0, 1), (0, 0), (42, 0), (42, 0)]);
}

fn describe(test: &BrokerTest, kind: i8, name: &str) -> Vec<DescribeConfigsResourceResult> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    test.call(4, &request).results.remove(0).configs
}

#[test]
fn a_setting_is_described_with_all_the_places_it_could_come_from() {
    let test = BrokerTest::with(&[("log.segment.bytes", "5000000"), ("log.roll.hours", "2")]);
    test.create_topic("topic", 1, &[("max.message.bytes", "1000")]);
    let configs = describe(&test, 2, "topic");
    let told = |key: &str| {
        let config = configs.iter().find(|config| &*config.name == key).expect("described");
        let synonyms: Vec<_> = config
            .synonyms
            .iter()
            .map(|s| {
                (s.name.to_string(), s.value.as_deref().unwrap_or_default().to_owned(), s.source)
            })
            .collect();
        (config.value.as_deref().unwrap_or_default().to_owned(), config.config_source, synonyms)
    };
    let synonym = |key: &str, value: &str, source| (key.to_owned(), value.to_owned(), source);
    let expected =
        vec![synonym("max.message.bytes", "1000", 1), synonym("message.max.bytes", "1048588", 5)];
    assert_eq!(told("max.message.bytes"), ("1000".to_owned(), 1, expected));
    let expected = vec![
        synonym("log.segment.bytes", "5000000", 4),
        synonym("log.segment.bytes", "1073741824", 5),
    ];
    assert_eq!(told("segment.bytes"), ("5000000".to_owned(), 4, expected));
    let expected = vec![synonym("log.retention.hours", "168", 5)];
    assert_eq!(told("retention.ms"), ("604800000".to_owned(), 5, expected));
    let expected = vec![synonym("log.roll.hours", "2", 4), synonym("log.roll.hours", "168", 5)];
    assert_eq!(told("segment.ms"), ("7200000".to_owned(), 4, expected));
    assert!(configs.iter().all(|config| config.documentation.is_some() && !config.read_only));

    let broker = describe(&test, 4, "1");
    let segment = broker.iter().find(|config| &*config.name == "log.segment.bytes");
    let segment = segment.expect("described");
    assert_eq!((segment.value.as_deref(), segment.read_only), (Some("5000000"), false));
    assert!(describe(&test, 4, "2").is_empty(), "another broker is not described here");
}
