//! What a Rust service does with rust-rdkafka, whose librdkafka is built from source.

mod records;

use std::{
    env,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
        TopicReplication, TopicResult,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::Timestamp,
    producer::{FutureProducer, FutureRecord, Producer},
    types::RDKafkaErrorCode,
};

use records::{BURST, PARTITIONS, SEGMENT_BYTES, at, headers, key, value};

const TOPIC: &str = "rust";
const PATIENCE: Duration = Duration::from_secs(30);

struct Program {
    bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
    options: AdminOptions,
    /// How many records each partition of the topic has.
    written: i64,
}

fn main() {
    let bootstrap = env::args().nth(1).expect("usage: stock-client BOOTSTRAP");
    let admin = config(&bootstrap).create().expect("an admin client");
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let mut program = Program { bootstrap, admin, options, written: 0 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        program.creates_the_topic().await;
        program.produces_in_every_way().await;
        program.reads_everything();
        program.finds_offsets_by_timestamp();
        program.starts_at_the_end().await;
        program.alters_settings().await;
        program.deletes_records().await;
        program.adds_partitions().await;
        program.deletes_and_creates_again().await;
    });
    println!("all good");
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

impl Program {
    async fn creates_the_topic(&self) {
        let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1))
            .set("segment.bytes", SEGMENT_BYTES);
        assert_eq!(self.creates(&topic).await, Ok(TOPIC.to_owned()));
        let again = Err((TOPIC.to_owned(), RDKafkaErrorCode::TopicAlreadyExists));
        assert_eq!(self.creates(&topic).await, again);
        assert_eq!(self.partitions(), PARTITIONS as usize);
    }

    async fn creates(&self, topic: &NewTopic<'_>) -> TopicResult {
        let created = self.admin.create_topics([topic], &self.options).await;
        created.expect("an answer").remove(0)
    }

    fn partitions(&self) -> usize {
        let metadata = self.admin.inner().fetch_metadata(Some(TOPIC), PATIENCE).expect("metadata");
        metadata.topics()[0].partitions().len()
    }

    async fn produces_in_every_way(&mut self) {
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            for (acks, idempotent) in
                [("0", "false"), ("1", "false"), ("all", "false"), ("all", "true")]
            {
                self.produces(&[
                    ("compression.type", codec),
                    ("acks", acks),
                    ("enable.idempotence", idempotent),
                ])
                .await;
            }
        }
    }

    async fn produces(&mut self, settings: &[(&str, &str)]) {
        let mut config = config(&self.bootstrap);
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let producer: FutureProducer = config.create().expect("a producer");
        let mut deliveries = Vec::new();
        for number in self.written..self.written + BURST {
            for partition in 0..PARTITIONS {
                deliveries.push((number, send(&producer, partition, number)));
            }
        }
        for (number, delivery) in deliveries {
            let delivery = delivery.await.expect("an answer").expect("delivered");
            // Without acknowledgements nobody knows the offset.
            if settings.get(1) != Some(&("acks", "0")) {
                assert_eq!(delivery.offset, number, "offset acknowledged with {settings:?}");
            }
        }
        producer.flush(PATIENCE).expect("flushed");
        self.written += BURST;
        // Without acknowledgements, this is when the next producer comes behind this one.
        let deadline = Instant::now() + PATIENCE;
        while !(0..PARTITIONS).all(|partition| self.bounds(partition).1 == self.written) {
            assert!(Instant::now() < deadline, "everything sent with {settings:?} is there");
        }
    }

    /// The first and the next offset of a partition.
    fn bounds(&self, partition: i32) -> (i64, i64) {
        let bounds = self.admin.inner().fetch_watermarks(TOPIC, partition, PATIENCE);
        bounds.expect("watermarks")
    }

    fn reads_everything(&self) {
        for partition in 0..PARTITIONS {
            self.reads(partition, Offset::Beginning, 0..self.written);
        }
    }

    /// Consumes from an offset and expects these records.
    fn reads(&self, partition: i32, offset: Offset, numbers: std::ops::Range<i64>) {
        let consumer = self.begins(partition, offset);
        numbers.for_each(|number| expects(&consumer, partition, number));
    }

    fn begins(&self, partition: i32, offset: Offset) -> BaseConsumer {
        let consumer = self.consumer();
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(TOPIC, partition, offset).expect("a valid offset");
        consumer.assign(&partitions).expect("assigned");
        consumer
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = config(&self.bootstrap);
        // librdkafka wants the name of a group even where none is joined.
        config.set("group.id", "unused").set("enable.auto.commit", "false");
        config.set("auto.offset.reset", "error").set("fetch.wait.max.ms", "50");
        config.create().expect("a consumer")
    }

    fn finds_offsets_by_timestamp(&self) {
        let consumer = self.consumer();
        for number in [0, 1, 99, 100, 1_234, self.written - 1] {
            let mut wanted = TopicPartitionList::new();
            let timestamp = Offset::Offset(at(number) - 500);
            wanted.add_partition_offset(TOPIC, 2, timestamp).expect("a valid timestamp");
            let found = consumer.offsets_for_times(wanted, PATIENCE).expect("offsets");
            let found = found.elements()[0].offset();
            assert_eq!(found, Offset::Offset(number), "offset by timestamp");
            self.reads(2, found, number..self.written);
        }
    }

    async fn starts_at_the_end(&mut self) {
        let consumer = self.begins(1, Offset::End);
        // Only a consumer that has a position at the end sees exactly what comes next.
        assert!(consumer.poll(Duration::from_millis(500)).is_none(), "nothing behind the end");
        let end = self.written;
        self.produces(&[]).await;
        (end..self.written).for_each(|number| expects(&consumer, 1, number));
    }

    async fn alters_settings(&self) {
        assert_eq!(self.setting("segment.bytes").await, SEGMENT_BYTES);
        assert_eq!(self.setting("max.message.bytes").await, "1048588");
        // This request names every setting that shall be there, and takes back the others.
        self.alters(&[("segment.bytes", "300000"), ("max.message.bytes", "2000000")]).await;
        assert_eq!(self.setting("segment.bytes").await, "300000");
        assert_eq!(self.setting("max.message.bytes").await, "2000000");
        self.alters(&[("segment.bytes", "300000")]).await;
        assert_eq!(self.setting("max.message.bytes").await, "1048588");
    }

    async fn alters(&self, settings: &[(&str, &str)]) {
        let alteration = AlterConfig::new(ResourceSpecifier::Topic(TOPIC));
        let alteration =
            settings.iter().fold(alteration, |config, (name, value)| config.set(name, value));
        let altered = self.admin.alter_configs([&alteration], &self.options).await;
        altered.expect("an answer").remove(0).expect("altered");
    }

    async fn setting(&self, name: &str) -> String {
        let resource = ResourceSpecifier::Topic(TOPIC);
        let described = self.admin.describe_configs([&resource], &self.options).await;
        let described = described.expect("an answer").remove(0).expect("described");
        described.get(name).and_then(|entry| entry.value.clone()).expect("a value")
    }

    async fn deletes_records(&self) {
        const BEFORE: i64 = 150;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(TOPIC, 0, Offset::Offset(BEFORE)).expect("a valid offset");
        let deleted = self.admin.delete_records(&offsets, &self.options).await.expect("deleted");
        let low_watermark = deleted.elements()[0].offset();
        assert_eq!(low_watermark, Offset::Offset(BEFORE), "low watermark");
        assert_eq!(self.bounds(0), (BEFORE, self.written));
        self.reads(0, Offset::Beginning, BEFORE..self.written);
    }

    async fn adds_partitions(&self) {
        let more = NewPartitions::new(TOPIC, PARTITIONS as usize + 2);
        let added = self.admin.create_partitions([&more], &self.options).await;
        assert_eq!(added.expect("an answer"), [Ok(TOPIC.to_owned())]);
        assert_eq!(self.partitions(), PARTITIONS as usize + 2);
        self.writes_the_first_record(PARTITIONS + 1).await;
    }

    async fn deletes_and_creates_again(&self) {
        assert_eq!(self.deletes().await, Ok(TOPIC.to_owned()));
        let nothing = Err((TOPIC.to_owned(), RDKafkaErrorCode::UnknownTopicOrPartition));
        assert_eq!(self.deletes().await, nothing);
        let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(1));
        assert_eq!(self.creates(&topic).await, Ok(TOPIC.to_owned()));
        assert_eq!(self.partitions(), 1);
        self.writes_the_first_record(0).await;
    }

    async fn deletes(&self) -> TopicResult {
        let deleted = self.admin.delete_topics(&[TOPIC], &self.options).await;
        deleted.expect("an answer").remove(0)
    }

    /// Writes one record to an empty partition, and reads it back.
    async fn writes_the_first_record(&self, partition: i32) {
        assert_eq!(self.bounds(partition), (0, 0), "bounds of an empty partition");
        let producer: FutureProducer = config(&self.bootstrap).create().expect("a producer");
        let delivery = send(&producer, partition, 0).await.expect("an answer").expect("delivered");
        assert_eq!(delivery.offset, 0, "first offset");
        self.reads(partition, Offset::Beginning, 0..1);
        assert_eq!(self.bounds(partition), (0, 1), "bounds after one record");
    }
}

