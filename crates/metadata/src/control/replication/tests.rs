//! Creating, growing and deleting topics: Kafka's rules, one row each.

use std::collections::BTreeMap;

use tidelog_types::{BrokerId, ErrorCode, LeaderEpoch, Uuid};

use super::*;
use crate::{
    ControllerError, MetadataRecord,
    controller_test::{ControllerTest, topic},
    record::ConfigResource,
};

fn with_configs(configs: &[(&str, Option<&str>)]) -> CreateTopic {
    let owned = |(key, value): &(&str, Option<&str>)| {
        ((*key).to_owned(), value.map(std::borrow::ToOwned::to_owned))
    };
    CreateTopic { configs: configs.iter().map(owned).collect(), ..topic("new", 1, 1) }
}

fn assigned(assignments: &[(i32, &[i32])]) -> CreateTopic {
    let assignment = |(partition, ids): &(i32, &[i32])| ReplicaAssignment {
        partition: *partition,
        broker_ids: ids.iter().map(|id| BrokerId(*id)).collect(),
    };
    CreateTopic {
        assignments: assignments.iter().map(assignment).collect(),
        ..CreateTopic::with_defaults("new")
    }
}

fn assert_refused(test: &mut ControllerTest, asked: &CreateTopic, code: ErrorCode, text: &str) {
    let planned = test.plan_create(std::slice::from_ref(asked), false);
    assert_eq!(planned.records, vec![], "{asked:?}");
    let error = planned.response[0].result.as_ref().expect_err("a refusal");
    assert_eq!((error.error_code(), error.to_string().as_str()), (code, text), "{asked:?}");
}

#[test]
fn a_topic_has_what_the_request_says_and_the_brokers_settings_where_it_does_not() {
    let mut test = ControllerTest::with_brokers(3);
    test.controller.config.num_partitions = 4;
    test.controller.config.replication_factor = 2;
    for (asked, partitions, replicas) in [
        (topic("both", 2, 3), 2, 3),
        (topic("defaults", -1, -1), 4, 2),
        (topic("partitions", -1, 1), 4, 1),
        (topic("replicas", 5, -1), 5, 2),
    ] {
        let created =
            test.create(std::slice::from_ref(&asked)).remove(0).result.expect("a lawful topic");
        assert_eq!((created.num_partitions, created.replication_factor), (partitions, replicas));
        assert_eq!(test.topic_id(&asked.name), created.topic_id);
        for number in 0..partitions {
            let partition = test.partition(&asked.name, number);
            assert_eq!(partition.replicas.len(), replicas as usize);
            assert_eq!(partition.isr, partition.replicas);
            assert_eq!(partition.leader, Some(partition.replicas[0]));
            assert_eq!(partition.leader_epoch, LeaderEpoch(0));
        }
    }
    assert_eq!(test.image.topics().partition_count(), 2 + 4 + 4 + 5);
}

#[test]
fn a_name_that_no_topic_may_have_is_refused() {
    let mut test = ControllerTest::with_brokers(1);
    test.create(&[topic("taken", 1, 1), topic("a.b_c", 1, 1)]);
    let long = "x".repeat(250);
    let too_long =
        "Topic name is invalid: its length 250 is longer than the max allowed length 249";
    let illegal = "Topic name is invalid: 'a b' contains one or more characters other than ASCII \
                   alphanumerics, '.', '_' and '-'";
    let dots = "Topic name is invalid: '.' or '..' is not allowed";
    let empty = "Topic name is invalid: the empty string is not allowed";
    let exists = "Topic 'taken' already exists.";
    let collides = "Topic 'a_b.c' collides with existing topic: a.b_c";
    let internal = "Creation of internal topic __cluster_metadata is prohibited.";
    for (name, code, text) in [
        ("", ErrorCode::InvalidTopicException, empty),
        (".", ErrorCode::InvalidTopicException, dots),
        ("..", ErrorCode::InvalidTopicException, dots),
        (&long, ErrorCode::InvalidTopicException, too_long),
        ("a b", ErrorCode::InvalidTopicException, illegal),
        ("taken", ErrorCode::TopicAlreadyExists, exists),
        ("a_b.c", ErrorCode::InvalidTopicException, collides),
        ("__cluster_metadata", ErrorCode::InvalidRequest, internal),
    ] {
        assert_refused(&mut test, &topic(name, 1, 1), code, text);
    }
    for name in ["...", "a", "A-Z_0.9", &"x".repeat(249)] {
        assert_eq!(test.create(&[topic(name, 1, 1)])[0].result.as_ref().err(), None, "{name}");
    }
}

