//! The checkpoint: where recovery starts, and what each partition was at that point.
//!
//! One thread writes it. `docs/formats.md` holds the layout for those who read the bytes.

use std::{
    io::{self, IoSlice},
    ops::Range,
    path::Path,
    sync::Arc,
};

use tidelog_types::{Offset, TopicIdPartition, Uuid};

use crate::{
    checksum::crc32c,
    env::{Caching, FileSystem, Open, read_exact_at, write_all_at},
    error::{Fatal, WalError, sync_dir},
    frame::SEQUENCE_END,
    rules::{Rule, holds},
};

const MAGIC: [u8; 8] = *b"TIDECKP1";
/// Version 1 knew nothing of compaction.
const VERSIONS: std::ops::RangeInclusive<u16> = 1..=2;
const NAME: &str = "checkpoint";
const TEMPORARY_NAME: &str = "checkpoint.tmp";

const FLAG_REMOVED: u32 = 1;
const FLAG_SUSPECT: u32 = 2;

/// A snapshot file, by what its name is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotName {
    /// The log end offset that the state includes.
    pub(crate) tag: Offset,
    /// The durable sequence when it was written: a tag may come back with another state.
    pub(crate) sequence: u64,
}

/// One partition, exactly as it was when every frame up to `spilled_through` was in segments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PartitionEntry {
    pub(crate) spilled_through: u64,
    pub(crate) recovery_point: Offset,
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) snapshots: Vec<SnapshotName>,
    pub(crate) damaged: Vec<Range<Offset>>,
    /// Segments that begin below may have been compacted, so that offsets are missing there.
    pub(crate) holes_below: Offset,
    /// Compaction has seen everything below: the first dirty offset.
    pub(crate) clean_below: Offset,
    pub(crate) is_suspect: bool,
    /// A tombstone: frames up to `spilled_through` are of a log that was removed.
    pub(crate) is_removed: bool,
}

impl PartitionEntry {
    /// What stays of a removed partition while the WAL holds frames of it.
    pub(crate) fn tombstone(spilled_through: u64) -> PartitionEntry {
        PartitionEntry { spilled_through, is_removed: true, ..PartitionEntry::default() }
    }

    /// A partition that comes back after such a removal, or that was never there.
    pub(crate) fn fresh(spilled_through: u64) -> PartitionEntry {
        PartitionEntry { spilled_through, ..PartitionEntry::default() }
    }

    /// Without syncs, what was told may be gone after a power loss, and that is not damage.
    pub(crate) fn state_only_what_is_synced(&mut self) {
        self.high_watermark = self.high_watermark.min(self.recovery_point);
        self.log_start = self.log_start.min(self.recovery_point);
    }
}

/// The whole directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Checkpoint {
    /// Every sequence up to here was durable.
    pub(crate) durable_sequence: u64,
    /// No partition needs a frame below.
    pub(crate) oldest_needed: u64,
    /// Frames were lost that may have been of partitions that are not listed here.
    pub(crate) has_lost: bool,
    /// In order of id.
    pub(crate) partitions: Vec<(TopicIdPartition, PartitionEntry)>,
}

impl Checkpoint {
    /// The highest sequence that this vouches for.
    pub(crate) fn vouches_through(&self) -> u64 {
        let spilled = self.partitions.iter().map(|(_, entry)| entry.spilled_through);
        spilled.fold(self.durable_sequence, u64::max)
    }

    /// Puts it in place of the one before, durably.
    ///
    /// # Errors
    /// [`WalError::DiskFull`] leaves the one before in place; a failed sync is fatal.
    pub(crate) fn write(&self, fs: &Arc<dyn FileSystem>, dir: &Path) -> Result<(), WalError> {
        let (temporary, path) = (dir.join(TEMPORARY_NAME), dir.join(NAME));
        write_synced(&**fs, &temporary, &self.encode(), holds(Rule::CheckpointSynced))?;
        fs.rename(&temporary, &path).map_err(|e| WalError::of("cannot rename", &path, e))?;
        sync_dir(&**fs, dir)
    }

