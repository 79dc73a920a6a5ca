//! What a fetch is about: the partitions that it names, or those of its session (KIP-227).

use std::{
    collections::BTreeSet,
    sync::Arc,
    task::{Context, Poll},
};

use tidelog_protocol::{
    TopicRef,
    fetch::{
        FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopicResponse,
    },
};
use tidelog_replica::{
    SessionError, SessionId, SessionRequest,
    fetch_session::{Look, Slot},
};
use tidelog_types::ErrorCode;

use super::{Wanted, round::Round};
use crate::{
    broker::Broker,
    fetch_sessions::{Opening, Overtaken, SessionFetch, Unsettled},
    partition::Watch,
    replica_manager::{LookupError, Topics},
    waits::{FetchWait, FetchWaiter},
};

/// First version in which requests name topics by id (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;

/// What is read, and how it is answered.
pub(super) enum Subject {
    /// All that the request names, answered in its order.
    Request(Whole),
    /// What changed in a session.
    Session(Changes),
}

/// A request without a session, or with one that is to begin.
pub(super) struct Whole {
    topics: Vec<(TopicRef, usize)>,
    begins: Option<Beginning>,
}

#[derive(Debug, Clone, Copy)]
struct Beginning {
    is_follower: bool,
    uses_topic_ids: bool,
}

/// A request in a session, and what its look is at.
pub(super) struct Changes {
    fetch: SessionFetch,
    places: Vec<(Slot, TopicRef)>,
}

/// What a fetch waits on.
pub(super) enum Wait {
    /// Dropping the watches leaves.
    Request(Arc<FetchWait>, #[allow(dead_code, reason = "dropping them leaves")] Vec<Watch>),
    /// The session knows what.
    Session,
}

impl Subject {
    /// Takes the request's part in its session, if any. Returns with it what to read, which a
    /// session does not know before its first look.
    pub(super) fn of(
        broker: &Broker,
        request: &FetchRequest,
        version: i16,
    ) -> Result<(Subject, Vec<Wanted>), SessionError> {
        let uses_topic_ids = version >= TOPIC_ID_VERSION;
        let begins = match SessionRequest::of(request.session_id, request.session_epoch) {
            SessionRequest::Incremental(id, epoch) => {
                let begun = broker.fetch_sessions.begin(id, epoch, request, uses_topic_ids)?;
                if let Some(fetch) = begun {
                    let changes = Changes { fetch, places: Vec::new() };
                    return Ok((Subject::Session(changes), Vec::new()));
                }
                None
            }
            SessionRequest::Sessionless(id) => {
                broker.fetch_sessions.remove(id);
                None
            }
            SessionRequest::Full(id) => {
                broker.fetch_sessions.remove(id);
                let is_follower = request.replica_id != FetchRequest::CONSUMER;
                Some(Beginning { is_follower, uses_topic_ids })
            }
        };
        let topics = request.topics().map(|(topic, partitions)| (topic.clone(), partitions.len()));
        let whole = Whole { topics: topics.collect(), begins };
        Ok((Subject::Request(whole), find_all(&broker.replicas.topics(), request)))
    }

    /// About how many partitions the next round reads, where nobody asked for each of them.
    pub(super) fn unasked_len(&self) -> usize {
        match self {
            Subject::Request(_) => 0,
            Subject::Session(changes) => changes.fetch.unsettled_len(),
        }
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Subject::Request(whole) if whole.topics.iter().all(|(_, count)| *count == 0))
    }

    /// What a round is to read, where that is not what the round before read.
    pub(super) fn begin_round(
        &mut self,
        broker: &Broker,
    ) -> Result<Option<Vec<Wanted>>, Overtaken> {
        match self {
            Subject::Request(_) => Ok(None),
            Subject::Session(changes) => changes.begin_look(broker).map(Some),
        }
    }

    /// A round found too little: `missing` more bytes are worth another one. `None` if something
    /// came in between, so that there has to be another one now.
    pub(super) fn wait(
        &mut self,
        wanted: &mut Vec<Wanted>,
        round: &Round,
        missing: u64,
    ) -> Option<Wait> {
        match self {
            Subject::Request(_) => {
                let wait = Arc::new(FetchWait::default());
                let watches = watch_all(wanted, round, &wait)?;
                wait.wait_for(missing);
                Some(Wait::Request(wait, watches))
            }
            Subject::Session(changes) => {
                changes.fetch.settle(changes.found(wanted, round)).ok()?;
                // A session's next look may be elsewhere. Who waits holds no more than it must.
                (*wanted, changes.places) = (Vec::new(), Vec::new());
                changes.fetch.wait_for(missing);
                Some(Wait::Session)
            }
        }
    }

    /// Ready once another round is worth it.
    pub(super) fn poll(&self, wait: &Wait, context: &mut Context<'_>) -> Poll<()> {
        match (self, wait) {
            (_, Wait::Request(wait, _)) => wait.poll(context),
            (Subject::Session(changes), Wait::Session) => changes.fetch.poll(context),
            (Subject::Request(_), Wait::Session) => unreachable!("it waits as what it is"),
        }
    }

    /// The answer that a round leads to.
    pub(super) fn answer(
        &self,
        broker: &Broker,
        wanted: &[Wanted],
        round: Round,
    ) -> Result<FetchResponse, Overtaken> {
        match self {
            Subject::Request(whole) => Ok(whole.answer(broker, wanted, round)),
            Subject::Session(changes) => changes.answer(wanted, round),
        }
    }

