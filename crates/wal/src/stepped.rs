//! A log without threads, for whoever steps their bodies himself.

use std::sync::Arc;

use crate::{
    Fatal, Recovered, Wal, WalConfig, WalError, WalMetrics, env::FileSystem, threads::Step,
    wal::Steppers,
};

/// The bodies of the threads get their turns in an order that never changes, so that the same calls
/// over the same machine in memory leave the same bytes.
#[derive(Debug)]
pub struct SteppedWal {
    wal: Wal,
    steppers: Steppers,
}

impl SteppedWal {
    /// Recovers as [`Wal::open`] does.
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn open(
        config: WalConfig,
        fs: Arc<dyn FileSystem>,
        metrics: WalMetrics,
    ) -> Result<(SteppedWal, Recovered), WalError> {
        let (wal, recovered, steppers) = Wal::open_stepped(config, fs, metrics)?;
        Ok((SteppedWal { wal, steppers }, recovered))
    }

    /// The log.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    /// Lets the writer work until it has nothing to do, and nobody else.
    ///
    /// # Errors
    /// The process would have ended.
    pub fn write(&mut self) -> Result<(), Fatal> {
        while self.steppers.writer.step()? == Step::Worked {}
        Ok(())
    }

    /// Lets everybody work until nobody has anything to do.
    ///
    /// # Errors
    /// The process would have ended.
    pub fn rest(&mut self) -> Result<(), Fatal> {
        while self.turn()? {}
        Ok(())
    }

    /// As [`Wal::flush_and_close`].
    ///
    /// # Errors
    /// As [`Wal::flush_and_close`].
    pub fn close(mut self) -> Result<(), WalError> {
        let shard = Arc::clone(self.wal.shard());
        shard.close();
        while self.steppers.writer.step()? != Step::Done {}
        shard.set_writer_done();
        let Steppers { mut spill, mut filler, mut reader, mut remover, .. } = self.steppers;
        while spill.step()? != Step::Done {}
        while filler.step()? != Step::Done {}
        while reader.step()? != Step::Done {}
        while remover.step()? != Step::Done {}
        self.wal.end_close()
    }

    /// One step of each; whether anybody did something, or soon has something to do.
    fn turn(&mut self) -> Result<bool, Fatal> {
        let Steppers { writer, spill, filler, reader, remover } = &mut self.steppers;
        let wrote = writer.step()?;
        let others = [spill.step()?, filler.step()?, reader.step()?, remover.step()?];
        // Only the writer's pause ends without the clock.
        Ok(matches!(wrote, Step::Worked | Step::Pause) || others.contains(&Step::Worked))
    }
}
