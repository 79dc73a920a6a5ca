//! Retention and removal: what goes, when, and in which order.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tidelog_types::Offset;

use super::support::*;
use crate::{
    Log, LogSettings,
    env::{
        FileSystem,
        fault::{Call, Fault, FaultFileSystem},
        mem::MemFileSystem,
    },
    shard::lock,
};

struct Test {
    mem: MemFileSystem,
    faults: FaultFileSystem,
    fs: Arc<dyn FileSystem>,
    node: Node,
    log: Log,
    observer: Arc<Observer>,
}

impl Test {
    fn new() -> Test {
        let mem = MemFileSystem::new();
        let faults = FaultFileSystem::new(Arc::new(mem.clone()));
        let fs: Arc<dyn FileSystem> = Arc::new(faults.clone());
        let node = Node::open(&fs, small_config()).unwrap();
        let (log, observer) = node.log(0);
        Test { mem, faults, fs, node, log, observer }
    }

    /// One batch of ten records and about a kilobyte, from so many milliseconds after 1970.
    fn append(&mut self, timestamp_ms: u8) {
        let entry = with_records(self.log.log_end_offset(), 10, vec![timestamp_ms; 900]);
        let reserved = self.node.wal.try_reserve(entry.len() as u64).unwrap();
        self.log.append(EPOCH, vec![entry], &mut reserved.expect("room")).unwrap();
        while self.log.durable_end_offset() < self.log.log_end_offset() {
            self.node.steppers.filler.step().unwrap();
            self.node.write().unwrap();
        }
        *lock(&self.observer.high_watermark) = self.log.log_end_offset();
    }

    /// Three segments of two batches each, of the times 10 to 60.
    fn three_segments() -> Test {
        let mut test = Test::new();
        (1..=6).for_each(|n| test.append(10 * n));
        test.node.spill().unwrap();
        assert_eq!(test.segments(), ["0.log", "20.log", "40.log"]);
        test
    }

    fn set(&self, retention_ms: i64, retention_bytes: i64, file_delete_delay: Duration) {
        let settings = LogSettings {
            segment_bytes: 2048,
            retention_ms,
            retention_bytes,
            file_delete_delay,
            ..LogSettings::default()
        };
        self.node.wal.update_settings(id(0), settings);
    }

    fn retain(&mut self, now_ms: i64) -> Offset {
        self.node.retain(now_ms).unwrap();
        self.log.log_start_offset()
    }

    /// Names of the files of all partitions, without leading zeros; indexes are left out.
    fn segments(&self) -> Vec<String> {
        let files = self.mem.files().into_iter();
        let below_topics = |path: &PathBuf| path.components().any(|c| c.as_os_str() == "topics");
        let names = files.filter(below_topics).filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            let short = name.trim_start_matches('0');
            let short = if short.starts_with('.') { format!("0{short}") } else { short.to_owned() };
            (name.contains(".log")).then_some(short)
        });
        names.collect()
    }

    fn after_power_loss(self, seed: u64) -> Test {
        let Test { mem, faults, fs, node, log, observer } = self;
        drop((node, log, observer));
        mem.crash(seed);
        let node = Node::open(&fs, small_config()).unwrap();
        assert_eq!(node.recovered.partitions.len(), 1);
        let (log, observer) = node.log(0);
        Test { mem, faults, fs, node, log, observer }
    }
}

#[test]
fn segments_whose_records_are_all_old_go_and_stay_gone() {
    let mut test = Test::three_segments();
    test.set(100, -1, Duration::ZERO);
    assert_eq!(test.retain(120), Offset(0), "the newest of the first segment is of 20");
    assert_eq!(test.retain(121), Offset(20));
    test.node.remove().unwrap();
    assert_eq!(test.segments(), ["20.log", "40.log"]);
    assert_eq!(test.log.size_bytes(), 4 * (61 + 900));
    let mut test = test.after_power_loss(3);
    assert_eq!(test.log.log_start_offset(), Offset(20));
    let expected = test.log.log_end_offset();
    let bytes = read_all(&mut test.node, &test.log, Offset(20));
    assert_eq!(last_batch_end(&bytes), expected);
}

#[test]
fn the_last_segment_goes_too_once_all_its_records_are_old() {
    let mut test = Test::three_segments();
    test.set(100, -1, Duration::ZERO);
    assert_eq!(test.retain(161), Offset(60));
    test.node.remove().unwrap();
    assert_eq!(test.segments(), [""; 0]);
    test.append(200);
    test.node.spill().unwrap();
    assert_eq!(test.segments(), ["60.log"]);
    let test = test.after_power_loss(4);
    let (start, end) = (test.log.log_start_offset(), test.log.log_end_offset());
    assert_eq!((start, end), (Offset(60), Offset(70)));
}

