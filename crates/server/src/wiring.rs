//! Puts a node together, serves, and takes it apart again.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, bail};
use prometheus::{IntGauge, Opts, Registry};
use tidelog_broker::{
    Broker, BrokerIdentity, BrokerMetrics, BrokerParts, BrokerService, NodeSettings, SystemClock,
    config::{BrokerSettings, Endpoint},
    metadata_events, random_uuid,
};
use tidelog_metadata::record::{self, SecurityProtocol};
use tidelog_net::{Limits, Listener, NetMetrics, limits::raise_open_files};
use tidelog_raft::{NoTransport, RaftConfig, RaftHandle, RaftMetrics, RaftNode};
use tidelog_types::BrokerId;
use tidelog_wal::{
    Durability, Wal, WalConfig, WalMetrics,
    env::{FileSystem, std::StdFileSystem},
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};

use crate::{admin_http, banner, identity::Identity};

/// The one listener; its name is what Kafka calls it.
const LISTENER: &str = "PLAINTEXT";

/// A node that is recovered and may be served.
struct Node {
    broker: Arc<Broker>,
    wal: Wal,
    raft: RaftHandle,
    /// Keeps a second process out of the directory.
    _lock: Box<dyn Send + Sync>,
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// When it cannot start, or not stop cleanly.
pub fn run(settings: &NodeSettings) -> anyhow::Result<()> {
    raise_open_files();
    let registry = Registry::new();
    let fs = file_system()?;
    let dir = PathBuf::from(&settings.broker.log_dirs);
    let lock = lock(&*fs, &dir)?;
    let node_id = BrokerId(settings.broker.node_id);
    let identity = Identity::load_or_create(&*fs, &dir, node_id, &mut random_uuid)?;
    register_build_info(&registry)?;
    let free_bytes = register_free_bytes(&registry)?;

    // Bound before anything is recovered: clients wait in the backlog, and a port that is taken
    // is said at once.
    let limits = Limits::new(settings.net.clone(), NetMetrics::register(&registry)?);
    let address = resolve(&settings.broker.listener()?)?;
    let listener = Listener::bind(LISTENER, address, &limits)?;
    let told = settings.broker.advertised(listener.local_addr().port())?;
    let admin = bind_admin(&settings.broker)?;

    let identity_told = BrokerIdentity {
        cluster_id: identity.cluster_id,
        node_id,
        directory_id: identity.directory_id,
        incarnation_id: random_uuid(),
        endpoints: vec![endpoint(&told)],
    };
    let node = start(settings, identity_told, identity.raft_id, &fs, &dir, &registry, lock)?;
    let admin_address = admin.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
    banner::print(&dir, &identity, &told, listener.local_addr(), admin_address);
    let measured = (Arc::clone(&fs), dir);
    let state = admin_http::AdminState {
        registry,
        ready: Box::new(|| true),
        refresh: Box::new(move || {
            let free = measured.0.free_bytes(&measured.1).unwrap_or(0);
            free_bytes.set(i64::try_from(free).unwrap_or(i64::MAX));
        }),
    };
    runtime()?.block_on(serve(listener, Arc::clone(&node.broker), admin, state))?;
    stop(&node)
}

/// Serves clients and the admin pages until a signal, then lets replies in flight finish.
async fn serve(
    listener: Listener,
    broker: Arc<Broker>,
    admin: Option<std::net::TcpListener>,
    state: admin_http::AdminState,
) -> anyhow::Result<()> {
    let (told, stopping) = watch::channel(false);
    let stopped = |mut stopping: watch::Receiver<bool>| async move {
        // The sender outlives every listener.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    if let Some(admin) = admin {
        admin.set_nonblocking(true)?;
        let admin = tokio::net::TcpListener::from_std(admin)?;
        tokio::spawn(admin_http::serve(admin, state, stopped(stopping.clone())));
    }
    let service = Arc::new(BrokerService(broker));
    let serving = listener.serve(service, stopped(stopping));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let signals = async {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stopping");
        told.send_replace(true);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        drained = serving => drained.map(|_| ()).context("the listener failed"),
        () = signals => bail!("told to stop twice; what was not written is recovered next time"),
    }
}

fn start(
    settings: &NodeSettings,
    identity: BrokerIdentity,
    raft_id: u64,
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    registry: &Registry,
    lock: Box<dyn Send + Sync>,
) -> anyhow::Result<Node> {
    let config = wal_config(&settings.broker, dir);
    if config.durability == Durability::PageCache {
        warn!("wal.durability = page-cache: a power loss takes acknowledged records");
    }
    let (wal, recovered) = Wal::open(config, Arc::clone(fs), WalMetrics::register(registry)?)?;
    let (events, raft_events) = metadata_events();
    let config = RaftConfig {
        settings: settings.raft.clone(),
        ..RaftConfig::sole_voter(raft_id, dir.join("raft").join("group-0"))
    };
    let raft = RaftNode::start(
        config,
        Arc::clone(fs),
        Box::new(NoTransport),
        events,
        RaftMetrics::register(registry)?,
    )?;
    let broker = Broker::start(BrokerParts {
        settings: settings.clone(),
        identity,
        wal: wal.clone(),
        recovered: recovered.partitions,
        raft: raft.clone(),
        raft_events,
        clock: Arc::new(SystemClock::default()),
        metrics: BrokerMetrics::register(registry)?,
    })?;
    Ok(Node { broker, wal, raft, _lock: lock })
}

/// Metadata first, so that nothing is opened any more; then the log, with all that it holds.
fn stop(node: &Node) -> anyhow::Result<()> {
    node.raft.shutdown()?;
    node.broker.join();
    node.wal.flush_and_close()?;
    info!("stopped");
    Ok(())
}

fn lock(fs: &dyn FileSystem, dir: &Path) -> anyhow::Result<Box<dyn Send + Sync>> {
    // The directory itself is the log's to lock, and the identity comes before the log.
    let locked = dir.join("raft");
    fs.create_dir_all(&locked).with_context(|| format!("cannot create {}", dir.display()))?;
    fs.lock(&locked).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            anyhow::anyhow!("{}: in use by another tidelog process", dir.display())
        }
        _ => anyhow::Error::new(error).context(format!("cannot lock {}", dir.display())),
    })
}

