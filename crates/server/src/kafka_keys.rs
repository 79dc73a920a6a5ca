//! Keys that Kafka has and a node's settings do not: what to tell whoever brings them along.

use tidelog_broker::topic_config::broker_synonyms;
use tidelog_types::topic_settings::{Support, TopicSettings};

const NO_CLEANERS: &str = "one thread compacts logs, and its buffers are as large as they must be";
const CLASSIC_GROUPS: &str = "groups follow the classic protocol only";
const LIKE_RECORDS: &str = "offsets are stored as safely, and read back as fast, as any record";
const NO_TRANSACTIONS: &str = "there are no transactions yet";
const NO_SECURITY: &str = "TLS, SASL and ACLs are not supported yet";
const NO_QUORUM: &str = "a node needs nothing to be told about its metadata";
const NO_POOLS: &str = "threads follow from the number of cores";

/// How Kafka's keys begin, and why none of them is a setting here.
const KAFKA: &[(&str, &str)] = &[
    ("log.cleaner.enable", "logs are always compacted where their topics ask for it"),
    ("log.cleaner.threads", NO_CLEANERS),
    ("log.cleaner.io.buffer", NO_CLEANERS),
    ("offsets.commit.", LIKE_RECORDS),
    ("offsets.load.", LIKE_RECORDS),
    ("offsets.topic.compression.codec", "offsets are stored uncompressed"),
    ("group.coordinator.", CLASSIC_GROUPS),
    ("group.consumer.", CLASSIC_GROUPS),
    ("group.share.", CLASSIC_GROUPS),
    ("group.streams.", CLASSIC_GROUPS),
    ("transaction.", NO_TRANSACTIONS),
    ("transactional.", NO_TRANSACTIONS),
    ("ssl.", NO_SECURITY),
    ("sasl.", NO_SECURITY),
    ("security.", NO_SECURITY),
    ("authorizer.", NO_SECURITY),
    ("super.users", NO_SECURITY),
    ("listener.security.", NO_SECURITY),
    ("inter.broker.", "there is one node and one listener"),
    ("process.roles", NO_QUORUM),
    ("controller.", NO_QUORUM),
    ("metadata.log.", NO_QUORUM),
    ("zookeeper.", NO_QUORUM),
    ("num.network.threads", NO_POOLS),
    ("num.io.threads", NO_POOLS),
    ("num.recovery.threads.per.data.dir", NO_POOLS),
    ("background.threads", NO_POOLS),
];

/// What to say of a key that is no setting of a node; `None` where Kafka does not have it either.
pub fn explain(key: &str) -> Option<String> {
    if let Some(support) = TopicSettings::support(key) {
        let why_not = match support {
            Support::Honoured | Support::Accepted(_) => String::new(),
            Support::NotYet(reason) => format!(", and only its default is honoured: {reason}"),
        };
        let default = broker_synonyms(key).first();
        let default = default.map(|synonym| format!("; {:?} is its default", synonym.key));
        let default = default.unwrap_or_default();
        return Some(format!("a topic's setting, given when it is created{why_not}{default}"));
    }
    let (_, reason) = KAFKA.iter().find(|(start, _)| key.starts_with(start))?;
    Some(format!("not honoured: {reason}"))
}

#[cfg(test)]
mod tests {
    use tidelog_broker::NodeSettings;

    use super::*;

    #[test]
    fn kafkas_keys_are_explained_and_others_are_not() {
        for (key, expected) in [
            ("log.cleaner.threads", Some(format!("not honoured: {NO_CLEANERS}"))),
            (
                "unclean.leader.election.enable",
                Some(
                    "a topic's setting, given when it is created, and only its default is \
                     honoured: only replicas in sync are elected yet"
                        .to_owned(),
                ),
            ),
            (
                "retention.ms",
                Some(
                    "a topic's setting, given when it is created; \"log.retention.ms\" is its \
                     default"
                        .to_owned(),
                ),
            ),
            ("preallocate", Some("a topic's setting, given when it is created".to_owned())),
            ("num.partitons", None),
        ] {
            assert_eq!(explain(key), expected, "{key}");
        }
    }

    #[test]
    fn no_setting_of_a_node_is_said_to_be_missing() {
        for property in NodeSettings::properties() {
            let found = KAFKA.iter().find(|(start, _)| property.key.starts_with(start));
            assert_eq!(found, None, "{}", property.key);
        }
    }
}
