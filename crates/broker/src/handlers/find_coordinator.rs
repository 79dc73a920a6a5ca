//! FindCoordinator: where a group or a transaction is looked after. There are none yet.

use std::net::SocketAddr;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        BrokerId as WireBrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
        find_coordinator_response::Coordinator,
    },
    protocol::StrBytes,
};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{broker::Broker, request_context::RequestContext};

/// What a key names, as the wire says it.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;
/// First version whose answer is a list (KIP-699).
const BATCHED_FROM: i16 = 4;
/// First version that may ask for a share group.
const SHARE_FROM: i16 = 6;

pub(crate) fn handle(
    broker: &Broker,
    context: &RequestContext,
    peer: SocketAddr,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: FindCoordinatorRequest = request::decode(context.version(), body)?;
    context.check_items(request.coordinator_keys.len())?;
    let code = refusal(request.key_type, context.version());
    match request.key_type {
        GROUP | SHARE => broker.absent.groups_asked_for(peer),
        TRANSACTION => broker.absent.transactions_asked_for(peer),
        _ => {}
    }
    let message = Some(StrBytes::from_static_str(code.text()));
    let nobody = WireBrokerId(-1);
    let error_code = context.error(&broker.metrics, code);
    let response = if context.version() < BATCHED_FROM {
        FindCoordinatorResponse::default()
            .with_error_code(error_code)
            .with_error_message(message.filter(|_| context.version() >= 1))
            .with_node_id(nobody)
            .with_port(-1)
    } else {
        let refused = |key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(nobody)
                .with_port(-1)
                .with_error_code(error_code)
                .with_error_message(message.clone())
        };
        let coordinators = request.coordinator_keys.into_iter().map(refused).collect();
        FindCoordinatorResponse::default().with_coordinators(coordinators)
    };
    Ok(context.answer(&broker.metrics, &response))
}

/// Groups will come, so a client may ask again; a transaction it must give up.
fn refusal(key_type: i8, version: i16) -> ErrorCode {
    match key_type {
        GROUP => ErrorCode::CoordinatorNotAvailable,
        SHARE if version >= SHARE_FROM => ErrorCode::CoordinatorNotAvailable,
        _ => ErrorCode::InvalidRequest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_may_be_asked_for_again_and_transactions_may_not() {
        let (again, never) = (ErrorCode::CoordinatorNotAvailable, ErrorCode::InvalidRequest);
        for (key_type, version, expected) in [
            (0, 0, again),
            (0, 6, again),
            (1, 1, never),
            (2, 5, never),
            (2, 6, again),
            (9, 6, never),
        ] {
            assert_eq!(refusal(key_type, version), expected, "type {key_type} v{version}");
        }
    }
}
