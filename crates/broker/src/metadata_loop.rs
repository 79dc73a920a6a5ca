//! The metadata thread: one owner of the controller and of the committed image.
//!
//! Requests become proposals, committed entries become the image that every handler reads. The
//! order of a publication is: open and lead partitions, swap the image, complete what waited.

use std::{
    collections::{BTreeMap, VecDeque},
    mem, process,
    sync::Arc,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use crossbeam::{
    channel::{Receiver, Sender},
    select,
};
use tidelog_metadata::{
    Controller, ControllerConfig, ControllerError, ControllerResult, DecodeError, MetadataDelta,
    MetadataImage, MetadataRecord, ProducerIdBlock, RegisterBrokerRequest, TopicDelta,
    decode_records, encode_records,
    image::TopicImage,
    record::{ConfigResource, PartitionRegistration},
    snapshot,
};
use tidelog_raft::{Event, ProposeError, RaftHandle};
use tidelog_types::{
    BrokerId, ErrorCode, ProducerId, TopicId, TopicIdPartition, topic_settings::TopicSettings,
};
use tidelog_wal::{RecoveredPartition, Wal};
use tracing::{debug, error, info};

use crate::{
    broker::OnSettings,
    config::NodeSettings,
    controller_handle::{Command, ReplyTo, Settle, tell},
    coordinator, dynamic_config, errors,
    metrics::BrokerMetrics,
    partition::Leadership,
    replica_manager::{ReplicaManager, TopicSpec},
    topic_config::topic_defaults,
};

/// Committed entries that are published together at most.
const ENTRIES_A_PUBLICATION: usize = 1024;

/// Why the metadata thread cannot go on. Whoever starts the process again reads the log anew.
#[derive(Debug, thiserror::Error)]
pub enum MetadataLoopError {
    /// An entry or a snapshot is not what this release writes.
    #[error("the metadata log cannot be read at index {index}: {source}")]
    Undecodable {
        /// Where.
        index: u64,
        /// Why.
        source: DecodeError,
    },
    /// There are logs, but the metadata that names them is gone: a new cluster would remove them.
    #[error(
        "{count} partitions are on disk, but the metadata log is empty; refusing to start over"
    )]
    LogsWithoutMetadata {
        /// How many.
        count: usize,
    },
    /// The cluster will not have this broker.
    #[error("this broker cannot register: {0}")]
    Registration(#[from] ControllerError),
    /// The Raft node stopped before this broker was registered.
    #[error("the metadata log stopped")]
    Stopped,
}

/// What the thread is given.
pub(crate) struct MetadataLoop {
    pub raft: RaftHandle,
    pub events: Receiver<Event>,
    pub commands: Receiver<Command>,
    pub wal: Wal,
    pub replicas: Arc<ReplicaManager>,
    pub published: Arc<ArcSwap<MetadataImage>>,
    pub metrics: Arc<BrokerMetrics>,
    pub registration: RegisterBrokerRequest,
    pub controller: ControllerConfig,
    /// What this broker was started with.
    pub settings: NodeSettings,
    /// What is on disk and not opened yet.
    pub recovered: BTreeMap<TopicIdPartition, RecoveredPartition>,
    /// Told whenever metadata has changed.
    pub groups: Arc<coordinator::commands::Shared>,
    /// Heeds settings that change.
    pub on_settings: OnSettings,
    /// Told once this broker is registered and leads its partitions, or why it never will.
    pub ready: Sender<Result<(), MetadataLoopError>>,
}

/// Runs until the Raft node stops.
pub(crate) fn run_metadata_loop(given: MetadataLoop) {
    let mut state = State::new(given);
    let Err(error) = state.run() else { return };
    if let Err(error) = state.tell_starter(error) {
        error!(%error, "the metadata log cannot be followed; exiting");
        process::exit(tidelog_wal::error::EXIT_CODE);
    }
}

struct State {
    given: MetadataLoop,
    image: Arc<MetadataImage>,
    /// What holds for a topic that was given no settings, by that image.
    topic_defaults: TopicSettings,
    leading: Option<Leading>,
    producer_ids: ProducerIds,
    is_registered: bool,
    next_ticket: u64,
}

