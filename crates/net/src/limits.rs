//! The bounds that all listeners of a process share, and who gives way when one is reached.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    config::NetConfig,
    creation_rate::CreationRate,
    deadlines::Timeouts,
    metrics::NetMetrics,
    registry::{Connections, Handle, Order, lock},
    reply_budget::ReplyBudget,
};

/// One connection is woken for so many bytes of room: what the first read of most takes.
const WOKEN_BYTES: u64 = 64 * 1024;
/// How long nobody is looked for who could give way, where nobody was found.
const LOOK_PAUSE_MS: u64 = 20;

/// Bounds shared by all listeners of a process.
#[derive(Debug)]
pub struct Limits {
    pub(crate) config: NetConfig,
    pub(crate) timeouts: Timeouts,
    pub(crate) metrics: NetMetrics,
    pub(crate) connections: Connections,
    pub(crate) creation_rate: Mutex<CreationRate>,
    /// Bytes that requests may hold. Checked before a read, charged after it, so that the bytes
    /// held exceed it by one read for each thread and one request at most.
    bound: u64,
    used: AtomicU64,
    /// The part of `used` that requests hold of which bytes are still missing.
    unfinished: AtomicU64,
    /// Connections that wait for room, by id.
    waiting: Mutex<BTreeMap<u64, Arc<Handle>>>,
    anyone_waits: AtomicBool,
    /// The connection that was told to give up its unfinished request and has not yet; 0 if none.
    evicting: AtomicU64,
    /// When to look for such a connection again, on [`Limits::clock`].
    next_look: AtomicU64,
    /// The connection that may finish its request beyond the bound, because all that is held
    /// belongs to requests that wait for room like it; 0 if none. What it holds is not in `used`:
    /// however slowly it comes to its end, the bound is there for others.
    granted: AtomicU64,
    /// The connection whose request may cost more than there is room for; 0 if none.
    decoding: AtomicU64,
    pub(crate) replies: Arc<ReplyBudget>,
    listeners: AtomicU64,
    start: Instant,
}

impl Limits {
    /// The bounds that a configuration and the open files allowed to this process give.
    #[must_use]
    pub fn new(config: NetConfig, metrics: NetMetrics) -> Arc<Limits> {
        let connections_max = config.connections(open_files_max());
        let bound = config.queued_bytes();
        metrics.connections_max.set(i64::try_from(connections_max).unwrap_or(i64::MAX));
        metrics.in_flight_bytes_max.set(i64::try_from(bound).unwrap_or(i64::MAX));
        let (reply_bound, reply_bytes) = (config.reply_bytes(), metrics.reply_bytes.clone());
        metrics.reply_bytes_max.set(i64::try_from(reply_bound).unwrap_or(i64::MAX));
        Arc::new(Limits {
            timeouts: Timeouts::new(&config),
            connections: Connections::new(connections_max),
            creation_rate: Mutex::new(CreationRate::new(config.creation_rate_max)),
            config,
            metrics,
            bound,
            used: AtomicU64::new(0),
            unfinished: AtomicU64::new(0),
            waiting: Mutex::default(),
            anyone_waits: AtomicBool::new(false),
            evicting: AtomicU64::new(0),
            next_look: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            decoding: AtomicU64::new(0),
            replies: ReplyBudget::new(reply_bound, reply_bytes),
            listeners: AtomicU64::new(0),
            start: Instant::now(),
        })
    }

