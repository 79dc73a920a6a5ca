//! A compacted segment takes the place of others as a whole, whatever happens on the way.

use super::*;
use crate::rules::{Rule, without};

/// Batches that a compaction of `entries` leaves: every third, and the last.
fn kept(entries: &[Entry]) -> Vec<Entry> {
    let last = entries.len() - 1;
    let stays = |at: &usize| at % 3 == 1 || *at == last;
    (0..entries.len()).filter(stays).map(|at| entries[at].clone()).collect()
}

/// The batches of `entries` that lie in `base..end`.
fn within(entries: &[Entry], base: i64, end: i64) -> Vec<Entry> {
    let inside = |entry: &&Entry| (base..end).contains(&entry.facts().base_offset.0);
    entries.iter().filter(inside).cloned().collect()
}

fn prepare(
    segments: &Segments,
    base: i64,
    end: i64,
    left: &[Entry],
) -> Result<Compacted, SegmentError> {
    let (files, dir) = (&segments.files, &segments.dir);
    let mut writer = CompactedWriter::create(files, dir, Offset(base), Offset(end), 300)?;
    left.iter().try_for_each(|entry| writer.add(entry.clone()))?;
    writer.finish()
}

fn replace(
    segments: &mut Segments,
    base: i64,
    end: i64,
    left: &[Entry],
) -> Result<bool, SegmentError> {
    let compacted = prepare(segments, base, end, left)?;
    segments.replace(compacted, Duration::ZERO)
}

fn reopen(machine: &MemFileSystem, end: i64, holes_below: i64) -> (Segments, SegmentsReport) {
    let files = FileCache::new(Arc::new(machine.clone()), 4);
    let (dir, end, holes_below) = (Path::new(DIR), Offset(end), Offset(holes_below));
    Segments::open_compacted(&files, dir, end, Offset(0), holes_below, CONFIG).unwrap()
}

fn bases(machine: &MemFileSystem) -> Vec<i64> {
    let logs = names(machine).into_iter().filter(|name| name.ends_with(".log"));
    logs.map(|name| name[..20].parse().unwrap()).collect()
}

#[test]
fn readers_find_the_next_batch_behind_a_hole() {
    let machine = MemFileSystem::new();
    let entries = batches(0, 60, 100);
    let mut segments = filled(&machine, &entries);
    let (base, end) = (bases(&machine)[0], bases(&machine)[3]);
    let left = kept(&within(&entries, base, end));
    assert!(replace(&mut segments, base, end, &left).unwrap());
    let rest = within(&entries, end, i64::MAX);
    let expected: Vec<Entry> = left.iter().chain(&rest).cloned().collect();
    let all_ends = segments.end_offset();
    for life in 0..2 {
        assert_eq!(read_all(&segments), (bytes_of(&expected), vec![]), "life {life}");
        let reader = segments.reader();
        for offset in 0..all_ends.0 {
            let found = reader.read(Offset(offset), all_ends, 1, true).unwrap().concat();
            let next = expected.iter().find(|e| e.facts().next_offset().0 > offset).unwrap();
            assert_eq!(found, bytes_of(std::slice::from_ref(next)), "from {offset}");
            let ends = expected.iter().map(|e| e.facts().next_offset().0);
            let boundary = ends.filter(|end| *end <= offset).last().unwrap_or(0);
            assert_eq!(reader.batch_boundary(Offset(offset)).unwrap(), Offset(boundary));
        }
        let last = expected.last().unwrap();
        let found = reader.find_max_timestamp(Offset(0), all_ends).unwrap().unwrap();
        let same_time =
            expected.iter().find(|e| e.facts().max_timestamp == last.facts().max_timestamp);
        assert_eq!(Some(&found), same_time);
        assert_eq!(segments.bytes(), bytes_of(&expected).len() as u64);
        drop(segments);
        machine.crash(life);
        let report;
        (segments, report) = reopen(&machine, all_ends.0, end);
        assert_eq!(report, SegmentsReport::default());
    }
}

