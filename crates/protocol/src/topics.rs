//! The topics of Produce and Fetch requests: two flat vectors, each allocated once.

use std::ops::Range;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use tidelog_types::{TopicId, Uuid};

use crate::{
    ApiKey,
    error::{Malformed, RequestError},
    header::text,
    wire::{Reader, Writer},
};

/// What decoding Produce or Fetch may allocate besides what the frame's size allows, in bytes.
pub(crate) const SLACK_BYTES: usize = 64 * 1024;

/// How a request names a topic, which its response repeats.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicRef {
    /// By name, in Produce up to version 12 and Fetch up to 12.
    Name(StrBytes),
    /// By identity, in later versions (KIP-516).
    Id(TopicId),
}

impl TopicRef {
    /// Appends the topic as the request named it.
    pub(crate) fn put(&self, flexible: bool, out: &mut Vec<u8>) {
        match self {
            TopicRef::Name(name) => out.put_string(flexible, Some(name)),
            TopicRef::Id(id) => out.raw(&id.0),
        }
    }

    /// About how many bytes that takes.
    pub(crate) fn wire_bytes(&self) -> usize {
        match self {
            TopicRef::Name(name) => name.len() + 3,
            TopicRef::Id(id) => id.0.len(),
        }
    }
}

/// Topics in the request's order, each with its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topics<P> {
    /// Each with the place behind its last partition.
    topics: Vec<(TopicRef, usize)>,
    partitions: Vec<P>,
}

/// How a version lays its topics out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) api_key: ApiKey,
    pub(crate) flexible: bool,
    pub(crate) has_ids: bool,
    /// What the topics may take of memory.
    pub(crate) memory_bytes_max: usize,
}

/// What a walk over the topics comes by.
enum Found<R> {
    Name(Range<usize>),
    Id(TopicId),
    Partition(R),
}

impl<P> Default for Topics<P> {
    fn default() -> Self {
        Topics { topics: Vec::new(), partitions: Vec::new() }
    }
}

impl<P> Topics<P> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicRef, &[P])> {
        let mut start = 0;
        self.topics.iter().map(move |(topic, end)| {
            let partitions = &self.partitions[start..*end];
            start = *end;
            (topic, partitions)
        })
    }

    /// Memory that the vectors take, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        Topics::<P>::memory_bytes_of(self.topics.capacity(), self.partitions.capacity())
    }

    fn memory_bytes_of(topic_count: usize, partition_count: usize) -> usize {
        topic_count * size_of::<(TopicRef, usize)>() + partition_count * size_of::<P>()
    }

    /// Reads an array of topics twice: to count, then to keep. `read` reads a partition, `keep`
    /// makes of it what is kept.
    pub(crate) fn decode<R>(
        form: Form,
        body: &Bytes,
        reader: &mut Reader<'_>,
        read: impl Fn(&mut Reader<'_>) -> Result<R, Malformed>,
        keep: impl Fn(R) -> P,
    ) -> Result<Topics<P>, RequestError> {
        let mut decoded = Topics::with_room(form, body, reader, &read)?;
        walk(form, reader, read, |found| {
            match found {
                Found::Name(range) => {
                    let name = TopicRef::Name(text(body.slice(range))?);
                    decoded.topics.push((name, decoded.partitions.len()));
                }
                Found::Id(id) => decoded.topics.push((TopicRef::Id(id), decoded.partitions.len())),
                Found::Partition(partition) => {
                    decoded.partitions.push(keep(partition));
                    let (_, end) = decoded.topics.last_mut().expect("a topic precedes it");
                    *end = decoded.partitions.len();
                }
            }
            Ok(())
        })?;
        Ok(decoded)
    }

    /// Counts what is ahead and makes room for it, once, if the request's size allows so much.
    fn with_room<R>(
        form: Form,
        body: &Bytes,
        reader: &Reader<'_>,
        read: impl Fn(&mut Reader<'_>) -> Result<R, Malformed>,
    ) -> Result<Topics<P>, RequestError> {
        let (mut topic_count, mut partition_count) = (0, 0);
        walk(form, &mut reader.clone(), read, |found| {
            match found {
                Found::Name(_) | Found::Id(_) => topic_count += 1,
                Found::Partition(_) => partition_count += 1,
            }
            Ok(())
        })?;
        let memory_bytes = Topics::<P>::memory_bytes_of(topic_count, partition_count);
        if memory_bytes > form.memory_bytes_max {
            let (api, bytes) = (form.api_key.name(), body.len());
            return Err(RequestError::TooCostly { api, bytes, memory_bytes });
        }
        let topics = Vec::with_capacity(topic_count);
        Ok(Topics { topics, partitions: Vec::with_capacity(partition_count) })
    }
}

fn walk<R>(
    form: Form,
    reader: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<R, Malformed>,
    mut on: impl FnMut(Found<R>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for _ in 0..reader.required_count(form.flexible)? {
        on(match form.has_ids {
            true => Found::Id(Uuid(reader.array()?)),
            false => Found::Name(reader.required_string(form.flexible)?),
        })?;
        for _ in 0..reader.required_count(form.flexible)? {
            on(Found::Partition(read(reader)?))?;
        }
        if form.flexible {
            reader.skip_tagged_fields()?;
        }
    }
    Ok(())
}
