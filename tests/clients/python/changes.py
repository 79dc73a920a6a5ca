"""Changing a topic: its settings, its records, its partitions."""

import sys

from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions
from confluent_kafka.admin import ResourceType

from common import PATIENCE_SECONDS, admin, consumer, create_topic, fails_with, produce_all, read

TOPIC = "py-changing"
RECORDS = 1_000


def main(bootstrap):
    create_topic(bootstrap, TOPIC, segment_bytes=100_000)
    values = [b"%04d" % number + b"x" * 996 for number in range(RECORDS)]
    produce_all(bootstrap, TOPIC, [(value, None) for value in values], **{"batch.num.messages": 50})
    alters_settings(admin(bootstrap))
    deletes_records(bootstrap, values)
    adds_partitions(bootstrap)
    print("all good")


def alters_settings(client):
    assert setting(client, "segment.bytes") == "100000"
    alter(client, "max.message.bytes", "2000000", AlterConfigOpType.SET).result(PATIENCE_SECONDS)
    assert setting(client, "max.message.bytes") == "2000000"
    assert setting(client, "segment.bytes") == "100000", "what was not named stays"
    alter(client, "max.message.bytes", None, AlterConfigOpType.DELETE).result(PATIENCE_SECONDS)
    assert setting(client, "max.message.bytes") == "1048588", "Kafka's default"
    for name, value in [("no.such.setting", "1"), ("max.message.bytes", "many")]:
        fails_with("INVALID_CONFIG", alter(client, name, value, AlterConfigOpType.SET))


def alter(client, name, value, operation):
    entry = ConfigEntry(name, value, incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=[entry])
    return client.incremental_alter_configs([resource])[resource]


def setting(client, name):
    resource = ConfigResource(ResourceType.TOPIC, TOPIC)
    return client.describe_configs([resource])[resource].result(PATIENCE_SECONDS)[name].value


def deletes_records(bootstrap, values):
    client = admin(bootstrap)
    for before, expected in [(600, 600), (300, 600), (-1, RECORDS)]:
        partition = TopicPartition(TOPIC, 0, before)
        deleted = client.delete_records([partition])[partition].result(PATIENCE_SECONDS)
        assert deleted.low_watermark == expected, (before, deleted.low_watermark)
        assert watermarks(bootstrap, 0) == (expected, RECORDS), before
        if expected < RECORDS:
            messages = read(bootstrap, TOPIC, RECORDS - expected, offset=OFFSET_BEGINNING)
            assert [message.value() for message in messages] == values[expected:], before
            assert messages[0].offset() == expected, before
    fails_with("OFFSET_OUT_OF_RANGE", delete_before(client, RECORDS + 1))
    try:
        read(bootstrap, TOPIC, 1, offset=0)
    except KafkaException as error:
        assert error.args[0].name() == "_AUTO_OFFSET_RESET", error
    else:
        raise AssertionError("a deleted record was read")
    assert produce_all(bootstrap, TOPIC, [(b"next", None)]) == [RECORDS], "offsets go on"
    assert read(bootstrap, TOPIC, 1)[0].value() == b"next"


def delete_before(client, offset):
    partition = TopicPartition(TOPIC, 0, offset)
    return client.delete_records([partition])[partition]


def watermarks(bootstrap, partition):
    reader = consumer(bootstrap)
    bounds = reader.get_watermark_offsets(TopicPartition(TOPIC, partition), PATIENCE_SECONDS)
    reader.close()
    return bounds


def adds_partitions(bootstrap):
    client = admin(bootstrap)
    more = client.create_partitions([NewPartitions(TOPIC, 4)], validate_only=True)
    more[TOPIC].result(PATIENCE_SECONDS)
    assert len(client.list_topics(TOPIC, PATIENCE_SECONDS).topics[TOPIC].partitions) == 1
    client.create_partitions([NewPartitions(TOPIC, 4)])[TOPIC].result(PATIENCE_SECONDS)
    assert len(client.list_topics(TOPIC, PATIENCE_SECONDS).topics[TOPIC].partitions) == 4
    assert watermarks(bootstrap, 3) == (0, 0)
    for count in [4, 2]:
        refused = client.create_partitions([NewPartitions(TOPIC, count)])
        fails_with("INVALID_PARTITIONS", refused[TOPIC])


main(sys.argv[1])
