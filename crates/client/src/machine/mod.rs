//! Client machine: finds the primary, keeps a session through failovers, numbers requests and retransmits
//! them until they are answered, and hands out notifications once and in order.
//!
//! Pure: `handle(now, input, &mut effects)`, `flush(now, &mut effects)` and `next_deadline()`. Handling an
//! input sends what answers a server's handshake, and acks that are due; what else the inputs of a turn have
//! left to send goes out in its flush, so that it shares datagrams.
//!
//! | to read | about |
//! |---|---|
//! | `interface` | inputs, effects, and the types in them |
//! | `session` | CONNECT, RESUME, DISCONNECT, and the end of a session |
//! | `primary` | views, keepalives, and the search for a silent primary |
//! | `packets` | what arrives from servers |
//! | `outbox`, `inbox`, `queries` | numbered requests, the stream of notifications, queries |
//! | `again`, `backoff` | when something is sent again, and how much at once |
//! | `obstacle` | why no session is open yet |
//! | `server`, `paths`, `handshake` | the servers, the session's paths to them, the handshake with each |
//! | `reading`, `handshakes` | a query without a session to any of the servers, the handshakes for it |

mod again;
mod backoff;
pub mod handshake;
pub mod handshakes;
mod inbox;
mod interface;
mod obstacle;
mod outbox;
mod packets;
mod paths;
mod primary;
mod queries;
pub mod reading;
mod server;
mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use recado_proto::id::{Moment, Op, Seq, SessionId, View};
use recado_proto::packet::{QueryId, ToServer};
use recado_proto::planted::Planted;

use again::Again;
use backoff::Backoff;
use inbox::Inbox;
use outbox::{Batch, Outbox};
use primary::{KEEPALIVE_EVERY, KEEPALIVE_OTHERS, Keepalives};
use queries::PendingQuery;
use server::Servers;

pub use interface::{Answer, CopySign, Effect, Event, Input, Numbered, Query, Request, Start};
pub use obstacle::Obstacle;

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

/// The client machine.
#[derive(Debug)]
pub struct Machine {
    start: Start,
    state: State,
    servers: Servers,
    /// The highest active view known.
    view: View,
    /// The highest op that a server has told: no answer to a query is older.
    token: Op,
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
    /// The time of the first keepalive to the primary after its last datagram; none if none was sent since.
    kept_alive: Option<Moment>,
    /// The keepalives to the primary of the highest view ...
    to_primary: Keepalives,
    /// ... and to the other servers.
    to_others: Keepalives,
}

impl Machine {
    /// Creates a machine and begins the search for the primary.
    pub fn new(now: Moment, mut start: Start, out: &mut Vec<Effect>) -> Machine {
        let outbox = Outbox::new(start.outbox.iter().cloned(), start.highest_seq.unwrap_or_default());
        let mut servers = Servers::new(&start.servers, start.identity.clone());
        servers.go_on(std::mem::take(&mut start.handshakes));
        let mut machine = Machine {
            servers,
            inbox: Inbox::new(start.receives, start.planted),
            state: State::Connecting { nonce: start.entropy.number(), again: Again::now(now) },
            view: View::ZERO,
            token: Op::ZERO,
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
            kept_alive: None,
            to_primary: Keepalives::begin(now, KEEPALIVE_EVERY),
            to_others: Keepalives::begin(now, KEEPALIVE_OTHERS),
            start,
        };
        machine.flush(now, out);
        machine
    }

