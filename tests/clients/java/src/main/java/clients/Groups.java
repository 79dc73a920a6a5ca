package clients;

import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.function.BooleanSupplier;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Java services that share their work: the classic protocol of groups, eager and cooperative. */
public final class Groups {
    private static final int PARTITIONS = 6;
    private static final int RECORDS = 60;
    private static final Duration PATIENCE = Duration.ofSeconds(40);
    private static final String ASSIGNORS = "org.apache.kafka.clients.consumer.";

    private final String bootstrap;
    private final Admin admin;

    private Groups(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    public static void main(String[] args) throws Exception {
        Groups groups = new Groups(args[0]);
        groups.membersComeAndGo("RangeAssignor");
        groups.membersComeAndGo("CooperativeStickyAssignor");
        groups.aStaticMemberComesBack();
        groups.aPatternFindsWhatComesLater();
        groups.offsetsAreMovedAndForgotten();
        groups.admin.close();
        System.out.println("all good");
    }

    private void membersComeAndGo(String assignor) throws Exception {
        String topic = "java-" + assignor;
        create(topic, PARTITIONS);
        produce(topic);
        Map<String, Object> config =
                Map.of("partition.assignment.strategy", ASSIGNORS + assignor);
        Member first = new Member(topic, config);
        first.subscribe(topic);
        until("everything is consumed", List.of(first), () -> first.got.size() == RECORDS);
        first.consumer.commitSync();
        Set<TopicPartition> before = first.owns();

        Member second = new Member(topic, config);
        second.subscribe(topic);
        List<Member> both = List.of(first, second);
        until("two share", both, () -> share(both, PARTITIONS));
        equal("nothing twice", 0, second.got.size());
        if (assignor.startsWith("Cooperative")) {
            Set<TopicPartition> kept = first.owns();
            kept.retainAll(before);
            equal("kept by a cooperative rebalance", PARTITIONS / 2, kept.size());
        }
        second.consumer.close();
        until("the second left", List.of(first), () -> share(List.of(first), PARTITIONS));
        first.consumer.close();
        Member third = new Member(topic, config);
        third.subscribe(topic);
        until("the third alone", List.of(third), () -> share(List.of(third), PARTITIONS));
        produce(topic);
        until("what is new", List.of(third), () -> third.got.size() == RECORDS);
        equal("only what is new", RECORDS, new HashSet<>(third.got).size());
        third.consumer.close();
    }

    private void aStaticMemberComesBack() throws Exception {
        String topic = "java-static";
        create(topic, PARTITIONS);
        List<Member> members = new ArrayList<>();
        for (int instance = 0; instance < 2; instance++) {
            members.add(new Member(topic, Map.of("group.instance.id", "instance-" + instance)));
            members.get(instance).subscribe(topic);
        }
        until("two share", members, () -> share(members, PARTITIONS));
        Member stays = members.get(0);
        Set<TopicPartition> owned = members.get(1).owns();
        int revocations = stays.revocations;
        members.get(1).consumer.close();
        Member back = new Member(topic, Map.of("group.instance.id", "instance-1"));
        back.subscribe(topic);
        until("it is back", List.of(stays, back), () -> !back.owns().isEmpty());
        equal("it gets what it had", owned, back.owns());
        equal("nobody else notices", revocations, stays.revocations);
        back.consumer.close();
        var removed = List.of(new MemberToRemove("instance-1"));
        admin.removeMembersFromConsumerGroup(
                topic, new RemoveMembersFromConsumerGroupOptions(removed)).all().get();
        until("it was removed", List.of(stays), () -> share(List.of(stays), PARTITIONS));
        stays.consumer.close();
    }

    private void aPatternFindsWhatComesLater() throws Exception {
        create("java-pattern-a", 1);
        Member member = new Member("java-patterns", Map.of("metadata.max.age.ms", 500));
        member.consumer.subscribe(Pattern.compile("java-pattern-.*"), member);
        until("the first topic", List.of(member), () -> member.owns().size() == 1);
        create("java-pattern-b", 1);
        until("the second topic", List.of(member), () -> member.owns().size() == 2);
        member.consumer.close();
    }

    private void offsetsAreMovedAndForgotten() throws Exception {
        String topic = "java-moved";
        create(topic, PARTITIONS);
        produce(topic);
        TopicPartition zero = new TopicPartition(topic, 0);
        admin.alterConsumerGroupOffsets(topic, Map.of(zero, new OffsetAndMetadata(4))).all().get();
        Member member = new Member(topic, Map.of());
        member.subscribe(topic);
        until("the rest", List.of(member), () -> member.got.size() == RECORDS - 4);
        member.got.clear();
        member.consumer.seek(zero, 8);
        until("what was sought", List.of(member), () -> member.got.size() == 2);
        OffsetAndMetadata words = new OffsetAndMetadata(5, "words");
        member.consumer.commitSync(Map.of(zero, words));
        equal("committed", Map.of(zero, words), member.consumer.committed(Set.of(zero)));
        ConsumerGroupDescription described =
                admin.describeConsumerGroups(List.of(topic)).all().get().get(topic);
        equal("members", 1, described.members().size());
        equal("assignor", "range", described.partitionAssignor());
        fails("GroupNotEmptyException",
                () -> admin.deleteConsumerGroups(List.of(topic)).all().get());
        fails("GroupSubscribedToTopicException",
                () -> admin.deleteConsumerGroupOffsets(topic, Set.of(zero)).all().get());
        member.consumer.close();
        admin.deleteConsumerGroupOffsets(topic, Set.of(zero)).all().get();
        equal("offsets left", false, offsets(topic).containsKey(zero));
        admin.deleteConsumerGroups(List.of(topic)).all().get();
        equal("offsets of a deleted group", Map.of(), offsets(topic));
        fails("GroupIdNotFoundException",
                () -> admin.deleteConsumerGroups(List.of(topic)).all().get());
    }

    private Map<TopicPartition, OffsetAndMetadata> offsets(String group) throws Exception {
        return admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
    }

    private void create(String topic, int partitions) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
    }