    /// Reads it; `None` if there is none.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] when it is there and cannot be believed.
    pub(crate) fn read(
        fs: &Arc<dyn FileSystem>,
        dir: &Path,
    ) -> Result<Option<Checkpoint>, WalError> {
        let path = dir.join(NAME);
        let Some(bytes) = read_whole(&**fs, &path)? else { return Ok(None) };
        let corrupt = WalError::Corrupt { path, what: "the checkpoint is damaged" };
        Checkpoint::decode(&bytes).map(Some).ok_or(corrupt)
    }

    fn encode(&self) -> Vec<u8> {
        assert!(self.oldest_needed <= self.durable_sequence + 1, "nothing newer is needed");
        assert!(
            self.partitions.is_sorted_by(|(before, _), (after, _)| before < after),
            "recovery looks partitions up"
        );
        let mut out = Vec::with_capacity(64 + 96 * self.partitions.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSIONS.end().to_le_bytes());
        out.extend_from_slice(&u16::from(self.has_lost).to_le_bytes());
        out.extend_from_slice(&(self.partitions.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.durable_sequence.to_le_bytes());
        out.extend_from_slice(&self.oldest_needed.to_le_bytes());
        for (id, entry) in &self.partitions {
            encode_entry(&mut out, *id, entry);
        }
        let sum = crc32c(&[&out]);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Checkpoint> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        if crc32c(&[body]) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut input = Input(body);
        let is_magic = input.take::<8>()? == MAGIC;
        let version = u16::from_le_bytes(input.take()?);
        if !is_magic || !VERSIONS.contains(&version) {
            return None;
        }
        let has_lost = u16::from_le_bytes(input.take()?) != 0;
        let count = input.u32()?;
        let (durable_sequence, oldest_needed) = (input.u64()?, input.u64()?);
        let mut partitions = Vec::new();
        for _ in 0..count {
            partitions.push(decode_entry(&mut input, version)?);
        }
        let is_whole = input.0.is_empty();
        let found = Checkpoint { durable_sequence, oldest_needed, has_lost, partitions };
        (is_whole && found.vouches_through() < SEQUENCE_END).then_some(found)
    }
}

/// Creates a file or takes the place of one, with exactly these bytes.
pub(crate) fn write_synced(
    fs: &dyn FileSystem,
    path: &Path,
    bytes: &[u8],
    sync: bool,
) -> Result<(), WalError> {
    let failed = |error| WalError::of("cannot write", path, error);
    let file = fs.open(path, Open::CreateOrOpen, Caching::Buffered).map_err(failed)?;
    write_all_at(&*file, &mut [IoSlice::new(bytes)], 0).map_err(failed)?;
    file.set_len(bytes.len() as u64).map_err(failed)?;
    if sync {
        file.sync().map_err(|error| Fatal::new("cannot sync", path, error))?;
    }
    Ok(())
}

/// Reads a small file; `None` if there is none.
pub(crate) fn read_whole(fs: &dyn FileSystem, path: &Path) -> Result<Option<Vec<u8>>, WalError> {
    let failed = |error| WalError::of("cannot read", path, error);
    let file = match fs.open(path, Open::Read, Caching::Buffered) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut bytes = vec![0; file.len().map_err(failed)? as usize];
    read_exact_at(&*file, &mut bytes, 0).map_err(failed)?;
    Ok(Some(bytes))
}

fn encode_entry(out: &mut Vec<u8>, id: TopicIdPartition, entry: &PartitionEntry) {
    let removed = if entry.is_removed { FLAG_REMOVED } else { 0 };
    let suspect = if entry.is_suspect { FLAG_SUSPECT } else { 0 };
    out.extend_from_slice(&id.topic_id.0);
    out.extend_from_slice(&id.partition.to_le_bytes());
    out.extend_from_slice(&(removed | suspect).to_le_bytes());
    out.extend_from_slice(&entry.spilled_through.to_le_bytes());
    out.extend_from_slice(&entry.recovery_point.0.to_le_bytes());
    out.extend_from_slice(&entry.log_start.0.to_le_bytes());
    out.extend_from_slice(&entry.high_watermark.0.to_le_bytes());
    out.extend_from_slice(&entry.holes_below.0.to_le_bytes());
    out.extend_from_slice(&entry.clean_below.0.to_le_bytes());
    out.extend_from_slice(&(entry.snapshots.len() as u32).to_le_bytes());
    out.extend_from_slice(&(entry.damaged.len() as u32).to_le_bytes());
    for snapshot in &entry.snapshots {
        out.extend_from_slice(&snapshot.tag.0.to_le_bytes());
        out.extend_from_slice(&snapshot.sequence.to_le_bytes());
    }
    for range in &entry.damaged {
        out.extend_from_slice(&range.start.0.to_le_bytes());
        out.extend_from_slice(&range.end.0.to_le_bytes());
    }
}

fn decode_entry(input: &mut Input<'_>, version: u16) -> Option<(TopicIdPartition, PartitionEntry)> {
    let topic_id = Uuid(input.take()?);
    let partition = i32::from_le_bytes(input.take()?);
    let flags = input.u32()?;
    let mut entry = PartitionEntry {
        spilled_through: input.u64()?,
        recovery_point: input.offset()?,
        log_start: input.offset()?,
        high_watermark: input.offset()?,
        is_suspect: flags & FLAG_SUSPECT != 0,
        is_removed: flags & FLAG_REMOVED != 0,
        ..PartitionEntry::default()
    };
    if version >= 2 {
        (entry.holes_below, entry.clean_below) = (input.offset()?, input.offset()?);
    }
    let (snapshots, damaged) = (input.u32()?, input.u32()?);
    for _ in 0..snapshots {
        entry.snapshots.push(SnapshotName { tag: input.offset()?, sequence: input.u64()? });
    }
    for _ in 0..damaged {
        entry.damaged.push(input.offset()?..input.offset()?);
    }
    Some((TopicIdPartition { topic_id, partition }, entry))
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take()?))
    }

    fn offset(&mut self) -> Option<Offset> {
        Some(Offset(i64::from_le_bytes(self.take()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_back_and_every_flipped_bit_is_seen() {
        let entry = PartitionEntry {
            spilled_through: 7,
            recovery_point: Offset(20),
            log_start: Offset(3),
            high_watermark: Offset(19),
            snapshots: vec![SnapshotName { tag: Offset(10), sequence: 5 }],
            damaged: vec![Offset(4)..Offset(6)],
            holes_below: Offset(15),
            clean_below: Offset(12),
            is_suspect: true,
            is_removed: false,
        };
        let id = TopicIdPartition { topic_id: Uuid([3; 16]), partition: 2 };
        let checkpoint = Checkpoint {
            durable_sequence: 9,
            oldest_needed: 4,
            has_lost: true,
            partitions: vec![(TopicIdPartition::default(), PartitionEntry::default()), (id, entry)],
        };
        let bytes = checkpoint.encode();
        assert_eq!(Checkpoint::decode(&bytes), Some(checkpoint));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_checkpoint_of_version_1_tells_of_no_compaction() {
        let entry = PartitionEntry { recovery_point: Offset(20), ..PartitionEntry::default() };
        let partitions = vec![(TopicIdPartition::default(), entry)];
        let checkpoint = Checkpoint { durable_sequence: 9, partitions, ..Checkpoint::default() };
        let mut bytes = checkpoint.encode();
        bytes[8] = 1;
        let offsets = 32 + 20 + 4 + 32; // behind the high watermark
        bytes.drain(offsets..offsets + 16);
        bytes.truncate(bytes.len() - 4);
        bytes.extend_from_slice(&crc32c(&[&bytes]).to_le_bytes());
        assert_eq!(Checkpoint::decode(&bytes), Some(checkpoint));
    }

    #[test]
    fn a_checkpoint_of_sequences_that_no_log_gets_to_is_refused() {
        let spilled = PartitionEntry { spilled_through: SEQUENCE_END, ..PartitionEntry::default() };
        let id = TopicIdPartition::default();
        for (durable_sequence, partitions) in [(SEQUENCE_END, vec![]), (9, vec![(id, spilled)])] {
            let lies = Checkpoint { durable_sequence, partitions, ..Checkpoint::default() };
            assert_eq!(Checkpoint::decode(&lies.encode()), None, "{lies:?}");
        }
    }
}
