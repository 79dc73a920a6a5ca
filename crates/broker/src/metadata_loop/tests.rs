//! The metadata thread's state, stepped by hand: its events are withheld, dropped and overtaken.

use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use kafka_protocol::protocol::StrBytes;
use prometheus::Registry;
use tidelog_metadata::{CreateTopic, CreateTopicResult, control::features::supported_features};
use tidelog_protocol::TopicRef;
use tidelog_raft::{NoTransport, RaftConfig, RaftMetrics, RaftNode};
use tidelog_types::{LeaderEpoch, Offset, Uuid};
use tidelog_wal::{WalConfig, WalMetrics, env::mem::MemFileSystem};
use tokio::sync::oneshot;

use super::*;
use crate::{broker::random_uuid, clock::SystemClock, controller_handle::plan, handlers};

/// The state, and the real node whose events it gets only when the test hands them on.
struct LoopTest {
    state: State,
    withheld: Receiver<Event>,
    ready: Receiver<Result<(), MetadataLoopError>>,
    term: u64,
}

type Created = oneshot::Receiver<Result<Vec<CreateTopicResult>, ErrorCode>>;

impl LoopTest {
    /// A node that leads and has registered.
    fn new() -> LoopTest {
        let mut test = LoopTest::with_recovered(Vec::new());
        test.state.on_event(Event::Leader { term: test.term }).expect("leads");
        test.hand_on(2);
        assert!(test.ready.try_recv().is_ok_and(|ready| ready.is_ok()), "registered");
        test
    }

    fn with_recovered(recovered: Vec<RecoveredPartition>) -> LoopTest {
        let fs: Arc<dyn tidelog_wal::env::FileSystem> = Arc::new(MemFileSystem::new());
        let registry = Registry::new();
        let metrics = WalMetrics::register(&registry).expect("new names");
        let mut config = WalConfig::new("/data");
        (config.file_bytes, config.first_file_bytes) = (1 << 20, 1 << 20);
        let (wal, _) = Wal::open(config, Arc::clone(&fs), metrics).expect("a log");
        let (events, withheld): (Sender<Event>, Receiver<Event>) = bounded(1024);
        let config = RaftConfig::sole_voter(7, "/data/raft/group-0".into());
        let metrics = RaftMetrics::register(&registry).expect("new names");
        let raft = RaftNode::start(config, fs, Box::new(NoTransport), events, metrics);
        let term = loop {
            if let Event::Leader { term } = take(&withheld) {
                break term;
            }
        };
        let metrics = Arc::new(BrokerMetrics::register(&registry).expect("new names"));
        let (clock, me) = (Arc::new(SystemClock::default()), BrokerId(1));
        let replicas = ReplicaManager::new(me, wal.clone(), clock, Arc::clone(&metrics));
        let (ready, told) = bounded(1);
        let state = State::new(MetadataLoop {
            raft: raft.expect("a node"),
            events: crossbeam::channel::never(),
            commands: crossbeam::channel::never(),
            wal,
            replicas: Arc::new(replicas),
            published: Arc::default(),
            metrics,
            registration: registration(me),
            controller: ControllerConfig::default(),
            settings: NodeSettings::default(),
            recovered: recovered.into_iter().map(|found| (found.id, found)).collect(),
            groups: Arc::default(),
            on_settings: Box::new(|_| {}),
            ready,
        });
        LoopTest { state, withheld, ready: told, term }
    }

    /// Gives the state the next committed entries.
    fn hand_on(&mut self, entries: usize) {
        for _ in 0..entries {
            let event = take(&self.withheld);
            assert!(matches!(event, Event::Committed { .. }), "{event:?}");
            self.state.on_event(event).expect("a lawful entry");
        }
    }

    fn create(&mut self, name: &str) -> Created {
        self.create_topic(CreateTopic::with_defaults(name))
    }

    fn create_topic(&mut self, topic: CreateTopic) -> Created {
        let topics = vec![topic];
        let (command, created) =
            plan(move |controller| controller.create_topics(&topics, false, &mut random_uuid));
        self.state.on_command(command);
        created
    }

    fn has_topic(&self, name: &str) -> bool {
        self.state.given.replicas.topics().named(name).is_ok()
    }
}

fn take(events: &Receiver<Event>) -> Event {
    events.recv_deadline(Instant::now() + Duration::from_secs(20)).expect("an event")
}

fn registration(broker_id: BrokerId) -> RegisterBrokerRequest {
    RegisterBrokerRequest {
        broker_id,
        cluster_id: Uuid([9; 16]),
        incarnation_id: random_uuid(),
        endpoints: Vec::new(),
        rack: None,
        directories: Vec::new(),
        features: supported_features(),
    }
}

/// `None` while nobody has answered; else the answer of the only topic.
fn answer(created: &mut Created) -> Option<Result<(), ErrorCode>> {
    let answer = created.try_recv().ok()?;
    Some(answer.and_then(|topics| match &topics[0].result {
        Ok(_) => Ok(()),
        Err(error) => Err(error.error_code()),
    }))
}

#[test]
fn a_topic_is_answered_once_it_is_committed_and_serves() {
    let mut test = LoopTest::new();
    let mut created = test.create("topic");
    assert_eq!((answer(&mut created), test.has_topic("topic")), (None, false));
    test.hand_on(1);
    assert_eq!((answer(&mut created), test.has_topic("topic")), (Some(Ok(())), true));
}

