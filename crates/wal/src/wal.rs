//! The log of one data directory: opens it, hands out its partitions, closes it.

use std::{
    ops::RangeInclusive,
    sync::Arc,
    task::{Poll, Waker},
};

use tidelog_types::TopicIdPartition;

use crate::{
    config::{LogSettings, WalConfig},
    env::FileSystem,
    error::{StorageError, WalError},
    log::{Log, LogObserver, RecoveredPartition},
    metrics::WalMetrics,
    reservations::{Budget, Reservation, ReserveTicket},
};

/// What recovery found in a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Every partition on disk, those of unknown topics included.
    pub partitions: Vec<RecoveredPartition>,
    /// What was cut off behind the last sync, if anything was.
    pub cut: Option<CutReport>,
    /// Frames were lost whose partition nobody can name: a partition that metadata lists and
    /// recovery does not is suspect until [`Wal::all_known_opened`].
    pub unknown_suspect: bool,
}

/// A cut that may have taken what was acknowledged, or may not: nothing later vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutReport {
    /// Sequences of the frames that were cut.
    pub sequences: RangeInclusive<u64>,
    /// Partitions whose frames could still be told apart.
    pub partitions: Vec<TopicIdPartition>,
}

/// The log of one data directory. Clones share it.
#[derive(Debug, Clone)]
pub struct Wal {
    budget: Arc<Budget>,
}

#[allow(unused_variables, reason = "being written")]
impl Wal {
    /// Locks the directory, recovers, writes recovery's checkpoint and starts the threads.
    ///
    /// # Errors
    /// As [`WalError`] says; nothing is running then.
    pub fn open(
        config: WalConfig,
        fs: Arc<dyn FileSystem>,
        metrics: WalMetrics,
    ) -> Result<(Wal, Recovered), WalError> {
        unreachable!("being written")
    }

    /// Opens a partition's log, creating it if it is new.
    ///
    /// # Errors
    /// [`WalError::Removing`] while an earlier removal of this id is not durable;
    /// [`WalError::Closed`].
    pub fn open_log(
        &self,
        id: TopicIdPartition,
        settings: LogSettings,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Log, WalError> {
        unreachable!("being written")
    }

    /// Every partition that metadata knew at start-up is open: new ones are new indeed.
    pub fn all_known_opened(&self) {
        unreachable!("being written")
    }

    /// Changes a partition's settings from its next segment on.
    pub fn update_settings(&self, id: TopicIdPartition, settings: LogSettings) {
        unreachable!("being written")
    }

    /// Removes a partition's log. Its files go in the background; its id cannot come back
    /// before the removal is durable.
    ///
    /// # Errors
    /// [`WalError::Closed`] when there is no such log.
    pub fn remove_log(&self, id: TopicIdPartition) -> Result<(), WalError> {
        unreachable!("being written")
    }

    /// Reserves bytes, first come first served. Pending: the waker is called when it is worth
    /// polling again with the same ticket. More bytes than the bound take it alone.
    pub fn poll_reserve(
        &self,
        ticket: &mut ReserveTicket,
        bytes: u64,
        waker: &Waker,
    ) -> Poll<Result<Reservation, StorageError>> {
        self.budget.poll_reserve(ticket, bytes, waker)
    }

    /// Reserves bytes if nobody waits and there is room.
    ///
    /// # Errors
    /// [`StorageError::DiskFull`], [`StorageError::Closed`].
    pub fn try_reserve(&self, bytes: u64) -> Result<Option<Reservation>, StorageError> {
        self.budget.try_reserve(bytes)
    }

    /// Writes what waits, moves everything to segments, checkpoints and ends the threads.
    ///
    /// # Errors
    /// [`WalError::DiskFull`] when segments cannot take it; the WAL keeps it.
    pub fn flush_and_close(&self) -> Result<(), WalError> {
        unreachable!("being written")
    }
}
