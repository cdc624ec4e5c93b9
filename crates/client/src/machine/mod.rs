//! Client machine: finds the primary, keeps a session through failovers, numbers requests and retransmits
//! them until they are answered, and hands out notifications once and in order.
//!
//! Pure: `handle(now, input, &mut effects)` and `next_deadline()`.

mod backoff;
pub mod handshake;
mod inbox;
mod outbox;
mod paths;
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use recado_proto::entropy::Entropy;
use recado_proto::envelope::{Class, Opened};
use recado_proto::id::{ChannelName, DeviceId, Moment, Name, Op, Seq, SessionId, Topic, View};
use recado_proto::packet::{
    self, AcceptConn, AnswerKind, Answers, ChannelChange, Code, CodeHash, Connect, Content, Coordinator,
    Disconnect, FollowChange, History, HistoryPage, HistoryRange, Home, Info, KeyChange, List, ListPage,
    Listing, Notification, OptionalFields, Position, QueryId, QueryKind, Refused, RejectConn, Resume,
    ResumeOk, Status, ToClient, ToServer,
};
use recado_proto::planted::PlantedBug;
use recado_proto::seal::Aead;

use backoff::Backoff;
use handshake::{Greeting, Identity};
use inbox::Inbox;
use outbox::Outbox;
use server::{Received, Servers};

/// The parameters of a client machine.
#[derive(Clone, Debug)]
pub struct Start {
    /// Addresses of servers. Any one is enough.
    pub servers: Vec<SocketAddr>,
    /// The cluster with its key, and the device's private key, whose public half is the device's key.
    pub identity: Identity,
    /// The device.
    pub device: DeviceId,
    /// The op that admitted the device, from its files; none if it was never admitted.
    pub created_op: Option<Op>,
    /// The profile.
    pub profile: Name,
    /// The hash of an enrolment code, if the device's key is to be added to the profile's keys.
    pub code: Option<CodeHash>,
    /// The hash of an invitation's code, for a name that nobody has yet.
    pub invite: Option<CodeHash>,
    /// True if the device receives notifications.
    pub receives: bool,
    /// The application's cursor, if it knows it.
    pub cursor: Option<Op>,
    /// Unanswered requests of an earlier run of this device, ascending by number.
    pub outbox: Vec<Numbered>,
    /// The highest number in the device's files: given by the device, or reported by the service.
    pub highest_seq: Seq,
    /// The source of keys, nonces and jitter; its seed is random and secret.
    pub entropy: Entropy,
    /// For the simulator only.
    pub planted: PlantedBug,
}

/// A numbered request, before it has its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start or stop following.
    Follow {
        /// The topic.
        topic: Topic,
        /// Start or stop.
        change: FollowChange,
    },
    /// Notify a topic's followers; without a topic, the profile's own.
    Send {
        /// The topic.
        topic: Option<Topic>,
        /// The notification's content.
        content: Content,
    },
    /// Create an owned channel, change its members, or delete it.
    Channel {
        /// The channel.
        channel: ChannelName,
        /// The change.
        change: ChannelChange,
    },
    /// Open an enrolment of a further key of the profile, or revoke one.
    Keys {
        /// The change.
        change: KeyChange,
    },
}

/// A request with its number, as it is stored in the device's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Its number.
    pub seq: Seq,
    /// Distinguishes the request from any other with this number: see
    /// [`Send::nonce`](recado_proto::packet::Send::nonce).
    pub nonce: u64,
    /// The request.
    pub request: Request,
}

/// A sign that there is, or was, a copy of the device's files, and that the copy or these files are out of
/// date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopySign {
    /// The device has used numbers that are not in these files.
    Numbers {
        /// The highest number in these files.
        given: Seq,
        /// The last number that the service has applied.
        last: Seq,
    },
    /// The device's replicated cursor is beyond the one in these files. The notifications between them are
    /// handed out again.
    Cursor {
        /// The cursor in these files.
        here: Op,
        /// The cursor that the servers remember for the device.
        read: Op,
    },
}

/// A query; it takes no number and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// A page of notifications.
    History {
        /// The topic; none for all topics that the profile follows.
        topic: Option<Topic>,
        /// The range.
        range: HistoryRange,
        /// The number of notifications.
        limit: u32,
    },
    /// A page of a list.
    List {
        /// The list.
        what: Listing,
        /// The item before the page.
        after: Option<String>,
    },
    /// About a profile; none for the client's own.
    Info {
        /// The profile.
        profile: Option<Name>,
    },
    /// The status of the server at this address. Needs no session.
    Status {
        /// The server.
        server: SocketAddr,
    },
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The answer to History.
    History {
        /// The page.
        page: HistoryPage,
        /// The op up to which it is true.
        applied: Op,
    },
    /// The answer to List.
    List(ListPage),
    /// The answer to Info.
    Info {
        /// What was asked.
        info: Info,
        /// The op up to which it is true.
        applied: Op,
    },
    /// The answer to Status.
    Status(Status),
    /// The query was refused.
    Refused(Code),
}

/// An input of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A datagram arrived.
    Datagram {
        /// The sender's address.
        from: SocketAddr,
        /// Its bytes, which are not trusted.
        bytes: Vec<u8>,
    },
    /// The port of a server refused a datagram (ICMP port unreachable): its process has ended.
    PortRefused(SocketAddr),
    /// The application asks a request. The machine answers at once with [`Event::Numbered`], which gives the
    /// number, or with [`Event::NotTaken`]. Before the first [`Event::Connected`] numbering continues from
    /// [`Start::highest_seq`].
    Request(Request),
    /// The application asks a query, under an id of its choice.
    Query(QueryId, Query),
    /// The application no longer waits for the answer to a query.
    GiveUp(QueryId),
    /// The application has taken everything up to this op (at-least-once delivery); moves the cursor.
    Taken(Op),
    /// End the session.
    Disconnect,
    /// A deadline may have passed.
    Deadline,
}

