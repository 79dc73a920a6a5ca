//! `kill -9` under load, again and again: what was acknowledged is there, once, in order.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tidelog_tests::{
    node::{Node, Options},
    programs::{finish, python, wait_until},
    seed::Random,
};

const PARTITIONS: &str = "4";
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn acknowledged_records_survive_twenty_kills_under_load() {
    let random = Random::new("acknowledged_records_survive_twenty_kills_under_load");
    kill_under_load(Options::default().small_bounds(), 20, random);
}

#[test]
fn acknowledged_records_survive_twenty_power_losses_under_load() {
    let random = Random::new("acknowledged_records_survive_twenty_power_losses_under_load");
    kill_under_load(Options::default().small_bounds().held(), 20, random);
}

#[test]
fn a_clean_stop_under_load_loses_and_repeats_nothing() {
    let mut random = Random::new("a_clean_stop_under_load_loses_and_repeats_nothing");
    let mut node = Node::start(Options::default().small_bounds());
    let mut load = Load::start(&node);
    for _ in 0..3 {
        load.wait_for_more(&mut random);
        let status = node.terminate();
        assert!(status.success(), "SIGTERM: {status}");
        node.restart();
    }
    load.finish_and_verify(&node);
}

fn kill_under_load(options: Options, kills: u32, mut random: Random) {
    let mut node = Node::start(options.expect_torn_tails());
    let mut load = Load::start(&node);
    let mut producer_ids = BTreeSet::new();
    for kill in 0..kills {
        load.wait_for_more(&mut random);
        node.kill();
        if random.below(4) == 0 {
            // Once more, somewhere in its recovery.
            node.spawn();
            let lines = node.log().len() + random.index(4);
            wait_until("the start of a recovery", PATIENCE, || {
                node.log().len() >= lines || node.port_is_open()
            });
            node.kill();
        }
        node.restart();
        let producer_id = node.wire().init_producer_id().expect("a broker that serves");
        assert!(producer_ids.insert(producer_id), "kill {kill}: id {producer_id} given twice");
    }
    load.finish_and_verify(&node);
    eprintln!("{} lines of acknowledgements", load.acknowledged());
}

/// A stock idempotent producer at full speed, in a process of its own.
struct Load {
    producer: Option<Child>,
    acked: PathBuf,
    bytes_seen: u64,
    _dir: TempDir,
}

impl Load {
    fn start(node: &Node) -> Load {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let acked = dir.path().join("acked");
        let mut command = python("scripts/produce_bulk.py");
        command.args(["--bootstrap-server", &node.bootstrap(), "--partitions", PARTITIONS]);
        command.args(["--until-stdin-closes", "--size", "200", "--acked"]).arg(&acked);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let producer = Some(command.spawn().expect("python runs"));
        Load { producer, acked, bytes_seen: 0, _dir: dir }
    }

    /// Waits for some more acknowledgements, a number that chance decides.
    fn wait_for_more(&mut self, random: &mut Random) {
        // From right after the first one to about a second of full speed.
        let wanted = self.bytes_seen + 1 + random.below(1_000_000);
        let running = self.producer.as_mut().expect("the producer runs");
        let acked = &self.acked;
        wait_until("more acknowledgements", PATIENCE, || {
            assert!(running.try_wait().expect("a child of ours").is_none(), "the producer ended");
            size(acked) >= wanted
        });
        self.bytes_seen = size(acked);
    }

    fn finish_and_verify(&mut self, node: &Node) {
        let producer = self.producer.take().expect("the producer runs");
        // Its standard input closes here.
        let output = producer.wait_with_output().expect("a child of ours");
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "the producer: {complaints}");
        let mut command = python("scripts/verify_consumption.py");
        command.args(["--bootstrap-server", &node.bootstrap(), "--acked"]).arg(&self.acked);
        let output = finish(command, "");
        let verdict = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{verdict}");
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
    }

    fn acknowledged(&self) -> usize {
        fs::read_to_string(&self.acked).unwrap_or_default().lines().count()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut producer) = self.producer.take() {
            let _ = producer.kill();
            let said = producer.wait_with_output().map(|output| output.stderr).unwrap_or_default();
            eprintln!("the producer: {}", String::from_utf8_lossy(&said));
        }
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
