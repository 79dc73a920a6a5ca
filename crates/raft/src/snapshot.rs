//! Snapshot files: the whole state machine at one index, durable before anything refers to it.
//!
//! A file is written beside, synced, renamed, and its directory synced; only then does the log get
//! the marker that names it. A file without a marker is left over from a crash.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Snapshot};
use tidelog_wal::{
    env::{Caching, File, FileSystem, Open, read_exact_at, write_all_at},
    error::{Fatal, FsErrorClass, class},
};

use crate::{
    error::RaftError,
    log::{LogFiles, SnapshotMeta},
};

/// `TIDERSN1`: the first eight bytes of a snapshot file.
const MAGIC: &[u8; 8] = b"TIDERSN1";
/// Length of the fixed part in front.
const HEADER_LEN: usize = 48;
const EXTENSION: &str = "snapshot";
const UNFINISHED: &str = "tmp";

/// Where the snapshot of an index lies.
pub(crate) fn path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:020}.{EXTENSION}"))
}

/// Writes a snapshot so that it survives anything from the moment this returns. `false`: the disk
/// is full or descriptors are short, and nothing refers to it; try again later.
///
/// # Errors
/// Any other error ends the process.
pub(crate) fn write(files: &LogFiles, meta: &SnapshotMeta, data: &[u8]) -> Result<bool, Fatal> {
    assert!(meta.index > 0, "index 0 is the empty state and has no file");
    let (fs, dir) = (&*files.fs, &files.snapshots_dir);
    let path = path(dir, meta.index);
    let unfinished = path.with_extension(UNFINISHED);
    let head = encode_head(files.group, meta, data);
    let file = match write_unfinished(fs, &unfinished, &head, data) {
        Ok(file) => file,
        Err(error) if class(&error) != FsErrorClass::Other => {
            // What is left of it only takes space; the next start removes it as well.
            let _ = fs.remove_file(&unfinished);
            return Ok(false);
        }
        Err(error) => return Err(Fatal::new("cannot write", &unfinished, error)),
    };
    file.sync().map_err(|error| Fatal::new("cannot sync", &unfinished, error))?;
    fs.rename(&unfinished, &path).map_err(|error| Fatal::new("cannot rename", &path, error))?;
    match fs.sync_dir(dir) {
        Ok(()) => Ok(true),
        // The directory was not even opened, so no sync failed.
        Err(error) if class(&error) == FsErrorClass::TooManyOpenFiles => Ok(false),
        Err(error) => Err(Fatal::new("cannot sync", dir, error)),
    }
}

/// Reads the snapshot that a marker names.
///
/// # Errors
/// [`RaftError::Damaged`] where the file is not what the marker says, or is not there.
pub(crate) fn read(files: &LogFiles, meta: &SnapshotMeta) -> Result<Snapshot, RaftError> {
    let path = path(&files.snapshots_dir, meta.index);
    let bytes = read_file(&*files.fs, &path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => RaftError::damaged(&path, 0, "the log names it, it is missing"),
        _ => RaftError::io("cannot read", &path, error),
    })?;
    let (found, data) = decode(bytes, files.group).ok_or_else(|| {
        RaftError::damaged(&path, 0, "the snapshot's checksum or layout is wrong")
    })?;
    if found != *meta {
        return Err(RaftError::damaged(&path, 0, "the snapshot is not the one the log names"));
    }
    let mut snapshot = Snapshot { data, ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    metadata.index = meta.index;
    metadata.term = meta.term;
    metadata.set_conf_state(meta.conf_state.clone());
    Ok(snapshot)
}

/// Removes the snapshot files below `index`. The removal needs no sync: what comes back after a
/// crash is removed by the next start.
///
/// # Errors
/// As the file system says.
pub(crate) fn remove_older(files: &LogFiles, index: u64) -> io::Result<()> {
    let keep = path(&files.snapshots_dir, index);
    for path in files.fs.list(&files.snapshots_dir)? {
        if path < keep && extension(&path) == Some(EXTENSION) {
            files.fs.remove_file(&path)?;
        }
    }
    Ok(())
}

/// Removes what a crash left: snapshots that no marker names, and unfinished files.
///
/// # Errors
/// As the file system says.
pub(crate) fn remove_strays(files: &LogFiles, index: u64) -> io::Result<()> {
    let keep = path(&files.snapshots_dir, index);
    for path in files.fs.list(&files.snapshots_dir)? {
        if path != keep && matches!(extension(&path), Some(EXTENSION | UNFINISHED)) {
            files.fs.remove_file(&path)?;
        }
    }
    Ok(())
}

/// Whether there is any finished snapshot.
///
/// # Errors
/// As the file system says.
pub(crate) fn any(files: &LogFiles) -> io::Result<bool> {
    Ok(files.fs.list(&files.snapshots_dir)?.iter().any(|path| extension(path) == Some(EXTENSION)))
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(|extension| extension.to_str())
}

fn write_unfinished(
    fs: &dyn FileSystem,
    path: &Path,
    head: &[u8],
    data: &[u8],
) -> io::Result<Arc<dyn File>> {
    let file = fs.open(path, Open::CreateOrOpen, Caching::Buffered)?;
    file.set_len((head.len() + data.len()) as u64)?;
    write_all_at(&*file, &mut [IoSlice::new(head), IoSlice::new(data)], 0)?;
    Ok(file)
}

fn read_file(fs: &dyn FileSystem, path: &Path) -> io::Result<Bytes> {
    let file = fs.open(path, Open::Read, Caching::Buffered)?;
    let mut bytes = vec![0; file.len()? as usize];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(bytes.into())
}

/// Everything in front of the data.
fn encode_head(group: u32, meta: &SnapshotMeta, data: &[u8]) -> Vec<u8> {
    let members = meta.conf_state.write_to_bytes().expect("writing to memory cannot fail");
    let mut head = Vec::with_capacity(HEADER_LEN + members.len());
    head.put_slice(MAGIC);
    head.put_u32_le(group);
    head.put_u32_le(u32::try_from(members.len()).expect("a group has fewer members"));
    head.put_u64_le(meta.index);
    head.put_u64_le(meta.term);
    head.put_u64_le(data.len() as u64);
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    crc.update(&members);
    crc.update(data);
    head.put_u32_le(crc.finalize() as u32);
    head.put_u32_le(crc_fast::crc32_iscsi(&head));
    assert!(head.len() == HEADER_LEN, "the header's layout is fixed");
    head.put_slice(&members);
    head
}

fn decode(mut bytes: Bytes, group: u32) -> Option<(SnapshotMeta, Bytes)> {
    let header = bytes.get(..HEADER_LEN)?;
    let crc_at = HEADER_LEN - 4;
    let header_crc = crc_fast::crc32_iscsi(&header[..crc_at]);
    if &header[..8] != MAGIC || header[crc_at..] != header_crc.to_le_bytes() {
        return None;
    }
    bytes.advance(8);
    let found_group = bytes.get_u32_le();
    let members_len = bytes.get_u32_le() as usize;
    let (index, term, data_len) = (bytes.get_u64_le(), bytes.get_u64_le(), bytes.get_u64_le());
    let body_crc = bytes.get_u32_le();
    bytes.advance(4);
    let expected = (members_len as u64).checked_add(data_len)?;
    let is_whole = found_group == group && bytes.len() as u64 == expected;
    if !is_whole || crc_fast::crc32_iscsi(&bytes) != body_crc {
        return None;
    }
    let members = bytes.split_to(members_len);
    let conf_state = ConfState::parse_from_carllerche_bytes(&members).ok()?;
    Some((SnapshotMeta { index, term, conf_state }, bytes))
}
