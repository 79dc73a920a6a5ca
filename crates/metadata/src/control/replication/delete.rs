//! Deleting topics by name or by id.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_types::TopicId;

use crate::{
    controller::{Controller, ControllerResult},
    error::ControllerError,
    image::TopicImage,
    record::MetadataRecord,
};

/// How a request names a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicReference {
    /// By name: whichever topic is called so now.
    Name(String),
    /// By identity.
    Id(TopicId),
}

/// What became of one topic that a request wants gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteTopicResult {
    /// As the request named it.
    pub reference: TopicReference,
    /// The topic that goes.
    pub result: Result<DeletedTopic, ControllerError>,
}

/// A topic that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub topic_id: TopicId,
}

impl Controller {
    /// Plans the end of topics. Each reference gets its own answer, in order; one that comes
    /// twice gets one, and neither of two that mean the same topic is followed.
    pub fn delete_topics(
        &self,
        references: &[TopicReference],
    ) -> ControllerResult<Vec<DeleteTopicResult>> {
        let meant = self.times_meant(references);
        let mut seen = BTreeSet::new();
        let mut records = Vec::new();
        let mut response = Vec::new();
        for reference in references.iter().filter(|reference| seen.insert(*reference)) {
            let result = self.delete_topic(reference, &meant);
            if let Ok(DeletedTopic { topic_id, .. }) = result {
                records.push(MetadataRecord::RemoveTopic { topic_id });
            }
            response.push(DeleteTopicResult { reference: reference.clone(), result });
        }
        ControllerResult { records, response }
    }

    fn delete_topic(
        &self,
        reference: &TopicReference,
        meant: &BTreeMap<TopicId, usize>,
    ) -> Result<DeletedTopic, ControllerError> {
        let topic = self.find(reference)?;
        if meant.get(&topic.topic_id()).is_some_and(|times| *times > 1) {
            let what = match reference {
                TopicReference::Name(_) => "name",
                TopicReference::Id(_) => "id",
            };
            let text = format!("Duplicate topic {what}.");
            return Err(ControllerError::InvalidRequest(text));
        }
        Ok(DeletedTopic { name: topic.name().to_owned(), topic_id: topic.topic_id() })
    }

    fn find(&self, reference: &TopicReference) -> Result<&TopicImage, ControllerError> {
        let topics = self.image.topics();
        let topic = match reference {
            TopicReference::Name(name) => {
                topics.get(name).ok_or_else(|| ControllerError::UnknownTopic { name: name.clone() })
            }
            TopicReference::Id(id) => {
                topics.get_by_id(*id).ok_or(ControllerError::UnknownTopicId { topic_id: *id })
            }
        };
        topic.map(AsRef::as_ref)
    }

    fn times_meant(&self, references: &[TopicReference]) -> BTreeMap<TopicId, usize> {
        let mut times = BTreeMap::new();
        for topic in references.iter().filter_map(|reference| self.find(reference).ok()) {
            *times.entry(topic.topic_id()).or_insert(0) += 1;
        }
        times
    }
}
