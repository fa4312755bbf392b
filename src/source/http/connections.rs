//! Connections: how many there are, and how long each may keep the receiver waiting.
//!
//! Stands below the HTTP server. A connection has a place from its acceptance to its end; when all
//! places are taken, new ones wait in the system's own queue.
//!
//! ```text
//! first byte .. end of the head     head_time    (a client that dribbles its head is cut off)
//! head .. end of the answer         the body has its own time, in `body`
//! end of the answer .. next head    idle_time
//! a write that does not move        WRITE_TIME
//! ```
//!
//! Invariant: heads are bounded in time and in bytes, also while thousands arrive at once.
//! Invariant: no connection lives on without a request in hand or a running deadline.
//! Invariant: the peer's address is in no text that anybody could log.

use std::fmt;
use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Answers are short: a client that does not take one for so long has gone.
const WRITE_TIME: Duration = Duration::from_secs(15);
/// Longest head of a request: an ordinary one with CMCD in its headers has 2 KiB. A thousand clients
/// that send nothing but heads hold no more than this, and what one read brings, each.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// After a failed acceptance: out of descriptors, say; trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there may be and how long they may be silent.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    pub connections_max: usize,
    pub head_time: Duration,
    pub idle_time: Duration,
}

/// Accepts as many connections as there are places.
pub struct BoundedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    limits: ConnectionLimits,
}

impl BoundedListener {
    pub fn new(listener: TcpListener, limits: ConnectionLimits) -> BoundedListener {
        BoundedListener {
            listener,
            places: Arc::new(Semaphore::new(limits.connections_max)),
            limits,
        }
    }
}

/// The other side's address; it does not show itself.
#[derive(Clone, Copy)]
pub struct Peer(IpAddr);

impl fmt::Debug for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a peer")
    }
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Peer) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the places are never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    // Answers are one small packet; without it they would only come later.
                    let _ = stream.set_nodelay(true);
                    return (Connection::new(stream, place, self.limits), Peer(address.ip()));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> Result<Peer> {
        Ok(Peer(self.listener.local_addr()?.ip()))
    }
}

/// What a request knows of its connection.
#[derive(Debug, Clone)]
pub struct Caller {
    peer: Peer,
    turns: Arc<Turns>,
}

impl Connected<IncomingStream<'_, BoundedListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Caller {
        Caller {
            peer: *stream.remote_addr(),
            turns: Arc::clone(&stream.io().turns),
        }
    }
}

impl Caller {
    pub fn address(&self) -> IpAddr {
        self.peer.0
    }

    /// The connection has a request in hand for as long as the result lives.
    pub fn begin(&self) -> InHand {
        self.turns.next();
        InHand(Arc::clone(&self.turns))
    }
}

/// Counts up when a request is taken in hand and when it is done with: odd = one is in hand.
#[derive(Debug, Default)]
struct Turns(AtomicU64);

impl Turns {
    fn next(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// While it lives, its connection's own deadlines rest.
pub struct InHand(Arc<Turns>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.next();
    }
}

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The head of a request is being read.
    Head,
    /// Between two requests.
    Idle,
}

/// A stream that ends itself when its client is too slow.
pub struct Connection {
    stream: TcpStream,
    limits: ConnectionLimits,
    turns: Arc<Turns>,
    /// How many turns there were when the phase began.
    turns_seen: u64,
    phase: Phase,
    /// Read since the phase began.
    phase_bytes: usize,
    /// When the phase must be over; rests while a request is in hand.
    deadline: Pin<Box<Sleep>>,
    /// The client will send no more.
    has_ended: bool,
    /// When a write that is stuck must have moved.
    write_deadline: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, limits: ConnectionLimits) -> Connection {
        Connection {
            stream,
            limits,
            turns: Arc::default(),
            turns_seen: 0,
            phase: Phase::Head,
            phase_bytes: 0,
            deadline: Box::pin(sleep(limits.head_time)),
            has_ended: false,
            write_deadline: None,
            _place: place,
        }
    }

    fn enter(&mut self, phase: Phase, time: Duration) {
        self.phase = phase;
        self.phase_bytes = 0;
        self.deadline.as_mut().reset(Instant::now() + time);
    }

    /// While a request is in hand the end of the stream is kept back: a client that has sent all and
    /// gone is no reason to throw away what it sent. The server reads again when it has answered; a
    /// body that was cut ends by its own time.
    fn poll_read_of_request(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let is_end = read.is_ok() && buffer.filled().len() == before;
        if is_end { Poll::Pending } else { Poll::Ready(read) }
    }

    /// A write that made progress ends its deadline; one that is stuck waits for it.
    fn written<T>(&mut self, written: Poll<Result<T>>, context: &mut Context<'_>) -> Poll<Result<T>> {
        if written.is_ready() {
            self.write_deadline = None;
            return written;
        }
        let deadline = self.write_deadline.get_or_insert_with(|| Box::pin(sleep(WRITE_TIME)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(too_slow()))
    }
}

fn too_slow() -> Error {
    Error::new(ErrorKind::TimedOut, "the client is too slow")
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let turns = this.turns.count();
        if turns % 2 == 1 {
            return this.poll_read_of_request(context, buffer);
        }
        if turns != this.turns_seen {
            this.turns_seen = turns;
            this.enter(Phase::Idle, this.limits.idle_time);
        }
        if this.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(too_slow()));
        }
        if this.phase_bytes > HEAD_BYTES_MAX {
            return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, "the head of the request is too long")));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        let is_end = bytes == 0 && matches!(read, Poll::Ready(Ok(())));
        if is_end && !std::mem::replace(&mut this.has_ended, true) {
            // Perhaps a whole request came before the end and is taken in hand right after this look.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.phase == Phase::Idle && bytes > 0 {
            this.enter(Phase::Head, this.limits.head_time);
        }
        this.phase_bytes += bytes;
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.written(written, context)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[std::io::IoSlice<'_>]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, bytes);
        this.written(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.written(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        this.written(shut, context)
    }
}
