package clients;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What a Java service does on its first day, with the defaults it would have. */
public final class Stock {
    private static final int RECORDS = 400;
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    private final String bootstrap;
    private final Admin admin;

    private Stock(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    public static void main(String[] args) throws Exception {
        Stock stock = new Stock(args[0]);
        stock.describesTheCluster();
        stock.createsAndDescribesTopics();
        for (String compression : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            for (String acks : List.of("0", "1", "all")) {
                stock.producesAndConsumes(compression, acks, false);
            }
            stock.producesAndConsumes(compression, "all", true);
        }
        stock.findsOffsetsByTimestamp();
        stock.seeksIntoTheMiddle();
        stock.deletesTopics();
        stock.admin.close();
        System.out.println("all good");
    }

    private void describesTheCluster() throws Exception {
        var cluster = admin.describeCluster();
        check(cluster.nodes().get().size() == 1, "one node");
        check(cluster.clusterId().get().length() == 22, "a 22 character cluster id");
        check(cluster.controller().get() != null, "a controller");
    }

    private void createsAndDescribesTopics() throws Exception {
        NewTopic topic = new NewTopic("java-topic", Optional.of(3), Optional.empty())
                .configs(Map.of("segment.bytes", "1048576", "message.timestamp.type", "CreateTime"));
        var created = admin.createTopics(List.of(topic));
        created.all().get();
        check(created.numPartitions("java-topic").get() == 3, "three partitions");
        TopicDescription described =
                admin.describeTopics(List.of("java-topic")).allTopicNames().get().get("java-topic");
        check(described.partitions().size() == 3, "three partitions described");
        check(described.topicId().equals(created.topicId("java-topic").get()), "the same topic id");
        check(described.partitions().get(2).leader() != null, "a leader");
        check(admin.listTopics().names().get().contains("java-topic"), "listed");

        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, "java-topic");
        Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        check(config.get("segment.bytes").value().equals("1048576"), "segment.bytes as set");
        check(!config.get("segment.bytes").isDefault(), "segment.bytes is not a default");
        check(config.get("max.message.bytes").value().equals("1048588"), "Kafka's default");

        fails(TopicExistsException.class, admin.createTopics(List.of(topic)).all());
        NewTopic wrong = new NewTopic("java-wrong", 1, (short) 1)
                .configs(Map.of("no.such.setting", "1"));
        fails(InvalidConfigurationException.class, admin.createTopics(List.of(wrong)).all());
        fails(UnknownTopicOrPartitionException.class,
                admin.describeTopics(List.of("java-wrong")).allTopicNames());
    }

    private void producesAndConsumes(String compression, String acks, boolean idempotent)
            throws Exception {
        String name = "java-" + compression + "-" + acks + (idempotent ? "-idempotent" : "");
        admin.createTopics(List.of(new NewTopic(name, 1, (short) 1)
                .configs(Map.of("segment.bytes", "1048576")))).all().get();
        Properties properties = producerProperties();
        properties.put("acks", acks);
        properties.put("enable.idempotence", idempotent);
        properties.put("compression.type", compression);
        List<RecordMetadata> acknowledged = new ArrayList<>();
        try (var producer = new KafkaProducer<byte[], byte[]>(properties)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int number = 0; number < RECORDS; number++) {
                var record = new ProducerRecord<byte[], byte[]>(name, 0, key(number), value(number));
                record.headers().add(new RecordHeader("number", key(number)));
                record.headers().add(new RecordHeader("number", new byte[] {1}));
                sent.add(producer.send(record));
            }
            for (Future<RecordMetadata> future : sent) {
                acknowledged.add(future.get());
            }
        }
        for (int number = 0; number < RECORDS && !acks.equals("0"); number++) {
            check(acknowledged.get(number).offset() == number, name + ": offset " + number);
        }
        List<ConsumerRecord<byte[], byte[]>> records = readFrom(name, 0, RECORDS);
        for (int number = 0; number < RECORDS; number++) {
            var record = records.get(number);
            check(record.offset() == number, name + ": reads offset " + number);
            check(text(record.key()).equals(text(key(number))), name + ": key " + number);
            check(text(record.value()).equals(text(value(number))), name + ": value " + number);
            check(record.headers().toArray().length == 2, name + ": two headers of one name");
        }
    }

    private void findsOffsetsByTimestamp() throws Exception {
        TopicPartition partition = new TopicPartition("java-topic", 1);
        long start = Instant.now().toEpochMilli() - 1_000_000;
        try (var producer = new KafkaProducer<byte[], byte[]>(producerProperties())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int number = 0; number < 100; number++) {
                sent.add(producer.send(new ProducerRecord<>(partition.topic(),
                        partition.partition(), start + number * 1_000L, null, value(number))));
            }
            for (Future<RecordMetadata> future : sent) {
                future.get();
            }
        }
        try (var consumer = new KafkaConsumer<byte[], byte[]>(consumerProperties())) {
            for (int number : new int[] {0, 1, 50, 99}) {
                OffsetAndTimestamp found = consumer
                        .offsetsForTimes(Map.of(partition, start + number * 1_000L - 10))
                        .get(partition);
                check(found.offset() == number, "offset by timestamp " + number);
                check(found.timestamp() == start + number * 1_000L, "its timestamp " + number);
            }
            var none = consumer.offsetsForTimes(Map.of(partition, start + 1_000_000_000L));
            check(none.get(partition) == null, "no offset after the last timestamp");
            check(consumer.beginningOffsets(Set.of(partition)).get(partition) == 0, "beginning");
            check(consumer.endOffsets(Set.of(partition)).get(partition) == 100, "end");
        }
        var newest = admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp()));
        check(newest.partitionResult(partition).get().offset() == 99, "offset of the newest record");
    }

    private void seeksIntoTheMiddle() {
        var records = readFrom("java-none-all", 123, 10);
        for (int number = 0; number < 10; number++) {
            check(records.get(number).offset() == 123 + number, "seek to 123, then in order");
        }
    }

    private void deletesTopics() throws Exception {
        admin.deleteTopics(List.of("java-topic")).all().get();
        fails(UnknownTopicOrPartitionException.class,
                admin.describeTopics(List.of("java-topic")).allTopicNames());
        fails(UnknownTopicOrPartitionException.class,
                admin.deleteTopics(List.of("java-topic")).all());
        admin.createTopics(List.of(new NewTopic("java-topic", 1, (short) 1))).all().get();
        try (var producer = new KafkaProducer<byte[], byte[]>(producerProperties())) {
            var first = producer.send(new ProducerRecord<>("java-topic", value(1))).get();
            check(first.offset() == 0, "the offsets of a recreated topic start again");
        }
    }

    private List<ConsumerRecord<byte[], byte[]>> readFrom(String topic, long offset, int count) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        try (var consumer = new KafkaConsumer<byte[], byte[]>(consumerProperties())) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seek(partition, offset);
            Instant deadline = Instant.now().plus(PATIENCE);
            while (records.size() < count) {
                check(Instant.now().isBefore(deadline), topic + ": " + records.size() + " in time");
                consumer.poll(Duration.ofMillis(500)).forEach(records::add);
            }
        }
        return records;
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
        return properties;
    }

    private static byte[] key(int number) {
        return ("key-" + number).getBytes(StandardCharsets.UTF_8);
    }

    private static byte[] value(int number) {
        return ("value-" + number + "-".repeat(number % 200)).getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
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
