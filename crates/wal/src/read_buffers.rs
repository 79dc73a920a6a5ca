//! Memory that large reads go through, aligned for direct I/O and used again: memory that the
//! kernel has to map first costs more than the read.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::{env::DIRECT_ALIGN, shard::lock};

/// Capacities are multiples of this, so that a buffer fits the next read too.
const STEP_BYTES: usize = 512 << 10;
/// Bytes that wait to be used again, at most.
const IDLE_BYTES_MAX: usize = 16 << 20;

/// Buffers that wait to be used again.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffers {
    idle: Mutex<Vec<Vec<u8>>>,
}

impl ReadBuffers {
    /// A buffer of `bytes` bytes, which may hold what was read before.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> ReadBuffer {
        let room_bytes = (bytes + DIRECT_ALIGN).next_multiple_of(STEP_BYTES);
        let mut idle = lock(&self.idle);
        // One that is much larger would keep more memory than the read counts for.
        let enough = room_bytes..=room_bytes + STEP_BYTES;
        let fits = |room: &Vec<u8>| enough.contains(&room.len());
        let found = idle.iter().rposition(fits).map(|at| idle.swap_remove(at));
        drop(idle);
        let room = found.unwrap_or_else(|| vec![0; room_bytes]);
        let start = room.as_ptr().align_offset(DIRECT_ALIGN);
        assert!(start < DIRECT_ALIGN, "an aligned byte lies within every {DIRECT_ALIGN}");
        ReadBuffer { room, start, bytes, home: Arc::clone(self) }
    }

    /// Gives back to the system what nobody uses.
    pub(crate) fn clear(&self) {
        lock(&self.idle).clear();
    }

    fn put(&self, room: Vec<u8>) {
        let mut idle = lock(&self.idle);
        let bytes: usize = idle.iter().map(Vec::len).sum();
        if bytes + room.len() <= IDLE_BYTES_MAX {
            idle.push(room);
        }
    }
}

/// A buffer whose first byte is aligned. Goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    /// A little longer than needed, so that an aligned part of it is long enough.
    room: Vec<u8>,
    start: usize,
    bytes: usize,
    home: Arc<ReadBuffers>,
}

impl ReadBuffer {
    /// The bytes to read into.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + self.bytes]
    }

    /// What was read. The buffer goes back when the last slice of it is gone.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.room[self.start..self.start + self.bytes]
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        self.home.put(std::mem::take(&mut self.room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(buffers: &ReadBuffers) -> Vec<usize> {
        lock(&buffers.idle).iter().map(Vec::len).collect()
    }

    #[test]
    fn a_buffer_comes_back_when_the_last_slice_of_it_is_gone() {
        let buffers = Arc::new(ReadBuffers::default());
        let mut buffer = buffers.take(1000);
        assert!(buffer.bytes_mut().as_ptr().addr().is_multiple_of(DIRECT_ALIGN));
        buffer.bytes_mut().fill(7);
        let slice = buffer.freeze().slice(10..20);
        assert_eq!((&slice[..], idle(&buffers)), (&[7; 10][..], vec![]));
        drop(slice);
        assert_eq!(idle(&buffers), [STEP_BYTES]);
        drop(buffers.take(STEP_BYTES - DIRECT_ALIGN));
        assert_eq!(idle(&buffers), [STEP_BYTES]);
        buffers.clear();
        assert_eq!(idle(&buffers), []);
    }

    #[test]
    fn a_small_read_does_not_keep_a_large_buffer() {
        let buffers = Arc::new(ReadBuffers::default());
        drop(buffers.take(STEP_BYTES * 4));
        drop(buffers.take(1000));
        assert_eq!(idle(&buffers), [STEP_BYTES * 5, STEP_BYTES]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let buffers = Arc::new(ReadBuffers::default());
        let taken: Vec<_> = (0..3).map(|_| buffers.take(IDLE_BYTES_MAX / 2 - STEP_BYTES)).collect();
        drop(taken);
        assert_eq!(idle(&buffers).len(), 2);
    }
}
