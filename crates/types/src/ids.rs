//! Who and what: brokers, topics, partitions and producers.

use std::fmt;

/// A broker's `node.id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BrokerId(pub i32);

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Sixteen random bytes, written as Kafka writes a UUID: 22 characters of URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

/// A topic's identity: a topic deleted and created again under its name has another one (KIP-516).
pub type TopicId = Uuid;

impl Uuid {
    /// All zeros: "no id" on the wire.
    pub const ZERO: Uuid = Uuid([0; 16]);

    /// Whether this is the wire's "no id".
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// Reads what [`fmt::Display`] wrote. `None` unless it is exactly 22 URL-safe base64
    /// characters whose spare bits are zero.
    #[must_use]
    pub fn parse(text: &str) -> Option<Uuid> {
        let text = text.as_bytes();
        if text.len() != 22 {
            return None;
        }
        let mut bits: u128 = 0;
        for (place, character) in text.iter().enumerate() {
            let value = ALPHABET.iter().position(|letter| letter == character)? as u128;
            if place == 21 {
                if value & 0b1111 != 0 {
                    return None;
                }
                bits = (bits << 2) | (value >> 4);
            } else {
                bits = (bits << 6) | value;
            }
        }
        Some(Uuid(bits.to_be_bytes()))
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0_u8; 22];
        for (place, letter) in text.iter_mut().enumerate() {
            let value = if place == 21 {
                (bits & 0b11) << 4
            } else {
                (bits >> (122 - 6 * place)) & 0b11_1111
            };
            *letter = ALPHABET[value as usize];
        }
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One partition of one topic, by the identity that survives renames and re-creations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicIdPartition {
    /// The topic.
    pub topic_id: TopicId,
    /// Its partition, from 0.
    pub partition: i32,
}

impl fmt::Display for TopicIdPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

/// An idempotent producer's identity; never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ProducerId(pub i64);

impl ProducerId {
    /// A batch from a producer that is not idempotent.
    pub const NONE: ProducerId = ProducerId(-1);
}

/// Raised to fence an older incarnation of the same producer id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ProducerEpoch(pub i16);

impl ProducerEpoch {
    /// A batch from a producer that is not idempotent.
    pub const NONE: ProducerEpoch = ProducerEpoch(-1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_uuid_is_written_as_kafka_writes_it() {
        // Kafka's Uuid.METADATA_TOPIC_ID (0, 1) and an arbitrary one.
        let metadata = Uuid(1_u128.to_be_bytes());
        assert_eq!(metadata.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(Uuid([0xff; 16]).to_string(), "_____________________w");
    }

    #[test]
    fn text_that_no_uuid_writes_is_refused() {
        for text in [
            "",
            "AAAA",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAQA",
        ] {
            assert_eq!(Uuid::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_uuid_reads_back(bytes: [u8; 16]) {
            prop_assert_eq!(Uuid::parse(&Uuid(bytes).to_string()), Some(Uuid(bytes)));
        }
    }
}
