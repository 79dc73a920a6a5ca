//! The client against a listener: pipelining, order, and what it says when things go wrong.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Ask, NetTest, in_time, request};
use tidelog_net::{
    NetConfig,
    client::{Client, ClientConfig, ClientError},
};

async fn connect(test: &NetTest, config: ClientConfig) -> Client {
    Client::connect(test.address, config).await.expect("a listener")
}

fn frame(correlation_id: i32, ask: Ask) -> Bytes {
    Bytes::from(request(correlation_id, ask))
}

#[tokio::test]
async fn calls_of_all_clones_are_pipelined_and_answered_in_order() {
    let test = NetTest::start(NetConfig::default());
    let client = connect(&test, ClientConfig::default()).await;
    let asks = [(1, Ask::AtGate), (2, Ask::Answer(10)), (3, Ask::Answer(3_000_000))];
    let calls = asks.map(|(id, ask)| {
        let client = client.clone();
        tokio::spawn(async move { client.exchange(frame(id, ask), id).await })
    });
    test.until("all are in flight", |test| test.service.seen().len() == 3).await;
    test.service.gate.open();
    for (call, (id, _)) in calls.into_iter().zip(asks) {
        let answer = in_time(call).await.expect("no panic").expect("an answer");
        assert_eq!(answer[..4], i32::to_be_bytes(id));
    }
    drop(client);
    test.until("hung up", |test| test.metric("tidelog_connections", "") == 0.0).await;
}

#[tokio::test]
async fn a_broker_that_hangs_up_fails_what_is_in_flight() {
    let test = NetTest::start(NetConfig::default());
    let client = connect(&test, ClientConfig::default()).await;
    let waiting = client.exchange(frame(1, Ask::Nothing), 1);
    let ending = client.exchange(frame(2, Ask::Close), 2);
    let (waiting, ending) = in_time(async { tokio::join!(waiting, ending) }).await;
    assert!(matches!(waiting, Err(ClientError::Disconnected(_))), "{waiting:?}");
    assert!(matches!(ending, Err(ClientError::Disconnected(_))), "{ending:?}");
    let late = client.exchange(frame(3, Ask::Answer(0)), 3).await;
    assert!(matches!(late, Err(ClientError::Disconnected(_))), "{late:?}");
}

#[tokio::test]
async fn an_answer_to_another_request_ends_the_connection() {
    let test = NetTest::start(NetConfig::default());
    let client = connect(&test, ClientConfig::default()).await;
    let answer = client.exchange(frame(1, Ask::Answer(0)), 7).await;
    let Err(ClientError::Disconnected(cause)) = answer else { panic!("{answer:?}") };
    assert!(cause.to_string().contains("no request waits"), "{cause}");
}

#[tokio::test]
async fn a_call_waits_only_so_long() {
    let test = NetTest::start(NetConfig::default());
    let request_timeout = Duration::from_millis(30);
    let client = connect(&test, ClientConfig { request_timeout, ..Default::default() }).await;
    let silent = client.exchange(frame(1, Ask::AtGate), 1).await;
    assert!(matches!(silent, Err(ClientError::TimedOut(_))), "{silent:?}");
    // The late answer finds nobody and harms no one.
    test.service.gate.open();
    let next = client.exchange(frame(2, Ask::Answer(0)), 2).await;
    assert_eq!(next.expect("an answer")[..4], 2_i32.to_be_bytes());
}
