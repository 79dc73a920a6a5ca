//! Producers, and what the log makes of their batches.

use bytes::Bytes;
use kafka_protocol::messages::{
    ProduceRequest,
    produce_request::{PartitionProduceData, TopicProduceData},
};
use tidelog_tests::{
    programs::wait_until,
    seed::Random,
    wire::{PATIENCE, topic_name},
};
use uuid::Uuid;

use super::{
    batches::{CODECS, Codec, Sent},
    codes::*,
    log::{Log, Stored},
    places::latest,
    settings::Fate,
    step::{Place, What},
    world::{TOPIC_ID_VERSION, TOPICS, World},
};

/// Version of the produce requests that are sent without waiting for each answer.
const LOAD_VERSION: i16 = 9;

/// What a batch that was sent leads to.
enum Expected {
    Appended,
    /// It is in the log already, from this offset on.
    Duplicate(i64),
    Refused(i16),
}

impl World {
    pub fn new_producer(&mut self) {
        let id = self.wire.init_producer_id().expect("an answer");
        assert!(self.producers.iter().all(|(other, _)| *other != id), "an id is given once");
        self.producers.push((id, 0));
        if self.producers.len() > 4 {
            self.producers.remove(0);
        }
    }

    pub fn produce(
        &mut self,
        to: Place,
        version: i16,
        mut acks: i16,
        what: What,
        random: &mut Random,
    ) {
        let by_id = version >= TOPIC_ID_VERSION;
        // Only what depends on nothing before it may be sent behind what was not answered.
        if !matches!((what, acks), (What::Plain(_), 0)) {
            self.settle(to);
        }
        let (sent, mut expected) = self.batch(to, what, random);
        let fate = self.fate(to, &sent);
        if fate == Fate::TooLarge {
            expected = Expected::Refused(MESSAGE_TOO_LARGE);
        } else if fate == Fate::Unclear && acks == 0 {
            acks = -1;
            self.settle(to);
        }
        if let Some(code) = self.lookup_error(to, by_id) {
            expected = Expected::Refused(code);
        }
        let request = produce_request(to, self.id_of(to.0), by_id, acks, sent.bytes.clone());
        if acks == 0 {
            return self.produce_unasked(to, version, &request, sent, &expected);
        }
        let response = self.wire.call(&request, version).expect("an answer");
        let answer = &response.responses[0].partition_responses[0];
        let told = (answer.error_code, answer.base_offset);
        if fate == Fate::Unclear && told == (MESSAGE_TOO_LARGE, -1) {
            return;
        }
        match expected {
            Expected::Refused(code) => assert_eq!(told, (code, -1)),
            Expected::Duplicate(base_offset) => assert_eq!(told, (0, base_offset), "a duplicate"),
            Expected::Appended => {
                let log = self.log_mut(to);
                assert_eq!(told, (0, log.end_offset()));
                let start = if version >= 5 { log.log_start_offset } else { -1 };
                assert_eq!(answer.log_start_offset, start);
                self.arrived(to, sent, Some(answer.log_append_time_ms));
            }
        }
    }

    /// Whoever does not want an answer is told of a failure by the end of the connection.
    fn produce_unasked(
        &mut self,
        to: Place,
        version: i16,
        request: &ProduceRequest,
        sent: Sent,
        expected: &Expected,
    ) {
        self.wire.send_unasked(request, version).expect("sent");
        match expected {
            Expected::Refused(_) => {
                assert!(self.wire.receive_frame().is_err(), "the connection ends");
                self.wire.reconnect().expect("the broker serves on");
            }
            Expected::Duplicate(_) => {}
            Expected::Appended => self.log_mut(to).unanswered.push_back(sent),
        }
    }