#[test]
fn numbers_that_no_topic_may_have_are_refused() {
    let mut test = ControllerTest::with_brokers(2);
    let factor = "Replication factor must be larger than 0, or -1 to use the default value.";
    let partitions = "Number of partitions was set to an invalid non-positive value.";
    let brokers = "Unable to replicate the partition 3 time(s): The target replication factor of \
                   3 cannot be reached because only 2 broker(s) are registered.";
    let many = "Excessively large number of partitions per request: at most 10000 can be created \
                at once.";
    for (num_partitions, replication_factor, code, text) in [
        (1, 0, ErrorCode::InvalidReplicationFactor, factor),
        (1, -2, ErrorCode::InvalidReplicationFactor, factor),
        (0, 1, ErrorCode::InvalidPartitions, partitions),
        (-2, 1, ErrorCode::InvalidPartitions, partitions),
        (1, 3, ErrorCode::InvalidReplicationFactor, brokers),
        (10_001, 1, ErrorCode::PolicyViolation, many),
        (i32::MAX, 1, ErrorCode::PolicyViolation, many),
    ] {
        assert_refused(&mut test, &topic("new", num_partitions, replication_factor), code, text);
    }
}

#[test]
fn an_assignment_by_hand_is_followed_or_refused() {
    let mut test = ControllerTest::with_brokers(3);
    let created = test.create(&[assigned(&[(1, &[3, 1]), (0, &[2, 3])])]);
    assert_eq!(created[0].result.as_ref().map(|created| created.replication_factor), Ok(2));
    assert_eq!(test.partition("new", 0).replicas, [BrokerId(2), BrokerId(3)]);
    assert_eq!(test.partition("new", 1).leader, Some(BrokerId(3)));
    test.delete(&[TopicReference::Name("new".to_owned())]);

    let wrong = ErrorCode::InvalidReplicaAssignment;
    let both = |num_partitions, replication_factor| CreateTopic {
        num_partitions,
        replication_factor,
        ..assigned(&[(0, &[1])])
    };
    for (asked, code, text) in [
        (
            both(-1, 1),
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but replication factor was not set to \
             -1.",
        ),
        (
            both(1, -1),
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but number of partitions was not set to \
             -1.",
        ),
        (
            assigned(&[(0, &[])]),
            wrong,
            "The manual partition assignment for partition 0 includes an empty replica list.",
        ),
        (
            assigned(&[(0, &[1, 1])]),
            wrong,
            "The manual partition assignment includes the broker 1 more than once.",
        ),
        (
            assigned(&[(0, &[9])]),
            wrong,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        ),
        (
            assigned(&[(0, &[1]), (0, &[2])]),
            wrong,
            "Found multiple manual partition assignments for partition 0",
        ),
        (
            assigned(&[(0, &[1]), (1, &[2, 3])]),
            wrong,
            "The manual partition assignment includes a partition with 2 replica(s), but this is \
             not consistent with previous partitions, which have 1 replica(s).",
        ),
        (
            assigned(&[(0, &[1]), (2, &[2])]),
            wrong,
            "partitions should be a consecutive 0-based integer sequence",
        ),
    ] {
        assert_refused(&mut test, &asked, code, text);
    }
}