/// This broker is the metadata leader: it plans, on what it has proposed and not yet seen again.
struct Leading {
    term: u64,
    controller: Controller,
    /// Proposals in flight, oldest first, and who waits for them.
    parked: VecDeque<Parked>,
}

struct Parked {
    ticket: u64,
    records: Vec<MetadataRecord>,
    replies: Vec<Reply>,
}

/// An answer that holds once a proposal is committed.
enum Reply {
    Planned(Settle),
    ProducerIds(ProducerIdBlock),
}

/// Ids of a block that is this broker's, and who waits for the next block.
#[derive(Default)]
struct ProducerIds {
    next: i64,
    end: i64,
    waiting: VecDeque<ReplyTo<ProducerId>>,
}

impl State {
    fn new(given: MetadataLoop) -> State {
        State {
            topic_defaults: topic_defaults(&given.settings),
            given,
            image: Arc::new(MetadataImage::default()),
            leading: None,
            producer_ids: ProducerIds::default(),
            is_registered: false,
            next_ticket: 0,
        }
    }

    fn run(&mut self) -> Result<(), MetadataLoopError> {
        let (events, commands) = (self.given.events.clone(), self.given.commands.clone());
        loop {
            select! {
                recv(events) -> event => match event {
                    Ok(event) => self.on_event(event)?,
                    Err(_) if self.is_registered => return Ok(()),
                    Err(_) => return Err(MetadataLoopError::Stopped),
                },
                recv(commands) -> command => match command {
                    Ok(command) => self.on_command(command),
                    Err(_) => return Ok(()),
                },
            }
        }
    }

    /// Tells whoever starts this broker why it never will be registered. Gives the error back when
    /// nobody waits for it: once registered the answer was given, whether or not it was taken yet,
    /// and nobody may go on without metadata.
    fn tell_starter(&self, error: MetadataLoopError) -> Result<(), MetadataLoopError> {
        if self.is_registered {
            return Err(error);
        }
        self.given.ready.try_send(Err(error)).map_err(|refused| match refused.into_inner() {
            Err(error) => error,
            Ok(()) => MetadataLoopError::Stopped,
        })
    }

    fn on_event(&mut self, event: Event) -> Result<(), MetadataLoopError> {
        match event {
            Event::Committed { index, term, data } => return self.on_committed(index, term, data),
            Event::Leader { term } => self.on_leader(term)?,
            Event::Follower { .. } => self.on_follower(),
            Event::Restore { index, data, .. } => self.on_restore(index, &data)?,
            Event::SnapshotWanted { index } => {
                // Entries without data change nothing, so the image is as new as the index.
                let index = self.image.index().max(index);
                self.given.raft.snapshot(index, snapshot::encode(&self.image));
            }
            Event::ProposalDropped { tickets } => self.on_dropped(&tickets),
        }
        Ok(())
    }

    fn on_leader(&mut self, term: u64) -> Result<(), MetadataLoopError> {
        debug!(term, "leads the metadata");
        self.given.metrics.is_controller.set(1);
        let image = Arc::clone(&self.image);
        let controller = Controller::with_config(image, self.given.controller.clone());
        self.leading = Some(Leading { term, controller, parked: VecDeque::new() });
        self.bootstrap()?;
        self.register()
    }

    /// Writes a new cluster's first records: its features, then its id.
    fn bootstrap(&mut self) -> Result<(), MetadataLoopError> {
        let controller = &self.leading.as_ref().expect("only a leader bootstraps").controller;
        let planned = controller.bootstrap(self.given.registration.cluster_id);
        if planned.records.is_empty() {
            return Ok(());
        }
        if !self.given.recovered.is_empty() {
            let count = self.given.recovered.len();
            return Err(MetadataLoopError::LogsWithoutMetadata { count });
        }
        info!(cluster_id = %self.given.registration.cluster_id, "a new cluster");
        self.propose(planned.records, Vec::new());
        Ok(())
    }

    /// Every start is a new incarnation, so that each partition gets a new leader epoch before it
    /// is served.
    fn register(&mut self) -> Result<(), MetadataLoopError> {
        let controller = &self.leading.as_ref().expect("only a leader registers").controller;
        let ControllerResult { records, response } =
            controller.register_broker(&self.given.registration);
        response?;
        self.propose(records, Vec::new());
        Ok(())
    }

