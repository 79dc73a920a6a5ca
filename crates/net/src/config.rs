//! What listeners allow their connections, as settings with Kafka's names.

use std::time::Duration;

use tidelog_types::{property::Kind, settings};

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
        connections_per_ip_max: i32 = "max.connections.per.ip",
            Kind::Int { min: 0, max: 2_147_483_647 }, "2147483647";
        /// Milliseconds after which a connection without traffic is closed; -1 means never.
        idle_ms: i64 = "connections.max.idle.ms", Kind::Long { min: -1, max: i64::MAX }, "600000";
        /// Milliseconds within which a new connection must send one whole request; -1 means never.
        first_request_ms: i64 = "connection.first.request.timeout.ms",
            Kind::Long { min: -1, max: i64::MAX }, "30000";
        /// Milliseconds without a byte after which a half-sent request is given up for others, once
        /// queued.max.request.bytes is spent, or a reply not taken, once
        /// queued.max.response.bytes is.
        request_stall_ms: u32 = "connection.request.stall.timeout.ms",
            Kind::Int { min: 0, max: 2_147_483_647 }, "1000";
        /// Milliseconds that a client may take to accept the next byte of a reply; -1 means any.
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

impl NetConfig {
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
}