/// An action that the machine requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes to a server.
    Datagram {
        /// The destination.
        to: SocketAddr,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Pass this event to the application.
    Event(Event),
}

/// An event for the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session is confirmed and served.
    Connected {
        /// The session's id.
        session: SessionId,
        /// The view that serves it.
        view: View,
        /// The primary's address.
        primary: SocketAddr,
        /// The op that admitted the device.
        created_op: Op,
        /// The last number that the service has applied for this device.
        last_seq: Seq,
        /// The op after which the stream continues.
        cursor: Op,
        /// The device's own cursor, if it does not belong to the servers' log: they were restored from an
        /// older copy, or the cursor was given wrongly. Then `cursor` is the one that they remember.
        lost: Option<Op>,
        /// The addresses of all servers.
        members: Vec<SocketAddr>,
    },
    /// Another server serves the session, or the same one in a new view.
    PrimaryChanged {
        /// The new view.
        view: View,
        /// The new primary's address.
        primary: SocketAddr,
        /// The time from the last datagram of the old primary to the RESUME_OK of the new one.
        pause: Duration,
    },
    /// After [`Event::Searching`], the session is served again in the same view.
    PrimaryFound {
        /// The primary's address.
        primary: SocketAddr,
        /// The time from its last datagram before the silence to its RESUME_OK after it.
        pause: Duration,
    },
    /// The primary has been silent for a while; all servers are asked for it.
    Searching,
    /// The session has ended for good, or was refused for good.
    Ended(Code),
    /// The client has ended: this server says that it speaks another version of the protocol, and for a while
    /// no server has given another answer.
    OtherVersion {
        /// The server's address.
        server: SocketAddr,
        /// The version that it speaks. It is not authenticated.
        version: u8,
    },
    /// The session ended because the application asked.
    Disconnected,
    /// Sent after [`Event::Connected`], once for each sign.
    Copied(CopySign),
    /// Sent after [`Event::Connected`]: the servers have lost requests that they had answered, because they
    /// were restored from an older copy.
    ServersSetBack {
        /// The highest number that was answered.
        answered: Seq,
        /// The highest number that they have applied.
        last: Seq,
    },
    /// The request of the last [`Input::Request`] has got this number.
    Numbered {
        /// Its number.
        seq: Seq,
        /// Its nonce: see [`Numbered`].
        nonce: u64,
    },
    /// Requests have new numbers. Each pair is (before, after), in ascending order. Another request has the
    /// number of one of them, or the servers were restored from an older copy. None of them was ever applied
    /// before.
    Renumbered(Vec<(Seq, Seq)>),
    /// No room for another request: this one was not taken (see [`Machine::has_room`]).
    NotTaken,
    /// A numbered request has its result.
    Answered {
        /// The request's number.
        seq: Seq,
        /// The op, or the refusal. With [`Code::NumberForgotten`] the outcome can no longer be known, and the
        /// request is not sent again.
        result: Result<Op, Code>,
    },
    /// The answer to a query.
    Answer(QueryId, Answer),
    /// The next notification of the stream.
    Notification(Arc<Notification>),
    /// Notifications up to here were dropped by retention before the device read them.
    Gap {
        /// The cursor before the gap.
        after: Op,
        /// The cursor after the gap.
        upto: Op,
    },
}

/// The interval between two keepalives to each server, until one tells another. It lets a new primary find
/// the client soon. Home routers keep a UDP mapping for longer (RFC 4787 section 4.3), so nothing else is
/// needed behind a NAT (DESIGN.md section 3).
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);

/// Bounds of the interval that a server tells in RESUME_OK, in ms: not so short that keepalives are a load,
/// and short enough that a server does not take the client for away.
const KEEPALIVE_TOLD: std::ops::RangeInclusive<u32> = 1_000..=20_000;

/// The first interval of a new session; each one is twice as long as the one before. A backup learns of a
/// session a little later than the primary, and must know the client's address before it becomes primary.
const KEEPALIVE_FIRST: Duration = Duration::from_millis(50);

/// With something outstanding, all servers are asked after the primary was silent for this long (DESIGN.md
/// section 3).
const QUIET: Duration = Duration::from_millis(300);

/// With nothing outstanding, the primary may be silent for two keepalive intervals and this.
const QUIET_IDLE: Duration = Duration::from_millis(500);

/// Servers that send RETRY but nothing on the session are asked whether the session still exists: after a
/// silence that is longer than any election ...
const SESSION_QUERY_AFTER: Duration = Duration::from_secs(3);

/// ... and not more often than this, because each time costs every server a handshake, and the primary a log
/// entry.
const DOUBT_EVERY: Duration = Duration::from_secs(5);

/// Bounds of the wait before a request that was refused for a passing reason is sent again, in ms, whatever
/// wait the server names: not shorter than a useful round trip, not longer than the election of a new primary
/// takes.
const RETRY: std::ops::RangeInclusive<u64> = 10..=1_000;

/// The wait before a request that was refused for a passing reason is sent again.
fn retry_wait(retry_ms: u32) -> Duration {
    Duration::from_millis(u64::from(retry_ms).clamp(*RETRY.start(), *RETRY.end()))
}

/// A refused port causes all servers to be asked at once, but not more often than this.
const REFUSED_EVERY: Duration = Duration::from_millis(20);

/// CONNECT, RESUME, DISCONNECT and queries are sent again after this wait, which grows by half each time
/// (a query not while pieces of a large packet come) ...
const ASK_AGAIN_MIN: Duration = Duration::from_millis(100);

/// ... up to this.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// Servers are believed to speak another version of the protocol once one has said so for this long, and none
/// has given another answer meanwhile. A client that searches sends HELLO about once a second or more often,
/// and any server of this version answers it, with or without a primary. So a forged VERSION ends no client
/// that can connect.
const OTHER_VERSION_AFTER: Duration = Duration::from_secs(10);

/// Most DISCONNECTs sent before the session is left to time out.
const DISCONNECTS_MAX: u32 = 3;

