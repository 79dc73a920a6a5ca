//! A whole broker over a file system in memory, asked through its dispatcher as a connection does.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use prometheus::Registry;
use tidelog_broker::{
    Broker, BrokerIdentity, BrokerMetrics, BrokerParts, BrokerService, NodeSettings,
    metadata_events, random_uuid,
};
use tidelog_metadata::record::{Endpoint, SecurityProtocol};
use tidelog_net::{
    CloseReason, ConnectionInfo, Handled, PendingReply, Reply, ReplyBudget, Service as _,
};
use tidelog_protocol::{
    Outgoing,
    kafka_protocol::{
        messages::{
            ApiKey as WireKey, CreateTopicsRequest, MetadataRequest, MetadataResponse,
            RequestHeader, ResponseHeader, TopicName,
            create_topics_request::{CreatableTopic, CreatableTopicConfig},
            metadata_request::MetadataRequestTopic,
        },
        protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
    },
};
use tidelog_raft::{NoTransport, RaftConfig, RaftHandle, RaftMetrics, RaftNode};
use tidelog_types::{BrokerId, Clock, Uuid};
use tidelog_wal::{
    Wal, WalConfig, WalMetrics,
    env::{FileSystem, mem::MemFileSystem},
};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// When every test begins, in milliseconds since 1970.
pub const NOW_MS: i64 = 1_800_000_000_000;

/// One broker and the machine under it.
pub struct BrokerTest {
    pub fs: MemFileSystem,
    pub clock: Arc<TestClock>,
    pub broker: Arc<Broker>,
    /// What its connections' replies may hold.
    pub replies: Arc<ReplyBudget>,
    service: BrokerService,
    registry: Registry,
    wal: Wal,
    raft: RaftHandle,
}

/// Bytes of replies in all.
pub const REPLY_BYTES_MAX: u64 = 64 << 20;

/// Wall time that moves only when told; waiting is real.
pub struct TestClock {
    wall_ms: AtomicI64,
    started: Instant,
}

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl BrokerTest {
    pub fn new() -> BrokerTest {
        BrokerTest::with(&[])
    }

    pub fn with(settings: &[(&str, &str)]) -> BrokerTest {
        BrokerTest::start(MemFileSystem::new(), settings)
    }

    /// Starts over whatever the machine's disk holds.
    pub fn start(fs: MemFileSystem, set: &[(&str, &str)]) -> BrokerTest {
        let mut settings = NodeSettings::default();
        set.iter().for_each(|(key, value)| settings.set(key, value).expect("a lawful setting"));
        let registry = Registry::new();
        let shared: Arc<dyn FileSystem> = Arc::new(fs.clone());
        let mut config = WalConfig::new("/data");
        (config.file_bytes, config.first_file_bytes) = (1 << 20, 1 << 20);
        if settings.is_explicit("wal.file.bytes") {
            config.file_bytes = settings.broker.wal_file_bytes.unsigned_abs();
        }
        let metrics = WalMetrics::register(&registry).expect("new names");
        let (wal, recovered) = Wal::open(config, Arc::clone(&shared), metrics).expect("a log");
        let (events, raft_events) = metadata_events();
        let config = RaftConfig::sole_voter(7, "/data/raft/group-0".into());
        let metrics = RaftMetrics::register(&registry).expect("new names");
        let raft = RaftNode::start(config, shared, Box::new(NoTransport), events, metrics);
        let raft = raft.expect("a node");
        let clock =
            Arc::new(TestClock { wall_ms: AtomicI64::new(NOW_MS), started: Instant::now() });
        let broker = Broker::start(BrokerParts {
            settings,
            identity: identity(),
            wal: wal.clone(),
            recovered: recovered.partitions,
            raft: raft.clone(),
            raft_events,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            metrics: BrokerMetrics::register(&registry).expect("new names"),
            on_settings: Box::new(|_| {}),
        });
        let broker = broker.expect("a broker");
        let service = BrokerService(Arc::clone(&broker));
        let replies = ReplyBudget::unshared(REPLY_BYTES_MAX);
        BrokerTest { fs, clock, broker, replies, service, registry, wal, raft }
    }

    /// The same disk after a power loss of this moment; this broker lives on beside it.
    pub fn after_power_loss(&self, seed: u64) -> BrokerTest {
        let fs = self.fs.fork();
        fs.crash(seed);
        BrokerTest::start(fs, &[])
    }

    /// Stops cleanly and starts again.
    pub fn restart(self) -> BrokerTest {
        let fs = self.fs.clone();
        self.raft.shutdown().expect("a clean stop");
        self.broker.join();
        self.wal.flush_and_close().expect("a clean stop");
        drop(self);
        BrokerTest::start(fs, &[])
    }

    /// What a metric without labels shows.
    pub fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).expect("a metric");
        let metric = &family.get_metric()[0];
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    pub fn advance_ms(&self, milliseconds: i64) {
        self.clock.wall_ms.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// Asks and waits for the answer, which must be one.
    pub fn call<R: Request>(&self, version: i16, request: &R) -> R::Response {
        let handled = self.send(version, request);
        let answer = resolve(handled).expect("the connection stays").expect("an answer");
        decode::<R>(version, answer)
    }

    /// Hands a request in; the answer may come later.
    pub fn send<R: Request>(&self, version: i16, request: &R) -> Handled {
        self.send_frame(encode(version, request))
    }

    /// Hands bytes in.
    pub fn send_frame(&self, frame: Bytes) -> Handled {
        let address = "127.0.0.1:1".parse().expect("an address");
        let (listener, replies) = ("PLAINTEXT".into(), Arc::clone(&self.replies));
        let connection = ConnectionInfo { id: 1, listener, peer: address, local: address, replies };
        self.service.handle(&connection, frame)
    }

    pub fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
        let config = |(key, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
        };
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(-1)
            .with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        let response = self.call(7, &request.with_timeout_ms(10_000));
        let created = &response.topics[0];
        assert_eq!(created.error_code, 0, "{:?}", created.error_message);
        Uuid(created.topic_id.into_bytes())
    }

    pub fn metadata(&self, version: i16) -> MetadataResponse {
        self.call(version, &MetadataRequest::default().with_topics(None))
    }

    /// What asking for a topic, which may create it, says of it.
    pub fn metadata_of(&self, name: &str) -> i16 {
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        self.call(9, &request.with_allow_auto_topic_creation(true)).topics[0].error_code
    }

    pub fn leader_epoch(&self, topic: &str) -> i32 {
        let metadata = self.metadata(12);
        let found = metadata.topics.iter().find(|t| t.name.as_ref().is_some_and(|n| **n == *topic));
        found.expect("the topic").partitions[0].leader_epoch
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Waits for an answer: `None` if there will be none.
pub fn resolve(handled: Handled) -> Result<Option<Bytes>, CloseReason> {
    match handled {
        Handled::NoReply => Ok(None),
        Handled::Close(reason) => Err(reason),
        Handled::Reply(Reply::Ready(outgoing)) => Ok(Some(outgoing.to_bytes())),
        Handled::Reply(Reply::Pending(pending)) => {
            let outgoing = drive(pending)?;
            Ok(Some(outgoing.to_bytes()))
        }
        Handled::Wait(handled) => resolve(block_on(handled, None).expect("no deadline")),
    }
}

/// Whether an answer is still to come.
pub fn is_pending(handled: &mut Handled) -> bool {
    let Handled::Reply(Reply::Pending(pending)) = handled else { return false };
    pending.poll_reply(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Does for a parked answer what its connection would do.
fn drive(mut pending: Box<dyn PendingReply>) -> Result<Outgoing, CloseReason> {
    loop {
        let deadline = pending.deadline();
        if let Some(answer) = block_on(poll_fn(|cx| pending.poll_reply(cx)), deadline) {
            return answer;
        }
        if let Poll::Ready(answer) = pending.expire() {
            return answer;
        }
    }
}

fn block_on<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let started = Instant::now();
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(value);
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return None;
        }
        assert!(started.elapsed() < PATIENCE, "nothing happened for {PATIENCE:?}");
        let patience = deadline.map_or(PATIENCE, |deadline| deadline - now);
        thread::park_timeout(patience.min(Duration::from_secs(1)));
    }
}

