//! DescribeConfigs: settings of topics and of this broker, each with where it comes from.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{
            DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
        },
    },
    protocol::{Encodable as _, StrBytes},
};
use tidelog_metadata::{MetadataImage, record::ConfigResource};
use tidelog_net::service::Handled;
use tidelog_protocol::{RequestError, request};
use tidelog_types::{
    ErrorCode,
    property::{Kind, Property},
    topic_settings::TopicSettings,
};

use crate::{
    broker::Broker,
    config::NodeSettings,
    config_resource::{self, Refusal},
    dynamic_config,
    request_context::{RequestContext, message},
    topic_config::{self, topic_defaults},
};

/// Bytes of one answer; what would come behind them is refused.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// First version with types and documentation (KIP-569).
const TYPES_FROM: i16 = 3;

/// Where a value comes from, with Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
}

/// One setting as it is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Described {
    pub property: &'static Property,
    pub value: String,
    pub source: Source,
    pub read_only: bool,
    /// From the one that holds to the default, with the key that each has at its level.
    pub synonyms: Vec<Synonym>,
}

/// A value at one of its places: the key that it has there, the value, and the place.
pub(crate) type Synonym = (&'static str, String, Source);

pub(crate) fn handle(
    broker: &Broker,
    context: &RequestContext,
    body: Bytes,
) -> Result<Handled, RequestError> {
    let request: DescribeConfigsRequest = request::decode(context.version(), body)?;
    context.check_items(request.resources.len())?;
    let image = broker.image.load();
    let mut seen = BTreeSet::new();
    let (mut results, mut bytes) = (Vec::new(), 0);
    for resource in &request.resources {
        let is_new = seen.insert((resource.resource_type, &resource.resource_name));
        let described = match is_new {
            _ if bytes >= ANSWER_BYTES_MAX => {
                let text = format!("an answer has at most {ANSWER_BYTES_MAX} bytes");
                Err((ErrorCode::PolicyViolation, text))
            }
            false => Err((ErrorCode::InvalidRequest, "named twice".to_owned())),
            true => describe(broker, &image, resource),
        };
        let result = result(broker, context, &request, resource, described);
        bytes += result.compute_size(context.version()).unwrap_or(0);
        results.push(result);
    }
    let response = DescribeConfigsResponse::default().with_results(results);
    Ok(context.answer(&broker.metrics, &response))
}

fn result(
    broker: &Broker,
    context: &RequestContext,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
    described: Result<Vec<Described>, Refusal>,
) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone());
    match described {
        Ok(described) => {
            let keys = resource.configuration_keys.as_ref();
            let keys: Option<BTreeSet<&str>> =
                keys.map(|keys| keys.iter().map(StrBytes::as_str).collect());
            let is_wanted = |key| keys.as_ref().is_none_or(|keys| keys.contains(key));
            let wanted = described.into_iter().filter(|d| is_wanted(d.property.key));
            let configs = wanted.map(|d| told(request, context.version(), d)).collect();
            result.with_configs(configs).with_error_message(None)
        }
        Err((code, text)) => result
            .with_error_code(context.error(&broker.metrics, code))
            .with_error_message(Some(message(text))),
    }
}

fn describe(
    broker: &Broker,
    image: &MetadataImage,
    wanted: &DescribeConfigsResource,
) -> Result<Vec<Described>, Refusal> {
    let me = broker.identity.node_id;
    match config_resource::resource(me, wanted.resource_type, &wanted.resource_name)? {
        ConfigResource::Topic(name) if image.topics().get(&name).is_some() => {
            let overrides: Vec<_> = image.configs().topic(&name).collect();
            Ok(topic(broker, image, &overrides))
        }
        ConfigResource::Topic(_) => {
            let code = ErrorCode::UnknownTopicOrPartition;
            Err((code, code.text().to_owned()))
        }
        ConfigResource::Broker(Some(_)) => Ok(node(broker, image)),
        ConfigResource::Broker(None) => Ok(all_nodes(broker, image)),
    }
}

