//! Which brokers hold a new topic's partitions. A pure function: the same facts give the same
//! answer on every node.

use std::collections::BTreeSet;

use tidelog_types::BrokerId;

/// What placement knows of one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The broker.
    pub broker_id: BrokerId,
    /// Where it stands; brokers without a rack stand together.
    pub rack: Option<String>,
    /// Whether it may lead now. One that may not is a follower, and only where there are too few
    /// others.
    pub active: bool,
}

/// Why replicas cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A broker holds a partition once.
    #[error(
        "The target replication factor of {replication_factor} cannot be reached because only \
         {brokers} broker(s) are registered."
    )]
    TooFewBrokers {
        /// As asked.
        replication_factor: usize,
        /// As registered.
        brokers: usize,
    },
    /// Nobody could lead.
    #[error("All brokers are currently fenced.")]
    NoneActive,
}

/// The replicas of `partitions` new partitions, the preferred leader first.
///
/// Leaders go round the active brokers, beginning with the `first`-th, racks in turn; `first`
/// moves on with each partition in the cluster, so that small topics spread too. Followers prefer
/// racks that the partition is not in yet, and which brokers follow one leader differs from round
/// to round, so that a broken broker's load falls on many.
///
/// # Errors
/// When there are too few brokers.
pub fn place(
    candidates: &[Candidate],
    partitions: usize,
    replication_factor: usize,
    first: usize,
) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
    assert!(replication_factor > 0, "a partition has a replica");
    let brokers = candidates.len();
    if replication_factor > brokers {
        return Err(PlacementError::TooFewBrokers { replication_factor, brokers });
    }
    let active = by_racks_in_turn(candidates.iter().filter(|c| c.active).collect());
    if active.is_empty() {
        return Err(PlacementError::NoneActive);
    }
    let spare = by_racks_in_turn(candidates.iter().filter(|c| !c.active).collect());
    let replicas_of = |turn| replicas(&active, &spare, replication_factor, turn);
    Ok((first..first + partitions).map(replicas_of).collect())
}

/// Orders brokers so that neighbours stand in different racks where possible.
fn by_racks_in_turn(mut brokers: Vec<&Candidate>) -> Vec<&Candidate> {
    brokers.sort_by_key(|broker| (&broker.rack, broker.broker_id));
    let mut racks: Vec<&[&Candidate]> = brokers.chunk_by(|a, b| a.rack == b.rack).collect();
    let mut in_turn = Vec::with_capacity(brokers.len());
    while in_turn.len() < brokers.len() {
        for rack in &mut racks {
            if let Some((next, rest)) = rack.split_first() {
                in_turn.push(*next);
                *rack = rest;
            }
        }
    }
    in_turn
}

/// One partition's replicas.
fn replicas(
    active: &[&Candidate],
    spare: &[&Candidate],
    replication_factor: usize,
    turn: usize,
) -> Vec<BrokerId> {
    let leader = turn % active.len();
    let shift = (turn / active.len()) % active.len().saturating_sub(1).max(1);
    let others = active.len() - 1;
    let followers = (0..others).map(|n| active[(leader + 1 + (shift + n) % others) % active.len()]);
    let mut waiting: Vec<&Candidate> = followers.chain(spare.iter().copied()).collect();

    let mut racks = BTreeSet::from([&active[leader].rack]);
    let mut chosen = vec![active[leader].broker_id];
    while chosen.len() < replication_factor {
        let new_rack = waiting.iter().position(|c| c.active && !racks.contains(&c.rack));
        let next = waiting.remove(new_rack.unwrap_or(0));
        racks.insert(&next.rack);
        chosen.push(next.broker_id);
    }
    let distinct: BTreeSet<_> = chosen.iter().collect();
    assert_eq!(distinct.len(), chosen.len(), "a broker holds a partition once");
    chosen
}