#[test]
fn a_reader_that_holds_an_old_segment_goes_on() {
    let machine = MemFileSystem::new();
    let entries = batches(0, 60, 100);
    let mut segments = filled(&machine, &entries);
    let reader = segments.reader();
    let old = reader.view().segments[0].clone();
    let file = segments.files.read(old.log_id, &old.log).unwrap();
    let (base, end) = (bases(&machine)[0], bases(&machine)[2]);
    let left = kept(&within(&entries, base, end));
    assert!(replace(&mut segments, base, end, &left).unwrap());
    let mut bytes = vec![0; entries[0].len()];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    assert_eq!(bytes, bytes_of(&entries[..1]));
    let from_new = reader.read(Offset(base), segments.end_offset(), 1, true).unwrap().concat();
    assert_eq!(from_new, bytes_of(&left[..1]));
}

#[test]
fn what_is_not_there_any_more_or_is_written_to_is_not_replaced() {
    let machine = MemFileSystem::new();
    let entries = batches(0, 60, 100);
    let mut segments = filled(&machine, &entries);
    let all = bases(&machine);
    let last = all[all.len() - 1];
    let (first, second) = (all[0], all[1]);
    let everything = bytes_of(&entries);
    let to_the_end = kept(&within(&entries, last, i64::MAX));
    let end = segments.end_offset().0;
    assert!(!replace(&mut segments, last, end, &to_the_end).unwrap(), "the active segment");
    assert_eq!(read_all(&segments), (everything, vec![]));
    let prepared = prepare(&segments, first, second, &kept(&within(&entries, first, second)));
    segments.drop_below(Offset(second), Duration::ZERO).unwrap();
    assert!(!segments.replace(prepared.unwrap(), Duration::ZERO).unwrap(), "dropped meanwhile");
    assert_eq!(read_all(&segments).0, bytes_of(&within(&entries, second, i64::MAX)));
    assert!(names(&machine).iter().all(|name| !name.ends_with("cleaned")), "{:?}", names(&machine));
}

#[test]
fn a_log_cut_where_it_was_compacted_goes_on_there() {
    let entries = batches(0, 60, 100);
    for to in 0..40 {
        let machine = MemFileSystem::new();
        let mut segments = filled(&machine, &entries);
        let (base, end) = (bases(&machine)[0], bases(&machine)[4]);
        let left = kept(&within(&entries, base, end));
        assert!(replace(&mut segments, base, end, &left).unwrap());
        let to = segments.reader().batch_boundary(Offset(to)).unwrap();
        assert_eq!(segments.cut(to).unwrap(), to);
        let more = batches(to.0, 9, 120);
        segments.append(&more).unwrap();
        segments.sync().unwrap();
        let below = left.iter().filter(|e| e.facts().next_offset() <= to).cloned();
        let expected: Vec<Entry> = below.chain(more).collect();
        assert_eq!(read_all(&segments), (bytes_of(&expected), vec![]), "{to}");
        let log_end = segments.end_offset().0;
        drop(segments);
        machine.crash(1);
        let (segments, report) = reopen(&machine, log_end, to.0);
        assert_eq!(report, SegmentsReport::default(), "{to}");
        assert_eq!(read_all(&segments), (bytes_of(&expected), vec![]), "{to}");
    }
}

/// Compacts, appends, compacts what is left anew, with the power failing at call number `crash_at`;
/// then opens again and says what is wrong.
fn crashed(crash_at: u64, seed: u64) -> Result<u64, String> {
    let machine = MemFileSystem::new();
    let entries = batches(0, 60, 100);
    let mut segments = filled(&machine, &entries);
    let all = bases(&machine);
    let end = segments.end_offset().0;
    let first = (all[0], all[3], kept(&within(&entries, all[0], all[3])));
    let second = (all[3], all[4], kept(&within(&entries, all[3], all[4])));
    let again = (all[0], all[4], kept(&[first.2.clone(), second.2.clone()].concat()));
    let rounds = [&first, &second, &again];
    let rest = within(&entries, all[4], i64::MAX);
    let start = machine.calls();
    machine.crash_at(start + crash_at);
    for (base, end, left) in rounds {
        if replace(&mut segments, *base, *end, left).is_err() {
            break;
        }
    }
    let calls = machine.calls() - start;
    drop(segments);
    for life in 0..3 {
        machine.crash(seed + life);
        if life < 2 {
            machine.crash_at(machine.calls() + 1 + (seed / 2 + life) % 12);
        }
        let files = FileCache::new(Arc::new(machine.clone()), 4);
        let (dir, holes) = (Path::new(DIR), Offset(all[4]));
        let opened = Segments::open_compacted(&files, dir, Offset(end), Offset(0), holes, CONFIG);
        if machine.is_off() {
            continue;
        }
        machine.crash_at(u64::MAX);
        let (segments, report) = opened.map_err(|error| error.to_string())?;
        if report != SegmentsReport::default() {
            return Err(format!("{report:?} {:?}", machine.files()));
        }
        let (bytes, damaged) = read_all(&segments);
        let old = [within(&entries, all[0], all[3]), within(&entries, all[3], all[4])];
        let lawful = [
            [old[0].clone(), old[1].clone()].concat(),
            [first.2.clone(), old[1].clone()].concat(),
            [first.2.clone(), second.2.clone()].concat(),
            again.2.clone(),
        ];
        let found = lawful.iter().any(|l| bytes == bytes_of(&[&l[..], &rest].concat()));
        if !found || !damaged.is_empty() {
            return Err(format!("a mixture, damaged {damaged:?}"));
        }
    }
    Ok(calls)
}

