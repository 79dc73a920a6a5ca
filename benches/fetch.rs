//! What a Fetch response costs: its frame around records that are not copied.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tidelog_protocol::{
    RecordChunks, TopicRef,
    fetch::{FetchPartitionResponse, FetchResponse, FetchTopicResponse},
};
use tidelog_types::{Entry, ErrorCode, Uuid};

/// Ten partitions with ten batches of 16 KiB each.
fn response() -> FetchResponse {
    let entry = Entry { header: [7; 61], records: Bytes::from(vec![7; 16_384]) };
    let partitions = (0..10).map(|partition| FetchPartitionResponse {
        records: RecordChunks::Entries(vec![entry.clone(); 10]),
        ..FetchPartitionResponse::failed(partition, ErrorCode::None)
    });
    let topic = TopicRef::Id(Uuid([1; 16]));
    let mut response = FetchResponse::failed(ErrorCode::None);
    response.topics.push(FetchTopicResponse { topic, partitions: partitions.collect() });
    response
}

fn fetch(criterion: &mut Criterion) {
    let response = response();
    criterion.bench_function("fetch/encode 100 batches", |bencher| {
        let encode = |response: FetchResponse| black_box(response).encode(17, 42);
        bencher.iter_batched(|| response.clone(), encode, BatchSize::SmallInput);
    });
}

criterion_group!(benches, fetch);
criterion_main!(benches);
