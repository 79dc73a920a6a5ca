#!/usr/bin/env python3
"""Reads back what produce_bulk.py wrote: is every acknowledged record there, once, in order?

For each partition the numbers must be 0, 1, 2, ... at offsets without a gap, and each
acknowledged number must lie at the offset that its acknowledgement named. Ends with status 1 and
the first few differences otherwise.

Needs confluent-kafka (pip install confluent-kafka).
"""

import argparse
import sys
import time

SHOWN_MAX = 20


def check(acknowledged, consumed):
    """Says what is wrong, one sentence each.

    `acknowledged` holds (partition, number, offset), `consumed` holds for each partition the list
    of (offset, number) in the order in which they were read.
    """
    problems = []
    for partition, records in sorted(consumed.items()):
        problems += check_order(partition, records)
    places = {
        partition: {number: offset for offset, number in records}
        for partition, records in consumed.items()
    }
    for partition, number, offset in acknowledged:
        found = places.get(partition, {}).get(number)
        if found is None:
            problems.append(f"lost: partition {partition}: {number}, acknowledged at {offset}")
        elif found != offset:
            problems.append(
                f"moved: partition {partition}: {number}, acknowledged at {offset}, is at {found}"
            )
    return problems


def check_order(partition, records):
    problems = []
    seen = set()
    offset_expected, number_expected = 0, 0
    for offset, number in records:
        if offset != offset_expected:
            problems.append(
                f"offsets: partition {partition}: {offset} follows {offset_expected - 1}"
            )
        if number in seen:
            problems.append(f"duplicate: partition {partition}: {number} again at {offset}")
        elif number < number_expected:
            problems.append(f"order: partition {partition}: {number} late, at {offset}")
        elif number > number_expected:
            problems.append(
                f"gap: partition {partition}: {number} at {offset} follows {number_expected - 1}"
            )
        seen.add(number)
        offset_expected = offset + 1
        number_expected = max(number_expected, number + 1)
    return problems


def main():
    arguments = parse_arguments()
    acknowledged = list(read_acknowledged(arguments.acked)) if arguments.acked else []
    consumed, problems = consume(arguments)
    problems += check(acknowledged, consumed)
    count = sum(len(records) for records in consumed.values())
    print(f"consumed {count} records, {len(acknowledged)} acknowledged ones looked for")
    if problems:
        print(f"{len(problems)} problems:", file=sys.stderr)
        print("\n".join(problems[:SHOWN_MAX]), file=sys.stderr)
        return 1
    if count == 0 and not arguments.may_be_empty:
        print("nothing to verify", file=sys.stderr)
        return 1
    return 0


def read_acknowledged(path):
    with open(path, encoding="ascii") as lines:
        for line in lines:
            partition, number, offset = line.split()
            yield int(partition), int(number), int(offset)


def consume(arguments):
    """Everything from the start of every partition to its end as it is now."""
    # Not needed by `check`, so that it can be tested without a client.
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": arguments.bootstrap_server,
            "group.id": "verify-consumption",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
            "auto.offset.reset": "error",
            "log_level": 3,
        }
    )
    partitions = consumer.list_topics(arguments.topic, timeout=30).topics[arguments.topic].partitions
    ends = {}
    for partition in partitions:
        _, end = consumer.get_watermark_offsets(TopicPartition(arguments.topic, partition), 30)
        ends[partition] = end
    consumer.assign([TopicPartition(arguments.topic, p, OFFSET_BEGINNING) for p in partitions])
    consumed = {partition: [] for partition in partitions}
    missing = {partition for partition, end in ends.items() if end > 0}
    problems = []
    progress = time.monotonic()
    while missing and not problems:
        messages = consumer.consume(10_000, timeout=1.0)
        if messages:
            progress = time.monotonic()
        elif time.monotonic() - progress > arguments.patience:
            problems.append(f"no more records for {arguments.patience} s; partitions {missing}")
        for message in messages:
            if message.error():
                problems.append(f"consumer: {message.error()}")
                continue
            partition, offset = message.partition(), message.offset()
            if offset < ends[partition]:
                consumed[partition].append((offset, int(message.key())))
            if offset + 1 >= ends[partition]:
                missing.discard(partition)
    consumer.close()
    return consumed, problems


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstrap-server", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="bulk")
    parser.add_argument("--acked", help="the file that produce_bulk.py --acked wrote")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds without a record")
    parser.add_argument("--may-be-empty", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
