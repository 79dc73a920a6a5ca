//! All files and directories of one machine, behind one lock.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
};

use super::{
    inode::Inode,
    names::{Names, NodeId},
    rng::Rng,
};

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(Inode),
    Dir(Names),
}

/// What the machine holds, and when it is to fail.
#[derive(Debug, Clone)]
pub(super) struct State {
    nodes: Vec<Node>,
    /// Handles of an earlier process are dead.
    pub(super) process: u64,
    pub(super) locks: BTreeSet<NodeId>,
    pub(super) open_files: usize,
    pub(super) open_files_max: usize,
    pub(super) capacity_bytes: u64,
    /// Calls that change anything, so far.
    pub(super) calls: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) is_off: bool,
    /// Random numbers given out so far: no life of the machine gets one again.
    pub(super) randoms: u64,
    /// File syncs so far.
    pub(super) syncs: u64,
    pub(super) failing_sync: Option<(u64, u64)>,
}

const ROOT: NodeId = 0;

impl State {
    pub(super) fn new() -> State {
        State {
            nodes: vec![Node::Dir(Names::default())],
            process: 0,
            locks: BTreeSet::new(),
            open_files: 0,
            open_files_max: usize::MAX,
            capacity_bytes: u64::MAX,
            calls: 0,
            crash_at: None,
            is_off: false,
            randoms: 0,
            syncs: 0,
            failing_sync: None,
        }
    }

    /// Counts a call that changes something; fails from the chosen one on.
    pub(super) fn tick(&mut self) -> io::Result<()> {
        self.alive()?;
        self.calls += 1;
        self.is_off = self.crash_at == Some(self.calls);
        self.alive()
    }

    pub(super) fn alive(&self) -> io::Result<()> {
        if self.is_off { Err(io::Error::other("the machine is off")) } else { Ok(()) }
    }

