//! A TCP proxy that does harm on demand: it stands between the product and a service and delays,
//! throttles, cuts, resets or holds what passes. The fault can be changed at any time and applies to
//! open connections too.
//!
//! Invariant: bytes that pass are never changed, doubled or put in another order; a fault only decides
//! when they pass and where they end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

/// Most bytes that pass in one piece.
const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// How long a thread waits for bytes before it looks whether the fault has changed.
const TICK: Duration = Duration::from_millis(10);

/// A throttled connection gets its rate in this many pieces a second, so that it flows and does not hop.
const THROTTLED_CHUNKS_PER_SECOND: usize = 50;

/// What happens to bytes, in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Everything passes at once.
    Pass,
    /// Every piece passes this much later; pieces of one direction wait for each other.
    Delay(Duration),
    /// Each direction of each connection carries this many bytes a second.
    Throttle { bytes_per_second: usize },
    /// Every connection, open or new, brings the client this many bytes more and is then closed.
    CutAfter { bytes: usize },
    /// As a load balancer that has forgotten its connections: replies are lost, and the next byte from
    /// the client is answered with a reset. Such a connection does not heal.
    Reset,
    /// Nothing passes, nothing is closed; when the fault is lifted everything held goes on.
    BlackHole,
}

/// A proxy on a port of its own; dropped, it closes everything.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    stopping: AtomicBool,
    accepted: AtomicUsize,
}

#[derive(Clone, Copy)]
struct State {
    upstream: Option<SocketAddr>,
    fault: Fault,
    /// Counts the changes of `fault`: a cut counts its bytes from the last one.
    change: u64,
}

impl FaultProxy {
    pub fn start(upstream: SocketAddr) -> FaultProxy {
        let proxy = FaultProxy::start_without_upstream();
        proxy.set_upstream(upstream);
        proxy
    }

    /// For a service that has to know the proxy's address before it starts.
    pub fn start_without_upstream() -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be bound");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                upstream: None,
                fault: Fault::Pass,
                change: 0,
            }),
            stopping: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
        });
        let listening = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &shared))
        };
        FaultProxy {
            address,
            shared,
            listening: Some(listening),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where connections that come from now on lead.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.shared.state.lock().expect("no holder panics").upstream = Some(upstream);
    }

    /// Applies to every connection, open or new, from the next piece on.
    pub fn set(&self, fault: Fault) {
        let mut state = self.shared.state.lock().expect("no holder panics");
        state.fault = fault;
        state.change += 1;
    }

    /// Connections that clients have made so far.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        TcpStream::connect(self.address).ok();
        if let Some(listening) = self.listening.take() {
            listening.join().ok();
        }
    }
}

impl Shared {
    fn state(&self) -> State {
        *self.state.lock().expect("no holder panics")
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.is_stopping() {
            return;
        }
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        // A service that is down: the client sees its connection close.
        let Some(Ok(server)) = shared.state().upstream.map(TcpStream::connect) else {
            continue;
        };
        connect(client, server, shared);
    }
}

/// One thread for each direction of a connection.
fn connect(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    for socket in [&client, &server] {
        let timeouts = socket.set_read_timeout(Some(TICK)).and(socket.set_write_timeout(Some(TICK)));
        timeouts.and(socket.set_nodelay(true)).expect("a socket takes its options");
    }
    let (client, server) = (Arc::new(client), Arc::new(server));
    let doomed = Arc::new(AtomicBool::new(false));
    for is_reply in [false, true] {
        let (from, to) = if is_reply { (&server, &client) } else { (&client, &server) };
        let pump = Pump {
            from: Arc::clone(from),
            to: Arc::clone(to),
            shared: Arc::clone(shared),
            doomed: Arc::clone(&doomed),
            is_reply,
            passed: 0,
            since: 0,
        };
        std::thread::spawn(move || pump.run());
    }
}

/// Carries one direction of a connection.
struct Pump {
    from: Arc<TcpStream>,
    to: Arc<TcpStream>,
    shared: Arc<Shared>,
    /// The connection met [`Fault::Reset`].
    doomed: Arc<AtomicBool>,
    is_reply: bool,
    /// Bytes that passed since the change of the fault with this number.
    passed: usize,
    since: u64,
}

/// What a pump does next.
enum Step {
    GoOn,
    /// The sender has ended its direction; the other one may go on.
    HalfClose,
    Close,
}

impl Pump {
    fn run(mut self) {
        loop {
            if self.is_doomed() {
                return self.wait_for_reset();
            }
            match self.step() {
                Ok(Step::GoOn) => {}
                Ok(Step::HalfClose) => {
                    self.to.shutdown(Shutdown::Write).ok();
                    return;
                }
                Ok(Step::Close) => return self.close(),
                Err(_) if self.is_doomed() => return self.wait_for_reset(),
                Err(_) => return self.close(),
            }
        }
    }

