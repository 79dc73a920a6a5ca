#!/usr/bin/env python3
"""Writes numbered records as fast as a stock idempotent producer can; notes what was acknowledged.

Each partition gets the numbers 0, 1, 2, ... in order, as the record's key. With --acked FILE every
acknowledgement becomes a line `partition number offset`, so that verify_consumption.py can say
whether the broker kept its word. Ends after --records, or, with --until-stdin-closes, when its
standard input is closed; either way it waits until everything sent is acknowledged.

Needs confluent-kafka (pip install confluent-kafka).
"""

import argparse
import select
import sys
import time

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

RECORDS_BETWEEN_POLLS = 500


class Acknowledgements:
    """Counts what was acknowledged, and notes it in a file for who asks later."""

    def __init__(self, path):
        self.count = 0
        self.failed = []
        self.file = open(path, "a", encoding="ascii") if path else None

    def on_delivery(self, error, message):
        if error is not None:
            self.failed.append(f"{message.partition()}:{message.key().decode()}: {error}")
            return
        self.count += 1
        if self.file:
            number = message.key().decode()
            self.file.write(f"{message.partition()} {number} {message.offset()}\n")

    def flush(self):
        if self.file:
            self.file.flush()


def main():
    arguments = parse_arguments()
    create_topic(arguments)
    acknowledgements = Acknowledgements(arguments.acked)
    producer = Producer(producer_settings(arguments))
    started = time.monotonic()
    produce(arguments, producer, acknowledgements)
    unsent = producer.flush(arguments.patience)
    acknowledgements.flush()
    seconds = time.monotonic() - started
    rate = acknowledgements.count / seconds
    print(f"acknowledged {acknowledgements.count} records in {seconds:.1f} s, {rate:,.0f} a second")
    if unsent or acknowledgements.failed:
        print(f"{unsent} unacknowledged, {len(acknowledgements.failed)} failed:", file=sys.stderr)
        print("\n".join(acknowledgements.failed[:20]), file=sys.stderr)
        return 1
    return 0


def produce(arguments, producer, acknowledgements):
    filler = b"." * arguments.size
    for number in range(sys.maxsize):
        sent = number * arguments.partitions
        if arguments.records is not None and sent >= arguments.records:
            return
        for partition in range(arguments.partitions):
            send(producer, arguments.topic, partition, number, filler, acknowledgements)
        if number % RECORDS_BETWEEN_POLLS == 0:
            producer.poll(0)
            acknowledgements.flush()
            if arguments.until_stdin_closes and is_closed(sys.stdin):
                return


def send(producer, topic, partition, number, filler, acknowledgements):
    while True:
        try:
            producer.produce(
                topic,
                key=str(number),
                value=filler,
                partition=partition,
                on_delivery=acknowledgements.on_delivery,
            )
            return
        except BufferError:  # the producer's own queue is full: let it work
            producer.poll(0.05)
            acknowledgements.flush()


def create_topic(arguments):
    settings = dict(setting.split("=", 1) for setting in arguments.topic_config)
    topic = NewTopic(arguments.topic, arguments.partitions, 1, config=settings)
    admin = AdminClient({"bootstrap.servers": arguments.bootstrap_server})
    try:
        admin.create_topics([topic])[arguments.topic].result()
    except KafkaException as error:
        if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
            raise


def producer_settings(arguments):
    settings = {
        "bootstrap.servers": arguments.bootstrap_server,
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 5,
        "compression.type": arguments.compression,
        # The broker may be down for a while: wait for it and try again.
        "message.timeout.ms": int(arguments.patience * 1000),
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
        "retry.backoff.ms": 20,
        "retry.backoff.max.ms": 200,
        "log_level": 3,
        "error_cb": on_error,
    }
    settings.update(setting.split("=", 1) for setting in arguments.config)
    return settings


def on_error(error):
    # Lost connections come and go; a fatal error ends an idempotent producer for good.
    if error.fatal():
        print(f"fatal: {error}", file=sys.stderr, flush=True)


def is_closed(stdin):
    readable, _, _ = select.select([stdin], [], [], 0)
    return bool(readable) and not stdin.buffer.read1(4096)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bootstrap-server", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="bulk")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--size", type=int, default=100, help="bytes in each value")
    parser.add_argument("--records", type=int, help="how many; without it, without end")
    parser.add_argument("--until-stdin-closes", action="store_true")
    parser.add_argument("--acked", help="file that gets a line for each acknowledgement")
    parser.add_argument("--compression", default="none")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds to wait for acks")
    parser.add_argument("--config", action="append", default=[], help="librdkafka key=value")
    parser.add_argument("--topic-config", action="append", default=[], help="topic key=value")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
