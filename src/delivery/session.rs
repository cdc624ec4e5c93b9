//! One session as the delivery knows it: its link, where the client is, and its stream.

use std::net::SocketAddr;
use std::time::Duration;

use super::Effect;
use super::stream::Stream;
use crate::fair::Network;
use crate::id::{Moment, Op, SessionId, View};
use crate::wire::Link;
use crate::wire::envelope::{Ack, HEADER_MAX, OUTER_LEN};
use crate::wire::link::LinkEvent;
use crate::wire::packet::{Answers, ClientAck, Code, Packet, Refused};
use crate::wire::seal::TAG_LEN;

/// A client not heard for so long is away: nothing is announced to it and its queue is dropped.
/// Clients say that they live every 2 s.
pub(super) const AWAY_AFTER: Duration = Duration::from_secs(60);

/// How long a client may speak on a session that is not served before it is told, and how often then. One
/// that resumes, as after a failover, is served within a round trip of its first datagram.
const REMIND_EVERY: Duration = Duration::from_secs(1);

/// When a client whose place went to another is to ask again: not at once, or the two take it in turns.
const TURNED_AWAY_RETRY: Duration = Duration::from_secs(1);

/// The longest PATH_CHALLENGE: its headers, its tag and a number, with their own marks.
pub(super) const CHALLENGE_MAX: usize = OUTER_LEN + HEADER_MAX + 1 + 9 + TAG_LEN;

/// A datagram of a session, opened well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) from: SocketAddr,
    pub(super) number: u64,
    pub(super) ack: Option<Ack>,
    pub(super) length: usize,
}

/// An address that may be the client's new one: it was asked whether it receives there.
#[derive(Clone, Copy, Debug)]
struct Trial {
    address: SocketAddr,
    token: u64,
}

/// Whether a session is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serving {
    Yes,
    /// And since when its client has spoken to the primary all the same, or was last told.
    No {
        spoke: Option<Moment>,
    },
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    id: SessionId,
    pub(super) link: Link,
    /// Where the client has shown that it receives.
    address: Option<SocketAddr>,
    trial: Option<Trial>,
    highest: u64,
    /// When it was last heard, or made.
    pub(super) heard: Moment,
    pub(super) stream: Option<Stream>,
    serving: Serving,
    /// Under which deadline it stands in the delivery's index.
    pub(super) deadline: Option<Moment>,
}

impl Session {
    pub(super) fn new(now: Moment, id: SessionId, link: Link) -> Session {
        Session {
            id,
            link,
            address: None,
            trial: None,
            highest: 0,
            heard: now,
            stream: None,
            serving: Serving::No { spoke: None },
            deadline: None,
        }
    }

    /// A datagram of it was opened; false if it came before. That counts for nothing: not even for
    /// the address, or whoever replays it would draw the stream away. Neither does one from a new address,
    /// before somebody there has shown to be the client: whoever can hold back a datagram could
    /// send it on from an address of another's (RFC 9000 section 9.3). The question is never longer
    /// than what it is asked upon.
    pub(super) fn on_heard(&mut self, now: Moment, heard: &Heard, token: u64, out: &mut Vec<Effect>) -> bool {
        let Heard { from, number, ack, length } = *heard;
        if !self.link.receive(now, number, ack) {
            return false;
        }
        self.heard = now;
        let newest = number > self.highest;
        self.highest = self.highest.max(number);
        if self.address == Some(from) || !newest {
            return true;
        }
        let trial =
            self.trial.filter(|trial| trial.address == from).unwrap_or(Trial { address: from, token });
        self.trial = Some(trial);
        if length >= CHALLENGE_MAX {
            let mut datagrams = Vec::new();
            let challenge = [Packet::PathChallenge(trial.token)];
            self.link.transmit(now, View::ZERO, &challenge, None, &mut datagrams);
            out.extend(datagrams.into_iter().map(|bytes| Effect::Datagram { to: from, bytes }));
        }
        true
    }

    /// PATH_RESPONSE: the address is the client's if it was asked this there; its new one.
    pub(super) fn on_path_response(&mut self, from: SocketAddr, token: u64) -> Option<SocketAddr> {
        let trial = self.trial.take_if(|trial| trial.address == from && trial.token == token)?;
        self.address = Some(trial.address);
        self.address
    }

    /// CLIENT_ACK; the new cursor, if it moved.
    pub(super) fn on_client_ack(&mut self, now: Moment, ack: &ClientAck) -> Option<Op> {
        let patience = self.link.rto();
        self.stream.as_mut()?.client_ack(now, ack, patience)
    }

