//! Power that fails at every call, bits that flip, disks that fill up.

use std::path::{Path, PathBuf};

use raft::{Storage as _, eraftpb::Entry};
use tidelog_wal::env::mem::MemFileSystem;

use super::{
    entries, entry,
    store::{StoreTest, hard_state, machine, small_config, snapshot},
};
use crate::{RaftError, log::SnapshotMeta};

/// What a history had promised when it ended.
#[derive(Debug, Default, Clone)]
struct Promised {
    /// (term, vote).
    vote: (u64, u64),
    truncated: u64,
    entries: Vec<Entry>,
    snapshot: u64,
}

/// A history of every kind of record over more than one file; ends where the machine does.
fn play(fs: &MemFileSystem) -> Promised {
    let mut promised = Promised::default();
    let Ok(mut test) = StoreTest::open(fs.clone(), small_config()) else { return promised };
    // Enough for a second file, with a tail that is cut, a vote, a compaction and a snapshot.
    for round in 0..4u64 {
        let first = 1 + round * 20;
        let mut appended = entries(first..=first + 24, round + 1);
        appended.iter_mut().for_each(|entry| entry.data = vec![round as u8; 700].into());
        appended[24].data = vec![9; 9000].into();
        test.persist(&appended, Some(hard_state(round + 1, 1, first)));
        if test.sync().is_err() {
            return promised;
        }
        promised.entries.truncate((first - 1 - promised.truncated) as usize);
        promised.entries.extend(appended);
        promised.vote = (round + 1, 1);
        if round == 2 {
            test.store().evict(30);
            let term = test.store().term(30).expect("a term");
            let meta = SnapshotMeta { index: 30, term, ..test.store().newest_snapshot() };
            if crate::snapshot::write(&test.parts.worker.files, &meta, b"state").is_err() {
                return promised;
            }
            test.compact_written(&meta, 25);
            if test.sync().is_err() {
                return promised;
            }
            promised.entries.drain(..25);
            (promised.truncated, promised.snapshot) = (25, 30);
        }
    }
    let meta = SnapshotMeta { index: 120, term: 6, ..test.store().newest_snapshot() };
    test.install(&snapshot(&meta, b"a leader's state"), hard_state(6, 0, 120));
    if test.sync().is_ok() {
        promised = Promised { vote: (6, 0), truncated: 120, entries: Vec::new(), snapshot: 120 };
    }
    promised
}

/// Opens what is left, and compares it with what was promised. What was never promised may be
/// there or not.
fn check(fs: &MemFileSystem, promised: &Promised, told: &str) {
    let opened = StoreTest::open(fs.clone(), small_config());
    let mut test = opened.unwrap_or_else(|error| panic!("{told}: {error}"));
    let found = test.read_all();
    let (truncated, last) = test.store().bounds();
    let state = test.store().initial_state().expect("a state").hard_state;
    assert!((state.term, state.vote) >= promised.vote, "{told}: the vote is {state:?}");
    assert!(test.store().newest_snapshot().index >= promised.snapshot, "{told}: the snapshot");
    assert!(truncated >= promised.truncated, "{told}: the log begins after {truncated}");
    let promised_last = promised.truncated + promised.entries.len() as u64;
    for wanted in promised.entries.iter().filter(|entry| entry.index > truncated) {
        let place = (wanted.index - truncated - 1) as usize;
        match found.get(place) {
            Some(entry) if entry == wanted => {}
            // A later append of a higher term may have cut it.
            Some(entry) if entry.term > wanted.term => {}
            None if last < promised_last && state.term > promised.vote.0 => {}
            found => panic!("{told}: {found:?} in the place of entry {}", wanted.index),
        }
    }
}