/// Most queries under way at once; a further one gets [`Code::Busy`].
const QUERIES_MAX: usize = 64;

/// The time of the next transmission, and the wait that follows it.
#[derive(Clone, Copy, Debug)]
struct Again {
    at: Moment,
    wait: Duration,
}

impl Again {
    fn now(now: Moment) -> Again {
        Again { at: now, wait: ASK_AGAIN_MIN }
    }

    fn due(&self, now: Moment) -> bool {
        now >= self.at
    }

    fn sent(&mut self, now: Moment, noise: u64) {
        let jitter = self.wait.as_micros() as u64 / 4;
        self.at = now + self.wait + Duration::from_micros(noise % jitter.max(1));
        self.wait = (self.wait * 3 / 2).min(ASK_AGAIN_MAX);
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A CONNECT is under way.
    Connecting { nonce: u64, again: Again },
    /// The session is in the log, and a RESUME to the primary of the highest view is under way. The first
    /// RESUME confirms the session.
    Resuming { again: Again },
    /// The primary serves the session.
    Served,
    /// DISCONNECT is under way.
    Leaving { again: Again, sent: u32 },
    /// Ended for good.
    Over,
}

#[derive(Debug)]
struct PendingQuery {
    query: Query,
    again: Again,
    /// The latest time until which pieces that come put off the next transmission. They may be of an answer
    /// to another query, or of a notification.
    put_off_upto: Moment,
}

impl PendingQuery {
    fn new(now: Moment, query: Query) -> PendingQuery {
        PendingQuery { query, again: Again::now(now), put_off_upto: now }
    }

    /// A piece has come that may be of its answer.
    fn put_off(&mut self, until: Moment) {
        self.again.at = self.again.at.max(until.min(self.put_off_upto));
    }

    /// True for the query of a status, which any server answers, with or without a session.
    fn is_status(&self) -> bool {
        matches!(self.query, Query::Status { .. })
    }
}

/// The client machine.
#[derive(Debug)]
pub struct Machine {
    start: Start,
    state: State,
    servers: Servers,
    /// The highest active view known.
    view: View,
    /// The last view that served the session.
    served_by: View,
    /// The session, and the nonce of the CONNECT that opened it.
    session: Option<(SessionId, u64)>,
    /// True once the session has been served. Requests are sent and the stream begins only then, because an
    /// older session of the device may have been in use until that moment.
    connected: bool,
    /// The cursor that the servers refused: see [`Event::Connected`].
    refused_cursor: Option<Op>,
    /// Sessions in a row that were over before they were served.
    unserved: u32,
    outbox: Outbox,
    inbox: Inbox,
    queries: BTreeMap<QueryId, PendingQuery>,
    /// The backoff for requests and queries to the primary on the session.
    backoff: Backoff,
    /// The time of the last datagram from the primary of the highest view, on the session.
    heard: Moment,
    /// The time of the last datagram from the primary before the view changed or the search for it began.
    last_heard_before: Option<Moment>,
    searched: Moment,
    searching: bool,
    /// The time of the first VERSION since any server has last given another answer; none if there was none.
    other_version_since: Option<Moment>,
    /// The time of the last query whether the session still exists.
    queried_at: Moment,
    /// The time since which an answer of the primary is outstanding; none if none is.
    outstanding_since: Option<Moment>,
    keepalive_at: Moment,
    keepalive_wait: Duration,
    /// The longest interval between two keepalives.
    keepalive_every: Duration,
}

impl Machine {
    /// Creates a machine and begins the search for the primary.
    pub fn new(now: Moment, mut start: Start, out: &mut Vec<Effect>) -> Machine {
        let outbox = Outbox::new(start.outbox.iter().cloned(), start.highest_seq);
        let mut machine = Machine {
            servers: Servers::new(&start.servers, start.identity.clone()),
            inbox: Inbox::new(start.receives, start.planted),
            state: State::Connecting { nonce: start.entropy.number(), again: Again::now(now) },
            view: View::ZERO,
            served_by: View::ZERO,
            session: None,
            connected: false,
            refused_cursor: None,
            unserved: 0,
            outbox,
            queries: BTreeMap::new(),
            backoff: Backoff::none(),
            heard: now,
            last_heard_before: None,
            searched: now,
            searching: false,
            other_version_since: None,
            queried_at: Moment(0),
            outstanding_since: None,
            keepalive_at: now,
            keepalive_wait: KEEPALIVE_FIRST,
            keepalive_every: KEEPALIVE_EVERY,
            start,
        };
        machine.on_time(now, out);
        machine
    }

