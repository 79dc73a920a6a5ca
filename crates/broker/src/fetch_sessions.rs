//! The fetch sessions of this broker's clients: the cores behind short locks, and what tells them
//! which of their partitions to look at.
//!
//! Lock order is session, then partition; the cache's lock is taken with neither held, nor is a
//! session let go of under it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use kafka_protocol::protocol::StrBytes;
use tidelog_protocol::{
    TopicRef,
    fetch::{FetchPartition, FetchRequest},
};
use tidelog_replica::{
    FetchSession, FetchSessionCache, SessionError, SessionId,
    fetch_session::{CacheLimits, Look, SessionEpoch, Slot},
};
use tidelog_types::{Clock, TopicIdPartition};

use crate::{
    broker::random_uuid,
    config::BrokerSettings,
    metrics::BrokerMetrics,
    partition::{Partition, Watch},
    replica_manager::{LookupError, Topics},
    waits::{FetchWait, FetchWaiter},
};

/// All sessions of this broker's clients.
pub(crate) struct FetchSessions {
    cache: Mutex<Cache>,
    clock: Arc<dyn Clock>,
    metrics: Arc<BrokerMetrics>,
}

type Cache = FetchSessionCache<Arc<Session>>;

/// One session, as long as a client or a request of its has it.
struct Session {
    state: Mutex<State>,
    wait: Arc<FetchWait>,
}

struct State {
    core: FetchSession<PartitionKey, FetchPartition>,
    /// Of those partitions that could be watched when they were looked at last.
    watches: BTreeMap<Slot, (TopicIdPartition, Watch)>,
}

/// A partition as a client names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PartitionKey {
    topic: TopicRef,
    partition: i32,
}

/// What opens a session, if there is room for it: the first answer.
pub(crate) struct Opening {
    core: FetchSession<PartitionKey, FetchPartition>,
    found: Vec<(Slot, Look)>,
}

/// A request in a session.
pub(crate) struct SessionFetch {
    id: SessionId,
    /// What the session's epoch is until the client's next request.
    begun: SessionEpoch,
    session: Arc<Session>,
}

/// A partition that a session's request has to look at.
pub(crate) struct Unsettled {
    /// Its place in the session.
    pub(crate) slot: Slot,
    /// As the client named it.
    pub(crate) topic: TopicRef,
    /// What the client wants of it.
    pub(crate) request: FetchPartition,
    /// Where it is; watched from before it is looked at.
    pub(crate) partition: Result<Arc<Partition>, LookupError>,
}

/// Another request of the session's client came meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overtaken;

impl FetchSessions {
    /// No sessions yet.
    pub(crate) fn new(
        settings: &BrokerSettings,
        clock: Arc<dyn Clock>,
        metrics: Arc<BrokerMetrics>,
    ) -> FetchSessions {
        let cache = Mutex::new(FetchSessionCache::new(settings.fetch_sessions()));
        FetchSessions { cache, clock, metrics }
    }

    /// Whether a session of so many partitions would be taken in.
    pub(crate) fn takes(&self, is_follower: bool, partitions: usize) -> bool {
        self.cache().takes(is_follower, partitions, self.clock.elapsed())
    }

    /// Takes a session in. [`SessionId::NONE`] where there is no room after all.
    pub(crate) fn create(&self, opening: Opening, is_follower: bool) -> SessionId {
        let core = opening.finish();
        let partitions = core.len();
        let state = Mutex::new(State { core, watches: BTreeMap::new() });
        let session = Arc::new(Session { state, wait: Arc::default() });
        let (now, random) = (self.clock.elapsed(), random_uuid().0);
        let random = u64::from_be_bytes(*random.first_chunk().expect("sixteen bytes"));
        let mut cache = self.cache();
        let created = cache.create(session, is_follower, partitions, now, random);
        self.count(&cache);
        drop(cache);
        let Some(created) = created else { return SessionId::NONE };
        self.metrics.fetch.session_evictions.inc_by(created.evicted.len() as u64);
        created.id
    }

