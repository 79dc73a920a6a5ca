package clients;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What a Java service does on its first day, with the defaults it would have. */
public final class Stock {
    private static final String TOPIC = "java";
    private static final int PARTITIONS = 3;
    /** How many records one producer writes to each partition. */
    private static final int BURST = 100;
    /** Makes what is written span several segment files. */
    private static final String SEGMENT_BYTES = "262144";
    private static final String MAX_MESSAGE_BYTES_BY_DEFAULT = "1048588";
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    private final long start = System.currentTimeMillis() - 3_600_000;
    private final String bootstrap;
    private final Admin admin;
    /** How many records each partition has. */
    private int written = 0;

    private Stock(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    public static void main(String[] args) throws Exception {
        Stock stock = new Stock(args[0]);
        stock.describesTheCluster();
        stock.createsTheTopic();
        for (String compression : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            for (String acks : List.of("0", "1", "all")) {
                stock.produces(compression, acks, false);
            }
            stock.produces(compression, "all", true);
        }
        stock.readsEverything();
        stock.findsOffsetsByTimestamp();
        stock.startsAtTheEnd();
        stock.followsAnAssignmentThatChanges();
        stock.describesWhatItWrote();
        stock.altersSettings();
        stock.deletesRecords();
        stock.addsPartitions();
        stock.deletesAndCreatesAgain();
        stock.admin.close();
        System.out.println("all good");
    }

    private void describesTheCluster() throws Exception {
        var cluster = admin.describeCluster();
        equal("nodes", 1, cluster.nodes().get().size());
        equal("characters of the cluster id", 22, cluster.clusterId().get().length());
        check(cluster.controller().get() != null, "a controller");
    }

    private void createsTheTopic() throws Exception {
        NewTopic topic = new NewTopic(TOPIC, Optional.of(PARTITIONS), Optional.empty())
                .configs(Map.of("segment.bytes", SEGMENT_BYTES));
        var created = admin.createTopics(List.of(topic));
        created.all().get();
        equal("partitions created", PARTITIONS, created.numPartitions(TOPIC).get());
        TopicDescription described = describe();
        equal("partitions described", PARTITIONS, described.partitions().size());
        equal("topic id", created.topicId(TOPIC).get(), described.topicId());
        check(described.partitions().get(2).leader() != null, "a leader");
        equal("topics", Set.of(TOPIC), admin.listTopics().names().get());
        fails(TopicExistsException.class, admin.createTopics(List.of(topic)).all());
        NewTopic wrong = new NewTopic("wrong", 1, (short) 1);
        wrong.configs(Map.of("no.such.setting", "1"));
        fails(InvalidConfigurationException.class, admin.createTopics(List.of(wrong)).all());
        fails(UnknownTopicOrPartitionException.class,
                admin.describeTopics(List.of("wrong")).allTopicNames());
    }

    private TopicDescription describe() throws Exception {
        return admin.describeTopics(List.of(TOPIC)).allTopicNames().get().get(TOPIC);
    }

    private void produces(String compression, String acks, boolean idempotent) throws Exception {
        String how = compression + ", acks=" + acks + (idempotent ? ", idempotent" : "");
        Properties properties = producerProperties();
        properties.put("acks", acks);
        properties.put("enable.idempotence", idempotent);
        properties.put("compression.type", compression);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = new KafkaProducer<byte[], byte[]>(properties)) {
            for (int number = written; number < written + BURST; number++) {
                for (int partition = 0; partition < PARTITIONS; partition++) {
                    sent.add(producer.send(record(partition, number)));
                }
            }
        }
        for (int index = 0; index < sent.size(); index++) {
            long offset = sent.get(index).get().offset();
            if (!acks.equals("0")) {
                equal(how + ": offset", (long) written + index / PARTITIONS, offset);
            }
        }
        written += BURST;
        // Without acknowledgements, this is when the next producer comes behind this one.
        Instant deadline = Instant.now().plus(PATIENCE);
        while (!List.of(end(0), end(1), end(2)).stream().allMatch(end -> end == written)) {
            check(Instant.now().isBefore(deadline), how + ": everything sent is there");
        }
    }

