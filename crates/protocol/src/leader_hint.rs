//! Where to go instead: what Produce and Fetch say of a partition that another broker leads
//! (KIP-951).

use tidelog_types::{BrokerId, LeaderEpoch};

use crate::wire::Writer;

/// Who leads a partition now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentLeader {
    /// The leader.
    pub leader_id: BrokerId,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
}

/// How to reach a leader that is named in the same response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The broker.
    pub node_id: BrokerId,
    /// As advertised on the listener that the client uses.
    pub host: String,
    /// As advertised on the listener that the client uses.
    pub port: i32,
    /// The broker's rack.
    pub rack: Option<String>,
}

/// Appends tagged fields in the order of their tags.
pub(crate) fn put_tagged_fields(out: &mut Vec<u8>, fields: &[(u32, &[u8])]) {
    assert!(fields.is_sorted_by_key(|field| field.0), "tags come in order");
    out.put_unsigned_varint(fields.len() as u32);
    for (tag, bytes) in fields {
        out.put_unsigned_varint(*tag);
        out.put_unsigned_varint(bytes.len() as u32);
        out.raw(bytes);
    }
}

/// As a tagged field: leader, epoch, no tagged field.
pub(crate) fn leader_bytes(leader: CurrentLeader) -> [u8; 9] {
    let mut bytes = [0; 9];
    bytes[..4].copy_from_slice(&leader.leader_id.0.to_be_bytes());
    bytes[4..8].copy_from_slice(&leader.leader_epoch.0.to_be_bytes());
    bytes
}

/// As a tagged field: a compact array.
pub(crate) fn endpoints_bytes(endpoints: &[NodeEndpoint]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_count(true, Some(endpoints.len()));
    for endpoint in endpoints {
        bytes.put_int32(endpoint.node_id.0);
        bytes.put_string(true, Some(&endpoint.host));
        bytes.put_int32(endpoint.port);
        bytes.put_string(true, endpoint.rack.as_deref());
        bytes.put_no_tagged_fields(true);
    }
    bytes
}

/// The end of a response's body: the endpoints where there are any, in versions that have them.
pub(crate) fn put_endpoints(
    out: &mut Vec<u8>,
    flexible: bool,
    has_endpoints: bool,
    endpoints: &[NodeEndpoint],
) {
    if !flexible || !has_endpoints || endpoints.is_empty() {
        return out.put_no_tagged_fields(flexible);
    }
    put_tagged_fields(out, &[(0, &endpoints_bytes(endpoints))]);
}
