//! The connections that are open, and how each is told something from outside its task.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::Waker,
};

/// What a connection is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// Nothing.
    None = 0,
    /// Give up the unfinished request, if there still is one.
    Evict = 1,
    /// Answer what is in flight, read nothing more, end.
    Drain = 2,
    /// End now.
    Abort = 3,
}

/// A connection, as others reach it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub id: u64,
    pub listener: u64,
    ip: IpAddr,
    waker: Mutex<Option<Waker>>,
    order: AtomicU8,
    /// Milliseconds since the limits were made when the unfinished request last grew; 0 if none.
    stalled_since: AtomicU64,
}

impl Handle {
    /// The task that runs the connection.
    pub fn set_waker(&self, waker: &Waker) {
        *lock(&self.waker) = Some(waker.clone());
    }

    pub fn wake(&self) {
        if let Some(waker) = lock(&self.waker).as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Gives an order and wakes the task. A stronger order stays.
    pub fn order(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::SeqCst);
        self.wake();
    }

    pub fn ordered(&self) -> Order {
        match self.order.load(Ordering::SeqCst) {
            0 => Order::None,
            1 => Order::Evict,
            2 => Order::Drain,
            _ => Order::Abort,
        }
    }

    /// Takes an eviction back: the request has meanwhile become whole.
    pub fn pardon(&self) {
        let (evict, none) = (Order::Evict as u8, Order::None as u8);
        // A stronger order that came since is meant to stay, so a failed exchange is right.
        let _ = self.order.compare_exchange(evict, none, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Wakes a connection that waited for room. The time it waited was not its client's.
    pub fn resume(&self, now: u64) {
        if self.stalled_since().is_some() {
            self.set_stalled_since(now);
        }
        self.wake();
    }

    pub fn set_stalled_since(&self, since: u64) {
        self.stalled_since.store(since, Ordering::Relaxed);
    }

    /// `None` where no request is unfinished.
    pub fn stalled_since(&self) -> Option<u64> {
        Some(self.stalled_since.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }
}

/// Which limit refused a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Total,
    PerIp,
}

/// All connections of the process.
#[derive(Debug)]
pub(crate) struct Connections {
    max: usize,
    per_ip_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last_id: u64,
    handles: HashMap<u64, Arc<Handle>>,
    per_ip: HashMap<IpAddr, usize>,
}

impl Connections {
    pub fn new(max: usize, per_ip_max: usize) -> Connections {
        Connections { max, per_ip_max, open: Mutex::default() }
    }

    /// Admits a connection, or says which limit it would break.
    pub fn admit(&self, listener: u64, ip: IpAddr) -> Result<Arc<Handle>, Refusal> {
        let mut open = lock(&self.open);
        if open.handles.len() >= self.max {
            return Err(Refusal::Total);
        }
        let from_ip = open.per_ip.get(&ip).copied().unwrap_or(0);
        if from_ip >= self.per_ip_max {
            return Err(Refusal::PerIp);
        }
        open.per_ip.insert(ip, from_ip + 1);
        open.last_id += 1;
        let handle = Arc::new(Handle {
            id: open.last_id,
            listener,
            ip,
            waker: Mutex::default(),
            order: AtomicU8::new(Order::None as u8),
            stalled_since: AtomicU64::new(0),
        });
        open.handles.insert(handle.id, Arc::clone(&handle));
        Ok(handle)
    }

    pub fn remove(&self, handle: &Handle) {
        let mut open = lock(&self.open);
        let removed = open.handles.remove(&handle.id);
        assert!(removed.is_some(), "a connection is removed once");
        let from_ip = open.per_ip.get_mut(&handle.ip).expect("an open connection is counted");
        *from_ip -= 1;
        if *from_ip == 0 {
            open.per_ip.remove(&handle.ip);
        }
    }

    /// Tells all connections of a listener.
    pub fn order_all(&self, listener: u64, order: Order) {
        let ours: Vec<Arc<Handle>> =
            lock(&self.open).handles.values().filter(|h| h.listener == listener).cloned().collect();
        ours.iter().for_each(|handle| handle.order(order));
    }

    /// Picks the connection with the least key among those that have one and acts on it. It stays
    /// registered until the act is over.
    pub fn on_min<K: Ord>(&self, key: impl Fn(&Handle) -> Option<K>, act: impl FnOnce(&Handle)) {
        let open = lock(&self.open);
        let keyed = open.handles.values().filter_map(|handle| Some((key(handle)?, handle)));
        if let Some((_, handle)) = keyed.min_by(|a, b| a.0.cmp(&b.0)) {
            act(handle);
        }
    }
}

/// A lock whose holder cannot leave half a change behind, so poison means nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

    #[test]
    fn limits_hold_in_total_and_for_each_address() {
        let connections = Connections::new(3, 2);
        let first = connections.admit(1, A).expect("room");
        connections.admit(1, A).expect("room");
        assert_eq!(connections.admit(1, A).map(|h| h.id), Err(Refusal::PerIp));
        connections.admit(1, B).expect("room");
        assert_eq!(connections.admit(1, B).map(|h| h.id), Err(Refusal::Total));
        connections.remove(&first);
        assert_eq!(connections.admit(1, A).map(|h| h.id), Ok(4));
    }

    #[test]
    fn a_stronger_order_stays() {
        let handle = Connections::new(1, 1).admit(1, A).expect("room");
        handle.order(Order::Drain);
        handle.order(Order::Evict);
        handle.pardon();
        assert_eq!(handle.ordered(), Order::Drain);
    }
}
