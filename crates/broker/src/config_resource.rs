//! Resources that have settings, as requests name them.

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::protocol::{Encodable, StrBytes};
use tidelog_metadata::{AlterConfigs, Alteration, ControllerError, record::ConfigResource};
use tidelog_net::service::Handled;
use tidelog_types::{BrokerId, ErrorCode};

use crate::{
    broker::Broker,
    pending::{PATIENCE, park},
    request_context::{RequestContext, message},
};

/// A topic's settings.
pub(crate) const TOPIC: i8 = 2;
/// A broker's settings; with no name, what holds for every broker.
pub(crate) const BROKER: i8 = 4;
/// How much a broker logs. Refused until the level can be changed while it runs.
pub(crate) const BROKER_LOGGER: i8 = 8;
/// Which metrics clients are asked for (KIP-714).
pub(crate) const CLIENT_METRICS: i8 = 16;
/// A group's settings (KIP-848).
pub(crate) const GROUP: i8 = 32;

/// Why a request about a resource is refused: the code, and in which words.
pub(crate) type Refusal = (ErrorCode, String);

/// A resource as a request names it, and what the request wants of it.
pub(crate) struct Named<T> {
    pub kind: i8,
    pub name: StrBytes,
    pub wanted: Result<T, Refusal>,
}

/// The resource of this type and name, if this broker is to be asked about it.
pub(crate) fn resource(me: BrokerId, kind: i8, name: &str) -> Result<ConfigResource, Refusal> {
    let refuse = |text: String| Err((ErrorCode::InvalidRequest, text));
    match kind {
        TOPIC => Ok(ConfigResource::Topic(name.to_owned())),
        BROKER if name.is_empty() => Ok(ConfigResource::Broker(None)),
        // One spelling: two resources of one request must not turn out to be the same.
        BROKER if name == me.to_string() => Ok(ConfigResource::Broker(Some(me))),
        BROKER => match name.parse::<i32>() {
            Ok(_) => refuse(format!("Unexpected broker id, expected {me}, but received {name}")),
            Err(_) => refuse(format!("Node id must be an integer, but it is: {name}")),
        },
        BROKER_LOGGER => refuse("log levels are not told or changed by request yet".to_owned()),
        CLIENT_METRICS => refuse("there are no client metrics yet".to_owned()),
        GROUP => refuse("there are no groups yet".to_owned()),
        other => refuse(format!("Unknown resource type {other}")),
    }
}

/// What becomes of one resource that a request wants altered.
pub(crate) struct Told {
    pub kind: i8,
    pub name: StrBytes,
    pub error_code: i16,
    pub error_message: Option<StrBytes>,
}

/// Has the controller alter what can be altered, and answers for each resource in the order of the
/// request.
pub(crate) fn alter<R: Encodable + 'static>(
    broker: &Arc<Broker>,
    context: RequestContext,
    asked: Vec<Named<Alteration>>,
    validate_only: bool,
    respond: fn(Vec<Told>) -> R,
) -> Handled {
    let (alterations, mut outcomes) = split(broker.identity.node_id, asked);
    let receiver = broker.controller.alter_configs(alterations, validate_only);
    let broker = Arc::clone(broker);
    park(receiver, Some(PATIENCE), move |altered| {
        settle(&mut outcomes, altered.settled());
        let tell = |outcome: Named<()>| {
            let refused = outcome.wanted.err();
            let code = refused.as_ref().map_or(ErrorCode::None, |(code, _)| *code);
            Told {
                kind: outcome.kind,
                name: outcome.name,
                error_code: context.error(&broker.metrics, code),
                error_message: refused.map(|(_, text)| message(text)),
            }
        };
        let response = respond(outcomes.into_iter().map(tell).collect());
        context.encode(&broker.metrics, &response)
    })
}

/// What the controller is asked, and what is known without it: why the others are refused.
fn split(me: BrokerId, asked: Vec<Named<Alteration>>) -> (Vec<AlterConfigs>, Vec<Named<()>>) {
    let mut times: BTreeMap<(i8, StrBytes), usize> = BTreeMap::new();
    asked.iter().for_each(|named| *times.entry((named.kind, named.name.clone())).or_insert(0) += 1);
    let mut alterations = Vec::new();
    let outcome = |Named { kind, name, wanted }: Named<Alteration>| {
        let is_named_once = times.get(&(kind, name.clone())) == Some(&1);
        let checked = match is_named_once {
            true => wanted.and_then(|wanted| Ok((resource(me, kind, &name)?, wanted))),
            false => {
                let text = "Each resource must appear at most once.".to_owned();
                Err((ErrorCode::InvalidRequest, text))
            }
        };
        let wanted = checked.map(|(resource, alteration)| {
            alterations.push(AlterConfigs { resource, alteration });
        });
        Named { kind, name, wanted }
    };
    let outcomes = asked.into_iter().map(outcome).collect();
    (alterations, outcomes)
}

/// Adds what the controller said of those that it was asked about, in their order.
fn settle(
    outcomes: &mut [Named<()>],
    altered: Result<Vec<Result<(), ControllerError>>, ErrorCode>,
) {
    let asked = outcomes.iter_mut().filter(|outcome| outcome.wanted.is_ok());
    match altered {
        Ok(altered) => {
            for (outcome, altered) in asked.zip(altered) {
                outcome.wanted = altered.map_err(|error| (error.error_code(), error.to_string()));
            }
        }
        Err(code) => {
            asked.for_each(|outcome| outcome.wanted = Err((code, code.text().to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_topics_and_this_broker_have_settings_here() {
        let topic = ConfigResource::Topic("t".to_owned());
        for (kind, name, expected) in [
            (TOPIC, "t", Some(topic)),
            (BROKER, "", Some(ConfigResource::Broker(None))),
            (BROKER, "1", Some(ConfigResource::Broker(Some(BrokerId(1))))),
            (BROKER, "2", None),
            (BROKER, "01", None),
            (BROKER, "+1", None),
            (BROKER, "one", None),
            (BROKER_LOGGER, "1", None),
            (CLIENT_METRICS, "m", None),
            (GROUP, "g", None),
            (0, "", None),
            (-1, "t", None),
        ] {
            assert_eq!(resource(BrokerId(1), kind, name).ok(), expected, "{kind} {name:?}");
        }
    }
}