    /// Ends a session, if there is one.
    pub(crate) fn remove(&self, id: SessionId) {
        if id == SessionId::NONE {
            return;
        }
        let mut cache = self.cache();
        let removed = cache.remove(id);
        self.count(&cache);
        drop(cache);
        drop(removed);
    }

    /// Takes a request in a session: what it changes, and what it forgets. `None` where nothing is
    /// left of the session, which ends it.
    ///
    /// # Errors
    /// When it cannot go on.
    pub(crate) fn begin(
        &self,
        id: SessionId,
        epoch: SessionEpoch,
        request: &FetchRequest,
        uses_topic_ids: bool,
    ) -> Result<Option<SessionFetch>, SessionError> {
        let session = self.cache().get(id).cloned().ok_or(SessionError::NotFound { id })?;
        let mut state = session.state();
        let begun = state.core.begin(id, epoch, uses_topic_ids)?;
        state.update(request);
        let partitions = state.core.len();
        drop(state);
        // A request that still waits in the session has been overtaken.
        session.wait.interrupt();
        if partitions == 0 {
            self.remove(id);
            return Ok(None);
        }
        let mut cache = self.cache();
        let stays = cache.touch(id, partitions, self.clock.elapsed());
        self.count(&cache);
        drop(cache);
        if !stays {
            self.remove(id);
            return Err(SessionError::NotFound { id });
        }
        Ok(Some(SessionFetch { id, begun, session }))
    }

    fn count(&self, cache: &Cache) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.fetch.sessions.set(gauge(cache.len()));
        self.metrics.fetch.session_partitions.set(gauge(cache.partitions()));
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Only an assertion of ours panics under this lock.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opening {
    /// Nothing was answered yet.
    pub(crate) fn new(uses_topic_ids: bool) -> Opening {
        Opening { core: FetchSession::new(uses_topic_ids), found: Vec::new() }
    }

    /// Remembers what the client wants of a topic's partitions, and what each look found. A
    /// partition that was named before keeps what was said of it first.
    pub(crate) fn answer<'a>(
        &mut self,
        topic: &TopicRef,
        partitions: impl Iterator<Item = (&'a FetchPartition, Look)>,
    ) {
        let topic = owned(topic);
        for (request, look) in partitions {
            let key = PartitionKey { topic: topic.clone(), partition: request.partition };
            if !self.core.contains(&key) {
                self.found.push((self.core.add(key, *request), look));
            }
        }
    }

    fn finish(mut self) -> FetchSession<PartitionKey, FetchPartition> {
        for (slot, look) in &self.found {
            self.core.answer(*slot, look);
        }
        // Nobody has watched them: whatever came since is for the first request to find.
        self.found.iter().for_each(|(slot, _)| self.core.mark(*slot));
        self.core
    }
}

impl SessionFetch {
    /// The session's id.
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// `bytes` more are worth another look.
    pub(crate) fn wait_for(&self, bytes: u64) {
        self.session.wait.wait_for(bytes);
    }

