//! The two responses that matter, read in place: their codec would cost more than the broker.

use anyhow::{Context, Result, bail, ensure};
use tidelog_types::{BATCH_HEADER_LEN, BatchHeader, Offset, batch_header::BATCH_OVERHEAD_LEN};

use crate::batch::crc_of;

/// The last version of each API before lengths became compact (KIP-482).
pub(crate) const PRODUCE_VERSION: i16 = 8;
pub(crate) const FETCH_VERSION: i16 = 11;

/// What a broker says of the only batch of a Produce request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProduceAnswer {
    pub error_code: i16,
    pub base_offset: i64,
}

/// One partition of a Fetch response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchedPartition<'a> {
    pub partition: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    pub records: &'a [u8],
}

/// What whole batches hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Batches {
    pub records: u64,
    pub bytes: u64,
    /// The offset after the last record.
    pub next_offset: i64,
}

/// The correlation id of a response frame.
pub(crate) fn correlation_id(frame: &[u8]) -> Result<i32> {
    Reader(frame).int32()
}

/// Reads a Produce response of [`PRODUCE_VERSION`] to a request of one partition.
pub(crate) fn produce_answer(frame: &[u8]) -> Result<ProduceAnswer> {
    let mut reader = Reader(frame);
    reader.take(4)?; // correlation id
    ensure!(reader.int32()? == 1, "an answer for another number of topics");
    reader.string()?;
    ensure!(reader.int32()? == 1, "an answer for another number of partitions");
    reader.take(4)?; // partition
    Ok(ProduceAnswer { error_code: reader.int16()?, base_offset: reader.int64()? })
}

/// Reads a Fetch response of [`FETCH_VERSION`]; gives its own error code.
pub(crate) fn fetch_answer<'a>(
    frame: &'a [u8],
    mut on_partition: impl FnMut(FetchedPartition<'a>) -> Result<()>,
) -> Result<i16> {
    let mut reader = Reader(frame);
    reader.take(4 + 4)?; // correlation id, throttle time
    let error_code = reader.int16()?;
    reader.take(4)?; // session
    for _ in 0..reader.int32()? {
        reader.string()?;
        for _ in 0..reader.int32()? {
            let (partition, error_code) = (reader.int32()?, reader.int16()?);
            let high_watermark = reader.int64()?;
            reader.take(8 + 8)?; // last stable offset, log start offset
            let aborted = usize::try_from(reader.int32()?).unwrap_or(0);
            reader.take(aborted.checked_mul(16).context("a lawful count")?)?;
            reader.take(4)?; // preferred replica
            let length = usize::try_from(reader.int32()?).unwrap_or(0);
            let records = reader.take(length)?;
            on_partition(FetchedPartition { partition, error_code, high_watermark, records })?;
        }
    }
    Ok(error_code)
}