    fn on_follower(&mut self) {
        self.given.metrics.is_controller.set(0);
        if let Some(leading) = self.leading.take() {
            info!(term = leading.term, "no longer leads the metadata");
            leading.parked.into_iter().for_each(Parked::fail);
        }
        for reply in mem::take(&mut self.producer_ids.waiting) {
            tell(reply, Err(ErrorCode::NotController));
        }
    }

    /// What was planned on top of a dropped proposal is void too; what came before it stays.
    fn on_dropped(&mut self, tickets: &[u64]) {
        let Some(leading) = &mut self.leading else { return };
        // Those that were voided with an earlier one come back later, after new proposals.
        let is_dropped = |parked: &Parked| tickets.contains(&parked.ticket);
        let Some(kept) = leading.parked.iter().position(is_dropped) else { return };
        let void = leading.parked.split_off(kept);
        let image = Arc::clone(&self.image);
        leading.controller = Controller::with_config(image, self.given.controller.clone());
        leading.parked.iter().for_each(|parked| leading.controller.replay_all(&parked.records));
        void.into_iter().for_each(Parked::fail);
        for reply in mem::take(&mut self.producer_ids.waiting) {
            tell(reply, Err(ErrorCode::NotController));
        }
        if let Err(error) = self.given.raft.resume() {
            error!(%error, "proposals are dropped until this node leads anew");
        }
    }

    /// Applies an entry and all that are ready behind it, publishes once, then answers.
    fn on_committed(
        &mut self,
        index: u64,
        term: u64,
        data: Bytes,
    ) -> Result<(), MetadataLoopError> {
        let (mut last, mut replies, mut next) = (index, Vec::new(), None);
        let mut records = decode(index, &data)?;
        replies.append(&mut self.take_parked(term));
        for _ in 1..ENTRIES_A_PUBLICATION {
            match self.given.events.try_recv() {
                Ok(Event::Committed { index, term, data }) => {
                    records.append(&mut decode(index, &data)?);
                    replies.append(&mut self.take_parked(term));
                    last = index;
                }
                Ok(event) => {
                    next = Some(event);
                    break;
                }
                Err(_) => break,
            }
        }
        let (image, delta) = self.image.apply(&records, last);
        self.publish(image, &delta);
        replies.into_iter().for_each(|reply| self.answer(reply));
        self.given.raft.applied(last);
        next.map_or(Ok(()), |event| self.on_event(event))
    }

    fn on_restore(&mut self, index: u64, data: &Bytes) -> Result<(), MetadataLoopError> {
        let decoded = snapshot::decode(data);
        let image = decoded.map_err(|source| MetadataLoopError::Undecodable { index, source })?;
        info!(index, topics = image.topics().len(), "metadata from a snapshot");
        let delta = MetadataDelta::between(&self.image, &image);
        self.publish(image, &delta);
        self.given.raft.applied(index);
        Ok(())
    }

