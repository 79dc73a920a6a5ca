//! Kafka's own Java client in three versions, and the command line tools that come with Kafka.

use std::{collections::BTreeMap, fs, path::PathBuf};

use tidelog_tests::{
    node::{Node, Options},
    programs::{files_below, java, run},
};

use crate::{judge, spilling_node};

#[test]
fn kafkas_java_client_of_before_4_0_finds_what_it_knows() {
    judge(java("java-3", "clients.Stock"), &spilling_node());
}

#[test]
fn kafkas_java_client_finds_what_it_knows() {
    judge(java("java", "clients.Stock"), &spilling_node());
}

#[test]
fn kafkas_newest_java_client_finds_what_it_knows() {
    judge(java("java-newest", "clients.Stock"), &spilling_node());
}

#[test]
fn kafkas_java_client_of_before_4_0_shares_its_work() {
    judge(java("java-3", "clients.Groups"), &grouping_node());
}

#[test]
fn kafkas_java_client_shares_its_work() {
    judge(java("java", "clients.Groups"), &grouping_node());
}

#[test]
fn kafkas_newest_java_client_shares_its_work() {
    judge(java("java-newest", "clients.Groups"), &grouping_node());
}

#[test]
fn kafkas_own_tools_list_describe_reset_and_delete_groups() {
    let node = grouping_node();
    let at = format!("--bootstrap-server\t{}", node.bootstrap());
    let groups = |rest: &str| format!("kafka-consumer-groups\t{at}\t{rest}");
    let offsets = "--from-beginning\t--topic\t\
                   __consumer_offsets\t--timeout-ms\t6000\t--formatter\t";
    // A command, its status, and what it says.
    let steps: [(String, i32, &[&str]); 15] = [
        (format!("kafka-topics\t{at}\t--create\t--topic\tt\t--partitions\t2"), 0, &[]),
        (format!("kafka-console-producer\t{at}\t--topic\tt\t<one\\ntwo\\nthree\\n"), 0, &[]),
        (
            format!(
                "kafka-console-consumer\t{at}\t--topic\tt\t--group\tconsole\t--from-beginning\
                 \t--max-messages\t3\t--timeout-ms\t20000"
            ),
            0,
            &["one", "two", "three"],
        ),
        (groups("--list"), 0, &["console"]),
        (groups("--describe\t--group\tconsole"), 0, &["console", "CURRENT-OFFSET"]),
        (groups("--describe\t--group\tconsole\t--state"), 0, &["Empty"]),
        (
            groups("--reset-offsets\t--group\tconsole\t--topic\tt\t--to-offset\t0\t--execute"),
            0,
            &["console"],
        ),
        (
            format!(
                "kafka-console-consumer\t{at}\t--topic\tt\t--group\tconsole\t--max-messages\t3\
                 \t--timeout-ms\t20000"
            ),
            0,
            &["one", "two", "three"],
        ),
        (groups("--delete-offsets\t--group\tconsole\t--topic\tt:0"), 0, &["Successful"]),
        (
            format!(
                "kafka-console-consumer\t{at}\t{offsets}\
                 org.apache.kafka.tools.consumer.OffsetsMessageFormatter"
            ),
            0,
            &["\"group\":\"console\"", "\"topic\":\"t\""],
        ),
        (
            format!(
                "kafka-console-consumer\t{at}\t{offsets}\
                 org.apache.kafka.tools.consumer.GroupMetadataMessageFormatter"
            ),
            0,
            &["\"group\":\"console\"", "\"protocolType\":\"consumer\""],
        ),
        (groups("--delete\t--group\tconsole"), 0, &["successful"]),
        (
            format!(
                "kafka-consumer-perf-test\t{at}\t--topic\tt\t--messages\t3\t--group\tperf\
                 \t--timeout\t20000"
            ),
            0,
            &["data.consumed.in.MB"],
        ),
        (
            format!(
                "kafka-verifiable-consumer\t{at}\t--topic\tt\t--group-id\tverified\
                 \t--max-messages\t3\t--reset-policy\tearliest"
            ),
            0,
            &["\"name\":\"records_consumed\"", "\"name\":\"offsets_committed\""],
        ),
        (groups("--list\t--state"), 0, &["verified", "perf"]),
    ];
    let commands: Vec<_> =
        steps.iter().map(|(command, status, _)| (command.clone(), *status)).collect();
    for ((command, _, expected), said) in steps.iter().zip(run_tools(&commands)) {
        for text in *expected {
            assert!(said.contains(text), "{command}: expected {text}, saw {said}");
        }
    }
}

