//! Pending notifications: one stream a session, in op order, with window, retransmission and
//! congestion control. Everything that goes to clients goes through here, so that one machine
//! numbers the packets of a session.
//!
//! Pure: `handle(now, input, &mut effects)` and `next_deadline()`.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::id::{Moment, Op, SessionId};
use crate::wire::envelope::Ack;
use crate::wire::packet::{ClientAck, Coordinator, Notification, Packet};

/// What happens to the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// From the listener: a datagram of a session was opened well. Always before what it carried.
    Heard {
        /// Which session.
        session: SessionId,
        /// From where: the session's address from now on, if the number is the highest so far.
        from: SocketAddr,
        /// Its packet number.
        number: u64,
        /// What it acknowledges.
        ack: Option<Ack>,
    },
    /// From a handler: CLIENT_ACK of a session.
    ClientAck(SessionId, ClientAck),
    /// From the replica thread: this server, primary, serves the session from `cursor` on: start
    /// (or restart) its stream there, after the packets (ACCEPT_CONN or RESUME_OK).
    Serve {
        /// Which session.
        session: SessionId,
        /// Where the client stands.
        cursor: Op,
        /// How many notifications it takes beyond; none: a session that only sends.
        credit: Option<u32>,
    },
    /// The session is over: forget it once `packets` are sent.
    Over {
        /// Which session.
        session: SessionId,
        /// The last words.
        packets: Vec<Packet>,
    },
    /// An answer on a session.
    Answer {
        /// Which session.
        session: SessionId,
        /// What.
        packet: Packet,
    },
    /// An answer to an address without a session.
    AnswerTo {
        /// Where to.
        to: SocketAddr,
        /// What.
        packet: Packet,
    },
    /// A notification was applied; addressed to these live receiving sessions.
    Applied {
        /// It.
        notification: Arc<Notification>,
        /// To whom.
        sessions: Vec<SessionId>,
    },
    /// The page asked for by [`Effect::WantPage`].
    Page {
        /// Which session.
        session: SessionId,
        /// After which op it was asked.
        after: Op,
        /// The page.
        page: crate::service::Page,
    },
    /// An active view is known: announce it to every address heard, and put it into every header.
    Announce(Coordinator),
    /// This server is no longer (or not yet) an active primary: streams stop, links stay.
    Silence,
    /// A deadline may have passed.
    Deadline,
}

/// What the delivery wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes to a client.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Ask the replica thread for a page of a session that is behind.
    WantPage {
        /// Which session.
        session: SessionId,
        /// What is pending beyond this op.
        after: Op,
        /// At most so many.
        limit: u32,
    },
    /// A session's application has delivered up to here.
    Cursor {
        /// Which session.
        session: SessionId,
        /// The new cursor.
        upto: Op,
    },
}

/// The machine of the PendingNotificationWorker.
#[derive(Debug)]
pub struct Delivery {}

impl Delivery {
    /// Nothing pending yet.
    pub fn new(_config: &Config, _incarnation: crate::id::Incarnation) -> Delivery {
        todo!()
    }

    /// Takes one input at `now`, pushing what is to be done.
    pub fn handle(&mut self, _now: Moment, _input: Input, _out: &mut Vec<Effect>) {
        todo!()
    }

    /// When a [`Input::Deadline`] is wanted at the latest.
    pub fn next_deadline(&self) -> Option<Moment> {
        todo!()
    }
}
