//! Sessions against a model of their clients, and the rules of the cache in tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use tidelog_types::Offset;

use super::*;
use crate::error::SessionError;

const EVICTION: Duration = Duration::from_secs(120);
const LIMITS: CacheLimits =
    CacheLimits { sessions_max: 2, partitions_max: 20, eviction_min: EVICTION };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn an_id_and_an_epoch_ask_for_one_of_three_things() {
    let id = SessionId(7);
    for (epoch, expected) in [
        (-1, SessionRequest::Sessionless(id)),
        (0, SessionRequest::Full(id)),
        (1, SessionRequest::Incremental(id, SessionEpoch(1))),
        (-2, SessionRequest::Incremental(id, SessionEpoch(-2))), // which no session is ever at
    ] {
        assert_eq!(SessionRequest::of(7, epoch), expected);
    }
}

#[test]
fn the_epoch_after_the_greatest_is_one() {
    let mut session: FetchSession<u8, ()> = FetchSession::new(false);
    session.epoch = SessionEpoch(i32::MAX);
    let begun = session.begin(SessionId(1), SessionEpoch(i32::MAX), false);
    assert_eq!(begun, Ok(SessionEpoch(1)));
    assert_eq!(session.begin(SessionId(1), SessionEpoch(1), false), Ok(SessionEpoch(2)));
}

#[test]
fn only_the_request_that_follows_goes_on_with_a_session() {
    let id = SessionId(3);
    let mut session: FetchSession<u8, ()> = FetchSession::new(true);
    let wrong = |requested, current| {
        let (requested, current) = (SessionEpoch(requested), SessionEpoch(current));
        Err(SessionError::InvalidEpoch { id, requested, current })
    };
    assert_eq!(session.begin(id, SessionEpoch(2), true), wrong(2, 1));
    assert_eq!(session.begin(id, SessionEpoch(1), false), Err(SessionError::TopicIds { id }));
    let begun = session.begin(id, SessionEpoch(1), true).expect("the one that follows");
    assert!(session.is_current(begun));
    assert_eq!(session.begin(id, SessionEpoch(1), true), wrong(1, 2), "it came twice");
    assert!(session.is_current(begun), "a refused request changes nothing");
    session.begin(id, SessionEpoch(2), true).expect("the one that follows");
    assert!(!session.is_current(begun));
}

/// A look that found nothing to read.
fn quiet(high_watermark: i64, log_start_offset: i64) -> Look {
    let (high_watermark, log_start_offset) = (Offset(high_watermark), Offset(log_start_offset));
    Look {
        has_records: false,
        high_watermark,
        log_start_offset,
        is_notable: false,
        is_drained: true,
    }
}

#[test]
fn an_answer_holds_what_the_client_does_not_know() {
    let records = Look { has_records: true, is_drained: false, ..quiet(5, 0) };
    let error = Look { is_notable: true, is_drained: false, ..quiet(-1, -1) };
    let diverging = Look { is_notable: true, is_drained: false, ..quiet(5, 0) };
    let unread = Look { is_drained: false, ..quiet(5, 0) }; // the response was full
    for (look, expected) in [
        (quiet(5, 0), false),
        (quiet(6, 0), true),
        (quiet(5, 1), true),
        (records, true),
        (error, true),
        (diverging, true),
        (unread, false),
    ] {
        let mut session: FetchSession<u8, ()> = FetchSession::new(false);
        let slot = session.add(1, ());
        assert!(session.answer(slot, &quiet(5, 0)), "nothing was told before");
        assert_eq!(session.unsettled_len(), 0);
        session.mark(slot);
        assert_eq!(session.answer(slot, &look), expected, "{look:?}");
        // Only what is the same until something happens need not be looked at again.
        assert_eq!(session.unsettled_len() == 0, look.is_drained, "{look:?}");
    }
}

#[test]
fn the_end_of_an_error_is_told() {
    let mut session: FetchSession<u8, ()> = FetchSession::new(false);
    let slot = session.add(1, ());
    session.answer(slot, &quiet(5, 0));
    session.mark(slot);
    let error = Look { is_notable: true, is_drained: false, ..quiet(-1, -1) };
    assert!(session.answer(slot, &error) && session.answer(slot, &error), "each time");
    assert!(session.answer(slot, &quiet(5, 0)), "as it was before the error");
}