    /// Bytes that requests hold now.
    #[must_use]
    pub fn request_bytes(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    pub(crate) fn next_listener(&self) -> u64 {
        self.listeners.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Milliseconds since these limits were made; never 0.
    pub(crate) fn clock(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX).max(1)
    }

    fn has_room(&self, id: u64) -> bool {
        self.used.load(Ordering::SeqCst) < self.bound || self.granted.load(Ordering::SeqCst) == id
    }

    /// Wakes who waits once an eighth is free. Until then finished requests come back without
    /// help; unfinished ones need some: those that clients have left half-sent are given up, and
    /// where all wait for room, one is let through.
    fn relieve(&self) {
        let now = self.clock(Instant::now());
        let unfinished = self.unfinished.load(Ordering::SeqCst);
        let used = self.used.load(Ordering::SeqCst);
        if used < self.bound - self.bound / 8 {
            self.wake_some((self.bound - used) / WOKEN_BYTES + 1, now);
        } else if unfinished > self.bound / 4 {
            let gives_way = self.evicting.load(Ordering::SeqCst) != 0 || self.evict(now);
            let may_grant = self.granted.load(Ordering::SeqCst) == 0;
            if !gives_way && may_grant && unfinished >= used {
                self.grant(now);
            }
        }
    }

    /// Wakes the oldest that wait, no more than there is room for: the others come to their turn
    /// with what these give back, or look again by themselves.
    fn wake_some(&self, count: u64, now: u64) {
        let mut waiting = lock(&self.waiting);
        for _ in 0..count {
            let Some((_, handle)) = waiting.pop_first() else { break };
            handle.resume(now);
        }
        self.anyone_waits.store(!waiting.is_empty(), Ordering::SeqCst);
    }

    /// Tells the half-sent request longest without progress to give way, unless one was told
    /// already. Requests that wait for room are spared: their clients do what they can. Where there
    /// was none a moment ago none is looked for: thousands may ask at once.
    fn evict(&self, now: u64) -> bool {
        if now < self.next_look.load(Ordering::SeqCst) {
            return false;
        }
        let waiting = lock(&self.waiting);
        let stalled_for = u64::from(self.config.request_stall_ms);
        let half_sent = |handle: &Handle| {
            let since = handle.stalled_since()?;
            (since + stalled_for <= now && !waiting.contains_key(&handle.id)).then_some(since)
        };
        let mut found = false;
        self.connections.on_min(half_sent, |victim| {
            found = true;
            if exchange(&self.evicting, 0, victim.id) {
                victim.order(Order::Evict);
            }
        });
        if !found {
            self.next_look.store(now + LOOK_PAUSE_MS, Ordering::SeqCst);
        }
        found
    }

    /// Lets a connection that waits go beyond the bound, unless another does: the oldest of those
    /// that hold part of a request, because only they can give back what is held.
    fn grant(&self, now: u64) {
        let mut waiting = lock(&self.waiting);
        let has_begun = |handle: &&Arc<Handle>| handle.stalled_since().is_some();
        let chosen = waiting.values().find(has_begun).or(waiting.values().next()).cloned();
        let Some(handle) = chosen else { return };
        if exchange(&self.granted, 0, handle.id) {
            handle.resume(now);
            waiting.remove(&handle.id);
        }
    }
}

fn exchange(value: &AtomicU64, from: u64, to: u64) -> bool {
    value.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// A connection's place among all connections and what it holds of the bound on request bytes.
/// Gives everything back when dropped.
#[derive(Debug)]
pub(crate) struct Account {
    limits: Arc<Limits>,
    handle: Arc<Handle>,
    held: u64,
    /// The part of `held`, and of the unfinished request, that counts against the bound.
    counted: u64,
    unfinished: u64,
    waits: bool,
}

impl Account {
    pub fn new(limits: Arc<Limits>, handle: Arc<Handle>) -> Account {
        Account { limits, handle, held: 0, counted: 0, unfinished: 0, waits: false }
    }

    /// Whether bytes may be read. Where not, the connection's task is woken when they may; where
    /// its client only trickles, it has to look again by itself, and may have to give way.
    pub fn may_read(&mut self, trickles: impl FnOnce() -> bool) -> bool {
        if self.limits.has_room(self.handle.id) {
            self.wait_no_more();
        } else if trickles() {
            self.wait_no_more();
            self.waits = true;
        } else {
            self.wait();
            // There may be room since. Who is in line is spared, so nobody stays there who reads.
            if self.limits.has_room(self.handle.id) {
                self.wait_no_more();
            }
        }
        !self.waits
    }

    /// Leaves the line of those that wait for room.
    pub fn wait_no_more(&mut self) {
        if std::mem::take(&mut self.waits) {
            lock(&self.limits.waiting).remove(&self.handle.id);
        }
    }

    /// Whether a request of this cost may be handled, which is charged then: if it fits into the
    /// bound, or if no other goes beyond it now. Where not, as for [`Account::may_read`].
    pub fn may_decode(&mut self, cost: u64) -> bool {
        let used = self.limits.used.load(Ordering::SeqCst);
        let fits = used.saturating_add(cost) <= self.limits.bound;
        if !fits && !exchange(&self.limits.decoding, 0, self.handle.id) {
            self.wait();
            return false;
        }
        self.wait_no_more();
        self.settle(self.held + cost, 0);
        true
    }

    /// Says that the request was handled: another may go beyond the bound.
    pub fn decoded(&self) {
        if self.limits.decoding.load(Ordering::Relaxed) == self.handle.id {
            exchange(&self.limits.decoding, self.handle.id, 0);
        }
    }

    /// Whether it waits for room.
    pub fn waits(&self) -> bool {
        self.waits
    }

    fn wait(&mut self) {
        self.waits = true;
        lock(&self.limits.waiting).insert(self.handle.id, Arc::clone(&self.handle));
        self.limits.anyone_waits.store(true, Ordering::SeqCst);
        self.limits.relieve();
    }

    /// When to look for room again, although nobody has called: a client may have stalled since.
    pub fn retry(&self, now: Instant) -> Option<Instant> {
        let pause = Duration::from_millis(u64::from(self.limits.config.request_stall_ms) / 2 + 1);
        self.waits.then(|| now + pause)
    }

    /// Charges what the connection holds now: in all, and for its unfinished request.
    pub fn settle(&mut self, held: u64, unfinished: u64) {
        assert!(unfinished <= held, "the unfinished request is part of what is held");
        let goes_beyond = self.limits.granted.load(Ordering::SeqCst) == self.handle.id;
        if goes_beyond && unfinished == 0 {
            exchange(&self.limits.granted, self.handle.id, 0);
        }
        let (counted, unfinished) =
            if goes_beyond && unfinished > 0 { (0, 0) } else { (held, unfinished) };
        move_to(&self.limits.unfinished, &mut self.unfinished, unfinished);
        let released = counted < self.counted;
        if held != self.held {
            let moved = i64::try_from(held).unwrap_or(i64::MAX)
                - i64::try_from(self.held).unwrap_or(i64::MAX);
            self.limits.metrics.in_flight_bytes.add(moved);
        }
        self.held = held;
        move_to(&self.limits.used, &mut self.counted, counted);
        if released && self.limits.anyone_waits.load(Ordering::SeqCst) {
            self.limits.relieve();
        }
    }

    /// Gives back all bytes, before anybody hears that the connection has ended.
    pub fn release(&mut self) {
        self.handle.set_stalled_since(0); // nobody is to be evicted who holds nothing
        self.settle(0, 0);
    }

    /// Says that the order to give way was obeyed, or no longer applies.
    pub fn evicted(&self) {
        let ours = exchange(&self.limits.evicting, self.handle.id, 0);
        if ours && self.limits.anyone_waits.load(Ordering::SeqCst) {
            self.limits.relieve();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        lock(&self.limits.waiting).remove(&self.handle.id);
        exchange(&self.limits.granted, self.handle.id, 0);
        self.decoded();
        // No longer to be found when its bytes come back, so that nobody is told to evict it then.
        self.limits.connections.remove(&self.handle);
        self.settle(0, 0);
        self.evicted();
    }
}

fn move_to(counter: &AtomicU64, from: &mut u64, to: u64) {
    if to > *from {
        counter.fetch_add(to - *from, Ordering::SeqCst);
    } else if to < *from {
        let before = counter.fetch_sub(*from - to, Ordering::SeqCst);
        assert!(before >= *from - to, "more was given back than was taken");
    }
    *from = to;
}

/// Raises the number of files this process may open as far as the system lets it.
///
/// Returns the number in force afterwards.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where the system refuses, the old limit stays and is what is reported.
    let _ = setrlimit(Resource::Nofile, raised);
    open_files_max()
}

fn open_files_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::registry::Bounds;

    struct LimitsTest {
        limits: Arc<Limits>,
    }

    impl LimitsTest {
        fn new(bound: i64) -> LimitsTest {
            let metrics = NetMetrics::register(&prometheus::Registry::new()).expect("new names");
            let config = NetConfig {
                queued_bytes_max: bound,
                request_bytes_max: 1,
                request_stall_ms: 0,
                ..NetConfig::default()
            };
            LimitsTest { limits: Limits::new(config, metrics) }
        }

        fn account(&self) -> Account {
            let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let bounds = Bounds { listener: usize::MAX, per_ip: usize::MAX };
            let handle = self.limits.connections.admit(1, ip, bounds).expect("room");
            Account::new(Arc::clone(&self.limits), handle)
        }
    }

    #[test]
    fn the_half_sent_request_longest_without_progress_gives_way() {
        let test = LimitsTest::new(1000);
        let [mut young, mut old, mut reader] = [test.account(), test.account(), test.account()];
        for (account, since) in [(&mut old, 1), (&mut young, 2)] {
            account.settle(500, 500);
            account.handle.set_stalled_since(since);
        }
        assert!(!reader.may_read(|| false));
        let ordered = [&old, &young, &reader].map(|account| account.handle.ordered());
        assert_eq!(ordered, [Order::Evict, Order::None, Order::None]);
        drop(old);
        assert!(reader.may_read(|| false));
        assert_eq!(young.handle.ordered(), Order::None);
    }

    #[test]
    fn who_trickles_does_not_wait_but_gives_way() {
        let test = LimitsTest::new(1000);
        let [mut trickling, mut reader] = [test.account(), test.account()];
        trickling.settle(1000, 1000);
        trickling.handle.set_stalled_since(1);
        assert!(!trickling.may_read(|| true) && trickling.waits());
        assert!(trickling.retry(Instant::now()).is_some(), "it looks again by itself");
        assert!(!reader.may_read(|| false));
        assert_eq!(trickling.handle.ordered(), Order::Evict);
    }

    #[test]
    fn who_waited_for_room_and_reads_again_is_spared_no_longer() {
        let test = LimitsTest::new(1000);
        let [mut busy, mut slow, mut reader] = [test.account(), test.account(), test.account()];
        slow.settle(500, 500);
        slow.handle.set_stalled_since(1);
        busy.settle(500, 0);
        assert!(!slow.may_read(|| false), "it waits in line");
        busy.settle(400, 0);
        assert!(slow.may_read(|| false), "nobody was called, but it looked again by itself");
        busy.settle(500, 0);
        test.limits.next_look.store(0, Ordering::SeqCst);
        assert!(!reader.may_read(|| false));
        assert_eq!(slow.handle.ordered(), Order::Evict);
        assert!(lock(&test.limits.waiting).keys().eq([&reader.handle.id]));
    }

    #[test]
    fn where_all_wait_for_room_one_is_let_through() {
        let test = LimitsTest::new(1000);
        let [mut first, mut second] = [test.account(), test.account()];
        first.settle(500, 500);
        second.settle(500, 500);
        assert_eq!([second.may_read(|| false), first.may_read(|| false)], [true, false]);
        second.settle(800, 0);
        assert_eq!([second.may_read(|| false), first.may_read(|| false)], [false, false]);
        second.settle(0, 0);
        assert_eq!([second.may_read(|| false), first.may_read(|| false)], [true, true]);
        assert_eq!([first, second].map(|a| a.handle.ordered()), [Order::None, Order::None]);
    }

    #[test]
    fn what_goes_beyond_the_bound_takes_nothing_of_it() {
        let test = LimitsTest::new(1000);
        let [mut small, mut large] = [test.account(), test.account()];
        large.settle(1000, 1000);
        large.handle.set_stalled_since(1);
        assert!(large.may_read(|| false));
        large.settle(5000, 5000);
        assert_eq!(test.limits.request_bytes(), 0);
        assert!(small.may_read(|| false));
        large.settle(9000, 0);
        assert_eq!((test.limits.request_bytes(), small.may_read(|| false)), (9000, false));
        large.settle(0, 0);
        assert!(small.may_read(|| false));
    }

    #[test]
    fn finished_requests_are_waited_for() {
        let test = LimitsTest::new(1000);
        let [mut busy, mut slow, mut reader] = [test.account(), test.account(), test.account()];
        busy.settle(800, 0);
        slow.settle(200, 200);
        slow.handle.set_stalled_since(1);
        assert!(!reader.may_read(|| false));
        assert_eq!(slow.handle.ordered(), Order::None);
        busy.settle(0, 0);
        assert!(lock(&test.limits.waiting).is_empty());
        assert!(reader.may_read(|| false));
    }

    #[test]
    fn one_request_at_a_time_costs_more_than_there_is_room_for() {
        let test = LimitsTest::new(1000);
        let [mut first, mut second, mut third] = [test.account(), test.account(), test.account()];
        assert_eq!((first.may_decode(900), test.limits.request_bytes()), (true, 900));
        assert!(second.may_decode(5000), "one goes beyond the bound");
        assert_eq!((third.may_decode(200), test.limits.request_bytes()), (false, 5900));
        second.decoded();
        second.settle(0, 0);
        assert!(third.may_decode(200) && !second.may_decode(200));
        drop(third);
        assert!(second.may_decode(200));
    }

    #[test]
    fn an_account_gives_back_everything() {
        let test = LimitsTest::new(1000);
        let mut account = test.account();
        account.settle(900, 300);
        account.settle(500, 0);
        assert_eq!(test.limits.request_bytes(), 500);
        drop(account);
        assert_eq!(test.limits.request_bytes(), 0);
        assert_eq!(test.limits.unfinished.load(Ordering::SeqCst), 0);
    }
}
