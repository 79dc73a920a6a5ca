//! DescribeLogDirs: how much of this broker's one directory each partition takes (KIP-113).

use std::{collections::BTreeMap, path};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName,
        describe_log_dirs_request::DescribableLogDirTopic,
        describe_log_dirs_response::{
            DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
        },
    },
    protocol::StrBytes,
};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};

use crate::{
    broker::Broker,
    partition::Partition,
    replica_manager::{Topic, Topics},
    request_context::RequestContext,
};

/// First version with the disk's size (KIP-827).
const DISK_BYTES_FROM: i16 = 4;
/// A size that nobody knows.
const UNKNOWN_BYTES: i64 = -1;

pub(crate) fn handle(
    broker: &Broker,
    context: &RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: DescribeLogDirsRequest = request::decode(context.version(), body)?;
    let wanted = request.topics.iter().flatten();
    context.check_items(wanted.map(|topic| 1 + topic.partitions.len()).sum())?;
    let topics = broker.replicas.topics();
    let described = match &request.topics {
        None => topics.iter().map(|topic| described(topic, topic.hosted_here())).collect(),
        Some(wanted) => named(&topics, wanted),
    };
    let mut result = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(log_dir(broker)))
        .with_topics(described.into_iter().filter(|topic| !topic.partitions.is_empty()).collect());
    if context.version() >= DISK_BYTES_FROM {
        let wire = |bytes: Option<u64>| {
            bytes.map_or(UNKNOWN_BYTES, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
        };
        let (total, free) = broker.wal.disk_bytes();
        result = result.with_total_bytes(wire(total)).with_usable_bytes(wire(free));
    }
    let response = DescribeLogDirsResponse::default().with_results(vec![result]);
    Ok(context.answer(&broker.metrics, &response))
}

/// What a request names, each topic and partition once; what is not here is left out, as in Kafka.
fn named(topics: &Topics, wanted: &[DescribableLogDirTopic]) -> Vec<DescribeLogDirsTopic> {
    let mut partitions: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for topic in wanted {
        partitions.entry(&topic.topic).or_default().extend(&topic.partitions);
    }
    let described = partitions.into_iter().filter_map(|(name, mut indexes)| {
        indexes.sort_unstable();
        indexes.dedup();
        let topic = topics.named(name).ok()?;
        let here = indexes.iter().filter_map(|index| topic.partition(*index).ok());
        Some(described(topic, here.map(AsRef::as_ref)))
    });
    described.collect()
}

fn described<'a>(
    topic: &Topic,
    partitions: impl Iterator<Item = &'a Partition>,
) -> DescribeLogDirsTopic {
    let partitions = partitions.map(|partition| {
        let bytes = i64::try_from(partition.log().size_bytes()).unwrap_or(i64::MAX);
        // What this broker leads it has whole: no lag, and no other directory to move to.
        DescribeLogDirsPartition::default()
            .with_partition_index(partition.id().partition)
            .with_partition_size(bytes)
    });
    let partitions = partitions.collect();
    let name = TopicName(StrBytes::from_string(topic.name.to_string()));
    DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions)
}

/// `log.dirs` as an absolute path: tools show it, and compare it between brokers.
fn log_dir(broker: &Broker) -> String {
    let dir = &broker.settings.broker.log_dirs;
    path::absolute(dir).map_or_else(|_| dir.clone(), |dir| dir.display().to_string())
}
