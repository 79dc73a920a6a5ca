//! The log as it runs: its own threads, many who append, a real disk.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Poll, Wake, Waker},
    thread,
};

use tidelog_types::Offset;

use super::support::*;
use crate::{
    Log, LogObserver, LogSettings, ReserveTicket, Snapshot, Wal, WalConfig, WalError,
    env::{FileSystem, std::StdFileSystem},
    log::ReadOutcome,
    shard::lock,
};

const APPENDERS: i32 = 6;
const BATCHES: u64 = 200;

/// Waits until everything below an offset is durable.
#[derive(Debug, Default)]
struct Waiting {
    durable_end: Mutex<Offset>,
    risen: Condvar,
}

impl Waiting {
    fn until(&self, offset: Offset) {
        let mut end = lock(&self.durable_end);
        while *end < offset {
            end = self.risen.wait(end).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl LogObserver for Waiting {
    fn on_durable(&self, durable_end: Offset) {
        *lock(&self.durable_end) = durable_end;
        self.risen.notify_all();
    }

    fn high_watermark(&self) -> Offset {
        *lock(&self.durable_end)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        None
    }
}

/// Wakes the thread that waits for room.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn reserve(wal: &Wal, bytes: u64) -> crate::Reservation {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut ticket = ReserveTicket::default();
    loop {
        match wal.poll_reserve(&mut ticket, bytes, &waker) {
            Poll::Ready(reserved) => return reserved.expect("the disk has room"),
            Poll::Pending => thread::park(),
        }
    }
}

/// Small bounds, so that appends wait, files are recycled and most is read from segments.
fn config(dir: &std::path::Path) -> WalConfig {
    WalConfig {
        tail_bytes_max: 256 << 10,
        queue_bytes_max: 64 << 10,
        wal_bytes_max: 6 << 18,
        file_bytes: 1 << 18,
        first_file_bytes: 1 << 17,
        commit_bytes_max: 32 << 10,
        ..WalConfig::new(dir)
    }
}

fn open(dir: &std::path::Path) -> (Wal, crate::Recovered) {
    let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
    Wal::open(config(dir), fs, metrics()).expect("opened")
}

/// Appends one batch after the other, each durable before the next; returns all of their bytes.
fn append_all(wal: &Wal, partition: i32) -> Vec<u8> {
    let waiting = Arc::new(Waiting::default());
    let observer = Arc::clone(&waiting) as Arc<dyn LogObserver>;
    let log = wal.open_log(id(partition), LogSettings::default(), observer).expect("opened");
    let mut written = Vec::new();
    for tag in 0..BATCHES {
        let entry = batch(log.log_end_offset(), 1, 900, tag);
        let mut reservation = reserve(wal, entry.memory_bytes());
        written.extend_from_slice(&entry.header);
        written.extend_from_slice(&entry.records);
        log.append(EPOCH, vec![entry], &mut reservation).expect("appended");
        waiting.until(log.log_end_offset());
    }
    written
}

fn contents(log: &Log) -> Vec<u8> {
    let (mut bytes, mut next) = (Vec::new(), Offset::ZERO);
    while next < log.log_end_offset() {
        let read = log.read(next, log.log_end_offset(), 1 << 20, true).expect("readable");
        let chunk = match read {
            ReadOutcome::Entries(entries) => {
                let parts = entries.iter().flat_map(|e| [&e.header[..], &e.records]);
                parts.collect::<Vec<_>>().concat()
            }
            ReadOutcome::Cold(read) => {
                let (answer, answered) = crossbeam::channel::bounded(1);
                let done = move |read| answer.send(read).expect("somebody waits");
                log.read_cold(read, Box::new(done)).expect("queued");
                answered.recv().expect("answered").expect("readable").concat()
            }
        };
        next = last_batch_end(&chunk);
        bytes.extend(chunk);
    }
    bytes
}

#[test]
fn many_append_at_once_and_a_clean_stop_keeps_every_byte_of_each() {
    let dir = tempfile::tempdir().expect("a directory");
    let (wal, _) = open(dir.path());
    let written: Vec<Vec<u8>> = thread::scope(|scope| {
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|partition| {
                let wal = &wal;
                scope.spawn(move || append_all(wal, partition))
            })
            .collect();
        appenders.into_iter().map(|appender| appender.join().expect("no panic")).collect()
    });
    wal.flush_and_close().expect("closed");
    let refused = wal.open_log(id(0), LogSettings::default(), Arc::new(Waiting::default()));
    assert!(matches!(refused, Err(WalError::Closed)), "{refused:?}");
    drop(wal);

    let (wal, recovered) = open(dir.path());
    assert_eq!(recovered.cut, None);
    let ends: Vec<i64> = recovered.partitions.iter().map(|p| p.log_end_offset.0).collect();
    assert_eq!(ends, vec![BATCHES as i64; APPENDERS as usize]);
    for (partition, written) in (0..).zip(&written) {
        let observer = Arc::new(Waiting::default());
        let log = wal.open_log(id(partition), LogSettings::default(), observer).expect("opened");
        assert!(contents(&log) == *written, "partition {partition} reads back otherwise");
    }
    wal.flush_and_close().expect("closed");
}

#[test]
fn a_directory_is_one_process_s_until_its_log_is_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (wal, _) = open(dir.path());
    let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
    let second = Wal::open(config(dir.path()), Arc::clone(&fs), metrics()).map(|_| ());
    assert!(matches!(second, Err(WalError::Locked { .. })), "{second:?}");
    wal.flush_and_close().expect("closed");
    let (wal, _) = Wal::open(config(dir.path()), fs, metrics()).expect("free again");
    wal.flush_and_close().expect("closed");
}