    /// The batch to send, and what it leads to if there is such a partition.
    fn batch(&mut self, to: Place, what: What, random: &mut Random) -> (Sent, Expected) {
        let now_ms = self.now_ms;
        let plain = |random: &mut Random| Sent::random(random, Codec::None, now_ms, None);
        let refused = |sent, code| (sent, Expected::Refused(code));
        let appended = |sent| (sent, Expected::Appended);
        let state = |at: usize| {
            let (id, epoch) = self.producers[at];
            let known = self.log(to).and_then(|log| log.producers.get(&id)).cloned();
            (id, epoch, known)
        };
        match what {
            What::Plain(codec) => appended(Sent::random(random, codec, now_ms, None)),
            What::TooLarge => refused(Sent::too_large(now_ms), MESSAGE_TOO_LARGE),
            What::Damaged => refused(plain(random).damaged(), CORRUPT_MESSAGE),
            What::Transactional => {
                refused(plain(random).transactional(), TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
            }
            What::NewEpoch(at) => {
                self.producers[at].1 += 1;
                let (id, epoch) = self.producers[at];
                let producer = Some((id, epoch, 0));
                appended(Sent::random(random, Codec::None, now_ms, producer))
            }
            What::OldEpoch(at) => match state(at) {
                (id, _, Some(known)) if known.epoch > 0 => {
                    let producer = Some((id, known.epoch - 1, known.next_sequence()));
                    let sent = Sent::random(random, Codec::None, now_ms, producer);
                    refused(sent, INVALID_PRODUCER_EPOCH)
                }
                _ => self.batch(to, What::Next(at, Codec::None), random),
            },
            What::Gap(at) => match state(at) {
                (id, epoch, Some(known)) => {
                    let next = if known.epoch == epoch { known.next_sequence() } else { 0 };
                    let producer = Some((id, epoch, next + 1 + random.below(9) as i32));
                    let sent = Sent::random(random, Codec::None, now_ms, producer);
                    refused(sent, OUT_OF_ORDER_SEQUENCE_NUMBER)
                }
                _ => self.batch(to, What::Next(at, Codec::None), random),
            },
            What::Again(at, back) => {
                let (_, _, known) = state(at);
                let remembered =
                    known.and_then(|known| known.batches.iter().rev().nth(back).copied());
                let Some((_, base_offset, _)) = remembered else {
                    return self.batch(to, What::Next(at, Codec::None), random);
                };
                let log = self.log(to).expect("it has batches");
                (log.from(base_offset)[0].sent.clone(), Expected::Duplicate(base_offset))
            }
            What::Next(at, codec) => {
                let (id, epoch) = self.producers[at];
                let sequence = self.log(to).map_or(0, |log| next_sequence(log, id, epoch));
                let producer = Some((id, epoch, sequence));
                appended(Sent::random(random, codec, now_ms, producer))
            }
        }
    }

    fn fate(&self, to: Place, sent: &Sent) -> Fate {
        self.settings(to.0).map_or(Fate::Fits, |settings| settings.fate(sent))
    }

    /// A batch is in the log. What the broker had to change of it is looked at once; from then on
    /// the log must hold exactly that.
    fn arrived(&mut self, to: Place, sent: Sent, append_time_ms: Option<i64>) {
        let settings = *self.settings(to.0).expect("it exists");
        let base_offset = self.log(to).expect("it exists").end_offset();
        let stored = match settings.keeps(&sent) {
            true => Stored::as_sent(base_offset, sent),
            false => {
                let bytes = self.read_one(to, base_offset);
                settings.check(&sent, &bytes);
                Stored::changed(base_offset, sent, bytes)
            }
        };
        if let Some(told) = append_time_ms {
            let stamped = stored.timestamps.last().copied().filter(|_| settings.log_append_time);
            assert_eq!(told, stamped.unwrap_or(-1), "what the producer is told is what is stored");
        }
        self.log_mut(to).append(stored);
    }

    /// The log is seen to end here: so many of the unanswered batches arrived, and no other will.
    pub fn resolve(&mut self, place: Place, end_offset: i64) {
        while self.log(place).expect("it exists").end_offset() < end_offset {
            let arrived = self.log_mut(place).unanswered.pop_front();
            self.arrived(place, arrived.expect("nothing that nobody sent"), None);
        }
        let log = self.log_mut(place);
        assert_eq!(log.end_offset(), end_offset, "the log ends where a batch does");
        log.unanswered.clear();
    }

    /// Waits until everything that was sent to the partition without an answer is there.
    pub fn settle(&mut self, place: Place) {
        let Some(log) = self.log(place) else { return };
        if log.unanswered.is_empty() {
            return;
        }
        let end_offset = log.end_if_all_arrive();
        let wire = &mut self.wire;
        wait_until("what was sent without an answer", PATIENCE, || {
            latest(wire, place) == end_offset
        });
        self.resolve(place, end_offset);
    }

    pub fn kill_under_load(&mut self, requests: usize, random: &mut Random) {
        let places = self.places();
        places.iter().for_each(|place| self.settle(*place));
        let mut sent = Vec::new();
        for _ in 0..requests.min(requests * places.len()) {
            let to = places[random.index(places.len())];
            let codec = CODECS[random.index(CODECS.len())];
            let what = match random.below(2) {
                0 => What::Plain(codec),
                _ => What::Next(random.index(self.producers.len()), codec),
            };
            let (batch, Expected::Appended) = self.batch(to, what, random) else {
                unreachable!("such batches are lawful");
            };
            if self.fate(to, &batch) != Fate::Fits {
                continue;
            }
            let request = produce_request(to, self.id_of(to.0), false, -1, batch.bytes.clone());
            self.wire.send(&request, LOAD_VERSION).expect("sent");
            sent.push((to, self.log(to).expect("it exists").end_if_all_arrive()));
            self.log_mut(to).unanswered.push_back(batch);
        }
        let waits_for = random.index(sent.len() + 1);
        let mut answered = 0;
        for (to, base_offset) in &sent {
            if answered == waits_for {
                self.node.kill();
            }
            // What had been answered before the end may still come.
            let Ok(response) = self.wire.receive::<ProduceRequest>(LOAD_VERSION) else { break };
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!((answer.error_code, answer.base_offset), (0, *base_offset), "{to:?}");
            answered += 1;
        }
        self.node.kill();
        self.start_again();
        for (to, base_offset) in &sent[..answered] {
            assert!(
                self.log(*to).expect("it exists").end_offset() > *base_offset,
                "it was promised"
            );
        }
    }
}

fn next_sequence(log: &Log, id: i64, epoch: i16) -> i32 {
    let sent = log.unanswered.iter().filter_map(|sent| {
        let (sent_id, sent_epoch, first) = sent.producer?;
        (sent_id == id && sent_epoch == epoch).then_some(first + sent.timestamps.len() as i32)
    });
    let known = log.producers.get(&id).filter(|known| known.epoch == epoch);
    sent.last().unwrap_or_else(|| known.map_or(0, |known| known.next_sequence()))
}

fn produce_request(
    (topic, partition): Place,
    id: Uuid,
    by_id: bool,
    acks: i16,
    records: Bytes,
) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = match by_id {
        true => TopicProduceData::default().with_topic_id(id),
        false => TopicProduceData::default().with_name(topic_name(TOPICS[topic])),
    };
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic.with_partition_data(vec![data])])
}
