//! Which entries go into which segment. Pure.

use tidelog_types::{Entry, Offset};

/// Entries for one segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run<'a> {
    /// The base offset of the segment to begin for them; `None` to go on with the last one.
    pub(crate) begins: Option<Offset>,
    /// At least one.
    pub(crate) entries: &'a [Entry],
}

/// The segment that is written to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Active {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
}

/// Splits entries where a segment would grow beyond `segment_bytes`, where an offset would lie too
/// far from the segment's base for Kafka's tools, and where offsets are missing.
pub(crate) fn runs<'a>(
    active: Option<Active>,
    entries: &'a [Entry],
    segment_bytes: u64,
) -> Vec<Run<'a>> {
    let mut runs = Vec::new();
    let mut active = active;
    let (mut start, mut begins) = (0, None);
    for (at, entry) in entries.iter().enumerate() {
        let facts = entry.facts();
        let bytes = entry.len() as u64;
        let fits = active.is_some_and(|active| {
            active.end == facts.base_offset
                && active.bytes + bytes <= segment_bytes
                && facts.last_offset().0 - active.base.0 <= i64::from(i32::MAX)
        });
        if !fits {
            if at > start {
                runs.push(Run { begins, entries: &entries[start..at] });
            }
            (start, begins) = (at, Some(facts.base_offset));
        }
        let (base, before) = match active {
            Some(active) if fits => (active.base, active.bytes),
            _ => (facts.base_offset, 0),
        };
        active = Some(Active { base, end: facts.next_offset(), bytes: before + bytes });
    }
    if start < entries.len() {
        runs.push(Run { begins, entries: &entries[start..] });
    }
    runs
}
