//! Looks into a data directory and changes nothing: for `tidelog wal inspect` and `wal verify`.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidelog_types::{BATCH_HEADER_LEN, Offset, TopicIdPartition};

use crate::{
    chain::{BLOCK_BYTES, ChainFile, FileHeader},
    checkpoint::{Checkpoint, PartitionEntry},
    env::{Caching, FileSystem, Open, read_exact_at},
    error::WalError,
    recovery::{
        OWNER,
        scan::{Item, judge, scan},
    },
    segment::{Holes, base_of, header_at, is_whole},
    shard::partition_dir_in,
};

/// Bytes of the largest batch that a Kafka client can send.
const BATCH_BYTES_MAX: i64 = i32::MAX as i64;

/// What a data directory says of itself, without looking at every record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Every WAL sequence up to here was synced when the checkpoint was written.
    pub durable_sequence: u64,
    /// No partition needs a WAL frame below.
    pub oldest_needed: u64,
    /// The partitions of the checkpoint, in order of id.
    pub partitions: Vec<PartitionView>,
    /// WAL files, the oldest first; those that hold nothing come last.
    pub files: Vec<FileView>,
}

/// One partition as of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionView {
    /// Which partition.
    pub id: TopicIdPartition,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// Everything below is in segments; what is above is in the WAL.
    pub recovery_point: Offset,
    /// The high watermark when the checkpoint was written.
    pub high_watermark: Offset,
    /// Segment files.
    pub segments: usize,
    /// Bytes of the segment files.
    pub bytes: u64,
    /// Offsets known to be damaged.
    pub damaged: Vec<Range<Offset>>,
    /// Whether offsets may be missing that nobody can name.
    pub is_suspect: bool,
}

/// One WAL file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileView {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// What its header says; `None` for a file that was filled with zeros and not begun.
    pub header: Option<FileHeader>,
}

/// What [`verify`] read, and what was wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// WAL frames whose checksums hold.
    pub frames: u64,
    /// Batches in segments whose checksums hold.
    pub batches: u64,
    /// Segment files read.
    pub segments: u64,
    /// Bytes of those batches.
    pub bytes: u64,
    /// What the next start would cut off the end of the WAL: written, and never known synced.
    pub torn_frames: u64,
    /// Everything that does not read.
    pub damage: Vec<Damage>,
}

/// Something that was synced and does not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, or the directory for what spans files.
    pub path: PathBuf,
    /// Where in the file, in bytes, if that is known.
    pub position: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// Reads the checkpoint and the names and headers of files. A node may be running over them: then
/// this is a moment's picture.
///
/// # Errors
/// [`WalError::Corrupt`] when the checkpoint cannot be believed, and as the file system fails.
pub fn inspect(fs: &Arc<dyn FileSystem>, data_dir: &Path) -> Result<Inspection, WalError> {
    let dir = data_dir.join("wal");
    let checkpoint = Checkpoint::read(fs, &dir)?.unwrap_or_default();
    let mut partitions = Vec::new();
    for (id, entry) in checkpoint.partitions.iter().filter(|(_, entry)| !entry.is_removed) {
        partitions.push(view(&**fs, data_dir, *id, entry)?);
    }
    let mut files: Vec<FileView> = wal_files(&**fs, &dir)?
        .into_iter()
        .map(|(file, header)| file_view(&file, header))
        .collect();
    files.sort_by_key(|file| file.header.map_or(u64::MAX, |header| header.number));
    let Checkpoint { durable_sequence, oldest_needed, .. } = checkpoint;
    Ok(Inspection { durable_sequence, oldest_needed, partitions, files })
}

/// Reads every WAL frame and every batch of every segment, and compares checksums and offsets.
/// Takes the directory's lock: what a running node writes would look like damage.
///
/// # Errors
/// [`WalError::Locked`] while a node runs over the directory, [`WalError::Corrupt`] when the
/// checkpoint cannot be believed, and as the file system fails.
pub fn verify(fs: &Arc<dyn FileSystem>, data_dir: &Path) -> Result<Verified, WalError> {
    let dir = data_dir.join("wal");
    let _lock = fs.lock(&dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => WalError::Locked { path: dir.clone() },
        _ => WalError::of("cannot lock", &dir, error),
    })?;
    let checkpoint = Checkpoint::read(fs, &dir)?.unwrap_or_default();
    let mut verified = Verified::default();
    verify_wal(&**fs, &dir, &checkpoint, &mut verified)?;
    for (id, entry) in checkpoint.partitions.iter().filter(|(_, entry)| !entry.is_removed) {
        verify_partition(&**fs, &partition_dir_in(data_dir, *id), entry, &mut verified)?;
    }
    Ok(verified)
}

