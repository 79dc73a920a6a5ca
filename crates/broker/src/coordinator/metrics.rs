//! What coordinators count. Every child is resolved once, never per request.

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use tidelog_coordinator::RebalanceCause;

/// Upper bounds of loading a shard, in seconds.
const LOAD_SECONDS: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0];

/// Metrics of the group coordinator's shards and their logs.
#[derive(Debug)]
pub struct CoordinatorMetrics {
    /// Shards that this broker looks after.
    pub shards: IntGauge,
    /// Those of them that cannot answer yet.
    pub shards_loading: IntGauge,
    /// Shards that were loaded.
    pub loads: IntCounter,
    /// How long that took.
    pub load_seconds: Histogram,
    /// Records that were passed over.
    pub unreadable_records: IntCounter,
    /// Records appended.
    pub records: IntCounter,
    /// Batches they were appended in.
    pub batches: IntCounter,
    /// Shards that were loaded again, because their log did not take what they planned.
    pub lost: IntCounter,
    /// Offsets that were committed.
    pub offset_commits: IntCounter,
    /// Members of all groups.
    pub members: IntGauge,
    /// Records to come, by group, topic and partition.
    pub lag_records: IntGaugeVec,
    /// Seconds since the first record to come was written, by group, topic and partition.
    pub lag_seconds: GaugeVec,
    /// In the order of [`STATES`].
    groups: Vec<IntGauge>,
    /// In the order of [`RebalanceCause::ALL`].
    rebalances: Vec<IntCounter>,
}

/// The states of a group.
pub const STATES: [&str; 5] =
    ["Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"];

impl CoordinatorMetrics {
    /// Creates all metrics and registers them.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn register(registry: &Registry) -> Result<CoordinatorMetrics, prometheus::Error> {
        let counter = |name, help| register(registry, IntCounter::new(name, help)?);
        let gauge = |name, help| register(registry, IntGauge::new(name, help)?);
        let seconds = HistogramOpts::new(
            "tidelog_group_coordinator_load_seconds",
            "Time to read a partition of the offsets topic.",
        );
        let seconds = Histogram::with_opts(seconds.buckets(LOAD_SECONDS.to_vec()))?;
        Ok(CoordinatorMetrics {
            shards: gauge(
                "tidelog_group_coordinator_partitions",
                "Partitions of the offsets topic whose groups this broker looks after.",
            )?,
            shards_loading: gauge(
                "tidelog_group_coordinator_partitions_loading",
                "Those of them that are being read, or could not be: their groups get no answer.",
            )?,
            loads: counter(
                "tidelog_group_coordinator_loads_total",
                "Partitions of the offsets topic that were read to their end.",
            )?,
            load_seconds: register(registry, seconds)?,
            unreadable_records: counter(
                "tidelog_group_coordinator_unreadable_records_total",
                "Records of the offsets topic that were passed over, because they cannot be read.",
            )?,
            records: counter(
                "tidelog_group_coordinator_records_total",
                "Records appended to the offsets topic.",
            )?,
            batches: counter(
                "tidelog_group_coordinator_batches_total",
                "Batches that records were appended to the offsets topic in.",
            )?,
            lost: counter(
                "tidelog_group_coordinator_lost_total",
                "Times that the offsets topic did not take what was planned, so that a partition \
                 was read again.",
            )?,
            offset_commits: counter(
                "tidelog_group_offset_commits_total",
                "Offsets committed, each of one partition.",
            )?,
            members: gauge(
                "tidelog_group_members",
                "Members of all groups that this broker looks after, counted every few seconds.",
            )?,
            lag_records: register(
                registry,
                IntGaugeVec::new(
                    lag_opts(
                        "tidelog_group_lag_records",
                        "Records between a group's committed offset and the high watermark, where \
                     there are most.",
                    ),
                    LAG_LABELS,
                )?,
            )?,
            lag_seconds: register(
                registry,
                GaugeVec::new(
                    lag_opts(
                        "tidelog_group_lag_seconds",
                        "Seconds since the first record was written that a group has still to \
                     consume; 0 for none.",
                    ),
                    LAG_LABELS,
                )?,
            )?,
            groups: register_groups(registry)?,
            rebalances: register_rebalances(registry)?,
        })
    }

    /// How many groups there are in each state, in the order of [`STATES`].
    pub fn set_groups(&self, counts: &[i64; STATES.len()]) {
        self.groups.iter().zip(counts).for_each(|(gauge, count)| gauge.set(*count));
    }

    /// Counts rebalances that begin.
    pub fn count_rebalances(&self, causes: &[RebalanceCause]) {
        for cause in causes {
            let place = RebalanceCause::ALL.iter().position(|known| known == cause);
            self.rebalances[place.expect("all causes are in the list")].inc();
        }
    }
}

const LAG_LABELS: &[&str] = &["group", "topic", "partition"];

fn lag_opts(name: &str, help: &str) -> Opts {
    Opts::new(name, format!("{help} At most group.lag.metrics.max series."))
}

fn register_groups(registry: &Registry) -> Result<Vec<IntGauge>, prometheus::Error> {
    let help = "Groups that this broker looks after, by state, counted every few seconds.";
    let groups = IntGaugeVec::new(Opts::new("tidelog_groups", help), &["state"])?;
    let groups = register(registry, groups)?;
    Ok(STATES.iter().map(|state| groups.with_label_values(&[state])).collect())
}

fn register_rebalances(registry: &Registry) -> Result<Vec<IntCounter>, prometheus::Error> {
    let opts = Opts::new("tidelog_group_rebalances_total", "Rebalances of groups, by their cause.");
    let rebalances = register(registry, IntCounterVec::new(opts, &["cause"])?)?;
    let causes = RebalanceCause::ALL.iter();
    Ok(causes.map(|cause| rebalances.with_label_values(&[cause.name()])).collect())
}

fn register<M>(registry: &Registry, metric: M) -> Result<M, prometheus::Error>
where
    M: prometheus::core::Collector + Clone + 'static,
{
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
