//! Reads that go past the page cache or were made ahead find what others would.

use proptest::prelude::*;

use super::*;
use crate::segment::Take;

const LARGE: SegmentsConfig = config(3 << 20, 4096);

/// 20 KB a batch, two records each, all bytes `fill`.
fn large_batches(base: i64, count: i64, fill: u8) -> Vec<Entry> {
    (0..count).map(|n| batch(base + 2 * n, 2, 20_000, fill, 0)).collect()
}

fn open_large(fs: Arc<dyn FileSystem>, end: i64) -> Segments {
    open_with(fs, 0, end, LARGE).0
}

fn written(fs: Arc<dyn FileSystem>, entries: &[Entry]) -> Segments {
    let mut segments = open_large(fs, 0);
    segments.append(entries).unwrap();
    segments.sync().unwrap();
    segments
}

fn take(from: i64, upper: i64, max_bytes: usize) -> Take {
    Take { from: Offset(from), upper: Offset(upper), max_bytes, at_least_one: true }
}

/// What a consumer may ask for, and what may happen meanwhile.
#[derive(Debug, Clone)]
enum Step {
    /// From a share of the log, so many bytes; or, if `goes_on`, from where the last one ended.
    Read {
        goes_on: bool,
        from: f64,
        upper: f64,
        max_bytes: usize,
    },
    /// From where the last one ended.
    ReadAhead {
        max_bytes: usize,
    },
    Append {
        count: i64,
    },
    Cut {
        to: f64,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let size = || 0..1_500_000_usize;
    prop_oneof![
        6 => (any::<bool>(), 0.0..1.0, 0.3..1.0, size())
            .prop_map(|(goes_on, from, upper, max_bytes)| Step::Read {
                goes_on, from, upper, max_bytes
            }),
        6 => size().prop_map(|max_bytes| Step::ReadAhead { max_bytes }),
        2 => (1..40_i64).prop_map(|count| Step::Append { count }),
        2 => (0.5..1.0).prop_map(|to| Step::Cut { to }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..Default::default()
    })]
    #[test]
    fn whatever_was_read_ahead_a_read_gives_what_lies_there_now(
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let machine = MemFileSystem::new();
        let mut entries = large_batches(0, 100, 0);
        let mut segments = written(Arc::new(machine.clone()), &entries);
        let (mut next, mut ahead, mut fill) = (0, None, 0);
        for step in steps {
            let end = entries.last().map_or(0, |entry| entry.facts().next_offset().0);
            let reader = segments.reader();
            match step {
                Step::Read { goes_on, from, upper, max_bytes } => {
                    let share = |share: f64| ((end as f64 * share) as i64).min(end);
                    let from = if goes_on && next <= end { next } else { share(from) };
                    let take = take(from, share(upper), max_bytes);
                    let read = reader.read_stream(&take, ahead.take().as_ref()).unwrap();
                    let found = read.pieces.concat();
                    let whole: Vec<&Entry> = entries
                        .iter()
                        .filter(|entry| entry.facts().next_offset().0 > from)
                        .filter(|entry| entry.facts().next_offset() <= read.next)
                        .collect();
                    let expected: Vec<u8> = whole.iter().flat_map(|e| bytes_of(&[(*e).clone()]))
                        .collect();
                    prop_assert!(found == expected, "{take:?}: {} bytes", found.len());
                    prop_assert!(read.next <= take.upper.max(take.from) && whole.len() <= 1
                        || found.len() <= max_bytes);
                    let first = entries.iter().find(|e| e.facts().next_offset().0 > from);
                    let is_readable = |e: &Entry| e.facts().next_offset() <= take.upper;
                    prop_assert_eq!(found.is_empty(), !first.is_some_and(is_readable));
                    next = read.next.0;
                }
                Step::ReadAhead { max_bytes } => {
                    ahead = reader.read_ahead(Offset(next), max_bytes as u64);
                }
                Step::Append { count } => {
                    fill += 1;
                    let more = large_batches(end, count, fill);
                    segments.append(&more).unwrap();
                    segments.sync().unwrap();
                    entries.extend(more);
                }
                Step::Cut { to } => {
                    let end = segments.cut(Offset((end as f64 * to) as i64)).unwrap();
                    entries.retain(|entry| entry.facts().next_offset() <= end);
                }
                Step::Reopen => segments = open_large(Arc::new(machine.clone()), end),
            }
        }
    }
}