#[test]
fn news_that_are_not_worth_an_answer_are_told_with_the_next() {
    let mut session: FetchSession<u8, ()> = FetchSession::new(false);
    let slot = session.add(1, ());
    session.answer(slot, &quiet(5, 0));
    session.mark(slot);
    session.settle(slot, &quiet(6, 0));
    assert_eq!(session.unsettled_len(), 1);
    assert!(session.answer(slot, &quiet(6, 0)));
    assert_eq!(session.unsettled_len(), 0);
}

#[test]
fn whose_records_were_sent_comes_last() {
    let mut session: FetchSession<u8, ()> = FetchSession::new(false);
    let slots = [1, 2, 3].map(|key| session.add(key, ()));
    let order = |session: &FetchSession<u8, ()>| -> Vec<u8> {
        session.unsettled().map(|(_, key, ())| *key).collect()
    };
    let records = Look { has_records: true, is_drained: false, ..quiet(5, 0) };
    let unread = Look { is_drained: false, ..quiet(5, 0) };
    for expected in [[2, 3, 1], [3, 1, 2], [1, 2, 3]] {
        let first = session.unsettled().next().expect("three of them").0;
        for slot in slots {
            session.answer(slot, if slot == first { &records } else { &unread });
        }
        assert_eq!(order(&session), expected);
    }
    assert!(session.update(&2, ()), "what the client changes keeps its place");
    assert_eq!(order(&session), [1, 2, 3]);
    assert_eq!(session.forget(&1), Some(slots[0]));
    assert_eq!(session.forget(&1), None);
    assert!(!session.update(&1, ()));
    assert_eq!(session.add(1, ()), slots[0], "a slot is used again");
    assert_eq!(order(&session), [2, 3, 1], "who comes back comes last");
}

#[test]
fn a_mark_for_a_partition_that_was_forgotten_is_dropped() {
    let mut session: FetchSession<u8, ()> = FetchSession::new(false);
    let slot = session.add(1, ());
    session.forget(&1);
    session.mark(slot);
    session.mark(Slot(9));
    assert_eq!((session.unsettled_len(), session.len(), session.is_empty()), (0, 0, true));
}

/// Whether a new session of (is follower, partitions) is taken in at a second, beside sessions of
/// (is follower, partitions, created, last used), and who gives way: as indices.
type Case<'a> = (&'a [(bool, usize, u64, u64)], (bool, usize), u64, Option<&'a [usize]>);

#[test]
fn who_gives_way_to_a_new_session() {
    let cases: &[Case<'_>] = &[
        (&[(false, 1, 0, 0)], (false, 1), 1, Some(&[])), // there is a slot
        // Nobody is old: only a follower is let in, and only at the cost of a consumer.
        (&[(false, 1, 0, 0), (false, 2, 0, 0)], (false, 9), 120, None),
        (&[(false, 1, 0, 0), (false, 2, 0, 0)], (true, 1), 120, Some(&[0])),
        (&[(true, 1, 0, 0), (true, 2, 0, 0)], (true, 9), 120, None),
        (&[(true, 1, 0, 0), (true, 2, 0, 0)], (false, 9), 120, None),
        // Unused for long: whoever comes, the longest unused gives way.
        (&[(true, 9, 0, 2), (true, 9, 0, 1)], (false, 1), 122, Some(&[1])),
        // Old but in use: gives way to what is larger, not to its like.
        (&[(false, 3, 0, 99), (false, 2, 0, 99)], (false, 3), 121, Some(&[1])),
        (&[(false, 3, 0, 99), (false, 2, 0, 99)], (false, 2), 121, None),
        (&[(false, 3, 0, 99), (false, 2, 9, 99)], (false, 4), 121, Some(&[0])),
        (&[(true, 3, 0, 99), (true, 2, 0, 99)], (false, 9), 121, None),
        (&[(true, 3, 0, 99), (true, 2, 0, 99)], (true, 3), 121, Some(&[1])),
        // Partitions are bounded too: several may have to give way, or none does.
        (&[(false, 19, 0, 0)], (false, 1), 1, Some(&[])),
        (&[(false, 19, 0, 0)], (false, 2), 1, None),
        (&[(false, 11, 0, 0), (false, 9, 0, 0)], (false, 20), 121, Some(&[0, 1])),
        (&[(false, 11, 0, 0), (false, 9, 0, 120)], (false, 20), 121, Some(&[0, 1])),
        (&[(false, 11, 0, 0), (false, 9, 2, 120)], (false, 20), 121, None),
        (&[(false, 11, 0, 0), (false, 9, 0, 0)], (false, 21), 999, None),
    ];
    for (sessions, newcomer, now, expected) in cases {
        let mut cache = FetchSessionCache::new(LIMITS);
        for (index, (is_follower, partitions, created, last_used)) in sessions.iter().enumerate() {
            let made = cache.create(index, *is_follower, *partitions, at(*created), 7);
            let made = made.expect("there is room");
            assert_eq!(made.evicted, [], "there is room");
            assert!(cache.touch(made.id, *partitions, at(*last_used)));
        }
        let before = (cache.len(), cache.partitions());
        assert_eq!(cache.takes(newcomer.0, newcomer.1, at(*now)), expected.is_some());
        let made = cache.create(9, newcomer.0, newcomer.1, at(*now), 7);
        let evicted = made.map(|made| {
            let mut evicted = made.evicted;
            evicted.sort_unstable();
            evicted
        });
        assert_eq!(evicted.as_deref(), *expected, "{sessions:?} {newcomer:?} {now}");
        if expected.is_none() {
            assert_eq!((cache.len(), cache.partitions()), before, "nobody gave way in vain");
        }
    }
}

