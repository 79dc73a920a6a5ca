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

/// Connections at a time; more wait in the backlog.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's header may take, and a connection, which is for one request.
const HEADER_TIME_MAX: Duration = Duration::from_secs(5);
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(15);
/// How long the accept loop rests after a failure, such as having no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the pages show.
pub struct AdminState {
    /// Every metric of the process.
    pub registry: Registry,
    /// Whether clients are served: not any more once the process was told to stop.
    pub ready: Arc<AtomicBool>,
    /// Brings gauges up to date that nobody else sets.
    pub refresh: Box<dyn Fn() + Send + Sync>,
}

/// Serves for as long as the process lives.
///
/// # Errors
/// When the system gives no thread, or does not poll the socket.
pub fn start(listener: StdListener, state: AdminState) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let serving = move || runtime.block_on(serve(&listener, &routes(state)));
    thread::Builder::new().name("admin".to_owned()).spawn(serving).map(drop)
}

async fn serve(listener: &TcpListener, routes: &Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&room).acquire_owned().await;
        match listener.accept().await {
            Ok((socket, _)) => {
                let answering = answer(socket, routes.clone());
                tokio::spawn(async move {
                    answering.await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_REST).await,
        }
    }
}

async fn answer(socket: TcpStream, routes: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(routes));
    // What went wrong is between the client and the network.
    let _ = timeout(CONNECTION_TIME_MAX, connection).await;
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
     /readyz   clients are served\n/version  what this is\n"
}

async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    (state.refresh)();
    match TextEncoder::new().encode_to_string(&state.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz(State(state): State<Arc<AdminState>>) -> (StatusCode, &'static str) {
    if state.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    }
}

async fn version() -> Response {
    let text = concat!("{\"name\":\"tidelog\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