/// The settings of a topic that was given these, in the order of their keys.
pub(crate) fn topic(
    broker: &Broker,
    image: &MetadataImage,
    overrides: &[(&str, &str)],
) -> Vec<Described> {
    let effective = dynamic_config::effective(&broker.settings, image, broker.identity.node_id);
    let defaults = topic_defaults(&effective);
    let described = TopicSettings::PROPERTIES.iter().map(|property| {
        let mut synonyms = Vec::with_capacity(3);
        let set = overrides.iter().find(|(key, _)| *key == property.key);
        if let Some((_, value)) = set {
            synonyms.push((property.key, (*value).to_owned(), Source::Topic));
        }
        synonyms.append(&mut inherited(broker, image, property));
        // A broker's setting may have another unit: hours, where the topic's has milliseconds.
        let inherits = set.is_none().then(|| defaults.get(property.key).expect("a known key"));
        let described = Described::of(property, false, synonyms);
        Described { value: inherits.unwrap_or(described.value), ..described }
    });
    described.collect()
}

/// The places that give a topic's setting a value where the topic does not.
fn inherited(broker: &Broker, image: &MetadataImage, property: &'static Property) -> Vec<Synonym> {
    let of_broker = topic_config::broker_synonyms(property.key).iter();
    let of_broker = of_broker.filter_map(|synonym| NodeSettings::property(synonym.key));
    let places = of_broker.map(|of_broker| broker_synonyms(broker, image, of_broker));
    // Of several keys only the last one's default is told, as in Kafka.
    let mut default = (property.key, property.default.to_owned(), Source::Default);
    let mut synonyms = Vec::new();
    for mut places in places {
        default = places.pop().expect("a setting has a default");
        synonyms.append(&mut places);
    }
    synonyms.push(default);
    synonyms
}

/// This node's settings, in the order of its tables.
fn node(broker: &Broker, image: &MetadataImage) -> Vec<Described> {
    let described = NodeSettings::properties().map(|property| {
        let synonyms = broker_synonyms(broker, image, property);
        Described::of(property, !property.dynamic, synonyms)
    });
    described.collect()
}

/// What was changed for every broker while they run, and nothing else.
fn all_nodes(broker: &Broker, image: &MetadataImage) -> Vec<Described> {
    let described = node(broker, image).into_iter().filter_map(|mut described| {
        described.synonyms.retain(|(.., source)| *source == Source::DynamicDefaultBroker);
        let Described { property, read_only, synonyms, .. } = described;
        (!synonyms.is_empty()).then(|| Described::of(property, read_only, synonyms))
    });
    described.collect()
}

/// The places that give a broker's setting a value, the one that holds first.
fn broker_synonyms(
    broker: &Broker,
    image: &MetadataImage,
    property: &'static Property,
) -> Vec<Synonym> {
    let key = property.key;
    let resources = dynamic_config::resources(broker.identity.node_id);
    let changed = resources.iter().zip([Source::DynamicBroker, Source::DynamicDefaultBroker]);
    let changed = changed.filter_map(|(resource, source)| {
        let value = dynamic_config::changed(image, resource, key)?;
        Some((key, value.to_owned(), source))
    });
    let mut synonyms: Vec<Synonym> = changed.collect();
    if broker.settings.is_explicit(key) {
        let value = broker.settings.get(key).expect("a key of the tables");
        synonyms.push((key, value, Source::StaticBroker));
    }
    synonyms.push((key, property.default.to_owned(), Source::Default));
    synonyms
}

impl Described {
    fn of(property: &'static Property, read_only: bool, synonyms: Vec<Synonym>) -> Described {
        let (_, value, source) = synonyms.first().cloned().expect("a setting has a value");
        Described { property, value, source, read_only, synonyms }
    }
}

fn told(
    request: &DescribeConfigsRequest,
    version: i16,
    described: Described,
) -> DescribeConfigsResourceResult {
    let Described { property, value, source, read_only, synonyms } = described;
    let synonym = |(key, value, source): Synonym| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_static_str(key))
            .with_value(Some(StrBytes::from_string(value)))
            .with_source(source as i8)
    };
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(property.key))
        .with_value(Some(StrBytes::from_string(value)))
        .with_read_only(read_only)
        .with_config_source(source as i8)
        .with_documentation(None);
    if request.include_synonyms {
        result.synonyms = synonyms.into_iter().map(synonym).collect();
    }
    if version >= TYPES_FROM {
        result.config_type = kind_number(property.kind);
        if request.include_documentation {
            result.documentation = Some(StrBytes::from_static_str(property.doc));
        }
    }
    result
}

/// Kafka's number of a setting's type.
fn kind_number(kind: Kind) -> i8 {
    match kind {
        Kind::Boolean => 1,
        Kind::Text | Kind::Form(_) | Kind::Choice(_) => 2,
        Kind::Int { .. } => 3,
        Kind::Long { .. } => 5,
        Kind::Double { .. } => 6,
        Kind::List(_) => 7,
    }
}
