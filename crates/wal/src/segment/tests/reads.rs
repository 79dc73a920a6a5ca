//! Reads and searches find what a list of the batches would.

use proptest::prelude::*;

use super::*;

/// Count of records, bytes and timestamp of some batches.
type Shapes = Vec<(i32, usize, i64)>;

fn shapes() -> impl Strategy<Value = Shapes> {
    let bytes = prop_oneof![4 => 0..200_usize, 1 => 500..2500_usize];
    prop::collection::vec((1..5_i32, bytes, 0..30_i64), 1..60)
}

/// Batches of these shapes, behind each other.
fn log(shapes: &Shapes) -> Vec<Entry> {
    let mut base = 0;
    let place = |(count, size, timestamp): &(i32, usize, i64)| {
        let entry = batch(base, *count, *size, base as u8, *timestamp);
        base += i64::from(*count);
        entry
    };
    shapes.iter().map(place).collect()
}

fn end_of(entries: &[Entry]) -> i64 {
    entries.last().map_or(0, |entry| entry.facts().next_offset().0)
}

/// The first batch that ends behind `from` and those behind it, while they end at or below
/// `upper` and fit `max_bytes`, of one segment: one of `bases` ends it.
fn expected_read(
    entries: &[Entry],
    bases: &[i64],
    (from, upper, max_bytes, at_least_one): (i64, i64, usize, bool),
) -> Vec<u8> {
    let mut read = Vec::new();
    for entry in entries.iter().filter(|entry| entry.facts().next_offset().0 > from) {
        let is_first = read.is_empty();
        let begins_segment = bases.contains(&entry.facts().base_offset.0);
        let fits = read.len() + entry.len() <= max_bytes || is_first && at_least_one;
        if !fits || entry.facts().next_offset().0 > upper || begins_segment && !is_first {
            break;
        }
        read.extend(bytes_of(std::slice::from_ref(entry)));
    }
    read
}

fn bases(machine: &MemFileSystem) -> Vec<i64> {
    machine.files().iter().filter_map(|path| file::base_of(path)).map(|base| base.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..Default::default()
    })]
    #[test]
    fn a_read_finds_what_a_list_of_batches_would(
        shapes in shapes(),
        reads in prop::collection::vec((0.0..1.1, 0.0..1.1, 0..4000_usize, any::<bool>()), 1..20),
        pass in 1..20_usize,
        reopen: bool,
    ) {
        let (machine, entries) = (MemFileSystem::new(), log(&shapes));
        let (mut segments, _) = open_at(&machine, 0, 0);
        for some in entries.chunks(pass) {
            segments.append(some).unwrap();
        }
        segments.sync().unwrap();
        let end = end_of(&entries);
        if reopen {
            segments = open_at(&machine, 0, end).0;
        }
        let (reader, bases) = (segments.reader(), bases(&machine));
        for (from, upper, max_bytes, at_least_one) in reads {
            let share = |share: f64| ((end as f64 * share) as i64).min(end);
            let wanted = (share(from), share(upper), max_bytes, at_least_one);
            let found = reader.read(Offset(wanted.0), Offset(wanted.1), max_bytes, at_least_one);
            let expected = expected_read(&entries, &bases, wanted);
            prop_assert_eq!(found.unwrap().concat(), expected, "{:?}", wanted);
        }
    }

    #[test]
    fn a_search_by_timestamp_finds_what_a_list_of_batches_would(
        shapes in shapes(),
        searches in prop::collection::vec((-1..32_i64, 0.0..1.1), 1..20),
        start in 0.0..0.5,
        reopen: bool,
    ) {
        let (machine, entries) = (MemFileSystem::new(), log(&shapes));
        let mut segments = filled(&machine, &entries);
        let end = end_of(&entries);
        let start = (end as f64 * start) as i64;
        segments.drop_below(Offset(start), std::time::Duration::ZERO).unwrap();
        if reopen {
            segments = open_at(&machine, start, end).0;
        }
        let reader = segments.reader();
        for (timestamp, upper) in searches {
            let upper = ((end as f64 * upper) as i64).min(end);
            let lies_between = |entry: &&Entry| {
                let facts = entry.facts();
                facts.next_offset().0 > start && facts.next_offset().0 <= upper
            };
            let late = |entry: &&Entry| entry.facts().max_timestamp >= timestamp;
            let first = entries.iter().filter(lies_between).find(late).cloned();
            let found = reader.find_by_timestamp(timestamp, Offset(0), Offset(upper)).unwrap();
            prop_assert_eq!(found, first, "timestamp {} below {}", timestamp, upper);
            let timestamps = entries.iter().filter(lies_between).map(|e| e.facts().max_timestamp);
            let greatest = timestamps.max();
            let is_it = |entry: &&Entry| Some(entry.facts().max_timestamp) == greatest;
            let first = entries.iter().filter(lies_between).find(is_it).cloned();
            let found = reader.find_max_timestamp(Offset(0), Offset(upper)).unwrap();
            prop_assert_eq!(found, first, "greatest below {}", upper);
        }
    }
}
