//! What clients are told when the disk is full, and when it gives back other bytes.

use std::{
    thread,
    time::{Duration, Instant},
};

use tidelog_wal::env::mem::MemFileSystem;

use crate::{
    context::BrokerTest,
    records::{Fetch, batch, batches, produce},
};

/// Tries until it comes out as expected: the log finds out in its own time.
fn until(expected: i16, mut attempt: impl FnMut() -> i16) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while attempt() != expected {
        assert!(Instant::now() < deadline, "never answered {expected}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_disk_refuses_records_and_serves_what_is_there_and_ends_by_itself() {
    let fs = MemFileSystem::new();
    let settings = [("log.segment.bytes", "1000000")];
    let test = BrokerTest::start(fs.clone(), &settings);
    test.create_topic("topic", 1, &[]);
    let value = "x".repeat(100_000);
    let mut acked = Vec::new();
    let mut send = || {
        let (code, base_offset) = produce(&test, "topic", batch(&[&value]));
        if code == 0 {
            acked.push(base_offset);
        }
        code
    };
    assert_eq!(send(), 0);
    fs.set_capacity(8 << 20);
    until(56, &mut send);
    assert_eq!(Fetch::default().call(&test).error_code, 0, "reads go on");
    fs.set_capacity(u64::MAX);
    until(0, &mut send);
    let expected: Vec<i64> = (0..acked.len() as i64).collect();
    assert_eq!(acked, expected, "offsets have no gap where records were refused");
    let mut offset = 0;
    while offset < acked.len() as i64 {
        let found = batches(&Fetch { offset, ..Fetch::default() }.call(&test));
        assert!(!found.is_empty(), "everything acknowledged is there, {offset} too");
        offset += found.len() as i64;
    }
}

#[test]
fn a_flipped_bit_is_an_error_and_never_another_record() {
    let test = BrokerTest::with(&[]);
    test.create_topic("topic", 1, &[]);
    for _ in 0..5 {
        produce(&test, "topic", batch(&["the very same value"]));
    }
    let test = test.restart();
    let segment =
        test.fs.files().into_iter().find(|path| path.extension().is_some_and(|e| e == "log"));
    let segment = segment.expect("a clean stop leaves a segment");
    let length = test.fs.contents(&segment).expect("its bytes").len() as u64;
    for position in (0..length).step_by(7) {
        test.fs.flip(&segment, position, 3).expect("a flip");
        let found = Fetch::default().call(&test);
        match found.error_code {
            0 => assert!(batches(&found).iter().enumerate().all(|(i, b)| *b == (i as i64, 1))),
            code => assert_eq!(code, 56, "at byte {position}"),
        }
        test.fs.flip(&segment, position, 3).expect("a flip back");
    }
}
