//! `tidelog wal inspect|verify` and `tidelog raft status|log`: what whoever must look inside sees.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use tidelog_tests::{
    batch::Batch,
    node::{Node, Options},
    programs::{files_below, tidelog},
};

const BATCHES: usize = 40;
const BATCH_BYTES: usize = 100_000;

#[test]
fn a_stopped_node_verifies_and_every_kind_of_damage_is_named() {
    let mut node = filled();
    assert!(node.terminate().success());
    let whole = look(&["wal", "verify"], node.dir());
    assert!(whole.status.success(), "{}", text(&whole));
    assert!(text(&whole).contains("everything that was synced reads"), "{}", text(&whole));
    let is_empty = text(&whole).contains("batches in segments  0 ");
    assert!(!is_empty, "nothing was spilled, nothing read: {}", text(&whole));

    let segment = newest(node.dir(), "log");
    flip(&segment, |bytes| bytes.len() / 2);
    let damaged = look(&["wal", "verify"], node.dir());
    assert_eq!(damaged.status.code(), Some(1), "{}", text(&damaged));
    let said = format!("DAMAGED {}", segment.display());
    assert!(text(&damaged).contains(&said), "{}", text(&damaged));
    flip(&segment, |bytes| bytes.len() / 2);
    assert!(look(&["wal", "verify"], node.dir()).status.success(), "whole again");
}

#[test]
fn a_damaged_wal_frame_is_named_and_a_running_node_is_left_alone() {
    let mut node = filled();
    let refused = look(&["wal", "verify"], node.dir());
    assert!(!refused.status.success());
    assert!(text(&refused).contains("stop the node first"), "{}", text(&refused));
    node.kill();
    // The first batch that the WAL still holds; later frames vouch for it.
    let file = files_below(&node.dir().join("wal")).into_iter().find_map(|path| {
        let bytes = fs::read(&path).expect("a file");
        let at = bytes.windows(BATCH_BYTES).position(|w| w.iter().all(|byte| *byte == b'v'));
        at.map(|at| (path, at))
    });
    let (file, at) = file.expect("a batch in the WAL");
    flip(&file, |_| at);
    let damaged = look(&["wal", "verify"], node.dir());
    assert_eq!(damaged.status.code(), Some(1), "{}", text(&damaged));
    assert!(text(&damaged).contains("does not match its checksum"), "{}", text(&damaged));
}

#[test]
fn a_running_node_can_be_looked_into() {
    let node = filled();
    let inspected = look(&["wal", "inspect", "--output", "json"], node.dir());
    assert!(inspected.status.success(), "{}", text(&inspected));
    for key in ["\"durable_sequence\"", "\"partitions\"", "\"checkpoint_high_watermark\"", ".wal\""]
    {
        assert!(text(&inspected).contains(key), "no {key}: {}", text(&inspected));
    }
    let status = look(&["raft", "status"], node.dir());
    assert!(text(&status).contains("commit index"), "{}", text(&status));
    let log = look(&["raft", "log"], node.dir());
    assert!(text(&log).contains("RegisterBroker"), "{}", text(&log));
    assert!(text(&log).contains("\"looked-at\""), "{}", text(&log));
    assert!(text(&log).lines().all(|line| line.len() <= 100), "{}", text(&log));
    let nothing = look(&["raft", "log", "--from", "1000000"], node.dir());
    assert!(nothing.status.success() && !text(&nothing).contains("RegisterBroker"));

    let stranger = tempfile::tempdir().expect("a directory");
    for command in [["wal", "inspect"], ["wal", "verify"], ["raft", "status"], ["raft", "log"]] {
        let refused = look(&command, stranger.path());
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        assert!(text(&refused).contains("--data-dir"), "{command:?}: {}", text(&refused));
        assert_eq!(fs::read_dir(stranger.path()).expect("a directory").count(), 0);
    }
}

fn filled() -> Node {
    let node = Node::start(Options::default().small_bounds().expect_torn_tails());
    let mut wire = node.wire();
    assert_eq!(wire.create_topic("looked-at", &[]).expect("an answer"), 0);
    for _ in 0..BATCHES {
        let batch = Batch::new(vec![vec![b'v'; BATCH_BYTES]]).encode().freeze();
        assert_eq!(wire.produce("looked-at", batch).expect("an answer").0, 0);
    }
    node
}

fn look(arguments: &[&str], dir: &Path) -> Output {
    let mut command = std::process::Command::new(tidelog());
    command.args(arguments).arg("--data-dir").arg(dir);
    command.output().expect("tidelog runs")
}

fn text(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    format!("{out}{error}")
}

fn newest(dir: &Path, extension: &str) -> PathBuf {
    let mut files = files_below(&dir.join("topics"));
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.retain(|path| fs::metadata(path).is_ok_and(|file| file.len() > BATCH_BYTES as u64));
    files.sort();
    files.pop().expect("a segment")
}

fn flip(path: &Path, place: impl Fn(&[u8]) -> usize) {
    let mut bytes = fs::read(path).expect("a file");
    let place = place(&bytes);
    bytes[place] ^= 1;
    fs::write(path, bytes).expect("a file");
}