    private long end(int partition) throws Exception {
        return offset(partition, OffsetSpec.latest());
    }

    private long offset(int partition, OffsetSpec at) throws Exception {
        TopicPartition asked = new TopicPartition(TOPIC, partition);
        return admin.listOffsets(Map.of(asked, at)).partitionResult(asked).get().offset();
    }

    private void readsEverything() {
        for (int partition = 0; partition < PARTITIONS; partition++) {
            reads(partition, 0);
        }
        reads(1, 777);
    }

    /** Consumes a partition from an offset to its end. */
    private void reads(int number, int offset) {
        TopicPartition partition = new TopicPartition(TOPIC, number);
        try (var consumer = new KafkaConsumer<byte[], byte[]>(consumerProperties())) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, offset);
            expect(consumer, number, offset);
        }
    }

    private void expect(KafkaConsumer<byte[], byte[]> consumer, int partition, int offset) {
        int next = offset;
        Instant deadline = Instant.now().plus(PATIENCE);
        while (next < written) {
            check(Instant.now().isBefore(deadline), partition + ": " + next + " in time");
            for (var record : consumer.poll(Duration.ofMillis(500))) {
                compare(partition, next, record);
                next++;
            }
        }
        equal("records read", written, next);
    }

    private void compare(int partition, int number, ConsumerRecord<byte[], byte[]> record) {
        String at = "partition " + partition + ", offset " + number;
        ProducerRecord<byte[], byte[]> expected = record(partition, number);
        equal(at, (long) number, record.offset());
        equal(at + ": timestamp", expected.timestamp(), record.timestamp());
        check(Arrays.equals(expected.key(), record.key()), at + ": its key");
        check(Arrays.equals(expected.value(), record.value()), at + ": its value");
        equal(at + ": headers", List.of(expected.headers().toArray()),
                List.of(record.headers().toArray()));
    }

    private void findsOffsetsByTimestamp() throws Exception {
        TopicPartition partition = new TopicPartition(TOPIC, 2);
        try (var consumer = new KafkaConsumer<byte[], byte[]>(consumerProperties())) {
            for (int number : new int[] {0, 1, 99, 100, 1_234, written - 1}) {
                OffsetAndTimestamp found = consumer
                        .offsetsForTimes(Map.of(partition, at(number) - 500))
                        .get(partition);
                equal("offset by timestamp", (long) number, found.offset());
                equal("timestamp found", at(number), found.timestamp());
                reads(2, number);
            }
            var none = consumer.offsetsForTimes(Map.of(partition, at(written)));
            check(none.get(partition) == null, "no offset after the last timestamp");
            equal("beginning", Map.of(partition, 0L), consumer.beginningOffsets(Set.of(partition)));
            equal("end", Map.of(partition, (long) written), consumer.endOffsets(Set.of(partition)));
        }
        equal("offset of the newest", written - 1L, offset(2, OffsetSpec.maxTimestamp()));
    }

    private void startsAtTheEnd() throws Exception {
        TopicPartition partition = new TopicPartition(TOPIC, 1);
        try (var consumer = new KafkaConsumer<byte[], byte[]>(consumerProperties())) {
            consumer.assign(List.of(partition));
            consumer.seekToEnd(List.of(partition));
            int end = written;
            equal("position", (long) end, consumer.position(partition));
            produces("lz4", "all", true);
            expect(consumer, 1, end);
        }
    }

    /** One consumer, and so one fetch session, over many partitions of which few have news. */
    private void followsAnAssignmentThatChanges() throws Exception {
        String name = "java-many";
        int partitions = 20;
        admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1))).all().get();
        List<TopicPartition> all = IntStream.range(0, partitions)
                .mapToObj(partition -> new TopicPartition(name, partition)).toList();
        try (var producer = new KafkaProducer<byte[], byte[]>(producerProperties());
                var consumer = new KafkaConsumer<byte[], byte[]>(consumerProperties())) {
            for (int round = 0; round < 60; round++) {
                // All, then the first half, then all again; each round one partition has news.
                List<TopicPartition> assigned = round / 20 == 1 ? all.subList(0, 10) : all;
                if (round % 20 == 0) {
                    consumer.assign(assigned);
                    consumer.seekToEnd(assigned);
                    assigned.forEach(consumer::position);
                }
                TopicPartition news = all.get(round * 7 % assigned.size());
                byte[] value = bytes(Integer.toString(round));
                producer.send(new ProducerRecord<>(name, news.partition(), null, value));
                producer.flush();
                List<String> seen = new ArrayList<>();
                Instant deadline = Instant.now().plus(PATIENCE);
                while (seen.isEmpty()) {
                    check(Instant.now().isBefore(deadline), name + ": round " + round + " in time");
                    consumer.poll(Duration.ofMillis(500)).forEach(record ->
                            seen.add(record.partition() + " " + new String(record.value())));
                }
                equal("news", List.of(news.partition() + " " + round), seen);
            }
        }
        admin.deleteTopics(List.of(name)).all().get();
    }

    private void describesWhatItWrote() throws Exception {
        TopicPartition partition = new TopicPartition(TOPIC, 0);
        long bytes = 0;
        for (var dir : admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1).values()) {
            bytes += dir.replicaInfos().get(partition).size();
        }
        check(bytes > 5 * 262_144, "several segments, saw " + bytes + " bytes");
        var producers = admin.describeProducers(List.of(partition))
                .partitionResult(partition).get();
        // One idempotent producer for each codec, and the one after them.
        equal("idempotent producers", 6, producers.activeProducers().size());
        equal("voters", 1, admin.describeMetadataQuorum().quorumInfo().get().voters().size());
        var features = admin.describeFeatures().featureMetadata().get().finalizedFeatures();
        check(features.keySet().stream().anyMatch(name -> name.endsWith("metadata.version")),
                "a metadata.version, saw " + features);
    }

    private void altersSettings() throws Exception {
        Config config = config();
        equal("segment.bytes", SEGMENT_BYTES, config.get("segment.bytes").value());
        check(!config.get("segment.bytes").isDefault(), "segment.bytes is not a default");
        equal("max.message.bytes", MAX_MESSAGE_BYTES_BY_DEFAULT,
                config.get("max.message.bytes").value());
        alter("max.message.bytes", "2000000", AlterConfigOp.OpType.SET).get();
        equal("max.message.bytes", "2000000", config().get("max.message.bytes").value());
        equal("segment.bytes still", SEGMENT_BYTES, config().get("segment.bytes").value());
        alter("max.message.bytes", "", AlterConfigOp.OpType.DELETE).get();
        equal("max.message.bytes", MAX_MESSAGE_BYTES_BY_DEFAULT,
                config().get("max.message.bytes").value());
        fails(InvalidConfigurationException.class,
                alter("no.such.setting", "1", AlterConfigOp.OpType.SET));
        fails(InvalidConfigurationException.class,
                alter("max.message.bytes", "many", AlterConfigOp.OpType.SET));
    }

    private Future<Void> alter(String name, String value, AlterConfigOp.OpType how) {
        var alteration = new AlterConfigOp(new ConfigEntry(name, value), how);
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
        return admin.incrementalAlterConfigs(Map.of(resource, List.of(alteration))).all();
    }

    private Config config() throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
        return admin.describeConfigs(List.of(resource)).all().get().get(resource);
    }

    private void deletesRecords() throws Exception {
        TopicPartition partition = new TopicPartition(TOPIC, 0);
        var before = Map.of(partition, RecordsToDelete.beforeOffset(150));
        var deleted = admin.deleteRecords(before).lowWatermarks().get(partition).get();
        equal("low watermark", 150L, deleted.lowWatermark());
        equal("first offset", 150L, offset(0, OffsetSpec.earliest()));
        reads(0, 150);
        try (var consumer = new KafkaConsumer<byte[], byte[]>(consumerProperties())) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, 149);
            consumer.poll(PATIENCE);
            check(false, "what was deleted is out of range");
        } catch (OffsetOutOfRangeException expected) {
            equal("out of range", Map.of(partition, 149L), expected.offsetOutOfRangePartitions());
        }
    }

    private void addsPartitions() throws Exception {
        admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(PARTITIONS + 2))).all().get();
        equal("partitions", PARTITIONS + 2, describe().partitions().size());
        writesTheFirstRecord(PARTITIONS + 1);
        fails(InvalidPartitionsException.class,
                admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(1))).all());
    }

    private void deletesAndCreatesAgain() throws Exception {
        var old = describe().topicId();
        admin.deleteTopics(List.of(TOPIC)).all().get();
        fails(UnknownTopicOrPartitionException.class,
                admin.describeTopics(List.of(TOPIC)).allTopicNames());
        fails(UnknownTopicOrPartitionException.class, admin.deleteTopics(List.of(TOPIC)).all());
        admin.createTopics(List.of(new NewTopic(TOPIC, 1, (short) 1))).all().get();
        check(!describe().topicId().equals(old), "another topic id");
        writesTheFirstRecord(0);
    }

    /** Writes one record to an empty partition, and reads it back. */
    private void writesTheFirstRecord(int partition) throws Exception {
        equal("end of an empty partition", 0L, end(partition));
        try (var producer = new KafkaProducer<byte[], byte[]>(producerProperties())) {
            equal("first offset", 0L, producer.send(record(partition, 0)).get().offset());
        }
        equal("end", 1L, end(partition));
        int all = written;
        written = 1;
        reads(partition, 0);
        written = all;
    }

    /** The record with this number, which is its offset: hard to compress, now and then empty. */
    private ProducerRecord<byte[], byte[]> record(int partition, int number) {
        byte[] value = new byte[number * 37 % 2_000];
        new Random((long) partition << 32 | number).nextBytes(value);
        byte[] key = number % 10 == 9 ? null : bytes("key-" + partition + "-" + number);
        var record = new ProducerRecord<>(TOPIC, partition, at(number), key, value);
        record.headers().add("number", bytes(Integer.toString(number)));
        record.headers().add("number", bytes("again"));
        record.headers().add("empty", new byte[0]);
        record.headers().add("none", null);
        return record;
    }

    private long at(int number) {
        return start + number * 1_000L;
    }

    private Properties producerProperties() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("key.serializer", ByteArraySerializer.class);
        properties.put("value.serializer", ByteArraySerializer.class);
        properties.put("max.block.ms", PATIENCE.toMillis());
        return properties;
    }

    private Properties consumerProperties() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("key.deserializer", ByteArrayDeserializer.class);
        properties.put("value.deserializer", ByteArrayDeserializer.class);
        properties.put("auto.offset.reset", "none");
        properties.put("fetch.max.wait.ms", "50");
        return properties;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static void equal(String what, Object expected, Object saw) {
        check(expected.equals(saw), what + ": expected " + expected + ", saw " + saw);
    }

    private static void check(boolean holds, String claim) {
        if (!holds) {
            throw new AssertionError("not so: " + claim);
        }
    }

    private static void fails(Class<? extends Exception> expected, Future<?> future)
            throws InterruptedException {
        try {
            future.get();
        } catch (ExecutionException failed) {
            check(expected.isInstance(failed.getCause()),
                    "fails with " + expected.getSimpleName() + ", not " + failed.getCause());
            return;
        }
        check(false, "fails with " + expected.getSimpleName());
    }
}