fn any_crash() -> Result<(), String> {
    let calls = crashed(u64::MAX / 2, 0)?;
    assert!(calls > 30, "{calls} calls");
    for crash_at in 1..=calls {
        for seed in 0..40 {
            crashed(crash_at, seed).map_err(|what| format!("{crash_at} {seed}: {what}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_crash_at_any_call_leaves_the_old_segments_or_the_new_one() {
    any_crash().unwrap();
}

#[test]
fn each_rule_of_a_swap_switched_off_leaves_a_mixture_after_some_crash() {
    for rule in [Rule::CompactedSynced, Rule::SwapIntended, Rule::SwapCleared] {
        let broken = std::panic::catch_unwind(|| without(Some(rule), any_crash));
        assert!(!matches!(broken, Ok(Ok(()))), "{rule:?} is not needed");
    }
}

/// The power failed between the two renames that make an intent, of a segment that had no index.
#[test]
fn the_index_of_a_segment_that_is_only_prepared_is_not_taken_for_the_old_ones() {
    let machine = MemFileSystem::new();
    let entries = batches(0, 60, 100);
    let segments = filled(&machine, &entries);
    let (base, end) = (bases(&machine)[0], bases(&machine)[1]);
    let prepared = prepare(&segments, base, end, &kept(&within(&entries, base, end)));
    drop((prepared.unwrap(), segments));
    let path = |kind: &str| PathBuf::from(format!("{DIR}/{base:020}-{end:020}.seek.{kind}"));
    machine.rename(&path("cleaned"), &path("swap")).unwrap();
    machine.remove_file(Path::new(&index_path(base))).unwrap();
    machine.kill();
    let (segments, report) = reopen(&machine, entries[59].facts().next_offset().0, 0);
    assert_eq!(report, SegmentsReport::default());
    assert_eq!(read_all(&segments), (bytes_of(&entries), vec![]));
    assert!(names(&machine).iter().all(|name| !name.contains('-')), "{:?}", names(&machine));
}

#[test]
fn a_full_disk_on_the_way_changes_nothing() {
    let entries = batches(0, 60, 100);
    for spare in [0, 100, 700, 1500, 4000] {
        let machine = MemFileSystem::new();
        let mut segments = filled(&machine, &entries);
        let (base, end) = (bases(&machine)[0], bases(&machine)[3]);
        let left = kept(&within(&entries, base, end));
        machine.set_capacity(u64::MAX - 1);
        let free = machine.free_bytes(Path::new("")).unwrap();
        machine.set_capacity(u64::MAX - 1 - free + spare);
        match replace(&mut segments, base, end, &left) {
            Ok(done) => assert!(done && spare == 4000, "{spare}"),
            Err(SegmentError::DiskFull { .. }) => {
                assert_eq!(read_all(&segments), (bytes_of(&entries), vec![]), "{spare}");
            }
            Err(error) => panic!("{error}"),
        }
        machine.set_capacity(u64::MAX);
        assert!(replace(&mut segments, base, end, &left).unwrap() || spare == 4000);
        let expected = [left, within(&entries, end, i64::MAX)].concat();
        assert_eq!(read_all(&segments), (bytes_of(&expected), vec![]), "{spare}");
    }
}
