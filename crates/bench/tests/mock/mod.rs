//! A broker in a few lines: logs in memory, acknowledged by a thread as if by a disk.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        BrokerId, CreateTopicsRequest, CreateTopicsResponse, ListOffsetsRequest,
        ListOffsetsResponse, MetadataRequest, MetadataResponse, TopicName,
        create_topics_response::CreatableTopicResult,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        metadata_response::{
            MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
        },
    },
    protocol::StrBytes,
};
use tidelog_net::{
    CloseReason, ConnectionInfo, Handled, Limits, Listener, NetConfig, NetMetrics, PendingReply,
    Reply, Service,
};
use tidelog_protocol::{
    ApiKey, RecordChunks, RequestHeader, TopicRef,
    fetch::{FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopicResponse},
    header::decode_request_header,
    outgoing::Outgoing,
    produce::{ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopicResponse},
    request, response,
};
use tidelog_types::{
    BATCH_HEADER_LEN, BatchHeader, ErrorCode, LeaderEpoch, Offset, batch_header::patch_place,
};

/// How the broker errs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every tenth produce request is refused.
    Refuses,
    /// Every tenth produce request is acknowledged and forgotten.
    Forgets,
    /// Every tenth produce request is acknowledged at the offset of the one before.
    Repeats,
    /// There is no topic.
    NoTopic,
    /// The tenth batch of each log is not there when it is fetched.
    Skips,
}

/// What the broker is like.
#[derive(Debug, Clone, Copy)]
pub struct MockConfig {
    pub partitions: usize,
    /// How long the thread takes for what has gathered.
    pub sync_time: Duration,
    /// Whether batches are kept, to be fetched.
    pub keep: bool,
    pub fault: Fault,
}

/// The logs and what waits for the thread.
pub struct Mock {
    config: MockConfig,
    address: OnceLock<SocketAddr>,
    logs: Vec<Arc<Log>>,
    /// Who is to be woken, and the appended ends to be published first.
    queue: Arc<Mutex<Queue>>,
    thread: OnceLock<thread::Thread>,
}

#[derive(Default)]
struct Queue {
    logs: Vec<Arc<Log>>,
}

#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    durable_end: AtomicI64,
}

#[derive(Default)]
struct LogState {
    end: i64,
    requests: u64,
    batches: Vec<Bytes>,
    queued: bool,
    wakers: Vec<Waker>,
}

impl Mock {
    /// Starts a broker on a free port, its sockets on a runtime of `workers` threads.
    pub fn start(config: MockConfig, workers: usize) -> (Arc<Mock>, SocketAddr) {
        Mock::start_on(config, workers, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts a broker on an address.
    pub fn start_on(
        config: MockConfig,
        workers: usize,
        address: SocketAddr,
    ) -> (Arc<Mock>, SocketAddr) {
        let metrics = NetMetrics::register(&prometheus::Registry::new()).expect("a new registry");
        let limits = Limits::new(NetConfig::default(), metrics);
        let listener = Listener::bind("MOCK", address, &limits).expect("a free port");
        let address = listener.local_addr();
        let mock = Arc::new(Mock {
            config,
            address: OnceLock::from(address),
            logs: (0..config.partitions).map(|_| Arc::default()).collect(),
            queue: Arc::default(),
            thread: OnceLock::new(),
        });
        let queue = Arc::clone(&mock.queue);
        let syncing = thread::Builder::new()
            .name("sync".to_owned())
            .spawn(move || run_sync(&queue, config.sync_time))
            .expect("a thread");
        mock.thread.set(syncing.thread().clone()).expect("set once");
        let service = Arc::clone(&mock);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(workers)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(listener.serve(service, std::future::pending())).expect("a socket");
        });
        (mock, address)
    }

