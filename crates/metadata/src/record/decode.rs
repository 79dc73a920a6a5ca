//! Protobuf messages to metadata records, refusing what this release does not know.

use bytes::Bytes;
use tidelog_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, ProducerId, Uuid};

use super::{
    ConfigResource, Endpoint, LeaderRecoveryState, MetadataRecord, PartitionChange,
    PartitionRegistration, RegisterBroker, SecurityProtocol, SupportedFeature,
    codec::refuse_unknown_fields,
    encode::{BROKER_RESOURCE, TOPIC_RESOURCE},
    proto::{self, Record_oneof_kind as Kind},
};
use crate::error::DecodeError;

pub(super) fn record_from_proto(mut record: proto::Record) -> Result<MetadataRecord, DecodeError> {
    let Some(kind) = record.kind.take() else {
        // A kind that this release does not know is an unknown field of the record.
        refuse_unknown_fields("Record", &record)?;
        return Err(invalid("Record", "kind", "nothing"));
    };
    match kind {
        Kind::feature_level(m) => feature_level(m),
        Kind::cluster(m) => cluster(m),
        Kind::register_broker(m) => register_broker(m),
        Kind::unregister_broker(m) => unregister_broker(&m),
        Kind::broker_change(m) => broker_change(&m),
        Kind::topic(m) => topic(m),
        Kind::partition(m) => partition(m),
        Kind::partition_change(m) => partition_change(m),
        Kind::remove_topic(m) => remove_topic(&m),
        Kind::config(m) => config(m),
        Kind::producer_ids(m) => producer_ids(&m),
    }
}

fn feature_level(mut m: proto::FeatureLevel) -> Result<MetadataRecord, DecodeError> {
    refuse_unknown_fields("FeatureLevel", &m)?;
    let level = level("FeatureLevel", "level", m.get_level())?;
    Ok(MetadataRecord::FeatureLevel { name: m.take_name(), level })
}

fn cluster(m: proto::Cluster) -> Result<MetadataRecord, DecodeError> {
    refuse_unknown_fields("Cluster", &m)?;
    Ok(MetadataRecord::Cluster { cluster_id: uuid("Cluster", "cluster_id", m.get_cluster_id())? })
}

fn register_broker(mut m: proto::RegisterBroker) -> Result<MetadataRecord, DecodeError> {
    const NAME: &str = "RegisterBroker";
    refuse_unknown_fields(NAME, &m)?;
    Ok(MetadataRecord::RegisterBroker(RegisterBroker {
        broker_id: BrokerId(m.get_broker_id()),
        broker_epoch: BrokerEpoch(m.get_broker_epoch()),
        incarnation_id: uuid(NAME, "incarnation_id", m.get_incarnation_id())?,
        endpoints: m.take_endpoints().into_iter().map(endpoint).collect::<Result<_, _>>()?,
        rack: m.has_rack().then(|| m.take_rack()),
        fenced: m.get_fenced(),
        in_controlled_shutdown: m.get_in_controlled_shutdown(),
        directories: uuids(NAME, "directories", m.get_directories())?,
        features: m.take_features().into_iter().map(supported_feature).collect::<Result<_, _>>()?,
    }))
}

fn endpoint(mut m: proto::Endpoint) -> Result<Endpoint, DecodeError> {
    refuse_unknown_fields("Endpoint", &m)?;
    let port = m.get_port();
    let protocol = m.get_security_protocol();
    Ok(Endpoint {
        listener: m.take_listener(),
        host: m.take_host(),
        port: u16::try_from(port).map_err(|_| invalid("Endpoint", "port", port))?,
        security_protocol: SecurityProtocol::from_number(protocol)
            .ok_or_else(|| invalid("Endpoint", "security_protocol", protocol))?,
    })
}

fn supported_feature(mut m: proto::SupportedFeature) -> Result<SupportedFeature, DecodeError> {
    const NAME: &str = "SupportedFeature";
    refuse_unknown_fields(NAME, &m)?;
    Ok(SupportedFeature {
        min_level: level(NAME, "min_level", m.get_min_level())?,
        max_level: level(NAME, "max_level", m.get_max_level())?,
        name: m.take_name(),
    })
}

fn unregister_broker(m: &proto::UnregisterBroker) -> Result<MetadataRecord, DecodeError> {
    refuse_unknown_fields("UnregisterBroker", m)?;
    Ok(MetadataRecord::UnregisterBroker {
        broker_id: BrokerId(m.get_broker_id()),
        broker_epoch: BrokerEpoch(m.get_broker_epoch()),
    })
}

fn broker_change(m: &proto::BrokerChange) -> Result<MetadataRecord, DecodeError> {
    refuse_unknown_fields("BrokerChange", m)?;
    let shutdown = m.has_in_controlled_shutdown();
    Ok(MetadataRecord::BrokerChange {
        broker_id: BrokerId(m.get_broker_id()),
        broker_epoch: BrokerEpoch(m.get_broker_epoch()),
        fenced: m.has_fenced().then(|| m.get_fenced()),
        in_controlled_shutdown: shutdown.then(|| m.get_in_controlled_shutdown()),
    })
}

fn topic(mut m: proto::Topic) -> Result<MetadataRecord, DecodeError> {
    refuse_unknown_fields("Topic", &m)?;
    let topic_id = uuid("Topic", "topic_id", m.get_topic_id())?;
    Ok(MetadataRecord::Topic { name: m.take_name(), topic_id })
}

