//! The client machine: finds the primary, keeps a session through failovers, numbers requests and
//! re-sends them until they are answered, and hands out notifications once and in order.
//!
//! Pure: `handle(now, input, &mut effects)` and `next_deadline()`.

mod backoff;
pub mod door;
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

use crate::config::PlantedBug;
use crate::entropy::Entropy;
use crate::id::{DeviceId, Moment, Name, Op, Seq, SessionId, Topic, View};
use crate::wire::envelope::{Class, Opened};
use crate::wire::packet::{
    AcceptConn, Answers, ChannelChange, Code, CodeHash, Connect, Content, Coordinator, Disconnect,
    FollowChange, History, HistoryOk, HistoryRange, Info, KeyChange, List, ListOk, Listing, Notification,
    Packet, QueryId, Refused, RejectConn, RequestUserInfo, Resume, ResumeOk, StatusOk,
};

use backoff::Backoff;
use door::{Greeting, Identity};
use inbox::Inbox;
use outbox::Outbox;
use server::{Received, Servers};

/// What a client machine is told at its birth.
#[derive(Clone, Debug)]
pub struct Start {
    /// Addresses of servers; any one is enough.
    pub servers: Vec<SocketAddr>,
    /// Which cluster, and as whom: the device's key is the public half of its private one.
    pub identity: Identity,
    /// The device.
    pub device: DeviceId,
    /// The op that let the device in, as its files say; none: it never was.
    pub born: Option<Op>,
    /// The profile.
    pub profile: Name,
    /// What adds the device's key to the profile's, if it is to be enrolled.
    pub code: Option<CodeHash>,
    /// Of an invitation, for a name that nobody has yet.
    pub invite: Option<CodeHash>,
    /// Whether it receives.
    pub receives: bool,
    /// Where the application stands, if it knows.
    pub cursor: Option<Op>,
    /// Requests taken over from an earlier life of this device, ascending by number.
    pub outbox: Vec<Numbered>,
    /// The highest number that the device's files know of: given here, or told by the service.
    pub given: Seq,
    /// Keys, nonces and jitter are drawn from it: seeded in secret and at random.
    pub entropy: Entropy,
    /// For the simulator only.
    pub planted: PlantedBug,
}

/// A numbered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Start or stop following.
    Follow {
        /// What.
        topic: Topic,
        /// Which of the two.
        change: FollowChange,
    },
    /// Notify a topic's followers; none: one's own.
    Send {
        /// Where to.
        topic: Option<Topic>,
        /// What.
        content: Content,
    },
    /// Make an owned channel, change its members, or delete it.
    Channel {
        /// Which one.
        channel: Name,
        /// What to do.
        change: ChannelChange,
    },
    /// Open an enrolment of a further key of the profile, or revoke one.
    Keys {
        /// What to do.
        change: KeyChange,
    },
}

/// A request with its number, as it is to outlive the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Its number.
    pub seq: Seq,
    /// Tells it from every other request of this number: see [`Send::nonce`](crate::wire::packet::Send::nonce).
    pub nonce: u64,
    /// What is asked.
    pub ask: Ask,
}

/// A sign that there is, or was, a copy of the device's files: that one, or this one, is out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopySign {
    /// The device has used numbers that these files know nothing of.
    Numbers {
        /// The highest that they know of.
        given: Seq,
        /// The last one applied.
        last: Seq,
    },
    /// The device has read further than these files say: what lies between is handed out again.
    Cursor {
        /// Where they stand.
        here: Op,
        /// Where the servers remember the device.
        read: Op,
    },
}

