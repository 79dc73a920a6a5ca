//! Which topics a group's members consume, as far as their protocol lets us know.
//!
//! The consumer protocol's messages are between clients. Their first fields have never changed: a
//! version and the topics; that much is read, whatever version it is.

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};

use super::Group;

/// The protocol type whose subscriptions can be read.
const CONSUMER: &str = "consumer";

/// What is known of the topics that a group consumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subscription {
    /// These and no others.
    Topics(BTreeSet<String>),
    /// Some: nobody can say which.
    Unknown,
    /// What the group does has nothing to do with topics.
    NotOfTopics,
}

impl Subscription {
    pub(crate) fn has(&self, topic: &str) -> bool {
        match self {
            Subscription::Topics(topics) => topics.contains(topic),
            Subscription::Unknown => true,
            Subscription::NotOfTopics => false,
        }
    }
}

impl Group {
    /// What the members of a group told each other that they consume.
    pub(crate) fn subscription(&self) -> Subscription {
        if !self.is_of_consumers() {
            return Subscription::NotOfTopics;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let name = self.protocol_name.as_deref().unwrap_or_default();
            if read_topics(member.metadata(name), &mut topics).is_none() {
                return Subscription::Unknown;
            }
        }
        Subscription::Topics(topics)
    }

    pub(crate) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }
}

/// Adds the topics of one subscription. `None` if the bytes are none; lengths are believed only as
/// far as there are bytes.
fn read_topics(mut subscription: Bytes, topics: &mut BTreeSet<String>) -> Option<()> {
    let version = subscription.try_get_i16().ok()?;
    let count = subscription.try_get_i32().ok()?;
    if version < 0 || count < 0 {
        return None;
    }
    for _ in 0..count {
        let length = usize::try_from(subscription.try_get_i16().ok()?).ok()?;
        if length > subscription.len() {
            return None;
        }
        topics.insert(String::from_utf8(subscription.split_to(length).to_vec()).ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(subscription: &[u8]) -> Option<Vec<String>> {
        let mut topics = BTreeSet::new();
        read_topics(Bytes::copy_from_slice(subscription), &mut topics)?;
        Some(topics.into_iter().collect())
    }

    #[test]
    fn topics_are_read_from_every_version_and_from_nothing_else() {
        let topics = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
        let cases: [(&[u8], Option<Vec<String>>); 8] = [
            (b"\0\0\0\0\0\0\xff\xff\xff\xff", topics(&[])),
            (b"\0\x03\0\0\0\x02\0\x01b\0\x01arest of it", topics(&["a", "b"])),
            (b"", None),
            (b"\xff\xff\0\0\0\0", None),
            (b"\0\0\xff\xff\xff\xff", None),
            (b"\0\0\x7f\xff\xff\xff\0\x01a", None),
            (b"\0\0\0\0\0\x01\x7f\xffa", None),
            (b"\0\0\0\0\0\x01\0\x01\xff", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(bytes), expected, "{bytes:?}");
        }
    }
}
