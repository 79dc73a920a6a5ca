//! One broker: what its handlers share, and how it starts and stops.

use std::{
    borrow::Cow,
    io, process,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, bounded};
use kafka_protocol::{messages::BrokerId as WireBrokerId, protocol::StrBytes};
use tidelog_metadata::{
    BrokerSetting, ControllerConfig, MetadataImage, RegisterBrokerRequest,
    control::features::supported_features, record::Endpoint,
};
use tidelog_raft::{Event, RaftHandle};
use tidelog_types::{BrokerId, Clock, Uuid, property::Property};
use tidelog_wal::{RecoveredPartition, Wal};

use crate::{
    absent::Absent,
    compaction::{self, CompactionTimer},
    config::{BrokerSettings, NodeSettings},
    controller_handle::{COMMANDS_MAX, ControllerHandle},
    coordinator::{commands::Shared, groups::GroupCoordinator},
    dynamic_config,
    fetch_sessions::FetchSessions,
    metadata_loop::{MetadataLoop, MetadataLoopError, run_metadata_loop},
    metrics::BrokerMetrics,
    recompressor::Recompressor,
    record_walker::RecordWalker,
    replica_manager::ReplicaManager,
    retention::{Retention, RetentionTimer},
    topic_config::topic_defaults,
};

/// Metadata events that may wait to be applied.
const METADATA_EVENTS_MAX: usize = 1024;

/// A running broker, as its handlers see it.
pub struct Broker {
    pub(crate) settings: NodeSettings,
    pub(crate) identity: BrokerIdentity,
    pub(crate) image: Arc<ArcSwap<MetadataImage>>,
    pub(crate) replicas: Arc<ReplicaManager>,
    pub(crate) wal: Wal,
    pub(crate) controller: ControllerHandle,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<BrokerMetrics>,
    pub(crate) absent: Absent,
    pub(crate) walker: RecordWalker,
    pub(crate) raft: RaftHandle,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) recompressor: Recompressor,
    pub(crate) groups: GroupCoordinator,
    _retention: RetentionTimer,
    _compaction: CompactionTimer,
    /// The metadata thread.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Who a broker is.
#[derive(Debug, Clone)]
pub struct BrokerIdentity {
    /// Its cluster.
    pub cluster_id: Uuid,
    /// Its `node.id`.
    pub node_id: BrokerId,
    /// Its data directory.
    pub directory_id: Uuid,
    /// This process: another one at every start.
    pub incarnation_id: Uuid,
    /// Where clients reach it, by listener.
    pub endpoints: Vec<Endpoint>,
}

/// What a broker is made of.
pub struct BrokerParts {
    /// What the operator set.
    pub settings: NodeSettings,
    /// Who it is.
    pub identity: BrokerIdentity,
    /// The log of its data directory.
    pub wal: Wal,
    /// What that log holds.
    pub recovered: Vec<RecoveredPartition>,
    /// The metadata log.
    pub raft: RaftHandle,
    /// What the metadata log says.
    pub raft_events: Receiver<Event>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: BrokerMetrics,
    /// Told of the settings that hold now, whenever one was changed while the broker runs.
    pub on_settings: OnSettings,
}

