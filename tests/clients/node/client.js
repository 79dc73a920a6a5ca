// What a Node service does with kafkajs. Its consumer knows nothing but groups, so that somebody
// else reads what this writes: `client.js produce START BOOTSTRAP`, then look, then `manage`.
"use strict";

const assert = require("node:assert/strict");
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka } = require("kafkajs");
const { logLevel } = require("kafkajs");
const lz4 = require("lz4js");
const snappy = require("kafkajs-snappy");
const { ZstdCodec } = require("zstd-codec");

const TOPIC = "kafkajs";
const PARTITIONS = 3;
const BURST = 100; // records that one producer writes to each partition
const AT_ONCE = 25;
const RECORDS = 5 * 4 * BURST; // five codecs, three ways of acks, and idempotent
const SEGMENT_BYTES = "65536"; // so that what is written spans several segment files

// `start` is the timestamp of the first record.
async function main(part, start, bootstrap) {
  const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.WARN });
  const admin = kafka.admin();
  await admin.connect();
  if (part === "produce") {
    await registerCodecs();
    await createsTheTopic(admin);
    await producesInEveryWay(kafka, admin, start);
    await findsOffsetsByTimestamp(admin, start);
  } else {
    await altersSettings(admin);
    await deletesRecords(admin);
    await addsPartitions(kafka, admin, start);
    await deletesAndCreatesAgain(kafka, admin, start);
  }
  await admin.disconnect();
  console.log("all good");
}

async function registerCodecs() {
  const zstd = await new Promise((resolve) => ZstdCodec.run(resolve));
  const simple = new zstd.Simple();
  CompressionCodecs[CompressionTypes.Snappy] = snappy;
  CompressionCodecs[CompressionTypes.LZ4] = codec(lz4.compress, lz4.decompress);
  CompressionCodecs[CompressionTypes.ZSTD] = codec(
    (bytes) => simple.compress(bytes),
    (bytes) => simple.decompress(bytes),
  );
}

function codec(compress, decompress) {
  return () => ({
    compress: async (encoder) => Buffer.from(compress(encoder.buffer)),
    decompress: async (buffer) => Buffer.from(decompress(buffer)),
  });
}

async function createsTheTopic(admin) {
  const topic = {
    topic: TOPIC,
    numPartitions: PARTITIONS,
    configEntries: [{ name: "segment.bytes", value: SEGMENT_BYTES }],
  };
  assert.equal(await admin.createTopics({ topics: [topic] }), true);
  assert.equal(await admin.createTopics({ topics: [topic] }), false, "it exists");
  assert.deepEqual(await admin.listTopics(), [TOPIC]);
  assert.equal(await partitions(admin), PARTITIONS);
}

async function partitions(admin) {
  const metadata = await admin.fetchTopicMetadata({ topics: [TOPIC] });
  return metadata.topics[0].partitions.length;
}

async function producesInEveryWay(kafka, admin, start) {
  let written = 0;
  for (const codec of ["None", "GZIP", "Snappy", "LZ4", "ZSTD"]) {
    const compression = CompressionTypes[codec];
    for (const [acks, idempotent] of [[0, false], [1, false], [-1, false], [-1, true]]) {
      const producer = kafka.producer({ idempotent });
      await producer.connect();
      for (const end = written + BURST; written < end; written += AT_ONCE) {
        const messages = [...Array(AT_ONCE * PARTITIONS).keys()].map((index) =>
          message(index % PARTITIONS, written + Math.floor(index / PARTITIONS), start),
        );
        const sent = await producer.send({ topic: TOPIC, acks, compression, messages });
        // Without acknowledgements nobody knows the offsets.
        const offsets = sent.map((answer) => answer.baseOffset);
        const expected = acks === 0 ? undefined : String(written);
        offsets.forEach((offset) => assert.equal(offset, expected, `${codec}, acks ${acks}`));
      }
      await producer.disconnect();
      // Without acknowledgements, this is when the next producer comes behind this one.
      await eventually(`${codec}, acks ${acks}: everything sent is there`, async () => {
        const bounds = await admin.fetchTopicOffsets(TOPIC);
        return bounds.every(({ high }) => Number(high) === written);
      });
    }
  }
  assert.equal(written, RECORDS);
}

