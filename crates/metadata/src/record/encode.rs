//! Metadata records to protobuf messages.

use bytes::Bytes;
use tidelog_types::{BrokerId, Uuid};

use super::{
    ConfigResource, Endpoint, MetadataRecord, PartitionChange, PartitionRegistration,
    RegisterBroker, SupportedFeature, proto,
};

pub(super) fn record_to_proto(record: &MetadataRecord) -> proto::Record {
    let mut out = proto::Record::new();
    match record {
        MetadataRecord::FeatureLevel { name, level } => {
            let feature = out.mut_feature_level();
            feature.set_name(name.clone());
            feature.set_level(i32::from(*level));
        }
        MetadataRecord::Cluster { cluster_id } => {
            out.mut_cluster().set_cluster_id(uuid(cluster_id));
        }
        MetadataRecord::RegisterBroker(broker) => out.set_register_broker(register_broker(broker)),
        MetadataRecord::UnregisterBroker { broker_id, broker_epoch } => {
            let broker = out.mut_unregister_broker();
            broker.set_broker_id(broker_id.0);
            broker.set_broker_epoch(broker_epoch.0);
        }
        MetadataRecord::BrokerChange {
            broker_id,
            broker_epoch,
            fenced,
            in_controlled_shutdown,
        } => {
            let change = out.mut_broker_change();
            change.set_broker_id(broker_id.0);
            change.set_broker_epoch(broker_epoch.0);
            fenced.iter().for_each(|fenced| change.set_fenced(*fenced));
            in_controlled_shutdown.iter().for_each(|is| change.set_in_controlled_shutdown(*is));
        }
        MetadataRecord::Topic { name, topic_id } => {
            let topic = out.mut_topic();
            topic.set_name(name.clone());
            topic.set_topic_id(uuid(topic_id));
        }
        MetadataRecord::Partition { topic_id, partition, registration } => {
            out.set_partition(partition_to_proto(topic_id, *partition, registration));
        }
        MetadataRecord::PartitionChange(change) => {
            out.set_partition_change(partition_change(change));
        }
        MetadataRecord::RemoveTopic { topic_id } => {
            out.mut_remove_topic().set_topic_id(uuid(topic_id));
        }
        MetadataRecord::Config { resource, key, value } => {
            let config = out.mut_config();
            let (kind, name) = resource_to_proto(resource);
            config.set_resource_type(kind);
            config.set_resource_name(name);
            config.set_key(key.clone());
            value.iter().for_each(|value| config.set_value(value.clone()));
        }
        MetadataRecord::ProducerIds { broker_id, broker_epoch, next_producer_id } => {
            let ids = out.mut_producer_ids();
            ids.set_broker_id(broker_id.0);
            ids.set_broker_epoch(broker_epoch.0);
            ids.set_next_producer_id(next_producer_id.0);
        }
    }
    out
}

/// Kafka's numbers for what a setting belongs to.
pub(super) const TOPIC_RESOURCE: i32 = 2;
pub(super) const BROKER_RESOURCE: i32 = 4;

fn resource_to_proto(resource: &ConfigResource) -> (i32, String) {
    match resource {
        ConfigResource::Topic(name) => (TOPIC_RESOURCE, name.clone()),
        ConfigResource::Broker(Some(id)) => (BROKER_RESOURCE, id.to_string()),
        ConfigResource::Broker(None) => (BROKER_RESOURCE, String::new()),
    }
}

fn register_broker(broker: &RegisterBroker) -> proto::RegisterBroker {
    let mut out = proto::RegisterBroker::new();
    out.set_broker_id(broker.broker_id.0);
    out.set_broker_epoch(broker.broker_epoch.0);
    out.set_incarnation_id(uuid(&broker.incarnation_id));
    out.set_endpoints(broker.endpoints.iter().map(endpoint).collect());
    broker.rack.iter().for_each(|rack| out.set_rack(rack.clone()));
    out.set_fenced(broker.fenced);
    out.set_in_controlled_shutdown(broker.in_controlled_shutdown);
    out.set_directories(broker.directories.iter().map(uuid).collect());
    out.set_features(broker.features.iter().map(supported_feature).collect());
    out
}

fn endpoint(endpoint: &Endpoint) -> proto::Endpoint {
    let mut out = proto::Endpoint::new();
    out.set_listener(endpoint.listener.clone());
    out.set_host(endpoint.host.clone());
    out.set_port(u32::from(endpoint.port));
    out.set_security_protocol(endpoint.security_protocol as i32);
    out
}

fn supported_feature(feature: &SupportedFeature) -> proto::SupportedFeature {
    let mut out = proto::SupportedFeature::new();
    out.set_name(feature.name.clone());
    out.set_min_level(i32::from(feature.min_level));
    out.set_max_level(i32::from(feature.max_level));
    out
}

fn partition_to_proto(
    topic_id: &Uuid,
    partition: i32,
    registration: &PartitionRegistration,
) -> proto::Partition {
    let mut out = proto::Partition::new();
    out.set_topic_id(uuid(topic_id));
    out.set_partition(partition);
    out.set_replicas(ids(&registration.replicas));
    out.set_isr(ids(&registration.isr));
    registration.leader.into_iter().for_each(|leader| out.set_leader(leader.0));
    out.set_leader_epoch(registration.leader_epoch.0);
    out.set_partition_epoch(registration.partition_epoch.0);
    out.set_elr(ids(&registration.elr));
    out.set_last_known_elr(ids(&registration.last_known_elr));
    out.set_adding_replicas(ids(&registration.adding_replicas));
    out.set_removing_replicas(ids(&registration.removing_replicas));
    out.set_leader_recovery_state(registration.leader_recovery_state as i32);
    out.set_directories(registration.directories.iter().map(uuid).collect());
    out
}

fn partition_change(change: &PartitionChange) -> proto::PartitionChange {
    let mut out = proto::PartitionChange::new();
    out.set_topic_id(uuid(&change.topic_id));
    out.set_partition(change.partition);
    out.set_partition_epoch(change.partition_epoch.0);
    change.leader_epoch.into_iter().for_each(|epoch| out.set_leader_epoch(epoch.0));
    if let Some(leader) = change.leader {
        let out = out.mut_leader();
        leader.into_iter().for_each(|leader| out.set_broker_id(leader.0));
    }
    change.replicas.iter().for_each(|list| out.set_replicas(broker_ids(list)));
    change.isr.iter().for_each(|list| out.set_isr(broker_ids(list)));
    change.elr.iter().for_each(|list| out.set_elr(broker_ids(list)));
    change.last_known_elr.iter().for_each(|list| out.set_last_known_elr(broker_ids(list)));
    change.adding_replicas.iter().for_each(|list| out.set_adding_replicas(broker_ids(list)));
    change.removing_replicas.iter().for_each(|list| out.set_removing_replicas(broker_ids(list)));
    if let Some(state) = change.leader_recovery_state {
        out.set_leader_recovery_state(state as i32);
    }
    if let Some(directories) = &change.directories {
        out.mut_directories().set_ids(directories.iter().map(uuid).collect());
    }
    out
}

fn broker_ids(brokers: &[BrokerId]) -> proto::BrokerIds {
    let mut out = proto::BrokerIds::new();
    out.set_ids(ids(brokers));
    out
}

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

fn uuid(uuid: &Uuid) -> Bytes {
    Bytes::copy_from_slice(&uuid.0)
}