fn partition(m: proto::Partition) -> Result<MetadataRecord, DecodeError> {
    const NAME: &str = "Partition";
    refuse_unknown_fields(NAME, &m)?;
    let registration = PartitionRegistration {
        replicas: ids(m.get_replicas()),
        isr: ids(m.get_isr()),
        leader: m.has_leader().then(|| BrokerId(m.get_leader())),
        leader_epoch: LeaderEpoch(m.get_leader_epoch()),
        partition_epoch: PartitionEpoch(m.get_partition_epoch()),
        elr: ids(m.get_elr()),
        last_known_elr: ids(m.get_last_known_elr()),
        adding_replicas: ids(m.get_adding_replicas()),
        removing_replicas: ids(m.get_removing_replicas()),
        leader_recovery_state: recovery_state(NAME, m.get_leader_recovery_state())?,
        directories: uuids(NAME, "directories", m.get_directories())?,
    };
    let topic_id = uuid(NAME, "topic_id", m.get_topic_id())?;
    Ok(MetadataRecord::Partition { topic_id, partition: m.get_partition(), registration })
}

fn partition_change(m: proto::PartitionChange) -> Result<MetadataRecord, DecodeError> {
    const NAME: &str = "PartitionChange";
    refuse_unknown_fields(NAME, &m)?;
    let state = m.has_leader_recovery_state().then(|| m.get_leader_recovery_state());
    Ok(MetadataRecord::PartitionChange(PartitionChange {
        topic_id: uuid(NAME, "topic_id", m.get_topic_id())?,
        partition: m.get_partition(),
        partition_epoch: PartitionEpoch(m.get_partition_epoch()),
        leader_epoch: m.has_leader_epoch().then(|| LeaderEpoch(m.get_leader_epoch())),
        leader: m.leader.as_ref().map(leader).transpose()?,
        replicas: m.replicas.as_ref().map(broker_ids).transpose()?,
        isr: m.isr.as_ref().map(broker_ids).transpose()?,
        elr: m.elr.as_ref().map(broker_ids).transpose()?,
        last_known_elr: m.last_known_elr.as_ref().map(broker_ids).transpose()?,
        adding_replicas: m.adding_replicas.as_ref().map(broker_ids).transpose()?,
        removing_replicas: m.removing_replicas.as_ref().map(broker_ids).transpose()?,
        leader_recovery_state: state.map(|state| recovery_state(NAME, state)).transpose()?,
        directories: m.directories.as_ref().map(directories).transpose()?,
    }))
}

fn leader(m: &proto::Leader) -> Result<Option<BrokerId>, DecodeError> {
    refuse_unknown_fields("Leader", m)?;
    Ok(m.has_broker_id().then(|| BrokerId(m.get_broker_id())))
}

fn broker_ids(m: &proto::BrokerIds) -> Result<Vec<BrokerId>, DecodeError> {
    refuse_unknown_fields("BrokerIds", m)?;
    Ok(ids(m.get_ids()))
}

fn directories(m: &proto::Directories) -> Result<Vec<Uuid>, DecodeError> {
    refuse_unknown_fields("Directories", m)?;
    uuids("Directories", "ids", m.get_ids())
}

fn remove_topic(m: &proto::RemoveTopic) -> Result<MetadataRecord, DecodeError> {
    refuse_unknown_fields("RemoveTopic", m)?;
    Ok(MetadataRecord::RemoveTopic { topic_id: uuid("RemoveTopic", "topic_id", m.get_topic_id())? })
}

fn config(mut m: proto::Config) -> Result<MetadataRecord, DecodeError> {
    refuse_unknown_fields("Config", &m)?;
    let resource = match (m.get_resource_type(), m.get_resource_name()) {
        (TOPIC_RESOURCE, name) => ConfigResource::Topic(name.to_owned()),
        (BROKER_RESOURCE, "") => ConfigResource::Broker(None),
        (BROKER_RESOURCE, name) => {
            let id = name.parse().map_err(|_| invalid("Config", "resource_name", name))?;
            ConfigResource::Broker(Some(BrokerId(id)))
        }
        (other, _) => return Err(invalid("Config", "resource_type", other)),
    };
    let value = m.has_value().then(|| m.take_value());
    Ok(MetadataRecord::Config { resource, key: m.take_key(), value })
}

fn producer_ids(m: &proto::ProducerIds) -> Result<MetadataRecord, DecodeError> {
    refuse_unknown_fields("ProducerIds", m)?;
    Ok(MetadataRecord::ProducerIds {
        broker_id: BrokerId(m.get_broker_id()),
        broker_epoch: BrokerEpoch(m.get_broker_epoch()),
        next_producer_id: ProducerId(m.get_next_producer_id()),
    })
}

fn recovery_state(message: &'static str, state: i32) -> Result<LeaderRecoveryState, DecodeError> {
    match state {
        0 => Ok(LeaderRecoveryState::Recovered),
        1 => Ok(LeaderRecoveryState::Recovering),
        other => Err(invalid(message, "leader_recovery_state", other)),
    }
}

fn level(message: &'static str, field: &'static str, level: i32) -> Result<i16, DecodeError> {
    i16::try_from(level).map_err(|_| invalid(message, field, level))
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(*id)).collect()
}

fn uuids(
    message: &'static str,
    field: &'static str,
    all: &[Bytes],
) -> Result<Vec<Uuid>, DecodeError> {
    all.iter().map(|bytes| uuid(message, field, bytes)).collect()
}

fn uuid(message: &'static str, field: &'static str, bytes: &[u8]) -> Result<Uuid, DecodeError> {
    let found = || invalid(message, field, format_args!("{} bytes", bytes.len()));
    bytes.try_into().map(Uuid).map_err(|_| found())
}

fn invalid(
    message: &'static str,
    field: &'static str,
    found: impl std::fmt::Display,
) -> DecodeError {
    DecodeError::InvalidField { message, field, found: found.to_string() }
}
