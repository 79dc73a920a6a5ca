//! What a handler knows of the request it answers, and how it answers.

use std::{sync::Arc, time::Instant};

use kafka_protocol::protocol::{Encodable, StrBytes};
use tidelog_net::service::{CloseReason, Handled, Reply};
use tidelog_protocol::{Outgoing, RequestError, RequestHeader, response};
use tidelog_types::ErrorCode;
use tracing::error;

use crate::metrics::BrokerMetrics;

/// Topics, partitions or other things that one request decoded by the codec may be about.
const ITEMS_MAX: usize = 100_000;
/// Bytes of the longest text that explains an error.
const MESSAGE_BYTES_MAX: usize = 1024;

/// One request on its way to an answer.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    /// Which API, in which version, and the client's number for it.
    pub header: RequestHeader,
    /// The listener it came in by, which decides what addresses the client is told.
    pub listener: Arc<str>,
    started: Instant,
}

impl RequestContext {
    /// A request that was taken from its connection at `started`.
    pub fn new(header: RequestHeader, listener: Arc<str>, started: Instant) -> RequestContext {
        RequestContext { header, listener, started }
    }

    /// The request's version.
    pub fn version(&self) -> i16 {
        self.header.api_version
    }

    /// When its handling began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Refuses a request about more things than one request may be: each costs an answer, which
    /// is a hundred times as large as the few bytes that ask for it.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn check_items(&self, items: usize) -> Result<(), RequestError> {
        if items <= ITEMS_MAX {
            return Ok(());
        }
        let api = self.header.api_key.name();
        Err(RequestError::TooMany { api, items, items_max: ITEMS_MAX })
    }

    /// Encodes an answer that is known now.
    pub fn answer<R: Encodable>(&self, metrics: &BrokerMetrics, response: &R) -> Handled {
        match self.encode(metrics, response) {
            Ok(outgoing) => Handled::Reply(Reply::Ready(outgoing)),
            Err(reason) => Handled::Close(reason),
        }
    }

    /// Encodes an answer and counts it.
    pub fn encode<R: Encodable>(
        &self,
        metrics: &BrokerMetrics,
        response: &R,
    ) -> Result<Outgoing, CloseReason> {
        match response::encode(&self.header, response) {
            Ok(outgoing) => Ok(self.finish(metrics, outgoing)),
            Err(refused) => {
                error!(%refused, "an answer of ours could not be encoded");
                Err(CloseReason::Internal)
            }
        }
    }

    /// Counts an answer that is on its way.
    pub fn finish(&self, metrics: &BrokerMetrics, outgoing: Outgoing) -> Outgoing {
        let bytes = outgoing.remaining();
        metrics.api(self.header.api_key).answered(bytes, self.started.elapsed());
        outgoing
    }

    /// Counts an error of the answer, and gives its number on the wire.
    pub fn error(&self, metrics: &BrokerMetrics, code: ErrorCode) -> i16 {
        metrics.api(self.header.api_key).error(code);
        code.code()
    }
}

/// Why a request that gets no answer ends its connection.
pub(crate) fn close_reason(error: &RequestError) -> CloseReason {
    match error {
        RequestError::NotServed { .. } => CloseReason::Unsupported,
        RequestError::TooLarge { .. } => CloseReason::Oversized,
        RequestError::TooCostly { .. }
        | RequestError::TooMany { .. }
        | RequestError::Malformed(_) => CloseReason::Malformed,
    }
}

/// The words that explain an error, cut off where they get long: they may quote what the client
/// sent, and a string on the wire has an end.
pub(crate) fn message(mut text: String) -> StrBytes {
    text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
    StrBytes::from_string(text)
}