    fn produce(&self, header: &RequestHeader, body: Bytes) -> Handled {
        let request = ProduceRequest::decode(header.api_version, body).expect("a good request");
        let (topic, partitions) = request.topics().next().expect("a topic");
        let [partition] = partitions else { panic!("one partition") };
        let index = partition.index;
        let (log, records) = (&self.logs[index as usize], partition.records.clone());
        let (base, count, refused) = self.append(log, &records.expect("a batch"));
        if request.acks == 0 {
            return Handled::NoReply;
        }
        let wait = Wait {
            log: Arc::clone(log),
            end: if refused { 0 } else { base + count },
            topic: topic.clone(),
            version: header.api_version,
            correlation_id: header.correlation_id,
            index,
            outcome: if refused { Err(ErrorCode::NotEnoughReplicas) } else { Ok(base) },
        };
        Handled::Reply(Reply::Pending(Box::new(wait)))
    }

    /// Where the batch was placed, how many records it has, whether it was refused.
    fn append(&self, log: &Arc<Log>, batch: &Bytes) -> (i64, i64, bool) {
        let facts = BatchHeader::decode(batch.first_chunk().expect("a header"));
        let count = i64::from(facts.records_count);
        let mut state = lock(&log.state);
        state.requests += 1;
        let tenth = state.requests.is_multiple_of(10);
        let base = state.end;
        match self.config.fault {
            Fault::Refuses if tenth => return (base, count, true),
            Fault::Repeats if tenth => return (base - count, count, false),
            Fault::Forgets if tenth => return (base, 0, false),
            _ => {}
        }
        state.end += count;
        if self.config.keep {
            let mut batch = batch.to_vec();
            let header = batch.first_chunk_mut::<BATCH_HEADER_LEN>().expect("a header");
            patch_place(header, Offset(base), LeaderEpoch(0));
            state.batches.push(Bytes::from(batch));
        }
        if !std::mem::replace(&mut state.queued, true) {
            let mut queue = lock(&self.queue);
            queue.logs.push(Arc::clone(log));
            if queue.logs.len() == 1 {
                self.thread.get().expect("started").unpark();
            }
        }
        (base, count, false)
    }

    fn fetch(&self, header: &RequestHeader, body: Bytes) -> Outgoing {
        let request = FetchRequest::decode(header.api_version, body).expect("a good request");
        let mut left = request.max_bytes as usize;
        let mut topics = Vec::new();
        for (topic, partitions) in request.topics() {
            let mut answers = Vec::new();
            for asked in partitions {
                let log = &self.logs[asked.partition as usize];
                let end = log.durable_end.load(Ordering::SeqCst);
                let mut answer = FetchPartitionResponse::failed(asked.partition, ErrorCode::None);
                answer.high_watermark = Offset(end);
                answer.records = self.read(log, asked.fetch_offset.0, end, &mut left);
                answers.push(answer);
            }
            topics.push(FetchTopicResponse { topic: topic.clone(), partitions: answers });
        }
        let response = FetchResponse { topics, ..FetchResponse::failed(ErrorCode::None) };
        response.encode(header.api_version, header.correlation_id)
    }

    fn read(&self, log: &Log, from: i64, end: i64, left: &mut usize) -> RecordChunks {
        let state = lock(&log.state);
        let facts = |batch: &Bytes| BatchHeader::decode(batch.first_chunk().expect("a header"));
        let first = state.batches.partition_point(|batch| facts(batch).next_offset().0 <= from);
        let mut batches = Vec::new();
        for (place, batch) in state.batches.iter().enumerate().skip(first) {
            if *left == 0 || facts(batch).next_offset().0 > end {
                break;
            }
            if self.config.fault == Fault::Skips && place == 9 {
                continue;
            }
            *left = left.saturating_sub(batch.len());
            batches.push(batch.clone());
        }
        RecordChunks::Bytes(batches)
    }