    private void produce(String topic) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap);
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int number = 0; number < RECORDS; number++) {
                int partition = number % PARTITIONS;
                producer.send(new ProducerRecord<>(topic, partition, null, "" + number));
            }
        }
    }

    /** Polls all members until {@code holds}. */
    private static void until(String what, List<Member> members, BooleanSupplier holds) {
        Instant deadline = Instant.now().plus(PATIENCE);
        while (!holds.getAsBoolean()) {
            if (Instant.now().isAfter(deadline)) {
                throw new AssertionError(what + ": " + members.stream()
                        .map(member -> member.owns() + " got " + member.got.size()).toList());
            }
            members.forEach(Member::poll);
        }
    }

    /** Whether the members own so many partitions together, and none of them twice. */
    private static boolean share(List<Member> members, int partitions) {
        List<TopicPartition> owned =
                members.stream().flatMap(member -> member.owns().stream()).toList();
        return owned.size() == partitions && new HashSet<>(owned).size() == partitions
                && members.stream().noneMatch(member -> member.owns().isEmpty());
    }

    private static void equal(String what, Object expected, Object seen) {
        if (!expected.equals(seen)) {
            throw new AssertionError(what + ": expected " + expected + ", saw " + seen);
        }
    }

    private interface Attempt {
        void run() throws Exception;
    }

    private static void fails(String error, Attempt attempt) throws Exception {
        try {
            attempt.run();
        } catch (ExecutionException failure) {
            equal("error", error, failure.getCause().getClass().getSimpleName());
            return;
        }
        throw new AssertionError("no error, expected " + error);
    }

    /** A consumer that remembers what it got. */
    private final class Member implements ConsumerRebalanceListener {
        private final KafkaConsumer<String, String> consumer;
        private final List<String> got = new ArrayList<>();
        private int revocations = 0;

        private Member(String group, Map<String, Object> more) {
            Map<String, Object> config = new HashMap<>(Map.of(
                    "bootstrap.servers", bootstrap,
                    "group.id", group,
                    "auto.offset.reset", "earliest",
                    "enable.auto.commit", false,
                    "session.timeout.ms", 30000,
                    "heartbeat.interval.ms", 500));
            config.putAll(more);
            consumer = new KafkaConsumer<>(
                    config, new StringDeserializer(), new StringDeserializer());
        }

        private void subscribe(String topic) {
            consumer.subscribe(List.of(topic), this);
        }

        private void poll() {
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(50))) {
                got.add(record.topic() + "-" + record.partition() + "@" + record.offset());
            }
        }

        private Set<TopicPartition> owns() {
            return new HashSet<>(consumer.assignment());
        }

        @Override
        public void onPartitionsRevoked(java.util.Collection<TopicPartition> partitions) {
            revocations += 1;
        }

        @Override
        public void onPartitionsAssigned(java.util.Collection<TopicPartition> partitions) {}
    }
}
