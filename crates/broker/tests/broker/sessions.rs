//! Fetch sessions as clients see them: what need not be said again, and what is not told again.

use std::time::{Duration, Instant};

use tidelog_net::Handled;
use tidelog_protocol::kafka_protocol::messages::{
    FetchRequest, FetchResponse, TopicName,
    fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
};
use tidelog_types::Uuid;

use crate::{
    admin::delete_records,
    context::{BrokerTest, decode, is_pending, resolve, text},
    records::{batch, batches, produce, produce_request},
    topics::delete,
};

const NAMES: i16 = 12;
const IDS: i16 = 13;

/// A client in a session.
struct Client<'a> {
    test: &'a BrokerTest,
    version: i16,
    id: i32,
    epoch: i32,
    max_wait_ms: i32,
    min_bytes: i32,
    max_bytes: i32,
}

/// What an answer says: for each partition its topic, number, error and batches.
type Said = Vec<(String, i32, i16, Vec<i64>)>;

impl Client<'_> {
    fn new(test: &BrokerTest, version: i16) -> Client<'_> {
        let (max_wait_ms, min_bytes, max_bytes) = (0, 1, 1 << 20);
        Client { test, version, id: 0, epoch: 0, max_wait_ms, min_bytes, max_bytes }
    }

    fn request(&self, wanted: &[(&str, i32, i64)], forgotten: &[(&str, i32)]) -> FetchRequest {
        let wanted = wanted.iter().map(|(topic, partition, offset)| {
            let partition = FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(1 << 20);
            FetchTopic::default()
                .with_topic(TopicName(text(topic)))
                .with_partitions(vec![partition])
        });
        let forgotten = forgotten.iter().map(|(topic, partition)| {
            ForgottenTopic::default()
                .with_topic(TopicName(text(topic)))
                .with_partitions(vec![*partition])
        });
        FetchRequest::default()
            .with_max_wait_ms(self.max_wait_ms)
            .with_min_bytes(self.min_bytes)
            .with_max_bytes(self.max_bytes)
            .with_session_id(self.id)
            .with_session_epoch(self.epoch)
            .with_topics(wanted.collect())
            .with_forgotten_topics_data(forgotten.collect())
    }

    fn send(&mut self, wanted: &[(&str, i32, i64)]) -> Handled {
        let handled = self.test.send(self.version, &self.request(wanted, &[]));
        self.epoch += 1;
        handled
    }

    fn call(&mut self, wanted: &[(&str, i32, i64)], forgotten: &[(&str, i32)]) -> Said {
        let response = self.test.call(self.version, &self.request(wanted, forgotten));
        assert_eq!(response.error_code, 0);
        (self.id, self.epoch) = (response.session_id, self.epoch + 1);
        said(&response)
    }

    fn refused(&self, wanted: &[(&str, i32, i64)]) -> (i16, i32) {
        let response = self.test.call(self.version, &self.request(wanted, &[]));
        assert!(response.responses.is_empty());
        (response.error_code, response.session_id)
    }
}

fn said(response: &FetchResponse) -> Said {
    let mut said = Vec::new();
    for topic in &response.responses {
        for data in &topic.partitions {
            let offsets = batches(data).into_iter().map(|(base_offset, _)| base_offset).collect();
            said.push((topic.topic.to_string(), data.partition_index, data.error_code, offsets));
        }
    }
    said
}

fn answered(handled: Handled, version: i16) -> FetchResponse {
    decode::<FetchRequest>(version, resolve(handled).expect("stays").expect("an answer"))
}

fn is(
    topic: &str,
    partition: i32,
    error_code: i16,
    offsets: &[i64],
) -> (String, i32, i16, Vec<i64>) {
    (topic.to_owned(), partition, error_code, offsets.to_vec())
}