    fn list_offsets(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let topic = &request.topics[0];
        let answer =
            |asked: &kafka_protocol::messages::list_offsets_request::ListOffsetsPartition| {
                let log = &self.logs[asked.partition_index as usize];
                let end = log.durable_end.load(Ordering::SeqCst);
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(asked.partition_index)
                    .with_offset(if asked.timestamp == -2 { 0 } else { end })
            };
        let topic = ListOffsetsTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(topic.partitions.iter().map(answer).collect());
        ListOffsetsResponse::default().with_topics(vec![topic])
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let address = self.address.get().expect("bound");
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_string(address.ip().to_string()))
            .with_port(i32::from(address.port()));
        let partition = |index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BrokerId(1))
        };
        let partitions = (0..self.logs.len() as i32).map(partition).collect();
        let asked = request.topics.as_ref().and_then(|topics| topics[0].name.clone());
        let topic = MetadataResponseTopic::default().with_name(asked);
        let topic = match self.config.fault {
            Fault::NoTopic => topic.with_error_code(ErrorCode::UnknownTopicOrPartition.code()),
            _ => topic.with_partitions(partitions),
        };
        MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic])
    }
}

fn create_topics(request: &CreateTopicsRequest) -> CreateTopicsResponse {
    let name: &TopicName = &request.topics[0].name;
    let topic = CreatableTopicResult::default()
        .with_name(name.clone())
        .with_error_code(ErrorCode::TopicAlreadyExists.code());
    CreateTopicsResponse::default().with_topics(vec![topic])
}

impl Service for Mock {
    fn handle(&self, _: &ConnectionInfo, frame: Bytes, _: Instant) -> Handled {
        let (header, body) = decode_request_header(frame).expect("a good header");
        let version = header.api_version;
        let encoded = match header.api_key {
            ApiKey::Produce => return self.produce(&header, body),
            ApiKey::Fetch => Ok(self.fetch(&header, body)),
            ApiKey::ListOffsets => {
                let request = request::decode(version, body).expect("a good request");
                response::encode(&header, &self.list_offsets(&request))
            }
            ApiKey::Metadata => {
                let request = request::decode(version, body).expect("a good request");
                response::encode(&header, &self.metadata(&request))
            }
            ApiKey::CreateTopics => {
                let request = request::decode(version, body).expect("a good request");
                response::encode(&header, &create_topics(&request))
            }
            _ => return Handled::Close(CloseReason::Unsupported),
        };
        Handled::Reply(Reply::Ready(encoded.expect("a response that its version can say")))
    }
}

struct Wait {
    log: Arc<Log>,
    end: i64,
    topic: TopicRef,
    version: i16,
    correlation_id: i32,
    index: i32,
    outcome: Result<i64, ErrorCode>,
}

impl PendingReply for Wait {
    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outgoing, CloseReason>> {
        if self.log.durable_end.load(Ordering::SeqCst) < self.end {
            let mut state = lock(&self.log.state);
            if self.log.durable_end.load(Ordering::SeqCst) < self.end {
                state.wakers.push(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let partition = match self.outcome {
            Ok(base) => {
                let mut partition = ProducePartitionResponse::failed(self.index, ErrorCode::None);
                partition.base_offset = Offset(base);
                partition
            }
            Err(code) => ProducePartitionResponse::failed(self.index, code),
        };
        let topic = ProduceTopicResponse { topic: self.topic.clone(), partitions: vec![partition] };
        let response = ProduceResponse { topics: vec![topic], ..ProduceResponse::default() };
        Poll::Ready(Ok(response.encode(self.version, self.correlation_id)))
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn expire(&mut self) -> Poll<Result<Outgoing, CloseReason>> {
        Poll::Pending
    }
}

/// Takes what has gathered, "syncs" it, publishes it, wakes who waits.
fn run_sync(queue: &Mutex<Queue>, sync_time: Duration) {
    loop {
        let logs = std::mem::take(&mut lock(queue).logs);
        if logs.is_empty() {
            thread::park();
            continue;
        }
        let mut ends = Vec::new();
        for log in &logs {
            let mut state = lock(&log.state);
            state.queued = false;
            ends.push(state.end);
        }
        if !sync_time.is_zero() {
            thread::sleep(sync_time);
        }
        for (log, end) in logs.iter().zip(ends) {
            log.durable_end.store(end, Ordering::SeqCst);
            let wakers = std::mem::take(&mut lock(&log.state).wakers);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic")
}