#[cfg(not(feature = "held"))]
fn file_system() -> anyhow::Result<Arc<dyn FileSystem>> {
    Ok(Arc::new(StdFileSystem))
}

/// Test builds may hold writes back until they are synced, so that killing the process is a power
/// loss.
#[cfg(feature = "held")]
fn file_system() -> anyhow::Result<Arc<dyn FileSystem>> {
    match std::env::var("TIDELOG_TEST_FILE_SYSTEM").as_deref() {
        Ok("held") => {
            warn!("the file system holds writes back until they are synced: for tests only");
            Ok(Arc::new(tidelog_wal::env::held::HeldFileSystem::default()))
        }
        Ok(other) => bail!("TIDELOG_TEST_FILE_SYSTEM={other:?}: expected held"),
        Err(_) => Ok(Arc::new(StdFileSystem)),
    }
}

fn wal_config(settings: &BrokerSettings, dir: &Path) -> WalConfig {
    let bytes = |value: i64| u64::try_from(value).expect("the setting's bounds begin above 0");
    let count = |value: i32| usize::try_from(value).expect("the setting's bounds begin above 0");
    WalConfig {
        dir: dir.to_owned(),
        tail_bytes_max: bytes(settings.wal_tail_max_bytes),
        queue_bytes_max: bytes(settings.wal_queue_max_bytes),
        wal_bytes_max: bytes(settings.wal_max_bytes),
        file_bytes: bytes(settings.wal_file_bytes),
        first_file_bytes: bytes(settings.wal_first_file_bytes),
        commit_bytes_max: bytes(settings.wal_commit_max_bytes),
        durability: match settings.wal_durability.as_str() {
            "page-cache" => Durability::PageCache,
            _ => Durability::Synced,
        },
        open_files_max: count(settings.wal_open_files_max),
        index_interval_bytes: u32::try_from(settings.log_index_interval_bytes)
            .expect("the setting's bounds begin at 0"),
        snapshot_interval_bytes: bytes(settings.wal_snapshot_interval_bytes),
    }
}

fn endpoint(told: &Endpoint) -> record::Endpoint {
    record::Endpoint {
        listener: LISTENER.to_owned(),
        host: told.host.clone(),
        port: told.port,
        security_protocol: SecurityProtocol::Plaintext,
    }
}

fn resolve(endpoint: &Endpoint) -> anyhow::Result<SocketAddr> {
    let Endpoint { host, port } = endpoint;
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let mut addresses =
        (host, *port).to_socket_addrs().with_context(|| format!("{host}:{port}"))?;
    addresses.next().with_context(|| format!("{host} has no address"))
}

fn bind_admin(settings: &BrokerSettings) -> anyhow::Result<Option<std::net::TcpListener>> {
    let Some(endpoint) = settings.admin()? else { return Ok(None) };
    let address = resolve(&endpoint)?;
    let bound = std::net::TcpListener::bind(address);
    bound.map(Some).with_context(|| format!("cannot listen on {address} (admin.listener)"))
}

/// One core is left to the log's thread.
fn runtime() -> io::Result<Runtime> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = cores.saturating_sub(1).max(1);
    Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(2)
        .thread_name("data")
        .enable_io()
        .enable_time()
        .build()
}

fn register_build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let opts = Opts::new("tidelog_build_info", "Always 1; its labels say what this is.");
    let info = IntGauge::with_opts(opts.const_label("version", env!("CARGO_PKG_VERSION")))?;
    info.set(1);
    registry.register(Box::new(info))
}

fn register_free_bytes(registry: &Registry) -> Result<IntGauge, prometheus::Error> {
    let help = "Bytes that may still be written to the data directory's file system.";
    let free = IntGauge::new("tidelog_storage_free_bytes", help)?;
    registry.register(Box::new(free.clone()))?;
    Ok(free)
}