    /// The answer to a request that was overtaken.
    pub(super) fn refusal(&self) -> FetchResponse {
        let session_id = match self {
            Subject::Request(_) => SessionId::NONE,
            Subject::Session(changes) => changes.fetch.id(),
        };
        let refused = FetchResponse::failed(ErrorCode::InvalidFetchSessionEpoch);
        FetchResponse { session_id: session_id.0, ..refused }
    }
}

impl Whole {
    fn answer(&self, broker: &Broker, wanted: &[Wanted], round: Round) -> FetchResponse {
        let session_id = self.begin(broker, wanted, &round);
        let mut answers = round.answers.into_iter();
        let topic = |(topic, count): &(TopicRef, usize)| FetchTopicResponse {
            topic: topic.clone(),
            partitions: answers.by_ref().take(*count).collect(),
        };
        let topics = self.topics.iter().map(topic).collect();
        FetchResponse { session_id: session_id.0, topics, ..FetchResponse::failed(ErrorCode::None) }
    }

    fn begin(&self, broker: &Broker, wanted: &[Wanted], round: &Round) -> SessionId {
        let Some(Beginning { is_follower, uses_topic_ids }) = self.begins else {
            return SessionId::NONE;
        };
        if !broker.fetch_sessions.takes(is_follower, wanted.len()) {
            return SessionId::NONE;
        }
        let mut opening = Opening::new(uses_topic_ids);
        let mut found = wanted.iter().zip(&round.answers);
        for (topic, count) in &self.topics {
            let found = found.by_ref().take(*count);
            opening.answer(topic, found.map(|(w, answer)| (&w.request, look(&w.request, answer))));
        }
        broker.fetch_sessions.create(opening, is_follower)
    }
}

impl Changes {
    fn begin_look(&mut self, broker: &Broker) -> Result<Vec<Wanted>, Overtaken> {
        let unsettled = self.fetch.begin_look(&broker.replicas.topics())?;
        self.places = Vec::with_capacity(unsettled.len());
        let take = |Unsettled { slot, topic, request, partition }| {
            self.places.push((slot, topic));
            Wanted { partition, request }
        };
        Ok(unsettled.into_iter().map(take).collect())
    }

    fn found(&self, wanted: &[Wanted], round: &Round) -> impl Iterator<Item = (Slot, Look)> {
        assert_eq!(self.places.len(), round.answers.len(), "a round is over when all was read");
        let looks = wanted.iter().zip(&round.answers).map(|(w, answer)| look(&w.request, answer));
        self.places.iter().map(|(slot, _)| *slot).zip(looks)
    }

    /// Only what the client does not know. Neighbours of one topic share its name.
    fn answer(&self, wanted: &[Wanted], round: Round) -> Result<FetchResponse, Overtaken> {
        let news = self.fetch.answer(self.found(wanted, &round))?;
        let mut topics: Vec<FetchTopicResponse> = Vec::new();
        let answers = self.places.iter().zip(round.answers).zip(news);
        for (((_, topic), answer), _) in answers.filter(|(_, is_news)| *is_news) {
            match topics.last_mut().filter(|last| last.topic == *topic) {
                Some(last) => last.partitions.push(answer),
                None => {
                    let (topic, partitions) = (topic.clone(), vec![answer]);
                    topics.push(FetchTopicResponse { topic, partitions });
                }
            }
        }
        let session_id = self.fetch.id().0;
        Ok(FetchResponse { session_id, topics, ..FetchResponse::failed(ErrorCode::None) })
    }
}

/// What the request names, each partition once.
fn find_all(topics: &Topics, request: &FetchRequest) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let mut seen = BTreeSet::new();
    for (topic, partitions) in request.topics() {
        let hosted = topics.find(topic);
        for partition in partitions {
            let hosted = hosted.and_then(|topic| topic.partition(partition.partition));
            let hosted = hosted.and_then(|found| match seen.insert(found.id()) {
                true => Ok(found),
                false => Err(LookupError::Twice),
            });
            wanted.push(Wanted { partition: hosted.cloned(), request: *partition });
        }
    }
    wanted
}

fn watch_all(wanted: &[Wanted], round: &Round, wait: &Arc<FetchWait>) -> Option<Vec<Watch>> {
    let mut watches = Vec::with_capacity(wanted.len());
    for ((slot, wanted), seen) in (0..).zip(wanted).zip(&round.seen) {
        let partition = wanted.partition.as_ref().ok()?;
        let watch = partition.watch(FetchWaiter { wait: Arc::clone(wait), slot: Slot(slot) })?;
        if (watch.leader_epoch, watch.high_watermark) != *seen {
            return None;
        }
        watches.push(watch);
    }
    Some(watches)
}

fn look(request: &FetchPartition, answer: &FetchPartitionResponse) -> Look {
    let has_records = !answer.records.is_empty();
    let is_notable = answer.error_code != ErrorCode::None
        || answer.diverging_epoch.is_some()
        || answer.preferred_read_replica.is_some();
    // Records of open transactions lie above what some requests of a session may read, and not
    // above what others may.
    let is_at_end = request.fetch_offset >= answer.high_watermark;
    Look {
        has_records,
        high_watermark: answer.high_watermark,
        log_start_offset: answer.log_start_offset,
        is_notable,
        is_drained: !has_records && !is_notable && is_at_end,
    }
}
