//! A connection as a client drives it: frames out, frames in, no task and no allocation of its own.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{io::Interest, net::TcpStream};

/// Bytes that one read takes at most, unless they belong to one response.
const SCRATCH_BYTES: usize = 256 * 1024;
/// A response of which so many bytes are missing is read into its own memory.
const DIRECT_BYTES_MIN: usize = 64 * 1024;
/// Slices handed to one write.
const SLICES_MAX: usize = 128;
/// Bytes of a frame's length.
const LENGTH_LEN: usize = 4;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// One connection to a broker. Frames go out as they are and come back without their length.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    outgoing: VecDeque<Bytes>,
    /// Bytes of the first outgoing piece that are written.
    position: usize,
    incoming: Incoming,
}

/// A response that is being received. Never more memory than its announced length.
#[derive(Debug)]
struct Incoming {
    bytes_max: usize,
    length: [u8; LENGTH_LEN],
    length_filled: usize,
    body: Vec<u8>,
    body_len: usize,
}

impl Wire {
    /// Connects. Responses longer than `response_bytes_max` are refused.
    ///
    /// # Errors
    /// When the system cannot connect.
    pub async fn connect(address: SocketAddr, response_bytes_max: usize) -> io::Result<Wire> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Wire::new(socket, response_bytes_max))
    }

    /// Uses a connected socket.
    #[must_use]
    pub fn new(socket: TcpStream, response_bytes_max: usize) -> Wire {
        let incoming = Incoming::new(response_bytes_max);
        Wire { socket, outgoing: VecDeque::new(), position: 0, incoming }
    }

    /// The socket itself, for its options.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Appends bytes to what is to be sent: a piece of a frame or a whole one.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.outgoing.push_back(piece);
        }
    }

    /// Pieces that are not sent yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends what was pushed, many pieces in one call. Ready once all of it is with the kernel.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match self.write() {
                Ok(count) => self.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and hands over every whole response in it; gives how many there were. Pending
    /// where there is nothing to read.
    ///
    /// # Errors
    /// `UnexpectedEof` where the broker has closed, `InvalidData` for a length out of bounds, else
    /// what the system says.
    pub fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        mut on_frame: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match self.read(&mut on_frame) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Sends what was pushed.
    ///
    /// # Errors
    /// As [`Wire::poll_flush`].
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Sends what was pushed and waits for the next response. Only for clients with one request
    /// in flight: of several responses in one read, the last is returned.
    ///
    /// # Errors
    /// As [`Wire::poll_frames`].
    pub async fn exchange(&mut self) -> io::Result<Bytes> {
        self.flush().await?;
        let mut answer = None;
        let mut on_frame = |bytes: &[u8]| answer = Some(Bytes::copy_from_slice(bytes));
        while poll_fn(|cx| self.poll_frames(cx, &mut on_frame)).await? == 0 {}
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn write(&self) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.outgoing) {
            *slice = IoSlice::new(if filled == 0 { &piece[self.position..] } else { piece });
            filled += 1;
        }
        self.socket.try_write_vectored(&slices[..filled])
    }

    fn sent(&mut self, count: usize) {
        self.position += count;
        while let Some(front) = self.outgoing.front() {
            if self.position < front.len() {
                break;
            }
            self.position -= front.len();
            self.outgoing.pop_front();
        }
    }

    fn read(&mut self, on_frame: &mut impl FnMut(&[u8])) -> io::Result<usize> {
        if self.incoming.missing() >= DIRECT_BYTES_MIN {
            return self.read_direct(on_frame);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let (mut count, asked) = (0, scratch.len());
            let told = self.socket.try_io(Interest::READABLE, || {
                count = rustix::io::read(&self.socket, scratch.as_mut_slice())?;
                emptied(count, asked)
            });
            if count == 0 {
                return Err(told.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
            }
            self.incoming.take(&scratch[..count], on_frame)
        })
    }

    fn read_direct(&mut self, on_frame: &mut impl FnMut(&[u8])) -> io::Result<usize> {
        let (filled, missing) = (self.incoming.body.len(), self.incoming.missing());
        let step = missing.min(4 * SCRATCH_BYTES);
        self.incoming.body.resize(filled + step, 0);
        let mut count = 0;
        let body = &mut self.incoming.body;
        let told = self.socket.try_io(Interest::READABLE, || {
            count = rustix::io::read(&self.socket, &mut body[filled..])?;
            emptied(count, step)
        });
        self.incoming.body.truncate(filled + count);
        if count == 0 {
            return Err(told.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(self.incoming.deliver(on_frame))
    }
}

/// A read that got less than it asked for has emptied the socket: saying so spares the next call.
fn emptied(count: usize, asked: usize) -> io::Result<()> {
    let more = count == 0 || count == asked;
    if more { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

impl Incoming {
    fn new(bytes_max: usize) -> Incoming {
        Incoming { bytes_max, length: [0; 4], length_filled: 0, body: Vec::new(), body_len: 0 }
    }

    /// Bytes of the response whose length is known and which has not all arrived.
    fn missing(&self) -> usize {
        if self.length_filled < LENGTH_LEN { 0 } else { self.body_len - self.body.len() }
    }

    fn take(&mut self, mut input: &[u8], on_frame: &mut impl FnMut(&[u8])) -> io::Result<usize> {
        let mut frames = 0;
        while !input.is_empty() {
            if self.length_filled < LENGTH_LEN {
                self.take_length(&mut input)?;
                if self.length_filled < LENGTH_LEN {
                    break;
                }
            }
            let missing = self.missing();
            if self.body.is_empty() && input.len() >= missing {
                // The whole response lies in what was read: no copy.
                on_frame(&input[..missing]);
                input = &input[missing..];
                self.length_filled = 0;
                frames += 1;
                continue;
            }
            let (part, rest) = input.split_at(missing.min(input.len()));
            self.body.extend_from_slice(part);
            input = rest;
            frames += self.deliver(on_frame);
        }
        Ok(frames)
    }

    fn take_length(&mut self, input: &mut &[u8]) -> io::Result<()> {
        let (part, rest) = input.split_at((LENGTH_LEN - self.length_filled).min(input.len()));
        self.length[self.length_filled..][..part.len()].copy_from_slice(part);
        self.length_filled += part.len();
        *input = rest;
        if self.length_filled == LENGTH_LEN {
            let length = i32::from_be_bytes(self.length);
            self.body_len = usize::try_from(length)
                .ok()
                .filter(|length| (1..=self.bytes_max).contains(length))
                .ok_or_else(|| {
                    let message = format!("a response announces {length} bytes");
                    io::Error::new(io::ErrorKind::InvalidData, message)
                })?;
        }
        Ok(())
    }

    /// Hands over the body if it is whole, and says how many responses that were.
    fn deliver(&mut self, on_frame: &mut impl FnMut(&[u8])) -> usize {
        if self.body.len() < self.body_len {
            return 0;
        }
        on_frame(&self.body);
        self.body.clear();
        self.length_filled = 0;
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_found_however_the_stream_is_cut() {
        let sent: Vec<Vec<u8>> = vec![b"a".to_vec(), vec![7; 300], b"xyz".to_vec()];
        let mut stream = Vec::new();
        for frame in &sent {
            stream.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            stream.extend_from_slice(frame);
        }
        for step in 1..stream.len() {
            let mut incoming = Incoming::new(1000);
            let mut received: Vec<Vec<u8>> = Vec::new();
            for piece in stream.chunks(step) {
                let mut on_frame = |frame: &[u8]| received.push(frame.to_vec());
                incoming.take(piece, &mut on_frame).expect("lengths within bounds");
            }
            assert_eq!(received, sent, "cut every {step} bytes");
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_an_error() {
        for length in [-1_i32, 0, 1001] {
            let taken = Incoming::new(1000).take(&length.to_be_bytes(), &mut |_| {});
            assert_eq!(taken.map_err(|e| e.kind()), Err(io::ErrorKind::InvalidData), "{length}");
        }
    }
}
