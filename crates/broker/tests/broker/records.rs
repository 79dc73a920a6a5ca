//! Produces to and fetches from a broker under test, in one line each.

use bytes::Bytes;
use tidelog_net::service::Handled;
use tidelog_protocol::{
    batch_builder::BatchBuilder,
    kafka_protocol::messages::{
        FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
};
use tidelog_types::{BatchHeader, ProducerEpoch, ProducerId};

use crate::context::{BrokerTest, NOW_MS, resolve, text};

/// A batch with one record for each value.
pub fn batch(values: &[&str]) -> Bytes {
    build(BatchBuilder::new(NOW_MS), values)
}

/// A batch of an idempotent producer.
pub fn idempotent(producer_id: i64, epoch: i16, base_sequence: i32, values: &[&str]) -> Bytes {
    let (id, epoch) = (ProducerId(producer_id), ProducerEpoch(epoch));
    build(BatchBuilder::new(NOW_MS).producer(id, epoch, base_sequence), values)
}

fn build(builder: BatchBuilder, values: &[&str]) -> Bytes {
    let record = |b: BatchBuilder, v: &&str| b.record(NOW_MS, None, Some(v.as_bytes()));
    values.iter().fold(builder, record).build()
}

pub fn produce_request(topic: &str, acks: i16, batches: &[(i32, Bytes)]) -> ProduceRequest {
    let partition = |(index, records): &(i32, Bytes)| {
        PartitionProduceData::default().with_index(*index).with_records(Some(records.clone()))
    };
    let data = TopicProduceData::default()
        .with_name(TopicName(text(topic)))
        .with_partition_data(batches.iter().map(partition).collect());
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![data])
}

/// The first partition's part of an answer.
pub fn first(response: &ProduceResponse) -> &PartitionProduceResponse {
    &response.responses[0].partition_responses[0]
}

/// Error code and base offset of one batch's answer.
pub fn produce(test: &BrokerTest, topic: &str, records: Bytes) -> (i16, i64) {
    let response = test.call(9, &produce_request(topic, -1, &[(0, records)]));
    let answer = first(&response);
    (answer.error_code, answer.base_offset)
}

/// What a consumer asks of one partition.
#[derive(Clone, Copy)]
pub struct Fetch<'a> {
    pub topic: &'a str,
    pub offset: i64,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub leader_epoch: i32,
    pub last_fetched_epoch: i32,
}

impl Default for Fetch<'_> {
    fn default() -> Self {
        Fetch {
            topic: "topic",
            offset: 0,
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 1 << 20,
            leader_epoch: -1,
            last_fetched_epoch: -1,
        }
    }
}

impl Fetch<'_> {
    pub fn request(&self) -> FetchRequest {
        let partition = FetchPartition::default()
            .with_fetch_offset(self.offset)
            .with_current_leader_epoch(self.leader_epoch)
            .with_last_fetched_epoch(self.last_fetched_epoch)
            .with_partition_max_bytes(self.max_bytes);
        let topic = FetchTopic::default()
            .with_topic(TopicName(text(self.topic)))
            .with_partitions(vec![partition]);
        FetchRequest::default()
            .with_max_wait_ms(self.max_wait_ms)
            .with_min_bytes(self.min_bytes)
            .with_max_bytes(self.max_bytes)
            .with_topics(vec![topic])
    }

    pub fn send(&self, test: &BrokerTest) -> Handled {
        test.send(12, &self.request())
    }

    pub fn call(&self, test: &BrokerTest) -> PartitionData {
        partition_of(test.call(12, &self.request()))
    }
}

/// The answer to a fetch that was sent before.
pub fn fetched(handled: Handled) -> PartitionData {
    let frame = resolve(handled).expect("the connection stays").expect("an answer");
    partition_of(crate::context::decode::<FetchRequest>(12, frame))
}

pub fn partition_of(mut response: FetchResponse) -> PartitionData {
    response.responses.remove(0).partitions.remove(0)
}

/// Base offset and number of records of each batch, which must follow one another.
pub fn batches(data: &PartitionData) -> Vec<(i64, i32)> {
    let mut rest = data.records.clone().unwrap_or_default();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let header = BatchHeader::decode(rest[..61].try_into().expect("61 bytes"));
        found.push((header.base_offset.0, header.records_count));
        let batch = rest.split_to(header.batch_bytes() as usize);
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &batch[21..]);
        assert_eq!(crc as u32, header.crc, "a batch arrives as it was sent");
    }
    found
}
