//! A bit flips on the disk: wrong bytes are never served, and what is whole still is.

use super::*;
use crate::env::Caching;

type Survey = (Vec<(i64, Vec<u8>)>, Vec<Range<i64>>);

/// Every batch that a reader hands out, by base offset, and the ranges that it calls damaged.
fn survey(segments: &Segments) -> Survey {
    let (bytes, damaged) = read_all(segments);
    let mut found = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let facts = BatchHeader::decode(rest.first_chunk().unwrap());
        let (batch, behind) = rest.split_at(facts.batch_bytes() as usize);
        found.push((facts.base_offset.0, batch.to_vec()));
        rest = behind;
    }
    (found, damaged)
}

/// Three segments: two closed, one open.
fn synced() -> (MemFileSystem, Vec<Entry>) {
    let machine = MemFileSystem::new();
    let entries = batches(0, 30, 100);
    drop(filled(&machine, &entries));
    (machine, entries)
}

#[test]
fn any_bit_of_a_log_may_flip_and_only_its_neighbourhood_is_refused() {
    let (machine, entries) = synced();
    for base in [0_i64, 24, 48] {
        let len = machine.contents(log_path(base)).unwrap().len();
        for position in 0..len {
            let machine = machine.fork();
            machine.flip(log_path(base), position as u64, (position % 8) as u8).unwrap();
            let (segments, report) = open_at(&machine, 0, 60);
            let (found, damaged) = survey(&segments);
            let at = base + 2 * (position as i64 / 161);
            for (offset, bytes) in &found {
                assert_eq!(*bytes, bytes_of(&entries[*offset as usize / 2..][..1]));
            }
            let refused: Vec<i64> = damaged.iter().flat_map(|range| range.clone()).collect();
            let missing = (0..60).filter(|o| !found.iter().any(|(b, _)| b == o || b + 1 == *o));
            assert_eq!(missing.collect::<Vec<_>>(), refused, "{base} byte {position}");
            assert!(refused.contains(&at), "{base} byte {position}: {damaged:?} {report:?}");
            assert!(refused.len() <= 4, "{base} byte {position}: {damaged:?}");
        }
    }
}

#[test]
fn any_bit_of_an_index_may_flip_and_every_batch_is_served() {
    let (machine, entries) = synced();
    for base in [0, 24, 48] {
        let len = machine.contents(index_path(base)).unwrap().len();
        for position in 0..len {
            let machine = machine.fork();
            machine.flip(index_path(base), position as u64, (position % 8) as u8).unwrap();
            let (segments, _) = open_at(&machine, 0, 60);
            assert_eq!(read_all(&segments), (bytes_of(&entries), vec![]), "{base} {position}");
            let found =
                segments.reader().find_by_timestamp(5, Offset(0), Offset(60)).unwrap().unwrap();
            assert_eq!(found.facts().base_offset, Offset(50), "{base} {position}");
        }
    }
}

#[test]
fn an_index_that_is_gone_or_cut_is_made_anew() {
    let (machine, entries) = synced();
    for base in [0, 24, 48] {
        let path = index_path(base);
        let len = machine.contents(&path).unwrap().len() as u64;
        for kept in (0..=len).map(|kept| kept.checked_sub(1)) {
            let machine = machine.fork();
            match kept {
                None => machine.remove_file(Path::new(&path)).unwrap(),
                Some(kept) => {
                    let file = machine.open(Path::new(&path), Open::Write, Caching::Buffered);
                    file.unwrap().set_len(kept).unwrap();
                }
            }
            for _ in 0..2 {
                let (segments, _) = open_at(&machine, 0, 60);
                assert_eq!(read_all(&segments), (bytes_of(&entries), vec![]), "{base} {kept:?}");
            }
        }
    }
}

#[test]
fn an_index_of_another_version_is_made_anew() {
    let (machine, entries) = synced();
    for base in [0, 48] {
        let mut header = crate::index::file_header(Offset(base));
        header[5] = 9;
        let checksum = crc32c(&[&header[..28]]);
        header[28..].copy_from_slice(&checksum.to_be_bytes());
        let path = index_path(base);
        let index = machine.open(Path::new(&path), Open::Write, crate::env::Caching::Buffered);
        index.unwrap().write_at(&[io::IoSlice::new(&header)], 0).unwrap();
        let (segments, _) = open_at(&machine, 0, 60);
        assert_eq!(read_all(&segments), (bytes_of(&entries), vec![]));
        let ours = crate::index::file_header(Offset(base));
        assert_eq!(machine.contents(&path).unwrap()[..32], ours);
    }
}

#[test]
fn a_leader_epoch_is_part_of_what_is_checked_down_to_the_smallest_log() {
    for (count, cut, refused) in [(30, 60, 0..4), (1, 2, 0..2), (2, 2, 0..2), (12, 10, 0..4)] {
        let machine = MemFileSystem::new();
        filled(&machine, &batches(0, count, 100)).cut(Offset(cut)).unwrap();
        machine.flip(log_path(0), 15, 0).unwrap();
        let (segments, _) = open_at(&machine, 0, cut);
        assert_eq!(read_all(&segments).1, [refused], "{count} batches, cut to {cut}");
    }
}

