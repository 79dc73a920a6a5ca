//! The records that the program writes, and expects to read.

use std::{sync::OnceLock, time::SystemTime};

use rand::{RngCore as _, SeedableRng as _, rngs::SmallRng};
use rdkafka::message::{Header, Headers, OwnedHeaders};

/// Partitions of the topic that is written and read.
pub const PARTITIONS: i32 = 3;
/// How many records one producer writes to each partition.
pub const BURST: i64 = 100;
/// Makes what is written span several segment files.
pub const SEGMENT_BYTES: &str = "262144";

/// The key of a record; its number is its offset. Some have none.
pub fn key(partition: i32, number: i64) -> Option<String> {
    (number % 10 != 9).then(|| format!("key-{partition}-{number}"))
}

/// The value of a record: hard to compress, and now and then empty.
pub fn value(partition: i32, number: i64) -> Vec<u8> {
    let mut value = vec![0; number as usize * 37 % 2_000];
    SmallRng::seed_from_u64(((partition as u64) << 32) | number as u64).fill_bytes(&mut value);
    value
}

/// The headers of a record: two of one name, one empty, one without a value.
pub fn headers(number: i64) -> OwnedHeaders {
    OwnedHeaders::new()
        .insert(Header { key: "number", value: Some(&number.to_string()) })
        .insert(Header { key: "number", value: Some("again") })
        .insert(Header { key: "empty", value: Some("") })
        .insert(Header::<&str> { key: "none", value: None })
}

/// Headers as values that can be compared.
pub fn seen(headers: &impl Headers) -> Vec<(String, Option<Vec<u8>>)> {
    let owned =
        |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
    headers.iter().map(owned).collect()
}

/// The timestamp of a record, in milliseconds.
pub fn at(number: i64) -> i64 {
    static START: OnceLock<i64> = OnceLock::new();
    let start = START.get_or_init(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        now.as_millis() as i64 - 3_600_000
    });
    start + number * 1_000
}