#[test]
fn a_session_that_grows_beyond_the_bound_is_refused() {
    let mut cache = FetchSessionCache::new(LIMITS);
    let one = cache.create("one", false, 5, at(0), u64::MAX).expect("room").id;
    let two = cache.create("two", false, 5, at(0), u64::MAX).expect("room").id;
    assert!(one != two && one.0 > 0 && two.0 > 0, "{one:?} {two:?}");
    assert!(cache.touch(one, 15, at(1)));
    assert!(!cache.touch(two, 6, at(1)));
    assert_eq!((cache.partitions(), cache.remove(two), cache.remove(two)), (20, Some("two"), None));
    assert_eq!((cache.partitions(), cache.get(one), cache.get(two)), (15, Some(&"one"), None));
    assert!(!cache.touch(two, 0, at(1)), "it is gone");
}

#[test]
fn without_slots_there_are_no_sessions() {
    let mut cache = FetchSessionCache::new(CacheLimits { sessions_max: 0, ..LIMITS });
    assert_eq!(cache.create((), true, 1, at(0), 1), None);
}

/// A log as far as fetches tell of it. Each record is a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Log {
    log_start_offset: i64,
    high_watermark: i64,
    /// It cannot be read now.
    fails: bool,
}

/// What a client knows of a partition, or would be told by a full fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Error,
    Offsets { log_start_offset: i64, high_watermark: i64 },
}

/// What one answer says of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    known: Known,
    /// Records from the offset wanted on.
    records: i64,
}

type Key = usize;
type Session = FetchSession<Key, i64>;

/// A broker in miniature: what a shell does with sessions.
struct Server {
    logs: Vec<Log>,
    cache: FetchSessionCache<usize>,
    sessions: Vec<Session>,
    now: u64,
    records_max: i64,
}

#[derive(Debug)]
struct Request {
    session_id: i32,
    epoch: i32,
    wanted: BTreeMap<Key, i64>,
    forgotten: BTreeSet<Key>,
}

#[derive(Debug)]
struct Response {
    session_id: i32,
    told: BTreeMap<Key, Told>,
}

impl Server {
    /// Changes a log and tells whoever watches it.
    fn change(&mut self, key: Key, change: impl FnOnce(&mut Log)) {
        change(&mut self.logs[key]);
        for session in &mut self.sessions {
            if let Some(slot) = session.slots.get(&key).copied() {
                session.mark(slot);
            }
        }
    }

    fn look(&self, key: Key, offset: i64, room: i64) -> (Look, Told) {
        let log = self.logs[key];
        if log.fails || offset < log.log_start_offset || offset > log.high_watermark {
            let look = Look { is_notable: true, is_drained: false, ..quiet(-1, -1) };
            return (look, Told { known: Known::Error, records: 0 });
        }
        let Log { log_start_offset, high_watermark, .. } = log;
        let records = (high_watermark - offset).min(room);
        let look = Look {
            has_records: records > 0,
            is_drained: offset == high_watermark,
            ..quiet(high_watermark, log_start_offset)
        };
        (look, Told { known: Known::Offsets { log_start_offset, high_watermark }, records })
    }