/// The disk lost a write: batches of an earlier history, valid in themselves, are in its place.
#[test]
fn batches_of_another_history_are_refused() {
    let (machine, _) = synced();
    let stale = bytes_of(&[batch(4, 2, 100, 99, 7)]);
    let position = 2 * 161;
    for (at, byte) in (position..).zip(&stale) {
        let was = machine.contents(log_path(0)).unwrap()[at];
        for bit in (0..8).filter(|bit| (was ^ byte) & 1 << bit != 0) {
            machine.flip(log_path(0), at as u64, bit).unwrap();
        }
    }
    let (segments, _) = open_at(&machine, 0, 60);
    assert_eq!(read_all(&segments).1, [4..8]);
}

#[test]
fn a_last_segment_that_lost_its_end_is_damage_and_the_log_goes_on_behind_it() {
    let machine = MemFileSystem::new();
    let mut entries = batches(0, 29, 100);
    drop(filled(&machine, &entries));
    let last = machine.open(Path::new(&log_path(48)), Open::Write, crate::env::Caching::Buffered);
    last.unwrap().set_len(4 * 161 + 30).unwrap();
    let (mut segments, report) = open_at(&machine, 0, 58);
    assert_eq!(report.damaged, [Offset(56)..Offset(58)]);
    let more = batches(58, 3, 100);
    segments.append(&more).unwrap();
    segments.sync().unwrap();
    entries.remove(28);
    entries.extend(more);
    for _ in 0..2 {
        assert_eq!(read_all(&segments), (bytes_of(&entries), vec![56..58]));
        segments = open_at(&machine, 0, 64).0;
    }
}

#[test]
fn a_closed_segment_may_lose_its_end_and_the_rest_is_read() {
    let (machine, entries) = synced();
    let len = machine.contents(log_path(24)).unwrap().len() as u64;
    for kept in 0..len {
        let machine = machine.fork();
        let path = log_path(24);
        let log = machine.open(Path::new(&path), Open::Write, crate::env::Caching::Buffered);
        log.unwrap().set_len(kept).unwrap();
        let (segments, _) = open_at(&machine, 0, 60);
        let (found, damaged) = survey(&segments);
        for (offset, bytes) in &found {
            assert_eq!(*bytes, bytes_of(&entries[*offset as usize / 2..][..1]));
        }
        let refused: Vec<i64> = damaged.iter().flat_map(|range| range.clone()).collect();
        let missing = (0..60).filter(|o| !found.iter().any(|(b, _)| b == o || b + 1 == *o));
        assert_eq!(missing.collect::<Vec<_>>(), refused, "{kept} bytes");
        assert!(refused.contains(&47) && refused[0] >= 24, "{kept} bytes: {damaged:?}");
    }
}

#[test]
fn a_first_segment_that_is_missing_is_damage() {
    let (machine, entries) = synced();
    machine.remove_file(Path::new(&log_path(0))).unwrap();
    let (segments, report) = open_at(&machine, 3, 60);
    assert_eq!(report.damaged, [Offset(3)..Offset(24)]);
    assert_eq!(read_all(&segments), (bytes_of(&entries[12..]), vec![3..24]));
}

#[test]
fn damage_in_the_middle_of_headers_is_told_once_and_passed_over() {
    let (machine, entries) = synced();
    machine.flip(log_path(24), 3 * 161 + 100, 0).unwrap();
    let reader = open_at(&machine, 0, 60).0.reader();
    let (good, bad): (Vec<_>, Vec<_>) = reader.headers_from(Offset(0)).partition(Result::is_ok);
    let good: Vec<_> = good.into_iter().map(Result::unwrap).collect();
    let facts = entries.iter().map(Entry::facts);
    assert_eq!(good, facts.filter(|f| f.base_offset != Offset(30)).collect::<Vec<_>>());
    let bad: Vec<_> = bad.into_iter().map(Result::unwrap_err).collect();
    assert!(
        matches!(&bad[..], [ReadError::Damaged { range }] if *range == (Offset(30)..Offset(32))),
        "{bad:?}"
    );
}

#[test]
fn a_log_cut_short_beside_a_damaged_index_still_gives_what_is_whole() {
    let (machine, entries) = synced();
    for base in [0_i64, 24, 48] {
        let (log, index) = (log_path(base), index_path(base));
        let log_bytes = machine.contents(&log).unwrap().len() as u64;
        let index_bytes = machine.contents(&index).unwrap().len() as u64;
        for kept in (0..log_bytes).step_by(97) {
            for damaged in (0..index_bytes).step_by(13) {
                let machine = machine.fork();
                let file = machine.open(Path::new(&log), Open::Write, Caching::Buffered).unwrap();
                file.set_len(kept).unwrap();
                file.sync().unwrap();
                machine.flip(&index, damaged, 3).unwrap();
                let (segments, _) = open_at(&machine, 0, 60);
                let (found, _) = survey(&segments);
                let whole = (base / 2) as usize + (kept / 161) as usize;
                let expected = entries[..whole].iter().map(|e| e.facts().base_offset.0);
                let case = format!("{base}: {kept} bytes, index damaged at {damaged}");
                let found: Vec<i64> = found.into_iter().map(|(offset, _)| offset).collect();
                let lost: Vec<i64> = expected.filter(|offset| !found.contains(offset)).collect();
                // An index that vouches for nothing there refuses the interval that was cut.
                assert!(
                    lost.iter().all(|offset| *offset >= base + 2 * (kept as i64 / 161) - 4),
                    "{case}: lost {lost:?}"
                );
            }
        }
    }
}
