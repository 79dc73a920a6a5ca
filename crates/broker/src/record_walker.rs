//! Opens batches on a thread of its own: a small one may take milliseconds, which no connection
//! and no other reader of the log shall wait for.

use std::{io, sync::Arc, thread};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::waiting_room::{Place, WaitingRoom};

/// Batches that may wait to be opened. A connection asks for one at a time.
const WALKS_MAX: usize = 1024;
/// Bytes that they may have together.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// How much larger than the topic's largest batch one may become while its records are open.
pub(crate) const OPENED_FACTOR: usize = 16;
/// Bytes that no compressed batch may exceed then.
pub(crate) const OPENED_BYTES_MAX: usize = 64 << 20;

/// What a compressed batch may become. Producers count a batch's size before they compress it, so
/// that honest ones stay far below.
pub(crate) fn opened_bytes_max(message_bytes_max: u32) -> usize {
    OPENED_BYTES_MAX.min((message_bytes_max as usize).saturating_mul(OPENED_FACTOR))
}

type Walk = (Box<dyn FnOnce() + Send>, Place);

/// The way to the thread, which ends with the last of these.
#[derive(Clone)]
pub(crate) struct RecordWalker {
    walks: Sender<Walk>,
    room: Arc<WaitingRoom>,
}

impl RecordWalker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start() -> io::Result<RecordWalker> {
        let (walks, queue): (Sender<Walk>, Receiver<Walk>) = bounded(WALKS_MAX);
        let run = move || queue.into_iter().for_each(|(walk, _place)| walk());
        thread::Builder::new().name("record-walker".to_owned()).spawn(run)?;
        Ok(RecordWalker { walks, room: WaitingRoom::new(WAITING_BYTES_MAX) })
    }

    /// Has `walk` called on the thread, which keeps a batch of so many bytes. Never waits: with too
    /// many in line it is dropped.
    pub fn queue(&self, bytes: usize, walk: impl FnOnce() + Send + 'static) {
        let Some(place) = self.room.enter(bytes) else { return };
        let _ = self.walks.try_send((Box::new(walk), place));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_waits_is_bounded_by_the_batches_that_it_keeps() {
        let walker = RecordWalker::start().expect("a thread");
        let (go, wait) = mpsc::sync_channel::<()>(1);
        walker.queue(WAITING_BYTES_MAX - 10, move || {
            let _ = wait.recv();
        });
        let (told, heard) = mpsc::sync_channel(2);
        for bytes in [10, 1] {
            let told = told.clone();
            walker.queue(bytes, move || told.send(bytes).expect("it is heard"));
        }
        drop((told, go));
        assert_eq!(heard.iter().collect::<Vec<_>>(), [10], "the other was dropped at once");
    }
}
