"""Twenty members of one group at work while their broker is killed: until standard input closes.

What was committed is never taken back, what was produced is consumed, and no partition is assigned
twice in one generation. Prints a line of dots, one for each thousand offset commits.
"""

import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from common import admin, create_topic

MEMBERS = 20
PARTITIONS = 20
TOPIC = "work"
GROUP = "workers"
SETTLE_SECONDS = 90


class Work:
    """What all members know together."""

    def __init__(self):
        self.lock = threading.Lock()
        self.consumed = [set() for _ in range(PARTITIONS)]
        self.committed = [0] * PARTITIONS
        self.commits = 0
        self.mistakes = []
        self.is_over = threading.Event()

    def mistake(self, text):
        with self.lock:
            self.mistakes.append(text)
        self.is_over.set()

    def on_consumed(self, partition, offset):
        with self.lock:
            self.consumed[partition].add(offset)

    def on_committed(self, partition, offset):
        with self.lock:
            self.committed[partition] = max(self.committed[partition], offset)
            self.commits += 1
            if self.commits % 1000 == 0:
                print(".", end="", flush=True)

    def known(self, partition):
        with self.lock:
            return self.committed[partition]


def member(bootstrap, work, number):
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": GROUP,
            "client.id": f"member-{number}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 10000,
            "heartbeat.interval.ms": 500,
            "reconnect.backoff.max.ms": 500,
            "partition.assignment.strategy": "range",
        }
    )

    def on_assign(consumer, partitions):
        # Taken before the broker is asked: what others commit meanwhile only raises it.
        known = {p.partition: work.known(p.partition) for p in partitions}
        try:
            found = consumer.committed(partitions, timeout=20)
        except KafkaException:
            return  # the broker is down; the assignment goes with it
        for partition in found:
            offset = max(partition.offset, 0)
            if partition.error is None and offset < known[partition.partition]:
                work.mistake(f"{partition}: {known[partition.partition]} had been committed")

    consumer.subscribe([TOPIC], on_assign=on_assign)
    while not work.is_over.is_set():
        messages = consumer.consume(50, timeout=0.2)
        for message in messages:
            if message.error() is None:
                work.on_consumed(message.partition(), message.offset())
        if not any(message.error() is None for message in messages):
            continue
        try:
            for committed in consumer.commit(asynchronous=False):
                if committed.error is None:
                    work.on_committed(committed.partition, committed.offset)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.OFFSET_OUT_OF_RANGE:
                work.mistake(f"commit: {error}")
    consumer.close()


def producer(bootstrap, work, acked, wants_more):
    client = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})

    def on_delivery(error, message):
        if error is None:
            acked[message.partition()] = max(acked[message.partition()], message.offset())

    number = 0
    while wants_more():
        client.produce(TOPIC, str(number), partition=number % PARTITIONS, on_delivery=on_delivery)
        number += 1
        client.poll(0)
        if number % 100 == 0:
            time.sleep(0.01)
    if client.flush(SETTLE_SECONDS) > 0:
        work.mistake("what was produced was not acknowledged in time")


def check_assignment(client, work):
    """As the coordinator tells of the group, where it is stable."""
    try:
        described = client.describe_consumer_groups([GROUP])[GROUP].result(5)
    except Exception:  # the broker is down, or has not loaded the group
        return
    if described.state.name != "STABLE":
        return
    partitions = [
        p.partition for m in described.members for p in m.assignment.topic_partitions
    ]
    if len(partitions) != len(set(partitions)):
        work.mistake(f"assigned twice: {sorted(partitions)}")


def main(bootstrap):
    create_topic(bootstrap, TOPIC, PARTITIONS)
    work, acked = Work(), [-1] * PARTITIONS
    members = [
        threading.Thread(target=member, args=(bootstrap, work, n)) for n in range(MEMBERS)
    ]
    [m.start() for m in members]
    wants_more = threading.Event()
    wants_more.set()
    going = lambda: wants_more.is_set() and not work.is_over.is_set()
    produces = threading.Thread(target=producer, args=(bootstrap, work, acked, going))
    produces.start()
    stdin = threading.Thread(target=lambda: (sys.stdin.read(), wants_more.clear()), daemon=True)
    stdin.start()
    client = admin(bootstrap)
    while going():
        check_assignment(client, work)
        time.sleep(0.5)
    produces.join()

    deadline = time.monotonic() + SETTLE_SECONDS
    missing = lambda: {
        p: last + 1 - len(work.consumed[p])
        for p, last in enumerate(acked)
        if set(range(last + 1)) - work.consumed[p]
    }
    while missing() and not work.is_over.is_set() and time.monotonic() < deadline:
        time.sleep(0.2)
    left = missing()
    work.is_over.set()
    [m.join() for m in members]
    assert not work.mistakes, work.mistakes
    assert not left, f"acknowledged and not consumed, by partition: {left}"
    assert work.commits > 0, "nothing was committed"
    print(f"\n{sum(acked) + PARTITIONS} records, {work.commits} commits: all good")


main(sys.argv[1])
