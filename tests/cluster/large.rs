//! Requests that are honest, lawful and large: answered in bounded time and memory.

use std::time::{Duration, Instant};

use kafka_protocol::{
    messages::{
        DeleteTopicsRequest, DescribeConfigsRequest, ListOffsetsRequest, MetadataRequest,
        describe_configs_request::DescribeConfigsResource,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
    },
    protocol::{Request, StrBytes},
};
use tidelog_tests::{
    node::{Node, Options},
    wire::{Wire, topic_name},
};

const MIB: u64 = 1024 * 1024;
const NAMES: usize = 50_000;

#[test]
fn fifty_thousand_names_in_one_request_cost_little_time_and_memory() {
    let node = Node::start(Options::default());
    let mut wire = node.wire();
    assert_eq!(wire.create_topic("real", &[]).expect("an answer"), 0);
    let idle = node.resident_bytes();
    let answered = [
        ("Metadata", ask(&mut wire, &metadata(), 12, |it| it.topics.len())),
        ("DeleteTopics", ask(&mut wire, &delete_topics(), 5, |it| it.responses.len())),
        ("ListOffsets", ask(&mut wire, &list_offsets(), 7, |it| it.topics.len())),
        ("DescribeConfigs", ask(&mut wire, &describe_configs(), 4, |it| it.results.len())),
    ];
    for (api, (results, took)) in answered {
        eprintln!("{api}: {results} results in {took:?}");
        assert!(results == NAMES || results == 0, "{api}: {results} results, or the door");
        assert!(took < Duration::from_secs(20), "{api} took {took:?}");
    }
    let peak = node.peak_resident_bytes();
    eprintln!("idle {} MiB, peak {} MiB", idle / MIB, peak / MIB);
    assert!(peak < idle + 200 * MIB, "peak {} MiB", peak / MIB);
    node.wire().api_versions().expect("others are served");
}

/// How many results, and how long they took; 0 if the broker closed the connection over it.
fn ask<R: Request>(
    wire: &mut Wire,
    request: &R,
    version: i16,
    count: impl Fn(&R::Response) -> usize,
) -> (usize, Duration) {
    let asked = Instant::now();
    let results = match wire.call(request, version) {
        Ok(response) => count(&response),
        Err(_) => {
            wire.reconnect().expect("the broker accepts connections");
            0
        }
    };
    (results, asked.elapsed())
}

fn names() -> impl Iterator<Item = String> {
    (0..NAMES).map(|number| format!("no-such-topic-{number}"))
}

fn metadata() -> MetadataRequest {
    let topics =
        names().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(&name))));
    let request = MetadataRequest::default().with_allow_auto_topic_creation(false);
    request.with_topics(Some(topics.collect()))
}

fn delete_topics() -> DeleteTopicsRequest {
    let names = names().map(|name| topic_name(&name));
    DeleteTopicsRequest::default().with_topic_names(names.collect()).with_timeout_ms(1_000)
}

fn list_offsets() -> ListOffsetsRequest {
    let topics = names().map(|name| {
        ListOffsetsTopic::default()
            .with_name(topic_name(&name))
            .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-1)])
    });
    let request = ListOffsetsRequest::default().with_replica_id((-1).into());
    request.with_topics(topics.collect())
}

fn describe_configs() -> DescribeConfigsRequest {
    let resources = names().map(|name| {
        DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(StrBytes::from_string(name))
            .with_configuration_keys(None)
    });
    DescribeConfigsRequest::default().with_resources(resources.collect())
}