#[test]
fn settings_are_checked_stored_and_gone_with_their_topic() {
    let mut test = ControllerTest::with_brokers(1);
    for (key, value, text) in [
        ("no.such", Some("1"), "unknown setting \"no.such\""),
        (
            "segment.bytes",
            Some("1"),
            "segment.bytes = \"1\": expected a whole number of bytes from 1024 to 2147483647",
        ),
        ("segment.bytes", None, "Null value not supported for topic configs: segment.bytes"),
        (
            "unclean.leader.election.enable",
            Some("true"),
            "unclean.leader.election.enable = \"true\" is not honoured: only replicas in sync are \
             elected yet; only \"false\", the default, is",
        ),
    ] {
        assert_refused(&mut test, &with_configs(&[(key, value)]), ErrorCode::InvalidConfig, text);
    }
    let long = "1".repeat(5000);
    let text = "segment.bytes: a value has at most 4096 bytes, not 5000";
    let asked = with_configs(&[("segment.bytes", Some(&long))]);
    assert_refused(&mut test, &asked, ErrorCode::InvalidConfig, text);

    let twice = [("segment.bytes", Some("2048")), ("segment.bytes", Some("4096"))];
    let created = test.create(&[with_configs(&twice)]).remove(0).result.expect("lawful");
    let expected = BTreeMap::from([("segment.bytes".to_owned(), "4096".to_owned())]);
    assert_eq!(created.configs, expected);
    let stored: Vec<_> = test.image.configs().topic("new").collect();
    assert_eq!(stored, [("segment.bytes", "4096")]);

    test.delete(&[TopicReference::Name("new".to_owned())]);
    assert_eq!(test.image.configs().get(&ConfigResource::Topic("new".to_owned())), None);
}

#[test]
fn each_topic_of_a_request_stands_for_itself() {
    let mut test = ControllerTest::with_brokers(1);
    let asked = [
        topic("good", 1, 1),
        topic("twice", 1, 1),
        topic("bad name", 1, 1),
        topic("a.b", 1, 1),
        topic("a_b", 1, 1),
        topic("twice", 2, 1),
        topic("many", 9_998, 1),
        topic("too.many", 1, 1),
    ];
    let results = test.create(&asked);
    let answers: Vec<_> = results
        .iter()
        .map(|answer| (answer.name.as_str(), answer.result.as_ref().err().map(|e| e.error_code())))
        .collect();
    let expected = [
        ("good", None),
        ("twice", Some(ErrorCode::InvalidRequest)),
        ("bad name", Some(ErrorCode::InvalidTopicException)),
        ("a.b", None),
        ("a_b", Some(ErrorCode::InvalidTopicException)),
        ("many", None),
        ("too.many", Some(ErrorCode::PolicyViolation)),
    ];
    assert_eq!(answers, expected);
    let names: Vec<_> = test.image.topics().iter().map(|topic| topic.name().to_owned()).collect();
    assert_eq!(names, ["a.b", "good", "many"]);
}

#[test]
fn validating_only_answers_the_same_and_plans_nothing() {
    let mut test = ControllerTest::with_brokers(1);
    let asked = [topic("good", 3, 1), topic("bad name", 1, 1)];
    let planned = test.plan_create(&asked, true);
    assert_eq!(planned.records, vec![]);
    let created = planned.response[0].result.as_ref().expect("a lawful topic");
    assert_eq!((created.topic_id, created.num_partitions), (Uuid::ZERO, 3));
    assert!(planned.response[1].result.is_err());
}

#[test]
fn an_id_that_is_reserved_used_or_reads_badly_is_passed_over() {
    let mut test = ControllerTest::with_brokers(1);
    test.create(&[topic("first", 1, 1)]);
    let used = test.topic_id("first");
    let good = Uuid([5; 16]);
    let mut offered =
        vec![Uuid::ZERO, Uuid(1_u128.to_be_bytes()), Uuid([0xfb; 16]), used, good].into_iter();
    let mut ids = || offered.next().expect("enough ids");
    let planned = test.controller.create_topics(&[topic("new", 1, 1)], false, &mut ids);
    assert_eq!(planned.response[0].result.as_ref().map(|created| created.topic_id), Ok(good));
}

