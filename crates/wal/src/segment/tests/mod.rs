//! What the segments promise, over a machine in memory.

#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges are what is compared")]

mod crash;
mod damage;
mod large;
mod reads;
mod swap;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tidelog_types::{
    BATCH_HEADER_LEN, BatchHeader, Entry, LeaderEpoch, Offset, ProducerEpoch, ProducerId,
    batch_header::BATCH_CRC_START,
};

use super::*;
use crate::{
    ReadError,
    checksum::crc32c,
    env::{
        FileSystem,
        fault::{Call, Effect, Fault, FaultFileSystem},
        mem::MemFileSystem,
    },
};

const DIR: &str = "topics/t/0";

/// A batch with `records_bytes` bytes of records, all of them `fill`.
pub(super) fn batch(
    base: i64,
    count: i32,
    records_bytes: usize,
    fill: u8,
    timestamp: i64,
) -> Entry {
    let records = Bytes::from(vec![fill; records_bytes]);
    let mut facts = BatchHeader {
        base_offset: Offset(base),
        length: (BATCH_HEADER_LEN - 12 + records_bytes) as i32,
        leader_epoch: LeaderEpoch(3),
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch::NONE,
        base_sequence: -1,
        records_count: count,
    };
    facts.crc = crc32c(&[&facts.encode()[BATCH_CRC_START..], &records]);
    Entry { header: facts.encode(), records }
}

/// `count` batches of two records from `base` on, each with `records_bytes` bytes of records;
/// every batch's timestamp is a tenth of its offset.
fn batches(base: i64, count: i64, records_bytes: usize) -> Vec<Entry> {
    let at = |n: i64| base + 2 * n;
    (0..count).map(|n| batch(at(n), 2, records_bytes, at(n) as u8, at(n) / 10)).collect()
}

fn bytes_of(entries: &[Entry]) -> Vec<u8> {
    entries.iter().flat_map(|entry| [&entry.header[..], &entry.records[..]].concat()).collect()
}

const CONFIG: SegmentsConfig = config(2000, 300);

const fn config(segment_bytes: u64, index_interval_bytes: u32) -> SegmentsConfig {
    let (segment_ms, segment_jitter_ms) = (i64::MAX, 0);
    SegmentsConfig { segment_bytes, segment_ms, segment_jitter_ms, index_interval_bytes }
}

fn open_at(machine: &MemFileSystem, start: i64, recovery_point: i64) -> (Segments, SegmentsReport) {
    open_with(Arc::new(machine.clone()), start, recovery_point, CONFIG)
}

fn open_with(
    fs: Arc<dyn FileSystem>,
    start: i64,
    recovery_point: i64,
    config: SegmentsConfig,
) -> (Segments, SegmentsReport) {
    let files = FileCache::new(fs, 4);
    Segments::open(&files, Path::new(DIR), Offset(recovery_point), Offset(start), config).unwrap()
}

/// Segments that hold `entries`, synced.
fn filled(machine: &MemFileSystem, entries: &[Entry]) -> Segments {
    let (mut segments, _) = open_at(machine, 0, 0);
    segments.append(entries).unwrap();
    segments.sync().unwrap();
    segments
}

