//! The connections that are open, and how each is told something from outside its task.

use std::{
    collections::HashMap,
    hash::Hash,
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
    Listener,
    PerIp,
}

impl Refusal {
    /// The setting that says so.
    pub fn setting(self) -> &'static str {
        match self {
            Refusal::Total => "max.connections",
            Refusal::Listener => "listener.name.plaintext.max.connections",
            Refusal::PerIp => "max.connections.per.ip",
        }
    }
}

/// What a connection must leave room for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections of its listener.
    pub listener: usize,
    /// Connections from its address.
    pub per_ip: usize,
}

/// All connections of the process.
#[derive(Debug)]
pub(crate) struct Connections {
    max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last_id: u64,
    handles: HashMap<u64, Arc<Handle>>,
    per_ip: HashMap<IpAddr, usize>,
    per_listener: HashMap<u64, usize>,
}

impl Connections {
    pub fn new(max: usize) -> Connections {
        Connections { max, open: Mutex::default() }
    }

    /// Admits a connection, or says which limit it would break.
    pub fn admit(&self, listener: u64, ip: IpAddr, bounds: Bounds) -> Result<Arc<Handle>, Refusal> {
        let mut open = lock(&self.open);
        if open.handles.len() >= self.max {
            return Err(Refusal::Total);
        }
        let of_listener = open.per_listener.get(&listener).copied().unwrap_or(0);
        if of_listener >= bounds.listener {
            return Err(Refusal::Listener);
        }
        let from_ip = open.per_ip.get(&ip).copied().unwrap_or(0);
        if from_ip >= bounds.per_ip {
            return Err(Refusal::PerIp);
        }
        open.per_listener.insert(listener, of_listener + 1);
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
        count_down(&mut open.per_ip, &handle.ip);
        count_down(&mut open.per_listener, &handle.listener);
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

fn count_down<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    let count = counts.get_mut(key).expect("an open connection is counted");
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
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

    const BOUNDS: Bounds = Bounds { listener: 3, per_ip: 2 };

    #[test]
    fn limits_hold_in_total_for_each_listener_and_each_address() {
        let connections = Connections::new(4);
        let admit = |listener, ip| connections.admit(listener, ip, BOUNDS);
        let first = admit(1, A).expect("room");
        let second = admit(1, A).expect("room");
        let refusals = [
            (1, A, Err(Refusal::PerIp)),
            (2, A, Err(Refusal::PerIp)),
            (1, B, Ok(3)),
            (1, B, Err(Refusal::Listener)),
            (2, B, Ok(4)),
            (2, B, Err(Refusal::Total)),
        ];
        for (listener, ip, expected) in refusals {
            assert_eq!(admit(listener, ip).map(|h| h.id), expected, "{listener} {ip}");
        }
        connections.remove(&first);
        assert_eq!(admit(1, A).map(|h| h.id), Ok(5));
        connections.remove(&second);
        assert_eq!(admit(2, A).map(|h| h.id), Ok(6));
    }

    #[test]
    fn a_stronger_order_stays() {
        let handle = Connections::new(1).admit(1, A, BOUNDS).expect("room");
        handle.order(Order::Drain);
        handle.order(Order::Evict);
        handle.pardon();
        assert_eq!(handle.ordered(), Order::Drain);
    }
}
