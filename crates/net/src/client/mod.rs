//! A client of the protocol: typed calls, pipelined over one connection, or raw frames.
//!
//! Never in it: retries, metadata, a pool. Its user knows which broker it wants.

mod wire;

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    io,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

pub use wire::Wire;

/// Calls that may wait to be sent.
const CALLS_MAX: usize = 1024;

/// How a client introduces itself and how long it waits.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Sent with every request.
    pub client_id: String,
    /// For the connection to be made.
    pub connect_timeout: Duration,
    /// For each response.
    pub request_timeout: Duration,
    /// A longer response ends the connection.
    pub response_bytes_max: usize,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig {
            client_id: "tidelog".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            response_bytes_max: 256 << 20,
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be made or has ended. What was in flight may have been done.
    #[error("the connection to the broker is gone")]
    Disconnected(#[source] Arc<io::Error>),
    /// No answer in time. It may still be done.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The request cannot be written in this version.
    #[error("the request does not fit version {version} of API {api_key}: {reason}")]
    Unencodable {
        /// The API.
        api_key: i16,
        /// The version.
        version: i16,
        /// What the codec said.
        reason: String,
    },
    /// The response makes no sense.
    #[error("the answer of API {api_key} version {version} cannot be read: {reason}")]
    Undecodable {
        /// The API.
        api_key: i16,
        /// The version.
        version: i16,
        /// What the codec said.
        reason: String,
    },
    /// The broker refuses to say what it serves.
    #[error("the broker answered ApiVersions with error code {0}")]
    Refused(i16),
}

/// One connection to a broker, shared by its clones. Calls are pipelined: several may be in
/// flight, in the order they were made.
#[derive(Debug, Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    calls: mpsc::Sender<Call>,
    correlation_ids: Arc<AtomicI32>,
}

/// What a broker serves, by API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedVersions(BTreeMap<i16, RangeInclusive<i16>>);

#[derive(Debug)]
struct Call {
    frame: Bytes,
    correlation_id: i32,
    /// `None` where no answer is expected.
    answer: Option<Answer>,
}

