//! ApiVersions: what is served, from the table that the dispatcher's match is made of.

use bytes::Bytes;
use tidelog_net::service::{CloseReason, Handled, Reply};
use tidelog_protocol::{
    RequestError,
    api_versions::{self, Feature},
};
use tracing::error;

use crate::{broker::Broker, request_context::RequestContext};

pub(crate) fn handle(
    broker: &Broker,
    context: &RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let image = broker.image.load();
    let features: Vec<Feature<'_>> = image
        .features()
        .iter()
        .map(|(name, level)| Feature { name, min: level, max: level, finalized: Some(level) })
        .collect();
    let answer = api_versions::respond(&context.header, body, &features, image.features().epoch())?;
    Ok(match answer {
        Ok(outgoing) => Handled::Reply(Reply::Ready(context.finish(&broker.metrics, outgoing))),
        Err(refused) => {
            error!(%refused, "an answer of ours could not be encoded");
            Handled::Close(CloseReason::Internal)
        }
    })
}
