//! Accepts connections within limits, and drains them when the process stops.

use std::{
    fs::File,
    future::Future,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    config::{ListenerBounds, NetConfig, milliseconds},
    connection::Connection,
    creation_rate::CreationRate,
    limits::Limits,
    metrics::ListenerMetrics,
    refusal_log::{Pacer, RefusalLog},
    registry::{Bounds, Handle, Order, lock},
    service::{CloseReason, ConnectionInfo, Service},
};

/// How long the accept loop rests when the process has no descriptor left, not even a spare one.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// How long connections that were told to end at once are waited for. One whose task does not come
/// to its turn dies with its runtime.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);

/// An address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// How a listener ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were open when it was told to stop.
    pub connections: usize,
    /// Those of them that had not finished in time and were cut.
    pub aborted: usize,
}

/// A bound socket. Clients that connect wait in its backlog until it serves.
#[derive(Debug)]
pub struct Listener {
    socket: StdListener,
    address: SocketAddr,
    state: Arc<ListenerState>,
}

/// What the connections of a listener share.
#[derive(Debug)]
pub(crate) struct ListenerState {
    id: u64,
    name: Arc<str>,
    pub limits: Arc<Limits>,
    pub metrics: ListenerMetrics,
    pub refusal_log: RefusalLog,
    bounds: ListenerBounds,
    open: AtomicUsize,
    all_closed: Notify,
}

impl Listener {
    /// Listens on an address. All listeners of a process share `limits`.
    ///
    /// # Errors
    /// When the system refuses the address.
    pub fn bind(
        name: &str,
        address: SocketAddr,
        limits: &Arc<Limits>,
    ) -> Result<Listener, BindError> {
        let bound = listen(address, &limits.config).and_then(|socket| {
            let address = socket.local_addr()?;
            Ok((socket, address))
        });
        let (socket, bound) = bound.map_err(|source| BindError { address, source })?;
        let state = Arc::new(ListenerState {
            id: limits.next_listener(),
            name: name.into(),
            metrics: limits.metrics.listener(name),
            limits: Arc::clone(limits),
            refusal_log: RefusalLog::default(),
            bounds: limits.config.listener_bounds(name),
            open: AtomicUsize::new(0),
            all_closed: Notify::new(),
        });
        Ok(Listener { socket, address: bound, state })
    }

    /// The address in force, with the port that the system chose where 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves, then lets replies in flight finish within
    /// `connection.drain.timeout.ms`. Runs in the calling task; each connection is a task of its
    /// own.
    ///
    /// # Errors
    /// When the socket cannot be handed to the runtime.
    pub async fn serve<S: Service>(
        self,
        service: Arc<S>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<Drained> {
        let listener = TcpListener::from_std(self.socket)?;
        let state = self.state;
        let mut shutdown = pin!(shutdown);
        let mut acceptor = Acceptor::new(&state);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = acceptor.accept(&listener) => match accepted {
                    Ok((socket, peer)) => acceptor.admit(socket, peer, &service),
                    Err(error) => {
                        if let Some((socket, peer)) = acceptor.recover(&listener, &error).await {
                            acceptor.admit(socket, peer, &service);
                        }
                    }
                },
            }
        }
        drop(listener);
        Ok(state.drain().await)
    }
}

impl ListenerState {
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.metrics.connections.inc();
    }

    pub fn closed(&self, peer: SocketAddr, reason: CloseReason) {
        self.refusal_log.tell_closed(peer, reason, Instant::now());
        self.metrics.closed(reason);
        self.metrics.connections.dec();
        if self.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.all_closed.notify_waiters();
        }
    }

    async fn drain(&self) -> Drained {
        let connections = self.open.load(Ordering::SeqCst);
        self.limits.connections.order_all(self.id, Order::Drain);
        let patience = milliseconds(self.limits.config.drain_ms).unwrap_or(Duration::ZERO);
        let in_time = timeout(patience, self.none_open()).await.is_ok();
        let aborted = if in_time { 0 } else { self.open.load(Ordering::SeqCst) };
        if aborted > 0 {
            warn!(listener = %self.name, aborted, "connections were cut: replies took too long");
            self.limits.connections.order_all(self.id, Order::Abort);
            let _ = timeout(ABORT_PATIENCE, self.none_open()).await;
        }
        info!(listener = %self.name, connections, aborted, "listener has stopped");
        Drained { connections, aborted }
    }

    async fn none_open(&self) {
        loop {
            let mut closed: Pin<_> = pin!(self.all_closed.notified());
            closed.as_mut().enable();
            if self.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            closed.await;
        }
    }
}