/// A question; it takes no number and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A page of notifications.
    History {
        /// Of which topic; none: all one follows.
        topic: Option<Topic>,
        /// Where.
        range: HistoryRange,
        /// How many.
        limit: u32,
    },
    /// A page of a list.
    List {
        /// Which.
        what: Listing,
        /// After which item.
        after: Option<String>,
    },
    /// About a profile; none: oneself.
    Info {
        /// Whom.
        profile: Option<Name>,
    },
    /// How the server at this address is. Needs no session.
    Status {
        /// Which server.
        server: SocketAddr,
    },
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To History.
    History(HistoryOk),
    /// To List.
    List(ListOk),
    /// To Info.
    Info(Info),
    /// To Status.
    Status(StatusOk),
    /// Refused.
    Refused(Code),
}

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A datagram came.
    Datagram {
        /// From where.
        from: SocketAddr,
        /// Its bytes, not to be trusted.
        bytes: Vec<u8>,
    },
    /// The port of a server refused what was sent: its process is gone.
    PortRefused(SocketAddr),
    /// The application asks. [`Event::Numbered`] gives the number at once, or [`Event::NotTaken`] says that
    /// there is none. Before the first [`Event::Connected`] numbers go on from [`Start::given`].
    Ask(Ask),
    /// The application asks a question, under an id of its choice.
    Question(QueryId, Question),
    /// The application no longer waits for the answer to a question.
    GiveUp(QueryId),
    /// The application has taken everything up to here (at-least-once); moves the cursor.
    Taken(Op),
    /// End the session.
    Disconnect,
    /// A deadline may have passed.
    Deadline,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes to a server.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Tell the application.
    Event(Event),
}

/// What the application is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session is confirmed and served.
    Connected {
        /// Its id.
        session: SessionId,
        /// Which view serves it.
        view: View,
        /// The primary's address.
        primary: SocketAddr,
        /// The op that let the device in.
        born: Op,
        /// The last number the service has applied of this device.
        last_seq: Seq,
        /// Where the stream goes on.
        cursor: Op,
        /// Where the device stood as far as it knew, if that is no place in the servers' log: they were
        /// restored from an older copy, or it was told wrongly. `cursor` is then what they remember.
        lost: Option<Op>,
        /// Where all servers are.
        members: Vec<SocketAddr>,
    },
    /// Another server serves the session now, or the same one in a new view.
    PrimaryChanged {
        /// In which view.
        view: View,
        /// Where.
        primary: SocketAddr,
        /// From the last word of the old to the first of the new.
        pause: Duration,
    },
    /// After [`Event::Searching`] the session is served again as before.
    PrimaryFound {
        /// Where.
        primary: SocketAddr,
        /// From its last word before the silence to its first after it.
        pause: Duration,
    },
    /// Nothing has been heard of the primary for a while; it is being looked for.
    Searching,
    /// The session ended, or was never let in, for good.
    Ended(Code),
    /// The session ended because the application asked.
    Disconnected,
    /// Told after [`Event::Connected`], once for each sign.
    Copied(CopySign),
    /// Told after [`Event::Connected`]: the servers have lost requests that they had answered. They were
    /// restored from an older copy.
    ServersSetBack {
        /// The highest number that was answered.
        answered: Seq,
        /// The last one that they have applied.
        last: Seq,
    },
    /// What [`Input::Ask`] just asked has this number.
    Numbered {
        /// Its number.
        seq: Seq,
        /// What it will be known by: see [`Numbered`].
        nonce: u64,
    },
    /// Requests have other numbers from now on, each pair (before, now) ascending: another request has the
    /// number of one of them, or the servers were restored. None of them was ever applied before.
    Renumbered(Vec<(Seq, Seq)>),
    /// No room for another request: this one was not taken (see [`Machine::has_room`]).
    NotTaken,
    /// A numbered request has its result.
    Answered {
        /// Which.
        seq: Seq,
        /// The op, or the refusal; with [`Code::NumberForgotten`] nobody knows any more what became of it,
        /// and it is not sent again.
        result: Result<Op, Code>,
    },
    /// The answer to a question.
    Answer(QueryId, Answer),
    /// The next notification of the stream.
    Notification(Arc<Notification>),
    /// Notifications up to here were dropped by retention before they were read.
    Gap {
        /// The cursor before.
        after: Op,
        /// The cursor now.
        upto: Op,
    },
}

/// Between two keepalives to each server: what a primary needs to find the client again soon. Home routers
/// keep a UDP mapping for longer (RFC 4787 section 4.3), so that behind NAT nothing else is needed
/// (DESIGN.md section 3).
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);

/// A new session's keepalives begin so close together, each wait twice the one before: a backup knows a
/// session a little later than the primary, and must know where its client is before it is needed.
const KEEPALIVE_FIRST: Duration = Duration::from_millis(50);

