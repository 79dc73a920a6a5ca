"""What services do with consumer groups, through confluent-kafka (librdkafka)."""

import sys
import time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer
from confluent_kafka import TopicPartition

from common import PATIENCE_SECONDS, admin, create_topic, fails_with

PARTITIONS = 6
RECORDS = 600


class Member:
    """A consumer that remembers what it got and what it was told to give back."""

    def __init__(self, bootstrap, group, topics, **config):
        self.consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                **config,
            }
        )
        self.got = []
        self.revoked = []
        self.consumer.subscribe(topics, on_revoke=self.on_revoke)

    def on_revoke(self, consumer, partitions):
        self.revoked.append({p.partition for p in partitions})

    def poll(self, seconds=0.05):
        message = self.consumer.poll(seconds)
        if message is None:
            return
        if message.error():
            raise KafkaException(message.error())
        self.got.append((message.topic(), message.partition(), message.offset()))

    def owns(self):
        return {(p.topic, p.partition) for p in self.consumer.assignment()}

    def close(self):
        self.consumer.close()


def until(what, members, holds):
    """Polls all members until `holds`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"{what}: {[sorted(m.owns()) for m in members]}"
        for member in members:
            member.poll()


def share(members, count):
    """Whether the members own `count` partitions together, and none of them twice."""
    owned = [partition for member in members for partition in member.owns()]
    return len(owned) == len(set(owned)) == count and all(m.owns() for m in members)


def produce(bootstrap, topic, count=RECORDS):
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(count):
        producer.produce(topic, str(number), partition=number % PARTITIONS)
    assert producer.flush(PATIENCE_SECONDS) == 0


def all_of(topic, count=RECORDS):
    return sorted((topic, n % PARTITIONS, n // PARTITIONS) for n in range(count))


def committed(bootstrap, group):
    client = admin(bootstrap)  # named, because it must outlive what it promised
    future = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    found = future[group].result(PATIENCE_SECONDS).topic_partitions
    return {(p.topic, p.partition): p.offset for p in found}


def members_come_and_go(bootstrap, strategy):
    """Eager or cooperative: every record is consumed once, whoever joins, leaves or dies."""
    topic = f"shared-{strategy}"
    create_topic(bootstrap, topic, PARTITIONS)
    produce(bootstrap, topic)
    config = {"partition.assignment.strategy": strategy}
    first = Member(bootstrap, topic, [topic], **config)
    until("the first alone", [first], lambda: len(first.got) == RECORDS)
    assert sorted(first.got) == all_of(topic)
    first.consumer.commit(asynchronous=False)
    assert set(committed(bootstrap, topic).values()) == {RECORDS // PARTITIONS}
    before = first.owns()

    second = Member(bootstrap, topic, [topic], **config)
    until("two share", [first, second], lambda: share([first, second], PARTITIONS))
    if strategy == "cooperative-sticky":
        kept = before & first.owns()
        assert len(kept) == PARTITIONS // 2, "a cooperative rebalance takes no more than it must"
    assert not second.got, "what was committed is not consumed again"

    second.close()
    until("the second left", [first], lambda: share([first], PARTITIONS))
    first.close()
    third = Member(bootstrap, topic, [topic], **config)
    until("the third alone", [third], lambda: share([third], PARTITIONS))
    produce(bootstrap, topic, PARTITIONS)
    until("only what is new", [third], lambda: len(third.got) >= PARTITIONS)
    expected = {(topic, p, RECORDS // PARTITIONS) for p in range(PARTITIONS)}
    assert set(third.got) == expected, third.got
    third.close()


def a_static_member_comes_back_without_a_rebalance(bootstrap):
    topic = "static"
    create_topic(bootstrap, topic, PARTITIONS)
    config = {"session.timeout.ms": 30000}
    members = [
        Member(bootstrap, topic, [topic], **config, **{"group.instance.id": f"instance-{n}"})
        for n in range(2)
    ]
    until("two share", members, lambda: share(members, PARTITIONS))
    stayed, revoked = members[0], len(members[0].revoked)
    owned = members[1].owns()
    members[1].close()  # a static member does not leave
    back = Member(bootstrap, topic, [topic], **config, **{"group.instance.id": "instance-1"})
    until("it is back", [stayed, back], lambda: back.owns())
    assert back.owns() == owned, "it gets what it had"
    assert len(stayed.revoked) == revoked, "nobody else notices"
    back.close()
    stayed.close()


def a_pattern_finds_topics_that_come_later(bootstrap):
    create_topic(bootstrap, "pattern-a", 1)
    config = {"topic.metadata.refresh.interval.ms": 500}
    member = Member(bootstrap, "patterns", ["^pattern-.*"], **config)
    until("the first topic", [member], lambda: member.owns() == {("pattern-a", 0)})
    create_topic(bootstrap, "pattern-b", 1)
    both = {("pattern-a", 0), ("pattern-b", 0)}
    until("the second topic", [member], lambda: member.owns() == both)
    member.close()


def offsets_are_kept_moved_and_forgotten(bootstrap):
    topic = "moved"
    create_topic(bootstrap, topic, PARTITIONS)
    produce(bootstrap, topic)
    client = admin(bootstrap)
    wanted = [TopicPartition(topic, p, 10 + p) for p in range(PARTITIONS)]
    altered = client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(topic, wanted)])
    altered[topic].result(PATIENCE_SECONDS)
    assert committed(bootstrap, topic) == {(topic, p): 10 + p for p in range(PARTITIONS)}

    member = Member(bootstrap, topic, [topic])
    rest = RECORDS - sum(10 + p for p in range(PARTITIONS))
    until("the rest", [member], lambda: len(member.got) == rest)
    member.consumer.seek(TopicPartition(topic, 0, 90))
    member.got.clear()
    until("what was sought", [member], lambda: len(member.got) == RECORDS // PARTITIONS - 90)
    member.consumer.commit(offsets=[TopicPartition(topic, 0, 5, "words")], asynchronous=False)
    found = member.consumer.committed([TopicPartition(topic, 0)], PATIENCE_SECONDS)[0]
    assert (found.offset, found.metadata) == (5, "words")

    described = client.describe_consumer_groups([topic])[topic].result(PATIENCE_SECONDS)
    assert described.state.name == "STABLE" and len(described.members) == 1, described.state
    assert described.members[0].host == "/127.0.0.1", described.members[0].host
    fails_with("NON_EMPTY_GROUP", client.delete_consumer_groups([topic])[topic])
    member.close()
    listed = client.list_consumer_groups().result(PATIENCE_SECONDS)
    assert topic in [group.group_id for group in listed.valid] and not listed.errors
    client.delete_consumer_groups([topic])[topic].result(PATIENCE_SECONDS)
    assert committed(bootstrap, topic) == {}


def a_killed_member_is_missed_after_its_session(bootstrap):
    import subprocess

    topic = "killed"
    create_topic(bootstrap, topic, PARTITIONS)
    arguments = [sys.executable, __file__, bootstrap, "--member", topic]
    other = subprocess.Popen(arguments)
    member = Member(bootstrap, topic, [topic])
    until("two share", [member], lambda: len(member.owns()) == PARTITIONS // 2)
    other.kill()
    other.wait()
    until("it is missed", [member], lambda: share([member], PARTITIONS))
    member.close()


def stays(bootstrap, topic):
    member = Member(bootstrap, topic, [topic])
    while True:
        member.poll(1.0)


def main(bootstrap, *rest):
    if rest:
        stays(bootstrap, rest[1])
    for strategy in ["range", "roundrobin", "cooperative-sticky"]:
        members_come_and_go(bootstrap, strategy)
    a_static_member_comes_back_without_a_rebalance(bootstrap)
    a_pattern_finds_topics_that_come_later(bootstrap)
    offsets_are_kept_moved_and_forgotten(bootstrap)
    a_killed_member_is_missed_after_its_session(bootstrap)
    print("all good")


main(*sys.argv[1:])