/// Produces one record to a partition of a topic.
fn append(test: &BrokerTest, topic: &str, partition: i32) {
    let response = test.call(9, &produce_request(topic, -1, &[(partition, batch(&["a"]))]));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

#[test]
fn a_session_tells_only_what_changed() {
    let test = BrokerTest::new();
    test.create_topic("a", 2, &[]);
    test.create_topic("b", 1, &[]);
    let mut client = Client::new(&test, NAMES);
    let everything = client.call(&[("a", 0, 0), ("b", 0, 0), ("a", 1, 0)], &[]);
    assert_eq!(everything, [is("a", 0, 0, &[]), is("b", 0, 0, &[]), is("a", 1, 0, &[])]);
    assert!(client.id > 0);
    assert_eq!(client.call(&[], &[]), []);
    append(&test, "a", 1);
    assert_eq!(client.call(&[], &[]), [is("a", 1, 0, &[0])]);
    assert_eq!(client.call(&[], &[]), [is("a", 1, 0, &[0])], "until the client has it");
    assert_eq!(client.call(&[("a", 1, 1)], &[]), []);
    append(&test, "b", 0);
    append(&test, "a", 1);
    let [b, a] = [is("b", 0, 0, &[0]), is("a", 1, 0, &[1])];
    assert_eq!(client.call(&[], &[]), [b, a], "who had its turn last comes last");
}

#[test]
fn a_session_grows_shrinks_and_ends_with_its_last_partition() {
    let test = BrokerTest::new();
    test.create_topic("topic", 3, &[]);
    let mut client = Client::new(&test, NAMES);
    client.call(&[("topic", 0, 0)], &[]);
    let (id, partitions) = (client.id, "tidelog_fetch_session_partitions");
    assert_eq!((test.metric("tidelog_fetch_sessions"), test.metric(partitions)), (1.0, 1.0));
    assert_eq!(client.call(&[("topic", 1, 0)], &[]), [is("topic", 1, 0, &[])], "it is new");
    (0..2).for_each(|partition| append(&test, "topic", partition));
    assert_eq!(client.call(&[], &[("topic", 0), ("topic", 2)]), [is("topic", 1, 0, &[0])]);
    assert_eq!((client.id, test.metric(partitions)), (id, 1.0));
    assert_eq!((client.call(&[], &[("topic", 1)]), client.id), (vec![], 0));
    assert_eq!((test.metric("tidelog_fetch_sessions"), test.metric(partitions)), (0.0, 0.0));
    (client.id, client.epoch) = (id, 4);
    assert_eq!(client.refused(&[]), (70, 0));
}

#[test]
fn only_the_request_that_follows_goes_on_with_a_session() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let mut client = Client::new(&test, NAMES);
    client.call(&[("topic", 0, 0)], &[]);
    let id = client.id;
    for (wrong_id, epoch, version, code) in [
        (id, 2, NAMES, 71),
        (id, -2, NAMES, 71),
        (id, 2, IDS, 71),
        (id, 1, IDS, 106),
        (id % i32::MAX + 1, 1, NAMES, 70),
        (0, 1, NAMES, 70),
        (-1, 1, NAMES, 70),
    ] {
        let wrong = Client { id: wrong_id, epoch, ..Client::new(&test, version) };
        assert_eq!(wrong.refused(&[]), (code, 0), "{wrong_id} {epoch} v{version}");
    }
    assert_eq!(client.call(&[], &[]), [], "none of them changed anything");
    client.epoch = 1;
    assert_eq!(client.refused(&[]), (71, 0), "it came twice");
}

#[test]
fn a_full_fetch_ends_the_session_that_it_names() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    for (epoch, begins) in [(-1, false), (0, true)] {
        let mut client = Client::new(&test, NAMES);
        client.call(&[("topic", 0, 0)], &[]);
        let ended = Client { id: client.id, epoch: 1, ..Client::new(&test, NAMES) };
        client.epoch = epoch;
        assert_eq!(client.call(&[("topic", 0, 0)], &[]), [is("topic", 0, 0, &[])]);
        assert_eq!((client.id != 0, client.id != ended.id), (begins, true));
        assert_eq!(ended.refused(&[]), (70, 0));
    }
}

