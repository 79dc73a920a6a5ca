//! Puts a node together, serves, and takes it apart again.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use prometheus::{IntGauge, Opts, Registry, process_collector::ProcessCollector};
use rustix::fs::statvfs;
use tidelog_broker::{
    Broker, BrokerIdentity, BrokerMetrics, BrokerParts, BrokerService, NodeSettings, OnSettings,
    SystemClock,
    config::{BrokerSettings, Endpoint},
    metadata_events, random_uuid,
};
use tidelog_metadata::record::{self, SecurityProtocol};
use tidelog_net::{Limits, Listener, NetMetrics, limits::raise_open_files};
use tidelog_raft::{NoTransport, RaftConfig, RaftHandle, RaftMetrics, RaftNode};
use tidelog_types::BrokerId;
use tidelog_wal::{
    Durability, Wal, WalConfig, WalError, WalMetrics,
    env::{FileSystem, std::StdFileSystem},
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};
use tracing::{info, warn};

use crate::{
    admin_http::{self, AdminState},
    banner,
    identity::Identity,
    logging::Level,
};

/// The one listener; its name is what Kafka calls it.
const LISTENER: &str = "PLAINTEXT";
/// Bytes with which any start succeeds: a small file for each of the two logs, and checkpoints.
const START_BYTES: u64 = 4 << 20;
/// A signal so soon after the first is the first again: some tools send it twice.
const SIGNAL_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the data runtime's tasks are waited for once the listener has stopped.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// Where a node listens, and what it tells clients.
struct Sockets {
    listener: Listener,
    told: Endpoint,
    admin: Option<StdListener>,
}

/// A node that is recovered and may be served.
struct Node {
    broker: Arc<Broker>,
    wal: Wal,
    raft: RaftHandle,
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// When it cannot start, or not stop cleanly.
pub fn run(settings: &NodeSettings, level: Level) -> anyhow::Result<()> {
    raise_open_files();
    let registry = Registry::new();
    let fs = file_system()?;
    let dir = settings.broker.data_dir()?;
    // Keeps a second process out of the directory until this function returns.
    let _lock = lock(&*fs, &dir)?;
    let node_id = BrokerId(settings.broker.node_id);
    let identity = Identity::load_or_create(&*fs, &dir, node_id, &mut random_uuid)?;
    // Bound before anything is recovered: clients wait in the backlog, and a port that is taken
    // is said at once.
    let sockets = bind(settings, &registry)?;
    let on_settings: OnSettings =
        Box::new(move |settings| level.follow(&settings.broker.logging_level));
    let node = start(settings, &identity, &sockets.told, &fs, &dir, &registry, on_settings)
        .map_err(|error| explain_full_disk(error, &*fs, &dir))?;
    let admin_address = sockets.admin.as_ref().map(StdListener::local_addr).transpose()?;
    let listening = sockets.listener.local_addr();
    banner::print(&dir, &identity, &sockets.told, listening, admin_address);
    let state = admin_state(registry, fs, dir, node.wal.clone())?;
    let runtime = runtime()?;
    let served = runtime.block_on(serve(sockets, Arc::clone(&node.broker), state));
    // A task that does not come to its end must not keep the log from coming to its own.
    runtime.shutdown_timeout(SHUTDOWN_PATIENCE);
    served?;
    stop(&node)
}

/// Serves clients and the admin pages until a signal, then lets replies in flight finish.
async fn serve(sockets: Sockets, broker: Arc<Broker>, state: AdminState) -> anyhow::Result<()> {
    let ready = Arc::clone(&state.ready);
    if let Some(admin) = sockets.admin {
        admin_http::start(admin, state)?;
    }
    let stop = Notify::new();
    let serving = sockets.listener.serve(Arc::new(BrokerService(broker)), stop.notified());
    let signals = async {
        let mut signals = Signals::new()?;
        info!(signal = signals.next().await, "stopping");
        ready.store(false, Ordering::Relaxed);
        stop.notify_one();
        let told = Instant::now();
        let mut signal = signals.next().await;
        while told.elapsed() < SIGNAL_AGAIN_AFTER {
            signal = signals.next().await;
        }
        Ok::<_, io::Error>(signal)
    };
    tokio::select! {
        drained = serving => drained.map(|_| ()).context("the listener failed"),
        signal = signals => {
            bail!("{} again; what was not written is recovered next time", signal?)
        }
    }
}

/// What asks a process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Signals { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Opens the log, then the metadata, then the broker over both.
fn start(
    settings: &NodeSettings,
    identity: &Identity,
    told: &Endpoint,
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    registry: &Registry,
    on_settings: OnSettings,
) -> anyhow::Result<Node> {
    let config = wal_config(&settings.broker, dir);
    if settings.broker.default_replication_factor > 1 {
        let factor = settings.broker.default_replication_factor;
        warn!(
            "default.replication.factor = {factor}: there is one node, so a topic whose creator \
             names no replication factor cannot be created; set it to 1"
        );
    }
    if config.durability == Durability::PageCache {
        warn!("wal.durability = page-cache: a power loss takes acknowledged records");
    }
    let (wal, recovered) = Wal::open(config, Arc::clone(fs), WalMetrics::register(registry)?)?;
    let (events, raft_events) = metadata_events();
    let config = RaftConfig {
        settings: settings.raft.clone(),
        ..RaftConfig::sole_voter(identity.raft_id, dir.join("raft").join("group-0"))
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
        identity: broker_identity(identity, told),
        wal: wal.clone(),
        recovered: recovered.partitions,
        raft: raft.clone(),
        raft_events,
        clock: Arc::new(SystemClock::default()),
        metrics: BrokerMetrics::register(registry)?,
        on_settings,
    })?;
    Ok(Node { broker, wal, raft })
}

