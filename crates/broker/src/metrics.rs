//! What the broker counts. Every child is resolved once, never per request.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use tidelog_protocol::{ApiKey, api_versions::TABLE};
use tidelog_types::ErrorCode;

use crate::coordinator::metrics::CoordinatorMetrics;

/// Upper bounds of request durations, in seconds.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 10.0,
];

/// The broker's metrics.
#[derive(Debug)]
pub struct BrokerMetrics {
    apis: Vec<ApiMetrics>,
    /// Bytes of batches that producers sent and that were appended.
    pub produce_bytes: IntCounter,
    /// Records appended.
    pub produce_records: IntCounter,
    /// Batches that a producer had sent before and that were answered without an append.
    pub produce_duplicates: IntCounter,
    /// Batches that were stored in another codec than they were sent in.
    pub produce_recompressed: IntCounter,
    /// Bytes of batches sent to consumers.
    pub fetch_bytes: IntCounter,
    /// Partitions that fetches looked at, each time that one did.
    pub fetch_looks: IntCounter,
    /// Fetch sessions that are kept.
    pub fetch_sessions: IntGauge,
    /// Partitions that they hold together.
    pub fetch_session_partitions: IntGauge,
    /// Fetch sessions that gave way to others.
    pub fetch_session_evictions: IntCounter,
    /// Partitions that this broker leads.
    pub partitions: IntGauge,
    /// Topics that exist.
    pub topics: IntGauge,
    /// Whether this broker is the metadata leader.
    pub is_controller: IntGauge,
    /// Bytes of all logs that this broker leads.
    pub log_size: IntGauge,
    /// Bytes of the largest logs, by topic and partition.
    pub largest_logs: IntGaugeVec,
    /// Logs on disk of topics that the metadata does not know.
    pub stray_logs_removed: IntCounter,
    /// The group coordinator's.
    pub coordinator: Arc<CoordinatorMetrics>,
}

/// One API's metrics.
#[derive(Debug)]
pub struct ApiMetrics {
    requests: IntCounter,
    duration: Histogram,
    errors: Vec<OnceLock<IntCounter>>,
    errors_by_code: IntCounterVec,
}

impl BrokerMetrics {
    /// Creates all metrics and registers them.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn register(registry: &Registry) -> Result<BrokerMetrics, prometheus::Error> {
        let counter = |name, help| register(registry, IntCounter::new(name, help)?);
        let gauge = |name, help| register(registry, IntGauge::new(name, help)?);
        Ok(BrokerMetrics {
            apis: register_apis(registry)?,
            produce_bytes: counter(
                "tidelog_produce_bytes_total",
                "Bytes of record batches appended.",
            )?,
            produce_records: counter("tidelog_produce_records_total", "Records appended.")?,
            produce_duplicates: counter(
                "tidelog_produce_duplicate_batches_total",
                "Batches that were answered as before, because they had been appended already.",
            )?,
            produce_recompressed: counter(
                "tidelog_produce_recompressed_batches_total",
                "Batches stored in their topic's codec instead of their producer's.",
            )?,
            fetch_bytes: counter(
                "tidelog_fetch_bytes_total",
                "Bytes of record batches sent to consumers.",
            )?,
            fetch_looks: counter(
                "tidelog_fetch_partition_looks_total",
                "Looks of fetches at partitions. Without fetch sessions each request looks at all.",
            )?,
            fetch_sessions: gauge("tidelog_fetch_sessions", "Fetch sessions that are kept.")?,
            fetch_session_partitions: gauge(
                "tidelog_fetch_session_partitions",
                "Partitions that all fetch sessions hold together.",
            )?,
            fetch_session_evictions: counter(
                "tidelog_fetch_session_evictions_total",
                "Fetch sessions that gave way to others, whose clients have to begin again.",
            )?,
            partitions: gauge("tidelog_partitions", "Partitions that this broker leads.")?,
            topics: gauge("tidelog_topics", "Topics that exist.")?,
            is_controller: gauge(
                "tidelog_controller_active",
                "1 while this broker is the metadata leader.",
            )?,
            log_size: gauge(
                "tidelog_log_size_bytes",
                "Bytes of all logs led here, when old records were last searched for.",
            )?,
            largest_logs: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "tidelog_log_largest_bytes",
                        "Bytes of each of the 50 largest logs led here, when old records were last \
                         searched for.",
                    ),
                    &["topic", "partition"],
                )?,
            )?,
            stray_logs_removed: counter(
                "tidelog_stray_logs_removed_total",
                "Logs removed because their topic no longer exists.",
            )?,
            coordinator: Arc::new(CoordinatorMetrics::register(registry)?),
        })
    }

    /// One API's metrics.
    #[must_use]
    pub fn api(&self, key: ApiKey) -> &ApiMetrics {
        let row = TABLE.iter().position(|api| api.key == key).expect("every API has a row");
        &self.apis[row]
    }
}

impl ApiMetrics {
    /// Counts an answer that took so long.
    pub fn answered(&self, duration: Duration) {
        self.requests.inc();
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts an error in an answer; one answer may hold several.
    pub fn error(&self, code: ErrorCode) {
        if code == ErrorCode::None {
            return;
        }
        let place = ErrorCode::ALL.iter().position(|known| *known == code).expect("a known code");
        let counter = self.errors[place]
            .get_or_init(|| self.errors_by_code.with_label_values(&[code.name().as_str()]));
        counter.inc();
    }
}

fn register_apis(registry: &Registry) -> Result<Vec<ApiMetrics>, prometheus::Error> {
    let requests = Opts::new("tidelog_requests_total", "Requests answered.");
    let requests = register(registry, IntCounterVec::new(requests, &["api"])?)?;
    let seconds = HistogramOpts::new(
        "tidelog_request_duration_seconds",
        "Time from a request's arrival until its answer was known.",
    );
    let seconds = seconds.buckets(SECONDS.to_vec());
    let seconds = register(registry, HistogramVec::new(seconds, &["api"])?)?;
    let errors = Opts::new("tidelog_request_errors_total", "Errors in answers.");
    let mut apis = Vec::with_capacity(TABLE.len());
    for api in TABLE {
        // One vector an API, told apart by a constant label: its children are found by code alone.
        let errors = errors.clone().const_label("api", api.name);
        apis.push(ApiMetrics {
            requests: requests.with_label_values(&[api.name]),
            duration: seconds.with_label_values(&[api.name]),
            errors: ErrorCode::ALL.iter().map(|_| OnceLock::new()).collect(),
            errors_by_code: register(registry, IntCounterVec::new(errors, &["error"])?)?,
        });
    }
    Ok(apis)
}

fn register<M>(registry: &Registry, metric: M) -> Result<M, prometheus::Error>
where
    M: prometheus::core::Collector + Clone + 'static,
{
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_counted_under_its_api_and_kafkas_name() {
        let registry = Registry::new();
        let metrics = BrokerMetrics::register(&registry).expect("fresh names");
        metrics.api(ApiKey::Fetch).error(ErrorCode::NotLeaderOrFollower);
        metrics.api(ApiKey::Fetch).error(ErrorCode::None);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
        let line = "tidelog_request_errors_total{api=\"Fetch\",error=\"NOT_LEADER_OR_FOLLOWER\"} 1";
        let text = text.expect("text");
        assert!(text.contains(line), "{text}");
    }
}
