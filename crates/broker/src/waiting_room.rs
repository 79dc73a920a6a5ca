//! Bounds what waits for a thread by what it takes: a line of so many places says nothing of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How much may wait, and how much does.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    share_max: usize,
    taken: AtomicUsize,
}

/// A share of the room; leaving it is dropping it.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<WaitingRoom>,
    share: usize,
}

impl WaitingRoom {
    /// Room for shares of so much together.
    pub fn new(share_max: usize) -> Arc<WaitingRoom> {
        Arc::new(WaitingRoom { share_max, taken: AtomicUsize::new(0) })
    }

    /// Takes a share; `None` where there is no room. One larger than the room takes it alone.
    pub fn enter(self: &Arc<Self>, share: usize) -> Option<Place> {
        let add = |taken: usize| {
            let after = taken.checked_add(share)?;
            (taken == 0 || after <= self.share_max).then_some(after)
        };
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Place { room: Arc::clone(self), share })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let before = self.room.taken.fetch_sub(self.share, Ordering::Relaxed);
        assert!(before >= self.share, "who leaves had entered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fit_the_room_and_one_larger_than_it_takes_it_alone() {
        let room = WaitingRoom::new(10);
        let (six, four) = (room.enter(6), room.enter(4));
        assert!(six.is_some() && four.is_some() && room.enter(1).is_none());
        drop(four);
        assert!(room.enter(5).is_none() && room.enter(4).is_some());
        drop(six);
        let huge = room.enter(11);
        assert!(huge.is_some() && room.enter(1).is_none() && room.enter(usize::MAX).is_none());
        drop(huge);
        assert!(room.enter(10).is_some());
    }
}
