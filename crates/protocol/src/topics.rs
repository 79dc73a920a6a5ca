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

/// What the topics may take besides what the request's size allows, in bytes: the 64 KiB that this
/// crate promises, less what splitting a frame takes.
pub(crate) const SLACK_BYTES: usize = 63 * 1024;
/// A partition has a number, at least.
const PARTITION_BYTES_MIN: usize = 4;

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
    pub(crate) body_bytes: usize,
    /// What the topics may take of memory.
    pub(crate) memory_bytes_max: usize,
}

/// What a walk over the topics comes by.
enum Found<R> {
    /// A topic and how many partitions it claims.
    Topic(Place, usize),
    Partition(R),
}

/// Where a topic's name lies, or its id.
enum Place {
    Name(Range<usize>),
    Id(TopicId),
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

    /// Reads an array of topics. `read` reads a partition, `keep` makes of it what is kept.
    pub(crate) fn decode<R>(
        form: Form,
        body: &Bytes,
        reader: &mut Reader<'_>,
        read: impl Fn(&mut Reader<'_>) -> Result<R, Malformed>,
        keep: impl Fn(R) -> P,
    ) -> Result<Topics<P>, RequestError> {
        let mut decoded = Topics::default();
        if reader.clone().required_count(form.flexible)? > 1 {
            let (topic_count, partition_count) = count(form, reader.clone(), &read)?;
            decoded.make_room(form, topic_count, partition_count)?;
        }
        walk(form, reader, read, |found| {
            match found {
                Found::Topic(place, partition_count) => {
                    decoded.make_room(form, 1, partition_count)?;
                    decoded.topics.push((place.of(body)?, decoded.partitions.len()));
                }
                Found::Partition(partition) => {
                    decoded.partitions.push(keep(partition));
                    let (_, end) = decoded.topics.last_mut().expect("a topic precedes it");
                    *end = decoded.partitions.len();
                }
            }
            Ok(())
        })?;
        let kept = decoded.memory_bytes();
        assert!(kept <= form.memory_bytes_max, "{kept} bytes are over the request's right");
        Ok(decoded)
    }

    /// Makes room for what is claimed to come, if the request's size allows so much. Nothing is
    /// allocated where there is room already.
    fn make_room(
        &mut self,
        form: Form,
        topic_count: usize,
        partition_count: usize,
    ) -> Result<(), RequestError> {
        let memory_bytes = Topics::<P>::memory_bytes_of(
            self.topics.len() + topic_count,
            self.partitions.len() + partition_count,
        );
        if memory_bytes > form.memory_bytes_max {
            let api = form.api_key.name();
            return Err(RequestError::TooCostly { api, bytes: form.body_bytes, memory_bytes });
        }
        self.topics.reserve_exact(topic_count);
        self.partitions.reserve_exact(partition_count);
        Ok(())
    }
}

impl Place {
    fn of(self, body: &Bytes) -> Result<TopicRef, Malformed> {
        Ok(match self {
            Place::Name(range) => TopicRef::Name(text(body.slice(range))?),
            Place::Id(id) => TopicRef::Id(id),
        })
    }
}

/// How many topics and how many partitions are ahead: they get their memory at once.
fn count<R>(
    form: Form,
    mut ahead: Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<R, Malformed>,
) -> Result<(usize, usize), RequestError> {
    let (mut topic_count, mut partition_count) = (0, 0);
    walk(form, &mut ahead, read, |found| {
        match found {
            Found::Topic(..) => topic_count += 1,
            Found::Partition(_) => partition_count += 1,
        }
        Ok(())
    })?;
    Ok((topic_count, partition_count))
}

fn walk<R>(
    form: Form,
    reader: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<R, Malformed>,
    mut on: impl FnMut(Found<R>) -> Result<(), RequestError>,
) -> Result<(), RequestError> {
    for _ in 0..reader.required_count(form.flexible)? {
        let place = match form.has_ids {
            true => Place::Id(Uuid(reader.array()?)),
            false => Place::Name(reader.required_string(form.flexible)?),
        };
        let partition_count = reader
            .count_of(form.flexible, PARTITION_BYTES_MIN)?
            .ok_or_else(|| reader.malformed("an array that must be there is null"))?;
        on(Found::Topic(place, partition_count))?;
        for _ in 0..partition_count {
            on(Found::Partition(read(reader)?))?;
        }
        if form.flexible {
            reader.skip_tagged_fields()?;
        }
    }
    Ok(())
}
