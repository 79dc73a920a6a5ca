//! What judging a producer's batch costs, most of it its checksum.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidelog_protocol::{
    batch_builder::BatchBuilder,
    record_batch::{BatchRules, TimestampType, validate},
    records::first_at_or_after,
};
use tidelog_types::Offset;

fn rules(timestamp_type: TimestampType) -> BatchRules {
    BatchRules {
        batch_bytes_max: 1_048_588,
        segment_bytes: 1 << 30,
        timestamp_type,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        now_ms: 0,
        produce_version: 13,
        needs_keys: false,
    }
}

fn record_batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record_batch");
    for bytes in [100, 17_000, 1_000_000] {
        let batch = BatchBuilder::new(0).record(0, None, Some(&vec![7; bytes])).build();
        group.throughput(Throughput::Bytes(batch.len() as u64));
        for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
            let rules = rules(timestamp_type);
            group.bench_function(
                format!("validate {bytes} bytes, {timestamp_type:?}"),
                |bencher| {
                    bencher.iter(|| validate(black_box(batch.clone()), &rules).expect("lawful"));
                },
            );
        }
    }
    let mut builder = BatchBuilder::new(0);
    (0..1000).for_each(|number| builder.push(number, None, Some(&[7; 100])));
    let batch = builder.build();
    group.throughput(Throughput::Elements(1000));
    let entry = validate(batch, &rules(TimestampType::CreateTime)).expect("lawful");
    group.bench_function("walk 1000 records", |bencher| {
        let first = |entry| first_at_or_after(entry, Offset(0), 1000, 1 << 20);
        bencher.iter(|| first(black_box(&entry)).expect("lawful"));
    });
}

criterion_group!(benches, record_batch);
criterion_main!(benches);
