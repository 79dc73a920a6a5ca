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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// One case a line: brokers as `id@rack` (`!` in front: not active), partitions, replicas,
    /// where to begin, and the replicas expected.
    const CASES: &str = include_str!("../tests/data/placement.txt");

    #[test]
    fn replicas_are_placed_as_the_data_file_says() {
        for line in CASES.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let fields: Vec<_> = line.split('|').map(str::trim).collect();
            let [brokers, partitions, factor, first, expected] = fields[..] else {
                panic!("five fields, not {line:?}");
            };
            let candidates: Vec<_> = brokers.split(' ').map(candidate).collect();
            let [partitions, factor, first] =
                [partitions, factor, first].map(|field| field.parse().unwrap());
            let placed = match place(&candidates, partitions, factor, first) {
                Ok(placed) => placed.iter().map(|ids| join(ids)).collect::<Vec<_>>().join(" "),
                Err(error) => error.to_string(),
            };
            assert_eq!(placed, expected, "{line}");
        }
    }

    fn candidate(text: &str) -> Candidate {
        let (id, rack) = text.trim_start_matches('!').split_once('@').unwrap();
        Candidate {
            broker_id: BrokerId(id.parse().unwrap()),
            rack: (!rack.is_empty()).then(|| rack.to_owned()),
            active: !text.starts_with('!'),
        }
    }

    fn join(ids: &[BrokerId]) -> String {
        ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let broker = (prop::option::of("[a-c]"), prop::bool::weighted(0.8));
        prop::collection::vec(broker, 1..9).prop_map(|brokers| {
            let candidate =
                |(id, (rack, active))| Candidate { broker_id: BrokerId(id), rack, active };
            (0..).zip(brokers).map(candidate).collect()
        })
    }

    proptest! {
        #[test]
        fn leaders_are_active_spread_evenly_and_racks_are_used_first(
            candidates in candidates(), partitions in 1_usize..50, factor in 1_usize..6,
            first in 0_usize..1000,
        ) {
            let active: Vec<_> = candidates.iter().filter(|c| c.active).collect();
            let placed = match place(&candidates, partitions, factor, first) {
                Ok(placed) => placed,
                Err(_) => {
                    prop_assert!(factor > candidates.len() || active.is_empty());
                    return Ok(());
                }
            };
            let mut leads: BTreeMap<BrokerId, usize> =
                active.iter().map(|c| (c.broker_id, 0)).collect();
            let racks: BTreeSet<_> = active.iter().map(|c| &c.rack).collect();
            for replicas in &placed {
                prop_assert_eq!(replicas.len(), factor);
                *leads.get_mut(&replicas[0]).expect("a leader is active") += 1;
                let used: BTreeSet<_> = candidates
                    .iter()
                    .filter(|c| c.active && replicas.contains(&c.broker_id))
                    .map(|c| &c.rack)
                    .collect();
                prop_assert_eq!(used.len(), factor.min(racks.len()));
            }
            let (least, most) = (leads.values().min().unwrap(), leads.values().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", leads);
        }
    }
}
