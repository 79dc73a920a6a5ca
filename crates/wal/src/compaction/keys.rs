//! The newest offset of each key, in bounded memory.
//!
//! Architecture invariant: pure. A key is known by 128 bits of a hash whose key is secret and new
//! for each map: nobody can choose two keys that it takes for one.

use siphasher::sip128::{Hash128, SipHasher13};
use tidelog_types::Offset;

/// Bytes of one slot.
const SLOT_BYTES: usize = size_of::<Slot>();
/// Slots of the smallest table.
const SLOTS_MIN: usize = 1 << 8;

/// Hash, and one more than the offset; zeros for nothing, so that memory nobody touched is free.
type Slot = [u64; 3];

/// Offsets by key.
#[derive(Debug)]
pub(crate) struct KeyMap {
    slots: Vec<Slot>,
    used: usize,
    slots_max: usize,
    secret: [u64; 2],
}

impl KeyMap {
    /// Knows nothing, and never takes more than `bytes_max`, not even while it grows.
    pub(crate) fn new(bytes_max: u64, secret: [u64; 2]) -> KeyMap {
        // Four fifths, for a fifth may be what it grows from.
        let bytes = usize::try_from(bytes_max / 5 * 4).unwrap_or(usize::MAX);
        let slots_max = (bytes / SLOT_BYTES).max(SLOTS_MIN);
        KeyMap { slots: Vec::new(), used: 0, slots_max, secret }
    }

    /// Keys that it ever has room for.
    pub(crate) fn capacity(&self) -> usize {
        used_max(self.slots_max)
    }

    /// Keys that surely find room beside those that are here.
    pub(crate) fn room(&self) -> usize {
        self.capacity() - self.used
    }

    /// Notes that a key was last seen at this offset. Keys beyond [`KeyMap::room`] are refused.
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) {
        assert!(offset >= Offset::ZERO, "offsets count from 0");
        if self.used >= used_max(self.slots.len()) {
            self.grow();
        }
        let hash = self.hash(key);
        let slot = [hash.h1, hash.h2, offset.0 as u64 + 1];
        self.used += usize::from(insert(&mut self.slots, slot));
        assert!(self.used <= used_max(self.slots_max), "a key was put where there is no room");
    }

    /// Where a key was last seen.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Offset> {
        if self.slots.is_empty() {
            return None;
        }
        let hash = self.hash(key);
        let at = find(&self.slots, hash.h1, hash.h2);
        (self.slots[at][2] as i64).checked_sub(1).filter(|offset| *offset >= 0).map(Offset)
    }

    /// How many keys it knows.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.used
    }

    fn hash(&self, key: &[u8]) -> Hash128 {
        let [k0, k1] = self.secret;
        SipHasher13::new_with_keys(k0, k1).hash(key)
    }

    fn grow(&mut self) {
        // A table is a quarter of the next or less: both together fit.
        let wanted = (self.slots.len() * 4).max(SLOTS_MIN);
        let slots = if wanted > self.slots_max / 4 { self.slots_max } else { wanted };
        assert!(slots > self.slots.len(), "a map outgrew its bound");
        let mut grown = vec![[0; 3]; slots];
        for slot in self.slots.drain(..).filter(|slot| slot[2] != 0) {
            insert(&mut grown, slot);
        }
        self.slots = grown;
    }
}

/// Keys that a table of so many slots may have: beyond, finding one takes long.
fn used_max(slots: usize) -> usize {
    slots / 4 * 3
}

/// Puts a slot in its place; whether its key is new.
fn insert(slots: &mut [Slot], slot: Slot) -> bool {
    let at = find(slots, slot[0], slot[1]);
    let is_new = slots[at][2] == 0;
    slots[at] = slot;
    is_new
}

/// The place of a hash, or the empty one where it belongs.
fn find(slots: &[Slot], h1: u64, h2: u64) -> usize {
    let mut at = ((u128::from(h1) * slots.len() as u128) >> 64) as usize;
    loop {
        let slot = &slots[at];
        if slot[2] == 0 || slot[0] == h1 && slot[1] == h2 {
            return at;
        }
        at = if at + 1 == slots.len() { 0 } else { at + 1 };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_map_takes_what_it_has_room_for_and_no_more_memory_than_it_may() {
        for bytes_max in [0, 100_000, 1 << 20] {
            let mut map = KeyMap::new(bytes_max, [1, 2]);
            let room = map.room();
            assert!(room > 0);
            for n in 0..room as i64 {
                map.put(&n.to_be_bytes(), Offset(n));
                assert!(map.slots.len() <= map.slots_max);
            }
            assert_eq!((map.len(), map.room()), (room, 0));
            let all = (0..room as i64).all(|n| map.get(&n.to_be_bytes()) == Some(Offset(n)));
            assert!(all && map.get(b"another").is_none());
            let bound = (bytes_max as usize).max(SLOTS_MIN * SLOT_BYTES);
            assert!(map.slots.len() * SLOT_BYTES <= bound, "{bytes_max}");
        }
    }

    #[test]
    #[should_panic(expected = "a map outgrew its bound")]
    fn a_key_without_room_is_a_mistake_of_ours() {
        let mut map = KeyMap::new(0, [1, 2]);
        (0..=map.room() as i64).for_each(|n| map.put(&n.to_be_bytes(), Offset(n)));
    }

    #[test]
    fn what_two_maps_make_of_a_key_differs() {
        let hash = |secret| KeyMap::new(0, secret).hash(b"key").as_u128();
        assert_ne!(hash([1, 2]), hash([1, 3]));
    }

    proptest! {
        #[test]
        fn it_knows_what_a_map_of_whole_keys_knows(keys: Vec<(u8, u16)>) {
            let mut map = KeyMap::new(1 << 16, [7, 9]);
            let mut model = BTreeMap::new();
            for (offset, (length, key)) in (0..).zip(&keys) {
                let key = key.to_be_bytes().repeat(usize::from(*length));
                map.put(&key, Offset(offset));
                model.insert(key, Offset(offset));
            }
            prop_assert_eq!(map.len(), model.len());
            for (key, offset) in &model {
                prop_assert_eq!(map.get(key), Some(*offset));
            }
        }
    }
}
