//! Settings that were changed while brokers run: what holds for this one now (KIP-226).

use std::borrow::Cow;

use tidelog_metadata::{MetadataImage, record::ConfigResource};
use tidelog_types::BrokerId;

use crate::config::NodeSettings;

/// Where a broker's setting was changed, the nearest first.
pub(crate) fn resources(me: BrokerId) -> [ConfigResource; 2] {
    [ConfigResource::Broker(Some(me)), ConfigResource::Broker(None)]
}

/// What a resource gives a broker's setting, if that is one of those that may be changed.
pub(crate) fn changed<'a>(
    image: &'a MetadataImage,
    resource: &ConfigResource,
    key: &str,
) -> Option<&'a str> {
    let is_dynamic = NodeSettings::property(key).is_some_and(|property| property.dynamic);
    let set = image.configs().get(resource).filter(|_| is_dynamic)?;
    set.get(key).map(String::as_str)
}

/// What this broker was started with, and on top of it what was changed since: for all brokers,
/// then for this one.
pub(crate) fn effective<'a>(
    started_with: &'a NodeSettings,
    image: &MetadataImage,
    me: BrokerId,
) -> Cow<'a, NodeSettings> {
    let mut settings = Cow::Borrowed(started_with);
    for resource in resources(me).iter().rev() {
        let set = image.configs().get(resource);
        for (key, value) in set.into_iter().flat_map(|set| set.iter()) {
            if changed(image, resource, key).is_some() {
                // Another release may have stored what this one refuses: it has no effect here.
                let _ = settings.to_mut().set(key, value);
            }
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidelog_metadata::MetadataRecord;

    use super::*;

    fn image(set: &[(Option<i32>, &str, &str)]) -> MetadataImage {
        let record = |(id, key, value): &(Option<i32>, &str, &str)| MetadataRecord::Config {
            resource: ConfigResource::Broker(id.map(BrokerId)),
            key: (*key).to_owned(),
            value: Some((*value).to_owned()),
        };
        let records: Vec<_> = set.iter().map(record).collect();
        Arc::new(MetadataImage::default()).apply(&records, 1).0
    }

    #[test]
    fn the_nearest_place_that_sets_a_value_wins() {
        let mut started_with = NodeSettings::default();
        started_with.set("message.max.bytes", "100").expect("lawful");
        let key = "message.max.bytes";
        for (set, expected) in [
            (&[][..], 100),
            (&[(None, key, "200")], 200),
            (&[(Some(1), key, "300")], 300),
            (&[(None, key, "200"), (Some(1), key, "300")], 300),
            (&[(Some(2), key, "400")], 100),
            (&[(Some(1), "node.id", "7")], 100),
            (&[(None, key, "200"), (Some(1), key, "a lot")], 200),
        ] {
            let image = image(set);
            let settings = effective(&started_with, &image, BrokerId(1));
            assert_eq!(settings.broker.message_max_bytes, expected, "{set:?}");
            assert_eq!(settings.broker.node_id, 1, "it cannot be changed while it runs");
        }
    }
}