    /// Who waits for the oldest proposal, if this committed entry is that proposal.
    fn take_parked(&mut self, term: u64) -> Vec<Reply> {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) else {
            return Vec::new();
        };
        let parked = leading.parked.pop_front();
        parked.expect("an entry of this leader's term was proposed here").replies
    }

    fn publish(&mut self, image: MetadataImage, delta: &MetadataDelta) {
        self.image = Arc::new(image);
        let all_changed = self.follow_defaults(delta);
        let was_registered = self.is_registered;
        self.is_registered = was_registered || self.sees_itself();
        if !self.is_registered {
            return; // nothing is served, so nothing is opened
        }
        let (mut specs, removed) = match was_registered {
            true => self.changed(delta),
            false => (Vec::new(), Vec::new()),
        };
        if all_changed || !was_registered {
            specs = self.image.topics().iter().map(|topic| self.spec(topic)).collect();
        }
        let recovered = &mut self.given.recovered;
        self.given.replicas.apply(specs, &removed, &mut |id| recovered.remove(&id));
        // Before anybody sees that a topic is gone, or there again.
        self.given.groups.published(deleted_names(delta));
        self.given.published.store(Arc::clone(&self.image));
        if !was_registered {
            self.on_registered();
        }
    }

    /// Takes over what became of brokers' settings. True where it changes something for topics.
    fn follow_defaults(&mut self, delta: &MetadataDelta) -> bool {
        if !delta.configs.iter().any(|changed| matches!(changed, ConfigResource::Broker(_))) {
            return false;
        }
        let me = self.given.registration.broker_id;
        let settings = dynamic_config::effective(&self.given.settings, &self.image, me);
        (self.given.on_settings)(&settings);
        let before = mem::replace(&mut self.topic_defaults, topic_defaults(&settings));
        before != self.topic_defaults
    }

    /// Whether this very process is registered: from then on its leader epochs are its own.
    fn sees_itself(&self) -> bool {
        let RegisterBrokerRequest { broker_id, incarnation_id, .. } = &self.given.registration;
        let known = self.image.cluster().broker(*broker_id);
        known.is_some_and(|known| known.incarnation_id == *incarnation_id)
    }

    /// Metadata has caught up past this broker's registration: what it does not know is stray.
    fn on_registered(&mut self) {
        self.given.wal.all_known_opened();
        let unknown = |id: &TopicIdPartition| self.image.topics().partition(*id).is_none();
        let stray: Vec<_> = self.given.recovered.keys().copied().filter(unknown).collect();
        for id in stray {
            info!(%id, "removing the log of a topic that no longer exists");
            self.given.recovered.remove(&id);
            self.given.replicas.remove_stray(id);
        }
        debug!(
            topics = self.image.topics().len(),
            partitions = self.image.topics().partition_count(),
            "registered"
        );
        // Whoever started this broker may have given up.
        let _ = self.given.ready.try_send(Ok(()));
    }

    fn changed(&self, delta: &MetadataDelta) -> (Vec<TopicSpec>, Vec<TopicId>) {
        let mut specs = BTreeMap::new();
        let mut removed = Vec::new();
        for (topic_id, change) in &delta.topics {
            match change {
                TopicDelta::Removed(topic) => {
                    info!(topic = topic.name(), %topic_id, "deleted a topic");
                    removed.push(*topic_id);
                }
                TopicDelta::Created | TopicDelta::Changed(_) => {
                    let topic = self.image.topics().get_by_id(*topic_id);
                    let topic = topic.expect("a topic that changed is there");
                    if matches!(change, TopicDelta::Created) {
                        let partitions = topic.partition_count();
                        info!(topic = topic.name(), %topic_id, partitions, "created a topic");
                    }
                    specs.insert(*topic_id, self.spec(topic));
                }
            }
        }
        for resource in &delta.configs {
            let ConfigResource::Topic(name) = resource else { continue };
            let Some(topic) = self.image.topics().get(name) else { continue };
            specs.insert(topic.topic_id(), self.spec(topic));
        }
        (specs.into_values().collect(), removed)
    }

    fn spec(&self, topic: &TopicImage) -> TopicSpec {
        let overrides = self.image.configs().topic(topic.name());
        let settings = self.topic_defaults.with_overrides(overrides);
        let settings = settings.unwrap_or_else(|error| {
            error!(topic = topic.name(), %error, "a stored setting is not one of this release");
            self.topic_defaults.clone()
        });
        let me = self.given.registration.broker_id;
        let partitions = topic.partitions().map(|(_, state)| leadership(state, me, &settings));
        let partitions = partitions.collect();
        TopicSpec { id: topic.topic_id(), name: topic.shared_name(), settings, partitions }
    }

    fn on_command(&mut self, command: Command) {
        let Some(leading) = &self.leading else {
            return command.refuse(ErrorCode::NotController);
        };
        match command {
            Command::Plan(planning) => {
                let (records, settle) = planning.plan(&leading.controller);
                self.propose(records, vec![Reply::Planned(settle)]);
            }
            Command::NextProducerId { reply } => self.next_producer_id(reply),
        }
    }

    fn next_producer_id(&mut self, reply: ReplyTo<ProducerId>) {
        if self.producer_ids.next < self.producer_ids.end {
            return self.producer_ids.give(reply);
        }
        self.producer_ids.waiting.push_back(reply);
        if self.producer_ids.waiting.len() > 1 {
            return; // the next block is on its way
        }
        let me = self.given.registration.broker_id;
        let leading = self.leading.as_ref().expect("commands are refused otherwise");
        let registered = leading.controller.image().cluster().broker(me);
        let planned = registered.map(|registered| {
            leading.controller.allocate_producer_ids(me, registered.broker_epoch)
        });
        match planned {
            Some(ControllerResult { records, response: Ok(block) }) => {
                self.propose(records, vec![Reply::ProducerIds(block)]);
            }
            Some(ControllerResult { response: Err(error), .. }) => {
                self.producer_ids.refuse_all(error.error_code());
            }
            None => self.producer_ids.refuse_all(ErrorCode::NotController),
        }
    }

    /// Proposes a plan's records and parks its replies until they are committed. A plan without
    /// records waits for all that it could have seen.
    fn propose(&mut self, records: Vec<MetadataRecord>, replies: Vec<Reply>) {
        let leading = self.leading.as_mut().expect("only a leader plans");
        if records.is_empty() {
            return match leading.parked.back_mut() {
                Some(parked) => parked.replies.extend(replies),
                None => replies.into_iter().for_each(|reply| self.answer(reply)),
            };
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let proposed = self.given.raft.propose(leading.term, encode_records(&records), ticket);
        match proposed {
            Ok(()) => {
                leading.controller.replay_all(&records);
                leading.parked.push_back(Parked { ticket, records, replies });
            }
            Err(error) => self.refuse(replies, &error),
        }
    }

    fn refuse(&mut self, replies: Vec<Reply>, error: &ProposeError) {
        let code = errors::propose(error);
        if replies.iter().any(|reply| matches!(reply, Reply::ProducerIds(_))) {
            self.producer_ids.refuse_all(code);
        }
        replies.into_iter().for_each(|reply| reply.fail(code));
    }

    fn answer(&mut self, reply: Reply) {
        match reply {
            Reply::Planned(settle) => settle(Ok(())),
            Reply::ProducerIds(block) => self.producer_ids.refill(block),
        }
    }
}