fn view(
    fs: &dyn FileSystem,
    data_dir: &Path,
    id: TopicIdPartition,
    entry: &PartitionEntry,
) -> Result<PartitionView, WalError> {
    let (mut segments, mut bytes) = (0, 0);
    for (path, _) in segment_files(fs, &partition_dir_in(data_dir, id))? {
        segments += 1;
        let file = open(fs, &path)?;
        bytes += file.len().map_err(|error| WalError::of("cannot read", &path, error))?;
    }
    Ok(PartitionView {
        id,
        log_start: entry.log_start,
        recovery_point: entry.recovery_point,
        high_watermark: entry.high_watermark,
        segments,
        bytes,
        damaged: entry.damaged.clone(),
        is_suspect: entry.is_suspect,
    })
}

fn file_view(file: &Opened, header: Option<FileHeader>) -> FileView {
    let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned());
    FileView { name: name.unwrap_or_default(), bytes: file.bytes, header }
}

/// A file that was opened for reading.
struct Opened {
    path: PathBuf,
    bytes: u64,
    file: Arc<dyn crate::env::File>,
}

fn wal_files(
    fs: &dyn FileSystem,
    dir: &Path,
) -> Result<Vec<(Opened, Option<FileHeader>)>, WalError> {
    let mut found = Vec::new();
    for path in list_or_none(fs, dir)? {
        if path.extension().is_none_or(|extension| extension != "wal") {
            continue;
        }
        let file = open(fs, &path)?;
        let failed = |error| WalError::of("cannot read", &path, error);
        let bytes = file.len().map_err(failed)?;
        let mut block = [0; BLOCK_BYTES as usize];
        read_exact_at(&*file, &mut block, 0).map_err(failed)?;
        let header = FileHeader::decode_block(&block, OWNER).map_err(|_| WalError::Corrupt {
            path: path.clone(),
            what: "the file's header is damaged, or of another log or version",
        })?;
        found.push((Opened { path, bytes, file }, header));
    }
    Ok(found)
}

fn verify_wal(
    fs: &dyn FileSystem,
    dir: &Path,
    checkpoint: &Checkpoint,
    verified: &mut Verified,
) -> Result<(), WalError> {
    let chain = chain(wal_files(fs, dir)?, checkpoint.oldest_needed);
    let oldest_needed = checkpoint.oldest_needed.max(1);
    if chain.first().is_some_and(|file| file.header.first_sequence > oldest_needed) {
        verified.damage.push(Damage {
            path: dir.to_owned(),
            position: None,
            what: "a WAL file that is still needed is missing".to_owned(),
        });
    }
    let scan = scan(&chain, |_| false)?;
    let judged = judge(scan, checkpoint.vouches_through());
    for item in &judged.kept {
        match item {
            Item::Whole(..) => verified.frames += 1,
            Item::Damaged(header) => verified.damage.push(Damage {
                path: dir.to_owned(),
                position: None,
                what: format!(
                    "WAL frame {}: the batch of {} at offsets {} to {} does not match its checksum",
                    header.sequence, header.id, header.base_offset.0, header.last_offset.0
                ),
            }),
            Item::Lost { from, to } => verified.damage.push(Damage {
                path: dir.to_owned(),
                position: None,
                what: format!("WAL frames {from} to {to} are lost"),
            }),
        }
    }
    if let Some((_, _, last)) = judged.cut {
        verified.torn_frames = (last + 1).saturating_sub(judged.next_sequence);
    }
    Ok(())
}

/// The newest file and those that its predecessors lead to, oldest first.
fn chain(mut files: Vec<(Opened, Option<FileHeader>)>, oldest_needed: u64) -> Vec<Arc<ChainFile>> {
    let mut chain = Vec::new();
    let mut next = files.iter().filter_map(|(_, header)| header.map(|header| header.number)).max();
    while let Some(place) =
        files.iter().position(|(_, header)| header.is_some_and(|h| Some(h.number) == next))
    {
        let (Opened { path, bytes, file }, header) = files.swap_remove(place);
        let header = header.expect("looked for by its number");
        assert!(header.predecessor < header.number, "checked by the header's CRC");
        let is_enough = header.first_sequence <= oldest_needed;
        next = (!is_enough).then_some(header.predecessor);
        chain.push(Arc::new(ChainFile { header, path, bytes, file }));
    }
    chain.reverse();
    chain
}

