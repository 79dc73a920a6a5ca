//! What the broker counts. Every child is resolved once, never per request.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use tidelog_net::service::Phase;
use tidelog_protocol::{ApiKey, api_versions::TABLE};
use tidelog_types::ErrorCode;
use tidelog_wal::metrics_table;

use crate::coordinator::metrics::CoordinatorMetrics;

/// Upper bounds of request durations, in seconds.
const SECONDS: &[f64] = &[
    0.000_01, 0.000_03, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The broker's metrics.
#[derive(Debug)]
pub struct BrokerMetrics {
    apis: Vec<ApiMetrics>,
    /// What producers send.
    pub produce: ProduceMetrics,
    /// What consumers fetch.
    pub fetch: FetchMetrics,
    /// What this broker hosts.
    pub logs: LogMetrics,
    /// Whether this broker is the metadata leader.
    pub is_controller: IntGauge,
    /// The group coordinator's.
    pub coordinator: Arc<CoordinatorMetrics>,
}

metrics_table! {
    /// What producers send.
    pub struct ProduceMetrics {
        /// Bytes of record batches appended.
        pub bytes: IntCounter = counter("tidelog_produce_bytes_total");
        /// Records appended.
        pub records: IntCounter = counter("tidelog_produce_records_total");
        /// Batches that were answered as before, because they had been appended already.
        pub duplicates: IntCounter = counter("tidelog_produce_duplicate_batches_total");
        /// Batches stored in their topic's codec instead of their producer's.
        pub recompressed: IntCounter = counter("tidelog_produce_recompressed_batches_total");
    }
}

metrics_table! {
    /// What consumers fetch.
    pub struct FetchMetrics {
        /// Bytes of record batches sent to consumers.
        pub bytes: IntCounter = counter("tidelog_fetch_bytes_total");
        /// Looks of fetches at partitions. Without fetch sessions each request looks at all.
        pub looks: IntCounter = counter("tidelog_fetch_partition_looks_total");
        /// Fetch sessions that are kept.
        pub sessions: IntGauge = gauge("tidelog_fetch_sessions");
        /// Partitions that all fetch sessions hold together.
        pub session_partitions: IntGauge = gauge("tidelog_fetch_session_partitions");
        /// Fetch sessions that gave way to others, whose clients have to begin again.
        pub session_evictions: IntCounter = counter("tidelog_fetch_session_evictions_total");
    }
}

metrics_table! {
    /// Topics, partitions and their logs.
    pub struct LogMetrics {
        /// Partitions that this broker leads.
        pub partitions: IntGauge = gauge("tidelog_partitions");
        /// Topics that exist.
        pub topics: IntGauge = gauge("tidelog_topics");
        /// Bytes of all logs led here, when old records were last searched for.
        pub size: IntGauge = gauge("tidelog_log_size_bytes");
        /// Bytes of each of the 50 largest logs led here, when old records were last searched for.
        pub largest: IntGaugeVec =
            gauges("tidelog_log_largest_bytes", &["topic", "partition"]);
        /// Logs removed because their topic no longer exists.
        pub strays_removed: IntCounter = counter("tidelog_stray_logs_removed_total");
    }
}

/// One API's metrics.
#[derive(Debug)]
pub struct ApiMetrics {
    name: &'static str,
    requests: IntCounter,
    request_bytes: IntCounter,
    response_bytes: IntCounter,
    duration: Histogram,
    /// A histogram for each phase, once there is something to count.
    phases: OnceLock<[Histogram; Phase::ALL.len()]>,
    all_phases: HistogramVec,
    errors: Vec<OnceLock<IntCounter>>,
    errors_by_code: IntCounterVec,
}

impl BrokerMetrics {
    /// Creates all metrics and registers them.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn register(registry: &Registry) -> Result<BrokerMetrics, prometheus::Error> {
        let help = "1 while this broker is the metadata leader.";
        Ok(BrokerMetrics {
            apis: register_apis(registry)?,
            produce: ProduceMetrics::register(registry)?,
            fetch: FetchMetrics::register(registry)?,
            logs: LogMetrics::register(registry)?,
            is_controller: gauge(registry, "tidelog_controller_active", help)?,
            coordinator: Arc::new(CoordinatorMetrics::register(registry)?),
        })
    }

    /// One API's metrics.
    #[must_use]
    pub fn api(&self, key: ApiKey) -> &ApiMetrics {
        &self.apis[key.row()]
    }
}

impl ApiMetrics {
    /// Counts a request of so many bytes.
    pub fn received(&self, bytes: usize) {
        self.request_bytes.inc_by(bytes as u64);
    }

    /// Counts an answer of so many bytes that took so long.
    pub fn answered(&self, bytes: usize, duration: Duration) {
        self.requests.inc();
        self.response_bytes.inc_by(bytes as u64);
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts the time that a request spent in one of its phases.
    pub fn spent(&self, phase: Phase, time: Duration) {
        let of = |phase: Phase| self.all_phases.with_label_values(&[self.name, phase.name()]);
        let phases = self.phases.get_or_init(|| Phase::ALL.map(of));
        phases[phase as usize].observe(time.as_secs_f64());
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
    let all = AllApis::register(registry)?;
    let errors = Opts::new("tidelog_request_errors_total", "Errors in answers.");
    let mut apis = Vec::with_capacity(TABLE.len());
    for api in TABLE {
        // One vector an API, told apart by a constant label: its children are found by code alone.
        let errors = errors.clone().const_label("api", api.name);
        apis.push(ApiMetrics {
            name: api.name,
            requests: all.requests.with_label_values(&[api.name]),
            request_bytes: all.request_bytes.with_label_values(&[api.name]),
            response_bytes: all.response_bytes.with_label_values(&[api.name]),
            duration: all.duration.with_label_values(&[api.name]),
            phases: OnceLock::new(),
            all_phases: all.phases.clone(),
            errors: ErrorCode::ALL.iter().map(|_| OnceLock::new()).collect(),
            errors_by_code: keep(registry, IntCounterVec::new(errors, &["error"])?)?,
        });
    }
    Ok(apis)
}

metrics_table! {
    /// What is told apart by API.
    struct AllApis {
        /// Requests answered.
        requests: IntCounterVec = counters("tidelog_requests_total", &["api"]);
        /// Bytes of requests, without the length in front of them.
        request_bytes: IntCounterVec = counters("tidelog_request_bytes_total", &["api"]);
        /// Bytes of answers, with the length in front of them.
        response_bytes: IntCounterVec = counters("tidelog_response_bytes_total", &["api"]);
        /// Time from when a request's turn had come until its answer was known.
        duration: HistogramVec = durations("tidelog_request_duration_seconds", &["api"]);
        /// Time that requests spent in line, being handled, waiting, and being answered.
        phases: HistogramVec =
            durations("tidelog_request_phase_duration_seconds", &["api", "phase"]);
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    keep(registry, IntCounter::new(name, help)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    keep(registry, IntGauge::new(name, help)?)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    keep(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    keep(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn durations(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    let opts = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
    keep(registry, HistogramVec::new(opts, labels)?)
}

fn keep<M>(registry: &Registry, metric: M) -> Result<M, prometheus::Error>
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
