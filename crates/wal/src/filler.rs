//! Keeps zeroed WAL files ready, so that the writer never waits for one to be made.

use std::sync::Arc;

use crate::{
    error::{Fatal, WalError},
    shard::{DiskUser, Shard},
    threads::Step,
};

/// The filler thread's body.
#[derive(Debug)]
pub(crate) struct Filler {
    shard: Arc<Shard>,
}

impl Filler {
    pub(crate) fn new(shard: Arc<Shard>) -> Filler {
        Filler { shard }
    }

    /// Zeroes one file if one is wanted.
    pub(crate) fn step(&mut self) -> Result<Step, Fatal> {
        if self.shard.queue().is_closing && self.shard.is_writer_done() {
            return Ok(Step::Done);
        }
        match self.shard.pool.fill_one() {
            Ok(made) => {
                self.shard.set_disk_full(DiskUser::Filler, None);
                if made {
                    self.shard.bells.writer.ring();
                }
                Ok(if made { Step::Worked } else { Step::Idle })
            }
            Err(WalError::Fatal(fatal)) => Err(fatal),
            Err(error) => {
                if let WalError::DiskFull { path } = &error {
                    self.shard.set_disk_full(DiskUser::Filler, Some(path.clone()));
                } else {
                    tracing::warn!(%error, "cannot make a WAL file now; trying again");
                }
                Ok(Step::Idle)
            }
        }
    }
}
