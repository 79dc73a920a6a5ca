//! kcat, as people type it.

use std::process::Command;

use tidelog_tests::{
    node::{Node, Options},
    programs::{on_path, run},
};

#[test]
fn kcat_lists_produces_consumes_and_asks_for_offsets_by_time() {
    let node = Node::start(Options::default());
    let listed = run(kcat(&node, &["-L"]), "");
    assert!(listed.contains("1 brokers:"), "{listed}");

    // The topic is created by its first use, as with Kafka.
    run(
        kcat(&node, &["-P", "-t", "chat", "-K", ":", "-H", "from=kcat"]),
        "a:one\nb:two\nc:three\n",
    );
    let read = ["-C", "-t", "chat", "-p", "0", "-o", "beginning", "-e", "-q"];
    let format = ["-f", "%o %k %s %h\n"];
    let consumed = run(kcat(&node, &[&read[..], &format[..]].concat()), "");
    assert_eq!(consumed, "0 a one from=kcat\n1 b two from=kcat\n2 c three from=kcat\n");

    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let line = format!("{}\n", codec.repeat(100));
        run(kcat(&node, &["-P", "-t", "chat", "-z", codec]), &line);
        let consumed = run(kcat(&node, &["-C", "-t", "chat", "-o", "-1", "-e", "-q"]), "");
        assert_eq!(consumed, line, "{codec}");
    }

    let described = run(kcat(&node, &["-L", "-t", "chat", "-J"]), "");
    assert!(described.contains("\"topic\":\"chat\""), "{described}");
    let asked = run(kcat(&node, &["-Q", "-t", "chat:0:1"]), "");
    assert!(asked.contains("chat [0] offset 0"), "{asked}");
}

fn kcat(node: &Node, arguments: &[&str]) -> Command {
    let mut command = on_path("kcat");
    command.arg("-b").arg(node.bootstrap()).args(arguments);
    command
}
