//! The machine does to unsynced data what real ones do, and only that.

use std::collections::BTreeSet;

use super::*;
use crate::env::{read_exact_at, write_all_at};

const KIB: usize = 1024;

fn open(machine: &MemFileSystem, path: &str) -> Arc<dyn File> {
    machine.open(Path::new(path), Open::CreateOrOpen, Caching::Buffered).unwrap()
}

fn write(file: &Arc<dyn File>, position: u64, bytes: &[u8]) {
    write_all_at(&**file, &mut [IoSlice::new(bytes)], position).unwrap();
}

/// A file of `bytes` under a durable name.
fn synced(machine: &MemFileSystem, path: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = open(machine, path);
    write(&file, 0, bytes);
    file.sync().unwrap();
    machine.sync_dir(Path::new("")).unwrap();
    file
}

/// What a crash can leave, over many seeds.
fn outcomes<T: Ord>(machine: &MemFileSystem, look: impl Fn(&MemFileSystem) -> T) -> BTreeSet<T> {
    let each = (0..200).map(|seed| {
        let after = machine.fork();
        after.crash(seed);
        look(&after)
    });
    each.collect()
}

#[test]
fn what_was_synced_survives_every_crash() {
    let machine = MemFileSystem::new();
    synced(&machine, "a", b"kept");
    assert_eq!(outcomes(&machine, |m| m.contents("a").unwrap()).len(), 1);
    machine.crash(1);
    assert_eq!(machine.contents("a").unwrap(), b"kept");
}

#[test]
fn a_seed_repeats_its_crash() {
    let machine = MemFileSystem::new();
    let file = synced(&machine, "a", &[1; 64 * KIB]);
    write(&file, 3 * KIB as u64, &[2; 40 * KIB]);
    let [a, b] = [machine.fork(), machine.fork()];
    a.crash(7);
    b.crash(7);
    assert_eq!(a.contents("a").unwrap(), b.contents("a").unwrap());
}

#[test]
fn unsynced_sectors_are_kept_and_lost_each_for_itself() {
    let machine = MemFileSystem::new();
    let file = synced(&machine, "a", &[1; 2 * KIB]);
    write(&file, 0, &[2; 2 * KIB]);
    let found = outcomes(&machine, |m| {
        let bytes = m.contents("a").unwrap();
        let whole = |sector: &[u8]| sector.iter().all(|b| *b == sector[0]).then_some(sector[0]);
        bytes.chunks(512).map(whole).collect::<Vec<_>>()
    });
    for expected in [[1, 1, 1, 1], [2, 2, 2, 2], [1, 2, 1, 2], [2, 2, 1, 2]] {
        assert!(found.contains(expected.map(Some).as_slice()), "{expected:?}");
    }
    assert!(found.iter().flatten().any(Option::is_none), "no torn sector");
}

#[test]
fn bytes_rewritten_unchanged_are_never_damaged() {
    let machine = MemFileSystem::new();
    let file = synced(&machine, "a", &[1; 600]);
    let mut longer = vec![1; 600];
    longer.extend([2; 600]);
    write(&file, 0, &longer);
    for bytes in outcomes(&machine, |m| m.contents("a").unwrap()) {
        assert_eq!(&bytes[..600], &[1; 600]);
    }
}

#[test]
fn a_length_that_was_not_synced_is_the_old_the_new_or_between() {
    for (from, to) in [(1000, 5000), (5000, 1000)] {
        let machine = MemFileSystem::new();
        let file = synced(&machine, "a", &vec![1; from]);
        file.set_len(to).unwrap();
        let found = outcomes(&machine, |m| m.contents("a").unwrap().len());
        assert!(found.contains(&from) && found.contains(&(to as usize)) && found.len() > 2);
        assert!(found.iter().all(|len| (1000..=5000).contains(len)), "{found:?}");
    }
}

#[test]
fn a_name_is_kept_or_lost_until_its_directory_is_synced() {
    let machine = MemFileSystem::new();
    machine.create_dir_all(Path::new("d")).unwrap();
    machine.sync_dir(Path::new("")).unwrap();
    open(&machine, "d/new").sync().unwrap();
    let there = |m: &MemFileSystem| m.exists(Path::new("d/new")).unwrap();
    assert_eq!(outcomes(&machine, there), [false, true].into());
    machine.sync_dir(Path::new("d")).unwrap();
    assert_eq!(outcomes(&machine, there), [true].into());
    machine.remove_file(Path::new("d/new")).unwrap();
    assert_eq!(outcomes(&machine, there), [false, true].into());
}

#[test]
fn a_rename_without_sync_leaves_old_or_new_contents() {
    let machine = MemFileSystem::new();
    synced(&machine, "a", b"old");
    open(&machine, "a.tmp").sync().unwrap();
    let file = open(&machine, "a.tmp");
    write(&file, 0, b"new");
    file.sync().unwrap();
    machine.rename(Path::new("a.tmp"), Path::new("a")).unwrap();
    let found = outcomes(&machine, |m| m.contents("a").unwrap());
    assert_eq!(found, [b"old".to_vec(), b"new".to_vec()].into());
}

