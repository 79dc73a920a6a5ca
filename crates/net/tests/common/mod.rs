//! A service that does what each request tells it to, and a client that speaks to it byte by byte.

#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    collections::BTreeMap,
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use prometheus::Registry;
use tidelog_net::{
    CloseReason, ConnectionInfo, Drained, Handled, Limits, Listener, NetConfig, NetMetrics,
    PendingReply, Phase, Reply, Service,
};
use tidelog_protocol::{
    RecordChunks, TopicRef,
    fetch::{FetchPartitionResponse, FetchResponse, FetchTopicResponse},
    outgoing::Outgoing,
};
use tidelog_types::ErrorCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// Longer than anything takes, shorter than anybody's patience.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a request asks of the service.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// An answer at once, with so many bytes of records.
    Answer(u32),
    /// An answer once the gate is open.
    AtGate,
    /// An answer after so many milliseconds, by its deadline.
    After(u32),
    /// No answer.
    Nothing,
    /// The end.
    Close,
    /// Everything waits until the gate is open.
    Wait,
    /// An answer that costs so many bytes while it is made, for which its thread waits until the
    /// other gate is open.
    Costly(u32),
}

/// A request frame, its length included.
pub fn request(correlation_id: i32, ask: Ask) -> Vec<u8> {
    request_of(correlation_id, ask, 0)
}

/// A request frame with so many bytes behind what matters.
pub fn request_of(correlation_id: i32, ask: Ask, padding: usize) -> Vec<u8> {
    let (code, argument) = match ask {
        Ask::Answer(bytes) => (b'a', bytes),
        Ask::AtGate => (b'g', 0),
        Ask::After(ms) => (b'd', ms),
        Ask::Nothing => (b'n', 0),
        Ask::Close => (b'c', 0),
        Ask::Wait => (b'w', 0),
        Ask::Costly(bytes) => (b'x', bytes),
    };
    let length = 4 + 4 + 1 + 4 + padding;
    let mut frame = (length as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&[0, 0, 0, 3]); // Produce, version 3
    frame.extend_from_slice(&correlation_id.to_be_bytes());
    frame.push(code);
    frame.extend_from_slice(&argument.to_be_bytes());
    frame.resize(4 + length, 7);
    frame
}

/// Opens once, for all.
#[derive(Default)]
pub struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    wakers: Mutex<Vec<Waker>>,
}

impl Gate {
    pub fn open(&self) {
        *self.open.lock().expect("no panic") = true;
        self.opened.notify_all();
        self.wakers.lock().expect("no panic").drain(..).for_each(Waker::wake);
    }

