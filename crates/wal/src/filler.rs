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

    /// Has appends refused if a file is wanted and there is no room for one: before anybody is
    /// served, so that a disk too small is not taken for a node that is ready.
    pub(crate) fn check_room(&self) {
        if self.shard.pool.wants_file() && !self.shard.pool.has_room() {
            self.refuse();
        }
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
                if matches!(error, WalError::DiskFull { .. }) {
                    self.refuse();
                } else {
                    tracing::warn!(%error, "cannot make a WAL file now; trying again");
                }
                Ok(Step::Idle)
            }
        }
    }

    fn refuse(&self) {
        self.shard.set_disk_full(DiskUser::Filler, Some(self.shard.config.file_bytes));
    }
}