    /// Takes one input at `now` and pushes the resulting effects to `out`.
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Datagram { from, bytes } => self.on_datagram(now, from, &bytes, out),
            Input::PortRefused(server) => self.on_port_refused(now, server, out),
            Input::Request(request) => {
                let nonce = self.start.entropy.number();
                self.outbox.add(now, request, nonce, out);
            }
            Input::Query(id, query) => self.on_query(now, id, query, out),
            Input::GiveUp(id) => drop(self.queries.remove(&id)),
            Input::Taken(op) => self.inbox.taken(now, op),
            Input::Disconnect => self.on_disconnect(now, out),
            Input::Deadline => {}
        }
        self.on_time(now, out);
    }

    /// Returns true if another [`Input::Request`] would be taken: the numbers from the lowest unanswered one
    /// on, and the requests whose numbers other requests took, are together fewer than
    /// [`OUTSTANDING_MAX`](recado_proto::id::OUTSTANDING_MAX).
    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// The latest time at which the machine wants an [`Input::Deadline`].
    pub fn next_deadline(&self) -> Option<Moment> {
        let mut next: Option<Moment> = None;
        let mut at = |moment: Moment| next = Some(next.map_or(moment, |next| next.min(moment)));
        match &self.state {
            State::Over => {}
            State::Connecting { again, .. } | State::Leaving { again, .. } => at(again.at),
            State::Resuming { again } => {
                at(again.at);
                at(self.search_at());
                at(self.keepalive_at);
            }
            State::Served => {
                at(self.search_at());
                at(self.keepalive_at);
                // Without a known primary, or without room on the link, requests set no deadline: they wait
                // for an acknowledgement or the link's timer.
                if let Some(primary) = self.primary() {
                    self.inbox.next_deadline().into_iter().for_each(&mut at);
                    let room = self.servers.room(primary) > 0;
                    let due = self.outbox.next_deadline(self.backoff.window()).filter(|_| room);
                    due.map(|due| self.backoff.earliest(due)).into_iter().for_each(&mut at);
                    let queries = self.queries.values().filter(|query| !query.is_status());
                    queries
                        .take(self.backoff.window())
                        .for_each(|query| at(self.backoff.earliest(query.again.at)));
                }
            }
        }
        self.queries.values().filter(|query| query.is_status()).for_each(|query| at(query.again.at));
        self.servers.next_deadline().into_iter().for_each(&mut at);
        next
    }

    // ---- timers

    fn on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.servers.on_deadline(now);
        for lost in self.servers.lost() {
            self.outbox.lost(now, lost);
        }
        if self.owes(now) {
            self.outstanding_since.get_or_insert(now);
        } else {
            self.outstanding_since = None;
        }
        match self.state {
            State::Over => {}
            State::Connecting { nonce, again } if again.due(now) => self.connect(now, nonce, again, out),
            State::Leaving { again, sent } if again.due(now) => self.leave(now, again, sent, out),
            State::Resuming { again } if again.due(now) => self.resume(now, again, out),
            State::Connecting { .. } | State::Leaving { .. } | State::Resuming { .. } | State::Served => {}
        }
        if matches!(self.state, State::Resuming { .. } | State::Served) {
            self.keep_alive(now, out);
            self.search(now, out);
        }
        if matches!(self.state, State::Served) {
            self.send_requests(now, out);
            self.send_ack(now, out);
        }
        self.send_queries(now, out);
    }

    fn connect(&mut self, now: Moment, nonce: u64, mut again: Again, out: &mut Vec<Effect>) {
        let connect = self.connect_packet(nonce);
        for server in self.servers.addresses() {
            self.servers.initiation(now, server, &connect, &mut self.start.entropy, out);
        }
        again.sent(now, self.draw());
        self.state = State::Connecting { nonce, again };
    }

    /// `fresh` lets the service create a device that it does not know. A CONNECT that asks again for an
    /// existing session is not fresh: its answer must not open another session. A CONNECT with an enrolment
    /// code is fresh even if the device was admitted before: it may have been removed, and is to be admitted
    /// again.
    fn connect_packet(&self, nonce: u64) -> ToServer {
        let newcomer = self.session.is_none();
        ToServer::Connect(Connect {
            device: self.start.device,
            profile: self.start.profile.clone(),
            receives: self.start.receives,
            nonce,
            fresh: newcomer && (self.start.created_op.is_none() || self.start.code.is_some()),
            code: self.start.code.filter(|_| newcomer),
            invite: self.start.invite.filter(|_| newcomer),
            aeads: Aead::OFFERED,
            options: OptionalFields::NONE,
        })
    }

    fn resume(&mut self, now: Moment, mut again: Again, out: &mut Vec<Effect>) {
        if let Some(primary) = self.primary() {
            let packets = [self.resume_packet(), ToServer::Padding];
            self.servers.send(now, primary, self.view, &packets, None, out);
            // The primary may have restarted since it was last heard, and then cannot open the RESUME.
            self.servers.hello(primary, &mut self.start.entropy, out);
        }
        again.sent(now, self.draw());
        self.state = State::Resuming { again };
    }

    fn resume_packet(&self) -> ToServer {
        let cursor = if self.connected { Some(self.inbox.received()) } else { self.start.cursor };
        ToServer::Resume(Resume {
            cursor: cursor.map(Position::of),
            credit: self.inbox.credit(),
            home: Home::PRIMARY,
            options: OptionalFields::NONE,
        })
    }

    fn leave(&mut self, now: Moment, mut again: Again, sent: u32, out: &mut Vec<Effect>) {
        if sent >= DISCONNECTS_MAX {
            self.state = State::Over;
            return out.push(Effect::Event(Event::Disconnected));
        }
        match self.primary() {
            Some(primary) => {
                let last = ToServer::Disconnect(Disconnect { upto: self.inbox.ack().upto });
                self.servers.send(now, primary, self.view, &[last], None, out);
            }
            None => self.ask_all(now, out),
        }
        again.sent(now, self.draw());
        self.state = State::Leaving { again, sent: sent + 1 };
    }

    fn keep_alive(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if now >= self.keepalive_at {
            self.ask_all(now, out);
            self.keepalive_at = now + self.keepalive_wait;
            self.keepalive_wait = (2 * self.keepalive_wait).min(self.keepalive_every);
        }
    }

    /// Sends KEEPALIVE to every server. Each answers with the active view that it knows, and learns the
    /// client's address. The serving primary also gets a CLIENT_ACK again: the last one may be lost, and a
    /// primary without credit sends nothing that would cause another.
    fn ask_all(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.keepalive_at = now + self.keepalive_every;
        let serving = self.primary().filter(|_| matches!(self.state, State::Served));
        for server in self.servers.addresses() {
            let mut packets = vec![ToServer::keepalive()];
            if serving == Some(server) && self.inbox.receives() {
                packets.push(ToServer::ClientAck(self.inbox.ack()));
            }
            packets.push(ToServer::Padding);
            self.servers.send(now, server, self.view, &packets, None, out);
            self.servers.check_boot(server, &mut self.start.entropy, out);
        }
    }

    /// Returns true if an answer of the primary is outstanding. Requests and queries do not count while the
    /// client backs off.
    fn owes(&self, now: Moment) -> bool {
        let asks = !self.outbox.is_empty() || self.queries.values().any(|query| !query.is_status());
        asks && !self.backoff.waits(now) || matches!(self.state, State::Resuming { .. })
    }

    /// The time at which the search for a silent primary begins.
    fn search_at(&self) -> Moment {
        let idle_at = self.heard + 2 * self.keepalive_every + QUIET_IDLE;
        let quiet_at = match self.outstanding_since {
            Some(since) => (self.heard.max(since) + QUIET).min(idle_at),
            None => idle_at,
        };
        quiet_at.max(if self.searching { self.searched + QUIET } else { Moment(0) })
    }

    fn search(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if now < self.search_at() {
            return;
        }
        self.searched = now;
        if !self.searching {
            self.searching = true;
            self.last_heard_before.get_or_insert(self.heard);
            if self.connected {
                out.push(Effect::Event(Event::Searching));
            }
        }
        self.ask_all(now, out);
    }

    /// Asks whether the session still exists, when servers send RETRY but the primary has not been heard on
    /// the session for [`SESSION_QUERY_AFTER`]. The session may be over, and a server reports that only once,
    /// in a datagram that may be lost. The session's own CONNECT, sent again, is answered with the same
    /// session or with the reason why there is none.
    fn doubt(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some((_, nonce)) = self.session else { return };
        let serves = matches!(self.state, State::Served | State::Resuming { .. });
        if serves && now.since(self.heard) >= SESSION_QUERY_AFTER && now.since(self.queried_at) >= DOUBT_EVERY
        {
            self.queried_at = now;
            let connect = self.connect_packet(nonce);
            for server in self.servers.addresses() {
                self.servers.initiation(now, server, &connect, &mut self.start.entropy, out);
            }
        }
    }

    /// Returns true if the CONNECT with this nonce opened the current session.
    fn opened_by(&self, nonce: u64) -> bool {
        let serves = matches!(self.state, State::Served | State::Resuming { .. });
        serves && self.session.is_some_and(|(_, of)| of == nonce)
    }

    fn on_port_refused(&mut self, now: Moment, server: SocketAddr, out: &mut Vec<Effect>) {
        let hurts =
            self.primary() == Some(server) && matches!(self.state, State::Served | State::Resuming { .. });
        if hurts && now.since(self.searched) >= REFUSED_EVERY {
            self.searched = now;
            self.ask_all(now, out);
        }
    }

    fn send_requests(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(primary) = self.primary().filter(|_| !self.backoff.waits(now)) else { return };
        while self.servers.room(primary) > 0 {
            let (rto, window) = (self.servers.rto(primary), self.backoff.window());
            let next = self.servers.next_number();
            let Some((token, packets)) = self.outbox.next_due(now, rto, window, next) else { return };
            self.servers.send(now, primary, self.view, &packets, Some(token), out);
        }
    }

    fn send_ack(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(primary) = self.primary() else { return };
        if self.inbox.ack_due(now) || self.servers.owes_ack(primary) {
            let ack = ToServer::ClientAck(self.inbox.ack());
            self.servers.send(now, primary, self.view, &[ack], None, out);
        }
    }

    // ---- queries

    fn on_query(&mut self, now: Moment, id: QueryId, query: Query, out: &mut Vec<Effect>) {
        if self.queries.len() >= QUERIES_MAX || matches!(self.state, State::Over) {
            return out.push(Effect::Event(Event::Answer(id, Answer::Refused(Code::Busy))));
        }
        if let Query::Status { server } = query {
            self.servers.learn(server);
        }
        self.queries.insert(id, PendingQuery::new(now, query));
    }

    /// The query of a status goes to its server at any time. Other queries need a primary that serves the
    /// session, and wait while the client backs off.
    fn send_queries(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let serves = matches!(self.state, State::Served) && !self.backoff.waits(now);
        let primary = self.primary().filter(|_| serves);
        let mut window = self.backoff.window();
        let mut noise = self.draw();
        for (id, pending) in &mut self.queries {
            if !pending.is_status() {
                if window == 0 {
                    continue;
                }
                window -= 1;
            }
            if !pending.again.due(now) {
                continue;
            }
            let kind = match pending.query.clone() {
                Query::Status { server } => {
                    let status = ToServer::Query(packet::Query::new(*id, QueryKind::Status));
                    if self.servers.has_path(server) {
                        self.servers.send(now, server, self.view, &[status], None, out);
                    } else {
                        self.servers.initiation(now, server, &status, &mut self.start.entropy, out);
                    }
                    pending.again.sent(now, noise);
                    continue;
                }
                Query::History { topic, range, limit } => QueryKind::History(History { topic, range, limit }),
                Query::List { what, after } => QueryKind::List(List { what, after }),
                Query::Info { profile } => QueryKind::Info { profile },
            };
            if let Some(primary) = primary {
                noise = noise.rotate_left(7);
                let query = ToServer::Query(packet::Query::new(*id, kind));
                self.servers.send(now, primary, self.view, &[query], None, out);
                pending.again.sent(now, noise);
                pending.put_off_upto = now + ASK_AGAIN_MAX;
            }
        }
    }

    fn answer(&mut self, now: Moment, id: QueryId, answer: Answer, out: &mut Vec<Effect>) {
        if let Some(pending) = self.queries.remove(&id) {
            if !pending.is_status() {
                self.backoff.answered(now);
            }
            out.push(Effect::Event(Event::Answer(id, answer)));
        }
    }

    fn on_answer(&mut self, now: Moment, answer: packet::Answer, out: &mut Vec<Effect>) {
        let Some(applied) = answer.applied.op() else {
            return self.answer(now, answer.id, Answer::Refused(Code::OtherEpoch), out);
        };
        let content = match answer.kind {
            AnswerKind::History(page) => Answer::History { page, applied },
            AnswerKind::List(page) => Answer::List(page),
            AnswerKind::Info(info) => Answer::Info { info, applied },
            // The caller takes a status itself, and this client never asks who it is.
            AnswerKind::Status(_) | AnswerKind::WhoAmI(_) => return,
        };
        self.answer(now, answer.id, content, out);
    }

    /// The number of older queries that wait for an answer of the primary; none if this query does not
    /// exist.
    fn place(&self, id: QueryId) -> Option<usize> {
        let older = self.queries.range(..id).filter(|(_, pending)| !pending.is_status());
        self.queries.contains_key(&id).then(|| older.count())
    }

    // ---- inputs

    fn on_datagram(&mut self, now: Moment, from: SocketAddr, bytes: &[u8], out: &mut Vec<Effect>) {
        // A datagram that is damaged, or not from a server of this cluster, counts as lost.
        let Opened { envelope, header, packets } = match self.servers.receive(now, from, bytes) {
            None => return,
            Some(Received::OtherVersion(version)) => return self.on_other_version(now, from, version, out),
            Some(Received::Greeting { greeting, on_trial }) => {
                self.other_version_since = None;
                self.on_greeting(now, from, &greeting, on_trial, out);
                return self.doubt(now, out);
            }
            Some(Received::Opened(opened)) => opened,
        };
        self.other_version_since = None;
        let fresh = header.view >= self.view;
        if header.view > self.view {
            self.on_view(now, header.view);
        }
        if fresh && self.primary() == Some(from) && envelope.class == Class::Client {
            self.heard = now;
            // The primary is back after a silence: it may have dropped the stream meanwhile.
            if self.searching && matches!(self.state, State::Served) {
                self.state = State::Resuming { again: Again::now(now) };
            }
        }
        let is_primary = fresh && self.primary() == Some(from);
        for packet in packets {
            if is_primary {
                self.on_tracked(now, &packet);
            }
            if let Some(whole) = self.servers.whole(now, from, packet) {
                self.on_packet(now, from, fresh, whole, out);
            }
        }
    }

    /// The primary sends an answer, or a piece of a large packet, again until its datagram is acknowledged,
    /// so it is acknowledged soon. The steps of the stream are acknowledged by the inbox.
    fn on_tracked(&mut self, now: Moment, packet: &ToClient) {
        match packet {
            ToClient::Answer(answer) if answer.is_tracked() => self.inbox.on_tracked(now),
            ToClient::Fragment(_) => {
                self.inbox.on_tracked(now);
                let until = now + ASK_AGAIN_MIN;
                self.queries.values_mut().for_each(|asked| asked.put_off(until));
            }
            _ => {}
        }
    }

    /// Takes one packet. Packets of a server that knows only a lower view are ignored, except a status,
    /// COORDINATOR and PATH_CHALLENGE.
    fn on_packet(
        &mut self,
        now: Moment,
        from: SocketAddr,
        fresh: bool,
        packet: ToClient,
        out: &mut Vec<Effect>,
    ) {
        match packet {
            ToClient::Answer(packet::Answer { id, kind: AnswerKind::Status(status), .. }) => {
                self.servers.learn_all(&status.members);
                self.answer(now, id, Answer::Status(status), out);
            }
            ToClient::Coordinator(coordinator) => self.on_coordinator(now, &coordinator),
            ToClient::PathChallenge(token) => self.on_path_challenge(now, from, token, out),
            _ if !fresh => {}
            ToClient::AcceptConn(accept) => self.on_accept(now, accept),
            ToClient::RejectConn(reject) => self.on_reject(now, reject, out),
            ToClient::ResumeOk(resumed) => self.on_resumed(now, from, &resumed, out),
            _ if self.primary() != Some(from) => {}
            ToClient::SendAck(ack) => self.on_result(now, ack.seq, Ok(ack.op), out),
            ToClient::Error(refused) => self.on_error(now, refused, out),
            // The stream may overtake RESUME_OK: each step names its predecessor.
            ToClient::Delivered(delivered) if self.has_stream() => {
                self.inbox.on_delivered(now, delivered, out);
            }
            ToClient::Answer(answer) => self.on_answer(now, answer, out),
            // An item of a stream that is not open, or a packet of the link and of administrators.
            _ => {}
        }
    }

    /// A server sent a RETRY, so packets can be sent to it, if its claim is true. Sends what the state calls
    /// for: CONNECT, RESUME or KEEPALIVE. Never sends another HELLO: its RETRY would lead here again, in a
    /// loop.
    fn on_greeting(
        &mut self,
        now: Moment,
        from: SocketAddr,
        greeting: &Greeting,
        on_trial: bool,
        out: &mut Vec<Effect>,
    ) {
        for pending in self.queries.values_mut() {
            if matches!(pending.query, Query::Status { server } if server == from) {
                pending.again.at = now;
            }
        }
        let packet = match self.state {
            State::Connecting { nonce, .. } => {
                let connect = self.connect_packet(nonce);
                return self.servers.initiation(now, from, &connect, &mut self.start.entropy, out);
            }
            State::Resuming { .. } if self.primary() == Some(from) => self.resume_packet(),
            State::Resuming { .. } | State::Served => ToServer::keepalive(),
            State::Leaving { .. } | State::Over => return,
        };
        if on_trial {
            let packets = [packet, ToServer::Padding];
            self.servers.probe(now, from, greeting, self.view, &packets, out);
        }
    }

    /// A server is said to speak another version. That matters only while no primary serves the session.
    fn on_other_version(&mut self, now: Moment, server: SocketAddr, version: u8, out: &mut Vec<Effect>) {
        let searches = match self.state {
            State::Connecting { .. } | State::Resuming { .. } => true,
            State::Served => self.searching,
            State::Leaving { .. } | State::Over => false,
        };
        if searches && now.since(*self.other_version_since.get_or_insert(now)) >= OTHER_VERSION_AFTER {
            self.state = State::Over;
            out.push(Effect::Event(Event::OtherVersion { server, version }));
        }
    }

    /// A server asks for a proof of the client's address (as in QUIC's path validation) and does not answer
    /// packets before. So the RESUME or KEEPALIVE is sent again with the response.
    fn on_path_challenge(&mut self, now: Moment, from: SocketAddr, token: u64, out: &mut Vec<Effect>) {
        let packet = match self.state {
            State::Resuming { .. } if self.primary() == Some(from) => self.resume_packet(),
            _ => ToServer::keepalive(),
        };
        let packets = [ToServer::PathResponse(token), packet];
        self.servers.send(now, from, self.view, &packets, None, out);
    }

    fn on_coordinator(&mut self, now: Moment, coordinator: &Coordinator) {
        self.servers.learn_all(&coordinator.members);
        if coordinator.view > self.view {
            self.on_view(now, coordinator.view);
        }
    }

    /// A higher view is active: its primary is asked to resume the session.
    fn on_view(&mut self, now: Moment, view: View) {
        self.view = view;
        self.last_heard_before.get_or_insert(self.heard);
        if matches!(self.state, State::Served | State::Resuming { .. }) {
            self.state = State::Resuming { again: Again::now(now) };
        }
    }

    fn on_accept(&mut self, now: Moment, accept: AcceptConn) {
        if self.opened_by(accept.nonce) {
            // The session is already open; the primary may be new.
            return self.on_coordinator(now, &accept.coordinator);
        }
        let State::Connecting { nonce, .. } = self.state else { return };
        if accept.nonce != nonce || accept.coordinator.view < self.view {
            return;
        }
        self.servers.learn_all(&accept.coordinator.members);
        self.servers.open_session(now, accept.session, accept.secret);
        self.session = Some((accept.session, nonce));
        self.view = accept.coordinator.view;
        self.heard = now;
        self.keepalive_at = now;
        self.keepalive_wait = KEEPALIVE_FIRST;
        // The primary learns the client's address from the first datagram of the session.
        self.state = State::Resuming { again: Again::now(now) };
    }

    fn on_reject(&mut self, now: Moment, reject: RejectConn, out: &mut Vec<Effect>) {
        if self.opened_by(reject.nonce) {
            // Any other refusal of this CONNECT was sent before the session was admitted and arrives late,
            // for example the refusal of a name that could not be claimed yet.
            let over = [Code::SessionOver, Code::Fenced, Code::UnknownDevice, Code::NotYours];
            if over.contains(&reject.code) {
                self.on_over(now, reject.code, Duration::ZERO, out);
            }
            return;
        }
        let State::Connecting { nonce, mut again } = self.state else { return };
        if reject.nonce != nonce {
            return;
        }
        if outbox::passes(reject.code, 0) {
            let retry = now + retry_wait(reject.retry_ms);
            // After Busy the client keeps its own growing wait. After another refusal it asks again as soon
            // as the refusal says.
            again.at = if reject.code == Code::Busy { again.at.max(retry) } else { again.at.min(retry) };
            self.state = State::Connecting { nonce, again };
        } else {
            self.end(reject.code, out);
        }
    }

    fn on_resumed(&mut self, now: Moment, from: SocketAddr, resumed: &ResumeOk, out: &mut Vec<Effect>) {
        let view = resumed.coordinator.view;
        if !matches!(self.state, State::Resuming { .. }) || view != self.view || self.primary() != Some(from)
        {
            return;
        }
        let Some((session, _)) = self.session else { return };
        // The ops of another log mean nothing to this client, and its own would mean nothing there.
        let Some(remembered) = resumed.cursor.op() else { return self.end(Code::OtherEpoch, out) };
        let pause = now.since(self.last_heard_before.unwrap_or(self.heard));
        if !self.connected {
            let (born, last_seq) = (resumed.created_op, resumed.last_seq);
            // The device was removed and admitted again. To the service it is another device, and the results
            // of the former one were dropped. Requests that the former one left unanswered may have been
            // applied.
            let anew = self.start.created_op.is_some_and(|before| before != born);
            let set_back = self.answered_before().filter(|answered| *answered > last_seq && !anew);
            if set_back.is_some() && self.start.cursor.is_some_and(|cursor| cursor > remembered) {
                // The cursor belongs to the log before the servers were restored. Their log has other
                // notifications at these ops.
                self.refused_cursor = self.start.cursor.take();
                self.state = State::Resuming { again: Again::now(now) };
                return;
            }
            self.connected = true;
            let cursor = self.start.cursor.unwrap_or(remembered);
            self.inbox.begin(cursor);
            let lost = self.refused_cursor;
            let members = resumed.coordinator.members.iter().map(|(_, address)| *address).collect();
            let connected = Event::Connected {
                session,
                view,
                primary: from,
                created_op: born,
                last_seq,
                cursor,
                lost,
                members,
            };
            out.push(Effect::Event(connected));
            if let Some(answered) = set_back {
                out.push(Effect::Event(Event::ServersSetBack { answered, last: last_seq }));
            }
            if anew {
                self.outbox.forget(self.start.outbox.iter().map(|of| of.seq), out);
            } else {
                self.tell_of_copies(resumed, remembered, out);
            }
            self.outbox.begin(now, last_seq, out);
        } else if view != self.served_by {
            out.push(Effect::Event(Event::PrimaryChanged { view, primary: from, pause }));
        } else if self.searching {
            out.push(Effect::Event(Event::PrimaryFound { primary: from, pause }));
        }
        let told = resumed.keepalive_ms.clamp(*KEEPALIVE_TOLD.start(), *KEEPALIVE_TOLD.end());
        self.keepalive_every = Duration::from_millis(told.into());
        self.served_by = view;
        self.state = State::Served;
        self.searching = false;
        self.heard = now;
        self.last_heard_before = None;
        self.backoff = Backoff::none();
        self.outbox.send_all(now);
        self.inbox.resume(now);
    }

    /// The highest number that an earlier run of the device had an answer to. The service has applied it,
    /// unless it has lost it.
    fn answered_before(&self) -> Option<Seq> {
        let unanswered = |seq: &u64| self.start.outbox.iter().any(|of| of.seq.0 == *seq);
        let answered = (1..=self.start.highest_seq.0).rev().find(|seq| !unanswered(seq));
        answered.map(Seq).filter(|_| self.start.created_op.is_some())
    }

    fn tell_of_copies(&self, resumed: &ResumeOk, remembered: Op, out: &mut Vec<Effect>) {
        let (given, last) = (self.start.highest_seq, resumed.last_seq);
        if last > given {
            out.push(Effect::Event(Event::Copied(CopySign::Numbers { given, last })));
        }
        // A device's cursor begins at the op that admitted it, before anything is read.
        let read = |here: &Op| remembered > *here && remembered > resumed.created_op;
        let behind = |here: &Op| self.start.receives && read(here);
        if let Some(here) = self.start.cursor.filter(behind) {
            out.push(Effect::Event(Event::Copied(CopySign::Cursor { here, read: remembered })));
        }
    }

    /// A numbered request has its result, or another request has its number.
    fn on_result(&mut self, now: Moment, seq: Seq, result: Result<Op, Code>, out: &mut Vec<Effect>) {
        if self.outbox.rank(seq).is_some() {
            self.backoff.answered(now);
        }
        if result == Err(Code::NumberTaken) {
            self.outbox.on_number_taken(now, seq, out);
        } else {
            self.outbox.answered(now, seq, result, out);
        }
    }

    fn on_error(&mut self, now: Moment, refused: Refused, out: &mut Vec<Effect>) {
        let wait = retry_wait(refused.retry_ms);
        match refused.answers {
            Answers::Request(seq) if outbox::passes(refused.code, refused.retry_ms) => {
                let (noise, place) = (self.draw(), self.outbox.rank(seq));
                match (place, refused.code) {
                    (None, _) => {}
                    (Some(place), Code::TooFarAhead) => {
                        self.backoff.too_far(place);
                        self.outbox.refused(seq, now + wait);
                    }
                    (Some(place), _) => {
                        self.backoff.refused(now, place, wait, noise);
                        self.outbox.refused(seq, now);
                    }
                }
            }
            Answers::Request(seq) => self.on_result(now, seq, Err(refused.code), out),
            Answers::Query(id) if outbox::passes(refused.code, refused.retry_ms) => {
                let (noise, place) = (self.draw(), self.place(id));
                if let (Some(pending), Some(place)) = (self.queries.get_mut(&id), place) {
                    self.backoff.refused(now, place, wait, noise);
                    (pending.again, pending.put_off_upto) = (Again::now(now), now);
                }
            }
            Answers::Query(id) => self.answer(now, id, Answer::Refused(refused.code), out),
            // The primary does not serve the session for now, because its place went to another session or
            // none is free. RESUME is sent again after the wait.
            Answers::Session if outbox::passes(refused.code, refused.retry_ms) => {
                if matches!(self.state, State::Served) {
                    self.state = State::Resuming { again: Again { at: now + wait, wait: ASK_AGAIN_MIN } };
                }
            }
            // Before anything was handed out, the stream may begin at another op. Later, its notifications
            // would be taken for those of another history.
            Answers::Session
                if matches!(refused.code, Code::BeyondEnd | Code::OtherEpoch) && !self.connected =>
            {
                // A refusal that comes again finds no cursor, and is no reason to ask before the wait is
                // over.
                if matches!(self.state, State::Resuming { .. })
                    && let Some(cursor) = self.start.cursor.take()
                {
                    self.refused_cursor = Some(cursor);
                    self.state = State::Resuming { again: Again::now(now) };
                }
            }
            Answers::Session if matches!(self.state, State::Leaving { .. }) => {
                self.state = State::Over;
                out.push(Effect::Event(Event::Disconnected));
            }
            Answers::Session => self.on_over(now, refused.code, wait, out),
        }
    }

    /// The session is over. If it was never confirmed, it was confirmed too late, or another CONNECT of this
    /// device came after it; then another session is asked for. The waits grow, because two copies of a
    /// device that start at the same time would otherwise end each other's sessions for ever. Of servers that
    /// do not support what this client asks of a session, another session would be refused as well.
    fn on_over(&mut self, now: Moment, code: Code, wait: Duration, out: &mut Vec<Effect>) {
        if self.connected || self.session.is_some() && code == Code::Unsupported {
            self.end(code, out);
        } else if self.session.take().is_some() {
            let more = ASK_AGAIN_MIN * (1 << self.unserved.min(4));
            let drawn = Duration::from_micros(self.draw() % more.as_micros().max(1) as u64);
            let wait = if self.unserved == 0 { wait } else { wait + drawn };
            self.unserved += 1;
            let again = Again { at: now + wait, wait: ASK_AGAIN_MIN };
            self.state = State::Connecting { nonce: self.draw(), again };
        }
    }

    fn on_disconnect(&mut self, now: Moment, out: &mut Vec<Effect>) {
        match self.state {
            State::Served | State::Resuming { .. } if self.connected => {
                self.state = State::Leaving { again: Again::now(now), sent: 0 };
            }
            // A session that was never served needs no DISCONNECT: it lapses by itself.
            State::Connecting { .. } | State::Served | State::Resuming { .. } => {
                self.state = State::Over;
                out.push(Effect::Event(Event::Disconnected));
            }
            State::Leaving { .. } | State::Over => {}
        }
    }

    fn end(&mut self, code: Code, out: &mut Vec<Effect>) {
        self.state = State::Over;
        out.push(Effect::Event(Event::Ended(code)));
    }

    // ---- helpers

    /// Returns true if the stream may be arriving and its beginning is known.
    fn has_stream(&self) -> bool {
        self.connected && matches!(self.state, State::Served | State::Resuming { .. })
    }

    /// The address of the primary of the highest view, if it is known.
    fn primary(&self) -> Option<SocketAddr> {
        self.servers.address_of(self.view.primary()?)
    }

    fn draw(&mut self) -> u64 {
        self.start.entropy.number()
    }
}