#[test]
fn a_crash_at_any_call_loses_nothing_that_was_promised_also_while_recovering() {
    let quiet = machine();
    let begin = quiet.calls();
    play(&quiet);
    let calls = quiet.calls();
    assert!(calls > 60, "the history makes {calls} calls only");
    for call in begin + 1..=calls {
        for seed in 0..6 {
            let fs = machine();
            fs.crash_at(call);
            let promised = play(&fs);
            fs.crash(seed);
            let told = format!("crash at call {call}, seed {seed}");
            // And once more in the middle of the recovery.
            let again = fs.fork();
            again.crash_at(again.calls() + 1 + (seed * 7 + call) % 12);
            let _ = StoreTest::open(again.clone(), small_config());
            again.crash(seed + 100);
            check(&again, &promised, &format!("{told}, again while recovering"));
            check(&fs, &promised, &told);
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_it_wrote() {
    let fs = machine();
    let promised = play(&fs);
    fs.kill();
    check(&fs, &promised, "killed");
}

#[test]
fn what_a_start_reports_survives_the_next_crash_also_after_a_sync_that_failed() {
    let quiet = machine();
    play(&quiet);
    let syncs = quiet.syncs();
    for sync in 1..=syncs {
        for seed in 0..4 {
            let told = format!("sync {sync} failed, seed {seed}");
            let fs = machine();
            fs.fail_sync_at(sync, seed);
            let promised = play(&fs);
            // The process ends; the page cache still has what the disk has not, as clean pages.
            fs.kill();
            let opened = StoreTest::open(fs.clone(), small_config());
            let mut test = opened.unwrap_or_else(|error| panic!("{told}: {error}"));
            let reported = test.read_all();
            drop(test);
            fs.evict(seed);
            fs.crash(seed);
            check(&fs, &promised, &told);
            let mut test = StoreTest::open(fs.clone(), small_config()).expect("checked before");
            assert_eq!(test.read_all(), reported, "{told}");
        }
    }
}

/// The log files of a machine, without their directories.
fn files(fs: &MemFileSystem, extension: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    fs.files().into_iter().filter(is_one).map(|path| Path::new("/").join(path)).collect()
}

#[test]
fn a_flipped_bit_in_the_log_is_refused_or_cut_off_the_very_end_and_never_served() {
    let fs = machine();
    let mut test = StoreTest::open(fs.clone(), small_config()).expect("an empty machine");
    for index in 1..=40 {
        test.persist(&[entry(index, 1)], Some(hard_state(1, 1, index)));
        test.sync().expect("a disk that works");
    }
    test.persist(&[entry(41, 1)], None);
    // The last group, which nothing vouches for: the process ends before the quiet.
    test.parts.writer.step().expect("a disk that works");
    drop(test);
    fs.kill();
    let used = files(&fs, "wal").into_iter().flat_map(|path| {
        let contents = fs.contents(&path).expect("the log");
        let used = contents.into_iter().enumerate().filter(|(_, byte)| *byte != 0);
        used.map(|(at, _)| (path.clone(), at)).collect::<Vec<(PathBuf, usize)>>()
    });
    let (mut refused, mut cut, mut harmless) = (0, 0, 0);
    for (path, at) in used {
        let fs = fs.fork();
        fs.flip(&path, at as u64, (at % 8) as u8).expect("a byte");
        match StoreTest::open(fs, small_config()) {
            Err(RaftError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
            Ok(mut test) => {
                let found = test.read_all();
                match found.len() {
                    41 => harmless += 1,
                    40 => cut += 1,
                    short => panic!("byte {at}: shortened to {short} entries"),
                }
                assert_eq!(found[..], entries(1..=found.len() as u64, 1)[..]);
            }
        }
    }
    assert!(refused > 1000 && cut > 50, "{refused} refused, {cut} cut, {harmless} harmless");
}

#[test]
fn a_flipped_bit_in_a_snapshot_is_refused() {
    let mut test = StoreTest::new();
    test.persist(&entries(1..=50, 1), Some(hard_state(1, 1, 50)));
    test.sync().expect("a disk that works");
    test.store().evict(50);
    let meta = SnapshotMeta { index: 40, term: 1, ..test.store().newest_snapshot() };
    test.compact(&meta, 30, b"the state");
    test.sync().expect("a disk that works");
    let fs = test.fs.clone();
    drop(test);
    fs.kill();
    let path = files(&fs, "snapshot").remove(0);
    for at in 0..fs.contents(&path).expect("the snapshot").len() {
        let fs = fs.fork();
        fs.flip(&path, at as u64, (at % 8) as u8).expect("a byte");
        let refused = StoreTest::open(fs, small_config()).err().expect("refused");
        assert!(matches!(refused, RaftError::Damaged { .. }), "byte {at}: {refused}");
    }
}

#[test]
fn a_file_missing_from_the_middle_of_the_log_is_refused() {
    let fs = machine();
    let mut test = StoreTest::open(fs.clone(), small_config()).expect("an empty machine");
    for index in 1..=200 {
        let mut entry = entry(index, 1);
        entry.data = vec![1; 1000].into();
        test.persist(&[entry], Some(hard_state(1, 1, index)));
        test.sync().expect("a disk that works");
    }
    drop(test);
    fs.kill();
    let log_files = files(&fs, "wal");
    assert!(log_files.len() > 3, "{} files", log_files.len());
    for path in &log_files[..log_files.len() - 1] {
        use tidelog_wal::env::FileSystem as _;
        let fs = fs.fork();
        fs.remove_file(path).expect("a file");
        let refused = StoreTest::open(fs, small_config()).err();
        assert!(matches!(refused, Some(RaftError::Damaged { .. })), "{}", path.display());
    }
}

#[test]
fn a_full_disk_is_waited_out_and_loses_nothing() {
    let mut test = StoreTest::new();
    test.fs.set_capacity(100 << 10);
    let mut last = 0;
    while test.parts.writer.step().expect("no failed sync") != crate::log::Step::Blocked {
        last += 1;
        let mut entry = entry(last, 1);
        entry.data = vec![1; 1000].into();
        test.persist(&[entry], Some(hard_state(1, 1, last - 1)));
        assert!(last < 1000, "the disk never filled up");
    }
    test.fs.set_capacity(u64::MAX);
    test.sync().expect("a disk with space");
    let mut test = test.reopen().expect("a readable disk");
    assert_eq!(test.read_all().len() as u64, last);
}
