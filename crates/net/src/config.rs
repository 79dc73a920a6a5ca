//! What listeners allow their connections, as settings with Kafka's names.

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use tidelog_types::{
    property::{Kind, PropertyValue},
    settings,
};

/// What `queued.max.request.bytes = -1` stands for.
const QUEUED_BYTES_DEFAULT: u64 = 256 << 20;
/// What `queued.max.response.bytes = -1` stands for, and the least that is of use.
const REPLY_BYTES_DEFAULT: u64 = 256 << 20;
const REPLY_BYTES_LEAST: u64 = 4 << 20;

settings! {
    /// Limits of all listeners of one process.
    pub struct NetConfig {
        /// Bytes of the largest request; a longer one closes its connection.
        request_bytes_max: u32 = "socket.request.max.bytes",
            Kind::Int { min: 1024, max: 2_147_483_647 }, "104857600";
        /// Bytes of requests being received or answered, over all connections; one of them may go
        /// beyond it. -1 means 268435456.
        queued_bytes_max: i64 = "queued.max.request.bytes",
            Kind::Long { min: -1, max: i64::MAX }, "-1";
        /// Bytes of replies being read or waiting for their clients, over all connections, at least
        /// 4194304; -1 means 268435456.
        reply_bytes_max: i64 = "queued.max.response.bytes",
            Kind::Long { min: -1, max: i64::MAX }, "-1";
        /// Requests of one connection that may wait for their replies.
        requests_in_flight_max: u32 = "queued.max.requests",
            Kind::Int { min: 1, max: 1_000_000 }, "500";
        /// Connections of the whole process; -1 means nine tenths of the open files allowed.
        connections_max: i32 = "max.connections",
            Kind::Int { min: -1, max: 2_147_483_647 }, "-1";
        /// Connections from one address.
        connections_per_ip_max: u32 = "max.connections.per.ip",
            Kind::Int { min: 0, max: 2_147_483_647 }, "2147483647";
        /// Connections from these addresses, instead of max.connections.per.ip.
        connections_per_ip_overrides: PerIpOverrides = "max.connections.per.ip.overrides",
            Kind::Form("addresses and numbers, such as 127.0.0.1:200,::1:50"), "";
        /// Connections of the whole process that are accepted in a second; more wait.
        creation_rate_max: u32 = "max.connection.creation.rate",
            Kind::Int { min: 1, max: 2_147_483_647 }, "2147483647";
        /// Connections of the listener PLAINTEXT.
        plaintext_connections_max: u32 = "listener.name.plaintext.max.connections",
            Kind::Int { min: 0, max: 2_147_483_647 }, "2147483647";
        /// Connections of the listener PLAINTEXT that are accepted in a second; more wait.
        plaintext_creation_rate_max: u32 = "listener.name.plaintext.max.connection.creation.rate",
            Kind::Int { min: 1, max: 2_147_483_647 }, "2147483647";
        /// Milliseconds after which a connection without traffic is closed; -1 means never.
        idle_ms: i64 = "connections.max.idle.ms", Kind::Long { min: -1, max: i64::MAX }, "600000";
        /// Milliseconds within which a new connection must send one whole request; -1 means never.
        first_request_ms: i64 = "connection.first.request.timeout.ms",
            Kind::Long { min: -1, max: i64::MAX }, "30000";
        /// Milliseconds that a request may take to arrive, and a second more for each 65536 bytes
        /// of it; -1 means any.
        request_ms: i64 = "connection.request.timeout.ms",
            Kind::Long { min: -1, max: i64::MAX }, "30000";
        /// Milliseconds in which a half-sent request must grow by 16384 bytes, or else is given up
        /// for others once queued.max.request.bytes is spent, and in which so much of a reply must
        /// be taken once queued.max.response.bytes is.
        request_stall_ms: u32 = "connection.request.stall.timeout.ms",
            Kind::Int { min: 0, max: 2_147_483_647 }, "1000";
        /// Milliseconds that a client may take to accept 16384 bytes more of its replies; -1 means
        /// any.
        write_stall_ms: i64 = "connection.write.stall.timeout.ms",
            Kind::Long { min: -1, max: i64::MAX }, "30000";
        /// Bytes of replies that may wait for one client before its requests are not read.
        output_bytes_max: u32 = "connection.output.max.bytes",
            Kind::Int { min: 1, max: 2_147_483_647 }, "1048576";
        /// Milliseconds that replies in flight get when the process stops.
        drain_ms: i64 = "connection.drain.timeout.ms",
            Kind::Long { min: 0, max: i64::MAX }, "5000";
        /// Connections that the kernel holds until they are accepted.
        backlog: i32 = "socket.listen.backlog.size", Kind::Int { min: 1, max: 65_535 }, "1024";
        /// Bytes of a socket's send buffer; -1 leaves it to the kernel, which adapts it.
        send_buffer_bytes: i32 = "socket.send.buffer.bytes",
            Kind::Int { min: -1, max: 2_147_483_647 }, "-1";
        /// Bytes of a socket's receive buffer; -1 leaves it to the kernel, which adapts it.
        receive_buffer_bytes: i32 = "socket.receive.buffer.bytes",
            Kind::Int { min: -1, max: 2_147_483_647 }, "-1";
    }
}