#[test]
fn a_failed_sync_leaves_a_clean_cache_over_a_disk_that_lost_the_data() {
    let lies = (0..50).filter(|&seed| {
        let machine = MemFileSystem::new();
        let file = synced(&machine, "a", &[1; 4 * KIB]);
        write(&file, 0, &[2; 4 * KIB]);
        machine.fail_sync_at(machine.syncs() + 1, seed);
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
        assert_eq!(machine.contents("a").unwrap(), [2; 4 * KIB], "the cache keeps all of it");
        file.sync().unwrap();
        let disk = machine.disk_contents("a").unwrap();
        let direct = machine.open(Path::new("a"), Open::Read, Caching::Direct).unwrap();
        assert_eq!(read_aligned(&direct), disk, "a read past the cache sees the disk");
        machine.kill();
        let again = open(&machine, "a");
        again.drop_cache().unwrap();
        assert_eq!(machine.contents("a").unwrap(), disk);
        disk != [2; 4 * KIB]
    });
    assert!(lies.count() > 10);
}

fn read_aligned(file: &Arc<dyn File>) -> Vec<u8> {
    let mut room = vec![0; 2 * DIRECT_ALIGN];
    let start = room.as_ptr().align_offset(DIRECT_ALIGN);
    let buffer = &mut room[start..start + DIRECT_ALIGN];
    read_exact_at(&**file, buffer, 0).unwrap();
    buffer.to_vec()
}

#[test]
fn a_direct_file_refuses_what_is_not_aligned() {
    let machine = MemFileSystem::new();
    let file = machine.open(Path::new("a"), Open::CreateNew, Caching::Direct).unwrap();
    let room = vec![1; 2 * DIRECT_ALIGN];
    let start = room.as_ptr().align_offset(DIRECT_ALIGN);
    let aligned = &room[start..start + DIRECT_ALIGN];
    let results =
        [(aligned, 512), (&aligned[..512], 0), (&room[start + 1..][..8], 0), (aligned, 0)]
            .map(|(bytes, at)| file.write_at(&[IoSlice::new(bytes)], at).map_err(|e| e.kind()));
    let invalid = Err(io::ErrorKind::InvalidInput);
    assert_eq!(results, [invalid, invalid, invalid, Ok(DIRECT_ALIGN)]);
}

#[test]
fn the_machine_is_off_from_the_chosen_call_until_it_is_started_again() {
    let machine = MemFileSystem::new();
    let file = synced(&machine, "a", b"1");
    machine.crash_at(machine.calls() + 2);
    write(&file, 0, b"2");
    assert!(file.sync().is_err() && file.len().is_err() && machine.is_off());
    assert!(machine.list(Path::new("")).is_err());
    machine.crash(3);
    assert!(!machine.is_off());
    assert!(file.len().is_err(), "a handle outlived its process");
    assert_eq!(open(&machine, "a").len().unwrap(), 1);
}

#[test]
fn a_killed_process_loses_its_locks_and_nothing_written() {
    let machine = MemFileSystem::new();
    machine.create_dir_all(Path::new("d")).unwrap();
    let taken = machine.lock(Path::new("d")).unwrap();
    let refused = machine.lock(Path::new("d")).map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    write(&open(&machine, "d/a"), 0, b"unsynced");
    machine.kill();
    let again = machine.lock(Path::new("d")).unwrap();
    drop(taken);
    assert!(machine.lock(Path::new("d")).is_err(), "a dead process released another's lock");
    drop(again);
    assert!(machine.lock(Path::new("d")).is_ok());
    assert_eq!(machine.contents("d/a").unwrap(), b"unsynced");
}

#[test]
fn a_flipped_bit_is_flipped_in_memory_and_on_disk() {
    let machine = MemFileSystem::new();
    synced(&machine, "a", &[0; 10]);
    machine.flip("a", 3, 4).unwrap();
    for bytes in [machine.contents("a").unwrap(), machine.disk_contents("a").unwrap()] {
        assert_eq!(bytes, [0, 0, 0, 16, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn a_full_disk_takes_rewrites_and_grows_again_when_there_is_room() {
    let machine = MemFileSystem::new();
    let file = synced(&machine, "a", &[0; 10]);
    machine.set_capacity(12);
    assert_eq!(machine.free_bytes(Path::new("")).unwrap(), 2);
    write(&file, 0, &[1; 12]);
    let full = file.write_at(&[IoSlice::new(b"x")], 12).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    write(&file, 0, &[2; 12]);
    machine.set_capacity(13);
    write(&file, 12, b"x");
}

#[test]
fn open_files_are_counted_and_limited() {
    let machine = MemFileSystem::new();
    machine.set_open_files_max(1);
    let file = open(&machine, "a");
    let refused = machine.open(Path::new("a"), Open::Read, Caching::Buffered).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
    drop(file);
    assert_eq!(machine.open_files(), 0);
    assert!(machine.open(Path::new("a"), Open::Read, Caching::Buffered).is_ok());
}