    fn serve(&mut self, request: &Request) -> Result<Response, SessionError> {
        match SessionRequest::of(request.session_id, request.epoch) {
            SessionRequest::Sessionless(id) => {
                self.cache.remove(id);
                Ok(self.serve_full(request).0)
            }
            SessionRequest::Full(id) => {
                self.cache.remove(id);
                let (mut response, session) = self.serve_full(request);
                let now = at(self.now);
                let partitions = session.len();
                let index = self.sessions.len();
                if let Some(made) = self.cache.create(index, false, partitions, now, index as u64) {
                    self.sessions.push(session);
                    response.session_id = made.id.0;
                }
                Ok(response)
            }
            SessionRequest::Incremental(id, epoch) => self.serve_incremental(id, epoch, request),
        }
    }

    fn serve_full(&self, request: &Request) -> (Response, Session) {
        let mut session = FetchSession::new(false);
        let mut told = BTreeMap::new();
        let mut room = self.records_max;
        for (&key, &offset) in &request.wanted {
            let slot = session.add(key, offset);
            let (look, found) = self.look(key, offset, room);
            room -= found.records;
            assert!(session.answer(slot, &look), "the client knows nothing yet");
            told.insert(key, found);
        }
        (Response { session_id: 0, told }, session)
    }

    fn serve_incremental(
        &mut self,
        id: SessionId,
        epoch: SessionEpoch,
        request: &Request,
    ) -> Result<Response, SessionError> {
        let index = *self.cache.get(id).ok_or(SessionError::NotFound { id })?;
        let session = &mut self.sessions[index];
        session.begin(id, epoch, false)?;
        for (key, offset) in &request.wanted {
            if !session.update(key, *offset) {
                session.add(*key, *offset);
            }
        }
        request.forgotten.iter().for_each(|key| assert!(session.forget(key).is_some()));
        let partitions = session.len();
        if partitions == 0 || !self.cache.touch(id, partitions, at(self.now)) {
            self.cache.remove(id);
            return Ok(Response { session_id: 0, told: BTreeMap::new() });
        }
        let unsettled: Vec<_> = session.unsettled().map(|(s, key, at)| (s, *key, *at)).collect();
        let mut told = BTreeMap::new();
        let mut room = self.records_max;
        for (slot, key, offset) in unsettled {
            let (look, found) = self.look(key, offset, room);
            room -= found.records;
            if self.sessions[index].answer(slot, &look) {
                told.insert(key, found);
            }
        }
        Ok(Response { session_id: id.0, told })
    }
}

/// A client with Kafka's rules for sessions.
struct Client {
    session_id: i32,
    epoch: i32,
    /// What the broker was told that this client wants.
    session: BTreeMap<Key, i64>,
    /// What it wants.
    wanted: BTreeMap<Key, i64>,
    view: BTreeMap<Key, Known>,
}

impl Client {
    fn request(&mut self) -> Request {
        let before = std::mem::replace(&mut self.session, self.wanted.clone());
        let is_full = self.epoch <= 0;
        if is_full {
            self.view.clear();
        }
        let is_new = |key: &Key, offset: &i64| is_full || before.get(key) != Some(offset);
        let wanted = self.wanted.iter().filter(|(key, offset)| is_new(key, offset));
        let wanted = wanted.map(|(key, offset)| (*key, *offset)).collect();
        let forgotten = before.keys().filter(|key| !is_full && !self.wanted.contains_key(key));
        let forgotten: BTreeSet<_> = forgotten.copied().collect();
        self.view.retain(|key, _| !forgotten.contains(key));
        Request { session_id: self.session_id, epoch: self.epoch, wanted, forgotten }
    }

    fn take(&mut self, response: Response) {
        for (key, told) in &response.told {
            assert!(self.session.contains_key(key), "{key} was not asked for");
            self.view.insert(*key, told.known);
        }
        self.epoch = match response.session_id {
            0 => 0,
            _ => SessionEpoch(self.epoch).next().0,
        };
        self.session_id = response.session_id;
    }

