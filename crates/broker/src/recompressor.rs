//! Recompresses batches on threads of its own: that is work for the processor, which no connection
//! that shares a thread with this one shall wait for.

use std::{
    io,
    num::NonZero,
    sync::Arc,
    thread::{self, available_parallelism},
};

use crossbeam::channel::{Receiver, Sender, bounded};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Requests for each thread that hold recompressed batches: one is worked on, one waits for room
/// in the log. Others wait in line, and their connections read nothing meanwhile.
const TURNS_A_THREAD: usize = 2;

type Work = Box<dyn FnOnce() + Send>;

/// The way to the threads, which end with the last of these.
#[derive(Clone)]
pub(crate) struct Recompressor {
    turns: Arc<Semaphore>,
    works: Sender<Work>,
}

/// Held for as long as recompressed batches are in memory and not counted elsewhere.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Recompressor {
    /// Starts a thread for every two processors: the others serve whoever needs none of this.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start() -> io::Result<Recompressor> {
        let threads = available_parallelism().map_or(1, NonZero::get).div_ceil(2);
        let turns = threads * TURNS_A_THREAD;
        let (works, queue): (Sender<Work>, Receiver<Work>) = bounded(turns);
        for number in 0..threads {
            let queue = queue.clone();
            let run = move || queue.into_iter().for_each(|work| work());
            thread::Builder::new().name(format!("recompressor-{number}")).spawn(run)?;
        }
        Ok(Recompressor { turns: Arc::new(Semaphore::new(turns)), works })
    }

    /// Waits for a turn, first come first served, then for the work's outcome. `None` where a
    /// thread is gone, which only a panic makes it.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<(T, Turn)> {
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let (done, outcome) = oneshot::channel();
        let work = move || {
            // A client that has gone needs no outcome. Its turn ends here, no earlier: what was
            // queued for it takes a place.
            if !done.is_closed() {
                let _ = done.send((work(), Turn { _permit: permit }));
            }
        };
        // Those with a turn are no more than the queue holds, so this never waits.
        self.works.try_send(Box::new(work)).ok()?;
        outcome.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future as _, poll_fn},
        pin::pin,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        task::{Context, Poll, Waker},
    };

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn clients_that_have_gone_take_no_turn_and_nobody_elses() {
        let recompressor = Recompressor::start().expect("threads");
        let turns = recompressor.turns.available_permits();
        let mut context = Context::from_waker(Waker::noop());
        let (go, wait) = mpsc::sync_channel::<()>(1);
        let wait = Arc::new(Mutex::new(wait));
        let worked = Arc::new(AtomicUsize::new(0));
        for _ in 0..4 * turns {
            let (wait, worked) = (Arc::clone(&wait), Arc::clone(&worked));
            let gone = pin!(recompressor.run(move || {
                let _ = wait.lock().expect("no panic").recv();
                worked.fetch_add(1, Ordering::SeqCst);
            }))
            .poll(&mut context);
            assert!(gone.is_pending());
        }
        let mut last = pin!(recompressor.run(|| 7));
        assert!(last.as_mut().poll(&mut context).is_pending(), "it waits for its turn");
        drop(go);
        let outcome = loop {
            match last.as_mut().poll(&mut context) {
                Poll::Ready(outcome) => break outcome.map(|(outcome, _)| outcome),
                Poll::Pending => thread::yield_now(),
            }
        };
        assert_eq!(outcome, Some(7));
        let worked = worked.load(Ordering::SeqCst);
        assert!(worked < turns, "{worked} works were done for nobody");
    }

    #[test]
    fn who_has_no_turn_waits_until_another_is_over() {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let recompressor = Recompressor::start().expect("threads");
        let turns = recompressor.works.capacity().expect("a bounded queue");
        runtime.block_on(async {
            let mut held = Vec::new();
            for number in 0..turns {
                let (outcome, turn) = recompressor.run(move || number).await.expect("a thread");
                assert_eq!(outcome, number);
                held.push(turn);
            }
            let mut late = pin!(recompressor.run(|| "late"));
            let looked = poll_fn(|context| Poll::Ready(late.as_mut().poll(context))).await;
            assert!(looked.is_pending(), "what has become of earlier work is in memory still");
            assert_eq!(recompressor.turns.available_permits(), 0);
            held.pop();
            assert!(late.await.is_some_and(|(outcome, _)| outcome == "late"));
        });
    }
}