fn encode<R: Request>(version: i16, request: &R) -> Bytes {
    let key = WireKey::try_from(R::KEY).expect("a key");
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(42)
        .with_client_id(Some(text("test")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, key.request_header_version(version)).expect("a header");
    let version = match WireKey::try_from(R::KEY) {
        // The codec writes no later ones, which are the same where no topic is named.
        Ok(WireKey::OffsetCommit | WireKey::OffsetFetch) => version.min(9),
        _ => codec_version(R::KEY, version),
    };
    request.encode(&mut frame, version).expect("a request");
    frame.freeze()
}

pub fn decode<R: Request>(version: i16, mut frame: Bytes) -> R::Response {
    let length = i32::decode_length(&mut frame);
    assert_eq!(length as usize, frame.len(), "the length prefix counts the rest");
    let header_version = R::Response::header_version(version);
    let header = ResponseHeader::decode(&mut frame, header_version).expect("a header");
    assert_eq!(header.correlation_id, 42);
    let response = R::Response::decode(&mut frame, codec_version(R::KEY, version));
    let response = response.expect("a response");
    assert!(frame.is_empty(), "{} bytes follow the response", frame.len());
    response
}

/// The codec's ListOffsets ends at version 10, and version 11 has the same fields.
fn codec_version(key: i16, version: i16) -> i16 {
    if key == WireKey::ListOffsets as i16 { version.min(10) } else { version }
}

trait DecodeLength {
    fn decode_length(frame: &mut Bytes) -> i32;
}

impl DecodeLength for i32 {
    fn decode_length(frame: &mut Bytes) -> i32 {
        let prefix = frame.split_to(4);
        i32::from_be_bytes(prefix[..].try_into().expect("four bytes"))
    }
}

fn identity() -> BrokerIdentity {
    BrokerIdentity {
        cluster_id: Uuid([9; 16]),
        node_id: BrokerId(1),
        directory_id: Uuid([8; 16]),
        incarnation_id: random_uuid(),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: "localhost".to_owned(),
            port: 9092,
            security_protocol: SecurityProtocol::Plaintext,
        }],
    }
}
