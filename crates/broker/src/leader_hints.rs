//! Tells producers and consumers who leads instead, so that they need not ask (KIP-951).

use std::collections::BTreeSet;

use tidelog_metadata::{MetadataImage, image::TopicImage};
use tidelog_protocol::{
    TopicRef,
    fetch::FetchResponse,
    leader_hint::{CurrentLeader, NodeEndpoint},
    produce::ProduceResponse,
};
use tidelog_types::{BrokerId, ErrorCode};

use crate::{broker::Broker, request_context::RequestContext};

/// First versions with hints.
const PRODUCE_FROM: i16 = 10;
const FETCH_FROM: i16 = 16;

/// Adds the leaders of partitions that a producer asked the wrong broker for.
pub(crate) fn hint_produce(
    broker: &Broker,
    context: &RequestContext,
    response: &mut ProduceResponse,
) {
    if context.version() < PRODUCE_FROM {
        return;
    }
    let mut hints = Hints::default();
    for topic in &mut response.topics {
        for partition in &mut topic.partitions {
            if is_misdirected(partition.error_code) {
                partition.current_leader = hints.leader(broker, &topic.topic, partition.index);
            }
        }
    }
    response.node_endpoints = hints.endpoints(broker, context);
}

/// Adds the leaders of partitions that a consumer asked the wrong broker for.
pub(crate) fn hint_fetch(broker: &Broker, context: &RequestContext, response: &mut FetchResponse) {
    if context.version() < FETCH_FROM {
        return;
    }
    let mut hints = Hints::default();
    for topic in &mut response.topics {
        for partition in &mut topic.partitions {
            if is_misdirected(partition.error_code) {
                partition.current_leader = hints.leader(broker, &topic.topic, partition.partition);
            }
        }
    }
    response.node_endpoints = hints.endpoints(broker, context);
}

/// Leaders that a response has named.
#[derive(Default)]
struct Hints {
    leaders: BTreeSet<BrokerId>,
}

impl Hints {
    fn leader(&mut self, broker: &Broker, topic: &TopicRef, index: i32) -> Option<CurrentLeader> {
        let image = broker.image.load();
        let registration = topic_of(&image, topic)?.partition(index)?;
        let leader_id = registration.leader?;
        self.leaders.insert(leader_id);
        Some(CurrentLeader { leader_id, leader_epoch: registration.leader_epoch })
    }

    fn endpoints(self, broker: &Broker, context: &RequestContext) -> Vec<NodeEndpoint> {
        if self.leaders.is_empty() {
            return Vec::new();
        }
        let image = broker.image.load();
        let endpoint = |node_id: BrokerId| {
            let registered = image.cluster().broker(node_id)?;
            let endpoint = registered.endpoint(&context.listener)?;
            let (host, port) = (endpoint.host.clone(), i32::from(endpoint.port));
            Some(NodeEndpoint { node_id, host, port, rack: registered.rack.clone() })
        };
        self.leaders.into_iter().filter_map(endpoint).collect()
    }
}

fn topic_of<'a>(image: &'a MetadataImage, topic: &TopicRef) -> Option<&'a TopicImage> {
    let found = match topic {
        TopicRef::Name(name) => image.topics().get(name),
        TopicRef::Id(id) => image.topics().get_by_id(*id),
    };
    found.map(AsRef::as_ref)
}

fn is_misdirected(code: ErrorCode) -> bool {
    code == ErrorCode::NotLeaderOrFollower || code == ErrorCode::FencedLeaderEpoch
}
