//! Who a data directory belongs to: written before anything else, never changed.

use std::{
    fmt::Write as _,
    io::{self, IoSlice},
    path::{Path, PathBuf},
};

use tidelog_types::{BrokerId, Uuid};
use tidelog_wal::env::{Caching, FileSystem, Open, read_exact_at, write_all_at};

const HEADING: &str = "tidelog identity 1";
const FILE: &str = "identity";
/// Metrics are floating point: up to here they show every whole number exactly.
const RAFT_ID_MAX: u64 = (1 << 53) - 1;
/// Bytes that an identity file never reaches; anything longer is something else.
const BYTES_MAX: u64 = 4096;

/// What distinguishes this directory from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, as clients see it.
    pub cluster_id: Uuid,
    /// The broker.
    pub node_id: BrokerId,
    /// This directory.
    pub directory_id: Uuid,
    /// This directory's name in the metadata quorum, so that a wiped disk comes back as somebody
    /// else. Never 0.
    pub raft_id: u64,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file is not an identity, or not a whole one.
    #[error("{}: damaged ({what}); restore it from a backup of this directory", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is data, but nothing says whose.
    #[error(
        "{}: holds data but no identity file; refusing to start as a new node over it",
        path.display()
    )]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// There is metadata, which comes after the log, and no log.
    #[error(
        "{}: holds metadata, but wal/checkpoint is missing; refusing to start with empty \
         partitions: is the disk of wal/ mounted?",
        path.display()
    )]
    LogMissing {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is another broker's.
    #[error("{}: belongs to node.id {}, but node.id is {}", path.display(), owner.0, node_id.0)]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: BrokerId,
        /// Who asked.
        node_id: BrokerId,
    },
}

impl Identity {
    /// Reads the directory's identity, or gives a new directory one and makes it durable.
    ///
    /// # Errors
    /// For a damaged or foreign identity, data without one, or a file system that refuses.
    pub fn load_or_create(
        fs: &dyn FileSystem,
        dir: &Path,
        node_id: BrokerId,
        random: &mut dyn FnMut() -> Uuid,
    ) -> Result<Identity, IdentityError> {
        let path = dir.join(FILE);
        let io = |source| IdentityError::Io { path: path.clone(), source };
        if fs.exists(&path).map_err(io)? {
            let identity = Identity::read(fs, &path)?;
            if identity.node_id != node_id {
                let owner = identity.node_id;
                return Err(IdentityError::Foreign { path: dir.to_owned(), owner, node_id });
            }
            if has_lost_log(fs, dir).map_err(io)? {
                return Err(IdentityError::LogMissing { path: dir.to_owned() });
            }
            return Ok(identity);
        }
        if holds_data(fs, dir).map_err(io)? {
            return Err(IdentityError::Missing { path: dir.to_owned() });
        }
        let identity = Identity::generate(node_id, random);
        identity.write(fs, dir).map_err(io)?;
        Ok(identity)
    }

    fn generate(node_id: BrokerId, random: &mut dyn FnMut() -> Uuid) -> Identity {
        let mut raft_id = 0;
        while raft_id == 0 {
            let bytes = random().0;
            let half: [u8; 8] = std::array::from_fn(|i| bytes[i] ^ bytes[i + 8]);
            raft_id = u64::from_be_bytes(half) & RAFT_ID_MAX;
        }
        Identity { cluster_id: random(), node_id, directory_id: random(), raft_id }
    }

    fn read(fs: &dyn FileSystem, path: &Path) -> Result<Identity, IdentityError> {
        let io = |source| IdentityError::Io { path: path.to_owned(), source };
        let damaged = |what| IdentityError::Damaged { path: path.to_owned(), what };
        let file = fs.open(path, Open::Read, Caching::Buffered).map_err(io)?;
        let len = file.len().map_err(io)?;
        if len > BYTES_MAX {
            return Err(damaged("too long"));
        }
        let mut bytes = vec![0; len as usize];
        read_exact_at(&*file, &mut bytes, 0).map_err(io)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged("not text"))?;
        decode(text).map_err(damaged)
    }

    fn write(&self, fs: &dyn FileSystem, dir: &Path) -> io::Result<()> {
        let temporary = dir.join("identity.new");
        let file = fs.open(&temporary, Open::CreateOrOpen, Caching::Buffered)?;
        file.set_len(0)?;
        let text = self.encode();
        write_all_at(&*file, &mut [IoSlice::new(text.as_bytes())], 0)?;
        file.sync()?;
        fs.rename(&temporary, &dir.join(FILE))?;
        fs.sync_dir(dir)?;
        match dir.parent() {
            Some(parent) if parent != Path::new("") => fs.sync_dir(parent),
            Some(_) => fs.sync_dir(Path::new(".")),
            None => Ok(()),
        }
    }

    fn encode(&self) -> String {
        let mut text = format!(
            "{HEADING}\ncluster_id={}\nnode_id={}\ndirectory_id={}\nraft_id={}\n",
            self.cluster_id, self.node_id, self.directory_id, self.raft_id
        );
        let crc = checksum(&text);
        let written = writeln!(text, "crc32c={crc:08x}");
        assert!(written.is_ok(), "writing to a String cannot fail");
        text
    }
}

