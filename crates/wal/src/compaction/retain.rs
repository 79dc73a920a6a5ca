//! What stays of a batch, and of each of its records.
//!
//! Architecture invariant: pure. The rules are those of Kafka's cleaner: of each key the newest
//! record stays, a tombstone for a while longer; a batch that a producer's state needs, or that
//! ends a segment, stays without its records.

use tidelog_types::{BatchHeader, Offset};

use super::keys::KeyMap;

/// What compaction knows while it writes a log anew.
#[derive(Debug)]
pub(crate) struct Retain<'a> {
    /// The newest offsets of the keys below `end`.
    pub(crate) keys: &'a KeyMap,
    /// What is at or above was not looked at.
    pub(crate) end: Offset,
    /// Now, in milliseconds since 1970.
    pub(crate) now_ms: i64,
    /// Something in front may hold older records of keys that nobody could read: what deletes them
    /// must stay.
    pub(crate) keeps_tombstones: bool,
}

/// One record, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) offset: Offset,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) has_value: bool,
}

/// What is to be done with a batch before its records are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It stays as it is.
    Stays,
    /// It stays as it is, and nobody knows its keys: which of a transaction's records count, only
    /// its end says.
    StaysUnread,
    /// It has no records any more.
    IsEmpty,
    /// Its records are to be looked at.
    Opens,
}

impl Retain<'_> {
    /// What a batch's header says.
    pub(crate) fn sight(&self, batch: &BatchHeader) -> Sight {
        if batch.is_control() || batch.is_transactional() {
            Sight::StaysUnread
        } else if batch.records_count == 0 {
            Sight::IsEmpty
        } else if batch.base_offset >= self.end {
            Sight::Stays
        } else {
            Sight::Opens
        }
    }

    /// Whether a record stays. One without a key is nobody's newest.
    pub(crate) fn keeps(&self, record: &Candidate<'_>, delete_horizon_ms: Option<i64>) -> bool {
        if record.offset >= self.end {
            return true;
        }
        let Some(key) = record.key else { return false };
        let is_newest = self.keys.get(key).is_none_or(|newest| record.offset >= newest);
        let is_due = delete_horizon_ms.is_some_and(|horizon_ms| horizon_ms <= self.now_ms);
        is_newest && (record.has_value || !is_due || self.keeps_tombstones)
    }

    /// Whether a record that stays is a tombstone whose time begins now: what it deletes is gone.
    pub(crate) fn starts_horizon(
        &self,
        record: &Candidate<'_>,
        delete_horizon_ms: Option<i64>,
    ) -> bool {
        !record.has_value && record.offset < self.end && delete_horizon_ms.is_none()
    }
}

#[cfg(test)]
mod tests {
    use tidelog_types::BATCH_HEADER_LEN;

    use super::*;

    const NOW_MS: i64 = 1000;

    /// Knows that `a` was last seen at 10 and `b` at 20.
    fn keys() -> KeyMap {
        let mut keys = KeyMap::new(0, [3, 4]);
        keys.put(b"a", Offset(10));
        keys.put(b"b", Offset(20));
        keys
    }

    fn retain(keys: &KeyMap, keeps_tombstones: bool) -> Retain<'_> {
        Retain { keys, end: Offset(30), now_ms: NOW_MS, keeps_tombstones }
    }

    #[test]
    fn the_newest_record_of_a_key_stays_and_a_tombstone_until_its_time() {
        let keys = keys();
        let [a, c] = [Some(&b"a"[..]), Some(&b"c"[..])];
        for (offset, key, has_value, horizon_ms, stays) in [
            (9, a, true, None, false),
            (10, a, true, None, true),
            (12, a, true, None, true), // what was unknown to the map is newer
            (5, c, true, None, true),
            (5, None, true, None, false),
            (30, None, true, None, true), // nobody looked there
            (10, a, false, None, true),
            (10, a, false, Some(NOW_MS + 1), true),
            (10, a, false, Some(NOW_MS), false),
            (9, a, false, None, false),
            (10, a, true, Some(NOW_MS), true),
            (31, a, false, Some(0), true),
        ] {
            let record = Candidate { offset: Offset(offset), key, has_value };
            let found = retain(&keys, false).keeps(&record, horizon_ms);
            assert_eq!(found, stays, "{record:?} {horizon_ms:?}");
        }
        let tombstone = Candidate { offset: Offset(10), key: a, has_value: false };
        assert!(retain(&keys, true).keeps(&tombstone, Some(0)), "older ones may be in front");
    }

    #[test]
    fn only_a_tombstone_that_was_looked_at_and_has_no_time_gets_one() {
        let keys = keys();
        for (offset, has_value, horizon_ms, starts) in [
            (10, false, None, true),
            (10, true, None, false),
            (10, false, Some(9), false),
            (30, false, None, false),
        ] {
            let record = Candidate { offset: Offset(offset), key: Some(b"a"), has_value };
            assert_eq!(retain(&keys, false).starts_horizon(&record, horizon_ms), starts);
        }
    }

    #[test]
    fn transactions_are_left_alone() {
        let keys = keys();
        let plain = BatchHeader {
            base_offset: Offset(5),
            records_count: 1,
            ..BatchHeader::decode(&[0; BATCH_HEADER_LEN])
        };
        for (batch, sight) in [
            (plain, Sight::Opens),
            (BatchHeader { base_offset: Offset(30), ..plain }, Sight::Stays),
            (BatchHeader { records_count: 0, ..plain }, Sight::IsEmpty),
            (BatchHeader { attributes: 0x10, ..plain }, Sight::StaysUnread),
            (BatchHeader { attributes: 0x30, ..plain }, Sight::StaysUnread),
        ] {
            assert_eq!(retain(&keys, false).sight(&batch), sight, "{batch:?}");
        }
    }
}