#[test]
fn topics_are_deleted_by_name_or_id_once() {
    let mut test = ControllerTest::with_brokers(1);
    for name in ["by-name", "by-id", "both", "kept"] {
        test.create(&[topic(name, 2, 1)]);
    }
    let name = |name: &str| TopicReference::Name(name.to_owned());
    let [by_id, both] = ["by-id", "both"].map(|name| TopicReference::Id(test.topic_id(name)));
    let unknown = TopicReference::Id(Uuid([3; 16]));
    let asked =
        [name("by-name"), by_id.clone(), name("both"), both.clone(), name("none"), unknown.clone()];
    let results = test.delete(&asked);
    let answers: Vec<_> = results
        .into_iter()
        .map(|answer| (answer.reference, answer.result.err().map(|error| error.error_code())))
        .collect();
    let expected = [
        (name("by-name"), None),
        (by_id, None),
        (name("both"), Some(ErrorCode::InvalidRequest)),
        (both, Some(ErrorCode::InvalidRequest)),
        (name("none"), Some(ErrorCode::UnknownTopicOrPartition)),
        (unknown, Some(ErrorCode::UnknownTopicId)),
    ];
    assert_eq!(answers, expected);
    assert_eq!(test.image.topics().len(), 2);

    let results = test.delete(&[name("kept"), name("kept")]);
    assert_eq!(results.len(), 1);
    let error = results[0].result.as_ref().expect_err("named twice");
    assert_eq!(error.to_string(), "Duplicate topic name.");
}

#[test]
fn a_topic_created_again_is_another_topic() {
    let mut test = ControllerTest::with_brokers(1);
    test.create(&[topic("again", 1, 1)]);
    let first = test.topic_id("again");
    test.register(1, 2).expect("a restart");
    assert_eq!(test.partition("again", 0).leader_epoch, LeaderEpoch(1));
    test.delete(&[TopicReference::Id(first)]);
    test.create(&[topic("again", 1, 1)]);
    assert_ne!(test.topic_id("again"), first);
    assert_eq!(test.partition("again", 0).leader_epoch, LeaderEpoch(0));
}

#[test]
fn ten_thousand_topics_one_by_one_and_ten_thousand_partitions_at_once() {
    let mut test = ControllerTest::with_brokers(1);
    for number in 0..10_000 {
        let planned = test.plan_create(&[topic(&format!("t{number}"), 1, 1)], false);
        assert_eq!(planned.records.len(), 2);
        test.controller.replay_all(&planned.records);
    }
    let planned = test.plan_create(&[topic("wide", 10_000, 1)], false);
    assert_eq!(planned.records.len(), 10_001);
    test.controller.replay_all(&planned.records);
    let restart = crate::controller_test::registration(1, 2);
    let planned = test.controller.register_broker(&restart);
    assert_eq!(planned.records.len(), 20_001);
    test.controller.replay_all(&planned.records);
    assert!(matches!(planned.records[0], MetadataRecord::RegisterBroker(_)));
    let topics = test.controller.image().topics();
    let restarted = |partition: &crate::record::PartitionRegistration| {
        partition.leader_epoch == LeaderEpoch(1) && partition.leader == Some(BrokerId(1))
    };
    assert!(topics.iter().all(|topic| topic.partitions().all(|(_, p)| restarted(p))));
}