    /// The node that a path names.
    pub(super) fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut node = ROOT;
        for name in names_of(path)? {
            node = self.dir(node)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    /// The directory that a path lies in, and its last name.
    pub(super) fn place(&self, path: &Path) -> io::Result<(NodeId, OsString)> {
        let mut names = names_of(path)?;
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let parent: PathBuf = names.iter().collect();
        let parent = self.find(&parent)?;
        self.dir(parent)?;
        Ok((parent, name))
    }

    pub(super) fn dir(&self, node: NodeId) -> io::Result<&Names> {
        match &self.nodes[node] {
            Node::Dir(names) => Ok(names),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn dir_mut(&mut self, node: NodeId) -> io::Result<&mut Names> {
        match &mut self.nodes[node] {
            Node::Dir(names) => Ok(names),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&self, node: NodeId) -> io::Result<&Inode> {
        match &self.nodes[node] {
            Node::File(inode) => Ok(inode),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn file_mut(&mut self, node: NodeId) -> io::Result<&mut Inode> {
        match &mut self.nodes[node] {
            Node::File(inode) => Ok(inode),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn create(
        &mut self,
        parent: NodeId,
        name: OsString,
        node: Node,
    ) -> io::Result<NodeId> {
        let id = self.nodes.len();
        self.nodes.push(node);
        self.dir_mut(parent)?.change(vec![(name, Some(id))]);
        Ok(id)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut node = ROOT;
        for name in names_of(path)? {
            node = match self.dir(node)?.get(&name) {
                Some(there) => there,
                None => {
                    self.tick()?;
                    self.create(node, name, Node::Dir(Names::default()))?
                }
            };
        }
        self.dir(node).map(|_| ())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        let node = self.dir(from_dir)?.get(&from_name).ok_or(io::ErrorKind::NotFound)?;
        if from_dir == to_dir {
            if from_name != to_name {
                let step = vec![(from_name, None), (to_name, Some(node))];
                self.dir_mut(from_dir)?.change(step);
            }
        } else {
            self.dir_mut(to_dir)?.change(vec![(to_name, Some(node))]);
            self.dir_mut(from_dir)?.change(vec![(from_name, None)]);
        }
        Ok(())
    }

    /// Removes a name. Whatever is open stays readable through its handle.
    pub(super) fn remove(&mut self, path: &Path, want_dir: bool) -> io::Result<()> {
        let (parent, name) = self.place(path)?;
        let node = self.dir(parent)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        match &self.nodes[node] {
            Node::Dir(_) if !want_dir => return Err(io::ErrorKind::IsADirectory.into()),
            Node::File(_) if want_dir => return Err(io::ErrorKind::NotADirectory.into()),
            Node::Dir(names) if !names.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            Node::Dir(_) | Node::File(_) => {}
        }
        self.dir_mut(parent)?.change(vec![(name, None)]);
        Ok(())
    }

    /// Bytes that may still be written: a file takes its length.
    pub(super) fn free_bytes(&self) -> u64 {
        if self.capacity_bytes == u64::MAX {
            return u64::MAX;
        }
        let mut used = 0;
        self.walk(|node| used += self.file(node).map_or(0, Inode::len));
        self.capacity_bytes.saturating_sub(used)
    }

    /// Counts a sync; the seed of its failure if it is the one to fail.
    pub(super) fn next_sync_fails(&mut self) -> Option<u64> {
        self.syncs += 1;
        let (sync, seed) = self.failing_sync?;
        (sync == self.syncs).then_some(seed)
    }

    pub(super) fn sync_all(&mut self, failing: Option<u64>) -> io::Result<()> {
        let mut rng = failing.map(Rng::new);
        let mut done = Ok(());
        for node in &mut self.nodes {
            match (node, &mut rng) {
                (Node::File(inode), None) => inode.sync(),
                (Node::File(inode), Some(rng)) => done = inode.sync_in_vain(rng),
                (Node::Dir(names), _) => names.sync(),
            }
        }
        done
    }

    /// The process ends, the kernel lives: locks and handles go, everything written stays.
    pub(super) fn end_process(&mut self) {
        self.process += 1;
        self.locks.clear();
        self.open_files = 0;
        self.is_off = false;
        self.crash_at = None;
        self.failing_sync = None;
    }

    pub(super) fn lose_power(&mut self, seed: u64) {
        self.end_process();
        let mut rng = Rng::new(seed);
        for node in &mut self.nodes {
            match node {
                Node::File(inode) => inode.lose_power(&mut rng),
                Node::Dir(names) => names.lose_power(&mut rng),
            }
        }
        self.forget_unreachable();
    }

    /// Drops clean pages here and there, as a kernel short of memory does.
    pub(super) fn evict(&mut self, seed: u64) {
        let mut rng = Rng::new(seed);
        for node in &mut self.nodes {
            if let Node::File(inode) = node {
                inode.forget(|| rng.below(2) == 0);
            }
        }
    }

    /// Every file's path, sorted.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut below = vec![(PathBuf::new(), ROOT)];
        while let Some((path, node)) = below.pop() {
            match &self.nodes[node] {
                Node::Dir(names) => below.extend(names.all().map(|(n, id)| (path.join(n), id))),
                Node::File(_) => found.push(path),
            }
        }
        found.sort();
        found
    }

    fn forget_unreachable(&mut self) {
        let mut reachable = BTreeSet::new();
        self.walk(|node| {
            reachable.insert(node);
        });
        for (id, node) in self.nodes.iter_mut().enumerate() {
            if !reachable.contains(&id) {
                *node = Node::File(Inode::default());
            }
        }
    }

    fn walk(&self, mut visit: impl FnMut(NodeId)) {
        let mut below = vec![ROOT];
        while let Some(node) = below.pop() {
            visit(node);
            if let Node::Dir(names) = &self.nodes[node] {
                below.extend(names.all().map(|(_, id)| id));
            }
        }
    }
}

fn names_of(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(names)
}
