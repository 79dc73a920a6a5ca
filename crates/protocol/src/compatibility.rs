//! The generated part of `docs/compatibility.md`, and the names of what is not served.

use crate::api_versions::{Api, TABLE};

/// APIs that a broker of Kafka 4.2 serves to clients and this one does not: key, name, versions.
const NOT_SERVED: &[(i16, &str, &str)] = &[
    (17, "SaslHandshake", "0–1"),
    (24, "AddPartitionsToTxn", "0–5"),
    (25, "AddOffsetsToTxn", "0–4"),
    (26, "EndTxn", "0–5"),
    (27, "WriteTxnMarkers", "1–2"),
    (28, "TxnOffsetCommit", "0–5"),
    (29, "DescribeAcls", "1–3"),
    (30, "CreateAcls", "1–3"),
    (31, "DeleteAcls", "1–3"),
    (34, "AlterReplicaLogDirs", "1–2"),
    (36, "SaslAuthenticate", "0–2"),
    (38, "CreateDelegationToken", "1–3"),
    (39, "RenewDelegationToken", "1–2"),
    (40, "ExpireDelegationToken", "1–2"),
    (41, "DescribeDelegationToken", "1–3"),
    (43, "ElectLeaders", "0–2"),
    (45, "AlterPartitionReassignments", "0–1"),
    (46, "ListPartitionReassignments", "0"),
    (48, "DescribeClientQuotas", "0–1"),
    (49, "AlterClientQuotas", "0–1"),
    (50, "DescribeUserScramCredentials", "0"),
    (51, "AlterUserScramCredentials", "0"),
    (64, "UnregisterBroker", "0"),
    (65, "DescribeTransactions", "0"),
    (66, "ListTransactions", "0–2"),
    (68, "ConsumerGroupHeartbeat", "0–1"),
    (69, "ConsumerGroupDescribe", "0–1"),
    (71, "GetTelemetrySubscriptions", "0"),
    (72, "PushTelemetry", "0"),
    (76, "ShareGroupHeartbeat", "1"),
    (77, "ShareGroupDescribe", "1"),
    (78, "ShareFetch", "1–2"),
    (79, "ShareAcknowledge", "1–2"),
    (80, "AddRaftVoter", "0–1"),
    (81, "RemoveRaftVoter", "0"),
    (88, "StreamsGroupHeartbeat", "0"),
    (89, "StreamsGroupDescribe", "0"),
    (90, "DescribeShareGroupOffsets", "0–1"),
    (91, "AlterShareGroupOffsets", "0"),
    (92, "DeleteShareGroupOffsets", "0"),
];

/// Kafka's name of an API that Kafka serves and this broker does not.
#[must_use]
pub fn not_served_name(api_key: i16) -> Option<&'static str> {
    NOT_SERVED.iter().find(|(key, ..)| *key == api_key).map(|(_, name, _)| *name)
}

/// The tables of served and unserved APIs as Markdown.
#[must_use]
pub fn tables() -> String {
    let served: String = TABLE.iter().map(served_row).collect();
    let not_served: String = NOT_SERVED.iter().map(not_served_row).collect();
    format!(
        "## Served\n\n\
         | key | API | versions told | versions served | flexible from |\n\
         |---:|---|---|---|---:|\n\
         {served}\n\
         ## Not served\n\n\
         A request for one of these closes the connection, as a request for an unknown API does\n\
         in Kafka. None of them is told of in ApiVersions.\n\n\
         | key | API | versions in Kafka 4.2 |\n\
         |---:|---|---|\n\
         {not_served}"
    )
}

fn served_row(api: &Api) -> String {
    let Api { key, name, advertised_min, served_min, max, flexible_from, .. } = api;
    let key = key.code();
    let (told, served) = (format!("{advertised_min}–{max}"), format!("{served_min}–{max}"));
    let flexible = match flexible_from {
        &i16::MAX => "never".to_owned(),
        from => from.to_string(),
    };
    format!("| {key} | {name} | {told} | {served} | {flexible} |\n")
}

fn not_served_row((key, name, versions): &(i16, &str, &str)) -> String {
    format!("| {key} | {name} | {versions} |\n")
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ApiKey as CodecKey;

    use super::*;
    use crate::ApiKey;

    #[test]
    fn no_api_is_in_both_tables() {
        for (key, name, _) in NOT_SERVED {
            assert_eq!(ApiKey::from_wire(*key), None, "{name}");
        }
    }

    #[test]
    fn names_are_kafkas() {
        for (key, name, _) in NOT_SERVED {
            // The codec is a release behind and does not know the streams groups.
            if let Ok(codec) = CodecKey::try_from(*key) {
                assert_eq!(format!("{codec:?}"), *name);
            }
        }
    }
}