    /// Ready once another look is worth it. A request that was overtaken has nothing to wait for,
    /// and leaves the wait to the other one.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.current() {
            Ok(_current) => self.session.wait.poll(context),
            Err(Overtaken) => Poll::Ready(()),
        }
    }

    /// About how many partitions the first look will be at.
    pub(crate) fn unsettled_len(&self) -> usize {
        self.session.state().core.unsettled_len()
    }

    /// The partitions to look at, in the order in which their records are to be read.
    ///
    /// # Errors
    /// When this request is of no interest any more.
    pub(crate) fn begin_look(&self, topics: &Topics) -> Result<Vec<Unsettled>, Overtaken> {
        let mut state = self.current()?;
        for slot in self.session.wait.begin_look() {
            state.core.mark(slot);
        }
        let State { core, watches } = &mut *state;
        let look = |(slot, key, request): (Slot, &PartitionKey, &FetchPartition)| {
            let topic = topics.find(&key.topic);
            let partition = topic.and_then(|topic| topic.partition(key.partition)).cloned();
            watch(watches, slot, partition.as_deref().ok(), &self.session.wait);
            Unsettled { slot, topic: key.topic.clone(), request: *request, partition }
        };
        Ok(core.unsettled().map(look).collect())
    }

    /// The request waits for more than its look found.
    ///
    /// # Errors
    /// When this request is of no interest any more.
    pub(crate) fn settle(
        &self,
        found: impl Iterator<Item = (Slot, Look)>,
    ) -> Result<(), Overtaken> {
        let mut state = self.current()?;
        found.for_each(|(slot, look)| state.core.settle(slot, &look));
        Ok(())
    }

    /// The request is answered: for each partition, whether the answer has to hold it.
    ///
    /// # Errors
    /// When this request is of no interest any more.
    pub(crate) fn answer(
        &self,
        found: impl Iterator<Item = (Slot, Look)>,
    ) -> Result<Vec<bool>, Overtaken> {
        let mut state = self.current()?;
        Ok(found.map(|(slot, look)| state.core.answer(slot, &look)).collect())
    }

    fn current(&self) -> Result<MutexGuard<'_, State>, Overtaken> {
        let state = self.session.state();
        if state.core.is_current(self.begun) { Ok(state) } else { Err(Overtaken) }
    }
}

impl Session {
    fn state(&self) -> MutexGuard<'_, State> {
        // Only an assertion of ours panics under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn update(&mut self, request: &FetchRequest) {
        for (topic, partitions) in request.topics() {
            let mut owned_topic = None;
            for wanted in partitions {
                let key = PartitionKey { topic: topic.clone(), partition: wanted.partition };
                if !self.core.update(&key, *wanted) {
                    let topic = owned_topic.get_or_insert_with(|| owned(topic)).clone();
                    self.core.add(PartitionKey { topic, ..key }, *wanted);
                }
            }
        }
        for (topic, partitions) in request.forgotten_topics() {
            for &partition in partitions {
                let forgotten = self.core.forget(&PartitionKey { topic: topic.clone(), partition });
                forgotten.map(|slot| self.watches.remove(&slot));
            }
        }
    }
}

impl BrokerSettings {
    fn fetch_sessions(&self) -> CacheLimits {
        let count = |count: i32| usize::try_from(count).expect("the setting is not negative");
        let milliseconds = self.min_incremental_fetch_session_eviction_ms;
        CacheLimits {
            sessions_max: count(self.max_incremental_fetch_session_cache_slots),
            partitions_max: count(self.max_incremental_fetch_session_cache_partitions),
            eviction_min: Duration::from_millis(milliseconds.unsigned_abs()),
        }
    }
}

/// Watches the partition of a slot, if it does not already, or none.
fn watch(
    watches: &mut BTreeMap<Slot, (TopicIdPartition, Watch)>,
    slot: Slot,
    partition: Option<&Partition>,
    wait: &Arc<FetchWait>,
) {
    let watched = watches.get(&slot);
    let holds = |partition: &&Partition| {
        watched.is_some_and(|(id, watch)| *id == partition.id() && watch.holds())
    };
    if partition.as_ref().is_some_and(holds) {
        return;
    }
    watches.remove(&slot);
    let Some(partition) = partition else { return };
    if let Some(watch) = partition.watch(FetchWaiter { wait: Arc::clone(wait), slot }) {
        watches.insert(slot, (partition.id(), watch));
    }
}

/// A name of its own: what a request says lies in its frame, and would keep all of it.
fn owned(topic: &TopicRef) -> TopicRef {
    match topic {
        TopicRef::Name(name) => TopicRef::Name(StrBytes::from_string(name.to_string())),
        TopicRef::Id(id) => TopicRef::Id(*id),
    }
}
