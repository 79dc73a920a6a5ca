//! What a Produce request costs before and after the log: decoding it and encoding its answer.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use tidelog_protocol::{
    TopicRef,
    batch_builder::BatchBuilder,
    header::decode_request_header,
    kafka_protocol::protocol::StrBytes,
    produce::{ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopicResponse},
};
use tidelog_types::{ErrorCode, Offset};

/// One partition, one batch, as librdkafka sends it (version 10).
fn frame() -> Bytes {
    let batch = BatchBuilder::new(0).record(0, None, Some(&[7; 16_384])).build();
    let mut frame = vec![0, 0, 0, 10, 0, 0, 0, 42, 0, 7];
    frame.extend(b"rdkafka");
    frame.extend([0, 0, 0xff, 0xff, 0, 0, 0x75, 0x30, 2, 7]);
    frame.extend(b"events");
    frame.extend([2, 0, 0, 0, 3]);
    let length = batch.len() as u32 + 1;
    frame.extend([length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8]);
    frame.extend(&batch);
    frame.extend([0, 0, 0]);
    frame.into()
}

fn response() -> ProduceResponse {
    let partition = ProducePartitionResponse {
        base_offset: Offset(1234),
        log_start_offset: Offset(0),
        ..ProducePartitionResponse::failed(3, ErrorCode::None)
    };
    let topic = TopicRef::Name(StrBytes::from_static_str("events"));
    let topics = vec![ProduceTopicResponse { topic, partitions: vec![partition] }];
    ProduceResponse { topics, ..ProduceResponse::default() }
}

fn produce(criterion: &mut Criterion) {
    let frame = frame();
    criterion.bench_function("produce/decode one partition", |bencher| {
        bencher.iter(|| {
            let (header, body) = decode_request_header(black_box(frame.clone())).expect("lawful");
            ProduceRequest::decode(header.api_version, body).expect("lawful")
        });
    });
    let response = response();
    criterion.bench_function("produce/encode one partition", |bencher| {
        bencher.iter(|| black_box(&response).encode(10, 42));
    });
}

criterion_group!(benches, produce);
criterion_main!(benches);