    fn is_doomed(&self) -> bool {
        if self.shared.state().fault == Fault::Reset {
            self.doomed.store(true, Ordering::SeqCst);
        }
        self.doomed.load(Ordering::SeqCst)
    }

    fn step(&mut self) -> std::io::Result<Step> {
        if self.shared.is_stopping() || self.is_cut() {
            return Ok(Step::Close);
        }
        // Looks without taking: the fault that counts is the one there is when bytes have come.
        let has_ended = match self.from.peek(&mut [0]) {
            Ok(_) if self.is_doomed() => return Ok(Step::GoOn),
            Ok(peeked) => peeked == 0,
            Err(error) if is_tick(&error) => return Ok(Step::GoOn),
            Err(error) => return Err(error),
        };
        let fault = self.fault();
        let most = match fault {
            Fault::Pass | Fault::Delay(_) | Fault::Reset => CHUNK_BYTES_MAX,
            Fault::Throttle { bytes_per_second } => CHUNK_BYTES_MAX.min((bytes_per_second / THROTTLED_CHUNKS_PER_SECOND).max(1)),
            Fault::CutAfter { bytes } if self.is_reply => CHUNK_BYTES_MAX.min(bytes.saturating_sub(self.passed)),
            Fault::CutAfter { .. } => CHUNK_BYTES_MAX,
            Fault::BlackHole => 0,
        };
        if most == 0 {
            sleep(TICK);
            return Ok(Step::GoOn);
        }
        if has_ended {
            return Ok(Step::HalfClose);
        }
        let mut chunk = [0; CHUNK_BYTES_MAX];
        let read = (&*self.from).read(&mut chunk[..most])?;
        match fault {
            Fault::Delay(delay) => sleep(delay),
            Fault::Throttle { bytes_per_second } => sleep(Duration::from_secs(1) * to_u32(read) / to_u32(bytes_per_second.max(1))),
            _ => {}
        }
        self.write(&chunk[..read])?;
        self.passed += read;
        Ok(Step::GoOn)
    }

    /// The fault there is now; a new one counts its bytes from zero.
    fn fault(&mut self) -> Fault {
        let state = self.shared.state();
        if state.change != self.since {
            (self.since, self.passed) = (state.change, 0);
        }
        state.fault
    }

    fn is_cut(&mut self) -> bool {
        let fault = self.fault();
        self.is_reply && matches!(fault, Fault::CutAfter { bytes } if self.passed >= bytes)
    }

    /// Writes all of it, but not into a black hole that has opened meanwhile.
    fn write(&self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            if self.shared.is_stopping() || self.is_doomed() {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            if self.shared.state().fault == Fault::BlackHole {
                sleep(TICK);
                continue;
            }
            match (&*self.to).write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_tick(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The kernel answers with a reset when a socket is closed while something unread lies in it, so
    /// the client's socket is dropped only then. The replies' side lets go of it at once.
    fn wait_for_reset(self) {
        if self.is_reply {
            self.from.shutdown(Shutdown::Both).ok();
            return;
        }
        while !self.shared.is_stopping() {
            match self.from.peek(&mut [0]) {
                Err(error) if is_tick(&error) => {}
                // The other thread may hold the socket for one more tick.
                Ok(1) if Arc::strong_count(&self.from) > 1 => sleep(TICK),
                _ => return,
            }
        }
    }

    fn close(&self) {
        self.from.shutdown(Shutdown::Both).ok();
        self.to.shutdown(Shutdown::Both).ok();
    }
}

/// Nothing came, or nothing could be written, within [`TICK`].
fn is_tick(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn to_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

// ---- the proxy does what it says ----

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that sends back what it gets, and ends when its client does.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be bound");
    let address = listener.local_addr().expect("a bound listener has an address");
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            std::thread::spawn(move || std::io::copy(&mut socket.try_clone().expect("a socket can be cloned"), &mut socket));
        }
    });
    address
}

fn client(proxy: &FaultProxy) -> TcpStream {
    let client = TcpStream::connect(proxy.address()).expect("the proxy accepts");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
    client
}

/// Sends the bytes and expects them back.
#[track_caller]
fn round_trip(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).expect("the proxy takes it");
    let mut back = vec![0; bytes.len()];
    client.read_exact(&mut back).expect("the echo comes");
    assert!(back == bytes, "the bytes came back changed");
}

