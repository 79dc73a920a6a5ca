#!/usr/bin/env python3
"""Runs a broker for long under mixed load, kills it once a minute, and checks that nothing is lost.

    scripts/soak.py --binary target/release/tidelog --seconds 3600

* A stock idempotent producer writes numbered records to four partitions; a stock consumer reads
  along. The numbers must come once, in order, at the offsets that were acknowledged.
* Beside it: a topic with compressed batches that retention deletes from, topics that are created,
  altered and deleted, records that are deleted, searches by timestamp.
* Once a minute `kill -9`, at a random moment. Memory, descriptors, disk and the time until the
  broker serves again are printed a minute a line, and must not grow.

Needs confluent-kafka (pip install confluent-kafka), and Linux.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

PARTITIONS = 4
NUMBERED, RETAINED = "soak-numbered", "soak-retained"
SEGMENT_BYTES = str(4 << 20)
RETENTION_BYTES = str(64 << 20)
READY_SECONDS_MAX = 30
# How many segments are open depends on how long the broker has run since it was killed.
SEGMENTS_MAX = 2 * PARTITIONS * (int(RETENTION_BYTES) // int(SEGMENT_BYTES))
SLACK = {"MB resident": 16, "descriptors": SEGMENTS_MAX, "MB on disk": 16}


def main():
    arguments = parse_arguments()
    random.seed(arguments.seed)
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tidelog-soak-", dir=arguments.dir) as directory:
        return Soak(arguments, Path(directory)).run()


class Broker:
    """The process under test: its ports and directory stay, the process comes and goes."""

    def __init__(self, binary, directory):
        self.port, self.admin = free_port(), free_port()
        self.directory, self.log = directory / "data", open(directory / "log", "ab")
        self.command = [
            binary, "serve", "--data-dir", str(self.directory),
            "--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}",
            "--set", "log.retention.check.interval.ms=5000",
        ]
        self.process = None

    def start(self):
        """Returns the seconds until the broker served."""
        started = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        while not self.is_ready():
            if self.process.poll() is not None:
                raise SystemExit(f"the broker ended with {self.process.returncode}")
            if time.monotonic() - started > READY_SECONDS_MAX:
                raise SystemExit("the broker does not come up")
            time.sleep(0.005)
        return time.monotonic() - started

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=1):
                return True
        except OSError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def resident_mb(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) // 1024
        return 0

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def disk_mb(self):
        total = 0
        for folder, _, names in os.walk(self.directory):
            for name in names:
                try:
                    total += os.stat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    pass  # retention was quicker
        return total >> 20


class Soak:
    def __init__(self, arguments, directory):
        self.arguments = arguments
        self.broker = Broker(arguments.binary, directory)
        self.stop = threading.Event()
        self.problems = []
        self.acknowledged = [0] * PARTITIONS
        self.consumed = [0] * PARTITIONS
        self.churned = 0

    def run(self):
        self.broker.start()
        self.create_topics()
        loads = [self.produce_numbered, self.consume_numbered, self.produce_retained, self.churn]
        threads = [threading.Thread(target=self.guard, args=(load,)) for load in loads]
        for thread in threads:
            thread.start()
        samples = self.kill_every_minute()
        self.stop.set()
        for thread in threads:
            thread.join()
        self.broker.kill()
        return self.verdict(samples)

    def guard(self, load):
        try:
            load()
        except Exception as error:  # a thread's end must end the run
            self.problem(f"{load.__name__}: {error!r}")

    def problem(self, text):
        self.problems.append(text)
        print("PROBLEM", text, flush=True)
        self.stop.set()

    def kill_every_minute(self):
        samples, deadline = [], time.monotonic() + self.arguments.seconds
        while time.monotonic() < deadline and not self.stop.is_set():
            self.stop.wait(random.uniform(0.5, 1.5) * self.arguments.kill_seconds)
            if self.broker.process.poll() is not None:
                self.problem(f"the broker ended by itself: {self.broker.process.returncode}")
                break
            sample = [self.broker.resident_mb(), self.broker.descriptors(), self.broker.disk_mb()]
            self.broker.kill()
            sample.append(self.broker.start())
            samples.append(sample)
            resident, descriptors, disk, seconds = sample
            print(
                f"kill {len(samples)}: {resident} MB resident, {descriptors} descriptors, "
                f"{disk} MB on disk, served again after {seconds:.2f} s; "
                f"{sum(self.acknowledged)} acknowledged, {sum(self.consumed)} consumed, "
                f"{self.churned} topics come and gone",
                flush=True,
            )
        return samples

    def settings(self, **more):
        return {"bootstrap.servers": f"127.0.0.1:{self.broker.port}", **more}

    def create_topics(self):
        admin = AdminClient(self.settings())
        config = {"segment.bytes": SEGMENT_BYTES, "retention.bytes": RETENTION_BYTES}
        topics = [NewTopic(name, PARTITIONS, 1, config=config) for name in (NUMBERED, RETAINED)]
        for created in admin.create_topics(topics).values():
            created.result()

    def produce_numbered(self):
        producer = Producer(self.settings(**{
            "enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 120000,
        }))
        filler = b"." * 200
        number, started = 0, time.monotonic()
        while not self.stop.is_set():
            for partition in range(PARTITIONS):
                self.send(producer, partition, number, filler)
            number += 1
            ahead = number * PARTITIONS / self.arguments.rate - (time.monotonic() - started)
            producer.poll(max(ahead, 0))
        if producer.flush(120):
            self.problem("records were never acknowledged")

    def send(self, producer, partition, number, filler):
        while True:
            try:
                producer.produce(
                    NUMBERED, filler, str(number), partition, on_delivery=self.on_delivery
                )
                return
            except BufferError:
                producer.poll(0.1)

    def on_delivery(self, error, message):
        partition, number = message.partition(), int(message.key())
        if error is not None:
            self.problem(f"partition {partition}: {number} failed: {error}")
        elif message.offset() != number:
            self.problem(f"partition {partition}: {number} acknowledged at {message.offset()}")
        else:
            self.acknowledged[partition] = max(self.acknowledged[partition], number + 1)

    def consume_numbered(self):
        consumer = Consumer(self.settings(**{
            "group.id": "none", "enable.auto.commit": False, "auto.offset.reset": "error",
        }))
        consumer.assign([TopicPartition(NUMBERED, each, 0) for each in range(PARTITIONS)])
        finish = None
        while finish is None or time.monotonic() < finish:
            if self.stop.is_set() and finish is None:
                finish = time.monotonic() + 60
            if finish and all(c >= a for c, a in zip(self.consumed, self.acknowledged)):
                break
            for message in consumer.consume(1000, 0.2):
                self.on_message(message)
        consumer.close()
        for partition, (consumed, acknowledged) in enumerate(
            zip(self.consumed, self.acknowledged)
        ):
            if consumed < acknowledged:
                self.problem(f"partition {partition}: {acknowledged - consumed} records lost")

    def on_message(self, message):
        error = message.error()
        if error is not None:
            if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                self.problem(f"partition {message.partition()}: {error}")
            return  # anything else is retried by the client
        partition, expected = message.partition(), self.consumed[message.partition()]
        found = (message.offset(), int(message.key()))
        if found != (expected, expected):
            self.problem(f"partition {partition}: {found} where {expected} was expected")
        self.consumed[partition] = expected + 1

    def produce_retained(self):
        producer = Producer(self.settings(**{
            "compression.type": "lz4", "linger.ms": 20, "acks": 1, "message.timeout.ms": 120000,
        }))
        while not self.stop.is_set():
            for partition in range(PARTITIONS):
                try:
                    producer.produce(RETAINED, random.randbytes(1000), partition=partition)
                except BufferError:
                    producer.poll(0.1)
            producer.poll(PARTITIONS / self.arguments.rate)
        producer.flush(120)

    def churn(self):
        """Administers; a call that a kill cut short is tried again with the next topic."""
        admin = AdminClient(self.settings(**{"socket.timeout.ms": 10000}))
        while not self.stop.is_set():
            name, done = f"soak-passing-{self.churned}", []
            for call in (self.create, self.alter, self.trim, self.search, self.delete):
                try:
                    call(admin, name)
                    done.append(call)
                except KafkaException as error:
                    # What was told to be there must be there, whatever was killed since.
                    is_unknown = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
                    is_lost = is_unknown and call == self.alter and self.create in done
                    if is_lost or not is_transient(error.args[0]):
                        self.problem(f"{call.__name__} {name}: {error}")
            self.churned += 1
            self.stop.wait(0.5)

    def create(self, admin, name):
        admin.create_topics([NewTopic(name, 3, 1)])[name].result()

    def alter(self, admin, name):
        entry = ConfigEntry(
            "retention.ms", str(random.randrange(1000, 10**9)),
            incremental_operation=AlterConfigOpType.SET,
        )
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
        for altered in admin.incremental_alter_configs([resource]).values():
            altered.result()

    def trim(self, admin, _):
        partition = TopicPartition(RETAINED, random.randrange(PARTITIONS), -1)
        for trimmed in admin.delete_records([partition]).values():
            trimmed.result()

    def search(self, admin, _):
        partition = TopicPartition(NUMBERED, random.randrange(PARTITIONS))
        spec = OffsetSpec.for_timestamp(int(time.time() * 1000) - 5000)
        for found in admin.list_offsets({partition: spec}).values():
            found.result()

    def delete(self, admin, name):
        admin.delete_topics([name])[name].result()

    def verdict(self, samples):
        for place, (what, slack) in enumerate(SLACK.items()):
            values = [sample[place] for sample in samples]
            half = len(values) // 2
            if half < 5:
                break
            # What still rises in the second half is a leak; the first half fills the bounds.
            before, after = sorted(values[half // 2 : half]), sorted(values[half:])
            middle = [each[len(each) // 2] for each in (before, after)]
            if middle[1] > middle[0] * 1.25 + slack:
                self.problem(f"{what} grew from {middle[0]} to {middle[1]}")
        report = {
            "kills": len(samples),
            "acknowledged": sum(self.acknowledged),
            "consumed": sum(self.consumed),
            "topics_come_and_gone": self.churned,
            "resident_mb": spread(samples, 0),
            "descriptors": spread(samples, 1),
            "disk_mb": spread(samples, 2),
            "seconds_to_serve": spread(samples, 3),
            "problems": self.problems,
        }
        print(json.dumps(report, indent=2))
        return 1 if self.problems else 0


def is_transient(error):
    """Whether a kill explains it: the client could not reach the broker, or asked twice."""
    return error.retriable() or error.code() in (
        KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN,
        KafkaError._NOENT,  # librdkafka's "No leaders found", while nobody answers it
        KafkaError.REQUEST_TIMED_OUT, KafkaError.TOPIC_ALREADY_EXISTS,
        KafkaError.FENCED_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC,
    )


def spread(samples, place):
    values = sorted(sample[place] for sample in samples)
    if not values:
        return None
    return {"least": values[0], "median": values[len(values) // 2], "most": values[-1]}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", required=True, help="the tidelog to run")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--kill-seconds", type=float, default=60, help="between two kills, about")
    parser.add_argument("--rate", type=float, default=4000, help="numbered records a second")
    parser.add_argument("--dir", help="where the data goes; the system's temporary directory")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