/// What one listener allows its own connections, apart from what all share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenerBounds {
    pub connections_max: usize,
    /// Connections accepted in a second.
    pub creation_rate_max: u32,
}

impl NetConfig {
    /// What the listener of this name allows.
    pub(crate) fn listener_bounds(&self, name: &str) -> ListenerBounds {
        let (connections, creation_rate_max) = match name {
            "PLAINTEXT" => (self.plaintext_connections_max, self.plaintext_creation_rate_max),
            _ => (u32::MAX, u32::MAX),
        };
        let connections_max = usize::try_from(connections).unwrap_or(usize::MAX);
        ListenerBounds { connections_max, creation_rate_max }
    }

    /// The bound on connections from one address.
    pub(crate) fn connections_from(&self, ip: IpAddr) -> usize {
        let PerIpOverrides(overrides) = &self.connections_per_ip_overrides;
        let bound = overrides.get(&ip).copied().unwrap_or(self.connections_per_ip_max);
        usize::try_from(bound).unwrap_or(usize::MAX)
    }

    /// The bound on request bytes.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        let bound = u64::try_from(self.queued_bytes_max).unwrap_or(QUEUED_BYTES_DEFAULT);
        bound.max(1) // so that a request can begin
    }

    /// The bound on reply bytes.
    #[must_use]
    pub fn reply_bytes(&self) -> u64 {
        let bound = u64::try_from(self.reply_bytes_max).unwrap_or(REPLY_BYTES_DEFAULT);
        bound.max(REPLY_BYTES_LEAST)
    }

    /// The bound on connections, given how many files this process may open.
    #[must_use]
    pub fn connections(&self, open_files_max: u64) -> usize {
        let derived = open_files_max - open_files_max / 10;
        let bound = u64::try_from(self.connections_max).unwrap_or(derived);
        usize::try_from(bound).unwrap_or(usize::MAX)
    }
}

/// Bounds for single addresses. Names of hosts are refused, which Kafka resolves when it starts:
/// what a name means may change, and whom a bound is for should not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PerIpOverrides(BTreeMap<IpAddr, u32>);

impl PropertyValue for PerIpOverrides {
    fn read(text: &str) -> Option<PerIpOverrides> {
        let one = |text: &str| {
            let (ip, bound) = text.rsplit_once(':')?;
            let bound = bound.trim().parse::<u32>().ok()?;
            Some((ip.trim().parse::<IpAddr>().ok()?.to_canonical(), bound))
        };
        if text.trim().is_empty() {
            return Some(PerIpOverrides::default());
        }
        text.split(',').map(one).collect::<Option<_>>().map(PerIpOverrides)
    }
}

impl fmt::Display for PerIpOverrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (ip, bound)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{ip}:{bound}")?;
        }
        Ok(())
    }
}

/// Milliseconds as a duration, `None` where they are negative: no deadline.
#[must_use]
pub fn milliseconds(value: i64) -> Option<Duration> {
    u64::try_from(value).ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_stands_for_a_finite_bound() {
        let mut config = NetConfig::default();
        assert_eq!((config.queued_bytes(), config.connections(1000)), (256 << 20, 900));
        config.queued_bytes_max = 10;
        config.connections_max = 7;
        assert_eq!((config.queued_bytes(), config.connections(1000)), (10, 7));
        assert_eq!(milliseconds(-1), None);
    }

    #[test]
    fn overrides_are_addresses_and_bounds_or_refused() {
        const KEY: &str = "max.connections.per.ip.overrides";
        let mut config = NetConfig { connections_per_ip_max: 5, ..NetConfig::default() };
        assert_eq!(config.set(KEY, "127.0.0.1:200, ::ffff:10.0.0.1:7,::1:50"), Ok(()));
        let ips = ["127.0.0.1", "10.0.0.1", "::1", "10.0.0.2"];
        let bounds = ips.map(|ip| config.connections_from(ip.parse().expect("an address")));
        assert_eq!(bounds, [200, 7, 50, 5]);
        assert_eq!(config.get(KEY).as_deref(), Some("10.0.0.1:7,127.0.0.1:200,::1:50"));
        for text in ["localhost:5", "127.0.0.1", "127.0.0.1:-1", "127.0.0.1:5,", ":5"] {
            let refused = config.set(KEY, text).expect_err(text).to_string();
            let expected = "addresses and numbers, such as 127.0.0.1:200,::1:50";
            assert_eq!(refused, format!("{KEY} = {text:?}: expected {expected}"));
        }
    }

    #[test]
    fn a_listeners_own_bounds_are_its_own() {
        let config = NetConfig { plaintext_connections_max: 3, ..NetConfig::default() };
        let bounds = ["PLAINTEXT", "OTHER"].map(|name| config.listener_bounds(name));
        assert_eq!(bounds.map(|bounds| bounds.connections_max), [3, u32::MAX as usize]);
    }
}
