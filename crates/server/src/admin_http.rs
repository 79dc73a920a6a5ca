//! Metrics and health over HTTP, for those who watch: read only, loopback unless told otherwise.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Registry, TextEncoder};

/// What the pages show.
pub struct AdminState {
    /// Every metric of the process.
    pub registry: Registry,
    /// Whether clients are served: not any more once the process was told to stop.
    pub ready: Arc<AtomicBool>,
    /// Brings gauges up to date that nobody else sets.
    pub refresh: Box<dyn Fn() + Send + Sync>,
}

/// Serves for as long as the runtime lives.
///
/// # Errors
/// As the listener says.
pub async fn serve(listener: tokio::net::TcpListener, state: AdminState) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .with_state(Arc::new(state));
    axum::serve(listener, routes).await
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
