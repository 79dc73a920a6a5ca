//! The names in one directory as the kernel has them and as the disk has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
};

use super::rng::Rng;

/// Index of a file or directory among all of them.
pub(super) type NodeId = usize;

/// A name and what it stands for from now on.
pub(super) type Change = (OsString, Option<NodeId>);

/// One directory.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    cache: BTreeMap<OsString, NodeId>,
    disk: BTreeMap<OsString, NodeId>,
    /// What happened since the last sync, in order; what is inside one element is one step.
    pending: Vec<Vec<Change>>,
}

impl Names {
    pub(super) fn get(&self, name: &OsString) -> Option<NodeId> {
        self.cache.get(name).copied()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&OsString, NodeId)> {
        self.cache.iter().map(|(name, node)| (name, *node))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    pub(super) fn change(&mut self, changes: Vec<Change>) {
        apply(&mut self.cache, &changes);
        self.pending.push(changes);
    }

    pub(super) fn sync(&mut self) {
        self.disk = self.cache.clone();
        self.pending.clear();
    }

    /// The power fails: of what was not synced, nothing, all, a beginning, or any names survive.
    /// A file that was renamed has its old name or its new one.
    pub(super) fn lose_power(&mut self, rng: &mut Rng) {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        match rng.below(4) {
            0 => {}
            1 => self.disk = self.cache.clone(),
            2 => {
                let kept = rng.below(pending.len() as u64 + 1) as usize;
                pending[..kept].iter().for_each(|changes| apply(&mut self.disk, changes));
            }
            _ => self.settle_names(&pending, rng),
        }
        self.cache = self.disk.clone();
    }

    fn settle_names(&mut self, pending: &[Vec<Change>], rng: &mut Rng) {
        let before: Vec<NodeId> = self.disk.values().copied().collect();
        let touched: BTreeSet<&OsString> =
            pending.iter().flatten().map(|change| &change.0).collect();
        for name in touched {
            if rng.below(2) == 0 {
                apply(&mut self.disk, &[(name.clone(), self.cache.get(name).copied())]);
            }
        }
        for (name, node) in &self.cache {
            let has_new_name = self.disk.get(name) == Some(node);
            if has_new_name || before.contains(node) && !self.disk.values().any(|n| n == node) {
                self.disk.retain(|_, on_disk| on_disk != node);
                self.disk.insert(name.clone(), *node);
            }
        }
    }
}

fn apply(names: &mut BTreeMap<OsString, NodeId>, changes: &[Change]) {
    for (name, node) in changes {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}