#[test]
fn a_session_belongs_to_no_connection_and_to_one_process() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let mut client = Client::new(&test, NAMES);
    client.call(&[("topic", 0, 0)], &[]);
    let (id, epoch) = (client.id, client.epoch);
    let test = test.restart();
    let client = Client { id, epoch, ..Client::new(&test, NAMES) };
    assert_eq!(client.refused(&[]), (70, 0));
}

#[test]
fn there_are_as_many_sessions_and_partitions_as_the_settings_say() {
    let slots = "max.incremental.fetch.session.cache.slots";
    let partitions = "max.incremental.fetch.session.cache.partitions";
    for (setting, value, held) in [(slots, "0", 0), (slots, "2", 2), (partitions, "5", 2)] {
        let test = BrokerTest::with(&[(setting, value)]);
        test.create_topic("topic", 4, &[]);
        let mut clients = Vec::new();
        for number in 0..3 {
            let mut client = Client::new(&test, NAMES);
            let whole = client.call(&[("topic", 0, 0), ("topic", 1, 0)], &[]);
            assert_eq!(whole.len(), 2, "sessionless or not, it is answered");
            assert_eq!(client.id > 0, number < held, "{setting} = {value}");
            clients.push(client);
        }
        if setting == partitions {
            clients[0].call(&[("topic", 2, 0)], &[]);
            assert_eq!(clients[0].refused(&[("topic", 3, 0)]), (70, 0), "it grew too large");
            assert_eq!(test.metric("tidelog_fetch_session_partitions"), 2.0);
        }
        assert_eq!(test.metric("tidelog_fetch_session_evictions_total"), 0.0);
    }
}

#[test]
fn an_old_session_gives_way_to_a_new_one() {
    let test = BrokerTest::with(&[
        ("max.incremental.fetch.session.cache.slots", "1"),
        ("min.incremental.fetch.session.eviction.ms", "0"),
    ]);
    test.create_topic("topic", 1, &[]);
    let mut old = Client::new(&test, NAMES);
    old.call(&[("topic", 0, 0)], &[]);
    let mut new = Client::new(&test, NAMES);
    new.call(&[("topic", 0, 0)], &[]);
    assert!(new.id > 0);
    assert_eq!(old.refused(&[]), (70, 0));
    assert_eq!(test.metric("tidelog_fetch_session_evictions_total"), 1.0);
}

#[test]
fn an_error_is_told_each_time_and_so_is_its_end() {
    let test = BrokerTest::new();
    let mut client = Client::new(&test, NAMES);
    client.max_wait_ms = 10_000; // for which no error waits
    let unknown = [is("topic", 0, 3, &[])];
    assert_eq!(client.call(&[("topic", 0, 0)], &[]), unknown);
    assert_eq!(client.call(&[], &[]), unknown);
    test.create_topic("topic", 1, &[]);
    client.max_wait_ms = 0;
    assert_eq!(client.call(&[], &[]), [is("topic", 0, 0, &[])]);
    assert_eq!(client.call(&[], &[]), []);
    assert_eq!(client.call(&[("topic", 0, 9)], &[]), [is("topic", 0, 1, &[])]);
    assert_eq!(client.call(&[], &[]), [is("topic", 0, 1, &[])]);
    assert_eq!(client.call(&[("topic", 0, 0)], &[]), [is("topic", 0, 0, &[])]);
}