fn send(
    producer: &FutureProducer,
    partition: i32,
    number: i64,
) -> rdkafka::producer::DeliveryFuture {
    let (key, value) = (key(partition, number), value(partition, number));
    let record = FutureRecord::to(TOPIC)
        .partition(partition)
        .payload(&value)
        .timestamp(at(number))
        .headers(headers(number));
    let record = match &key {
        Some(key) => record.key(key),
        None => record,
    };
    producer.send_result(record).map_err(|(error, _)| error).expect("room in the queue")
}

/// Takes the next record, which must be this one.
fn expects(consumer: &BaseConsumer, partition: i32, number: i64) {
    let at_record = format!("partition {partition}, offset {number}");
    let message = consumer.poll(PATIENCE).unwrap_or_else(|| panic!("{at_record}: nothing came"));
    let message = message.unwrap_or_else(|error| panic!("{at_record}: {error}"));
    assert_eq!(message.offset(), number, "{at_record}");
    assert_eq!(message.timestamp(), Timestamp::CreateTime(at(number)), "{at_record}");
    assert_eq!(message.key(), key(partition, number).as_deref().map(str::as_bytes), "{at_record}");
    let value = value(partition, number);
    assert!(message.payload().unwrap_or_default() == value, "{at_record}: another value");
    let seen = message.headers().map(records::seen).unwrap_or_default();
    assert_eq!(seen, records::seen(&headers(number)), "{at_record}");
}
