package clients;

import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's own command line tools, several in one JVM, because starting a JVM is the slow part.
 *
 * <p>Each line of standard input is one command: the tool's name and its arguments, separated by
 * tabs; a last argument {@code <text} is what the tool reads, with {@code \n} between lines. After
 * each tool comes a line {@code == tool status}.
 */
public final class Tools {
    private static final int PATIENCE_SECONDS = 60;
    private static final Map<String, String> MAIN_CLASSES = Map.ofEntries(
            Map.entry("kafka-topics", "org.apache.kafka.tools.TopicCommand"),
            Map.entry("kafka-configs", "kafka.admin.ConfigCommand"),
            Map.entry("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer"),
            Map.entry("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
            Map.entry("kafka-consumer-groups",
                    "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
            Map.entry("kafka-consumer-perf-test", "org.apache.kafka.tools.ConsumerPerformance"),
            Map.entry("kafka-verifiable-consumer", "org.apache.kafka.tools.VerifiableConsumer"),
            Map.entry("kafka-producer-perf-test", "org.apache.kafka.tools.ProducerPerformance"),
            Map.entry("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
            Map.entry("kafka-delete-records", "org.apache.kafka.tools.DeleteRecordsCommand"),
            Map.entry("kafka-log-dirs", "org.apache.kafka.tools.LogDirsCommand"),
            Map.entry("kafka-metadata-quorum", "org.apache.kafka.tools.MetadataQuorumCommand"),
            Map.entry("kafka-features", "org.apache.kafka.tools.FeatureCommand"),
            Map.entry("kafka-broker-api-versions",
                    "org.apache.kafka.tools.BrokerApiVersionsCommand"),
            Map.entry("kafka-dump-log", "kafka.tools.DumpLogSegments"));

    /** What the tool that runs wants to be done when it ends, such as sending what waits. */
    private static final List<Runnable> HOOKS = new CopyOnWriteArrayList<>();

    /** Filled by the tool that runs: with its status when it exits, 0 when it returns. */
    private static volatile CompletableFuture<Integer> ended = new CompletableFuture<>();

    public static void main(String[] args) throws Exception {
        // A tool's exit must end the tool, not this JVM, and must not return to its caller.
        Exit.setExitProcedure((status, message) -> exit(status));
        Exit.setHaltProcedure((status, message) -> exit(status));
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.add(hook));
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader commands =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] words = line.split("\t");
            int status = run(words[0], Arrays.copyOfRange(words, 1, words.length));
            System.out.flush();
            System.err.flush();
            out.printf("== %s %d%n", words[0], status);
        }
        // Some tools leave threads that are not daemons.
        Runtime.getRuntime().halt(0);
    }

    private static int run(String tool, String[] args) throws Exception {
        InputStream input = InputStream.nullInputStream();
        int last = args.length - 1;
        if (last >= 0 && args[last].startsWith("<")) {
            String text = args[last].substring(1).replace("\\n", "\n");
            input = new ByteArrayInputStream(text.getBytes(StandardCharsets.UTF_8));
            args = Arrays.copyOf(args, last);
        }
        System.setIn(input);
        String mainClass = MAIN_CLASSES.get(tool);
        if (mainClass == null) {
            System.err.println("no such tool: " + tool);
            return 127;
        }
        ended = new CompletableFuture<>();
        CompletableFuture<Integer> ending = ended;
        String[] rest = args;
        Thread thread = new Thread(() -> ending.complete(invoke(mainClass, rest)), tool);
        thread.setDaemon(true);
        thread.start();
        int status = ending.get(PATIENCE_SECONDS, TimeUnit.SECONDS);
        HOOKS.forEach(Runnable::run);
        HOOKS.clear();
        return status;
    }

    private static int invoke(String mainClass, String[] args) {
        try {
            Class.forName(mainClass).getMethod("main", String[].class).invoke(null, (Object) args);
            return 0;
        } catch (ReflectiveOperationException failed) {
            failed.printStackTrace();
            return 1;
        }
    }

    private static void exit(int status) {
        ended.complete(status);
        while (true) {
            LockSupport.park();
        }
    }
}
