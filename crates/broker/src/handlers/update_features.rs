//! UpdateFeatures: which levels the cluster's features have (KIP-584, KIP-778).

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        UpdateFeaturesRequest, UpdateFeaturesResponse, update_features_request::FeatureUpdateKey,
        update_features_response::UpdatableFeatureResult,
    },
    protocol::StrBytes,
};
use tidelog_metadata::{ControllerError, FeatureUpdate, UpgradeType};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::ErrorCode;

use crate::{
    broker::Broker,
    pending::{park, timeout},
    request_context::{RequestContext, message},
};

/// First version that says which way a level may go; before, only whether it may go down.
const UPGRADE_TYPE_FROM: i16 = 1;
/// First version whose answer is about all features together.
const ALL_TOGETHER_FROM: i16 = 2;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    context: RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: UpdateFeaturesRequest = request::decode(context.version(), body)?;
    context.check_items(request.feature_updates.len())?;
    let names: Vec<StrBytes> =
        request.feature_updates.iter().map(|update| update.feature.clone()).collect();
    let updates = request.feature_updates.iter().map(|update| wanted(context.version(), update));
    let updates = match updates.collect::<Result<Vec<_>, _>>() {
        Ok(updates) => updates,
        Err(error) => {
            let response = respond(broker, &context, names, Some(refusal(&error)));
            return Ok(context.answer(&broker.metrics, &response));
        }
    };
    let receiver = broker.controller.update_features(updates, request.validate_only);
    let broker = Arc::clone(broker);
    Ok(park(receiver, Some(timeout(request.timeout_ms)), move |updated| {
        let refused = match updated.settled() {
            Ok(updated) => updated.err().map(|error| refusal(&error)),
            Err(code) => Some((code, code.text().to_owned())),
        };
        let response = respond(&broker, &context, names, refused);
        context.encode(&broker.metrics, &response)
    }))
}

fn wanted(version: i16, update: &FeatureUpdateKey) -> Result<FeatureUpdate, ControllerError> {
    let (name, level) = (update.feature.to_string(), update.max_version_level);
    let upgrade_type = match (version, update.allow_downgrade) {
        (UPGRADE_TYPE_FROM.., _) => UpgradeType::from_number(update.upgrade_type),
        (_, true) => Some(UpgradeType::SafeDowngrade),
        (_, false) => Some(UpgradeType::Upgrade),
    };
    match upgrade_type {
        Some(upgrade_type) => Ok(FeatureUpdate { name, level, upgrade_type }),
        None => Err(ControllerError::InvalidUpdateVersion(format!(
            "Invalid update version {level} for feature {name}. The controller does not support \
             the given upgrade type."
        ))),
    }
}

/// One feature that cannot be updated keeps all from being updated.
fn refusal(error: &ControllerError) -> (ErrorCode, String) {
    let text = "The update failed for all features since the following feature had an error";
    (error.error_code(), format!("{text}: {error}"))
}

fn respond(
    broker: &Broker,
    context: &RequestContext,
    names: Vec<StrBytes>,
    refused: Option<(ErrorCode, String)>,
) -> UpdateFeaturesResponse {
    let response = UpdateFeaturesResponse::default();
    if let Some((code, text)) = refused {
        let error_code = context.error(&broker.metrics, code);
        return response.with_error_code(error_code).with_error_message(Some(message(text)));
    }
    let response = response.with_error_message(None);
    if context.version() >= ALL_TOGETHER_FROM {
        return response;
    }
    let updated =
        |name| UpdatableFeatureResult::default().with_feature(name).with_error_message(None);
    response.with_results(names.into_iter().map(updated).collect())
}