#[test]
fn records_that_are_in_memory_and_the_wal_only_go_too_and_hold_back_what_they_belong_to() {
    let mut test = Test::new();
    test.append(10);
    test.set(100, -1, Duration::ZERO);
    test.append(30);
    assert_eq!(test.retain(111), Offset(0));
    assert_eq!(test.retain(131), Offset(20));
    let mut test = test.after_power_loss(5);
    assert_eq!(test.log.log_start_offset(), Offset(20));
    assert_eq!(test.log.log_end_offset(), Offset(20));
    test.append(40);
    test.node.spill().unwrap();
    test.append(90);
    test.set(100, -1, Duration::ZERO);
    assert_eq!(test.retain(141), Offset(20), "the last segment goes on in memory");
    assert_eq!(test.retain(191), Offset(40));
}

#[test]
fn the_oldest_go_while_the_others_have_the_bytes() {
    let mut test = Test::three_segments();
    test.append(70);
    let segment_bytes = 2 * (61 + 900);
    test.set(-1, 2 * segment_bytes + 961, Duration::ZERO);
    assert_eq!(test.retain(1000), Offset(20), "what is in memory only counts");
    test.set(-1, 961, Duration::ZERO);
    assert_eq!(test.retain(1000), Offset(60));
}

#[test]
fn nothing_above_the_high_watermark_goes() {
    let mut test = Test::three_segments();
    test.set(0, 0, Duration::ZERO);
    *lock(&test.observer.high_watermark) = Offset(39);
    assert_eq!(test.retain(1000), Offset(20));
}

#[test]
fn a_log_that_keeps_everything_is_left_alone() {
    let mut test = Test::three_segments();
    test.set(-1, -1, Duration::ZERO);
    assert_eq!(test.retain(i64::MAX), Offset(0));
}

#[test]
fn the_log_starts_later_on_disk_before_a_file_goes() {
    let mut test = Test::three_segments();
    test.set(100, -1, Duration::ZERO);
    test.node.wal.run_retention(141);
    let mut crashes = 0;
    while test.node.steppers.spill.step().unwrap() == crate::threads::Step::Worked {
        for seed in 0..8 {
            let fork = test.mem.fork();
            fork.crash(seed);
            let fs: Arc<dyn FileSystem> = Arc::new(fork);
            let node = Node::open(&fs, small_config()).unwrap();
            let found = &node.recovered.partitions[0];
            assert!([Offset(0), Offset(40)].contains(&found.log_start_offset), "{found:?}");
            assert_eq!(found.damaged, []);
            crashes += 1;
        }
    }
    assert!(crashes >= 4 * 8);
    assert_eq!(test.log.log_start_offset(), Offset(40));
}

#[test]
fn files_outlive_their_removal_by_the_delay_and_a_restart_finds_them() {
    let mut test = Test::three_segments();
    test.set(100, -1, Duration::from_secs(3600));
    assert_eq!(test.retain(121), Offset(20));
    test.node.remove().unwrap();
    assert_eq!(test.segments(), ["0.log.deleted", "20.log", "40.log"]);
    assert_eq!(test.log.size_bytes(), 4 * (61 + 900), "it counts no more");
    let mut test = test.after_power_loss(6);
    test.node.remove().unwrap();
    assert_eq!(test.segments(), ["20.log", "40.log"]);
}

#[test]
fn a_full_disk_does_not_keep_retention_from_making_room() {
    let mut test = Test::three_segments();
    test.set(100, -1, Duration::from_secs(3600));
    test.append(200);
    let sizes = test.mem.files().into_iter().map(|path| test.mem.contents(path).unwrap().len());
    test.mem.set_capacity(sizes.sum::<usize>() as u64 + 500);
    test.node.wal.shard().want_checkpoint();
    while !test.node.wal.shard().is_disk_full() {
        test.node.steppers.spill.step().unwrap();
    }
    assert!(test.node.wal.try_reserve(1).is_err(), "appends are refused");
    test.node.wal.run_retention(161);
    for _ in 0..20 {
        test.node.steppers.spill.step().unwrap();
        test.node.steppers.remover.step().unwrap();
    }
    assert_eq!(test.log.log_start_offset(), Offset(40));
    assert_eq!(test.segments(), ["40.log", "60.log"], "nothing waits while space is short");
    assert!(test.node.wal.try_reserve(1).is_ok(), "appends are taken again");
}