/// The accept loop's state.
struct Acceptor<'a> {
    state: &'a Arc<ListenerState>,
    /// Given up to accept and close a connection when no other descriptor is left. Otherwise it
    /// would stay in the backlog, and the loop would spin on it.
    spare: Option<File>,
    creation_rate: CreationRate,
    refusals: Pacer,
    throttles: Pacer,
}

impl<'a> Acceptor<'a> {
    fn new(state: &'a Arc<ListenerState>) -> Acceptor<'a> {
        Acceptor {
            state,
            spare: spare_descriptor(),
            creation_rate: CreationRate::new(state.bounds.creation_rate_max),
            refusals: Pacer::default(),
            throttles: Pacer::default(),
        }
    }

    /// The next connection, once it may come. Until then it waits in the backlog, where it costs
    /// nothing, as with Kafka.
    async fn accept(&mut self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        let now = Instant::now();
        let shared = lock(&self.state.limits.creation_rate).pause(now);
        let pause = self.creation_rate.pause(now).max(shared);
        if !pause.is_zero() {
            self.state.metrics.accept_throttled.inc_by(pause.as_secs_f64());
            if let Some(suppressed) = self.throttles.may_tell(now) {
                let (listener, limit) = (&self.state.name, "max.connection.creation.rate");
                warn!(%listener, limit, suppressed, "connections come too fast and have to wait");
            }
            sleep(pause).await;
        }
        listener.accept().await
    }

    fn admit<S: Service>(&mut self, socket: TcpStream, peer: SocketAddr, service: &Arc<S>) {
        let state = self.state;
        if self.spare.is_none() {
            self.spare = spare_descriptor();
        }
        let now = Instant::now();
        self.creation_rate.take(now);
        lock(&state.limits.creation_rate).take(now);
        let ip = peer.ip().to_canonical();
        let per_ip = state.limits.config.connections_from(ip);
        let bounds = Bounds { listener: state.bounds.connections_max, per_ip };
        match state.limits.connections.admit(state.id, ip, bounds) {
            Ok(handle) => self.start(socket, peer, handle, service),
            Err(refusal) => {
                state.metrics.refused(refusal);
                self.log_refusal(peer, refusal.setting());
            }
        }
    }

    fn log_refusal(&mut self, peer: SocketAddr, limit: &str) {
        if let Some(suppressed) = self.refusals.may_tell(Instant::now()) {
            let listener = &self.state.name;
            warn!(%listener, %peer, limit, suppressed, "connections are being refused");
        }
    }

    fn start<S: Service>(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        handle: Arc<Handle>,
        service: &Arc<S>,
    ) {
        let Ok(local) = socket.local_addr() else {
            // Already reset by the client.
            return self.state.limits.connections.remove(&handle);
        };
        self.state.metrics.accepted.inc();
        let listener = Arc::clone(&self.state.name);
        let replies = Arc::clone(&self.state.limits.replies);
        let info = ConnectionInfo { id: handle.id, listener, peer, local, replies };
        let (service, state) = (Arc::clone(service), Arc::clone(self.state));
        tokio::spawn(Connection::new(socket, info, service, state, handle));
    }

    /// Deals with a failed accept so that the next one has a chance. Out of descriptors, it takes
    /// a connection with the spare one, and gives it only where another is free by then.
    async fn recover(
        &mut self,
        listener: &TcpListener,
        error: &io::Error,
    ) -> Option<(TcpStream, SocketAddr)> {
        self.state.metrics.accept_errors.inc();
        if !out_of_descriptors(error) {
            // The connection died in the backlog; the next one may be well.
            tokio::task::yield_now().await;
            return None;
        }
        let mut accepted = None;
        if self.spare.take().is_some() {
            // Does not wait long where the client has left meanwhile.
            accepted = timeout(ACCEPT_REST, listener.accept()).await.ok().and_then(Result::ok);
        }
        self.spare = spare_descriptor();
        if self.spare.is_none()
            && let Some((socket, peer)) = accepted.take()
        {
            drop(socket);
            self.state.metrics.refused_open_files.inc();
            self.spare = spare_descriptor();
            self.log_refusal(peer, "open files");
        }
        if self.spare.is_none() {
            sleep(ACCEPT_REST).await;
        }
        accepted
    }
}

fn spare_descriptor() -> Option<File> {
    File::open("/dev/null").ok()
}

fn out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

/// What is set here, accepted sockets inherit.
fn listen(address: SocketAddr, config: &NetConfig) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    if let Ok(bytes) = usize::try_from(config.send_buffer_bytes) {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Ok(bytes) = usize::try_from(config.receive_buffer_bytes) {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(config.backlog)?;
    Ok(socket.into())
}