// The record with this number, which is its offset.
function message(partition, number, start) {
  return {
    partition,
    key: `key-${partition}-${number}`,
    value: `value-${partition}-${number} `.repeat(number % 80), // now and then empty
    headers: { number: [String(number), "again"], empty: "" },
    timestamp: String(start + number * 1000),
  };
}

async function eventually(what, holds) {
  const deadline = Date.now() + 30_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, what);
  }
}

async function findsOffsetsByTimestamp(admin, start) {
  for (const number of [0, 1, 99, 100, 1234, RECORDS - 1]) {
    const found = await admin.fetchTopicOffsetsByTimestamp(TOPIC, start + number * 1000 - 500);
    const expected = [...Array(PARTITIONS).keys()].map((partition) => [partition, String(number)]);
    const seen = found.map(({ partition, offset }) => [partition, offset]).sort();
    assert.deepEqual(seen, expected, `offsets by timestamp ${number}`);
  }
}

async function altersSettings(admin) {
  assert.equal(await setting(admin, "segment.bytes"), SEGMENT_BYTES);
  assert.equal(await setting(admin, "max.message.bytes"), "1048588");
  // This request names every setting that shall be there, and takes back the others.
  await alters(admin, { "segment.bytes": "300000", "max.message.bytes": "2000000" });
  assert.equal(await setting(admin, "segment.bytes"), "300000");
  assert.equal(await setting(admin, "max.message.bytes"), "2000000");
  await alters(admin, { "segment.bytes": "300000" });
  assert.equal(await setting(admin, "max.message.bytes"), "1048588");
  await assert.rejects(alters(admin, { "no.such.setting": "1" }), { type: "INVALID_CONFIG" });
}

async function alters(admin, settings) {
  const configEntries = Object.entries(settings).map(([name, value]) => ({ name, value }));
  const resource = { type: ConfigResourceTypes.TOPIC, name: TOPIC, configEntries };
  await admin.alterConfigs({ validateOnly: false, resources: [resource] });
}

async function setting(admin, name) {
  const resource = { type: ConfigResourceTypes.TOPIC, name: TOPIC, configNames: [name] };
  const described = await admin.describeConfigs({ includeSynonyms: false, resources: [resource] });
  return described.resources[0].configEntries[0].configValue;
}

async function deletesRecords(admin) {
  const before = [{ partition: 0, offset: "150" }];
  await admin.deleteTopicRecords({ topic: TOPIC, partitions: before });
  const expected = { partition: 0, offset: String(RECORDS), high: String(RECORDS), low: "150" };
  assert.deepEqual(await bounds(admin, 0), expected);
}

async function bounds(admin, partition) {
  const offsets = await admin.fetchTopicOffsets(TOPIC);
  return offsets.find((offset) => offset.partition === partition);
}

async function addsPartitions(kafka, admin, start) {
  await admin.createPartitions({ topicPartitions: [{ topic: TOPIC, count: PARTITIONS + 2 }] });
  assert.equal(await partitions(admin), PARTITIONS + 2);
  await writesTheFirstRecord(kafka, admin, PARTITIONS + 1, start);
}

async function deletesAndCreatesAgain(kafka, admin, start) {
  await admin.deleteTopics({ topics: [TOPIC] });
  assert.deepEqual(await admin.listTopics(), []);
  await admin.createTopics({ topics: [{ topic: TOPIC, numPartitions: 1 }] });
  await writesTheFirstRecord(kafka, admin, 0, start);
}

// Writes one record to an empty partition.
async function writesTheFirstRecord(kafka, admin, partition, start) {
  const empty = { partition, offset: "0", high: "0", low: "0" };
  assert.deepEqual(await bounds(admin, partition), empty);
  const producer = kafka.producer();
  await producer.connect();
  const messages = [message(partition, 1, start)];
  const sent = await producer.send({ topic: TOPIC, messages });
  assert.equal(sent[0].baseOffset, "0", "first offset");
  await producer.disconnect();
  assert.equal((await bounds(admin, partition)).high, "1");
}

const [part, start, bootstrap] = process.argv.slice(2);
main(part, Number(start), bootstrap).catch((error) => {
  console.error(error);
  process.exitCode = 1;
  process.exit();
});
