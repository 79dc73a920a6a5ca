//! FindCoordinator: where a group is looked after. There are no transactions yet.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        BrokerId as WireBrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
        find_coordinator_response::Coordinator,
    },
    protocol::StrBytes,
};
use tidelog_coordinator::partition_for;
use tidelog_metadata::MetadataImage;
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::Broker,
    coordinator::offsets_topic::{self, OFFSETS_TOPIC},
    partition_state::PartitionState,
    pending::park,
    request_context::RequestContext,
};

/// What a key names, as the wire says it.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;
/// First version whose answer is a list (KIP-699).
const BATCHED_FROM: i16 = 4;
/// First version that may ask for a share group.
const SHARE_FROM: i16 = 6;
/// How long the offsets topic may take to be created before the client is told to ask again.
const PATIENCE: Duration = Duration::from_secs(10);

/// A broker, as a client on one listener reaches it.
struct Place {
    node_id: i32,
    host: String,
    port: u16,
}

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    peer: SocketAddr,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let mut request: FindCoordinatorRequest = request::decode(context.version(), body)?;
    context.check_items(request.coordinator_keys.len())?;
    if context.version() < BATCHED_FROM {
        request.coordinator_keys = vec![request.key.clone()];
    }
    if request.key_type == TRANSACTION {
        broker.absent.transactions_asked_for(peer);
    }
    if request.key_type != GROUP || offsets_topic::exists(&broker.image.load()) {
        return Ok(context.answer(&broker.metrics, &respond(broker, &context, &request)));
    }
    let created = offsets_topic::create(broker);
    let broker = Arc::clone(broker);
    Ok(park(created, Some(PATIENCE), move |_| {
        // Whatever became of that, the image says where the group is, or that it is nowhere yet.
        context.encode(&broker.metrics, &respond(&broker, &context, &request))
    }))
}

fn respond(
    broker: &Broker,
    context: &RequestContext,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let image = broker.image.load();
    let found = request.coordinator_keys.iter().map(|key| match request.key_type {
        GROUP => find(&image, &context.listener, key),
        other => Err(refusal(other, context.version())),
    });
    let coordinators = found.zip(&request.coordinator_keys).map(|(found, key)| {
        let code = found.as_ref().err().copied().unwrap_or(ErrorCode::None);
        let error_code = context.error(&broker.metrics, code);
        coordinator(found).with_key(key.clone()).with_error_code(error_code)
    });
    let mut coordinators: Vec<Coordinator> = coordinators.collect();
    if context.version() >= BATCHED_FROM {
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let alone = coordinators.pop().expect("one key was asked for");
    FindCoordinatorResponse::default()
        .with_error_code(alone.error_code)
        .with_error_message(alone.error_message.filter(|_| context.version() >= 1))
        .with_node_id(alone.node_id)
        .with_host(alone.host)
        .with_port(alone.port)
}

/// The broker that leads the group's partition of the offsets topic.
fn find(image: &MetadataImage, listener: &str, group_id: &str) -> Result<Place, ErrorCode> {
    let topic = image.topics().get(OFFSETS_TOPIC).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let partition = topic.partition(partition_for(group_id, topic.partition_count()));
    let registration = partition.expect("partitions are numbered without gaps");
    let leader = PartitionState::of(image, registration, listener).leader;
    let leader = registration.leader.filter(|id| id.0 == leader.0);
    let registered = leader.and_then(|id| image.cluster().broker(id));
    let endpoint = registered.and_then(|broker| broker.endpoint(listener));
    match (leader, endpoint) {
        (Some(leader), Some(endpoint)) => {
            Ok(Place { node_id: leader.0, host: endpoint.host.clone(), port: endpoint.port })
        }
        _ => Err(ErrorCode::CoordinatorNotAvailable),
    }
}

fn coordinator(found: Result<Place, ErrorCode>) -> Coordinator {
    let answer = Coordinator::default();
    match found {
        Ok(Place { node_id, host, port }) => answer
            .with_node_id(WireBrokerId(node_id))
            .with_host(StrBytes::from_string(host))
            .with_port(i32::from(port))
            .with_error_message(None),
        Err(code) => answer
            .with_node_id(WireBrokerId(-1))
            .with_port(-1)
            .with_error_message(Some(StrBytes::from_static_str(code.text()))),
    }
}

/// Share groups will come, so a client may ask again; a transaction it must give up.
fn refusal(key_type: i8, version: i16) -> ErrorCode {
    match key_type {
        SHARE if version >= SHARE_FROM => ErrorCode::CoordinatorNotAvailable,
        _ => ErrorCode::InvalidRequest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_groups_may_be_asked_for_again_and_transactions_may_not() {
        let (again, never) = (ErrorCode::CoordinatorNotAvailable, ErrorCode::InvalidRequest);
        for (key_type, version, expected) in
            [(1, 1, never), (2, 5, never), (2, 6, again), (9, 6, never)]
        {
            assert_eq!(refusal(key_type, version), expected, "type {key_type} v{version}");
        }
    }
}
