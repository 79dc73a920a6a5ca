//! Wakes a thread that sleeps, and costs next to nothing while it does not.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

/// One sleeper, many who ring.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    is_asleep: AtomicBool,
    is_rung: AtomicBool,
    sleeper: OnceLock<Thread>,
}

impl Doorbell {
    /// Names the calling thread as the one to wake.
    pub(crate) fn answer_here(&self) {
        self.sleeper.get_or_init(thread::current);
    }

    /// Something is to be done. A ring while the thread is awake is not lost: its next wait
    /// returns at once.
    pub(crate) fn ring(&self) {
        self.is_rung.store(true, Ordering::SeqCst);
        if self.is_asleep.load(Ordering::SeqCst)
            && self.is_asleep.swap(false, Ordering::SeqCst)
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }

    /// Sleeps until rung, or for `at_most`.
    pub(crate) fn wait(&self, at_most: Duration) {
        self.is_asleep.store(true, Ordering::SeqCst);
        if !self.is_rung.load(Ordering::SeqCst) {
            thread::park_timeout(at_most);
        }
        self.is_asleep.store(false, Ordering::SeqCst);
        self.is_rung.store(false, Ordering::SeqCst);
    }
}