#[test]
fn a_first_large_read_sees_the_disk_and_a_second_the_page_cache() {
    let machine = MemFileSystem::new();
    let entries = large_batches(0, 60, 1);
    let segments = written(Arc::new(machine.clone()), &entries);
    let reader = segments.reader();
    let open_files = machine.open_files();
    let read = |from: i64, max_bytes: usize| {
        reader.read_stream(&take(from, 120, max_bytes), None).unwrap().next.0
    };
    // A small one opens index and log; the first large one opens the log past the page cache.
    let next = read(0, 100_000);
    assert_eq!(machine.open_files(), open_files + 2);
    let next = read(next, 400_000);
    assert_eq!(machine.open_files(), open_files + 3);
    read(next, 400_000);
    let file = |base: i64| {
        let found = reader.view().segments.iter().find(|s| s.base.0 == base).cloned();
        found.unwrap()
    };
    let first = file(0);
    assert!(!first.note_scan(200_000, 600_000), "read before");
    assert!(first.note_scan(900_000, 1_300_000), "new to us");
}

#[test]
fn where_direct_reads_are_refused_or_short_large_reads_still_find_everything() {
    for effect in [Effect::Error(libc::EINVAL), Effect::Short(4096), Effect::Short(5000)] {
        let machine = MemFileSystem::new();
        let entries = large_batches(0, 60, 1);
        let faulty = FaultFileSystem::new(Arc::new(machine));
        let segments = written(Arc::new(faulty.clone()), &entries);
        // The index is read first.
        faulty.inject(Fault::every(Call::Read, effect).on_path(".log").times(1));
        let read = segments.reader().read(Offset(0), Offset(120), 700_000, true).unwrap();
        assert!(read.concat() == bytes_of(&entries[..34]), "{effect:?}");
    }
}

#[test]
fn a_bit_that_flipped_under_a_large_read_is_never_served() {
    let machine = MemFileSystem::new();
    let entries = large_batches(0, 60, 1);
    let segments = written(Arc::new(machine.clone()), &entries);
    let reader = segments.reader();
    let ahead = reader.read_ahead(Offset(0), 700_000);
    machine.flip(log_path(0), 100_000, 3).unwrap();
    let read = |from: i64, ahead| {
        let read = reader.read_stream(&take(from, 120, 700_000), ahead);
        read.map(|read| read.pieces.concat()).map_err(|error| error.to_string())
    };
    assert!(ahead.is_some());
    assert!(
        read(0, ahead.as_ref()) == Ok(bytes_of(&entries[..34])),
        "what was read before is whole"
    );
    assert!(read(0, None) == Ok(bytes_of(&entries[..4])), "the damaged batch ends the read");
    assert!(read(8, None).unwrap_err().contains("damaged"));
}

#[test]
fn what_was_read_ahead_and_written_anew_since_is_read_again() {
    let machine = MemFileSystem::new();
    let entries = large_batches(0, 60, 1);
    let mut segments = written(Arc::new(machine), &entries);
    let reader = segments.reader();
    let ahead = reader.read_ahead(Offset(20), 400_000);
    let read = || reader.read_stream(&take(20, 120, 400_000), ahead.as_ref()).unwrap();
    let before = read();
    assert!(before.is_ahead && before.pieces.concat() == bytes_of(&entries[10..29]));
    segments.cut(Offset(20)).unwrap();
    let anew = large_batches(20, 50, 2);
    segments.append(&anew).unwrap();
    segments.sync().unwrap();
    let after = read();
    assert!(!after.is_ahead && after.pieces.concat() == bytes_of(&anew[..19]));
}
