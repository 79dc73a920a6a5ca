//! Metrics and health over HTTP, for those who watch: read only, loopback unless told otherwise.
//!
//! On a thread of its own, so that neither the pages nor what they ask the system hold up clients,
//! and so that they answer when clients are not. Connections and their time are bounded: whoever
//! sends half a request gives way to the next.

use std::{
    io,
    net::TcpListener as StdListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus::{Registry, TextEncoder};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::Semaphore,
    time::{sleep, timeout},
};

const BOUNDS: Bounds = Bounds {
    connections_max: 64,
    header_time_max: Duration::from_secs(5),
    connection_time_max: Duration::from_secs(15),
};
/// How long the accept loop rests after a failure, such as having no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What clients are allowed.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Connections at a time; more wait in the backlog.
    connections_max: usize,
    /// How long a request's header may take.
    header_time_max: Duration,
    /// How long a connection may take, which is for one request.
    connection_time_max: Duration,
}

/// What the pages show.
pub struct AdminState {
    /// Every metric of the process.
    pub registry: Registry,
    /// Whether clients are served: not any more once the process was told to stop.
    pub ready: Arc<AtomicBool>,
    /// Why nobody may write now, if that is so.
    pub refusal: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Brings gauges up to date that nobody else sets.
    pub refresh: Box<dyn Fn() + Send + Sync>,
}

/// Serves for as long as the process lives.
///
/// # Errors
/// When the system gives no thread, or does not poll the socket.
pub fn start(listener: StdListener, state: AdminState) -> io::Result<()> {
    start_within(BOUNDS, listener, state)
}

fn start_within(bounds: Bounds, listener: StdListener, state: AdminState) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let serving = move || runtime.block_on(serve(bounds, &listener, &routes(state)));
    thread::Builder::new().name("admin".to_owned()).spawn(serving).map(drop)
}

async fn serve(bounds: Bounds, listener: &TcpListener, routes: &Router) {
    let room = Arc::new(Semaphore::new(bounds.connections_max));
    loop {
        let place = Arc::clone(&room).acquire_owned().await;
        match listener.accept().await {
            Ok((socket, _)) => {
                let answering = answer(bounds, socket, routes.clone());
                tokio::spawn(async move {
                    answering.await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_REST).await,
        }
    }
}

async fn answer(bounds: Bounds, socket: TcpStream, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_time_max)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(routes));
    // What went wrong is between the client and the network.
    let _ = timeout(bounds.connection_time_max, connection).await;
}

fn routes(state: AdminState) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .with_state(Arc::new(state))
}

async fn index() -> &'static str {
    "tidelog\n/metrics  Prometheus text\n/healthz  the process lives\n\
     /readyz   clients are served, writes too\n/version  what this is\n"
}

async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    (state.refresh)();
    match TextEncoder::new().encode_to_string(&state.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A node that refuses all writes is not ready: whoever starts nodes one after the other must see
/// it before the next.
async fn readyz(State(state): State<Arc<AdminState>>) -> (StatusCode, String) {
    let why = match state.ready.load(Ordering::Relaxed) {
        true => (state.refusal)(),
        false => Some("stopping".to_owned()),
    };
    match why {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

async fn version() -> Response {
    let text = concat!("{\"name\":\"tidelog\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpStream},
        time::Instant,
    };

    use prometheus::{IntGaugeVec, Opts};

    use super::*;

    /// Far above any bound that a test sets, far below anybody's patience.
    const LONG: Duration = Duration::from_secs(60);
    const PATIENCE: Duration = Duration::from_secs(20);
    const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n";

    /// Pages of 16 MB, more than the kernel's buffers take, within these bounds.
    fn pages(bounds: Bounds) -> SocketAddr {
        let registry = Registry::new();
        let large = IntGaugeVec::new(Opts::new("large", "Fills a page."), &["number"])
            .expect("a lawful name");
        for number in 0..16_000 {
            large.with_label_values(&[format!("{number:01000}")]).set(number);
        }
        registry.register(Box::new(large)).expect("a new name");
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let ready = Arc::new(AtomicBool::new(true));
        let refusal = Box::new(|| None);
        let state = AdminState { registry, ready, refusal, refresh: Box::new(|| {}) };
        start_within(bounds, listener, state).expect("a thread");
        address
    }

    fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(address).expect("a listener");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket");
        client.write_all(bytes).expect("an open connection");
        client
    }

    /// How long the answer to a whole request took.
    fn served_after(address: SocketAddr) -> Duration {
        let start = Instant::now();
        let mut answer = String::new();
        let mut client = send(address, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n");
        client.read_to_string(&mut answer).expect("an answer in time");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
        start.elapsed()
    }

    #[test]
    fn more_connections_than_allowed_wait_until_half_a_request_is_given_up() {
        let bounds = Bounds {
            connections_max: 2,
            header_time_max: Duration::from_millis(300),
            connection_time_max: LONG,
        };
        let address = pages(bounds);
        let halves = [send(address, &REQUEST[..10]), send(address, &REQUEST[..10])];
        let waited = served_after(address);
        assert!(waited >= Duration::from_millis(200), "there was room for it after {waited:?}");
        for mut half in halves {
            let mut answer = Vec::new();
            assert!(half.read_to_end(&mut answer).is_ok(), "it is closed");
        }
    }

    #[test]
    fn who_does_not_take_the_answer_gives_way() {
        let bounds = Bounds {
            connections_max: 1,
            header_time_max: LONG,
            connection_time_max: Duration::from_millis(500),
        };
        let address = pages(bounds);
        let mut deaf = send(address, REQUEST);
        let waited = served_after(address);
        assert!(waited >= Duration::from_millis(300), "the answer was taken in {waited:?}");
        let mut answer = Vec::new();
        let ended = deaf.read_to_end(&mut answer);
        assert!(answer.len() < 16_000_000, "{ended:?}: the whole page was sent");
    }

    #[tokio::test]
    async fn a_node_is_ready_while_it_serves_and_takes_writes() {
        let cases = [
            (true, None, StatusCode::OK, "ready\n"),
            (true, Some("disk full"), StatusCode::SERVICE_UNAVAILABLE, "disk full\n"),
            (false, None, StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            (false, Some("the log is closed"), StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        ];
        for (is_serving, refusal, status, text) in cases {
            let state = AdminState {
                registry: Registry::new(),
                ready: Arc::new(AtomicBool::new(is_serving)),
                refusal: Box::new(move || refusal.map(str::to_owned)),
                refresh: Box::new(|| {}),
            };
            assert_eq!(readyz(State(Arc::new(state))).await, (status, text.to_owned()));
        }
    }
}
