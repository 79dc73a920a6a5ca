//! InitProducerId: an identity for an idempotent producer (KIP-98). Transactions are not served.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProducerId as WireProducerId,
};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::{ErrorCode, ProducerId};

use crate::{
    broker::Broker,
    pending::{Answer, park},
    request_context::RequestContext,
};

/// How long a new block of ids may take: clients ask again.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    peer: SocketAddr,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: InitProducerIdRequest = request::decode(context.version(), body)?;
    if request.transactional_id.is_some() {
        broker.absent.transactions_asked_for(peer);
    }
    if !is_lawful(&request) {
        let response = answer(broker, &context, Err(ErrorCode::InvalidRequest));
        return Ok(context.answer(&broker.metrics, &response));
    }
    let receiver = broker.controller.next_producer_id();
    let broker = Arc::clone(broker);
    Ok(park(receiver, Some(PATIENCE), move |given| {
        context.encode(&broker.metrics, &answer(&broker, &context, outcome(given)))
    }))
}

/// Whatever keeps an id from being given ends by itself. Of the codes that say so, only
/// COORDINATOR_LOAD_IN_PROGRESS has every client ask again: others end a Java producer, or have it
/// look for the coordinator of a transaction that it has none of.
fn outcome(given: Answer<Result<ProducerId, ErrorCode>>) -> Result<ProducerId, ErrorCode> {
    match given {
        Answer::Got(Ok(id)) => Ok(id),
        Answer::Got(Err(_)) | Answer::TimedOut | Answer::Lost => {
            Err(ErrorCode::CoordinatorLoadInProgress)
        }
    }
}

/// A producer gives both of its old id and epoch or neither, and has no transactional id.
fn is_lawful(request: &InitProducerIdRequest) -> bool {
    let (id, epoch) = (request.producer_id.0, request.producer_epoch);
    request.transactional_id.is_none() && ((id == -1 && epoch == -1) || (id >= 0 && epoch >= 0))
}

fn answer(
    broker: &Broker,
    context: &RequestContext,
    given: Result<ProducerId, ErrorCode>,
) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default();
    match given {
        Ok(id) => response.with_producer_id(WireProducerId(id.0)).with_producer_epoch(0),
        Err(code) => response
            .with_error_code(context.error(&broker.metrics, code))
            .with_producer_id(WireProducerId(ProducerId::NONE.0))
            .with_producer_epoch(-1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_that_gets_no_id_now_is_told_to_ask_again() {
        let not_controller = Answer::Got(Err(ErrorCode::NotController));
        for given in [not_controller, Answer::TimedOut, Answer::Lost] {
            assert_eq!(outcome(given), Err(ErrorCode::CoordinatorLoadInProgress));
        }
        assert_eq!(outcome(Answer::Got(Ok(ProducerId(7)))), Ok(ProducerId(7)));
    }
}