impl Parked {
    fn fail(self) {
        self.replies.into_iter().for_each(|reply| reply.fail(ErrorCode::NotController));
    }
}

impl Reply {
    fn fail(self, code: ErrorCode) {
        match self {
            Reply::Planned(settle) => settle(Err(code)),
            Reply::ProducerIds(_) => {} // whoever waits for one is told by the block's owner
        }
    }
}

impl ProducerIds {
    fn give(&mut self, reply: ReplyTo<ProducerId>) {
        assert!(self.next < self.end, "an id is given out of a block");
        // An id that is not taken, because the client has gone, is not given out again.
        tell(reply, Ok(ProducerId(self.next)));
        self.next += 1;
    }

    fn refill(&mut self, block: ProducerIdBlock) {
        assert!(block.first.0 >= self.end, "a producer id was given out twice");
        self.next = block.first.0;
        self.end = block.first.0 + block.count;
        while self.next < self.end {
            let Some(reply) = self.waiting.pop_front() else { return };
            self.give(reply);
        }
        // More waited than a block holds: they ask again.
        self.refuse_all(ErrorCode::CoordinatorLoadInProgress);
    }

    fn refuse_all(&mut self, code: ErrorCode) {
        for reply in mem::take(&mut self.waiting) {
            tell(reply, Err(code));
        }
    }
}

fn deleted_names(delta: &MetadataDelta) -> impl Iterator<Item = String> {
    delta.topics.values().filter_map(|change| match change {
        TopicDelta::Removed(topic) => Some(topic.name().to_owned()),
        TopicDelta::Created | TopicDelta::Changed(_) => None,
    })
}

fn decode(index: u64, data: &Bytes) -> Result<Vec<MetadataRecord>, MetadataLoopError> {
    decode_records(data).map_err(|source| MetadataLoopError::Undecodable { index, source })
}

fn leadership(
    state: &PartitionRegistration,
    me: BrokerId,
    settings: &TopicSettings,
) -> Option<Leadership> {
    (state.leader == Some(me)).then(|| Leadership {
        leader_epoch: state.leader_epoch,
        isr: state.isr.clone(),
        replicas: state.replicas.len(),
        min_insync_replicas: usize::try_from(settings.min_insync_replicas).unwrap_or(usize::MAX),
    })
}

#[cfg(test)]
mod tests;
