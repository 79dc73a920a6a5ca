"""What the programs of this folder share: settings, creating topics, reading by assignment."""

import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PATIENCE_SECONDS = 30


def admin(bootstrap):
    return AdminClient({"bootstrap.servers": bootstrap})


def create_topic(bootstrap, name, partitions=1, **config):
    settings = {key.replace("_", "."): str(value) for key, value in config.items()}
    topic = NewTopic(name, partitions, 1, config=settings)
    client = admin(bootstrap)  # named, because it must outlive what it promised
    client.create_topics([topic])[name].result(PATIENCE_SECONDS)


def consumer(bootstrap, **config):
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "needed-by-the-client-but-never-joined",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            **config,
        }
    )


def produce_all(bootstrap, topic, records, **config):
    """Sends (value, timestamp or None) to partition 0; returns the acknowledged offsets."""
    producer = Producer({"bootstrap.servers": bootstrap, **config})
    offsets, errors = [], []

    def on_delivery(error, message):
        if error:
            errors.append(error)
        else:
            offsets.append(message.offset())

    for value, timestamp in records:
        extra = {} if timestamp is None else {"timestamp": timestamp}
        producer.produce(
            topic,
            key=b"key of " + value[:20],
            value=value,
            partition=0,
            headers=[("h", value[:8]), ("h", b""), ("none", None)],
            on_delivery=on_delivery,
            **extra,
        )
        producer.poll(0)
    assert producer.flush(PATIENCE_SECONDS) == 0, "everything is sent in time"
    assert not errors, errors[:3]
    return offsets


def read(bootstrap, topic, count, offset=OFFSET_BEGINNING, partition=0, **config):
    """The next `count` messages of one partition from `offset`."""
    reader = consumer(bootstrap, **config)
    reader.assign([TopicPartition(topic, partition, offset)])
    messages = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{topic}: {len(messages)} of {count} in time"
        for message in reader.consume(count - len(messages), timeout=1.0):
            if message.error():
                raise KafkaException(message.error())
            messages.append(message)
    reader.close()
    return messages


def fails_with(name, future):
    """Asserts that `future` ends in the Kafka error `name`."""
    try:
        future.result(PATIENCE_SECONDS)
    except KafkaException as error:
        assert error.args[0].name() == name, f"{error.args[0].name()}, expected {name}"
        return error.args[0].str()
    raise AssertionError(f"no error, expected {name}")
