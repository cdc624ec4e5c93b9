//! The peers, spoken to in their own protocols by the same loops: one TCP connection for each participant,
//! all in one thread.

mod mqtt;
mod nats;
mod redis;

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::ValueEnum;
use recado_proto::id::Moment;
use recado_sys::clock::MachineClock;

use crate::broker::{Broker, Number, Observed, Poll};
use crate::failure::Failure;
use crate::interrupt;

/// The longest wait for all connections to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest wait for a socket.
const IDLE: Duration = Duration::from_millis(100);
/// Bytes of one read.
const READ: usize = 64 * 1024;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// recado: on the disks of a majority before it is acknowledged
    Recado,
    /// Redis, PUBLISH: acknowledged once it is given to the subscribers' connections
    Redis,
    /// Redis, SET and WAIT: acknowledged once so many replicas have it in memory
    RedisWait,
    /// NATS: a PING after each message stands for the acknowledgement
    Nats,
    /// NATS JetStream: acknowledged once a majority of the replicas has stored it
    Jetstream,
    /// MQTT 3.1.1: `send` at QoS 1, the others at QoS 0 without acknowledgement
    Mqtt,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It publishes, and if `acknowledged`, asks to be told that its messages are accepted.
    Sender { acknowledged: bool },
    /// It subscribes.
    Follower(usize),
}

/// What a frame from the peer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// Nothing for the measurement.
    Nothing,
    /// The connection can be used.
    Ready,
    /// The oldest message without an acknowledgement has it.
    Acked,
    /// A message.
    Message(Option<Number>),
}

/// The protocol of one connection, without its socket.
pub(crate) trait Protocol {
    /// Adds the first bytes.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Adds the bytes of a message.
    fn publish(&mut self, body: &str, out: &mut Vec<u8>);

    /// Takes one frame from the beginning of `input`, adds what must be answered, and returns the frame's
    /// length and meaning; none if there is no whole frame yet.
    fn take(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Got)>, Failure>;
}

struct Connection {
    part: Part,
    stream: TcpStream,
    protocol: Box<dyn Protocol>,
    ready: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    wants_to_write: bool,
    unacknowledged: VecDeque<Number>,
}

/// Connections to a peer.
pub(crate) struct Peer {
    clock: MachineClock,
    acknowledged: bool,
    poll: Poll,
    /// The senders, in order, then the followers.
    connections: Vec<Connection>,
    /// The connections that have something to write.
    writing: BTreeSet<usize>,
    buffer: Vec<u8>,
}

impl Peer {
    /// Connects the senders, then the followers, and waits until all are ready. Of JetStream and Redis with
    /// WAIT, `replicas` have a message when it is acknowledged.
    pub(crate) fn connect(
        clock: MachineClock,
        kind: Kind,
        server: SocketAddr,
        replicas: u16,
        senders: u16,
        followers: usize,
    ) -> Result<Peer, Failure> {
        // Where the peer tells a publisher of a core message nothing, it is not asked to unless that is all
        // there is to observe.
        let acknowledged = match kind {
            Kind::Nats | Kind::Mqtt => followers == 0,
            Kind::Recado | Kind::Redis | Kind::RedisWait | Kind::Jetstream => true,
        };
        let mut peer = Peer {
            clock,
            acknowledged,
            poll: Poll::new()?,
            connections: Vec::new(),
            writing: BTreeSet::new(),
            buffer: vec![0; READ],
        };
        for _ in 0..senders {
            peer.add(kind, server, replicas, Part::Sender { acknowledged })?;
        }
        peer.wait_ready()?;
        for follower in 0..followers {
            peer.add(kind, server, replicas, Part::Follower(follower))?;
        }
        peer.wait_ready()?;
        Ok(peer)
    }