fn decode(text: &str) -> Result<Identity, &'static str> {
    let (body, tail) = text.rsplit_once("crc32c=").ok_or("no checksum")?;
    if tail != format!("{:08x}\n", checksum(body)) {
        return Err("wrong checksum");
    }
    let mut lines = body.lines();
    if lines.next() != Some(HEADING) {
        return Err("not an identity of version 1");
    }
    let mut field = |name: &str| {
        let (key, value) = lines.next()?.split_once('=')?;
        (key == name).then_some(value)
    };
    let identity = Identity {
        cluster_id: field("cluster_id").and_then(Uuid::parse).ok_or("no cluster_id")?,
        node_id: BrokerId(field("node_id").and_then(|n| n.parse().ok()).ok_or("no node_id")?),
        directory_id: field("directory_id").and_then(Uuid::parse).ok_or("no directory_id")?,
        raft_id: field("raft_id").and_then(|n| n.parse().ok()).ok_or("no raft_id")?,
    };
    if identity.raft_id == 0 { Err("raft_id is 0") } else { Ok(identity) }
}

fn checksum(text: &str) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, text.as_bytes()) as u32
}

/// Whether a node ever got further here than writing its identity.
fn holds_data(fs: &dyn FileSystem, dir: &Path) -> io::Result<bool> {
    for name in ["wal", "raft", "topics"] {
        let path = dir.join(name);
        if fs.exists(&path)? && !fs.list(&path)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A start opens the log before the metadata, and a log that was opened once has a checkpoint.
fn has_lost_log(fs: &dyn FileSystem, dir: &Path) -> io::Result<bool> {
    let metadata = dir.join("raft").join("group-0").join("log");
    Ok(fs.exists(&metadata)? && !fs.exists(&dir.join("wal").join("checkpoint"))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_wal::env::std::StdFileSystem;

    fn counting() -> impl FnMut() -> Uuid {
        let mut count = 0_u128;
        move || {
            count += 1;
            Uuid(count.to_be_bytes())
        }
    }

    fn load(dir: &Path, node_id: i32) -> Result<Identity, String> {
        let loaded =
            Identity::load_or_create(&StdFileSystem, dir, BrokerId(node_id), &mut counting());
        let shown = dir.display().to_string();
        loaded.map_err(|error| error.to_string().replace(&shown, "DIR"))
    }

    #[test]
    fn an_identity_is_made_once_and_read_ever_after() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = load(dir.path(), 3).expect("made");
        std::fs::create_dir_all(dir.path().join("wal/x")).expect("data");
        assert_eq!(load(dir.path(), 3), Ok(made));
        let foreign = "DIR: belongs to node.id 3, but node.id is 4".to_owned();
        assert_eq!(load(dir.path(), 4), Err(foreign));
    }

    #[test]
    fn a_raft_id_is_never_0_and_a_metric_shows_it_exactly() {
        for (first, expected) in [(0_u128, 1), (u128::from(u64::MAX), RAFT_ID_MAX), (7, 7)] {
            let mut drawn = [first, 1, 2, 3].into_iter().map(|bits| Uuid(bits.to_be_bytes()));
            let made = Identity::generate(BrokerId(1), &mut || drawn.next().expect("enough"));
            assert_eq!(made.raft_id, expected);
            assert_eq!(made.raft_id as f64 as u64, made.raft_id);
        }
    }

    #[test]
    fn data_without_an_identity_is_nobodys() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(dir.path().join("wal/x")).expect("data");
        let refused = load(dir.path(), 1).expect_err("data");
        assert!(refused.starts_with("DIR: holds data but no identity file"), "{refused}");
    }

    #[test]
    fn metadata_without_a_log_has_lost_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = load(dir.path(), 1).expect("made");
        std::fs::create_dir_all(dir.path().join("raft/group-0/log")).expect("metadata");
        let refused = load(dir.path(), 1).expect_err("no log");
        assert!(refused.starts_with("DIR: holds metadata, but wal/checkpoint"), "{refused}");
        std::fs::create_dir_all(dir.path().join("wal")).expect("a log");
        std::fs::write(dir.path().join("wal/checkpoint"), "").expect("a checkpoint");
        assert_eq!(load(dir.path(), 1), Ok(made));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        load(dir.path(), 1).expect("made");
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).expect("text");
        for position in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[position] ^= 1;
            for bytes in [&flipped[..], &whole[..position]] {
                std::fs::write(&path, bytes).expect("a file");
                let refused = load(dir.path(), 1).expect_err("damage");
                assert!(refused.starts_with("DIR/identity: damaged"), "{refused}");
            }
        }
    }
}
