//! Which sessions a broker keeps, and which give way to others.

use std::{collections::BTreeMap, time::Duration};

use super::SessionId;

/// What a broker keeps of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Sessions in all. `max.incremental.fetch.session.cache.slots`
    pub sessions_max: usize,
    /// Partitions that all sessions hold together.
    /// `max.incremental.fetch.session.cache.partitions`
    pub partitions_max: usize,
    /// How long a session is safe after its last request, and from larger ones after its first.
    /// `min.incremental.fetch.session.eviction.ms`
    pub eviction_min: Duration,
}

/// The sessions of a broker. `S` is whatever the shell keeps of one; nothing here looks inside.
/// Times are since any moment the shell likes.
///
/// Invariant: neither bound is ever exceeded.
#[derive(Debug)]
pub struct FetchSessionCache<S> {
    limits: CacheLimits,
    sessions: BTreeMap<SessionId, Kept<S>>,
    partitions: usize,
}

#[derive(Debug)]
struct Kept<S> {
    session: S,
    worth: Worth,
    created: Duration,
    last_used: Duration,
}

/// What a session saves. Followers come before consumers, whatever their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    is_follower: bool,
    partitions: usize,
}

/// A session that was taken in, and those that gave way to it.
#[derive(Debug, PartialEq, Eq)]
pub struct Created<S> {
    /// The new session's id.
    pub id: SessionId,
    /// For the shell to let go of, with no lock held.
    pub evicted: Vec<S>,
}

impl<S> FetchSessionCache<S> {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(limits: CacheLimits) -> FetchSessionCache<S> {
        FetchSessionCache { limits, sessions: BTreeMap::new(), partitions: 0 }
    }

    /// How many sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Partitions that all sessions hold together.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// A session, if it was neither ended nor evicted.
    #[must_use]
    pub fn get(&self, id: SessionId) -> Option<&S> {
        self.sessions.get(&id).map(|kept| &kept.session)
    }

    /// Whether [`FetchSessionCache::create`] would take such a session in now.
    #[must_use]
    pub fn takes(&self, is_follower: bool, partitions: usize, now: Duration) -> bool {
        self.victims(Worth { is_follower, partitions }, now).is_some()
    }

    /// Takes a session of so many partitions in, if there is room or less valuable sessions give
    /// way. `random` makes ids hard to guess, and says nothing else.
    pub fn create(
        &mut self,
        session: S,
        is_follower: bool,
        partitions: usize,
        now: Duration,
        random: u64,
    ) -> Option<Created<S>> {
        let worth = Worth { is_follower, partitions };
        let victims = self.victims(worth, now)?;
        let evicted = victims.into_iter().filter_map(|id| self.remove(id)).collect();
        let id = self.free_id(random);
        self.partitions += partitions;
        self.sessions.insert(id, Kept { session, worth, created: now, last_used: now });
        self.check();
        Some(Created { id, evicted })
    }

    /// A session got a request and holds so many partitions now. False where those are too many,
    /// or it is gone: the shell removes it then.
    #[must_use]
    pub fn touch(&mut self, id: SessionId, partitions: usize, now: Duration) -> bool {
        let Some(kept) = self.sessions.get_mut(&id) else { return false };
        let others = self.partitions - kept.worth.partitions;
        if others + partitions > self.limits.partitions_max {
            return false;
        }
        self.partitions = others + partitions;
        kept.worth.partitions = partitions;
        kept.last_used = kept.last_used.max(now);
        self.check();
        true
    }

    /// Ends a session; `None` if there is none.
    pub fn remove(&mut self, id: SessionId) -> Option<S> {
        let kept = self.sessions.remove(&id)?;
        self.partitions -= kept.worth.partitions;
        Some(kept.session)
    }

    /// Who gives way to a new session; `None` where it is not taken in, and nobody has to.
    ///
    /// As in Kafka: first those that have not been used for long, the longest first. Then those
    /// that are worth less than the new one, the least first, but no follower that is new, and for
    /// a consumer nobody who is new.
    fn victims(&self, newcomer: Worth, now: Duration) -> Option<Vec<SessionId>> {
        let mut sessions = self.sessions.len() + 1;
        let mut partitions = self.partitions.checked_add(newcomer.partitions)?;
        let mut victims = Vec::new();
        let mut candidates = None;
        while sessions > self.limits.sessions_max || partitions > self.limits.partitions_max {
            let candidates = candidates.get_or_insert_with(|| self.candidates(newcomer, now));
            let (id, worth) = candidates.next()?;
            sessions -= 1;
            partitions -= worth.partitions;
            victims.push(id);
        }
        Some(victims)
    }

    fn candidates(
        &self,
        newcomer: Worth,
        now: Duration,
    ) -> impl Iterator<Item = (SessionId, Worth)> + use<S> {
        let is_old = |since: Duration| now.saturating_sub(since) > self.limits.eviction_min;
        let (mut stale, mut lesser) = (Vec::new(), Vec::new());
        for (id, kept) in &self.sessions {
            let is_safe = |kept: &Kept<S>| match newcomer.is_follower {
                true => kept.worth.is_follower && !is_old(kept.created),
                false => !is_old(kept.created),
            };
            if is_old(kept.last_used) {
                stale.push((kept.last_used, *id, kept.worth));
            } else if !is_safe(kept) && kept.worth < newcomer {
                lesser.push((kept.worth, *id));
            }
        }
        stale.sort_unstable_by_key(|(last_used, id, _)| (*last_used, *id));
        lesser.sort_unstable();
        let stale = stale.into_iter().map(|(_, id, worth)| (id, worth));
        stale.chain(lesser.into_iter().map(|(worth, id)| (id, worth)))
    }

    /// A positive id that no session has.
    fn free_id(&self, random: u64) -> SessionId {
        let range = u64::from(i32::MAX.cast_unsigned());
        let ids = (0..=self.sessions.len() as u64).map(|step| (random % range + step) % range + 1);
        let mut ids = ids.map(|id| SessionId(i32::try_from(id).expect("at most i32::MAX")));
        ids.find(|id| !self.sessions.contains_key(id)).expect("one more id than sessions was tried")
    }

    fn check(&self) {
        assert!(self.sessions.len() <= self.limits.sessions_max, "more sessions than may be");
        assert!(self.partitions <= self.limits.partitions_max, "more partitions than may be");
    }
}