    /// From now on it is served; a session that only sends has no stream.
    pub(super) fn serve(&mut self, stream: Option<Stream>) {
        self.stream = stream;
        self.serving = Serving::Yes;
    }

    /// From now on it is not served.
    pub(super) fn silence(&mut self) {
        self.stream = None;
        self.serving = Serving::No { spoke: None };
    }

    pub(super) fn is_served(&self) -> bool {
        self.serving == Serving::Yes
    }

    /// The network where its client has shown that it receives.
    pub(super) fn network(&self) -> Option<Network> {
        self.address.map(|address| Network::of(address.ip()))
    }

    /// Its client has spoken to the primary. It may believe that it is served, its place having gone to
    /// another: if it goes on speaking and is not, it is told.
    pub(super) fn remind(&mut self, now: Moment, view: View, out: &mut Vec<Effect>) {
        let Serving::No { spoke } = self.serving else { return };
        let since = spoke.unwrap_or(now);
        self.serving = Serving::No { spoke: Some(since) };
        if now.since(since) >= REMIND_EVERY {
            self.serving = Serving::No { spoke: Some(now) };
            self.say_busy(now, view, Duration::ZERO, out);
        }
    }

    /// Says that its place has gone to another.
    pub(super) fn turn_away(&mut self, now: Moment, view: View, out: &mut Vec<Effect>) {
        self.say_busy(now, view, TURNED_AWAY_RETRY, out);
    }

    /// Says that it is not served, so that its client resumes.
    fn say_busy(&mut self, now: Moment, view: View, retry: Duration, out: &mut Vec<Effect>) {
        let retry_ms = retry.as_millis() as u32;
        let busy = Refused { code: Code::Busy, answers: Answers::Session, retry_ms };
        self.say(now, view, &[Packet::Error(busy)], out);
    }

    /// Whether its client has been heard lately.
    pub(super) fn present(&self, now: Moment) -> bool {
        now < self.heard + AWAY_AFTER
    }

    /// Sends packets at once, untracked: the client asks again for what does not come. Without an
    /// address they are dropped.
    pub(super) fn say(&mut self, now: Moment, view: View, packets: &[Packet], out: &mut Vec<Effect>) {
        self.transmit(now, view, packets, None, out);
    }

    fn transmit(
        &mut self,
        now: Moment,
        view: View,
        packets: &[Packet],
        token: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        let Some(to) = self.address else { return };
        let mut datagrams = Vec::new();
        self.link.transmit(now, view, packets, token, &mut datagrams);
        out.extend(datagrams.into_iter().map(|bytes| Effect::Datagram { to, bytes }));
    }

    /// Runs the timers that are due, learns what became of what was sent, asks for a page if one is
    /// wanted, and sends what credit and windows allow.
    pub(super) fn pump(&mut self, now: Moment, view: View, next_token: &mut u64, out: &mut Vec<Effect>) {
        let present = self.present(now) && self.address.is_some();
        if self.link.next_deadline().is_some_and(|at| now >= at) {
            self.link.on_deadline(now);
        }
        while let Some(event) = self.link.poll_event() {
            match (&mut self.stream, event) {
                (Some(stream), LinkEvent::Acked(token)) => stream.arrived(now, token),
                (Some(stream), LinkEvent::Lost(token)) => stream.lost(token),
                (None, _) => {}
            }
        }
        if present && self.link.owes_ack() {
            self.say(now, view, &[], out);
        }
        let Some(stream) = &mut self.stream else { return };
        if !present {
            stream.sleep();
            return;
        }
        stream.on_deadline(now);
        if let Some((after, limit)) = stream.want_page(now) {
            out.push(Effect::WantPage { session: self.id, after, limit });
        }
        while self.link.room() > 0 {
            let Some(stream) = &mut self.stream else { return };
            let packets = stream.next_batch(*next_token);
            if packets.is_empty() {
                return;
            }
            let token = *next_token;
            *next_token += 1;
            self.transmit(now, view, &packets, Some(token), out);
        }
    }

    /// When [`Session::pump`] wants to be called.
    pub(super) fn next_deadline(&self, now: Moment) -> Option<Moment> {
        let stream =
            if self.present(now) { self.stream.as_ref().and_then(Stream::next_deadline) } else { None };
        [self.link.next_deadline(), stream].into_iter().flatten().min()
    }
}