type Answer = oneshot::Sender<Result<Bytes, Arc<io::Error>>>;

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::Disconnected`] or [`ClientError::TimedOut`].
    pub async fn connect(address: SocketAddr, config: ClientConfig) -> Result<Client, ClientError> {
        let connecting = Wire::connect(address, config.response_bytes_max);
        let wire = timeout(config.connect_timeout, connecting)
            .await
            .map_err(|_| ClientError::TimedOut(config.connect_timeout))?
            .map_err(|error| ClientError::Disconnected(Arc::new(error)))?;
        let (calls, waiting) = mpsc::channel(CALLS_MAX);
        tokio::spawn(run_client(wire, waiting));
        let correlation_ids = Arc::new(AtomicI32::new(0));
        Ok(Client { config: Arc::new(config), calls, correlation_ids })
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// Any [`ClientError`]; error codes inside the response are the caller's to look at.
    pub async fn call<R: Request>(
        &self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, ClientError> {
        let (frame, correlation_id) = self.encode(request, version)?;
        let answer = self.exchange(frame, correlation_id).await?;
        decode_response::<R>(answer, version)
    }

    /// Sends a request that gets no response, such as Produce with `acks=0`.
    ///
    /// # Errors
    /// [`ClientError::Unencodable`] or [`ClientError::Disconnected`].
    pub async fn send<R: Request>(&self, request: &R, version: i16) -> Result<(), ClientError> {
        let (frame, correlation_id) = self.encode(request, version)?;
        let call = Call { frame, correlation_id, answer: None };
        self.calls.send(call).await.map_err(|_| gone())
    }

    /// Sends a frame as it is, length included, whose header carries `correlation_id`, and returns
    /// the response frame without its length.
    ///
    /// # Errors
    /// [`ClientError::Disconnected`] or [`ClientError::TimedOut`].
    pub async fn exchange(&self, frame: Bytes, correlation_id: i32) -> Result<Bytes, ClientError> {
        let (answer, answered) = oneshot::channel();
        let call = Call { frame, correlation_id, answer: Some(answer) };
        let exchange = async {
            self.calls.send(call).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?.map_err(ClientError::Disconnected)
        };
        let patience = self.config.request_timeout;
        timeout(patience, exchange).await.unwrap_or(Err(ClientError::TimedOut(patience)))
    }

    /// Asks which versions the broker serves, by the oldest form of the question.
    ///
    /// # Errors
    /// As [`Client::call`], and [`ClientError::Refused`].
    pub async fn served_versions(&self) -> Result<ServedVersions, ClientError> {
        let answer: ApiVersionsResponse = self.call(&ApiVersionsRequest::default(), 0).await?;
        if answer.error_code != 0 {
            return Err(ClientError::Refused(answer.error_code));
        }
        let ranges =
            answer.api_keys.iter().map(|api| (api.api_key, api.min_version..=api.max_version));
        Ok(ServedVersions(ranges.collect()))
    }

    fn encode<R: Request>(&self, request: &R, version: i16) -> Result<(Bytes, i32), ClientError> {
        let correlation_id = self.correlation_ids.fetch_add(1, Ordering::Relaxed);
        let frame = encode_request(request, version, correlation_id, &self.config.client_id)?;
        Ok((frame, correlation_id))
    }
}

impl ServedVersions {
    /// The newest version of an API that both sides know, `None` where there is none.
    #[must_use]
    pub fn newest(&self, api_key: i16, ours: RangeInclusive<i16>) -> Option<i16> {
        let served = self.0.get(&api_key)?;
        let newest = *served.end().min(ours.end());
        (newest >= *served.start() && newest >= *ours.start()).then_some(newest)
    }

    /// The range of an API.
    #[must_use]
    pub fn range(&self, api_key: i16) -> Option<RangeInclusive<i16>> {
        self.0.get(&api_key).cloned()
    }
}

/// A request as a frame, its length in front.
///
/// # Errors
/// [`ClientError::Unencodable`].
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<Bytes, ClientError> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_string(client_id.to_owned())));
    let mut frame = BytesMut::new();
    frame.put_i32(0); // the length, once it is known
    let encoded = header
        .encode(&mut frame, <R as HeaderVersion>::header_version(version))
        .and_then(|()| request.encode(&mut frame, version));
    let unencodable = |reason| ClientError::Unencodable { api_key: R::KEY, version, reason };
    encoded.map_err(|error| unencodable(error.to_string()))?;
    let length = i32::try_from(frame.len() - 4);
    let length = length.map_err(|error| unencodable(error.to_string()))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

/// A response from its frame, length not included.
///
/// # Errors
/// [`ClientError::Undecodable`].
pub fn decode_response<R: Request>(
    mut frame: Bytes,
    version: i16,
) -> Result<R::Response, ClientError> {
    let header_version = <R::Response as HeaderVersion>::header_version(version);
    ResponseHeader::decode(&mut frame, header_version)
        .and_then(|_| R::Response::decode(&mut frame, version))
        .map_err(|error| {
            let reason = error.to_string();
            ClientError::Undecodable { api_key: R::KEY, version, reason }
        })
}

/// The loop that owns the connection: sends calls, hands out answers in order.
async fn run_client(mut wire: Wire, mut calls: mpsc::Receiver<Call>) {
    let mut in_flight: VecDeque<(i32, Answer)> = VecDeque::new();
    let ended = poll_fn(|cx| poll_client(&mut wire, &mut calls, &mut in_flight, cx)).await;
    let error = Arc::new(ended.err().unwrap_or_else(|| io::ErrorKind::NotConnected.into()));
    // Whoever gave up waiting needs no answer.
    for (_, answer) in in_flight {
        let _ = answer.send(Err(Arc::clone(&error)));
    }
}

/// Ready once the connection has failed, or nobody holds the client any more.
fn poll_client(
    wire: &mut Wire,
    calls: &mut mpsc::Receiver<Call>,
    in_flight: &mut VecDeque<(i32, Answer)>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let abandoned = take_calls(wire, calls, in_flight, cx);
    let flushed = wire.poll_flush(cx)?;
    if abandoned && in_flight.is_empty() && flushed.is_ready() {
        return Poll::Ready(Ok(()));
    }
    let mut mismatch = None;
    let polled = wire.poll_frames(cx, |frame| {
        if let Err(error) = answer_next(in_flight, frame) {
            mismatch = Some(error);
        }
    })?;
    if let Some(error) = mismatch {
        return Poll::Ready(Err(error));
    }
    if polled.is_ready() {
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}

/// Moves calls that wait to the connection. True once nobody can make any more.
fn take_calls(
    wire: &mut Wire,
    calls: &mut mpsc::Receiver<Call>,
    in_flight: &mut VecDeque<(i32, Answer)>,
    cx: &mut Context<'_>,
) -> bool {
    while wire.unsent() < CALLS_MAX && in_flight.len() < CALLS_MAX {
        match calls.poll_recv(cx) {
            Poll::Ready(Some(call)) => {
                wire.push(call.frame);
                in_flight.extend(call.answer.map(|answer| (call.correlation_id, answer)));
            }
            Poll::Ready(None) => return true,
            Poll::Pending => return false,
        }
    }
    false
}

fn answer_next(in_flight: &mut VecDeque<(i32, Answer)>, frame: &[u8]) -> io::Result<()> {
    let correlation_id = (frame.len() >= 4).then(|| (&frame[..4]).get_i32());
    let front = in_flight.pop_front_if(|(expected, _)| Some(*expected) == correlation_id);
    let Some((_, answer)) = front else {
        let message = format!("no request waits for correlation id {correlation_id:?}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    };
    // The caller may have given up.
    let _ = answer.send(Ok(Bytes::copy_from_slice(frame)));
    Ok(())
}

fn gone() -> ClientError {
    ClientError::Disconnected(Arc::new(io::ErrorKind::NotConnected.into()))
}