/// Whoever heeds settings that change while the broker runs. Called on the metadata thread.
pub type OnSettings = Box<dyn Fn(&NodeSettings) + Send>;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its metadata cannot be followed.
    #[error(transparent)]
    Metadata(#[from] MetadataLoopError),
    /// The system gave no thread.
    #[error("the system gives no thread")]
    Thread(#[source] io::Error),
}

impl Broker {
    /// Starts the metadata thread and waits until this broker is registered and leads its
    /// partitions in leader epochs of its own: only then may it be served.
    ///
    /// # Errors
    /// As [`StartError`] says.
    pub fn start(parts: BrokerParts) -> Result<Arc<Broker>, StartError> {
        let BrokerParts {
            settings,
            identity,
            wal,
            recovered,
            raft,
            raft_events,
            clock,
            metrics,
            on_settings,
        } = parts;
        let metrics = Arc::new(metrics);
        let walker = RecordWalker::start().map_err(StartError::Thread)?;
        let recompressor = Recompressor::start().map_err(StartError::Thread)?;
        let hosted = (wal.clone(), Arc::clone(&clock), Arc::clone(&metrics));
        let replicas = ReplicaManager::new(identity.node_id, hosted.0, hosted.1, hosted.2);
        let (replicas, image) = (Arc::new(replicas), Arc::new(ArcSwap::default()));
        let (commands, command_queue) = bounded(COMMANDS_MAX);
        let (ready, registered) = bounded(1);
        let news = Arc::new(Shared::default());
        let thread = spawn(MetadataLoop {
            raft: raft.clone(),
            events: raft_events,
            commands: command_queue,
            wal: wal.clone(),
            replicas: Arc::clone(&replicas),
            published: Arc::clone(&image),
            metrics: Arc::clone(&metrics),
            registration: registration(&settings, &identity),
            controller: controller_config(&settings),
            settings: settings.clone(),
            recovered: recovered.into_iter().map(|found| (found.id, found)).collect(),
            groups: Arc::clone(&news),
            on_settings,
            ready,
        })?;
        registered.recv().unwrap_or(Err(MetadataLoopError::Stopped))?;
        let background =
            Background::start(&settings.broker, &wal, &replicas, &clock, &metrics, news);
        let Background { groups, retention, compaction } =
            background.map_err(StartError::Thread)?;
        let controller = ControllerHandle::new(commands);
        let thread = Mutex::new(Some(thread));
        let absent = Absent::default();
        let (told, counts) = (Arc::clone(&clock), Arc::clone(&metrics));
        let fetch_sessions = FetchSessions::new(&settings.broker, told, counts);
        Ok(Arc::new(Broker {
            settings,
            identity,
            image,
            replicas,
            wal,
            controller,
            clock,
            metrics,
            absent,
            walker,
            raft,
            fetch_sessions,
            recompressor,
            groups,
            _retention: retention,
            _compaction: compaction,
            thread,
        }))
    }

    /// Stops the group coordinator: whoever waits there is told to look for another one.
    pub fn stop_groups(&self) {
        self.groups.stop();
    }

    /// Waits for the coordinator, and for the metadata thread, which ends when its Raft node has
    /// stopped.
    pub fn join(&self) {
        self.stop_groups();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            process::abort(); // it panicked: what it knew is lost
        }
    }

    /// The cluster's id as clients are told.
    pub(crate) fn cluster_id(&self) -> StrBytes {
        StrBytes::from_string(self.identity.cluster_id.to_string())
    }

    /// What holds now: what it was started with, and what was changed since.
    pub(crate) fn settings_now(&self, image: &MetadataImage) -> Cow<'_, NodeSettings> {
        dynamic_config::effective(&self.settings, image, self.identity.node_id)
    }

    /// A broker to send administrators to: any will do, and this one if it can.
    pub(crate) fn some_controller(&self, image: &MetadataImage) -> WireBrokerId {
        let me = self.identity.node_id;
        let mut alive = image.cluster().alive().map(|broker| broker.broker_id);
        let any = image.cluster().alive().map(|broker| broker.broker_id).next();
        let chosen = if alive.any(|id| id == me) { Some(me) } else { any };
        WireBrokerId(chosen.map_or(-1, |id| id.0))
    }
}

/// The queue from a Raft node to [`BrokerParts::raft_events`]. When it is full the node waits.
#[must_use]
pub fn metadata_events() -> (Sender<Event>, Receiver<Event>) {
    bounded(METADATA_EVENTS_MAX)
}

/// Sixteen random bytes (UUID version 4) whose text does not look like a command line's option.
#[must_use]
pub fn random_uuid() -> Uuid {
    loop {
        let id = Uuid(uuid::Uuid::new_v4().into_bytes());
        if !id.to_string().starts_with('-') {
            return id;
        }
    }
}

/// What goes on beside the requests.
struct Background {
    groups: GroupCoordinator,
    retention: RetentionTimer,
    compaction: CompactionTimer,
}

impl Background {
    fn start(
        settings: &BrokerSettings,
        wal: &Wal,
        replicas: &Arc<ReplicaManager>,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<BrokerMetrics>,
        news: Arc<Shared>,
    ) -> io::Result<Background> {
        let (replicas, clock) = (Arc::clone(replicas), Arc::clone(clock));
        let hosted = (Arc::clone(&replicas), wal.clone(), Arc::clone(&clock));
        let groups =
            GroupCoordinator::start(settings, news, hosted.0, hosted.1, hosted.2, metrics)?;
        let compaction = compaction::start(wal, Arc::clone(&clock), settings)?;
        let (wal, metrics) = (wal.clone(), Arc::clone(metrics));
        let retention = Retention { wal, replicas, clock, metrics };
        let retention = retention.start(settings.log_retention_check_interval_ms)?;
        Ok(Background { groups, retention, compaction })
    }
}

fn spawn(metadata_loop: MetadataLoop) -> Result<JoinHandle<()>, StartError> {
    let builder = thread::Builder::new().name("metadata".to_owned());
    builder.spawn(move || run_metadata_loop(metadata_loop)).map_err(StartError::Thread)
}

fn registration(settings: &NodeSettings, identity: &BrokerIdentity) -> RegisterBrokerRequest {
    let rack = Some(settings.broker.broker_rack.clone()).filter(|rack| !rack.is_empty());
    RegisterBrokerRequest {
        broker_id: identity.node_id,
        cluster_id: identity.cluster_id,
        incarnation_id: identity.incarnation_id,
        endpoints: identity.endpoints.clone(),
        rack,
        directories: vec![identity.directory_id],
        features: supported_features(),
    }
}

fn controller_config(settings: &NodeSettings) -> ControllerConfig {
    let factor = settings.broker.default_replication_factor;
    let setting = |property: &'static Property| {
        let value = settings.get(property.key).expect("a key of the tables");
        BrokerSetting { property, value }
    };
    ControllerConfig {
        num_partitions: settings.broker.num_partitions,
        replication_factor: i16::try_from(factor).expect("the setting's bounds are an i16's"),
        topic_defaults: topic_defaults(settings),
        broker_settings: NodeSettings::properties().map(setting).collect(),
    }
}