/// Walks batches from `from` on and checks that they follow one another without a gap.
pub(crate) fn walk_batches(mut bytes: &[u8], from: i64, check_crcs: bool) -> Result<Batches> {
    let mut batches = Batches { next_offset: from, ..Batches::default() };
    while let Some(header) = bytes.first_chunk::<BATCH_HEADER_LEN>() {
        let facts = BatchHeader::decode(header);
        let length = usize::try_from(facts.length).context("a lawful batch length")?;
        let Some((batch, rest)) = bytes.split_at_checked(BATCH_OVERHEAD_LEN + length) else {
            break; // Kafka may cut the last batch short
        };
        ensure!(batch.len() >= BATCH_HEADER_LEN, "a batch of {length} bytes");
        let (base, next) = (facts.base_offset.0, facts.next_offset().0);
        // The first batch may begin before what was asked for.
        let first = batches.bytes == 0;
        let follows = if first { base <= from && next > from } else { base == batches.next_offset };
        if !follows {
            bail!("a batch at {base} to {next} where {} was next", batches.next_offset);
        }
        if check_crcs && crc_of(batch) != facts.crc {
            bail!("the batch at {base} fails its checksum");
        }
        batches.records += u64::try_from(next - base.max(from)).unwrap_or(0);
        batches.bytes += batch.len() as u64;
        batches.next_offset = Offset(next).0;
        bytes = rest;
    }
    Ok(batches)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("the answer ends too soon")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn int16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    fn int32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn int64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.int16()?).unwrap_or(0);
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        messages::{FetchResponse, ProduceResponse, TopicName, fetch_response, produce_response},
        protocol::{Encodable, StrBytes},
    };
    use tidelog_types::{LeaderEpoch, batch_header::patch_place};

    use super::*;
    use crate::batch::random_batch;

    fn name() -> TopicName {
        StrBytes::from_static_str("t").into()
    }

    fn frame(response: &impl Encodable, version: i16) -> Vec<u8> {
        let mut frame = BytesMut::from(&9_i32.to_be_bytes()[..]);
        response.encode(&mut frame, version).expect("a good response");
        frame.to_vec()
    }

    #[test]
    fn a_produce_answer_is_read_as_it_was_written() {
        let partition = produce_response::PartitionProduceResponse::default()
            .with_index(3)
            .with_error_code(6)
            .with_base_offset(77);
        let topic = produce_response::TopicProduceResponse::default()
            .with_name(name())
            .with_partition_responses(vec![partition]);
        let response = ProduceResponse::default().with_responses(vec![topic]);
        let frame = frame(&response, PRODUCE_VERSION);
        assert_eq!(correlation_id(&frame).ok(), Some(9));
        let expected = ProduceAnswer { error_code: 6, base_offset: 77 };
        assert_eq!(produce_answer(&frame).ok(), Some(expected));
        for length in 0..29 {
            assert!(produce_answer(&frame[..length]).is_err(), "cut to {length} bytes");
        }
    }

    #[test]
    fn a_fetch_answer_is_read_as_it_was_written() {
        let partition = fetch_response::PartitionData::default()
            .with_partition_index(2)
            .with_high_watermark(40)
            .with_records(Some(random_batch(1, 10, 0, 1)));
        let topic = fetch_response::FetchableTopicResponse::default()
            .with_topic(name())
            .with_partitions(vec![partition]);
        let response = FetchResponse::default().with_error_code(5).with_responses(vec![topic]);
        let frame = frame(&response, FETCH_VERSION);
        let mut seen = Vec::new();
        let error_code = fetch_answer(&frame, |partition| {
            seen.push((partition.partition, partition.high_watermark, partition.records.len()));
            Ok(())
        });
        assert_eq!(error_code.ok(), Some(5));
        assert_eq!(seen, [(2, 40, random_batch(1, 10, 0, 1).len())]);
    }

    #[test]
    fn batches_that_do_not_follow_one_another_are_noticed() {
        let batch = |base: i64| {
            let mut bytes = random_batch(10, 5, 0, 1).to_vec();
            let header = bytes.first_chunk_mut().expect("a header");
            patch_place(header, Offset(base), LeaderEpoch(1));
            bytes
        };
        let good = [batch(20), batch(30)].concat();
        let walked = walk_batches(&good, 25, true).expect("no gap");
        let bytes = good.len() as u64;
        assert_eq!(walked, Batches { records: 15, bytes, next_offset: 40 });
        // The last batch may be cut short.
        let cut = walk_batches(&good[..good.len() - 1], 20, true).expect("no gap");
        assert_eq!((cut.records, cut.next_offset), (10, 30));
        for (gap, from) in [([batch(20), batch(31)], 20), ([batch(20), batch(30)], 19)] {
            assert!(walk_batches(&gap.concat(), from, false).is_err());
        }
        let mut damaged = batch(0);
        *damaged.last_mut().expect("bytes") ^= 1;
        assert!(walk_batches(&damaged, 0, true).is_err());
    }
}