/// A start takes next to no room, but some: says how much, and what must not be removed for it.
fn explain_full_disk(error: anyhow::Error, fs: &dyn FileSystem, dir: &Path) -> anyhow::Error {
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(WalError::DiskFull { .. }))
    };
    if !error.chain().any(is_full) {
        return error;
    }
    let free = fs.free_bytes(dir).unwrap_or_default();
    error.context(format!(
        "{}: a start needs {START_BYTES} bytes and {free} are free; make room on this file system \
         without touching the directory's own files",
        dir.display()
    ))
}

/// Metadata first, so that nothing is opened any more; then the log, with all that it holds.
fn stop(node: &Node) -> anyhow::Result<()> {
    node.raft.shutdown()?;
    node.broker.join();
    node.wal.flush_and_close()?;
    info!("stopped");
    Ok(())
}

fn bind(settings: &NodeSettings, registry: &Registry) -> anyhow::Result<Sockets> {
    let limits = Limits::new(settings.net.clone(), NetMetrics::register(registry)?);
    let address = resolve(&settings.broker.listener()?)?;
    let listener = Listener::bind(LISTENER, address, &limits)
        .with_context(|| format!("listeners = {:?}", settings.broker.listeners))?;
    let told = settings.broker.advertised(listener.local_addr().port())?;
    Ok(Sockets { listener, told, admin: bind_admin(&settings.broker)? })
}

fn lock(fs: &dyn FileSystem, dir: &Path) -> anyhow::Result<Box<dyn Send + Sync>> {
    // The directory itself is the log's to lock, and the identity comes before the log.
    let locked = dir.join("raft");
    if dir.exists() && !dir.is_dir() {
        bail!("{}: not a directory", dir.display());
    }
    let verb = if dir.exists() { "write to" } else { "create" };
    fs.create_dir_all(&locked).with_context(|| format!("cannot {verb} {}", dir.display()))?;
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
            info!("the file system holds writes back until they are synced: for tests only");
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

fn broker_identity(identity: &Identity, told: &Endpoint) -> BrokerIdentity {
    BrokerIdentity {
        cluster_id: identity.cluster_id,
        node_id: identity.node_id,
        directory_id: identity.directory_id,
        incarnation_id: random_uuid(),
        endpoints: vec![record::Endpoint {
            listener: LISTENER.to_owned(),
            host: told.host.clone(),
            port: told.port,
            security_protocol: SecurityProtocol::Plaintext,
        }],
    }
}

fn resolve(endpoint: &Endpoint) -> anyhow::Result<SocketAddr> {
    let Endpoint { host, port } = endpoint;
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let mut addresses =
        (host, *port).to_socket_addrs().with_context(|| format!("{host}:{port}"))?;
    addresses.next().with_context(|| format!("{host} has no address"))
}

fn bind_admin(settings: &BrokerSettings) -> anyhow::Result<Option<StdListener>> {
    let Some(endpoint) = settings.admin()? else { return Ok(None) };
    let address = resolve(&endpoint)?;
    let bound = StdListener::bind(address);
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

/// What the admin pages show, with the gauges that nobody else keeps.
fn admin_state(
    registry: Registry,
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    wal: Wal,
) -> Result<AdminState, prometheus::Error> {
    let opts = Opts::new("tidelog_build_info", "Always 1; its labels say what this is.");
    let info = IntGauge::with_opts(opts.const_label("version", env!("CARGO_PKG_VERSION")))?;
    info.set(1);
    registry.register(Box::new(info))?;
    let help = "Bytes that may still be written to the data directory's file system.";
    let free = IntGauge::new("tidelog_storage_free_bytes", help)?;
    registry.register(Box::new(free.clone()))?;
    let help = "Bytes of the data directory's file system, free and used.";
    let total = IntGauge::new("tidelog_storage_total_bytes", help)?;
    registry.register(Box::new(total.clone()))?;
    // Processor time, memory, descriptors: under the names that every Prometheus client uses.
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let refresh = move || {
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        free.set(gauge(fs.free_bytes(&dir).unwrap_or(0)));
        total.set(statvfs(&dir).map_or(0, |disk| gauge(disk.f_blocks * disk.f_frsize)));
    };
    let ready = Arc::new(AtomicBool::new(true));
    let refusal = move || wal.refusal().map(|refusal| refusal.to_string());
    Ok(AdminState { registry, ready, refusal: Box::new(refusal), refresh: Box::new(refresh) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_for_a_start_is_told_in_bytes_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let full = WalError::DiskFull { path: dir.path().join("wal") };
        let told = explain_full_disk(full.into(), &StdFileSystem, dir.path());
        let said = format!("{told:#}");
        let start = format!("{}: a start needs 4194304 bytes and ", dir.path().display());
        assert!(said.starts_with(&start) && said.ends_with("/wal"), "{said}");
        let other = explain_full_disk(WalError::Closed.into(), &StdFileSystem, dir.path());
        assert_eq!(format!("{other:#}"), WalError::Closed.to_string());
    }
}
