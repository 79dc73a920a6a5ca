//! What sockets count, one set of children for each listener.

use prometheus::{
    Counter, CounterVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::{registry::Refusal, service::CloseReason};

/// All listeners' metrics.
#[derive(Debug, Clone)]
pub struct NetMetrics {
    connections: IntGaugeVec,
    accepted: IntCounterVec,
    refused: IntCounterVec,
    closed: IntCounterVec,
    accept_errors: IntCounterVec,
    accept_throttled: CounterVec,
    requests: IntCounterVec,
    received_bytes: IntCounterVec,
    sent_bytes: IntCounterVec,
    in_flight: IntGaugeVec,
    pub(crate) in_flight_bytes: IntGauge,
    pub(crate) in_flight_bytes_max: IntGauge,
    pub(crate) reply_bytes: IntGauge,
    pub(crate) reply_bytes_max: IntGauge,
    pub(crate) connections_max: IntGauge,
}

/// One listener's metrics, resolved once.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    pub connections: IntGauge,
    pub accepted: IntCounter,
    pub refused_total_limit: IntCounter,
    pub refused_listener_limit: IntCounter,
    pub refused_ip_limit: IntCounter,
    pub refused_open_files: IntCounter,
    pub accept_errors: IntCounter,
    /// Seconds.
    pub accept_throttled: Counter,
    pub requests: IntCounter,
    pub received_bytes: IntCounter,
    pub sent_bytes: IntCounter,
    pub in_flight: IntGauge,
    closed: Vec<(CloseReason, IntCounter)>,
}

impl NetMetrics {
    /// Creates all metrics and registers them.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn register(registry: &Registry) -> Result<NetMetrics, prometheus::Error> {
        let per = Registrar { registry };
        Ok(NetMetrics {
            connections: per.gauges("tidelog_connections", "Open connections.")?,
            accepted: per.counters("tidelog_connections_total", "Connections accepted.", &[])?,
            refused: per.counters(
                "tidelog_connections_refused_total",
                "Connections closed on arrival, by the limit that was reached.",
                &["reason"],
            )?,
            closed: per.counters(
                "tidelog_connections_closed_total",
                "Connections ended, by reason.",
                &["reason"],
            )?,
            accept_errors: per.counters(
                "tidelog_accept_errors_total",
                "Failures to accept a connection.",
                &[],
            )?,
            accept_throttled: per.seconds(
                "tidelog_accept_throttled_seconds_total",
                "Time in which no connection was accepted because they came too fast.",
            )?,
            requests: per.counters("tidelog_network_requests_total", "Requests received.", &[])?,
            received_bytes: per.counters(
                "tidelog_network_received_bytes_total",
                "Bytes received from clients.",
                &[],
            )?,
            sent_bytes: per.counters(
                "tidelog_network_sent_bytes_total",
                "Bytes sent to clients.",
                &[],
            )?,
            in_flight: per.gauges(
                "tidelog_inflight_requests",
                "Requests received whose replies were not sent yet.",
            )?,
            in_flight_bytes: per.gauge(
                "tidelog_inflight_request_bytes",
                "Bytes held by requests being received or answered.",
            )?,
            in_flight_bytes_max: per.gauge(
                "tidelog_inflight_request_bytes_limit",
                "Bound on the bytes of requests being received or answered.",
            )?,
            reply_bytes: per.gauge(
                "tidelog_inflight_response_bytes",
                "Bytes held by replies being read or waiting for their clients.",
            )?,
            reply_bytes_max: per.gauge(
                "tidelog_inflight_response_bytes_limit",
                "Bound on the bytes of replies being read or waiting for their clients.",
            )?,
            connections_max: per.gauge("tidelog_connections_limit", "Bound on connections.")?,
        })
    }

    pub(crate) fn listener(&self, name: &str) -> ListenerMetrics {
        let refused = |reason| self.refused.with_label_values(&[name, reason]);
        let closed =
            |reason: CloseReason| (reason, self.closed.with_label_values(&[name, reason.name()]));
        ListenerMetrics {
            connections: self.connections.with_label_values(&[name]),
            accepted: self.accepted.with_label_values(&[name]),
            refused_total_limit: refused("max_connections"),
            refused_listener_limit: refused("listener_max_connections"),
            refused_ip_limit: refused("max_connections_per_ip"),
            refused_open_files: refused("open_files"),
            accept_errors: self.accept_errors.with_label_values(&[name]),
            accept_throttled: self.accept_throttled.with_label_values(&[name]),
            requests: self.requests.with_label_values(&[name]),
            received_bytes: self.received_bytes.with_label_values(&[name]),
            sent_bytes: self.sent_bytes.with_label_values(&[name]),
            in_flight: self.in_flight.with_label_values(&[name]),
            closed: CloseReason::ALL.into_iter().map(closed).collect(),
        }
    }
}

impl ListenerMetrics {
    pub(crate) fn refused(&self, refusal: Refusal) {
        match refusal {
            Refusal::Total => self.refused_total_limit.inc(),
            Refusal::Listener => self.refused_listener_limit.inc(),
            Refusal::PerIp => self.refused_ip_limit.inc(),
        }
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        let counter = self.closed.iter().find(|(known, _)| *known == reason);
        counter.expect("every reason has a counter").1.inc();
    }
}

struct Registrar<'a> {
    registry: &'a Registry,
}

impl Registrar<'_> {
    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let metric = IntGauge::new(name, help)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauges(&self, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
        let metric = IntGaugeVec::new(Opts::new(name, help), &["listener"])?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn seconds(&self, name: &str, help: &str) -> Result<CounterVec, prometheus::Error> {
        let metric = CounterVec::new(Opts::new(name, help), &["listener"])?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let labels = [&["listener"], labels].concat();
        let metric = IntCounterVec::new(Opts::new(name, help), &labels)?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}
