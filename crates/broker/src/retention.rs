//! Now and then has all logs searched for records that need not be kept, and measures them.
//!
//! What goes is the log's to decide and to do: here is only the time.

use std::{cmp::Reverse, io, sync::Arc, thread, time::Duration};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tidelog_types::Clock;
use tidelog_wal::Wal;

use crate::{metrics::BrokerMetrics, replica_manager::ReplicaManager};

/// The first search comes no later after the start than this, as in Kafka.
const FIRST_AFTER: Duration = Duration::from_secs(30);
/// Logs that are measured one by one; all others count in the sum.
const LARGEST_LOGS: usize = 50;

/// What a search needs.
pub(crate) struct Retention {
    pub wal: Wal,
    pub replicas: Arc<ReplicaManager>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<BrokerMetrics>,
}

/// Ends the searches when it is dropped.
pub(crate) struct RetentionTimer {
    _running: Sender<()>,
}

impl Retention {
    /// Starts a thread that searches every `interval_ms`. `log.retention.check.interval.ms`
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self, interval_ms: i64) -> io::Result<RetentionTimer> {
        let interval = Duration::from_millis(u64::try_from(interval_ms).unwrap_or(1));
        let (running, stopped) = bounded(0);
        let run = move || self.run(interval, &stopped);
        thread::Builder::new().name("retention".to_owned()).spawn(run)?;
        Ok(RetentionTimer { _running: running })
    }

    fn run(&self, interval: Duration, stopped: &Receiver<()>) {
        let mut pause = interval.min(FIRST_AFTER);
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
            self.wal.run_retention(self.clock.wall_ms());
            self.measure();
            pause = interval;
        }
    }

    fn measure(&self) {
        let topics = self.replicas.topics();
        let partitions = topics
            .iter()
            .flat_map(|topic| topic.hosted_here().map(move |partition| (&topic.name, partition)));
        let mut logs: Vec<_> = partitions
            .map(|(name, partition)| (partition.log().size_bytes(), name, partition.id().partition))
            .collect();
        let all: u64 = logs.iter().map(|(bytes, ..)| bytes).sum();
        self.metrics.logs.size.set(gauge(all));
        logs.retain(|(bytes, ..)| *bytes > 0);
        logs.sort_unstable_by_key(|(bytes, name, partition)| (Reverse(*bytes), *name, *partition));
        // Those that are not among the largest any more must not stay.
        self.metrics.logs.largest.reset();
        for (bytes, name, partition) in logs.into_iter().take(LARGEST_LOGS) {
            let labels = [&**name, &partition.to_string()];
            self.metrics.logs.largest.with_label_values(&labels).set(gauge(bytes));
        }
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
