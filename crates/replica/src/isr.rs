//! The in-sync replicas as a leader must count them while a change is under way (KIP-497).

use tidelog_types::{BrokerId, PartitionEpoch};

/// The ISR, confirmed by the controller or about to be changed.
///
/// Invariant: the members are sorted and distinct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isr {
    /// What the controller last said.
    Committed {
        /// Members.
        isr: Vec<BrokerId>,
    },
    /// The controller was asked to let `joining` in.
    PendingExpand {
        /// Members by the last confirmation.
        isr: Vec<BrokerId>,
        /// Counted already: the controller may have agreed before we hear of it.
        joining: BrokerId,
    },
    /// The controller was asked to let `leaving` go.
    PendingShrink {
        /// Members by the last confirmation, the leaving ones included: they are counted until
        /// the controller agrees, because it may still elect one of them.
        isr: Vec<BrokerId>,
        /// Who is to go.
        leaving: Vec<BrokerId>,
    },
}

impl Isr {
    /// What the controller said, in any order.
    #[must_use]
    pub fn committed(members: &[BrokerId]) -> Isr {
        let mut isr = members.to_vec();
        isr.sort_unstable();
        isr.dedup();
        Isr::Committed { isr }
    }

    /// The members by the controller's last confirmation.
    #[must_use]
    pub fn confirmed(&self) -> &[BrokerId] {
        match self {
            Isr::Committed { isr }
            | Isr::PendingExpand { isr, .. }
            | Isr::PendingShrink { isr, .. } => isr,
        }
    }

    /// Everybody who may be in the controller's ISR now: the strictest set that the high
    /// watermark must respect.
    pub fn maximal_isr(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let joining = match self {
            Isr::PendingExpand { joining, .. } => Some(*joining),
            Isr::Committed { .. } | Isr::PendingShrink { .. } => None,
        };
        self.confirmed().iter().copied().chain(joining)
    }

    /// Whether an answer of the controller is awaited. Only one change is under way at a time.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !matches!(self, Isr::Committed { .. })
    }

    /// Counts `joining` from now on; `None` if a change is under way or it is a member already.
    #[must_use]
    pub fn expand(&self, joining: BrokerId) -> Option<Isr> {
        let Isr::Committed { isr } = self else { return None };
        if isr.contains(&joining) {
            return None;
        }
        Some(Isr::PendingExpand { isr: isr.clone(), joining })
    }

    /// Asks for members to go and counts them until that is confirmed; `None` if a change is
    /// under way or none of them is a member.
    #[must_use]
    pub fn shrink(&self, out_of_sync: &[BrokerId]) -> Option<Isr> {
        let Isr::Committed { isr } = self else { return None };
        let leaving: Vec<_> = isr.iter().copied().filter(|id| out_of_sync.contains(id)).collect();
        if leaving.is_empty() {
            return None;
        }
        Some(Isr::PendingShrink { isr: isr.clone(), leaving })
    }

    /// What the controller is asked for: the members as they will be.
    #[must_use]
    pub fn proposed(&self) -> Vec<BrokerId> {
        let mut proposed: Vec<_> = match self {
            Isr::Committed { isr } => isr.clone(),
            Isr::PendingExpand { .. } => self.maximal_isr().collect(),
            Isr::PendingShrink { isr, leaving } => {
                isr.iter().copied().filter(|id| !leaving.contains(id)).collect()
            }
        };
        proposed.sort_unstable();
        proposed
    }
}

/// Whether what the controller says is news: an answer that was overtaken tells nothing.
#[must_use]
pub fn is_current(ours: PartitionEpoch, theirs: PartitionEpoch) -> bool {
    theirs >= ours
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BrokerId = BrokerId(1);
    const B: BrokerId = BrokerId(2);
    const C: BrokerId = BrokerId(3);

    #[test]
    fn a_change_under_way_counts_the_larger_set() {
        let committed = Isr::committed(&[B, A, B]);
        let expanding = committed.expand(C).expect("C is not a member");
        let shrinking = committed.shrink(&[B, C]).expect("B is a member");
        for (isr, maximal, proposed) in [
            (&committed, vec![A, B], vec![A, B]),
            (&expanding, vec![A, B, C], vec![A, B, C]),
            (&shrinking, vec![A, B], vec![A]),
        ] {
            assert_eq!(isr.maximal_isr().collect::<Vec<_>>(), maximal, "{isr:?}");
            assert_eq!(isr.proposed(), proposed, "{isr:?}");
        }
    }

    #[test]
    fn one_change_is_under_way_at_a_time() {
        let expanding = Isr::committed(&[A]).expand(B).expect("B is not a member");
        assert_eq!(expanding.expand(C), None);
        assert_eq!(expanding.shrink(&[A]), None);
        assert_eq!(Isr::committed(&[A]).expand(A), None);
        assert_eq!(Isr::committed(&[A]).shrink(&[C]), None);
    }
}