/// A broker whose groups do not wait for more members than there are.
fn grouping_node() -> Node {
    Node::start(Options::default().set("group.initial.rebalance.delay.ms", "100"))
}

#[test]
fn kafkas_own_tools_create_produce_measure_consume_and_delete() {
    let node = Node::start(Options::default());
    let at = format!("--bootstrap-server\t{}", node.bootstrap());
    let topics = |rest: &str| format!("kafka-topics\t{at}\t{rest}");
    let consume = |partition: u32, rest: &str| {
        let from = format!("--topic\ttools\t--partition\t{partition}\t{rest}");
        format!("kafka-console-consumer\t{at}\t{from}\t--timeout-ms\t20000")
    };
    let says = run_tools(&[
        (topics("--create\t--topic\ttools\t--partitions\t1"), 0),
        (topics("--list"), 0),
        (topics("--create\t--topic\ttools\t--partitions\t1"), 1),
        (format!("kafka-console-producer\t{at}\t--topic\ttools\t<one\\ntwo\\nthree\\n"), 0),
        (consume(0, "--offset\tearliest\t--max-messages\t3"), 0),
        (consume(0, "--offset\t1\t--max-messages\t1"), 0),
        (
            format!(
                "kafka-producer-perf-test\t{at}\t--topic\ttools\t--num-records\t50000\
                 \t--record-size\t100\t--throughput\t-1"
            ),
            0,
        ),
        (format!("kafka-get-offsets\t{at}\t--topic\ttools"), 0),
        (format!("kafka-get-offsets\t{at}\t--topic\ttools\t--time\tearliest"), 0),
        (format!("kafka-broker-api-versions\t{at}"), 0),
        (topics("--describe\t--topic\ttools"), 0),
        (topics("--delete\t--topic\ttools"), 0),
        (topics("--describe\t--topic\ttools"), 1),
    ]);
    assert!(says[0].contains("Created topic tools."), "{}", says[0]);
    assert_eq!(says[1].trim(), "tools");
    assert!(says[2].contains("already exists"), "{}", says[2]);
    assert!(says[4].starts_with("one\ntwo\nthree\n"), "{}", says[4]);
    assert!(says[5].starts_with("two\n"), "{}", says[5]);
    assert!(says[6].contains("50000 records sent"), "{}", says[6]);
    assert_eq!(says[7].trim(), "tools:0:50003");
    assert_eq!(says[8].trim(), "tools:0:0");
    assert!(says[9].contains("Produce(0): "), "{}", says[9]);
    assert!(says[10].contains("PartitionCount: 1"), "{}", says[10]);
    assert!(says[12].contains("does not exist"), "{}", says[12]);
}

#[test]
fn kafkas_admin_tools_change_a_topic_and_describe_the_cluster() {
    let node = Node::start(Options::default());
    let at = format!("--bootstrap-server\t{}", node.bootstrap());
    let configs = |rest: &str| {
        format!("kafka-configs\t{at}\t--entity-type\ttopics\t--entity-name\tt\t{rest}")
    };
    let topics = |rest: &str| format!("kafka-topics\t{at}\t--topic\tt\t{rest}");
    let quorum = |rest: &str| format!("kafka-metadata-quorum\t{at}\tdescribe\t{rest}");
    let before = node.dir().with_file_name("before.json");
    let json = r#"{"version": 1, "partitions": [{"topic": "t", "partition": 0, "offset": 2}]}"#;
    fs::write(&before, json).expect("a file beside the data");
    let delete = format!("kafka-delete-records\t{at}\t--offset-json-file\t{}", before.display());
    // A command, its status, and what it says.
    let steps: [(String, i32, &[&str]); 16] = [
        (topics("--create\t--partitions\t1\t--config\tsegment.bytes=1048576"), 0, &[]),
        (format!("kafka-console-producer\t{at}\t--topic\tt\t<one\\ntwo\\nthree\\n"), 0, &[]),
        (
            configs("--alter\t--add-config\tmax.message.bytes=2000000,min.insync.replicas=1"),
            0,
            &["Completed updating config for topic t."],
        ),
        (
            configs("--describe"),
            0,
            &["segment.bytes=1048576 ", "max.message.bytes=2000000 ", "min.insync.replicas=1 "],
        ),
        (configs("--alter\t--delete-config\tmin.insync.replicas,max.message.bytes"), 0, &[]),
        (configs("--describe"), 0, &["topic t are:\n  segment.bytes=1048576 "]),
        (configs("--alter\t--add-config\tno.such.setting=1"), 1, &[]),
        (delete, 0, &["partition: t-0\tlow_watermark: 2"]),
        (format!("kafka-get-offsets\t{at}\t--topic\tt\t--time\tearliest"), 0, &["t:0:2"]),
        (topics("--alter\t--partitions\t3"), 0, &[]),
        (topics("--describe"), 0, &["PartitionCount: 3"]),
        (topics("--alter\t--partitions\t2"), 1, &["would not be an increase"]),
        (
            format!("kafka-log-dirs\t{at}\t--describe\t--topic-list\tt"),
            0,
            &["\"partition\":\"t-0\"", "\"partition\":\"t-2\"", "\"error\":null"],
        ),
        (quorum("--status"), 0, &["LeaderId:               1", "MaxFollowerLag:         0"]),
        (quorum("--replication"), 0, &["Leader"]),
        (format!("kafka-features\t{at}\tdescribe"), 0, &["metadata.version"]),
    ];
    let commands: Vec<_> =
        steps.iter().map(|(command, status, _)| (command.clone(), *status)).collect();
    for ((command, _, expected), said) in steps.iter().zip(run_tools(&commands)) {
        for text in *expected {
            assert!(said.contains(text), "{command}: expected {text}, saw {said}");
        }
    }
}