#[test]
fn a_topic_made_anew_is_another_one_to_who_names_it_by_id() {
    let test = BrokerTest::new();
    let id_of = |id: Uuid| uuid::Uuid::from_bytes(id.0);
    let first_id = test.create_topic("topic", 1, &[]);
    produce(&test, "topic", batch(&["a"]));
    let mut by_name = Client::new(&test, NAMES);
    assert_eq!(by_name.call(&[("topic", 0, 0)], &[]), [is("topic", 0, 0, &[0])]);
    let mut by_id = Client::new(&test, IDS);
    let ask = |client: &mut Client<'_>, wanted: Option<Uuid>, forgotten: Option<Uuid>| {
        let mut request = client.request(&[("", 0, 0)], &[("", 0)]);
        request.topics[0].topic_id = id_of(wanted.unwrap_or_default());
        request.forgotten_topics_data[0].topic_id = id_of(forgotten.unwrap_or_default());
        request.topics.truncate(usize::from(wanted.is_some()));
        request.forgotten_topics_data.truncate(usize::from(forgotten.is_some()));
        let response = test.call(IDS, &request);
        assert_eq!(response.error_code, 0);
        (client.id, client.epoch) = (response.session_id, client.epoch + 1);
        let ids: Vec<_> = response.responses.iter().map(|topic| topic.topic_id).collect();
        (ids, said(&response))
    };
    let records = vec![is("", 0, 0, &[0])];
    assert_eq!(ask(&mut by_id, Some(first_id), None), (vec![id_of(first_id)], records.clone()));
    assert_eq!(delete(&test, "topic"), 0);
    let second_id = test.create_topic("topic", 1, &[]);
    assert_eq!(by_name.call(&[], &[]), [is("topic", 0, 0, &[])], "the name means the new one");
    assert_eq!(ask(&mut by_id, None, None), (vec![id_of(first_id)], vec![is("", 0, 100, &[])]));
    produce(&test, "topic", batch(&["b"]));
    assert_eq!(by_name.call(&[], &[]), [is("topic", 0, 0, &[0])]);
    let replaced = ask(&mut by_id, Some(second_id), Some(first_id));
    assert_eq!(replaced, (vec![id_of(second_id)], records));
}

#[test]
fn a_new_log_start_is_told_and_ends_a_long_poll_that_it_overtakes() {
    let test = BrokerTest::new();
    test.create_topic("topic", 2, &[]);
    (0..2).for_each(|_| append(&test, "topic", 0));
    let mut client = Client::new(&test, NAMES);
    client.call(&[("topic", 0, 2), ("topic", 1, 0)], &[]);
    assert_eq!(client.call(&[], &[]), []);
    assert_eq!(delete_records(&test, "topic", 1), (0, 1));
    assert_eq!(client.call(&[], &[]), [is("topic", 0, 0, &[])], "only where it starts");
    assert_eq!(client.call(&[], &[]), []);
    (client.max_wait_ms, client.min_bytes) = (60_000, 1_000_000);
    let mut waiting = client.send(&[("topic", 0, 1)]);
    assert!(is_pending(&mut waiting), "there is too little");
    assert_eq!(delete_records(&test, "topic", 2), (0, 2));
    assert_eq!(said(&answered(waiting, NAMES)), [is("topic", 0, 1, &[])]);
}

#[test]
fn a_long_poll_in_a_session_is_woken_by_what_it_waits_for() {
    let test = BrokerTest::new();
    test.create_topic("topic", 3, &[]);
    test.create_topic("gone", 1, &[]);
    let mut client = Client::new(&test, NAMES);
    client.call(&[("topic", 0, 0), ("topic", 1, 0), ("topic", 2, 0), ("gone", 0, 0)], &[]);
    client.max_wait_ms = 10_000;
    client.min_bytes = 2 * batch(&["a"]).len() as i32;

    let mut waiting = client.send(&[]);
    append(&test, "topic", 2);
    assert!(is_pending(&mut waiting), "one batch is not enough");
    append(&test, "topic", 0);
    let enough = [is("topic", 0, 0, &[0]), is("topic", 2, 0, &[0])];
    assert_eq!(said(&answered(waiting, NAMES)), enough);

    let mut waiting = client.send(&[("topic", 0, 1), ("topic", 2, 1)]);
    assert!(is_pending(&mut waiting));
    assert_eq!(delete(&test, "gone"), 0);
    assert_eq!(said(&answered(waiting, NAMES)), [is("gone", 0, 3, &[])]);

    client.max_wait_ms = 50;
    client.call(&[], &[("gone", 0)]);
    let started = Instant::now();
    assert_eq!(said(&answered(client.send(&[]), NAMES)), []);
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[test]
fn a_long_poll_that_another_request_overtakes_ends() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    let mut client = Client::new(&test, NAMES);
    client.call(&[("topic", 0, 0)], &[]);
    client.max_wait_ms = 60_000;
    let mut overtaken = client.send(&[]);
    assert!(is_pending(&mut overtaken));
    let mut waiting = client.send(&[]);
    let response = answered(overtaken, NAMES);
    assert_eq!((response.error_code, response.session_id), (71, client.id));
    assert!(is_pending(&mut waiting));
    append(&test, "topic", 0);
    assert_eq!(said(&answered(waiting, NAMES)), [is("topic", 0, 0, &[0])]);
}

