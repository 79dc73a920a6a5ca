"""Reading by offset and by timestamp, within and across segments."""

import sys
import time

from confluent_kafka import OFFSET_END, TopicPartition

from common import consumer, create_topic, produce_all, read

RECORDS = 5_000
STEP_MS = 1_000


def main(bootstrap, segment_bytes="1048576", only_read=""):
    topic = "py-segments"
    values = [b"%06d" % number + b"x" * 494 for number in range(RECORDS)]
    if only_read:
        start = read(bootstrap, topic, 1)[0].timestamp()[1]
    else:
        create_topic(bootstrap, topic, segment_bytes=segment_bytes)
        # Of today: the broker deletes what is older than retention.ms.
        start = int(time.time()) * 1_000 - RECORDS * STEP_MS
        records = [(value, start + number * STEP_MS) for number, value in enumerate(values)]
        batches = {"batch.num.messages": 20, "linger.ms": 1}
        assert produce_all(bootstrap, topic, records, **batches) == list(range(RECORDS))
    reads_everything(bootstrap, topic, values, start)
    reads_from_anywhere(bootstrap, topic, values)
    finds_offsets_by_timestamp(bootstrap, topic, start)
    starts_at_the_end(bootstrap, topic)
    print("all good")


def reads_everything(bootstrap, topic, values, start):
    for fetch_bytes in [1_000, 1_048_576]:  # less than a batch, and many segments
        messages = read(bootstrap, topic, RECORDS, **{"max.partition.fetch.bytes": fetch_bytes})
        assert [message.value() for message in messages] == values, fetch_bytes
        assert [message.offset() for message in messages] == list(range(RECORDS)), fetch_bytes
        assert messages[7].timestamp()[1] == start + 7 * STEP_MS


def reads_from_anywhere(bootstrap, topic, values):
    for offset in [0, 1, 19, 20, 21, 500, 2_499, 2_500, RECORDS - 60]:
        messages = read(bootstrap, topic, 50, offset=offset)
        assert messages[0].offset() == offset, "starts in the middle of a batch"
        assert [message.value() for message in messages] == values[offset : offset + 50], offset


def finds_offsets_by_timestamp(bootstrap, topic, start):
    reader = consumer(bootstrap)
    for number in [0, 1, 19, 20, 999, 2_500, RECORDS - 1]:
        for ahead, expected in [(0, number), (STEP_MS // 2, number)]:
            timestamp = start + number * STEP_MS - ahead
            wanted = [TopicPartition(topic, 0, timestamp)]
            found = reader.offsets_for_times(wanted, timeout=30)[0]
            assert found.offset == expected, f"{timestamp}: {found.offset}, expected {expected}"
    reader.close()


def starts_at_the_end(bootstrap, topic):
    reader = consumer(bootstrap)
    partition = TopicPartition(topic, 0)
    start, end = reader.get_watermark_offsets(partition, timeout=30)
    assert start == 0 and end >= RECORDS, (start, end)
    far_ahead = [TopicPartition(topic, 0, 4_000_000_000_000)]
    found = reader.offsets_for_times(far_ahead, timeout=30)[0]
    assert found.offset in (OFFSET_END, end), f"after the last: {found.offset}"
    reader.assign([TopicPartition(topic, 0, OFFSET_END)])
    # Only a consumer that has a position at the end sees exactly the next record.
    assert reader.poll(1.0) is None
    assert produce_all(bootstrap, topic, [(b"one more", None)]) == [end]
    message = reader.poll(30.0)
    assert message is not None and message.error() is None, message
    assert (message.offset(), message.value()) == (end, b"one more")
    reader.close()


main(*sys.argv[1:])