    /// Takes one input at `now` and pushes the resulting effects to `out`. What it leaves to send goes out in
    /// the next [`Machine::flush`], which follows soon: at the end of the turn in which the input came.
    pub fn handle(&mut self, now: Moment, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Datagram { from, bytes } => {
                self.on_datagram(now, from, &bytes, out);
                // An ack has a bounded number of ranges, so it does not wait for the end of a long turn.
                if self.primary().is_some_and(|primary| self.servers.owes_ack(primary)) {
                    self.acknowledge(now, out);
                }
            }
            Input::PortRefused(server) => self.on_port_refused(now, server, out),
            Input::Request(_) if !self.has_room() => out.push(Effect::Event(Event::NotTaken)),
            Input::Request(request) => {
                let nonce = self.start.entropy.number();
                self.outbox.add(now, request, nonce, out);
            }
            Input::Query(id, query) => self.on_query(now, id, query, out),
            Input::GiveUp(id) => drop(self.queries.remove(&id)),
            Input::Taken(op) => self.inbox.taken(now, op),
            Input::Disconnect => self.on_disconnect(now, out),
        }
    }

    /// Returns true if another [`Input::Request`] would be taken: the numbers from the lowest unanswered one
    /// on, and the requests whose numbers other requests took, are together fewer than
    /// [`OUTSTANDING_MAX`](recado_proto::id::OUTSTANDING_MAX), and the numbers are known (see
    /// [`Start::highest_seq`]).
    pub fn has_room(&self) -> bool {
        (self.connected || self.start.highest_seq.is_some()) && self.outbox.has_room()
    }

    /// The highest number of which the servers were told, or are with the datagrams that were not sent yet,
    /// that all requests below it are answered. The servers drop the results below it, so those answers must
    /// be durable first.
    pub fn told_below(&self) -> Seq {
        if self.start.planted.is(Planted::ToldBeforeSync) {
            return Seq(0);
        }
        self.outbox.told_below()
    }

    /// The latest time at which the machine wants a [`Machine::flush`].
    pub fn next_deadline(&self) -> Option<Moment> {
        let mut next: Option<Moment> = None;
        let mut at = |moment: Moment| next = Some(next.map_or(moment, |next| next.min(moment)));
        match &self.state {
            State::Over => {}
            State::Connecting { again, .. } | State::Leaving { again, .. } => at(again.at),
            State::Resuming { again } => {
                at(again.at);
                at(self.search_at());
                at(self.keepalive_at());
            }
            State::Served => {
                at(self.search_at());
                at(self.keepalive_at());
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

    /// Sends what the inputs since the last flush have left to send, and what is due, as far as windows
    /// allow, and pushes the effects.
    pub fn flush(&mut self, now: Moment, out: &mut Vec<Effect>) {
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
            if self.inbox.ack_due(now) {
                self.acknowledge(now, out);
            }
        }
        self.send_queries(now, out);
    }

    fn send_requests(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(primary) = self.primary().filter(|_| !self.backoff.waits(now)) else { return };
        while self.servers.room(primary) > 0 {
            let (rto, window) = (self.servers.rto(primary), self.backoff.window());
            let next = self.servers.next_number();
            let room = self.servers.packets_max(primary);
            let Some(batch) = self.outbox.next_batch(now, rto, window, next, room) else { return };
            let Batch { token, packets, more } = batch;
            let more = more && self.servers.room(primary) > self.servers.datagram_max(primary);
            self.servers.send_before(now, primary, self.view, &packets, Some(token), more, out);
        }
    }

    /// Sends CLIENT_ACK to the primary that serves the session.
    fn acknowledge(&mut self, now: Moment, out: &mut Vec<Effect>) {
        if matches!(self.state, State::Served)
            && let Some(primary) = self.primary()
        {
            let ack = ToServer::ClientAck(self.inbox.ack());
            self.servers.send(now, primary, self.view, &[ack], None, out);
        }
    }

    /// Returns true if the stream may be arriving and its beginning is known.
    fn has_stream(&self) -> bool {
        self.connected && matches!(self.state, State::Served | State::Resuming { .. })
    }

    /// The address of the primary of the highest view, if it is known.
    fn primary(&self) -> Option<SocketAddr> {
        self.servers.address_of(self.view.primary()?)
    }

    /// The highest op that the servers have told on this session, which no answer to a query may be older
    /// than. Zero after they were restored from an older copy.
    pub fn token(&self) -> Op {
        self.token
    }

    /// A server has told what is true up to this op.
    fn saw(&mut self, op: Op) {
        self.token = self.token.max(op);
    }

    fn draw(&mut self) -> u64 {
        self.start.entropy.number()
    }
}