fn verify_partition(
    fs: &dyn FileSystem,
    dir: &Path,
    entry: &PartitionEntry,
    verified: &mut Verified,
) -> Result<(), WalError> {
    // What was spilled and not checkpointed is in the WAL as well.
    let mut files = segment_files(fs, dir)?;
    files.retain(|(_, base)| *base < entry.recovery_point);
    let ends: Vec<Offset> = files.iter().skip(1).map(|(_, base)| *base).collect();
    let ends = ends.into_iter().chain([entry.recovery_point]);
    let mut expected: Option<Offset> = None;
    for ((path, base), end) in files.into_iter().zip(ends) {
        // The first one may begin below the log start.
        if expected.map_or(base > entry.log_start, |expected| expected != base) {
            let what = format!("offsets before {} are missing", base.0);
            verified.damage.push(Damage { path: path.clone(), position: None, what });
        }
        verified.segments += 1;
        expected = Some(verify_segment(fs, &path, base..end, entry.holes_below, verified)?);
    }
    let end = expected.unwrap_or(entry.log_start);
    if end < entry.recovery_point
        && !verified.damage.iter().any(|found| found.path.starts_with(dir))
    {
        let what = format!("segments end at offset {}, expected {}", end.0, entry.recovery_point.0);
        verified.damage.push(Damage { path: dir.to_owned(), position: None, what });
    }
    Ok(())
}

/// Returns the offset behind the last batch that reads.
fn verify_segment(
    fs: &dyn FileSystem,
    path: &Path,
    range: Range<Offset>,
    holes_below: Offset,
    verified: &mut Verified,
) -> Result<Offset, WalError> {
    let Range { start: base, end: upper } = range;
    let holes = if base < holes_below { Holes::Allowed } else { Holes::None };
    let file = open(fs, path)?;
    let failed = |error| WalError::of("cannot read", path, error);
    let length = file.len().map_err(failed)?;
    let (mut position, mut expected) = (0, base);
    let mut batch = Vec::new();
    while position < length && expected < upper {
        let mut header = [0; BATCH_HEADER_LEN];
        let header_len = (length - position).min(BATCH_HEADER_LEN as u64) as usize;
        read_exact_at(&*file, &mut header[..header_len], position).map_err(failed)?;
        let found = header_at(&header[..header_len], expected, holes).map(|(_, facts)| facts);
        let fits = |bytes: i64| bytes <= BATCH_BYTES_MAX && position + bytes as u64 <= length;
        let Some(facts) = found.filter(|facts| fits(facts.batch_bytes())) else {
            let what = format!("no batch that begins at offset {}", expected.0);
            let damage = Damage { path: path.to_owned(), position: Some(position), what };
            verified.damage.push(damage);
            return Ok(expected);
        };
        batch.resize(facts.batch_bytes() as usize, 0);
        read_exact_at(&*file, &mut batch, position).map_err(failed)?;
        if is_whole(&batch, &facts) {
            verified.batches += 1;
            verified.bytes += batch.len() as u64;
        } else {
            let (first, last) = (facts.base_offset.0, facts.last_offset().0);
            let what =
                format!("the batch at offsets {first} to {last} does not match its checksum");
            let damage = Damage { path: path.to_owned(), position: Some(position), what };
            verified.damage.push(damage);
        }
        assert!(facts.next_offset() > expected && !batch.is_empty(), "each batch is a step ahead");
        position += batch.len() as u64;
        expected = facts.next_offset();
    }
    Ok(expected)
}

/// Segment files of a partition with their base offsets, in order.
fn segment_files(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<(PathBuf, Offset)>, WalError> {
    let names = list_or_none(fs, dir)?;
    let mut found: Vec<(PathBuf, Offset)> =
        names.into_iter().filter_map(|path| base_of(&path).map(|base| (path, base))).collect();
    found.sort_by_key(|(_, base)| *base);
    Ok(found)
}

fn open(fs: &dyn FileSystem, path: &Path) -> Result<Arc<dyn crate::env::File>, WalError> {
    let opened = fs.open(path, Open::Read, Caching::Buffered);
    opened.map_err(|error| WalError::of("cannot open", path, error))
}

fn list_or_none(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<PathBuf>, WalError> {
    match fs.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|error| WalError::of("cannot list", dir, error)),
    }
}