    fn wait(&self) {
        let open = self.open.lock().expect("no panic");
        // A test that fails must not be held up by those who wait here.
        drop(self.opened.wait_timeout_while(open, PATIENCE, |open| !*open).expect("no panic"));
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.wakers.lock().expect("no panic").push(cx.waker().clone());
        if *self.open.lock().expect("no panic") { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Does as it is asked and remembers by whom.
#[derive(Default)]
pub struct Obedient {
    pub gate: Arc<Gate>,
    /// For threads.
    pub thread_gate: Gate,
    pub seen: Mutex<Vec<i32>>,
    pub frame_bytes: AtomicUsize,
    pub closed: AtomicUsize,
    spent: Mutex<Vec<(Phase, Duration)>>,
}

impl Obedient {
    pub fn seen(&self) -> Vec<i32> {
        self.seen.lock().expect("no panic").clone()
    }

    /// How many requests spent so long or longer in each phase.
    pub fn spent(&self, at_least: Duration) -> BTreeMap<Phase, usize> {
        let mut counts = BTreeMap::new();
        let spent = self.spent.lock().expect("no panic");
        for (phase, _) in spent.iter().filter(|(_, time)| *time >= at_least) {
            *counts.entry(*phase).or_default() += 1;
        }
        counts
    }
}

impl Service for Obedient {
    fn handle(&self, _: &ConnectionInfo, frame: Bytes, _: Instant) -> Handled {
        self.frame_bytes.fetch_add(frame.len(), Ordering::SeqCst);
        let number = |at: usize| i32::from_be_bytes(frame[at..at + 4].try_into().expect("four"));
        let (correlation_id, code, argument) = (number(4), frame[8], number(9));
        self.seen.lock().expect("no panic").push(correlation_id);
        let gate = Arc::clone(&self.gate);
        let pending = |gate, deadline| {
            let reply = Pending { correlation_id, gate, deadline };
            Handled::Reply(Reply::Pending(Box::new(reply)))
        };
        match code {
            b'a' => answered(correlation_id, argument as usize),
            b'g' => pending(Some(gate), None),
            b'd' => pending(None, Some(Instant::now() + Duration::from_millis(argument as u64))),
            b'n' => Handled::NoReply,
            b'w' => Handled::Wait(Box::pin(async move {
                poll_fn(|cx| gate.poll(cx)).await;
                answered(correlation_id, 0)
            })),
            b'x' => {
                self.thread_gate.wait();
                answered(correlation_id, 0)
            }
            _ => Handled::Close(CloseReason::Unsupported),
        }
    }

    fn cost(&self, frame: &Bytes) -> u64 {
        if frame[8] != b'x' {
            return 0;
        }
        u64::from(u32::from_be_bytes(frame[9..13].try_into().expect("four")))
    }

    fn spent(&self, api_key: i16, phase: Phase, time: Duration) {
        assert_eq!(api_key, 0, "every request of these tests is a Produce");
        self.spent.lock().expect("no panic").push((phase, time));
    }

    fn closed(&self, _: &ConnectionInfo) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

struct Pending {
    correlation_id: i32,
    gate: Option<Arc<Gate>>,
    deadline: Option<Instant>,
}

impl PendingReply for Pending {
    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Outgoing, CloseReason>> {
        let Some(gate) = &self.gate else { return Poll::Pending };
        gate.poll(cx).map(|()| Ok(response(self.correlation_id, 0)))
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn expire(&mut self) -> Poll<Result<Outgoing, CloseReason>> {
        Poll::Ready(Ok(response(self.correlation_id, 0)))
    }

    fn hurry(&mut self) {
        self.deadline = self.deadline.map(|due| due.min(Instant::now()));
    }
}

fn answered(correlation_id: i32, bytes: usize) -> Handled {
    Handled::Reply(Reply::Ready(response(correlation_id, bytes)))
}

fn response(correlation_id: i32, bytes: usize) -> Outgoing {
    let mut partition = FetchPartitionResponse::failed(0, ErrorCode::None);
    partition.records = RecordChunks::Bytes(vec![Bytes::from(vec![b'x'; bytes])]);
    let topic = TopicRef::Name("t".into());
    let topics = vec![FetchTopicResponse { topic, partitions: vec![partition] }];
    FetchResponse { topics, ..FetchResponse::failed(ErrorCode::None) }.encode(4, correlation_id)
}

/// A listener at work.
pub struct NetTest {
    pub service: Arc<Obedient>,
    pub address: SocketAddr,
    pub limits: Arc<Limits>,
    pub registry: Registry,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<io::Result<Drained>>>,
}

impl NetTest {
    pub fn start(config: NetConfig) -> NetTest {
        let registry = Registry::new();
        let metrics = NetMetrics::register(&registry).expect("a new registry");
        let limits = Limits::new(config, metrics);
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind("PLAINTEXT", loopback, &limits).expect("a free port");
        let address = listener.local_addr();
        let service = Arc::new(Obedient::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { stopped.await.unwrap_or(()) };
        let serving = tokio::spawn(listener.serve(Arc::clone(&service), shutdown));
        let (stop, serving) = (Some(stop), Some(serving));
        NetTest { service, address, limits, registry, stop, serving }
    }

    pub async fn connect(&self) -> Peer {
        Peer(TcpStream::connect(self.address).await.expect("a listener"))
    }

    /// Connects from another address of this machine.
    pub async fn connect_from(&self, ip: &str) -> Peer {
        let socket = TcpSocket::new_v4().expect("a descriptor");
        let from = SocketAddr::new(ip.parse().expect("an address"), 0);
        socket.bind(from).expect("an address of this machine");
        Peer(socket.connect(self.address).await.expect("a listener"))
    }

    /// Tells the listener to stop.
    pub fn stop(&mut self) {
        self.stop.take().expect("stopped once").send(()).expect("a listener");
    }

    pub async fn stopped(&mut self) -> Drained {
        let serving = self.serving.take().expect("waited for once");
        in_time(serving).await.expect("no panic").expect("a good socket")
    }

    /// Sum of a metric over its children whose labels hold `label`; empty for any.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.expect("a metric of this name").get_metric();
        let labelled = |metric: &&prometheus::proto::Metric| {
            label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label)
        };
        let value = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        metrics.iter().filter(labelled).map(value).sum()
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&NetTest) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "in vain: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A client's end.
pub struct Peer(pub TcpStream);

impl Peer {
    pub async fn send(&mut self, bytes: &[u8]) {
        in_time(self.0.write_all(bytes)).await.expect("an open connection");
    }

    /// The next response: its correlation id and how long it is.
    pub async fn receive(&mut self) -> (i32, usize) {
        let length = in_time(self.0.read_u32()).await.expect("a response");
        let mut body = vec![0; length as usize];
        in_time(self.0.read_exact(&mut body)).await.expect("a whole response");
        (i32::from_be_bytes(body[..4].try_into().expect("four")), body.len())
    }

    pub async fn receive_ids(&mut self, count: usize) -> Vec<i32> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.receive().await.0);
        }
        ids
    }

    /// Whether it is served.
    pub async fn is_served(&mut self) -> bool {
        let sent = self.0.write_all(&request(7, Ask::Answer(0))).await;
        sent.is_ok() && matches!(in_time(self.0.read_u32()).await, Ok(length) if length > 0)
    }

    /// Whether the connection ends now, with nothing more to read.
    pub async fn ended(&mut self) -> bool {
        match in_time(self.0.read_u8()).await {
            Ok(_) => false,
            Err(error) => {
                let ends = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
                ends.contains(&error.kind())
            }
        }
    }
}

pub async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("in time")
}
