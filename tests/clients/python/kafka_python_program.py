"""What a Python service does with kafka-python."""

import sys
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError

from records import BURST, PARTITIONS, PATIENCE_SECONDS, SEGMENT_BYTES
from records import Record, at, check, equal, written

TOPIC = "kafka-python"


class Program:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        self.written = 0  # records in each partition

    def run(self):
        self.creates_the_topic()
        self.produces_in_every_way()
        self.reads_everything()
        self.finds_offsets_by_timestamp()
        self.starts_at_the_end()
        self.alters_settings()
        self.deletes_records()
        self.adds_partitions()
        self.deletes_and_creates_again()
        self.admin.close()

    def creates_the_topic(self):
        topic = {"num_partitions": PARTITIONS, "configs": {"segment.bytes": SEGMENT_BYTES}}
        self.admin.create_topics({TOPIC: topic})
        fails(TopicAlreadyExistsError, lambda: self.admin.create_topics({TOPIC: topic}))
        equal("topics", [TOPIC], self.admin.list_topics())
        equal("partitions", PARTITIONS, self.partitions())

    def partitions(self):
        return len(self.admin.describe_topics([TOPIC])[0]["partitions"])

    def produces_in_every_way(self):
        for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
            for acks in [0, 1, "all"]:
                self.produces(compression_type=codec, acks=acks, enable_idempotence=False)
            self.produces(compression_type=codec)  # idempotent, which is the default

    def produces(self, **settings):
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5, **settings)
        numbers = range(self.written, self.written + BURST)
        sent = [(n, send(producer, p, n)) for n in numbers for p in range(PARTITIONS)]
        for number, future in sent:
            metadata = future.get(PATIENCE_SECONDS)
            if settings.get("acks") != 0:
                equal(f"offset acknowledged with {settings}", number, metadata.offset)
        producer.close()
        self.written += BURST
        # Without acknowledgements, this is when the next producer comes behind this one.
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self.consumer() as consumer:
            partitions = [TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)]
            while set(consumer.end_offsets(partitions).values()) != {self.written}:
                assert time.monotonic() < deadline, f"everything sent with {settings} is there"

    def consumer(self):
        return KafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=None,
            auto_offset_reset="none",
            fetch_max_wait_ms=50,
        )

    def reads_everything(self):
        for partition in range(PARTITIONS):
            self.reads(partition, 0, self.written)

    def reads(self, partition, offset, end):
        """Consumes one partition from an offset up to another."""
        with self.consumer() as consumer:
            consumer.assign([TopicPartition(TOPIC, partition)])
            consumer.seek(TopicPartition(TOPIC, partition), offset)
            expect(consumer, partition, offset, end)

    def finds_offsets_by_timestamp(self):
        partition = TopicPartition(TOPIC, 2)
        with self.consumer() as consumer:
            for number in [0, 1, 99, 100, 1_234, self.written - 1]:
                found = consumer.offsets_for_times({partition: at(number) - 500})[partition]
                equal("offset by timestamp", (number, at(number)), (found.offset, found.timestamp))
            found = consumer.offsets_for_times({partition: at(self.written)})[partition]
            equal("offset after the last timestamp", None, found)
        self.reads(2, 1_234, self.written)

    def starts_at_the_end(self):
        with self.consumer() as consumer:
            partition = TopicPartition(TOPIC, 1)
            consumer.assign([partition])
            consumer.seek_to_end(partition)
            equal("position", self.written, consumer.position(partition))
            self.produces()
            expect(consumer, 1, self.written - BURST, self.written)

    def alters_settings(self):
        equal("segment.bytes", SEGMENT_BYTES, self.setting("segment.bytes"))
        self.alters("max.message.bytes", "2000000")
        equal("max.message.bytes", "2000000", self.setting("max.message.bytes"))
        equal("segment.bytes still", SEGMENT_BYTES, self.setting("segment.bytes"))
        # kafka-python knows what exists; asked not to look, it lets the broker say so.
        wrong = {"expected": "InvalidConfigurationError", "raise_on_unknown": False}
        self.alters("no.such.setting", "1", **wrong)
        # The older request names every setting that shall be there, and takes back the others.
        self.alters("segment.bytes", "300000", incremental=False)
        equal("segment.bytes", "300000", self.setting("segment.bytes"))
        self.admin.reset_configs([ConfigResource("TOPIC", TOPIC, ["max.message.bytes"])])
        equal("max.message.bytes by default", "1048588", self.setting("max.message.bytes"))

    def alters(self, name, value, expected="OK", **how):
        resource = ConfigResource("TOPIC", TOPIC, {name: value})
        answer = self.admin.alter_configs([resource], **how)["topic"][TOPIC]
        assert expected in answer, f"{name}={value}: expected {expected}, saw {answer}"

    def setting(self, name):
        resource = ConfigResource("TOPIC", TOPIC)
        described = self.admin.describe_configs([resource], config_filter="all")
        return described["topic"][TOPIC][name]["value"]

    def deletes_records(self):
        partition = TopicPartition(TOPIC, 0)
        deleted = self.admin.delete_records({partition: 150})
        equal("low watermark", 150, deleted[partition]["low_watermark"])
        with self.consumer() as consumer:
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            expect(consumer, 0, 150, self.written)

    def adds_partitions(self):
        self.admin.create_partitions({TOPIC: PARTITIONS + 2})
        equal("partitions", PARTITIONS + 2, self.partitions())
        self.writes_the_first_record(PARTITIONS + 1)

    def deletes_and_creates_again(self):
        self.admin.delete_topics([TOPIC])
        fails(UnknownTopicOrPartitionError, lambda: self.admin.delete_topics([TOPIC]))
        self.admin.create_topics({TOPIC: {"num_partitions": 1}})
        self.writes_the_first_record(0)

    def writes_the_first_record(self, number):
        """Writes one record to an empty partition, and reads it back."""
        partition = TopicPartition(TOPIC, number)
        with self.consumer() as consumer:
            equal("end of an empty partition", {partition: 0}, consumer.end_offsets([partition]))
            producer = KafkaProducer(bootstrap_servers=self.bootstrap)
            equal("first offset", 0, send(producer, number, 0).get(PATIENCE_SECONDS).offset)
            producer.close()
            self.reads(number, 0, 1)
            equal("end", {partition: 1}, consumer.end_offsets([partition]))


def send(producer, partition, number):
    record = written(partition, number)
    return producer.send(
        TOPIC,
        key=record.key,
        value=record.value,
        headers=record.headers,
        partition=partition,
        timestamp_ms=record.timestamp,
    )


def expect(consumer, partition, offset, end):
    """Reads the records from one offset up to another."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while offset < end:
        assert time.monotonic() < deadline, f"partition {partition}: {offset} of {end} in time"
        for records in consumer.poll(timeout_ms=1_000).values():
            for r in records:
                seen = Record(r.offset, r.timestamp, r.key, r.value, list(r.headers))
                check(partition, offset, seen)
                offset += 1
    equal("records read", end, offset)


def fails(expected, call):
    try:
        answer = call()
    except expected:
        return
    raise AssertionError(f"expected {expected.__name__}, saw {answer}")


Program(sys.argv[1]).run()
print("all good")
