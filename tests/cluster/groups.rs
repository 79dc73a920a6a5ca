//! Groups under `kill -9`: offsets that were acknowledged stay, and nothing is left out.

use std::{
    io::{BufReader, Read as _},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tidelog_tests::{
    node::{Node, Options},
    programs::{python, wait_until},
    seed::Random,
};

const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn twenty_members_lose_nothing_while_their_broker_is_killed() {
    let random = Random::new("twenty_members_lose_nothing_while_their_broker_is_killed");
    kill_under_members(options(), 5, random);
}

#[test]
fn twenty_members_lose_nothing_while_their_broker_loses_power() {
    let random = Random::new("twenty_members_lose_nothing_while_their_broker_loses_power");
    kill_under_members(options().held(), 5, random);
}

/// Segments so small that a start reads the offsets topic from many of them.
fn options() -> Options {
    Options::default()
        .small_bounds()
        .set("offsets.topic.segment.bytes", "65536")
        .set("group.initial.rebalance.delay.ms", "500")
        .expect_torn_tails()
}

fn kill_under_members(options: Options, kills: u32, mut random: Random) {
    let mut node = Node::start(options);
    let mut command = python("tests/clients/python/group_load.py");
    command.arg(node.bootstrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut members = Members::watch(command.spawn().expect("python runs"));
    for _ in 0..kills {
        members.wait_for_more(&mut random);
        node.kill();
        node.restart();
    }
    members.wait_for_more(&mut random);
    members.finish();
}

/// The program with the members, and how many dots it has printed.
struct Members {
    child: Child,
    dots: Arc<AtomicUsize>,
    seen: usize,
    said: Option<thread::JoinHandle<String>>,
    /// Read all the time: a client that cannot complain does not go on.
    complaints: Option<thread::JoinHandle<String>>,
}

impl Members {
    fn watch(mut child: Child) -> Members {
        let dots = Arc::new(AtomicUsize::new(0));
        let output = child.stdout.take().expect("a piped output");
        let counted = Arc::clone(&dots);
        let said = thread::spawn(move || {
            let mut text = String::new();
            for byte in BufReader::new(output).bytes().map_while(Result::ok) {
                counted.fetch_add(usize::from(byte == b'.'), Ordering::SeqCst);
                text.push(char::from(byte));
            }
            text
        });
        let mut errors = child.stderr.take().expect("a piped output");
        let complaints = thread::spawn(move || {
            let mut text = Vec::new();
            errors.read_to_end(&mut text).expect("a pipe");
            String::from_utf8_lossy(&text).into_owned()
        });
        Members { child, dots, seen: 0, said: Some(said), complaints: Some(complaints) }
    }

    /// Waits for some thousand offset commits more, a number that chance decides.
    fn wait_for_more(&mut self, random: &mut Random) {
        let wanted = self.seen + 1 + random.index(2);
        let (child, dots) = (&mut self.child, &self.dots);
        wait_until("more offset commits", PATIENCE, || {
            assert!(child.try_wait().expect("a child of ours").is_none(), "the members ended");
            dots.load(Ordering::SeqCst) >= wanted
        });
        self.seen = dots.load(Ordering::SeqCst);
    }

    fn finish(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("a child of ours");
        let text = |reader: Option<thread::JoinHandle<String>>| {
            reader.expect("it is watched").join().expect("a thread of ours")
        };
        let (said, complaints) = (text(self.said.take()), text(self.complaints.take()));
        assert!(status.success() && said.ends_with("all good\n"), "{said}\n{complaints}");
        eprint!("{said}");
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
