//! Kafka's wire protocol by hand, for what no stock client would send.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest,
        InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, RequestHeader,
        ResponseHeader, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        metadata_response::MetadataResponseTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{
        Decodable as _, Encodable, HeaderVersion as _, Request, StrBytes,
        encode_request_header_into_buffer,
    },
};
use uuid::Uuid;

/// How long an answer may take before a test calls the broker stuck.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One connection, one request at a time unless a test writes frames itself.
pub struct Wire {
    port: u16,
    stream: TcpStream,
    /// How many requests went out that want an answer, and how many got one.
    asked: i32,
    answered: i32,
}

/// What a Fetch said about one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Kafka's error code.
    pub error_code: i16,
    /// As told.
    pub high_watermark: i64,
    /// As told.
    pub log_start_offset: i64,
    /// Batches, one after the other.
    pub records: Bytes,
}

impl Wire {
    /// Connects to a broker of this machine.
    ///
    /// # Errors
    /// If nothing listens there.
    pub fn connect(port: u16) -> io::Result<Wire> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Wire { port, stream, asked: 0, answered: 0 })
    }

    /// Connects again, to the same broker.
    ///
    /// # Errors
    /// As [`Wire::connect`].
    pub fn reconnect(&mut self) -> io::Result<()> {
        *self = Wire::connect(self.port)?;
        Ok(())
    }

    /// The socket itself, for a test that misbehaves.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends bytes as they are, with their length in front.
    ///
    /// # Errors
    /// If the broker has closed the connection.
    pub fn send_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = i32::try_from(frame.len()).expect("a small frame");
        self.stream.write_all(&[&length.to_be_bytes(), frame].concat())
    }

    /// The next response frame, without its length.
    ///
    /// # Errors
    /// If the broker closes the connection or stays silent.
    pub fn receive_frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame)?;
        Ok(Bytes::from(frame))
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// If the connection ends, or the answer is not one.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        self.send(request, version)?;
        self.receive::<R>(version)
    }

    /// Asks; the answer is for [`Wire::receive`].
    ///
    /// # Errors
    /// If the broker has closed the connection.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> io::Result<()> {
        self.asked += 1;
        self.send_frame(&encode(request, version, self.asked))
    }

    /// Sends what gets no answer.
    ///
    /// # Errors
    /// If the broker has closed the connection.
    pub fn send_unasked<R: Request>(&mut self, request: &R, version: i16) -> io::Result<()> {
        self.send_frame(&encode(request, version, 0))
    }

    /// The answer to the oldest request that was sent and not answered.
    ///
    /// # Errors
    /// If the connection ends, or the answer is not one.
    pub fn receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        let mut frame = self.receive_frame()?;
        self.answered += 1;
        let header_version = R::Response::header_version(version);
        let header =
            ResponseHeader::decode(&mut frame, header_version).map_err(io::Error::other)?;
        assert_eq!(header.correlation_id, self.answered, "answers come in order");
        let response = R::Response::decode(&mut frame, version).map_err(io::Error::other)?;
        assert_eq!(frame.remaining(), 0, "nothing follows the answer");
        Ok(response)
    }

    /// Every API that the broker offers: key, lowest and highest version.
    ///
    /// # Errors
    /// As [`Wire::call`].
    pub fn api_versions(&mut self) -> io::Result<Vec<(i16, i16, i16)>> {
        let response = self.call(&ApiVersionsRequest::default(), 0)?;
        assert_eq!(response.error_code, 0, "ApiVersions succeeds");
        let ranges = response.api_keys.iter();
        Ok(ranges.map(|api| (api.api_key, api.min_version, api.max_version)).collect())
    }

    /// Creates a topic with one partition, or says why not.
    ///
    /// # Errors
    /// As [`Wire::call`].
    pub fn create_topic(&mut self, name: &str, settings: &[(&str, &str)]) -> io::Result<i16> {
        let configs = settings.iter().map(|(key, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string((*key).to_owned()))
                .with_value(Some(StrBytes::from_string((*value).to_owned())))
        });
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request =
            CreateTopicsRequest::default().with_timeout_ms(30_000).with_topics(vec![topic]);
        Ok(self.call(&request, 5)?.topics[0].error_code)
    }

    /// Deletes a topic, or says why not.
    ///
    /// # Errors
    /// As [`Wire::call`].
    pub fn delete_topic(&mut self, name: &str) -> io::Result<i16> {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name(name)])
            .with_timeout_ms(30_000);
        Ok(self.call(&request, 4)?.responses[0].error_code)
    }

    /// The leader epoch of partition 0.
    ///
    /// # Errors
    /// As [`Wire::call`].
    pub fn leader_epoch(&mut self, topic: &str) -> io::Result<i32> {
        Ok(self.describe_topic(topic)?.partitions[0].leader_epoch)
    }

    /// The topic's id.
    ///
    /// # Errors
    /// As [`Wire::call`].
    pub fn topic_id(&mut self, topic: &str) -> io::Result<Uuid> {
        Ok(self.describe_topic(topic)?.topic_id)
    }

    fn describe_topic(&mut self, topic: &str) -> io::Result<MetadataResponseTopic> {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let topic = self.call(&request, 12)?.topics.remove(0);
        assert_eq!(topic.error_code, 0, "the topic exists");
        Ok(topic)
    }

    /// Produces one batch to partition 0 with acks=all: error code and base offset.
    ///
    /// # Errors
    /// As [`Wire::call`].
    pub fn produce(&mut self, topic: &str, records: Bytes) -> io::Result<(i16, i64)> {
        let response = self.call(&produce_request(topic, records, -1), 9)?;
        let partition = &response.responses[0].partition_responses[0];
        Ok((partition.error_code, partition.base_offset))
    }

    /// Fetches from partition 0 without waiting.
    ///
    /// # Errors
    /// As [`Wire::call`].
    pub fn fetch(&mut self, topic: &str, offset: i64, bytes_max: i32) -> io::Result<Fetched> {
        let response = self.call(&fetch_request(topic, offset, bytes_max), 11)?;
        assert_eq!(response.error_code, 0, "a fetch without a session succeeds");
        let partition = &response.responses[0].partitions[0];
        Ok(Fetched {
            error_code: partition.error_code,
            high_watermark: partition.high_watermark,
            log_start_offset: partition.log_start_offset,
            records: partition.records.clone().unwrap_or_default(),
        })
    }

    /// The offset of a timestamp, or of a special one (-1 latest, -2 earliest).
    ///
    /// # Errors
    /// As [`Wire::call`].
    pub fn list_offset(&mut self, topic: &str, timestamp: i64) -> io::Result<(i16, i64)> {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let response = self.call(&request, 7)?;
        let partition = &response.topics[0].partitions[0];
        Ok((partition.error_code, partition.offset))
    }

    /// Everything that lasts about a cluster: its id, and each topic's name and id.
    ///
    /// # Errors
    /// As [`Wire::call`].
    pub fn describe(&mut self) -> io::Result<Vec<String>> {
        let response = self.call(&MetadataRequest::default().with_topics(None), 12)?;
        let cluster = response.cluster_id.iter().map(|id| id.to_string());
        let topics =
            response.topics.iter().map(|topic| format!("{:?} {}", topic.name, topic.topic_id));
        Ok(cluster.chain(topics).collect())
    }

    /// A new producer id.
    ///
    /// # Errors
    /// As [`Wire::call`].
    pub fn init_producer_id(&mut self) -> io::Result<i64> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000);
        // A broker that has just started may still be fetching its ids.
        const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let response = self.call(&request, 2)?;
            if response.error_code != COORDINATOR_LOAD_IN_PROGRESS || Instant::now() > deadline {
                assert_eq!(response.error_code, 0, "an idempotent producer gets an id");
                return Ok(response.producer_id.0);
            }
        }
    }
}

/// A request with its header, as it goes into a frame.
pub fn encode<R: Request + Encodable>(request: &R, version: i16, correlation_id: i32) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    let mut frame = BytesMut::new();
    encode_request_header_into_buffer(&mut frame, &header).expect("a header of ours");
    request.encode(&mut frame, version).expect("a request of ours");
    frame.to_vec()
}

/// One batch for partition 0.
pub fn produce_request(topic: &str, records: Bytes, acks: i16) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// Partition 0 from `offset`, answered at once.
pub fn fetch_request(topic: &str, offset: i64, bytes_max: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(bytes_max);
    let topic =
        FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_max_bytes(bytes_max)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// A topic's name as the codec wants it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