#[test]
fn an_incremental_fetch_looks_only_where_something_happened() {
    let test = BrokerTest::new();
    test.create_topic("topic", 500, &[]);
    let looks = || test.metric("tidelog_fetch_partition_looks_total");
    let mut client = Client::new(&test, NAMES);
    let wanted: Vec<_> = (0..500).map(|partition| ("topic", partition, 0)).collect();
    client.call(&wanted, &[]);
    client.call(&[], &[]);
    assert_eq!(looks(), 1000.0, "first at all, then at all to watch them");
    client.call(&[], &[]);
    assert_eq!(looks(), 1000.0);
    append(&test, "topic", 7);
    client.call(&[], &[]);
    client.call(&[("topic", 7, 1)], &[]);
    client.call(&[], &[]);
    assert_eq!(looks(), 1002.0);

    client.max_wait_ms = 10_000;
    let mut waiting = client.send(&[]);
    assert!(is_pending(&mut waiting) && is_pending(&mut waiting));
    append(&test, "topic", 400);
    assert_eq!(said(&answered(waiting, NAMES)), [is("topic", 400, 0, &[0])]);
    assert_eq!(looks(), 1003.0);
}

#[test]
fn no_partition_starves_where_answers_are_small() {
    let test = BrokerTest::new();
    test.create_topic("topic", 3, &[]);
    for _ in 0..4 {
        (0..3).for_each(|partition| append(&test, "topic", partition));
    }
    let mut client = Client { max_bytes: 1, ..Client::new(&test, NAMES) };
    let mut offsets = [0; 3];
    let mut wanted = vec![("topic", 0, 0), ("topic", 1, 0), ("topic", 2, 0)];
    let mut turns = Vec::new();
    for _ in 0..12 {
        let said = client.call(&wanted, &[]);
        let mut with_records = said.into_iter().filter(|said| !said.3.is_empty());
        let (_, partition, _, read) = with_records.next().expect("there are more");
        assert_eq!((read, with_records.next()), (vec![offsets[partition as usize]], None));
        offsets[partition as usize] += 1;
        wanted = vec![("topic", partition, offsets[partition as usize])];
        turns.push(partition);
    }
    assert_eq!(turns, [0, 1, 2].repeat(4));
}

#[test]
fn a_restart_of_leadership_is_noticed_by_a_session_that_watches() {
    let test = BrokerTest::new();
    test.create_topic("topic", 1, &[]);
    produce(&test, "topic", batch(&["a"]));
    let mut client = Client::new(&test, NAMES);
    assert_eq!(client.call(&[("topic", 0, 1)], &[]), [is("topic", 0, 0, &[])]);
    assert_eq!(client.call(&[], &[]), []);
    for _ in 0..3 {
        assert_eq!(delete(&test, "topic"), 0);
        assert_eq!(client.call(&[], &[]), [is("topic", 0, 3, &[])]);
        test.create_topic("topic", 1, &[]);
        assert_eq!(client.call(&[], &[]), [is("topic", 0, 1, &[])], "it is shorter now");
        produce(&test, "topic", batch(&["b"]));
        assert_eq!(client.call(&[], &[]), [is("topic", 0, 0, &[])]);
        assert_eq!(client.call(&[], &[]), []);
        produce(&test, "topic", batch(&["c"]));
        assert_eq!(client.call(&[], &[]), [is("topic", 0, 0, &[1])]);
    }
}