/// With something outstanding and nothing heard of the primary for so long, all servers are asked
/// (DESIGN.md section 3).
const QUIET: Duration = Duration::from_millis(300);

/// With nothing outstanding, a primary may be silent for two keepalives.
const QUIET_IDLE: Duration = Duration::from_millis(4_500);

/// Servers that are there, but not on the session, are asked whether it still is: after a silence that no
/// election lasts ...
const DOUBT: Duration = Duration::from_secs(3);

/// ... and not more often than this, for it costs each a handshake, and the primary an entry in its log.
const DOUBT_EVERY: Duration = Duration::from_secs(5);

/// What was refused for a passing reason is tried again within these, whatever the server says: no
/// sooner than a round trip of any use, no later than a new primary takes.
const RETRY: std::ops::RangeInclusive<u64> = 10..=1_000;

/// How long what was refused for a passing reason waits.
fn retry_wait(retry_ms: u32) -> Duration {
    Duration::from_millis(u64::from(retry_ms).clamp(*RETRY.start(), *RETRY.end()))
}

/// A refused port asks all servers at once, but not more often than this.
const REFUSED_EVERY: Duration = Duration::from_millis(20);

/// CONNECT, RESUME, DISCONNECT and questions are sent again after this, and half as much more each
/// time ...
const ASK_AGAIN_MIN: Duration = Duration::from_millis(100);

/// ... up to this.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// DISCONNECTs sent before the session is left to time out.
const DISCONNECTS_MAX: u32 = 3;

/// Questions under way at once; more get [`Code::Busy`].
const QUESTIONS_MAX: usize = 64;

/// When something goes again, and how long it waits then.
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
    /// CONNECT is under way.
    Connecting { nonce: u64, again: Again },
    /// The session is in the log; RESUME to the primary of the highest view is under way. The first
    /// one confirms it.
    Resuming { again: Again },
    /// The primary serves the session.
    Served,
    /// DISCONNECT is under way.
    Leaving { again: Again, sent: u32 },
    /// For good.
    Over,
}

#[derive(Debug)]
struct Asked {
    question: Question,
    again: Again,
}

impl Asked {
    /// Any server answers it, with a session or without.
    fn is_status(&self) -> bool {
        matches!(self.question, Question::Status { .. })
    }
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    start: Start,
    state: State,
    servers: Servers,
    /// The highest active view heard of.
    view: View,
    /// The view that served the session last.
    served_by: View,
    /// The session, and the nonce of the CONNECT that opened it.
    session: Option<(SessionId, u64)>,
    /// Whether the session was served once: numbers and stream begin only then, because an older
    /// session of the device may have gone on until that moment.
    connected: bool,
    /// The cursor that the servers refused: see [`Event::Connected`].
    lost: Option<Op>,
    /// Sessions in a row that were over before they were served.
    unserved: u32,
    outbox: Outbox,
    inbox: Inbox,
    questions: BTreeMap<QueryId, Asked>,
    /// Of what the primary is asked on the session.
    backoff: Backoff,
    /// When the primary that serves, or should, was last heard.
    heard: Moment,
    /// The last word of the primary that served before the view changed.
    last_word: Option<Moment>,
    searched: Moment,
    searching: bool,
    /// When it was last asked whether the session still is.
    doubted: Moment,
    /// Since when something is expected of the primary; none: it owes nothing.
    owed_since: Option<Moment>,
    keepalive_at: Moment,
    keepalive_wait: Duration,
}

impl Machine {
    /// Starts to look for the primary.
    pub fn new(now: Moment, mut start: Start, out: &mut Vec<Effect>) -> Machine {
        let outbox = Outbox::new(start.outbox.iter().cloned(), start.given);
        let mut machine = Machine {
            servers: Servers::new(&start.servers, start.identity.clone()),
            inbox: Inbox::new(start.receives, start.planted),
            state: State::Connecting { nonce: start.entropy.number(), again: Again::now(now) },
            view: View::ZERO,
            served_by: View::ZERO,
            session: None,
            connected: false,
            lost: None,
            unserved: 0,
            outbox,
            questions: BTreeMap::new(),
            backoff: Backoff::none(),
            heard: now,
            last_word: None,
            searched: now,
            searching: false,
            doubted: Moment(0),
            owed_since: None,
            keepalive_at: now,
            keepalive_wait: KEEPALIVE_FIRST,
            start,
        };
        machine.on_time(now, out);
        machine
    }

