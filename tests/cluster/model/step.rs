//! What a workload does next.

use tidelog_tests::seed::Random;

use super::{
    batches::{CODECS, Codec},
    settings::Change,
    world::World,
};

/// A partition, by the place of its topic's name among [`super::world::TOPICS`].
pub type Place = (usize, i32);

/// One thing that clients do, or that befalls the node.
#[derive(Debug, Clone)]
pub enum Step {
    CreateTopic {
        topic: usize,
        partitions: i32,
        version: i16,
    },
    DeleteTopic {
        topic: usize,
    },
    Produce {
        to: Place,
        version: i16,
        acks: i16,
        what: What,
    },
    Fetch {
        wanted: Vec<Place>,
        version: i16,
        limits: Limits,
    },
    SessionFetch {
        session: usize,
        max_bytes: i32,
    },
    Subscribe {
        session: usize,
        to: Place,
    },
    Unsubscribe {
        session: usize,
    },
    ListOffsets {
        of: Place,
        version: i16,
        timestamp: Timestamp,
    },
    DeleteRecords {
        of: Place,
    },
    Alter {
        topic: usize,
        change: Change,
    },
    /// Retention with this limit, for a moment.
    Retain {
        topic: usize,
        limit: Retained,
        dies: bool,
    },
    NewProducer,
    Restart,
    Kill,
    /// Requests go out and the node dies before all are answered.
    KillUnderLoad {
        requests: usize,
    },
}

/// What a producer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Plain(Codec),
    /// Of an idempotent producer, by its place among them.
    Next(usize, Codec),
    /// Again, so many batches back.
    Again(usize, usize),
    /// One that leaves out others.
    Gap(usize),
    /// From a new life of the producer.
    NewEpoch(usize),
    /// From an old one.
    OldEpoch(usize),
    TooLarge,
    Damaged,
    Transactional,
}

/// What a fetch wants at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
}

impl Limits {
    /// More than any log here has.
    pub const WIDE: Limits = Limits { max_bytes: 10_000_000, partition_max_bytes: 10_000_000 };
}

/// What ListOffsets is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Timestamp {
    Special(i64),
    /// So many milliseconds before the workload began.
    Before(i64),
}

/// What retention is to keep.
#[derive(Debug, Clone, Copy)]
pub enum Retained {
    Nothing,
    /// What is newer than so many milliseconds before the workload began.
    Since(i64),
    Bytes(i64),
}

impl Step {
    pub fn choose(random: &mut Random, world: &World) -> Step {
        match random.below(1000) {
            0..60 => Step::CreateTopic {
                topic: world.any_topic(random),
                partitions: 1 + random.below(3) as i32,
                version: 2 + random.below(6) as i16,
            },
            60..75 => Step::DeleteTopic { topic: world.any_topic(random) },
            75..420 => produce(random, world),
            420..450 => {
                Step::Alter { topic: world.any_topic(random), change: Change::choose(random) }
            }
            450..462 => retain(random, world),
            462..620 => Step::Fetch {
                wanted: (0..1 + random.index(4)).map(|_| world.any_place(random)).collect(),
                version: 4 + random.below(14) as i16,
                limits: limits(random),
            },
            620..760 => {
                Step::SessionFetch { session: random.index(2), max_bytes: limits(random).max_bytes }
            }
            760..800 => Step::Subscribe { session: random.index(2), to: world.any_place(random) },
            800..815 => Step::Unsubscribe { session: random.index(2) },
            815..930 => list_offsets(random, world),
            930..965 => Step::DeleteRecords { of: world.any_place(random) },
            965..975 => Step::NewProducer,
            975..983 => Step::Restart,
            983..992 => Step::Kill,
            _ => Step::KillUnderLoad { requests: 1 + random.index(30) },
        }
    }
}

fn produce(random: &mut Random, world: &World) -> Step {
    let producer = random.index(4);
    let codec = CODECS[random.index(CODECS.len())];
    let what = match random.below(20) {
        0..9 => What::Plain(codec),
        9..13 => What::Next(producer, codec),
        13 => What::Again(producer, random.index(6)),
        14 => What::Gap(producer),
        15 => What::NewEpoch(producer),
        16 => What::OldEpoch(producer),
        17 => What::TooLarge,
        18 => What::Damaged,
        _ => What::Transactional,
    };
    // What is sent again may be of any codec.
    let needs_zstd = codec == Codec::Zstd || matches!(what, What::Again(..));
    let version = if needs_zstd { 7 } else { 3 };
    Step::Produce {
        to: world.any_place(random),
        version: (version + random.below(14 - version)) as i16,
        acks: [-1, -1, 1, 0][random.index(4)],
        what,
    }
}

fn list_offsets(random: &mut Random, world: &World) -> Step {
    let timestamp = match random.below(3) {
        0 => Timestamp::Before(random.below(60_000).cast_signed() - 5_000),
        _ => Timestamp::Special(-1 - random.below(7).cast_signed()),
    };
    let version = 1 + random.below(10) as i16;
    Step::ListOffsets { of: world.any_place(random), version, timestamp }
}

fn retain(random: &mut Random, world: &World) -> Step {
    let limit = match random.below(4) {
        0 => Retained::Nothing,
        1 => Retained::Since(random.below(60_000).cast_signed()),
        _ => Retained::Bytes(random.below(30_000).cast_signed()),
    };
    Step::Retain { topic: world.any_topic(random), limit, dies: random.below(4) == 0 }
}

fn limits(random: &mut Random) -> Limits {
    let bytes = |random: &mut Random| match random.below(4) {
        0 => random.below(200) as i32,
        1 => random.below(30_000) as i32,
        _ => 10_000_000,
    };
    Limits { max_bytes: bytes(random), partition_max_bytes: bytes(random) }
}
