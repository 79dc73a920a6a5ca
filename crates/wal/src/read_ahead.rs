//! Which logs are being read from front to back, and what was read ahead for them. Pure.
//!
//! A stream is known by where its next read begins. The first read of a log begins one; only a
//! read that begins where one before it ended is worth reading ahead for.

use std::{collections::VecDeque, mem};

use tidelog_types::{Offset, TopicIdPartition};

/// Streams that are remembered.
const STREAMS_MAX: usize = 32;
/// Streams that hold what was read ahead.
const HELD_MAX: usize = 4;

/// Reads that may go on.
#[derive(Debug)]
pub(crate) struct Streams<R> {
    /// The one read last is the last.
    streams: VecDeque<Stream<R>>,
}

#[derive(Debug)]
struct Stream<R> {
    id: TopicIdPartition,
    next: Offset,
    state: Ahead<R>,
}

#[derive(Debug)]
enum Ahead<R> {
    /// Nothing, and nothing is wanted.
    None,
    /// So many bytes may be read ahead.
    Due(u64),
    /// What was read.
    Held(R),
}

/// Something to read ahead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) id: TopicIdPartition,
    pub(crate) from: Offset,
    pub(crate) max_bytes: u64,
}

impl<R> Default for Streams<R> {
    fn default() -> Streams<R> {
        Streams { streams: VecDeque::new() }
    }
}

impl<R> Streams<R> {
    /// A read begins: whether it goes on where one ended, and what was read ahead for it.
    pub(crate) fn begin(&mut self, id: TopicIdPartition, from: Offset) -> (bool, Option<R>) {
        let found = self.streams.iter().rposition(|s| (s.id, s.next) == (id, from));
        match found.and_then(|at| self.streams.remove(at)) {
            Some(Stream { state: Ahead::Held(held), .. }) => (true, Some(held)),
            Some(_) => (true, None),
            None => (false, None),
        }
    }

    /// A read of up to so many bytes ended at `next`; `goes_on` as [`Streams::begin`] said.
    pub(crate) fn end(&mut self, id: TopicIdPartition, next: Offset, goes_on: bool, bytes: u64) {
        let state = if goes_on { Ahead::Due(bytes) } else { Ahead::None };
        self.streams.push_back(Stream { id, next, state });
        if self.streams.len() > STREAMS_MAX {
            self.streams.pop_front();
        }
    }

    /// The next to read ahead: the one that waits longest. It is not due again.
    pub(crate) fn due(&mut self) -> Option<Due> {
        let is_due = |stream: &&mut Stream<R>| matches!(stream.state, Ahead::Due(_));
        let stream = self.streams.iter_mut().find(is_due)?;
        match mem::replace(&mut stream.state, Ahead::None) {
            Ahead::Due(max_bytes) => Some(Due { id: stream.id, from: stream.next, max_bytes }),
            Ahead::None | Ahead::Held(_) => None,
        }
    }

    /// Keeps what was read ahead, in the place of what another stream has left longest.
    pub(crate) fn hold(&mut self, due: &Due, read: R) {
        let held = self.streams.iter_mut().filter(|s| matches!(s.state, Ahead::Held(_)));
        let mut held: Vec<_> = held.collect();
        if held.len() >= HELD_MAX {
            held[0].state = Ahead::None;
        }
        let found = self.streams.iter_mut().rfind(|s| (s.id, s.next) == (due.id, due.from));
        if let Some(stream) = found {
            stream.state = Ahead::Held(read);
        }
    }

    /// Forgets every stream; whether there were any.
    pub(crate) fn clear(&mut self) -> bool {
        !mem::take(&mut self.streams).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tidelog_types::Uuid;

    use super::*;

    fn id(partition: i32) -> TopicIdPartition {
        TopicIdPartition { topic_id: Uuid([1; 16]), partition }
    }

    /// Reads `from..next` of a partition; what had been read ahead for it.
    fn read(streams: &mut Streams<u8>, partition: i32, from: i64, next: i64) -> Option<u8> {
        let (goes_on, held) = streams.begin(id(partition), Offset(from));
        streams.end(id(partition), Offset(next), goes_on, 100);
        held
    }

    fn due(partition: i32, from: i64) -> Due {
        Due { id: id(partition), from: Offset(from), max_bytes: 100 }
    }

    #[test]
    fn only_a_read_that_goes_on_where_one_ended_is_worth_reading_ahead_for() {
        let mut streams = Streams::default();
        assert_eq!(read(&mut streams, 0, 0, 10), None);
        assert_eq!(streams.due(), None);
        assert_eq!(read(&mut streams, 0, 12, 20), None);
        assert_eq!(read(&mut streams, 1, 10, 20), None);
        assert_eq!(streams.due(), None);
        assert_eq!(read(&mut streams, 0, 10, 30), None);
        assert_eq!((streams.due(), streams.due()), (Some(due(0, 30)), None));
    }

    #[test]
    fn what_was_read_ahead_is_handed_out_once_and_where_it_begins() {
        let mut streams = Streams::default();
        read(&mut streams, 0, 0, 10);
        read(&mut streams, 0, 10, 20);
        let ahead = streams.due().unwrap();
        streams.hold(&ahead, 7);
        assert_eq!(read(&mut streams, 0, 21, 30), None);
        assert_eq!(read(&mut streams, 0, 20, 30), Some(7));
        assert_eq!(read(&mut streams, 0, 20, 30), None);
        assert!(streams.clear() && !streams.clear());
        streams.hold(&ahead, 7);
        assert_eq!(read(&mut streams, 0, 20, 30), None);
    }

    #[test]
    fn what_is_remembered_and_held_is_bounded() {
        let mut streams = Streams::default();
        for partition in 0..STREAMS_MAX as i32 + 1 {
            read(&mut streams, partition, 0, 10);
            assert_eq!(read(&mut streams, partition, 10, 20), None);
        }
        assert_eq!(streams.streams.len(), STREAMS_MAX);
        for partition in 1..=HELD_MAX as i32 + 1 {
            assert_eq!(streams.due(), Some(due(partition, 20)));
            streams.hold(&due(partition, 20), partition as u8);
        }
        assert_eq!(read(&mut streams, 1, 20, 30), None);
        assert_eq!(read(&mut streams, 2, 20, 30), Some(2));
    }
}
