"""What an asynchronous Python service does with aiokafka."""

import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from records import BURST, PARTITIONS, PATIENCE_SECONDS, SEGMENT_BYTES
from records import Record, at, check, equal, written

TOPIC = "aiokafka"


class Program:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        self.written = 0  # records in each partition

    async def run(self):
        await self.admin.start()
        await self.creates_the_topic()
        await self.produces_in_every_way()
        await self.reads_everything()
        await self.finds_offsets_by_timestamp()
        await self.starts_at_the_end()
        await self.alters_settings()
        await self.deletes_records()
        await self.adds_partitions()
        await self.deletes_and_creates_again()
        await self.admin.close()

    async def creates_the_topic(self):
        topic = NewTopic(TOPIC, PARTITIONS, 1, topic_configs={"segment.bytes": SEGMENT_BYTES})
        equal("created", "NoError", await self.creates(topic))
        equal("created twice", "TopicAlreadyExistsError", await self.creates(topic))
        equal("topics", [TOPIC], await self.admin.list_topics())
        equal("partitions", PARTITIONS, await self.partitions())

    async def creates(self, topic):
        answer = await self.admin.create_topics([topic])
        return for_code(answer.topic_errors[0][1]).__name__

    async def partitions(self):
        topics = await self.admin.describe_topics([TOPIC])
        return len(topics[0]["partitions"])

    async def produces_in_every_way(self):
        for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
            for acks in [0, 1, "all"]:
                await self.produces(compression_type=codec, acks=acks)
            await self.produces(compression_type=codec, enable_idempotence=True)

    async def produces(self, **settings):
        numbers = range(self.written, self.written + BURST)
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5, **settings)
        async with producer:
            sent = [(n, await send(producer, p, n)) for n in numbers for p in range(PARTITIONS)]
            for number, future in sent:
                metadata = await asyncio.wait_for(future, PATIENCE_SECONDS)
                if settings.get("acks") != 0:
                    equal(f"offset acknowledged with {settings}", number, metadata.offset)
        self.written += BURST
        # Without acknowledgements, this is when the next producer comes behind this one.
        deadline = time.monotonic() + PATIENCE_SECONDS
        async with self.consumer() as consumer:
            partitions = [TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)]
            while set((await consumer.end_offsets(partitions)).values()) != {self.written}:
                assert time.monotonic() < deadline, f"everything sent with {settings} is there"

    def consumer(self):
        return AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=None,
            auto_offset_reset="none",
            fetch_max_wait_ms=50,
        )

    async def reads_everything(self):
        for partition in range(PARTITIONS):
            await self.reads(partition, 0, self.written)

    async def reads(self, partition, offset, end):
        """Consumes one partition from an offset up to another."""
        async with self.consumer() as consumer:
            consumer.assign([TopicPartition(TOPIC, partition)])
            consumer.seek(TopicPartition(TOPIC, partition), offset)
            await expect(consumer, partition, offset, end)

    async def finds_offsets_by_timestamp(self):
        partition = TopicPartition(TOPIC, 2)
        async with self.consumer() as consumer:
            for number in [0, 1, 99, 100, 1_234, self.written - 1]:
                times = await consumer.offsets_for_times({partition: at(number) - 500})
                found = times[partition]
                equal("offset by timestamp", (number, at(number)), (found.offset, found.timestamp))
            times = await consumer.offsets_for_times({partition: at(self.written)})
            equal("offset after the last timestamp", None, times[partition])
        await self.reads(2, 1_234, self.written)

    async def starts_at_the_end(self):
        partition = TopicPartition(TOPIC, 1)
        async with self.consumer() as consumer:
            consumer.assign([partition])
            await consumer.seek_to_end(partition)
            equal("position", self.written, await consumer.position(partition))
            await self.produces()
            await expect(consumer, 1, self.written - BURST, self.written)

    async def alters_settings(self):
        equal("segment.bytes", SEGMENT_BYTES, await self.setting("segment.bytes"))
        equal("max.message.bytes", "1048588", await self.setting("max.message.bytes"))
        # This request names every setting that shall be there, and takes back the others.
        await self.alters({"segment.bytes": "300000", "max.message.bytes": "2000000"})
        equal("segment.bytes", "300000", await self.setting("segment.bytes"))
        equal("max.message.bytes", "2000000", await self.setting("max.message.bytes"))
        await self.alters({"segment.bytes": "300000"})
        equal("max.message.bytes by default", "1048588", await self.setting("max.message.bytes"))
        await self.alters({"no.such.setting": "1"}, "InvalidConfigurationError")

    async def alters(self, settings, expected="NoError"):
        resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC, settings)
        answers = await self.admin.alter_configs([resource])
        equal(f"altered {settings}", expected, for_code(answers[0].resources[0][0]).__name__)

    async def setting(self, name):
        resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC, {name: None})
        answers = await self.admin.describe_configs([resource])
        code, message, _, _, settings = answers[0].resources[0][:5]
        equal(f"described: {message}", "NoError", for_code(code).__name__)
        equal("settings described", [name], [setting[0] for setting in settings])
        return settings[0][1]

    async def deletes_records(self):
        partition = TopicPartition(TOPIC, 0)
        deleted = await self.admin.delete_records({partition: RecordsToDelete(150)})
        equal("low watermark", {partition: 150}, deleted)
        async with self.consumer() as consumer:
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            await expect(consumer, 0, 150, self.written)

    async def adds_partitions(self):
        await self.admin.create_partitions({TOPIC: NewPartitions(PARTITIONS + 2)})
        equal("partitions", PARTITIONS + 2, await self.partitions())
        await self.writes_the_first_record(PARTITIONS + 1)

    async def deletes_and_creates_again(self):
        equal("deleted", "NoError", await self.deletes())
        equal("deleted twice", "UnknownTopicOrPartitionError", await self.deletes())
        equal("created again", "NoError", await self.creates(NewTopic(TOPIC, 1, 1)))
        await self.writes_the_first_record(0)

    async def deletes(self):
        answer = await self.admin.delete_topics([TOPIC])
        return for_code(answer.topic_error_codes[0][1]).__name__

    async def writes_the_first_record(self, number):
        """Writes one record to an empty partition, and reads it back."""
        partition = TopicPartition(TOPIC, number)
        async with self.consumer() as consumer:
            end = await consumer.end_offsets([partition])
            equal("end of an empty partition", {partition: 0}, end)
            async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
                metadata = await (await send(producer, number, 0))
                equal("first offset", 0, metadata.offset)
            await self.reads(number, 0, 1)
            equal("end", {partition: 1}, await consumer.end_offsets([partition]))


async def send(producer, partition, number):
    record = written(partition, number)
    return await producer.send(
        TOPIC,
        key=record.key,
        value=record.value,
        headers=record.headers,
        partition=partition,
        timestamp_ms=record.timestamp,
    )


async def expect(consumer, partition, offset, end):
    """Reads the records from one offset up to another."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while offset < end:
        assert time.monotonic() < deadline, f"partition {partition}: {offset} of {end} in time"
        for records in (await consumer.getmany(timeout_ms=1_000)).values():
            for r in records:
                seen = Record(r.offset, r.timestamp, r.key, r.value, list(r.headers))
                check(partition, offset, seen)
                offset += 1
    equal("records read", end, offset)


async def main():
    await Program(sys.argv[1]).run()
    print("all good")


asyncio.run(main())