/// Sends bytes and gives what comes back before the connection ends, and how it ended.
fn send_and_drain(client: &mut TcpStream, bytes: &[u8]) -> (Vec<u8>, Option<ErrorKind>) {
    client.write_all(bytes).expect("the proxy takes it");
    let mut back = Vec::new();
    let end = client.read_to_end(&mut back).err().map(|error| error.kind());
    (back, end)
}

#[allow(clippy::cast_possible_truncation)] // Any bytes do, as long as neighbours differ.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

#[test]
fn a_megabyte_passes_unchanged_and_both_ends_can_close() {
    let proxy = FaultProxy::start(echo_server());
    let mut first = client(&proxy);
    let bytes = pattern(1 << 20);
    let sender = std::thread::spawn({
        let (mut first, bytes) = (first.try_clone().expect("a socket can be cloned"), bytes.clone());
        move || {
            first.write_all(&bytes).expect("the proxy takes it");
            first.shutdown(Shutdown::Write).expect("the client can end its direction");
        }
    });
    let mut back = Vec::new();
    first.read_to_end(&mut back).expect("the echo comes and ends");
    sender.join().expect("the sender ends");
    assert!(back == bytes, "{} bytes came back, or others", back.len());
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn a_delay_and_a_throttle_cost_the_time_they_say_and_end_when_lifted() {
    let proxy = FaultProxy::start(echo_server());
    let mut client = client(&proxy);
    let took = |client: &mut TcpStream, bytes: &[u8]| {
        let start = std::time::Instant::now();
        round_trip(client, bytes);
        start.elapsed()
    };
    proxy.set(Fault::Delay(Duration::from_millis(150)));
    assert!(took(&mut client, b"there and back") >= Duration::from_millis(300));
    proxy.set(Fault::Throttle { bytes_per_second: 20_000 });
    // Each direction needs half a second, side by side.
    assert!(took(&mut client, &pattern(10_000)) >= Duration::from_millis(450));
    proxy.set(Fault::Delay(PATIENCE));
    proxy.set(Fault::Pass);
    assert!(took(&mut client, b"at once") < PATIENCE);
}

#[test]
fn a_cut_comes_after_exactly_so_many_bytes_of_reply_on_every_connection() {
    let proxy = FaultProxy::start(echo_server());
    let mut open = client(&proxy);
    round_trip(&mut open, &pattern(5000));
    proxy.set(Fault::CutAfter { bytes: 1000 });
    for mut client in [open, client(&proxy)] {
        let (back, _) = send_and_drain(&mut client, &pattern(3000));
        assert!(back == pattern(3000)[..1000], "{} bytes came", back.len());
    }
    proxy.set(Fault::Pass);
    round_trip(&mut client(&proxy), &pattern(3000));
}

#[test]
fn a_reset_answers_the_next_byte_and_the_connection_does_not_heal() {
    let proxy = FaultProxy::start(echo_server());
    let (mut open, mut idle) = (client(&proxy), client(&proxy));
    round_trip(&mut open, b"before");
    round_trip(&mut idle, b"before");
    proxy.set(Fault::Reset);
    for mut client in [open, client(&proxy)] {
        assert_eq!(
            send_and_drain(&mut client, b"after"),
            (Vec::new(), Some(ErrorKind::ConnectionReset))
        );
    }
    // Each thread looks at the fault once a tick.
    sleep(TICK * 20);
    proxy.set(Fault::Pass);
    assert_eq!(
        send_and_drain(&mut idle, b"healed?"),
        (Vec::new(), Some(ErrorKind::ConnectionReset))
    );
    round_trip(&mut client(&proxy), b"a new one");
}

#[test]
fn a_black_hole_holds_everything_and_lets_it_go_on_when_it_closes() {
    let proxy = FaultProxy::start(echo_server());
    let mut client = client(&proxy);
    round_trip(&mut client, b"before");
    proxy.set(Fault::BlackHole);
    client.write_all(b"held").expect("the kernel takes it");
    client.set_read_timeout(Some(TICK * 30)).expect("a socket takes a time-out");
    let nothing = client.read(&mut [0; 4]).expect_err("nothing comes out of a black hole");
    assert!(is_tick(&nothing), "{nothing}");
    proxy.set(Fault::Pass);
    client.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
    let mut back = [0; 4];
    client.read_exact(&mut back).expect("it goes on");
    assert_eq!(&back, b"held");
}

#[test]
fn a_service_that_is_down_or_not_known_yet_closes_the_connection() {
    let proxy = FaultProxy::start_without_upstream();
    assert_eq!(client(&proxy).read(&mut [0]).ok(), Some(0));
    proxy.set_upstream(echo_server());
    round_trip(&mut client(&proxy), b"now it is");
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    proxy.set_upstream(gone.expect("a port can be bound"));
    assert_eq!(client(&proxy).read(&mut [0]).ok(), Some(0));
}
