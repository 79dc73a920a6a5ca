"""Creating, describing, listing and deleting topics, and what happens to those who use them."""

import sys
import time

from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from common import PATIENCE_SECONDS, admin, consumer, create_topic, fails_with, produce_all, read


def main(bootstrap):
    creates_and_lists(bootstrap)
    refuses_what_is_wrong(bootstrap)
    describes_settings(bootstrap)
    deletes_and_creates_again(bootstrap)
    refuses_too_large_a_record(bootstrap)
    stamps_with_the_time_of_appending(bootstrap)
    creates_on_first_use(bootstrap)
    print("all good")


def creates_and_lists(bootstrap):
    create_topic(bootstrap, "py-topic", partitions=5)
    metadata = admin(bootstrap).list_topics(timeout=PATIENCE_SECONDS)
    assert len(metadata.brokers) == 1, metadata.brokers
    assert metadata.cluster_id and len(metadata.cluster_id) == 22, metadata.cluster_id
    topic = metadata.topics["py-topic"]
    assert sorted(topic.partitions) == [0, 1, 2, 3, 4], topic.partitions
    broker = next(iter(metadata.brokers))
    for partition in topic.partitions.values():
        assert partition.leader == broker, "led by the one broker"
        assert partition.replicas == [broker] and partition.isrs == [broker]


def refuses_what_is_wrong(bootstrap):
    client = admin(bootstrap)
    cases = [
        (NewTopic("py-topic", 1, 1), "TOPIC_ALREADY_EXISTS"),
        (NewTopic("not a name", 1, 1), "TOPIC_EXCEPTION"),
        (NewTopic("py-replicas", 1, 3), "INVALID_REPLICATION_FACTOR"),
        (NewTopic("py-none", 0, 1), "INVALID_PARTITIONS"),
        (NewTopic("py-set", 1, 1, config={"no.such.setting": "1"}), "INVALID_CONFIG"),
        (NewTopic("py-set", 1, 1, config={"segment.bytes": "many"}), "INVALID_CONFIG"),
    ]
    for topic, error in cases:
        fails_with(error, client.create_topics([topic])[topic.topic])
    fails_with("UNKNOWN_TOPIC_OR_PART", client.delete_topics(["py-nowhere"])["py-nowhere"])
    checked = client.create_topics([NewTopic("py-checked", 1, 1)], validate_only=True)
    checked["py-checked"].result(PATIENCE_SECONDS)
    assert "py-checked" not in client.list_topics(timeout=PATIENCE_SECONDS).topics


def describes_settings(bootstrap):
    create_topic(bootstrap, "py-settings", segment_bytes=2_000_000)
    resource = ConfigResource(ResourceType.TOPIC, "py-settings")
    client = admin(bootstrap)
    settings = client.describe_configs([resource])[resource].result(PATIENCE_SECONDS)
    assert settings["segment.bytes"].value == "2000000"
    assert not settings["segment.bytes"].is_default
    assert settings["max.message.bytes"].value == "1048588", "Kafka's default"
    assert settings["cleanup.policy"].value == "delete", "Kafka's default"
    assert settings["flush.messages"].value == "9223372036854775807", "Kafka's default"


def deletes_and_creates_again(bootstrap):
    client = admin(bootstrap)
    assert produce_all(bootstrap, "py-topic", [(b"old", None)] * 3) == [0, 1, 2]
    client.delete_topics(["py-topic"])["py-topic"].result(PATIENCE_SECONDS)
    assert "py-topic" not in client.list_topics(timeout=PATIENCE_SECONDS).topics
    create_topic(bootstrap, "py-topic")
    assert produce_all(bootstrap, "py-topic", [(b"new", None)]) == [0], "offsets start again"
    assert read(bootstrap, "py-topic", 1)[0].value() == b"new"


def refuses_too_large_a_record(bootstrap):
    create_topic(bootstrap, "py-small", max_message_bytes=2_000)
    errors = []
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce("py-small", b"x" * 3_000, on_delivery=lambda error, _: errors.append(error))
    producer.produce("py-small", b"x" * 1_000, on_delivery=lambda error, _: errors.append(error))
    producer.flush(PATIENCE_SECONDS)
    codes = [error.code() if error else None for error in errors]
    assert KafkaError.MSG_SIZE_TOO_LARGE in codes, codes


def stamps_with_the_time_of_appending(bootstrap):
    config = {"message_timestamp_type": "LogAppendTime"}
    create_topic(bootstrap, "py-append-time", **config)
    before = int(time.time() * 1000)
    for compression in ["none", "lz4"]:
        records = [(b"x", 1_600_000_000_000)] * 3
        produce_all(bootstrap, "py-append-time", records, **{"compression.type": compression})
    for message in read(bootstrap, "py-append-time", 6):
        kind, timestamp = message.timestamp()
        assert kind == 2, "marked as log append time"
        assert before <= timestamp <= int(time.time() * 1000), timestamp


def creates_on_first_use(bootstrap):
    assert produce_all(bootstrap, "py-created-by-use", [(b"hello", None)]) == [0]
    for _ in range(2):  # asked twice, because asking once may create
        topic = consumer(bootstrap).list_topics("py-never-created", PATIENCE_SECONDS)
        error = topic.topics["py-never-created"].error
        assert error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART, "a consumer creates no topics"


main(sys.argv[1])