    fn add(&mut self, kind: Kind, server: SocketAddr, replicas: u16, part: Part) -> Result<(), Failure> {
        let index = self.connections.len();
        let mut protocol: Box<dyn Protocol> = match kind {
            Kind::Recado => return Err(Failure::Usage("recado is no peer of itself".into())),
            Kind::Redis => Box::new(redis::Redis::new(part, None)),
            Kind::RedisWait => Box::new(redis::Redis::new(part, Some(replicas))),
            Kind::Nats => Box::new(nats::Nats::new(part, index, None)),
            Kind::Jetstream => Box::new(nats::Nats::new(part, index, Some(replicas))),
            Kind::Mqtt => Box::new(mqtt::Mqtt::new(part, index)),
        };
        let stream = TcpStream::connect(server).map_err(Failure::io(server.to_string()))?;
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_nonblocking(true))
            .map_err(Failure::io("a connection"))?;
        self.poll.add(&stream, index)?;
        let mut output = Vec::new();
        protocol.begin(&mut output);
        self.connections.push(Connection {
            part,
            stream,
            protocol,
            ready: false,
            input: Vec::new(),
            output,
            wants_to_write: false,
            unacknowledged: VecDeque::new(),
        });
        self.writing.insert(index);
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<(), Failure> {
        let deadline = self.clock.now() + PATIENCE;
        while self.connections.iter().any(|connection| !connection.ready) {
            self.turn(IDLE, &mut Vec::new())?;
            if self.clock.now() >= deadline {
                return Err(Failure::Late("the connections are ready".into()));
            }
        }
        Ok(())
    }

    /// Writes what is there to write, as far as the sockets take it.
    fn write(&mut self) -> Result<(), Failure> {
        for index in std::mem::take(&mut self.writing) {
            let Some(connection) = self.connections.get_mut(index) else { continue };
            match connection.stream.write(&connection.output) {
                Ok(written) => drop(connection.output.drain(..written)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(Failure::io("writing to the peer")(error)),
            }
            let unfinished = !connection.output.is_empty();
            if unfinished != connection.wants_to_write {
                connection.wants_to_write = unfinished;
                self.poll.want_to_write(&connection.stream, index, unfinished)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize, observed: &mut Vec<(Moment, Observed)>) -> Result<(), Failure> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        match connection.stream.read(&mut self.buffer) {
            Ok(0) => return Err(Failure::Other("the peer has closed a connection".into())),
            Ok(length) => connection.input.extend(self.buffer.iter().take(length)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(Failure::io("reading from the peer")(error)),
        }
        let now = self.clock.now();
        let mut taken = 0;
        while let Some((length, got)) = {
            let rest = connection.input.get(taken..).unwrap_or_default();
            connection.protocol.take(rest, &mut connection.output)?
        } {
            taken += length;
            match (got, connection.part) {
                (Got::Ready, _) => connection.ready = true,
                (Got::Acked, _) => {
                    let oldest = connection.unacknowledged.pop_front();
                    observed.extend(oldest.map(|number| (now, Observed::Acked(number))));
                }
                (Got::Message(Some(number)), Part::Follower(follower)) => {
                    observed.push((now, Observed::Delivered { follower, number }));
                }
                (Got::Nothing | Got::Message(_), _) => {}
            }
        }
        connection.input.drain(..taken);
        if !connection.output.is_empty() {
            self.writing.insert(index);
        }
        Ok(())
    }
}

impl Broker for Peer {
    fn send(&mut self, number: Number, size: usize) -> Result<bool, Failure> {
        let index = usize::from(number.sender);
        let Some(connection) = self.connections.get_mut(index) else { return Ok(false) };
        connection.protocol.publish(&number.body(size), &mut connection.output);
        if self.acknowledged {
            connection.unacknowledged.push_back(number);
        }
        self.writing.insert(index);
        Ok(true)
    }

    fn turn(&mut self, wait: Duration, observed: &mut Vec<(Moment, Observed)>) -> Result<(), Failure> {
        interrupt::check()?;
        self.write()?;
        for index in self.poll.wait(wait.min(IDLE))? {
            self.read(index, observed)?;
            if self.connections.get(index).is_some_and(|connection| connection.wants_to_write) {
                self.writing.insert(index);
            }
        }
        self.write()
    }

    fn acknowledges(&self) -> bool {
        self.acknowledged
    }
}

/// The first line of `input`, without its end, and the length with it.
fn line(input: &[u8]) -> Option<(&str, usize)> {
    let end = input.windows(2).position(|two| two == b"\r\n")?;
    Some((std::str::from_utf8(input.get(..end)?).ok()?, end + 2))
}
