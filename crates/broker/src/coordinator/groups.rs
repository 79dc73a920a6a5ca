//! The group coordinator of this broker: its thread, and how handlers reach it.

use std::{
    io, process,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tidelog_coordinator::{GroupRequest, GroupResponse, GroupSettings, GroupShard, partition_for};
use tidelog_types::Clock;
use tidelog_wal::Wal;
use tokio::runtime::Builder;

use super::{
    commands::{CoordinatorHandle, Shared, commands},
    lag::{LagMeter, Measurements, OFFSETS_MAX, Progress},
    metrics::{CoordinatorMetrics, STATES},
    run::{Coordinator, Survey, run_coordinator},
};
use crate::{config::BrokerSettings, metrics::BrokerMetrics, replica_manager::ReplicaManager};

/// The way to all groups that this broker looks after.
pub(crate) struct GroupCoordinator {
    pub handle: CoordinatorHandle<GroupRequest, GroupResponse>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl GroupCoordinator {
    /// Starts the thread, which follows what `shared` is told of.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        settings: &BrokerSettings,
        shared: Arc<Shared>,
        replicas: Arc<ReplicaManager>,
        wal: Wal,
        clock: Arc<dyn Clock>,
        metrics: &BrokerMetrics,
    ) -> io::Result<GroupCoordinator> {
        let (handle, commands) = commands(Arc::clone(&shared));
        let meter = LagMeter {
            replicas: Arc::clone(&replicas),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics.coordinator),
            series_max: usize::try_from(settings.group_lag_metrics_max).unwrap_or(0),
        };
        let measurements = meter.start()?;
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let given = Coordinator::<GroupShard> {
            settings: group_settings(settings),
            replicas,
            wal,
            clock,
            metrics: Arc::clone(&metrics.coordinator),
            shared: Arc::clone(&shared),
            commands,
            survey: survey(Arc::clone(&metrics.coordinator), measurements),
        };
        let run = move || runtime.block_on(run_coordinator(given));
        let thread = thread::Builder::new().name("groups".to_owned()).spawn(run)?;
        Ok(GroupCoordinator { handle, shared, thread: Mutex::new(Some(thread)) })
    }

    /// The partition of the offsets topic that looks after a group; `None` while there is no topic.
    pub fn partition_of(&self, group_id: &str) -> Option<i32> {
        self.handle.partitions().map(|partitions| partition_for(group_id, partitions))
    }

    /// Stops: whoever waits is told to look for another coordinator.
    pub fn stop(&self) {
        self.shared.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            process::abort(); // it panicked: what it knew is lost
        }
    }
}

/// Counts groups and members, and has lags measured.
fn survey(metrics: Arc<CoordinatorMetrics>, measurements: Measurements) -> Survey<GroupShard> {
    Box::new(move |shards| {
        let (mut groups, mut members, mut progress) = ([0; STATES.len()], 0, Vec::new());
        for group in shards.flat_map(GroupShard::groups) {
            let place = STATES.iter().position(|state| *state == group.state);
            groups[place.expect("a group is in one of the states")] += 1;
            members += group.members;
            let left = OFFSETS_MAX - progress.len();
            let group_id: Arc<str> = group.group_id.into();
            progress.extend(group.offsets().take(left).map(|(topic, partition, offset)| {
                let group_id = Arc::clone(&group_id);
                Progress { group_id, topic: topic.to_owned(), partition, offset }
            }));
        }
        metrics.set_groups(&groups);
        metrics.members.set(i64::try_from(members).unwrap_or(i64::MAX));
        // Where the last measurement is not over yet, the next one will do.
        let _ = measurements.try_send(progress);
    })
}

/// Bytes of a batch of one record besides the record's value, at most: a group's id and then some.
const FRAME_BYTES_MAX: usize = 34 << 10;

/// What an operator set, as shards take it.
fn group_settings(settings: &BrokerSettings) -> GroupSettings {
    let milliseconds = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let minutes = |count: i32| Duration::from_secs(60 * u64::try_from(count).unwrap_or(0));
    let count = |count: i32| usize::try_from(count).unwrap_or(0);
    GroupSettings {
        session_timeout_min: milliseconds(settings.group_min_session_timeout_ms.into()),
        session_timeout_max: milliseconds(settings.group_max_session_timeout_ms.into()),
        initial_rebalance_delay: milliseconds(settings.group_initial_rebalance_delay_ms.into()),
        group_size_max: count(settings.group_max_size),
        offset_metadata_chars_max: count(settings.offset_metadata_max_bytes),
        offsets_retention: minutes(settings.offsets_retention_minutes),
        offsets_retention_check_interval: milliseconds(
            settings.offsets_retention_check_interval_ms,
        ),
        group_record_bytes_max: count(settings.message_max_bytes).saturating_sub(FRAME_BYTES_MAX),
    }
}
