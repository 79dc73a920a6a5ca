//! Snapshot files: state that can be rebuilt from a partition's log, kept so that it need not be.
//!
//! A snapshot counts only while the checkpoint names it; any other file of this kind is rubbish.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tidelog_types::Offset;

use crate::{
    checkpoint::{SnapshotName, read_whole, write_synced},
    checksum::crc32c,
    env::FileSystem,
    error::{WalError, sync_dir},
    log::Snapshot,
    shard::{LogInner, Shard, partition_dir},
};

const MAGIC: [u8; 8] = *b"TIDESNP1";
const HEADER_BYTES: usize = 24;
const EXTENSION: &str = "snapshot";

/// Writes a partition's snapshot, unless the partition has no directory yet or one with this tag.
/// It is there for good if `is_synced`; if not, the caller syncs the disk.
///
/// # Errors
/// As [`write`].
pub(crate) fn keep(
    shard: &Shard,
    log: &LogInner,
    snapshot: &Snapshot,
    sequence: u64,
    is_synced: bool,
) -> Result<Option<SnapshotName>, WalError> {
    let dir: PathBuf = partition_dir(&shard.config, log.id);
    let (known, known_everywhere) = {
        let state = log.state();
        let everywhere = state.snapshots.iter().chain(&state.entry.snapshots).copied();
        (state.snapshots.clone(), everywhere.collect::<Vec<_>>())
    };
    let is_there = shard.fs.exists(&dir).map_err(|e| WalError::of("cannot look at", &dir, e))?;
    if !is_there || known.iter().any(|name| name.tag == snapshot.tag) {
        return Ok(None);
    }
    remove_unnamed(&*shard.fs, &dir, &known_everywhere)?;
    let name = write(&*shard.fs, &dir, snapshot, sequence, is_synced)?;
    if is_synced {
        sync_dir(&*shard.fs, &dir)?;
    }
    Ok(Some(name))
}

/// Writes a snapshot, and syncs it if `is_synced`; its name is durable after a sync of the
/// directory.
///
/// # Errors
/// [`WalError::DiskFull`] and the like; a failed sync is fatal.
pub(crate) fn write(
    fs: &dyn FileSystem,
    dir: &Path,
    snapshot: &Snapshot,
    sequence: u64,
    is_synced: bool,
) -> Result<SnapshotName, WalError> {
    assert!(snapshot.tag >= Offset::ZERO, "a snapshot includes a part of a log");
    let name = SnapshotName { tag: snapshot.tag, sequence };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + snapshot.bytes.len() + 4);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&name.tag.0.to_le_bytes());
    bytes.extend_from_slice(&name.sequence.to_le_bytes());
    bytes.extend_from_slice(&snapshot.bytes);
    let sum = crc32c(&[&bytes]);
    bytes.extend_from_slice(&sum.to_le_bytes());
    write_synced(fs, &path(dir, name), &bytes, is_synced)?;
    Ok(name)
}

/// Reads a snapshot; `None` if it is missing or damaged: the log is there to rebuild it from.
///
/// # Errors
/// When the file system fails.
pub(crate) fn read(
    fs: &dyn FileSystem,
    dir: &Path,
    name: SnapshotName,
) -> Result<Option<Snapshot>, WalError> {
    let path = path(dir, name);
    let bytes = read_whole(fs, &path)?;
    let snapshot = bytes.and_then(|bytes| decode(bytes, name));
    if snapshot.is_none() {
        tracing::warn!(path = %path.display(), "snapshot missing or damaged: using the log");
    }
    Ok(snapshot)
}

/// Removes every snapshot of the directory that is not among `named`.
///
/// # Errors
/// When the file system fails.
pub(crate) fn remove_unnamed(
    fs: &dyn FileSystem,
    dir: &Path,
    named: &[SnapshotName],
) -> Result<(), WalError> {
    let names = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(|error| WalError::of("cannot list", dir, error))?,
    };
    for found in names {
        let is_snapshot = found.extension().is_some_and(|extension| extension == EXTENSION);
        if is_snapshot && !named.iter().any(|name| path(dir, *name) == found) {
            fs.remove_file(&found).map_err(|e| WalError::of("cannot remove", &found, e))?;
        }
    }
    Ok(())
}

fn path(dir: &Path, name: SnapshotName) -> PathBuf {
    dir.join(format!("{:020}-{:020}.{EXTENSION}", name.tag.0, name.sequence))
}

fn decode(bytes: Vec<u8>, name: SnapshotName) -> Option<Snapshot> {
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    if crc32c(&[body]) != u32::from_le_bytes(*sum) || body.get(..8)? != MAGIC {
        return None;
    }
    let tag = i64::from_le_bytes(body.get(8..16)?.try_into().ok()?);
    let sequence = u64::from_le_bytes(body.get(16..24)?.try_into().ok()?);
    if (SnapshotName { tag: Offset(tag), sequence }) != name {
        return None;
    }
    let end = body.len();
    Some(Snapshot { tag: name.tag, bytes: Bytes::from(bytes).slice(HEADER_BYTES..end) })
}
