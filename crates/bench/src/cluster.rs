//! Where a topic's partitions are led, and how far they reach.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, ToSocketAddrs},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use kafka_protocol::{
    messages::{
        BrokerId, CreateTopicsRequest, ListOffsetsRequest, MetadataRequest, TopicName,
        create_topics_request::CreatableTopic,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
    },
    protocol::StrBytes,
};
use tidelog_net::client::{Client, ClientConfig};
use tidelog_types::ErrorCode;

use crate::args::ProduceArgs;

/// Versions that every broker since 2.1 serves.
const METADATA_VERSION: i16 = 4;
const CREATE_TOPICS_VERSION: i16 = 4;
const LIST_OFFSETS_VERSION: i16 = 1;
/// How long a topic may take until all its partitions have leaders.
const LEADERS_PATIENCE: Duration = Duration::from_secs(20);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The place in a log that ListOffsets is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub(crate) enum Place {
    End = -1,
    Start = -2,
}

/// One partition's leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pub partition: i32,
    pub address: SocketAddr,
}

/// Connects to the first broker of the list that answers.
pub(crate) async fn connect(servers: &[String]) -> Result<Client> {
    let mut failure = None;
    for server in servers {
        match connect_to(server).await {
            Ok(client) => return Ok(client),
            Err(error) => failure = Some(error),
        }
    }
    let servers = servers.join(", ");
    let nobody = || format!("no broker answers at {servers}");
    Err(failure.unwrap_or_else(|| anyhow::anyhow!("no broker is named"))).with_context(nobody)
}

/// Creates the topic; that it exists is as good.
pub(crate) async fn create_topic(client: &Client, args: &ProduceArgs) -> Result<()> {
    let topic = CreatableTopic::default()
        .with_name(topic_name(&args.common.topic))
        .with_num_partitions(args.partitions)
        .with_replication_factor(args.replication_factor);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let response = client.call(&request, CREATE_TOPICS_VERSION).await?;
    let topic = response.topics.first().context("CreateTopics answered for no topic")?;
    match ErrorCode::from_wire(topic.error_code) {
        Some(ErrorCode::None | ErrorCode::TopicAlreadyExists) => Ok(()),
        _ => bail!("cannot create topic {}: {}", args.common.topic, name_of(topic.error_code)),
    }
}

/// The leaders of all partitions, by partition; waits until there are all. That a topic does not
/// exist is believed at once, unless it was only just `created`: brokers hear of it one by one.
pub(crate) async fn leaders(client: &Client, topic: &str, created: bool) -> Result<Vec<Leader>> {
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let start = Instant::now();
    loop {
        let outcome = try_leaders(client, topic).await?;
        match outcome {
            Ok(leaders) => return Ok(leaders),
            Err(code) if code == unknown && !created => {
                bail!("topic {topic} does not exist; `bench produce --create-topic` creates it")
            }
            Err(code) if start.elapsed() > LEADERS_PATIENCE => {
                bail!("topic {topic} has not all its leaders: {}", name_of(code))
            }
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

/// The offset at one end of each partition.
pub(crate) async fn offsets(
    leaders: &[Leader],
    topic: &str,
    place: Place,
) -> Result<BTreeMap<i32, i64>> {
    let mut offsets = BTreeMap::new();
    let mut by_address: BTreeMap<SocketAddr, Vec<i32>> = BTreeMap::new();
    for leader in leaders {
        by_address.entry(leader.address).or_default().push(leader.partition);
    }
    for (address, partitions) in by_address {
        let client = Client::connect(address, ClientConfig::default()).await?;
        let asked = |partition| {
            ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_timestamp(place as i64)
        };
        let asked = ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(partitions.into_iter().map(asked).collect());
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
        let response = client.call(&request, LIST_OFFSETS_VERSION).await?;
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            let code = partition.error_code;
            ensure!(code == 0, "ListOffsets answers {}", name_of(code));
            offsets.insert(partition.partition_index, partition.offset);
        }
    }
    ensure!(offsets.len() == leaders.len(), "ListOffsets leaves partitions out");
    Ok(offsets)
}

pub(crate) fn topic_name(topic: &str) -> TopicName {
    StrBytes::from_string(topic.to_owned()).into()
}

/// Kafka's name of an error code, or its number.
pub(crate) fn name_of(code: i16) -> String {
    ErrorCode::from_wire(code).map_or_else(|| format!("error {code}"), ErrorCode::name)
}

async fn connect_to(server: &str) -> Result<Client> {
    let address = resolve(server)?;
    Ok(Client::connect(address, ClientConfig::default()).await?)
}

fn resolve(server: &str) -> Result<SocketAddr> {
    let unresolved = || format!("{server} is no address of a broker (host:port)");
    let mut addresses = server.to_socket_addrs().with_context(unresolved)?;
    addresses.next().with_context(unresolved)
}

/// The leaders, or the error code that says why they are not all there yet.
async fn try_leaders(client: &Client, topic: &str) -> Result<Result<Vec<Leader>, i16>> {
    let asked = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![asked]))
        .with_allow_auto_topic_creation(false);
    let response = client.call(&request, METADATA_VERSION).await?;
    let mut brokers = BTreeMap::new();
    for broker in &response.brokers {
        brokers.insert(broker.node_id, resolve(&format!("{}:{}", broker.host, broker.port))?);
    }
    let topic = response.topics.first().context("Metadata answered for no topic")?;
    if topic.error_code != 0 {
        return Ok(Err(topic.error_code));
    }
    let mut leaders = Vec::new();
    for partition in &topic.partitions {
        match brokers.get(&partition.leader_id) {
            Some(&address) if partition.error_code == 0 => {
                leaders.push(Leader { partition: partition.partition_index, address });
            }
            _ => return Ok(Err(ErrorCode::LeaderNotAvailable.code())),
        }
    }
    leaders.sort_by_key(|leader| leader.partition);
    ensure!(!leaders.is_empty(), "the topic has no partitions");
    Ok(Ok(leaders))
}