#[test]
fn kafka_dump_log_finds_every_batch_of_our_segments_valid() {
    let node = Node::start(Options::default().small_bounds());
    let at = format!("--bootstrap-server\t{}", node.bootstrap());
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let mut commands =
        vec![(format!("kafka-topics\t{at}\t--create\t--topic\tdumped\t--partitions\t1"), 0)];
    for codec in codecs {
        // More than the WAL may hold, so that most of it has been spilled to segments.
        commands.push((
            format!(
                "kafka-producer-perf-test\t{at}\t--topic\tdumped\t--num-records\t10000\
                 \t--record-size\t1000\t--throughput\t-1\t--producer-props\
                 \tcompression.type={codec}"
            ),
            0,
        ));
    }
    run_tools(&commands);
    let segments = segments(&node);
    assert!(segments.len() >= 10, "only {} segments", segments.len());
    let files = segments.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    let dump = format!("kafka-dump-log\t--deep-iteration\t--files\t{}", files.join(","));
    let says = run_tools(&[(dump, 0)]).remove(0);
    let mut next_offset = 0;
    let mut seen = BTreeMap::new();
    for line in says.lines().filter(|line| line.starts_with("baseOffset: ")) {
        let field = |name: &str| {
            let rest = line.split(&format!("{name}: ")).nth(1).expect("the tool's own format");
            rest.split(' ').next().expect("a value").to_owned()
        };
        assert_eq!(field("isvalid"), "true", "{line}");
        assert_eq!(field("baseOffset"), next_offset.to_string(), "{line}");
        next_offset = field("lastOffset").parse::<i64>().expect("an offset") + 1;
        *seen.entry(field("compresscodec").to_lowercase()).or_insert(0) += 1;
    }
    assert!(next_offset > 20_000, "only {next_offset} records in segments");
    for codec in &codecs[..3] {
        assert!(seen.contains_key(*codec), "no {codec} batch in {seen:?}");
    }
}

/// Runs commands of Kafka's tools in one JVM; each must end in its status. What each said.
fn run_tools(commands: &[(String, i32)]) -> Vec<String> {
    let input: String = commands.iter().map(|(command, _)| format!("{command}\n")).collect();
    let said = run(java("java", "clients.Tools"), &input);
    let mut says = Vec::new();
    let mut lines = String::new();
    for line in said.lines() {
        let Some(ending) = line.strip_prefix("== ") else {
            lines.push_str(line);
            lines.push('\n');
            continue;
        };
        let (command, status) = &commands[says.len()];
        let tool = command.split('\t').next().expect("a tool");
        assert_eq!(ending, format!("{tool} {status}"), "{command}:\n{lines}");
        says.push(std::mem::take(&mut lines));
    }
    assert_eq!(says.len(), commands.len(), "every tool ended: {said}");
    says
}

/// The segment files of the one partition that has been spilled, in order of their offsets.
fn segments(node: &Node) -> Vec<PathBuf> {
    let files = files_below(&node.dir().join("topics"));
    files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "log")).collect()
}