#[test]
fn what_a_pass_wrote_before_the_disk_was_full_keeps_nobody_from_making_room() {
    let mut test = Test::three_segments();
    test.set(100, -1, Duration::from_secs(3600));
    (0..3).for_each(|_| test.append(200));
    // Room for the first of two more segments with its index, and then not even for a checkpoint.
    let sizes = test.mem.files().into_iter().map(|path| test.mem.contents(path).unwrap().len());
    test.mem.set_capacity((sizes.sum::<usize>() + 2 * (61 + 900) + 64 + 100) as u64);
    test.node.wal.shard().want_checkpoint();
    while !test.node.wal.shard().is_disk_full() {
        test.node.steppers.spill.step().unwrap();
    }
    assert_eq!(test.segments(), ["0.log", "20.log", "40.log"], "a full disk keeps nothing of it");
    test.node.wal.run_retention(161);
    for _ in 0..20 {
        test.node.steppers.spill.step().unwrap();
        test.node.steppers.remover.step().unwrap();
    }
    assert_eq!(test.log.log_start_offset(), Offset(40));
    assert_eq!(test.segments(), ["40.log", "60.log", "80.log"]);
    assert!(test.node.wal.try_reserve(1).is_ok(), "appends are taken again");
    let test = test.after_power_loss(7);
    let (start, end) = (test.log.log_start_offset(), test.log.log_end_offset());
    assert_eq!((start, end), (Offset(40), Offset(90)));
}

#[test]
fn a_start_removes_many_directories_with_few_syncs() {
    let mut test = Test::new();
    let many = 60;
    let logs: Vec<Log> = (1..=many).map(|partition| test.node.log(partition).0).collect();
    logs.iter().for_each(|log| drop(test.node.append(log, 1, 100, 1)));
    while logs.iter().any(|log| log.durable_end_offset() == Offset(0)) {
        test.node.steppers.filler.step().unwrap();
        test.node.write().unwrap();
    }
    test.node.spill().unwrap();
    (1..=many).for_each(|partition| test.node.wal.remove_log(id(partition)).unwrap());
    test.node.spill().unwrap();
    assert_eq!(test.segments().len(), many as usize, "the files go in the background");
    let syncs = |test: &Test| [Call::SyncDir, Call::SyncAll].map(|call| test.faults.calls(call));
    let before = syncs(&test).iter().sum::<u64>();
    let test = test.after_power_loss(8);
    assert_eq!(test.segments(), [""; 0]);
    let topics = test.fs.list("/data/topics".as_ref()).unwrap();
    assert_eq!(topics, [""; 0].map(PathBuf::from), "nothing is left of the topic either");
    let syncs = syncs(&test).iter().sum::<u64>() - before;
    assert!(syncs < 16, "{syncs} syncs of directories");
}

#[test]
fn a_file_that_cannot_be_deleted_now_is_deleted_later() {
    let mut test = Test::three_segments();
    test.set(100, -1, Duration::ZERO);
    assert_eq!(test.retain(121), Offset(20));
    test.faults.inject(Fault::emfile(Call::RemoveFile).times(2));
    for _ in 0..3 {
        test.node.remove().unwrap();
    }
    assert_eq!(test.segments(), ["20.log", "40.log"]);
}

#[test]
fn a_removed_partition_comes_back_empty_once_its_files_are_gone() {
    let mut test = Test::three_segments();
    test.node.wal.remove_log(id(0)).unwrap();
    let open = |test: &Test| {
        let observer: Arc<Observer> = Arc::default();
        test.node.wal.open_log(id(0), LogSettings::default(), observer)
    };
    for _ in 0..2 {
        test.node.spill().unwrap();
        let refused = open(&test).unwrap_err();
        assert!(matches!(refused, crate::WalError::Removing { .. }), "{refused}");
    }
    assert_eq!(test.segments().len(), 3, "nobody waits for the files to go");
    test.node.remove().unwrap();
    assert_eq!(test.segments(), [""; 0]);
    while test.node.steppers.spill.step().unwrap() == crate::threads::Step::Worked {}
    let log = open(&test).expect("it may come back");
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(0), Offset(0)));
}

#[test]
fn a_topic_of_many_files_goes_a_few_names_at_a_time() {
    let mut test = Test::new();
    for n in 0..60 {
        test.append(n);
        if n % 10 == 9 {
            test.node.spill().unwrap();
        }
    }
    let files = test.segments().len();
    assert_eq!(files, 30);
    test.node.wal.remove_log(id(0)).unwrap();
    test.node.spill().unwrap();
    let mut left = vec![files];
    while test.node.steppers.remover.step().unwrap() != crate::threads::Step::Idle {
        left.push(test.segments().len());
    }
    assert!(left.windows(2).all(|pair| pair[0] - pair[1] <= 16), "{left:?}");
    assert!(left.len() > 3 && left.last() == Some(&0), "{left:?}");
}
