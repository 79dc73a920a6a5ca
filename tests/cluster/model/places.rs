//! Where things are in a log: ListOffsets, and DeleteRecords, which moves the start.

use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, ListOffsetsRequest,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};
use tidelog_tests::{
    seed::Random,
    wire::{Wire, topic_name},
};

use super::{
    codes::*,
    step::{Place, Timestamp},
    world::{TOPICS, World},
};

impl World {
    pub fn list_offsets(&mut self, of: Place, version: i16, timestamp: Timestamp) {
        self.settle(of);
        let timestamp = match timestamp {
            Timestamp::Special(special) => special,
            Timestamp::Before(milliseconds) => self.now_ms - milliseconds,
        };
        let told = list_offsets(&mut self.wire, of, version, timestamp);
        let none = (-1, -1);
        let expected = match self.log(of) {
            None => Err(UNKNOWN_TOPIC_OR_PARTITION),
            Some(log) => match timestamp {
                0.. => Ok(log.at_or_after(timestamp).unwrap_or(none)),
                -1 => Ok((-1, log.end_offset())),
                -2 => Ok((-1, log.log_start_offset)),
                -3 if version >= 7 => Ok(log.latest().unwrap_or(none)),
                -4 if version >= 8 => Ok((-1, log.log_start_offset)),
                -5 if version >= 9 => Ok(none),
                _ => Err(UNSUPPORTED_VERSION),
            },
        };
        assert_eq!(told, expected);
    }

    pub fn delete_records(&mut self, of: Place, random: &mut Random) {
        self.settle(of);
        let (start, end) =
            self.log(of).map_or((0, 0), |log| (log.log_start_offset, log.end_offset()));
        let offset = match random.below(8) {
            0 => -1,
            1 => end + 1,
            2 => -2,
            // Mostly little: there shall be something left.
            _ => start - 1 + random.below(1 + (end - start).unsigned_abs() / 2).cast_signed(),
        };
        let told = self.delete_records_below(of, offset, random.below(3) as i16);
        if self.log(of).is_none() {
            return assert_eq!(told, (UNKNOWN_TOPIC_OR_PARTITION, -1));
        }
        let to = if offset == -1 { end } else { offset };
        if to < 0 || to > end {
            return assert_eq!(told, (OFFSET_OUT_OF_RANGE, -1), "{offset} of {start}..{end}");
        }
        let log = self.log_mut(of);
        log.log_start_offset = to.max(start);
        assert_eq!(told, (0, log.log_start_offset), "{offset} of {start}..{end}");
    }

    /// Error code and low watermark.
    pub fn delete_records_below(&mut self, of: Place, offset: i64, version: i16) -> (i16, i64) {
        let partition =
            DeleteRecordsPartition::default().with_partition_index(of.1).with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(TOPICS[of.0]))
            .with_partitions(vec![partition]);
        let request =
            DeleteRecordsRequest::default().with_timeout_ms(30_000).with_topics(vec![topic]);
        let response = self.wire.call(&request, version).expect("an answer");
        let answer = &response.topics[0].partitions[0];
        (answer.error_code, answer.low_watermark)
    }
}

/// The timestamp and the offset, or why there is none.
fn list_offsets(
    wire: &mut Wire,
    (topic, partition): Place,
    version: i16,
    timestamp: i64,
) -> Result<(i64, i64), i16> {
    let wanted = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(TOPICS[topic]))
        .with_partitions(vec![wanted]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_timeout_ms(if version >= 10 { 30_000 } else { 0 })
        .with_topics(vec![topic]);
    let response = wire.call(&request, version).expect("an answer");
    let answer = &response.topics[0].partitions[0];
    match answer.error_code {
        0 => Ok((answer.timestamp, answer.offset)),
        code => Err(code),
    }
}

pub fn latest(wire: &mut Wire, place: Place) -> i64 {
    list_offsets(wire, place, 5, -1).expect("the partition is led").1
}

pub fn earliest(wire: &mut Wire, place: Place) -> i64 {
    list_offsets(wire, place, 5, -2).expect("the partition is led").1
}
