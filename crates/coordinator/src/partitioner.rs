//! Which partition of the offsets topic looks after a group.

/// The partition, from 0, of the offsets topic with so many `partitions`: as Kafka computes it,
/// with Java's hash of the UTF-16 code units, so that tools which look there find the group.
#[must_use]
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has partitions");
    let hash = group_id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's `abs`: the one number without a positive twin counts as zero.
    let partition = hash.checked_abs().unwrap_or(0) % partitions;
    assert!((0..partitions).contains(&partition), "a group is in one of the partitions");
    partition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_where_kafka_looks_for_it() {
        // Hashes as Java's `String.hashCode` gives them.
        for (group_id, hash) in [
            ("", 0),
            ("a", 97),
            ("group", 98_629_247),
            ("polygenelubricants", 0), // i32::MIN
            ("é", 233),
            ("😀", 1_772_899),
        ] {
            assert_eq!(partition_for(group_id, i32::MAX), hash, "{group_id}");
            assert_eq!(partition_for(group_id, 50), hash % 50, "{group_id}");
        }
    }
}