#[test]
fn an_answer_that_saw_what_is_not_committed_waits_for_it() {
    let mut test = LoopTest::new();
    let mut first = test.create("topic");
    let mut second = test.create("topic");
    assert_eq!(answer(&mut second), None, "the refusal may turn out wrong");
    test.hand_on(1);
    assert_eq!(answer(&mut first), Some(Ok(())));
    assert_eq!(answer(&mut second), Some(Err(ErrorCode::TopicAlreadyExists)));
}

#[test]
fn a_leader_that_is_none_any_more_fails_whoever_waits() {
    let mut test = LoopTest::new();
    let mut waiting = test.create("topic");
    let term = test.term + 1;
    test.state.on_event(Event::Follower { term, leader: None }).expect("follows");
    assert_eq!(answer(&mut waiting), Some(Err(ErrorCode::NotController)));
    let mut refused = test.create("other");
    assert_eq!(answer(&mut refused), Some(Err(ErrorCode::NotController)));
    test.hand_on(1); // committed all the same: metadata says so, whoever asked
    assert!(test.has_topic("topic"));
}

#[test]
fn what_was_planned_on_a_dropped_proposal_is_void_and_what_came_before_is_not() {
    let mut test = LoopTest::new();
    let mut kept = test.create("kept");
    let mut dropped = test.create("dropped");
    let mut behind = test.create("behind");
    let first = test.state.next_ticket - 2;
    test.state.on_event(Event::ProposalDropped { tickets: vec![first] }).expect("goes on");
    assert_eq!(answer(&mut dropped), Some(Err(ErrorCode::NotController)));
    assert_eq!(answer(&mut behind), Some(Err(ErrorCode::NotController)));
    assert_eq!(answer(&mut kept), None);
    let leading = test.state.leading.as_ref().expect("it still leads");
    let planned = leading.controller.image().topics();
    assert!(planned.get("kept").is_some() && planned.get("dropped").is_none());

    let mut anew = test.create("dropped");
    test.state.on_event(Event::ProposalDropped { tickets: vec![first + 1] }).expect("goes on");
    assert_eq!(answer(&mut anew), None, "it was proposed after the drop");
    test.hand_on(1);
    assert_eq!(answer(&mut kept), Some(Ok(())));
}

#[test]
fn clients_neither_write_to_the_brokers_own_topics_nor_delete_from_them() {
    let mut test = LoopTest::new();
    let name = "__consumer_offsets";
    let own = CreateTopic { is_internal: true, ..CreateTopic::with_defaults(name) };
    let mut created = test.create_topic(own);
    test.hand_on(1);
    assert_eq!(answer(&mut created), Some(Ok(())));
    let topics = test.state.given.replicas.topics();
    let refused = Some(ErrorCode::InvalidTopicException);
    let named = TopicRef::Name(StrBytes::from_static_str(name));
    assert_eq!(handlers::produce::find(&topics, &named, 0).err(), refused);
    assert_eq!(handlers::delete_records::find(&topics, name, 0).err(), refused);
    assert!(topics.named(name).is_ok_and(|topic| topic.partition(0).is_ok()), "it serves others");
}

#[test]
fn producer_ids_come_from_one_block_until_it_is_spent() {
    let mut test = LoopTest::new();
    let ask = |test: &mut LoopTest| {
        let (reply, mut given) = oneshot::channel();
        test.state.on_command(Command::NextProducerId { reply });
        move || given.try_recv().ok().map(|id| id.expect("an id").0)
    };
    let (mut first, mut second) = (ask(&mut test), ask(&mut test));
    assert_eq!((first(), second()), (None, None));
    test.hand_on(1); // one block for both
    assert_eq!((first(), second()), (Some(0), Some(1)));
    for expected in 2..1000 {
        assert_eq!(ask(&mut test)(), Some(expected));
    }
    let mut next = ask(&mut test);
    assert_eq!(next(), None);
    test.hand_on(1);
    assert_eq!(next(), Some(1000));
}

#[test]
fn logs_without_the_metadata_that_names_them_are_not_started_over() {
    let orphan = RecoveredPartition {
        id: TopicIdPartition { topic_id: Uuid([3; 16]), partition: 0 },
        log_start_offset: Offset::ZERO,
        log_end_offset: Offset(5),
        high_watermark: Offset(5),
        snapshot: None,
        damaged: Vec::new(),
        suspect: false,
    };
    let mut test = LoopTest::with_recovered(vec![orphan]);
    let refused = test.state.on_event(Event::Leader { term: test.term });
    assert!(matches!(refused, Err(MetadataLoopError::LogsWithoutMetadata { count: 1 })));
}

#[test]
fn an_error_after_the_registration_is_not_left_with_whoever_started_the_broker() {
    let test = LoopTest::new(); // its starter took the good news and still holds the receiver
    let unheard = test.state.tell_starter(MetadataLoopError::Stopped);
    assert!(matches!(unheard, Err(MetadataLoopError::Stopped)));
    assert!(test.ready.try_recv().is_err());

    let starting = LoopTest::with_recovered(Vec::new());
    assert!(starting.state.tell_starter(MetadataLoopError::Stopped).is_ok());
    assert!(matches!(starting.ready.try_recv(), Ok(Err(MetadataLoopError::Stopped))));
}

#[test]
fn a_partition_is_led_only_in_the_epoch_that_metadata_says() {
    let mut test = LoopTest::new();
    let _created = test.create("topic");
    test.hand_on(1);
    let topics = test.state.given.replicas.topics();
    let partition = topics.named("topic").expect("there").partition(0).expect("led");
    let view = partition.view(LeaderEpoch::NONE).expect("led");
    assert_eq!((view.leader_epoch, view.high_watermark), (LeaderEpoch(0), Offset::ZERO));
    assert!(partition.view(LeaderEpoch(1)).is_err());
}