    fn fail(&mut self, error: Option<SessionError>) {
        if matches!(error, Some(SessionError::NotFound { .. })) {
            self.session_id = 0;
        }
        self.epoch = 0;
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(Key, i64),
    AdvanceLogStart(Key, i64),
    Fail(Key, bool),
    Subscribe(Key),
    Unsubscribe(Key),
    /// The client reads on from what it has, or where it was told to.
    Poll {
        reads_on: bool,
    },
    /// The answer gets lost.
    Lose,
    OtherSessions(usize),
    Wait(u64),
}

const KEYS: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    prop_oneof![
        4 => (key.clone(), 1..4_i64).prop_map(|(key, count)| Step::Append(key, count)),
        1 => (key.clone(), 1..4_i64).prop_map(|(key, by)| Step::AdvanceLogStart(key, by)),
        1 => (key.clone(), any::<bool>()).prop_map(|(key, fails)| Step::Fail(key, fails)),
        2 => key.clone().prop_map(Step::Subscribe),
        1 => key.prop_map(Step::Unsubscribe),
        8 => any::<bool>().prop_map(|reads_on| Step::Poll { reads_on }),
        1 => Just(Step::Lose),
        1 => (1..30_usize).prop_map(Step::OtherSessions),
        1 => (1..200_u64).prop_map(Step::Wait),
    ]
}

/// A broker, one client that is looked at, and a clock.
struct World {
    server: Server,
    client: Client,
}

impl World {
    fn new(records_max: i64) -> World {
        let server = Server {
            logs: vec![Log::default(); KEYS],
            cache: FetchSessionCache::new(LIMITS),
            sessions: Vec::new(),
            now: 0,
            records_max,
        };
        let client = Client {
            session_id: 0,
            epoch: 0,
            session: BTreeMap::new(),
            wanted: BTreeMap::from([(0, 0), (1, 0)]),
            view: BTreeMap::new(),
        };
        World { server, client }
    }

    fn play(&mut self, step: &Step) {
        let World { server, client } = self;
        match *step {
            Step::Append(key, count) => server.change(key, |log| log.high_watermark += count),
            Step::AdvanceLogStart(key, by) => server.change(key, |log| {
                log.log_start_offset = (log.log_start_offset + by).min(log.high_watermark);
            }),
            Step::Fail(key, fails) => server.change(key, |log| log.fails = fails),
            Step::Subscribe(key) => drop(client.wanted.entry(key).or_insert(0)),
            Step::Unsubscribe(key) => drop(client.wanted.remove(&key)),
            Step::Poll { reads_on } => self.poll(reads_on),
            Step::Lose => {
                let request = client.request();
                // Whether the broker got it, the client does not know.
                let _ = server.serve(&request);
                client.fail(None);
            }
            Step::OtherSessions(partitions) => {
                let index = server.sessions.len();
                server.sessions.push(FetchSession::new(false));
                let now = at(server.now);
                server.cache.create(index, false, partitions, now, index as u64);
            }
            Step::Wait(seconds) => server.now += seconds,
        }
    }

    fn poll(&mut self, reads_on: bool) {
        let request = self.client.request();
        let response = match self.server.serve(&request) {
            Ok(response) => response,
            Err(error) => return self.client.fail(Some(error)),
        };
        let (told, is_incremental) = (response.told.clone(), request.epoch > 0);
        if is_incremental && response.session_id == 0 {
            // The session ended with nothing left in it, or too much.
            return self.client.fail(None);
        }
        self.client.take(response);
        let truth = |key: &Key, offset: &i64| (*key, self.server.look(*key, *offset, 0).1.known);
        let truth: BTreeMap<_, _> = self.client.session.iter().map(|(k, o)| truth(k, o)).collect();
        assert_eq!(self.client.view, truth, "after {request:?}");
        for (key, told) in told.iter().filter(|_| reads_on) {
            let offset = self.client.wanted.get_mut(key).expect("asked for");
            match told.known {
                Known::Error => *offset = self.server.logs[*key].log_start_offset,
                Known::Offsets { .. } => *offset += told.records,
            }
        }
    }
}

proptest! {
    #[test]
    fn a_client_knows_what_full_fetches_would_have_told_it(
        records_max in 1..6_i64,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(records_max);
        steps.iter().for_each(|step| world.play(step));
        // In a session whatever is readable comes, whatever else is: no partition starves.
        world.play(&Step::Wait(1_000)); // other sessions give way
        world.client.fail(None);
        (0..KEYS).for_each(|key| world.play(&Step::Fail(key, false)));
        let logs = world.server.logs.iter();
        let records: i64 = logs.map(|log| log.high_watermark - log.log_start_offset).sum();
        for _ in 0..2 * (records + 8) {
            world.play(&Step::Append(0, records_max)); // enough to fill every answer
            world.play(&Step::Poll { reads_on: true });
        }
        for (key, offset) in world.client.wanted.iter().filter(|(key, _)| **key > 0) {
            prop_assert_eq!(*offset, world.server.logs[*key].high_watermark, "{}", key);
        }
    }
}