/// Everything readable, with the ranges that are not.
fn read_all(segments: &Segments) -> (Vec<u8>, Vec<Range<i64>>) {
    let reader = segments.reader();
    let (mut bytes, mut damaged) = (Vec::new(), Vec::new());
    let mut next = segments.start_offset();
    while next < segments.end_offset() {
        match reader.read(next, segments.end_offset(), 500, true) {
            Ok(pieces) => {
                let piece = pieces.concat();
                next = last_header(&piece).next_offset();
                bytes.extend(piece);
            }
            Err(ReadError::Damaged { range }) => {
                assert!(range.contains(&next), "{range:?} does not hold {next}");
                damaged.push(range.start.0..range.end.0);
                next = range.end;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (bytes, damaged)
}

fn last_header(mut bytes: &[u8]) -> BatchHeader {
    loop {
        let header = BatchHeader::decode(bytes.first_chunk().unwrap());
        bytes = &bytes[header.batch_bytes() as usize..];
        if bytes.is_empty() {
            return header;
        }
    }
}

/// Of files that are not about to be deleted.
fn names(machine: &MemFileSystem) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let files = machine.files().into_iter();
    files.filter(|path| !crate::removals::is_doomed(path)).map(name).collect()
}

fn log_path(base: i64) -> String {
    format!("{DIR}/{base:020}.log")
}

fn index_path(base: i64) -> String {
    format!("{DIR}/{base:020}.seek")
}

#[test]
fn a_partition_has_no_directory_before_its_first_batch() {
    let machine = MemFileSystem::new();
    let (mut segments, report) = open_at(&machine, 7, 7);
    segments.append(&[]).unwrap();
    segments.sync().unwrap();
    assert_eq!(report, SegmentsReport::default());
    assert!(!machine.exists(Path::new("topics")).unwrap());
    assert_eq!((segments.start_offset(), segments.end_offset()), (Offset(7), Offset(7)));
    assert!(segments.reader().read(Offset(7), Offset(7), 9, true).unwrap().is_empty());
}

#[test]
fn files_hold_the_batches_bytes_and_nothing_else() {
    // Buffered and direct, beginning at a sector's border and within one, in one pass or many.
    for (sizes, config_bytes) in [([100, 100, 100], 2000), ([700_000, 300_000, 10], 1 << 30)] {
        let machine = MemFileSystem::new();
        let config = config(config_bytes, 4096);
        let (mut segments, _) = open_with(Arc::new(machine.clone()), 0, 0, config);
        let entries: Vec<Entry> =
            (0..).zip(sizes).map(|(n, size)| batch(n, 1, size, n as u8, 0)).collect();
        for entry in &entries {
            segments.append(std::slice::from_ref(entry)).unwrap();
            segments.sync().unwrap();
        }
        assert_eq!(machine.disk_contents(log_path(0)).unwrap(), bytes_of(&entries), "{sizes:?}");
        assert_eq!(read_all(&segments), (bytes_of(&entries), vec![]));
        assert_eq!(segments.bytes(), bytes_of(&entries).len() as u64);
    }
}

#[test]
fn a_real_disk_holds_the_batches_bytes_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join(DIR);
    let config = config(3 << 20, 4096);
    let fs: Arc<dyn FileSystem> = Arc::new(crate::env::std::StdFileSystem);
    let files = FileCache::new(Arc::clone(&fs), 4);
    let open = |end| Segments::open(&files, &dir, Offset(end), Offset(0), config).unwrap();
    let (mut segments, _) = open(0);
    // 70 KiB go through the cache, 700 KiB past it.
    let mut written = Vec::new();
    for pass in 0..12 {
        let more = batches(written.len() as i64 * 2, if pass % 3 == 0 { 7 } else { 70 }, 10_000);
        segments.append(&more).unwrap();
        segments.sync().unwrap();
        written.extend(more);
    }
    let end = written.len() as i64 * 2;
    drop(segments);
    let (segments, report) = open(end);
    assert_eq!(report, SegmentsReport::default());
    let logs = fs.list(&dir).unwrap().into_iter().filter(|path| file::base_of(path).is_some());
    let logs: Vec<Vec<u8>> = logs.map(|path| std::fs::read(path).unwrap()).collect();
    assert!(logs.len() > 1 && logs.concat() == bytes_of(&written));
    assert!(read_all(&segments) == (bytes_of(&written), vec![]));
    segments.abandon();
    remove_dir(&*fs, &dir).unwrap();
    assert_eq!(fs.list(&root.path().join("topics")).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn a_segment_is_closed_where_the_next_batch_would_not_fit() {
    let machine = MemFileSystem::new();
    // 161 bytes a batch: twelve in a segment of 2000 bytes.
    let entries = batches(0, 30, 100);
    let segments = filled(&machine, &entries);
    for (base, from, to) in [(0, 0, 12), (24, 12, 24), (48, 24, 30)] {
        assert_eq!(machine.contents(log_path(base)).unwrap(), bytes_of(&entries[from..to]));
    }
    assert_eq!(read_all(&segments), (bytes_of(&entries), vec![]));
}

#[test]
fn a_batch_larger_than_a_segment_has_one_to_itself() {
    let machine = MemFileSystem::new();
    let entries = [batch(0, 1, 10, 1, 0), batch(1, 1, 5000, 2, 0), batch(2, 1, 10, 3, 0)];
    let segments = filled(&machine, &entries);
    assert_eq!(machine.contents(log_path(1)).unwrap(), bytes_of(&entries[1..2]));
    assert_eq!(read_all(&segments), (bytes_of(&entries), vec![]));
}

#[test]
fn a_segment_is_closed_where_an_offset_would_lie_too_far_from_its_base() {
    let machine = MemFileSystem::new();
    let far = i64::from(i32::MAX);
    let entries = [
        batch(0, 1, 10, 1, 0),
        batch(1, i32::MAX, 10, 2, 0),
        batch(far + 1, 1, 10, 3, 0),
        batch(far + 2, 1, 10, 4, 0),
    ];
    filled(&machine, &entries);
    assert_eq!(machine.contents(log_path(0)).unwrap(), bytes_of(&entries[..2]));
    assert_eq!(machine.contents(log_path(far + 1)).unwrap(), bytes_of(&entries[2..]));
}

#[test]
fn offsets_that_are_missing_are_damage_and_the_rest_is_read() {
    let machine = MemFileSystem::new();
    let (front, back) = (batches(0, 3, 100), batches(10, 3, 100));
    let mut segments = filled(&machine, &front);
    segments.append(&back).unwrap();
    segments.sync().unwrap();
    let all = [bytes_of(&front), bytes_of(&back)].concat();
    assert_eq!(read_all(&segments), (all.clone(), vec![6..10]));
    let (segments, _) = open_at(&machine, 0, 16);
    assert_eq!(read_all(&segments), (all, vec![6..10]));
}

#[test]
fn a_read_gives_whole_batches_below_upper_and_within_its_bytes() {
    let machine = MemFileSystem::new();
    let entries = batches(0, 10, 100);
    let reader = filled(&machine, &entries).reader();
    // 161 bytes a batch; from, upper, bytes, at least one → batches.
    for (from, upper, bytes, at_least_one, found) in [
        (0, 20, 1000, false, 0..6),
        (3, 20, 322, false, 1..3),
        (4, 20, 321, false, 2..3),
        (4, 20, 160, false, 0..0),
        (4, 20, 0, true, 2..3),
        (4, 7, 1000, true, 2..3),
        (4, 5, 1000, true, 0..0),
        (20, 20, 1000, true, 0..0),
    ] {
        let read = reader.read(Offset(from), Offset(upper), bytes, at_least_one).unwrap();
        let case = (from, upper, bytes, at_least_one);
        assert_eq!(read.concat(), bytes_of(&entries[found]), "{case:?}");
    }
    for from in [-1, 21] {
        let refused = reader.read(Offset(from), Offset(20), 1000, true).unwrap_err();
        assert!(matches!(refused, ReadError::OffsetOutOfRange { .. }), "{from}: {refused}");
    }
}

#[test]
fn a_small_piece_of_a_large_read_does_not_keep_it_in_memory() {
    let machine = MemFileSystem::new();
    let entries = [batch(0, 1, 10, 1, 0), batch(1, 1, 900, 2, 0)];
    let reader = filled(&machine, &entries).reader();
    let read = reader.read(Offset(0), Offset(1), 10, true).unwrap().remove(0);
    assert_eq!(read, bytes_of(&entries[..1]));
    assert!(read.try_into_mut().is_ok_and(|bytes| bytes.capacity() < 200));
}

#[test]
fn timestamps_are_found_in_open_and_closed_segments() {
    let machine = MemFileSystem::new();
    let mut entries = batches(0, 30, 100);
    entries.push(batch(60, 1, 10, 0, 2));
    drop(filled(&machine, &entries));
    for (segments, _) in [open_at(&machine, 0, 61), open_at(&machine, 21, 61)] {
        let reader = segments.reader();
        let base = |found: Option<Entry>| found.map(|entry| entry.facts().base_offset.0);
        let start = segments.start_offset().0;
        for (timestamp, from) in (-1..7).flat_map(|time| [(time, 0), (time, 25), (time, 47)]) {
            let is_first = |e: &&Entry| {
                let next = e.facts().next_offset().0;
                next > start.max(from) && e.facts().max_timestamp >= timestamp
            };
            let expected = entries.iter().find(is_first).cloned();
            let found = reader.find_by_timestamp(timestamp, Offset(from), Offset(61)).unwrap();
            assert_eq!(found, expected, "timestamp {timestamp} from {start}, {from}");
        }
        assert_eq!(base(reader.find_by_timestamp(5, Offset(0), Offset(51)).unwrap()), None);
        assert_eq!(base(reader.find_by_timestamp(5, Offset(0), Offset(52)).unwrap()), Some(50));
        for (upper, greatest) in [(61, Some(50)), (45, Some(40)), (24, Some(20))] {
            let found = reader.find_max_timestamp(Offset(0), Offset(upper)).unwrap();
            let greatest = greatest.map(|offset: i64| offset.max(start));
            let expected = if greatest == Some(21) { Some(20) } else { greatest };
            assert_eq!(base(found), expected, "below {upper} from {start}");
        }
    }
}

#[test]
fn headers_follow_from_any_offset() {
    let machine = MemFileSystem::new();
    let entries = batches(0, 30, 100);
    drop(filled(&machine, &entries));
    let reader = open_at(&machine, 0, 60).0.reader();
    for from in [0, 1, 25, 59, 60] {
        let found: Vec<BatchHeader> =
            reader.headers_from(Offset(from)).map(Result::unwrap).collect();
        let facts = entries.iter().map(Entry::facts);
        let expected: Vec<_> = facts.filter(|f| f.next_offset() > Offset(from)).collect();
        assert_eq!(found, expected, "from {from}");
    }
}

#[test]
fn a_cut_goes_to_a_batchs_border_and_appends_go_on_there() {
    for (to, end) in [(60, 60), (59, 58), (58, 58), (48, 48), (25, 24), (24, 24), (3, 2), (0, 0)] {
        let machine = MemFileSystem::new();
        let mut segments = filled(&machine, &batches(0, 30, 100));
        assert_eq!(segments.reader().batch_boundary(Offset(to)).unwrap(), Offset(end));
        assert_eq!(segments.cut(Offset(to)).unwrap(), Offset(end), "to {to}");
        let mut expected = batches(0, end / 2, 100);
        assert_eq!(read_all(&segments), (bytes_of(&expected), vec![]), "to {to}");
        let more = batches(end, 20, 90);
        segments.append(&more).unwrap();
        expected.extend(more);
        assert_eq!(read_all(&segments), (bytes_of(&expected), vec![]), "after {to}");
    }
}

#[test]
fn what_is_below_the_log_start_goes_by_whole_segments() {
    let machine = MemFileSystem::new();
    let mut segments = filled(&machine, &batches(0, 30, 100));
    let mut drop = |to| segments.drop_below(Offset(to), Duration::ZERO).unwrap();
    assert_eq!(drop(23), []);
    assert_eq!(drop(49), [Offset(0)..Offset(24), Offset(24)..Offset(48)]);
    assert_eq!(names(&machine), ["00000000000000000048.log", "00000000000000000048.seek"]);
    assert_eq!(segments.start_offset(), Offset(49));
    assert_eq!(read_all(&segments).0, bytes_of(&batches(48, 6, 100)));
    assert_eq!(segments.drop_below(Offset(60), Duration::ZERO).unwrap(), [Offset(48)..Offset(60)]);
    segments.append(&batches(60, 1, 10)).unwrap();
    assert_eq!(names(&machine), ["00000000000000000060.log", "00000000000000000060.seek"]);
}

#[test]
fn a_segment_that_an_earlier_process_began_ends_by_its_time_as_well() {
    for (segment_ms, logs) in [(12, 2), (13, 1), (i64::MAX, 1)] {
        let machine = MemFileSystem::new();
        let large = SegmentsConfig { segment_ms, ..config(1 << 20, 300) };
        let open = |end| open_with(Arc::new(machine.clone()), 0, end, large).0;
        let mut segments = open(0);
        segments.append(&batches(100, 10, 100)).unwrap(); // its first batch is of 10 ms
        segments.sync().unwrap();
        let mut segments = open(120);
        segments.append(&[batch(120, 1, 100, 0, 23)]).unwrap();
        let found = names(&machine).into_iter().filter(|name| name.ends_with(".log")).count();
        assert_eq!(found, logs, "{segment_ms}");
    }
}

#[test]
fn a_reset_leaves_nothing_and_goes_on_elsewhere() {
    let machine = MemFileSystem::new();
    let mut segments = filled(&machine, &batches(0, 30, 100));
    segments.reset(Offset(1000)).unwrap();
    assert_eq!(names(&machine), Vec::<String>::new());
    segments.append(&batches(1000, 1, 10)).unwrap();
    assert_eq!(read_all(&segments), (bytes_of(&batches(1000, 1, 10)), vec![]));
}

#[test]
fn a_removed_partition_leaves_no_name_and_answers_no_read() {
    let machine = MemFileSystem::new();
    let segments = filled(&machine, &batches(0, 30, 100));
    let reader = segments.reader();
    segments.abandon();
    remove_dir(&machine, Path::new(DIR)).unwrap();
    machine.crash(0);
    assert_eq!(machine.list(Path::new("topics")).unwrap(), Vec::<PathBuf>::new());
    let refused = reader.read(Offset(0), Offset(60), 1, true).unwrap_err();
    assert!(matches!(refused, ReadError::Closed), "{refused}");
}

#[test]
fn opening_reads_no_closed_segment() {
    let machine = MemFileSystem::new();
    drop(filled(&machine, &batches(0, 300, 100)));
    let fs = FaultFileSystem::new(Arc::new(machine.clone()));
    let (segments, _) = open_with(Arc::new(fs.clone()), 0, 600, CONFIG);
    assert_eq!(fs.calls(Call::Open) + fs.calls(Call::Create), 3, "log, index twice");
    assert!(fs.calls(Call::Read) <= 3, "{} reads", fs.calls(Call::Read));
    assert_eq!(read_all(&segments).1, []);
}

#[test]
fn without_direct_writes_large_passes_go_through_the_cache() {
    let machine = MemFileSystem::new();
    let fs = FaultFileSystem::new(Arc::new(machine.clone()));
    // Among the calls of an append, the first open that does not create is the direct one.
    fs.inject(Fault::every(Call::Open, Effect::Error(libc::EINVAL)).times(1));
    let (mut segments, _) = open_with(Arc::new(fs.clone()), 0, 0, CONFIG);
    let entries = [batch(0, 1, 700_000, 1, 0), batch(1, 1, 700_000, 2, 0)];
    segments.append(&entries).unwrap();
    assert_eq!(fs.faults_met(), 1);
    assert_eq!(read_all(&segments), (bytes_of(&entries), vec![]));
}

#[test]
fn a_full_disk_refuses_the_append_and_takes_it_when_there_is_room() {
    let entries = [batches(0, 20, 100), vec![batch(40, 1, 400_000, 1, 0)], batches(41, 20, 100)];
    let entries = entries.concat();
    let whole = bytes_of(&entries).len() as u64 * 2;
    for capacity in (0..whole).step_by(whole as usize / 97) {
        let machine = MemFileSystem::new();
        machine.set_capacity(capacity);
        let (mut segments, _) = open_at(&machine, 0, 0);
        while let Err(error) = segments.append(&entries) {
            assert!(matches!(error, SegmentError::DiskFull { .. }), "{error}");
            let (held, damaged) = read_all(&segments);
            assert!(bytes_of(&entries).starts_with(&held) && damaged.is_empty());
            machine.set_capacity(capacity + whole);
        }
        segments.sync().unwrap();
        assert_eq!(read_all(&segments), (bytes_of(&entries), vec![]), "capacity {capacity}");
        machine.crash(capacity);
        let (segments, report) = open_at(&machine, 0, 81);
        assert_eq!(report, SegmentsReport::default());
        assert_eq!(read_all(&segments), (bytes_of(&entries), vec![]), "capacity {capacity}");
    }
}

#[test]
fn too_few_descriptors_are_load_and_not_damage() {
    let machine = MemFileSystem::new();
    let entries = batches(0, 30, 100);
    let mut segments = filled(&machine, &entries);
    machine.set_open_files_max(0);
    let read = segments.reader().read(Offset(0), Offset(60), 1, true).unwrap_err();
    assert!(matches!(read, ReadError::TooManyOpenFiles), "{read}");
    let written = segments.append(&batches(60, 1, 10)).unwrap_err();
    assert!(matches!(written, SegmentError::TooManyOpenFiles { .. }), "{written}");
    machine.set_open_files_max(8);
    segments.append(&batches(60, 1, 10)).unwrap();
    assert_eq!(read_all(&segments).1, []);
}

/// `count` partitions with a batch each, nothing synced.
fn many(fs: &FaultFileSystem, count: i64) -> (Arc<FileCache>, Vec<Segments>) {
    let files = FileCache::new(Arc::new(fs.clone()), 4);
    let open = |n: i64| {
        let dir = PathBuf::from(format!("topics/many/{n}"));
        let (mut segments, _) = Segments::open(&files, &dir, Offset(0), Offset(0), CONFIG).unwrap();
        segments.append(&batches(0, 2, 200)).unwrap();
        segments
    };
    let all = (0..count).map(open).collect();
    (files, all)
}

#[test]
fn many_partitions_are_synced_with_one_call_and_each_later_write_with_another() {
    for (count, later) in [(40_i64, 7_i64), (400, 300)] {
        let machine = MemFileSystem::new();
        let fs = FaultFileSystem::new(Arc::new(machine.clone()));
        let (files, mut all) = many(&fs, count);
        all.iter_mut().for_each(|segments| segments.sync().unwrap());
        assert_eq!((fs.calls(Call::SyncAll), fs.calls(Call::Sync)), (1, 0), "{count} partitions");
        all[later as usize].append(&batches(4, 2, 200)).unwrap();
        all[later as usize].sync().unwrap();
        drop((files, all));
        machine.crash(count as u64);
        for n in 0..count {
            let files = FileCache::new(Arc::new(machine.clone()), 4);
            let (dir, end) = (format!("topics/many/{n}"), if n == later { 8 } else { 4 });
            let opened = Segments::open(&files, Path::new(&dir), Offset(end), Offset(0), CONFIG);
            let (segments, report) = opened.unwrap();
            assert_eq!(report, SegmentsReport::default(), "partition {n}");
            assert_eq!(read_all(&segments), (bytes_of(&batches(0, end / 2, 200)), vec![]));
        }
    }
}

/// What is opened after a sync of everything owes one of its own for what it unlinked.
#[test]
fn a_sync_of_everything_covers_nothing_that_comes_after_it() {
    for seed in 0..40 {
        let machine = MemFileSystem::new();
        let fs = FaultFileSystem::new(Arc::new(machine.clone()));
        let expected = batches(0, 7, 100);
        let mut segments = filled(&machine, &expected[..5]);
        segments.append(&batches(12, 1, 90)).unwrap();
        segments.sync().unwrap();
        machine.kill();
        let (files, mut all) = many(&fs, 20);
        all.iter_mut().skip(1).for_each(|segments| segments.sync().unwrap());
        drop(all);
        let opened = Segments::open(&files, Path::new(DIR), Offset(10), Offset(0), CONFIG);
        let mut segments = opened.unwrap().0;
        segments.append(&expected[5..]).unwrap();
        segments.sync().unwrap();
        machine.crash(seed);
        let (segments, _) = open_at(&machine, 0, 14);
        assert_eq!(read_all(&segments), (bytes_of(&expected), vec![]), "seed {seed}");
    }
}

#[test]
fn a_failed_sync_of_everything_is_fatal() {
    let machine = MemFileSystem::new();
    let (_files, mut all) = many(&FaultFileSystem::new(Arc::new(machine.clone())), 20);
    machine.fail_sync_at(machine.syncs() + 1, 0);
    assert!(matches!(all[0].sync(), Err(SegmentError::Fatal(_))));
}

#[test]
fn a_failed_sync_is_fatal() {
    let machine = MemFileSystem::new();
    let (mut segments, _) = open_at(&machine, 0, 0);
    segments.append(&batches(0, 1, 10)).unwrap();
    machine.fail_sync_at(machine.syncs() + 1, 0);
    assert!(matches!(segments.sync(), Err(SegmentError::Fatal(_))));
}

#[test]
fn readers_run_beside_the_writer() {
    let machine = MemFileSystem::new();
    let (mut segments, _) = open_at(&machine, 0, 0);
    let entries = batches(0, 600, 100);
    std::thread::scope(|scope| {
        let reader = segments.reader();
        let (all, entries) = (bytes_of(&entries), &entries);
        scope.spawn(move || {
            let mut next = Offset(0);
            let mut read = Vec::new();
            while next < Offset(1200) {
                let pieces = reader.read(next, Offset(1200), 700, true).unwrap().concat();
                if !pieces.is_empty() {
                    next = last_header(&pieces).next_offset();
                    read.extend(pieces);
                }
            }
            assert_eq!(read, all);
        });
        for some in entries.chunks(7) {
            segments.append(some).unwrap();
            segments.sync().unwrap();
        }
    });
}
