//! What one session knows of its client, and which partitions its next answer must hold.

use std::collections::BTreeMap;

use tidelog_types::Offset;

use super::{SessionEpoch, SessionId};
use crate::error::SessionError;

/// Names one of a session's partitions until it is forgotten; then it may name another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// One client's fetch session. `K` names a partition as the client does, `W` is what the client
/// wants of it; nothing here looks inside.
///
/// A partition is *settled* when looking at it would find nothing to read and nothing to tell.
/// Whoever watches it must [`FetchSession::mark`] it once that may have changed; until then it
/// costs nothing.
///
/// Invariant: a partition that is not settled is among the unsettled ones, at its place in the
/// session's order.
#[derive(Debug)]
pub struct FetchSession<K, W> {
    uses_topic_ids: bool,
    /// What the next request must say.
    pub(super) epoch: SessionEpoch,
    pub(super) slots: BTreeMap<K, Slot>,
    partitions: Vec<Option<Remembered<K, W>>>,
    free: Vec<Slot>,
    unsettled: BTreeMap<Place, Slot>,
    next_place: Place,
}

/// Orders a session's partitions: first come those whose records the client has waited for longest.
type Place = u64;

#[derive(Debug)]
struct Remembered<K, W> {
    key: K,
    wanted: W,
    told: Told,
    place: Place,
}

/// What the client was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    high_watermark: Offset,
    log_start_offset: Offset,
}

/// What a look at one partition found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// There are records for the client.
    pub has_records: bool,
    /// As an answer tells it: -1 with an error, so that the end of the error is told.
    pub high_watermark: Offset,
    /// As an answer tells it: -1 with an error.
    pub log_start_offset: Offset,
    /// It is told each time: an error, another replica to read from, logs that part.
    pub is_notable: bool,
    /// There is nothing behind the client's offset, read or not.
    pub is_drained: bool,
}

impl<K: Ord + Clone, W> FetchSession<K, W> {
    /// A session without partitions. `uses_topic_ids` says how its client names topics (KIP-516).
    #[must_use]
    pub fn new(uses_topic_ids: bool) -> FetchSession<K, W> {
        FetchSession {
            uses_topic_ids,
            epoch: SessionEpoch::INITIAL.next(),
            slots: BTreeMap::new(),
            partitions: Vec::new(),
            free: Vec::new(),
            unsettled: BTreeMap::new(),
            next_place: 0,
        }
    }

    /// Takes a request's epoch. Returns what [`FetchSession::is_current`] asks for until the next
    /// request comes.
    ///
    /// # Errors
    /// When the request is not the one that follows, or names topics in another way. `id` is for
    /// the error alone.
    pub fn begin(
        &mut self,
        id: SessionId,
        epoch: SessionEpoch,
        uses_topic_ids: bool,
    ) -> Result<SessionEpoch, SessionError> {
        let current = self.epoch;
        if epoch != current {
            return Err(SessionError::InvalidEpoch { id, requested: epoch, current });
        }
        if uses_topic_ids != self.uses_topic_ids {
            return Err(SessionError::TopicIds { id });
        }
        self.epoch = current.next();
        Ok(self.epoch)
    }

    /// Whether no request has come since [`FetchSession::begin`] returned this.
    #[must_use]
    pub fn is_current(&self, begun: SessionEpoch) -> bool {
        self.epoch == begun
    }

    /// Whether the session has a partition.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.slots.contains_key(key)
    }

    /// Changes what the client wants of a partition. False where the session does not have it.
    pub fn update(&mut self, key: &K, wanted: W) -> bool {
        let Some(&slot) = self.slots.get(key) else { return false };
        self.remembered_mut(slot).wanted = wanted;
        self.mark(slot);
        true
    }

    /// Adds a partition behind all others.
    pub fn add(&mut self, key: K, wanted: W) -> Slot {
        let told = Told { high_watermark: Offset(-1), log_start_offset: Offset(-1) };
        let place = self.take_place();
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = u32::try_from(self.partitions.len()).expect("a session is bounded");
            self.partitions.push(None);
            Slot(slot)
        });
        let before = self.slots.insert(key.clone(), slot);
        assert!(before.is_none(), "a partition is added once");
        self.partitions[slot.0 as usize] = Some(Remembered { key, wanted, told, place });
        self.unsettled.insert(place, slot);
        slot
    }

    /// Removes a partition. `None` where the session does not have it.
    pub fn forget(&mut self, key: &K) -> Option<Slot> {
        let slot = self.slots.remove(key)?;
        let forgotten = self.partitions[slot.0 as usize].take();
        let forgotten = forgotten.expect("a partition that is named is there");
        self.unsettled.remove(&forgotten.place);
        self.free.push(slot);
        Some(slot)
    }

    /// How many partitions it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Something happened to a partition: it is to be looked at. A partition that was forgotten
    /// meanwhile is none of the session's.
    pub fn mark(&mut self, slot: Slot) {
        if let Some(Some(remembered)) = self.partitions.get(slot.0 as usize) {
            self.unsettled.insert(remembered.place, slot);
        }
    }

    /// How many partitions are to be looked at.
    #[must_use]
    pub fn unsettled_len(&self) -> usize {
        self.unsettled.len()
    }

    /// The partitions to look at, in the order in which their records are to be read.
    pub fn unsettled(&self) -> impl Iterator<Item = (Slot, &K, &W)> {
        self.unsettled.values().map(|slot| {
            let remembered = self.remembered(*slot);
            (*slot, &remembered.key, &remembered.wanted)
        })
    }

    /// The client waits for more than a look found. Where that was nothing, it need not be
    /// repeated before something happens.
    pub fn settle(&mut self, slot: Slot, look: &Look) {
        assert!(
            !look.is_drained || !(look.has_records || look.is_notable),
            "a partition that has something for the client is not drained"
        );
        if look.is_drained && !self.is_news(slot, look) {
            let place = self.remembered(slot).place;
            self.unsettled.remove(&place);
        }
    }

    /// The client is answered. Returns whether the answer must hold the partition; records, if
    /// any, move it behind all others.
    pub fn answer(&mut self, slot: Slot, look: &Look) -> bool {
        let is_news = self.is_news(slot, look);
        let place = if look.has_records { Some(self.take_place()) } else { None };
        let remembered = self.remembered_mut(slot);
        remembered.told = look.told();
        if let Some(place) = place {
            let before = std::mem::replace(&mut remembered.place, place);
            let unsettled = self.unsettled.remove(&before);
            assert_eq!(unsettled, Some(slot), "what was looked at was not settled");
            self.unsettled.insert(place, slot);
        }
        self.settle(slot, look);
        is_news
    }

    fn is_news(&self, slot: Slot, look: &Look) -> bool {
        look.has_records || look.is_notable || self.remembered(slot).told != look.told()
    }

    fn take_place(&mut self) -> Place {
        let place = self.next_place;
        self.next_place += 1;
        place
    }

    fn remembered(&self, slot: Slot) -> &Remembered<K, W> {
        let found = self.partitions.get(slot.0 as usize).and_then(Option::as_ref);
        found.expect("the slot was not forgotten")
    }

    fn remembered_mut(&mut self, slot: Slot) -> &mut Remembered<K, W> {
        let found = self.partitions.get_mut(slot.0 as usize).and_then(Option::as_mut);
        found.expect("the slot was not forgotten")
    }
}

impl Look {
    fn told(&self) -> Told {
        Told { high_watermark: self.high_watermark, log_start_offset: self.log_start_offset }
    }
}