    /// Takes one input at `now`, pushing what is to be done.
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Datagram { from, bytes } => self.on_datagram(now, from, &bytes, out),
            Input::PortRefused(server) => self.on_port_refused(now, server, out),
            Input::Ask(ask) => {
                let nonce = self.start.entropy.number();
                self.outbox.ask(now, ask, nonce, out);
            }
            Input::Question(query, question) => self.on_question(now, query, question, out),
            Input::GiveUp(query) => drop(self.questions.remove(&query)),
            Input::Taken(op) => self.inbox.taken(now, op),
            Input::Disconnect => self.on_disconnect(now, out),
            Input::Deadline => {}
        }
        self.on_time(now, out);
    }

    /// Whether another [`Input::Ask`] would be taken now: 256 numbers, from the lowest without an
    /// answer on, are what the service keeps results of.
    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// When a [`Input::Deadline`] is wanted at the latest.
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
                // What has nowhere to go, or no room on the link, waits for an ack or the link's timer.
                if let Some(primary) = self.primary() {
                    self.inbox.next_deadline().into_iter().for_each(&mut at);
                    let room = self.servers.room(primary) > 0;
                    let due = self.outbox.next_deadline(self.backoff.window()).filter(|_| room);
                    due.map(|due| self.backoff.earliest(due)).into_iter().for_each(&mut at);
                    let asked = self.questions.values().filter(|asked| !asked.is_status());
                    asked
                        .take(self.backoff.window())
                        .for_each(|asked| at(self.backoff.earliest(asked.again.at)));
                }
            }
        }
        self.questions.values().filter(|asked| asked.is_status()).for_each(|asked| at(asked.again.at));
        self.servers.next_deadline().into_iter().for_each(&mut at);
        next
    }

    // ---- what time brings about

    fn on_time(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.servers.on_deadline(now);
        for lost in self.servers.lost() {
            self.outbox.lost(now, lost);
        }
        if self.owes(now) {
            self.owed_since.get_or_insert(now);
        } else {
            self.owed_since = None;
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
        self.send_questions(now, out);
    }

    fn connect(&mut self, now: Moment, nonce: u64, mut again: Again, out: &mut Vec<Effect>) {
        let connect = self.connect_packet(nonce);
        for server in self.servers.addresses() {
            self.servers.knock(now, server, &connect, &mut self.start.entropy, out);
        }
        again.sent(now, self.draw());
        self.state = State::Connecting { nonce, again };
    }

    /// Who has a session is known there, and is not let in again as somebody new if it is not: what answers the
    /// session's own CONNECT opens no other. Who comes in with a code is to be let in, also where it was in
    /// before and was removed.
    fn connect_packet(&self, nonce: u64) -> Packet {
        let newcomer = self.session.is_none();
        Packet::Connect(Connect {
            device: self.start.device,
            profile: self.start.profile.clone(),
            receives: self.start.receives,
            nonce,
            fresh: newcomer && (self.start.born.is_none() || self.start.code.is_some()),
            code: self.start.code.filter(|_| newcomer),
            invite: self.start.invite.filter(|_| newcomer),
        })
    }

    fn resume(&mut self, now: Moment, mut again: Again, out: &mut Vec<Effect>) {
        if let Some(primary) = self.primary() {
            let packets = [self.resume_packet(), Packet::padding()];
            self.servers.send(now, primary, self.view, &packets, None, out);
            // It may have begun another life since it was last heard, and would not understand that.
            self.servers.hello(primary, &mut self.start.entropy, out);
        }
        again.sent(now, self.draw());
        self.state = State::Resuming { again };
    }

    fn resume_packet(&self) -> Packet {
        let cursor = if self.connected { Some(self.inbox.received()) } else { self.start.cursor };
        Packet::Resume(Resume { cursor, credit: self.inbox.credit() })
    }

    fn leave(&mut self, now: Moment, mut again: Again, sent: u32, out: &mut Vec<Effect>) {
        if sent >= DISCONNECTS_MAX {
            self.state = State::Over;
            return out.push(Effect::Event(Event::Disconnected));
        }
        match self.primary() {
            Some(primary) => {
                let last = Packet::Disconnect(Disconnect { upto: self.inbox.ack().upto });
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
            self.keepalive_wait = (2 * self.keepalive_wait).min(KEEPALIVE_EVERY);
        }
    }

    /// KEEPALIVE to every server: each answers with the active view that it knows, and knows from
    /// now on where this client is. The one that serves is told again what was taken: the last
    /// CLIENT_ACK may be lost, and a primary without credit sends nothing that would ask for another.
    fn ask_all(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.keepalive_at = now + KEEPALIVE_EVERY;
        let serving = self.primary().filter(|_| matches!(self.state, State::Served));
        for server in self.servers.addresses() {
            let mut packets = vec![Packet::Keepalive, Packet::padding()];
            if serving == Some(server) && self.inbox.receives() {
                packets.push(Packet::ClientAck(self.inbox.ack()));
            }
            self.servers.send(now, server, self.view, &packets, None, out);
            self.servers.check_life(server, &mut self.start.entropy, out);
        }
    }

    /// Whether the primary owes an answer: not while it has told to wait.
    fn owes(&self, now: Moment) -> bool {
        let asks = !self.outbox.is_empty() || self.questions.values().any(|asked| !asked.is_status());
        asks && !self.backoff.waits(now) || matches!(self.state, State::Resuming { .. })
    }

    /// When a primary that was not heard is to be looked for.
    fn search_at(&self) -> Moment {
        let quiet_at = match self.owed_since {
            Some(since) => (self.heard.max(since) + QUIET).min(self.heard + QUIET_IDLE),
            None => self.heard + QUIET_IDLE,
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
            self.last_word.get_or_insert(self.heard);
            if self.connected {
                out.push(Effect::Event(Event::Searching));
            }
        }
        self.ask_all(now, out);
    }

    /// The servers are there, and nothing they say on the session has opened for long: it may be over,
    /// which is said once, to whoever hears it. Its own CONNECT is answered with the same session, or with
    /// why there is none.
    fn doubt(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some((_, nonce)) = self.session else { return };
        let serves = matches!(self.state, State::Served | State::Resuming { .. });
        if serves && now.since(self.heard) >= DOUBT && now.since(self.doubted) >= DOUBT_EVERY {
            self.doubted = now;
            let connect = self.connect_packet(nonce);
            for server in self.servers.addresses() {
                self.servers.knock(now, server, &connect, &mut self.start.entropy, out);
            }
        }
    }

    /// Whether the CONNECT of this nonce opened the session there is.
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
            let Some((token, packet)) = self.outbox.next_due(now, rto, window) else { return };
            self.servers.send(now, primary, self.view, &[packet], Some(token), out);
        }
    }

    fn send_ack(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(primary) = self.primary() else { return };
        if self.inbox.ack_due(now) || self.servers.owes_ack(primary) {
            let ack = Packet::ClientAck(self.inbox.ack());
            self.servers.send(now, primary, self.view, &[ack], None, out);
        }
    }

    // ---- questions

    fn on_question(&mut self, now: Moment, query: QueryId, question: Question, out: &mut Vec<Effect>) {
        if self.questions.len() >= QUESTIONS_MAX || matches!(self.state, State::Over) {
            return out.push(Effect::Event(Event::Answer(query, Answer::Refused(Code::Busy))));
        }
        if let Question::Status { server } = question {
            self.servers.learn(server);
        }
        self.questions.insert(query, Asked { question, again: Again::now(now) });
    }

    /// All but STATUS need a primary that serves, and is not to be left alone for now.
    fn send_questions(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let serves = matches!(self.state, State::Served) && !self.backoff.waits(now);
        let primary = self.primary().filter(|_| serves);
        let mut window = self.backoff.window();
        let mut noise = self.draw();
        for (query, asked) in &mut self.questions {
            if !asked.is_status() {
                if window == 0 {
                    continue;
                }
                window -= 1;
            }
            if !asked.again.due(now) {
                continue;
            }
            let query = *query;
            let packet = match asked.question.clone() {
                Question::Status { server } => {
                    let status = Packet::Status(query);
                    if self.servers.has_path(server) {
                        self.servers.send(now, server, self.view, &[status], None, out);
                    } else {
                        self.servers.knock(now, server, &status, &mut self.start.entropy, out);
                    }
                    asked.again.sent(now, noise);
                    continue;
                }
                Question::History { topic, range, limit } => {
                    Packet::History(History { query, topic, range, limit })
                }
                Question::List { what, after } => Packet::List(List { query, what, after }),
                Question::Info { profile } => Packet::RequestUserInfo(RequestUserInfo { query, profile }),
            };
            if let Some(primary) = primary {
                noise = noise.rotate_left(7);
                self.servers.send(now, primary, self.view, &[packet], None, out);
                asked.again.sent(now, noise);
            }
        }
    }

    fn answer(&mut self, now: Moment, query: QueryId, answer: Answer, out: &mut Vec<Effect>) {
        if let Some(asked) = self.questions.remove(&query) {
            if !asked.is_status() {
                self.backoff.answered(now);
            }
            out.push(Effect::Event(Event::Answer(query, answer)));
        }
    }

    /// How many older questions wait for an answer of the primary; none if this one does not.
    fn place(&self, query: QueryId) -> Option<usize> {
        let older = self.questions.range(..query).filter(|(_, asked)| !asked.is_status());
        self.questions.contains_key(&query).then(|| older.count())
    }

    // ---- what comes

    fn on_datagram(&mut self, now: Moment, from: SocketAddr, bytes: &[u8], out: &mut Vec<Effect>) {
        // What is not from a server of this cluster, or is damaged, is as good as lost.
        let Opened { envelope, header, packets } = match self.servers.receive(now, from, bytes) {
            None => return,
            Some(Received::Greeting { greeting, on_trial }) => {
                self.on_greeting(now, from, &greeting, on_trial, out);
                return self.doubt(now, out);
            }
            Some(Received::Opened(opened)) => opened,
        };
        let fresh = header.view >= self.view;
        if header.view > self.view {
            self.on_view(now, header.view);
        }
        if fresh && self.primary() == Some(from) && envelope.class == Class::Client {
            self.heard = now;
            // Back after a silence: it may have forgotten the stream meanwhile.
            if self.searching && matches!(self.state, State::Served) {
                self.state = State::Resuming { again: Again::now(now) };
            }
        }
        for packet in packets {
            if let Some(whole) = self.servers.whole(now, from, packet) {
                self.on_packet(now, from, fresh, whole, out);
            }
        }
    }

    /// One packet. What a server says that knows only a lower view is ignored, but for its status.
    fn on_packet(
        &mut self,
        now: Moment,
        from: SocketAddr,
        fresh: bool,
        packet: Packet,
        out: &mut Vec<Effect>,
    ) {
        match packet {
            Packet::StatusOk(status) => {
                self.servers.learn_all(&status.members);
                self.answer(now, status.query, Answer::Status(status), out);
            }
            Packet::Coordinator(coordinator) => self.on_coordinator(now, &coordinator),
            Packet::PathChallenge(token) => self.on_path_challenge(now, from, token, out),
            _ if !fresh => {}
            Packet::AcceptConn(accept) => self.on_accept(now, accept),
            Packet::RejectConn(reject) => self.on_reject(now, reject, out),
            Packet::ResumeOk(resumed) => self.on_resumed(now, from, &resumed, out),
            _ if self.primary() != Some(from) => {}
            Packet::SendAck(ack) => self.on_result(now, ack.seq, Ok(ack.op), out),
            Packet::Error(refused) => self.on_error(now, refused, out),
            // Also what overtook RESUME_OK: each step says what it follows.
            Packet::Notification(delivered) if self.has_stream() => {
                self.inbox.on_notification(now, delivered, out);
            }
            Packet::Gap(gap) if self.has_stream() => self.inbox.on_gap(now, gap, out),
            Packet::HistoryOk(page) => self.answer(now, page.query, Answer::History(page), out),
            Packet::ListOk(page) => self.answer(now, page.query, Answer::List(page), out),
            Packet::Info(info) => self.answer(now, info.query, Answer::Info(info), out),
            // The rest is not for a client.
            _ => {}
        }
    }

    /// A server can be spoken to, if it is who it says: it is asked what it is wanted for. Never with another
    /// HELLO, whose answer would be a greeting again.
    fn on_greeting(
        &mut self,
        now: Moment,
        from: SocketAddr,
        greeting: &Greeting,
        on_trial: bool,
        out: &mut Vec<Effect>,
    ) {
        for asked in self.questions.values_mut() {
            if matches!(asked.question, Question::Status { server } if server == from) {
                asked.again.at = now;
            }
        }
        let question = match self.state {
            State::Connecting { nonce, .. } => {
                let connect = self.connect_packet(nonce);
                return self.servers.knock(now, from, &connect, &mut self.start.entropy, out);
            }
            State::Resuming { .. } if self.primary() == Some(from) => self.resume_packet(),
            State::Resuming { .. } | State::Served => Packet::Keepalive,
            State::Leaving { .. } | State::Over => return,
        };
        if on_trial {
            let packets = [question, Packet::padding()];
            self.servers.probe(now, from, greeting, self.view, &packets, out);
        }
    }

    /// A server asks whether this is where the client is, and says nothing else before it knows: so
    /// what it was asked is asked again with the answer.
    fn on_path_challenge(&mut self, now: Moment, from: SocketAddr, token: u64, out: &mut Vec<Effect>) {
        let question = match self.state {
            State::Resuming { .. } if self.primary() == Some(from) => self.resume_packet(),
            _ => Packet::Keepalive,
        };
        let packets = [Packet::PathResponse(token), question];
        self.servers.send(now, from, self.view, &packets, None, out);
    }

    fn on_coordinator(&mut self, now: Moment, coordinator: &Coordinator) {
        self.servers.learn_all(&coordinator.members);
        if coordinator.view > self.view {
            self.on_view(now, coordinator.view);
        }
    }

    /// A higher view is active: its primary is asked to go on with the session.
    fn on_view(&mut self, now: Moment, view: View) {
        self.view = view;
        self.last_word.get_or_insert(self.heard);
        if matches!(self.state, State::Served | State::Resuming { .. }) {
            self.state = State::Resuming { again: Again::now(now) };
        }
    }

    fn on_accept(&mut self, now: Moment, accept: AcceptConn) {
        if self.opened_by(accept.nonce) {
            // The session is as it was, and this may be news of its primary.
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
        // The primary learns where this client is by the first datagram of the session.
        self.state = State::Resuming { again: Again::now(now) };
    }

    fn on_reject(&mut self, now: Moment, reject: RejectConn, out: &mut Vec<Effect>) {
        if self.opened_by(reject.nonce) {
            // Whatever else was said of this CONNECT was said before it was let in, and comes late: of a name that
            // was not to be claimed yet.
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
        if outbox::passes(reject.code) {
            let retry = now + retry_wait(reject.retry_ms);
            // Who is told that too many ask goes on waiting longer each time.
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
        let pause = now.since(self.last_word.unwrap_or(self.heard));
        if !self.connected {
            let (born, last_seq) = (resumed.born, resumed.last_seq);
            // It was removed and let in again: another device to the service, which has dropped the results of
            // the former one. What that left unanswered may have been done.
            let anew = self.start.born.is_some_and(|before| before != born);
            let set_back = self.answered_before().filter(|answered| *answered > last_seq && !anew);
            if set_back.is_some() && self.start.cursor.is_some_and(|cursor| cursor > resumed.cursor) {
                // Of the log that they had before: this one has other notifications there.
                self.lost = self.start.cursor.take();
                self.state = State::Resuming { again: Again::now(now) };
                return;
            }
            self.connected = true;
            let cursor = self.start.cursor.unwrap_or(resumed.cursor);
            self.inbox.begin(cursor);
            let lost = self.lost;
            let members = resumed.coordinator.members.iter().map(|(_, address)| *address).collect();
            let connected =
                Event::Connected { session, view, primary: from, born, last_seq, cursor, lost, members };
            out.push(Effect::Event(connected));
            if let Some(answered) = set_back {
                out.push(Effect::Event(Event::ServersSetBack { answered, last: last_seq }));
            }
            if anew {
                self.outbox.forget(self.start.outbox.iter().map(|of| of.seq), out);
            } else {
                self.tell_of_copies(resumed, out);
            }
            self.outbox.begin(now, last_seq, out);
        } else if view != self.served_by {
            out.push(Effect::Event(Event::PrimaryChanged { view, primary: from, pause }));
        } else if self.searching {
            out.push(Effect::Event(Event::PrimaryFound { primary: from, pause }));
        }
        self.served_by = view;
        self.state = State::Served;
        self.searching = false;
        self.heard = now;
        self.last_word = None;
        self.backoff = Backoff::none();
        self.outbox.send_all(now);
        self.inbox.resume(now);
    }

    /// The highest number that an earlier life of the device had an answer to: the service has applied it,
    /// unless it has lost it.
    fn answered_before(&self) -> Option<Seq> {
        let unanswered = |seq: &u64| self.start.outbox.iter().any(|of| of.seq.0 == *seq);
        let answered = (1..=self.start.given.0).rev().find(|seq| !unanswered(seq));
        answered.map(Seq).filter(|_| self.start.born.is_some())
    }

    fn tell_of_copies(&self, resumed: &ResumeOk, out: &mut Vec<Effect>) {
        let (given, last) = (self.start.given, resumed.last_seq);
        if last > given {
            out.push(Effect::Event(Event::Copied(CopySign::Numbers { given, last })));
        }
        // A device's cursor begins where it was let in, without anything being read.
        let read = |here: &Op| resumed.cursor > *here && resumed.cursor > resumed.born;
        let behind = |here: &Op| self.start.receives && read(here);
        if let Some(here) = self.start.cursor.filter(behind) {
            out.push(Effect::Event(Event::Copied(CopySign::Cursor { here, read: resumed.cursor })));
        }
    }

    /// A numbered request is done, or another has its number.
    fn on_result(&mut self, now: Moment, seq: Seq, result: Result<Op, Code>, out: &mut Vec<Effect>) {
        if self.outbox.place(seq).is_some() {
            self.backoff.answered(now);
        }
        if result == Err(Code::NumberTaken) {
            self.outbox.taken(now, seq, out);
        } else {
            self.outbox.answered(now, seq, result, out);
        }
    }

    fn on_error(&mut self, now: Moment, refused: Refused, out: &mut Vec<Effect>) {
        let wait = retry_wait(refused.retry_ms);
        match refused.answers {
            Answers::Request(seq) if outbox::passes(refused.code) => {
                let (noise, place) = (self.draw(), self.outbox.place(seq));
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
            Answers::Query(query) if outbox::passes(refused.code) => {
                let (noise, place) = (self.draw(), self.place(query));
                if let (Some(asked), Some(place)) = (self.questions.get_mut(&query), place) {
                    self.backoff.refused(now, place, wait, noise);
                    asked.again = Again::now(now);
                }
            }
            Answers::Query(query) => self.answer(now, query, Answer::Refused(refused.code), out),
            // Its place went to another, or there is none yet: asked for again after a while.
            Answers::Session if outbox::passes(refused.code) => {
                if matches!(self.state, State::Served) {
                    self.state = State::Resuming { again: Again { at: now + wait, wait: ASK_AGAIN_MIN } };
                }
            }
            // Before anything was handed out the stream may begin elsewhere; later its notifications would
            // be taken for those of another history.
            Answers::Session if refused.code == Code::BeyondEnd && !self.connected => {
                if matches!(self.state, State::Resuming { .. }) {
                    self.lost = self.start.cursor.take().or(self.lost);
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

    /// The session is over. One that was never confirmed came too late, or another CONNECT of this device
    /// came after it: another is asked for. After ever longer waits, or two copies of a device that begin at
    /// the same time would end each other's sessions for ever.
    fn on_over(&mut self, now: Moment, code: Code, wait: Duration, out: &mut Vec<Effect>) {
        if self.connected {
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
            // A session that was never served is nothing to close: it ends by itself.
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

    // ---- small things

    /// Whether a stream may be coming in, and it is known where it began.
    fn has_stream(&self) -> bool {
        self.connected && matches!(self.state, State::Served | State::Resuming { .. })
    }

    /// Where the primary of the highest view is, if its address is known.
    fn primary(&self) -> Option<SocketAddr> {
        self.servers.address_of(self.view.primary()?)
    }

    fn draw(&mut self) -> u64 {
        self.start.entropy.number()
    }
}
