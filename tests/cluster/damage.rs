//! Bits that flip on a disk while the broker is down: what it then serves is right or refused.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tidelog_tests::{
    batch::{self, Batch},
    node::{Node, Options},
    programs::files_below,
    seed::Random,
    wire::Wire,
};

const TOPICS: [&str; 3] = ["alpha", "beta", "gamma"];
const BATCHES: usize = 150;
const FLIPS: usize = 60;
const OFFSET_OUT_OF_RANGE: i16 = 1;

/// One topic as it was before anything was damaged.
struct Truth {
    topic: &'static str,
    /// Base offset and bytes of every batch.
    batches: Vec<(i64, Bytes)>,
    end: i64,
}

#[test]
fn a_flipped_bit_after_a_clean_stop_is_never_served_and_shortens_nothing_silently() {
    let test = "a_flipped_bit_after_a_clean_stop_is_never_served_and_shortens_nothing_silently";
    flip_bits(Random::new(test), |node| assert!(node.terminate().success()));
}

#[test]
fn a_flipped_bit_after_a_kill_is_never_served_and_shortens_nothing_silently() {
    let test = "a_flipped_bit_after_a_kill_is_never_served_and_shortens_nothing_silently";
    flip_bits(Random::new(test), Node::kill);
}

fn flip_bits(mut random: Random, stop: impl Fn(&mut Node)) {
    // Damage is complained about; what it says is looked at below.
    let mut node = Node::start(Options::default().small_bounds().expect_log(""));
    let truths = fill(&node);
    stop(&mut node);
    let pristine = tempfile::tempdir().expect("a temporary directory");
    copy(node.dir(), pristine.path());
    let mut outcomes = [0; 3];
    for _ in 0..FLIPS {
        fs::remove_dir_all(node.dir()).expect("a directory of ours");
        copy(pristine.path(), node.dir());
        let flipped = flip_one_bit(node.dir(), &mut random);
        let lines = node.log().len();
        node.spawn();
        let outcome = judge(&mut node, &truths, lines, &flipped);
        outcomes[outcome as usize] += 1;
    }
    let [unharmed, reported, refused] = outcomes;
    eprintln!(
        "{FLIPS} flips: {unharmed} harmless, {reported} reported, {refused} kept it from starting"
    );
}

#[derive(Clone, Copy)]
enum Outcome {
    Unharmed = 0,
    Reported = 1,
    NotStarted = 2,
}

fn judge(node: &mut Node, truths: &[Truth], lines: usize, flipped: &str) -> Outcome {
    let Some(mut wire) = wait_until_served_or_ended(node) else {
        let said = node.log()[lines..].join("\n");
        assert!(
            said.contains("ERROR") || said.contains("tidelog: "),
            "{flipped}: ended with {said:?}"
        );
        return Outcome::NotStarted;
    };
    let mut refused = 0;
    let mut vanished = 0;
    for truth in truths {
        for (base_offset, expected) in &truth.batches {
            match read(&mut wire, truth.topic, *base_offset) {
                Served::Bytes(bytes) => {
                    let at = format!("{flipped}: {} at {base_offset}", truth.topic);
                    assert_eq!(bytes, expected, "{at}: wrong bytes");
                }
                Served::Refused => refused += 1,
                Served::Nothing => vanished += 1,
            }
        }
        let (code, end) = wire.list_offset(truth.topic, -1).expect("an answer");
        vanished += usize::from(code == 0 && end < truth.end);
    }
    node.kill(); // and with it, all that it said is read
    let said = node.log()[lines..].join("\n");
    let reported = said.contains("WARN") || said.contains("ERROR");
    assert!(vanished == 0 || reported, "{flipped}: {vanished} batches vanished, log:\n{said}");
    if refused + vanished > 0 { Outcome::Reported } else { Outcome::Unharmed }
}

/// What a consumer that asks for one offset is told.
enum Served {
    Bytes(Bytes),
    /// An error that it hears of.
    Refused,
    /// No error and no record, as at the end of a log.
    Nothing,
}

fn read(wire: &mut Wire, topic: &str, offset: i64) -> Served {
    let fetched = wire.fetch(topic, offset, 1).expect("an answer");
    match batch::split(fetched.records).into_iter().next() {
        _ if fetched.error_code == OFFSET_OUT_OF_RANGE => Served::Nothing,
        _ if fetched.error_code != 0 => Served::Refused,
        Some((_, bytes)) => Served::Bytes(bytes),
        None => Served::Nothing,
    }
}

fn wait_until_served_or_ended(node: &mut Node) -> Option<Wire> {
    loop {
        if node.exit_status().is_some() {
            node.kill(); // and with it, all that it said is read
            return None;
        }
        if node.is_ready() {
            return Some(node.wire());
        }
        std::thread::yield_now();
    }
}

/// Enough for several segments each, and a WAL that has gone round.
fn fill(node: &Node) -> Vec<Truth> {
    let mut wire = node.wire();
    let mut random = Random::new("what the batches hold");
    for topic in TOPICS {
        assert_eq!(wire.create_topic(topic, &[("segment.bytes", "300000")]).expect("an answer"), 0);
    }
    for number in 0..BATCHES {
        for topic in TOPICS {
            let filler = vec![random.bits().to_le_bytes()[0]; 1 + random.index(40_000)];
            let values = vec![format!("{topic} {number}").into_bytes(), filler];
            let (code, _) =
                wire.produce(topic, Batch::new(values).encode().freeze()).expect("an answer");
            assert_eq!(code, 0, "{topic} {number}");
        }
    }
    TOPICS.map(|topic| read_truth(&mut wire, topic)).into()
}

fn read_truth(wire: &mut Wire, topic: &'static str) -> Truth {
    let (_, end) = wire.list_offset(topic, -1).expect("an answer");
    let mut batches = Vec::new();
    let mut offset = 0;
    while offset < end {
        let fetched = wire.fetch(topic, offset, 1 << 20).expect("an answer");
        assert_eq!(fetched.error_code, 0, "an undamaged log is readable");
        for (base_offset, bytes) in batch::split(fetched.records) {
            offset = batch::next_offset(&bytes);
            batches.push((base_offset, bytes));
        }
    }
    assert_eq!(batches.len(), BATCHES);
    Truth { topic, batches, end }
}

/// Flips one bit in a file that chance chooses, small files as likely as large ones.
fn flip_one_bit(dir: &Path, random: &mut Random) -> String {
    let files: Vec<PathBuf> = files_below(dir)
        .into_iter()
        .filter(|path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0))
        .collect();
    let path = &files[random.index(files.len())];
    let file = fs::File::options().read(true).write(true).open(path).expect("a file of ours");
    let length = file.metadata().expect("a file of ours").len();
    let position = written_position(&file, length, random);
    let bit = random.below(8);
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).expect("a byte");
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, position).expect("a byte");
    let name = path.strip_prefix(dir).expect("below the directory").display();
    format!("bit {bit} of byte {position} of {name} ({length} bytes)")
}

/// A position with something written near it, if a few tries find one: most of a preallocated file
/// is zeros that nobody reads.
fn written_position(file: &fs::File, length: u64, random: &mut Random) -> u64 {
    const TRIES: usize = 30;
    let mut position = random.below(length);
    for _ in 0..TRIES {
        let mut near = [0; 64];
        let read = file.read_at(&mut near, position - position % 64).expect("bytes");
        if near[..read].iter().any(|byte| *byte != 0) {
            break;
        }
        position = random.below(length);
    }
    position
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory of ours") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a file of ours");
        }
    }
}