fn grow(name: &str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitions {
    let ids = |ids: &&[i32]| ids.iter().map(|id| BrokerId(*id)).collect();
    let assignments = assignments.map(|all| all.iter().map(ids).collect());
    CreatePartitions { name: name.to_owned(), count, assignments }
}

#[test]
fn a_topic_grows_by_partitions_of_the_replication_factor_that_it_has() {
    let mut test = ControllerTest::with_brokers(3);
    test.create(&[topic("placed", 2, 2), topic("assigned", 1, 2)]);
    let before = test.partition("placed", 1).clone();
    let wanted = [
        grow("placed", 5, None),
        grow("assigned", 3, Some(&[&[3, 1], &[2, 3]])),
        grow("missing", 3, None),
    ];
    let dry = test.controller.create_partitions(&wanted, true);
    let planned = test.controller.create_partitions(&wanted, false);
    assert_eq!((dry.records.len(), &dry.response), (0, &planned.response));
    let results: Vec<_> = test.play(planned).into_iter().map(|grown| grown.result).collect();
    let unknown = ControllerError::UnknownTopic { name: "missing".to_owned() };
    assert_eq!(results, [Ok(()), Ok(()), Err(unknown)]);
    assert_eq!(test.partition("placed", 1), &before, "what was there stays as it was");
    for number in 2..5 {
        let partition = test.partition("placed", number);
        assert_eq!((partition.replicas.len(), partition.leader_epoch), (2, LeaderEpoch(0)));
        assert_eq!(partition.leader, Some(partition.replicas[0]));
    }
    for (number, replicas) in [(1, [3, 1]), (2, [2, 3])] {
        assert_eq!(test.partition("assigned", number).replicas, replicas.map(BrokerId));
    }
    assert_eq!(test.image.topics().partition_count(), 5 + 3);
}

#[test]
fn a_topic_that_cannot_grow_so_is_refused_in_kafkas_words() {
    let mut test = ControllerTest::with_brokers(2);
    test.create(&[topic("two", 2, 1)]);
    let (numbers, assignment) = (ErrorCode::InvalidPartitions, ErrorCode::InvalidReplicaAssignment);
    let no_increase = "would not be an increase";
    for (count, assignments, code, text) in [
        (2, None, numbers, "Topic already has 2 partition(s)."),
        (1, None, numbers, no_increase),
        (0, None, numbers, no_increase),
        (i32::MIN, None, numbers, no_increase),
        (10_003, None, ErrorCode::PolicyViolation, "at most 10000"),
        (i32::MAX, None, ErrorCode::PolicyViolation, "at most 10000"),
        (4, Some(&[&[1][..]][..]), assignment, "only 1 assignment(s) were specified"),
        (3, Some(&[&[][..]][..]), assignment, "an empty replica list"),
        (3, Some(&[&[1, 2][..]][..]), assignment, "which have 1 replica(s)"),
        (3, Some(&[&[9][..]][..]), assignment, "no such broker is registered"),
    ] {
        let planned = test.controller.create_partitions(&[grow("two", count, assignments)], false);
        assert_eq!(planned.records, vec![], "{count}");
        let refused = planned.response[0].result.as_ref().expect_err("a refusal");
        assert_eq!(refused.error_code(), code, "{count} {assignments:?}");
        assert!(refused.to_string().contains(text), "{refused}");
    }
    let twice = [grow("two", 3, None), grow("two", 4, None), grow("two", 5, None)];
    let planned = test.controller.create_partitions(&twice, false);
    let duplicate = ControllerError::InvalidRequest("Duplicate topic name.".to_owned());
    assert_eq!(planned.records, vec![]);
    assert_eq!(planned.response.len(), 1, "one answer for one name");
    assert_eq!(planned.response[0].result, Err(duplicate));
}

#[test]
fn only_the_broker_creates_the_topics_that_are_its_own() {
    let mut test = ControllerTest::with_brokers(1);
    for name in ["__consumer_offsets", "__transaction_state", "__share_group_state"] {
        let text =
            format!("Topic '{name}' is internal: the broker creates it itself when it is needed.");
        assert_refused(&mut test, &topic(name, 1, 1), ErrorCode::InvalidTopicException, &text);
        let own = CreateTopic { is_internal: true, ..topic(name, 50, 1) };
        assert_eq!(test.create(&[own])[0].result.as_ref().err(), None, "{name}");
        assert_eq!(test.image.topics().get(name).expect("created").partition_count(), 50);
    }
}
