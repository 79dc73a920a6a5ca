//! How far groups are behind, in records and in seconds: measured now and then on a thread of its
//! own, never when an offset is committed.
//!
//! There are no more series than a setting allows: those with the most records to come are shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    thread,
    time::Duration,
};

use crossbeam::channel::{Receiver, Sender, bounded};
use prometheus::{GaugeVec, IntGaugeVec};
use tidelog_protocol::record_batch;
use tidelog_types::{BatchHeader, Clock, LeaderEpoch, Offset};
use tidelog_wal::ReadOutcome;

use super::metrics::CoordinatorMetrics;
use crate::{partition::Partition, replica_manager::ReplicaManager};

/// Offsets of all groups that one measurement looks at.
pub(crate) const OFFSETS_MAX: usize = 100_000;
/// Times that one measurement asks the disk when a record was written; more are asked for later.
const COLD_READS_MAX: usize = 64;
/// How long the disk may take for one of them.
const COLD_READ_PATIENCE: Duration = Duration::from_secs(2);

/// How far one group has come in one partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Progress {
    /// The group.
    pub group_id: Arc<str>,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next record to consume.
    pub offset: Offset,
}

/// The way to the thread, which ends with it. What finds the thread at work is dropped.
pub(crate) type Measurements = Sender<Vec<Progress>>;

/// The thread's own.
pub(crate) struct LagMeter {
    pub replicas: Arc<ReplicaManager>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<CoordinatorMetrics>,
    /// Series of each metric. `group.lag.metrics.max`
    pub series_max: usize,
}

/// A group's place, as metrics name it.
type Series = (Arc<str>, String, i32);

/// When the first record to come was written, as long as the group stays where it is.
type Known = BTreeMap<Series, (Offset, i64)>;

/// One series, measured.
struct Lag {
    series: Series,
    offset: Offset,
    records: i64,
    partition: Arc<Partition>,
    high_watermark: Offset,
}

impl LagMeter {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(self) -> io::Result<Measurements> {
        let (measurements, queue) = bounded(1);
        let run = move || self.run(&queue);
        thread::Builder::new().name("group-lag".to_owned()).spawn(run)?;
        Ok(measurements)
    }

    fn run(&self, queue: &Receiver<Vec<Progress>>) {
        let (mut shown, mut known) = (BTreeSet::new(), Known::new());
        for progress in queue {
            let lags = self.lags(progress);
            known = self.show(&lags, &known);
            let now: BTreeSet<Series> = lags.into_iter().map(|lag| lag.series).collect();
            for gone in shown.difference(&now) {
                self.hide(gone);
            }
            shown = now;
        }
    }

    /// The greatest lags.
    fn lags(&self, progress: Vec<Progress>) -> Vec<Lag> {
        let topics = self.replicas.topics();
        let lags = progress.into_iter().filter_map(|progress| {
            let Progress { group_id, topic, partition, offset } = progress;
            let hosted = Arc::clone(topics.named(&topic).ok()?.partition(partition).ok()?);
            let high_watermark = hosted.view(LeaderEpoch::NONE).ok()?.high_watermark;
            let records = (high_watermark.0 - offset.0).max(0);
            let series = (group_id, topic, partition);
            Some(Lag { series, offset, records, partition: hosted, high_watermark })
        });
        let mut lags: Vec<Lag> = lags.collect();
        lags.sort_by(|a, b| b.records.cmp(&a.records).then_with(|| a.series.cmp(&b.series)));
        lags.truncate(self.series_max);
        lags
    }

    fn show(&self, lags: &[Lag], known: &Known) -> Known {
        let (now_ms, mut cold_reads) = (self.clock.wall_ms(), COLD_READS_MAX);
        let mut still_known = Known::new();
        for lag in lags {
            let written_ms = match known.get(&lag.series) {
                _ if lag.records == 0 => None,
                Some((offset, written_ms)) if *offset == lag.offset => Some(*written_ms),
                _ => lag.written_ms(&mut cold_reads),
            };
            let seconds = written_ms.map_or(0.0, |ms| (now_ms - ms).max(0) as f64 / 1000.0);
            let (records, lag_seconds) = self.gauges();
            let partition = lag.series.2.to_string();
            let labels = [&*lag.series.0, lag.series.1.as_str(), partition.as_str()];
            records.with_label_values(&labels).set(lag.records);
            if written_ms.is_some() || lag.records == 0 {
                lag_seconds.with_label_values(&labels).set(seconds);
            }
            still_known.extend(written_ms.map(|ms| (lag.series.clone(), (lag.offset, ms))));
        }
        still_known
    }

    fn hide(&self, (group_id, topic, partition): &Series) {
        let (records, seconds) = self.gauges();
        let partition = partition.to_string();
        let labels = [&**group_id, topic.as_str(), partition.as_str()];
        // One that was never set is not there.
        let _ = records.remove_label_values(&labels);
        let _ = seconds.remove_label_values(&labels);
    }

    fn gauges(&self) -> (&IntGaugeVec, &GaugeVec) {
        (&self.metrics.lag_records, &self.metrics.lag_seconds)
    }
}

impl Lag {
    /// When the first record to come was written; its batch's time is near enough. `None` where
    /// that cannot be found out now.
    fn written_ms(&self, cold_reads: &mut usize) -> Option<i64> {
        let from = self.offset.max(self.partition.log().log_start_offset());
        let header = match self.partition.read(from, self.high_watermark, 1, true).ok()? {
            ReadOutcome::Entries(entries) => entries.first()?.facts(),
            ReadOutcome::Cold(_) if *cold_reads == 0 => return None,
            ReadOutcome::Cold(cold) => {
                *cold_reads -= 1;
                let (sender, receiver) = bounded(1);
                let done = move |pieces| {
                    let _ = sender.try_send(pieces); // we may have lost patience
                };
                self.partition.log().read_cold(cold, Box::new(done)).ok()?;
                let pieces = receiver.recv_timeout(COLD_READ_PATIENCE).ok()?.ok()?;
                record_batch::split(pieces.into_iter().next()?).next()?.facts()
            }
        };
        Some(time_of(&header))
    }
}

fn time_of(header: &BatchHeader) -> i64 {
    if header.is_log_append_time() { header.max_timestamp } else { header.base_timestamp }
}
